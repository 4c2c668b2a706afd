//! Laws of what is made anew: it shows what it would show had it come with its own stamps.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::protocol::boundary::{Input, Output, Request, Token};
use crate::protocol::config::Config;
use crate::protocol::delta::Captured;
use crate::protocol::event::Distrust;
use crate::protocol::id::{NodeId, Origin};
use crate::protocol::operation::{
    self, Answer, By, End, Ends, Expiry, Hash, Keys, Lists, Moment, Only, Operation, Sets, Sorted,
    Text, Toward, When, Word,
};
use crate::protocol::restore;
use crate::protocol::stamp::Dot;
use crate::protocol::store::{Cursor, Store};
use crate::protocol::time::{Time, WallTime};
use crate::protocol::version::VersionVector;

/// A key for each type: what shows of several types in one key depends on the stamps themselves.
const KEYS: [&str; 5] = ["n", "h", "s", "l", "z"];

/// When commands are executed.
const WALL: WallTime = WallTime(1_000);

/// The deadlines that keys are given.
const DEADLINES: [i64; 2] = [2_000, 5_000];

/// A key, what is done, and to which name.
type Step = (usize, u8, u8);

fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec((0..KEYS.len(), 0..10u8, 0..3u8), 0..most)
}

fn command((key, kind, name): Step) -> Operation<'static> {
    let word: Word<'static> = KEYS[key].into();
    let name: Word<'static> = ["x", "y", "z"][usize::from(name)].into();
    match (kind, KEYS[key]) {
        (0, _) => Operation::Keys(Keys::Delete(vec![word])),
        (1, _) => Operation::Keys(Keys::Persist(word)),
        (2 | 3, _) => {
            let ends = Ends::At(DEADLINES[usize::from(kind - 2)]);
            Operation::Keys(Keys::Expire { key: word, ends, only: Only::Always })
        }
        (4, "n") => {
            let (expiry, when) = (Expiry::None, When::Always);
            Operation::Text(Text::Set { key: word, value: "5".into(), expiry, when, get: false })
        }
        (_, "n") => Operation::Text(Text::Add { key: word, by: i64::from(kind) }),
        (4, "h") => Operation::Hash(Hash::Delete(word, vec![name])),
        (_, "h") => Operation::Hash(Hash::Set(word, vec![(name, "v".into())])),
        (4 | 5, "s") => Operation::Sets(Sets::Remove(word, vec![name])),
        (_, "s") => Operation::Sets(Sets::Add(word, vec![name])),
        (_, "l") => {
            let end = if kind == 4 { End::Left } else { End::Right };
            Operation::Lists(Lists::Push { key: word, elements: vec![name], end, present: false })
        }
        _ => Operation::Sorted(Sorted::Add {
            key: word,
            when: When::Always,
            toward: Toward::Any,
            changed: false,
            increment: false,
            pairs: vec![(name, f64::from(kind))],
        }),
    }
}

/// All that a key shows from `from` on: at times before, between and after the deadlines.
fn shown(store: &Store, key: &'static str, from: WallTime) -> Vec<Answer> {
    let word: Word<'static> = key.into();
    let (by, limit, to) = (By::Rank(0, -1), None, None);
    let reads = [
        Operation::Keys(Keys::Type(word)),
        Operation::Text(Text::Get(word)),
        Operation::Hash(Hash::All(word)),
        Operation::Sets(Sets::Members(word)),
        Operation::Sets(Sets::Size(word)),
        Operation::Lists(Lists::Range(word, 0, -1)),
        Operation::Sorted(Sorted::Range { key: word, by, reverse: false, limit, scores: true, to }),
    ];
    let mut answers = Vec::new();
    let times = [WALL, WallTime(3_000), WallTime(9_000)];
    for wall in times.into_iter().filter(|time| *time >= from) {
        let moment = Moment { wall, dice: 1 };
        answers.extend(reads.iter().map(|read| operation::look(store, read, moment)));
    }
    answers
}

fn shard(node: u64, wall: WallTime) -> Shard {
    let mut config = Config::new(NodeId(u128::from(node)), Origin(node), node);
    config.roster = false;
    let mut shard = Shard::new(config);
    pass(&mut shard, wall);
    shard
}

/// The time as people count it is `wall` for the shard from now on.
fn pass(shard: &mut Shard, wall: WallTime) {
    shard.handle(Time::START, Input::Wake(wall), &mut Output::default());
}

fn execute(shard: &mut Shard, step: Step) {
    let operation = command(step);
    let request =
        Request::Operate { operation: &operation, moment: Moment { wall: WALL, dice: 1 } };
    shard.handle(Time::START, Input::Request(Token(0), request), &mut Output::default());
}

fn cells(shard: &Shard) -> Vec<(Stamp, Dot, CellWrite)> {
    shard.store.all().filter(|(_, _, cell)| !cell.key.is_reserved()).collect()
}

