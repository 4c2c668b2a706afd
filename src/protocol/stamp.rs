//! The two numbers of a write: a stamp that orders it and a dot that counts it.
//!
//! A [`Stamp`] is Lamport's clock (Lamport 1978, "Time, Clocks, and the Ordering of Events"): the
//! counter is greater than that of everything its writer had seen, and the writer's [`Origin`]
//! breaks ties, so stamps are totally ordered and the order respects causality. Counters jump when
//! a foreign stamp is seen, so they say nothing about what is missing.
//!
//! A [`Dot`] does (Preguiça et al. 2010, "Dotted Version Vectors"): each origin numbers the cells it
//! writes 1, 2, 3, … per shard, without holes, so a missing number is a missing cell. A write of
//! several cells has one stamp and as many dots in a row: with one dot for all of them, a node that
//! passes on what is left of a write could not say what it passes on (see `delta`).
//!
//! A counter never falls behind the numbers: the `seq` of a dot is at most the Lamport counter of
//! its stamp, so a vector that claims greater numbers than the counters seen is a lie.
//!
//! The epoch is the most significant part of a stamp: it grows whenever a cluster changes its
//! consistency mode, so that a straggler with a huge counter never beats a later mode.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::Origin;

/// How often the cluster has changed its consistency mode.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Epoch(pub u32);

/// A Lamport counter: greater than the greatest its writer had seen.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Lamport(pub u64);

impl Lamport {
    /// The counter of a write of `cells` cells, or `None` when the counter is exhausted.
    ///
    /// It grows by one per cell, so that it never falls behind the numbers of the dots.
    pub fn after(self, cells: u64) -> Option<Self> {
        self.0.checked_add(cells).map(Self)
    }
}

/// The place of a write in the total order: the greater stamp wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The mode's epoch in which the write was made.
    pub epoch: Epoch,
    /// The writer's Lamport counter.
    pub lamport: Lamport,
    /// The writer, which breaks ties.
    pub origin: Origin,
}

/// The name of a cell of a write: the `seq`-th of its origin in its shard, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// The writer.
    pub origin: Origin,
    /// The number of the cell, dense from 1.
    pub seq: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.epoch.0, self.lamport.0, self.origin)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stamp {self}")
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.seq)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dot {self}")
    }
}
