//! What a node says about itself: one value, shown by every door.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use super::detect::Liveness;
use super::durable::Durable;
use super::mode::StrongStatus;
use super::node::Node;
use super::progress::FillStatus;
use crate::net::discovery::DiscoveryStatus;
use crate::protocol::boundary::Counters;
use crate::protocol::config::Durability;
use crate::protocol::membership::{MembershipCounters, PeerState};
use crate::protocol::shard::Shard;
use crate::protocol::stability::Reason;
use crate::protocol::time::Time;

/// The kinds of messages that are counted; see [`crate::protocol::message::Message::kind`].
const KINDS: [&str; 12] = [
    "push", "open", "digest", "delta", "credit", "ask", "answer", "members", "greet", "report",
    "publish", "strong",
];

/// How many messages and bytes of one kind were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct MessageCount {
    /// The kind.
    pub kind: &'static str,
    /// How many; one for each peer that it went to.
    pub messages: u64,
    /// Their bytes, before encryption and framing.
    pub bytes: u64,
}

/// Counts what is sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    kinds: [(AtomicU64, AtomicU64); KINDS.len()],
    dropped: AtomicU64,
}

impl Sent {
    pub(super) fn count(&self, kind: &str, bytes: usize) {
        if let Some(at) = KINDS.iter().position(|known| *known == kind) {
            self.kinds[at].0.fetch_add(1, Ordering::Relaxed);
            self.kinds[at].1.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Vec<MessageCount> {
        let counts = KINDS.iter().zip(&self.kinds).map(|(kind, (messages, bytes))| MessageCount {
            kind,
            messages: messages.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        });
        counts.collect()
    }
}

/// How often at the most it is said that frames were dropped: a peer that sends nothing but rubbish
/// must not fill the disk with our words.
const FRAME_WORDS_INTERVAL: Duration = Duration::from_secs(10);

/// Counts frames that could not be decoded.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    frames: AtomicU64,
    /// When it may be said again that there was one, in nanoseconds of the node's clock.
    words_at: AtomicU64,
}

impl Damaged {
    /// Counts one; how many there were, if it is time again to say so.
    pub(super) fn count(&self, now: Time) -> Option<u64> {
        let count = self.frames.fetch_add(1, Ordering::Relaxed) + 1;
        let next = self.words_at.load(Ordering::Relaxed);
        let after = (now + FRAME_WORDS_INTERVAL).as_nanos();
        let order = Ordering::Relaxed;
        let is_time = now.as_nanos() >= next
            && self.words_at.compare_exchange(next, after, order, order).is_ok();
        is_time.then_some(count)
    }

    pub(super) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// How a node tells friend from foe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Peers prove that they know the cluster's secret.
    Secret,
    /// There is no secret; only this machine can reach the node.
    LoopbackOnly,
}

/// A peer with which a link is up.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PeerStatus {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The measured round trip, in milliseconds.
    pub round_trip_ms: f64,
    /// Whether it answers.
    pub state: PeerState,
    /// Since when, in seconds before now.
    pub state_seconds: f64,
    /// How long the link has been up, in seconds.
    pub up_seconds: f64,
    /// UDP bytes sent to it.
    pub sent_bytes: u64,
    /// UDP bytes received from it.
    pub received_bytes: u64,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: u64,
}

/// Where and how a node keeps what it holds. Counters count from its start.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StorageStatus {
    /// The data directory.
    pub directory: String,
    /// When writes become durable.
    pub durability: Durability,
    /// How long between two syncs, unless every write waits for one.
    #[serde(serialize_with = "in_seconds", rename = "sync_interval_seconds")]
    pub sync_interval: Duration,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Syncs.
    pub syncs: u64,
    /// How long the last sync took, in milliseconds.
    pub sync_last_ms: f64,
    /// How long the longest sync took, in milliseconds.
    pub sync_longest_ms: f64,
    /// Bytes that wait to be written.
    pub pending_bytes: usize,
    /// Records that found no room, or a failed disk.
    pub records_discarded: u64,
    /// Cells read at the start.
    pub recovered_cells: usize,
    /// How long that took, in seconds.
    pub recovered_seconds: f64,
}

