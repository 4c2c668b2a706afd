//! Where the cell of each dot is kept, in the order of the dots: the slot of its key, and its place there.
//!
//! Every merge takes one dot out and puts one in, mostly at the end, and a delta walks through a
//! range of them. So the numbers of an origin are cut into blocks of [`BLOCK`]; a block has a bit for
//! each number and the homes of those that are kept, at 8 bytes each. A block without any is dropped,
//! so what the index takes depends on the cells that are kept and not on how often they were
//! overwritten. A tree of single dots takes five times the memory and twice the time.

use std::collections::BTreeMap;

use super::id::Origin;
use super::stamp::Dot;

/// How many numbers share a block: few enough that moving half a block is nothing beside the rest
/// of a merge, enough that the tree of blocks is small.
const BLOCK: u64 = 256;

/// Numbers whose bits share a word.
const WORD: u64 = 64;

/// The number of a key, given when it first appears.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct Slot(pub(super) u32);

/// Where a cell is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    /// The slot of its key.
    pub(super) slot: Slot,
    /// Its place among the cells of the key, if these are many; see `store::cells`.
    pub(super) place: u32,
}

/// The dots of all cells that are kept.
#[derive(Debug, Default)]
pub(super) struct Index {
    origins: BTreeMap<Origin, Blocks>,
}

/// By `seq / BLOCK`.
type Blocks = BTreeMap<u64, Block>;

/// [`BLOCK`] numbers in a row, of which some are kept.
#[derive(Debug, Default)]
struct Block {
    /// Bit `n % WORD` of word `n / WORD` is set if number `n` of the block is kept.
    kept: [u64; (BLOCK / WORD) as usize],
    /// The homes of those, in their order.
    homes: Vec<Home>,
}

impl Block {
    /// The word of a number, its bit in there, and how many kept numbers go before.
    fn place(&self, seq: u64) -> (usize, u64, usize) {
        let within = seq % BLOCK;
        let (word, bit) = ((within / WORD) as usize, 1 << (within % WORD));
        let before: u32 = self.kept[..word].iter().map(|word| word.count_ones()).sum();
        (word, bit, (before + (self.kept[word] & (bit - 1)).count_ones()) as usize)
    }

    fn insert(&mut self, seq: u64, home: Home) {
        let (word, bit, at) = self.place(seq);
        self.kept[word] |= bit;
        self.homes.insert(at, home);
    }

    fn remove(&mut self, seq: u64) {
        let (word, bit, at) = self.place(seq);
        if self.kept[word] & bit == 0 {
            return;
        }
        self.kept[word] &= !bit;
        self.homes.remove(at);
        if self.homes.len() * 4 <= self.homes.capacity() {
            self.homes.shrink_to(self.homes.len() * 2);
        }
    }

    fn home(&self, seq: u64) -> Option<Home> {
        let (word, bit, at) = self.place(seq);
        if self.kept[word] & bit == 0 { None } else { self.homes.get(at).copied() }
    }

    fn home_mut(&mut self, seq: u64) -> Option<&mut Home> {
        let (word, bit, at) = self.place(seq);
        if self.kept[word] & bit == 0 { None } else { self.homes.get_mut(at) }
    }

    /// The first kept number at or after number `from` of the block, counted within it.
    fn next(&self, from: u64) -> Option<u64> {
        let first = (from / WORD) as usize;
        let at_or_after = !0 << (from % WORD);
        let words = (first..).zip(&self.kept[first..]);
        let mut words =
            words.map(|(at, word)| (at, if at == first { word & at_or_after } else { *word }));
        let (at, word) = words.find(|(_, word)| *word != 0)?;
        Some(at as u64 * WORD + u64::from(word.trailing_zeros()))
    }

    /// The last kept number before number `before` of the block, counted within it.
    fn previous(&self, before: u64) -> Option<u64> {
        let last = (before / WORD) as usize;
        let below = (1 << (before % WORD)) - 1;
        let words = (0..).zip(&self.kept).take(last + 1);
        let words = words.map(|(at, word)| (at, if at == last { word & below } else { *word }));
        let (at, word) = words.filter(|(_, word)| *word != 0).last()?;
        Some(at as u64 * WORD + u64::from(word.ilog2()))
    }
}

impl Index {
    /// Adds a dot that is not listed.
    pub(super) fn insert(&mut self, dot: Dot, home: Home) {
        let blocks = self.origins.entry(dot.origin).or_default();
        blocks.entry(dot.seq / BLOCK).or_default().insert(dot.seq, home);
    }

    /// Takes note that the cell of a dot has another place in its key, if the dot is listed.
    pub(super) fn place(&mut self, dot: Dot, place: u32) {
        let blocks = self.origins.get_mut(&dot.origin);
        let block = blocks.and_then(|blocks| blocks.get_mut(&(dot.seq / BLOCK)));
        if let Some(home) = block.and_then(|block| block.home_mut(dot.seq)) {
            home.place = place;
        }
    }

    /// Removes a dot, if it is listed.
    pub(super) fn remove(&mut self, dot: Dot) {
        let Some(blocks) = self.origins.get_mut(&dot.origin) else { return };
        let Some(block) = blocks.get_mut(&(dot.seq / BLOCK)) else { return };
        block.remove(dot.seq);
        if block.homes.is_empty() {
            blocks.remove(&(dot.seq / BLOCK));
            if blocks.is_empty() {
                self.origins.remove(&dot.origin);
            }
        }
    }

    /// Where the cell of a dot is kept.
    pub(super) fn home(&self, dot: Dot) -> Option<Home> {
        self.origins.get(&dot.origin)?.get(&(dot.seq / BLOCK))?.home(dot.seq)
    }

    /// The last number before `before` of an origin that is listed.
    pub(super) fn previous(&self, origin: Origin, before: u64) -> Option<u64> {
        let last = before / BLOCK;
        // Only the first block looked at can have nothing: none is empty.
        self.origins.get(&origin)?.range(..=last).rev().find_map(|(number, block)| {
            let within = block.previous(if *number == last { before % BLOCK } else { BLOCK })?;
            Some(number * BLOCK + within)
        })
    }

    /// The first number at or after `from` of an origin that is listed.
    pub(super) fn next(&self, origin: Origin, from: u64) -> Option<u64> {
        let first = from / BLOCK;
        // Only the first block can have nothing more: none is empty.
        self.origins.get(&origin)?.range(first..).find_map(|(number, block)| {
            let within = block.next(if *number == first { from % BLOCK } else { 0 })?;
            Some(number * BLOCK + within)
        })
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
            steps in proptest::collection::vec((dots(), 0..4u8, any::<u32>()), 0..300),
            probes in proptest::collection::vec(dots(), 20),
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::new());
            for (dot, step, number) in steps {
                let home = Home { slot: Slot(number), place: number / 2 };
                match step {
                    0 => {
                        index.remove(dot);
                        model.remove(&dot);
                    }
                    1 => {
                        index.place(dot, number);
                        model.entry(dot).and_modify(|home: &mut Home| home.place = number);
                    }
                    _ => {
                        if model.insert(dot, home).is_some() {
                            index.remove(dot);
                        }
                        index.insert(dot, home);
                    }
                }
            }
            for dot in probes {
                prop_assert_eq!(index.home(dot), model.get(&dot).copied());
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
