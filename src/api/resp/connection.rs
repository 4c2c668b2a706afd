//! One connection: what came from its client, what goes to it, and what happens next.
//!
//! A connection never waits by itself. It is read from when its socket has something and nothing
//! keeps it from being answered; what was read is executed in a batch with that of others; then
//! [`Connection::go_on`] sends what may leave and says what the door's thread has to do.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task::{self, JoinHandle};

use super::buffers::{BUFFER_BYTES, Buffers};
use super::clients::Card;
use super::completions::Key;
use super::door::Shared;
use super::keys::Batch;
use super::outgoing::{Outgoing, Place, Sent};
use super::parse::Requests;
use super::reply::{Protocol, Replies};
use super::session::{Found, Pause, REPLIES_BYTES_MAX, Session, Wait};
use crate::protocol::boundary::{Reply, Token};
use crate::server::Position;

/// For how many bytes a connection that is closed after an error is read from, so that the error
/// reaches the client: closing with bytes unread makes the kernel throw it away.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How much may wait for a subscriber that does not read before it is closed: at once, or if it stays
/// beyond the second for the time. Redis' bounds for such clients.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
const WAITING_BYTES_SOFT: usize = 8 * 1024 * 1024;
const WAITING_SOFT_MAX: Duration = Duration::from_secs(60);

/// How many buffers for replies are kept: as many connections as one turn serves, and again as many
/// whose replies wait. 16 MiB at the very most, a hundredth of that in practice.
const OUTPUTS_KEPT_MAX: usize = 128;

/// What follows when all replies have left.
#[derive(Debug, PartialEq)]
enum Next {
    /// Read, and execute that.
    Read,
    /// Execute what is there already.
    Execute,
    /// Find out where a write is.
    Ask(Wait),
    /// That is being found out.
    Asked,
    /// Say no more, and read on for a moment so that the last reply arrives.
    Close,
    /// That is what happens: so many bytes are still read.
    Linger(usize),
    /// The client has said all that it wanted.
    Leave,
}

/// What the door's thread has to do for a connection.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// Nothing: something will happen to its socket, or a completion will come.
    Rest,
    /// Give it a turn: it has something to read or to execute.
    Serve,
    /// See to it that the client takes more of its replies in time. Whether it took some just now.
    Blocked(bool),
    /// Ask where a write is.
    Ask(Wait),
    /// Limit how long it lingers.
    Linger,
    /// Forget it.
    Drop,
}

/// One connection.
pub(super) struct Connection {
    pub(super) card: Arc<Card>,
    session: Session,
    requests: Requests,
    pub(super) outgoing: Outgoing,
    next: Next,
    /// Whether the socket may have something to read.
    readable: bool,
    /// Whether the client, or the network, has ended the connection in its direction.
    hung_up: bool,
    /// Whether it stands in the line of those that get a turn.
    pub(super) queued: bool,
    /// When something ends that must not last: what depends on the state.
    pub(super) until: Option<Instant>,
    /// The earliest time at which the timers look at this connection.
    pub(super) timer_at: Option<Instant>,
    /// Where the replies of this turn begin, if they wait for the batch.
    began: Option<Place>,
    asking: Option<JoinHandle<()>>,
    /// Since when much has been waiting for its client.
    behind_since: Option<Instant>,
}

impl Connection {
    pub(super) fn new(shared: &Shared, card: Arc<Card>, place: usize) -> Self {
        let key = Key { place, id: card.id() };
        Self {
            session: Session::new(shared, Arc::clone(&card), key),
            card,
            requests: Requests::new(shared.settings().bulk_bytes_max),
            outgoing: Outgoing::default(),
            next: Next::Read,
            // Nothing is missed if the first requests came before the socket was registered.
            readable: true,
            hung_up: false,
            queued: false,
            until: None,
            timer_at: None,
            began: None,
            asking: None,
            behind_since: None,
        }
    }

