//! Operations: a client's command on keys, and the one function that makes cells of it.
//!
//! [`execute`] takes what a client asks for and what the keys show, and answers which cells are to be
//! written and what the client is told. Both modes call it: in eventual mode each node for its own
//! clients, in strong mode every replica for every entry of the replicated log, of which an entry is
//! exactly one encoded operation ([`Operation::encode`]) with its [`Moment`].
//!
//! What must stay true:
//! - It depends on its arguments and on what the keys show: on cells that have a value, never on
//!   tombstones, which one replica may have collected already, and on nothing that only one node
//!   knows. In strong mode it does not depend on the node either.
//! - What would differ from replica to replica was decided by whoever proposed the operation: the time
//!   and the dice are in the [`Moment`].
//! - In strong mode a command means what Redis means. In eventual mode the commands that
//!   [`Operation::needs_order`] names are refused, and the others write such cells that merging them
//!   loses no update that need not be lost.
//! - What one mode has written the other reads: the modes differ in which cells they write and not in
//!   what cells mean. A number, for example, is a string plus what origins have counted since: strong
//!   mode writes only the string.
//! - A refused operation changes nothing.
//!
//! One file for each kind of value, with its operations and what they do; `desk` is where they read
//! and write. Names and options as clients send them are the affair of the door.

mod answer;
mod desk;
mod hashes;
mod keys;
#[cfg(test)]
mod laws;
mod lists;
mod number;
mod part;
mod perform;
mod sets;
mod sorted;
mod text;

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::cell::CellWrite;
use super::codec::DEPTH_MAX;
use super::id::Origin;
use super::stamp::Dot;
use super::store::{Reader, Store};
use super::time::WallTime;
pub use answer::{Answer, Refused, Why};
use desk::Desk;
pub use hashes::Hash;
pub use keys::{Ends, Inside, Keys, Only};
pub use lists::{End, Lists};
pub use number::{float, integer};
pub use part::Part;
pub use sets::{Combine, Sets};
pub use sorted::{By, Name, Score, Sorted, Toward};
pub use text::{Expiry, Text, When};

/// The longest string that an operation makes: Redis' bound is half a gigabyte, ours is a cell's.
pub const TEXT_BYTES_MAX: usize = super::cell::VALUE_BYTES_MAX;

/// The most operations in one batch: many times what a client sends between MULTI and EXEC.
pub const BATCH_MAX: usize = 65_536;

/// One argument of an operation: bytes that somebody else owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word<'a>(#[serde(borrow, with = "serde_bytes")] pub &'a [u8]);

