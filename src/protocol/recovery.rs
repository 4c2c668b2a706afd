//! From records back to a shard: a pure function of what was durable.
//!
//! What must stay true:
//! - What was acknowledged and durable is there again, and the shard holds, for every dot that it
//!   marks, that cell or something greater, as it did before.
//! - No dot or stamp is used twice. With every start a new life begins, as a new origin: peers may
//!   hold writes of ours that we do not remember, after a crash or because the directory is a copy or
//!   was brought back from a backup. Their tail comes back from peers like anybody's writes. To go on
//!   where nothing can have been lost would save an entry of some 12 bytes in the vector per start,
//!   and cost a copied directory its writes.
//! - Stamps of a new life are above those of the last one, also of what was lost in a crash: counters
//!   are reserved ahead. So of two writes of one client, one before a crash and one after it, the
//!   second one wins.
//!
//! The number of a life is a counter in its upper half and random in its lower half, of every life,
//! also one that begins while the node runs: two copies of a directory begin different lives, whatever
//! they are told of each other. A life that was just one more than what peers had heard of was tried:
//! it was the very life that the copy's original had lived, and what was written in it was taken for
//! known.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::boundary::Output;
use super::config::Config;
use super::id::Origin;
use super::rebuild::Attic;
use super::record::{self, Append, Begin, KeptCell, Record, RecordError, Recorded};
use super::roster::INCARNATION_MAX;
use super::shard::Shard;
use super::stability::hold_beaten;
use super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::store::{Cursor, Store};
use super::strong::{Orphan, Standing, Strong};
use super::version::VersionVector;

/// How many counters are reserved at a time: the distance by which a life that begins after a crash
/// is ahead of where it could have been.
const LAMPORT_RESERVED: u64 = 1 << 20;

/// A shard that is being made from records. See the module's documentation.
pub struct Recovery {
    store: Store,
    vector: VersionVector,
    lamport: Lamport,
    ceiling: Lamport,
    life: Option<Begin>,
    ended: bool,
    horizon: VersionVector,
    /// What was put away when the node began to fill itself anew, if it has not finished.
    attic: Option<Attic>,
    /// Whether part of the records was lost.
    doubted: bool,
    /// Whether the records of the replicated log are not all there.
    has_holes: bool,
    standing: Standing,
    /// The number of the last record of the replicated log, and the records.
    group: (u64, Vec<Bytes>),
    orphans: BTreeMap<Dot, Orphan>,
    /// The stamp and number of the last cell.
    last: Option<(Stamp, u64)>,
    /// A unit of which the end has not come.
    unit: Option<Vec<Record>>,
}

/// What a shard rises with.
pub(super) struct Rising {
    pub(super) config: Config,
    pub(super) store: Store,
    pub(super) vector: VersionVector,
    pub(super) lamport: Lamport,
    pub(super) horizon: VersionVector,
    /// Whether part of the records was lost.
    pub(super) doubted: bool,
    /// What is to be made anew once the node has filled itself, if it must.
    pub(super) attic: Option<Attic>,
    pub(super) recording: Recording,
    /// What is known of the replicated log and the mode.
    pub(super) strong: Strong,
}

/// What a shard keeps in mind about its records.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// The greatest counter that may be used.
    ceiling: Lamport,
}

impl Recovery {
    /// Nothing yet; `hash_seed` is that of the shard's configuration.
    pub fn new(hash_seed: u64) -> Self {
        Self {
            store: Store::new(hash_seed),
            vector: VersionVector::default(),
            lamport: Lamport(0),
            ceiling: Lamport(0),
            life: None,
            ended: false,
            horizon: VersionVector::default(),
            attic: None,
            doubted: false,
            has_holes: false,
            standing: Standing::default(),
            group: (0, Vec::new()),
            orphans: BTreeMap::new(),
            last: None,
            unit: None,
        }
    }

    /// Takes note that part of the records was lost. The shard shows what there is, and fills itself
    /// anew as soon as it meets a peer that can tell what is missing. As a voter it has forgotten what it
    /// has said, and comes back under another number.
    pub fn doubt(&mut self) {
        self.doubted = true;
        self.has_holes = true;
        self.attic.iter_mut().for_each(Attic::doubt);
    }

    /// How many cells have been found so far.
    pub fn cells(&self) -> usize {
        self.store.cells()
    }

