//! Digests: a version vector on the wire, and its hash for when nothing differs.

use std::fmt;

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::version::VersionVector;

/// The hash of a version vector; equal vectors have equal hashes.
///
/// Two different vectors are mistaken for equal once in 2⁶⁴; the next write changes both hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct DigestHash(u64);

/// What the sender of a message holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest(pub VersionVector);

impl DigestHash {
    /// The hash of `vector`.
    pub fn of(vector: &VersionVector) -> Self {
        let mut hash = vector.len() as u64;
        for (origin, held) in vector.iter() {
            hash = mix(hash, origin.0);
            for &(first, last) in held.ranges() {
                hash = mix(mix(hash, first), last);
            }
        }
        Self(hash)
    }
}

/// Chains one number into a hash.
fn mix(hash: u64, number: u64) -> u64 {
    XxHash3_64::oneshot_with_seed(hash, &number.to_le_bytes())
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
