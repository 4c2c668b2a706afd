//! Lists: elements in the order of their places.
//!
//! Each element is a cell whose name is its place: a number, then the origin that pushed it, then which
//! of one push it is. A push to an end takes a number beyond all that show there, so pushes that did
//! not know of each other stand side by side in the order of their origins, and none is lost. What
//! names an element by where it stands needs strong mode, where the order is one.

use serde::{Deserialize, Serialize};

use super::super::cell::Content;
use super::super::role::{self, Place};
use super::super::store::{Kind, Shown};
use super::desk::Desk;
use super::number::span;
use super::{Answer, Refused, Why, Word};

/// How far apart the numbers of two pushes are: room for twenty insertions at one spot before all
/// places are given anew.
const SPACING: i64 = 1 << 20;

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum End {
    /// Where LPUSH puts elements.
    Left,
    /// Where RPUSH puts elements.
    Right,
}

/// An operation on lists.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the command of that name, its fields are its arguments")]
pub enum Lists<'a> {
    Push {
        #[serde(borrow)]
        key: Word<'a>,
        elements: Vec<Word<'a>>,
        end: End,
        /// LPUSHX and RPUSHX: only if there is a list.
        present: bool,
    },
    Pop {
        #[serde(borrow)]
        key: Word<'a>,
        end: End,
        count: Option<u64>,
    },
    /// LMPOP: from the first list that there is.
    PopFirst {
        #[serde(borrow)]
        keys: Vec<Word<'a>>,
        end: End,
        count: u64,
    },
    Range(#[serde(borrow)] Word<'a>, i64, i64),
    Length(#[serde(borrow)] Word<'a>),
    Index(#[serde(borrow)] Word<'a>, i64),
    Set(#[serde(borrow)] Word<'a>, i64, Word<'a>),
    Insert {
        #[serde(borrow)]
        key: Word<'a>,
        before: bool,
        pivot: Word<'a>,
        element: Word<'a>,
    },
    Remove(#[serde(borrow)] Word<'a>, i64, Word<'a>),
    Trim(#[serde(borrow)] Word<'a>, i64, i64),
    Move {
        #[serde(borrow)]
        from: Word<'a>,
        to: Word<'a>,
        from_end: End,
        to_end: End,
    },
    /// LPOS; no bound is zero.
    Position {
        #[serde(borrow)]
        key: Word<'a>,
        element: Word<'a>,
        rank: i64,
        count: Option<u64>,
        compared_max: u64,
    },
}

impl<'a> Lists<'a> {
    pub(super) fn is_write(&self) -> bool {
        !matches!(self, Self::Range(..) | Self::Length(_) | Self::Index(..) | Self::Position { .. })
    }

    pub(super) fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Push { present: true, .. } => Some(Why::Condition),
            Self::Pop { .. } | Self::PopFirst { .. } | Self::Move { .. } => Some(Why::Take),
            Self::Set(..) | Self::Insert { .. } | Self::Trim(..) => Some(Why::Position),
            Self::Remove(_, count, _) if *count != 0 => Some(Why::Position),
            _ => None,
        }
    }

    pub(super) fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::Push { key, .. }
            | Self::Pop { key, .. }
            | Self::Range(key, ..)
            | Self::Length(key)
            | Self::Index(key, _)
            | Self::Set(key, ..)
            | Self::Insert { key, .. }
            | Self::Remove(key, ..)
            | Self::Trim(key, ..)
            | Self::Position { key, .. } => vec![*key],
            Self::PopFirst { keys, .. } => keys.clone(),
            Self::Move { from, to, .. } => vec![*from, *to],
        }
    }

    pub(super) fn perform(&self, desk: &mut Desk<'_>) -> Result<Answer, Refused> {
        match self {
            Self::Push { key, elements, end, present } => {
                push(desk, key, elements, *end, *present).map(Answer::count)
            }
            Self::Pop { key, end, count } => {
                let exists = desk.look_for(key, Kind::List, |shown| shown.kind().is_some())?;
                let popped = pop(desk, key, *end, count.unwrap_or(1))?;
                Ok(match count {
                    None => Answer::bulk_or_nil(popped.into_iter().next()),
                    Some(_) if !exists => Answer::NilArray,
                    Some(_) => Answer::bulks(popped),
                })
            }
            Self::PopFirst { keys, end, count } => {
                for key in keys {
                    if desk.look_for(key, Kind::List, |shown| shown.kind().is_some())? {
                        let popped = pop(desk, key, *end, *count)?;
                        return Ok(Answer::Array(vec![Answer::bulk(key), Answer::bulks(popped)]));
                    }
                }
                Ok(Answer::NilArray)
            }
            Self::Range(key, start, end) => desk.look_for(key, Kind::List, |shown| {
                let span = span(*start, *end, length(shown)).unwrap_or(0..0);
                let skipped = shown.elements().skip(span.start).take(span.len());
                Answer::bulks(skipped.map(|(_, element)| element))
            }),
            Self::Length(key) => {
                desk.look_for(key, Kind::List, |shown| Answer::count(length(shown)))
            }
            Self::Index(key, index) => desk.look_for(key, Kind::List, |shown| {
                let at = at(shown, *index);
                Answer::bulk_or_nil(at.map(|(_, element)| element))
            }),
            Self::Set(key, index, element) => {
                let found = desk.look_for(key, Kind::List, |shown| match shown.kind() {
                    None => Err(Refused::NoKey),
                    Some(_) => at(shown, *index).map(|(place, _)| place).ok_or(Refused::NoIndex),
                })??;
                desk.put(key, role::list_field(found), Content::from(&**element));
                Ok(Answer::Ok)
            }
            Self::Insert { key, before, pivot, element } => {
                insert(desk, key, *before, pivot, element)
            }
            Self::Remove(key, count, element) => {
                let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
                let wanted = if *count == 0 { usize::MAX } else { wanted };
                let (found, all) = desk.look_for(key, Kind::List, |shown| {
                    let equal = |it: &(Place, &[u8])| it.1 == &**element;
                    let elements = shown.kind().map(|_| shown.elements());
                    let elements = elements.into_iter().flatten();
                    let places: Vec<_> = match *count < 0 {
                        false => elements.filter(equal).take(wanted).collect(),
                        true => elements.rev().filter(equal).take(wanted).collect(),
                    };
                    let places: Vec<_> = places.into_iter().map(|(place, _)| place).collect();
                    (places, length(shown))
                })?;
                take(desk, key, &found, all);
                Ok(Answer::count(found.len()))
            }
            Self::Trim(key, start, end) => {
                let (gone, all) = desk.look_for(key, Kind::List, |shown| {
                    let all = length(shown);
                    let kept = span(*start, *end, all).unwrap_or(0..0);
                    let places = shown.elements().take(all).enumerate();
                    let gone = places.filter(|(at, _)| !kept.contains(at));
                    (gone.map(|(_, (place, _))| place).collect::<Vec<_>>(), all)
                })?;
                take(desk, key, &gone, all);
                Ok(Answer::Ok)
            }
            Self::Move { from, to, from_end, to_end } => {
                move_one(desk, from, to, *from_end, *to_end)
            }
            Self::Position { key, element, rank, count, compared_max } => {
                desk.look_for(key, Kind::List, |shown| {
                    position(shown, element, *rank, *count, *compared_max)
                })
            }
        }
    }
}

fn length(shown: Shown<'_>) -> usize {
    shown.kind().map_or(0, |_| shown.count_of(Kind::List))
}

fn at(shown: Shown<'_>, index: i64) -> Option<(Place, &[u8])> {
    let length = length(shown);
    let span = span(index, index, length).filter(|_| index >= -(length as i64))?;
    match span.start < length / 2 {
        true => shown.elements().nth(span.start),
        false => shown.elements().nth_back(length - 1 - span.start),
    }
}

fn beyond(shown: Shown<'_>, end: End) -> i64 {
    let mut elements = shown.elements();
    let outermost = match end {
        _ if shown.kind().is_none() => None,
        End::Left => elements.next(),
        End::Right => elements.next_back(),
    };
    // The first push to the left goes left of zero: by that its place tells to which end it was.
    let first = if end == End::Left { -SPACING } else { 0 };
    outermost.map_or(first, |(place, _)| match end {
        End::Left => place.number.saturating_sub(SPACING),
        End::Right => place.number.saturating_add(SPACING),
    })
}

/// Adds elements; how many there are then.
fn push(
    desk: &mut Desk<'_>,
    key: &[u8],
    elements: &[Word<'_>],
    end: End,
    present: bool,
) -> Result<usize, Refused> {
    let (number, before) =
        desk.look_for(key, Kind::List, |shown| (beyond(shown, end), length(shown)))?;
    if present && before == 0 {
        return Ok(0);
    }
    if before == 0 {
        desk.begin(key);
    }
    let origin = desk.origin();
    let last = elements.len().saturating_sub(1);
    for (at, element) in elements.iter().enumerate() {
        let at = if end == End::Left { last - at } else { at };
        let place = Place { number, origin, index: u32::try_from(at).unwrap_or(u32::MAX) };
        desk.put(key, role::list_field(place), Content::from(&**element));
    }
    Ok(before + elements.len())
}

/// Takes elements out of a list of `all`.
fn take(desk: &mut Desk<'_>, key: &[u8], places: &[Place], all: usize) {
    for place in places {
        desk.put(key, role::list_field(*place), Content::Tombstone);
    }
    if !places.is_empty() && places.len() == all {
        desk.end(key);
    }
}

fn pop(desk: &mut Desk<'_>, key: &[u8], end: End, count: u64) -> Result<Vec<Vec<u8>>, Refused> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (popped, all) = desk.look_for(key, Kind::List, |shown| {
        let all = length(shown);
        let own = |(place, element): (Place, &[u8])| (place, element.to_vec());
        let count = count.min(all);
        let popped: Vec<_> = match end {
            End::Left => shown.elements().take(count).map(own).collect(),
            End::Right => shown.elements().rev().take(count).map(own).collect(),
        };
        (popped, all)
    })?;
    let places: Vec<_> = popped.iter().map(|(place, _)| *place).collect();
    take(desk, key, &places, all);
    Ok(popped.into_iter().map(|(_, element)| element).collect())
}

