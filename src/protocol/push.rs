//! Eager pushes: a write is sent the moment it is made, and passed on where peers are many.
//!
//! See `gossip` for who sends to whom. Here is what waits in between: at a hub, writes that are to
//! be passed on are gathered per leg until the relay window closes, and then travel as one message.

use std::sync::Arc;
use std::time::Duration;

use super::boundary::{Output, PUSH_BYTES_MAX, Sender};
use super::cell::Write;
use super::config::Config;
use super::gossip::{Leg, Peers};
use super::id::NodeId;
use super::message::Span;
use super::shard::{Merge, Shard};
use super::time::Time;

/// The most bytes that a hub gathers before it passes them on without waiting any longer.
const GATHERED_BYTES_MAX: usize = 4 * PUSH_BYTES_MAX;

/// The way of pushes from here, and what waits to be passed on.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    /// The legs of a local write and the relay window, under the present view of who is up; worked
    /// out when first needed, since peers often come and go many at a time.
    route: Option<(Arc<[Leg]>, Duration)>,
    gathered: Vec<(Leg, Write)>,
    gathered_bytes: usize,
    deadline: Option<Time>,
}

impl Pushes {
    /// Forgets the way after a peer has come or gone, or its round trip has changed.
    pub(super) fn reroute(&mut self) {
        self.route = None;
    }

    /// The legs of a local write and the relay window.
    fn route(&mut self, peers: &Peers, config: &Config) -> (Arc<[Leg]>, Duration) {
        let route = self.route.get_or_insert_with(|| {
            let window = config.relay_window.unwrap_or_else(|| peers.relay_window());
            (peers.legs(config.node, config.fanout).into(), window)
        });
        route.clone()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// Keeps a write to be sent with others when the window closes.
    fn gather(&mut self, closes: Time, leg: &Leg, write: &Write, sender: Sender, out: &mut Output) {
        self.gathered_bytes += write.bytes();
        self.gathered.push((leg.clone(), write.clone()));
        self.deadline.get_or_insert(closes);
        if self.gathered_bytes > GATHERED_BYTES_MAX {
            self.flush(sender, out);
        }
    }

    /// Sends what was gathered, if its window has closed.
    pub(super) fn wake(&mut self, now: Time, sender: Sender, output: &mut Output) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.flush(sender, output);
        }
    }

    fn flush(&mut self, sender: Sender, output: &mut Output) {
        self.deadline = None;
        self.gathered_bytes = 0;
        for (leg, write) in self.gathered.drain(..) {
            sender.push(&leg.to, leg.relay, write, output);
        }
    }
}

impl Shard {
    /// Sends a write of this node on its way to everybody.
    pub(super) fn push(&mut self, now: Time, write: &Write, output: &mut Output) {
        let (legs, window) = self.pushes.route(&self.peers, &self.config);
        let (sender, closes) = (self.sender(), now + window);
        self.gave |= !legs.is_empty();
        for leg in legs.iter() {
            if leg.gathers {
                self.pushes.gather(closes, leg, write, sender, output);
            } else {
                sender.push(&leg.to, leg.relay, write.clone(), output);
            }
        }
    }

    /// Sends a write of the replicated log to those who do not vote, if this voter is the primary.
    pub(super) fn push_log(&mut self, write: &Write, output: &mut Output) {
        if !self.config.eager || !self.is_primary() {
            return;
        }
        let to = self.learners();
        if !to.is_empty() {
            self.gave = true;
            self.sender().push(&to, None, write.clone(), output);
        }
    }

    /// Applies a peer's push and passes it on where it asks for that.
    pub(super) fn receive_push(
        &mut self,
        now: Time,
        peer: NodeId,
        mut writes: Vec<Write>,
        relay: Option<Span>,
        output: &mut Output,
    ) {
        self.sift(&mut writes);
        let sent = writes.len();
        writes.retain(|write| {
            let seqs = (write.first_seq(), write.last_dot().seq);
            self.vector.leaves_room_for(write.stamp.origin, seqs)
        });
        self.counters.writes_crowded_out += (sent - writes.len()) as u64;
        // The span shrinks with every step, so nothing goes in circles, even where it reaches back to
        // the writer.
        let passed_on = relay.map(|span| (span, writes.clone()));
        let Some(merged) = self.apply(peer, writes, output) else { return };
        let Some((span, mut writes)) = passed_on else { return };
        let only_standing = self.config.roster;
        #[cfg(test)]
        let only_standing =
            only_standing && !self.is_careless(super::shard::Careless::RelaysLosers);
        if only_standing {
            // Only what stands here: what a tombstone has beaten here must not come to a node that
            // has collected the tombstone.
            let mut merged = merged.into_iter();
            writes.retain(|_| merged.next() == Some(Merge::Stands));
        }
        self.gave |= !writes.is_empty();
        let (_, window) = self.pushes.route(&self.peers, &self.config);
        let (sender, closes) = (self.sender(), now + window);
        for leg in self.peers.relay_legs(self.config.node, span, self.config.fanout) {
            for write in &writes {
                self.pushes.gather(closes, &leg, write, sender, output);
            }
        }
    }
}
