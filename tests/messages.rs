//! Bad input at the level of messages: whatever bytes a peer sends, nobody falls over, nobody takes
//! more memory than a small multiple of them, and damage on the way changes nothing.
//!
//! Frames of every kind are recorded from a real conversation. Damaged ones must be dropped by the
//! checksum. With the checksum put right again, they test what stands behind it: the decoder and the
//! shard, which may take another value for what it says but nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use quorumor::protocol::boundary::{Input, Output, Request, Token};
use quorumor::protocol::cell::{CellWrite, Content, Field, Key, RESERVED_PREFIX, Seen, Write};
use quorumor::protocol::codec;
use quorumor::protocol::config::{Config, Strategy as Direction};
use quorumor::protocol::event::{Event, Misdeed};
use quorumor::protocol::id::{NodeId, Origin, ShardId};
use quorumor::protocol::message::{Envelope, Message, Scope, WIRE_VERSION};
use quorumor::protocol::roster::{MEMBERS_MAX, Member, State};
use quorumor::protocol::shard::Shard;
use quorumor::protocol::stamp::{Dot, Epoch, Lamport, Stamp};
use quorumor::protocol::time::{Time, WallTime};
use twox_hash::XxHash3_64;

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// Two peers that hold something each; what one sends waits until it is carried to the other.
struct Pair {
    now: Time,
    one: Shard,
    two: Shard,
    wire: Vec<(NodeId, Vec<u8>)>,
    events: Vec<Event>,
    wakes: [Option<Time>; 2],
}

impl Pair {
    /// Node 1 lacks a few writes of node 2 and the other way round.
    fn new(direction: Direction, eager: bool) -> Self {
        Self::with_roster(direction, eager, false)
    }

    /// The same with or without a roster.
    fn with_roster(direction: Direction, eager: bool, roster: bool) -> Self {
        let shard = |node: NodeId| {
            let mut config = Config::new(node, Origin(node.0 as u64), node.0 as u64);
            config.strategy = direction;
            config.eager = eager;
            config.delta_bytes_max = 50;
            config.roster = roster;
            Shard::new(config)
        };
        let mut pair = Self {
            now: Time::START,
            one: shard(ONE),
            two: shard(TWO),
            wire: Vec::new(),
            events: Vec::new(),
            wakes: [None; 2],
        };
        let set = |key, value| Request::Set { key, value };
        pair.handle(ONE, Input::Request(Token(1), set(b"ours", b"one")));
        pair.handle(TWO, Input::Request(Token(1), set(b"theirs", b"two")));
        pair.handle(
            TWO,
            Input::Request(Token(1), Request::SetAll(&[(b"ours", b"2"), (b"c", b"")])),
        );
        pair.handle(TWO, Input::Request(Token(1), Request::Delete(&[b"theirs"])));
        pair.handle(TWO, Input::Request(Token(1), set(b"long", &[b'x'; 300])));
        pair.handle(ONE, Input::PeerUp(TWO, Duration::from_millis(1)));
        pair.handle(TWO, Input::PeerUp(ONE, Duration::from_millis(1)));
        pair
    }

    fn handle(&mut self, at: NodeId, input: Input<'_>) {
        let mut output = Output::default();
        let (shard, wake) = match at {
            ONE => (&mut self.one, &mut self.wakes[0]),
            _ => (&mut self.two, &mut self.wakes[1]),
        };
        shard.handle(self.now, input, &mut output);
        *wake = output.wake;
        for send in output.send {
            let frame = codec::encode(&send.envelope);
            self.wire.extend(send.to.iter().map(|to| (*to, frame.clone())));
        }
        self.events.extend(output.events);
    }

    /// Hands a frame to node `to` as if its peer had sent it; says whether it was a message.
    fn receive(&mut self, to: NodeId, frame: &[u8]) -> bool {
        let Ok(envelope) = codec::decode(frame) else { return false };
        let from = if to == ONE { TWO } else { ONE };
        self.handle(to, Input::Message(from, envelope));
        true
    }

    /// Carries everything there and back, and lets rounds come, until both are quiet.
    fn settle(&mut self) {
        for _ in 0..60 {
            while !self.wire.is_empty() {
                let (to, frame) = self.wire.remove(0);
                assert!(self.receive(to, &frame), "an undamaged message");
            }
            self.now = self.now + Duration::from_secs(1);
            for (at, node) in [(0, ONE), (1, TWO)] {
                if self.wakes[at].is_some_and(|wake| wake <= self.now) {
                    self.handle(node, Input::Wake(WallTime(0)));
                }
            }
        }
    }

