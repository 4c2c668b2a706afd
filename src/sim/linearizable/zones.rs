//! Reads and writes of values that are written once: decided by the zones of the values.
//!
//! A write and the reads of its value are a *cluster*. In any order that explains the answers the
//! operations of a cluster stand together, so the question is whether the clusters can be ordered. Let
//! `first` be the earliest answer in a cluster and `last` the latest asking. A must precede B if some
//! operation of A was answered before some operation of B was asked: if first(A) < last(B). An order
//! exists exactly if no two clusters must precede each other, and no read was answered before its
//! write was asked. (From a longer cycle follows one of two.)
//!
//! Where first < last, the cluster has a *forward* zone: throughout it the key has that value. Others
//! have *backward* zones: the value may come and go at any one instant of it. Two clusters are in
//! conflict exactly if two forward zones overlap, or a backward zone lies within a forward one. So
//! sorting decides: forward zones that do not overlap are in a row, and a backward zone can lie only
//! within the last one that begins before it.
//!
//! # Unknown outcomes
//! An unanswered write whose value nobody read is left out: if it took effect, then between two
//! operations that do not tell. One whose value was read did take effect, at any time after it was
//! asked: its own answer is put at the end of time. Unanswered reads say nothing. Both are exact.
//!
//! Source: Gibbons and Korach, "Testing Shared Memories", SIAM Journal on Computing 26 (1997),
//! section 4.1; the start is taken for a write before everything.

use std::collections::BTreeMap;

use super::history::{Action, Answer, Operation};
use super::verdict::Verdict;
use crate::protocol::time::Time;

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// It was there, or rather nothing was, before everything.
    Start,
    Write(&'a Operation),
}

/// A write and its reads, by what bounds them.
#[derive(Clone, Copy, Debug)]
struct Cluster<'a> {
    origin: Origin<'a>,
    /// The earliest answer, and whose.
    first: Option<(Time, Option<&'a Operation>)>,
    /// The latest asking, and whose.
    last: (Time, Option<&'a Operation>),
    is_read: bool,
}

/// The origin of every value; nothing if the key is not only read and written, or a value is written
/// twice, or an answer is of another kind than its question.
pub(super) fn origins<'a>(
    operations: &[&'a Operation],
) -> Option<BTreeMap<Option<&'a str>, Origin<'a>>> {
    let mut origins = BTreeMap::from([(None, Origin::Start)]);
    for operation in operations {
        match (&operation.action, operation.answer()) {
            (Action::Read, None | Some(Answer::Value(_))) => {}
            (Action::Write(value), None | Some(Answer::Done)) => {
                let known = origins.insert(Some(value.as_str()), Origin::Write(operation));
                if known.is_some() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(origins)
}

/// Decides; nothing if zones do not apply.
pub(super) fn check(operations: &[&Operation]) -> Option<Verdict> {
    let origins = origins(operations)?;
    let mut clusters: BTreeMap<Option<&str>, Cluster<'_>> =
        origins.iter().map(|(value, origin)| (*value, Cluster::new(*origin))).collect();
    for read in operations {
        let Some(Answer::Value(value)) = read.answer() else { continue };
        let Some(cluster) = clusters.get_mut(&value.as_deref()) else {
            let why = "a value was read that nobody had asked to write".to_owned();
            return Some(Verdict::violated(why, &[read]));
        };
        if let Origin::Write(write) = cluster.origin
            && read.done_by() < write.asked
        {
            let why = "a value was read before anybody asked to write it".to_owned();
            return Some(Verdict::violated(why, &[read, write]));
        }
        cluster.add(read);
    }
    let zones = clusters.into_values().filter(Cluster::took_effect);
    let (mut forward, backward): (Vec<_>, Vec<_>) = zones.partition(Cluster::is_forward);
    forward.sort_by_key(Cluster::first);
    for pair in forward.windows(2) {
        if pair[1].first() < Some(pair[0].last.0) {
            return Some(conflict(&pair[0], &pair[1]));
        }
    }
    for zone in backward {
        let before = forward.partition_point(|other| other.first() < Some(zone.last.0));
        if let Some(other) = before.checked_sub(1).map(|place| &forward[place])
            && zone.first() < Some(other.last.0)
        {
            return Some(conflict(other, &zone));
        }
    }
    Some(Verdict::Linearizable)
}

impl<'a> Cluster<'a> {
    fn new(origin: Origin<'a>) -> Self {
        match origin {
            // The start is before the first instant, so it must not be taken for an answer at it.
            Origin::Start => {
                Self { origin, first: None, last: (Time::START, None), is_read: false }
            }
            Origin::Write(write) => Self {
                origin,
                first: Some((write.done_by(), Some(write))),
                last: (write.asked, Some(write)),
                is_read: false,
            },
        }
    }

    fn add(&mut self, read: &'a Operation) {
        self.is_read = true;
        self.first = self.first.map(|first| match read.done_by() < first.0 {
            true => (read.done_by(), Some(read)),
            false => first,
        });
        if read.asked >= self.last.0 {
            self.last = (read.asked, Some(read));
        }
    }

    /// The earliest answer; nothing, which is less than every instant: before everything.
    fn first(&self) -> Option<Time> {
        self.first.map(|(at, _)| at)
    }

    fn took_effect(&self) -> bool {
        match self.origin {
            Origin::Start => self.is_read,
            Origin::Write(write) => self.is_read || write.answered().is_some(),
        }
    }

    fn is_forward(&self) -> bool {
        self.first() < Some(self.last.0)
    }

    /// The operations that bound it, and its write.
    fn named(&self) -> Vec<&'a Operation> {
        let write = match self.origin {
            Origin::Start => None,
            Origin::Write(write) => Some(write),
        };
        let first = self.first.and_then(|(_, operation)| operation);
        [write, first, self.last.1].into_iter().flatten().collect()
    }

    fn value(&self) -> String {
        match self.origin {
            Origin::Start => "its absence at the start".to_owned(),
            Origin::Write(write) => match &write.action {
                Action::Write(value) => format!("{value:?}"),
                other => other.to_string(),
            },
        }
    }
}

fn conflict(one: &Cluster<'_>, other: &Cluster<'_>) -> Verdict {
    let why = format!(
        "{one} must come before {other}, as an operation on it ended before one on the other began, \
         and {other} before {one} likewise",
        one = one.value(),
        other = other.value()
    );
    Verdict::violated(why, &[one.named(), other.named()].concat())
}
