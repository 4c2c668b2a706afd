//! Who gets in: accepting connections, exchanging hellos, and deciding which become links.
//!
//! Both ends of every connection pass through [`Net::greet`], whoever dialled. The rule for "one link
//! per pair" is explained in `hello.rs`; here it is carried out under one lock.
//!
//! What must stay true: strangers cost little. Attempts at the door are bounded in number, in bytes
//! and in time; when many wait, a newcomer must first show that its address is real (QUIC retry).
//! Every refusal is counted and told; the log hears of the same address once a minute.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future;
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream};
use rustls::pki_types::CertificateDer;

use super::driver;
use super::emulation::canonical;
use super::frame::{FrameReader, STREAM_PUSH};
use super::hello::{Ending, Farewell, FarewellCode, HELLO_BYTES_MAX, Hello, RefusedReason};
use super::identity::node_id_of_certificate;
use super::link::{Introduction, Link};
use super::twins::Standing;
use super::{Net, NetEvent};
use crate::protocol::id::NodeId;

/// Attempts that may be in their handshake at once. Beyond it newcomers are turned away.
const HANDSHAKES_MAX: usize = 256;
/// With this many in their handshake, newcomers have to show that their address is real.
const HANDSHAKES_BEFORE_RETRY: usize = 128;
/// What the TLS handshake may take, and then the hellos; also how long a hello may be on its way,
/// which the rule for "one link per pair" needs to know.
pub(super) const GREETING_MAX: Duration = Duration::from_secs(5);
/// How often the log hears about refusals of one address.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Addresses remembered for that; beyond it every refusal is told at debug level only.
const REFUSAL_LOG_ADDRESSES_MAX: usize = 256;

/// What became of a connection.
#[derive(Debug)]
pub(super) enum Met {
    /// A link is up.
    Linked(NodeId),
    /// There is a link already, or is about to be.
    Known(NodeId),
    /// It is this node.
    Myself,
    /// One side refused the other; it was counted and told.
    Refused,
    /// Nothing came of it: unreachable, or lost half way.
    Lost(String),
}

/// Why there is no hello.
enum NoHello {
    Ended(ConnectionError),
    Bad(Farewell),
}

impl From<ConnectionError> for NoHello {
    fn from(error: ConnectionError) -> Self {
        Self::Ended(error)
    }
}

impl From<Farewell> for NoHello {
    fn from(farewell: Farewell) -> Self {
        Self::Bad(farewell)
    }
}

/// The push stream from a peer, after its hello was read from it.
struct Greeted {
    stream: RecvStream,
    reader: FrameReader,
    hello: Hello,
}

impl Net {
    /// Accepts connections until the endpoint is closed.
    pub(super) async fn accept(self, endpoint: quinn::Endpoint) {
        self.accept_all(&endpoint).await;
        if !self.is_closing() {
            log::error!("{}: the socket has failed; no peer can be reached", self.local_address());
        }
    }

    async fn accept_all(&self, endpoint: &quinn::Endpoint) {
        let handshakes = Arc::new(AtomicUsize::new(0));
        while let Some(incoming) = endpoint.accept().await {
            let waiting = handshakes.load(Ordering::Relaxed);
            if waiting >= HANDSHAKES_MAX {
                let address = canonical(incoming.remote_address());
                incoming.refuse();
                self.refused(address, RefusedReason::Busy, "too many connections at the door");
            } else if waiting >= HANDSHAKES_BEFORE_RETRY && incoming.may_retry() {
                // Checked just before, so it may be asked to retry.
                incoming.retry().ok();
            } else {
                let (net, handshakes) = (self.unguarded(), Arc::clone(&handshakes));
                handshakes.fetch_add(1, Ordering::Relaxed);
                driver::spawn(async move {
                    let address = canonical(incoming.remote_address());
                    let met = net.meet(incoming).await;
                    handshakes.fetch_sub(1, Ordering::Relaxed);
                    log::debug!("{address} came to the door: {met:?}");
                });
            }
        }
    }

