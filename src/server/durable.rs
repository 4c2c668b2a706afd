//! What a node makes durable, what waits for that, and what it refuses while it cannot.
//!
//! A shard's records go to the journal before anything else of its output is done. With
//! [`Durability::Always`] clients are answered when the journal has synced so far: the answer waits,
//! not the connection's reader, and also the answer to a request that had been held for a while. What peers have written is synced within the interval in any case:
//! nobody waits for it here. Messages do not wait: what a peer gets to know of a write that is then
//! lost here comes back from that peer, as the next life of this node is another origin.
//!
//! # When the journal takes nothing
//! On a full disk, and after a failed write or sync, clients' writes are refused with the reason;
//! reads and gossip go on, in memory. When there is room again a snapshot is written, and then writes
//! are taken again. A failed sync is never tried again: that lasts until a restart.
//!
//! # Snapshots
//! When the journal since the last snapshot is longer than the state (than half of it where nobody
//! writes), or has reached a bound, the state is streamed to a new one in slices, each copied under the
//! shard's lock for less than a millisecond, unless a single value is longer than a slice. What is there
//! of the log's own records is shared, not copied.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_io::Timer;
use event_listener::Event;
use futures_lite::future;
use parking_lot::Mutex;

use super::node::{Inner, Node, StartError};
use crate::net::NodeIdentity;
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::config::{Config, Durability};
use crate::protocol::id::Origin;
use crate::protocol::record::{Append, PIECE_BYTES_MAX};
use crate::protocol::recovery::Recovery;
use crate::protocol::roster::State as MemberState;
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Dot;
use crate::protocol::store::Cursor;
use crate::storage::{
    Directory, Journal, JournalOptions, PAYLOAD_BYTES_MAX, Position, RecoveredFrame, Rejected,
    State, Stopped, StorageError, Sync,
};

const _: () = assert!(PIECE_BYTES_MAX <= PAYLOAD_BYTES_MAX, "the journal takes every piece");

/// The small file with the key that gives a node its id.
pub(super) const IDENTITY_BLOB: &str = "identity";

/// How long the journal may become before the state is written anew, however large the state is:
/// what a start reads in half a second.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// A journal shorter than this is not worth a snapshot: a few segments, prepared ones included.
const JOURNAL_BYTES_MIN: u64 = 40 << 20;

/// With no more records than this between two looks nobody writes: there are only the notes of the
/// node itself.
const QUIET_RECORDS_MAX: u64 = 32;

/// How often it is considered whether a snapshot is due.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// The bytes of cells that are copied out of the shard at a time: under a millisecond.
const SLICE_BYTES: usize = 256 * 1024;

/// Records of an output that are longer than this are handed to the journal instead of copied there.
const LARGE_RECORDS_BYTES: usize = 1 << 20;

/// About what a cell takes on disk beside its key and value.
const CELL_BYTES_EXTRA: u64 = 24;

/// How often the progress of a long recovery is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Where and how a node keeps what it holds.
#[derive(Clone, Debug)]
pub struct StorageConfig {
    /// The data directory; made if it is not there.
    pub directory: PathBuf,
    /// When writes become durable; [`Durability::None`] is for nodes without a directory.
    pub durability: Durability,
    /// How long between two syncs with [`Durability::Interval`].
    pub sync_interval: Duration,
    /// Whether to start in spite of damage, with whatever can be read; the rest comes from peers.
    pub salvage: bool,
}

impl StorageConfig {
    /// A directory with the default durability.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            durability: Durability::Interval,
            sync_interval: Duration::from_secs(1),
            salvage: false,
        }
    }
}

