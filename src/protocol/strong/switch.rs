//! The switch of the mode, in a way that loses nothing that was acknowledged.
//!
//! # Eventual to strong
//! A voter *drives*. It checks that all members can be reached, and asks the log to *prepare*. Then it
//! asks every member for its *fence*: from then on the member makes no more writes of its own, durably,
//! holds what clients ask, and takes writes from fenced members only; it answers with what it holds.
//! The join of the answers is the *base*. The voters *drain*: they fetch what they lack of it, and say
//! so when it is durable, with the fingerprint of their cells. Once a majority has, and the
//! fingerprints agree, the log *opens* the strong epoch.
//!
//! # Strong to eventual
//! One entry of the log. A member makes writes of its own once it holds all that the log has written.
//!
//! # When something fails
//! If the voter that drives says nothing for a while, another drives: every step can be repeated. If
//! all takes too long, the log gives the switch up, and the next eventual epoch begins. Whichever of
//! opening and giving up comes first in the log holds. A member that is cut off while it is fenced
//! stays so until it hears how it ended.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::boundary::{Output, Reply, Token};
use super::super::digest::{Digest, DigestHash};
use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::shard::Shard;
use super::super::stamp::{Epoch, Lamport};
use super::super::store::Fingerprint;
use super::super::time::Time;
use super::super::version::VersionVector;
use super::group::Voter;
use super::ledger::{Entry, Phase};
use super::{LOOK_INTERVAL, StrongEvent, Word};

/// After how long without an end another voter drives a switch; twice as long for the next, and so on.
const TAKEOVER: Duration = Duration::from_secs(3);

/// After how long a switch is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long whoever wishes for a switch waits for its end.
const WISH_PATIENCE: Duration = Duration::from_secs(30);

/// How many wishes may wait at one member.
const WISHES_MAX: usize = 64;

/// How often a cluster that is to start strong tries to.
const START_INTERVAL: Duration = Duration::from_millis(200);

/// With how many members a voter that drains opens a round at once.
const DRAINED_FROM_MAX: usize = 16;

/// What somebody wishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwitchOrder {
    /// The mode to come.
    pub to: Mode,
    /// Members to be left out: they are retired, and what only they have becomes an orphan.
    pub without: Vec<NodeId>,
    /// Whether only to say what would be done.
    pub dry_run: bool,
}

/// What came of the wish for a switch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Switched {
    /// The epoch has begun.
    Done {
        /// It.
        epoch: Epoch,
    },
    /// The mode was that already.
    Already {
        /// The epoch that goes on.
        epoch: Epoch,
    },
    /// It could be done: what was asked.
    Possible {
        /// Who would take part.
        members: Vec<NodeId>,
        /// Who votes, or would.
        voters: Vec<NodeId>,
    },
    /// Members cannot be reached; nothing was changed.
    Unreachable {
        /// They.
        nodes: Vec<NodeId>,
    },
    /// The primary, or the node that was asked, cannot be left out.
    CannotLeaveOut {
        /// It.
        node: NodeId,
    },
    /// Nobody of this name is a member.
    NoMember {
        /// It.
        node: NodeId,
    },
    /// Another switch is under way.
    Underway,
    /// Fewer than a majority of the voters can be reached; nothing was changed.
    NoQuorum,
    /// It was given up; the mode is what it was.
    Aborted {
        /// The epoch that has begun instead.
        epoch: Epoch,
    },
    /// It takes too long to say.
    Unknown,
}

/// Who wishes for a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wisher {
    Client(Token),
    Peer(NodeId, u64),
    /// The configuration.
    Start,
}

#[derive(Debug)]
struct Wish {
    by: Wisher,
    order: SwitchOrder,
    deadline: Time,
    /// The voter it was passed to, under this number.
    passed: Option<(NodeId, u64)>,
    begun: bool,
}

/// The wishes that wait here.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    waiting: Vec<Wish>,
    next: u64,
    tried: Option<Time>,
}

