//! What the replication protocol costs by itself, without sockets, tasks and clients.
//!
//! `cargo bench --bench protocol` prints nanoseconds per write (the median of several runs with the
//! fastest and the slowest), the memory of a million keys, and what finding one missing key among a
//! million takes. For people; nothing passes or fails by it.
//!
//! Keys are 16 bytes and values 100. Requests come [`BATCH`] at a time, as from a client that
//! pipelines, and share an output; keys are met in random order. Times are those of the core, so that
//! what else runs on the machine matters little.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use quorumor::protocol::boundary::{Input, Output, Request, Token};
use quorumor::protocol::codec;
use quorumor::protocol::config::Config;
use quorumor::protocol::id::{NodeId, Origin};
use quorumor::protocol::shard::Shard;
use quorumor::protocol::time::{Time, WallTime};

/// How often each measurement is repeated.
const RUNS: usize = 7;
/// Keys in the measurements of single writes: too many for the caches.
const KEYS: usize = 300_000;
/// Keys that fit into the caches.
const FEW: usize = 1_000;
/// Requests that share an output.
const BATCH: usize = 16;
/// Keys where it is about many.
const MILLION: usize = 1_000_000;

const VALUE: [u8; 100] = [b'v'; 100];

fn main() {
    let only = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    // First, while the process is small.
    if wanted("memory") {
        memory();
    }
    if wanted("million") {
        million();
    }
    let order = shuffled(KEYS);
    println!("{:44}{:>9}{:>9}{:>9}", "nanoseconds per write", "median", "least", "most");
    for (name, peers) in [("no peers", 0), ("2 peers, encoded", 2)] {
        let new = format!("SET of {KEYS} new keys, {name}");
        if wanted(&new) {
            report(&new, || timed(|clock| local(peers, &order, false, clock)));
        }
        for keys in [FEW, KEYS] {
            let overwrite = format!("SET of {keys} keys again, {name}");
            if wanted(&overwrite) {
                let order = shuffled(keys);
                report(&overwrite, || timed(|clock| local(peers, &order, true, clock)));
            }
        }
    }
    for batch in [1, BATCH] {
        let name = format!("remote apply with decoding, {batch} a message");
        if wanted(&name) {
            let frames = pushes(&order, batch);
            report(&name, || timed(|clock| remote(&frames, clock)));
        }
    }
    let frames = pushes(&order, BATCH);
    if wanted("decode") {
        report("decode, 16 a message", || timed(|clock| decode(&frames, clock)));
    }
    if wanted("encode") {
        report("encode, 16 a message", || timed(|clock| encode(&frames, clock)));
    }
}

/// Measures the parts of some work that count.
struct Clock {
    spent: Duration,
}

impl Clock {
    fn count<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (started, on_core) = (Instant::now(), on_core());
        let result = work();
        self.spent += match (on_core, self::on_core()) {
            (Some(before), Some(after)) => after - before,
            _ => started.elapsed(),
        };
        result
    }
}

/// How long this thread has been running on a core, where that is told; unlike the time of day, it
/// does not count what others do meanwhile.
fn on_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

/// Nanoseconds per write; `work` says how many there were.
fn timed(work: impl FnOnce(&mut Clock) -> usize) -> f64 {
    let mut clock = Clock { spent: Duration::ZERO };
    let writes = work(&mut clock);
    clock.spent.as_nanos() as f64 / writes as f64
}

fn report(name: &str, run: impl Fn() -> f64) {
    let mut runs: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    runs.sort_by(f64::total_cmp);
    println!("{name:44}{:>9.0}{:>9.0}{:>9.0}", runs[RUNS / 2], runs[0], runs[RUNS - 1]);
}

fn shard(node: u64) -> Shard {
    Shard::new(Config::new(NodeId(u128::from(node)), Origin(node), node))
}

fn key(number: usize) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn shuffled(keys: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    order
}

fn up(shard: &mut Shard, peer: u64, output: &mut Output) {
    let peer = NodeId(u128::from(peer));
    shard.handle(Time::START, Input::PeerUp(peer, Duration::from_millis(1)), output);
}

/// Sets `keys`, `batch` to an output, and hands each output to `done`.
fn set(shard: &mut Shard, keys: &[usize], batch: usize, mut done: impl FnMut(&mut Output)) {
    let mut output = Output::default();
    for keys in keys.chunks(batch) {
        for number in keys {
            let request = Request::Set { key: &key(*number), value: &VALUE };
            shard.handle(Time::START, Input::Request(Token(0), request), &mut output);
        }
        done(&mut output);
        output.clear();
    }
}

/// Sets the keys in this order, again and again if they are few, for the first time or not.
fn local(peers: u64, order: &[usize], again: bool, clock: &mut Clock) -> usize {
    let mut shard = shard(1);
    for peer in 0..peers {
        up(&mut shard, peer + 2, &mut Output::default());
    }
    let carry_out = |output: &mut Output| {
        for send in &output.send {
            black_box(codec::encode(&send.envelope));
        }
    };
    if again {
        set(&mut shard, order, BATCH, |_| ());
    }
    // Another order, so that what is replaced lies everywhere.
    let order: Vec<usize> = order.iter().rev().map(|number| order.len() - 1 - number).collect();
    let passes = KEYS / order.len();
    clock.count(|| (0..passes).for_each(|_| set(&mut shard, &order, BATCH, carry_out)));
    black_box(shard);
    order.len() * passes
}

