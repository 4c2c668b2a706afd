//! The UDP socket and the runtime that quinn runs on.
//!
//! quinn brings a socket for async-std of its own. This one replaces it for two reasons: it can put
//! an emulated network in between ([`Emulation`]), and it is faster when it does not:
//! - it sends at once, and only waits a moment after the kernel has refused a packet;
//! - it waits for something to read only after a read came back short of full;
//! - it, its timers and all tasks of QUIC are served by a thread of their own, `driver`, which
//!   costs far fewer system calls than the executor.
//!
//! What must stay true: segmentation (GSO), its counterpart on receipt (GRO) and the congestion
//! marks (ECN) are left as quinn-udp offers them; an error of the socket never ends the endpoint,
//! since UDP may lose anything anyway.
//!
//! Left out: more than one socket per node.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_io::Timer;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};

use super::driver::{self, Alarm, Readiness};
use super::emulation::Emulation;

/// What the kernel is asked to buffer in each direction, in bytes; it may grant less. A burst to
/// many peers at once should not be lost in our own machine: this is 2 ms of 10 Gbit/s.
const KERNEL_BUFFER_BYTES: usize = 2 << 20;

/// How long sending rests after the kernel has refused a packet.
pub(super) const FULL_PAUSE: Duration = Duration::from_millis(1);

/// What a socket has carried, in UDP payload: add 28 bytes per datagram for IP and UDP.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    sent_datagrams: AtomicU64,
    sent_bytes: AtomicU64,
    received_datagrams: AtomicU64,
    received_bytes: AtomicU64,
}

/// A count of datagrams and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramCount {
    /// UDP packets.
    pub datagrams: u64,
    /// Their payload; add 28 bytes each for IP and UDP.
    pub bytes: u64,
}

impl Traffic {
    /// Everything handed to the socket so far, what an emulated network then dropped included.
    pub(super) fn sent(&self) -> DatagramCount {
        DatagramCount {
            datagrams: self.sent_datagrams.load(Ordering::Relaxed),
            bytes: self.sent_bytes.load(Ordering::Relaxed),
        }
    }

    /// Everything received so far.
    pub(super) fn received(&self) -> DatagramCount {
        DatagramCount {
            datagrams: self.received_datagrams.load(Ordering::Relaxed),
            bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }

    fn count_sent(&self, transmit: &Transmit<'_>) {
        let bytes = transmit.contents.len();
        let datagrams = transmit.segment_size.map_or(1, |size| bytes.div_ceil(size.max(1)));
        self.sent_datagrams.fetch_add(datagrams as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn count_received(&self, metas: &[RecvMeta]) {
        let (datagrams, bytes) = metas.iter().fold((0, 0), |(datagrams, bytes), meta| {
            (datagrams + meta.len.div_ceil(meta.stride.max(1)) as u64, bytes + meta.len as u64)
        });
        self.received_datagrams.fetch_add(datagrams, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A UDP socket for quinn, with or without an emulated network behind it.
pub(super) struct Socket {
    io: mio::net::UdpSocket,
    readiness: Arc<Readiness>,
    state: UdpSocketState,
    emulation: Option<Emulation>,
    traffic: Arc<Traffic>,
    /// The kernel refused the last packet: wait a moment before the next one.
    full: AtomicBool,
}

impl Socket {
    /// Wraps a bound socket. With an emulation, a task that delivers what it holds back is started.
    ///
    /// # Errors
    /// When the operating system refuses the options that QUIC needs.
    pub(super) fn new(
        socket: UdpSocket,
        emulation: Option<Emulation>,
        traffic: Arc<Traffic>,
    ) -> io::Result<Arc<Self>> {
        let state = UdpSocketState::new((&socket).into())?;
        // Best effort: without the larger buffers bursts may be lost and are then sent again.
        for result in [
            state.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES),
            state.set_send_buffer_size((&socket).into(), KERNEL_BUFFER_BYTES),
        ] {
            if let Err(error) = result {
                log::debug!("the kernel keeps its own buffer size: {error}");
            }
        }
        socket.set_nonblocking(true)?;
        let mut io = mio::net::UdpSocket::from_std(socket);
        let socket = Arc::new(Self {
            readiness: Readiness::of(&mut io)?,
            io,
            state,
            emulation,
            traffic,
            full: AtomicBool::new(false),
        });
        if let Some(emulation) = &socket.emulation {
            async_std::task::spawn(emulation.deliver_for(Arc::downgrade(&socket)));
        }
        Ok(socket)
    }

    /// Hands a packet to the kernel now.
    ///
    /// # Errors
    /// Only [`io::ErrorKind::WouldBlock`], when the kernel's buffer is full.
    pub(super) fn send_now(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.send((&self.io).into(), transmit)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(emulation) = &self.emulation {
            emulation.wake();
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let result = match &self.emulation {
            Some(emulation) => {
                emulation.send(transmit, |packet| self.send_now(packet));
                Ok(())
            }
            None => self.send_now(transmit),
        };
        match &result {
            Ok(()) => self.traffic.count_sent(transmit),
            Err(_) => self.full.store(true, Ordering::Relaxed),
        }
        result
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.readiness.poll(cx));
            self.readiness.reading();
            match self.state.recv((&self.io).into(), bufs, metas) {
                Ok(count) => {
                    if count == bufs.len() {
                        self.readiness.has_more();
                    }
                    self.traffic.count_received(metas.get(..count).unwrap_or_default());
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    log::debug!("receiving failed and will be tried again: {error}");
                    self.readiness.has_more();
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Waits for one connection until the kernel may take packets again.
///
/// That is a moment, and not an event: a UDP socket that is watched for it wakes its poll with every
/// packet that has left, and in a millisecond the kernel sends far less than it buffers.
#[derive(Debug)]
struct Poller {
    socket: Arc<Socket>,
    waiting: Option<Alarm>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_none() && !self.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let waiting = self.waiting.get_or_insert_with(|| Alarm::new(Instant::now() + FULL_PAUSE));
        ready!(Future::poll(Pin::new(waiting), cx));
        self.waiting = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// quinn's view of the thread that it runs on.
#[derive(Debug)]
pub(super) struct OwnThread;

impl Runtime for OwnThread {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Alarm::new(at))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        driver::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Socket::new(socket, None, Arc::new(Traffic::default()))?)
    }
}

impl AsyncTimer for Alarm {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        self.move_to(at);
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Future::poll(self, cx)
    }
}

/// A pause, for code that is not on a hot path.
pub(super) async fn pause(length: Duration) {
    Timer::after(length).await;
}
