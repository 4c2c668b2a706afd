//! The ledger: what the replicated log decides beside the cells, and the entries that decide it.
//!
//! Every voter applies the same entries in the same order to the same state, so all come to the same
//! ledger. Members that do not vote take over a voter's. It says in which epoch the cluster is, how
//! writes are ordered in it, which writes of earlier epochs count, and who votes.
//!
//! # Epochs
//! An even epoch is an eventual one, an odd one strong. The log of a strong epoch writes under an
//! origin of its own; its n-th cell has the dot n and a counter n above the *base*, the greatest
//! counter of the epoch before. A write of an epoch before the last strong one counts only if the base
//! of that one has its dot. A switch that is given up goes on to the next eventual epoch, never back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::super::cell::CellWrite;
use super::super::codec::DEPTH_MAX;
use super::super::digest::Digest;
use super::super::id::{NodeId, Origin};
use super::super::operation::{Mode, Moment};
use super::super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::super::store::Fingerprint;
use super::super::time::WallTime;
use super::super::version::VersionVector;
use super::group::Voter;

/// The most voters: beyond this each more makes writes slower and none safer.
pub const VOTERS_MAX: usize = 9;

/// How a group began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Charter {
    /// Names the group; drawn at random.
    pub id: [u8; 16],
    /// The first voters, and where they sit.
    pub voters: BTreeMap<Voter, NodeId>,
    /// How many there should be in the end.
    pub wanted: u32,
    /// The groups that this one comes after, the last one last: their voters were all lost.
    #[serde(default)]
    pub succeeds: Vec<[u8; 16]>,
}

/// What is going on in an epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) enum Phase {
    /// What the epoch says.
    #[default]
    Settled,
    /// Eventual mode is about to end: these members do not write any more.
    Preparing {
        /// Everybody who takes part.
        members: Vec<NodeId>,
        /// The voter that asked for it.
        by: Voter,
        /// The members that are left out by name, and the life that each is in.
        #[serde(default)]
        without: Vec<(NodeId, u64)>,
    },
}

/// The last strong epoch, which may be the present one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    /// Its number.
    pub(super) epoch: Epoch,
    /// Which writes of earlier epochs count.
    pub(super) base: Digest,
    /// The counter that stamps of the log count from.
    pub(super) lamport: Lamport,
    /// The origin that the log writes under.
    pub(super) origin: Origin,
    /// How many cells the log has written.
    pub(super) count: u64,
}

/// What the log has decided beside the cells.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// The present epoch.
    pub(super) epoch: Epoch,
    pub(super) phase: Phase,
    pub(super) opened: Option<Opened>,
    /// Who votes, and where.
    pub(super) seats: BTreeMap<Voter, NodeId>,
    /// How many voters there should be.
    pub(super) wanted: u32,
    /// The number of slots applied.
    pub(super) slot: u64,
    /// The greatest time that an entry has named: time does not go back.
    pub(super) wall: WallTime,
}

/// A client's operation on its way to the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The operation, encoded.
    #[serde(with = "serde_bytes")]
    pub(super) operation: Vec<u8>,
    pub(super) moment: Moment,
}

/// An entry of the replicated log.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum Entry {
    /// Clients' operations, in this order.
    Calls {
        /// The life of a voter that proposes it, and its number in that life: whoever waits for the
        /// answers knows it by these.
        by: u64,
        number: u64,
        /// Only in this epoch.
        epoch: Epoch,
        calls: Vec<Call>,
    },
    /// Eventual mode is to end: `epoch` is to be the next one.
    Prepare {
        epoch: Epoch,
        members: Vec<NodeId>,
        by: Voter,
        #[serde(default)]
        without: Vec<(NodeId, u64)>,
    },
    /// The strong epoch `epoch` begins. All voters that hold the base have this fingerprint.
    Open { epoch: Epoch, base: Digest, lamport: Lamport, fingerprint: Fingerprint },
    /// The strong epoch `epoch` is not to be.
    Abort { epoch: Epoch },
    /// The strong epoch before `epoch` ends.
    Relax { epoch: Epoch },
    /// A voter takes its seat, or leaves it.
    Seat { voter: Voter, node: Option<NodeId> },
    /// A write of an earlier epoch that nobody else had: written now if its writer had seen all that its
    /// key shows.
    Adopt { stamp: Stamp, dot: Dot, cell: CellWrite },
}

impl Ledger {
    /// How writes are ordered.
    pub(super) fn mode(&self) -> Mode {
        if self.epoch.0 % 2 == 1 { Mode::Strong } else { Mode::Eventual }
    }

    /// Whether a write with this stamp and dot counts; one to the store's own keys always does.
    pub(super) fn admits(&self, stamp: Stamp, dot: Dot) -> bool {
        self.opened
            .as_ref()
            .is_none_or(|opened| stamp.epoch >= opened.epoch || opened.base.0.contains(dot))
    }

    /// Whether who holds this has all that happened before the present epoch.
    pub(super) fn is_ready(&self, held: &VersionVector) -> bool {
        let Some(opened) = &self.opened else { return true };
        if self.mode() == Mode::Strong {
            return true;
        }
        let log = held.origin(opened.origin).map_or(0, |log| log.dense());
        log >= opened.count && held.covers(&opened.base.0)
    }

    /// The seat of a node.
    pub(super) fn seat_of(&self, node: NodeId) -> Option<Voter> {
        self.seats.iter().find(|(_, at)| **at == node).map(|(voter, _)| *voter)
    }

    /// How many voters there may be: as many as are wanted, an odd number.
    pub(super) fn seats_max(&self) -> usize {
        let wanted = (self.wanted as usize).clamp(1, VOTERS_MAX);
        if wanted.is_multiple_of(2) { wanted - 1 } else { wanted }
    }

    /// How many voters are a majority.
    pub(super) fn majority(&self) -> usize {
        self.seats.len() / 2 + 1
    }
}

/// The origin that the log of an epoch writes under.
pub(super) fn log_origin(group: &[u8; 16], epoch: Epoch) -> Origin {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(group);
    bytes[16..].copy_from_slice(&epoch.0.to_be_bytes());
    Origin(XxHash3_64::oneshot(&bytes))
}

impl Entry {
    /// The bytes that the log keeps.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes);
        self.serialize(&mut serializer).expect("an entry in memory can be encoded");
        bytes
    }

    /// The entry that `bytes` are; none if they are not: every voter then passes it over alike.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
        deserializer.set_max_depth(DEPTH_MAX);
        Self::deserialize(&mut deserializer).ok()
    }
}
