//! How many rounds a write should take to reach everybody, when rounds alone carry it.
//!
//! The report prints these numbers beside the measured ones whenever eager push is off, so that a
//! reader sees whether the protocol does what epidemics are known to do.
//!
//! **Closed forms**, for n nodes that all act at the same instants and choose partners uniformly:
//!
//! - push: log₂ n + ln n + O(1) rounds until all know (Pittel 1987, "On spreading a rumor",
//!   Theorem 1): doubling at first, then each straggler must be hit by chance;
//! - pull: doubling at first as well, then the share q of those who do not know obeys q' = q², since
//!   a node stays ignorant only by asking an ignorant one (Demers et al. 1987, "Epidemic algorithms
//!   for replicated database maintenance", section 1.3): log₂ n + log₂ ln n + O(1);
//! - push-pull: log₃ n + log₂ ln n + O(1), as everybody who knows both calls and is called, which
//!   triples their number (Karp, Schindelhauer, Shenker, Vöcking 2000, "Randomized rumor
//!   spreading", Theorem 2.1, log₃ n + O(log log n)).
//!
//! They are asymptotic, and Quorumor's nodes do not act in step. So what is compared with the
//! measurement is the **reference**: this protocol's own schedule, played many times from a seed.
//! Every node has a timer with the same period and a phase of its own; when it fires, the node turns
//! to the next partner of a random permutation of all others (a fresh one when it is used up); the
//! write is issued at a random instant at a random node. Time is counted in periods, so 2.3 rounds
//! of 100 ms are 230 ms. For two nodes this is solved by hand: with push only the writer's timer
//! matters, whose next firing is uniform over one period, hence a median of 0.5; with push-pull the
//! earlier of two counts, P(T > t) = (1 − t)², hence a median of 1 − √½ ≈ 0.293.
//!
//! Phases stay as they are for a whole run, so one run of many writes at one small cluster is not a
//! sample of all phases. The reference therefore also says between which bounds the median of a
//! single run falls nine times out of ten; with three nodes that is a wide range.
//!
//! The same player, told to act in step and to choose uniformly ([`Schedule::InStep`]), is tested
//! against the closed forms, and that is why its answers for our schedule can be believed.
//!
//! Left out: the time that messages travel (a round trip and a half per hop, to be added by who
//! compares on slow links), lost messages, and the preference that rounds give to partners of
//! unknown origin.

use serde::{Deserialize, Serialize};

use crate::protocol::config::Strategy;

/// When nodes act and whom they choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Ours: own phases, partners from random permutations.
    OwnPhases,
    /// The literature's: all at once, partners chosen uniformly and independently.
    InStep,
}

/// The rounds that a write takes until every node has it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundsExpected {
    /// The median over writes and phases.
    pub p50: f64,
    /// The 99th percentile over writes and phases.
    pub p99: f64,
    /// The median of a single run, whose phases are fixed, is below this once in twenty runs.
    pub run_p50_low: f64,
    /// ... and above this once in twenty.
    pub run_p50_high: f64,
    /// The asymptotic closed form, without its constant; see the top of this file.
    pub closed_form: f64,
}

impl RoundsExpected {
    /// All of it multiplied, to turn rounds into time.
    pub fn times(self, factor: f64) -> Self {
        Self {
            p50: self.p50 * factor,
            p99: self.p99 * factor,
            run_p50_low: self.run_p50_low * factor,
            run_p50_high: self.run_p50_high * factor,
            closed_form: self.closed_form * factor,
        }
    }
}

/// How many clusters (sets of phases) are played; the fifth and ninety-fifth percentile of the
/// runs' medians are then ranks 10 and 190.
const CLUSTERS: usize = 200;
/// How many writes are played in each cluster of up to [`NODES_SMALL`] nodes.
const WRITES_SMALL: usize = 250;
/// Above this, the work per write grows and its variation shrinks, so fewer writes do.
const NODES_SMALL: usize = 32;
/// How many writes are played in each larger cluster.
const WRITES_LARGE: usize = 8;
/// A play that takes more rounds than this is a fault of ours: with 100,000 nodes, push needs
/// about 30.
const ROUNDS_MAX: usize = 100_000;

