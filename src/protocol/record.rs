//! Records: what a shard needs to rise again, as bytes.
//!
//! A shard writes records into its output (`Output::append`); whoever runs it makes them durable, piece
//! by piece and in order, each piece as a whole or not at all. [`super::recovery`] makes a shard of them
//! again, and the same records, written by `Shard::export`, are a snapshot or a backup.
//!
//! - Of a cell that took its place the whole cell is recorded. One that lost on arrival is recorded
//!   as lost, without its value: the winner may be collected before the loser's record is read again,
//!   and then nothing would keep the loser from showing.
//! - A vector merged after a delta is recorded as the dots that were new.
//! - Applying records again changes nothing, so a snapshot may be streamed while writes go on, and
//!   the journal since its beginning be replayed over it.
//! - A cell that follows another of the same origin in one output tells its numbers by their distance.
//! - What belongs together is durable together or not at all: it is a *unit*. A long one is in several
//!   pieces, each behind the other with nothing between them, and counts when its last one is there.
//!
//! On disk a record is its length (32 bits, little endian), one byte for its kind, and its body in
//! MessagePack. Framing, checksums and files are the affair of the room that stores them.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::cell::{CellWrite, Content, Field, Key, Seen};
use super::id::Origin;
use super::stamp::{Epoch, Lamport, Stamp};
use super::strong::{Applied, Orphan, Standing};
use super::version::VersionVector;

/// The number of the format of records; told with the beginning of every life.
pub const RECORD_VERSION: u32 = 1;

/// The memory that is kept for the next records: many times what a batch of clients' writes takes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The bytes of cells in one run, give or take one: far below what one record may have.
const RUN_BYTES_MAX: usize = 1 << 20;

/// How far apart the ends are that are noted: a piece is hardly longer than this, or than one write.
const SETTLED_BYTES_MIN: usize = 1 << 20;

/// The most bytes of one piece: what the journal takes at a time, the longest cell and what a piece has beside
/// it.
pub const PIECE_BYTES_MAX: usize = 72 << 20;

/// How much longer than its longest record a piece may be. A piece that is longer would be longer than
/// [`PIECE_BYTES_MAX`] as well if only there were more of what it has.
const PIECE_BYTES_EXTRA: usize = PIECE_BYTES_MAX - (64 << 20);

/// How long what belongs together may become until it goes on in another piece: with the longest cell
/// behind it that is far below what one piece may have.
const UNIT_PIECE_BYTES: usize = 4 << 20;

/// The most ranges in one record of a vector: some hundred kilobytes, and far below what is taken
/// when it is read. A vector may have more than one record, or one message, could carry.
const RECORD_RANGES_MAX: usize = 64 << 10;

/// The bytes before the body of a record.
const HEAD_BYTES: usize = 5;

/// The kinds of the records without a body that hold a unit together.
const UNIT_BEGINS: u8 = 20;
const UNIT_GOES_ON: u8 = 21;
const UNIT_ENDS: u8 = 22;

/// What is to be made durable. Where answers wait for that, those of the same output do.
#[derive(Debug, Default, Clone)]
pub struct Append {
    /// Records, one behind the other, in [pieces](Self::pieces).
    pub records: Vec<u8>,
    /// Whether a client's write is among the records, whose answer may have to wait for them.
    pub awaited: bool,
    /// Whether a majority may wait for these: they are to be made durable at once, whatever else may
    /// wait for its interval.
    pub urgent: bool,
    /// A number to come back with in [`super::boundary::Input::Durable`] when these records and all
    /// before them are durable.
    pub tell: Option<u64>,
    /// The stamp and number of the last cell.
    last: Option<(Stamp, u64)>,
    /// Ends of what belongs together, far apart from each other.
    settled: Vec<usize>,
    /// How many times it was asked that what comes next be kept together.
    holds: u32,
    /// Where the unit begins that is being kept together, and whether it is in several pieces.
    unit: (usize, bool),
}