    /// Carries everything there and back for a few intervals, and has node 1 fill itself anew in the
    /// midst; `change` may change each frame, whose number and kind it is told.
    fn converse(&mut self, mut change: impl FnMut(usize, &'static str, &mut Vec<u8>)) {
        let mut number = 0;
        for interval in 0..8 {
            while !self.wire.is_empty() {
                let (to, mut frame) = self.wire.remove(0);
                let kind = codec::decode(&frame).expect("an undamaged message").message.kind();
                change(number, kind, &mut frame);
                self.receive(to, &frame);
                number += 1;
                assert!(number < 10_000, "an endless conversation");
            }
            if interval == 5 {
                self.handle(ONE, Input::Request(Token(9), Request::Rebuild));
            }
            self.now = self.now + Duration::from_secs(1);
            self.handle(ONE, Input::Wake(WallTime(0)));
            self.handle(TWO, Input::Wake(WallTime(0)));
        }
    }

    fn agree(&self) -> bool {
        self.one.summary() == self.two.summary() && self.one.store().keys_live() == 3
    }
}

/// Frames of every kind, each with its receiver and the moment in the conversation to send it.
fn recorded() -> Vec<(NodeId, Vec<u8>)> {
    let mut frames = BTreeMap::new();
    for direction in [Direction::PushPull, Direction::Push, Direction::Pull] {
        let mut pair = Pair::new(direction, true);
        let ask = Request::Ask { peer: TWO, dot: Some(Dot { origin: Origin(2), seq: 1 }) };
        pair.handle(ONE, Input::Request(Token(2), ask));
        pair.handle(ONE, Input::Request(Token(3), Request::Set { key: b"late", value: b"r" }));
        for _ in 0..40 {
            let Some((to, frame)) = pair.wire.first().cloned() else { break };
            pair.wire.remove(0);
            let kind = codec::decode(&frame).expect("an undamaged message").message.kind();
            frames.entry((kind, direction == Direction::PushPull)).or_insert((to, frame.clone()));
            pair.receive(to, &frame);
        }
    }
    let kinds: Vec<_> = frames.keys().map(|(kind, _)| *kind).collect();
    for kind in ["push", "open", "digest", "delta", "credit", "ask", "answer"] {
        assert!(kinds.contains(&kind), "no {kind} was recorded");
    }
    frames.into_values().collect()
}

/// The frame with this body, checksum and all.
fn frame(body: &[u8]) -> Vec<u8> {
    let checksum = XxHash3_64::oneshot(body).to_le_bytes();
    [&checksum[..4], body].concat()
}

/// The most memory that this process ever had mapped and in use, in bytes; 0 where that is not told.
fn peaks() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmPeak:", "VmHWM:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes =
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        kilobytes.unwrap_or(0u64) * 1024
    })
}

/// Runs `work`, which handles small frames one after the other, and judges the memory it took.
///
/// What is mapped includes what the allocator reserves for each thread of the other tests, but no
/// claim of four thousand million of anything. What is in use stays small.
fn takes_little_memory(work: impl FnOnce()) {
    let before = peaks();
    work();
    let after = peaks();
    // What is in use is counted with some delay, so that it may seem to shrink.
    let [mapped, used] = [0, 1].map(|at| after[at].saturating_sub(before[at]));
    assert!(mapped < 2 << 30, "{mapped} bytes mapped");
    assert!(used < 64 << 20, "{used} bytes in use");
}

#[test]
fn a_frame_with_any_byte_changed_is_dropped_and_the_peers_agree() {
    for (to, frame) in recorded() {
        for at in 0..frame.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = frame.clone();
                damaged[at] ^= change;
                assert!(codec::decode(&damaged).is_err(), "byte {at} of {frame:?}");
            }
            // Dropped, it is as good as lost.
            if at % 16 == 0 {
                let mut pair = Pair::new(Direction::PushPull, false);
                let mut damaged = frame.clone();
                damaged[at] ^= 0x10;
                assert!(!pair.receive(to, &damaged));
                pair.settle();
                assert!(pair.agree());
            }
        }
    }
}

#[test]
fn one_damaged_frame_of_a_conversation_only_delays_it() {
    let lost = |nth: usize| {
        let mut pair = Pair::new(Direction::PushPull, false);
        let mut count = 0;
        for _ in 0..200 {
            let Some((to, mut frame)) = pair.wire.first().cloned() else { break };
            pair.wire.remove(0);
            if count == nth {
                let at = frame.len() / 2;
                frame[at] ^= 1;
            }
            assert_eq!(pair.receive(to, &frame), count != nth);
            count += 1;
        }
        pair.settle();
        assert!(pair.agree(), "without frame {nth}");
        count
    };
    let frames = lost(usize::MAX);
    assert!(frames > 5, "only {frames} frames");
    assert!((0..frames).all(|nth| lost(nth) > 0));
}

