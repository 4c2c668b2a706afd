//! What of the log and the mode is recorded, so that a start finds it again.
//!
//! The *standing* is recorded whole when it changes, which is rare; after every slot only how far the
//! ledger has come. A slot's cells and that note are durable together or not at all: an operation that
//! was applied and not noted would be applied twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::id::NodeId;
use super::super::record::Append;
use super::super::shard::Shard;
use super::super::stamp::Epoch;
use super::super::time::WallTime;
use super::group::{Group, Voter};
use super::ledger::{Charter, Ledger};

/// About how many bytes of the log's records are put into one record here: one of the log's may be much
/// longer, with three entries in it.
const PART_BYTES: usize = 1 << 20;

/// What a member knows of the group and of itself in it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(super) charter: Option<Charter>,
    /// As whom this member votes.
    pub(super) voter: Option<Voter>,
    /// The epoch before which it makes no more writes of its own; not after the present one: no fence.
    pub(super) fenced: Epoch,
    /// The members that are fenced together with this one.
    pub(super) fenced_with: Vec<NodeId>,
    /// Whether, as a voter, it takes the log's writes from the log only.
    pub(super) following: bool,
    /// Whether something is here that does not count, and is still to be put away.
    pub(super) left_out: bool,
    /// Whether this member has seen itself in a seat as that voter.
    pub(super) seated: bool,
    /// Where voters sit that are about to be seated.
    pub(super) guests: BTreeMap<Voter, NodeId>,
    pub(super) ledger: Ledger,
}

/// How far the ledger has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Applied {
    slot: u64,
    wall: WallTime,
    count: u64,
}

impl Standing {
    /// Whether the node has consented to a group.
    pub(crate) fn has_charter(&self) -> bool {
        self.charter.is_some()
    }

    /// Whether the node votes.
    pub(crate) fn votes(&self) -> bool {
        self.voter.is_some()
    }

    /// The node never speaks again as the voter that it was.
    pub(crate) fn forget_voter(&mut self) {
        self.voter = None;
        self.seated = false;
        self.following = false;
    }

    /// Whatever others tell of the group is news.
    pub(crate) fn forget_slots(&mut self) {
        self.ledger.slot = 0;
    }

    /// Whether this member has a seat by this ledger, as the voter that it is.
    pub(super) fn sits(&self, ledger: &Ledger) -> bool {
        self.voter.is_some_and(|voter| ledger.seats.contains_key(&voter))
    }

    /// Without a group: the epoch to begin with.
    pub(crate) fn begin_at(&mut self, epoch: Epoch) {
        self.ledger.epoch = self.ledger.epoch.max(epoch);
    }

    /// Takes note of how far the ledger has come.
    pub(crate) fn apply(&mut self, applied: Applied) {
        self.ledger.slot = applied.slot;
        self.ledger.wall = applied.wall;
        if let Some(opened) = &mut self.ledger.opened {
            opened.count = applied.count;
        }
    }

    fn applied(&self) -> Applied {
        let Ledger { slot, wall, opened, .. } = &self.ledger;
        let count = opened.as_ref().map_or(0, |opened| opened.count);
        Applied { slot: *slot, wall: *wall, count }
    }
}

impl Shard {
    /// Records the standing.
    pub(super) fn record_standing(&self, output: &mut Output) {
        if self.keeps_records() {
            output.append.standing(&self.strong.standing);
        }
    }

    /// Records how far the ledger has come.
    pub(super) fn record_applied(&self, output: &mut Output) {
        if self.keeps_records() {
            output.append.applied(self.strong.standing.applied());
        }
    }

    /// Records what the log wants durable, as one unit: a checkpoint has what all slots under way hold, and
    /// may be more than the journal takes in one piece, but half of one must not replace what was before.
    pub(super) fn record_group(
        &self,
        number: u64,
        replace: bool,
        records: &[Bytes],
        output: &mut Output,
    ) {
        let parts = parts(records);
        let before = number - parts.len() as u64;
        output.append.hold();
        for (at, part) in (1..).zip(parts) {
            output.append.go_on();
            output.append.group(before + at, replace && at == 1, part);
        }
        output.append.release();
    }

    /// Records what is known of the log and the mode, for a snapshot, but for the orphans; answers the log's
    /// own records of this moment, to be added to it later.
    pub fn export_strong(&self, append: &mut Append) -> LogRecords {
        append.standing(&self.strong.standing);
        let group = self.strong.group.as_ref().map(Group::records);
        let (number, records): (u64, &[Bytes]) =
            group.unwrap_or((self.strong.recovered.0, &self.strong.recovered.1));
        LogRecords { number, records: records.to_vec() }
    }
}

/// The log's own records, shared with the shard: there may be very many bytes of them.
#[derive(Debug)]
pub struct LogRecords {
    number: u64,
    records: Vec<Bytes>,
}

impl LogRecords {
    /// Adds them to a snapshot.
    pub fn export(&self, append: &mut Append) {
        let Self { number, records } = self;
        if *number == 0 {
            return;
        }
        // Of the parts the last bears the number of all: a snapshot counts whole or not at all, and what
        // stands in the journal behind it under one of these numbers is in it already.
        let parts = parts(records);
        let count = parts.len() as u64;
        if count > *number {
            return append.group(*number, true, records);
        }
        for (at, part) in (1..).zip(parts) {
            append.group(number - count + at, at == 1, part);
            append.settle();
        }
    }
}

/// Records of the log in parts of about [`PART_BYTES`], in order; at least one, which may be empty.
pub(super) fn parts(records: &[Bytes]) -> Vec<&[Bytes]> {
    let mut parts = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (at, record) in records.iter().enumerate() {
        if at > first && bytes + record.len() > PART_BYTES {
            parts.push(&records[first..at]);
            (first, bytes) = (at, 0);
        }
        bytes += record.len();
    }
    parts.push(&records[first..]);
    parts
}
