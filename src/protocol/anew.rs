//! Cells that are made anew: written once more by this node, under new stamps, because nobody else has
//! them and their own dots count no longer. What a node brings that fills itself anew (`rebuild`), and
//! what comes out of a backup (`restore`).
//!
//! What must stay true: what the cells show together with what stands is what they would show if they had
//! come with their own stamps. So
//! - which of them stay is judged by their own stamps, against what stands and among themselves, before
//!   the first is written: a new stamp is above all others;
//! - a count that counts from a string made anew counts from its new stamp;
//! - whatever belongs to a key that has ended takes the deadline along: elsewhere the rest of the key may
//!   be forgotten by then, and it would come alive.
//!
//! Left out: a deletion or string of a whole key is not made anew where somebody has written to the key
//! later, since it would cover that, too.

use super::cell::{CellWrite, Content, Field, Key};
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
    /// Adds to cells that are made anew the deadlines of keys that have ended.
    pub(super) fn with_deadlines(&self, mut cells: Vec<CellWrite>) -> Vec<CellWrite> {
        let wall = self.judged_at(self.wall());
        let deadline = role::deadline_field();
        let covers = |cell: &CellWrite| cell.field.is_whole_key() || cell.field == deadline;
        let mut ended: Vec<(Key, u64)> = Vec::new();
        for cell in &cells {
            let key = &cell.key;
            let is_new = ended.last().is_none_or(|(last, _)| last != key);
            if is_new
                && let Some(at) = self.store.ended(key, wall)
                && !ended.iter().any(|(other, _)| other == key)
                && !cells.iter().any(|other| other.key == *key && covers(other))
            {
                ended.push((key.clone(), at));
            }
        }
        cells.extend(ended.into_iter().map(|(key, at)| {
            let field: Field = deadline.clone();
            let (key, seen) = self.store.prepare(&key, &field, self.config.origin);
            CellWrite { key, field, content: Content::from(&role::deadline_value(at)[..]), seen }
        }));
        cells
    }
}

#[cfg(test)]
mod laws;
