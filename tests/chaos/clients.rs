//! Clients that know what every node must show in the end.
//!
//! Each client has keys that nobody else writes, and one node at which it writes them, so that no
//! write of its own is concurrent with another: what was acknowledged last is what must be shown. A
//! write whose connection broke may have happened or not, so either is right, until the next one is
//! acknowledged. It never gives up waiting on a connection that stands: a write that it left
//! behind there could be carried out after the next one.
//!
//! Reads are judged at once: at the node of the writes they show the last one; at any other they
//! show one that was made, and never an older one than that node has shown since it was started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, PATIENCE, Reply};
use crate::site::Site;

/// Keys of one client.
const KEYS: usize = 12;

/// How long between two requests of a client: as fast as it can would only show how busy the machine is.
const PACE: Duration = Duration::from_micros(500);

/// How long to wait before a node that is away is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// The longest value but for the very long ones.
const VALUE_BYTES: usize = 256;

/// A very long value now and then: it takes disks and links some time, and journals become long
/// enough for snapshots.
const LONG_VALUE_BYTES: usize = 32 * 1024;
const LONG_ONE_IN: u8 = 20;

/// What clients and faults tell each other.
pub(crate) struct Shared {
    pub(crate) stop: AtomicBool,
    /// Grows when a node is ended and when it has been started again, so that it is even in between.
    lives: Vec<AtomicU64>,
    /// Whether each node lost what it had not made durable.
    crashed: Vec<AtomicBool>,
    /// Whether a node keeps what it acknowledged when it is killed.
    keeps: bool,
    /// Acknowledged writes of each client.
    acknowledged: Vec<AtomicU64>,
}

impl Shared {
    pub(crate) fn new(nodes: usize, clients: usize, keeps: bool) -> Self {
        Self {
            stop: AtomicBool::new(false),
            lives: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
            crashed: (0..nodes).map(|_| AtomicBool::new(false)).collect(),
            keeps,
            acknowledged: (0..clients).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A node is going to be ended; `crash`: without being asked.
    pub(crate) fn ending(&self, node: usize, crash: bool) {
        self.crashed[node].fetch_or(crash, Ordering::SeqCst);
        self.lives[node].fetch_add(1, Ordering::SeqCst);
    }

    /// It has been started again.
    pub(crate) fn started(&self, node: usize) {
        self.lives[node].fetch_add(1, Ordering::SeqCst);
    }

    /// What each client has been told until now.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|it| it.load(Ordering::SeqCst)).collect()
    }

    fn is_safe(&self, node: usize) -> bool {
        self.keeps || !self.crashed[node].load(Ordering::SeqCst)
    }
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Story {
    /// The number that was written last and acknowledged; nothing if it was deleted, or never written.
    acknowledged: Option<u64>,
    /// Writes since then of which nobody knows.
    maybe: Vec<Option<u64>>,
    /// The greatest number ever used.
    issued: u64,
}

impl Story {
    fn allows(&self, shown: Option<u64>) -> bool {
        self.acknowledged == shown || self.maybe.contains(&shown)
    }
}

/// A client's keys, and what it has seen.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: String,
    node: usize,
    stories: Vec<Story>,
    pub(crate) writes: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) reads: u64,
    /// The longest time until an answer to a write.
    pub(crate) slowest: Duration,
    /// What must not have happened.
    pub(crate) complaints: Vec<String>,
}

impl Ledger {
    fn key(&self, at: usize) -> String {
        format!("{}.{at}", self.name)
    }

    /// Complains of whatever a node shows that it must not.
    pub(crate) fn judge(&self, client: &mut Client, shared: &Shared, whose: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        for (at, story) in self.stories.iter().enumerate() {
            let key = self.key(at);
            match number_in(&client.ask(&["GET", &key]), &key) {
                Err(odd) => complaints.push(format!("{whose}: {odd}")),
                Ok(shown) if shown.is_some_and(|number| number > story.issued) => {
                    complaints.push(format!("{whose} shows {shown:?} at {key}, never written"));
                }
                Ok(shown) if !story.allows(shown) && shared.is_safe(self.node) => {
                    complaints.push(format!(
                        "{whose} shows {shown:?} at {key}, written at {}: {story:?}",
                        self.node
                    ))
                }
                Ok(_) => {}
            }
        }
        complaints
    }
}

/// What was written under `key` by the number in its value.
fn number_in(reply: &Reply, key: &str) -> Result<Option<u64>, String> {
    let text = match reply {
        Reply::Nothing => return Ok(None),
        Reply::Bulk(text) => text,
        other => return Err(format!("GET {key} answered {other:?}")),
    };
    let number = text
        .strip_prefix(key)
        .and_then(|rest| rest.strip_prefix('='))
        .and_then(|rest| rest.trim_end_matches('.').parse().ok());
    let start: String = text.chars().take(80).collect();
    number.map(Some).ok_or_else(|| format!("GET {key} answered {start:?}"))
}

/// A connection that comes and goes with its node.
struct Line<'a> {
    site: &'a Site,
    node: usize,
    client: Option<Client>,
}

impl Line<'_> {
    /// Whether there is a connection now.
    fn stands(&mut self) -> bool {
        if self.client.is_none() {
            self.client = Client::try_connect(self.site.resp(self.node)).ok();
        }
        self.client.is_some()
    }

    /// Asks; nothing if the node is away or goes away meanwhile. The error is an answer that took too
    /// long.
    fn ask(&mut self, request: &[&str]) -> Result<Option<Reply>, String> {
        if !self.stands() {
            return Ok(None);
        }
        let Some(client) = &mut self.client else { return Ok(None) };
        let began = Instant::now();
        match client.try_ask(request) {
            Ok(reply) => Ok(Some(reply)),
            Err(_) if began.elapsed() >= PATIENCE => {
                Err(format!("node {} did not answer {} within {PATIENCE:?}", self.node, request[0]))
            }
            Err(_) => {
                self.client = None;
                Ok(None)
            }
        }
    }
}