impl Wishes {
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// A switch that this voter drives, or watches.
#[derive(Debug)]
pub(super) struct Drive {
    epoch: Epoch,
    began: Time,
    /// From when on this voter drives.
    drives_at: Time,
    answers: BTreeMap<NodeId, (VersionVector, Lamport)>,
    base: Option<(Digest, DigestHash, Lamport)>,
    drained: BTreeMap<NodeId, Fingerprint>,
    proposed: Option<Time>,
}

/// What a fenced member was asked.
#[derive(Debug, Default)]
pub(super) struct Fencing {
    drain: Option<(NodeId, Epoch, VersionVector)>,
    rounds: Option<Time>,
}

impl Fencing {
    pub(super) fn waits(&self) -> bool {
        self.drain.is_some()
    }
}

impl Shard {
    /// Wishes for a switch; the answer comes later.
    pub(in crate::protocol) fn wish(
        &mut self,
        now: Time,
        token: Token,
        order: &SwitchOrder,
        output: &mut Output,
    ) {
        self.add_wish(now, Wisher::Client(token), order.clone(), output);
    }

    pub(super) fn receive_switch(
        &mut self,
        now: Time,
        peer: NodeId,
        id: u64,
        order: SwitchOrder,
        output: &mut Output,
    ) {
        let by = Wisher::Peer(peer, id);
        if self.strong.wishes.waiting.iter().all(|wish| wish.by != by) {
            self.add_wish(now, by, order, output);
        }
    }

    fn add_wish(&mut self, now: Time, by: Wisher, order: SwitchOrder, output: &mut Output) {
        if self.strong.wishes.waiting.len() >= WISHES_MAX {
            return self.answer_wisher(by, Switched::Underway, output);
        }
        let deadline = now + WISH_PATIENCE;
        let wish = Wish { by, order, deadline, passed: None, begun: false };
        self.strong.wishes.waiting.push(wish);
        self.look_at_switch(now, output);
    }

    fn answer_wisher(&mut self, by: Wisher, outcome: Switched, output: &mut Output) {
        match by {
            Wisher::Client(token) => output.reply.push((token, Reply::Switched(outcome))),
            Wisher::Peer(peer, id) => self.say(peer, Word::Switched { id, outcome }, output),
            Wisher::Start => {}
        }
    }

    /// Answers all wishes alike.
    pub(super) fn answer_wishes(&mut self, outcome: Switched, output: &mut Output) {
        for wish in std::mem::take(&mut self.strong.wishes.waiting) {
            self.answer_wisher(wish.by, outcome.clone(), output);
        }
    }

    pub(super) fn receive_switched(
        &mut self,
        peer: NodeId,
        id: u64,
        outcome: Switched,
        output: &mut Output,
    ) {
        let waiting = &mut self.strong.wishes.waiting;
        if let Some(at) = waiting.iter().position(|wish| wish.passed == Some((peer, id))) {
            let wish = waiting.swap_remove(at);
            self.answer_wisher(wish.by, outcome, output);
        }
    }

    /// An epoch has begun: the wishes that had begun are answered, others are looked at again.
    pub(super) fn wishes_end(&mut self, output: &mut Output) {
        let (epoch, mode) = (self.strong.ledger().epoch, self.strong.ledger().mode());
        let begun = self.strong.wishes.waiting.extract_if(.., |wish| wish.begun);
        for wish in begun.collect::<Vec<_>>() {
            let outcome = match wish.order.to == mode {
                true => Switched::Done { epoch },
                false => Switched::Aborted { epoch },
            };
            self.answer_wisher(wish.by, outcome, output);
        }
    }

    /// Goes on with wishes, and with a switch that is under way.
    pub(super) fn look_at_switch(&mut self, now: Time, output: &mut Output) {
        self.start_strong(now);
        let mut waiting = std::mem::take(&mut self.strong.wishes.waiting);
        let mut stays = Vec::new();
        for mut wish in waiting.drain(..) {
            match self.consider(now, &mut wish, output) {
                Some(outcome) => self.answer_wisher(wish.by, outcome, output),
                None if wish.deadline <= now => {
                    self.answer_wisher(wish.by, Switched::Unknown, output);
                }
                None => stays.push(wish),
            }
        }
        stays.append(&mut self.strong.wishes.waiting);
        self.strong.wishes.waiting = stays;
        self.drive(now, output);
    }

