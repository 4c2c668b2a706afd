//! The cells of one key that have a field: found by name, by dot, and in the order of their names.
//!
//! Few of them, as nearly all keys have, lie in one vector that is as long as it must be: a counter
//! or a deadline is one cell. Of many, each lies in a place where it stays until it goes. A hash table
//! knows the place by name, the index of dots (`index`) by dot, and a tree keeps the names in order; so
//! the usual write, to a name that is there, looks at the tree not at all. Two trees of cells, by name
//! and by dot, took half of the time of such a write: each step down compares names in other places of
//! memory. The elements of a list are in the tree alone: they are read in order, and hardly ever
//! written twice.
//!
//! What must stay true: every cell is found by its name, and by its dot in the place that the index
//! has; nothing depends on the order within the hash table, which nobody walks through.

use std::collections::{BTreeMap, btree_map};
use std::hash::BuildHasher;
use std::ops::Bound;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::super::cell::Field;
use super::super::role::Role;
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
    /// Where the names are that are no list's.
    by_name: HashTable<Mark>,
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

impl At {
    /// What the index is to know of it.
    pub(super) fn place(self) -> u32 {
        self.0 as u32
    }
}

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

    /// The cell with this dot, and its name; `place` is what the index knows, and counts if they are many.
    pub(super) fn find(&self, dot: Dot, place: u32) -> Option<(&Field, &Cell)> {
        let is_it = |named: &&Named| named.1.dot() == dot;
        let named = match &self.0 {
            Form::Few(few) => few.iter().find(is_it),
            Form::Many(many) => many.named(place).filter(is_it),
        };
        named.map(|(field, cell)| (field, cell))
    }

    /// Where the next cell will lie that is added, unless all change places with it.
    pub(super) fn next_place(&self) -> u32 {
        match &self.0 {
            Form::Few(_) => 0,
            Form::Many(many) => many.free.last().copied().unwrap_or(many.places.len() as u32),
        }
    }

    /// The cells and where they lie, if they are many.
    pub(super) fn places(&self) -> impl Iterator<Item = (u32, &Cell)> {
        let places = match &self.0 {
            Form::Few(_) => &[][..],
            Form::Many(many) => &many.places[..],
        };
        (0..).zip(places).filter_map(|(place, named)| Some((place, &named.as_ref()?.1)))
    }

    /// Adds a cell of a name that none has; `hasher` guards large keys against chosen names. Whether all
    /// cells have changed places.
    pub(super) fn insert(&mut self, field: Field, cell: Cell, hasher: &FixedState) -> bool {
        match &mut self.0 {
            Form::Few(few) => {
                let at = search(few, field.as_bytes()).unwrap_or_else(|at| at);
                if few.capacity() == 0 {
                    few.reserve_exact(1);
                }
                few.insert(at, (field, cell));
                let are_many = few.len() > FEW_MAX;
                if are_many {
                    let few = std::mem::take(few);
                    self.0 = Form::Many(Box::new(Many::of(few, hasher.clone())));
                }
                are_many
            }
            Form::Many(many) => {
                many.insert(field, cell);
                false
            }
        }
    }

    /// Puts a cell in the place of another of the same name, which it hands out.
    pub(super) fn replace(&mut self, At(place): At, cell: Cell) -> Option<Cell> {
        match &mut self.0 {
            Form::Few(few) => Some(std::mem::replace(&mut few.get_mut(place)?.1, cell)),
            Form::Many(many) => {
                let (_, own) = many.places.get_mut(place)?.as_mut()?;
                Some(std::mem::replace(own, cell))
            }
        }
    }

    /// Takes the cell of this name out.
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Cell> {
        match &mut self.0 {
            Form::Few(few) => Some(few.remove(search(few, name).ok()?).1),
            Form::Many(many) => many.remove(name),
        }
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

    /// Gives memory back after cells have gone; whether all cells lie in other places now that the
    /// index must know.
    pub(super) fn tighten(&mut self) -> bool {
        let Form::Many(many) = &mut self.0 else { return false };
        let cells = many.names.len();
        if cells <= FEW_MAX / 2 {
            self.0 = Form::Few(many.take());
            return false;
        }
        let is_loose = cells * PLACES_PER_CELL_MAX < many.places.len();
        if is_loose {
            let hasher = many.hasher.clone();
            **many = Many::of(many.take(), hasher);
        }
        is_loose
    }
}

/// Where the name is in a sorted vector, or where it would go.
fn search(few: &[Named], name: &[u8]) -> Result<usize, usize> {
    few.binary_search_by(|(field, _)| field.as_bytes().cmp(name))
}

impl Many {
    /// Cells in the order of their names.
    fn of(cells: Vec<Named>, hasher: FixedState) -> Self {
        let (places, free, names) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut many = Self { places, free, names, by_name: HashTable::new(), hasher };
        cells.into_iter().for_each(|(field, cell)| many.insert(field, cell));
        many
    }

    fn mark(&self, name: &[u8], place: u32) -> Mark {
        Mark::new(self.hasher.hash_one(name), place)
    }

    fn named(&self, place: u32) -> Option<&Named> {
        self.places.get(place as usize)?.as_ref()
    }

