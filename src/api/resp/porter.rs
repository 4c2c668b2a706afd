//! The door's thread: all connections in one loop, turn after turn.
//!
//! A turn looks at what has happened to the sockets, reads from those that have something, executes all
//! of that in one batch, and sends all replies. So the requests of many clients enter the shard
//! once; their pushes travel as one message, their records are appended at once, and one sync serves
//! them all. No task, timer or channel is made for a request.
//!
//! Sockets are read before the shard is entered and written after it is left: system calls are not made
//! with the shard locked. A turn serves a bounded number of connections and reads once from each, so
//! a client that never stops sending does not starve the others, and a batch leaves the shard for a
//! moment after many commands or a long time.
//!
//! Nothing here waits but the poll. A connection whose replies wait is left alone until a
//! [`Completion`] comes for it: replies that wait for the journal stand in one line by their place in
//! it, those that the shard gives later are found by their token.
//!
//! The poll is `mio`'s, edge-triggered: a socket costs no system call beside those that read and
//! write it. An edge is told once, so a connection remembers that it may have more to read.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_std::task;
use futures_lite::future;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token as Source};
use socket2::{SockRef, TcpKeepalive};

use super::completions::{Completion, Completions, Key};
use super::connection::{Connection, Turn};
use super::door::Shared;
use super::keys::Batch;
use super::reply::Replies;
use super::session::{Found, Until, Wait};
use super::{own, pubsub};
use crate::protocol::boundary::Token;
use crate::protocol::change::Changes;
use crate::protocol::message::Published;
use crate::server::{Journaled, Position};

/// How long a client may take none of its replies before it is given up: long enough for a laptop to
/// change networks, short enough that what it holds is not held for ever.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// After how long a silent client is asked whether it is still there; Redis' `tcp-keepalive`.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long a connection that is closed after an error is read from.
const LINGER: Duration = Duration::from_secs(1);

/// How long a closing door waits for replies that are under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How long accepting rests after an error that will not pass at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client that waits for peers may have closed its side before it is forgotten: it may only
/// have said that it sends no more.
const WAIT_LOOK: Duration = Duration::from_secs(1);

/// How long a client whose waiting is ended still waits for answers of peers, so that it is told what is
/// so and not nothing: many round trips of a LAN.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// How long the door rests while the disk is too far behind.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// How many connections one turn serves: more would not make a batch cheaper, and each has a buffer of
/// 64 KiB in hand meanwhile.
const SERVED_MAX: usize = 64;

/// How many connections one turn accepts.
const ACCEPTED_MAX: usize = 64;

/// How many events one look at the poll brings.
const EVENTS_MAX: usize = 256;

/// What the poll calls the listener and the queue of completions; connections have their place.
const LISTENER: Source = Source(usize::MAX - 1);
pub(super) const COMPLETIONS: Source = Source(usize::MAX - 2);

/// What a client from another machine is told while there is no password. Redis' words where they
/// fit; it reads them as one line.
const DENIED: &str = "-DENIED Quorumor is running in protected mode because protected mode is \
    enabled and no password is set. In this mode connections are only accepted from the loopback \
    interface. If you want to connect from other computers you may do one of the following: 1) Set a \
    password: start the node with '--requirepass-file FILE'. 2) If everybody who can reach this \
    address may read and change everything, start the node with '--protected-mode no'.\r\n";

const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

/// What the door's thread owns.
pub(super) struct Porter {
    shared: Arc<Shared>,
    poll: Poll,
    completions: Arc<Completions>,
    listener: Option<TcpListener>,
    /// Whether somebody may stand outside.
    knocking: bool,
    /// When accepting is tried again after an error.
    accept_at: Option<Instant>,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Those that have something to read or to execute, in the order of their turns.
    line: VecDeque<usize>,
    /// Those that are served in this turn.
    served: Vec<usize>,
    /// Those whose replies wait for the journal, by the place in it.
    parked: VecDeque<(Position, Key)>,
    /// Those whose replies the shard gives later.
    awaited: HashMap<Token, Key>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    /// Buffers for replies, the last used on top.
    outputs: Vec<Vec<u8>>,
    taken: Vec<Completion>,
    /// By when a closing door is closed.
    closing: Option<Instant>,
    /// Kept, so that syncs are told.
    _journaled: Arc<Journaled>,
}

