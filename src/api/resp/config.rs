//! `CONFIG GET` and `CONFIG SET`: the settings, as clients see and change them.
//!
//! Answered is what client libraries and tools ask before they work (`save`, `appendonly`, `databases`,
//! `maxmemory`, ...), as far as it is true here. A few settings change while the node runs, until it ends;
//! all else is given at the start, and changing it is refused with Redis' text for a setting that cannot
//! change. The password is among those that can be neither read nor changed here.

use super::door::Shared;
use super::notify::Notify;
use super::parse::{Arguments, integer};
use super::porter::KEEPALIVE;
use super::reply::Replies;
use super::settings::{PATTERN_BYTES_MAX, reply_pattern_too_long};
use crate::protocol::glob;

/// The settings that change.
const CLIENTS_MAX: &str = "maxclients";
const MEMORY_MAX: &str = "maxmemory";
const NOTIFY: &str = "notify-keyspace-events";

/// Settings that nobody is told.
const UNTOLD: [&str; 2] = ["masterauth", "requirepass"];

/// How much may wait for a client that does not read, as Redis writes it; see `connection`.
const OUTPUT_LIMITS: &str = "normal 0 0 0 slave 0 0 0 pubsub 33554432 8388608 60";

/// Every setting that clients can ask for, by the name that Redis gives it.
fn all(shared: &Shared) -> Vec<(&'static str, String)> {
    let settings = shared.settings();
    let protected = if settings.protected { "yes" } else { "no" };
    let memory_max = shared.node().enter().shard().config().memory_bytes_max;
    vec![
        ("appendfsync", "no".to_owned()),
        ("appendonly", "no".to_owned()),
        ("bind", shared.address().ip().to_string()),
        ("client-output-buffer-limit", OUTPUT_LIMITS.to_owned()),
        ("cluster-enabled", "no".to_owned()),
        ("databases", "1".to_owned()),
        ("hz", "10".to_owned()),
        ("latency-monitor-threshold", "0".to_owned()),
        (CLIENTS_MAX, shared.clients_max().to_string()),
        (MEMORY_MAX, memory_max.unwrap_or(0).to_string()),
        ("maxmemory-policy", "noeviction".to_owned()),
        (NOTIFY, shared.notify().letters()),
        ("port", shared.address().port().to_string()),
        ("proto-max-bulk-len", settings.bulk_bytes_max.to_string()),
        ("protected-mode", protected.to_owned()),
        ("save", String::new()),
        ("slowlog-log-slower-than", "-1".to_owned()),
        ("slowlog-max-len", "0".to_owned()),
        ("tcp-keepalive", KEEPALIVE.as_secs().to_string()),
        ("timeout", "0".to_owned()),
    ]
}

/// Answers `CONFIG GET pattern [pattern ...]`.
pub(super) fn get(shared: &Shared, patterns: Arguments<'_>, replies: &mut Replies) {
    if patterns.iter().any(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        return reply_pattern_too_long(replies);
    }
    let patterns: Vec<Vec<u8>> = patterns.iter().map(<[u8]>::to_ascii_lowercase).collect();
    let asked = |name: &str| patterns.iter().any(|it| glob::matches(it, name.as_bytes()));
    let settings: Vec<_> = all(shared).into_iter().filter(|(name, _)| asked(name)).collect();
    replies.map(settings.len());
    for (name, value) in settings {
        replies.bulk(name);
        replies.bulk(value);
    }
}

/// A change of a setting, read and found to be possible.
enum Change<'a> {
    ClientsMax(usize),
    MemoryMax(Option<usize>),
    Notify(&'a [u8]),
    /// It is so already, which is how tools make sure of it.
    Nothing,
}

/// Answers `CONFIG SET setting value [setting value ...]`. All are set or none is.
pub(super) fn set(shared: &Shared, pairs: Arguments<'_>, replies: &mut Replies) {
    if !pairs.len().is_multiple_of(2) {
        return replies.error("ERR wrong number of arguments for 'config|set' command");
    }
    let settings = all(shared);
    let mut changes: Vec<(&str, Change<'_>)> = Vec::new();
    for index in (0..pairs.len()).step_by(2) {
        let given = pairs.at(index);
        let shown = String::from_utf8_lossy(&given[..given.len().min(64)]);
        let is_given = |name: &str| name.as_bytes().eq_ignore_ascii_case(given);
        let known = settings.iter().find(|(name, _)| is_given(name));
        let read = match known {
            Some((name, _)) if changes.iter().any(|(other, _)| other == name) => {
                Err("duplicate parameter")
            }
            Some((name, value)) => {
                Change::read(name, value, pairs.at(index + 1)).map(|it| (*name, it))
            }
            None if UNTOLD.into_iter().any(is_given) => Err(IMMUTABLE),
            None => {
                return replies.error(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{shown}'"
                ));
            }
        };
        match read {
            Ok(change) => changes.push(change),
            Err(why) => {
                return replies.error(format!(
                    "ERR CONFIG SET failed (possibly related to argument '{shown}') - {why}"
                ));
            }
        }
    }
    changes.into_iter().for_each(|(_, change)| change.make(shared));
    replies.ok();
}

const IMMUTABLE: &str = "can't set immutable config; settings are given when the node starts";

impl<'a> Change<'a> {
    /// Reads what a setting is to become; why it cannot, in Redis' words where it has some.
    fn read(name: &str, now: &str, value: &'a [u8]) -> Result<Self, &'static str> {
        match name {
            CLIENTS_MAX => {
                let count = integer(value).ok_or("argument couldn't be parsed into an integer")?;
                let count = u32::try_from(count).ok().filter(|count| *count > 0);
                let count = count.ok_or("argument must be between 1 and 4294967295 inclusive")?;
                Ok(Self::ClientsMax(usize::try_from(count).unwrap_or(usize::MAX)))
            }
            MEMORY_MAX => {
                let bytes = memory(value).ok_or("argument must be a memory value")?;
                Ok(Self::MemoryMax(Some(bytes).filter(|bytes| *bytes > 0)))
            }
            NOTIFY if Notify::default().set(value) => Ok(Self::Notify(value)),
            NOTIFY => Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
            _ if now.as_bytes() == value => Ok(Self::Nothing),
            _ => Err(IMMUTABLE),
        }
    }

    fn make(self, shared: &Shared) {
        match self {
            Self::ClientsMax(count) => shared.limit_clients(count),
            Self::MemoryMax(bytes_max) => shared.node().enter().limit_memory(bytes_max),
            Self::Notify(letters) => {
                shared.notify().set(letters);
                shared.node().hear_changes(shared.listener(), shared.notify().is_on());
            }
            Self::Nothing => {}
        }
    }
}

/// Reads an amount of memory as Redis does: a number, with a unit behind it or without.
fn memory(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = text.split_at(digits);
    let unit: usize = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1_000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    std::str::from_utf8(number).ok()?.parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Law: memory reads as in Redis, where a `k` is a thousand and a `kb` is 1024.
    #[test]
    fn memory_has_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("7b", Some(7)),
            ("2k", Some(2_000)),
            ("2Kb", Some(2_048)),
            ("3mb", Some(3 << 20)),
            ("1gb", Some(1 << 30)),
            ("1g", Some(1_000_000_000)),
            ("", None),
            ("mb", None),
            ("-1", None),
            ("1.5gb", None),
            ("1tb", None),
            ("99999999999999999999", None),
            ("99999999999999999gb", None),
        ] {
            assert_eq!(memory(text.as_bytes()), bytes, "{text}");
        }
    }
}
