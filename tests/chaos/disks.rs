//! Disks that are full, and disks that fail.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{NodeProcess, Reply, eventually, skip};
use crate::site::Site;
use crate::{agree, nemesis, sealed};

/// The disk that is filled.
const DISK_BYTES: usize = 64 << 20;

/// How long one of these tests takes, at most.
const TAKES: Duration = Duration::from_secs(60);

/// Within what time writes are taken again when there is room again.
const REOPENED_WITHIN: Duration = Duration::from_secs(10);

/// Values that fill journals.
const VALUE_BYTES: usize = 48 * 1024;

/// Clients that load a disk.
const CLIENTS: usize = 4;

/// What must be shown under each key: the value acknowledged last, or one of those after it of which
/// nobody knows.
type Expected = BTreeMap<String, Vec<String>>;

/// Writes long values until they are refused; answers what is expected under each key, and why
/// writes are refused.
fn write_until_refused(node: &NodeProcess) -> (Expected, String) {
    let door = node.resp;
    let clients = (0..CLIENTS).map(|client| {
        thread::spawn(move || {
            let mut expected = Expected::new();
            let mut line = None;
            for number in 0.. {
                let key = format!("load{client}.{}", number % 5);
                let value = format!("{number}{}", ".".repeat(VALUE_BYTES));
                let line = line.get_or_insert_with(|| crate::common::Client::connect(door));
                match line.try_ask(&["SET", &key, &value]) {
                    Ok(Reply::Error(text)) => return (expected, text),
                    Ok(reply) => {
                        assert_eq!(reply, Reply::Simple("OK".into()));
                        expected.insert(key, vec![value]);
                    }
                    // Its fate is not known: the node does not claim what it could not make durable.
                    Err(_) => {
                        *line = crate::common::Client::connect(door);
                        let maybe = expected.entry(key).or_insert_with(|| vec![String::new()]);
                        maybe.push(value);
                    }
                }
            }
            unreachable!("numbers do not end")
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut all = Expected::new();
    let mut why = String::new();
    for client in clients {
        let (expected, text) = client.join().expect("no panic");
        all.extend(expected);
        why = text;
    }
    (all, why)
}

fn shows(node: &NodeProcess, expected: &Expected) {
    for (key, values) in expected {
        let shown = match node.ask(&["GET", key]) {
            Reply::Bulk(text) => text,
            Reply::Nothing => String::new(),
            other => panic!("GET {key} answered {other:?}"),
        };
        let head = |text: &String| text.trim_end_matches('.').to_owned();
        let heads: Vec<String> = values.iter().map(head).collect();
        assert!(values.contains(&shown), "{key} is {}, not of {heads:?}", head(&shown));
    }
}

/// What goes on while a node takes no writes: it reads, and hears of the writes of others.
fn goes_on(full: &NodeProcess, other: &NodeProcess, expected: &mut Expected, round: &str) {
    for (key, values) in expected.iter().filter(|(_, values)| values.len() == 1) {
        assert_eq!(full.ask(&["GET", key]), Reply::Bulk(values[0].clone()), "{key}");
    }
    let key = format!("elsewhere-{round}");
    assert_eq!(other.ask(&["SET", &key, "yes"]), Reply::Simple("OK".into()));
    eventually("a write of a peer to be readable at a node without room", || {
        (full.ask(&["GET", &key]) == Reply::Bulk("yes".into())).then_some(())
    });
    expected.insert(key, vec!["yes".to_owned()]);
}

/// Waits until writes are taken again; how long that took.
fn reopened(node: &NodeProcess, expected: &mut Expected, round: &str) -> Duration {
    let began = Instant::now();
    let key = format!("after-{round}");
    eventually("writes to be taken again", || match node.client().try_ask(&["SET", &key, "yes"]) {
        Ok(Reply::Simple(_)) => Some(()),
        Ok(Reply::Error(text)) => {
            assert!(text.starts_with("MISCONF"), "{text}");
            None
        }
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    });
    expected.insert(key, vec!["yes".to_owned()]);
    began.elapsed()
}

/// On a full disk writes are refused with the reason, reads and gossip go on, and when there is room
/// again writes are taken again; nothing that was acknowledged is lost.
#[test]
fn full() {
    sealed::run(
        "disks::full",
        TAKES,
        || {
            let site = Site::sealed(2, DISK_BYTES);
            let launch = |index| NodeProcess::launch(site.launch(index, "always"));
            let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
            agree(&nodes);
            let mut expected = Expected::new();
            for round in ["first", "second"] {
                site.fill(0);
                let (load, why) = write_until_refused(&nodes[0]);
                expected.extend(load);
                assert!(why.starts_with("MISCONF"), "{why}");
                assert!(why.contains("no room") && why.contains("segment-"), "{why}");
                let refused = nodes[0].status()["writes_refused"].to_string();
                assert!(refused.contains("no room"), "{refused}");
                goes_on(&nodes[0], &nodes[1], &mut expected, round);
                site.make_room(0);
                let took = reopened(&nodes[0], &mut expected, round);
                println!("{round} time full: {why}; writes taken {took:?} after there was room");
                assert!(took < REOPENED_WITHIN, "{took:?}");
                agree(&nodes);
                nodes.iter().for_each(|node| shows(node, &expected));
            }
            let shared = crate::clients::Shared::new(2, 0, true);
            nemesis::restart_all(&mut nodes, &shared);
            agree(&nodes);
            nodes.iter().for_each(|node| shows(node, &expected));

            // Started without room: it holds what it had, and says why it takes nothing.
            nodes[0].kill();
            site.fill(0);
            nodes[0].start_again(&[]);
            shows(&nodes[0], &expected);
            let reply = nodes[0].ask(&["SET", "at-start", "no"]);
            assert!(matches!(&reply, Reply::Error(why) if why.contains("no room")), "{reply:?}");
            site.make_room(0);
            let took = reopened(&nodes[0], &mut expected, "at start");
            println!("full at the start: writes taken {took:?} after there was room");
            assert!(took < REOPENED_WITHIN, "{took:?}");
            nodes[0].kill();
            nodes[0].start_again(&[]);
            agree(&nodes);
            nodes.iter().for_each(|node| shows(node, &expected));
        },
        || {},
    );
}

/// A node that is started without room hears of the writes of others all the same.
#[test]
fn full_at_the_start() {
    sealed::run(
        "disks::full_at_the_start",
        TAKES,
        || {
            let site = Site::sealed(2, DISK_BYTES);
            let launch = |index| NodeProcess::launch(site.launch(index, "always"));
            let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
            agree(&nodes);
            nodes[0].kill();
            site.fill(0);
            nodes[0].start_again(&[]);
            goes_on(&nodes[0], &nodes[1], &mut Expected::new(), "at start");
        },
        || {},
    );
}

/// A disk that fails to write is not trusted any more: writes are refused for good, reads and gossip
/// go on, and after the disk was mended and the node restarted all is there that was acknowledged.
#[test]
fn failed() {
    sealed::run(
        "disks::failed",
        TAKES,
        || {
            let site = Site::sealed(2, DISK_BYTES);
            if !sealed::is_root() || !site.put_in_failing_disk(0) {
                return skip("disks::failed", "no loop device with ext4 can be mounted here");
            }
            let launch = |index| NodeProcess::launch(site.launch(index, "always"));
            let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
            agree(&nodes);
            let (mut expected, why) = write_until_refused(&nodes[0]);
            println!("{why}");
            assert!(why.starts_with("MISCONF"), "{why}");
            assert!(why.contains("restart"), "{why}");
            goes_on(&nodes[0], &nodes[1], &mut expected, "failed");
            // It stays so, whatever the disk does now.
            site.mend_disk(0);
            assert!(matches!(nodes[0].ask(&["SET", "k", "v"]), Reply::Error(text) if text == why));
            nodes[0].kill();
            site.put_in_mended_disk(0);
            nodes[0].start_again(&[]);
            let took = reopened(&nodes[0], &mut expected, "failed");
            println!("after a restart writes were taken within {took:?}");
            agree(&nodes);
            nodes.iter().for_each(|node| shows(node, &expected));
        },
        || {},
    );
}
