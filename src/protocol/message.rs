//! What nodes say to each other.
//!
//! Any message may be lost, doubled or come late; each says what happens then. Nothing here is
//! taken on trust from outside: see `codec` for what is checked before a message is believed.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::cell::Write;
use super::delta::Chunk;
use super::digest::{Digest, DigestHash};
use super::id::{NodeId, Origin, ShardId};
use super::roster::Greet;
use super::stamp::{Dot, Epoch};
use super::store::Fingerprint;
use super::strong::Word;
use super::version::VersionVector;

/// The number of the message format; another one is refused.
pub const WIRE_VERSION: u8 = 6;

/// Names one round, or one question; drawn at random by whoever opens it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RoundId(pub u64);

/// Names one sending of a delta; drawn at random by the sender.
///
/// A round that is opened twice, because its message came twice, is answered twice. The parts of the
/// two answers must not be taken for one whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ExchangeId(pub u32);

/// Which part of a shard's keys a message speaks of; there is only the whole so far.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Scope(pub u16);

/// A message and whom it concerns.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// [`WIRE_VERSION`].
    pub version: u8,
    /// The shard that the message is for.
    pub shard: ShardId,
    /// The part of the shard.
    pub scope: Scope,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The sender's origin: what an earlier life of it said does not count any more.
    pub origin: Origin,
    /// What is said.
    pub message: Message,
}

/// Inclusive bounds of node ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The least id.
    pub first: NodeId,
    /// The greatest id.
    pub last: NodeId,
}

/// Which deltas the sender of a digest would like to see move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wish {
    /// "Send me what I lack."
    pub take: bool,
    /// "Tell me what you hold, and I send you what you lack."
    pub give: bool,
}

/// The most members that one message names.
pub const MEMBERS_MAX: usize = 1_024;

/// Where a member can be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The member.
    pub node: NodeId,
    /// Its address, as seen by the teller.
    pub address: SocketAddr,
}

/// The most bytes of a published message that travels, its channel included: as much as fits into a
/// frame of a live stream, with room to spare.
pub const PUBLISHED_BYTES_MAX: usize = 1_000_000;

/// A message that a client publishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Published {
    /// The channel.
    #[serde(with = "serde_bytes")]
    pub channel: Box<[u8]>,
    /// What is told.
    #[serde(with = "serde_bytes")]
    pub message: Box<[u8]>,
}

impl Published {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.channel.len() + self.message.len() + 32
    }
}

