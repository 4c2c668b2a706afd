//! Read and reply buffers, shared by the connections of one door.
//!
//! A connection needs a buffer only between the moment its socket has bytes and the moment its
//! replies are written. With ten thousand connections and one executor thread that is a handful of
//! buffers, hot in the cache, where one per connection would be hundreds of megabytes, mostly cold.
//!
//! What must stay true: a buffer that is given back may hold another client's bytes, so nobody ever
//! looks beyond what was written into it since it was taken.

use parking_lot::Mutex;

/// Size of a buffer that the pool keeps: one read brings at most this much.
///
/// Larger reads save few system calls more (a pipeline of sixteen SETs of 100 bytes is 2.3 kB), and
/// a batch of this size executes in well under a millisecond.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// How many buffers the pool keeps: 4 MiB at most. One executor thread uses two at a time, and more
/// only while clients are slow to take their replies.
const BUFFERS_KEPT_MAX: usize = 64;

/// A stack of buffers that are not in use.
#[derive(Debug, Default)]
pub struct Buffers {
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// No buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A buffer with arbitrary content, or an empty one if none is at hand.
    pub fn take(&self) -> Vec<u8> {
        self.kept.lock().pop().unwrap_or_default()
    }

    /// Takes a buffer back; forgets it if it is small, overgrown, or one too many.
    pub fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() < BUFFER_BYTES || buffer.capacity() > 2 * BUFFER_BYTES {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }
}
