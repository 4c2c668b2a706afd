//! What may go wrong in the middle of a switch, one by one.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::protocol::stamp::Dot;

/// Three members that have been in strong mode once, so that there is a group. Writes go by rounds only.
fn three() -> Cluster {
    let mut cluster = Cluster::new(3, |config| config.eager = false);
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    cluster.converge();
    cluster
}

/// All show this, and nobody keeps an orphan.
fn all_show(cluster: &mut Cluster, key: &str, value: &str) {
    for at in 0..cluster.shards.len() {
        assert_eq!(cluster.value(at, key).as_deref(), Some(value), "{key} at {at}");
        assert_eq!(cluster.shard(at).orphans().count(), 0, "at {at}");
    }
}

fn set_absent(cluster: &mut Cluster, at: usize, key: &str, value: &str) -> Answer {
    let (key, value) = (Argument(key.as_bytes()), Argument(value.as_bytes()));
    let token = cluster.operate(at, &Operation::Text(Text::SetAbsent { key, value }));
    match cluster.answer(token) {
        Reply::Operated { answer, .. } => answer,
        other => panic!("{other:?}"),
    }
}

/// A member dies after it was asked for its fence and before that was synced. It had not answered, so what it
/// acknowledges after its return counts.
#[test]
fn a_crash_between_a_fence_and_its_sync() {
    let mut cluster = three();
    let answered = Rc::new(Cell::new(false));
    let seen = answered.clone();
    cluster.on_words(move |from, _, word| {
        if from == 2 && matches!(word, Word::Fenced { .. }) {
            seen.set(true);
        }
        Passing::Arrives
    });
    cluster.slow.insert(2);
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the fence", |cluster| cluster.shard(2).strong.standing.fenced == Epoch(3));
    cluster.pass(Duration::from_millis(200));
    assert!(!answered.get(), "it is not durable");
    cluster.stop(2);
    cluster.slow.clear();
    cluster.cut.extend([(0, 2), (1, 2)]);
    cluster.start(2);
    cluster.write(2, "late", "acknowledged");
    cluster.cut.clear();
    (0..2).for_each(|at| cluster.set_cut(at, 2, false));
    let switched = cluster.switched(wish);
    assert!(matches!(switched, Switched::Done { .. } | Switched::Aborted { .. }), "{switched:?}");
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    all_show(&mut cluster, "late", "acknowledged");
}

/// A member that was fenced and dies comes back with an epoch that has ended meanwhile. It acknowledges
/// nothing in it, also while it is alone: be it a voter, or one that knows of the switch by its fence only.
#[test]
fn a_restart_with_an_old_epoch() {
    for votes in [true, false] {
        let mut cluster = Cluster::new(4, |config| {
            config.eager = false;
            config.voters = 3;
        });
        assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
        assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
        cluster.converge();
        let driver = cluster.status()[0].primary.unwrap().0 as usize - 1;
        let is_it = |at: &usize| {
            *at != driver && cluster.shard(*at).strong.standing.voter.is_some() == votes
        };
        let late = (0..4).find(is_it).unwrap();
        cluster.on_words(|_, _, word| match word {
            Word::Drained { .. } => Passing::Waits,
            _ => Passing::Arrives,
        });
        cluster.write(driver, "k", "old");
        let wish = cluster.wish(driver, Mode::Strong, &[]);
        cluster.until("the drain", |cluster| !cluster.waiting.is_empty());
        cluster.stop(late);
        cluster.let_go();
        assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(3) });
        cluster.write(driver, "k", "strong");
        let others = (0..4).filter(|at| *at != late);
        cluster.cut = others.map(|at| (at.min(late), at.max(late))).collect();
        cluster.start(late);
        assert_eq!(cluster.shard(late).epoch, Epoch(2), "it comes back with the old one");
        let asked = cluster.set(late, "k", "too late");
        cluster.pass(Duration::from_secs(1));
        assert!(!cluster.replies.contains_key(&asked), "{:?}", cluster.replies.get(&asked));
        for (one, other) in std::mem::take(&mut cluster.cut) {
            cluster.set_cut(one, other, false);
        }
        let reply = cluster.answer(asked);
        let Reply::Written { stamp, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(stamp.epoch, Epoch(3), "through the log");
        cluster.converge();
        all_show(&mut cluster, "k", "too late");
    }
}

