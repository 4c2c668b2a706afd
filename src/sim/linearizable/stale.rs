//! Reads that are older than an acknowledged write: the promise in its plainest words.
//!
//! "No client, at any replica, reads older than an acknowledged write." A read breaks it if a write was
//! acknowledged before the read was asked, and itself asked after the write whose value was read had
//! been acknowledged: then, whatever the order, the value read had been replaced. Every such read
//! refutes linearizability; the reverse is not so. It says *how many* reads are stale, where a verdict
//! stops at the first; so it tells how far from the promise a weaker mode is.

use std::collections::BTreeMap;

use super::history::{Action, Answer, History, Operation};
use super::zones::{self, Origin};
use crate::protocol::time::Time;

/// A read of a value that had been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRead<'a> {
    /// The read.
    pub read: &'a Operation,
    /// The acknowledged write that it should have seen, or a later one.
    pub replaced_by: &'a Operation,
}

impl History {
    /// All stale reads on keys that are only read and written, each value once; other keys are left
    /// out.
    pub fn stale_reads(&self) -> Vec<StaleRead<'_>> {
        self.by_key().iter().filter_map(|operations| of_key(operations)).flatten().collect()
    }
}

fn of_key<'a>(operations: &[&'a Operation]) -> Option<Vec<StaleRead<'a>>> {
    let origins: BTreeMap<Option<&str>, Origin<'_>> = zones::origins(operations)?;
    // For each instant of acknowledgement, the write asked last of all that were acknowledged by then.
    let mut writes: Vec<(Time, &Operation)> = operations
        .iter()
        .filter(|it| matches!(it.action, Action::Write(_)))
        .filter_map(|it| Some((it.answered()?, *it)))
        .collect();
    writes.sort_by_key(|(at, _)| *at);
    for place in 1..writes.len() {
        if writes[place].1.asked < writes[place - 1].1.asked {
            writes[place].1 = writes[place - 1].1;
        }
    }
    let mut stale = Vec::new();
    for read in operations {
        let Some(Answer::Value(value)) = read.answer() else { continue };
        let before = writes.partition_point(|(at, _)| *at < read.asked);
        let Some((_, last)) = before.checked_sub(1).map(|place| writes[place]) else { continue };
        let is_replaced = match origins.get(&value.as_deref()) {
            Some(Origin::Start) => true,
            Some(Origin::Write(write)) => write.done_by() < last.asked,
            // A value of nobody's is another fault.
            None => false,
        };
        if is_replaced {
            stale.push(StaleRead { read, replaced_by: last });
        }
    }
    Some(stale)
}
