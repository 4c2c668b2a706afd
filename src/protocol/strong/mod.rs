//! Strong mode: a primary, a replicated log, and the switch between the modes.
//!
//! # State machine replication
//! Some members are *voters*. They agree on one log (`group`), whose entries are clients' operations
//! with everything decided that is not deterministic, and apply it in order (`apply`) by the same
//! function that eventual mode uses. What an operation writes is an ordinary write under the log's own
//! origin, so the other members get it by push, digest and delta like any other write. They pass their
//! clients' operations to a voter (`requests`).
//!
//! A voter takes the log's writes from the log only: an operation decides by what its keys hold, and
//! that must be the same at every voter. If others have dropped the entries it lacks, it stops
//! *following*, takes writes as everybody does, and goes on from another voter's state (`catching_up`).
//!
//! # Reads
//! A voter that has asked a majority how far the log is, and has applied as much, answers by what it
//! holds: no client, at any member, reads older than an acknowledged write. The time by which keys
//! expire is that of the log.
//!
//! # The mode
//! The group is founded with the first switch (`founding`) and lives on in eventual mode, where it
//! decides nothing but switches. The ledger (`ledger`) says which epoch holds; members that do not
//! vote, or lag behind, learn it from greetings (`telling`). How a switch goes is told in `switch`.
//!
//! A group whose only voter has lost what it knew is followed by another one (`succession`).
//!
//! # What must stay true
//! - No write of a client is acknowledged in an eventual epoch by a member that is *fenced*, and no
//!   strong epoch opens before all members are fenced, but for those left out by name. What they had
//!   acknowledged by then is in the base, which a majority of the voters hold durably.
//! - Nothing of an earlier epoch that is not in the base counts; it is an *orphan* (`orphans`).
//! - Whoever answers past the log is not fenced, so the next strong epoch has not begun.
//!
//! Sources: Schneider 1990, "Implementing Fault-Tolerant Services Using the State Machine Approach";
//! Liskov and Cowling 2012, "Viewstamped Replication Revisited", for views and recovery.

mod apply;
mod catching_up;
mod clock;
mod founding;
mod group;
mod ledger;
mod orphans;
mod recording;
mod requests;
mod seats;
mod status;
mod succession;
mod switch;
mod telling;
#[cfg(test)]
mod tests;
mod wishes;
mod word;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::boundary::{Lane, Output, PUSH_BYTES_MAX};
use super::digest::{Digest, DigestHash};
use super::event::Event;
use super::id::{NodeId, Origin};
use super::message::{Message, RoundId};
use super::operation::Mode;
use super::shard::Shard;
use super::stamp::{Dot, Epoch};
use super::time::Time;
pub use group::Voter;
use group::{Done, Group};
pub use ledger::Call;
pub use ledger::{Charter, VOTERS_MAX};
use ledger::{Entry, Ledger, Phase};
pub(super) use orphans::Fate;
pub use orphans::Orphan;
pub use recording::LogRecords;
pub(super) use recording::{Applied, Standing};
pub use requests::Refusal;
use requests::Requests;
pub use status::{StrongStatus, VoterStatus};
pub use telling::Knows;
pub use wishes::{SwitchOrder, Switched};
pub use word::{StrongEvent, Word};

/// How often is looked at what waits: a few times within the time that a client should not notice.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often voters tell each other how far they have come, for people to see.
const TELL_INTERVAL: Duration = Duration::from_millis(500);

/// How many slots may pass until the log is cut: as many as a voter can be away without having to be
/// filled from another's state.
const CUT_SLOTS: u64 = 4_096;

/// How many bytes of records may come until the log is cut.
const CUT_BYTES: usize = 16 << 20;

/// How many bytes of records a voter may have that does not follow, and so cannot cut its log. With more it
/// takes no part until it follows again: twice what a voter that follows comes to have.
const RECORDS_BYTES_MAX: usize = 2 * CUT_BYTES;

/// How many decided slots a voter that does not follow keeps until it can go on with them.
const PENDING_SLOTS_MAX: usize = 4_096;

/// And how many bytes of them.
const PENDING_BYTES_MAX: usize = 64 << 20;

