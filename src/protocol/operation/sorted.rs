//! Sorted sets: each member is a cell with its score, and its last write stands.
//!
//! Their order is made when it is asked for: what asks for a range or a rank sorts the members.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use super::super::cell::Content;
use super::super::role;
use super::super::store::{Kind, Shown};
use super::desk::{Desk, fits};
use super::number::span;
use super::part::{self, Part};
use super::{Answer, Mode, Refused, When, Why, Word};

/// An end of a range of scores.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Score {
    /// The score.
    pub at: f64,
    /// Whether the score itself is not in the range.
    pub open: bool,
}

/// An end of a range of members that have the same score.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Name<'a> {
    /// Before all.
    First,
    /// After all.
    Last,
    /// At this member.
    Closed(#[serde(borrow)] Word<'a>),
    /// Next to this member, which is not in the range.
    Open(#[serde(borrow)] Word<'a>),
}

/// Which members.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum By<'a> {
    /// From one place to another, both included; negative ones count from the end.
    Rank(i64, i64),
    /// By score.
    Score(Score, Score),
    /// By name.
    Name(#[serde(borrow)] Name<'a>, #[serde(borrow)] Name<'a>),
}

/// Which scores a ZADD changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Toward {
    /// All.
    #[default]
    Any,
    /// Those that become greater.
    Greater,
    /// Those that become less.
    Less,
}

