//! Hashes: each field is a cell, and its last write stands.

use serde::{Deserialize, Serialize};

use super::super::cell::Content;
use super::super::role;
use super::super::store::{Kind, Shown};
use super::desk::{Desk, fits};
use super::number::{self, NoSum};
use super::part::{self, Part};
use super::{Answer, Refused, Why, Word, integer};

/// An operation on hashes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Hash<'a> {
    Set(#[serde(borrow)] Word<'a>, Vec<(Word<'a>, Word<'a>)>),
    /// HMSET, which answers less.
    SetMany(#[serde(borrow)] Word<'a>, Vec<(Word<'a>, Word<'a>)>),
    /// HSETNX.
    SetAbsent(#[serde(borrow)] Word<'a>, Word<'a>, Word<'a>),
    Get(#[serde(borrow)] Word<'a>, Word<'a>),
    GetMany(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Delete(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Exists(#[serde(borrow)] Word<'a>, Word<'a>),
    Size(#[serde(borrow)] Word<'a>),
    Names(#[serde(borrow)] Word<'a>),
    Values(#[serde(borrow)] Word<'a>),
    All(#[serde(borrow)] Word<'a>),
    /// HSTRLEN.
    Length(#[serde(borrow)] Word<'a>, Word<'a>),
    Add(#[serde(borrow)] Word<'a>, Word<'a>, i64),
    AddFloat(#[serde(borrow)] Word<'a>, Word<'a>, Word<'a>),
    /// HRANDFIELD; a negative count may name a field twice.
    Random {
        #[serde(borrow)]
        key: Word<'a>,
        count: Option<i64>,
        values: bool,
    },
    Scan(#[serde(borrow)] Word<'a>, #[serde(borrow)] Part<'a>),
}

impl<'a> Hash<'a> {
    pub(super) fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Set(..)
                | Self::SetMany(..)
                | Self::SetAbsent(..)
                | Self::Delete(..)
                | Self::Add(..)
                | Self::AddFloat(..)
        )
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::SetAbsent(..) => Some(Why::Condition),
            Self::Add(..) | Self::AddFloat(..) => Some(Why::Count),
            _ => None,
        }
    }

    pub(super) fn key(&self) -> Word<'a> {
        match self {
            Self::Set(key, _)
            | Self::SetMany(key, _)
            | Self::SetAbsent(key, ..)
            | Self::Get(key, _)
            | Self::GetMany(key, _)
            | Self::Delete(key, _)
            | Self::Exists(key, _)
            | Self::Size(key)
            | Self::Names(key)
            | Self::Values(key)
            | Self::All(key)
            | Self::Length(key, _)
            | Self::Add(key, ..)
            | Self::AddFloat(key, ..)
            | Self::Random { key, .. }
            | Self::Scan(key, _) => *key,
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        let key = self.key();
        let look = |desk: &Desk<'_>, read: &dyn Fn(Shown<'_>) -> Answer| {
            desk.look_for(&key, Kind::Hash, read)
        };
        match self {
            Self::Set(_, pairs) => Ok(Answer::count(set(desk, &key, pairs)?)),
            Self::SetMany(_, pairs) => set(desk, &key, pairs).map(|_| Answer::Ok),
            Self::SetAbsent(_, name, value) => {
                let absent = field(desk, &key, name)?.is_none();
                if absent {
                    set(desk, &key, &[(*name, *value)])?;
                }
                Ok(Answer::flag(absent))
            }
            Self::Get(_, name) => look(desk, &|shown| Answer::bulk_or_nil(value(shown, name))),
            Self::GetMany(_, names) => look(desk, &|shown| {
                let values = names.iter().map(|name| Answer::bulk_or_nil(value(shown, name)));
                Answer::Array(values.collect())
            }),
            Self::Delete(_, names) => delete(desk, &key, names),
            Self::Exists(_, name) => {
                look(desk, &|shown| Answer::flag(value(shown, name).is_some()))
            }
            Self::Size(_) => look(desk, &|shown| Answer::count(shown.count_of(Kind::Hash))),
            Self::Names(_) => {
                look(desk, &|shown| Answer::bulks(shown.named(Kind::Hash).map(|(name, _)| name)))
            }
            Self::Values(_) => {
                look(desk, &|shown| Answer::bulks(shown.named(Kind::Hash).map(|(_, value)| value)))
            }
            Self::All(_) => look(desk, &|shown| {
                let pairs = shown.named(Kind::Hash).flat_map(|(name, value)| [name, value]);
                Answer::Map(pairs.map(Answer::bulk).collect())
            }),
            Self::Length(_, name) => {
                look(desk, &|shown| Answer::count(value(shown, name).map_or(0, <[u8]>::len)))
            }
            Self::Add(_, name, by) => {
                let before = field(desk, &key, name)?;
                let before = before.map_or(Some(0), |text| integer(&text));
                let before = before.ok_or(Refused::HashNotInteger)?;
                let after = before.checked_add(*by).ok_or(Refused::Overflow)?;
                set(desk, &key, &[(*name, Word(after.to_string().as_bytes()))])?;
                Ok(Answer::Integer(after))
            }
            Self::AddFloat(_, name, by) => {
                let before = field(desk, &key, name)?.unwrap_or_else(|| b"0".to_vec());
                let after = number::sum(&before, by).map_err(|not| match not {
                    NoSum::NotFloat => Refused::HashNotFloat,
                    NoSum::NotFinite => Refused::NotFinite,
                })?;
                set(desk, &key, &[(*name, Word(after.as_bytes()))])?;
                Ok(Answer::bulk(after))
            }
            Self::Random { count, values, .. } => random(desk, &key, *count, *values),
            Self::Scan(_, part) => look(desk, &|shown| {
                part.answer(
                    shown.named(Kind::Hash).map(|(name, value)| (name, Answer::bulk(value))),
                )
            }),
        }
    }
}

fn value<'a>(shown: Shown<'a>, name: &[u8]) -> Option<&'a [u8]> {
    shown.kind().and_then(|_| shown.value(&role::hash_field(name)))
}

fn field(desk: &Desk<'_>, key: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
    desk.look_for(key, Kind::Hash, |shown| value(shown, name).map(<[u8]>::to_vec))
}

/// Sets fields; how many are new. Of a field named twice the last value counts.
fn set(desk: &mut Desk<'_>, key: &[u8], pairs: &[(Word<'_>, Word<'_>)]) -> Result<usize, Refused> {
    let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    fits(&names)?;
    let last = part::last_of_each(pairs);
    let new = desk.look_for(key, Kind::Hash, |shown| {
        last.iter().filter(|(name, _)| value(shown, name).is_none()).count()
    })?;
    desk.begin(key);
    for (name, value) in last {
        desk.put(key, role::hash_field(&name), Content::from(&*value));
    }
    Ok(new)
}

fn delete(desk: &mut Desk<'_>, key: &[u8], names: &[Word<'_>]) -> Result<Answer, Refused> {
    let names = part::each_once(names);
    let (found, all) = desk.look_for(key, Kind::Hash, |shown| {
        let found = names.iter().copied().filter(|name| value(shown, name).is_some());
        (found.collect::<Vec<_>>(), shown.count_of(Kind::Hash))
    })?;
    for name in &found {
        desk.put(key, role::hash_field(name), Content::Tombstone);
    }
    if !found.is_empty() && found.len() == all {
        desk.end(key);
    }
    Ok(Answer::count(found.len()))
}

fn random(
    desk: &mut Desk<'_>,
    key: &[u8],
    count: Option<i64>,
    values: bool,
) -> Result<Answer, Refused> {
    let size = desk.look_for(key, Kind::Hash, |shown| match shown.kind() {
        Some(_) => shown.count_of(Kind::Hash),
        None => 0,
    })?;
    let chosen = part::choose(desk, size, count)?;
    desk.look_for(key, Kind::Hash, |shown| {
        let all: Vec<_> = shown.named(Kind::Hash).take(size).collect();
        let chosen = chosen.iter().filter_map(|at| all.get(*at));
        if count.is_none() {
            return Answer::bulk_or_nil(chosen.map(|(name, _)| *name).next());
        }
        match values {
            false => Answer::bulks(chosen.map(|(name, _)| *name)),
            true => Answer::Pairs(
                chosen.flat_map(|(name, value)| [name, value]).map(Answer::bulk).collect(),
            ),
        }
    })
}
