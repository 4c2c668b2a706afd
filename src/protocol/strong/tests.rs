//! Stories of the replicated log and the switch, with shards in memory.

mod requests_tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::*;
use crate::protocol::boundary::{Input, Reply, Request, Token};
use crate::protocol::codec;
use crate::protocol::config::{Config, Durability};
use crate::protocol::id::Origin;
use crate::protocol::operation::Word as Argument;
use crate::protocol::operation::{Answer, Expiry, Moment, Operation, Text, When};
use crate::protocol::recovery::Recovery;
use crate::protocol::stamp::Lamport;
use crate::protocol::time::WallTime;
use crate::protocol::version::VersionVector;

/// Nodes 1, 2, … in memory, each with a disk that is durable at once; messages take a millisecond.
struct Cluster {
    now: Time,
    shards: Vec<Option<Shard>>,
    disks: Vec<Vec<Vec<u8>>>,
    under_way: VecDeque<(Time, NodeId, NodeId, Vec<u8>)>,
    replies: BTreeMap<Token, Reply>,
    events: Vec<(NodeId, StrongEvent)>,
    next: u64,
    cut: Vec<(usize, usize)>,
    change: fn(&mut Config),
}

impl Cluster {
    fn new(nodes: usize, change: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            now: Time::START,
            shards: (0..nodes).map(|_| None).collect(),
            disks: vec![Vec::new(); nodes],
            under_way: VecDeque::new(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            next: 0,
            cut: Vec::new(),
            change,
        };
        (0..nodes).for_each(|at| cluster.start(at));
        cluster.pass(Duration::from_millis(100));
        cluster
    }

    fn id(at: usize) -> NodeId {
        NodeId(at as u128 + 1)
    }

    fn start(&mut self, at: usize) {
        self.rise(at, false);
    }

    /// Starts a node in spite of a hole in what its disk has.
    fn salvage(&mut self, at: usize) {
        let pieces = self.disks[at].len();
        self.disks[at].drain(pieces / 2..pieces / 2 + 3);
        self.rise(at, true);
    }

    fn rise(&mut self, at: usize, doubts: bool) {
        let node = Self::id(at);
        let seed = self.next + 7 * at as u64;
        self.next += 1;
        let mut config = Config::new(node, Origin(0), seed);
        config.durability = Durability::Always;
        config.interval = Duration::from_millis(200);
        (self.change)(&mut config);
        let mut recovery = Recovery::new(config.hash_seed);
        for frame in &self.disks[at] {
            recovery.apply(frame).unwrap();
        }
        if doubts {
            recovery.doubt();
        }
        let (shard, append) = recovery.into_shard(config, seed as u32);
        self.disks[at].push(append.records);
        self.shards[at] = Some(shard);
        for other in 0..self.shards.len() {
            if other != at && self.shards[other].is_some() && !self.is_cut(at, other) {
                self.handle(at, Input::PeerUp(Self::id(other), Duration::from_millis(1)));
                self.handle(other, Input::PeerUp(node, Duration::from_millis(1)));
            }
        }
        self.handle(at, Input::Wake(WallTime(0)));
    }

    fn stop(&mut self, at: usize) {
        self.shards[at] = None;
        for other in 0..self.shards.len() {
            if other != at {
                self.handle(other, Input::PeerDown(Self::id(at)));
            }
        }
    }

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn set_cut(&mut self, one: usize, other: usize, cut: bool) {
        let link = (one.min(other), one.max(other));
        self.cut.retain(|it| *it != link);
        for (at, peer) in [(one, other), (other, one)] {
            match cut {
                true => self.handle(at, Input::PeerDown(Self::id(peer))),
                false => self.handle(at, Input::PeerUp(Self::id(peer), Duration::from_millis(1))),
            }
        }
        if cut {
            self.cut.push(link);
        }
    }

    fn handle(&mut self, at: usize, input: Input<'_>) {
        let Some(shard) = &mut self.shards[at] else { return };
        let mut output = Output::default();
        shard.handle(self.now, input, &mut output);
        self.carry_out(at, output);
    }

