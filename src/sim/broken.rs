//! Every checker can fail: runs in which one rule is broken on purpose, and the checker that notices.
//!
//! A rule is broken from outside, in the messages that a node sends or by what becomes of a node, so
//! the protocol under test is the one of the product. Each test takes the first seed of a scenario at
//! which the expected checker speaks up, wants to hear the expected words, and then shows that the
//! very same run, unbroken, passes. Checkers that would notice earlier are told to keep quiet where a
//! later one is to be shown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::{Checks, Fault};
use super::plan::{Act, ClientRequest, Delivery, Plan, Wires};
use super::scenario::Scenario;
use super::trial;
use super::world::{Tamper, World};
use crate::protocol::cell::{Content, Seen, Write};
use crate::protocol::config::Durability;
use crate::protocol::delta::{Captured, EXCHANGES_MAX};
use crate::protocol::digest::DigestHash;
use crate::protocol::message::Message;
use crate::protocol::profile::Profile;
use crate::protocol::shard::{Careless, Shard};
use crate::protocol::stamp::Dot;
use crate::protocol::store::Fingerprint;
use crate::protocol::version::VersionVector;

/// How many seeds are tried until the checker speaks up.
const SEEDS_MAX: u64 = 1_000;

/// A rule to be broken.
struct Breach {
    scenario: &'static str,
    /// Changes the plan; most leave it.
    plan: fn(&mut Plan),
    tamper: fn() -> Tamper,
    /// Checkers that keep quiet.
    muted: &'static [&'static str],
    /// What becomes of a node that the checkers hear nothing of.
    fate: Fate,
    /// The most exchanges that the checkers put up with.
    exchanges_max: usize,
    careless: Careless,
}

/// What becomes of a node behind the checkers' back.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    /// Nothing.
    Lives,
    /// It dies and starts empty, as a new origin.
    Dies,
    /// It dies and starts empty, under the origin that it had.
    Forgets,
    /// Whenever it starts, its disk has forgotten half of what it said was durable.
    Lied,
}

impl Breach {
    fn of(scenario: &'static str, tamper: fn() -> Tamper) -> Self {
        Self {
            scenario,
            plan: |_| (),
            tamper,
            muted: &[],
            fate: Fate::Lives,
            exchanges_max: EXCHANGES_MAX,
            careless: Careless::No,
        }
    }

    fn muting(self, muted: &'static [&'static str]) -> Self {
        Self { muted, ..self }
    }

    fn run(&self, seed: u64, broken: bool) -> Option<Fault> {
        let scenario = Scenario::named(self.scenario).expect("there is one of this name");
        let mut plan = scenario.plan(seed, None);
        (self.plan)(&mut plan);
        if self.fate == Fate::Forgets {
            // With a roster such a node notices that others know more of it, and begins anew.
            plan.settings.roster = false;
        }
        if broken && matches!(self.fate, Fate::Dies | Fate::Forgets) {
            let late = plan.faults_end.mul_f64(0.9);
            plan.acts.extend([(late, Act::Crash(0)), (late, Act::Restart(0))]);
        }
        let mut world = World::new(plan, false);
        let mut checks = Checks::new(&world);
        if broken {
            world.tamper = Some((self.tamper)());
            world.reuses_origins = self.fate == Fate::Forgets;
            world.be_careless(self.careless);
            world.disks_lie = self.fate == Fate::Lied;
            checks.muted = self.muted;
            checks.exchanges_max = self.exchanges_max;
            checks.hears_of_deaths = !matches!(self.fate, Fate::Dies | Fate::Forgets);
        }
        trial::run_world(world, checks, None).fault
    }

    /// Runs one seed after the other until a checker speaks up in these words.
    fn is_noticed(&self, checker: &str, words: &str) {
        let mut others = BTreeMap::<String, u64>::new();
        for seed in 1..=SEEDS_MAX {
            let Some(fault) = self.run(seed, true) else { continue };
            if fault.checker == checker && fault.what.contains(words) {
                assert_eq!(self.run(seed, false), None, "unbroken, seed {seed} passes");
                return;
            }
            others.entry(format!("[{}] {}", fault.checker, fault.what)).or_insert(seed);
        }
        panic!("no [{checker}] said {words:?} in {SEEDS_MAX} seeds; instead: {others:#?}");
    }
}

