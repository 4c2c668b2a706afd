//! A cluster whose nodes have disks and clocks of their own, for the stories and laws of `expiry`.

use std::collections::{BTreeSet, VecDeque};

use super::super::boundary::{Input, Reply, Request, Token};
use super::super::codec;
use super::super::config::Durability;
use super::super::id::Origin;
use super::super::message::Envelope;
use super::super::operation::{
    Answer, Ends, Expiry as Deadline, Hash, Keys, Mode, Moment, Only, Operation, Text, When,
};
use super::super::recovery::Recovery;
use super::super::shard::Careless;
use super::super::strong::{SwitchOrder, Switched};
use super::*;

/// What the clocks show when a story begins.
pub(super) const BEGIN: u64 = 1_700_000_000_000;

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// Long enough for everything that has ended to be forgotten.
pub(super) const LONG: Duration = Duration::from_secs(180);

pub(super) struct Cluster {
    pub(super) now: Time,
    pub(super) shards: Vec<Option<Shard>>,
    pub(super) disks: Vec<Vec<Vec<u8>>>,
    /// How far each clock is ahead, in milliseconds.
    pub(super) ahead: Vec<u64>,
    /// Nodes that are not woken.
    pub(super) asleep: BTreeSet<usize>,
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) damage: usize,
    /// Loses, doubles and turns around what is sent, and keeps what was written off the disk for a while.
    dice: Option<fastrand::Rng>,
    /// How many of a disk's pieces a crash leaves, and what is to be called once all of them are durable.
    synced: Vec<(usize, Vec<u64>)>,
    /// Keys of which a node has told that their deadlines have passed, and when.
    pub(super) passed: Vec<(usize, Key, Time)>,
    wire: VecDeque<(usize, usize, Vec<u8>)>,
    replies: Vec<(Token, Reply)>,
    starts: u64,
    asked: u64,
    careless: Careless,
    change: fn(&mut Config),
}

pub(super) fn id(at: usize) -> NodeId {
    NodeId(at as u128 + 1)
}

impl Cluster {
    pub(super) fn new(nodes: usize) -> Self {
        Self::with(nodes, Careless::No, |_| ())
    }

    pub(super) fn with(nodes: usize, careless: Careless, change: fn(&mut Config)) -> Self {
        let mut cluster = Self {
            now: Time::START,
            shards: Vec::new(),
            disks: Vec::new(),
            ahead: Vec::new(),
            asleep: BTreeSet::new(),
            cut: BTreeSet::new(),
            damage: 0,
            dice: None,
            synced: Vec::new(),
            passed: Vec::new(),
            wire: VecDeque::new(),
            replies: Vec::new(),
            starts: 0,
            asked: 0,
            careless,
            change,
        };
        for _ in 0..nodes {
            cluster.join();
        }
        cluster.pass(5 * SECOND);
        cluster
    }

    /// One node more.
    pub(super) fn join(&mut self) -> usize {
        let at = self.shards.len();
        self.shards.push(None);
        self.disks.push(Vec::new());
        self.ahead.push(0);
        self.synced.push((0, Vec::new()));
        self.start(at);
        at
    }

    /// Starts a node from its disk, after a crash if it runs.
    pub(super) fn start(&mut self, at: usize) {
        self.stop(at);
        self.starts += 1;
        if self.dice.is_some() {
            let (synced, waiting) = &mut self.synced[at];
            self.disks[at].truncate(*synced);
            waiting.clear();
        }
        let mut config = Config::new(id(at), Origin(0), self.starts);
        config.durability = match self.dice {
            Some(_) => Durability::Interval,
            None => Durability::Always,
        };
        (self.change)(&mut config);
        let mut recovery = Recovery::new(config.hash_seed);
        for records in &self.disks[at] {
            recovery.apply(records).unwrap();
        }
        let (shard, append) = recovery.into_shard(config, self.starts as u32);
        self.disks[at].push(append.records);
        self.synced[at].0 = self.disks[at].len();
        self.shards[at] = Some(shard.breaking(self.careless));
        for other in (0..self.shards.len()).filter(|other| *other != at) {
            if self.shards[other].is_some() && !self.is_cut(at, other) {
                self.meet(at, other);
            }
        }
        self.wake(at);
    }

