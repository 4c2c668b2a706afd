//! The commands about keys and their values.
//!
//! Reads go past the shard, straight from the map into the reply. The first write of a batch enters
//! the shard, once; everything else of the batch that needs it, whichever client's it is, uses the same
//! entry, and the pushes to peers leave when the batch does. A read that follows a write in one pipeline sees it, since the
//! write is done by then.

use std::time::{Duration, Instant};

use super::command::{Reason, needs_strong};
use super::parse::{Arguments, integer};
use super::reply::Replies;
use super::settings::{PATTERN_BYTES_MAX, reply_pattern_too_long};
use crate::protocol::boundary::Reply;
use crate::protocol::cell::{KEY_BYTES_MAX, WRITE_BYTES_MAX};
use crate::protocol::glob;
use crate::protocol::stamp::Dot;
use crate::protocol::time::WallTime;
use crate::server::{Entered, Node, Position};

/// The longest reply to one command; `MGET` over many large values would have no end otherwise. Four
/// of the longest values.
pub(super) const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most keys that one `SCAN` looks at, whatever its `COUNT`, and that `KEYS` looks at between two
/// breaths: under a millisecond with the shard locked.
const SCANNED_MAX: usize = 1_000;

/// How many keys `SCAN` looks at unless told, as in Redis.
const SCANNED_DEFAULT: usize = 10;

/// Bytes that a key takes beyond its name and value, about; for `MEMORY USAGE`.
const KEY_BYTES_EXTRA: usize = 200;

/// After this many commands a batch leaves the shard for a moment: some tenths of a millisecond.
const BATCH_COMMANDS_MAX: u64 = 512;

/// After this time a batch leaves the shard for a moment, so that gossip gets in.
const BATCH_TIME_MAX: Duration = Duration::from_micros(500);

/// The way into the shard of one batch, of many clients' requests; made when it is first needed.
pub(super) struct Batch<'a> {
    node: &'a Node,
    entered: Option<Entered<'a>>,
    waits: Option<Position>,
    /// The time of the batch, by which deadlines are judged.
    now: WallTime,
    /// How often the shard was used.
    uses: u64,
    /// How many commands were executed since it was left.
    commands: u64,
    entered_at: Option<Instant>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        let now = node.wall();
        Self { node, entered: None, waits: None, now, uses: 0, commands: 0, entered_at: None }
    }

    /// How often the shard was used so far: who sees no more than before has nothing to wait for.
    pub(super) fn uses(&self) -> u64 {
        self.uses
    }

    /// Counts a command, and leaves the shard for a moment after many.
    #[inline]
    pub(super) fn count(&mut self) {
        self.commands += 1;
        if self.commands >= BATCH_COMMANDS_MAX {
            self.leave();
        }
    }

    /// Leaves the shard for a moment if it has been held for long.
    pub(super) fn breathe(&mut self) {
        if self.entered_at.is_some_and(|at| at.elapsed() >= BATCH_TIME_MAX) {
            self.leave();
        }
    }

    /// Leaves the shard, so that others get in and pushes leave.
    pub(super) fn leave(&mut self) {
        self.commands = 0;
        self.entered_at = None;
        if let Some(entered) = self.entered.take() {
            self.waits = entered.finish().max(self.waits);
        }
    }

    /// Ends the batch; its answers must not be given before the journal is durable up to there.
    pub(super) fn finish(mut self) -> Option<Position> {
        self.leave();
        self.waits
    }

    #[inline]
    fn enter(&mut self) -> &mut Entered<'a> {
        self.uses += 1;
        self.entered.get_or_insert_with(|| {
            self.entered_at = Some(Instant::now());
            self.node.enter()
        })
    }
}

/// What Redis says when it may use no more memory.
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// What came of a write, or nothing if it failed and that has been answered.
#[inline]
fn outcome(batch: &Batch<'_>, reply: Reply, replies: &mut Replies) -> Option<Written> {
    match reply {
        // What is asked for with words of its own is answered with them.
        Reply::Operated { written, .. } => {
            Some(Written { dot: written.map(|(_, dot)| dot), changed: 0 })
        }
        Reply::Written { dot, changed, .. } => Some(Written { dot: Some(dot), changed }),
        Reply::Nothing => Some(Written { dot: None, changed: 0 }),
        Reply::TooLarge => {
            let value_bytes_max = batch.node.config().value_bytes_max;
            replies.error(format!(
                "ERR too large: a key may take {KEY_BYTES_MAX} bytes, a value {value_bytes_max}, and \
                 one write, which travels to the peers as a whole, {WRITE_BYTES_MAX}"
            ));
            None
        }
        Reply::Reserved => {
            replies
                .error("ERR reserved: keys that begin with \\0quorumor belong to the store itself");
            None
        }
        Reply::OutOfMemory => {
            replies.error(OOM);
            None
        }
        Reply::Unwritable => {
            let why = batch.node.refuses_writes().unwrap_or_default();
            replies.error(format!("MISCONF writes are refused, reads go on: {why}"));
            None
        }
        Reply::Exhausted | Reply::Answer { .. } | Reply::Unknown | Reply::Begun => {
            replies.error("ERR this node has used up its sequence numbers and writes no more");
            None
        }
    }
}

