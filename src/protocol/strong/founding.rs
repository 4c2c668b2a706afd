//! How the group of voters begins: every member consents to the same one.
//!
//! Two members might begin a group each. So a group begins only when all active members have consented
//! to it, durably, and a member consents to one group only until its founder takes that back. A founder
//! that is refused takes its own back if the other has the smaller name; so of several one is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::boundary::Output;
use super::super::id::NodeId;
use super::super::shard::Shard;
use super::super::time::Time;
use super::ledger::Ledger;
use super::{Charter, StrongEvent, Switched, Voter, Word};

/// How long members may take to consent.
const PATIENCE: Duration = Duration::from_secs(10);

/// A group that is about to begin.
#[derive(Debug)]
pub(super) struct Founding {
    charter: Charter,
    waits_for: BTreeSet<NodeId>,
    deadline: Time,
}

impl Founding {
    /// Who has not consented yet.
    pub(super) fn waits_for(&self) -> Vec<NodeId> {
        self.waits_for.iter().copied().collect()
    }
}

impl Shard {
    /// Whether a group of voters exists, as far as this member knows.
    pub(super) fn has_group(&self) -> bool {
        !self.strong.ledger().seats.is_empty()
    }

    /// Begins to found a group among the active members, but for those that are left out.
    pub(super) fn found(&mut self, now: Time, without: &[NodeId], output: &mut Output) {
        if self.strong.founding.is_some() || self.has_group() {
            return;
        }
        let members: BTreeSet<NodeId> = self.members_without(without).into_iter().collect();
        let charter = match self.strong.standing.charter.clone() {
            // Somebody's, perhaps this node's own of an earlier life: it is gone on with.
            Some(charter) => charter,
            None => {
                let wanted = self.config.voters.clamp(1, super::VOTERS_MAX).min(members.len());
                // An even number survives no more failures than one less.
                let count = if wanted.is_multiple_of(2) { wanted - 1 } else { wanted }.max(1);
                let own = [self.config.node];
                let others = members.iter().copied().filter(|node| *node != own[0]);
                let nodes: Vec<_> = own.into_iter().chain(others).take(count).collect();
                let mut voters = BTreeMap::new();
                for node in nodes {
                    voters.insert(self.fresh_voter(&voters), node);
                }
                let mut id = [0; 16];
                self.rng.fill(&mut id);
                let wanted = u32::try_from(self.config.voters).unwrap_or(u32::MAX);
                Charter { id, voters, wanted, succeeds: Vec::new() }
            }
        };
        self.consent(charter.clone(), output);
        let waits_for = members.into_iter().filter(|node| *node != self.config.node).collect();
        self.strong.founding = Some(Founding { charter, waits_for, deadline: now + PATIENCE });
        self.look_at_founding(now, output);
    }

    /// A number that no voter has had: drawn at random.
    pub(super) fn fresh_voter(&mut self, taken: &BTreeMap<Voter, NodeId>) -> Voter {
        loop {
            let voter = Voter(self.rng.u32(1..));
            if !taken.contains_key(&voter) && !self.strong.ledger().seats.contains_key(&voter) {
                return voter;
            }
        }
    }

    fn consent(&mut self, charter: Charter, output: &mut Output) {
        if self.strong.standing.charter.as_ref() == Some(&charter) {
            return;
        }
        self.strong.standing.charter = Some(charter);
        self.record_standing(output);
        output.append.urgent = true;
    }

    /// Asks those who have not consented, and begins when all have.
    pub(super) fn look_at_founding(&mut self, now: Time, output: &mut Output) {
        let Some(founding) = &self.strong.founding else { return };
        if founding.waits_for.is_empty() {
            let charter = founding.charter.clone();
            self.strong.founding = None;
            self.begin_group(&charter, output);
            // Whoever wished for a switch gets it now.
            self.look_at_switch(now, output);
            self.greet_all(now, output);
            return;
        }
        let charter = founding.charter.clone();
        let waits_for: Vec<_> = founding.waits_for.iter().copied().collect();
        if founding.deadline <= now {
            self.strong.founding = None;
            self.unfound(&charter.id, output);
            return self.answer_wishes(Switched::Unreachable { nodes: waits_for }, output);
        }
        for node in waits_for {
            self.say(node, Word::Found { charter: charter.clone() }, output);
        }
    }

    /// The group begins: all have consented.
    pub(super) fn begin_group(&mut self, charter: &Charter, output: &mut Output) {
        let seats = charter.voters.clone();
        let voter = seats.iter().find(|(_, node)| **node == self.config.node);
        let voter = voter.map(|(voter, _)| *voter);
        let standing = &mut self.strong.standing;
        let (epoch, wanted) = (self.epoch, charter.wanted);
        standing.ledger = Ledger { epoch, seats, wanted, ..Ledger::default() };
        (standing.voter, standing.following) = (voter, voter.is_some());
        standing.seated = voter.is_some();
        self.record_standing(output);
        output.append.urgent = true;
        self.tell_strong(StrongEvent::Founded, output);
    }

    fn unfound(&mut self, id: &[u8; 16], output: &mut Output) {
        if self.has_group() {
            return;
        }
        let standing = &mut self.strong.standing;
        if standing.charter.take_if(|charter| charter.id == *id).is_some() {
            self.record_standing(output);
            let peers: Vec<_> = self.peers.ids().collect();
            for peer in peers {
                self.say(peer, Word::Unfound { id: *id }, output);
            }
        }
    }

    pub(super) fn receive_found(
        &mut self,
        now: Time,
        peer: NodeId,
        charter: Charter,
        output: &mut Output,
    ) {
        let is_sound = !charter.voters.is_empty()
            && charter.voters.len() <= super::VOTERS_MAX
            && charter.voters.values().collect::<BTreeSet<_>>().len() == charter.voters.len();
        if !is_sound || self.fill.is_some() {
            return;
        }
        let ours = self.strong.standing.charter.as_ref().map(|charter| charter.id);
        match ours {
            None => self.consent(charter.clone(), output),
            Some(id) if id == charter.id => {}
            // The greeting tells which group there is.
            Some(_) if self.has_group() => return self.greet(now, peer, false, output),
            Some(id) => {
                if let Some(founding) = &self.strong.founding
                    && founding.charter.id == id
                    && charter.id < id
                {
                    self.strong.founding = None;
                    self.unfound(&id, output);
                    self.consent(charter, output);
                }
            }
        }
        let Some(id) = self.strong.standing.charter.as_ref().map(|charter| charter.id) else {
            return;
        };
        self.say_durably(now, peer, Word::Founded { id }, output);
    }

    pub(super) fn receive_founded(
        &mut self,
        now: Time,
        peer: NodeId,
        id: [u8; 16],
        output: &mut Output,
    ) {
        let Some(founding) = &mut self.strong.founding else { return };
        if founding.charter.id == id {
            founding.waits_for.remove(&peer);
            if founding.waits_for.is_empty() {
                self.look_at_founding(now, output);
            }
        } else if id < founding.charter.id {
            let own = founding.charter.id;
            self.strong.founding = None;
            self.unfound(&own, output);
            self.answer_wishes(Switched::Underway, output);
        }
    }

    pub(super) fn receive_unfound(&mut self, id: [u8; 16], output: &mut Output) {
        if self.has_group() || self.strong.founding.is_some() {
            return;
        }
        if self.strong.standing.charter.take_if(|charter| charter.id == id).is_some() {
            self.record_standing(output);
        }
    }
}
