//! Keyspace notifications: which changes of keys are published, and as what.
//!
//! The setting `notify-keyspace-events` has Redis' letters: `K` for messages on the channel of the key
//! (`__keyspace@0__:<key>`), `E` for those on the channel of the event (`__keyevent@0__:<event>`), and one
//! for each class of events. What is told is what happens to the cells at this peer, so writes that
//! arrive from other peers are told as well, each peer telling its own clients.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::protocol::change::Change;
use crate::protocol::message::Published;

/// The letters of the classes, in the order in which Redis shows them; `A` stands for all before `m`.
const CLASSES: &str = "g$lshzxetdmn";

/// How many of them `A` stands for.
const ALL: usize = 10;

const OF_KEY: u16 = 1 << 12;
const OF_EVENT: u16 = 1 << 13;

/// What is published of the changes of keys. Nothing, unless told.
#[derive(Debug, Default)]
pub(super) struct Notify(AtomicU16);

impl Notify {
    /// Changes the setting; whether these are letters of it.
    pub(super) fn set(&self, letters: &[u8]) -> bool {
        let mut flags = 0;
        for letter in letters {
            flags |= match (letter, class(char::from(*letter))) {
                (_, Some(at)) => 1 << at,
                (b'A', _) => (1 << ALL) - 1,
                (b'K', _) => OF_KEY,
                (b'E', _) => OF_EVENT,
                _ => return false,
            };
        }
        self.0.store(flags, Ordering::Relaxed);
        true
    }

    /// Whether anything is published.
    pub(super) fn is_on(&self) -> bool {
        let flags = self.0.load(Ordering::Relaxed);
        flags & (OF_KEY | OF_EVENT) != 0 && flags & (OF_KEY - 1) != 0
    }

    /// The setting as Redis shows it.
    pub(super) fn letters(&self) -> String {
        let flags = self.0.load(Ordering::Relaxed);
        let all = (1 << ALL) - 1;
        let mut letters = String::new();
        if flags & all == all {
            letters.push('A');
        }
        for (at, letter) in CLASSES.chars().enumerate() {
            if flags & (1 << at) != 0 && (at >= ALL || flags & all != all) {
                letters.push(letter);
            }
        }
        for (flag, letter) in [(OF_KEY, 'K'), (OF_EVENT, 'E')] {
            if flags & flag != 0 {
                letters.push(letter);
            }
        }
        letters
    }

    /// What is published of a change.
    pub(super) fn messages(&self, key: &[u8], change: Change) -> impl Iterator<Item = Published> {
        let flags = self.0.load(Ordering::Relaxed);
        let wanted = class(change.class).is_some_and(|at| flags & (1 << at) != 0);
        let event = change.name.as_bytes();
        let message = |flag: u16, prefix: &[u8], channel: &[u8], message: &[u8]| {
            (wanted && flags & flag != 0).then(|| Published {
                channel: [prefix, channel].concat().into(),
                message: message.into(),
            })
        };
        let of_key = message(OF_KEY, b"__keyspace@0__:", key, event);
        let of_event = message(OF_EVENT, b"__keyevent@0__:", event, key);
        of_key.into_iter().chain(of_event)
    }
}

fn class(letter: char) -> Option<usize> {
    CLASSES.find(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: letters are shown as Redis 7 shows them, in its order, with `A` for all that it covers.
    #[test]
    fn letters_are_shown_as_in_redis() {
        let notify = Notify::default();
        for (given, shown, is_on) in [
            ("", "", false),
            ("KEA", "AKE", true),
            ("Kx", "xK", true),
            ("Elg$", "g$lE", true),
            ("AmnE", "AmnE", true),
            ("K", "K", false),
            ("A", "A", false),
            ("g$lshzxetdKE", "AKE", true),
        ] {
            assert!(notify.set(given.as_bytes()), "{given}");
            assert_eq!(notify.letters(), shown);
            assert_eq!(notify.is_on(), is_on, "{given}");
        }
        assert!(!notify.set(b"KEq"));
        assert_eq!(notify.letters(), "AKE", "a refused setting changes nothing");
    }

    /// Story: only the classes that were asked for are told, on the channels that were asked for.
    #[test]
    fn what_was_asked_for_is_told() {
        let notify = Notify::default();
        let told = |key: &[u8], change| -> Vec<String> {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let messages = notify.messages(key, change);
            messages.map(|it| text(&it.channel) + " " + &text(&it.message)).collect()
        };
        let deleted = Change::DELETED;
        assert!(told(b"k", deleted).is_empty());
        assert!(notify.set(b"KEg"));
        assert_eq!(told(b"k", deleted), ["__keyspace@0__:k del", "__keyevent@0__:del k"]);
        assert!(told(b"k", Change::EXPIRED).is_empty());
        assert!(notify.set(b"Ex"));
        assert_eq!(told(b"k", Change::EXPIRED), ["__keyevent@0__:expired k"]);
        assert!(told(b"k", deleted).is_empty());
    }
}
