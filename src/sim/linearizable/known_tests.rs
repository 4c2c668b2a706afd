//! Hand-made histories, good and bad, each with what must be said of it.

use std::time::Duration;

use super::history::{Action, Answer, History, Operation, Outcome, Witness};
use super::{Budget, Verdict, search, witness, zones};
use crate::protocol::time::Time;

fn at(millis: u64) -> Time {
    Time::START + Duration::from_millis(millis)
}

/// Records operations on one key in few words.
#[derive(Default)]
struct Tale(History);

impl Tale {
    fn told(mut self, client: usize, span: (u64, u64), action: Action, answer: Answer) -> Self {
        let operation = self.0.ask(client, "k", action, at(span.0));
        self.0.answer(operation, answer, at(span.1));
        self
    }

    fn lost(mut self, client: usize, asked: u64, action: Action) -> Self {
        self.0.ask(client, "k", action, at(asked));
        self
    }

    fn write(self, client: usize, span: (u64, u64), value: &str) -> Self {
        self.told(client, span, Action::Write(value.to_owned()), Answer::Done)
    }

    fn read(self, client: usize, span: (u64, u64), value: &str) -> Self {
        let value = Some(value).filter(|value| !value.is_empty()).map(str::to_owned);
        self.told(client, span, Action::Read, Answer::Value(value))
    }

    fn add(self, client: usize, span: (u64, u64), sum: i64) -> Self {
        self.told(client, span, Action::Increment(1), Answer::Sum(sum))
    }

    fn change(self, client: usize, span: (u64, u64), from: &str, to: &str, changed: bool) -> Self {
        let expected = Some(from).filter(|value| !value.is_empty()).map(str::to_owned);
        let action = Action::CompareAndSet { expected, new: to.to_owned() };
        self.told(client, span, action, Answer::Changed(changed))
    }

    fn delete(self, client: usize, span: (u64, u64), changed: bool) -> Self {
        self.told(client, span, Action::Delete, Answer::Changed(changed))
    }

    fn maybe(self, client: usize, asked: u64, value: &str) -> Self {
        self.lost(client, asked, Action::Write(value.to_owned()))
    }

    /// What every way says that applies; they must agree.
    fn verdict(&self) -> Verdict {
        let operations: Vec<&Operation> = self.0.operations().iter().collect();
        let found = search::check(&operations, Budget::default());
        if let Some(by_zones) = zones::check(&operations) {
            assert_eq!(by_zones.is_linearizable(), found.is_linearizable(), "{by_zones}\n{found}");
        }
        self.0.check(Budget::default())
    }

    fn is_fine(&self) {
        let verdict = self.verdict();
        assert!(verdict.is_linearizable(), "{verdict}");
    }

    /// It is refused, and at most so many operations are named to show it.
    fn is_refused(&self, named: usize) {
        let verdict = self.verdict();
        let Verdict::Violated(violation) = &verdict else { panic!("{verdict}") };
        assert!(violation.operations.len() <= named, "{verdict}");
    }
}

/// Overlapping operations may take effect in either order, whoever was asked or answered first.
#[test]
fn overlapping_operations_are_free() {
    Tale::default()
        .write(1, (0, 100), "a")
        .write(2, (10, 50), "b")
        .read(3, (60, 70), "b")
        .read(4, (60, 90), "a")
        .read(4, (95, 110), "a")
        .is_fine();
    Tale::default().read(1, (0, 10), "").write(2, (5, 6), "a").read(1, (11, 12), "a").is_fine();
}

/// A read that misses a write that was acknowledged before it.
#[test]
fn a_stale_read() {
    let tale =
        Tale::default().write(1, (0, 10), "a").write(1, (20, 30), "b").read(2, (40, 50), "a");
    tale.is_refused(3);
    let Verdict::Violated(violation) = tale.verdict() else { panic!("refused above") };
    assert_eq!(
        violation.to_string(),
        "key k: \"a\" must come before \"b\", as an operation on it ended before one on the other \
         began, and \"b\" before \"a\" likewise\n  \
         client 1, 0.000 ms to 10.000 ms: write \"a\" -> done\n  \
         client 1, 20.000 ms to 30.000 ms: write \"b\" -> done\n  \
         client 2, 40.000 ms to 50.000 ms: read -> \"a\""
    );
    let stale = tale.0.stale_reads();
    assert_eq!(stale.len(), 1);
    assert_eq!(stale[0].read.asked, at(40));
    assert_eq!(stale[0].replaced_by.asked, at(20));
    // The absence at the start is a value as well.
    let tale = Tale::default().write(1, (0, 10), "a").read(2, (11, 20), "");
    tale.is_refused(2);
    assert_eq!(tale.0.stale_reads().len(), 1);
}

