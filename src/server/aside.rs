//! What is large is encoded and decoded aside, on threads that nobody waits for.
//!
//! A value of 60 MiB takes some thirty milliseconds for each time that it is copied. On the thread that
//! serves clients or on that of the links, all others would wait for that. What must stay true: a large
//! message travels on a stream of its own, so nothing depends on its order; and what is worked on at a
//! time is bounded, since beyond [`ASIDE_BYTES_MAX`] whoever brings more does the work itself, which
//! holds up the peer that sends it.

use std::marker;
use std::sync::Weak;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::node::Inner;
use crate::net::{Lane as Link, Net, URGENT_EXCHANGE};
use crate::protocol::boundary::{Lane, Send};
use crate::protocol::id::NodeId;

/// Messages longer than this are large: it takes a millisecond to copy one.
const LARGE_BYTES: usize = 1 << 20;

/// The most bytes of messages that are worked on aside: a few of the largest.
const ASIDE_BYTES_MAX: usize = 256 << 20;

/// What is being worked on.
#[derive(Default)]
pub(super) struct Aside {
    bytes: AtomicUsize,
}

impl Inner {
    /// Sends a message; later, if it is large.
    pub(super) fn send_aside(&self, send: Send) {
        let bytes = send.bytes();
        match send.lane {
            Lane::Exchange { last: true, .. } if bytes > LARGE_BYTES => {
                self.aside(bytes, move |inner| inner.send_one(send));
            }
            _ => self.send_one(send),
        }
    }

    /// Takes a frame of a peer in; later, if it is large.
    pub(super) fn hear_aside(&self, net: &Net, peer: NodeId, lane: Link, bytes: Bytes) {
        match lane {
            Link::Exchange { id, .. } if bytes.len() > LARGE_BYTES && id != URGENT_EXCHANGE => {
                let net = net.clone();
                self.aside(bytes.len(), move |inner| inner.hear(&net, peer, &bytes));
            }
            _ => self.hear(net, peer, &bytes),
        }
    }

    fn aside(&self, bytes: usize, work: impl FnOnce(&Self) + marker::Send + 'static) {
        let before = self.aside.bytes.fetch_add(bytes, Ordering::Relaxed);
        let node = self.this.get().and_then(Weak::upgrade);
        let done = move |inner: &Self| {
            work(inner);
            inner.aside.bytes.fetch_sub(bytes, Ordering::Relaxed);
        };
        match node.filter(|_| before + bytes <= ASIDE_BYTES_MAX) {
            Some(node) => drop(async_std::task::spawn_blocking(move || done(&node))),
            None => done(self),
        }
    }
}
