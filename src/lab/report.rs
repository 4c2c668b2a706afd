//! What a comparison says at its end: a table for people, JSON and CSV for programs.
//!
//! A number without its definition, sample size, spread, seed and the command that repeats it is
//! gossip of the wrong kind, so every table carries them underneath. The table shows medians over
//! runs, and with several runs the range of p50 and p99 beside them; JSON has every run and the
//! summaries; CSV has one line per run.
//!
//! On a terminal the table has lines; anywhere else it is plain columns without colours, so that
//! `grep` and `awk` work on it. Times are in milliseconds with three significant digits; a dash is
//! a time that was not reached.

use std::fmt::Write as _;
use std::io;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::baseline::{Baseline, Change, Match, RUNS_CLEAR, SAMPLES_MIN};
use super::config::{CompareConfig, Consistency, Spreading};
use super::result::{RunResult, Summarised, Verdict, summarised};
use super::statistics::{Spread, Summary};
use super::threshold::{Finding, Threshold};

/// The definitions that stand under every table and in every JSON.
pub const DEFINITIONS: &[(&str, &str)] = &[
    (
        "to all",
        "from the acknowledgement of a write until the last live node holds its stamp or a \
         greater one for its key (0 if all did before the writer heard of the acknowledgement)",
    ),
    ("ack", "from the issue of a write to its acknowledgement"),
    (
        "available, gap",
        "the share of the writes that were acknowledged within a second of their issue, in per \
         cent, and the longest time, from the first issue on, in which none was acknowledged",
    ),
    (
        "percentiles",
        "by nearest rank over all writes of a run; an unfinished write counts as slower than \
         every finished one, and - means that the rank falls on one: not reached",
    ),
    (
        "messages, bytes",
        "what all nodes together hand to their links from the first issue until the run is over, \
         idle rounds included, divided by writes; a message is one protocol message of any size \
         (push, open, digest, delta, credit, ask or answer), bytes are those of its encoding, \
         without what QUIC, TLS and UDP add",
    ),
    (
        "conflicts",
        "writes dropped for a concurrent write to the same key, whose writer had not seen them",
    ),
    (
        "verdict",
        "lost: an acknowledged write is nowhere; diverged: nodes with the same writes differ; \
         unfinished: an acknowledged write is not everywhere at the deadline; unacknowledged: a \
         write was never acknowledged; else ok",
    ),
];

/// What the theory columns are; printed where there are any.
const DEFINITION_THEORY: &str = "theory: p50 and p99 of the rounds that this schedule needs (own \
     timer phases, partners in random permutations, from a seeded reference), times the interval, \
     without the time on the links; in brackets where the p50 of nine in ten single runs lies, as \
     the phases of a run are fixed";

/// A comparison, done.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The worst that happened.
    pub verdict: Verdict,
    /// Every run.
    pub runs: Vec<RunResult>,
    /// Every configuration.
    pub configurations: Vec<Summarised>,
    /// Each condition of `--fail-if` that was crossed, and by which configuration.
    pub crossed: Vec<Crossed>,
    /// The seed of the first run; the others follow from it.
    pub seed: u64,
    /// The command that repeats the comparison.
    pub command: String,
    /// The program's version.
    pub version: &'static str,
    /// What the words mean.
    pub definitions: Vec<(&'static str, &'static str)>,
    #[serde(skip)]
    config: CompareConfig,
    #[serde(skip)]
    baseline: Option<Vec<Option<Match>>>,
    #[serde(skip)]
    unknown: Vec<String>,
}

/// A condition that made a comparison fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Crossed {
    /// The condition, as it was written.
    pub condition: String,
    /// The configuration, in words.
    pub configuration: String,
}

/// What the exit code is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Converged, and no condition was crossed.
    Ok,
    /// Not converged, or a condition was crossed.
    Failed,
    /// Nothing is wrong, but what was asked cannot be answered from so few samples.
    TooFewSamples,
}