/// Writes, deletes and reads until it is told to stop.
pub(crate) fn run(site: &Site, shared: &Shared, number: usize, seed: u64) -> Ledger {
    let mut dice = fastrand::Rng::with_seed(seed);
    let node = number % site.size();
    let mut ledger = Ledger {
        name: format!("client{number}"),
        node,
        stories: (0..KEYS).map(|_| Story::default()).collect(),
        writes: 0,
        unknown: 0,
        refused: 0,
        reads: 0,
        slowest: Duration::ZERO,
        complaints: Vec::new(),
    };
    let mut home = Line { site, node, client: None };
    let mut away = Line { site, node, client: None };
    let mut seen = BTreeMap::new();
    while !shared.stop.load(Ordering::SeqCst) && ledger.complaints.len() < 10 {
        thread::sleep(PACE);
        let at = dice.usize(..KEYS);
        let done = match dice.u8(..100) {
            0..70 => write(&mut ledger, shared, &mut home, at, Some(length(&mut dice)), number),
            70..80 => write(&mut ledger, shared, &mut home, at, None, number),
            80..90 => read(&mut ledger, shared, &mut home, at),
            _ => {
                if dice.u8(..8) == 0 {
                    away = Line { site, node: dice.usize(..site.size()), client: None };
                }
                read_elsewhere(&mut ledger, shared, &mut away, at, &mut seen)
            }
        };
        match done {
            Ok(true) => {}
            Ok(false) => thread::sleep(RETRY),
            Err(complaint) => ledger.complaints.push(complaint),
        }
    }
    ledger
}

fn length(dice: &mut fastrand::Rng) -> usize {
    if dice.u8(..LONG_ONE_IN) == 0 { LONG_VALUE_BYTES } else { dice.usize(..VALUE_BYTES) }
}

/// Writes the next number, or deletes; whether the node was there.
fn write(
    ledger: &mut Ledger,
    shared: &Shared,
    line: &mut Line<'_>,
    at: usize,
    length: Option<usize>,
    client: usize,
) -> Result<bool, String> {
    if !line.stands() {
        // Nothing was sent, so nothing is unknown.
        return Ok(false);
    }
    let key = ledger.key(at);
    let story = &mut ledger.stories[at];
    let new = length.map(|_| story.issued + 1);
    let value = new.map(|number| format!("{key}={number}{}", ".".repeat(length.unwrap_or(0))));
    story.issued += u64::from(new.is_some());
    let began = Instant::now();
    let reply = match &value {
        Some(value) => line.ask(&["SET", &key, value])?,
        None => line.ask(&["DEL", &key])?,
    };
    match reply {
        None => {
            story.maybe.push(new);
            ledger.unknown += 1;
            return Ok(false);
        }
        Some(Reply::Simple(_) | Reply::Integer(_)) => {
            story.acknowledged = new;
            story.maybe.clear();
            ledger.writes += 1;
            ledger.slowest = ledger.slowest.max(began.elapsed());
            shared.acknowledged[client].fetch_add(1, Ordering::SeqCst);
        }
        // Refused before anything was done.
        Some(Reply::Error(text)) if text.starts_with("MISCONF writes are refused") => {
            ledger.refused += 1;
            return Ok(false);
        }
        Some(other) => return Err(format!("a write of {key} was answered {other:?}")),
    }
    Ok(true)
}

/// Reads where it writes.
fn read(
    ledger: &mut Ledger,
    shared: &Shared,
    line: &mut Line<'_>,
    at: usize,
) -> Result<bool, String> {
    let key = ledger.key(at);
    let Some(reply) = line.ask(&["GET", &key])? else { return Ok(false) };
    ledger.reads += 1;
    let shown = number_in(&reply, &key)?;
    let story = &ledger.stories[at];
    if !story.allows(shown) && shared.is_safe(ledger.node) {
        return Err(format!("node {} shows {shown:?} at {key}, its own: {story:?}", ledger.node));
    }
    Ok(true)
}

/// Reads at another node, which may lag behind but never goes back.
fn read_elsewhere(
    ledger: &mut Ledger,
    shared: &Shared,
    line: &mut Line<'_>,
    at: usize,
    seen: &mut BTreeMap<(usize, usize), (u64, u64)>,
) -> Result<bool, String> {
    let key = ledger.key(at);
    let life = || shared.lives[line.node].load(Ordering::SeqCst);
    let before = life();
    let node = line.node;
    let Some(reply) = line.ask(&["GET", &key])? else { return Ok(false) };
    ledger.reads += 1;
    let shown = number_in(&reply, &key)?;
    if shown.is_some_and(|number| number > ledger.stories[at].issued) {
        return Err(format!("node {node} shows {shown:?} at {key}, which was never written"));
    }
    let after = shared.lives[node].load(Ordering::SeqCst);
    let is_one_life = before == after && after.is_multiple_of(2);
    let Some(number) = shown.filter(|_| is_one_life) else { return Ok(true) };
    let last = seen.insert((node, at), (after, number));
    match last {
        Some((life, last)) if life == after && last > number => {
            Err(format!("node {node} showed {last} at {key} and then {number}"))
        }
        _ => Ok(true),
    }
}