    /// Has a cluster that is to start strong do so, once as many members are there as shall vote.
    fn start_strong(&mut self, now: Time) {
        let ledger = self.strong.ledger();
        if !self.config.starts_strong || ledger.opened.is_some() || self.fill.is_some() {
            return;
        }
        let due = self.strong.wishes.tried.is_none_or(|at| now.since(at) >= START_INTERVAL);
        if !due || self.strong.wishes.waits() || ledger.phase != Phase::Settled {
            return;
        }
        self.strong.wishes.tried = Some(now);
        let linked: BTreeSet<NodeId> = self
            .roster
            .actives()
            .map(|(node, _)| node)
            .filter(|node| self.is_open_to(*node))
            .chain([self.config.node])
            .collect();
        if linked.len() >= self.config.voters && linked.first() == Some(&self.config.node) {
            let order = SwitchOrder { to: Mode::Strong, without: Vec::new(), dry_run: false };
            let deadline = now + WISH_PATIENCE;
            let by = Wisher::Start;
            let wish = Wish { by, order, deadline, passed: None, begun: false };
            self.strong.wishes.waiting.push(wish);
        }
    }

    /// Whether writes go both ways between a member and this one.
    fn is_open_to(&self, node: NodeId) -> bool {
        node == self.config.node
            || self.peers.live(node).is_some_and(|link| link.takes && link.gives)
    }

    /// Brings a wish on its way; its outcome, if that is known at once.
    fn consider(&mut self, now: Time, wish: &mut Wish, output: &mut Output) -> Option<Switched> {
        if wish.begun || wish.passed.is_some() || self.strong.founding.is_some() {
            return None;
        }
        let ledger = self.strong.ledger();
        let (epoch, to) = (ledger.epoch, wish.order.to);
        let settled = ledger.phase == Phase::Settled;
        if ledger.mode() == to && settled {
            return Some(Switched::Already { epoch });
        }
        if !settled {
            // It joins the one that is under way, if that leads where it wants to go.
            wish.begun = to == Mode::Strong;
            return (!wish.begun).then_some(Switched::Underway);
        }
        let members: Vec<NodeId> = self
            .roster
            .actives()
            .map(|(node, _)| node)
            .chain([self.config.node])
            .filter(|node| !wish.order.without.contains(node))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if to == Mode::Strong
            && let Some(refused) = self.judge_members(&wish.order, &members)
        {
            return Some(refused);
        }
        if !self.has_group() {
            if wish.order.dry_run {
                let count = self.config.voters.clamp(1, super::VOTERS_MAX).min(members.len());
                let voters =
                    members.iter().copied().take(count - usize::from(count.is_multiple_of(2)));
                return Some(Switched::Possible { voters: voters.collect(), members });
            }
            self.leave_out(now, &wish.order.without, output);
            self.found(now, output);
            return None;
        }
        if !self.has_quorum() {
            return Some(Switched::NoQuorum);
        }
        if wish.order.dry_run {
            let voters = self.strong.ledger().seats.values().copied().collect();
            return Some(Switched::Possible { members, voters });
        }
        if !self.follows() {
            if self.strong.group.is_none() && self.strong.standing.seated {
                // It is about to vote.
                return None;
            }
            if matches!(wish.by, Wisher::Peer(..)) {
                return Some(Switched::Underway);
            }
            let seats = self.strong.ledger().seats.values().copied();
            let voter =
                seats.filter(|node| *node != self.config.node).find(|it| self.is_open_to(*it));
            let Some(voter) = voter else { return Some(Switched::NoQuorum) };
            let id = self.rng.u64(..);
            self.strong.wishes.next = id;
            wish.passed = Some((voter, id));
            self.say(voter, Word::Switch { id, order: wish.order.clone() }, output);
            return None;
        }
        let Some(next) = epoch.0.checked_add(1).map(Epoch) else {
            return Some(Switched::Underway);
        };
        let entry = match to {
            Mode::Strong => {
                self.leave_out(now, &wish.order.without, output);
                let by = self.strong.standing.voter.unwrap_or_default();
                Entry::Prepare { epoch: next, members, by }
            }
            Mode::Eventual => Entry::Relax { epoch: next },
        };
        wish.begun = self.propose_entry(now, &entry);
        None
    }

    /// Whether these members may switch now.
    fn judge_members(&self, order: &SwitchOrder, members: &[NodeId]) -> Option<Switched> {
        let primary = self.strong.primary.and_then(|primary| self.node_of(primary));
        for node in &order.without {
            let is_here = self.peers.live(*node).is_some();
            if *node == self.config.node || Some(*node) == primary || is_here {
                return Some(Switched::CannotLeaveOut { node: *node });
            }
            if !self.roster.members.contains_key(node) {
                return Some(Switched::NoMember { node: *node });
            }
        }
        let nodes: Vec<_> =
            members.iter().copied().filter(|node| !self.is_open_to(*node)).collect();
        (!nodes.is_empty()).then_some(Switched::Unreachable { nodes })
    }

