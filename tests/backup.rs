//! Backup and restore through the program: nothing that was deleted comes back, nothing newer is
//! replaced, what was lost is there again, and whatever is wrong with a backup is said before anything
//! of it is used. And the other things that can be asked of a node at its HTTP door.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{
    Finished, NodeProcess, PATIENCE, Reply, cluster, eventually, finish, quorumor, succeed,
};
use serde_json::Value;

fn set(node: &NodeProcess, key: &str, value: &str) {
    assert_eq!(node.ask(&["SET", key, value]), Reply::Simple("OK".into()));
}

fn get(node: &NodeProcess, key: &str) -> Reply {
    node.ask(&["GET", key])
}

fn bulk(text: &str) -> Reply {
    Reply::Bulk(text.into())
}

fn run(arguments: &[&str]) -> Finished {
    finish(quorumor().args(arguments))
}

/// Backs a node up into a file in its folder.
fn back_up(node: &NodeProcess, name: &str) -> PathBuf {
    let file = node.folder().join(name);
    let http = node.http.to_string();
    let path = file.display().to_string();
    succeed(quorumor().args(["backup", "--http", &http, &path]));
    file
}

/// Restores a file into a node; what became of the cells.
fn restore(node: &NodeProcess, file: &Path) -> (u64, u64, u64, u64) {
    let (http, path) = (node.http.to_string(), file.display().to_string());
    let said = succeed(quorumor().args(["restore", "--json", "--http", &http, &path]));
    let counts: Value = serde_json::from_str(&said).expect("JSON");
    let count = |name: &str| counts[name].as_u64().unwrap_or_else(|| panic!("{name} in {said}"));
    (count("restored"), count("known"), count("older"), count("deleted"))
}

/// What a node answers to a request as it is.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("an open door");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.write_all(request.as_bytes()).expect("an open connection");
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("an answer");
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn an_empty_cluster_gets_everything_back_once() {
    let mut old = NodeProcess::start("old", &[]);
    for number in 0..500 {
        set(&old, &format!("k{number}"), &format!("v{number}"));
    }
    let large = "x".repeat(3 << 20);
    set(&old, "large", &large);
    assert_eq!(old.ask(&["DEL", "k0", "k1"]), Reply::Integer(2));
    let file = back_up(&old, "backup");
    old.kill();

    let new = cluster(2);
    assert_eq!(restore(&new[0], &file), (499, 0, 0, 2));
    for node in &new {
        eventually("everything to be there", || {
            (node.ask(&["DBSIZE"]) == Reply::Integer(499)).then_some(())
        });
        assert_eq!((get(node, "k2"), get(node, "k0")), (bulk("v2"), Reply::Nothing));
        eventually("the large one", || (get(node, "large") == bulk(&large)).then_some(()));
    }
    // Again, after some of it has changed: that stays as it is.
    set(&new[1], "k2", "changed");
    assert_eq!(new[1].ask(&["DEL", "k3"]), Reply::Integer(1));
    eventually("the changes to get around", || {
        (get(&new[0], "k2") == bulk("changed") && get(&new[0], "k3") == Reply::Nothing)
            .then_some(())
    });
    assert_eq!(restore(&new[0], &file), (0, 0, 499, 2));
    assert_eq!((get(&new[0], "k2"), get(&new[0], "k3")), (bulk("changed"), Reply::Nothing));
    assert_eq!(new[0].status()["keys"], 498);
}

#[test]
fn where_it_came_from_a_backup_changes_nothing() {
    let nodes = cluster(2);
    for number in 0..200 {
        set(&nodes[0], &format!("k{number}"), "first");
    }
    eventually("the writes to get around", || {
        (nodes[1].ask(&["DBSIZE"]) == Reply::Integer(200)).then_some(())
    });
    let file = back_up(&nodes[1], "backup");
    for number in 0..100 {
        assert_eq!(nodes[1].ask(&["DEL", &format!("k{number}")]), Reply::Integer(1));
    }
    set(&nodes[0], "k150", "second");
    let agreed = || {
        let said = run(&["status", &nodes[0].http.to_string(), "--wait-converged", "60s"]);
        assert!(said.status.success(), "{}", said.stderr);
        nodes[0].status()["fingerprint"].clone()
    };
    let before = agreed();
    for node in &nodes {
        let (restored, known, older, _) = restore(node, &file);
        assert_eq!((restored, known, older), (0, 200, 0));
    }
    assert_eq!(agreed(), before);
    assert_eq!((get(&nodes[0], "k5"), get(&nodes[0], "k150")), (Reply::Nothing, bulk("second")));
    assert_eq!(nodes[0].ask(&["DBSIZE"]), Reply::Integer(100));
}

