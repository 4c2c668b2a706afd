//! What becomes of writes that a switch has left out.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::super::orphans::ORPHANS_MAX;
use super::*;
use crate::protocol::cell::{CellWrite, Content, Field, Key, Seen};
use crate::protocol::record::Append;
use crate::protocol::recovery::Recovery;
use crate::protocol::stamp::Stamp;
use crate::protocol::time::WallTime;

/// A cluster in which a member that does not vote was left out of a switch, and what it wrote meanwhile,
/// `count` keys that all others know of as well.
fn left_out(count: usize) -> Cluster {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    for number in 0..count {
        cluster.write(3, &format!("k{number}"), "old");
    }
    cluster.converge();
    (0..3).for_each(|other| cluster.set_cut(3, other, true));
    for number in 0..count {
        cluster.write(3, &format!("k{number}"), "orphan");
    }
    assert_eq!(cluster.switch(0, Mode::Strong, &[3]), Switched::Done { epoch: Epoch(1) });
    cluster
}

fn adopted(cluster: &Cluster, at: usize) -> usize {
    cluster.shard(at).orphans().filter(|orphan| orphan.adopted).count()
}

/// Whoever keeps orphans offers them, all of them in the end, also where it does not vote; those whose keys
/// were touched are not made.
#[test]
fn all_orphans_are_offered_also_by_who_does_not_vote() {
    let mut cluster = left_out(200);
    for number in 190..200 {
        cluster.write(1, &format!("k{number}"), "strong");
    }
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(20));
    cluster.converge();
    assert!(cluster.shard(3).strong.standing.voter.is_none(), "it does not vote");
    assert_eq!((cluster.shard(3).orphans().count(), adopted(&cluster, 3)), (200, 190));
    for number in [0, 100, 189] {
        assert_eq!(cluster.value(0, &format!("k{number}")).as_deref(), Some("orphan"));
    }
    assert_eq!(cluster.value(0, "k195").as_deref(), Some("strong"));
    assert!(!cluster.shard(3).strong.orphans.waits(), "nothing is left to be offered");
}

/// An orphan that is longer than an entry of the log is shown, and not offered for ever.
#[test]
fn an_orphan_that_no_entry_can_hold_is_not_offered() {
    let mut cluster = left_out(1);
    cluster.write(3, "long", &"v".repeat(17 << 20));
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(10));
    cluster.converge();
    assert_eq!((cluster.shard(3).orphans().count(), adopted(&cluster, 3)), (2, 1));
    assert!(!cluster.shard(3).strong.orphans.waits(), "nothing is left to be offered");
}

/// An orphan that is offered again and again, since the answers are lost, and by a voter with whom it was
/// never offered, is made once. Its keeper is told that it was made.
#[test]
fn an_orphan_that_is_offered_twice_is_made_once() {
    let mut cluster = left_out(1);
    cluster.on_words(|_, to, word| match word {
        Word::Decided { .. } if to == 3 => Passing::Lost,
        Word::Offer { .. } => Passing::Twice,
        _ => Passing::Arrives,
    });
    (0..3).for_each(|other| cluster.set_cut(3, other, false));
    cluster.pass(Duration::from_secs(10));
    assert_eq!(cluster.value(0, "k0").as_deref(), Some("orphan"));
    let written = |cluster: &Cluster| cluster.status()[0].written;
    let before = written(&cluster);
    // It has been touched since: the same orphan must not come again.
    cluster.write(0, "k0", "strong");
    let now = cluster.now;
    let orphan = cluster.shard(3).orphans().next().unwrap().clone();
    for at in 0..3 {
        let Orphan { stamp, dot, cell, .. } = orphan.clone();
        let shard = cluster.shards[at].as_mut().unwrap();
        for _ in 0..2 {
            shard.propose_entry(now, &Entry::Adopt { stamp, dot, cell: cell.clone() });
        }
        cluster.handle(at, Input::Wake(WallTime(0)));
    }
    cluster.pass(Duration::from_secs(10));
    assert_eq!(written(&cluster), before + 1, "only what a client has written");
    for at in 0..4 {
        assert_eq!(cluster.value(at, "k0").as_deref(), Some("strong"));
    }
    assert_eq!(adopted(&cluster, 3), 0);
    cluster.let_go();
    cluster.pass(Duration::from_secs(5));
    assert_eq!(adopted(&cluster, 3), 1, "it was made the first time");
}

