//! What the program says when it is used wrongly, or when the world is not as it should be: a clear
//! error that says what to do next, and the exit code that scripts rely on.

mod common;

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{Finished, finish, quorumor};

fn run(arguments: &[&str]) -> Finished {
    // A peer that gets as far as its data directory makes it where it is started.
    let folder = tempfile::tempdir().expect("a temporary folder");
    finish(quorumor().args(arguments).current_dir(folder.path()))
}

/// The program ends with this code and says each of these words on standard error.
fn refuses(arguments: &[&str], code: i32, words: &[&str]) {
    let finished = run(arguments);
    let said = &finished.stderr;
    assert_eq!(finished.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(finished.stdout.is_empty(), "{arguments:?}: {}", finished.stdout);
    for word in words {
        assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).expect("a file of ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a file of ours");
    path.display().to_string()
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [&["--help"][..], &["node", "--help"], &["compare", "--help"], &["--version"]]
    {
        let finished = run(arguments);
        assert!(finished.status.success() && finished.stderr.is_empty(), "{arguments:?}");
        assert!(finished.stdout.contains("quorumor"), "{arguments:?}");
    }
}

#[test]
fn unknown_words_are_refused_with_what_is_known() {
    refuses(&["nodes"], 2, &["nodes", "node"]);
    refuses(&["node", "--strategy", "shove"], 2, &["push-pull"]);
    refuses(&["node", "--interval", "0s"], 2, &["at least 1ms"]);
    refuses(&["node", "--peer", "a b"], 2, &["HOST:PORT"]);
    refuses(&["node", "--fanout", "0"], 2, &["at least 1"]);
    refuses(&["node", "--profile", "moon"], 2, &["moon", "lan"]);
    refuses(&["compare", "--profiles", "moon"], 2, &["moon", "lan"]);
    refuses(&["compare", "--nodes", "0"], 2, &["--nodes"]);
    refuses(&["compare", "--fail-if", "p99>fast"], 2, &["p99>fast"]);
}

#[test]
fn modes_and_voters_are_named_when_they_are_wrong() {
    refuses(&["node", "--consistency", "weak"], 2, &["eventual or strong"]);
    refuses(&["node", "--voters", "11"], 2, &["1 to 9"]);
    refuses(&["mode", "strong", "--without", "xyz"], 2, &["hexadecimal"]);
    refuses(&["mode", "strong", "--http", "127.0.0.1:1"], 3, &["cannot reach"]);
}

#[test]
fn a_file_with_a_mistake_is_named_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = file(&folder, "node.toml", "name = 'ada'\nstratgy = 'push'\n", 0o644);
    refuses(&["node", "--config", &config], 2, &["node.toml", "stratgy", "strategy"]);
    let profile = file(&folder, "links.toml", "description = 'x'\nlatencyy = '1ms'\n", 0o644);
    refuses(&["node", "--profile", &profile], 2, &["links.toml", "latencyy"]);
    refuses(&["node", "--config", "/nowhere.toml"], 2, &["/nowhere.toml", "No such file"]);
}

#[test]
fn a_secret_is_private_and_never_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("secret").display().to_string();
    assert!(run(&["keygen", &path]).status.success());
    let mode = fs::metadata(&path).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    refuses(&["keygen", &path], 1, &[&path, "exists"]);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
    let node = ["node", "--listen", "127.0.0.1:0", "--secret-file"];
    refuses(&[&node[..], &[&path]].concat(), 7, &[&path, "chmod"]);
    refuses(&[&node[..], &["/nowhere"]].concat(), 7, &["/nowhere"]);
    let rubbish = file(&folder, "rubbish", "hello\n", 0o600);
    refuses(&[&node[..], &[&rubbish]].concat(), 7, &[&rubbish]);
    let password = file(&folder, "password", "hunter2\n", 0o644);
    refuses(&["node", "--requirepass-file", &password], 7, &[&password, "chmod"]);
    let empty = file(&folder, "empty", "\n", 0o600);
    refuses(&["node", "--requirepass-file", &empty], 2, &[&empty, "empty"]);
}

#[test]
fn other_machines_need_a_secret() {
    refuses(&["node", "--listen", "0.0.0.0:0"], 1, &["secret", "quorumor keygen", "--secret-file"]);
}

#[test]
fn a_taken_address_is_named_with_the_flag_that_changes_it() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let taken = udp.local_addr().expect("bound").to_string();
    refuses(&["node", "--listen", &taken], 1, &[&taken, "in use"]);
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = tcp.local_addr().expect("bound").to_string();
    let node = ["node", "--listen", "127.0.0.1:0"];
    refuses(&[&node[..], &["--resp", &taken]].concat(), 1, &[&taken, "--resp"]);
    let other = ["--resp", "127.0.0.1:0", "--http", &taken];
    refuses(&[&node[..], &other].concat(), 1, &[&taken, "--http"]);
}

#[test]
fn status_says_that_nobody_answers() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let free = tcp.local_addr().expect("bound").to_string();
    drop(tcp);
    refuses(&["status", &free], 3, &[&free, "--http"]);
}

/// An empty variable is as good as none.
#[test]
fn an_empty_list_of_peers_is_none() {
    let node = ["node", "--peer", "", "--listen", "0.0.0.0:0"];
    refuses(&node, 1, &["quorumor keygen"]);
    let finished =
        finish(quorumor().args(["node", "--listen", "0.0.0.0:0"]).env("QUORUMOR_PEER", ""));
    assert!(finished.stderr.contains("quorumor keygen"), "{}", finished.stderr);
}
