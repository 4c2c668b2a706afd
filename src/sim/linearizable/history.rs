//! What clients asked, when, and what they were told.
//!
//! The simulator fills a history in virtual time; threads that talk to real nodes each fill one of
//! their own by the same monotonic clock, and these are joined. An operation that nobody answers stays
//! of unknown outcome: that is how each of them begins.

use std::collections::BTreeMap;
use std::fmt;

use crate::protocol::time::Time;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set the value; answered by [`Answer::Done`].
    Write(String),
    /// Show the value; answered by [`Answer::Value`].
    Read,
    /// Remove the value; answered by [`Answer::Changed`], whether there was one.
    Delete,
    /// Set the value if the present one, or its absence, is as expected; answered by
    /// [`Answer::Changed`].
    CompareAndSet {
        /// What must be there; nothing: the key must be absent.
        expected: Option<String>,
        /// What is there afterwards.
        new: String,
    },
    /// Add to the number, an absent one being zero; answered by [`Answer::Sum`].
    Increment(i64),
    /// Put at the end of the value; answered by [`Answer::Length`].
    Append(String),
}

/// What a client was told of an operation that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The value, if there is one.
    Value(Option<String>),
    /// Whether it changed anything.
    Changed(bool),
    /// The number after adding.
    Sum(i64),
    /// The length after appending, in bytes.
    Length(usize),
    /// The value is no number, and stays as it is.
    NoNumber,
}

/// Where in the order an operation stood, by the word of who carried it out.
///
/// Two operations that change anything never share one, so where the log's entries are batches, the
/// index counts operations. A read has the witness of the last change before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Witness {
    /// The epoch of the log.
    pub epoch: u64,
    /// The place in the log.
    pub index: u64,
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out, and this was the answer.
    Answered {
        /// When the answer came.
        at: Time,
        /// The answer.
        answer: Answer,
        /// Where it claims to stand.
        witness: Option<Witness>,
    },
    /// It may take effect at any time after it was asked, or never.
    Unknown,
    /// It was never carried out, nor will be.
    Refused {
        /// When that was told.
        at: Time,
    },
}

/// A request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: usize,
    /// What the request was about.
    pub key: String,
    /// What it asked for.
    pub action: Action,
    /// When.
    pub asked: Time,
    /// What became of it.
    pub outcome: Outcome,
}

/// Names an operation of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperationId(usize);

/// What clients asked and were told. See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// A client asks for something; of unknown outcome until more is said.
    pub fn ask(
        &mut self,
        client: usize,
        key: impl Into<String>,
        action: Action,
        now: Time,
    ) -> OperationId {
        let (key, outcome) = (key.into(), Outcome::Unknown);
        self.operations.push(Operation { client, key, action, asked: now, outcome });
        OperationId(self.operations.len() - 1)
    }

    /// The answer came.
    ///
    /// # Panics
    /// When the operation is of another history, or its outcome is known already.
    pub fn answer(&mut self, operation: OperationId, answer: Answer, now: Time) {
        self.settle(operation, Outcome::Answered { at: now, answer, witness: None });
    }

    /// The answer came, and with it where the operation stands.
    ///
    /// # Panics
    /// As [`Self::answer`].
    pub fn answer_at(&mut self, operation: OperationId, answer: Answer, at: Witness, now: Time) {
        self.settle(operation, Outcome::Answered { at: now, answer, witness: Some(at) });
    }

    /// It was refused: it has no effect, for certain.
    ///
    /// # Panics
    /// As [`Self::answer`].
    pub fn refuse(&mut self, operation: OperationId, now: Time) {
        self.settle(operation, Outcome::Refused { at: now });
    }

    fn settle(&mut self, OperationId(place): OperationId, outcome: Outcome) {
        let operation = self.operations.get_mut(place).expect("an operation of this history");
        assert_eq!(operation.outcome, Outcome::Unknown, "{operation} has its outcome");
        operation.outcome = outcome;
    }

    /// Adds an operation as it is.
    pub fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// Adds what another recorder saw by the same clock. Ids of the other mean nothing here.
    pub fn join(&mut self, other: Self) {
        self.operations.extend(other.operations);
    }

    /// One operation, if it is of this history.
    pub fn get(&self, OperationId(place): OperationId) -> Option<&Operation> {
        self.operations.get(place)
    }

    /// All operations, as they were recorded.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations on each key, refused ones left out.
    pub(super) fn by_key(&self) -> Vec<Vec<&Operation>> {
        let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            if !matches!(operation.outcome, Outcome::Refused { .. }) {
                keys.entry(&operation.key).or_default().push(operation);
            }
        }
        keys.into_values().collect()
    }
}

impl Operation {
    /// When it was answered.
    pub fn answered(&self) -> Option<Time> {
        match self.outcome {
            Outcome::Answered { at, .. } => Some(at),
            _ => None,
        }
    }

    /// What was answered.
    pub fn answer(&self) -> Option<&Answer> {
        match &self.outcome {
            Outcome::Answered { answer, .. } => Some(answer),
            _ => None,
        }
    }

    /// Where it claims to stand.
    pub fn witness(&self) -> Option<Witness> {
        match self.outcome {
            Outcome::Answered { witness, .. } => witness,
            _ => None,
        }
    }

    /// The time by which it had taken effect; without an answer it may be any.
    pub(super) fn done_by(&self) -> Time {
        self.answered().unwrap_or(Time::from_nanos(u64::MAX))
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.index)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(value) => write!(f, "write {value:?}"),
            Self::Read => f.write_str("read"),
            Self::Delete => f.write_str("delete"),
            Self::CompareAndSet { expected: Some(expected), new } => {
                write!(f, "set {new:?} if {expected:?}")
            }
            Self::CompareAndSet { expected: None, new } => write!(f, "set {new:?} if absent"),
            Self::Increment(by) => write!(f, "add {by}"),
            Self::Append(text) => write!(f, "append {text:?}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Value(Some(value)) => write!(f, "{value:?}"),
            Self::Value(None) => f.write_str("nothing there"),
            Self::Changed(true) => f.write_str("changed"),
            Self::Changed(false) => f.write_str("not changed"),
            Self::Sum(sum) => write!(f, "{sum}"),
            Self::Length(length) => write!(f, "{length} bytes"),
            Self::NoNumber => f.write_str("no number"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, action, asked, .. } = self;
        write!(f, "client {client}, {asked} to ")?;
        match &self.outcome {
            Outcome::Answered { at, answer, witness } => {
                write!(f, "{at}: {action} -> {answer}")?;
                witness.map_or(Ok(()), |witness| write!(f, " at {witness}"))
            }
            Outcome::Unknown => write!(f, "?: {action} -> unknown"),
            Outcome::Refused { at } => write!(f, "{at}: {action} -> refused"),
        }
    }
}
