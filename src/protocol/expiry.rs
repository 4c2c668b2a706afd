//! Expiry: when a key whose deadline has passed is forgotten, by everybody and without a word about it.
//!
//! A key past its deadline shows nothing, by the clock of whoever is asked. Its cells are still there: a
//! write that is on its way may take the deadline away or put it off, and the first write to the key that
//! finds it over begins with a deletion, which covers what is left at other nodes. So the cells may go
//! only when no write can come any more whose writer still saw the key, and a node may write without
//! that deletion only when everybody can tell such a write from one that belongs to what has ended.
//!
//! # Claims
//! Each member has one cell under a key of the store's own, written anew from time to time while
//! something has passed, and never for a single key. It claims two things:
//!
//! 1. *judged*, *held*: "I judge what clients ask by this time or a later one. I let in nobody who does
//!    not hold this." What it holds is what everybody holds (`stability`), and becomes part of its
//!    horizon.
//! 2. *ripe*: "Of keys that end by this time, and whose cells have these dots, there will be no other
//!    write but by somebody who knew that they are over."
//!
//! A member makes the second claim once it has the first from every member, in this life and epoch of
//! theirs, and all that those had when they made it. The time is the least of the times, the dots are
//! those in all of the vectors. A write that has not come by then was made by a member that had all these
//! cells, after the time at which it judges had passed the deadline. No clock need be right for that:
//! [`GRACE`] says how far a clock may go *back*, or be behind those of others where a node has been let
//! in that has not claimed anything yet.
//!
//! A write to a ripe key drops what there is of it first (`Shard::clear`): then it does not matter
//! whether its writer still had that, and wrote a deletion, or had forgotten it, and did not. And once all
//! members claim that a key is ripe, its cells are taken out (`Shard::expire`), a bounded number in one
//! waking. It is recorded which keys were forgotten, so that older records do not bring them back; nobody
//! is told.
//!
//! # The fingerprint
//! One node may have forgotten a key and another not. The fingerprint leaves out all keys that end by the
//! greatest time that any member claims to be ripe: claims are cells, so with equal vectors it is the same
//! time (`store`).
//!
//! # Who fills itself
//! takes over what its donor claims, as it holds what that one held. The donor claims nothing new while it
//! fills somebody.
//!
//! # Strong mode
//! The log writes, and judges by its own time, which a strong epoch begins above all claims. A voter claims
//! nothing to be ripe beyond the log's time as it knows it; who does not vote follows the voters. What an
//! operation decides depends on what keys show, and not on what is left of them: the first write to a key
//! that shows nothing begins with a deletion, whether there is anything to delete or not.
//!
//! Left out: dropping values earlier, while a member is away. Until it is back or retired it may have
//! taken a deadline away, and the values are needed then.
//!
//! Sources: as of `stability`; Redis for what a deadline means.

use std::time::Duration;

use super::boundary::Output;
use super::cell::{CellWrite, Content, Field, Key};
use super::change::Change;
use super::config::Config;
use super::event::Event;
use super::id::NodeId;
use super::index::Slot;
use super::shard::Shard;
use super::stamp::Stamp;
use super::store::Store;
use super::store::deadlines::bound_before;
use super::time::{Time, WallTime};
use super::version::VersionVector;

/// The key of the claims.
pub(super) const CLAIMS_KEY: &[u8] = b"\0quorumor/passed";

/// How long after its deadline a key is left alone: more than clocks of one cluster differ, and more than
/// a clock is set back by what keeps it right.
pub const GRACE: Duration = Duration::from_secs(60);

/// How long a member waits after a claim before it makes the next one: what passes meanwhile shares it.
const CLAIM_PAUSE: Duration = Duration::from_secs(4);

/// The longest claim, in bytes: a vector of some ten thousand origins, twice. A member with a longer one
/// makes none, and nothing is forgotten.
const CLAIM_BYTES_MAX: usize = 1 << 20;

/// The longest time between two looks at the clock while some key has a deadline: clocks are set.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// How many keys are looked at in one waking, and about how many cells are taken out: a millisecond's
/// work, unless a single key has more.
const SLICE_KEYS_MAX: usize = 2_048;
const SLICE_CELLS_MAX: usize = 4_096;

/// About how many bytes of names are recorded in one go.
const SLICE_BYTES_MAX: usize = 1 << 20;

/// How long listeners wait at the most for what has passed: many deadlines share a waking.
const TELL_PAUSE: Duration = Duration::from_millis(50);

/// How long clients and peers have the node for themselves between two slices.
const SLICE_PAUSE: Duration = Duration::from_millis(2);