/// Who dies, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dies {
    /// The primary, which drives, for good: nobody can have its fence again.
    Driver,
    /// The primary, which drives, for a second.
    DriverShortly,
    /// The primary, while another one drives.
    Primary,
}

/// The primary dies at each step of the switch, be it the one that drives or not. The others, or it itself
/// once it is back, go on with it, or give it up where they cannot, and lose nothing.
#[test]
fn a_new_primary_at_every_step_of_the_switch() {
    type Step = fn(&Word) -> bool;
    let steps: [(&str, usize, Step); 6] = [
        ("the first fence is asked for", 1, |word| matches!(word, Word::Fence { .. })),
        ("the first fence is answered", 1, |word| matches!(word, Word::Fenced { .. })),
        ("the last fence is answered", 2, |word| matches!(word, Word::Fenced { .. })),
        ("the first drain is asked for", 1, |word| matches!(word, Word::Drain { .. })),
        ("the first has drained", 1, |word| matches!(word, Word::Drained { .. })),
        ("all have drained", 2, |word| matches!(word, Word::Drained { .. })),
    ];
    for (at, (name, times, step)) in steps.into_iter().enumerate() {
        for dies in [Dies::Driver, Dies::DriverShortly, Dies::Primary] {
            let epoch = dies_at(name, times, step, dies);
            // Without the member that has died there is no fence of it, unless it has answered.
            let opens = match dies {
                Dies::Driver => None,
                Dies::DriverShortly => Some(Epoch(3)),
                Dies::Primary => (at >= 3).then_some(Epoch(3)),
            };
            assert!(opens.is_none_or(|opens| opens == epoch), "{name}, {dies:?}: {epoch:?}");
        }
    }
}

/// The epoch in which a switch has ended, as the survivors say.
fn dies_at(name: &str, times: usize, step: fn(&Word) -> bool, dies: Dies) -> Epoch {
    let mut cluster = three();
    let count = Rc::new(Cell::new(0));
    let seen = count.clone();
    cluster.on_words(move |_, _, word| {
        seen.set(seen.get() + usize::from(step(word)));
        Passing::Arrives
    });
    for at in 0..3 {
        cluster.write(at, &format!("k{at}"), "kept");
    }
    if dies == Dies::Primary {
        // Nobody could drain what only it has.
        cluster.converge();
    }
    let primary = cluster.status()[0].primary.unwrap().0 as usize - 1;
    // Whoever is asked drives.
    let driver = if dies == Dies::Primary { (primary + 1) % 3 } else { primary };
    let asked = cluster.wish(driver, Mode::Strong, &[]);
    cluster.until(name, |_| count.get() >= times);
    cluster.stop(primary);
    if dies == Dies::DriverShortly {
        cluster.pass(Duration::from_secs(1));
        cluster.start(primary);
    }
    cluster.pass(Duration::from_secs(30));
    let up: Vec<_> = (0..3).filter(|at| *at != primary).collect();
    let epochs: Vec<_> = up.iter().map(|at| cluster.shard(*at).epoch).collect();
    let settled = |at: &usize| cluster.shard(*at).strong.ledger().phase == Phase::Settled;
    assert!(up.iter().all(settled) && epochs[0] == epochs[1], "{name}: {epochs:?}");
    assert!([Epoch(3), Epoch(4)].contains(&epochs[0]), "{name}: {epochs:?}");
    for at in &up {
        cluster.write(*at, "goes", "on");
    }
    if dies != Dies::DriverShortly {
        cluster.start(primary);
    }
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    if dies == Dies::Primary {
        let switched = cluster.switched(asked);
        let done = switched == Switched::Done { epoch: epochs[0] };
        assert!(done || switched == Switched::Aborted { epoch: epochs[0] }, "{switched:?}");
    }
    for at in 0..3 {
        all_show(&mut cluster, &format!("k{at}"), "kept");
    }
    all_show(&mut cluster, "goes", "on");
    epochs[0]
}