    fn carry_out(&mut self, at: usize, mut output: Output) {
        let Some(shard) = &mut self.shards[at] else { return };
        shard.finish(self.now, &mut output);
        let tell = output.append.tell;
        for piece in output.append.pieces() {
            assert!(piece.len() <= 72 << 20, "the journal takes no piece of {} bytes", piece.len());
            self.disks[at].push(piece.to_vec());
        }
        let from = Self::id(at);
        for send in output.send {
            let frame = codec::encode(&send.envelope);
            // What has a stream of its own takes longer.
            let is_alone = matches!(send.lane, Lane::Exchange { .. });
            let at = self.now + Duration::from_millis(if is_alone { 3 } else { 1 });
            let place = self.under_way.partition_point(|(other, ..)| *other <= at);
            for to in send.to.iter().rev() {
                self.under_way.insert(place, (at, from, *to, frame.clone()));
            }
        }
        self.replies.extend(output.reply);
        for event in output.events {
            if let Event::Strong(event) = event {
                self.events.push((from, *event));
            }
        }
        if let Some(token) = tell {
            self.handle(at, Input::Durable(token));
        }
    }

    fn ask(&mut self, at: usize, request: Request<'_>) -> Token {
        let token = Token(1000 + self.next);
        self.next += 1;
        self.handle(at, Input::Request(token, request));
        token
    }

    fn operate(&mut self, at: usize, operation: &Operation<'_>) -> Token {
        let wall = WallTime(self.now.as_nanos() / 1_000_000);
        self.ask(at, Request::Operate { operation, moment: Moment { wall, dice: self.next } })
    }

    fn set(&mut self, at: usize, key: &str, value: &str) -> Token {
        self.ask(at, Request::Set { key: key.as_bytes(), value: value.as_bytes() })
    }

    fn get(&mut self, at: usize, key: &str) -> Token {
        let get = Text::Get(Argument(key.as_bytes()));
        self.operate(at, &Operation::Text(get))
    }

    /// Lets time pass until nothing is left to happen before its end.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let message = self.under_way.front().map(|(at, ..)| *at);
            let shards = self.shards.iter().enumerate();
            let wake =
                shards.filter_map(|(at, shard)| Some((shard.as_ref()?.next_wake()?, at))).min();
            let next = [message, wake.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if message.is_some_and(|at| at <= self.now) {
                let Some((_, from, to, frame)) = self.under_way.pop_front() else { break };
                let (sender, at) = (from.0 as usize - 1, to.0 as usize - 1);
                if self.shards[sender].is_some() && !self.is_cut(sender, at) {
                    self.handle(at, Input::Message(from, codec::decode(&frame).unwrap()));
                }
            } else if let Some((_, at)) = wake {
                self.handle(at, Input::Wake(WallTime(0)));
            }
        }
        self.now = end;
    }

    /// Lets time pass until there is an answer.
    fn answer(&mut self, token: Token) -> Reply {
        for _ in 0..6_000 {
            if let Some(reply) = self.replies.remove(&token) {
                return reply;
            }
            self.pass(Duration::from_millis(5));
        }
        panic!("no answer: {:#?}", self.status());
    }

    fn status(&self) -> Vec<StrongStatus> {
        self.shards.iter().flatten().map(Shard::strong_status).collect()
    }

    fn switch(&mut self, at: usize, to: Mode, without: &[usize]) -> Switched {
        let without = without.iter().map(|at| Self::id(*at)).collect();
        let order = SwitchOrder { to, without, dry_run: false };
        let token = self.ask(at, Request::Switch(&order));
        match self.answer(token) {
            Reply::Switched(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn value(&mut self, at: usize, key: &str) -> Option<String> {
        let token = self.get(at, key);
        match self.answer(token) {
            Reply::Operated { answer: Answer::Bulk(value), .. } => {
                Some(String::from_utf8(value).unwrap())
            }
            Reply::Operated { answer: Answer::Nil, .. } => None,
            other => panic!("{other:?}"),
        }
    }

    fn write(&mut self, at: usize, key: &str, value: &str) {
        let token = self.set(at, key, value);
        let reply = self.answer(token);
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?} {:#?}", self.status());
    }

    /// All that are up hold the same.
    fn converge(&mut self) {
        for _ in 0..2_000 {
            let mut all = self.shards.iter().flatten().map(Shard::summary);
            let first = all.next();
            if all.all(|it| Some(it) == first) {
                return;
            }
            self.pass(Duration::from_millis(20));
        }
        panic!("not the same: {:#?}", self.status());
    }
}

fn plain(_: &mut Config) {}

fn strong(config: &mut Config) {
    config.starts_strong = true;
    config.voters = 3;
}

/// A cluster that is to start strong does, and what one member writes every other one reads.
#[test]
fn a_cluster_starts_strong() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "a", "1");
    for at in 0..3 {
        assert_eq!(cluster.value(at, "a").as_deref(), Some("1"));
        cluster.write(at, "b", &at.to_string());
    }
    for at in 0..3 {
        assert_eq!(cluster.value(at, "b").as_deref(), Some("2"));
    }
    cluster.converge();
}

