//! Stories of keys that end.

use std::collections::BTreeSet;

use super::super::boundary::{Input, Request, Token};
use super::super::id::Origin;
use super::super::operation::{
    Answer, Ends, Expiry as Deadline, Keys, Mode, Operation, Sets, Text, When,
};
use super::super::record::Append;
use super::super::shard::Careless;
use super::cluster_tests::{BEGIN, Cluster, LONG, SECOND, id};
use super::*;

fn names(names: &[&str]) -> Answer {
    Answer::Array(names.iter().map(|name| Answer::bulk(*name)).collect())
}

/// Clients that always set deadlines leave nothing behind, and what is said and written about that does
/// not depend on how many keys there were.
#[test]
fn what_has_ended_is_forgotten_without_a_word() {
    let written: Vec<u64> = [10, 1_000]
        .into_iter()
        .map(|keys| {
            let mut cluster = Cluster::new(3);
            for key in 0..keys {
                cluster.set(key % 3, &format!("key{key}"), 10);
            }
            cluster.hset(1, "hash", "a");
            cluster.deliver();
            cluster.expire(2, "hash", 20);
            cluster.deliver();
            let before = cluster.shard(0).store().bytes();
            assert_eq!(cluster.ask(0, Operation::Keys(Keys::Size)), Answer::count(keys + 1));
            cluster.pass(30 * SECOND);
            assert_eq!(cluster.ask(0, Operation::Keys(Keys::Size)), Answer::count(0));
            let counted = |cluster: &Cluster| cluster.shard(0).counters().writes_local;
            let local = counted(&cluster);
            assert!(cluster.cells(0) > 2 * keys, "the grace is not over");
            cluster.pass(LONG);
            for at in 0..3 {
                assert_eq!(cluster.cells(at), 0, "{at}");
                let store = cluster.shard(at).store();
                assert_eq!((store.keys_live(), store.tombstones()), (0, 0));
                assert_eq!(cluster.shard(at).counters().keys_expired, keys as u64 + 1);
                // With few keys the claims take more than they did.
                assert!(keys == 10 || store.bytes() < before);
            }
            let written = counted(&cluster) - local;
            cluster.pass(LONG);
            assert_eq!(counted(&cluster), local + written, "and then nobody says anything more");
            assert!(cluster.agree());
            written
        })
        .collect();
    assert!((2..=4).contains(&written[0]) && written[0] == written[1], "{written:?}");
}

/// A node that is alone forgets as well, and what it wrote down before does not bring anything back.
#[test]
fn a_single_node_forgets_for_good() {
    let mut cluster = Cluster::new(1);
    for key in 0..5_000 {
        cluster.set(0, &format!("key{key}"), 1);
    }
    let (key, value, expiry) = ("stays".into(), "v".into(), Deadline::None);
    let when = When::Always;
    cluster.ask(0, Operation::Text(Text::Set { key, value, expiry, when, get: false }));
    cluster.pass(LONG);
    assert_eq!(cluster.cells(0), 1);
    let before = cluster.shard(0).summary().1;
    cluster.start(0);
    assert_eq!(cluster.cells(0), 1);
    assert_eq!(cluster.shard(0).summary().1, before);
}

/// Who takes the deadline away in time, where nobody hears of it, is heard in the end: as long as a
/// member is away nothing is forgotten.
#[test]
fn a_deadline_that_was_taken_away_in_time_does_not_pass() {
    for put_off in [false, true] {
        let mut cluster = Cluster::new(3);
        cluster.set(0, "key", 10);
        cluster.set(0, "other", 10);
        cluster.deliver();
        [0, 1].into_iter().for_each(|at| cluster.set_cut(at, 2, true));
        match put_off {
            true => cluster.expire(2, "key", 1_000),
            false => drop(cluster.ask(2, Operation::Keys(Keys::Persist("key".into())))),
        }
        cluster.pass(LONG);
        assert_eq!(cluster.ask(0, Operation::Text(Text::Get("key".into()))), Answer::Nil);
        assert_eq!(cluster.cells(0), 4, "not without the third");
        [0, 1].into_iter().for_each(|at| cluster.set_cut(at, 2, false));
        cluster.pass(LONG);
        for at in 0..3 {
            let value = cluster.ask(at, Operation::Text(Text::Get("key".into())));
            assert_eq!(value, Answer::bulk("value"), "{at}");
            assert_eq!(cluster.shard(at).counters().keys_expired, 1, "the other one");
        }
        assert!(cluster.agree());
    }
}

