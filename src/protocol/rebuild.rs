//! Beginning anew: what a node does that cannot trust what it has.
//!
//! A node that was away while tombstones were collected may have versions that they would have
//! beaten; one whose directory was rolled back has forgotten what it told others. Such a node puts
//! away what it has (the *attic*), takes a new origin, and fills itself from one donor. Then it makes
//! anew, as ordinary writes, what is in the attic and nobody else has seen.
//!
//! What must stay true:
//! - while it fills itself it gives nothing to anybody, and takes only the answers of one donor to
//!   what it asked in this life. With parts of two donors it could keep a version of the one that a
//!   tombstone, which the other has collected, had beaten; so when the donor fails, what it brought
//!   goes up into the attic;
//! - what clients write meanwhile is made anew as well, with stamps above all that the donor had
//!   seen: a write with a stamp below a collected tombstone's would show at some nodes and not at
//!   others;
//! - what was deleted here stays deleted, even where the tombstone has been collected and so is not in
//!   the attic. What this node held (`had`) and neither shows nor has put away was deleted: where the
//!   donor brings such a version, it is deleted once more. Of a node whose records have holes that is not
//!   so: what it lacks may have been lost, and nothing is deleted for its sake;
//! - of several versions of a cell that were put away only the latest is made anew;
//! - it does not happen too often: two nodes that distrust each other do not do so for ever.
//!
//! If there is nobody left to fill from, since all others begin anew as well, what is in the attic is
//! all there is, and is made anew after a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::anew;
use super::boundary::Output;
use super::cell::{CellWrite, Content, Field, Key, VALUE_BYTES_MAX, Write};
use super::delta::{Captured, PATIENCE};
use super::event::{Distrust, Event};
use super::id::NodeId;
use super::role;
use super::shard::Shard;
use super::stamp::{Dot, Stamp};
use super::strong::Fate;
use super::time::Time;
use super::version::VersionVector;

/// How long after it began anew a node may do so again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest of these pauses, and how long all must be well until they are short again.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// How long a node waits for a donor while all that it is linked with begin anew as well.
pub const LONELY_MAX: Duration = Duration::from_secs(30);

/// How long a node waits for a donor that has collected as much as it has to hold, while there are
/// only others: longer than it takes to greet everybody again.
const CHOOSY_MAX: Duration = PATIENCE;

/// What a node had when it began anew.
#[derive(Debug, Default)]
pub(super) struct Attic {
    /// What it has put away, by the dots.
    cells: BTreeMap<Dot, (Stamp, CellWrite)>,
    /// What it held: of this, what is not among the cells was replaced or deleted.
    had: VersionVector,
    /// Up to where tombstones were collected.
    horizon: VersionVector,
}

/// What a node that fills itself has put away, and from whom it fills itself.
#[derive(Debug)]
pub(super) struct Fill {
    attic: Attic,
    /// What was written here and given to nobody: the latest of each cell. What comes from a donor
    /// may replace it, and be dropped again.
    own: BTreeMap<(Key, Field), (Stamp, Dot, CellWrite)>,
    donor: Option<(NodeId, Time)>,
    /// Who did not let this node in, and how many dots a donor's horizon must have. Two nodes that
    /// are both behind would else fill themselves from each other.
    fenced_by: Option<NodeId>,
    horizon_dots_min: u64,
    /// Since when there is no donor.
    lonely: Time,
}

/// When a node has begun anew.
#[derive(Debug, Default)]
pub(super) struct Anew {
    last: Option<Time>,
    pause: Duration,
}

impl Attic {
    /// Everything that a node had.
    pub(super) fn of(
        cells: impl IntoIterator<Item = (Stamp, Dot, CellWrite)>,
        had: VersionVector,
        horizon: VersionVector,
    ) -> Self {
        let cells = cells.into_iter().map(|(stamp, dot, cell)| (dot, (stamp, cell))).collect();
        Self { cells, had, horizon }
    }

    /// Takes note that what is missing may have been lost, rather than replaced or deleted.
    pub(super) fn doubt(&mut self) {
        self.had = VersionVector::default();
    }

