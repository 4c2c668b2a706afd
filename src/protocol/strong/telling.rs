//! What greetings tell of the group and the mode.
//!
//! A member that does not vote, or has been away, learns here in which epoch the cluster is. A voter
//! that follows the log believes the log only. Two groups cannot become one once both have been in use:
//! such members do not take part with each other.

use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::event::Misdeed;
use super::super::id::NodeId;
use super::super::shard::Shard;
use super::super::stamp::Epoch;
use super::super::time::{Time, WallTime};
use super::ledger::{Ledger, Phase};
use super::{Charter, StrongEvent, Voter};

/// What a greeting says of the group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Knows {
    /// The group that the sender has consented to.
    charter: Charter,
    /// How far it has come, if it has begun.
    pub(super) ledger: Option<Ledger>,
    /// The number of the last record that the sender has heard of from the receiver, as a voter.
    heard: Option<(Voter, u64)>,
    /// What the sender's clock shows.
    wall: WallTime,
}

impl Shard {
    /// What to tell a peer.
    pub(in crate::protocol) fn knows(&self, peer: NodeId) -> Option<Box<Knows>> {
        let charter = self.strong.standing.charter.clone()?;
        let ledger = self.strong.ledger();
        let seat = ledger.seat_of(peer);
        let heard = seat.and_then(|voter| Some((voter, self.strong.heard.get(&voter)?.0)));
        let mut ledger = self.has_group().then(|| ledger.clone());
        let standing = &self.strong.standing;
        if let Some(ledger) = &mut ledger
            && standing.fenced > ledger.epoch
            && ledger.phase == Phase::Settled
        {
            // It does not vote, and knows of the switch by its fence only. Who joins now has to know.
            let members = standing.fenced_with.clone();
            ledger.phase = Phase::Preparing { members, by: Voter(0), without: Vec::new() };
        }
        Some(Box::new(Knows { charter, ledger, heard, wall: self.wall() }))
    }

    /// Takes in what a peer tells; says whether it can be taken part with.
    pub(in crate::protocol) fn receive_knows(
        &mut self,
        now: Time,
        peer: NodeId,
        knows: Knows,
        output: &mut Output,
    ) -> bool {
        let Knows { charter, ledger, heard, wall } = knows;
        self.strong.clocks.hear(now, peer, wall);
        self.recall(heard, output);
        let Some(theirs) = ledger else { return true };
        let ours = self.strong.standing.charter.as_ref().map(|charter| charter.id);
        if ours == Some(charter.id) && self.strong.ledger().seat_of(peer).is_some() {
            self.strong.greeted.insert(peer);
        }
        if self.has_group() && self.is_succeeded_by(&charter, theirs.epoch) {
            if self.strong.standing.voter.is_some() {
                self.forget_voter(output);
            }
            self.strong.standing.ledger.seats.clear();
        }
        let is_succeeded = |ours: &Charter| ours.succeeds.contains(&charter.id);
        if self.strong.standing.charter.as_ref().is_some_and(is_succeeded) {
            // It will hear from the greeting that answers.
            return true;
        }
        if ours != Some(charter.id) && self.has_group() {
            let opened = (self.strong.ledger().opened.is_some(), theirs.opened.is_some());
            match opened {
                (true, true) => {
                    let voters = |ledger: &Ledger| ledger.seats.values().copied().collect();
                    let (ours, theirs) = (voters(self.strong.ledger()), voters(&theirs));
                    self.tell_strong(StrongEvent::Strangers { peer, ours, theirs }, output);
                    self.quarantine(peer, Misdeed::Stranger, output);
                    return false;
                }
                (true, false) => return true,
                (false, false) if ours < Some(charter.id) => return true,
                _ => self.forget_voter(output),
            }
        }
        if ours != Some(charter.id) {
            // Its own group was never in use, or there was none.
            self.strong.founding = None;
            self.strong.standing.charter = Some(charter);
            self.strong.standing.ledger = Ledger { epoch: self.epoch, ..Ledger::default() };
            self.record_standing(output);
        } else if !self.has_group() {
            self.strong.founding = None;
            self.begin_group(&charter, output);
        }
        let standing = &self.strong.standing;
        let lost_seat = standing.seated
            && theirs.slot > standing.ledger.slot
            && standing.voter.is_some_and(|voter| !theirs.seats.contains_key(&voter));
        if lost_seat {
            // The log goes on without this voter, which may never be told so by it.
            self.forget_voter(output);
        }
        self.hear_of_slots(theirs.slot);
        self.adopt(now, theirs, output);
        true
    }

    /// Takes over a peer's epoch, if neither knows of a group: what it has was brought back from a cluster
    /// that has switched.
    pub(in crate::protocol) fn reach_epoch(&mut self, epoch: Epoch, output: &mut Output) -> bool {
        let is_eventual = epoch.0.is_multiple_of(2);
        if self.strong.standing.charter.is_none() && epoch > self.epoch && is_eventual {
            self.epoch = epoch;
            self.strong.standing.ledger.epoch = epoch;
            self.record_standing(output);
        }
        true
    }

    /// Takes over a ledger that is further than this member's own, unless the log brings it.
    fn adopt(&mut self, now: Time, theirs: Ledger, output: &mut Output) {
        let standing = &self.strong.standing;
        let ours = &standing.ledger;
        let further =
            (theirs.epoch, theirs.slot) > (ours.epoch, ours.slot) || ours.seats.is_empty();
        if !further || standing.voter.is_some() && standing.following {
            return;
        }
        let enters = theirs.epoch > self.epoch;
        self.lift_fence(&theirs);
        self.lamport =
            self.lamport.max(theirs.opened.as_ref().map_or(self.lamport, |opened| opened.lamport));
        self.strong.standing.ledger = theirs;
        if enters {
            self.enter(now, output);
        }
        self.record_standing(output);
    }

    /// Whether others have heard more of this voter than it remembers.
    fn recall(&mut self, heard: Option<(Voter, u64)>, output: &mut Output) {
        let (Some((voter, heard)), true) = (heard, self.strong.standing.voter.is_some()) else {
            return;
        };
        let own = match &self.strong.group {
            Some(group) => group.records().0,
            None => self.strong.recovered.0,
        };
        if self.strong.standing.voter == Some(voter) && heard > own {
            self.forget_voter(output);
        }
    }
}