/// One node has forgotten a key and writes it anew, another still has what there was: both show the
/// same, with every command that may follow.
#[test]
fn a_write_after_forgetting_is_not_taken_for_an_old_one() {
    for careless in [Careless::No, Careless::ForgetsEarly] {
        let mut cluster = Cluster::with(2, careless, |_| ());
        cluster.hset(0, "key", "old");
        cluster.expire(0, "key", 10);
        cluster.deliver();
        // The second is woken only to claim.
        while cluster.cells(0) > 0 {
            cluster.asleep.insert(1);
            cluster.pass(SECOND);
            if cluster.cells(0) > 0 && cluster.shard(1).expiry.own.ripe.until == WallTime(0) {
                cluster.asleep.clear();
                cluster.pass(SECOND);
            }
        }
        assert_eq!(cluster.cells(1), 2, "the second has not forgotten it");
        cluster.hset(0, "key", "new");
        cluster.expire(0, "key", 500);
        cluster.deliver();
        let shown = [0, 1].map(|at| cluster.hkeys(at, "key"));
        match careless {
            Careless::No => {
                assert_eq!(shown, [names(&["new"]), names(&["new"])]);
                assert!(cluster.agree());
                cluster.start(1);
                assert_eq!(cluster.hkeys(1, "key"), names(&["new"]), "nor after a start");
            }
            _ => assert_ne!(shown[0], shown[1], "the claims are needed"),
        }
    }
}

/// The snapshot has a key as it was written anew, and the journal that is read over it begins before it
/// was forgotten.
#[test]
fn older_records_do_not_bring_back_what_was_forgotten() {
    let mut cluster = Cluster::new(1);
    cluster.hset(0, "key", "old");
    cluster.expire(0, "key", 10);
    cluster.pass(LONG);
    assert_eq!(cluster.cells(0), 0);
    cluster.hset(0, "key", "new");
    cluster.expire(0, "key", 500);
    let mut snapshot = Append::default();
    cluster.shard(0).export_head(&mut snapshot);
    cluster.shard(0).export_cells(
        &super::super::store::Cursor::default(),
        usize::MAX,
        &mut snapshot,
    );
    cluster.disks[0].insert(0, snapshot.records);
    cluster.start(0);
    assert_eq!(cluster.hkeys(0, "key"), names(&["new"]));
    assert_eq!(cluster.cells(0), 2);
}

/// A node that is filled by one that claims that a key is ripe takes that over: it does not mix what is
/// left of the key with what is written by those who have forgotten it.
#[test]
fn who_is_filled_knows_what_is_ripe() {
    let mut cluster = Cluster::new(2);
    cluster.hset(0, "key", "old");
    cluster.expire(0, "key", 10);
    cluster.deliver();
    let all_claim = |cluster: &Cluster| {
        (0..2).all(|at| cluster.shard(at).expiry.own.ripe.until >= WallTime(BEGIN + 10_000))
    };
    while !all_claim(&cluster) {
        cluster.pass(Duration::from_millis(500));
    }
    assert!((0..2).all(|at| cluster.cells(at) == 2), "nobody has forgotten it");
    cluster.asleep.insert(1);
    cluster.set_cut(0, 1, true);
    // It meets the second one only.
    cluster.cut.insert((0, 2));
    let new = cluster.join();
    cluster.asleep.remove(&1);
    cluster.pass(20 * SECOND);
    assert_eq!(cluster.cells(new), 2);
    assert!(!cluster.shard(new).expiry.own.ripe.dots.is_empty(), "it has taken over the claim");
    cluster.set_cut(0, 1, false);
    cluster.set_cut(0, new, false);
    cluster.pass(LONG);
    assert!((0..3).all(|at| cluster.cells(at) == 0));
    assert!(cluster.agree());
}

/// What a node has put away and makes anew begins anew where the key is over meanwhile.
#[test]
fn what_is_made_anew_does_not_join_what_is_over() {
    let mut cluster = Cluster::new(3);
    cluster.ask(0, Operation::Sets(Sets::Add("key".into(), vec!["old".into()])));
    cluster.expire(0, "key", 10);
    cluster.deliver();
    [0, 1].into_iter().for_each(|at| cluster.set_cut(at, 2, true));
    cluster.ask(2, Operation::Sets(Sets::Add("key".into(), vec!["new".into()])));
    cluster.handle(0, Input::Request(Token(0), Request::Retire { node: id(2) }));
    cluster.pass(72 * SECOND);
    [0, 1].into_iter().for_each(|at| cluster.set_cut(at, 2, false));
    cluster.pass(LONG);
    let members = || Operation::Sets(Sets::Members("key".into()));
    let shown: Vec<_> = (0..3).map(|at| cluster.ask(at, members())).collect();
    assert!(shown.iter().all(|one| *one == shown[0]), "{shown:?}");
    assert!(cluster.agree());
}