    fn leave_out(&mut self, now: Time, without: &[NodeId], output: &mut Output) {
        for node in without {
            self.retire(now, *node, output);
        }
    }

    /// Proposes an entry that nobody waits for by itself; says whether it was taken.
    pub(super) fn propose_entry(&mut self, now: Time, entry: &Entry) -> bool {
        let Some(group) = &mut self.strong.group else { return false };
        group.propose(now, entry.encode().into()).is_ok()
    }

    /// For whom the switch waits that this voter drives.
    pub(super) fn switch_waits_for(&self) -> Vec<NodeId> {
        let ledger = self.strong.ledger();
        let (Phase::Preparing { members, .. }, Some(drive)) = (&ledger.phase, &self.strong.drive)
        else {
            let founding = self.strong.founding.as_ref();
            return founding.map(super::founding::Founding::waits_for).unwrap_or_default();
        };
        let fenced = members.iter().filter(|node| !drive.answers.contains_key(node));
        let drained = ledger.seats.values().filter(|node| !drive.drained.contains_key(node));
        match drive.base {
            None => fenced.copied().collect(),
            Some(_) => drained.copied().collect(),
        }
    }

    // Driving.

    /// The log has prepared a switch.
    pub(super) fn prepare_begins(&mut self, now: Time, by: Voter) {
        let ledger = self.strong.ledger();
        let Some(epoch) = ledger.epoch.0.checked_add(1).map(Epoch) else { return };
        let own = self.strong.standing.voter;
        let rank = ledger.seats.keys().position(|voter| Some(*voter) == own).unwrap_or(0);
        let pause = match own == Some(by) {
            true => Duration::ZERO,
            false => TAKEOVER * (1 + u32::try_from(rank).unwrap_or(u32::MAX / 8)),
        };
        self.strong.drive = Some(Drive {
            epoch,
            began: now,
            drives_at: now + pause,
            answers: BTreeMap::new(),
            base: None,
            drained: BTreeMap::new(),
            proposed: None,
        });
        for wish in &mut self.strong.wishes.waiting {
            wish.begun |= wish.order.to == Mode::Strong;
        }
        self.strong.next = Some(now);
    }

    fn drive(&mut self, now: Time, output: &mut Output) {
        let Phase::Preparing { members, by } = self.strong.ledger().phase.clone() else { return };
        if !self.follows() {
            return;
        }
        if self.strong.drive.is_none() {
            // After a restart.
            self.prepare_begins(now, by);
        }
        let Some(drive) = &self.strong.drive else { return };
        let epoch = drive.epoch;
        let waited = drive.proposed.is_some_and(|at| now.since(at) < Duration::from_secs(1));
        if now.since(drive.began) >= PATIENCE {
            if !waited {
                self.propose_end(now, &Entry::Abort { epoch });
            }
            return;
        }
        if drive.drives_at > now || waited {
            return;
        }
        let lacking: Vec<_> =
            members.iter().copied().filter(|node| !drive.answers.contains_key(node)).collect();
        for node in lacking {
            let fence = Word::Fence { epoch, members: members.clone() };
            self.say_or_hear(now, node, fence, output);
        }
        self.drain(now, &members, output);
    }

    fn propose_end(&mut self, now: Time, entry: &Entry) {
        if self.propose_entry(now, entry)
            && let Some(drive) = &mut self.strong.drive
        {
            drive.proposed = Some(now);
        }
    }

    pub(super) fn receive_fenced(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        held: VersionVector,
        lamport: Lamport,
        output: &mut Output,
    ) {
        let Phase::Preparing { members, .. } = &self.strong.ledger().phase else { return };
        let members = members.clone();
        let Some(drive) = &mut self.strong.drive else { return };
        if drive.epoch != epoch || !members.contains(&peer) || drive.base.is_some() {
            return;
        }
        drive.answers.insert(peer, (held, lamport));
        self.drain(now, &members, output);
    }

