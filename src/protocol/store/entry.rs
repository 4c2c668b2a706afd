//! One key's cells: what is kept of it, and what prevails when a version comes.
//!
//! What must stay true: of two versions of a cell, and of a cell and what covers it, it depends on
//! nothing but the two which one stays. `role` has the two roles with rules of their own.

use std::num::NonZeroU64;
use std::ops::Bound;

use foldhash::fast::FixedState;

use super::super::cell::{Content, Field, Key, Seen};
use super::super::id::Origin;
use super::super::index::{Index, Slot};
use super::super::role::{self, ROLES, Role};
use super::super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::cells::{At, Cells};
use super::{Books, Fingerprint, Loser, Merged};

/// A version of a cell as the store keeps it: the parts of [`Stamp`] and [`Dot`], packed.
///
/// 64 bytes, of an `Option` as well; that the slot lies here and not in [`Entry`] is for that.
#[derive(Clone)]
pub(in crate::protocol) struct Cell {
    pub(super) lamport: Lamport,
    pub(super) origin: Origin,
    /// From 1, like all numbers of dots.
    pub(super) seq: NonZeroU64,
    pub(super) epoch: Epoch,
    pub(super) slot: Slot,
    pub(super) content: Content,
    /// What its writer had seen.
    pub(super) seen: Seen,
    /// What this node has merged beyond that: losers, which the next write here will have seen.
    pub(super) known: Seen,
}

/// All that is kept of one key: at least one cell. That of the whole key stands apart because most
/// keys have no other.
#[derive(Clone, Default)]
pub(in crate::protocol) struct Entry {
    pub(super) whole: Option<Cell>,
    pub(super) fields: Option<Box<Fields>>,
}

/// The cells of a key that have a field, and how many of them show in each role.
#[derive(Clone, Default)]
pub(super) struct Fields {
    cells: Cells,
    live: [u32; ROLES],
    /// How many of the adds that show are of members that others have added as well and are not the
    /// first of these.
    adds_again: u32,
    /// The sum of the hashes of all live cells of the key, that of the whole key included; kept up to
    /// date by `ending`.
    pub(super) sum: Fingerprint,
}

impl Fields {
    /// The cells, in the order of their names.
    pub(super) fn cells(&self) -> &Cells {
        &self.cells
    }

    /// How many cells of a role show.
    pub(super) fn live(&self, role: Role) -> usize {
        self.live[role.index()] as usize
    }

    /// How many members a set has.
    pub(super) fn members(&self) -> usize {
        self.live(Role::Set) - self.adds_again as usize
    }

    /// The adds of a member of a set that show.
    pub(super) fn adds<'a, 'p>(
        &'a self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = (&'a Field, &'a Cell)> + use<'a, 'p> {
        let from = self.cells.range(Bound::Included(prefix), Bound::Unbounded);
        // Between the member's fields a peer may have put one that is none.
        let near = from.take_while(|(field, _)| field.as_bytes().starts_with(prefix));
        let own = near.filter(|(field, _)| role::has_set_prefix(field.as_bytes(), prefix));
        own.filter(|(_, cell)| cell.shows())
    }

    /// A cell that is there shows from now on, or no longer: counts it.
    fn turn(&mut self, field: &Field, shown: bool, shows: bool) {
        let of_role = Role::of(field.as_bytes());
        if shown == shows {
            return;
        }
        let live = &mut self.live[of_role.index()];
        *live = *live + u32::from(shows) - u32::from(shown);
        if of_role == Role::Set {
            let mut adds = self.adds(role::set_prefix_of(field.as_bytes()));
            let has_another = adds.any(|(other, _)| other != field);
            drop(adds);
            if has_another {
                self.adds_again = self.adds_again + u32::from(shows) - u32::from(shown);
            }
        }
    }

    /// Adds a cell of a name that none has; whether all cells lie in other places now.
    fn insert(&mut self, field: Field, cell: Cell, hasher: &FixedState) -> bool {
        self.turn(&field, false, cell.shows());
        self.cells.insert(field, cell, hasher)
    }