    /// Takes in records that were durable together.
    ///
    /// # Errors
    /// When the bytes are not records of this version: another version wrote them, or they are
    /// damaged in a way that no checksum shows. Nothing more should then be taken in.
    pub fn apply(&mut self, records: &[u8]) -> Result<(), RecordError> {
        let (mut last, mut is_first) = (self.last, true);
        let result = record::read(records, &mut last).try_for_each(|record| {
            let record = record?;
            if std::mem::take(&mut is_first) && record != Record::UnitGoesOn {
                // Of a unit before this piece the rest is missing: nobody was told of it.
                self.unit = None;
            }
            self.gather(record)
        });
        self.last = last;
        result
    }

    /// Takes a record in, at once or when its unit is whole.
    fn gather(&mut self, record: Record) -> Result<(), RecordError> {
        match (record, &mut self.unit) {
            (Record::UnitBegins, unit) => *unit = Some(Vec::new()),
            (Record::UnitEnds, unit) => {
                let mut whole = unit.take().into_iter().flatten();
                return whole.try_for_each(|record| self.take(record));
            }
            (record, Some(unit)) => unit.push(record),
            // Also the rest of a unit whose beginning is in the snapshot before it.
            (record, None) => return self.take(record),
        }
        Ok(())
    }

    fn take(&mut self, record: Record) -> Result<(), RecordError> {
        self.ended = false;
        match record {
            Record::UnitBegins | Record::UnitGoesOn | Record::UnitEnds => {}
            Record::Begin(life) if life.incarnation > 2 * INCARNATION_MAX => {
                return Err(RecordError::Impossible);
            }
            Record::Begin(life) => {
                // A snapshot names the life in which it was made.
                if self.life.is_none_or(|before| before.incarnation <= life.incarnation) {
                    self.life = Some(life);
                }
            }
            Record::End => self.ended = true,
            Record::Ceiling(ceiling) => self.ceiling = self.ceiling.max(ceiling),
            Record::Counter(counter) => self.lamport = self.lamport.max(counter),
            Record::Cell(cell) => {
                self.hold(&cell);
                self.store.merge(cell.stamp, cell.seq, cell.cell);
            }
            Record::Lost(cell) => {
                self.hold(&cell);
                self.store.lose(cell.stamp, cell.seq, cell.cell);
            }
            Record::Mended(cell) => {
                self.hold(&cell);
                self.store.mend(cell.stamp, cell.seq, &cell.cell);
            }
            Record::Cells(run) => run.into_cells()?.into_iter().for_each(|kept| self.keep(kept)),
            Record::Held(held) => self.vector.merge(&held),
            Record::Horizon(horizon) => self.horizon.merge(&horizon),
            Record::Emptied => {
                self.put_away();
                if std::mem::take(&mut self.doubted) {
                    self.attic.iter_mut().for_each(Attic::doubt);
                }
            }
            Record::Doubted => self.doubted = true,
            Record::Filled => self.attic = None,
            // What stands in a snapshot and in the journal behind it counts once.
            Record::Group(number, ..) if number <= self.group.0 => {}
            Record::Group(number, replace, records) => {
                self.has_holes |= !replace && number != self.group.0 + 1;
                self.group.0 = number;
                if replace {
                    self.group.1.clear();
                }
                self.group.1.extend(records);
            }
            Record::Standing(standing) => self.standing = *standing,
            Record::Applied(applied) => self.standing.apply(applied),
            Record::Forgotten(keys) => {
                keys.iter().for_each(|(key, last)| self.store.forget(key, *last));
            }
            Record::Orphan(orphan) => drop(self.orphans.insert(orphan.dot, *orphan)),
        }
        self.store.forget_displaced();
        Ok(())
    }

    /// Puts what is here into the attic, but for the roster.
    fn put_away(&mut self) {
        let cells: Vec<_> =
            self.store.all().filter(|(_, _, cell)| !cell.key.is_reserved()).collect();
        self.store.clear();
        let vector = std::mem::take(&mut self.vector);
        let horizon = std::mem::take(&mut self.horizon);
        match &mut self.attic {
            Some(attic) => attic.add(cells),
            None => self.attic = Some(Attic::of(cells, vector, horizon)),
        }
    }

    fn hold(&mut self, cell: &Recorded) {
        let first = cell.seq - u64::from(cell.covers);
        self.vector.insert_all(cell.stamp.origin, first, cell.seq);
        self.lamport = self.lamport.max(cell.stamp.lamport);
    }

    fn keep(&mut self, kept: KeptCell) {
        let KeptCell { stamp, seq, .. } = kept;
        self.vector.insert(Dot { origin: stamp.origin, seq });
        self.lamport = self.lamport.max(stamp.lamport);
        self.store.restore(kept);
    }

