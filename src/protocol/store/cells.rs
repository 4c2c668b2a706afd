//! The cells of one key that have a field: found by name, by dot, and in the order of their names.
//!
//! Few of them, as nearly all keys have, lie in one vector that is as long as it must be: a counter
//! or a deadline is one cell. Of many, each lies in a place where it stays until it goes. Two hash
//! tables know the place by name and by dot, and a tree keeps the names in order; so the usual write,
//! to a name that is there, looks at the tree not at all. Two trees of cells, by name and by dot, took
//! half of the time of such a write: each step down compares names in other places of memory.
//!
//! What must stay true: every cell is found by its name and by its dot; nothing depends on the order
//! within a hash table, which nobody walks through.

use std::collections::{BTreeMap, btree_map};
use std::hash::BuildHasher;
use std::ops::Bound;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::super::cell::Field;
use super::super::stamp::Dot;
use super::entry::Cell;

/// So many cells are few: one of them is looked for with six comparisons by name, and by dot in
/// all. In tests so few that the laws come across both forms.
const FEW_MAX: usize = if cfg!(test) { 2 } else { 64 };

/// Of so many places one must be taken; else the cells are put into fewer.
const PLACES_PER_CELL_MAX: usize = 4;

/// See the module's documentation.
#[derive(Clone)]
pub(super) struct Cells(Form);

type Named = (Field, Cell);

#[derive(Clone)]
enum Form {
    /// In the order of their names.
    Few(Vec<Named>),
    Many(Box<Many>),
}

#[derive(Clone)]
struct Many {
    /// A cell stays in its place until it goes.
    places: Vec<Option<Named>>,
    /// The places where there is none.
    free: Vec<u32>,
    names: BTreeMap<Field, u32>,
    by_name: HashTable<Mark>,
    by_dot: HashTable<Mark>,
    hasher: FixedState,
}

/// A place, with half of the hash by which it is found: a table that grows need not look at the cells.
#[derive(Clone, Copy)]
struct Mark {
    hash: u32,
    place: u32,
}

impl Mark {
    fn new(hash: u64, place: u32) -> Self {
        Self { hash: (hash >> 32) as u32, place }
    }

    /// What stands for the whole hash: the table takes some bits from above and some from below.
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

/// Where a cell lies, until cells are added or taken out.
#[derive(Clone, Copy)]
pub(super) struct At(usize);

impl Default for Cells {
    fn default() -> Self {
        Self(Form::Few(Vec::new()))
    }
}

impl Cells {
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Form::Few(few) => few.len(),
            Form::Many(many) => many.names.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the cell of this name lies.
    pub(super) fn place(&self, name: &[u8]) -> Option<At> {
        match &self.0 {
            Form::Few(few) => search(few, name).ok().map(At),
            Form::Many(many) => many.place(name).map(|place| At(place as usize)),
        }
    }

    pub(super) fn at_mut(&mut self, At(place): At) -> Option<&mut Cell> {
        let named = match &mut self.0 {
            Form::Few(few) => few.get_mut(place),
            Form::Many(many) => many.places.get_mut(place)?.as_mut(),
        };
        named.map(|(_, cell)| cell)
    }

    /// The cell of this name.
    pub(super) fn get(&self, name: &[u8]) -> Option<&Cell> {
        let named = match (&self.0, self.place(name)?) {
            (Form::Few(few), At(place)) => few.get(place),
            (Form::Many(many), At(place)) => many.places.get(place)?.as_ref(),
        };
        named.map(|(_, cell)| cell)
    }

    /// The cell of this name, whose dot stays as it is.
    pub(super) fn get_mut(&mut self, name: &[u8]) -> Option<&mut Cell> {
        let place = self.place(name)?;
        self.at_mut(place)
    }

    /// The cell with this dot, and its name.
    pub(super) fn find(&self, dot: Dot) -> Option<(&Field, &Cell)> {
        let named = match &self.0 {
            Form::Few(few) => few.iter().find(|(_, cell)| cell.dot() == dot),
            Form::Many(many) => many.find(dot),
        };
        named.map(|(field, cell)| (field, cell))
    }

