//! Connections of the HTTP door, and what bounds them.
//!
//! A connection has a lease: it ends when that runs out, whatever it is doing. A transfer of a backup
//! renews it with each piece that gets through. Closing the door ends all leases within a second, so
//! that no client who stays connected keeps a closed node in memory.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Timer;
use async_std::future::timeout;
use async_std::io::{ReadExt, WriteExt};
use async_std::net::{TcpListener, TcpStream};
use async_std::task;
use event_listener::Event as Signal;
use futures_lite::future;
use hyper::rt::Sleep;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use parking_lot::Mutex;
use smol_hyper::rt::FuturesIo;

use super::{CLOSE_TIME_MAX, HttpSettings, answer};
use crate::server::Node;

/// The most connections at once: a monitor, a few browsers, and some to spare.
const CONNECTIONS_MAX: usize = 256;

/// How many more are told at a time that there are too many; beyond these they are just closed.
const REFUSALS_MAX: usize = 64;

/// How long somebody is told that there are too many.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the head of a request may take, and how long a connection may wait for the next one.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a connection may last, idle or not; whoever needs longer connects again.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);

/// How long a transfer may go without a byte getting through.
const STALL_TIME_MAX: Duration = Duration::from_secs(60);

/// The most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How many backups may be taken at the same time: each holds a slice of the cells.
const BACKUPS_MAX: usize = 8;

/// What the connections of a door share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: HttpSettings,
    open: Arc<AtomicUsize>,
    refusals: Arc<AtomicUsize>,
    backups: Arc<AtomicUsize>,
    restores: Arc<AtomicUsize>,
    closing: AtomicBool,
    /// Told when the door closes, and when a connection of a closing one has ended.
    changed: Signal,
}

/// One of a bounded number, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

/// How long a connection may go on.
#[derive(Debug)]
pub(super) struct Lease(Mutex<Instant>);

impl Place {
    fn take(of: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(Arc::clone(of));
        // Given back by dropping it, if that was one too many.
        (of.fetch_add(1, Ordering::AcqRel) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Lease {
    fn new() -> Self {
        Self(Mutex::new(Instant::now() + CONNECTION_TIME_MAX))
    }

    /// Goes on, since something has got through: never for less than was left.
    pub(super) fn renew(&self) {
        let mut until = self.0.lock();
        *until = (*until).max(Instant::now() + STALL_TIME_MAX);
    }

    async fn ends(&self) {
        loop {
            let until = *self.0.lock();
            if until <= Instant::now() {
                return;
            }
            Timer::at(until).await;
        }
    }
}

impl Shared {
    pub(super) fn new(settings: HttpSettings) -> Self {
        Self {
            settings,
            open: Arc::default(),
            refusals: Arc::default(),
            backups: Arc::default(),
            restores: Arc::default(),
            closing: AtomicBool::new(false),
            changed: Signal::new(),
        }
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    /// A place among those who take a backup.
    pub(super) fn backup(&self) -> Option<Place> {
        Place::take(&self.backups, BACKUPS_MAX)
    }

    /// The place of the one who restores: two at once would only be in each other's way.
    pub(super) fn restore(&self) -> Option<Place> {
        Place::take(&self.restores, 1)
    }

    async fn closes(&self) {
        self.until(|shared| shared.closing.load(Ordering::Acquire)).await;
    }

    /// Waits until there is no connection any more, but no longer than this.
    pub(super) async fn emptied(&self, most: Duration) {
        let emptied = self.until(|shared| shared.open.load(Ordering::Acquire) == 0);
        // Those that are left end by themselves.
        let _ = timeout(most, emptied).await;
    }

    async fn until(&self, is_so: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.changed.listen();
            if is_so(self) {
                return;
            }
            changed.await;
        }
    }
}

/// Takes connections until the door closes.
pub(super) async fn accept(node: Node, listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let closes = async {
            shared.closes().await;
            None
        };
        let Some(accepted) = future::or(closes, async { Some(listener.accept().await) }).await
        else {
            return;
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others have to close first.
                log::warn!("http: cannot accept a connection: {error}");
                task::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = Place::take(&shared.open, CONNECTIONS_MAX) else {
            if let Some(place) = Place::take(&shared.refusals, REFUSALS_MAX) {
                task::spawn(async move {
                    // Whoever does not listen is not told.
                    let _ = timeout(REFUSAL_TIME_MAX, refuse(stream)).await;
                    drop(place);
                });
            }
            continue;
        };
        let (node, shared) = (node.clone(), Arc::clone(&shared));
        task::spawn(async move {
            serve(node, stream, from, &shared).await;
            drop(place);
            shared.changed.notify(usize::MAX);
        });
    }
}

/// Says that there are too many connections.
async fn refuse(mut stream: TcpStream) {
    let why =
        format!("there are {CONNECTIONS_MAX} connections already: close some, or try again\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{why}",
        why.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_err() {
        return;
    }
    if stream.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    // A request that was not read would have the system take the answer back.
    let mut request = [0; 1024];
    while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
}

async fn serve(node: Node, stream: TcpStream, from: SocketAddr, shared: &Arc<Shared>) {
    let lease = Arc::new(Lease::new());
    let caller = answer::Caller {
        is_local: from.ip().to_canonical().is_loopback(),
        shared: Arc::clone(shared),
        lease: Arc::clone(&lease),
    };
    let service = service_fn(move |request| {
        let (node, caller) = (node.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer::answer(&node, &caller, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(Timers)
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(FuturesIo::new(stream), service);
    let mut connection = pin!(connection);
    let closes = async {
        shared.closes().await;
        None
    };
    let runs_out = async {
        lease.ends().await;
        log::debug!("http: closed a connection of {from} that lasted too long");
        Some(Ok(()))
    };
    let served = async { Some(connection.as_mut().await) };
    let ended = future::or(closes, future::or(runs_out, served)).await;
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(CLOSE_TIME_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        log::debug!("http: a connection of {from} ended with an error: {error}");
    }
}

/// Whether an address, as a `Host` header has it, is one of an interface or of this machine.
pub(super) fn is_address(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// hyper's timers.
#[derive(Debug, Clone, Copy)]
struct Timers;

struct Pause(Timer);

impl Future for Pause {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(drop)
    }
}

impl Sleep for Pause {}

impl hyper::rt::Timer for Timers {
    fn sleep(&self, length: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Pause(Timer::after(length)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Pause(Timer::at(deadline)))
    }
}
