//! What a switch must survive.

use super::*;
use crate::protocol::operation::Ends;
use crate::protocol::time::WallTime;

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
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("strong"));
    }
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    for at in 0..3 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("strong"));
    }
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

/// A member that joins while a switch is under way acknowledges nothing that would not count: it holds its
/// requests until it knows how that ends.
#[test]
fn a_member_that_joins_during_a_switch_holds_its_writes() {
    let mut cluster = Cluster::of(5, 4, |config| config.voters = 3);
    cluster.write(0, "k", "old");
    cluster.converge();
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Lost,
        _ => Passing::Arrives,
    });
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the drain", |cluster| {
        cluster.status().iter().take(4).all(|it| it.posture == Posture::Held)
    });
    // It meets only one that does not vote and knows of the switch by its fence.
    let learner = (0..4).find(|at| cluster.shard(*at).strong.standing.voter.is_none()).unwrap();
    cluster.cut.extend((0..4).filter(|at| *at != learner).map(|at| (at, 4)));
    cluster.start(4);
    cluster.pass(Duration::from_millis(20));
    let asked = cluster.set(4, "new", "acknowledged");
    cluster.pass(Duration::from_millis(20));
    assert!(!cluster.replies.contains_key(&asked), "{:?}", cluster.replies);
    cluster.let_go();
    cluster.cut.clear();
    (0..4).for_each(|at| cluster.set_cut(at, 4, false));
    cluster.switched(wish);
    let reply = cluster.answer(asked);
    assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    for at in 0..5 {
        assert_eq!(cluster.value(at, "new").as_deref(), Some("acknowledged"), "at {at}");
        assert_eq!(cluster.shard(at).orphans().count(), 0);
    }
}

/// A member of which the one that drives has not heard yet, but another has, gives the switch up: what it
/// acknowledges meanwhile counts.
#[test]
fn a_member_that_is_not_fenced_gives_a_switch_up() {
    // In the second case the other voters drain, and know of it, before the one that drives.
    for ignorant in [&[0, 1][..], &[0]] {
        not_fenced(ignorant);
    }
}

fn not_fenced(ignorant: &'static [usize]) {
    let mut cluster = Cluster::of(4, 3, |config| config.eager = false);
    cluster.write(0, "k", "old");
    cluster.converge();
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    // Nobody else hears of it until the others are fenced.
    cluster.cut.extend([(0, 3), (1, 3)]);
    cluster.network = Box::new(|from, to, envelope| match &envelope.message {
        Message::Strong(_) => Passing::Arrives,
        _ if to != 3 && (from == 2 || to == 0) && ignorant.contains(&to) => Passing::Waits,
        _ => Passing::Arrives,
    });
    cluster.start(3);
    cluster.pass(Duration::from_millis(20));
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.write(3, "first", "acknowledged");
    cluster.pass(Duration::from_millis(500));
    cluster.let_go();
    let switched = cluster.switched(wish);
    assert_eq!(switched, Switched::Aborted { epoch: Epoch(4) });
    (0..2).for_each(|at| cluster.set_cut(at, 3, false));
    cluster.pass(Duration::from_secs(5));
    let again = cluster.switch(0, Mode::Strong, &[]);
    assert_eq!(again, Switched::Done { epoch: Epoch(5) });
    cluster.converge();
    for at in 0..4 {
        assert_eq!(cluster.value(at, "first").as_deref(), Some("acknowledged"), "at {at}");
        assert_eq!(cluster.shard(at).orphans().count(), 0);
    }
}

/// A member that is left out is retired once strong mode has begun. If the switch is given up it is a member
/// as before, and what it has written counts.
#[test]
fn who_is_left_out_of_a_switch_that_is_given_up_stays_a_member() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    cluster.write(3, "k", "old");
    cluster.converge();
    let out = Cluster::id(3);
    let is_active = |cluster: &Cluster, at| cluster.shard(at).roster.active(out).is_some();
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    cluster.write(3, "k", "meanwhile");
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Lost,
        _ => Passing::Arrives,
    });
    let switched = cluster.switch(0, Mode::Strong, &[3]);
    assert_eq!(switched, Switched::Aborted { epoch: Epoch(2) });
    assert!((0..3).all(|at| is_active(&cluster, at)));
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    assert_eq!(cluster.shard(3).orphans().count(), 0);
    for at in 0..4 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("meanwhile"), "at {at}");
    }
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    cluster.let_go();
    assert_eq!(cluster.switch(0, Mode::Strong, &[3]), Switched::Done { epoch: Epoch(3) });
    cluster.pass(Duration::from_secs(1));
    assert!((0..3).all(|at| !is_active(&cluster, at)));
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    assert!((0..4).all(|at| is_active(&cluster, at)), "it has come back in a new life");
    cluster.write(3, "k", "strong");
}

