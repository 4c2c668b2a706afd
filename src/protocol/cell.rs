//! Cells: the one thing the data model consists of.
//!
//! A cell is a `(key, field)` with a value or a tombstone. The cell with the empty field speaks for
//! the whole key: a string is its value, and writing or deleting it covers every other cell of the
//! key with a lower stamp. Hash fields, set members and the like are cells with a field.
//!
//! Merging two versions of a cell takes the one with the greater [`Stamp`]; nothing else decides,
//! so merging commutes, associates and is idempotent by construction. That rule drops the loser of
//! two concurrent writes, and dropped writes are to be seen: each write carries what its writer had
//! [`Seen`] of the cell, which tells an overwritten version from a concurrent one exactly.
//!
//! Sources: Lamport 1978 for the order; Preguiça et al. 2010 and Almeida et al. 2014 for telling
//! concurrency by dots.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::stamp::{Dot, Stamp};

/// The longest key or field, in bytes: enough for any name, small enough to repeat in a message.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes of a write, which is never split: room for the longest key and value.
pub const WRITE_BYTES_MAX: usize = VALUE_BYTES_MAX + 1024 * 1024;

/// What the names of keys begin with that belong to the store itself, as the roster does.
pub const RESERVED_PREFIX: &[u8] = b"\0quorumor";

/// Whether a key of this name belongs to the store itself and to no client.
pub fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED_PREFIX)
}

/// About how many bytes of a write in a message are not its cells.
pub(super) const WRITE_OVERHEAD_BYTES: usize = 40;

/// The most earlier writes that one write may cover: many times what a client sends in one batch.
pub const COVERS_MAX: u32 = 65_536;

/// The most origins that a [`Seen`] names.
///
/// Only origins that wrote the very cell count, so this is hardly ever reached; beyond it the
/// smallest dots are forgotten, and a write may be called concurrent that was not.
pub const SEEN_DOTS_MAX: usize = 64;

/// The name of a key: shared bytes, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// The name of a cell within its key; the empty one speaks for the whole key.
///
/// Shared bytes, cheap to clone; none at all for the whole key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Field(Option<Arc<[u8]>>);

/// What a cell holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// Deleted: nothing shows, and nothing older comes back.
    Tombstone,
    /// The bytes of the value: shared, as a write is at once in the store, in a message and perhaps in
    /// the answer to a read.
    Value(Arc<[u8]>),
}

/// Per origin the last write of one cell that somebody had seen.
///
/// Eight bytes when empty, as it is for every cell that only one origin ever wrote.
#[derive(Clone, PartialEq, Eq, Default)]
#[allow(clippy::box_collection, reason = "one word in every cell instead of three")]
pub struct Seen(Option<Box<Vec<Dot>>>);

/// One cell of a write: where it goes, what it holds, what its writer had seen there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CellWrite {
    /// The key.
    pub key: Key,
    /// The field within the key.
    pub field: Field,
    /// The value or tombstone.
    pub content: Content,
    /// The versions of this cell that the writer knew, apart from its own earlier ones.
    pub seen: Seen,
}

/// One write: a stamp and the cells it changes, applied together or not at all; each cell has a dot.
///
/// On its way through others a write shrinks: cells that something greater has replaced are left
/// out. What is left travels in one message; where a gap has come between the cells, as one `Write`
/// for each run of dots.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Write {
    /// The place in the order; its origin is the writer.
    pub stamp: Stamp,
    /// The number of the first cell at its origin and in its shard, from 1; the others follow.
    pub seq: u64,
    /// The cells, each (key, field) at most once.
    pub cells: Vec<CellWrite>,
    /// How many dots right before `seq` were writes to the same cell, which this one replaces: they
    /// need not be sent, and are held by whoever holds this one.
    pub covers: u32,
}

impl Write {
    /// A write that covers no earlier one.
    pub fn new(stamp: Stamp, seq: u64, cells: Vec<CellWrite>) -> Self {
        Self { stamp, seq, cells, covers: 0 }
    }

    /// The number of the first dot that is held with this write.
    pub(super) fn first_seq(&self) -> u64 {
        self.seq.saturating_sub(u64::from(self.covers))
    }

