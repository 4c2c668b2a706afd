//! A node: a shard, its links and its timer.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use async_io::Timer;
use bytes::Bytes;
use event_listener::Event as Signal;
use futures_lite::future;
use parking_lot::Mutex;

use super::aside::Aside;
use super::ask::Asked;
use super::config::NodeConfig;
use super::detect::Detector;
use super::durable::{self, Durable, Risen};
use super::entered::Entered;
use super::members::Leaving;
use super::operate::wall;
use super::progress::FillWords;
use super::publish::Listeners;
use super::status::{Damaged, MessageCount, Sent};
use super::twin::Twin;
use crate::net::{
    IdentityError, Lane as Link, Limits, Net, NetConfig, NetError, NetEvent, NodeIdentity, Secret,
    Sent as Queued, URGENT_EXCHANGE,
};
use crate::protocol::boundary::{Input, Lane, Output, Send};
use crate::protocol::codec;
use crate::protocol::config::Config;
use crate::protocol::id::{NodeId, Origin};
use crate::protocol::message::{Envelope, MEMBERS_MAX, Member, Message, WIRE_VERSION};
use crate::protocol::operation::Mode;
use crate::protocol::shard::Shard;
use crate::protocol::store::Reader;
use crate::protocol::time::Time;
use crate::storage::{Position, Stopped, StorageError};

/// How often the measured round trips are told to the shard.
const ROUND_TRIP_INTERVAL: Duration = Duration::from_secs(5);

/// How long a peer that misbehaved is kept out.
pub(super) const QUARANTINE: Duration = Duration::from_secs(60);

/// No deadline: later than any clock of ours shows.
const NEVER: u64 = u64::MAX;

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Other machines could reach the node, and nothing tells friend from foe.
    #[error(
        "{listen} can be reached by other machines, but there is no cluster secret: make one with \
         `quorumor keygen FILE`, copy the file to every machine and pass --secret-file FILE, or \
         listen on 127.0.0.1"
    )]
    NeedsSecret {
        /// The address.
        listen: SocketAddr,
    },
    /// The links cannot be set up.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The journal stopped before the start was recorded.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The key in the data directory is none.
    #[error(
        "the identity in {path} is damaged: bring the directory back from a backup, or move it away \
         and start with an empty one, which is filled by the peers"
    )]
    Identity {
        /// The directory.
        path: PathBuf,
    },
    /// The key of the node cannot be used.
    #[error(transparent)]
    Key(#[from] IdentityError),
    /// The system gave no random numbers.
    #[error("the system gave no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A running member of a cluster; clones are handles to the same one.
///
/// It stops when it is closed or the last handle is dropped.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: NodeConfig,
    pub(super) id: NodeId,
    /// The instant that the shard's clock counts from.
    pub(super) epoch: Instant,
    pub(super) shard: Mutex<Slot>,
    reader: Reader,
    pub(super) detector: Detector,
    pub(super) net: OnceLock<Net>,
    /// When the shard wants to be woken, in nanoseconds of its clock.
    wake_at: AtomicU64,
    /// Told when `wake_at` comes nearer.
    wake_sooner: Signal,
    /// Told when a peer has said something, which may have brought writes.
    pub(super) heard: Signal,
    closed: AtomicBool,
    /// Whether this node fills itself anew, and shows only what has come so far.
    pub(super) filling: AtomicBool,
    /// How requests are answered now.
    pub(super) posture: AtomicU8,
    /// What became of the wish to leave the cluster.
    pub(super) leaving: Leaving,
    /// Whether another node has our identity and stays in place of this one.
    pub(super) twin: Twin,
    pub(super) asked: Asked,
    pub(super) listeners: Listeners,
    pub(super) durable: Option<Durable>,
    pub(super) sent: Sent,
    damaged: Damaged,
    pub(super) fill_words: FillWords,
    pub(super) aside: Aside,
    /// The node itself, for work that goes on elsewhere.
    pub(super) this: OnceLock<Weak<Inner>>,
}

/// The shard and the output that its inputs share.
pub(super) struct Slot {
    pub(super) shard: Shard,
    pub(super) output: Output,
}