/// Changes nothing.
fn nothing() -> Tamper {
    Box::new(|_, _, _| true)
}

/// Has nodes die in turn, ten times over.
fn keep_dying(plan: &mut Plan) {
    for turn in 0..10 * plan.nodes {
        let at = plan.faults_end.mul_f64(turn as f64 / (10 * plan.nodes) as f64);
        let node = turn % plan.nodes;
        plan.acts.extend([(at, Act::Crash(node)), (at, Act::Restart(node))]);
    }
}

/// Has all nodes crash at once, after the last write.
fn crash_all_in_the_end(plan: &mut Plan) {
    plan.settings.durability = Durability::Always;
    plan.acts.retain(|(_, act)| matches!(act, Act::Ask { .. }));
    plan.acts.extend((0..plan.nodes).map(|node| (plan.faults_end, Act::Crash(node))));
}

/// Makes writes stay where they are for a while.
fn spread_slowly(plan: &mut Plan) {
    plan.settings.eager = false;
    plan.settings.interval = Duration::from_secs(1);
}

/// Has the first part of a delta end it: the vector is merged before the other parts have come.
fn merge_early() -> Tamper {
    Box::new(|shard, _, envelope| {
        if let Message::Delta { chunk, .. } = &mut envelope.message
            && chunk.number == 0
        {
            chunk.captured.get_or_insert_with(|| Captured {
                vector: shard.vector().clone(),
                lamport: shard.lamport(),
                horizon: Some(shard.horizon().clone()),
            });
        }
        true
    })
}

/// Leaves out of a delta what took the place of cells while it was being sent.
fn skip_superseding() -> Tamper {
    let mut captured = BTreeMap::new();
    Box::new(move |shard: &Shard, to, envelope| {
        if let Message::Delta { chunk, .. } = &mut envelope.message {
            let vector: &mut VersionVector =
                captured.entry((shard.config().node, to, chunk.exchange)).or_default();
            if chunk.number == 0 {
                *vector = shard.vector().clone();
            }
            chunk.writes.retain(|write| vector.contains(write.dot()));
        }
        true
    })
}

/// Changes every write that is pushed or part of a delta.
fn change_writes(change: fn(&Shard, &mut Write)) -> Tamper {
    Box::new(move |shard, _, envelope| {
        let writes = match &mut envelope.message {
            Message::Push { writes, .. } => writes,
            Message::Delta { chunk, .. } => &mut chunk.writes,
            _ => return true,
        };
        writes.iter_mut().for_each(|write| change(shard, write));
        true
    })
}

/// The hole: a vector that is merged early claims what has not come yet.
#[test]
fn a_vector_merged_early_is_noticed() {
    Breach::of("bulk", merge_early).is_noticed("vector", "claims");
}

/// The same hole, by its first consequence: what then comes is taken for known and passed over.
#[test]
fn a_vector_merged_early_loses_what_comes_later() {
    let breach = Breach::of("bulk", merge_early).muting(&["vector"]);
    breach.is_noticed("shown", "has reached it");
}

/// The same hole, by what it does in the end: everybody claims the same and shows something else,
/// and nothing ever mends it.
#[test]
fn a_vector_merged_early_makes_nodes_differ_for_ever() {
    let muted = &["vector", "shown", "batch", "conflict", "alarm", "acknowledged"];
    Breach::of("bulk", merge_early).muting(muted).is_noticed("same", "differ");
}

