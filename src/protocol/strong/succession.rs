//! What comes after a group whose only voter has lost what it knew.
//!
//! With fewer than three members one of them votes. If it comes back without its records, or has to begin
//! anew, nobody could give it another seat: a majority of the voters is that very one. But it knows that it
//! was the only one, so no log can go on without it, and it never speaks under its number again. It founds
//! another group, which *succeeds* the old one.
//!
//! 1. It asks every active member to write nothing more by itself and to say what it holds, as a switch of
//!    the mode does. Who knows of other voters, or of a later epoch, says that instead of consenting.
//! 2. Once all have answered it fetches what it lacks. What all hold together is the base.
//! 3. It begins a later epoch of the same mode under a new charter, which names the groups that it succeeds.
//!    The others take it over as soon as they hear of it.
//!
//! What must stay true:
//! - all active members have been asked, also those that the others have heard of by then; who cannot be
//!   reached holds it up until it is retired;
//! - no stamp and no dot of the old group is used again: the epoch of the new log is beyond any that the old
//!   group can have begun, and its origin follows from the new charter;
//! - what the voter alone had and has not lost is not lost by this: it makes it anew while it fills itself.
//!
//! What nobody holds any more is lost: one voter survives no failure of its disk.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::digest::Digest;
use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::shard::Shard;
use super::super::stamp::{Epoch, Lamport};
use super::super::time::Time;
use super::super::version::VersionVector;
use super::ledger::{Charter, Ledger, Opened, log_origin};
use super::{LOOK_INTERVAL, StrongEvent, Word};

/// The most groups that a charter names as those before it: who has been away for longer begins anew in any
/// case, as a stranger.
const SUCCEEDED_MAX: usize = 16;

/// What a member is asked to consent to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// The group that is to be succeeded.
    group: [u8; 16],
    /// How far the sender knows it to have come.
    after: (Epoch, u64),
    /// The epoch to come.
    epoch: Epoch,
    /// Everybody who takes part.
    pub(super) members: Vec<NodeId>,
}

/// A succession that is under way here.
#[derive(Debug)]
pub(super) struct Succession {
    proposal: Proposal,
    answers: BTreeMap<NodeId, (VersionVector, Lamport)>,
    asked: Option<Time>,
}

impl Succession {
    /// Who has not answered yet.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        let members = self.proposal.members.iter().copied();
        members.filter(|node| !self.answers.contains_key(node)).collect()
    }
}

/// The number of the log that succeeds one of this epoch or the next.
fn log_after(epoch: Epoch) -> Option<Epoch> {
    epoch.0.checked_add(2).map(|later| Epoch(later | 1))
}

/// The epoch with which a group begins whose log has this number.
fn begins_at(log: Epoch, mode: Mode) -> Option<Epoch> {
    match mode {
        Mode::Strong => Some(log),
        // As if strong mode had begun and ended: what members held by then is the base.
        Mode::Eventual => log.0.checked_add(1).map(Epoch),
    }
}

impl Shard {
    /// Whether this member was the only voter, as far as it knows, and cannot go on as that.
    pub(in crate::protocol) fn is_bereft(&self) -> bool {
        let standing = &self.strong.standing;
        let seats = &standing.ledger.seats;
        let is_only = seats.len() == 1 && seats.values().all(|node| *node == self.config.node);
        let goes_on = standing.voter.is_some() && standing.sits(&standing.ledger);
        is_only && !(goes_on && standing.following)
    }

    /// Whether it was, by all that active members know: each has greeted since it was linked.
    pub(in crate::protocol) fn is_surely_bereft(&self) -> bool {
        let has_told = |node: &NodeId| {
            *node == self.config.node
                || self.peers.live(*node).is_some_and(|link| link.takes || link.filling)
        };
        self.is_bereft() && self.members_without(&[]).iter().all(has_told)
    }