impl Report {
    /// Draws the conclusions from the runs of a comparison.
    pub fn new(
        config: &CompareConfig,
        runs: Vec<RunResult>,
        thresholds: &[Threshold],
        baseline: Option<&Baseline>,
    ) -> Self {
        let configurations = summarised(&runs);
        let matches = baseline.map(|baseline| baseline.matches(&runs));
        let (crossed, unknown) = check_all(thresholds, &configurations, matches.as_deref());
        let worst = runs.iter().map(|run| run.verdict).max().unwrap_or_default();
        let crossing = if crossed.is_empty() { Verdict::Ok } else { Verdict::Threshold };
        Self {
            verdict: worst.max(crossing),
            runs,
            configurations,
            crossed,
            seed: config.seed,
            command: config.command_line(),
            version: env!("CARGO_PKG_VERSION"),
            definitions: DEFINITIONS.to_vec(),
            config: config.clone(),
            baseline: matches,
            unknown,
        }
    }

    /// What the exit code is about. A failure outweighs a lack of samples.
    pub fn outcome(&self) -> Outcome {
        let enough = |found: &Option<Match>| found.as_ref().is_some_and(Match::enough);
        let comparable = self.baseline.as_ref().is_none_or(|found| found.iter().all(enough));
        match self.verdict {
            Verdict::Ok if comparable && self.unknown.is_empty() => Outcome::Ok,
            Verdict::Ok => Outcome::TooFewSamples,
            _ => Outcome::Failed,
        }
    }

    /// The report for people, ending with a line break. `terminal`: whether lines may be drawn.
    pub fn text(&self, terminal: bool) -> String {
        let mut text = format!("{}\n\n", self.measured_table(terminal).trim_fmt());
        self.write_baseline(&mut text, terminal);
        self.write_findings(&mut text);
        self.write_notes(&mut text);
        text
    }

