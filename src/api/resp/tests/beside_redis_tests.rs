//! What tools and test suites ask, asked of a door of ours and of a real Redis: the same bytes come back.
//!
//! Where something else has to be answered here, the beginning of it is the same, since clients look at
//! that. Skipped with a line that says so where no redis-server is installed.

use std::collections::BTreeMap;

use super::super::redis_tests::{Redis, Told};
use super::*;

/// A request as it is sent.
fn request(line: &str) -> Vec<u8> {
    let words: Vec<&str> = line.split(' ').collect();
    let mut request = format!("*{}\r\n", words.len());
    words.iter().for_each(|it| request += &format!("${}\r\n{it}\r\n", it.len()));
    request.into_bytes()
}

/// What is answered the same.
const SAME: &[&str] = &[
    "SET k word",
    "RPUSH l a b",
    "OBJECT REFCOUNT k",
    "OBJECT REFCOUNT l",
    "OBJECT REFCOUNT nosuch",
    "OBJECT REFCOUNT",
    "OBJECT REFCOUNT a b",
    "OBJECT FREQ k",
    "OBJECT FREQ nosuch",
    "OBJECT FREQ",
    "OBJECT IDLETIME nosuch",
    "OBJECT IDLETIME",
    "OBJECT ENCODING nosuch",
    "OBJECT HELP x",
    "OBJECT NOSUCH k",
    "OBJECT",
    "MEMORY PURGE",
    "MEMORY PURGE x",
    "MEMORY STATS x",
    "MEMORY DOCTOR x",
    "MEMORY USAGE nosuch",
    "MEMORY NOSUCH",
    "MEMORY",
    "CONFIG RESETSTAT",
    "CONFIG RESETSTAT x",
    "CONFIG REWRITE",
    "CONFIG GET",
    "CONFIG NOSUCH",
    "CLIENT NO-EVICT ON",
    "CLIENT NO-EVICT x",
    "CLIENT REPLY ON",
    "CLIENT REPLY x",
    "CLIENT REPLY",
    "CLIENT PAUSE 0",
    "CLIENT PAUSE 0 WRITE",
    "CLIENT PAUSE 0 all",
    "CLIENT PAUSE x",
    "CLIENT PAUSE -1",
    "CLIENT PAUSE 1 x",
    "CLIENT PAUSE x x",
    "CLIENT PAUSE 1 WRITE x",
    "CLIENT PAUSE",
    "CLIENT UNPAUSE",
    "CLIENT UNPAUSE x",
    "CLIENT UNBLOCK 999999",
    "CLIENT UNBLOCK -1",
    "CLIENT UNBLOCK x",
    "CLIENT UNBLOCK 999999 ERROR",
    "CLIENT UNBLOCK 999999 timeout",
    "CLIENT UNBLOCK 1 x",
    "CLIENT UNBLOCK x x",
    "CLIENT UNBLOCK 1 ERROR x",
    "CLIENT UNBLOCK",
    "SWAPDB 0 0",
    "SWAPDB 0 99",
    "SWAPDB 99 0",
    "SWAPDB x 0",
    "SWAPDB 0 x",
    "SWAPDB x x",
    "SWAPDB 0",
    "SELECT 0",
    "SELECT 99",
    "SELECT -1",
    "SELECT x",
    "SELECT",
    "INFO nosuch",
    "COMMAND INFO nosuch",
    "GET k",
];

/// Story: tools are told by a peer what Redis tells them, errors included.
#[test]
fn tools_are_told_the_same() {
    let Some(mut redis) = Redis::start() else {
        return eprintln!("SKIPPED tools_are_told_the_same: install redis-server");
    };
    let door = open(Settings::default());
    let mut ours = std::io::BufReader::new(Client::to(&door).0);
    let mut both = |line: &str| {
        let request = request(line);
        ours.get_mut().write_all(&request).unwrap();
        (Told::read(&mut ours), redis.ask(&request))
    };
    for line in SAME {
        let (ours, theirs) = both(line);
        assert_eq!(ours, theirs, "ours, Redis'; {line}");
    }
    for (line, start) in [
        ("DEBUG SLEEP 0", "-ERR DEBUG command not allowed"),
        ("DEBUG JMAP", "-ERR DEBUG command not allowed"),
    ] {
        let (ours, theirs) = both(line);
        let begins = |told: &Told| matches!(told, Told::Line(text) if text.starts_with(start));
        assert!(begins(&ours) && begins(&theirs), "{line}: {ours:?}, {theirs:?}");
    }
    // There it is noted when a key is used, here not.
    let (ours, theirs) = both("OBJECT IDLETIME k");
    assert!(matches!(ours, Told::Line(text) if text.starts_with("-ERR idle time not tracked")));
    assert_eq!(theirs, Told::Line(":0".into()));
    // All sections that both have are named alike, whichever word asks for all.
    for line in ["INFO", "INFO all", "INFO default", "INFO everything", "INFO server keyspace"] {
        let sections = |told: Told| -> Vec<String> {
            let Told::Bytes(Some(text)) = told else { panic!("{line} answered {told:?}") };
            let text = String::from_utf8(text).unwrap();
            text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
        };
        let (ours, theirs) = both(line);
        let (ours, theirs) = (sections(ours), sections(theirs));
        let own = ["# Gossip", "# Log"];
        let unknown: Vec<_> = ours.iter().filter(|it| !theirs.contains(it)).collect();
        assert!(unknown.iter().all(|it| own.contains(&it.as_str())), "{line}: {unknown:?}");
        let known = ours.iter().filter(|it| theirs.contains(it));
        assert!(known.eq(theirs.iter().filter(|it| ours.contains(it))), "{line}: {ours:?}");
    }
}

