//! The truth about a run, kept beside it: who wrote what, who was told what, and who knew of what.
//!
//! The oracle sees the same requests and messages as the nodes and draws its conclusions in the most
//! naive way: what a node shows is the greatest of what reached it, and what a writer knew of a key
//! is the explicit set of all writes to it that had come together at its node, each with all that
//! its own writer knew. No version vectors, no compression, no deltas: if the protocol's cleverness
//! and this differ, one of the two is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::Fault;
use crate::protocol::cell::{Content, Key, Write};
use crate::protocol::event::Conflict;
use crate::protocol::shard::Shard;
use crate::protocol::stamp::{Dot, Stamp};

/// A set of writes to one key, by their place in the key's history.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Known(Vec<u64>);

/// A write that a client was told of.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) stamp: Stamp,
    pub(super) cells: Vec<CellRecord>,
}

/// What a write did to one key.
#[derive(Debug)]
pub(super) struct CellRecord {
    pub(super) dot: Dot,
    pub(super) key: usize,
    /// The place in the key's history.
    place: usize,
    pub(super) content: Content,
    /// What its writer knew.
    past: Known,
}

/// What a node should be like.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Per key the greatest write that reached it.
    shows: BTreeMap<usize, usize>,
    /// Per key what came together there.
    known: BTreeMap<usize, Known>,
    /// Whether the node has filled itself anew: it holds what others had, without each of their
    /// writes having come.
    refilled: bool,
}

/// The truth. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    numbers: BTreeMap<Key, usize>,
    keys: Vec<Key>,
    /// Per key how many writes it has had.
    lengths: Vec<usize>,
    records: Vec<Record>,
    by_stamp: BTreeMap<Stamp, usize>,
    by_dot: BTreeMap<Dot, (usize, usize)>,
    models: Vec<Model>,
    /// Per key the deletions.
    deletions: BTreeMap<usize, Vec<usize>>,
    /// Keys of which a deletion was collected anywhere.
    collected: BTreeSet<Key>,
    /// Names of cells that belong to the store itself.
    reserved: BTreeSet<Dot>,
    /// Per node what it was like after each frame that its disk has.
    checkpoints: Vec<Vec<(usize, Model)>>,
}