/// The hole's other side: a cell that was replaced while the delta was sent, and not what took its
/// place.
#[test]
fn a_superseded_cell_that_is_skipped_is_noticed() {
    Breach::of("bulk", skip_superseding).is_noticed("vector", "claims");
}

/// And what comes of it: the node with the replacement dies, and the others differ for ever.
#[test]
fn a_superseded_cell_that_is_skipped_makes_nodes_differ_for_ever() {
    let muted = &["vector", "shown", "batch", "conflict", "alarm", "acknowledged"];
    // Unless damage is mended, which would hide it.
    let careless = Careless::LeavesDamage;
    let breach = Breach { plan: keep_dying, careless, ..Breach::of("bulk", skip_superseding) };
    breach.muting(muted).is_noticed("same", "differ");
}

#[test]
fn a_value_that_nobody_wrote_is_noticed() {
    let forge = || change_writes(|_, write| write.cells[0].content = Content::from(&b"forged"[..]));
    Breach::of("calm", forge).is_noticed("invented", "forged");
}

/// A node that takes every message for the word of the oracle shows the forged value itself.
#[test]
fn a_value_that_shows_and_nobody_wrote_is_noticed() {
    let forge = || change_writes(|_, write| write.cells[0].content = Content::from(&b"forged"[..]));
    let breach = Breach::of("calm", forge).muting(&["invented in messages"]);
    breach.is_noticed("invented", "shows \"forged\"");
}

#[test]
fn a_part_of_a_write_by_itself_is_noticed() {
    let split = || change_writes(|_, write| write.cells.truncate(1));
    Breach::of("batches", split).is_noticed("batch", "shows for");
}

#[test]
fn a_conflict_that_is_none_is_noticed() {
    let strip = || {
        change_writes(|_, write| {
            write.cells.iter_mut().for_each(|cell| cell.seen = Seen::default())
        })
    };
    Breach::of("calm", strip).is_noticed("conflict", "which knew of it");
}

#[test]
fn a_conflict_that_is_not_told_is_noticed() {
    let know_all = || {
        change_writes(|shard, write| {
            for origin in shard.vector().iter().map(|(origin, _)| origin) {
                let all = Dot { origin, seq: u64::MAX };
                write.cells.iter_mut().for_each(|cell| cell.seen.insert(all));
            }
        })
    };
    Breach::of("hot-key", know_all).is_noticed("conflict", "does not say");
}

#[test]
fn a_fingerprint_that_does_not_fit_is_noticed() {
    let damage = || -> Tamper {
        Box::new(|_, _, envelope| {
            if let Message::Open { fingerprint, .. } = &mut envelope.message {
                *fingerprint = Fingerprint::default();
            }
            true
        })
    };
    Breach::of("calm", damage).is_noticed("alarm", "but other cells");
}

#[test]
fn a_peer_that_is_put_into_quarantine_is_noticed() {
    let run_away = || change_writes(|_, write| write.stamp.lamport.0 += 1 << 60);
    let breach = Breach::of("calm", run_away).muting(&["invented in messages"]);
    breach.is_noticed("alarm", "quarantines");
}

#[test]
fn an_answer_that_is_not_true_is_noticed() {
    let agree = || -> Tamper {
        Box::new(|_, _, envelope| {
            if let Message::Answer { covers, .. } = &mut envelope.message {
                *covers = true;
            }
            true
        })
    };
    Breach { plan: spread_slowly, ..Breach::of("calm", agree) }
        .is_noticed("answer", "which it does not");
}

#[test]
fn chatter_without_an_end_is_noticed() {
    let chatter = || -> Tamper {
        Box::new(|_, _, envelope| {
            if let Message::Open { digest, hash, .. } = &mut envelope.message {
                *digest = None;
                *hash = DigestHash::of(&VersionVector::default());
            }
            true
        })
    };
    Breach::of("calm", chatter).is_noticed("quiet", "nothing to say");
}

