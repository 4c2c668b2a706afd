//! Named ways to make life hard for a cluster, each drawn from a seed.
//!
//! A scenario fixes what kind of trouble there is; the seed decides everything else: how many nodes,
//! which strategy, how slow the links, who writes what when, and when the trouble comes. All of it
//! is drawn before the run, into a [`Plan`]. Trouble and load end at `faults_end`; what follows must
//! become quiet.

mod deadlines;
mod strong;

pub(super) use deadlines::ENDING_MAX;
pub use strong::STRONG;

use std::sync::Arc;
use std::time::Duration;

use twox_hash::XxHash3_64;

use super::plan::{Act, ClientRequest, Delivery, Plan, Settings, Wires};
use crate::protocol::config::{
    DELTA_BYTES_MAX_DEFAULT, Durability, FANOUT_DEFAULT, RETIRE_AFTER_DEFAULT, Strategy,
};
use crate::protocol::profile::{Link, Profile};

/// The most nodes that a scenario takes: checkers compare everything with everything.
pub const NODES_MAX: usize = 256;

/// The share of requests that come several at a time.
const PIPELINED: f64 = 0.1;

/// The share of requests after which the client asks whether a peer has them.
const ASKED: f64 = 0.2;

/// A kind of trouble, and how to draw it.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What happens in it, in one sentence.
    pub about: &'static str,
    draw: fn(&mut Draft),
}

/// The scenarios of eventual mode, the default one last.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "calm", about: "nothing goes wrong: whole links, moderate load", draw: calm },
    Scenario { name: "lossy", about: "up to half of all messages never arrive", draw: lossy },
    Scenario {
        name: "duplicates",
        about: "up to half of all messages arrive twice",
        draw: duplicates,
    },
    Scenario {
        name: "reorder",
        about: "messages overtake each other on slow links",
        draw: reorder,
    },
    Scenario { name: "split", about: "the cluster falls into two halves, and heals", draw: split },
    Scenario { name: "one-way", about: "some are heard but do not hear", draw: one_way },
    Scenario { name: "flapping", about: "links come and go all the time", draw: flapping },
    Scenario { name: "pause", about: "nodes freeze and then do everything at once", draw: pause },
    Scenario { name: "crash", about: "a node or two die and come back empty", draw: crash },
    Scenario {
        name: "disks",
        about: "nodes end or crash and come back with what was durable",
        draw: disks,
    },
    Scenario {
        name: "lasting",
        about: "deletions, absence and retirement at nodes with disks",
        draw: lasting,
    },
    Scenario {
        name: "restored",
        about: "nodes come back with an old copy of their disks",
        draw: restored,
    },
    Scenario { name: "churn", about: "nodes die and come back all the time", draw: churn },
    Scenario {
        name: "hot-key",
        about: "everybody writes the same few keys at once",
        draw: hot_key,
    },
    Scenario { name: "batches", about: "writes and deletions of many keys at once", draw: batches },
    Scenario {
        name: "large",
        about: "more nodes than the fan-out: writes are relayed",
        draw: large,
    },
    Scenario {
        name: "bulk",
        about: "big deltas in tiny chunks, overwritten on the way",
        draw: bulk,
    },
    Scenario {
        name: "quic",
        about: "lost packets are sent again and streams keep order",
        draw: quic,
    },
    Scenario {
        name: "netconfig",
        about: "one of the built-in profiles, as over QUIC, while nodes freeze and die",
        draw: netconfig,
    },
    Scenario {
        name: "deletes",
        about: "keys are set and deleted all the time, while links are cut and nodes die",
        draw: deletes,
    },
    Scenario {
        name: "absence",
        about: "a node is away while the others delete, is retired, and comes back",
        draw: absence,
    },
    Scenario {
        name: "retire-in-partition",
        about: "both sides of a partition retire the other, delete, and meet again",
        draw: retire_in_partition,
    },
    Scenario {
        name: "rebuild",
        about: "nodes put away what they have and fill themselves anew",
        draw: rebuild,
    },
    Scenario {
        name: "deadlines",
        about: "keys end all the time, and are written again, while links are cut and nodes die",
        draw: deadlines::deadlines,
    },
    Scenario { name: "mixed", about: "anything of the above together", draw: mixed },
];

