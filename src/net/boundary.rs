//! The values that cross the boundary between this room and those above: what a node brings, what it
//! hears, and what can be asked of it.
//!
//! What must stay true: they are plain values, and every bound in [`Limits`] has a default that suits
//! a LAN of ordinary machines.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Net;
use super::emulation::{Emulation, EmulationCount};
use super::hello::{self, RefusedReason};
use super::identity::{IdentityError, NodeIdentity, Secret};
use super::socket::DatagramCount;
use crate::protocol::id::NodeId;
use crate::protocol::profile::ProfileError;

/// What is called with everything that happens. It is called from the tasks that serve the
/// connections: it must be short and must not block.
pub type Handler = Arc<dyn Fn(&Net, NetEvent) + Send + Sync>;

/// What a node brings to the network.
#[derive(Debug)]
pub struct NetConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// What its cluster shares.
    pub secret: Secret,
    /// The cluster's name: two clusters with one secret do not merge by accident. Up to 128 bytes.
    pub cluster: String,
    /// The node's name, for people. Up to 128 bytes.
    pub name: String,
    /// The version of what is said over the links; a peer that speaks another one is refused.
    pub version: u8,
    /// What peers are told of this node when they meet it, for the rooms above. Up to 4 KiB.
    pub hello: Vec<u8>,
    /// A network to emulate around this node.
    pub emulation: Option<Emulation>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what a peer may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers linked at once.
    pub peers_max: usize,
    /// The longest pushed frame, in bytes. A write larger than this goes by an exchange.
    pub push_frame_bytes_max: usize,
    /// The longest frame of an exchange: the largest value that may be written, with room to spare.
    pub exchange_frame_bytes_max: usize,
    /// What may wait to be pushed to one peer; what does not fit is repaired by the next round.
    pub push_queue_bytes_max: usize,
    /// What may wait in all exchanges with one peer together.
    pub exchange_queue_bytes_max: usize,
    /// What clients publish that may wait to be sent to one peer; what does not fit is gone.
    pub talk_queue_bytes_max: usize,
    /// Incomplete frames from one peer together. A peer that exceeds it is sent away.
    pub receive_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_max: 256,
            push_frame_bytes_max: 1 << 20,
            exchange_frame_bytes_max: 72 << 20,
            push_queue_bytes_max: 4 << 20,
            exchange_queue_bytes_max: 80 << 20,
            talk_queue_bytes_max: 4 << 20,
            receive_bytes_max: 96 << 20,
        }
    }
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// One long-lived stream in each direction: in order, and dropped when its queue is full.
    Push,
    /// A stream of its own for each exchange and direction: in order within the exchange.
    Exchange {
        /// Names the exchange on this link. Whoever opens it chooses; both sides' choices must not
        /// collide (draw it at random, or keep odd and even apart).
        id: u64,
        /// The sender sends no more on this exchange after this frame.
        last: bool,
    },
    /// One stream in each direction for what clients tell each other: in order, behind everything else
    /// on the wire, and dropped when its queue is full. It arrives as an exchange.
    Talk,
    /// A packet of its own: at once or not at all, in no order, never repeated. From two bytes (a
    /// single one is the link's own probe) to what the path carries, which is at least
    /// [`DATAGRAM_BYTES_MAX`]; anything else is refused as if there were no room.
    Datagram,
}

/// The exchange that goes before all others: for short frames for which somebody waits.
pub const URGENT_EXCHANGE: u64 = u64::MAX - 1;

/// The longest frame of [`Lane::Datagram`] that every path carries, in bytes: QUIC's smallest packet
/// of 1,200 less what QUIC itself writes into it.
pub const DATAGRAM_BYTES_MAX: usize = 1_100;

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frame that was not queued is gone"]
pub enum Sent {
    /// It waits for its turn on the wire. It still is lost if the link breaks.
    Queued,
    /// The queue of that peer is full, too many exchanges are open, or the frame has a length that
    /// its lane does not carry.
    QueueFull,
    /// There is no link to that peer.
    NotConnected,
}

/// What the handler hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// There is a link to a peer.
    Up {
        /// Who it is, by its certificate.
        peer: NodeId,
        /// What it calls itself.
        name: String,
        /// Where it is.
        address: SocketAddr,
        /// The round trip measured during the handshake.
        round_trip: Duration,
        /// What its rooms above wanted us to know ([`NetConfig::hello`]).
        hello: Bytes,
    },
    /// The link to a peer is gone; the addresses given to [`Net::dial`] are tried again.
    Down {
        /// Who it was.
        peer: NodeId,
        /// Why, for people.
        reason: String,
    },
    /// A frame arrived.
    Frame {
        /// From whom.
        peer: NodeId,
        /// On which way.
        lane: Lane,
        /// Its contents. They may share memory with frames that came along: copy what is kept.
        bytes: Bytes,
    },
    /// Another running node has our identity and has been running longer: this one has to end.
    /// Several peers may say so.
    GivesWay {
        /// Who has, for people.
        why: String,
    },
    /// Somebody was not let in, or did not let us in.
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// The kind, as counted.
        reason: RefusedReason,
        /// Why, for people.
        why: String,
    },
}

/// A linked peer, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who it is.
    pub id: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// When the link came up.
    pub since: Instant,
    /// UDP packets and bytes sent on this link.
    pub sent: DatagramCount,
    /// UDP packets and bytes received on this link.
    pub received: DatagramCount,
    /// UDP packets that were sent and taken for lost.
    pub lost_datagrams: u64,
    /// Frames queued for it so far.
    pub frames_sent: u64,
    /// Frames that came from it so far.
    pub frames_received: u64,
    /// What waits to be pushed, in bytes.
    pub push_queue_bytes: usize,
    /// What waits in exchanges, in bytes.
    pub exchange_queue_bytes: usize,
}

/// What a node has done on the network so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// UDP packets handed to the socket, handshakes and keep-alives included.
    pub sent: DatagramCount,
    /// UDP packets received.
    pub received: DatagramCount,
    /// Frames queued for peers.
    pub frames_sent: u64,
    /// Frames that found their queue full or were too long for their lane.
    pub frames_dropped: u64,
    /// Links that came up.
    pub links_up: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<RefusedReason, u64>,
    /// What the emulated network did, if there is one.
    pub emulation: Option<EmulationCount>,
}

/// Says why a node is not on the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another program, or another node, listens there.
    #[error("{address} is in use: another node or program listens there; choose another port")]
    PortInUse {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// The socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A name or the hello is not acceptable.
    #[error("the {what} {value:?} cannot be used: {problem}")]
    Name {
        /// "cluster name", "node name", "hello".
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The keys or certificates could not be set up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no such profile, or it is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile's file could not be read.
    #[error("cannot read the profile {}: {source}", path.display())]
    ProfileFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Refuses names and hellos that peers would refuse.
pub(super) fn check_config(config: &NetConfig) -> Result<(), NetError> {
    for (what, name) in [("cluster name", &config.cluster), ("node name", &config.name)] {
        let problem = match hello::check_name(name) {
            Ok(()) if name.is_empty() => "it is empty",
            Ok(()) => continue,
            Err(problem) => problem,
        };
        return Err(NetError::Name { what, value: name.clone(), problem });
    }
    if config.hello.len() > hello::HELLO_EXTRA_BYTES_MAX {
        let value = format!("{} bytes", config.hello.len());
        return Err(NetError::Name { what: "hello", value, problem: "at most 4 KiB are allowed" });
    }
    Ok(())
}