    /// Adds a cell of a name that none has; `hasher` guards large keys against chosen names.
    pub(super) fn insert(&mut self, field: Field, cell: Cell, hasher: &FixedState) {
        match &mut self.0 {
            Form::Few(few) => {
                let at = search(few, field.as_bytes()).unwrap_or_else(|at| at);
                if few.capacity() == 0 {
                    few.reserve_exact(1);
                }
                few.insert(at, (field, cell));
                if few.len() > FEW_MAX {
                    let few = std::mem::take(few);
                    self.0 = Form::Many(Box::new(Many::of(few, hasher.clone())));
                }
            }
            Form::Many(many) => many.insert(field, cell),
        }
    }

    /// Puts a cell in the place of another of the same name, which it hands out.
    pub(super) fn replace(&mut self, At(place): At, cell: Cell) -> Option<Cell> {
        match &mut self.0 {
            Form::Few(few) => Some(std::mem::replace(&mut few.get_mut(place)?.1, cell)),
            Form::Many(many) => many.replace(place, cell),
        }
    }

    /// Takes the cell of this name out.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Cell> {
        let cell = match &mut self.0 {
            Form::Few(few) => few.remove(search(few, name).ok()?).1,
            Form::Many(many) => many.remove(name)?,
        };
        self.tighten();
        Some(cell)
    }

    /// Keeps the cells that `stays` names; it is asked once for each, in the order of their names.
    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Field, &Cell) -> bool) {
        match &mut self.0 {
            Form::Few(few) => few.retain(|(field, cell)| stays(field, cell)),
            Form::Many(_) => {
                let goes = self.iter().filter(|(field, cell)| !stays(field, cell));
                let goes: Vec<Field> = goes.map(|(field, _)| field.clone()).collect();
                if goes.len() == self.len() {
                    *self = Self::default();
                }
                for field in goes {
                    self.remove(field.as_bytes());
                }
            }
        }
    }

    /// All cells, in the order of their names.
    pub(super) fn iter(&self) -> Range<'_> {
        self.range(Bound::Unbounded, Bound::Unbounded)
    }

    /// The cells with names between these, in order.
    pub(super) fn range(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range<'_> {
        match &self.0 {
            Form::Few(few) => {
                let place =
                    |name: &[u8]| search(few, name).map_or_else(|at| (at, at), |at| (at, at + 1));
                let from = match from {
                    Bound::Unbounded => 0,
                    Bound::Included(name) => place(name).0,
                    Bound::Excluded(name) => place(name).1,
                };
                let to = match to {
                    Bound::Unbounded => few.len(),
                    Bound::Included(name) => place(name).1,
                    Bound::Excluded(name) => place(name).0,
                };
                Range::Few(few.get(from..to).unwrap_or_default().iter())
            }
            Form::Many(many) => Range::Many(many.names.range::<[u8], _>((from, to)), &many.places),
        }
    }

    /// Gives memory back after cells have gone.
    fn tighten(&mut self) {
        let Form::Many(many) = &mut self.0 else { return };
        let cells = many.names.len();
        if cells <= FEW_MAX / 2 {
            self.0 = Form::Few(many.take());
        } else if cells * PLACES_PER_CELL_MAX < many.places.len() {
            let hasher = many.hasher.clone();
            **many = Many::of(many.take(), hasher);
        }
    }
}

/// Where the name is in a sorted vector, or where it would go.
fn search(few: &[Named], name: &[u8]) -> Result<usize, usize> {
    few.binary_search_by(|(field, _)| field.as_bytes().cmp(name))
}

impl Many {
    /// Cells in the order of their names.
    fn of(cells: Vec<Named>, hasher: FixedState) -> Self {
        let (by_name, by_dot) = (HashTable::new(), HashTable::new());
        let (places, free, names) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut many = Self { places, free, names, by_name, by_dot, hasher };
        cells.into_iter().for_each(|(field, cell)| many.insert(field, cell));
        many
    }