/// All scenarios, those with a replicated log last.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(STRONG)
}

/// Says that no scenario has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no scenario {name:?}; there are {}",
    all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
)]
pub struct UnknownScenario {
    name: String,
}

impl Scenario {
    /// The scenario of this name.
    ///
    /// # Errors
    /// When there is none; the error lists those there are.
    pub fn named(name: &str) -> Result<Self, UnknownScenario> {
        let found = all().find(|scenario| scenario.name == name).copied();
        found.ok_or_else(|| UnknownScenario { name: name.to_owned() })
    }

    /// The run that `seed` stands for, with this many nodes or as many as the seed says.
    pub fn plan(&self, seed: u64, nodes: Option<usize>) -> Plan {
        let name = XxHash3_64::oneshot(self.name.as_bytes());
        let mut draft = Draft::new(self.name, seed, fastrand::Rng::with_seed(seed ^ name), nodes);
        (self.draw)(&mut draft);
        draft.finish()
    }
}

/// A plan in the making.
struct Draft {
    dice: fastrand::Rng,
    plan: Plan,
    link: Link,
    /// In place of `link`.
    profile: Option<Profile>,
    /// How many nodes were asked for.
    nodes_wanted: Option<usize>,
}

const MS: Duration = Duration::from_millis(1);

impl Draft {
    fn new(name: &str, seed: u64, mut dice: fastrand::Rng, nodes_wanted: Option<usize>) -> Self {
        let strategies = [Strategy::PushPull, Strategy::Push, Strategy::Pull];
        let settings = Settings {
            strategy: strategies[dice.usize(..3)],
            eager: dice.f64() < 0.7,
            interval: MS * [50, 100, 200, 500, 1_000][dice.usize(..5)],
            fanout: [FANOUT_DEFAULT, 1, 2, 3][dice.usize(..4)],
            relay_window: [None, Some(Duration::ZERO), Some(20 * MS)][dice.usize(..3)],
            delta_bytes_max: [DELTA_BYTES_MAX_DEFAULT, 1, 100, 1_000][dice.usize(..4)],
            roster: true,
            retire_after: RETIRE_AFTER_DEFAULT,
            durability: Durability::None,
            strong: None,
        };
        let latency = Duration::from_micros(100 * dice.u64(1..300));
        let jitter = latency / 100 * dice.u32(..=100);
        let link = Link { latency, jitter, ..Link::default() };
        // Drawn even if it is not used: everything after it stays the same.
        let drawn = dice.usize(2..8);
        let nodes = nodes_wanted.unwrap_or(drawn);
        let plan = Plan {
            name: name.to_owned(),
            seed,
            nodes,
            settings,
            wires: Wires::Uniform(Arc::new(link.clone())),
            delivery: Delivery::Lossy,
            detection: MS * dice.u32(200..3_000),
            encode: true,
            warm_up: Duration::ZERO,
            acts: Vec::new(),
            faults_end: MS * dice.u32(1_000..6_000),
        };
        Self { dice, plan, link, profile: None, nodes_wanted }
    }

    fn finish(mut self) -> Plan {
        self.plan.wires = match self.profile {
            Some(profile) => Wires::Profile(Box::new(profile)),
            None => Wires::Uniform(Arc::new(self.link)),
        };
        // Stable, so that acts of the same instant stay in the order in which they were drawn.
        self.plan.acts.sort_by_key(|(at, _)| *at);
        self.plan
    }

    /// As many nodes as drawn from here, unless a number was asked for.
    fn nodes(&mut self, range: std::ops::Range<usize>) {
        let drawn = self.dice.usize(range);
        self.plan.nodes = self.nodes_wanted.unwrap_or(drawn);
    }

    fn any_node(&mut self) -> usize {
        self.dice.usize(..self.plan.nodes)
    }

    /// An instant before the faults end.
    fn instant(&mut self) -> Duration {
        self.plan.faults_end.mul_f64(self.dice.f64())
    }