/// The primary cannot be left out while it is up, as nobody can; once it is gone it can be, although in
/// eventual mode nothing is put to the log that would make another one the primary.
#[test]
fn a_primary_that_is_gone_can_be_left_out() {
    let mut cluster = Cluster::new(3, plain);
    cluster.write(0, "k", "kept");
    cluster.converge();
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    let primary = cluster.status()[0].primary.unwrap();
    let at = (0..3).find(|at| Cluster::id(*at) == primary).unwrap();
    let others = [(at + 1) % 3, (at + 2) % 3];
    for other in others {
        let refused = cluster.switch(other, Mode::Strong, &[at]);
        assert_eq!(refused, Switched::CannotLeaveOut { node: primary });
    }
    cluster.stop(at);
    cluster.pass(Duration::from_secs(5));
    let switched = cluster.switch(others[0], Mode::Strong, &[at]);
    assert_eq!(switched, Switched::Done { epoch: Epoch(3) });
    cluster.write(others[1], "other", "without it");
    cluster.start(at);
    cluster.pass(Duration::from_secs(10));
    cluster.converge();
    assert_eq!(cluster.value(at, "k").as_deref(), Some("kept"));
    assert_eq!(cluster.value(at, "other").as_deref(), Some("without it"));
}

/// What does not fit a switch that is under way does not join it: a dry run, or the wish to leave out
/// others. Who wishes that is told.
#[test]
fn only_the_same_wish_joins_a_switch() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let first = cluster.wish(0, Mode::Strong, &[3]);
    cluster.until("the drain", |cluster| !cluster.waiting.is_empty());
    let all = SwitchOrder { to: Mode::Strong, without: Vec::new(), dry_run: false };
    let dry = SwitchOrder { without: vec![Cluster::id(3)], dry_run: true, ..all.clone() };
    for at in 0..3 {
        let token = cluster.ask(at, Request::Switch(&all));
        assert_eq!(cluster.switched(token), Switched::LeavesOut { nodes: vec![Cluster::id(3)] });
        let token = cluster.ask(at, Request::Switch(&dry));
        assert_eq!(cluster.switched(token), Switched::Underway);
    }
    let same = cluster.wish(1, Mode::Strong, &[3]);
    cluster.let_go();
    for token in [first, same] {
        assert_eq!(cluster.switched(token), Switched::Done { epoch: Epoch(1) });
    }
}

/// What a member says in the name of a voter that sits elsewhere is not believed: that voter would be told
/// that it has forgotten something.
#[test]
fn nobody_speaks_for_another_voter() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    let voter = cluster.shard(2).strong.standing.voter.unwrap();
    let to = cluster.shard(0).strong.standing.voter.unwrap();
    let from = (voter, 1 << 40);
    let bytes = Bytes::from_static(b"rubbish");
    for word in [
        Word::Applied { from, slot: 1 << 40, wall: WallTime(0) },
        Word::Core { to, from, applied: 1 << 40, bytes },
    ] {
        let envelope = cluster.shard(1).wrap(Message::Strong(Box::new(word)));
        cluster.handle(0, Input::Message(Cluster::id(1), envelope));
    }
    cluster.set_cut(0, 2, true);
    cluster.set_cut(0, 2, false);
    cluster.pass(Duration::from_secs(2));
    assert_eq!(cluster.shard(2).strong.standing.voter, Some(voter));
    assert!(cluster.status()[0].voters.iter().all(|it| it.applied < Some(1 << 40)));
    cluster.write(2, "k", "2");
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
    let (expiry, when) = (Expiry::Ends(Ends::At(deadline as i64)), When::Always);
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
