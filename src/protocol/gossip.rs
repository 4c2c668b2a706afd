//! Whom to tell: the peers that are up, partners for rounds, and the way of eager pushes.
//!
//! # Rounds
//! Partners come from a random permutation of the live peers, dealt anew when it is used up, so
//! that everybody is met once before anybody is met twice; peers never met come first.
//!
//! # Eager pushes
//! Up to the fan-out, a write goes straight to every live peer. Beyond it, the sorted ids of all
//! live nodes are cut into about √n spans, each with its least node as hub; the writer sends to the
//! hubs, a hub passes on to the rest of its span, by the same rule if that is still too many. Every
//! node computes the same spans from the same view; where views differ for a moment some node gets
//! a write twice or not at all, and the round brings it.
//!
//! A hub does not pass on each write by itself: it gathers what comes within the *relay window* and
//! sends it as one message. With the default window, about the time of a hop, that costs half a hop
//! on average and at most one, and turns n messages per write into about 2√n.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::digest::DigestHash;
use super::id::{NodeId, Origin};
use super::message::Span;
use super::roster::Standing;
use super::time::Time;

/// The longest default relay window: nobody should wait longer for fewer messages unasked.
const RELAY_WINDOW_MAX: Duration = Duration::from_millis(100);

/// A live peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Whether a round with it has happened.
    met: bool,
    round_trip: Duration,
    /// Whether its writes are taken, and whether ours are given to it.
    pub(super) takes: bool,
    pub(super) gives: bool,
    /// Whether it fills itself anew.
    pub(super) filling: bool,
    /// How it stands here, under its present origin.
    pub(super) standing: Standing,
    /// What it was last told of that, and whether we were filling ourselves.
    pub(super) told: Option<(Origin, Standing, bool)>,
    /// When it was last asked to greet.
    pub(super) asked: Option<Time>,
    /// How often it was asked since it was last cleared both ways.
    pub(super) asked_in_vain: u32,
    /// Whether this node has written its entry anew since the peer's counter was equal to that of the one before.
    pub(super) enrolled_even: bool,
    /// How many dots its horizon had when it last greeted.
    pub(super) collected: u64,
    /// The hash of what was last reported to it.
    pub(super) reported: Option<DigestHash>,
}

/// The live peers and the order in which they are met.
#[derive(Debug, Default)]
pub(super) struct Peers {
    live: BTreeMap<NodeId, Peer>,
    /// What is left of the current permutation.
    permutation: Vec<NodeId>,
}

/// One message of an eager push: to whom, and to which span it is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) to: Arc<[NodeId]>,
    pub(super) relay: Option<Span>,
    /// Whether it waits for the relay window: it is sent by a hub to its own span.
    pub(super) gathers: bool,
}

impl Peers {
    /// Adds a peer, or takes note of its latest round trip; says whether it is new.
    pub(super) fn up(&mut self, peer: NodeId, round_trip: Duration, cleared: bool) -> bool {
        let new = !self.live.contains_key(&peer);
        let fresh = Peer {
            met: false,
            round_trip,
            takes: cleared,
            gives: cleared,
            filling: false,
            standing: Standing::Unknown,
            told: None,
            asked: None,
            asked_in_vain: 0,
            enrolled_even: false,
            collected: 0,
            reported: None,
        };
        self.live.entry(peer).or_insert(fresh).round_trip = round_trip;
        new
    }

    /// A live peer.
    pub(super) fn live(&self, peer: NodeId) -> Option<&Peer> {
        self.live.get(&peer)
    }

    /// A live peer, to be changed.
    pub(super) fn live_mut(&mut self, peer: NodeId) -> Option<&mut Peer> {
        self.live.get_mut(&peer)
    }