/// A place in the records of an output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    end: usize,
    last: Option<(Stamp, u64)>,
}

/// Why bytes are not records.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another version of the program wrote them.
    #[error(
        "records of format {0}, this version knows {RECORD_VERSION}: use the version that wrote them"
    )]
    Version(u32),
    /// The bytes end within a record.
    #[error("records end in the middle of one")]
    Short,
    /// A kind that this version does not know.
    #[error("a record of kind {0}, which this version does not know")]
    Kind(u8),
    /// The body is not what its kind says.
    #[error("a record that cannot be decoded: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// The numbers in it contradict each other.
    #[error("a record with numbers that cannot be")]
    Impossible,
}

/// One record.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Record {
    /// A life as a writer begins.
    Begin(Begin),
    /// A life ended in order: no counter was used that is not recorded.
    End,
    /// No stamp has a greater counter unless a later record says so.
    Ceiling(Lamport),
    /// The counter had come this far.
    Counter(Lamport),
    /// A cell took its place.
    Cell(Recorded),
    /// A cell lost against one that stands; without its value.
    Lost(Recorded),
    /// A repair put a cell in the place of a damaged one, perhaps under the same stamp.
    Mended(Recorded),
    /// Cells that are kept, of one origin and epoch.
    Cells(Run),
    /// These dots are held.
    Held(VersionVector),
    /// Tombstones with these dots have been collected, or may be.
    Horizon(VersionVector),
    /// The node has begun to fill itself anew: what it had is in the attic.
    Emptied,
    /// The node has filled itself: the attic is of no more use.
    Filled,
    /// Part of the records was lost: the node may claim to hold what it lacks.
    Doubted,
    /// Records of the replicated log; the number of the last, and whether they replace earlier ones.
    Group(u64, bool, Vec<Bytes>),
    /// What the node knows of the log and the mode.
    Standing(Box<Standing>),
    /// How far the log has been applied.
    Applied(Applied),
    /// A write that does not count.
    Orphan(Box<Orphan>),
    /// Keys had expired: of each, nothing with a stamp up to this is kept.
    Forgotten(Vec<(Key, Stamp)>),
    /// What follows counts when it is there to the end: a unit in several pieces begins.
    UnitBegins,
    /// A piece begins that goes on with the unit of the last one.
    UnitGoesOn,
    /// The unit is whole.
    UnitEnds,
}

/// The beginning of a life as a writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Begin {
    pub(super) incarnation: u64,
}

/// A cell that took its place.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Recorded {
    pub(super) stamp: Stamp,
    pub(super) seq: u64,
    /// How many dots right before are held along with it.
    pub(super) covers: u32,
    pub(super) cell: CellWrite,
}

/// Cells of one origin and epoch in the order of their dots, with small numbers instead of great
/// ones.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Run {
    epoch: Epoch,
    origin: u64,
    cells: Vec<Kept>,
}

/// A cell in a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Kept {
    /// How far its number is above that of the one before; the first counts from 0.
    seq_step: u64,
    lamport_step: u64,
    key: Key,
    field: Field,
    content: Content,
    seen: Seen,
    known: Seen,
}

/// A cell as the store keeps it.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct KeptCell {
    pub(super) stamp: Stamp,
    pub(super) seq: u64,
    pub(super) cell: CellWrite,
    /// What was merged here beyond what the writer had seen.
    pub(super) known: Seen,
}

impl Append {
    /// Forgets everything but keeps the memory, unless that is much.
    pub fn reuse(&mut self) {
        if self.records.capacity() > KEPT_BYTES_MAX {
            self.records = Vec::new();
        }
        self.records.clear();
        self.awaited = false;
        self.urgent = false;
        self.holds = 0;
        self.unit = (0, false);
        self.tell = None;
        self.last = None;
        self.settled.clear();
    }