    /// Takes the place of `earlier`, which goes out in the same message, if it is a write of the
    /// same origin, made right before this one, to the same single cell; says whether it did.
    ///
    /// A client that writes one key over and over costs its peers one cell per message.
    pub(super) fn cover(&mut self, earlier: &Self) -> bool {
        let covers = match (&self.cells[..], &earlier.cells[..]) {
            ([new], [old]) => {
                self.stamp > earlier.stamp
                    && self.stamp.origin == earlier.stamp.origin
                    && self.first_seq() == earlier.seq.saturating_add(1)
                    && new.key == old.key
                    && new.field == old.field
            }
            _ => false,
        };
        let together = self.covers.checked_add(earlier.covers).and_then(|sum| sum.checked_add(1));
        match together {
            Some(together) if covers && together <= COVERS_MAX => {
                self.covers = together;
                true
            }
            _ => false,
        }
    }

    /// The dot of the first cell.
    pub fn dot(&self) -> Dot {
        Dot { origin: self.stamp.origin, seq: self.seq }
    }

    /// The dot of the last cell; saturates where no correct peer gets.
    pub fn last_dot(&self) -> Dot {
        let more = self.cells.len().saturating_sub(1) as u64;
        Dot { origin: self.stamp.origin, seq: self.seq.saturating_add(more) }
    }

    /// The number that the next cell of the same write has.
    pub(super) fn next_seq(&self) -> Option<u64> {
        self.last_dot().seq.checked_add(1)
    }

    /// About how many bytes the write takes in a message.
    pub fn bytes(&self) -> usize {
        WRITE_OVERHEAD_BYTES + self.cells.iter().map(CellWrite::bytes).sum::<usize>()
    }

    /// Whether sizes and numbers are within what a correct peer sends.
    pub fn is_well_formed(&self) -> bool {
        let fits = |cell: &CellWrite| {
            cell.key.len() <= KEY_BYTES_MAX
                && cell.field.as_bytes().len() <= KEY_BYTES_MAX
                && cell.content.bytes().len() <= VALUE_BYTES_MAX
        };
        let distinct = || {
            let mut names: Vec<_> =
                self.cells.iter().map(|cell| (&cell.key, &cell.field)).collect();
            names.sort_unstable();
            names.windows(2).all(|pair| pair[0] != pair[1])
        };
        let more = (self.cells.len() as u64).checked_sub(1);
        let last = more.and_then(|more| self.seq.checked_add(more));
        let covers_well = self.covers == 0 || (self.cells.len() == 1 && self.covers <= COVERS_MAX);
        self.seq > u64::from(self.covers)
            && covers_well
            && last.is_some_and(|last| last <= self.stamp.lamport.0)
            && self.cells.iter().all(fits)
            && self.bytes() <= WRITE_BYTES_MAX
            && (self.cells.len() == 1 || distinct())
    }
}

impl CellWrite {
    /// About how many bytes the cell takes in a message.
    pub(super) fn bytes(&self) -> usize {
        12 + self.key.len()
            + self.field.as_bytes().len()
            + self.content.bytes().len()
            + 19 * self.seen.iter().count()
    }
}

impl Key {
    /// Whether it belongs to the store itself and to no client.
    pub fn is_reserved(&self) -> bool {
        is_reserved(&self.0)
    }
}

impl Field {
    /// The cell that speaks for the whole key.
    pub fn whole_key() -> Self {
        Self::default()
    }

    /// The field named `bytes`; empty bytes name the whole key.
    pub fn new(bytes: &[u8]) -> Self {
        Self((!bytes.is_empty()).then(|| bytes.into()))
    }

    /// Whether this is the cell that speaks for the whole key.
    pub fn is_whole_key(&self) -> bool {
        self.0.is_none()
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Content {
    /// The value, or `None` for a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        match self {
            Self::Value(bytes) => Some(bytes),
            Self::Tombstone => None,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.value().unwrap_or_default()
    }
}

impl Seen {
    /// The dots, at most one per origin, in ascending order of the origins.
    pub fn iter(&self) -> impl Iterator<Item = Dot> {
        self.0.iter().flat_map(|dots| dots.iter().copied())
    }

    /// Whether nothing had been seen.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether `dot`, or a later one of its origin, had been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.iter().any(|seen| seen.origin == dot.origin && seen.seq >= dot.seq)
    }