/// How many words may wait for the disk: what is dropped is asked for again.
const GATED_MAX: usize = 1_024;

/// The most voters of which is remembered what they have said: many times those that there ever are.
const HEARD_MAX: usize = 256;

/// How requests are answered here now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Posture {
    /// At once.
    Direct,
    /// Not now: a switch is under way.
    Held,
    /// Through the log.
    Log,
    /// By a voter.
    Forward,
}

/// Everything about the log and the mode at one member.
#[derive(Debug, Default)]
pub(super) struct Strong {
    pub(super) standing: Standing,
    group: Option<Group>,
    /// Records that a start has found, until the group is made of them.
    recovered: (u64, Vec<Bytes>),
    /// Names this life as a proposer.
    life: u64,
    /// Tokens of records that are being made durable, with the record's number.
    persisting: VecDeque<(u64, u64)>,
    /// What is said to members once what was recorded is durable.
    gated: VecDeque<(u64, NodeId, Word)>,
    /// Slots that wait until this voter follows again.
    pending: VecDeque<(u64, Vec<Bytes>)>,
    pending_bytes: usize,
    /// How many bytes the slot that is being applied has written so far.
    slot_bytes: usize,
    /// Whether a slot of the log is being applied.
    applying: bool,
    /// Whether everybody is to be greeted once it has been.
    greets: bool,
    requests: Requests,
    clocks: clock::Clocks,
    /// Whether all that happened before the present epoch is here.
    ready: bool,
    /// What was heard of voters: the number of their last record, and how far they have come.
    heard: BTreeMap<Voter, (u64, u64)>,
    founding: Option<founding::Founding>,
    succession: Option<succession::Succession>,
    /// For whom the only voter waits, as it was told last.
    lacking: Vec<NodeId>,
    drive: Option<switch::Drive>,
    wishes: wishes::Wishes,
    fencing: switch::Fencing,
    orphans: orphans::Orphans,
    /// When to look next.
    next: Option<Time>,
    /// When this voter last asked for another's state.
    asked_state: Option<Time>,
    asked_seat: Option<Time>,
    /// How many slots the other voters were last told to be applied here, and when.
    told: (u64, Option<Time>),
    primary: Option<Voter>,
    /// Voters that have greeted since the start: they would have said if this one had forgotten
    /// anything.
    greeted: BTreeSet<NodeId>,
    /// Whether the standing has changed and is to be recorded.
    changed: bool,
    /// Whether others have come further in the log than is known to be decided here.
    behind: bool,
    /// The strong epoch of which was looked whether all counts that is here.
    judged: Option<Epoch>,
}

impl Strong {
    /// With what a start has found.
    pub(super) fn risen(
        standing: Standing,
        recovered: (u64, Vec<Bytes>),
        orphans: BTreeMap<Dot, Orphan>,
    ) -> Self {
        Self { standing, recovered, orphans: orphans::Orphans::of(orphans), ..Self::default() }
    }

    fn ledger(&self) -> &Ledger {
        &self.standing.ledger
    }

    /// The epoch that a start begins in.
    pub(super) fn epoch(&self) -> Epoch {
        self.standing.ledger.epoch
    }
}

impl Shard {
    /// How requests are answered here now.
    pub fn posture(&self) -> Posture {
        let standing = &self.strong.standing;
        let ledger = &standing.ledger;
        if standing.fenced > ledger.epoch {
            return Posture::Held;
        }
        match ledger.mode() {
            Mode::Strong if self.strong.group.is_some() && standing.following => Posture::Log,
            // It votes again as soon as enough others have greeted.
            Mode::Strong
                if self.strong.group.is_none() && standing.seated && standing.following =>
            {
                Posture::Held
            }
            Mode::Strong => Posture::Forward,
            // Eventual mode is about to end, and a write of a member without a fence would not count.
            Mode::Eventual if ledger.phase != Phase::Settled => Posture::Held,
            Mode::Eventual if !self.strong.ready => Posture::Held,
            // Which mode holds it may have forgotten.
            Mode::Eventual if self.doubted && standing.charter.is_some() && !self.follows() => {
                Posture::Held
            }
            Mode::Eventual if self.config.starts_strong && standing.charter.is_none() => {
                Posture::Held
            }
            Mode::Eventual if self.config.starts_strong && ledger.opened.is_none() => Posture::Held,
            Mode::Eventual => Posture::Direct,
        }
    }

