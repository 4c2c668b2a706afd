//! The journal: records go in at the end, and when they are durable everybody who waits is told.
//!
//! [`Journal::append`] copies a record into a buffer under a short lock. One thread, the syncing
//! thread of `writer`, takes what has gathered, writes it and syncs it, while the next batch gathers:
//! one sync serves all who wait. Nobody else writes.
//!
//! # The states
//!
//! ```text
//!            no room for the next segment            room again
//!   Open ──────────────────────────────────▶ Full ───────────────▶ CatchingUp
//!    ▲                                        ▲                       │   │
//!    │                                        └───────────────────────┘   │
//!    │                                           no room again            │
//!    └────────────────────────────────────────────────────────────────────┘
//!                  a snapshot begun after that has been finished
//!
//!   any of these ──▶ Failed   a write or a sync failed: for good
//!   any of these ──▶ Closed   by the last handle or Journal::close
//! ```
//!
//! In `Full`, `Failed` and `Closed` appended records are discarded and counted. What follows a
//! discarded record is of no use at recovery, so in `CatchingUp` records are written, but none counts
//! as durable before a snapshot has covered them; then all do, those discarded included, since the
//! state that was written shows them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crc32c::crc32c;
use event_listener::{Event, Listener};
use parking_lot::{Condvar, Mutex};

use super::counts::{Counters, JournalCounts};
use super::directory::Directory;
use super::error::{Rejected, Stopped, StorageError};
use super::frame::{self, FRAME_HEADER_BYTES, Kind, PAYLOAD_BYTES_MAX};
use super::recovery::{self, Progress, RecoveredFrame, Recovery};
use super::writer;

/// How long segments are: a second of hard work each, little to read as a whole.
pub const SEGMENT_BYTES: usize = 8 << 20;
/// When this much waits to be written, callers should let their clients wait: a slow disk must not
/// fill the memory. What one caller has in hand may go beyond it.
pub const PENDING_BYTES_CROWDED: usize = 64 << 20;
/// Records up to this length share a buffer; a longer one is copied outside the lock into its own.
const SHARED_RECORD_BYTES_MAX: usize = 64 << 10;
/// A shared buffer takes more records up to this length.
const CHUNK_BYTES: usize = 1 << 20;
/// In [`Sync::Interval`], this much is written without gathering any longer.
pub(super) const HANDOVER_BYTES: usize = 1 << 20;

/// A place in the sequence of all appended records: how many there were, this one included. Starts
/// anew with every [`Journal::open`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// When appended records are made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// As soon as the disk has finished the sync before.
    Always,
    /// Every so often. Until then they are with the operating system, within some ten milliseconds:
    /// they outlive the process but not the power.
    Interval(Duration),
}

/// What is told after every sync.
pub type OnDurable = Box<dyn Fn(Position) + Send>;

/// How a journal is to work.
pub struct JournalOptions {
    /// When records are made durable.
    pub sync: Sync,
    /// How long segments are; one that a longer record needs is longer. [`SEGMENT_BYTES`] but for
    /// tests.
    pub segment_bytes: usize,
    /// Read whatever can be read, and pass over the rest. The journal is in [`State::CatchingUp`]
    /// then, and its old files stay until a snapshot has been finished; then they are moved to a
    /// folder `damaged-<n>`.
    pub salvage: bool,
    /// Called by the syncing thread with what [`Journal::durable`] has become. It must be short and
    /// must not wait for the journal. A handle in it keeps the journal open until
    /// [`Journal::close`].
    pub on_durable: OnDurable,
}

impl JournalOptions {
    /// A journal with this way of syncing, nobody to tell, and the usual rest.
    pub fn new(sync: Sync) -> Self {
        let on_durable = Box::new(|_| {});
        Self { sync, segment_bytes: SEGMENT_BYTES, salvage: false, on_durable }
    }
}

impl std::fmt::Debug for JournalOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JournalOptions({:?}, {} B)", self.sync, self.segment_bytes)
    }
}

/// What a journal can do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Records become durable.
    Open,
    /// There is no room: records are discarded. Room is looked for every second.
    Full {
        /// What the system says, and about which file.
        reason: String,
    },
    /// There is room again, or damage was salvaged: records are written, and will count as durable
    /// when a snapshot that is begun now has been finished.
    CatchingUp,
    /// A write or a sync has failed. Records are discarded, for ever.
    Failed {
        /// What the system says, and about which file.
        reason: String,
    },
    /// It was closed in order.
    Closed,
}

