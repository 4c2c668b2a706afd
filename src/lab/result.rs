//! The numbers of a comparison, as they are written to JSON and read back as a baseline.
//!
//! One [`RunResult`] per run is the raw truth; a [`Summarised`] per configuration puts the repeated
//! runs side by side and is what tables, thresholds and baselines look at. The first fields of both
//! JSON objects, up to `seconds`, are a stable format: they keep their names, order and meaning.
//! More may follow them, and a reader must accept that. A time that was not reached is `null`.
//!
//! What must stay true: everything in a [`Summarised`] follows from the runs, so a baseline needs
//! nothing but them.

use serde::{Deserialize, Serialize};

use super::config::{Configuration, Consistency, Spreading};
use super::record::Measured;
use super::statistics::{Spread, Summary};
use super::theory::RoundsExpected;
use crate::protocol::config::Strategy;

/// How a run ended, from good to worst.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every write was acknowledged and reached every live node, and all nodes are the same.
    #[default]
    Ok,
    /// All is well but for a threshold that was crossed; of a whole comparison only.
    Threshold,
    /// Some writes were never acknowledged.
    Unacknowledged,
    /// Some acknowledged writes had not reached every live node at the deadline.
    Unfinished,
    /// Nodes that hold the same writes differ.
    Diverged,
    /// An acknowledged write is nowhere.
    Lost,
}

/// One run of one configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The mode.
    pub consistency: Consistency,
    /// The direction of the rounds.
    pub strategy: Strategy,
    /// Whether writes were also pushed at once.
    pub eager: bool,
    /// The links.
    pub profile: String,
    /// The cluster's size.
    pub nodes: usize,
    /// The period of each node's rounds.
    pub interval_ms: f64,
    /// To how many peers a write was pushed eagerly at the most.
    pub fanout: usize,
    /// Writes issued.
    pub writes: usize,
    /// Writes acknowledged.
    pub acked: usize,
    /// Acknowledged writes that reached every live node.
    pub converged: usize,
    /// Acknowledged writes that no live node holds.
    pub lost: usize,
    /// Nodes that differ from others which hold the same writes.
    pub diverged: usize,
    /// Acknowledged writes that some live node lacks.
    pub unfinished: usize,
    /// Writes that were dropped for a concurrent one, as the winner's writer had not seen them.
    pub conflicts: u64,
    /// From issue to acknowledgement.
    pub ack_ms: Summary,
    /// From acknowledgement to visible at the last live node.
    pub converge_ms: Summary,
    /// Messages sent by all nodes, per write.
    pub messages_per_write: f64,
    /// Bytes sent by all nodes, per write.
    pub bytes_per_write: f64,
    /// From the first issue until the run was over.
    pub seconds: f64,
    /// How the run ended.
    #[serde(default)]
    pub verdict: Verdict,
    /// The number of the run among those of its configuration, from 0.
    #[serde(default)]
    pub run: usize,
    /// The seed of this run.
    #[serde(default)]
    pub seed: u64,
    /// Whether it took place in virtual time.
    #[serde(default)]
    pub simulated: bool,
    /// Writes per second that were asked for, over all nodes.
    #[serde(default)]
    pub rate: f64,
    /// Distinct keys.
    #[serde(default)]
    pub keys: usize,
    /// The length of a value.
    #[serde(default)]
    pub value_bytes: usize,
    /// From issue to visible at the last live node.
    #[serde(default)]
    pub converge_from_issue_ms: Summary,
    /// From the planned instant of a write to its issue: large if the machine could not keep up.
    #[serde(default)]
    pub issue_lag_ms: Summary,
    /// The rounds that theory expects, where rounds alone carry the writes.
    #[serde(default)]
    pub rounds_expected: Option<RoundsExpected>,
    /// Of the writes that were issued those acknowledged within
    /// [`AVAILABLE_WITHIN`](super::record::AVAILABLE_WITHIN), in per cent.
    #[serde(default)]
    pub available_percent: f64,
    /// The longest time without any acknowledgement, from the first issue on.
    #[serde(default)]
    pub gap_ms: f64,
}

/// What a run cost, beside what its record shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Costs {
    /// Messages that all nodes sent.
    pub messages: u64,
    /// Bytes that all nodes sent.
    pub bytes: u64,
    /// Writes dropped for a concurrent one: distinct (winner, loser) pairs, however many nodes saw
    /// them.
    pub conflicts: u64,
    /// From the first issue until the run was over.
    pub seconds: f64,
}

