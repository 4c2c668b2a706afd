//! The syncing thread: the only one that writes segments and changes the journal's state.
//!
//! It takes all that has gathered, writes it with one call, syncs, and tells. When there is nothing to
//! do it sleeps without a timer. In [`Sync::Interval`] it sleeps a moment after the first record, so
//! that a stream of records costs a hundred writes per second and not one each.
//!
//! What must stay true:
//! - What [`Journal::durable`](super::Journal::durable) reports was synced, with everything before it,
//!   and stands where recovery finds it.
//! - Before anything goes into the next segment, the one before is synced and ended, and before it is
//!   ended the next one exists. So a reader knows of each segment whether it is whole.
//! - A sync that has failed is never tried again: the system may have dropped what it could not write
//!   and report the next sync as good.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::directory::JournalClaim;
use super::error::{Stopped, StorageError, is_lack_of_room};
use super::frame::{self, Kind};
use super::journal::{
    HANDOVER_BYTES, JournalOptions, OnDurable, Position, Queue, Shared, State, Sync, Waiting,
};
use super::prepare::Preparer;
use super::recovery::{SEGMENT_BYTES_MAX, write_opened};
use super::segment::{SEGMENT_OVERHEAD_BYTES, Segment};

/// The first segment after a start: short, so that the start is.
const FIRST_SEGMENT_BYTES: usize = 1 << 20;
/// In [`Sync::Interval`], how long records gather before they are handed to the operating system.
const HANDOVER: Duration = Duration::from_millis(10);
/// How often room is looked for on a full disk.
const RETRY: Duration = Duration::from_secs(1);
/// The next segment is made when this part of the current one is used: early enough to be ready.
const PREPARE_AT_USED: f64 = 0.25;
/// A buffer up to this size is kept to be used again.
const SPARE_BYTES_MAX: usize = 2 << 20;

/// Why something was not written.
enum Trouble {
    NoRoom(String),
    Failed(String),
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        let text = error.to_string();
        if error.is_no_room() { Self::NoRoom(text) } else { Self::Failed(text) }
    }
}

/// What to do next.
#[derive(Default)]
struct Work {
    chunks: Vec<Vec<u8>>,
    /// What the chunks count for in [`Queue::bytes`].
    bytes: usize,
    sync: bool,
    rotate: bool,
    covered: Option<u64>,
    stop: bool,
}

struct Writer {
    shared: Arc<Shared>,
    _claim: JournalClaim,
    sync: Sync,
    segment_bytes: usize,
    on_durable: OnDurable,
    preparer: Preparer,
    segment: Option<Segment>,
    /// The number of the segment to be made when there is none.
    next: u64,
    /// The note of which segment has to be there is still to be written.
    opened_to_write: bool,
    /// Records have been discarded that no snapshot covers.
    gap: bool,
    /// The position of the last record in a segment.
    written: u64,
    /// The position of the last record that was synced.
    synced: u64,
    /// Since when something is written and not synced.
    dirty_since: Option<Instant>,
    /// Until when records gather.
    gather_until: Option<Instant>,
    /// When to look for room again.
    retry_at: Option<Instant>,
}

/// Makes the first segment and starts the thread.
pub(super) fn start(
    shared: Arc<Shared>,
    options: JournalOptions,
    next: u64,
    claim: JournalClaim,
) -> Result<JoinHandle<()>, StorageError> {
    let segment_bytes = options.segment_bytes.clamp(SEGMENT_OVERHEAD_BYTES, SEGMENT_BYTES_MAX);
    let directory = shared.directory.clone();
    let mut writer = Writer {
        preparer: Preparer::start(directory.clone(), segment_bytes)?,
        shared,
        _claim: claim,
        sync: options.sync,
        segment_bytes,
        on_durable: options.on_durable,
        segment: None,
        next,
        // The old files are still needed while they are salvaged, this segment is not yet.
        opened_to_write: !options.salvage,
        gap: options.salvage,
        written: 0,
        synced: 0,
        dirty_since: None,
        gather_until: None,
        retry_at: None,
    };
    match writer.begin(FIRST_SEGMENT_BYTES.min(segment_bytes), options.salvage) {
        Ok(()) if options.salvage => writer.shared.queue.lock().state = State::CatchingUp,
        Ok(()) => {}
        Err(error) if error.is_no_room() => {
            writer.shared.queue.lock().state = State::Full { reason: error.to_string() };
            writer.retry_at = Some(Instant::now() + RETRY);
        }
        Err(error) => return Err(error),
    }
    thread::Builder::new().name("journal-sync".to_owned()).spawn(move || writer.run()).map_err(
        |source| StorageError::Io {
            action: "start a thread for",
            path: directory.path().to_owned(),
            source,
        },
    )
}

