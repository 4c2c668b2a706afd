//! How the nodes of a world find and lose each other.
//!
//! Two nodes that could talk dial, and are connected after a moment; a connection over which nothing
//! comes through for the time of detection ends, as it does by the idle timeout of QUIC; the two ends
//! notice at slightly different times. A node that comes back from the dead replaces the connection
//! of which its peers may not have noticed the end.

use std::time::Duration;

use super::happening::Happening;
use super::schedule::{Due, small};
use super::world::{Node, World};

/// The longest that a node waits before it dials a peer with which it could talk.
const REDIAL_MAX: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn links_changed(&mut self) {
        for one in 0..self.nodes.len() {
            (one + 1..self.nodes.len()).for_each(|other| self.link_changed(one, other));
        }
    }

    /// Takes note of whether two nodes can talk: a connection that is stuck too long ends, and two
    /// nodes that could have one dial.
    pub(super) fn link_changed(&mut self, one: usize, other: usize) {
        if one == other {
            return;
        }
        let still = self.nodes[one].paused || self.nodes[other].paused;
        let stuck = still || self.network.is_cut(self.now, one, other);
        let since = self.network.set_stuck(self.now, one, other, stuck);
        let connected = self.network.is_connected(one, other);
        if let Some(since) = since
            && connected
        {
            let pair = (small(one), small(other));
            self.schedule.push(self.now + self.plan.detection, Due::Detect { pair, since });
        }
        if !stuck && !connected {
            let wait = self.up_to(REDIAL_MAX) + self.network.round_trip(one, other);
            self.schedule.push(self.now + wait, Due::Connect(small(one), small(other)));
        }
    }

    /// Follows the cuts of a link's description, from one change to the next.
    pub(super) fn follow_description(&mut self, one: usize, other: usize) {
        self.link_changed(one, other);
        let there = self.network.described(one, other);
        let back = self.network.described(other, one);
        let now = self.network.described_time(self.now);
        let cuts = there.cuts.iter().chain(&back.cuts);
        let next = cuts.filter_map(|cut| {
            let period = cut.every.unwrap_or_default().as_nanos();
            let passed = now.saturating_sub(cut.start).as_nanos().checked_div(period);
            let passed = u32::try_from(passed.unwrap_or_default()).unwrap_or(u32::MAX);
            let begins = cut.start + cut.every.unwrap_or_default().saturating_mul(passed);
            let again = cut.every.map(|every| begins + every);
            let changes = [Some(begins), Some(begins + cut.length), again];
            changes.into_iter().flatten().filter(|at| *at > now).min()
        });
        if let Some(next) = next.min() {
            let due = Due::LinkChanges(small(one), small(other));
            self.schedule.push(self.now + (next - now), due);
        }
    }

    pub(super) fn lose_connection(&mut self, one: usize, other: usize) {
        self.network.disconnect(one, other);
        self.tell_down_later(one, other, Duration::ZERO);
        self.tell_down_later(other, one, Duration::ZERO);
        // If the link has just come back, they dial at once.
        self.link_changed(one, other);
    }

    /// The two ends of a connection notice its end at slightly different times.
    pub(super) fn tell_down_later(&mut self, node: usize, peer: usize, after: Duration) {
        let wait = after + self.up_to(self.plan.detection / 8);
        let connection = self.network.connection(node, peer);
        let due = Due::PeerDown { node: small(node), peer: small(peer), connection };
        self.schedule.push(self.now + wait, due);
    }

    pub(super) fn connect(&mut self, one: usize, other: usize) {
        let ready = |node: &Node| node.is_up() && !node.paused;
        let ready = ready(&self.nodes[one]) && ready(&self.nodes[other]);
        if !ready
            || self.network.is_connected(one, other)
            || self.network.is_cut(self.now, one, other)
        {
            return;
        }
        self.network.connect(one, other);
        let connection = self.network.connection(one, other);
        for (node, peer) in [(one, other), (other, one)] {
            // A new connection replaces one of which the end was not noticed.
            if std::mem::replace(&mut self.nodes[node].sees[peer], connection) != 0 {
                let late = Box::new(Happening::PeerDown { node, peer });
                self.schedule.push(self.now, Due::Late(late));
            }
            self.schedule.push(self.now, Due::PeerUp(small(node), small(peer)));
        }
    }

    pub(super) fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.network.rng().f64())
    }
}