    /// The report for programs, ending with a line break.
    pub fn json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("numbers and strings only");
        json + "\n"
    }

    /// The runs within what [`Report::json`] gave, of this or another version.
    ///
    /// # Errors
    /// When it is not JSON or has no runs with the stable fields.
    pub fn runs_from_json(text: &str) -> Result<Vec<RunResult>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Runs {
            runs: Vec<RunResult>,
        }
        serde_json::from_str(text).map(|Runs { runs }| runs)
    }

    /// One line per run, under a line of names; a time not reached is empty.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write_csv(&self, to: impl io::Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(to);
        csv.write_record(csv_names())?;
        for run in &self.runs {
            csv.write_record(csv_values(run))?;
        }
        csv.flush()
    }

    fn measured_table(&self, terminal: bool) -> Table {
        let several = self.config.runs > 1;
        let theory = self.configurations.iter().any(|found| found.theory_ms.is_some());
        let modes = self.configurations.iter().any(|c| c.consistency != Consistency::Eventual);
        let mut names = vec!["profile", "nodes", "strategy"];
        names.extend(modes.then_some("mode"));
        names.extend(["verdict", "to all p50", "p90", "p99", "max", "ack p50", "ack p99"]);
        names.extend(["available", "gap", "msgs/write", "bytes/write", "conflicts"]);
        names.extend(if several { &["p50 of runs", "p99 of runs"][..] } else { &[] });
        names.extend(if theory { &["theory p50", "p99"][..] } else { &[] });
        let mut table = plain_table(terminal, &names, if modes { 5 } else { 4 });
        for found in &self.configurations {
            let to_all = &found.converge_ms;
            let mut row = vec![
                found.profile.clone(),
                found.nodes.to_string(),
                Spreading { eager: found.eager, strategy: found.strategy }.to_string(),
            ];
            row.extend(modes.then(|| found.consistency.to_string()));
            row.push(found.verdict.word().to_owned());
            row.extend([to_all.p50, to_all.p90, to_all.p99, to_all.max].map(median));
            row.extend([found.ack_ms.p50, found.ack_ms.p99].map(median));
            row.extend([found.available_percent, found.gap_ms].map(median));
            row.extend([found.messages_per_write, found.bytes_per_write].map(median));
            row.push(found.conflicts.to_string());
            if several {
                row.extend([to_all.p50, to_all.p99].map(range));
            }
            if let Some(expected) = found.theory_ms {
                let (low, high) = (short(expected.run_p50_low), short(expected.run_p50_high));
                row.push(format!("{} [{low}..{high}]", short(expected.p50)));
                row.push(short(expected.p99));
            }
            add_row(&mut table, row, names.len());
        }
        table
    }

    fn write_baseline(&self, text: &mut String, terminal: bool) {
        let Some(matches) = &self.baseline else { return };
        let names = ["profile", "nodes", "strategy", "p50", "p99", "ack p50", "msgs", "bytes"];
        let mut table = plain_table(terminal, &names, 3);
        for (found, summary) in matches.iter().zip(&self.configurations) {
            let strategy = Spreading { eager: summary.eager, strategy: summary.strategy };
            let mut row =
                vec![summary.profile.clone(), summary.nodes.to_string(), strategy.to_string()];
            match found {
                Some(found) => row.extend([
                    change(found.change(|summary| summary.converge_ms.p50)),
                    change(found.change(|summary| summary.converge_ms.p99)),
                    change(found.change(|summary| summary.ack_ms.p50)),
                    change(found.change(|summary| summary.messages_per_write)),
                    change(found.change(|summary| summary.bytes_per_write)),
                ]),
                None => row.push("not in the baseline".to_owned()),
            }
            add_row(&mut table, row, names.len());
        }
        let _ = writeln!(
            text,
            "Against the baseline, ratios of medians now to then (! where at least {RUNS_CLEAR} \
             runs on both sides do not touch):\n{}\n",
            table.trim_fmt()
        );
        for found in matches.iter().flatten().filter(|found| !found.enough()) {
            let _ = writeln!(
                text,
                "too few samples for a verdict: {}: {} writes now and {} then, of {SAMPLES_MIN} \
                 that p99 takes",
                found.now.name(),
                found.now.samples,
                found.before.samples
            );
        }
    }

    fn write_findings(&self, text: &mut String) {
        for found in self.configurations.iter().filter(|found| found.verdict != Verdict::Ok) {
            let _ = writeln!(
                text,
                "{}: {}: {} lost, {} diverged, {} unfinished of {} writes in the worst run",
                found.verdict.word(),
                found.name(),
                found.lost,
                found.diverged,
                found.unfinished,
                found.writes
            );
        }
        for Crossed { condition, configuration } in &self.crossed {
            let _ = writeln!(text, "failed: {condition}: {configuration}");
        }
        for unknown in &self.unknown {
            let _ = writeln!(text, "too few samples for a verdict: {unknown}");
        }
        for found in &self.configurations {
            if found.issue_lag_p99_ms.is_some_and(|lag| lag > ISSUE_LAG_MS_MAX) {
                let _ = writeln!(
                    text,
                    "note: {}: writes were issued up to {} ms late (p99), as the machine was busy",
                    found.name(),
                    number(found.issue_lag_p99_ms)
                );
            }
        }
    }

    fn write_notes(&self, text: &mut String) {
        let config = &self.config;
        let shared = format!(
            "Times in ms{}. n = {} writes in each run, {} per second over all nodes, open-loop, \
             to {} keys, values of {} bytes; rounds every {} ms{}; unfinished after {} s.",
            if config.runs > 1 {
                format!(", medians over {} runs (their range beside them)", config.runs)
            } else {
                " of a single run (--runs shows the spread)".to_owned()
            },
            config.writes,
            config.rate,
            config.keys,
            config.value_bytes,
            short(super::statistics::milliseconds(config.interval)),
            if config.simulate { ", in virtual time" } else { ", real QUIC links" },
            config.deadline.as_secs_f64(),
        );
        write_wrapped(text, "", &shared, "");
        for (word, meaning) in DEFINITIONS {
            write_wrapped(text, "  ", &format!("{word}: {meaning}."), "    ");
        }
        if self.configurations.iter().any(|found| found.theory_ms.is_some()) {
            write_wrapped(text, "  ", &format!("{DEFINITION_THEORY}."), "    ");
        }
        let _ = writeln!(text, "Seed {}, version {}. Repeat with:", self.seed, self.version);
        let _ = writeln!(text, "  {}", self.command);
    }
}

/// Above this many milliseconds at p99 the load was not what the table says, and it says so: five
/// times the overshoot of timers on a machine that is merely busy.
const ISSUE_LAG_MS_MAX: f64 = 10.0;