/// Keys that were deleted in the cluster stay so, and those that were lost come back.
#[test]
fn what_was_lost_comes_back_and_what_was_deleted_does_not() {
    let mut node = NodeProcess::start_with("node", &[], &["--durability", "none"]);
    set(&node, "lost", "v");
    set(&node, "deleted", "v");
    set(&node, "newer", "old");
    let file = back_up(&node, "backup");
    node.kill();
    // Everything is gone. This one's counters are behind those of the backup until it is restored.
    node.start_again(&[]);
    set(&node, "other", "v");
    assert_eq!(restore(&node, &file).0, 3);
    set(&node, "newer", "new");
    assert_eq!(node.ask(&["DEL", "deleted"]), Reply::Integer(1));
    assert_eq!(restore(&node, &file), (0, 0, 3, 0));
    assert_eq!(get(&node, "lost"), bulk("v"));
    assert_eq!((get(&node, "deleted"), get(&node, "newer")), (Reply::Nothing, bulk("new")));
}

/// A backup that is taken while clients write has all that was there before it.
#[test]
fn a_backup_under_writes_has_what_was_there_before() {
    let node = NodeProcess::start("busy", &[]);
    for number in 0..2_000 {
        set(&node, &format!("before{number}"), "v");
    }
    let done = AtomicBool::new(false);
    let files: Vec<PathBuf> = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = node.client();
            for number in 0.. {
                if done.load(Ordering::Acquire) {
                    return;
                }
                let key = format!("before{}", number % 2_000);
                client.ask(&["SET", &key, &format!("v{number}")]);
                client.ask(&["SET", &format!("during{number}"), "v"]);
            }
        });
        let files = (0..3).map(|number| back_up(&node, &format!("backup{number}"))).collect();
        done.store(true, Ordering::Release);
        files
    });
    for file in files {
        let new = NodeProcess::start("new", &[]);
        assert!(restore(&new, &file).0 >= 2_000);
        let mut client = new.client();
        for number in 0..2_000 {
            let found = client.ask(&["EXISTS", &format!("before{number}")]);
            assert_eq!(found, Reply::Integer(1), "before{number}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_backup_is_said_before_it_is_used() {
    let node = NodeProcess::start("node", &[]);
    for number in 0..50 {
        set(&node, &format!("k{number}"), "v");
    }
    let file = back_up(&node, "backup");
    let good = fs::read(&file).expect("a backup");
    let new = NodeProcess::start("new", &[]);
    let http = new.http.to_string();
    let refuses = |bytes: &[u8], words: &[&str]| {
        let bad = node.folder().join("bad");
        fs::write(&bad, bytes).expect("a file of ours");
        let finished = run(&["restore", "--http", &http, &bad.display().to_string()]);
        assert_eq!(finished.status.code(), Some(1), "{}", finished.stderr);
        for word in [words, &["bad", "nothing was restored"]].concat() {
            assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
        }
    };
    refuses(&good[..good.len() / 2], &["cut off"]);
    refuses(&good[..good.len() - 1], &["cut off"]);
    refuses(b"", &["not a backup"]);
    refuses(b"some other file of some other program", &["not a backup"]);
    refuses(&[&good[..], b"x"].concat(), &["more bytes follow"]);
    for at in [10, 70, good.len() / 2, good.len() - 3] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        refuses(&bad, &["damaged at byte"]);
    }
    let mut newer = good.clone();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..60]).to_le_bytes();
    newer[60..64].copy_from_slice(&crc);
    refuses(&newer, &["format 9", "newer program"]);
    assert_eq!(new.ask(&["DBSIZE"]), Reply::Integer(0));

    // From a pipe it cannot be looked at beforehand: what was done is said.
    let mut piped = quorumor();
    piped.args(["restore", "--http", &http, "-"]);
    let cut = node.folder().join("cut");
    fs::write(&cut, &good[..good.len() - 1]).expect("a file of ours");
    piped.stdin(Stdio::from(fs::File::open(&cut).expect("a file of ours")));
    let finished = finish(&mut piped);
    assert_eq!(finished.status.code(), Some(1));
    for word in ["cut off", "until then", "restored 50 cells"] {
        assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
    }
    assert_eq!(new.ask(&["DBSIZE"]), Reply::Integer(50));

    let missing = run(&["restore", "--http", &http, "/nowhere"]);
    assert_eq!(missing.status.code(), Some(4), "{}", missing.stderr);
    let again = run(&["backup", "--http", &http, &file.display().to_string()]);
    assert_eq!(again.status.code(), Some(7), "{}", again.stderr);
    assert!(again.stderr.contains("--overwrite"), "{}", again.stderr);
}

