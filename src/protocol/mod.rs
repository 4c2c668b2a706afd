//! The replication protocol as a value with one verb.

pub mod id;
pub mod profile;
