//! Many seeds of every scenario, under all checkers.
//!
//! Each run is decided by its scenario and seed alone; how they are spread over threads changes
//! nothing. A failing run prints the command that repeats it and tells its story. The number of seeds
//! per scenario can be set by `QUORUMOR_TEST_SEEDS`, and the first one by `QUORUMOR_TEST_SEED_FIRST`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use quorumor::sim::scenario::{SCENARIOS, STRONG, Scenario};
use quorumor::sim::trial::{self, Verdict};

/// How many seeds of each scenario are run: all scenarios make well over a thousand runs.
const SEEDS_DEFAULT: u64 = 80;

/// The same for strong mode, of which there are fewer scenarios.
const STRONG_SEEDS_DEFAULT: u64 = 150;

/// How many failures are reported in full.
const FAILURES_TOLD_MAX: usize = 10;

fn number_from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run_all(scenarios: &[Scenario], first: u64, seeds: u64) -> Vec<Verdict> {
    let verdicts = Mutex::new(Vec::new());
    let next = AtomicU64::new(0);
    let count = seeds * scenarios.len() as u64;
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= count {
            return;
        }
        let scenario = &scenarios[(number % scenarios.len() as u64) as usize];
        let seed = first + number / scenarios.len() as u64;
        let verdict = trial::run(scenario.plan(seed, None), None);
        verdicts.lock().expect("no run panics").push(verdict);
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
    verdicts.into_inner().expect("no run panics")
}

/// What eventual mode promises.
#[test]
fn every_scenario_holds_over_many_seeds() {
    hold(SCENARIOS, SEEDS_DEFAULT);
}

/// What strong mode and the switch promise.
#[test]
fn every_scenario_of_strong_mode_holds_over_many_seeds() {
    hold(STRONG, STRONG_SEEDS_DEFAULT);
}

#[allow(clippy::print_stdout, reason = "the figures are for people")]
fn hold(scenarios: &[Scenario], seeds: u64) {
    let seeds = number_from_environment("QUORUMOR_TEST_SEEDS", seeds);
    let first = number_from_environment("QUORUMOR_TEST_SEED_FIRST", 1);
    let mut verdicts = run_all(scenarios, first, seeds);
    verdicts.sort_by_key(|verdict| (verdict.scenario.clone(), verdict.seed));
    for scenario in scenarios {
        let of = || verdicts.iter().filter(|verdict| verdict.scenario == scenario.name);
        let (writes, steps): (usize, u64) =
            of().fold((0, 0), |sum, verdict| (sum.0 + verdict.writes, sum.1 + verdict.steps));
        let (died, conflicts): (usize, u64) =
            of().fold((0, 0), |sum, verdict| (sum.0 + verdict.died, sum.1 + verdict.conflicts));
        let failed = of().filter(|verdict| verdict.fault.is_some()).count();
        println!(
            "{:>19}: {} runs, {failed} failed; {writes} writes, {conflicts} conflicts, {died} died, {steps} steps",
            scenario.name,
            of().count(),
        );
    }
    let failures: Vec<_> = verdicts.iter().filter(|verdict| verdict.fault.is_some()).collect();
    let mut by_checker = std::collections::BTreeMap::<_, u32>::new();
    for fault in failures.iter().filter_map(|verdict| verdict.fault.as_ref()) {
        *by_checker.entry(fault.checker).or_default() += 1;
    }
    eprintln!("{by_checker:?}");
    for verdict in failures.iter().take(FAILURES_TOLD_MAX) {
        if let Some(fault) = &verdict.fault {
            eprintln!("{fault}\n    {}", verdict.replay());
        }
    }
    assert!(failures.is_empty(), "{} of {} runs failed", failures.len(), verdicts.len());
    let writes: usize = verdicts.iter().map(|verdict| verdict.writes).sum();
    assert!(writes >= verdicts.len(), "runs write");
}