/// Which keys nobody writes any more who takes them for alive.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Ripe {
    /// They end by then.
    pub(super) until: WallTime,
    /// All their cells have these dots.
    pub(super) dots: VersionVector,
}

/// What a member claims. See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Claim {
    judged: WallTime,
    held: VersionVector,
    ripe: Ripe,
}

/// What a shard keeps in mind about keys that end.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// The time as people count it, as last heard, and when that was.
    wall: WallTime,
    heard: Time,
    /// When to look next, and the first deadline that there was when that was decided.
    next: Option<Time>,
    scheduled: Option<WallTime>,
    /// What this node claims, under which stamp, and when it was claimed.
    own: Claim,
    stamp: Option<Stamp>,
    claimed: Option<Time>,
    slice: Option<Slice>,
    /// The first deadline, and key with that, of which listeners have not been told that it has passed.
    untold: (u64, Slot),
}

/// Keys that are being taken out.
#[derive(Debug)]
struct Slice {
    ripe: Ripe,
    /// The first that has not been looked at.
    from: (u64, Slot),
}

/// Whether a key is that of the claims.
pub(super) fn is_claim(key: &[u8]) -> bool {
    key == CLAIMS_KEY
}

impl Claim {
    /// Two times, 8 bytes each, and two vectors in MessagePack.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = [self.judged.0.to_be_bytes(), self.ripe.until.0.to_be_bytes()].concat();
        let vectors = (self.held.to_send(), self.ripe.dots.to_send());
        rmp_serde::encode::write(&mut bytes, &vectors).expect("vectors in memory can be encoded");
        bytes
    }

    /// What was encoded; none if the bytes are no claim.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (judged, rest) = bytes.split_first_chunk::<8>()?;
        let (until, vectors) = rest.split_first_chunk::<8>()?;
        let (held, dots) = rmp_serde::from_slice(vectors).ok()?;
        let ripe = Ripe { until: WallTime(u64::from_be_bytes(*until)), dots };
        Some(Self { judged: WallTime(u64::from_be_bytes(*judged)), held, ripe })
    }

    /// By when keys end of which an encoded claim says that they are ripe.
    pub(super) fn bound(bytes: &[u8]) -> Option<WallTime> {
        let until = bytes.get(8..16)?.try_into().ok()?;
        Some(bound_before(WallTime(u64::from_be_bytes(until))))
    }
}

impl Ripe {
    /// What all of several say.
    fn common(mut all: impl Iterator<Item = (WallTime, VersionVector)>) -> Option<Self> {
        let (until, dots) = all.next()?;
        let first = Self { until, dots };
        Some(all.fold(first, |ripe, (until, dots)| Self {
            until: ripe.until.min(until),
            dots: ripe.dots.intersection(&dots),
        }))
    }
}

impl Expiry {
    /// What a shard finds in its store when it rises.
    pub(super) fn of(config: &Config, store: &Store) -> Self {
        let own = store.claims().into_iter().find(|(node, ..)| *node == config.node);
        match own {
            Some((_, stamp, _, own)) => Self { own, stamp: Some(stamp), ..Self::default() },
            None => Self::default(),
        }
    }
}

impl Shard {
    /// Takes note of the time as people count it.
    pub(super) fn hear_time(&mut self, now: Time, wall: WallTime) {
        (self.expiry.wall, self.expiry.heard) = (wall, now);
    }

    /// Sees to it that listeners are told of deadlines that pass from now on, and of none before.
    pub(super) fn tell_deadlines(&mut self) {
        self.expiry.untold = (self.wall().0.saturating_add(1), Slot(0));
    }

    /// Tells listeners which keys have ended here since they were last told, by this node's clock.
    fn tell_passed(&mut self, output: &mut Output) {
        let (untold, wall) = (self.expiry.untold, self.wall());
        if !self.tells_changes || untold.0 > wall.0 {
            return;
        }
        let passed: Vec<_> = self.store.ended_from(untold, wall).take(SLICE_KEYS_MAX).collect();
        for (_, slot) in &passed {
            if let Some(key) = self.store.key_at(*slot)
                && self.store.reader().remains(&key)
            {
                output.events.push(Event::Changed { key, change: Change::EXPIRED });
            }
        }
        // Where there are more they come with the next look: very many may have the same deadline.
        self.expiry.untold = match passed.get(SLICE_KEYS_MAX - 1) {
            Some((deadline, slot)) => (*deadline, Slot(slot.0.saturating_add(1))),
            None => (wall.0.saturating_add(1), Slot(0)),
        };
    }

