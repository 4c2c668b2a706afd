//! Deltas: the cells that the other side lacks, sent in chunks, without losing any on the way.
//!
//! # The hole to avoid
//! A node no longer holds a write whose every cell was replaced, perhaps by another origin's write.
//! Suppose it marked such a dot as seen at a peer to which the replacing cell never came, and then
//! died: the peer would believe to hold what it does not, and no vector would show it. So:
//!
//! 1. a chunk marks only the dots that it carries;
//! 2. the sender's vector, captured when the exchange began, is merged by the receiver after every
//!    chunk has arrived, and not before;
//! 3. for every cell that was live at the capture, the exchange carries that cell or whatever
//!    replaced it meanwhile. [`Outgoing::displaced`] sees to that: it is told of every cell that is
//!    replaced while the exchange runs, and puts the key on the list of what to send at the end.
//!
//! A broken exchange merges nothing; the writes that it brought stay.
//!
//! Chunks flow against credit, [`CREDIT_CHUNKS`] ahead, so an exchange holds little memory at either
//! end and in between, and a slow receiver slows only its own.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::Write;
use super::id::{NodeId, Origin};
use super::message::RoundId;
use super::stamp::Dot;
use super::store::{Slot, Store};
use super::time::Time;
use super::version::{Intervals, VersionVector};

/// How many chunks may be under way: enough to fill a link while credit returns.
pub const CREDIT_CHUNKS: u32 = 4;

/// How many deltas a shard sends at once, and how many it receives: more only compete.
pub const EXCHANGES_MAX: usize = 8;

/// How many keys may be replaced behind an exchange's back before it is given up.
///
/// Reached when a bulk transfer runs much slower than writes come; the next one has less to send.
const DISPLACED_MAX: usize = 1 << 20;

/// How long an exchange waits for the other side before it is given up: longer than any link worth
/// using takes for a chunk.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A part of a delta.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// The number of this part within the exchange, from 0.
    pub number: u32,
    /// What is left of each write.
    pub writes: Vec<Write>,
    /// With the last part: what the sender held when the exchange began.
    pub captured: Option<VersionVector>,
}

/// The sending end of an exchange.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The round that it belongs to.
    pub(super) round: RoundId,
    /// When it is given up unless credit arrives.
    pub(super) deadline: Time,
    captured: VersionVector,
    /// What is still to be walked through: ranges of dots that the receiver lacks.
    ranges: VecDeque<(Origin, u64, u64)>,
    /// Keys of which a cell was replaced before the walk came to it.
    displaced: BTreeSet<Slot>,
    /// Writes that the walk over `displaced` found.
    pending: BTreeSet<Dot>,
    next_number: u32,
    credit: u32,
    overrun: bool,
}

/// The receiving end of an exchange.
#[derive(Debug)]
pub(super) struct Incoming {
    /// The round that it belongs to.
    pub(super) round: RoundId,
    /// When it is given up unless a chunk arrives.
    pub(super) deadline: Time,
    /// How many writes it brought that were missing.
    pub(super) writes: usize,
    /// Numbers of the chunks applied, plus one.
    arrived: Intervals,
    /// How many chunks there are, once known, and the sender's vector.
    end: Option<(u64, VersionVector)>,
}

/// The exchanges of a shard that are under way, with the peer at the other end.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pub(super) outgoing: Vec<(NodeId, Outgoing)>,
    /// The oldest first.
    pub(super) incoming: Vec<(NodeId, Incoming)>,
}

impl Exchanges {
    /// When the first is to be given up.
    pub(super) fn deadline(&self) -> Option<Time> {
        let outgoing = self.outgoing.iter().map(|(_, exchange)| exchange.deadline);
        outgoing.chain(self.incoming.iter().map(|(_, delta)| delta.deadline)).min()
    }

    /// Where the exchange of `round` with `peer` stands among the outgoing ones.
    pub(super) fn position(&self, peer: NodeId, round: RoundId) -> Option<usize> {
        self.outgoing.iter().position(|(to, exchange)| *to == peer && exchange.round == round)
    }

    /// Tells the outgoing ones which cells are being replaced.
    pub(super) fn displaced(&mut self, displaced: &[(Dot, Slot)]) {
        for (_, exchange) in &mut self.outgoing {
            displaced.iter().for_each(|(dot, slot)| exchange.displaced(*dot, *slot));
        }
    }

