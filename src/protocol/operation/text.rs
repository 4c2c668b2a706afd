//! Strings, and the numbers in them.
//!
//! A string is the cell of its whole key. INCR in eventual mode does not write it: every origin has a
//! cell with the sum of what it has added since the string was set, and what shows is the string plus
//! these sums. So increments at different peers add up, and a SET begins anew. In strong mode INCR
//! writes the string.

use serde::{Deserialize, Serialize};

use super::super::cell::{Content, Field};
use super::super::role;
use super::super::store::Kind;
use super::desk::Desk;
use super::keys::Ends;
use super::number::{self, NoSum};
use super::{Answer, Mode, Refused, TEXT_BYTES_MAX, Why, Word, integer};

/// What becomes of the deadline of a key that is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Expiry {
    /// It has none from now on.
    #[default]
    None,
    /// It stays.
    Keep,
    /// It is set.
    Ends(Ends),
}

/// On which condition a key is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum When {
    /// On none.
    #[default]
    Always,
    /// If it shows nothing.
    Absent,
    /// If it shows something.
    Present,
}

/// An operation on strings.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Text<'a> {
    Get(#[serde(borrow)] Word<'a>),
    GetMany(#[serde(borrow)] Vec<Word<'a>>),
    Set {
        #[serde(borrow)]
        key: Word<'a>,
        value: Word<'a>,
        expiry: Expiry,
        when: When,
        get: bool,
    },
    /// SETNX: as SET with NX, but answers a number.
    SetAbsent {
        #[serde(borrow)]
        key: Word<'a>,
        value: Word<'a>,
    },
    SetMany(#[serde(borrow)] Vec<(Word<'a>, Word<'a>)>),
    /// MSETNX.
    SetManyAbsent(#[serde(borrow)] Vec<(Word<'a>, Word<'a>)>),
    /// GETDEL.
    Take(#[serde(borrow)] Word<'a>),
    /// GETEX; [`Expiry::None`] is PERSIST, [`Expiry::Keep`] changes nothing.
    GetExpire {
        #[serde(borrow)]
        key: Word<'a>,
        expiry: Expiry,
    },
    Append {
        #[serde(borrow)]
        key: Word<'a>,
        value: Word<'a>,
    },
    Length(#[serde(borrow)] Word<'a>),
    GetRange {
        #[serde(borrow)]
        key: Word<'a>,
        start: i64,
        end: i64,
    },
    SetRange {
        #[serde(borrow)]
        key: Word<'a>,
        offset: i64,
        value: Word<'a>,
    },
    Add {
        #[serde(borrow)]
        key: Word<'a>,
        by: i64,
    },
    AddFloat {
        #[serde(borrow)]
        key: Word<'a>,
        by: Word<'a>,
    },
}

impl<'a> Text<'a> {
    pub(super) fn is_write(&self) -> bool {
        match self {
            Self::Get(_) | Self::GetMany(_) | Self::Length(_) | Self::GetRange { .. } => false,
            Self::GetExpire { expiry, .. } => *expiry != Expiry::Keep,
            _ => true,
        }
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Set { when, get, .. } if *when != When::Always || *get => Some(Why::Condition),
            Self::SetAbsent { .. }
            | Self::SetManyAbsent(_)
            | Self::Take(_)
            | Self::Append { .. }
            | Self::SetRange { .. } => Some(Why::Condition),
            Self::AddFloat { .. } => Some(Why::Count),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::GetMany(keys) => keys.clone(),
            Self::SetMany(pairs) | Self::SetManyAbsent(pairs) => {
                pairs.iter().map(|(key, _)| *key).collect()
            }
            Self::Get(key)
            | Self::Take(key)
            | Self::Length(key)
            | Self::Set { key, .. }
            | Self::SetAbsent { key, .. }
            | Self::GetExpire { key, .. }
            | Self::Append { key, .. }
            | Self::GetRange { key, .. }
            | Self::SetRange { key, .. }
            | Self::Add { key, .. }
            | Self::AddFloat { key, .. } => vec![*key],
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        match self {
            Self::Get(key) => get(desk, key),
            Self::GetMany(keys) => {
                // What is no string reads as nothing here.
                let one = |key: &Word<'_>| get(desk, key).unwrap_or(Answer::Nil);
                Ok(Answer::Array(keys.iter().map(one).collect()))
            }
            Self::Set { key, value, expiry, when, get } => {
                self::set(desk, key, value, *expiry, *when, *get)
            }
            Self::SetAbsent { key, value } => {
                let absent = desk.kind(key).is_none();
                if absent {
                    write(desk, key, value, Expiry::None);
                }
                Ok(Answer::flag(absent))
            }
            Self::SetMany(pairs) => {
                set_many(desk, pairs);
                Ok(Answer::Ok)
            }
            Self::SetManyAbsent(pairs) => {
                let absent = pairs.iter().all(|(key, _)| desk.kind(key).is_none());
                if absent {
                    set_many(desk, pairs);
                }
                Ok(Answer::flag(absent))
            }
            Self::Take(key) => {
                let answer = get(desk, key)?;
                desk.delete(key);
                Ok(answer)
            }
            Self::GetExpire { key, expiry } => {
                let answer = get(desk, key)?;
                match (&answer, *expiry) {
                    (Answer::Nil, _) | (_, Expiry::Keep) => {}
                    (_, Expiry::None) => drop(desk.persist(key)),
                    (_, Expiry::Ends(ends)) => {
                        let at = ends.at(desk.now());
                        desk.expire(key, at);
                    }
                }
                Ok(answer)
            }
            Self::Append { key, value } => {
                let mut text = bytes(desk, key)?.unwrap_or_default();
                bounded(text.len(), value.len())?;
                text.extend_from_slice(value);
                let length = text.len();
                write(desk, key, &text, Expiry::Keep);
                Ok(Answer::count(length))
            }
            Self::Length(key) => desk.look_for(key, Kind::Text, |shown| {
                Answer::count(shown.text().map_or(0, |text| text.len()))
            }),
            Self::GetRange { key, start, end } => desk.look_for(key, Kind::Text, |shown| {
                let text = shown.text().unwrap_or_default();
                Answer::bulk(
                    number::text_span(*start, *end, text.len()).map_or(&[][..], |it| &text[it]),
                )
            }),
            Self::SetRange { key, offset, value } => set_range(desk, key, *offset, value),
            Self::Add { key, by } => add(desk, key, *by),
            Self::AddFloat { key, by } => add_float(desk, key, by),
        }
    }
}

fn get(desk: &Desk<'_>, key: &[u8]) -> Result<Answer, Refused> {
    desk.look_for(key, Kind::Text, |shown| match shown.kind() {
        Some(_) => Answer::bulk_or_nil(shown.text()),
        None => Answer::Nil,
    })
}

/// The string as bytes of its own.
fn bytes(desk: &Desk<'_>, key: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    desk.look_for(key, Kind::Text, |shown| {
        shown.kind().and_then(|_| shown.text()).map(|text| text.into_owned())
    })
}

fn bounded(length: usize, more: usize) -> Result<(), Refused> {
    match length.checked_add(more).is_some_and(|sum| sum <= TEXT_BYTES_MAX) {
        true => Ok(()),
        false => Err(Refused::TooLong),
    }
}

/// Sets a string, whatever was there.
pub(super) fn write(desk: &mut Desk<'_>, key: &[u8], value: &[u8], expiry: Expiry) {
    let kept = match expiry {
        Expiry::Keep => desk.look(key, |shown| shown.kind().and_then(|_| shown.deadline())),
        _ => None,
    };
    let ends = match expiry {
        Expiry::Ends(ends) => Some(ends.at(desk.now())),
        _ => None,
    };
    if ends.is_some_and(|at| at <= desk.now().0) {
        return desk.put(key, Field::whole_key(), Content::Tombstone);
    }
    desk.put(key, Field::whole_key(), Content::from(value));
    if let Some(at) = ends.or(kept) {
        desk.expire(key, at);
    }
}

fn set(
    desk: &mut Desk<'_>,
    key: &[u8],
    value: &[u8],
    expiry: Expiry,
    when: When,
    gets: bool,
) -> Result<Answer, Refused> {
    let before = if gets { get(desk, key)? } else { Answer::Nil };
    let done = match when {
        When::Always => true,
        When::Absent => desk.kind(key).is_none(),
        When::Present => desk.kind(key).is_some(),
    };
    if done {
        write(desk, key, value, expiry);
    }
    Ok(if gets || !done { before } else { Answer::Ok })
}

/// Of a key named twice the last value counts.
fn set_many(desk: &mut Desk<'_>, pairs: &[(Word<'_>, Word<'_>)]) {
    let last: std::collections::BTreeMap<_, _> = pairs.iter().copied().collect();
    for (key, value) in last {
        write(desk, &key, &value, Expiry::None);
    }
}

fn set_range(
    desk: &mut Desk<'_>,
    key: &[u8],
    offset: i64,
    value: &[u8],
) -> Result<Answer, Refused> {
    let offset = usize::try_from(offset).map_err(|_| Refused::BadOffset)?;
    let mut text = bytes(desk, key)?.unwrap_or_default();
    if value.is_empty() {
        return Ok(Answer::count(text.len()));
    }
    bounded(offset, value.len())?;
    let end = offset + value.len();
    if text.len() < end {
        text.resize(end, 0);
    }
    text[offset..end].copy_from_slice(value);
    write(desk, key, &text, Expiry::Keep);
    Ok(Answer::count(text.len()))
}

fn add(desk: &mut Desk<'_>, key: &[u8], by: i64) -> Result<Answer, Refused> {
    let (before, counted) = desk.look_for(key, Kind::Text, |shown| {
        let before = shown.kind().and_then(|_| shown.text());
        let before = before.map_or(Some(0), |text| integer(&text)).ok_or(Refused::NotInteger);
        (before, shown.kind().and_then(|_| shown.count(desk.origin())))
    })?;
    let after = before?.checked_add(by).ok_or(Refused::Overflow)?;
    match desk.mode() {
        Mode::Strong => write(desk, key, after.to_string().as_bytes(), Expiry::Keep),
        Mode::Eventual => {
            desk.begin(key);
            // A count that began before a string that has been set since is covered, so what shows
            // here goes on.
            let (sum, from) = match counted {
                Some((sum, from)) => (sum.checked_add(by).ok_or(Refused::Overflow)?, Some(from)),
                None => (by, None),
            };
            let value = Content::from(role::count_value(sum, from));
            desk.put(key, role::count_field(desk.origin()), value);
        }
    }
    Ok(Answer::Integer(after))
}

fn add_float(desk: &mut Desk<'_>, key: &[u8], by: &[u8]) -> Result<Answer, Refused> {
    let before = bytes(desk, key)?.unwrap_or_else(|| b"0".to_vec());
    let after = number::sum(&before, by).map_err(|not| match not {
        NoSum::NotFloat => Refused::NotFloat,
        NoSum::NotFinite => Refused::NotFinite,
    })?;
    write(desk, key, after.as_bytes(), Expiry::Keep);
    Ok(Answer::bulk(after))
}
