//! Clusters in strong mode that break a rule on purpose: each is caught, so the judge bites.
//!
//! The rules are those on which strong mode stands: reads ask a majority, writes are answered when they are
//! decided, what a voter says it has is durable, and nobody goes on alone. The last one is why f+1 nodes
//! do not suffice: while they fail in turn, each goes on without what the other one has.

use super::judged;
use super::scenario::Scenario;
use super::world::World;
use crate::protocol::shard::Careless;

/// How many seeds are tried until the breach shows.
const SEEDS: u64 = 60;

/// Whether some seed shows the breach, by one of these checkers, while none of the same seeds does without it.
fn is_caught(scenario: &str, careless: Careless, nodes: Option<usize>, checkers: &[&str]) {
    let scenario = Scenario::named(scenario).expect("it is one");
    for seed in 1..=SEEDS {
        let run = |careless| {
            let mut world = World::new(scenario.plan(seed, nodes), false);
            world.be_careless(careless);
            judged::run_world(world, None)
        };
        let verdict = run(careless);
        if verdict.fault.as_ref().is_some_and(|fault| checkers.contains(&fault.checker)) {
            let right = run(Careless::No);
            assert!(right.fault.is_none(), "{:?}", right.fault);
            return;
        }
    }
    panic!("{careless:?} was not caught in {SEEDS} seeds");
}

/// A read that asks nobody shows what has been replaced.
#[test]
fn a_read_without_a_majority_is_caught() {
    is_caught("log", Careless::ReadsAlone, Some(3), &["linearizable"]);
}

/// A write that is answered before it is decided may not come to pass.
#[test]
fn an_answer_before_the_decision_is_caught() {
    is_caught("log", Careless::AnswersEarly, Some(3), &["linearizable"]);
}

/// A voter that has not synced forgets what it has said.
#[test]
fn an_answer_before_the_sync_is_caught() {
    is_caught("log-flip-flop", Careless::SyncsLate, None, &["linearizable", "replay", "goes-on"]);
}

/// The flip-flop of the lecture: two nodes of which each goes on alone lose what the other one was told.
#[test]
fn two_that_go_on_alone_are_caught() {
    is_caught("log-flip-flop", Careless::GoesOnAlone, Some(3), &["linearizable", "replay"]);
}