    /// How long until listeners have something to be told.
    fn until_told(&self) -> Option<Duration> {
        if !self.tells_changes {
            return None;
        }
        let (deadline, _) = self.store.ended_from(self.expiry.untold, WallTime(u64::MAX)).next()?;
        let left = Duration::from_millis(deadline.saturating_sub(self.wall().0));
        Some(left.clamp(TELL_PAUSE, LOOK_MAX))
    }

    /// The time as people count it; zero as long as nobody has told it.
    pub(super) fn wall(&self) -> WallTime {
        let since = self.now().since(self.expiry.heard);
        let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        match self.expiry.wall {
            WallTime(0) => WallTime(0),
            WallTime(wall) => WallTime(wall.saturating_add(since)),
        }
    }

    /// By which time this node judges what a client asks at `wall`: never by one before what it has
    /// claimed, unless its clock has been set back since.
    pub(super) fn judged_at(&self, wall: WallTime) -> WallTime {
        let claimed = self.expiry.own.judged.max(self.store.bound());
        wall.max(claimed.min(self.wall()))
    }

    /// The first key whose deadline has passed well enough.
    fn first_ended(&self) -> Option<(WallTime, Key)> {
        self.store.first_ending().filter(|(deadline, _)| *deadline <= self.well_passed())
    }

    /// What ends by then is well past its deadline.
    fn well_passed(&self) -> WallTime {
        let grace = u64::try_from(GRACE.as_millis()).unwrap_or(u64::MAX);
        WallTime(self.wall().0.saturating_sub(grace))
    }

    /// Whether keys have ended whose cells are kept.
    pub(super) fn has_ended_keys(&self) -> bool {
        self.store.first_deadline().is_some_and(|deadline| deadline <= self.well_passed())
    }

    /// Whether what this node claims was claimed in an earlier life, and so counts for nobody else.
    pub(super) fn claim_is_old(&self) -> bool {
        self.expiry.stamp.is_some_and(|stamp| stamp.origin != self.config.origin)
    }

    /// When to look for keys that have ended next.
    pub(super) fn expiry_deadline(&self) -> Option<Time> {
        self.expiry.next
    }

    /// Sees to it that deadlines are looked at, as long as there are any.
    pub(super) fn schedule_expiry(&mut self, now: Time) {
        let first = self.store.first_deadline();
        // After every input this is all there is to do.
        if self.expiry.next.is_some() && self.expiry.scheduled == first && !self.tells_changes {
            return;
        }
        self.expiry.scheduled = first;
        let ends = first.map(|deadline| {
            let left = deadline.0.saturating_sub(self.well_passed().0);
            Duration::from_millis(left).min(LOOK_MAX)
        });
        let wait = match &self.expiry.slice {
            Some(_) => Some(SLICE_PAUSE),
            None if self.claim_is_old() => Some(self.config.interval),
            None => ends.map(|wait| wait.max(self.config.interval)),
        };
        let wait = wait.into_iter().chain(self.until_told()).min();
        let next = self.expiry.next.into_iter().chain(wait.map(|wait| now + wait));
        self.expiry.next = next.min();
    }

    /// Forgets what is ripe for everybody, and claims what can be claimed, if the time has come.
    pub(super) fn expire(&mut self, now: Time, output: &mut Output) {
        if self.expiry.next.is_none_or(|at| at > now) {
            return;
        }
        self.expiry.next = None;
        self.tell_passed(output);
        #[cfg(test)]
        if self.is_careless(super::shard::Careless::KeepsExpired) {
            return;
        }
        if self.fill.is_some() {
            self.expiry.slice = None;
            return;
        }
        if let Some(slice) = self.expiry.slice.take() {
            return self.take_out(slice, output);
        }
        let ended = self.has_ended_keys();
        if !ended && !self.claim_is_old() {
            return;
        }
        self.move_the_log(now, output);
        self.make_reportable(output);
        let Some(stable) = self.stable() else { return };
        let claims = self.claims(&stable);
        if ended && let Some(ripe) = self.ripe_for_all(claims.as_deref()) {
            self.take_out(Slice { ripe, from: (0, Slot(0)) }, output);
        }
        self.claim(now, stable, claims.as_deref(), output);
    }