#[test]
fn a_cut_frame_is_dropped() {
    for (_, whole) in recorded() {
        for length in 0..whole.len() {
            assert!(codec::decode(&whole[..length]).is_err());
            // With the right checksum, too.
            if length >= 4 {
                assert!(codec::decode(&frame(&whole[4..length])).is_err());
            }
        }
    }
}

/// What passes the checksum may say something else; it neither panics nor takes memory.
#[test]
fn changed_bytes_behind_a_right_checksum_are_survived() {
    takes_little_memory(|| {
        let (mut taken, mut refused) = (0, 0);
        for (to, whole) in recorded() {
            for at in 4..whole.len() {
                for byte in [0x00, 0x01, 0x7f, 0x80, 0x9f, 0xc0, 0xc6, 0xcf, 0xdd, 0xff] {
                    let mut body = whole[4..].to_vec();
                    body[at - 4] = byte;
                    let mut pair = Pair::new(Direction::PushPull, false);
                    match pair.receive(to, &frame(&body)) {
                        true => taken += 1,
                        false => refused += 1,
                    }
                    pair.handle(to, Input::Wake(WallTime(0)));
                    while let Some((to, frame)) = pair.wire.pop() {
                        pair.receive(to, &frame);
                        if pair.wire.len() > 1_000 {
                            panic!("an endless conversation");
                        }
                    }
                }
            }
        }
        assert!(taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
    });
}

#[test]
fn lengths_that_are_not_there_are_not_reserved() {
    let claims: [&[u8]; 5] = [
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xc9, 0xff, 0xff, 0xff, 0xff, 0x01],
    ];
    takes_little_memory(|| {
        for (to, whole) in recorded() {
            for at in 4..whole.len() {
                for claim in claims {
                    for rest in [&[][..], &whole[at..], &whole[at + 1..]] {
                        let body = [&whole[4..at], claim, rest].concat();
                        let mut pair = Pair::new(Direction::PushPull, false);
                        pair.receive(to, &frame(&body));
                    }
                }
            }
        }
    });
}

#[test]
fn a_hundred_thousand_levels_are_not_descended() {
    let arrays = vec![0x91; 100_000];
    let maps = [0x81, 0xa1, b'x'].repeat(100_000);
    for (_, whole) in recorded() {
        for at in 4..whole.len() {
            for levels in [&arrays, &maps] {
                let taken = codec::decode(&frame(&[&whole[4..at], levels].concat()));
                assert!(taken.is_err(), "byte {at} of {:?}: {taken:?}", codec::decode(&whole));
            }
        }
    }
    // In a field that nobody knows, where anything may stand.
    let names = ["version", "shard", "scope", "epoch"];
    let mut body = vec![0x86];
    for name in names {
        body.push(0xa0 | name.len() as u8);
        body.extend(name.as_bytes());
        body.push(u8::from(name == "version"));
    }
    body.extend([0xa1, b'x']);
    body.extend(&arrays);
    assert!(codec::decode(&frame(&body)).is_err());
}

proptest! {
    #[test]
    fn random_bytes_are_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(codec::decode(&bytes).is_err());
        prop_assert!(codec::decode(&frame(&bytes)).is_err());
    }

    /// Several changes at once, behind a right checksum, in the middle of a conversation.
    #[test]
    fn many_changes_behind_a_right_checksum_are_survived(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()),
            1..12,
        ),
    ) {
        let mut pair = Pair::new(Direction::PushPull, true);
        for (which, at, byte) in changes {
            if pair.wire.is_empty() {
                pair.now = pair.now + Duration::from_secs(1);
                pair.handle(ONE, Input::Wake(WallTime(0)));
                pair.handle(TWO, Input::Wake(WallTime(0)));
            }
            if pair.wire.is_empty() {
                break;
            }
            let (to, mut whole) = pair.wire.remove(which.index(pair.wire.len()));
            let at = 4 + at.index(whole.len() - 4);
            whole[at] = byte;
            pair.receive(to, &frame(&whole[4..]));
        }
        pair.wire.truncate(50);
        while let Some((to, frame)) = pair.wire.pop() {
            pair.receive(to, &frame);
            prop_assert!(pair.wire.len() < 1_000);
        }
    }
}

