//! An emulated network between our socket and the real one, as a profile describes it.
//!
//! Every UDP packet that quinn sends asks its link for a fate
//! ([`LinkState::fate`](crate::protocol::profile::LinkState::fate), the same function as in the
//! simulator) and is dropped, or held back and handed to the kernel when its time has come, perhaps
//! twice. This happens on the sending side, by destination, so each node needs to know only which
//! number it is and which number lives at which address.
//!
//! What must stay true:
//! - One draw per UDP packet: a batch that the kernel would split (GSO) is split before drawing.
//! - What is held back is bounded ([`HELD_BYTES_MAX`]); beyond it packets are dropped and counted,
//!   as by a switch without memory.
//! - Packets that are due at the same time leave in the order in which they came.
//! - Without a profile, or with one that changes nothing, none of this is in the way.
//!
//! Timers wake some 50 to 100 µs late. [`LEAD`] hands packets over that much early, so that the
//! mean is right and links of a millisecond can be emulated; what remains is printed by the bench.
//!
//! Left out: emulation by the receiver, and a link shared by several senders.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use async_io::Timer;
use parking_lot::Mutex;
use quinn::udp::{EcnCodepoint, Transmit};

use super::NetError;
use super::socket::{FULL_PAUSE, Socket, pause};
use crate::protocol::profile::{DropReason, Fate, LinkState, Profile};

/// What one node's emulated links may hold back together: half a second of 1 Gbit/s.
const HELD_BYTES_MAX: usize = 64 << 20;
/// Addresses with a link state of their own; strangers beyond this share one.
const LINKS_MAX: usize = 4096;
/// A profile is a page of text.
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// How early packets are handed over, against timers that wake late.
const LEAD: Duration = Duration::from_micros(60);

/// The network around one node. Clones are handles to the same network.
#[derive(Clone)]
pub struct Emulation(Arc<Shared>);

/// What the emulated links of one node have done, in UDP packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulationCount {
    /// Handed to a link.
    pub offered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Swallowed by a cut.
    pub cut: u64,
    /// Dropped because the queue in front of a narrow link was full, or the emulation's memory was.
    pub queue_full: u64,
    /// Delivered a second time.
    pub duplicated: u64,
}

struct Shared {
    profile: Profile,
    state: Mutex<State>,
}

struct State {
    /// The zero of the profile's timetable.
    start: Instant,
    /// Which number of the profile this node has.
    me: usize,
    rng: fastrand::Rng,
    places: HashMap<SocketAddr, usize>,
    links: HashMap<SocketAddr, LinkState>,
    /// The link of strangers beyond [`LINKS_MAX`].
    strangers: LinkState,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: usize,
    /// Counts packets, so that equal times keep their order.
    next: u64,
    /// Wakes the task that delivers.
    deliverer: Option<Waker>,
    count: EmulationCount,
}

/// A packet on its way.
struct Held {
    due: Instant,
    order: u64,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    source: Option<std::net::IpAddr>,
    contents: Box<[u8]>,
}

impl Emulation {
    /// The network that `profile` describes around node number `me`, with dice from `seed`. Its
    /// timetable starts now, unless [`begin`](Self::begin) says otherwise.
    pub fn new(profile: Profile, me: usize, seed: u64) -> Self {
        let state = State {
            start: Instant::now(),
            me,
            rng: fastrand::Rng::with_seed(seed),
            places: HashMap::new(),
            links: HashMap::new(),
            strangers: LinkState::new(profile.default_link()),
            held: BinaryHeap::new(),
            held_bytes: 0,
            next: 0,
            deliverer: None,
            count: EmulationCount::default(),
        };
        Self(Arc::new(Shared { profile, state: Mutex::new(state) }))
    }

    /// The profile being emulated.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// Says that node number `node` lives at `address`. Unknown addresses have the default link.
    pub fn place(&self, address: SocketAddr, node: usize) {
        let address = canonical(address);
        let mut state = self.0.state.lock();
        if state.places.len() < LINKS_MAX || state.places.contains_key(&address) {
            state.places.insert(address, node);
            state.links.remove(&address);
        }
    }

    /// This node has another number of the profile from now on; tell where the others are as well.
    pub fn renumber(&self, me: usize) {
        let mut state = self.0.state.lock();
        state.me = me;
        state.links.clear();
    }

    /// Sets the zero of the profile's timetable, by which its partitions begin and end.
    pub fn begin(&self, at: Instant) {
        let mut state = self.0.state.lock();
        state.start = at;
        // Link states remember times by the old zero.
        state.links.clear();
        state.strangers = LinkState::new(self.0.profile.default_link());
    }

