//! Finding members on the LAN without being told an address: multicast DNS, as hints.
//!
//! Every node says on every network card where it is, and asks who else is there. What it hears is
//! worth an attempt to dial and nothing more: whether somebody belongs to the cluster is decided by
//! the handshake. A tag that follows from the secret and the cluster's name keeps the clusters of
//! one LAN from knocking at each other's doors, without saying which cluster it is.
//!
//! It lives in this room, and not with the server, because it is about addresses and sockets only
//! and needs the secret, which does not leave the room.
//!
//! What must stay true:
//! - Nothing here can stop a node: a card that fails is tried again, and the others go on.
//! - Whatever is shouted on the LAN costs a bounded share: so many packets per second are read from a
//!   card (the rest is dropped by the kernel, which costs this process nothing), so many nodes are
//!   remembered, and hints are bounded and rate-limited by `candidates`.
//! - What is said is bounded too: one answer per second and card, questions ever more rarely.
//!
//! Why not a library: mdns-sd 0.21, the one that is well kept, remembers every answer without a
//! bound, looks through all of them for each new one, and empties a socket before it hears that it
//! should stop; one machine could take a node's memory and a core for good.
//!
//! Left out: probing for conflicts (the names contain the node's id), known answers, unicast answers.
//!
//! Sources: RFC 6762 (multicast DNS), RFC 6763 (DNS service discovery).

mod message;
mod sockets;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_io::Async;
use async_std::task::JoinHandle;
use parking_lot::Mutex;
use serde::Serialize;

use super::candidates::Source;
use super::identity::Secret;
use super::socket::pause;
use super::{Net, NodeId};
use message::{ADDRESSES_MAX, Announcement, Heard, PACKET_BYTES_MAX, Tag};
use sockets::Via;
pub use sockets::{Interface, interfaces};

/// How often the network cards are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The time from the first question to the second; it doubles from there.
const QUESTION_INTERVAL_FIRST: Duration = Duration::from_secs(1);
/// The longest time between questions of a node that has no peer.
const QUESTION_INTERVAL_ALONE: Duration = Duration::from_secs(10);
/// The same with a peer: members tell of each other, so this only joins what was split for long. In
/// a cluster of 100 nodes it makes 83 answers per second at the very most.
const QUESTION_INTERVAL_MAX: Duration = Duration::from_secs(120);
/// So many questions are accompanied by an answer nobody asked for, in case the first is lost.
const ANNOUNCEMENTS: u32 = 3;
/// An answer waits a random part of this, so that not everybody speaks at once (RFC 6762, section 6).
const ANSWER_DELAY_MS: std::ops::Range<u64> = 20..120;
/// The shortest time between two answers on a card (section 6).
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// Packets read from a card in a second; a busy LAN has some tens.
const PACKETS_PER_SECOND: u32 = 256;
/// Nodes remembered as found, to be counted.
const FOUND_MAX: usize = 256;
/// How long a node counts as found after it was last heard: a few times the longest interval.
const FOUND_LIFETIME: Duration = Duration::from_secs(600);

/// Whether a node looks for others on the LAN.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryState {
    /// It does not.
    #[default]
    Off,
    /// It does.
    On,
    /// It tries to, but can speak on no network card.
    Failing,
}

/// What discovery on the LAN has come to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DiscoveryStatus {
    /// Whether it is on.
    pub state: DiscoveryState,
    /// Network cards that are spoken on, counted once per IP version.
    pub channels: usize,
    /// Addresses that are dialled because somebody said so, on the LAN or as a member.
    pub candidates: usize,
    /// Nodes with this cluster's tag heard in the last ten minutes.
    pub found: usize,
    /// Times that nodes of other clusters were heard; they are left alone.
    pub strangers: u64,
    /// Why it fails.
    pub trouble: Option<String>,
}

/// What a node keeps for it.
#[derive(Default)]
pub(super) struct Discovery(Mutex<State>);

#[derive(Default)]
struct State {
    state: DiscoveryState,
    tag: Tag,
    left: bool,
    channels: Vec<Arc<Channel>>,
    interfaces: Vec<Interface>,
    found: HashMap<NodeId, Instant>,
    strangers: u64,
    trouble: Option<String>,
}

/// One card, one IP version.
struct Channel {
    index: u32,
    name: String,
    via: Via,
    socket: Async<UdpSocket>,
    /// When something was last said here.
    said: Mutex<Option<Instant>>,
}

/// When to ask.
struct Questions {
    due: Instant,
    interval: Duration,
    asked: u32,
    alone: bool,
}

impl Questions {
    fn new(now: Instant) -> Self {
        Self { due: now, interval: QUESTION_INTERVAL_FIRST, asked: 0, alone: true }
    }

