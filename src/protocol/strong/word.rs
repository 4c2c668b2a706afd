//! What members say to each other about the log and the mode, and the story that they tell of it.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::digest::{Digest, DigestHash};
use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::stamp::{Dot, Epoch, Lamport};
use super::super::store::Fingerprint;
use super::super::time::WallTime;
use super::super::version::VersionVector;
use super::catching_up::Install;
use super::requests::Outcome;
use super::succession::Proposal;
use super::{Call, Charter, Orphan, SwitchOrder, Switched, Voter};

/// What members say to each other about the log and the mode.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Word {
    /// What a voter's log has to say to another's. Lost: it is said again.
    Core {
        /// For which voter.
        to: Voter,
        /// The sender, and the number of the last record that it has made durable.
        from: (Voter, u64),
        /// How many slots the sender has applied.
        applied: u64,
        /// Opaque.
        bytes: Bytes,
    },
    /// How far the sender has come; told from time to time while that changes. Lost: told again.
    Applied {
        /// The sender, and the number of the last record that it has made durable.
        from: (Voter, u64),
        /// How many slots it has applied.
        slot: u64,
        /// What its clock shows.
        wall: WallTime,
    },
    /// Asks for consent to a group. Lost: asked again.
    Found {
        /// The group.
        charter: Charter,
    },
    /// Answers `Found`: the group that the sender has consented to.
    Founded {
        /// It.
        id: [u8; 16],
    },
    /// Takes `Found` back: others have consented to another group.
    Unfound {
        /// The group that is not to be.
        id: [u8; 16],
    },
    /// Eventual mode ends: asks for no more writes. Lost: asked again.
    Fence {
        /// The epoch to come.
        epoch: Epoch,
        /// Everybody who takes part.
        members: Vec<NodeId>,
    },
    /// The only voter has lost what it knew: asks for no more writes, and for consent to another group.
    /// Lost: asked again.
    Succeed(Proposal),
    /// Answers `Fence`, durably: what the sender holds.
    Fenced {
        /// The epoch to come.
        epoch: Epoch,
        /// What it holds; it writes nothing more.
        held: Digest,
        /// Its Lamport counter.
        lamport: Lamport,
    },
    /// Answers `Succeed`, durably: what the sender holds.
    Consent {
        /// The number of what was asked.
        number: u64,
        /// What it holds; it writes nothing more.
        held: Digest,
        /// Its Lamport counter.
        lamport: Lamport,
    },
    /// Asks a voter to hold all of this, durably. Lost: asked again.
    Drain {
        /// The epoch to come.
        epoch: Epoch,
        /// All that members had written.
        base: Digest,
    },
    /// Answers `Drain` when it is so.
    Drained {
        /// The epoch to come.
        epoch: Epoch,
        /// The hash of what was asked for.
        base: DigestHash,
        /// The fingerprint of clients' cells.
        fingerprint: Fingerprint,
    },
    /// A voter that cannot follow the log asks for another's state. Lost: asked again.
    Catch {
        /// What it holds.
        held: Digest,
    },
    /// Answers `Catch`.
    Install(Box<Install>),
    /// Passes clients' operations to a voter. Lost: their outcome is unknown.
    Forward {
        /// Each with a number that the sender has not used before.
        calls: Vec<(u64, Call)>,
    },
    /// Answers `Forward`.
    Forwarded {
        /// Each with its number.
        outcomes: Vec<(u64, Outcome)>,
    },
    /// Passes the wish for a switch to a voter. Lost: asked again by whoever wishes.
    Switch {
        /// The wish's number.
        id: u64,
        /// The wish.
        order: SwitchOrder,
    },
    /// Answers `Switch`.
    Switched {
        /// The wish's number.
        id: u64,
        /// What came of it.
        outcome: Switched,
    },
    /// A member wants to vote under a new number. Lost: asked again.
    Seat {
        /// The number.
        voter: Voter,
    },
    /// A member that does not vote offers orphans to the log. Lost: offered again.
    Offer {
        /// They.
        orphans: Vec<Orphan>,
    },
    /// Answers `Offer` when the log has decided. Lost: said again when they are offered again.
    Decided {
        /// Which, and whether the log has made it.
        orphans: Vec<(Dot, bool)>,
    },
}