    /// Tells the index where all cells lie.
    fn list(&self, index: &mut Index) {
        self.cells.places().for_each(|(place, cell)| index.place(cell.dot(), place));
    }

    /// Gives memory back after cells have gone.
    fn tighten(&mut self, index: &mut Index) {
        if self.cells.tighten() {
            self.list(index);
        }
    }

    /// Puts a cell in the place of another of the same name.
    fn replace(&mut self, field: &Field, at: At, cell: Cell) {
        let shows = cell.shows();
        if let Some(old) = self.cells.replace(at, cell) {
            self.turn(field, old.shows(), shows);
        }
    }

    fn remove(&mut self, field: &Field) -> Option<Cell> {
        let old = self.cells.remove(field.as_bytes())?;
        self.turn(field, old.shows(), false);
        Some(old)
    }

    /// Takes out what `covered` names.
    fn remove_where(&mut self, mut covered: impl FnMut(&Field, &Cell) -> bool) {
        let Self { cells, live, .. } = self;
        cells.retain(|field, cell| {
            let goes = covered(field, cell);
            if goes {
                live[Role::of(field.as_bytes()).index()] -= u32::from(cell.shows());
            }
            !goes
        });
        // What goes may have been all adds of a member but one.
        if self.adds_again > 0 {
            let (from, to) = Role::Set.range();
            let adds = self.cells.range(Bound::Included(&from), Bound::Excluded(&to));
            let is_add = |field: &Field| Role::of(field.as_bytes()) == Role::Set;
            let adds = adds.filter(|(field, cell)| cell.shows() && is_add(field));
            let (mut last, mut again) = (&[][..], 0);
            for (field, _) in adds {
                let member = role::set_prefix_of(field.as_bytes());
                again += u32::from(std::mem::replace(&mut last, member) == member);
            }
            self.adds_again = again;
        }
    }
}

impl Entry {
    pub(super) fn seen(&self, field: &Field, origin: Origin) -> Seen {
        let mut seen = Seen::default();
        let fields = self.fields.as_ref();
        self.whole.iter().for_each(|cell| cell.tell(&mut seen, origin));
        match (field.is_whole_key(), fields) {
            (_, None) => {}
            (true, Some(fields)) => {
                fields.cells.iter().for_each(|(_, cell)| cell.tell(&mut seen, origin));
            }
            (false, Some(fields)) => {
                let own = fields.cells.get(field.as_bytes());
                own.into_iter().for_each(|cell| cell.tell(&mut seen, origin));
            }
        }
        // Its own earlier writes go without saying.
        seen.forget(Dot { origin, seq: 0 }, &Seen::default());
        seen
    }

    pub(super) fn merge(
        &mut self,
        key: &Key,
        field: Field,
        new: Cell,
        books: &mut Books,
    ) -> Merged {
        let of_role = role_of(key, &field);
        let won = Winner { key, of_role, new, books, lost: Vec::new() };
        match field.is_whole_key() {
            true => self.merge_whole(field, won),
            false => self.merge_field(field, won),
        }
    }

    /// A cell with a field is up against its own earlier version and the whole key's.
    fn merge_field(&mut self, field: Field, mut winner: Winner<'_>) -> Merged {
        let Winner { of_role, ref new, .. } = winner;
        if let Some(whole) = &mut self.whole
            && whole.stamp() > new.floor(of_role)
        {
            return Merged::Lost { concurrent_with: whole.absorb_loser(new) };
        }
        let fields = self.fields.get_or_insert_default();
        let at = fields.cells.place(field.as_bytes());
        let Some((at, own)) = at.and_then(|at| Some((at, fields.cells.at_mut(at)?))) else {
            winner.books.keep(winner.key, &field, new, fields.cells.next_place());
            if fields.insert(field, winner.new, &winner.books.hasher) {
                fields.list(&mut winner.books.index);
            }
            return Merged::Won { lost: winner.lost };
        };
        if let Some(stays) = own.stays(new, of_role, &field) {
            return stays;
        }
        winner.replaces(&field, own);
        winner.books.keep(winner.key, &field, &winner.new, at.place());
        let Winner { new, lost, .. } = winner;
        fields.replace(&field, at, new);
        Merged::Won { lost }
    }

