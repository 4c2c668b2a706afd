//! QUIC links between peers: who they are, how they find each other again, and how frames travel.
//!
//! A [`Net`] is one node on the network: one UDP socket, one QUIC connection to each peer, dialled
//! or accepted, under mutual TLS from one cluster secret. The rooms above say which addresses to
//! try ([`Net::dial`]) and which frames to send to whom ([`Net::send`]); they hear of peers that come
//! and go and of frames that arrive through one handler. What is inside a frame is none of this
//! room's business.
//!
//! The handler is called by the task that has just read from the connection: no channel, no other
//! thread. So it must be short and must not wait. In return a frame is a few microseconds from the
//! socket. For each link it hears [`NetEvent::Up`], then frames, then [`NetEvent::Down`], never two
//! at a time; several links may call it at once if the executor has several threads.
//!
//! Sending never waits either. A frame goes into a bounded queue or is refused ([`Sent`]): a slow
//! peer costs its own queue and nothing else. There are three lanes. *Push* is one stream per
//! direction for live writes, in order. An *exchange* has a stream of its own, so that a bulk
//! transfer and a live write never wait for each other. A *datagram* is a packet of its own that is
//! sent once: for what is worthless when late.
//!
//! What each file is about:
//! - `identity`: the secret, keys, certificates, ids; `tuning`: QUIC's settings and their reasons.
//! - `driver`: the thread that QUIC runs on; `socket`: UDP under quinn; `emulation`: a profile's network in between.
//! - `hello`: the first words on a connection, and the words at its end; `door`: who gets in;
//!   `twins`: two nodes with one key.
//! - `candidates`: which addresses are worth dialling; `dial`: keeping them dialled; `discovery`:
//!   finding them on the LAN; `outage` and `congestion`: a cut is survived, and that it has healed is
//!   noticed at once.
//! - `boundary`: the values that cross to the rooms above; `links`: which peers are linked.
//! - `frame`: frames on a stream; `link`: one connection with its queues and tasks.
//!
//! What must stay true: nothing that a peer or a stranger sends can panic, block or fill a node;
//! ids come from certificates; secrets never leave `identity`.
//!
//! Left out: relays, hole punching, several sockets. This is for a LAN.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_listener::{Event, EventListener};
use futures_lite::future;
use parking_lot::{Mutex, RwLock};

use crate::protocol::id::NodeId;

mod boundary;
mod candidates;
mod congestion;
mod dial;
pub mod discovery;
mod door;
mod driver;
mod emulation;
mod frame;
mod hello;
mod identity;
mod link;
mod links;
mod outage;
mod socket;
mod tuning;
mod twins;

pub use boundary::{
    DATAGRAM_BYTES_MAX, Handler, Lane, Limits, NetConfig, NetError, NetEvent, NetStats, PeerInfo,
    Sent, URGENT_EXCHANGE,
};
pub use emulation::{Emulation, EmulationCount, load_profile};
pub use hello::RefusedReason;
pub use identity::{IdentityError, NodeIdentity, Secret, read_private};
pub use socket::DatagramCount;

use candidates::{Added, Candidates, Source, Ticket, Turn};
use discovery::Discovery;
use hello::{Ending, Farewell, FarewellCode};
use link::Link;
use socket::{OwnThread, Socket, Traffic, pause};

/// How long [`Net::close`] lets queued pushes drain, and then connections say farewell.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// The shortest time that farewells are given to arrive.
const FAREWELL_MIN: Duration = Duration::from_millis(20);
/// How often [`Net::close`] looks whether the port is free.
const CLOSE_POLL: Duration = Duration::from_millis(1);
/// Peers that may be in quarantine at once; the one that would be let in first makes room.
const QUARANTINED_MAX: usize = 1024;

/// One node on the network. Clones are handles to the same node; when the last handle that was
/// cloned from the one [`Net::bind`] returned is dropped, the node leaves the network.
#[derive(Clone)]
pub struct Net {
    inner: Arc<Inner>,
    /// Closes the node when the last of the owner's handles goes. The node's own tasks, and the
    /// handler, have handles without it.
    _guard: Option<Arc<Guard>>,
}

