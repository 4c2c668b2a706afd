//! Digests: a version vector on the wire, and its hash for when nothing differs.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::version::VersionVector;

/// The hash of a version vector; equal vectors have equal hashes.
///
/// Two different vectors are mistaken for equal once in 2⁶⁴; the next write changes both hashes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct DigestHash(u64);

/// What the sender of a message holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest(pub VersionVector);

impl DigestHash {
    /// The hash of `vector`: of all its numbers in one piece, which takes a fraction of the time of
    /// hashing them one by one.
    pub fn of(vector: &VersionVector) -> Self {
        let mut bytes = Vec::with_capacity(8 * (2 * vector.len() + 2 * vector.ranges()));
        let mut add = |number: u64| bytes.extend_from_slice(&number.to_le_bytes());
        for (origin, held) in vector.iter() {
            add(origin.0);
            // Tells where the ranges of this origin end and the next origin begins.
            add(held.ranges().len() as u64);
            held.ranges().iter().for_each(|&(first, last)| {
                add(first);
                add(last);
            });
        }
        Self(XxHash3_64::oneshot(&bytes))
    }
}

impl fmt::Display for DigestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for DigestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "digest hash {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::id::Origin;
    use crate::protocol::stamp::Dot;

    #[test]
    fn equal_vectors_hash_alike_and_others_do_not() {
        let dots = [(1, 1), (1, 2), (1, 4), (2, 1)].map(|(o, seq)| Dot { origin: Origin(o), seq });
        let mut forward = VersionVector::default();
        let mut backward = VersionVector::default();
        dots.iter().for_each(|dot| assert!(forward.insert(*dot)));
        dots.iter().rev().for_each(|dot| assert!(backward.insert(*dot)));
        assert_eq!(DigestHash::of(&forward), DigestHash::of(&backward));
        backward.insert(Dot { origin: Origin(1), seq: 3 });
        assert_ne!(DigestHash::of(&forward), DigestHash::of(&backward));
        assert_ne!(DigestHash::of(&VersionVector::default()), DigestHash::of(&forward));
    }
}