proptest! {
    /// What a node brings that fills itself anew: what it had, what a first donor had brought that failed
    /// then, and what it has written since, over what its donor has.
    #[test]
    fn who_begins_anew_shows_what_all_have_written(
        before in steps(30),
        first in steps(12),
        since in steps(12),
        theirs in steps(30),
        wall in prop_oneof![Just(WALL), Just(WallTime(3_000)), Just(WallTime(9_000))],
    ) {
        let mut node = shard(1, WALL);
        before.iter().for_each(|step| execute(&mut node, *step));
        let mut put_away = cells(&node);
        let mut output = Output::default();
        node.gave = true;
        node.rebuild(Time::START, Distrust::Asked, &mut output);
        let mut failed = shard(3, WALL);
        first.iter().for_each(|step| execute(&mut failed, *step));
        put_away.extend(cells(&failed));
        node.reach(failed.lamport());
        node.fill.as_mut().expect("it fills itself").put_away(cells(&failed));
        since.iter().for_each(|step| execute(&mut node, *step));
        let written = cells(&node);

        let mut donor = shard(2, WALL);
        theirs.iter().for_each(|step| execute(&mut donor, *step));
        let brought = cells(&donor);

        let mut wanted = Store::new(1);
        for (stamp, dot, cell) in put_away.iter().chain(&written).chain(&brought).cloned() {
            wanted.merge(stamp, dot.seq, cell);
        }
        for (stamp, dot, cell) in brought.iter().cloned() {
            node.store.merge(stamp, dot.seq, cell);
        }
        node.reach(donor.lamport());
        pass(&mut node, wall);
        let (vector, horizon) = (donor.vector().clone(), Some(VersionVector::default()));
        let captured = Captured { vector, lamport: donor.lamport(), horizon };
        node.finish_filling(Time::START, captured, &mut output);
        prop_assert!(!node.is_filling());

        // See what the module leaves out.
        let mut theirs = Store::new(1);
        for (stamp, dot, cell) in brought.iter().cloned() {
            theirs.merge(stamp, dot.seq, cell);
        }
        let kept_on = put_away.iter().chain(&written).filter(|(_, _, cell)| {
            cell.field == role::deadline_field() && theirs.ended(&cell.key, wall).is_some()
        });
        let kept_on = kept_on.map(|(_, _, cell)| &*cell.key);
        let left_out: BTreeSet<&[u8]> = put_away
            .iter()
            .chain(&written)
            .filter(|(of, _, whole)| {
                whole.field.is_whole_key()
                    && brought.iter().any(|(stamp, _, cell)| cell.key == whole.key && stamp > of)
            })
            .map(|(_, _, whole)| &*whole.key)
            .chain(kept_on)
            .collect();
        for key in KEYS.iter().filter(|key| !left_out.contains(key.as_bytes())) {
            prop_assert_eq!(shown(&node.store, key, wall), shown(&wanted, key, wall), "of {}", key);
        }
    }

    /// What comes out of a backup into an empty cluster shows what it showed, whether it has ended since
    /// or not, in writes of whatever size.
    #[test]
    fn what_is_restored_shows_what_it_showed(
        before in steps(40),
        wall in prop_oneof![Just(WALL), Just(WallTime(3_000)), Just(WallTime(9_000))],
    ) {
        let mut node = shard(1, WALL);
        before.iter().for_each(|step| execute(&mut node, *step));
        let mut append = crate::protocol::record::Append::default();
        restore::record(node.back_up(&Cursor::default(), usize::MAX).0, &mut append);
        let mut cells: VecDeque<_> = restore::cells(&append.records).expect("they were just recorded").into();

        let mut other = shard(2, wall);
        let (mut counts, mut output) = (Default::default(), Output::default());
        other.restore(Time::START, &mut cells, usize::MAX, &mut counts, &mut output).expect("all is taken");
        for key in KEYS {
            prop_assert_eq!(shown(&other.store, key, wall), shown(&node.store, key, wall), "of {}", key);
        }
    }
}

/// A key with more cells than one write takes that has ended: no part of it comes alive.
#[test]
fn a_large_key_that_has_ended_stays_so_when_it_is_restored() {
    let mut node = shard(1, WALL);
    let ask = |node: &mut Shard, operation: Operation<'_>| {
        let moment = Moment { wall: WALL, dice: 1 };
        let request = Request::Operate { operation: &operation, moment };
        node.handle(Time::START, Input::Request(Token(0), request), &mut Output::default());
    };
    let names: Vec<String> = (0..3_000).map(|number| format!("f{number}")).collect();
    let set = |names: &'static [String]| {
        let pairs = names.iter().map(|name| (name.as_str().into(), "v".into()));
        Operation::Hash(Hash::Set("h".into(), pairs.collect()))
    };
    let (first, rest) = Vec::leak(names).split_at(500);
    ask(&mut node, set(first));
    let ends = Ends::At(DEADLINES[0]);
    ask(&mut node, Operation::Keys(Keys::Expire { key: "h".into(), ends, only: Only::Always }));
    ask(&mut node, set(rest));
    let mut append = crate::protocol::record::Append::default();
    restore::record(node.back_up(&Cursor::default(), usize::MAX).0, &mut append);
    let mut cells: VecDeque<_> =
        restore::cells(&append.records).expect("they were just recorded").into();

    let mut other = shard(2, WallTime(9_000));
    let (mut counts, mut output) = (Default::default(), Output::default());
    other
        .restore(Time::START, &mut cells, usize::MAX, &mut counts, &mut output)
        .expect("all is taken");
    let from = WallTime(9_000);
    assert_eq!(shown(&other.store, "h", from), shown(&node.store, "h", from));
}
