//! Real processes, real disks and links, and everything that goes wrong with them.
//!
//! Clients write at nodes that are killed, ended, stopped, cut off from each other, run out of room
//! and are told wrong times, by a schedule that is drawn from a seed. Then the faults stop, and within
//! a minute all nodes must hold the same and show each client's last acknowledged write, or a later
//! one whose fate the client was not told of; and once more after all were killed together.
//!
//! The seed is printed. `QUORUMOR_TEST_SEED` repeats a schedule, `QUORUMOR_TEST_SECONDS` says for how
//! long there are faults:
//!
//! ```text
//! QUORUMOR_TEST_SECONDS=3600 cargo test --release --test chaos always -- --nocapture
//! QUORUMOR_TEST_SECONDS=1800 cargo test --release --test chaos soak -- --ignored --nocapture
//! ```
//!
//! What strong mode promises is judged by whole histories of what clients were told; see [`strong`].
//!
//! Links are cut and disks filled in a sealed room; see [`sealed`]. Where there cannot be one, the
//! nodes stand on loopback and the rest of the faults is left.

#![allow(
    clippy::print_stdout,
    reason = "the story is for whoever asks with --nocapture, or after a failure"
)]

#[path = "chaos/clients.rs"]
mod clients;
mod common;
#[path = "chaos/directories.rs"]
mod directories;
#[path = "chaos/disks.rs"]
mod disks;
#[path = "chaos/nemesis.rs"]
mod nemesis;
#[path = "chaos/only_voter.rs"]
mod only_voter;
#[path = "chaos/resources.rs"]
mod resources;
#[path = "chaos/sealed.rs"]
mod sealed;
#[path = "chaos/site.rs"]
mod site;
#[path = "chaos/strangers.rs"]
mod strangers;
#[path = "chaos/strong.rs"]
mod strong;
#[path = "chaos/strong_clients.rs"]
mod strong_clients;
#[path = "chaos/switches.rs"]
mod switches;

use std::env;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clients::{Ledger, Shared};
use common::{NodeProcess, PATIENCE, Reply, eventually, skip};
use nemesis::Nemesis;
use resources::Resources;
use serde_json::Value;
use site::Site;

/// For how long there are faults unless it is said.
const SECONDS_DEFAULT: u64 = 20;

/// The disk of each node: some snapshots and journals, and soon full when it is filled.
const DISK_BYTES: usize = 192 << 20;

/// How often resources are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);

/// What the nodes must never print.
const FORBIDDEN: [&str; 5] = [
    "panicked at",
    "one of us is damaged",
    "is kept out for",
    "dropped a frame of",
    "a fault of this program",
];

/// What is tried.
struct Plan {
    test: &'static str,
    nodes: usize,
    durability: &'static str,
    /// A node that is never ended.
    spared: Option<usize>,
    seed: u64,
    seconds: u64,
}