    /// A whole key is up against its own earlier version; then it covers what is older.
    fn merge_whole(&mut self, field: Field, mut winner: Winner<'_>) -> Merged {
        if let Some(own) = &mut self.whole
            && let Some(stays) = own.stays(&winner.new, winner.of_role, &field)
        {
            return stays;
        }
        let stamp = winner.new.stamp();
        if let Some(fields) = &mut self.fields {
            fields.remove_where(|field, old| {
                let covered = old.floor(role_of(winner.key, field)) < stamp;
                if covered {
                    winner.replaces(field, old);
                }
                covered
            });
            match fields.cells.is_empty() {
                true => self.fields = None,
                false => fields.tighten(&mut winner.books.index),
            }
        }
        if let Some(old) = &self.whole {
            winner.replaces(&field, old);
        }
        winner.books.keep(winner.key, &field, &winner.new, 0);
        self.whole = Some(winner.new);
        Merged::Won { lost: winner.lost }
    }

    /// Whether something stands that this version would lose to; what `but` names does not count.
    pub(super) fn beats(
        &self,
        key: &Key,
        field: &Field,
        new: &Cell,
        but: impl Fn(Dot) -> bool,
    ) -> bool {
        let of_role = role_of(key, field);
        let mut whole = self.whole.iter().filter(|whole| !but(whole.dot()));
        if !field.is_whole_key() && whole.any(|whole| whole.stamp() > new.floor(of_role)) {
            return true;
        }
        let own = self.cell(field).filter(|own| !but(own.dot()));
        own.is_some_and(|own| own.stamp() != new.stamp() && own.prevails(new, of_role, field))
    }

