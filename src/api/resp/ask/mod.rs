//! What a client asks for: its words made into an operation.
//!
//! One function per command reads the arguments behind its name, whose number has been checked, and
//! one file per kind of value has those functions. They judge in Redis' order and with Redis' texts;
//! what depends on what a key holds is left to the operation. Times that a client gives relative to
//! now stay so, as in strong mode it is the log that says when that is.

pub(super) mod hashes;
pub(super) mod keys;
pub(super) mod lists;
pub(super) mod sets;
pub(super) mod sorted;
pub(super) mod text;

use std::fmt;

use super::parse::{Arguments, integer};
use crate::protocol::operation::{Ends, Expiry, Operation, Part, Refused, Word, float};
use crate::protocol::time::WallTime;

/// Makes an operation of a request.
#[derive(Clone, Copy)]
pub(super) struct Ask(pub(super) for<'a> fn(&Asked<'a>) -> Result<Operation<'a>, Misread>);

/// A request: the arguments, the command's name included, and when it came.
pub(super) struct Asked<'a> {
    pub(super) arguments: Arguments<'a>,
    pub(super) now: WallTime,
}

/// Why a request is no operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Misread {
    /// What an operation says as well.
    Refused(Refused),
    /// A text for this case alone.
    Text(&'static str),
    /// A time that is none, of the command.
    BadTime,
    /// The number of arguments depends on the others and is wrong.
    Arity,
    /// Not an option.
    Option(Vec<u8>),
}

impl From<Refused> for Misread {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Misread {
    /// What the client is told, for the command of that name.
    pub(super) fn text(&self, command: &str) -> Vec<u8> {
        match self {
            Self::Refused(refused) => refused.to_string().into_bytes(),
            Self::Text(text) => text.as_bytes().to_vec(),
            Self::BadTime => format!("ERR invalid expire time in '{command}' command").into_bytes(),
            Self::Arity => {
                format!("ERR wrong number of arguments for '{command}' command").into_bytes()
            }
            Self::Option(option) => {
                let shown = option.get(..128).unwrap_or(option);
                [b"ERR Unsupported option ", shown].concat()
            }
        }
    }
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ask")
    }
}

impl<'a> Asked<'a> {
    fn len(&self) -> usize {
        self.arguments.len()
    }

    fn word(&self, index: usize) -> Word<'a> {
        Word(self.arguments.at(index))
    }

    fn words(&self, from: usize) -> Vec<Word<'a>> {
        self.arguments.skip(from).iter().map(Word).collect()
    }

    fn integer(&self, index: usize) -> Result<i64, Misread> {
        Ok(integer(self.arguments.at(index)).ok_or(Refused::NotInteger)?)
    }

    fn float(&self, index: usize) -> Result<f64, Misread> {
        Ok(float(self.arguments.at(index)).ok_or(Refused::NotFloat)?)
    }

    /// A count that is not negative.
    fn positive(&self, index: usize) -> Result<u64, Misread> {
        let number = integer(self.arguments.at(index)).and_then(|it| u64::try_from(it).ok());
        number.ok_or(Misread::Text("ERR value is out of range, must be positive"))
    }

    /// How many elements are wanted at random: negative if one may come more than once. Twice as many
    /// replies must still be a number, if each has a value beside it.
    fn random_count(&self, index: usize, in_pairs: bool) -> Result<i64, Misread> {
        let count = self.integer(index)?;
        if count == i64::MIN {
            return Err(Misread::Text(
                "ERR value is out of range, value must between -9223372036854775807 and \
                 9223372036854775807",
            ));
        }
        if in_pairs && count.unsigned_abs() > i64::MAX as u64 / 2 {
            return Err(Misread::Text("ERR value is out of range"));
        }
        Ok(count)
    }

    /// An option as clients may write it, in either case.
    fn is(&self, index: usize, option: &str) -> bool {
        self.arguments.get(index).is_some_and(|it| it.eq_ignore_ascii_case(option.as_bytes()))
    }

    /// The pairs from an argument on.
    fn pairs(&self, from: usize) -> Result<Vec<(Word<'a>, Word<'a>)>, Misread> {
        if self.len() <= from || !(self.len() - from).is_multiple_of(2) {
            return Err(Misread::Arity);
        }
        Ok((from..self.len()).step_by(2).map(|at| (self.word(at), self.word(at + 1))).collect())
    }

    /// `numkeys key [key ...]` from an argument on, and where it goes on.
    fn counted_keys(&self, at: usize) -> Result<(Vec<Word<'a>>, usize), Misread> {
        let count = integer(self.arguments.at(at)).and_then(|it| usize::try_from(it).ok());
        let count = count.filter(|count| *count > 0);
        let count = count.ok_or(Misread::Text("ERR numkeys should be greater than 0"))?;
        if count > self.len() - at - 1 {
            return Err(Misread::Text("ERR Number of keys can't be greater than number of args"));
        }
        Ok(((at + 1..=at + count).map(|at| self.word(at)).collect(), at + 1 + count))
    }

    /// `cursor [MATCH pattern] [COUNT count]` from an argument on.
    fn part(&self, at: usize) -> Result<Part<'a>, Misread> {
        let cursor = std::str::from_utf8(self.arguments.at(at)).ok().and_then(|it| it.parse().ok());
        let cursor = cursor.ok_or(Misread::Text("ERR invalid cursor"))?;
        let mut part = Part { cursor, count: 10, pattern: None };
        for at in (at + 1..self.len()).step_by(2) {
            if at + 1 == self.len() {
                return Err(Refused::Syntax.into());
            } else if self.is(at, "match") {
                if self.arguments.at(at + 1).len() > super::settings::PATTERN_BYTES_MAX {
                    return Err(Misread::Text("ERR the pattern is too long"));
                }
                part.pattern = Some(self.word(at + 1));
            } else if self.is(at, "count") {
                let count = self.integer(at + 1)?;
                part.count =
                    u64::try_from(count).ok().filter(|it| *it > 0).ok_or(Refused::Syntax)?;
            } else {
                return Err(Refused::Syntax.into());
            }
        }
        Ok(part)
    }

    /// A time in seconds or milliseconds, from now or from 1970.
    fn time(&self, index: usize, unit: &Unit) -> Result<Ends, Misread> {
        let number = self.integer(index)?;
        let milliseconds = if unit.seconds { number.checked_mul(1_000) } else { Some(number) };
        let milliseconds = milliseconds.ok_or(Misread::BadTime)?;
        let now = i64::try_from(self.now.0).unwrap_or(i64::MAX);
        match unit.absolute {
            true => Ok(Ends::At(milliseconds)),
            false if milliseconds.checked_add(now).is_none() => Err(Misread::BadTime),
            false => Ok(Ends::After(milliseconds)),
        }
    }

    /// A time to which a value is set, which Redis wants to be positive.
    fn deadline(&self, index: usize, unit: &Unit) -> Result<Expiry, Misread> {
        match self.integer(index)? {
            ..=0 => Err(Misread::BadTime),
            _ => self.time(index, unit).map(Expiry::Ends),
        }
    }
}

/// What a client's time means.
struct Unit {
    seconds: bool,
    absolute: bool,
}

impl Unit {
    /// EX, PX, EXAT and PXAT.
    fn of(option: &[u8]) -> Option<Self> {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        let (seconds, absolute) = (is("ex") || is("exat"), is("exat") || is("pxat"));
        (seconds || absolute || is("px")).then_some(Self { seconds, absolute })
    }
}
