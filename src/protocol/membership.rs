//! Who answers: failure detection as a value.
//!
//! A [`Membership`] hears of links and datagrams, is woken, and says which peers answer. It is SWIM
//! (Das, Gupta, Motivala 2002: probes, indirect probes, suspicion that can be refuted, gossip that
//! rides along) by the crate `foca`, with a layer of its own above and below, because here every pair
//! of nodes has a link:
//!
//! - **A neighbour watches.** SWIM probes at random, so a dead node may stay unprobed for several
//!   periods, and a short period costs traffic. In addition each node asks its neighbour, the next id
//!   in a ring, whenever it has not heard from it for `WATCH_AFTER`: somebody notices a death within
//!   that time, whatever the size of the cluster, for one small question.
//! - **Everybody asks for himself.** A suspicion, wherever it comes from, is checked on one's own link:
//!   a question every `ASK_INTERVAL` until something is heard. A peer is [`PeerState::Down`] only if
//!   it was silent for `CONFIRM_AFTER` here *and* SWIM holds it suspected, unrefuted, or dead. So
//!   lost packets alone, rumours alone, or a bad link alone accuse nobody.
//! - **A question says what is suspected**, and the answer refutes it with a greater incarnation, which
//!   gossip takes to whoever cannot hear the peer himself.
//! - **Any frame is a sign of life** ([`MembershipInput::Heard`]), not only SWIM's.
//! - **Time in which the node itself did not run does not count** (see `clock`).
//!
//! What must stay true: nothing that a datagram says is believed about a third node beyond its state
//! under a name that the node itself has told us, so a liar can start questions, but neither accuse,
//! nor invent members, nor take a name away. All maps hold only nodes that were linked, at most
//! `PEERS_MAX`. The same inputs give the same outputs.
//!
//! What is left out: who belongs to the cluster (this is about who answers), and nodes without links.

mod clock;
mod peer;
mod swim;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use self::clock::Clock;
use self::peer::Peer;
use self::swim::Swim;
use self::wire::{Identity, Talk};
use super::id::NodeId;
use super::time::Time;

pub use self::peer::PeerState;

/// Peers that are remembered; beyond it, who has been away longest is forgotten. Four times the links
/// that a node has at most, so that restarts under new names fit.
const PEERS_MAX: usize = 1024;
/// A neighbour that was silent for this long is asked whether it is there.
const WATCH_AFTER: Duration = Duration::from_millis(700);
/// How often a silent peer is asked: four round trips within a site, and one across a continent.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// Silent for this long after the first question, a peer is suspected: then four questions went
/// unanswered nearby, or two at 200 ms.
const SUSPECT_AFTER: Duration = Duration::from_millis(400);
/// Silent for this long after the first question, and suspected by SWIM, a peer is down. Ten questions
/// in vain: at 10 % loss in each direction this happens by chance once in 10⁷ suspicions, and then the
/// refutation must have been lost as well on its way over all others.
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// How long SWIM must have held it suspected by then, so that it could refute.
const REFUTE_WITHIN: Duration = Duration::from_millis(600);
/// A peer without a link that nobody vouches for is down after this.
const UNLINKED_AFTER: Duration = Duration::from_secs(1);
/// A neighbour that refuted our suspicion answers others but not us: another one is watched meanwhile,
/// and if the link is cut, QUIC will end it.
const WATCH_REST: Duration = Duration::from_secs(60);
/// How often linked peers that SWIM does not know, or holds dead, are greeted.
const GREET_INTERVAL: Duration = Duration::from_secs(1);
/// How far ahead of ours a renewal of our own may be and still be taken over: 34 years of milliseconds.
const RENEWAL_JUMP_MAX: u64 = 1 << 40;

/// Something that happens to the failure detector.
#[derive(Clone, Copy, Debug)]
pub enum MembershipInput<'a> {
    /// There is a link to a peer.
    Linked(NodeId),
    /// The link to a peer is gone.
    Unlinked(NodeId),
    /// A datagram arrived.
    Datagram {
        /// Who sent it, as the link has proven.
        from: NodeId,
        /// What it says; anything may be in it.
        bytes: &'a [u8],
    },
    /// Something else was heard from a peer.
    Heard {
        /// From whom.
        from: NodeId,
        /// When.
        at: Time,
    },
    /// The time that was asked for has come.
    Wake,
}

/// What changed about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MembershipEvent {
    /// It does not answer us at the moment.
    Suspected(NodeId),
    /// It does not answer anybody: stop waiting for it.
    Down(NodeId),
    /// It is there: for the first time, or again.
    Alive(NodeId),
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct MembershipOutput {
    /// Datagrams to try to send, each at most 1,100 bytes.
    pub send: Vec<(NodeId, Vec<u8>)>,
    /// What changed.
    pub events: Vec<MembershipEvent>,
    /// When to wake the detector; replaces what was asked for before.
    pub wake: Option<Time>,
}