    fn act(&mut self, at: Duration, act: Act) {
        self.plan.acts.push((at, act));
    }

    /// Some of the nodes, at least one and never all of several.
    fn some_nodes(&mut self) -> Vec<usize> {
        let mut nodes: Vec<_> = (0..self.plan.nodes).collect();
        self.dice.shuffle(&mut nodes);
        nodes.truncate(self.dice.usize(1..self.plan.nodes.max(2)));
        nodes
    }

    /// Writes all along: `writes` requests of which the shares `batch` and `delete` concern several
    /// keys and deletions; every value is written only once.
    fn load(&mut self, writes: usize, keys: usize, value_bytes: usize, batch: f64, delete: f64) {
        for number in 0..writes {
            let (at, node) = (self.instant(), self.any_node());
            let pipelined = if self.dice.f64() < PIPELINED { self.dice.usize(2..6) } else { 1 };
            let request = |part| self.request(number * 8 + part, keys, value_bytes, batch, delete);
            let mut requests: Vec<_> = (0..pipelined).map(request).collect();
            if self.plan.nodes > 1 && self.dice.f64() < ASKED {
                let other = (node + self.dice.usize(1..self.plan.nodes)) % self.plan.nodes;
                requests.push(ClientRequest::Ask(other));
            }
            self.act(at, Act::Ask { node, requests });
        }
    }

    fn request(
        &mut self,
        number: usize,
        keys: usize,
        value_bytes: usize,
        batch: f64,
        delete: f64,
    ) -> ClientRequest {
        let several = if self.dice.f64() < batch { self.dice.usize(2..8) } else { 1 };
        let names: Vec<Vec<u8>> =
            (0..several).map(|_| format!("k{}", self.dice.usize(..keys)).into_bytes()).collect();
        if self.dice.f64() < delete {
            return ClientRequest::Delete(names);
        }
        let more = self.dice.usize(..=value_bytes);
        let value = |part: usize| format!("v{number}.{part}{}", "x".repeat(more)).into_bytes();
        let mut pairs: Vec<_> =
            names.into_iter().enumerate().map(|(part, key)| (key, value(part))).collect();
        match pairs.len() {
            1 => {
                let (key, value) = pairs.remove(0);
                ClientRequest::Set(key, value)
            }
            _ => ClientRequest::SetAll(pairs),
        }
    }

    /// The load that most scenarios have.
    fn usual_load(&mut self) {
        let (writes, keys) = (self.dice.usize(20..200), self.dice.usize(1..40));
        self.load(writes, keys, 20, 0.1, 0.15);
    }

    fn crashes(&mut self, times: usize) {
        for _ in 0..times {
            let (at, node) = (self.instant(), self.any_node());
            self.act(at, Act::Crash(node));
            let away = MS * self.dice.u32(1..2_000);
            self.act(at + away, Act::Restart(node));
        }
    }

    /// Nodes end in order or by a crash, and come back with what their disks have.
    fn restarts(&mut self, times: usize) {
        for _ in 0..times {
            let (at, node) = (self.instant(), self.any_node());
            let ends = if self.dice.bool() { Act::End(node) } else { Act::Crash(node) };
            self.act(at, ends);
            let away = MS * self.dice.u32(1..2_000);
            self.act(at + away, Act::Restart(node));
        }
    }

    /// A node ends or crashes, and something happens right after.
    fn bounce(&mut self, at: Duration, node: usize, then: Act) {
        let ends = if self.dice.bool() { Act::End(node) } else { Act::Crash(node) };
        self.act(at, ends);
        self.act(at + 5 * MS, then);
    }

    fn splits(&mut self, times: usize, one_way: bool) {
        for _ in 0..times {
            let (at, from) = (self.instant(), self.some_nodes());
            let to = (0..self.plan.nodes).filter(|node| !from.contains(node)).collect();
            self.act(at, Act::Cut { from, to, one_way });
            let length = MS * self.dice.u32(10..4_000);
            self.act(at + length, Act::Heal);
        }
    }

