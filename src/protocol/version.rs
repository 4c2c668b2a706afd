//! Version vectors with gaps: which dots a node holds.
//!
//! Eager pushes arrive out of order and some never arrive, so a single highest number per origin is
//! not enough: per origin a [`Intervals`] holds the exact set of sequence numbers, as ranges. Ranges
//! are kept apart by at least one missing number, sorted and never empty, so equal sets have equal
//! representations and a hash of one is a hash of the set.
//!
//! A vector only grows. What it claims to hold, a node holds or has replaced by something greater
//! (see `delta` for how that stays true while writes go on).

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::Origin;
use super::stamp::Dot;

/// The most ranges per origin that eager pushes may leave behind; one takes 16 bytes.
///
/// A healthy node has one or two. Beyond the bound an out-of-order push is dropped, and comes back
/// with the next round once the gaps before it are filled.
pub const RANGES_PUSHED_MAX: usize = 16_384;

/// The most ranges, of all origins together, that a vector from a peer may have; 64 MiB of memory.
///
/// A node that is being filled holds, until the end of the delta, only the dots that it was sent,
/// which can be as many ranges as there are cells.
pub const RANGES_MAX: usize = 4 << 20;

/// The most origins a vector may name; one takes about 100 bytes.
pub const ORIGINS_MAX: usize = 65_536;

/// A set of sequence numbers, as sorted ranges that neither touch nor overlap.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Intervals {
    ranges: Ranges,
}

/// Inclusive bounds. Nearly always there is one range per origin, and a vector of a thousand origins
/// is copied, sent and compared as a whole: one range needs no memory of its own.
#[derive(Clone, Eq)]
enum Ranges {
    One([(u64, u64); 1]),
    /// Any number, also none or one.
    Many(Vec<(u64, u64)>),
}

/// Per origin the sequence numbers held.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct VersionVector {
    origins: BTreeMap<Origin, Intervals>,
    /// How many ranges there are, of all origins together.
    #[serde(skip)]
    ranges: usize,
}

impl Intervals {
    /// All numbers from 1 to `last`; nothing if `last` is 0.
    pub fn up_to(last: u64) -> Self {
        if last == 0 { Self::default() } else { Self { ranges: Ranges::One([(1, last)]) } }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, as inclusive bounds in ascending order.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The greatest number held, or 0.
    pub fn last(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.1)
    }

    /// The greatest number up to which nothing is missing, or 0.
    pub fn dense(&self) -> u64 {
        self.ranges.first().map_or(0, |range| if range.0 == 1 { range.1 } else { 0 })
    }

    /// Whether `seq` is held.
    pub fn contains(&self, seq: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= seq);
        after > 0 && self.ranges[after - 1].1 >= seq
    }

    /// Adds `seq`; says whether it was missing.
    pub fn insert(&mut self, seq: u64) -> bool {
        // Nearly every number is the successor of the last.
        if let Some(last) = self.ranges.last_mut()
            && last.1.checked_add(1) == Some(seq)
        {
            last.1 = seq;
            return true;
        }
        if self.contains(seq) {
            return false;
        }
        self.insert_range(seq, seq);
        true
    }

    /// Whether adding the numbers from `first` to `last` would need one range more.
    pub fn splits(&self, first: u64, last: u64) -> bool {
        let (from, to) = self.touching(first, last);
        from == to
    }

    /// The ranges that touch or overlap those from `first` to `last`: from this one to before that.
    fn touching(&self, first: u64, last: u64) -> (usize, usize) {
        let from = self.ranges.partition_point(|range| range.1 < first.saturating_sub(1));
        let to = self.ranges.partition_point(|range| range.0 <= last.saturating_add(1));
        (from, to)
    }

    /// Adds all numbers from `first` to `last`, both included.
    fn insert_range(&mut self, first: u64, last: u64) {
        let (from, to) = self.touching(first, last);
        let joined = if from < to {
            (first.min(self.ranges[from].0), last.max(self.ranges[to - 1].1))
        } else {
            (first, last)
        };
        if to - from == self.ranges.len() {
            self.ranges = Ranges::One([joined]);
        } else {
            self.ranges.many().splice(from..to, [joined]);
        }
    }

    /// Adds everything in `other`, in one pass over both.
    pub fn merge(&mut self, other: &Self) {
        if let [(first, last)] = other.ranges[..] {
            return self.insert_range(first, last);
        }
        let mut merged: Vec<(u64, u64)> =
            Vec::with_capacity(self.ranges.len().max(other.ranges.len()));
        let (mut ours, mut theirs) =
            (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(one), Some(other)) if one.0 <= other.0 => ours.next(),
                (Some(_), None) => ours.next(),
                (_, _) => theirs.next(),
            };
            let Some(&(first, last)) = next else { break };
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        self.ranges = merged.into();
    }

    /// Keeps the first ranges, `count` at the most.
    fn truncate(&mut self, count: usize) {
        if count < self.ranges.len() {
            self.ranges.many().truncate(count);
        }
    }

    /// The numbers of `self` that `other` lacks, as ranges in ascending order.
    pub fn minus(&self, other: &Self) -> Vec<(u64, u64)> {
        if self == other {
            return Vec::new();
        }
        let mut left = Vec::new();
        let mut theirs = other.ranges.iter().peekable();
        for &(first, last) in self.ranges.iter() {
            let mut next = first;
            while let Some(&&(their_first, their_last)) = theirs.peek() {
                if their_last < next {
                    theirs.next();
                    continue;
                }
                if their_first > last {
                    break;
                }
                if their_first > next {
                    left.push((next, their_first - 1));
                }
                if their_last >= last {
                    // `last` is covered; this range may also reach into our next one.
                    next = 0;
                    break;
                }
                next = their_last + 1;
                theirs.next();
            }
            if next != 0 {
                left.push((next, last));
            }
        }
        left
    }
}