    /// What has been done so far.
    pub fn count(&self) -> EmulationCount {
        self.0.state.lock().count
    }

    /// Decides about the packets in `transmit`: those due at once go to `send`, others are held. What
    /// `send` refuses is dropped and counted: its die is cast and cannot be thrown again.
    pub(super) fn send(
        &self,
        transmit: &Transmit<'_>,
        send: impl Fn(&Transmit<'_>) -> io::Result<()>,
    ) {
        let now = Instant::now();
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut state = self.0.state.lock();
        let due_before = state.held.peek().map(|held| held.0.due);
        for contents in transmit.contents.chunks(segment) {
            state.offer(&self.0, now, transmit, contents);
        }
        let wake = match (due_before, state.held.peek().map(|held| held.0.due)) {
            (Some(before), Some(after)) if after >= before => None,
            (_, None) => None,
            _ => state.deliverer.take(),
        };
        let due = state.take_due(now);
        drop(state);
        if let Some(waker) = wake {
            waker.wake();
        }
        let refused = due.iter().filter(|packet| send(&packet.transmit()).is_err()).count();
        if refused > 0 {
            self.0.state.lock().count.queue_full += refused as u64;
        }
    }

    /// Runs as long as the socket lives, and hands it every packet when its time has come.
    pub(super) fn deliver_for(&self, socket: Weak<Socket>) -> impl Future<Output = ()> + use<> {
        let emulation = self.clone();
        async move {
            let mut timer = Timer::never();
            loop {
                let due = emulation.0.state.lock().take_due(Instant::now());
                let Some(socket) = socket.upgrade() else { return };
                for packet in &due {
                    while socket.send_now(&packet.transmit()).is_err() {
                        pause(FULL_PAUSE).await;
                    }
                }
                drop(socket);
                emulation.next_due(&mut timer).await;
            }
        }
    }

    /// Wakes the task that delivers, so that it sees whether its socket is gone.
    pub(super) fn wake(&self) {
        let waker = self.0.state.lock().deliverer.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until a packet is due, or [`wake`](Self::wake) is called.
    async fn next_due(&self, timer: &mut Timer) {
        let mut armed = None;
        let mut polled = false;
        poll_fn(|cx| {
            let mut state = self.0.state.lock();
            if polled && state.deliverer.is_none() {
                return Poll::Ready(());
            }
            polled = true;
            state.deliverer = Some(cx.waker().clone());
            let due = state.held.peek().map(|held| held.0.due);
            drop(state);
            let Some(due) = due else { return Poll::Pending };
            if armed != Some(due) {
                armed = Some(due);
                timer.set_at(due.checked_sub(LEAD).unwrap_or(due));
            }
            Pin::new(&mut *timer).poll(cx).map(|_| ())
        })
        .await;
    }
}

impl State {
    /// Asks the link for the fate of one packet and holds back what arrives.
    fn offer(&mut self, shared: &Shared, now: Instant, transmit: &Transmit<'_>, contents: &[u8]) {
        let since = now.saturating_duration_since(self.start);
        let address = canonical(transmit.destination);
        let known = self.links.len() < LINKS_MAX || self.links.contains_key(&address);
        let link = if known {
            let place = self.places.get(&address).copied();
            self.links.entry(address).or_insert_with(|| {
                LinkState::new(match place {
                    Some(node) => shared.profile.link(self.me, node),
                    None => shared.profile.default_link(),
                })
            })
        } else {
            &mut self.strangers
        };
        self.count.offered += 1;
        match link.fate(since, contents.len(), &mut self.rng) {
            Fate::Drop(DropReason::Loss) => self.count.lost += 1,
            Fate::Drop(DropReason::Cut) => self.count.cut += 1,
            Fate::Drop(DropReason::QueueFull) => self.count.queue_full += 1,
            Fate::Deliver { after, again } => {
                self.hold(now + after, transmit, contents);
                if let Some(again) = again {
                    self.count.duplicated += 1;
                    self.hold(now + again, transmit, contents);
                }
            }
        }
    }

    fn hold(&mut self, due: Instant, transmit: &Transmit<'_>, contents: &[u8]) {
        if self.held_bytes + contents.len() > HELD_BYTES_MAX {
            self.count.queue_full += 1;
            return;
        }
        self.held_bytes += contents.len();
        self.next += 1;
        self.held.push(Reverse(Held {
            due,
            order: self.next,
            destination: transmit.destination,
            ecn: transmit.ecn,
            source: transmit.src_ip,
            contents: contents.into(),
        }));
    }

    /// Takes out what is due by `now`, in order.
    fn take_due(&mut self, now: Instant) -> Vec<Held> {
        let mut due = Vec::new();
        while let Some(Reverse(held)) = self.held.peek() {
            let wait = held.due.saturating_duration_since(now);
            if wait > LEAD {
                break;
            }
            due.extend(self.held.pop().map(|Reverse(held)| held));
        }
        self.held_bytes -= due.iter().map(|held| held.contents.len()).sum::<usize>();
        due
    }
}

impl Held {
    fn transmit(&self) -> Transmit<'_> {
        Transmit {
            destination: self.destination,
            ecn: self.ecn,
            contents: &self.contents,
            segment_size: None,
            src_ip: self.source,
        }
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl fmt::Debug for Emulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Emulation({} around node {})", self.0.profile.name(), self.0.state.lock().me)
    }
}

/// Reads a profile: a built-in one by its name, or a file if the name ends in `.toml`.
///
/// # Errors
/// When there is no such name or file, or the file is no profile; the error says what would be.
pub fn load_profile(name_or_path: &str) -> Result<Profile, NetError> {
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

/// An IPv4 address inside an IPv6 one, as a dual-stack socket shows it, is the IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emulation(text: &str) -> Emulation {
        let text = format!("description = 'test'\n{text}");
        Emulation::new(Profile::parse("test.toml", &text).unwrap(), 0, 7)
    }