impl State {
    fn stopped(&self) -> Option<Stopped> {
        match self {
            Self::Open | Self::CatchingUp => None,
            Self::Full { reason } => Some(Stopped::Full { reason: reason.clone() }),
            Self::Failed { reason } => Some(Stopped::Failed { reason: reason.clone() }),
            Self::Closed => Some(Stopped::Closed),
        }
    }
}

/// The journal of a data directory. Clones are handles to the same; when the last one goes, it is
/// closed in order.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    /// Closes the journal with the last of the owners' handles; a snapshot's handle has none.
    guard: Option<Arc<Guard>>,
}

/// What handles and the syncing thread share.
pub(super) struct Shared {
    pub(super) directory: Directory,
    pub(super) queue: Mutex<Queue>,
    /// Wakes the syncing thread.
    pub(super) work: Condvar,
    /// Told when positions or the state have changed.
    pub(super) changed: Event,
    /// Told when the state may have changed: far less often than after every sync.
    pub(super) state_changed: Event,
    /// [`Journal::durable`].
    pub(super) durable: AtomicU64,
    /// Up to where records are on disk, be it after a gap.
    pub(super) written: AtomicU64,
    pub(super) counters: Counters,
}

/// What the syncing thread is asked to do, and what it says.
pub(super) struct Queue {
    /// Frames that wait, as [`frame::push`] leaves them.
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) bytes: usize,
    /// How many records were appended.
    pub(super) appended: u64,
    /// A buffer to use again.
    pub(super) spare: Vec<u8>,
    pub(super) waiting: Waiting,
    pub(super) state: State,
    /// How often records began to be discarded.
    pub(super) gaps: u64,
    pub(super) sync_now: bool,
    pub(super) stop: bool,
    /// A snapshot wants a new segment.
    pub(super) rotate: bool,
    /// The answer: the segment's number, and the gaps until then.
    pub(super) rotated: Option<Result<(u64, u64), Stopped>>,
    /// A snapshot was finished that was begun after so many gaps.
    pub(super) covered: Option<u64>,
    snapshot_running: bool,
    pub(super) salvaged: bool,
}

/// What the syncing thread is doing, as far as an append has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// It works, and will look again before it sleeps.
    No,
    /// It sleeps until there is something.
    ForAnything,
    /// It sleeps until there is much, or a moment has passed.
    ForMuch,
}

struct Guard {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Guard {
    fn close(&self) {
        self.shared.ask(|queue| queue.stop = true);
        let thread = self.thread.lock().take();
        // The last handle may go in the callback, in the syncing thread itself.
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // It has told why if it ended otherwise than in order.
            let _ = thread.join();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Tells everybody that the state has changed, or may have.
    pub(super) fn tell_state(&self) {
        self.changed.notify(usize::MAX);
        self.state_changed.notify(usize::MAX);
    }

    /// Changes what is asked of the syncing thread, and wakes it.
    fn ask<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let answer = change(&mut queue);
        queue.waiting = Waiting::No;
        drop(queue);
        self.work.notify_one();
        answer
    }
}

impl Journal {
    /// Opens the journal of a directory: reads it back, puts right what a crash has left, and goes
    /// on in a new segment. Blocks.
    ///
    /// `visit` is given the pieces of the newest snapshot and then the records, in order. On a full
    /// disk it opens in [`State::Full`].
    ///
    /// # Errors
    /// When something is damaged, missing, newer or foreign; when `visit` rejects a record; when
    /// the directory cannot be written. Nothing was changed then, but for a repeatable part of what
    /// is put right.
    pub fn open(
        directory: &Directory,
        options: JournalOptions,
        visit: &mut dyn FnMut(RecoveredFrame<'_>) -> Result<(), Rejected>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Self, Recovery), StorageError> {
        let claim = directory.claim_journal()?;
        let mut plan = recovery::read(directory, options.salvage, visit, progress)?;
        if !options.salvage {
            plan.apply(directory)?;
        }
        let shared = Arc::new(Shared {
            directory: directory.clone(),
            queue: Mutex::new(Queue::new(options.salvage)),
            work: Condvar::new(),
            changed: Event::new(),
            state_changed: Event::new(),
            durable: AtomicU64::new(0),
            written: AtomicU64::new(0),
            counters: Counters::new(
                std::mem::take(&mut plan.segments),
                std::mem::take(&mut plan.snapshots),
            ),
        });
        let thread = writer::start(Arc::clone(&shared), options, plan.next, claim)?;
        let guard = Guard { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok((Self { shared, guard: Some(Arc::new(guard)) }, plan.recovery))
    }

    /// Appends a record and says which place it has. Never waits for the disk.
    ///
    /// When the journal is full, failed or closed, the record is discarded: see
    /// [`state`](Self::state) and [`synced`](Self::synced).
    ///
    /// # Panics
    /// If the record is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn append(&self, record: &[u8]) -> Position {
        self.append_one(Cow::Borrowed(record), false)
    }

    /// As [`append`](Self::append), for a long record that need not be copied. With `sync_now`, it is
    /// made durable as soon as the disk has finished the sync before.
    ///
    /// # Panics
    /// If the record is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn append_owned(&self, record: Vec<u8>, sync_now: bool) -> Position {
        self.append_one(Cow::Owned(record), sync_now)
    }

