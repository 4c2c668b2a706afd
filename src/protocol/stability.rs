//! Causal stability: when a tombstone has done its work, and what is remembered of it then.
//!
//! A tombstone keeps older versions of its cell from coming back, so it must stay as long as
//! anybody may still send one. Time says nothing about that; what members report does.
//!
//! # The rule
//! Every active member of the roster reports what it holds (its *row*). What is in all rows, this
//! node's own included, is *stable*. A tombstone may go when its dot is stable **and** this node
//! holds all that is in any row. Then every active member has it or something greater, so none has
//! an older version; and what a member had sent before it had it is in its row, hence known here:
//! when that comes late, it is passed over. The entries of the roster are writes, too: whom a member
//! had let in before its report is known here, and asked for a row as well.
//!
//! A row counts only for the origin under which it was reported: what an earlier life had, its
//! successor may have lost.
//!
//! # The horizon
//! What was stable when tombstones were collected is added to the *horizon*. Who does not hold all
//! of it may have versions that those tombstones would have beaten, and is not let in (`roster`).
//!
//! # Who wrote after a deletion
//! Of a tombstone that a writer has collected its write cannot say that it had been seen. Where the
//! tombstone still stands, the two would look concurrent, and a lost update be told that is none. But
//! before a node collects, it reports to everybody it is linked with that it holds what goes. Nothing
//! was lost if the writer had reported so before it wrote, and says that it found nothing in the cell:
//! then the tombstone had stood there, or something that beat it, which is in the report and would
//! have beaten it here as well. A report that comes after the write, as when pushes are dropped or the
//! write takes another way, leaves the false alarm: a number that is one too high, and nothing else.
//!
//! Left out: passing rows on for others. Every member asks every other one, which is n² reports per
//! burst of deletions.
//!
//! Sources: Baquero, Almeida and Shoker 2017, "Pure Operation-Based Replicated Data Types", for
//! causal stability; Wuu and Bernstein 1984, "Efficient Solutions to the Replicated Log and
//! Dictionary Problems", for tables of what others hold.

use std::time::Duration;

use super::boundary::{Lane, Output};
use super::cell::Seen;
use super::digest::{Digest, DigestHash};
use super::event::Event;
use super::id::{NodeId, Origin};
use super::message::Message;
use super::shard::Shard;
use super::stamp::{Dot, Lamport};
use super::time::Time;
use super::version::VersionVector;

/// How many tombstones are looked at in one waking: about a millisecond's work.
const SLICE_MAX: usize = 4_096;

/// How long clients and peers have the node for themselves between two slices.
const SLICE_PAUSE: Duration = Duration::from_millis(2);

/// What a member has reported.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) origin: Origin,
    pub(super) vector: VersionVector,
}

/// Why a member holds up the collection of tombstones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is no link to it.
    Down,
    /// It has not yet reported what is here, or has something that is not.
    Behind,
}

/// How the collection of tombstones gets on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CollectionStatus {
    /// How many tombstones wait.
    pub tombstones: usize,
    /// Whom they wait for: since when it is away, if it is, and why.
    pub blocked_by: Vec<(NodeId, Option<Time>, Reason)>,
}

/// What is known to be durable here, of what is held.
#[derive(Debug, Default)]
pub(super) struct Durable {
    vector: VersionVector,
    /// What will be, once this number is called.
    asked: Option<(u64, VersionVector)>,
    token: u64,
}

impl Durable {
    /// All that a shard has risen with.
    pub(super) fn of(vector: VersionVector) -> Self {
        Self { vector, asked: None, token: 0 }
    }
}

/// The collection that is under way.
#[derive(Debug, Default)]
pub(super) struct Collection {
    /// When to look next.
    pub(super) next: Option<Time>,
    slice: Option<Slice>,
}

/// A part of the tombstones that is looked at in one waking.
#[derive(Debug)]
struct Slice {
    /// What is stable.
    stable: VersionVector,
    /// The first dot that has not been looked at.
    from: Dot,
    /// Whether everybody was told that this node has what is stable.
    told: bool,
}

impl Shard {
    /// Up to where tombstones were collected.
    pub fn horizon(&self) -> &VersionVector {
        &self.horizon
    }

    /// How the collection of tombstones gets on.
    pub fn collection(&self) -> CollectionStatus {
        let tombstones = self.store.tombstones();
        let mut status = CollectionStatus { tombstones, blocked_by: Vec::new() };
        if tombstones == 0 || !self.config.roster {
            return status;
        }
        for (node, origin) in self.roster.actives().filter(|(node, _)| *node != self.config.node) {
            let since = self.roster.away.get(&node).copied();
            let row = self.row(node, origin);
            if row.is_some_and(|row| row == &self.vector) {
                continue;
            }
            let down = self.peers.live(node).is_none();
            status.blocked_by.push((node, since, if down { Reason::Down } else { Reason::Behind }));
        }
        status
    }

