//! Percentiles of censored samples, and how far repeated runs lie apart.
//!
//! Two kinds of number come out of an experiment. Within one run there are many *samples*, one per
//! write; among repeated runs there are a few *observations*, one per run. They are summarised
//! differently, and every table says which it shows:
//!
//! - A **percentile** of samples is by *nearest rank*: the p-th percentile of n samples is the one
//!   at rank ⌈p·n/100⌉ of the sorted samples (Hyndman and Fan 1996, their definition 1). It is
//!   always a sample that really occurred, never an interpolation between two.
//! - A write that never finished is **censored**: we know that it took longer than we waited, and
//!   nothing more. It is not dropped, which would make a system that loses its slowest writes look
//!   fast. It sorts above every finished sample, so a percentile whose rank falls among the censored
//!   ones is *not reached*: `None` here, `null` in JSON, a dash in tables. With nothing censored,
//!   and only then, the maximum is reached.
//! - The **median over runs** is the usual one (the mean of the middle two if their number is even),
//!   since with two or three runs a rank would favour the lower half. Around it stand the range and
//!   the quartiles, the latter by nearest rank.
//!
//! What must stay true: ranks are computed in whole numbers, so that 99 % of 100 samples is rank 99
//! on every machine. A value that was not reached is greater than every number, everywhere.
//!
//! Left out: confidence intervals. Writes of one run are not independent (they share timers and
//! queues), so an interval computed from their number would promise too much; the spread over runs
//! is the honest one.

use std::cmp::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Durations of the same thing, some of which were never seen to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Samples {
    finished: Vec<Duration>,
    censored: usize,
}

/// What the tables show of some samples: milliseconds, `None` where a percentile was not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The median.
    pub p50: Option<f64>,
    /// The 90th percentile.
    pub p90: Option<f64>,
    /// The 99th percentile; with fewer than 100 samples it is their maximum.
    pub p99: Option<f64>,
    /// The slowest; not reached as soon as one sample is censored.
    pub max: Option<f64>,
    /// How many samples there are, the censored ones included.
    #[serde(default)]
    pub n: usize,
    /// How many of them never finished.
    #[serde(default)]
    pub censored: usize,
}

/// How the same number differs over repeated runs; `None` is "not reached", above every number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The usual median; not reached if a run that counts for it did not reach it.
    pub median: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The greatest.
    pub max: Option<f64>,
    /// The first quartile, by nearest rank.
    pub quartile_low: Option<f64>,
    /// The third quartile, by nearest rank.
    pub quartile_high: Option<f64>,
    /// How many runs there are.
    pub n: usize,
}

impl Samples {
    /// The samples that finished, in any order, and the number of those that did not.
    pub fn new(mut finished: Vec<Duration>, censored: usize) -> Self {
        finished.sort_unstable();
        Self { finished, censored }
    }

    /// How many samples there are, the censored ones included.
    pub fn len(&self) -> usize {
        self.finished.len() + self.censored
    }

    /// Whether there is no sample at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many samples never finished.
    pub fn censored(&self) -> usize {
        self.censored
    }

    /// The percentile `percent` by nearest rank, or `None` if it falls among the censored samples
    /// or there are no samples. Zero percent is the smallest sample.
    pub fn percentile(&self, percent: u32) -> Option<Duration> {
        let rank = nearest_rank(self.len(), percent)?;
        self.finished.get(rank).copied()
    }

    /// The summary that tables and reports show.
    pub fn summary(&self) -> Summary {
        let at = |percent| self.percentile(percent).map(milliseconds);
        Summary {
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
            n: self.len(),
            censored: self.censored,
        }
    }

    /// Puts the samples of another run among these.
    pub fn merge(&mut self, other: &Samples) {
        self.finished.extend_from_slice(&other.finished);
        self.finished.sort_unstable();
        self.censored += other.censored;
    }
}

impl Spread {
    /// The spread of one number per run; `None` stands for a run that did not reach it.
    pub fn of(observations: &[Option<f64>]) -> Self {
        let mut sorted = observations.to_vec();
        sorted.sort_unstable_by(|left, right| not_reached_last(*left, *right));
        let at = |percent| nearest_rank(sorted.len(), percent).and_then(|rank| sorted[rank]);
        Self {
            median: median_of_sorted(&sorted),
            min: at(0),
            max: at(100),
            quartile_low: at(25),
            quartile_high: at(75),
            n: sorted.len(),
        }
    }

    /// The spread of numbers that every run reached.
    pub fn of_numbers(numbers: impl IntoIterator<Item = f64>) -> Self {
        Self::of(&numbers.into_iter().map(Some).collect::<Vec<_>>())
    }
}

/// How many times greater the median `now` is than the median `before`, or `None` if either was
/// not reached or `before` is nothing (a ratio to zero says nothing).
pub fn ratio(now: Option<f64>, before: Option<f64>) -> Option<f64> {
    match (now, before) {
        (Some(now), Some(before)) if before > 0.0 => Some(now / before),
        _ => None,
    }
}

/// A duration in milliseconds, to the nearest tenth of a microsecond: finer would print the noise
/// of the clock.
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_nanos() as f64 / 100.0).round() / 10_000.0
}

/// The position (from 0) of the percentile `percent` among `count` sorted samples.
fn nearest_rank(count: usize, percent: u32) -> Option<usize> {
    assert!(percent <= 100, "a percentile above 100 asks for nothing");
    let rank = (count as u128 * u128::from(percent)).div_ceil(100).max(1);
    (count > 0).then(|| usize::try_from(rank).expect("at most count") - 1)
}

