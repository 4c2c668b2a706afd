//! Keys of any kind: deleting, naming anew, deadlines, and looking through all of them.
//!
//! A deadline is a cell of its own beside the value, because it holds for the whole key: EXPIRE on a
//! hash of a million fields is one cell. SET and DEL cover it as they cover everything older; of an
//! EXPIRE and a SET that did not know of each other the one with the greater stamp decides: if it is
//! the EXPIRE, the new value has the deadline, if it is the SET, it has none.
//!
//! A key whose deadline has passed shows nothing, by the time of the moment, without any further
//! write. The first write to it begins with a deletion, so nothing of it comes back.

use serde::{Deserialize, Serialize};

use super::super::cell::{Content, Field};
use super::super::glob;
use super::super::role;
use super::super::store::Kind;
use super::super::time::WallTime;
use super::desk::Desk;
use super::{Answer, Refused, Why, Word};

/// The most bytes of names in one answer.
const NAMES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many keys are looked at in one go when a random one is wanted.
const TRIES_MAX: usize = 64;

/// On which condition a deadline is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Only {
    /// On none.
    #[default]
    Always,
    /// If there is none.
    Absent,
    /// If there is one.
    Present,
    /// If it is later than the one there is.
    Later,
    /// If it is earlier than the one there is, or there is none.
    Earlier,
    /// If there is one, and it is earlier than that.
    PresentEarlier,
}

/// When a key is to end, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Ends {
    /// Since 1970; what lies before that has passed.
    At(i64),
    /// From the operation's moment on, which in strong mode is the log's.
    After(i64),
}

impl Ends {
    /// In milliseconds since 1970.
    pub(super) fn at(self, now: WallTime) -> u64 {
        match self {
            Self::At(at) => u64::try_from(at).unwrap_or(0),
            Self::After(after) => now.0.saturating_add_signed(after),
        }
    }
}

