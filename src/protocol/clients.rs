//! What clients ask of a shard, and the writes that come of it.
//!
//! In eventual mode a request is answered at once: its write is stamped above everything seen here,
//! recorded, pushed and applied. In strong mode `strong` takes requests about keys in first.

use std::collections::BTreeMap;

use super::boundary::{Lane, Output, Reply, Request, Token};
use super::cell::{self, CellWrite, Content, Field, Write};
use super::event::Distrust;
use super::message::{Message, RoundId};
use super::shard::Shard;
use super::stamp::{Dot, Lamport, Stamp};
use super::time::Time;

/// How many questions to peers may wait for an answer; the oldest is forgotten, and its asker asks
/// again or gives up.
const ASKED_MAX: usize = 4_096;

impl Shard {
    /// Answers a request, or takes it in to be answered later; says whether it did the latter.
    pub(super) fn request(
        &mut self,
        now: Time,
        token: Token,
        request: Request<'_>,
        output: &mut Output,
    ) -> bool {
        let reserved = match request {
            Request::Set { key, .. } => cell::is_reserved(key),
            Request::SetAll(pairs) => pairs.iter().any(|(key, _)| cell::is_reserved(key)),
            Request::Delete(keys) => keys.iter().any(|key| cell::is_reserved(key)),
            _ => false,
        };
        if reserved {
            output.reply.push((token, Reply::Reserved));
            return false;
        }
        if self.defer(now, token, &request, output) {
            return true;
        }
        let reply = match request {
            Request::Operate { operation, moment } => self.operate(now, operation, moment, output),
            Request::Set { key, value } => {
                let cell = self.cell_write(key, Content::from(value));
                self.write(now, vec![cell], 0, output)
            }
            Request::SetAll(pairs) => {
                let last: BTreeMap<_, _> = pairs.iter().copied().collect();
                let cells = last.into_iter();
                let cells = cells.map(|(key, value)| self.cell_write(key, value.into()));
                let cells = cells.collect();
                self.write(now, cells, 0, output)
            }
            Request::Delete(keys) => {
                let (reader, wall) = (self.store.reader(), self.judged_at(self.wall()));
                let mut found: Vec<_> =
                    keys.iter().copied().filter(|key| reader.contains(key, wall)).collect();
                found.sort_unstable();
                found.dedup();
                let tombstone = |key: &&[u8]| self.cell_write(key, Content::Tombstone);
                let cells: Vec<_> = found.iter().map(tombstone).collect();
                let changed = cells.len();
                self.write(now, cells, changed, output)
            }
            Request::Retire { node } => self.retire(now, node, output),
            Request::Leave => {
                self.leaving = true;
                self.enroll_self(now, output)
            }
            Request::Stay => self.stay(now, output),
            Request::Rebuild => {
                self.rebuild(now, Distrust::Asked, output);
                if self.fill.is_some() { Reply::Begun } else { Reply::Nothing }
            }
            Request::Ask { peer, dot } => {
                let round = RoundId(self.rng.u64(..));
                if self.asked.len() == ASKED_MAX {
                    self.asked.pop_front();
                }
                self.asked.push_back((round, token, peer));
                self.sender().send(peer, Lane::Push, Message::Ask { round, dot }, output);
                return false;
            }
            Request::Switch(order) => {
                self.wish(now, token, order, output);
                return false;
            }
        };
        output.reply.push((token, reply));
        false
    }

    pub(super) fn cell_write(&self, key: &[u8], content: Content) -> CellWrite {
        let field = Field::whole_key();
        let (key, seen) = self.store.prepare(key, &field, self.config.origin);
        CellWrite { key, field, content, seen }
    }

    /// Makes one write of a client, unless it asks too much.
    pub(super) fn write(
        &mut self,
        now: Time,
        cells: Vec<CellWrite>,
        changed: usize,
        output: &mut Output,
    ) -> Reply {
        if cells.is_empty() {
            return Reply::Nothing;
        }
        let Some(write) = self.stamped(cells) else { return Reply::Exhausted };
        // Whatever is wrong with it, peers would not take it from us.
        if !write.is_well_formed() || !self.takes(&write) {
            return Reply::TooLarge;
        }
        if self.is_full() && write.cells.iter().any(|cell| cell.content != Content::Tombstone) {
            return Reply::OutOfMemory;
        }
        let (stamp, dot) = self.make(now, write, output);
        Reply::Written { stamp, dot, changed }
    }

    /// Makes a write that nobody asks for anew: whatever a client may do now, this has been accepted
    /// before, or is the node's own. Answers its stamp and last dot; `None` if the counters are
    /// exhausted.
    ///
    /// # Panics
    /// If peers would not take it: only what they would has ever been accepted.
    pub(super) fn write_own(
        &mut self,
        now: Time,
        cells: Vec<CellWrite>,
        output: &mut Output,
    ) -> Option<(Stamp, Dot)> {
        let write = self.stamped(cells)?;
        assert!(write.is_well_formed(), "a write of this node's own is not well formed");
        Some(self.make(now, write, output))
    }

    /// The next write of this node; `None` if the counters are exhausted.
    fn stamped(&self, cells: Vec<CellWrite>) -> Option<Write> {
        let count = cells.len() as u64;
        let lamport = self.lamport.after(count)?;
        self.seq.checked_add(count)?;
        let stamp = Stamp { epoch: self.epoch, lamport, origin: self.config.origin };
        Some(Write::new(stamp, self.seq + 1, cells))
    }

    /// Applies a write of this node, records and pushes it.
    fn make(&mut self, now: Time, write: Write, output: &mut Output) -> (Stamp, Dot) {
        let (stamp, dot) = (write.stamp, write.last_dot());
        let lamport = stamp.lamport;
        self.lamport = lamport;
        self.seq = dot.seq;
        if self.keeps_records() {
            self.recording.reserve(lamport, &mut output.append);
            output.append.awaited = true;
        }
        output.unsaid.get_or_insert(write.seq);
        self.counters.writes_local += 1;
        if self.config.eager {
            self.push(now, &write, output);
        }
        if let Some(fill) = &mut self.fill {
            fill.keep(&write);
        }
        self.merge(write, output);
        (stamp, dot)
    }

    /// Brings the counter to at least this, so that the next write has a greater one.
    pub(super) fn reach(&mut self, lamport: Lamport) {
        self.lamport = self.lamport.max(lamport);
    }

    fn takes(&self, write: &Write) -> bool {
        let values = write.cells.iter().filter_map(|cell| cell.content.value());
        values
            .max_by_key(|value| value.len())
            .is_none_or(|it| it.len() <= self.config.value_bytes_max)
    }

    /// Lets the cells take so much memory, or as much as there is, before clients' writes are refused.
    pub fn limit_memory(&mut self, bytes_max: Option<usize>) {
        self.config.memory_bytes_max = bytes_max;
    }

    /// Whether the cells take as much memory as they may. What peers wrote is taken all the same:
    /// else this node would never agree with them again.
    pub fn is_full(&self) -> bool {
        self.config.memory_bytes_max.is_some_and(|most| self.store.memory_bytes() >= most)
    }
}
