//! Quorumor, a replicated key-value store for a LAN.
//!
//! Every peer accepts writes; peers gossip anti-entropy digests over QUIC until all hold the same
//! state. The rooms, from the ground up (each imports only rooms below it):
//!
//! - [`protocol`]: the replication protocol as a value, pure and deterministic.
//! - [`net`]: QUIC links between peers, identity from one cluster secret, link emulation.
//! - [`storage`]: durable bytes: a directory, a journal, snapshots.
//! - [`sim`]: whole clusters in virtual time, from a seed, in one thread.
//! - [`server`]: one real node, which carries out what the protocol asks for.
//! - [`api`]: the doors: the Redis protocol and HTTP.
//! - [`lab`]: experiments, statistics and tables.
//! - [`cli`]: the command line.
//!
//! A node embedded in a program of one's own:
//!
//! ```
//! use quorumor::net::NodeIdentity;
//! use quorumor::server::{Node, NodeConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! async_std::task::block_on(async {
//!     let node = Node::start(NodeConfig::new("ada", NodeIdentity::fresh()?)).await?;
//!     node.set("note", "hello");
//!     assert_eq!(node.get("note").as_deref(), Some(&b"hello"[..]));
//!     node.close().await;
//!     Ok(())
//! })
//! # }
//! ```

pub mod api;
pub mod cli;
pub mod lab;
pub mod net;
pub mod protocol;
pub mod server;
pub mod sim;
pub mod storage;