    pub(super) fn stop(&mut self, at: usize) {
        if self.shards[at].take().is_some() {
            self.wire.retain(|(from, to, _)| *from != at && *to != at);
            for other in 0..self.shards.len() {
                self.handle(other, Input::PeerDown(id(at)));
            }
        }
    }

    pub(super) fn meet(&mut self, one: usize, other: usize) {
        self.handle(one, Input::PeerUp(id(other), Duration::from_millis(1)));
        self.handle(other, Input::PeerUp(id(one), Duration::from_millis(1)));
    }

    pub(super) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    /// Cuts a link, or mends it.
    pub(super) fn set_cut(&mut self, one: usize, other: usize, cut: bool) {
        let link = (one.min(other), one.max(other));
        if cut == self.cut.contains(&link) {
            return;
        }
        if cut {
            self.cut.insert(link);
            self.handle(one, Input::PeerDown(id(other)));
            self.handle(other, Input::PeerDown(id(one)));
        } else {
            self.cut.remove(&link);
            if self.shards[one].is_some() && self.shards[other].is_some() {
                self.meet(one, other);
            }
        }
    }

    pub(super) fn wall(&self, at: usize) -> WallTime {
        let since = self.now.as_nanos() / 1_000_000;
        WallTime(BEGIN + since + self.ahead[at])
    }

    pub(super) fn shard(&self, at: usize) -> &Shard {
        self.shards[at].as_ref().unwrap()
    }

    pub(super) fn handle(&mut self, at: usize, input: Input<'_>) {
        let Some(shard) = &mut self.shards[at] else { return };
        let mut output = Output::default();
        shard.handle(self.now, input, &mut output);
        shard.finish(self.now, &mut output);
        let tell = output.append.tell;
        output.append.check_pieces();
        self.disks[at].extend(output.append.pieces().map(<[u8]>::to_vec));
        for send in output.send {
            let frame = codec::encode(&send.envelope);
            for to in send.to.iter() {
                self.wire.push_back((at, to.0 as usize - 1, frame.clone()));
            }
        }
        self.replies.extend(output.reply);
        let is_damage = |event: &&Event| matches!(event, Event::Damage { .. });
        self.damage += output.events.iter().filter(is_damage).count();
        let now = self.now;
        self.passed.extend(output.events.into_iter().filter_map(|event| match event {
            Event::Changed { key, change: Change::EXPIRED } => Some((at, key, now)),
            _ => None,
        }));
        if let Some(token) = tell {
            self.synced[at].1.push(token);
        }
        self.sync(at, false);
    }

    /// What a node has written becomes durable; with dice only where it is urgent.
    pub(super) fn sync(&mut self, at: usize, urgent: bool) {
        if self.dice.is_some() && !urgent {
            return;
        }
        self.synced[at].0 = self.disks[at].len();
        for token in std::mem::take(&mut self.synced[at].1) {
            self.handle(at, Input::Durable(token));
        }
    }

    pub(super) fn wake(&mut self, at: usize) {
        if self.dice.as_mut().is_some_and(|dice| dice.u8(..4) == 0) {
            self.sync(at, true);
        }
        let wall = self.wall(at);
        self.handle(at, Input::Wake(wall));
    }

    /// From now on messages are lost, doubled and turned around, and disks lag behind; without dice not.
    pub(super) fn trouble(&mut self, dice: Option<u64>) {
        self.dice = dice.map(fastrand::Rng::with_seed);
        if dice.is_some() {
            (0..self.shards.len()).for_each(|at| self.start(at));
        }
    }

    /// The end of that.
    pub(super) fn calm(&mut self) {
        self.dice = None;
        (0..self.shards.len()).for_each(|at| self.sync(at, true));
    }

    /// Loses what is under way.
    pub(super) fn lose(&mut self) {
        self.wire.clear();
    }