/// The usual median; not reached as soon as one of the middle two was not.
fn median_of_sorted(sorted: &[Option<f64>]) -> Option<f64> {
    let high = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return high;
    }
    let low = sorted[sorted.len() / 2 - 1];
    Some((low? + high?) / 2.0)
}

/// Orders numbers with "not reached" above every number.
fn not_reached_last(left: Option<f64>, right: Option<f64>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples(milliseconds: &[u64], censored: usize) -> Samples {
        Samples::new(milliseconds.iter().map(|ms| Duration::from_millis(*ms)).collect(), censored)
    }

    /// The worked example of nearest rank: 15, 20, 35, 40, 50 at 5, 30, 40, 50 and 100 percent is
    /// 15, 20, 20, 35 and 50.
    #[test]
    fn nearest_rank_gives_the_textbook_answers() {
        let samples = samples(&[40, 15, 50, 20, 35], 0);
        let found: Vec<u128> = [5, 30, 40, 50, 100]
            .map(|percent| samples.percentile(percent).unwrap().as_millis())
            .into();
        assert_eq!(found, [15, 20, 20, 35, 50]);
    }

    /// 1 to 100 ms: the p-th percentile is p ms, exactly; with 1 to 200 it is 2p.
    #[test]
    fn ranks_are_exact_at_round_numbers() {
        let hundred = samples(&(1..=100).collect::<Vec<_>>(), 0).summary();
        assert_eq!(
            (hundred.p50, hundred.p90, hundred.p99, hundred.max),
            (Some(50.0), Some(90.0), Some(99.0), Some(100.0))
        );
        let two_hundred = samples(&(1..=200).collect::<Vec<_>>(), 0).summary();
        assert_eq!((two_hundred.p50, two_hundred.p99), (Some(100.0), Some(198.0)));
    }

    /// Ten samples of which two are censored: rank 5 and rank 8 are reached, rank 9 (p90) is not.
    #[test]
    fn censored_samples_sort_above_all_others() {
        let samples = samples(&[1, 2, 3, 4, 5, 6, 7, 8], 2);
        assert_eq!(samples.percentile(80), Some(Duration::from_millis(8)));
        let summary = samples.summary();
        assert_eq!(summary.p50, Some(5.0));
        assert_eq!((summary.p90, summary.p99, summary.max), (None, None, None));
        assert_eq!((summary.n, summary.censored), (10, 2));
    }

    /// No samples reach nothing, one sample is every percentile.
    #[test]
    fn the_smallest_cases_are_defined() {
        assert_eq!(Samples::default().summary(), Summary::default());
        let one = samples(&[7], 0).summary();
        assert_eq!((one.p50, one.p99, one.max), (Some(7.0), Some(7.0), Some(7.0)));
        assert_eq!(samples(&[], 1).percentile(0), None);
    }

    /// 2, 4, 8, 16 over four runs: median (4+8)/2 = 6, quartiles at ranks 1 and 3: 2 and 8.
    #[test]
    fn a_spread_of_four_runs_is_computed_by_hand() {
        let spread = Spread::of_numbers([16.0, 2.0, 8.0, 4.0]);
        assert_eq!(spread.median, Some(6.0));
        assert_eq!((spread.min, spread.max), (Some(2.0), Some(16.0)));
        assert_eq!((spread.quartile_low, spread.quartile_high), (Some(2.0), Some(8.0)));
        assert_eq!(spread.n, 4);
    }

    /// Of 5, 1 and a run that did not get there the median is 5 and the maximum is not reached; of
    /// 5 and such a run, the median is not reached either.
    #[test]
    fn a_run_that_did_not_get_there_counts_as_the_slowest() {
        let three = Spread::of(&[Some(5.0), None, Some(1.0)]);
        assert_eq!((three.median, three.min, three.max), (Some(5.0), Some(1.0), None));
        assert_eq!(Spread::of(&[None, Some(5.0)]).median, None);
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    /// 3 to 2 is 1.5; nothing is a multiple of nothing.
    #[test]
    fn ratios_of_medians_need_both() {
        assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
        assert_eq!(ratio(None, Some(2.0)), None);
        assert_eq!(ratio(Some(3.0), None), None);
        assert_eq!(ratio(Some(3.0), Some(0.0)), None);
    }

    /// 1,234,567 ns is 1.2346 ms.
    #[test]
    fn milliseconds_are_rounded_to_a_tenth_of_a_microsecond() {
        assert_eq!(milliseconds(Duration::from_nanos(1_234_567)), 1.2346);
    }

    proptest! {
        /// By definition, at least p percent of the samples are at or below the p-th percentile,
        /// and fewer than p percent lie strictly below it.
        #[test]
        fn a_percentile_splits_the_samples(
            finished in prop::collection::vec(0u64..1_000, 1..200),
            censored in 0usize..20,
            percent in 1u32..=100,
        ) {
            let samples = samples(&finished, censored);
            let n = samples.len() as u64;
            if let Some(value) = samples.percentile(percent) {
                let value = value.as_millis() as u64;
                let at_or_below = finished.iter().filter(|ms| **ms <= value).count() as u64;
                let below = finished.iter().filter(|ms| **ms < value).count() as u64;
                prop_assert!(at_or_below * 100 >= n * u64::from(percent));
                prop_assert!(below * 100 < n * u64::from(percent));
            } else {
                prop_assert!((finished.len() as u64) * 100 < n * u64::from(percent));
            }
        }
    }
}