/// A member that does not vote passes what its clients want to a voter, and holds the same in the end.
#[test]
fn a_member_that_does_not_vote_answers_too() {
    let mut cluster = Cluster::new(5, |config| {
        config.voters = 3;
    });
    cluster.write(4, "a", "old");
    cluster.converge();
    assert_eq!(cluster.switch(4, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    for at in 0..5 {
        assert_eq!(cluster.value(at, "a").as_deref(), Some("old"));
        let text = at.to_string();
        cluster.write(at, "a", &text);
        assert_eq!(cluster.value((at + 1) % 5, "a"), Some(text));
        cluster.write(at, "a", "old");
    }
    cluster.converge();
}

/// There and back, again and again, and nothing is lost.
#[test]
fn a_cluster_switches_both_ways() {
    let mut cluster = Cluster::new(3, plain);
    for round in 0..6u32 {
        let key = format!("key{round}");
        cluster.write(round as usize % 3, &key, "eventual");
        let to = cluster.switch(round as usize % 3, Mode::Strong, &[]);
        assert_eq!(to, Switched::Done { epoch: Epoch(2 * round + 1) });
        assert_eq!(cluster.value((round as usize + 1) % 3, &key).as_deref(), Some("eventual"));
        cluster.write((round as usize + 1) % 3, &key, "strong");
        let to = cluster.switch((round as usize + 2) % 3, Mode::Eventual, &[]);
        assert_eq!(to, Switched::Done { epoch: Epoch(2 * round + 2) });
        cluster.converge();
        for at in 0..3 {
            assert_eq!(cluster.value(at, &key).as_deref(), Some("strong"));
        }
    }
}

/// Any one of three voters may die and come back; a majority that is lost is said to be.
#[test]
fn a_minority_may_fail() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "a", "0");
    for round in 0..9 {
        let (dead, at) = (round % 3, (round + 1) % 3);
        cluster.stop(dead);
        let text = round.to_string();
        cluster.write(at, "a", &text);
        cluster.start(dead);
        assert_eq!(cluster.value(dead, "a"), Some(text));
    }
    cluster.stop(0);
    cluster.stop(1);
    let token = cluster.set(2, "a", "alone");
    let reply = cluster.answer(token);
    assert_eq!(reply, Reply::Refused(Refusal::NoQuorum));
    cluster.start(0);
    assert_eq!(cluster.value(2, "a").as_deref(), Some("8"));
}

/// A member that was left out of a switch keeps what only it had, to be shown.
#[test]
fn what_was_left_out_is_an_orphan() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    cluster.write(3, "a", "old");
    cluster.write(3, "b", "old");
    cluster.converge();
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    cluster.write(3, "a", "orphan");
    cluster.write(3, "b", "orphan");
    cluster.write(3, "new", "orphan");
    let refused = cluster.switch(0, Mode::Strong, &[]);
    assert_eq!(refused, Switched::Unreachable { nodes: vec![Cluster::id(3)] });
    assert_eq!(cluster.switch(0, Mode::Strong, &[3]), Switched::Done { epoch: Epoch(1) });
    cluster.write(1, "b", "strong");
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(10));
    cluster.converge();
    let kept: Vec<_> = cluster.shards[3].as_ref().unwrap().orphans().cloned().collect();
    assert_eq!(kept.len(), 3, "{kept:?}");
    // It had not been touched since: the log has made it.
    assert_eq!(cluster.value(0, "b").as_deref(), Some("strong"));
    assert_eq!(cluster.value(0, "new"), None);
}

/// A voter whose disk is gone votes under a new number, and holds all of it again.
#[test]
fn a_voter_without_its_disk_is_a_new_one() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "a", "1");
    cluster.stop(1);
    cluster.disks[1].clear();
    cluster.write(0, "a", "2");
    cluster.start(1);
    cluster.pass(Duration::from_secs(10));
    let voters = &cluster.status()[1];
    assert!(voters.following, "{:#?}", cluster.status());
    assert_eq!(voters.voters.len(), 3);
    cluster.stop(0);
    assert_eq!(cluster.value(1, "a").as_deref(), Some("2"));
    cluster.write(1, "a", "3");
}