impl Node {
    /// Starts a node: binds its address and begins to look for its peers.
    ///
    /// # Errors
    /// When the address cannot be used, or other machines could reach it and there is no secret.
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        Self::start_at(config, Instant::now()).await
    }

    /// Like [`Node::start`], with a clock that counts from `epoch`, so that the events of several
    /// nodes of one process can be compared.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_at(config: NodeConfig, epoch: Instant) -> Result<Self, StartError> {
        if config.secret.is_none() && !config.listen.ip().is_loopback() {
            return Err(StartError::NeedsSecret { listen: config.listen });
        }
        let (config, shard, durable) = match config.storage.clone() {
            None => {
                let shard = Shard::new(shard_config(&config, &config.identity)?);
                (config, shard, None)
            }
            Some(storage) => {
                let risen = async_std::task::spawn_blocking(move || {
                    let dice = random()? as u32;
                    let shard_config = |identity: &NodeIdentity| shard_config(&config, identity);
                    let risen = durable::rise(&storage, &config.identity, shard_config, dice)?;
                    Ok::<_, StartError>((config, risen))
                });
                let (mut config, Risen { durable, identity, shard }) = risen.await?;
                config.identity = identity;
                (config, shard, Some(durable))
            }
        };
        let id = config.identity.node_id();
        let (filling, posture) = (shard.is_filling(), shard.posture());
        let inner = Arc::new(Inner {
            id,
            epoch,
            reader: shard.reader(),
            detector: Detector::new(id, since(epoch)).map_err(StartError::Random)?,
            shard: Mutex::new(Slot { shard, output: Output::default() }),
            net: OnceLock::new(),
            wake_at: AtomicU64::new(NEVER),
            wake_sooner: Signal::new(),
            heard: Signal::new(),
            closed: AtomicBool::new(false),
            filling: AtomicBool::new(filling),
            posture: AtomicU8::new(posture as u8),
            leaving: Leaving::default(),
            twin: Twin::default(),
            asked: Asked::default(),
            listeners: Listeners::default(),
            durable,
            sent: Sent::default(),
            damaged: Damaged::default(),
            fill_words: FillWords::default(),
            aside: Aside::default(),
            this: OnceLock::new(),
            config,
        });
        inner.this.set(Arc::downgrade(&inner)).expect("set once");
        if let Some(durable) = &inner.durable {
            durable.attach(Arc::downgrade(&inner));
            // The node is dropped when its last handle is, whatever this task waits for.
            let journal = durable.journal().unguarded();
            async_std::task::spawn(durable::keep_answering(Arc::downgrade(&inner)));
            async_std::task::spawn(durable::keep_state(Arc::downgrade(&inner), journal));
            async_std::task::spawn(durable::keep_compact(Arc::downgrade(&inner)));
        }
        let weak = Arc::downgrade(&inner);
        let handler = move |net: &Net, event: NetEvent| {
            if let Some(inner) = weak.upgrade() {
                inner.link_event(net, event);
            }
        };
        let net = Net::bind(net_config(&inner.config), Arc::new(handler)).await?;
        for peer in &inner.config.peers {
            net.dial(*peer);
        }
        if let Some(secret) = inner.config.secret.as_ref().filter(|_| inner.config.discovery) {
            net.discover(secret);
        }
        // Set once, here; what was to be sent before this line is made good by rounds.
        let _ = inner.net.set(net);
        // So that the shard says when it wants to be woken.
        inner.handle(Input::Wake(wall()));
        async_std::task::spawn(keep_time(Arc::downgrade(&inner)));
        async_std::task::spawn(keep_round_trips(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// What it was told.
    pub fn config(&self) -> &NodeConfig {
        &self.0.config
    }

    /// Where peers reach it.
    pub fn address(&self) -> SocketAddr {
        self.net().local_address()
    }

    /// The time on its clock.
    pub fn now(&self) -> Time {
        self.0.now()
    }

    /// Looks for a member at `address`, for as long as the node runs.
    pub fn dial(&self, address: SocketAddr) {
        self.net().dial(address);
    }

    /// Answers reads without entering the shard.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// Whether it fills itself anew from its peers: reads show only what has come so far.
    pub fn is_filling(&self) -> bool {
        self.0.filling.load(Ordering::Acquire)
    }

    /// Enters the shard for a batch of requests.
    pub fn enter(&self) -> Entered<'_> {
        let slot = self.0.shard.lock();
        Entered::new(&self.0, slot, self.0.now())
    }

    /// How many messages and bytes it has sent, by kind.
    pub fn sent(&self) -> Vec<MessageCount> {
        self.0.sent.counts()
    }

    /// Leaves: tells the peers and stops. Other handles can still read.
    pub async fn close(&self) {
        if self.0.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.0.wake_sooner.notify(usize::MAX);
        self.net().close().await;
        let inner = Arc::clone(&self.0);
        async_std::task::spawn_blocking(move || inner.end()).await;
    }

    /// Whether it has been closed. It can still be read then, but says nothing to anybody.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) fn net(&self) -> &Net {
        self.0.net.get().expect("set before the node is handed out")
    }
}

