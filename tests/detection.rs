//! The failure detector in virtual time: how soon a death is known, and that nobody else is accused.
//!
//! `QUORUMOR_DETECTION_HOURS` sets for how many simulated hours lossy links are watched for a false
//! accusation; continuous integration takes a part of an hour, the promise is twenty-four.
//! `QUORUMOR_DETECTION_KILLS` multiplies the number of deaths that are timed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop at once")]
#![allow(clippy::print_stdout, reason = "the figures are shown to whoever asks with --nocapture")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use quorumor::protocol::membership::{MembershipEvent, PeerState};
use quorumor::protocol::profile::{Link, Profile};
use quorumor::sim::detection::{Detection, FIRST_RUN, Told};

const SECOND: Duration = Duration::from_secs(1);

fn lan() -> Arc<Link> {
    Profile::builtin("lan").unwrap().default_link()
}

fn lossy(loss: f64) -> Arc<Link> {
    Arc::new(Link { loss, ..Link::clone(&lan()) })
}

fn downs(detection: &Detection) -> Vec<Told> {
    let told = detection.told().iter().copied();
    told.filter(|told| matches!(told.event, MembershipEvent::Down(_))).collect()
}

/// When, after a kill, each of the others has said so.
fn detection_times(nodes: usize, link: Arc<Link>, seed: u64) -> Vec<Duration> {
    let mut detection = Detection::new(nodes, link, seed);
    detection.run(10 * SECOND + Duration::from_millis(seed * 37 % 1_000));
    assert_eq!(downs(&detection), [], "{nodes} nodes, seed {seed}");
    let dead = seed as usize % nodes;
    let killed = detection.now();
    detection.kill(dead);
    detection.run(20 * SECOND);
    let times: Vec<Duration> = downs(&detection)
        .into_iter()
        .map(|told| {
            let MembershipEvent::Down(id) = told.event else { unreachable!() };
            assert_eq!(detection.place(id), Some(dead), "{nodes} nodes, seed {seed}: {told:?}");
            told.at.since(killed)
        })
        .collect();
    assert_eq!(times.len(), nodes - 1, "{nodes} nodes, seed {seed}: some never noticed");
    times
}

/// The time until the last has noticed, over some seeds: median and longest.
fn last_to_notice(nodes: usize, link: &Arc<Link>, seeds: u64) -> (Duration, Duration) {
    let longest = |seed| detection_times(nodes, Arc::clone(link), seed).into_iter().max().unwrap();
    let mut all: Vec<Duration> = (0..seeds).map(longest).collect();
    all.sort();
    let found = (all[all.len() / 2], *all.last().unwrap());
    println!("{nodes} nodes, {link}, {seeds} kills: known to all after {found:?} (p50, max)");
    found
}

#[test]
fn a_death_is_known_to_all_within_three_seconds() {
    let times = std::env::var("QUORUMOR_DETECTION_KILLS").ok();
    let times: u64 = times.map_or(1, |times| times.parse().expect("a number"));
    for (nodes, seeds) in [(2, 50), (3, 50), (5, 100), (20, 20), (100, 3)] {
        let (_, longest) = last_to_notice(nodes, &lan(), seeds * times);
        assert!(longest <= 3 * SECOND, "{nodes} nodes: {longest:?}");
    }
}

#[test]
fn with_a_tenth_of_all_packets_lost_a_death_is_known_soon_too() {
    for (nodes, seeds) in [(5, 50), (32, 20)] {
        let (_, longest) = last_to_notice(nodes, &lossy(0.1), seeds);
        assert!(longest <= 5 * SECOND, "{nodes} nodes: {longest:?}");
    }
}

#[test]
fn every_profile_is_watched_fairly() {
    for profile in ["loopback", "wan", "wifi", "lossy", "glomers"] {
        let link = Profile::builtin(profile).unwrap().default_link();
        let mut detection = Detection::new(5, Arc::clone(&link), 1);
        detection.run(600 * SECOND);
        assert_eq!(downs(&detection), [], "{profile}");
        let (_, longest) = last_to_notice(5, &link, 20);
        assert!(longest <= 4 * SECOND, "{profile}: {longest:?}");
    }
}

#[test]
fn neighbours_that_die_together_are_both_missed() {
    for seed in 0..30 {
        let mut detection = Detection::new(20, lan(), seed);
        detection.run(10 * SECOND);
        let dead: Vec<usize> = (0..4).map(|n| (seed as usize + 3 * n) % 20).collect();
        dead.iter().for_each(|node| detection.kill(*node));
        detection.run(15 * SECOND);
        for observer in (0..20).filter(|node| !dead.contains(node)) {
            for of in (0..20).filter(|node| *node != observer) {
                let wanted = if dead.contains(&of) { PeerState::Down } else { PeerState::Up };
                assert_eq!(detection.state(observer, of), Some(wanted), "seed {seed}");
            }
        }
    }
}

