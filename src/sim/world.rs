//! A cluster in one thread and in virtual time.
//!
//! A world is driven from outside, one step at a time: [`World::next`] advances time to the next
//! thing that happens and hands it out, [`World::perform`] does it. Between the two a caller may
//! look at everything, which is what checkers do. A node's output is carried out exactly as a real
//! server does it: messages are sent, then clients get their replies, then events are told, then the
//! next waking is set.
//!
//! What must stay true: the plan decides everything, so the same plan gives the same run, step by
//! step; and a node learns of the world through the inputs of [`Shard::handle`] alone.
//!
//! Left out: clocks that run at different speeds, and the time that handling takes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::disk::Disk;
use super::happening::{Happening, token};
use super::network::{Network, Sending};
use super::plan::{Act, Delivery, Plan};
use super::schedule::{Due, Parcel, Payload, Schedule, small};
use super::tally::Tally;
use crate::protocol::boundary::{Input, Output, Request, Token};
use crate::protocol::codec;
use crate::protocol::config::{Config, VOTERS_DEFAULT};
use crate::protocol::id::{NodeId, Origin};
use crate::protocol::message::{Envelope, Message};
#[cfg(test)]
use crate::protocol::shard::Careless;
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Dot;
use crate::protocol::store::Store;
use crate::protocol::time::{Time, WallTime};

/// A message that was handed to the network, for the story.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The receiver.
    pub to: usize,
    /// What became of it.
    pub sending: Sending,
    payload: Arc<Payload>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("plan", &self.plan.name).field("now", &self.now).finish()
    }
}

/// A node of a world.
pub(super) struct Node {
    pub(super) shard: Option<Shard>,
    /// How often it has started.
    pub(super) incarnation: u32,
    /// The number of the last incarnation under which it has written.
    last_life: u64,
    pub(super) disk: Disk,
    pub(super) paused: bool,
    /// What it will handle when it goes on.
    backlog: VecDeque<Happening>,
    wants_wake: Option<Time>,
    /// The earliest wake that is scheduled.
    wake_scheduled: Option<Time>,
    /// The connection to each peer of which it was told and has not seen the end; 0 for none.
    pub(super) sees: Vec<u32>,
}

/// A cluster in virtual time. See the module's documentation.
pub struct World {
    pub(super) plan: Plan,
    pub(super) now: Time,
    pub(super) schedule: Schedule,
    pub(super) network: Network,
    pub(super) nodes: Vec<Node>,
    pub(super) output: Output,
    /// Requests whose answers went out in the last step.
    pub(super) released: Vec<Token>,
    tells: bool,
    sent: Vec<Sent>,
    /// What has been sent so far.
    tally: Tally,
    #[cfg(test)]
    pub(super) tamper: Option<Tamper>,
    /// Whether a node that comes back goes on under its old origin, which is wrong.
    #[cfg(test)]
    pub(super) reuses_origins: bool,
    /// The rule that all nodes break.
    #[cfg(test)]
    careless: Careless,
    /// Whether disks forget half of what was durable.
    #[cfg(test)]
    pub(super) disks_lie: bool,
}

/// Breaks a rule on purpose, in tests: changes a message as it is sent, or drops it by `false`.
#[cfg(test)]
pub(super) type Tamper = Box<dyn FnMut(&Shard, usize, &mut Envelope) -> bool>;

impl Sent {
    /// Whether this is the same message as another, sent to somebody else at once.
    pub fn is_same_message(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.payload, &other.payload)
    }

    /// The message.
    pub fn message(&self) -> &Message {
        &self.payload.envelope.message
    }

    /// How many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.payload.bytes
    }
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        self.shard.is_some()
    }
}

