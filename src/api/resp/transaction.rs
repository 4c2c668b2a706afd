//! MULTI to EXEC: commands that are executed as one.
//!
//! What a client queues is judged at once, as in Redis: a command that does not exist, has a wrong
//! number of arguments or is refused makes EXEC refuse the whole. What depends on values is judged by
//! EXEC, and a command that fails then does not keep the others from being executed.
//!
//! EXEC is one operation ([`Operation::Batch`]), hence one write with one stamp: nobody ever sees part
//! of it, at any peer. In eventual mode that is all it promises: writes of other peers may come to the
//! same keys before or after it, so WATCH is refused there, as are the commands that need an order.

use super::command::{Command, needs_strong};
use super::door::Shared;
use super::keys::Batch;
use super::operate::{ask, perform};
use super::ordered;
use super::parse::{Arguments, Kept};
use super::reply::Replies;
use crate::protocol::cell::WRITE_BYTES_MAX;
use crate::protocol::operation::{BATCH_MAX, Mode, Operation, Version, Why, Word};
use crate::protocol::stamp::{Dot, Stamp};

/// Redis' text for an EXEC after a command that was refused.
const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";

/// The most keys that one client watches: as many as an operation of that kind should name.
const WATCHED_MAX: usize = 4_096;

/// What is queued.
type Requests = Vec<(&'static Command, Kept)>;

/// What is watched.
type Watched = Vec<(Vec<u8>, Version)>;

/// What a client has said of a transaction.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// What is queued, between MULTI and EXEC.
    queued: Option<Queue>,
    /// The keys that must stay as they were.
    watched: Watched,
}

#[derive(Debug, Default)]
struct Queue {
    requests: Requests,
    bytes: usize,
    /// Whether a command was refused.
    spoilt: bool,
}

impl Transaction {
    /// Whether commands are queued rather than executed.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.queued.is_some()
    }

    /// A command was refused before it could be queued.
    pub(super) fn spoil(&mut self) {
        if let Some(queue) = &mut self.queued {
            queue.spoilt = true;
        }
    }

    /// `MULTI`.
    pub(super) fn begin(&mut self, replies: &mut Replies) {
        if self.queued.is_some() {
            return replies.error("ERR MULTI calls can not be nested");
        }
        self.queued = Some(Queue::default());
        replies.ok();
    }

    /// `DISCARD`.
    pub(super) fn discard(&mut self, replies: &mut Replies) {
        if self.queued.is_none() {
            return replies.error("ERR DISCARD without MULTI");
        }
        *self = Self::default();
        replies.ok();
    }

    /// `WATCH key [key ...]`.
    pub(super) fn watch(
        &mut self,
        batch: &Batch<'_>,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) {
        if self.queued.is_some() {
            return replies.error("ERR WATCH inside MULTI is not allowed");
        }
        if batch.mode() == Mode::Eventual {
            return needs_strong(replies, "WATCH", Why::Together);
        }
        if self.watched.len() + arguments.len() > WATCHED_MAX {
            return replies.error("ERR too many keys are watched");
        }
        for key in arguments.skip(1).iter() {
            let version = batch.node.reader().version(key, batch.now);
            self.watched.push((key.to_vec(), version));
        }
        replies.ok();
    }

    /// `UNWATCH`.
    pub(super) fn unwatch(&mut self, replies: &mut Replies) {
        self.watched.clear();
        replies.ok();
    }

    /// Queues a command.
    pub(super) fn queue(
        &mut self,
        batch: &Batch<'_>,
        command: &'static Command,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) {
        let Some(queue) = &mut self.queued else { return };
        let kept = Kept::of(arguments);
        queue.bytes += kept.bytes();
        if queue.bytes > WRITE_BYTES_MAX || queue.requests.len() >= BATCH_MAX {
            queue.spoilt = true;
            return replies.error("ERR the transaction is too large");
        }
        match ask(batch, command, arguments, replies) {
            None => queue.spoilt = true,
            Some(_) => {
                queue.requests.push((command, kept));
                replies.simple("QUEUED");
            }
        }
    }

    /// `EXEC`, in the order of the replicated log.
    pub(super) fn order(&mut self, shared: &Shared, batch: &mut Batch<'_>, replies: &mut Replies) {
        let Some((requests, watched)) = self.take(replies) else { return };
        if let Some(operation) = together(batch, &requests, &watched, replies) {
            ordered::order(shared, batch, &operation, replies);
        }
    }

    /// `EXEC`; the dot of the write, if there was one.
    pub(super) fn execute(
        &mut self,
        batch: &mut Batch<'_>,
        replies: &mut Replies,
    ) -> Option<(Stamp, Dot)> {
        let (requests, watched) = self.take(replies)?;
        let operation = together(batch, &requests, &watched, replies)?;
        perform(batch, &operation, replies)
    }

    /// What was queued and watched, unless that cannot be executed and that has been answered.
    fn take(&mut self, replies: &mut Replies) -> Option<(Requests, Watched)> {
        let Some(Queue { requests, spoilt, .. }) = self.queued.take() else {
            replies.error("ERR EXEC without MULTI");
            return None;
        };
        let watched = std::mem::take(&mut self.watched);
        if spoilt {
            replies.error(EXECABORT);
            return None;
        }
        Some((requests, watched))
    }
}

/// What was queued as one operation, unless something of it is refused by now.
fn together<'a>(
    batch: &Batch<'_>,
    requests: &'a Requests,
    watched: &'a Watched,
    replies: &mut Replies,
) -> Option<Operation<'a>> {
    let mut operations = Vec::with_capacity(requests.len());
    for (command, kept) in requests {
        operations.push(ask(batch, command, kept.arguments(), replies)?);
    }
    let watched = watched.iter().map(|(key, version)| (Word(key), *version)).collect();
    Some(Operation::Batch { watched, operations })
}
