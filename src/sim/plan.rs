//! What a run consists of, as plain data: the cluster, its links, and everything that will happen
//! to it from outside.
//!
//! A plan is drawn from a seed before the run begins (`scenario`) or written by hand (`experiment`,
//! tests). Nothing outside a plan decides anything in a run, so a plan is also its reproduction.

use std::sync::Arc;
use std::time::Duration;

use crate::protocol::config::{
    DELTA_BYTES_MAX_DEFAULT, Durability, FANOUT_DEFAULT, INTERVAL_DEFAULT, RETIRE_AFTER_DEFAULT,
    Strategy,
};
use crate::protocol::operation::Mode;
use crate::protocol::profile::{Link, Profile};

/// How long a connection over a dead link lives before its ends notice: about what real nodes take.
pub const DETECTION_DEFAULT: Duration = Duration::from_secs(8);

/// A whole run, decided beforehand.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was drawn for, in one word.
    pub name: String,
    /// Decides what the links do and everything random in the nodes.
    pub seed: u64,
    /// How many nodes there are, numbered from 0; people see `n1`, `n2`, ….
    pub nodes: usize,
    /// What every node is told when it starts.
    pub settings: Settings,
    /// What the links do.
    pub wires: Wires,
    /// What becomes of a message whose packets are lost.
    pub delivery: Delivery,
    /// How long a cut lasts before the connection over it is given up.
    pub detection: Duration,
    /// Whether messages travel as bytes. Without, they are only measured, which is faster.
    pub encode: bool,
    /// How long the cluster runs before the plan's times begin. Nothing is cut until then.
    pub warm_up: Duration,
    /// What happens from outside, in the order of time.
    pub acts: Vec<(Duration, Act)>,
    /// When the faults end: links are whole from then on. [`Duration::MAX`] is never.
    pub faults_end: Duration,
}

/// The parameters that all nodes of a cluster share.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The direction of rounds.
    pub strategy: Strategy,
    /// Whether writes are pushed at once.
    pub eager: bool,
    /// How long between two rounds of a node.
    pub interval: Duration,
    /// The most peers that a writer pushes to by itself.
    pub fanout: usize,
    /// How long a relay gathers; `None` leaves it to the node.
    pub relay_window: Option<Duration>,
    /// The bytes of a chunk.
    pub delta_bytes_max: usize,
    /// Whether there is a roster, and tombstones are collected.
    pub roster: bool,
    /// How long a member may be away.
    pub retire_after: Duration,
    /// When what a node holds becomes durable.
    pub durability: Durability,
    /// What is told about strong mode, if the cluster uses it.
    pub strong: Option<StrongSettings>,
}

/// What the nodes of a cluster that uses strong mode are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StrongSettings {
    /// Whether the cluster starts in strong mode.
    pub starts: bool,
    /// How many voters there should be.
    pub voters: usize,
    /// Whether what clients are told must be linearizable: the mode is never switched.
    pub is_judged: bool,
}

/// What the links between nodes do.
#[derive(Clone, Debug)]
pub enum Wires {
    /// All do the same.
    Uniform(Arc<Link>),
    /// What a profile says, its partitions over time included.
    Profile(Box<Profile>),
}

/// What becomes of a message when a link loses, doubles or delays its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// The message shares the fate of a single packet: lost, doubled, or overtaken by later ones.
    ///
    /// Harsher than QUIC, which hides all three; what survives this survives any transport. Messages
    /// even outlive the connection that they were sent on, as long as the receiver has not been
    /// started anew.
    Lossy,
    /// As QUIC does it: a message is as many packets as its bytes need, a lost one is sent again
    /// after a probe timeout, which doubles with every try up to a bound, and the streams keep their
    /// order. What was under way when a connection ends is lost.
    ///
    /// Left out: congestion windows, acknowledgements as packets of their own, and the faster
    /// detection of a loss that later packets on the same connection bring.
    Reliable,
}