    fn append_one(&self, record: Cow<'_, [u8]>, sync_now: bool) -> Position {
        let bytes = record.len();
        assert!(bytes <= PAYLOAD_BYTES_MAX, "a record of {bytes} bytes");
        let crc = crc32c(&record);
        let (shared, own) = match record {
            Cow::Owned(record) => (&[][..], Some(frame::enclose(record, Kind::Data, crc))),
            Cow::Borrowed(record) if bytes > SHARED_RECORD_BYTES_MAX => {
                let mut chunk = Vec::new();
                frame::push(&mut chunk, Kind::Data, record, crc);
                (record, Some(chunk))
            }
            Cow::Borrowed(record) => (record, None),
        };
        let mut queue = self.shared.queue.lock();
        queue.appended += 1;
        let position = Position(queue.appended);
        if queue.state.stopped().is_some() {
            self.shared.counters.discard(1);
            return position;
        }
        queue.bytes += FRAME_HEADER_BYTES + bytes;
        match own {
            Some(chunk) => queue.chunks.push(chunk),
            None => frame::push(queue.shared_chunk(), Kind::Data, shared, crc),
        }
        queue.sync_now |= sync_now;
        let wake = match queue.waiting {
            Waiting::No => false,
            Waiting::ForAnything => true,
            Waiting::ForMuch if sync_now => true,
            Waiting::ForMuch => queue.bytes >= HANDOVER_BYTES,
        };
        if wake {
            queue.waiting = Waiting::No;
            drop(queue);
            self.shared.work.notify_one();
        }
        position
    }

    /// Appends records in a row; as [`append`](Self::append), but at one go. With `sync_now`, they are
    /// made durable as soon as the disk has finished the sync before.
    ///
    /// # Panics
    /// If a record is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn append_all<'a>(
        &self,
        records: impl Iterator<Item = &'a [u8]>,
        sync_now: bool,
    ) -> Position {
        let mut position = Position::default();
        let mut records = records.peekable();
        while let Some(record) = records.next() {
            position = self.append_one(Cow::Borrowed(record), sync_now && records.peek().is_none());
        }
        position
    }

    /// The place of the last appended record.
    pub fn appended(&self) -> Position {
        Position(self.shared.queue.lock().appended)
    }

    /// Up to where records are durable.
    pub fn durable(&self) -> Position {
        Position(self.shared.durable.load(Ordering::Acquire))
    }

    /// Waits until a record is durable.
    ///
    /// # Errors
    /// When it is not and the journal is full, failed or closed, or becomes so.
    pub async fn synced(&self, position: Position) -> Result<(), Stopped> {
        loop {
            let changed = self.shared.changed.listen();
            if let Some(result) = self.is_synced(position) {
                return result;
            }
            changed.await;
        }
    }

    /// Whether a record is durable, or will not be; `None` while it may become so.
    pub fn is_synced(&self, position: Position) -> Option<Result<(), Stopped>> {
        if self.durable() >= position {
            return Some(Ok(()));
        }
        let queue = self.shared.queue.lock();
        // Looked at again: what has become durable before it stopped is durable.
        if self.durable() >= position { Some(Ok(())) } else { queue.state.stopped().map(Err) }
    }

    /// Makes durable now what was appended so far, whatever the interval. Does not wait.
    pub fn sync_now(&self) {
        self.shared.ask(|queue| queue.sync_now = true);
    }

    /// What the journal can do now.
    pub fn state(&self) -> State {
        self.shared.queue.lock().state.clone()
    }

    /// Whether records become durable: it is neither full, nor catching up, nor at its end.
    pub fn is_open(&self) -> bool {
        self.shared.queue.lock().state == State::Open
    }

