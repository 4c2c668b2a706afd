//! The door itself: listening, one task per connection, and closing cleanly.
//!
//! A connection's task waits until its socket has bytes, borrows a buffer, reads once, executes what
//! came, writes all replies at once, and gives the buffers back. Between two batches it goes through
//! the reactor, so that a client that never stops sending does not starve the others on its thread.
//! While replies do not leave, nothing more is read from that client: its own kernel buffers fill, and
//! nobody else's memory.
//!
//! The sockets are `async_io`'s, the layer under async-std's, because they can be waited for without a
//! buffer to read into: an idle connection costs its task and its state, about a kilobyte.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use async_std::task;
use futures_lite::future;

use super::buffers::Buffers;
use super::clients::{Card, Clients};
use super::parse::{BULK_BYTES_MAX, Requests};
use super::reply::Replies;
use super::session::{Pause, Session, Wait};
use super::settings::Settings;
use crate::server::Node;

/// How long a client may take none of its replies before it is given up: long enough for a laptop to
/// change networks, short enough that what it holds is not held for ever.
const WRITE_PATIENCE: Duration = Duration::from_secs(60);

/// How long, and for how many bytes, a connection that is closed after an error is read from, so that
/// the error reaches the client: closing with bytes unread makes the kernel throw it away.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How long a closing door waits for batches that are under way.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// How long accepting rests after an error that will not pass at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often a client that waits for peers is looked at, whether it is still there.
const WAIT_LOOK: Duration = Duration::from_secs(1);

/// What a client from another machine is told while there is no password. Redis' words where they
/// fit; it reads them as one line.
const DENIED: &str = "-DENIED Quorumor is running in protected mode because protected mode is \
    enabled and no password is set. In this mode connections are only accepted from the loopback \
    interface. If you want to connect from other computers you may do one of the following: 1) Set a \
    password: start the node with '--requirepass-file FILE'. 2) If everybody who can reach this \
    address may read and change everything, start the node with '--protected-mode no'.\r\n";

const TOO_MANY: &str = "-ERR max number of clients reached\r\n";

/// Says why a door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is taken, not ours, or not allowed; the operator's to settle.
    #[error("cannot listen for Redis clients on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What was counted at this door since it opened or since `CONFIG RESETSTAT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: u64,
    /// Connections turned away: too many, or protected mode.
    pub rejected: u64,
    /// Requests answered.
    pub commands: u64,
    /// Connections closed because of bytes that are no request.
    pub protocol_errors: u64,
    /// Wrong users or passwords.
    pub authentication_failures: u64,
}

#[derive(Debug, Default)]
struct AtomicCounters {
    connections: AtomicU64,
    rejected: AtomicU64,
    commands: AtomicU64,
    protocol_errors: AtomicU64,
    authentication_failures: AtomicU64,
}

/// What all connections of one door share.
pub struct Shared {
    node: Node,
    settings: Settings,
    address: SocketAddr,
    clients: Clients,
    counters: AtomicCounters,
    inputs: Buffers,
    outputs: Buffers,
}

impl Shared {
    fn new(node: Node, settings: Settings, address: SocketAddr) -> Self {
        Self {
            node,
            settings,
            address,
            clients: Clients::default(),
            counters: AtomicCounters::default(),
            inputs: Buffers::new(),
            outputs: Buffers::new(),
        }
    }