    /// Adds what has come since, but for what had been replaced or deleted before.
    pub(super) fn add(&mut self, cells: impl IntoIterator<Item = (Stamp, Dot, CellWrite)>) {
        let new = cells.into_iter().filter(|(_, dot, _)| !self.had.contains(*dot));
        self.cells.extend(new.map(|(stamp, dot, cell)| (dot, (stamp, cell))));
    }
}

impl Fill {
    /// A node that goes on filling itself.
    pub(super) fn again(attic: Attic) -> Self {
        Self {
            horizon_dots_min: attic.horizon.dots(),
            attic,
            own: BTreeMap::new(),
            donor: None,
            fenced_by: None,
            lonely: Time::START,
        }
    }

    /// Takes note of a write that is made while the node fills itself.
    pub(super) fn keep(&mut self, write: &Write) {
        let dots = (write.seq..).map(|seq| Dot { seq, ..write.dot() });
        for (dot, cell) in dots.zip(&write.cells) {
            if !cell.key.is_reserved() {
                let name = (cell.key.clone(), cell.field.clone());
                self.own.insert(name, (write.stamp, dot, cell.clone()));
            }
        }
    }

    /// Takes note of who did not let this node in, and how many dots its horizon has.
    pub(super) fn fenced(&mut self, by: NodeId, horizon_dots: u64) {
        (self.fenced_by, self.horizon_dots_min) = (Some(by), horizon_dots);
    }

    /// The greatest stamp of each cell that was put away or written since. There may be several: a
    /// node that dies while it fills itself puts away once more what has come since, and so does one
    /// whose donor fails. To make an older one anew would put it above the later one.
    fn latest(&self) -> BTreeMap<(&Key, &Field), Stamp> {
        let own = self.own.values().map(|(stamp, _, cell)| (stamp, cell));
        let mut latest = BTreeMap::new();
        for (stamp, cell) in self.attic.cells.values().map(|(stamp, cell)| (stamp, cell)).chain(own)
        {
            let greatest = latest.entry((&cell.key, &cell.field)).or_insert(*stamp);
            *greatest = (*greatest).max(*stamp);
        }
        latest
    }

    /// Puts away what a donor has brought of which not all has come.
    pub(super) fn put_away(&mut self, brought: Vec<(Stamp, Dot, CellWrite)>) {
        self.attic.add(brought);
    }

    pub(super) fn donor(&self) -> Option<NodeId> {
        self.donor.map(|(donor, _)| donor)
    }
}

impl Shard {
    /// Whether this node fills itself anew: reads show only what has come so far.
    pub fn is_filling(&self) -> bool {
        self.fill.is_some()
    }

    /// Whether a new life may begin now; takes note that it does.
    pub(super) fn may_begin_anew(&mut self, now: Time) -> bool {
        let since = self.anew.last.map(|last| now.since(last));
        if since.is_some_and(|since| since < self.anew.pause) {
            return false;
        }
        let calm = since.is_none_or(|since| since >= PAUSE_MAX);
        self.anew.pause =
            if calm { PAUSE_MIN } else { (self.anew.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX) };
        self.anew.last = Some(now);
        true
    }

    /// Puts away what is here and begins to fill itself, unless it is about to leave.
    pub(super) fn rebuild(&mut self, now: Time, why: Distrust, output: &mut Output) {
        if self.fill.is_some() || self.leaving || !self.may_begin_anew(now) {
            return;
        }
        self.counters.rebuilds += 1;
        let doubted = std::mem::take(&mut self.doubted);
        self.stop_following(output);
        let cells: Vec<_> =
            self.store.all().filter(|(_, _, cell)| !cell.key.is_reserved()).collect();
        // Of what nobody was given anything, nobody knows: no new origin is needed for that.
        let origin = self.config.origin;
        let keeps_origin = why == Distrust::Behind
            && !self.gave
            && self.horizon.is_empty()
            && cells.iter().all(|(_, dot, _)| dot.origin == origin);
        let (mut attic, mut own) = (Vec::new(), BTreeMap::new());
        for (stamp, dot, cell) in cells {
            if keeps_origin {
                own.insert((cell.key.clone(), cell.field.clone()), (stamp, dot, cell));
            } else {
                attic.push((stamp, dot, cell));
            }
        }
        let horizon = std::mem::take(&mut self.horizon);
        let mut attic = Attic::of(attic, self.vector.clone(), horizon);
        if doubted {
            attic.doubt();
        }
        self.fill = Some(Fill { own, lonely: now, ..Fill::again(attic) });
        self.roster.begin_anew();
        if !keeps_origin {
            self.begin_life(0, output);
        }
        self.empty(output);
        self.close_all(output);
        self.forget_collection();
        output.events.push(Event::Rebuilding { why });
        self.enroll_self(now, output);
        self.greet_all(now, output);
    }