fn move_one(
    desk: &mut Desk<'_>,
    from: &[u8],
    to: &[u8],
    from_end: End,
    to_end: End,
) -> Result<Answer, Refused> {
    let exists = desk.look_for(from, Kind::List, |shown| shown.kind().is_some())?;
    if !exists {
        return Ok(Answer::Nil);
    }
    desk.look_for(to, Kind::List, |_| ())?;
    let (place, element, all) = desk
        .look_for(from, Kind::List, |shown| {
            let mut elements = shown.elements();
            let one = if from_end == End::Left { elements.next() } else { elements.next_back() };
            one.map(|(place, element)| (place, element.to_vec(), length(shown)))
        })?
        .ok_or(Refused::NoKey)?;
    // Put there before it is taken away here: a list of one that turns round is never empty.
    push(desk, to, &[Word(&element)], to_end, false)?;
    take(desk, from, &[place], if from == to { usize::MAX } else { all });
    Ok(Answer::Bulk(element))
}

fn insert(
    desk: &mut Desk<'_>,
    key: &[u8],
    before: bool,
    pivot: &[u8],
    element: &[u8],
) -> Result<Answer, Refused> {
    let found = desk.look_for(key, Kind::List, |shown| {
        shown.kind()?;
        let at = shown.elements().position(|(_, it)| it == pivot);
        Some((at, length(shown)))
    })?;
    let Some((at, all)) = found else { return Ok(Answer::Integer(0)) };
    let Some(at) = at else { return Ok(Answer::Integer(-1)) };
    // The element stands before number `at` then.
    let at = if before { at } else { at + 1 };
    if at == 0 || at == all {
        let end = if at == 0 { End::Left } else { End::Right };
        return push(desk, key, &[Word(element)], end, false).map(Answer::count);
    }
    let (left, right) = desk.look(key, |shown| {
        let mut two = shown.elements().skip(at - 1).map(|(place, _)| place.number);
        (two.next().unwrap_or(0), two.next().unwrap_or(0))
    });
    let origin = desk.origin();
    let middle = left + right.saturating_sub(left) / 2;
    if left < middle && middle < right {
        let place = Place { number: middle, origin, index: 0 };
        desk.put(key, role::list_field(place), Content::from(element));
        return Ok(Answer::count(all + 1));
    }
    // There is no room: all get new places, to the right of the old ones.
    let (mut elements, next) = desk.look(key, |shown| {
        let own = shown.elements().map(|(place, element)| (Some(place), element.to_vec()));
        (own.collect::<Vec<_>>(), beyond(shown, End::Right))
    });
    elements.insert(at, (None, element.to_vec()));
    let mut number = next;
    for (old, element) in elements {
        if let Some(old) = old {
            desk.put(key, role::list_field(old), Content::Tombstone);
        }
        let place = Place { number, origin, index: 0 };
        desk.put(key, role::list_field(place), Content::from(element));
        number = number.saturating_add(SPACING);
    }
    Ok(Answer::count(all + 1))
}

