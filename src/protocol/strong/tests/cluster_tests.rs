//! A small cluster in memory, for stories of the replicated log and the switch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::*;
use crate::protocol::boundary::{Input, Reply, Request, Token};
use crate::protocol::codec;
use crate::protocol::config::{Config, Durability};
use crate::protocol::id::Origin;
use crate::protocol::message::Envelope;
use crate::protocol::operation::Word as Argument;
use crate::protocol::operation::{Answer, Moment, Operation, Text};
use crate::protocol::recovery::Recovery;
use crate::protocol::time::WallTime;

/// What becomes of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passing {
    /// It arrives.
    Arrives,
    /// It arrives twice.
    Twice,
    /// It arrives, and once more after [`Cluster::let_go`].
    Again,
    /// It is lost.
    Lost,
    /// It waits until [`Cluster::let_go`].
    Waits,
}

/// What becomes of messages from one node to another.
pub(super) type Network = Box<dyn FnMut(usize, usize, &Envelope) -> Passing>;

/// Nodes 1, 2, … in memory; messages take a millisecond. A disk is durable at once unless it is slow.
pub(super) struct Cluster {
    pub(super) now: Time,
    pub(super) shards: Vec<Option<Shard>>,
    pub(super) disks: Vec<Vec<Vec<u8>>>,
    pub(super) under_way: VecDeque<(Time, NodeId, NodeId, Vec<u8>)>,
    pub(super) replies: BTreeMap<Token, Reply>,
    pub(super) events: Vec<(NodeId, StrongEvent)>,
    pub(super) next: u64,
    pub(super) cut: Vec<(usize, usize)>,
    /// What becomes of messages.
    pub(super) network: Network,
    /// Messages that wait.
    pub(super) waiting: Vec<(NodeId, NodeId, Vec<u8>)>,
    /// Nodes whose disks do not sync: what they write is gone when they stop, and never durable.
    pub(super) slow: BTreeSet<usize>,
    /// By how many milliseconds each node's clock is ahead; without them nodes have no clocks.
    pub(super) ahead: Vec<u64>,
    /// Who speaks another version of the messages.
    pub(super) other_version: Option<usize>,
    /// Why frames were not understood.
    pub(super) refused: Vec<String>,
    change: fn(&mut Config),
}

impl Cluster {
    pub(super) fn new(nodes: usize, change: fn(&mut Config)) -> Self {
        Self::of(nodes, nodes, change)
    }

