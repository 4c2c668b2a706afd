//! The cells of one shard, with the indexes that find them by name and by dot.
//!
//! The shard is the only writer. Anybody may hold a [`Reader`], which answers reads from the same
//! concurrent map without entering the shard. Nobody iterates that map, whose order is random:
//! whatever needs an order has an index. Keys get a number when they first appear (their *slot*),
//! which makes the scan cursor and keeps the index of dots (`index`) small.
//!
//! What must stay true:
//! - a cell with a field is kept only while its stamp is not below its key's whole-key cell's;
//! - the dot index names exactly the cells that are kept, tombstones included;
//! - the fingerprint is the sum of the hashes of the live cells, so it depends on which cells are
//!   live and not on the order in which they came; keys whose deadline has passed for everybody
//!   (`expiry`) are left out of it, as one node may have forgotten them and another not yet;
//! - the list of tombstones names exactly the tombstones that are kept;
//! - a slot belongs to one key as long as anything of that key is kept, and to nobody or another key
//!   afterwards.
//!
//! Keys of the store's owner ([`Key::is_reserved`]) are cells like all others, but no client ever
//! sees them: neither counts nor scans name them.
//!
//! When a tombstone may be collected is not decided here but in `stability`.

mod cells;
pub(super) mod deadlines;
mod ending;
mod entry;
mod removal;
mod shown;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};
use twox_hash::{XxHash3_64, XxHash3_128};

use super::cell::{CellWrite, Content, Field, Key, Seen};
use super::expiry;
use super::id::Origin;
use super::index::{Home, Index, Slot};
use super::operation::Version;
use super::record::KeptCell;
use super::stamp::{Dot, Stamp};
use super::time::WallTime;
use deadlines::Deadlines;
use ending::Before;
use entry::Cell;
pub(super) use entry::Entry;
pub(super) use shown::Shown;
pub use shown::{Kind, Text};

/// About how much memory a cell takes beside its key and value; measured by the bench `protocol`.
const CELL_BYTES_EXTRA: usize = 216;

/// About how much memory the list of deadlines takes for a key.
const DEADLINE_BYTES_EXTRA: usize = 48;

/// A place among all cells that are kept: in the order of the slots, and of the fields of each key.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    slot: u64,
    /// The last cell of that slot's key that was handed out.
    after: Option<Field>,
}

/// A hash of all live cells of a shard that does not depend on the order of their arrival.
///
/// The sum modulo 2¹²⁸ of one XXH3 hash per cell. It finds damage, not malice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fingerprint(u128);

/// A version that was replaced by one whose writer does not say that it had seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Its place in the order.
    pub stamp: Stamp,
    /// Its name.
    pub dot: Dot,
    /// Whether it is a tombstone: of one that was collected, nobody can say that it was seen.
    pub is_deletion: bool,
}

/// What became of one cell of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Merged {
    /// It is now what the cell holds.
    Won {
        /// Versions that it replaced although its writer had not seen them.
        lost: Vec<Loser>,
    },
    /// A greater version stood already.
    Lost {
        /// The winner, where it was written without having seen this one.
        concurrent_with: Option<Stamp>,
    },
    /// This very version stood already.
    Known,
}

type Map = DashMap<Key, Box<Entry>, FixedState>;

/// The cells of one shard. See the module's documentation.
pub struct Store {
    map: Arc<Map>,
    reader: Reader,
    /// The key of each slot, while anything is kept of it.
    keys: Vec<Option<Key>>,
    /// Slots without a key, to be given out again.
    free: Vec<Slot>,
    books: Books,
}

/// What is known of all cells together; changes with every merge.
#[derive(Default)]
struct Books {
    /// Guards the tables of large keys against chosen names; changes nothing visible.
    hasher: FixedState,
    /// The cells that are kept, by their dots.
    index: Index,
    /// The tombstones among them.
    tombstones: BTreeSet<Dot>,
    /// Of all live cells, those of keys that have passed included.
    fingerprint: Fingerprint,
    /// That of the cells of the store's owner.
    reserved: Fingerprint,
    deadlines: Deadlines,
    /// Up to where deadlines have passed for everybody, by each member that says so.
    bounds: BTreeMap<Field, WallTime>,
    keys_live: usize,
    cells: usize,
    bytes: usize,
    /// Dots whose cells were replaced or covered lately.
    displaced: Vec<Dot>,
}

/// Answers reads from a shard's cells without entering the shard; cheap to clone.
#[derive(Clone)]
pub struct Reader {
    map: Arc<Map>,
}

