//! Requests out of bytes: our own incremental decoder for what Redis clients send.
//!
//! A request is an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`) or, for a person at a
//! terminal, one line of words (*inline*). Nothing else may arrive, so there is nothing to recurse
//! into: a nested array is a protocol error at its first byte.
//!
//! [`Requests`] owns the bytes of one connection. The connection reads into [`Requests::space`],
//! reports how much came with [`Requests::filled`], and calls [`Requests::next`] until it answers
//! `None`. [`Arguments`] are ranges into those bytes; the vector of ranges is reused, so a request
//! costs no allocation. What is half there stays, and reading goes on at the argument that was cut.
//!
//! What must stay true:
//!
//! - Memory follows bytes that arrived, never a length that somebody claimed.
//! - How the bytes were cut into reads changes nothing: same requests, same error, same place.
//!   (Redis is laxer: it accepts a 100 kB line if one read happens to bring its end along.)
//! - After an error the stream has no meaning any more; the connection answers and closes.
//!
//! Limits and error texts are those of Redis 7 (`networking.c`: `processInlineBuffer`,
//! `processMultibulkBuffer`; quoting from `sds.c`: `sdssplitargs`), with four differences. A request
//! has at most 1,048,576 arguments, as in Redis before 7. A bulk string is at most 64 MiB,
//! not 512. A whole request is at most 128 MiB, where Redis lets a client's buffer grow
//! to 1 GiB and then hangs up without a word. And the line end behind a bulk string is checked, where
//! Redis skips two bytes unseen: a client that miscounts gets an error instead of stored garbage.

use memchr::memchr;

use super::buffers::{BUFFER_BYTES, Buffers};
use super::words;
use crate::protocol::cell::VALUE_BYTES_MAX;

/// Longest inline request, and longest line that states a length: 64 KiB, as in Redis.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Most arguments in one request, as in Redis before 7.
pub const ARGUMENTS_MAX: i64 = 1_048_576;

/// Most arguments in one request of a client that has not authenticated, as in Redis.
pub const ARGUMENTS_STRANGER_MAX: i64 = 10;

/// Longest argument: as long as a value may be. Smaller than Redis' 512 MiB: it travels to every peer.
pub const BULK_BYTES_MAX: usize = VALUE_BYTES_MAX;

/// Longest argument of a client that has not authenticated: 16 KiB, as in Redis.
pub const BULK_BYTES_STRANGER_MAX: usize = 16 * 1024;

/// Longest request with all its framing: two of the longest arguments, or many short ones.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Room behind the longest request: one line that is too long must still fit to be recognised.
const REQUEST_BYTES_SLACK: usize = 2 * LINE_BYTES_MAX;

/// Below this much free room the buffer is compacted or grown before the next read.
const SPACE_BYTES_MIN: usize = 4 * 1024;

/// A request that is half there and shorter than this moves to a buffer of its own size while the
/// connection waits for the rest, so that ten thousand slow clients do not hold 64 KiB each.
const PARKED_BYTES_MAX: usize = BUFFER_BYTES / 4;

/// What an idle connection may keep of the reused vectors: 512 bytes of ranges, 512 of unquoted text.
const SPANS_KEPT_MAX: usize = 64;
const SCRATCH_KEPT_BYTES_MAX: usize = 512;

/// Says why a client's bytes are not a request; texts as Redis words them.
///
/// The client's fault, but for the last, and always the end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line without an end after [`LINE_BYTES_MAX`].
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline request with a quote that never closes, or that closes in the middle of a word.
    #[error("Protocol error: unbalanced quotes in request")]
    QuotesUnbalanced,
    /// The line that states the number of arguments does not end within [`LINE_BYTES_MAX`].
    #[error("Protocol error: too big mbulk count string")]
    CountTooBig,
    /// The number of arguments is no number or above [`ARGUMENTS_MAX`].
    #[error("Protocol error: invalid multibulk length")]
    CountInvalid,
    /// More than [`ARGUMENTS_STRANGER_MAX`] arguments before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    CountUnauthenticated,
    /// The line that states the length of an argument does not end within [`LINE_BYTES_MAX`].
    #[error("Protocol error: too big bulk count string")]
    LengthTooBig,
    /// Something else than a bulk string where an argument was due.
    #[error("Protocol error: expected '$', got '{}'", Shown(*.0))]
    ExpectedBulk(u8),
    /// The length of an argument is no number, negative, or above the configured limit.
    #[error("Protocol error: invalid bulk length")]
    LengthInvalid,
    /// An argument above [`BULK_BYTES_STRANGER_MAX`] before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    LengthUnauthenticated,
    /// The two bytes behind an argument are not a line end. Redis does not look.
    #[error("Protocol error: expected CRLF after a bulk string")]
    LineEndMissing,
    /// The arguments together are longer than a request may be.
    #[error("Protocol error: request is too big")]
    RequestTooBig,
    /// The long requests of all clients together take too much memory now. Not this client's fault.
    #[error("too many long requests at a time, try again later")]
    Crowded,
}