    fn pauses(&mut self, times: usize) {
        for _ in 0..times {
            let (at, node) = (self.instant(), self.any_node());
            self.act(at, Act::Pause(node));
            let length = MS * self.dice.u32(10..3_000);
            self.act(at + length, Act::Resume(node));
        }
    }

    fn flaps(&mut self, times: usize) {
        for _ in 0..times {
            let (at, from, to) = (self.instant(), self.any_node(), self.any_node());
            let one_way = self.dice.bool();
            self.act(at, Act::Cut { from: vec![from], to: vec![to], one_way });
            if self.dice.bool() {
                let length = MS * self.dice.u32(1..1_000);
                self.act(at + length, Act::Heal);
            }
        }
    }
}

/// Whole links and a moderate load: what must work before anything else is worth a look.
fn calm(draft: &mut Draft) {
    draft.usual_load();
}

/// Nodes with disks end or crash, also right after a write and all at once; what was answered only
/// when it was durable is there for ever.
fn disks(draft: &mut Draft) {
    draft.plan.settings.durability =
        if draft.dice.bool() { Durability::Always } else { Durability::Interval };
    draft.link.loss = 0.1 * draft.dice.f64();
    draft.usual_load();
    let times = draft.dice.usize(1..8);
    draft.restarts(times);
    if draft.dice.bool() {
        let at = draft.instant();
        (0..draft.plan.nodes).for_each(|node| draft.act(at, Act::Crash(node)));
    }
}

/// What tries the roster and the collection of tombstones, at nodes with disks.
fn lasting(draft: &mut Draft) {
    let draws: [fn(&mut Draft); 4] = [deletes, absence, retire_in_partition, rebuild];
    let draw = draws[draft.dice.usize(..draws.len())];
    draw(draft);
    draft.plan.settings.durability =
        if draft.dice.bool() { Durability::Always } else { Durability::Interval };
    let times = draft.dice.usize(..6);
    draft.restarts(times);
}

/// The disks of nodes are replaced by old copies. Such a node goes on by itself for a while, without
/// anybody who could tell it what it forgot, and then meets the others, some of which have been started
/// anew as well.
fn restored(draft: &mut Draft) {
    draft.nodes(2..6);
    draft.plan.settings.interval = MS * [20, 50, 100, 200][draft.dice.usize(..4)];
    draft.plan.settings.durability =
        if draft.dice.bool() { Durability::Always } else { Durability::Interval };
    draft.plan.faults_end = MS * draft.dice.u32(2_000..12_000);
    draft.link.loss = [0.0, 0.0, 0.1][draft.dice.usize(..3)];
    let (writes, keys) = (draft.dice.usize(50..250), draft.dice.usize(2..30));
    draft.load(writes, keys, 5, 0.2, 0.3);
    for _ in 0..draft.dice.usize(1..4) {
        let node = draft.any_node();
        let others: Vec<_> = (0..draft.plan.nodes).filter(|other| *other != node).collect();
        let mut times: Vec<_> = (0..4).map(|_| draft.instant()).collect();
        times.sort_unstable();
        let [copied, brought_back, others_restart, met] = times[..] else { return };
        draft.act(copied, Act::Copy(node));
        // What it does after that is another life than the copy knows of, or the same.
        if draft.dice.bool() {
            draft.bounce(copied, node, Act::Restart(node));
        }
        draft.bounce(brought_back, node, Act::BringBack(node));
        draft.act(brought_back + 10 * MS, Act::Restart(node));
        let alone = draft.dice.bool();
        if alone {
            let (from, to) = (vec![node], others.clone());
            draft.act(brought_back, Act::Cut { from, to, one_way: false });
            draft.act(met, Act::Heal);
        }
        for other in others {
            if draft.dice.bool() {
                draft.bounce(others_restart, other, Act::Restart(other));
            }
        }
    }
    // Also while they meet, and while one fills itself anew.
    let times = draft.dice.usize(..4);
    draft.restarts(times);
    for _ in 0..draft.dice.usize(..3) {
        let (at, node) = (draft.instant(), draft.any_node());
        draft.act(at, Act::Rebuild(node));
    }
}