// What the lecture claims of strong consistency, one by one.

/// "When a client has its reply, every replica that a client can read answers with that value."
#[test]
fn a_reply_means_that_every_replica_shows_it() {
    let mut cluster = Cluster::new(5, |config| {
        config.starts_strong = true;
        config.voters = 5;
    });
    for round in 0..10usize {
        let text = round.to_string();
        cluster.write(round % 5, "note", &text);
        for at in 0..5 {
            assert_eq!(cluster.value(at, "note"), Some(text.clone()), "at {at}");
        }
    }
}

/// "Actions are deterministic: replicas that execute the same log come to the same state", whatever the
/// operations are, and whoever asks.
#[test]
fn the_same_log_gives_the_same_state() {
    let mut cluster = Cluster::new(3, strong);
    let mut dice = fastrand::Rng::with_seed(11);
    for number in 0..200u64 {
        let (at, key) = (dice.usize(..3), [b'a' + dice.u8(..4)]);
        let value = number.to_string();
        let (key, value) = (Argument(&key), Argument(value.as_bytes()));
        let operation = match dice.usize(..4) {
            0 => Operation::Text(Text::Append { key, value }),
            1 => Operation::Text(Text::Add { key, by: 3 }),
            2 => Operation::Keys(crate::protocol::operation::Keys::Delete(vec![key])),
            _ => {
                let (expiry, when) = (Expiry::None, When::Always);
                Operation::Text(Text::Set { key, value, expiry, when, get: false })
            }
        };
        cluster.operate(at, &operation);
        if dice.usize(..10) == 0 {
            cluster.pass(Duration::from_millis(3));
        }
    }
    cluster.pass(Duration::from_secs(2));
    let points: Vec<_> =
        cluster.shards.iter().flatten().map(|shard| shard.log_point().unwrap()).collect();
    assert!(points.windows(2).all(|two| two[0] == two[1]), "{points:?}");
}

/// "The log lets a replica that is out of date recover", also when the others have dropped what it lacks.
#[test]
fn the_log_brings_a_replica_back_that_was_away() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "note", "before");
    // Few bytes, which the log still has, and many, which it has dropped.
    for (round, bytes) in [10, 60_000].into_iter().enumerate() {
        cluster.stop(2);
        for number in 0..500 {
            cluster.set(round, "note", &number.to_string().repeat(bytes / 3));
            cluster.pass(Duration::from_millis(2));
        }
        cluster.write(round, "note", &format!("after {bytes}"));
        cluster.start(2);
        assert_eq!(cluster.value(2, "note"), Some(format!("after {bytes}")));
        cluster.converge();
    }
    let comes_back = |(node, event): &(NodeId, StrongEvent)| {
        *node == Cluster::id(2) && matches!(event, StrongEvent::CaughtUp { .. })
    };
    assert!(cluster.events.iter().any(comes_back), "the second time from another's state");
}

/// "2f+1 replicas survive f failures", in any order, one after the other as well: f = 2.
#[test]
fn five_survive_any_two() {
    let mut cluster = Cluster::new(5, |config| {
        config.starts_strong = true;
        config.voters = 5;
    });
    cluster.write(0, "note", "before");
    let pairs = (0..5usize).flat_map(|one| (0..5).map(move |other| (one, other)));
    for (one, other) in pairs.filter(|(one, other)| one != other) {
        let at = (0..5).find(|at| *at != one && *at != other).unwrap();
        cluster.stop(one);
        cluster.stop(other);
        let text = format!("without {one} and {other}");
        cluster.write(at, "note", &text);
        cluster.start(other);
        assert_eq!(cluster.value(other, "note"), Some(text.clone()));
        cluster.start(one);
        assert_eq!(cluster.value(one, "note"), Some(text));
    }
}

// What a switch must survive.

/// What was on its way when a member was fenced does not count once strong mode has begun.
#[test]
fn a_straggler_comes_too_late() {
    let mut cluster = Cluster::new(3, plain);
    cluster.write(0, "k", "old");
    cluster.converge();
    (0..2).for_each(|other| cluster.set_cut(2, other, true));
    cluster.write(2, "k", "straggler");
    cluster.under_way.clear();
    // What it would have sent before its link went, and what it says when it comes back.
    assert_eq!(cluster.switch(0, Mode::Strong, &[2]), Switched::Done { epoch: Epoch(1) });
    cluster.write(0, "k", "strong");
    (0..2).for_each(|other| cluster.set_cut(2, other, false));
    cluster.pass(Duration::from_secs(10));
    cluster.converge();
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("strong"));
    }
    assert_eq!(cluster.shards[2].as_ref().unwrap().orphans().count(), 1);
}