/// One byte of a client as text on a line: printable as it is, a line end as a blank (so does
/// Redis), anything else escaped.
struct Shown(u8);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            b'\r' | b'\n' => f.write_str(" "),
            byte @ b' '..=b'~' => write!(f, "{}", char::from(byte)),
            byte => write!(f, "{}", byte.escape_ascii()),
        }
    }
}

/// How far a client is trusted with lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A password is required and has not been given.
    Stranger,
    /// No password is required, or it was given.
    Authenticated,
}

/// Where one argument lies, relative to the start of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

/// The arguments of one request, the command's name first. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arguments<'a> {
    source: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Arguments<'a> {
    /// How many arguments there are, the command's name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none, which a request never has.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, the command's name being 0.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let span = self.spans.get(index)?;
        self.source.get(span.start as usize..span.end as usize)
    }

    /// The argument at `index`, or nothing as an empty one: for places that an arity check covers.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// The arguments from `index` on.
    #[inline]
    pub fn skip(&self, index: usize) -> Arguments<'a> {
        Arguments { source: self.source, spans: self.spans.get(index..).unwrap_or_default() }
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let source = self.source;
        let bytes = move |span: &Span| source.get(span.start as usize..span.end as usize);
        self.spans.iter().map(move |span| bytes(span).unwrap_or_default())
    }
}

/// The arguments of a request that is executed later.
#[derive(Debug)]
pub(super) struct Kept {
    source: Box<[u8]>,
    spans: Box<[Span]>,
}

impl Kept {
    /// A copy of what a client sent.
    pub(super) fn of(arguments: Arguments<'_>) -> Self {
        let (source, spans) = (arguments.source.into(), arguments.spans.into());
        Self { source, spans }
    }

    /// How many bytes it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.source.len() + size_of_val(&*self.spans)
    }

    /// What the client sent.
    pub(super) fn arguments(&self) -> Arguments<'_> {
        Arguments { source: &self.source, spans: &self.spans }
    }
}

/// The bytes of one connection, and the requests in them.
#[derive(Debug)]
pub struct Requests {
    buffer: Vec<u8>,
    /// `buffer[start..end]` has arrived and is not consumed; `start` is where a request begins.
    start: usize,
    end: usize,
    /// Where reading goes on: the first byte of a request or of an argument's length line.
    at: usize,
    /// How many arguments of the request are still to come; 0 between requests.
    missing: usize,
    /// Whether the request that was answered last is still in front.
    complete: bool,
    /// Whether the spans point into `scratch` rather than into `buffer`.
    inline: bool,
    spans: Vec<Span>,
    scratch: Vec<u8>,
    bulk_bytes_max: usize,
    request_bytes_max: usize,
    /// What the pool has granted beyond a buffer of the usual size.
    grown_bytes: usize,
}