/// A client's command on keys.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Operation<'a> {
    /// On keys of any kind.
    Keys(#[serde(borrow)] Keys<'a>),
    /// On strings.
    Text(#[serde(borrow)] Text<'a>),
    /// On hashes.
    Hash(#[serde(borrow)] Hash<'a>),
    /// On sets.
    Sets(#[serde(borrow)] Sets<'a>),
    /// On lists.
    Lists(#[serde(borrow)] Lists<'a>),
    /// On sorted sets.
    Sorted(#[serde(borrow)] Sorted<'a>),
    /// Several operations as one: nothing comes between them.
    Batch {
        /// Keys that must be as they were: their versions when the client began to watch them.
        #[serde(borrow)]
        watched: Vec<(Word<'a>, Version)>,
        /// The operations, none of them a batch.
        #[serde(borrow)]
        operations: Vec<Operation<'a>>,
    },
}

/// What a key held at some time: equal versions hold equal cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Version(pub u64);

/// All that an operation depends on beside the keys, decided by whoever proposes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The time.
    pub wall: WallTime,
    /// Decides everything random.
    pub dice: u64,
}

/// How writes are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Every peer accepts writes; they are merged.
    #[default]
    Eventual,
    /// One replicated log orders them.
    Strong,
}

/// A word that names no [`Mode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a consistency mode: expected eventual or strong")]
pub struct ParseModeError {
    text: String,
}

impl FromStr for Mode {
    type Err = ParseModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "eventual" => Ok(Self::Eventual),
            "strong" => Ok(Self::Strong),
            _ => Err(ParseModeError { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eventual => "eventual",
            Self::Strong => "strong",
        })
    }
}

/// What comes of an operation.
#[derive(Clone, PartialEq, Debug)]
pub struct Executed {
    /// The cells to be written as one write; none if nothing changes.
    pub cells: Vec<CellWrite>,
    /// What the client is told once they are written.
    pub answer: Answer,
    /// The last of the dots by which the writer has done before what it is asked to do; see
    /// [`Writer::unsaid`].
    pub stands: Option<Dot>,
}

/// Who writes the cells that come of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    /// This node's origin in eventual mode, the log's in strong mode.
    pub origin: Origin,
    /// The dots with this number and above are known to nobody else yet. No removal can have seen an
    /// add among them, so to add that member again changes nothing.
    pub unsaid: u64,
}

impl From<Origin> for Writer {
    /// Whose dots may all be known.
    fn from(origin: Origin) -> Self {
        Self { origin, unsaid: u64::MAX }
    }
}

/// Why bytes are no operation.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not what an operation looks like.
    #[error("an operation cannot be decoded: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Something follows it.
    #[error("an operation is followed by bytes that do not belong to it")]
    Surplus,
    /// A batch within a batch, or one that is too long.
    #[error("a batch of operations that no client can have asked for")]
    Batch,
}

impl Deref for Word<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl Borrow<[u8]> for Word<'_> {
    fn borrow(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for Word<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl<'a> From<&'a [u8]> for Word<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> From<&'a str> for Word<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> Operation<'a> {
    /// Whether it may change keys.
    pub fn is_write(&self) -> bool {
        match self {
            Self::Keys(operation) => operation.is_write(),
            Self::Text(operation) => operation.is_write(),
            Self::Hash(operation) => operation.is_write(),
            Self::Sets(operation) => operation.is_write(),
            Self::Lists(operation) => operation.is_write(),
            Self::Sorted(operation) => operation.is_write(),
            Self::Batch { operations, .. } => operations.iter().any(Self::is_write),
        }
    }

    /// Why eventual mode refuses it, if it does.
    pub fn needs_order(&self) -> Option<Why> {
        match self {
            Self::Keys(operation) => operation.needs_order(),
            Self::Text(operation) => operation.needs_order(),
            Self::Hash(operation) => operation.needs_order(),
            Self::Sets(operation) => operation.needs_order(),
            Self::Lists(operation) => operation.needs_order(),
            Self::Sorted(operation) => operation.needs_order(),
            Self::Batch { watched, operations } => match watched.is_empty() {
                true => operations.iter().find_map(Self::needs_order),
                false => Some(Why::Together),
            },
        }
    }

    /// The keys that it names.
    pub fn keys(&self) -> Vec<Word<'a>> {
        match self {
            Self::Keys(operation) => operation.keys(),
            Self::Text(operation) => operation.keys(),
            Self::Hash(operation) => vec![operation.key()],
            Self::Sets(operation) => operation.keys(),
            Self::Lists(operation) => operation.keys(),
            Self::Sorted(operation) => operation.keys(),
            Self::Batch { watched, operations } => {
                let watched = watched.iter().map(|(key, _)| *key);
                watched.chain(operations.iter().flat_map(Self::keys)).collect()
            }
        }
    }

    /// Whether it reads more than the keys that it names.
    pub(in crate::protocol) fn needs_store(&self) -> bool {
        match self {
            Self::Keys(operation) => operation.needs_store(),
            Self::Batch { operations, .. } => operations.iter().any(Self::needs_store),
            _ => false,
        }
    }

    /// The bytes of an operation, as an entry of the log has them.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut serializer = rmp_serde::Serializer::new(&mut bytes);
        self.serialize(&mut serializer).expect("an operation in memory can be encoded");
        bytes
    }

    /// The operation that `bytes` are, which it borrows from.
    ///
    /// # Errors
    /// When the bytes are not exactly one operation. Memory is taken only for what is there.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
        deserializer.set_max_depth(DEPTH_MAX);
        let operation = Self::deserialize(&mut deserializer)?;
        // The decoder does not say how far it has come, but reading on must find the end.
        if !matches!(
            u8::deserialize(&mut deserializer),
            Err(rmp_serde::decode::Error::InvalidMarkerRead(_))
        ) {
            return Err(DecodeError::Surplus);
        }
        match &operation {
            Self::Batch { operations, .. }
                if operations.len() > BATCH_MAX
                    || operations.iter().any(|it| matches!(it, Self::Batch { .. })) =>
            {
                Err(DecodeError::Batch)
            }
            _ => Ok(operation),
        }
    }
}