struct Inner {
    node_id: NodeId,
    cluster: String,
    name: String,
    version: u8,
    extra: Vec<u8>,
    /// Drawn at every start; tells this run from the last.
    run: u64,
    since: Instant,
    limits: Limits,
    local_address: SocketAddr,
    ends: tuning::Ends,
    endpoint: Mutex<Option<quinn::Endpoint>>,
    /// Tells when the port is free again.
    socket: Weak<Socket>,
    /// Taken away when the node closes, so that a handler that holds the node is let go.
    handler: RwLock<Option<Handler>>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    /// Told whenever a link comes or goes, and when the node closes.
    links_changed: Event,
    candidates: Mutex<Candidates>,
    discovery: Discovery,
    quarantine: Mutex<HashMap<NodeId, Instant>>,
    refusals: Mutex<Refusals>,
    traffic: Arc<Traffic>,
    emulation: Option<Emulation>,
    frames_sent: AtomicU64,
    frames_dropped: AtomicU64,
    links_up: AtomicU64,
    closing: AtomicBool,
}

/// Refusals so far.
#[derive(Default)]
struct Refusals {
    counts: BTreeMap<RefusedReason, u64>,
    /// When the log last heard of an address.
    logged: HashMap<(IpAddr, RefusedReason), Instant>,
}

struct Guard(Weak<Inner>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.leave();
        }
    }
}

