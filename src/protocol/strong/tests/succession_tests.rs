//! A group whose only voter loses what it knew.

use super::*;
use crate::protocol::event::Distrust;
use crate::protocol::rebuild::LONELY_MAX;

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

fn all_is_well(cluster: &mut Cluster, mode: Mode, old_epoch: Epoch) {
    all_is_well_but_orphans(cluster, mode, old_epoch);
    assert!(cluster.shards.iter().flatten().all(|shard| shard.orphans().count() == 0));
}

/// All is well again: everybody writes and reads what was acknowledged, and the mode can be switched.
fn all_is_well_but_orphans(cluster: &mut Cluster, mode: Mode, old_epoch: Epoch) {
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
            for is_slow in [false, true] {
                // What it says may arrive before it is durable, and then never be.
                cluster.pass(Duration::from_millis(7 * moment));
                if is_slow {
                    cluster.slow.insert(voter);
                    cluster.pass(Duration::from_millis(3 * moment));
                    cluster.slow.clear();
                }
                cluster.stop(voter);
                cluster.start(voter);
            }
            all_is_well(&mut cluster, mode, before);
        }
    }
}

/// Three members of which one votes.
fn three(mode: Mode) -> (Cluster, usize) {
    let mut cluster = Cluster::new(3, |config| config.voters = 1);
    cluster.converge();
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    if mode == Mode::Eventual {
        assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    }
    cluster.write(1, "k", "1");
    cluster.converge();
    let seats = &cluster.shard(0).strong.ledger().seats;
    assert_eq!(seats.len(), 1);
    let voter = seats.values().next().unwrap().0 as usize - 1;
    (cluster, voter)
}

/// A third member cannot be reached: it holds the new log up, until it is back or retired. In eventual mode
/// the others write on meanwhile.
#[test]
fn all_members_have_to_be_asked() {
    for (mode, retires) in
        [Mode::Strong, Mode::Eventual].into_iter().flat_map(|mode| [(mode, false), (mode, true)])
    {
        let (mut cluster, voter) = three(mode);
        let (other, away) = ((voter + 1) % 3, (voter + 2) % 3);
        let before = epoch(&cluster);
        cluster.stop(voter);
        cluster.stop(away);
        cluster.disks[voter].clear();
        cluster.start(voter);
        cluster.pass(Duration::from_secs(20));
        let status = cluster.shard(voter).strong_status();
        assert_eq!(status.waiting_for, [Cluster::id(away)]);
        let names = |(_, event): &(NodeId, StrongEvent)| {
            *event == StrongEvent::Bereft { nodes: vec![Cluster::id(away)] }
        };
        assert!(cluster.events.iter().any(names));
        assert!(!cluster.shard(voter).follows());
        if mode == Mode::Eventual {
            cluster.write(other, "k", "2");
            assert!(!cluster.shard(other).is_fenced());
        }
        match retires {
            true => drop(cluster.ask(voter, Request::Retire { node: Cluster::id(away) })),
            false => cluster.start(away),
        }
        cluster.until("a voter", |cluster| cluster.shards.iter().flatten().any(Shard::follows));
        cluster.write(other, "k", "3");
        assert!(epoch(&cluster) > before);
        if retires {
            cluster.start(away);
        }
        cluster.pass(Duration::from_secs(10));
        cluster.converge();
        assert_eq!(cluster.value(away, "k").as_deref(), Some("3"));
    }
}

/// A third member is away while the voter fills itself: what only the voter had is made anew all the same,
/// since its records are whole, and nothing that others hold becomes an orphan.
#[test]
fn a_member_is_away_while_the_voter_fills_itself() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = three(mode);
        let (other, away) = ((voter + 1) % 3, (voter + 2) % 3);
        cluster.stop(away);
        cluster.set_cut(voter, other, true);
        cluster.write(voter, "only", "here");
        cluster.set_cut(voter, other, false);
        let now = cluster.now;
        let mut output = Output::default();
        cluster.shards[voter].as_mut().unwrap().rebuild(now, Distrust::Asked, &mut output);
        cluster.carry_out(voter, output);
        cluster.until("it is filled", |cluster| cluster.shard(voter).fill.is_none());
        assert_eq!(cluster.shard(voter).orphans().count(), 0);
        cluster.start(away);
        cluster.until("a voter", |cluster| cluster.shards.iter().flatten().any(Shard::follows));
        cluster.converge();
        for at in 0..3 {
            assert_eq!(cluster.value(at, "only").as_deref(), Some("here"));
            assert_eq!(cluster.value(at, "k").as_deref(), Some("1"));
        }
    }
}

/// Both have holes: they fill themselves from nobody, and what one of them still has is not lost.
#[test]
fn both_have_holes() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let (mut cluster, voter) = two(mode);
        let other = 1 - voter;
        let before = epoch(&cluster);
        let pieces = [0, 1].map(|at| cluster.disks[at].len());
        cluster.write(voter, "last", "1");
        cluster.converge();
        cluster.stop(0);
        cluster.stop(1);
        // The voter's hole has the last write, the other's something else.
        cluster.disks[voter].drain(pieces[voter]..);
        cluster.disks[other].drain(pieces[other] - 2..pieces[other] - 1);
        (0..2).for_each(|at| cluster.rise(at, true));
        cluster.pass(LONELY_MAX);
        all_is_well_but_orphans(&mut cluster, mode, before);
        let orphaned = cluster.shard(other).orphans().any(|it| &*it.cell.key == b"last");
        assert!(orphaned || cluster.value(other, "last").as_deref() == Some("1"), "{mode}");
    }
}

