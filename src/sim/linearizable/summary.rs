//! A history in a line, for reports, and its longest gap in acknowledged writes.

use std::fmt;
use std::time::Duration;

use super::history::{Action, History, Operation, Outcome};
use crate::protocol::time::Time;

/// A time without an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// When the last write before it was acknowledged.
    pub from: Time,
    /// When the first write after it was.
    pub to: Time,
}

/// What there is in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// All operations.
    pub operations: usize,
    /// Those that change something and were answered.
    pub writes_acknowledged: usize,
    /// Reads that were answered.
    pub reads: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Operations that were refused.
    pub refused: usize,
    /// The longest time between two acknowledged writes, whoever made them.
    pub longest_gap: Option<Gap>,
}

impl Gap {
    /// How long it is.
    pub fn length(&self) -> Duration {
        self.to.since(self.from)
    }
}

impl History {
    /// What there is in it.
    pub fn summary(&self) -> Summary {
        let count = |which: fn(&Operation) -> bool| {
            self.operations().iter().filter(|operation| which(operation)).count()
        };
        Summary {
            operations: self.operations().len(),
            writes_acknowledged: count(|it| it.answered().is_some() && it.action != Action::Read),
            reads: count(|it| it.answered().is_some() && it.action == Action::Read),
            unknown: count(|it| it.outcome == Outcome::Unknown),
            refused: count(|it| matches!(it.outcome, Outcome::Refused { .. })),
            longest_gap: longest(self.acknowledged()),
        }
    }

    /// The longest time without an acknowledged write within a span of time, its ends included: if
    /// none was acknowledged in it, all of it.
    pub fn longest_gap_within(&self, from: Time, to: Time) -> Gap {
        let within = self.acknowledged().into_iter().filter(|at| from < *at && *at < to);
        let instants: Vec<Time> = [from].into_iter().chain(within).chain([to]).collect();
        longest(instants).unwrap_or(Gap { from, to })
    }

    /// When writes were acknowledged, in order.
    fn acknowledged(&self) -> Vec<Time> {
        let writes = self.operations().iter().filter(|it| it.action != Action::Read);
        let mut instants: Vec<Time> = writes.filter_map(Operation::answered).collect();
        instants.sort_unstable();
        instants
    }
}

fn longest(instants: Vec<Time>) -> Option<Gap> {
    let gaps = instants.windows(2).map(|pair| Gap { from: pair[0], to: pair[1] });
    gaps.max_by_key(Gap::length)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, writes_acknowledged, reads, unknown, refused, .. } = self;
        write!(f, "{operations} operations: {writes_acknowledged} writes acknowledged, ")?;
        write!(f, "{reads} reads answered, {unknown} unknown, {refused} refused; ")?;
        match &self.longest_gap {
            Some(gap) => write!(
                f,
                "the longest gap between acknowledged writes was {:.1} ms, from {}",
                gap.length().as_secs_f64() * 1e3,
                gap.from
            ),
            None => f.write_str("fewer than two writes were acknowledged"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::Answer;
    use super::*;

    fn at(millis: u64) -> Time {
        Time::START + Duration::from_millis(millis)
    }

    /// Gaps are between acknowledgements, in their order, and reads and unknown writes fill none.
    #[test]
    fn the_longest_gap_is_between_acknowledgements() {
        let mut history = History::default();
        let write = |history: &mut History, client, asked, answered| {
            let operation = history.ask(client, "k", Action::Write(format!("{asked}")), at(asked));
            history.answer(operation, Answer::Done, at(answered));
        };
        write(&mut history, 1, 0, 100);
        write(&mut history, 2, 5, 20);
        write(&mut history, 1, 110, 150);
        let read = history.ask(3, "k", Action::Read, at(21));
        history.answer(read, Answer::Value(None), at(60));
        history.ask(3, "k", Action::Write("lost".to_owned()), at(70));
        let refused = history.ask(2, "k", Action::Write("no".to_owned()), at(61));
        history.refuse(refused, at(62));
        let summary = history.summary();
        assert_eq!(summary.longest_gap, Some(Gap { from: at(20), to: at(100) }));
        assert_eq!(
            summary.to_string(),
            "6 operations: 3 writes acknowledged, 1 reads answered, 1 unknown, 1 refused; the \
             longest gap between acknowledged writes was 80.0 ms, from 20.000 ms"
        );
        let within = history.longest_gap_within(at(100), at(400));
        assert_eq!(within, Gap { from: at(150), to: at(400) });
        let empty = history.longest_gap_within(at(300), at(400));
        assert_eq!(empty, Gap { from: at(300), to: at(400) });
    }
}
