//! What a node does with many keys: start, recovery, size on disk, filling, coming back, large values.
//!
//! `cargo bench --bench scale -- [name=value ...]` starts the program that was built, as processes on
//! loopback with a secret, data directories and the default durability, and prints one line per figure:
//! the median, the least and the most of the runs. Names: `runs` (3), `keys` (1000000), `only` (a part of
//! the name of what is measured). Folders are made in `TMPDIR`: name one on the disk that is meant. For
//! people; nothing passes or fails by it.
//!
//! Times are those of whoever starts a process or asks it: they end when it answers that it is so.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

#[path = "../common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, Launch, NodeProcess, Reply, eventually, quorumor, succeed};
use serde_json::Value;

/// The value of each key.
const VALUE_BYTES: usize = 100;
/// Requests that are sent together.
const PIPELINE: usize = 1_000;

fn main() {
    let given: HashMap<String, String> = std::env::args()
        .filter_map(|it| {
            it.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let number = |name: &str, usual: usize| {
        given.get(name).map_or(usual, |given| given.parse().expect("a number"))
    };
    let (runs, keys) = (number("runs", 3), number("keys", 1_000_000));
    let only = given.get("only").cloned().unwrap_or_default();
    let is_wanted = |name: &str| name.contains(&only);
    let few = keys / 10;
    if is_wanted("start") {
        print("start to ready, empty directory, ms", (0..4 * runs).map(|_| start()).collect());
    }
    if is_wanted("recovery") {
        for orderly in [true, false] {
            let (reading, ready, ratio) =
                transposed((0..runs).map(|_| recovery(keys, orderly)).collect());
            let end = if orderly { "an orderly end" } else { "a kill" };
            print(&format!("recovery of {keys} keys after {end}, reading, s"), reading);
            print(&format!("recovery of {keys} keys after {end}, start to ready, s"), ready);
            print("bytes on disk per live byte once it is compact", ratio);
        }
    }
    if is_wanted("fill") {
        for keys in [few, keys] {
            let name = format!("empty node to {keys} keys, ready to equal, s");
            print(&name, (0..runs).map(|_| fill(keys)).collect());
        }
    }
    if is_wanted("rejoin") {
        for orderly in [true, false] {
            let (times, bytes, beyond) =
                transposed((0..runs).map(|_| rejoin(few, 100, orderly)).collect());
            let end = if orderly { "an orderly end" } else { "a kill" };
            print(&format!("100 of {few} missed after {end}, ready to equal, ms"), times);
            print(&format!("100 of {few} missed after {end}, UDP bytes both ways"), bytes);
            print("the same beyond the keys and values themselves", beyond);
        }
    }
    if is_wanted("large") {
        let (alone, beside, took) = transposed((0..runs).map(|_| large()).collect());
        print("small writes until the peer shows them, p99, ms", alone);
        print("the same beside values of 60 MiB, p99, ms", beside);
        print("a value of 60 MiB until the peer shows it, s", took);
    }
}

fn print(name: &str, mut figures: Vec<f64>) {
    figures.sort_by(f64::total_cmp);
    let (least, most) = (figures[0], figures[figures.len() - 1]);
    println!("{name:64} {:9.2} ({least:.2} to {most:.2})", figures[figures.len() / 2]);
}

fn transposed(runs: Vec<(f64, f64, f64)>) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let one = |part: fn(&(f64, f64, f64)) -> f64| runs.iter().map(part).collect();
    (one(|run| run.0), one(|run| run.1), one(|run| run.2))
}

/// Where a run keeps what it needs.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder for temporary files"));
        succeed(quorumor().arg("keygen").arg(place.0.path().join("secret")));
        place
    }

    fn start(&self, name: &str, peer: Option<&NodeProcess>) -> NodeProcess {
        let secret = self.0.path().join("secret").display().to_string();
        let mut arguments = vec!["--data", "data", "--secret-file", &secret, "--discovery", "off"];
        for door in ["--listen", "--resp", "--http"] {
            arguments.extend([door, "127.0.0.1:0"]);
        }
        let mut arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        arguments.extend(peer.map(|peer| format!("--peer={}", peer.listen)));
        NodeProcess::launch(Launch { name: name.to_owned(), arguments, ..Launch::default() })
    }
}

/// Writes keys from a number on, a thousand at a time.
fn load(node: &NodeProcess, keys: std::ops::Range<usize>, value: &str) {
    let mut client = node.client();
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        let (mut text, mut count) = (String::new(), 0);
        for key in keys.by_ref().take(PIPELINE) {
            write!(text, "SET key:{key:012} {value}\r\n").unwrap();
            count += 1;
        }
        client.send(text.as_bytes());
        for _ in 0..count {
            assert_eq!(client.reply().unwrap(), Reply::Simple("OK".into()));
        }
    }
}

fn value() -> String {
    "v".repeat(VALUE_BYTES)
}

fn holds(node: &NodeProcess, keys: usize) {
    let keys = Reply::Integer(i64::try_from(keys).unwrap());
    let mut client = node.client();
    eventually("all keys", || (client.ask(&["DBSIZE"]) == keys).then_some(()));
}

fn number(status: &Value, path: &[&str]) -> f64 {
    path.iter().fold(status, |value, name| &value[name]).as_f64().expect("a number in the status")
}