    fn add(&mut self, kind: u8, body: &impl Serialize) {
        let head = self.records.len();
        self.records.extend(head_of(kind));
        let mut serializer = rmp_serde::Serializer::new(&mut self.records);
        body.serialize(&mut serializer).expect("a record in memory can be encoded");
        let body = self.records.len() - head - HEAD_BYTES;
        let length = u32::try_from(body).expect("a record has less than 4 GiB");
        self.records[head..head + 4].copy_from_slice(&length.to_le_bytes());
    }

    pub(super) fn begin(&mut self, begin: Begin) {
        self.add(1, &(RECORD_VERSION, begin));
    }

    pub(crate) fn end(&mut self) {
        self.add(2, &());
    }

    pub(super) fn ceiling(&mut self, ceiling: Lamport) {
        self.add(3, &ceiling);
    }

    pub(super) fn counter(&mut self, counter: Lamport) {
        self.add(4, &counter);
    }

    pub(super) fn cell(&mut self, stamp: Stamp, seq: u64, covers: u32, cell: &CellWrite) {
        let Stamp { epoch, lamport, origin } = stamp;
        match self.last.replace((stamp, seq)) {
            Some((last, last_seq))
                if (last.epoch, last.origin) == (epoch, origin)
                    && last_seq < seq
                    && last.lamport <= lamport =>
            {
                let steps = (lamport.0 - last.lamport.0, seq - last_seq);
                self.add(9, &(steps.0, steps.1, covers, cell));
            }
            _ => self.add(5, &(stamp, seq, covers, cell)),
        }
    }

    /// Where the records end, to [take back](Self::take_back) what follows.
    pub(super) fn mark(&self) -> Mark {
        Mark { end: self.records.len(), last: self.last }
    }

    /// Takes back what was added since.
    pub(super) fn take_back(&mut self, mark: Mark) {
        self.records.truncate(mark.end);
        self.last = mark.last;
    }

    /// A cell that lost; its value is not worth recording.
    pub(super) fn lost(
        &mut self,
        (stamp, seq, covers): (Stamp, u64, u32),
        (key, field, seen): (&Key, &Field, &Seen),
    ) {
        self.add(8, &(stamp, seq, covers, (key, field, Content::Tombstone, seen)));
    }

    /// A cell that a repair put in the place of another, which may have the same stamp.
    pub(super) fn mended(&mut self, stamp: Stamp, seq: u64, cell: &CellWrite) {
        self.add(13, &(stamp, seq, 0, cell));
    }

    /// Adds cells that are kept, in any order.
    pub(super) fn cells(&mut self, mut cells: Vec<KeptCell>) {
        cells.sort_unstable_by_key(|kept| (kept.stamp.epoch, kept.stamp.origin, kept.seq));
        let mut run = Run::default();
        let (mut seq, mut lamport) = (0, 0);
        let mut bytes = 0;
        for KeptCell { stamp, seq: own, cell, known } in cells {
            bytes += cell.bytes();
            let fits = (run.epoch, run.origin) == (stamp.epoch, stamp.origin.0);
            if run.cells.is_empty() || !fits || bytes > RUN_BYTES_MAX {
                self.run(&run);
                bytes = cell.bytes();
                run = Run { epoch: stamp.epoch, origin: stamp.origin.0, cells: Vec::new() };
                (seq, lamport) = (0, 0);
            }
            let CellWrite { key, field, content, seen } = cell;
            let lamport_step = stamp.lamport.0.wrapping_sub(lamport);
            let kept = Kept { seq_step: own - seq, lamport_step, key, field, content, seen, known };
            run.cells.push(kept);
            (seq, lamport) = (own, stamp.lamport.0);
        }
        self.run(&run);
    }

    fn run(&mut self, run: &Run) {
        if !run.cells.is_empty() {
            self.add(6, run);
            self.settle();
        }
    }

    pub(super) fn held(&mut self, held: &VersionVector) {
        self.vector(7, held);
    }

    pub(super) fn horizon(&mut self, horizon: &VersionVector) {
        self.vector(10, horizon);
    }

