//! Why f+1 nodes are not enough: failures that take turns. In virtual time, with real disks' rules.
//!
//! Two nodes of which each goes on alone survive one failure (f = 1, f+1 nodes). Then the other one fails
//! while the first comes back: it does not have what the second was told meanwhile. With 2f+1 nodes and a
//! log, whoever goes on has a majority, and of two majorities one node is in both.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use quorumor::protocol::boundary::Reply;
use quorumor::protocol::config::Durability;
use quorumor::protocol::operation::Answer;
use quorumor::protocol::profile::Link;
use quorumor::sim::plan::{
    Act, ClientRequest, DETECTION_DEFAULT, Delivery, Plan, Settings, StrongSettings, Wires,
};
use quorumor::sim::world::World;

const NAMES: [&str; 3] = ["ada", "grace", "alan"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("two nodes, f+1, each of which goes on alone:");
    let last = flip_flop(2, None);
    println!("  a client was told of \"second\", and reads {last:?}");
    println!("three nodes, 2f+1, with a log:");
    let strong = StrongSettings { starts: true, voters: 3, is_judged: true };
    let last = flip_flop(3, Some(strong));
    println!("  a client was told of \"third\", and reads {last:?}");
    Ok(())
}

/// One node after the other fails, and each time another one takes a write; what is read in the end, at
/// a node that was down when the last write was made.
fn flip_flop(nodes: usize, strong: Option<StrongSettings>) -> String {
    let at = Duration::from_secs;
    let set = |node, value: &str| Act::Ask {
        node,
        requests: vec![ClientRequest::Set(b"note".to_vec(), value.as_bytes().to_vec())],
    };
    let get = |node| Act::Ask { node, requests: vec![ClientRequest::Get(b"note".to_vec())] };
    let mut acts =
        vec![(at(5), set(0, "first")), (at(10), Act::Crash(0)), (at(20), set(1, "second"))];
    if nodes == 2 {
        acts.extend([(at(30), Act::Crash(1)), (at(31), Act::Restart(0)), (at(40), get(0))]);
    } else {
        acts.extend([
            (at(30), Act::Restart(0)),
            (at(31), Act::Crash(1)),
            (at(40), set(2, "third")),
            (at(50), Act::Restart(1)),
            (at(51), Act::Crash(2)),
            (at(60), get(1)),
        ]);
    }
    let plan = Plan {
        name: "flip-flop".to_owned(),
        seed: 1,
        nodes,
        settings: Settings {
            roster: true,
            durability: Durability::Always,
            strong,
            ..Settings::default()
        },
        wires: Wires::Uniform(Arc::new(Link::default())),
        delivery: Delivery::Reliable,
        detection: DETECTION_DEFAULT,
        encode: true,
        warm_up: Duration::from_secs(5),
        acts,
        faults_end: Duration::from_secs(1_000),
    };
    let end = quorumor::protocol::time::Time::START + Duration::from_secs(100);
    let mut world = World::new(plan, false);
    let mut last = String::new();
    let mut up = vec![true; nodes];
    while let Some(happening) = world.next(end) {
        world.perform(happening);
        for (node, was_up) in up.iter_mut().enumerate() {
            let is_up = world.shard(node).is_some();
            if std::mem::replace(was_up, is_up) != is_up {
                println!("  {} {}", NAMES[node], if is_up { "is back" } else { "fails" });
            }
        }
        for (_, reply) in &world.output().reply {
            match reply {
                Reply::Written { .. } => println!("  a write is acknowledged"),
                Reply::Operated { answer: Answer::Bulk(note), .. } => {
                    last = String::from_utf8_lossy(note).into_owned();
                }
                _ => {}
            }
        }
    }
    last
}
