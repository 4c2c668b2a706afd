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
//! peer costs its own queue and nothing else. There are two lanes. *Push* is one stream per
//! direction for live writes, in order. An *exchange* has a stream of its own, so that a bulk
//! transfer and a live write never wait for each other.
//!
//! What each file is about:
//! - `identity`: the secret, keys, certificates, ids; `tuning`: QUIC's settings and their reasons.
//! - `socket`: UDP and timers under quinn; `emulation`: a profile's network in between.
//! - `hello`: the first words on a connection, and the words at its end; `door`: who gets in.
//! - `dial`: addresses that are kept dialled; `outage`: noticing at once that a cut has healed.
//! - `frame`: frames on a stream; `link`: one connection with its queues and tasks.
//!
//! What must stay true: nothing that a peer or a stranger sends can panic, block or fill a node;
//! ids come from certificates; secrets never leave `identity`.
//!
//! Left out: relays, hole punching, several sockets. This is for a LAN.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use event_listener::{Event, EventListener};
use futures_lite::future;
use parking_lot::{Mutex, RwLock};

use crate::protocol::id::NodeId;
use crate::protocol::profile::{Profile, ProfileError};

mod dial;
mod door;
mod emulation;
mod frame;
mod hello;
mod identity;
mod link;
mod outage;
mod socket;
mod tuning;

pub use emulation::{Emulation, EmulationCount};
pub use hello::RefusedReason;
pub use identity::{IdentityError, NodeIdentity, Secret, read_private};
pub use socket::DatagramCount;

use hello::{Ending, Farewell, FarewellCode};
use link::Link;
use socket::{AsyncStd, Socket, Traffic, pause};

/// How long [`Net::close`] lets queued pushes drain, and then connections say farewell.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// How often [`Net::close`] looks whether the port is free.
const CLOSE_POLL: Duration = Duration::from_millis(1);
/// Peers that may be in quarantine at once; the one that would be let in first makes room.
const QUARANTINED_MAX: usize = 1024;
/// A profile is a page of text.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// What is called with everything that happens. It is called from the tasks that serve the
/// connections: it must be short and must not block.
pub type Handler = Arc<dyn Fn(&Net, NetEvent) + Send + Sync>;

/// What a node brings to the network.
#[derive(Debug)]
pub struct NetConfig {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// What its cluster shares.
    pub secret: Secret,
    /// The cluster's name: two clusters with one secret do not merge by accident. Up to 128 bytes.
    pub cluster: String,
    /// The node's name, for people. Up to 128 bytes.
    pub name: String,
    /// What peers are told of this node when they meet it, for the rooms above. Up to 4 KiB.
    pub hello: Vec<u8>,
    /// A network to emulate around this node.
    pub emulation: Option<Emulation>,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds on what a peer may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Peers linked at once.
    pub peers_max: usize,
    /// The longest pushed frame, in bytes. A write larger than this goes by an exchange.
    pub push_frame_bytes_max: usize,
    /// The longest frame of an exchange: the largest value that may be written, with room to spare.
    pub exchange_frame_bytes_max: usize,
    /// What may wait to be pushed to one peer; what does not fit is repaired by the next round.
    pub push_queue_bytes_max: usize,
    /// What may wait in all exchanges with one peer together.
    pub exchange_queue_bytes_max: usize,
    /// Incomplete frames from one peer together. A peer that exceeds it is sent away.
    pub receive_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peers_max: 256,
            push_frame_bytes_max: 1 << 20,
            exchange_frame_bytes_max: 72 << 20,
            push_queue_bytes_max: 4 << 20,
            exchange_queue_bytes_max: 80 << 20,
            receive_bytes_max: 96 << 20,
        }
    }
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// One long-lived stream in each direction: in order, and dropped when its queue is full.
    Push,
    /// A stream of its own for each exchange and direction: in order within the exchange.
    Exchange {
        /// Names the exchange on this link. Whoever opens it chooses; both sides' choices must not
        /// collide (draw it at random, or keep odd and even apart).
        id: u64,
        /// The sender sends no more on this exchange after this frame.
        last: bool,
    },
}

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a frame that was not queued is gone"]
pub enum Sent {
    /// It waits for its turn on the wire. It still is lost if the link breaks.
    Queued,
    /// The queue of that peer is full, too many exchanges are open, or the frame is too long.
    QueueFull,
    /// There is no link to that peer.
    NotConnected,
}

/// What the handler hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// There is a link to a peer.
    Up {
        /// Who it is, by its certificate.
        peer: NodeId,
        /// What it calls itself.
        name: String,
        /// Where it is.
        address: SocketAddr,
        /// The round trip measured during the handshake.
        round_trip: Duration,
        /// What its rooms above wanted us to know ([`NetConfig::hello`]).
        hello: Bytes,
    },
    /// The link to a peer is gone; the addresses given to [`Net::dial`] are tried again.
    Down {
        /// Who it was.
        peer: NodeId,
        /// Why, for people.
        reason: String,
    },
    /// A frame arrived.
    Frame {
        /// From whom.
        peer: NodeId,
        /// On which way.
        lane: Lane,
        /// Its contents. They may share memory with frames that came along: copy what is kept.
        bytes: Bytes,
    },
    /// Somebody was not let in, or did not let us in.
    Refused {
        /// Where it is.
        address: SocketAddr,
        /// The kind, as counted.
        reason: RefusedReason,
        /// Why, for people.
        why: String,
    },
}

