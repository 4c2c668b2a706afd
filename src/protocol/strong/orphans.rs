//! Orphans: writes of an eventual epoch that were not known to the others when a strong one began.
//!
//! They were acknowledged by a member that was left out of the switch by name. They never count by
//! themselves: a client may have read that they are not there. A member that has some puts them away
//! when it learns of the epoch, and keeps them to be shown. A voter offers those that are whole values
//! to the log, which makes the write if its writer had seen all that the key shows now. That nothing
//! shows does not suffice: it may have been deleted, of which voters may remember nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::cell::CellWrite;
use super::super::operation::Mode;
use super::super::shard::Shard;
use super::super::stamp::{Dot, Stamp};
use super::super::time::Time;
use super::ledger::Entry;
use super::{Posture, StrongEvent};

/// The most orphans that are kept to be shown; more are counted only.
const ORPHANS_MAX: usize = 65_536;

/// How often an orphan is offered.
const OFFER_INTERVAL: Duration = Duration::from_secs(1);

/// How many are offered at a time.
const OFFERED_MAX: usize = 64;

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
    /// Those that were offered, and when; and how often.
    offered: Option<Time>,
    offers: u32,
}

impl Orphans {
    pub(super) fn of(kept: BTreeMap<Dot, Orphan>) -> Self {
        Self { kept, ..Self::default() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Orphan> {
        self.kept.values()
    }

    /// Whether any is still to be offered.
    pub(super) fn waits(&self) -> bool {
        self.offers < 3 && self.kept.values().any(|orphan| !orphan.adopted)
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
        if orphans.kept.len() >= ORPHANS_MAX || orphans.kept.contains_key(&dot) {
            return;
        }
        let orphan = Orphan { stamp, dot, cell, adopted: false };
        orphans.kept.insert(dot, orphan.clone());
        orphans.offers = 0;
        if self.keeps_records() {
            output.append.orphan(&orphan);
        }
        self.tell_strong(StrongEvent::Orphaned(orphan), output);
    }

    /// What becomes of a write that this node has put away.
    pub(in crate::protocol) fn fate(&self, stamp: Stamp, dot: Dot) -> Fate {
        let ledger = self.strong.ledger();
        match &ledger.opened {
            None => Fate::Anew,
            Some(_) if !ledger.admits(stamp, dot) => Fate::Orphan,
            Some(opened) if ledger.mode() == Mode::Eventual && stamp.epoch > opened.epoch => {
                Fate::Anew
            }
            // The log has it, or had it and has replaced it.
            Some(_) => Fate::Dropped,
        }
    }

    /// Offers orphans to the log.
    pub(super) fn look_at_orphans(&mut self, now: Time, _output: &mut Output) {
        let orphans = &self.strong.orphans;
        let due = orphans.offered.is_none_or(|at| now.since(at) >= OFFER_INTERVAL);
        if !orphans.waits() || !due || self.posture() != Posture::Log || !self.has_quorum() {
            return;
        }
        let entries: Vec<Entry> = orphans
            .kept
            .values()
            .filter(|orphan| !orphan.adopted && orphan.cell.field.is_whole_key())
            .take(OFFERED_MAX)
            .map(|Orphan { stamp, dot, cell, .. }| Entry::Adopt {
                stamp: *stamp,
                dot: *dot,
                cell: cell.clone(),
            })
            .collect();
        for entry in entries {
            self.propose_entry(now, &entry);
        }
        self.strong.orphans.offered = Some(now);
        self.strong.orphans.offers += 1;
    }

    /// The log has made the write of an orphan.
    pub(super) fn orphan_adopted(&mut self, dot: Dot, output: &mut Output) {
        if let Some(orphan) = self.strong.orphans.kept.get_mut(&dot) {
            orphan.adopted = true;
            let orphan = orphan.clone();
            if self.keeps_records() {
                output.append.orphan(&orphan);
            }
        }
    }
}

/// What becomes of a write that was put away and that the donor does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::protocol) enum Fate {
    /// It is made anew.
    Anew,
    /// It does not count, and is kept to be shown.
    Orphan,
    /// It is of no more use.
    Dropped,
}