    async fn meet(&self, incoming: Incoming) -> Met {
        let address = canonical(incoming.remote_address());
        let server = Arc::clone(&self.end(address).server);
        let connecting = match incoming.accept_with(server) {
            Ok(connecting) => connecting,
            Err(error) => return self.ended(address, &error),
        };
        let connected = future::or(async { Some(connecting.await) }, async {
            self.pause(GREETING_MAX).await;
            None
        })
        .await;
        match connected {
            Some(Ok(connection)) => self.greet(connection, false).await,
            Some(Err(error)) => self.ended(address, &error),
            None => {
                self.refused(address, RefusedReason::Silent, "no handshake in time");
                Met::Refused
            }
        }
    }

    /// Exchanges hellos over a connection whose handshake is done, and makes it a link or closes it.
    pub(super) async fn greet(&self, connection: Connection, dialled: bool) -> Met {
        let address = canonical(connection.remote_address());
        let result = future::or(self.exchange_hellos(&connection, dialled), async {
            self.pause(GREETING_MAX).await;
            Err(Farewell::new(FarewellCode::Silent, "no hello in time").into())
        })
        .await;
        if result.is_err() {
            self.forget(&connection);
        }
        match result {
            Ok(met) => met,
            Err(NoHello::Ended(error)) => match (Ending::of(&error), peer_of(&connection)) {
                (Ending::Theirs(Farewell { code: FarewellCode::Duplicate, .. }), Ok(peer)) => {
                    Met::Known(peer)
                }
                _ => self.ended(address, &error),
            },
            Err(NoHello::Bad(farewell)) => {
                connection.close(farewell.code.number(), farewell.reason.as_bytes());
                match farewell.code.refused() {
                    Some(reason) => {
                        self.refused(address, reason, &farewell.reason);
                        Met::Refused
                    }
                    None => Met::Myself,
                }
            }
        }
    }

    async fn exchange_hellos(
        &self,
        connection: &Connection,
        dialled: bool,
    ) -> Result<Met, NoHello> {
        let peer = peer_of(connection)?;
        self.check_quarantine(peer)?;
        let speaks_first = self.node_id() > peer || (self.node_id() == peer && dialled);
        if speaks_first {
            let hello = self.hello(self.is_linked(peer));
            let to_peer = Link::open_push(connection, hello).await?;
            let greeted = self.read_hello(connection).await?;
            if peer == self.node_id() {
                let words = "a node with our own identity answered";
                return Err(Farewell::new(FarewellCode::Clone, words).into());
            }
            let link = self.introduce(connection, peer, &greeted.hello)?;
            self.part_twins(&link).await?;
            self.admit(&link)?;
            return Ok(self.start(link, to_peer, greeted));
        }
        let greeted = self.read_hello(connection).await?;
        if peer == self.node_id() {
            return Err(self.myself_or_twin(&greeted.hello, connection).into());
        }
        let link = self.introduce(connection, peer, &greeted.hello)?;
        self.part_twins(&link).await?;
        if !self.admit_unless_linked(&link, greeted.hello.linked)? {
            connection.close(FarewellCode::Duplicate.number(), b"there is a link already");
            return Ok(Met::Known(peer));
        }
        let to_peer = Link::open_push(connection, self.hello(true)).await?;
        Ok(self.start(link, to_peer, greeted))
    }

    fn start(&self, link: Arc<Link>, to_peer: SendStream, greeted: Greeted) -> Met {
        let Greeted { stream, reader, hello } = greeted;
        link.start(self, hello.extra.into(), to_peer, (stream, reader));
        self.links_changed();
        Met::Linked(link.peer)
    }