/// Two clients, one after the other, see a new value and then the old one, while its write still goes
/// on: no acknowledged write is missed, and yet time goes back.
#[test]
fn a_new_value_and_then_the_old_one() {
    let tale = Tale::default()
        .write(1, (0, 10), "a")
        .write(1, (20, 100), "b")
        .read(2, (30, 40), "b")
        .read(3, (50, 60), "a");
    tale.is_refused(5);
    assert!(tale.0.stale_reads().is_empty());
}

/// The same client reads a value, another, and the first again.
#[test]
fn a_read_that_goes_back() {
    Tale::default()
        .write(1, (0, 100), "a")
        .write(2, (0, 100), "b")
        .read(3, (10, 20), "a")
        .read(3, (30, 40), "b")
        .read(3, (50, 60), "a")
        .is_refused(6);
}

/// Two sides take writes, and each reads its own.
#[test]
fn two_sides() {
    Tale::default()
        .write(1, (0, 10), "left")
        .write(2, (0, 10), "right")
        .read(1, (20, 30), "left")
        .read(2, (20, 30), "right")
        .read(1, (40, 50), "left")
        .read(2, (40, 50), "right")
        .is_refused(6);
}

/// A value that nobody wrote, or before it was written.
#[test]
fn a_value_out_of_nothing() {
    Tale::default().write(1, (0, 10), "a").read(2, (20, 30), "x").is_refused(2);
    Tale::default().read(2, (0, 5), "a").write(1, (10, 20), "a").is_refused(2);
}

/// A write of unknown outcome may show at any later time, or never.
#[test]
fn an_unknown_write_appears_later() {
    Tale::default()
        .write(1, (0, 10), "a")
        .maybe(2, 15, "b")
        .read(3, (20, 30), "a")
        .write(1, (40, 50), "c")
        .read(3, (60, 70), "c")
        .read(3, (80, 90), "b")
        .read(1, (100, 110), "b")
        .is_fine();
    Tale::default().maybe(2, 0, "b").write(1, (5, 10), "a").read(1, (20, 30), "a").is_fine();
}

/// Once seen it has taken effect, and does not vanish; and it shows nowhere before it was asked.
#[test]
fn an_unknown_write_appears_and_vanishes() {
    Tale::default()
        .write(1, (0, 10), "a")
        .maybe(2, 15, "b")
        .read(3, (20, 30), "b")
        .read(3, (40, 50), "a")
        .is_refused(4);
    Tale::default().read(3, (0, 10), "b").maybe(2, 15, "b").is_refused(2);
}

/// Two clients change a value from the same one, and both are told that they did.
#[test]
fn a_lost_update() {
    Tale::default()
        .write(1, (0, 10), "a")
        .change(1, (20, 40), "a", "b", true)
        .change(2, (20, 40), "a", "c", true)
        .is_refused(3);
    Tale::default()
        .write(1, (0, 10), "a")
        .change(1, (20, 40), "a", "b", true)
        .change(2, (20, 40), "a", "c", false)
        .read(1, (50, 60), "b")
        .is_fine();
    // Only of something unknown can a second one have its expectation from.
    Tale::default()
        .write(1, (0, 10), "a")
        .change(1, (20, 40), "a", "b", true)
        .maybe(3, 30, "a")
        .change(2, (20, 40), "a", "c", true)
        .is_fine();
}

/// An increment that is applied twice shows in the sums; one of unknown outcome explains one more.
#[test]
fn an_increment_applied_twice() {
    Tale::default().add(1, (0, 10), 1).add(2, (5, 20), 3).is_refused(3);
    Tale::default().add(1, (0, 10), 1).add(2, (5, 20), 1).is_refused(3);
    let one = || Tale::default().add(1, (0, 10), 1).lost(3, 2, Action::Increment(1));
    one().add(2, (5, 20), 3).is_fine();
    one().add(2, (5, 20), 4).is_refused(3);
    Tale::default().add(1, (0, 10), 2).lost(3, 20, Action::Increment(1)).is_refused(2);
}

/// What was deleted is gone, and is deleted once.
#[test]
fn deletions() {
    let deleted = || Tale::default().write(1, (0, 10), "a").delete(1, (20, 30), true);
    deleted().delete(2, (20, 35), false).read(2, (40, 50), "").is_fine();
    deleted().delete(2, (20, 35), true).is_refused(4);
    deleted().read(2, (40, 50), "a").is_refused(3);
    // Unknown deletions, and one that takes away an unknown write.
    Tale::default()
        .write(1, (0, 10), "a")
        .lost(2, 5, Action::Delete)
        .read(1, (20, 30), "")
        .is_fine();
    Tale::default().maybe(1, 0, "a").delete(2, (5, 10), true).read(2, (20, 30), "").is_fine();
}

