//! Whole clusters in virtual time.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod broken;
pub mod check;
mod connect;
pub mod experiment;
pub mod happening;
mod network;
pub mod plan;
pub mod scenario;
mod schedule;
pub mod story;
pub mod tally;
pub mod trial;
pub mod world;

pub use network::Sending;
