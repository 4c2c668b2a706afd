//! Laws of replication: a few shards on a network that drops, doubles and reorders, with restarts,
//! seen by somebody who knows every write ever made.
//!
//! After every step, at every node:
//! 1. for every dot that is marked, the node has that cell or something greater in its place;
//! 2. the dot of every cell that it has is marked.
//!
//! When the faults stop, all nodes hold the same, and it is what merging the marked writes in any
//! order gives. That the rules of `delta` are needed is shown by breaking them one at a time: each
//! broken rule breaks the first law.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use proptest::test_runner::{Config as RunnerConfig, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::protocol::cell::{CellWrite, Content};
use crate::protocol::codec;
use crate::protocol::config::Strategy;
use crate::protocol::digest::DigestHash;
use crate::protocol::id::Origin;
use crate::protocol::message::ExchangeId;
use crate::protocol::store::tests::merged;
use crate::protocol::time::WallTime;

const NODES: usize = 3;

/// What happens next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A node makes these writes in one go: of each cell its key, field, and whether it is deleted.
    Write(usize, Vec<Vec<(u8, u8, bool)>>),
    Deliver(usize),
    Duplicate(usize),
    Drop(usize),
    Pass(u64),
    /// A node loses everything and comes back as a new origin; what is under way stays so.
    Restart(usize),
}

/// A rule that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// The sender's vector is merged with the first chunk.
    MergesEarly,
    /// What replaced a cell during the exchange is not sent.
    SkipsReplaced,
    /// A part of a write marks all of its dots, as if it had only one.
    MarksWholeWrites,
    /// A delta is taken that was not asked for.
    TakesAnything,
    /// Parts of two sendings are taken for one.
    MixesSendings,
}

struct World {
    now: Time,
    fault: Fault,
    shards: Vec<Shard>,
    restarts: u64,
    wire: Vec<(NodeId, NodeId, Vec<u8>)>,
    /// Every cell ever written.
    made: BTreeMap<Dot, (Stamp, (Key, Field), Content)>,
    wakes: Vec<Option<Time>>,
}

fn node(at: usize) -> NodeId {
    NodeId(at as u128 + 1)
}

impl World {
    fn new(fault: Fault, strategy: Strategy, eager: bool) -> Self {
        let mut world = Self {
            now: Time::START,
            fault,
            shards: Vec::new(),
            restarts: 0,
            wire: Vec::new(),
            made: BTreeMap::new(),
            wakes: vec![None; NODES],
        };
        for at in 0..NODES {
            let mut config = Config::new(node(at), Origin(at as u64 + 1), at as u64);
            config.strategy = strategy;
            config.roster = false;
            config.eager = eager;
            // Chunks of one write or two, so that much can happen between them.
            config.delta_bytes_max = 60;
            world.shards.push(Shard::new(config));
        }
        (0..NODES).for_each(|at| world.meet_everybody(at));
        world
    }

    fn meet_everybody(&mut self, at: usize) {
        for peer in (0..NODES).filter(|peer| *peer != at) {
            self.handle(at, Input::PeerUp(node(peer), Duration::from_millis(1)));
        }
    }

    fn handle(&mut self, at: usize, input: Input<'_>) {
        let mut output = Output::default();
        self.shards[at].handle(self.now, input, &mut output);
        self.carry_out(at, output);
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        for mut send in output.send {
            if let Message::Delta { chunk, .. } = &mut send.envelope.message
                && self.fault == Fault::MixesSendings
            {
                chunk.exchange = ExchangeId(0);
                chunk.against = DigestHash::default();
            }
            let frame = codec::encode(&send.envelope);
            self.wire.extend(send.to.iter().map(|to| (node(at), *to, frame.clone())));
        }
        self.wakes[at] = output.wake;
        for event in output.events {
            assert!(
                !matches!(event, Event::Quarantined { .. } | Event::Damage { .. }),
                "{event:?}"
            );
        }
        if self.fault == Fault::SkipsReplaced {
            let outgoing = &mut self.shards[at].exchanges.outgoing;
            outgoing.iter_mut().for_each(|(_, exchange)| exchange.forget_replacing());
        }
    }