impl Requests {
    /// Nothing yet; holds no memory until the first read. An argument may have `bulk_bytes_max` bytes,
    /// but never more than [`BULK_BYTES_MAX`].
    pub fn new(bulk_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            end: 0,
            at: 0,
            missing: 0,
            complete: false,
            inline: false,
            spans: Vec::new(),
            scratch: Vec::new(),
            bulk_bytes_max: bulk_bytes_max.min(BULK_BYTES_MAX),
            request_bytes_max: REQUEST_BYTES_MAX,
            grown_bytes: 0,
        }
    }

    /// Room for the next read, at least one byte, taken from `pool` if there was none.
    ///
    /// Grows by doubling what has arrived, never towards a claimed length.
    ///
    /// # Errors
    /// [`ProtocolError::Crowded`] when the pool grants no growth: others hold too much. Answer it and
    /// close the connection.
    pub fn space(&mut self, pool: &Buffers) -> Result<&mut [u8], ProtocolError> {
        self.drop_consumed();
        if self.buffer.len() < BUFFER_BYTES {
            // Nothing, or a small parked request: go on in a buffer of the usual size.
            let mut buffer = pool.take();
            buffer.resize(BUFFER_BYTES, 0);
            let kept = self.buffer.get(self.start..self.end).unwrap_or_default();
            buffer[..kept.len()].copy_from_slice(kept);
            self.buffer = buffer;
            self.rebase();
        } else if self.buffer.len() - self.end < SPACE_BYTES_MIN {
            self.buffer.copy_within(self.start..self.end, 0);
            self.rebase();
            if self.buffer.len() - self.end < SPACE_BYTES_MIN {
                self.grow(pool)?;
            }
        }
        Ok(&mut self.buffer[self.end..])
    }

    /// Doubles the buffer, as far as the longest request may need it.
    #[cold]
    fn grow(&mut self, pool: &Buffers) -> Result<(), ProtocolError> {
        let longest = self.request_bytes_max + REQUEST_BYTES_SLACK;
        let growth = self.buffer.len().min(longest - self.buffer.len());
        if !pool.may_grow(growth) {
            return Err(ProtocolError::Crowded);
        }
        self.grown_bytes += growth;
        self.buffer.reserve_exact(growth);
        self.buffer.resize(self.buffer.len() + growth, 0);
        Ok(())
    }

    /// Gives everything back; nothing can be read after it.
    pub fn release(&mut self, pool: &Buffers) {
        pool.shrunk(std::mem::take(&mut self.grown_bytes));
        pool.give_back(std::mem::take(&mut self.buffer));
        (self.start, self.at, self.end) = (0, 0, 0);
    }

    /// Reports that a read put `count` bytes into [`Requests::space`].
    ///
    /// # Panics
    /// When `count` is more than the space was.
    pub fn filled(&mut self, count: usize) {
        assert!(count <= self.buffer.len() - self.end, "more bytes read than there was room for");
        self.end += count;
    }

    /// The next complete request, if it has arrived. The one before it is gone then.
    ///
    /// # Errors
    /// [`ProtocolError`] when the bytes can become no request. Answer it and close the connection.
    #[inline]
    pub fn next(&mut self, trust: Trust) -> Result<Option<Arguments<'_>>, ProtocolError> {
        self.drop_consumed();
        self.complete = self.advance(trust)?;
        if !self.complete {
            return Ok(None);
        }
        let source =
            if self.inline { &self.scratch[..] } else { &self.buffer[self.start..self.at] };
        Ok(Some(Arguments { source, spans: &self.spans }))
    }

    /// Has [`Requests::next`] answer the last request once more.
    pub fn put_back(&mut self) {
        if std::mem::take(&mut self.complete) {
            self.at = self.start;
            self.missing = 0;
            self.spans.clear();
        }
    }

    /// Gives memory back while the connection waits for its client.
    ///
    /// With nothing outstanding an idle connection holds no buffer at all.
    pub fn rest(&mut self, pool: &Buffers) {
        self.drop_consumed();
        let outstanding = self.end - self.start;
        if self.buffer.len() < BUFFER_BYTES || outstanding > PARKED_BYTES_MAX {
            return;
        }
        let parked = self.buffer[self.start..self.end].to_vec();
        pool.shrunk(std::mem::take(&mut self.grown_bytes));
        pool.give_back(std::mem::replace(&mut self.buffer, parked));
        self.rebase();
        if outstanding == 0 && self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans = Vec::new();
        }
        if outstanding == 0 && self.scratch.capacity() > SCRATCH_KEPT_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }

    /// How many bytes have arrived and wait for the rest of their request.
    pub fn outstanding(&self) -> usize {
        self.end - if self.complete { self.at } else { self.start }
    }

    /// How many bytes this connection's input holds in memory, vectors included.
    pub fn memory_bytes(&self) -> usize {
        self.buffer.capacity() + self.spans.capacity() * size_of::<Span>() + self.scratch.capacity()
    }

    /// Makes positions count from the first byte of the buffer, where the outstanding bytes now lie.
    fn rebase(&mut self) {
        self.at -= self.start;
        self.end -= self.start;
        self.start = 0;
    }

    #[inline]
    fn drop_consumed(&mut self) {
        if self.complete {
            self.complete = false;
            self.start = self.at;
            self.spans.clear();
        }
    }

    /// Reads on until a request is complete (`true`) or the bytes end (`false`).
    #[inline]
    fn advance(&mut self, trust: Trust) -> Result<bool, ProtocolError> {
        while self.missing == 0 {
            let input = &self.buffer[..self.end];
            match input.get(self.at) {
                None => return Ok(false),
                Some(b'*') => {
                    let Some((count, next)) = count_line(input, self.at)? else {
                        return Ok(false);
                    };
                    if count > ARGUMENTS_STRANGER_MAX && trust == Trust::Stranger {
                        return Err(ProtocolError::CountUnauthenticated);
                    }
                    self.at = next;
                    self.inline = false;
                    // Redis takes an array without elements, or with a negative count, for nothing.
                    match usize::try_from(count) {
                        Ok(count) if count > 0 => self.missing = count,
                        _ => self.start = next,
                    }
                }
                Some(_) => match self.inline_request()? {
                    Some(true) => return Ok(true),
                    Some(false) => self.start = self.at,
                    None => return Ok(false),
                },
            }
        }
        self.bulks(trust)
    }

    /// Reads the arguments that are still missing, as far as they have arrived.
    #[inline]
    fn bulks(&mut self, trust: Trust) -> Result<bool, ProtocolError> {
        let input = &self.buffer[..self.end];
        while self.missing > 0 {
            let Some((length, body)) = length_line(input, self.at)? else { return Ok(false) };
            if length > self.bulk_bytes_max {
                return Err(ProtocolError::LengthInvalid);
            }
            if length > BULK_BYTES_STRANGER_MAX && trust == Trust::Stranger {
                return Err(ProtocolError::LengthUnauthenticated);
            }
            let end = body + length;
            if end - self.start > self.request_bytes_max {
                return Err(ProtocolError::RequestTooBig);
            }
            match input.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::LineEndMissing),
                None => return Ok(false),
            }
            // Both fit: a request is at most `REQUEST_BYTES_MAX`, far below 4 GiB.
            let (start, end) = ((body - self.start) as u32, (end - self.start) as u32);
            self.spans.push(Span { start, end });
            self.at = body + length + 2;
            self.missing -= 1;
        }
        Ok(true)
    }

    /// Reads one line of words: whether it had any, or nothing if it has not all arrived.
    fn inline_request(&mut self) -> Result<Option<bool>, ProtocolError> {
        let input = &self.buffer[self.at..self.end];
        let window = &input[..input.len().min(LINE_BYTES_MAX + 1)];
        let Some(length) = memchr(b'\n', window) else {
            let too_big = window.len() > LINE_BYTES_MAX;
            return if too_big { Err(ProtocolError::InlineTooBig) } else { Ok(None) };
        };
        let line = &window[..length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.scratch.clear();
        let mut rest = line;
        while let Some(after) = words::next(rest, &mut self.scratch)? {
            // Both fit: unquoting never lengthens, and a line has at most `LINE_BYTES_MAX` bytes.
            let start = self.spans.last().map_or(0, |span| span.end);
            self.spans.push(Span { start, end: self.scratch.len() as u32 });
            rest = after;
        }
        self.at += length + 1;
        self.inline = true;
        Ok(Some(!self.spans.is_empty()))
    }
}