/// Something that happens to the cluster from outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Act {
    /// A client asks a node for changes, all in one go (it pipelines).
    Ask {
        /// The node.
        node: usize,
        /// The changes.
        requests: Vec<ClientRequest>,
    },
    /// Links stop carrying anything: all from a node of `from` to a node of `to`.
    Cut {
        /// The senders that are no longer heard.
        from: Vec<usize>,
        /// Where they are not heard.
        to: Vec<usize>,
        /// Whether the opposite direction goes on.
        one_way: bool,
    },
    /// All cuts end.
    Heal,
    /// A node stops doing anything, and does it all later at once.
    Pause(usize),
    /// A paused node goes on.
    Resume(usize),
    /// A node dies and takes along what only it had and had not made durable.
    Crash(usize),
    /// A node ends in order.
    End(usize),
    /// A dead node starts with what it had made durable; without a disk empty, as a new origin.
    Restart(usize),
    /// Somebody copies what a node has made durable.
    Copy(usize),
    /// The disk of a dead node is replaced by the latest copy of it, if there is one.
    BringBack(usize),
    /// The disk of a dead node is replaced by an empty one.
    Wipe(usize),
    /// A node is told to retire a member.
    Retire {
        /// The node.
        node: usize,
        /// The member.
        member: usize,
    },
    /// A node is told to fill itself anew.
    Rebuild(usize),
    /// The links stop losing, doubling and reordering; cuts heal, paused nodes go on, and dead ones
    /// start.
    FaultsEnd,
}

/// What a client asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientRequest {
    /// Set a string.
    Set(Vec<u8>, Vec<u8>),
    /// Set strings as one write.
    SetAll(Vec<(Vec<u8>, Vec<u8>)>),
    /// Delete keys as one write.
    Delete(Vec<Vec<u8>>),
    /// Ask a peer whether it holds all that the node has written so far.
    Ask(usize),
    /// Show a string.
    Get(Vec<u8>),
    /// Set a string where there is nothing.
    SetAbsent(Vec<u8>, Vec<u8>),
    /// Add one to a number.
    Increment(Vec<u8>),
    /// Set a field of a hash. Only of keys for which [`is_ending`] holds.
    Note(Vec<u8>, Vec<u8>),
    /// Give a key so long to live, or take its deadline away. Only keys for which [`is_ending`] holds.
    Expire(Vec<u8>, Option<Duration>),
    /// Switch the consistency mode of the cluster.
    Switch {
        /// To this one.
        to: Mode,
        /// Without these nodes.
        without: Vec<usize>,
    },
}

impl Plan {
    /// Whether keys have deadlines in it.
    pub fn has_deadlines(&self) -> bool {
        self.acts.iter().any(|(_, act)| match act {
            Act::Ask { requests, .. } => {
                requests.iter().any(|request| matches!(request, ClientRequest::Expire(..)))
            }
            _ => false,
        })
    }
}

/// What the names of keys begin with that have deadlines. What they show depends on clocks, so the oracle
/// knows nothing of them: that all agree, and that nothing is left in the end, is looked at.
const ENDING_PREFIX: &[u8] = b"ending";

/// Whether a key of this name may have a deadline.
pub fn is_ending(key: &[u8]) -> bool {
    key.starts_with(ENDING_PREFIX)
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            strategy: Strategy::PushPull,
            eager: true,
            interval: INTERVAL_DEFAULT,
            fanout: FANOUT_DEFAULT,
            relay_window: None,
            delta_bytes_max: DELTA_BYTES_MAX_DEFAULT,
            roster: false,
            retire_after: RETIRE_AFTER_DEFAULT,
            durability: Durability::None,
            strong: None,
        }
    }
}

impl Wires {
    /// What the direction from one node to another does.
    pub fn link(&self, from: usize, to: usize) -> Arc<Link> {
        match self {
            Self::Uniform(link) => Arc::clone(link),
            Self::Profile(profile) => profile.link(from, to),
        }
    }

    /// The longest mean delay of any link, in one direction.
    pub fn latency_max(&self, nodes: usize) -> Duration {
        match self {
            Self::Uniform(link) => link.latency,
            Self::Profile(profile) => {
                let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
                let latencies = pairs.map(|(from, to)| profile.link(from, to).latency);
                latencies.max().unwrap_or_default()
            }
        }
    }

    /// Whether any link is ever cut by these descriptions.
    pub fn have_cuts(&self) -> bool {
        match self {
            Self::Uniform(link) => !link.cuts.is_empty(),
            Self::Profile(profile) => profile.quiet_from() != Some(Duration::ZERO),
        }
    }
}

impl ClientRequest {
    /// The keys that it names.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (set, all, delete) = match self {
            Self::Set(key, _)
            | Self::Get(key)
            | Self::SetAbsent(key, _)
            | Self::Increment(key)
            | Self::Note(key, _)
            | Self::Expire(key, _) => (Some(key), None, None),
            Self::SetAll(pairs) => (None, Some(pairs), None),
            Self::Delete(keys) => (None, None, Some(keys)),
            Self::Ask(_) | Self::Switch { .. } => (None, None, None),
        };
        let all = all.into_iter().flatten().map(|(key, _)| key);
        set.into_iter().chain(all).chain(delete.into_iter().flatten()).map(Vec::as_slice)
    }
}