impl Inner {
    pub(super) fn now(&self) -> Time {
        since(self.epoch)
    }

    /// Takes one input into the shard and carries out what comes of it.
    fn handle(&self, input: Input<'_>) {
        let now = self.now();
        let mut slot = self.shard.lock();
        let Slot { shard, output } = &mut *slot;
        shard.handle(now, input, output);
        self.carry_out(&mut slot, now);
    }

    /// Tells the shard the latest round trip to a peer, unless its link has gone down meanwhile.
    fn retime(&self, peer: NodeId, round_trip: Duration) {
        let now = self.now();
        let mut slot = self.shard.lock();
        let Slot { shard, output } = &mut *slot;
        if shard.peers().any(|live| live == peer) {
            shard.handle(now, Input::PeerUp(peer, round_trip), output);
            self.carry_out(&mut slot, now);
        }
    }

    /// Carries out what a shard has put into its output, in the order of its fields, and empties it.
    ///
    /// Answers the place in the journal that answers to clients wait for, if they do.
    pub(super) fn carry_out(&self, slot: &mut Slot, now: Time) -> Option<Position> {
        let Slot { shard, output } = slot;
        shard.finish(now, output);
        // Before anything is said to anybody: who has answered a fence answers nothing past the log.
        self.posture.store(shard.posture() as u8, Ordering::Release);
        let durable = self.durable.as_ref();
        let waits = durable.and_then(|durable| durable.append(&mut output.append));
        output.send.drain(..).for_each(|send| self.send_aside(send));
        self.answer(waits, &mut output.reply);
        self.tell_all(now, output.events.drain(..));
        let wake_at = output.wake.take().map_or(NEVER, Time::as_nanos);
        if self.wake_at.swap(wake_at, Ordering::AcqRel) > wake_at {
            self.wake_sooner.notify(usize::MAX);
        }
        waits
    }

    pub(super) fn send_one(&self, send: Send) {
        let link = match send.lane {
            Lane::Push => Link::Push,
            Lane::Vote => Link::Exchange { id: URGENT_EXCHANGE, last: false },
            Lane::Exchange { round, last } => Link::Exchange { id: round.0, last },
        };
        self.send(&send.to, link, &send.envelope);
    }

    /// What the shard wanted to be told of is durable.
    pub(super) fn made_durable(&self, token: u64) {
        self.handle(Input::Durable(token));
    }