/// Fence answers are lost, come twice, and come again in a later switch, where they count for nothing: what
/// was written in between would be forgotten.
#[test]
fn lost_and_repeated_fence_answers() {
    let mut cluster = three();
    let mut lost = 0;
    cluster.on_words(move |from, _, word| match word {
        Word::Fenced { .. } if lost < 6 => {
            lost += 1;
            Passing::Lost
        }
        Word::Fenced { .. } if from == 2 => Passing::Again,
        Word::Fenced { .. } | Word::Drained { .. } | Word::Fence { .. } => Passing::Twice,
        _ => Passing::Arrives,
    });
    cluster.write(1, "k", "first");
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(3) });
    all_show(&mut cluster, "k", "first");
    let old = std::mem::take(&mut cluster.waiting);
    assert!(!old.is_empty(), "an answer of this switch");
    cluster.let_go();
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(4) });
    cluster.converge();
    // Nobody else has it, and no new answer arrives.
    cluster.network = Box::new(|from, _, envelope| match &envelope.message {
        Message::Strong(word) if !matches!(**word, Word::Fenced { .. }) => Passing::Arrives,
        _ if from == 2 => Passing::Lost,
        _ => Passing::Arrives,
    });
    cluster.write(2, "k", "second");
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the fence", |cluster| cluster.shard(2).strong.standing.fenced == Epoch(5));
    cluster.pass(Duration::from_millis(100));
    cluster.waiting = old;
    let now = cluster.now;
    for (from, to, frame) in std::mem::take(&mut cluster.waiting) {
        cluster.under_way.push_back((now, from, to, frame));
    }
    cluster.pass(Duration::from_millis(500));
    assert_eq!(cluster.shard(0).epoch, Epoch(4), "it waits for the new answer");
    cluster.let_go();
    assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(5) });
    cluster.converge();
    all_show(&mut cluster, "k", "second");
}

/// A majority of the voters fails while they drain: the switch is given up, and nothing is lost.
#[test]
fn a_majority_that_fails_in_the_drain() {
    let mut cluster = three();
    for at in 0..3 {
        cluster.write(at, &format!("k{at}"), "kept");
    }
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the drain", |cluster| cluster.waiting.len() >= 2);
    cluster.stop(1);
    cluster.stop(2);
    let held = cluster.set(0, "held", "meanwhile");
    cluster.pass(Duration::from_secs(18));
    assert!(!cluster.replies.contains_key(&held), "no epoch has begun that it could be written in");
    // What they had said comes too late: it is given up by then.
    cluster.start(1);
    cluster.start(2);
    let switched = cluster.switched(wish);
    assert_eq!(switched, Switched::Aborted { epoch: Epoch(4) });
    cluster.let_go();
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    for at in 0..3 {
        assert_eq!(cluster.shard(at).epoch, Epoch(4));
        all_show(&mut cluster, &format!("k{at}"), "kept");
    }
    assert_eq!(cluster.switch(1, Mode::Strong, &[]), Switched::Done { epoch: Epoch(5) });
    all_show(&mut cluster, "k2", "kept");
}

/// The log is cut beyond the entry that has opened the epoch. A voter that has not seen it, and those that
/// start again with what they have kept, are in that epoch all the same.
#[test]
fn the_log_is_cut_over_the_switch() {
    let mut cluster = three();
    cluster.write(2, "k", "old");
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the drain", |cluster| cluster.waiting.len() >= 2);
    cluster.stop(2);
    cluster.let_go();
    assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(3) });
    let records =
        |cluster: &Cluster| cluster.shard(0).strong.group.as_ref().unwrap().records_bytes();
    let value = "v".repeat(500_000);
    let (mut most, mut was_cut) = (0, false);
    for number in 0..80 {
        cluster.write(number % 2, &format!("k{}", number % 5), &value);
        was_cut |= records(&cluster) < most;
        most = most.max(records(&cluster));
    }
    assert!(was_cut);
    cluster.write(0, "k", "strong");
    cluster.start(2);
    cluster.until("it follows", |cluster| {
        let shard = cluster.shard(2);
        shard.epoch == Epoch(3) && shard.follows()
    });
    let lacked = |(node, event): &(NodeId, StrongEvent)| {
        *node == Cluster::id(2) && matches!(event, StrongEvent::CaughtUp { .. })
    };
    assert!(cluster.events.iter().any(lacked), "from another's state");
    for at in 0..3 {
        cluster.stop(at);
        cluster.start(at);
        assert_eq!(cluster.shard(at).epoch, Epoch(3), "at {at}");
        assert_eq!(cluster.value(at, "k").as_deref(), Some("strong"));
    }
    assert_eq!(cluster.switch(2, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(4) });
    cluster.converge();
    all_show(&mut cluster, "k", "strong");
}

