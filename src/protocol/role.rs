//! What the cells of a key are for: the names of fields.
//!
//! The first byte of a field says what its cell is for, its *role*; the rest is a name within it. The
//! cell without a field is the string of the key, or the deletion of all that is older.
//!
//! | field | value | role |
//! |---|---|---|
//! | (empty) | bytes | the string |
//! | `d` | milliseconds since 1970, 8 bytes | the deadline of the key |
//! | `c` origin | sum, 8 bytes; the stamp from which it counts, 20 bytes or none | what an origin added to the number |
//! | `h` name | bytes | a field of a hash |
//! | `s` length (2 bytes) member origin | empty | a member of a set, as added by an origin |
//! | `l` number (8) origin (8) place (4) | bytes | an element of a list |
//! | `z` member | score, 8 bytes | a member of a sorted set |
//!
//! Numbers are big-endian, and signed ones have their sign turned, so that the order of the fields is
//! that of the numbers: a list lies in its order.
//!
//! Two roles have rules of their own for what prevails:
//! - *Counts* are covered by a string or deletion that is above the stamp from which they count, and
//!   not above their own stamp. A sum that an origin began before a SET is thereby covered as a whole.
//! - *Members* of sets: a cell belongs to one adding origin, and a removal is a tombstone in it. Of two
//!   versions the one prevails that knows the later add of that origin, then the removal, then the
//!   stamp. So an add that a remover had not seen stands, whatever the stamps. What a removal had seen
//!   is told by [`super::cell::Seen`], which goes with it anyhow.
//!
//! Keys of the store's owner have fields of their own kind, which are no roles.
//!
//! Journals and messages hold these bytes: to change the table is to change their versions.

use super::cell::{Field, KEY_BYTES_MAX};
use super::id::Origin;
use super::stamp::{Epoch, Lamport, Stamp};

const DEADLINE: u8 = b'd';
const COUNT: u8 = b'c';
const HASH: u8 = b'h';
const SET: u8 = b's';
const LIST: u8 = b'l';
const SORTED: u8 = b'z';

/// The bytes of an origin in a field.
const ORIGIN_BYTES: usize = 8;

/// The longest name of a member or of a hash's field: what is left of a field.
pub(super) const NAME_BYTES_MAX: usize = KEY_BYTES_MAX - 16;

/// What a cell with a field is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    /// Holds the key's deadline.
    Deadline,
    /// Adds to the number in the string.
    Count,
    /// Is a field of a hash.
    Hash,
    /// Is a member of a set.
    Set,
    /// Is an element of a list.
    List,
    /// Is a member of a sorted set.
    Sorted,
    /// None that this version knows.
    Other,
}

/// How many roles there are.
pub(super) const ROLES: usize = 7;

/// Where an element of a list stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// What orders pushes one after the other.
    pub(super) number: i64,
    /// Who pushed: the order of pushes that did not know of each other.
    pub(super) origin: Origin,
    /// Which of the elements of one push.
    pub(super) index: u32,
}

impl Role {
    /// The role of a field of a client's key.
    pub(super) fn of(field: &[u8]) -> Self {
        match (field.first(), field.len()) {
            (Some(&DEADLINE), 1) => Self::Deadline,
            (Some(&COUNT), 9) => Self::Count,
            (Some(&HASH), _) => Self::Hash,
            (Some(&SET), _) if member(field).is_some() => Self::Set,
            (Some(&LIST), 21) => Self::List,
            (Some(&SORTED), _) => Self::Sorted,
            _ => Self::Other,
        }
    }

    /// Where it is counted.
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// What the names of fields in this role begin with.
    fn first(self) -> u8 {
        match self {
            Self::Deadline => DEADLINE,
            Self::Count => COUNT,
            Self::Hash => HASH,
            Self::Set => SET,
            Self::List => LIST,
            Self::Sorted | Self::Other => SORTED,
        }
    }

    /// The bounds of the names of fields in this role: the least, and the next that is none of them.
    pub(super) fn range(self) -> ([u8; 1], [u8; 1]) {
        ([self.first()], [self.first() + 1])
    }
}

fn joined(role: u8, parts: &[&[u8]]) -> Field {
    let mut bytes = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    bytes.push(role);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Field::from(bytes)
}

/// The name of the field with the deadline.
pub(super) const DEADLINE_NAME: [u8; 1] = [DEADLINE];

/// The field with the deadline.
pub(super) fn deadline_field() -> Field {
    Field::new(&DEADLINE_NAME)
}

/// The field with what an origin added.
pub(super) fn count_field(origin: Origin) -> Field {
    joined(COUNT, &[&origin.0.to_be_bytes()])
}

/// The field of a hash with this name.
pub(super) fn hash_field(name: &[u8]) -> Field {
    joined(HASH, &[name])
}

/// The member of a sorted set with this name.
pub(super) fn sorted_field(member: &[u8]) -> Field {
    joined(SORTED, &[member])
}

/// The name in a field of a hash or a sorted set.
pub(super) fn name(field: &[u8]) -> &[u8] {
    field.get(1..).unwrap_or_default()
}

/// The member of a set, as added by an origin. No member is longer than [`NAME_BYTES_MAX`].
pub(super) fn set_field(member: &[u8], origin: Origin) -> Field {
    let length = u16::try_from(member.len()).unwrap_or(u16::MAX);
    joined(SET, &[&length.to_be_bytes(), member, &origin.0.to_be_bytes()])
}

/// What the fields of a member of a set have in common: they are this and an origin.
pub(super) fn set_prefix(member: &[u8]) -> Vec<u8> {
    let length = u16::try_from(member.len()).unwrap_or(u16::MAX);
    [&[SET], &length.to_be_bytes()[..], member].concat()
}