impl Reader {
    /// Hands the string at `key` to `read`; `now` judges deadlines.
    ///
    /// `read` runs while part of the map is locked: it copies the bytes and returns, and must not
    /// come back to the store. Who asks twice may be answered from before and after a write.
    #[inline]
    pub fn text<T>(&self, key: &[u8], now: WallTime, read: impl FnOnce(Text<'_>) -> T) -> T {
        match self.map.get(key) {
            Some(entry) => entry.text(now, read),
            None => read(Text::Nothing),
        }
    }

    /// As [`Reader::text`], for whom another kind is as good as nothing.
    #[inline]
    pub fn string<T>(&self, key: &[u8], now: WallTime, read: impl FnOnce(Option<&[u8]>) -> T) -> T {
        self.text(key, now, |text| match text {
            Text::Is(text) => read(Some(text)),
            Text::Nothing | Text::Another => read(None),
        })
    }

    /// Whether `key` shows anything.
    pub fn contains(&self, key: &[u8], now: WallTime) -> bool {
        self.kind(key, now).is_some()
    }

    /// Whether `key` has any value, be it past its deadline.
    pub(super) fn remains(&self, key: &[u8]) -> bool {
        self.map.get(key).is_some_and(|entry| entry.is_live())
    }

    /// What kind of value `key` shows.
    pub fn kind(&self, key: &[u8], now: WallTime) -> Option<Kind> {
        self.map.get(key)?.kind(now)
    }

    /// Names what `key` shows: other cells, another version.
    pub fn version(&self, key: &[u8], now: WallTime) -> Version {
        self.look(key, now, |shown| Version(shown.version()))
    }

    /// Hands what `key` shows to `read`, which must not come back to the store.
    pub(super) fn look<T>(
        &self,
        key: &[u8],
        now: WallTime,
        read: impl FnOnce(Shown<'_>) -> T,
    ) -> T {
        match self.map.get(key) {
            Some(entry) => read(Shown::of(Some(&entry), now)),
            None => read(Shown::of(None, now)),
        }
    }

    /// A copy of all that is kept of a key.
    pub(super) fn copy(&self, key: &[u8]) -> Entry {
        self.map.get(key).map_or_else(Entry::default, |entry| Entry::clone(&entry))
    }

    /// The key of a cell as it is kept, if it is, and what a writer here would have seen of the cell.
    pub(super) fn prepare(&self, key: &[u8], field: &Field, origin: Origin) -> (Key, Seen) {
        match self.map.get(key) {
            Some(entry) => (entry.key().clone(), entry.seen(field, origin)),
            None => (Key::from(key), Seen::default()),
        }
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
        let hasher = FixedState::with_seed(hash_seed);
        let map = Arc::new(Map::with_hasher(hasher.clone()));
        Self {
            reader: Reader { map: Arc::clone(&map) },
            map,
            keys: Vec::new(),
            free: Vec::new(),
            books: Books::new(hasher),
        }
    }

    /// Answers reads from the same cells.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The hash of all live cells, but for keys whose deadlines have passed for everybody.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = self.books.fingerprint;
        fingerprint.remove(self.books.deadlines.hidden().0);
        fingerprint
    }

    /// The same of the cells of clients.
    pub(super) fn clients_fingerprint(&self) -> Fingerprint {
        let mut clients = self.fingerprint();
        clients.remove(self.books.reserved.0);
        clients
    }

    /// The same, leaving out keys with deadlines up to `wall`, give or take what is between two bounds.
    pub(super) fn clients_fingerprint_at(&self, wall: WallTime) -> Fingerprint {
        let mut clients = self.books.fingerprint;
        clients.remove(self.books.deadlines.sum_until(deadlines::bound_before(wall)).0);
        clients.remove(self.books.reserved.0);
        clients
    }

    /// The dots of the live cells of a key.
    pub(super) fn live_dots(&self, key: &[u8]) -> Vec<Dot> {
        let Some(entry) = self.map.get(key) else { return Vec::new() };
        let live = entry.cells().filter(|(_, cell)| cell.shows());
        live.map(|(_, cell)| cell.dot()).collect()
    }

    /// How many keys show something, be it past its deadline.
    pub fn keys_live(&self) -> usize {
        self.books.keys_live
    }

    /// How many cells are kept, tombstones included.
    pub fn cells(&self) -> usize {
        self.books.cells
    }

    /// How many tombstones are kept.
    pub fn tombstones(&self) -> usize {
        self.books.tombstones.len()
    }

    /// The dots of the tombstones that are kept, in order, from `from` on.
    pub(super) fn tombstones_from(&self, from: Dot) -> impl Iterator<Item = Dot> {
        self.books.tombstones.range(from..).copied()
    }

    /// Bytes of the keys and values of all cells kept.
    pub fn bytes(&self) -> usize {
        self.books.bytes
    }

    /// About how much memory the cells and their indexes take.
    pub fn memory_bytes(&self) -> usize {
        let deadlines = DEADLINE_BYTES_EXTRA * self.books.deadlines.len();
        self.books.bytes + CELL_BYTES_EXTRA * self.books.cells + deadlines
    }

    /// As [`Reader::prepare`].
    pub(super) fn prepare(&self, key: &[u8], field: &Field, origin: Origin) -> (Key, Seen) {
        self.reader.prepare(key, field, origin)
    }

    /// What a writer here would have seen of a cell: it, and what it covers or is covered by.
    ///
    /// Exact for a cell. What is seen of a whole key with fields names one dot per origin for all of
    /// them, and so may pass over an older write to one field that had not been seen.
    pub fn seen(&self, key: &[u8], field: &Field, origin: Origin) -> Seen {
        self.prepare(key, field, origin).1
    }

    /// Merges one cell of a write that has `stamp`; it is the `seq`-th of its origin.
    ///
    /// What it displaces is added to `Store::displaced`.
    pub fn merge(&mut self, stamp: Stamp, seq: u64, cell: CellWrite) -> Merged {
        let CellWrite { key, field, content, seen } = cell;
        let Self { map, keys, free, books, .. } = self;
        let mut new_slot = Slot(0);
        let mut guard = match map.get_mut(&*key) {
            Some(guard) => guard,
            None => {
                new_slot = free.pop().unwrap_or_else(|| {
                    keys.push(None);
                    u32::try_from(keys.len() - 1).map(Slot).expect("4 billion keys in a shard")
                });
                keys[new_slot.0 as usize] = Some(key.clone());
                map.entry(key.clone()).or_default()
            }
        };
        let entry: &mut Entry = &mut guard;
        let mut new = Cell::new(stamp, seq, content, seen);
        new.slot = entry.slot().unwrap_or(new_slot);
        let slot = new.slot;
        let before = Before::of(&key, entry, books);
        let bounds = expiry::is_claim(&key).then(|| field.clone());
        let merged = entry.merge(&key, field, new, books);
        books.settle(&key, entry, slot, before);
        if let Some(member) = bounds {
            let cell = entry.cell(&member).and_then(|cell| cell.content.value());
            books.take_bound(member, cell);
        }
        merged
    }

    /// Merges a cell that is known to have lost, if what it lost to is still kept.
    pub(super) fn lose(&mut self, stamp: Stamp, seq: u64, cell: CellWrite) {
        if self.would_lose(stamp, seq, &cell) {
            self.merge(stamp, seq, cell);
        }
    }

    /// Whether something greater stands where this version of a cell is to go.
    pub(super) fn would_lose(&self, stamp: Stamp, seq: u64, cell: &CellWrite) -> bool {
        let Some(entry) = self.map.get(&*cell.key) else { return false };
        let (content, seen) = (cell.content.clone(), cell.seen.clone());
        entry.beats(&cell.key, &cell.field, &Cell::new(stamp, seq, content, seen), |_| false)
    }

    /// Whether anything with a greater stamp stands that a new version of this cell would lose to,
    /// replace or cover; what `but` names does not count.
    pub(super) fn outranks(
        &self,
        stamp: Stamp,
        seq: u64,
        cell: &CellWrite,
        but: impl Fn(Dot) -> bool,
    ) -> bool {
        let Some(entry) = self.map.get(&*cell.key) else { return false };
        if cell.field.is_whole_key() {
            let mut others = entry.cells().map(|(_, other)| other);
            return others.any(|other| other.stamp() > stamp && !but(other.dot()));
        }
        let (content, seen) = (cell.content.clone(), cell.seen.clone());
        entry.beats(&cell.key, &cell.field, &Cell::new(stamp, seq, content, seen), but)
    }

    /// Puts a cell back as [`Store::kept`] handed it out.
    pub(super) fn restore(&mut self, kept: KeptCell) {
        let KeptCell { stamp, seq, cell, known } = kept;
        let name = (!known.is_empty()).then(|| (cell.key.clone(), cell.field.clone()));
        let merged = self.merge(stamp, seq, cell);
        if let (Some((key, field)), Merged::Won { .. }) = (name, merged)
            && let Some(mut entry) = self.map.get_mut(&*key)
            && let Some(cell) = entry.cell_mut(&field)
        {
            cell.known.merge(&known);
        }
    }

    /// The cells from `cursor` on, about `bytes_max` bytes of them, and where to go on; `None` at the
    /// end. Unless `cuts_keys`, all cells of a key come together, however many they are.
    pub(super) fn kept(
        &self,
        cursor: &Cursor,
        bytes_max: usize,
        cuts_keys: bool,
    ) -> (Vec<KeptCell>, Option<Cursor>) {
        let from = usize::try_from(cursor.slot).unwrap_or(usize::MAX).min(self.keys.len());
        let (mut cells, mut bytes) = (Vec::new(), 0);
        for (slot, key) in (cursor.slot..).zip(&self.keys[from..]) {
            let mut after = cursor.after.clone().filter(|_| slot == cursor.slot);
            let Some(key) = key else { continue };
            let Some(entry) = self.map.get(&**key) else { continue };
            for (field, cell) in entry.cells_after(after.clone().as_ref()) {
                if bytes >= bytes_max && (cuts_keys || after.is_none()) {
                    return (cells, Some(Cursor { slot, after }));
                }
                let field = field.cloned().unwrap_or_default();
                after = Some(field.clone());
                let (content, seen) = (cell.content.clone(), cell.seen.clone());
                let write = CellWrite { key: key.clone(), field, content, seen };
                bytes += write.bytes();
                let (stamp, seq, known) = (cell.stamp(), cell.seq.get(), cell.known.clone());
                cells.push(KeptCell { stamp, seq, cell: write, known });
            }
        }
        (cells, None)
    }

    /// The dots whose cells were replaced or covered since they were last forgotten.
    pub(super) fn displaced(&self) -> &[Dot] {
        &self.books.displaced
    }

    /// Forgets what was displaced so far.
    pub(crate) fn forget_displaced(&mut self) {
        self.books.displaced.clear();
    }

    /// The first number at or after `from` of `origin` that a kept cell has.
    pub(super) fn next_seq(&self, origin: Origin, from: u64) -> Option<u64> {
        self.books.index.next(origin, from)
    }

    /// The dots of all cells that are kept of the write with `stamp`, of which `dot` is one.
    pub(super) fn dots_of(&self, stamp: Stamp, dot: Dot) -> impl Iterator<Item = Dot> {
        let Dot { origin, seq } = dot;
        let at = move |seq| Dot { origin, seq };
        let is_of = move |seq: &u64| self.stamp(at(*seq)) == Some(stamp);
        let step = move |seq: &u64| self.books.index.previous(origin, *seq);
        let before = std::iter::successors(step(&seq), step).take_while(is_of);
        let step = move |seq: &u64| self.next_seq(origin, seq.checked_add(1)?);
        let after = std::iter::successors(Some(seq), step).take_while(is_of);
        before.chain(after).map(at)
    }

    /// The stamp of the cell that `dot` names, if it is kept.
    pub(super) fn stamp(&self, dot: Dot) -> Option<Stamp> {
        self.find(dot, |_, _, cell| cell.stamp())
    }

    /// The cell that `dot` names with its stamp, if it is kept.
    pub(super) fn cell(&self, dot: Dot) -> Option<(Stamp, CellWrite)> {
        self.find(dot, |key, field, cell| {
            let field = field.cloned().unwrap_or_default();
            let (key, content, seen) = (key.clone(), cell.content.clone(), cell.seen.clone());
            (cell.stamp(), CellWrite { key, field, content, seen })
        })
    }

    fn find<T>(&self, dot: Dot, read: impl FnOnce(&Key, Option<&Field>, &Cell) -> T) -> Option<T> {
        let home = self.books.index.home(dot)?;
        let key = self.keys[home.slot.0 as usize].as_ref().expect("the index names only kept keys");
        let entry = self.map.get(&**key).expect("the index names only keys that are kept");
        let (field, cell) = entry.find(dot, home.place)?;
        Some(read(key, field, cell))
    }

    /// Of the cells of `key` whose fields `wanted` names, the one with the greatest stamp: its numbers,
    /// and the bytes of its value unless it is a tombstone.
    pub(super) fn greatest(
        &self,
        key: &[u8],
        wanted: impl Fn(&Field) -> bool,
    ) -> Option<(Stamp, Dot, Option<usize>)> {
        let entry = self.map.get(key)?;
        let whole = Field::whole_key();
        let cells = entry.cells().filter(|(field, _)| wanted(field.unwrap_or(&whole)));
        let cell = cells.map(|(_, cell)| cell).max_by_key(|cell| cell.stamp())?;
        Some((cell.stamp(), cell.dot(), cell.content.value().map(<[u8]>::len)))
    }

    /// How many keys a scan over everything looks at.
    pub(super) fn slots(&self) -> usize {
        self.keys.len()
    }

    /// Hands keys that show something at `now` to `found`, from `cursor` on, looking at no more than `count` keys.
    ///
    /// Returns the cursor to go on with, or 0 at the end. A key that lives through the whole scan
    /// is handed out exactly once.
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        now: WallTime,
        mut found: impl FnMut(&Key, Kind),
    ) -> u64 {
        let from = usize::try_from(cursor).unwrap_or(usize::MAX).min(self.keys.len());
        let to = from.saturating_add(count.max(1)).min(self.keys.len());
        for key in self.keys[from..to].iter().flatten().filter(|key| !key.is_reserved()) {
            if let Some(kind) = self.reader.kind(key, now) {
                found(key, kind);
            }
        }
        if to == self.keys.len() { 0 } else { to as u64 }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("keys_live", &self.books.keys_live)
            .field("cells", &self.books.cells)
            .field("fingerprint", &self.books.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Books {
    fn new(hasher: FixedState) -> Self {
        Self { hasher, ..Self::default() }
    }

    /// Enters a cell that is kept from now on, in this place among those of its key.
    fn keep(&mut self, key: &Key, field: &Field, new: &Cell, place: u32) {
        if let Content::Value(value) = &new.content {
            let hash = hash_cell(key, field, new, value);
            self.fingerprint.add(hash);
            if key.is_reserved() {
                self.reserved.add(hash);
            }
        }
        if new.content == Content::Tombstone {
            self.tombstones.insert(new.dot());
        }
        self.index.insert(new.dot(), Home { slot: new.slot, place });
        self.cells += 1;
        self.bytes += bytes_of(key, field, new);
    }

    /// Strikes out a cell whose place another takes.
    fn displace(&mut self, key: &Key, field: &Field, old: &Cell) {
        self.strike(key, field, old);
        self.displaced.push(old.dot());
    }

    /// Strikes out a cell that is kept no longer.
    fn strike(&mut self, key: &Key, field: &Field, old: &Cell) {
        if old.content == Content::Tombstone {
            self.tombstones.remove(&old.dot());
        }
        if let Content::Value(value) = &old.content {
            let hash = hash_cell(key, field, old, value);
            self.fingerprint.remove(hash);
            if key.is_reserved() {
                self.reserved.remove(hash);
            }
        }
        self.index.remove(old.dot());
        self.cells -= 1;
        self.bytes -= bytes_of(key, field, old);
    }
}

fn bytes_of(key: &Key, field: &Field, cell: &Cell) -> usize {
    key.len() + field.as_bytes().len() + cell.content.value().map_or(0, <[u8]>::len)
}

/// The hash of one live cell: of its name, its numbers and its value, each hashed with what the one
/// before gives as the seed.
fn hash_cell(key: &Key, field: &Field, cell: &Cell, value: &[u8]) -> u128 {
    let name = match field.is_whole_key() {
        true => XxHash3_64::oneshot(key),
        false => XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(key), field.as_bytes()),
    };
    let epoch = u64::from(cell.epoch.0);
    let mut numbers = [0; 32];
    let parts = [epoch, cell.lamport.0, cell.origin.0, cell.seq.get()];
    for (at, number) in numbers.chunks_exact_mut(8).zip(parts) {
        at.copy_from_slice(&number.to_le_bytes());
    }
    XxHash3_128::oneshot_with_seed(XxHash3_64::oneshot_with_seed(name, &numbers), value)
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

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::stamp::{Epoch, Lamport};

    impl Store {
        /// Every cell that is kept, by name.
        pub(in crate::protocol) fn dump(&self) -> Cells {
            let mut cells = Cells::new();
            for key in self.keys.iter().flatten() {
                let entry = self.map.get(&**key).expect("a slot's key is kept");
                for (field, cell) in entry.cells() {
                    let name = (key.clone(), field.cloned().unwrap_or_default());
                    cells.insert(name, (cell.stamp(), cell.dot(), cell.content.clone()));
                }
            }
            cells
        }
    }

    pub(in crate::protocol) type Cells = BTreeMap<(Key, Field), (Stamp, Dot, Content)>;

    /// The naive model of merging: the greatest stamp for each name, less what whole keys cover.
    pub(in crate::protocol) fn merged(
        cells: impl IntoIterator<Item = ((Key, Field), (Stamp, Dot, Content))>,
    ) -> Cells {
        let mut greatest = Cells::new();
        for (name, cell) in cells {
            match greatest.get(&name) {
                Some(stands) if stands.0 >= cell.0 => {}
                _ => drop(greatest.insert(name, cell)),
            }
        }
        let whole: BTreeMap<Key, Stamp> = greatest
            .iter()
            .filter(|((_, field), _)| field.is_whole_key())
            .map(|((key, _), cell)| (key.clone(), cell.0))
            .collect();
        greatest.retain(|(key, _), cell| whole.get(key).is_none_or(|whole| *whole <= cell.0));
        greatest
    }

    /// Cells of writes of three origins, each with a stamp and the dot of its cell.
    type History = Vec<(Stamp, u64, CellWrite)>;

    fn histories() -> impl Strategy<Value = History> {
        let content = prop_oneof![
            1 => Just(Content::Tombstone),
            3 => proptest::collection::vec(any::<u8>(), 0..3)
                .prop_map(|bytes| Content::from(&bytes[..])),
        ];
        let field = prop_oneof![1 => Just(0u8), 2 => 0..4u8];
        let names = proptest::collection::btree_map((0..3u8, field), content, 1..4);
        let write = (0..3u64, 0..3u64, names);
        proptest::collection::vec(write, 0..40).prop_map(|writes| {
            let mut last = BTreeMap::<u64, (u64, u64)>::new();
            let mut history = History::new();
            for (origin, jump, names) in writes {
                let (lamport, seq) = last.entry(origin).or_default();
                *lamport += names.len() as u64 + jump;
                let lamport = Lamport(*lamport);
                let stamp = Stamp { epoch: Epoch(0), lamport, origin: Origin(origin) };
                for ((key, field), content) in names {
                    let key = Key::from(&[key][..]);
                    let field = Field::new(&[field][..usize::from(field > 0)]);
                    let seen = Seen::default();
                    *seq += 1;
                    history.push((stamp, *seq, CellWrite { key, field, content, seen }));
                }
            }
            history
        })
    }

    fn name((stamp, seq, cell): &(Stamp, u64, CellWrite)) -> ((Key, Field), (Stamp, Dot, Content)) {
        let dot = Dot { origin: stamp.origin, seq: *seq };
        ((cell.key.clone(), cell.field.clone()), (*stamp, dot, cell.content.clone()))
    }

    fn filled(history: &History) -> Store {
        let mut store = Store::new(1);
        for (stamp, seq, cell) in history.clone() {
            store.merge(stamp, seq, cell);
        }
        store
    }

    fn live(cells: &Cells) -> BTreeSet<Key> {
        let live = cells.iter().filter(|(_, (_, _, content))| content.value().is_some());
        live.map(|((key, _), _)| key.clone()).collect()
    }

    proptest! {
        /// In any order and with any repetition: the same cells, and the books agree with them.
        #[test]
        fn merging_depends_on_neither_order_nor_repetition(
            history in histories(),
            again in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
            order in any::<u64>(),
        ) {
            let mut other = history.clone();
            if !history.is_empty() {
                other.extend(again.iter().map(|at| at.get(&history).clone()));
            }
            fastrand::Rng::with_seed(order).shuffle(&mut other);
            let model = merged(history.iter().map(name));
            for store in [filled(&history), filled(&other)] {
                prop_assert_eq!(&store.dump(), &model);
                prop_assert_eq!(store.cells(), model.len());
                prop_assert_eq!(store.keys_live(), live(&model).len());
                let bytes = model.iter().map(|((key, field), (_, _, content))| {
                    key.len() + field.as_bytes().len() + content.value().map_or(0, <[u8]>::len)
                });
                prop_assert_eq!(store.bytes(), bytes.sum::<usize>());
                prop_assert_eq!(store.fingerprint(), from_scratch(&store));
            }
            prop_assert_eq!(filled(&history).fingerprint(), filled(&other).fingerprint());
        }

        /// The index names exactly the cells that are kept, in order.
        #[test]
        fn the_index_names_what_is_kept(history in histories()) {
            let store = filled(&history);
            let model = merged(history.iter().map(name));
            let kept: BTreeMap<Dot, _> =
                model.iter().map(|(name, (stamp, dot, content))| (*dot, (name, stamp, content))).collect();
            for (stamp, seq, _) in &history {
                let dot = Dot { origin: stamp.origin, seq: *seq };
                prop_assert_eq!(store.cell(dot).is_some(), kept.contains_key(&dot));
                prop_assert_eq!(store.stamp(dot), kept.get(&dot).map(|kept| *kept.1));
                if let Some((stamp, cell)) = store.cell(dot) {
                    let (name, kept_stamp, content) = kept[&dot];
                    prop_assert_eq!(&(cell.key, cell.field), name);
                    prop_assert_eq!((&stamp, &cell.content), (kept_stamp, content));
                }
            }
            let mut listed = BTreeSet::new();
            for origin in (0..3).map(Origin) {
                let mut from = 1;
                while let Some(seq) = store.next_seq(origin, from) {
                    listed.insert(Dot { origin, seq });
                    from = seq + 1;
                }
            }
            prop_assert_eq!(listed, kept.keys().copied().collect());
        }

        /// What is displaced is what was kept before and is not any more.
        #[test]
        fn what_is_displaced_is_told(history in histories(), order in any::<u64>()) {
            let mut history = history;
            fastrand::Rng::with_seed(order).shuffle(&mut history);
            let mut store = Store::new(1);
            for (stamp, seq, cell) in history {
                let dots = |store: &Store| -> BTreeSet<Dot> {
                    store.dump().into_values().map(|(_, dot, _)| dot).collect()
                };
                let before = dots(&store);
                store.merge(stamp, seq, cell);
                let gone = &before - &dots(&store);
                prop_assert_eq!(store.displaced().iter().copied().collect::<BTreeSet<_>>(), gone);
                store.forget_displaced();
            }
        }

        /// A key that lives through a scan is handed out once, whatever is added meanwhile.
        #[test]
        fn a_scan_finds_each_key_once(
            before in histories(),
            during in histories(),
            count in 1..5usize,
        ) {
            let mut store = filled(&before);
            let mut lives = live(&store.dump());
            let mut during = during.into_iter();
            let (mut cursor, mut found) = (0, Vec::new());
            loop {
                cursor = store.scan(cursor, count, WallTime(0), |key, _| found.push(key.clone()));
                if cursor == 0 {
                    break;
                }
                // From an origin of its own, above all that was there.
                if let Some((stamp, seq, cell)) = during.next() {
                    let lamport = Lamport(stamp.lamport.0 + 1_000);
                    let origin = Origin(stamp.origin.0 + 10);
                    store.merge(Stamp { lamport, origin, ..stamp }, seq, cell);
                    lives = &lives & &live(&store.dump());
                }
            }
            for key in lives {
                prop_assert_eq!(found.iter().filter(|found| **found == key).count(), 1);
            }
            let distinct: BTreeSet<_> = found.iter().collect();
            prop_assert_eq!(distinct.len(), found.len());
        }

        /// Tombstones are taken out one by one, in between merges: what is left is what the model has,
        /// the books agree, and slots are given out again.
        #[test]
        fn collecting_keeps_the_books(
            history in histories(),
            choices in proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 40),
        ) {
            let mut store = Store::new(1);
            let mut model = Cells::new();
            let mut gone = BTreeSet::new();
            for (one, (collects, at)) in history.iter().zip(choices) {
                let (stamp, seq, cell) = one.clone();
                // Nothing that was covered by a tombstone comes back in what follows.
                let (new, now) = name(one);
                let later = model.keys().all(|(key, _): &(Key, Field)| *key != new.0)
                    && gone.iter().all(|(key, stamp): &(Key, Stamp)| *key != new.0 || *stamp < now.0);
                if !later && gone.iter().any(|(key, _)| *key == new.0) {
                    continue;
                }
                store.merge(stamp, seq, cell);
                model = merged(model.into_iter().chain([(new, now)]));
                let tombstones: Vec<Dot> =
                    store.tombstones_from(Dot { origin: Origin(0), seq: 0 }).collect();
                let listed: BTreeSet<Dot> = model
                    .values()
                    .filter(|(_, _, content)| content.value().is_none())
                    .map(|(_, dot, _)| *dot)
                    .collect();
                prop_assert_eq!(tombstones.iter().copied().collect::<BTreeSet<_>>(), listed);
                if collects && !tombstones.is_empty() {
                    let dot = *at.get(&tombstones);
                    prop_assert!(store.collect(dot).is_some() && store.collect(dot).is_none());
                    prop_assert!(store.cell(dot).is_none());
                    model.retain(|(key, _), (stamp, kept, _)| {
                        if *kept == dot {
                            gone.insert((key.clone(), *stamp));
                        }
                        *kept != dot
                    });
                }
                prop_assert_eq!(&store.dump(), &model);
                prop_assert_eq!(store.cells(), model.len());
                prop_assert_eq!(store.keys_live(), live(&model).len());
                prop_assert_eq!(store.fingerprint(), from_scratch(&store));
                let keys: BTreeSet<_> = model.keys().map(|(key, _)| key).collect();
                prop_assert_eq!(store.keys.iter().flatten().count(), keys.len());
                prop_assert_eq!(store.free.len() + keys.len(), store.keys.len());
                prop_assert!(store.keys.len() <= 3, "slots are given out again");
                let mut scanned = BTreeSet::new();
                store.scan(0, 100, WallTime(0), |key, _| assert!(scanned.insert(key.clone())));
                prop_assert_eq!(scanned, live(&model));
                for (stamp, dot, _) in model.values() {
                    prop_assert_eq!(store.stamp(*dot), Some(*stamp));
                }
            }
            store.clear();
            prop_assert_eq!((store.cells(), store.bytes(), store.tombstones()), (0, 0, 0));
            prop_assert_eq!(store.fingerprint(), Fingerprint::default());
        }

        /// A version is called lost exactly if the writer of the one that stands had not seen it.
        ///
        /// Three nodes write and hear of each other's writes in any order, or never.
        #[test]
        fn concurrency_is_told_exactly(
            steps in proptest::collection::vec((0..3usize, any::<prop::sample::Index>()), 1..80),
            with_fields in any::<bool>(),
        ) {
            let mut nodes: Vec<Writer> = (0..3).map(Writer::new).collect();
            let mut made = Vec::<(Stamp, u64, CellWrite, BTreeSet<Dot>)>::new();
            for (at, choice) in steps {
                let choice = choice.index(2 * made.len() + 3);
                if let Some((stamp, seq, cell, past)) = made.get(choice).cloned() {
                    nodes[at].hear(stamp, seq, cell, &past, with_fields)?;
                } else {
                    let field = Field::new(&[1, 2][..if with_fields { choice % 3 } else { 0 }]);
                    made.push(nodes[at].write(field, with_fields)?);
                }
            }
        }
    }

    fn from_scratch(store: &Store) -> Fingerprint {
        let mut fingerprint = Fingerprint::default();
        for key in store.keys.iter().flatten() {
            let entry = store.map.get(&**key).unwrap();
            for (field, cell) in entry.cells() {
                if let Content::Value(value) = &cell.content {
                    let field = field.cloned().unwrap_or_default();
                    fingerprint.add(hash_cell(key, &field, cell, value));
                }
            }
        }
        fingerprint
    }

    /// A node that writes one key, and for each write that it has taken in, those seen before it.
    struct Writer {
        store: Store,
        origin: Origin,
        lamport: u64,
        seq: u64,
        taken: BTreeMap<Dot, (Field, BTreeSet<Dot>)>,
    }

    impl Writer {
        fn new(at: u64) -> Self {
            let taken = BTreeMap::new();
            Self { store: Store::new(1), origin: Origin(at), lamport: 0, seq: 0, taken }
        }

        fn write(
            &mut self,
            field: Field,
            with_fields: bool,
        ) -> Result<(Stamp, u64, CellWrite, BTreeSet<Dot>), TestCaseError> {
            self.seq += 1;
            let lamport = Lamport(self.lamport + 1);
            let stamp = Stamp { epoch: Epoch(0), lamport, origin: self.origin };
            let seen = self.store.seen(b"k", &field, self.origin);
            let key = Key::from("k");
            // Of this cell or what covers it; and what those had seen, it has seen as well.
            let related = self.taken.iter().filter(|(_, (other, _))| {
                *other == field || other.is_whole_key() || field.is_whole_key()
            });
            let past = related.flat_map(|(dot, (_, past))| past.iter().copied().chain([*dot]));
            let past: BTreeSet<Dot> = past.collect();
            let cell = CellWrite { key, field, content: Content::from(&b"v"[..]), seen };
            self.hear(stamp, self.seq, cell.clone(), &past, with_fields)?;
            Ok((stamp, self.seq, cell, past))
        }

        fn hear(
            &mut self,
            stamp: Stamp,
            seq: u64,
            cell: CellWrite,
            past: &BTreeSet<Dot>,
            with_fields: bool,
        ) -> Result<(), TestCaseError> {
            let dot = Dot { origin: stamp.origin, seq };
            if self.taken.insert(dot, (cell.field.clone(), past.clone())).is_some() {
                return Ok(());
            }
            self.lamport = self.lamport.max(stamp.lamport.0);
            let before: BTreeMap<Stamp, Dot> =
                self.store.dump().into_values().map(|(stamp, dot, _)| (stamp, dot)).collect();
            let merged = self.store.merge(stamp, seq, cell);
            let displaced = self.store.displaced().to_vec();
            self.store.forget_displaced();
            match merged {
                Merged::Won { lost } => {
                    let lost: BTreeSet<Dot> =
                        lost.iter().map(|loser| before[&loser.stamp]).collect();
                    let unseen = displaced.into_iter().filter(|dot| !past.contains(dot)).collect();
                    if with_fields {
                        prop_assert!(lost.is_subset(&unseen), "{lost:?} {unseen:?}");
                    } else {
                        prop_assert_eq!(lost, unseen);
                    }
                }
                Merged::Lost { concurrent_with } => {
                    let cells = self.store.dump();
                    let winners = cells.values().filter(|(winner, _, _)| *winner > stamp);
                    let mut unseen =
                        winners.filter(|(_, winner, _)| !self.taken[winner].1.contains(&dot));
                    match concurrent_with {
                        Some(winner) => prop_assert!(unseen.any(|unseen| unseen.0 == winner)),
                        None if with_fields => {}
                        None => prop_assert!(unseen.next().is_none()),
                    }
                }
                Merged::Known => prop_assert!(false, "no write is taken in twice"),
            }
            Ok(())
        }
    }
}
