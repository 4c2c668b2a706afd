//! `--fail-if`: a condition under which a comparison counts as failed.
//!
//! ```text
//! condition  = metric operator number [unit]        p99>500ms   lost>0   ack.p50>=2ms   p99>1.2x
//! conditions = condition { "," condition }
//! operator   = ">" | ">=" | "<" | "<=" | "=="
//! unit       = "us" | "ms" | "s" | "x"
//! ```
//!
//! Metrics are named as in the JSON: `p50`, `p90`, `p99`, `max` are convergence times from the
//! acknowledgement, `ack.p50` and so on the acknowledgement's, `issue.p50` and so on convergence
//! times from the issue; then `lost`, `diverged`, `unfinished`, `conflicts`, `messages_per_write` and
//! `bytes_per_write`. A time without unit is in milliseconds, as in the JSON; other metrics have no
//! unit. `x` is "times the baseline's", for any metric, and needs `--baseline`.
//!
//! A condition is held against every configuration: for times and costs against the median over its
//! runs (one noisy run must not fail a build), for counts against the worst run (one lost write
//! must). A time that was not reached is greater than every number, so `p99>500ms` fails if p99 was
//! not reached.

use std::fmt;
use std::str::FromStr;

use super::result::Summarised;
use super::statistics::{Spread, ratio};

/// A condition under which a comparison fails.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// What is looked at.
    pub metric: Metric,
    operator: Operator,
    bound: Bound,
    /// As it was written, for messages.
    text: String,
}

/// What a condition looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A percentile of the time from acknowledgement to all.
    Converge(Percentile),
    /// A percentile of the time from issue to acknowledgement.
    Ack(Percentile),
    /// A percentile of the time from issue to all.
    Issue(Percentile),
    /// Lost writes.
    Lost,
    /// Diverged nodes.
    Diverged,
    /// Unfinished writes.
    Unfinished,
    /// Writes dropped for a concurrent one.
    Conflicts,
    /// Messages per write.
    MessagesPerWrite,
    /// Bytes per write.
    BytesPerWrite,
}

/// A column of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Percentile {
    /// The median.
    P50,
    /// The 90th percentile.
    P90,
    /// The 99th percentile.
    P99,
    /// The slowest.
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
}

/// What the metric is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    /// A number in the metric's own unit.
    Absolute(f64),
    /// A multiple of what the baseline measured.
    TimesBaseline(f64),
}

/// What a condition says about one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// It does not apply.
    Kept,
    /// It applies: the comparison failed.
    Crossed,
    /// It speaks of a baseline that has nothing to compare with.
    Unknown,
}

/// Says what is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No operator in it.
    #[error(
        "{0:?} has no operator: expected a condition such as p99>500ms, with >, >=, <, <= or =="
    )]
    Operator(String),
    /// Not the name of a metric.
    #[error(
        "{0:?} is not a metric: expected p50, p90, p99 or max (from acknowledgement to all; \
         ack.p99 to acknowledgement, issue.p99 from issue to all), lost, diverged, unfinished, \
         conflicts, messages_per_write or bytes_per_write"
    )]
    Metric(String),
    /// Not a number.
    #[error("{0:?} is not a number with a unit: expected one such as 500ms, 0.5s, 20 or 1.2x")]
    Number(String),
    /// A unit that the metric does not have.
    #[error("{metric} cannot be held against {bound:?}: its unit is {expected}")]
    Unit {
        /// The metric.
        metric: String,
        /// What it was held against.
        bound: String,
        /// What it could be held against.
        expected: &'static str,
    },
}

impl Threshold {
    /// Reads conditions separated by commas.
    ///
    /// # Errors
    /// When one of them is not a condition; the error quotes the part that is wrong.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, ThresholdError> {
        text.split(',').map(|part| part.trim().parse()).collect()
    }

    /// Whether it needs a baseline.
    pub fn needs_baseline(&self) -> bool {
        matches!(self.bound, Bound::TimesBaseline(_))
    }

    /// What it says about `now`, given what the baseline measured for the same configuration.
    pub fn check(&self, now: &Summarised, baseline: Option<&Summarised>) -> Finding {
        let found = self.metric.of(now);
        let (found, bound) = match self.bound {
            Bound::Absolute(bound) => (found.unwrap_or(f64::INFINITY), bound),
            Bound::TimesBaseline(bound) => {
                let before = baseline.and_then(|before| self.metric.of(before));
                match (ratio(found, before), found, before) {
                    (Some(ratio), ..) => (ratio, bound),
                    (None, None, Some(_)) => (f64::INFINITY, bound),
                    _ => return Finding::Unknown,
                }
            }
        };
        if self.operator.applies(found, bound) { Finding::Crossed } else { Finding::Kept }
    }
}

