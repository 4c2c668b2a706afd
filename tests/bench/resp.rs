//! What decoding and answering one Redis request costs, apart from the store.
//!
//! `cargo bench --bench resp` prints nanoseconds per request: the median of several runs with the
//! fastest and the slowest. Each run decodes 64 KiB of pipelined requests again and again, the way a
//! connection meets them. For people; nothing passes or fails by it.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use quorumor::api::resp::buffers::Buffers;
use quorumor::api::resp::parse::{BULK_BYTES_MAX, Requests, Trust};
use quorumor::api::resp::reply::{Protocol, Replies};

/// How often each measurement is repeated, and for how long.
const RUNS: usize = 9;
const RUN: Duration = Duration::from_millis(150);

fn main() {
    let value = "v".repeat(100);
    let set = |n: usize| request(&["SET", &format!("key:{n:012}"), &value]);
    let get = |n: usize| request(&["GET", &format!("key:{n:012}")]);
    let mset = |n: usize| {
        let key = format!("key:{n:012}");
        let mut words = vec!["MSET"];
        (0..10).for_each(|_| words.extend([key.as_str(), "value"]));
        request(&words)
    };
    let inline = |n: usize| format!("SET key:{n:012} \"a short value\"\r\n").into_bytes();
    report("decode SET, 16-byte key, 100-byte value", || decode(&pipeline(set)));
    report("decode GET, 16-byte key", || decode(&pipeline(get)));
    report("decode MSET of ten pairs", || decode(&pipeline(mset)));
    report("decode an inline SET", || decode(&pipeline(inline)));
    report("write a 100-byte value", || reply(|replies| replies.bulk(black_box(&value))));
    report("write OK", || reply(Replies::ok));
    report("write an integer", || reply(|replies| replies.integer(black_box(1_234_567))));
}

/// One request as a client library encodes it.
fn request(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
    }
    bytes
}

/// As many requests as one read brings, and how many that is.
fn pipeline(one: impl Fn(usize) -> Vec<u8>) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let mut count = 0;
    while bytes.len() + one(count).len() <= 64 * 1024 {
        bytes.extend(one(count));
        count += 1;
    }
    (bytes, count as u32)
}

/// Nanoseconds per request of decoding `bytes`, the copy into the buffer not counted.
fn decode((bytes, expected): &(Vec<u8>, u32)) -> f64 {
    let pool = Buffers::new();
    let mut requests = Requests::new(BULK_BYTES_MAX);
    let mut spent = Duration::ZERO;
    let mut decoded = 0_u32;
    while spent < RUN {
        requests.space(&pool).expect("nobody else holds any")[..bytes.len()].copy_from_slice(bytes);
        requests.filled(bytes.len());
        let started = Instant::now();
        let mut count = 0;
        while let Ok(Some(arguments)) = requests.next(Trust::Authenticated) {
            black_box(arguments.at(arguments.len() - 1));
            count += 1;
        }
        spent += started.elapsed();
        assert_eq!(count, *expected, "every request is decoded");
        decoded += count;
        requests.rest(&pool);
    }
    spent.as_nanos() as f64 / f64::from(decoded)
}

/// Nanoseconds per reply that `write` writes, in batches of 512 into one buffer.
fn reply(write: impl Fn(&mut Replies)) -> f64 {
    let mut replies = Replies::new(Vec::new(), Protocol::Resp3);
    let started = Instant::now();
    let mut written = 0_u32;
    while started.elapsed() < RUN {
        replies.clear();
        (0..512).for_each(|_| write(&mut replies));
        written += 512;
        black_box(replies.as_bytes());
    }
    started.elapsed().as_nanos() as f64 / f64::from(written)
}

/// Prints the median, the fastest and the slowest of several runs.
fn report(what: &str, run: impl Fn() -> f64) {
    let mut figures: Vec<f64> = (0..RUNS).map(|_| run()).collect();
    figures.sort_by(f64::total_cmp);
    let [fastest, median, slowest] = [figures[0], figures[RUNS / 2], figures[RUNS - 1]];
    println!("{what:<42} {median:>7.1} ns  ({fastest:.1} to {slowest:.1}, {RUNS} runs)");
}
