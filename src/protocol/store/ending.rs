//! Keys that end: keeping the list of deadlines, and forgetting what has ended.
//!
//! Whoever changes the cells of a key looks at it before and has the books settled afterwards. When a key
//! may be forgotten is decided in `expiry`.

use super::super::cell::{Content, Field, Key};
use super::super::expiry::{self, Claim, Ripe};
use super::super::id::NodeId;
use super::super::index::Slot;
use super::super::stamp::{Dot, Stamp};
use super::super::time::WallTime;
use super::deadlines::Ending;
use super::entry::{Cell, Entry};
use super::{Books, Fingerprint, Store, hash_cell};

/// What the books have of a key before its cells change.
pub(super) struct Before {
    is_live: bool,
    ending: Option<Ending>,
    /// The sum of the hashes of its live cells; none if it has but the whole key's.
    sum: Option<Fingerprint>,
    fingerprint: Fingerprint,
}

impl Before {
    pub(super) fn of(key: &Key, entry: &Entry, books: &Books) -> Self {
        let ending = if key.is_reserved() { None } else { entry.ending() };
        let sum = entry.fields.as_ref().map(|fields| fields.sum);
        Self { is_live: entry.is_live(), ending, sum, fingerprint: books.fingerprint }
    }
}

impl Entry {
    fn ending(&self) -> Option<Ending> {
        let sum = self.fields.as_ref()?.sum;
        Some(Ending { deadline: self.deadline()?, is_live: self.is_live(), sum })
    }

    /// The greatest stamp of the cells, if the key has ended and all of them are ripe.
    fn ripe(&self, ripe: &Ripe) -> Option<Stamp> {
        let ended = self.deadline()? <= ripe.until.0;
        let all = ended && self.cells().all(|(_, cell)| ripe.dots.contains(cell.dot()));
        if all { self.cells().map(|(_, cell)| cell.stamp()).max() } else { None }
    }

    /// The sum of the hashes of the live cells, from the cells.
    pub(super) fn sum_anew(&self, key: &Key) -> Fingerprint {
        let mut sum = Fingerprint::default();
        for (field, cell) in self.cells() {
            if let Content::Value(value) = &cell.content {
                sum.add(hash_cell(key, &field.cloned().unwrap_or_default(), cell, value));
            }
        }
        sum
    }
}

impl Books {
    /// Brings up to date what is known of a key as a whole, after its cells have changed.
    pub(super) fn settle(&mut self, key: &Key, entry: &mut Entry, slot: Slot, before: Before) {
        if key.is_reserved() {
            return;
        }
        let is_live = usize::from(entry.is_live());
        self.keys_live = self.keys_live + is_live - usize::from(before.is_live);
        match (before.sum, &mut entry.fields) {
            (_, None) => {}
            (Some(mut sum), Some(fields)) => {
                sum.add(self.fingerprint.0.wrapping_sub(before.fingerprint.0));
                fields.sum = sum;
            }
            (None, Some(_)) => {
                let sum = entry.sum_anew(key);
                entry.fields.get_or_insert_default().sum = sum;
            }
        }
        self.deadlines.change(slot, before.ending, entry.ending());
    }

    /// Lists a key anew, whose sum has been made anew.
    pub(super) fn relist(&mut self, entry: &Entry, slot: Slot, before: Before) {
        self.deadlines.change(slot, before.ending, entry.ending());
    }

    /// Takes note of what a member claims to have passed.
    pub(super) fn take_bound(&mut self, member: Field, claim: Option<&[u8]>) {
        match claim.and_then(Claim::bound) {
            Some(bound) => drop(self.bounds.insert(member, bound)),
            None => drop(self.bounds.remove(&member)),
        }
        let bound = self.bound();
        self.deadlines.pass(bound);
    }

    pub(super) fn bound(&self) -> WallTime {
        self.bounds.values().max().copied().unwrap_or_default()
    }
}

impl Store {
    /// The deadline of a key, if it has passed at `now`.
    pub(in crate::protocol) fn ended(&self, key: &[u8], now: WallTime) -> Option<u64> {
        self.map.get(key)?.deadline().filter(|deadline| *deadline <= now.0)
    }

