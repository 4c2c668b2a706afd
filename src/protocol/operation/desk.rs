//! Where operations read and write: what keys show at the moment, and the cells to be written.
//!
//! An operation by itself reads the store and gathers cells. Within a batch an operation sees what
//! those before it have done, which is not in the store yet: from the first write on, a key is read
//! from a copy. Of two writes to one cell the later one stays, and a write to a whole key drops what
//! the batch has written to its fields before: all cells of a batch have one stamp, so one would not
//! cover the other.

use std::collections::BTreeMap;

use super::super::cell::{CellWrite, Content, Field, Key, Seen};
use super::super::id::Origin;
use super::super::role::{self, NAME_BYTES_MAX};
use super::super::stamp::Dot;
use super::super::store::{Entry, Kind, Reader, Shown, Store};
use super::super::time::WallTime;
use super::{Mode, Moment, Refused, Version, Writer};

/// See the module's documentation.
pub(super) struct Desk<'a> {
    reader: &'a Reader,
    store: Option<&'a Store>,
    now: WallTime,
    dice: fastrand::Rng,
    mode: Mode,
    writer: Writer,
    cells: Vec<CellWrite>,
    /// See [`super::Executed::stands`].
    stands: Option<Dot>,
    /// Copies of the keys that were written, within a batch.
    staged: Option<BTreeMap<Key, Entry>>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        reader: &'a Reader,
        store: Option<&'a Store>,
        moment: Moment,
        mode: Mode,
        writer: Writer,
    ) -> Self {
        let dice = fastrand::Rng::with_seed(moment.dice);
        let (now, cells, stands, staged) = (moment.wall, Vec::new(), None, None);
        Self { reader, store, now, dice, mode, writer, cells, stands, staged }
    }

    pub(super) fn into_cells(self) -> (Vec<CellWrite>, Option<Dot>) {
        (self.cells, self.stands)
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Who writes.
    pub(super) fn origin(&self) -> Origin {
        self.writer.origin
    }

    /// Whether nobody else knows of a dot of the writer's yet.
    pub(super) fn is_unsaid(&self, dot: Dot) -> bool {
        self.mode == Mode::Eventual && dot.seq >= self.writer.unsaid
    }

    /// What was to be written stands already, by this dot that nobody else knows of.
    pub(super) fn stand(&mut self, dot: Dot) {
        self.stands = self.stands.max(Some(dot));
    }

    /// The time that counts.
    pub(super) fn now(&self) -> WallTime {
        self.now
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.dice.usize(..end.max(1))
    }

    /// The store, for what goes beyond single keys; only operations that say so may use it.
    pub(super) fn store(&self) -> Option<&'a Store> {
        self.store
    }

    /// From now on operations see what those before them have done.
    pub(super) fn stage(&mut self) {
        self.staged = Some(BTreeMap::new());
    }

    /// Hands what a key shows to `read`, which must not come back to the desk.
    pub(super) fn look<T>(&self, key: &[u8], read: impl FnOnce(Shown<'_>) -> T) -> T {
        match self.staged.as_ref().and_then(|staged| staged.get(key)) {
            Some(entry) => read(Shown::of(Some(entry), self.now)),
            None => self.reader.look(key, self.now, read),
        }
    }

    /// As [`Desk::look`], for an operation on one kind of value: any other kind is refused.
    pub(super) fn look_for<T>(
        &self,
        key: &[u8],
        kind: Kind,
        read: impl FnOnce(Shown<'_>) -> T,
    ) -> Result<T, Refused> {
        self.look(key, |shown| match shown.kind() {
            Some(other) if other != kind => Err(Refused::WrongKind),
            _ => Ok(read(shown)),
        })
    }

    /// What kind of value a key shows.
    pub(super) fn kind(&self, key: &[u8]) -> Option<Kind> {
        self.look(key, |shown| shown.kind())
    }

    /// Names what a key holds.
    pub(super) fn version(&self, key: &[u8]) -> Version {
        self.look(key, |shown| Version(shown.version()))
    }

    /// Writes one cell.
    pub(super) fn put(&mut self, key: &[u8], field: Field, content: Content) {
        self.put_over(key, field, content, None);
    }

    /// Writes one cell over a version that the operation depends on.
    pub(super) fn put_over(
        &mut self,
        key: &[u8],
        field: Field,
        content: Content,
        over: Option<Dot>,
    ) {
        let (kept, mut seen) = match self.mode {
            Mode::Eventual => self.reader.prepare(key, &field, self.origin()),
            // What else a replica has seen of the cell is its own affair.
            Mode::Strong => (Key::from(key), Seen::default()),
        };
        if let Some(over) = over.filter(|over| over.origin != self.origin()) {
            seen.insert(over);
        }
        if let Some(staged) = &mut self.staged {
            let entry = match staged.contains_key(key) {
                true => staged.get_mut(key),
                false => Some(staged.entry(kept.clone()).or_insert(self.reader.copy(key))),
            };
            if let Some(entry) = entry {
                let writer = Dot { origin: self.writer.origin, seq: 1 };
                entry.stage(field.clone(), content.clone(), writer);
            }
            let whole = field.is_whole_key();
            self.cells.retain(|cell| cell.key != kept || !whole && cell.field != field);
        }
        self.cells.push(CellWrite { key: kept, field, content, seen });
    }

    /// Deletes a key, if it shows; says whether it did.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let shows = self.kind(key).is_some();
        if shows {
            self.put(key, Field::whole_key(), Content::Tombstone);
        }
        shows
    }

    /// Makes sure that what is written next begins anew, if the key shows nothing: what has expired
    /// must not come back, nor a deadline that is left behind hold for it. In strong mode one replica may
    /// have forgotten what another still has, and all must write the same.
    pub(super) fn begin(&mut self, key: &[u8]) {
        let is_strong = self.mode == Mode::Strong;
        if self.look(key, |shown| shown.kind().is_none() && (is_strong || shown.remains())) {
            self.put(key, Field::whole_key(), Content::Tombstone);
        }
    }

    /// Sets the deadline of a key that shows; one that has passed deletes it.
    pub(super) fn expire(&mut self, key: &[u8], at: u64) {
        if at <= self.now.0 {
            self.put(key, Field::whole_key(), Content::Tombstone);
        } else {
            let value = Content::from(&role::deadline_value(at)[..]);
            self.put(key, role::deadline_field(), value);
        }
    }

    /// Takes the deadline of a key away; says whether there was one.
    pub(super) fn persist(&mut self, key: &[u8]) -> bool {
        let had = self.look(key, |shown| shown.kind().is_some() && shown.deadline().is_some());
        if had {
            self.put(key, role::deadline_field(), Content::Tombstone);
        }
        had
    }

    /// A key has lost its last element: its deadline goes as well.
    pub(super) fn end(&mut self, key: &[u8]) {
        self.persist(key);
    }
}

/// Refuses names that no cell can have.
pub(super) fn fits<T: AsRef<[u8]>>(names: &[T]) -> Result<(), Refused> {
    match names.iter().any(|name| name.as_ref().len() > NAME_BYTES_MAX) {
        true => Err(Refused::NameTooLong),
        false => Ok(()),
    }
}
