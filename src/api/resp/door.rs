//! The door itself: opening, closing cleanly, and what all connections share.
//!
//! Everything else is done by the door's own thread, see `porter`. It is a thread rather than a task
//! because it has a poll of its own: the executor's costs several system calls per request, for a
//! timer, for waking and for asking again, and hands every request over through a queue.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;

use event_listener::Event;
use mio::Poll;
use mio::net::TcpListener;

use super::buffers::Buffers;
use super::clients::Clients;
use super::completions::{Completion, Completions};
use super::notify::Notify;
use super::parse::BULK_BYTES_MAX;
use super::porter::{COMPLETIONS, Porter};
use super::pubsub::Subscriptions;
use super::settings::Settings;
use crate::server::{Answers, Listener, Node};

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
    answers: Arc<Answers>,
    listener: Arc<Listener>,
    subscriptions: Subscriptions,
    notify: Notify,
    clients_max: AtomicUsize,
    accepting_fails: AtomicBool,
}

impl Shared {
    fn new(
        node: Node,
        settings: Settings,
        address: SocketAddr,
        answers: Arc<Answers>,
        listener: Arc<Listener>,
    ) -> Self {
        Self {
            node,
            clients_max: AtomicUsize::new(settings.clients_max),
            settings,
            address,
            clients: Clients::default(),
            counters: AtomicCounters::default(),
            inputs: Buffers::new(),
            answers,
            listener,
            subscriptions: Subscriptions::default(),
            notify: Notify::default(),
            accepting_fails: AtomicBool::new(false),
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

    /// How many clients may be connected at a time.
    pub fn clients_max(&self) -> usize {
        self.clients_max.load(Ordering::Relaxed)
    }

    /// Lets so many clients be connected; who is connected stays.
    pub(super) fn limit_clients(&self, count: usize) {
        self.clients_max.store(count, Ordering::Relaxed);
    }

    /// Who is connected.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Tokens for requests that the shard answers later; the answers find their connection.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Who hears what is published at peers.
    pub(super) fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// Who has subscribed to what.
    pub(super) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// What is published of the changes of keys.
    pub(super) fn notify(&self) -> &Notify {
        &self.notify
    }

    /// Buffers for reading.
    pub(super) fn inputs(&self) -> &Buffers {
        &self.inputs
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

    pub(super) fn count_connection(&self) {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_rejected(&self) {
        self.counters.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes whether accepting fails now; whether it did before.
    pub(super) fn accepting_fails(&self, fails: bool) -> bool {
        self.accepting_fails.swap(fails, Ordering::Relaxed)
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
    completions: Arc<Completions>,
    ended: Arc<Ended>,
}

/// Whether the door's thread has ended.
#[derive(Default)]
struct Ended {
    has: AtomicBool,
    told: Event,
}

/// Tells that the thread has ended, however it did.
struct Ending(Arc<Ended>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.has.store(true, Ordering::Release);
        self.0.told.notify(usize::MAX);
    }
}

impl Door {
    /// Listens on `address` and serves everybody who connects.
    ///
    /// # Errors
    /// [`OpenError::Listen`] when the system does not let it listen there; nothing was started.
    pub fn open(node: Node, address: SocketAddr, settings: Settings) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let poll = Poll::new().map_err(failed)?;
        let completions = Completions::new(poll.registry(), COMPLETIONS).map_err(failed)?;
        let completions = Arc::new(completions);
        let answering = Arc::clone(&completions);
        let answers = node.answers(move |token, reply| {
            answering.push(Completion::Answer(token, reply));
        });
        let (hearing, noticing) = (Arc::clone(&completions), Arc::clone(&completions));
        let hearer = node.listen(
            move |messages| hearing.offer(Completion::Published(messages)),
            move |changes| noticing.offer(Completion::Changed(changes)),
        );
        let bulk_bytes_max = settings.bulk_bytes_max.min(BULK_BYTES_MAX);
        let settings = Settings { bulk_bytes_max, ..settings };
        let shared = Arc::new(Shared::new(node, settings, address, answers, hearer));
        let porter = Porter::new(Arc::clone(&shared), poll, Arc::clone(&completions), listener);
        let porter = porter.map_err(failed)?;
        let ended = Arc::new(Ended::default());
        let ending = Ending(Arc::clone(&ended));
        thread::Builder::new()
            .name("redis-door".to_owned())
            .spawn(move || {
                let _ending = ending;
                porter.run();
            })
            .map_err(failed)?;
        Ok(Self { shared, completions, ended })
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

    /// Accepts nobody more, lets what was read be answered, and closes all connections.
    pub async fn close(self) {
        self.completions.push(Completion::Close { at_once: false });
        loop {
            let told = self.ended.told.listen();
            if self.ended.has.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.completions.push(Completion::Close { at_once: true });
    }
}
