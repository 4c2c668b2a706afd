//! An empty node beside a loaded one: it says how far it is while it is being filled.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop at once")]

mod common;

use std::fmt::Write as _;

use common::{NodeProcess, Reply, eventually, succeed};

/// How many keys the loaded node holds, of a hundred bytes each: enough for many parts.
const KEYS: usize = 20_000;

/// The log tells the beginning and the end, and between them at most a line a second; the status tells
/// how far it is in between, and nothing of it afterwards.
#[test]
fn an_empty_node_says_how_far_it_is() {
    let full = NodeProcess::start("full", &[]);
    let mut client = full.client();
    let mut requests = String::new();
    for key in 0..KEYS {
        write!(requests, "SET key:{key:06} {}\r\n", "v".repeat(90)).unwrap();
    }
    client.send(requests.as_bytes());
    for _ in 0..KEYS {
        assert_eq!(client.reply().unwrap(), Reply::Simple("OK".into()));
    }
    let empty = NodeProcess::start("empty", &[full.listen]);
    let keys = i64::try_from(KEYS).unwrap();
    eventually("all keys", || (empty.ask(&["DBSIZE"]) == Reply::Integer(keys)).then_some(()));
    eventually("the end to be told", || {
        let output = empty.output();
        let told: Vec<&str> = output.lines().filter(|it| it.contains("filled by node")).collect();
        let (last, parts) = told.split_last()?;
        let (first, status) = (parts.first()?, full.status());
        let id = &status["node"].as_str()?[..8];
        assert!(first.contains(&format!("filled by node {id}: ")), "{first}");
        // The roster counts as well.
        assert!(first.contains(" of about 2000"), "{first}");
        last.contains("all has come").then_some(())
    });
    // Another delta with the same may still be on its way.
    let status = eventually("the status to tell nothing of it", || {
        let status = empty.status();
        (status["fill"].is_null() && status["filling"] == false).then_some(status)
    });
    let lines = empty.output().matches(" %, ").count();
    let seconds = status["uptime_seconds"].as_f64().unwrap();
    assert!((lines as f64) <= seconds + 2.0, "{lines} lines in {seconds} s");
    let text = succeed(common::quorumor().args(["status", &empty.http.to_string()]));
    assert!(!text.contains("filled "), "{text}");
}