    /// How many were asked before, if one is due.
    fn next(&mut self, now: Instant, alone: bool) -> Option<u32> {
        if alone && !self.alone {
            *self = Self::new(now);
        }
        self.alone = alone;
        let longest = if alone { QUESTION_INTERVAL_ALONE } else { QUESTION_INTERVAL_MAX };
        // Whoever has just lost its last peer does not wait out the long interval.
        self.due = self.due.min(now + longest.mul_f64(1.25));
        if self.due > now {
            return None;
        }
        let asked = self.asked;
        self.asked = self.asked.saturating_add(1);
        self.due = now + self.interval.min(longest).mul_f64(0.75 + fastrand::f64() / 2.0);
        self.interval = (self.interval * 2).min(longest);
        Some(asked)
    }
}

/// Counts what is read in a second.
struct Meter {
    began: Instant,
    packets: u32,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { began: now, packets: 0 }
    }

    /// How long to look away before the next packet.
    fn count(&mut self, now: Instant) -> Duration {
        let second = Duration::from_secs(1);
        if now >= self.began + second {
            *self = Self::new(now);
        }
        self.packets += 1;
        if self.packets < PACKETS_PER_SECOND {
            return Duration::ZERO;
        }
        self.began + second - now
    }
}

impl Net {
    /// Looks for other members on the LAN from now on, and lets itself be found, until the node
    /// closes. `secret` is the one that the node was given. A second call changes nothing.
    pub fn discover(&self, secret: &Secret) {
        let mut state = self.inner.discovery.0.lock();
        if state.state != DiscoveryState::Off || state.left {
            return;
        }
        state.state = DiscoveryState::On;
        state.tag = secret.discovery_tag(self.cluster());
        drop(state);
        async_std::task::spawn(self.unguarded().look_around());
    }

    /// What discovery on the LAN has come to.
    pub fn discovery(&self) -> DiscoveryStatus {
        let now = self.now();
        let mut state = self.inner.discovery.0.lock();
        state.found.retain(|_, heard| now.duration_since(*heard) < FOUND_LIFETIME);
        DiscoveryStatus {
            state: state.state,
            channels: state.channels.len(),
            candidates: self.inner.candidates.lock().hints(),
            found: state.found.len(),
            strangers: state.strangers,
            trouble: state.trouble.clone(),
        }
    }

    /// Tells the LAN that this node is gone.
    pub(super) fn say_goodbye(&self) {
        let channels = {
            let mut state = self.inner.discovery.0.lock();
            state.left = true;
            std::mem::take(&mut state.channels)
        };
        for channel in channels {
            let announcement = self.announcement(&channel);
            channel.say(&announcement.to_bytes(true));
        }
    }

    async fn look_around(self) {
        let mut ears: Vec<(Arc<Channel>, JoinHandle<()>)> = Vec::new();
        let mut questions = Questions::new(self.now());
        while !self.is_closing() {
            let seen = async_std::task::spawn_blocking(sockets::interfaces).await;
            if self.follow(seen, &mut ears).await {
                questions = Questions::new(self.now());
            }
            let alone = self.links().is_empty();
            if let Some(asked) = questions.next(self.now(), alone) {
                for (channel, _) in &ears {
                    channel.say(&message::question());
                    if asked < ANNOUNCEMENTS {
                        self.announce(channel);
                    }
                }
            }
            let due = questions.due.saturating_duration_since(self.now());
            self.pause(due.min(LOOK_INTERVAL)).await;
        }
        self.say_goodbye();
        for (_, ear) in ears {
            ear.cancel().await;
        }
    }

    /// Opens what is new and lets go of what is gone; says whether there is anything new.
    async fn follow(
        &self,
        seen: io::Result<Vec<Interface>>,
        ears: &mut Vec<(Arc<Channel>, JoinHandle<()>)>,
    ) -> bool {
        let mut trouble = None;
        let mut seen = seen.unwrap_or_else(|error| {
            trouble = Some(format!("the network cards are not known: {error}"));
            Vec::new()
        });
        let own = self.local_address().ip();
        if !own.is_unspecified() {
            seen.retain(|interface| interface.addresses.contains(&own));
        }
        let wanted: Vec<_> = seen
            .iter()
            .flat_map(|it| it.ways().into_iter().map(|via| (it.index, it.name.clone(), via)))
            .collect();
        let mut kept = Vec::new();
        for (channel, ear) in ears.drain(..) {
            if wanted.iter().any(|(index, _, via)| (channel.index, channel.via) == (*index, *via)) {
                kept.push((channel, ear));
            } else {
                log::debug!("{} is gone ({:?})", channel.name, channel.via);
                ear.cancel().await;
            }
        }
        *ears = kept;
        let before = ears.len();
        for (index, name, via) in wanted {
            if ears.iter().any(|(it, _)| (it.index, it.via) == (index, via)) {
                continue;
            }
            let opened = sockets::open(index, via).and_then(Async::new);
            match opened {
                Ok(socket) => {
                    log::debug!("looking for peers on {name} ({via:?})");
                    let said = Mutex::new(None);
                    let channel = Arc::new(Channel { index, name, via, socket, said });
                    let ear = self.unguarded().listen_on(Arc::clone(&channel));
                    ears.push((channel, async_std::task::spawn(ear)));
                }
                Err(error) => {
                    trouble = Some(format!("{name}: {error}"));
                }
            }
        }
        let new = ears.len() > before;
        if seen.is_empty() && trouble.is_none() {
            trouble = Some("no network card is up".to_owned());
        }
        self.note(ears, seen, trouble) || new
    }