/// A voter that has not drained when the epoch begins does not decide by what it holds: of two that set a key
/// if there is none, the later one is told that there is.
#[test]
fn compare_and_set_on_what_is_not_drained() {
    let mut cluster = three();
    cluster.write(0, "lock", "taken");
    cluster.network = Box::new(|_, to, envelope| match &envelope.message {
        Message::Strong(word) if !matches!(**word, Word::Install(_)) => Passing::Arrives,
        _ if to == 2 => Passing::Waits,
        _ => Passing::Arrives,
    });
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(3) });
    cluster.until("the epoch", |cluster| cluster.shard(2).epoch == Epoch(3));
    let origin = cluster.shard(0).config().origin;
    let held = cluster.shard(2).vector().origin(origin).map_or(0, |held| held.last());
    let written = cluster.shard(0).vector().origin(origin).unwrap().last();
    assert!(held < written, "it has not drained");
    assert_eq!(set_absent(&mut cluster, 2, "lock", "stolen"), Answer::Integer(0));
    assert_eq!(set_absent(&mut cluster, 2, "free", "got"), Answer::Integer(1));
    cluster.let_go();
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    all_show(&mut cluster, "lock", "taken");
    all_show(&mut cluster, "free", "got");
    let points: Vec<_> = (0..3).map(|at| cluster.shard(at).log_point()).collect();
    assert!(points[0].is_some() && points.iter().all(|it| *it == points[0]), "{points:?}");
}

/// What a member that is not fenced sends to a fenced one is not taken: the base is closed, and cells beyond
/// it would make voters differ. What it wrote is kept as orphans.
#[test]
fn the_gossip_of_a_straggler_after_the_fence() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    cluster.write(3, "k", "old");
    cluster.converge();
    // Those that drive do not reach it, but another fenced member does.
    let voters: Vec<usize> = (0..3).collect();
    cluster.set_cut(0, 3, true);
    cluster.set_cut(2, 3, true);
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let wish = cluster.wish(0, Mode::Strong, &[3]);
    cluster.until("the fences", |cluster| cluster.waiting.len() >= 2);
    let before = cluster.shard(1).counters.messages_gated;
    // It has not heard of the switch: its write is acknowledged, and pushed.
    let shard = cluster.shards[3].as_mut().unwrap();
    shard.strong.standing.ledger.phase = Phase::Settled;
    cluster.write(3, "k", "straggler");
    cluster.pass(Duration::from_secs(1));
    assert!(cluster.shard(1).counters.messages_gated > before, "it was sent");
    for at in voters {
        let reader = cluster.shard(at).reader();
        let shown = reader.string(b"k", WallTime(0), |value| value.map(<[u8]>::to_vec));
        assert_eq!(shown.as_deref(), Some(&b"old"[..]), "at {at}");
    }
    cluster.let_go();
    assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(1) });
    cluster.write(1, "k", "strong");
    cluster.set_cut(0, 3, false);
    cluster.set_cut(2, 3, false);
    cluster.pass(Duration::from_secs(5));
    cluster.converge();
    for at in 0..4 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("strong"), "at {at}");
    }
    assert_eq!(cluster.shard(3).orphans().count(), 1);
}