#[test]
fn a_cluster_that_never_agrees_is_noticed() {
    let mute = || -> Tamper {
        Box::new(|_, _, envelope| {
            !matches!(envelope.message, Message::Push { .. } | Message::Delta { .. })
        })
    };
    Breach::of("calm", mute).is_noticed("same", "after the faults have ended");
}

#[test]
fn a_vector_that_shrinks_is_noticed() {
    let breach = Breach { fate: Fate::Forgets, ..Breach::of("calm", nothing) };
    breach.is_noticed("vector", "no longer claims");
}

#[test]
fn a_dot_that_is_used_twice_is_noticed() {
    let breach = Breach { fate: Fate::Forgets, ..Breach::of("calm", nothing) };
    breach
        .muting(&["vector", "order", "shown", "batch", "conflict"])
        .is_noticed("dots", "was given");
}

#[test]
fn a_stamp_that_goes_back_is_noticed() {
    let breach = Breach { fate: Fate::Dies, ..Breach::of("calm", nothing) };
    breach.muting(&["vector"]).is_noticed("order", "after");
}

#[test]
fn a_deletion_that_is_undone_is_noticed() {
    let breach = Breach::of("batches", nothing);
    let breach = Breach { fate: Fate::Dies, plan: spread_slowly, ..breach };
    let muted = &["vector", "shown", "batch", "conflict"];
    breach.muting(muted).is_noticed("order", "has come back after its deletion");
}

/// A node forgets what only it had, and nobody is told that it died.
#[test]
fn an_acknowledged_write_that_is_lost_is_noticed() {
    let breach = Breach::of("calm", nothing);
    let breach = Breach { fate: Fate::Dies, plan: spread_slowly, ..breach };
    let muted = &["vector", "order", "shown", "batch", "conflict"];
    breach.muting(muted).is_noticed("acknowledged", "was acknowledged");
}

#[test]
fn a_disk_that_forgets_what_it_had_synced_is_noticed() {
    let breach =
        Breach { fate: Fate::Lied, plan: crash_all_in_the_end, ..Breach::of("disks", nothing) };
    let muted = &["vector", "order", "shown", "batch", "conflict"];
    breach.muting(muted).is_noticed("acknowledged", "was acknowledged");
}

/// Bounds that are narrower than those of the protocol are overstepped.
#[test]
fn too_many_exchanges_are_noticed() {
    let breach = Breach { exchanges_max: 0, ..Breach::of("bulk", nothing) };
    breach.is_noticed("bounds", "at once");
}

/// Where nodes are let in that lack what was collected, they bring back what was deleted.
#[test]
fn an_open_gate_is_noticed() {
    let breach = Breach { careless: Careless::OpensTheGate, ..Breach::of("absence", nothing) };
    breach.muting(&["vector"]).is_noticed("order", "has come back after its deletion");
}

/// Tombstones of which a member never hears stay for ever.
#[test]
fn a_tombstone_that_stays_is_noticed() {
    let withhold = || -> Tamper {
        Box::new(|_, _, envelope| !matches!(envelope.message, Message::Report { .. }))
    };
    Breach::of("deletes", withhold).is_noticed("collected", "tombstones are left");
}

/// Who is quiet where what a tombstone had beaten is to be seen to come back.
const BUT_RESURRECTION: &[&str] = &[
    "vector",
    "shown",
    "batch",
    "conflict",
    "order",
    "same",
    "acknowledged",
    "alarm",
    "collected",
];

/// A breach of the rules of collection.
fn collecting(scenario: &'static str, careless: Careless) -> Breach {
    Breach { careless, ..Breach::of(scenario, nothing) }
}

/// A tombstone that is collected before everybody has it: what it had beaten shows again, at nodes
/// that claim to hold the deletion.
#[test]
fn a_tombstone_that_goes_too_early_is_noticed() {
    let breach = collecting("deletes", Careless::CollectsEarly).muting(BUT_RESURRECTION);
    breach.is_noticed("resurrection", "which was deleted by");
}

