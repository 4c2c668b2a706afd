//! What the operator has decided about this door, and how clients see it through `CONFIG`.
//!
//! Settings are given at the start and do not change, except for `notify-keyspace-events`: `CONFIG SET` of
//! others is refused with Redis' text for a setting that cannot change while running. `CONFIG GET` answers what client libraries and tools ask
//! before they work (`save`, `appendonly`, `databases`, `maxmemory`, ...) as far as it is true here.
//! The password is never among them, and it is not kept either: only a keyed hash of it is.

use ring::hmac;

use super::notify::Notify;
use super::parse::{Arguments, BULK_BYTES_MAX};
use super::reply::Replies;
use crate::protocol::glob;

/// Most clients at a time, unless configured; as in Redis.
pub const CLIENTS_MAX: usize = 10_000;

/// The longest pattern that a client may ask with. Matching takes up to pattern times text steps, so
/// a pattern of megabytes against long keys would hold up everybody else; Redis has no limit.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// The setting that says which changes of keys are published.
const NOTIFY: &str = "notify-keyspace-events";

/// How much may wait for a client that does not read, as Redis writes it; see `connection`.
const OUTPUT_LIMITS: &str = "normal 0 0 0 slave 0 0 0 pubsub 33554432 8388608 60";

/// What the operator has decided about this door.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What clients must give with `AUTH` or `HELLO`, if anything.
    pub password: Option<Password>,
    /// Whether clients from other machines are turned away as long as there is no password.
    pub protected: bool,
    /// How many clients may be connected at a time.
    pub clients_max: usize,
    /// The longest argument of a request, in bytes; at most [`BULK_BYTES_MAX`], the longest value that
    /// travels between peers.
    pub bulk_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            password: None,
            protected: true,
            clients_max: CLIENTS_MAX,
            bulk_bytes_max: BULK_BYTES_MAX,
        }
    }
}

/// A password that can be checked but not read: its HMAC-SHA256 under a key made for this process.
#[derive(Clone)]
pub struct Password {
    key: hmac::Key,
    tag: hmac::Tag,
}

impl Password {
    /// The password `text`, to be checked against what clients give.
    ///
    /// # Panics
    /// When the operating system has no random bytes to give.
    pub fn new(text: &[u8]) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        let tag = hmac::sign(&key, text);
        Self { key, tag }
    }

    /// Whether `given` is the password; takes equally long wherever they differ.
    pub fn matches(&self, given: &[u8]) -> bool {
        hmac::verify(&self.key, given, self.tag.as_ref()).is_ok()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Settings {
    /// Every setting that clients can ask for, by the name that Redis gives it.
    fn all(&self, notify: &Notify) -> [(&'static str, String); 15] {
        let yes_no = |truth: bool| if truth { "yes" } else { "no" }.to_owned();
        [
            ("appendfsync", "no".to_owned()),
            ("appendonly", "no".to_owned()),
            ("client-output-buffer-limit", OUTPUT_LIMITS.to_owned()),
            ("cluster-enabled", "no".to_owned()),
            ("databases", "1".to_owned()),
            ("hz", "10".to_owned()),
            ("maxclients", self.clients_max.to_string()),
            ("maxmemory", "0".to_owned()),
            ("maxmemory-policy", "noeviction".to_owned()),
            (NOTIFY, notify.letters()),
            ("proto-max-bulk-len", self.bulk_bytes_max.to_string()),
            ("protected-mode", yes_no(self.protected)),
            ("save", String::new()),
            ("tcp-keepalive", "0".to_owned()),
            ("timeout", "0".to_owned()),
        ]
    }

    /// Answers `CONFIG GET pattern [pattern ...]`.
    pub(super) fn reply_matching(
        &self,
        notify: &Notify,
        patterns: Arguments<'_>,
        replies: &mut Replies,
    ) {
        if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
            return reply_pattern_too_long(replies);
        }
        let patterns: Vec<Vec<u8>> = patterns.iter().map(<[u8]>::to_ascii_lowercase).collect();
        let asked = |name: &str| patterns.iter().any(|it| glob::matches(it, name.as_bytes()));
        let settings: Vec<_> =
            self.all(notify).into_iter().filter(|(name, _)| asked(name)).collect();
        replies.map(settings.len());
        for (name, value) in settings {
            replies.bulk(name);
            replies.bulk(value);
        }
    }

    /// Answers `CONFIG SET setting value [setting value ...]`: a setting may be set to what it is,
    /// which is how tools make sure of it, and `notify-keyspace-events` to anything that it can be.
    ///
    /// All are set or none is.
    pub(super) fn set(&self, notify: &Notify, pairs: Arguments<'_>, replies: &mut Replies) {
        if !pairs.len().is_multiple_of(2) {
            return replies.error("ERR wrong number of arguments for 'config|set' command");
        }
        let settings = self.all(notify);
        let mut letters = None;
        for index in (0..pairs.len()).step_by(2) {
            let (given, value) = (pairs.at(index), pairs.at(index + 1));
            let shown = String::from_utf8_lossy(&given[..given.len().min(64)]);
            let mut known = settings.iter();
            match known.find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(given)) {
                Some((NOTIFY, _)) if Notify::default().set(value) => letters = Some(value),
                Some((NOTIFY, _)) => {
                    return replies.error(format!(
                        "ERR CONFIG SET failed (possibly related to argument '{shown}') - Invalid \
                         event class character. Use 'Ag$lshzxeKEtmdn'."
                    ));
                }
                Some((_, ours)) if ours.as_bytes() == value => {}
                Some(_) => {
                    return replies.error(format!(
                        "ERR CONFIG SET failed (possibly related to argument '{shown}') - can't \
                         set immutable config; settings are given when the node starts"
                    ));
                }
                None => {
                    return replies.error(format!(
                        "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
                    ));
                }
            }
        }
        if let Some(letters) = letters {
            notify.set(letters);
        }
        replies.ok();
    }
}

/// Says that a pattern is longer than [`PATTERN_BYTES_MAX`].
pub(super) fn reply_pattern_too_long(replies: &mut Replies) {
    replies.error(format!("ERR pattern is longer than {PATTERN_BYTES_MAX} bytes"));
}