    /// Removes those that `hopeless` points out by peer and deadline.
    pub(super) fn remove(
        &mut self,
        hopeless: impl Fn(NodeId, Time) -> bool,
    ) -> Vec<(NodeId, RoundId)> {
        let outgoing = self.outgoing.extract_if(.., |(to, one)| hopeless(*to, one.deadline));
        let mut removed: Vec<_> = outgoing.map(|(peer, one)| (peer, one.round)).collect();
        let incoming = self.incoming.extract_if(.., |(from, one)| hopeless(*from, one.deadline));
        removed.extend(incoming.map(|(peer, one)| (peer, one.round)));
        removed
    }
}

impl Outgoing {
    /// An exchange that brings a peer, which holds `theirs`, all that `ours` has more; `None` if
    /// that is nothing.
    pub(super) fn new(
        round: RoundId,
        ours: &VersionVector,
        theirs: &VersionVector,
        deadline: Time,
    ) -> Option<Self> {
        let lacking = ours.minus(theirs);
        let ranges: VecDeque<_> = lacking
            .into_iter()
            .flat_map(|(origin, ranges)| {
                ranges.into_iter().map(move |(first, last)| (origin, first, last))
            })
            .collect();
        (!ranges.is_empty()).then(|| Self {
            round,
            deadline,
            captured: ours.clone(),
            ranges,
            displaced: BTreeSet::new(),
            pending: BTreeSet::new(),
            next_number: 0,
            credit: CREDIT_CHUNKS,
            overrun: false,
        })
    }

    /// Takes note that the cell of `slot` with `dot` is being replaced.
    pub(super) fn displaced(&mut self, dot: Dot, slot: Slot) {
        // The ranges are in the order of the dots.
        let at = self.ranges.partition_point(|range| (range.0, range.2) < (dot.origin, dot.seq));
        let ahead = self
            .ranges
            .get(at)
            .is_some_and(|&(origin, first, _)| origin == dot.origin && first <= dot.seq);
        if ahead || self.pending.contains(&dot) {
            self.displaced.insert(slot);
            self.overrun |= self.displaced.len() > DISPLACED_MAX;
        }
    }

    /// Lets one more chunk go.
    pub(super) fn add_credit(&mut self, deadline: Time) {
        self.credit = (self.credit + 1).min(CREDIT_CHUNKS);
        self.deadline = deadline;
    }

    /// Whether it cannot be finished.
    pub(super) fn is_overrun(&self) -> bool {
        self.overrun
    }

    /// The next chunk of about `bytes_max` bytes, if there is credit.
    ///
    /// The one with `captured` is the last, after which the exchange is over.
    pub(super) fn next_chunk(&mut self, store: &Store, bytes_max: usize) -> Option<Chunk> {
        self.credit = self.credit.checked_sub(1)?;
        let mut writes = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(write) = self.next_write(store) else { break };
            bytes += write.bytes();
            writes.push(write);
        }
        let number = self.next_number;
        self.next_number += 1;
        let is_last =
            self.ranges.is_empty() && self.pending.is_empty() && self.displaced.is_empty();
        let captured = is_last.then(|| std::mem::take(&mut self.captured));
        Some(Chunk { number, writes, captured })
    }

    fn next_write(&mut self, store: &Store) -> Option<Write> {
        while let Some((origin, first, last)) = self.ranges.pop_front() {
            let Some(seq) = store.next_seq(origin, first, last) else { continue };
            if seq < last {
                self.ranges.push_front((origin, seq + 1, last));
            }
            return store.write(Dot { origin, seq });
        }
        loop {
            while let Some(dot) = self.pending.pop_first() {
                // Replaced since it was listed: its key is on the list of displaced ones again.
                if let Some(write) = store.write(dot) {
                    return Some(write);
                }
            }
            let slot = self.displaced.pop_first()?;
            self.pending.extend(store.dots(slot));
        }
    }
}

impl Incoming {
    /// The receiving end of an exchange of which a first chunk has come.
    pub(super) fn new(round: RoundId, deadline: Time) -> Self {
        Self { round, deadline, writes: 0, arrived: Intervals::default(), end: None }
    }

    /// Takes note that the chunk `number` was applied; the sender's vector once all were.
    pub(super) fn applied(
        &mut self,
        number: u32,
        captured: Option<VersionVector>,
        deadline: Time,
    ) -> Option<VersionVector> {
        self.deadline = deadline;
        self.arrived.insert(u64::from(number) + 1);
        if let Some(captured) = captured {
            self.end = Some((u64::from(number) + 1, captured));
        }
        let complete = self.end.as_ref().is_some_and(|(count, _)| self.arrived.dense() >= *count);
        if complete { self.end.take().map(|(_, captured)| captured) } else { None }
    }
}