impl Metric {
    /// Its value for a configuration; `None` if it was not reached.
    pub fn of(self, summary: &Summarised) -> Option<f64> {
        let column = |percentiles: &super::result::Percentiles, percentile| -> Spread {
            match percentile {
                Percentile::P50 => percentiles.p50,
                Percentile::P90 => percentiles.p90,
                Percentile::P99 => percentiles.p99,
                Percentile::Max => percentiles.max,
            }
        };
        match self {
            Metric::Converge(percentile) => column(&summary.converge_ms, percentile).median,
            Metric::Ack(percentile) => column(&summary.ack_ms, percentile).median,
            Metric::Issue(percentile) => column(&summary.converge_from_issue_ms, percentile).median,
            Metric::Lost => Some(summary.lost as f64),
            Metric::Diverged => Some(summary.diverged as f64),
            Metric::Unfinished => Some(summary.unfinished as f64),
            Metric::Conflicts => Some(summary.conflicts as f64),
            Metric::MessagesPerWrite => summary.messages_per_write.median,
            Metric::BytesPerWrite => summary.bytes_per_write.median,
        }
    }

    /// Whether it is a time.
    pub fn is_time(self) -> bool {
        matches!(self, Metric::Converge(_) | Metric::Ack(_) | Metric::Issue(_))
    }
}

impl Operator {
    fn applies(self, found: f64, bound: f64) -> bool {
        match self {
            Operator::Greater => found > bound,
            Operator::GreaterOrEqual => found >= bound,
            Operator::Less => found < bound,
            Operator::LessOrEqual => found <= bound,
            Operator::Equal => found == bound,
        }
    }
}

/// The operators, the longer ones before those that they begin with.
const OPERATORS: [(&str, Operator); 5] = [
    (">=", Operator::GreaterOrEqual),
    ("<=", Operator::LessOrEqual),
    ("==", Operator::Equal),
    (">", Operator::Greater),
    ("<", Operator::Less),
];

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at =
            text.find(['>', '<', '=']).ok_or_else(|| ThresholdError::Operator(text.to_owned()))?;
        let (name, rest) = text.split_at(at);
        let (operator, bound) = OPERATORS
            .iter()
            .find_map(|(sign, operator)| Some((*operator, rest.strip_prefix(sign)?)))
            .ok_or_else(|| ThresholdError::Operator(text.to_owned()))?;
        let metric: Metric = name.trim().parse()?;
        let bound = parse_bound(metric, name.trim(), bound.trim())?;
        Ok(Self { metric, operator, bound, text: text.to_owned() })
    }
}

/// Reads a number with its unit, and turns times into milliseconds.
fn parse_bound(metric: Metric, name: &str, text: &str) -> Result<Bound, ThresholdError> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| ThresholdError::Number(text.to_owned()))?;
    match (unit.trim(), metric.is_time()) {
        ("x", _) => Ok(Bound::TimesBaseline(number)),
        ("", _) | ("ms", true) => Ok(Bound::Absolute(number)),
        ("us" | "µs", true) => Ok(Bound::Absolute(number / 1_000.0)),
        ("s", true) => Ok(Bound::Absolute(number * 1_000.0)),
        (_, is_time) => Err(ThresholdError::Unit {
            metric: name.to_owned(),
            bound: text.to_owned(),
            expected: if is_time { "us, ms, s or x" } else { "none (a plain number) or x" },
        }),
    }
}

