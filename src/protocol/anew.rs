//! Cells that are made anew: written once more by this node, under new stamps, because nobody else has
//! them and their own dots count no longer. What a node brings that fills itself anew (`rebuild`), and
//! what comes out of a backup (`restore`).
//!
//! What must stay true: what the cells show together with what stands is what they would show if they had
//! come with their own stamps. So
//! - which of them stay is judged by their own stamps, against what stands and among themselves, before
//!   the first is written: a new stamp is above all others;
//! - a count that counts from a string made anew counts from its new stamp;
//! - what belongs to a key that has ended begins with a deletion, once, before its first cell, and takes the
//!   deadline along: some may have forgotten the rest of the key by then and others not (`expiry`), and it
//!   would come alive where it is alone.
//!
//! Left out: a deletion or string of a whole key is not made anew where somebody has written to the key
//! later, since it would cover that, too. And where a key has ended that its writer had been told to keep,
//! only what is made anew stays.

use super::cell::{CellWrite, Content, Key};
use super::role::{self, Role};
use super::shard::Shard;
use super::stamp::Stamp;

/// The stamp that a whole key's must be above to cover this cell of a client's key.
pub(super) fn floor(stamp: Stamp, cell: &CellWrite) -> Stamp {
    match count_of(cell) {
        Some(value) => role::count_from(value, stamp),
        None => stamp,
    }
}

/// Has a count begin with the write in which it is made anew: what it counts from is made anew as well.
pub(super) fn count_from_now(cell: &mut CellWrite) {
    if let Some(value) = count_of(cell) {
        cell.content = Content::from(role::count_value(role::count_sum(value), None));
    }
}

/// The bytes of a count.
fn count_of(cell: &CellWrite) -> Option<&[u8]> {
    let is_count = !cell.key.is_reserved() && Role::of(cell.field.as_bytes()) == Role::Count;
    cell.content.value().filter(|_| is_count)
}

impl Shard {
    /// What the first write begins with in which cells of a key are made anew: nothing, unless the key has
    /// ended here. `decides` says whether a deadline, or its end, is among those cells.
    pub(super) fn beginning(&self, key: &Key, decides: bool) -> Vec<CellWrite> {
        let wall = self.judged_at(self.wall());
        let Some(at) = self.store.ended(key, wall) else { return Vec::new() };
        let mut cells = vec![self.cell_write(key, Content::Tombstone)];
        if !decides {
            let field = role::deadline_field();
            let (key, seen) = self.store.prepare(key, &field, self.config.origin);
            let content = Content::from(&role::deadline_value(at)[..]);
            cells.push(CellWrite { key, field, content, seen });
        }
        cells
    }
}

#[cfg(test)]
mod laws;