/// The durable side of a node.
pub(super) struct Durable {
    journal: Journal,
    durability: Durability,
    sync_interval: Duration,
    tells: Mutex<Tells>,
    /// Answers that the shard has given, and that wait for the disk, in the order of their places.
    answers: Mutex<VecDeque<(Position, Token, Reply)>>,
    /// Who waits for which place in the journal; one entry per batch of a client's requests.
    waiting: Mutex<BTreeMap<Position, Vec<Waker>>>,
    /// Told by the syncing thread after every sync.
    synced: Event,
    /// The node, once it runs; told by the syncing thread.
    node: Arc<OnceLock<Weak<Inner>>>,
    recovered: Recovered,
    snapshotting: AtomicBool,
    /// Who is told after every sync, and when the state changes.
    told: Mutex<Vec<Weak<Journaled>>>,
}

/// Told after every sync, and when the journal stops or goes on, for as long as it is kept.
pub struct Journaled(Box<dyn Fn() + Send + std::marker::Sync>);

impl fmt::Debug for Journaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journaled")
    }
}

/// What a start found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recovered {
    pub(super) cells: usize,
    pub(super) took: Duration,
}

/// What the shard wants to be told of.
#[derive(Debug, Default)]
struct Tells {
    /// The last that was appended.
    last: Position,
    waiting: VecDeque<(Position, u64)>,
}

/// A node's shard and identity as its directory has them.
pub(super) struct Risen {
    pub(super) durable: Durable,
    pub(super) identity: NodeIdentity,
    pub(super) shard: Shard,
}

/// Opens a data directory and makes a shard of it. Blocks.
///
/// `identity` is for a directory that has none; `config` makes a shard's configuration of an id.
pub(super) fn rise(
    storage: &StorageConfig,
    identity: &NodeIdentity,
    config: impl FnOnce(&NodeIdentity) -> Result<Config, StartError>,
    dice: u32,
) -> Result<Risen, StartError> {
    let started = Instant::now();
    let directory = Directory::open(&storage.directory)?;
    let identity = match directory.read_blob(IDENTITY_BLOB)? {
        Some(seed) => {
            let seed = seed
                .try_into()
                .map_err(|_| StartError::Identity { path: directory.path().to_owned() })?;
            NodeIdentity::from_seed(seed)?
        }
        None => {
            directory.write_blob(IDENTITY_BLOB, identity.seed())?;
            identity.clone()
        }
    };
    let mut config = config(&identity)?;
    config.durability = storage.durability;
    let mut recovery = Recovery::new(config.hash_seed);
    let mut visit = |frame: RecoveredFrame<'_>| {
        recovery.apply(frame.bytes).map_err(|error| Rejected(error.to_string()))
    };
    let mut told = Instant::now();
    let mut progress = |progress: crate::storage::Progress| {
        if told.elapsed() >= PROGRESS_INTERVAL {
            told = Instant::now();
            let percent = progress.bytes_read * 100 / progress.bytes_total.max(1);
            log::info!("reading {}: {percent} %", storage.directory.display());
        }
    };
    let slot = Arc::new(OnceLock::<Weak<Inner>>::new());
    let released = Arc::clone(&slot);
    let options = JournalOptions {
        salvage: storage.salvage,
        on_durable: Box::new(move |position| {
            if let Some(inner) = released.get().and_then(Weak::upgrade) {
                inner.released(position);
            }
        }),
        ..JournalOptions::new(Sync::Interval(storage.sync_interval))
    };
    let (journal, found) = Journal::open(&directory, options, &mut visit, &mut progress)?;
    let cells = recovery.cells();
    if let Some(cut) = &found.cut {
        log::warn!(
            "{}: cut {} bytes from byte {} on, of a write that was under way in a crash",
            cut.path.display(),
            cut.bytes,
            cut.offset
        );
    }
    for skipped in &found.skipped {
        log::warn!("{} at byte {}: {}", skipped.path.display(), skipped.offset, skipped.what);
    }
    if let Some(folder) = &found.set_aside {
        log::warn!(
            "damaged snapshots were moved to {}: the older state was whole",
            folder.display()
        );
    }
    if !found.skipped.is_empty() {
        recovery.doubt();
    }
    let (shard, append) = recovery.into_shard(config, dice);
    let mut members = shard.members();
    if members.any(|(node, member)| node == identity.node_id() && member.state == MemberState::Left)
    {
        // To start it again is a wish as clear as the one to leave, and the later one. To refuse would
        // leave no way back from a `leave` that was a mistake but to give up the directory.
        log::warn!(
            "this node had left its cluster and has been started again: it is a member again as soon \
             as it meets another; to keep it out, end it and remove {}",
            storage.directory.display()
        );
    }
    drop(members);
    let mut position = Position::default();
    for piece in append.pieces() {
        position = journal.append(piece);
    }
    journal.sync_now();
    if journal.state() == State::Open {
        future::block_on(journal.synced(position))?;
    }
    let took = started.elapsed();
    let durable = Durable {
        journal,
        durability: storage.durability,
        sync_interval: storage.sync_interval,
        tells: Mutex::default(),
        answers: Mutex::default(),
        waiting: Mutex::default(),
        synced: Event::new(),
        node: slot,
        recovered: Recovered { cells, took },
        snapshotting: AtomicBool::new(false),
        told: Mutex::default(),
    };
    Ok(Risen { durable, identity, shard })
}