impl Intervals {
    /// The numbers in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let (mut ours, mut theirs) =
            (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(&&(a, b)), Some(&&(c, d))) = (ours.peek(), theirs.peek()) {
            let (first, last) = (a.max(c), b.min(d));
            if first <= last {
                both.push((first, last));
            }
            if b <= d {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self { ranges: both.into() }
    }
}

impl Ranges {
    /// The same as a list that can be changed.
    fn many(&mut self) -> &mut Vec<(u64, u64)> {
        if let Self::One(one) = self {
            *self = Self::Many(one.to_vec());
        }
        match self {
            Self::Many(many) => many,
            Self::One(_) => unreachable!("it was replaced above"),
        }
    }
}

impl From<Vec<(u64, u64)>> for Ranges {
    /// What most vectors consist of for ever, the closed origins of earlier starts, is one range each.
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        match ranges[..] {
            [one] => Self::One([one]),
            _ => Self::Many(ranges),
        }
    }
}

impl Default for Ranges {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Deref for Ranges {
    type Target = [(u64, u64)];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl DerefMut for Ranges {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::One(one) => one,
            Self::Many(many) => many,
        }
    }
}

impl PartialEq for Ranges {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl VersionVector {
    /// The intervals of `origin`, if any of its writes is held.
    pub fn origin(&self, origin: Origin) -> Option<&Intervals> {
        self.origins.get(&origin)
    }

    /// All origins with what is held of each, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Intervals)> {
        self.origins.iter().map(|(origin, intervals)| (*origin, intervals))
    }

    /// How many origins are named.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Forgets all that is held of `origin`.
    pub(super) fn forget(&mut self, origin: Origin) {
        if let Some(held) = self.origins.remove(&origin) {
            self.ranges -= held.ranges.len();
        }
    }

    /// Whether `dot` is held.
    pub fn contains(&self, dot: Dot) -> bool {
        self.origins.get(&dot.origin).is_some_and(|intervals| intervals.contains(dot.seq))
    }

