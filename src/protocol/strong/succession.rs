//! What comes after a group whose only voter has lost what it knew.
//!
//! With fewer than three members one of them votes. If it comes back without its records, or has to begin
//! anew, nobody could give it another seat: a majority of the voters is that very one. But it knows that it
//! was the only one, so no log can go on without it, and it never speaks under its number again. It founds
//! another group, which *succeeds* the old one.
//!
//! 1. Once every active member can be reached it asks them to write nothing more by themselves and to say what
//!    they hold, as a switch of the mode does. Who knows of other voters, or of a later epoch, says that instead
//!    of consenting.
//! 2. Once all have answered it fetches what it lacks. What all hold together is the base.
//! 3. It begins a later epoch of the same mode under a new charter, which names the groups that it succeeds.
//!    The others take it over as soon as they hear of it.
//!
//! What must stay true:
//! - all active members have been asked, also those that the others have heard of by then; who cannot be
//!   reached holds it up until it is retired;
//! - who knows of another voter does not take the new group over. If all that could be asked were as much out
//!   of date as the founder, there are two clusters, which stay apart and say so;
//! - no stamp and no dot of the old group is used again: the epoch of the new log is beyond any that the old
//!   group can have begun, and its origin follows from the new charter;
//! - what the voter alone had and has not lost is not lost by this: it is there again when it has filled itself;
//! - it asks only once it has forgotten durably that it was the voter.
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
use super::switch::{Answers, join};
use super::{LOOK_INTERVAL, StrongEvent, Word};

/// The most groups that a charter names as those before it: a greeting has them all. Who has been away for
/// longer is sent away as a stranger.
const SUCCEEDED_MAX: usize = 64;

/// From how many members a founder fetches at once.
const FETCHED_FROM_MAX: usize = 16;

/// What a member is asked to consent to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Names it; drawn at random.
    number: u64,
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
    answers: Answers,
    asked: Option<Time>,
}

impl Succession {
    /// Who has not answered yet.
    fn waits_for(&self) -> Vec<NodeId> {
        let members = self.proposal.members.iter().copied();
        members.filter(|node| !self.answers.contains_key(node)).collect()
    }
}

