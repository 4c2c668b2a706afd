//! What the operator has decided about this door before it opened.
//!
//! The few settings that change afterwards are kept by `door`, and `config` tells of all of them. The
//! password is not kept: only a keyed hash of it is.

use ring::hmac;

use super::parse::BULK_BYTES_MAX;
use super::reply::Replies;

/// Most clients at a time, unless configured; as in Redis.
pub const CLIENTS_MAX: usize = 10_000;

/// The longest pattern that a client may ask with. Matching takes up to pattern times text steps, so
/// a pattern of megabytes against long keys would hold up everybody else; Redis has no limit.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// What the operator has decided about this door.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What clients must give with `AUTH` or `HELLO`, if anything.
    pub password: Option<Password>,
    /// Whether clients from other machines are turned away as long as there is no password.
    pub protected: bool,
    /// How many clients may be connected at a time, until somebody changes it.
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

/// Says that a pattern is longer than [`PATTERN_BYTES_MAX`].
pub(super) fn reply_pattern_too_long(replies: &mut Replies) {
    replies.error(format!("ERR pattern is longer than {PATTERN_BYTES_MAX} bytes"));
}
