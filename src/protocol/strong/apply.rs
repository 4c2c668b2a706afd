//! Applying the log: every voter does the same, in the same order, to the same state.
//!
//! What an entry does depends on the entry, the ledger and the cells, and on nothing else. An entry
//! that cannot be decoded does nothing, at every voter alike. The cells of a slot and the note that it
//! was applied are recorded as one piece.

use bytes::Bytes;

use super::super::boundary::Output;
use super::super::cell::{CellWrite, Seen, VALUE_BYTES_MAX, Write};
use super::super::digest::Digest;
use super::super::event::Distrust;
use super::super::operation::{Answer, Executed, Mode, Moment, Operation, Refused, execute};
use super::super::shard::Shard;
use super::super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::super::store::Fingerprint;
use super::super::time::Time;
use super::ledger::{Call, Entry, Opened, Phase, log_origin};
use super::requests::Outcome;
use super::{PENDING_BYTES_MAX, PENDING_SLOTS_MAX, StrongEvent};

/// How many bytes the operations of one slot may write before the rest of its writes is refused: a few
/// dozen bytes can ask for a value of the longest kind, so an entry could ask for more than any memory.
const SLOT_WRITES_BYTES_MAX: usize = 256 << 20;

impl Shard {
    /// A slot is decided.
    pub(super) fn committed(
        &mut self,
        now: Time,
        slot: u64,
        entries: Vec<Bytes>,
        output: &mut Output,
    ) {
        let next = self.strong.ledger().slot;
        if slot < next && self.strong.pending.is_empty() {
            // A start hands out again what was applied before it.
            return;
        }
        if !self.follows() || slot != next {
            let bytes: usize = entries.iter().map(Bytes::len).sum();
            let strong = &mut self.strong;
            if strong.pending.is_empty() {
                strong.pending_bytes = 0;
            }
            if strong.pending.len() >= PENDING_SLOTS_MAX || strong.pending_bytes > PENDING_BYTES_MAX
            {
                // It goes on from a later state of another voter.
                strong.pending.clear();
                strong.pending_bytes = 0;
            }
            strong.pending_bytes += bytes;
            strong.pending.push_back((slot, entries));
            return;
        }
        self.apply_slot(now, slot, entries, output);
        self.applied_more(output);
    }

    /// Applies what has waited until this voter follows again.
    pub(super) fn apply_pending(&mut self, now: Time, output: &mut Output) {
        while self.follows() {
            let next = self.strong.ledger().slot;
            match self.strong.pending.pop_front() {
                None => break,
                Some((slot, _)) if slot < next => {}
                Some((slot, entries)) if slot == next => {
                    self.apply_slot(now, slot, entries, output);
                }
                Some(gap) => {
                    self.strong.pending.push_front(gap);
                    self.stop_following(output);
                }
            }
        }
        self.applied_more(output);
    }

    pub(super) fn apply_slot(
        &mut self,
        now: Time,
        slot: u64,
        entries: Vec<Bytes>,
        output: &mut Output,
    ) {
        output.append.hold();
        self.strong.slot_bytes = 0;
        self.strong.applying = true;
        self.strong.standing.ledger.slot = slot + 1;
        for bytes in entries {
            let Some(entry) = Entry::decode(&bytes) else { continue };
            self.apply_entry(now, entry, output);
            if !self.follows() {
                // It could not be applied here: this voter goes on from another's state.
                self.strong.standing.ledger.slot = slot;
                break;
            }
        }
        match std::mem::take(&mut self.strong.changed) {
            true => self.record_standing(output),
            false => self.record_applied(output),
        }
        output.append.release();
        self.strong.applying = false;
        if std::mem::take(&mut self.strong.greets) {
            self.greet_all(now, output);
        }
    }

    /// Tells all peers what the ledger is now; once for a slot, when all of it has been applied. A slot has
    /// several entries, and whoever took over what is between two of them would take over nothing more of
    /// the same slot.
    pub(super) fn tell_ledger(&mut self, now: Time, output: &mut Output) {
        match self.strong.applying {
            true => self.strong.greets = true,
            false => self.greet_all(now, output),
        }
    }

