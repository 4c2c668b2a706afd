//! Operations of clients, and the moment at which they are executed: all that a shard does not own.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use super::entered::Entered;
use super::node::Node;
use crate::protocol::boundary::{Reply, Request, Token};
use crate::protocol::operation::{self, Answer, Mode, Moment, Operation};
use crate::protocol::strong::Posture;
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
        wall()
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
        match self.is_direct() {
            true => Mode::Eventual,
            false => Mode::Strong,
        }
    }

    /// Whether requests are answered at once, by this node alone: in eventual mode, unless a switch is
    /// under way.
    pub fn is_direct(&self) -> bool {
        self.inner().posture.load(Ordering::Acquire) == Posture::Direct as u8
    }

    /// Executes an operation in either mode.
    ///
    /// In strong mode the answer is that of the replicated log: what it wrote is durable at a majority
    /// of the voters, and what it read is not older than anything acknowledged before. A
    /// [`Reply::Refused`] says whether it may have happened.
    pub async fn execute(&self, operation: &Operation<'_>) -> Reply {
        let moment = self.moment();
        self.inquire(|entered, token| entered.operate_later(token, operation, moment)).await
    }
}

/// The time as people count it.
pub(super) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Entered<'_> {
    /// Asks for an operation, whose answer goes to whoever waits for the token, unless it is there at
    /// once.
    pub fn operate_later(
        &mut self,
        token: Token,
        operation: &Operation<'_>,
        moment: Moment,
    ) -> Option<Reply> {
        if operation.is_write() && !self.takes_writes() {
            return Some(Reply::Unwritable);
        }
        self.begin(token, Request::Operate { operation, moment })
    }

    /// Answers an operation that only reads by what is here, however old that is.
    pub fn look(&self, operation: &Operation<'_>, moment: Moment) -> Answer {
        operation::look(self.shard().store(), operation, moment)
    }

    /// Executes a client's operation.
    pub fn operate(&mut self, operation: &Operation<'_>, moment: Moment) -> Reply {
        self.request(Request::Operate { operation, moment })
    }
}