/// The same of a field of a member of a set.
pub(super) fn set_prefix_of(field: &[u8]) -> &[u8] {
    field.get(..field.len().saturating_sub(ORIGIN_BYTES)).unwrap_or_default()
}

/// Whether a field is one of the member with this prefix.
pub(super) fn has_set_prefix(field: &[u8], prefix: &[u8]) -> bool {
    field.len() == prefix.len() + ORIGIN_BYTES && field.starts_with(prefix)
}

/// The member and the adding origin in a field of a set.
pub(super) fn member(field: &[u8]) -> Option<(&[u8], Origin)> {
    let (length, rest) = field.get(1..)?.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (member, origin) = rest.split_at_checked(length)?;
    Some((member, Origin(u64::from_be_bytes(origin.try_into().ok()?))))
}

/// The field of an element of a list.
pub(super) fn list_field(place: Place) -> Field {
    let number = (place.number as u64) ^ (1 << 63);
    let Place { origin, index, .. } = place;
    joined(LIST, &[&number.to_be_bytes(), &origin.0.to_be_bytes(), &index.to_be_bytes()])
}

/// Where the element of a field stands.
pub(super) fn place(field: &[u8]) -> Option<Place> {
    let (number, rest) = field.get(1..)?.split_first_chunk::<8>()?;
    let (origin, rest) = rest.split_first_chunk::<ORIGIN_BYTES>()?;
    Some(Place {
        number: (u64::from_be_bytes(*number) ^ (1 << 63)) as i64,
        origin: Origin(u64::from_be_bytes(*origin)),
        index: u32::from_be_bytes(rest.try_into().ok()?),
    })
}

/// The bytes of a deadline, in milliseconds since 1970.
pub(super) fn deadline_value(milliseconds: u64) -> [u8; 8] {
    milliseconds.to_be_bytes()
}

/// The deadline in the bytes of a cell; bytes that are none never pass.
pub(super) fn deadline(value: &[u8]) -> u64 {
    value.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// The bytes of a count: the sum, and from which stamp it counts; without one from the cell's own.
pub(super) fn count_value(sum: i64, from: Option<Stamp>) -> Vec<u8> {
    let mut bytes = sum.to_be_bytes().to_vec();
    if let Some(from) = from {
        bytes.extend(from.epoch.0.to_be_bytes());
        bytes.extend(from.lamport.0.to_be_bytes());
        bytes.extend(from.origin.0.to_be_bytes());
    }
    bytes
}

/// The sum in the bytes of a count.
pub(super) fn count_sum(value: &[u8]) -> i64 {
    value.first_chunk::<8>().map_or(0, |sum| i64::from_be_bytes(*sum))
}

/// From which stamp a count counts; `own` is that of its cell, and is never exceeded.
pub(super) fn count_from(value: &[u8], own: Stamp) -> Stamp {
    let from = value.get(8..).filter(|rest| rest.len() == 20).and_then(|rest| {
        let (epoch, rest) = rest.split_first_chunk::<4>()?;
        let (lamport, rest) = rest.split_first_chunk::<8>()?;
        Some(Stamp {
            epoch: Epoch(u32::from_be_bytes(*epoch)),
            lamport: Lamport(u64::from_be_bytes(*lamport)),
            origin: Origin(u64::from_be_bytes(rest.try_into().ok()?)),
        })
    });
    from.map_or(own, |from| from.min(own))
}

/// The bytes of a score.
pub(super) fn score_value(score: f64) -> [u8; 8] {
    score.to_bits().to_be_bytes()
}

/// The score in the bytes of a cell.
pub(super) fn score(value: &[u8]) -> f64 {
    value.try_into().map_or(0.0, |bytes| f64::from_bits(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is put into a field is read from it, and the order of the fields is that of the numbers.
    #[test]
    fn fields_say_what_they_are() {
        let place = |number, index| Place { number, origin: Origin(7), index };
        let numbers = [i64::MIN, -3, -1, 0, 1, 500, i64::MAX];
        let fields = numbers.map(|number| list_field(place(number, 2)));
        assert!(fields.is_sorted());
        for (number, field) in numbers.into_iter().zip(&fields) {
            assert_eq!(super::place(field.as_bytes()), Some(place(number, 2)));
            assert_eq!(Role::of(field.as_bytes()), Role::List);
        }
        let field = set_field(b"", Origin(3));
        assert_eq!(member(field.as_bytes()), Some((&b""[..], Origin(3))));
        let field = set_field(b"xyz", Origin(u64::MAX));
        assert_eq!(member(field.as_bytes()), Some((&b"xyz"[..], Origin(u64::MAX))));
        assert_eq!(Role::of(field.as_bytes()), Role::Set);
        assert_eq!(Role::of(hash_field(b"").as_bytes()), Role::Hash);
        assert_eq!(Role::of(deadline_field().as_bytes()), Role::Deadline);
        assert_eq!(Role::of(count_field(Origin(1)).as_bytes()), Role::Count);
    }

    /// A count says from where it counts, and never from after its own stamp.
    #[test]
    fn a_count_says_from_where_it_counts() {
        let stamp =
            |lamport| Stamp { epoch: Epoch(1), lamport: Lamport(lamport), origin: Origin(2) };
        let value = count_value(-5, Some(stamp(8)));
        assert_eq!((count_sum(&value), count_from(&value, stamp(9))), (-5, stamp(8)));
        assert_eq!(count_from(&value, stamp(7)), stamp(7));
        assert_eq!(count_from(&count_value(1, None), stamp(7)), stamp(7));
    }
}