    /// The shard, and what has to be durable before it does anything.
    ///
    /// `config` may name any origin and incarnation: they follow from the records. `dice` is random.
    pub fn into_shard(mut self, mut config: Config, dice: u32) -> (Shard, Append) {
        let fills = self.attic.is_some();
        let incarnation = life_after(self.life.map_or(0, |life| life.incarnation), dice);
        if !self.ended {
            self.lamport = self.lamport.max(self.ceiling);
        }
        config.origin = Origin::of(config.node, incarnation);
        config.incarnation = incarnation;
        let mut append = Append::default();
        append.begin(Begin { incarnation });
        append.counter(self.lamport);
        if self.doubted {
            append.doubted();
        }
        // So that the next life is above this one, however early this one dies.
        let mut recording = Recording::default();
        recording.reserve(self.lamport, &mut append);
        if fills {
            let roster: Vec<_> =
                self.store.all().filter(|(_, _, cell)| cell.key.is_reserved()).collect();
            self.put_away();
            append.emptied();
            for (stamp, dot, cell) in roster {
                self.vector.insert(dot);
                append.cell(stamp, dot.seq, 0, &cell);
                self.store.merge(stamp, dot.seq, cell);
            }
        }
        // The horizon is recorded before the first tombstone goes, and covers those whose turn had
        // not come: what they had beaten is marked here, as it would have been then.
        let mut beaten = VersionVector::default();
        for seen in self.store.collect_all(&self.horizon) {
            beaten.merge(&hold_beaten(&seen, config.origin, self.lamport, &mut self.vector));
        }
        if !beaten.is_empty() {
            append.held(&beaten);
        }
        self.store.forget_displaced();
        let Self { store, vector, lamport, horizon, attic, doubted, mut standing, .. } = self;
        if self.has_holes && standing.votes() {
            // What it has said it does not know, so it could contradict itself.
            standing.forget_voter();
            // Nor whether it has heard of all slots before the last of which it knows.
            standing.forget_slots();
            self.group = (self.group.0 + 1, Vec::new());
            append.group(self.group.0, true, &[]);
            append.standing(&standing);
        }
        if !standing.has_charter() {
            // What was brought back from another cluster may be of later epochs.
            let latest = store.all().map(|(stamp, ..)| stamp.epoch.0).max().unwrap_or(0);
            standing.begin_at(Epoch(latest.next_multiple_of(2)));
        }
        let strong = Strong::risen(standing, self.group, self.orphans);
        // Who fills itself need not do so once more.
        let doubted = doubted && !fills;
        let rising =
            Rising { config, store, vector, lamport, horizon, doubted, attic, recording, strong };
        (Shard::risen(rising), append)
    }
}

/// The number of a life that follows another one and that nobody else begins.
pub(super) fn life_after(incarnation: u64, dice: u32) -> u64 {
    (((incarnation >> 32) + 1) << 32) | u64::from(dice)
}

impl Shard {
    /// Records that this node has ended in order: no counter was used beyond those in the records, so
    /// the next life goes on counting where this one ends.
    pub fn end(&self, output: &mut Output) {
        if self.keeps_records() {
            output.append.counter(self.lamport);
            output.append.end();
        }
    }

    /// Records who this node is as a writer, for a snapshot of its own.
    pub fn export_life(&self, append: &mut Append) {
        append.begin(Begin { incarnation: self.config.incarnation });
        append.ceiling(self.recording.ceiling());
    }

    /// Records what it holds, apart from the cells.
    pub fn export_head(&self, append: &mut Append) {
        append.counter(self.lamport);
        if self.doubted {
            append.doubted();
        }
        append.held(&self.vector);
        append.horizon(&self.horizon);
    }

    /// Records cells, about `bytes_max` bytes of them, from `cursor` on; answers where to go on, or
    /// `None` at the end.
    ///
    /// Cells may change between two calls: what changes meanwhile is in the records that the shard
    /// appends, and those are to be applied after these.
    pub fn export_cells(
        &self,
        cursor: &Cursor,
        bytes_max: usize,
        append: &mut Append,
    ) -> Option<Cursor> {
        let (cells, next) = self.store.kept(cursor, bytes_max, true);
        append.cells(cells);
        next
    }
}

impl Recording {
    /// The greatest counter that may be used.
    pub(super) fn ceiling(&self) -> Lamport {
        self.ceiling
    }

