//! Who votes: voters that come, go, and come back without their records.
//!
//! A change is two steps. An entry of the log tells where the new voter sits, so that every voter can
//! send to it; then the log itself is asked to take it in. One change at a time, so that no majority of
//! the old voters and of the new ones could fail to meet.
//!
//! A voter whose records are gone, or older than what others have heard from it, could contradict what
//! it has said. It never speaks under its number again, but asks for a seat under a new one.
//!
//! There should be as many voters as was asked for, an odd number of them, as far as there are members.

use std::time::Duration;

use super::super::boundary::Output;
use super::super::id::NodeId;
use super::super::shard::Shard;
use super::super::time::Time;
use super::ledger::{Entry, Phase};
use super::{StrongEvent, Voter, Word};

/// How often a member asks for a seat.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// How many former voters are remembered, to answer what they still ask.
const GUESTS_MAX: usize = 32;

impl Shard {
    /// How many voters there should be now.
    fn voters_wanted(&self) -> usize {
        let wanted = self.strong.ledger().wanted as usize;
        let members = self.roster.actives().count().max(1);
        let wanted = wanted.clamp(1, super::VOTERS_MAX).min(members);
        if wanted.is_multiple_of(2) { wanted - 1 } else { wanted }
    }

    /// The seat of a member that has gone for good.
    fn seat_to_give_up(&self) -> Option<Voter> {
        let seats = &self.strong.ledger().seats;
        let gone = |node: NodeId| {
            self.roster.members.contains_key(&node) && self.roster.active(node).is_none()
        };
        seats.iter().find(|(_, node)| gone(**node)).map(|(voter, _)| *voter)
    }

    /// Asks for a seat, if there should be one; and sees to changes that are under way.
    pub(super) fn look_at_seats(&mut self, now: Time, output: &mut Output) {
        if !self.has_group() || self.leaving || self.fill.is_some() || self.is_bereft() {
            return;
        }
        if self.strong.asked_seat.is_some_and(|at| now.since(at) < ASK_INTERVAL) {
            return;
        }
        self.strong.asked_seat = Some(now);
        self.see_to_seats(now);
        let ledger = self.strong.ledger();
        let own = ledger.seat_of(self.config.node);
        let voter = self.strong.standing.voter;
        if own.is_some() && own == voter {
            return;
        }
        let room = ledger.seats.len() < self.voters_wanted() || self.seat_to_give_up().is_some();
        if own.is_none() && !room {
            let waits = |group: &super::Group| !group.members().contains(&group.voter());
            if self.strong.group.as_ref().is_some_and(waits) {
                // Somebody else was seated: without a seat the log tells it nothing.
                self.forget_voter(output);
            }
            return;
        }
        let voter = match voter {
            Some(voter) => voter,
            None => {
                let taken = ledger.seats.clone();
                let voter = self.fresh_voter(&taken);
                self.strong.standing.voter = Some(voter);
                self.strong.standing.following = false;
                self.record_standing(output);
                voter
            }
        };
        let seats = self.strong.ledger().seats.values().copied();
        let others: Vec<_> = seats
            .filter(|node| *node != self.config.node && self.peers.live(*node).is_some())
            .collect();
        if let Some(node) = self.rng.choice(others) {
            self.say_durably(now, node, Word::Seat { voter }, output);
        }
    }

    /// Has the log take in the voters of the ledger, and gives up seats that are too many.
    fn see_to_seats(&mut self, now: Time) {
        if !self.follows() || self.strong.ledger().phase != Phase::Settled {
            return;
        }
        let ledger = self.strong.ledger();
        let Some(mut members) = self.strong.group.as_ref().map(super::Group::members) else {
            return;
        };
        // Whoever the log has not taken in may not be able to: it may have come back without that number.
        let is_up = |node: NodeId| node == self.config.node || self.peers.live(node).is_some();
        let first =
            ledger.seats.iter().find(|(voter, node)| members.contains(voter) && is_up(**node));
        // One of them does it; if two do, the log takes the first.
        if first.map(|(_, node)| *node) != Some(self.config.node) {
            return;
        }
        let seats: Vec<Voter> = ledger.seats.keys().copied().collect();
        let too_many = ledger.seats.len() > self.voters_wanted();
        let gone = self.seat_to_give_up();
        let Some(group) = &mut self.strong.group else { return };
        members.sort_unstable();
        if members != seats {
            // If a change is under way it is tried again.
            let _ = group.seat(now, &seats);
        } else if let (true, Some(voter)) = (too_many, gone.or_else(|| self.seat_too_many())) {
            self.propose_entry(now, &Entry::Seat { voter, node: None });
        }
    }