    /// What every member claims, if all have claimed something in their present lives and it is known
    /// here what they held when they did.
    fn claims(&self, stable: &VersionVector) -> Option<Vec<(NodeId, Stamp, Claim)>> {
        let mut claims = self.store.claims();
        claims.retain(|(_, _, dot, _)| stable.contains(*dot));
        let others = self.roster.actives().filter(|(node, _)| *node != self.config.node);
        let members = others.chain([(self.config.node, self.config.origin)]);
        let of_member = |(node, origin)| {
            let at =
                claims.iter().position(|(of, stamp, ..)| (*of, stamp.origin) == (node, origin));
            at.map(|at| claims.swap_remove(at)).map(|(node, stamp, _, claim)| (node, stamp, claim))
        };
        members.map(of_member).collect()
    }

    /// What all members claim to be ripe.
    fn ripe_for_all(&self, claims: Option<&[(NodeId, Stamp, Claim)]>) -> Option<Ripe> {
        #[cfg(test)]
        if self.is_careless(super::shard::Careless::ForgetsEarly) {
            return Some(Ripe { until: self.well_passed(), dots: self.vector.clone() });
        }
        let ripe = claims?.iter().map(|(.., claim)| &claim.ripe);
        let mut ripe = Ripe::common(ripe.map(|ripe| (ripe.until, ripe.dots.clone())))?;
        // A clock that is ahead of all others does not make this node forget anything early.
        ripe.until = ripe.until.min(self.well_passed());
        Some(ripe)
    }

    /// What this node can tell to be ripe, by what the members claim.
    fn ripens(&self, claims: Option<&[(NodeId, Stamp, Claim)]>) -> Option<Ripe> {
        let claims = claims?;
        if claims.iter().any(|(_, stamp, _)| stamp.epoch != self.epoch) {
            return None;
        }
        let held = claims.iter().map(|(.., claim)| (claim.judged, claim.held.clone()));
        let mut ripe = Ripe::common(held)?;
        if self.has_log() {
            ripe.until = ripe.until.min(self.passed_in_the_log(claims));
        }
        Some(ripe)
    }

    /// Up to where deadlines have passed for all that the log may still write, as far as is known here.
    fn passed_in_the_log(&self, claims: &[(NodeId, Stamp, Claim)]) -> WallTime {
        if let Some(wall) = self.log_wall() {
            return bound_before(wall);
        }
        let voters =
            claims.iter().filter(|(node, ..)| *node != self.config.node && self.votes(*node));
        voters.map(|(.., claim)| claim.ripe.until).max().unwrap_or_default()
    }

    /// Claims what can be claimed by now, if that is of use for the first key that has ended.
    fn claim(
        &mut self,
        now: Time,
        stable: VersionVector,
        claims: Option<&[(NodeId, Stamp, Claim)]>,
        output: &mut Output,
    ) {
        let pause = self.expiry.claimed.is_some_and(|at| now.since(at) < CLAIM_PAUSE);
        let others = self.roster.actives().filter(|(node, _)| *node != self.config.node);
        let all_here = others.map(|(node, _)| node).all(|node| self.peers.live(node).is_some());
        // Who is being filled takes over what this node claims.
        if pause || !all_here || self.leaving || self.is_fenced() || self.exchanges.fills() {
            return;
        }
        let own = &self.expiry.own;
        let mut claim = own.clone();
        claim.judged = claim.judged.max(bound_before(self.well_passed()));
        claim.held.merge(&stable);
        if let Some(ripe) = self.ripens(claims) {
            claim.ripe.until = claim.ripe.until.max(ripe.until);
            claim.ripe.dots.merge(&ripe.dots);
        }
        let counts = self
            .expiry
            .stamp
            .is_some_and(|stamp| (stamp.origin, stamp.epoch) == (self.config.origin, self.epoch));
        let useful = self.first_ended().is_some_and(|(deadline, key)| {
            let within =
                |dots: &VersionVector| self.store.is_within(&key, |dot| dots.contains(dot));
            let reach = |claim: &Claim, counts: bool| {
                let judged = counts && claim.judged >= deadline && within(&claim.held);
                (judged, counts && claim.ripe.until >= deadline && within(&claim.ripe.dots))
            };
            reach(&claim, true) != reach(own, counts)
        });
        if useful || self.claim_is_old() {
            self.make_claim(now, claim, output);
        }
    }

    /// Writes what this node claims from now on.
    fn make_claim(&mut self, now: Time, claim: Claim, output: &mut Output) {
        // Part of what was claimed in an earlier life may be lost.
        let claim = Claim { held: claim.held.intersection(&self.vector), ..claim };
        let value = claim.encode();
        if value.len() > CLAIM_BYTES_MAX {
            return;
        }
        // Before anybody who does not hold it is let in.
        self.horizon.merge(&claim.held);
        if self.keeps_records() {
            output.append.horizon(&claim.held);
        }
        let field = Field::new(&self.config.node.to_bytes());
        let (key, seen) = self.store.prepare(CLAIMS_KEY, &field, self.config.origin);
        let cell = CellWrite { key, field, content: Content::from(value), seen };
        if let Some((stamp, dot)) = self.write_own(now, vec![cell], output) {
            output.events.push(Event::Claimed { dot });
            (self.expiry.own, self.expiry.stamp) = (claim, Some(stamp));
            self.expiry.claimed = Some(now);
        }
    }

