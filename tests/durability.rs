//! What a peer promises about its data directory, held against real processes.
//!
//! The README says what is kept at each durability; each promise has its test here, by the same
//! words.

mod common;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Client, NodeProcess, Reply, eventually, finish, quorumor};

/// Writes numbered keys one after the other until the node is gone; answers how many were acknowledged.
fn write_until_gone(door: SocketAddr, writer: usize, begun: &AtomicBool) -> usize {
    let mut client = Client::connect(door);
    for number in 0.. {
        let key = format!("{writer}:{number}");
        let request = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$3\r\nyes\r\n", key.len());
        if client.try_send(request.as_bytes()).is_err() || client.reply().is_err() {
            return number;
        }
        begun.store(true, Ordering::Release);
    }
    unreachable!("numbers do not end")
}

/// Kills a node under the writes of several clients, and starts it again; how many writes each of them
/// was told of, with what the node still has of each.
fn killed_under_writes(node: &mut NodeProcess) -> Vec<(usize, usize)> {
    let begun = AtomicBool::new(false);
    let door = node.resp;
    let told: Vec<usize> = thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let begun = &begun;
                scope.spawn(move || write_until_gone(door, writer, begun))
            })
            .collect();
        eventually("the first write", || begun.load(Ordering::Acquire).then_some(()));
        let mut client = node.client();
        eventually("some thousand writes", || match client.ask(&["DBSIZE"]) {
            Reply::Integer(size) => (size > 2_000).then_some(()),
            _ => None,
        });
        node.kill();
        writers.into_iter().map(|writer| writer.join().expect("no panic")).collect()
    });
    node.start_again(&[]);
    let mut client = node.client();
    let kept = |writer: usize, told: usize| {
        let has = |number: &usize| {
            client.ask(&["GET", &format!("{writer}:{number}")]) == Reply::Bulk("yes".into())
        };
        (0..told).filter(has).count()
    };
    let mut kept = kept;
    told.iter().enumerate().map(|(writer, told)| (*told, kept(writer, *told))).collect()
}

/// Nothing that was acknowledged is lost when the process is killed, ever and again.
#[test]
fn always_keeps_what_was_acknowledged() {
    let mut node = NodeProcess::start_with("always", &[], &["--durability", "always"]);
    for _ in 0..3 {
        for (told, kept) in killed_under_writes(&mut node) {
            assert_eq!(told, kept, "of {told} acknowledged writes {kept} are left");
        }
        assert_eq!(node.ask(&["SET", "after", "again"]), Reply::Simple("OK".into()));
        assert_eq!(node.ask(&["GET", "after"]), Reply::Bulk("again".into()));
        for writer in 0..8 {
            // The next round counts again.
            let mut client = node.client();
            for number in 0..20_000 {
                if client.ask(&["DEL", &format!("{writer}:{number}")]) == Reply::Integer(0) {
                    break;
                }
            }
        }
    }
}

/// What is left after a kill is what was written up to some moment: of each client's writes the first
/// ones, without a gap.
#[test]
fn interval_keeps_a_beginning() {
    let mut node = NodeProcess::start_with("interval", &[], &["--durability", "interval"]);
    let begun = killed_under_writes(&mut node);
    let mut client = node.client();
    for (writer, (_, kept)) in begun.iter().enumerate() {
        for number in 0..*kept {
            let reply = client.ask(&["GET", &format!("{writer}:{number}")]);
            assert_eq!(reply, Reply::Bulk("yes".into()), "{writer}:{number} of {kept}");
        }
    }
    // What was handed to the system a while before the kill outlives the process.
    assert!(begun.iter().any(|(_, kept)| *kept > 0), "{begun:?}");
}

/// A node that ends in order keeps everything; each life writes as another origin.
#[test]
fn an_orderly_end_loses_nothing() {
    let mut node = NodeProcess::start("orderly", &[]);
    assert_eq!(node.ask(&["SET", "k", "v"]), Reply::Simple("OK".into()));
    let origin = |node: &NodeProcess| node.status()["origin"].clone();
    let before = origin(&node);
    node.end();
    node.start_again(&[]);
    assert_eq!(node.ask(&["GET", "k"]), Reply::Bulk("v".into()));
    assert_ne!(origin(&node), before, "the directory might be a copy");
    node.kill();
    node.start_again(&[]);
    assert_eq!(node.ask(&["GET", "k"]), Reply::Bulk("v".into()));
}

/// In memory only: gone with the process, and filled by the others.
#[test]
fn none_keeps_nothing_but_the_others_do() {
    let first = NodeProcess::start_with("first", &[], &["--durability", "none"]);
    let peers = [first.listen];
    let mut second = NodeProcess::start_with("second", &peers, &["--durability", "none"]);
    assert_eq!(second.ask(&["SET", "k", "v"]), Reply::Simple("OK".into()));
    eventually("the write to get around", || {
        (first.ask(&["GET", "k"]) == Reply::Bulk("v".into())).then_some(())
    });
    assert!(!second.folder().join("quorumor-data").exists());
    second.kill();
    second.start_again(&[]);
    eventually("the write to come back", || {
        (second.ask(&["GET", "k"]) == Reply::Bulk("v".into())).then_some(())
    });
}

/// Two processes never share a directory; the second is told who has it.
#[test]
fn a_directory_has_one_owner() {
    let node = NodeProcess::start("owner", &[]);
    let mut second = quorumor();
    second.args(["node", "--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0"]);
    second.args(["--http", "127.0.0.1:0"]).current_dir(node.folder());
    let finished = finish(&mut second);
    assert_eq!(finished.status.code(), Some(1));
    assert!(finished.stderr.contains("quorumor-data"), "{}", finished.stderr);
    assert!(finished.stderr.contains(&node.id().to_string()), "{}", finished.stderr);
}

/// A peer that is alone forgets what was deleted: nobody else can bring it back.
#[test]
fn a_peer_by_itself_forgets_its_deletions() {
    let node = NodeProcess::start("alone", &[]);
    assert_eq!(node.ask(&["SET", "k", "v"]), Reply::Simple("OK".into()));
    assert_eq!(node.ask(&["DEL", "k"]), Reply::Integer(1));
    eventually("the tombstone to be collected", || {
        (node.status()["tombstones_collected"] == 1).then_some(())
    });
    assert_eq!(node.status()["collection"]["tombstones"], 0);
}
