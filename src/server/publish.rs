//! What clients publish, and what changes: told to whoever listens at this node, and what is published
//! to every peer as well.
//!
//! As in Redis, a message is delivered at most once and kept nowhere: who is not there misses it, and a
//! peer whose queue is full or that is not linked gets nothing. Between peers messages travel on a stream
//! of their own behind all others ([`Lane::Talk`]), so that no flood of them holds up writes, rounds or
//! heartbeats. Messages of one publisher keep their order on the way to each peer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use super::node::{Inner, Node};
use crate::net::Lane;
use crate::protocol::change::Changes;
use crate::protocol::message::{Message, PUBLISHED_BYTES_MAX, Published};

/// About how many bytes of messages go into one frame: what a push carries, too.
const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Hears what is published anywhere, and what changes here; for as long as it is kept.
pub struct Listener {
    published: Box<dyn Fn(Vec<Published>) + Send + Sync>,
    changed: Box<dyn Fn(Changes) + Send + Sync>,
    hears_changes: AtomicBool,
}

/// Everybody who listens.
#[derive(Debug, Default)]
pub(super) struct Listeners(RwLock<Vec<Weak<Listener>>>);

impl Listeners {
    fn all(&self) -> Vec<Arc<Listener>> {
        self.0.read().iter().filter_map(Weak::upgrade).collect()
    }

    fn add(&self, listener: &Arc<Listener>) {
        let mut all = self.0.write();
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(listener));
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Node {
    /// Hears what others publish, here or at peers, and, once asked for, what changes here.
    ///
    /// Both are called by whatever thread is in the node then: they take a note and return.
    pub fn listen(
        &self,
        published: impl Fn(Vec<Published>) + Send + Sync + 'static,
        changed: impl Fn(Changes) + Send + Sync + 'static,
    ) -> Arc<Listener> {
        let listener = Arc::new(Listener {
            published: Box::new(published),
            changed: Box::new(changed),
            hears_changes: AtomicBool::new(false),
        });
        self.inner().listeners.add(&listener);
        listener
    }

    /// Whether a listener is told of changes from now on.
    pub fn hear_changes(&self, listener: &Listener, hears: bool) {
        listener.hears_changes.store(hears, Ordering::Release);
        let listeners = self.inner().listeners.all();
        let anybody = listeners.iter().any(|it| it.hears_changes.load(Ordering::Acquire));
        self.enter().slot.shard.tell_changes(anybody);
    }

    /// Publishes messages to all peers, and to all who listen here except for `except`.
    ///
    /// What is longer than [`PUBLISHED_BYTES_MAX`] stays here.
    pub fn publish(&self, messages: Vec<Published>, except: Option<&Arc<Listener>>) {
        let mut frames: Vec<Vec<Published>> = Vec::new();
        let mut room = 0;
        let travel = messages.iter().filter(|message| message.bytes() <= PUBLISHED_BYTES_MAX);
        for message in travel {
            let bytes = message.bytes();
            match frames.last_mut() {
                Some(frame) if bytes <= room => frame.push(message.clone()),
                _ => {
                    room = FRAME_BYTES_MAX;
                    frames.push(vec![message.clone()]);
                }
            }
            room = room.saturating_sub(bytes);
        }
        let entered = self.enter();
        let peers: Vec<_> = entered.shard().peers().collect();
        let wrap = |messages| entered.shard().wrap(Message::Publish { messages });
        let frames: Vec<_> = frames.into_iter().map(wrap).collect();
        drop(entered);
        for frame in frames {
            self.inner().send(&peers, Lane::Talk, &frame);
        }
        for listener in self.inner().listeners.all() {
            if except.is_none_or(|except| !Arc::ptr_eq(except, &listener)) {
                (listener.published)(messages.clone());
            }
        }
    }
}

impl Inner {
    /// A peer told what was published there.
    pub(super) fn heard_published(&self, messages: &[Published]) {
        for listener in self.listeners.all() {
            (listener.published)(messages.to_vec());
        }
    }

    /// These keys have changed here.
    pub(super) fn heard_changes(&self, changes: &Changes) {
        if changes.is_empty() {
            return;
        }
        for listener in self.listeners.all() {
            if listener.hears_changes.load(Ordering::Acquire) {
                (listener.changed)(changes.clone());
            }
        }
    }
}
