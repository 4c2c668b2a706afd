//! The boundary of a shard: what goes in and what comes out.
//!
//! The shape is that of etcd's `Ready`: one value in, one value out, and a fixed order in which what
//! came out is carried out: `append` (make durable), `send` (try, never wait), `reply`, `events`,
//! `wake`. Many inputs may share one output, hence one sync; pushes of several writes to the same
//! peers are then one message.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::cell::Write;
use super::digest::DigestHash;
use super::event::Event;
use super::id::{NodeId, Origin, ShardId};
use super::message::{Envelope, Message, RoundId, Scope, Span, WIRE_VERSION};
use super::operation::{Answer, Moment, Operation};
use super::record::Append;
use super::stamp::{Dot, Epoch, Stamp};
use super::store::Fingerprint;
use super::strong::{Refusal, SwitchOrder, Switched};
use super::time::{Time, WallTime};

/// The most bytes of a push on the stream of pushes; a larger write travels on a stream of its own.
pub const PUSH_BYTES_MAX: usize = 64 * 1024;

/// Pairs a reply with its request; chosen by the caller.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Token(pub u64);

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A client asks for a change.
    Request(Token, Request<'a>),
    /// A message came from a peer.
    Message(NodeId, Envelope),
    /// A peer can be reached, with its round trip; also told when the round trip changes.
    PeerUp(NodeId, Duration),
    /// A peer can no longer be reached.
    PeerDown(NodeId),
    /// The records of an output, and all before them, are durable: those that came with this number
    /// in `Append::tell`.
    Durable(u64),
    /// The time that an output named for waking has come; and what time it is as people count it, by
    /// which deadlines are judged.
    Wake(WallTime),
}

/// A change that a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// Executes a client's operation; see `operation`.
    Operate {
        /// What is asked for.
        operation: &'a Operation<'a>,
        /// When, and with which dice.
        moment: Moment,
    },
    /// Sets a string.
    Set {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Sets strings as one write; of a key named twice the last value counts.
    SetAll(&'a [(&'a [u8], &'a [u8])]),
    /// Deletes keys as one write; answers how many showed something.
    Delete(&'a [&'a [u8]]),
    /// Asks a peer whether it holds a dot, and all before it of its origin.
    Ask {
        /// The peer.
        peer: NodeId,
        /// The dot; without it the answer tells only what the peer holds.
        dot: Option<Dot>,
    },
    /// Retires another member: it stops to hold up the collection of tombstones, and is not believed
    /// any more until it comes back anew.
    Retire {
        /// The member.
        node: NodeId,
    },
    /// Leaves the roster for good: from now on this node does not take part again by itself.
    Leave,
    /// Takes part after all, under a new origin: what is known of the old one is that it has left.
    Stay,
    /// Puts away what this node has and fills it anew from the others.
    Rebuild,
    /// Switches the consistency mode of the cluster; the reply comes when that is done, or cannot be.
    Switch(&'a SwitchOrder),
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// An operation was executed.
    Operated {
        /// What the client is told.
        answer: Answer,
        /// The stamp and the name of the last cell, if anything was written.
        written: Option<(Stamp, Dot)>,
    },
    /// Written, with this stamp and dot; `changed` keys showed something before.
    Written {
        /// The place in the order.
        stamp: Stamp,
        /// The name of the last cell: whoever holds it and all before it holds the write.
        dot: Dot,
        /// How many keys a deletion found.
        changed: usize,
    },
    /// Nothing was there to be changed.
    Nothing,
    /// Not done: the key belongs to the store itself.
    Reserved,
    /// Not done: there is no such member, or none that could be retired from here.
    Unknown,
    /// It has begun.
    Begun,
    /// Not done: the Lamport counter or the sequence numbers are exhausted.
    Exhausted,
    /// Not done: a key, a value or all together are longer than the bounds in `cell`, or than this
    /// node takes.
    TooLarge,
    /// Not done: the cells take more memory than this node may use.
    OutOfMemory,
    /// Not done: the node cannot make anything durable now. Said by the node, not by its shard.
    Unwritable,
    /// Not done, or it is not known whether it was.
    Refused(Refusal),
    /// What came of the wish for a switch of the mode.
    Switched(Switched),
    /// What a peer answered to [`Request::Ask`].
    Answer {
        /// The peer.
        peer: NodeId,
        /// Whether it holds the dot and all before it.
        covers: bool,
        /// The hash of what it holds.
        hash: DigestHash,
        /// The fingerprint of its cells.
        fingerprint: Fingerprint,
    },
}

/// On which stream a message travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// The long-lived stream of pushes.
    Push,
    /// The long-lived stream of what the replicated log and switches say: nothing bulky is before it.
    Vote,
    /// A stream of its own for each round and direction; `last` closes it.
    Exchange {
        /// The round.
        round: RoundId,
        /// Whether nothing follows.
        last: bool,
    },
}