impl Net {
    /// Opens the socket and starts to accept peers. `handler` hears everything from then on.
    ///
    /// # Errors
    /// When the address is taken or cannot be listened on, when a name is not acceptable, or when
    /// no keys can be made. Nothing runs then.
    pub async fn bind(config: NetConfig, handler: Handler) -> Result<Self, NetError> {
        boundary::check_config(&config)?;
        let address = config.listen;
        let listen_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => NetError::PortInUse { address },
            _ => NetError::Listen { address, source },
        };
        // A network that changes nothing is left out altogether.
        let emulation = config.emulation.filter(|it| !it.profile().is_transparent());
        let emulated = emulation.is_some();
        let quic = tuning::quic_configs(&config.secret, &config.identity, emulated)?;
        let socket = UdpSocket::bind(address).map_err(listen_error)?;
        let local_address = socket.local_addr().map_err(listen_error)?;
        let traffic = Arc::new(Traffic::default());
        let socket =
            Socket::new(socket, emulation.clone(), Arc::clone(&traffic)).map_err(listen_error)?;
        let socket_left = Arc::downgrade(&socket);
        // For what strangers may cost; how one is accepted depends on where it comes from.
        let server = quinn::ServerConfig::clone(&quic.ends.with(address).server);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quic.endpoint,
            Some(server),
            socket,
            Arc::new(OwnThread),
        )
        .map_err(listen_error)?;
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(IdentityError::from)?;
        let inner = Arc::new(Inner {
            node_id: config.identity.node_id(),
            cluster: config.cluster,
            name: config.name,
            version: config.version,
            extra: config.hello,
            run: u64::from_be_bytes(run),
            since: Instant::now(),
            limits: config.limits,
            local_address,
            ends: quic.ends,
            endpoint: Mutex::new(Some(endpoint.clone())),
            socket: socket_left,
            handler: RwLock::new(Some(handler)),
            links: RwLock::default(),
            links_changed: Event::new(),
            candidates: Mutex::default(),
            discovery: Discovery::default(),
            quarantine: Mutex::default(),
            refusals: Mutex::default(),
            traffic,
            emulation,
            frames_sent: AtomicU64::new(0),
            frames_dropped: AtomicU64::new(0),
            links_up: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let guard = Arc::new(Guard(Arc::downgrade(&inner)));
        let net = Self { inner, _guard: Some(guard) };
        driver::spawn(net.unguarded().accept(endpoint));
        driver::spawn(net.unguarded().watch_links());
        Ok(net)
    }

    /// Where this node listens.
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local_address
    }

    /// Who this node is.
    pub fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// Keeps `address` dialled from now on, for ever: it is tried until it is linked, and again when
    /// it is lost. Its being this node, or a second address of a peer, is noticed and does no harm.
    /// Returns `false` if there are too many addresses already; nothing changes then.
    pub fn dial(&self, address: SocketAddr) -> bool {
        self.consider(address, Source::Seed)
    }

    /// Dials an address that a member told of. It is forgotten when nobody answers there for a
    /// while; bounded in number and in dials per second, and never in the way of [`Net::dial`].
    /// Returns `false` if there are too many hints already; nothing changes then.
    pub fn hint(&self, address: SocketAddr) -> bool {
        self.consider(address, Source::Told)
    }

    fn consider(&self, address: SocketAddr, source: Source) -> bool {
        let address = match address {
            // What is valid on one link only says on which.
            SocketAddr::V6(scoped) if scoped.scope_id() != 0 => address,
            _ => emulation::canonical(address),
        };
        if self.is_closing() {
            return false;
        }
        let added = self.inner.candidates.lock().add(address, source, self.now());
        match added {
            Added::New(ticket) => {
                driver::spawn(self.unguarded().keep_dialled(address, ticket));
                true
            }
            Added::Known => true,
            Added::Full => false,
        }
    }

    /// Queues a frame for a peer. Never waits.
    pub fn send(&self, to: NodeId, lane: Lane, frame: Bytes) -> Sent {
        let links = self.inner.links.read();
        let sent = links.get(&to).map_or(Sent::NotConnected, |link| link.send(self, lane, frame));
        drop(links);
        match sent {
            Sent::Queued => self.inner.frames_sent.fetch_add(1, Ordering::Relaxed),
            Sent::QueueFull => self.inner.frames_dropped.fetch_add(1, Ordering::Relaxed),
            Sent::NotConnected => 0,
        };
        sent
    }

    /// Every linked peer, by id.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let mut peers: Vec<PeerInfo> = self.links().iter().map(|link| link.info()).collect();
        peers.sort_by_key(|peer| peer.id);
        peers
    }

    /// When something was last read from each linked peer.
    pub fn heard(&self) -> Vec<(NodeId, Instant)> {
        self.inner.links.read().values().map(|link| (link.peer, link.heard_at())).collect()
    }

    /// Ends the link to a peer that does not answer, telling it why in case it hears after all. It
    /// is dialled as before, and may come back at once.
    pub fn give_up(&self, peer: NodeId, reason: &str) {
        let link = self.inner.links.read().get(&peer).cloned();
        if let Some(link) = link {
            link.close(&Farewell::new(FarewellCode::Unanswered, reason));
        }
    }

    /// Ends the link to a peer, telling it why, and does not let it back in for `quarantine`.
    pub fn disconnect(&self, peer: NodeId, reason: &str, quarantine: Duration) {
        let now = self.now();
        let mut quarantined = self.inner.quarantine.lock();
        quarantined.retain(|_, until| *until > now);
        if quarantined.len() >= QUARANTINED_MAX {
            let soonest = quarantined.iter().min_by_key(|(_, until)| **until).map(|(id, _)| *id);
            soonest.and_then(|id| quarantined.remove(&id));
        }
        quarantined.insert(peer, now + quarantine);
        drop(quarantined);
        let link = self.inner.links.read().get(&peer).cloned();
        if let Some(link) = link {
            link.close(&Farewell::new(FarewellCode::Quarantined, reason));
        }
    }

    /// What has happened so far.
    pub fn stats(&self) -> NetStats {
        NetStats {
            sent: self.inner.traffic.sent(),
            received: self.inner.traffic.received(),
            frames_sent: self.inner.frames_sent.load(Ordering::Relaxed),
            frames_dropped: self.inner.frames_dropped.load(Ordering::Relaxed),
            links_up: self.inner.links_up.load(Ordering::Relaxed),
            refused: self.inner.refusals.lock().counts.clone(),
            emulation: self.inner.emulation.as_ref().map(Emulation::count),
        }
    }

    /// Leaves the network: lets queued pushes drain for up to a second, tells every peer, and frees
    /// the port. The handler hears `Down` for each peer and then nothing more.
    pub async fn close(&self) {
        self.say_goodbye();
        let links = self.links();
        for link in &links {
            link.finish();
        }
        // Each peer reads to the end of what we pushed and then closes the link.
        let drained = async {
            for link in &links {
                link.connection.closed().await;
            }
        };
        future::or(drained, pause(CLOSE_MAX)).await;
        let round_trip = links.iter().map(|link| link.connection.rtt()).max().unwrap_or_default();
        drop(links);
        let endpoint = self.inner.endpoint.lock().clone();
        self.inner.leave();
        if let Some(endpoint) = endpoint {
            // A farewell that is lost is repeated when the peer sends something in this time.
            let farewell = (round_trip * 3).clamp(FAREWELL_MIN, CLOSE_MAX);
            future::or(endpoint.wait_idle(), pause(farewell)).await;
        }
        for link in self.links() {
            self.lost(&link, &Ending::Ours);
        }
        self.inner.handler.write().take();
        // quinn's tasks let go of the socket when they next run.
        let freed = async {
            while self.inner.socket.strong_count() > 0 {
                pause(CLOSE_POLL).await;
            }
        };
        future::or(freed, pause(CLOSE_MAX)).await;
    }
}