/// Values can be written twice, appended to, and counted.
#[test]
fn other_actions() {
    Tale::default()
        .write(1, (0, 10), "a")
        .write(1, (20, 30), "a")
        .told(2, (20, 40), Action::Append("bc".to_owned()), Answer::Length(3))
        .read(2, (50, 60), "abc")
        .told(1, (70, 80), Action::Increment(1), Answer::NoNumber)
        .is_fine();
    Tale::default()
        .told(1, (0, 10), Action::Append("a".to_owned()), Answer::Length(1))
        .told(2, (0, 10), Action::Append("b".to_owned()), Answer::Length(1))
        .is_refused(2);
}

/// Other keys do not matter, and the one that is wrong is named.
#[test]
fn keys_are_judged_apart() {
    let mut history = Tale::default().write(1, (0, 10), "a").read(2, (20, 30), "a").0;
    let read = history.ask(3, "other", Action::Read, at(40));
    history.answer(read, Answer::Value(Some("a".to_owned())), at(50));
    let Verdict::Violated(violation) = history.check(Budget::default()) else { panic!("other") };
    assert_eq!(violation.key, "other");
}

/// A search that is not allowed enough steps says so.
#[test]
fn a_small_budget_is_undecided() {
    let mut tale = Tale::default();
    for client in 0..8 {
        tale = tale.write(client, (0, 10), "a");
    }
    let tale = tale.read(9, (20, 30), "b");
    assert!(tale.verdict().is_violated());
    assert_eq!(tale.0.check(Budget { steps: 3 }), Verdict::Undecided(vec!["k".to_owned()]));
}

/// What was refused did not happen.
#[test]
fn a_refused_write_must_not_show() {
    let mut history = Tale::default().read(2, (20, 30), "a").0;
    let write = history.ask(1, "k", Action::Write("a".to_owned()), at(0));
    history.refuse(write, at(10));
    assert!(history.check(Budget::default()).is_violated());
}

/// Operations with witnesses: action, answer, epoch and index, and the span.
type Witnessed = ((Action, Answer), (u64, u64), (u64, u64));

fn by_witness(tale: &[Witnessed]) -> Verdict {
    let mut history = History::default();
    for (client, operation) in tale.iter().enumerate() {
        let ((action, answer), (epoch, index), (asked, answered)) = operation;
        let operation = history.ask(client, "k", action.clone(), at(*asked));
        let place = Witness { epoch: *epoch, index: *index };
        history.answer_at(operation, answer.clone(), place, at(*answered));
    }
    let operations: Vec<&Operation> = history.operations().iter().collect();
    witness::check(&operations).expect("all have witnesses")
}

/// Witnesses must be unique, in the order of time, and give the answers that were given.
#[test]
fn witnesses() {
    let write = |value: &str| (Action::Write(value.to_owned()), Answer::Done);
    let read = |value: &str| (Action::Read, Answer::Value(Some(value.to_owned())));
    let fine = [
        (write("b"), (1, 2), (0, 10)),
        (write("a"), (1, 1), (0, 10)),
        (read("b"), (1, 2), (5, 20)),
        (read("a"), (1, 1), (5, 8)),
        (write("c"), (2, 1), (30, 40)),
    ];
    assert!(by_witness(&fine).is_linearizable());
    let twice = [(write("a"), (1, 1), (0, 10)), (write("b"), (1, 1), (0, 10))];
    assert!(by_witness(&twice).to_string().contains("the same place"));
    let back = [(write("a"), (1, 2), (0, 10)), (write("b"), (1, 1), (20, 30))];
    assert!(by_witness(&back).to_string().contains("claims a place after"));
    let wrong = [(write("a"), (1, 1), (0, 10)), (read("b"), (1, 1), (5, 20))];
    assert!(by_witness(&wrong).to_string().contains("where an operation claims to stand"));
    let stale = [fine[0].clone(), fine[1].clone(), (read("a"), (1, 1), (20, 30))];
    assert!(by_witness(&stale).to_string().contains("claims a place after"));
}

/// An unknown operation needs no witness to explain an answer, but must have been asked by then.
#[test]
fn witnesses_and_unknown_outcomes() {
    let check = |asked: u64, sum: i64| {
        let mut history = History::default();
        for index in 0..3 {
            let add = history.ask(1, "k", Action::Increment(1), at(10 * index));
            let place = Witness { epoch: 1, index };
            let number = i64::try_from(index).expect("few") + 1;
            let answer = Answer::Sum(if index == 2 { sum } else { number });
            history.answer_at(add, answer, place, at(10 * index + 5));
        }
        history.ask(2, "k", Action::Increment(1), at(asked));
        history.ask(3, "k", Action::Increment(1), at(asked));
        let operations: Vec<&Operation> = history.operations().iter().collect();
        let verdict = witness::check(&operations).expect("all have witnesses");
        assert!(operations.iter().filter(|it| it.outcome == Outcome::Unknown).count() == 2);
        verdict.is_linearizable()
    };
    assert!(check(0, 3));
    assert!(check(0, 4));
    assert!(check(20, 5));
    assert!(!check(0, 6));
    assert!(!check(26, 4));
}
