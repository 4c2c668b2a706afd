//! One run on real nodes: a whole cluster in this process, over real QUIC links on the loopback
//! interface, shaped by a profile.
//!
//! All nodes share one clock, so instants at different nodes can be compared. They also share the
//! machine's cores and one executor thread: what is measured at small scale is the protocol and the
//! stack under it, and at large scale also the wait for a turn. The report shows how late the writes
//! were issued, which tells when the machine was the limit.
//!
//! A run begins when every node is linked with every other; the profile's timetable of partitions
//! starts over at that moment. It ends when all nodes hold the same after the last write, or at the
//! deadline.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_io::Timer;
use parking_lot::Mutex;

use super::config::{CompareConfig, Configuration, Consistency};
use super::record::{NodeEnd, Recorder};
use super::result::{Costs, RunResult};
use super::workload::{PlannedWrite, Workload, key_name, key_number};
use crate::net::{Emulation, IdentityError, NodeIdentity, Secret};
use crate::protocol::boundary::Reply;
use crate::protocol::config::{FANOUT_DEFAULT, VOTERS_DEFAULT};
use crate::protocol::event::Event;
use crate::protocol::operation::{Expiry, Mode, Operation, Text, When, Word};
use crate::protocol::stamp::Stamp;
use crate::protocol::time::Time;
use crate::server::{Node, NodeConfig, Observer, StartError};

/// How long the nodes may take to link up; with a hundred of them on slow links, some seconds.
const LINKING_TIME_MAX: Duration = Duration::from_secs(60);

/// How often the cluster is looked at while something is awaited.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No keys could be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Strong mode did not begin.
    #[error("after {LINKING_TIME_MAX:?} strong mode had not begun at all nodes")]
    NotOpened,
    /// The nodes did not find each other.
    #[error("after {LINKING_TIME_MAX:?} only {linked} of {wanted} links were up")]
    NotLinked {
        /// Links that were up.
        linked: usize,
        /// Links that there should be.
        wanted: usize,
    },
}

/// What is taken down during a run.
struct Notes {
    recorder: Recorder,
    /// The stamps of writes that lost to a concurrent one.
    losers: Mutex<BTreeSet<Stamp>>,
    /// When the load began.
    start: Mutex<Time>,
}

impl Notes {
    fn elapsed(&self, now: Time) -> Duration {
        now.since(*self.start.lock())
    }

    fn observe(&self, node: usize, now: Time, event: &Event) {
        match event {
            Event::Visible { key, stamp, .. } => {
                if let Some(key) = key_number(key) {
                    self.recorder.seen(node, key, *stamp, self.elapsed(now));
                }
            }
            Event::Conflict(conflict) => drop(self.losers.lock().insert(conflict.loser)),
            _ => {}
        }
    }
}

