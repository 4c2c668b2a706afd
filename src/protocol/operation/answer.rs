//! What a client is told.
//!
//! An [`Answer`] is a value of its own: the door writes it in either version of the Redis protocol,
//! a program that embeds a peer matches on it, and the replicated log may carry it. [`Refused`] has
//! Redis' own text where Redis has the case, because clients look into it.

use serde::{Deserialize, Serialize};

/// The answer to an operation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Ok,
    /// Nothing, where a string could have been.
    Nil,
    /// Nothing, where an array could have been.
    NilArray,
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Double(f64),
    /// A short word, such as a type's name.
    Status(String),
    /// Bytes.
    Bulk(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Several answers in an order.
    Array(Vec<Answer>),
    /// Keys with their values, one behind the other.
    Map(Vec<Answer>),
    /// Pairs of answers, one behind the other.
    Pairs(Vec<Answer>),
    /// Several answers without an order.
    Set(Vec<Answer>),
    /// Not done.
    Refused(Refused),
}

/// Why an operation was not done; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The key holds another kind of value.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongKind,
    /// Not a number of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// The field of a hash is not a number of 64 bits.
    #[error("ERR hash value is not an integer")]
    HashNotInteger,
    /// Not a number with a fraction.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The field of a hash is not a number with a fraction.
    #[error("ERR hash value is not a float")]
    HashNotFloat,
    /// The sum leaves 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The sum is no number any more.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// A score is no number any more.
    #[error("ERR resulting score is not a number (NaN)")]
    NotScore,
    /// There is no such key.
    #[error("ERR no such key")]
    NoKey,
    /// There is no such element.
    #[error("ERR index out of range")]
    NoIndex,
    /// Redis' bound on strings, which also bounds offsets.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// A negative offset.
    #[error("ERR offset is out of range")]
    BadOffset,
    /// Source and destination are one.
    #[error("ERR source and destination objects are the same")]
    SameKey,
    /// The command does not read that way.
    #[error("ERR syntax error")]
    Syntax,
    /// One of the keys belongs to the store itself.
    #[error("ERR reserved: keys that begin with \\0quorumor belong to the store itself")]
    Reserved,
    /// A name is longer than a cell may have.
    #[error("ERR too large: a field or member may take about 65,500 bytes")]
    NameTooLong,
    /// A key that was watched has changed.
    #[error("EXECABORT Transaction discarded because a watched key has changed.")]
    Changed,
    /// The meaning needs an order between peers.
    #[error("NEEDSSTRONG it {}", .0.text())]
    NeedsOrder(Why),
    /// There is nothing in a position.
    #[error("ERR the reply would be longer than allowed; ask for less at a time")]
    TooMuch,
    /// Nobody counts how often a key is used.
    #[error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
         switching between policies at runtime LRU and LFU data will take some time to adjust."
    )]
    NoFrequency,
    /// Nobody notes when a key is used.
    #[error("ERR idle time not tracked: a read leaves no trace here, and nothing is evicted")]
    NoIdleTime,
}

/// Why a command needs an order between peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Why {
    /// Its outcome depends on what the key holds.
    Condition,
    /// It answers a count that must include every increment so far.
    Count,
    /// It gives one element to exactly one client.
    Take,
    /// It makes several commands one.
    Together,
    /// It names elements by where they stand.
    Position,
}

impl Answer {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Bulk(bytes) => bytes.len() + 16,
            Self::Array(all) | Self::Set(all) | Self::Map(all) | Self::Pairs(all) => {
                16 + all.iter().map(Self::bytes).sum::<usize>()
            }
            _ => 16,
        }
    }
}

impl Why {
    /// What could go wrong, as the rest of a sentence that begins with the command.
    pub fn text(self) -> &'static str {
        match self {
            Self::Condition => {
                "decides by what the key holds now, and two peers could decide differently at the \
                 same time"
            }
            Self::Count => {
                "answers an exact count, and two peers could give the same number at the same time"
            }
            Self::Take => {
                "gives an element to one client only, and two peers could give it away at the same \
                 time"
            }
            Self::Together => {
                "makes several commands one, and another peer's writes could fall between them"
            }
            Self::Position => {
                "names an element by where it stands, and another peer's elements could come before \
                 it at the same time"
            }
        }
    }
}

impl Answer {
    /// A number of things.
    pub fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// One for true, zero for false.
    pub fn flag(truth: bool) -> Self {
        Self::Integer(truth.into())
    }

    /// Bytes.
    pub fn bulk(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bulk(bytes.as_ref().to_vec())
    }

    /// Bytes, or nothing.
    pub fn bulk_or_nil(bytes: Option<impl AsRef<[u8]>>) -> Self {
        bytes.map_or(Self::Nil, Self::bulk)
    }

    /// Byte strings in an order.
    pub fn bulks<T: AsRef<[u8]>>(all: impl IntoIterator<Item = T>) -> Self {
        Self::Array(all.into_iter().map(Self::bulk).collect())
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}