/// What the other files of this room need of a node.
impl Net {
    fn unguarded(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), _guard: None }
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn cluster(&self) -> &str {
        &self.inner.cluster
    }

    fn name(&self) -> &str {
        &self.inner.name
    }

    fn version(&self) -> u8 {
        self.inner.version
    }

    fn extra(&self) -> &[u8] {
        &self.inner.extra
    }

    fn run(&self) -> u64 {
        self.inner.run
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn refusals(&self) -> &Mutex<Refusals> {
        &self.inner.refusals
    }

    fn handler(&self) -> Option<Handler> {
        self.inner.handler.read().clone()
    }

    fn is_closing(&self) -> bool {
        self.inner.closing.load(Ordering::Acquire)
    }

    /// The endpoint, unless the node is closing.
    fn endpoint(&self) -> Option<quinn::Endpoint> {
        self.inner.endpoint.lock().clone()
    }

    /// How connections with this address are made.
    fn end(&self, address: SocketAddr) -> &tuning::End {
        self.inner.ends.with(address)
    }

    fn is_candidate(&self, address: SocketAddr, ticket: Ticket) -> bool {
        !self.is_closing() && self.inner.candidates.lock().holds(address, ticket)
    }

    fn is_seed(&self, address: SocketAddr) -> bool {
        self.inner.candidates.lock().is_seed(address)
    }

    fn turn(&self, address: SocketAddr, ticket: Ticket) -> Turn {
        self.inner.candidates.lock().turn(address, ticket, self.now())
    }

    fn met_at(&self, address: SocketAddr, ticket: Ticket, peer: Option<NodeId>) {
        if let Some(peer) = peer {
            self.inner.candidates.lock().met(address, ticket, peer, self.now());
        }
    }

    fn links(&self) -> Vec<Arc<Link>> {
        self.inner.links.read().values().cloned().collect()
    }

    fn is_linked(&self, peer: NodeId) -> bool {
        self.inner.links.read().contains_key(&peer)
    }

    /// Whether there is a link to that address, or to the peer that was found there before.
    fn is_linked_at(&self, address: SocketAddr, known: Option<NodeId>) -> bool {
        let links = self.inner.links.read();
        known.is_some_and(|peer| links.contains_key(&peer))
            || links.values().any(|link| link.address == address)
    }

    /// The peer that is linked at that address.
    fn linked_at(&self, address: SocketAddr) -> Option<NodeId> {
        let links = self.inner.links.read();
        links.values().find(|link| link.address == address).map(|link| link.peer)
    }

    fn listen_for_links(&self) -> EventListener {
        self.inner.links_changed.listen()
    }

    fn links_changed(&self) {
        self.inner.links_up.fetch_add(1, Ordering::Relaxed);
        self.inner.links_changed.notify(usize::MAX);
    }

    /// Waits for so long, or until the node closes.
    async fn pause(&self, length: Duration) {
        let closing = async {
            loop {
                let changed = self.listen_for_links();
                if self.is_closing() {
                    return;
                }
                changed.await;
            }
        };
        future::or(pause(length), closing).await;
    }

    /// Looks at every link now and then, and probes those that have gone silent.
    async fn watch_links(self) {
        while !self.is_closing() {
            let changed = self.listen_for_links();
            let links = self.links();
            if links.is_empty() && !self.is_closing() {
                changed.await;
                continue;
            }
            drop(changed);
            for link in links {
                link.outage.lock().pulse(&link.connection);
            }
            self.pause(outage::PULSE).await;
        }
    }
}

impl Inner {
    /// Closes the endpoint, and with it every link, and ends all tasks.
    fn leave(&self) {
        self.closing.store(true, Ordering::Release);
        if let Some(endpoint) = self.endpoint.lock().take() {
            endpoint.close(FarewellCode::ShuttingDown.number(), b"shutting down");
        }
        self.links_changed.notify(usize::MAX);
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Net({} at {})", self.inner.name, self.inner.local_address)
    }
}
