//! What a key shows: its cells read as one value.
//!
//! It depends on the cells that have a value and on the time, never on tombstones, so a collected
//! tombstone changes nothing. Where cells of several kinds show, because they were written
//! concurrently, the kind of the cell with the greatest stamp counts, and the others stay hidden.

use std::borrow::Cow;
use std::ops::Bound;

use twox_hash::XxHash3_64;

use super::super::cell::Field;
use super::super::id::Origin;
use super::super::operation;
use super::super::role::{self, Place, Role};
use super::super::stamp::{Dot, Stamp};
use super::super::time::WallTime;
use super::CELL_BYTES_EXTRA;
use super::entry::{Cell, Entry};

/// What kind of value a key shows, in Redis' words.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
pub enum Kind {
    /// A string, or a number that peers add to.
    Text,
    /// A hash.
    Hash,
    /// A set.
    Set,
    /// A list.
    List,
    /// A sorted set.
    Sorted,
    /// None that this version knows.
    Other,
}

impl Kind {
    /// Redis' word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Hash => "hash",
            Self::Set => "set",
            Self::List => "list",
            Self::Sorted => "zset",
            Self::Other => "unknown",
        }
    }

    fn role(self) -> Role {
        match self {
            Self::Text => Role::Count,
            Self::Hash => Role::Hash,
            Self::Set => Role::Set,
            Self::List => Role::List,
            Self::Sorted => Role::Sorted,
            Self::Other => Role::Other,
        }
    }
}

/// What a key shows to whoever wants a string, all of it at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Nothing.
    Nothing,
    /// A string.
    Is(&'a [u8]),
    /// A value of another kind.
    Another,
}

/// One key as a command sees it at its moment.
#[derive(Clone, Copy)]
pub(in crate::protocol) struct Shown<'a> {
    /// Its cells, unless it shows nothing: no command sees what has expired.
    entry: Option<&'a Entry>,
    kind: Option<Kind>,
    remains: bool,
}

impl Entry {
    /// Hands the string to `read`.
    #[inline]
    pub(super) fn text<T>(&self, now: WallTime, read: impl FnOnce(Text<'_>) -> T) -> T {
        if self.fields.is_none() {
            let whole = self.whole.as_ref().and_then(|cell| cell.content.value());
            return read(whole.map_or(Text::Nothing, Text::Is));
        }
        let shown = Shown::of(Some(self), now);
        match (shown.kind, shown.text()) {
            (Some(Kind::Text), Some(text)) => read(Text::Is(&text)),
            (None | Some(Kind::Text), _) => read(Text::Nothing),
            (Some(_), _) => read(Text::Another),
        }
    }

    /// When the key ends, in milliseconds since 1970.
    pub(super) fn deadline(&self) -> Option<u64> {
        let fields = self.fields.as_ref()?;
        if fields.live(Role::Deadline) == 0 {
            return None;
        }
        let value = fields.cells().get(&role::DEADLINE_NAME[..])?.content.value()?;
        Some(role::deadline(value))
    }

    /// What it shows at `now`.
    pub(super) fn kind(&self, now: WallTime) -> Option<Kind> {
        let whole = self.whole.as_ref().is_some_and(Cell::shows);
        let Some(fields) = &self.fields else { return whole.then_some(Kind::Text) };
        if self.deadline().is_some_and(|deadline| deadline <= now.0) {
            return None;
        }
        let shows = |kind: &Kind| fields.live(kind.role()) > 0 || *kind == Kind::Text && whole;
        use Kind::{Hash, List, Other, Set, Sorted, Text};
        let kinds = [Text, Hash, Set, List, Sorted, Other];
        let mut shown = kinds.into_iter().filter(shows);
        match (shown.next(), shown.next()) {
            (one, None) => one,
            _ => {
                let kinds = kinds.into_iter().filter(shows);
                kinds.max_by_key(|kind| self.greatest(*kind))
            }
        }
    }

    /// The greatest stamp of the cells of a kind that show.
    fn greatest(&self, kind: Kind) -> Option<Stamp> {
        let whole = self.whole.iter().filter(|_| kind == Kind::Text);
        let fields = self.fields.iter().flat_map(|fields| fields.cells().iter());
        let of_role = |it: &(&Field, &Cell)| Role::of(it.0.as_bytes()) == kind.role();
        let cells = fields.filter(of_role).map(|(_, cell)| cell);
        whole.chain(cells).filter(|cell| cell.shows()).map(Cell::stamp).max()
    }

    /// The cells of a role that show, in the order of their names.
    fn live(&self, role: Role) -> impl DoubleEndedIterator<Item = (&Field, &Cell)> {
        let (from, to) = role.range();
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let cells = self.fields.as_ref().map(|fields| fields.cells().range(from, to));
        cells.unwrap_or_default().filter(|(_, cell)| cell.shows())
    }
}

impl<'a> Shown<'a> {
    pub(in crate::protocol) fn of(entry: Option<&'a Entry>, now: WallTime) -> Self {
        let kind = entry.and_then(|entry| entry.kind(now));
        let has_any = |entry: &Entry| entry.is_live() || entry.deadline().is_some();
        let remains = kind.is_some() || entry.is_some_and(has_any);
        Self { entry: entry.filter(|_| kind.is_some()), kind, remains }
    }

