//! The story of a shard, as typed events.
//!
//! The protocol does not log. The server prints these, the simulator stores them, checkers and the
//! lab read them. Events that come once per write are told only where the configuration asks.

use super::cell::Key;
use super::change::Change;
use super::delta::Progress;
use super::digest::DigestHash;
use super::id::{NodeId, Origin};
use super::message::RoundId;
use super::roster::State;
use super::stamp::{Dot, Lamport, Stamp};
use super::strong::StrongEvent;

/// Something that happened in a shard.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The version of `key` with `stamp` shows here from now on (only with `trace`).
    Visible {
        /// The key.
        key: Key,
        /// The stamp of the write.
        stamp: Stamp,
        /// Its dot.
        dot: Dot,
    },
    /// A key has changed here (only where it was asked for, see `Shard::tell_changes`).
    Changed {
        /// The key.
        key: Key,
        /// What happened to it.
        change: Change,
    },
    /// Of two writes made without knowledge of each other, one was dropped.
    Conflict(Conflict),
    /// This node opened a round with a peer (only with `trace`).
    RoundOpened {
        /// The partner.
        peer: NodeId,
        /// The round.
        round: RoundId,
    },
    /// A delta has arrived whole, and the sender's vector was merged.
    Filled {
        /// The sender.
        peer: NodeId,
        /// The round.
        round: RoundId,
        /// How many writes it brought that were missing.
        writes: usize,
    },
    /// One more part has come of a delta of several.
    Filling(Progress),
    /// A delta was given up before its end; another round makes good for it.
    GivenUp {
        /// The peer at the other end.
        peer: NodeId,
        /// The round.
        round: RoundId,
    },
    /// A peer holds the same dots but other cells: one of the two is damaged.
    Damage {
        /// The peer.
        peer: NodeId,
        /// The vector both have.
        hash: DigestHash,
    },
    /// This node wrote an entry of the roster: of itself, or the retirement of another.
    Enrolled {
        /// The member.
        node: NodeId,
        /// What it is from now on.
        state: State,
        /// The name of the cell.
        dot: Dot,
    },
    /// Everybody holds these tombstones or something greater: they are kept no longer.
    Collected {
        /// How many.
        count: usize,
    },
    /// This node has written by which time it judges deadlines.
    Claimed {
        /// The name of that cell.
        dot: Dot,
    },
    /// The deadlines of these keys have passed for everybody: they are kept no longer.
    Expired {
        /// How many.
        count: usize,
    },
    /// This node goes on as a new origin, with all it has.
    Renewed {
        /// The new origin.
        origin: Origin,
    },
    /// This node puts away what it has, and fills itself anew from the others.
    Rebuilding {
        /// Why.
        why: Distrust,
    },
    /// What a donor had brought so far was dropped, as it will not bring the rest.
    Refilling,
    /// A write that only this node had, or made while it was filling itself, was made anew.
    Rewritten {
        /// The stamp that it had.
        of: Stamp,
        /// The stamp that it has now.
        stamp: Stamp,
        /// The name of its last cell now.
        dot: Dot,
        /// The keys of its cells, in their order.
        keys: Vec<Key>,
    },
    /// A deletion that was collected here, and never came to those from whom this node filled itself,
    /// was made anew.
    Redeleted {
        /// The key.
        key: Key,
        /// The stamp of the version that it deletes.
        of: Stamp,
        /// The stamp of the deletion.
        stamp: Stamp,
        /// The name of its cell.
        dot: Dot,
    },
    /// This node has filled itself anew.
    Rebuilt {
        /// How many writes were made anew.
        kept: usize,
    },
    /// Everything has been compared with what a peer has, and mended.
    Repaired {
        /// The peer.
        peer: NodeId,
        /// How many cells were mended here.
        cells: usize,
    },
    /// Something about the replicated log or the mode.
    Strong(Box<StrongEvent>),
    /// A peer sent what no correct peer sends; nothing of it was applied.
    Quarantined {
        /// The peer.
        peer: NodeId,
        /// What it did.
        why: Misdeed,
    },
}

/// Why a node does not trust what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Distrust {
    /// The others have collected tombstones that never came here.
    #[error("the others have forgotten deletions that never came here")]
    Behind,
    /// Others hold writes of this origin that it does not know: the directory was rolled back, or
    /// there is a second one.
    #[error("others hold writes of this origin that are not known here")]
    Amnesia,
    /// It was left out of a switch of the mode, or a switch did not wait for all that it has.
    #[error("the cluster went on without some of what this node has")]
    LeftOut,
    /// Somebody asked for it.
    #[error("it was asked for")]
    Asked,
}

/// What a peer did that no correct peer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misdeed {
    /// A stamp too far ahead of ours.
    #[error("it sent Lamport counter {} while ours is {}: more than the allowed jump", theirs.0, ours.0)]
    Runaway {
        /// The foreign counter.
        theirs: Lamport,
        /// Our counter.
        ours: Lamport,
    },
    /// A cell of ours that we never wrote, or the claim to hold one.
    #[error("it holds number {} of ours, of which we made {made}", dot.seq)]
    Impostor {
        /// The name of the cell.
        dot: Dot,
        /// How many cells we have written.
        made: u64,
    },
    /// A write with a size or number out of bounds.
    #[error("it sent a write that is not well formed")]
    Malformed,
    /// A version vector that names a cell which nobody can have written yet.
    #[error("it claims to hold {dot}, a number that no counter has come to")]
    Overclaim {
        /// The name of the cell.
        dot: Dot,
    },
    /// It belongs to another group of voters, and both have been in use.
    #[error(
        "two clusters that have both been in strong mode cannot become one; give one of the two another \
         name, or empty directories"
    )]
    Stranger,
    /// A version vector with more origins than a correct one can have.
    #[error("it claims to hold writes of {origins} origins")]
    Crowd {
        /// How many there were together with ours.
        origins: usize,
    },
}

/// One write that lost to another although neither writer knew of the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The key.
    pub key: Key,
    /// The version that stands.
    pub winner: Stamp,
    /// The version that was dropped.
    pub loser: Stamp,
}