fn position(
    shown: Shown<'_>,
    element: &[u8],
    rank: i64,
    count: Option<u64>,
    compared_max: u64,
) -> Answer {
    let all = length(shown);
    let bound = |bound: u64| match bound {
        0 => usize::MAX,
        bound => usize::try_from(bound).unwrap_or(usize::MAX),
    };
    let skipped = usize::try_from(rank.unsigned_abs()).unwrap_or(usize::MAX).saturating_sub(1);
    let wanted = count.map_or(1, bound);
    let equal = |it: &(usize, (Place, &[u8]))| it.1.1 == element;
    let compared = bound(compared_max);
    let elements = shown.elements().take(all);
    let found: Vec<_> = match rank < 0 {
        false => {
            let numbered = elements.enumerate().take(compared).filter(equal);
            numbered.skip(skipped).take(wanted).map(|(at, _)| at).collect()
        }
        true => {
            let elements: Vec<_> = elements.enumerate().collect();
            let backwards = elements.into_iter().rev().take(compared).filter(equal);
            backwards.skip(skipped).take(wanted).map(|(at, _)| at).collect()
        }
    };
    match count {
        None => found.first().map_or(Answer::Nil, |at| Answer::count(*at)),
        Some(_) => Answer::Array(found.into_iter().map(Answer::count).collect()),
    }
}
