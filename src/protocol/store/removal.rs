//! Taking cells out of the store: tombstones that have done their work, and all that is there when a
//! node fills itself anew. The books are kept as for merges; see the laws in `store`.

use super::super::cell::{CellWrite, Seen};
#[cfg(test)]
use super::super::cell::{Content, Field, Key};
use super::super::repair::prevails;
use super::super::stamp::{Dot, Stamp};
use super::super::version::VersionVector;
use super::ending::Before;
use super::{Books, Fingerprint, Merged, Store};

impl Store {
    /// Forgets every cell, in place: readers see the empty store.
    pub(in crate::protocol) fn clear(&mut self) {
        self.map.clear();
        self.keys.clear();
        self.free.clear();
        self.books = Books::new(self.books.hasher.clone());
    }

    /// Removes the tombstone that `dot` names, if it is kept; answers which versions it had beaten, as
    /// far as it names them: none if it is that of a field, whose writer may have seen what it leaves
    /// standing.
    ///
    /// Nothing takes its place, and nothing is told to be displaced: whoever calls this knows that
    /// nobody is owed the tombstone.
    pub(in crate::protocol) fn collect(&mut self, dot: Dot) -> Option<Seen> {
        if !self.books.tombstones.contains(&dot) {
            return None;
        }
        let mut beaten = Seen::default();
        let home = self.books.index.home(dot).expect("a tombstone that is kept is in the index");
        let slot = home.slot;
        let key = self.keys[slot.0 as usize].clone().expect("the index names only kept keys");
        let mut entry = self.map.get_mut(&*key).expect("the index names only keys that are kept");
        let field = entry.find(dot, home.place).map(|(field, _)| field);
        let field = field.map(|field| field.cloned().unwrap_or_default());
        let field = field.expect("the index names only cells that are kept");
        if let Some(old) = entry.take(&field, &mut self.books.index) {
            self.books.strike(&key, &field, &old);
            if field.is_whole_key() {
                beaten.merge(&old.seen);
                beaten.merge(&old.known);
            }
        }
        let is_empty = entry.cells().next().is_none();
        drop(entry);
        if is_empty {
            self.map.remove(&*key);
            self.keys[slot.0 as usize] = None;
            self.free.push(slot);
        }
        Some(beaten)
    }

    /// Puts a cell where it should be already: if it is lacking, or an older version is there, or
    /// other bytes under the same stamp that do not prevail. Says whether that changed anything.
    pub(in crate::protocol) fn mend(&mut self, stamp: Stamp, seq: u64, cell: &CellWrite) -> bool {
        // A dot names one cell: what has another name here is no version of it.
        let dot = Dot { origin: stamp.origin, seq };
        let other =
            |(_, kept): (Stamp, CellWrite)| kept.key != cell.key || kept.field != cell.field;
        if self.cell(dot).is_some_and(other) {
            return false;
        }
        if self.would_lose(stamp, seq, cell) {
            return false;
        }
        if self.find(dot, |_, _, own| own.stamp()) == Some(stamp) {
            let Some(mut entry) = self.map.get_mut(&*cell.key) else { return false };
            let Some(own) = entry.cell_mut(&cell.field) else { return false };
            let theirs = cell.content.value().unwrap_or_default();
            let ours = own.content.value().unwrap_or_default();
            if own.content == cell.content || !prevails(theirs, ours) {
                return false;
            }
            let before = Before::of(&cell.key, &entry, &self.books);
            let Some(old) = entry.take(&cell.field, &mut self.books.index) else { return false };
            self.books.strike(&cell.key, &cell.field, &old);
            self.books.settle(&cell.key, &mut entry, old.slot, before);
            let is_empty = entry.cells().next().is_none();
            drop(entry);
            if is_empty {
                self.map.remove(&*cell.key);
                self.keys[old.slot.0 as usize] = None;
                self.free.push(old.slot);
            }
        }
        matches!(self.merge(stamp, seq, cell.clone()), Merged::Won { .. })
    }

    /// Makes the fingerprint anew, from the cells as they are.
    pub(in crate::protocol) fn fingerprint_anew(&mut self) {
        let (mut fingerprint, mut reserved) = (Fingerprint::default(), Fingerprint::default());
        for key in self.keys.iter().flatten() {
            let mut entry = self.map.get_mut(&**key).expect("a slot's key is kept");
            let sum = entry.sum_anew(key);
            fingerprint.add(sum.0);
            if key.is_reserved() {
                reserved.add(sum.0);
                continue;
            }
            let slot = entry.slot().expect("a key that is kept has a cell");
            let before = Before::of(key, &entry, &self.books);
            if let Some(fields) = &mut entry.fields {
                fields.sum = sum;
            }
            self.books.relist(&entry, slot, before);
        }
        (self.books.fingerprint, self.books.reserved) = (fingerprint, reserved);
    }

    /// Removes every tombstone.
    #[cfg(test)]
    pub(crate) fn collect_everything(&mut self) {
        let dots: Vec<Dot> = self.books.tombstones.iter().copied().collect();
        dots.into_iter().for_each(|dot| drop(self.collect(dot)));
    }

    /// Spoils a string behind the books' back, or takes it away, as a bad memory would.
    #[cfg(test)]
    pub(in crate::protocol) fn spoil(&mut self, key: &[u8], content: Option<&[u8]>) {
        let mut entry = self.map.get_mut(key).unwrap();
        match content {
            Some(content) => {
                entry.whole.as_mut().unwrap().content = Content::from(content);
                drop(entry);
            }
            None => {
                let old = entry.take(&Field::whole_key(), &mut self.books.index).unwrap();
                self.books.strike(&Key::from(key), &Field::whole_key(), &old);
                self.books.keys_live -= 1;
                drop(entry);
                self.map.remove(key);
                self.keys[old.slot.0 as usize] = None;
                self.free.push(old.slot);
            }
        }
        self.fingerprint_anew();
    }

    /// Removes all tombstones whose dots are in `horizon`; answers what each of them had beaten.
    pub(in crate::protocol) fn collect_all(&mut self, horizon: &VersionVector) -> Vec<Seen> {
        let dots = self.books.tombstones.iter().filter(|dot| horizon.contains(**dot));
        let dots: Vec<Dot> = dots.copied().collect();
        dots.into_iter().filter_map(|dot| self.collect(dot)).collect()
    }

    /// Every cell that is kept, in the order of the slots and fields.
    pub(in crate::protocol) fn all(&self) -> impl Iterator<Item = (Stamp, Dot, CellWrite)> {
        self.keys.iter().flatten().flat_map(|key| {
            let entry = self.map.get(&**key).expect("a slot's key is kept");
            let cells = entry.cells().map(|(field, cell)| {
                let field = field.cloned().unwrap_or_default();
                let (content, seen) = (cell.content.clone(), cell.seen.clone());
                (cell.stamp(), cell.dot(), CellWrite { key: key.clone(), field, content, seen })
            });
            cells.collect::<Vec<_>>()
        })
    }
}
