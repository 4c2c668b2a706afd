//! Data directories that something has happened to, given to the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{NodeProcess, Reply, eventually, succeed};
use crate::site::Site;
use crate::{agree, sealed};

/// Keys that are written before something happens.
pub(crate) const KEYS: usize = 400;

fn start(site: &Site) -> Vec<NodeProcess> {
    let launch = |index| NodeProcess::launch(site.launch(index, "always"));
    let nodes: Vec<NodeProcess> = (0..site.size()).map(launch).collect();
    agree(&nodes);
    nodes
}

/// Writes some keys at a node.
fn write(node: &NodeProcess, what: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        let reply = client.ask(&["SET", &format!("{what}:{number}"), what]);
        assert_eq!(reply, Reply::Simple("OK".into()));
    }
}

/// Checks that a node shows what was written somewhere.
pub(crate) fn shows(node: &NodeProcess, what: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        let key = format!("{what}:{number}");
        assert_eq!(
            client.ask(&["GET", &key]),
            Reply::Bulk(what.into()),
            "{key} at {}",
            node.name()
        );
    }
}

/// Every file below a directory with its content, but for the lock, which names its last owner.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).expect("a directory of ours").map(|it| it.expect("one"));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| !path.ends_with("lock"));
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
}

/// The journal's files, oldest first.
pub(crate) fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = contents(directory).into_iter().map(|(path, _)| path);
    files.filter(|path| name(path).starts_with("segment-")).collect()
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file").to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) {
    succeed(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Starts a node in vain: it says why in one line, with these words, and changes nothing.
fn refuses(node: &mut NodeProcess, directory: &Path, words: &[&str]) {
    let before = contents(directory);
    let (status, said) = node.start_in_vain();
    println!("{status}: {}", said.trim());
    assert_eq!(status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    assert!(contents(directory) == before, "files were changed");
}

/// Damage in the middle of a journal is never passed over in silence: the node names the file and the
/// place, and changes nothing. Told to, it starts with the rest, and its peers bring what is missing.
#[test]
fn damaged_in_the_middle() {
    let site = Site::loopback(2);
    let mut nodes = start(&site);
    write(&nodes[0], "whole");
    agree(&nodes);
    nodes[0].kill();
    let journal = segments(&site.data(0));
    let victim = journal.first().expect("a segment");
    let mut bytes = fs::read(victim).expect("a file of ours");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    for at in [used / 2, used / 3] {
        bytes[at] ^= 0x10;
    }
    fs::write(victim, &bytes).expect("a file of ours");
    let words = [&name(victim), "damaged at byte", "--salvage"];
    refuses(&mut nodes[0], &site.data(0), &words);
    refuses(&mut nodes[0], &site.data(0), &words);
    nodes[0].start_again(&["--salvage"]);
    let said = nodes[0].output();
    assert!(said.contains(&format!("{} at byte", name(victim))), "{said}");
    agree(&nodes);
    write(&nodes[0], "later");
    agree(&nodes);
    // It is sound again, without being told to close an eye.
    nodes[0].kill();
    nodes[0].start_again(&[]);
    agree(&nodes);
    for node in &nodes {
        ["whole", "later"].iter().for_each(|what| shows(node, what));
    }
}

/// A segment that is missing is noticed, and named.
#[test]
fn copied_by_half() {
    let site = Site::loopback(2);
    let mut nodes = start(&site);
    write(&nodes[0], "first");
    nodes[0].kill();
    nodes[0].start_again(&[]);
    write(&nodes[0], "second");
    nodes[0].kill();
    nodes[0].start_again(&[]);
    write(&nodes[0], "third");
    agree(&nodes);
    nodes[0].kill();
    let journal = segments(&site.data(0));
    assert!(journal.len() >= 3, "{journal:?}");
    // Without the first it could as well be the snapshot before the second that is missing.
    for (lost, named) in [(&journal[0], "snapshot-"), (&journal[1], &name(&journal[1]))] {
        let bytes = fs::read(lost).expect("a file of ours");
        fs::remove_file(lost).expect("a file of ours");
        refuses(&mut nodes[0], &site.data(0), &[named, "is missing", "--salvage"]);
        fs::write(lost, bytes).expect("a file of ours");
    }
    let format = site.data(0).join("format");
    let bytes = fs::read(&format).expect("a file of ours");
    fs::remove_file(&format).expect("a file of ours");
    refuses(&mut nodes[0], &site.data(0), &["format is missing"]);
    fs::write(&format, bytes).expect("a file of ours");
    fs::remove_file(&journal[1]).expect("a file of ours");
    nodes[0].start_again(&["--salvage"]);
    agree(&nodes);
    for node in &nodes {
        ["first", "second", "third"].iter().for_each(|what| shows(node, what));
    }
}

/// What a newer version wrote is left to it.
#[test]
fn of_a_newer_format() {
    let site = Site::loopback(1);
    let mut node = NodeProcess::launch(site.launch(0, "always"));
    write(&node, "old");
    node.end();
    let format = site.data(0).join("format");
    let old = fs::read(&format).expect("a file of ours");
    let mut new = old.clone();
    new[8] = 9;
    let body = new.len() - 4;
    let sum = crc32c::crc32c(&new[..body]).to_le_bytes();
    new[body..].copy_from_slice(&sum);
    fs::write(&format, new).expect("a file of ours");
    refuses(&mut node, &site.data(0), &["format 9", "newer program"]);
    fs::write(&format, old).expect("a file of ours");
    node.start_again(&[]);
    shows(&node, "old");
}

/// A directory with somebody's files in it is not touched.
#[test]
fn of_somebody_else() {
    let site = Site::loopback(1);
    let mut node = NodeProcess::launch(site.launch(0, "always"));
    node.end();
    fs::remove_dir_all(site.data(0)).expect("a directory of ours");
    fs::create_dir(site.data(0)).expect("a directory of ours");
    fs::write(site.data(0).join("thesis.txt"), "chapter one").expect("a file of ours");
    refuses(&mut node, &site.data(0), &["thesis.txt", "another directory"]);
    assert!(!site.data(0).join("lock").exists());
    fs::remove_dir_all(site.data(0)).expect("a directory of ours");
    fs::write(site.data(0), "a file").expect("a file of ours");
    let (status, said) = node.start_in_vain();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("is not a directory"), "{said}");
}

/// A directory that cannot be written is said to be so; when it can be, nothing is missing.
#[test]
fn read_only() {
    sealed::run(
        "directories::read_only",
        Duration::from_secs(30),
        || {
            let site = Site::sealed(1, 64 << 20);
            let mut node = NodeProcess::launch(site.launch(0, "always"));
            write(&node, "kept");
            node.kill();
            site.set_writable(0, false);
            refuses(&mut node, &site.data(0), &["cannot be written", "writable"]);
            site.set_writable(0, true);
            node.start_again(&[]);
            shows(&node, "kept");
        },
        || {},
    );
}

/// A node whose directory was lost is a new one, and its peers fill it.
#[test]
fn wiped() {
    let site = Site::loopback(3);
    let mut nodes = start(&site);
    write(&nodes[0], "kept");
    assert_eq!(nodes[0].ask(&["DEL", "kept:0"]), Reply::Integer(1));
    agree(&nodes);
    let before = nodes[0].status()["node"].clone();
    nodes[0].kill();
    fs::remove_dir_all(site.data(0)).expect("a directory of ours");
    nodes[0].start_again(&[]);
    assert_ne!(nodes[0].status()["node"], before);
    write(&nodes[0], "later");
    agree(&nodes);
    for node in &nodes {
        shows(node, "later");
        assert_eq!(node.ask(&["GET", "kept:0"]), Reply::Nothing);
        assert_eq!(node.ask(&["GET", "kept:1"]), Reply::Bulk("kept".into()));
    }
}

/// A directory brought back from an old copy: what was written since comes back from the peers, what
/// was deleted since stays deleted, and what is written now does not collide with any of it.
fn restored(durability: &str, orderly: bool, linked_before_writing: bool) {
    let site = Site::loopback(2);
    let launch = |index| NodeProcess::launch(site.launch(index, durability));
    let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
    agree(&nodes);
    write(&nodes[0], "old");
    let leave = |node: &mut NodeProcess| if orderly { node.end() } else { node.kill() };
    leave(&mut nodes[0]);
    let old = site.data(0).with_file_name("copy");
    copy(&site.data(0), &old);
    nodes[0].start_again(&[]);
    agree(&nodes);
    write(&nodes[0], "since");
    assert_eq!(nodes[0].ask(&["DEL", "old:0"]), Reply::Integer(1));
    agree(&nodes);
    leave(&mut nodes[0]);
    fs::remove_dir_all(site.data(0)).expect("a directory of ours");
    fs::rename(&old, site.data(0)).expect("a directory of ours");
    if linked_before_writing {
        nodes[0].start_again(&[]);
        eventually("what was written since", || {
            (nodes[0].ask(&["GET", "since:0"]) == Reply::Bulk("since".into())).then_some(())
        });
    } else {
        // Nobody tells it yet what it forgot.
        nodes[1].end();
        nodes[0].start_again(&[]);
        write(&nodes[0], "alone");
        nodes[1].start_again(&[]);
    }
    write(&nodes[0], "later");
    agree(&nodes);
    for node in &nodes {
        ["since", "later"].iter().for_each(|what| shows(node, what));
        if !linked_before_writing {
            shows(node, "alone");
        }
        assert_eq!(node.ask(&["GET", "old:0"]), Reply::Nothing);
        assert_eq!(node.status()["damage"], 0);
    }
}

#[test]
fn restored_and_linked_after_an_orderly_end() {
    restored("interval", true, true);
}

#[test]
fn restored_and_alone_after_an_orderly_end() {
    restored("interval", true, false);
}

#[test]
fn restored_and_linked_always() {
    restored("always", false, true);
}

#[test]
fn restored_and_alone_always() {
    restored("always", false, false);
}

#[test]
fn restored_and_linked() {
    restored("interval", false, true);
}

#[test]
fn restored_and_alone() {
    restored("interval", false, false);
}

/// A copy of a directory that is started beside its original gives way, whichever of the others it
/// meets first, with an error that says what to do; the original does not notice.
#[test]
fn cloned() {
    let site = Site::loopback(3);
    let launch = |index| NodeProcess::launch(site.launch(index, "always"));
    let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
    write(&nodes[0], "before");
    agree(&nodes);
    let original = nodes[0].status()["node"].clone();
    copy(&site.data(0), &site.data(2));
    // Of two that start at the same moment either may be the one that stays.
    eventually("the original to be older", || {
        (nodes[0].status()["uptime_seconds"].as_f64()? > 1.5).then_some(())
    });
    for _ in 0..2 {
        let mut copied = NodeProcess::prepare(site.launch(2, "always"));
        let (status, said) = copied.start_in_vain();
        println!("{status}: {}", said.trim());
        assert_eq!(status.code(), Some(7), "{said}");
        let directory = site.data(2).display().to_string();
        for words in ["a data directory was copied", "gives way", &directory, "empty directory"] {
            assert!(said.contains(words), "{words} is missing in: {said}");
        }
    }
    assert!(nodes[0].is_alive() && nodes[1].is_alive());
    write(&nodes[0], "after");
    agree(&nodes);
    // With an empty directory it is one more.
    fs::remove_dir_all(site.data(2)).expect("a directory of ours");
    nodes.push(launch(2));
    agree(&nodes);
    assert_ne!(nodes[2].status()["node"], original);
    for node in &nodes {
        ["before", "after"].iter().for_each(|what| shows(node, what));
    }
}

/// A node that was killed and is back at another port at once is not taken for a copy of itself.
#[test]
fn killed_and_back_elsewhere() {
    let site = Site::loopback(3);
    let launch = |index| NodeProcess::launch(site.launch(index, "always"));
    let mut nodes: Vec<NodeProcess> = (0..2).map(launch).collect();
    write(&nodes[0], "before");
    agree(&nodes);
    let original = nodes[0].status()["node"].clone();
    nodes[0].kill();
    fs::rename(site.data(0), site.data(2)).expect("a directory of ours");
    let began = Instant::now();
    nodes[0] = launch(2);
    agree(&nodes);
    println!("back after {:?}", began.elapsed());
    assert_eq!(nodes[0].status()["node"], original);
    for node in &mut nodes {
        shows(node, "before");
        assert!(node.is_alive(), "{}", node.output());
        assert!(!node.output().contains("was copied"), "{}", node.output());
    }
}