impl Word {
    /// About how many bytes it takes on the wire.
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let of_vector = |vector: &VersionVector| 16 * vector.len() + 8 * vector.ranges();
        match self {
            Self::Core { bytes, .. } => bytes.len(),
            Self::Fence { members, .. } | Self::Succeed(Proposal { members, .. }) => {
                20 * members.len() + 60
            }
            Self::Fenced { held, .. } | Self::Catch { held } | Self::Consent { held, .. } => {
                of_vector(&held.0)
            }
            Self::Drain { base, .. } => of_vector(&base.0),
            Self::Install(install) => install.bytes(),
            Self::Forward { calls } => {
                calls.iter().map(|(_, call)| call.operation.len() + 40).sum()
            }
            Self::Forwarded { outcomes } => {
                outcomes.iter().map(|(_, outcome)| outcome.bytes()).sum()
            }
            Self::Offer { orphans } => orphans.iter().map(|orphan| orphan.cell.bytes() + 60).sum(),
            Self::Decided { orphans } => 20 * orphans.len(),
            Self::Found { .. }
            | Self::Founded { .. }
            | Self::Applied { .. }
            | Self::Unfound { .. }
            | Self::Drained { .. }
            | Self::Switch { .. }
            | Self::Switched { .. }
            | Self::Seat { .. } => 500,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Core { from, applied, bytes, .. } => write!(
                f,
                "{} bytes of the log from voter {}, which has applied {applied} slots",
                bytes.len(),
                from.0.0
            ),
            Self::Forward { calls } => write!(f, "{} operations for a voter", calls.len()),
            Self::Forwarded { outcomes } => write!(f, "outcomes of {} operations", outcomes.len()),
            Self::Offer { orphans } => write!(f, "{} orphans for the log", orphans.len()),
            Self::Install(_) => f.write_str("a voter's state"),
            word => write!(f, "{word:?}"),
        }
    }
}

/// What happened about the log and the mode.
#[derive(Clone, PartialEq, Debug)]
pub enum StrongEvent {
    /// This member has consented to a group.
    Founded,
    /// It makes no more writes of its own until the epoch has begun or was given up.
    Fenced {
        /// The epoch to come.
        epoch: Epoch,
    },
    /// An epoch has begun here.
    Entered {
        /// The epoch.
        epoch: Epoch,
        /// How writes are ordered in it.
        mode: Mode,
    },
    /// A switch was given up.
    Aborted {
        /// The epoch that began instead.
        epoch: Epoch,
    },
    /// This voter lacks entries that the others have dropped.
    Lagging,
    /// It goes on from another voter's state.
    CaughtUp {
        /// From which slot on.
        slot: u64,
    },
    /// This voter does not remember what others have heard from it, or has lost its seat: it never speaks
    /// under its number again.
    Forgot,
    /// This member was the only voter and cannot go on as that, nor ask for consent to another group: these
    /// members cannot be reached, or have not yet told it what they hold.
    Bereft {
        /// They.
        nodes: Vec<NodeId>,
    },
    /// It votes in another group, which comes after the old one.
    Succeeded {
        /// The epoch that begins.
        epoch: Epoch,
    },
    /// These nodes vote from now on.
    Seated {
        /// They.
        nodes: Vec<NodeId>,
    },
    /// Two groups that have both been in use cannot become one.
    Strangers {
        /// A member of the other group.
        peer: NodeId,
        /// Who votes here.
        ours: Vec<NodeId>,
        /// Who votes there.
        theirs: Vec<NodeId>,
    },
    /// A write of an earlier epoch that nobody had: kept, and not part of what shows.
    Orphaned(Orphan),
    /// A write of an earlier epoch that nobody had, and that is not kept, as there are too many of them.
    Unkept(Orphan),
    /// The voters' cells differ, although they hold the same: the switch is given up.
    Differing,
    /// Members have joined since the switch began: it is given up, since what they write would not count.
    Joined {
        /// They.
        nodes: Vec<NodeId>,
    },
}