    /// Sees to it that counters are reserved a good while before they are used: half of what is
    /// reserved at a time is many times what is written until the next sync.
    pub(super) fn reserve(&mut self, lamport: Lamport, append: &mut Append) {
        if lamport.0.saturating_add(LAMPORT_RESERVED / 2) > self.ceiling.0 {
            self.ceiling = Lamport(lamport.0.saturating_add(LAMPORT_RESERVED));
            append.ceiling(self.ceiling);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::boundary::{Input, Output, Request, Token};
    use crate::protocol::cell::{CellWrite, Content, Field, Key, Seen};
    use crate::protocol::config::Durability;
    use crate::protocol::event::Distrust;
    use crate::protocol::id::NodeId;
    use crate::protocol::repair::prevails;
    use crate::protocol::stamp::Epoch;
    use crate::protocol::time::{Time, WallTime};

    fn config(durability: Durability) -> Config {
        Config { durability, ..Config::new(NodeId(1), Origin(0), 7) }
    }

    /// A shard that has written, with all that it recorded.
    fn written(durability: Durability, steps: &[(u8, bool)]) -> (Shard, Vec<u8>) {
        let (mut shard, append) = Recovery::new(7).into_shard(config(durability), 1);
        let mut records = append.records;
        let mut output = Output::default();
        for (key, delete) in steps {
            let key = &[*key % 8][..];
            let request = match delete {
                true => Request::Delete(&[key]),
                false => Request::Set { key, value: &[*key.first().unwrap(); 5] },
            };
            shard.handle(Time::START, Input::Request(Token(0), request), &mut output);
            records.append(&mut output.append.records);
            output.clear();
        }
        (shard, records)
    }

    fn risen(records: &[u8], durability: Durability) -> Shard {
        let mut recovery = Recovery::new(7);
        recovery.apply(records).unwrap();
        recovery.into_shard(config(durability), 2).0
    }

    fn steps() -> impl Strategy<Value = Vec<(u8, bool)>> {
        proptest::collection::vec((any::<u8>(), any::<bool>()), 0..60)
    }

    proptest! {
        /// What was recorded, and what is exported in pieces of any size, is the shard again.
        #[test]
        fn a_shard_rises_from_its_records(steps in steps(), bytes_max in 1..500usize) {
            let (shard, records) = written(Durability::Always, &steps);
            let mut export = Append::default();
            shard.export_head(&mut export);
            let mut cursor = Some(Cursor::default());
            while let Some(from) = cursor {
                cursor = shard.export_cells(&from, bytes_max, &mut export);
            }
            for records in [records, export.records] {
                let again = risen(&records, Durability::Always);
                prop_assert_eq!(again.summary(), shard.summary());
                prop_assert_eq!(again.store().cells(), shard.store().cells());
                prop_assert!(again.lamport() >= shard.lamport());
            }
        }

        /// Every life is another origin; after a crash it is above every counter that the last one
        /// could use, and after an orderly end it goes on counting.
        #[test]
        fn no_dot_or_stamp_is_used_twice(steps in steps(), kept in any::<prop::sample::Index>()) {
            let (mut shard, mut records) = written(Durability::Interval, &steps);
            // What a life begins with is durable before it does anything.
            let begin = Recovery::new(7).into_shard(config(Durability::Interval), 1).1.records.len();
            let ends: Vec<_> = starts(&records).filter(|end| *end >= begin).collect();
            let lost = ends[kept.index(ends.len())];
            let cut = risen(&records[..lost], Durability::Interval);
            prop_assert_ne!(cut.config().origin, shard.config().origin);
            prop_assert!(cut.lamport() >= shard.lamport());

            let mut output = Output::default();
            shard.end(&mut output);
            records.extend(&output.append.records);
            let again = risen(&records, Durability::Interval);
            prop_assert_ne!(again.config().origin, shard.config().origin);
            prop_assert_eq!(again.lamport(), shard.lamport());
            shard.handle(Time::START, Input::Wake(WallTime(0)), &mut output);
        }

        /// Bytes that are no records are an error and nothing worse.
        #[test]
        fn rubbish_is_refused(
            steps in steps(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (_, mut records) = written(Durability::Interval, &steps);
            let at = at.index(records.len());
            records[at] = byte;
            let mut recovery = Recovery::new(7);
            let _ = recovery.apply(&records);
            let _ = Recovery::new(7).apply(&records[at..]);
            let _ = recovery.into_shard(config(Durability::Interval), 3);
        }
    }

    /// A write that is longer than a piece counts when all of its pieces are there, however far the
    /// disk had come before; and what comes after such a crash counts as ever.
    #[test]
    fn a_long_write_is_there_as_a_whole_or_not_at_all() {
        let (mut shard, begin) = Recovery::new(7).into_shard(config(Durability::Always), 1);
        let mut output = Output::default();
        let before = Request::Set { key: b"before", value: b"1" };
        shard.handle(Time::START, Input::Request(Token(0), before), &mut output);
        let value = vec![5; 1 << 20];
        let keys: Vec<_> = (0..12u8).map(|key| [key]).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (&key[..], &value[..])).collect();
        shard.handle(Time::START, Input::Request(Token(1), Request::SetAll(&pairs)), &mut output);
        let after = Request::Set { key: b"after", value: b"1" };
        shard.handle(Time::START, Input::Request(Token(2), after), &mut output);
        let pieces: Vec<_> = output.append.pieces().collect();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() < 6 << 20));
        for durable in 0..=pieces.len() {
            let mut recovery = Recovery::new(7);
            recovery.apply(&begin.records).unwrap();
            pieces[..durable].iter().for_each(|piece| recovery.apply(piece).unwrap());
            let (mut again, life) = recovery.into_shard(config(Durability::Always), 2);
            let keys_live = match pieces.len() - durable {
                0 => 14,
                1 => 13,
                _ => durable.min(1),
            };
            assert_eq!(again.store().keys_live(), keys_live, "{durable} of {}", pieces.len());
            // The next life goes on behind whatever the last one has left.
            let mut output = Output::default();
            let next = Request::Set { key: b"next", value: b"1" };
            again.handle(Time::START, Input::Request(Token(3), next), &mut output);
            let mut recovery = Recovery::new(7);
            recovery.apply(&begin.records).unwrap();
            let pieces = pieces[..durable].iter().copied();
            for piece in pieces.chain(life.pieces()).chain(output.append.pieces()) {
                recovery.apply(piece).unwrap();
            }
            let (again, _) = recovery.into_shard(config(Durability::Always), 3);
            assert_eq!(again.store().keys_live(), keys_live + 1);
        }
        // Behind a snapshot that was begun in the middle of it, the rest counts as it stands.
        let mut export = Append::default();
        shard.export_head(&mut export);
        shard.export_cells(&Cursor::default(), usize::MAX, &mut export);
        for from in 0..pieces.len() {
            let mut recovery = Recovery::new(7);
            export.pieces().for_each(|piece| recovery.apply(piece).unwrap());
            pieces[from..].iter().for_each(|piece| recovery.apply(piece).unwrap());
            let (again, _) = recovery.into_shard(config(Durability::Always), 2);
            assert_eq!(again.store().keys_live(), 14);
        }
    }