/// Should the thread end by a fault of ours, nobody must wait for it for ever.
struct Alarm(Arc<Shared>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            let reason = "the syncing thread ended by a fault of this program".to_owned();
            self.0.queue.lock().state = State::Failed { reason };
            self.0.tell_state();
        }
    }
}

impl Writer {
    fn run(mut self) {
        let _alarm = Alarm(Arc::clone(&self.shared));
        loop {
            let work = self.wait();
            let stop = work.stop;
            self.carry_out(work);
            if stop {
                return;
            }
        }
    }

    // --- waiting --------------------------------------------------------------------------------

    fn wait(&mut self) -> Work {
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue.lock();
        loop {
            let now = Instant::now();
            if let Some(work) = self.due(&mut queue, now) {
                return work;
            }
            queue.waiting =
                if queue.chunks.is_empty() { Waiting::ForAnything } else { Waiting::ForMuch };
            let sync_at = self.sync_at();
            match [self.gather_until, sync_at, self.retry_at].into_iter().flatten().min() {
                Some(until) => {
                    shared.work.wait_until(&mut queue, until);
                }
                None => shared.work.wait(&mut queue),
            }
            queue.waiting = Waiting::No;
        }
    }

    fn sync_at(&self) -> Option<Instant> {
        match self.sync {
            Sync::Always => self.dirty_since,
            Sync::Interval(interval) => self.dirty_since.map(|since| since + interval),
        }
    }

    /// What has to be done now, if anything.
    fn due(&mut self, queue: &mut Queue, now: Instant) -> Option<Work> {
        let sync = self.sync_at().is_some_and(|at| now >= at);
        let write = match self.sync {
            _ if queue.chunks.is_empty() => false,
            Sync::Always => true,
            Sync::Interval(_) => {
                let until = *self.gather_until.get_or_insert(now + HANDOVER);
                now >= until || queue.bytes >= HANDOVER_BYTES
            }
        };
        let asked = queue.stop || queue.rotate || queue.sync_now || queue.covered.is_some();
        let retry = self.retry_at.is_some_and(|at| now >= at);
        if !(sync || write || asked || retry) {
            return None;
        }
        self.gather_until = None;
        let sync_now = std::mem::take(&mut queue.sync_now);
        Some(Work {
            chunks: std::mem::take(&mut queue.chunks),
            bytes: queue.bytes,
            sync: sync || sync_now || self.sync == Sync::Always,
            rotate: std::mem::take(&mut queue.rotate),
            covered: queue.covered,
            stop: queue.stop,
        })
    }

    // --- working --------------------------------------------------------------------------------