/// A member whose disk is gone after it has consented does not hold the others up for ever.
#[test]
fn who_has_consented_loses_its_disk() {
    let (mut cluster, voter) = three(Mode::Strong);
    let (other, late) = ((voter + 1) % 3, (voter + 2) % 3);
    cluster.stop(voter);
    cluster.stop(late);
    cluster.set_cut(other, late, true);
    cluster.disks[voter].clear();
    // What the members hold does not arrive at the founder.
    cluster.network = Box::new(move |_, to, envelope| match &envelope.message {
        Message::Strong(_) | Message::Greet(_) => Passing::Arrives,
        _ if to == voter => Passing::Lost,
        _ => Passing::Arrives,
    });
    cluster.start(voter);
    cluster.start(late);
    cluster.until("consent", |cluster| cluster.shard(late).is_fenced());
    cluster.pass(Duration::from_secs(1));
    cluster.stop(late);
    cluster.disks[late].clear();
    cluster.start(late);
    cluster.let_go();
    cluster.set_cut(other, late, false);
    cluster.until("a voter", |cluster| cluster.shards.iter().flatten().any(Shard::follows));
    cluster.converge();
    assert_eq!(cluster.value(late, "k").as_deref(), Some("1"));
}

/// The links between the first two members and those that joined later.
const HALVES: [(usize, usize); 4] = [(0, 2), (0, 3), (1, 2), (1, 3)];

fn set_halves_apart(cluster: &mut Cluster, apart: bool) {
    HALVES.iter().for_each(|(one, other)| cluster.set_cut(*one, *other, apart));
}

/// Four members of which three vote; the only voter that there was at first, and the one that is down and
/// knows of no other.
fn grown() -> (Cluster, usize, usize) {
    let mut cluster = Cluster::of(4, 2, |config| config.voters = 3);
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    let voter = cluster.shard(0).strong.ledger().seats.values().next().unwrap().0 as usize - 1;
    let stale = 1 - voter;
    cluster.converge();
    cluster.stop(stale);
    cluster.start(2);
    cluster.start(3);
    cluster.until("three voters", |cluster| {
        [2, 3].iter().all(|at| cluster.shard(*at).follows())
            && cluster.shard(2).strong.ledger().seats.len() == 3
    });
    (cluster, voter, stale)
}

/// All that the founder could ask was as much out of date as itself, and others have gone on with more
/// voters: these stay apart, and say so. Nothing of what they have acknowledged is lost.
#[test]
fn who_knows_of_another_voter_does_not_take_the_new_group_over() {
    let (mut cluster, voter, stale) = grown();
    set_halves_apart(&mut cluster, true);
    cluster.write(2, "k", "acknowledged");
    cluster.stop(voter);
    cluster.disks[voter].clear();
    cluster.start(voter);
    cluster.start(stale);
    cluster.until("another group", |cluster| cluster.shard(voter).follows());
    set_halves_apart(&mut cluster, false);
    cluster.pass(Duration::from_secs(5));
    for at in [2, 3] {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("acknowledged"));
        assert_eq!(cluster.shard(at).orphans().count(), 0);
    }
    let apart = |(_, event): &(NodeId, StrongEvent)| matches!(event, StrongEvent::Strangers { .. });
    assert!(cluster.events.iter().any(apart));
}

/// The founder hears of other voters after it has asked: the fences that it has asked for end.
#[test]
fn a_succession_that_is_given_up_ends_the_fences() {
    let (mut cluster, voter, stale) = grown();
    cluster.stop(voter);
    cluster.disks[voter].clear();
    cluster.cut.extend(HALVES);
    cluster.on_words(|_, _, word| match word {
        Word::Consent { .. } => Passing::Lost,
        _ => Passing::Arrives,
    });
    cluster.start(voter);
    cluster.start(stale);
    cluster
        .until("fences", |cluster| [voter, stale].iter().all(|at| cluster.shard(*at).is_fenced()));
    set_halves_apart(&mut cluster, false);
    cluster.let_go();
    cluster.write(2, "k", "1");
    cluster.pass(Duration::from_secs(10));
    for at in 0..4 {
        cluster.write(at, "k", &at.to_string());
        assert_eq!(cluster.value((at + 1) % 4, "k"), Some(at.to_string()));
    }
    cluster.converge();
}

/// One that is alone goes on with what there is, and keeps it when others join it later.
#[test]
fn one_that_is_alone_goes_on() {
    for mode in [Mode::Strong, Mode::Eventual] {
        let mut cluster = Cluster::of(3, 1, |config| config.voters = 1);
        assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
        if mode == Mode::Eventual {
            assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
        }
        (0..20).for_each(|number| cluster.write(0, &format!("k{number}"), "1"));
        cluster.stop(0);
        cluster.salvage(0);
        cluster.until("a voter", |cluster| cluster.shard(0).follows());
        cluster.write(0, "later", "1");
        let kept = cluster.shard(0).store().keys_live();
        assert!((16..=20).contains(&kept), "{kept}");
        cluster.start(1);
        cluster.start(2);
        cluster.pass(Duration::from_secs(40));
        cluster.converge();
        for at in 0..3 {
            assert_eq!(cluster.shard(at).store().keys_live(), kept, "at {at}");
            assert_eq!(cluster.value(at, "later").as_deref(), Some("1"));
            cluster.write(at, "later", "1");
        }
        assert_eq!(cluster.shard(0).orphans().count(), 0);
    }
}