/// The repeated runs of one configuration side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summarised {
    /// The mode.
    pub consistency: Consistency,
    /// The direction of the rounds.
    pub strategy: Strategy,
    /// Whether writes were also pushed at once.
    pub eager: bool,
    /// The links.
    pub profile: String,
    /// The cluster's size.
    pub nodes: usize,
    /// How many runs there were.
    pub runs: usize,
    /// The worst of their verdicts.
    pub verdict: Verdict,
    /// Writes per run.
    pub writes: usize,
    /// Acknowledged writes over all runs: what the convergence times are samples of.
    pub samples: usize,
    /// Lost writes in the worst run.
    pub lost: usize,
    /// Diverged nodes in the worst run.
    pub diverged: usize,
    /// Unfinished writes in the worst run.
    pub unfinished: usize,
    /// Conflicts in the worst run.
    pub conflicts: u64,
    /// From issue to acknowledgement.
    pub ack_ms: Percentiles,
    /// From acknowledgement to visible at the last live node.
    pub converge_ms: Percentiles,
    /// From issue to visible at the last live node.
    pub converge_from_issue_ms: Percentiles,
    /// Messages sent by all nodes, per write.
    pub messages_per_write: Spread,
    /// Bytes sent by all nodes, per write.
    pub bytes_per_write: Spread,
    /// Of the writes those acknowledged within a second, in per cent.
    #[serde(default)]
    pub available_percent: Spread,
    /// The longest time without any acknowledgement.
    #[serde(default)]
    pub gap_ms: Spread,
    /// The slowest run's 99th percentile of how late writes were issued.
    pub issue_lag_p99_ms: Option<f64>,
    /// What theory expects, in milliseconds, where rounds alone carry the writes.
    pub theory_ms: Option<RoundsExpected>,
}

/// How each percentile differs over runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Of the medians.
    pub p50: Spread,
    /// Of the 90th percentiles.
    pub p90: Spread,
    /// Of the 99th percentiles.
    pub p99: Spread,
    /// Of the slowest.
    pub max: Spread,
}

impl Verdict {
    /// The verdict on what was measured.
    pub fn of(measured: &Measured) -> Self {
        if measured.lost > 0 {
            Verdict::Lost
        } else if measured.diverged > 0 {
            Verdict::Diverged
        } else if measured.unfinished > 0 {
            Verdict::Unfinished
        } else if measured.acked < measured.writes {
            Verdict::Unacknowledged
        } else {
            Verdict::Ok
        }
    }

    /// The word for it, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Threshold => "threshold",
            Verdict::Unacknowledged => "unacknowledged",
            Verdict::Unfinished => "unfinished",
            Verdict::Diverged => "diverged",
            Verdict::Lost => "lost",
        }
    }
}

impl RunResult {
    /// What run number `run` of `configuration` showed; the parameters that all configurations
    /// share come from `config`, and `fanout` is what the nodes made of it.
    pub fn new(
        config: &super::config::CompareConfig,
        configuration: &Configuration,
        run: usize,
        fanout: usize,
        measured: &Measured,
        costs: Costs,
    ) -> Self {
        let Spreading { eager, strategy } = configuration.spreading;
        let per_write = |count: u64| rounded(count as f64 / measured.writes.max(1) as f64);
        let seed = config.run_seed(run);
        Self {
            consistency: configuration.consistency,
            strategy,
            eager,
            profile: configuration.profile.name().to_owned(),
            nodes: configuration.nodes,
            interval_ms: super::statistics::milliseconds(config.interval),
            fanout,
            writes: measured.writes,
            acked: measured.acked,
            converged: measured.converged,
            lost: measured.lost,
            diverged: measured.diverged,
            unfinished: measured.unfinished,
            conflicts: costs.conflicts,
            ack_ms: measured.ack.summary(),
            converge_ms: measured.converge.summary(),
            messages_per_write: per_write(costs.messages),
            bytes_per_write: per_write(costs.bytes),
            seconds: rounded(costs.seconds),
            verdict: Verdict::of(measured),
            run,
            seed,
            simulated: config.simulate,
            rate: config.rate,
            keys: config.keys,
            value_bytes: config.value_bytes,
            converge_from_issue_ms: measured.converge_from_issue.summary(),
            issue_lag_ms: measured.issue_lag.summary(),
            rounds_expected: (!eager && configuration.consistency == Consistency::Eventual).then(
                || super::theory::rounds_expected(strategy, configuration.nodes, config.seed),
            ),
            available_percent: rounded(
                100.0 * measured.in_time as f64 / measured.writes.max(1) as f64,
            ),
            gap_ms: super::statistics::milliseconds(measured.gap),
        }
    }

