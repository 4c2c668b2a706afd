//! The house rules, executed: what the documents say about files, rooms and words is checked here.
//!
//! Each rule is a function from a text to complaints, so that every rule is also shown a text that
//! breaks it: a check that cannot fail is no check. The rules read source through `tidy/source.rs`
//! and so judge code apart from comments, and the product apart from its tests. They are a second
//! net under the lints of `Cargo.toml` and `clippy.toml` where those see more, and the only net
//! where no lint exists: rooms, openings of files, sizes, the top level, words, documents.
//!
//! What is left out: whether a comment is true, and whether an essay is worth reading.

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use source::{code, paths, without_tests};

/// The rooms and how high each stands. A room imports only rooms that stand lower; two at the same
/// height do not know each other.
const ROOMS: &[(&str, u8)] = &[
    ("protocol", 0),
    ("net", 1),
    ("storage", 1),
    ("sim", 1),
    ("server", 2),
    ("api", 3),
    ("lab", 4),
    ("cli", 5),
];

/// The rooms that may name async-std, so that replacing it stays a change of these alone.
const ASYNC_STD_ROOMS: &[&str] = &["net", "server", "api", "cli"];

/// What would let a run of the protocol depend on more than its inputs.
const NOT_IN_PROTOCOL: &[&str] = &[
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::collections::hash_map",
    "std::collections::hash_set",
    "std::env",
    "std::fs",
    "std::hash::RandomState",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "async_global_executor",
    "async_io",
    "async_signal",
    "async_std",
    "env_logger",
    "futures_lite",
    "getrandom",
    "hyper",
    "log::debug",
    "log::error",
    "log::info",
    "log::trace",
    "log::warn",
    "quinn",
    "quinn_udp",
    "ring::rand",
    "rustls",
];

/// Where a file asks to be split, in lines without its tests. The guide says about 500; this is where
/// asking becomes insisting.
const FILE_LINES_MAX: usize = 700;

/// Files that may be longer than [`FILE_LINES_MAX`], how long, and why they are one thing.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Everything that may stand at the top level of the repository.
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "clippy.toml",
    "deny.toml",
    "examples",
    "netconfig",
    "rustfmt.toml",
    "src",
    "tests",
];

/// What no file may say, and why. Written in two halves, so that this file does not say it either.
const WORDS: &[(&str, &str, &str)] = &[
    ("/ho", "me/", "a path of one machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("/Us", "ers/", "a path of one machine"),
    ("TO", "DO", "finish it or leave it out"),
    ("FIX", "ME", "finish it or leave it out"),
    ("XX", "X", "finish it or leave it out"),
    ("unimplemen", "ted!", "finish it or leave it out"),
    ("<<<<", "<<<", "a merge that was not finished"),
    ("issue", " #", "say what it is about; numbers are of one tracker"),
];

/// Commands of the README that start something which runs until it is stopped, hence not for CI.
const LASTING_COMMANDS: &[&str] = &["node", "dev"];

// --- the repository -----------------------------------------------------------------------------

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files below a folder whose names end so, as paths from the root, in order.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        // A folder that does not exist holds nothing.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().is_some_and(|path| path.ends_with(ending)) {
                let inside = path.strip_prefix(root()).expect("below the root");
                found.push(inside.to_str().expect("checked above").replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> Vec<String> {
    ["src", "tests", "examples"].iter().flat_map(|folder| files(folder, ".rs")).collect()
}

/// What git tracks; nothing outside of a checkout, as in a package from a registry.
fn tracked() -> Option<Vec<String>> {
    let listing = Command::new("git").args(["ls-files"]).current_dir(root()).output().ok()?;
    let names = String::from_utf8(listing.stdout).ok()?;
    (listing.status.success() && !names.is_empty())
        .then(|| names.lines().map(str::to_owned).collect())
}

/// Fails with all the complaints at once, so that one run shows all the work.
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Applies a rule to the files and collects the complaints.
fn judge(files: &[String], rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    assert!(!files.is_empty(), "there is nothing to judge");
    files.iter().flat_map(|file| rule(file, &read(file))).collect()
}

// --- rooms --------------------------------------------------------------------------------------

/// The room a source file belongs to; none for `main.rs` and `lib.rs`, which stand above all.
fn room_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    match inside.split_once('/') {
        Some((room, _)) => Some(room),
        None => inside.strip_suffix(".rs").filter(|name| !matches!(*name, "main" | "lib")),
    }
}

fn height(room: &str) -> Option<u8> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|(_, height)| *height)
}