    /// Adds `dot`, and with it all earlier ones of its origin.
    pub fn insert(&mut self, dot: Dot) {
        let dots = self.0.get_or_insert_default();
        match dots.binary_search_by_key(&dot.origin, |seen| seen.origin) {
            Ok(at) => dots[at].seq = dots[at].seq.max(dot.seq),
            Err(at) => dots.insert(at, dot),
        }
        if dots.len() > SEEN_DOTS_MAX
            && let Some(least) = (0..dots.len()).min_by_key(|at| dots[*at].seq)
        {
            dots.remove(least);
        }
    }

    /// Adds everything in `other`.
    #[inline]
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|dot| self.insert(dot));
    }

    /// Forgets what a write named `dot` that carries `seen` implies: its origin's earlier writes,
    /// and what it says itself.
    pub fn forget(&mut self, dot: Dot, seen: &Self) {
        if let Some(dots) = &mut self.0 {
            dots.retain(|ours| ours.origin != dot.origin && !seen.contains(*ours));
            if dots.is_empty() {
                self.0 = None;
            }
        }
    }
}

/// As its bytes are, in equality, order and hash: no name is the empty one.
impl Borrow<[u8]> for Field {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Hash for Field {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl From<Vec<u8>> for Field {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(&bytes)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Value(bytes.into())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Self::Value(bytes.into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key \"{self}\"")
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_whole_key() {
            return f.write_str("whole key");
        }
        write!(f, "field \"{}\"", self.as_bytes().escape_ascii())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tombstone => f.write_str("tombstone"),
            Self::Value(bytes) if bytes.len() <= 64 => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Value(bytes) => write!(f, "{} bytes", bytes.len()),
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(<&serde_bytes::Bytes>::deserialize(deserializer)?.as_ref().into()))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(<&serde_bytes::Bytes>::deserialize(deserializer)?))
    }
}

/// On the wire: nil for a tombstone, else the bytes.
impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().map(serde_bytes::Bytes::new).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <Option<&serde_bytes::Bytes>>::deserialize(deserializer)?;
        Ok(bytes.map_or(Self::Tombstone, |bytes| Self::Value(bytes.as_ref().into())))
    }
}