    fn write(&mut self, at: usize, cells: &[(u8, u8, bool)], output: &mut Output) {
        let shard = &mut self.shards[at];
        let names: BTreeMap<(u8, u8), bool> =
            cells.iter().map(|(key, field, gone)| ((*key, *field), *gone)).collect();
        let value = shard.seq.to_le_bytes();
        let cells: Vec<CellWrite> = names
            .into_iter()
            .map(|((key, field), gone)| {
                let key = Key::from(&[key][..]);
                let field = Field::new(if field == 0 { &[] } else { std::slice::from_ref(&field) });
                let seen = shard.store.seen(&key, &field, shard.config.origin);
                let content = if gone { Content::Tombstone } else { Content::from(&value[..]) };
                CellWrite { key, field, content, seen }
            })
            .collect();
        let reply = shard.write(self.now, cells.clone(), 0, output);
        output.wake = shard.next_wake();
        let Reply::Written { stamp, dot, .. } = reply else { panic!("{reply:?}") };
        for (back, cell) in (0..).zip(cells.into_iter().rev()) {
            let dot = Dot { seq: dot.seq - back, ..dot };
            self.made.insert(dot, (stamp, (cell.key, cell.field), cell.content));
        }
    }

    fn deliver(&mut self, from: NodeId, to: NodeId, frame: &[u8]) {
        let at = to.0 as usize - 1;
        let envelope = codec::decode(frame).expect("frames are whole");
        let mut marks = Vec::new();
        let mut merges = None;
        match &envelope.message {
            Message::Delta { .. } if self.fault == Fault::MergesEarly => {
                let sender = &self.shards[from.0 as usize - 1];
                let mut outgoing = sender.exchanges.outgoing.iter();
                merges = outgoing.any(|(peer, _)| *peer == to).then(|| sender.vector.clone());
            }
            Message::Delta { chunk, .. } if self.fault == Fault::MarksWholeWrites => {
                let stamps: BTreeSet<_> = chunk.writes.iter().map(|write| write.stamp).collect();
                let made = self.made.iter().filter(|(_, made)| stamps.contains(&made.0));
                marks.extend(made.map(|(dot, _)| *dot));
            }
            Message::Delta { round, chunk, .. }
                if [Fault::TakesAnything, Fault::MixesSendings].contains(&self.fault) =>
            {
                self.shards[at].exchanges.tell(from, *round, chunk.against);
            }
            _ => {}
        }
        self.handle(at, Input::Message(from, envelope));
        let vector = &mut self.shards[at].vector;
        for dot in marks {
            vector.insert(dot);
        }
        merges.iter().for_each(|theirs| vector.merge(theirs));
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for at in 0..NODES {
            if self.wakes[at].is_some_and(|wake| wake <= self.now) {
                self.handle(at, Input::Wake(WallTime(0)));
            }
        }
    }

    fn step(&mut self, step: &Step) {
        let pick = |wire: &[_], at: usize| (!wire.is_empty()).then(|| at % wire.len().max(1));
        match step {
            Step::Write(at, writes) => {
                let mut output = Output::default();
                writes.iter().for_each(|cells| self.write(*at, cells, &mut output));
                self.carry_out(*at, output);
            }
            Step::Deliver(at) => {
                let Some(at) = pick(&self.wire, *at) else { return };
                let (from, to, frame) = self.wire.remove(at);
                self.deliver(from, to, &frame);
            }
            Step::Duplicate(at) => {
                let Some(at) = pick(&self.wire, *at) else { return };
                let (from, to, frame) = self.wire[at].clone();
                self.deliver(from, to, &frame);
            }
            Step::Drop(at) => {
                let Some(at) = pick(&self.wire, *at) else { return };
                self.wire.remove(at);
            }
            Step::Pass(millis) => self.pass(Duration::from_millis(*millis)),
            Step::Restart(at) => {
                self.restarts += 1;
                let mut config = self.shards[*at].config.clone();
                config.origin = Origin(100 + self.restarts);
                config.seed = 100 + self.restarts;
                self.shards[*at] = Shard::new(config);
                for peer in (0..NODES).filter(|peer| peer != at) {
                    self.handle(peer, Input::PeerDown(node(*at)));
                    self.handle(peer, Input::PeerUp(node(*at), Duration::from_millis(1)));
                }
                self.meet_everybody(*at);
            }
        }
    }

    /// The two laws, and that the model and the books agree.
    fn check(&self) -> Result<(), TestCaseError> {
        for shard in &self.shards {
            let cells = shard.store.dump();
            for (stamp, dot, _) in cells.values() {
                prop_assert!(shard.vector.contains(*dot), "{stamp} is held but not marked");
            }
            for (dot, (stamp, (key, field), _)) in &self.made {
                if !shard.vector.contains(*dot) {
                    continue;
                }
                let stands = |field: &Field| cells.get(&(key.clone(), field.clone()));
                let own = stands(field).is_some_and(|stands| stands.0 >= *stamp);
                let covered = stands(&Field::whole_key()).is_some_and(|whole| whole.0 > *stamp);
                prop_assert!(
                    own || covered,
                    "{:?} has marked {dot} but has nothing in its place",
                    shard.config.node
                );
            }
            let claimed: u64 = shard.vector.iter().map(|(_, held)| expanse(held)).sum();
            let marked = self.made.keys().filter(|dot| shard.vector.contains(**dot)).count();
            prop_assert_eq!(claimed, marked as u64, "marks only what was ever written");
        }
        Ok(())
    }