/// The rounds expected of this protocol's schedule among `nodes` nodes, from `seed`.
///
/// One node needs no round at all.
pub fn rounds_expected(strategy: Strategy, nodes: usize, seed: u64) -> RoundsExpected {
    let mut dice = fastrand::Rng::with_seed(seed);
    let writes = if nodes <= NODES_SMALL { WRITES_SMALL } else { WRITES_LARGE };
    let mut pooled = Vec::with_capacity(CLUSTERS * writes);
    let mut medians = Vec::with_capacity(CLUSTERS);
    for _ in 0..CLUSTERS {
        let phases: Vec<f64> = (0..nodes).map(|_| dice.f64()).collect();
        let mut of_run: Vec<f64> =
            (0..writes).map(|_| play_own_phases(strategy, &phases, &mut dice)).collect();
        medians.push(percentile(&mut of_run, 50));
        pooled.append(&mut of_run);
    }
    RoundsExpected {
        p50: percentile(&mut pooled, 50),
        p99: percentile(&mut pooled, 99),
        run_p50_low: percentile(&mut medians, 5),
        run_p50_high: percentile(&mut medians, 95),
        closed_form: closed_form(strategy, nodes),
    }
}

/// The rounds that one write takes under `schedule`, with fresh phases.
pub fn play(strategy: Strategy, schedule: Schedule, nodes: usize, dice: &mut fastrand::Rng) -> f64 {
    match schedule {
        Schedule::InStep => play_in_step(strategy, nodes, dice),
        Schedule::OwnPhases => {
            let phases: Vec<f64> = (0..nodes).map(|_| dice.f64()).collect();
            play_own_phases(strategy, &phases, dice)
        }
    }
}

/// The leading terms of the closed form for `nodes` nodes (see the top of this file); 0 for one
/// node, and 1 at least for more, as one round there must be.
pub fn closed_form(strategy: Strategy, nodes: usize) -> f64 {
    if nodes < 2 {
        return 0.0;
    }
    let n = nodes as f64;
    let squaring = n.ln().max(1.0).log2();
    let leading = match strategy {
        Strategy::Push => n.log2() + n.ln(),
        Strategy::Pull => n.log2() + squaring,
        Strategy::PushPull => n.ln() / 3f64.ln() + squaring,
    };
    leading.max(1.0)
}

/// The share of nodes that do not know yet, after one more round in which a share `ignorant` did
/// not: the mean-field recursions of Demers et al. 1987, section 1.3, for nodes acting in step.
///
/// Push: stay ignorant if none of the knowing calls, e^−(1−q) of the ignorant do. Pull: if the one
/// that is asked is ignorant, q. Push-pull: if both.
pub fn ignorant_after_round(strategy: Strategy, ignorant: f64) -> f64 {
    let not_called = (ignorant - 1.0).exp();
    match strategy {
        Strategy::Push => ignorant * not_called,
        Strategy::Pull => ignorant * ignorant,
        Strategy::PushPull => ignorant * ignorant * not_called,
    }
}

/// Plays one write among nodes whose timers have `phases`, each within one period. The write is
/// issued at a random instant at a random node; the result is in periods.
fn play_own_phases(strategy: Strategy, phases: &[f64], dice: &mut fastrand::Rng) -> f64 {
    let nodes = phases.len();
    if nodes < 2 {
        return 0.0;
    }
    let issued = dice.f64();
    let mut order: Vec<(f64, usize)> = phases
        .iter()
        .enumerate()
        .map(|(node, phase)| ((phase - issued).rem_euclid(1.0), node))
        .collect();
    order.sort_unstable_by(|left, right| left.0.total_cmp(&right.0));
    let mut cycles: Vec<Cycle> = (0..nodes).map(|_| Cycle::midway(nodes, dice)).collect();
    let mut knows = vec![false; nodes];
    knows[dice.usize(..nodes)] = true;
    let mut knowing = 1;
    for round in 0..ROUNDS_MAX {
        for (wait, node) in &order {
            let partner = cycles[*node].next(*node, nodes, dice);
            knowing += usize::from(exchange(strategy, &mut knows, *node, partner));
            if knowing == nodes {
                return round as f64 + wait;
            }
        }
    }
    unreachable!("a permutation names everybody, so somebody learns of it within 2n periods")
}

/// Plays one write among nodes that act at the same instants, on what they knew before.
fn play_in_step(strategy: Strategy, nodes: usize, dice: &mut fastrand::Rng) -> f64 {
    let mut knows = vec![false; nodes];
    knows[dice.usize(..nodes)] = true;
    let mut round = 0;
    while knows.contains(&false) {
        round += 1;
        assert!(round < ROUNDS_MAX, "every round gives every ignorant node a chance");
        let before = knows.clone();
        for node in 0..nodes {
            let partner = other_than(node, nodes, dice);
            let pushes = strategy != Strategy::Pull && before[node];
            let pulls = strategy != Strategy::Push && before[partner];
            knows[partner] |= pushes;
            knows[node] |= pulls;
        }
    }
    round as f64
}