    /// Takes one cell out, whose dot is still in the index.
    pub(super) fn take(&mut self, field: &Field, index: &mut Index) -> Option<Cell> {
        if field.is_whole_key() {
            return self.whole.take();
        }
        let fields = self.fields.as_mut()?;
        let cell = fields.remove(field);
        match fields.cells.is_empty() {
            true => self.fields = None,
            false => fields.tighten(index),
        }
        cell
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = (Option<&Field>, &Cell)> {
        self.cells_after(None)
    }

    /// The cells whose names follow this one, in their order; without one all of them.
    pub(super) fn cells_after(
        &self,
        name: Option<&Field>,
    ) -> impl Iterator<Item = (Option<&Field>, &Cell)> {
        let from = name.map_or(Bound::Unbounded, |name| Bound::Excluded(name.as_bytes()));
        let cells = self.fields.as_ref().map(|it| it.cells.range(from, Bound::Unbounded));
        let fields = cells.unwrap_or_default();
        let fields = fields.map(|(field, cell)| (Some(field), cell));
        let whole = self.whole.iter().filter(move |_| name.is_none());
        whole.map(|cell| (None, cell)).chain(fields)
    }

    /// The cell with this dot and the place that the index names, and its name unless it is the whole
    /// key's.
    pub(super) fn find(&self, dot: Dot, place: u32) -> Option<(Option<&Field>, &Cell)> {
        match self.whole.as_ref().filter(|whole| whole.dot() == dot) {
            Some(whole) => Some((None, whole)),
            None => self
                .fields
                .as_ref()?
                .cells
                .find(dot, place)
                .map(|(field, cell)| (Some(field), cell)),
        }
    }

    /// The cell of this name.
    pub(super) fn cell(&self, field: &Field) -> Option<&Cell> {
        match field.is_whole_key() {
            true => self.whole.as_ref(),
            false => self.fields.as_ref()?.cells.get(field.as_bytes()),
        }
    }

    /// The cell of this name, whose content stays as it is.
    pub(super) fn cell_mut(&mut self, field: &Field) -> Option<&mut Cell> {
        match field.is_whole_key() {
            true => self.whole.as_mut(),
            false => self.fields.as_mut()?.cells.get_mut(field.as_bytes()),
        }
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        self.cells().next().map(|(_, cell)| cell.slot)
    }

    /// Whether any cell shows, but for a deadline: what it shows may have passed.
    pub(super) fn is_live(&self) -> bool {
        let whole = self.whole.as_ref().is_some_and(Cell::shows);
        whole
            || self.fields.as_ref().is_some_and(|fields| {
                let shown = fields.live.iter().enumerate();
                shown.filter(|(at, _)| *at != Role::Deadline.index()).any(|(_, live)| *live > 0)
            })
    }

    /// Changes a copy of an entry, as a command that is to be followed by others of the same write.
    pub(in crate::protocol) fn stage(&mut self, field: Field, content: Content, writer: Dot) {
        let seq = NonZeroU64::new(writer.seq).unwrap_or(NonZeroU64::MIN);
        let new = Cell {
            lamport: Lamport(u64::MAX),
            origin: writer.origin,
            seq,
            epoch: Epoch(u32::MAX),
            slot: Slot(0),
            content,
            seen: Seen::default(),
            known: Seen::default(),
        };
        if field.is_whole_key() {
            self.fields = None;
            self.whole = Some(new);
        } else {
            let fields = self.fields.get_or_insert_default();
            match fields.cells.place(field.as_bytes()) {
                Some(at) => fields.replace(&field, at, new),
                None => drop(fields.insert(field, new, &FixedState::default())),
            }
        }
    }
}

/// A version that takes its place, and what it replaces.
struct Winner<'a> {
    key: &'a Key,
    of_role: Role,
    new: Cell,
    books: &'a mut Books,
    lost: Vec<Loser>,
}

impl Winner<'_> {
    fn replaces(&mut self, field: &Field, old: &Cell) {
        // A removal that an add outlives took what it had seen: nothing is lost.
        if !self.new.has_seen(old) && self.of_role != Role::Set {
            let is_deletion = old.content == Content::Tombstone;
            self.lost.push(Loser { stamp: old.stamp(), dot: old.dot(), is_deletion });
        }
        self.books.displace(self.key, field, old);
        self.new.absorb(old);
    }
}

/// The role of a cell; those of the store's owner have none.
fn role_of(key: &Key, field: &Field) -> Role {
    match field.is_whole_key() || key.is_reserved() {
        true => Role::Other,
        false => Role::of(field.as_bytes()),
    }
}

impl Cell {
    /// A version that is not kept anywhere yet.
    pub(super) fn new(stamp: Stamp, seq: u64, content: Content, seen: Seen) -> Self {
        Self {
            lamport: stamp.lamport,
            origin: stamp.origin,
            seq: NonZeroU64::new(seq).expect("a write with number 0 is not well formed"),
            epoch: stamp.epoch,
            slot: Slot(0),
            content,
            seen,
            known: Seen::default(),
        }
    }

    pub(in crate::protocol) fn stamp(&self) -> Stamp {
        Stamp { epoch: self.epoch, lamport: self.lamport, origin: self.origin }
    }

    /// Whether it has a value.
    pub(super) fn shows(&self) -> bool {
        self.content.value().is_some()
    }

    /// The stamp that the whole key's must be above to cover this cell.
    fn floor(&self, of_role: Role) -> Stamp {
        match (of_role, &self.content) {
            (Role::Count, Content::Value(value)) => role::count_from(value, self.stamp()),
            _ => self.stamp(),
        }
    }