/// What the detector has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct MembershipCounters {
    /// Datagrams made.
    pub datagrams: u64,
    /// Their bytes.
    pub datagram_bytes: u64,
    /// Datagrams that were not understood.
    pub rubbish: u64,
    /// Times that a peer became suspected.
    pub suspected: u64,
    /// Times that a peer was declared down.
    pub downs: u64,
    /// Times that others held this node dead and it renewed itself.
    pub renewals: u64,
    /// Times that this node found that it had not run when it wanted to.
    pub late: u64,
}

/// The failure detector of one node.
pub struct Membership {
    me: NodeId,
    clock: Clock,
    now: Time,
    swim: Swim,
    peers: BTreeMap<NodeId, Peer>,
    greet_at: Time,
    counters: MembershipCounters,
}

impl Membership {
    /// The detector of node `me`, at `now`. `renewal` names this run of it: greater than those before,
    /// such as the milliseconds since 1970; if it is not, peers say so and it is raised.
    pub fn new(me: NodeId, renewal: u64, seed: u64, now: Time) -> Self {
        Self {
            me,
            clock: Clock::new(now),
            now: Time::START,
            swim: Swim::new(Identity { node: me, renewal }, seed),
            peers: BTreeMap::new(),
            greet_at: Time::START,
            counters: MembershipCounters::default(),
        }
    }

    /// Takes one input; what comes of it is added to `output`.
    pub fn handle(&mut self, now: Time, input: MembershipInput<'_>, output: &mut MembershipOutput) {
        self.now = self.clock.advance(now);
        match input {
            MembershipInput::Linked(peer) => self.linked(peer, now, output),
            MembershipInput::Unlinked(peer) => self.unlinked(peer, now, output),
            MembershipInput::Datagram { from, bytes } => self.datagram(from, bytes, now, output),
            MembershipInput::Heard { from, at } => self.heard(from, now.since(at), now, output),
            MembershipInput::Wake => {
                if self.clock.looks() {
                    self.swim.pass_time(self.now);
                    self.look(now, output);
                }
            }
        }
        self.learn();
        self.flush(output);
        let due = self.due();
        output.wake = self.clock.ask(due);
    }