#[test]
fn a_restarted_node_is_back_at_once_even_if_its_clock_was_set_back() {
    for (seed, run) in (0..20).flat_map(|seed| [(seed, FIRST_RUN + 5), (seed, 17)]) {
        for away in [0, 1, 10] {
            let mut detection = Detection::new(5, lan(), seed);
            detection.run(5 * SECOND);
            detection.kill(1);
            detection.run(away * SECOND);
            detection.restart(1, run);
            detection.run(5 * SECOND);
            let healed = detection.told().len();
            detection.run(30 * SECOND);
            for other in [0, 2, 3, 4] {
                let both = (detection.state(other, 1), detection.state(1, other));
                assert_eq!(both, (Some(PeerState::Up), Some(PeerState::Up)), "seed {seed}");
            }
            assert_eq!(detection.told()[healed..], [], "seed {seed}, run {run}, {away} s away");
            // SWIM holds it alive as well: its second death is missed as soon as the first.
            detection.kill(1);
            detection.run(3 * SECOND);
            for other in [0, 2, 3, 4] {
                assert_eq!(detection.state(other, 1), Some(PeerState::Down), "seed {seed}");
            }
        }
    }
}

#[test]
fn when_all_are_stopped_together_nobody_is_accused() {
    for nodes in [2, 5, 20] {
        let mut detection = Detection::new(nodes, lan(), 8);
        detection.run(5 * SECOND);
        (0..nodes).for_each(|node| detection.stop(node, 3600 * SECOND));
        detection.run(3660 * SECOND);
        assert_eq!(downs(&detection), [], "{nodes} nodes");
    }
}

#[test]
fn lost_packets_accuse_nobody() {
    let hours = std::env::var("QUORUMOR_DETECTION_HOURS").ok();
    let hours: f64 = hours.map_or(0.1, |hours| hours.parse().expect("a number of hours"));
    for nodes in [2, 5, 10, 32] {
        let mut detection = Detection::new(nodes, lossy(0.1), nodes as u64);
        detection.run(SECOND.mul_f64(hours * 3600.0));
        assert_eq!(downs(&detection), [], "{nodes} nodes");
        let suspected: u64 = (0..nodes).map(|n| detection.counters(n).unwrap().suspected).sum();
        println!("{nodes} nodes, {hours} h at 10 % loss: nobody accused, {suspected} suspicions");
    }
}

#[test]
fn an_idle_cluster_is_quiet() {
    for nodes in [2, 5, 20, 100] {
        let mut detection = Detection::new(nodes, lan(), 1);
        detection.run(30 * SECOND);
        let before = detection.bytes();
        detection.run(60 * SECOND);
        let rate = (detection.bytes() - before) / 60 / nodes as u64;
        println!("{nodes} nodes: {rate} bytes per second and node");
        assert!(rate < 267, "{nodes} nodes: {rate} bytes per second and node");
    }
}

#[test]
fn a_node_that_was_stopped_accuses_nobody_and_comes_back() {
    for seed in 0..100 {
        let mut detection = Detection::new(5, lan(), seed);
        detection.run(5 * SECOND + Duration::from_millis(seed * 13));
        let stopped = seed as usize % 5;
        let length =
            Duration::from_millis([200, 500, 1_000, 2_000, 5_000, 60_000][seed as usize % 6]);
        detection.stop(stopped, length);
        detection.run(length);
        let resumed = detection.told().len();
        detection.run(SECOND);
        for told in downs(&detection) {
            assert_ne!(told.by, stopped, "seed {seed}: it accuses after {length:?}");
        }
        for other in (0..5).filter(|other| *other != stopped) {
            let both = (detection.state(other, stopped), detection.state(stopped, other));
            assert_eq!(both, (Some(PeerState::Up), Some(PeerState::Up)), "seed {seed} {length:?}");
        }
        detection.run(20 * SECOND);
        let after = detection.told()[resumed..].iter();
        let accused = after.filter(|told| matches!(told.event, MembershipEvent::Down(_)));
        assert_eq!(accused.count(), 0, "seed {seed}: accused after it came back");
    }
}

#[test]
fn a_node_that_gets_a_tenth_of_the_time_accuses_nobody() {
    let mut detection = Detection::new(5, lan(), 3);
    detection.run(5 * SECOND);
    for _ in 0..600 {
        detection.stop(2, Duration::from_millis(900));
        detection.run(SECOND);
    }
    assert!(downs(&detection).iter().all(|told| told.by != 2), "{:?}", downs(&detection));
    assert!(detection.counters(2).unwrap().late > 100, "it noticed");
}

