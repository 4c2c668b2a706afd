//! Quorumor, a replicated key-value store for a LAN.
//!
//! Every peer accepts writes; peers gossip anti-entropy digests over QUIC until all hold the same
//! state. The rooms, from the ground up (each imports only rooms below it):
//!
//! - [`protocol`]: the replication protocol as a value, pure and deterministic.
//! - [`net`]: QUIC links between peers, identity from one cluster secret, link emulation.
//! - [`sim`]: whole clusters in virtual time, from a seed, in one thread.
//! - [`server`]: one real node, which carries out what the protocol asks for.
//! - [`api`]: the doors: the Redis protocol and HTTP.
//! - [`lab`]: experiments, statistics and tables.
//! - [`cli`]: the command line.

pub mod api;
pub mod cli;
pub mod lab;
pub mod net;
pub mod protocol;
pub mod server;
pub mod sim;
