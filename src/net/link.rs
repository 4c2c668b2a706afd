//! A link: one connection to one peer, its queues, and the tasks that write and read it.
//!
//! Each link has one push stream in each direction, which lives as long as the link, and a stream of
//! its own for each exchange and direction, so that a bulk transfer never stands in the way of a
//! pushed write. Whoever sends only puts a frame into a bounded queue and never waits; a task per
//! stream takes what has gathered and writes it in one go. Frames that arrive are handed to the
//! handler by the task that reads them, without a hop.
//!
//! What must stay true:
//! - For each link the handler hears `Up` once, then frames, then `Down` once, in this order and
//!   never two at a time ([`Gate`]).
//! - A full queue refuses the newest frame. Nothing waits for a slow peer but its own writer.
//! - A datagram of one byte is the probe of `outage.rs` and goes no further; longer ones are frames.
//! - What a peer sends is bounded before it is kept: frames by their size, all frames under way
//!   together by [`Limits::receive_bytes_max`](super::Limits).

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future;
use parking_lot::Mutex;
use quinn::{Connection, ReadError, RecvStream, SendStream};

use super::driver;
use super::frame::{self, Frame, FrameReader, STREAM_EXCHANGE, STREAM_PUSH};
use super::hello::{Ending, Farewell, FarewellCode};
use super::outage::Outage;
use super::socket::pause;
use super::tuning::EXCHANGES_MAX;
use super::twins::Standing;
use super::{Handler, Lane, Net, NetEvent, PeerInfo, Sent, URGENT_EXCHANGE};
use crate::protocol::id::NodeId;

/// Exchanges of a link that may be written, or wait for a stream, at once: a few times what a peer
/// that keeps up ever has, so that one that takes nothing costs no more tasks than this.
const WRITERS_MAX: usize = 4 * EXCHANGES_MAX;

/// Frames written in one go: beyond this, writing more at once gains nothing and only delays the
/// first of them.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Chunks read from a stream at a time.
const CHUNKS_PER_READ: usize = 32;
/// After reading this much without a pause, a reader lets other tasks run.
const READ_BYTES_PER_TURN: usize = 1 << 20;
/// An exchange on which nothing is sent for this long has been forgotten: its stream is ended.
const EXCHANGE_IDLE_MAX: Duration = Duration::from_secs(30);
/// The shortest datagram that is a frame.
const DATAGRAM_BYTES_MIN: usize = 2;
/// Live writes go before anything else on the wire.
const PUSH_PRIORITY: i32 = 1;
/// But for what a client's write waits for.
const URGENT_PRIORITY: i32 = 2;
/// What clients tell each other goes behind everything else.
const TALK_PRIORITY: i32 = -1;
/// Names the exchange that [`Lane::Talk`] is. Others are named at random: none ever has this name.
const TALK: u64 = u64::MAX;

/// One connection to one peer.
pub(super) struct Link {
    pub(super) peer: NodeId,
    pub(super) name: String,
    /// Which run of the peer this is a link to.
    pub(super) run: u64,
    pub(super) since: Instant,
    /// For how long the peer had been running when it greeted us.
    age: Duration,
    pub(super) connection: Connection,
    pub(super) address: SocketAddr,
    handler: Handler,
    gate: Mutex<Gate>,
    push: Queue,
    exchanges: Mutex<HashMap<u64, Arc<Queue>>>,
    /// Bytes in all exchange queues together.
    exchange_bytes: AtomicUsize,
    /// Bytes of incomplete frames on all streams together.
    partial_bytes: AtomicUsize,
    /// What we said when we closed it.
    closed_because: OnceLock<String>,
    frames_sent: AtomicU64,
    /// Exchanges that are being written, those of a single frame included.
    writers: AtomicUsize,
    frames_received: AtomicU64,
    /// When something was last read from the peer, in nanoseconds since the link came up.
    heard_nanos: AtomicU64,
    pub(super) outage: Mutex<Outage>,
}

/// What the handler has heard of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    New,
    Open,
    Shut,
}

/// How reading a stream ended, if nothing was wrong with it.
enum Read {
    /// The peer had no more to say.
    ToTheEnd,
    /// The link or the peer's interest in the stream ended first.
    Interrupted,
}

/// What a new link starts from: the peer has said its hello and was found acceptable.
pub(super) struct Introduction {
    pub(super) peer: NodeId,
    pub(super) name: String,
    pub(super) run: u64,
    pub(super) age: Duration,
}

/// Frames that wait to be written to one stream, and who writes them.
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Nothing comes any more; the stream ends when all is written.
    ended: bool,
    writer: Option<Waker>,
}

