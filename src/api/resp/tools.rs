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
        Verb::ClientUnblock => match integer(rest.at(0)) {
            Some(_) => replies.integer(0),
            None => replies.error("ERR value is not an integer or out of range"),
        },
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
        _ => replies.error(
            "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.",
        ),
    }
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