    /// The peers that were linked in this run, whether they answer, and since when.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, PeerState, Time)> {
        self.peers.iter().map(|(node, peer)| (*node, peer.state, peer.since))
    }

    /// What was counted so far.
    pub fn counters(&self) -> MembershipCounters {
        let (late, renewals) = (self.clock.late(), self.swim.renewals());
        MembershipCounters { late, renewals, ..self.counters }
    }

    fn linked(&mut self, node: NodeId, now: Time, output: &mut MembershipOutput) {
        if node == self.me {
            return;
        }
        if !self.peers.contains_key(&node) {
            self.make_room();
        }
        let fresh = Peer::new(self.now, now);
        let peer = self.peers.entry(node).or_insert(fresh);
        peer.link(self.now);
        let new = !std::mem::replace(&mut peer.told, true);
        if peer.become_state(PeerState::Up, now) || new {
            output.events.push(MembershipEvent::Alive(node));
        }
        let known = peer.renewal.unwrap_or(0);
        self.resize();
        self.swim.announce(Identity { node, renewal: known }, self.now);
    }

    fn unlinked(&mut self, node: NodeId, now: Time, output: &mut MembershipOutput) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.unlink(self.now);
        if peer.state == PeerState::Up && peer.become_state(PeerState::Suspected, now) {
            self.counters.suspected += 1;
            output.events.push(MembershipEvent::Suspected(node));
        }
        // It may have left, or both of us may be fine: whoever hears it lets it refute.
        let identity = peer.renewal.map(|renewal| Identity { node, renewal });
        if let Some(identity) = identity {
            self.swim.suspect(identity, self.now);
        }
        self.resize();
    }

    fn heard(&mut self, from: NodeId, ago: Duration, now: Time, output: &mut MembershipOutput) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.linked) else { return };
        if peer.hear(self.now, ago) && peer.become_state(PeerState::Up, now) {
            output.events.push(MembershipEvent::Alive(from));
        }
    }

    fn datagram(&mut self, from: NodeId, bytes: &[u8], now: Time, output: &mut MembershipOutput) {
        // From whoever has no link (any more) nothing is taken: the link is what proves who it is.
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.linked) else { return };
        let Ok(talk) = wire::admit(from, self.me, bytes) else {
            self.counters.rubbish += 1;
            return;
        };
        match talk {
            Talk::Question(suspected) => {
                if let Some(life) = suspected {
                    self.swim.accused(life, self.now);
                }
                self.send(from, wire::answer(self.swim.life()), output);
            }
            Talk::Answer(life) => {
                peer.renewal = peer.renewal.max(Some(life.renewal));
                self.swim.alive(Identity { node: from, renewal: life.renewal }, life, self.now);
            }
            Talk::Swim { sender, receiver_renewal, mut updates, packet } => {
                peer.renewal = peer.renewal.max(Some(sender.renewal));
                let mut ours = Some(receiver_renewal);
                updates.retain(|update| {
                    let id = update.id();
                    if id.node == self.me {
                        ours = ours.max(Some(id.renewal));
                    }
                    let known = self.peers.get(&id.node).and_then(|peer| peer.renewal);
                    let mine = id.node == self.me && id.renewal == self.swim.life().renewal;
                    mine || known == Some(id.renewal)
                });
                if let Ok(packet) = packet.with(&updates) {
                    self.swim.packet(&packet, self.now);
                }
                self.outrank(ours.unwrap_or(0));
            }
        }
        self.heard(from, Duration::ZERO, now, output);
    }

    /// Takes a renewal above one under which others know us, if our clock has been set back.
    fn outrank(&mut self, theirs: u64) {
        let ours = self.swim.life().renewal;
        if theirs > ours && theirs - ours <= RENEWAL_JUMP_MAX {
            self.swim.renew_above(theirs, self.now);
        }
    }

    /// Looks after everything that time brings about.
    fn look(&mut self, now: Time, output: &mut MembershipOutput) {
        self.learn();
        if let Some(neighbour) = self.neighbour()
            && let Some(peer) = self.peers.get_mut(&neighbour)
            && peer.silent_since.is_none()
            && self.now >= peer.heard + WATCH_AFTER
        {
            peer.doubt(self.now);
        }
        let patience = self.clock.patience();
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.look_at(node, patience, now, output);
        }
        if self.now >= self.greet_at {
            self.greet_at = self.now + GREET_INTERVAL;
            let strange = |peer: &Peer| peer.linked && !peer.swim.is_some_and(|it| it.is_active());
            let strangers = self.peers.iter().filter(|(_, peer)| strange(peer));
            let strangers: Vec<_> = strangers
                .map(|(node, peer)| Identity { node: *node, renewal: peer.renewal.unwrap_or(0) })
                .collect();
            for stranger in strangers {
                self.swim.announce(stranger, self.now);
            }
        }
    }

    /// Asks a silent peer, suspects it, gives it up.
    fn look_at(&mut self, node: NodeId, patience: u32, now: Time, output: &mut MembershipOutput) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        if peer.state == PeerState::Down {
            return;
        }
        let identity = peer.renewal.map(|renewal| Identity { node, renewal });
        let mut question = None;
        if peer.linked && peer.silent_since.is_some() && self.now >= peer.ask_at {
            peer.ask_at = self.now + ASK_INTERVAL;
            question = Some(wire::question(peer.suspected_life()));
        }
        let suspected = peer.linked
            && peer.silent_for(self.now) >= SUSPECT_AFTER * patience
            && peer.become_state(PeerState::Suspected, now);
        if suspected {
            self.counters.suspected += 1;
            output.events.push(MembershipEvent::Suspected(node));
            peer.raised = true;
        }
        let silent_max = if peer.linked { CONFIRM_AFTER } else { UNLINKED_AFTER } * patience;
        let refutable = REFUTE_WITHIN * patience;
        let down = peer.state == PeerState::Suspected
            && peer.silent_for(self.now) >= silent_max
            && peer.is_given_up_by_swim(self.now, refutable);
        if down && peer.become_state(PeerState::Down, now) {
            self.counters.downs += 1;
            output.events.push(MembershipEvent::Down(node));
        }
        if let Some(question) = question {
            self.send(node, question, output);
        }
        if let Some(identity) = identity {
            if suspected {
                self.swim.suspect(identity, self.now);
            }
            if down {
                self.swim.down(identity, self.now);
            }
        }
    }

    /// The next linked node in the ring of ids that is worth watching.
    fn neighbour(&self) -> Option<NodeId> {
        let after = self.peers.range(self.me..);
        let mut ring = after.chain(self.peers.range(..self.me));
        ring.find(|(_, peer)| peer.linked && self.now >= peer.rest_until).map(|(node, _)| *node)
    }

    /// Takes over what SWIM thinks of each peer now, and doubts those that it suspects.
    fn learn(&mut self) {
        if !self.swim.take_changed() {
            return;
        }
        for (identity, view) in self.swim.members() {
            let Some(peer) = self.peers.get_mut(&identity.node) else { continue };
            if peer.renewal == Some(identity.renewal) || peer.renewal.is_none() {
                peer.learn(identity.renewal, view, self.now, WATCH_REST);
            }
        }
    }

    fn flush(&mut self, output: &mut MembershipOutput) {
        for (to, bytes) in self.swim.take_sends() {
            if self.peers.get(&to).is_some_and(|peer| peer.linked) {
                self.send(to, bytes, output);
            }
        }
    }

    fn send(&mut self, to: NodeId, bytes: Vec<u8>, output: &mut MembershipOutput) {
        self.counters.datagrams += 1;
        self.counters.datagram_bytes += bytes.len() as u64;
        output.send.push((to, bytes));
    }

    /// When something has to be looked after next.
    fn due(&self) -> Option<Time> {
        if self.peers.is_empty() {
            return None;
        }
        let patience = self.clock.patience();
        let neighbour = self.neighbour().and_then(|node| self.peers.get(&node));
        let watch = neighbour.filter(|peer| peer.silent_since.is_none());
        let watch = watch.map(|peer| peer.heard + WATCH_AFTER);
        let silent = self.peers.values().filter_map(|peer| {
            let since = peer.silent_since.filter(|_| peer.state != PeerState::Down)?;
            if peer.linked {
                return Some(peer.ask_at);
            }
            // One that others hear is looked at again when they no longer do.
            let vouched = peer.swim.is_some_and(|view| view.state == foca::State::Alive);
            (!vouched).then(|| (since + UNLINKED_AFTER * patience).max(self.now + ASK_INTERVAL))
        });
        let any_linked = self.peers.values().any(|peer| peer.linked);
        let greet = any_linked.then_some(self.greet_at);
        let dues = self.swim.due().into_iter().chain(watch).chain(greet).chain(silent);
        dues.min()
    }

    /// Lets rumours live longer the more there are to hear them.
    fn resize(&mut self) {
        self.swim.resize(self.peers.values().filter(|peer| peer.linked).count());
    }

    /// Forgets whoever has been without a link longest, if there are too many.
    fn make_room(&mut self) {
        if self.peers.len() < PEERS_MAX {
            return;
        }
        let gone = self.peers.iter().filter(|(_, peer)| !peer.linked);
        let longest = gone.min_by_key(|(_, peer)| peer.heard).map(|(node, _)| *node);
        longest.and_then(|node| self.peers.remove(&node));
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Membership({:?}, {} peers)", self.me, self.peers.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ME: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    fn linked() -> Membership {
        let mut membership = Membership::new(ME, 5, 0, Time::START);
        let mut output = MembershipOutput::default();
        membership.handle(Time::START, MembershipInput::Linked(PEER), &mut output);
        assert_eq!(output.events, [MembershipEvent::Alive(PEER)]);
        membership
    }

    proptest! {
        #[test]
        fn rubbish_changes_nothing(bytes in prop::collection::vec(any::<u8>(), 0..1_200)) {
            prop_assume!(wire::admit(PEER, ME, &bytes).is_err());
            let input = MembershipInput::Datagram { from: PEER, bytes: &bytes };
            let (mut one, mut other) = (linked(), linked());
            let mut output = MembershipOutput::default();
            one.handle(Time::START, input, &mut output);
            prop_assert!(output.send.is_empty() && output.events.is_empty());
            prop_assert_eq!(one.counters().rubbish, 1);
            // And it goes on as one that got none.
            let mut wake = output.wake;
            for _ in 0..50 {
                let Some(at) = wake else { break };
                let mut outputs = [MembershipOutput::default(), MembershipOutput::default()];
                let [mine, theirs] = &mut outputs;
                one.handle(at, MembershipInput::Wake, mine);
                other.handle(at, MembershipInput::Wake, theirs);
                wake = mine.wake;
                prop_assert_eq!((&mine.send, &mine.events, mine.wake),
                    (&theirs.send, &theirs.events, theirs.wake));
            }
        }

        #[test]
        fn who_has_no_link_is_not_heard(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut membership = linked();
            let mut output = MembershipOutput::default();
            let stranger = MembershipInput::Datagram { from: NodeId(3), bytes: &bytes };
            membership.handle(Time::START, stranger, &mut output);
            prop_assert!(output.send.is_empty() && output.events.is_empty());
            prop_assert_eq!(membership.peers().count(), 1);
        }
    }

    #[test]
    fn peers_beyond_the_bound_push_out_who_is_gone_longest() {
        let mut membership = Membership::new(ME, 5, 0, Time::START);
        let mut output = MembershipOutput::default();
        for number in 0..PEERS_MAX as u64 + 10 {
            let now = Time::START + Duration::from_millis(number);
            let peer = NodeId(1_000 + u128::from(number));
            membership.handle(now, MembershipInput::Linked(peer), &mut output);
            membership.handle(now, MembershipInput::Unlinked(peer), &mut output);
        }
        assert_eq!(membership.peers().count(), PEERS_MAX);
        assert!(membership.peers().all(|(peer, ..)| peer.0 >= 1_010), "the first have gone");
    }
}
