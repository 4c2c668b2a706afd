//! The commands on hashes.

use super::{Asked, Misread};
use crate::protocol::operation::{Hash, Operation, Refused};

type Read<'a> = Result<Operation<'a>, Misread>;

pub(in crate::api::resp) fn hset<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Set(it.word(1), it.pairs(2)?)))
}

pub(in crate::api::resp) fn hmset<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::SetMany(it.word(1), it.pairs(2)?)))
}

pub(in crate::api::resp) fn hsetnx<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::SetAbsent(it.word(1), it.word(2), it.word(3))))
}

pub(in crate::api::resp) fn hget<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Get(it.word(1), it.word(2))))
}

pub(in crate::api::resp) fn hmget<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::GetMany(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn hdel<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Delete(it.word(1), it.words(2))))
}

pub(in crate::api::resp) fn hexists<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Exists(it.word(1), it.word(2))))
}

pub(in crate::api::resp) fn hlen<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Size(it.word(1))))
}

pub(in crate::api::resp) fn hkeys<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Names(it.word(1))))
}

pub(in crate::api::resp) fn hvals<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Values(it.word(1))))
}

pub(in crate::api::resp) fn hgetall<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::All(it.word(1))))
}

pub(in crate::api::resp) fn hstrlen<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Length(it.word(1), it.word(2))))
}

pub(in crate::api::resp) fn hincrby<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Add(it.word(1), it.word(2), it.integer(3)?)))
}

pub(in crate::api::resp) fn hincrbyfloat<'a>(it: &Asked<'a>) -> Read<'a> {
    if !it.float(3)?.is_finite() {
        return Err(Misread::Text("ERR value is NaN or Infinity"));
    }
    Ok(Operation::Hash(Hash::AddFloat(it.word(1), it.word(2), it.word(3))))
}

pub(in crate::api::resp) fn hrandfield<'a>(it: &Asked<'a>) -> Read<'a> {
    let count = if it.len() > 2 { Some(it.random_count(2, it.len() > 3)?) } else { None };
    let values = match it.len() {
        2 | 3 => false,
        4 if it.is(3, "withvalues") => true,
        _ => return Err(Refused::Syntax.into()),
    };
    Ok(Operation::Hash(Hash::Random { key: it.word(1), count, values }))
}

pub(in crate::api::resp) fn hscan<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Hash(Hash::Scan(it.word(1), it.part(2)?)))
}