    /// Keeps what was found out; says whether the addresses are others now.
    fn note(
        &self,
        ears: &[(Arc<Channel>, JoinHandle<()>)],
        seen: Vec<Interface>,
        trouble: Option<String>,
    ) -> bool {
        let mut state = self.inner.discovery.0.lock();
        if state.left {
            return false;
        }
        state.channels = ears.iter().map(|(channel, _)| Arc::clone(channel)).collect();
        let renumbered = state.interfaces != seen;
        state.interfaces = seen;
        let failing = ears.is_empty();
        let new = failing && state.state != DiscoveryState::Failing;
        state.state = if failing { DiscoveryState::Failing } else { DiscoveryState::On };
        state.trouble = trouble.filter(|_| failing);
        let why = state.trouble.clone().unwrap_or_default();
        drop(state);
        if new {
            log::warn!(
                "cannot look for peers on the LAN: {why}; `quorumor doctor` says what to do, and \
                 --peer ADDR works without it"
            );
        }
        renumbered
    }

    async fn listen_on(self, channel: Arc<Channel>) {
        let tag = self.inner.discovery.0.lock().tag;
        let mut meter = Meter::new(self.now());
        let mut buffer = [0; PACKET_BYTES_MAX];
        loop {
            match channel.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => match message::read(buffer.get(..length).unwrap_or_default())
                {
                    Some(Heard::Question) if channel.may_answer(self.now()) => {
                        pause(Duration::from_millis(fastrand::u64(ANSWER_DELAY_MS))).await;
                        self.announce(&channel);
                    }
                    Some(Heard::Nodes(nodes)) => {
                        let (ours, others): (Vec<_>, Vec<_>) =
                            nodes.into_iter().partition(|node| node.tag == tag);
                        self.inner.discovery.0.lock().strangers += others.len() as u64;
                        for node in &ours {
                            self.take_in(node, from, channel.index);
                        }
                    }
                    Some(Heard::Question | Heard::Other) | None => {}
                },
                Err(error) => log::debug!("{}: {error}", channel.name),
            }
            // Also after errors, so that one that lasts does not make a busy loop.
            let rest = meter.count(self.now());
            if !rest.is_zero() {
                pause(rest).await;
            }
        }
    }

    fn take_in(&self, node: &Announcement, from: SocketAddr, index: u32) {
        if node.node == self.node_id() || node.port == 0 {
            return;
        }
        let now = self.now();
        {
            let found = &mut self.inner.discovery.0.lock().found;
            let known = found.contains_key(&node.node);
            if known || found.len() < FOUND_MAX {
                found.insert(node.node, now);
            }
        }
        if self.is_linked(node.node) {
            return;
        }
        let said = node.addresses.iter().filter(|it| is_of_a_lan(**it));
        let sender = from.ip();
        let others = said.copied().filter(|address| *address != sender);
        for address in std::iter::once(sender).chain(others) {
            let fits = match self.local_address().ip() {
                IpAddr::V4(_) => address.is_ipv4(),
                IpAddr::V6(_) => true,
            };
            if fits && !address.is_loopback() {
                self.consider(scoped(address, node.port, index), Source::Heard(sender));
            }
        }
    }

    fn announce(&self, channel: &Channel) {
        if self.inner.discovery.0.lock().left {
            return;
        }
        *channel.said.lock() = Some(self.now());
        channel.say(&self.announcement(channel).to_bytes(false));
    }

    /// Where this node is, seen from one of its cards: that card's addresses come first.
    fn announcement(&self, channel: &Channel) -> Announcement {
        let local = self.local_address();
        let state = self.inner.discovery.0.lock();
        let mut interfaces: Vec<_> = state.interfaces.iter().collect();
        interfaces.sort_by_key(|interface| interface.index != channel.index);
        let all = interfaces.iter().flat_map(|interface| &interface.addresses).copied();
        let fits = |address: &IpAddr| match (local.ip(), address) {
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            // Of these the packet's sender tells, and on which link.
            (_, IpAddr::V6(address)) => !address.is_unicast_link_local(),
            _ => true,
        };
        let addresses = match local.ip().is_unspecified() {
            true => all.filter(fits).take(ADDRESSES_MAX).collect(),
            false => vec![local.ip()],
        };
        Announcement { node: self.node_id(), tag: state.tag, port: local.port(), addresses }
    }
}