/// Executes an operation: which cells come of it, and what the client is told.
///
/// Writes that would be empty, or that an answer refuses, have no cells.
pub fn execute(
    store: &Store,
    operation: &Operation<'_>,
    moment: Moment,
    mode: Mode,
    writer: Writer,
) -> Executed {
    let mut desk = Desk::new(store.reader(), Some(store), moment, mode, writer);
    let answer = perform(&mut desk, operation);
    let (cells, stands) = desk.into_cells();
    match cells.iter().any(|cell| cell.key.is_reserved()) {
        false => Executed { cells, answer, stands },
        true => Executed { cells: Vec::new(), answer: Refused::Reserved.into(), stands: None },
    }
}

/// Answers an operation that only reads, past the shard. One that needs more than the keys it names,
/// as a scan does, answers [`None`] and goes through [`execute`], as one that writes does.
pub fn read(reader: &Reader, operation: &Operation<'_>, moment: Moment) -> Option<Answer> {
    if operation.is_write() || operation.needs_store() {
        return None;
    }
    let mut desk = Desk::new(reader, None, moment, Mode::Strong, Origin(0).into());
    Some(perform(&mut desk, operation))
}

/// Answers an operation that only reads; one that writes changes nothing.
pub fn look(store: &Store, operation: &Operation<'_>, moment: Moment) -> Answer {
    let read = read(store.reader(), operation, moment);
    read.unwrap_or_else(|| execute(store, operation, moment, Mode::Strong, Origin(0).into()).answer)
}

fn perform(desk: &mut Desk<'_>, operation: &Operation<'_>) -> Answer {
    if desk.mode() == Mode::Eventual
        && let Some(why) = operation.needs_order()
    {
        return Refused::NeedsOrder(why).into();
    }
    perform_allowed(desk, operation).unwrap_or_else(Answer::Refused)
}