    /// What becomes of `new` if this version of the cell stays; `None` if it is to go.
    fn stays(&mut self, new: &Self, of_role: Role, field: &Field) -> Option<Merged> {
        if self.stamp() == new.stamp() {
            return Some(Merged::Known);
        }
        self.prevails(new, of_role, field).then(|| {
            let concurrent_with = self.absorb_loser(new);
            Merged::Lost { concurrent_with: concurrent_with.filter(|_| of_role != Role::Set) }
        })
    }

    /// Whether this version of a cell stays when `other` comes.
    fn prevails(&self, other: &Self, of_role: Role, field: &Field) -> bool {
        let owner = match of_role {
            Role::Set => role::member(field.as_bytes()).map(|(_, owner)| owner),
            _ => None,
        };
        match owner {
            None => self.stamp() > other.stamp(),
            Some(owner) => self.rank(owner) > other.rank(owner),
        }
    }

    /// The order of the versions of a member of a set that `owner` added.
    fn rank(&self, owner: Origin) -> (u64, bool, Stamp) {
        let known = match self.origin == owner {
            true => self.seq.get(),
            false => self.seen.iter().find(|dot| dot.origin == owner).map_or(0, |dot| dot.seq),
        };
        (known, !self.shows(), self.stamp())
    }

    pub(in crate::protocol) fn dot(&self) -> Dot {
        Dot { origin: self.origin, seq: self.seq.get() }
    }

    /// Whether the writer of this version had seen `other`: who writes in an epoch has all that counts
    /// of earlier ones.
    pub(super) fn has_seen(&self, other: &Self) -> bool {
        let own = self.origin == other.origin && self.seq > other.seq;
        own || self.epoch > other.epoch || self.seen.contains(other.dot())
    }

    /// Remembers that this node has seen `other`, which is not what the cell holds.
    pub(super) fn absorb(&mut self, other: &Self) {
        let (dot, seen) = (self.dot(), std::mem::take(&mut self.seen));
        if self.origin != other.origin && !seen.contains(other.dot()) {
            self.known.insert(other.dot());
        }
        self.known.merge(&other.seen);
        self.known.merge(&other.known);
        self.known.forget(dot, &seen);
        self.seen = seen;
    }

    /// Takes note of a smaller version; the stamp of this one if neither writer had seen the other.
    pub(super) fn absorb_loser(&mut self, loser: &Self) -> Option<Stamp> {
        let concurrent = !self.has_seen(loser);
        self.absorb(loser);
        concurrent.then(|| self.stamp())
    }

    /// Adds this version, unless `origin` wrote it, and all that is known here to have gone before.
    pub(super) fn tell(&self, seen: &mut Seen, origin: Origin) {
        seen.merge(&self.seen);
        seen.merge(&self.known);
        if self.origin != origin {
            seen.insert(self.dot());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(seq: u64) -> Cell {
        let (lamport, origin) = (Lamport(seq), Origin(1));
        let stamp = Stamp { epoch: Epoch(0), lamport, origin };
        Cell::new(stamp, seq, Content::from(&b""[..]), Seen::default())
    }

    /// Fields that begin like those of a member but are none, as a peer may send them, hide no add and
    /// are not counted, whatever goes.
    #[test]
    fn what_is_no_member_changes_nothing_of_a_set() {
        let (first, second) = (role::set_field(b"m", Origin(1)), role::set_field(b"m", Origin(3)));
        let prefix = role::set_prefix(b"m");
        let between =
            |last: u8| Field::new(&[&prefix[..], &[0, 0, 0, 0, 0, 0, 0, 2, last]].concat());
        let goes = role::set_field(b"n", Origin(1));
        let mut fields = Fields::default();
        let all = [&first, &between(1), &between(2), &second, &goes];
        for (seq, field) in (1..).zip(all) {
            fields.insert(field.clone(), cell(seq), &FixedState::default());
        }
        assert_eq!((fields.members(), fields.adds(&prefix).count()), (2, 2));
        fields.remove_where(|field, _| *field == goes);
        assert_eq!((fields.members(), fields.adds(&prefix).count()), (1, 2));
    }
}