    /// Whether clients' writes are taken.
    pub(super) fn takes_writes(&self) -> bool {
        let is_open = self.durable.as_ref().is_none_or(Durable::is_open);
        let stays = !self.leaving.has_begun() && self.twin.met().is_none();
        is_open && stays && !self.is_closed()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Records that this node ends in order, and closes its journal. Blocks.
    fn end(&self) {
        let Some(durable) = &self.durable else { return };
        {
            let mut slot = self.shard.lock();
            let Slot { shard, output } = &mut *slot;
            shard.end(output);
            self.carry_out(&mut slot, self.now());
        }
        durable.journal().close();
    }

    pub(super) fn send(&self, to: &[NodeId], link: Link, envelope: &Envelope) {
        let Some(net) = self.net.get() else { return };
        let frame = Bytes::from(codec::encode(envelope));
        let kind = envelope.message.kind();
        for peer in to {
            match net.send(*peer, link, frame.clone()) {
                Queued::Queued => self.sent.count(kind, frame.len()),
                // A push that finds no room is made good by a round.
                Queued::QueueFull => self.sent.count_dropped(),
                Queued::NotConnected => {}
            }
        }
    }

    fn link_event(&self, net: &Net, event: NetEvent) {
        match event {
            // The links have told their story themselves.
            NetEvent::Refused { .. } => {}
            NetEvent::GivesWay { why } => self.twin.meet(why),
            NetEvent::Up { peer, name, address, round_trip, .. } => {
                self.handle(Input::PeerUp(peer, round_trip));
                self.reset_timer(self.detector.linked(net, self.now(), peer, &name));
                self.introduce(net, peer, address);
            }
            NetEvent::Down { peer, .. } => {
                self.handle(Input::PeerDown(peer));
                self.reset_timer(self.detector.unlinked(net, self.now(), peer));
            }
            NetEvent::Frame { peer, lane: Link::Datagram, bytes } => {
                self.reset_timer(self.detector.datagram(net, self.now(), peer, &bytes));
            }
            NetEvent::Frame { peer, lane, bytes } => self.hear_aside(net, peer, lane, bytes),
        }
    }

    /// Takes in what a peer says.
    pub(super) fn hear(&self, net: &Net, peer: NodeId, bytes: &[u8]) {
        match codec::decode(bytes) {
            Ok(Envelope { message: Message::Members { members }, .. }) => self.meet(net, &members),
            Ok(Envelope { message: Message::Publish { messages }, .. }) => {
                self.heard_published(&messages);
            }
            // What brings writes waits for the disk; rounds make good for it.
            Ok(envelope) if envelope.message.brings_writes() && self.is_crowded() => {
                self.sent.count_dropped();
            }
            Ok(envelope) => {
                self.handle(Input::Message(peer, envelope));
                self.heard.notify(usize::MAX);
            }
            Err(error) => {
                if let Some(count) = self.damaged.count(self.now()) {
                    log::warn!("dropped a frame of {peer:?}, {count} so far in all: {error}");
                }
            }
        }
    }

    /// Tells a new peer where the others are, and the others where it is.
    fn introduce(&self, net: &Net, new: NodeId, address: SocketAddr) {
        let others = net.peers().into_iter().filter(|peer| peer.id != new).take(MEMBERS_MAX);
        let others: Vec<_> =
            others.map(|peer| Member { node: peer.id, address: peer.address }).collect();
        if others.is_empty() {
            return;
        }
        let ids: Vec<_> = others.iter().map(|member| member.node).collect();
        let members = |members| {
            let shard = self.shard.lock();
            shard.shard.wrap(Message::Members { members })
        };
        self.send(&ids, Link::Push, &members(vec![Member { node: new, address }]));
        self.send(&[new], Link::Push, &members(others));
    }

    /// Looks for members that a peer told of.
    fn meet(&self, net: &Net, members: &[Member]) {
        let linked: Vec<_> = net.peers().into_iter().map(|peer| peer.id).chain([self.id]).collect();
        let unknown = members.iter().filter(|member| !linked.contains(&member.node));
        for member in unknown.take(MEMBERS_MAX) {
            net.hint(member.address);
        }
    }

    /// Lets the timer look again, if somebody wants to be woken sooner.
    fn reset_timer(&self, sooner: bool) {
        if sooner {
            self.wake_sooner.notify(usize::MAX);
        }
    }

    fn is_crowded(&self) -> bool {
        self.durable.as_ref().is_some_and(Durable::is_crowded)
    }

    pub(super) fn frames_damaged(&self) -> u64 {
        self.damaged.frames()
    }
}

fn random() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(StartError::Random)?;
    Ok(u64::from_le_bytes(bytes))
}

fn shard_config(config: &NodeConfig, identity: &NodeIdentity) -> Result<Config, StartError> {
    let id = identity.node_id();
    // Where nothing outlives the process, each start is an incarnation that never was before.
    // Far below the greatest number that is believed.
    let incarnation = random()? >> 16;
    let origin = Origin::of(id, incarnation);
    let seed = match config.seed {
        Some(seed) => seed ^ (id.0 as u64),
        None => random()?,
    };
    let mut shard = Config::new(id, origin, seed);
    shard.incarnation = incarnation;
    shard.name.clone_from(&config.name);
    shard.strategy = config.strategy;
    shard.eager = config.eager;
    shard.interval = config.interval;
    shard.fanout = config.fanout;
    shard.relay_window = config.relay_window;
    shard.trace = config.trace;
    shard.starts_strong = config.consistency == Mode::Strong;
    shard.voters = config.voters;
    shard.incarnation = incarnation;
    shard.value_bytes_max = config.value_bytes_max;
    shard.memory_bytes_max = config.memory_bytes_max;
    shard.hash_seed = random()?;
    Ok(shard)
}

