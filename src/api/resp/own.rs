//! The commands that Redis does not have: what a write is called, where it is, why a key shows what it
//! shows, and what this peer holds.
//!
//! A *mark* names a write, `0.17@5f3a…#12`: its stamp, and the number of its last cell at the origin.
//! `QUORUMOR.STAMP` gives that of this connection's last write; at another peer, `QUORUMOR.WAITFOR`
//! waits until the write is there, so that a client which goes from peer to peer reads its own writes.
//! The stamp says where the write stands in the order; to find it, what follows the `@` is enough.

use std::time::{Duration, Instant};

use super::door::Shared;
use super::keys::Batch;
use super::parse::{Arguments, integer};
use super::reply::Replies;
use super::session::{Found, Until, Wait};
use crate::protocol::id::Origin;
use crate::protocol::operation::Mode;
use crate::protocol::stamp::{Dot, Stamp};
use crate::protocol::why::{Loser, Standing, Writer};
use crate::server::{Holder, Node};

/// How long `QUORUMOR.TRACE` waits for the answers of peers: many round trips on any link.
const TRACE_PATIENCE: Duration = Duration::from_secs(1);

const NOT_A_MARK: &str = "ERR this is not what QUORUMOR.STAMP answers: expected \
    <epoch>.<counter>@<origin>#<number>";

/// What is written for one write.
fn mark((stamp, dot): (Stamp, Dot)) -> String {
    format!("{stamp}#{}", dot.seq)
}

/// The dot in what [`mark`] wrote, or in a dot alone.
fn parse_mark(text: &[u8]) -> Option<Dot> {
    let text = std::str::from_utf8(text).ok()?;
    let dot = match text.split_once('@') {
        Some((stamp, dot)) => {
            let (epoch, counter) = stamp.split_once('.')?;
            let _: (u32, u64) = (epoch.parse().ok()?, counter.parse().ok()?);
            dot
        }
        None => text,
    };
    let (origin, seq) = dot.split_once('#')?;
    let is_hex = origin.len() == 16 && origin.bytes().all(|byte| byte.is_ascii_hexdigit());
    let origin = is_hex.then(|| u64::from_str_radix(origin, 16).ok()).flatten()?;
    let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
    Some(Dot { origin: Origin(origin), seq })
}

/// `QUORUMOR.STAMP`: the mark of this connection's last write.
pub(super) fn stamp(last: Option<(Stamp, Dot)>, replies: &mut Replies) {
    match last {
        Some(write) => replies.bulk(mark(write)),
        None => replies.null(),
    }
}

/// `QUORUMOR.WAITFOR stamp milliseconds`: answers 1 once this peer holds that write and all before it
/// of its origin, 0 if that takes longer.
pub(super) fn wait_for(arguments: Arguments<'_>, replies: &mut Replies) -> Option<Wait> {
    let Some(dot) = parse_mark(arguments.at(1)) else {
        replies.error(NOT_A_MARK);
        return None;
    };
    let timeout = timeout(arguments.at(2), replies)?;
    Some(Wait { until: Until::Here(dot), timeout })
}

/// `QUORUMOR.TRACE [stamp]`: who holds a write, by asking everybody.
pub(super) fn trace(
    arguments: Arguments<'_>,
    last: Option<(Stamp, Dot)>,
    replies: &mut Replies,
) -> Option<Wait> {
    let dot = match arguments.len() {
        1 => last.map(|(_, dot)| dot),
        2 => match parse_mark(arguments.at(1)) {
            Some(dot) => Some(dot),
            None => {
                replies.error(NOT_A_MARK);
                return None;
            }
        },
        _ => {
            replies.error("ERR wrong number of arguments for 'quorumor.trace' command");
            return None;
        }
    };
    let Some(dot) = dot else {
        replies.error("ERR this connection has written nothing: name a write by its stamp");
        return None;
    };
    Some(Wait { until: Until::Everywhere(dot), timeout: Some(TRACE_PATIENCE) })
}

/// A timeout in milliseconds, as `WAIT` has it: 0 is for ever.
pub(super) fn timeout(text: &[u8], replies: &mut Replies) -> Option<Option<Duration>> {
    let Some(milliseconds) = integer(text) else {
        replies.error("ERR timeout is not an integer or out of range");
        return None;
    };
    let Ok(milliseconds) = u64::try_from(milliseconds) else {
        replies.error("ERR timeout is negative");
        return None;
    };
    Some((milliseconds > 0).then_some(Duration::from_millis(milliseconds)))
}

/// Answers `QUORUMOR.TRACE`.
pub(super) fn reply_holders(holders: &[Holder], replies: &mut Replies) {
    replies.array(holders.len());
    for holder in holders {
        replies.map(4);
        replies.bulk("node");
        replies.bulk(holder.node.to_string());
        replies.bulk("name");
        replies.bulk(&holder.name);
        replies.bulk("state");
        replies.bulk(match holder.holds {
            Some(true) => "holds",
            Some(false) => "lacks",
            None => "silent",
        });
        replies.bulk("answered-after-us");
        match holder.after {
            Some(after) => replies.integer(i64::try_from(after.as_micros()).unwrap_or(i64::MAX)),
            None => replies.null(),
        }
    }
}