    fn row(&self, node: NodeId, origin: Origin) -> Option<&VersionVector> {
        let row = self.roster.rows.get(&node)?;
        let counts = row.origin == origin;
        #[cfg(test)]
        let counts = counts || self.is_careless(super::shard::Careless::KeepsOldRows);
        counts.then_some(&row.vector)
    }

    /// What this node holds for good, and may tell the others to hold.
    pub(super) fn reportable(&self) -> &VersionVector {
        if self.keeps_records() { &self.durable.vector } else { &self.vector }
    }

    /// Asks to be told when what is here now is durable, unless that is known or asked already.
    pub(super) fn make_reportable(&mut self, output: &mut Output) {
        let known = self.durable.vector == self.vector || self.durable.asked.is_some();
        if self.keeps_records() && !known {
            let token = self.be_told(output);
            self.durable.asked = Some((token, self.vector.clone()));
        }
    }

    /// The number that comes back when all that an output has so far, and all before, is durable.
    pub(super) fn be_told(&mut self, output: &mut Output) -> u64 {
        *output.append.tell.get_or_insert_with(|| {
            self.durable.token += 1;
            self.durable.token
        })
    }

    /// What was there when this number was given out is durable now.
    pub(super) fn made_durable(&mut self, now: Time, token: u64, output: &mut Output) {
        if let Some((_, vector)) = self.durable.asked.take_if(|(asked, _)| *asked <= token) {
            self.durable.vector = vector;
        }
        self.log_durable(now, token, output);
    }

    /// Forgets what was durable, as it is not here any more.
    pub(super) fn nothing_is_durable(&mut self) {
        self.durable.vector = VersionVector::default();
        self.durable.asked = None;
    }

    /// Reports to a peer and asks for its report, as far as there is news, and
    /// tombstones, keys that have ended or a claim to be renewed wait for it.
    pub(super) fn exchange_reports(&mut self, peer: NodeId, output: &mut Output) {
        let waits = self.store.tombstones() > 0 || self.has_ended_keys() || self.claim_is_old();
        if !waits || !self.config.roster || self.fill.is_some() {
            return;
        }
        self.make_reportable(output);
        let Some(origin) = self.roster.active(peer) else { return };
        let known = self.row(peer, origin).map(DigestHash::of).unwrap_or_default();
        let wants = (known != DigestHash::of(&self.vector)).then_some(known);
        self.report(peer, None, wants, output);
    }

    /// Tells a peer what this node holds, unless it was told or `has` it.
    fn report(
        &mut self,
        peer: NodeId,
        has: Option<DigestHash>,
        wants: Option<DigestHash>,
        output: &mut Output,
    ) {
        let hash = DigestHash::of(self.reportable());
        let Some(link) = self.peers.live(peer).filter(|link| link.takes && link.gives) else {
            return;
        };
        let known = has.or(link.reported);
        let vector = (known != Some(hash)).then(|| Digest(self.reportable().to_send()));
        if vector.is_none() && wants.is_none() {
            return;
        }
        if let (Some(link), true) = (self.peers.live_mut(peer), vector.is_some()) {
            link.reported = Some(hash);
            self.gave = true;
        }
        self.sender().send(peer, Lane::Push, Message::Report { vector, wants }, output);
    }

    pub(super) fn receive_report(
        &mut self,
        peer: NodeId,
        origin: Origin,
        vector: Option<Digest>,
        wants: Option<DigestHash>,
        output: &mut Output,
    ) {
        if self.roster.active(peer) != Some(origin) {
            return;
        }
        if let Some(Digest(vector)) = vector {
            match self.roster.rows.get_mut(&peer) {
                Some(row) if row.origin == origin => row.vector.merge(&vector),
                _ => drop(self.roster.rows.insert(peer, Row { origin, vector })),
            }
        }
        if let Some(has) = wants {
            self.make_reportable(output);
            self.report(peer, Some(has), None, output);
        }
    }

    /// When to look for tombstones to collect next.
    pub(super) fn collection_deadline(&self) -> Option<Time> {
        self.collection.next
    }

    /// Sees to it that tombstones are looked at from time to time, as long as there are any.
    pub(super) fn schedule_collection(&mut self, now: Time) {
        if self.store.tombstones() == 0 {
            self.collection.next = None;
        } else if self.collection.next.is_none() {
            self.collection.next = Some(now + self.config.interval);
        }
    }