impl FromStr for Metric {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ThresholdError::Metric(text.to_owned());
        let percentile = |name: &str| match name {
            "p50" => Ok(Percentile::P50),
            "p90" => Ok(Percentile::P90),
            "p99" => Ok(Percentile::P99),
            "max" => Ok(Percentile::Max),
            _ => Err(unknown()),
        };
        match (text.split_once('.'), text) {
            (Some(("ack", name)), _) => Ok(Metric::Ack(percentile(name)?)),
            (Some(("issue", name)), _) => Ok(Metric::Issue(percentile(name)?)),
            (Some(("converge", name)), _) => Ok(Metric::Converge(percentile(name)?)),
            (_, "lost") => Ok(Metric::Lost),
            (_, "diverged") => Ok(Metric::Diverged),
            (_, "unfinished") => Ok(Metric::Unfinished),
            (_, "conflicts") => Ok(Metric::Conflicts),
            (_, "messages_per_write") => Ok(Metric::MessagesPerWrite),
            (_, "bytes_per_write") => Ok(Metric::BytesPerWrite),
            (_, name) => Ok(Metric::Converge(percentile(name)?)),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::result::tests::sample_run;
    use super::super::result::{RunResult, summarised};
    use super::*;

    fn check(condition: &str, run: RunResult) -> Finding {
        let condition: Threshold = condition.parse().unwrap();
        condition.check(&summarised(&[run])[0], None)
    }

    /// The sample run has p50 100 ms, p99 198 ms, acknowledgements of 20 µs, 4 messages and 300
    /// bytes per write, 3 conflicts: conditions hold exactly where they should.
    #[test]
    fn conditions_apply_exactly_at_their_bounds() {
        for crossed in [
            "p99>197ms",
            "p99>=198ms",
            "p99 == 198",
            "p99<0.2s",
            "p99<=198000us",
            "converge.max>=200ms",
            "ack.p50>19us",
            "ack.p50<21µs",
            "messages_per_write>3.9",
            "bytes_per_write>=300",
            "conflicts>2",
            "lost==0",
        ] {
            assert_eq!(check(crossed, sample_run(0, 1)), Finding::Crossed, "{crossed}");
        }
        for kept in ["p99>198ms", "p99>0.198s", "p50<100ms", "ack.max>1ms", "lost>0", "diverged>0"]
        {
            assert_eq!(check(kept, sample_run(0, 1)), Finding::Kept, "{kept}");
        }
    }

    /// A percentile that was not reached is above every bound and below none.
    #[test]
    fn not_reached_is_above_every_bound() {
        let mut run = sample_run(0, 1);
        run.converge_ms.p99 = None;
        assert_eq!(check("p99>1000000s", run.clone()), Finding::Crossed);
        assert_eq!(check("p99<1000000s", run), Finding::Kept);
    }

    /// Twice as slow as the baseline crosses 1.9x and keeps 2.1x; without a baseline nothing is
    /// known.
    #[test]
    fn multiples_refer_to_the_baseline() {
        let before = &summarised(&[sample_run(0, 1)])[0];
        let now = &summarised(&[sample_run(0, 2)])[0];
        let check =
            |condition: &str, before| condition.parse::<Threshold>().unwrap().check(now, before);
        assert_eq!(check("p50>1.9x", Some(before)), Finding::Crossed);
        assert_eq!(check("p50>2.1x", Some(before)), Finding::Kept);
        assert_eq!(check("p50>2.1x", None), Finding::Unknown);
        assert_eq!(check("lost>1x", Some(before)), Finding::Unknown, "a multiple of nothing");
    }

    /// Several conditions are separated by commas, spaces do not matter.
    #[test]
    fn several_conditions_are_read() {
        let conditions = Threshold::parse_all("p99>500ms, lost>0 ,ack.p99 >= 2 ms").unwrap();
        let texts: Vec<String> = conditions.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["p99>500ms", "lost>0", "ack.p99 >= 2 ms"]);
    }

    /// Every mistake is told for what it is.
    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| text.parse::<Threshold>().unwrap_err();
        assert_eq!(error(""), ThresholdError::Operator(String::new()));
        assert_eq!(error("p99"), ThresholdError::Operator("p99".to_owned()));
        assert_eq!(error("p99=5ms"), ThresholdError::Operator("p99=5ms".to_owned()));
        assert_eq!(error("p98>5ms"), ThresholdError::Metric("p98".to_owned()));
        assert_eq!(error("ack.p98>5ms"), ThresholdError::Metric("ack.p98".to_owned()));
        assert_eq!(error(">5ms"), ThresholdError::Metric(String::new()));
        assert_eq!(error("p99>"), ThresholdError::Number(String::new()));
        assert_eq!(error("p99>fast"), ThresholdError::Number("fast".to_owned()));
        assert_eq!(error("p99>-5ms"), ThresholdError::Number("-5ms".to_owned()));
        assert_eq!(error("p99>1.2.3"), ThresholdError::Number("1.2.3".to_owned()));
        assert!(matches!(error("p99>5h"), ThresholdError::Unit { .. }));
        assert!(matches!(error("lost>5ms"), ThresholdError::Unit { .. }));
        assert!(Threshold::parse_all("p99>5ms,").is_err());
    }
}