    /// Adds `dot`; says whether it was missing.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.change(dot.origin, |held| held.insert(dot.seq))
    }

    /// Adds the dots of `origin` from `first` to `last`, both included.
    pub fn insert_all(&mut self, origin: Origin, first: u64, last: u64) {
        self.change(origin, |held| held.insert_range(first, last));
    }

    fn change<T>(&mut self, origin: Origin, change: impl FnOnce(&mut Intervals) -> T) -> T {
        let held = self.origins.entry(origin).or_default();
        let before = held.ranges.len();
        let changed = change(held);
        self.ranges = self.ranges + held.ranges.len() - before;
        changed
    }

    /// Whether [`RANGES_PUSHED_MAX`] leaves room for a pushed write with these dots of an origin.
    pub fn leaves_room_for(&self, origin: Origin, (first, last): (u64, u64)) -> bool {
        match self.origins.get(&origin) {
            Some(held) => held.ranges.len() < RANGES_PUSHED_MAX || !held.splits(first, last),
            None => self.origins.len() < ORIGINS_MAX,
        }
    }

    /// How many ranges there are, of all origins together.
    pub fn ranges(&self) -> usize {
        self.ranges
    }

    /// How many dots there are.
    pub fn dots(&self) -> u64 {
        let ranges = self.origins.values().flat_map(|held| held.ranges.iter());
        ranges.fold(0, |sum: u64, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }

    /// A copy to be sent, with no more ranges than a peer takes. To claim less is always safe.
    pub fn to_send(&self) -> Self {
        let mut copy = self.clone();
        if self.ranges <= RANGES_MAX {
            return copy;
        }
        let mut room = RANGES_MAX;
        for held in copy.origins.values_mut() {
            held.truncate(room);
            room -= held.ranges.len();
        }
        copy.origins.retain(|_, held| !held.is_empty());
        copy.ranges = RANGES_MAX;
        copy
    }

    /// Hands out the same dots as vectors of at most `ranges_max` ranges each.
    pub(super) fn pieces(&self, ranges_max: usize, mut take: impl FnMut(&Self)) {
        let mut piece = Self::default();
        for (origin, held) in &self.origins {
            let mut rest = held.ranges();
            while !rest.is_empty() {
                let room = (ranges_max - piece.ranges).min(rest.len());
                let (now, later) = rest.split_at(room);
                piece.ranges += now.len();
                piece.origins.insert(*origin, Intervals { ranges: now.to_vec().into() });
                rest = later;
                if piece.ranges == ranges_max {
                    take(&std::mem::take(&mut piece));
                }
            }
        }
        if !piece.is_empty() {
            take(&piece);
        }
    }

    /// How many origins there would be after merging `other`.
    pub fn len_with(&self, other: &Self) -> usize {
        self.len() + other.beside(self).filter(|(_, _, ours)| ours.is_empty()).count()
    }

    /// Adds everything in `other`, in one pass over both.
    pub fn merge(&mut self, other: &Self) {
        let mut theirs = other.origins.iter().peekable();
        let mut new = Vec::new();
        for (origin, ours) in &mut self.origins {
            while let Some(theirs) = theirs.next_if(|(other, _)| *other < origin) {
                new.push(theirs);
            }
            let theirs = theirs.next_if(|(other, _)| *other == origin);
            if let Some((_, theirs)) = theirs.filter(|(_, theirs)| *theirs != ours) {
                self.ranges -= ours.ranges.len();
                ours.merge(theirs);
                self.ranges += ours.ranges.len();
            }
        }
        for (origin, held) in new.into_iter().chain(theirs) {
            self.ranges += held.ranges.len();
            self.origins.insert(*origin, held.clone());
        }
    }

    /// The dots in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let both =
            self.beside(other).map(|(origin, ours, theirs)| (origin, ours.intersection(theirs)));
        let origins: BTreeMap<_, _> = both.filter(|(_, both)| !both.is_empty()).collect();
        let ranges = origins.values().map(|both| both.ranges.len()).sum();
        Self { origins, ranges }
    }

    /// Whether every dot of `other` is held here.
    pub fn covers(&self, other: &Self) -> bool {
        other.beside(self).all(|(_, theirs, ours)| theirs.minus(ours).is_empty())
    }

    /// The dots of `self` that `other` lacks, as ranges per origin, in ascending order.
    pub fn minus(&self, other: &Self) -> Vec<(Origin, Vec<(u64, u64)>)> {
        let lacking = self.beside(other).map(|(origin, ours, theirs)| (origin, ours.minus(theirs)));
        lacking.filter(|(_, ranges)| !ranges.is_empty()).collect()
    }

    /// The dots of `self` that `other` lacks, as a vector.
    pub fn without(&self, other: &Self) -> Self {
        let mut rest = Self::default();
        for (origin, ranges) in self.minus(other) {
            rest.ranges += ranges.len();
            rest.origins.insert(origin, Intervals { ranges: ranges.into() });
        }
        rest
    }

    /// What is held of each origin, and what `other` holds of it, in one pass over both.
    fn beside<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (Origin, &'a Intervals, &'a Intervals)> {
        static NOTHING: Intervals = Intervals { ranges: Ranges::Many(Vec::new()) };
        let mut others = other.origins.iter().peekable();
        self.origins.iter().map(move |(origin, ours)| {
            while others.next_if(|(other, _)| *other < origin).is_some() {}
            let theirs = others.next_if(|(other, _)| *other == origin);
            (*origin, ours, theirs.map_or(&NOTHING, |(_, theirs)| theirs))
        })
    }
}