    /// Collects tombstones, if the time has come and everybody has them.
    pub(super) fn collect(&mut self, now: Time, output: &mut Output) {
        if self.collection.next.is_none_or(|at| at > now) {
            return;
        }
        self.collection.next = Some(now + self.config.interval);
        if self.fill.is_some() {
            self.collection.slice = None;
            return;
        }
        if self.collection.slice.is_none() {
            self.retire_the_lost(now, output);
            // Where there is nobody to report to, nobody asks for it.
            self.make_reportable(output);
            let Some(stable) = self.stable() else { return };
            let from = Dot { origin: Origin(0), seq: 0 };
            self.collection.slice = Some(Slice { stable, from, told: false });
        }
        let Some(Slice { stable, from, mut told }) = self.collection.slice.take() else { return };
        let slice: Vec<Dot> = self.store.tombstones_from(from).take(SLICE_MAX).collect();
        let ready: Vec<Dot> = slice.iter().copied().filter(|dot| stable.contains(*dot)).collect();
        if !ready.is_empty() {
            if !std::mem::replace(&mut told, true) {
                let peers: Vec<_> = self.peers.ids().collect();
                peers.into_iter().for_each(|peer| self.report(peer, None, None, output));
            }
            // Before the first of them is gone.
            self.horizon.merge(&stable);
            if self.keeps_records() {
                output.append.horizon(&stable);
            }
            let mut count = 0;
            for dot in ready {
                let Some(beaten) = self.store.collect(dot) else { continue };
                count += 1;
                self.hold_beaten(&beaten, output);
            }
            self.counters.tombstones_collected += count as u64;
            output.events.push(Event::Collected { count });
        }
        if let Some(last) = slice.get(SLICE_MAX - 1) {
            let next = Dot { seq: last.seq.saturating_add(1), ..*last };
            self.collection.slice = Some(Slice { stable, from: next, told });
            self.collection.next = Some(now + SLICE_PAUSE);
        }
    }

    /// Whether the writer of the cell `by`, who found nothing there, had collected this deletion, which
    /// still stands here.
    pub(super) fn had_collected(&self, by: Dot, deletion: Dot) -> bool {
        let mut rows = self.roster.rows.values().filter(|row| row.origin == by.origin);
        rows.any(|row| {
            let reported_before = row.vector.contains(deletion) && !row.vector.contains(by);
            reported_before && self.vector.covers(&row.vector)
        })
    }

    /// Marks the versions that a collected tombstone had beaten, which may never have come here: when
    /// they have died with those who had them, only the tombstone names them, and a node that comes
    /// back with one would take it for unseen and make it anew.
    ///
    /// Every active member has the tombstone, so none has any of these or ever will.
    fn hold_beaten(&mut self, beaten: &Seen, output: &mut Output) {
        let held = hold_beaten(beaten, self.config.origin, self.lamport, &mut self.vector);
        if !held.is_empty() && self.keeps_records() {
            output.append.held(&held);
        }
    }

    /// What every active member holds, if all of what they hold is here.
    pub(super) fn stable(&self) -> Option<VersionVector> {
        let mut stable = self.reportable().clone();
        #[cfg(test)]
        if self.is_careless(super::shard::Careless::CollectsEarly) {
            return Some(stable);
        }
        for (node, origin) in self.roster.actives() {
            if node == self.config.node {
                continue;
            }
            let row = self.row(node, origin)?;
            let covers = self.vector.covers(row);
            #[cfg(test)]
            let covers = covers || self.is_careless(super::shard::Careless::IgnoresRows);
            if !covers {
                return None;
            }
            stable = stable.intersection(row);
        }
        Some(stable)
    }

    /// Retires members that have been away too long.
    ///
    /// Only where more than half of the members are linked: of two sides of a partition that retired
    /// each other, one has to begin anew, and deletions that it has collected meanwhile are lost. So
    /// at the most one side does it by itself; where neither can, a person decides.
    fn retire_the_lost(&mut self, now: Time, output: &mut Output) {
        let is_here = |node: NodeId| node == self.config.node || self.peers.live(node).is_some();
        let here = self.roster.actives().filter(|(node, _)| is_here(*node)).count();
        let is_majority = 2 * here > self.roster.actives().count();
        let others = self.roster.actives().map(|(node, _)| node);
        let others: Vec<_> = others.filter(|node| *node != self.config.node).collect();
        for node in others {
            if self.peers.live(node).is_some() {
                self.roster.away.remove(&node);
                continue;
            }
            let since = *self.roster.away.entry(node).or_insert(now);
            if is_majority && now.since(since) >= self.config.retire_after {
                self.retire(now, node, output);
            }
        }
    }

    /// Forgets a collection under way.
    pub(super) fn forget_collection(&mut self) {
        self.collection = Collection::default();
    }
}