/// The modules from the root of the crate down to a file.
fn modules_of(file: &str) -> Vec<String> {
    let inside = file.strip_prefix("src/").unwrap_or(file);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    inside.split('/').map(str::to_owned).collect()
}

/// What a path names from the root of the crate, if it begins there or climbs there.
fn from_root(file: &str, path: &source::Path) -> Option<Vec<String>> {
    match path.names.first()?.as_str() {
        "crate" => Some(path.names[1..].to_vec()),
        "self" | "super" => {
            let climbs = path.names.iter().filter(|name| *name == "super").count();
            let below =
                path.names.iter().skip_while(|name| matches!(name.as_str(), "self" | "super"));
            let mut module = modules_of(file);
            module.extend(path.inside.iter().cloned());
            module.truncate(module.len().saturating_sub(climbs));
            Some(module.into_iter().chain(below.cloned()).collect())
        }
        _ => None,
    }
}

/// Rooms import downward only.
fn imports_downward(file: &str, text: &str) -> Vec<String> {
    let Some(room) = room_of(file) else { return Vec::new() };
    let Some(own) = height(room) else {
        return vec![format!("{file}: {room} is no room of the house")];
    };
    let judge = |path: &source::Path| {
        let names = from_root(file, path)?;
        // The root alone is a visibility, `pub(crate)`.
        let target = names.first()?.as_str();
        let fine = target == room || height(target).is_some_and(|height| height < own);
        let line = path.line;
        (!fine).then(|| format!("{file}:{line}: {room} may not import {target}"))
    };
    paths(&code(text)).iter().filter_map(judge).collect()
}

#[test]
fn rooms_import_downward_only() {
    none(judge(&files("src", ".rs"), imports_downward));
}

/// Upward, sideways, nested, climbing and wholesale imports are all seen, and fine ones are not.
#[test]
fn an_import_upward_is_seen() {
    let bad = [
        ("src/protocol/store.rs", "use crate::server::Node;"),
        ("src/protocol/store.rs", "use crate::{protocol::id, net};"),
        ("src/net/mod.rs", "use crate::sim::World;"),
        ("src/net/mod.rs", "fn f() { crate::api::resp::f() }"),
        ("src/net/link.rs", "use super::super::server;"),
        ("src/net/link.rs", "mod tests { use super::super::super::server; }"),
        ("src/net/link.rs", "use super::super::{protocol, sim::{a, b}};"),
        ("src/server/node.rs", "use crate::*;"),
        ("src/server/node.rs", "pub(in crate::api) fn f() {}"),
        ("src/attic/mod.rs", ""),
    ];
    for (file, text) in bad {
        assert!(!imports_downward(file, text).is_empty(), "{file}: {text}");
    }
    let good = [
        ("src/protocol/store.rs", "use crate::protocol::{id, cell::Cell}; use super::id;"),
        ("src/net/mod.rs", "use crate::protocol::id::NodeId; // not crate::sim"),
        ("src/net/link.rs", "mod tests { use super::super::frame; use super::*; }"),
        ("src/cli/mod.rs", "use crate::{api, lab, net, server, sim, protocol};"),
        ("src/main.rs", "use crate::cli;"),
        (
            "src/net/mod.rs",
            "pub(crate) fn f() {} pub(super) fn g() {} pub(in crate::net) fn h() {}",
        ),
        ("src/net/mod.rs", "/// [`crate::server`] calls this.\nfn f() { \"crate::api::x\"; }"),
    ];
    for (file, text) in good {
        assert_eq!(imports_downward(file, text), Vec::<String>::new(), "{file}: {text}");
    }
}

/// async-std is named in the rooms that may be rewritten with it, and nowhere below or above.
fn names_no_async_std(file: &str, text: &str) -> Vec<String> {
    if room_of(file).is_none_or(|room| ASYNC_STD_ROOMS.contains(&room)) {
        return Vec::new();
    }
    let found = paths(&code(text)).into_iter().filter(|path| path.starts_with("async_std"));
    found.map(|path| format!("{file}:{}: async-std is not for this room", path.line)).collect()
}

#[test]
fn async_std_stays_in_its_rooms() {
    none(judge(&files("src", ".rs"), names_no_async_std));
}

