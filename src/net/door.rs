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

use super::emulation::canonical;
use super::frame::{FrameReader, STREAM_PUSH};
use super::hello::{Ending, Farewell, FarewellCode, HELLO_BYTES_MAX, Hello, RefusedReason};
use super::identity::node_id_of_certificate;
use super::link::{Introduction, Link};
use super::{Net, NetEvent};
use crate::protocol::id::NodeId;

/// Attempts that may be in their handshake at once. Beyond it newcomers are turned away.
const HANDSHAKES_MAX: usize = 256;
/// With this many in their handshake, newcomers have to show that their address is real.
const HANDSHAKES_BEFORE_RETRY: usize = 128;
/// From a connection's first packet until its hellos are exchanged; also how long a hello may be on
/// its way, which the rule for "one link per pair" needs to know.
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
                async_std::task::spawn(async move {
                    let address = canonical(incoming.remote_address());
                    let met = future::or(net.meet(incoming), async {
                        net.pause(GREETING_MAX).await;
                        net.refused(address, RefusedReason::Silent, "no handshake in time");
                        Met::Refused
                    })
                    .await;
                    handshakes.fetch_sub(1, Ordering::Relaxed);
                    log::debug!("{address} came to the door: {met:?}");
                });
            }
        }
    }

    async fn meet(&self, incoming: Incoming) -> Met {
        let address = canonical(incoming.remote_address());
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return self.ended(address, &error),
        };
        match connecting.await {
            Ok(connection) => self.greet(connection, false).await,
            Err(error) => self.ended(address, &error),
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
        match result {
            Ok(met) => met,
            Err(NoHello::Ended(error)) => self.ended(address, &error),
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
            self.admit(&link)?;
            return Ok(self.start(link, to_peer, greeted));
        }
        let greeted = self.read_hello(connection).await?;
        if peer == self.node_id() {
            return Err(self.myself_or_clone(&greeted.hello).into());
        }
        let link = self.introduce(connection, peer, &greeted.hello)?;
        if !self.admit_unless_linked(&link, greeted.hello.linked)? {
            connection.close(FarewellCode::Duplicate.number(), b"there is a link already");
            return Ok(Met::Known(peer));
        }
        match Link::open_push(connection, self.hello(true)).await {
            Ok(to_peer) => Ok(self.start(link, to_peer, greeted)),
            Err(error) => {
                self.lost(&link, &Ending::of(&error));
                Err(error.into())
            }
        }
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
        let introduction = Introduction { peer, name: hello.name.clone(), run: hello.run };
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
                break Hello::from_bytes(&frame.bytes)?;
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
        }
        .to_bytes()
    }

    fn myself_or_clone(&self, hello: &Hello) -> Farewell {
        if hello.run == self.run() {
            return Farewell::new(FarewellCode::Myself, "this is the node itself");
        }
        Farewell::new(
            FarewellCode::Clone,
            format!(
                "'{}' and '{}' have the same identity {}: a data directory was copied",
                self.name(),
                hello.name,
                self.node_id()
            ),
        )
    }

    /// Makes what a QUIC error says about an attempt known.
    pub(super) fn ended(&self, address: SocketAddr, error: &ConnectionError) -> Met {
        let ending = Ending::of(error);
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
