//! The replication protocol as a value with one verb.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

mod anew;
pub mod boundary;
pub mod cell;
pub mod change;
mod clients;
pub mod codec;
pub mod config;
pub mod delta;
pub mod digest;
pub mod event;
pub mod expiry;
pub mod glob;
mod gossip;
pub mod id;
mod index;
pub mod membership;
pub mod message;
pub mod operation;
mod packed;
pub mod profile;
mod push;
pub mod rebuild;
pub mod record;
pub mod recovery;
mod repair;
pub mod restore;
mod role;
pub mod roster;
mod round;
pub mod shard;
pub mod stability;
pub mod stamp;
pub mod store;
pub mod strong;
pub mod time;
pub mod version;
pub mod why;