/// In strong mode voters forget at different times, and write the same all the same; and a switch finds
/// the same fingerprints whether a node has forgotten or not.
#[test]
fn voters_write_the_same_whether_they_have_forgotten_or_not() {
    let mut cluster = Cluster::with(3, Careless::No, |config| config.voters = 3);
    for key in ["a", "b", "c"] {
        cluster.hset(0, key, "old");
        cluster.deliver();
        cluster.expire(1, key, 10);
    }
    let ripe = |cluster: &Cluster| {
        (0..3).all(|at| cluster.shard(at).expiry.own.ripe.until >= WallTime(BEGIN + 10_000))
    };
    while !ripe(&cluster) {
        cluster.pass(Duration::from_millis(500));
    }
    // Only the first forgets before the switch.
    cluster.shards[1].as_mut().unwrap().careless = Careless::KeepsExpired;
    cluster.shards[2].as_mut().unwrap().careless = Careless::KeepsExpired;
    cluster.pass(10 * SECOND);
    let kept: Vec<_> = (0..3).map(|at| cluster.cells(at)).collect();
    assert_eq!(kept, [0, 6, 6]);
    cluster.switch(Mode::Strong);
    let same = |cluster: &Cluster| {
        let points: BTreeSet<_> = (0..3)
            .map(|at| {
                let (epoch, slot, fingerprint) = cluster.shard(at).log_point().unwrap();
                (epoch, slot, fingerprint.to_string())
            })
            .collect();
        assert_eq!(points.len(), 1, "{points:?}");
    };
    cluster.hset(1, "a", "new");
    cluster.hset(0, "b", "new");
    cluster.pass(SECOND);
    same(&cluster);
    for at in 0..3 {
        assert_eq!(cluster.hkeys(at, "a"), names(&["new"]));
        assert_eq!(cluster.hkeys(at, "b"), names(&["new"]));
        assert_eq!(cluster.hkeys(at, "c"), names(&[]));
    }
    // What ends in strong mode is forgotten there, once the log's time has passed it.
    cluster.expire(2, "a", 10);
    cluster.set(0, "d", 10);
    (0..3).for_each(|at| cluster.shards[at].as_mut().unwrap().careless = Careless::No);
    cluster.pass(LONG);
    cluster.set(1, "e", 1_000);
    cluster.pass(LONG);
    for at in 0..3 {
        assert_eq!(cluster.hkeys(at, "a"), names(&[]));
        let reader = cluster.shard(at).reader();
        assert!(["a", "c", "d"].iter().all(|key| !reader.remains(key.as_bytes())), "{at}");
    }
    same(&cluster);
    assert!(cluster.agree());
    cluster.switch(Mode::Eventual);
    cluster.hset(2, "a", "newest");
    cluster.pass(5 * SECOND);
    assert!((0..3).all(|at| cluster.hkeys(at, "a") == names(&["newest"])));
    assert!(cluster.agree());
}

/// A clock that is far ahead makes nobody forget early, and one that is set back does not make a node
/// write by a time that has passed for all.
#[test]
fn a_wrong_clock_makes_nobody_forget_early() {
    let mut cluster = Cluster::new(2);
    cluster.set(0, "key", 600);
    cluster.deliver();
    cluster.ahead[1] = 1_000_000;
    cluster.pass(LONG);
    assert_eq!(cluster.cells(0), 2);
    assert_eq!(cluster.ask(1, Operation::Text(Text::Get("key".into()))), Answer::Nil);
    cluster.ahead[1] = 0;
    cluster.pass(LONG);
    for at in 0..2 {
        let value = cluster.ask(at, Operation::Text(Text::Get("key".into())));
        assert_eq!(value, Answer::bulk("value"));
    }
    cluster.ahead = vec![40_000, 0];
    cluster.pass(600 * SECOND);
    assert!((0..2).all(|at| cluster.cells(at) == 0));
    assert!(cluster.agree());
}

