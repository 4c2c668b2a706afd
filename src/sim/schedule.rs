//! What is to come, in the order of virtual time.
//!
//! Two things due at the same instant happen in the order in which they were scheduled: a number
//! given at scheduling breaks the tie, so the order never depends on the heap.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::happening::Happening;
use crate::protocol::message::{Envelope, RoundId};
use crate::protocol::time::Time;

/// Something that is due at some time. Nodes are 32-bit numbers here: there are millions of these.
#[derive(Debug)]
pub(super) enum Due {
    /// The times of the plan begin.
    Begin,
    /// An act of the plan, by its number.
    Act(u32),
    /// A message arrives.
    Deliver(Parcel),
    /// Lost packets of a message are sent again.
    Resend(Box<Resend>),
    /// A node wants to be woken.
    Wake(u32),
    /// Something that had to wait for a paused node.
    Late(Box<Happening>),
    /// A node learns that a peer can be reached.
    PeerUp(u32, u32),
    /// A node learns that a connection to a peer has ended.
    PeerDown { node: u32, peer: u32, connection: u32 },
    /// A cut between two nodes, by its description, begins or ends about now.
    LinkChanges(u32, u32),
    /// The connection between two nodes ends unless the cut between them was interrupted.
    Detect { pair: (u32, u32), since: Time },
    /// A node's disk has synced so many frames, in this life of the node.
    Sync { node: u32, life: u32, frames: usize },
    /// Two nodes connect if they can.
    Connect(u32, u32),
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) from: u32,
    pub(super) to: u32,
    /// The number of the connection that it was sent on.
    pub(super) connection: u32,
    /// Which life of the receiver it was sent to.
    pub(super) incarnation: u32,
    pub(super) payload: Arc<Payload>,
}

/// What is in a message.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) envelope: Envelope,
    /// The bytes that travel, if they do.
    pub(super) frame: Option<Vec<u8>>,
    pub(super) bytes: usize,
}

/// Packets of one message that were lost and are to be sent again.
#[derive(Debug)]
pub(super) struct Resend {
    pub(super) stream: StreamKey,
    /// The number of the message within the stream.
    pub(super) number: u64,
    pub(super) packets: usize,
    /// The bytes of each.
    pub(super) bytes: usize,
    /// When the last of the others arrives.
    pub(super) arrival: Time,
    pub(super) tries: u32,
}

/// Names one direction of one stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamKey {
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) connection: u32,
    /// `None` is the stream of pushes.
    pub(super) round: Option<RoundId>,
}

/// A queue in the order of time.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    heap: BinaryHeap<Scheduled>,
    scheduled: u64,
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    number: u64,
    due: Due,
}

impl Schedule {
    pub(super) fn push(&mut self, at: Time, due: Due) {
        self.scheduled += 1;
        self.heap.push(Scheduled { at, number: self.scheduled, due });
    }

    pub(super) fn pop(&mut self) -> Option<(Time, Due)> {
        self.heap.pop().map(|scheduled| (scheduled.at, scheduled.due))
    }

    /// When the next thing is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|scheduled| scheduled.at)
    }
}

/// The greatest is the earliest, as the heap wants it.
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scheduled {}

/// Numbers of nodes and acts are small.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than four thousand million nodes and acts")
}
