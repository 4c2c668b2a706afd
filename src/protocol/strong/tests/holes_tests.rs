//! Nodes of whose records some are lost, wherever the hole is.

use super::*;
use crate::protocol::record::Append;
use crate::protocol::store::Cursor;

/// What is lost here was not deleted: it is there again, here and at the others, and what was deleted stays so.
#[test]
fn a_hole_deletes_nothing() {
    let made = || {
        let mut cluster = Cluster::new(3, plain);
        for number in 0..12 {
            cluster.write(number % 3, &format!("k{number}"), "1");
            if number % 4 == 0 {
                // Some come by rounds.
                cluster.set_cut(0, 1, true);
            }
            if number % 4 == 3 {
                cluster.converge();
                cluster.set_cut(0, 1, false);
                cluster.converge();
            }
        }
        for number in [3, 4, 5] {
            let key = format!("k{number}");
            cluster.ask(number % 3, Request::Delete(&[key.as_bytes()]));
        }
        cluster.pass(Duration::from_secs(3));
        cluster.converge();
        cluster
    };
    let pieces = made().disks[0].len();
    assert!(pieces > 20, "{pieces} pieces");
    for length in [1, 3] {
        for first in 0..=pieces - length {
            let mut cluster = made();
            cluster.stop(0);
            cluster.disks[0].drain(first..first + length);
            cluster.rise(0, true);
            // Once more, with what is recorded of it.
            cluster.pass(Duration::from_millis(first as u64 % 7));
            cluster.stop(0);
            cluster.start(0);
            cluster.pass(Duration::from_secs(2));
            cluster.converge();
            for number in 0..12 {
                let expected = Some("1".to_owned()).filter(|_| !(3..6).contains(&number));
                for at in 0..3 {
                    let value = cluster.value(at, &format!("k{number}"));
                    assert_eq!(value, expected, "k{number} at {at}, {length} from {first}");
                }
            }
        }
    }
}

/// Nor does a hole in a snapshot, which says first of all what is held.
#[test]
fn a_hole_in_a_snapshot_deletes_nothing() {
    let mut cluster = Cluster::new(2, plain);
    for number in 0..12 {
        cluster.write(number % 2, &format!("k{number}"), "1");
    }
    cluster.converge();
    let pieces = |cluster: &Cluster| {
        let shard = cluster.shard(0);
        let mut pieces = Vec::new();
        let mut piece = |fill: &mut dyn FnMut(&mut Append)| {
            let mut append = Append::default();
            fill(&mut append);
            pieces.push(append.records);
        };
        piece(&mut |append| {
            shard.export_life(append);
            shard.export_head(append);
        });
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor.take() {
            piece(&mut |append| cursor = shard.export_cells(&from, 1, append));
        }
        pieces
    };
    let whole = pieces(&cluster);
    assert!(whole.len() > 10, "{} pieces", whole.len());
    for hole in 1..whole.len() {
        let mut snapshot = pieces(&cluster);
        snapshot.remove(hole);
        cluster.stop(0);
        cluster.disks[0] = snapshot;
        cluster.rise(0, true);
        cluster.pass(Duration::from_millis(hole as u64));
        cluster.stop(0);
        cluster.start(0);
        cluster.pass(Duration::from_secs(2));
        cluster.converge();
        for (at, number) in (0..2).flat_map(|at| (0..12).map(move |number| (at, number))) {
            let value = cluster.value(at, &format!("k{number}"));
            assert_eq!(value.as_deref(), Some("1"), "k{number} at {at} without piece {hole}");
        }
    }
}