/// A message to be sent: tried once, never waited for.
#[derive(Debug)]
pub struct Send {
    /// The peers that get it.
    pub to: Arc<[NodeId]>,
    /// The stream.
    pub lane: Lane,
    /// The message.
    pub envelope: Envelope,
    /// About how many bytes of writes it has.
    bytes: usize,
}

impl Send {
    /// About how many bytes of writes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What is to be done, in this order. What has gathered in the shard meanwhile is added by
/// `Shard::finish`, right before.
#[derive(Debug, Default)]
pub struct Output {
    /// Records to be made durable.
    pub append: Append,
    /// Messages to be sent.
    pub send: Vec<Send>,
    /// Answers to requests.
    pub reply: Vec<(Token, Reply)>,
    /// What happened.
    pub events: Vec<Event>,
    /// When to come back with [`Input::Wake`]; replaces an earlier time.
    pub wake: Option<Time>,
    /// The number of the first write that clients of this node have made in it: until it is carried out
    /// nobody else knows of that one and what followed. `Shard::finish` forgets it.
    pub unsaid: Option<u64>,
}

/// Numbers about a shard, for status and metrics. Counters count from the start of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counters {
    /// Writes accepted from clients.
    pub writes_local: u64,
    /// Writes from peers that were missing here.
    pub writes_remote: u64,
    /// Writes from peers that were here already.
    pub writes_repeated: u64,
    /// Writes dropped in favour of one whose writer did not know of them.
    pub conflicts: u64,
    /// Rounds opened here.
    pub rounds_opened: u64,
    /// Rounds opened by peers that found nothing different.
    pub rounds_equal: u64,
    /// Deltas received whole.
    pub deltas_filled: u64,
    /// Deltas given up, sent or received.
    pub deltas_given_up: u64,
    /// Equal vectors seen with different fingerprints.
    pub damage: u64,
    /// Messages refused: another shard, epoch or scope, or a quarantined peer.
    pub messages_refused: u64,
    /// Messages passed over: of an earlier life of a peer, or of one that is not cleared.
    pub messages_gated: u64,
    /// Tombstones collected.
    pub tombstones_collected: u64,
    /// Keys that were forgotten because their deadlines had passed for everybody.
    pub keys_expired: u64,
    /// How often this node has filled itself anew.
    pub rebuilds: u64,
    /// Peers quarantined.
    pub quarantined: u64,
    /// Writes that the replicated log has made here.
    pub writes_log: u64,
    /// Writes of an earlier epoch that do not count; see `strong`.
    pub orphans: u64,
    /// Writes dropped because too many gaps were open.
    pub writes_crowded_out: u64,
}

impl Output {
    /// Forgets everything but keeps the memory.
    pub fn clear(&mut self) {
        self.append.reuse();
        self.send.clear();
        self.reply.clear();
        self.events.clear();
        self.wake = None;
        self.unsaid = None;
    }
}

/// Wraps messages of one shard and adds them to an output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) shard: ShardId,
    pub(super) epoch: Epoch,
    pub(super) origin: Origin,
}

impl Sender {
    /// Adds a message to one peer.
    pub(super) fn send(self, to: NodeId, lane: Lane, message: Message, output: &mut Output) {
        output.send.push(self.wrap([to].into(), lane, message, 0));
    }

    /// Adds a write that is pushed to peers, to a message for the same ones if there is room.
    pub(super) fn push(
        self,
        to: &Arc<[NodeId]>,
        relay: Option<Span>,
        mut write: Write,
        output: &mut Output,
    ) {
        let more = write.bytes();
        let has_room = |send: &&mut Send| {
            send.lane == Lane::Push && send.bytes + more <= PUSH_BYTES_MAX && send.to == *to
        };
        for send in output.send.iter_mut().rev().filter(has_room) {
            match &mut send.envelope.message {
                Message::Push { writes, relay: theirs } if *theirs == relay => {
                    if let Some(last) = writes.last_mut()
                        && write.cover(last)
                    {
                        send.bytes -= last.bytes();
                        *last = write;
                    } else {
                        writes.push(write);
                    }
                    send.bytes += more;
                    return;
                }
                _ => {}
            }
        }
        let lane = if more <= PUSH_BYTES_MAX {
            Lane::Push
        } else {
            // Named by what it carries, so that it needs no dice.
            Lane::Exchange { round: RoundId(write.stamp.origin.0 ^ write.seq), last: true }
        };
        let message = Message::Push { writes: vec![write], relay };
        output.send.push(self.wrap(Arc::clone(to), lane, message, more));
    }

    fn wrap(self, to: Arc<[NodeId]>, lane: Lane, message: Message, bytes: usize) -> Send {
        Send { to, lane, envelope: self.envelope(message), bytes }
    }

    pub(super) fn envelope(self, message: Message) -> Envelope {
        let Self { shard, epoch, origin } = self;
        let scope = Scope::default();
        Envelope { version: WIRE_VERSION, shard, scope, epoch, origin, message }
    }
}
