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
//! A member that joins meanwhile is in no fence. It holds its requests as soon as it has met anybody, and
//! the switch is given up if the voter that drives knows of such a member before it opens. It has drained
//! by then, so it knows of all that any member knew of when it was fenced. What a node has written before
//! it met anybody is a matter of `orphans`.
//!
//! A member that is left out by name is retired when the strong epoch begins, not before.
//!
//! # Strong to eventual
//! One entry of the log. A member makes writes of its own once it holds all that the log has written.
//!
//! # When something fails
//! If the voter that drives says nothing for a while, another drives: every step can be repeated. If
//! all takes too long, the log gives the switch up, and the next eventual epoch begins. Whichever of
//! opening and giving up comes first in the log holds. A member that is cut off while it is fenced
//! stays so until it hears how it ended.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::boundary::Output;
use super::super::digest::{Digest, DigestHash};
use super::super::id::NodeId;
use super::super::shard::Shard;
use super::super::stamp::{Epoch, Lamport};
use super::super::store::Fingerprint;
use super::super::time::Time;
use super::super::version::VersionVector;
use super::ledger::{Entry, Phase};
use super::{LOOK_INTERVAL, StrongEvent, Word};

/// After how long without an end another voter drives a switch; twice as long for the next, and so on.
const TAKEOVER: Duration = Duration::from_secs(3);

/// After how long a switch is given up.
const PATIENCE: Duration = Duration::from_secs(15);

/// With how many members a voter that drains opens a round at once.
const DRAINED_FROM_MAX: usize = 16;

/// What fenced members hold, and their counters.
pub(super) type Answers = BTreeMap<NodeId, (VersionVector, Lamport)>;

/// What all of them hold together, and the greatest counter.
pub(super) fn join(answers: &Answers) -> (VersionVector, Lamport) {
    let (mut base, mut lamport) = (VersionVector::default(), Lamport(0));
    for (held, theirs) in answers.values() {
        base.merge(held);
        lamport = lamport.max(*theirs);
    }
    (base, lamport)
}

/// A switch that this voter drives, or watches.
#[derive(Debug)]
pub(super) struct Drive {
    epoch: Epoch,
    began: Time,
    /// From when on this voter drives.
    drives_at: Time,
    answers: Answers,
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
    /// Retires the members that a switch has left out, now that its epoch has begun: not before, since it
    /// might have been given up. Every voter does so, since any may fail, and the first one suffices. A
    /// later life of such a member is not meant.
    pub(super) fn retire_left_out(
        &mut self,
        now: Time,
        without: &[(NodeId, u64)],
        output: &mut Output,
    ) {
        if self.fill.is_some() {
            return;
        }
        for (node, life) in without {
            let member = self.roster.members.get(node);
            if member.is_some_and(|(_, member)| member.incarnation <= *life) {
                self.retire(now, *node, output);
            }
        }
    }

    /// Members that take part and are neither fenced nor left out: they have joined since, or came to be
    /// known here by what others had heard before their fences.
    fn uncovered(&self) -> Vec<NodeId> {
        let Phase::Preparing { members, without, .. } = &self.strong.ledger().phase else {
            return Vec::new();
        };
        let is_covered =
            |node: &NodeId| members.contains(node) || without.iter().any(|(out, _)| out == node);
        self.members_without(&[]).into_iter().filter(|node| !is_covered(node)).collect()
    }

    /// Proposes an entry that nobody waits for by itself; says whether it was taken.
    pub(super) fn propose_entry(&mut self, now: Time, entry: &Entry) -> bool {
        let Some(group) = &mut self.strong.group else { return false };
        group.propose(now, entry.encode().into()).is_ok()
    }

