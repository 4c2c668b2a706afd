//! What has come to pass elsewhere and lets connections go on: one queue, and one way to wake the
//! door's thread.
//!
//! Replies may wait for a sync of the journal, for an answer of the shard that comes later, or for
//! peers. Whoever brings that about, on whatever thread, puts a [`Completion`] here and goes on. The
//! door's thread is woken only if it sleeps, once for everything that has gathered until it looks: a
//! sync that lets a hundred clients go on costs one system call, and none if the thread is busy.
//!
//! What must stay true: between looking for the last time and falling asleep nothing is missed. Both
//! sides write their own flag before they read the other's, in one total order (`SeqCst`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mio::{Registry, Token as Source, Waker};
use parking_lot::Mutex;

use super::session::Found;
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::change::Changes;
use crate::protocol::message::Published;

/// Names a connection: its place at the door, and its number, which no other connection ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) place: usize,
    pub(super) id: u64,
}

/// Something that a connection may be waiting for.
#[derive(Debug)]
pub(super) enum Completion {
    /// The shard has answered a request.
    Answer(Token, Reply),
    /// What a client waited for is found out.
    Found(Key, Found),
    /// Clients of peers have published this.
    Published(Vec<Published>),
    /// These keys have changed.
    Changed(Changes),
    /// The door is to close: in order, or at once.
    Close {
        /// Whether nothing is waited for.
        at_once: bool,
    },
}

impl Completion {
    /// The bytes of messages for subscribers in it.
    fn bytes(&self) -> usize {
        match self {
            Self::Published(messages) => messages.iter().map(Published::bytes).sum(),
            Self::Changed(changes) => changes.iter().map(|(key, _)| key.len() + 64).sum(),
            Self::Answer(..) | Self::Found(..) | Self::Close { .. } => 0,
        }
    }
}

/// How many bytes of messages for subscribers may wait for the door's thread; the rest is dropped, as
/// subscribers are promised nothing. As much as may wait for one of them.
const OFFERED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The queue.
pub(super) struct Completions {
    queue: Mutex<Vec<Completion>>,
    /// The bytes of messages for subscribers in the queue.
    offered: AtomicUsize,
    /// Whether the journal has changed since the door's thread looked.
    synced: AtomicBool,
    asleep: AtomicBool,
    waker: Waker,
}

impl Completions {
    /// A queue that wakes a poll with an event from `source`.
    pub(super) fn new(registry: &Registry, source: Source) -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            offered: AtomicUsize::new(0),
            synced: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            waker: Waker::new(registry, source)?,
        })
    }

    /// Adds something that has come to pass.
    pub(super) fn push(&self, completion: Completion) {
        self.queue.lock().push(completion);
        self.rouse();
    }

    /// Adds messages for subscribers, if not too many wait already.
    pub(super) fn offer(&self, completion: Completion) {
        let bytes = completion.bytes();
        if self.offered.load(Ordering::Relaxed) + bytes > OFFERED_BYTES_MAX {
            log::debug!("the door's thread is behind; {bytes} bytes for subscribers are dropped");
            return;
        }
        self.offered.fetch_add(bytes, Ordering::Relaxed);
        self.push(completion);
    }

    /// Says that the journal is durable further than before, or has stopped.
    pub(super) fn synced(&self) {
        self.synced.store(true, Ordering::SeqCst);
        self.rouse();
    }

    fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the thread that serves Redis clients: {error}");
        }
    }

    /// Says that the door's thread is about to sleep; whether it may, because nothing has come.
    pub(super) fn doze(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let nothing = self.queue.lock().is_empty() && !self.synced.load(Ordering::SeqCst);
        if !nothing {
            self.asleep.store(false, Ordering::SeqCst);
        }
        nothing
    }

    /// Says that the door's thread is awake, and takes what has come: into `taken`, and whether the
    /// journal has changed.
    pub(super) fn take(&self, taken: &mut Vec<Completion>) -> bool {
        self.asleep.store(false, Ordering::SeqCst);
        let synced = self.synced.swap(false, Ordering::SeqCst);
        std::mem::swap(&mut *self.queue.lock(), taken);
        let offered = taken.iter().map(Completion::bytes).sum();
        self.offered.fetch_sub(offered, Ordering::Relaxed);
        synced
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    /// Story: whatever is pushed while the other side falls asleep wakes it: nothing is lost, in order.
    #[test]
    fn nothing_is_missed_between_looking_and_sleeping() {
        let mut poll = Poll::new().unwrap();
        let completions = Arc::new(Completions::new(poll.registry(), Source(0)).unwrap());
        let pushing = Arc::clone(&completions);
        let count = 20_000;
        let thread = std::thread::spawn(move || {
            for number in 0..count {
                pushing.push(Completion::Answer(Token(number), Reply::Nothing));
                if number % 7 == 0 {
                    pushing.synced();
                    std::thread::yield_now();
                }
            }
        });
        let (mut events, mut taken, mut next) = (Events::with_capacity(4), Vec::new(), 0);
        while next < count {
            if completions.doze() {
                // A missed wake shows as a poll that nothing ends.
                poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
                assert!(!events.is_empty(), "slept although {next} of {count} came");
            }
            completions.take(&mut taken);
            for completion in taken.drain(..) {
                assert!(matches!(completion, Completion::Answer(Token(token), _) if token == next));
                next += 1;
            }
        }
        thread.join().unwrap();
    }
}
