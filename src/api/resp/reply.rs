//! Replies as bytes, in both versions of the Redis protocol.
//!
//! [`Replies`] is a growing buffer with one verb per kind of reply. What RESP2 does not know (maps,
//! sets, doubles, booleans, nulls of their own, verbatim text, pushes) is written there as Redis
//! writes it, so that a command says what it means once and never asks for the version.
//!
//! Aggregates are announced, then filled: `map(2)` must be followed by two keys and two values.
//! Nothing checks that; the tests of each command do. Replies of a whole batch gather here and
//! leave in one write. A reply that the shard gives later keeps its place by [`Replies::later`].
//!
//! Source: the RESP3 specification (antirez, 2018) and Redis 7's `networking.c` (`addReply…`).

use crate::protocol::boundary::{Reply, Token};

/// The version of the protocol that a connection has agreed on with `HELLO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What every connection starts with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// The replies of one batch, in order, not yet sent.
#[derive(Debug, Default)]
pub struct Replies {
    bytes: Vec<u8>,
    protocol: Protocol,
    later: Vec<Later>,
}

/// Writes a reply of what the shard answered later.
type WriteLater = Box<dyn FnOnce(Reply, &mut Replies) + Send>;

/// A reply that is not known yet.
pub(super) struct Later {
    /// The byte before which it stands.
    pub(super) at: usize,
    /// The request that it answers.
    pub(super) token: Token,
    protocol: Protocol,
    write: WriteLater,
}

impl Later {
    /// The reply as bytes.
    pub(super) fn write(self, reply: Reply) -> Vec<u8> {
        let mut replies = Replies::new(Vec::new(), self.protocol);
        (self.write)(reply, &mut replies);
        replies.into_buffer()
    }
}

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Later({:?} before byte {})", self.token, self.at)
    }
}

impl Replies {
    /// No replies, to be gathered in `buffer`, whose content is dropped.
    pub fn new(mut buffer: Vec<u8>, protocol: Protocol) -> Self {
        buffer.clear();
        Self { bytes: buffer, protocol, later: Vec::new() }
    }

    /// Keeps the place of a reply that the shard gives later, to the request with this token; `write`
    /// then makes a reply of its answer. It waits, and those behind it, but nothing else does.
    pub fn later(&mut self, token: Token, write: impl FnOnce(Reply, &mut Self) + Send + 'static) {
        let (at, protocol) = (self.bytes.len(), self.protocol);
        self.later.push(Later { at, token, protocol, write: Box::new(write) });
    }

