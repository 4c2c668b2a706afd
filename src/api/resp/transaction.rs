//! MULTI to EXEC: commands that are executed as one.
//!
//! What a client queues is judged at once, as in Redis: a command that does not exist, has a wrong
//! number of arguments or is refused makes EXEC refuse the whole. What depends on values is judged by
//! EXEC, and a command that fails then does not keep the others from being executed.
//!
//! EXEC is one operation ([`Operation::Batch`]), hence one write with one stamp: nobody ever sees part
//! of it, at any peer. In eventual mode that is all it promises: writes of other peers may come to the
//! same keys before or after it, so WATCH is refused there, as are the commands that need an order.
//!
//! What is not about keys has no place in an operation. A few such commands stand in transactions all the
//! same, PUBLISH above all, and are kept as *asides*: their replies are put between those of the operation
//! when it has been carried out, and what they publish leaves then. Of a client that has gone by the time
//! the log decides, or that wants no replies then, nothing is published. All other commands are refused.

use super::command::{Command, Verb, needs_strong};
use super::door::Shared;
use super::keys::Batch;
use super::operate::{answer, ask};
use super::parse::{Arguments, Kept, integer};
use super::reply::Replies;
use super::{ordered, pubsub};
use crate::protocol::boundary::Reply;
use crate::protocol::cell::WRITE_BYTES_MAX;
use crate::protocol::message::Published;
use crate::protocol::operation::{Answer, BATCH_MAX, Mode, Operation, Version, Why, Word};
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
    asides: Vec<(usize, Aside)>,
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
        let place = queue.requests.len() + queue.asides.len();
        if queue.bytes > WRITE_BYTES_MAX || place >= BATCH_MAX {
            queue.spoilt = true;
            return replies.error("ERR the transaction is too large");
        }
        let taken = match Aside::of(command, arguments, replies) {
            Some(Ok(aside)) => {
                queue.asides.push((place, aside));
                true
            }
            Some(Err(Refused)) => false,
            None => {
                let known = ask(batch, command, arguments, replies).is_some();
                if known {
                    queue.requests.push((command, kept));
                }
                known
            }
        };
        match taken {
            true => replies.simple("QUEUED"),
            false => queue.spoilt = true,
        }
    }

    /// `EXEC`, in the order of the replicated log.
    pub(super) fn order(&mut self, shared: &Shared, batch: &mut Batch<'_>, replies: &mut Replies) {
        let Some((requests, watched, asides)) = self.take(shared, replies) else { return };
        let Some(operation) = together(batch, &requests, &watched, replies) else { return };
        match ordered::hand(shared, batch, &operation) {
            (token, None) if asides.is_empty() => replies.later(token, ordered::write),
            (token, None) => {
                let node = shared.node().clone();
                replies.later(token, move |reply, replies| {
                    let (reply, published) = asides.among(reply);
                    // Those at this door hear it as those at peers do.
                    if !published.is_empty() {
                        node.publish(published, None);
                    }
                    ordered::write(reply, replies);
                });
            }
            (_, Some(reply)) => {
                let (reply, published) = asides.among(reply);
                batch.published.extend(published);
                ordered::write_now(batch, reply, replies);
            }
        }
    }

    /// `EXEC`; the dot of the write, if there was one.
    pub(super) fn execute(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        replies: &mut Replies,
    ) -> Option<(Stamp, Dot)> {
        let (requests, watched, asides) = self.take(shared, replies)?;
        let operation = together(batch, &requests, &watched, replies)?;
        let (written, answer) = answer(batch, &operation, replies)?;
        let (answer, published) = asides.between(answer);
        batch.published.extend(published);
        answer.write(replies);
        written
    }

    /// What was queued and watched, unless that cannot be executed and that has been answered.
    fn take(
        &mut self,
        shared: &Shared,
        replies: &mut Replies,
    ) -> Option<(Requests, Watched, Asides)> {
        let Some(Queue { requests, asides, spoilt, .. }) = self.queued.take() else {
            replies.error("ERR EXEC without MULTI");
            return None;
        };
        let watched = std::mem::take(&mut self.watched);
        if spoilt {
            replies.error(EXECABORT);
            return None;
        }
        let heard =
            |published: &Published| shared.subscriptions().receivers(&published.channel).len();
        let asides = asides.into_iter().map(|(place, aside)| match aside {
            Aside::Say(answer) => (place, answer, None),
            Aside::Publish(published) => (place, Answer::count(heard(&published)), Some(published)),
        });
        Some((requests, watched, Asides(asides.collect())))
    }
}

/// A command that is not about keys.
#[derive(Debug)]
enum Aside {
    /// The answer is known.
    Say(Answer),
    /// A message.
    Publish(Published),
}

/// What is wrong with a command has been answered.
struct Refused;

impl Aside {
    /// Reads one of the few; nothing if it is another command.
    fn of(
        command: &Command,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) -> Option<Result<Self, Refused>> {
        let answer = match (command.verb, arguments.len()) {
            (Verb::Publish, _) => {
                let published = pubsub::published(arguments, replies);
                return Some(published.map(Self::Publish).ok_or(Refused));
            }
            (Verb::Ping, 1) => Answer::Status("PONG".to_owned()),
            (Verb::Echo, _) | (Verb::Ping, 2) => Answer::bulk(arguments.at(1)),
            (Verb::Unwatch, _) => Answer::Ok,
            (Verb::Select, _) if integer(arguments.at(1)) == Some(0) => Answer::Ok,
            _ => return None,
        };
        Some(Ok(Self::Say(answer)))
    }
}

/// The places of asides among all that was queued, their answers, and what they publish.
#[derive(Debug)]
struct Asides(Vec<(usize, Answer, Option<Published>)>);

impl Asides {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As [`Asides::between`], of the reply to an operation.
    fn among(self, reply: Reply) -> (Reply, Vec<Published>) {
        match reply {
            Reply::Operated { answer, written } => {
                let (answer, published) = self.between(answer);
                (Reply::Operated { answer, written }, published)
            }
            other => (other, Vec::new()),
        }
    }

    /// Puts these between the answers of what was carried out, and says what is published now; nothing if it
    /// was not.
    fn between(self, answer: Answer) -> (Answer, Vec<Published>) {
        let Answer::Array(operations) = answer else { return (answer, Vec::new()) };
        let mut all = Vec::with_capacity(operations.len() + self.0.len());
        let mut operations = operations.into_iter();
        let mut messages = Vec::new();
        for (place, answer, published) in self.0 {
            let before = place.saturating_sub(all.len());
            all.extend(operations.by_ref().take(before));
            all.push(answer);
            messages.extend(published);
        }
        all.extend(operations);
        (Answer::Array(all), messages)
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
