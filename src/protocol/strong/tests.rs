//! Stories of the replicated log and the switch, with shards in memory.

mod cluster_tests;
mod faults_tests;
mod holes_tests;
mod orphans_tests;
mod requests_tests;
mod strangers_tests;
mod succession_tests;
mod switching_tests;
mod voters_tests;

use std::time::Duration;

use cluster_tests::{Cluster, Passing, plain, strong};

use super::ledger::Entry;
use super::*;
use crate::protocol::boundary::{Input, Reply, Request};
use crate::protocol::config::Config;
use crate::protocol::operation::Word as Argument;
use crate::protocol::operation::{Answer, Expiry, Moment, Operation, Text, When};
use crate::protocol::stamp::Lamport;
use crate::protocol::time::WallTime;
use crate::protocol::version::VersionVector;

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
