//! Why a key shows what it shows: the version that stands, and those that lost to it.
//!
//! Of two writes made without knowledge of each other one is dropped. The latest of those are
//! remembered, so that a person whose write has vanished can ask where it went. What they held is gone;
//! who wrote them, what beat them and when that was found here is not.
//!
//! The memory is a ring of bounded size, lost with the process. When the version that stands came here
//! is not remembered: a time in every cell would cost more than the question is worth.

use std::collections::VecDeque;
use std::time::Duration;

use super::cell::Field;
use super::event::Conflict;
use super::id::{NodeId, Origin};
use super::role::{self, Role};
use super::shard::Shard;
use super::stamp::{Dot, Stamp};
use super::time::{Time, WallTime};

/// How many conflicts are kept to be asked for.
const CONFLICTS_MAX: usize = 1_024;

/// The latest conflicts, oldest first.
#[derive(Debug, Default)]
pub(super) struct Conflicts(VecDeque<Remembered>);

/// A conflict, the field of the write that brought it about, and when that was.
#[derive(Debug)]
struct Remembered {
    at: Time,
    field: Field,
    conflict: Conflict,
}

impl Conflicts {
    pub(super) fn remember(&mut self, at: Time, field: Field, conflict: Conflict) {
        if self.0.len() == CONFLICTS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Remembered { at, field, conflict });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.0.iter().map(|remembered| &remembered.conflict)
    }
}

/// Who wrote something, as far as the roster knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Writer {
    /// The origin.
    pub origin: Origin,
    /// The node whose present origin that is.
    pub node: Option<(NodeId, String)>,
}

/// A version that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Its place in the order.
    pub stamp: Stamp,
    /// Its name.
    pub dot: Dot,
    /// Who wrote it.
    pub writer: Writer,
    /// The bytes of its value; nothing if it is a deletion.
    pub bytes: Option<usize>,
}

/// A version that was dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loser {
    /// The place in the order that it had.
    pub stamp: Stamp,
    /// Who wrote it.
    pub writer: Writer,
    /// What it lost to.
    pub to: Stamp,
    /// How long ago this node found that out.
    pub ago: Duration,
}

/// Why a key, or a field of it, shows what it shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    /// Redis' word for what the key shows; `none` if nothing.
    pub kind: &'static str,
    /// The version with the greatest stamp that is kept, if any is.
    pub winner: Option<Standing>,
    /// What is remembered to have lost, the latest first.
    pub losers: Vec<Loser>,
}

impl Shard {
    /// Why `key`, or `name` in it (a field of a hash, a member), shows what it shows.
    pub fn why(&self, now: Time, wall: WallTime, key: &[u8], name: Option<&[u8]>) -> Why {
        let winner = self.store().greatest(key, |field| is_named(field, name));
        let winner = winner.map(|(stamp, dot, bytes)| {
            let writer = self.writer(stamp.origin);
            Standing { stamp, dot, writer, bytes }
        });
        let of_it = |it: &&Remembered| *it.conflict.key == *key && is_named(&it.field, name);
        let losers = self.conflicts.0.iter().rev().filter(of_it).map(|remembered| Loser {
            stamp: remembered.conflict.loser,
            writer: self.writer(remembered.conflict.loser.origin),
            to: remembered.conflict.winner,
            ago: now.since(remembered.at),
        });
        let kind = self.store().reader().kind(key, wall).map_or("none", |kind| kind.name());
        Why { kind, winner, losers: losers.collect() }
    }

    /// Who writes under an origin.
    fn writer(&self, origin: Origin) -> Writer {
        let config = self.config();
        if origin == config.origin {
            return Writer { origin, node: Some((config.node, config.name.clone())) };
        }
        let member = self.members().find(|(_, member)| member.origin == origin);
        Writer { origin, node: member.map(|(node, member)| (node, member.name.clone())) }
    }

    /// Whether this node holds a dot and all before it of its origin.
    pub fn holds(&self, dot: Dot) -> bool {
        self.vector().origin(dot.origin).is_some_and(|held| held.dense() >= dot.seq)
    }
}

