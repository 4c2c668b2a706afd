//! Read and reply buffers, shared by the connections of one door.
//!
//! A connection needs a buffer only between the moment its socket has bytes and the moment its
//! replies are written. With ten thousand connections and one thread for them that is a handful of
//! buffers, hot in the cache, where one per connection would be hundreds of megabytes, mostly cold.
//!
//! What must stay true: a buffer that is given back may hold another client's bytes, so nobody ever
//! looks beyond what was written into it since it was taken.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Size of a buffer that the pool keeps: one read brings at most this much.
///
/// Larger reads save few system calls more (a pipeline of sixteen SETs of 100 bytes is 2.3 kB), and
/// a batch of this size executes in well under a millisecond.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// How many buffers the pool keeps: 4 MiB at most. As many as one turn of the door serves.
const BUFFERS_KEPT_MAX: usize = 64;

/// How many bytes the buffers of all connections together may take beyond the usual size: 1 GiB, what
/// Redis allows a single client. Else a few thousand connections, each within its own limits, could
/// fill the memory, even before they authenticate.
pub const GROWTH_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// A stack of buffers that are not in use, and an account of those that had to grow.
#[derive(Debug, Default)]
pub struct Buffers {
    kept: Mutex<Vec<Vec<u8>>>,
    grown_bytes: AtomicUsize,
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

    /// Asks for `bytes` more than the usual size, to be given back with [`Buffers::shrunk`]; whether
    /// they are granted.
    pub fn may_grow(&self, bytes: usize) -> bool {
        let before = self.grown_bytes.fetch_add(bytes, Ordering::Relaxed);
        let granted = before.saturating_add(bytes) <= GROWTH_BYTES_MAX;
        if !granted {
            self.shrunk(bytes);
        }
        granted
    }

    /// Gives back what [`Buffers::may_grow`] granted.
    pub fn shrunk(&self, bytes: usize) {
        self.grown_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: buffers are lent again, but not the small, the overgrown, or more than a few.
    #[test]
    fn buffers_are_lent_again() {
        let buffers = Buffers::new();
        for capacity in [0, BUFFER_BYTES - 1, 3 * BUFFER_BYTES] {
            buffers.give_back(Vec::with_capacity(capacity));
            assert_eq!(buffers.take().capacity(), 0);
        }
        for _ in 0..2 * BUFFERS_KEPT_MAX {
            buffers.give_back(Vec::with_capacity(BUFFER_BYTES));
        }
        let lent = std::iter::from_fn(|| Some(buffers.take())).take_while(|it| it.capacity() > 0);
        assert_eq!(lent.count(), BUFFERS_KEPT_MAX);
    }

    /// Story: together, buffers grow to the bound and no further; what shrinks makes room.
    #[test]
    fn growth_is_bounded_together() {
        let buffers = Buffers::new();
        assert!(buffers.may_grow(GROWTH_BYTES_MAX - 10));
        assert!(!buffers.may_grow(11));
        assert!(buffers.may_grow(10));
        assert!(!buffers.may_grow(1));
        buffers.shrunk(10);
        assert!(buffers.may_grow(10));
    }
}