/// A token that a client got in an earlier epoch says the truth in later ones: whoever claims to hold it
/// shows that write or what has replaced it, and nobody claims to hold that of an orphan.
#[test]
fn clients_with_old_tokens() {
    let mut cluster = Cluster::new(5, |config| {
        config.voters = 3;
        config.eager = false;
    });
    let written = |cluster: &mut Cluster, at: usize, key: &str, value: &str| -> Dot {
        let token = cluster.set(at, key, value);
        match cluster.answer(token) {
            Reply::Written { dot, .. } => dot,
            other => panic!("{other:?}"),
        }
    };
    let mut tokens = Vec::new();
    tokens.push(("e0", written(&mut cluster, 1, "e0", "value")));
    tokens.push(("from 4", written(&mut cluster, 4, "from 4", "value")));
    cluster.converge();
    (0..4).for_each(|other| cluster.set_cut(4, other, true));
    let orphan = written(&mut cluster, 4, "orphan", "value");
    tokens.push(("late", written(&mut cluster, 2, "late", "value")));
    assert_eq!(cluster.switch(0, Mode::Strong, &[4]), Switched::Done { epoch: Epoch(1) });
    tokens.push(("e1", written(&mut cluster, 3, "e1", "value")));
    let truth = |cluster: &Cluster, tokens: &[(&str, Dot)]| {
        for at in 0..5 {
            let shard = cluster.shard(at);
            assert!(shard.epoch == Epoch(0) || !shard.holds(orphan), "the orphan at {at}");
            for (key, dot) in tokens.iter().filter(|(_, dot)| shard.holds(*dot)) {
                let shows = shard.reader().contains(key.as_bytes(), WallTime(0));
                assert!(shows || shard.is_filling(), "{key} {dot:?} at {at}");
            }
        }
    };
    truth(&cluster, &tokens);
    (0..4).for_each(|other| cluster.set_cut(4, other, false));
    for _ in 0..200 {
        cluster.pass(Duration::from_millis(20));
        truth(&cluster, &tokens);
    }
    assert_eq!(cluster.switch(3, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    tokens.push(("e2", written(&mut cluster, 4, "e2", "value")));
    for _ in 0..200 {
        cluster.pass(Duration::from_millis(20));
        truth(&cluster, &tokens);
    }
    cluster.converge();
    for at in 0..5 {
        assert!(tokens.iter().all(|(_, dot)| cluster.shard(at).holds(*dot)), "all in the end");
    }
    assert_eq!(cluster.shard(4).orphans().count(), 1);
}

/// What was deleted before the fence, and whose tombstones have been collected since, does not come back: not
/// with a voter that had not heard of the deletion, nor with a member that was left out.
#[test]
fn tombstones_are_collected_across_the_fence() {
    let mut cluster = Cluster::new(4, |config| {
        config.voters = 3;
        config.eager = false;
    });
    for number in 0..20 {
        cluster.write(number % 4, &format!("k{number}"), "value");
    }
    cluster.converge();
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    let keys: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
    let token = cluster.ask(1, Request::Delete(&keys));
    let reply = cluster.answer(token);
    assert!(matches!(reply, Reply::Written { changed: 20, .. }), "{reply:?}");
    assert_eq!(cluster.switch(0, Mode::Strong, &[3]), Switched::Done { epoch: Epoch(1) });
    assert!((0..3).any(|at| cluster.shard(at).store().tombstones() > 0));
    cluster.write(0, "k3", "strong");
    cluster.until("they are collected", |cluster| {
        (0..3).all(|at| cluster.shard(at).store().tombstones() == 0)
    });
    let shows_only_one = |cluster: &mut Cluster| {
        for (at, number) in (0..4).flat_map(|at| (0..20).map(move |number| (at, number))) {
            let expected = (number == 3).then_some("strong");
            assert_eq!(cluster.value(at, &format!("k{number}")).as_deref(), expected, "{at}");
        }
    };
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(10));
    cluster.converge();
    shows_only_one(&mut cluster);
    assert_eq!(cluster.switch(3, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    cluster.converge();
    shows_only_one(&mut cluster);
}
