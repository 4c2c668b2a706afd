//! Whole clusters in virtual time, from a seed, in one thread.
//!
//! The protocol is a value that owns no clock, socket or dice, so a cluster of it can be run by
//! anybody who plays network and time. This room does, and it plays foul: messages are lost, doubled
//! and overtaken, links are cut in one direction or both, nodes freeze and die. What happens is
//! decided by a seed alone, so what once went wrong can be looked at as often as one likes.
//!
//! # From a seed to a verdict
//! 1. A `scenario` draws a `plan` from a seed: how many nodes, what links, which requests and
//!    faults when. It is plain data, and the whole run follows from it.
//! 2. A `world` carries the plan out, step by step (`happening`), in the order of virtual time
//!    (`schedule`): it hands each shard its inputs and carries out its outputs as a real server
//!    does. `network` says what becomes of each message, by the very model that shapes the links of
//!    real nodes; `connect` says who can reach whom, and when they notice.
//! 3. `check` looks at every step. It keeps its own, naive account of who wrote, saw and knew what,
//!    and compares; see its table of rules.
//! 4. A `trial` drives all of that: load and faults, then convergence within a bound, then quiet. It
//!    ends in a verdict, with the command that repeats the run; `story` tells it in sentences.
//!
//! Clusters with a replicated log are judged by `judged`: linearizable answers while strong mode lasts,
//! and nothing lost by switches.
//!
//! An `experiment` runs a world without checkers, to measure how fast writes spread over links that
//! deliver as QUIC does, with up to some thousand nodes.
//!
//! Whole histories of what clients asked and were told, of worlds as of real nodes, are judged by
//! `linearizable`.
//!
//! # What must stay true
//! The same plan gives the same run on every machine: no clock, no dice but those made from the seed,
//! no order of a hash map. Each checker can fail; `broken` shows it for every one of them.
//!
//! # What is left out
//! Damaged disks; clocks that differ; the time that handling takes.
//!
//! Sources: the idea of a simulator that is the second caller of the same code is FoundationDB's
//! ("Testing Distributed Systems with Deterministic Simulation", Wilson 2014); checkers apart from
//! the world that they judge are TigerBeetle's.

#![deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)]

#[cfg(test)]
mod broken;
#[cfg(test)]
mod broken_log;
pub mod check;
mod connect;
pub mod detection;
pub mod disk;
pub mod experiment;
pub mod happening;
mod judged;
pub mod linearizable;
mod network;
pub mod plan;
mod requests;
pub mod scenario;
mod schedule;
pub mod story;
pub mod tally;
pub mod trial;
pub mod world;

pub use network::Sending;