/// Carries the write between `node` and the partner it chose; says whether one of them learnt it.
fn exchange(strategy: Strategy, knows: &mut [bool], node: usize, partner: usize) -> bool {
    let learns = match strategy {
        Strategy::Push => knows[node] && !knows[partner],
        Strategy::Pull => !knows[node] && knows[partner],
        Strategy::PushPull => knows[node] != knows[partner],
    };
    if learns {
        knows[node] = true;
        knows[partner] = true;
    }
    learns
}

/// A node's place in a random permutation of the others, drawn only as far as it is used.
struct Cycle {
    /// How many partners the permutation still holds.
    left: usize,
    /// Whom it named since the play began, as they may not come again before it is used up.
    named: Vec<usize>,
}

impl Cycle {
    /// A permutation of which a random part was used before. The rest is a uniformly random subset
    /// in random order, so its draws need only differ from each other.
    fn midway(nodes: usize, dice: &mut fastrand::Rng) -> Self {
        Self { left: dice.usize(1..nodes), named: Vec::new() }
    }

    fn next(&mut self, node: usize, nodes: usize, dice: &mut fastrand::Rng) -> usize {
        if self.left == 0 {
            self.left = nodes - 1;
            self.named.clear();
        }
        self.left -= 1;
        loop {
            let partner = other_than(node, nodes, dice);
            if !self.named.contains(&partner) {
                self.named.push(partner);
                return partner;
            }
        }
    }
}

/// Any node but `node`, each with equal chance.
fn other_than(node: usize, nodes: usize, dice: &mut fastrand::Rng) -> usize {
    let partner = dice.usize(..nodes - 1);
    partner + usize::from(partner >= node)
}

