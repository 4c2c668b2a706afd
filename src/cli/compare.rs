//! `quorumor compare`: its arguments, and what they mean.
//!
//! Every axis takes a list, and all combinations are run. `--quick` only changes what is assumed
//! where nothing is said, so it goes with every other flag.
//!
//! Tables go to standard output; if JSON or CSV goes there (`-`), the table goes to standard error.
//! Progress is shown on standard error and only on a terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Exit;
use super::exit::{print, with_sources};
use crate::lab::baseline::Baseline;
use crate::lab::cluster::{self, MeasureError};
use crate::lab::config::{
    CompareConfig, Consistency, Links, NODES_ASSUMED, NODES_QUICK, Spreading,
};
use crate::lab::report::{Outcome, Report};
use crate::lab::result::RunResult;
use crate::lab::simulated;
use crate::lab::threshold::Threshold;
use crate::lab::workload::Arrivals;
use crate::net::{NetError, load_profile};
use crate::sim::experiment;

/// The most real nodes in one process: each has its own socket, timers and connections to all
/// others, and 100 nodes are 4,950 connections.
pub const NODES_REAL_MAX: usize = 100;

/// The most simulated nodes; memory grows with the square.
pub const NODES_SIMULATED_MAX: usize = experiment::NODES_MAX;

/// The most writes of one run: each is remembered at each node in about 50 bytes.
pub const WRITES_MAX: usize = 10_000_000;

/// The longest value, in bytes: larger ones measure the link, not the protocol.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// The most runs of one configuration.
pub const RUNS_MAX: usize = 1_000;

/// The most writes a second: beyond it nothing here keeps up, and the report would say just that.
pub const RATE_MAX: f64 = 1_000_000.0;

/// Measures how long writes take to reach all peers, and what that costs.
///
/// Runs whole clusters in this process, over real QUIC links shaped by a profile (or in virtual
/// time with --simulate), for every combination of --consistency, --strategies, --profiles and
/// --nodes, issues writes at a fixed rate and reports when the last node had each of them.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// About 20 seconds: 5 nodes, two profiles, two strategies, few writes.
    ///
    /// Changes defaults only: every other flag still says what it says.
    #[arg(long)]
    pub quick: bool,

    /// How writes spread: push, pull or push-pull rounds, each alone or with eager push in front
    /// (eager+push-pull) [default: eager+push-pull,push-pull].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub strategies: Option<Vec<Spreading>>,

    /// The links: names of built-in profiles, or files like netconfig/*.toml
    /// [default: loopback,lan].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub profiles: Option<Vec<String>>,

    /// The cluster sizes [default: the profile's own if it names one, else 3,5; with --quick: 5].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub nodes: Option<Vec<usize>>,

    /// The modes: eventual, strong. In strong mode all that vote take writes from the log, so it is
    /// measured with the first of the strategies only.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "eventual,strong")]
    pub consistency: Vec<Consistency>,

    /// Writes in each run, over all nodes [default: 500; with --quick: 300].
    #[arg(long, value_name = "N")]
    pub writes: Option<usize>,

    /// Writes per second over all nodes, issued whatever becomes of earlier ones
    /// [default: 200; with --quick: 300].
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,

    /// Issue writes evenly spaced rather than as a Poisson process.
    #[arg(long)]
    pub even: bool,

    /// How many distinct keys are written; the fewer, the more writes meet on one key.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub keys: usize,

    /// The length of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub values: usize,

    /// How often each node opens a round.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub interval: Duration,

    /// To how many peers a node pushes a write eagerly [default: the node's own choice].
    #[arg(long, value_name = "N")]
    pub fanout: Option<usize>,

    /// How often each configuration is run, to show the spread.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub runs: usize,

    /// Decides keys, instants and nodes of all writes; run n uses the seed plus n.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// How long after the last write to wait until all nodes have everything.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub deadline: Duration,

    /// Run in virtual time: hundreds of nodes, and the same numbers every time.
    #[arg(long)]
    pub simulate: bool,

    /// Write every run and the summaries as JSON to FILE, or to standard output if it is -.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write one line per run as CSV to FILE, or to standard output if it is -.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Fail (exit code 5) if a condition holds: p99>500ms, lost>0, ack.p50>=2ms, p99>1.2x (times
    /// the baseline); may be repeated, or list several.
    ///
    /// Metrics: p50, p90, p99, max (from acknowledgement to all), ack.p50 ... (to acknowledgement),
    /// issue.p50 ... (from issue to all), lost, diverged, unfinished, conflicts,
    /// messages_per_write, bytes_per_write. Operators: > >= < <= ==. Units: us, ms (assumed), s
    /// for times, x for multiples of the baseline.
    #[arg(long, value_name = "CONDITION", value_delimiter = ',')]
    pub fail_if: Vec<Threshold>,

    /// Show ratios to an earlier comparison's --json (exit code 8 if it has too few samples).
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
}