impl World {
    /// The world as the plan has it at its start: every node is up and connected to every other.
    ///
    /// `tells` keeps what was sent in the last step for [`World::sent`].
    pub fn new(plan: Plan, tells: bool) -> Self {
        let mut seeds = fastrand::Rng::with_seed(plan.seed);
        let network = Network::new(&plan, seeds.fork());
        let mut schedule = Schedule::default();
        let begin = Time::START + plan.warm_up;
        schedule.push(begin, Due::Begin);
        for (number, (at, _)) in plan.acts.iter().enumerate() {
            schedule.push(begin + *at, Due::Act(small(number)));
        }
        schedule.push(begin + plan.faults_end, Due::Act(u32::MAX));
        let nodes = (0..plan.nodes).map(|_| Node {
            shard: None,
            incarnation: 0,
            last_life: 0,
            disk: Disk::default(),
            paused: false,
            backlog: VecDeque::new(),
            wants_wake: None,
            wake_scheduled: None,
            sees: vec![0; plan.nodes],
        });
        let mut world = Self {
            now: Time::START,
            schedule,
            network,
            nodes: nodes.collect(),
            output: Output::default(),
            released: Vec::new(),
            tells,
            sent: Vec::new(),
            tally: Tally::default(),
            plan,
            #[cfg(test)]
            tamper: None,
            #[cfg(test)]
            reuses_origins: false,
            #[cfg(test)]
            careless: Careless::No,
            #[cfg(test)]
            disks_lie: false,
        };
        (0..world.nodes.len()).for_each(|node| world.start(node));
        for one in 0..world.nodes.len() {
            for other in one + 1..world.nodes.len() {
                world.schedule.push(Time::START, Due::Connect(small(one), small(other)));
            }
        }
        world
    }

