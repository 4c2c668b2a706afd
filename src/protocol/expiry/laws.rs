//! Laws of forgetting: nobody can tell from any answer whether a node has forgotten a key that has ended,
//! and all end with the same.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::boundary::{Input, Request, Token};
use super::super::operation::{
    Answer, End, Ends, Expiry as Deadline, Hash, Keys, Lists, Only, Operation, Sets, Text, When,
    Word,
};
use super::super::shard::Careless;
use super::cluster_tests::{Cluster, LONG, SECOND, id};

const KEYS: [&str; 3] = ["k", "l", "m"];

/// A step of a run.
#[derive(Clone, Debug)]
enum Step {
    /// A client asks a node.
    Ask { node: usize, kind: u8, key: usize, name: usize, ttl: u64 },
    /// Time passes, in seconds.
    Pass(u64),
    /// A node sleeps, or wakes again.
    Sleep(usize, bool),
    /// A link goes, or comes back.
    Cut(usize, usize, bool),
    /// What is under way is lost.
    Lose,
    /// A node crashes and starts again.
    Crash(usize),
    /// A node puts away what it has and fills itself anew.
    Rebuild(usize),
    /// A node is retired by another.
    Retire(usize, usize),
}

/// Without trouble everybody hears of everything before the next step.
fn steps(nodes: usize, with_trouble: bool) -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    let node = move || 0..nodes;
    let ttl = prop_oneof![1..8u64, 30..120u64];
    let ask = (node(), 0..16u8, 0..KEYS.len(), 0..3usize, ttl);
    let ask = ask.prop_map(|(node, kind, key, name, ttl)| Step::Ask { node, kind, key, name, ttl });
    let pass = prop_oneof![1..8u64, 20..90u64].prop_map(Step::Pass);
    let sleep = (node(), any::<bool>()).prop_map(|(node, sleeps)| Step::Sleep(node, sleeps));
    let cut = (node(), node(), any::<bool>()).prop_map(|(one, other, cut)| {
        let other = if one == other { (one + 1) % 2 } else { other };
        Step::Cut(one, other, cut)
    });
    let weight = u32::from(with_trouble);
    let step = prop_oneof![
        12 => ask,
        6 => pass,
        2 * weight => cut,
        weight => sleep,
        weight => Just(Step::Lose),
        weight => node().prop_map(Step::Crash),
        weight => node().prop_map(Step::Rebuild),
        weight => (node(), node()).prop_map(|(by, node)| Step::Retire(by, node)),
    ];
    proptest::collection::vec(step, 1..60)
}

fn operation(kind: u8, key: usize, name: usize, end: u64) -> Operation<'static> {
    let word: Word<'static> = KEYS[key].into();
    let name: Word<'static> = ["x", "y", "z"][name].into();
    let set = |expiry| Text::Set { key: word, value: name, expiry, when: When::Always, get: false };
    let at = i64::try_from(end).unwrap_or(i64::MAX);
    match kind {
        0 => Operation::Text(set(Deadline::None)),
        1 => Operation::Text(set(Deadline::Ends(Ends::At(end as i64)))),
        2 => Operation::Keys(Keys::Delete(vec![word])),
        3 => Operation::Text(Text::Add { key: word, by: 3 }),
        4 | 5 => Operation::Hash(Hash::Set(word, vec![(name, "v".into())])),
        6 => Operation::Hash(Hash::Delete(word, vec![name])),
        7 | 8 => Operation::Sets(Sets::Add(word, vec![name])),
        9 => Operation::Sets(Sets::Remove(word, vec![name])),
        10 => {
            let (elements, end) = (vec![name], End::Right);
            Operation::Lists(Lists::Push { key: word, elements, end, present: false })
        }
        11 => Operation::Keys(Keys::Persist(word)),
        _ => Operation::Keys(Keys::Expire { key: word, ends: Ends::At(at), only: Only::Always }),
    }
}

