//! The thread that QUIC runs on: sockets, timers and tasks of all nodes of this process.
//!
//! Its tasks used to run on the executor, above async-io. There, one packet took six waits of the
//! reactor, each with a timer set and a notice read, and two hand-offs to async-io's own thread, which
//! takes the sockets over whenever the executor has waited for half a millisecond. Here a turn is one
//! wait, then all tasks that are ready, again and again until none is; a task that wakes another one
//! on this thread costs no system call, and a wake from another thread costs one if this thread sleeps.
//!
//! What must stay true:
//! - A task is run by this thread only, and never by two at a time. It must not block: the shard's
//!   lock, which is short, is the longest that it may wait for.
//! - Between looking for the last time and falling asleep nothing is missed: both sides write their own
//!   flag before they read the other's, in one total order (`SeqCst`).
//! - A task that panics ends by itself and takes nobody along.
//!
//! Left out: precision. The poll rounds up to whole milliseconds, which is fine for acknowledgements
//! and losses; the emulated network keeps the finer timers of async-io.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Registry, Token};
use parking_lot::Mutex;

/// Events that one look brings: sockets are few, one per node.
const EVENTS_MAX: usize = 64;

/// How often the tasks that are ready are run before sockets and timers are looked at again.
const ROUNDS_MAX: usize = 16;

/// What the poll calls a wake from another thread; sockets have their number.
const WOKEN: Token = Token(usize::MAX);

static DRIVER: OnceLock<Result<Driver, ErrorKind>> = OnceLock::new();

/// What the thread and everybody who wakes it share.
struct Driver {
    ready: Mutex<Vec<Arc<Task>>>,
    asleep: AtomicBool,
    waker: mio::Waker,
    registry: Registry,
    sockets: Mutex<HashMap<usize, Weak<Readiness>>>,
    next_socket: AtomicUsize,
    timers: Mutex<BTreeMap<(Instant, u64), Waker>>,
    next_timer: AtomicU64,
}

/// Starts the thread, unless it runs.
///
/// # Errors
/// When the system has no poll or no thread to give; then, and ever after.
fn driver() -> io::Result<&'static Driver> {
    let started = DRIVER.get_or_init(|| {
        let start = || -> io::Result<Driver> {
            let poll = mio::Poll::new()?;
            let driver = Driver {
                ready: Mutex::default(),
                asleep: AtomicBool::new(false),
                waker: mio::Waker::new(poll.registry(), WOKEN)?,
                registry: poll.registry().try_clone()?,
                sockets: Mutex::default(),
                next_socket: AtomicUsize::new(0),
                timers: Mutex::default(),
                next_timer: AtomicU64::new(0),
            };
            let run = move || {
                if let Ok(driver) = DRIVER.wait() {
                    driver.run(poll);
                }
            };
            thread::Builder::new().name("quic".to_owned()).spawn(run)?;
            Ok(driver)
        };
        start().map_err(|error| error.kind())
    });
    started.as_ref().map_err(|kind| (*kind).into())
}

/// Runs a task on the thread of QUIC.
pub(super) fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    match driver() {
        Ok(driver) => {
            let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(future);
            let (future, queued) = (Mutex::new(Some(future)), AtomicBool::new(true));
            driver.enqueue(Arc::new(Task { future, queued }));
        }
        // A node without it has not come so far as to have tasks.
        Err(error) => log::error!("no thread for QUIC: {error}"),
    }
}

struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Whether it stands in the line.
    queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::SeqCst)
            && let Ok(driver) = driver()
        {
            driver.enqueue(Arc::clone(self));
        }
    }
}

impl Task {
    fn run(self: Arc<Self>) {
        // Who wakes it from here on has it run again.
        self.queued.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self));
        let mut future = self.future.lock();
        let Some(running) = future.as_mut() else { return };
        let mut context = Context::from_waker(&waker);
        let poll = || running.as_mut().poll(&mut context);
        // It is dropped in either case, so nobody sees what a panic has left.
        if let Ok(Poll::Pending) = catch_unwind(AssertUnwindSafe(poll)) {
            return;
        }
        *future = None;
    }
}

impl Driver {
    fn enqueue(&self, task: Arc<Task>) {
        self.ready.lock().push(task);
        self.rouse();
    }

    fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake the thread of QUIC: {error}");
        }
    }

    fn run(&self, mut poll: mio::Poll) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut ready = Vec::new();
        loop {
            let timeout = self.doze();
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != ErrorKind::Interrupted
            {
                log::error!("no more QUIC: {error}");
                return;
            }
            self.asleep.store(false, Ordering::SeqCst);
            for event in events.iter().filter(|event| event.token() != WOKEN) {
                let socket = self.sockets.lock().get(&event.token().0).and_then(Weak::upgrade);
                if let Some(socket) = socket {
                    socket.stir();
                }
            }
            self.fire();
            for _ in 0..ROUNDS_MAX {
                std::mem::swap(&mut *self.ready.lock(), &mut ready);
                if ready.is_empty() {
                    break;
                }
                ready.drain(..).for_each(Task::run);
            }
        }
    }

    /// How long the thread may sleep; for ever if nothing limits it.
    fn doze(&self) -> Option<Duration> {
        self.asleep.store(true, Ordering::SeqCst);
        if !self.ready.lock().is_empty() {
            self.asleep.store(false, Ordering::SeqCst);
            return Some(Duration::ZERO);
        }
        let next = self.timers.lock().first_key_value().map(|((at, _), _)| *at);
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Wakes those whose time has come.
    fn fire(&self) {
        let mut due = Vec::new();
        let mut timers = self.timers.lock();
        if timers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(first) = timers.first_entry().filter(|first| first.key().0 <= now) {
            due.push(first.remove());
        }
        drop(timers);
        due.into_iter().for_each(Waker::wake);
    }
}

