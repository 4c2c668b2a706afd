//! What a write does to a key, in the words of Redis' keyspace notifications.
//!
//! It is told from the cell that was merged and not from the command, so that it reads the same at the
//! peer where the write was made and at every other. Where several commands of Redis make the same cells
//! they share a word: `INCR` and `DECR` are `incrby`, and whatever takes an element out of a list is
//! `lrem`.

use super::boundary::Output;
use super::cell::{Content, Field, Key};
use super::event::Event;
use super::role::{self, Role};
use super::shard::Shard;

/// What happened to a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Redis' word for it.
    pub name: &'static str,
    /// Redis' letter for the class that it belongs to.
    pub class: char,
}

/// Keys, and what happened to them, in that order.
pub type Changes = Vec<(Key, Change)>;

impl Change {
    /// The key is there no longer.
    pub const DELETED: Self = Self { name: "del", class: 'g' };
    /// The key's deadline has passed, by the clock of whoever says so.
    pub const EXPIRED: Self = Self { name: "expired", class: 'x' };

    /// What it means that a cell with this field now holds this; nothing for what no client knows.
    pub(super) fn of(field: &Field, content: &Content) -> Option<Self> {
        let bytes = field.as_bytes();
        let is_value = content.value().is_some();
        let (name, class) = match (field.is_whole_key(), Role::of(bytes), is_value) {
            (true, _, true) => ("set", '$'),
            (true, _, false) => return Some(Self::DELETED),
            (_, Role::Count, true) => ("incrby", '$'),
            (_, Role::Deadline, true) => ("expire", 'g'),
            (_, Role::Deadline, false) => ("persist", 'g'),
            (_, Role::Hash, true) => ("hset", 'h'),
            (_, Role::Hash, false) => ("hdel", 'h'),
            (_, Role::Set, true) => ("sadd", 's'),
            (_, Role::Set, false) => ("srem", 's'),
            (_, Role::List, true) => match role::place(bytes) {
                Some(place) if place.number < 0 => ("lpush", 'l'),
                _ => ("rpush", 'l'),
            },
            (_, Role::List, false) => ("lrem", 'l'),
            (_, Role::Sorted, true) => ("zadd", 'z'),
            (_, Role::Sorted, false) => ("zrem", 'z'),
            (_, Role::Count, false) | (_, Role::Other, _) => return None,
        };
        Some(Self { name, class })
    }
}

impl Shard {
    /// What a cell that comes would mean for its key, and whether the key is there.
    pub(super) fn change(
        &self,
        key: &Key,
        field: &Field,
        content: &Content,
    ) -> (Option<Change>, bool) {
        (Change::of(field, content), self.store.reader().remains(key))
    }

    /// Tells that a key has changed, unless it was not there and is not there now.
    pub(super) fn tell_change(
        &self,
        key: &Key,
        change: Option<Change>,
        was_there: bool,
        output: &mut Output,
    ) {
        let is_there = self.store.reader().remains(key);
        // What comes while this node fills itself is old to everybody else.
        if self.fill.is_some() || !was_there && !is_there {
            return;
        }
        let mut tell = |change| {
            let event = Event::Changed { key: key.clone(), change };
            // A command with many fields is one change.
            if output.events.last() != Some(&event) {
                output.events.push(event);
            }
        };
        change.into_iter().for_each(&mut tell);
        if !is_there && change != Some(Change::DELETED) {
            tell(Change::DELETED);
        }
    }

    /// Whether to tell an event for each change of a key.
    pub fn tell_changes(&mut self, tells: bool) {
        if tells && !self.tells_changes {
            self.tell_deadlines();
        }
        self.tells_changes = tells;
    }
}