    /// How writes are ordered.
    pub fn mode(&self) -> Mode {
        match self.posture() {
            Posture::Direct => Mode::Eventual,
            Posture::Held if !self.config.starts_strong => self.strong.ledger().mode(),
            _ => Mode::Strong,
        }
    }

    /// Whether this voter applies what the log decides.
    pub(super) fn follows(&self) -> bool {
        self.strong.group.is_some() && self.strong.standing.following
    }

    /// Whether this voter takes the log's writes from the log only: also while it waits to vote again.
    fn is_bound(&self) -> bool {
        self.strong.standing.voter.is_some() && self.strong.standing.following
    }

    /// Sends a word to a member.
    pub(super) fn say(&mut self, to: NodeId, word: Word, output: &mut Output) {
        let message = Message::Strong(Box::new(word));
        let lane = match message.bytes() > PUSH_BYTES_MAX {
            true => Lane::Exchange { round: RoundId(self.rng.u64(..)), last: true },
            false => Lane::Vote,
        };
        self.sender().send(to, lane, message, output);
    }

    /// Says a word to a member, which may be this one.
    fn say_or_hear(&mut self, now: Time, to: NodeId, word: Word, output: &mut Output) {
        match to == self.config.node {
            true => {
                let from = (self.config.origin, self.epoch);
                self.receive_word(now, to, from, word, output);
            }
            false => self.say(to, word, output),
        }
    }

    /// Says a word once everything recorded so far is durable.
    fn say_durably(&mut self, now: Time, to: NodeId, word: Word, output: &mut Output) {
        if !self.keeps_records() {
            return self.say_or_hear(now, to, word, output);
        }
        if self.strong.gated.len() >= GATED_MAX {
            return;
        }
        output.append.urgent = true;
        let token = self.be_told(output);
        self.strong.gated.push_back((token, to, word));
    }

    pub(super) fn tell_strong(&self, event: StrongEvent, output: &mut Output) {
        output.events.push(Event::Strong(Box::new(event)));
    }

    /// Takes in what a member says.
    pub(super) fn receive_word(
        &mut self,
        now: Time,
        peer: NodeId,
        (origin, epoch): (Origin, Epoch),
        word: Word,
        output: &mut Output,
    ) {
        match word {
            Word::Core { to, from: (from, records), applied, bytes } => {
                match self.node_of(from) {
                    Some(node) if node != peer => {
                        self.counters.messages_refused += 1;
                        return;
                    }
                    Some(_) => self.hear_of((from, records), applied),
                    // Of one that has been seated since: the log tells.
                    None => {}
                }
                if !self.strong.ledger().seats.contains_key(&from) {
                    // It may have lost its seat, of which it is not told by the log.
                    self.ask_greeting(now, peer, output);
                }
                let follows = self.follows();
                match &mut self.strong.group {
                    // The message is as good as lost: the log waits for this voter, or goes on without it.
                    Some(group) if !follows && group.records_bytes() > RECORDS_BYTES_MAX => {}
                    Some(group) if group.voter() == to => group.receive(now, bytes),
                    _ => {}
                }
            }
            Word::Applied { from, slot, wall } if self.node_of(from.0) == Some(peer) => {
                self.strong.clocks.hear(now, peer, wall);
                self.hear_of(from, slot);
            }
            Word::Applied { .. } => self.counters.messages_refused += 1,
            Word::Found { charter } => self.receive_found(now, peer, charter, output),
            Word::Founded { id } => self.receive_founded(now, peer, id, output),
            Word::Unfound { id } => self.receive_unfound(id, output),
            Word::Fence { epoch, members } => self.receive_fence(now, peer, epoch, members, output),
            Word::Succeed(proposal) => self.receive_succeed(now, peer, proposal, output),
            Word::Consent { number, held: Digest(held), lamport } => {
                self.receive_consent(now, (peer, number), held, lamport);
            }
            Word::Fenced { epoch, held: Digest(held), lamport } => {
                self.receive_fenced(now, peer, epoch, held, lamport, output);
            }
            Word::Drain { epoch, base: Digest(base) } => {
                self.receive_drain(now, peer, epoch, base, output);
            }
            Word::Drained { epoch, base, fingerprint } => {
                self.receive_drained(now, peer, epoch, (base, fingerprint), output);
            }
            Word::Catch { held: Digest(held) } => self.receive_catch(peer, epoch, &held, output),
            Word::Install(install) => self.receive_install(now, epoch, *install, output),
            Word::Forward { calls } => self.receive_forward(now, (peer, origin), calls, output),
            Word::Forwarded { outcomes } => self.receive_forwarded(peer, outcomes, output),
            Word::Switch { id, order } => self.receive_switch(now, peer, id, order, output),
            Word::Switched { id, outcome } => self.receive_switched(peer, id, outcome, output),
            Word::Seat { voter } => self.receive_seat(now, peer, voter, output),
            Word::Offer { orphans } => self.receive_offer(now, peer, orphans, output),
            Word::Decided { orphans } => self.receive_decided(peer, orphans, output),
        }
    }

