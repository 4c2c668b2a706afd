//! Everything else: a search for an order, within a budget.
//!
//! The search builds an order from the front. Next may come any operation that was asked before the
//! earliest answer among those not yet placed, if the single copy gives it the answer that it had. What
//! was placed and what the key holds is all that matters from there on; a pair that was met before is
//! not tried again. Finding that out takes exponential time at worst: so the steps are counted, and
//! beyond the budget the answer is "undecided".
//!
//! Three things keep it short without losing an order:
//! - An operation that fits and changes nothing is placed at once: moved to the front of any order, it
//!   leaves the order right.
//! - An unknown operation is tried only where it changes something, and not if what comes next
//!   overwrites it: it may as well have had no effect.
//! - Of unknown operations that ask for the same only the one asked first is tried.
//!
//! A refusal names where the longest attempt got stuck: what the key held, who had set it, and the
//! operations of which one had to come next.
//!
//! Sources: Wing and Gong, "Testing and Verifying Concurrent Objects", Journal of Parallel and
//! Distributed Computing 17 (1993), section 4; Lowe, "Testing for Linearizability", Concurrency and
//! Computation 29 (2017), section 4, for remembering what was met. The three shortcuts are our own.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Action, Operation};
use super::model::{self, Value};
use super::verdict::Verdict;

/// How far a search may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Steps per key. A step takes some microseconds and keeps some hundred bytes.
    pub steps: usize,
}

impl Default for Budget {
    /// About a second.
    fn default() -> Self {
        Self { steps: 300_000 }
    }
}

/// What was placed, and what came of it.
#[derive(Clone, Debug)]
struct Attempt {
    /// All answered operations before this one were placed,
    base: usize,
    /// and these after it, in order.
    extras: Vec<usize>,
    /// How many of each kind of unknown operation, where any.
    used: BTreeMap<usize, usize>,
    value: Value,
    /// Whether the last operation was an unknown one, which must not be overwritten next.
    is_hanging: bool,
    /// Who set the value; an index of all operations.
    changed_by: Option<usize>,
}

/// The operations of one key.
struct Search<'a> {
    /// By the time of asking.
    answered: Vec<&'a Operation>,
    /// Unknown ones that ask for the same, each by the time of asking.
    kinds: Vec<Vec<&'a Operation>>,
    /// Numbers for what the key may hold.
    values: BTreeMap<Value, usize>,
}

/// Decides.
pub(super) fn check(operations: &[&Operation], budget: Budget) -> Verdict {
    let (mut answered, mut unknown): (Vec<_>, Vec<&Operation>) =
        operations.iter().partition(|it| it.answer().is_some());
    answered.sort_by_key(|it| it.asked);
    unknown.retain(|it| it.action != Action::Read);
    unknown.sort_by_key(|it| it.asked);
    let mut kinds: Vec<Vec<&Operation>> = Vec::new();
    for operation in unknown {
        match kinds.iter_mut().find(|kind| kind[0].action == operation.action) {
            Some(kind) => kind.push(operation),
            None => kinds.push(vec![operation]),
        }
    }
    Search { answered, kinds, values: BTreeMap::new() }.run(budget)
}

impl<'a> Search<'a> {
    fn run(mut self, budget: Budget) -> Verdict {
        let mut met = BTreeSet::new();
        let mut open = vec![Attempt {
            base: 0,
            extras: Vec::new(),
            used: BTreeMap::new(),
            value: None,
            is_hanging: false,
            changed_by: None,
        }];
        let mut longest: Option<Attempt> = None;
        while let Some(attempt) = open.pop() {
            if attempt.base == self.answered.len() {
                return Verdict::Linearizable;
            }
            let fingerprint = self.fingerprint(&attempt);
            if !met.insert(fingerprint) {
                continue;
            }
            if met.len() > budget.steps {
                let key = self.answered[0].key.clone();
                return Verdict::Undecided(vec![key]);
            }
            self.go_on(&attempt, &mut open);
            if longest.as_ref().is_none_or(|longest| longest.placed() < attempt.placed()) {
                longest = Some(attempt);
            }
        }
        match longest {
            Some(longest) => self.stuck(&longest),
            None => Verdict::Linearizable,
        }
    }