#[test]
fn async_std_in_another_room_is_seen() {
    let text = "use async_std::task;";
    assert_eq!(names_no_async_std("src/lab/run.rs", text).len(), 1);
    assert_eq!(
        names_no_async_std("src/protocol/run.rs", "fn f() { async_std::task::spawn(g) }").len(),
        1
    );
    assert!(names_no_async_std("src/net/run.rs", text).is_empty());
    assert!(names_no_async_std("src/lab/run.rs", "// use async_std::task;").is_empty());
}

// --- determinism --------------------------------------------------------------------------------

/// The protocol names no clock, dice, thread, task, file, socket, logger, environment or hash map.
fn is_deterministic(file: &str, text: &str) -> Vec<String> {
    let judge = |path: &source::Path| {
        let spelled = path.names.join("::");
        let forbidden = NOT_IN_PROTOCOL
            .iter()
            .any(|forbidden| path.starts_with(forbidden) || path.hides(forbidden));
        // A generator made from a seed is a value; everything else in that crate is dice.
        let dice =
            path.starts_with("fastrand") && path.names.get(1).is_none_or(|name| name != "Rng");
        let waits = matches!(spelled.as_str(), "async" | "await" | "thread_local");
        let line = path.line;
        (forbidden || dice || waits)
            .then(|| format!("{file}:{line}: `{spelled}` is not for the protocol"))
    };
    paths(&code(text)).iter().filter_map(judge).collect()
}

#[test]
fn the_protocol_is_deterministic() {
    none(judge(&files("src/protocol", ".rs"), is_deterministic));
}

#[test]
fn a_clock_in_the_protocol_is_seen() {
    let bad = [
        "use std::time::{Duration, Instant};",
        "use std::time;",
        "use std::collections::*;",
        "use std::collections::{BTreeMap, HashMap as Map};",
        "fn f() { std::thread::sleep(x) }",
        "fn f() { log::info!(\"x\") }",
        "use fastrand;",
        "fn f() -> u64 { fastrand::u64(..) }",
        "async fn f() {}",
        "use std::net::{SocketAddr, UdpSocket};",
        "thread_local! { static A: u8 = 0; }",
        "use getrandom::fill;",
    ];
    for text in bad {
        assert!(!is_deterministic("src/protocol/a.rs", text).is_empty(), "{text}");
    }
    let good = [
        "use std::time::Duration; use std::collections::BTreeMap; use std::net::SocketAddr;",
        "use fastrand::Rng; fn f(rng: &mut fastrand::Rng) {}",
        "// Not std::time::Instant, since time comes in as a value.",
        "use super::log; use crate::protocol::time::Instant; fn f() { self.log.g(log::Entry) }",
    ];
    for text in good {
        assert_eq!(is_deterministic("src/protocol/a.rs", text), Vec::<String>::new(), "{text}");
    }
}

/// The lints whose lists in `clippy.toml` are about determinism. Clippy knows one list for the whole
/// crate, hence `Cargo.toml` allows them and these rooms deny them again.
fn denies_what_is_not_deterministic(file: &str, text: &str) -> Vec<String> {
    let code = code(text);
    let denied: Vec<&str> = code
        .lines()
        .filter_map(|line| line.strip_prefix("#![deny("))
        .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .collect();
    let mut missing = vec!["disallowed_methods", "disallowed_types"];
    missing.retain(|lint| !denied.contains(lint));
    missing.iter().map(|lint| format!("{file}: does not deny clippy::{lint}")).collect()
}

#[test]
fn deterministic_rooms_deny_what_is_not() {
    let rooms = ["src/protocol/mod.rs".to_owned(), "src/sim/mod.rs".to_owned()];
    none(judge(&rooms, denies_what_is_not_deterministic));
}

#[test]
fn a_room_that_denies_too_little_is_seen() {
    let both = "//! A.\n\n#![deny(clippy::disallowed_methods, clippy::disallowed_types)]\n";
    assert!(denies_what_is_not_deterministic("src/sim/mod.rs", both).is_empty());
    for text in ["", "#![deny(clippy::disallowed_types)]", &both.replace("#!", "// #!")] {
        assert!(!denies_what_is_not_deterministic("src/sim/mod.rs", text).is_empty(), "{text}");
    }
}

// --- files --------------------------------------------------------------------------------------

/// A file opens with what lives in it.
fn opens_with_an_essay(file: &str, text: &str) -> Vec<String> {
    let says = text.lines().next().and_then(|line| line.strip_prefix("//! "));
    let fine = says.is_some_and(|says| says.trim().len() > 10);
    (!fine).then(|| format!("{file}: opens with `//!` and what lives here")).into_iter().collect()
}