/// What does not count is found by looking at what the base lacks only, which is next to nothing.
#[test]
fn what_does_not_count_is_found_without_looking_at_everything() {
    let mut cluster = left_out(100);
    let all = |shard: &Shard| -> BTreeSet<_> {
        let ledger = shard.strong.ledger();
        let cells = shard.store.all();
        let counts = |stamp, dot| ledger.admits(stamp, dot);
        let out =
            cells.filter(|(stamp, dot, cell)| !cell.key.is_reserved() && !counts(*stamp, *dot));
        out.map(|(_, dot, _)| dot).collect()
    };
    for round in 0..20 {
        cluster.write(round % 3, &format!("new{round}"), "strong");
    }
    let roster = 4;
    for at in 0..3 {
        let looked_at = cluster.shard(at).beyond_base().count();
        assert!(looked_at <= roster, "{looked_at} cells at {at}");
        assert!(all(cluster.shard(at)).is_empty());
    }
    // The member that was left out, at the moment when it hears of the epoch.
    let ledger = cluster.shard(0).strong.ledger().clone();
    let shard = cluster.shards[3].as_mut().unwrap();
    shard.strong.standing.ledger = ledger;
    let looked_at: BTreeSet<_> = shard.beyond_base().collect();
    let out = all(shard);
    assert_eq!(out.len(), 100);
    assert!(out.is_subset(&looked_at) && looked_at.len() <= 100 + roster, "{}", looked_at.len());
}

/// Has a member keep orphans of so many bytes each, under these numbers.
fn keep(shard: &mut Shard, numbers: RangeInclusive<u64>, bytes: usize, output: &mut Output) {
    let origin = Origin(9);
    let value = vec![7; bytes];
    for seq in numbers {
        let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(seq), origin };
        let key = Key::from(seq.to_string().as_str());
        let (field, content) = (Field::whole_key(), Content::from(&value[..]));
        let cell = CellWrite { key, field, content, seen: Seen::default() };
        shard.keep_orphan((stamp, Dot { origin, seq }), cell, output);
    }
}

/// Very many orphans at once, and what the log has decided of them, are recorded in pieces that the journal
/// takes, and come back from them.
#[test]
fn very_many_orphans_are_recorded_in_short_pieces() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    let shard = cluster.shards[0].as_mut().unwrap();
    let mut output = Output::default();
    keep(shard, 1..=80, 1 << 20, &mut output);
    let dots = (1..=80).map(|seq| (Dot { origin: Origin(9), seq }, true)).collect();
    shard.receive_decided(Cluster::id(1), dots, &mut output);
    let longest = output.append.pieces().map(<[u8]>::len).max().unwrap();
    assert!(longest < 3 << 20, "{longest} bytes");
    let mut recovery = Recovery::new(1);
    output.append.pieces().for_each(|piece| recovery.apply(piece).unwrap());
    let (risen, _) = recovery.into_shard(shard.config().clone(), 9);
    assert_eq!(risen.orphans().filter(|orphan| orphan.adopted).count(), 80);
    assert!(risen.orphans().eq(shard.orphans()));
}

/// Orphans are put into a snapshot in slices, of which each is short unless a single one is longer, and what
/// is kept meanwhile is in the journal behind it.
#[test]
fn orphans_are_exported_in_slices() {
    let mut cluster = Cluster::new(1, strong);
    let shard = cluster.shards[0].as_mut().unwrap();
    let mut journal = Output::default();
    keep(shard, 1..=40, 30_000, &mut journal);
    keep(shard, 50..=50, 500_000, &mut journal);
    journal.clear();
    let mut recovery = Recovery::new(1);
    let (mut slices, mut next) = (0, Some(Dot { origin: Origin(0), seq: 0 }));
    while let Some(from) = next {
        let mut append = Append::default();
        next = shard.export_orphans(from, 100_000, &mut append);
        let bytes = append.records.len();
        assert!(bytes < 140_000 || next.is_none() && bytes < 640_000, "{bytes} bytes");
        append.pieces().for_each(|piece| recovery.apply(piece).unwrap());
        slices += 1;
        if slices == 5 {
            keep(shard, 41..=45, 30_000, &mut journal);
            keep(shard, 0..=0, 30_000, &mut journal);
        }
    }
    assert!(slices >= 10, "{slices} slices");
    journal.append.pieces().for_each(|piece| recovery.apply(piece).unwrap());
    let (risen, _) = recovery.into_shard(shard.config().clone(), 9);
    assert_eq!(risen.orphans().count(), 47);
    assert!(risen.orphans().eq(shard.orphans()));
}

/// Of orphans beyond the number that is kept an event tells, of each one: they are lost.
#[test]
fn what_is_not_kept_of_orphans_is_told() {
    let mut cluster = Cluster::new(1, strong);
    let shard = cluster.shards[0].as_mut().unwrap();
    let mut output = Output::default();
    let most = ORPHANS_MAX as u64;
    keep(shard, 1..=most, 1, &mut output);
    output.clear();
    keep(shard, most..=most + 2, 1, &mut output);
    let told = output.events.iter().map(|event| match event {
        Event::Strong(event) => match &**event {
            StrongEvent::Unkept(orphan) => orphan.dot.seq,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [most + 1, most + 2]);
    assert_eq!(shard.orphans().count(), ORPHANS_MAX);
}