    /// Whether another run was asked to do the same thing, but for its seed and number of writes.
    ///
    /// A parameter that one of them does not tell (0, as in a file that has only the stable fields)
    /// agrees with every value.
    pub fn same_configuration(&self, other: &Self) -> bool {
        let agree = |mine: f64, theirs: f64| mine == theirs || mine == 0.0 || theirs == 0.0;
        self.consistency == other.consistency
            && (self.strategy, self.eager) == (other.strategy, other.eager)
            && self.profile == other.profile
            && self.nodes == other.nodes
            && self.interval_ms == other.interval_ms
            && self.fanout == other.fanout
            && self.simulated == other.simulated
            && agree(self.rate, other.rate)
            && agree(self.keys as f64, other.keys as f64)
            && agree(self.value_bytes as f64, other.value_bytes as f64)
    }
}

impl Summarised {
    /// The runs of one configuration; at least one.
    fn of(runs: &[&RunResult]) -> Self {
        let first = runs[0];
        let spread =
            |number: fn(&RunResult) -> f64| Spread::of_numbers(runs.iter().map(|run| number(run)));
        let worst =
            |number: fn(&RunResult) -> usize| runs.iter().map(|run| number(run)).max().unwrap_or(0);
        let lags: Vec<Option<f64>> = runs.iter().map(|run| run.issue_lag_ms.p99).collect();
        Self {
            consistency: first.consistency,
            strategy: first.strategy,
            eager: first.eager,
            profile: first.profile.clone(),
            nodes: first.nodes,
            runs: runs.len(),
            verdict: runs.iter().map(|run| run.verdict).max().unwrap_or_default(),
            writes: first.writes,
            samples: runs.iter().map(|run| run.acked).sum(),
            lost: worst(|run| run.lost),
            diverged: worst(|run| run.diverged),
            unfinished: worst(|run| run.unfinished),
            conflicts: runs.iter().map(|run| run.conflicts).max().unwrap_or(0),
            ack_ms: Percentiles::of(runs, |run| run.ack_ms),
            converge_ms: Percentiles::of(runs, |run| run.converge_ms),
            converge_from_issue_ms: Percentiles::of(runs, |run| run.converge_from_issue_ms),
            messages_per_write: spread(|run| run.messages_per_write),
            bytes_per_write: spread(|run| run.bytes_per_write),
            available_percent: spread(|run| run.available_percent),
            gap_ms: spread(|run| run.gap_ms),
            issue_lag_p99_ms: Spread::of(&lags).max,
            theory_ms: first.rounds_expected.map(|rounds| rounds.times(first.interval_ms)),
        }
    }

    /// The configuration in words, as tables and messages name it.
    pub fn name(&self) -> String {
        let strategy = Spreading { eager: self.eager, strategy: self.strategy };
        format!("{} {strategy}, {}, {} nodes", self.consistency, self.profile, self.nodes)
    }
}

impl Percentiles {
    fn of(runs: &[&RunResult], summary: fn(&RunResult) -> Summary) -> Self {
        let spread = |percentile: fn(Summary) -> Option<f64>| {
            let observations: Vec<_> = runs.iter().map(|run| percentile(summary(run))).collect();
            Spread::of(&observations)
        };
        Self {
            p50: spread(|summary| summary.p50),
            p90: spread(|summary| summary.p90),
            p99: spread(|summary| summary.p99),
            max: spread(|summary| summary.max),
        }
    }
}

/// Puts the runs of each configuration together, in the order in which each first occurs.
pub fn grouped(runs: &[RunResult]) -> Vec<Vec<&RunResult>> {
    let mut groups: Vec<Vec<&RunResult>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| group[0].same_configuration(run)) {
            Some(group) => group.push(run),
            None => groups.push(vec![run]),
        }
    }
    groups
}

/// The summary of each configuration, in the order in which each first occurs.
pub fn summarised(runs: &[RunResult]) -> Vec<Summarised> {
    grouped(runs).iter().map(|group| Summarised::of(group)).collect()
}