    fn introduce(
        &self,
        connection: &Connection,
        peer: NodeId,
        hello: &Hello,
    ) -> Result<Arc<Link>, Farewell> {
        let Standing { age, run } = hello.standing();
        let introduction = Introduction { peer, name: hello.name.clone(), run, age };
        let closing = || Farewell::new(FarewellCode::ShuttingDown, "shutting down");
        let handler = self.handler().ok_or_else(closing)?;
        Ok(Link::new(self, handler, connection.clone(), introduction))
    }

    /// Reads the peer's hello, the first frame of its push stream, and checks that it fits.
    async fn read_hello(&self, connection: &Connection) -> Result<Greeted, NoHello> {
        let malformed = |words: &str| Farewell::new(FarewellCode::Malformed, words);
        let mut stream = connection.accept_uni().await?;
        let mut reader = FrameReader::new(HELLO_BYTES_MAX);
        let mut kind = [0];
        if stream.read_exact(&mut kind).await.is_err() || kind != [STREAM_PUSH] {
            return Err(connection
                .close_reason()
                .map_or_else(|| malformed("no hello came first").into(), NoHello::Ended));
        }
        let hello = loop {
            let frame = reader.next().map_err(|error| malformed(&error.to_string()))?;
            if let Some(frame) = frame {
                break Hello::from_bytes(&frame.bytes, self.version())?;
            }
            match stream.read_chunk(HELLO_BYTES_MAX, true).await {
                Ok(Some(chunk)) => reader.feed(chunk.bytes),
                Ok(None) | Err(_) => {
                    return Err(connection
                        .close_reason()
                        .map_or_else(|| malformed("half a hello").into(), NoHello::Ended));
                }
            }
        };
        hello.check_cluster(self.cluster())?;
        Ok(Greeted { stream, reader, hello })
    }

    fn hello(&self, linked: bool) -> Bytes {
        Hello {
            cluster: self.cluster().to_owned(),
            name: self.name().to_owned(),
            run: self.run(),
            linked,
            extra: self.extra().to_vec(),
            age_ms: u64::try_from(self.standing().age.as_millis()).unwrap_or(u64::MAX),
        }
        .to_bytes(self.version())
    }

    /// Makes what a QUIC error says about an attempt known.
    pub(super) fn ended(&self, address: SocketAddr, error: &ConnectionError) -> Met {
        let ending = Ending::of(error);
        self.heed(&ending);
        match (&ending, ending.refused()) {
            (Ending::Theirs(Farewell { code: FarewellCode::Myself, .. }), _) => Met::Myself,
            (_, Some(reason)) => {
                self.refused(address, reason, &ending.to_string());
                Met::Refused
            }
            (_, None) => Met::Lost(ending.to_string()),
        }
    }

    /// Counts, tells and logs a refusal.
    pub(super) fn refused(&self, address: SocketAddr, reason: RefusedReason, why: &str) {
        if self.count_refusal(address.ip(), reason) {
            log::warn!("refused {address} ({reason}): {why}");
        } else {
            log::debug!("refused {address} ({reason}): {why}");
        }
        if let Some(handler) = self.handler() {
            handler(self, NetEvent::Refused { address, reason, why: why.to_owned() });
        }
    }

    /// Counts a refusal and says whether the log should hear of it.
    fn count_refusal(&self, address: IpAddr, reason: RefusedReason) -> bool {
        let now = self.now();
        let mut refusals = self.refusals().lock();
        *refusals.counts.entry(reason).or_default() += 1;
        refusals.logged.retain(|_, at| now.duration_since(*at) < REFUSAL_LOG_INTERVAL);
        let room = refusals.logged.len() < REFUSAL_LOG_ADDRESSES_MAX;
        let new = !refusals.logged.contains_key(&(address, reason));
        if new && room {
            refusals.logged.insert((address, reason), now);
        }
        new && room
    }
}

/// The node at the other end, by the key in its certificate.
fn peer_of(connection: &Connection) -> Result<NodeId, Farewell> {
    let certificates = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    certificates
        .and_then(|certificates| node_id_of_certificate(certificates.first()?).ok())
        .ok_or_else(|| Farewell::new(FarewellCode::Malformed, "no certificate that can be read"))
}

