//! Is a whole history of requests linearizable, and if not, which requests show it?
//!
//! A history is what clients asked and were told, with the times on one clock. It is *linearizable* if
//! every request can be given one instant between its asking and its answer, so that a single copy
//! that carried the requests out at these instants would have given the same answers. That is a
//! question about each key alone (locality), so [`History::check`] asks it per key, and for each
//! takes the way that fits:
//!
//! | what the key's history has | way | takes | where |
//! |---|---|---|---|
//! | a witness in every answer | replay in the order that the witnesses claim | n log n | `witness` |
//! | reads and writes, no value written twice | zones | n log n | `zones` |
//! | anything else | search, within a [`Budget`] | exponential at worst | `search` |
//!
//! # What must stay true
//! - A request of *unknown outcome* may take effect at any time after it was asked, or never. It is
//!   never taken for one that failed, nor for one that succeeded.
//! - A refusal is a proof: each [`Violation`] names requests that no order can reconcile, or says that
//!   the order that the witnesses claim is false. An acceptance is one, too. What could not be decided
//!   within the budget is told apart from both.
//! - Times that are equal count as overlapping: a clock too coarse makes the check weaker, never wrong.
//!
//! Hand-made histories in `known_tests` and laws against brute force in `law_tests` show that each way
//! accepts what is right and refuses what is not. `how_long_it_takes` there measures: 100,000
//! requests of 20 clients to one key take zones 45 ms and witnesses 17 ms, 2,000 take the search 0.3 to
//! 0.8 s (one core of a shared two-core machine, release build).
//!
//! # What is left out
//! Requests to several keys at once: they would need one history for all of them. Expiry. A key is
//! taken to be absent at the start.
//!
//! Sources: Herlihy and Wing, "Linearizability: A Correctness Condition for Concurrent Objects" (1990),
//! section 2 for the definition and section 3.1 for locality. Gibbons and Korach, "Testing Shared
//! Memories" (1997), section 4 for zones. Wing and Gong, "Testing and Verifying Concurrent Objects"
//! (1993) and Lowe, "Testing for Linearizability" (2017), section 4, for the search.

mod history;
#[cfg(test)]
mod known_tests;
#[cfg(test)]
mod law_tests;
mod model;
mod search;
mod stale;
mod summary;
mod verdict;
mod witness;
mod zones;

pub use history::{Action, Answer, History, Operation, OperationId, Outcome, Witness};
pub use search::Budget;
pub use stale::StaleRead;
pub use summary::{Gap, Summary};
pub use verdict::{Verdict, Violation};

impl History {
    /// Whether all of it is linearizable: the first key that is not, else the keys that could not be
    /// decided within the budget of steps per key.
    ///
    /// ```
    /// use std::time::Duration;
    /// use quorumor::protocol::time::Time;
    /// use quorumor::sim::linearizable::{Action, Answer, Budget, History};
    ///
    /// let at = |millis| Time::START + Duration::from_millis(millis);
    /// let mut history = History::default();
    /// let write = history.ask(1, "k", Action::Write("a".to_owned()), at(0));
    /// history.answer(write, Answer::Done, at(10));
    /// let read = history.ask(2, "k", Action::Read, at(20));
    /// history.answer(read, Answer::Value(None), at(30));
    /// let verdict = history.check(Budget::default());
    /// assert!(verdict.is_violated(), "{verdict}");
    /// ```
    pub fn check(&self, budget: Budget) -> Verdict {
        let mut undecided = Vec::new();
        for operations in self.by_key() {
            match check_key(&operations, budget) {
                Verdict::Linearizable => {}
                Verdict::Undecided(keys) => undecided.extend(keys),
                violated @ Verdict::Violated(_) => return violated,
            }
        }
        match undecided.is_empty() {
            true => Verdict::Linearizable,
            false => Verdict::Undecided(undecided),
        }
    }
}

/// Decides about one key by the way that fits.
fn check_key(operations: &[&Operation], budget: Budget) -> Verdict {
    witness::check(operations)
        .or_else(|| zones::check(operations))
        .unwrap_or_else(|| search::check(operations, budget))
}