/// To three places after the point: enough for counts per write and seconds.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::super::config::tests::small_config;
    use super::super::statistics::Samples;
    use super::*;

    /// Run `run` of the first configuration of [`small_config`], 200 writes that took `factor`
    /// times 1 to 200 ms.
    pub(crate) fn sample_run(run: usize, factor: u64) -> RunResult {
        let config = small_config();
        let times = (1..=200).map(|ms| Duration::from_millis(ms * factor)).collect();
        let measured = Measured {
            writes: 200,
            acked: 200,
            in_time: 150,
            gap: Duration::from_millis(7),
            converged: 200,
            converge: Samples::new(times, 0),
            ack: Samples::new(vec![Duration::from_micros(20); 200], 0),
            ..Measured::default()
        };
        let costs = Costs { messages: 800, bytes: 60_000, conflicts: 3, seconds: 2.5 };
        RunResult::new(&config, &config.configurations()[0], run, 2, &measured, costs)
    }

    /// The JSON has the stable fields, in their order, first.
    #[test]
    fn the_stable_fields_come_first_and_in_order() {
        let json = serde_json::to_string(&sample_run(0, 1)).unwrap();
        let stable = r#"{"consistency":"eventual","strategy":"push-pull","eager":true,"profile":"lan","nodes":3,"interval_ms":100.0,"fanout":2,"writes":200,"acked":200,"converged":200,"lost":0,"diverged":0,"unfinished":0,"conflicts":3,"ack_ms":{"p50":0.02,"p90":0.02,"p99":0.02,"max":0.02,"n":200,"censored":0},"converge_ms":{"p50":100.0,"p90":180.0,"p99":198.0,"max":200.0,"n":200,"censored":0},"messages_per_write":4.0,"bytes_per_write":300.0,"seconds":2.5,"verdict":"ok","#;
        assert!(json.starts_with(stable), "{json}");
    }

    /// What is written is read back the same; unknown fields and missing extras are accepted.
    #[test]
    fn results_are_read_back() {
        let result = sample_run(1, 2);
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<RunResult>(&json).unwrap(), result);
        let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
        let object = value.as_object_mut().unwrap();
        for extra in ["verdict", "run", "seed", "rate", "keys", "value_bytes", "issue_lag_ms"] {
            object.remove(extra);
        }
        object.insert("news".to_owned(), serde_json::json!([1, 2]));
        let bare: RunResult = serde_json::from_value(value).unwrap();
        assert!(bare.same_configuration(&result));
    }

    /// Three runs with medians of 100, 300 and 200 ms: the summary's median is 200, its range 100
    /// to 300, and its samples are those of all runs.
    #[test]
    fn runs_of_a_configuration_are_summarised() {
        let runs = [sample_run(0, 1), sample_run(1, 3), sample_run(2, 2)];
        let summaries = summarised(&runs);
        assert_eq!(summaries.len(), 1);
        let p50 = summaries[0].converge_ms.p50;
        assert_eq!((p50.median, p50.min, p50.max), (Some(200.0), Some(100.0), Some(300.0)));
        assert_eq!((summaries[0].runs, summaries[0].samples), (3, 600));
        assert_eq!(summaries[0].theory_ms, None, "eager push is not what the theory is about");
    }

    /// Another size is another configuration; a missing write is the group's verdict.
    #[test]
    fn configurations_are_told_apart_and_the_worst_verdict_counts() {
        let larger = RunResult { nodes: 5, ..sample_run(0, 1) };
        let worse = RunResult { verdict: Verdict::Unfinished, unfinished: 7, ..sample_run(1, 1) };
        let summaries = summarised(&[sample_run(0, 1), larger, worse]);
        let found: Vec<_> =
            summaries.iter().map(|group| (group.nodes, group.verdict, group.unfinished)).collect();
        assert_eq!(found, [(3, Verdict::Unfinished, 7), (5, Verdict::Ok, 0)]);
    }

    /// The gravest finding names the verdict.
    #[test]
    fn verdicts_are_ordered_by_gravity() {
        let measured = |lost, diverged, unfinished, acked| {
            Verdict::of(&Measured {
                writes: 10,
                acked,
                lost,
                diverged,
                unfinished,
                ..Measured::default()
            })
        };
        assert_eq!(measured(0, 0, 0, 10), Verdict::Ok);
        assert_eq!(measured(0, 0, 0, 9), Verdict::Unacknowledged);
        assert_eq!(measured(0, 0, 1, 9), Verdict::Unfinished);
        assert_eq!(measured(0, 1, 1, 9), Verdict::Diverged);
        assert_eq!(measured(1, 1, 1, 9), Verdict::Lost);
    }
}
