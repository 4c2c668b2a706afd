//! Answers that say where they stand: replayed in the order that they claim.
//!
//! Where every answer carries the place of its operation in the log, there is nothing to search for:
//! the operations are sorted by their witnesses, those that changed nothing after the change whose
//! witness they have, and carried out by a single copy. Three things can be wrong: two changes claim
//! one place; an operation claims a place after one that was asked only after it had been answered; an
//! answer is not the one that this order gives. A history that passes is linearizable, since an order
//! was found. One that fails breaks the promise of the witnesses, whether or not another order would
//! explain the answers.
//!
//! # Unknown outcomes
//! They have no witness. One takes effect here only where an answer cannot be explained without it,
//! right before that answer: earlier, nobody could have told the difference, and the later it stands the
//! less it forbids. Of those that ask for the same, the one asked first is taken. Where several ways
//! explain an answer and the one taken here leads nowhere, or there are too many to try, this check
//! does not decide, and leaves the history to the next one.

use super::history::{Action, Answer, Operation};
use super::model::{self, Value};
use super::verdict::Verdict;
use crate::protocol::time::Time;

/// How many combinations of unknown operations are tried to explain one answer: far more than such an
/// answer needs, and little time.
const COMBINATIONS_MAX: usize = 20_000;

/// Decides; nothing if an answer has no witness, or unknown outcomes leave it open.
pub(super) fn check(operations: &[&Operation]) -> Option<Verdict> {
    let mut answered = Vec::new();
    let mut unknown = Vec::new();
    for operation in operations {
        match operation.answer() {
            Some(answer) => answered.push((operation.witness()?, !changes(answer), *operation)),
            None => unknown.push(*operation),
        }
    }
    answered.sort_by_key(|(witness, is_read, it)| (*witness, *is_read, it.asked));
    for pair in answered.windows(2) {
        let [(one, false, first), (other, false, second)] = pair else { continue };
        if one == other {
            let why = format!("two changes claim the same place, {one}");
            return Some(Verdict::violated(why, &[first, second]));
        }
    }
    unknown.retain(|it| it.action != Action::Read);
    unknown.sort_by_key(|it| it.asked);
    // A length does not tell what was appended to.
    let hides = |it: &&Operation| matches!(it.action, Action::Append(_));
    let is_open = !unknown.is_empty() && answered.iter().any(|(_, _, it)| hides(it));
    Replay { value: None, changed_by: None, latest: None, unknown, is_open }.run(&answered)
}

/// Whether an operation with this answer changed anything.
fn changes(answer: &Answer) -> bool {
    matches!(answer, Answer::Done | Answer::Changed(true) | Answer::Sum(_) | Answer::Length(_))
}

/// The single copy.
struct Replay<'a> {
    value: Value,
    changed_by: Option<&'a Operation>,
    /// The operation asked last of all so far.
    latest: Option<&'a Operation>,
    /// What may still take effect, in the order in which it was asked.
    unknown: Vec<&'a Operation>,
    /// Whether an answer had several explanations, or may have had.
    is_open: bool,
}

/// What explains an answer.
enum Explanation {
    /// These of the unknown operations, in this order; whether others would have done as well.
    Found(Vec<usize>, bool),
    None,
    TooMany,
}

impl<'a> Replay<'a> {
    fn run<W>(mut self, answered: &[(W, bool, &'a Operation)]) -> Option<Verdict> {
        for (_, _, operation) in answered {
            let (mut next, mut answer) = model::carry_out(&self.value, &operation.action);
            if Some(&answer) != operation.answer() {
                match self.explain(operation) {
                    Explanation::Found(places, is_open) => {
                        self.is_open |= is_open;
                        self.apply(places);
                        (next, answer) = model::carry_out(&self.value, &operation.action);
                        assert_eq!(Some(&answer), operation.answer(), "it was explained");
                    }
                    Explanation::TooMany => return None,
                    Explanation::None if self.is_open => return None,
                    Explanation::None => return Some(self.unexplained(operation, &answer)),
                }
            }
            if let Some(latest) = self.latest
                && operation.done_by() < latest.asked
            {
                let why = "an operation claims a place after one that was asked only after the \
                           first had been answered";
                let verdict = Verdict::violated(why.to_owned(), &[operation, latest]);
                return (!self.is_open).then_some(verdict);
            }
            self.passes(operation);
            if let Some(value) = next {
                self.value = value;
                self.changed_by = Some(operation);
            }
        }
        Some(Verdict::Linearizable)
    }

    fn passes(&mut self, operation: &'a Operation) {
        if self.latest.is_none_or(|latest| latest.asked < operation.asked) {
            self.latest = Some(operation);
        }
    }

    /// Lets unknown operations take effect.
    fn apply(&mut self, mut places: Vec<usize>) {
        for place in &places {
            let operation = self.unknown[*place];
            if let (Some(value), _) = model::carry_out(&self.value, &operation.action) {
                self.value = value;
            }
            self.changed_by = Some(operation);
            self.passes(operation);
        }
        places.sort_unstable();
        for place in places.into_iter().rev() {
            self.unknown.remove(place);
        }
    }

    /// The fewest unknown operations after which an operation has its answer.
    fn explain(&self, operation: &Operation) -> Explanation {
        let by = operation.done_by();
        let mut level: Vec<(Value, Vec<usize>)> = vec![(self.value.clone(), Vec::new())];
        let mut tried = 0;
        while !level.is_empty() {
            let mut next = Vec::new();
            let mut found: Option<Vec<usize>> = None;
            let mut ways = 0;
            for (value, used) in &level {
                for place in self.candidates(used, by) {
                    tried += 1;
                    if tried > COMBINATIONS_MAX {
                        return Explanation::TooMany;
                    }
                    let (Some(value), _) = model::carry_out(value, &self.unknown[place].action)
                    else {
                        continue;
                    };
                    let used: Vec<usize> = used.iter().copied().chain([place]).collect();
                    let (_, answer) = model::carry_out(&value, &operation.action);
                    if Some(&answer) == operation.answer() {
                        ways += 1;
                        found.get_or_insert(used);
                    } else {
                        next.push((value, used));
                    }
                }
            }
            if let Some(places) = found {
                return Explanation::Found(places, ways > 1);
            }
            level = next;
        }
        Explanation::None
    }

    /// Unknown operations that may come after those used: of those that ask for the same the first,
    /// and none that hides the one before it.
    fn candidates(&self, used: &[usize], by: Time) -> Vec<usize> {
        let mut candidates: Vec<usize> = Vec::new();
        for (place, operation) in self.unknown.iter().enumerate() {
            if operation.asked > by {
                break;
            }
            let hides = !used.is_empty() && model::is_blind(&operation.action);
            let is_same = |other: &usize| self.unknown[*other].action == operation.action;
            if !hides && !used.contains(&place) && !candidates.iter().any(is_same) {
                candidates.push(place);
            }
        }
        candidates
    }

    fn unexplained(&self, operation: &Operation, answer: &Answer) -> Verdict {
        let claimed = operation.witness().map(|witness| witness.to_string()).unwrap_or_default();
        let why =
            format!("at {claimed}, where an operation claims to stand, the answer is {answer}");
        let named: Vec<&Operation> = self.changed_by.into_iter().chain([operation]).collect();
        Verdict::violated(why, &named)
    }
}