    fn apply_entry(&mut self, now: Time, entry: Entry, output: &mut Output) {
        match entry {
            Entry::Calls { by, number, epoch, calls } => {
                self.apply_calls(now, (by, number), epoch, calls, output);
            }
            Entry::Prepare { epoch, members, by, without } => {
                self.apply_prepare(now, epoch, Phase::Preparing { members, by, without });
            }
            Entry::Open { epoch, base, lamport, fingerprint } => {
                self.apply_open(now, epoch, (base, lamport), fingerprint, output);
            }
            Entry::Abort { epoch } => self.apply_abort(now, epoch, output),
            Entry::Relax { epoch } => self.apply_relax(now, epoch, output),
            Entry::Seat { voter, node } => self.apply_seat(now, voter, node, output),
            Entry::Adopt { stamp, dot, cell } => {
                self.apply_adopt((stamp, dot), cell, output);
            }
        }
    }

    fn apply_calls(
        &mut self,
        now: Time,
        (by, number): (u64, u64),
        epoch: Epoch,
        calls: Vec<Call>,
        output: &mut Output,
    ) {
        let askers = match by == self.strong.life {
            true => self.strong.requests.decided(number),
            false => None,
        };
        let mut askers = askers.into_iter().flatten();
        let ledger = self.strong.ledger();
        if ledger.epoch != epoch || ledger.mode() != Mode::Strong {
            // It came after the end of its epoch, so it was not done; whoever waits goes on anew.
            for (asker, call) in askers.zip(calls) {
                self.dispatch(now, asker, call, output);
            }
            return;
        }
        for call in calls {
            let asker = askers.next();
            let outcome = self.apply_call(&call, asker.is_some(), output);
            if let Some(asker) = asker {
                self.answer(asker, outcome, output);
            }
        }
    }

    /// Does what a call asks for. Of one that only reads all voters take the time, and only the one whose
    /// client waits reads.
    fn apply_call(&mut self, call: &Call, is_asked: bool, output: &mut Output) -> Outcome {
        let Some(opened) = &self.strong.standing.ledger.opened else {
            let answer = Answer::Refused(Refused::Syntax);
            return Outcome::Executed { answer, written: None };
        };
        let origin = opened.origin;
        let Ok(operation) = Operation::decode(&call.operation) else {
            let answer = Answer::Refused(Refused::Syntax);
            return Outcome::Executed { answer, written: None };
        };
        if self.strong.slot_bytes > SLOT_WRITES_BYTES_MAX && operation.is_write() {
            let answer = Answer::Refused(Refused::TooLong);
            return Outcome::Executed { answer, written: None };
        }
        let ledger = &mut self.strong.standing.ledger;
        ledger.wall = ledger.wall.max(call.moment.wall);
        let moment = Moment { wall: ledger.wall, ..call.moment };
        if !is_asked && !operation.is_write() {
            return Outcome::Executed { answer: Answer::Nil, written: None };
        }
        let executed = execute(&self.store, &operation, moment, Mode::Strong, origin.into());
        let Executed { cells, answer, .. } = executed;
        if cells.iter().any(|cell| cell.bytes() > VALUE_BYTES_MAX) {
            let answer = Answer::Refused(Refused::TooLong);
            return Outcome::Executed { answer, written: None };
        }
        let written = self.write_log(cells, output);
        Outcome::Executed { answer, written }
    }

    /// Makes writes of the log: one, unless that would be longer than members take.
    pub(super) fn write_log(
        &mut self,
        cells: Vec<CellWrite>,
        output: &mut Output,
    ) -> Option<(Stamp, Dot)> {
        let epoch = self.strong.standing.ledger.epoch;
        let mut written = None;
        let mut cells = cells.into_iter().peekable();
        while cells.peek().is_some() {
            let (mut some, mut bytes) = (Vec::new(), 0);
            while let Some(cell) =
                cells.next_if(|cell| bytes == 0 || bytes + cell.bytes() <= VALUE_BYTES_MAX)
            {
                bytes += cell.bytes();
                some.push(cell);
            }
            self.strong.slot_bytes += bytes;
            let opened = self.strong.standing.ledger.opened.as_mut()?;
            let seq = opened.count + 1;
            opened.count += some.len() as u64;
            let lamport = Lamport(opened.lamport.0.saturating_add(opened.count));
            let stamp = Stamp { epoch, lamport, origin: opened.origin };
            let write = Write::new(stamp, seq, some);
            written = Some((stamp, write.last_dot()));
            self.lamport = self.lamport.max(lamport);
            self.counters.writes_log += 1;
            self.push_log(&write, output);
            self.merge(write, output);
        }
        if written.is_some() && self.keeps_records() {
            self.recording.reserve(self.lamport, &mut output.append);
        }
        written
    }

