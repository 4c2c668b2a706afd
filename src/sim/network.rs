//! The links and connections of a world.
//!
//! A *link* is one direction between two nodes: what the wires' description says becomes of packets
//! on it ([`LinkState::fate`], the very function that the emulated sockets of real nodes use), and
//! whether an act of the plan has cut it. A *connection* is what two nodes have over their two
//! links. A cut that lasts longer than the time of detection ends it, as QUIC's idle timeout does;
//! once both directions carry again, the nodes connect anew. While neither has noticed, messages
//! are lost (or sent again and again, see [`Delivery`]).
//!
//! What must stay true: a message never reaches another life of its receiver than the one that it
//! was sent to, since no transport would bring it there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::plan::{Delivery, Plan, Wires};
use super::schedule::{Due, Parcel, Resend, Schedule, StreamKey};
use crate::protocol::boundary::Lane;
use crate::protocol::message::RoundId;
use crate::protocol::profile::{DropReason, Fate, Link, LinkState};
use crate::protocol::time::Time;

/// The bytes of a message that fit into one packet: what is left of QUIC's smallest datagram.
const PACKET_BYTES: usize = 1_200;

/// What QUIC adds to a probe timeout for acknowledgements that the receiver holds back (RFC 9002,
/// section 6.2.1), as the real nodes set it.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);

/// The longest that a lost packet waits before it is sent again, however often it was lost: the real
/// nodes probe a link that has fallen silent this often, and send again when an answer comes.
const RESEND_MAX: Duration = Duration::from_millis(100);

/// The least that QUIC adds to a probe timeout for the spread of round trips.
const SPREAD_MIN: Duration = Duration::from_millis(1);

/// How many doublings of the probe timeout are counted; by then every connection has ended.
const BACKOFF_DOUBLINGS_MAX: u32 = 10;

/// What became of a message at its sending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// It arrives at this time, and a second copy later.
    Arrives(Time, Option<Time>),
    /// Some packets were lost and will be sent again.
    Delayed,
    /// It never arrives.
    Lost(DropReason),
    /// There is no connection to send it on.
    Unconnected,
}

/// Two nodes, whatever their order.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// The number of their connection, the present or the last one.
    connection: u32,
    connected: bool,
    /// Since when nothing has come through, if it does not now.
    stuck_since: Option<Time>,
}

/// Messages of one stream that wait for the ones before them.
#[derive(Debug, Default)]
struct Stream {
    waiting: VecDeque<(Parcel, Option<Time>)>,
    /// The number of the first that waits.
    first: u64,
    last_arrival: Time,
}

/// All links of a world.
#[derive(Debug)]
pub(super) struct Network {
    nodes: usize,
    wires: Wires,
    delivery: Delivery,
    /// When the times in the wires' description begin.
    begin: Time,
    /// Which node is number 0 there, and the other way round.
    first: usize,
    links: Vec<Option<LinkState>>,
    cut: Vec<bool>,
    pairs: Vec<Pair>,
    streams: BTreeMap<StreamKey, Stream>,
    /// The number of streams at which those that are done are swept out.
    sweep_at: usize,
    rng: fastrand::Rng,
}

impl Network {
    pub(super) fn new(plan: &Plan, rng: fastrand::Rng) -> Self {
        let links = plan.nodes * plan.nodes;
        Self {
            nodes: plan.nodes,
            wires: plan.wires.clone(),
            delivery: plan.delivery,
            begin: Time::START + plan.warm_up,
            first: 0,
            links: vec![None; links],
            cut: vec![false; links],
            pairs: vec![Pair::default(); links],
            streams: BTreeMap::new(),
            sweep_at: 64,
            rng,
        }
    }

    pub(super) fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    fn index(&self, from: usize, to: usize) -> usize {
        from * self.nodes + to
    }

    fn pair(&mut self, one: usize, other: usize) -> &mut Pair {
        let index = self.index(one.min(other), one.max(other));
        &mut self.pairs[index]
    }

    /// The number of the connection of two nodes, the present or the last one.
    pub(super) fn connection(&self, one: usize, other: usize) -> u32 {
        self.pairs[self.index(one.min(other), one.max(other))].connection
    }

    pub(super) fn is_connected(&self, one: usize, other: usize) -> bool {
        self.pairs[self.index(one.min(other), one.max(other))].connected
    }