/// The number of arguments that the line at `at` states, and where the next line begins.
#[inline]
fn count_line(input: &[u8], at: usize) -> Result<Option<(i64, usize)>, ProtocolError> {
    if let Some((count, next)) = short_number_line(input, at + 1)
        && i64::from(count) <= ARGUMENTS_MAX
    {
        return Ok(Some((i64::from(count), next)));
    }
    let line = full_line(input, at, ProtocolError::CountTooBig)?;
    let Some((digits, next)) = line else { return Ok(None) };
    match integer(digits) {
        Some(count) if count <= ARGUMENTS_MAX => Ok(Some((count, next))),
        _ => Err(ProtocolError::CountInvalid),
    }
}

/// The length that the line at `at` states for an argument, and where its first byte is.
#[inline]
fn length_line(input: &[u8], at: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
    if input.get(at) == Some(&b'$')
        && let Some((length, next)) = short_number_line(input, at + 1)
    {
        return Ok(Some((length as usize, next)));
    }
    length_line_slow(input, at)
}

/// The same for the lines that are rare: cut by the end of a read, very long, or wrong.
#[cold]
fn length_line_slow(input: &[u8], at: usize) -> Result<Option<(usize, usize)>, ProtocolError> {
    let line = full_line(input, at, ProtocolError::LengthTooBig)?;
    let Some((digits, next)) = line else { return Ok(None) };
    match input.get(at) {
        Some(b'$') => {}
        Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        None => return Ok(None),
    }
    let length = integer(digits).and_then(|length| usize::try_from(length).ok());
    length.map(|length| Some((length, next))).ok_or(ProtocolError::LengthInvalid)
}

