//! Holding a comparison against an earlier one.
//!
//! Configurations are matched when they were asked to do the same thing (see
//! [`RunResult::same_configuration`]); seeds and numbers of writes may differ. What is shown is the
//! ratio of medians over runs, now to then: 2.00 is twice as much. Timings from two invocations on a
//! busy machine differ by 15 to 25 % without any cause, so a ratio is called *clear* only if both
//! sides have at least [`RUNS_CLEAR`] runs whose ranges do not touch.
//!
//! Too few samples give no verdict: a p99 of fewer than [`SAMPLES_MIN`] writes is only their
//! maximum. Then, or if nothing matches, the comparison says so (exit code 8) and shows what it
//! has.

use std::path::{Path, PathBuf};

use super::report::Report;
use super::result::{RunResult, Summarised, grouped, summarised};
use super::statistics::{Spread, ratio};

/// Fewer writes than this, over all runs of a configuration, are too few: below it nearest rank
/// makes p99 the maximum.
pub const SAMPLES_MIN: usize = 100;

/// With fewer runs than this on either side no difference is clear: two ranges of two runs each
/// fail to touch by chance once in three times, of three each once in ten.
pub const RUNS_CLEAR: usize = 3;

/// The largest baseline file that is read: a run takes about 1.5 kB, so this is 40,000 of them.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// An earlier comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    runs: Vec<RunResult>,
}

/// One configuration, now and then.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// Now.
    pub now: Summarised,
    /// Then.
    pub before: Summarised,
}

/// A number now and then.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// How many times greater it is; `None` where one of the two was not reached or was zero.
    pub ratio: Option<f64>,
    /// Whether the runs of the two do not overlap at all.
    pub clear: bool,
}

/// Says why a baseline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file cannot be read.
    #[error("cannot read the baseline {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is too large to be a comparison.
    #[error("the baseline {} has {bytes} bytes: no comparison is that long", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The file is not the JSON of a comparison.
    #[error("the baseline {} is not the JSON of an earlier comparison (--json)", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Baseline {
    /// Reads what `--json` wrote.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or is not a comparison.
    pub fn read(path: &Path) -> Result<Self, BaselineError> {
        let read_error = |source| BaselineError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(read_error)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(BaselineError::TooLarge { path: path.to_owned(), bytes });
        }
        let text = std::fs::read_to_string(path).map_err(read_error)?;
        let runs = Report::runs_from_json(&text)
            .map_err(|source| BaselineError::Format { path: path.to_owned(), source })?;
        Ok(Self { runs })
    }

    /// A baseline of runs that are at hand.
    pub fn of(runs: Vec<RunResult>) -> Self {
        Self { runs }
    }

    /// What the baseline measured for each configuration of `runs`, in their order; `None` where
    /// it has none.
    pub fn matches(&self, runs: &[RunResult]) -> Vec<Option<Match>> {
        let groups = grouped(runs).into_iter().zip(summarised(runs));
        groups
            .map(|(group, now)| {
                let same: Vec<RunResult> = self
                    .runs
                    .iter()
                    .filter(|run| run.same_configuration(group[0]))
                    .cloned()
                    .collect();
                let before = summarised(&same).into_iter().next()?;
                Some(Match { now, before })
            })
            .collect()
    }
}

impl Match {
    /// Whether there are enough samples on both sides to say anything about p99.
    pub fn enough(&self) -> bool {
        self.now.samples >= SAMPLES_MIN && self.before.samples >= SAMPLES_MIN
    }

    /// How one number changed.
    pub fn change(&self, number: fn(&Summarised) -> Spread) -> Change {
        let (now, before) = (number(&self.now), number(&self.before));
        let apart = |low: Spread, high: Spread| match (low.max, high.min) {
            (Some(low), Some(high)) => low < high,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let runs = now.n.min(before.n);
        Change {
            ratio: ratio(now.median, before.median),
            clear: runs >= RUNS_CLEAR && (apart(now, before) || apart(before, now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::sample_run;
    use super::*;

    fn p50(summary: &Summarised) -> Spread {
        summary.converge_ms.p50
    }

    /// Three runs at 100, 200 and 300 ms against three at 400, 500 and 600: the ratio of medians is
    /// 2.5 and clear. Against 300, 500 and 600 it is as large but not clear, since both have a run
    /// at 300.
    #[test]
    fn a_difference_is_clear_if_the_runs_do_not_touch() {
        let runs = |factors: [u64; 3]| -> Vec<RunResult> {
            factors.iter().enumerate().map(|(run, factor)| sample_run(run, *factor)).collect()
        };
        let baseline = Baseline::of(runs([1, 2, 3]));
        let change = |now: Vec<RunResult>| baseline.matches(&now)[0].as_ref().unwrap().change(p50);
        assert_eq!(change(runs([6, 4, 5])), Change { ratio: Some(2.5), clear: true });
        assert_eq!(change(runs([3, 5, 6])), Change { ratio: Some(2.5), clear: false });
    }

    /// One run against one run has a ratio but nothing is clear.
    #[test]
    fn single_runs_are_never_clearly_different() {
        let found = Baseline::of(vec![sample_run(0, 1)]).matches(&[sample_run(0, 3)]);
        let found = found[0].as_ref().unwrap();
        assert_eq!(found.change(p50), Change { ratio: Some(3.0), clear: false });
        assert!(found.enough());
    }

    /// A configuration that the baseline does not have has no match; ninety-nine samples are too
    /// few, one hundred enough.
    #[test]
    fn what_cannot_be_compared_is_said() {
        let baseline = Baseline::of(vec![sample_run(0, 1)]);
        let larger = RunResult { nodes: 5, ..sample_run(0, 1) };
        assert_eq!(baseline.matches(&[larger]), [None]);
        for (acked, enough) in [(99, false), (100, true)] {
            let now = RunResult { acked, ..sample_run(0, 1) };
            assert_eq!(baseline.matches(&[now])[0].as_ref().unwrap().enough(), enough);
        }
    }

    /// A missing file, and one that is something else, are told apart.
    #[test]
    fn unreadable_baselines_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("baseline.json");
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Read { .. })));
        std::fs::write(&path, "{\"runs\": 3}").unwrap();
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Format { .. })));
    }
}
