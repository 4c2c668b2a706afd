//! Deltas: the cells that the other side lacks, sent in chunks, without losing any on the way.
//!
//! # The hole to avoid
//! A node no longer holds a write whose every cell was replaced, perhaps by another origin's write.
//! Suppose it marked such a dot as seen at a peer to which the replacing cell never came, and then
//! died: the peer would believe to hold what it does not, and no vector would show it. So:
//!
//! 1. a chunk marks only the dots that it carries, and every cell has a dot of its own;
//! 2. the sender's vector, captured when the exchange began, is merged by the receiver after every
//!    chunk has arrived, and not before;
//! 3. for every cell that was live at the capture, the exchange carries that cell or whatever
//!    replaced it meanwhile. `Outgoing::displaced` sees to that: it is told of every cell that is
//!    replaced while the exchange runs, and lists what to send at the end.
//!
//! What then holds at every moment: for every dot that a node has marked, it has that cell or
//! something greater in its place, and it has marked the dot of every cell that it has. So nodes
//! with equal vectors have equal cells.
//!
//! Why a dot per cell and not per write: of a write to two keys whose first cell was replaced, a
//! node passes on the second. With one dot for both, the receiver would mark the first as well,
//! without anything in its place until the exchange is complete, which it may never be.
//!
//! A broken exchange merges nothing; the writes that it brought stay. A vector is merged only after
//! a delta of which all parts belong to one sending, and which answers a digest that this node has
//! sent since it started: an answer to an earlier life leaves out what that one held.
//!
//! Chunks flow against credit, [`CREDIT_CHUNKS`] ahead, so an exchange holds little memory at either
//! end and in between, and a slow receiver slows only its own.

use std::collections::{BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cell::{WRITE_OVERHEAD_BYTES, Write};
use super::digest::DigestHash;
use super::id::{NodeId, Origin};
use super::message::{ExchangeId, RoundId};
use super::stamp::{Dot, Lamport, Stamp};
use super::store::Store;
use super::time::Time;
use super::version::{Intervals, VersionVector};

/// How many chunks may be under way: enough to fill a link while credit returns.
pub const CREDIT_CHUNKS: u32 = 4;

/// How many deltas of several parts a shard sends at once, and how many it receives: more only
/// compete.
pub const EXCHANGES_MAX: usize = 8;

/// How many cells may be waiting that were replaced behind an exchange's back before it is given up.
///
/// Reached when a bulk transfer runs much slower than writes come; the next one has less to send.
const REPLACING_MAX: usize = 1 << 20;

/// How many gaps there may be between the chunks that have arrived: more than come out of order on
/// any link, as no more are under way than [`CREDIT_CHUNKS`] and those doubled on the way.
const GAPS_MAX: usize = 64;

/// How long an exchange waits for the other side before it is given up: longer than any link worth
/// using takes for a chunk.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many rounds are remembered in which a peer was told what this node holds: as many as come
/// within the patience for an exchange, unless they come more than a hundred a second.
const TOLD_MAX: usize = 1_024;

/// How much there is of what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Cells.
    pub cells: u64,
    /// About how many bytes they have, with their names.
    pub bytes: u64,
}

/// How far a delta of several parts has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Who sends it.
    pub from: NodeId,
    /// What has come.
    pub brought: Load,
    /// What the sender expected to send when it began; a hint, and not what is waited for.
    pub expected: Load,
    /// When the first part came.
    pub since: Time,
}

/// A part of a delta.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// The sending that it is a part of.
    pub exchange: ExchangeId,
    /// The hash of the digest that it answers: what the receiver held when it asked.
    pub against: DigestHash,
    /// The number of this part within the exchange, from 0.
    pub number: u32,
    /// What is left of each write; never a part of that.
    #[serde(with = "super::packed")]
    pub writes: Vec<Write>,
    /// With the last part: what the sender held when the exchange began.
    pub captured: Option<Captured>,
    /// With the first part of several: about how much there is in all. Only shown to people.
    pub load: Option<Load>,
}

/// What the sender of a delta was like when the exchange began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Captured {
    /// What it held.
    pub vector: VersionVector,
    /// Its Lamport counter: no number that the vector names is greater.
    pub lamport: Lamport,
    /// Up to where it had collected tombstones, told to a receiver that is filling itself.
    pub horizon: Option<VersionVector>,
}

impl Chunk {
    /// Whether the delta has no other part.
    fn is_only(&self) -> bool {
        self.number == 0 && self.captured.is_some()
    }
}

