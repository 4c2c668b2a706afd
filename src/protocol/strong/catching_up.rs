//! How a voter that lacks part of the log goes on from another voter's state.
//!
//! Such a voter does not *follow*: it takes the log's writes from anybody, as members do that do not
//! vote. Once it lacks little, another voter sends it the rest in one piece, with the ledger and the
//! state of the log of the same instant. From then on it holds exactly what that voter held there, and
//! follows again.
//!
//! What must stay true:
//! - while it does not follow it applies nothing and answers nothing;
//! - what it holds of the log must not be more than what it is sent: it would be ahead of the slot from
//!   which it goes on. So nobody who has less answers;
//! - a voter that follows drops the log's writes that others send, and does not take their word for
//!   holding any.

use serde::{Deserialize, Serialize};

use super::super::boundary::Output;
use super::super::cell::Write;
use super::super::delta::{Captured, Chunk, Outgoing};
use super::super::event::Distrust;
use super::super::id::{NodeId, Origin};
use super::super::message::{ExchangeId, RoundId};
use super::super::shard::Shard;
use super::super::stamp::{Dot, Epoch};
use super::super::time::Time;
use super::super::version::VersionVector;
use super::ledger::Ledger;
use super::{LOOK_INTERVAL, StrongEvent, Word};
use bytes::Bytes;

/// The most bytes of cells that are sent along with a voter's state: what is more goes ahead of it by
/// rounds.
const REST_BYTES_MAX: usize = 4 << 20;

/// A voter's state at one instant, for one that holds nearly all of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Install {
    ledger: Ledger,
    /// The state of the log itself; opaque.
    core: Bytes,
    /// The cells that the receiver lacks, all of them.
    chunk: Chunk,
}

impl Install {
    /// About how many bytes it takes on the wire.
    pub(super) fn bytes(&self) -> usize {
        let writes: usize = self.chunk.writes.iter().map(Write::bytes).sum();
        writes + self.core.len() + 4_096
    }
}

impl Shard {
    /// The origin of the present epoch's log, if there is one or was one last.
    pub(super) fn log_now(&self) -> Option<Origin> {
        self.strong.ledger().opened.as_ref().map(|opened| opened.origin)
    }

    /// This voter cannot apply what comes next: it has to go on from another's state.
    pub(in crate::protocol) fn stop_following(&mut self, output: &mut Output) {
        if !std::mem::take(&mut self.strong.standing.following) {
            return;
        }
        self.strong.changed = true;
        self.record_standing(output);
        self.tell_strong(StrongEvent::Lagging, output);
    }

    /// Takes out of what a peer sends what does not count in this epoch, and what a voter takes from the
    /// log only.
    pub(in crate::protocol) fn sift(&self, writes: &mut Vec<Write>) {
        let ledger = self.strong.ledger();
        if ledger.opened.is_none() {
            return;
        }
        let log = self.log_now().filter(|_| self.is_bound());
        let counts = |write: &Write| {
            let is_own = || write.cells.iter().all(|cell| cell.key.is_reserved());
            ledger.admits(write.stamp, write.dot()) || is_own()
        };
        writes.retain(|write| Some(write.stamp.origin) != log && counts(write));
    }

    /// Takes out of a peer's vector what a voter knows from the log only.
    pub(in crate::protocol) fn sift_captured(&mut self, captured: &mut Captured) {
        if self.is_bound()
            && let Some(log) = self.log_now()
        {
            let held = |vector: &VersionVector| vector.origin(log).map_or(0, |it| it.last());
            self.strong.behind |= held(&captured.vector) > held(&self.vector);
            captured.vector.forget(log);
        }
    }

