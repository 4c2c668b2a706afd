//! A measured run in virtual time: writes at given instants, and what became of each.
//!
//! This is what a comparison uses in place of real nodes and links. The nodes run the same core, the
//! links follow the same profiles, and messages are as large as they would be; they are not encoded
//! but measured, and arrive as QUIC would bring them ([`Delivery::Reliable`]). Handling takes no
//! time here, so what is measured is the protocol over the links, without the machine.
//!
//! The cluster warms up first: every node is connected with every other, and the rounds with new
//! peers are over, when the times of the writes and of the profile's partitions begin.
//!
//! No checkers run; whoever measures judges by what the nodes hold at the end.

use std::collections::BTreeSet;
use std::time::Duration;

use super::happening::act_of;
use super::plan::{Act, ClientRequest, DETECTION_DEFAULT, Delivery, Plan, Settings, Wires};
use super::tally::Tally;
use super::world::World;
use crate::protocol::boundary::Reply;
use crate::protocol::cell::Key;
use crate::protocol::event::Event;
use crate::protocol::profile::Profile;
use crate::protocol::stamp::Stamp;
use crate::protocol::time::Time;

/// The most nodes: every node knows every other, so memory and the first rounds grow with the
/// square; 2,000 nodes take about two gigabytes.
pub const NODES_MAX: usize = 2_000;

/// The least time for warming up.
const WARM_UP_MIN: Duration = Duration::from_millis(500);

/// How often it is looked at whether all nodes hold the same, once the last write was issued.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A run to be measured.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// How many nodes; at most [`NODES_MAX`].
    pub nodes: usize,
    /// What the links do.
    pub profile: Profile,
    /// What every node is told when it starts.
    pub settings: Settings,
    /// The writes, in the order of time.
    pub writes: Vec<Write>,
    /// How long after the last write to wait until all nodes hold the same.
    pub deadline: Duration,
    /// Decides what links do and everything random in the nodes.
    pub seed: u64,
}

/// One write of the load.
#[derive(Clone, Debug)]
pub struct Write {
    /// When it is issued, from the start of the load.
    pub at: Duration,
    /// The node that takes it.
    pub node: usize,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Something worth measuring. Times count from the start of the load.
#[derive(Clone, Debug)]
pub enum Observation<'a> {
    /// A write was issued, by its place in the list, and acknowledged at once: handling takes no
    /// time.
    Written {
        /// The place in the list.
        write: usize,
        /// Its stamp.
        stamp: Stamp,
        /// When.
        at: Duration,
    },
    /// A node shows the version of a key with this stamp from now on.
    Visible {
        /// The node.
        node: usize,
        /// The key.
        key: &'a Key,
        /// The stamp.
        stamp: Stamp,
        /// When.
        at: Duration,
    },
}

/// What came of an experiment, apart from what was observed.
#[derive(Debug)]
pub struct Outcome {
    /// Whether all nodes held the same before the deadline.
    pub converged: bool,
    /// From the start of the load until the end.
    pub lasted: Duration,
    /// Messages sent since the start of the load.
    pub tally: Tally,
    /// Writes that lost to a concurrent one, each counted once however many nodes told it.
    pub conflicts: usize,
    /// The nodes as they are at the end: see [`World::shard`].
    pub world: World,
}

/// Runs an experiment; `observe` is told what happens, in the order of time.
pub fn run(experiment: &Experiment, mut observe: impl FnMut(Observation<'_>)) -> Outcome {
    let plan = experiment.plan();
    let (warm_up, load_end) = (plan.warm_up, plan.faults_end);
    let begin = Time::START + warm_up;
    let deadline = begin + load_end + experiment.deadline;
    let mut world = World::new(plan, false);
    let mut losers = BTreeSet::new();
    let mut converged = false;
    while world.now() < deadline {
        // Nothing is worth a look while writes are still to come.
        let look = if world.now() < begin + load_end { begin + load_end } else { world.now() };
        let look = (look + LOOK_INTERVAL).min(deadline);
        while let Some(happening) = world.next(look) {
            let node = happening.node().unwrap_or_default();
            world.perform(happening);
            let at = world.now().since(begin);
            for (token, reply) in &world.output().reply {
                if let Reply::Written { stamp, .. } = *reply {
                    observe(Observation::Written { write: act_of(*token), stamp, at });
                }
            }
            for event in &world.output().events {
                match event {
                    Event::Visible { key, stamp, .. } => {
                        observe(Observation::Visible { node, key, stamp: *stamp, at });
                    }
                    Event::Conflict(conflict) => drop(losers.insert(conflict.loser)),
                    _ => {}
                }
            }
        }
        if world.is_converged() {
            converged = true;
            break;
        }
    }
    Outcome {
        converged,
        lasted: world.now().since(begin),
        tally: *world.tally(),
        conflicts: losers.len(),
        world,
    }
}

impl Experiment {
    fn plan(&self) -> Plan {
        let ask = |write: &Write| {
            let requests = vec![ClientRequest::Set(write.key.clone(), write.value.clone())];
            (write.at, Act::Ask { node: write.node, requests })
        };
        let wires = Wires::Profile(Box::new(self.profile.clone()));
        Plan {
            name: self.profile.name().to_owned(),
            seed: self.seed,
            nodes: self.nodes,
            settings: self.settings,
            // A round with each new peer takes up to two round trips.
            warm_up: WARM_UP_MIN.max(wires.latency_max(self.nodes) * 6),
            wires,
            delivery: Delivery::Reliable,
            detection: DETECTION_DEFAULT,
            encode: false,
            acts: self.writes.iter().map(ask).collect(),
            faults_end: self.writes.last().map_or(Duration::ZERO, |write| write.at),
        }
    }
}
