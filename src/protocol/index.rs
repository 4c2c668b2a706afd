//! Where the cell of each dot is kept, in the order of the dots.
//!
//! Every merge takes one dot out and puts one in, mostly at the end, and a delta walks through a
//! range of them. So the numbers of an origin are cut into blocks of [`BLOCK`], and a block lists
//! those that are kept in ascending order, at 8 bytes each. A block without any is dropped, so what
//! the index takes depends on the cells that are kept and not on how often they were overwritten.
//! A tree of single dots takes three to four times the memory and twice the time.

use std::collections::BTreeMap;

use super::id::Origin;
use super::stamp::Dot;

/// How many numbers share a block: few enough that moving half a block is nothing beside the rest
/// of a merge, enough that the tree of blocks is small.
const BLOCK: u64 = 256;

/// The number of a key, given when it first appears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot(pub(super) u32);

/// The dots of all cells that are kept, with the slots of their keys.
#[derive(Debug, Default)]
pub(super) struct Index {
    origins: BTreeMap<Origin, Blocks>,
}

/// By `seq / BLOCK`: `seq % BLOCK` and the slot, ascending.
type Blocks = BTreeMap<u64, Vec<(u8, Slot)>>;

/// The block of a number and its place there.
fn place(seq: u64) -> (u64, u8) {
    let within = u8::try_from(seq % BLOCK).expect("less than BLOCK, which is 256");
    (seq / BLOCK, within)
}

impl Index {
    /// Adds a dot that is not listed.
    pub(super) fn insert(&mut self, dot: Dot, slot: Slot) {
        let (block, within) = place(dot.seq);
        let block = self.origins.entry(dot.origin).or_default().entry(block).or_default();
        // Nearly every number is greater than those before.
        if block.last().is_none_or(|(last, _)| *last < within) {
            block.push((within, slot));
        } else {
            let at = block.partition_point(|(other, _)| *other < within);
            block.insert(at, (within, slot));
        }
    }

    /// Removes a dot, if it is listed.
    pub(super) fn remove(&mut self, dot: Dot) {
        let (number, within) = place(dot.seq);
        let Some(blocks) = self.origins.get_mut(&dot.origin) else { return };
        let Some(block) = blocks.get_mut(&number) else { return };
        let Ok(at) = block.binary_search_by_key(&within, |(within, _)| *within) else { return };
        block.remove(at);
        if block.len() * 4 <= block.capacity() {
            block.shrink_to(block.len() * 2);
        }
        if block.is_empty() {
            blocks.remove(&number);
            if blocks.is_empty() {
                self.origins.remove(&dot.origin);
            }
        }
    }

    /// The slot of a dot.
    pub(super) fn slot(&self, dot: Dot) -> Option<Slot> {
        let (number, within) = place(dot.seq);
        let block = self.origins.get(&dot.origin)?.get(&number)?;
        let at = block.binary_search_by_key(&within, |(within, _)| *within).ok()?;
        Some(block[at].1)
    }

    /// The last number before `before` of an origin that is listed.
    pub(super) fn previous(&self, origin: Origin, before: u64) -> Option<u64> {
        let (last, within) = place(before);
        for (number, block) in self.origins.get(&origin)?.range(..=last).rev() {
            let end = match *number == last {
                true => block.partition_point(|(other, _)| *other < within),
                false => block.len(),
            };
            // Only the first block looked at can have nothing: none is empty.
            if let Some((within, _)) = block[..end].last() {
                return Some(number * BLOCK + u64::from(*within));
            }
        }
        None
    }

    /// The first number at or after `from` of an origin that is listed.
    pub(super) fn next(&self, origin: Origin, from: u64) -> Option<u64> {
        let (first, within) = place(from);
        for (number, block) in self.origins.get(&origin)?.range(first..) {
            let at = match *number == first {
                true => block.partition_point(|(other, _)| *other < within),
                false => 0,
            };
            // Only the first block can have nothing more: none is empty.
            if let Some((within, _)) = block.get(at) {
                return Some(number * BLOCK + u64::from(*within));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dots() -> impl Strategy<Value = Dot> {
        let near_the_end = (u64::MAX - 300)..=u64::MAX;
        let seq = prop_oneof![8 => 1..40u64, 4 => 200..600u64, 1 => near_the_end];
        (0..3u64, seq).prop_map(|(origin, seq)| Dot { origin: Origin(origin), seq })
    }

    proptest! {
        /// Whatever is put in and taken out, the index is an ordered map of dots.
        #[test]
        fn the_index_is_an_ordered_map(
            steps in proptest::collection::vec((dots(), any::<bool>(), any::<u32>()), 0..300),
            probes in proptest::collection::vec(dots(), 20),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (dot, remove, slot) in steps {
                if remove {
                    index.remove(dot);
                    model.remove(&dot);
                } else if model.insert(dot, Slot(slot)).is_none() {
                    index.insert(dot, Slot(slot));
                } else {
                    index.remove(dot);
                    index.insert(dot, Slot(slot));
                }
            }
            for dot in probes {
                prop_assert_eq!(index.slot(dot), model.get(&dot).copied());
                let end = Dot { seq: u64::MAX, ..dot };
                let next = model.range(dot..=end).next().map(|(dot, _)| dot.seq);
                prop_assert_eq!(index.next(dot.origin, dot.seq), next);
                let start = Dot { seq: 0, ..dot };
                let previous = model.range(start..dot).next_back().map(|(dot, _)| dot.seq);
                prop_assert_eq!(index.previous(dot.origin, dot.seq), previous);
            }
            let origins: Vec<_> = model.keys().map(|dot| dot.origin).collect();
            model.keys().for_each(|dot| index.remove(*dot));
            prop_assert!(index.origins.is_empty(), "what is empty goes: {origins:?}");
        }
    }
}
