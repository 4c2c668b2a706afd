//! One real node: carries out what the protocol asks for, with real clocks, links and dice.
//!
//! A [`Node`] owns a shard behind a short lock, the links to its peers, and a timer. Everything that
//! happens (a client's batch, a frame from a peer, a link that comes or goes, a deadline) enters the
//! shard once, and the output is carried out before the lock is let go: frames are handed to bounded
//! queues that never wait, so the lock is held for microseconds and never across an await. There is
//! no channel between a client's bytes and the store.
//!
//! Programs embed a node through this room; the doors in `api` are two more callers.
//!
//! - `node`: the node itself.
//! - `config`: what it is told.
//! - `detect`: who answers.
//! - `durable`: what it keeps on disk, and what waits for that.
//! - `tell`: what it prints of what happens.
//! - `aside`: what is large is encoded and decoded where nobody waits for it.
//! - `ask`: questions to peers: who covers this write, does everybody agree.
//! - `publish`: what clients tell each other, at this node and at peers.
//! - `status`: what it says about itself.
//! - `progress`: how far it is when it is filled by another.
//! - `mode`: the consistency mode, and switching it.
//! - `members`: who belongs to the cluster, and leaving it.
//! - `twin`: giving way to a node with the same identity.
//! - `backup`: all that it holds as one stream, and back.

mod aside;
mod ask;
mod backup;
mod config;
mod detect;
mod durable;
mod entered;
mod members;
mod mode;
mod node;
mod operate;
mod progress;
mod publish;
mod status;
mod tell;
mod twin;

pub use crate::protocol::restore::Restored;
pub use crate::storage::{Position, Stopped};
pub use ask::{Agreement, Answers, Holder, Opinion};
pub use backup::{
    About, Backup, BackupRefused, Made, MakeError, Restore, RestoreError, check, make_directory,
};
pub use config::{NodeConfig, Observer};
pub use detect::Liveness;
pub use durable::{Journaled, StorageConfig};
pub use entered::Entered;
pub use members::{LeaveError, MemberError, MemberState, MemberStatus};
pub use mode::{OrphanStatus, StrongStatus, SwitchReport, VoterStatus};
pub use node::{Node, StartError};
pub use progress::FillStatus;
pub use publish::Listener;
pub use status::{Blocker, Collection, MessageCount, PeerStatus, Security, Status, StorageStatus};
pub use twin::GaveWay;
