//! What tools ask a server about itself: settings, users, slow commands, delays, what clients cache.
//!
//! Much of it does not exist here. Where Redis has a way to say that there is none (an empty list, the
//! default user, a client that is not tracked), it is said so, because tools go on then; what would have to
//! be made up is refused as not supported.

use super::command::{Command, Verb};
use super::door::Shared;
use super::parse::{Arguments, integer};
use super::reply::Replies;
use super::{config, describe};
use crate::server::Status;

/// Answers a command of a container; `rest` is what follows the subcommand's name.
pub(super) fn answer(
    shared: &Shared,
    command: &Command,
    rest: Arguments<'_>,
    replies: &mut Replies,
) {
    match command.verb {
        Verb::ConfigGet => config::get(shared, rest, replies),
        Verb::ConfigSet => config::set(shared, rest, replies),
        Verb::ConfigResetstat => {
            shared.reset_counters();
            replies.ok();
        }
        Verb::ConfigRewrite => replies.error("ERR The server is running without a config file"),
        Verb::SlowlogGet => slowlog(rest, replies),
        Verb::SlowlogLen | Verb::LatencyReset => replies.integer(0),
        Verb::SlowlogReset => replies.ok(),
        Verb::ModuleList | Verb::LatencyEmpty => replies.array(0),
        Verb::LatencyHistogram => replies.map(0),
        Verb::LatencyDoctor => {
            replies.verbatim("Delays are not kept here.\n");
        }
        Verb::LatencyGraph => {
            let shown = String::from_utf8_lossy(&rest.at(0)[..rest.at(0).len().min(64)]);
            replies.error(format!("ERR No samples available for event '{shown}'"));
        }
        Verb::AclCat => describe::reply_categories(rest, replies),
        Verb::AclList => {
            replies.array(1);
            // Redis shows a hash of the password, from which one that is easy is soon found.
            let password = if shared.settings().password.is_some() { "" } else { "nopass " };
            replies.bulk(format!("user default on {password}~* &* +@all"));
        }
        Verb::AclUsers => {
            replies.array(1);
            replies.bulk("default");
        }
        Verb::AclWhoami => replies.bulk("default"),
        Verb::ClientTracking => tracking(rest, replies),
        Verb::ClientTrackinginfo => {
            replies.map(3);
            replies.bulk("flags");
            replies.set(1);
            replies.bulk("off");
            replies.bulk("redirect");
            replies.integer(-1);
            replies.bulk("prefixes");
            replies.array(0);
        }
        Verb::ClientGetredir => replies.integer(-1),
        Verb::ClientUnblock => unblock(shared, rest, replies),
        Verb::ClientPause => pause(rest, replies),
        Verb::ClientUnpause | Verb::MemoryPurge => replies.ok(),
        Verb::MemoryDoctor => replies.verbatim(&doctor(&shared.node().status())),
        // Redis' words where its allocator is not the one that it knows.
        Verb::MemoryMallocStats => replies.bulk("Stats not supported for the current allocator"),
        Verb::MemoryStats => memory(&shared.node().status(), replies),
        // What is left is a container's HELP.
        _ => describe::reply_help(command.container(), replies),
    }
}

/// `SLOWLOG GET [count]`.
fn slowlog(rest: Arguments<'_>, replies: &mut Replies) {
    match (rest.len(), rest.get(0).map(integer)) {
        (0, _) => replies.array(0),
        (1, Some(Some(-1..))) => replies.array(0),
        (1, _) => replies.error("ERR count should be greater than or equal to -1"),
        _ => reply_arguments("GET", "SLOWLOG", replies),
    }
}

/// `CLIENT UNBLOCK clientid [TIMEOUT|ERROR]`: whoever waits is answered as if its time were over, or told
/// that somebody ended its waiting.
fn unblock(shared: &Shared, rest: Arguments<'_>, replies: &mut Replies) {
    let by_error = match (rest.len(), rest.at(1).to_ascii_lowercase().as_slice()) {
        (1, _) | (2, b"timeout") => false,
        (2, b"error") => true,
        (2, _) => {
            return replies.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        }
        _ => return reply_arguments("UNBLOCK", "CLIENT", replies),
    };
    let Some(id) = integer(rest.at(0)) else {
        return replies.error("ERR value is not an integer or out of range");
    };
    let unblocked = u64::try_from(id).is_ok_and(|id| shared.clients().unblock(id, by_error));
    replies.integer(i64::from(unblocked));
}

/// `CLIENT PAUSE timeout [WRITE|ALL]`, of which only no time at all is granted.
fn pause(rest: Arguments<'_>, replies: &mut Replies) {
    match (rest.len(), rest.at(1).to_ascii_lowercase().as_slice()) {
        (1, _) | (2, b"write" | b"all") => {}
        (2, _) => return replies.error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return reply_arguments("PAUSE", "CLIENT", replies),
    }
    match integer(rest.at(0)) {
        None => replies.error("ERR timeout is not an integer or out of range"),
        Some(..0) => replies.error("ERR timeout is negative"),
        Some(0) => replies.ok(),
        Some(_) => replies.error(
            "ERR 'CLIENT PAUSE' is not supported by Quorumor: this peer would fall silent while the others \
             go on. A switch of the mode holds requests at all of them by itself; a peer that is to take \
             none is ended",
        ),
    }
}

/// `MEMORY DOCTOR`.
fn doctor(node: &Status) -> String {
    let bytes = node.memory_bytes;
    let told =
        "what keys, values and their bookkeeping take is counted; the allocator is not looked into";
    match node.memory_bytes_max {
        None => format!("{bytes} bytes, without a limit: {told}.\n"),
        Some(max) if bytes >= max - max / 10 => format!(
            "{bytes} bytes of {max}: {told}. From the limit on writes are refused with OOM: delete keys, or \
             raise maxmemory at every peer.\n"
        ),
        Some(max) => format!("{bytes} bytes of {max}: {told}.\n"),
    }
}

/// `MEMORY STATS`: of what Redis tells that which is counted here.
fn memory(node: &Status, replies: &mut Replies) {
    let per_key = node.memory_bytes.checked_div(node.keys).unwrap_or(0);
    let figures = [
        ("total.allocated", node.memory_bytes),
        ("keys.count", node.keys),
        ("keys.bytes-per-key", per_key),
        ("dataset.bytes", node.memory_bytes),
    ];
    replies.map(figures.len());
    for (name, figure) in figures {
        replies.bulk(name);
        replies.count(figure);
    }
}

/// Says that a subcommand takes fewer arguments, in Redis' words.
fn reply_arguments(name: &str, container: &str, replies: &mut Replies) {
    replies.error(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try {container} HELP."
    ));
}

/// `CLIENT TRACKING ON|OFF`: whoever wants to be told what to forget learns that nobody will.
fn tracking(rest: Arguments<'_>, replies: &mut Replies) {
    match rest.at(0).to_ascii_lowercase().as_slice() {
        b"off" => replies.ok(),
        b"on" => replies.error(
            "ERR 'CLIENT TRACKING' is not supported yet by Quorumor: nobody tells clients which of \
             what they have cached has changed",
        ),
        _ => replies.error("ERR syntax error"),
    }
}
