//! One key, carried out by a single copy: what every history is compared with.

use std::sync::Arc;

use super::history::{Action, Answer};

/// What a key holds.
pub(super) type Value = Option<Arc<str>>;

/// What a key holds after an action, and what the answer is; nothing: it stays as it was.
pub(super) fn carry_out(value: &Value, action: &Action) -> (Option<Value>, Answer) {
    let set = |text: &str| Some(Some(Arc::from(text)));
    match action {
        Action::Write(text) => (set(text), Answer::Done),
        Action::Read => (None, Answer::Value(value.as_deref().map(str::to_owned))),
        Action::Delete if value.is_some() => (Some(None), Answer::Changed(true)),
        Action::Delete => (None, Answer::Changed(false)),
        Action::CompareAndSet { expected, new } => {
            let fits = value.as_deref() == expected.as_deref();
            (fits.then(|| set(new)).flatten(), Answer::Changed(fits))
        }
        Action::Increment(by) => {
            let number = value.as_deref().map_or(Some(0), |text| text.parse::<i64>().ok());
            match number.and_then(|number| number.checked_add(*by)) {
                Some(sum) => (set(&sum.to_string()), Answer::Sum(sum)),
                None => (None, Answer::NoNumber),
            }
        }
        Action::Append(text) => {
            let joined = format!("{}{text}", value.as_deref().unwrap_or_default());
            let length = joined.len();
            (set(&joined), Answer::Length(length))
        }
    }
}

/// Whether what the key held before is of no account to what it holds after.
pub(super) fn is_blind(action: &Action) -> bool {
    matches!(action, Action::Write(_) | Action::Delete)
}
