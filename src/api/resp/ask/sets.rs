//! The commands on sets.

use super::{Asked, Misread};
use crate::protocol::operation::{Combine, Operation, Refused, Sets};

type Read<'a> = Result<Operation<'a>, Misread>;

pub(in crate::api::resp) fn sadd<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Add(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn srem<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Remove(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn smembers<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Members(it.word(1))))
}

pub(in crate::api::resp) fn sismember<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Contains(it.word(1), it.word(2))))
}

pub(in crate::api::resp) fn smismember<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::ContainsMany(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn scard<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Size(it.word(1))))
}

pub(in crate::api::resp) fn spop<'a>(it: &Asked<'a>) -> Read<'a> {
    let count = match it.len() {
        2 => None,
        3 => Some(it.positive(2)?),
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sets(Sets::Pop(it.word(1), count)))
}

pub(in crate::api::resp) fn srandmember<'a>(it: &Asked<'a>) -> Read<'a> {
    let count = match it.len() {
        2 => None,
        3 => Some(it.random_count(2, false)?),
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sets(Sets::Random(it.word(1), count)))
}

pub(in crate::api::resp) fn smove<'a>(it: &Asked<'a>) -> Read<'a> {
    let (from, to, member) = (it.word(1), it.word(2), it.word(3));
    Ok(Operation::Sets(Sets::Move { from, to, member }))
}

pub(in crate::api::resp) fn sinter<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Combine(Combine::Inter, it.words(1))))
}

pub(in crate::api::resp) fn sunion<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Combine(Combine::Union, it.words(1))))
}

pub(in crate::api::resp) fn sdiff<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Combine(Combine::Diff, it.words(1))))
}

pub(in crate::api::resp) fn sinterstore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Store { how: Combine::Inter, to: it.word(1), keys: it.words(2) }))
}

pub(in crate::api::resp) fn sunionstore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Store { how: Combine::Union, to: it.word(1), keys: it.words(2) }))
}

pub(in crate::api::resp) fn sdiffstore<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Store { how: Combine::Diff, to: it.word(1), keys: it.words(2) }))
}

pub(in crate::api::resp) fn sintercard<'a>(it: &Asked<'a>) -> Read<'a> {
    let (keys, next) = it.counted_keys(1)?;
    let limit = match it.len() - next {
        0 => 0,
        2 if it.is(next, "limit") => {
            let limit = u64::try_from(it.integer(next + 1)?);
            limit.map_err(|_| Misread::Text("ERR LIMIT can't be negative"))?
        }
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Sets(Sets::InterSize { keys, limit }))
}

pub(in crate::api::resp) fn sscan<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Sets(Sets::Scan(it.word(1), it.part(2)?)))
}
