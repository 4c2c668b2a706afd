//! What a node is told before it starts.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::durable::StorageConfig;
use crate::net::{Emulation, NodeIdentity, Secret};
use crate::protocol::cell::VALUE_BYTES_MAX;
use crate::protocol::config::{FANOUT_DEFAULT, INTERVAL_DEFAULT, Strategy, VOTERS_DEFAULT};
use crate::protocol::event::Event;
use crate::protocol::operation::Mode;
use crate::protocol::time::Time;

/// Is told each event of a node's shard, at the time that the node's clock shows.
///
/// Called while the shard is locked: it takes a note and returns.
pub type Observer = Arc<dyn Fn(Time, &Event) + Send + Sync>;

/// What a [`super::Node`] is told before it starts.
#[derive(Clone)]
pub struct NodeConfig {
    /// The name that people read; need not be unique.
    pub name: String,
    /// The cluster's name; nodes of another one are refused.
    pub cluster: String,
    /// Where peers reach this node, over QUIC.
    pub listen: SocketAddr,
    /// What the members of the cluster share. Without it the node serves only this machine.
    pub secret: Option<Secret>,
    /// The key that gives the node its id.
    pub identity: NodeIdentity,
    /// Where other members may be found.
    pub peers: Vec<SocketAddr>,
    /// Whether it looks for members on the LAN and lets itself be found; needs a secret.
    pub discovery: bool,
    /// How writes are ordered from the beginning of the cluster on; a mode that it has been switched to
    /// stays.
    pub consistency: Mode,
    /// How many members vote in strong mode, if the group of voters is founded here: an odd number.
    pub voters: usize,
    /// The direction of rounds.
    pub strategy: Strategy,
    /// Whether writes are pushed at once.
    pub eager: bool,
    /// The time between two rounds.
    pub interval: Duration,
    /// The most peers that get a push straight from here.
    pub fanout: usize,
    /// How long a hub gathers pushes; `None`: about as long as a hop takes.
    pub relay_window: Option<Duration>,
    /// Where and how it keeps what it holds; `None`: in memory only.
    pub storage: Option<StorageConfig>,
    /// The longest value that clients may write.
    pub value_bytes_max: usize,
    /// How much memory the cells may take, about, before clients' writes are refused.
    pub memory_bytes_max: Option<usize>,
    /// What the links are made to look like.
    pub emulation: Option<Emulation>,
    /// Decides everything random in the protocol; `None`: drawn from the system.
    pub seed: Option<u64>,
    /// Is told what happens.
    pub observer: Option<Observer>,
    /// Whether the observer is told of each write that becomes visible.
    pub trace: bool,
}

impl NodeConfig {
    /// A node of the cluster `quorumor` with the default parameters, on a free port of the loopback
    /// interface.
    pub fn new(name: impl Into<String>, identity: NodeIdentity) -> Self {
        Self {
            name: name.into(),
            cluster: "quorumor".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            secret: None,
            identity,
            peers: Vec::new(),
            discovery: false,
            consistency: Mode::Eventual,
            voters: VOTERS_DEFAULT,
            strategy: Strategy::default(),
            eager: true,
            interval: INTERVAL_DEFAULT,
            fanout: FANOUT_DEFAULT,
            relay_window: None,
            storage: None,
            value_bytes_max: VALUE_BYTES_MAX,
            memory_bytes_max: None,
            emulation: None,
            seed: None,
            observer: None,
            trace: false,
        }
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("listen", &self.listen)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