    pub(super) fn deliver(&mut self) {
        while !self.wire.is_empty() {
            let at = self.dice.as_mut().map_or(0, |dice| dice.usize(..self.wire.len()));
            let Some((from, to, frame)) = self.wire.remove(at) else { return };
            let is_lost = match self.dice.as_mut().map(|dice| dice.u8(..20)) {
                Some(0) => true,
                Some(1) => {
                    self.wire.push_back((from, to, frame.clone()));
                    false
                }
                _ => false,
            };
            if !is_lost && !self.is_cut(from, to) {
                let envelope: Envelope = codec::decode(&frame).unwrap();
                self.handle(to, Input::Message(id(from), envelope));
            }
        }
    }

    /// Lets time pass at all nodes that are not asleep.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver();
            let awake = (0..self.shards.len()).filter(|at| !self.asleep.contains(at));
            let wakes = awake
                .filter_map(|at| Some((self.shards[at].as_ref()?.next_wake()?, at)))
                .filter(|(wake, _)| *wake <= end);
            let Some((wake, at)) = wakes.min() else { break };
            self.now = self.now.max(wake);
            self.wake(at);
        }
        self.now = end;
    }

    pub(super) fn ask<'a>(&mut self, at: usize, operation: impl Into<Operation<'a>>) -> Answer {
        let operation = operation.into();
        let moment = Moment { wall: self.wall(at), dice: self.asked };
        let request = Request::Operate { operation: &operation, moment };
        match self.request(at, request) {
            Reply::Operated { answer, .. } => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn request(&mut self, at: usize, request: Request<'_>) -> Reply {
        self.asked += 1;
        let token = Token(self.asked);
        self.handle(at, Input::Request(token, request));
        for _ in 0..2_000 {
            if let Some(found) = self.replies.iter().position(|(of, _)| *of == token) {
                return self.replies.swap_remove(found).1;
            }
            self.pass(Duration::from_millis(10));
        }
        panic!("no answer");
    }

    /// How many cells of clients a node keeps.
    pub(super) fn cells(&self, at: usize) -> usize {
        let store = self.shard(at).store();
        store.all().filter(|(_, _, cell)| !cell.key.is_reserved()).count()
    }

    /// All nodes hold the same, and nobody has noticed anything else.
    pub(super) fn agree(&self) -> bool {
        let mut summaries = self.shards.iter().flatten().map(Shard::summary);
        let first = summaries.next();
        self.damage == 0 && summaries.all(|other| Some(other) == first)
    }

    /// Whether it was set, and not refused.
    pub(super) fn set(&mut self, at: usize, key: &str, seconds: u64) -> bool {
        let expiry = Deadline::Ends(Ends::At((self.wall(at).0 + seconds * 1_000) as i64));
        let (key, value, when) = (key.into(), "value".into(), When::Always);
        let set = Operation::Text(Text::Set { key, value, expiry, when, get: false });
        let moment = Moment { wall: self.wall(at), dice: self.asked };
        let reply = self.request(at, Request::Operate { operation: &set, moment });
        matches!(reply, Reply::Operated { answer: Answer::Ok, .. })
    }

    pub(super) fn expire(&mut self, at: usize, key: &str, seconds: u64) {
        let end = i64::try_from(self.wall(at).0 + seconds * 1_000).unwrap();
        let only = Only::Always;
        self.ask(at, Operation::Keys(Keys::Expire { key: key.into(), ends: Ends::At(end), only }));
    }

    pub(super) fn hset(&mut self, at: usize, key: &str, name: &str) {
        self.ask(at, Operation::Hash(Hash::Set(key.into(), vec![(name.into(), "v".into())])));
    }

    pub(super) fn hkeys(&mut self, at: usize, key: &str) -> Answer {
        self.ask(at, Operation::Hash(Hash::Names(key.into())))
    }

    pub(super) fn switch(&mut self, to: Mode) {
        let order = SwitchOrder { to, without: Vec::new(), dry_run: false };
        let reply = self.request(0, Request::Switch(&order));
        assert!(matches!(reply, Reply::Switched(Switched::Done { .. })), "{reply:?}");
        self.pass(5 * SECOND);
    }
}