/// The number of a log that comes after all that a group can have begun of which a member knows this epoch:
/// the next epoch may have begun where only the voter that was lost knew of it.
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
        self.has_the_only_seat() && !(standing.sits(&standing.ledger) && standing.following)
    }

    fn has_the_only_seat(&self) -> bool {
        let seats = &self.strong.ledger().seats;
        seats.len() == 1 && seats.values().all(|node| *node == self.config.node)
    }

    /// Whether it was for certain: its records are whole, or each active member has told what it knows.
    pub(in crate::protocol) fn is_surely_bereft(&self) -> bool {
        let standing = &self.strong.standing;
        let has_told = |node: &NodeId| {
            *node == self.config.node
                || self.peers.live(*node).is_some_and(|link| link.takes || link.filling)
        };
        self.is_bereft()
            && (standing.sits(&standing.ledger) || self.members_without(&[]).iter().all(has_told))
    }

    /// For whom a member waits that is bereft.
    pub(super) fn bereft_waits_for(&self) -> Vec<NodeId> {
        match &self.strong.succession {
            Some(succession) => succession.waits_for(),
            None if self.is_bereft() => {
                let members = self.members_without(&[]);
                members.into_iter().filter(|node| !self.is_open_to(*node)).collect()
            }
            None => Vec::new(),
        }
    }

    /// Goes on with a succession, or begins one.
    pub(super) fn look_at_succession(&mut self, now: Time, output: &mut Output) {
        if !self.is_bereft() || self.leaving {
            self.strong.succession = None;
            self.strong.lacking.clear();
            return;
        }
        let members = self.members_without(&[]);
        let must_fill = self.fill.is_some() || self.doubted && members.len() > 1;
        if must_fill || self.strong.standing.left_out {
            self.strong.succession = None;
            return self.tell_lacking(output);
        }
        if !self.proposes_to(&members) && !self.propose_succession(members, output) {
            return self.tell_lacking(output);
        }
        let Some(succession) = &mut self.strong.succession else { return };
        let is_due = succession.asked.is_none_or(|at| now.since(at) >= LOOK_INTERVAL);
        let have_all_answered = succession.waits_for().is_empty();
        if have_all_answered {
            let (base, lamport) = join(&succession.answers);
            if self.vector.covers(&base) {
                return self.succeed(now, lamport.max(self.lamport), output);
            }
        }
        if !is_due {
            return;
        }
        succession.asked = Some(now);
        // Also those that have answered: one may have lost since what it held then.
        let proposal = succession.proposal.clone();
        let own = self.config.node;
        for node in proposal.members.iter().filter(|node| **node != own) {
            // Durably: who is asked must not hear of the old voter again.
            self.say_durably(now, *node, Word::Succeed(proposal.clone()), output);
        }
        if have_all_answered {
            self.fetch_from(&proposal.members, output);
        }
    }

    /// Says for whom it waits, once.
    fn tell_lacking(&mut self, output: &mut Output) {
        let nodes = self.bereft_waits_for();
        if self.strong.lacking != nodes {
            self.strong.lacking.clone_from(&nodes);
            if !nodes.is_empty() {
                self.tell_strong(StrongEvent::Bereft { nodes }, output);
            }
        }
    }

    /// Whether the succession that is under way is what these members should be asked for.
    fn proposes_to(&self, members: &[NodeId]) -> bool {
        let ledger = self.strong.ledger();
        self.strong.succession.as_ref().is_some_and(|succession| {
            let Proposal { after, members: asked, .. } = &succession.proposal;
            *after == (ledger.epoch, ledger.slot) && asked == members
        })
    }

    /// Begins a succession, if all members can be reached: who is asked makes no more writes until it has
    /// ended. Says whether it did.
    fn propose_succession(&mut self, members: Vec<NodeId>, output: &mut Output) -> bool {
        self.strong.succession = None;
        let ledger = self.strong.ledger();
        let (after, mode) = ((ledger.epoch, ledger.slot), ledger.mode());
        let epoch = log_after(ledger.epoch).and_then(|log| begins_at(log, mode));
        let (Some(charter), Some(epoch)) = (&self.strong.standing.charter, epoch) else {
            return false;
        };
        let group = charter.id;
        if !members.iter().all(|node| self.is_open_to(*node)) {
            return false;
        }
        if self.strong.standing.voter.is_some() {
            self.forget_voter(output);
        }
        self.be_fenced(epoch, &members, output);
        let proposal = Proposal { number: self.rng.u64(..), group, after, epoch, members };
        let answers = [(self.config.node, (VersionVector::default(), self.lamport))].into();
        self.strong.succession = Some(Succession { proposal, answers, asked: None });
        true
    }

    fn fetch_from(&mut self, members: &[NodeId], output: &mut Output) {
        let brings = |node: &NodeId| self.exchanges.incoming.iter().any(|(from, _)| from == node);
        let nodes = members.iter().copied();
        let nodes = nodes.filter(|node| self.peers.live(*node).is_some() && !brings(node));
        let nodes: Vec<_> = nodes.take(FETCHED_FROM_MAX).collect();
        nodes.into_iter().for_each(|node| self.open_round(node, output));
    }

    /// Begins the new group: all active members write nothing by themselves, and what they hold is here.
    fn succeed(&mut self, now: Time, lamport: Lamport, output: &mut Output) {
        let Some(Succession { proposal: Proposal { epoch, .. }, .. }) =
            self.strong.succession.take()
        else {
            return;
        };
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
        self.lamport = lamport;
        self.record_standing(output);
        output.append.urgent = true;
        self.tell_strong(StrongEvent::Succeeded { epoch }, output);
        self.enter(now, output);
        self.strong.next = Some(now);
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
        let cannot_tell = self.fill.is_some() || self.doubted || standing.left_out;
        if !takes_part(self.config.node) || !takes_part(peer) || cannot_tell {
            return;
        }
        let is_ours = standing.charter.as_ref().is_some_and(|ours| ours.id == proposal.group);
        let knows_more = (ledger.epoch, ledger.slot) > proposal.after
            || !ledger.seats.values().all(|node| *node == peer);
        // It has just been seated, and may hold what was decided with its consent.
        let votes = self.strong.group.as_ref().is_some_and(|it| it.members().contains(&it.voter()));
        if !is_ours || knows_more || votes || proposal.epoch <= ledger.epoch {
            return self.ask_greeting(now, peer, output);
        }
        if standing.voter.is_some() {
            self.forget_voter(output);
        }
        self.be_fenced(proposal.epoch, &proposal.members, output);
        let (number, held, lamport) = (proposal.number, Digest(self.vector.clone()), self.lamport);
        self.say_durably(now, peer, Word::Consent { number, held, lamport }, output);
    }

    /// A member consents, and tells what it holds.
    pub(super) fn receive_consent(
        &mut self,
        now: Time,
        (peer, number): (NodeId, u64),
        held: VersionVector,
        lamport: Lamport,
    ) {
        if let Some(Succession { proposal, answers, .. }) = &mut self.strong.succession
            && proposal.number == number
            && proposal.members.contains(&peer)
        {
            answers.insert(peer, (held, lamport));
            self.strong.next = Some(now);
        }
    }

    /// Whether a group that comes after this member's own may be taken over: its founder was the only voter
    /// by all that is known here, so nobody can have gone on without it.
    pub(super) fn is_succeeded_by(&self, charter: &Charter, epoch: Epoch) -> bool {
        let ours = &self.strong.standing.charter;
        let founder = charter.voters.values().next();
        ours.as_ref().is_some_and(|ours| charter.succeeds.contains(&ours.id))
            && self.strong.ledger().seats.values().all(|node| Some(node) == founder)
            && epoch > self.epoch
    }

    /// The fence of a succession ends with it, if another member's ledger shows that there are other voters.
    pub(super) fn lift_fence(&mut self, theirs: &Ledger) {
        let standing = &mut self.strong.standing;
        let next = standing.ledger.epoch.0.saturating_add(1);
        let founders: Vec<_> = standing.ledger.seats.values().copied().collect();
        if standing.fenced.0 > next && !theirs.seats.values().all(|node| founders.contains(node)) {
            standing.fenced = Epoch(0);
            standing.fenced_with.clear();
        }
    }
}