/// On the wire: the dots in order, without the wrapping.
impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_deref().map_or(&[][..], Vec::as_slice).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dots = Vec::<Dot>::deserialize(deserializer)?;
        let sorted = dots.windows(2).all(|pair| pair[0].origin < pair[1].origin);
        if dots.len() > SEEN_DOTS_MAX || !sorted {
            return Err(serde::de::Error::custom("seen dots out of order, or too many"));
        }
        Ok(Self((!dots.is_empty()).then(|| Box::new(dots))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::id::Origin;
    use crate::protocol::stamp::{Epoch, Lamport};

    fn dot(origin: u64, seq: u64) -> Dot {
        Dot { origin: Origin(origin), seq }
    }

    fn write() -> Write {
        let cell = CellWrite {
            key: Key::from("k"),
            field: Field::whole_key(),
            content: Content::from(&b"v"[..]),
            seen: Seen::default(),
        };
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(1), origin: Origin(1) };
        Write::new(stamp, 1, vec![cell])
    }

    #[test]
    fn a_write_survives_the_wire() {
        let mut write = write();
        write.cells[0].seen.insert(dot(4, 2));
        write.cells.push(CellWrite { content: Content::Tombstone, ..write.cells[0].clone() });
        let bytes = rmp_serde::to_vec(&write).unwrap();
        assert_eq!(rmp_serde::from_slice::<Write>(&bytes).unwrap(), write);
    }

    #[test]
    fn what_no_correct_peer_sends_is_not_well_formed() {
        assert!(write().is_well_formed());
        let mutations: [fn(&mut Write); 10] = [
            |write| (write.seq, write.stamp.lamport.0, write.covers) = (9, 9, COVERS_MAX + 1),
            |write| write.covers = 1,
            |write| write.seq = 0,
            |write| write.seq = 2,
            |write| write.seq = u64::MAX,
            |write| write.stamp.lamport.0 = 0,
            |write| write.cells.clear(),
            |write| write.cells.push(write.cells[0].clone()),
            |write| write.cells[0].key = Key::from(&vec![0; KEY_BYTES_MAX + 1][..]),
            |write| write.cells[0].field = Field::new(&vec![0; KEY_BYTES_MAX + 1]),
        ];
        for mutate in mutations {
            let mut write = write();
            mutate(&mut write);
            assert!(!write.is_well_formed(), "{write:?}");
        }
    }

    fn seen_of(dots: &[(u64, u64)]) -> Seen {
        let mut seen = Seen::default();
        dots.iter().for_each(|(origin, seq)| seen.insert(dot(*origin, *seq)));
        seen
    }

    fn dots() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0..6u64, 1..9u64), 0..12)
    }

    proptest! {
        /// Within the bound, it is the greatest number per origin, however it came about.
        #[test]
        fn seen_is_a_map_to_the_greatest_number(ours in dots(), theirs in dots(), by in dots()) {
            let mut model = BTreeMap::new();
            for (origin, seq) in ours.iter().chain(&theirs) {
                let greatest = model.entry(*origin).or_insert(0);
                *greatest = (*greatest).max(*seq);
            }
            let mut one = seen_of(&ours);
            let mut other = seen_of(&theirs);
            let bytes = rmp_serde::to_vec(&one).unwrap();
            prop_assert_eq!(&rmp_serde::from_slice::<Seen>(&bytes).unwrap(), &one);
            let before = one.clone();
            one.merge(&other);
            other.merge(&before);
            other.merge(&one);
            prop_assert_eq!(&one, &other);
            prop_assert_eq!(one.is_empty(), model.is_empty());
            let expected: Vec<_> = model.iter().map(|(origin, seq)| dot(*origin, *seq)).collect();
            prop_assert_eq!(one.iter().collect::<Vec<_>>(), expected);
            for (origin, seq) in (0..6).flat_map(|origin| (1..9).map(move |seq| (origin, seq))) {
                let held = model.get(&origin).is_some_and(|greatest| *greatest >= seq);
                prop_assert_eq!(one.contains(dot(origin, seq)), held);
            }
            let by = seen_of(&by);
            one.forget(dot(2, 1), &by);
            let left = model.into_iter().map(|(origin, seq)| dot(origin, seq));
            let left = left.filter(|dot| dot.origin != Origin(2) && !by.contains(*dot));
            prop_assert_eq!(one.iter().collect::<Vec<_>>(), left.collect::<Vec<_>>());
        }
    }

    #[test]
    fn malformed_lists_of_seen_dots_are_refused() {
        let many: Vec<_> = (0..=SEEN_DOTS_MAX as u64).map(|origin| dot(origin, 1)).collect();
        for dots in [vec![dot(2, 1), dot(1, 1)], vec![dot(1, 1), dot(1, 2)], many.clone()] {
            let bytes = rmp_serde::to_vec(&dots).unwrap();
            assert!(rmp_serde::from_slice::<Seen>(&bytes).is_err());
        }
        let bytes = rmp_serde::to_vec(&many[1..]).unwrap();
        assert_eq!(rmp_serde::from_slice::<Seen>(&bytes).unwrap().iter().count(), SEEN_DOTS_MAX);
    }

    #[test]
    fn seen_keeps_the_last_dot_per_origin_and_a_bounded_number() {
        let mut seen = Seen::default();
        assert!(seen.is_empty() && std::mem::size_of::<Seen>() == 8);
        seen.insert(dot(1, 5));
        seen.insert(dot(1, 3));
        assert!(seen.contains(dot(1, 4)) && !seen.contains(dot(1, 6)) && !seen.contains(dot(2, 1)));
        let mut other = Seen::default();
        other.insert(dot(2, 7));
        seen.merge(&other);
        seen.forget(dot(1, 9), &Seen::default());
        assert_eq!(seen, other);
        seen.forget(dot(3, 1), &other);
        assert!(seen.is_empty());
        (0..200).for_each(|origin| seen.insert(dot(origin, origin + 1)));
        assert_eq!(seen.iter().count(), SEEN_DOTS_MAX);
        assert!(seen.contains(dot(199, 200)) && !seen.contains(dot(0, 1)));
    }
}