/// What node 1 says to a push from node 2 of one write made absurd by `change`.
fn misdeed(change: impl Fn(&mut Write)) -> (Vec<Misdeed>, bool) {
    let mut pair = Pair::new(Direction::PushPull, false);
    let cell = CellWrite {
        key: Key::from("absurd"),
        field: Field::whole_key(),
        content: Content::from(&b"v"[..]),
        seen: Seen::default(),
    };
    let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(9), origin: Origin(2) };
    let mut write = Write::new(stamp, 9, vec![cell]);
    change(&mut write);
    let message = Message::Push { writes: vec![write], relay: None };
    let (version, shard, scope, epoch) = (WIRE_VERSION, ShardId(0), Scope::default(), Epoch(0));
    let envelope = Envelope { version, shard, scope, epoch, origin: Origin(1), message };
    let before = (pair.one.summary(), pair.one.lamport());
    assert!(pair.receive(ONE, &codec::encode(&envelope)));
    let unchanged = before == (pair.one.summary(), pair.one.lamport());
    let misdeeds = pair.events.into_iter().filter_map(|event| match event {
        Event::Quarantined { peer: TWO, why } => Some(why),
        _ => None,
    });
    (misdeeds.collect(), unchanged)
}

#[test]
fn absurd_writes_are_refused_and_told() {
    assert_eq!(misdeed(|_| ()), (vec![], false), "as it is, it is taken");
    let changes: [fn(&mut Write); 9] = [
        |write| write.stamp.lamport = Lamport(u64::MAX),
        |write| write.stamp.lamport = Lamport(0),
        |write| write.stamp.epoch = Epoch(u32::MAX),
        |write| write.stamp.origin = Origin(1),
        |write| write.seq = 0,
        |write| write.seq = 10,
        |write| write.seq = u64::MAX,
        |write| write.cells.clear(),
        |write| write.cells.push(write.cells[0].clone()),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let (misdeeds, unchanged) = misdeed(change);
        assert!(misdeeds.len() == 1 && unchanged, "change {at}: {misdeeds:?}");
    }
}