    fn carry_out(&mut self, mut work: Work) {
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.look_for_room();
        }
        if self.segment.is_some() {
            let written = self.write(&mut work.chunks);
            let done = match written {
                Ok(()) if work.sync || work.stop => self.sync(),
                other => other,
            };
            if let Err(trouble) = done {
                self.stop_taking(trouble);
            }
        }
        if let Some(gaps) = work.covered {
            self.covered(gaps);
        }
        if work.rotate {
            self.rotate_for_snapshot();
        }
        if work.stop {
            self.close();
        }
        let mut queue = self.shared.queue.lock();
        queue.bytes = queue.bytes.saturating_sub(work.bytes);
        if let Some(mut spare) = work.chunks.pop().filter(|it| it.capacity() <= SPARE_BYTES_MAX) {
            spare.clear();
            queue.spare = spare;
        }
    }

    fn write(&mut self, chunks: &mut [Vec<u8>]) -> Result<(), Trouble> {
        for chunk in chunks {
            let mut rest = chunk.as_mut_slice();
            while !rest.is_empty() {
                let Some(segment) = &mut self.segment else { return Ok(()) };
                let result = segment.write(rest);
                let (frames, bytes) = match result {
                    Ok(done) => done,
                    Err(error) => return Err(self.write_failed(&error)),
                };
                if frames > 0 {
                    self.written += frames;
                    self.dirty_since.get_or_insert_with(Instant::now);
                    self.shared.counters.written(frames, bytes);
                    if segment.used() as f64 >= PREPARE_AT_USED * segment.bytes as f64 {
                        self.preparer.want(segment.number + 1);
                    }
                }
                rest = rest.get_mut(bytes..).unwrap_or_default();
                if !rest.is_empty() {
                    self.rotate(frame::pushed_bytes(rest))?;
                }
            }
        }
        Ok(())
    }

    /// A write into a segment has failed. Files that were filled before do not run out of room, but
    /// on a file system that never overwrites they do.
    fn write_failed(&mut self, error: &io::Error) -> Trouble {
        let Some(mut segment) = self.segment.take() else {
            return Trouble::Failed(error.to_string());
        };
        let text = format!("cannot write {}: {error}", segment.path.display());
        if !is_lack_of_room(error.kind()) {
            return Trouble::Failed(text);
        }
        // Part of the batch may stand behind what counts as written; it is not ended, then, and the
        // next segment is begun after a gap.
        self.next = segment.number + 1;
        if self.dirty_since.take().is_some() {
            if let Err(error) = segment.sync() {
                return Trouble::Failed(format!("cannot sync {}: {error}", segment.path.display()));
            }
            self.publish();
        }
        Trouble::NoRoom(text)
    }

    fn sync(&mut self) -> Result<(), Trouble> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        if self.dirty_since.take().is_none() {
            return Ok(());
        }
        let began = Instant::now();
        segment.sync().map_err(|error| {
            Trouble::Failed(format!("cannot sync {}: {error}", segment.path.display()))
        })?;
        self.shared.counters.synced(began.elapsed());
        self.publish();
        Ok(())
    }

    /// Tells what was synced.
    fn publish(&mut self) {
        self.synced = self.written;
        self.shared.written.store(self.synced, Ordering::Release);
        if !self.gap {
            self.shared.durable.store(self.synced, Ordering::Release);
        }
        self.shared.changed.notify(usize::MAX);
        if !self.gap {
            (self.on_durable)(Position(self.synced));
        }
    }

    /// Goes over to the next segment, with room for a frame of that length.
    fn rotate(&mut self, frame_bytes: usize) -> Result<(), Trouble> {
        self.sync()?;
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let next = self.preparer.take(segment.number + 1, frame_bytes + SEGMENT_OVERHEAD_BYTES)?;
        let ended = segment.end(Kind::Rotated).map_err(|error| {
            Trouble::Failed(format!("cannot end {}: {error}", segment.path.display()))
        })?;
        self.shared.counters.segment(segment.number, ended);
        self.shared.counters.segment(next.number, next.bytes);
        self.segment = Some(next);
        Ok(())
    }

    fn rotate_for_snapshot(&mut self) {
        let rotated = match &self.segment {
            Some(segment) if segment.is_empty() => Ok(()),
            _ => self.rotate(0),
        };
        let refused = match rotated {
            Ok(()) => None,
            // The segment that there is still has room.
            Err(Trouble::NoRoom(reason)) => Some(Stopped::Full { reason }),
            Err(Trouble::Failed(reason)) => {
                self.stop_taking(Trouble::Failed(reason.clone()));
                Some(Stopped::Failed { reason })
            }
        };
        let number = self.segment.as_ref().map(|segment| segment.number);
        let mut queue = self.shared.queue.lock();
        let answer = match (&queue.state, refused, number) {
            (State::Full { reason }, ..) => Err(Stopped::Full { reason: reason.clone() }),
            (State::Failed { reason }, ..) => Err(Stopped::Failed { reason: reason.clone() }),
            (_, Some(stopped), _) => Err(stopped),
            (_, None, Some(number)) => Ok((number, queue.gaps)),
            (_, None, None) => Err(Stopped::Closed),
        };
        queue.rotated = Some(answer);
        drop(queue);
        self.shared.tell_state();
    }

    // --- states ---------------------------------------------------------------------------------

    /// Makes a segment where there is none.
    fn begin(&mut self, bytes: usize, after_gap: bool) -> Result<(), StorageError> {
        let directory = &self.shared.directory;
        let segment = Segment::create(directory, self.next, bytes, after_gap)?;
        self.shared.counters.segment(segment.number, segment.bytes);
        if self.opened_to_write {
            write_opened(directory, self.next)?;
            self.opened_to_write = false;
        }
        self.segment = Some(segment);
        Ok(())
    }

    /// From now on records are discarded, beginning with those that wait.
    fn stop_taking(&mut self, trouble: Trouble) {
        let mut trouble = trouble;
        if let Some(mut segment) = self.segment.take() {
            self.next = segment.number + 1;
            // All in it was synced before the next one was asked for.
            if matches!(trouble, Trouble::NoRoom(_)) {
                match segment.end(Kind::Closed) {
                    Ok(bytes) => self.shared.counters.segment(segment.number, bytes),
                    Err(error) if is_lack_of_room(error.kind()) => {}
                    Err(error) => {
                        let path = segment.path.display();
                        trouble = Trouble::Failed(format!("cannot end {path}: {error}"));
                    }
                }
            }
        }
        self.dirty_since = None;
        self.gather_until = None;
        self.preparer.discard();
        let (state, retry_at) = match trouble {
            Trouble::NoRoom(reason) => (State::Full { reason }, Some(Instant::now() + RETRY)),
            Trouble::Failed(reason) => (State::Failed { reason }, None),
        };
        self.gap = true;
        self.retry_at = retry_at;
        let mut queue = self.shared.queue.lock();
        queue.chunks.clear();
        queue.bytes = 0;
        queue.gaps += 1;
        queue.state = state;
        // Those since the last that was written are gone, and nobody adds any while this is held.
        self.shared.counters.discard(queue.appended - self.written);
        self.written = queue.appended;
        drop(queue);
        self.shared.tell_state();
    }

    /// Tries to make a segment on a disk that was full.
    fn look_for_room(&mut self) {
        let shared = Arc::clone(&self.shared);
        let lost = |written: u64| shared.queue.lock().appended != written;
        let after_gap = self.gap || lost(self.written);
        match self.begin(self.segment_bytes, after_gap) {
            Ok(()) => {}
            Err(error) if error.is_no_room() => {
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
            Err(error) => {
                self.stop_taking(error.into());
                return;
            }
        }
        let mut queue = self.shared.queue.lock();
        if !after_gap && queue.appended != self.written {
            // The first was discarded while the segment was made: it must say so.
            drop(queue);
            self.segment = None;
            self.gap = true;
            self.retry_at = Some(Instant::now());
            return;
        }
        self.retry_at = None;
        self.gap = after_gap;
        self.written = queue.appended;
        self.synced = self.written;
        self.shared.written.store(self.synced, Ordering::Release);
        queue.state = if after_gap { State::CatchingUp } else { State::Open };
        drop(queue);
        self.shared.tell_state();
    }

    /// A snapshot has been finished that was begun after so many gaps.
    fn covered(&mut self, gaps: u64) {
        let mut queue = self.shared.queue.lock();
        queue.covered = None;
        let caught_up = queue.state == State::CatchingUp && queue.gaps == gaps;
        if caught_up {
            queue.state = State::Open;
            self.gap = false;
            self.shared.durable.store(self.synced, Ordering::Release);
        }
        drop(queue);
        self.shared.tell_state();
        if caught_up {
            (self.on_durable)(Position(self.synced));
        }
    }

    fn close(&mut self) {
        let ended = self.segment.take().map(|mut segment| {
            let ended = segment.end(Kind::Closed);
            if let Ok(bytes) = ended {
                self.shared.counters.segment(segment.number, bytes);
            }
            ended.map_err(|error| format!("cannot end {}: {error}", segment.path.display()))
        });
        let mut queue = self.shared.queue.lock();
        match ended {
            Some(Err(reason)) => queue.state = State::Failed { reason },
            _ if matches!(queue.state, State::Failed { .. }) => {}
            _ => queue.state = State::Closed,
        }
        // Whoever came between the last look and now is told, too.
        let late: usize = queue.chunks.drain(..).map(|chunk| frames_in(&chunk)).sum();
        self.shared.counters.discard(late as u64);
        queue.bytes = 0;
        queue.rotated = Some(Err(Stopped::Closed));
        drop(queue);
        self.shared.tell_state();
    }
}

/// How many frames a chunk holds.
fn frames_in(chunk: &[u8]) -> usize {
    let mut rest = chunk;
    let mut frames = 0;
    while !rest.is_empty() {
        rest = rest.get(frame::pushed_bytes(rest)..).unwrap_or_default();
        frames += 1;
    }
    frames
}