    /// Asks for another voter's state, if this one needs it.
    pub(super) fn look_for_state(&mut self, now: Time, output: &mut Output) {
        let standing = &self.strong.standing;
        let holds_more = standing.left_out || self.fill.is_some();
        // Without a seat the log would tell it nothing more, and it would take itself for up to date.
        let sits = standing.sits(&standing.ledger);
        if self.strong.group.is_none() || standing.following || holds_more || !sits {
            return;
        }
        if standing.ledger.opened.is_none() && standing.ledger.slot == 0 && self.is_alone_in_group()
        {
            return;
        }
        let others = standing.ledger.seats.values().copied();
        let others: Vec<_> = others
            .filter(|node| *node != self.config.node)
            .filter(|node| self.peers.live(*node).is_some_and(|it| it.takes && !it.filling))
            .collect();
        let Some(donor) = self.rng.choice(others) else { return };
        let waits = self.exchanges.incoming.iter().any(|(from, _)| *from == donor);
        let asked = self.strong.asked_state.is_some_and(|at| now.since(at) < LOOK_INTERVAL);
        if asked {
            return;
        }
        self.strong.asked_state = Some(now);
        if !waits {
            self.open_round(donor, output);
        }
        let held = super::Digest(self.vector.to_send());
        self.say(donor, Word::Catch { held }, output);
    }

    fn is_alone_in_group(&self) -> bool {
        self.strong.ledger().seats.values().all(|node| *node == self.config.node)
    }

    pub(super) fn receive_catch(
        &mut self,
        peer: NodeId,
        epoch: Epoch,
        held: &VersionVector,
        output: &mut Output,
    ) {
        let gives = self.peers.live(peer).is_some_and(|link| link.gives);
        let ledger = self.strong.ledger();
        if !self.follows() || !gives || epoch != ledger.epoch || !self.strong.pending.is_empty() {
            return;
        }
        let Some(group) = &self.strong.group else { return };
        if group.decided() != ledger.slot {
            return;
        }
        let count_of = |vector: &VersionVector| {
            let log = self.log_now();
            log.and_then(|log| vector.origin(log)).map_or(0, |log| log.last())
        };
        if count_of(held) > count_of(&self.vector) {
            return;
        }
        let captured =
            Captured { vector: self.vector.to_send(), lamport: self.lamport, horizon: None };
        let id = ExchangeId(0);
        let exchange = Outgoing::new(RoundId(0), id, captured.clone(), held, Time::START);
        let chunk = match exchange {
            Some(mut exchange) => exchange.next_chunk(&self.store, REST_BYTES_MAX),
            None => Some(Chunk {
                exchange: id,
                against: super::DigestHash::of(held),
                number: 0,
                writes: Vec::new(),
                load: None,
                captured: Some(captured),
            }),
        };
        // More than one part: rounds bring it nearer first.
        let Some(chunk) = chunk.filter(|chunk| chunk.captured.is_some()) else { return };
        let install = Install { ledger: ledger.clone(), core: group.core(), chunk };
        self.gave = true;
        self.say(peer, Word::Install(Box::new(install)), output);
    }

    pub(super) fn receive_install(
        &mut self,
        now: Time,
        epoch: Epoch,
        install: Install,
        output: &mut Output,
    ) {
        let Install { ledger, core, chunk } = install;
        let standing = &self.strong.standing;
        let Some(group) = &self.strong.group else { return };
        let Chunk { writes, captured: Some(captured), .. } = chunk else { return };
        if standing.following
            || standing.left_out
            || self.fill.is_some()
            || epoch != standing.ledger.epoch
            || ledger.epoch != epoch
            || ledger.slot < standing.ledger.slot
            || !standing.sits(&ledger)
        {
            return;
        }
        let log = ledger.opened.as_ref().map(|opened| (opened.origin, opened.count));
        let ahead = log.is_some_and(|(log, count)| {
            self.vector.origin(log).is_some_and(|held| held.last() > count)
        });
        // What was decided since must be at hand, or still to come.
        let decided = group.decided();
        let next = self.strong.pending.iter().map(|(slot, _)| *slot).find(|it| *it >= ledger.slot);
        let continues = decided <= ledger.slot || next == Some(ledger.slot);
        if ahead || !continues || self.judge_capture(&captured).is_err() {
            return;
        }
        output.append.hold();
        for write in writes {
            if self.judge(&write).is_err() {
                output.append.release();
                return;
            }
            self.lamport = self.lamport.max(write.stamp.lamport);
            self.merge(write, output);
        }
        if self.keeps_records() {
            output.append.held(&captured.vector.without(&self.vector));
        }
        self.vector.merge(&captured.vector);
        let slot = ledger.slot;
        let count = log.map_or(0, |(_, count)| count);
        let whole = log
            .is_none_or(|(log, _)| self.vector.origin(log).map_or(0, |held| held.dense()) == count);
        let taken = match &mut self.strong.group {
            Some(group) if whole => group.install(now, slot, core),
            _ => Err(super::group::Refused::Stopped),
        };
        if taken.is_ok() {
            self.strong.standing.ledger = ledger;
            self.strong.standing.following = true;
            self.see_own_seat();
            self.strong.ready = false;
            self.record_standing(output);
            self.tell_strong(StrongEvent::CaughtUp { slot }, output);
        }
        output.append.release();
        if taken.is_ok() {
            self.settle_ready();
            self.apply_pending(now, output);
            self.advance_log(now, output);
        }
    }

