//! Real nodes as processes: one is killed, one is stopped, the machine is busy. Who says what of whom?
//!
//! Times are printed, and judged only against a deadline that a loaded machine keeps as well; the
//! promise of three seconds is shown in virtual time (`detection.rs`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop at once")]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{NodeProcess, PATIENCE, eventually};
use serde_json::Value;

/// What a node says about itself.
fn status(node: &NodeProcess) -> Value {
    let mut stream = TcpStream::connect_timeout(&node.http, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// What a node thinks of the peer of that name, and for how many seconds.
fn opinion(node: &NodeProcess, of: &str) -> Option<(String, f64)> {
    let status = status(node);
    let peers = status["liveness"].as_array()?.iter().cloned();
    let peer = peers.into_iter().find(|peer| peer["name"] == of)?;
    Some((peer["state"].as_str()?.to_owned(), peer["state_seconds"].as_f64()?))
}

fn links(node: &NodeProcess) -> usize {
    status(node)["peers"].as_array().unwrap().len()
}

fn counted(node: &NodeProcess, what: &str) -> u64 {
    status(node)["detector"][what].as_u64().unwrap()
}

/// Five nodes, each linked with each other.
fn five() -> Vec<NodeProcess> {
    five_with(&[])
}

fn five_with(more: &[&str]) -> Vec<NodeProcess> {
    let mut nodes: Vec<NodeProcess> = Vec::new();
    for index in 0..5 {
        let peers: Vec<SocketAddr> = nodes.first().map(|first| first.listen).into_iter().collect();
        nodes.push(NodeProcess::start_with(&format!("node-{index}"), &peers, more));
    }
    for node in &nodes {
        eventually("all links", || (links(node) == 4).then_some(()));
    }
    nodes
}

fn signal(node: &NodeProcess, name: &str) {
    let sent = Command::new("kill").args([name, &node.id().to_string()]).status().unwrap();
    assert!(sent.success(), "kill {name}");
}

#[test]
fn a_killed_node_is_down_for_all_others_soon() {
    let mut nodes = five();
    let mut killed = nodes.remove(2);
    let at = Instant::now();
    killed.kill();
    let mut times = Vec::new();
    for node in &nodes {
        eventually("the dead to be missed", || {
            let (state, since) = opinion(node, "node-2")?;
            (state == "down").then(|| times.push(at.elapsed() - Duration::from_secs_f64(since)))
        });
        eventually("its link to end", || (links(node) == 3).then_some(()));
        for other in [0, 1, 3, 4].map(|other| format!("node-{other}")) {
            if let Some((state, _)) = opinion(node, &other) {
                assert_eq!(state, "up", "{other}");
            }
        }
    }
    let mut command = common::quorumor();
    let text = common::succeed(command.args(["status", &nodes[0].http.to_string()]));
    let named = text.lines().any(|line| line.contains("node-2") && line.contains("down for"));
    assert!(named, "{text}");
    println!("5 processes: the killed one was down for the others after {times:?}");
}

#[test]
fn a_stopped_node_accuses_nobody_and_comes_back_by_itself() {
    let nodes = five();
    // Long enough to be given up by all, and too short for QUIC to notice.
    signal(&nodes[3], "-STOP");
    for other in [0, 1, 2, 4] {
        eventually("the stopped node to be missed", || {
            (opinion(&nodes[other], "node-3")?.0 == "down").then_some(())
        });
    }
    signal(&nodes[3], "-CONT");
    let at = Instant::now();
    for other in [0, 1, 2, 4] {
        eventually("both to see each other", || {
            let there = opinion(&nodes[other], "node-3")?.0 == "up";
            let back = opinion(&nodes[3], &format!("node-{other}"))?.0 == "up";
            (there && back && links(&nodes[other]) == 4 && links(&nodes[3]) == 4).then_some(())
        });
    }
    println!("5 processes: the stopped one was back after {:?}", at.elapsed());
    assert_eq!(counted(&nodes[3], "downs"), 0, "it accused somebody");
    assert!(counted(&nodes[3], "late") > 0, "it noticed that it was stopped");
}

#[test]
fn a_busy_machine_makes_nobody_accuse_anybody() {
    let nodes = five();
    let before: u64 = nodes.iter().map(|node| counted(node, "datagrams")).sum();
    let done = Arc::new(AtomicBool::new(false));
    let cores = thread::available_parallelism().map_or(2, usize::from);
    let busy: Vec<_> = (0..4 * cores)
        .map(|_| {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    // Work enough for some seconds of watching: each node asks its neighbour more than once a second.
    eventually("the detectors to have worked", || {
        let sent: u64 = nodes.iter().map(|node| counted(node, "datagrams")).sum();
        (sent >= before + 200).then_some(())
    });
    done.store(true, Ordering::Relaxed);
    for busy in busy {
        busy.join().unwrap();
    }
    for node in &nodes {
        assert_eq!((counted(node, "downs"), links(node)), (0, 4));
    }
}

/// `cargo test --test members -- --ignored --nocapture`: what an idle cluster costs on the wire.
#[test]
#[ignore = "measures for a minute and judges nothing"]
fn idle_traffic() {
    for rounds in ["250ms", "1h"] {
        let nodes = five_with(&["--interval", rounds]);
        // Links look for the largest packet that arrives when they are new.
        thread::sleep(Duration::from_secs(10));
        let sent = |node: &NodeProcess| -> u64 {
            let status = status(node);
            let peers = status["peers"].as_array().unwrap().clone();
            peers.iter().map(|peer| peer["sent_bytes"].as_u64().unwrap()).sum()
        };
        let count = || -> (u64, u64) {
            let payload = nodes.iter().map(|node| counted(node, "datagram_bytes")).sum();
            (nodes.iter().map(sent).sum(), payload)
        };
        let (at, before) = (Instant::now(), count());
        thread::sleep(Duration::from_secs(20));
        let (after, seconds) = (count(), at.elapsed().as_secs_f64() * 5.0);
        let sent = (after.0 - before.0) as f64 / seconds;
        let detector = (after.1 - before.1) as f64 / seconds;
        println!(
            "5 processes, rounds every {rounds}: {sent:.0} UDP bytes per second and node, of them \
             {detector:.0} the detector's own"
        );
    }
}