#[test]
fn every_file_says_what_it_is() {
    none(judge(&rust_files(), opens_with_an_essay));
}

#[test]
fn a_file_without_an_opening_is_seen() {
    for text in ["", "use a;\n//! Late.", "//!\n//! Says nothing at first.", "/// Of an item."] {
        assert_eq!(opens_with_an_essay("src/a.rs", text).len(), 1, "{text}");
    }
    assert!(opens_with_an_essay("src/a.rs", "//! What lives here.").is_empty());
}

/// The lines of a file that are not under `#[cfg(test)]`.
fn lines_without_tests(text: &str) -> usize {
    let code = code(text);
    let kept = without_tests(&code);
    let in_tests = code
        .lines()
        .zip(kept.lines())
        .filter(|(before, after)| !before.trim().is_empty() && after.trim().is_empty());
    text.lines().count() - in_tests.count()
}

fn is_short(long: &[(&str, usize, &str)], file: &str, text: &str) -> Vec<String> {
    let allowed = long.iter().find(|(name, ..)| *name == file);
    let lines_max = allowed.map_or(FILE_LINES_MAX, |(_, lines_max, _)| *lines_max);
    let lines = lines_without_tests(text);
    let mut complaints = Vec::new();
    if lines > lines_max {
        complaints.push(format!("{file}: {lines} lines, at most {lines_max}: split it"));
    }
    if allowed.is_some() && lines <= FILE_LINES_MAX {
        complaints.push(format!("{file}: {lines} lines need no exception any more"));
    }
    complaints
}

#[test]
fn files_ask_to_be_split() {
    let files = [files("src", ".rs"), files("examples", ".rs")].concat();
    for (name, _, reason) in LONG_FILES {
        assert!(files.iter().any(|file| file == name), "{name} is gone; so may its exception");
        assert!(!reason.is_empty(), "{name}: say why it is one thing");
    }
    none(judge(&files, |file, text| is_short(LONG_FILES, file, text)));
}

#[test]
fn a_long_file_is_seen() {
    let long = "fn f() {}\n".repeat(FILE_LINES_MAX + 1);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    let exception = [("src/a.rs", FILE_LINES_MAX + 50, "a table")];
    assert_eq!(is_short(&[], "src/a.rs", &long).len(), 1);
    assert_eq!(is_short(&exception, "src/a.rs", &long).len(), 0);
    assert_eq!(is_short(&exception, "src/a.rs", &long.repeat(2)).len(), 1);
    assert_eq!(is_short(&exception, "src/a.rs", "fn f() {}").len(), 1);
    assert_eq!(is_short(&[], "src/a.rs", &tests).len(), 0);
}

/// The top level holds what it is allowed to and nothing else.
fn top_level(tracked: &[String]) -> Vec<String> {
    let found: BTreeSet<&str> = tracked.iter().filter_map(|file| file.split('/').next()).collect();
    let surplus = found.iter().filter(|name| !TOP_LEVEL.contains(name));
    surplus.map(|name| format!("{name}: not for the top level")).collect()
}

#[test]
fn the_top_level_is_small() {
    let Some(tracked) = tracked() else {
        // Past the test runner, which keeps to itself what a passing test prints.
        let told = writeln!(std::io::stderr(), "SKIPPED the_top_level_is_small: no git checkout");
        told.expect("standard error is open");
        return;
    };
    none(top_level(&tracked));
}

#[test]
fn a_surplus_folder_is_seen() {
    let listing = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(top_level(&listing(&["src/lib.rs", "benches/a.rs", "benches/b.rs"])).len(), 1);
    assert_eq!(top_level(&listing(&["rust-toolchain.toml"])).len(), 1);
    assert!(top_level(&listing(&["src/lib.rs", ".ci/run", "Cargo.toml"])).is_empty());
}

// --- words --------------------------------------------------------------------------------------

/// No file says what it must not say.
fn says_nothing_forbidden(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (first, second, why) in WORDS {
            if line.contains(&format!("{first}{second}")) {
                complaints.push(format!("{file}:{}: `{first}{second}`: {why}", index + 1));
            }
        }
    }
    complaints
}

