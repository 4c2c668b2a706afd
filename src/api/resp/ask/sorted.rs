//! The commands on sorted sets.

use super::{Asked, Misread};
use crate::protocol::operation::{
    By, Name, Operation, Refused, Score, Sorted, Toward, When, Word, float,
};

type Read<'a> = Result<Operation<'a>, Misread>;

pub(in crate::api::resp) fn zadd<'a>(it: &Asked<'a>) -> Read<'a> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    let (mut changed, mut increment) = (false, false);
    let mut at = 2;
    while at < it.len() {
        let flags = [
            ("nx", &mut nx),
            ("xx", &mut xx),
            ("gt", &mut gt),
            ("lt", &mut lt),
            ("ch", &mut changed),
            ("incr", &mut increment),
        ];
        let Some((_, flag)) = flags.into_iter().find(|(word, _)| it.is(at, word)) else { break };
        *flag = true;
        at += 1;
    }
    let rest = it.len() - at;
    if rest == 0 || !rest.is_multiple_of(2) {
        return Err(Refused::Syntax.into());
    }
    if nx && xx {
        let text = "ERR XX and NX options at the same time are not compatible";
        return Err(Misread::Text(text));
    }
    if [gt, lt, nx].into_iter().filter(|set| *set).count() > 1 {
        let text = "ERR GT, LT, and/or NX options at the same time are not compatible";
        return Err(Misread::Text(text));
    }
    if increment && rest > 2 {
        let text = "ERR INCR option supports a single increment-element pair";
        return Err(Misread::Text(text));
    }
    let pairs = (at..it.len()).step_by(2).map(|at| Ok((it.word(at + 1), it.float(at)?)));
    let pairs = pairs.collect::<Result<Vec<_>, Misread>>()?;
    let when = if nx {
        When::Absent
    } else if xx {
        When::Present
    } else {
        When::Always
    };
    let toward = if gt {
        Toward::Greater
    } else if lt {
        Toward::Less
    } else {
        Toward::Any
    };
    let key = it.word(1);
    Ok(Operation::Sorted(Sorted::Add { key, when, toward, changed, increment, pairs }))
}

pub(in crate::api::resp) fn zincrby<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Add {
        key: it.word(1),
        when: When::Always,
        toward: Toward::Any,
        changed: false,
        increment: true,
        pairs: vec![(it.word(3), it.float(2)?)],
    }))
}

pub(in crate::api::resp) fn zrem<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Remove(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn zscore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Score(it.word(1), it.word(2))))
}

pub(in crate::api::resp) fn zmscore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Scores(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn zcard<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Size(it.word(1))))
}

/// An end of a range of scores: `5`, `(5`, `-inf`.
fn score_end(bytes: &[u8]) -> Result<Score, Misread> {
    let (open, digits) = match bytes {
        [b'(', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let at = float(digits).ok_or(Misread::Text("ERR min or max is not a float"))?;
    Ok(Score { at, open })
}

/// An end of a range of names: `[a`, `(a`, `-`, `+`.
fn name_end(bytes: &[u8]) -> Result<Name<'_>, Misread> {
    match bytes {
        b"-" => Ok(Name::First),
        b"+" => Ok(Name::Last),
        [b'[', name @ ..] => Ok(Name::Closed(Word(name))),
        [b'(', name @ ..] => Ok(Name::Open(Word(name))),
        _ => Err(Misread::Text("ERR min or max not valid string range item")),
    }
}

fn by_score<'a>(it: &Asked<'a>, min: usize, max: usize) -> Result<By<'a>, Misread> {
    let (min, max) = (it.arguments.at(min), it.arguments.at(max));
    Ok(By::Score(score_end(min)?, score_end(max)?))
}

fn by_name<'a>(it: &Asked<'a>, min: usize, max: usize) -> Result<By<'a>, Misread> {
    let (min, max) = (it.arguments.at(min), it.arguments.at(max));
    Ok(By::Name(name_end(min)?, name_end(max)?))
}

fn by_rank<'a>(it: &Asked<'a>, start: usize, end: usize) -> Result<By<'a>, Misread> {
    Ok(By::Rank(it.integer(start)?, it.integer(end)?))
}

pub(in crate::api::resp) fn zcount<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Count(it.word(1), by_score(it, 2, 3)?)))
}

pub(in crate::api::resp) fn zlexcount<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Count(it.word(1), by_name(it, 2, 3)?)))
}

pub(in crate::api::resp) fn zremrangebyscore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::RemoveRange(it.word(1), by_score(it, 2, 3)?)))
}

