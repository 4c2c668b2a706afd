//! Sets: an add wins over a removal that had not seen it.
//!
//! Of each member there is one cell per origin that has added it, which that origin writes anew with
//! every SADD. A removal puts tombstones into the cells that it sees; `role` says which prevails. In
//! strong mode a member that is there is not written again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::super::cell::{Content, Field};
use super::super::role;
use super::super::stamp::Dot;
use super::super::store::Kind;
use super::desk::{Desk, fits};
use super::part::{self, Part};
use super::{Answer, Mode, Refused, Why, Word};

/// How sets are put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Combine {
    /// What is in all of them.
    Inter,
    /// What is in any of them.
    Union,
    /// What is in the first and in no other.
    Diff,
}

/// An operation on sets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Sets<'a> {
    Add(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Remove(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Members(#[serde(borrow)] Word<'a>),
    Contains(#[serde(borrow)] Word<'a>, Word<'a>),
    ContainsMany(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Size(#[serde(borrow)] Word<'a>),
    Pop(#[serde(borrow)] Word<'a>, Option<u64>),
    Random(#[serde(borrow)] Word<'a>, Option<i64>),
    Move {
        #[serde(borrow)]
        from: Word<'a>,
        to: Word<'a>,
        member: Word<'a>,
    },
    Combine(Combine, #[serde(borrow)] Vec<Word<'a>>),
    /// SINTERSTORE and its relatives.
    Store {
        how: Combine,
        #[serde(borrow)]
        to: Word<'a>,
        keys: Vec<Word<'a>>,
    },
    /// SINTERCARD; no limit is zero.
    InterSize {
        #[serde(borrow)]
        keys: Vec<Word<'a>>,
        limit: u64,
    },
    Scan(#[serde(borrow)] Word<'a>, #[serde(borrow)] Part<'a>),
}

type Members = BTreeSet<Vec<u8>>;

impl<'a> Sets<'a> {
    pub(super) fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Add(..)
                | Self::Remove(..)
                | Self::Pop(..)
                | Self::Move { .. }
                | Self::Store { .. }
        )
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Pop(..) => Some(Why::Take),
            Self::Move { .. } => Some(Why::Condition),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::Add(key, _)
            | Self::Remove(key, _)
            | Self::Members(key)
            | Self::Contains(key, _)
            | Self::ContainsMany(key, _)
            | Self::Size(key)
            | Self::Pop(key, _)
            | Self::Random(key, _)
            | Self::Scan(key, _) => vec![*key],
            Self::Move { from, to, .. } => vec![*from, *to],
            Self::Combine(_, keys) | Self::InterSize { keys, .. } => keys.clone(),
            Self::Store { to, keys, .. } => [*to].into_iter().chain(keys.iter().copied()).collect(),
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        Ok(match self {
            Self::Add(key, names) => Answer::count(add(desk, key, names)?),
            Self::Remove(key, names) => Answer::count(remove(desk, key, names)?),
            Self::Members(key) => told(&members(desk, key)?),
            Self::Contains(key, member) => Answer::flag(contains(desk, key, member)?),
            Self::ContainsMany(key, names) => {
                let each = names.iter().map(|name| contains(desk, key, name).map(Answer::flag));
                Answer::Array(each.collect::<Result<_, _>>()?)
            }
            Self::Size(key) => desk.look_for(key, Kind::Set, |shown| match shown.kind() {
                Some(_) => Answer::count(shown.set_size()),
                None => Answer::Integer(0),
            })?,
            Self::Pop(key, count) => return pop(desk, key, *count),
            Self::Random(key, count) => {
                let all: Vec<_> = members(desk, key)?.into_iter().collect();
                let chosen = part::choose(desk, all.len(), *count)?;
                let mut chosen = chosen.iter().filter_map(|at| all.get(*at));
                match count {
                    None => Answer::bulk_or_nil(chosen.next()),
                    Some(_) => Answer::bulks(chosen),
                }
            }
            Self::Move { from, to, member } => {
                // From a key that does not exist nothing is moved, whatever the other one is.
                if !desk.look_for(from, Kind::Set, |shown| shown.kind().is_some())? {
                    return Ok(Answer::Integer(0));
                }
                desk.look_for(to, Kind::Set, |_| ())?;
                let there = contains(desk, from, member)?;
                if there && from != to {
                    remove(desk, from, &[*member])?;
                    add(desk, to, &[*member])?;
                }
                Answer::flag(there)
            }
            Self::Combine(how, keys) => told(&combined(desk, *how, keys)?),
            Self::Store { how, to, keys } => {
                let members = combined(desk, *how, keys)?;
                let was_there = desk.kind(to).is_some();
                if was_there || !members.is_empty() {
                    desk.put(to, Field::whole_key(), Content::Tombstone);
                }
                for member in &members {
                    desk.put(to, role::set_field(member, desk.origin()), Content::from(&b""[..]));
                }
                Answer::count(members.len())
            }
            Self::InterSize { keys, limit } => {
                let size = combined(desk, Combine::Inter, keys)?.len();
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                Answer::count(if limit == 0 { size } else { size.min(limit) })
            }
            Self::Scan(key, part) => desk.look_for(key, Kind::Set, |shown| {
                part.answer(shown.members().map(|member| (member, Answer::Nil)))
            })?,
        })
    }
}

fn told(members: &Members) -> Answer {
    Answer::Set(members.iter().map(Answer::bulk).collect())
}

fn members(desk: &Desk<'_>, key: &[u8]) -> Result<Members, Refused> {
    desk.look_for(key, Kind::Set, |shown| match shown.kind() {
        Some(_) => shown.members().map(<[u8]>::to_vec).collect(),
        None => Members::new(),
    })
}

fn contains(desk: &Desk<'_>, key: &[u8], member: &[u8]) -> Result<bool, Refused> {
    desk.look_for(key, Kind::Set, |shown| {
        shown.kind().is_some() && shown.adds(&role::set_prefix(member)).next().is_some()
    })
}

fn combined(desk: &Desk<'_>, how: Combine, keys: &[Word<'_>]) -> Result<Members, Refused> {
    let mut sets = keys.iter().map(|key| members(desk, key));
    let mut all = sets.next().unwrap_or(Ok(Members::new()))?;
    for set in sets {
        let set = set?;
        match how {
            Combine::Inter => all.retain(|member| set.contains(member)),
            Combine::Union => all.extend(set),
            Combine::Diff => all.retain(|member| !set.contains(member)),
        }
    }
    Ok(all)
}

/// What there is of a member that is to be added.
enum Found {
    /// The add of whoever adds it now.
    Own(Dot),
    /// Adds of others.
    Others,
    Nothing,
}

/// Adds members; how many were not there.
fn add(desk: &mut Desk<'_>, key: &[u8], names: &[Word<'_>]) -> Result<usize, Refused> {
    fits(names)?;
    let names = part::each_once(names);
    let fields = names.iter().map(|name| role::set_field(name, desk.origin()));
    let fields: Vec<Field> = fields.collect();
    let (found, nothing) = desk.look_for(key, Kind::Set, |shown| {
        let nothing = shown.kind().is_none();
        let has_others = |field: &Field| {
            !nothing && shown.adds(role::set_prefix_of(field.as_bytes())).next().is_some()
        };
        let found = fields.iter().map(|field| match shown.dot(field) {
            Some(own) => Found::Own(own),
            None if has_others(field) => Found::Others,
            None => Found::Nothing,
        });
        (found.collect::<Vec<_>>(), nothing)
    })?;
    if nothing {
        desk.begin(key);
    }
    let mut absent = 0;
    for (field, found) in fields.into_iter().zip(found) {
        match found {
            Found::Nothing => absent += 1,
            Found::Own(dot) if desk.is_unsaid(dot) => {
                desk.stand(dot);
                continue;
            }
            // A member that is there is added again: a removal that has not seen it must not take it.
            _ if desk.mode() == Mode::Eventual => {}
            _ => continue,
        }
        desk.put(key, field, Content::from(&b""[..]));
    }
    Ok(absent)
}

/// Removes members; how many were there.
fn remove(desk: &mut Desk<'_>, key: &[u8], names: &[Word<'_>]) -> Result<usize, Refused> {
    let names = part::each_once(names);
    let (found, mut left) = desk.look_for(key, Kind::Set, |shown| {
        let nothing = shown.kind().is_none();
        let names = names.iter().filter(|_| !nothing);
        let adds = names.map(|name| {
            let prefix = role::set_prefix(name);
            let adds = shown.adds(&prefix).map(|(field, dot)| (field.clone(), dot));
            adds.collect::<Vec<(Field, Dot)>>()
        });
        let found: Vec<_> = adds.filter(|adds| !adds.is_empty()).collect();
        (found, shown.count_of(Kind::Set))
    })?;
    for (field, dot) in found.iter().flatten() {
        desk.put_over(key, field.clone(), Content::Tombstone, Some(*dot));
        left = left.saturating_sub(1);
    }
    if !found.is_empty() && left == 0 {
        desk.end(key);
    }
    Ok(found.len())
}

fn pop(desk: &mut Desk<'_>, key: &[u8], count: Option<u64>) -> Result<Answer, Refused> {
    let all: Vec<_> = members(desk, key)?.into_iter().collect();
    let wanted = i64::try_from(count.unwrap_or(1)).unwrap_or(i64::MAX);
    let chosen = part::choose(desk, all.len(), Some(wanted))?;
    let chosen: Vec<_> = chosen.iter().filter_map(|at| all.get(*at)).collect();
    let names: Vec<_> = chosen.iter().map(|name| Word(name)).collect();
    remove(desk, key, &names)?;
    Ok(match count {
        None => Answer::bulk_or_nil(chosen.first()),
        Some(_) => Answer::Set(chosen.iter().map(Answer::bulk).collect()),
    })
}