    /// Takes note of how far another voter has come.
    fn hear_of(&mut self, (voter, records): (Voter, u64), applied: u64) {
        let heard = &mut self.strong.heard;
        if heard.len() < HEARD_MAX || heard.contains_key(&voter) {
            let heard = heard.entry(voter).or_default();
            *heard = (records.max(heard.0), applied.max(heard.1));
        }
        self.hear_of_slots(applied);
    }

    /// Somebody has applied so many slots.
    fn hear_of_slots(&mut self, slots: u64) {
        self.strong.behind |= self.follows() && slots > self.strong.ledger().slot;
    }

    /// Asks a majority how far the log is, if others have come further: what is missing comes along.
    fn catch_up(&mut self, now: Time) {
        if std::mem::take(&mut self.strong.behind)
            && let Some(group) = &mut self.strong.group
        {
            // Nobody waits for the answer. If too much is under way, that says so as well.
            let _ = group.read(now);
        }
    }

    /// Tells the other voters how far this one has come, if that is news.
    fn tell_applied(&mut self, now: Time, output: &mut Output) {
        let slot = self.strong.ledger().slot;
        let Some(group) = &self.strong.group else { return };
        let (told, at) = self.strong.told;
        if told == slot || at.is_some_and(|at| now.since(at) < TELL_INTERVAL) {
            return;
        }
        let from = (group.voter(), group.durable());
        self.strong.told = (slot, Some(now));
        let wall = self.wall();
        let seats = self.strong.ledger().seats.values().copied();
        let others: Vec<_> = seats.filter(|node| *node != self.config.node).collect();
        for node in others {
            self.say(node, Word::Applied { from, slot, wall }, output);
        }
    }

    /// What the log and the mode want after anything has happened.
    pub(super) fn settle_strong(&mut self, now: Time, output: &mut Output) {
        self.begin_voting(now, output);
        self.advance_log(now, output);
        self.settle_ready();
        self.settle_posture(now, output);
        if self.strong.next.is_some_and(|at| at <= now) {
            self.strong.next = None;
            self.look(now, output);
            self.advance_log(now, output);
        }
        if self.strong.next.is_none() && self.has_to_look() {
            self.strong.next = Some(now + LOOK_INTERVAL);
        }
    }

    /// Proposes what has gathered while the output was shared, and answers peers. To be called before
    /// an output is carried out.
    pub fn finish(&mut self, now: Time, output: &mut Output) {
        output.unsaid = None;
        if self.strong.requests.is_idle() {
            return;
        }
        // What was decided at once has made room for what an entry had left over.
        let mut left = usize::MAX;
        while self.strong.requests.writes_gathered() < left {
            left = self.strong.requests.writes_gathered();
            self.propose_gathered(now, output);
            self.advance_log(now, output);
        }
        self.send_forwarded(now, output);
        if self.strong.next.is_none() && self.has_to_look() {
            self.strong.next = Some(now + LOOK_INTERVAL);
        }
        output.wake = self.next_wake();
    }