/// What one node says to another about one shard.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// New writes, sent at once by their writer or a relay. Lost: a round brings them.
    Push {
        /// The writes.
        #[serde(with = "super::packed")]
        writes: Vec<Write>,
        /// The peers to which the receiver is to pass them on, if any.
        relay: Option<Span>,
    },
    /// Opens a round. No answer means that nothing differs, or that it was lost: another round
    /// follows.
    Open {
        /// The round.
        round: RoundId,
        /// The hash of what the sender holds.
        hash: DigestHash,
        /// The fingerprint of the sender's cells: equal vectors must have equal ones.
        fingerprint: Fingerprint,
        /// What the sender holds, where telling it at once is cheaper than another message.
        digest: Option<Digest>,
        /// The direction of the round.
        wish: Wish,
    },
    /// What the sender holds, answering an `Open` or a `Digest`. Lost: the round ends there.
    Digest {
        /// The round.
        round: RoundId,
        /// What the sender holds.
        digest: Digest,
        /// The direction in which it goes on.
        wish: Wish,
    },
    /// A part of what the receiver lacks. Lost: the exchange is given up and merges nothing more
    /// than the writes that arrived.
    Delta {
        /// The round.
        round: RoundId,
        /// The part.
        chunk: Chunk,
        /// In the first part of a round's first delta: what the sender holds, asking for the rest.
        digest: Option<Digest>,
    },
    /// One chunk was received and applied; another may be sent. After the last it only ends the
    /// stream. Lost: the exchange stalls and is given up after a while.
    Credit {
        /// The round.
        round: RoundId,
    },
    /// Asks for an `Answer` at once. Lost: the asker asks again or gives up.
    Ask {
        /// Named in the answer.
        round: RoundId,
        /// A dot of interest.
        dot: Option<Dot>,
    },
    /// Tells where other members can be reached. Only a hint: who answers there proves who it is.
    /// Lost: somebody else tells it, or the next time that a link comes up.
    Members {
        /// The members that the sender is linked with.
        members: Vec<Member>,
    },
    /// Tells what clients have published at the sender, for subscribers at the receiver. Lost: gone,
    /// as for a subscriber that is away.
    Publish {
        /// The messages, in their order.
        messages: Vec<Published>,
    },
    /// Says who the sender is, what it holds, and what it thinks of the receiver; see `roster`. Sent
    /// when a link comes up, when that changes, and when asked for. Lost: either side asks again
    /// with its next round.
    Greet(Box<Greet>),
    /// Tells what the sender holds for good, for the collection of tombstones; see `stability`.
    /// Lost: whoever needs it asks again.
    Report {
        /// What the sender holds, if that is news.
        vector: Option<Digest>,
        /// The hash of what the sender knows of the receiver, if it wants to know more.
        wants: Option<DigestHash>,
    },
    /// About the replicated log and the mode; see `strong`.
    Strong(Box<Word>),
    /// Tells what the sender holds, in short.
    Answer {
        /// The question.
        round: RoundId,
        /// Whether the dot that was asked for, and all before it of its origin, are held.
        covers: bool,
        /// The hash of what the sender holds.
        hash: DigestHash,
        /// The fingerprint of the sender's cells.
        fingerprint: Fingerprint,
    },
}

impl Message {
    /// About how many bytes the message takes on the wire, a little too many rather than too few.
    pub(super) fn bytes(&self) -> usize {
        let rest = 64;
        let of_writes = |writes: &[Write]| writes.iter().map(Write::bytes).sum::<usize>();
        let of_vector = |vector: &VersionVector| 16 * vector.len() + 8 * vector.ranges();
        let of_digest = |digest: &Option<Digest>| digest.as_ref().map_or(0, |it| of_vector(&it.0));
        rest + match self {
            Self::Push { writes, .. } => of_writes(writes),
            Self::Open { digest, .. } => of_digest(digest),
            Self::Digest { digest, .. } => of_vector(&digest.0),
            Self::Delta { chunk, digest, .. } => {
                let captured = chunk.captured.as_ref();
                let captured = captured.map_or(0, |captured| {
                    of_vector(&captured.vector) + captured.horizon.as_ref().map_or(0, of_vector)
                });
                of_writes(&chunk.writes) + captured + of_digest(digest)
            }
            Self::Greet(greet) => {
                100 + of_vector(&greet.digest.0) + greet.entry.as_ref().map_or(0, Write::bytes)
            }
            Self::Report { vector, .. } => of_digest(vector),
            Self::Strong(word) => word.bytes(),
            Self::Members { members } => 64 * members.len(),
            Self::Publish { messages } => messages.iter().map(Published::bytes).sum(),
            Self::Credit { .. } | Self::Ask { .. } | Self::Answer { .. } => 0,
        }
    }

    /// Whether the message has cells to be applied.
    pub fn brings_writes(&self) -> bool {
        matches!(self, Self::Push { .. } | Self::Delta { .. })
    }

    /// The word for this kind of message, as in metrics and traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Push { .. } => "push",
            Self::Open { .. } => "open",
            Self::Digest { .. } => "digest",
            Self::Delta { .. } => "delta",
            Self::Credit { .. } => "credit",
            Self::Ask { .. } => "ask",
            Self::Members { .. } => "members",
            Self::Publish { .. } => "publish",
            Self::Answer { .. } => "answer",
            Self::Greet(_) => "greet",
            Self::Report { .. } => "report",
            Self::Strong(_) => "strong",
        }
    }
}

impl Span {
    /// Whether `node` lies within.
    pub fn contains(&self, node: NodeId) -> bool {
        self.first <= node && node <= self.last
    }
}
