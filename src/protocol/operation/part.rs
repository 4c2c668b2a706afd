//! Parts of large values: a few members per call, some at random, each name once.
//!
//! A scan goes through the members in the order of their hashes, and its cursor is such a hash. So
//! whatever is added or removed meanwhile, a member that stays is told exactly once. Each call looks
//! at all members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::super::glob;
use super::desk::Desk;
use super::{Answer, Refused, Word};

/// The most answers that a random choice with repetition gives.
const CHOSEN_MAX: i64 = 1 << 20;

/// Which members a scan tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part<'a> {
    /// Where to go on; begins as 0.
    pub cursor: u64,
    /// About how many.
    pub count: u64,
    /// Only those that match.
    #[serde(borrow)]
    pub pattern: Option<Word<'a>>,
}

impl Part<'_> {
    /// The next cursor and the members with what belongs to them; [`Answer::Nil`] for nothing.
    pub(super) fn answer<'b>(&self, members: impl Iterator<Item = (&'b [u8], Answer)>) -> Answer {
        let mut behind = BTreeMap::new();
        for (member, value) in members {
            let hash = XxHash3_64::oneshot(member) >> 1;
            if hash >= self.cursor {
                behind.insert((hash, member), value);
            }
        }
        let count = usize::try_from(self.count).unwrap_or(usize::MAX).max(1);
        let last = behind.keys().nth(count - 1).map_or(u64::MAX, |(hash, _)| *hash);
        let more = behind.last_key_value().is_some_and(|((hash, _), _)| *hash > last);
        let mut told = Vec::new();
        for ((_, member), value) in behind.into_iter().take_while(|((hash, _), _)| *hash <= last) {
            if self.pattern.is_some_and(|pattern| !glob::matches(&pattern, member)) {
                continue;
            }
            told.push(Answer::bulk(member));
            if value != Answer::Nil {
                told.push(value);
            }
        }
        let next = if more { last + 1 } else { 0 };
        Answer::Array(vec![Answer::bulk(next.to_string()), Answer::Array(told)])
    }
}

/// The pairs, each name once, with the last value.
pub(super) fn last_of_each<'a, T: Copy>(pairs: &[(Word<'a>, T)]) -> Vec<(Word<'a>, T)> {
    match pairs {
        [one] => vec![*one],
        pairs => pairs.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect(),
    }
}

/// The names, each once.
pub(super) fn each_once<'a>(names: &[Word<'a>]) -> Vec<Word<'a>> {
    match names {
        [one] => vec![*one],
        names => names.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
    }
}

/// Which of `size` elements a random choice takes: one, so many different ones, or, if the count is
/// negative, so many, of which some may be the same.
pub(super) fn choose(
    desk: &mut Desk<'_>,
    size: usize,
    count: Option<i64>,
) -> Result<Vec<usize>, Refused> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let count = count.unwrap_or(1);
    if count < 0 {
        if count < -CHOSEN_MAX {
            return Err(Refused::TooMuch);
        }
        return Ok((count..0).map(|_| desk.below(size)).collect());
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(size);
    let mut all: Vec<usize> = (0..size).collect();
    for at in 0..count {
        let other = at + desk.below(size - at);
        all.swap(at, other);
    }
    all.truncate(count);
    Ok(all)
}