    fn mark(&self, hashed: impl std::hash::Hash, place: u32) -> Mark {
        Mark::new(self.hasher.hash_one(hashed), place)
    }

    fn named(&self, place: u32) -> Option<&Named> {
        self.places.get(place as usize)?.as_ref()
    }

    fn place(&self, name: &[u8]) -> Option<u32> {
        let mark = self.mark(name, 0);
        let is_it = |other: &Mark| {
            other.hash == mark.hash
                && self.named(other.place).is_some_and(|(field, _)| field.as_bytes() == name)
        };
        self.by_name.find(mark.spread(), is_it).map(|found| found.place)
    }

    fn find(&self, dot: Dot) -> Option<&Named> {
        let mark = self.mark(dot_parts(dot), 0);
        let is_it = |other: &Mark| {
            other.hash == mark.hash
                && self.named(other.place).is_some_and(|(_, cell)| cell.dot() == dot)
        };
        self.by_dot.find(mark.spread(), is_it).and_then(|found| self.named(found.place))
    }

    fn insert(&mut self, field: Field, cell: Cell) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("4 billion cells of a key")
        });
        let mark = self.mark(field.as_bytes(), place);
        self.by_name.insert_unique(mark.spread(), mark, Mark::spread);
        self.names.insert(field.clone(), place);
        self.list(cell.dot(), place);
        self.places[place as usize] = Some((field, cell));
    }

    fn replace(&mut self, place: usize, cell: Cell) -> Option<Cell> {
        let dot = cell.dot();
        let (_, own) = self.places.get_mut(place)?.as_mut()?;
        let old = std::mem::replace(own, cell);
        self.unlist(old.dot(), place as u32);
        self.list(dot, place as u32);
        Some(old)
    }

    fn remove(&mut self, name: &[u8]) -> Option<Cell> {
        let place = self.place(name)?;
        let mark = self.mark(name, place);
        let listed = self.by_name.find_entry(mark.spread(), |other| other.place == place);
        listed.ok()?.remove();
        self.names.remove(name);
        let (_, cell) = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        self.unlist(cell.dot(), place);
        Some(cell)
    }

    fn list(&mut self, dot: Dot, place: u32) {
        let mark = self.mark(dot_parts(dot), place);
        self.by_dot.insert_unique(mark.spread(), mark, Mark::spread);
    }

    fn unlist(&mut self, dot: Dot, place: u32) {
        let mark = self.mark(dot_parts(dot), place);
        if let Ok(listed) = self.by_dot.find_entry(mark.spread(), |other| other.place == place) {
            listed.remove();
        }
    }

    /// All cells, in the order of their names.
    fn take(&mut self) -> Vec<Named> {
        let names = std::mem::take(&mut self.names);
        names
            .into_values()
            .filter_map(|place| self.places.get_mut(place as usize)?.take())
            .collect()
    }
}

fn dot_parts(dot: Dot) -> (u64, u64) {
    (dot.origin.0, dot.seq)
}

/// Cells in the order of their names.
pub(super) enum Range<'a> {
    /// Of few.
    Few(std::slice::Iter<'a, Named>),
    /// Of many: the names in order, and where the cells lie.
    Many(btree_map::Range<'a, Field, u32>, &'a [Option<Named>]),
}

impl Default for Range<'_> {
    fn default() -> Self {
        Self::Few([].iter())
    }
}

impl<'a> Range<'a> {
    fn named(place: u32, places: &'a [Option<Named>]) -> Option<(&'a Field, &'a Cell)> {
        let (field, cell) = places.get(place as usize)?.as_ref()?;
        Some((field, cell))
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a Field, &'a Cell);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next().map(|(field, cell)| (field, cell)),
            Self::Many(names, places) => Self::named(*names.next()?.1, places),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(few) => few.next_back().map(|(field, cell)| (field, cell)),
            Self::Many(names, places) => Self::named(*names.next_back()?.1, places),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::cell::{Content, Seen};
    use super::super::super::id::Origin;
    use super::super::super::stamp::{Epoch, Lamport, Stamp};
    use super::*;

    fn cell(seq: u64) -> Cell {
        let origin = Origin(seq % 3);
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(seq), origin };
        Cell::new(stamp, seq, Content::from(&seq.to_le_bytes()[..]), Seen::default())
    }