/// Says what is wrong with arguments that are well formed one by one.
#[derive(Debug, thiserror::Error)]
pub enum CompareArgsError {
    /// A number out of its bounds.
    #[error("{flag} {given} is out of bounds: expected {expected}")]
    Bounds {
        /// The flag.
        flag: &'static str,
        /// What was given.
        given: String,
        /// What could be.
        expected: String,
    },
    /// An axis with nothing on it, or something twice.
    #[error("{flag} names {what}")]
    List {
        /// The flag.
        flag: &'static str,
        /// What is wrong with the list.
        what: String,
    },
    /// Two flags that exclude each other.
    #[error("{0}")]
    Together(&'static str),
    /// A profile that cannot be read, does not exist or makes no sense.
    #[error("{}", with_sources(.0))]
    Profile(#[from] NetError),
}

impl CompareArgs {
    /// The comparison that these arguments ask for.
    ///
    /// # Errors
    /// When numbers are out of bounds or flags contradict each other: the caller's mistake.
    pub fn config(&self) -> Result<CompareConfig, CompareArgsError> {
        let assumed = if self.quick { QUICK } else { ASSUMED };
        let default_strategies = || {
            vec![
                "eager+push-pull".parse().expect("a strategy"),
                "push-pull".parse().expect("a strategy"),
            ]
        };
        let config = CompareConfig {
            consistency: self.consistency.clone(),
            strategies: self.strategies.clone().unwrap_or_else(default_strategies),
            links: self.links()?,
            writes: self.writes.unwrap_or(assumed.writes),
            rate: self.rate.unwrap_or(assumed.rate),
            arrivals: if self.even { Arrivals::Even } else { Arrivals::Poisson },
            keys: self.keys,
            value_bytes: self.values,
            interval: self.interval,
            fanout: self.fanout,
            runs: self.runs,
            seed: self.seed,
            deadline: self.deadline,
            simulate: self.simulate,
        };
        check_numbers(&config)?;
        self.check_lists(&config)?;
        Ok(config)
    }

    fn links(&self) -> Result<Vec<Links>, CompareArgsError> {
        let assumed = if self.quick { NODES_QUICK } else { NODES_ASSUMED };
        let names = self.profiles.as_deref().unwrap_or_default();
        let names: Vec<&str> = match names {
            [] => PROFILES_ASSUMED.to_vec(),
            names => names.iter().map(String::as_str).collect(),
        };
        distinct("--profiles", &names)?;
        distinct("--nodes", self.nodes.as_deref().unwrap_or(assumed))?;
        names
            .into_iter()
            .map(|name| {
                let profile = load_profile(name)?;
                let own = profile.nodes().map_or(assumed.to_vec(), |nodes| vec![nodes]);
                let nodes = self.nodes.clone().unwrap_or(own);
                Ok(Links { profile: Arc::new(profile), nodes })
            })
            .collect()
    }

    fn check_lists(&self, config: &CompareConfig) -> Result<(), CompareArgsError> {
        distinct("--consistency", &config.consistency)?;
        distinct("--strategies", &config.strategies)?;
        let dash = |path: &Option<PathBuf>| path.as_deref().is_some_and(is_dash);
        if dash(&self.json) && dash(&self.csv) {
            return Err(CompareArgsError::Together(
                "--json - and --csv - both write to standard output: give one of them a file",
            ));
        }
        if self.baseline.is_none() && self.fail_if.iter().any(Threshold::needs_baseline) {
            return Err(CompareArgsError::Together(
                "--fail-if with a multiple (x) compares with a baseline: add --baseline FILE",
            ));
        }
        Ok(())
    }
}

/// The links that are compared where none are named.
const PROFILES_ASSUMED: [&str; 2] = ["loopback", "lan"];

/// What is assumed where nothing is said.
struct Assumed {
    writes: usize,
    rate: f64,
}

/// Eight configurations of three runs of 2.5 s and their set-up: a minute and a half.
const ASSUMED: Assumed = Assumed { writes: 500, rate: 200.0 };

/// Four configurations of three runs of 1 s and their set-up: twenty seconds.
const QUICK: Assumed = Assumed { writes: 300, rate: 300.0 };

fn check_numbers(config: &CompareConfig) -> Result<(), CompareArgsError> {
    let nodes_max = if config.simulate { NODES_SIMULATED_MAX } else { NODES_REAL_MAX };
    for nodes in config.links.iter().flat_map(|links| &links.nodes) {
        let kind = if config.simulate { "simulated nodes" } else { "real nodes (see --simulate)" };
        bounds("--nodes", *nodes, 1, nodes_max, kind)?;
    }
    bounds("--writes", config.writes, 1, WRITES_MAX, "writes")?;
    bounds("--keys", config.keys, 1, WRITES_MAX, "keys")?;
    bounds("--values", config.value_bytes, 0, VALUE_BYTES_MAX, "bytes")?;
    bounds("--runs", config.runs, 1, RUNS_MAX, "runs")?;
    bounds("--fanout", config.fanout.unwrap_or(1), 1, nodes_max, "peers")?;
    if !(config.rate >= RATE_MIN && config.rate <= RATE_MAX) {
        return Err(CompareArgsError::Bounds {
            flag: "--rate",
            given: config.rate.to_string(),
            expected: format!("{RATE_MIN} to {RATE_MAX} writes per second"),
        });
    }
    if config.interval < INTERVAL_MIN || config.interval > DURATION_MAX {
        return Err(CompareArgsError::Bounds {
            flag: "--interval",
            given: humantime::format_duration(config.interval).to_string(),
            expected: "1ms to 1h".to_owned(),
        });
    }
    if config.deadline > DURATION_MAX {
        return Err(CompareArgsError::Bounds {
            flag: "--deadline",
            given: humantime::format_duration(config.deadline).to_string(),
            expected: "at most 1h".to_owned(),
        });
    }
    Ok(())
}

/// One write in 1,000 seconds; slower is not a load.
const RATE_MIN: f64 = 0.001;

/// Timers overshoot by a tenth of this.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// An hour: nobody waits longer at a terminal.
const DURATION_MAX: Duration = Duration::from_secs(3_600);

fn bounds(
    flag: &'static str,
    given: usize,
    least: usize,
    most: usize,
    unit: &str,
) -> Result<(), CompareArgsError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    let expected = format!("{least} to {most} {unit}");
    Err(CompareArgsError::Bounds { flag, given: given.to_string(), expected })
}

/// Whether a list has something on it and nothing twice, which would count it as more runs.
fn distinct<T: PartialEq + std::fmt::Display>(
    flag: &'static str,
    list: &[T],
) -> Result<(), CompareArgsError> {
    if list.is_empty() {
        return Err(CompareArgsError::List { flag, what: "nothing".to_owned() });
    }
    match list.iter().enumerate().find(|(index, item)| list[..*index].contains(item)) {
        Some((_, twice)) => Err(CompareArgsError::List { flag, what: format!("{twice} twice") }),
        None => Ok(()),
    }
}

fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// Makes the comparison and reports it.
pub async fn run(args: CompareArgs) -> Exit {
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return Exit::Usage.because(error),
    };
    // Read before the minutes of measuring, so that a wrong name is known at once.
    let baseline = match args.baseline.as_deref().map(Baseline::read).transpose() {
        Ok(baseline) => baseline,
        Err(error) => return Exit::Usage.because(with_sources(&error)),
    };
    // So is a file that cannot be written.
    let files = [&args.json, &args.csv].into_iter().flatten().filter(|path| !is_dash(path));
    for path in files {
        if let Err(error) = File::options().append(true).create(true).open(path) {
            return Exit::Usage.because(format!("cannot write {}: {error}", path.display()));
        }
    }
    let runs = match measure(&config).await {
        Ok(runs) => runs,
        Err(error) => return Exit::Failed.because(error),
    };
    let report = Report::new(&config, runs, &args.fail_if, baseline.as_ref());
    let written = match write_report(&args, &report) {
        Ok(written) => written,
        Err(error) => return Exit::Failed.because(error),
    };
    match report.outcome() {
        Outcome::Ok => written,
        Outcome::Failed => Exit::NotConverged,
        Outcome::TooFewSamples => Exit::TooFewSamples,
    }
}