/// Makes run number `run` of one configuration.
///
/// # Errors
/// When the cluster cannot be set up; nothing was measured then.
pub async fn measure(
    config: &CompareConfig,
    configuration: &Configuration,
    run: usize,
) -> Result<RunResult, MeasureError> {
    let workload = config.workload(configuration.nodes, run);
    let plan = workload.plan();
    let notes = Arc::new(Notes {
        recorder: Recorder::new(configuration.nodes, &plan),
        losers: Mutex::default(),
        start: Mutex::default(),
    });
    let nodes = start(config, configuration, run, &notes).await?;
    let linked = link(&nodes).await;
    let ready = match (linked, configuration.consistency) {
        (Ok(()), Consistency::Strong) => open(&nodes).await,
        (linked, _) => linked,
    };
    if let Err(error) = ready {
        stop(&nodes).await;
        return Err(error);
    }
    let before = sent(&nodes);
    let began = nodes.first().map(Node::now).unwrap_or_default();
    *notes.start.lock() = began;
    let instant = Instant::now();
    // In the profile's numbers, the primary is node 0 as the load begins.
    let mut parts: Vec<usize> = (0..nodes.len()).collect();
    let is_primary = |node: &Node| node.enter().shard().strong_status().primary == Some(node.id());
    parts.swap(0, nodes.iter().position(is_primary).unwrap_or(0));
    place(&nodes, &parts);
    for (node, part) in nodes.iter().zip(&parts) {
        if let Some(emulation) = &node.config().emulation {
            emulation.renumber(*part);
            emulation.begin(instant);
        }
    }
    match configuration.consistency {
        Consistency::Eventual => issue(&nodes, &plan, &workload, instant, &notes).await,
        Consistency::Strong => {
            issue_and_wait(&nodes, &plan, &workload, (instant, config.deadline), &notes).await;
        }
    }
    converge(&nodes, Instant::now() + config.deadline).await;
    let seconds = instant.elapsed().as_secs_f64();
    let after = sent(&nodes);
    let ends: Vec<_> = nodes.iter().map(|node| Some(end(node, config.keys))).collect();
    stop(&nodes).await;

    let costs = Costs {
        messages: after.0 - before.0,
        bytes: after.1 - before.1,
        conflicts: notes.losers.lock().len() as u64,
        seconds,
    };
    let fanout = config.fanout.unwrap_or(FANOUT_DEFAULT);
    let measured = notes.recorder.finish(&ends);
    Ok(RunResult::new(config, configuration, run, fanout, &measured, costs))
}

async fn start(
    config: &CompareConfig,
    configuration: &Configuration,
    run: usize,
    notes: &Arc<Notes>,
) -> Result<Vec<Node>, MeasureError> {
    let secret = Secret::ephemeral()?;
    let epoch = Instant::now();
    let seed = config.run_seed(run);
    let mut nodes: Vec<Node> = Vec::with_capacity(configuration.nodes);
    for number in 0..configuration.nodes {
        let mut node = NodeConfig::new(format!("n{}", number + 1), NodeIdentity::fresh()?);
        node.secret = Some(secret.clone());
        if configuration.consistency == Consistency::Strong {
            node.consistency = Mode::Strong;
            node.voters = configuration.nodes.min(VOTERS_DEFAULT);
        }
        node.strategy = configuration.spreading.strategy;
        node.eager = configuration.spreading.eager;
        node.interval = config.interval;
        node.fanout = config.fanout.unwrap_or(FANOUT_DEFAULT);
        node.seed = Some(seed);
        node.trace = true;
        let profile = (*configuration.profile).clone();
        node.emulation = Some(Emulation::new(profile, number, seed));
        let notes = Arc::clone(notes);
        let observer: Observer = Arc::new(move |now, event| notes.observe(number, now, event));
        node.observer = Some(observer);
        nodes.push(Node::start_at(node, epoch).await?);
    }
    Ok(nodes)
}

/// Tells every node's emulation where the others are that play these numbers of the profile.
fn place(nodes: &[Node], parts: &[usize]) {
    for (at, node) in nodes.iter().enumerate() {
        for (number, peer) in nodes.iter().enumerate().filter(|(number, _)| *number != at) {
            if let Some(emulation) = &node.config().emulation {
                emulation.place(peer.address(), parts[number]);
            }
        }
    }
}

/// Tells every node which node is where, and waits until each is linked with all others.
async fn link(nodes: &[Node]) -> Result<(), MeasureError> {
    place(nodes, &(0..nodes.len()).collect::<Vec<_>>());
    for (at, node) in nodes.iter().enumerate() {
        nodes[..at].iter().for_each(|peer| node.dial(peer.address()));
    }
    let wanted = nodes.len() * nodes.len().saturating_sub(1);
    let deadline = Instant::now() + LINKING_TIME_MAX;
    loop {
        let linked = nodes.iter().map(|node| node.enter().shard().peers().count()).sum();
        if linked == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(MeasureError::NotLinked { linked, wanted });
        }
        Timer::after(LOOK_INTERVAL).await;
    }
}