fn perform_allowed(desk: &mut Desk<'_>, operation: &Operation<'_>) -> Result<Answer, Refused> {
    match operation {
        Operation::Keys(operation) => operation.perform(desk),
        Operation::Text(operation) => operation.perform(desk),
        Operation::Hash(operation) => operation.perform(desk),
        Operation::Sets(operation) => operation.perform(desk),
        Operation::Lists(operation) => operation.perform(desk),
        Operation::Sorted(operation) => operation.perform(desk),
        Operation::Batch { watched, operations } => {
            let as_it_was = |(key, version): &(Word<'_>, Version)| desk.version(key) == *version;
            if !watched.iter().all(as_it_was) {
                return Ok(Answer::NilArray);
            }
            desk.stage();
            // An operation that is refused changes nothing, and the others go on, as in Redis.
            let answers = operations
                .iter()
                .map(|operation| perform_allowed(desk, operation).unwrap_or_else(Answer::Refused));
            Ok(Answer::Array(answers.collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stamp::{Epoch, Lamport, Stamp};

    /// A store that one origin writes, one operation after the other.
    struct One {
        store: Store,
        lamport: u64,
        mode: Mode,
    }

    impl One {
        fn new(mode: Mode) -> Self {
            Self { store: Store::new(1), lamport: 0, mode }
        }

        fn at(&mut self, wall: u64, operation: impl Into<Operation<'static>>) -> Answer {
            let moment = Moment { wall: WallTime(wall), dice: 7 };
            let bytes = operation.into().encode();
            let operation = Operation::decode(&bytes).unwrap();
            let executed = execute(&self.store, &operation, moment, self.mode, Origin(1).into());
            let first = self.lamport + 1;
            self.lamport += executed.cells.len() as u64;
            let lamport = Lamport(self.lamport);
            let stamp = Stamp { epoch: Epoch(0), lamport, origin: Origin(1) };
            for (seq, cell) in (first..).zip(executed.cells) {
                self.store.merge(stamp, seq, cell);
            }
            executed.answer
        }
    }

    fn set(key: &'static str, value: &'static str, expiry: Expiry) -> Operation<'static> {
        let (key, value) = (key.into(), value.into());
        Operation::Text(Text::Set { key, value, expiry, when: When::Always, get: false })
    }

    fn get(key: &'static str) -> Operation<'static> {
        Operation::Text(Text::Get(key.into()))
    }

    fn incr(key: &'static str) -> Operation<'static> {
        Operation::Text(Text::Add { key: key.into(), by: 1 })
    }

    /// A key past its deadline shows nothing, and what is written then begins anew.
    #[test]
    fn a_deadline_passes_by_the_moment_alone() {
        for mode in [Mode::Eventual, Mode::Strong] {
            let mut one = One::new(mode);
            assert_eq!(one.at(0, set("k", "5", Expiry::Ends(Ends::At(100)))), Answer::Ok);
            assert_eq!(one.at(50, incr("k")), Answer::Integer(6));
            assert_eq!(one.at(99, get("k")), Answer::bulk("6"));
            assert_eq!(one.at(100, get("k")), Answer::Nil);
            assert_eq!(
                one.at(100, Operation::Keys(Keys::Delete(vec!["k".into()]))),
                Answer::Integer(0)
            );
            assert_eq!(one.at(100, incr("k")), Answer::Integer(1));
            let left = Keys::TimeToLive { key: "k".into(), milliseconds: true };
            assert_eq!(one.at(100, Operation::Keys(left)), Answer::Integer(-1));
        }
    }

    /// What an operation of a batch writes the next one sees, and it is all one write.
    #[test]
    fn a_batch_sees_itself() {
        for mode in [Mode::Eventual, Mode::Strong] {
            let mut one = One::new(mode);
            let add = |members: &[&'static str]| {
                let members = members.iter().map(|member| Word::from(*member)).collect();
                Operation::Sets(Sets::Add("s".into(), members))
            };
            one.at(0, add(&["a"]));
            let operations = vec![
                set("k", "1", Expiry::None),
                incr("k"),
                add(&["b", "c"]),
                Operation::Sets(Sets::Remove("s".into(), vec!["a".into(), "b".into()])),
                Operation::Sets(Sets::Members("s".into())),
                Operation::Lists(Lists::Length("s".into())),
                Operation::Keys(Keys::Delete(vec!["k".into()])),
                incr("k"),
            ];
            let answer = one.at(0, Operation::Batch { watched: Vec::new(), operations });
            let members = Answer::Set(vec![Answer::bulk("c")]);
            assert_eq!(
                answer,
                Answer::Array(vec![
                    Answer::Ok,
                    Answer::Integer(2),
                    Answer::Integer(2),
                    Answer::Integer(2),
                    members.clone(),
                    Refused::WrongKind.into(),
                    Answer::Integer(1),
                    Answer::Integer(1),
                ])
            );
            assert_eq!(one.at(0, Operation::Sets(Sets::Members("s".into()))), members);
            assert_eq!(one.at(0, get("k")), Answer::bulk("1"));
        }
    }

    /// Bytes that are no operation are an error, whatever they are.
    #[test]
    fn what_is_no_operation_is_refused() {
        let bytes = set("k", "v", Expiry::Keep).encode();
        assert_eq!(Operation::decode(&bytes).unwrap(), set("k", "v", Expiry::Keep));
        for length in 0..bytes.len() {
            assert!(Operation::decode(&bytes[..length]).is_err(), "{length}");
        }
        let longer = [&bytes[..], b"x"].concat();
        assert!(matches!(Operation::decode(&longer), Err(DecodeError::Surplus)));
        let batch = |operations| Operation::Batch { watched: Vec::new(), operations };
        let nested = batch(vec![batch(Vec::new())]).encode();
        assert!(matches!(Operation::decode(&nested), Err(DecodeError::Batch)));
    }
}