pub(in crate::api::resp) fn zremrangebylex<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::RemoveRange(it.word(1), by_name(it, 2, 3)?)))
}

pub(in crate::api::resp) fn zremrangebyrank<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::RemoveRange(it.word(1), by_rank(it, 2, 3)?)))
}

/// What a command of the ZRANGE family fixes, and what it leaves to options.
#[derive(Clone, Copy, PartialEq)]
enum Fixed {
    Nothing,
    Rank,
    Score,
    Name,
}

fn range<'a>(
    it: &Asked<'a>,
    key: usize,
    fixed: Fixed,
    mut reverse: bool,
    stores: bool,
) -> Read<'a> {
    let (mut by, mut limit, mut scores) = (fixed, None, false);
    let mut at = key + 3;
    while at < it.len() {
        if it.is(at, "withscores") && !stores && fixed != Fixed::Name {
            scores = true;
        } else if it.is(at, "limit") && fixed != Fixed::Rank && at + 2 < it.len() {
            limit = Some((it.integer(at + 1)?, it.integer(at + 2)?));
            at += 2;
        } else if it.is(at, "byscore") && by == Fixed::Nothing {
            by = Fixed::Score;
        } else if it.is(at, "bylex") && by == Fixed::Nothing {
            by = Fixed::Name;
        } else if it.is(at, "rev") && fixed == Fixed::Nothing {
            reverse = true;
        } else {
            return Err(Refused::Syntax.into());
        }
        at += 1;
    }
    let ranked = matches!(by, Fixed::Nothing | Fixed::Rank);
    if limit.is_some() && ranked {
        return Err(Misread::Text(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    if scores && by == Fixed::Name {
        return Err(Misread::Text(
            "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
        ));
    }
    // Backwards the greater end comes first.
    let (min, max) = if reverse { (key + 2, key + 1) } else { (key + 1, key + 2) };
    let by = match by {
        Fixed::Nothing | Fixed::Rank => by_rank(it, key + 1, key + 2)?,
        Fixed::Score => by_score(it, min, max)?,
        Fixed::Name => by_name(it, min, max)?,
    };
    let to = stores.then(|| it.word(1));
    Ok(Operation::Sorted(Sorted::Range { key: it.word(key), by, reverse, limit, scores, to }))
}

pub(in crate::api::resp) fn zrange<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Nothing, false, false)
}

pub(in crate::api::resp) fn zrangestore<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 2, Fixed::Nothing, false, true)
}

pub(in crate::api::resp) fn zrevrange<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Rank, true, false)
}

pub(in crate::api::resp) fn zrangebyscore<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Score, false, false)
}

pub(in crate::api::resp) fn zrevrangebyscore<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Score, true, false)
}

pub(in crate::api::resp) fn zrangebylex<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Name, false, false)
}

pub(in crate::api::resp) fn zrevrangebylex<'a>(it: &Asked<'a>) -> Read<'a> {
    range(it, 1, Fixed::Name, true, false)
}

fn rank<'a>(it: &Asked<'a>, reverse: bool) -> Read<'a> {
    let score = match it.len() {
        3 => false,
        4 if it.is(3, "withscore") => true,
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sorted(Sorted::Rank { key: it.word(1), member: it.word(2), reverse, score }))
}

pub(in crate::api::resp) fn zrank<'a>(it: &Asked<'a>) -> Read<'a> {
    rank(it, false)
}

pub(in crate::api::resp) fn zrevrank<'a>(it: &Asked<'a>) -> Read<'a> {
    rank(it, true)
}

fn pop<'a>(it: &Asked<'a>, greatest: bool) -> Read<'a> {
    let count = match it.len() {
        2 => None,
        3 => Some(it.positive(2)?),
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sorted(Sorted::Pop { key: it.word(1), greatest, count }))
}

pub(in crate::api::resp) fn zpopmin<'a>(it: &Asked<'a>) -> Read<'a> {
    pop(it, false)
}

pub(in crate::api::resp) fn zpopmax<'a>(it: &Asked<'a>) -> Read<'a> {
    pop(it, true)
}

pub(in crate::api::resp) fn zrandmember<'a>(it: &Asked<'a>) -> Read<'a> {
    let count = if it.len() > 2 { Some(it.random_count(2, it.len() > 3)?) } else { None };
    let scores = match it.len() {
        2 | 3 => false,
        4 if it.is(3, "withscores") => true,
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sorted(Sorted::Random { key: it.word(1), count, scores }))
}

pub(in crate::api::resp) fn zscan<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sorted(Sorted::Scan(it.word(1), it.part(2)?)))
}
