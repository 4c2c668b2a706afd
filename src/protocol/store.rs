//! The cells of one shard, with the indexes that find them by name and by dot.
//!
//! The shard is the only writer. Anybody may hold a [`Reader`], which answers reads from the same
//! concurrent map without entering the shard. Nobody iterates that map, whose order is random:
//! whatever needs an order has an index. Keys get a number when they first appear (their *slot*),
//! which makes the scan cursor and keeps the dot index to 16 bytes per cell.
//!
//! What must stay true:
//! - a cell with a field is kept only while its stamp is above that of its key's whole-key cell;
//! - the dot index names exactly the cells that are kept, tombstones included;
//! - the fingerprint is the sum of the hashes of the live cells, so it depends on which cells are
//!   live and not on the order in which they came.
//!
//! Left out: collecting tombstones, which needs to know what every member has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::cell::{CellWrite, Content, Field, Key, Seen, Write};
use super::id::Origin;
use super::stamp::{Dot, Epoch, Lamport, Stamp};

/// A hash of all live cells of a shard that does not depend on the order of their arrival.
///
/// The sum modulo 2¹²⁸ of one XXH3 hash per cell. It finds damage, not malice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint(u128);

/// The number of a key, given when it first appears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot(u32);

/// What became of one cell of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is now what the cell holds.
    Won {
        /// Versions that it replaced although its writer had not seen them.
        lost: Vec<Stamp>,
    },
    /// A greater version stood already.
    Lost {
        /// The winner, where it was written without having seen this one.
        concurrent_with: Option<Stamp>,
    },
    /// This very version stood already.
    Known,
}

/// A version of a cell as the store keeps it: the parts of [`Stamp`] and [`Dot`], packed.
struct Cell {
    lamport: Lamport,
    origin: Origin,
    seq: u64,
    epoch: Epoch,
    content: Content,
    /// What its writer had seen.
    seen: Seen,
    /// What this node has merged beyond that: losers, which the next write here will have seen.
    known: Seen,
}

/// All that is kept of one key. The whole-key cell stands apart because most keys have no other.
struct Entry {
    slot: Slot,
    whole: Option<Cell>,
    #[allow(clippy::box_collection, reason = "one word in every key instead of three")]
    fields: Option<Box<BTreeMap<Field, Cell>>>,
}

type Map = DashMap<Key, Box<Entry>, foldhash::fast::FixedState>;

/// The cells of one shard. See the module's documentation.
pub struct Store {
    map: Arc<Map>,
    /// The key of each slot.
    keys: Vec<Key>,
    /// Where the cells of each write are, in the order of the dots.
    index: BTreeMap<Origin, BTreeSet<(u64, Slot)>>,
    fingerprint: Fingerprint,
    keys_live: usize,
    cells: usize,
    bytes: usize,
    /// The dots that the last merge displaced, kept to spare an allocation per write.
    displaced: Vec<(Dot, Slot)>,
}

/// Answers reads from a shard's cells without entering the shard; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    map: Arc<Map>,
}

impl Reader {
    /// Hands the string at `key` to `read`, or `None` if there is none.
    ///
    /// `read` runs while part of the map is locked: it copies the bytes and returns, and must not
    /// come back to the store.
    pub fn string<T>(&self, key: &[u8], read: impl FnOnce(Option<&[u8]>) -> T) -> T {
        match self.map.get(key) {
            Some(entry) => read(entry.string()),
            None => read(None),
        }
    }