fn net_config(config: &NodeConfig) -> NetConfig {
    NetConfig {
        listen: config.listen,
        identity: config.identity.clone(),
        secret: config.secret.clone().unwrap_or_else(Secret::public),
        cluster: config.cluster.clone(),
        name: config.name.clone(),
        version: WIRE_VERSION,
        hello: Vec::new(),
        emulation: config.emulation.clone(),
        limits: Limits::default(),
    }
}

/// The time on a clock that showed zero at `epoch`.
fn since(epoch: Instant) -> Time {
    Time::from_nanos(u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(NEVER))
}

/// Wakes the shard and the failure detector when they want to be woken.
async fn keep_time(node: Weak<Inner>) {
    loop {
        let Some(inner) = node.upgrade().filter(|inner| !inner.closed.load(Ordering::Acquire))
        else {
            return;
        };
        let sooner = inner.wake_sooner.listen();
        let shard_at = inner.wake_at.load(Ordering::Acquire);
        let wake_at = shard_at.min(inner.detector.wake_at());
        if wake_at <= inner.now().as_nanos() {
            if wake_at == shard_at {
                inner.handle(Input::Wake(wall()));
            } else if let Some(net) = inner.net.get() {
                inner.detector.wake(net, inner.now(), inner.epoch);
            }
            continue;
        }
        let deadline = inner.epoch.checked_add(Duration::from_nanos(wake_at));
        drop(inner);
        let woken = async {
            match deadline {
                Some(deadline) if wake_at != NEVER => drop(Timer::at(deadline).await),
                _ => future::pending().await,
            }
        };
        future::or(woken, sooner).await;
    }
}

/// Tells the shard how long the links take, which sets how long a hub gathers.
async fn keep_round_trips(node: Weak<Inner>) {
    loop {
        Timer::after(ROUND_TRIP_INTERVAL).await;
        let Some(inner) = node.upgrade().filter(|inner| !inner.closed.load(Ordering::Acquire))
        else {
            return;
        };
        let peers = inner.net.get().map(Net::peers).unwrap_or_default();
        for peer in peers {
            inner.retime(peer.id, peer.round_trip);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The timer may be waiting for a shard that wants nothing.
        self.wake_sooner.notify(usize::MAX);
        if let Some(durable) = &self.durable {
            durable.let_go();
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.0.config.name).field("id", &self.0.id).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::protocol::boundary::{Reply, Request};
    use crate::protocol::config::Durability;
    use crate::server::config::NodeConfig;
    use crate::server::durable::StorageConfig;

    /// An answer that is given to whoever comes along, as those to requests that a switch has held, does
    /// not leave before what it tells of is durable.
    #[test]
    fn an_answer_that_comes_later_waits_for_the_disk() {
        async_std::task::block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let mut config = NodeConfig::new("test", NodeIdentity::fresh().unwrap());
            let durability = Durability::Always;
            config.storage =
                Some(StorageConfig { durability, ..StorageConfig::new(folder.path()) });
            let node = Node::start(config).await.unwrap();
            let (sender, receiver) = mpsc::channel();
            let weak = Arc::downgrade(&node.0);
            let answers = node.answers(move |token, reply| {
                let durable =
                    weak.upgrade().and_then(|it| Some(it.durable.as_ref()?.journal().durable()));
                let _ = sender.send((token, reply, durable));
            });
            for _ in 0..100 {
                let token = answers.token();
                let request = Request::Set { key: b"key", value: b"value" };
                let before = node.0.durable.as_ref().unwrap().journal().appended();
                node.0.handle(Input::Request(token, request));
                let (answered, reply, durable) = receiver.recv().unwrap();
                assert!(answered == token && matches!(reply, Reply::Written { .. }));
                assert!(durable > Some(before), "answered before it was durable");
            }
            node.close().await;
        });
    }
}