/// A counter that is far ahead does not beat a write of a later epoch.
#[test]
fn a_huge_counter_does_not_beat_a_later_epoch() {
    let mut cluster = Cluster::new(3, plain);
    cluster.shards[1].as_mut().unwrap().lamport = Lamport(1 << 43);
    cluster.write(1, "k", "huge");
    cluster.converge();
    cluster.shards[2].as_mut().unwrap().lamport = Lamport(1 << 20);
    assert_eq!(cluster.switch(2, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    cluster.write(0, "k", "strong");
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    cluster.write(2, "k", "eventual");
    cluster.converge();
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("eventual"));
    }
}

/// Voters whose cells differ although they hold the same do not open strong mode: it is given up. One
/// that differs from a majority fills itself from the others.
#[test]
fn different_fingerprints_give_a_switch_up() {
    for spoilt in [&[0usize, 1][..], &[1]] {
        let mut cluster = Cluster::new(3, plain);
        cluster.write(0, "k", "value");
        cluster.converge();
        for at in spoilt {
            let rotten = format!("rotten {at}");
            let shard = cluster.shards[*at].as_mut().unwrap();
            shard.store.spoil(b"k", Some(rotten.as_bytes()));
        }
        let switched = cluster.switch(2, Mode::Strong, &[]);
        if spoilt.len() == 2 {
            assert_eq!(switched, Switched::Aborted { epoch: Epoch(2) });
            cluster.write(0, "other", "goes on");
            continue;
        }
        let opened = switched == Switched::Done { epoch: Epoch(1) };
        assert!(opened || switched == Switched::Aborted { epoch: Epoch(2) }, "{switched:?}");
        cluster.pass(Duration::from_secs(20));
        cluster.converge();
        if opened {
            assert_eq!(cluster.value(1, "k").as_deref(), Some("value"));
        }
    }
}

/// Two that wish for the same at once get it, once; who wishes for something else is told.
#[test]
fn wishes_at_the_same_time_are_one_switch() {
    let mut cluster = Cluster::new(3, plain);
    let to_strong = SwitchOrder { to: Mode::Strong, without: Vec::new(), dry_run: false };
    let tokens = [0, 1, 2, 0].map(|at| cluster.ask(at, Request::Switch(&to_strong)));
    for token in tokens {
        let reply = cluster.answer(token);
        let fine = [
            Switched::Done { epoch: Epoch(1) },
            Switched::Already { epoch: Epoch(1) },
            Switched::Underway,
        ];
        assert!(fine.iter().any(|it| reply == Reply::Switched(it.clone())), "{reply:?}");
    }
    assert!(cluster.status().iter().all(|it| it.epoch == 1), "{:?}", cluster.status());
    let dry = SwitchOrder { to: Mode::Eventual, without: Vec::new(), dry_run: true };
    let token = cluster.ask(1, Request::Switch(&dry));
    assert!(matches!(cluster.answer(token), Reply::Switched(Switched::Possible { .. })));
    assert!(cluster.status().iter().all(|it| it.epoch == 1));
}

/// A majority of the voters that fails in the midst of a switch loses nothing: it is given up or ends well
/// once they are back.
#[test]
fn a_majority_that_fails_in_a_switch_loses_nothing() {
    for pause in [2, 5, 8, 12, 20, 40] {
        let mut cluster = Cluster::new(3, plain);
        cluster.write(0, "k", "kept");
        let order = SwitchOrder { to: Mode::Strong, without: Vec::new(), dry_run: false };
        cluster.ask(0, Request::Switch(&order));
        cluster.pass(Duration::from_millis(pause));
        cluster.stop(1);
        cluster.stop(2);
        cluster.pass(Duration::from_secs(20));
        cluster.start(1);
        cluster.start(2);
        cluster.pass(Duration::from_secs(40));
        cluster.converge();
        for at in 0..3 {
            assert_eq!(cluster.value(at, "k").as_deref(), Some("kept"), "{pause} ms");
        }
        cluster.write(1, "k", "goes on");
    }
}