    /// All live peers, to be changed.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.live.values_mut()
    }

    /// The live peers to which writes are given.
    pub(super) fn receivers(&self) -> impl Iterator<Item = NodeId> {
        self.live.iter().filter(|(_, peer)| peer.gives).map(|(id, _)| *id)
    }

    /// Removes a peer; says whether it was there.
    pub(super) fn down(&mut self, peer: NodeId) -> bool {
        self.live.remove(&peer).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.live.keys().copied()
    }

    /// Takes note that a round with `peer` has begun.
    pub(super) fn met(&mut self, peer: NodeId) {
        if let Some(peer) = self.live.get_mut(&peer) {
            peer.met = true;
        }
    }

    /// The partner for the next round.
    pub(super) fn next_partner(&mut self, rng: &mut fastrand::Rng) -> Option<NodeId> {
        let strangers: Vec<_> =
            self.live.iter().filter(|(_, peer)| !peer.met).map(|(id, _)| *id).collect();
        if let Some(stranger) = rng.choice(strangers) {
            return Some(stranger);
        }
        loop {
            if self.permutation.is_empty() {
                self.permutation = self.live.keys().copied().collect();
                rng.shuffle(&mut self.permutation);
            }
            let partner = self.permutation.pop()?;
            if self.live.contains_key(&partner) {
                return Some(partner);
            }
        }
    }

    /// How long a relay gathers by default: the median time of a hop.
    pub(super) fn relay_window(&self) -> Duration {
        let mut hops: Vec<_> = self.live.values().map(|peer| peer.round_trip / 2).collect();
        hops.sort_unstable();
        hops.get(hops.len() / 2).copied().unwrap_or_default().min(RELAY_WINDOW_MAX)
    }

    /// The messages by which a write of `me` reaches everybody.
    pub(super) fn legs(&self, me: NodeId, fanout: usize) -> Vec<Leg> {
        let receivers: Vec<_> = self.receivers().collect();
        if receivers.len() <= fanout {
            return Leg::direct(receivers, false);
        }
        let mut everybody: Vec<_> = receivers.into_iter().chain([me]).collect();
        everybody.sort_unstable();
        Self::spans(me, &everybody, fanout)
    }

    /// The messages by which `me` passes a push on to `span`.
    pub(super) fn relay_legs(&self, me: NodeId, span: Span, fanout: usize) -> Vec<Leg> {
        let rest: Vec<_> = self.receivers().filter(|id| *id != me && span.contains(*id)).collect();
        if rest.len() <= fanout { Leg::direct(rest, true) } else { Self::spans(me, &rest, fanout) }
    }

    /// Cuts sorted ids into spans; a span whose hub is `me` is passed on by the same rule at once.
    fn spans(me: NodeId, nodes: &[NodeId], fanout: usize) -> Vec<Leg> {
        let spans = nodes.len().isqrt().max(2).min(fanout.max(1));
        let mut legs = Vec::new();
        for span in nodes.chunks(nodes.len().div_ceil(spans)) {
            let (hub, rest) = (span[0], &span[1..]);
            if hub == me {
                legs.extend(match rest.len() <= fanout {
                    true => Leg::direct(rest.to_vec(), true),
                    false => Self::spans(me, rest, fanout),
                });
            } else {
                let relay = rest.last().map(|last| Span { first: rest[0], last: *last });
                legs.push(Leg { to: [hub].into(), relay, gathers: false });
            }
        }
        legs
    }
}

impl Leg {
    fn direct(to: Vec<NodeId>, gathers: bool) -> Vec<Self> {
        if to.is_empty() {
            return Vec::new();
        }
        vec![Self { to: to.into(), relay: None, gathers }]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn peers(me: u128, count: u128) -> Peers {
        let mut peers = Peers::default();
        for id in (1..=count).filter(|id| *id != me) {
            peers.up(NodeId(id), Duration::from_millis(2), true);
        }
        peers
    }

    /// Everybody that a push of `me` reaches, how often, and the messages that it takes.
    fn reach(me: u128, count: u128, fanout: usize) -> (Vec<NodeId>, usize) {
        let mut reached = Vec::new();
        let mut messages = 0;
        let mut legs: Vec<(NodeId, Leg)> = peers(me, count)
            .legs(NodeId(me), fanout)
            .into_iter()
            .map(|leg| (NodeId(me), leg))
            .collect();
        while let Some((_, leg)) = legs.pop() {
            for &to in leg.to.iter() {
                messages += 1;
                reached.push(to);
                if let Some(span) = leg.relay {
                    let next = peers(to.0, count).relay_legs(to, span, fanout);
                    legs.extend(next.into_iter().map(|leg| (to, leg)));
                }
            }
        }
        reached.sort_unstable();
        (reached, messages)
    }

    #[test]
    fn a_push_reaches_everybody_else() {
        for (count, fanout) in
            [(2, 16), (17, 16), (25, 16), (100, 16), (1_000, 16), (40, 2), (9, 1)]
        {
            for me in [1, 2, count / 2, count] {
                let (reached, _) = reach(me, count, fanout);
                let distinct: BTreeSet<_> = reached.iter().filter(|id| id.0 != me).collect();
                assert_eq!(distinct.len() as u128, count - 1, "{count} nodes, fan-out {fanout}");
                assert!(reached.len() as u128 <= count + 1, "hardly anybody is told twice");
            }
        }
    }

    #[test]
    fn a_writer_sends_to_no_more_than_the_fan_out() {
        for count in [17, 25, 100, 1_000] {
            for me in [1, count / 2, count] {
                let legs = peers(me, count).legs(NodeId(me), 16);
                let direct: usize = legs.iter().map(|leg| leg.to.len()).sum();
                assert!(direct <= 32, "{direct} messages at once with {count} nodes");
            }
        }
    }

    #[test]
    fn everybody_is_met_once_before_anybody_twice() {
        let mut peers = peers(1, 9);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3 {
            let met: BTreeSet<_> = (0..8)
                .map(|_| {
                    let partner = peers.next_partner(&mut rng).unwrap();
                    peers.met(partner);
                    partner
                })
                .collect();
            assert_eq!(met.len(), 8);
        }
        peers.down(NodeId(5));
        peers.up(NodeId(20), Duration::ZERO, true);
        assert_eq!(peers.next_partner(&mut rng), Some(NodeId(20)), "strangers first");
    }
}