/// Whether a socket has something to be read.
#[derive(Debug)]
pub(super) struct Readiness {
    number: usize,
    readable: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Readiness {
    /// Watches a socket, for as long as the value is kept.
    ///
    /// # Errors
    /// When the system does not watch it, or there is no thread for QUIC.
    pub(super) fn of(socket: &mut UdpSocket) -> io::Result<Arc<Self>> {
        let driver = driver()?;
        let number = driver.next_socket.fetch_add(1, Ordering::Relaxed);
        let readiness = Arc::new(Self {
            number,
            // Something may have come before it was watched.
            readable: AtomicBool::new(true),
            reader: Mutex::default(),
        });
        driver.sockets.lock().insert(number, Arc::downgrade(&readiness));
        // Only for reading: with each packet sent, a socket says again that it can be written.
        driver.registry.register(socket, Token(number), Interest::READABLE)?;
        Ok(readiness)
    }

    fn stir(&self) {
        self.readable.store(true, Ordering::SeqCst);
        let reader = self.reader.lock().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Waits until the socket may have something.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.readable.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        let mut reader = self.reader.lock();
        if reader.as_ref().is_none_or(|reader| !reader.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
        drop(reader);
        // What came in between has found no waker.
        if self.readable.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Says that everything is about to be read: what comes from now on is told of.
    pub(super) fn reading(&self) {
        self.readable.store(false, Ordering::SeqCst);
    }

    /// Says that there was more than could be read at once.
    pub(super) fn has_more(&self) {
        self.readable.store(true, Ordering::SeqCst);
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        if let Ok(driver) = driver() {
            driver.sockets.lock().remove(&self.number);
        }
    }
}

/// A timer that may be armed too early, but never too late.
///
/// A connection moves its timer with almost every packet, nearly always to a later time, so moving it
/// only notes the time; it fires at the old one, sees that it is early, and is armed again.
#[derive(Debug)]
pub(super) struct Alarm {
    /// When it should fire.
    at: Instant,
    /// When it will be looked at, never after `at`, and by whom.
    armed: Option<((Instant, u64), Waker)>,
}

impl Alarm {
    pub(super) fn new(at: Instant) -> Self {
        Self { at, armed: None }
    }

    /// Moves it to another time; it must be polled again afterwards.
    pub(super) fn move_to(&mut self, at: Instant) {
        self.at = at;
    }

    fn disarm(&mut self, driver: &Driver) {
        if let Some((key, _)) = self.armed.take() {
            driver.timers.lock().remove(&key);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(driver) = driver() else { return Poll::Pending };
        let now = Instant::now();
        if now >= self.at {
            self.disarm(driver);
            return Poll::Ready(());
        }
        let at = self.at;
        let is_good = self.armed.as_ref().is_some_and(|((armed, _), waker)| {
            *armed > now && *armed <= at && waker.will_wake(cx.waker())
        });
        if !is_good {
            self.disarm(driver);
            let key = (at, driver.next_timer.fetch_add(1, Ordering::Relaxed));
            let waker = cx.waker().clone();
            let mut timers = driver.timers.lock();
            timers.insert(key, waker.clone());
            let is_first = timers.first_key_value().is_some_and(|(first, _)| *first == key);
            drop(timers);
            self.armed = Some((key, waker));
            if is_first {
                driver.rouse();
            }
        }
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.armed.is_some()
            && let Ok(driver) = driver()
        {
            self.disarm(driver);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However a timer is moved about, it fires once its last time has come, and not before.
    #[test]
    fn a_timer_fires_at_the_last_time_it_was_given() {
        async_std::task::block_on(async {
            let start = Instant::now();
            let at = |millis| start + Duration::from_millis(millis);
            let mut alarm = Alarm::new(at(5));
            std::future::poll_fn(|cx| {
                assert!(Pin::new(&mut alarm).poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            for millis in [40, 20, 60, 30] {
                alarm.move_to(at(millis));
            }
            (&mut alarm).await;
            assert!(Instant::now() >= at(30));
            // Used again after it fired, sooner and later.
            for millis in [35, 50] {
                alarm.move_to(at(millis));
                (&mut alarm).await;
                assert!(Instant::now() >= at(millis));
            }
        });
    }

    /// Story: tasks on the thread and threads outside wake each other many times, and no wake is lost;
    /// one task that panics takes nobody along.
    #[test]
    fn no_wake_is_lost() {
        let (to_task, from_test) = async_std::channel::bounded::<u32>(1);
        let (to_test, from_task) = async_std::channel::bounded::<u32>(1);
        spawn(async { panic!("on purpose") });
        spawn(async move {
            while let Ok(number) = from_test.recv().await {
                // Through a second task, so that wakes within the thread are shown as well.
                let to_test = to_test.clone();
                spawn(async move { to_test.send(number + 1).await.unwrap() });
            }
        });
        async_std::task::block_on(async {
            for number in 0..5_000 {
                to_task.send(number).await.unwrap();
                let heard = async_std::future::timeout(Duration::from_secs(20), from_task.recv());
                assert_eq!(heard.await.expect("a wake was lost"), Ok(number + 1));
            }
        });
    }
}