    /// Adds a vector as one record or several, which are merged when they are read.
    fn vector(&mut self, kind: u8, vector: &VersionVector) {
        if vector.ranges() <= RECORD_RANGES_MAX {
            return self.add(kind, vector);
        }
        vector.pieces(RECORD_RANGES_MAX, |piece| self.add(kind, piece));
    }

    pub(super) fn emptied(&mut self) {
        self.add(11, &());
    }

    pub(super) fn doubted(&mut self) {
        self.add(14, &());
    }

    /// Records of the replicated log, of which the last has this number: they follow the earlier ones
    /// or replace them.
    pub(super) fn group(&mut self, number: u64, replace: bool, records: &[Bytes]) {
        self.add(15, &(number, replace, records));
        self.settle();
    }

    /// What a node knows of the log and the mode.
    pub(super) fn standing(&mut self, standing: &Standing) {
        self.add(16, standing);
    }

    /// How far the log has been applied.
    pub(super) fn applied(&mut self, applied: Applied) {
        self.add(17, &applied);
    }

    /// A write that does not count.
    pub(super) fn orphan(&mut self, orphan: &Orphan) {
        self.add(18, orphan);
    }

    /// Keys that had expired, and up to which stamps nothing is kept of them.
    pub(super) fn forgotten(&mut self, keys: &[(Key, Stamp)]) {
        self.add(19, &keys);
    }

    pub(super) fn filled(&mut self) {
        self.add(12, &());
    }

    /// Takes note that what comes next need not be durable together with what is here.
    pub(super) fn settle(&mut self) {
        if self.holds > 0 {
            return;
        }
        let last = self.settled.last().copied().unwrap_or_default();
        if self.records.len() - last >= SETTLED_BYTES_MIN {
            self.cut();
        }
    }

    /// Keeps what comes next together, as one unit, until [`Self::release`].
    pub(super) fn hold(&mut self) {
        if self.holds == 0 {
            self.settle();
            self.unit = (self.records.len(), false);
        }
        self.holds += 1;
    }

    /// To be called before more is added to a unit: goes on in another piece if this one is long.
    pub(super) fn go_on(&mut self) {
        let (begin, spans) = self.unit;
        let piece = self.settled.last().copied().unwrap_or_default().max(begin);
        if self.holds == 0 || self.records.len() - piece < UNIT_PIECE_BYTES {
            return;
        }
        if !spans {
            // It is known only now; what stands there already moves, once.
            self.records.splice(begin..begin, head_of(UNIT_BEGINS));
            self.unit.1 = true;
        }
        self.cut();
        self.records.extend(head_of(UNIT_GOES_ON));
    }

    /// Ends a piece here. A snapshot may begin between two of them, so that the next one is the first
    /// that is read: it refers to nothing before it.
    fn cut(&mut self) {
        self.settled.push(self.records.len());
        self.last = None;
    }

    /// Ends [`Self::hold`].
    pub(super) fn release(&mut self) {
        self.holds -= 1;
        if self.holds > 0 {
            return;
        }
        if std::mem::take(&mut self.unit.1) {
            self.records.extend(head_of(UNIT_ENDS));
        }
        self.settle();
    }

    /// Takes the records out if they are more than so many bytes and belong together: to be handed on
    /// without copying them.
    pub fn take_large(&mut self, bytes_min: usize) -> Option<Vec<u8>> {
        let is_one = self.settled.last().is_none_or(|end| *end == self.records.len());
        let is_one = is_one && self.settled.len() <= 1;
        (is_one && self.records.len() > bytes_min).then(|| {
            self.settled.clear();
            std::mem::take(&mut self.records)
        })
    }