/// Marks in `vector` what a collected tombstone had beaten, as far as it can exist and is not by
/// `origin` itself; answers what is new.
pub(super) fn hold_beaten(
    beaten: &Seen,
    origin: Origin,
    lamport: Lamport,
    vector: &mut VersionVector,
) -> VersionVector {
    let mut held = VersionVector::default();
    for dot in beaten.iter() {
        let possible = dot.seq <= lamport.0 && dot.origin != origin;
        let room = vector.leaves_room_for(dot.origin, (dot.seq, dot.seq));
        if possible && room && vector.insert(dot) {
            held.insert(dot);
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::super::boundary::{Input, Request, Token};
    use super::super::config::Config;
    use super::super::message::Envelope;
    use super::super::time::WallTime;
    use super::*;

    /// Two members; what one sends waits until it is carried to the other.
    struct Two {
        now: Time,
        shards: [Shard; 2],
        wire: Vec<(usize, Envelope)>,
        conflicts: usize,
        /// Whether reports reach the second.
        reports: bool,
    }

    impl Two {
        fn new(reports: bool) -> Self {
            let shard =
                |node: u64| Shard::new(Config::new(NodeId(u128::from(node)), Origin(node), node));
            let shards = [shard(1), shard(2)];
            let wire = Vec::new();
            let mut two = Self { now: Time::START, shards, wire, conflicts: 0, reports };
            for at in [0, 1] {
                let peer = NodeId(2 - at as u128);
                two.handle(at, Input::PeerUp(peer, Duration::from_millis(1)));
            }
            two.carry();
            two
        }

        fn handle(&mut self, at: usize, input: Input<'_>) {
            let mut output = Output::default();
            self.shards[at].handle(self.now, input, &mut output);
            self.wire.extend(output.send.into_iter().map(|send| (1 - at, send.envelope)));
            let is_conflict = |event: &&Event| matches!(event, Event::Conflict(_));
            self.conflicts += output.events.iter().filter(is_conflict).count();
        }

        fn set(&mut self, at: usize, value: &[u8]) {
            let set = Request::Set { key: b"key", value };
            self.handle(at, Input::Request(Token(0), set));
        }

        fn carry(&mut self) {
            while !self.wire.is_empty() {
                let (to, envelope) = self.wire.remove(0);
                let withheld = to == 1
                    && !self.reports
                    && matches!(envelope.message, Message::Report { vector: Some(_), .. });
                if !withheld {
                    let from = NodeId(2 - to as u128);
                    self.handle(to, Input::Message(from, envelope));
                }
            }
        }

        /// Lets time pass at one node only, and carries what comes of it.
        fn wake(&mut self, at: usize, times: usize) {
            for _ in 0..times {
                self.now = self.now + Duration::from_secs(1);
                self.handle(at, Input::Wake(WallTime(0)));
                self.carry();
            }
        }
    }

    /// The first node collects a deletion and writes the key anew, where the second still has the
    /// tombstone: nothing is lost by that, and nothing is told to be, unless the reports were lost.
    #[test]
    fn a_write_after_a_deletion_that_its_writer_has_collected_is_no_conflict() {
        for reports in [true, false] {
            let mut two = Two::new(reports);
            two.set(0, b"before");
            two.carry();
            two.wake(0, 3);
            let delete = Request::Delete(&[b"key"]);
            two.handle(1, Input::Request(Token(0), delete));
            two.carry();
            two.wake(0, 5);
            let tombstones = [0, 1].map(|at| two.shards[at].store.tombstones());
            assert_eq!(tombstones, [0, 1], "the first one has collected it, the second has not");
            two.set(0, b"after");
            two.carry();
            assert_eq!(two.conflicts, usize::from(!reports), "reports: {reports}");
        }
    }

    /// A deletion of which the writer did not know is lost, and that is told, although the writer has
    /// it by the time that its write comes.
    #[test]
    fn a_deletion_that_was_not_known_is_told_to_be_lost() {
        let mut two = Two::new(true);
        two.set(0, b"before");
        two.carry();
        two.wake(0, 3);
        let delete = Request::Delete(&[b"key"]);
        two.handle(1, Input::Request(Token(0), delete));
        let late: Vec<_> = two.wire.drain(..).collect();
        // By the second its stamp is the greater one; the first loses to the deletion.
        two.set(0, b"meanwhile");
        two.set(0, b"after");
        let writes: Vec<_> = two.wire.drain(..).collect();
        two.wire = late;
        two.carry();
        assert_eq!(two.conflicts, 1, "at the first");
        // It reports that it has both before the second has heard of its write.
        let report = two.shards[0].reportable().clone();
        let report = Message::Report { vector: Some(Digest(report)), wants: None };
        two.wire = vec![(1, two.shards[0].sender().envelope(report))];
        two.wire.extend(writes);
        two.carry();
        assert_eq!(two.conflicts, 3, "at the second as well, and the first write to it there");
    }
}
