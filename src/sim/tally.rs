//! How many messages were sent, and how many bytes they had.
//!
//! A message is what one node hands to the network for one receiver, whether it arrives or not. Its
//! bytes are those of its encoding, without what the transport adds.

use crate::protocol::message::Message;

/// The kinds of messages, by the words that [`Message::kind`] has for them.
const KINDS: [&str; 11] = [
    "push", "open", "digest", "delta", "credit", "ask", "answer", "members", "greet", "report",
    "strong",
];

/// A number of messages and the bytes that they have together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// How many messages.
    pub messages: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The messages sent, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    counts: [Count; KINDS.len()],
}

impl Tally {
    /// Adds a message of so many bytes to so many receivers.
    pub(super) fn add(&mut self, message: &Message, bytes: usize, receivers: usize) {
        let kind = message.kind();
        if let Some(at) = KINDS.iter().position(|known| *known == kind) {
            self.counts[at].messages += receivers as u64;
            self.counts[at].bytes += (bytes * receivers) as u64;
        }
    }

    /// The count of each kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, Count)> {
        KINDS.into_iter().zip(self.counts)
    }

    /// The count of one kind; nothing for a word that is no kind.
    pub fn of(&self, kind: &str) -> Count {
        self.kinds().find(|(known, _)| *known == kind).map(|(_, count)| count).unwrap_or_default()
    }

    /// All kinds together.
    pub fn total(&self) -> Count {
        self.counts.iter().fold(Count::default(), |sum, count| Count {
            messages: sum.messages + count.messages,
            bytes: sum.bytes + count.bytes,
        })
    }
}