    /// Adds whatever can come next, the likeliest last.
    fn go_on(&self, attempt: &Attempt, open: &mut Vec<Attempt>) {
        let next = self.next(attempt);
        let mut fitting = Vec::new();
        for place in &next {
            let operation = self.answered[*place];
            let (value, answer) = model::carry_out(&attempt.value, &operation.action);
            if Some(&answer) != operation.answer() {
                continue;
            }
            let Some(value) = value else {
                open.push(attempt.placing(*place, None));
                return;
            };
            if !(attempt.is_hanging && matches!(operation.action, Action::Write(_))) {
                fitting.push((*place, value));
            }
        }
        let by = next.iter().map(|place| self.answered[*place].done_by()).min();
        for (number, kind) in self.kinds.iter().enumerate() {
            let used = attempt.used.get(&number).copied().unwrap_or_default();
            let Some(operation) = kind.get(used) else { continue };
            if by.is_some_and(|by| operation.asked > by)
                || attempt.is_hanging && model::is_blind(&operation.action)
            {
                continue;
            }
            if let (Some(value), _) = model::carry_out(&attempt.value, &operation.action)
                && value != attempt.value
            {
                let mut taken = attempt.clone();
                *taken.used.entry(number).or_default() += 1;
                taken.value = value;
                taken.is_hanging = true;
                taken.changed_by = Some(self.answered.len() + number);
                open.push(taken);
            }
        }
        // Those answered first come first, as they most often did.
        fitting.sort_by_key(|(place, _)| std::cmp::Reverse(self.answered[*place].done_by()));
        open.extend(fitting.into_iter().map(|(place, value)| attempt.placing(place, Some(value))));
    }

    /// Answered operations that need not wait for any other.
    fn next(&self, attempt: &Attempt) -> Vec<usize> {
        let mut next: Vec<usize> = Vec::new();
        let mut earliest = None;
        let mut extras = attempt.extras.iter().peekable();
        for (place, operation) in self.answered.iter().enumerate().skip(attempt.base) {
            if extras.next_if(|extra| **extra == place).is_some() {
                continue;
            }
            if earliest.is_some_and(|earliest| operation.asked > earliest) {
                break;
            }
            next.push(place);
            let done_by = operation.done_by();
            earliest = Some(earliest.map_or(done_by, |earliest| done_by.min(earliest)));
        }
        next
    }

    fn fingerprint(&mut self, attempt: &Attempt) -> Vec<usize> {
        let fresh = self.values.len();
        let value = *self.values.entry(attempt.value.clone()).or_insert(fresh);
        let mut fingerprint = vec![attempt.base, value, usize::from(attempt.is_hanging)];
        fingerprint.push(attempt.extras.len());
        fingerprint.extend(&attempt.extras);
        fingerprint.extend(attempt.used.iter().flat_map(|(kind, count)| [*kind, *count]));
        fingerprint
    }

    fn stuck(&self, longest: &Attempt) -> Verdict {
        let held = match &longest.value {
            Some(value) => format!("{value:?}"),
            None => "nothing".to_owned(),
        };
        let mut named = Vec::new();
        if let Some(number) = longest.changed_by {
            let taken = || {
                let kind = number - self.answered.len();
                self.kinds[kind][longest.used[&kind] - 1]
            };
            named.push(self.answered.get(number).copied().unwrap_or_else(taken));
        }
        named.extend(self.next(longest).into_iter().map(|place| self.answered[place]));
        let why = format!(
            "of {} answered operations {} can be put in order at most; then the key holds {held}, \
             and none of those that must come next has the right answer",
            self.answered.len(),
            longest.placed(),
        );
        Verdict::violated(why, &named)
    }
}

impl Attempt {
    fn placed(&self) -> usize {
        self.base + self.extras.len()
    }

    fn placing(&self, place: usize, value: Option<Value>) -> Self {
        let mut next = self.clone();
        next.is_hanging = false;
        let at = next.extras.partition_point(|extra| *extra < place);
        next.extras.insert(at, place);
        let run = next.extras.iter().enumerate().take_while(|(at, it)| **it == next.base + at);
        let run = run.count();
        next.extras.drain(..run);
        next.base += run;
        if let Some(value) = value {
            next.value = value;
            next.changed_by = Some(place);
        }
        next
    }
}
