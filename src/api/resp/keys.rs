//! The commands about keys and their values.
//!
//! Reads go past the shard, straight from the map into the reply. The first write of a batch enters
//! the shard, once; everything else of the batch that needs it, whichever client's it is, uses the same
//! entry, and the pushes to peers leave when the batch does. A read that follows a write in one pipeline sees it, since the
//! write is done by then.

use std::time::{Duration, Instant};

use super::parse::{Arguments, integer};
use super::reply::Replies;
use super::settings::{PATTERN_BYTES_MAX, reply_pattern_too_long};
use crate::protocol::boundary::Reply;
use crate::protocol::cell::{KEY_BYTES_MAX, WRITE_BYTES_MAX};
use crate::protocol::glob;
use crate::protocol::message::Published;
use crate::protocol::operation::{Answer, Mode, Refused};
use crate::protocol::stamp::{Dot, Stamp};
use crate::protocol::store::Text;
use crate::protocol::time::WallTime;
use crate::server::{Entered, Node, Position};

/// The longest reply to one command; `MGET` over many large values would have no end otherwise. Four
/// of the longest values.
pub(super) const REPLY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Most keys that one `SCAN` looks at, whatever its `COUNT`, and that `KEYS` looks at between two
/// breaths: under a millisecond with the shard locked.
pub(super) const SCANNED_MAX: usize = 1_000;

/// How many keys `SCAN` looks at unless told, as in Redis.
const SCANNED_DEFAULT: usize = 10;

/// After this many commands a batch leaves the shard for a moment: some tenths of a millisecond.
const BATCH_COMMANDS_MAX: u64 = 512;

/// After this time a batch leaves the shard for a moment, so that gossip gets in.
const BATCH_TIME_MAX: Duration = Duration::from_micros(500);

/// The way into the shard of one batch, of many clients' requests; made when it is first needed.
pub(super) struct Batch<'a> {
    pub(super) node: &'a Node,
    entered: Option<Entered<'a>>,
    waits: Option<Position>,
    /// The time of the batch, by which deadlines are judged.
    pub(super) now: WallTime,
    /// How often the shard was used.
    uses: u64,
    /// How many commands were executed since it was left.
    commands: u64,
    entered_at: Option<Instant>,
    /// What the clients of this batch publish.
    pub(super) published: Vec<Published>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        let now = node.wall();
        Self {
            node,
            entered: None,
            waits: None,
            now,
            uses: 0,
            commands: 0,
            entered_at: None,
            published: Vec::new(),
        }
    }

    /// How writes are ordered.
    pub(super) fn mode(&self) -> Mode {
        self.node.mode()
    }

    /// Whether the node answers at once, by itself alone.
    #[inline]
    pub(super) fn is_direct(&self) -> bool {
        self.node.is_direct()
    }

    /// What decides what is random in one operation.
    pub(super) fn dice(&self) -> u64 {
        self.node.dice()
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
    pub(super) fn enter(&mut self) -> &mut Entered<'a> {
        self.uses += 1;
        self.entered.get_or_insert_with(|| {
            self.entered_at = Some(Instant::now());
            self.node.enter()
        })
    }
}