/// A linked peer, as of now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Who it is.
    pub id: NodeId,
    /// What it calls itself.
    pub name: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// When the link came up.
    pub since: Instant,
    /// UDP packets and bytes sent on this link.
    pub sent: DatagramCount,
    /// UDP packets and bytes received on this link.
    pub received: DatagramCount,
    /// UDP packets that were sent and taken for lost.
    pub lost_datagrams: u64,
    /// Frames queued for it so far.
    pub frames_sent: u64,
    /// Frames that came from it so far.
    pub frames_received: u64,
    /// What waits to be pushed, in bytes.
    pub push_queue_bytes: usize,
    /// What waits in exchanges, in bytes.
    pub exchange_queue_bytes: usize,
}

/// What a node has done on the network so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// UDP packets handed to the socket, handshakes and keep-alives included.
    pub sent: DatagramCount,
    /// UDP packets received.
    pub received: DatagramCount,
    /// Frames queued for peers.
    pub frames_sent: u64,
    /// Frames that found their queue full.
    pub frames_dropped: u64,
    /// Links that came up.
    pub links_up: u64,
    /// Refusals by reason.
    pub refused: BTreeMap<RefusedReason, u64>,
    /// What the emulated network did, if there is one.
    pub emulation: Option<EmulationCount>,
}