    /// The node behind the door.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// What the operator has decided.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where the door listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who is connected.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        let counters = &self.counters;
        Counters {
            connections: counters.connections.load(Ordering::Relaxed),
            rejected: counters.rejected.load(Ordering::Relaxed),
            commands: counters.commands.load(Ordering::Relaxed),
            protocol_errors: counters.protocol_errors.load(Ordering::Relaxed),
            authentication_failures: counters.authentication_failures.load(Ordering::Relaxed),
        }
    }

    pub(super) fn reset_counters(&self) {
        let counters = &self.counters;
        counters.connections.store(0, Ordering::Relaxed);
        counters.rejected.store(0, Ordering::Relaxed);
        counters.commands.store(0, Ordering::Relaxed);
        counters.protocol_errors.store(0, Ordering::Relaxed);
        counters.authentication_failures.store(0, Ordering::Relaxed);
    }

    pub(super) fn count_commands(&self, count: u64) {
        self.counters.commands.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn count_protocol_error(&self) {
        self.counters.protocol_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_authentication_failure(&self) {
        self.counters.authentication_failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// An open door. Dropping it closes it at once; [`Door::close`] closes it cleanly.
pub struct Door {
    shared: Arc<Shared>,
    accepting: Option<task::JoinHandle<()>>,
}

impl Door {
    /// Listens on `address` and serves everybody who connects.
    ///
    /// # Errors
    /// [`OpenError::Listen`] when the system does not let it listen there; nothing was started.
    pub fn open(node: Node, address: SocketAddr, settings: Settings) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Listen { address, source };
        let listener = Async::<TcpListener>::bind(address).map_err(failed)?;
        let address = listener.get_ref().local_addr().map_err(failed)?;
        let bulk_bytes_max = settings.bulk_bytes_max.min(BULK_BYTES_MAX);
        let settings = Settings { bulk_bytes_max, ..settings };
        let shared = Arc::new(Shared::new(node, settings, address));
        let accepting = task::spawn(accept(Arc::clone(&shared), listener));
        Ok(Self { shared, accepting: Some(accepting) })
    }

    /// Where it listens, the port that the system chose included.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// How many clients are connected.
    pub fn clients(&self) -> usize {
        self.shared.clients.count()
    }

    /// Accepts nobody more, lets batches that are under way finish, and closes all connections.
    pub async fn close(mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.cancel().await;
        }
        self.shared.clients.close_all(Shutdown::Read);
        let gone = async {
            self.shared.clients.gone().await;
            true
        };
        let late = async {
            Timer::after(CLOSE_PATIENCE).await;
            false
        };
        if !future::or(gone, late).await {
            self.shared.clients.close_all(Shutdown::Both);
            self.shared.clients.gone().await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            // Cancelled at its next turn; nobody waits for that here.
            task::spawn(accepting.cancel());
        }
        self.shared.clients.close_all(Shutdown::Both);
    }
}

/// Accepts connections until it is cancelled.
async fn accept(shared: Arc<Shared>, listener: Async<TcpListener>) {
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                welcome(&shared, stream, peer);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                // Said once, not ten times a second for as long as it lasts.
                if !failing {
                    log::warn!("cannot accept a Redis client: {error}");
                }
                failing = true;
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Starts serving a connection, or turns it away.
fn welcome(shared: &Arc<Shared>, stream: Async<TcpStream>, peer: SocketAddr) {
    let settings = &shared.settings;
    // An IPv4 address may arrive dressed as IPv6.
    let local = peer.ip().to_canonical().is_loopback();
    if settings.protected && settings.password.is_none() && !local {
        log::debug!("turned away {peer}: protected mode");
        return turn_away(shared, &stream, DENIED);
    }
    // Replies leave at once; a socket that refuses this works all the same.
    let _ = stream.get_ref().set_nodelay(true);
    let stream = Arc::new(stream);
    match shared.clients.join(Arc::clone(&stream), peer, settings.clients_max) {
        Some(card) => {
            shared.counters.connections.fetch_add(1, Ordering::Relaxed);
            let leaving = Leaving { shared: Arc::clone(shared), card };
            task::spawn(async move {
                if let Err(error) = serve(&leaving.shared, &leaving.card).await {
                    log::debug!("client {} at {peer}: {error}", leaving.card.id());
                }
            });
        }
        None => turn_away(shared, &stream, TOO_MANY),
    }
}

/// Says why and closes; whoever does not read fast enough does not learn it, as with Redis.
fn turn_away(shared: &Shared, stream: &Async<TcpStream>, why: &str) {
    shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
    let _ = stream.get_ref().write(why.as_bytes());
    let _ = stream.get_ref().shutdown(Shutdown::Write);
}

/// Takes a connection off the register however its task ends.
struct Leaving {
    shared: Arc<Shared>,
    card: Arc<Card>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.clients.leave(&self.card);
    }
}

/// Serves one connection until it ends.
async fn serve(shared: &Shared, card: &Arc<Card>) -> io::Result<()> {
    let mut requests = Requests::new(shared.settings.bulk_bytes_max);
    let goes_on = converse(shared, card, &mut requests).await;
    requests.release(&shared.inputs);
    if goes_on? { Ok(()) } else { linger(shared, card.stream()).await }
}

/// Serves one connection until its client leaves (`true`) or must be sent away (`false`).
async fn converse(shared: &Shared, card: &Arc<Card>, requests: &mut Requests) -> io::Result<bool> {
    let mut session = Session::new(shared, Arc::clone(card));
    while !card.is_closing() {
        card.stream().readable().await?;
        let space = match requests.space(&shared.inputs) {
            Ok(space) => space,
            Err(error) => {
                send(card.stream(), format!("-ERR {error}\r\n").as_bytes()).await?;
                return Ok(false);
            }
        };
        match card.stream().get_ref().read(space) {
            Ok(0) => break,
            Ok(count) => requests.filled(count),
            Err(error) if is_passing(&error) => {
                requests.rest(&shared.inputs);
                continue;
            }
            Err(error) => return Err(error),
        }
        let mut replies = Replies::new(shared.outputs.take(), session.protocol());
        let goes_on = answer(shared, card, &mut session, requests, &mut replies).await;
        shared.outputs.give_back(replies.into_buffer());
        requests.rest(&shared.inputs);
        if !goes_on? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Executes all that was read and sends the replies; whether the connection goes on.
async fn answer(
    shared: &Shared,
    card: &Card,
    session: &mut Session,
    requests: &mut Requests,
    replies: &mut Replies,
) -> io::Result<bool> {
    loop {
        shared.node.uncrowded().await;
        let (pause, waits) = session.run(shared, requests, replies);
        if let Some(position) = waits
            && let Err(stopped) = shared.node.durable(position).await
        {
            // Whether it is durable is not known, so nothing is claimed.
            log::warn!("closing a client whose write may be lost: {stopped}");
            return Ok(false);
        }
        send(card.stream(), replies.as_bytes()).await?;
        replies.clear();
        match pause {
            Pause::Drained => return Ok(true),
            Pause::Full => {}
            Pause::Close => return Ok(false),
            Pause::Wait(wait) => match covered(shared, card, wait).await {
                Some(peers) => session.covered(peers, replies),
                None => return Ok(false),
            },
        }
    }
}

/// Writes all of `bytes`, waiting for the client as long as it takes some of them now and then.
async fn send(stream: &Async<TcpStream>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.get_ref().write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if is_passing(&error) => {
                let late = async {
                    Timer::after(WRITE_PATIENCE).await;
                    Err(ErrorKind::TimedOut.into())
                };
                future::or(stream.writable(), late).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// How many peers hold a client's last write, as soon as they are enough or the time is up; nothing
/// if the client is gone by then.
async fn covered(shared: &Shared, card: &Card, wait: Wait) -> Option<usize> {
    let Some(dot) = wait.dot else {
        // Who has written nothing waits for nothing: every live peer holds that.
        return Some(shared.node.enter().shard().peers().count());
    };
    let deadline = wait.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let answer = async { Some(shared.node.wait(dot, wait.peers, deadline).await) };
    let gone = async {
        let closing = card.closing();
        if !card.is_closing() {
            future::or(closing, has_left(card.stream())).await;
        }
        None
    };
    future::or(answer, gone).await
}

/// Ends when the client has closed its side. Looks now and then rather than waits, because the socket
/// is readable all the time if the client has sent more behind its `WAIT`.
async fn has_left(stream: &Async<TcpStream>) {
    loop {
        Timer::after(WAIT_LOOK).await;
        match stream.get_ref().peek(&mut [0]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if is_passing(&error) => {}
            Err(_) => return,
        }
    }
}

/// Closes our side and reads on for a moment, so that the last reply reaches the client.
async fn linger(shared: &Shared, stream: &Async<TcpStream>) -> io::Result<()> {
    stream.get_ref().shutdown(Shutdown::Write)?;
    let until = Instant::now() + LINGER;
    let mut buffer = shared.inputs.take();
    buffer.resize(super::buffers::BUFFER_BYTES, 0);
    let mut left = LINGER_BYTES_MAX;
    while left > 0 {
        let late = async {
            Timer::at(until).await;
            Err(ErrorKind::TimedOut.into())
        };
        let ready: io::Result<()> = future::or(stream.readable(), late).await;
        let read = ready.and_then(|()| stream.get_ref().read(&mut buffer));
        match read {
            Ok(0) => break,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if is_passing(&error) => {}
            Err(_) => break,
        }
    }
    shared.inputs.give_back(buffer);
    Ok(())
}

/// Whether an error says only that the socket is not ready after all.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