    /// The replies that are still to be given, in order.
    pub(super) fn take_later(&mut self) -> impl Iterator<Item = Later> + '_ {
        self.later.drain(..)
    }

    /// The version in which replies are written from now on.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the version for the replies to come.
    pub fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Everything written so far.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes have been written.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes back everything behind the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Where the next reply will stand; for [`Replies::take_back`].
    pub(super) fn place(&self) -> (usize, usize) {
        (self.bytes.len(), self.later.len())
    }

    /// Takes back everything written since a place was asked for, replies that come later included.
    pub(super) fn take_back(&mut self, (length, later): (usize, usize)) {
        self.bytes.truncate(length);
        self.later.truncate(later);
    }

    /// Forgets the first `length` bytes.
    pub(super) fn remove_front(&mut self, length: usize) {
        self.bytes.drain(..length.min(self.bytes.len()));
    }

    /// Gathers in a buffer of `lend` from now on, if there is none.
    pub(super) fn borrow_buffer(&mut self, lend: impl FnOnce() -> Vec<u8>) {
        if self.bytes.capacity() == 0 {
            self.bytes = lend();
            self.bytes.clear();
        }
    }

    /// Exchanges what was written for another buffer.
    pub(super) fn swap_buffer(&mut self, buffer: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, buffer);
    }

    /// Takes the buffer away.
    pub(super) fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Adds replies that were written elsewhere.
    pub fn append(&mut self, others: &Replies) {
        self.bytes.extend_from_slice(&others.bytes);
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.bytes.extend_from_slice(b"+OK\r\n");
    }

    /// A short status text.
    pub fn simple(&mut self, text: &str) {
        self.bytes.push(b'+');
        self.line(text.as_bytes());
    }

    /// An error. The text begins with its code (`ERR …`) and may hold a client's bytes; line ends
    /// in it become blanks, as in Redis.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.bytes.push(b'-');
        self.line(text.as_ref());
    }

    /// A whole number.
    #[inline]
    pub fn integer(&mut self, number: i64) {
        self.header(b':', number);
    }

    /// How many there are of something.
    #[inline]
    pub fn count(&mut self, count: usize) {
        self.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        // One growth at most, room for the length line and the line end included.
        self.bytes.reserve(bytes.len() + 24);
        self.length(b'$', bytes.len());
        self.bytes.extend_from_slice(bytes);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// A string, or null if there is none.
    #[inline]
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Nothing, where a string could have been.
    #[inline]
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Nothing, where an array could have been.
    pub fn null_array(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// Announces `length` replies that belong together.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// Announces `pairs` keys, each with its value; in RESP2 an array of both.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => self.length(b'%', pairs),
        }
    }

    /// Announces `length` pairs; in RESP2 an array of all that is in them.
    pub fn pairs(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(length * 2),
            Protocol::Resp3 => self.array(length),
        }
    }

    /// Announces one of the pairs.
    pub fn pair(&mut self) {
        if self.protocol == Protocol::Resp3 {
            self.array(2);
        }
    }

    /// Announces `length` replies without order; in RESP2 an array.
    pub fn set(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(length),
            Protocol::Resp3 => self.length(b'~', length),
        }
    }

    /// Announces `length` replies that answer no request; in RESP2 an array.
    pub fn push(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(length),
            Protocol::Resp3 => self.length(b'>', length),
        }
    }

    /// A floating-point number, the shortest text that reads back as the same; in RESP2 a string.
    pub fn double(&mut self, number: f64) {
        let text = match number {
            _ if number.is_nan() => "nan".to_owned(),
            f64::INFINITY => "inf".to_owned(),
            f64::NEG_INFINITY => "-inf".to_owned(),
            // Plain digits are longer than a power of ten out there.
            _ if number != 0.0 && !(1e-5..1e17).contains(&number.abs()) => format!("{number:e}"),
            _ => number.to_string(),
        };
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.bytes.push(b',');
                self.line(text.as_bytes());
            }
        }
    }

    /// True or false; in RESP2 1 or 0.
    pub fn boolean(&mut self, truth: bool) {
        match (self.protocol, truth) {
            (Protocol::Resp2, _) => self.integer(i64::from(truth)),
            (Protocol::Resp3, true) => self.bytes.extend_from_slice(b"#t\r\n"),
            (Protocol::Resp3, false) => self.bytes.extend_from_slice(b"#f\r\n"),
        }
    }

    /// Text for people, to be shown as it is; in RESP2 a string.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text),
            Protocol::Resp3 => {
                self.length(b'=', text.len() + 4);
                self.bytes.extend_from_slice(b"txt:");
                self.bytes.extend_from_slice(text.as_bytes());
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// An integer as a string, for the few commands whose numbers are strings.
    pub fn bulk_integer(&mut self, number: u64) {
        let mut digits = itoa::Buffer::new();
        self.bulk(digits.format(number));
    }

    /// Several lines of plain text as an array of status texts: what every `HELP` answers.
    pub fn help(&mut self, lines: &[&str]) {
        self.array(lines.len());
        for line in lines {
            self.simple(line);
        }
    }

    /// Text up to a line end, with no line end of its own.
    fn line(&mut self, text: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        for byte in &mut self.bytes[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.bytes.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn length(&mut self, kind: u8, length: usize) {
        self.header(kind, i64::try_from(length).unwrap_or(i64::MAX));
    }

    #[inline]
    fn header(&mut self, kind: u8, number: i64) {
        let mut digits = itoa::Buffer::new();
        self.bytes.push(kind);
        self.bytes.extend_from_slice(digits.format(number).as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `write` writes, in either version.
    fn both(write: impl Fn(&mut Replies)) -> [String; 2] {
        [Protocol::Resp2, Protocol::Resp3].map(|protocol| {
            let mut replies = Replies::new(b"left over".to_vec(), protocol);
            write(&mut replies);
            String::from_utf8(replies.into_buffer()).unwrap()
        })
    }

    /// Story: what both versions know looks the same in both.
    #[test]
    fn common_replies() {
        let same = |write: fn(&mut Replies), expected: &str| {
            assert_eq!(both(write), [expected, expected]);
        };
        same(Replies::ok, "+OK\r\n");
        same(|it| it.simple("PONG"), "+PONG\r\n");
        same(|it| it.error("ERR two\r\nlines"), "-ERR two  lines\r\n");
        same(|it| it.integer(i64::MIN), ":-9223372036854775808\r\n");
        same(|it| it.count(usize::MAX), ":9223372036854775807\r\n");
        same(|it| it.bulk(""), "$0\r\n\r\n");
        same(|it| it.bulk("a\r\nb"), "$4\r\na\r\nb\r\n");
        same(|it| it.bulk_integer(u64::MAX), "$20\r\n18446744073709551615\r\n");
        same(|it| it.array(3), "*3\r\n");
    }

    /// Story: what only RESP3 knows becomes in RESP2 what Redis makes of it.
    #[test]
    fn replies_by_version() {
        let each = |write: fn(&mut Replies), expected: [&str; 2]| assert_eq!(both(write), expected);
        each(Replies::null, ["$-1\r\n", "_\r\n"]);
        each(Replies::null_array, ["*-1\r\n", "_\r\n"]);
        each(|it| it.bulk_or_null(None), ["$-1\r\n", "_\r\n"]);
        each(|it| it.map(2), ["*4\r\n", "%2\r\n"]);
        each(|it| it.set(2), ["*2\r\n", "~2\r\n"]);
        each(|it| it.push(2), ["*2\r\n", ">2\r\n"]);
        each(|it| it.boolean(true), [":1\r\n", "#t\r\n"]);
        each(|it| it.boolean(false), [":0\r\n", "#f\r\n"]);
        each(|it| it.verbatim("a b"), ["$3\r\na b\r\n", "=7\r\ntxt:a b\r\n"]);
        each(|it| it.double(1.5), ["$3\r\n1.5\r\n", ",1.5\r\n"]);
        each(|it| it.double(-3.0), ["$2\r\n-3\r\n", ",-3\r\n"]);
        each(|it| it.double(1e300), ["$5\r\n1e300\r\n", ",1e300\r\n"]);
        each(|it| it.double(f64::INFINITY), ["$3\r\ninf\r\n", ",inf\r\n"]);
        each(|it| it.double(f64::NEG_INFINITY), ["$4\r\n-inf\r\n", ",-inf\r\n"]);
        each(|it| it.double(f64::NAN), ["$3\r\nnan\r\n", ",nan\r\n"]);
    }
}
