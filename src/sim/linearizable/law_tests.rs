//! Laws: what a single copy does is accepted, what brute force refuses is refused, and all ways agree.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::history::{Action, Answer, History, Operation, Outcome, Witness};
use super::model::{self, Value};
use super::{Budget, Verdict, search, witness, zones};
use crate::protocol::time::Time;

/// How operations are drawn.
#[derive(Clone, Copy)]
struct Draw {
    clients: usize,
    operations: usize,
    /// Whether only reads and writes of values used once.
    is_plain: bool,
    /// One in so many has an unknown outcome.
    unknown_one_in: u64,
    /// The longest time between asking, effect and answer.
    delay_nanos: u64,
}

const SMALL: Draw =
    Draw { clients: 3, operations: 7, is_plain: false, unknown_one_in: 4, delay_nanos: 6 };

fn action(dice: &mut fastrand::Rng, is_plain: bool, number: usize) -> Action {
    match dice.u8(..if is_plain { 2 } else { 7 }) {
        0 => Action::Read,
        1 if is_plain => Action::Write(format!("v{number}")),
        1 => Action::Write(dice.u8(..3).to_string()),
        2 => Action::Delete,
        3 => {
            let expected = dice.bool().then(|| dice.u8(..3).to_string());
            Action::CompareAndSet { expected, new: dice.u8(..3).to_string() }
        }
        4 => Action::Append(dice.u8(..2).to_string()),
        _ => Action::Increment(i64::from(dice.u8(1..3))),
    }
}

/// What clients see of a single copy that answers late and sometimes never.
fn single_copy(dice: &mut fastrand::Rng, draw: Draw) -> History {
    let mut planned = Vec::new();
    let mut free = vec![0; draw.clients];
    for number in 0..draw.operations {
        let client = dice.usize(..draw.clients);
        let asked = free[client] + dice.u64(..draw.delay_nanos);
        let effect = asked + dice.u64(..draw.delay_nanos);
        let answered = effect + dice.u64(..draw.delay_nanos);
        let is_unknown = dice.u64(..draw.unknown_one_in) == 0;
        // It gives up, and what it asked for may happen at any time, or never.
        let effect = match is_unknown {
            true => dice.bool().then(|| effect + dice.u64(..8 * draw.delay_nanos)),
            false => Some(effect),
        };
        free[client] = answered + 1;
        let action = action(dice, draw.is_plain, number);
        planned.push((effect, client, action, asked, (!is_unknown).then_some(answered)));
    }
    planned.sort_by_key(|(effect, ..)| *effect);
    let (mut value, mut index) = (Value::None, 0);
    let mut history = History::default();
    for (effect, client, action, asked, answered) in planned {
        let id = history.ask(client, "k", action.clone(), Time::from_nanos(asked));
        if effect.is_none() {
            continue;
        }
        let (next, answer) = model::carry_out(&value, &action);
        if let Some(next) = next {
            value = next;
            index += 1;
        }
        if let Some(at) = answered {
            history.answer_at(id, answer, Witness { epoch: 1, index }, Time::from_nanos(at));
        }
    }
    history
}

/// Gives one answer another content; whether there was one to change.
fn corrupt(history: &History, dice: &mut fastrand::Rng) -> Option<History> {
    let mut operations = history.operations().to_vec();
    let values: Vec<Option<String>> = operations
        .iter()
        .filter_map(|it| match &it.action {
            Action::Write(value) => Some(Some(value.clone())),
            _ => None,
        })
        .chain([None])
        .collect();
    let place = dice.usize(..operations.len());
    let Outcome::Answered { answer, .. } = &mut operations[place].outcome else { return None };
    match answer {
        Answer::Value(value) => *value = values[dice.usize(..values.len())].clone(),
        Answer::Changed(changed) => *changed = !*changed,
        Answer::Sum(sum) => *sum += 1,
        Answer::Length(length) => *length += 1,
        Answer::Done | Answer::NoNumber => return None,
    }
    let mut corrupted = History::default();
    operations.into_iter().for_each(|operation| corrupted.push(operation));
    Some(corrupted)
}

/// Tries every order of every choice of the unknown operations.
fn brute_force(left: &[&Operation], value: &Value) -> bool {
    if left.iter().all(|it| it.answer().is_none()) {
        return true;
    }
    (0..left.len()).any(|place| {
        let operation = left[place];
        if left.iter().any(|other| other.done_by() < operation.asked) {
            return false;
        }
        let (next, answer) = model::carry_out(value, &operation.action);
        if operation.answer().is_some_and(|told| *told != answer) {
            return false;
        }
        let rest: Vec<&Operation> =
            left.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, it)| *it).collect();
        brute_force(&rest, &next.unwrap_or_else(|| value.clone()))
    })
}