    /// Goes on with a succession, or begins one.
    pub(super) fn look_at_succession(&mut self, now: Time, output: &mut Output) {
        let members = self.members_without(&[]);
        let must_fill = self.fill.is_some() || self.doubted && members.len() > 1;
        if !self.is_bereft() || must_fill || self.leaving {
            self.strong.succession = None;
            return;
        }
        let ledger = self.strong.ledger();
        let (after, mode) = ((ledger.epoch, ledger.slot), ledger.mode());
        let epoch = log_after(ledger.epoch).and_then(|log| begins_at(log, mode));
        let (Some(charter), Some(epoch)) = (&self.strong.standing.charter, epoch) else { return };
        let proposal = Proposal { group: charter.id, after, epoch, members };
        let goes_on = |succession: &Succession| succession.proposal == proposal;
        if !self.strong.succession.as_ref().is_some_and(goes_on) {
            if self.strong.standing.voter.is_some() {
                self.forget_voter(output);
            }
            debug_assert!(self.strong.group.is_none());
            self.be_fenced(epoch, &proposal.members, output);
            self.tell_strong(StrongEvent::Bereft { members: proposal.members.clone() }, output);
            let answers = [(self.config.node, (self.vector.clone(), self.lamport))].into();
            self.strong.succession = Some(Succession { proposal, answers, asked: None });
        }
        let Some(succession) = &mut self.strong.succession else { return };
        let is_due = succession.asked.is_none_or(|at| now.since(at) >= LOOK_INTERVAL);
        let lacking = succession.waits_for();
        if !lacking.is_empty() {
            if is_due {
                succession.asked = Some(now);
                let proposal = succession.proposal.clone();
                for node in lacking {
                    self.say(node, Word::Succeed(proposal.clone()), output);
                }
            }
            return;
        }
        let (mut base, mut lamport) = (VersionVector::default(), self.lamport);
        for (held, theirs) in succession.answers.values() {
            base.merge(held);
            lamport = lamport.max(*theirs);
        }
        if self.vector.covers(&base) {
            return self.succeed(now, epoch, lamport, output);
        }
        if is_due {
            succession.asked = Some(now + LOOK_INTERVAL);
            let nodes = succession.proposal.members.clone();
            nodes.into_iter().for_each(|node| {
                if self.peers.live(node).is_some() {
                    self.open_round(node, output);
                }
            });
        }
    }

    /// Begins the new group: all active members write nothing by themselves, and what they hold is here.
    fn succeed(&mut self, now: Time, epoch: Epoch, lamport: Lamport, output: &mut Output) {
        let old = std::mem::take(&mut self.strong.standing.ledger);
        let (Some(log), Some(before)) = (log_after(old.epoch), self.strong.standing.charter.take())
        else {
            return;
        };
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        let voter = self.fresh_voter(&old.seats);
        let voters: BTreeMap<_, _> = [(voter, self.config.node)].into();
        let mut succeeds = before.succeeds;
        succeeds.push(before.id);
        succeeds.drain(..succeeds.len().saturating_sub(SUCCEEDED_MAX));
        let origin = log_origin(&id, log);
        let base = Digest(self.vector.clone());
        let opened = Opened { epoch: log, base, lamport, origin, count: 0 };
        let standing = &mut self.strong.standing;
        standing.ledger = Ledger {
            epoch,
            opened: Some(opened),
            seats: voters.clone(),
            wanted: old.wanted,
            wall: old.wall,
            ..Ledger::default()
        };
        standing.charter = Some(Charter { id, voters, wanted: before.wanted, succeeds });
        (standing.voter, standing.seated, standing.following) = (Some(voter), true, true);
        standing.guests.clear();
        self.lamport = self.lamport.max(lamport);
        self.strong.succession = None;
        self.record_standing(output);
        output.append.urgent = true;
        self.tell_strong(StrongEvent::Succeeded { epoch }, output);
        self.enter(now, output);
    }

    /// A member that was the only voter asks for consent.
    pub(super) fn receive_succeed(
        &mut self,
        now: Time,
        peer: NodeId,
        proposal: Proposal,
        output: &mut Output,
    ) {
        let standing = &self.strong.standing;
        let ledger = &standing.ledger;
        let takes_part = |node: NodeId| proposal.members.contains(&node);
        if !takes_part(self.config.node) || !takes_part(peer) || self.fill.is_some() {
            return;
        }
        let is_ours = standing.charter.as_ref().is_some_and(|ours| ours.id == proposal.group);
        let knows_more = (ledger.epoch, ledger.slot) > proposal.after
            || !ledger.seats.values().all(|node| *node == peer);
        // It has just been seated, and may hold what was decided with its consent.
        let votes = self.strong.group.as_ref().is_some_and(|it| it.members().contains(&it.voter()));
        if !is_ours || knows_more || votes || proposal.epoch <= ledger.epoch {
            return self.greet(now, peer, false, output);
        }
        if standing.voter.is_some() {
            self.forget_voter(output);
        }
        self.be_fenced(proposal.epoch, &proposal.members, output);
        let (held, lamport) = (Digest(self.vector.clone()), self.lamport);
        let answer = Word::Fenced { epoch: proposal.epoch, held, lamport };
        self.say_durably(now, peer, answer, output);
    }

    /// A member answers; says whether it was asked for a succession.
    pub(super) fn receive_consent(
        &mut self,
        now: Time,
        (peer, epoch): (NodeId, Epoch),
        (held, lamport): (&VersionVector, Lamport),
    ) -> bool {
        let Some(succession) = &mut self.strong.succession else { return false };
        let Proposal { epoch: ours, members, .. } = &succession.proposal;
        if *ours == epoch && members.contains(&peer) {
            succession.answers.insert(peer, (held.clone(), lamport));
            self.strong.next = Some(now);
        }
        true
    }
}