/// An operation on keys of any kind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Keys<'a> {
    Delete(#[serde(borrow)] Vec<Word<'a>>),
    /// EXISTS and TOUCH; a key that is named twice counts twice.
    Exists(#[serde(borrow)] Vec<Word<'a>>),
    Type(#[serde(borrow)] Word<'a>),
    Rename {
        #[serde(borrow)]
        from: Word<'a>,
        to: Word<'a>,
        /// RENAMENX.
        absent: bool,
    },
    Copy {
        #[serde(borrow)]
        from: Word<'a>,
        to: Word<'a>,
        replace: bool,
    },
    /// EXPIRE and its relatives.
    Expire {
        #[serde(borrow)]
        key: Word<'a>,
        ends: Ends,
        only: Only,
    },
    Persist(#[serde(borrow)] Word<'a>),
    /// TTL and PTTL.
    TimeToLive {
        #[serde(borrow)]
        key: Word<'a>,
        milliseconds: bool,
    },
    /// EXPIRETIME and PEXPIRETIME.
    ExpireTime {
        #[serde(borrow)]
        key: Word<'a>,
        milliseconds: bool,
    },
    Encoding(#[serde(borrow)] Word<'a>),
    Memory(#[serde(borrow)] Word<'a>),
    /// DBSIZE.
    Size,
    Random,
    /// KEYS.
    All {
        #[serde(borrow)]
        pattern: Word<'a>,
    },
    Scan {
        cursor: u64,
        count: u64,
        #[serde(borrow)]
        pattern: Option<Word<'a>>,
        /// The only kind that is wanted; an unknown word finds nothing.
        #[serde(borrow)]
        kind: Option<Word<'a>>,
    },
    /// FLUSHALL and FLUSHDB.
    Flush,
    /// OBJECT with what there is nothing to tell of.
    Inside {
        #[serde(borrow)]
        key: Word<'a>,
        wanted: Inside,
    },
}

/// What OBJECT tells about the inside of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Inside {
    /// How many share it: each value is its key's own.
    References,
    /// How often it is used, which is not noted.
    Frequency,
    /// For how long it has not been used, which is not noted.
    IdleTime,
}

impl<'a> Keys<'a> {
    pub(super) fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Delete(_)
                | Self::Rename { .. }
                | Self::Copy { .. }
                | Self::Expire { .. }
                | Self::Persist(_)
                | Self::Flush
        )
    }

    /// Whether it reads more than the keys that it names.
    pub(super) fn needs_store(&self) -> bool {
        matches!(self, Self::Size | Self::Random | Self::All { .. } | Self::Scan { .. })
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Rename { .. } | Self::Copy { .. } => Some(Why::Condition),
            Self::Expire { only, .. } if *only != Only::Always => Some(Why::Condition),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::Delete(keys) | Self::Exists(keys) => keys.clone(),
            Self::Rename { from, to, .. } | Self::Copy { from, to, .. } => vec![*from, *to],
            Self::Type(key)
            | Self::Persist(key)
            | Self::Encoding(key)
            | Self::Memory(key)
            | Self::Inside { key, .. }
            | Self::Expire { key, .. }
            | Self::TimeToLive { key, .. }
            | Self::ExpireTime { key, .. } => vec![*key],
            Self::Size | Self::Random | Self::All { .. } | Self::Scan { .. } | Self::Flush => {
                Vec::new()
            }
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        Ok(match self {
            Self::Delete(keys) => {
                let mut keys = keys.clone();
                keys.sort_unstable();
                keys.dedup();
                Answer::count(keys.iter().filter(|key| desk.delete(key)).count())
            }
            Self::Exists(keys) => {
                Answer::count(keys.iter().filter(|key| desk.kind(key).is_some()).count())
            }
            Self::Type(key) => Answer::Status(desk.kind(key).map_or("none", Kind::name).to_owned()),
            Self::Rename { from, to, absent } => return rename(desk, from, to, *absent),
            Self::Copy { from, to, replace } => {
                if from == to {
                    return Err(Refused::SameKey);
                }
                let copied = desk.kind(from).is_some() && (*replace || desk.kind(to).is_none());
                if copied {
                    copy(desk, from, to);
                }
                Answer::flag(copied)
            }
            Self::Expire { key, ends, only } => expire(desk, key, *ends, *only),
            Self::Persist(key) => Answer::flag(desk.persist(key)),
            Self::TimeToLive { key, milliseconds } => {
                let now = desk.now().0;
                time_of(desk, key, |deadline| {
                    let left = deadline.saturating_sub(now);
                    if *milliseconds { left } else { left.saturating_add(500) / 1_000 }
                })
            }
            Self::ExpireTime { key, milliseconds } => {
                time_of(
                    desk,
                    key,
                    |deadline| {
                        if *milliseconds { deadline } else { deadline / 1_000 }
                    },
                )
            }
            Self::Encoding(key) => desk.look(key, |shown| match shown.kind() {
                None => Answer::Nil,
                Some(_) => Answer::bulk(shown.encoding()),
            }),
            Self::Memory(key) => desk.look(key, |shown| match shown.kind() {
                None => Answer::Nil,
                Some(_) => Answer::count(key.len() + shown.bytes()),
            }),
            Self::Inside { key, wanted } => match (desk.kind(key), wanted) {
                (None, _) => Answer::Nil,
                (_, Inside::References) => Answer::Integer(1),
                (_, Inside::Frequency) => return Err(Refused::NoFrequency),
                (_, Inside::IdleTime) => return Err(Refused::NoIdleTime),
            },
            Self::Size => {
                let now = desk.now();
                Answer::count(desk.store().map_or(0, |store| store.keys_shown(now)))
            }
            Self::Random => random(desk),
            Self::All { pattern } => {
                let (_, names) = scan(desk, 0, usize::MAX, Some(*pattern), None)?;
                Answer::Array(names)
            }
            Self::Scan { cursor, count, pattern, kind } => {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                let (next, names) = scan(desk, *cursor, count, *pattern, *kind)?;
                Answer::Array(vec![Answer::bulk(next.to_string()), Answer::Array(names)])
            }
            Self::Flush => {
                let mut keys = Vec::new();
                if let Some(store) = desk.store() {
                    store.scan(0, usize::MAX, desk.now(), |key, _| keys.push(key.clone()));
                }
                // Their order is that of the slots, which differs from replica to replica.
                keys.sort_unstable();
                keys.iter().for_each(|key| {
                    desk.delete(key);
                });
                Answer::Ok
            }
        })
    }
}

/// A time in a key's deadline: -2 if there is no key, -1 if it has no deadline.
fn time_of(desk: &Desk<'_>, key: &[u8], time: impl FnOnce(u64) -> u64) -> Answer {
    desk.look(key, |shown| match (shown.kind(), shown.deadline()) {
        (None, _) => Answer::Integer(-2),
        (_, None) => Answer::Integer(-1),
        (_, Some(deadline)) => Answer::Integer(i64::try_from(time(deadline)).unwrap_or(i64::MAX)),
    })
}

fn expire(desk: &mut Desk<'_>, key: &[u8], ends: Ends, only: Only) -> Answer {
    if desk.kind(key).is_none() {
        return Answer::Integer(0);
    }
    let at = ends.at(desk.now());
    let old = desk.look(key, |shown| shown.deadline());
    let done = match (only, old) {
        (Only::Always, _) => true,
        (Only::Absent, old) => old.is_none(),
        (Only::Present, old) => old.is_some(),
        (Only::Later, old) => old.is_some_and(|old| at > old),
        (Only::Earlier, old) => old.is_none_or(|old| at < old),
        (Only::PresentEarlier, old) => old.is_some_and(|old| at < old),
    };
    if done {
        desk.expire(key, at);
    }
    Answer::flag(done)
}

fn rename(desk: &mut Desk<'_>, from: &[u8], to: &[u8], absent: bool) -> Result<Answer, Refused> {
    if desk.kind(from).is_none() {
        return Err(Refused::NoKey);
    }
    let done = !absent || desk.kind(to).is_none();
    if done && from != to {
        copy(desk, from, to);
        desk.delete(from);
    }
    Ok(if absent { Answer::flag(done) } else { Answer::Ok })
}

/// Writes what one key shows under another name.
fn copy(desk: &mut Desk<'_>, from: &[u8], to: &[u8]) {
    let (cells, deadline) =
        desk.look(from, |shown| (shown.copied(desk.origin()), shown.deadline()));
    // What the other name had goes, so the whole key is written in any case.
    if !cells.iter().any(|(field, _)| field.is_whole_key()) {
        desk.put(to, Field::whole_key(), Content::Tombstone);
    }
    for (field, value) in cells {
        desk.put(to, field, Content::from(value));
    }
    if let Some(deadline) = deadline {
        let value = Content::from(&role::deadline_value(deadline)[..]);
        desk.put(to, role::deadline_field(), value);
    }
}

fn random(desk: &mut Desk<'_>) -> Answer {
    let Some(store) = desk.store() else { return Answer::Nil };
    let slots = store.slots();
    for _ in 0..TRIES_MAX {
        let mut found = None;
        let slot = desk.below(slots) as u64;
        store.scan(slot, 1, desk.now(), |key, _| found = Some(key.clone()));
        if let Some(key) = found {
            return Answer::bulk(&*key);
        }
    }
    // Hardly any slot has a key that shows: the first one will do.
    let (mut cursor, mut found) = (0, None);
    while found.is_none() {
        cursor = store.scan(cursor, TRIES_MAX, desk.now(), |key, _| {
            found.get_or_insert_with(|| key.clone());
        });
        if cursor == 0 {
            break;
        }
    }
    Answer::bulk_or_nil(found.as_deref())
}

/// The names of keys from a cursor on, and the cursor to go on with.
fn scan(
    desk: &Desk<'_>,
    cursor: u64,
    count: usize,
    pattern: Option<Word<'_>>,
    kind: Option<Word<'_>>,
) -> Result<(u64, Vec<Answer>), Refused> {
    let (mut names, mut bytes) = (Vec::new(), 0);
    let Some(store) = desk.store() else { return Ok((0, names)) };
    // A pattern that matches everything need not be tried.
    let pattern = pattern.filter(|pattern| pattern.0 != b"*");
    let next = store.scan(cursor, count, desk.now(), |key, of_kind| {
        let wanted = kind.is_none_or(|kind| of_kind.name().as_bytes().eq_ignore_ascii_case(&kind));
        if wanted && pattern.is_none_or(|pattern| glob::matches(&pattern, key)) {
            bytes += key.len();
            if bytes <= NAMES_BYTES_MAX {
                names.push(Answer::bulk(&**key));
            }
        }
    });
    if bytes > NAMES_BYTES_MAX { Err(Refused::TooMuch) } else { Ok((next, names)) }
}