/// A backup becomes a new data directory, for a node that never was before.
#[test]
fn a_new_directory_is_made_of_a_backup() {
    let old = NodeProcess::start("old", &[]);
    set(&old, "k", "v");
    set(&old, "gone", "v");
    assert_eq!(old.ask(&["DEL", "gone"]), Reply::Integer(1));
    let file = back_up(&old, "backup").display().to_string();
    let folder = old.folder();
    let data = folder.join("restored").display().to_string();
    let finished = run(&["restore", "--data", &data, &file]);
    assert!(finished.status.success(), "{}", finished.stderr);
    assert!(finished.stdout.contains("1 cells and 1 deletions"), "{}", finished.stdout);
    let new = NodeProcess::start_with("new", &[], &["--data", &data]);
    assert_eq!((get(&new, "k"), get(&new, "gone")), (bulk("v"), Reply::Nothing));
    let who = |node: &NodeProcess| node.status()["node"].clone();
    assert_ne!(who(&new), who(&old));
    set(&new, "k", "w");

    let again = run(&["restore", "--data", &data, &file]);
    assert_eq!(again.status.code(), Some(7), "{}", again.stderr);
    assert!(again.stderr.contains("not empty"), "{}", again.stderr);
    let other = folder.join("other").display().to_string();
    let cut = folder.join("cut").display().to_string();
    let bytes = fs::read(&file).expect("a backup");
    fs::write(&cut, &bytes[..bytes.len() - 5]).expect("a file of ours");
    let broken = run(&["restore", "--data", &other, &cut]);
    assert_eq!(broken.status.code(), Some(1), "{}", broken.stderr);
    assert!(broken.stderr.contains("was not made"), "{}", broken.stderr);
    let left = fs::read_dir(&folder).expect("a folder of ours");
    let left = left.map(|entry| entry.expect("an entry").file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("other")));
}

/// No page in a browser can change anything.
#[test]
fn what_changes_something_needs_a_header() {
    let node = NodeProcess::start("node", &[]);
    let request = |method: &str, path: &str, more: &str| {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", node.http);
        http(node.http, &format!("{head}Connection: close\r\n{more}\r\n"))
    };
    for path in ["/restore", "/leave", "/retire?node=ab"] {
        let said = request("POST", path, "");
        assert!(said.starts_with("HTTP/1.1 403"), "{path}: {said}");
        assert!(said.contains("X-Quorumor: 1"), "{path}: {said}");
        let said = request("GET", path, "X-Quorumor: 1\r\n");
        assert!(said.starts_with("HTTP/1.1 405") && said.contains("allow: POST"), "{path}: {said}");
    }
    let said = request("POST", "/restore", "X-Quorumor: 1\r\nContent-Length: 0\r\n");
    assert!(said.starts_with("HTTP/1.1 400") && said.contains("not a backup"), "{said}");
    let evil = "POST /leave HTTP/1.1\r\nHost: evil.example\r\nX-Quorumor: 1\r\n\
                Connection: close\r\n\r\n";
    assert!(http(node.http, evil).starts_with("HTTP/1.1 403"));
}

#[test]
fn members_leave_and_are_named_by_a_few_digits() {
    let mut nodes = cluster(3);
    let address = nodes[0].http.to_string();
    let members = || -> Vec<Value> {
        let said = succeed(quorumor().args(["members", "--json", "--http", &address]));
        serde_json::from_str(&said).expect("JSON")
    };
    eventually("everybody to be linked", || (members().len() == 3).then_some(()));
    let table = succeed(quorumor().args(["members", "--http", &address]));
    assert!(table.contains("node-0 (this)") && table.contains("node-2"), "{table}");
    let of = |name: &str| {
        let members = members();
        let member = members.iter().find(|member| member["name"] == name);
        member.map(|member| member["node"].as_str().expect("text").to_owned())
    };
    let retire = |wanted: &str, code: i32, words: &[&str]| {
        let finished = run(&["retire", "--http", &address, wanted]);
        assert_eq!(finished.status.code(), Some(code), "{}", finished.stderr);
        for word in words {
            assert!(finished.stderr.contains(word), "no {word:?} in {}", finished.stderr);
        }
    };
    let (this, other) = (of("node-0").expect("listed"), of("node-1").expect("listed"));
    retire(&this[..10], 7, &["quorumor leave"]);
    retire(&other[..10], 7, &["is up", &other]);
    retire(&"0".repeat(32), 4, &["quorumor members"]);
    retire("eve", 2, &["hexadecimal"]);

    set(&nodes[2], "last", "words");
    let leaver = nodes[2].http.to_string();
    let said = succeed(quorumor().args(["leave", "--http", &leaver]));
    assert!(said.contains("node-2") && said.contains("has left"), "{said}");
    eventually("its process to end", || (!nodes[2].is_alive()).then_some(()));
    let state = |name: &str| {
        let member = members().into_iter().find(|member| member["name"] == name);
        member.map(|member| member["state"].as_str().unwrap_or("?").to_owned())
    };
    eventually("it to have left", || (state("node-2")? == "left").then_some(()));
    eventually("its last write", || (get(&nodes[0], "last") == bulk("words")).then_some(()));
    nodes.truncate(1);
    eventually("the other to be down", || (state("node-1")? == "down").then_some(()));
    assert_eq!(state("node-2").as_deref(), Some("left"), "it does not come back");
    let retired = succeed(quorumor().args(["retire", "--http", &address, &other[..10]]));
    assert!(retired.contains("node-1"), "{retired}");
    assert_eq!(state("node-1").as_deref(), Some("retired"));
    let alone = run(&["leave", "--http", &address]);
    assert_eq!(alone.status.code(), Some(7), "{}", alone.stderr);
    assert!(alone.stderr.contains("no peer is up"), "{}", alone.stderr);
    set(&nodes[0], "goes", "on");
}