/// `QUORUMOR.WHY key [field]`.
pub(super) fn why(batch: &mut Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    if arguments.len() > 3 {
        return replies.error("ERR wrong number of arguments for 'quorumor.why' command");
    }
    let (key, name, wall) = (arguments.at(1), arguments.get(2), batch.now);
    let now = batch.node.now();
    let why = batch.enter().shard().why(now, wall, key, name);
    replies.map(4);
    replies.bulk("key");
    replies.bulk(key);
    replies.bulk("kind");
    replies.bulk(why.kind);
    replies.bulk("winner");
    match &why.winner {
        None => replies.null(),
        Some(Standing { stamp, dot, writer, bytes }) => {
            replies.map(5);
            replies.bulk("stamp");
            replies.bulk(mark((*stamp, *dot)));
            reply_writer(writer, replies);
            replies.bulk("bytes");
            match bytes {
                Some(bytes) => replies.count(*bytes),
                // It is a deletion.
                None => replies.null(),
            }
        }
    }
    replies.bulk("losers");
    replies.array(why.losers.len());
    for Loser { stamp, writer, to, ago } in &why.losers {
        replies.map(6);
        replies.bulk("stamp");
        replies.bulk(stamp.to_string());
        reply_writer(writer, replies);
        replies.bulk("lost-to");
        replies.bulk(to.to_string());
        replies.bulk("seen-ms-ago");
        replies.integer(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
    }
}

/// Three pairs of a map: who wrote something.
fn reply_writer(writer: &Writer, replies: &mut Replies) {
    replies.bulk("origin");
    replies.bulk(writer.origin.to_string());
    replies.bulk("node");
    match &writer.node {
        Some((node, _)) => replies.bulk(node.to_string()),
        // A former life of somebody, or of nobody who is known here.
        None => replies.null(),
    }
    replies.bulk("name");
    match &writer.node {
        Some((_, name)) => replies.bulk(name),
        None => replies.null(),
    }
}

/// `QUORUMOR.MODE`.
pub(super) fn mode(shared: &Shared, replies: &mut Replies) {
    replies.bulk(match shared.node().mode() {
        Mode::Eventual => "eventual",
        Mode::Strong => "strong",
    });
}

/// `ROLE`: every node accepts writes, and Redis' word for that is master; it has no replicas of the
/// kind that Redis lists.
pub(super) fn role(replies: &mut Replies) {
    replies.array(3);
    replies.bulk("master");
    replies.integer(0);
    replies.array(0);
}

/// `QUORUMOR.MEMBERS`.
pub(super) fn members(shared: &Shared, replies: &mut Replies) {
    let members = shared.node().members();
    replies.array(members.len());
    for member in members {
        replies.map(5);
        replies.bulk("node");
        replies.bulk(&member.node);
        replies.bulk("name");
        replies.bulk(&member.name);
        replies.bulk("state");
        replies.bulk(member.state.name());
        replies.bulk("this");
        replies.boolean(member.this);
        replies.bulk("address");
        match &member.address {
            Some(address) => replies.bulk(address),
            None => replies.null(),
        }
    }
}

/// `QUORUMOR.DIGEST`: what this peer holds, in short and by origin. Peers with equal digests hold the
/// same writes, and then their fingerprints, over what they show, are equal as well.
pub(super) fn digest(batch: &mut Batch<'_>, replies: &mut Replies) {
    let shard = batch.enter().shard();
    let (digest, fingerprint) = shard.summary();
    replies.map(4);
    replies.bulk("digest");
    replies.bulk(digest.to_string());
    replies.bulk("fingerprint");
    replies.bulk(fingerprint.to_string());
    replies.bulk("counter");
    replies.bulk_integer(shard.lamport().0);
    replies.bulk("origins");
    let vector = shard.vector();
    replies.array(vector.len());
    for (origin, held) in vector.iter() {
        replies.map(3);
        replies.bulk("origin");
        replies.bulk(origin.to_string());
        replies.bulk("held-to");
        replies.bulk_integer(held.dense());
        replies.bulk("last");
        replies.bulk_integer(held.last());
    }
}

/// Finds out what a client waits for.
pub(super) async fn find_out(node: &Node, until: Until, deadline: Option<Instant>) -> Found {
    match until {
        Until::Peers(None, _) => Found::Count(0),
        Until::Peers(Some(dot), peers) => Found::Count(node.wait(dot, peers, deadline).await),
        Until::Here(dot) => Found::Count(usize::from(node.hold(dot, deadline).await)),
        Until::Everywhere(dot) => Found::Holders(node.holders(dot, deadline).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::stamp::{Epoch, Lamport};

    /// Law: what is written for a write is read as its dot again, and so is a dot alone.
    #[test]
    fn marks_are_read_as_written() {
        let dot = Dot { origin: Origin(0x5f3a), seq: 12 };
        let stamp = Stamp { epoch: Epoch(3), lamport: Lamport(17), origin: dot.origin };
        assert_eq!(mark((stamp, dot)), "3.17@0000000000005f3a#12");
        assert_eq!(parse_mark(mark((stamp, dot)).as_bytes()), Some(dot));
        assert_eq!(parse_mark(dot.to_string().as_bytes()), Some(dot));
    }

    /// Story: what is no mark is refused, however close it comes.
    #[test]
    fn what_is_no_mark_is_refused() {
        for text in [
            "",
            "#",
            "@#",
            "x",
            "0000000000005f3a",
            "0000000000005f3a#",
            "0000000000005f3a#0",
            "0000000000005f3a#-1",
            "0000000000005f3a#99999999999999999999",
            "5f3a#12",
            "+000000000005f3a#12",
            "0.1@5f3a#12",
            "1@0000000000005f3a#12",
            "x.1@0000000000005f3a#12",
            "0.1@0000000000005f3a",
            "0.1@0.1@0000000000005f3a#12",
        ] {
            assert_eq!(parse_mark(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_mark(b"\xff"), None);
    }
}
