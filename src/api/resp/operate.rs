//! Operations on keys: from a client's words to its reply.
//!
//! What only reads goes past the shard where the keys it names are enough. Everything else enters the
//! shard, with the batch that it is part of.

use super::ask::Asked;
use super::command::{Command, needs_strong};
use super::keys::{Batch, REPLY_BYTES_MAX, SCANNED_MAX, outcome, reply_too_long};
use super::parse::Arguments;
use super::reply::Replies;
use crate::protocol::operation::{self, Answer, Keys, Mode, Moment, Operation, Text, When, Word};
use crate::protocol::stamp::{Dot, Stamp};

/// Executes a command that is an operation; the dot of the write, if there was one.
pub(super) fn operate(
    batch: &mut Batch<'_>,
    command: &Command,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) -> Option<(Stamp, Dot)> {
    let operation = ask(batch, command, arguments, replies)?;
    if operation == Operation::Keys(Keys::Flush) && batch.mode() == Mode::Eventual {
        return flush(batch, replies);
    }
    perform(batch, &operation, replies)
}

/// The operation that a client asks for, unless it is refused and that has been answered.
pub(super) fn ask<'a>(
    batch: &Batch<'_>,
    command: &Command,
    arguments: Arguments<'a>,
    replies: &mut Replies,
) -> Option<Operation<'a>> {
    let Some(ask) = &command.ask else {
        let name = spelled(command);
        replies.error(format!(
            "ERR '{name}' cannot be part of a transaction here: commands on keys can"
        ));
        return None;
    };
    let operation = match (ask.0)(&Asked { arguments, now: batch.now }) {
        Ok(operation) => operation,
        Err(misread) => {
            replies.error(misread.text(command.name));
            return None;
        }
    };
    match operation.needs_order() {
        Some(why) if batch.mode() == Mode::Eventual => {
            needs_strong(replies, &what(command, &operation), why);
            None
        }
        _ => Some(operation),
    }
}

/// What of a command needs an order, in its own words.
fn what(command: &Command, operation: &Operation<'_>) -> String {
    match operation {
        Operation::Text(Text::Set { when: When::Absent, .. }) => "SET ... NX".to_owned(),
        Operation::Text(Text::Set { when: When::Present, .. }) => "SET ... XX".to_owned(),
        Operation::Text(Text::Set { get: true, .. }) if command.name == "set" => {
            "SET ... GET".to_owned()
        }
        _ => spelled(command),
    }
}

/// A command's name as people write it.
fn spelled(command: &Command) -> String {
    command.name.to_ascii_uppercase().replace('|', " ")
}

/// Performs an operation and answers it.
fn perform(
    batch: &mut Batch<'_>,
    operation: &Operation<'_>,
    replies: &mut Replies,
) -> Option<(Stamp, Dot)> {
    let (written, answer) = answer(batch, operation, replies)?;
    answer.write(replies);
    written
}

/// Performs an operation: its write, if there was one, and the answer, unless it is refused and that has been
/// answered.
pub(super) fn answer(
    batch: &mut Batch<'_>,
    operation: &Operation<'_>,
    replies: &mut Replies,
) -> Option<(Option<(Stamp, Dot)>, Answer)> {
    let moment = Moment { wall: batch.now, dice: batch.dice() };
    if let Some(answer) = operation::read(batch.node.reader(), operation, moment) {
        return Some((None, answer));
    }
    if !batch.is_direct() {
        // A read of what is here, however old, that needs more than the keys it names.
        return Some((None, batch.enter().look(operation, moment)));
    }
    let reply = batch.enter().operate(operation, moment);
    outcome(batch, reply, replies)
}

/// `FLUSHALL` where every peer writes for itself: deletes what shows here, a thousand keys at a time,
/// so that nobody waits long for the shard.
fn flush(batch: &mut Batch<'_>, replies: &mut Replies) -> Option<(Stamp, Dot)> {
    let (mut cursor, mut last) = (0, None);
    loop {
        let now = batch.now;
        let mut keys = Vec::new();
        cursor = batch.enter().scan(cursor, SCANNED_MAX, now, |key, _| keys.push(key.clone()));
        if !keys.is_empty() {
            let words = keys.iter().map(|key| Word(key)).collect();
            let moment = Moment { wall: now, dice: 0 };
            let reply = batch.enter().operate(&Operation::Keys(Keys::Delete(words)), moment);
            last = outcome(batch, reply, replies)?.0.or(last);
        }
        batch.leave();
        if cursor == 0 {
            replies.ok();
            return last;
        }
    }
}

impl Answer {
    /// Writes the answer as a reply.
    pub(super) fn write(&self, replies: &mut Replies) {
        if self.bytes() > REPLY_BYTES_MAX {
            return reply_too_long(replies);
        }
        self.write_all(replies);
    }

    fn write_all(&self, replies: &mut Replies) {
        match self {
            Self::Ok => replies.ok(),
            Self::Nil => replies.null(),
            Self::NilArray => replies.null_array(),
            Self::Integer(number) => replies.integer(*number),
            Self::Double(number) => replies.double(*number),
            Self::Status(word) => replies.simple(word),
            Self::Bulk(bytes) => replies.bulk(bytes),
            Self::Array(all) => {
                replies.array(all.len());
                all.iter().for_each(|one| one.write_all(replies));
            }
            Self::Set(all) => {
                replies.set(all.len());
                all.iter().for_each(|one| one.write_all(replies));
            }
            Self::Map(all) => {
                replies.map(all.len() / 2);
                all.iter().for_each(|one| one.write_all(replies));
            }
            Self::Pairs(all) => {
                replies.pairs(all.len() / 2);
                for pair in all.chunks_exact(2) {
                    replies.pair();
                    pair.iter().for_each(|one| one.write_all(replies));
                }
            }
            Self::Refused(refused) => replies.error(refused.to_string()),
        }
    }
}