#[test]
fn no_forbidden_words() {
    let mut all = rust_files();
    all.extend([files("netconfig", ""), files("examples", ".md"), files(".ci", "")].concat());
    let top = TOP_LEVEL.iter().filter(|name| root().join(name).is_file() && **name != "Cargo.lock");
    all.extend(top.map(|name| (*name).to_owned()));
    none(judge(&all, says_nothing_forbidden));
}

#[test]
fn a_forbidden_word_is_seen() {
    for (first, second, _) in WORDS {
        let text = format!("// see {first}{second}x");
        assert_eq!(says_nothing_forbidden("src/a.rs", &text).len(), 1, "{text}");
    }
    assert!(says_nothing_forbidden("src/a.rs", "// the network/home of a peer").is_empty());
}

/// Outside tests nothing is unwrapped: `expect` says why it cannot fail.
fn unwraps_nothing(file: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (index, line) in without_tests(&code(text)).lines().enumerate() {
        if line.contains(".unwrap()") || line.contains("::unwrap)") {
            complaints.push(format!("{file}:{}: `unwrap` outside tests", index + 1));
        }
    }
    complaints
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let files = [files("src", ".rs"), files("examples", ".rs")].concat();
    // A file of tests of its own hangs under `#[cfg(test)] mod tests;` in its parent.
    let files: Vec<String> = files.into_iter().filter(|file| !file.ends_with("tests.rs")).collect();
    none(judge(&files, unwraps_nothing));
}

#[test]
fn an_unwrap_is_seen() {
    assert_eq!(unwraps_nothing("src/a.rs", "fn f() { g().unwrap() }").len(), 1);
    assert_eq!(unwraps_nothing("src/a.rs", "fn f() { g.map(Option::unwrap) }").len(), 1);
    let fine = "fn f() { g().unwrap_or(1) } // .unwrap()\n#[cfg(test)]\nmod tests { f().unwrap() }";
    assert!(unwraps_nothing("src/a.rs", fine).is_empty());
}

// --- documents ----------------------------------------------------------------------------------

/// The lines of the blocks of commands in a document.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line.trim_start().strip_prefix("```") {
            Some(kind) => inside = !inside && matches!(kind, "sh" | "bash" | "console"),
            None if inside => {
                let command = line.trim().trim_start_matches("$ ");
                found.push(command.split(" #").next().unwrap_or(command).trim().to_owned());
            }
            None => {}
        }
    }
    found
}

/// What the README tells a reader to run with cargo is what CI runs.
fn promises_what_is_run(readme: &str, script: &str) -> Vec<String> {
    let lasting = |command: &str| {
        let run = command.strip_prefix("cargo run --release -- ");
        run.and_then(|rest| rest.split(' ').next())
            .is_some_and(|verb| LASTING_COMMANDS.contains(&verb))
    };
    let mut promised: Vec<String> = commands(readme);
    promised.retain(|command| command.starts_with("cargo ") && !lasting(command));
    if promised.is_empty() {
        return vec!["README.md: no command to begin with".to_owned()];
    }
    promised.retain(|command| !script.contains(command));
    promised.iter().map(|command| format!("README.md: `{command}` is not in .ci/run")).collect()
}

#[test]
fn the_readme_promises_what_ci_runs() {
    none(promises_what_is_run(&read("README.md"), &read(".ci/run")));
}

#[test]
fn a_promise_that_nobody_keeps_is_seen() {
    let readme =
        "```sh\ncargo test --release   # all of it\ncargo run --release -- node --name a\n```\n";
    assert!(promises_what_is_run(readme, "cargo test --release").is_empty());
    assert_eq!(promises_what_is_run(readme, "cargo test").len(), 1);
    assert_eq!(promises_what_is_run("cargo test", "cargo test").len(), 1);
}

/// Links to files lead somewhere.
fn links_lead_somewhere(file: &str, text: &str) -> Vec<String> {
    let folder = root().join(file).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut complaints = Vec::new();
    for piece in text.split("](").skip(1) {
        let target = piece.split([')', '#']).next().unwrap_or_default();
        let outside = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
        if !outside && !folder.join(target).exists() {
            complaints.push(format!("{file}: the link to `{target}` leads nowhere"));
        }
    }
    complaints
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut all: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].iter().map(|s| (*s).to_owned()).collect();
    all.extend([files("netconfig", ".md"), files("examples", ".md")].concat());
    none(judge(&all, links_lead_somewhere));
}

#[test]
fn a_dead_link_is_seen() {
    let text = "[a](ARCHITECTURE.md#rooms) [b](https://example.org/x) [c](nowhere.md) [d](#here)";
    assert_eq!(links_lead_somewhere("README.md", text).len(), 1);
}