    /// Once all members are fenced, has the voters drain.
    fn drain(&mut self, now: Time, members: &[NodeId], output: &mut Output) {
        let voters: Vec<_> = self.strong.ledger().seats.values().copied().collect();
        let Some(drive) = &mut self.strong.drive else { return };
        if !members.iter().all(|node| drive.answers.contains_key(node)) {
            return;
        }
        let (base, _, _) = drive.base.get_or_insert_with(|| {
            let mut base = VersionVector::default();
            let mut lamport = Lamport(0);
            for (held, theirs) in drive.answers.values() {
                base.merge(held);
                lamport = lamport.max(*theirs);
            }
            let hash = DigestHash::of(&base);
            (Digest(base), hash, lamport)
        });
        let (base, epoch) = (base.clone(), drive.epoch);
        let lacking: Vec<_> = voters
            .into_iter()
            .filter(|node| members.contains(node) && !drive.drained.contains_key(node))
            .collect();
        for node in lacking {
            let drain = Word::Drain { epoch, base: base.clone() };
            self.say_or_hear(now, node, drain, output);
        }
    }

    pub(super) fn receive_drained(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        (base, fingerprint): (DigestHash, Fingerprint),
        output: &mut Output,
    ) {
        let majority = self.strong.ledger().majority();
        let is_voter = self.strong.ledger().seat_of(peer).is_some();
        let Some(drive) = &mut self.strong.drive else { return };
        let Some((digest, hash, lamport)) = &drive.base else { return };
        if drive.epoch != epoch || *hash != base || !is_voter || drive.proposed.is_some() {
            return;
        }
        drive.drained.insert(peer, fingerprint);
        if drive.drained.values().any(|other| *other != fingerprint) {
            self.tell_strong(StrongEvent::Differing, output);
            return self.propose_end(now, &Entry::Abort { epoch });
        }
        if drive.drained.len() >= majority {
            let (base, lamport) = (digest.clone(), *lamport);
            self.propose_end(now, &Entry::Open { epoch, base, lamport, fingerprint });
        }
    }

    // Being fenced.

    pub(super) fn receive_fence(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        members: Vec<NodeId>,
        output: &mut Output,
    ) {
        let next = self.epoch.0.checked_add(1).map(Epoch);
        let takes_part = members.contains(&self.config.node) && members.contains(&peer);
        if next != Some(epoch) || !takes_part || self.fill.is_some() {
            return;
        }
        if self.strong.standing.fenced != epoch {
            self.strong.standing.fenced = epoch;
            self.strong.standing.fenced_with = members;
            self.record_standing(output);
            self.tell_strong(StrongEvent::Fenced { epoch }, output);
        }
        let held = Digest(self.vector.clone());
        let lamport = self.lamport;
        self.say_durably(now, peer, Word::Fenced { epoch, held, lamport }, output);
    }

    /// Whether a fenced member takes what a peer sends.
    pub(in crate::protocol) fn fence_admits(&self, peer: NodeId) -> bool {
        let standing = &self.strong.standing;
        standing.fenced <= self.epoch || standing.fenced_with.contains(&peer)
    }

    pub(super) fn receive_drain(
        &mut self,
        now: Time,
        peer: NodeId,
        epoch: Epoch,
        base: VersionVector,
        output: &mut Output,
    ) {
        let standing = &self.strong.standing;
        if standing.fenced != epoch || epoch <= self.epoch || standing.voter.is_none() {
            return;
        }
        self.strong.fencing.drain = Some((peer, epoch, base));
        self.look_at_fence(now, output);
    }

    /// Answers a voter that asked to drain, once all of it is here.
    pub(super) fn look_at_fence(&mut self, now: Time, output: &mut Output) {
        let Some((peer, epoch, base)) = &self.strong.fencing.drain else { return };
        let (peer, epoch) = (*peer, *epoch);
        if self.fill.is_none() && self.vector.covers(base) {
            let base = DigestHash::of(base);
            self.strong.fencing.drain = None;
            let fingerprint = self.store.clients_fingerprint();
            let drained = Word::Drained { epoch, base, fingerprint };
            return self.say_durably(now, peer, drained, output);
        }
        let asked = self.strong.fencing.rounds;
        if asked.is_some_and(|at| now.since(at) < 2 * LOOK_INTERVAL) {
            return;
        }
        self.strong.fencing.rounds = Some(now);
        let members = self.strong.standing.fenced_with.iter().copied();
        let members: Vec<_> = members.filter(|node| self.peers.live(*node).is_some()).collect();
        for node in members.into_iter().take(DRAINED_FROM_MAX) {
            self.open_round(node, output);
        }
    }
}