impl StorageStatus {
    fn of(durable: &Durable) -> Self {
        let journal = durable.journal();
        let counts = journal.counts();
        let recovered = durable.recovered();
        Self {
            directory: journal.directory().path().display().to_string(),
            durability: durable.durability(),
            sync_interval: durable.sync_interval(),
            disk_bytes: journal.disk_bytes(),
            syncs: counts.syncs,
            sync_last_ms: counts.sync_last.as_secs_f64() * 1e3,
            sync_longest_ms: counts.sync_longest.as_secs_f64() * 1e3,
            pending_bytes: journal.pending_bytes(),
            records_discarded: counts.records_discarded,
            recovered_cells: recovered.cells,
            recovered_seconds: recovered.took.as_secs_f64(),
        }
    }
}

fn in_seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// How the collection of tombstones gets on.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Collection {
    /// How many tombstones wait.
    pub tombstones: usize,
    /// Whom they wait for.
    pub blocked_by: Vec<Blocker>,
}

/// A member that tombstones wait for.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Blocker {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// `down`, or `behind`: it has not yet reported what is here.
    pub reason: &'static str,
    /// For how long it has been away, in seconds.
    pub since_seconds: Option<f64>,
}

impl Collection {
    fn of(shard: &Shard, now: Time) -> Self {
        let status = shard.collection();
        let name = |node| {
            let member = shard.members().find(|(member, _)| *member == node);
            member.map(|(_, member)| member.name.clone()).unwrap_or_default()
        };
        let blockers = status.blocked_by.into_iter().map(|(node, since, reason)| Blocker {
            node: node.to_string(),
            name: name(node),
            reason: match reason {
                Reason::Down => "down",
                Reason::Behind => "behind",
            },
            since_seconds: since.map(|since| now.since(since).as_secs_f64()),
        });
        Self { tombstones: status.tombstones, blocked_by: blockers.collect() }
    }
}

/// What a node says about itself. Counters count from its start.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: &'static str,
    /// The node's id.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// This incarnation as a writer.
    pub origin: String,
    /// Where peers reach it.
    pub listen: String,
    /// How it tells friend from foe.
    pub security: Security,
    /// The consistency mode.
    pub consistency: String,
    /// The direction of rounds.
    pub strategy: String,
    /// Whether writes are pushed at once.
    pub eager: bool,
    /// The time between two rounds, in milliseconds.
    pub interval_ms: f64,
    /// The most peers that get a push straight from here.
    pub fanout: usize,
    /// How long it has been running, in seconds.
    pub uptime_seconds: f64,
    /// Where and how it keeps what it holds; nothing if in memory only.
    pub storage: Option<StorageStatus>,
    /// Why clients' writes are refused now.
    pub writes_refused: Option<String>,
    /// About how much memory the cells take.
    pub memory_bytes: usize,
    /// How much they may take before clients' writes are refused.
    pub memory_bytes_max: Option<usize>,
    /// Whether this node fills itself anew from its peers, and shows only what has come so far.
    pub filling: bool,
    /// How far it has come if another node is sending it much that it lacks, be it all or what it
    /// missed.
    pub fill: Option<FillStatus>,
    /// How the replicated log and the mode stand.
    pub strong: StrongStatus,
    /// How the collection of tombstones gets on.
    pub collection: Collection,
    /// Keys that show something.
    pub keys: usize,
    /// How many of them have a deadline.
    pub keys_with_deadline: usize,
    /// Cells, tombstones included.
    pub cells: usize,
    /// Bytes of the keys and values of all cells.
    pub cell_bytes: usize,
    /// The greatest Lamport counter seen.
    pub lamport: u64,
    /// Origins of which writes are held.
    pub origins: usize,
    /// The hash of what is held.
    pub digest: String,
    /// The hash of all live cells.
    pub fingerprint: String,
    /// What the shard counted.
    #[serde(flatten)]
    pub counters: Counters,
    /// Messages sent, by kind.
    pub sent: Vec<MessageCount>,
    /// Messages that found a full queue; rounds make good for them.
    pub sends_dropped: u64,
    /// Frames of peers that were damaged or not understood.
    pub frames_damaged: u64,
    /// Handshakes and peers refused.
    pub refused: u64,
    /// Looking for members on the LAN.
    pub discovery: DiscoveryStatus,
    /// The peers with which a link is up.
    pub peers: Vec<PeerStatus>,
    /// Whether each peer that was linked since the start answers, linked now or not.
    pub liveness: Vec<Liveness>,
    /// What the failure detector counted.
    pub detector: MembershipCounters,
}