/// Whether a field is what a client calls `name`; the whole key's cell speaks for every name.
fn is_named(field: &Field, name: Option<&[u8]>) -> bool {
    let Some(name) = name else { return true };
    let bytes = field.as_bytes();
    field.is_whole_key()
        || match Role::of(bytes) {
            Role::Hash | Role::Sorted => role::name(bytes) == name,
            Role::Set => role::member(bytes).is_some_and(|(member, _)| member == name),
            Role::Deadline | Role::Count | Role::List | Role::Other => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::boundary::{Input, Lane, Output, Reply, Request, Token};
    use crate::protocol::config::Config;

    /// A shard of node `number`, which has met nobody.
    fn shard(number: u64) -> Shard {
        let node = NodeId(u128::from(number));
        let mut config = Config::new(node, Origin(number), number);
        config.roster = false;
        config.name = format!("node {number}");
        let mut shard = Shard::new(config);
        let peer = NodeId(u128::from(3 - number));
        let up = Input::PeerUp(peer, Duration::from_millis(1));
        shard.handle(Time::START, up, &mut Output::default());
        shard
    }

    /// Sets the key; its stamp, and the push that tells of it.
    fn set(shard: &mut Shard, value: &[u8]) -> (Stamp, crate::protocol::message::Envelope) {
        let mut output = Output::default();
        let request = Request::Set { key: b"k", value };
        shard.handle(Time::START, Input::Request(Token(0), request), &mut output);
        let push = output.send.into_iter().find(|send| send.lane == Lane::Push).unwrap().envelope;
        match output.reply.first() {
            Some((_, Reply::Written { stamp, .. })) => (*stamp, push),
            other => panic!("not written: {other:?}"),
        }
    }

    /// Story: of two writes made at the same time the one that vanished is told, with its writer, what
    /// beat it, and since when; a write that had seen the other is no loss.
    #[test]
    fn a_vanished_write_is_explained() {
        let (mut one, mut two) = (shard(1), shard(2));
        set(&mut one, b"earlier");
        let (lost, _) = set(&mut one, b"lost");
        let earlier = [set(&mut two, b"x").1, set(&mut two, b"y").1];
        let (stands, push) = set(&mut two, b"stands");
        let heard = Time::from_nanos(5_000_000);
        let input = Input::Message(NodeId(2), push);
        one.handle(heard, input, &mut Output::default());
        let now = Time::from_nanos(7_000_000);
        let why = one.why(now, WallTime(0), b"k", None);
        assert_eq!(why.kind, "string");
        let winner = why.winner.unwrap();
        assert_eq!((winner.stamp, winner.bytes), (stands, Some(6)));
        // Without a roster nobody knows whose origin that is.
        assert_eq!(winner.writer, Writer { origin: Origin(2), node: None });
        let writer = Writer { origin: Origin(1), node: Some((NodeId(1), "node 1".to_owned())) };
        let ago = Duration::from_millis(2);
        assert_eq!(why.losers, [Loser { stamp: lost, writer, to: stands, ago }]);
        assert_eq!(one.why(now, WallTime(0), b"other", None).winner, None);
        // To hold a write is to hold all before it.
        assert!(!one.holds(winner.dot));
        for push in earlier {
            one.handle(now, Input::Message(NodeId(2), push), &mut Output::default());
        }
        assert!(one.holds(winner.dot) && !one.holds(Dot { seq: 4, ..winner.dot }));
    }

    /// Story: the ring forgets the oldest conflicts, and nothing else grows.
    #[test]
    fn the_ring_is_bounded() {
        let stamp = |number| Stamp {
            epoch: Default::default(),
            lamport: crate::protocol::stamp::Lamport(number),
            origin: Origin(1),
        };
        let mut conflicts = Conflicts::default();
        for number in 0..3_000 {
            let conflict =
                Conflict { key: "k".into(), winner: stamp(number + 1), loser: stamp(number) };
            conflicts.remember(Time::START, Field::whole_key(), conflict);
        }
        assert_eq!(conflicts.iter().count(), CONFLICTS_MAX);
        assert_eq!(conflicts.iter().last().map(|last| last.loser), Some(stamp(2_999)));
    }
}
