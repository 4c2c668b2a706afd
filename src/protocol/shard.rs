//! A shard: the protocol as a value with one verb.
//!
//! [`Shard::handle`] takes what happened and when, changes the shard, and writes what is to be done
//! into an [`Output`]. It owns no clock, socket, task, logger or dice that were not handed to it, so
//! the real server and the simulator are two callers of the same code, and a run is decided by its
//! inputs.
//!
//! An output is carried out in the order of its fields: `append` (make durable), `send` (try, never
//! wait), `reply`, `events`, `wake`. Many inputs may share one output: pushes then travel together,
//! and one sync serves them all.
//!
//! # Eventual mode
//! A request is applied at once, stamped above everything seen, and pushed to the peers (`gossip`).
//! A push is an optimisation that may be dropped anywhere. The periodic round is the promise: with
//! one partner at a time, the hash of the version vector, and where it differs, digests and deltas
//! (`delta`) in the direction that the strategy asks for.
//!
//! Sources: Demers et al. 1987 for rounds; van Renesse et al. 2008, "Efficient Reconciliation and
//! Flow Control for Anti-Entropy Protocols", for budgets; Lamport 1978 for stamps.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use super::boundary::{Counters, Input, Output, Reply, Sender, Token};
use super::cell::{Field, Key, Write};
use super::config::{Config, Durability, Strategy};
use super::delta::{Captured, Exchanges};
use super::event::{Conflict, Distrust, Event, Misdeed};
use super::expiry::{self, Expiry};
use super::gossip::Peers;
use super::id::NodeId;
use super::message::{Envelope, Message, RoundId, Scope, WIRE_VERSION};
use super::push::Pushes;
use super::rebuild::{Anew, Fill};
use super::recovery::{Recording, Rising};
use super::repair::Repair;
use super::roster::Roster;
use super::stability::{Collection, Durable};
use super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::store::{Merged, Reader, Store};
use super::strong::Strong;
use super::time::Time;
use super::version::{Intervals, ORIGINS_MAX, VersionVector};
use super::why::Conflicts;

/// One partition of the key space at one node. See the module's documentation.
pub struct Shard {
    pub(super) config: Config,
    pub(super) epoch: Epoch,
    pub(super) lamport: Lamport,
    /// How many cells this origin has written here.
    pub(super) seq: u64,
    pub(super) recording: Recording,
    pub(super) store: Store,
    pub(super) vector: VersionVector,
    pub(super) peers: Peers,
    pub(super) rng: fastrand::Rng,
    next_round: Option<Time>,
    pub(super) exchanges: Exchanges,
    pub(super) pushes: Pushes,
    pub(super) asked: VecDeque<(RoundId, Token, NodeId)>,
    /// Peers from which nothing is taken until they are down.
    quarantined: BTreeSet<NodeId>,
    pub(super) conflicts: Conflicts,
    /// When the input that is being handled came.
    now: Time,
    pub(super) tells_changes: bool,
    pub(super) counters: Counters,
    pub(super) roster: Roster,
    /// Up to where tombstones were collected; never more than the vector.
    pub(super) horizon: VersionVector,
    pub(super) durable: Durable,
    pub(super) collection: Collection,
    pub(super) expiry: Expiry,
    /// What it is about while this node fills itself anew.
    pub(super) fill: Option<Fill>,
    pub(super) repair: Repair,
    /// Whether it may claim to hold what it lacks, as part of its records was lost.
    pub(super) doubted: bool,
    pub(super) anew: Anew,
    /// Whether this node was told to leave, and so must not come back by itself.
    pub(super) leaving: bool,
    /// Whether somebody showed more of this origin than is known here.
    pub(super) forgot: bool,
    /// Whether anybody was given or told anything under this origin.
    pub(super) gave: bool,
    pub(super) strong: Strong,
    #[cfg(test)]
    pub(crate) careless: Careless,
}

/// A rule that a shard breaks on purpose, to show that it is needed.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Careless {
    #[default]
    No,
    /// It lets everybody in.
    OpensTheGate,
    /// Damage is not mended.
    LeavesDamage,
    /// It passes on what has lost to something that it holds.
    RelaysLosers,
    /// What an earlier life of a member had counts for the present one.
    KeepsOldRows,
    /// It collects although it does not hold all that the members report.
    IgnoresRows,
    /// It collects what it holds itself, whoever else does.
    CollectsEarly,
    /// It never forgets keys that have expired.
    KeepsExpired,
    /// It forgets expired keys whatever others claim.
    ForgetsEarly,
    /// A voter answers reads without asking a majority.
    ReadsAlone,
    /// A voter answers writes before they are decided.
    AnswersEarly,
    /// A voter says that records are durable before they are.
    SyncsLate,
    /// A voter that is left alone goes on alone.
    GoesOnAlone,
}