/// A node that has left and is started again on its directory is a member again, which it says; what
/// was deleted meanwhile stays deleted, also at the others.
#[test]
fn a_node_that_left_and_is_started_again_is_a_member_again() {
    let with_data = ["--data", "data"];
    let one = NodeProcess::start_with("one", &[], &with_data);
    let mut two = NodeProcess::start_with("two", &[one.listen], &with_data);
    let state = || {
        let said = succeed(quorumor().args(["members", "--json", "--http", &one.http.to_string()]));
        let members: Vec<Value> = serde_json::from_str(&said).expect("JSON");
        let member = members.into_iter().find(|member| member["name"] == "two")?;
        Some((member["state"].as_str()?.to_owned(), member["node"].clone()))
    };
    let (_, id) = eventually("both to be linked", state);
    set(&two, "deleted", "later");
    set(&two, "kept", "for good");
    eventually("the writes", || (get(&one, "kept") == bulk("for good")).then_some(()));
    succeed(quorumor().args(["leave", "--http", &two.http.to_string()]));
    eventually("its process to end", || (!two.is_alive()).then_some(()));
    eventually("it to have left", || (state()?.0 == "left").then_some(()));
    assert_eq!(one.ask(&["DEL", "deleted"]), Reply::Integer(1));
    eventually("the deletion to be forgotten", || {
        (one.status()["collection"]["tombstones"] == 0).then_some(())
    });
    let words = "had left its cluster and has been started again";
    assert!(!two.output().contains(words));

    two.start_again(&[]);
    assert!(two.output().contains(words), "{}", two.output());
    eventually("it to be a member", || (state()? == ("up".to_owned(), id.clone())).then_some(()));
    eventually("what it missed", || {
        let agrees = one.status()["digest"] == two.status()["digest"];
        (agrees && two.status()["filling"] == false).then_some(())
    });
    for node in [&one, &two] {
        assert_eq!(get(node, "kept"), bulk("for good"));
        assert_eq!(get(node, "deleted"), Reply::Nothing);
    }
    set(&two, "takes", "part");
    eventually("its write", || (get(&one, "takes") == bulk("part")).then_some(()));
    two.end();
    two.start_again(&[]);
    assert_eq!(two.output().matches(words).count(), 1, "{}", two.output());
}

/// One connection too many is told so; when others close, there is room again.
#[test]
fn too_many_connections_are_told_so() {
    let node = NodeProcess::start("node", &[]);
    let idle: Vec<TcpStream> =
        (0..256).map(|_| TcpStream::connect(node.http).expect("an open door")).collect();
    let health =
        format!("GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.http);
    let said = eventually("the door to be full", || {
        let said = http(node.http, &health);
        said.starts_with("HTTP/1.1 503").then_some(said)
    });
    assert!(said.contains("256 connections"), "{said}");
    drop(idle);
    eventually("room", || http(node.http, &health).starts_with("HTTP/1.1 200").then_some(()));
}

/// Whoever never ends the head of a request is sent away.
#[test]
fn a_head_takes_only_so_long() {
    let node = NodeProcess::start("node", &[]);
    let mut stream = TcpStream::connect(node.http).expect("an open door");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: 127").expect("an open connection");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("the end of the connection");
}

#[test]
fn a_peer_is_found_by_name() {
    let node = NodeProcess::start("node", &[]);
    let address = format!("localhost:{}", node.http.port());
    let said = succeed(quorumor().args(["status", &address]));
    assert!(said.contains("node         node"), "{said}");
}