/// A number of one to nine digits and its line end, read in one go; nothing if there is anything
/// unusual about it. Nine digits cannot overflow.
#[inline]
fn short_number_line(input: &[u8], at: usize) -> Option<(u32, usize)> {
    let rest = input.get(at..)?;
    let mut number = 0_u32;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 && index < 9 {
            number = number * 10 + u32::from(digit);
            continue;
        }
        let ended = byte == b'\r' && rest.get(index + 1) == Some(&b'\n');
        let canonical = index == 1 || (index > 1 && rest[0] != b'0');
        return (ended && canonical).then_some((number, at + index + 2));
    }
    None
}

/// What stands between the first byte of the line at `at` and its end, and where the next begins.
///
/// A `\r` without its `\n` reads as an empty line, which is no number anywhere.
fn full_line(
    input: &[u8],
    at: usize,
    too_big: ProtocolError,
) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let rest = input.get(at..).unwrap_or_default();
    let window = &rest[..rest.len().min(LINE_BYTES_MAX + 1)];
    let Some(length) = memchr(b'\r', window) else {
        return if window.len() > LINE_BYTES_MAX { Err(too_big) } else { Ok(None) };
    };
    let digits = match rest.get(length + 1) {
        None => return Ok(None),
        Some(b'\n') => window.get(1..length).unwrap_or_default(),
        Some(_) => &[],
    };
    Ok(Some((digits, at + length + 2)))
}