    /// For whom this member waits: for the switch that it drives, to found a group or to succeed one.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        let ledger = self.strong.ledger();
        let (Phase::Preparing { members, .. }, Some(drive)) = (&ledger.phase, &self.strong.drive)
        else {
            let founding = self.strong.founding.as_ref();
            let waits_for = founding.map(super::founding::Founding::waits_for);
            return waits_for.unwrap_or_else(|| self.bereft_waits_for());
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
    pub(super) fn prepare_begins(&mut self, now: Time) {
        let ledger = &self.strong.standing.ledger;
        let Phase::Preparing { by, .. } = &ledger.phase else { return };
        let Some(epoch) = ledger.epoch.0.checked_add(1).map(Epoch) else { return };
        let own = self.strong.standing.voter;
        let rank = ledger.seats.keys().position(|voter| Some(*voter) == own).unwrap_or(0);
        let pause = match own == Some(*by) {
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
            // Of several that were proposed the first has come to pass.
            wish.begun = wish.order.refused_by(&ledger.phase).is_none();
        }
        self.strong.next = Some(now);
    }

    pub(super) fn drive(&mut self, now: Time, output: &mut Output) {
        let Phase::Preparing { members, .. } = self.strong.ledger().phase.clone() else { return };
        if !self.follows() {
            return;
        }
        if self.strong.drive.is_none() {
            // After a restart.
            self.prepare_begins(now);
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
        if self.give_up_uncovered(now, output) {
            return;
        }
        let Some(drive) = &self.strong.drive else { return };
        let lacking: Vec<_> =
            members.iter().copied().filter(|node| !drive.answers.contains_key(node)).collect();
        for node in lacking {
            let fence = Word::Fence { epoch, members: members.clone() };
            self.say_or_hear(now, node, fence, output);
        }
        self.drain(now, &members, output);
        self.open(now, output);
    }

    /// Gives the switch up if there are members that it does not cover: what they acknowledge would not
    /// count. Says whether it did.
    fn give_up_uncovered(&mut self, now: Time, output: &mut Output) -> bool {
        let nodes = self.uncovered();
        let (false, Some(drive)) = (nodes.is_empty(), &self.strong.drive) else { return false };
        let epoch = drive.epoch;
        self.tell_strong(StrongEvent::Joined { nodes }, output);
        self.propose_end(now, &Entry::Abort { epoch });
        true
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
            let (base, lamport) = join(&drive.answers);
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
        let is_voter = self.strong.ledger().seat_of(peer).is_some();
        let Some(drive) = &mut self.strong.drive else { return };
        let Some((_, hash, _)) = &drive.base else { return };
        if drive.epoch != epoch || *hash != base || !is_voter || drive.proposed.is_some() {
            return;
        }
        drive.drained.insert(peer, fingerprint);
        if drive.drained.values().any(|other| *other != fingerprint) {
            self.tell_strong(StrongEvent::Differing, output);
            return self.propose_end(now, &Entry::Abort { epoch });
        }
        self.open(now, output);
    }

    /// Opens the strong epoch, if a majority has drained and this voter is among them: from then on it
    /// knows of every member that a fenced one knew of.
    fn open(&mut self, now: Time, output: &mut Output) {
        let majority = self.strong.ledger().majority();
        let Some(Drive { epoch, drained, base: Some((base, _, lamport)), .. }) = &self.strong.drive
        else {
            return;
        };
        let Some(fingerprint) = drained.get(&self.config.node).copied() else { return };
        if drained.len() < majority {
            return;
        }
        let (epoch, base, lamport) = (*epoch, base.clone(), *lamport);
        if !self.give_up_uncovered(now, output) {
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
        self.be_fenced(epoch, &members, output);
        let held = Digest(self.vector.clone());
        let lamport = self.lamport;
        self.say_durably(now, peer, Word::Fenced { epoch, held, lamport }, output);
    }

    /// Makes no more writes of its own until this epoch has begun.
    pub(super) fn be_fenced(&mut self, epoch: Epoch, members: &[NodeId], output: &mut Output) {
        let standing = &mut self.strong.standing;
        if standing.fenced != epoch || standing.fenced_with != members {
            standing.fenced = epoch;
            standing.fenced_with = members.to_vec();
            self.record_standing(output);
            self.tell_strong(StrongEvent::Fenced { epoch }, output);
        }
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