    fn apply_prepare(&mut self, now: Time, epoch: Epoch, phase: Phase) {
        let ledger = &mut self.strong.standing.ledger;
        let follows = ledger.epoch.0.checked_add(1) == Some(epoch.0);
        if ledger.mode() != Mode::Eventual || !follows || ledger.phase != Phase::Settled {
            return;
        }
        ledger.phase = phase;
        self.strong.changed = true;
        self.prepare_begins(now);
    }

    fn apply_open(
        &mut self,
        now: Time,
        epoch: Epoch,
        (base, lamport): (Digest, Lamport),
        fingerprint: Fingerprint,
        output: &mut Output,
    ) {
        let ledger = &self.strong.standing.ledger;
        let follows = ledger.epoch.0.checked_add(1) == Some(epoch.0);
        let (Phase::Preparing { without, .. }, true) = (&ledger.phase, follows) else { return };
        let without = without.clone();
        let Some(charter) = &self.strong.standing.charter else { return };
        let origin = log_origin(&charter.id, epoch);
        let holds = self.vector.covers(&base.0) && self.fill.is_none();
        let opened = Opened { epoch, base, lamport, origin, count: 0 };
        let differs = holds && self.store.clients_fingerprint() != fingerprint;
        self.lamport = self.lamport.max(lamport);
        let ledger = &mut self.strong.standing.ledger;
        (ledger.epoch, ledger.phase) = (epoch, Phase::Settled);
        ledger.opened = Some(opened);
        // What was forgotten by then is over for the log as well.
        ledger.wall = ledger.wall.max(self.store.bound());
        self.enter(now, output);
        if !holds || differs {
            self.stop_following(output);
        }
        if differs {
            // Nothing is applied to cells that are not those of the others.
            self.tell_strong(StrongEvent::Differing, output);
            self.rebuild(now, Distrust::Asked, output);
        }
        self.retire_left_out(now, &without, output);
    }

    fn apply_abort(&mut self, now: Time, epoch: Epoch, output: &mut Output) {
        let ledger = &mut self.strong.standing.ledger;
        let follows = ledger.epoch.0.checked_add(1) == Some(epoch.0);
        if !matches!(ledger.phase, Phase::Preparing { .. }) || !follows {
            return;
        }
        let Some(next) = epoch.0.checked_add(1) else { return };
        (ledger.epoch, ledger.phase) = (Epoch(next), Phase::Settled);
        self.tell_strong(StrongEvent::Aborted { epoch: Epoch(next) }, output);
        self.enter(now, output);
    }

    fn apply_relax(&mut self, now: Time, epoch: Epoch, output: &mut Output) {
        let ledger = &mut self.strong.standing.ledger;
        if ledger.mode() != Mode::Strong || ledger.epoch.0.checked_add(1) != Some(epoch.0) {
            return;
        }
        ledger.epoch = epoch;
        self.enter(now, output);
    }

    /// A write of an earlier epoch that only one member had: it is made if its writer had seen all that
    /// its key shows now, and that is something.
    fn apply_adopt(&mut self, (stamp, dot): (Stamp, Dot), cell: CellWrite, output: &mut Output) {
        let ledger = &self.strong.standing.ledger;
        let (Mode::Strong, Some(opened)) = (ledger.mode(), &ledger.opened) else { return };
        let is_whole = cell.field.is_whole_key() && !cell.key.is_reserved();
        let is_orphan = is_whole && !ledger.admits(stamp, dot) && stamp.epoch < opened.epoch;
        let live = self.store.live_dots(&cell.key);
        let knew = |there: &Dot| {
            there.origin == dot.origin && there.seq < dot.seq || cell.seen.contains(*there)
        };
        // What has expired may have been forgotten by one voter and not by another.
        let shows = self.store.reader().contains(&cell.key, ledger.wall);
        let adopted = is_orphan && shows && live.iter().all(knew);
        if adopted {
            self.write_log(vec![CellWrite { seen: Seen::default(), ..cell }], output);
        }
        self.orphan_decided(dot, adopted, output);
    }
}