    /// A new connection.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        let pair = self.pair(one, other);
        pair.connection += 1;
        pair.connected = true;
        pair.stuck_since = None;
    }

    /// The end of a connection.
    pub(super) fn disconnect(&mut self, one: usize, other: usize) {
        let pair = self.pair(one, other);
        pair.connected = false;
        pair.stuck_since = None;
    }

    /// Cuts a link, or mends it.
    pub(super) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        let index = self.index(from, to);
        self.cut[index] = cut;
    }

    pub(super) fn heal(&mut self) {
        self.cut.fill(false);
    }

    /// From now on packets neither get lost nor doubled nor out of turn, and nothing is cut.
    pub(super) fn end_faults(&mut self) {
        self.heal();
        let link = match &self.wires {
            Wires::Uniform(link) => Arc::clone(link),
            Wires::Profile(profile) => profile.default_link(),
        };
        let (loss, duplicate, reorder, cuts) = (0.0, 0.0, 0.0, Vec::new());
        let whole = Link { loss, duplicate, reorder, cuts, ..(*link).clone() };
        self.wires = Wires::Uniform(Arc::new(whole));
        self.links.fill(None);
    }

    /// The links are as described from now on, cuts included; `first` is node 0 of the description.
    pub(super) fn begin(&mut self, first: usize) {
        self.first = first;
        self.links.fill(None);
    }

    /// What the direction from one node to another is described to do.
    pub(super) fn described(&self, from: usize, to: usize) -> Arc<Link> {
        self.wires.link(self.part(from), self.part(to))
    }

    /// Which node of the description a node is.
    fn part(&self, node: usize) -> usize {
        match node {
            0 => self.first,
            node if node == self.first => 0,
            node => node,
        }
    }

    /// The time in the terms of the wires' description.
    pub(super) fn described_time(&self, now: Time) -> Duration {
        now.since(if now < self.begin { Time::START } else { self.begin })
    }

    /// Whether nothing passes between two nodes in one direction or both.
    pub(super) fn is_cut(&mut self, now: Time, one: usize, other: usize) -> bool {
        let by_act = self.cut[self.index(one, other)] || self.cut[self.index(other, one)];
        let at = self.described_time(now);
        by_act
            || self.link(now, one, other).link().is_cut(at)
            || self.link(now, other, one).link().is_cut(at)
    }

    /// Takes note of whether two nodes can talk; says since when not, if that is new.
    pub(super) fn set_stuck(
        &mut self,
        now: Time,
        one: usize,
        other: usize,
        stuck: bool,
    ) -> Option<Time> {
        let pair = self.pair(one, other);
        if !stuck {
            pair.stuck_since = None;
            return None;
        }
        match pair.stuck_since {
            Some(_) => None,
            None => {
                pair.stuck_since = Some(now);
                Some(now)
            }
        }
    }

    /// Whether two nodes are connected but have not been able to talk since then.
    pub(super) fn is_stuck_since(&self, one: usize, other: usize, since: Time) -> bool {
        let pair = &self.pairs[self.index(one.min(other), one.max(other))];
        pair.connected && pair.stuck_since == Some(since)
    }

    /// The mean round trip between two nodes.
    pub(super) fn round_trip(&self, one: usize, other: usize) -> Duration {
        match &self.wires {
            Wires::Uniform(link) => link.latency * 2,
            _ => self.described(one, other).latency + self.described(other, one).latency,
        }
    }

    fn link(&mut self, now: Time, from: usize, to: usize) -> &mut LinkState {
        let index = self.index(from, to);
        if self.links[index].is_none() {
            let link = self.described(from, to);
            let link = match now >= self.begin || link.cuts.is_empty() {
                true => link,
                false => Arc::new(Link { cuts: Vec::new(), ..(*link).clone() }),
            };
            self.links[index] = Some(LinkState::new(link));
        }
        self.links[index].as_mut().expect("made just now")
    }

    /// Gives a message to its link.
    pub(super) fn send(
        &mut self,
        now: Time,
        parcel: Parcel,
        lane: Lane,
        schedule: &mut Schedule,
    ) -> Sending {
        let (from, to) = (parcel.from as usize, parcel.to as usize);
        if !self.is_connected(from, to) {
            return Sending::Unconnected;
        }
        match self.delivery {
            Delivery::Lossy => self.send_once(now, parcel, schedule),
            Delivery::Reliable => self.send_stream(now, parcel, lane, schedule),
        }
    }

    /// What becomes of one packet.
    fn fate(&mut self, now: Time, from: usize, to: usize, bytes: usize) -> Fate {
        if self.cut[self.index(from, to)] {
            return Fate::Drop(DropReason::Cut);
        }
        let at = self.described_time(now);
        // The dice are lent out, because the link is part of this network, too.
        let mut rng = std::mem::replace(&mut self.rng, fastrand::Rng::with_seed(0));
        let fate = self.link(now, from, to).fate(at, bytes, &mut rng);
        self.rng = rng;
        fate
    }

    fn send_once(&mut self, now: Time, parcel: Parcel, schedule: &mut Schedule) -> Sending {
        let bytes = parcel.payload.bytes;
        match self.fate(now, parcel.from as usize, parcel.to as usize, bytes) {
            Fate::Drop(reason) => Sending::Lost(reason),
            Fate::Deliver { after, again } => {
                if let Some(again) = again {
                    schedule.push(now + again, Due::Deliver(parcel.clone()));
                }
                schedule.push(now + after, Due::Deliver(parcel));
                Sending::Arrives(now + after, again.map(|again| now + again))
            }
        }
    }

    fn send_stream(
        &mut self,
        now: Time,
        parcel: Parcel,
        lane: Lane,
        schedule: &mut Schedule,
    ) -> Sending {
        let (from, to) = (parcel.from as usize, parcel.to as usize);
        let packets = parcel.payload.bytes.div_ceil(PACKET_BYTES).max(1);
        let bytes = parcel.payload.bytes / packets;
        let (arrival, lost) = self.send_packets(now, from, to, packets, bytes);
        let link = self.link(now, from, to).link();
        let keeps_order = link.loss == 0.0 && link.reorder == 0.0 && link.bandwidth.is_none();
        if lost == 0 && keeps_order && link.cuts.is_empty() && self.streams.is_empty() {
            schedule.push(arrival, Due::Deliver(parcel));
            return Sending::Arrives(arrival, None);
        }
        let round = match lane {
            Lane::Push => None,
            // No exchange has this number but by a chance of one in 2⁶⁴.
            Lane::Vote => Some(RoundId(u64::MAX)),
            Lane::Exchange { round, .. } => Some(round),
        };
        let connection = parcel.connection;
        let key = StreamKey { from: parcel.from, to: parcel.to, connection, round };
        let stream = self.streams.entry(key).or_default();
        let number = stream.first + stream.waiting.len() as u64;
        let done = lost == 0;
        stream.waiting.push_back((parcel, done.then_some(arrival)));
        if done {
            let before = stream.waiting.len();
            stream.release(schedule);
            let delivered = stream.waiting.len() < before;
            let at = stream.last_arrival;
            self.sweep(now);
            return if delivered { Sending::Arrives(at, None) } else { Sending::Delayed };
        }
        let resend = Resend { stream: key, number, packets: lost, bytes, arrival, tries: 1 };
        schedule.push(now + self.probe_timeout(now, from, to), Due::Resend(Box::new(resend)));
        Sending::Delayed
    }

    /// Sends packets at once: when the last that arrives does, and how many do not.
    fn send_packets(
        &mut self,
        now: Time,
        from: usize,
        to: usize,
        packets: usize,
        bytes: usize,
    ) -> (Time, usize) {
        let (mut arrival, mut lost) = (now, 0);
        for _ in 0..packets {
            match self.fate(now, from, to, bytes) {
                Fate::Deliver { after, .. } => arrival = arrival.max(now + after),
                Fate::Drop(_) => lost += 1,
            }
        }
        (arrival, lost)
    }

    /// Sends lost packets again.
    pub(super) fn resend(&mut self, now: Time, mut again: Box<Resend>, schedule: &mut Schedule) {
        let (from, to) = (again.stream.from as usize, again.stream.to as usize);
        let alive =
            self.is_connected(from, to) && self.connection(from, to) == again.stream.connection;
        if !alive {
            self.streams.remove(&again.stream);
            return;
        }
        let (arrival, lost) = self.send_packets(now, from, to, again.packets, again.bytes);
        again.arrival = again.arrival.max(arrival);
        if lost > 0 {
            let timeout = self.probe_timeout(now, from, to);
            let doubled = timeout * 2u32.pow(again.tries.min(BACKOFF_DOUBLINGS_MAX));
            let timeout = doubled.min(RESEND_MAX.max(timeout));
            again.packets = lost;
            again.tries += 1;
            schedule.push(now + timeout, Due::Resend(again));
            return;
        }
        if let Some(stream) = self.streams.get_mut(&again.stream) {
            let at = usize::try_from(again.number - stream.first).unwrap_or(usize::MAX);
            if let Some((_, arrival)) = stream.waiting.get_mut(at) {
                *arrival = Some(again.arrival);
            }
            stream.release(schedule);
        }
    }

    /// RFC 9002, section 6.2.1, for a round trip that has settled.
    fn probe_timeout(&mut self, now: Time, from: usize, to: usize) -> Duration {
        let there = self.link(now, from, to).link();
        let (latency, jitter) = (there.latency, there.jitter);
        let back = self.link(now, to, from).link();
        let spread = (jitter + back.jitter) * 2;
        latency + back.latency + spread.max(SPREAD_MIN) + ACK_DELAY_MAX
    }

    /// Forgets streams on which nothing is under way.
    fn sweep(&mut self, now: Time) {
        if self.streams.len() >= self.sweep_at {
            self.streams
                .retain(|_, stream| !stream.waiting.is_empty() || stream.last_arrival > now);
            self.sweep_at = 2 * self.streams.len().max(32);
        }
    }
}

impl Stream {
    /// Delivers, in order, what waits for nothing any more.
    fn release(&mut self, schedule: &mut Schedule) {
        while let Some((_, Some(arrival))) = self.waiting.front() {
            self.last_arrival = self.last_arrival.max(*arrival);
            self.first += 1;
            if let Some((parcel, _)) = self.waiting.pop_front() {
                schedule.push(self.last_arrival, Due::Deliver(parcel));
            }
        }
    }
}