/// What came of a write.
struct Written {
    dot: Option<Dot>,
    changed: usize,
}

/// `GET key`.
#[inline]
pub(super) fn get(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    batch.node.reader().string(arguments.at(1), batch.now, |value| replies.bulk_or_null(value));
}

/// `MGET key [key ...]`.
pub(super) fn mget(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let start = replies.len();
    replies.array(arguments.len() - 1);
    for key in arguments.skip(1).iter() {
        batch.node.reader().string(key, batch.now, |value| replies.bulk_or_null(value));
        if replies.len() - start > REPLY_BYTES_MAX {
            replies.truncate(start);
            return reply_too_long(replies);
        }
    }
}

/// `SET key value [option ...]`; the dot of the write, if there was one.
#[inline]
pub(super) fn set(
    batch: &mut Batch<'_>,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) -> Option<Dot> {
    if arguments.len() > 3 && !plain_set(arguments.skip(3), replies) {
        return None;
    }
    let reply = batch.enter().set(arguments.at(1), arguments.at(2));
    let written = outcome(batch, reply, replies)?;
    replies.ok();
    written.dot
}

/// Reads the options of `SET` as Redis does: whether they leave a plain write. If not, that has been
/// answered. `KEEPTTL` keeps what no key has, so it changes nothing.
#[cold]
fn plain_set(options: Arguments<'_>, replies: &mut Replies) -> bool {
    let mut condition = None;
    let mut deadline = None;
    let mut keeps = false;
    let mut index = 0;
    while let Some(option) = options.get(index) {
        let value = options.get(index + 1);
        match (option.to_ascii_uppercase().as_slice(), value) {
            (b"NX", _) if condition != Some("SET ... XX") => condition = Some("SET ... NX"),
            (b"XX", _) if condition != Some("SET ... NX") => condition = Some("SET ... XX"),
            (b"GET", _) => condition = condition.or(Some("SET ... GET")),
            (b"KEEPTTL", _) if deadline.is_none() => keeps = true,
            (b"EX" | b"PX" | b"EXAT" | b"PXAT", Some(value)) if deadline.is_none() && !keeps => {
                deadline = Some(value);
                index += 1;
            }
            _ => {
                replies.error("ERR syntax error");
                return false;
            }
        }
        index += 1;
    }
    match deadline.map(integer) {
        Some(None) => replies.error("ERR value is not an integer or out of range"),
        Some(Some(..=0)) => replies.error("ERR invalid expire time in 'set' command"),
        _ if condition.is_some() => {
            needs_strong(replies, condition.unwrap_or_default(), Reason::Condition);
        }
        Some(Some(_)) => replies.error(
            "ERR 'SET' with a deadline is not supported yet by Quorumor; its keys do not expire",
        ),
        None => return true,
    }
    false
}

/// `MSET key value [key value ...]`: one write, seen by peers as a whole.
pub(super) fn mset(
    batch: &mut Batch<'_>,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) -> Option<Dot> {
    if arguments.len().is_multiple_of(2) {
        replies.error("ERR wrong number of arguments for 'mset' command");
        return None;
    }
    let index = (1..arguments.len()).step_by(2);
    let pairs: Vec<_> = index.map(|it| (arguments.at(it), arguments.at(it + 1))).collect();
    let reply = batch.enter().set_all(&pairs);
    let written = outcome(batch, reply, replies)?;
    replies.ok();
    written.dot
}

/// `DEL key [key ...]`.
pub(super) fn del(
    batch: &mut Batch<'_>,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) -> Option<Dot> {
    let reply = if arguments.len() == 2 {
        batch.enter().delete(&[arguments.at(1)])
    } else {
        let keys: Vec<_> = arguments.skip(1).iter().collect();
        batch.enter().delete(&keys)
    };
    let written = outcome(batch, reply, replies)?;
    replies.count(written.changed);
    written.dot
}

/// `EXISTS key [key ...]`; a key named twice counts twice, as in Redis.
pub(super) fn exists(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let keys = arguments.skip(1).iter();
    replies.count(keys.filter(|key| batch.node.reader().contains(key, batch.now)).count());
}

/// `STRLEN key`.
pub(super) fn strlen(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let length = batch
        .node
        .reader()
        .string(arguments.at(1), batch.now, |value| value.map_or(0, <[u8]>::len));
    replies.count(length);
}

