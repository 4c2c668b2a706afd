//! Failure detectors in virtual time: who is said to be down, when, and at what cost.
//!
//! A [`Detection`] runs the detectors of some nodes and nothing else, with every pair linked, over
//! links that lose and delay datagrams as a profile says. Nodes are killed, and stopped for a while;
//! directions are cut. A stopped node keeps what arrives and finds all of it, and its overdue wake
//! before it, when it goes on: the order that is hardest on it.
//!
//! Links are played as the server plays them: who gives a peer up ends the link, the peer hears that
//! if it can, and both are linked again a moment later if they live and hear each other. A kill is
//! noticed by nobody but the detectors: QUIC would notice only after seven seconds.
//!
//! The run follows from the seed alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::id::NodeId;
use crate::protocol::membership::{
    Membership, MembershipCounters, MembershipEvent, MembershipInput, MembershipOutput, PeerState,
};
use crate::protocol::profile::{Fate, Link, LinkState};
use crate::protocol::time::Time;

/// How long after a link was lost it is tried again.
const REDIAL_AFTER: Duration = Duration::from_millis(300);
/// What nodes take for the number of their first run.
pub const FIRST_RUN: u64 = 1_000_000;
/// What UDP, QUIC and its checksum add to a datagram, without the header of IP.
const OVERHEAD_BYTES: u64 = 31;

/// Something that a detector said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// When.
    pub at: Time,
    /// By which node.
    pub by: usize,
    /// What.
    pub event: MembershipEvent,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Wake { node: usize, life: u32 },
    Datagram { from: usize, to: usize, link: u32, bytes: Vec<u8> },
    Link(usize, usize),
    Unlinked { node: usize, peer: usize, link: u32 },
    Resume(usize),
}

struct Member {
    detector: Membership,
    alive: bool,
    /// Which wake counts.
    wakes: u32,
    /// What waits while the node is stopped, with it.
    stopped: Option<Vec<Due>>,
}

/// The failure detectors of a cluster.
pub struct Detection {
    now: Time,
    rng: fastrand::Rng,
    members: Vec<Member>,
    ids: Vec<NodeId>,
    places: BTreeMap<NodeId, usize>,
    ways: BTreeMap<(usize, usize), LinkState>,
    shape: Arc<Link>,
    /// The links that are up, lower number first, by which is told from the last between the two.
    links: BTreeMap<(usize, usize), u32>,
    links_made: u32,
    cuts: BTreeSet<(usize, usize)>,
    due: BinaryHeap<Reverse<(Time, u64, Due)>>,
    dues: u64,
    told: Vec<Told>,
    bytes: u64,
}

impl Detection {
    /// So many nodes, each linked with each other from the start.
    pub fn new(nodes: usize, shape: Arc<Link>, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ids: Vec<NodeId> = (0..nodes).map(|_| NodeId(rng.u128(..))).collect();
        let member = |id: &NodeId| Member {
            detector: Membership::new(*id, FIRST_RUN, rng.u64(..), Time::START),
            alive: true,
            wakes: 0,
            stopped: None,
        };
        let members = ids.iter().map(member).collect();
        let places = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
        let mut detection = Self {
            now: Time::START,
            rng,
            members,
            ids,
            places,
            ways: BTreeMap::new(),
            shape,
            links: BTreeMap::new(),
            links_made: 0,
            cuts: BTreeSet::new(),
            due: BinaryHeap::new(),
            dues: 0,
            told: Vec::new(),
            bytes: 0,
        };
        for a in 0..nodes {
            for b in a + 1..nodes {
                // Over the first second, as processes start.
                let after = Duration::from_micros(detection.rng.u64(0..1_000_000));
                detection.schedule(after, Due::Link(a, b));
            }
        }
        detection
    }

    /// The time that it is in there.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What was said so far.
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// UDP bytes of all datagrams sent so far, without QUIC's own acknowledgements.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What one node's detector counted.
    pub fn counters(&self, node: usize) -> Option<MembershipCounters> {
        self.members.get(node).map(|member| member.detector.counters())
    }

    /// What one node thinks of another.
    pub fn state(&self, node: usize, of: usize) -> Option<PeerState> {
        let id = self.ids.get(of)?;
        let mut peers = self.members.get(node)?.detector.peers();
        peers.find(|(peer, ..)| peer == id).map(|(_, state, _)| state)
    }

    /// The id of a node.
    pub fn id(&self, node: usize) -> Option<NodeId> {
        self.ids.get(node).copied()
    }

    /// The number of the node with that id.
    pub fn place(&self, id: NodeId) -> Option<usize> {
        self.places.get(&id).copied()
    }

    /// Ends a node as `kill -9` does.
    pub fn kill(&mut self, node: usize) {
        if let Some(member) = self.members.get_mut(node) {
            member.alive = false;
        }
    }

    /// Starts a node that was killed anew, under the same name. `run` is what it takes for the number
    /// of its run: it is to be greater than the last, and is not if its clock was set back.
    pub fn restart(&mut self, node: usize, run: u64) {
        let (Some(id), seed) = (self.ids.get(node).copied(), self.rng.u64(..)) else { return };
        let Some(member) = self.members.get_mut(node) else { return };
        member.detector = Membership::new(id, run, seed, self.now);
        member.alive = true;
        for peer in (0..self.members.len()).filter(|peer| *peer != node) {
            // The peer sees by the new link that the old one is none any more.
            if let Some(link) = self.links.remove(&pair(node, peer)) {
                self.schedule(Duration::ZERO, Due::Unlinked { node: peer, peer: node, link });
            }
            self.schedule(REDIAL_AFTER, Due::Link(node, peer));
        }
    }