/// An operation on sorted sets.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Sorted<'a> {
    Add {
        #[serde(borrow)]
        key: Word<'a>,
        when: When,
        toward: Toward,
        /// CH: answers how many changed instead of how many are new.
        changed: bool,
        /// INCR, or ZINCRBY: adds to the score and answers it.
        increment: bool,
        pairs: Vec<(Word<'a>, f64)>,
    },
    Remove(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    /// ZREMRANGEBYRANK and its relatives.
    RemoveRange(#[serde(borrow)] Word<'a>, #[serde(borrow)] By<'a>),
    Score(#[serde(borrow)] Word<'a>, Word<'a>),
    Scores(#[serde(borrow)] Word<'a>, Vec<Word<'a>>),
    Size(#[serde(borrow)] Word<'a>),
    /// ZCOUNT and ZLEXCOUNT.
    Count(#[serde(borrow)] Word<'a>, #[serde(borrow)] By<'a>),
    Range {
        #[serde(borrow)]
        key: Word<'a>,
        #[serde(borrow)]
        by: By<'a>,
        reverse: bool,
        limit: Option<(i64, i64)>,
        scores: bool,
        /// ZRANGESTORE.
        #[serde(borrow)]
        to: Option<Word<'a>>,
    },
    Rank {
        #[serde(borrow)]
        key: Word<'a>,
        member: Word<'a>,
        reverse: bool,
        score: bool,
    },
    Pop {
        #[serde(borrow)]
        key: Word<'a>,
        greatest: bool,
        count: Option<u64>,
    },
    Random {
        #[serde(borrow)]
        key: Word<'a>,
        count: Option<i64>,
        scores: bool,
    },
    Scan(#[serde(borrow)] Word<'a>, #[serde(borrow)] Part<'a>),
}

impl<'a> Sorted<'a> {
    pub(super) fn is_write(&self) -> bool {
        match self {
            Self::Range { to, .. } => to.is_some(),
            Self::Add { .. } | Self::Remove(..) | Self::RemoveRange(..) | Self::Pop { .. } => true,
            _ => false,
        }
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Add { increment: true, .. } => Some(Why::Count),
            Self::Add { when, toward, .. } if *when != When::Always || *toward != Toward::Any => {
                Some(Why::Condition)
            }
            Self::Pop { .. } => Some(Why::Take),
            Self::RemoveRange(_, By::Rank(..)) => Some(Why::Position),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::Range { key, to: Some(to), .. } => vec![*to, *key],
            Self::Add { key, .. }
            | Self::Remove(key, _)
            | Self::RemoveRange(key, _)
            | Self::Score(key, _)
            | Self::Scores(key, _)
            | Self::Size(key)
            | Self::Count(key, _)
            | Self::Range { key, .. }
            | Self::Rank { key, .. }
            | Self::Pop { key, .. }
            | Self::Random { key, .. }
            | Self::Scan(key, _) => vec![*key],
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        match self {
            Self::Add { .. } => self.add(desk),
            Self::Remove(key, names) => {
                let names = part::each_once(names);
                let found = desk.look_for(key, Kind::Sorted, |shown| {
                    let there = names.iter().filter(|name| score(shown, name).is_some());
                    there.map(|name| name.to_vec()).collect::<Vec<_>>()
                })?;
                remove(desk, key, &found);
                Ok(Answer::count(found.len()))
            }
            Self::RemoveRange(key, by) => {
                let found = desk.look_for(key, Kind::Sorted, |shown| {
                    let found = ranged(shown, by, false, None);
                    found.into_iter().map(|(_, member)| member.to_vec()).collect::<Vec<_>>()
                })?;
                remove(desk, key, &found);
                Ok(Answer::count(found.len()))
            }
            Self::Score(key, member) => desk.look_for(key, Kind::Sorted, |shown| {
                score(shown, member).map_or(Answer::Nil, Answer::Double)
            }),
            Self::Scores(key, names) => desk.look_for(key, Kind::Sorted, |shown| {
                let scores = names.iter().map(|name| score(shown, name));
                Answer::Array(scores.map(|it| it.map_or(Answer::Nil, Answer::Double)).collect())
            }),
            Self::Size(key) => desk.look_for(key, Kind::Sorted, |shown| {
                Answer::count(shown.kind().map_or(0, |_| shown.count_of(Kind::Sorted)))
            }),
            Self::Count(key, by) => desk.look_for(key, Kind::Sorted, |shown| {
                Answer::count(ranged(shown, by, false, None).len())
            }),
            Self::Range { key, by, reverse, limit, scores, to } => {
                let Some(to) = to else {
                    return desk.look_for(key, Kind::Sorted, |shown| {
                        told(ranged(shown, by, *reverse, *limit), *scores)
                    });
                };
                let found = desk.look_for(key, Kind::Sorted, |shown| {
                    let found = ranged(shown, by, *reverse, *limit);
                    let own = found.into_iter().map(|(score, member)| (score, member.to_vec()));
                    own.collect::<Vec<_>>()
                })?;
                let was_there = desk.kind(to).is_some();
                if was_there || !found.is_empty() {
                    desk.put(to, super::super::cell::Field::whole_key(), Content::Tombstone);
                }
                for (score, member) in &found {
                    put(desk, to, member, *score);
                }
                Ok(Answer::count(found.len()))
            }
            Self::Rank { key, member, reverse, score: with_score } => {
                desk.look_for(key, Kind::Sorted, |shown| {
                    let all = sorted(shown);
                    let at = all.iter().position(|(_, it)| *it == &**member);
                    let Some(at) = at else {
                        return if *with_score { Answer::NilArray } else { Answer::Nil };
                    };
                    let rank = if *reverse { all.len() - 1 - at } else { at };
                    match with_score {
                        false => Answer::count(rank),
                        true => Answer::Array(vec![Answer::count(rank), Answer::Double(all[at].0)]),
                    }
                })
            }
            Self::Pop { key, greatest, count } => {
                let wanted = usize::try_from(count.unwrap_or(1)).unwrap_or(usize::MAX);
                let popped = desk.look_for(key, Kind::Sorted, |shown| {
                    let mut all = sorted(shown);
                    if *greatest {
                        all.reverse();
                    }
                    let popped = all.into_iter().take(wanted);
                    popped.map(|(score, member)| (score, member.to_vec())).collect::<Vec<_>>()
                })?;
                let names: Vec<_> = popped.iter().map(|(_, member)| member.clone()).collect();
                remove(desk, key, &names);
                let flat = popped
                    .into_iter()
                    .flat_map(|(score, member)| [Answer::Bulk(member), Answer::Double(score)]);
                Ok(match count {
                    None => Answer::Array(flat.collect()),
                    Some(_) => Answer::Pairs(flat.collect()),
                })
            }
            Self::Random { key, count, scores } => {
                let size = desk.look_for(key, Kind::Sorted, |shown| {
                    shown.kind().map_or(0, |_| shown.count_of(Kind::Sorted))
                })?;
                let chosen = part::choose(desk, size, *count)?;
                desk.look_for(key, Kind::Sorted, |shown| {
                    let all: Vec<_> = sorted(shown);
                    let mut chosen = chosen.iter().filter_map(|at| all.get(*at).copied());
                    match count {
                        None => Answer::bulk_or_nil(chosen.next().map(|(_, member)| member)),
                        Some(_) => told(chosen.collect(), *scores),
                    }
                })
            }
            Self::Scan(key, part) => desk.look_for(key, Kind::Sorted, |shown| {
                let named = shown.kind().map(|_| shown.named(Kind::Sorted));
                // Redis writes scores as text here, in both versions of its protocol.
                part.answer(named.into_iter().flatten().map(|(name, value)| {
                    (name, Answer::bulk(super::number::plain(role::score(value))))
                }))
            }),
        }
    }

    fn add(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        let Self::Add { key, when, toward, changed, increment, pairs } = self else {
            return Err(Refused::Syntax);
        };
        let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
        fits(&names)?;
        let last = match increment {
            true => pairs.clone(),
            false => part::last_of_each(pairs),
        };
        let mut done = Vec::new();
        let (mut new_count, mut changed_count, mut score_now) = (0, 0, None);
        for (name, wanted) in last {
            let old = desk.look_for(key, Kind::Sorted, |shown| score(shown, &name))?;
            let wanted = match (increment, old) {
                (true, Some(old)) => old + wanted,
                _ => wanted,
            };
            if wanted.is_nan() {
                return Err(Refused::NotScore);
            }
            let allowed = match (when, old) {
                (When::Absent, Some(_)) | (When::Present, None) => false,
                (_, Some(old)) => match toward {
                    Toward::Any => true,
                    Toward::Greater => wanted > old,
                    Toward::Less => wanted < old,
                },
                _ => true,
            };
            if !allowed {
                continue;
            }
            score_now = Some(wanted);
            new_count += usize::from(old.is_none());
            changed_count += usize::from(old != Some(wanted));
            // In eventual mode a score that is the same here may not be at a peer.
            if old != Some(wanted) || desk.mode() == Mode::Eventual {
                done.push((name, wanted));
            }
        }
        if !done.is_empty() {
            desk.begin(key);
        }
        for (name, score) in done {
            put(desk, key, &name, score);
        }
        Ok(match (increment, changed) {
            (true, _) => score_now.map_or(Answer::Nil, Answer::Double),
            (false, true) => Answer::count(changed_count),
            (false, false) => Answer::count(new_count),
        })
    }
}

fn score(shown: Shown<'_>, member: &[u8]) -> Option<f64> {
    shown.kind()?;
    shown.value(&role::sorted_field(member)).map(role::score)
}

fn put(desk: &mut Desk<'_>, key: &[u8], member: &[u8], score: f64) {
    desk.put(key, role::sorted_field(member), Content::from(&role::score_value(score)[..]));
}

fn remove(desk: &mut Desk<'_>, key: &[u8], members: &[Vec<u8>]) {
    let all = desk.look(key, |shown| shown.count_of(Kind::Sorted));
    for member in members {
        desk.put(key, role::sorted_field(member), Content::Tombstone);
    }
    if !members.is_empty() && members.len() == all {
        desk.end(key);
    }
}

/// The members by score, and those of one score by name.
fn sorted<'a>(shown: Shown<'a>) -> Vec<(f64, &'a [u8])> {
    let named = shown.kind().map(|_| shown.named(Kind::Sorted));
    let named = named.into_iter().flatten();
    let mut all: Vec<_> = named.map(|(name, value)| (role::score(value), name)).collect();
    all.sort_by(|one, other| {
        one.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal).then(one.1.cmp(other.1))
    });
    all
}

impl Name<'_> {
    fn is_at_or_before(&self, member: &[u8]) -> bool {
        match self {
            Self::First => true,
            Self::Last => false,
            Self::Closed(name) => **name <= *member,
            Self::Open(name) => **name < *member,
        }
    }

    fn is_at_or_after(&self, member: &[u8]) -> bool {
        match self {
            Self::First => false,
            Self::Last => true,
            Self::Closed(name) => **name >= *member,
            Self::Open(name) => **name > *member,
        }
    }
}

fn ranged<'a>(
    shown: Shown<'a>,
    by: &By<'_>,
    reverse: bool,
    limit: Option<(i64, i64)>,
) -> Vec<(f64, &'a [u8])> {
    let mut all = sorted(shown);
    if reverse {
        all.reverse();
    }
    match by {
        By::Rank(start, end) => {
            let span = span(*start, *end, all.len()).unwrap_or(0..0);
            all = all.drain(span).collect();
        }
        By::Score(min, max) => all.retain(|(score, _)| {
            let above = if min.open { *score > min.at } else { *score >= min.at };
            above && if max.open { *score < max.at } else { *score <= max.at }
        }),
        By::Name(min, max) => {
            all.retain(|(_, member)| min.is_at_or_before(member) && max.is_at_or_after(member))
        }
    }
    let Some((offset, count)) = limit else { return all };
    let Ok(offset) = usize::try_from(offset) else { return Vec::new() };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    all.into_iter().skip(offset).take(count).collect()
}

fn told(found: Vec<(f64, &[u8])>, scores: bool) -> Answer {
    match scores {
        false => Answer::bulks(found.into_iter().map(|(_, member)| member)),
        true => Answer::Pairs(
            found
                .into_iter()
                .flat_map(|(score, member)| [Answer::bulk(member), Answer::Double(score)])
                .collect(),
        ),
    }
}