/// What became of a write of a peer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Merge {
    /// All of it stands from now on.
    Stands,
    /// Some of it was missing.
    Missing,
    /// It was here already.
    Known,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: Config) -> Self {
        let store = Store::new(config.hash_seed);
        let (vector, horizon) = (VersionVector::default(), VersionVector::default());
        let (lamport, recording) = (Lamport(0), Recording::default());
        let (doubted, attic, strong) = (false, None, Strong::default());
        Self::risen(Rising {
            config,
            store,
            vector,
            lamport,
            horizon,
            doubted,
            attic,
            recording,
            strong,
        })
    }

    /// A shard with what an earlier one held.
    pub(super) fn risen(rising: Rising) -> Self {
        let Rising { config, store, vector, lamport, horizon, doubted, attic, recording, strong } =
            rising;
        let rng = fastrand::Rng::with_seed(config.seed);
        let seq = vector.origin(config.origin).map_or(0, Intervals::last);
        let mut shard = Self {
            roster: Roster::of(&config, &store),
            gave: false,
            durable: Durable::of(vector.clone()),
            expiry: Expiry::of(&config, &store),
            config,
            epoch: strong.epoch(),
            strong,
            lamport,
            seq,
            recording,
            store,
            vector,
            peers: Peers::default(),
            rng,
            next_round: None,
            exchanges: Exchanges::default(),
            pushes: Pushes::default(),
            asked: VecDeque::new(),
            quarantined: BTreeSet::new(),
            conflicts: Conflicts::default(),
            now: Time::START,
            tells_changes: false,
            counters: Counters::default(),
            horizon,
            collection: Collection::default(),
            fill: attic.map(Fill::again),
            repair: Repair::default(),
            doubted,
            anew: Anew::default(),
            leaving: false,
            forgot: false,
            #[cfg(test)]
            careless: Careless::No,
        };
        shard.settle_ready();
        shard
    }

    /// What the shard was told when it started, or since then.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The cells.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Answers reads without entering the shard.
    pub fn reader(&self) -> Reader {
        self.store.reader().clone()
    }

    /// What this node holds.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The greatest Lamport counter seen.
    pub fn lamport(&self) -> Lamport {
        self.lamport
    }

    /// The peers that are up.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.ids()
    }

    /// What was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many deltas are being sent and how many received.
    pub fn exchanges(&self) -> (usize, usize) {
        (self.exchanges.outgoing.len(), self.exchanges.incoming.len())
    }

    /// The latest conflicts, oldest first; a bounded number.
    pub fn conflicts(&self) -> impl Iterator<Item = &Conflict> {
        self.conflicts.iter()
    }

    /// Takes in what happened at `now` and says what is to be done.
    ///
    /// Never fails: what a peer or client does wrong is refused, counted and told.
    pub fn handle(&mut self, now: Time, input: Input<'_>, output: &mut Output) {
        self.now = now;
        match input {
            Input::Request(token, request) => {
                if self.request(now, token, request, output) {
                    // It has gathered with others.
                    output.wake = self.next_wake();
                    return;
                }
            }
            Input::Message(peer, envelope) => self.receive(now, peer, envelope, output),
            Input::PeerUp(peer, round_trip) => self.peer_up(now, peer, round_trip, output),
            Input::PeerDown(peer) => self.peer_down(now, peer, output),
            Input::Durable(token) => self.made_durable(now, token, output),
            Input::Wake(wall) => {
                self.hear_time(now, wall);
                self.wake(now, output);
            }
        }
        if self.config.roster {
            if std::mem::take(&mut self.forgot) {
                self.rebuild(now, Distrust::Amnesia, output);
            }
            self.settle_roster(now, output);
            self.schedule_collection(now);
            self.schedule_expiry(now);
        }
        self.settle_strong(now, output);
        output.wake = self.next_wake();
    }

    /// The same, breaking a rule.
    #[cfg(test)]
    pub(crate) fn breaking(self, careless: Careless) -> Self {
        Self { careless, ..self }
    }

    /// Whether a rule is broken on purpose; never outside tests.
    #[cfg(test)]
    pub(super) fn is_careless(&self, how: Careless) -> bool {
        self.careless == how
    }

    /// A message of this shard, for what its caller has to say to peers.
    pub fn wrap(&self, message: Message) -> Envelope {
        self.sender().envelope(message)
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        let deadlines = [
            self.exchanges.deadline(),
            self.pushes.deadline(),
            self.next_round,
            self.collection_deadline(),
            self.expiry_deadline(),
            self.strong_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// When the input that is being handled came.
    pub(super) fn now(&self) -> Time {
        self.now
    }

    pub(super) fn keeps_records(&self) -> bool {
        self.config.durability != Durability::None
    }

    pub(super) fn sender(&self) -> Sender {
        Sender { shard: self.config.shard, epoch: self.epoch, origin: self.config.origin }
    }

    // Applying.

    /// Marks and merges the cells of a write that are missing.
    pub(super) fn merge(&mut self, write: Write, output: &mut Output) -> Merge {
        let dots = write.dot()..=write.last_dot();
        let covered_first = write.first_seq();
        let Write { stamp, seq: first, cells, covers } = write;
        let keeps_records = self.keeps_records();
        if covered_first < first {
            self.vector.insert_all(stamp.origin, covered_first, first - 1);
        }
        let (mut missing, mut stands) = (false, true);
        output.append.hold();
        for (more, cell) in (0..).zip(cells) {
            output.append.go_on();
            let dot = Dot { origin: stamp.origin, seq: first + more };
            if !self.vector.insert(dot) {
                stands = false;
                continue;
            }
            missing = true;
            self.clear(&cell.key, output);
            let (key, field) = (cell.key.clone(), cell.field.clone());
            let append = &mut output.append;
            let mark = append.mark();
            let saw_nothing = cell.seen.is_empty();
            let lost = keeps_records.then(|| cell.seen.clone());
            if keeps_records {
                // Before it goes away into the store.
                append.cell(stamp, dot.seq, covers, &cell);
            }
            let change = self.tells_changes.then(|| self.change(&key, &field, &cell.content));
            let reserved = key.is_reserved().then(|| cell.content.clone());
            let merged = self.store.merge(stamp, dot.seq, cell);
            if let (Some(seen), false) = (lost, matches!(merged, Merged::Won { .. })) {
                append.take_back(mark);
                append.lost((stamp, dot.seq, covers), (&key, &field, &seen));
            }
            if let Some(content) = reserved {
                match merged {
                    Merged::Won { .. } if expiry::is_claim(&key) => {}
                    Merged::Won { .. } => self.roster.note(&field, stamp, &content),
                    Merged::Lost { .. } | Merged::Known => stands = false,
                }
                continue;
            }
            match merged {
                Merged::Won { lost } => {
                    for loser in lost {
                        let forgotten = loser.is_deletion && saw_nothing;
                        if !forgotten || !self.had_collected(dot, loser.dot) {
                            let name = (key.clone(), field.clone());
                            self.conflict(name, stamp, loser.stamp, output);
                        }
                    }
                    if let Some((change, was_there)) = change {
                        self.tell_change(&key, change, was_there, output);
                    }
                    if self.config.trace {
                        output.events.push(Event::Visible { key, stamp, dot });
                    }
                }
                Merged::Lost { concurrent_with } => {
                    stands = false;
                    if let Some(winner) = concurrent_with {
                        self.conflict((key, field), winner, stamp, output);
                    }
                }
                Merged::Known => stands = false,
            }
        }
        output.append.release();
        self.exchanges.displaced(self.store.displaced(), dots);
        self.store.forget_displaced();
        match (missing, stands) {
            (true, true) => Merge::Stands,
            (true, false) => Merge::Missing,
            (false, _) => Merge::Known,
        }
    }

    fn conflict(
        &mut self,
        (key, field): (Key, Field),
        winner: Stamp,
        loser: Stamp,
        output: &mut Output,
    ) {
        let conflict = Conflict { key, winner, loser };
        self.counters.conflicts += 1;
        self.conflicts.remember(self.now, field, conflict.clone());
        output.events.push(Event::Conflict(conflict));
    }

    /// Whether `write`, which a peer sent, may be applied.
    pub(super) fn judge(&self, write: &Write) -> Result<(), Misdeed> {
        let (theirs, ours) = (write.stamp.lamport, self.lamport);
        // Nobody is in a later epoch than the messages that we accept.
        if !write.is_well_formed() || write.stamp.epoch > self.epoch {
            return Err(Misdeed::Malformed);
        }
        if theirs.0.saturating_sub(ours.0) > self.config.lamport_jump_max {
            return Err(Misdeed::Runaway { theirs, ours });
        }
        self.judge_origin(write.last_dot())
    }

    /// Whether there is room for all origins that a message names.
    fn judge_origins(&self, writes: &[Write]) -> Result<(), Misdeed> {
        let origins = writes.iter().map(|write| write.stamp.origin);
        let unknown = origins.filter(|origin| self.vector.origin(*origin).is_none());
        // Nearly every message names none that is unknown.
        let unknown: BTreeSet<_> = unknown.collect();
        let origins = self.vector.len() + unknown.len();
        if unknown.is_empty() || origins <= ORIGINS_MAX {
            return Ok(());
        }
        Err(Misdeed::Crowd { origins })
    }

    /// Whether `dot`, which a peer has, is not one of ours that we never made.
    fn judge_origin(&self, dot: Dot) -> Result<(), Misdeed> {
        match dot.origin == self.config.origin && dot.seq > self.seq {
            true => Err(Misdeed::Impostor { dot, made: self.seq }),
            false => Ok(()),
        }
    }

    /// Whether a peer can hold what it claims to, as far as we can know.
    pub(super) fn judge_claim(&self, theirs: &VersionVector) -> Result<(), Misdeed> {
        let origin = self.config.origin;
        let seq = theirs.origin(origin).map_or(0, Intervals::last);
        self.judge_origin(Dot { origin, seq })
    }

    /// Whether the vector that ends a delta may be merged: from then on we do not ask for what it
    /// names.
    ///
    /// No dot has a number above the Lamport counter of its stamp, and that counter is told along
    /// with the vector: the cell with the greatest stamp may have been a tombstone that is collected.
    pub(super) fn judge_capture(&mut self, captured: &Captured) -> Result<(), Misdeed> {
        let (theirs, ours) = (captured.lamport, self.lamport);
        if theirs.0.saturating_sub(ours.0) > self.config.lamport_jump_max {
            return Err(Misdeed::Runaway { theirs, ours });
        }
        let theirs = &captured.vector;
        let origins = self.vector.len_with(theirs);
        if origins > ORIGINS_MAX {
            return Err(Misdeed::Crowd { origins });
        }
        let dots = theirs.iter().map(|(origin, held)| Dot { origin, seq: held.last() });
        self.lamport = self.lamport.max(captured.lamport);
        match dots.into_iter().find(|dot| dot.seq > self.lamport.0) {
            Some(dot) => Err(Misdeed::Overclaim { dot }),
            None => Ok(()),
        }
    }

    /// Applies a peer's writes; says what became of each, or `None` if the peer is quarantined.
    pub(super) fn apply(
        &mut self,
        peer: NodeId,
        writes: Vec<Write>,
        output: &mut Output,
    ) -> Option<Vec<Merge>> {
        // All are judged before any is applied: a message counts as a whole or not at all.
        let misdeed = writes.iter().find_map(|write| self.judge(write).err());
        if let Some(why) = misdeed.or_else(|| self.judge_origins(&writes).err()) {
            if self.config.roster && matches!(why, Misdeed::Impostor { .. }) {
                self.forgot = true;
                return None;
            }
            self.quarantine(peer, why, output);
            return None;
        }
        let mut merged = Vec::with_capacity(writes.len());
        for write in writes {
            self.lamport = self.lamport.max(write.stamp.lamport);
            let merge = self.merge(write, output);
            match merge {
                Merge::Stands | Merge::Missing => self.counters.writes_remote += 1,
                Merge::Known => self.counters.writes_repeated += 1,
            }
            merged.push(merge);
        }
        Some(merged)
    }

    /// Takes nothing more from a peer until it has been down.
    pub(super) fn quarantine(&mut self, peer: NodeId, why: Misdeed, output: &mut Output) {
        self.counters.quarantined += 1;
        self.part_from(peer, output);
        self.quarantined.insert(peer);
        output.events.push(Event::Quarantined { peer, why });
    }

    // Peers.

    fn peer_up(&mut self, now: Time, peer: NodeId, round_trip: Duration, output: &mut Output) {
        if peer == self.config.node || self.quarantined.contains(&peer) {
            return;
        }
        let is_new = self.peers.up(peer, round_trip, !self.config.roster);
        self.pushes.reroute();
        if !is_new {
            return;
        }
        // A new peer is met at once. If a round moves writes both ways, one of the two suffices.
        if self.config.roster {
            self.meet(now, peer, output);
        } else if self.config.strategy != Strategy::PushPull || self.config.node < peer {
            self.open_round(peer, output);
        }
        if self.next_round.is_none() {
            // A random phase keeps nodes that started together apart.
            self.next_round = Some(now + self.config.interval.mul_f64(self.rng.f64()));
        }
    }

    fn peer_down(&mut self, now: Time, peer: NodeId, output: &mut Output) {
        if self.roster.members.contains_key(&peer) {
            self.roster.away.entry(peer).or_insert(now);
        }
        self.quarantined.remove(&peer);
        self.part_from(peer, output);
        self.lost_voter(peer, output);
    }

    /// Forgets all that is under way with a peer.
    fn part_from(&mut self, peer: NodeId, output: &mut Output) {
        self.give_up(|other, _| other == peer, output);
        self.exchanges.forget(peer);
        self.asked.retain(|(_, _, asked)| *asked != peer);
        if !self.peers.down(peer) {
            return;
        }
        self.pushes.reroute();
        if self.peers.is_empty() {
            self.next_round = None;
        }
    }

    fn receive(&mut self, now: Time, peer: NodeId, envelope: Envelope, output: &mut Output) {
        let ours = (WIRE_VERSION, self.config.shard, Scope::default());
        let theirs = (envelope.version, envelope.shard, envelope.scope);
        if ours != theirs || self.quarantined.contains(&peer) {
            self.counters.messages_refused += 1;
            return;
        }
        let (origin, epoch) = (envelope.origin, envelope.epoch);
        let of_any_epoch = matches!(envelope.message, Message::Greet(_) | Message::Strong(_));
        if epoch != self.epoch && !of_any_epoch {
            // One of the two has not heard yet that an epoch has begun: greetings tell.
            self.counters.messages_refused += 1;
            if self.config.roster {
                self.ask_greeting(now, peer, output);
            }
            return;
        }
        if envelope.message.brings_writes() && !self.fence_admits(peer) {
            self.counters.messages_gated += 1;
            return;
        }
        if !self.admits(peer, origin, &envelope.message) {
            return self.pass_over(now, peer, origin, output);
        }
        match envelope.message {
            Message::Greet(greet) => self.receive_greet(now, peer, (origin, epoch), *greet, output),
            Message::Strong(word) => self.receive_word(now, peer, (origin, epoch), *word, output),
            Message::Report { vector, wants } => {
                self.receive_report(peer, origin, vector, wants, output);
            }
            Message::Push { writes, relay } => self.receive_push(now, peer, writes, relay, output),
            Message::Open { round, hash, fingerprint, digest, wish } => {
                self.receive_open(now, peer, round, (hash, fingerprint), digest, wish, output);
            }
            Message::Digest { round, digest, wish } => {
                self.receive_digest(now, peer, round, digest, wish, output);
            }
            Message::Delta { round, chunk, digest } => {
                self.receive_delta(now, peer, round, chunk, digest, output);
            }
            Message::Credit { round } => self.receive_credit(now, peer, round, output),
            Message::Ask { round, dot } => self.receive_ask(peer, round, dot, output),
            // Links and subscribers are the caller's affair.
            Message::Members { .. } | Message::Publish { .. } => {
                self.counters.messages_refused += 1;
            }
            Message::Answer { round, covers, hash, fingerprint } => {
                let asked = self.asked.iter().position(|asked| asked.0 == round && asked.2 == peer);
                if let Some((_, token, _)) = asked.and_then(|at| self.asked.remove(at)) {
                    output.reply.push((token, Reply::Answer { peer, covers, hash, fingerprint }));
                }
            }
        }
    }

    // Time.

    fn wake(&mut self, now: Time, output: &mut Output) {
        self.pushes.wake(now, self.sender(), output);
        self.collect(now, output);
        self.expire(now, output);
        if self.next_round.is_some_and(|at| at <= now) {
            if self.fill.is_some() {
                self.go_on_filling(now, output);
            } else if let Some(partner) = self.peers.next_partner(&mut self.rng) {
                let link = self.peers.live(partner).map(|link| (link.takes, link.gives));
                if link != Some((false, false)) {
                    self.open_round(partner, output);
                    self.exchange_reports(partner, output);
                }
                if link != Some((true, true)) {
                    self.greet(now, partner, true, output);
                }
                if self.config.roster {
                    self.ask_uncleared(now, output);
                }
            }
            self.next_round = Some(now + self.config.interval);
            self.strong_round(now);
        }
        self.give_up(|_, deadline| deadline <= now, output);
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("node", &self.config.node)
            .field("shard", &self.config.shard)
            .field("lamport", &self.lamport)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod laws;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::boundary::{Lane, Request};
    use crate::protocol::cell::{CellWrite, Content};
    use crate::protocol::cell::{KEY_BYTES_MAX, Seen, WRITE_BYTES_MAX};
    use crate::protocol::codec;
    use crate::protocol::delta::{Chunk, Load};
    use crate::protocol::digest::{Digest, DigestHash};
    use crate::protocol::id::Origin;
    use crate::protocol::message::{ExchangeId, Wish};
    use crate::protocol::roster::State;
    use crate::protocol::time::WallTime;

    /// Nodes 1, 2, … in memory; messages wait until they are delivered or dropped.
    struct Cluster {
        now: Time,
        shards: Vec<Shard>,
        under_way: VecDeque<(NodeId, NodeId, Vec<u8>)>,
        events: Vec<Event>,
        sent: Vec<&'static str>,
        /// Of each stream that was opened for an exchange, whether it has been ended.
        streams: BTreeMap<(NodeId, NodeId, RoundId), bool>,
    }

    impl Cluster {
        fn new(nodes: u64, change: impl Fn(&mut Config)) -> Self {
            let shards = (1..=nodes).map(|node| {
                let id = NodeId(u128::from(node));
                let mut config = Config::new(id, Origin(node), node);
                // What is counted and broken on purpose here has nothing to do with the roster.
                config.roster = false;
                change(&mut config);
                Shard::new(config)
            });
            let mut cluster = Self {
                now: Time::START,
                shards: shards.collect(),
                under_way: VecDeque::new(),
                events: Vec::new(),
                sent: Vec::new(),
                streams: BTreeMap::new(),
            };
            for one in 0..cluster.shards.len() {
                for other in 0..cluster.shards.len() {
                    let peer = cluster.shards[other].config.node;
                    cluster.handle(one, Input::PeerUp(peer, Duration::from_millis(1)));
                }
            }
            cluster.deliver();
            cluster.sent.clear();
            cluster
        }

        fn handle(&mut self, at: usize, input: Input<'_>) -> Option<Reply> {
            let mut output = Output::default();
            self.shards[at].handle(self.now, input, &mut output);
            let from = self.shards[at].config.node;
            for send in output.send {
                let frame = codec::encode(&send.envelope);
                for to in send.to.iter() {
                    if let Lane::Exchange { round, last } = send.lane {
                        self.streams.insert((from, *to, round), last);
                    }
                    self.sent.push(send.envelope.message.kind());
                    self.under_way.push_back((from, *to, frame.clone()));
                }
            }
            self.events.extend(output.events);
            output.reply.first().map(|(_, reply)| reply.clone())
        }

        fn set(&mut self, at: usize, key: &str, value: &str) -> Stamp {
            let (key, value) = (key.as_bytes(), value.as_bytes());
            match self.handle(at, Input::Request(Token(0), Request::Set { key, value })) {
                Some(Reply::Written { stamp, .. }) => stamp,
                other => panic!("not written: {other:?}"),
            }
        }

        fn deliver(&mut self) {
            while let Some((from, to, frame)) = self.under_way.pop_front() {
                let at = self.shards.iter().position(|shard| shard.config.node == to);
                let Some(at) = at else { continue };
                self.handle(at, Input::Message(from, codec::decode(&frame).unwrap()));
            }
        }

        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            loop {
                let due = self.shards.iter().enumerate();
                let due = due.filter_map(|(at, shard)| shard.next_wake().map(|time| (time, at)));
                let Some((time, at)) = due.min().filter(|(time, _)| *time <= end) else { break };
                self.now = time;
                self.handle(at, Input::Wake(WallTime(0)));
                self.deliver();
            }
            self.now = end;
        }

        fn value(&self, at: usize, key: &str) -> Option<String> {
            let reader = self.shards[at].reader();
            reader.string(key.as_bytes(), WallTime(0), |value| {
                value.map(|value| String::from_utf8_lossy(value).into_owned())
            })
        }

        fn is_converged(&self) -> bool {
            self.shards.windows(2).all(|pair| pair[0].summary() == pair[1].summary())
        }
    }

    #[test]
    fn a_write_is_pushed_to_everybody_at_once() {
        let mut cluster = Cluster::new(3, |_| ());
        cluster.set(0, "k", "v");
        cluster.deliver();
        assert!((0..3).all(|at| cluster.value(at, "k").as_deref() == Some("v")));
        assert!(cluster.is_converged());
        assert_eq!(cluster.sent, ["push", "push"]);
    }

    #[test]
    fn rounds_alone_bring_everything_in_every_direction() {
        for strategy in [Strategy::Push, Strategy::Pull, Strategy::PushPull] {
            let mut cluster = Cluster::new(4, |config| {
                config.eager = false;
                config.strategy = strategy;
                config.delta_bytes_max = 200;
            });
            for key in 0..100 {
                cluster.set(key % 4, &format!("k{key}"), "v");
                cluster.set(3 - key % 4, &format!("k{}", key / 2), "w");
            }
            cluster.pass(Duration::from_secs(20));
            assert!(cluster.is_converged(), "{strategy}");
            assert_eq!(cluster.shards[0].store().keys_live(), 100);
            cluster.sent.clear();
            cluster.pass(Duration::from_secs(1));
            assert_eq!(cluster.sent, ["open"; 4], "{strategy}: an equal hash ends the round");
        }
    }

    #[test]
    fn a_missing_write_costs_a_round_trip_and_a_half() {
        for writer in 0..2 {
            let mut cluster = Cluster::new(2, |config| config.eager = false);
            cluster.set(writer, "k", "v");
            cluster.pass(Duration::from_secs(2));
            assert!(cluster.is_converged());
            let work: Vec<_> = cluster.sent.iter().filter(|kind| **kind != "open").collect();
            assert!(work.len() <= 2, "after the opening: {work:?}");
        }
    }

    #[test]
    fn of_two_concurrent_writes_the_greater_stamp_wins_and_the_loser_is_told() {
        let mut cluster = Cluster::new(2, |_| ());
        let loser = cluster.set(0, "k", "one");
        let winner = cluster.set(1, "k", "two");
        assert!(winner > loser, "equal counters, and the higher origin wins");
        cluster.deliver();
        assert!((0..2).all(|at| cluster.value(at, "k").as_deref() == Some("two")));
        let conflict = Event::Conflict(Conflict { key: "k".into(), winner, loser });
        assert_eq!(cluster.events.iter().filter(|event| **event == conflict).count(), 2);
        // Whoever writes next has seen both.
        cluster.set(0, "k", "three");
        cluster.deliver();
        assert_eq!(cluster.shards.iter().map(|shard| shard.counters.conflicts).sum::<u64>(), 2);
    }

    #[test]
    fn an_overwritten_version_is_no_conflict_even_where_steps_are_missed() {
        let mut cluster = Cluster::new(3, |config| config.eager = false);
        cluster.set(0, "k", "1");
        cluster.pass(Duration::from_secs(5));
        for round in 0..5 {
            cluster.set(round % 2, "k", "next");
            cluster.pass(Duration::from_secs(5));
        }
        assert!(cluster.is_converged());
        assert_eq!(cluster.shards.iter().map(|shard| shard.counters.conflicts).sum::<u64>(), 0);
    }

    #[test]
    fn a_runaway_stamp_is_refused_and_its_sender_quarantined() {
        let mut cluster = Cluster::new(2, |_| ());
        let mut output = Output::default();
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(u64::MAX), origin: Origin(2) };
        let cells = vec![cluster.shards[1].cell_write(b"k", Content::Tombstone)];
        let to: std::sync::Arc<[_]> = [NodeId(1)].into();
        let sender = cluster.shards[1].sender();
        sender.push(&to, None, Write::new(stamp, 1, cells), &mut output);
        let envelope = output.send.remove(0).envelope;
        cluster.handle(0, Input::Message(NodeId(2), envelope));
        let told = cluster
            .events
            .iter()
            .any(|event| matches!(event, Event::Quarantined { why: Misdeed::Runaway { .. }, .. }));
        assert!(told && cluster.shards[0].vector().is_empty());
        assert_eq!(cluster.shards[0].lamport(), Lamport(0));
        cluster.set(1, "other", "v");
        cluster.deliver();
        assert_eq!(cluster.value(0, "other"), None, "nothing more is taken from it");
    }

    #[test]
    fn a_batch_and_a_deletion_are_one_write_each() {
        let mut cluster = Cluster::new(2, |_| ());
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")];
        cluster.handle(0, Input::Request(Token(1), Request::SetAll(&pairs)));
        let keys: [&[u8]; 3] = [b"a", b"a", b"nothing"];
        let reply = cluster.handle(0, Input::Request(Token(2), Request::Delete(&keys)));
        assert!(matches!(reply, Some(Reply::Written { changed: 1, dot: Dot { seq: 3, .. }, .. })));
        cluster.deliver();
        assert!(cluster.is_converged());
        assert_eq!((cluster.value(1, "a"), cluster.value(1, "b").as_deref()), (None, Some("2")));
        let keys: [&[u8]; 1] = [b"a"];
        let reply = cluster.handle(1, Input::Request(Token(3), Request::Delete(&keys)));
        assert_eq!(reply, Some(Reply::Nothing));
    }

    #[test]
    fn of_writes_to_one_key_in_one_batch_only_the_last_travels() {
        let mut cluster = Cluster::new(2, |_| ());
        let mut output = Output::default();
        for (key, value) in [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4"), ("a", "5"), ("a", "6")]
        {
            let (key, value) = (key.as_bytes(), value.as_bytes());
            let request = Input::Request(Token(0), Request::Set { key, value });
            cluster.shards[0].handle(Time::START, request, &mut output);
        }
        assert_eq!(output.send.len(), 1);
        let envelope = output.send.remove(0).envelope;
        let Message::Push { writes, .. } = &envelope.message else { panic!("a push") };
        let told: Vec<_> = writes.iter().map(|write| (write.seq, write.covers)).collect();
        assert_eq!(told, [(2, 1), (3, 0), (6, 2)]);
        cluster.handle(1, Input::Message(NodeId(1), envelope));
        assert!(cluster.is_converged());
        assert_eq!(cluster.value(1, "a").as_deref(), Some("6"));
    }

    /// What a bad memory took away or changed comes back from a peer, and both agree again.
    #[test]
    fn damage_is_found_and_mended() {
        for (spoilt, kept) in [(None, "v"), (Some("spoilt"), "either")] {
            let mut cluster = Cluster::new(2, |config| config.interval = Duration::from_secs(1));
            for key in 0..10 {
                cluster.set(key % 2, &format!("k{key}"), "v");
            }
            cluster.pass(Duration::from_secs(5));
            assert!(cluster.is_converged());
            cluster.shards[0].store.spoil(b"k3", spoilt.map(str::as_bytes));
            assert!(!cluster.is_converged(), "the fingerprint shows it");
            cluster.pass(Duration::from_secs(30));
            assert!(cluster.is_converged(), "mended: {spoilt:?}");
            let shown: Vec<_> = (0..2).map(|at| cluster.value(at, "k3")).collect();
            assert_eq!(shown[0], shown[1]);
            assert!(kept == "either" || shown[0].as_deref() == Some(kept), "{shown:?}");
            let mended = |event: &Event| matches!(event, Event::Repaired { cells: 1, .. });
            assert!(cluster.events.iter().any(mended));
        }
    }

    #[test]
    fn beyond_the_fan_out_hubs_pass_writes_on() {
        let mut cluster = Cluster::new(30, |config| config.fanout = 4);
        for node in 0..30 {
            cluster.set(node, &format!("k{node}"), "v");
        }
        cluster.deliver();
        cluster.pass(Duration::from_millis(10));
        assert!(cluster.is_converged());
        let pushes = cluster.sent.iter().filter(|kind| **kind == "push").count();
        assert!(pushes < 30 * 29 / 2, "{pushes} messages for 30 writes to 29 others");
    }

    fn sent(to: u128, message: Message) -> Envelope {
        let mut output = Output::default();
        let shard = crate::protocol::id::ShardId(0);
        let sender = Sender { shard, epoch: Epoch(0), origin: Origin(9) };
        sender.send(NodeId(to), Lane::Push, message, &mut output);
        output.send.remove(0).envelope
    }

    fn claiming(dots: &[(u64, u64)]) -> VersionVector {
        let mut vector = VersionVector::default();
        for (origin, seq) in dots {
            vector.insert(Dot { origin: Origin(*origin), seq: *seq });
        }
        vector
    }

    /// Two nodes that know each other and hold a write each; the answer to what 2 says to 1.
    fn after(message: impl Fn(RoundId) -> Message) -> (Cluster, Vec<Misdeed>) {
        let mut cluster = Cluster::new(2, |_| ());
        cluster.set(0, "a", "1");
        cluster.set(1, "b", "2");
        cluster.deliver();
        cluster.events.clear();
        // So that 1 has asked in the round that 2 answers in.
        let mut output = Output::default();
        cluster.shards[0].open_round(NodeId(2), &mut output);
        let Message::Open { round, .. } = output.send[0].envelope.message else {
            panic!("opens with something else")
        };
        let before = cluster.shards[0].vector.clone();
        cluster.handle(0, Input::Message(NodeId(2), sent(1, message(round))));
        assert_eq!(cluster.shards[0].vector, before, "nothing is marked");
        let misdeeds = cluster.events.iter().filter_map(|event| match event {
            Event::Quarantined { why, .. } => Some(*why),
            _ => None,
        });
        let misdeeds = misdeeds.collect();
        (cluster, misdeeds)
    }

    fn captured(round: RoundId, vector: VersionVector) -> Message {
        let against = DigestHash::of(&claiming(&[(1, 1), (2, 1)]));
        let exchange = ExchangeId(7);
        let captured = Some(Captured { vector, lamport: Lamport(2), horizon: None });
        let chunk = Chunk { exchange, against, number: 0, writes: vec![], captured, load: None };
        Message::Delta { round, chunk, digest: None }
    }

    #[test]
    fn a_vector_with_writes_of_ours_that_we_never_made_is_refused() {
        let impostor = [Misdeed::Impostor { dot: Dot { origin: Origin(1), seq: 2 }, made: 1 }];
        let wish = Wish { take: true, give: true };
        let digest = |round| Message::Digest { round, digest: Digest(claiming(&[(1, 2)])), wish };
        assert_eq!(after(digest).1, impostor);
        assert_eq!(after(|round| captured(round, claiming(&[(1, 2), (2, 1)]))).1, impostor);
    }

    #[test]
    fn a_vector_with_a_number_above_every_counter_is_refused() {
        let dot = Dot { origin: Origin(9), seq: u64::MAX };
        let message = |round| captured(round, claiming(&[(9, u64::MAX)]));
        assert_eq!(after(message).1, [Misdeed::Overclaim { dot }]);
    }

    /// Of a delta of several parts the receiver knows how far it has come, until it is over.
    #[test]
    fn how_far_a_long_delta_has_come_is_known() {
        let mut cluster = Cluster::new(2, |config| {
            config.eager = false;
            config.delta_bytes_max = 1_000;
        });
        for n in 0..100 {
            cluster.set(0, &format!("key{n:02}"), &"v".repeat(95));
        }
        cluster.pass(Duration::from_secs(5));
        assert!(cluster.is_converged());
        let parts: Vec<_> = cluster
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Filling(progress) => Some(*progress),
                _ => None,
            })
            .collect();
        assert!(parts.len() >= 5, "{parts:?}");
        for part in &parts {
            assert_eq!((part.from, part.expected), (NodeId(1), Load { cells: 100, bytes: 10_000 }));
            assert_eq!(part.brought.bytes, 100 * part.brought.cells);
        }
        let cells = parts.iter().map(|part| part.brought.cells);
        assert!(cells.clone().is_sorted_by(|one, other| one < other) && cells.max() < Some(100));
        assert!(cluster.shards.iter().all(|shard| shard.progress().is_none()));
        // A short one says nothing.
        cluster.events.clear();
        cluster.set(0, "key", "value");
        cluster.pass(Duration::from_secs(5));
        assert!(cluster.is_converged());
        assert!(!cluster.events.iter().any(|event| matches!(event, Event::Filling(_))));
    }

    #[test]
    fn a_vector_is_merged_only_in_answer_to_a_digest() {
        for against in [claiming(&[]), claiming(&[(1, 1)])] {
            let (cluster, misdeeds) = after(|round| match captured(round, claiming(&[(3, 1)])) {
                Message::Delta { chunk, .. } => {
                    let chunk = Chunk { against: DigestHash::of(&against), ..chunk };
                    Message::Delta { round, chunk, digest: None }
                }
                other => other,
            });
            assert!(misdeeds.is_empty() && cluster.shards[0].counters.deltas_filled == 0);
        }
        let (cluster, _) = after(|_| captured(RoundId(0), claiming(&[(3, 1)])));
        assert_eq!(cluster.shards[0].counters.deltas_filled, 0, "nor in another round");
    }

    #[test]
    fn a_stamp_of_a_later_epoch_is_refused() {
        let (_, misdeeds) = after(|_| {
            let stamp = Stamp { epoch: Epoch(1), lamport: Lamport(2), origin: Origin(2) };
            let cell = CellWrite {
                key: "k".into(),
                field: Field::whole_key(),
                content: Content::Tombstone,
                seen: Seen::default(),
            };
            let writes = vec![Write::new(stamp, 2, vec![cell])];
            Message::Push { writes, relay: None }
        });
        assert_eq!(misdeeds, [Misdeed::Malformed]);
    }

    #[test]
    fn a_quarantine_lasts_until_the_peer_is_down() {
        let impostor = |round| captured(round, claiming(&[(1, 2)]));
        let (mut cluster, _) = after(impostor);
        cluster.handle(0, Input::PeerUp(NodeId(2), Duration::from_millis(2)));
        assert_eq!(cluster.shards[0].peers().count(), 0, "another round trip changes nothing");
        cluster.set(1, "c", "3");
        cluster.deliver();
        assert_eq!(cluster.value(0, "c"), None);
        cluster.handle(0, Input::PeerDown(NodeId(2)));
        cluster.handle(0, Input::PeerUp(NodeId(2), Duration::from_millis(2)));
        cluster.pass(Duration::from_secs(2));
        assert_eq!(cluster.value(0, "c").as_deref(), Some("3"));
    }

    #[test]
    fn what_peers_would_not_take_is_refused_here() {
        let mut cluster = Cluster::new(2, |_| ());
        let long = vec![b'x'; KEY_BYTES_MAX + 1];
        let value = vec![0; WRITE_BYTES_MAX / 2];
        let pairs: [(&[u8], &[u8]); 2] = [(b"a", &value), (b"b", &value)];
        let requests = [Request::Set { key: &long, value: b"v" }, Request::SetAll(&pairs)];
        for request in requests {
            let reply = cluster.handle(0, Input::Request(Token(0), request));
            assert_eq!(reply, Some(Reply::TooLarge));
        }
        assert!(cluster.shards[0].vector().is_empty() && cluster.sent.is_empty());
        cluster.set(0, &"k".repeat(KEY_BYTES_MAX), "v");
        cluster.handle(0, Input::Request(Token(0), Request::SetAll(&pairs[..1])));
        cluster.deliver();
        assert!(cluster.is_converged() && cluster.shards[1].store().keys_live() == 2);
    }

    /// Whoever leaves does not come back while others go on writing, and when they greet; if told to
    /// stay after all, it takes part again.
    #[test]
    fn who_leaves_comes_back_only_when_told_to() {
        let mut cluster = Cluster::new(3, |config| config.roster = true);
        cluster.pass(Duration::from_secs(5));
        let states = |cluster: &Cluster| -> Vec<_> {
            let members = |at: usize| cluster.shards[at].members();
            let of_first = |at| members(at).find(|(node, _)| *node == NodeId(1));
            (0..3).map(|at| of_first(at).map(|(_, member)| member.state)).collect()
        };
        assert_eq!(states(&cluster), [Some(State::Active); 3]);
        let reply = cluster.handle(0, Input::Request(Token(0), Request::Stay));
        assert_eq!(reply, Some(Reply::Nothing));
        cluster.handle(0, Input::Request(Token(0), Request::Leave));
        let origin = cluster.shards[0].config.origin;
        for round in 0..30 {
            cluster.set(1 + round % 2, &format!("k{round}"), "v");
            cluster.deliver();
            if round == 10 {
                for (one, other) in [(0, NodeId(2)), (1, NodeId(1))] {
                    cluster.handle(one, Input::PeerDown(other));
                    cluster.handle(one, Input::PeerUp(other, Duration::from_millis(1)));
                }
            }
            cluster.pass(Duration::from_secs(1));
        }
        assert_eq!(states(&cluster), [Some(State::Left); 3]);
        assert_eq!(cluster.shards[0].config.origin, origin);
        let reply = cluster.handle(0, Input::Request(Token(0), Request::Rebuild));
        assert_eq!(reply, Some(Reply::Nothing));

        cluster.handle(0, Input::Request(Token(0), Request::Stay));
        cluster.pass(Duration::from_secs(10));
        assert_eq!(states(&cluster), [Some(State::Active); 3]);
        assert_ne!(cluster.shards[0].config.origin, origin);
        cluster.set(0, "after", "v");
        cluster.pass(Duration::from_secs(5));
        assert!(cluster.is_converged());
        assert_eq!(cluster.value(2, "after").as_deref(), Some("v"));
    }

    /// Many peers fill one node in small chunks at the same time, and none stops another.
    #[test]
    fn many_may_fill_one_node() {
        let mut cluster = Cluster::new(15, |config| {
            config.eager = false;
            config.delta_bytes_max = 50;
        });
        for at in 1..15 {
            cluster.handle(0, Input::PeerDown(NodeId(at as u128 + 1)));
            cluster.handle(at, Input::PeerDown(NodeId(1)));
        }
        for key in 0..50 {
            cluster.set(1, &format!("k{key}"), "v");
        }
        cluster.pass(Duration::from_secs(60));
        assert!(cluster.shards[1..].windows(2).all(|pair| pair[0].summary() == pair[1].summary()));
        assert!(cluster.shards[0].vector().is_empty());
        for at in 1..15 {
            cluster.handle(0, Input::PeerUp(NodeId(at as u128 + 1), Duration::from_millis(1)));
            cluster.handle(at, Input::PeerUp(NodeId(1), Duration::from_millis(1)));
        }
        cluster.deliver();
        assert!(cluster.is_converged(), "without waiting for anything");
        assert!(cluster.shards[0].counters.deltas_filled > 0);
    }

    /// While bulky deltas wait for credit that never comes, short ones go out.
    #[test]
    fn a_delta_of_one_part_needs_no_room() {
        let mut cluster = Cluster::new(1, |config| config.delta_bytes_max = 200);
        for key in 0..50 {
            cluster.set(0, &format!("k{key}"), "v");
        }
        let wish = Wish { take: true, give: false };
        let mut asks = |peer: u128, held| {
            let round = RoundId(peer as u64);
            let message = Message::Digest { round, digest: Digest(held), wish };
            cluster.under_way.clear();
            cluster.handle(0, Input::Message(NodeId(peer), sent(1, message)));
            cluster.under_way.len()
        };
        assert!((10..18).all(|peer| asks(peer, claiming(&[])) == 4), "as far as credit goes");
        assert_eq!(asks(18, claiming(&[])), 0, "no room");
        let nearly_all: Vec<_> = (1..50).map(|seq| (1, seq)).collect();
        assert_eq!(asks(19, claiming(&nearly_all)), 1);
    }

    /// Whoever opens a stream for an exchange ends it.
    #[test]
    fn the_streams_of_an_exchange_are_ended() {
        let mut cluster = Cluster::new(2, |config| {
            config.eager = false;
            config.delta_bytes_max = 100;
        });
        for key in 0..40 {
            cluster.set(key % 2, &format!("k{key}"), "v");
        }
        cluster.pass(Duration::from_secs(5));
        assert!(cluster.is_converged());
        assert!(cluster.sent.iter().filter(|kind| **kind == "delta").count() > 10);
        assert!(cluster.streams.values().all(|ended| *ended), "{:?}", cluster.streams);
    }
}