/// A whole number as Redis reads one (`string2ll`): no sign but `-`, no blanks, no leading zeros.
pub fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, magnitude) = match digits.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, digits),
    };
    match magnitude {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ => {}
    }
    let mut number = 0_i64;
    for &byte in magnitude {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Counted downwards, because the most negative number has no positive twin.
        number = number.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    type Request = Vec<Vec<u8>>;

    /// Feeds `bytes` in pieces of the given lengths (cycled) and collects what comes out.
    fn decode(
        bytes: &[u8],
        cuts: &[usize],
        trust: Trust,
    ) -> (Vec<Request>, Option<ProtocolError>, Requests) {
        let pool = Buffers::new();
        let mut requests = Requests::new(BULK_BYTES_MAX);
        let mut found = Vec::new();
        let mut rest = bytes;
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let wanted = cuts.next().copied().unwrap_or(usize::MAX).max(1);
            let space = requests.space(&pool).unwrap();
            let count = wanted.min(rest.len()).min(space.len());
            assert!(count > 0, "there is always room for the next read");
            space[..count].copy_from_slice(&rest[..count]);
            requests.filled(count);
            rest = &rest[count..];
            loop {
                match requests.next(trust) {
                    Ok(Some(arguments)) => {
                        found.push(arguments.iter().map(<[u8]>::to_vec).collect())
                    }
                    Ok(None) => break,
                    Err(error) => return (found, Some(error), requests),
                }
            }
            requests.rest(&pool);
        }
        (found, None, requests)
    }

    fn whole(bytes: &[u8]) -> (Vec<Request>, Option<ProtocolError>) {
        let (found, error, _) = decode(bytes, &[], Trust::Authenticated);
        (found, error)
    }

    fn error_of(bytes: &[u8]) -> Option<ProtocolError> {
        whole(bytes).1
    }

    fn encode(request: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", request.len()).into_bytes();
        for argument in request {
            bytes.extend(format!("${}\r\n", argument.len()).bytes());
            bytes.extend(argument);
            bytes.extend(b"\r\n");
        }
        bytes
    }

    /// Bytes that look like the protocol often enough to reach its corners.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            vec(any::<u8>(), 0..12),
            vec(vec(any::<u8>(), 0..6), 1..5).prop_map(|request| encode(&request)),
            (-3_i64..20).prop_map(|count| format!("*{count}\r\n").into_bytes()),
            (-3_i64..20).prop_map(|length| format!("${length}\r\n").into_bytes()),
            prop_oneof![
                Just("*4294967295\r\n"),
                Just("$4294967295\r\n"),
                Just("PING\r\n"),
                Just("set \"a\\x41\" 'b'\n"),
                Just("\"unbalanced\r\n"),
                Just("\r\n"),
                Just("\r"),
                Just("*"),
                Just("$"),
                Just("*1\r\n*1\r\n"),
                Just("*00\r\n"),
            ]
            .prop_map(|text| text.as_bytes().to_vec()),
        ];
        vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Law: whatever the arguments, they come back as they were sent, however the bytes are cut.
        #[test]
        fn requests_round_trip(
            requests in vec(vec(vec(any::<u8>(), 0..40), 1..6), 0..8),
            cuts in vec(1_usize..20, 1..6),
        ) {
            let bytes: Vec<u8> = requests.iter().flat_map(|request| encode(request)).collect();
            let (found, error, rest) = decode(&bytes, &cuts, Trust::Authenticated);
            prop_assert_eq!(found, requests);
            prop_assert_eq!(error, None);
            prop_assert_eq!(rest.outstanding(), 0);
        }

        /// Law: where reads cut the bytes changes neither the requests nor the error.
        #[test]
        fn cuts_change_nothing(
            bytes in soup(),
            cuts in vec(1_usize..9, 1..6),
            stranger in any::<bool>(),
        ) {
            let trust = if stranger { Trust::Stranger } else { Trust::Authenticated };
            let (found, error, _) = decode(&bytes, &[], trust);
            let (found_cut, error_cut, _) = decode(&bytes, &cuts, trust);
            prop_assert_eq!(found, found_cut);
            prop_assert_eq!(error, error_cut);
        }

        /// Law: any bytes are requests, an error, or wait for more; memory follows what arrived.
        #[test]
        fn any_bytes_are_harmless(
            bytes in prop_oneof![soup(), vec(any::<u8>(), 0..300)],
            cuts in vec(1_usize..50, 1..6),
        ) {
            let (_, _, requests) = decode(&bytes, &cuts, Trust::Authenticated);
            prop_assert!(requests.memory_bytes() <= BUFFER_BYTES + 16 * bytes.len() + 256);
        }

        /// Law: a number reads as Rust prints it, and in no other spelling.
        #[test]
        fn integers_have_one_spelling(number in any::<i64>(), text in "[-+0-9 ]{0,21}") {
            prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
            let expected = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            prop_assert_eq!(integer(text.as_bytes()), expected);
        }
    }

    /// Story: each malformed request gets the text that Redis 7 gives for the same bytes.
    #[test]
    fn errors_read_as_in_redis() {
        let told = |bytes: &[u8]| error_of(bytes).map(|error| error.to_string());
        for (bytes, text) in [
            (&b"*4294967295\r\n"[..], "Protocol error: invalid multibulk length"),
            (b"*1048577\r\n", "Protocol error: invalid multibulk length"),
            (b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length"),
            (b"*01\r\n", "Protocol error: invalid multibulk length"),
            (b"*+1\r\n", "Protocol error: invalid multibulk length"),
            (b"* 1\r\n", "Protocol error: invalid multibulk length"),
            (b"*\r\n", "Protocol error: invalid multibulk length"),
            (b"*1\rx", "Protocol error: invalid multibulk length"),
            (b"*1\r\n$4294967295\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$67108865\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$01\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n*1\r\n", "Protocol error: expected '$', got '*'"),
            (b"*1\r\n\r\n$4\r\n", "Protocol error: expected '$', got ' '"),
            (b"*1\r\n\xff\r\n", "Protocol error: expected '$', got '\\xff'"),
            (b"*1\r\n$1\r\nabc", "Protocol error: expected CRLF after a bulk string"),
            (b"get \"a\r\n", "Protocol error: unbalanced quotes in request"),
            (b"get \"a\"b\r\n", "Protocol error: unbalanced quotes in request"),
            (b"get 'a\r\n", "Protocol error: unbalanced quotes in request"),
        ] {
            assert_eq!(
                told(bytes).as_deref(),
                Some(text),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    /// Story: a client that has not authenticated is held to small requests, as in Redis.
    #[test]
    fn strangers_send_little() {
        let error = |bytes: &[u8]| decode(bytes, &[], Trust::Stranger).1;
        assert_eq!(error(b"*11\r\n"), Some(ProtocolError::CountUnauthenticated));
        assert_eq!(error(b"*10\r\n"), None);
        assert_eq!(error(b"*1\r\n$16385\r\n"), Some(ProtocolError::LengthUnauthenticated));
        assert_eq!(error(b"*1\r\n$16384\r\n"), None);
        assert_eq!(error_of(b"*11\r\n"), None);
        assert_eq!(error_of(b"*1\r\n$16385\r\n"), None);
    }

    /// Story: a line without an end is refused at 64 KiB, whichever kind of line it is, and however
    /// slowly it comes.
    #[test]
    fn endless_lines_are_refused() {
        for (head, expected) in [
            (&b"x"[..], ProtocolError::InlineTooBig),
            (b"*1", ProtocolError::CountTooBig),
            (b"*1\r\n$1", ProtocolError::LengthTooBig),
        ] {
            for cut in [1000, usize::MAX] {
                let mut bytes = head.to_vec();
                bytes.resize(head.len() + LINE_BYTES_MAX + 1, b'1');
                let (found, error, requests) = decode(&bytes, &[cut], Trust::Authenticated);
                assert_eq!((found, error), (vec![], Some(expected)));
                assert!(requests.memory_bytes() <= 4 * BUFFER_BYTES);
            }
        }
        let mut longest = vec![b'x'; LINE_BYTES_MAX];
        longest.extend(b"\n");
        assert_eq!(whole(&longest), (vec![vec![vec![b'x'; LINE_BYTES_MAX]]], None));
    }

    /// Story: 100,000 nested arrays are an error at the second, and cost no stack.
    #[test]
    fn nesting_is_an_error_at_once() {
        let bytes = b"*1\r\n".repeat(100_000);
        assert_eq!(whole(&bytes), (vec![], Some(ProtocolError::ExpectedBulk(b'*'))));
    }

    /// Story: a claimed length reserves nothing; only bytes that came take memory.
    #[test]
    fn claims_reserve_nothing() {
        let bytes = b"*1048576\r\n$67108864\r\nabc";
        let (found, error, requests) = decode(bytes, &[], Trust::Authenticated);
        assert_eq!((found, error), (vec![], None));
        assert_eq!(requests.outstanding(), bytes.len());
        assert!(requests.memory_bytes() < 256, "parked at its own size");
    }

    /// Story: arguments that each are allowed are refused once they exceed a request together, at the
    /// length line, before their bytes come.
    #[test]
    fn requests_are_bounded() {
        let pool = Buffers::new();
        let mut requests = Requests::new(1 << 20);
        requests.request_bytes_max = 3 << 20;
        let mut bytes = b"*4\r\n".to_vec();
        for _ in 0..2 {
            bytes.extend(b"$1048576\r\n");
            bytes.resize(bytes.len() + (1 << 20), b'v');
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"$1048576\r\n");
        let mut rest = &bytes[..];
        let error = loop {
            let space = requests.space(&pool).unwrap();
            let count = space.len().min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            requests.filled(count);
            rest = &rest[count..];
            match requests.next(Trust::Authenticated) {
                Ok(None) => assert!(!rest.is_empty(), "refused with the last length line"),
                other => break other.err(),
            }
        };
        assert_eq!(error, Some(ProtocolError::RequestTooBig));
        assert!(requests.memory_bytes() <= requests.request_bytes_max + REQUEST_BYTES_SLACK + 256);
    }

    /// Story: when all clients together hold too much, the next long request is refused, and short
    /// ones are not.
    #[test]
    fn long_requests_share_a_bound() {
        let pool = Buffers::new();
        assert!(pool.may_grow(crate::api::resp::buffers::GROWTH_BYTES_MAX - BUFFER_BYTES));
        let long = |requests: &mut Requests| {
            let mut bytes = &b"*1\r\n$1000000\r\n"[..];
            loop {
                match requests.space(&pool) {
                    Ok(space) => {
                        let count = space.len();
                        space[..bytes.len()].copy_from_slice(bytes);
                        space[bytes.len()..].fill(b'x');
                        requests.filled(count);
                        bytes = b"";
                    }
                    Err(error) => return error,
                }
                assert_eq!(requests.next(Trust::Authenticated), Ok(None));
            }
        };
        let (mut one, mut two) = (Requests::new(BULK_BYTES_MAX), Requests::new(BULK_BYTES_MAX));
        assert_eq!(long(&mut one), ProtocolError::Crowded);
        assert_eq!(long(&mut two), ProtocolError::Crowded);
        assert_eq!((one.buffer.len(), two.buffer.len()), (2 * BUFFER_BYTES, BUFFER_BYTES));
        one.release(&pool);
        two.release(&pool);
        let mut three = Requests::new(BULK_BYTES_MAX);
        assert_eq!(long(&mut three), ProtocolError::Crowded);
        assert_eq!(three.buffer.len(), 2 * BUFFER_BYTES, "the first one's share is free again");
    }

    /// Story: a value of 64 MiB arrives in pieces, and afterwards the connection is small again.
    #[test]
    fn the_longest_value_passes_and_leaves_nothing() {
        let mut bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n".to_vec();
        bytes.resize(bytes.len() + BULK_BYTES_MAX, b'v');
        bytes.extend(b"\r\n*1\r\n$4\r\nPI");
        let (found, error, requests) = decode(&bytes, &[1_000_003], Trust::Authenticated);
        assert_eq!(error, None);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0][2].len(), BULK_BYTES_MAX);
        assert!(requests.memory_bytes() < 256, "{}", requests.memory_bytes());
    }

    /// Story: empty requests are nothing, as in Redis, however many there are.
    #[test]
    fn empty_requests_are_skipped() {
        let mut bytes = b"*0\r\n*-1\r\n\r\n   \n".repeat(50_000);
        bytes.extend(b"PING\r\n");
        assert_eq!(whole(&bytes), (vec![vec![b"PING".to_vec()]], None));
    }

    /// Story: a person may type a request, with quotes, over either line end.
    #[test]
    fn people_type_lines() {
        let words = |line: &[u8]| whole(line).0.into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(words(b"  SET k\tv \r\n"), [&b"SET"[..], b"k", b"v"]);
        assert_eq!(words(b"set \"a b\" 'c d'\n"), [&b"set"[..], b"a b", b"c d"]);
        assert_eq!(
            words(b"x \"\\x41\\xfF\\n\\r\\t\\b\\a\\q\\\"\"\n"),
            [&b"x"[..], b"A\xff\n\r\t\x08\x07q\""]
        );
        assert_eq!(words(b"x \"\\xzz\" 'it\\'s' ''\n"), [&b"x"[..], b"xzz", b"it's", b""]);
        assert_eq!(words(b"x fo\"o\"\n"), [&b"x"[..], b"foo"]);
        assert_eq!(words(b"\xff\xfe k\n"), [&b"\xff\xfe"[..], b"k"]);
    }
}
