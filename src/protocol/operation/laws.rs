//! Laws of the data types: whatever happens to messages, in the end all peers answer alike, and nothing
//! is lost that need not be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::protocol::boundary::{Input, Output, Reply, Request, Token};
use crate::protocol::codec;
use crate::protocol::config::Config;
use crate::protocol::id::NodeId;
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Dot;
use crate::protocol::time::Time;
use crate::protocol::version::Intervals;

const NODES: usize = 3;

/// Keys on which anything may be asked for.
const MIXED: [&str; 2] = ["m", "n"];

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// A client asks a node for the operation with this number, on one of the keys.
    Ask { node: usize, kind: u8, key: u8, name: u8 },
    /// What has gathered at a node is carried out; it is before anything comes to it from others as well.
    CarryOut { node: usize },
    /// The message at this place is delivered next, or lost.
    Deliver { at: prop::sample::Index, lost: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ask = (0..NODES, 0..16u8, 0..2u8, 0..3u8);
    let ask = ask.prop_map(|(node, kind, key, name)| Step::Ask { node, kind, key, name });
    let deliver = (any::<prop::sample::Index>(), prop::bool::weighted(0.2));
    let deliver = deliver.prop_map(|(at, lost)| Step::Deliver { at, lost });
    let carry_out = (0..NODES).prop_map(|node| Step::CarryOut { node });
    proptest::collection::vec(prop_oneof![4 => ask, 1 => carry_out, 6 => deliver], 0..130)
}

/// Nodes whose messages wait until they are delivered.
struct Cluster {
    now: Time,
    shards: Vec<Shard>,
    /// What each is to carry out.
    outputs: Vec<Output>,
    under_way: VecDeque<(usize, usize, Vec<u8>)>,
}

fn id(at: usize) -> NodeId {
    NodeId(at as u128 + 1)
}

impl Cluster {
    fn new() -> Self {
        let shards = (0..NODES).map(|at| {
            let mut config = Config::new(id(at), Origin(at as u64 + 1), at as u64);
            config.roster = false;
            Shard::new(config)
        });
        let (shards, under_way) = (shards.collect(), VecDeque::new());
        let outputs = (0..NODES).map(|_| Output::default()).collect();
        let mut cluster = Self { now: Time::START, shards, outputs, under_way };
        for at in 0..NODES {
            for other in (0..NODES).filter(|other| *other != at) {
                cluster.handle(at, Input::PeerUp(id(other), Duration::from_millis(1)));
            }
        }
        cluster
    }

    fn handle(&mut self, at: usize, input: Input<'_>) {
        self.shards[at].handle(self.now, input, &mut self.outputs[at]);
        self.carry_out(at);
    }

    fn carry_out(&mut self, at: usize) {
        let mut output = std::mem::take(&mut self.outputs[at]);
        self.shards[at].finish(self.now, &mut output);
        for send in output.send {
            let frame = codec::encode(&send.envelope);
            for to in send.to.iter() {
                self.under_way.push_back((at, to.0 as usize - 1, frame.clone()));
            }
        }
    }

    fn deliver(&mut self, at: usize) {
        let Some((from, to, frame)) = self.under_way.remove(at) else { return };
        self.handle(
            to,
            Input::Message(
                id(from),
                codec::decode(&frame).expect("what was encoded can be decoded"),
            ),
        );
    }

    fn ask(&mut self, at: usize, operation: &Operation<'_>) -> Answer {
        self.ask_and_see(at, operation).0
    }

    /// The answer, and the dot that stands for what was asked; the output gathers more.
    fn ask_and_see(&mut self, at: usize, operation: &Operation<'_>) -> (Answer, Option<Dot>) {
        let moment = Moment { wall: WallTime(1_000), dice: 3 };
        let request = Input::Request(Token(0), Request::Operate { operation, moment });
        self.shards[at].handle(self.now, request, &mut self.outputs[at]);
        match self.outputs[at].reply.pop() {
            Some((_, Reply::Operated { answer, written })) => (answer, written.map(|it| it.1)),
            other => panic!("{other:?}"),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Ask { .. } => {}
            Step::CarryOut { node } => self.carry_out(*node),
            Step::Deliver { .. } if self.under_way.is_empty() => {}
            Step::Deliver { at, lost: true } => {
                self.under_way.remove(at.index(self.under_way.len()));
            }
            Step::Deliver { at, lost: false } => self.deliver(at.index(self.under_way.len())),
        }
    }