impl Durable {
    /// Tells the syncing thread whose journal it is.
    pub(super) fn attach(&self, node: Weak<Inner>) {
        // Once, at the start.
        let _ = self.node.set(node);
    }

    /// Appends an output's records; the place in the journal that the answers to clients wait for, if
    /// they do.
    pub(super) fn append(&self, append: &mut Append) -> Option<Position> {
        let mut waits = None;
        if !append.records.is_empty() || append.tell.is_some() {
            // Locked until all is appended, so that places are in the order of the shard's outputs.
            let mut tells = self.tells.lock();
            let waited_for = self.durability == Durability::Always && append.awaited;
            let at_once = waited_for || append.urgent;
            if let Some(records) = append.take_large(LARGE_RECORDS_BYTES) {
                tells.last = self.journal.append_owned(records, at_once);
            } else if !append.records.is_empty() {
                tells.last = self.journal.append_all(append.pieces(), at_once);
            } else if at_once {
                self.journal.sync_now();
            }
            let last = tells.last;
            if let Some(token) = append.tell {
                tells.waiting.push_back((last, token));
                let node = self.node.get().and_then(Weak::upgrade);
                if let Some(inner) = node.filter(|_| last <= self.journal.durable()) {
                    // No sync will come for it; and the shard is locked here.
                    async_std::task::spawn(async move { inner.released(last) });
                }
            }
            waits = waited_for.then_some(last);
        }
        append.reuse();
        waits
    }