/// The sending end of an exchange.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The round that it belongs to.
    pub(super) round: RoundId,
    /// When it is given up unless credit arrives.
    pub(super) deadline: Time,
    id: ExchangeId,
    against: DigestHash,
    captured: Option<Captured>,
    /// What is still to be walked through: ranges of dots that the receiver lacks.
    ranges: VecDeque<(Origin, u64, u64)>,
    /// Cells that took the place of others before the walk came to those.
    replacing: BTreeSet<Dot>,
    /// The write of which all cells were put into `replacing`, as it goes into the next part.
    completed: Option<Stamp>,
    next_number: u32,
    credit: u32,
    overrun: bool,
    load: Option<Load>,
    /// Whether the receiver fills itself.
    fills: bool,
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
    brought: Load,
    expected: Option<Load>,
    since: Time,
    id: ExchangeId,
    /// Numbers of the chunks applied, plus one.
    arrived: Intervals,
    /// How many chunks there are, once known, and the sender's vector.
    end: Option<(u64, Captured)>,
}

/// The exchanges of a shard that are under way, with the peer at the other end.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    pub(super) outgoing: Vec<(NodeId, Outgoing)>,
    pub(super) incoming: Vec<(NodeId, Incoming)>,
    /// Rounds in which a peer was told what this node holds, and may answer with a delta.
    told: VecDeque<(NodeId, RoundId, DigestHash)>,
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

    /// Takes note that `peer` is being told what this node holds, by a digest with this hash.
    pub(super) fn tell(&mut self, peer: NodeId, round: RoundId, hash: DigestHash) {
        if self.told.len() == TOLD_MAX {
            self.told.pop_front();
        }
        self.told.push_back((peer, round, hash));
    }

    /// The receiving end of the exchange that a part belongs to, if that is to be followed.
    ///
    /// A first part makes one, once for each time that the peer was told what this node holds. Where
    /// too many are under way the newest is not followed, unless it has only this part: its writes
    /// stay, and its sender gets no credit for more.
    pub(super) fn follow(
        &mut self,
        peer: NodeId,
        round: RoundId,
        chunk: &Chunk,
        now: Time,
    ) -> Option<usize> {
        let id = chunk.exchange;
        let is_it = |(from, one): &(NodeId, Incoming)| *from == peer && one.round == round;
        if let Some(at) = self.incoming.iter().position(is_it) {
            return (self.incoming[at].1.id == id).then_some(at);
        }
        let told = (peer, round, chunk.against);
        let told = self.told.iter().position(|one| *one == told)?;
        self.told.remove(told);
        if self.incoming.len() >= EXCHANGES_MAX && !chunk.is_only() {
            return None;
        }
        self.incoming.push((peer, Incoming::new(round, id, now)));
        Some(self.incoming.len() - 1)
    }

    /// Whether a part would be followed; see [`Exchanges::follow`].
    pub(super) fn would_follow(&self, peer: NodeId, round: RoundId, chunk: &Chunk) -> bool {
        let is_it = |(from, one): &&(NodeId, Incoming)| *from == peer && one.round == round;
        match self.incoming.iter().find(is_it) {
            Some((_, one)) => one.id == chunk.exchange,
            None => self.told.contains(&(peer, round, chunk.against)),
        }
    }

    /// How far the largest delta has come that is being received in several parts.
    pub(super) fn progress(&self) -> Option<Progress> {
        let under_way = self.incoming.iter().filter_map(|(from, delta)| {
            let (brought, since) = (delta.brought, delta.since);
            delta.expected.map(|expected| Progress { from: *from, brought, expected, since })
        });
        under_way.max_by_key(|progress| progress.expected.cells)
    }

    /// Forgets what `peer` was told.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.told.retain(|(told, ..)| *told != peer);
    }

    /// Whether one more delta of several parts may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.len() < EXCHANGES_MAX
    }

    /// Whether somebody who fills itself is being sent anything.
    pub(super) fn fills(&self) -> bool {
        self.outgoing.iter().any(|(_, one)| one.fills)
    }

    /// Whether any of these is still to be sent to somebody.
    pub(super) fn owe(&self, dots: &[Dot]) -> bool {
        self.outgoing.iter().any(|(_, one)| one.owes(dots))
    }

    /// Gives up what still has any of these to send; answers how many that were.
    pub(super) fn give_up_owing(&mut self, dots: &[Dot]) -> u64 {
        self.outgoing.extract_if(.., |(_, one)| one.owes(dots)).count() as u64
    }

    /// Tells the outgoing ones that a write with the dots `by` took the place of `displaced`.
    pub(super) fn displaced(&mut self, displaced: &[Dot], by: RangeInclusive<Dot>) {
        for (_, exchange) in &mut self.outgoing {
            exchange.displaced(displaced, &by);
        }
    }

    /// Forgets what is under way with a peer, in one direction or both, without a word.
    pub(super) fn drop_directions(&mut self, peer: NodeId, incoming: bool, outgoing: bool) {
        if incoming {
            self.incoming.retain(|(from, _)| *from != peer);
        }
        if outgoing {
            self.outgoing.retain(|(to, _)| *to != peer);
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
    /// that is nothing, unless the peer fills itself (and is told the horizon): it waits for the end.
    pub(super) fn new(
        round: RoundId,
        id: ExchangeId,
        ours: Captured,
        theirs: &VersionVector,
        deadline: Time,
    ) -> Option<Self> {
        let lacking = ours.vector.minus(theirs);
        let ranges: VecDeque<_> = lacking
            .into_iter()
            .flat_map(|(origin, ranges)| {
                ranges.into_iter().map(move |(first, last)| (origin, first, last))
            })
            .collect();
        let fills = ours.horizon.is_some();
        (!ranges.is_empty() || fills).then(|| Self {
            round,
            deadline,
            id,
            against: DigestHash::of(theirs),
            captured: Some(ours),
            ranges,
            replacing: BTreeSet::new(),
            completed: None,
            next_number: 0,
            credit: CREDIT_CHUNKS,
            overrun: false,
            load: None,
            fills,
        })
    }

    /// Takes note that the cells `displaced` were replaced by a write with the dots `by`.
    ///
    /// If the receiver was still to get one of them, it gets that write instead.
    pub(super) fn displaced(&mut self, displaced: &[Dot], by: &RangeInclusive<Dot>) {
        let mut owed = false;
        for dot in displaced {
            owed |= self.is_ahead(*dot) | self.replacing.remove(dot);
        }
        if owed {
            let origin = by.start().origin;
            let seqs = by.start().seq..=by.end().seq;
            self.replacing.extend(seqs.map(|seq| Dot { origin, seq }));
            self.overrun |= self.replacing.len() > REPLACING_MAX;
        }
    }

    fn owes(&self, dots: &[Dot]) -> bool {
        dots.iter().any(|dot| self.is_ahead(*dot) || self.replacing.contains(dot))
    }

    /// Whether the walk is still to come to `dot`.
    fn is_ahead(&self, dot: Dot) -> bool {
        // The ranges are in the order of the dots.
        let at = self.ranges.partition_point(|range| (range.0, range.2) < (dot.origin, dot.seq));
        self.ranges.get(at).is_some_and(|range| range.0 == dot.origin && range.1 <= dot.seq)
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
        self.completed = None;
        let mut writes: Vec<Write> = Vec::new();
        let mut bytes = 0;
        while let Some(dot) = self.next_dot(store) {
            let full = bytes >= bytes_max;
            if full && writes.last().map(|write| write.stamp) != store.stamp(dot) {
                break;
            }
            let Some((stamp, cell)) = store.cell(dot) else { break };
            self.pass(dot);
            bytes += cell.bytes();
            match writes.last_mut() {
                Some(write) if write.stamp == stamp && write.next_seq() == Some(dot.seq) => {
                    write.cells.push(cell);
                }
                _ => {
                    writes.push(Write::new(stamp, dot.seq, vec![cell]));
                    bytes += WRITE_OVERHEAD_BYTES;
                }
            }
        }
        let number = self.next_number;
        self.next_number += 1;
        let is_last = self.next_dot(store).is_none();
        let captured = if is_last { self.captured.take() } else { None };
        let load = self.load.filter(|_| number == 0 && !is_last);
        Some(Chunk { exchange: self.id, against: self.against, number, writes, captured, load })
    }

    /// About how much it brings in all: of the dots that the receiver lacks, many may have been
    /// replaced, and then there are fewer cells.
    pub(super) fn estimate(&mut self, store: &Store) {
        let lacking = self.ranges.iter().map(|(_, first, last)| (last - first).saturating_add(1));
        let lacking = lacking.fold(0, u64::saturating_add);
        let (all, bytes) = (store.cells() as u64, store.bytes() as u64);
        let cells = lacking.min(all);
        let bytes = u128::from(bytes) * u128::from(cells) / u128::from(all.max(1));
        self.load = Some(Load { cells, bytes: u64::try_from(bytes).unwrap_or(u64::MAX) });
    }

    /// The next cell to send; passes over what is not kept any more.
    fn next_dot(&mut self, store: &Store) -> Option<Dot> {
        while let Some(&(origin, first, last)) = self.ranges.front() {
            let next = store.next_seq(origin, first);
            match next {
                Some(seq) if seq <= last => return Some(Dot { origin, seq }),
                // Nothing is kept of these ranges any more.
                _ => {
                    while let Some(range) = self.ranges.front()
                        && range.0 == origin
                        && next.is_none_or(|seq| range.2 < seq)
                    {
                        self.ranges.pop_front();
                    }
                }
            }
        }
        while let Some(dot) = self.replacing.first().copied() {
            let Some(stamp) = store.stamp(dot) else {
                self.replacing.remove(&dot);
                continue;
            };
            if self.completed == Some(stamp) {
                return Some(dot);
            }
            // Other cells of the same write may have come by themselves, and be owed to nobody. They
            // go along, so that what is left of a write arrives together.
            self.completed = Some(stamp);
            self.replacing.extend(store.dots_of(stamp, dot));
        }
        None
    }

    /// Goes on behind `dot`, which is being sent.
    fn pass(&mut self, dot: Dot) {
        match self.ranges.front_mut() {
            Some(range) if range.2 > dot.seq => range.1 = dot.seq + 1,
            Some(_) => drop(self.ranges.pop_front()),
            None => drop(self.replacing.remove(&dot)),
        }
    }
}

#[cfg(test)]
impl Outgoing {
    /// Breaks rule 3, to show that it is needed.
    pub(super) fn forget_replacing(&mut self) {
        self.replacing.clear();
    }
}

impl Incoming {
    /// The receiving end of an exchange of which a first chunk has come.
    fn new(round: RoundId, id: ExchangeId, now: Time) -> Self {
        Self {
            round,
            deadline: now + PATIENCE,
            writes: 0,
            brought: Load::default(),
            expected: None,
            since: now,
            id,
            arrived: Intervals::default(),
            end: None,
        }
    }

    /// Takes note of what a part has brought, and of how much it says that there is in all.
    pub(super) fn brought(&mut self, load: Load, expected: Option<Load>) {
        self.brought.cells = self.brought.cells.saturating_add(load.cells);
        self.brought.bytes = self.brought.bytes.saturating_add(load.bytes);
        self.expected = expected.or(self.expected);
    }

    /// Takes note that the chunk `number` was applied; the sender's vector once all were.
    pub(super) fn applied(
        &mut self,
        number: u32,
        captured: Option<Captured>,
        deadline: Time,
    ) -> Option<Captured> {
        self.deadline = deadline;
        if self.arrived.ranges().len() < GAPS_MAX {
            self.arrived.insert(u64::from(number) + 1);
        }
        if let Some(captured) = captured {
            self.end = Some((u64::from(number) + 1, captured));
        }
        let complete = self.end.as_ref().is_some_and(|(count, _)| self.arrived.dense() >= *count);
        if complete { self.end.take().map(|(_, captured)| captured) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::cell::{CellWrite, Content, Field, Seen};
    use crate::protocol::stamp::{Epoch, Lamport};

    fn put(store: &mut Store, (origin, seq): (u64, u64), lamport: u64, key: &str) -> Dot {
        let origin = Origin(origin);
        let (field, content) = (Field::whole_key(), Content::Tombstone);
        let cell = CellWrite { key: key.into(), field, content, seen: Seen::default() };
        store.merge(Stamp { epoch: Epoch(0), lamport: Lamport(lamport), origin }, seq, cell);
        Dot { origin, seq }
    }

    /// A write whose third cell was replaced comes as two pieces. Only the first takes the place of
    /// a cell that the receiver was still to get; the second goes along.
    #[test]
    fn what_is_left_of_a_write_goes_together() {
        let mut store = Store::new(7);
        let mut ours = VersionVector::default();
        for (seq, key) in [(1, "a"), (2, "b")] {
            ours.insert(put(&mut store, (1, seq), seq, key));
        }
        let theirs = VersionVector::default();
        let (round, id) = (RoundId(1), ExchangeId(1));
        let ours = Captured { vector: ours, lamport: Lamport(9), horizon: None };
        let new = Outgoing::new(round, id, ours, &theirs, Time::START);
        let mut exchange = new.unwrap();
        assert_eq!(exchange.next_chunk(&store, 1).unwrap().writes.len(), 1);
        store.forget_displaced();
        for (first, keys) in [(1, ["b", "c"]), (4, ["d", "e"])] {
            let dots: Vec<_> =
                (first..).zip(keys).map(|(seq, key)| put(&mut store, (2, seq), 9, key)).collect();
            exchange.displaced(store.displaced(), &(dots[0]..=dots[1]));
            store.forget_displaced();
        }
        let chunk = exchange.next_chunk(&store, 1).unwrap();
        let sent: Vec<_> =
            chunk.writes.iter().map(|write| (write.seq, write.cells.len())).collect();
        assert_eq!(sent, [(1, 2), (4, 2)]);
        assert!(chunk.captured.is_some(), "and that was all");
    }
}
