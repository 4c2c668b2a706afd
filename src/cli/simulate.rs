//! `quorumor simulate`: whole clusters in virtual time, under all checkers.
//!
//! A run is decided by scenario, seed and number of nodes; the same three give the same run, and the
//! same story byte for byte, on every machine. Whatever fails says how to see it again.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::Exit;
use crate::sim::scenario::{self, NODES_MAX, Scenario};
use crate::sim::story::Story;
use crate::sim::trial::{self, Verdict, VerdictJson};

/// Runs a whole cluster in virtual time, breaks what can break, and checks that no rule is broken.
///
/// Every run is drawn from its seed: the links, the load, and the faults. After the faults all nodes
/// must agree and then be quiet. Exit code 1 if any rule was broken.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// What the run is drawn from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How many seeds to run, from --seed on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The kind of trouble; see --list.
    #[arg(long, value_name = "NAME", default_value = "mixed")]
    scenario: String,

    /// How many nodes [default: as the seed says].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=NODES_MAX as u64))]
    nodes: Option<u64>,

    /// Tells the story of the run, in virtual time.
    #[arg(long)]
    trace: bool,

    /// Prints JSON.
    #[arg(long)]
    json: bool,

    /// Lists the scenarios.
    #[arg(long)]
    list: bool,
}

/// What was run, for programs.
#[derive(Serialize)]
struct Report {
    ok: bool,
    runs: Vec<VerdictJson>,
}

/// Runs what is asked for and prints what came of it.
pub fn run(args: &SimulateArgs) -> Exit {
    match print(args, &mut io::stdout().lock()) {
        Ok(exit) => exit,
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => Exit::Failed.because(error),
    }
}

fn print(args: &SimulateArgs, out: &mut impl Write) -> io::Result<Exit> {
    if args.list {
        for scenario in scenario::all() {
            writeln!(out, "{:<19} {}", scenario.name, scenario.about)?;
        }
        return Ok(Exit::Ok);
    }
    let scenario = match Scenario::named(&args.scenario) {
        Ok(scenario) => scenario,
        Err(error) => return Ok(Exit::Usage.because(error)),
    };
    let nodes = args.nodes.and_then(|nodes| usize::try_from(nodes).ok());
    let mut verdicts = Vec::new();
    for seed in (0..args.seeds).map(|more| args.seed.wrapping_add(more)) {
        let mut story = Story::default();
        let plan = scenario.plan(seed, nodes);
        let verdict = trial::run(plan, args.trace.then_some(&mut story));
        if !args.json {
            write!(out, "{}", story.text())?;
            if args.seeds == 1 || verdict.fault.is_some() {
                write!(out, "{}", describe(&verdict))?;
            }
        }
        verdicts.push(verdict);
    }
    let failed = verdicts.iter().filter(|verdict| verdict.fault.is_some()).count();
    if args.json {
        let runs = verdicts.iter().map(Verdict::to_json).collect();
        serde_json::to_writer_pretty(&mut *out, &Report { ok: failed == 0, runs })?;
        writeln!(out)?;
    } else if args.seeds > 1 {
        writeln!(out, "{}", summary(scenario.name, &verdicts, failed))?;
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::Failed })
}

/// A run in a few lines.
fn describe(verdict: &Verdict) -> String {
    let total = verdict.tally.total();
    let mut text = format!(
        "scenario {}, seed {}, {} nodes: {} writes, {} lost updates told, {} messages of {} bytes\n",
        verdict.scenario,
        verdict.seed,
        verdict.nodes,
        verdict.writes,
        verdict.conflicts,
        total.messages,
        total.bytes,
    );
    if verdict.died > 0 {
        text += &format!("{} versions died with the last node that had them\n", verdict.died);
    }
    if let Some(after) = verdict.converged_after {
        text += &format!("everybody had the same {after:.0?} after the faults had ended\n");
    }
    text += &match &verdict.fault {
        None => "ok: no rule was broken\n".to_owned(),
        Some(fault) => format!("BROKEN: {fault}\nreplay: {}\n", verdict.replay()),
    };
    text
}

/// Many runs in one line.
fn summary(scenario: &str, verdicts: &[Verdict], failed: usize) -> String {
    let writes: usize = verdicts.iter().map(|verdict| verdict.writes).sum();
    let conflicts: u64 = verdicts.iter().map(|verdict| verdict.conflicts).sum();
    let steps: u64 = verdicts.iter().map(|verdict| verdict.steps).sum();
    format!(
        "scenario {scenario}: {} runs, {failed} broken; {writes} writes, {conflicts} lost updates \
         told, {steps} steps",
        verdicts.len()
    )
}
