//! The commands on lists.

use super::{Asked, Misread};
use crate::protocol::operation::{End, Lists, Operation, Refused};

type Read<'a> = Result<Operation<'a>, Misread>;

fn push<'a>(it: &Asked<'a>, end: End, present: bool) -> Read<'a> {
    Ok(Operation::Lists(Lists::Push { key: it.word(1), elements: it.words(2), end, present }))
}

pub(in crate::api::resp) fn lpush<'a>(it: &Asked<'a>) -> Read<'a> {
    push(it, End::Left, false)
}

pub(in crate::api::resp) fn rpush<'a>(it: &Asked<'a>) -> Read<'a> {
    push(it, End::Right, false)
}

pub(in crate::api::resp) fn lpushx<'a>(it: &Asked<'a>) -> Read<'a> {
    push(it, End::Left, true)
}

pub(in crate::api::resp) fn rpushx<'a>(it: &Asked<'a>) -> Read<'a> {
    push(it, End::Right, true)
}

fn pop<'a>(it: &Asked<'a>, end: End) -> Read<'a> {
    let count = match it.len() {
        2 => None,
        3 => Some(it.positive(2)?),
        _ => return Err(Misread::Arity),
    };
    Ok(Operation::Lists(Lists::Pop { key: it.word(1), end, count }))
}

pub(in crate::api::resp) fn lpop<'a>(it: &Asked<'a>) -> Read<'a> {
    pop(it, End::Left)
}

pub(in crate::api::resp) fn rpop<'a>(it: &Asked<'a>) -> Read<'a> {
    pop(it, End::Right)
}

pub(in crate::api::resp) fn lmpop<'a>(it: &Asked<'a>) -> Read<'a> {
    let (keys, next) = it.counted_keys(1)?;
    let end = end(it, next)?;
    let count = match it.len() - next {
        1 => 1,
        3 if it.is(next + 1, "count") => {
            let count = u64::try_from(it.integer(next + 2)?).ok().filter(|count| *count > 0);
            count.ok_or(Misread::Text("ERR count should be greater than 0"))?
        }
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Lists(Lists::PopFirst { keys, end, count }))
}

fn end(it: &Asked<'_>, at: usize) -> Result<End, Misread> {
    match (it.is(at, "left"), it.is(at, "right")) {
        (true, _) => Ok(End::Left),
        (_, true) => Ok(End::Right),
        _ => Err(Refused::Syntax.into()),
    }
}

pub(in crate::api::resp) fn lrange<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Range(it.word(1), it.integer(2)?, it.integer(3)?)))
}

pub(in crate::api::resp) fn llen<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Length(it.word(1))))
}

pub(in crate::api::resp) fn lindex<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Index(it.word(1), it.integer(2)?)))
}

pub(in crate::api::resp) fn lset<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Set(it.word(1), it.integer(2)?, it.word(3))))
}

pub(in crate::api::resp) fn linsert<'a>(it: &Asked<'a>) -> Read<'a> {
    let before = it.is(2, "before");
    if !before && !it.is(2, "after") {
        return Err(Refused::Syntax.into());
    }
    let (key, pivot, element) = (it.word(1), it.word(3), it.word(4));
    Ok(Operation::Lists(Lists::Insert { key, before, pivot, element }))
}

pub(in crate::api::resp) fn lrem<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Remove(it.word(1), it.integer(2)?, it.word(3))))
}

pub(in crate::api::resp) fn ltrim<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Lists(Lists::Trim(it.word(1), it.integer(2)?, it.integer(3)?)))
}

pub(in crate::api::resp) fn lmove<'a>(it: &Asked<'a>) -> Read<'a> {
    let (from_end, to_end) = (end(it, 3)?, end(it, 4)?);
    Ok(Operation::Lists(Lists::Move { from: it.word(1), to: it.word(2), from_end, to_end }))
}

pub(in crate::api::resp) fn rpoplpush<'a>(it: &Asked<'a>) -> Read<'a> {
    let (from, to) = (it.word(1), it.word(2));
    Ok(Operation::Lists(Lists::Move { from, to, from_end: End::Right, to_end: End::Left }))
}

pub(in crate::api::resp) fn lpos<'a>(it: &Asked<'a>) -> Read<'a> {
    let (mut rank, mut count, mut compared_max) = (1, None, 0);
    for at in (3..it.len()).step_by(2) {
        if at + 1 == it.len() {
            return Err(Refused::Syntax.into());
        }
        let not_negative =
            |text| u64::try_from(it.integer(at + 1)?).map_err(|_| Misread::Text(text));
        if it.is(at, "rank") {
            rank = it.integer(at + 1)?;
            if rank == 0 {
                return Err(Misread::Text(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                     second ... or use negative to start from the end of the list",
                ));
            }
        } else if it.is(at, "count") {
            count = Some(not_negative("ERR COUNT can't be negative")?);
        } else if it.is(at, "maxlen") {
            compared_max = not_negative("ERR MAXLEN can't be negative")?;
        } else {
            return Err(Refused::Syntax.into());
        }
    }
    let (key, element) = (it.word(1), it.word(2));
    Ok(Operation::Lists(Lists::Position { key, element, rank, count, compared_max }))
}
