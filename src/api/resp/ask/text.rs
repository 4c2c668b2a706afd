//! The commands on strings.

use super::{Asked, Misread, Unit};
use crate::protocol::operation::{Expiry, Operation, Refused, Text, When};

type Read<'a> = Result<Operation<'a>, Misread>;

pub(in crate::api::resp) fn get<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Get(it.word(1))))
}

pub(in crate::api::resp) fn mget<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::GetMany(it.words(1))))
}

pub(in crate::api::resp) fn set<'a>(it: &Asked<'a>) -> Read<'a> {
    let (mut expiry, mut when, mut get) = (Expiry::None, When::Always, false);
    let mut at = 3;
    while at < it.len() {
        let unit = Unit::of(it.arguments.at(at));
        if it.is(at, "nx") && when != When::Present {
            when = When::Absent;
        } else if it.is(at, "xx") && when != When::Absent {
            when = When::Present;
        } else if it.is(at, "get") {
            get = true;
        } else if it.is(at, "keepttl") && expiry == Expiry::None {
            expiry = Expiry::Keep;
        } else if let Some(unit) = unit
            && expiry == Expiry::None
            && at + 1 < it.len()
        {
            expiry = it.deadline(at + 1, &unit)?;
            at += 1;
        } else {
            return Err(Refused::Syntax.into());
        }
        at += 1;
    }
    Ok(Operation::Text(Text::Set { key: it.word(1), value: it.word(2), expiry, when, get }))
}

pub(in crate::api::resp) fn setex<'a>(it: &Asked<'a>) -> Read<'a> {
    set_until(it, true)
}

pub(in crate::api::resp) fn psetex<'a>(it: &Asked<'a>) -> Read<'a> {
    set_until(it, false)
}

fn set_until<'a>(it: &Asked<'a>, seconds: bool) -> Read<'a> {
    let expiry = it.deadline(2, &Unit { seconds, absolute: false })?;
    let (key, value, when, get) = (it.word(1), it.word(3), When::Always, false);
    Ok(Operation::Text(Text::Set { key, value, expiry, when, get }))
}

pub(in crate::api::resp) fn setnx<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::SetAbsent { key: it.word(1), value: it.word(2) }))
}

pub(in crate::api::resp) fn getset<'a>(it: &Asked<'a>) -> Read<'a> {
    let (key, value, when) = (it.word(1), it.word(2), When::Always);
    Ok(Operation::Text(Text::Set { key, value, expiry: Expiry::None, when, get: true }))
}

pub(in crate::api::resp) fn getdel<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Take(it.word(1))))
}

pub(in crate::api::resp) fn getex<'a>(it: &Asked<'a>) -> Read<'a> {
    let unit = Unit::of(it.arguments.at(2));
    let expiry = match (it.len(), unit) {
        (2, _) => Expiry::Keep,
        (3, None) if it.is(2, "persist") => Expiry::None,
        (4, Some(unit)) => it.deadline(3, &unit)?,
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Text(Text::GetExpire { key: it.word(1), expiry }))
}

pub(in crate::api::resp) fn mset<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::SetMany(it.pairs(1)?)))
}

pub(in crate::api::resp) fn msetnx<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::SetManyAbsent(it.pairs(1)?)))
}

pub(in crate::api::resp) fn append<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Append { key: it.word(1), value: it.word(2) }))
}

pub(in crate::api::resp) fn strlen<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Length(it.word(1))))
}

pub(in crate::api::resp) fn getrange<'a>(it: &Asked<'a>) -> Read<'a> {
    let (start, end) = (it.integer(2)?, it.integer(3)?);
    Ok(Operation::Text(Text::GetRange { key: it.word(1), start, end }))
}

pub(in crate::api::resp) fn setrange<'a>(it: &Asked<'a>) -> Read<'a> {
    let offset = it.integer(2)?;
    if offset < 0 {
        return Err(Refused::BadOffset.into());
    }
    Ok(Operation::Text(Text::SetRange { key: it.word(1), offset, value: it.word(3) }))
}

pub(in crate::api::resp) fn incr<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Add { key: it.word(1), by: 1 }))
}

pub(in crate::api::resp) fn decr<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Add { key: it.word(1), by: -1 }))
}

pub(in crate::api::resp) fn incrby<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Text(Text::Add { key: it.word(1), by: it.integer(2)? }))
}

pub(in crate::api::resp) fn decrby<'a>(it: &Asked<'a>) -> Read<'a> {
    let by = it.integer(2)?.checked_neg();
    let by = by.ok_or(Misread::Text("ERR decrement would overflow"))?;
    Ok(Operation::Text(Text::Add { key: it.word(1), by }))
}

pub(in crate::api::resp) fn incrbyfloat<'a>(it: &Asked<'a>) -> Read<'a> {
    it.float(2)?;
    Ok(Operation::Text(Text::AddFloat { key: it.word(1), by: it.word(2) }))
}