    /// Stops a node for a while.
    pub fn stop(&mut self, node: usize, length: Duration) {
        if let Some(member) = self.members.get_mut(node) {
            member.stopped.get_or_insert_default();
            self.schedule(length, Due::Resume(node));
        }
    }

    /// Lets nothing pass from one node to another, or lets it pass again.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        if cut {
            self.cuts.insert((from, to))
        } else {
            self.cuts.remove(&(from, to))
        };
    }

    /// Hands a node a datagram as if a peer had sent it.
    pub fn inject(&mut self, from: usize, to: usize, bytes: &[u8]) {
        if let Some(from) = self.ids.get(from).copied() {
            self.handle(to, MembershipInput::Datagram { from, bytes });
        }
    }

    /// Lets so much time pass.
    pub fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.due.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, due))) = self.due.pop() else { break };
            self.now = at;
            self.carry_out(due);
        }
        self.now = end;
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.dues += 1;
        self.due.push(Reverse((self.now + after, self.dues, due)));
    }

    fn carry_out(&mut self, due: Due) {
        let for_whom = match &due {
            Due::Wake { node, .. } | Due::Unlinked { node, .. } => Some(*node),
            Due::Datagram { to, .. } => Some(*to),
            Due::Link(..) | Due::Resume(_) => None,
        };
        if let Some(member) = for_whom.and_then(|node| self.members.get_mut(node)) {
            if !member.alive {
                return;
            }
            if let Some(waiting) = &mut member.stopped {
                waiting.push(due);
                return;
            }
        }
        match due {
            Due::Wake { node, life } => {
                if self.members.get(node).is_some_and(|member| member.wakes == life) {
                    self.handle(node, MembershipInput::Wake);
                }
            }
            Due::Datagram { from, to, link, bytes } => {
                if self.links.get(&pair(from, to)) == Some(&link)
                    && let Some(from) = self.ids.get(from).copied()
                {
                    self.handle(to, MembershipInput::Datagram { from, bytes: &bytes });
                }
            }
            Due::Unlinked { node, peer, link } => {
                // A newer link has told of the end of the old one already.
                if self.links.get(&pair(node, peer)).is_none_or(|newer| *newer == link)
                    && let Some(peer) = self.ids.get(peer).copied()
                {
                    self.handle(node, MembershipInput::Unlinked(peer));
                }
            }
            Due::Link(a, b) => self.link(a, b),
            Due::Resume(node) => self.resume(node),
        }
    }

    fn link(&mut self, a: usize, b: usize) {
        let fit = |node: usize| self.members.get(node).map(|it| (it.alive, it.stopped.is_none()));
        let (Some((a_lives, a_runs)), Some((b_lives, b_runs))) = (fit(a), fit(b)) else { return };
        if !a_lives || !b_lives || self.links.contains_key(&pair(a, b)) {
            return;
        }
        let hear = !self.cuts.contains(&(a, b)) && !self.cuts.contains(&(b, a));
        if !(a_runs && b_runs && hear) {
            return self.schedule(REDIAL_AFTER, Due::Link(a, b));
        }
        self.links_made += 1;
        self.links.insert(pair(a, b), self.links_made);
        for (node, peer) in [(a, b), (b, a)] {
            if let Some(peer) = self.ids.get(peer).copied() {
                self.handle(node, MembershipInput::Linked(peer));
            }
        }
    }

    fn resume(&mut self, node: usize) {
        let Some(member) = self.members.get_mut(node) else { return };
        let mut waiting = member.stopped.take().unwrap_or_default();
        waiting.sort_by_key(|due| !matches!(due, Due::Wake { .. }));
        for due in waiting {
            self.schedule(Duration::ZERO, due);
        }
    }

    fn handle(&mut self, node: usize, input: MembershipInput<'_>) {
        let Some(member) = self.members.get_mut(node).filter(|member| member.alive) else { return };
        let mut output = MembershipOutput::default();
        member.detector.handle(self.now, input, &mut output);
        member.wakes += 1;
        let life = member.wakes;
        if let Some(wake) = output.wake {
            self.schedule(wake.since(self.now), Due::Wake { node, life });
        }
        for (to, bytes) in output.send {
            self.send(node, to, bytes);
        }
        for event in output.events {
            self.told.push(Told { at: self.now, by: node, event });
            if let MembershipEvent::Down(peer) = event {
                self.give_up(node, peer);
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, bytes: Vec<u8>) {
        let Some(to) = self.place(to) else { return };
        let Some(link) = self.links.get(&pair(from, to)).copied() else { return };
        self.bytes += bytes.len() as u64 + OVERHEAD_BYTES;
        if self.cuts.contains(&(from, to)) {
            return;
        }
        let way = self.ways.entry((from, to));
        let way = way.or_insert_with(|| LinkState::new(Arc::clone(&self.shape)));
        let size = bytes.len() + OVERHEAD_BYTES as usize;
        match way.fate(self.now.since(Time::START), size, &mut self.rng) {
            Fate::Drop(_) => {}
            Fate::Deliver { after, again } => {
                let due = Due::Datagram { from, to, link, bytes };
                if let Some(again) = again {
                    self.schedule(again, due.clone());
                }
                self.schedule(after, due);
            }
        }
    }

    /// Ends a link from one side.
    fn give_up(&mut self, node: usize, peer: NodeId) {
        let Some(peer) = self.place(peer) else { return };
        let Some(link) = self.links.remove(&pair(node, peer)) else { return };
        self.schedule(Duration::ZERO, Due::Unlinked { node, peer, link });
        self.schedule(self.shape.latency, Due::Unlinked { node: peer, peer: node, link });
        self.schedule(REDIAL_AFTER, Due::Link(node, peer));
    }
}

impl std::fmt::Debug for Detection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detection({} nodes at {})", self.members.len(), self.now)
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