/// Up to half of all messages never arrive, of every kind: pushes, digests, chunks, credit.
fn lossy(draft: &mut Draft) {
    draft.link.loss = 0.5 * draft.dice.f64();
    draft.usual_load();
}

/// Up to half of all messages arrive twice: applying must be idempotent, exchanges must not mix.
fn duplicates(draft: &mut Draft) {
    draft.link.duplicate = 0.5 * draft.dice.f64();
    draft.link.loss = [0.0, 0.1][draft.dice.usize(..2)];
    draft.usual_load();
}

/// Messages overtake each other: chunks before the ones they follow, old digests after new ones.
fn reorder(draft: &mut Draft) {
    draft.link.latency += 20 * MS;
    draft.link.reorder = 0.5 * draft.dice.f64();
    draft.usual_load();
}

/// The cluster falls into two halves that both go on writing, and heals; more than once.
fn split(draft: &mut Draft) {
    draft.nodes(2..9);
    let times = draft.dice.usize(1..4);
    draft.splits(times, false);
    draft.usual_load();
}

/// Some nodes are heard but do not hear: the case that naive failure detection gets wrong.
fn one_way(draft: &mut Draft) {
    let times = draft.dice.usize(1..4);
    draft.splits(times, true);
    draft.usual_load();
}

/// Links come and go, mostly for less than it takes to notice.
fn flapping(draft: &mut Draft) {
    let times = draft.dice.usize(10..60);
    draft.flaps(times);
    draft.usual_load();
}

/// Nodes freeze, as under a debugger or a long collection, and then do everything at once.
fn pause(draft: &mut Draft) {
    let times = draft.dice.usize(1..5);
    draft.pauses(times);
    draft.usual_load();
}

/// A node or two die with all they have and come back empty under a new origin.
fn crash(draft: &mut Draft) {
    let times = draft.dice.usize(1..3);
    draft.crashes(times);
    draft.usual_load();
}

/// Nodes die and come back all the time, sometimes all of them at once.
fn churn(draft: &mut Draft) {
    let times = draft.dice.usize(5..20);
    draft.crashes(times);
    draft.link.loss = [0.0, 0.2][draft.dice.usize(..2)];
    draft.usual_load();
}

/// Everybody writes the same few keys at once, over slow links: nearly every write has a rival.
fn hot_key(draft: &mut Draft) {
    draft.link.latency += 10 * MS;
    draft.link.loss = [0.0, 0.2][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(50..300), draft.dice.usize(1..4));
    draft.load(writes, keys, 2, 0.1, 0.1);
}

/// Most writes have several keys, and they overlap; some nodes die in between.
fn batches(draft: &mut Draft) {
    draft.link.loss = 0.3 * draft.dice.f64();
    let (writes, keys) = (draft.dice.usize(30..200), draft.dice.usize(3..15));
    draft.load(writes, keys, 20, 0.7, 0.2);
    let times = draft.dice.usize(..3);
    draft.crashes(times);
}

/// More nodes than the fan-out, so that writes are relayed by hubs, some of which die.
fn large(draft: &mut Draft) {
    draft.nodes(17..40);
    draft.plan.settings.eager = true;
    draft.plan.settings.interval = MS * 500;
    draft.link.loss = [0.0, 0.1][draft.dice.usize(..2)];
    let (writes, times) = (draft.dice.usize(10..60), draft.dice.usize(..3));
    draft.load(writes, 20, 20, 0.1, 0.1);
    draft.crashes(times);
}

/// Without pushes, into tiny chunks: exchanges take long, cells are written over while they run,
/// and nodes die in the midst of them. This is where a vector comes to claim what never came.
fn bulk(draft: &mut Draft) {
    draft.nodes(2..6);
    draft.plan.settings.eager = false;
    draft.plan.settings.delta_bytes_max = [1, 60, 200][draft.dice.usize(..3)];
    draft.link.latency += 5 * MS;
    draft.link.loss = [0.0, 0.0, 0.1][draft.dice.usize(..3)];
    draft.link.duplicate = [0.0, 0.3][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(100..400), draft.dice.usize(20..100));
    let batch = [0.0, 0.3][draft.dice.usize(..2)];
    draft.load(writes, keys, 20, batch, 0.1);
    let times = draft.dice.usize(1..5);
    draft.crashes(times);
}