/// Every profile is a table, has a row in the folder's README and is compiled into the program; every
/// row has a profile.
fn profiles_are_explained(profiles: &[(String, String)], page: &str, source: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, text) in profiles {
        if let Err(error) = text.parse::<toml::Table>() {
            complaints.push(format!("netconfig/{name}.toml: {error}"));
        }
        if !page.contains(&format!("\n| `{name}` |")) {
            complaints.push(format!("netconfig/README.md: no row for `{name}`"));
        }
        if !source.contains(&format!("netconfig/{name}.toml\")")) {
            complaints.push(format!("netconfig/{name}.toml: not compiled in"));
        }
    }
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for row in rows.filter(|row| !profiles.iter().any(|(name, _)| name == row)) {
        complaints.push(format!("netconfig/README.md: `{row}` has no file"));
    }
    complaints
}

#[test]
fn profiles_are_explained_and_compiled_in() {
    let profiles: Vec<(String, String)> = files("netconfig", ".toml")
        .iter()
        .map(|file| {
            let name = file.trim_start_matches("netconfig/").trim_end_matches(".toml");
            (name.to_owned(), read(file))
        })
        .collect();
    assert!(!profiles.is_empty(), "there is nothing to judge");
    let source: String = files("src", ".rs").iter().map(|file| read(file)).collect();
    none(profiles_are_explained(&profiles, &read("netconfig/README.md"), &source));
}

#[test]
fn an_unexplained_profile_is_seen() {
    let profiles = |text: &str| vec![("lan".to_owned(), text.to_owned())];
    let page = "| name |\n| `lan` | x |\n";
    let source = "include_str!(\"../../netconfig/lan.toml\")";
    assert!(profiles_are_explained(&profiles("a = 1"), page, source).is_empty());
    assert_eq!(profiles_are_explained(&profiles("a = "), page, source).len(), 1);
    assert_eq!(profiles_are_explained(&profiles("a = 1"), "", source).len(), 1);
    assert_eq!(profiles_are_explained(&profiles("a = 1"), page, "").len(), 1);
    assert_eq!(profiles_are_explained(&[], page, source).len(), 1);
}

// --- dependencies -------------------------------------------------------------------------------

fn dependencies(manifest: &toml::Table) -> Vec<(String, String)> {
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    let version = |value: &toml::Value| match value {
        toml::Value::String(version) => version.clone(),
        other => other.get("version").and_then(toml::Value::as_str).unwrap_or_default().to_owned(),
    };
    table.into_iter().flatten().map(|(name, value)| (name.clone(), version(value))).collect()
}

/// The architecture page has a row for every dependency, with the version that is asked for.
fn names_every_dependency(manifest: &toml::Table, page: &str) -> Vec<String> {
    let told = |name: &str, version: &str| {
        page.lines().any(|line| line.starts_with(&format!("| `{name}` | {version} |")))
    };
    let mut untold = dependencies(manifest);
    untold.retain(|(name, version)| !told(name, version));
    untold.iter().map(|(n, v)| format!("ARCHITECTURE.md: no row `{n}` | {v} |")).collect()
}

/// One crate, without switches: no workspace and no cargo features.
fn is_one_crate(manifest: &toml::Table) -> Vec<String> {
    let surplus = ["workspace", "features"].into_iter().filter(|key| manifest.contains_key(*key));
    surplus.map(|key| format!("Cargo.toml: there is no [{key}] in this house")).collect()
}

fn manifest() -> toml::Table {
    read("Cargo.toml").parse().expect("cargo has read it before us")
}

#[test]
fn dependencies_are_explained_and_the_crate_is_one() {
    none(names_every_dependency(&manifest(), &read("ARCHITECTURE.md")));
    none(is_one_crate(&manifest()));
}

#[test]
fn an_unexplained_dependency_is_seen() {
    let manifest = "[dependencies]\na = \"1.0\"\nb = { version = \"2.0\" }\n[features]\nc = []";
    let manifest: toml::Table = manifest.parse().unwrap();
    assert!(names_every_dependency(&manifest, "| `a` | 1.0 | x |\n| `b` | 2.0 | x |").is_empty());
    assert_eq!(names_every_dependency(&manifest, "| `a` | 1.1 | x |\n").len(), 2);
    assert_eq!(is_one_crate(&manifest).len(), 1);
}