/// Greetings, reports and deltas that tell a horizon are in the conversation of two members.
#[test]
fn members_talk_and_agree() {
    let mut pair = Pair::with_roster(Direction::PushPull, true, true);
    let mut kinds = BTreeMap::new();
    let mut horizons = 0;
    pair.converse(|_, kind, frame| {
        *kinds.entry(kind).or_insert(0) += 1;
        if let Message::Delta { chunk, .. } = codec::decode(frame).unwrap().message {
            let captured = chunk.captured.as_ref();
            horizons += usize::from(captured.is_some_and(|captured| captured.horizon.is_some()));
        }
    });
    assert!(["greet", "report", "delta"].iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
    assert!(horizons > 0 && pair.one.counters().tombstones_collected > 0);
    pair.settle();
    assert!(pair.agree() && !pair.one.is_filling());
}

/// Any byte of a greeting or report may be another one, behind a right checksum.
#[test]
fn changed_greetings_and_reports_are_survived() {
    let mut lengths = Vec::new();
    let mut pair = Pair::with_roster(Direction::PushPull, true, true);
    pair.converse(|number, kind, frame| {
        if matches!(kind, "greet" | "report") {
            lengths.push((number, frame.len()));
        }
    });
    assert!(lengths.len() > 8);
    takes_little_memory(|| {
        for (number, length) in lengths.into_iter().step_by(3) {
            for at in (4..length).step_by(3) {
                for byte in [0x00, 0x7f, 0xcf, 0xff] {
                    let mut pair = Pair::with_roster(Direction::PushPull, true, true);
                    pair.converse(|now, _, whole| {
                        if now == number {
                            whole[at] = byte;
                            *whole = frame(&whole[4..]);
                        }
                    });
                }
            }
        }
    });
}

proptest! {
    /// Several changes anywhere in the conversation of two members.
    #[test]
    fn changed_talk_of_members_is_survived(
        changes in proptest::collection::vec(
            (0..80usize, any::<prop::sample::Index>(), any::<u8>()),
            1..8,
        ),
    ) {
        let mut pair = Pair::with_roster(Direction::PushPull, true, true);
        pair.converse(|now, _, whole| {
            for (_, at, byte) in changes.iter().filter(|(number, ..)| *number == now) {
                let at = 4 + at.index(whole.len() - 4);
                whole[at] = *byte;
                *whole = frame(&whole[4..]);
            }
        });
    }
}

/// A member may write about as many nodes as it likes: only so many are remembered.
#[test]
fn an_absurd_roster_is_bounded() {
    let mut pair = Pair::with_roster(Direction::PushPull, true, true);
    pair.settle();
    let first = pair.two.vector().origin(pair.two.config().origin).map_or(0, |held| held.last());
    for number in 1..=2 * MEMBERS_MAX as u64 {
        let origin = pair.two.config().origin;
        let lamport = Lamport(pair.one.lamport().0.max(first) + number);
        let member = Member {
            state: State::Active,
            origin: Origin(1_000 + number),
            incarnation: 1,
            name: "n".repeat(if number % 2 == 0 { 10 } else { 1_000 }),
        };
        let cell = CellWrite {
            key: Key::from(RESERVED_PREFIX),
            field: Field::new(&NodeId(1_000 + u128::from(number)).to_bytes()),
            content: Content::from(&rmp_serde::to_vec(&member).expect("it can be encoded")[..]),
            seen: Seen::default(),
        };
        let stamp = Stamp { epoch: Epoch(0), lamport, origin };
        let writes = vec![Write::new(stamp, first + number, vec![cell])];
        let message = Message::Push { writes, relay: None };
        let envelope = pair.two.wrap(message);
        pair.handle(ONE, Input::Message(TWO, envelope));
    }
    let known = pair.one.members().count();
    assert!((MEMBERS_MAX / 2..=MEMBERS_MAX).contains(&known), "{known} members");
    assert!(pair.one.members().all(|(_, member)| member.name.len() <= 256));
    // And it goes on as before.
    pair.handle(ONE, Input::Request(Token(1), Request::Set { key: b"after", value: b"it" }));
    pair.handle(ONE, Input::Wake(WallTime(0)));
    assert!(pair.one.reader().contains(b"after", WallTime(0)));
}

/// What others write about this node, with the number of a life that it cannot have lived, changes
/// nothing; with one that it may have, it goes on as a later one, also where it must wait for that.
#[test]
fn an_absurd_number_of_a_life_is_passed_over() {
    let told = |pair: &mut Pair, state: State, incarnation: u64| {
        let origin = pair.two.config().origin;
        let number = pair.two.vector().origin(origin).map_or(0, |held| held.last());
        let told = pair.one.vector().origin(origin).map_or(0, |held| held.last()).max(number);
        let lamport = Lamport(pair.one.lamport().0.max(told) + 1);
        let member = Member { state, origin: Origin(77), incarnation, name: "one".into() };
        let cell = CellWrite {
            key: Key::from(RESERVED_PREFIX),
            field: Field::new(&ONE.to_bytes()),
            content: Content::from(&rmp_serde::to_vec(&member).expect("it can be encoded")[..]),
            seen: Seen::default(),
        };
        let stamp = Stamp { epoch: Epoch(0), lamport, origin };
        let writes = vec![Write::new(stamp, told + 1, vec![cell])];
        let envelope = pair.two.wrap(Message::Push { writes, relay: None });
        pair.handle(ONE, Input::Message(TWO, envelope));
    };
    for state in [State::Active, State::Retired, State::Left] {
        let mut pair = Pair::with_roster(Direction::PushPull, true, true);
        pair.settle();
        let before = (pair.one.config().origin, pair.one.config().incarnation);
        told(&mut pair, state, u64::MAX);
        assert_eq!((pair.one.config().origin, pair.one.config().incarnation), before);

        // The second one comes within the pause after the first.
        let mut pair = Pair::with_roster(Direction::PushPull, true, true);
        pair.settle();
        told(&mut pair, state, 1 << 40);
        let first = (pair.one.config().origin, pair.one.config().incarnation);
        assert_eq!(first.1 >> 32, (1 << 8) + 1, "the next life, random in its lower half");
        while !pair.wire.is_empty() {
            let (to, frame) = pair.wire.remove(0);
            assert!(pair.receive(to, &frame), "an undamaged message");
        }
        told(&mut pair, state, 1 << 41);
        let second = (pair.one.config().origin, pair.one.config().incarnation);
        assert_eq!(second, first, "not yet");
        pair.settle();
        let now = pair.one.config().incarnation;
        assert!(now > 1 << 41, "but in the end");
        assert_eq!(pair.one.config().origin, Origin::of(ONE, now), "an origin for every number");
        let own = pair.one.members().find(|(node, _)| *node == ONE);
        let own = own.map(|(_, own)| (own.state, own.origin));
        assert_eq!(own, Some((State::Active, pair.one.config().origin)));
    }
}