/// The frames of two passes of pushes over all keys.
fn pushes(order: &[usize], batch: usize) -> Vec<Vec<u8>> {
    let mut writer = shard(2);
    up(&mut writer, 1, &mut Output::default());
    let mut frames = Vec::new();
    for _ in 0..2 {
        set(&mut writer, order, batch, |output| {
            frames.extend(output.send.iter().map(|send| codec::encode(&send.envelope)));
        });
    }
    frames
}

/// Applies pushes that overwrite what others brought.
fn remote(frames: &[Vec<u8>], clock: &mut Clock) -> usize {
    let mut shard = shard(1);
    let mut output = Output::default();
    let mut apply = |frames: &[Vec<u8>]| {
        for frame in frames {
            let envelope = codec::decode(frame).expect("a message");
            shard.handle(Time::START, Input::Message(NodeId(2), envelope), &mut output);
            output.clear();
        }
    };
    let (first, second) = frames.split_at(frames.len() / 2);
    apply(first);
    clock.count(|| apply(second));
    KEYS
}

fn decode(frames: &[Vec<u8>], clock: &mut Clock) -> usize {
    clock.count(|| frames.iter().for_each(|frame| drop(black_box(codec::decode(frame)))));
    2 * KEYS
}

fn encode(frames: &[Vec<u8>], clock: &mut Clock) -> usize {
    let envelopes: Vec<_> = frames.iter().flat_map(|frame| codec::decode(frame)).collect();
    clock.count(|| envelopes.iter().for_each(|one| drop(black_box(codec::encode(one)))));
    2 * KEYS
}

/// Bytes of memory in use, or 0 where that is not told.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|word| word.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn memory() {
    let keys: Vec<usize> = (0..MILLION).collect();
    let before = resident();
    let mut shard = shard(1);
    set(&mut shard, &keys, BATCH, |_| ());
    let per_key = |after: usize| (after - before) / MILLION - 116;
    println!("memory beyond key and value, 1,000,000 keys of 16 + 100 bytes");
    println!("  written once{:>43} bytes a key", per_key(resident()));
    for seed in 0..3 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let keys: Vec<usize> = (0..MILLION).map(|_| rng.usize(..MILLION)).collect();
        set(&mut shard, &keys, BATCH, |_| ());
    }
    println!("  3,000,000 overwritten{:>34} bytes a key", per_key(resident()));
    println!();
}

/// Two peers; what one sends the other, with the bytes.
struct Pair {
    now: Time,
    shards: [Shard; 2],
    messages: Vec<(&'static str, usize)>,
}

impl Pair {
    /// Carries everything there and back until both are quiet.
    fn exchange(&mut self, at: usize, mut output: Output) {
        let mut waiting = vec![(at, std::mem::take(&mut output.send))];
        while let Some((from, sends)) = waiting.pop() {
            for send in sends {
                let frame = codec::encode(&send.envelope);
                self.messages.push((send.envelope.message.kind(), frame.len()));
                let mut output = Output::default();
                let envelope = codec::decode(&frame).expect("a message");
                let peer = NodeId(from as u128 + 1);
                self.shards[1 - from].handle(self.now, Input::Message(peer, envelope), &mut output);
                waiting.push((1 - from, output.send));
            }
        }
    }

    fn agree(&self) -> bool {
        self.shards[0].summary() == self.shards[1].summary()
    }
}

fn million() {
    let mut pair = Pair { now: Time::START, shards: [shard(1), shard(2)], messages: Vec::new() };
    set(&mut pair.shards[1], &shuffled(MILLION), BATCH, |_| ());
    let mut output = Output::default();
    up(&mut pair.shards[0], 2, &mut output);
    let mut clock = Clock { spent: Duration::ZERO };
    clock.count(|| pair.exchange(0, output));
    assert!(pair.agree(), "the empty node is filled");
    let seconds = clock.spent.as_secs_f64();
    let bytes: usize = pair.messages.iter().map(|(_, bytes)| bytes).sum();
    println!("an empty node is filled with 1,000,000 keys");
    println!("  {seconds:.2} s on one core, both sides: {:.0} ns a key", seconds * 1e3);
    println!("  {} messages, {} bytes a key", pair.messages.len(), bytes / MILLION);

    pair.messages.clear();
    let request = Request::Set { key: b"key:missing_here", value: &VALUE };
    let input = Input::Request(Token(0), request);
    pair.shards[1].handle(pair.now, input, &mut Output::default());
    pair.now = pair.now + Duration::from_secs(10);
    let mut output = Output::default();
    pair.shards[0].handle(pair.now, Input::Wake(WallTime(0)), &mut output);
    let started = Instant::now();
    pair.exchange(0, output);
    let took = started.elapsed();
    assert!(pair.agree(), "the missing key has come");
    let bytes: usize = pair.messages.iter().map(|(_, bytes)| bytes).sum();
    println!("one missing key among 1,000,000");
    println!("  {} bytes beyond key and value, {took:?}: {:?}", bytes - 116, pair.messages);
    println!();
}