    /// Looks at what waits with every round as well: there may be a seat to be taken.
    pub(super) fn strong_round(&mut self, now: Time) {
        if self.has_group() {
            self.strong.next = Some(now);
        }
    }

    pub(super) fn strong_deadline(&self) -> Option<Time> {
        let group = self.strong.group.as_ref().and_then(Group::deadline);
        group.into_iter().chain(self.strong.next).min()
    }

    fn has_to_look(&self) -> bool {
        let strong = &self.strong;
        let votes = strong.standing.voter.is_some();
        strong.requests.waits()
            || strong.founding.is_some()
            || self.is_bereft()
            || strong.drive.is_some()
            || strong.wishes.waits()
            || strong.fencing.waits()
            || votes
                && (!strong.standing.following || strong.standing.ledger.phase != Phase::Settled)
            || !strong.ready
            || strong.standing.ledger.seat_of(self.config.node) != strong.standing.voter
            || self.config.starts_strong && strong.standing.ledger.opened.is_none()
            || strong.orphans.waits() && strong.standing.ledger.mode() == Mode::Strong
            || strong.standing.left_out
            || strong.behind
            || strong.group.is_some() && strong.told.0 != strong.standing.ledger.slot
    }

    /// Looks at what waits.
    fn look(&mut self, now: Time, output: &mut Output) {
        #[cfg(test)]
        if self.is_careless(super::shard::Careless::GoesOnAlone) {
            self.go_on_alone(now);
        }
        self.give_up_requests(now, output);
        self.look_at_founding(now, output);
        self.look_at_succession(now, output);
        self.look_at_switch(now, output);
        self.look_at_fence(now, output);
        self.look_for_state(now, output);
        self.catch_up(now);
        self.look_at_seats(now, output);
        self.tell_applied(now, output);
        self.look_at_orphans(now, output);
        self.look_at_what_was_left_out(now, output);
        if let Some(group) = &self.strong.group {
            self.strong.primary = group.primary();
        }
        self.send_forwarded(now, output);
    }

    /// A voter that reaches no other one takes all seats for its own, which is wrong.
    #[cfg(test)]
    fn go_on_alone(&mut self, now: Time) {
        let standing = &mut self.strong.standing;
        let ledger = &mut standing.ledger;
        let others = ledger.seats.values().filter(|node| **node != self.config.node);
        let is_alone = others.clone().count() > 0
            && others.clone().all(|node| self.peers.live(*node).is_none());
        let (Some(voter), Some(charter), true) = (standing.voter, &mut standing.charter, is_alone)
        else {
            return;
        };
        charter.voters = [(voter, self.config.node)].into();
        ledger.seats.clone_from(&charter.voters);
        ledger.slot = 0;
        let charter = charter.clone();
        let nothing = (0, Vec::new());
        self.strong.group = Group::new(&charter, voter, [7; 32], nothing, now).ok();
    }

    /// Makes the log of what was recorded, if this member votes and has not begun to.
    fn begin_voting(&mut self, now: Time, output: &mut Output) {
        let standing = &self.strong.standing;
        let (None, Some(charter), Some(voter)) =
            (&self.strong.group, &standing.charter, standing.voter)
        else {
            return;
        };
        // Who has spoken before waits until enough others have told what they have heard of it.
        let speaks_again = self.strong.recovered.0 > 0;
        if speaks_again && self.strong.greeted.len() + 1 < standing.ledger.majority() {
            return;
        }
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let recovered = std::mem::take(&mut self.strong.recovered);
        match Group::new(charter, voter, seed, recovered, now) {
            Ok(group) => {
                let is_first = charter.voters.contains_key(&voter);
                let begins = is_first && !charter.succeeds.is_empty() && group.decided() == 0;
                self.strong.group = Some(group);
                self.strong.life = self.rng.u64(..);
                if begins {
                    // It comes after another one. Nothing can be read from a log without an entry, so it
                    // begins with one that changes nothing.
                    let node = Some(self.config.node);
                    self.propose_entry(now, &Entry::Seat { voter, node });
                }
            }
            // As if they were gone: it votes under another number.
            Err(_) => self.forget_voter(output),
        }
    }