/// Waits until strong mode has begun everywhere.
async fn open(nodes: &[Node]) -> Result<(), MeasureError> {
    let is_open = |node: &Node| {
        let status = node.status().strong;
        status.epoch > 0 && status.primary.is_some() && status.posture != "held"
    };
    let deadline = Instant::now() + LINKING_TIME_MAX;
    while !nodes.iter().all(is_open) {
        if Instant::now() > deadline {
            return Err(MeasureError::NotOpened);
        }
        Timer::after(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// The same as [`issue`] where answers come later; waits for them, until the deadline.
async fn issue_and_wait(
    nodes: &[Node],
    plan: &[PlannedWrite],
    workload: &Workload,
    (start, patience): (Instant, Duration),
    notes: &Arc<Notes>,
) {
    let mut waiting = Vec::with_capacity(plan.len());
    for write in plan {
        let (key, value) = (key_name(write.key), workload.value(write.index));
        let due = start + write.at;
        if due > Instant::now() {
            Timer::at(due).await;
        }
        let (node, notes, index) = (nodes[write.node].clone(), Arc::clone(notes), write.index);
        notes.recorder.issued(index, notes.elapsed(node.now()));
        waiting.push(async_global_executor::spawn(async move {
            let (key, value) = (Word(&key), Word(&value));
            let (expiry, when) = (Expiry::None, When::Always);
            let set = Text::Set { key, value, expiry, when, get: false };
            let reply = node.execute(&Operation::Text(set)).await;
            if let Reply::Operated { written: Some((stamp, _)), .. } = reply {
                notes.recorder.acked(index, stamp, notes.elapsed(node.now()));
            }
        }));
        futures_lite::future::yield_now().await;
    }
    let all = async {
        for one in waiting {
            one.await;
        }
    };
    let late = async {
        Timer::after(patience).await;
    };
    futures_lite::future::or(all, late).await;
}

/// Issues every write at its instant, whatever became of the ones before.
async fn issue(
    nodes: &[Node],
    plan: &[PlannedWrite],
    workload: &Workload,
    start: Instant,
    notes: &Notes,
) {
    for write in plan {
        let (key, value) = (key_name(write.key), workload.value(write.index));
        let due = start + write.at;
        if due > Instant::now() {
            Timer::at(due).await;
        }
        let node = &nodes[write.node];
        notes.recorder.issued(write.index, notes.elapsed(node.now()));
        if let Reply::Written { stamp, .. } = node.set(&key, &value) {
            notes.recorder.acked(write.index, stamp, notes.elapsed(node.now()));
        }
        // Others take their turn even when this one is late.
        futures_lite::future::yield_now().await;
    }
}

/// Waits until all nodes hold the same, or until the deadline.
async fn converge(nodes: &[Node], deadline: Instant) {
    loop {
        let mut summaries = nodes.iter().map(|node| node.enter().shard().summary());
        let first = summaries.next();
        if summaries.all(|summary| Some(summary) == first) || Instant::now() > deadline {
            return;
        }
        Timer::after(LOOK_INTERVAL).await;
    }
}

/// Messages and bytes sent by all nodes so far.
fn sent(nodes: &[Node]) -> (u64, u64) {
    let counts = nodes.iter().flat_map(Node::sent);
    counts.fold((0, 0), |sum, count| (sum.0 + count.messages, sum.1 + count.bytes))
}

fn end(node: &Node, keys: usize) -> NodeEnd {
    let stamp = |key| node.reader().stamp(&key_name(key)).map(|(stamp, _)| stamp);
    let stamps = (0..keys).map(stamp).collect();
    let (digest_hash, fingerprint) = node.enter().shard().summary();
    NodeEnd { stamps, digest_hash, fingerprint }
}

/// Stops all nodes side by side: each gives its peers a moment to hear of it.
async fn stop(nodes: &[Node]) {
    let mut closing: Vec<_> = nodes.iter().map(|node| Box::pin(node.close())).collect();
    poll_fn(|context| {
        closing.retain_mut(|close| close.as_mut().poll(context).is_pending());
        if closing.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