    /// Of a node that begins anew under its own name all that it has written stays: also where that is far
    /// more than the journal takes in one piece, and however far the disk had come in a crash.
    #[test]
    fn what_stays_when_a_node_begins_anew_is_there_as_a_whole_or_not_at_all() {
        let (mut shard, begin) = Recovery::new(7).into_shard(config(Durability::Always), 1);
        let mut output = Output::default();
        let value = vec![5; 1 << 20];
        for key in 0..80u8 {
            let set = Request::Set { key: &[key], value: &value };
            shard.handle(Time::START, Input::Request(Token(0), set), &mut output);
        }
        let written = std::mem::take(&mut output).append;
        shard.rebuild(Time::START, Distrust::Behind, &mut output);
        assert!(shard.is_filling() && shard.store().keys_live() == 80);
        let pieces: Vec<_> = output.append.pieces().collect();
        let (count, longest) = (pieces.len(), pieces.iter().map(|it| it.len()).max().unwrap());
        assert!(count > 10 && longest < 6 << 20, "{count} of {longest} bytes");
        for durable in [0, 1, 2, count - 2, count - 1, count] {
            let mut recovery = Recovery::new(7);
            let pieces = pieces[..durable].iter().copied();
            begin.pieces().chain(written.pieces()).chain(pieces).for_each(|piece| {
                recovery.apply(piece).unwrap();
            });
            assert_eq!(recovery.store.keys_live(), 80, "{durable} of {count}");
            assert!(recovery.attic.is_none() || durable >= count - 1);
            assert!(recovery.attic.is_some() || durable < count);
        }
    }