    fn place(&self, name: &[u8]) -> Option<u32> {
        if !is_hashed(name) {
            return self.names.get(name).copied();
        }
        let mark = self.mark(name, 0);
        let is_it = |other: &Mark| {
            other.hash == mark.hash
                && self.named(other.place).is_some_and(|(field, _)| field.as_bytes() == name)
        };
        self.by_name.find(mark.spread(), is_it).map(|found| found.place)
    }

    fn insert(&mut self, field: Field, cell: Cell) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("4 billion cells of a key")
        });
        if is_hashed(field.as_bytes()) {
            let mark = self.mark(field.as_bytes(), place);
            self.by_name.insert_unique(mark.spread(), mark, Mark::spread);
        }
        self.names.insert(field.clone(), place);
        self.places[place as usize] = Some((field, cell));
    }

    fn remove(&mut self, name: &[u8]) -> Option<Cell> {
        let place = self.place(name)?;
        if is_hashed(name) {
            let mark = self.mark(name, place);
            let listed = self.by_name.find_entry(mark.spread(), |other| other.place == place);
            listed.ok()?.remove();
        }
        self.names.remove(name);
        let (_, cell) = self.places.get_mut(place as usize)?.take()?;
        self.free.push(place);
        Some(cell)
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

/// Whether a name is in the hash table: those of a list's elements are not.
fn is_hashed(name: &[u8]) -> bool {
    Role::of(name) != Role::List
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

    /// Cells, and where they lie as the index is told.
    #[derive(Default)]
    struct Listed {
        cells: Cells,
        places: BTreeMap<Dot, u32>,
    }

    impl Listed {
        fn put(&mut self, field: &Field, new: Cell) {
            let dot = new.dot();
            match self.cells.place(field.as_bytes()) {
                Some(at) => {
                    self.places.insert(dot, at.place());
                    self.cells.replace(at, new).unwrap();
                }
                None => {
                    self.places.insert(dot, self.cells.next_place());
                    if self.cells.insert(field.clone(), new, &FixedState::with_seed(7)) {
                        self.list();
                    }
                }
            }
        }

        fn list(&mut self) {
            self.places.extend(self.cells.places().map(|(place, cell)| (cell.dot(), place)));
        }

        fn tighten(&mut self) {
            if self.cells.tighten() {
                self.list();
            }
        }

        fn find(&self, dot: Dot) -> Option<&Field> {
            let place = self.places.get(&dot).copied().unwrap_or_default();
            self.cells.find(dot, place).map(|(field, _)| field)
        }
    }

    /// As long as the name of an element of a list.
    fn named(role: u8, name: u8) -> Field {
        Field::new(&[&[role][..], &[0; 19], &[name]].concat())
    }

    proptest! {
        /// Whatever is put in and taken out: a tree of the same cells finds the same by name, by dot
        /// and in order, in either direction and between any two names.
        #[test]
        fn cells_are_found_by_name_by_dot_and_in_order(
            steps in proptest::collection::vec((0..12u8, 0..10u8), 0..60),
            role in prop_oneof![Just(b'h'), Just(b'l')],
            ends in (0..12u8, 0..12u8),
        ) {
            let (mut listed, mut model) = (Listed::default(), BTreeMap::<Field, u64>::new());
            for (seq, (name, what)) in (1..).zip(steps) {
                let field = named(role, name);
                match what {
                    0..6 => {
                        listed.put(&field, cell(seq));
                        model.insert(field, seq);
                    }
                    6..9 => {
                        let gone = listed.cells.remove(field.as_bytes()).map(|cell| cell.dot().seq);
                        prop_assert_eq!(gone, model.remove(&field));
                    }
                    _ => {
                        let stays = |field: &Field| field.as_bytes()[20] % 3 != name % 3;
                        listed.cells.retain(|field, _| stays(field));
                        model.retain(|field, _| stays(field));
                    }
                }
                listed.tighten();
                let cells = &listed.cells;
                prop_assert_eq!(cells.len(), model.len());
                for (field, seq) in &model {
                    prop_assert_eq!(cells.get(field.as_bytes()).unwrap().dot(), cell(*seq).dot());
                    prop_assert_eq!(listed.find(cell(*seq).dot()), Some(field));
                }
                for seq in (1..=seq).filter(|seq| !model.values().any(|kept| kept == seq)) {
                    prop_assert!(listed.find(cell(seq).dot()).is_none());
                }
                let (from, to) = (ends.0.min(ends.1), ends.0.max(ends.1));
                let (from, to) = (named(role, from), named(role, to));
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
        let mut listed = Listed::default();
        let field = |number: u64| Field::new(&number.to_be_bytes());
        (1..=1_000).for_each(|seq| listed.put(&field(seq), cell(seq)));
        for seq in 1..=990 {
            listed.cells.remove(field(seq).as_bytes()).unwrap();
            listed.tighten();
        }
        let cells = &listed.cells;
        let Form::Many(many) = &cells.0 else { panic!("ten are many here") };
        assert!(many.places.len() <= 10 * PLACES_PER_CELL_MAX, "{}", many.places.len());
        let left: Vec<u64> = cells.iter().map(|(_, cell)| cell.dot().seq).collect();
        assert_eq!(left, (991..=1_000).collect::<Vec<_>>());
    }
}