/// Peers that break the rules: each is dealt with, and the node and its other peers do not notice.
#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Instant;

    use parking_lot::{Condvar, Mutex};
    use quinn::crypto::rustls::QuicClientConfig;

    use super::*;
    use crate::net::frame::{Frame, STREAM_EXCHANGE, lay_out};
    use crate::net::identity::tls_of_a_stranger;
    use crate::net::socket::{OwnThread, Socket, Traffic};
    use crate::net::tuning::quic_configs;
    use crate::net::{Lane, Limits, NetConfig, NodeIdentity, Secret, Sent};

    const DEADLINE: Duration = Duration::from_secs(30);

    struct Node {
        net: Net,
        heard: Arc<(Mutex<Vec<NetEvent>>, Condvar)>,
    }

    impl Node {
        fn start(secret: &Secret, seed: u8, limits: Limits) -> Self {
            let heard = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
            let ear = Arc::clone(&heard);
            let handler = Arc::new(move |_: &Net, event: NetEvent| {
                ear.0.lock().push(event);
                ear.1.notify_all();
            });
            let config = NetConfig {
                listen: "127.0.0.1:0".parse().unwrap(),
                identity: NodeIdentity::from_seed([seed; 32]).unwrap(),
                secret: secret.clone(),
                cluster: "test".into(),
                name: format!("node-{seed}"),
                version: 1,
                hello: Vec::new(),
                emulation: None,
                limits,
            };
            let net = async_std::task::block_on(Net::bind(config, handler)).unwrap();
            Self { net, heard }
        }

        fn wait<T>(&self, what: &str, wanted: impl Fn(&NetEvent) -> Option<T>) -> T {
            let deadline = Instant::now() + DEADLINE;
            let mut events = self.heard.0.lock();
            loop {
                if let Some(found) = events.iter().find_map(&wanted) {
                    return found;
                }
                let late = self.heard.1.wait_until(&mut events, deadline).timed_out();
                assert!(!late, "never {what}; heard {events:#?}");
            }
        }

        fn wait_refused(&self) -> (RefusedReason, String) {
            self.wait("a refusal", |event| match event {
                NetEvent::Refused { reason, why, .. } => Some((*reason, why.clone())),
                _ => None,
            })
        }

        fn wait_up(&self, name: &str) -> NodeId {
            self.wait("a peer", |event| match event {
                NetEvent::Up { peer, name: its, .. } if its == name => Some(*peer),
                _ => None,
            })
        }

        fn wait_down(&self, id: NodeId) -> String {
            self.wait("a peer go", |event| match event {
                NetEvent::Down { peer, reason } if *peer == id => Some(reason.clone()),
                _ => None,
            })
        }

        /// Shows that an honest peer can join, talk and stay, whatever a rogue has done.
        fn serves_the_honest(&self, secret: &Secret, rogue: Option<NodeId>) {
            let honest = Node::start(secret, 99, Limits::default());
            honest.net.dial(self.net.local_address());
            let id = self.wait_up("node-99");
            honest.wait_up("node-1");
            let sent = self.net.send(id, Lane::Push, Bytes::from_static(b"hello"));
            assert_eq!(sent, Sent::Queued);
            honest.wait("a frame", |event| matches!(event, NetEvent::Frame { .. }).then_some(()));
            let others = self.net.peers().into_iter().filter(|it| Some(it.id) != rogue).count();
            assert_eq!(others, 1);
        }
    }

    /// A QUIC client that knows the secret and may do with it as it likes.
    struct Rogue {
        connection: Connection,
        _endpoint: quinn::Endpoint,
    }

    impl Rogue {
        async fn dial(secret: &Secret, node: &Node) -> Self {
            let identity = NodeIdentity::from_seed([7; 32]).unwrap();
            let quic = quic_configs(secret, &identity, false).unwrap();
            let client = quic.ends.with(node.net.local_address()).client.clone();
            Self::dial_with(client, quic.endpoint, node).await.unwrap()
        }

        async fn dial_with(
            client: quinn::ClientConfig,
            config: quinn::EndpointConfig,
            node: &Node,
        ) -> Result<Self, ConnectionError> {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let socket = Socket::new(socket, None, Arc::new(Traffic::default())).unwrap();
            let endpoint = quinn::Endpoint::new_with_abstract_socket(
                config,
                None,
                socket,
                Arc::new(OwnThread),
            )
            .unwrap();
            let name = crate::net::identity::SERVER_NAME;
            let connecting = endpoint.connect_with(client, node.net.local_address(), name);
            Ok(Self { connection: connecting.unwrap().await?, _endpoint: endpoint })
        }

        /// Says a proper hello and goes on on the same stream with whatever comes to mind.
        async fn greet(&self, then: &[u8]) -> SendStream {
            let hello = Hello {
                cluster: "test".into(),
                name: "rogue".into(),
                run: 1,
                linked: false,
                extra: Vec::new(),
                age_ms: 0,
            };
            let mut stream = Link::open_push(&self.connection, hello.to_bytes(1)).await.unwrap();
            stream.write_all(then).await.unwrap();
            stream
        }
    }

    #[test]
    fn no_certificate_is_refused() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        async_std::task::block_on(async {
            let crypto = QuicClientConfig::try_from(tls_of_a_stranger(&secret)).unwrap();
            let identity = NodeIdentity::from_seed([7; 32]).unwrap();
            let config = quic_configs(&secret, &identity, false).unwrap().endpoint;
            let client = quinn::ClientConfig::new(Arc::new(crypto));
            // In TLS 1.3 a client is done before the server has looked at its certificate.
            if let Ok(rogue) = Rogue::dial_with(client, config, &node).await {
                rogue.connection.closed().await;
            }
        });
        let (reason, why) = node.wait_refused();
        assert_eq!(reason, RefusedReason::NoCertificate, "{why}");
        node.serves_the_honest(&secret, None);
    }

    #[test]
    fn noise_instead_of_a_hello_is_refused() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let noises: [&[u8]; 4] =
            [b"GET / HTTP/1.1\r\n\r\n", &[STREAM_PUSH, 0, 0, 0, 4, 1, 2, 3, 4], &[0xff; 64], &[]];
        for noise in noises {
            async_std::task::block_on(async {
                let rogue = Rogue::dial(&secret, &node).await;
                let mut stream = rogue.connection.open_uni().await.unwrap();
                stream.write_all(noise).await.unwrap();
                stream.finish().unwrap();
                let error = rogue.connection.closed().await;
                let ConnectionError::ApplicationClosed(close) = error else {
                    panic!("{error}");
                };
                assert_eq!(close.error_code, FarewellCode::Malformed.number());
            });
        }
        assert_eq!(node.wait_refused().0, RefusedReason::Malformed);
        assert_eq!(node.net.stats().refused[&RefusedReason::Malformed], 4);
        node.serves_the_honest(&secret, None);
    }

    #[test]
    fn saying_nothing_is_given_up() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let rogue = async_std::task::block_on(Rogue::dial(&secret, &node));
        let (reason, _) = node.wait_refused();
        assert_eq!(reason, RefusedReason::Silent);
        assert!(async_std::task::block_on(rogue.connection.closed()).to_string().contains("hello"));
    }

    #[test]
    fn a_frame_of_four_gigabytes_ends_the_link() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let rogue = async_std::task::block_on(async {
            let rogue = Rogue::dial(&secret, &node).await;
            let stream = rogue.greet(&[0xff; 100]).await;
            (rogue, stream)
        });
        let reason = node.wait_down(node.wait_up("rogue"));
        assert!(reason.contains("2147483647 bytes was announced"), "{reason}");
        drop(rogue);
        node.serves_the_honest(&secret, None);
    }

    #[test]
    fn a_stream_of_unknown_kind_ends_the_link() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let rogue = async_std::task::block_on(async {
            let rogue = Rogue::dial(&secret, &node).await;
            let push = rogue.greet(&[]).await;
            let mut stream = rogue.connection.open_uni().await.unwrap();
            stream.write_all(&[77; 20]).await.unwrap();
            (rogue, push)
        });
        let reason = node.wait_down(node.wait_up("rogue"));
        assert!(reason.contains("unknown kind 77"), "{reason}");
        drop(rogue);
    }

    /// Frames that are begun on many streams and never ended are bounded together.
    #[test]
    fn hoarding_half_frames_ends_the_link() {
        let secret = Secret::generate().unwrap();
        let limits = Limits { receive_bytes_max: 100_000, ..Limits::default() };
        let node = Node::start(&secret, 1, limits);
        let rogue = async_std::task::block_on(async {
            let rogue = Rogue::dial(&secret, &node).await;
            let mut streams = vec![rogue.greet(&[]).await];
            for id in 0..10u8 {
                // The node may have closed the link before the last of them.
                let Ok(mut stream) = rogue.connection.open_uni().await else { break };
                let mut bytes = vec![STREAM_EXCHANGE, 0, 0, 0, 0, 0, 0, 0, id];
                bytes.extend_from_slice(&1_000_000u32.to_be_bytes());
                bytes.resize(20_000, 0);
                stream.write_all(&bytes).await.ok();
                streams.push(stream);
            }
            (rogue, streams)
        });
        let reason = node.wait_down(node.wait_up("rogue"));
        assert!(reason.contains("incomplete frames"), "{reason}");
        drop(rogue);
        node.serves_the_honest(&secret, None);
    }

    /// A peer that never reads fills its own queue; then frames for it are refused, and nobody else
    /// waits.
    #[test]
    fn a_peer_that_never_reads_fills_only_its_own_queue() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let rogue = async_std::task::block_on(async {
            let rogue = Rogue::dial(&secret, &node).await;
            let stream = rogue.greet(&[]).await;
            (rogue, stream)
        });
        let id = node.wait_up("rogue");
        let frame = Bytes::from(vec![0; 100_000]);
        let mut queued = 0;
        while node.net.send(id, Lane::Push, frame.clone()) == Sent::Queued {
            queued += frame.len();
            assert!(queued < 64 << 20, "the queue never fills");
        }
        let peer = node.net.peers().into_iter().find(|peer| peer.id == id).unwrap();
        assert!(peer.push_queue_bytes <= Limits::default().push_queue_bytes_max);
        node.serves_the_honest(&secret, Some(id));
        drop(rogue);
    }

    #[test]
    fn random_packets_are_ignored() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut packet = vec![0; rng.usize(0..1500)];
            rng.fill(&mut packet);
            socket.send_to(&packet, node.net.local_address()).unwrap();
        }
        node.serves_the_honest(&secret, None);
    }

    /// The same node in another version is told so in words.
    #[test]
    fn another_version_is_refused_in_words() {
        let secret = Secret::generate().unwrap();
        let node = Node::start(&secret, 1, Limits::default());
        async_std::task::block_on(async {
            let rogue = Rogue::dial(&secret, &node).await;
            let mut stream = rogue.connection.open_uni().await.unwrap();
            let hello = Bytes::from_static(b"qrmr\x01\x63anything");
            let mut chunks = Vec::new();
            lay_out(&[STREAM_PUSH], &mut vec![Frame { bytes: hello, last: false }], &mut chunks);
            stream.write_all_chunks(&mut chunks).await.unwrap();
            rogue.connection.closed().await;
        });
        let (reason, why) = node.wait_refused();
        assert_eq!(reason, RefusedReason::Version);
        assert_eq!(why, "wire version is 1.1 here, peer speaks 1.99");
    }
}