/// Holds every condition against every configuration: what was crossed, and what is unknown.
fn check_all(
    thresholds: &[Threshold],
    configurations: &[Summarised],
    matches: Option<&[Option<Match>]>,
) -> (Vec<Crossed>, Vec<String>) {
    let (mut crossed, mut unknown) = (Vec::new(), Vec::new());
    for threshold in thresholds {
        for (index, found) in configurations.iter().enumerate() {
            let matched = matches.and_then(|matches| matches[index].as_ref());
            let enough = !threshold.needs_baseline() || matched.is_some_and(Match::enough);
            match threshold.check(found, matched.map(|matched| &matched.before)) {
                Finding::Crossed if enough => crossed.push(Crossed {
                    condition: threshold.to_string(),
                    configuration: found.name(),
                }),
                Finding::Kept if enough => {}
                _ => unknown.push(format!("{threshold}: {}", found.name())),
            }
        }
    }
    (crossed, unknown)
}

/// The width of running text: that of the table, about.
const TEXT_COLUMNS: usize = 100;

/// Adds a paragraph, broken between words. Its first line begins with `head`, the others with
/// `indent`.
fn write_wrapped(text: &mut String, head: &str, paragraph: &str, indent: &str) {
    text.push_str(head);
    let mut column = head.len();
    let mut at_start = true;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if !at_start && column + 1 + length > TEXT_COLUMNS {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
        } else if !at_start {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
        at_start = false;
    }
    text.push('\n');
}

/// A table without lines off a terminal; the columns after `words` are numbers, to the right.
fn plain_table(terminal: bool, names: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(if terminal { presets::UTF8_HORIZONTAL_ONLY } else { presets::NOTHING });
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(names.iter().enumerate().map(|(column, name)| aligned(column, words, name)));
    for (column, index) in table.column_iter_mut().zip(0..) {
        let right = index == 1 || index >= words;
        column.set_cell_alignment(if right { CellAlignment::Right } else { CellAlignment::Left });
    }
    table
}

fn aligned(column: usize, words: usize, name: &str) -> Cell {
    let right = column == 1 || column >= words;
    Cell::new(name).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
}

/// Adds a row, filled up with empty cells.
fn add_row(table: &mut Table, mut row: Vec<String>, columns: usize) {
    row.resize(columns, String::new());
    table.add_row(row);
}

fn median(spread: Spread) -> String {
    number(spread.median)
}

fn range(spread: Spread) -> String {
    format!("{}..{}", number(spread.min), number(spread.max))
}

fn change(change: Change) -> String {
    let sign = if change.clear { "!" } else { "" };
    change.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}{sign}"))
}

fn number(number: Option<f64>) -> String {
    number.map_or("-".to_owned(), short)
}

/// A number with three significant digits, never in powers of ten.
fn short(number: f64) -> String {
    let places = match number.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    };
    format!("{number:.places$}")
}

const PERCENTILE_NAMES: [&str; 6] = ["p50", "p90", "p99", "max", "n", "censored"];

/// The names of the columns: those of the JSON, nested ones joined by a dot.
fn csv_names() -> Vec<String> {
    let nested = |name: &str| PERCENTILE_NAMES.map(|inner| format!("{name}.{inner}"));
    let mut names: Vec<String> = [
        "consistency",
        "strategy",
        "eager",
        "profile",
        "nodes",
        "interval_ms",
        "fanout",
        "writes",
        "acked",
        "converged",
        "lost",
        "diverged",
        "unfinished",
        "conflicts",
    ]
    .map(str::to_owned)
    .into();
    names.extend(nested("ack_ms"));
    names.extend(nested("converge_ms"));
    names.extend(["messages_per_write", "bytes_per_write", "seconds"].map(str::to_owned));
    names.extend(["verdict", "run", "seed", "simulated", "rate", "keys"].map(str::to_owned));
    names.push("value_bytes".to_owned());
    names.extend(nested("converge_from_issue_ms"));
    names.extend(nested("issue_lag_ms"));
    names.extend(["available_percent", "gap_ms"].map(str::to_owned));
    names
}