/// `TYPE key`.
pub(super) fn type_of(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    replies.simple(if batch.node.reader().contains(arguments.at(1), batch.now) {
        "string"
    } else {
        "none"
    });
}

/// `TTL key` and `PTTL key`: no key has a deadline.
pub(super) fn ttl(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    replies.integer(if batch.node.reader().contains(arguments.at(1), batch.now) { -1 } else { -2 });
}

/// `MEMORY USAGE key [SAMPLES count]`: an estimate.
pub(super) fn memory_usage(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let options = arguments.skip(3);
    let samples = options.at(0).eq_ignore_ascii_case(b"samples");
    if !(options.is_empty() || options.len() == 2 && samples) {
        return replies.error("ERR syntax error");
    }
    if !options.is_empty() && integer(options.at(1)).is_none_or(|count| count < 0) {
        return replies.error("ERR value is not an integer or out of range");
    }
    let key = arguments.at(2);
    match batch.node.reader().string(key, batch.now, |value| value.map(<[u8]>::len)) {
        Some(length) => replies.count(key.len() + length + KEY_BYTES_EXTRA),
        None => replies.null(),
    }
}

/// `DBSIZE`.
pub(super) fn dbsize(batch: &mut Batch<'_>, replies: &mut Replies) {
    let count = batch.enter().keys_live();
    replies.count(count);
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
pub(super) fn scan(batch: &mut Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let cursor = std::str::from_utf8(arguments.at(1)).ok().and_then(|text| text.parse().ok());
    let Some(cursor) = cursor else { return replies.error("ERR invalid cursor") };
    let (mut pattern, mut count, mut strings) = (None, SCANNED_DEFAULT, true);
    let options = arguments.skip(2);
    for index in (0..options.len()).step_by(2) {
        let Some(value) = options.get(index + 1) else { return replies.error("ERR syntax error") };
        match options.at(index).to_ascii_lowercase().as_slice() {
            b"match" if value.len() > PATTERN_BYTES_MAX => return reply_pattern_too_long(replies),
            b"match" => pattern = Some(value),
            b"type" => strings = value.eq_ignore_ascii_case(b"string"),
            b"count" => match integer(value) {
                None => return replies.error("ERR value is not an integer or out of range"),
                Some(..=0) => return replies.error("ERR syntax error"),
                Some(wanted) => count = usize::try_from(wanted).unwrap_or(SCANNED_MAX),
            },
            _ => return replies.error("ERR syntax error"),
        }
    }
    let mut keys = Found::new(pattern, strings);
    let now = batch.now;
    let next = batch.enter().scan(cursor, count.min(SCANNED_MAX), now, |key, _| keys.take(key));
    replies.array(2);
    replies.bulk_integer(next);
    keys.reply(replies);
}

/// `KEYS pattern`. Leaves the shard from time to time, so it is no snapshot: like `SCAN`, it tells
/// every key that is there from beginning to end.
pub(super) fn keys(batch: &mut Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let pattern = arguments.at(1);
    if pattern.len() > PATTERN_BYTES_MAX {
        return reply_pattern_too_long(replies);
    }
    let mut keys = Found::new(Some(pattern), true);
    let mut cursor = 0;
    loop {
        let now = batch.now;
        cursor = batch.enter().scan(cursor, SCANNED_MAX, now, |key, _| keys.take(key));
        batch.leave();
        if keys.bytes.len() > REPLY_BYTES_MAX {
            return reply_too_long(replies);
        }
        if cursor == 0 {
            return keys.reply(replies);
        }
    }
}

/// Keys gathered under the shard's lock, whose number is not known before the last.
struct Found<'a> {
    pattern: Option<&'a [u8]>,
    wanted: bool,
    bytes: Replies,
    count: usize,
}

impl<'a> Found<'a> {
    /// No keys yet; none ever unless `wanted`.
    fn new(pattern: Option<&'a [u8]>, wanted: bool) -> Self {
        // A pattern that matches everything need not be tried.
        let pattern = pattern.filter(|pattern| *pattern != b"*");
        Self { pattern, wanted, bytes: Replies::default(), count: 0 }
    }

    fn take(&mut self, key: &[u8]) {
        if self.wanted && self.pattern.is_none_or(|pattern| glob::matches(pattern, key)) {
            self.bytes.bulk(key);
            self.count += 1;
        }
    }

    fn reply(&self, replies: &mut Replies) {
        replies.array(self.count);
        replies.append(&self.bytes);
    }
}

fn reply_too_long(replies: &mut Replies) {
    replies.error(format!(
        "ERR the reply would be longer than {REPLY_BYTES_MAX} bytes; ask for fewer keys at a time"
    ));
}