    /// Does what the log wants done.
    fn advance_log(&mut self, now: Time, output: &mut Output) {
        if self.strong.group.is_none() {
            return;
        }
        if self.strong.group.as_ref().and_then(Group::deadline).is_some_and(|at| at <= now)
            && let Some(group) = &mut self.strong.group
        {
            group.wake(now);
        }
        let mut todo = VecDeque::new();
        loop {
            let mut done = Vec::new();
            if let Some(group) = &mut self.strong.group {
                group.take(&mut done);
            }
            todo.extend(done);
            let Some(done) = todo.pop_front() else {
                if !self.cut_log(now) {
                    return;
                }
                continue;
            };
            self.carry_on(now, done, &mut todo, output);
        }
    }

    fn carry_on(&mut self, now: Time, done: Done, todo: &mut VecDeque<Done>, output: &mut Output) {
        match done {
            Done::Send(to, bytes) => {
                let Some(group) = &self.strong.group else { return };
                let from = (group.voter(), group.durable());
                if let Some(node) = self.node_of(to) {
                    let applied = self.strong.ledger().slot;
                    self.say(node, Word::Core { to, from, applied, bytes }, output);
                }
            }
            Done::Persist { number, replace, records } => {
                if self.keeps_records() {
                    self.record_group(number, replace, &records, output);
                    #[cfg(test)]
                    if self.is_careless(super::shard::Careless::SyncsLate) {
                        if let Some(group) = &mut self.strong.group {
                            todo.extend(group.persisted(now, number));
                        }
                        return;
                    }
                    output.append.urgent = true;
                    let token = self.be_told(output);
                    self.strong.persisting.push_back((token, number));
                } else if let Some(group) = &mut self.strong.group {
                    todo.extend(group.persisted(now, number));
                }
            }
            Done::Commit { slot, entries } => self.committed(now, slot, entries, output),
            Done::Ready { read, slot } => self.read_ready(now, read, slot, output),
            Done::Lacks => self.stop_following(output),
            Done::Seated(voters) => self.seated(&voters, output),
        }
    }

    /// Records up to those with this token are durable.
    pub(super) fn log_durable(&mut self, now: Time, token: u64, output: &mut Output) {
        while self.strong.gated.front().is_some_and(|(waits, ..)| *waits <= token) {
            let Some((_, to, word)) = self.strong.gated.pop_front() else { break };
            self.say_or_hear(now, to, word, output);
        }
        let mut last = None;
        while self.strong.persisting.front().is_some_and(|(waits, _)| *waits <= token) {
            last = self.strong.persisting.pop_front().map(|(_, number)| number);
        }
        let (Some(number), Some(group)) = (last, &mut self.strong.group) else { return };
        let mut todo: VecDeque<_> = group.persisted(now, number).into();
        while let Some(done) = todo.pop_front() {
            self.carry_on(now, done, &mut todo, output);
        }
    }

    /// Drops what the log need not keep any more; says whether it did.
    fn cut_log(&mut self, now: Time) -> bool {
        let follows = self.follows() && self.strong.pending.is_empty();
        let slot = self.strong.ledger().slot;
        let Some(group) = &mut self.strong.group else { return false };
        let due = group.is_long(CUT_SLOTS, CUT_BYTES);
        if !follows || !due || group.decided() != slot {
            return false;
        }
        group.cut(now);
        true
    }

    /// Whether this voter is the primary, as far as it knows.
    pub(super) fn is_primary(&self) -> bool {
        self.strong.primary.is_some() && self.strong.primary == self.strong.standing.voter
    }

    /// The peers that get the log's writes by push: members that do not vote.
    pub(super) fn learners(&self) -> Arc<[NodeId]> {
        let seats = &self.strong.ledger().seats;
        let votes = |peer: &NodeId| seats.values().any(|node| node == peer);
        self.peers.receivers().filter(|peer| !votes(peer)).collect()
    }

    /// Where a voter sits.
    fn node_of(&self, voter: Voter) -> Option<NodeId> {
        let standing = &self.strong.standing;
        let seat = standing.ledger.seats.get(&voter);
        let first = || standing.charter.as_ref().and_then(|charter| charter.voters.get(&voter));
        seat.or_else(first).or_else(|| standing.guests.get(&voter)).copied()
    }
}
