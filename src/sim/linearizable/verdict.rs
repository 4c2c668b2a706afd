//! What a check finds, and how it says it.

use std::fmt;

use super::history::Operation;

/// How many operations a violation names, at most: more than one can take in at a look, so only the
/// search comes near it.
const NAMED_MAX: usize = 12;

/// What a check finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violated(Box<Violation>),
    /// These keys took more steps than the budget allows; nothing speaks against the others.
    Undecided(Vec<String>),
}

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: String,
    /// What is wrong, in a sentence.
    pub why: String,
    /// The operations that show it, in the order in which they were asked.
    pub operations: Vec<Operation>,
}

impl Verdict {
    /// Whether every answer is explained.
    pub fn is_linearizable(&self) -> bool {
        matches!(self, Self::Linearizable)
    }

    /// Whether no order explains the answers.
    pub fn is_violated(&self) -> bool {
        matches!(self, Self::Violated(_))
    }

    pub(super) fn violated(why: String, operations: &[&Operation]) -> Self {
        let mut named: Vec<&Operation> = Vec::new();
        for operation in operations {
            if named.len() < NAMED_MAX
                && !named.iter().any(|other| std::ptr::eq(*other, *operation))
            {
                named.push(operation);
            }
        }
        named.sort_by_key(|operation| operation.asked);
        let key = named.first().map(|operation| operation.key.clone()).unwrap_or_default();
        let operations = named.into_iter().cloned().collect();
        Self::Violated(Box::new(Violation { key, why, operations }))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Violated(violation) => violation.fmt(f),
            Self::Undecided(keys) => {
                write!(f, "undecided within the budget for {} of the keys: ", keys.len())?;
                f.write_str(&keys.join(", "))
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}: {}", self.key, self.why)?;
        self.operations.iter().try_for_each(|operation| write!(f, "\n  {operation}"))
    }
}