    /// What kind of value shows, if any.
    pub(in crate::protocol) fn kind(&self) -> Option<Kind> {
        self.kind
    }

    /// Whether anything has a value, although nothing may show: a deadline that is left behind, or what
    /// has expired.
    pub(in crate::protocol) fn remains(&self) -> bool {
        self.remains
    }

    /// Names what shows: other cells, another number.
    pub(in crate::protocol) fn version(&self) -> u64 {
        let cells = self.entry.into_iter().flat_map(Entry::cells).filter(|(_, cell)| cell.shows());
        cells.fold(0, |sum, (_, cell)| {
            let Dot { origin, seq } = cell.dot();
            let mut numbers = [0; 16];
            numbers[..8].copy_from_slice(&origin.0.to_le_bytes());
            numbers[8..].copy_from_slice(&seq.to_le_bytes());
            sum.wrapping_add(XxHash3_64::oneshot(&numbers))
        })
    }

    /// Redis' word for how a value like this one lies in memory.
    pub(in crate::protocol) fn encoding(&self) -> &'static str {
        match self.kind {
            Some(Kind::Text) => match self.text() {
                Some(text) if operation::integer(&text).is_some() => "int",
                Some(text) if text.len() <= 44 => "embstr",
                _ => "raw",
            },
            Some(Kind::Hash | Kind::Set) => "hashtable",
            Some(Kind::List) => "quicklist",
            Some(Kind::Sorted) => "skiplist",
            Some(Kind::Other) | None => "unknown",
        }
    }

    /// About how many bytes the cells take.
    pub(in crate::protocol) fn bytes(&self) -> usize {
        let cells = self.entry.into_iter().flat_map(Entry::cells);
        let bytes = cells.map(|(field, cell)| {
            let field = field.map_or(0, |field| field.as_bytes().len());
            CELL_BYTES_EXTRA + field + cell.content.value().map_or(0, <[u8]>::len)
        });
        bytes.sum()
    }

    /// The cells of a copy that `origin` writes.
    pub(in crate::protocol) fn copied(&self, origin: Origin) -> Vec<(Field, Vec<u8>)> {
        let Some(kind) = self.kind else { return Vec::new() };
        match kind {
            Kind::Other => Vec::new(),
            Kind::Text => {
                let text = self.text().unwrap_or_default().into_owned();
                vec![(Field::whole_key(), text)]
            }
            Kind::Set => {
                let members = self.members();
                members.map(|member| (role::set_field(member, origin), Vec::new())).collect()
            }
            Kind::Hash | Kind::List | Kind::Sorted => {
                let cells = self.entry.into_iter().flat_map(|entry| entry.live(kind.role()));
                let copied = cells.filter_map(|(field, cell)| {
                    Some((field.clone(), cell.content.value()?.to_vec()))
                });
                copied.collect()
            }
        }
    }

    /// When the key ends, in milliseconds since 1970.
    pub(in crate::protocol) fn deadline(&self) -> Option<u64> {
        self.entry?.deadline()
    }