    fn settle(&mut self) {
        (0..NODES).for_each(|at| self.carry_out(at));
        for _ in 0..200 {
            while !self.under_way.is_empty() {
                self.deliver(0);
            }
            let wakes = self.shards.iter().enumerate();
            let wakes = wakes.filter_map(|(at, shard)| Some((shard.next_wake()?, at)));
            let Some((time, at)) = wakes.min() else { return };
            self.now = self.now.max(time);
            self.handle(at, Input::Wake(WallTime(0)));
        }
    }
}

/// An operation that eventual mode takes.
fn operation(kind: u8, key: &'static str, name: u8) -> Operation<'static> {
    let name: Word<'static> = ["x", "y", "z"][usize::from(name)].into();
    let key: Word<'static> = key.into();
    match kind {
        0 => {
            let (expiry, when) = (Expiry::None, When::Always);
            Operation::Text(Text::Set { key, value: "7".into(), expiry, when, get: false })
        }
        1 => Operation::Keys(Keys::Delete(vec![key])),
        2..=4 => Operation::Text(Text::Add { key, by: i64::from(kind) }),
        5 | 6 => Operation::Hash(Hash::Set(key, vec![(name, "v".into())])),
        7 => Operation::Hash(Hash::Delete(key, vec![name])),
        8..=10 => Operation::Sets(Sets::Add(key, vec![name])),
        11 => Operation::Sets(Sets::Remove(key, vec![name])),
        12 | 13 => {
            let end = if kind == 12 { End::Left } else { End::Right };
            Operation::Lists(Lists::Push { key, elements: vec![name, name], end, present: false })
        }
        _ => Operation::Sorted(Sorted::Add {
            key,
            when: When::Always,
            toward: Toward::Any,
            changed: false,
            increment: false,
            pairs: vec![(name, f64::from(kind))],
        }),
    }
}

/// What a node answers to everything that can be asked of a key.
fn answers(cluster: &mut Cluster, at: usize, key: &'static str) -> Vec<Answer> {
    let word: Word<'static> = key.into();
    let by = By::Rank(0, -1);
    let range =
        Sorted::Range { key: word, by, reverse: false, limit: None, scores: true, to: None };
    let reads = [
        Operation::Text(Text::Get(word)),
        Operation::Keys(Keys::Type(word)),
        Operation::Hash(Hash::All(word)),
        Operation::Sets(Sets::Members(word)),
        Operation::Lists(Lists::Range(word, 0, -1)),
        Operation::Sorted(range),
    ];
    reads.iter().map(|read| cluster.ask(at, read)).collect()
}

proptest! {
    /// Whatever was asked where, and whatever was lost or came in another order: in the end all peers
    /// answer every question alike, and their cells have the same fingerprint.
    #[test]
    fn all_answer_alike_in_the_end(steps in steps()) {
        let mut cluster = Cluster::new();
        for step in steps {
            match step {
                Step::Ask { node, kind, key, name } => {
                    let key = MIXED[usize::from(key)];
                    cluster.ask(node, &operation(kind, key, name));
                    let members = cluster.ask(node, &Operation::Sets(Sets::Members(key.into())));
                    if let Answer::Set(members) = members {
                        let size = cluster.ask(node, &Operation::Sets(Sets::Size(key.into())));
                        prop_assert_eq!(size, Answer::count(members.len()));
                    }
                }
                other => cluster.step(&other),
            }
        }
        cluster.settle();
        for key in MIXED {
            let first = answers(&mut cluster, 0, key);
            for at in 1..NODES {
                prop_assert_eq!(&answers(&mut cluster, at, key), &first, "node {} on {}", at, key);
            }
        }
        let prints: BTreeSet<_> =
            cluster.shards.iter().map(|shard| shard.store().fingerprint().to_string()).collect();
        prop_assert_eq!(prints.len(), 1);
    }

    /// Of a number that nobody sets or deletes no increment is lost; in a set from which nobody removes
    /// no member is; in a list no push.
    #[test]
    fn nothing_is_lost_that_nobody_replaced(steps in steps()) {
        let mut cluster = Cluster::new();
        let (mut sum, mut members, mut pushed) = (0, BTreeSet::new(), 0);
        for step in steps {
            match step {
                Step::Ask { node, kind: kind @ 2..=4, .. } => {
                    sum += i64::from(kind);
                    cluster.ask(node, &operation(kind, "count", 0));
                }
                Step::Ask { node, kind: kind @ 8..=10, name, .. } => {
                    members.insert(name);
                    cluster.ask(node, &operation(kind, "set", name));
                }
                Step::Ask { node, kind: kind @ 12..=13, name, .. } => {
                    pushed += 2;
                    cluster.ask(node, &operation(kind, "list", name));
                }
                other => cluster.step(&other),
            }
        }
        cluster.settle();
        for at in 0..NODES {
            let count = cluster.ask(at, &Operation::Text(Text::Get("count".into())));
            let expected = match sum {
                0 => Answer::Nil,
                sum => Answer::bulk(sum.to_string()),
            };
            prop_assert_eq!(count, expected);
            let size = cluster.ask(at, &Operation::Sets(Sets::Size("set".into())));
            prop_assert_eq!(size, Answer::count(members.len()));
            let length = cluster.ask(at, &Operation::Lists(Lists::Length("list".into())));
            prop_assert_eq!(length, Answer::count(pushed));
        }
    }

    /// An add that no removal had seen stands: the model knows of each node which adds have come to it.
    #[test]
    fn an_add_wins_over_a_removal_that_had_not_seen_it(steps in steps()) {
        let mut cluster = Cluster::new();
        // The adds of each member: who added, with which number, and those a removal had seen.
        let (mut adds, mut removed) = (BTreeMap::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Ask { node, kind: kind @ 8..=11, name, .. } => {
                    let before = cluster.shards[node].vector().clone();
                    let (_, dot) = cluster.ask_and_see(node, &operation(kind, "set", name));
                    if kind == 11 {
                        // Whoever has seen an add has seen the same origin's earlier ones, which it
                        // replaced.
                        let has_seen = |dot: &Dot| {
                            let held = before.origin(dot.origin);
                            let at_least = (dot.seq..).map(|seq| Dot { seq, ..*dot });
                            let last = held.map_or(0, Intervals::last);
                            at_least.take_while(|it| it.seq <= last).any(|it| {
                                adds.get(&it) == Some(&name) && before.contains(it)
                            })
                        };
                        let seen = adds.iter().filter(|(dot, of)| **of == name && has_seen(dot));
                        removed.extend(seen.map(|(dot, _)| *dot));
                    } else {
                        // It may be one that stands already: then no removal has seen it.
                        let add = dot.expect("an add has a dot");
                        prop_assert!(!removed.contains(&add), "{:?} was removed", add);
                        adds.insert(add, name);
                    }
                }
                other => cluster.step(&other),
            }
        }
        cluster.settle();
        let stands: BTreeSet<u8> =
            adds.iter().filter(|(dot, _)| !removed.contains(*dot)).map(|(_, name)| *name).collect();
        for at in 0..NODES {
            for name in &stands {
                let member: Word<'static> = ["x", "y", "z"][usize::from(*name)].into();
                let shown = cluster.ask(at, &Operation::Sets(Sets::Contains("set".into(), member)));
                prop_assert_eq!(shown, Answer::flag(true), "member {} at node {}", name, at);
            }
        }
    }
}