/// Waits until two nodes hold the same, and both are done.
fn agree(one: &NodeProcess, other: &NodeProcess) {
    eventually("both to hold the same", || {
        let (one, other) = (one.status(), other.status());
        let same = one["digest"] == other["digest"] && one["fingerprint"] == other["fingerprint"];
        (same && other["filling"] == false).then_some(())
    });
}

fn start() -> f64 {
    let place = Place::new();
    let began = Instant::now();
    let _node = place.start("node", None);
    began.elapsed().as_secs_f64() * 1e3
}

/// Seconds that reading took and until it was ready, and bytes on disk per live byte before.
fn recovery(keys: usize, orderly: bool) -> (f64, f64, f64) {
    let place = Place::new();
    let mut node = place.start("node", None);
    // Everything twice, so that there is something to be compacted.
    for round in ["first", "again"] {
        load(&node, 0..keys, &format!("{round}{}", &value()[5..]));
    }
    let ratio = || {
        let status = node.status();
        number(&status, &["storage", "disk_bytes"]) / number(&status, &["cell_bytes"])
    };
    // It is compact when the size has not changed for a while.
    let (mut last, mut since) = (ratio(), Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(200));
        let now = ratio();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    if orderly {
        node.end()
    } else {
        node.kill()
    }
    let began = Instant::now();
    node.start_again(&[]);
    let ready = began.elapsed().as_secs_f64();
    holds(&node, keys);
    (number(&node.status(), &["storage", "recovered_seconds"]), ready, last)
}

/// Seconds from an empty node's being ready until it holds all that another does.
fn fill(keys: usize) -> f64 {
    let place = Place::new();
    let full = place.start("full", None);
    load(&full, 0..keys, &value());
    let empty = place.start("empty", Some(&full));
    let began = Instant::now();
    holds(&empty, keys);
    let took = began.elapsed().as_secs_f64();
    agree(&full, &empty);
    took
}

/// Milliseconds from a node's being ready again until it holds what it missed, the bytes on the
/// wire until then, and how many of them are neither key nor value.
fn rejoin(keys: usize, missed: usize, orderly: bool) -> (f64, f64, f64) {
    let place = Place::new();
    let stays = place.start("stays", None);
    load(&stays, 0..keys, &value());
    let mut leaves = place.start("leaves", Some(&stays));
    holds(&leaves, keys);
    agree(&stays, &leaves);
    // What a kill takes from the journal is another question than that.
    eventually("all to be written", || {
        (number(&leaves.status(), &["storage", "pending_bytes"]) == 0.0).then_some(())
    });
    if orderly {
        leaves.end()
    } else {
        leaves.kill()
    }
    eventually("it to be missed", || {
        (stays.status()["peers"].as_array()?.is_empty()).then_some(())
    });
    load(&stays, keys..keys + missed, &value());
    leaves.start_again(&[]);
    let began = Instant::now();
    holds(&leaves, keys + missed);
    let took = began.elapsed().as_secs_f64() * 1e3;
    let status = leaves.status();
    let peer = &status["peers"][0];
    agree(&stays, &leaves);
    let bytes = number(peer, &["sent_bytes"]) + number(peer, &["received_bytes"]);
    let missed_bytes = missed * ("key:".len() + 12 + VALUE_BYTES);
    (took, bytes, bytes - missed_bytes as f64)
}

/// Milliseconds that small writes take to show at the peer, by themselves and beside large values,
/// and the seconds that a large one takes.
fn large() -> (f64, f64, f64) {
    const BYTES: usize = 60 << 20;
    let place = Place::new();
    let one = place.start("one", None);
    let other = place.start("other", Some(&one));
    agree(&one, &other);
    let small = |until: &dyn Fn(usize) -> bool| {
        let (mut writer, mut reader) = (one.client(), other.client());
        let mut times = Vec::new();
        while !until(times.len()) {
            let text = times.len().to_string();
            let began = Instant::now();
            assert_eq!(writer.ask(&["SET", "small", &text]), Reply::Simple("OK".into()));
            eventually_now(|| reader.ask(&["GET", "small"]) == Reply::Bulk(text.clone()));
            times.push(began.elapsed().as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(1));
        }
        times.sort_by(f64::total_cmp);
        times[times.len() * 99 / 100]
    };
    let alone = small(&|count| count >= 500);
    let (address, shows) = (one.resp, other.resp);
    let large = thread::spawn(move || {
        let value = "x".repeat(BYTES);
        let (mut writer, mut reader) = (Client::connect(address), Client::connect(shows));
        let began = Instant::now();
        for count in 0..3 {
            let key = format!("large{count}");
            assert_eq!(writer.ask(&["SET", &key, &value]), Reply::Simple("OK".into()));
            let length = Reply::Integer(i64::try_from(BYTES).unwrap());
            eventually("the large value", || {
                (reader.ask(&["STRLEN", &key]) == length).then_some(())
            });
        }
        began.elapsed().as_secs_f64() / 3.0
    });
    let beside = small(&|_| large.is_finished());
    let took = large.join().expect("a client does not panic");
    (alone, beside, took)
}

/// Asks as fast as it is answered: what takes less than a millisecond is not to be measured in naps.
fn eventually_now(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + common::PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain");
    }
}