impl Porter {
    /// A door that listens already.
    pub(super) fn new(
        shared: Arc<Shared>,
        poll: Poll,
        completions: Arc<Completions>,
        mut listener: TcpListener,
    ) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let synced = Arc::clone(&completions);
        let journaled = shared.node().when_journaled(move || synced.synced());
        Ok(Self {
            shared,
            poll,
            completions,
            listener: Some(listener),
            knocking: true,
            accept_at: None,
            connections: Vec::new(),
            free: Vec::new(),
            line: VecDeque::new(),
            served: Vec::new(),
            parked: VecDeque::new(),
            awaited: HashMap::new(),
            timers: BinaryHeap::new(),
            outputs: Vec::new(),
            taken: Vec::new(),
            closing: None,
            _journaled: journaled,
        })
    }

    /// Serves everybody until the door is closed.
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let crowded = !self.line.is_empty() && self.shared.node().is_crowded();
            if let Err(error) = self.sleep(&mut events, crowded) {
                // Nothing that clients do brings this about.
                log::error!("the door for Redis clients closes: {error}");
                return;
            }
            if self.look_at_completions() {
                return;
            }
            self.look_at_sockets(&events);
            self.look_at_timers();
            self.accept();
            if !crowded {
                self.serve();
            }
            if self.is_closed() {
                return;
            }
        }
    }

    /// Waits until something happens, unless something is to be done already.
    fn sleep(&mut self, events: &mut Events, crowded: bool) -> io::Result<()> {
        let busy = self.knocking || (!self.line.is_empty() && !crowded);
        let timeout = if busy || !self.completions.doze() {
            Some(Duration::ZERO)
        } else {
            let pause = crowded.then(|| Instant::now() + CROWDED_PAUSE);
            let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
            let next = [timer, self.accept_at, self.closing, pause].into_iter().flatten().min();
            next.map(|at| at.saturating_duration_since(Instant::now()))
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    // --- what has happened ----------------------------------------------------------------------

    /// Takes what has come to pass elsewhere; whether the door is to be closed at once.
    fn look_at_completions(&mut self) -> bool {
        let mut taken = std::mem::take(&mut self.taken);
        let synced = self.completions.take(&mut taken);
        let mut at_once = false;
        for completion in taken.drain(..) {
            match completion {
                Completion::Answer(token, reply) => {
                    let key = self.awaited.remove(&token);
                    let Some((key, connection)) = key.and_then(|key| self.find(key)) else {
                        continue;
                    };
                    connection.answer(token, reply);
                    self.go_on(key.place);
                }
                Completion::Found(key, found) => {
                    let outputs = &mut self.outputs;
                    if let Some(connection) = find(&mut self.connections, key) {
                        connection.found(&found, outputs);
                        self.go_on(key.place);
                    }
                }
                Completion::Published(messages) => self.deliver(&messages),
                Completion::Changed(changes) => self.notify(&changes),
                Completion::Close { at_once: true } => at_once = true,
                Completion::Close { at_once: false } => self.close(),
            }
        }
        self.taken = taken;
        if synced {
            self.look_at_journal();
        }
        at_once
    }

    /// Lets those go on whose replies waited for the journal.
    fn look_at_journal(&mut self) {
        let durable = self.shared.node().durable_position();
        while let Some((position, key)) = self.parked.front().copied() {
            if position > durable {
                match self.shared.node().is_durable(position) {
                    None => break,
                    Some(Ok(())) => {}
                    Some(Err(stopped)) => {
                        // Whether it is durable is not known, so nothing is claimed.
                        if self.find(key).is_some() {
                            log::warn!("closing a client whose write may be lost: {stopped}");
                            self.drop_connection(key.place);
                        }
                    }
                }
            }
            self.parked.pop_front();
            if self.find(key).is_some() {
                self.go_on(key.place);
            }
        }
    }

    fn look_at_sockets(&mut self, events: &Events) {
        for event in events {
            match event.token() {
                LISTENER => self.knocking = true,
                COMPLETIONS => {}
                Source(place) => {
                    let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut)
                    else {
                        continue;
                    };
                    let hung_up = event.is_read_closed() || event.is_error();
                    let wants_turn = connection.stirred(event.is_readable(), hung_up);
                    if wants_turn {
                        self.queue(place);
                    } else if connection.is_left_asking() {
                        let now = Instant::now();
                        let patience =
                            if connection.card.is_closing() { Duration::ZERO } else { WAIT_LOOK };
                        self.limit(place, now + patience);
                    }
                    if event.is_writable() {
                        self.go_on(place);
                    }
                }
            }
        }
    }

    /// Ends what has lasted too long.
    fn look_at_timers(&mut self) {
        if self.timers.is_empty() && self.accept_at.is_none() {
            return;
        }
        let now = Instant::now();
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.knocking = true;
        }
        while let Some(Reverse((at, place, id))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some((_, connection)) = self.find(Key { place, id }) else { continue };
            if connection.timer_at == Some(at) {
                connection.timer_at = None;
            }
            match connection.until {
                Some(until) if until <= now => self.drop_connection(place),
                Some(until) => self.limit(place, until),
                None => {}
            }
        }
    }

    // --- serving --------------------------------------------------------------------------------

    /// Reads from those whose turn it is, executes all of it, and sends the replies.
    fn serve(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut served = std::mem::take(&mut self.served);
        let count = self.line.len().min(SERVED_MAX);
        for place in self.line.drain(..count) {
            let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            connection.queued = false;
            served.push(place);
        }
        if served.is_empty() {
            self.served = served;
            return;
        }
        let mut batch = Batch::new(shared.node());
        let mut failed = Vec::new();
        let mut executes = [false; SERVED_MAX];
        for (place, executes) in served.iter().zip(&mut executes) {
            let Some(connection) = self.connections.get_mut(*place).and_then(Option::as_mut) else {
                continue;
            };
            match connection.read(shared.inputs()) {
                Ok(something) => *executes = something,
                Err(error) => {
                    connection.fail(&error);
                    failed.push(*place);
                }
            }
        }
        for (place, _) in served.iter().zip(&executes).filter(|(_, executes)| **executes) {
            let Some(connection) = self.connections.get_mut(*place).and_then(Option::as_mut) else {
                continue;
            };
            let key = connection.key(*place);
            let awaited = &mut self.awaited;
            connection.execute(&shared, &mut batch, &mut self.outputs, |token| {
                awaited.insert(token, key);
            });
            batch.breathe();
        }
        let published = std::mem::take(&mut batch.published);
        let position = batch.finish();
        for place in failed {
            self.drop_connection(place);
        }
        for place in served.drain(..) {
            let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            if connection.hold(position)
                && let Some(position) = position
            {
                self.parked.push_back((position, connection.key(place)));
            }
            self.go_on(place);
        }
        self.served = served;
        if !published.is_empty() {
            self.deliver(&published);
            shared.node().publish(published, Some(shared.listener()));
        }
        if position.is_some() {
            // It may have been synced, or have stopped, before these were in the line.
            self.look_at_journal();
        }
    }

    /// Hands messages to those who have subscribed to them here.
    fn deliver(&mut self, messages: &[Published]) {
        let shared = Arc::clone(&self.shared);
        if shared.subscriptions().is_empty() {
            return;
        }
        let mut touched = BTreeSet::new();
        for Published { channel, message } in messages {
            // The same bytes for all who subscribed in the same way and speak the same version.
            let mut written: Option<(Option<Box<[u8]>>, Replies)> = None;
            for (key, pattern) in shared.subscriptions().receivers(channel) {
                let Some(connection) = find(&mut self.connections, key) else { continue };
                let protocol = connection.protocol();
                let fits = written
                    .take()
                    .filter(|(of, bytes)| bytes.protocol() == protocol && *of == pattern);
                let (_, bytes) = written.insert(fits.unwrap_or_else(|| {
                    let mut bytes = Replies::new(Vec::new(), protocol);
                    pubsub::write_message(pattern.as_deref(), channel, message, &mut bytes);
                    (pattern, bytes)
                }));
                if connection.deliver(bytes, &mut self.outputs) {
                    log::warn!(
                        "client {} is closed: it does not read what it subscribed to",
                        connection.card.id()
                    );
                    touched.remove(&key.place);
                    self.drop_connection(key.place);
                } else {
                    touched.insert(key.place);
                }
            }
        }
        for place in touched {
            self.go_on(place);
        }
    }

    /// Publishes, to clients at this door, what has changed at this peer.
    fn notify(&mut self, changes: &Changes) {
        let shared = Arc::clone(&self.shared);
        if shared.subscriptions().is_empty() {
            return;
        }
        for (key, change) in changes {
            let messages: Vec<Published> = shared.notify().messages(key, *change).collect();
            self.deliver(&messages);
        }
    }

    /// Does for a connection what comes next.
    fn go_on(&mut self, place: usize) {
        let durable = self.shared.node().durable_position();
        loop {
            let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
                return;
            };
            match connection.go_on(durable, self.shared.inputs(), &mut self.outputs) {
                Turn::Rest => return,
                Turn::Serve => return self.queue(place),
                Turn::Blocked(progress) => {
                    if progress || connection.until.is_none() {
                        self.limit(place, Instant::now() + WRITE_PATIENCE);
                    }
                    return;
                }
                Turn::Linger => {
                    self.limit(place, Instant::now() + LINGER);
                    return self.queue(place);
                }
                Turn::Ask(wait) => {
                    if !self.ask(place, wait) {
                        return;
                    }
                }
                Turn::Drop => return self.drop_connection(place),
            }
        }
    }

    /// Finds out where a client's write is; whether that is known at once.
    fn ask(&mut self, place: usize, wait: Wait) -> bool {
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return false;
        };
        let node = self.shared.node().clone();
        if let Until::Peers(None, _) = wait.until {
            // Who has written nothing waits for nothing: every live peer holds that.
            let peers = node.enter().shard().peers().count();
            connection.found(&Found::Count(peers), &mut self.outputs);
            return true;
        }
        let deadline = wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let (key, completions) = (connection.key(place), Arc::clone(&self.completions));
        let (card, released) = (Arc::clone(&connection.card), connection.card.released());
        connection.asks(task::spawn(async move {
            let unblocked = async {
                released.await;
                match card.is_released_by_error() {
                    true => Found::Unblocked,
                    false => {
                        own::find_out(&node, wait.until, Instant::now().checked_add(LAST_LOOK))
                            .await
                    }
                }
            };
            let found = future::or(own::find_out(&node, wait.until, deadline), unblocked).await;
            completions.push(Completion::Found(key, found));
        }));
        if connection.is_left_asking() {
            self.limit(place, Instant::now() + WAIT_LOOK);
        }
        false
    }

    // --- who is there ---------------------------------------------------------------------------

    /// Lets in those who stand outside.
    fn accept(&mut self) {
        let Some(listener) = self.listener.as_ref().filter(|_| self.knocking) else {
            self.knocking = false;
            return;
        };
        let mut arrived = Vec::new();
        let mut failed = None;
        while arrived.len() < ACCEPTED_MAX && self.knocking {
            match listener.accept() {
                Ok(both) => arrived.push(both),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.knocking = false,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) => {}
                Err(error) => {
                    self.knocking = false;
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    failed = Some(error);
                }
            }
        }
        for (stream, peer) in arrived {
            self.welcome(stream, peer);
        }
        // Said once, not ten times a second for as long as it lasts.
        if let Some(error) = failed
            && !self.shared.accepting_fails(true)
        {
            log::warn!("cannot accept a Redis client: {error}");
        } else if self.accept_at.is_none() {
            self.shared.accepting_fails(false);
        }
    }

    /// Starts serving a connection, or turns it away.
    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr) {
        let settings = self.shared.settings();
        // An IPv4 address may arrive dressed as IPv6.
        let local = peer.ip().to_canonical().is_loopback();
        if settings.protected && settings.password.is_none() && !local {
            log::debug!("turned away {peer}: protected mode");
            return turn_away(&self.shared, &stream, DENIED);
        }
        // Replies leave at once, and who has gone without a word is found out. A socket that refuses this
        // works all the same.
        let _ = stream.set_nodelay(true);
        let keepalive =
            TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(3);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let place = self.free.pop().unwrap_or(self.connections.len());
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut stream, Source(place), both) {
            log::warn!("cannot serve a Redis client: {error}");
            self.vacate(place);
            return;
        }
        match self.shared.clients().join(stream, peer, self.shared.clients_max()) {
            Ok(card) => {
                self.shared.count_connection();
                let connection = Some(Box::new(Connection::new(&self.shared, card, place)));
                match self.connections.get_mut(place) {
                    Some(free) => *free = connection,
                    None => self.connections.push(connection),
                }
                self.queue(place);
            }
            Err(mut stream) => {
                turn_away(&self.shared, &stream, TOO_MANY);
                // Closing ends it in any case.
                let _ = self.poll.registry().deregister(&mut stream);
                self.vacate(place);
            }
        }
    }

    /// Makes a place free, if the table reaches so far.
    fn vacate(&mut self, place: usize) {
        if place < self.connections.len() {
            self.free.push(place);
        }
    }

    /// Puts a connection into the line, unless it stands there.
    fn queue(&mut self, place: usize) {
        if let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.line.push_back(place);
        }
    }

    /// Limits until when a connection may go on as it does.
    fn limit(&mut self, place: usize, until: Instant) {
        if let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) {
            connection.until = Some(until);
            if connection.timer_at.is_none_or(|at| at > until) {
                connection.timer_at = Some(until);
                self.timers.push(Reverse((until, place, connection.card.id())));
            }
        }
    }

    fn find(&mut self, key: Key) -> Option<(Key, &mut Connection)> {
        find(&mut self.connections, key).map(|connection| (key, connection))
    }

    fn drop_connection(&mut self, place: usize) {
        let Some(mut connection) = self.connections.get_mut(place).and_then(Option::take) else {
            return;
        };
        for token in connection.outgoing.awaited() {
            self.awaited.remove(&token);
        }
        if connection.queued {
            // Its place may be another's by its turn.
            self.line.retain(|queued| *queued != place);
        }
        connection.end(&self.shared);
        self.shared.clients().leave(&connection.card);
        self.free.push(place);
    }

    // --- the end --------------------------------------------------------------------------------

    /// Accepts nobody more, and closes every connection as soon as it has said all.
    fn close(&mut self) {
        self.listener = None;
        self.closing.get_or_insert_with(|| Instant::now() + CLOSE_PATIENCE);
    }

    /// Whether the door is closed: all that was read is answered, or has taken too long.
    fn is_closed(&mut self) -> bool {
        let Some(until) = self.closing else { return false };
        for place in 0..self.connections.len() {
            let at_rest = self.connections.get(place).and_then(Option::as_ref);
            if at_rest.is_some_and(|connection| connection.is_at_rest()) {
                self.drop_connection(place);
            }
        }
        self.shared.clients().count() == 0 || until <= Instant::now()
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        for place in 0..self.connections.len() {
            self.drop_connection(place);
        }
    }
}

fn find(connections: &mut [Option<Box<Connection>>], key: Key) -> Option<&mut Connection> {
    let connection = connections.get_mut(key.place).and_then(Option::as_mut)?;
    (connection.card.id() == key.id).then_some(&mut **connection)
}

/// Says why and closes; whoever does not read fast enough does not learn it, as with Redis.
fn turn_away(shared: &Shared, mut stream: &TcpStream, why: &str) {
    shared.count_rejected();
    let _ = stream.write(why.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
}
