//! Names for things: nodes, origins, shards.
//!
//! Each is a newtype, so that the compiler tells a node from an origin. Nothing here is ever taken
//! from a message body where the transport can prove it: a [`NodeId`] is the hash of the public key
//! in the certificate of a connection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A running member, named by the first 16 bytes of the SHA-256 of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u128);

/// One incarnation of a node as a writer.
///
/// 64 bits derived by hashing the node's id with a number that no earlier incarnation used; the
/// chance that two of a million origins collide is about 3 in 10⁸.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin(pub u64);

/// One partition of the key space: its own cells, version vector, digest and log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// Says what is wrong with the text of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a node id: expected 32 hexadecimal digits")]
pub struct ParseIdError {
    text: String,
}

impl NodeId {
    /// The id as 16 bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id from 16 bytes, most significant first.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl Origin {
    /// The origin that is incarnation number `incarnation` of `node`.
    pub fn of(node: NodeId, incarnation: u64) -> Self {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&node.to_bytes());
        bytes[16..].copy_from_slice(&incarnation.to_be_bytes());
        Self(twox_hash::XxHash3_64::oneshot(&bytes))
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        well_formed
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| ParseIdError { text: text.to_owned() })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:08x}", (self.0 >> 96) as u32)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "origin {:08x}", (self.0 >> 32) as u32)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}
