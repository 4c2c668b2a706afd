//! One run in virtual time: the same load, the same protocol and the same judgement as on real
//! nodes (`cluster`), without machine and sockets.
//!
//! Handling takes no time here, so in eventual mode an acknowledgement is immediate, and what is
//! measured is the protocol over the links. The same seed gives the same numbers on every machine.

use super::config::{CompareConfig, Configuration, Consistency};
use super::record::{NodeEnd, Recorder};
use super::result::{Costs, RunResult};
use super::workload::{key_name, key_number};
use crate::protocol::config::{
    DELTA_BYTES_MAX_DEFAULT, Durability, FANOUT_DEFAULT, VOTERS_DEFAULT,
};
use crate::protocol::shard::Shard;
use crate::sim::experiment::{self, Experiment, Observation, Write};
use crate::sim::plan::{Settings, StrongSettings};

/// Makes run number `run` of one configuration.
pub fn measure(config: &CompareConfig, configuration: &Configuration, run: usize) -> RunResult {
    let workload = config.workload(configuration.nodes, run);
    let plan = workload.plan();
    let recorder = Recorder::new(configuration.nodes, &plan);
    let fanout = config.fanout.unwrap_or(FANOUT_DEFAULT);
    let writes = plan.iter().map(|write| Write {
        at: write.at,
        node: write.node,
        key: key_name(write.key),
        value: workload.value(write.index),
    });
    let experiment = Experiment {
        nodes: configuration.nodes,
        profile: (*configuration.profile).clone(),
        settings: Settings {
            strategy: configuration.spreading.strategy,
            eager: configuration.spreading.eager,
            interval: config.interval,
            fanout,
            relay_window: None,
            delta_bytes_max: DELTA_BYTES_MAX_DEFAULT,
            durability: Durability::None,
            strong: (configuration.consistency == Consistency::Strong).then(|| StrongSettings {
                starts: true,
                voters: configuration.nodes.min(VOTERS_DEFAULT),
                is_judged: true,
            }),
            roster: configuration.consistency == Consistency::Strong,
            ..Settings::default()
        },
        writes: writes.collect(),
        deadline: config.deadline,
        seed: config.run_seed(run),
    };
    for write in &plan {
        recorder.issued(write.index, write.at);
    }
    let outcome = experiment::run(&experiment, |observation| match observation {
        Observation::Written { write, stamp, at } => recorder.acked(write, stamp, at),
        Observation::Visible { node, key, stamp, at } => {
            if let Some(key) = key_number(key) {
                recorder.seen(node, key, stamp, at);
            }
        }
    });
    let ends: Vec<_> = (0..configuration.nodes)
        .map(|node| outcome.world.shard(node).map(|shard| end(shard, config.keys)))
        .collect();
    let total = outcome.tally.total();
    let costs = Costs {
        messages: total.messages,
        bytes: total.bytes,
        conflicts: outcome.conflicts as u64,
        seconds: outcome.lasted.as_secs_f64(),
    };
    let measured = recorder.finish(&ends);
    RunResult::new(config, configuration, run, fanout, &measured, costs)
}

fn end(shard: &Shard, keys: usize) -> NodeEnd {
    let reader = shard.reader();
    let stamp = |key| reader.stamp(&key_name(key)).map(|(stamp, _)| stamp);
    let (digest_hash, fingerprint) = shard.summary();
    NodeEnd { stamps: (0..keys).map(stamp).collect(), digest_hash, fingerprint }
}
