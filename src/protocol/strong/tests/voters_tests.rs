//! Voters that come and go, and what they keep.

use std::ops::Range;

use super::*;
use crate::protocol::record::{self, Append, PIECE_BYTES_MAX, Record};
use crate::protocol::recovery::Recovery;
use crate::protocol::time::WallTime;

fn seats(cluster: &Cluster, at: usize) -> usize {
    cluster.shard(at).strong.ledger().seats.len()
}

fn propose(cluster: &mut Cluster, at: usize, entry: &Entry) {
    let now = cluster.now;
    assert!(cluster.shards[at].as_mut().unwrap().propose_entry(now, entry));
    cluster.handle(at, Input::Wake(WallTime(0)));
}

/// The seats that everybody is told of, in what a member sends.
fn seats_told(output: &Output) -> Vec<(NodeId, BTreeMap<Voter, NodeId>)> {
    let told = output.send.iter().filter_map(|send| match &send.envelope.message {
        Message::Greet(greet) => {
            Some((send.to[0], greet.knows.as_ref()?.ledger.as_ref()?.seats.clone()))
        }
        _ => None,
    });
    told.collect()
}

/// A voter's old seat and its new one come in one slot of the log. Who takes over what is told between the
/// two would take over nothing more of that slot: it would never hear that it votes. So everybody is told
/// once, when the whole slot has been applied.
#[test]
fn nobody_is_told_of_half_a_slot() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    let (now, node) = (cluster.now, Cluster::id(2));
    let shard = cluster.shards[0].as_mut().unwrap();
    let ledger = shard.strong.ledger();
    let (old, new, slot) = (ledger.seat_of(node).unwrap(), Voter(901), ledger.slot);
    let entries =
        [Entry::Seat { voter: old, node: None }, Entry::Seat { voter: new, node: Some(node) }];
    let entries = entries.iter().map(|entry| entry.encode().into()).collect();
    let mut output = Output::default();
    shard.apply_slot(now, slot, entries, &mut output);
    let seats = shard.strong.ledger().seats.clone();
    assert!(seats.get(&new) == Some(&node) && !seats.contains_key(&old), "{seats:?}");
    let told = seats_told(&output);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(_, told)| *told == seats), "{told:?}, {seats:?}");
    // Whoever asks for a seat that it has was not told of it, or did not hear it.
    let mut output = Output::default();
    shard.receive_seat(now, node, new, &mut output);
    assert_eq!(seats_told(&output), [(node, seats)]);
}

/// Seats that are proposed at the same time are given to as many as there should be.
#[test]
fn seats_at_the_same_time_are_not_too_many() {
    let mut cluster = Cluster::new(5, strong);
    cluster.write(0, "k", "1");
    let gone = *cluster.shard(0).strong.ledger().seats.keys().next_back().unwrap();
    let by = (0..5).find(|at| {
        let voter = cluster.shard(*at).strong.standing.voter;
        voter.is_some() && voter != Some(gone)
    });
    let by = by.unwrap();
    let outside: Vec<_> =
        (0..5).filter(|at| cluster.shard(*at).strong.standing.voter.is_none()).collect();
    propose(&mut cluster, by, &Entry::Seat { voter: gone, node: None });
    for (number, at) in (901..).zip(&outside) {
        let (voter, node) = (Voter(number), Some(Cluster::id(*at)));
        propose(&mut cluster, by, &Entry::Seat { voter, node });
    }
    for _ in 0..200 {
        cluster.pass(Duration::from_millis(50));
        assert!((0..5).all(|at| seats(&cluster, at) <= 3), "{:#?}", cluster.status());
    }
    assert_eq!(seats(&cluster, by), 3);
    for at in 0..5 {
        cluster.write(at, "k", "2");
    }
}