    /// No more faults: everything arrives, in order, until all is quiet.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..400 {
            while !self.wire.is_empty() {
                let (from, to, frame) = self.wire.remove(0);
                self.deliver(from, to, &frame);
                self.check()?;
            }
            self.pass(Duration::from_millis(250));
        }
        self.check()?;
        let ours = self.shards[0].store.dump();
        for shard in &self.shards {
            prop_assert_eq!(shard.summary(), self.shards[0].summary());
            prop_assert_eq!(&shard.store.dump(), &ours);
            prop_assert!(shard.exchanges.incoming.is_empty());
            prop_assert!(shard.exchanges.outgoing.is_empty());
        }
        let marked = self.made.iter().filter(|(dot, _)| self.shards[0].vector.contains(**dot));
        let expected =
            merged(marked.map(|(dot, (stamp, name, content))| {
                (name.clone(), (*stamp, *dot, content.clone()))
            }));
        prop_assert_eq!(ours, expected);
        Ok(())
    }
}

fn expanse(held: &Intervals) -> u64 {
    held.ranges().iter().map(|(first, last)| last - first + 1).sum()
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let cell = (0..4u8, prop_oneof![2 => Just(0u8), 1 => 0..3u8], prop::bool::weighted(0.2));
    let cells = prop_oneof![
        2 => proptest::collection::vec(cell.clone(), 1),
        1 => proptest::collection::vec(cell, 2..4),
    ];
    let step = prop_oneof![
        20 => (0..NODES, proptest::collection::vec(cells, 1..4))
            .prop_map(|(at, writes)| Step::Write(at, writes)),
        // Mostly in order, as on a stream.
        30 => Just(Step::Deliver(0)),
        20 => any::<usize>().prop_map(Step::Deliver),
        5 => any::<usize>().prop_map(Step::Duplicate),
        6 => any::<usize>().prop_map(Step::Drop),
        12 => (1..1_500u64).prop_map(Step::Pass),
        1 => (0..NODES).prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..150)
}

fn strategies() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![
        2 => Just(Strategy::PushPull),
        1 => Just(Strategy::Push),
        1 => Just(Strategy::Pull),
    ]
}

/// Takes the steps and checks the laws after each.
fn run(mut world: World, steps: &[Step]) -> Result<World, TestCaseError> {
    for step in steps {
        world.step(step);
        world.check()?;
    }
    Ok(world)
}

proptest! {
    #![proptest_config(RunnerConfig {
        failure_persistence: None,
        ..RunnerConfig::default()
    })]

    /// Whatever is lost, doubled, late or restarted: nobody marks what it lacks, and all agree.
    #[test]
    fn a_marked_dot_has_had_its_effect(
        steps in steps(),
        strategy in strategies(),
        eager in prop::bool::weighted(0.3),
    ) {
        run(World::new(Fault::None, strategy, eager), &steps)?.settle()?;
    }
}

/// Whether any of many runs with `fault` breaks a law; the first that does is the last.
fn bites(fault: Fault) -> bool {
    let config = RunnerConfig {
        cases: if fault == Fault::None { 200 } else { 2_000 },
        max_shrink_iters: 0,
        failure_persistence: None,
        ..RunnerConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let outcome = runner
        .run(&steps(), |steps| run(World::new(fault, Strategy::PushPull, false), &steps).map(drop));
    outcome.is_err()
}

#[test]
fn merging_the_vector_early_marks_what_is_lacking() {
    assert!(bites(Fault::MergesEarly));
}

#[test]
fn skipping_what_replaced_a_cell_marks_what_is_lacking() {
    assert!(bites(Fault::SkipsReplaced));
}

#[test]
fn one_dot_for_several_cells_marks_what_is_lacking() {
    assert!(bites(Fault::MarksWholeWrites));
}

#[test]
fn taking_a_delta_unasked_marks_what_is_lacking() {
    assert!(bites(Fault::TakesAnything));
}

#[test]
fn mixing_two_sendings_marks_what_is_lacking() {
    assert!(bites(Fault::MixesSendings));
}

#[test]
fn without_a_fault_the_same_runs_keep_the_laws() {
    assert!(!bites(Fault::None));
}