/// What each way says that applies, against brute force.
fn compare(history: &History, are_witnesses_true: bool) {
    let operations: Vec<&Operation> = history.operations().iter().collect();
    let truth = brute_force(&operations, &None);
    let told = || {
        let lines: Vec<String> = operations.iter().map(|it| it.to_string()).collect();
        lines.join("\n")
    };
    let searched = search::check(&operations, Budget::default());
    assert!(!matches!(searched, Verdict::Undecided(_)), "{}", told());
    assert_eq!(searched.is_linearizable(), truth, "search: {searched}\n{}", told());
    if let Some(zones) = zones::check(&operations) {
        assert_eq!(zones.is_linearizable(), truth, "zones: {zones}\n{}", told());
    }
    if let Some(witness) = witness::check(&operations) {
        // A false witness may be refused although another order explains the answers.
        assert!(truth || witness.is_violated(), "witness: {witness}\n{}", told());
        assert!(!are_witnesses_true || witness.is_linearizable(), "{witness}\n{}", told());
    }
    let verdict = history.check(Budget::default());
    assert!(truth || verdict.is_violated(), "{verdict}\n{}", told());
    if !truth {
        return;
    }
    assert!(history.stale_reads().is_empty(), "{}", told());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// All ways accept what a single copy does, and after one answer is changed they refuse whenever
    /// brute force does, and only then.
    #[test]
    fn small_histories(seed: u64, is_plain: bool) {
        let dice = &mut fastrand::Rng::with_seed(seed);
        let history = single_copy(dice, Draw { is_plain, ..SMALL });
        compare(&history, true);
        if let Some(corrupted) = corrupt(&history, dice) {
            compare(&corrupted, false);
        }
    }

    /// Answers drawn at random, which are rarely right: zones and search agree with brute force.
    #[test]
    fn random_histories(seed: u64) {
        let dice = &mut fastrand::Rng::with_seed(seed);
        let mut history = History::default();
        let writes = dice.usize(1..4);
        for number in 0..7 {
            let asked = dice.u64(..30);
            let answered = Time::from_nanos(asked + dice.u64(..20));
            let (action, answer) = match number < writes {
                true => (Action::Write(number.to_string()), Answer::Done),
                false => {
                    let value = dice.usize(..=writes).checked_sub(1).map(|it| it.to_string());
                    (Action::Read, Answer::Value(value))
                }
            };
            let id = history.ask(number, "k", action, Time::from_nanos(asked));
            if dice.u8(..5) > 0 {
                history.answer(id, answer, answered);
            }
        }
        compare(&history, false);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Long histories of a single copy are accepted by each way alone, within the search's budget.
    #[test]
    fn long_histories(seed: u64, is_plain: bool) {
        let dice = &mut fastrand::Rng::with_seed(seed);
        let draw = Draw {
            clients: 8, operations: 1_000, is_plain, unknown_one_in: 100, delay_nanos: 50,
        };
        let history = single_copy(dice, draw);
        let operations: Vec<&Operation> = history.operations().iter().collect();
        let verdict = search::check(&operations, Budget::default());
        prop_assert!(verdict.is_linearizable(), "search: {verdict}");
        if let Some(verdict) = zones::check(&operations) {
            prop_assert!(verdict.is_linearizable(), "zones: {verdict}");
        }
        if let Some(verdict) = witness::check(&operations) {
            prop_assert!(verdict.is_linearizable(), "witness: {verdict}");
        }
        prop_assert_eq!(history.stale_reads(), Vec::new());
    }
}

/// The laws above would hold of checks that never refuse or never accept, were the histories all of
/// one sort: they are of both, by either way.
#[test]
fn histories_are_of_both_sorts() {
    let mut seen = BTreeSet::new();
    for seed in 0..500 {
        let dice = &mut fastrand::Rng::with_seed(seed);
        let is_plain = dice.bool();
        let history = single_copy(dice, Draw { is_plain, ..SMALL });
        let Some(corrupted) = corrupt(&history, dice) else { continue };
        let operations: Vec<&Operation> = corrupted.operations().iter().collect();
        let by_zones = zones::check(&operations).is_some();
        let by_witness = witness::check(&operations).is_some();
        seen.insert((brute_force(&operations, &None), by_zones, by_witness));
    }
    for is_linearizable in [false, true] {
        for by_zones in [false, true] {
            assert!(seen.contains(&(is_linearizable, by_zones, true)), "{seen:?}");
        }
    }
}

/// How long each way takes for 100,000 operations of 20 clients on one key; for whoever asks.
#[test]
#[ignore = "measures, and judges nothing"]
fn how_long_it_takes() {
    let dice = &mut fastrand::Rng::with_seed(1);
    let draw = |is_plain, operations| Draw {
        clients: 20,
        operations,
        is_plain,
        unknown_one_in: 1_000,
        delay_nanos: 1_000,
    };
    let time = |what: &str, check: &dyn Fn() -> Option<Verdict>| {
        #[expect(
            clippy::disallowed_methods,
            clippy::disallowed_types,
            reason = "this is about the time on the wall"
        )]
        let began = std::time::Instant::now();
        let verdict = check().map_or("does not apply".to_owned(), |verdict| verdict.to_string());
        let took: Duration = began.elapsed();
        #[expect(clippy::disallowed_macros, reason = "for whoever asks")]
        {
            println!("{what}: {took:?}, {verdict}");
        }
    };
    for operations in [2_000, 10_000, 100_000] {
        for is_plain in [true, false] {
            let history = single_copy(dice, draw(is_plain, operations));
            let all: Vec<&Operation> = history.operations().iter().collect();
            let what = |way| format!("{operations} operations, plain: {is_plain}, {way}");
            time(&what("zones"), &|| zones::check(&all));
            time(&what("witness"), &|| witness::check(&all));
            if operations <= 10_000 {
                time(&what("search"), &|| Some(search::check(&all, Budget::default())));
            }
        }
    }
}