    /// How many keys show something at `now`.
    pub fn keys_shown(&self, now: WallTime) -> usize {
        self.keys_live().saturating_sub(self.books.deadlines.expired(now))
    }

    /// How many keys are kept that have a deadline, passed or not.
    pub fn keys_with_deadline(&self) -> usize {
        self.books.deadlines.len()
    }

    /// How many keys show something at `now` and have a deadline.
    pub fn keys_ending(&self, now: WallTime) -> usize {
        let deadlines = &self.books.deadlines;
        deadlines.live().saturating_sub(deadlines.expired(now))
    }

    /// Up to where deadlines have passed for everybody: what ends before shows nowhere.
    pub(in crate::protocol) fn bound(&self) -> WallTime {
        self.books.bound()
    }

    /// The first deadline of a key that is kept.
    pub(in crate::protocol) fn first_deadline(&self) -> Option<WallTime> {
        self.books.deadlines.first().map(|(deadline, _)| WallTime(deadline))
    }

    /// The first deadline, and which key has it.
    pub(in crate::protocol) fn first_ending(&self) -> Option<(WallTime, Key)> {
        let (deadline, slot) = self.books.deadlines.first()?;
        Some((WallTime(deadline), self.key_at(slot)?))
    }

    /// Keys with deadlines up to `until`, in order, from `from` on.
    pub(in crate::protocol) fn ended_from(
        &self,
        from: (u64, Slot),
        until: WallTime,
    ) -> impl Iterator<Item = (u64, Slot)> {
        self.books.deadlines.from(from, until)
    }

    pub(in crate::protocol) fn key_at(&self, slot: Slot) -> Option<Key> {
        self.keys.get(slot.0 as usize)?.clone()
    }

    /// The greatest stamp of a key's cells, if it is ripe.
    pub(in crate::protocol) fn ripe(&self, key: &[u8], ripe: &Ripe) -> Option<Stamp> {
        self.map.get(key)?.ripe(ripe)
    }

    /// Whether the dots of all cells of a key are among these.
    pub(in crate::protocol) fn is_within(&self, key: &[u8], of: impl Fn(Dot) -> bool) -> bool {
        self.map.get(key).is_none_or(|entry| entry.cells().all(|(_, cell)| of(cell.dot())))
    }

    /// The dots of all cells of a key.
    pub(in crate::protocol) fn dots_at(&self, key: &[u8]) -> Vec<Dot> {
        let entry = self.map.get(key);
        entry.iter().flat_map(|entry| entry.cells()).map(|(_, cell)| cell.dot()).collect()
    }

    /// Takes out the cells of a key with stamps up to `last`: they count as displaced.
    pub(in crate::protocol) fn forget(&mut self, key: &Key, last: Stamp) {
        let Some(mut entry) = self.map.get_mut(&**key) else { return };
        let Some(slot) = entry.slot() else { return };
        let before = Before::of(key, &entry, &self.books);
        let old = entry.cells().filter(|(_, cell)| cell.stamp() <= last);
        let old: Vec<Field> = old.map(|(field, _)| field.cloned().unwrap_or_default()).collect();
        for field in old {
            if let Some(cell) = entry.take(&field, &mut self.books.index) {
                self.books.displace(key, &field, &cell);
            }
        }
        self.books.settle(key, &mut entry, slot, before);
        let is_empty = entry.cells().next().is_none();
        drop(entry);
        if is_empty {
            self.map.remove(&**key);
            self.keys[slot.0 as usize] = None;
            self.free.push(slot);
        }
    }

    /// What members claim about deadlines: the numbers of the cell, and what is in it.
    pub(in crate::protocol) fn claims(&self) -> Vec<(NodeId, Stamp, Dot, Claim)> {
        let Some(entry) = self.map.get(expiry::CLAIMS_KEY) else { return Vec::new() };
        let claim = |(field, cell): (Option<&Field>, &Cell)| {
            let node = <[u8; 16]>::try_from(field?.as_bytes()).ok().map(NodeId::from_bytes)?;
            Some((node, cell.stamp(), cell.dot(), Claim::decode(cell.content.value()?)?))
        };
        entry.cells().filter_map(claim).collect()
    }
}