/// Listeners are told once of each deadline that passes, soon after it has, by the clock of their node,
/// although the key is forgotten much later; and of none that passed before they listened.
#[test]
fn listeners_are_told_when_a_deadline_passes() {
    let mut cluster = Cluster::new(2);
    cluster.set(0, "early", 10);
    cluster.pass(20 * SECOND);
    (0..2).for_each(|at| cluster.shards[at].as_mut().unwrap().tell_changes(true));
    cluster.ahead[1] = 5_000;
    let begin = cluster.now;
    cluster.set(0, "far", 10_000);
    cluster.pass(2 * SECOND);
    for key in 0..3 {
        cluster.set(0, &format!("key{key}"), 30);
    }
    cluster.set(0, "kept", 30);
    cluster.deliver();
    cluster.ask(0, Operation::Keys(Keys::Persist("kept".into())));
    cluster.pass(LONG);
    for (node, after) in [(0, 32), (1, 27)] {
        let told = cluster.passed.iter().filter(|(at, ..)| *at == node);
        let told: Vec<_> = told.map(|(_, key, at)| (key.to_string(), at.since(begin))).collect();
        let names: Vec<_> = told.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(names, ["key0", "key1", "key2"], "n{node}");
        let soon = after * SECOND..=after * SECOND + TELL_PAUSE;
        assert!(told.iter().all(|(_, at)| soon.contains(at)), "{told:?}");
        assert_eq!(cluster.shard(node).counters().keys_expired, 4);
    }
}

/// Very many keys may have the same deadline, and others one right after it: listeners are told of each once.
#[test]
fn listeners_are_told_of_all_keys_with_the_same_deadline() {
    let mut cluster = Cluster::new(1);
    cluster.shards[0].as_mut().unwrap().tell_changes(true);
    let end = (cluster.wall(0).0 + 60_000) as i64;
    let count = 2 * SLICE_KEYS_MAX + 100;
    for number in 0..count + 100 {
        let key = format!("key{number}");
        let expiry = Deadline::Ends(Ends::At(end + i64::from(number >= count)));
        let (key, value, when) = (key.as_str().into(), "value".into(), When::Always);
        let set = Operation::Text(Text::Set { key, value, expiry, when, get: false });
        assert_eq!(cluster.ask(0, set), Answer::Ok);
    }
    cluster.pass(SECOND * 59);
    assert!(cluster.passed.is_empty());
    cluster.pass(SECOND * 2);
    let told: BTreeSet<_> = cluster.passed.iter().map(|(_, key, _)| key.to_string()).collect();
    assert_eq!((told.len(), cluster.passed.len()), (count + 100, count + 100));
}

/// Where memory is full of keys that have ended, clients are refused until they are forgotten, and then
/// not any more: in strong mode as well, where the log's time goes on although nobody asks it anything.
#[test]
fn memory_comes_back() {
    for mode in [Mode::Eventual, Mode::Strong] {
        let mut cluster = Cluster::with(3, Careless::No, |config| {
            config.voters = 3;
            config.memory_bytes_max = Some(200_000);
        });
        if mode == Mode::Strong {
            cluster.switch(Mode::Strong);
        }
        let mut number = 0;
        while cluster.set(number % 3, &format!("key{number}"), 30) {
            number += 1;
            cluster.deliver();
        }
        assert!(number > 100, "{number}");
        let time = cluster.wall(0);
        assert_eq!(cluster.shard(0).store().keys_ending(time), number);
        cluster.pass(40 * SECOND);
        assert!(!cluster.set(0, "again", 30), "{mode:?}: they are still there");
        cluster.pass(LONG);
        assert!((0..3).all(|at| cluster.cells(at) == 0), "{mode:?}");
        assert!(cluster.set(0, "again", 30));
        cluster.pass(SECOND);
        assert!(cluster.agree());
    }
}

/// A claim is read as it was written, and other bytes are none.
#[test]
fn a_claim_survives_encoding() {
    let mut dots = VersionVector::default();
    dots.insert_all(Origin(7), 1, 9);
    let ripe = Ripe { until: WallTime(16_000), dots: dots.clone() };
    let claim = Claim { judged: WallTime(24_000), held: dots, ripe };
    let bytes = claim.encode();
    assert_eq!(Claim::decode(&bytes), Some(claim));
    assert_eq!(Claim::bound(&bytes), Some(WallTime(16_000)));
    assert!(Key::from(CLAIMS_KEY).is_reserved());
    for cut in 0..bytes.len() {
        assert_eq!(Claim::decode(&bytes[..cut]), None);
    }
}
