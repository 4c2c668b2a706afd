//! Orphans: writes of an eventual epoch that were not known to the others when a strong one began.
//!
//! They were acknowledged by a member that was left out of the switch by name; or a member had put them away
//! when the only voter lost what it knew (`succession`). They never count by
//! themselves: a client may have read that they are not there. A member that has some puts them away
//! when it learns of the epoch, and keeps them to be shown. It offers those that are whole values to the
//! log, through a voter if it is none, some at a time until it knows of each what the log has decided: the
//! log makes the write if its writer had seen all that the key shows now. That nothing shows does not
//! suffice: it may have been deleted, of which voters may remember nothing.
//!
//! An orphan that is offered again, since the answer was lost, is not made again: its key shows by now what
//! its writer had not seen, the orphan's own value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::cell::CellWrite;
use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::record::Append;
use super::super::shard::Shard;
use super::super::stamp::{Dot, Stamp};
use super::super::time::Time;
use super::group::CALL_BYTES_MAX;
use super::ledger::Entry;
use super::{Posture, StrongEvent, Word};

/// The most orphans that are kept to be shown: more than anybody looks through. Of more only an event tells
/// what was lost. In bytes there is no bound of their own, as that would lose more: what they take the
/// store has had room for.
pub(super) const ORPHANS_MAX: usize = 65_536;

/// How often orphans are offered.
const OFFER_INTERVAL: Duration = Duration::from_secs(1);

/// How many are offered at a time, and about how many bytes of them: it is not urgent, and what clients ask
/// now goes through the same log.
const OFFERED_MAX: usize = 64;
const OFFERED_BYTES_MAX: usize = 1 << 20;

/// Of how many orphans a voter remembers what the log has decided, and who has offered it: many times what
/// one member offers until it has its answers.
const VERDICTS_MAX: usize = 4_096;

/// A write that does not count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Orphan {
    /// Its place in the order of its epoch.
    pub stamp: Stamp,
    /// The name of its cell.
    pub dot: Dot,
    /// The cell.
    pub cell: CellWrite,
    /// Whether the log has made it after all.
    pub adopted: bool,
}

/// The orphans that this member keeps.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    kept: BTreeMap<Dot, Orphan>,
    /// Of which the log is still to decide.
    open: BTreeSet<Dot>,
    /// When some were offered, and which was the last.
    offered: Option<Time>,
    last: Option<Dot>,
    /// At a voter: who has offered which.
    offers: VecDeque<(Dot, NodeId)>,
    /// At a voter: which the log has made, and which not, of late.
    verdicts: BTreeMap<Dot, bool>,
    verdicts_in_order: VecDeque<Dot>,
}