    /// Waits until the state is another one than was seen, and returns it.
    pub async fn state_changed(&self, seen: &State) -> State {
        loop {
            let changed = self.shared.state_changed.listen();
            let state = self.state();
            if state != *seen {
                return state;
            }
            changed.await;
        }
    }

    /// How many bytes wait to be written.
    pub fn pending_bytes(&self) -> usize {
        self.shared.queue.lock().bytes
    }

    /// Whether so much waits that callers should let their clients wait.
    pub fn is_crowded(&self) -> bool {
        self.pending_bytes() >= PENDING_BYTES_CROWDED
    }

    /// The bytes that segments and snapshots take on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.shared.counters.disk_bytes()
    }

    /// What has happened so far.
    pub fn counts(&self) -> JournalCounts {
        self.shared.counters.counts()
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Directory {
        &self.shared.directory
    }

    /// Makes durable what was appended, and ends the journal in order. Blocks. Records appended
    /// later are discarded.
    pub fn close(&self) {
        if let Some(guard) = &self.guard {
            guard.close();
        }
    }
}

/// What snapshots need.
impl Journal {
    /// A handle that does not keep the journal open when all others are gone.
    pub fn unguarded(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), guard: None }
    }

    pub(super) fn snapshot_begun(&self) -> Result<(), StorageError> {
        let mut queue = self.shared.queue.lock();
        if std::mem::replace(&mut queue.snapshot_running, true) {
            return Err(StorageError::SnapshotRunning);
        }
        Ok(())
    }

    pub(super) fn snapshot_ended(&self) {
        self.shared.queue.lock().snapshot_running = false;
    }

    /// Goes over to a new segment. Only one caller at a time: that of the snapshot that runs.
    pub(super) fn rotate(&self) -> Result<(u64, u64), Stopped> {
        self.shared.ask(|queue| {
            queue.rotated = None;
            queue.rotate = true;
        });
        self.wait_for(|queue| {
            let stopped = matches!(queue.state, State::Failed { .. } | State::Closed);
            let stopped = if stopped { queue.state.stopped() } else { None };
            queue.rotated.take().or(stopped.map(Err))
        })
    }

    /// Waits until records are on disk, be it after a gap. Returns how many gaps there are then.
    pub(super) fn wait_until_written(&self, position: Position) -> Result<u64, Stopped> {
        self.wait_for(|queue| {
            if self.shared.written.load(Ordering::Acquire) >= position.0 {
                return Some(Ok(queue.gaps));
            }
            queue.state.stopped().map(Err)
        })
    }

    /// Tells that a snapshot, begun after so many gaps, is durable; waits until that has its effect.
    pub(super) fn reopen(&self, gaps: u64) {
        self.shared.ask(|queue| queue.covered = Some(gaps));
        self.wait_for(|queue| {
            let over = queue.covered.is_none() || queue.state.stopped().is_some();
            over.then_some(())
        });
    }

    fn wait_for<T>(&self, mut ready: impl FnMut(&mut Queue) -> Option<T>) -> T {
        loop {
            let changed = self.shared.changed.listen();
            if let Some(found) = ready(&mut self.shared.queue.lock()) {
                return found;
            }
            changed.wait();
        }
    }

    pub(super) fn is_salvaged(&self) -> bool {
        self.shared.queue.lock().salvaged
    }

    pub(super) fn forget_salvage(&self) {
        self.shared.queue.lock().salvaged = false;
    }

    pub(super) fn write_opened(&self, number: u64) -> Result<(), StorageError> {
        recovery::write_opened(self.directory(), number)
    }

    pub(super) fn note_snapshot(&self, number: u64, bytes: u64) {
        self.shared.counters.snapshot(number, bytes);
    }

    pub(super) fn note_removed(&self, segment: u64) {
        self.shared.counters.removed(segment);
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({}, {:?})", self.directory().path().display(), self.state())
    }
}

impl Queue {
    fn new(salvaged: bool) -> Self {
        Self {
            chunks: Vec::new(),
            bytes: 0,
            appended: 0,
            spare: Vec::new(),
            waiting: Waiting::No,
            state: State::Open,
            gaps: 0,
            sync_now: false,
            stop: false,
            rotate: false,
            rotated: None,
            covered: None,
            snapshot_running: false,
            salvaged,
        }
    }

    /// The chunk to which short records are added.
    fn shared_chunk(&mut self) -> &mut Vec<u8> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            let chunk = std::mem::take(&mut self.spare);
            self.chunks.push(chunk);
        }
        self.chunks.last_mut().expect("one was added if there was none")
    }
}