/// A client that has seen a strong value never sees an older one when eventual mode begins: a member that
/// has not got all of the log holds its requests until it has.
#[test]
fn nobody_goes_back_when_eventual_mode_begins() {
    let mut cluster = Cluster::new(5, |config| {
        config.voters = 3;
        config.eager = false;
    });
    cluster.write(0, "k", "old");
    cluster.converge();
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    for number in 0..20 {
        cluster.write(0, "k", &number.to_string());
    }
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    for at in 0..5 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("19"), "at {at}");
    }
}

/// A key's deadline has passed for all voters at once: when the log says so.
#[test]
fn the_log_decides_when_a_key_ends() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "other", "1");
    let (key, value) = (Argument(b"k"), Argument(b"short"));
    let deadline = cluster.now.as_nanos() / 1_000_000 + 500;
    let (expiry, when) = (Expiry::At(deadline), When::Always);
    let set = Operation::Text(Text::Set { key, value, expiry, when, get: false });
    let token = cluster.operate(1, &set);
    cluster.answer(token);
    assert_eq!(cluster.value(2, "k").as_deref(), Some("short"));
    cluster.pass(Duration::from_secs(1));
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k"), None);
    }
    cluster.pass(Duration::from_secs(1));
    let points: Vec<_> =
        cluster.shards.iter().flatten().map(|shard| shard.log_point().unwrap()).collect();
    assert!(points.windows(2).all(|two| two[0] == two[1]), "{points:?}");
}

/// Members come and go during a switch: it ends, one way or the other, and they end with the others.
#[test]
fn members_come_and_go_during_a_switch() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    cluster.stop(3);
    cluster.write(0, "k", "kept");
    let order = SwitchOrder { to: Mode::Strong, without: vec![Cluster::id(3)], dry_run: false };
    let token = cluster.ask(0, Request::Switch(&order));
    cluster.pass(Duration::from_millis(6));
    cluster.disks[3].clear();
    cluster.start(3);
    let reply = cluster.answer(token);
    // It may have come back before that began.
    let fine =
        matches!(reply, Reply::Switched(Switched::Done { .. } | Switched::CannotLeaveOut { .. }));
    assert!(fine, "{reply:?}");
    cluster.pass(Duration::from_secs(15));
    let switched = cluster.switch(1, Mode::Strong, &[]);
    assert!(matches!(switched, Switched::Done { .. } | Switched::Already { .. }), "{switched:?}");
    cluster.converge();
    assert_eq!(cluster.value(3, "k").as_deref(), Some("kept"));
    cluster.write(3, "k", "from the new one");
    assert_eq!(cluster.value(0, "k").as_deref(), Some("from the new one"));
}

/// Rubbish in the log is passed over by every voter alike, and rubbish from a member changes nothing.
#[test]
fn rubbish_is_passed_over() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    let now = cluster.now;
    let rubbish = Bytes::from_static(b"\xc1 no entry");
    cluster.shards[0]
        .as_mut()
        .unwrap()
        .strong
        .group
        .as_mut()
        .unwrap()
        .propose(now, rubbish)
        .unwrap();
    let call = Call { operation: b"\xff\xff".to_vec(), moment: Moment::default() };
    let to = cluster.shards[0].as_ref().unwrap().strong.standing.voter.unwrap();
    let from = (Voter(77), 9);
    for word in [
        Word::Core { to, from, applied: 1 << 60, bytes: Bytes::from_static(b"rubbish") },
        Word::Forward { calls: vec![(1, call.clone()), (1, call)] },
        Word::Fence { epoch: Epoch(9), members: vec![Cluster::id(0), Cluster::id(1)] },
        Word::Drain { epoch: Epoch(9), base: Digest(VersionVector::default()) },
        Word::Seat { voter: Voter(5) },
        Word::Founded { id: [9; 16] },
        Word::Unfound { id: [9; 16] },
    ] {
        let envelope = cluster.shards[1].as_ref().unwrap().wrap(Message::Strong(Box::new(word)));
        cluster.handle(0, Input::Message(Cluster::id(1), envelope));
    }
    cluster.write(0, "k", "2");
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("2"));
    }
    cluster.pass(Duration::from_secs(2));
    let points: Vec<_> =
        cluster.shards.iter().flatten().map(|shard| shard.log_point().unwrap()).collect();
    assert!(points.windows(2).all(|two| two[0] == two[1]), "{points:?}");
}
