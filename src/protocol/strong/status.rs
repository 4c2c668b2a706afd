//! What a member can say about the log and the mode.

use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::shard::Shard;
use super::super::stamp::Epoch;
use super::super::store::Fingerprint;
use super::super::time::WallTime;
use super::ledger::Phase;
use super::{Posture, Voter};

/// One voter, as seen from a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VoterStatus {
    /// Its number.
    pub voter: Voter,
    /// Where it sits.
    pub node: NodeId,
    /// Whether it can be reached.
    pub up: bool,
    /// How many slots it had applied when it was last heard of.
    pub applied: Option<u64>,
}

/// How the log and the mode stand at a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StrongStatus {
    /// How writes are ordered.
    pub mode: Mode,
    /// The epoch.
    pub epoch: u32,
    /// How requests are answered here.
    pub posture: Posture,
    /// Whether a switch is under way.
    pub switching: bool,
    /// For whom this member waits: for the switch that it drives, to found a group or to succeed one.
    pub waiting_for: Vec<NodeId>,
    /// The voter to which the others forward, as far as this one knows.
    pub primary: Option<NodeId>,
    /// All voters.
    pub voters: Vec<VoterStatus>,
    /// As whom this member votes.
    pub voter: Option<Voter>,
    /// Whether this voter follows the log.
    pub following: bool,
    /// How many slots it has applied.
    pub applied: u64,
    /// How many slots it knows to be decided.
    pub committed: u64,
    /// How many cells the log of the last strong epoch has written, as far as known here.
    pub written: u64,
    /// How many orphans it keeps.
    pub orphans: usize,
}

impl Shard {
    /// How far this voter has applied the log of a strong epoch, and the fingerprint of clients' cells
    /// then, but for keys that are over by the log's time: it is the same at every voter.
    pub fn log_point(&self) -> Option<(Epoch, u64, Fingerprint)> {
        let ledger = self.strong.ledger();
        let counts = self.follows() && ledger.mode() == Mode::Strong;
        let fingerprint = || self.store.clients_fingerprint_at(ledger.wall);
        counts.then(|| (ledger.epoch, ledger.slot, fingerprint()))
    }

    /// Whether a log writes for clients in this epoch.
    pub(in crate::protocol) fn has_log(&self) -> bool {
        self.strong.ledger().mode() == Mode::Strong
    }

    /// The time that the log has come to, if it writes in this epoch and this voter applies it.
    pub(in crate::protocol) fn log_wall(&self) -> Option<WallTime> {
        (self.has_log() && self.follows()).then(|| self.strong.ledger().wall)
    }

    /// Whether a member votes.
    pub(in crate::protocol) fn votes(&self, node: NodeId) -> bool {
        self.strong.ledger().seat_of(node).is_some()
    }

    /// Whether this member has promised to write nothing more in the present epoch.
    pub(in crate::protocol) fn is_fenced(&self) -> bool {
        self.strong.standing.fenced > self.epoch
    }

    /// How the log and the mode stand here.
    pub fn strong_status(&self) -> StrongStatus {
        let standing = &self.strong.standing;
        let ledger = &standing.ledger;
        let group = self.strong.group.as_ref();
        let voters = ledger.seats.iter().map(|(voter, node)| VoterStatus {
            voter: *voter,
            node: *node,
            up: *node == self.config.node || self.peers.live(*node).is_some(),
            applied: match Some(*voter) == standing.voter {
                true => Some(ledger.slot),
                false => self.strong.heard.get(voter).map(|(_, applied)| *applied),
            },
        });
        let only = || ledger.seats.keys().next().copied().filter(|_| ledger.seats.len() == 1);
        let primary = group.and_then(super::Group::primary).or(self.strong.primary).or_else(only);
        let switching = ledger.phase != Phase::Settled
            || standing.fenced > ledger.epoch
            || self.strong.founding.is_some();
        StrongStatus {
            mode: self.mode(),
            epoch: ledger.epoch.0,
            posture: self.posture(),
            switching,
            waiting_for: self.waits_for(),
            primary: primary.and_then(|primary| self.node_of(primary)),
            voters: voters.collect(),
            voter: standing.voter,
            following: standing.following,
            applied: ledger.slot,
            committed: group.map_or(ledger.slot, super::Group::committed),
            written: ledger.opened.as_ref().map_or(0, |opened| opened.count),
            orphans: self.strong.orphans.iter().count(),
        }
    }
}
