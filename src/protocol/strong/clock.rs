//! The time of the log, by which keys end in strong mode.
//!
//! An entry carries its time, and the log's time is the latest that an entry had: it never goes back. The
//! clock of one node must not decide it, as one that is years ahead would end all that has a deadline. So
//! voters tell each other the time, and whoever proposes an entry gives it the time that the clocks of a
//! majority of the voters show by then, or have passed: one wrong clock among three does nothing. Between
//! two words of a voter its clock is reckoned to go on as this node's does.
//!
//! Left out: while a voter has not been heard of since this one was started, one of the others whose clock
//! is behind holds the log's time back.

use std::collections::BTreeMap;

use super::super::boundary::Output;
use super::super::id::NodeId;
use super::super::operation::{Keys, Moment, Operation, Word};
use super::super::shard::Shard;
use super::super::time::{Time, WallTime};
use super::ledger::Call;
use super::requests::Asker;
use super::{HEARD_MAX, Posture};

/// What the clocks of other members showed, and when they said so.
#[derive(Debug, Default)]
pub(super) struct Clocks(BTreeMap<NodeId, (WallTime, Time)>);

impl Clocks {
    /// Takes note of what a member's clock shows; zero says that it does not know.
    pub(super) fn hear(&mut self, now: Time, node: NodeId, wall: WallTime) {
        if wall > WallTime(0) && (self.0.len() < HEARD_MAX || self.0.contains_key(&node)) {
            self.0.insert(node, (wall, now));
        }
    }

    /// What a member's clock shows by now.
    fn show(&self, now: Time, node: NodeId) -> Option<WallTime> {
        let (wall, heard) = self.0.get(&node)?;
        let since = u64::try_from(now.since(*heard).as_millis()).unwrap_or(u64::MAX);
        Some(WallTime(wall.0.saturating_add(since)))
    }
}

impl Shard {
    /// The time that the clocks of a majority of the voters have come to, as far as is known.
    fn voters_time(&self, now: Time) -> Option<WallTime> {
        let ledger = self.strong.ledger();
        let clock = |node: &NodeId| match *node == self.config.node {
            true => Some(self.wall()).filter(|wall| *wall > WallTime(0)),
            false => self.strong.clocks.show(now, *node),
        };
        let mut clocks: Vec<WallTime> = ledger.seats.values().filter_map(clock).collect();
        clocks.sort_unstable_by(|one, other| other.cmp(one));
        clocks.get(ledger.majority() - 1).copied()
    }

    /// Calls with the time that is right for an entry that is proposed now; their own, that of the nodes
    /// where they were asked for, if too little is known.
    pub(super) fn timed(&self, now: Time, mut calls: Vec<Call>) -> Vec<Call> {
        if let Some(wall) = self.voters_time(now) {
            calls.iter_mut().for_each(|call| call.moment.wall = wall);
        }
        calls
    }

    /// Proposes an entry that does nothing but bring the log to this time.
    pub(in crate::protocol) fn propose_time(
        &mut self,
        now: Time,
        wall: WallTime,
        output: &mut Output,
    ) {
        if self.posture() == Posture::Log {
            let operation = Operation::Keys(Keys::Delete(Vec::new())).encode();
            let call = Call { operation, moment: Moment { wall, dice: 0 } };
            self.dispatch(now, Asker::Nobody, call, output);
        }
    }

    /// Whether a request has to be an entry of the log: it writes, or it reads what may have ended, and the
    /// log decides the time.
    pub(super) fn goes_through_the_log(&self, call: &Call) -> bool {
        let Ok(operation) = Operation::decode(&call.operation) else { return true };
        let ends = |key: &Word<'_>| {
            self.store.reader().look(key, WallTime(0), |shown| shown.deadline().is_some())
        };
        operation.is_write()
            || operation.needs_store() && self.store.first_deadline().is_some()
            || operation.keys().iter().any(ends)
    }
}
