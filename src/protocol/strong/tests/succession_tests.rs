//! A group whose only voter loses what it knew.

use super::*;
use crate::protocol::event::Distrust;

/// Two members, of which one votes.
fn two(mode: Mode) -> (Cluster, usize) {
    let mut cluster = Cluster::new(2, |config| config.voters = 3);
    cluster.write(0, "old", "1");
    cluster.converge();
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    if mode == Mode::Eventual {
        assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    }
    for number in 0..20 {
        cluster.write(number % 2, &format!("k{}", number % 3), &number.to_string());
    }
    cluster.converge();
    let seats = &cluster.shard(0).strong.ledger().seats;
    assert_eq!(seats.len(), 1);
    let voter = seats.values().next().unwrap().0 as usize - 1;
    (cluster, voter)
}

/// All is well again: everybody writes and reads what was acknowledged, and the mode can be switched.
fn all_is_well(cluster: &mut Cluster, mode: Mode, old_epoch: Epoch) {
    cluster.until("a voter", |cluster| cluster.shards.iter().flatten().any(Shard::follows));
    cluster.until("everybody knows", |cluster| {
        cluster.shards.iter().flatten().all(|it| it.epoch > old_epoch && it.fill.is_none())
    });
    for at in 0..cluster.shards.len() {
        assert_eq!(cluster.shard(at).strong.ledger().mode(), mode);
        for (key, value) in [("old", "1"), ("k0", "18"), ("k1", "19"), ("k2", "17")] {
            assert_eq!(cluster.value(at, key).as_deref(), Some(value), "{key} at {at}");
        }
        cluster.write(at, "new", &at.to_string());
        cluster.converge();
        for reader in 0..cluster.shards.len() {
            assert_eq!(cluster.value(reader, "new"), Some(at.to_string()));
        }
        assert_eq!(cluster.shard(at).orphans().count(), 0);
    }
    for to in [Mode::Eventual, Mode::Strong, Mode::Eventual] {
        let switched = cluster.switch(1, to, &[]);
        let is_done = matches!(switched, Switched::Done { .. } | Switched::Already { .. });
        assert!(is_done, "{switched:?}");
    }
    cluster.converge();
}

fn epoch(cluster: &Cluster) -> Epoch {
    cluster.shards.iter().flatten().map(|shard| shard.epoch).max().unwrap()
}

/// Its disk is gone.
#[test]
fn the_only_voter_loses_its_disk() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = two(mode);
        let before = epoch(&cluster);
        cluster.stop(voter);
        cluster.disks[voter].clear();
        cluster.start(voter);
        all_is_well(&mut cluster, mode, before);
    }
}

/// Its records have holes.
#[test]
fn the_only_voter_has_holes_in_its_records() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = two(mode);
        let before = epoch(&cluster);
        cluster.stop(voter);
        cluster.salvage(voter);
        all_is_well(&mut cluster, mode, before);
    }
}

/// It is not answered from what has holes before it has met the others.
#[test]
fn with_holes_it_waits_for_all_members() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = two(mode);
        cluster.stop(0);
        cluster.stop(1);
        cluster.salvage(voter);
        let token = cluster.set(voter, "k0", "lost");
        cluster.pass(Duration::from_secs(20));
        let reply = cluster.replies.remove(&token);
        assert!(matches!(reply, None | Some(Reply::Refused(_))), "{reply:?}");
        assert_eq!(cluster.status()[0].waiting_for, [], "it does not know what is missing");
    }
}

/// Somebody asks it to begin anew, with writes that the other one has not heard of.
#[test]
fn the_only_voter_begins_anew() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = two(mode);
        let other = 1 - voter;
        // What it says of writes does not arrive: only it has this one.
        cluster.network = Box::new(move |from, _, envelope| match &envelope.message {
            Message::Strong(_) | Message::Greet(_) => Passing::Arrives,
            _ if from == voter => Passing::Lost,
            _ => Passing::Arrives,
        });
        cluster.write(voter, "only", "here");
        cluster.write(voter, "k0", "18");
        assert!(!cluster.shard(other).vector().covers(cluster.shard(voter).vector()));
        let before = epoch(&cluster);
        let now = cluster.now;
        let mut output = Output::default();
        let shard = cluster.shards[voter].as_mut().unwrap();
        shard.rebuild(now, Distrust::Asked, &mut output);
        assert!(shard.is_filling());
        cluster.carry_out(voter, output);
        cluster.let_go();
        all_is_well(&mut cluster, mode, before);
        assert_eq!(cluster.value(other, "only").as_deref(), Some("here"));
    }
}

/// It dies at any moment on the way, and comes back.
#[test]
fn the_founder_dies_on_the_way() {
    for mode in [Mode::Strong, Mode::Eventual] {
        for moment in 0..40 {
            let (mut cluster, voter) = two(mode);
            let before = epoch(&cluster);
            cluster.stop(voter);
            cluster.disks[voter].clear();
            cluster.start(voter);
            for _ in 0..2 {
                cluster.pass(Duration::from_millis(7 * moment));
                cluster.stop(voter);
                cluster.start(voter);
            }
            all_is_well(&mut cluster, mode, before);
        }
    }
}

/// A third member cannot be reached: it holds the others up, until it is back or retired.
#[test]
fn all_members_have_to_be_asked() {
    for retires in [false, true] {
        let (mut cluster, voter) = two(Mode::Strong);
        cluster.shards.push(None);
        cluster.disks.push(Vec::new());
        cluster.start(2);
        cluster.pass(Duration::from_millis(150));
        let ledger = cluster.shard(voter).strong.ledger();
        if ledger.seats.len() > 1 {
            // It has been seated meanwhile, and is one of three or about to be.
            continue;
        }
        let before = epoch(&cluster);
        cluster.stop(voter);
        cluster.stop(2);
        cluster.disks[voter].clear();
        cluster.start(voter);
        cluster.pass(Duration::from_secs(20));
        assert_eq!(cluster.shard(voter).strong_status().waiting_for, [Cluster::id(2)]);
        assert!(!cluster.shard(voter).follows());
        match retires {
            true => drop(cluster.ask(voter, Request::Retire { node: Cluster::id(2) })),
            false => cluster.start(2),
        }
        cluster.until("a voter", |cluster| cluster.shards.iter().flatten().any(Shard::follows));
        cluster.write(1 - voter, "k0", "18");
        assert!(epoch(&cluster) > before);
    }
}