    fn offer(emulation: &Emulation, to: &str, contents: &[u8], segment: Option<usize>) -> usize {
        let sent = std::cell::Cell::new(0);
        let transmit = Transmit {
            destination: to.parse().unwrap(),
            ecn: None,
            contents,
            segment_size: segment,
            src_ip: None,
        };
        let count = |_: &Transmit<'_>| {
            sent.set(sent.get() + 1);
            Ok(())
        };
        emulation.send(&transmit, count);
        sent.get()
    }

    #[test]
    fn a_batch_is_split_before_the_dice_are_thrown() {
        let lossy = emulation("[default]\nloss = '50%'");
        let sent = offer(&lossy, "127.0.0.1:1", &[0; 100 * 1000 + 1], Some(1000));
        let count = lossy.count();
        assert_eq!(count.offered, 101);
        assert_eq!(sent as u64 + count.lost, 101);
        assert!((20..80).contains(&count.lost), "{count:?}");
    }

    #[test]
    fn late_packets_are_held_and_come_out_in_order() {
        let late = emulation("[default]\nlatency = '10s'\n[[link]]\nfrom=0\nto=1\nlatency='5s'");
        late.place("127.0.0.1:1".parse().unwrap(), 1);
        for (to, byte) in [("127.0.0.1:2", 2), ("127.0.0.1:1", 1), ("127.0.0.1:1", 11)] {
            assert_eq!(offer(&late, to, &[byte], None), 0);
        }
        let mut state = late.0.state.lock();
        assert!(state.take_due(Instant::now()).is_empty());
        let due = state.take_due(Instant::now() + Duration::from_secs(20));
        let bytes: Vec<u8> = due.iter().map(|held| held.contents[0]).collect();
        assert_eq!(bytes, [1, 11, 2]);
        assert_eq!(state.held_bytes, 0);
    }

    #[test]
    fn the_timetable_counts_from_its_beginning() {
        let split = emulation("[[partition]]\nfrom = 0\nto = 1\nstart = '2s'\nfor = '1h'");
        split.place("[::ffff:127.0.0.1]:1".parse().unwrap(), 1);
        assert_eq!(offer(&split, "127.0.0.1:1", &[1], None), 1);
        split.begin(Instant::now().checked_sub(Duration::from_secs(3)).unwrap());
        assert_eq!(offer(&split, "127.0.0.1:1", &[1], None), 0);
        assert_eq!(split.count().cut, 1);
        assert_eq!(offer(&split, "127.0.0.1:2", &[1], None), 1, "others are not cut off");
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let late = emulation("[default]\nlatency = '60s'");
        let packet = vec![0; 60_000];
        for _ in 0..HELD_BYTES_MAX / packet.len() + 10 {
            offer(&late, "127.0.0.1:1", &packet, None);
        }
        assert_eq!(late.count().queue_full, 10);
        assert!(late.0.state.lock().held_bytes <= HELD_BYTES_MAX);
    }
}