/// What Redis says when it may use no more memory.
pub(super) const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// The dot of a write and its answer, or nothing if it was refused and that has been answered.
#[inline]
pub(super) fn outcome(
    batch: &Batch<'_>,
    reply: Reply,
    replies: &mut Replies,
) -> Option<(Option<(Stamp, Dot)>, Answer)> {
    match reply {
        Reply::Operated { written, answer } => Some((written, answer)),
        Reply::Written { stamp, dot, .. } => Some((Some((stamp, dot)), Answer::Ok)),
        Reply::Nothing => Some((None, Answer::Ok)),
        Reply::TooLarge => {
            let value_bytes_max = batch.node.config().value_bytes_max;
            replies.error(format!(
                "ERR too large: a key may take {KEY_BYTES_MAX} bytes, a value {value_bytes_max}, and \
                 one write, which travels to the peers as a whole, {WRITE_BYTES_MAX}"
            ));
            None
        }
        Reply::Reserved => {
            replies.error(Refused::Reserved.to_string());
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
        Reply::Refused(refusal) => {
            replies.error(refusal.to_string());
            None
        }
        Reply::Exhausted
        | Reply::Switched(_)
        | Reply::Answer { .. }
        | Reply::Unknown
        | Reply::Begun => {
            replies.error("ERR this node has used up its sequence numbers and writes no more");
            None
        }
    }
}

/// `GET key`.
#[inline]
pub(super) fn get(batch: &Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let key = arguments.at(1);
    // At one instant: between two questions a peer's write may come.
    batch.node.reader().text(key, batch.now, |text| match text {
        Text::Is(value) => replies.bulk(value),
        Text::Nothing => replies.null(),
        Text::Another => replies.error(Refused::WrongKind.to_string()),
    });
}

/// `MGET key [key ...]`; what is no string reads as nothing.
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

/// `SET key value`, without options; the dot of the write, if there was one.
#[inline]
pub(super) fn set(
    batch: &mut Batch<'_>,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) -> Option<(Stamp, Dot)> {
    let reply = batch.enter().set(arguments.at(1), arguments.at(2));
    let (written, answer) = outcome(batch, reply, replies)?;
    answer.write(replies);
    written
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`.
pub(super) fn scan(batch: &mut Batch<'_>, arguments: Arguments<'_>, replies: &mut Replies) {
    let cursor = std::str::from_utf8(arguments.at(1)).ok().and_then(|text| text.parse().ok());
    let Some(cursor) = cursor else { return replies.error("ERR invalid cursor") };
    let (mut pattern, mut count, mut kind) = (None, SCANNED_DEFAULT, None);
    let options = arguments.skip(2);
    for index in (0..options.len()).step_by(2) {
        let Some(value) = options.get(index + 1) else { return replies.error("ERR syntax error") };
        match options.at(index).to_ascii_lowercase().as_slice() {
            b"match" if value.len() > PATTERN_BYTES_MAX => return reply_pattern_too_long(replies),
            b"match" => pattern = Some(value),
            b"type" => kind = Some(value),
            b"count" => match integer(value) {
                None => return replies.error("ERR value is not an integer or out of range"),
                Some(..=0) => return replies.error("ERR syntax error"),
                Some(wanted) => count = usize::try_from(wanted).unwrap_or(SCANNED_MAX),
            },
            _ => return replies.error("ERR syntax error"),
        }
    }
    let mut keys = Found::new(pattern);
    let now = batch.now;
    let next = batch.enter().scan(cursor, count.min(SCANNED_MAX), now, |key, of_kind| {
        if kind.is_none_or(|kind| kind.eq_ignore_ascii_case(of_kind.name().as_bytes())) {
            keys.take(key);
        }
    });
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
    let mut keys = Found::new(Some(pattern));
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
    bytes: Replies,
    count: usize,
}

impl<'a> Found<'a> {
    /// No keys yet.
    fn new(pattern: Option<&'a [u8]>) -> Self {
        // A pattern that matches everything need not be tried.
        let pattern = pattern.filter(|pattern| *pattern != b"*");
        Self { pattern, bytes: Replies::default(), count: 0 }
    }

    fn take(&mut self, key: &[u8]) {
        if self.pattern.is_none_or(|pattern| glob::matches(pattern, key)) {
            self.bytes.bulk(key);
            self.count += 1;
        }
    }

    fn reply(&self, replies: &mut Replies) {
        replies.array(self.count);
        replies.append(&self.bytes);
    }
}

pub(super) fn reply_too_long(replies: &mut Replies) {
    replies.error(format!(
        "ERR the reply would be longer than {REPLY_BYTES_MAX} bytes; ask for fewer keys at a time"
    ));
}
