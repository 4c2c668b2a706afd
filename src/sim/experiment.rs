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
    /// A write was acknowledged: at once in eventual mode, as handling takes no time. One that is not
    /// told of was not acknowledged.
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
    let begin = Time::START + plan.warm_up;
    let load_end = experiment.writes.last().map_or(Duration::ZERO, |write| write.at);
    let deadline = begin + load_end + experiment.deadline;
    let mut world = World::new(plan, false);
    let mut losers = BTreeSet::new();
    let (mut converged, mut answered) = (false, 0);
    while world.now() < deadline {
        // Nothing is worth a look while writes are still to come.
        let look = if world.now() < begin + load_end { begin + load_end } else { world.now() };
        let look = (look + LOOK_INTERVAL).min(deadline);
        while let Some(happening) = world.next(look) {
            let node = happening.node().unwrap_or_default();
            world.perform(happening);
            let at = world.now().since(begin);
            answered += world.output().reply.len();
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
        if world.is_converged() && answered >= experiment.writes.len() {
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
    /// How many round trips it takes until all is as it should be when the load begins.
    fn round_trips(&self) -> u32 {
        if self.settings.strong.is_some() { 50 } else { 3 }
    }

    fn warm_up_min(&self) -> Duration {
        if self.settings.strong.is_some() { 10 * WARM_UP_MIN } else { WARM_UP_MIN }
    }

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
            // A round with each new peer takes up to two round trips; a log has to be founded.
            warm_up: self.warm_up_min().max(wires.latency_max(self.nodes) * self.round_trips() * 2),
            wires,
            delivery: Delivery::Reliable,
            detection: DETECTION_DEFAULT,
            encode: false,
            acts: self.writes.iter().map(ask).collect(),
            // The links stay as they are described.
            faults_end: Duration::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::config::Strategy;

    /// For each write how long after its acknowledgement it was visible at the last node.
    fn measure(experiment: &Experiment) -> (Outcome, Vec<Option<Duration>>) {
        let mut written = BTreeMap::new();
        let mut seen: BTreeMap<Stamp, (usize, Duration)> = BTreeMap::new();
        let outcome = run(experiment, |observation| match observation {
            Observation::Written { write, stamp, at } => {
                written.insert(write, (stamp, at));
            }
            Observation::Visible { stamp, at, .. } => {
                let (nodes, last) = seen.entry(stamp).or_default();
                (*nodes, *last) = (*nodes + 1, at);
            }
        });
        let times = written.values().map(|(stamp, at)| match seen[stamp] {
            (nodes, last) if nodes == experiment.nodes => Some(last - *at),
            _ => None,
        });
        let times = times.collect();
        (outcome, times)
    }

    fn experiment(profile: &str, nodes: usize, writes: usize, rate: f64) -> Experiment {
        let write = |number: usize| Write {
            at: Duration::from_secs_f64(number as f64 / rate),
            node: number * 7 % nodes,
            key: format!("k{number}").into_bytes(),
            value: vec![b'v'; 100],
        };
        Experiment {
            nodes,
            profile: Profile::builtin(profile).unwrap(),
            settings: Settings::default(),
            writes: (0..writes).map(write).collect(),
            deadline: Duration::from_secs(30),
            seed: 7,
        }
    }

    /// Every write takes a hop to whoever gets it from its writer, and nothing else.
    #[test]
    fn a_pushed_write_takes_one_hop() {
        let (outcome, times) = measure(&experiment("glomers", 5, 20, 10.0));
        assert!(outcome.converged);
        assert_eq!(times, vec![Some(Duration::from_millis(100)); 20]);
        assert_eq!(outcome.tally.of("push").messages, 20 * 4);
        assert_eq!(outcome.conflicts, 0);
    }

    #[test]
    fn an_experiment_can_be_repeated() {
        let experiment = experiment("lossy", 8, 50, 100.0);
        let (one, other) = (measure(&experiment), measure(&experiment));
        assert_eq!(one.1, other.1);
        assert_eq!(one.0.tally, other.0.tally);
        assert_eq!(one.0.lasted, other.0.lasted);
    }

    /// What is lost is sent again: no write waits for a round, which would be a second away.
    #[test]
    fn lost_packets_cost_time_and_nothing_else() {
        // In the second case nearly everything happens after the last write was issued.
        for rate in [100.0, 100_000.0] {
            let mut experiment = experiment("lossy", 6, 100, rate);
            experiment.settings.interval = Duration::from_secs(1_000);
            let (outcome, times) = measure(&experiment);
            let mut times: Vec<_> = times.into_iter().flatten().collect();
            times.sort_unstable();
            assert_eq!((outcome.converged, times.len()), (true, 100));
            assert!(times[99] > Duration::from_millis(15), "some had to be sent again");
            assert!(times[99] < Duration::from_millis(300), "{:?}", times[99]);
        }
    }

    /// Packets that were lost to a partition arrive when it heals, in less than the interval of
    /// rounds; and the profile's times begin with the load.
    #[test]
    fn a_partition_delays_and_heals() {
        let mut experiment = experiment("split", 4, 50, 10.0);
        experiment.settings.interval = Duration::from_secs(1_000);
        let (outcome, times) = measure(&experiment);
        assert!(outcome.converged);
        for (write, time) in experiment.writes.iter().zip(times) {
            let time = time.unwrap();
            let cut = (1_000..4_000).contains(&write.at.as_millis());
            let until_healed = Duration::from_secs(4).saturating_sub(write.at);
            assert_eq!(time >= until_healed, cut || write.at.as_secs() >= 4, "{write:?}: {time:?}");
            assert!(time < Duration::from_millis(4_300), "{time:?}");
        }
    }

    /// Rounds alone reach everybody in every direction, and far more than the fan-out are reached by
    /// relays.
    #[test]
    fn every_strategy_reaches_everybody() {
        for strategy in [Strategy::Push, Strategy::Pull, Strategy::PushPull] {
            for eager in [false, true] {
                let mut experiment = experiment("lan", 40, 30, 300.0);
                experiment.settings = Settings {
                    strategy,
                    eager,
                    interval: Duration::from_millis(100),
                    ..Settings::default()
                };
                let (outcome, times) = measure(&experiment);
                assert!(outcome.converged, "{strategy} {eager}");
                assert!(times.iter().all(Option::is_some), "{strategy} {eager}");
                assert_eq!(outcome.tally.of("push").messages > 0, eager);
            }
        }
    }
}