/// What is known to differ in `COMMAND`, with the reason: flags of Redis that nothing here has a use for.
const FLAGS_LEFT_OUT: [&str; 6] =
    ["asking", "blocking", "may_replicate", "no_async_loading", "no_multi", "skip_slowlog"];
const MORE_FLAGS_LEFT_OUT: [&str; 3] = ["no_mandatory_keys", "sentinel", "skip_monitor"];
/// Commands whose newer form, with one more argument or one less, is served.
const NEWER: [&str; 3] = ["command|getkeys", "zrank", "zrevrank"];

/// Law: what `COMMAND` says of each command is what Redis says of it: how many arguments it takes, its flags,
/// its categories, and where its keys are.
#[test]
fn commands_are_described_as_in_redis() {
    let Some(mut redis) = Redis::start() else {
        return eprintln!("SKIPPED commands_are_described_as_in_redis: install redis-server");
    };
    let door = open(Settings::default());
    let mut ours = std::io::BufReader::new(Client::to(&door).0);
    ours.get_mut().write_all(&request("COMMAND")).unwrap();
    let (ours, theirs) =
        (described(Told::read(&mut ours)), described(redis.ask(&request("COMMAND"))));
    let mut compared = 0;
    for (name, ours) in &ours {
        let Some(theirs) = theirs.get(name) else { continue };
        compared += 1;
        assert!(NEWER.contains(&name.as_str()) || ours.arity == theirs.arity, "{name}: arity");
        assert_eq!(ours.flags, theirs.flags, "{name}: flags, ours and Redis'");
        assert_eq!(ours.categories, theirs.categories, "{name}: categories, ours and Redis'");
        assert_eq!(ours.keys, theirs.keys, "{name}: keys, ours and Redis'");
    }
    assert!(compared > 150, "{compared}");
}

/// What is compared of a command.
struct Described {
    arity: Told,
    flags: Vec<String>,
    categories: Vec<String>,
    keys: [Told; 3],
}

/// The commands and subcommands in the answer to `COMMAND`.
fn described(told: Told) -> BTreeMap<String, Described> {
    let mut all = BTreeMap::new();
    let mut left = list(told);
    while let Some(command) = left.pop() {
        let mut parts = list(command);
        left.extend(list(parts.remove(9)));
        let [name, arity, flags, first, last, step, categories]: [Told; 7] =
            parts.drain(..7).collect::<Vec<_>>().try_into().unwrap();
        let Told::Bytes(Some(name)) = name else { panic!("{name:?} is no name") };
        let flags = words(flags);
        let is_left_out =
            |it: &String| FLAGS_LEFT_OUT.iter().chain(&MORE_FLAGS_LEFT_OUT).any(|left| it == left);
        let flags = flags.into_iter().filter(|it| !is_left_out(it)).collect();
        let described =
            Described { arity, flags, categories: words(categories), keys: [first, last, step] };
        all.insert(String::from_utf8(name).unwrap(), described);
    }
    all
}

fn list(told: Told) -> Vec<Told> {
    match told {
        Told::All(Some(all)) => all,
        other => panic!("{other:?} is no list"),
    }
}

/// Words without their marks, in order.
fn words(told: Told) -> Vec<String> {
    let word = |told| match told {
        Told::Line(line) => line[1..].to_owned(),
        other => panic!("{other:?} is no word"),
    };
    let mut words: Vec<String> = list(told).into_iter().map(word).collect();
    words.sort();
    words
}