impl Orphans {
    pub(super) fn of(kept: BTreeMap<Dot, Orphan>) -> Self {
        let open = kept.values().filter(|it| it.may_be_made()).map(|it| it.dot).collect();
        Self { kept, open, ..Self::default() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Orphan> {
        self.kept.values()
    }

    /// Whether any is still to be offered.
    pub(super) fn waits(&self) -> bool {
        !self.open.is_empty()
    }

    /// Some that are still to be offered, in turn.
    fn next(&mut self) -> Vec<Orphan> {
        let later = match self.last {
            Some(last) => self.open.range((Bound::Excluded(last), Bound::Unbounded)),
            None => self.open.range(..),
        };
        let earlier = self.last.map(|last| self.open.range(..=last));
        let turn = later.chain(earlier.into_iter().flatten());
        let (mut some, mut bytes) = (Vec::new(), 0);
        for orphan in turn.take(OFFERED_MAX).filter_map(|dot| self.kept.get(dot)) {
            bytes += orphan.cell.bytes();
            if bytes > OFFERED_BYTES_MAX && !some.is_empty() {
                break;
            }
            some.push(orphan.clone());
        }
        self.last = some.last().map(|orphan| orphan.dot);
        some
    }

    /// Takes note of what the log has decided.
    fn decide(&mut self, dot: Dot, adopted: bool) {
        if self.verdicts.contains_key(&dot) {
            return;
        }
        self.verdicts.insert(dot, adopted);
        self.verdicts_in_order.push_back(dot);
        if self.verdicts_in_order.len() > VERDICTS_MAX
            && let Some(oldest) = self.verdicts_in_order.pop_front()
        {
            self.verdicts.remove(&oldest);
        }
    }
}

impl Orphan {
    /// Whether the log could make it: what stands for part of a key cannot be judged by itself, and what is
    /// longer than an entry it does not take.
    fn may_be_made(&self) -> bool {
        let fits = self.cell.bytes() <= CALL_BYTES_MAX;
        !self.adopted && self.cell.field.is_whole_key() && fits
    }

    fn into_entry(self) -> Entry {
        let Self { stamp, dot, cell, .. } = self;
        Entry::Adopt { stamp, dot, cell }
    }
}

impl Shard {
    /// The orphans that this member keeps.
    pub fn orphans(&self) -> impl Iterator<Item = &Orphan> {
        self.strong.orphans.iter()
    }

    /// Keeps a write that does not count.
    pub(in crate::protocol) fn keep_orphan(
        &mut self,
        (stamp, dot): (Stamp, Dot),
        cell: CellWrite,
        output: &mut Output,
    ) {
        let orphans = &mut self.strong.orphans;
        self.counters.orphans += 1;
        if orphans.kept.contains_key(&dot) {
            return;
        }
        let orphan = Orphan { stamp, dot, cell, adopted: false };
        if orphans.kept.len() >= ORPHANS_MAX {
            return self.tell_strong(StrongEvent::Unkept(orphan), output);
        }
        orphans.kept.insert(dot, orphan.clone());
        if orphan.may_be_made() {
            orphans.open.insert(dot);
        }
        self.record_orphan(&orphan, output);
        self.tell_strong(StrongEvent::Orphaned(orphan), output);
    }

    /// Records an orphan. There may be very many at once, which need not be durable together.
    fn record_orphan(&self, orphan: &Orphan, output: &mut Output) {
        if self.keeps_records() {
            output.append.go_on();
            output.append.orphan(orphan);
            output.append.settle();
        }
    }

    /// Records orphans for a snapshot, about `bytes_max` bytes of them, from one on; answers where to go on,
    /// or `None` at the end. What is kept or decided between two calls is in the records that the shard
    /// appends, and those are to be applied after these.
    pub fn export_orphans(&self, from: Dot, bytes_max: usize, append: &mut Append) -> Option<Dot> {
        let mut bytes = 0;
        for (dot, orphan) in self.strong.orphans.kept.range(from..) {
            if bytes >= bytes_max {
                return Some(*dot);
            }
            bytes += orphan.cell.bytes();
            append.orphan(orphan);
            append.settle();
        }
        None
    }

    /// What becomes of a write that this node has put away; `is_last`: it was the only voter for certain.
    pub(in crate::protocol) fn fate(&self, stamp: Stamp, dot: Dot, is_last: bool) -> Fate {
        let ledger = self.strong.ledger();
        match &ledger.opened {
            None => Fate::Anew,
            Some(_) if !ledger.admits(stamp, dot) => Fate::Orphan,
            Some(opened) if ledger.mode() == Mode::Eventual && stamp.epoch > opened.epoch => {
                Fate::Anew
            }
            // Who was the only voter had it from the log, which nobody else may have. In strong mode it stays as
            // it is, since nobody makes writes of its own.
            Some(_) if is_last && ledger.mode() == Mode::Strong => Fate::Stays,
            Some(_) if is_last => Fate::Anew,
            // The only voter may have lost it.
            Some(_) if ledger.seats.len() == 1 && !self.vector.contains(dot) => Fate::Orphan,
            // The log has it, or had it and has replaced it.
            Some(_) => Fate::Dropped,
        }
    }

    /// Offers orphans to the log, or to a voter.
    pub(super) fn look_at_orphans(&mut self, now: Time, output: &mut Output) {
        let posture = self.posture();
        let orphans = &mut self.strong.orphans;
        let due = orphans.offered.is_none_or(|at| now.since(at) >= OFFER_INTERVAL);
        if !orphans.waits() || !due || !matches!(posture, Posture::Log | Posture::Forward) {
            return;
        }
        orphans.offered = Some(now);
        if posture == Posture::Log {
            if self.has_quorum() {
                for orphan in self.strong.orphans.next() {
                    self.propose_entry(now, &orphan.into_entry());
                }
            }
            return;
        }
        if let Some(voter) = self.voter_for_requests() {
            let orphans = self.strong.orphans.next();
            self.say(voter, Word::Offer { orphans }, output);
        }
    }

    /// A member that does not vote offers orphans.
    pub(super) fn receive_offer(
        &mut self,
        now: Time,
        peer: NodeId,
        orphans: Vec<Orphan>,
        output: &mut Output,
    ) {
        if self.posture() != Posture::Log || self.roster.active(peer).is_none() {
            return;
        }
        let mut decided = Vec::new();
        for orphan in orphans.into_iter().take(OFFERED_MAX) {
            let dot = orphan.dot;
            let known = &mut self.strong.orphans;
            if let Some(adopted) = known.verdicts.get(&dot) {
                decided.push((dot, *adopted));
                continue;
            }
            if known.offers.len() >= VERDICTS_MAX {
                known.offers.pop_front();
            }
            known.offers.push_back((dot, peer));
            self.propose_entry(now, &orphan.into_entry());
        }
        if !decided.is_empty() {
            self.say(peer, Word::Decided { orphans: decided }, output);
        }
    }

    /// A voter says what the log has decided of orphans.
    pub(super) fn receive_decided(
        &mut self,
        peer: NodeId,
        decided: Vec<(Dot, bool)>,
        output: &mut Output,
    ) {
        if self.strong.ledger().seat_of(peer).is_some() {
            for (dot, adopted) in decided {
                self.close_orphan(dot, adopted, output);
            }
        }
    }

    /// The log has decided of an orphan, which may be another member's.
    pub(super) fn orphan_decided(&mut self, dot: Dot, adopted: bool, output: &mut Output) {
        let orphans = &mut self.strong.orphans;
        orphans.decide(dot, adopted);
        // What it decided first holds.
        let adopted = orphans.verdicts.get(&dot).copied().unwrap_or(adopted);
        let (of_it, others) = orphans.offers.drain(..).partition(|(offered, _)| *offered == dot);
        orphans.offers = others;
        let askers: BTreeSet<NodeId> =
            VecDeque::into_iter(of_it).map(|(_, peer): (Dot, NodeId)| peer).collect();
        for peer in askers {
            self.say(peer, Word::Decided { orphans: vec![(dot, adopted)] }, output);
        }
        self.close_orphan(dot, adopted, output);
    }

    /// The log has decided of an orphan that this member may keep.
    fn close_orphan(&mut self, dot: Dot, adopted: bool, output: &mut Output) {
        let orphans = &mut self.strong.orphans;
        if !orphans.open.remove(&dot) || !adopted {
            return;
        }
        if let Some(orphan) = orphans.kept.get_mut(&dot) {
            orphan.adopted = true;
            let orphan = orphan.clone();
            self.record_orphan(&orphan, output);
        }
    }
}

/// What becomes of a write that was put away and that the donor does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) enum Fate {
    /// It is made anew.
    Anew,
    /// It is there again, as it was.
    Stays,
    /// It does not count, and is kept to be shown.
    Orphan,
    /// It is of no more use.
    Dropped,
}