#[test]
fn a_link_that_carries_one_way_only_accuses_nobody_whom_others_hear() {
    for nodes in [3, 5, 20] {
        for both in [false, true] {
            let mut detection = Detection::new(nodes, lan(), 9);
            detection.run(5 * SECOND);
            detection.cut(0, 1, true);
            detection.cut(1, 0, both);
            detection.run(30 * SECOND);
            assert_eq!(downs(&detection), [], "{nodes} nodes, both ways: {both}");
        }
    }
}

#[test]
fn a_node_cut_off_is_missed_and_welcomed_back() {
    let mut detection = Detection::new(5, lan(), 4);
    detection.run(5 * SECOND);
    for other in 1..5 {
        detection.cut(0, other, true);
        detection.cut(other, 0, true);
    }
    detection.run(20 * SECOND);
    for other in 1..5 {
        assert_eq!(detection.state(other, 0), Some(PeerState::Down), "as seen by {other}");
        assert_eq!(detection.state(other, other % 4 + 1), Some(PeerState::Up));
        detection.cut(0, other, false);
        detection.cut(other, 0, false);
    }
    detection.run(5 * SECOND);
    let healed = detection.told().len();
    detection.run(30 * SECOND);
    for other in 1..5 {
        assert_eq!(detection.state(other, 0), Some(PeerState::Up), "as seen by {other}");
        assert_eq!(detection.state(0, other), Some(PeerState::Up), "as {other} is seen");
    }
    assert_eq!(detection.told()[healed..], [], "and all is quiet");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let story = |seed| {
        let mut detection = Detection::new(8, lossy(0.2), seed);
        detection.run(10 * SECOND);
        detection.kill(3);
        detection.run(60 * SECOND);
        (detection.told().to_vec(), detection.bytes())
    };
    assert_eq!(story(5), story(5));
    assert_ne!(story(5), story(6));
}

#[test]
fn a_liar_accuses_nobody_and_invents_nobody() {
    // Gossip in the name of node 1 about node 2, to all others, again and again: that it is suspected
    // or dead as what it is, or alive as what it is not; and about a node that there is not.
    for (state, incarnation, renewal) in [
        (2u8, 0u16, FIRST_RUN),
        (1, 0, FIRST_RUN),
        (1, u16::MAX, FIRST_RUN),
        (0, u16::MAX, FIRST_RUN),
        (0, 0, u64::MAX),
        (2, 0, FIRST_RUN + 1),
    ] {
        let mut detection = Detection::new(5, lan(), 6);
        detection.run(5 * SECOND);
        let lie = |about: u128| {
            let mut bytes = vec![8];
            bytes.extend(FIRST_RUN.to_be_bytes());
            bytes.extend([0, 0]);
            bytes.extend(FIRST_RUN.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(about.to_be_bytes());
            bytes.extend(renewal.to_be_bytes());
            bytes.extend(incarnation.to_be_bytes());
            bytes.push(state);
            bytes
        };
        for _ in 0..300 {
            for to in [0, 2, 3, 4] {
                detection.inject(1, to, &lie(detection.id(2).unwrap().0));
                detection.inject(1, to, &lie(12345));
            }
            detection.run(Duration::from_millis(100));
        }
        assert_eq!(downs(&detection), [], "state {state}, incarnation {incarnation}");
        let understood: u64 = (0..5).map(|node| detection.counters(node).unwrap().rubbish).sum();
        assert_eq!(understood, 0, "the lies are well formed");
        detection.kill(2);
        detection.run(5 * SECOND);
        for node in [0, 1, 3, 4] {
            assert_eq!(detection.state(node, 2), Some(PeerState::Down), "the truth is found");
        }
    }
}

/// Datagrams near to what the detector sends: any kind, any ends, too short and too long.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(any::<u8>(), 0..1_300);
    let kind = prop_oneof![0u8..=12, Just(0x20), Just(0x21), any::<u8>()];
    (kind, body).prop_map(|(kind, mut body)| {
        body.insert(0, kind);
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rubbish_accuses_nobody(all in prop::collection::vec((1usize..5, datagram()), 0..60)) {
        let mut detection = Detection::new(5, lan(), 2);
        detection.run(3 * SECOND);
        for (from, bytes) in &all {
            detection.inject(*from, 0, bytes);
            detection.run(Duration::from_millis(20));
        }
        detection.run(10 * SECOND);
        prop_assert_eq!(downs(&detection), []);
        for node in 1..5 {
            prop_assert_eq!(detection.state(0, node), Some(PeerState::Up));
        }
        prop_assert_eq!((0..5).filter(|n| detection.counters(*n).is_some()).count(), 5);
    }
}