/// Says why a node is not on the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another program, or another node, listens there.
    #[error("{address} is in use: another node or program listens there; choose another port")]
    PortInUse {
        /// Where we wanted to listen.
        address: SocketAddr,
    },
    /// The socket could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where we wanted to listen.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// A name or the hello is not acceptable.
    #[error("the {what} {value:?} cannot be used: {problem}")]
    Name {
        /// "cluster name", "node name", "hello".
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The keys or certificates could not be set up.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no such profile, or it is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile's file could not be read.
    #[error("cannot read the profile {}: {source}", path.display())]
    ProfileFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

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
    extra: Vec<u8>,
    /// Drawn at every start; tells this run from the last.
    run: u64,
    limits: Limits,
    local_address: SocketAddr,
    client: quinn::ClientConfig,
    endpoint: Mutex<Option<quinn::Endpoint>>,
    /// Tells when the port is free again.
    socket: Weak<Socket>,
    /// Taken away when the node closes, so that a handler that holds the node is let go.
    handler: RwLock<Option<Handler>>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    /// Told whenever a link comes or goes, and when the node closes.
    links_changed: Event,
    candidates: Mutex<HashMap<SocketAddr, ()>>,
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
        check_config(&config)?;
        let address = config.listen;
        let listen_error = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => NetError::PortInUse { address },
            _ => NetError::Listen { address, source },
        };
        let quic = tuning::quic_configs(&config.secret, &config.identity)?;
        let socket = UdpSocket::bind(address).map_err(listen_error)?;
        let local_address = socket.local_addr().map_err(listen_error)?;
        // A network that changes nothing is left out altogether.
        let emulation = config.emulation.filter(|it| !it.profile().is_transparent());
        let traffic = Arc::new(Traffic::default());
        let socket =
            Socket::new(socket, emulation.clone(), Arc::clone(&traffic)).map_err(listen_error)?;
        let socket_left = Arc::downgrade(&socket);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quic.endpoint,
            Some(quic.server),
            socket,
            Arc::new(AsyncStd),
        )
        .map_err(listen_error)?;
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(IdentityError::from)?;
        let inner = Arc::new(Inner {
            node_id: config.identity.node_id(),
            cluster: config.cluster,
            name: config.name,
            extra: config.hello,
            run: u64::from_be_bytes(run),
            limits: config.limits,
            local_address,
            client: quic.client,
            endpoint: Mutex::new(Some(endpoint.clone())),
            socket: socket_left,
            handler: RwLock::new(Some(handler)),
            links: RwLock::default(),
            links_changed: Event::new(),
            candidates: Mutex::default(),
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
        async_std::task::spawn(net.unguarded().accept(endpoint));
        async_std::task::spawn(net.unguarded().watch_links());
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
        let address = emulation::canonical(address);
        let mut candidates = self.inner.candidates.lock();
        if candidates.contains_key(&address) {
            return true;
        }
        if candidates.len() >= dial::CANDIDATES_MAX || self.is_closing() {
            return false;
        }
        candidates.insert(address, ());
        drop(candidates);
        async_std::task::spawn(self.unguarded().keep_dialled(address));
        true
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
        let links = self.links();
        for link in &links {
            link.finish();
        }
        let drained = async {
            for link in &links {
                link.connection.closed().await;
            }
        };
        future::or(drained, pause(CLOSE_MAX)).await;
        let endpoint = self.inner.endpoint.lock().clone();
        self.inner.leave();
        if let Some(endpoint) = endpoint {
            future::or(endpoint.wait_idle(), pause(CLOSE_MAX)).await;
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

    /// The endpoint and what to dial with, unless the node is closing.
    fn dialler(&self) -> Option<(quinn::Endpoint, quinn::ClientConfig)> {
        let endpoint = self.inner.endpoint.lock().clone()?;
        Some((endpoint, self.inner.client.clone()))
    }

    fn is_candidate(&self, address: SocketAddr) -> bool {
        !self.is_closing() && self.inner.candidates.lock().contains_key(&address)
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

    fn check_quarantine(&self, peer: NodeId) -> Result<(), Farewell> {
        let until = self.inner.quarantine.lock().get(&peer).copied();
        let left = until.map(|until| until.saturating_duration_since(self.now()));
        match left {
            Some(left) if !left.is_zero() => Err(Farewell::new(
                FarewellCode::Quarantined,
                format!("sent away, not before another {} s", left.as_secs() + 1),
            )),
            _ => Ok(()),
        }
    }

    /// Takes a link that the peer has decided to keep, in place of any other to the same peer.
    fn admit(&self, link: &Arc<Link>) -> Result<(), Farewell> {
        let mut links = self.inner.links.write();
        self.check_room(&links, link.peer)?;
        let replaced = links.insert(link.peer, Arc::clone(link));
        drop(links);
        self.replaced(replaced);
        Ok(())
    }

    /// Decides, as the node with the smaller id, whether to keep a link: `false` if there is one to
    /// that peer which is as good. The peer says whether it is `linked` to us as it sees it.
    fn admit_unless_linked(&self, link: &Arc<Link>, linked: bool) -> Result<bool, Farewell> {
        let mut links = self.inner.links.write();
        if let Some(old) = links.get(&link.peer) {
            let alive = old.connection.close_reason().is_none() && old.run == link.run;
            let on_its_way = old.since.elapsed() < door::GREETING_MAX;
            if alive && (linked || on_its_way) {
                return Ok(false);
            }
        }
        self.check_room(&links, link.peer)?;
        let replaced = links.insert(link.peer, Arc::clone(link));
        drop(links);
        self.replaced(replaced);
        Ok(true)
    }

    fn check_room(&self, links: &HashMap<NodeId, Arc<Link>>, peer: NodeId) -> Result<(), Farewell> {
        if links.len() >= self.inner.limits.peers_max && !links.contains_key(&peer) {
            let words = format!("{} peers are linked already", links.len());
            return Err(Farewell::new(FarewellCode::Busy, words));
        }
        Ok(())
    }

    fn replaced(&self, old: Option<Arc<Link>>) {
        if let Some(old) = old {
            let words = "replaced by a newer link";
            old.close(&Farewell::new(FarewellCode::Replaced, words));
            old.shut(self, words.to_owned());
        }
    }

    /// Takes a link off the books whose connection has ended, and tells it.
    fn lost(&self, link: &Arc<Link>, ending: &Ending) {
        let mut links = self.inner.links.write();
        if links.get(&link.peer).is_some_and(|known| Arc::ptr_eq(known, link)) {
            links.remove(&link.peer);
        }
        drop(links);
        if let Some(reason) = ending.refused() {
            *self.inner.refusals.lock().counts.entry(reason).or_default() += 1;
        }
        link.shut(self, ending.to_string());
        self.inner.links_changed.notify(usize::MAX);
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

/// Reads a profile: a built-in one by its name, or a file if the name ends in `.toml`.
///
/// # Errors
/// When there is no such name or file, or the file is no profile; the error says what would be.
pub fn load_profile(name_or_path: &str) -> Result<Profile, NetError> {
    use std::io::Read;
    if !name_or_path.ends_with(".toml") {
        return Ok(Profile::builtin(name_or_path)?);
    }
    let path = PathBuf::from(name_or_path);
    let read = || -> io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(&path)?.take(PROFILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|source| NetError::ProfileFile { path: path.clone(), source })?;
    Ok(Profile::parse(name_or_path, &text)?)
}

fn check_config(config: &NetConfig) -> Result<(), NetError> {
    for (what, name) in [("cluster name", &config.cluster), ("node name", &config.name)] {
        let problem = match hello::check_name(name) {
            Ok(()) if name.is_empty() => "it is empty",
            Ok(()) => continue,
            Err(problem) => problem,
        };
        return Err(NetError::Name { what, value: name.clone(), problem });
    }
    if config.hello.len() > hello::HELLO_EXTRA_BYTES_MAX {
        let value = format!("{} bytes", config.hello.len());
        return Err(NetError::Name { what: "hello", value, problem: "at most 4 KiB are allowed" });
    }
    Ok(())
}