    /// Has all nodes break a rule from now on.
    #[cfg(test)]
    pub(super) fn be_careless(&mut self, careless: Careless) {
        self.careless = careless;
        let shards = self.nodes.iter_mut().filter_map(|node| node.shard.as_mut());
        shards.for_each(|shard| shard.careless = careless);
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What the run consists of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The shard of a node, if it is up.
    pub fn shard(&self, node: usize) -> Option<&Shard> {
        self.nodes[node].shard.as_ref()
    }

    /// The shards of the nodes that are up.
    pub fn shards(&self) -> impl Iterator<Item = (usize, &Shard)> {
        self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.shard.as_ref()?)))
    }

    /// Whether a node handles nothing for the time being.
    pub fn is_paused(&self, node: usize) -> bool {
        self.nodes[node].paused
    }

    /// What the last step gave, apart from messages: replies and events.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// The requests whose answers went out to clients in the last step.
    pub fn released(&self) -> &[Token] {
        &self.released
    }

    /// What was sent in the last step, if the world tells.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// What has been sent, counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Counts from zero again.
    pub fn reset_tally(&mut self) {
        self.tally = Tally::default();
    }

    /// Whether all nodes are up and hold the same, by their own account, and show all that they have:
    /// two that fill themselves anew both hold nothing at first.
    pub fn is_converged(&self) -> bool {
        let mut summaries = self.shards().map(|(_, shard)| shard.summary());
        let first = summaries.next();
        let is_done = self.nodes.iter().all(Node::is_up)
            && self.shards().all(|(_, shard)| !shard.is_filling());
        is_done && summaries.all(|summary| Some(summary) == first)
    }

    /// Whether no node that is up has any tombstone left, nor any key with a deadline.
    pub fn has_collected(&self) -> bool {
        let left = |store: &Store| store.tombstones() + store.keys_with_deadline();
        self.shards().all(|(_, shard)| left(shard.store()) == 0)
    }

    /// The id of a node.
    pub fn id(&self, node: usize) -> NodeId {
        id_of(node)
    }

    /// The node of an id.
    pub fn node(&self, id: NodeId) -> usize {
        number_of(id)
    }

    /// How often a node has started.
    pub fn incarnation(&self, node: usize) -> u32 {
        self.nodes[node].incarnation
    }

    /// Advances to the next thing that happens before `end`, or at it, and hands it out; `None`
    /// when there is none, and then it is `end`.
    pub fn next(&mut self, end: Time) -> Option<Happening> {
        while self.schedule.next().is_some_and(|at| at <= end) {
            let (at, due) = self.schedule.pop()?;
            self.now = self.now.max(at);
            if let Some(happening) = self.due(due) {
                return Some(happening);
            }
        }
        self.now = self.now.max(end);
        None
    }

    /// Does what [`World::next`] handed out.
    pub fn perform(&mut self, happening: Happening) {
        self.output.clear();
        self.released.clear();
        self.sent.clear();
        match happening {
            Happening::Act(act) => self.act(act),
            Happening::Requests { node, requests } => {
                for (token, request) in &requests {
                    self.request(node, *token, request);
                }
                self.carry_out(node);
            }
            Happening::Message { from, to, envelope } => {
                let from = self.id(from);
                self.handle(to, Input::Message(from, envelope));
            }
            Happening::PeerUp { node, peer } => {
                let round_trip = self.network.round_trip(node, peer);
                let peer = self.id(peer);
                self.handle(node, Input::PeerUp(peer, round_trip));
            }
            Happening::PeerDown { node, peer } => {
                let peer = self.id(peer);
                self.handle(node, Input::PeerDown(peer));
            }
            Happening::Wake { node } => {
                let wall = wall_at(self.now);
                self.handle(node, Input::Wake(wall));
            }
            Happening::Synced { node, frames } => self.synced(node, frames),
        }
    }

    /// The name of the last cell that a node has written in its present life.
    pub fn last_dot(&self, node: usize) -> Option<Dot> {
        let shard = self.shard(node)?;
        let origin = shard.config().origin;
        let seq = shard.vector().origin(origin)?.last();
        Some(Dot { origin, seq })
    }

    /// Hands an input to a node and carries out what comes of it.
    pub(super) fn handle(&mut self, node: usize, input: Input<'_>) {
        let Some(shard) = &mut self.nodes[node].shard else { return };
        shard.handle(self.now, input, &mut self.output);
        self.carry_out(node);
    }

    /// Does what a node wants done. Replies and events are read by whoever drives the world.
    fn carry_out(&mut self, node: usize) {
        if let Some(shard) = &mut self.nodes[node].shard {
            shard.finish(self.now, &mut self.output);
        }
        if !self.append(node) {
            self.released.extend(self.output.reply.iter().map(|(token, _)| *token));
        }
        self.send_all(node);
        self.set_wake(node, self.output.wake);
    }

    pub(super) fn send_all(&mut self, from: usize) {
        let mut sends = std::mem::take(&mut self.output.send);
        for send in sends.drain(..) {
            #[cfg_attr(not(test), allow(unused_mut, reason = "changed by tests only"))]
            let mut envelope = send.envelope;
            #[cfg(test)]
            if let (Some(tamper), Some(shard)) = (&mut self.tamper, &self.nodes[from].shard) {
                let to = number_of(send.to[0]);
                if !tamper(shard, to, &mut envelope) {
                    continue;
                }
            }
            let payload = Payload::new(envelope, self.plan.encode);
            self.tally.add(&payload.envelope.message, payload.bytes, send.to.len());
            let payload = Arc::new(payload);
            for to in send.to.iter().map(|id| number_of(*id)) {
                let parcel = Parcel {
                    from: small(from),
                    to: small(to),
                    connection: self.network.connection(from, to),
                    incarnation: self.nodes[to].incarnation,
                    payload: Arc::clone(&payload),
                };
                let schedule = &mut self.schedule;
                let sending = self.network.send(self.now, parcel, send.lane, schedule);
                if self.tells {
                    self.sent.push(Sent { to, sending, payload: Arc::clone(&payload) });
                }
            }
        }
        // The memory is kept for the next step.
        self.output.send = sends;
    }

    fn set_wake(&mut self, node: usize, wake: Option<Time>) {
        let state = &mut self.nodes[node];
        state.wants_wake = wake;
        if let Some(at) = wake
            && state.wake_scheduled.is_none_or(|scheduled| at < scheduled)
        {
            state.wake_scheduled = Some(at);
            self.schedule.push(at.max(self.now), Due::Wake(small(node)));
        }
    }

    /// What becomes of something that is due: a happening, or nothing that anybody need know.
    fn due(&mut self, due: Due) -> Option<Happening> {
        match due {
            Due::Begin => {
                self.begin();
                None
            }
            Due::Act(u32::MAX) => Some(Happening::Act(Act::FaultsEnd)),
            Due::Act(number) => self.planned(number),
            Due::Deliver(parcel) => self.arrival(parcel),
            Due::Resend(resend) => {
                self.network.resend(self.now, resend, &mut self.schedule);
                None
            }
            Due::Wake(node) => self.waking(node as usize),
            Due::Late(happening) => self.unless_paused(*happening),
            Due::Sync { node, life, frames } => self.sync_due(node as usize, life, frames),
            Due::PeerUp(node, peer) => {
                let (node, peer) = (node as usize, peer as usize);
                self.unless_paused(Happening::PeerUp { node, peer })
            }
            Due::PeerDown { node, peer, connection } => {
                let (node, peer) = (node as usize, peer as usize);
                let seen = &mut self.nodes[node].sees[peer];
                if *seen != connection {
                    return None;
                }
                *seen = 0;
                self.unless_paused(Happening::PeerDown { node, peer })
            }
            Due::LinkChanges(one, other) => {
                self.follow_description(one as usize, other as usize);
                None
            }
            Due::Detect { pair: (one, other), since } => {
                let (one, other) = (one as usize, other as usize);
                if self.network.is_stuck_since(one, other, since) {
                    self.lose_connection(one, other);
                }
                None
            }
            Due::Connect(one, other) => {
                self.connect(one as usize, other as usize);
                None
            }
        }
    }

    fn begin(&mut self) {
        let is_primary = |node: &usize| {
            let status = self.shard(*node).map(Shard::strong_status);
            status.and_then(|status| status.primary) == Some(id_of(*node))
        };
        // In the description's numbers, the primary is node 0 as the load begins.
        let first = (0..self.nodes.len()).find(is_primary).unwrap_or(0);
        self.network.begin(first);
        self.tally = Tally::default();
        if self.plan.wires.have_cuts() {
            for one in 0..self.nodes.len() {
                (one + 1..self.nodes.len()).for_each(|other| self.follow_description(one, other));
            }
        }
    }

    fn planned(&mut self, number: u32) -> Option<Happening> {
        let (_, act) = &self.plan.acts[number as usize];
        match act {
            Act::Ask { node, requests } => {
                let act = number as usize;
                let tokens = (0..).map(|at| token(act, at));
                let requests = tokens.zip(requests.iter().cloned()).collect();
                self.unless_paused(Happening::Requests { node: *node, requests })
            }
            Act::Retire { node, .. } | Act::Rebuild(node) if self.nodes[*node].paused => None,
            act => Some(Happening::Act(act.clone())),
        }
    }

    fn arrival(&mut self, parcel: Parcel) -> Option<Happening> {
        let Parcel { from, to, connection, incarnation, payload } = parcel;
        let (from, to) = (from as usize, to as usize);
        let same_life = self.nodes[to].is_up() && self.nodes[to].incarnation == incarnation;
        let same_connection =
            self.network.connection(from, to) == connection && self.network.is_connected(from, to);
        if !same_life || (self.plan.delivery == Delivery::Reliable && !same_connection) {
            return None;
        }
        let envelope = match Arc::try_unwrap(payload) {
            Ok(payload) => payload.open(),
            Err(payload) => payload.read(),
        };
        self.unless_paused(Happening::Message { from, to, envelope })
    }

    fn waking(&mut self, node: usize) -> Option<Happening> {
        let now = self.now;
        let state = &mut self.nodes[node];
        if state.wake_scheduled.is_some_and(|at| at <= now) {
            state.wake_scheduled = None;
        }
        match state.wants_wake {
            Some(at) if at <= now => {
                state.wants_wake = None;
                self.unless_paused(Happening::Wake { node })
            }
            wake => {
                self.set_wake(node, wake);
                None
            }
        }
    }

    /// Nothing happens at a node that is down; what happens at a paused one waits.
    pub(super) fn unless_paused(&mut self, happening: Happening) -> Option<Happening> {
        let Some(node) = happening.node() else { return Some(happening) };
        let state = &mut self.nodes[node];
        if state.paused {
            state.backlog.push_back(happening);
            return None;
        }
        state.is_up().then_some(happening)
    }

    // What happens from outside.

    fn act(&mut self, act: Act) {
        match act {
            Act::Ask { .. } => {}
            Act::Cut { from, to, one_way } => {
                for &one in &from {
                    for &other in to.iter().filter(|other| **other != one) {
                        self.network.set_cut(one, other, true);
                        if !one_way {
                            self.network.set_cut(other, one, true);
                        }
                        self.link_changed(one, other);
                    }
                }
            }
            Act::Heal => {
                self.network.heal();
                self.links_changed();
            }
            Act::Pause(node) => {
                self.nodes[node].paused = self.nodes[node].is_up();
                (0..self.nodes.len()).for_each(|peer| self.link_changed(node, peer));
            }
            Act::Resume(node) => self.resume(node),
            Act::Crash(node) => {
                if self.nodes[node].is_up() {
                    self.cut(node);
                }
                self.crash(node);
            }
            Act::End(node) => self.end(node),
            Act::Restart(node) => self.restart(node),
            Act::Copy(node) => self.copy(node),
            Act::BringBack(node) => self.bring_back(node),
            Act::Wipe(node) => self.wipe(node),
            Act::Retire { node, member } => {
                let retire = Request::Retire { node: id_of(member) };
                self.handle(node, Input::Request(Token(u64::MAX), retire));
            }
            Act::Rebuild(node) => {
                self.handle(node, Input::Request(Token(u64::MAX), Request::Rebuild));
            }
            Act::FaultsEnd => {
                self.network.end_faults();
                for node in 0..self.nodes.len() {
                    self.resume(node);
                    self.restart(node);
                }
                self.links_changed();
            }
        }
    }

    fn start(&mut self, node: usize) {
        self.nodes[node].incarnation += 1;
        let incarnation = self.nodes[node].last_life + 1;
        #[cfg(test)]
        let incarnation = if self.reuses_origins { 1 } else { incarnation };
        let (settings, seed) = (&self.plan.settings, self.network.rng().u64(..));
        let config = Config {
            strategy: settings.strategy,
            eager: settings.eager,
            interval: settings.interval,
            fanout: settings.fanout,
            relay_window: settings.relay_window,
            delta_bytes_max: settings.delta_bytes_max,
            roster: settings.roster,
            retire_after: settings.retire_after,
            incarnation,
            durability: settings.durability,
            starts_strong: settings.strong.is_some_and(|strong| strong.starts),
            voters: settings.strong.map_or(VOTERS_DEFAULT, |strong| strong.voters),
            trace: true,
            ..Config::new(self.id(node), Origin::of(self.id(node), incarnation), seed)
        };
        self.nodes[node].last_life = incarnation;
        let shard = match self.has_disks() {
            true => self.recover(node, config),
            false => Shard::new(config),
        };
        #[cfg(test)]
        let shard = shard.breaking(self.careless);
        self.nodes[node].shard = Some(shard);
        if self.plan.settings.strong.is_some() {
            // As a server does: it asks when to come back.
            self.set_wake(node, Some(self.now));
        }
    }

    fn resume(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].paused, false) {
            return;
        }
        for late in std::mem::take(&mut self.nodes[node].backlog) {
            self.schedule.push(self.now, Due::Late(Box::new(late)));
        }
        (0..self.nodes.len()).for_each(|peer| self.link_changed(node, peer));
    }

    fn crash(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        let state = &mut self.nodes[node];
        if let Some(shard) = state.shard.take() {
            state.last_life = state.last_life.max(shard.config().incarnation);
        }
        state.paused = false;
        state.backlog.clear();
        state.wants_wake = None;
        state.sees.fill(0);
        for peer in 0..self.nodes.len() {
            if peer != node && self.network.is_connected(node, peer) {
                self.network.disconnect(node, peer);
                self.tell_down_later(peer, node, self.plan.detection);
            }
        }
    }

    /// A node ends in order: it syncs, and says what still waited.
    fn end(&mut self, node: usize) {
        let Some(shard) = &self.nodes[node].shard else { return };
        shard.end(&mut self.output);
        self.append(node);
        let frames = self.frames(node);
        self.synced(node, frames);
        self.crash(node);
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].is_up() {
            return;
        }
        self.start(node);
        (0..self.nodes.len()).for_each(|peer| self.link_changed(node, peer));
    }
}

impl Payload {
    fn new(envelope: Envelope, encode: bool) -> Self {
        if encode {
            let frame = codec::encode(&envelope);
            let bytes = frame.len();
            Self { envelope, frame: Some(frame), bytes }
        } else {
            let bytes = codec::encoded_bytes(&envelope);
            Self { envelope, frame: None, bytes }
        }
    }

    /// The message as its receiver reads it.
    fn read(&self) -> Envelope {
        match &self.frame {
            Some(frame) => codec::decode(frame).expect("what was encoded can be decoded"),
            None => self.envelope.clone(),
        }
    }

    /// The same for the last receiver.
    fn open(self) -> Envelope {
        if self.frame.is_some() { self.read() } else { self.envelope }
    }
}

/// The time as people count it, at an instant of the world.
pub(super) fn wall_at(now: Time) -> WallTime {
    WallTime(now.as_nanos() / 1_000_000)
}

/// The id of a node.
pub(super) fn id_of(node: usize) -> NodeId {
    NodeId(node as u128 + 1)
}

/// The node of an id.
fn number_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).expect("ids are small numbers here")
}