fn csv_values(run: &RunResult) -> Vec<String> {
    let time = |time: Option<f64>| time.map_or(String::new(), |ms| ms.to_string());
    let nested = |summary: &Summary| {
        let Summary { p50, p90, p99, max, n, censored } = *summary;
        [time(p50), time(p90), time(p99), time(max), n.to_string(), censored.to_string()]
    };
    let mut values = vec![
        run.consistency.to_string(),
        run.strategy.to_string(),
        run.eager.to_string(),
        run.profile.clone(),
        run.nodes.to_string(),
        run.interval_ms.to_string(),
        run.fanout.to_string(),
    ];
    values.extend(
        [run.writes, run.acked, run.converged, run.lost, run.diverged, run.unfinished]
            .map(|count| count.to_string()),
    );
    values.push(run.conflicts.to_string());
    values.extend(nested(&run.ack_ms));
    values.extend(nested(&run.converge_ms));
    values
        .extend([run.messages_per_write, run.bytes_per_write, run.seconds].map(|x| x.to_string()));
    values.extend([run.verdict.word().to_owned(), run.run.to_string(), run.seed.to_string()]);
    values.extend([run.simulated.to_string(), run.rate.to_string(), run.keys.to_string()]);
    values.push(run.value_bytes.to_string());
    values.extend(nested(&run.converge_from_issue_ms));
    values.extend(nested(&run.issue_lag_ms));
    values.extend([run.available_percent, run.gap_ms].map(|number| number.to_string()));
    values
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::small_config;
    use super::super::result::tests::sample_run;
    use super::*;

    fn report(runs: Vec<RunResult>, fail_if: &str, baseline: Option<Baseline>) -> Report {
        let thresholds = match fail_if {
            "" => Vec::new(),
            conditions => Threshold::parse_all(conditions).unwrap(),
        };
        Report::new(&small_config(), runs, &thresholds, baseline.as_ref())
    }

    /// Numbers keep three significant digits at every size.
    #[test]
    fn numbers_are_short() {
        let found = [0.0, 0.0204, 0.9996, 9.994, 9.996, 99.94, 99.96, 1234.5].map(short);
        assert_eq!(found, ["0.000", "0.020", "1.00", "9.99", "10.0", "99.9", "100", "1234"]);
    }

    /// The table off a terminal is plain columns, and definitions, n, spread, seed and the command
    /// stand below it.
    #[test]
    fn the_text_says_everything_and_is_plain() {
        let text = report(vec![sample_run(0, 1), sample_run(1, 3)], "", None).text(false);
        let rows: Vec<Vec<&str>> =
            text.lines().take(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(&rows[0][..4], ["profile", "nodes", "strategy", "verdict"]);
        let wanted = "lan 3 eager+push-pull ok 200 360 396 400 0.020 0.020 75.0 7.00 4.00 300 3 \
                      100..300 198..594";
        assert_eq!(rows[1].join(" "), wanted);
        let unbroken = text.replace("\n    ", " ").replace('\n', " ");
        for part in ["to all: ", "n = 200 writes", "medians over 2 runs", "Seed 42", "--seed 42"] {
            assert!(unbroken.contains(part), "{part:?} is missing in:\n{text}");
        }
        assert!(!text.contains("note:"), "{text}");
        let plain = |c: char| c.is_ascii_graphic() || c == ' ' || c == '\n';
        assert!(text.chars().all(plain), "{text}");
    }

    /// Paragraphs break between words, at 100 columns, and go on under the indent.
    #[test]
    fn paragraphs_are_wrapped() {
        let mut text = String::new();
        write_wrapped(&mut text, "  ", &format!("head {}", "word ".repeat(40)), "    ");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("  head word") && lines[1].starts_with("    word"));
        assert!(lines.iter().all(|line| line.len() <= TEXT_COLUMNS && !line.ends_with(' ')));
        assert_eq!(text.split_whitespace().count(), 41);
    }

    /// Without eager push the theory stands beside what was measured, in milliseconds: with two
    /// nodes and push a median of half an interval.
    #[test]
    fn theory_stands_beside_rounds_alone() {
        let config = small_config();
        let mut configuration = config.configurations()[0].clone();
        configuration.nodes = 2;
        configuration.spreading = "push".parse().unwrap();
        let run =
            RunResult::new(&config, &configuration, 0, 1, &Default::default(), Default::default());
        let report = report(vec![run], "", None);
        let expected = report.configurations[0].theory_ms.unwrap();
        assert!((expected.p50 - 50.0).abs() < 1.0, "{expected:?}");
        let text = report.text(false);
        assert!(text.contains("theory p50") && text.contains("own timer phases"), "{text}");
    }

    /// A crossed condition fails the comparison and names the configuration; in JSON, too.
    #[test]
    fn crossed_conditions_fail() {
        let report = report(vec![sample_run(0, 1)], "p50>99ms,lost>0", None);
        assert_eq!((report.outcome(), report.verdict), (Outcome::Failed, Verdict::Threshold));
        let line = "failed: p50>99ms: eventual eager+push-pull, lan, 3 nodes";
        assert!(report.text(false).contains(line), "{}", report.text(false));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["verdict"], "threshold");
        assert_eq!(json["crossed"][0]["condition"], "p50>99ms");
        assert_eq!(json["crossed"].as_array().unwrap().len(), 1);
    }

    /// Unfinished writes fail the comparison without any condition, and show as a dash.
    #[test]
    fn what_did_not_converge_fails() {
        let mut run = RunResult { verdict: Verdict::Unfinished, unfinished: 3, ..sample_run(0, 1) };
        run.converge_ms.max = None;
        let report = report(vec![run], "", None);
        assert_eq!((report.outcome(), report.verdict), (Outcome::Failed, Verdict::Unfinished));
        let text = report.text(false);
        assert!(text.contains("unfinished: eventual eager+push-pull, lan, 3 nodes"), "{text}");
        assert!(text.lines().nth(1).unwrap().contains(" - "), "{text}");
    }

    /// A baseline gives ratios; too few samples, or a configuration it does not have, no verdict.
    #[test]
    fn a_baseline_needs_samples() {
        let fine =
            report(vec![sample_run(0, 2)], "p50>3x", Some(Baseline::of(vec![sample_run(0, 1)])));
        assert_eq!(fine.outcome(), Outcome::Ok);
        assert!(fine.text(false).contains("2.00"), "{}", fine.text(false));

        let few = Baseline::of(vec![RunResult { acked: 50, ..sample_run(0, 1) }]);
        let few = report(vec![sample_run(0, 2)], "p50>1x", Some(few));
        assert_eq!(few.outcome(), Outcome::TooFewSamples);
        assert!(few.text(false).contains("too few samples for a verdict"), "{}", few.text(false));

        let other = Baseline::of(vec![RunResult { nodes: 9, ..sample_run(0, 1) }]);
        let other = report(vec![sample_run(0, 2)], "", Some(other));
        assert_eq!(other.outcome(), Outcome::TooFewSamples);
        assert!(other.text(false).contains("not in the baseline"), "{}", other.text(false));
    }

    /// What is written as JSON is a baseline afterwards.
    #[test]
    fn a_report_becomes_a_baseline() {
        let runs = vec![sample_run(0, 1), sample_run(1, 2)];
        let json = report(runs.clone(), "", None).json();
        assert_eq!(Report::runs_from_json(&json).unwrap(), runs);
        assert!(
            json.trim_start().starts_with("{\n  \"verdict\": \"ok\",\n  \"runs\": ["),
            "{json}"
        );
    }

    /// CSV has a name for every value, and is empty where a time was not reached.
    #[test]
    fn csv_has_a_line_per_run() {
        let mut run = sample_run(0, 1);
        run.converge_ms.max = None;
        let mut written = Vec::new();
        report(vec![run, sample_run(1, 2)], "", None).write_csv(&mut written).unwrap();
        let mut csv = csv::Reader::from_reader(written.as_slice());
        let names = csv.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = csv.records().map(Result::unwrap).collect();
        let value = |row: usize, name: &str| {
            rows[row].get(names.iter().position(|found| found == name).unwrap()).unwrap().to_owned()
        };
        assert_eq!(rows.len(), 2);
        assert_eq!(value(0, "converge_ms.max"), "");
        assert_eq!(value(1, "converge_ms.max"), "400");
        assert_eq!((value(1, "run"), value(1, "verdict")), ("1".to_owned(), "ok".to_owned()));
        assert_eq!(value(0, "ack_ms.p50"), "0.02");
    }
}