impl Channel {
    /// Sends without waiting; what cannot be sent now is said again later.
    fn say(&self, packet: &[u8]) {
        if let Err(error) =
            self.socket.get_ref().send_to(packet, sockets::group(self.index, self.via))
        {
            log::debug!("{} ({:?}): {error}", self.name, self.via);
        }
    }

    fn may_answer(&self, now: Instant) -> bool {
        self.said.lock().is_none_or(|said| now.duration_since(said) >= ANSWER_INTERVAL)
    }
}

/// Whether an address can be one of a LAN, so that nobody can make this node knock at doors on the
/// internet. A LAN with public addresses is served by the sender's own.
fn is_of_a_lan(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0b1100_0000 == 64;
            ip.is_private() || ip.is_link_local() || shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// An address of one link needs to be told which.
fn scoped(address: IpAddr, port: u16, index: u32) -> SocketAddr {
    match address {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, port, 0, index).into()
        }
        _ => SocketAddr::new(address, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Limits, NetConfig, NodeIdentity};

    fn net(secret: &Secret, cluster: &str) -> Net {
        let config = NetConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity: NodeIdentity::fresh().unwrap(),
            secret: secret.clone(),
            cluster: cluster.to_owned(),
            name: "ada".to_owned(),
            version: 1,
            hello: Vec::new(),
            emulation: None,
            limits: Limits::default(),
        };
        async_std::task::block_on(Net::bind(config, Arc::new(|_: &Net, _| {}))).unwrap()
    }

    /// The tag differs between secrets and between the clusters of one secret, and is the same for
    /// all nodes of a cluster.
    #[test]
    fn a_tag_belongs_to_one_cluster() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        assert_eq!(one.discovery_tag("a"), one.clone().discovery_tag("a"));
        assert_ne!(one.discovery_tag("a"), one.discovery_tag("b"));
        assert_ne!(one.discovery_tag("a"), other.discovery_tag("a"));
    }

    /// 100,000 fake nodes heard leave a bounded number of candidates and found nodes, and dial in
    /// moderation; addresses of the internet are not dialled whoever names them.
    #[test]
    fn a_flood_of_fake_nodes_is_bounded() {
        let net = net(&Secret::generate().unwrap(), "quorumor");
        for number in 0..100_000_u32 {
            let addresses = vec![
                IpAddr::V4((0x0a00_0000 + number).into()),
                "8.8.8.8".parse().unwrap(),
                "fd00::1".parse().unwrap(),
            ];
            let node = Announcement {
                node: NodeId(u128::from(number) + 1),
                tag: Tag::default(),
                port: 9,
                addresses,
            };
            net.take_in(&node, (IpAddr::V4((0xc0a8_0000 + number).into()), 5353).into(), 1);
        }
        let status = net.discovery();
        assert_eq!(status.found, FOUND_MAX);
        assert!(status.candidates <= 256, "{status:?}");
        let public = "8.8.8.8:9".parse().unwrap();
        assert!(!net.inner.candidates.lock().knows(public));
        async_std::task::block_on(net.close());
    }

    /// Questions come ever more rarely, and at once again when the last peer is lost.
    #[test]
    fn questions_grow_rare() {
        let mut now = Instant::now();
        let began = now;
        let mut questions = Questions::new(now);
        let mut asked = 0;
        while now < began + Duration::from_secs(3600) {
            asked += usize::from(questions.next(now, false).is_some());
            now += Duration::from_secs(1);
        }
        assert!((20..60).contains(&asked), "{asked} in an hour");
        assert_eq!(questions.next(now, true), Some(0));
        assert_eq!(questions.next(now, true), None);
    }

    #[test]
    fn only_so_much_is_read_in_a_second() {
        let began = Instant::now();
        let mut meter = Meter::new(began);
        for _ in 1..PACKETS_PER_SECOND {
            assert_eq!(meter.count(began), Duration::ZERO);
        }
        assert_eq!(meter.count(began), Duration::from_secs(1));
        assert_eq!(meter.count(began + Duration::from_secs(1)), Duration::ZERO);
    }
}