impl Known {
    fn insert(&mut self, place: usize) {
        if self.0.len() <= place / 64 {
            self.0.resize(place / 64 + 1, 0);
        }
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn contains(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn merge(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours |= theirs);
    }
}

impl Oracle {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            models: vec![Model::default(); nodes],
            checkpoints: vec![Vec::new(); nodes],
            ..Self::default()
        }
    }

    /// All keys that were ever named, with their numbers.
    pub(super) fn keys(&self) -> impl Iterator<Item = (usize, &Key)> {
        self.keys.iter().enumerate()
    }

    pub(super) fn key(&self, number: usize) -> &Key {
        &self.keys[number]
    }

    /// The number of a key; new ones get the next.
    pub(super) fn number(&mut self, key: &[u8]) -> usize {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = self.keys.len();
        self.keys.push(Key::from(key));
        self.lengths.push(0);
        self.numbers.insert(Key::from(key), number);
        number
    }

    pub(super) fn record(&self, number: usize) -> &Record {
        &self.records[number]
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The cell of this name, and the stamp of its write.
    pub(super) fn find(&self, dot: Dot) -> Option<(Stamp, &CellRecord)> {
        let (record, cell) = self.by_dot.get(&dot)?;
        let record = &self.records[*record];
        record.cells.get(*cell).map(|cell| (record.stamp, cell))
    }

    /// The write that a node should show for a key, and its cell.
    pub(super) fn shown(&self, node: usize, key: usize) -> Option<(&Record, &CellRecord)> {
        let record = &self.records[*self.models[node].shows.get(&key)?];
        record.cell(key).map(|cell| (record, cell))
    }

    /// A cell of this name belongs to the store itself.
    pub(super) fn reserve(&mut self, dot: Dot) {
        self.reserved.insert(dot);
    }

    /// A write that ends with this dot is none that is looked at; nor are those right before it that
    /// nobody has heard of yet.
    pub(super) fn leave_out(&mut self, last: Dot) {
        let known = |dot: &Dot| self.by_dot.contains_key(dot) || self.reserved.contains(dot);
        let new = (1..=last.seq).rev().map(|seq| Dot { seq, ..last });
        let new: Vec<_> = new.take_while(|dot| !known(dot)).collect();
        self.reserved.extend(new);
    }

    /// Whether the cell of this name belongs to the store itself.
    pub(super) fn is_reserved(&self, dot: Dot) -> bool {
        self.reserved.contains(&dot)
    }

    /// Whether a node may have nothing of a key in place of a version: a deletion as great as that
    /// was collected there.
    pub(super) fn is_collected(&self, shard: &Shard, key: usize, stamp: Stamp) -> bool {
        self.deletions(key).any(|(at, cell)| at >= stamp && shard.horizon().contains(cell.dot))
    }

    /// Whether something less than an acknowledged deletion may show: nothing, or, once the deletion
    /// was collected, what its writer did not know of.
    pub(super) fn may_pass(&self, key: usize, deleted: Stamp, shown: Option<Stamp>) -> bool {
        let mut deletions = self.deletions(key).filter(|(at, _)| *at == deleted);
        let Some((_, deletion)) = deletions.next() else { return false };
        let Some(shown) = shown.and_then(|shown| self.by_stamp(shown)) else {
            return shown.is_none();
        };
        self.was_collected(&self.keys[key])
            && self.records[shown].cell(key).is_some_and(|shown| !deletion.knew(shown))
    }

    /// A node has collected deletions.
    pub(super) fn collect(&mut self, shard: &Shard) {
        for (key, deletions) in &self.deletions {
            let mut cells = deletions.iter().filter_map(|number| self.records[*number].cell(*key));
            if cells.any(|cell| shard.horizon().contains(cell.dot)) {
                self.collected.insert(self.keys[*key].clone());
            }
        }
    }

    /// Whether a deletion of a key was ever collected anywhere.
    pub(super) fn was_collected(&self, key: &Key) -> bool {
        self.collected.contains(key)
    }

    /// The deletions of a key.
    pub(super) fn deletions(&self, key: usize) -> impl Iterator<Item = (Stamp, &CellRecord)> {
        let deletions = self.deletions.get(&key).into_iter().flatten();
        let records = deletions.map(|number| &self.records[*number]);
        records.filter_map(move |record| Some((record.stamp, record.cell(key)?)))
    }

    /// Whether the message that a node gets with this dot is passed over because of what it was
    /// filled with.
    pub(super) fn is_passed_over(&self, node: usize, shard: &Shard, dot: Dot) -> bool {
        self.models[node].refilled && shard.vector().contains(dot)
    }

    /// A node has put away what it had, but for what it still shows.
    pub(super) fn put_away(&mut self, node: usize, shard: &Shard) {
        self.models[node] = Model { refilled: true, ..Model::default() };
        let reader = shard.reader();
        for key in 0..self.keys.len() {
            let Some((stamp, _)) = reader.stamp(&self.keys[key]) else { continue };
            let Some(number) = self.by_stamp(stamp) else { continue };
            self.reach(node, number, key, true);
        }
    }

    /// A node has made a write, or what is left of it, anew; `last` is the dot of its last cell.
    pub(super) fn rewritten(
        &mut self,
        node: usize,
        of: Stamp,
        (stamp, last): (Stamp, Dot),
        keys: &[Key],
    ) -> Result<Vec<Conflict>, Fault> {
        let unknown = || Fault::at(node, "invented", format!("made {of} anew, which nobody wrote"));
        let old = self.by_stamp(of).ok_or_else(unknown)?;
        let number = self.records.len();
        let first = (last.seq + 1).saturating_sub(keys.len() as u64);
        let mut record = Record { stamp, cells: Vec::new() };
        for (at, key) in keys.iter().enumerate() {
            let key = *self.numbers.get(key).ok_or_else(unknown)?;
            let cell = self.records[old].cell(key).ok_or_else(unknown)?;
            let mut past = cell.past.clone();
            past.insert(cell.place);
            let content = cell.content.clone();
            let place = self.lengths[key];
            self.lengths[key] += 1;
            let dot = Dot { origin: last.origin, seq: first + at as u64 };
            if self.by_dot.insert(dot, (number, at)).is_some() {
                return Err(Fault::at(node, "dots", format!("{dot} was given to two cells")));
            }
            if content == Content::Tombstone {
                self.deletions.entry(key).or_default().push(number);
            }
            record.cells.push(CellRecord { dot, key, place, content, past });
        }
        if self.by_stamp.insert(stamp, number).is_some() {
            return Err(Fault::at(node, "dots", format!("{stamp} was given to two writes")));
        }
        let keys: Vec<_> = record.cells.iter().map(|cell| cell.key).collect();
        self.records.push(record);
        Ok(keys.into_iter().filter_map(|key| self.reach(node, number, key, true)).collect())
    }

    /// A node's disk has `frames` now: this is what they stand for.
    pub(super) fn checkpoint(&mut self, node: usize, frames: usize) {
        let checkpoints = &mut self.checkpoints[node];
        if checkpoints.last().is_none_or(|(before, _)| *before < frames) {
            checkpoints.push((frames, self.models[node].clone()));
        }
    }

    /// A node has died and lost all but the first `frames` of its disk.
    pub(super) fn lose(&mut self, node: usize, frames: usize) {
        let checkpoints = &mut self.checkpoints[node];
        checkpoints.retain(|(after, _)| *after <= frames);
        self.models[node] = checkpoints.last().map_or_else(Model::default, |last| last.1.clone());
    }

    /// A client was told that its write was done; `last` is the dot of its last cell.
    pub(super) fn written(
        &mut self,
        node: usize,
        (stamp, last): (Stamp, Dot),
        cells: Vec<(usize, Content)>,
    ) -> Result<(), Fault> {
        let number = self.records.len();
        let first = (last.seq + 1).saturating_sub(cells.len() as u64);
        let mut record = Record { stamp, cells: Vec::new() };
        for (at, (key, content)) in cells.into_iter().enumerate() {
            let dot = Dot { origin: last.origin, seq: first + at as u64 };
            if dot.seq == 0 || self.by_dot.insert(dot, (number, at)).is_some() {
                return Err(Fault::at(node, "dots", format!("{dot} was given to two cells")));
            }
            let place = self.lengths[key];
            self.lengths[key] += 1;
            let past = self.models[node].known.get(&key).cloned().unwrap_or_default();
            if content == Content::Tombstone {
                self.deletions.entry(key).or_default().push(number);
            }
            record.cells.push(CellRecord { dot, key, place, content, past });
        }
        if self.by_stamp.insert(stamp, number).is_some() {
            return Err(Fault::at(node, "dots", format!("{stamp} was given to two writes")));
        }
        let keys: Vec<_> = record.cells.iter().map(|cell| cell.key).collect();
        self.records.push(record);
        for key in keys {
            if let Some((shown, _)) = self.shown(node, key)
                && shown.stamp >= stamp
            {
                let text = format!("a new write got {stamp}, not above {} shown", shown.stamp);
                return Err(Fault::at(node, "order", text));
            }
            self.reach(node, number, key, true);
        }
        Ok(())
    }

    /// The write with this stamp.
    pub(super) fn by_stamp(&self, stamp: Stamp) -> Option<usize> {
        self.by_stamp.get(&stamp).copied()
    }

    /// The write of the record that a message's write claims to be, or to be a part of.
    pub(super) fn recognise(&self, node: usize, write: &Write) -> Result<usize, Fault> {
        let invented = |what: String| Fault::at(node, "invented", what);
        let stamp = write.stamp;
        let Some(number) = self.by_stamp(stamp) else {
            return Err(invented(format!("{stamp} reached it, which nobody wrote")));
        };
        for (seq, cell) in (write.seq..).zip(&write.cells) {
            let key = self.numbers.get(&cell.key);
            let written = key.and_then(|key| self.records[number].cell(*key));
            let Some(written) = written.filter(|_| cell.field.is_whole_key()) else {
                return Err(invented(format!("{stamp} came with {:?}, not written", cell.key)));
            };
            let dot = Dot { origin: stamp.origin, seq };
            if written.dot != dot {
                let text = format!("{stamp} came as {dot}, written as {}", written.dot);
                return Err(invented(text));
            }
            if written.content != cell.content {
                let (is, was) = (&cell.content, &written.content);
                let text = format!("{stamp} came with {:?} = {is:?}, written {was:?}", cell.key);
                return Err(invented(text));
            }
        }
        Ok(number)
    }

    /// Whether anything greater than `stamp` was ever written to a key.
    pub(super) fn is_superseded(&self, key: usize, stamp: Stamp) -> bool {
        let above = (Bound::Excluded(stamp), Bound::Unbounded);
        let mut later = self.by_stamp.range(above).map(|(_, number)| &self.records[*number]);
        later.any(|record| record.cell(key).is_some())
    }

    /// A cell of a write has reached a node. If it `meets` what is there (and is not passed over as
    /// known already), the conflict that this is to reveal.
    pub(super) fn reach(
        &mut self,
        node: usize,
        number: usize,
        key: usize,
        meets: bool,
    ) -> Option<Conflict> {
        let conflict = if meets { self.conflict(node, number, key) } else { None };
        let new = &self.records[number];
        let cell = new.cell(key)?;
        let model = &mut self.models[node];
        let shows = model.shows.entry(key).or_insert(number);
        if self.records[*shows].stamp < new.stamp {
            *shows = number;
        }
        if meets {
            let known = model.known.entry(key).or_default();
            known.merge(&cell.past);
            known.insert(cell.place);
        }
        conflict
    }

    fn conflict(&self, node: usize, number: usize, key: usize) -> Option<Conflict> {
        let new = &self.records[number];
        let (old, old_cell) = self.shown(node, key)?;
        let new_cell = new.cell(key)?;
        let knew = old_cell.past.contains(new_cell.place) || new_cell.past.contains(old_cell.place);
        if old.stamp == new.stamp || knew {
            return None;
        }
        let (winner, loser) = (old.stamp.max(new.stamp), old.stamp.min(new.stamp));
        Some(Conflict { key: self.keys[key].clone(), winner, loser })
    }
}

impl CellRecord {
    /// Whether its writer knew of another write to the key.
    pub(super) fn knew(&self, other: &Self) -> bool {
        self.past.contains(other.place)
    }
}

impl Record {
    /// What it did to a key.
    pub(super) fn cell(&self, key: usize) -> Option<&CellRecord> {
        self.cells.iter().find(|cell| cell.key == key)
    }
}