    /// Whether `key` shows anything.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.map.get(key).is_some_and(|entry| entry.is_live())
    }

    /// The stamp of the string or tombstone at `key`, and whether it is a string.
    pub fn stamp(&self, key: &[u8]) -> Option<(Stamp, bool)> {
        let entry = self.map.get(key)?;
        entry.whole.as_ref().map(|cell| (cell.stamp(), cell.content.value().is_some()))
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store; `hash_seed` guards its map against chosen keys and changes nothing visible.
    pub fn new(hash_seed: u64) -> Self {
        Self {
            map: Arc::new(Map::with_hasher(foldhash::fast::FixedState::with_seed(hash_seed))),
            keys: Vec::new(),
            index: BTreeMap::new(),
            fingerprint: Fingerprint::default(),
            keys_live: 0,
            cells: 0,
            bytes: 0,
            displaced: Vec::new(),
        }
    }

    /// Answers reads from the same cells.
    pub fn reader(&self) -> Reader {
        Reader { map: Arc::clone(&self.map) }
    }

    /// The hash of all live cells.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// How many keys show something.
    pub fn keys_live(&self) -> usize {
        self.keys_live
    }

    /// How many cells are kept, tombstones included.
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// Bytes of the keys and values of all cells kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a writer here would have seen of a cell.
    pub fn seen(&self, key: &[u8], field: &Field, origin: Origin) -> Seen {
        let Some(entry) = self.map.get(key) else { return Seen::default() };
        let Some(cell) = entry.cell(field) else { return Seen::default() };
        let mut seen = cell.seen.clone();
        seen.merge(&cell.known);
        if cell.origin != origin {
            seen.insert(cell.dot());
        }
        // Its own earlier writes go without saying.
        seen.forget(Dot { origin, seq: 0 }, &Seen::default());
        seen
    }

    /// Merges one cell of a write that has `stamp` and is the `seq`-th of its origin.
    ///
    /// What it displaces is to be had from [`Store::displaced`] until the next merge.
    pub fn merge(&mut self, stamp: Stamp, seq: u64, cell: CellWrite) -> Merged {
        self.displaced.clear();
        let CellWrite { key, field, content, seen } = cell;
        let new = Cell {
            lamport: stamp.lamport,
            origin: stamp.origin,
            epoch: stamp.epoch,
            seq,
            content,
            seen,
            known: Seen::default(),
        };
        // Clones of `Arc`s end here, so that the guard does not outlive the function.
        let map = Arc::clone(&self.map);
        let mut guard = match map.get_mut(&*key) {
            Some(guard) => guard,
            None => {
                let slot = Slot(u32::try_from(self.keys.len()).expect("4 billion keys in a shard"));
                self.keys.push(key.clone());
                let entry = Box::new(Entry { slot, whole: None, fields: None });
                map.entry(key.clone()).or_insert(entry)
            }
        };
        let entry: &mut Entry = &mut guard;
        let was_live = entry.is_live();
        let merged = self.merge_into(entry, &key, field, new);
        let is_live = entry.is_live();
        self.keys_live = self.keys_live + usize::from(is_live) - usize::from(was_live);
        merged
    }

    /// The dots whose cells the last merge replaced or covered.
    pub(super) fn displaced(&self) -> &[(Dot, Slot)] {
        &self.displaced
    }

    fn merge_into(&mut self, entry: &mut Entry, key: &Key, field: Field, mut new: Cell) -> Merged {
        // A cell is up against its own earlier version and, with a field, the whole key's.
        let whole = entry.whole.as_mut();
        let own = if field.is_whole_key() {
            whole
        } else {
            if let Some(whole) = whole
                && whole.stamp() > new.stamp()
            {
                let concurrent_with = whole.absorb_loser(&new);
                return Merged::Lost { concurrent_with };
            }
            entry.fields.as_mut().and_then(|fields| fields.get_mut(&field))
        };
        if let Some(old) = own {
            if old.stamp() == new.stamp() {
                return Merged::Known;
            }
            if old.stamp() > new.stamp() {
                let concurrent_with = old.absorb_loser(&new);
                return Merged::Lost { concurrent_with };
            }
        }
        let mut lost = Vec::new();
        if field.is_whole_key() {
            let fields = entry.fields.iter().flat_map(|fields| fields.iter());
            let covered = fields.filter(|(_, cell)| cell.stamp() < new.stamp());
            let covered: Vec<Field> = covered.map(|(field, _)| field.clone()).collect();
            for field in covered {
                let cell = entry.fields.as_mut().and_then(|fields| fields.remove(&field));
                if let Some(cell) = cell {
                    self.displace(entry.slot, key, &field, cell, &mut new, &mut lost);
                }
            }
            if entry.fields.as_ref().is_some_and(|fields| fields.is_empty()) {
                entry.fields = None;
            }
            if let Some(old) = entry.whole.take() {
                self.displace(entry.slot, key, &field, old, &mut new, &mut lost);
            }
        } else if let Some(old) = entry.fields.as_mut().and_then(|fields| fields.remove(&field)) {
            self.displace(entry.slot, key, &field, old, &mut new, &mut lost);
        }
        self.account(key, &field, &new);
        self.index.entry(new.origin).or_default().insert((new.seq, entry.slot));
        if field.is_whole_key() {
            entry.whole = Some(new);
        } else {
            entry.fields.get_or_insert_default().insert(field, new);
        }
        Merged::Won { lost }
    }

    /// Takes `old` out of the books; `new` remembers what it replaced.
    fn displace(
        &mut self,
        slot: Slot,
        key: &Key,
        field: &Field,
        old: Cell,
        new: &mut Cell,
        lost: &mut Vec<Stamp>,
    ) {
        if !new.has_seen(&old) {
            lost.push(old.stamp());
        }
        if let Some(cells) = self.index.get_mut(&old.origin) {
            cells.remove(&(old.seq, slot));
            if cells.is_empty() {
                self.index.remove(&old.origin);
            }
        }
        if let Content::Value(value) = &old.content {
            self.fingerprint.remove(hash_cell(key, field, &old, value));
        }
        self.cells -= 1;
        self.bytes -= bytes_of(key, field, &old);
        self.displaced.push((old.dot(), slot));
        new.absorb(&old);
    }

    fn account(&mut self, key: &Key, field: &Field, new: &Cell) {
        if let Content::Value(value) = &new.content {
            self.fingerprint.add(hash_cell(key, field, new, value));
        }
        self.cells += 1;
        self.bytes += bytes_of(key, field, new);
    }

    /// The first dot at or after `from` of `origin` that a kept cell has, up to `last`.
    pub(super) fn next_seq(&self, origin: Origin, from: u64, last: u64) -> Option<u64> {
        let cells = self.index.get(&origin)?;
        cells.range((from, Slot(0))..=(last, Slot(u32::MAX))).next().map(|(seq, _)| *seq)
    }

    /// What is left of the write named `dot`: its cells that nothing has replaced.
    pub(super) fn write(&self, dot: Dot) -> Option<Write> {
        let slots = self.index.get(&dot.origin)?;
        let mut stamp = None;
        let mut cells = Vec::new();
        for (_, slot) in slots.range((dot.seq, Slot(0))..=(dot.seq, Slot(u32::MAX))) {
            let key = &self.keys[slot.0 as usize];
            let entry = self.map.get(&**key).expect("the index names only keys that are kept");
            for (field, cell) in entry.cells().filter(|(_, cell)| cell.dot() == dot) {
                stamp = Some(cell.stamp());
                cells.push(cell.to_write(key.clone(), field.cloned().unwrap_or_default()));
            }
        }
        stamp.map(|stamp| Write { stamp, seq: dot.seq, cells })
    }

    /// The dots of all cells kept of the key in `slot`.
    pub(super) fn dots(&self, slot: Slot) -> Vec<Dot> {
        let key = &self.keys[slot.0 as usize];
        let entry = self.map.get(&**key).expect("a slot's key is kept");
        entry.cells().map(|(_, cell)| cell.dot()).collect()
    }

    /// Hands live keys to `found`, from `cursor` on, looking at no more than `count` keys.
    ///
    /// Returns the cursor to go on with, or 0 at the end. A key that lives through the whole scan
    /// is handed out exactly once.
    pub fn scan(&self, cursor: u64, count: usize, mut found: impl FnMut(&Key)) -> u64 {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX).min(self.keys.len());
        let to = from.saturating_add(count.max(1)).min(self.keys.len());
        for key in &self.keys[from..to] {
            if self.map.get(&**key).is_some_and(|entry| entry.is_live()) {
                found(key);
            }
        }
        if to == self.keys.len() { 0 } else { to as u64 }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("keys_live", &self.keys_live)
            .field("cells", &self.cells)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Entry {
    fn cell(&self, field: &Field) -> Option<&Cell> {
        if field.is_whole_key() { self.whole.as_ref() } else { self.fields.as_ref()?.get(field) }
    }

    fn cells(&self) -> impl Iterator<Item = (Option<&Field>, &Cell)> {
        let fields = self.fields.iter().flat_map(|fields| fields.iter());
        let fields = fields.map(|(field, cell)| (Some(field), cell));
        self.whole.iter().map(|cell| (None, cell)).chain(fields)
    }

    /// The string of this key, unless something later with a field shows instead.
    fn string(&self) -> Option<&[u8]> {
        match &self.fields {
            None => self.whole.as_ref()?.content.value(),
            Some(fields) if fields.values().all(|cell| cell.content.value().is_none()) => {
                self.whole.as_ref()?.content.value()
            }
            Some(_) => None,
        }
    }

    fn is_live(&self) -> bool {
        self.cells().any(|(_, cell)| cell.content.value().is_some())
    }
}

impl Cell {
    fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, lamport: self.lamport, origin: self.origin }
    }

    fn dot(&self) -> Dot {
        Dot { origin: self.origin, seq: self.seq }
    }

    /// Whether the writer of this version had seen `other`.
    fn has_seen(&self, other: &Self) -> bool {
        let own = self.origin == other.origin && self.seq > other.seq;
        own || self.seen.contains(other.dot())
    }

    /// Remembers that this node has seen `other`, which is not what the cell holds.
    fn absorb(&mut self, other: &Self) {
        let (dot, seen) = (self.dot(), std::mem::take(&mut self.seen));
        if self.origin != other.origin && !seen.contains(other.dot()) {
            self.known.insert(other.dot());
        }
        self.known.merge(&other.seen);
        self.known.merge(&other.known);
        self.known.forget(dot, &seen);
        self.seen = seen;
    }

    /// Takes note of a smaller version; the stamp of this one if neither writer had seen the other.
    fn absorb_loser(&mut self, loser: &Self) -> Option<Stamp> {
        let concurrent = !self.has_seen(loser);
        self.absorb(loser);
        concurrent.then(|| self.stamp())
    }

    fn to_write(&self, key: Key, field: Field) -> CellWrite {
        CellWrite { key, field, content: self.content.clone(), seen: self.seen.clone() }
    }
}

fn bytes_of(key: &Key, field: &Field, cell: &Cell) -> usize {
    key.len() + field.as_bytes().len() + cell.content.value().map_or(0, <[u8]>::len)
}

/// The hash of one live cell: the hashes of its three texts and its numbers, hashed together.
fn hash_cell(key: &Key, field: &Field, cell: &Cell, value: &[u8]) -> u128 {
    let numbers = [
        XxHash3_64::oneshot(key),
        XxHash3_64::oneshot(field.as_bytes()),
        XxHash3_64::oneshot(value),
        u64::from(cell.epoch.0),
        cell.lamport.0,
        cell.origin.0,
        cell.seq,
    ];
    let mut bytes = [0; 56];
    for (at, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        at.copy_from_slice(&number.to_le_bytes());
    }
    XxHash3_128::oneshot(&bytes)
}

impl Fingerprint {
    fn add(&mut self, hash: u128) {
        self.0 = self.0.wrapping_add(hash);
    }

    fn remove(&mut self, hash: u128) {
        self.0 = self.0.wrapping_sub(hash);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fingerprint {self}")
    }
}