    /// The records in pieces, each to be made durable as a whole, in order and without anything between
    /// them. None is longer than a few megabytes beside its longest record, nor than [`PIECE_BYTES_MAX`].
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.settled.iter().copied().chain([self.records.len()]);
        let mut from = 0;
        ends.filter_map(move |end| {
            let piece = &self.records[from..end];
            from = end;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

impl Append {
    /// Sees to it that the journal takes the [pieces](Self::pieces): for simulations and tests, which have
    /// hardly ever so much in one output that a real journal would refuse it.
    ///
    /// # Panics
    /// When one is longer than it may be: somewhere much was added without `settle` or
    /// `go_on`.
    pub fn check_pieces(&self) {
        for piece in self.pieces() {
            let mut rest = piece;
            let lengths = std::iter::from_fn(|| {
                let (_, body, more) = split(rest)?;
                rest = more;
                Some(HEAD_BYTES + body.len())
            });
            let most = lengths.max().unwrap_or(0).saturating_add(PIECE_BYTES_EXTRA);
            let (bytes, most) = (piece.len(), most.min(PIECE_BYTES_MAX));
            assert!(bytes <= most, "a piece of {bytes} bytes, where it may have {most}");
        }
    }
}

impl Run {
    /// The cells, with their own numbers.
    pub(super) fn into_cells(self) -> Result<Vec<KeptCell>, RecordError> {
        let origin = Origin(self.origin);
        let (mut seq, mut lamport) = (0u64, 0u64);
        let cells = self.cells.into_iter().map(|kept| {
            seq = seq.checked_add(kept.seq_step).ok_or(RecordError::Impossible)?;
            lamport = lamport.wrapping_add(kept.lamport_step);
            let Kept { key, field, content, seen, known, .. } = kept;
            let stamp = Stamp { epoch: self.epoch, lamport: Lamport(lamport), origin };
            let cell = CellWrite { key, field, content, seen };
            match seq > 0 && seq <= lamport {
                true => Ok(KeptCell { stamp, seq, cell, known }),
                false => Err(RecordError::Impossible),
            }
        });
        cells.collect()
    }
}

impl Recorded {
    fn of(body: &[u8]) -> Result<Self, RecordError> {
        of::<Self>(body)?.checked()
    }

    /// A cell that is told by how far its numbers are above those of the one before.
    fn after((last, last_seq): (Stamp, u64), body: &[u8]) -> Result<Self, RecordError> {
        let (lamport_step, seq_step, covers, cell): (u64, u64, u32, CellWrite) = of(body)?;
        let lamport = last.lamport.0.checked_add(lamport_step).ok_or(RecordError::Impossible)?;
        let seq = last_seq.checked_add(seq_step).ok_or(RecordError::Impossible)?;
        let stamp = Stamp { lamport: Lamport(lamport), ..last };
        Self { stamp, seq, covers, cell }.checked()
    }

    fn checked(self) -> Result<Self, RecordError> {
        let recorded = self;
        let Self { stamp, seq, covers, .. } = &recorded;
        match *seq > u64::from(*covers) && *seq <= stamp.lamport.0 {
            true => Ok(recorded),
            false => Err(RecordError::Impossible),
        }
    }
}

/// The records in `bytes`, in order; ends after the first error. `last` is the stamp and number of the
/// last cell before them, and of the last among them.
pub(super) fn read<'a>(
    mut bytes: &'a [u8],
    last: &'a mut Option<(Stamp, u64)>,
) -> impl Iterator<Item = Result<Record, RecordError>> + 'a {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (record, rest) = match split(bytes) {
            Some((kind, body, rest)) => (decode(kind, body, *last), rest),
            None => (Err(RecordError::Short), &[][..]),
        };
        if let Ok(Record::Cell(cell)) = &record {
            *last = Some((cell.stamp, cell.seq));
        }
        bytes = if record.is_ok() { rest } else { &[] };
        Some(record)
    })
}

/// What stands before the body of a record of this kind, until its length is known.
fn head_of(kind: u8) -> [u8; HEAD_BYTES] {
    [0, 0, 0, 0, kind]
}

/// The kind and body of the first record, and what follows.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((*kind, body, rest))
}