/// As over QUIC: lost packets are sent again, streams keep their order, connections end.
fn quic(draft: &mut Draft) {
    mixed(draft);
    draft.plan.delivery = Delivery::Reliable;
    draft.link.loss /= 4.0;
}

/// What real nodes face in a comparison: links as a built-in profile has them, partitions included,
/// until the faults end; and some nodes freeze and die.
fn netconfig(draft: &mut Draft) {
    let names: Vec<_> = Profile::builtin_names().collect();
    let name = names[draft.dice.usize(..names.len())];
    draft.profile = Some(Profile::builtin(name).expect("listed as built in"));
    draft.plan.delivery = Delivery::Reliable;
    draft.usual_load();
    let (crashes, pauses) = (draft.dice.usize(..3), draft.dice.usize(..3));
    draft.crashes(crashes);
    draft.pauses(pauses);
}

/// Keys are set and deleted all the time, so that tombstones come and are collected, while links are
/// cut and nodes die and come back empty.
fn deletes(draft: &mut Draft) {
    draft.plan.settings.interval = MS * [20, 50, 100, 200][draft.dice.usize(..4)];
    draft.plan.faults_end = MS * draft.dice.u32(2_000..12_000);
    draft.link.loss = [0.0, 0.05, 0.2][draft.dice.usize(..3)];
    draft.link.duplicate = [0.0, 0.2][draft.dice.usize(..2)];
    draft.link.reorder = [0.0, 0.3][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(50..250), draft.dice.usize(2..20));
    draft.load(writes, keys, 5, 0.2, 0.5);
    let times: Vec<usize> = (0..4).map(|_| [0, 0, 1, 4][draft.dice.usize(..4)]).collect();
    draft.crashes(times[0]);
    draft.splits(times[1], false);
    draft.flaps(5 * times[2]);
    draft.pauses(times[3]);
}

/// A node is cut off for long, goes on writing, is retired by command or because it is away too
/// long, and comes back: what the others have deleted meanwhile must not come back with it.
fn absence(draft: &mut Draft) {
    draft.nodes(2..7);
    draft.plan.settings.interval = MS * [20, 50, 100][draft.dice.usize(..3)];
    draft.plan.settings.retire_after = MS * [500, 1_000, 100_000][draft.dice.usize(..3)];
    draft.plan.detection = MS * draft.dice.u32(100..600);
    draft.plan.faults_end = MS * draft.dice.u32(4_000..14_000);
    draft.link.loss = [0.0, 0.0, 0.1][draft.dice.usize(..3)];
    draft.link.reorder = [0.0, 0.3][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(50..250), draft.dice.usize(2..15));
    draft.load(writes, keys, 5, 0.2, 0.4);
    for _ in 0..draft.dice.usize(1..4) {
        let away = draft.any_node();
        let others: Vec<_> = (0..draft.plan.nodes).filter(|node| *node != away).collect();
        let at = draft.plan.faults_end.mul_f64(0.6 * draft.dice.f64());
        let one_way = draft.dice.f64() < 0.1;
        draft.act(at, Act::Cut { from: vec![away], to: others.clone(), one_way });
        let length = MS * draft.dice.u32(500..5_000);
        if draft.dice.bool() && !others.is_empty() {
            let node = others[draft.dice.usize(..others.len())];
            let when = at + length.mul_f64(draft.dice.f64());
            draft.act(when, Act::Retire { node, member: away });
        }
        if draft.dice.f64() < 0.2 {
            draft.act(at + length / 2, Act::Crash(away));
            draft.act(at + length, Act::Restart(away));
        }
        draft.act(at + length, Act::Heal);
    }
}