    /// Drops all cells but those of the roster, and those written here that are to be kept.
    fn empty(&mut self, output: &mut Output) {
        let origin = self.config.origin;
        let own = self.fill.as_ref().into_iter().flat_map(|fill| fill.own.values().cloned());
        let roster = self.store.all().filter(|(_, _, cell)| cell.key.is_reserved());
        let stays: Vec<_> = roster.chain(own).collect();
        self.store.clear();
        // Nobody else has any of these, nor ever will: what is not kept was replaced by what is.
        let written = self.vector.origin(origin).cloned();
        self.vector = VersionVector::default();
        self.nothing_is_durable();
        for (first, last) in written.iter().flat_map(|written| written.ranges()) {
            self.vector.insert_all(origin, *first, *last);
        }
        let keeps_records = self.keeps_records();
        // As one unit: of what stays nothing is in the attic, and a crash must leave all of it.
        output.append.hold();
        if keeps_records {
            output.append.emptied();
        }
        for (stamp, dot, cell) in stays {
            self.vector.insert(dot);
            if keeps_records {
                output.append.go_on();
                output.append.cell(stamp, dot.seq, 0, &cell);
            }
            self.store.merge(stamp, dot.seq, cell);
        }
        if keeps_records {
            output.append.held(&self.vector);
        }
        output.append.release();
        self.store.forget_displaced();
        self.exchanges = Default::default();
    }

    /// Sees to it that there is somebody to fill from.
    pub(super) fn seek_donor(&mut self, now: Time, output: &mut Output) {
        let Some(fill) = &self.fill else { return };
        let useful = |shard: &Self, peer: NodeId| {
            shard.peers.live(peer).is_some_and(|link| link.takes && !link.filling)
        };
        if let Some((donor, since)) = fill.donor {
            let waits = self.exchanges.incoming.iter().any(|(from, _)| *from == donor);
            if useful(self, donor) && (waits || now.since(since) < PATIENCE) {
                return;
            }
            // What it brought does not go together with what another brings. It goes up into the attic:
            // the donor may have been the last that had it.
            let origin = self.config.origin;
            let brought: Vec<_> = self
                .store
                .all()
                .filter(|(_, dot, cell)| dot.origin != origin && !cell.key.is_reserved())
                .collect();
            if let Some(fill) = &mut self.fill {
                fill.put_away(brought);
            }
            self.empty(output);
            output.events.push(Event::Refilling);
        }
        let mut donors: Vec<_> = self.peers.ids().filter(|peer| useful(self, *peer)).collect();
        let Some(fill) = &mut self.fill else { return };
        if fill.donor.is_some() || now.since(fill.lonely) < CHOOSY_MAX {
            let least = fill.horizon_dots_min;
            donors.retain(|id| self.peers.live(*id).is_some_and(|peer| peer.collected >= least));
        }
        let fencer = fill.fenced_by.filter(|fencer| donors.contains(fencer));
        let donor = fencer.or_else(|| self.rng.choice(donors));
        if fill.donor.is_some() {
            fill.lonely = now;
        }
        fill.donor = donor.map(|donor| (donor, now));
        if let Some(donor) = donor {
            self.open_round(donor, output);
        }
    }

