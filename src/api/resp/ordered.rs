//! Requests whose order the replicated log decides: their replies come later.
//!
//! In strong mode an operation is handed to the shard, and its reply keeps its place among the replies
//! of the connection until the answer comes. All operations of a turn gather in the shard: the writes
//! become one entry of the log, the reads one question to a majority.
//!
//! What must stay true: a client that sends many requests at once sees them executed in their order. Of
//! one connection only reads are under way together, or only writes, and those of one turn; what is of
//! another kind, or comes in a later turn, waits until all of them are answered. A transaction is
//! under way alone.

use super::command::Command;
use super::door::Shared;
use super::keys::{Batch, OOM, REPLY_BYTES_MAX, reply_too_long};
use super::operate;
use super::parse::Arguments;
use super::reply::Replies;
use super::session::{Next, Session};
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::operation::{Moment, Operation, Refused};

/// What of a connection is under way together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathered {
    /// Nothing so far.
    Nothing,
    /// Operations that only read.
    Reads,
    /// Operations that write.
    Writes,
    /// A transaction.
    Transaction,
}

impl Gathered {
    /// Whether something of this kind may go along with what is under way.
    pub(super) fn takes(&mut self, kind: Self) -> bool {
        let takes = *self == Self::Nothing || *self == kind && kind != Self::Transaction;
        if takes {
            *self = kind;
        }
        takes
    }
}

impl Session {
    /// Has the replicated log decide the place of a request.
    pub(super) fn order(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        command: &Command,
        kind: Gathered,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) -> Next {
        if !self.gathered.takes(kind) {
            return Next::NotYet;
        }
        if kind == Gathered::Transaction {
            self.transaction.order(shared, batch, replies);
        } else if let Some(operation) = operate::ask(batch, command, arguments, replies) {
            order(shared, batch, &operation, replies);
        }
        Next::Go
    }
}

/// Hands an operation to the shard and keeps the place of its reply.
fn order(shared: &Shared, batch: &mut Batch<'_>, operation: &Operation<'_>, replies: &mut Replies) {
    match hand(shared, batch, operation) {
        (token, None) => replies.later(token, write),
        (_, Some(reply)) => write_now(batch, reply, replies),
    }
}

/// Hands an operation to the shard: the token by which its reply comes, or the reply if it is there at once.
pub(super) fn hand(
    shared: &Shared,
    batch: &mut Batch<'_>,
    operation: &Operation<'_>,
) -> (Token, Option<Reply>) {
    let moment = Moment { wall: batch.now, dice: batch.dice() };
    let token = shared.answers().token();
    (token, batch.enter().operate_later(token, operation, moment))
}

/// Writes a reply that was there at once.
pub(super) fn write_now(batch: &Batch<'_>, reply: Reply, replies: &mut Replies) {
    match reply {
        Reply::Unwritable => {
            let why = batch.node.refuses_writes().unwrap_or_default();
            replies.error(format!("MISCONF writes are refused, reads go on: {why}"));
        }
        reply => write(reply, replies),
    }
}

/// Writes the reply to an operation.
pub(super) fn write(reply: Reply, replies: &mut Replies) {
    match reply {
        Reply::Operated { answer, .. } if answer.bytes() > REPLY_BYTES_MAX => {
            reply_too_long(replies);
        }
        Reply::Operated { answer, .. } => answer.write(replies),
        Reply::Refused(refusal) => replies.error(refusal.to_string()),
        Reply::OutOfMemory => replies.error(OOM),
        Reply::Reserved => replies.error(Refused::Reserved.to_string()),
        Reply::TooLarge => replies.error(Refused::TooLong.to_string()),
        _ => replies.error("ERR this could not be done"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: reads go together, writes go together, and a transaction goes alone.
    #[test]
    fn what_goes_together() {
        let mut gathered = Gathered::Nothing;
        assert!(gathered.takes(Gathered::Reads) && gathered.takes(Gathered::Reads));
        assert!(!gathered.takes(Gathered::Writes) && !gathered.takes(Gathered::Transaction));
        gathered = Gathered::Nothing;
        assert!(gathered.takes(Gathered::Transaction));
        assert!(!gathered.takes(Gathered::Transaction) && !gathered.takes(Gathered::Reads));
    }
}
