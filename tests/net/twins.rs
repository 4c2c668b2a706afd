//! Two nodes with one key: of which one gives way, and which are none.

use std::time::{Duration, Instant};

use quorumor::net::{Emulation, NetEvent, RefusedReason};
use quorumor::protocol::profile::Profile;

use super::{Recipe, eventually, secret};

/// Two with one key that meet are told from one that meets itself, and exactly one gives way.
#[test]
fn a_copied_identity_is_told_from_oneself() {
    let secret = secret();
    let (a, copy) = (Recipe::new(&secret, 1).start(), Recipe::new(&secret, 1).start());
    a.net.dial(copy.address());
    for node in [&a, &copy] {
        let (reason, why) = node.wait_refused();
        assert_eq!(reason, RefusedReason::Clone);
        assert!(why.contains("copied"), "{why}");
    }
    eventually("one of them to give way", || a.gives_way() || copy.gives_way());
    assert!(!(a.gives_way() && copy.gives_way()));
}

/// A peer that is linked to the one and greeted by the other keeps whichever has been running longer,
/// whoever has the greater id and whoever came first.
#[test]
fn a_peer_that_meets_both_of_two_with_one_key_keeps_the_elder() {
    for (peer, twin) in [(1, 2), (2, 1)] {
        for younger_first in [false, true] {
            let secret = secret();
            let [peer, elder] = [peer, twin].map(|seed| Recipe::new(&secret, seed).start());
            // Closer calls are decided otherwise.
            let born = Instant::now();
            eventually("the elder to be older", || born.elapsed() > Duration::from_millis(1100));
            let younger = Recipe::new(&secret, twin).start();
            let mut order = [&elder, &younger];
            if younger_first {
                order.reverse();
            }
            for (count, twin) in (1..).zip(order) {
                twin.net.dial(peer.address());
                eventually("the peer to have met it", || {
                    let ups = peer.count(|event| matches!(event, NetEvent::Up { .. }));
                    ups >= count || younger.gives_way() || elder.gives_way()
                });
            }
            let why = younger.wait("that it gives way", |events| {
                events.iter().find_map(|event| match event {
                    NetEvent::GivesWay { why } => Some(why.clone()),
                    _ => None,
                })
            });
            assert!(why.contains(&elder.address().to_string()), "{why}");
            assert!(why.contains("a data directory was copied"), "{why}");
            eventually("the elder to be the one that is linked", || {
                peer.net.peers().first().is_some_and(|link| link.address == elder.address())
            });
            assert!(!elder.gives_way());
            assert!(peer.net.stats().refused[&RefusedReason::Clone] > 0);
        }
    }
}

/// A node that crashed and is back at another port is let in although its former link is still on the
/// books, and nobody gives way: what is left of its former run does not answer.
#[test]
fn a_node_that_is_back_after_a_crash_is_not_its_own_twin() {
    for (peer, crashes) in [(1u8, 2u8), (2, 1)] {
        let (emulation, profile) = silence();
        let secret = secret();
        let peer = Recipe::new(&secret, peer).start();
        let gone =
            Recipe { emulation: Some(emulation.clone()), ..Recipe::new(&secret, crashes) }.start();
        emulation.place(peer.address(), 1);
        gone.net.dial(peer.address());
        peer.wait_up(&gone);
        gone.wait_up(&peer);
        // From now on not a word of it, and none reaches it: as if it had been killed.
        emulation.begin(Instant::now() - profile);
        // If it lived, the other would have to give way.
        let born = Instant::now();
        eventually("the former run to be older", || born.elapsed() > Duration::from_millis(1100));
        let back = Recipe::new(&secret, crashes).start();
        back.net.dial(peer.address());
        back.wait_up(&peer);
        eventually("the new run to be the one that is linked", || {
            peer.net.peers().first().is_some_and(|link| link.address == back.address())
        });
        assert!(!back.gives_way() && !gone.gives_way());
        assert!(peer.net.stats().refused.is_empty(), "{:?}", peer.net.stats().refused);
    }
}

/// What cuts a node off from the place 1 for good from a time on, and that time after its beginning.
fn silence() -> (Emulation, Duration) {
    let text = "description = 'test'\n\
                [[partition]]\nfrom = 0\nto = 1\nstart = '60s'\nfor = '10000s'";
    let profile = Profile::parse("silence.toml", text).unwrap();
    (Emulation::new(profile, 0, 7), Duration::from_secs(60))
}