    /// What a node that fills itself does from time to time, instead of a round.
    pub(super) fn go_on_filling(&mut self, now: Time, output: &mut Output) {
        self.seek_donor(now, output);
        let Some(fill) = &self.fill else { return };
        if let Some((donor, _)) = fill.donor {
            let waits = self.exchanges.incoming.iter().any(|(from, _)| *from == donor);
            if !waits {
                self.open_round(donor, output);
            }
            return;
        }
        let peers: Vec<_> = self.peers.ids().collect();
        let all_fill = peers.iter().all(|peer| self.peers.live(*peer).is_some_and(|it| it.filling));
        if all_fill && !peers.is_empty() && now.since(fill.lonely) >= LONELY_MAX {
            let lamport = self.lamport;
            let horizon = Some(VersionVector::default());
            let nothing = Captured { vector: VersionVector::default(), lamport, horizon };
            return self.finish_filling(now, nothing, output);
        }
        peers.into_iter().for_each(|peer| self.ask_greeting(now, peer, output));
    }

    /// Takes over what a donor held when it began to answer, now that all of it has come.
    pub(super) fn finish_filling(&mut self, now: Time, captured: Captured, output: &mut Output) {
        let Some(horizon) = captured.horizon else { return };
        let Some(fill) = self.fill.take() else { return };
        self.vector.merge(&captured.vector);
        self.horizon = horizon;
        if self.vector.covers(&fill.attic.horizon) {
            self.horizon.merge(&fill.attic.horizon);
        }
        if self.keeps_records() {
            output.append.held(&captured.vector);
            output.append.horizon(&self.horizon);
        }
        self.take_over_claim(now, fill.donor(), &captured.vector, output);
        let is_last = self.is_surely_bereft();
        self.close_all(output);
        let origin = self.config.origin;
        let gone: Vec<_> = self
            .store
            .all()
            .filter(|(stamp, dot, cell)| {
                let had = fill.attic.had.contains(*dot) && !fill.attic.cells.contains_key(dot);
                had && dot.origin != origin
                    && !cell.key.is_reserved()
                    && cell.content != Content::Tombstone
                    // What an epoch has begun with, or its log has made, nobody deletes like this.
                    && self.fate(*stamp, *dot, is_last) == Fate::Anew
            })
            .collect();
        let latest = fill.latest();
        let mut again: BTreeMap<Stamp, Vec<(Dot, CellWrite)>> = BTreeMap::new();
        for (stamp, dot, mut cell) in fill.own.values().cloned() {
            match self.fate(stamp, dot, is_last) {
                Fate::Anew => {}
                Fate::Orphan => {
                    self.keep_orphan((stamp, dot), cell, output);
                    continue;
                }
                Fate::Dropped | Fate::Stays => continue,
            }
            // The origin may have changed meanwhile.
            if dot.origin != origin {
                cell.seen.insert(dot);
            }
            again.entry(stamp).or_default().push((dot, cell));
        }
        for (dot, (stamp, cell)) in &fill.attic.cells {
            let (dot, stamp) = (*dot, *stamp);
            let mut cell = cell.clone();
            match self.fate(stamp, dot, is_last) {
                Fate::Orphan => self.keep_orphan((stamp, dot), cell, output),
                Fate::Anew if !self.vector.contains(dot) => {
                    cell.seen.insert(dot);
                    again.entry(stamp).or_default().push((dot, cell));
                }
                Fate::Stays if !self.vector.contains(dot) => {
                    self.merge(Write::new(stamp, dot.seq, vec![cell]), output);
                }
                Fate::Anew | Fate::Stays | Fate::Dropped => {}
            }
        }
        // Deletions as well, even where nothing shows: who knew as much as their writer, but not of them,
        // may still bring what they have beaten.
        let dots: BTreeSet<Dot> = again.values().flatten().map(|(dot, _)| *dot).collect();
        let whole_key = Field::whole_key();
        for (of, cells) in &mut again {
            cells.retain(|(dot, cell)| {
                let is_latest =
                    latest.get(&(&cell.key, &cell.field)).is_none_or(|latest| latest <= of);
                let covered = || {
                    let whole = latest.get(&(&cell.key, &whole_key));
                    whole.is_some_and(|whole| *whole > anew::floor(*of, cell))
                };
                let is_ours = |dot: Dot| dots.contains(&dot);
                is_latest && !covered() && !self.store.outranks(*of, dot.seq, cell, is_ours)
            });
        }
        let (mut kept, mut exhausted) = (0, false);
        let deadline = role::deadline_field();
        let all = again.values().flatten().map(|(_, cell)| cell);
        let decided = all.filter(|cell| cell.field == deadline).map(|cell| cell.key.clone());
        let decided: BTreeSet<Key> = decided.collect();
        // Keys of which something was made anew, and those that begin anew by that.
        let (mut seen, mut begun) = (BTreeSet::new(), BTreeSet::new());
        for (of, mut cells) in again {
            cells.sort_by_key(|(dot, _)| *dot);
            let mut cells: Vec<CellWrite> = cells.into_iter().map(|(_, cell)| cell).collect();
            let whole = cells.iter().filter(|cell| cell.field.is_whole_key());
            begun.extend(whole.map(|cell| cell.key.clone()));
            let mut beginning = Vec::new();
            for key in cells.iter().map(|cell| &cell.key) {
                if seen.insert(key.clone()) && !begun.contains(key) {
                    beginning.extend(self.beginning(key, decided.contains(key)));
                }
            }
            begun.extend(beginning.iter().map(|cell| cell.key.clone()));
            let begun_anew = cells.iter_mut().filter(|cell| begun.contains(&cell.key));
            begun_anew.for_each(anew::count_from_now);
            let cells = beginning.into_iter().chain(cells);
            for cells in writes_of(cells, VALUE_BYTES_MAX) {
                let keys: Vec<Key> = cells.iter().map(|cell| cell.key.clone()).collect();
                let Some((stamp, dot)) = self.write_own(now, cells, output) else {
                    exhausted = true;
                    continue;
                };
                kept += 1;
                output.events.push(Event::Rewritten { of, stamp, dot, keys });
            }
        }
        for (of, dot, cell) in gone {
            // What replaced it here has done so again, if it was not a deletion.
            if self.store.stamp(dot).is_some() {
                kept += usize::from(self.delete_anew(now, of, cell, output));
            }
        }
        // What could not be made anew stays in the attic on disk.
        if self.keeps_records() && !exhausted {
            output.append.filled();
        }
        output.events.push(Event::Rebuilt { kept });
        self.greet_all(now, output);
    }

