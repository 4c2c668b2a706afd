//! Who answers: the failure detector of a node, with real datagrams and the node's clock.
//!
//! The detector itself is [`Membership`], a value. Here it gets what happens on the links, its wakes
//! come from the node's one timer, and what it says is done: a peer that is down loses its link at once,
//! so that the shard stops waiting for it, and is dialled again as ever.
//!
//! What must stay true: nothing waits while the lock is held, and nobody who holds the shard's lock
//! comes here.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;

use crate::net::{Lane, Net, Sent};
use crate::protocol::id::NodeId;
use crate::protocol::membership::{
    Membership, MembershipCounters, MembershipEvent, MembershipInput, MembershipOutput, PeerState,
};
use crate::protocol::time::Time;

/// What peers hear whose link is ended because they do not answer.
const DOES_NOT_ANSWER: &str = "does not answer";

/// The failure detector of one node.
pub(super) struct Detector {
    slot: Mutex<Slot>,
    /// When it wants to be woken, in nanoseconds of the node's clock.
    wake_at: AtomicU64,
}

struct Slot {
    membership: Membership,
    output: MembershipOutput,
    /// What peers that the detector knows call themselves.
    names: BTreeMap<NodeId, String>,
}

/// Whether a peer answers, as the failure detector sees it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Liveness {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub state: PeerState,
    /// Since when, in seconds before now.
    pub state_seconds: f64,
}

impl Detector {
    /// The detector of node `me`, whose clock shows `now`.
    pub(super) fn new(me: NodeId, now: Time) -> Result<Self, getrandom::Error> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        // A clock that was set back is no harm: peers say that they know a later run.
        let renewal = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let renewal = renewal.map_or(1, |since| since.as_millis().try_into().unwrap_or(1));
        let membership = Membership::new(me, renewal, u64::from_le_bytes(seed), now);
        let slot = Slot { membership, output: MembershipOutput::default(), names: BTreeMap::new() };
        Ok(Self { slot: Mutex::new(slot), wake_at: AtomicU64::new(u64::MAX) })
    }

    /// When it wants to be woken, in nanoseconds of the node's clock.
    pub(super) fn wake_at(&self) -> u64 {
        self.wake_at.load(Ordering::Acquire)
    }

    /// A link is up. `true` if the timer has to look again, as for all that follow.
    pub(super) fn linked(&self, net: &Net, now: Time, peer: NodeId, name: &str) -> bool {
        let mut slot = self.slot.lock();
        slot.names.insert(peer, name.to_owned());
        let sooner = self.take(&mut slot, net, now, MembershipInput::Linked(peer));
        let Slot { membership, names, .. } = &mut *slot;
        if names.len() > membership.peers().count() {
            names.retain(|node, _| membership.peers().any(|(known, ..)| known == *node));
        }
        sooner
    }

    /// A link is gone.
    pub(super) fn unlinked(&self, net: &Net, now: Time, peer: NodeId) -> bool {
        self.take(&mut self.slot.lock(), net, now, MembershipInput::Unlinked(peer))
    }

    /// A datagram came.
    pub(super) fn datagram(&self, net: &Net, now: Time, from: NodeId, bytes: &[u8]) -> bool {
        self.take(&mut self.slot.lock(), net, now, MembershipInput::Datagram { from, bytes })
    }

    /// Its time has come. `epoch` is when the node's clock showed zero.
    pub(super) fn wake(&self, net: &Net, now: Time, epoch: Instant) {
        let heard = net.heard();
        let mut slot = self.slot.lock();
        for (from, at) in heard {
            let at = at.saturating_duration_since(epoch).as_nanos();
            let at = Time::from_nanos(u64::try_from(at).unwrap_or(u64::MAX));
            self.take(&mut slot, net, now, MembershipInput::Heard { from, at });
        }
        self.take(&mut slot, net, now, MembershipInput::Wake);
    }

    /// Whether each peer that was linked since the start answers.
    pub(super) fn liveness(&self, now: Time) -> Vec<(NodeId, Liveness)> {
        let slot = self.slot.lock();
        let peers = slot.membership.peers().map(|(node, state, since)| {
            let name = slot.names.get(&node).cloned().unwrap_or_default();
            let state_seconds = now.since(since).as_secs_f64();
            (node, Liveness { node: node.to_string(), name, state, state_seconds })
        });
        peers.collect()
    }

    /// What it has counted.
    pub(super) fn counters(&self) -> MembershipCounters {
        self.slot.lock().membership.counters()
    }

    /// Takes one input and does what comes of it; `true` if it wants to be woken sooner than before.
    fn take(&self, slot: &mut Slot, net: &Net, now: Time, input: MembershipInput<'_>) -> bool {
        let Slot { membership, output, names } = slot;
        membership.handle(now, input, output);
        for (to, bytes) in output.send.drain(..) {
            match net.send(to, Lane::Datagram, Bytes::from(bytes)) {
                // A datagram may be lost at any time; the links count those without room.
                Sent::Queued | Sent::QueueFull | Sent::NotConnected => {}
            }
        }
        for event in output.events.drain(..) {
            let name = |peer: &NodeId| names.get(peer).map_or("a peer", String::as_str);
            match event {
                MembershipEvent::Suspected(peer) => {
                    log::debug!("{} ({peer:?}) does not answer at the moment", name(&peer));
                }
                MembershipEvent::Down(peer) => {
                    log::warn!("{} ({peer:?}) is down: it answers nobody", name(&peer));
                    net.give_up(peer, DOES_NOT_ANSWER);
                }
                MembershipEvent::Alive(peer) => log::debug!("{} ({peer:?}) answers", name(&peer)),
            }
        }
        let wake_at = output.wake.take().map_or(u64::MAX, Time::as_nanos);
        self.wake_at.swap(wake_at, Ordering::AcqRel) > wake_at
    }
}