/// Makes all runs, the first of each configuration before the second of any, so that a machine that
/// gets slower does so for all of them.
async fn measure(config: &CompareConfig) -> Result<Vec<RunResult>, MeasureError> {
    let configurations = config.configurations();
    let total = configurations.len() * config.runs;
    // Draws nothing where standard error is not a terminal.
    let progress = ProgressBar::new(total as u64);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}");
    progress.set_style(style.expect("a well-formed template"));
    let mut results = Vec::with_capacity(total);
    for run in 0..config.runs {
        for point in &configurations {
            progress.set_message(format!(
                "{} nodes, {}, {}",
                point.nodes,
                point.profile.name(),
                point.spreading
            ));
            results.push(if config.simulate {
                simulated::measure(config, point, run)
            } else {
                cluster::measure(config, point, run).await?
            });
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(results)
}

/// Whether a path stands for standard output.
fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes the table, and what else was asked for.
fn write_report(args: &CompareArgs, report: &Report) -> Result<Exit, WriteError> {
    let stdout_taken = [&args.json, &args.csv].into_iter().flatten().any(|path| is_dash(path));
    let mut printed = Exit::Ok;
    if stdout_taken {
        eprint!("{}", report.text(io::stderr().is_terminal()));
    } else {
        printed = print(&report.text(io::stdout().is_terminal()));
    }
    if let Some(path) = &args.json {
        write_to(path, |to| to.write_all(report.json().as_bytes()))?;
    }
    if let Some(path) = &args.csv {
        write_to(path, |to| report.write_csv(to))?;
    }
    Ok(printed)
}

/// Says what could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
struct WriteError {
    path: String,
    source: io::Error,
}

fn write_to(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), WriteError> {
    let written = if is_dash(path) {
        write(&mut io::stdout().lock())
    } else {
        File::create(path).and_then(|mut file| write(&mut file))
    };
    written.map_err(|source| WriteError { path: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "quorumor compare")]
    struct Compare {
        #[command(flatten)]
        args: CompareArgs,
    }

    fn parse(words: &str) -> CompareArgs {
        let words = ["quorumor compare"].into_iter().chain(words.split_whitespace());
        Compare::try_parse_from(words).unwrap().args
    }

    /// The definitions contradict neither each other nor clap's rules.
    #[test]
    fn the_arguments_are_well_defined() {
        Compare::command().debug_assert();
    }

    /// The command that a report prints asks for the same comparison again, for any flags.
    #[test]
    fn the_printed_command_repeats_the_comparison() {
        for words in [
            "",
            "--quick",
            "--quick --nodes 3 --rate 12.5",
            "--profiles glomers",
            "--profiles loopback,glomers",
            "--quick --profiles loopback,glomers",
            "--strategies push,eager+pull --profiles wan,netconfig/lan.toml --nodes 2,4,8 --simulate --even",
            "--interval 1s500ms --fanout 3 --runs 7 --seed 99 --deadline 1m --values 16 --keys 1",
        ] {
            let config = parse(words).config().unwrap();
            let command = config.command_line();
            let repeated = command.strip_prefix("quorumor compare").unwrap();
            let repeated = parse(repeated).config().unwrap();
            assert_eq!(format!("{repeated:?}"), format!("{config:?}"), "{command}");
        }
    }

    /// `--quick` changes what is assumed, not what is said.
    #[test]
    fn quick_changes_defaults_only() {
        let config = parse("--quick --writes 7").config().unwrap();
        assert_eq!((config.writes, config.rate), (7, QUICK.rate));
        assert_eq!(config.links[0].nodes, NODES_QUICK);
    }

    /// Conditions may be listed and repeated.
    #[test]
    fn conditions_add_up() {
        let args = parse("--fail-if p99>500ms,lost>0 --fail-if ack.p50>2ms");
        let texts: Vec<String> = args.fail_if.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["p99>500ms", "lost>0", "ack.p50>2ms"]);
    }

    /// Each mistake has an error that names the flag.
    #[test]
    fn mistakes_are_named() {
        let error = |words: &str| parse(words).config().unwrap_err().to_string();
        assert!(error("--nodes 0").starts_with("--nodes 0 is out of bounds"));
        assert!(error("--nodes 101").contains("--simulate"));
        assert!(parse("--nodes 101 --simulate").config().is_ok());
        assert!(error("--nodes 3,5,3").contains("3 twice"));
        assert!(error("--writes 0").starts_with("--writes 0"));
        assert!(error("--rate 0").starts_with("--rate 0"));
        assert!(error("--rate NaN").starts_with("--rate NaN"));
        assert!(error("--interval 0s").starts_with("--interval 0s"));
        assert!(error("--json - --csv -").contains("standard output"));
        assert!(error("--fail-if p99>1.5x").contains("--baseline"));
        assert!(error("--profiles moon").contains("there is no profile \"moon\""));
        assert!(error("--profiles moon.toml").starts_with("cannot read the profile moon.toml"));
    }

    /// What clap refuses, it refuses in our words.
    #[test]
    fn unknown_words_are_refused_with_advice() {
        let refused = |words: &[&str]| {
            let words = ["quorumor compare"].iter().chain(words);
            Compare::try_parse_from(words).unwrap_err().to_string()
        };
        assert!(refused(&["--strategies", "rumour"]).contains("eager+push-pull"));
        assert!(refused(&["--fail-if", "p98>1ms"]).contains("expected p50, p90, p99 or max"));
        assert!(refused(&["--consistency", "weak"]).contains("eventual or strong"));
    }
}