/// A seat beyond an odd number is given up.
#[test]
fn a_seat_that_is_too_many_is_given_up() {
    let mut cluster = Cluster::new(4, |config| {
        config.starts_strong = true;
        config.voters = 5;
    });
    // It waits for five.
    cluster.pass(Duration::from_millis(100));
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(seats(&cluster, 0), 3);
    let by = (0..4).find(|at| cluster.shard(*at).strong.standing.voter.is_some()).unwrap();
    let other = (0..4).find(|at| cluster.shard(*at).strong.standing.voter.is_none()).unwrap();
    let node = Some(Cluster::id(other));
    propose(&mut cluster, by, &Entry::Seat { voter: Voter(901), node });
    cluster.pass(Duration::from_millis(20));
    assert_eq!(seats(&cluster, by), 4);
    cluster.pass(Duration::from_secs(20));
    for at in 0..4 {
        assert_eq!(seats(&cluster, at), 3, "at {at}");
        cluster.write(at, "k", "1");
    }
}

/// Who votes does not change while a switch is under way.
#[test]
fn seats_stay_as_they_are_during_a_switch() {
    let mut cluster = Cluster::new(4, |config| config.voters = 4);
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(cluster.switch(0, Mode::Eventual, &[]), Switched::Done { epoch: Epoch(2) });
    cluster.on_words(|_, _, word| match word {
        Word::Drained { .. } => Passing::Waits,
        _ => Passing::Arrives,
    });
    let before = cluster.shard(0).strong.ledger().seats.clone();
    let wish = cluster.wish(0, Mode::Strong, &[]);
    cluster.until("the drain", |cluster| !cluster.waiting.is_empty());
    let (voter, by) = (*before.keys().next().unwrap(), 0);
    propose(&mut cluster, by, &Entry::Seat { voter, node: None });
    cluster.pass(Duration::from_millis(50));
    assert_eq!(cluster.shard(0).strong.ledger().seats, before);
    cluster.let_go();
    assert_eq!(cluster.switched(wish), Switched::Done { epoch: Epoch(3) });
}

/// A voter that does not follow cannot cut its log. It takes no part once its records are many, until it
/// follows again.
#[test]
fn the_records_of_a_voter_that_does_not_follow_are_bounded() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    cluster.on_words(|_, to, word| match word {
        Word::Install(_) if to == 2 => Passing::Lost,
        _ => Passing::Arrives,
    });
    let mut output = Output::default();
    cluster.shards[2].as_mut().unwrap().stop_following(&mut output);
    cluster.disks[2].push(output.append.records);
    let value = "v".repeat(500_000);
    let mut most = 0;
    for number in 0..120 {
        cluster.write(number % 2, &format!("k{}", number % 7), &value);
        let group = cluster.shard(2).strong.group.as_ref().unwrap();
        most = most.max(group.records_bytes());
    }
    assert!(most > CUT_BYTES && most < RECORDS_BYTES_MAX + (4 << 20), "{most} bytes");
    cluster.let_go();
    cluster.write(1, "k", "2");
    cluster.until("it follows", |cluster| cluster.shard(2).strong.standing.following);
    assert_eq!(cluster.value(2, "k").as_deref(), Some("2"));
    cluster.converge();
}

/// Many records of the log are put into a snapshot in several pieces, and come back from it as they were,
/// also with the journal behind it.
#[test]
fn the_records_of_the_log_are_exported_in_pieces() {
    let mut cluster = Cluster::new(3, strong);
    for number in 0..20 {
        cluster.write(0, &format!("k{number}"), &"v".repeat(200_000));
    }
    let shard = cluster.shard(1);
    let (number, records) = shard.strong.group.as_ref().unwrap().records();
    let mut append = Append::default();
    shard.export_life(&mut append);
    shard.export_head(&mut append);
    shard.export_strong(&mut append).export(&mut append);
    let pieces: Vec<_> = append.pieces().collect();
    let longest = pieces.iter().map(|piece| piece.len()).max().unwrap();
    assert!(pieces.len() >= 3 && longest < 3 << 20, "{} of {longest} bytes", pieces.len());
    for journal in [&[][..], &cluster.disks[1][cluster.disks[1].len() / 2..]] {
        let mut config = shard.config().clone();
        config.origin = Origin(0);
        let mut recovery = Recovery::new(config.hash_seed);
        let journal = journal.iter().map(Vec::as_slice);
        pieces.iter().copied().chain(journal).for_each(|piece| recovery.apply(piece).unwrap());
        let (risen, _) = recovery.into_shard(config, 9);
        let (risen_number, risen_records) = &risen.strong.recovered;
        assert_eq!((*risen_number, &risen_records[..]), (number, records));
    }
}