    /// A seat beyond an odd number of them: it makes writes slower and nothing safer. One of somebody who
    /// cannot be reached, else the last one. Two are left as they are, since the other one is a copy.
    fn seat_too_many(&self) -> Option<Voter> {
        let seats = &self.strong.ledger().seats;
        if seats.len() < 3 {
            return None;
        }
        let mut others = seats.iter().filter(|(voter, node)| {
            **node != self.config.node && Some(**voter) != self.strong.primary
        });
        let is_down = |(_, node): &(&Voter, &NodeId)| self.peers.live(**node).is_none();
        let last = others.clone().next_back();
        others.find(is_down).or(last).map(|(voter, _)| *voter)
    }

    pub(super) fn receive_seat(
        &mut self,
        now: Time,
        peer: NodeId,
        voter: Voter,
        output: &mut Output,
    ) {
        let ledger = self.strong.ledger();
        if ledger.seats.get(&voter) == Some(&peer) {
            // It has not heard of it.
            return self.greet(now, peer, false, output);
        }
        if !self.follows() || ledger.phase != Phase::Settled || ledger.seats.contains_key(&voter) {
            return;
        }
        let Some(group) = &self.strong.group else { return };
        let mut members = group.members();
        members.sort_unstable();
        if !members.iter().eq(ledger.seats.keys()) {
            // A change is under way.
            return;
        }
        let old = ledger.seat_of(peer).or_else(|| self.seat_to_give_up());
        let is_member = self.roster.active(peer).is_some();
        let room = ledger.seats.len() < self.voters_wanted();
        if !is_member || old.is_none() && !room {
            return;
        }
        let replaces = old.filter(|_| !room || ledger.seat_of(peer).is_some());
        if let Some(voter) = replaces {
            self.propose_entry(now, &Entry::Seat { voter, node: None });
        }
        self.propose_entry(now, &Entry::Seat { voter, node: Some(peer) });
    }

    pub(super) fn apply_seat(
        &mut self,
        now: Time,
        voter: Voter,
        node: Option<NodeId>,
        output: &mut Output,
    ) {
        let standing = &mut self.strong.standing;
        // While a switch is under way the majority that drains is that of before. And of several that were
        // proposed at the same time only as many are seated as there should be.
        let is_full = standing.ledger.seats.len() >= standing.ledger.seats_max();
        if standing.ledger.phase != Phase::Settled || node.is_some() && is_full {
            return;
        }
        if standing.guests.len() >= GUESTS_MAX {
            standing.guests.pop_first();
        }
        match node {
            Some(node) => {
                if standing.ledger.seat_of(node).is_some() {
                    return;
                }
                standing.ledger.seats.insert(voter, node);
            }
            None => {
                // The last voter stays.
                if standing.ledger.seats.len() < 2 {
                    return;
                }
                let Some(node) = standing.ledger.seats.remove(&voter) else { return };
                standing.guests.insert(voter, node);
            }
        }
        self.see_own_seat();
        self.strong.changed = true;
        self.strong.asked_seat = None;
        self.strong.next = Some(now);
        self.tell_ledger(now, output);
    }

    /// Takes note if this member is in its seat.
    pub(super) fn see_own_seat(&mut self) {
        let standing = &mut self.strong.standing;
        standing.seated |= standing.sits(&standing.ledger);
    }

    /// These vote from now on.
    pub(super) fn seated(&mut self, voters: &[Voter], output: &mut Output) {
        let nodes = voters.iter().filter_map(|voter| self.node_of(*voter)).collect();
        self.tell_strong(StrongEvent::Seated { nodes }, output);
    }

    /// Never speaks under its number again.
    pub(super) fn forget_voter(&mut self, output: &mut Output) {
        self.strong.standing.forget_voter();
        let number =
            self.strong.group.as_ref().map_or(self.strong.recovered.0, |it| it.records().0);
        self.strong.group = None;
        self.strong.recovered = (number + 1, Vec::new());
        self.strong.pending.clear();
        self.strong.persisting.clear();
        if self.keeps_records() {
            output.append.group(number + 1, true, &[]);
        }
        self.record_standing(output);
        self.tell_strong(StrongEvent::Forgot, output);
    }
}
