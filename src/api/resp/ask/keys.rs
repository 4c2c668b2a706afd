//! The commands on keys of any kind.

use super::{Asked, Misread, Unit};
use crate::protocol::operation::{Inside, Keys, Only, Operation, Refused};

type Read<'a> = Result<Operation<'a>, Misread>;

pub(in crate::api::resp) fn del<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Delete(it.words(1))))
}

pub(in crate::api::resp) fn exists<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Exists(it.words(1))))
}

pub(in crate::api::resp) fn type_of<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Type(it.word(1))))
}

pub(in crate::api::resp) fn rename<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Rename { from: it.word(1), to: it.word(2), absent: false }))
}

pub(in crate::api::resp) fn renamenx<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Rename { from: it.word(1), to: it.word(2), absent: true }))
}

pub(in crate::api::resp) fn copy<'a>(it: &Asked<'a>) -> Read<'a> {
    let (mut replace, mut at) = (false, 3);
    while at < it.len() {
        if it.is(at, "replace") {
            replace = true;
        } else if it.is(at, "db") && at + 1 < it.len() {
            if it.integer(at + 1)? != 0 {
                return Err(Misread::Text("ERR DB index is out of range"));
            }
            at += 1;
        } else {
            return Err(Refused::Syntax.into());
        }
        at += 1;
    }
    Ok(Operation::Keys(Keys::Copy { from: it.word(1), to: it.word(2), replace }))
}

pub(in crate::api::resp) fn expire<'a>(it: &Asked<'a>) -> Read<'a> {
    expire_at(it, &Unit { seconds: true, absolute: false })
}

pub(in crate::api::resp) fn pexpire<'a>(it: &Asked<'a>) -> Read<'a> {
    expire_at(it, &Unit { seconds: false, absolute: false })
}

pub(in crate::api::resp) fn expireat<'a>(it: &Asked<'a>) -> Read<'a> {
    expire_at(it, &Unit { seconds: true, absolute: true })
}

pub(in crate::api::resp) fn pexpireat<'a>(it: &Asked<'a>) -> Read<'a> {
    expire_at(it, &Unit { seconds: false, absolute: true })
}

fn expire_at<'a>(it: &Asked<'a>, unit: &Unit) -> Read<'a> {
    let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
    for at in 3..it.len() {
        let known = [("nx", &mut nx), ("xx", &mut xx), ("gt", &mut gt), ("lt", &mut lt)];
        let mut found = false;
        for (word, flag) in known {
            *flag |= it.is(at, word);
            found |= it.is(at, word);
        }
        if !found {
            return Err(Misread::Option(it.arguments.at(at).to_vec()));
        }
    }
    if nx && (xx || gt || lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(Misread::Text(text));
    }
    if gt && lt {
        return Err(Misread::Text("ERR GT and LT options at the same time are not compatible"));
    }
    let ends = it.time(2, unit)?;
    let only = match (nx, xx, gt, lt) {
        (true, ..) => Only::Absent,
        (_, _, true, _) => Only::Later,
        (_, true, _, true) => Only::PresentEarlier,
        (_, _, _, true) => Only::Earlier,
        (_, true, ..) => Only::Present,
        _ => Only::Always,
    };
    Ok(Operation::Keys(Keys::Expire { key: it.word(1), ends, only }))
}

pub(in crate::api::resp) fn persist<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Persist(it.word(1))))
}

pub(in crate::api::resp) fn ttl<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::TimeToLive { key: it.word(1), milliseconds: false }))
}

pub(in crate::api::resp) fn pttl<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::TimeToLive { key: it.word(1), milliseconds: true }))
}

pub(in crate::api::resp) fn expiretime<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::ExpireTime { key: it.word(1), milliseconds: false }))
}

pub(in crate::api::resp) fn pexpiretime<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::ExpireTime { key: it.word(1), milliseconds: true }))
}

pub(in crate::api::resp) fn object_encoding<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Encoding(it.word(2))))
}

pub(in crate::api::resp) fn object_refcount<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Inside { key: it.word(2), wanted: Inside::References }))
}

pub(in crate::api::resp) fn object_freq<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Inside { key: it.word(2), wanted: Inside::Frequency }))
}

pub(in crate::api::resp) fn object_idletime<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Inside { key: it.word(2), wanted: Inside::IdleTime }))
}

pub(in crate::api::resp) fn memory_usage<'a>(it: &Asked<'a>) -> Read<'a> {
    match it.len() {
        3 => {}
        5 if it.is(3, "samples") => {
            if it.integer(4)? < 0 {
                return Err(Refused::Syntax.into());
            }
        }
        _ => return Err(Refused::Syntax.into()),
    }
    Ok(Operation::Keys(Keys::Memory(it.word(2))))
}

pub(in crate::api::resp) fn dbsize<'a>(_: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Size))
}

pub(in crate::api::resp) fn randomkey<'a>(_: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::Random))
}

pub(in crate::api::resp) fn flush<'a>(it: &Asked<'a>) -> Read<'a> {
    match it.len() {
        1 => Ok(Operation::Keys(Keys::Flush)),
        2 if it.is(1, "sync") || it.is(1, "async") => Ok(Operation::Keys(Keys::Flush)),
        _ => Err(Refused::Syntax.into()),
    }
}

pub(in crate::api::resp) fn keys<'a>(it: &Asked<'a>) -> Read<'a> {
    Ok(Operation::Keys(Keys::All { pattern: it.word(1) }))
}

pub(in crate::api::resp) fn scan<'a>(it: &Asked<'a>) -> Read<'a> {
    // The type is an option of this one only.
    let of_type = (2..it.len()).step_by(2).find(|at| it.is(*at, "type") && at + 1 < it.len());
    let cursor = std::str::from_utf8(it.arguments.at(1)).ok().and_then(|it| it.parse().ok());
    let cursor = cursor.ok_or(Misread::Text("ERR invalid cursor"))?;
    let (mut count, mut pattern) = (10, None);
    for at in (2..it.len()).step_by(2).filter(|at| Some(*at) != of_type) {
        if at + 1 == it.len() {
            return Err(Refused::Syntax.into());
        } else if it.is(at, "match") {
            pattern = Some(it.word(at + 1));
        } else if it.is(at, "count") {
            let wanted = u64::try_from(it.integer(at + 1)?).ok().filter(|count| *count > 0);
            count = wanted.ok_or(Refused::Syntax)?;
        } else {
            return Err(Refused::Syntax.into());
        }
    }
    let kind = of_type.map(|at| it.word(at + 1));
    Ok(Operation::Keys(Keys::Scan { cursor, count, pattern, kind }))
}
