//! The next segment, made before it is needed.
//!
//! Filling a segment with zeros takes some ten milliseconds, in which nothing could be made durable.
//! So a thread of its own does it while the segment before is still being filled. If it is too
//! late, the syncing thread waits for it; if it fails, the syncing thread tries itself when it
//! really needs the segment, and that is when a full disk counts.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::directory::Directory;
use super::error::StorageError;
use super::segment::Segment;

/// Makes one segment ahead.
#[derive(Debug)]
pub(super) struct Preparer {
    shared: Arc<Shared>,
    directory: Directory,
    bytes: usize,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Slot {
    /// Nothing was asked for, or it could not be made.
    #[default]
    Empty,
    Wanted(u64),
    Working,
    Ready(Segment),
    Stopped,
}

impl Preparer {
    /// Starts the thread. Segments will have this length.
    pub(super) fn start(directory: Directory, bytes: usize) -> Result<Self, StorageError> {
        let shared = Arc::new(Shared::default());
        let (inside, its_directory) = (Arc::clone(&shared), directory.clone());
        let thread = thread::Builder::new()
            .name("journal-prepare".to_owned())
            .spawn(move || run(&inside, &its_directory, bytes))
            .map_err(|source| StorageError::Io {
                action: "start a thread for",
                path: directory.path().to_owned(),
                source,
            })?;
        Ok(Self { shared, directory, bytes, thread: Some(thread) })
    }

    /// Has a segment made, unless one is there or under way.
    pub(super) fn want(&self, number: u64) {
        let mut slot = self.shared.slot.lock();
        if matches!(*slot, Slot::Empty) {
            *slot = Slot::Wanted(number);
            drop(slot);
            self.shared.changed.notify_all();
        }
    }

    /// A segment with that number and at least that much room: the one made ahead if it fits,
    /// otherwise a new one. Blocks while one is being made.
    pub(super) fn take(&self, number: u64, bytes: usize) -> Result<Segment, StorageError> {
        let ready = {
            let mut slot = self.shared.slot.lock();
            while matches!(*slot, Slot::Wanted(_) | Slot::Working) {
                self.shared.changed.wait(&mut slot);
            }
            match std::mem::take(&mut *slot) {
                Slot::Ready(segment) => Some(segment),
                _ => None,
            }
        };
        match ready.filter(|it| it.number == number && it.bytes >= bytes) {
            Some(segment) => Ok(segment),
            // Takes the place of one that is too short.
            None => Segment::create(&self.directory, number, bytes.max(self.bytes), false),
        }
    }

    /// Forgets what was made ahead; another takes its place.
    pub(super) fn discard(&self) {
        let mut slot = self.shared.slot.lock();
        while matches!(*slot, Slot::Wanted(_) | Slot::Working) {
            self.shared.changed.wait(&mut slot);
        }
        *slot = Slot::Empty;
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        let mut slot = self.shared.slot.lock();
        while matches!(*slot, Slot::Working) {
            self.shared.changed.wait(&mut slot);
        }
        *slot = Slot::Stopped;
        drop(slot);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked with anything of ours in its hands.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, directory: &Directory, bytes: usize) {
    let mut slot = shared.slot.lock();
    loop {
        match *slot {
            Slot::Stopped => return,
            Slot::Wanted(number) => {
                *slot = Slot::Working;
                drop(slot);
                let made = Segment::create(directory, number, bytes, false);
                slot = shared.slot.lock();
                // Whoever needs it tries again and hears why it cannot be made.
                *slot = made.map_or(Slot::Empty, Slot::Ready);
                shared.changed.notify_all();
            }
            _ => shared.changed.wait(&mut slot),
        }
    }
}