/// A write is on its slow way to a relay while its writer dies. Meanwhile a deletion with a greater
/// stamp spreads and is collected, also by the writer's next life, of which the relay does not hear.
fn late_at_a_relay(plan: &mut Plan) {
    const WRITER: usize = 0;
    const RELAY: usize = 1;
    let others = || vec![2, 3];
    let set = |value: &str| ClientRequest::Set(b"k".to_vec(), value.as_bytes().to_vec());
    let profile = "description = 'one way is slow'\n[default]\nlatency = '1ms'\n\
                   [[link]]\nfrom = 0\nto = 1\none_way = true\nlatency = '2s'";
    plan.nodes = 4;
    plan.wires = Wires::Profile(Box::new(Profile::parse("late", profile).expect("it is one")));
    plan.delivery = Delivery::Lossy;
    plan.detection = Duration::from_secs(60);
    plan.settings.fanout = 1;
    plan.settings.eager = true;
    plan.settings.relay_window = Some(Duration::ZERO);
    plan.settings.interval = Duration::from_millis(50);
    plan.settings.durability = Durability::None;
    plan.settings.retire_after = Duration::from_secs(3_600);
    let at = Duration::from_millis;
    let ask = |node, requests| Act::Ask { node, requests };
    let cut = |from, to| Act::Cut { from, to, one_way: true };
    plan.acts = vec![
        (at(10_000), ask(3, vec![set("before")])),
        // From now on the writer hears nobody, and only the relay will hear of it.
        (at(12_000), cut(vec![RELAY, 2, 3], vec![WRITER])),
        (at(12_000), cut(vec![WRITER], others())),
        (at(12_100), ask(WRITER, vec![set("late")])),
        (
            at(12_101),
            ask(3, vec![set("once"), set("more"), ClientRequest::Delete(vec![b"k".to_vec()])]),
        ),
        (at(12_800), Act::Crash(WRITER)),
        (at(12_810), Act::Heal),
        (at(12_810), cut(others(), vec![RELAY])),
        (at(12_810), cut(vec![RELAY], vec![WRITER])),
        (at(12_820), Act::Restart(WRITER)),
        (at(15_000), Act::Heal),
    ];
    plan.faults_end = at(15_000);
}

/// A relay that passes on what has lost: it comes to a node that has collected what it lost to.
#[test]
fn a_relay_of_losers_is_noticed() {
    let breach = collecting("deletes", Careless::RelaysLosers);
    let breach = Breach { plan: late_at_a_relay, ..breach };
    breach.is_noticed("order", "has come back after its deletion");
}

/// What an earlier life of a member had its present one may have lost: it comes to claim a deletion that
/// it never got.
#[test]
fn a_row_of_an_earlier_life_is_noticed() {
    let breach = collecting("retire-in-partition", Careless::KeepsOldRows);
    Breach { plan: keep_dying, ..breach }.is_noticed("vector", "claims");
}

/// What a member had sent before it had the deletion is on its way while the others collect.
#[test]
fn a_vector_that_does_not_cover_the_rows_is_noticed() {
    let breach = collecting("deletes", Careless::IgnoresRows).muting(BUT_RESURRECTION);
    breach.is_noticed("resurrection", "which was deleted by");
}

/// A key that has ended and is never taken out.
#[test]
fn a_key_that_stays_after_its_end_is_noticed() {
    let breach = collecting("deadlines", Careless::KeepsExpired);
    breach.is_noticed("expired", "keys with deadlines that have passed are left");
}

/// A key that is taken out before the others have claimed anything: who still has it takes that for
/// damage.
#[test]
fn a_key_that_is_taken_out_too_early_is_noticed() {
    let breach = collecting("deadlines", Careless::ForgetsEarly);
    breach.is_noticed("alarm", "but other cells");
}