/// On the wire: first gap, first length, next gap, next length, …; small numbers stay small.
impl Serialize for Intervals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut numbers = serializer.serialize_seq(Some(2 * self.ranges.len()))?;
        let mut after = 0;
        for &(first, last) in self.ranges.iter() {
            numbers.serialize_element(&(first - after - 1))?;
            numbers.serialize_element(&(last - first))?;
            after = last;
        }
        numbers.end()
    }
}

impl<'de> Deserialize<'de> for Intervals {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RangesVisitor)
    }
}

struct RangesVisitor;

impl<'de> Visitor<'de> for RangesVisitor {
    type Value = Intervals;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gaps and lengths of ranges, in turn")
    }

    /// Reads pair by pair, so that a long list takes its own memory once and no more.
    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Intervals, A::Error> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut after = 0u64;
        while let Some(gap) = numbers.next_element::<u64>()? {
            let length = numbers.next_element::<u64>()?;
            let length = length.ok_or_else(|| A::Error::custom("a gap without a length"))?;
            // A gap of nothing is only right before the first range: later it would touch.
            if gap == 0 && after != 0 {
                return Err(A::Error::custom("ranges that touch"));
            }
            let first = after.checked_add(gap).and_then(|seq| seq.checked_add(1));
            let last = first.and_then(|seq| seq.checked_add(length));
            let (Some(first), Some(last)) = (first, last) else {
                return Err(A::Error::custom("a sequence number above 64 bits"));
            };
            if ranges.len() == RANGES_MAX {
                return Err(A::Error::custom("too many ranges"));
            }
            ranges.push((first, last));
            after = last;
        }
        Ok(Intervals { ranges: ranges.into() })
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename = "VersionVector")]
        struct Wire {
            origins: BTreeMap<Origin, Intervals>,
        }
        let origins = Wire::deserialize(deserializer)?.origins;
        let ranges = origins.values().map(|held| held.ranges.len()).sum();
        let vector = Self { origins, ranges };
        if vector.len() > ORIGINS_MAX || vector.origins.values().any(Intervals::is_empty) {
            return Err(D::Error::custom("too many origins, or one without writes"));
        }
        if vector.ranges() > RANGES_MAX {
            return Err(D::Error::custom("too many ranges"));
        }
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn intervals(numbers: &BTreeSet<u64>) -> Intervals {
        let mut set = Intervals::default();
        for number in numbers {
            set.insert(*number);
        }
        set
    }

    fn expand(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
        ranges.iter().flat_map(|(first, last)| *first..=*last).collect()
    }

    fn vector(dots: &BTreeSet<Dot>) -> VersionVector {
        let mut vector = VersionVector::default();
        // Backwards, so that there are gaps for a while.
        dots.iter().rev().for_each(|dot| assert!(vector.insert(*dot)));
        vector
    }

    fn dots() -> impl Strategy<Value = BTreeSet<Dot>> {
        let dot = (0u64..5, 1u64..12).prop_map(|(origin, seq)| Dot { origin: Origin(origin), seq });
        proptest::collection::btree_set(dot, 0..40)
    }

    fn numbers() -> impl Strategy<Value = BTreeSet<u64>> {
        proptest::collection::btree_set(1u64..40, 0..30)
    }

    proptest! {
        #[test]
        fn intervals_are_a_set_of_numbers(ours in numbers(), order in any::<u64>(), theirs in numbers()) {
            let mut shuffled: Vec<u64> = ours.iter().copied().collect();
            fastrand::Rng::with_seed(order).shuffle(&mut shuffled);
            let mut set = Intervals::default();
            for number in &shuffled {
                prop_assert_eq!(set.splits(*number, *number), {
                    let mut more = set.clone();
                    more.insert(*number);
                    more.ranges.len() > set.ranges.len()
                });
                prop_assert!(set.insert(*number));
                prop_assert!(!set.insert(*number));
            }
            prop_assert_eq!(&set, &intervals(&ours));
            prop_assert_eq!(expand(set.ranges()), ours.clone());
            prop_assert!((0..45).all(|number| set.contains(number) == ours.contains(&number)));
            let other = intervals(&theirs);
            prop_assert_eq!(expand(&set.minus(&other)), &ours - &theirs);
            set.merge(&other);
            prop_assert_eq!(set, intervals(&(&ours | &theirs)));
        }

        /// However a vector has come about, a single range takes no memory of its own.
        #[test]
        fn one_range_is_kept_in_place(ours in dots(), theirs in dots()) {
            let (ours, theirs) = (vector(&ours), vector(&theirs));
            let mut merged = ours.clone();
            merged.merge(&theirs);
            let mut all = vec![ours.intersection(&theirs), ours.without(&theirs), merged];
            ours.pieces(2, |piece| all.push(piece.clone()));
            let bytes = rmp_serde::to_vec(&ours).unwrap();
            all.extend([rmp_serde::from_slice(&bytes).unwrap(), ours]);
            for held in all.iter().flat_map(|vector| vector.origins.values()) {
                let in_place = matches!(held.ranges, Ranges::One(_));
                prop_assert_eq!(in_place, held.ranges.len() == 1);
            }
        }

        /// Two vectors are merged, compared and taken apart as sets of dots, and know their size.
        #[test]
        fn vectors_are_sets_of_dots(ours in dots(), theirs in dots()) {
            let mut vector = vector(&ours);
            let other = self::vector(&theirs);
            let left: BTreeSet<_> = vector.minus(&other).into_iter().flat_map(|(origin, ranges)| {
                expand(&ranges).into_iter().map(move |seq| Dot { origin, seq })
            }).collect();
            prop_assert_eq!(&left, &(&ours - &theirs));
            prop_assert_eq!(other.covers(&vector), left.is_empty());
            let len = vector.len_with(&other);
            vector.merge(&other);
            prop_assert_eq!(&vector, &self::vector(&(&ours | &theirs)));
            prop_assert_eq!(vector.len(), len);
            let ranges = vector.iter().map(|(_, held)| held.ranges().len());
            prop_assert_eq!(vector.ranges(), ranges.sum::<usize>());
            prop_assert_eq!(vector.to_send(), vector);
        }

        #[test]
        fn pieces_merge_to_the_whole(dots in dots(), ranges_max in 1..5usize) {
            let whole = vector(&dots);
            let mut merged = VersionVector::default();
            let mut count = 0;
            whole.pieces(ranges_max, |piece| {
                assert!((1..=ranges_max).contains(&piece.ranges()));
                let ranges = piece.iter().map(|(_, held)| held.ranges().len());
                assert_eq!(piece.ranges(), ranges.sum::<usize>());
                merged.merge(piece);
                count += 1;
            });
            prop_assert_eq!(&merged, &whole);
            prop_assert_eq!(merged.ranges(), whole.ranges());
            prop_assert_eq!(count, whole.ranges().div_ceil(ranges_max));
        }

        #[test]
        fn a_vector_survives_the_wire(ours in numbers(), theirs in numbers()) {
            let mut vector = VersionVector::default();
            for (origin, held) in [(1, &ours), (u64::MAX, &theirs)] {
                for seq in held {
                    vector.insert(Dot { origin: Origin(origin), seq: *seq });
                }
            }
            let bytes = rmp_serde::to_vec(&vector).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<VersionVector>(&bytes).unwrap(), vector);
        }
    }

    #[test]
    fn the_greatest_number_fits() {
        let mut set = Intervals::default();
        assert!(set.insert(u64::MAX) && !set.insert(u64::MAX) && set.contains(u64::MAX));
        assert_eq!(Intervals::up_to(u64::MAX).minus(&set), [(1, u64::MAX - 1)]);
        let bytes = rmp_serde::to_vec(&set).unwrap();
        assert_eq!(rmp_serde::from_slice::<Intervals>(&bytes).unwrap(), set);
    }

    #[test]
    fn malformed_ranges_are_refused() {
        for numbers in [vec![0], vec![0, 1, 0, 1], vec![u64::MAX, 0], vec![0, 3, u64::MAX, 5]] {
            let bytes = rmp_serde::to_vec(&numbers).unwrap();
            assert!(rmp_serde::from_slice::<Intervals>(&bytes).is_err(), "{numbers:?}");
        }
    }
}
