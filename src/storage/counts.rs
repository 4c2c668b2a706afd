//! What the journal counts, for metrics and for people.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// What has happened since the journal was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Syncs of segments.
    pub syncs: u64,
    /// Bytes handed to the operating system.
    pub bytes_written: u64,
    /// Records written.
    pub records_written: u64,
    /// Records discarded because the journal was full, failed or closed.
    pub records_discarded: u64,
    /// How long the last sync took.
    pub sync_last: Duration,
    /// How long the longest sync took.
    pub sync_longest: Duration,
    /// Segments on disk, the one made ahead not counted.
    pub segments: u64,
}

/// Counters behind [`JournalCounts`], and the lengths of files.
#[derive(Debug, Default)]
pub(super) struct Counters {
    syncs: AtomicU64,
    bytes_written: AtomicU64,
    records_written: AtomicU64,
    records_discarded: AtomicU64,
    sync_last_ns: AtomicU64,
    sync_longest_ns: AtomicU64,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    segments: BTreeMap<u64, u64>,
    snapshots: BTreeMap<u64, u64>,
}

impl Counters {
    pub(super) fn new(segments: BTreeMap<u64, u64>, snapshots: BTreeMap<u64, u64>) -> Self {
        Self { files: Mutex::new(Files { segments, snapshots }), ..Self::default() }
    }

    pub(super) fn written(&self, records: u64, bytes: usize) {
        self.records_written.fetch_add(records, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn synced(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.sync_last_ns.store(nanoseconds, Ordering::Relaxed);
        self.sync_longest_ns.fetch_max(nanoseconds, Ordering::Relaxed);
    }

    pub(super) fn discard(&self, records: u64) {
        self.records_discarded.fetch_add(records, Ordering::Relaxed);
    }

    /// A segment has this length now.
    pub(super) fn segment(&self, number: u64, bytes: usize) {
        self.files.lock().segments.insert(number, bytes as u64);
    }

    /// A segment is gone.
    pub(super) fn removed(&self, number: u64) {
        self.files.lock().segments.remove(&number);
    }

    /// A snapshot has taken the place of all others.
    pub(super) fn snapshot(&self, number: u64, bytes: u64) {
        self.files.lock().snapshots = BTreeMap::from([(number, bytes)]);
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        let files = self.files.lock();
        files.segments.values().chain(files.snapshots.values()).sum()
    }

    pub(super) fn counts(&self) -> JournalCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalCounts {
            syncs: read(&self.syncs),
            bytes_written: read(&self.bytes_written),
            records_written: read(&self.records_written),
            records_discarded: read(&self.records_discarded),
            sync_last: Duration::from_nanos(read(&self.sync_last_ns)),
            sync_longest: Duration::from_nanos(read(&self.sync_longest_ns)),
            segments: self.files.lock().segments.len() as u64,
        }
    }
}
