//! What a shard is told before it starts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::VALUE_BYTES_MAX;
use super::id::{NodeId, Origin, ShardId};

/// In which direction a round of anti-entropy moves writes, seen from the node that opens it.
///
/// The names are those of Demers et al. 1987, "Epidemic Algorithms for Replicated Database
/// Maintenance", section 1.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The opener gives what the partner lacks.
    Push,
    /// The opener takes what it lacks.
    Pull,
    /// Both.
    #[default]
    PushPull,
}

/// A word that names no [`Strategy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a strategy: expected push, pull or push-pull")]
pub struct ParseStrategyError {
    text: String,
}

/// How many peers at the most get a local write straight from its writer.
///
/// With more live peers than this, a write goes to a few of them, each of which passes it on to the
/// peers of one span of node ids; messages between hubs carry what came together within the relay
/// window.
pub const FANOUT_DEFAULT: usize = 16;

/// How long between two rounds that a node opens.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(1);

/// How far a foreign Lamport counter may run ahead of ours before its sender is not believed.
///
/// Wide enough for an empty node to join a shard that has seen 17 million million writes, narrow
/// enough that it takes a million such jumps to exhaust 64 bits.
pub const LAMPORT_JUMP_MAX_DEFAULT: u64 = 1 << 44;

/// The bytes of one chunk of a delta, give or take one write: enough to amortise a message, few
/// enough that applying it does not hold up clients for more than about a millisecond.
pub const DELTA_BYTES_MAX_DEFAULT: usize = 256 * 1024;

/// How long a member may be away before it is retired: longer than a long weekend.
pub const RETIRE_AFTER_DEFAULT: Duration = Duration::from_secs(72 * 60 * 60);

/// How many voters a group should have, as far as there are members: any two may fail.
pub const VOTERS_DEFAULT: usize = 5;

/// When what a node holds becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// Before it is acknowledged or sent: no crash loses what was acknowledged.
    Always,
    /// Within an interval: a crash of the machine may lose the last of it, unless peers have it.
    #[default]
    Interval,
    /// Never: it lives in memory and ends with the process.
    None,
}

/// A word that names no [`Durability`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a durability: expected always, interval or none")]
pub struct ParseDurabilityError {
    text: String,
}

/// The parameters of one shard at one node.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// This incarnation of this node as a writer.
    pub origin: Origin,
    /// The number of that incarnation: greater than that of all earlier ones of this node.
    pub incarnation: u64,
    /// What people call this node.
    pub name: String,
    /// Whether there is a roster. Without one nobody has to be cleared, and no tombstone is ever
    /// collected.
    pub roster: bool,
    /// How long a member may be away, while tombstones wait for it, before this node retires it.
    pub retire_after: Duration,
    /// When what the shard holds becomes durable; with [`Durability::None`] it writes no records.
    pub durability: Durability,
    /// Which shard this is.
    pub shard: ShardId,
    /// The direction of rounds.
    pub strategy: Strategy,
    /// Whether local writes are pushed at once, before any round.
    pub eager: bool,
    /// How long between two rounds that this node opens.
    pub interval: Duration,
    /// The most peers that get a push straight from here; see [`FANOUT_DEFAULT`].
    pub fanout: usize,
    /// How long a relay gathers writes before it passes them on; `None`: as long as a hop takes,
    /// judged by the measured round trips, so that gathering at the most doubles that hop.
    pub relay_window: Option<Duration>,
    /// See [`DELTA_BYTES_MAX_DEFAULT`].
    pub delta_bytes_max: usize,
    /// See [`LAMPORT_JUMP_MAX_DEFAULT`].
    pub lamport_jump_max: u64,
    /// The longest value that clients may write here; at most [`VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// How much memory the cells may take, about, before clients' writes are refused.
    pub memory_bytes_max: Option<usize>,
    /// Whether the cluster is to be in strong mode from its beginning on; a mode that it has come to by
    /// a switch stays.
    pub starts_strong: bool,
    /// How many voters there should be, if a group of them is founded here; at most
    /// [`VOTERS_MAX`](super::strong::VOTERS_MAX), and of an even number one less.
    pub voters: usize,
    /// Whether to tell an event for each write that becomes visible here.
    pub trace: bool,
    /// Guards hash maps against chosen keys; changes nothing visible.
    pub hash_seed: u64,
    /// Decides everything random.
    pub seed: u64,
}

impl Config {
    /// The defaults for shard 0 of `node`, writing as `origin`, with everything random drawn from
    /// `seed`.
    pub fn new(node: NodeId, origin: Origin, seed: u64) -> Self {
        Self {
            node,
            origin,
            incarnation: 1,
            name: String::new(),
            roster: true,
            retire_after: RETIRE_AFTER_DEFAULT,
            durability: Durability::None,
            shard: ShardId(0),
            strategy: Strategy::PushPull,
            eager: true,
            interval: INTERVAL_DEFAULT,
            fanout: FANOUT_DEFAULT,
            relay_window: None,
            delta_bytes_max: DELTA_BYTES_MAX_DEFAULT,
            lamport_jump_max: LAMPORT_JUMP_MAX_DEFAULT,
            value_bytes_max: VALUE_BYTES_MAX,
            memory_bytes_max: None,
            starts_strong: false,
            voters: VOTERS_DEFAULT,
            trace: false,
            hash_seed: seed,
            seed,
        }
    }
}

impl Strategy {
    /// Whether the opener of a round gives what its partner lacks.
    pub fn gives(self) -> bool {
        self != Self::Pull
    }

    /// Whether the opener of a round takes what it lacks.
    pub fn takes(self) -> bool {
        self != Self::Push
    }
}

impl FromStr for Durability {
    type Err = ParseDurabilityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(Self::Always),
            "interval" => Ok(Self::Interval),
            "none" => Ok(Self::None),
            _ => Err(ParseDurabilityError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::None => "none",
        })
    }
}

impl FromStr for Strategy {
    type Err = ParseStrategyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "push" => Ok(Self::Push),
            "pull" => Ok(Self::Pull),
            "push-pull" => Ok(Self::PushPull),
            _ => Err(ParseStrategyError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::PushPull => "push-pull",
        })
    }
}