    /// Looks whether all that happened before the present epoch is here by now.
    pub(in crate::protocol) fn settle_ready(&mut self) {
        if !self.strong.ready {
            self.strong.ready = self.strong.standing.ledger.is_ready(&self.vector);
        }
    }

    /// Begins anew if what is here does not all count, as soon as that may be.
    pub(super) fn look_at_what_was_left_out(&mut self, now: Time, output: &mut Output) {
        if !self.strong.standing.left_out {
            return;
        }
        self.rebuild(now, Distrust::LeftOut, output);
        if self.fill.is_some() {
            self.strong.standing.left_out = false;
            self.record_standing(output);
        }
    }

    /// The cells that are here beyond what the last strong epoch began with and what its log has written.
    /// Nearly all that a member holds is in the base, and is not looked at: it may be very much.
    pub(super) fn beyond_base(&self) -> impl Iterator<Item = Dot> {
        let opened = self.strong.ledger().opened.as_ref();
        let beyond = opened.map(|opened| {
            let beyond = self.vector.minus(&opened.base.0);
            beyond.into_iter().filter(|(origin, _)| *origin != opened.origin)
        });
        let ranges = beyond.into_iter().flatten().flat_map(|(origin, ranges)| {
            ranges.into_iter().map(move |(first, last)| (origin, first, last))
        });
        let store = &self.store;
        ranges.flat_map(move |(origin, first, last)| {
            let next = move |from| {
                let seq = store.next_seq(origin, from)?;
                (seq <= last).then_some(seq)
            };
            let seqs = std::iter::successors(next(first), move |seq| next(seq.checked_add(1)?));
            seqs.map(move |seq| Dot { origin, seq })
        })
    }

    /// Whether a cell that is here counts in this epoch.
    fn counts(&self, dot: Dot) -> bool {
        let admits = |stamp| self.strong.ledger().admits(stamp, dot);
        self.store.stamp(dot).is_none_or(admits)
            || self.store.cell(dot).is_none_or(|(_, cell)| cell.key.is_reserved())
    }

    /// An epoch has begun here: what does not count in it is put away.
    pub(super) fn enter(&mut self, now: Time, output: &mut Output) {
        let ledger = &self.strong.standing.ledger;
        let (epoch, mode) = (ledger.epoch, ledger.mode());
        self.strong.changed = true;
        self.epoch = epoch;
        self.strong.ready = false;
        self.strong.drive = None;
        self.strong.fencing = Default::default();
        self.settle_ready();
        self.tell_strong(StrongEvent::Entered { epoch, mode }, output);
        self.wishes_end(output);
        let opened = self.strong.ledger().opened.as_ref().map(|opened| opened.epoch);
        if self.fill.is_some() {
            self.strong.standing.left_out = false;
        } else if std::mem::replace(&mut self.strong.judged, opened) != opened {
            let left_out = self.beyond_base().any(|dot| !self.counts(dot));
            self.strong.standing.left_out = left_out;
        }
        let left_out = self.strong.standing.left_out;
        if left_out {
            self.stop_following(output);
        }
        self.look_at_what_was_left_out(now, output);
        self.exchanges = Default::default();
        self.tell_ledger(now, output);
        self.settle_posture(now, output);
    }
}
