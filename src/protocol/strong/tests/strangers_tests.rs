//! Members that do not belong, or do not understand.

use super::*;

/// Two halves of three nodes each that have never met.
fn halves(change: fn(&mut Config)) -> Cluster {
    let mut cluster = Cluster::of(6, 0, change);
    cluster.cut = (0..3).flat_map(|one| (3..6).map(move |other| (one, other))).collect();
    (0..6).for_each(|at| cluster.start(at));
    cluster.pass(Duration::from_secs(2));
    cluster
}

fn meet(cluster: &mut Cluster) {
    for (one, other) in cluster.cut.clone() {
        cluster.set_cut(one, other, false);
    }
    cluster.pass(Duration::from_secs(5));
}

/// Two clusters that have both been in strong mode do not become one: each names a member of the other one,
/// takes nothing from it, and goes on by itself.
#[test]
fn two_strong_clusters_that_meet_stay_apart() {
    let mut cluster = halves(strong);
    cluster.write(0, "k", "of the first");
    cluster.write(3, "k", "of the second");
    for _ in 0..2 {
        meet(&mut cluster);
        for at in 0..6 {
            let expected = if at < 3 { "of the first" } else { "of the second" };
            assert_eq!(cluster.value(at, "k").as_deref(), Some(expected), "at {at}");
            let voters = &cluster.status()[at].voters;
            assert!(voters.len() == 3 && voters.iter().all(|it| (it.node.0 <= 3) == (at < 3)));
        }
        for at in 0..6 {
            let names = |(node, event): &(NodeId, StrongEvent)| {
                let is_other = |peer: &NodeId| (peer.0 <= 3) != (at < 3);
                *node == Cluster::id(at)
                    && matches!(event, StrongEvent::Strangers { peer, ours, theirs }
                        if is_other(peer)
                            && ours.len() == 3 && !ours.iter().any(is_other)
                            && theirs.len() == 3 && theirs.iter().all(is_other))
            };
            assert!(cluster.events.iter().any(names), "at {at}");
        }
        cluster.events.clear();
        // The links go and come: it is no different then.
        let all: Vec<_> = (0..3).flat_map(|one| (3..6).map(move |other| (one, other))).collect();
        all.iter().for_each(|(one, other)| cluster.set_cut(*one, *other, true));
    }
    cluster.write(1, "k", "still of the first");
    assert_eq!(cluster.value(4, "k").as_deref(), Some("of the second"));
}

/// A cluster that has never been in strong mode joins one that has. What it had written before does not count,
/// since somebody may have read in the other one that it is not there, and is kept as orphans.
#[test]
fn a_cluster_that_was_never_strong_joins_one_that_was() {
    let mut cluster = halves(plain);
    cluster.write(0, "k", "of the first");
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    cluster.write(4, "k", "of the second");
    cluster.write(4, "other", "of the second");
    cluster.pass(Duration::from_secs(1));
    meet(&mut cluster);
    cluster.pass(Duration::from_secs(30));
    cluster.converge();
    for at in 0..6 {
        assert_eq!(cluster.value(at, "k").as_deref(), Some("of the first"), "at {at}");
        assert_eq!(cluster.value(at, "other"), None, "at {at}");
    }
    let kept: Vec<_> = (3..6).flat_map(|at| cluster.shard(at).orphans()).collect();
    assert!(kept.iter().any(|it| &*it.cell.key == b"k"), "{kept:?}");
    assert!(kept.iter().any(|it| &*it.cell.key == b"other"), "{kept:?}");
    cluster.write(5, "k", "of all");
    assert_eq!(cluster.value(1, "k").as_deref(), Some("of all"));
}

/// A member that speaks another version of the messages cannot be reached: a switch names it and changes
/// nothing, and the others go on without it.
#[test]
fn a_member_of_another_wire_version_is_named() {
    let mut cluster = Cluster::new(4, |config| config.voters = 3);
    cluster.converge();
    cluster.other_version = Some(3);
    // It starts again with the other version.
    cluster.stop(3);
    cluster.start(3);
    cluster.pass(Duration::from_secs(2));
    let refused = cluster.switch(0, Mode::Strong, &[]);
    assert_eq!(refused, Switched::Unreachable { nodes: vec![Cluster::id(3)] });
    assert!(
        cluster.refused.iter().any(|why| why.contains("format version")),
        "{:?}",
        cluster.refused
    );
    cluster.write(0, "k", "1");
    cluster.other_version = None;
    cluster.pass(Duration::from_secs(5));
    assert_eq!(cluster.switch(0, Mode::Strong, &[]), Switched::Done { epoch: Epoch(1) });
    assert_eq!(cluster.value(3, "k").as_deref(), Some("1"));
}

/// A directory that was copied and is brought back, or started elsewhere, has forgotten what its voter has
/// said since. That voter never speaks again: the node votes under another number, and what was acknowledged
/// stays.
#[test]
fn a_copied_directory_does_not_vote_as_before() {
    let mut cluster = Cluster::new(3, strong);
    cluster.write(0, "k", "copied");
    cluster.pass(Duration::from_secs(1));
    let copy = cluster.disks[2].clone();
    let before = cluster.shard(2).strong.standing.voter;
    for number in 0..20 {
        cluster.write(number % 3, "k", &number.to_string());
    }
    cluster.stop(2);
    cluster.disks[2] = copy;
    cluster.start(2);
    cluster.pass(Duration::from_secs(10));
    assert_ne!(cluster.shard(2).strong.standing.voter, before);
    assert!(cluster.status()[2].following);
    assert!(cluster.events.iter().any(|(_, event)| *event == StrongEvent::Forgot));
    cluster.stop(0);
    assert_eq!(cluster.value(2, "k").as_deref(), Some("19"));
    cluster.write(2, "k", "goes on");
}