    /// Deletes a version once more, of which the deletion has been collected; says whether it did.
    fn delete_anew(&mut self, now: Time, of: Stamp, cell: CellWrite, output: &mut Output) -> bool {
        let (key, seen) = self.store.prepare(&cell.key, &cell.field, self.config.origin);
        let cell = CellWrite { key: key.clone(), content: Content::Tombstone, seen, ..cell };
        let Some((stamp, dot)) = self.write_own(now, vec![cell], output) else { return false };
        output.events.push(Event::Redeleted { key, of, stamp, dot });
        true
    }
}

/// The cells as writes of about `bytes_max` bytes: what was one write may have grown beyond what
/// peers take in one, by what each cell has seen since. One cell always fits.
fn writes_of(
    cells: impl IntoIterator<Item = CellWrite>,
    bytes_max: usize,
) -> impl Iterator<Item = Vec<CellWrite>> {
    let mut cells = cells.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = cells.next()?;
        let mut bytes = first.bytes();
        let mut write = vec![first];
        let mut fits = |cell: &CellWrite| {
            bytes += cell.bytes();
            bytes <= bytes_max
        };
        while let Some(cell) = cells.next_if(&mut fits) {
            write.push(cell);
        }
        Some(write)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::boundary::{Input, Reply, Request, Token};
    use crate::protocol::cell::Seen;
    use crate::protocol::config::{Config, Durability};
    use crate::protocol::id::Origin;
    use crate::protocol::recovery::Recovery;
    use crate::protocol::stamp::Lamport;
    use crate::protocol::time::WallTime;

    /// What was accepted once is made anew even where a client could not write it any more: values
    /// longer than are taken now, in a node that has no memory left for more.
    #[test]
    fn limits_of_clients_do_not_hold_for_what_is_made_anew() {
        let durability = Durability::Always;
        let mut shard = Shard::new(Config { durability, ..Config::new(NodeId(1), Origin(1), 1) });
        let mut output = Output::default();
        let value = &[7; 1_000][..];
        for key in [&b"attic"[..], b"later"] {
            let set = Request::Set { key, value };
            shard.handle(Time::START, Input::Request(Token(0), set), &mut output);
        }
        shard.gave = true;
        shard.rebuild(Time::START, Distrust::Asked, &mut output);
        assert!(shard.is_filling() && !shard.reader().contains(b"attic", WallTime(0)));
        let own = Request::Set { key: b"own", value };
        shard.handle(Time::START, Input::Request(Token(0), own), &mut output);

        shard.config.memory_bytes_max = Some(0);
        shard.config.value_bytes_max = 10;
        let horizon = Some(VersionVector::default());
        let captured = Captured { vector: VersionVector::default(), lamport: Lamport(0), horizon };
        shard.finish_filling(Time::START, captured, &mut output);
        assert!(
            [&b"attic"[..], b"later", b"own"]
                .iter()
                .all(|key| shard.reader().contains(key, WallTime(0)))
        );
        output.clear();
        let set = Request::Set { key: b"k", value: b"v" };
        shard.handle(Time::START, Input::Request(Token(0), set), &mut output);
        assert_eq!(output.reply, [(Token(0), Reply::OutOfMemory)], "the limits hold for clients");
    }

    /// Of two versions of a cell that are both put away, since the node died while it filled itself, the
    /// later one shows in the end.
    #[test]
    fn of_two_versions_put_away_the_later_one_stands() {
        let config =
            || Config { durability: Durability::Always, ..Config::new(NodeId(1), Origin(1), 1) };
        let (mut shard, append) = Recovery::new(1).into_shard(config(), 1);
        let mut records = append.records;
        let mut output = Output::default();
        let set = |shard: &mut Shard, output: &mut Output, value: &[u8]| {
            let set = Request::Set { key: b"key", value };
            shard.handle(Time::START, Input::Request(Token(0), set), output);
        };
        set(&mut shard, &mut output, b"before");
        shard.gave = true;
        shard.rebuild(Time::START, Distrust::Asked, &mut output);
        set(&mut shard, &mut output, b"while it filled itself");
        records.append(&mut output.append.records);

        let mut recovery = Recovery::new(1);
        recovery.apply(&records).unwrap();
        let (mut shard, _) = recovery.into_shard(config(), 2);
        assert!(shard.is_filling());
        let horizon = Some(VersionVector::default());
        let captured = Captured { vector: VersionVector::default(), lamport: Lamport(0), horizon };
        shard.finish_filling(Time::START, captured, &mut output);
        let shown = shard.reader().string(b"key", WallTime(0), |value| value.map(<[u8]>::to_vec));
        assert_eq!(shown.as_deref(), Some(&b"while it filled itself"[..]));
    }

    /// A write that has grown is made as several, in order, none larger than it may be unless it is
    /// one cell.
    #[test]
    fn a_write_that_has_grown_is_split() {
        let cells = |sizes: &[usize]| -> Vec<CellWrite> {
            let cell = |size: &usize| CellWrite {
                key: Key::from("k"),
                field: Field::whole_key(),
                content: Content::from(&vec![0; *size][..]),
                seen: Seen::default(),
            };
            sizes.iter().map(cell).collect()
        };
        let all = cells(&[10, 10, 10, 500, 10]);
        let writes: Vec<_> = writes_of(all.clone(), 100).collect();
        let counts: Vec<_> = writes.iter().map(Vec::len).collect();
        assert_eq!(counts, [3, 1, 1]);
        assert_eq!(writes.concat(), all);
    }
}
