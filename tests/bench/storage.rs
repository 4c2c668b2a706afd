//! What durability costs by itself: durable records per second, and reading them back.
//!
//! `cargo bench --bench storage` prints, for 1, 16 and 256 writers of records of 100 bytes, how many
//! became durable per second and how long one had to wait; then how long a fresh directory takes to be
//! ready and a million records to be read back. The folder is made in `TMPDIR`: name one on the disk
//! that is meant, and not one in memory. For people; nothing passes or fails by it.
//!
//! A writer appends a record, waits until it is durable, and begins anew. All of them are tasks of one
//! thread, as clients are of a node, or each has a thread of its own.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task;
use futures_lite::future::block_on;
use parking_lot::Mutex;
use quorumor::storage::{Directory, Journal, JournalOptions, Sync};

/// How often each measurement is repeated; the median is printed, with the least and the most.
const RUNS: usize = 5;
/// How long each run takes.
const RUN: Duration = Duration::from_secs(2);
/// Records that are read back.
const MILLION: usize = 1_000_000;

const RECORD: [u8; 100] = [b'r'; 100];

fn main() {
    let executor = async_global_executor::GlobalExecutorConfig::default();
    // As a node does.
    async_global_executor::init_with_config(executor.with_min_threads(1).with_max_threads(1));
    println!(
        "{:34}{:>10}{:>10}{:>10}{:>9}{:>9}",
        "", "records/s", "least", "most", "p50 ms", "p99 ms"
    );
    let interval = Sync::Interval(Duration::from_secs(1));
    for writers in [1, 16, 256] {
        print(&format!("always, {writers} writers as tasks"), || {
            appended(Sync::Always, writers, tasks)
        });
        print(&format!("always, {writers} writers as threads"), || {
            appended(Sync::Always, writers, threads)
        });
    }
    println!();
    ready();
    streamed("always", Sync::Always);
    streamed("interval", interval);
    recovered();
}

fn open(directory: &Directory, sync: Sync) -> Journal {
    let options = JournalOptions::new(sync);
    Journal::open(directory, options, &mut |_| Ok(()), &mut |_| {}).expect("a folder on a disk").0
}

fn folder() -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let directory = Directory::open(folder.path()).expect("an empty folder");
    (folder, directory)
}

/// One run: how long each record waited.
fn appended(
    sync: Sync,
    writers: usize,
    run: fn(&Journal, usize) -> Vec<Duration>,
) -> Vec<Duration> {
    let (_folder, directory) = folder();
    let journal = open(&directory, sync);
    let mut waits = run(&journal, writers);
    waits.sort_unstable();
    waits
}

fn tasks(journal: &Journal, writers: usize) -> Vec<Duration> {
    let waits = Arc::new(Mutex::new(Vec::new()));
    let end = Instant::now() + RUN;
    let writer = || {
        let (journal, waits) = (journal.clone(), Arc::clone(&waits));
        async move {
            while Instant::now() < end {
                let began = Instant::now();
                journal.synced(journal.append(&RECORD)).await.expect("the disk has room");
                waits.lock().push(began.elapsed());
            }
        }
    };
    task::block_on(async {
        let writers: Vec<_> = (0..writers).map(|_| task::spawn(writer())).collect();
        for writer in writers {
            writer.await;
        }
    });
    std::mem::take(&mut waits.lock())
}

fn threads(journal: &Journal, writers: usize) -> Vec<Duration> {
    let end = Instant::now() + RUN;
    std::thread::scope(|scope| {
        let writer = || {
            let mut waits = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                block_on(journal.synced(journal.append(&RECORD))).expect("the disk has room");
                waits.push(began.elapsed());
            }
            waits
        };
        let writers: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
        writers.into_iter().flat_map(|it| it.join().expect("a writer does not panic")).collect()
    })
}

fn print(name: &str, mut run: impl FnMut() -> Vec<Duration>) {
    let mut runs: Vec<Vec<Duration>> = (0..RUNS).map(|_| run()).collect();
    runs.sort_by_key(Vec::len);
    let rate = |run: &[Duration]| run.len() as f64 / RUN.as_secs_f64();
    let (least, median, most) = (&runs[0], &runs[RUNS / 2], &runs[RUNS - 1]);
    let at = |part: f64| median[(median.len() as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{name:34}{:10.0}{:10.0}{:10.0}{:9.2}{:9.2}",
        rate(median),
        rate(least),
        rate(most),
        at(0.5),
        at(0.99)
    );
}

/// From a path to a journal that takes records.
fn ready() {
    let mut times: Vec<f64> = (0..RUNS * 4)
        .map(|_| {
            let began = Instant::now();
            let (_folder, directory) = folder();
            let _journal = open(&directory, Sync::Always);
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "a fresh directory is ready after {:.1} ms ({:.1} to {:.1})",
        times[times.len() / 2],
        times[0],
        times[times.len() - 1]
    );
}

/// A million records, as fast as they can be appended.
fn streamed(name: &str, sync: Sync) {
    let (_folder, directory) = folder();
    let journal = open(&directory, sync);
    let began = Instant::now();
    for _ in 0..MILLION {
        journal.append(&RECORD);
    }
    let appended = began.elapsed();
    journal.close();
    let closed = began.elapsed();
    let counts = journal.counts();
    println!(
        "{name}: 1 M records appended in {:.2} s, durable after {:.2} s, {} syncs, the longest {:.1} ms",
        appended.as_secs_f64(),
        closed.as_secs_f64(),
        counts.syncs,
        counts.sync_longest.as_secs_f64() * 1e3
    );
}

/// A million records in the journal, and then in a snapshot, read back.
fn recovered() {
    let (_folder, directory) = folder();
    let journal = open(&directory, Sync::Always);
    for _ in 0..MILLION {
        journal.append(&RECORD);
    }
    journal.close();
    drop(journal);
    let journal = read_back("journal", &directory);
    let began = Instant::now();
    let mut snapshot = journal.begin_snapshot().expect("the disk has room");
    for _ in 0..MILLION {
        snapshot.write(&RECORD).expect("the disk has room");
    }
    snapshot.finish().expect("the disk has room");
    println!("1 M records written as a snapshot in {:.2} s", began.elapsed().as_secs_f64());
    journal.close();
    drop(journal);
    read_back("snapshot", &directory);
}

fn read_back(name: &str, directory: &Directory) -> Journal {
    let (mut records, mut bytes) = (0_usize, 0_usize);
    let mut visit = |frame: quorumor::storage::RecoveredFrame<'_>| {
        records += 1;
        bytes += frame.bytes.len();
        Ok(())
    };
    let began = Instant::now();
    let options = JournalOptions::new(Sync::Always);
    let opened = Journal::open(directory, options, &mut visit, &mut |_| {});
    let (journal, recovery) = opened.expect("it was closed in order");
    let took = began.elapsed();
    assert_eq!((records, bytes), (MILLION, MILLION * RECORD.len()));
    println!(
        "1 M records read back from the {name} in {:.3} s ({} MB)",
        took.as_secs_f64(),
        recovery.bytes >> 20
    );
    journal
}