    /// A cluster of which only the first nodes have been started.
    pub(super) fn of(nodes: usize, started: usize, change: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            now: Time::START,
            shards: (0..nodes).map(|_| None).collect(),
            disks: vec![Vec::new(); nodes],
            under_way: VecDeque::new(),
            replies: BTreeMap::new(),
            events: Vec::new(),
            next: 0,
            cut: Vec::new(),
            network: Box::new(|_, _, _| Passing::Arrives),
            waiting: Vec::new(),
            slow: BTreeSet::new(),
            ahead: Vec::new(),
            other_version: None,
            refused: Vec::new(),
            change,
        };
        (0..started).for_each(|at| cluster.start(at));
        cluster.pass(Duration::from_millis(100));
        cluster
    }

    fn wall(&self, at: usize) -> WallTime {
        let since = self.now.as_nanos() / 1_000_000;
        WallTime(self.ahead.get(at).map_or(0, |ahead| 1_000_000_000 + since + ahead))
    }

    pub(super) fn id(at: usize) -> NodeId {
        NodeId(at as u128 + 1)
    }

    pub(super) fn start(&mut self, at: usize) {
        self.rise(at, false);
    }

    /// Starts a node in spite of a hole in what its disk has.
    pub(super) fn salvage(&mut self, at: usize) {
        let pieces = self.disks[at].len();
        self.disks[at].drain(pieces / 2..pieces / 2 + 3);
        self.rise(at, true);
    }

    pub(super) fn rise(&mut self, at: usize, doubts: bool) {
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
        self.handle(at, Input::Wake(self.wall(at)));
    }

    pub(super) fn stop(&mut self, at: usize) {
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

    pub(super) fn set_cut(&mut self, one: usize, other: usize, cut: bool) {
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

    pub(super) fn handle(&mut self, at: usize, input: Input<'_>) {
        let Some(shard) = &mut self.shards[at] else { return };
        let mut output = Output::default();
        shard.handle(self.now, input, &mut output);
        self.carry_out(at, output);
    }

    pub(super) fn carry_out(&mut self, at: usize, mut output: Output) {
        let Some(shard) = &mut self.shards[at] else { return };
        shard.finish(self.now, &mut output);
        let tell = output.append.tell;
        let pieces: Vec<_> = output.append.pieces().map(<[u8]>::to_vec).collect();
        output.append.check_pieces();
        let is_slow = self.slow.contains(&at);
        if !is_slow {
            self.disks[at].extend(pieces);
        }
        let from = Self::id(at);
        for mut send in output.send {
            send.envelope.version += u8::from(self.other_version == Some(at));
            let frame = codec::encode(&send.envelope);
            // What has a stream of its own takes longer.
            let is_alone = matches!(send.lane, Lane::Exchange { .. });
            let due = self.now + Duration::from_millis(if is_alone { 3 } else { 1 });
            for to in send.to.iter() {
                let frame = frame.clone();
                match (self.network)(at, to.0 as usize - 1, &send.envelope) {
                    Passing::Arrives => self.put_under_way(due, from, *to, frame),
                    Passing::Twice => {
                        self.put_under_way(due, from, *to, frame.clone());
                        self.put_under_way(due, from, *to, frame);
                    }
                    Passing::Again => {
                        self.under_way.push_back((due, from, *to, frame.clone()));
                        self.waiting.push((from, *to, frame));
                    }
                    Passing::Lost => {}
                    Passing::Waits => self.waiting.push((from, *to, frame)),
                }
            }
        }
        self.replies.extend(output.reply);
        for event in output.events {
            if let Event::Strong(event) = event {
                self.events.push((from, *event));
            }
        }
        if let (Some(token), false) = (tell, is_slow) {
            self.handle(at, Input::Durable(token));
        }
    }

    /// Has a message arrive when it is due, behind those that are due then already.
    fn put_under_way(&mut self, due: Time, from: NodeId, to: NodeId, frame: Vec<u8>) {
        let place = self.under_way.partition_point(|(other, ..)| *other <= due);
        self.under_way.insert(place, (due, from, to, frame));
    }

    /// All messages arrive from now on, and those that have waited as well.
    pub(super) fn let_go(&mut self) {
        self.network = Box::new(|_, _, _| Passing::Arrives);
        let due = self.now + Duration::from_millis(1);
        for (from, to, frame) in std::mem::take(&mut self.waiting) {
            self.under_way.push_back((due, from, to, frame));
        }
    }

    /// What happens to what a strong word says, by this rule; everything else arrives.
    pub(super) fn on_words(
        &mut self,
        mut rule: impl FnMut(usize, usize, &Word) -> Passing + 'static,
    ) {
        self.network = Box::new(move |from, to, envelope| match &envelope.message {
            Message::Strong(word) => rule(from, to, word),
            _ => Passing::Arrives,
        });
    }

    pub(super) fn shard(&self, at: usize) -> &Shard {
        self.shards[at].as_ref().unwrap()
    }

    /// Lets time pass until this holds.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..30_000 {
            if holds(self) {
                return;
            }
            self.pass(Duration::from_millis(1));
        }
        panic!("never: {what}: {:#?}", self.status());
    }

    pub(super) fn ask(&mut self, at: usize, request: Request<'_>) -> Token {
        let token = Token(1000 + self.next);
        self.next += 1;
        self.handle(at, Input::Request(token, request));
        token
    }

    pub(super) fn operate(&mut self, at: usize, operation: &Operation<'_>) -> Token {
        let since = self.now.as_nanos() / 1_000_000;
        let wall = self.wall(at).max(WallTime(since));
        self.ask(at, Request::Operate { operation, moment: Moment { wall, dice: self.next } })
    }

    pub(super) fn set(&mut self, at: usize, key: &str, value: &str) -> Token {
        self.ask(at, Request::Set { key: key.as_bytes(), value: value.as_bytes() })
    }

    pub(super) fn get(&mut self, at: usize, key: &str) -> Token {
        let get = Text::Get(Argument(key.as_bytes()));
        self.operate(at, &Operation::Text(get))
    }

    /// Lets time pass until nothing is left to happen before its end.
    pub(super) fn pass(&mut self, time: Duration) {
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
                    match codec::decode(&frame) {
                        Ok(envelope) => self.handle(at, Input::Message(from, envelope)),
                        Err(why) => self.refused.push(why.to_string()),
                    }
                }
            } else if let Some((_, at)) = wake {
                self.handle(at, Input::Wake(self.wall(at)));
            }
        }
        self.now = end;
    }

    /// Lets time pass until there is an answer.
    pub(super) fn answer(&mut self, token: Token) -> Reply {
        for _ in 0..6_000 {
            if let Some(reply) = self.replies.remove(&token) {
                return reply;
            }
            self.pass(Duration::from_millis(5));
        }
        panic!("no answer: {:#?}", self.status());
    }

    pub(super) fn status(&self) -> Vec<StrongStatus> {
        self.shards.iter().flatten().map(Shard::strong_status).collect()
    }

    pub(super) fn wish(&mut self, at: usize, to: Mode, without: &[usize]) -> Token {
        let without = without.iter().map(|at| Self::id(*at)).collect();
        let order = SwitchOrder { to, without, dry_run: false };
        self.ask(at, Request::Switch(&order))
    }

    pub(super) fn switch(&mut self, at: usize, to: Mode, without: &[usize]) -> Switched {
        let token = self.wish(at, to, without);
        self.switched(token)
    }

    /// What came of a wish.
    pub(super) fn switched(&mut self, token: Token) -> Switched {
        match self.answer(token) {
            Reply::Switched(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn value(&mut self, at: usize, key: &str) -> Option<String> {
        let token = self.get(at, key);
        match self.answer(token) {
            Reply::Operated { answer: Answer::Bulk(value), .. } => {
                Some(String::from_utf8(value).unwrap())
            }
            Reply::Operated { answer: Answer::Nil, .. } => None,
            other => panic!("{other:?} {:#?}", self.status()),
        }
    }

    pub(super) fn write(&mut self, at: usize, key: &str, value: &str) {
        let token = self.set(at, key, value);
        let reply = self.answer(token);
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?} {:#?}", self.status());
    }

    /// All that are up hold the same.
    pub(super) fn converge(&mut self) {
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

pub(super) fn plain(_: &mut Config) {}

pub(super) fn strong(config: &mut Config) {
    config.starts_strong = true;
    config.voters = 3;
}