    /// The string, or the number that it and the counts come to.
    pub(in crate::protocol) fn text(&self) -> Option<Cow<'a, [u8]>> {
        let entry = self.entry?;
        let whole = entry.whole.as_ref().and_then(|cell| cell.content.value());
        if entry.fields.as_ref().is_none_or(|fields| fields.live(Role::Count) == 0) {
            return whole.map(Cow::Borrowed);
        }
        // A string that is no number, and a number from which others counted concurrently: what they
        // counted shows.
        let base = whole.and_then(operation::integer).unwrap_or(0);
        let counts = entry.live(Role::Count).filter_map(|(_, cell)| cell.content.value());
        let sum = counts.map(|value| i128::from(role::count_sum(value))).sum::<i128>();
        let sum = (sum + i128::from(base)).clamp(i64::MIN.into(), i64::MAX.into());
        Some(Cow::Owned(sum.to_string().into_bytes()))
    }

    /// What an origin has added, and from which stamp on.
    pub(in crate::protocol) fn count(&self, origin: Origin) -> Option<(i64, Stamp)> {
        let fields = self.entry?.fields.as_ref()?;
        let cell = fields.cells().get(role::count_field(origin).as_bytes())?;
        let value = cell.content.value()?;
        Some((role::count_sum(value), role::count_from(value, cell.stamp())))
    }

    /// The value of a field of a hash, or the bytes of a score.
    pub(in crate::protocol) fn value(&self, field: &Field) -> Option<&'a [u8]> {
        self.entry?.fields.as_ref()?.cells().get(field.as_bytes())?.content.value()
    }

    /// The dot of a cell with this name that has a value.
    pub(in crate::protocol) fn dot(&self, field: &Field) -> Option<Dot> {
        let cell = self.entry?.fields.as_ref()?.cells().get(field.as_bytes())?;
        cell.shows().then(|| cell.dot())
    }

    /// How many fields a hash has, elements a list, or members a sorted set; of a set how many cells, of
    /// which a member has one for each who added it.
    pub(in crate::protocol) fn count_of(&self, kind: Kind) -> usize {
        let fields = self.entry.and_then(|entry| entry.fields.as_ref());
        fields.map_or(0, |fields| fields.live(kind.role()))
    }

    /// The names and values of a hash or sorted set, in the order of the names.
    pub(in crate::protocol) fn named(
        &self,
        kind: Kind,
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let cells = self.entry.into_iter().flat_map(move |entry| entry.live(kind.role()));
        cells
            .filter_map(|(field, cell)| Some((role::name(field.as_bytes()), cell.content.value()?)))
    }

    /// The members of a set, each once.
    pub(in crate::protocol) fn members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let cells = self.entry.into_iter().flat_map(|entry| entry.live(Role::Set));
        let mut last = None;
        cells.filter_map(move |(field, _)| {
            let (member, _) = role::member(field.as_bytes())?;
            (last.replace(member) != Some(member)).then_some(member)
        })
    }

    /// How many members a set has.
    pub(in crate::protocol) fn set_size(&self) -> usize {
        let fields = self.entry.and_then(|entry| entry.fields.as_ref());
        fields.map_or(0, |fields| fields.members())
    }

    /// By whom a member of a set was added, as far as that shows, with the dots of the adds. The member
    /// is the one with these fields; see [`role::set_prefix`].
    pub(in crate::protocol) fn adds<'p>(
        &self,
        prefix: &'p [u8],
    ) -> impl Iterator<Item = (&'a Field, Dot)> + use<'a, 'p> {
        let fields = self.entry.and_then(|entry| entry.fields.as_deref());
        let adds = fields.into_iter().flat_map(|fields| fields.adds(prefix));
        adds.map(|(field, cell)| (field, cell.dot()))
    }

    /// The elements of a list, in their order.
    pub(in crate::protocol) fn elements(
        &self,
    ) -> impl DoubleEndedIterator<Item = (Place, &'a [u8])> + use<'a> {
        let cells = self.entry.into_iter().flat_map(|entry| entry.live(Role::List));
        cells.filter_map(|(field, cell)| {
            Some((role::place(field.as_bytes())?, cell.content.value()?))
        })
    }
}