    /// Takes over what a donor claimed when it began to fill this node, which has just ended.
    pub(super) fn take_over_claim(
        &mut self,
        now: Time,
        donor: Option<NodeId>,
        captured: &VersionVector,
        output: &mut Output,
    ) {
        let claims = self.store.claims().into_iter();
        // One of an earlier life of the donor may name what died with that.
        let mut of_donor = claims.filter(|(node, _, dot, claim)| {
            Some(*node) == donor && captured.contains(*dot) && captured.covers(&claim.held)
        });
        let taken = of_donor.next().map(|(.., claim)| claim).unwrap_or_default();
        let judged = taken.judged.max(self.expiry.own.judged);
        let claim = Claim { judged, ..taken };
        self.expiry.slice = None;
        self.expiry.own = claim.clone();
        if self.expiry.stamp.is_some() || claim != Claim::default() {
            self.make_claim(now, claim, output);
        }
    }

    /// Sees to it that the log's time goes on where nothing is asked of it while keys have ended: else
    /// nothing would be forgotten, and who refuses writes for lack of memory would refuse them for ever.
    fn move_the_log(&mut self, now: Time, output: &mut Output) {
        let wall = self.wall();
        let behind = |log: WallTime| {
            self.store.first_deadline().is_some_and(|deadline| bound_before(log) < deadline)
        };
        if self.log_wall().is_some_and(behind) {
            self.propose_time(now, wall, output);
        }
    }

    /// Takes out some of the keys that are ripe for everybody.
    fn take_out(&mut self, Slice { ripe, from }: Slice, output: &mut Output) {
        let looked_at: Vec<_> =
            self.store.ended_from(from, ripe.until).take(SLICE_KEYS_MAX).collect();
        let mut last = None;
        let (mut forgotten, mut cells, mut bytes) = (Vec::new(), 0, 0);
        for (deadline, slot) in looked_at {
            if cells >= SLICE_CELLS_MAX || bytes >= SLICE_BYTES_MAX {
                break;
            }
            last = Some((deadline, Slot(slot.0.saturating_add(1))));
            let Some(key) = self.store.key_at(slot) else { continue };
            let Some(stamp) = self.store.ripe(&key, &ripe) else { continue };
            let dots = self.store.dots_at(&key);
            // Who is being sent part of it gets all of it, and takes it out in its turn.
            if self.exchanges.owe(&dots) {
                continue;
            }
            cells += dots.len();
            bytes += key.len();
            forgotten.push((key, stamp));
        }
        if let Some(from) = last {
            self.expiry.slice = Some(Slice { ripe, from });
        }
        if !forgotten.is_empty() {
            output.events.push(Event::Expired { count: forgotten.len() });
            self.forget(forgotten, output);
            self.store.forget_displaced();
        }
    }

    /// Whether any key is kept of which this node claims that it is ripe: hardly ever for longer than a
    /// few seconds, and what is on the way of every write is to cost nothing otherwise.
    fn keeps_ripe_keys(&self) -> bool {
        let until = self.expiry.own.ripe.until;
        until > WallTime(0)
            && self.store.first_deadline().is_some_and(|deadline| deadline <= until)
            && self.fill.is_none()
    }

    /// Drops what there is of a key that is ripe, before a write to it is merged.
    pub(super) fn clear(&mut self, key: &Key, output: &mut Output) {
        if key.is_reserved() || !self.keeps_ripe_keys() {
            return;
        }
        let ripe = &self.expiry.own.ripe;
        let Some(stamp) = self.store.ripe(key, ripe) else { return };
        // Who has got a part of it would never get the rest.
        let given_up = self.exchanges.give_up_owing(&self.store.dots_at(key));
        self.counters.deltas_given_up += given_up;
        self.forget(vec![(key.clone(), stamp)], output);
    }

    fn forget(&mut self, keys: Vec<(Key, Stamp)>, output: &mut Output) {
        self.counters.keys_expired += keys.len() as u64;
        if self.keeps_records() {
            output.append.forgotten(&keys);
        }
        for (key, stamp) in keys {
            self.store.forget(&key, stamp);
        }
    }
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