fn decode(kind: u8, body: &[u8], last: Option<(Stamp, u64)>) -> Result<Record, RecordError> {
    Ok(match kind {
        1 => match of(body)? {
            (RECORD_VERSION, begin) => Record::Begin(begin),
            (other, _) => return Err(RecordError::Version(other)),
        },
        2 => Record::End,
        3 => Record::Ceiling(of(body)?),
        4 => Record::Counter(of(body)?),
        5 => Record::Cell(Recorded::of(body)?),
        6 => Record::Cells(of(body)?),
        7 => Record::Held(of(body)?),
        8 => Record::Lost(Recorded::of(body)?),
        9 => Record::Cell(Recorded::after(last.ok_or(RecordError::Impossible)?, body)?),
        10 => Record::Horizon(of(body)?),
        11 => Record::Emptied,
        12 => Record::Filled,
        14 => Record::Doubted,
        13 => Record::Mended(Recorded::of(body)?),
        15 => {
            let (number, replace, records) = of(body)?;
            Record::Group(number, replace, records)
        }
        16 => Record::Standing(Box::new(of(body)?)),
        17 => Record::Applied(of(body)?),
        18 => Record::Orphan(Box::new(of(body)?)),
        19 => Record::Forgotten(of(body)?),
        UNIT_BEGINS => Record::UnitBegins,
        UNIT_GOES_ON => Record::UnitGoesOn,
        UNIT_ENDS => Record::UnitEnds,
        kind => return Err(RecordError::Kind(kind)),
    })
}

fn of<T: DeserializeOwned>(body: &[u8]) -> Result<T, RecordError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(body);
    deserializer.set_max_depth(super::codec::DEPTH_MAX);
    Ok(T::deserialize(&mut deserializer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stamp::Dot;

    /// What is added without a place where it may be cut is seen long before the journal would refuse it, and
    /// what has such places is not found fault with, however much it is.
    #[test]
    fn a_piece_that_grows_without_end_is_seen() {
        let cell = |bytes| {
            let (key, field, seen) = (Key::from("key"), Field::whole_key(), Seen::default());
            CellWrite { key, field, content: Content::from(&vec![7; bytes][..]), seen }
        };
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(20), origin: Origin(1) };
        let check = |bytes, add: fn(&mut Append)| {
            let cell = cell(bytes);
            let mut append = Append::default();
            for seq in 1..=20 {
                append.cell(stamp, seq, 0, &cell);
                add(&mut append);
            }
            std::panic::catch_unwind(|| append.check_pieces()).is_ok()
        };
        assert!(check(1 << 20, Append::settle) && check(8 << 20, Append::settle));
        assert!(!check(1 << 20, |_| ()) && check(1_000, |_| ()));
        let mut append = Append::default();
        append.cell(stamp, 1, 0, &cell(PIECE_BYTES_MAX));
        assert!(std::panic::catch_unwind(|| append.check_pieces()).is_err());
    }

    /// A vector of very many ranges is recorded in several records, of which each is far below what
    /// is refused when it is read, and together they are the vector.
    #[test]
    fn a_vector_of_very_many_ranges_is_several_records() {
        let mut held = VersionVector::default();
        for number in 1..=5 * RECORD_RANGES_MAX as u64 / 2 {
            held.insert(Dot { origin: Origin(number % 2), seq: 2 * number });
        }
        let mut append = Append::default();
        append.held(&held);
        append.horizon(&held);
        let (mut counts, mut merged) =
            ([0; 2], [VersionVector::default(), VersionVector::default()]);
        for record in read(&append.records, &mut None) {
            let (at, piece) = match record.unwrap() {
                Record::Held(piece) => (0, piece),
                Record::Horizon(piece) => (1, piece),
                other => panic!("{other:?}"),
            };
            assert!(piece.ranges() <= RECORD_RANGES_MAX);
            counts[at] += 1;
            merged[at].merge(&piece);
        }
        assert_eq!(counts, [3, 3]);
        assert!(merged.iter().all(|merged| *merged == held));
    }
}