/// What a node answers to everything that can be asked.
fn answers(cluster: &mut Cluster, at: usize) -> Vec<Answer> {
    let mut answers = vec![cluster.ask(at, Operation::Keys(Keys::Size))];
    for key in KEYS {
        let word: Word<'static> = key.into();
        let reads = [
            Operation::Text(Text::Get(word)),
            Operation::Keys(Keys::Type(word)),
            Operation::Keys(Keys::ExpireTime { key: word, milliseconds: true }),
            Operation::Hash(Hash::All(word)),
            Operation::Sets(Sets::Members(word)),
            Operation::Lists(Lists::Range(word, 0, -1)),
        ];
        answers.extend(reads.into_iter().map(|read| cluster.ask(at, read)));
    }
    answers
}

fn run(cluster: &mut Cluster, steps: &[Step], with_trouble: bool) -> Vec<Vec<Answer>> {
    let mut told = Vec::new();
    for step in steps {
        match *step {
            Step::Ask { node, kind, key, name, ttl } => {
                let end = cluster.wall(node).0 + ttl * 1_000;
                told.push(vec![cluster.ask(node, operation(kind, key, name, end))]);
            }
            Step::Pass(seconds) => {
                cluster.pass(u32::try_from(seconds).unwrap_or(u32::MAX) * SECOND);
                for at in 0..cluster.shards.len() {
                    told.push(answers(cluster, at));
                }
            }
            Step::Sleep(node, true) => drop(cluster.asleep.insert(node)),
            Step::Sleep(node, false) => drop(cluster.asleep.remove(&node)),
            Step::Cut(one, other, cut) => cluster.set_cut(one, other, cut),
            Step::Lose => cluster.lose(),
            Step::Crash(node) => cluster.start(node),
            Step::Rebuild(node) => {
                cluster.handle(node, Input::Request(Token(0), Request::Rebuild));
            }
            Step::Retire(by, node) => {
                let retire = Request::Retire { node: id(node) };
                cluster.handle(by, Input::Request(Token(0), retire));
            }
        }
        if !with_trouble || !matches!(step, Step::Ask { .. }) {
            cluster.deliver();
        }
    }
    told
}

fn heal(cluster: &mut Cluster) {
    cluster.asleep.clear();
    cluster.calm();
    for (one, other) in cluster.cut.clone() {
        cluster.set_cut(one, other, false);
    }
    cluster.pass(LONG + LONG);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Of two runs that are alike but that in one nothing is ever forgotten, all answers are alike; and
    /// in the other nothing is left in the end of what has ended. Nodes that write a key that is over at
    /// the same time do not know of each other here: each may begin it anew.
    #[test]
    fn no_answer_tells_whether_anything_was_forgotten(
        steps in steps(2, false),
        ahead in 0..30_000u64,
    ) {
        let mut told = Vec::new();
        for careless in [Careless::No, Careless::KeepsExpired] {
            let mut cluster = Cluster::with(2, careless, |_| ());
            cluster.ahead[1] = ahead;
            let mut answered = run(&mut cluster, &steps, false);
            heal(&mut cluster);
            prop_assert!(cluster.agree(), "{:?}", careless);
            answered.extend((0..2).map(|at| answers(&mut cluster, at)));
            let ended = cluster.shard(0).has_ended_keys();
            prop_assert!(!ended || careless == Careless::KeepsExpired);
            told.push(answered);
        }
        prop_assert_eq!(&told[0], &told[1]);
    }

    /// Whatever is lost, whoever crashes, fills itself anew or is retired: all answer alike in the end,
    /// nobody takes another for damaged, and nothing is left of what has ended.
    #[test]
    fn all_end_with_the_same(
        steps in steps(3, true),
        ahead in 0..30_000u64,
        dice in proptest::option::of(any::<u64>()),
    ) {
        let mut cluster = Cluster::new(3);
        cluster.ahead[2] = ahead;
        cluster.trouble(dice);
        run(&mut cluster, &steps, true);
        heal(&mut cluster);
        let first = answers(&mut cluster, 0);
        cluster.ahead[2] = 0;
        for at in 1..3 {
            prop_assert_eq!(&answers(&mut cluster, at), &first);
            prop_assert!(!cluster.shard(at).has_ended_keys());
        }
        prop_assert!(cluster.agree());
        let prints: BTreeSet<_> =
            (0..3).map(|at| cluster.shard(at).store().fingerprint().to_string()).collect();
        prop_assert_eq!(prints.len(), 1);
    }
}