/// Each side of a partition retires the other and collects what it deletes; when they meet, one of
/// the two gives way.
fn retire_in_partition(draft: &mut Draft) {
    draft.nodes(2..8);
    draft.plan.settings.interval = MS * [20, 50, 100][draft.dice.usize(..3)];
    draft.plan.settings.retire_after = MS * [300, 1_000, 100_000][draft.dice.usize(..3)];
    draft.plan.detection = MS * draft.dice.u32(100..600);
    draft.plan.faults_end = MS * draft.dice.u32(3_000..10_000);
    let (writes, keys) = (draft.dice.usize(50..200), draft.dice.usize(2..15));
    draft.load(writes, keys, 5, 0.2, 0.4);
    for _ in 0..draft.dice.usize(1..3) {
        let from = draft.some_nodes();
        let to: Vec<_> = (0..draft.plan.nodes).filter(|node| !from.contains(node)).collect();
        let at = draft.plan.faults_end.mul_f64(0.5 * draft.dice.f64());
        let length = MS * draft.dice.u32(500..4_000);
        for _ in 0..draft.dice.usize(..8) {
            let (node, member) = (draft.any_node(), draft.any_node());
            let when = at + length.mul_f64(draft.dice.f64());
            draft.act(when, Act::Retire { node, member });
        }
        draft.act(at, Act::Cut { from, to, one_way: false });
        draft.act(at + length, Act::Heal);
    }
    let times = draft.dice.usize(..2);
    draft.crashes(times);
}

/// Nodes are told to fill themselves anew, one or several at a time, under load and faults.
fn rebuild(draft: &mut Draft) {
    draft.plan.settings.interval = MS * [20, 50, 100, 200][draft.dice.usize(..4)];
    draft.plan.faults_end = MS * draft.dice.u32(2_000..10_000);
    draft.link.loss = [0.0, 0.05, 0.2][draft.dice.usize(..3)];
    draft.link.duplicate = [0.0, 0.2][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(50..200), draft.dice.usize(2..20));
    draft.load(writes, keys, 5, 0.2, 0.4);
    for _ in 0..draft.dice.usize(1..6) {
        let (at, node) = (draft.instant(), draft.any_node());
        draft.act(at, Act::Rebuild(node));
    }
    let times: Vec<usize> = (0..2).map(|_| [0, 0, 1, 3][draft.dice.usize(..4)]).collect();
    draft.crashes(times[0]);
    draft.splits(times[1], false);
}

/// Anything of the above together.
fn mixed(draft: &mut Draft) {
    let dice = &mut draft.dice;
    draft.link.loss = [0.0, 0.05, 0.3][dice.usize(..3)];
    draft.link.duplicate = [0.0, 0.05, 0.3][dice.usize(..3)];
    draft.link.reorder = [0.0, 0.05, 0.3][dice.usize(..3)];
    let times: Vec<usize> = (0..5).map(|_| [0, 0, 1, 3][dice.usize(..4)]).collect();
    let (writes, keys) = (dice.usize(20..250), dice.usize(1..60));
    let (batch, delete) = (0.4 * dice.f64(), 0.3 * dice.f64());
    draft.load(writes, keys, 30, batch, delete);
    draft.crashes(times[0]);
    draft.splits(times[1], false);
    draft.splits(times[2], true);
    draft.pauses(times[3]);
    draft.flaps(10 * times[4]);
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scenario").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run is repeated by naming the number of nodes that the seed had drawn.
    #[test]
    fn naming_the_number_of_nodes_changes_nothing_else() {
        for scenario in SCENARIOS {
            for seed in 0..20 {
                let drawn = scenario.plan(seed, None);
                let named = scenario.plan(seed, Some(drawn.nodes));
                assert_eq!(format!("{drawn:?}"), format!("{named:?}"), "{}", scenario.name);
            }
        }
    }

    #[test]
    fn every_scenario_is_found_and_an_unknown_one_is_told_which_there_are() {
        for scenario in SCENARIOS {
            assert_eq!(Scenario::named(scenario.name).unwrap().name, scenario.name);
            let plan = scenario.plan(1, Some(1));
            assert_eq!(plan.nodes, 1, "even a node by itself: {}", scenario.name);
        }
        let error = Scenario::named("peace").unwrap_err().to_string();
        assert!(error.contains("peace") && error.contains("one-way, flapping"), "{error}");
    }
}