    /// Waits until the journal is durable up to a place.
    ///
    /// Who waits is woken when its own place has come, and by a task on the executor: the syncing
    /// thread wakes one task per sync, whatever the number of clients.
    fn poll_synced(
        &self,
        position: Position,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Stopped>> {
        let is_synced = || match self.journal.durable() >= position {
            true => Some(Ok(())),
            false if self.is_open() => None,
            // It may have come so far before it stopped.
            false => self.journal.is_synced(position),
        };
        if let Some(result) = is_synced() {
            return Poll::Ready(result);
        }
        self.waiting.lock().entry(position).or_default().push(context.waker().clone());
        // Looked at again: what came in between has woken nobody.
        is_synced().map_or(Poll::Pending, Poll::Ready)
    }

    /// Ends the task that wakes clients, as there is no node any more.
    pub(super) fn let_go(&self) {
        self.synced.notify(usize::MAX);
    }

    /// Wakes those who wait for what is durable now; all of them if nothing will be any more.
    fn wake(&self) {
        let ready = {
            let mut waiting = self.waiting.lock();
            if self.is_open() {
                let rest = waiting.split_off(&Position(self.journal.durable().0 + 1));
                std::mem::replace(&mut *waiting, rest)
            } else {
                std::mem::take(&mut *waiting)
            }
        };
        ready.into_values().flatten().for_each(Waker::wake);
    }

    /// Whether clients' writes are taken.
    pub(super) fn is_open(&self) -> bool {
        self.journal.is_open()
    }

    /// Whether so much waits for the disk that clients and peers should wait as well.
    pub(super) fn is_crowded(&self) -> bool {
        self.journal.is_crowded()
    }

    /// What the journal can do now.
    pub(super) fn state(&self) -> State {
        self.journal.state()
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    pub(super) fn recovered(&self) -> Recovered {
        self.recovered
    }

    pub(super) fn sync_interval(&self) -> Duration {
        self.sync_interval
    }

    /// Tells all that wait that the journal can do something else now.
    fn changed(&self) {
        self.wake();
        self.tell();
    }

    /// Tells those who want to be told that the journal has changed.
    fn tell(&self) {
        self.told.lock().retain(|told| match told.upgrade() {
            Some(told) => {
                (told.0)();
                true
            }
            None => false,
        });
    }

    /// Whether the state should be written anew, now that the files have so many bytes.
    ///
    /// Sooner where nothing is being written: it holds up nobody, and the next start has less to read.
    fn wants_snapshot(&self, disk_bytes: u64, live_bytes: u64, is_quiet: bool) -> bool {
        let journal = disk_bytes.saturating_sub(live_bytes);
        let most = if is_quiet { live_bytes / 2 } else { live_bytes };
        journal >= JOURNAL_BYTES_MIN && (journal >= most || journal >= JOURNAL_BYTES_MAX)
    }
}

impl Inner {
    /// Hands on the answers that the shard has given, to whoever waits for them: now, or when the
    /// journal is durable up to `waits`.
    pub(super) fn answer(&self, waits: Option<Position>, replies: &mut Vec<(Token, Reply)>) {
        let replies = replies.drain(..);
        let (Some(durable), Some(position)) = (&self.durable, waits) else {
            replies.for_each(|(token, reply)| self.asked.answer(token, reply));
            return;
        };
        if replies.len() > 0 {
            let replies = replies.map(|(token, reply)| (position, token, reply));
            durable.answers.lock().extend(replies);
            // It may have come so far meanwhile.
            self.answer_durable();
        }
    }

    /// Hands on the answers that need not wait any more.
    fn answer_durable(&self) {
        let Some(durable) = &self.durable else { return };
        loop {
            let mut answers = durable.answers.lock();
            let first = answers.front().map(|(position, ..)| *position);
            let Some(result) = first.and_then(|first| durable.journal.is_synced(first)) else {
                return;
            };
            let front = answers.pop_front();
            drop(answers);
            if let Some((_, token, reply)) = front {
                self.asked.answer(token, result.map_or(Reply::Unwritable, |()| reply));
            }
        }
    }

    /// The journal has come so far; called by its syncing thread.
    fn released(&self, position: Position) {
        let Some(durable) = &self.durable else { return };
        durable.tell();
        self.answer_durable();
        // Looked at after the place was made known: who comes later sees it.
        if !durable.waiting.lock().is_empty() {
            durable.synced.notify(1);
        }
        let ready: Vec<_> = {
            let mut tells = durable.tells.lock();
            let ready = tells.waiting.partition_point(|tell| tell.0 <= position);
            tells.waiting.drain(..ready).collect()
        };
        for (_, token) in ready {
            self.made_durable(token);
        }
    }
}

impl Node {
    /// Waits until everything that this node has written so far is durable; at once if it keeps
    /// nothing.
    ///
    /// # Errors
    /// When the journal cannot make it durable, now or ever; the error says why.
    pub async fn synced(&self) -> Result<(), Stopped> {
        let Some(durable) = &self.inner().durable else { return Ok(()) };
        durable.journal.sync_now();
        durable.journal.synced(durable.journal.appended()).await
    }

    /// Waits until a batch whose answers had to wait for that is durable; see
    /// [`super::Entered::finish`].
    ///
    /// # Errors
    /// As [`Node::synced`].
    pub async fn durable(&self, position: Position) -> Result<(), Stopped> {
        let Some(durable) = &self.inner().durable else { return Ok(()) };
        future::poll_fn(|context| durable.poll_synced(position, context)).await
    }

    /// Up to where this node's journal is durable; everything if it keeps nothing.
    pub fn durable_position(&self) -> Position {
        self.inner().durable.as_ref().map_or(Position(u64::MAX), |it| it.journal.durable())
    }

    /// Whether a place in the journal is durable, or will not be; `None` while it may become so.
    pub fn is_durable(&self, position: Position) -> Option<Result<(), Stopped>> {
        let Some(durable) = &self.inner().durable else { return Some(Ok(())) };
        durable.journal.is_synced(position)
    }

    /// Has `tell` called after every sync, and when the journal stops or goes on, for as long as the
    /// value is kept. It is called by the syncing thread, among others: it takes a note and returns.
    pub fn when_journaled(
        &self,
        tell: impl Fn() + Send + std::marker::Sync + 'static,
    ) -> Arc<Journaled> {
        let told = Arc::new(Journaled(Box::new(tell)));
        if let Some(durable) = &self.inner().durable {
            durable.told.lock().push(Arc::downgrade(&told));
        }
        told
    }

    /// Whether the disk is so far behind that clients' requests should wait.
    pub fn is_crowded(&self) -> bool {
        self.inner().durable.as_ref().is_some_and(|it| it.is_crowded() && it.is_open())
    }

    /// Waits while the disk is so far behind that more would only fill the memory.
    pub async fn uncrowded(&self) {
        let Some(durable) = &self.inner().durable else { return };
        while durable.is_crowded() && durable.is_open() {
            // Half of a crowd is gone by the time that its last is written.
            if durable.journal.synced(durable.journal.appended()).await.is_err() {
                return;
            }
        }
    }

    /// Why clients' writes are refused now, in words; `None` while they are taken.
    pub fn refuses_writes(&self) -> Option<String> {
        if self.inner().leaving.has_begun() {
            return Some("the node is leaving the cluster".to_owned());
        }
        if let Some(why) = self.inner().twin.met() {
            return Some(format!("the node gives way: {why}"));
        }
        let durable = self.inner().durable.as_ref()?;
        match durable.state() {
            State::Open => None,
            State::Full { reason } => Some(format!("no room in the data directory: {reason}")),
            State::CatchingUp => {
                Some("the data directory is being brought up to date, try again soon".to_owned())
            }
            State::Failed { reason } => {
                Some(format!("the data directory failed, restart the node: {reason}"))
            }
            State::Closed => Some("the node has been closed".to_owned()),
        }
    }
}

/// Wakes the clients whose writes have become durable.
pub(super) async fn keep_answering(node: Weak<Inner>) {
    loop {
        let listener = {
            let inner = node.upgrade();
            let Some(durable) = inner.as_ref().and_then(|inner| inner.durable.as_ref()) else {
                return;
            };
            let listener = durable.synced.listen();
            durable.wake();
            listener
        };
        listener.await;
    }
}

/// Follows what the journal can do, and tells it.
pub(super) async fn keep_state(node: Weak<Inner>, journal: Journal) {
    let mut seen = journal.state();
    loop {
        let Some(inner) = node.upgrade() else { return };
        if let Some(durable) = &inner.durable {
            durable.changed();
        }
        inner.answer_durable();
        drop(inner);
        match &seen {
            State::Open => {}
            State::Closed => return,
            State::CatchingUp => {
                log::info!("the data directory is being brought up to date");
                while journal.state() == State::CatchingUp {
                    snapshot(&node).await;
                    Timer::after(SNAPSHOT_INTERVAL).await;
                }
            }
            State::Full { reason } => log::error!(
                "writes are refused, reads and gossip go on: no room in the data directory: {reason}"
            ),
            State::Failed { reason } => log::error!(
                "writes are refused for good, reads and gossip go on: {reason}; mend the disk and \
                 restart"
            ),
        }
        let next = journal.state_changed(&seen).await;
        if next == State::Open {
            log::info!("writes are taken again");
        }
        seen = next;
    }
}

/// Writes the state anew when the journal has become long.
pub(super) async fn keep_compact(node: Weak<Inner>) {
    let mut before = Position::default();
    loop {
        Timer::after(SNAPSHOT_INTERVAL).await;
        let Some(inner) = node.upgrade().filter(|inner| !inner.is_closed()) else { return };
        let Some(durable) = &inner.durable else { return };
        let live_bytes = {
            let slot = inner.shard.lock();
            let store = slot.shard.store();
            store.bytes() as u64 + CELL_BYTES_EXTRA * store.cells() as u64
        };
        let position = durable.journal.appended();
        let records = position.0 - std::mem::replace(&mut before, position).0;
        let is_quiet = records <= QUIET_RECORDS_MAX;
        let disk_bytes = durable.journal.disk_bytes();
        let due = durable.is_open() && durable.wants_snapshot(disk_bytes, live_bytes, is_quiet);
        drop(inner);
        if due {
            snapshot(&node).await;
        }
    }
}

/// Writes the state anew, unless that is being done; tells what came of it.
async fn snapshot(node: &Weak<Inner>) {
    let node = node.clone();
    let written = async_std::task::spawn_blocking(move || {
        let Some(inner) = node.upgrade() else { return };
        let Some(durable) = &inner.durable else { return };
        if durable.snapshotting.swap(true, Ordering::AcqRel) {
            return;
        }
        match inner.write_snapshot(durable) {
            Ok(Some(bytes)) => log::info!("wrote a snapshot of {bytes} bytes"),
            Ok(None) => log::debug!("no snapshot while this node fills itself anew"),
            Err(error) => log::warn!("a snapshot was given up: {error}; trying again later"),
        }
        durable.snapshotting.store(false, Ordering::Release);
    });
    written.await;
}

impl Inner {
    /// Nothing comes of it while the node fills itself anew: what it has put away for that is in the
    /// journal only.
    fn write_snapshot(&self, durable: &Durable) -> Result<Option<u64>, StorageError> {
        if self.shard.lock().shard.is_filling() {
            return Ok(None);
        }
        let mut writer = durable.journal.begin_snapshot()?;
        let mut append = Append::default();
        let (log, rebuilds) = {
            let slot = self.shard.lock();
            slot.shard.export_life(&mut append);
            slot.shard.export_head(&mut append);
            let log = slot.shard.export_strong(&mut append);
            (log, slot.shard.counters().rebuilds)
        };
        log.export(&mut append);
        drop(log);
        append.pieces().try_for_each(|piece| writer.write(piece))?;
        let mut orphan = Some(Dot { origin: Origin(0), seq: 0 });
        while let Some(from) = orphan {
            append.reuse();
            orphan = self.shard.lock().shard.export_orphans(from, SLICE_BYTES, &mut append);
            append.pieces().try_for_each(|piece| writer.write(piece))?;
        }
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            append.reuse();
            let slot = self.shard.lock();
            if slot.shard.is_filling() || slot.shard.counters().rebuilds != rebuilds {
                return Ok(None);
            }
            cursor = slot.shard.export_cells(&from, SLICE_BYTES, &mut append);
            drop(slot);
            append.pieces().try_for_each(|piece| writer.write(piece))?;
        }
        // What the cells show of the log beyond what was recorded at first is in the journal by the end:
        // it waits for that.
        Ok(Some(writer.finish()?.bytes))
    }
}