/// The percentile by nearest rank (see [`super::statistics`]) of numbers, of which there are some.
fn percentile(numbers: &mut [f64], percent: usize) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers[(numbers.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(strategy: Strategy, schedule: Schedule, nodes: usize, plays: usize) -> f64 {
        let mut dice = fastrand::Rng::with_seed(1);
        (0..plays).map(|_| play(strategy, schedule, nodes, &mut dice)).sum::<f64>() / plays as f64
    }

    fn near(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted} ± {tolerance}");
    }

    /// Two nodes, push or pull: the one timer that matters fires uniformly within a period, so half
    /// a period at the median and 0.99 at p99. A single run has the same distribution.
    #[test]
    fn two_nodes_with_one_way_rounds_wait_for_one_timer() {
        for strategy in [Strategy::Push, Strategy::Pull] {
            let expected = rounds_expected(strategy, 2, 1);
            near(expected.p50, 0.5, 0.01);
            near(expected.p99, 0.99, 0.005);
            near(expected.run_p50_low, 0.5, 0.1);
            near(expected.run_p50_high, 0.5, 0.1);
        }
    }

    /// Two nodes, push-pull: the earlier of two timers, P(T > t) = (1 − t)², so 1 − √½ at the
    /// median and 0.9 at p99. One run has a gap g between the timers; its median is min(g, 1 − g)
    /// if that is above a quarter (half the writes fall into the gaps' first parts), else between
    /// 0.25 and 0.5: nine runs in ten lie within [0.25, 0.48].
    #[test]
    fn two_nodes_with_push_pull_wait_for_the_earlier_timer() {
        let expected = rounds_expected(Strategy::PushPull, 2, 1);
        near(expected.p50, 1.0 - 0.5f64.sqrt(), 0.01);
        near(expected.p99, 0.9, 0.02);
        near(expected.run_p50_low, 0.25, 0.03);
        near(expected.run_p50_high, 0.475, 0.05);
    }

    /// Three nodes, push: at worst the writer's old permutation ends with A in its first period, and
    /// the fresh one names A again before B, so B has it before the third period ends.
    #[test]
    fn a_permutation_bounds_the_wait_among_three() {
        let mut dice = fastrand::Rng::with_seed(3);
        let slowest = (0..20_000)
            .map(|_| play(Strategy::Push, Schedule::OwnPhases, 3, &mut dice))
            .fold(0.0, f64::max);
        assert!(slowest < 3.0, "{slowest}");
        assert!(slowest > 1.5, "{slowest}");
    }

    /// One node has it at once.
    #[test]
    fn one_node_needs_no_round() {
        let expected = rounds_expected(Strategy::PushPull, 1, 1);
        assert_eq!((expected.p50, expected.p99, expected.closed_form), (0.0, 0.0, 0.0));
    }

    /// Pittel 1987: the mean number of rounds of push in step is log₂ n + ln n + O(1). From 64 to
    /// 1,024 nodes the difference is log₂ 16 + ln 16 = 6.77.
    #[test]
    fn push_in_step_obeys_pittel() {
        let small = mean(Strategy::Push, Schedule::InStep, 64, 300);
        let large = mean(Strategy::Push, Schedule::InStep, 1_024, 100);
        near(large - small, 4.0 + 16f64.ln(), 0.5);
        near(large, closed_form(Strategy::Push, 1_024), 1.5);
    }

    /// Karp et al. 2000: from 64 to 4,096 nodes push-pull in step needs log₃ 64 = 3.79 rounds more,
    /// and log₂ (ln 4096 / ln 64) = 1 for the squaring at the end.
    #[test]
    fn push_pull_in_step_triples() {
        let small = mean(Strategy::PushPull, Schedule::InStep, 64, 300);
        let large = mean(Strategy::PushPull, Schedule::InStep, 4_096, 30);
        near(large - small, 64f64.ln() / 3f64.ln() + 1.0, 0.5);
        near(large, closed_form(Strategy::PushPull, 4_096), 2.0);
    }

    /// Pull in step: from 64 to 1,024 nodes four doublings, and log₂ (ln 1024 / ln 64) = 0.74 for the
    /// squaring at the end.
    #[test]
    fn pull_in_step_doubles_then_squares() {
        let small = mean(Strategy::Pull, Schedule::InStep, 64, 300);
        let large = mean(Strategy::Pull, Schedule::InStep, 1_024, 100);
        near(large - small, 4.74, 0.5);
        near(large, closed_form(Strategy::Pull, 1_024), 2.0);
    }

    /// The recursions at a half: push 0.5·e^−½ = 0.3033, pull 0.25, push-pull 0.25·e^−½ = 0.1516.
    #[test]
    fn the_mean_field_recursions_are_those_of_demers() {
        near(ignorant_after_round(Strategy::Push, 0.5), 0.303_265, 1e-6);
        near(ignorant_after_round(Strategy::Pull, 0.5), 0.25, 1e-12);
        near(ignorant_after_round(Strategy::PushPull, 0.5), 0.151_633, 1e-6);
    }

    /// One played round in step moves the share of the ignorant as the recursion says, for 20,000
    /// nodes within one in a hundred: the player and the mean field agree.
    #[test]
    fn one_round_of_exchanges_follows_the_recursion() {
        let nodes = 20_000;
        let mut dice = fastrand::Rng::with_seed(5);
        for strategy in [Strategy::Push, Strategy::Pull, Strategy::PushPull] {
            let before: Vec<bool> = (0..nodes).map(|node| node % 2 == 0).collect();
            let mut knows = before.clone();
            for node in 0..nodes {
                let partner = other_than(node, nodes, &mut dice);
                let mut pair = vec![before[node], before[partner]];
                exchange(strategy, &mut pair, 0, 1);
                knows[node] |= pair[0];
                knows[partner] |= pair[1];
            }
            let ignorant = knows.iter().filter(|knows| !**knows).count() as f64 / nodes as f64;
            near(ignorant, ignorant_after_round(strategy, 0.5), 0.01);
        }
    }

    /// With phases of their own nodes act on what they learnt within the same period, so a write is
    /// never slower than in step; push-pull is the fastest and push the slowest at many nodes.
    #[test]
    fn our_schedule_is_faster_than_acting_in_step() {
        let own = |strategy| mean(strategy, Schedule::OwnPhases, 200, 60);
        let in_step = |strategy| mean(strategy, Schedule::InStep, 200, 60);
        for strategy in [Strategy::Push, Strategy::Pull, Strategy::PushPull] {
            assert!(own(strategy) < in_step(strategy), "{strategy:?}");
        }
        assert!(own(Strategy::PushPull) < own(Strategy::Pull));
        assert!(own(Strategy::Pull) < own(Strategy::Push));
    }

    /// The same seed gives the same expectation.
    #[test]
    fn the_expectation_is_a_function_of_its_seed() {
        let once = rounds_expected(Strategy::PushPull, 5, 9);
        assert_eq!(once, rounds_expected(Strategy::PushPull, 5, 9));
    }
}
