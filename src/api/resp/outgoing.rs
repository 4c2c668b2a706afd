//! What a connection has to say, in order, although some of it must wait.
//!
//! Replies are written as requests are executed. Two things hold them back: a write that is answered
//! only once the journal is durable so far, and a request that the shard answers later. Each leaves a
//! [`Mark`] among the replies; what stands before the first mark may leave, the rest waits behind it.
//! So the order of replies is that of the requests, whatever becomes ready first, and executing goes
//! on meanwhile.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::reply::{Later, Replies};
use crate::protocol::boundary::{Reply, Token};
use crate::server::Position;

/// While more replies than this wait, nothing more of that client is executed.
const MARKS_MAX: usize = 1_024;

/// The part of the held replies that has been moved on and is worth cutting off.
const MOVED_BYTES_MAX: usize = 16 * 1024;

/// A buffer up to this size is kept for the next connection with something to say.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Where a reply waits.
#[derive(Debug)]
struct Mark {
    /// The byte of the held replies before which it stands.
    at: usize,
    waits: Waits,
}

#[derive(Debug)]
enum Waits {
    /// Until the journal is durable up to there.
    Durable(Position),
    /// Until the shard has answered.
    Answer(Later),
    /// No longer: this is the reply.
    Answered(Vec<u8>),
}

/// The replies of one connection that have not left.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// What may leave.
    bytes: Vec<u8>,
    sent: usize,
    /// What has been written, marks not filled in; up to `moved` it has gone on to `bytes`.
    held: Replies,
    moved: usize,
    marks: VecDeque<Mark>,
}

impl Outgoing {
    /// Where replies are written. Afterwards, [`Outgoing::wrote`] is told.
    pub(super) fn replies(&mut self, buffers: &mut Vec<Vec<u8>>) -> &mut Replies {
        self.held.borrow_buffer(|| buffers.pop().unwrap_or_default());
        &mut self.held
    }

    /// The place that the next reply will have.
    pub(super) fn place(&self) -> Place {
        Place { at: self.held.len(), mark: self.marks.len() }
    }

    /// Marks the replies that the shard will give later; hands their tokens to `awaited`.
    pub(super) fn wrote(&mut self, mut awaited: impl FnMut(Token)) {
        for later in self.held.take_later() {
            awaited(later.token);
            self.marks.push_back(Mark { at: later.at, waits: Waits::Answer(later) });
        }
    }

    /// Holds back what was written since `place` until the journal is durable so far.
    pub(super) fn hold(&mut self, place: Place, position: Position) {
        let mark = Mark { at: place.at, waits: Waits::Durable(position) };
        self.marks.insert(place.mark.min(self.marks.len()), mark);
    }

    /// Fills in what the shard has answered.
    pub(super) fn answer(&mut self, token: Token, reply: Reply) {
        let waits =
            |mark: &&mut Mark| matches!(&mark.waits, Waits::Answer(later) if later.token == token);
        let Some(mark) = self.marks.iter_mut().find(waits) else { return };
        let waits = std::mem::replace(&mut mark.waits, Waits::Answered(Vec::new()));
        if let Waits::Answer(later) = waits {
            mark.waits = Waits::Answered(later.write(reply));
        }
    }

    /// Lets go what needs to wait no longer, with the journal durable up to `durable`.
    pub(super) fn release(&mut self, durable: Position) {
        while let Some(mark) = self.marks.front_mut() {
            let reply = match &mut mark.waits {
                Waits::Durable(position) if *position <= durable => Vec::new(),
                Waits::Answered(bytes) => std::mem::take(bytes),
                _ => break,
            };
            let at = mark.at;
            self.marks.pop_front();
            self.move_on(at);
            self.bytes.extend_from_slice(&reply);
        }
        match self.marks.front() {
            Some(mark) => {
                let at = mark.at;
                self.move_on(at);
                self.cut();
            }
            None if self.bytes.is_empty() && self.moved == 0 => {
                self.held.swap_buffer(&mut self.bytes);
            }
            None => {
                self.move_on(self.held.len());
                self.held.clear();
                self.moved = 0;
            }
        }
    }

    fn move_on(&mut self, to: usize) {
        self.bytes.extend_from_slice(self.held.as_bytes().get(self.moved..to).unwrap_or_default());
        self.moved = to;
    }

    /// Forgets the front of what is held once that is much.
    fn cut(&mut self) {
        if self.moved >= MOVED_BYTES_MAX {
            self.held.remove_front(self.moved);
            self.marks.iter_mut().for_each(|mark| mark.at -= self.moved);
            self.moved = 0;
        }
    }