    /// A crash between the record of the horizon and the collection of the last tombstone that it
    /// covers: what that one had beaten is held all the same, in this life and the next.
    #[test]
    fn what_a_tombstone_below_the_horizon_had_beaten_is_held() {
        let beaten = Dot { origin: Origin(9), seq: 3 };
        let tombstone = Dot { origin: Origin(8), seq: 1 };
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(5), origin: tombstone.origin };
        let mut seen = Seen::default();
        seen.insert(beaten);
        seen.insert(Dot { origin: Origin(7), seq: 6 });
        let (key, field) = (Key::from("key"), Field::whole_key());
        let mut append = Append::default();
        append.cell(stamp, 1, 0, &CellWrite { key, field, content: Content::Tombstone, seen });
        let mut horizon = VersionVector::default();
        horizon.insert(tombstone);
        append.horizon(&horizon);

        let mut recovery = Recovery::new(7);
        recovery.apply(&append.records).unwrap();
        let (shard, more) = recovery.into_shard(config(Durability::Always), 2);
        assert_eq!(shard.store().tombstones(), 0);
        assert!(shard.vector().contains(beaten));
        assert!(!shard.vector().contains(Dot { origin: Origin(7), seq: 6 }), "above every counter");
        let mut recovery = Recovery::new(7);
        recovery.apply(&more.records).unwrap();
        let (shard, _) = recovery.into_shard(config(Durability::Always), 3);
        assert!(shard.vector().contains(beaten), "recorded");
    }

    /// Of two copies that are told of the same life, neither begins the other's next one, nor that
    /// very life.
    #[test]
    fn no_life_is_lived_twice() {
        let told = 7 << 32 | 5;
        let mut lives: Vec<_> = (1..=3)
            .map(|dice| {
                let (mut shard, _) = Recovery::new(7).into_shard(config(Durability::Always), dice);
                shard.begin_life(told, &mut Output::default());
                shard.config().incarnation
            })
            .chain([told])
            .collect();
        lives.sort_unstable();
        assert!(lives[0] == told && lives.windows(2).all(|pair| pair[0] < pair[1]), "{lives:?}");
    }

    /// The number of a life that no node can have reached is refused, and the greatest one that is
    /// taken can still be counted on from.
    #[test]
    fn an_absurd_number_of_a_life_is_refused() {
        for (incarnation, taken) in [(u64::MAX, false), (2 * INCARNATION_MAX, true)] {
            let mut append = Append::default();
            append.begin(Begin { incarnation });
            let mut recovery = Recovery::new(7);
            assert_eq!(recovery.apply(&append.records).is_ok(), taken);
            let (shard, _) = recovery.into_shard(config(Durability::Always), u32::MAX);
            assert!(shard.config().incarnation > if taken { incarnation } else { 0 });
        }
    }

    /// What a repair put in the place of other bytes under the same stamp stands after a restart,
    /// with books that agree, and also where nothing had been left of the cell.
    #[test]
    fn what_was_mended_stays_mended() {
        let (one, other) = (&b"one"[..], &b"other"[..]);
        let (lesser, greater) = if prevails(one, other) { (other, one) } else { (one, other) };
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(5), origin: Origin(8) };
        let cell = |value: &[u8]| CellWrite {
            key: Key::from("key"),
            field: Field::whole_key(),
            content: Content::from(value),
            seen: Seen::default(),
        };
        let rise = |before: Option<&[u8]>, mended: Option<&[u8]>| {
            let mut append = Append::default();
            before.into_iter().for_each(|value| append.cell(stamp, 1, 0, &cell(value)));
            mended.into_iter().for_each(|value| append.mended(stamp, 1, &cell(value)));
            risen(&append.records, Durability::Always)
        };
        let whole = rise(Some(greater), None);
        for mended in [rise(Some(lesser), Some(greater)), rise(None, Some(greater))] {
            assert_eq!(
                mended.reader().string(b"key", WallTime(0), |value| value.map(<[_]>::to_vec)),
                Some(greater.to_vec())
            );
            assert_eq!(mended.summary(), whole.summary());
            assert_eq!((mended.store().cells(), mended.store().keys_live()), (1, 1));
        }
    }

    /// Where each record begins, and where all end.
    fn starts(records: &[u8]) -> impl Iterator<Item = usize> {
        let mut next = Some(0);
        std::iter::from_fn(move || {
            let at = next?;
            next = records
                .get(at..at + 4)
                .map(|length| at + 5 + u32::from_le_bytes(length.try_into().unwrap()) as usize);
            Some(at)
        })
    }
}