/// What all slots under way hold may be more than the journal takes in one piece when the log is cut: it is
/// recorded in several, and a voter comes back with what was before, or with all of it.
#[test]
fn a_checkpoint_of_very_many_bytes_replaces_what_was_before_as_a_whole_or_not_at_all() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "1");
    let value = "v".repeat(15 << 20);
    let tokens: Vec<_> = (0..6).map(|at| cluster.set(at % 3, "k", &value)).collect();
    for token in tokens {
        let reply = cluster.answer(token);
        assert!(matches!(reply, Reply::Written { .. }), "{reply:?}");
    }
    let units = (0..3).flat_map(|at| units(&cluster.disks[at]).map(move |unit| (at, unit)));
    let bytes_of = |at: usize, unit: &Range<usize>| -> usize {
        cluster.disks[at][unit.clone()].iter().map(Vec::len).sum()
    };
    let (at, unit) = units.max_by_key(|(at, unit)| bytes_of(*at, unit)).unwrap();
    let bytes = bytes_of(at, &unit);
    assert!(bytes > PIECE_BYTES_MAX, "{bytes} bytes in {unit:?}");
    let recovered = |pieces| {
        let mut recovery = Recovery::new(1);
        cluster.disks[at][..pieces].iter().for_each(|piece| recovery.apply(piece).unwrap());
        recovery.into_shard(cluster.shard(at).config().clone(), 9).0.strong.recovered
    };
    let (before, after) = (recovered(unit.start), recovered(unit.end));
    assert!(after.0 > before.0 && after.1 != before.1);
    for end in [unit.start + 1, unit.end - 1] {
        assert_eq!(recovered(end), before);
    }
    (0..3).for_each(|at| cluster.stop(at));
    (0..3).for_each(|at| cluster.start(at));
    cluster.write(1, "k", "2");
    assert_eq!(cluster.value(2, "k").as_deref(), Some("2"));
    cluster.converge();
}

/// The pieces of each unit that is in several.
fn units(disk: &[Vec<u8>]) -> impl Iterator<Item = Range<usize>> {
    let goes_on = |piece: &Vec<u8>| {
        matches!(record::read(piece, &mut None).next(), Some(Ok(Record::UnitGoesOn)))
    };
    let later: Vec<bool> = disk.iter().map(goes_on).chain([false]).collect();
    let begins = (0..disk.len()).filter(|at| !later[*at] && later[at + 1]).collect::<Vec<_>>();
    begins.into_iter().map(move |at| {
        let count = later[at + 1..].iter().take_while(|goes_on| **goes_on).count();
        at..at + 1 + count
    })
}

/// A member that waits for a seat does not follow: if others get the seats, the log tells it nothing more, and
/// it would take itself for up to date.
#[test]
fn who_waits_for_a_seat_does_not_follow() {
    let mut cluster = Cluster::new(4, strong);
    cluster.write(0, "k", "1");
    let waits = (0..4).find(|at| cluster.shard(*at).strong.standing.voter.is_none()).unwrap();
    cluster.shards[waits].as_mut().unwrap().strong.standing.voter = Some(Voter(77));
    cluster.events.clear();
    cluster.write(0, "k", "2");
    cluster.pass(Duration::from_secs(3));
    let follows = |(node, event): &(NodeId, StrongEvent)| {
        *node == Cluster::id(waits) && matches!(event, StrongEvent::CaughtUp { .. })
    };
    assert!(!cluster.events.iter().any(follows), "{:?}", cluster.events);
    assert_eq!(cluster.value(waits, "k").as_deref(), Some("2"));
}