    /// Sends what may leave; whether all of it has left.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn send(&mut self, mut stream: impl Write) -> io::Result<Sent> {
        let mut progress = false;
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match stream.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.forget_sent();
                    return Ok(Sent::Part { progress });
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(Sent::All)
    }

    /// Forgets what has left, once that is much: a client that is always a little behind, as subscribers
    /// may be, must not keep all that it was ever told.
    fn forget_sent(&mut self) {
        if self.sent >= MOVED_BYTES_MAX && 2 * self.sent >= self.bytes.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// How many bytes wait to be sent.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.bytes.len() - self.sent + self.held.len() - self.moved
    }

    /// Whether nothing is left to be said, now or later.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.marks.is_empty() && self.held.is_empty()
    }

    /// Whether the client takes what it is sent, and not too much waits for it to execute more.
    pub(super) fn has_room(&self, bytes_max: usize) -> bool {
        self.bytes.is_empty() && self.held.len() < bytes_max && self.marks.len() < MARKS_MAX
    }

    /// Whether answers have not come.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited().next().is_some()
    }

    /// The tokens of answers that have not come.
    pub(super) fn awaited(&self) -> impl Iterator<Item = Token> {
        self.marks.iter().filter_map(|mark| match &mark.waits {
            Waits::Answer(later) => Some(later.token),
            _ => None,
        })
    }

    /// Gives back memory that is not in use.
    pub(super) fn rest(&mut self, buffers: &mut Vec<Vec<u8>>, kept_max: usize) {
        let mut give_back = |buffer: Vec<u8>| {
            let is_fit = (1..=BUFFER_BYTES_MAX).contains(&buffer.capacity());
            if is_fit && buffers.len() < kept_max {
                buffers.push(buffer);
            }
        };
        if self.bytes.is_empty() {
            give_back(std::mem::take(&mut self.bytes));
        }
        if self.held.is_empty() {
            give_back(self.held.take_buffer());
            if self.marks.capacity() > 0 && self.marks.is_empty() {
                self.marks = VecDeque::new();
            }
        }
    }
}

/// A place among the replies of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    at: usize,
    mark: usize,
}

/// How far sending has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Everything that may leave has left.
    All,
    /// The client takes no more for now.
    Part {
        /// Whether it took anything.
        progress: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outgoing: &mut Outgoing, durable: u64) -> String {
        let mut bytes = Vec::new();
        outgoing.release(Position(durable));
        assert_eq!(outgoing.send(&mut bytes).unwrap(), Sent::All);
        String::from_utf8(bytes).unwrap()
    }

    fn count(reply: Reply, replies: &mut Replies) {
        match reply {
            Reply::Nothing => replies.count(0),
            _ => replies.error("ERR"),
        }
    }

    /// Story: replies leave in the order of the requests, whatever becomes ready first.
    #[test]
    fn replies_keep_their_order() {
        let (mut outgoing, mut buffers) = (Outgoing::default(), Vec::new());
        let mut awaited = Vec::new();
        outgoing.replies(&mut buffers).simple("a");
        let place = outgoing.place();
        let replies = outgoing.replies(&mut buffers);
        replies.simple("b");
        replies.later(Token(1), count);
        replies.later(Token(2), count);
        replies.simple("c");
        outgoing.wrote(|token| awaited.push(token));
        outgoing.hold(place, Position(7));
        assert_eq!(awaited, [Token(1), Token(2)]);
        assert_eq!(sent(&mut outgoing, 6), "+a\r\n");
        outgoing.answer(Token(2), Reply::Nothing);
        assert_eq!(sent(&mut outgoing, 6), "");
        assert_eq!(sent(&mut outgoing, 7), "+b\r\n");
        outgoing.replies(&mut buffers).simple("d");
        outgoing.wrote(|_| panic!("nothing more is awaited"));
        assert_eq!(outgoing.awaited().collect::<Vec<_>>(), [Token(1)]);
        outgoing.answer(Token(9), Reply::Nothing);
        assert_eq!(sent(&mut outgoing, 7), "");
        outgoing.answer(Token(1), Reply::Unknown);
        assert!(!outgoing.is_empty());
        assert_eq!(sent(&mut outgoing, 7), "-ERR\r\n:0\r\n+c\r\n+d\r\n");
        assert!(outgoing.is_empty());
    }

    /// Story: a long line of waiting replies is cut as it goes, and stays whole.
    #[test]
    fn a_long_line_stays_whole() {
        let (mut outgoing, mut buffers) = (Outgoing::default(), Vec::new());
        let (mut heard, mut said) = (String::new(), String::new());
        for number in 0..200_u64 {
            let text = "x".repeat(500);
            let place = outgoing.place();
            outgoing.replies(&mut buffers).simple(&text);
            outgoing.hold(place, Position(number));
            said += &format!("+{text}\r\n");
            if number >= 3 {
                heard += &sent(&mut outgoing, number - 3);
            }
        }
        assert!(outgoing.held.len() < 2 * MOVED_BYTES_MAX);
        heard += &sent(&mut outgoing, 200);
        assert!(heard == said);
    }
}