impl Plan {
    fn new(test: &'static str, nodes: usize, durability: &'static str) -> Self {
        let setting = |name| env::var(name).ok().map(|text| text.parse().expect("a number"));
        Self {
            test,
            nodes,
            durability,
            spared: None,
            seed: setting("QUORUMOR_TEST_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32)),
            seconds: setting("QUORUMOR_TEST_SECONDS").unwrap_or(SECONDS_DEFAULT),
        }
    }

    fn clients(&self) -> usize {
        2 * self.nodes
    }
}

/// Runs a plan where it has the most faults.
fn try_out(plan: &Plan) {
    let takes = Duration::from_secs(plan.seconds);
    sealed::run(
        plan.test,
        takes,
        || chaos(plan, Site::sealed(plan.nodes, DISK_BYTES)),
        || chaos(plan, Site::loopback(plan.nodes)),
    );
}

/// Nothing that was acknowledged is lost, nothing deleted comes back, and all agree.
#[test]
fn always() {
    try_out(&Plan::new("always", 5, "always"));
}

/// What was acknowledged by a node that was never killed survives, and all agree.
#[test]
fn interval() {
    try_out(&Plan { spared: Some(0), ..Plan::new("interval", 3, "interval") });
}

/// Memory, descriptors and threads stay what they are.
#[test]
#[ignore = "takes as long as QUORUMOR_TEST_SECONDS says; its figures mean something from ten minutes on"]
fn soak() {
    try_out(&Plan { spared: Some(0), ..Plan::new("soak", 4, "always") });
}

/// What the clock on the wall shows is of no account: not for which write is later, nor for whom to
/// trust, nor for what a directory holds.
#[test]
fn wrong_clock() {
    let site = Site::loopback(2);
    let Some(owner) = site.clock_owner() else {
        return skip("wrong_clock", "there is no libfaketime");
    };
    let launch = |index| NodeProcess::launch(site.launch(index, "always"));
    let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
    let set = |node: &NodeProcess, number: u32| {
        let reply = node.ask(&["SET", "k", &number.to_string()]);
        assert_eq!(reply, Reply::Simple("OK".into()));
        for node in &nodes_of(&site) {
            eventually("the later write everywhere", || {
                let shown = common::Client::connect(*node).ask(&["GET", "k"]);
                (shown == Reply::Bulk(number.to_string())).then_some(())
            });
        }
    };
    let year_seconds = 31_557_600;
    let mut number = 0;
    for years in [-10, 20] {
        agree(&nodes);
        site.set_clock(&format!("{years:+}y"));
        eventually("the clock to be wrong", || {
            let told = |node: &NodeProcess| match node.ask(&["TIME"]) {
                Reply::List(parts) => match parts.first() {
                    Some(Reply::Bulk(seconds)) => seconds.parse::<i64>().expect("a number"),
                    other => panic!("TIME begins with {other:?}"),
                },
                other => panic!("TIME answered {other:?}"),
            };
            let ahead = told(&nodes[owner]) - told(&nodes[0]);
            ((ahead - years * year_seconds).abs() < year_seconds / 10).then_some(())
        });
        for _ in 0..2 {
            for node in &nodes {
                number += 1;
                set(node, number);
            }
        }
        nodes[owner].kill();
        nodes[owner].start_again(&[]);
        agree(&nodes);
        for node in nodes.iter().rev() {
            assert_eq!(node.ask(&["GET", "k"]), Reply::Bulk(number.to_string()));
            number += 1;
            set(node, number);
        }
        site.set_clock("+0");
    }
}

/// Where clients reach the nodes of a site.
fn nodes_of(site: &Site) -> Vec<std::net::SocketAddr> {
    (0..site.size()).map(|index| site.resp(index)).collect()
}

fn chaos(plan: &Plan, site: Site) {
    println!(
        "{}: QUORUMOR_TEST_SEED={} QUORUMOR_TEST_SECONDS={}, {} nodes",
        plan.test, plan.seed, plan.seconds, plan.nodes,
    );
    if site.clock_owner().is_none() {
        skip(plan.test, "no clock is set wrong: there is no libfaketime");
    }
    let launch = |index| NodeProcess::launch(site.launch(index, plan.durability));
    let mut nodes: Vec<NodeProcess> = (0..plan.nodes).map(launch).collect();
    let shared = Shared::new(plan.nodes, plan.clients(), plan.durability == "always");
    let mut resources = Resources::default();
    let ledgers: Vec<Ledger> = thread::scope(|scope| {
        let (site, shared) = (&site, &shared);
        // Also when this thread ends by a failed assertion: the scope waits for the clients.
        let stop = StopAtEnd(shared);
        let clients: Vec<_> = (0..plan.clients())
            .map(|number| {
                let seed = plan.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
                scope.spawn(move || clients::run(site, shared, number, seed))
            })
            .collect();
        torment(plan, site, &mut nodes, shared, &mut resources);
        let before = shared.acknowledged();
        eventually("every client to be told of a write again", || {
            let now = shared.acknowledged();
            now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
        });
        drop(stop);
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    let count = |of: fn(&Ledger) -> u64| ledgers.iter().map(of).sum::<u64>();
    println!(
        "{} writes acknowledged, {} unknown, {} refused, {} reads; the slowest write took {:?}",
        count(|it| it.writes),
        count(|it| it.unknown),
        count(|it| it.refused),
        count(|it| it.reads),
        ledgers.iter().map(|it| it.slowest).max().unwrap_or_default(),
    );
    let complaints: Vec<&String> = ledgers.iter().flat_map(|it| &it.complaints).collect();
    assert!(complaints.is_empty(), "seed {}: {complaints:#?}", plan.seed);
    let snapshots = |node: &NodeProcess| node.output().matches("wrote a snapshot of").count();
    let snapshots: usize = nodes.iter().map(snapshots).sum();
    println!("all agree after {:?}; {snapshots} snapshots were written", agree(&nodes));
    judge(plan, &nodes, &ledgers, &shared);
    resources.print();
    if plan.durability == "always" {
        nemesis::restart_all(&mut nodes, &shared);
        println!("killed and started together, all agree after {:?}", agree(&nodes));
        judge(plan, &nodes, &ledgers, &shared);
    }
    for node in &mut nodes {
        node.end();
    }
}

/// Tells the clients to stop when it goes out of scope.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Faults, one step after the other.
fn torment(
    plan: &Plan,
    site: &Site,
    nodes: &mut [NodeProcess],
    shared: &Shared,
    resources: &mut Resources,
) {
    let mut nemesis = Nemesis::new(plan.seed, site, plan.spared);
    let began = Instant::now();
    let mut sampled = began;
    while began.elapsed() < Duration::from_secs(plan.seconds) {
        let step = nemesis.step();
        println!("{:>8.2} s: {step}", began.elapsed().as_secs_f64());
        for fault in &step.faults {
            nemesis::begin(fault, site, nodes, shared);
        }
        thread::sleep(step.hold);
        for fault in &step.faults {
            nemesis::end(fault, site, nodes, shared);
        }
        thread::sleep(step.rest);
        if sampled.elapsed() >= SAMPLE_INTERVAL {
            sampled = Instant::now();
            resources.sample(began.elapsed(), nodes);
        }
    }
    // A fault may have been taken back before another that it met.
    for (index, node) in nodes.iter_mut().enumerate() {
        assert!(node.is_alive(), "node {index} ended by itself\n{}", node.output());
    }
}

/// Waits until all nodes are linked, take writes and hold the same; how long that took.
fn agree(nodes: &[NodeProcess]) -> Duration {
    let began = Instant::now();
    let mut last = String::new();
    let mut unanimous = || {
        let all: Vec<Value> = nodes.iter().map(NodeProcess::status).collect();
        let told = |status: &Value| {
            let links = status["peers"].as_array().map_or(0, Vec::len);
            format!(
                "{} links, digest {}, fingerprint {}, refused writes {}",
                links, status["digest"], status["fingerprint"], status["writes_refused"]
            )
        };
        let told: Vec<String> = all.iter().map(told).collect();
        last = told.join("\n");
        let linked =
            all.iter().all(|it| it["peers"].as_array().map_or(0, Vec::len) == nodes.len() - 1);
        let open = all.iter().all(|it| it["writes_refused"].is_null());
        linked && open && told.iter().all(|it| *it == told[0])
    };
    while !unanimous() {
        assert!(began.elapsed() < PATIENCE, "no agreement within {PATIENCE:?}:\n{last}");
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Checks every key at every node, and that nothing was counted or printed that must not be.
fn judge(plan: &Plan, nodes: &[NodeProcess], ledgers: &[Ledger], shared: &Shared) {
    let mut complaints = Vec::new();
    for node in nodes {
        let mut client = node.client();
        for ledger in ledgers {
            complaints.extend(ledger.judge(&mut client, shared, node.name()));
        }
        let status = node.status();
        for counter in ["damage", "quarantined", "frames_damaged"] {
            if status[counter] != 0 {
                complaints.push(format!("{} counts {counter}: {}", node.name(), status[counter]));
            }
        }
        let output = node.output();
        for line in output.lines().filter(|line| FORBIDDEN.iter().any(|word| line.contains(word))) {
            complaints.push(format!("{} printed: {line}", node.name()));
        }
        if node.ask(&["PING"]) != Reply::Simple("PONG".into()) {
            complaints.push(format!("{} does not answer", node.name()));
        }
    }
    assert!(complaints.is_empty(), "seed {}: {complaints:#?}", plan.seed);
}