impl Node {
    /// What the node says about itself now.
    pub fn status(&self) -> Status {
        let config = self.config();
        let (net, wall) = (self.net(), self.wall());
        let entered = self.enter();
        let shard = entered.shard();
        let (digest, fingerprint) = shard.summary();
        let status = Status {
            version: env!("CARGO_PKG_VERSION"),
            node: self.id().to_string(),
            name: config.name.clone(),
            cluster: config.cluster.clone(),
            origin: shard.config().origin.to_string(),
            listen: self.address().to_string(),
            security: self.security(),
            consistency: shard.mode().to_string(),
            strong: StrongStatus::of(shard),
            strategy: config.strategy.to_string(),
            eager: config.eager,
            interval_ms: config.interval.as_secs_f64() * 1e3,
            fanout: config.fanout,
            uptime_seconds: self.inner().epoch.elapsed().as_secs_f64(),
            storage: None,
            writes_refused: None,
            memory_bytes: shard.store().memory_bytes(),
            memory_bytes_max: shard.config().memory_bytes_max,
            filling: shard.is_filling(),
            fill: shard.progress().map(|progress| FillStatus::of(&progress, self.now())),
            collection: Collection::of(shard, self.now()),
            keys: shard.store().keys_shown(wall),
            keys_with_deadline: shard.store().keys_ending(wall),
            cells: shard.store().cells(),
            cell_bytes: shard.store().bytes(),
            lamport: shard.lamport().0,
            origins: shard.vector().len(),
            digest: digest.to_string(),
            fingerprint: fingerprint.to_string(),
            counters: *shard.counters(),
            sent: self.sent(),
            sends_dropped: self.inner().sent.dropped(),
            frames_damaged: self.inner().frames_damaged(),
            refused: 0,
            discovery: net.discovery(),
            peers: Vec::new(),
            liveness: Vec::new(),
            detector: self.inner().detector.counters(),
        };
        drop(entered);
        let liveness = self.inner().detector.liveness(self.now());
        let state_of = |peer| {
            let known = liveness.iter().find(|(node, _)| *node == peer);
            known.map_or((PeerState::Up, 0.0), |(_, it)| (it.state, it.state_seconds))
        };
        let storage = self.inner().durable.as_ref().map(StorageStatus::of);
        let writes_refused = self.refuses_writes();
        let status = Status { storage, writes_refused, ..status };
        let peers = net.peers().into_iter().map(|peer| PeerStatus {
            node: peer.id.to_string(),
            name: peer.name,
            address: peer.address.to_string(),
            round_trip_ms: peer.round_trip.as_secs_f64() * 1e3,
            state: state_of(peer.id).0,
            state_seconds: state_of(peer.id).1,
            up_seconds: peer.since.elapsed().as_secs_f64(),
            sent_bytes: peer.sent.bytes,
            received_bytes: peer.received.bytes,
            queued_bytes: (peer.push_queue_bytes + peer.exchange_queue_bytes) as u64,
        });
        let peers = peers.collect();
        let liveness = liveness.into_iter().map(|(_, liveness)| liveness).collect();
        Status { peers, liveness, refused: net.stats().refused.values().sum(), ..status }
    }

    /// How the node tells friend from foe.
    pub fn security(&self) -> Security {
        match self.config().secret {
            Some(_) => Security::Secret,
            None => Security::LoopbackOnly,
        }
    }
}
