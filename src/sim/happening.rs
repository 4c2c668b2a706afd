//! The steps of a world.

use super::plan::{Act, ClientRequest};
use crate::protocol::boundary::Token;
use crate::protocol::message::Envelope;

/// How many bits of a token say which of the requests of an act it is.
const REQUEST_BITS: u32 = 16;

/// One thing that happens.
#[derive(Debug)]
pub enum Happening {
    /// A client asks a node for changes, all at once.
    Requests {
        /// The node.
        node: usize,
        /// The changes, each with what pairs the reply with it; see [`token`].
        requests: Vec<(Token, ClientRequest)>,
    },
    /// A message arrives.
    Message {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// The message.
        envelope: Envelope,
    },
    /// A node can reach a peer from now on.
    PeerUp {
        /// The node.
        node: usize,
        /// The peer.
        peer: usize,
    },
    /// A node cannot reach a peer any more.
    PeerDown {
        /// The node.
        node: usize,
        /// The peer.
        peer: usize,
    },
    /// A node wakes.
    Wake {
        /// The node.
        node: usize,
    },
    /// What a node has written is durable.
    Synced {
        /// The node.
        node: usize,
        /// So many frames of its disk.
        frames: usize,
    },
    /// Something happens to the cluster from outside.
    Act(Act),
}

impl Happening {
    /// The node at which it happens, if at one.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Requests { node, .. }
            | Self::Message { to: node, .. }
            | Self::PeerUp { node, .. }
            | Self::PeerDown { node, .. }
            | Self::Synced { node, .. }
            | Self::Wake { node } => Some(*node),
            Self::Act(_) => None,
        }
    }
}

/// What pairs a reply with a request: the number of the act in the plan, and which of the act's
/// requests it is.
pub fn token(act: usize, request: usize) -> Token {
    Token((act as u64) << REQUEST_BITS | request as u64)
}

/// The act that a token belongs to.
pub fn act_of(token: Token) -> usize {
    usize::try_from(token.0 >> REQUEST_BITS).unwrap_or(usize::MAX)
}