    pub(super) fn key(&self, place: usize) -> Key {
        Key { place, id: self.card.id() }
    }

    /// Notes what happened to the socket; whether the connection should get a turn.
    pub(super) fn stirred(&mut self, readable: bool, hung_up: bool) -> bool {
        self.readable |= readable || hung_up;
        self.hung_up |= hung_up;
        self.wants_turn()
    }

    /// Whether there is something to read or to execute, and nothing keeps it.
    fn wants_turn(&self) -> bool {
        match self.next {
            Next::Read => {
                let waits = self.outgoing.is_awaited();
                self.readable && !waits && self.outgoing.has_room(REPLIES_BYTES_MAX)
            }
            Next::Execute => self.outgoing.is_empty(),
            Next::Linger(_) => self.readable,
            Next::Ask(_) | Next::Asked | Next::Close | Next::Leave => false,
        }
    }

    /// Whether it was waiting for peers when its client went, or was sent away.
    pub(super) fn is_left_asking(&self) -> bool {
        self.next == Next::Asked && self.hung_up
    }

    /// Reads once, if it is time to read; whether there is something to execute.
    ///
    /// # Errors
    /// The connection is of no use any more.
    pub(super) fn read(&mut self, inputs: &Buffers) -> io::Result<bool> {
        match self.next {
            Next::Execute => return Ok(true),
            Next::Linger(left) => {
                self.linger(left, inputs)?;
                return Ok(false);
            }
            _ if !self.wants_turn() => return Ok(false),
            _ => {}
        }
        let space = match self.requests.space(inputs) {
            Ok(space) => space,
            Err(error) => {
                self.outgoing.replies(&mut Vec::new()).error(format!("ERR {error}"));
                self.next = Next::Close;
                return Ok(false);
            }
        };
        let room = space.len();
        match self.card.stream().read(space) {
            Ok(0) => {
                self.next = Next::Leave;
                Ok(false)
            }
            Ok(count) => {
                self.requests.filled(count);
                // What comes from now on is told of; an end that has come already is not told again.
                self.readable = count == room || self.hung_up;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads and forgets.
    fn linger(&mut self, left: usize, inputs: &Buffers) -> io::Result<()> {
        let mut buffer = inputs.take();
        buffer.resize(BUFFER_BYTES, 0);
        let read = self.card.stream().read(&mut buffer);
        inputs.give_back(buffer);
        match read {
            Ok(0) => self.next = Next::Leave,
            Ok(count) if count >= left => self.next = Next::Leave,
            Ok(count) => self.next = Next::Linger(left - count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The shard has answered a request.
    pub(super) fn answer(&mut self, token: Token, reply: Reply) {
        if let Reply::Operated { written: Some(written), .. } = &reply {
            self.session.wrote(Some(*written));
        }
        self.outgoing.answer(token, reply);
    }

    /// Executes what has been read, in a batch with others; hands on the tokens of answers that come
    /// later.
    pub(super) fn execute(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        outputs: &mut Vec<Vec<u8>>,
        awaited: impl FnMut(Token),
    ) {
        let place = self.outgoing.place();
        let uses = batch.uses();
        let replies = self.outgoing.replies(outputs);
        let pause = self.session.run(shared, batch, &mut self.requests, replies);
        self.outgoing.wrote(awaited);
        self.began = (batch.uses() != uses).then_some(place);
        self.next = match pause {
            Pause::Drained => Next::Read,
            Pause::Full => Next::Execute,
            Pause::Wait(wait) => Next::Ask(wait),
            Pause::Close => Next::Close,
        };
    }

    /// The batch has ended: the replies of this turn wait for that place in the journal, if they used
    /// the shard at all. Whether they do.
    pub(super) fn hold(&mut self, position: Option<Position>) -> bool {
        match (self.began.take(), position) {
            (Some(place), Some(position)) => {
                self.outgoing.hold(place, position);
                true
            }
            _ => false,
        }
    }

    /// The version in which its client wants what it is told.
    pub(super) fn protocol(&self) -> Protocol {
        self.session.protocol()
    }

    /// Adds a message for a subscriber; whether it is to be closed, because it does not keep up.
    pub(super) fn deliver(&mut self, message: &Replies, outputs: &mut Vec<Vec<u8>>) -> bool {
        if matches!(self.next, Next::Close | Next::Linger(_) | Next::Leave) {
            return false;
        }
        self.outgoing.replies(outputs).append(message);
        let waiting = self.outgoing.waiting_bytes();
        if waiting <= WAITING_BYTES_SOFT {
            self.behind_since = None;
            return false;
        }
        let since = *self.behind_since.get_or_insert_with(Instant::now);
        waiting > WAITING_BYTES_MAX || since.elapsed() >= WAITING_SOFT_MAX
    }

    /// Answers what its client waited for.
    pub(super) fn found(&mut self, found: &Found, outputs: &mut Vec<Vec<u8>>) {
        if matches!(self.next, Next::Ask(_) | Next::Asked) {
            self.asking = None;
            self.card.waits(false);
            self.until = None;
            self.session.found(found, self.outgoing.replies(outputs));
            self.next = Next::Execute;
        }
    }

    /// Notes the task that finds out where a write is.
    pub(super) fn asks(&mut self, asking: JoinHandle<()>) {
        self.asking = Some(asking);
        self.card.waits(true);
        self.next = Next::Asked;
    }

    /// Sends what may leave, with the journal durable up to `durable`, and says what is to be done.
    pub(super) fn go_on(
        &mut self,
        durable: Position,
        inputs: &Buffers,
        outputs: &mut Vec<Vec<u8>>,
    ) -> Turn {
        self.outgoing.release(durable);
        match self.outgoing.send(self.card.stream()) {
            Ok(Sent::All) => {}
            Ok(Sent::Part { progress }) => return Turn::Blocked(progress),
            Err(error) => return self.fail(&error),
        }
        if !matches!(self.next, Next::Linger(_) | Next::Asked) {
            self.until = None;
        }
        let said_all = self.outgoing.is_empty();
        if said_all {
            self.outgoing.rest(outputs, OUTPUTS_KEPT_MAX);
        }
        if self.next == Next::Read {
            self.requests.rest(inputs);
        }
        if self.wants_turn() {
            return Turn::Serve;
        }
        if !said_all {
            return Turn::Rest;
        }
        match self.next {
            _ if self.card.is_closing() => Turn::Drop,
            Next::Leave => Turn::Drop,
            Next::Ask(wait) => Turn::Ask(wait),
            Next::Close => match self.card.stream().shutdown(Shutdown::Write) {
                Ok(()) => {
                    self.requests.release(inputs);
                    self.next = Next::Linger(LINGER_BYTES_MAX);
                    self.readable = true;
                    Turn::Linger
                }
                Err(error) => self.fail(&error),
            },
            Next::Read | Next::Execute | Next::Asked | Next::Linger(_) => Turn::Rest,
        }
    }

    /// Whether it has said all and waits for its client, or for peers: it can be closed now.
    pub(super) fn is_at_rest(&self) -> bool {
        self.outgoing.is_empty() && matches!(self.next, Next::Read | Next::Asked | Next::Ask(_))
    }

    /// Lets go of everything it has borrowed.
    pub(super) fn end(&mut self, shared: &Shared) {
        let inputs = shared.inputs();
        self.session.end(shared);
        self.requests.release(inputs);
        if let Some(asking) = self.asking.take() {
            // Nobody waits for its end.
            task::spawn(asking.cancel());
        }
    }

    /// Says why a connection is given up.
    pub(super) fn fail(&self, error: &io::Error) -> Turn {
        log::debug!("client {}: {error}", self.card.id());
        Turn::Drop
    }
}
