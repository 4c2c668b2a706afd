//! Operations of clients, and the moment at which they are executed: all that a shard does not own.

use std::time::{SystemTime, UNIX_EPOCH};

use super::node::{Entered, Node};
use crate::protocol::boundary::{Reply, Request};
use crate::protocol::operation::{Mode, Moment, Operation};
use crate::protocol::time::WallTime;

impl Node {
    /// The string at `key`.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        self.reader().string(key.as_ref(), self.wall(), |value| value.map(<[u8]>::to_vec))
    }

    /// Sets the string at `key`; the answer names the write.
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Reply {
        self.enter().set(key.as_ref(), value.as_ref())
    }

    /// Deletes `key`.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Reply {
        self.enter().delete(&[key.as_ref()])
    }

    /// The time as people count it, by which deadlines are judged.
    pub fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The present moment, for an operation.
    pub fn moment(&self) -> Moment {
        Moment { wall: self.wall(), dice: self.dice() }
    }

    /// A random number, for an operation.
    pub fn dice(&self) -> u64 {
        fastrand::u64(..)
    }

    /// How writes are ordered.
    pub fn mode(&self) -> Mode {
        Mode::Eventual
    }
}

impl Entered<'_> {
    /// Executes a client's operation.
    pub fn operate(&mut self, operation: &Operation<'_>, moment: Moment) -> Reply {
        self.request(Request::Operate { operation, moment })
    }
}