    fn put(cells: &mut Cells, field: &Field, new: Cell) {
        match cells.place(field.as_bytes()) {
            Some(place) => drop(cells.replace(place, new).unwrap()),
            None => cells.insert(field.clone(), new, &FixedState::with_seed(7)),
        }
    }

    proptest! {
        /// Whatever is put in and taken out: a tree of the same cells finds the same by name, by dot
        /// and in order, in either direction and between any two names.
        #[test]
        fn cells_are_found_by_name_by_dot_and_in_order(
            steps in proptest::collection::vec((0..12u8, 0..10u8), 0..60),
            ends in (0..12u8, 0..12u8),
        ) {
            let (mut cells, mut model) = (Cells::default(), BTreeMap::<Field, u64>::new());
            for (seq, (name, what)) in (1..).zip(steps) {
                let field = Field::new(&[b'h', name]);
                match what {
                    0..6 => {
                        put(&mut cells, &field, cell(seq));
                        model.insert(field, seq);
                    }
                    6..9 => {
                        let gone = cells.remove(field.as_bytes()).map(|cell| cell.dot().seq);
                        prop_assert_eq!(gone, model.remove(&field));
                    }
                    _ => {
                        let stays = |field: &Field| field.as_bytes()[1] % 3 != name % 3;
                        cells.retain(|field, _| stays(field));
                        model.retain(|field, _| stays(field));
                    }
                }
                prop_assert_eq!(cells.len(), model.len());
                for (field, seq) in &model {
                    prop_assert_eq!(cells.get(field.as_bytes()).unwrap().dot(), cell(*seq).dot());
                    prop_assert_eq!(cells.find(cell(*seq).dot()).unwrap().0, field);
                }
                for seq in (1..=seq).filter(|seq| !model.values().any(|kept| kept == seq)) {
                    prop_assert!(cells.find(cell(seq).dot()).is_none());
                }
                let (from, to) = (ends.0.min(ends.1), ends.0.max(ends.1));
                let (from, to) = (Field::new(&[b'h', from]), Field::new(&[b'h', to]));
                let bounds = [
                    (Bound::Unbounded, Bound::Unbounded),
                    (Bound::Included(from.as_bytes()), Bound::Included(to.as_bytes())),
                    (Bound::Included(from.as_bytes()), Bound::Excluded(to.as_bytes())),
                    (Bound::Excluded(from.as_bytes()), Bound::Unbounded),
                ];
                for (from, to) in bounds {
                    let wanted: Vec<_> = model.range::<[u8], _>((from, to)).map(|it| it.0).collect();
                    let found: Vec<_> = cells.range(from, to).map(|it| it.0).collect();
                    prop_assert_eq!(&found, &wanted);
                    let mut back: Vec<_> = cells.range(from, to).rev().map(|it| it.0).collect();
                    back.reverse();
                    prop_assert_eq!(back, wanted);
                }
            }
        }
    }

    /// What many cells took is given back when few are left of them.
    #[test]
    fn places_are_given_back() {
        let mut cells = Cells::default();
        let field = |number: u64| Field::new(&number.to_be_bytes());
        (1..=1_000).for_each(|seq| put(&mut cells, &field(seq), cell(seq)));
        (1..=990).for_each(|seq| drop(cells.remove(field(seq).as_bytes()).unwrap()));
        let Form::Many(many) = &cells.0 else { panic!("ten are many here") };
        assert!(many.places.len() <= 10 * PLACES_PER_CELL_MAX, "{}", many.places.len());
        let left: Vec<u64> = cells.iter().map(|(_, cell)| cell.dot().seq).collect();
        assert_eq!(left, (991..=1_000).collect::<Vec<_>>());
    }
}