impl Queue {
    fn new() -> Self {
        Self { state: Mutex::new(QueueState::default()) }
    }

    fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Adds a frame, if what waits stays within `bytes_max` or nothing waits.
    fn put(&self, frame: Frame, bytes_max: usize) -> bool {
        let mut state = self.state.lock();
        let after = state.bytes + frame.bytes.len();
        if state.ended || (after > bytes_max && state.bytes > 0) {
            return false;
        }
        state.bytes = after;
        state.ended = frame.last;
        state.frames.push_back(frame);
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        true
    }

    /// Says that nothing comes any more.
    fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        let writer = state.writer.take();
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    /// Waits for frames and moves a batch of them to `batch`; with none left and none to come, it
    /// leaves `batch` empty. Returns their bytes.
    async fn take(&self, batch: &mut Vec<Frame>) -> usize {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.frames.is_empty() && !state.ended {
                state.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let mut taken = 0;
            while taken < BATCH_BYTES_MAX {
                let Some(frame) = state.frames.pop_front() else { break };
                taken += frame.bytes.len();
                batch.push(frame);
            }
            state.bytes -= taken;
            Poll::Ready(taken)
        })
        .await
    }
}

impl Link {
    /// A link over `connection`, not yet told to anybody.
    pub(super) fn new(
        net: &Net,
        handler: Handler,
        connection: Connection,
        introduction: Introduction,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer: introduction.peer,
            name: introduction.name,
            run: introduction.run,
            since: net.now(),
            age: introduction.age,
            address: super::emulation::canonical(connection.remote_address()),
            outage: Mutex::new(Outage::new(&connection)),
            connection,
            handler,
            gate: Mutex::new(Gate::New),
            push: Queue::new(),
            exchanges: Mutex::new(HashMap::new()),
            exchange_bytes: AtomicUsize::new(0),
            partial_bytes: AtomicUsize::new(0),
            closed_because: OnceLock::new(),
            frames_sent: AtomicU64::new(0),
            writers: AtomicUsize::new(0),
            frames_received: AtomicU64::new(0),
            heard_nanos: AtomicU64::new(0),
        })
    }

    /// For how long the peer has been running, and in which run.
    pub(super) fn standing(&self) -> Standing {
        Standing { age: self.age.saturating_add(self.since.elapsed()), run: self.run }
    }

    /// Tells the handler that the link is up, and starts the tasks that serve it. `to_peer` and
    /// `from_peer` are the push streams, on which the hellos were exchanged.
    pub(super) fn start(
        self: &Arc<Self>,
        net: &Net,
        extra: Bytes,
        to_peer: SendStream,
        from_peer: (RecvStream, FrameReader),
    ) {
        {
            let mut gate = self.gate.lock();
            if *gate != Gate::New {
                return;
            }
            *gate = Gate::Open;
            log::info!("link up: {} at {}, {:?}", self.name, self.address, self.peer);
            let event = NetEvent::Up {
                peer: self.peer,
                name: self.name.clone(),
                address: self.address,
                round_trip: self.connection.rtt(),
                hello: extra,
            };
            (self.handler)(net, event);
        }
        if let Err(error) = to_peer.set_priority(PUSH_PRIORITY) {
            log::debug!("no priority for pushes to {}: {error}", self.name);
        }
        let (mut stream, mut reader) = from_peer;
        reader.allow(net.limits().push_frame_bytes_max);
        let (link, net_too) = (Arc::clone(self), net.unguarded());
        driver::spawn(async move {
            // The push stream lives as long as the link: when the peer ends it, the peer leaves, and
            // waits for us to have read all and to close.
            match link.read(&net_too, &mut stream, &mut reader, None).await {
                Ok(Read::ToTheEnd) => link
                    .close(&Farewell::new(FarewellCode::ShuttingDown, "the peer is shutting down")),
                Ok(Read::Interrupted) => {}
                Err(farewell) => link.close(&farewell),
            }
        });
        let link = Arc::clone(self);
        driver::spawn(async move { link.write_pushes(to_peer).await });
        let (link, net_too) = (Arc::clone(self), net.unguarded());
        driver::spawn(async move { link.read_datagrams(&net_too).await });
        let (link, net) = (Arc::clone(self), net.unguarded());
        driver::spawn(async move { link.accept_exchanges(&net).await });
    }

    /// Closes the connection with words for the peer. The task that accepts streams notices and
    /// tells the handler.
    pub(super) fn close(&self, farewell: &Farewell) {
        if farewell.code == FarewellCode::Malformed {
            log::warn!("link to {} at {} broken: {}", self.name, self.address, farewell.reason);
        }
        // The first reason is the one that counts.
        self.closed_because.set(farewell.reason.clone()).ok();
        self.connection.close(farewell.code.number(), farewell.reason.as_bytes());
    }

    /// Tells the handler that the link is down, if it was ever up.
    pub(super) fn shut(&self, net: &Net, ending: &Ending) {
        let reason = match self.closed_because.get() {
            Some(reason) if *ending == Ending::Ours => reason.clone(),
            _ => ending.to_string(),
        };
        let mut gate = self.gate.lock();
        if std::mem::replace(&mut *gate, Gate::Shut) == Gate::Open {
            // Whoever is sent away by a peer has to hear why: the peer alone may have seen it.
            let level = match ending.refused() {
                Some(_) => log::Level::Warn,
                None => log::Level::Info,
            };
            log::log!(level, "link down: {} at {}: {reason}", self.name, self.address);
            (self.handler)(net, NetEvent::Down { peer: self.peer, reason });
        }
        drop(gate);
        self.push.end();
        for queue in self.exchanges.lock().drain().map(|(_, queue)| queue) {
            queue.end();
        }
    }

    /// Puts a frame into its queue.
    pub(super) fn send(self: &Arc<Self>, net: &Net, lane: Lane, bytes: Bytes) -> Sent {
        let limits = net.limits();
        let queued = match lane {
            Lane::Push => {
                bytes.len() <= limits.push_frame_bytes_max
                    && self.push.put(Frame { bytes, last: false }, limits.push_queue_bytes_max)
            }
            Lane::Exchange { id, last } => {
                bytes.len() <= limits.exchange_frame_bytes_max
                    && self.put_exchange(net, id, Frame { bytes, last }, usize::MAX)
            }
            Lane::Talk => {
                let frame = Frame { bytes, last: false };
                frame.bytes.len() <= limits.push_frame_bytes_max
                    && self.put_exchange(net, TALK, frame, limits.talk_queue_bytes_max)
            }
            Lane::Datagram => self.send_datagram(bytes),
        };
        if !queued {
            return Sent::QueueFull;
        }
        self.frames_sent.fetch_add(1, Ordering::Relaxed);
        Sent::Queued
    }

    /// Hands a datagram to QUIC, unless the path cannot carry it or others wait already.
    fn send_datagram(&self, bytes: Bytes) -> bool {
        let longest = self.connection.max_datagram_size().unwrap_or(0);
        (DATAGRAM_BYTES_MIN..=longest).contains(&bytes.len())
            && bytes.len() <= self.connection.datagram_send_buffer_space()
            && self.connection.send_datagram(bytes).is_ok()
    }

    fn put_exchange(self: &Arc<Self>, net: &Net, id: u64, frame: Frame, bytes_max: usize) -> bool {
        let length = frame.bytes.len();
        // Counted before it is queued: its writer may have taken it off again a moment later.
        let waiting = self.exchange_bytes.fetch_add(length, Ordering::Relaxed);
        let fits = waiting == 0 || waiting + length <= net.limits().exchange_queue_bytes_max;
        let queued = fits && self.queue_exchange(id, frame, bytes_max);
        if !queued {
            self.exchange_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        queued
    }

    /// Adds a frame to its exchange, which it may open or end, unless more than `bytes_max` wait there.
    fn queue_exchange(self: &Arc<Self>, id: u64, frame: Frame, bytes_max: usize) -> bool {
        let last = frame.last;
        let mut exchanges = self.exchanges.lock();
        if let Some(queue) = exchanges.get(&id) {
            let queued = queue.put(frame, bytes_max);
            if last {
                exchanges.remove(&id);
            }
            return queued;
        }
        let writers = self.writers.load(Ordering::Relaxed);
        let is_crowded = exchanges.len() >= EXCHANGES_MAX || writers >= WRITERS_MAX;
        if is_crowded && id != URGENT_EXCHANGE {
            return false;
        }
        self.writers.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue::new());
        queue.put(frame, usize::MAX);
        if !last {
            exchanges.insert(id, Arc::clone(&queue));
        }
        let link = Arc::clone(self);
        driver::spawn(async move {
            Arc::clone(&link).write_exchange(id, &queue).await;
            link.writers.fetch_sub(1, Ordering::Relaxed);
        });
        true
    }

    /// Writes pushes until the queue ends or the connection does.
    async fn write_pushes(self: Arc<Self>, mut stream: SendStream) {
        let (mut frames, mut chunks) = (Vec::new(), Vec::new());
        loop {
            self.push.take(&mut frames).await;
            if frames.is_empty() {
                break;
            }
            frame::lay_out(&[], &mut frames, &mut chunks);
            if stream.write_all_chunks(&mut chunks).await.is_err() {
                return;
            }
            chunks.clear();
        }
        // The peer reads to this end and then closes the link, so that our last writes arrive.
        stream.finish().ok();
    }

    /// Writes one exchange on a stream of its own.
    async fn write_exchange(self: Arc<Self>, id: u64, queue: &Arc<Queue>) {
        let mut start = [STREAM_EXCHANGE; 9];
        start[1..].copy_from_slice(&id.to_be_bytes());
        let mut start = start.as_slice();
        let (mut frames, mut chunks) = (Vec::new(), Vec::new());
        let Ok(mut stream) = self.connection.open_uni().await else { return };
        let priority = match id {
            URGENT_EXCHANGE => URGENT_PRIORITY,
            TALK => TALK_PRIORITY,
            _ => 0,
        };
        if priority != 0 {
            // The stream is new, so this cannot fail.
            stream.set_priority(priority).ok();
        }
        loop {
            let idle = async {
                pause(EXCHANGE_IDLE_MAX).await;
                0
            };
            let taken = future::or(queue.take(&mut frames), idle).await;
            if frames.is_empty() {
                break;
            }
            frame::lay_out(std::mem::take(&mut start), &mut frames, &mut chunks);
            let written = stream.write_all_chunks(&mut chunks).await;
            self.exchange_bytes.fetch_sub(taken, Ordering::Relaxed);
            if written.is_err() {
                break;
            }
            chunks.clear();
        }
        self.forget_exchange(id, queue);
        // Finishing a stream that the peer or the connection has ended already changes nothing.
        stream.finish().ok();
    }

    /// Takes an exchange off the books that its writer has ended, with what it never wrote.
    fn forget_exchange(&self, id: u64, queue: &Arc<Queue>) {
        queue.end();
        let mut exchanges = self.exchanges.lock();
        if exchanges.get(&id).is_some_and(|known| Arc::ptr_eq(known, queue)) {
            exchanges.remove(&id);
        }
        self.exchange_bytes.fetch_sub(queue.bytes(), Ordering::Relaxed);
    }

    /// Reads every exchange that the peer opens, until the connection ends; then tells that.
    async fn accept_exchanges(self: Arc<Self>, net: &Net) {
        let error = loop {
            match self.connection.accept_uni().await {
                Ok(stream) => {
                    let (link, net) = (Arc::clone(&self), net.unguarded());
                    driver::spawn(async move { link.read_exchange(&net, stream).await });
                }
                Err(error) => break error,
            }
        };
        net.lost(&self, &Ending::of(&error));
    }

    /// Hands every datagram to the handler until the connection ends.
    async fn read_datagrams(self: Arc<Self>, net: &Net) {
        while let Ok(bytes) = self.connection.read_datagram().await {
            self.heard();
            if bytes.len() < DATAGRAM_BYTES_MIN {
                continue;
            }
            let gate = self.gate.lock();
            if *gate != Gate::Open {
                return;
            }
            self.frames_received.fetch_add(1, Ordering::Relaxed);
            let event = NetEvent::Frame { peer: self.peer, lane: Lane::Datagram, bytes };
            (self.handler)(net, event);
        }
    }

    fn heard(&self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard_nanos.store(nanos, Ordering::Relaxed);
    }

    /// When something was last read from the peer.
    pub(super) fn heard_at(&self) -> Instant {
        self.since + Duration::from_nanos(self.heard_nanos.load(Ordering::Relaxed))
    }

    async fn read_exchange(self: Arc<Self>, net: &Net, mut stream: RecvStream) {
        let mut start = [0; 9];
        if stream.read_exact(&mut start).await.is_err() {
            return;
        }
        let [STREAM_EXCHANGE, id @ ..] = start else {
            let words = format!("a stream of unknown kind {}", start[0]);
            return self.close(&Farewell::new(FarewellCode::Malformed, words));
        };
        let mut reader = FrameReader::new(net.limits().exchange_frame_bytes_max);
        let result = self.read(net, &mut stream, &mut reader, Some(u64::from_be_bytes(id))).await;
        if let Err(farewell) = result {
            self.close(&farewell);
        }
    }

    /// Reads frames and hands them to the handler until the stream or the connection ends.
    ///
    /// # Errors
    /// When the peer broke the protocol: what to tell it.
    async fn read(
        &self,
        net: &Net,
        stream: &mut RecvStream,
        reader: &mut FrameReader,
        exchange: Option<u64>,
    ) -> Result<Read, Farewell> {
        let mut chunks: [Bytes; CHUNKS_PER_READ] = std::array::from_fn(|_| Bytes::new());
        let mut partial = Partial { of: &self.partial_bytes, bytes: 0 };
        let mut read = 0;
        loop {
            if !self.take_frames(net, reader, exchange)? {
                return Ok(Read::Interrupted);
            }
            partial.set(reader.partial_bytes(), net.limits().receive_bytes_max)?;
            let count = match stream.read_chunks(&mut chunks).await {
                Ok(Some(count)) => count,
                Ok(None) => return Ok(Read::ToTheEnd),
                Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => {
                    return Ok(Read::Interrupted);
                }
                Err(error) => {
                    return Err(Farewell::new(FarewellCode::Malformed, error.to_string()));
                }
            };
            self.heard();
            for chunk in chunks.iter_mut().take(count) {
                read += chunk.len();
                reader.feed(std::mem::take(chunk));
                if !self.take_frames(net, reader, exchange)? {
                    return Ok(Read::Interrupted);
                }
            }
            if read >= READ_BYTES_PER_TURN {
                read = 0;
                future::yield_now().await;
            }
        }
    }

    /// Hands every complete frame to the handler; `false` says that the link is no longer open.
    fn take_frames(
        &self,
        net: &Net,
        reader: &mut FrameReader,
        exchange: Option<u64>,
    ) -> Result<bool, Farewell> {
        loop {
            let frame = reader
                .next()
                .map_err(|error| Farewell::new(FarewellCode::Malformed, error.to_string()))?;
            let Some(frame) = frame else { return Ok(true) };
            let lane = match exchange {
                None => Lane::Push,
                Some(id) => Lane::Exchange { id, last: frame.last },
            };
            let gate = self.gate.lock();
            if *gate != Gate::Open {
                return Ok(false);
            }
            self.frames_received.fetch_add(1, Ordering::Relaxed);
            (self.handler)(net, NetEvent::Frame { peer: self.peer, lane, bytes: frame.bytes });
        }
    }

    /// Lets the push queue run empty and then ends the connection.
    pub(super) fn finish(&self) {
        self.push.end();
    }

    /// Opens our push stream and writes our hello to it as its first frame.
    pub(super) async fn open_push(
        connection: &Connection,
        hello: Bytes,
    ) -> Result<SendStream, quinn::ConnectionError> {
        let mut stream = connection.open_uni().await?;
        let mut chunks = Vec::new();
        frame::lay_out(&[STREAM_PUSH], &mut vec![Frame { bytes: hello, last: false }], &mut chunks);
        match stream.write_all_chunks(&mut chunks).await {
            Ok(()) => Ok(stream),
            Err(_) => Err(connection.closed().await),
        }
    }

    /// What there is to say about the link.
    pub(super) fn info(&self) -> PeerInfo {
        let stats = self.connection.stats();
        PeerInfo {
            id: self.peer,
            name: self.name.clone(),
            address: self.address,
            round_trip: stats.path.rtt,
            since: self.since,
            sent: super::DatagramCount {
                datagrams: stats.udp_tx.datagrams,
                bytes: stats.udp_tx.bytes,
            },
            received: super::DatagramCount {
                datagrams: stats.udp_rx.datagrams,
                bytes: stats.udp_rx.bytes,
            },
            lost_datagrams: stats.path.lost_packets,
            frames_sent: self.frames_sent.load(Ordering::Relaxed),
            frames_received: self.frames_received.load(Ordering::Relaxed),
            push_queue_bytes: self.push.bytes(),
            exchange_queue_bytes: self.exchange_bytes.load(Ordering::Relaxed),
        }
    }
}

/// What one stream keeps of an incomplete frame, counted towards its link's bound while it lives.
struct Partial<'a> {
    of: &'a AtomicUsize,
    bytes: usize,
}

impl Partial<'_> {
    fn set(&mut self, bytes: usize, bytes_max: usize) -> Result<(), Farewell> {
        self.of.fetch_add(bytes, Ordering::Relaxed);
        let all = self.of.fetch_sub(self.bytes, Ordering::Relaxed) - self.bytes;
        self.bytes = bytes;
        if all > bytes_max {
            let words = format!("{all} bytes of incomplete frames, at most {bytes_max} allowed");
            return Err(Farewell::new(FarewellCode::Malformed, words));
        }
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
