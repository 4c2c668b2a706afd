//! Real sockets on the loopback interface: what the network room promises the rooms above.
//!
//! Every test waits for a condition with a deadline, never for a time; no outcome depends on how
//! fast the machine is. What needs a peer that breaks the rules is tested inside the room, where
//! such a peer can be built.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop at once")]

#[path = "net/twins.rs"]
mod twins;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quorumor::net::{
    DATAGRAM_BYTES_MAX, Emulation, Lane, Limits, Net, NetConfig, NetError, NetEvent, NodeIdentity,
    RefusedReason, Secret, Sent,
};
use quorumor::protocol::id::NodeId;
use quorumor::protocol::profile::Profile;

/// Long enough for a loaded machine; only a failure ever waits so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A node and everything that its handler heard.
struct Node {
    net: Net,
    heard: Arc<Heard>,
}

#[derive(Default)]
struct Heard {
    events: Mutex<Vec<NetEvent>>,
    more: Condvar,
}

struct Recipe {
    secret: Secret,
    seed: u8,
    cluster: &'static str,
    listen: SocketAddr,
    emulation: Option<Emulation>,
    limits: Limits,
}

impl Recipe {
    fn new(secret: &Secret, seed: u8) -> Self {
        Self {
            secret: secret.clone(),
            seed,
            cluster: "test",
            listen: "127.0.0.1:0".parse().unwrap(),
            emulation: None,
            limits: Limits::default(),
        }
    }

    fn config(self) -> NetConfig {
        NetConfig {
            listen: self.listen,
            identity: NodeIdentity::from_seed([self.seed; 32]).unwrap(),
            secret: self.secret,
            cluster: self.cluster.into(),
            name: format!("node-{}", self.seed),
            version: 1,
            hello: vec![self.seed],
            emulation: self.emulation,
            limits: self.limits,
        }
    }

    fn start(self) -> Node {
        let heard = Arc::new(Heard::default());
        let ear = Arc::clone(&heard);
        let handler = Arc::new(move |_: &Net, event: NetEvent| {
            ear.events.lock().push(event);
            ear.more.notify_all();
        });
        let net = async_std::task::block_on(Net::bind(self.config(), handler)).unwrap();
        Node { net, heard }
    }
}

impl Node {
    fn id(&self) -> NodeId {
        self.net.node_id()
    }

    fn address(&self) -> SocketAddr {
        self.net.local_address()
    }

    /// Waits until what was heard satisfies `wanted`.
    fn wait<T>(&self, what: &str, wanted: impl Fn(&[NetEvent]) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        let mut events = self.heard.events.lock();
        loop {
            if let Some(found) = wanted(&events) {
                return found;
            }
            assert!(
                !self.heard.more.wait_until(&mut events, deadline).timed_out(),
                "{:?} never saw {what}; it heard {events:#?}",
                self.net
            );
        }
    }

    fn wait_up(&self, peer: &Node) {
        let id = peer.id();
        self.wait("its peer come up", |events| {
            events
                .iter()
                .find(|event| matches!(event, NetEvent::Up { peer, .. } if *peer == id))?;
            Some(())
        });
    }

    fn frames(events: &[NetEvent]) -> Vec<(Lane, Bytes)> {
        events
            .iter()
            .filter_map(|event| match event {
                NetEvent::Frame { lane, bytes, .. } => Some((*lane, bytes.clone())),
                _ => None,
            })
            .collect()
    }

    fn wait_frames(&self, count: usize) -> Vec<(Lane, Bytes)> {
        self.wait("enough frames", |events| {
            let frames = Self::frames(events);
            (frames.len() >= count).then_some(frames)
        })
    }

    fn wait_refused(&self) -> (RefusedReason, String) {
        self.wait("a refusal", |events| {
            events.iter().find_map(|event| match event {
                NetEvent::Refused { reason, why, .. } => Some((*reason, why.clone())),
                _ => None,
            })
        })
    }

    fn gives_way(&self) -> bool {
        self.count(|event| matches!(event, NetEvent::GivesWay { .. })) > 0
    }

    fn count(&self, wanted: impl Fn(&NetEvent) -> bool) -> usize {
        self.heard.events.lock().iter().filter(|event| wanted(event)).count()
    }

    fn close(self) {
        async_std::task::block_on(self.net.close());
    }
}

fn secret() -> Secret {
    Secret::generate().unwrap()
}

fn pair() -> (Node, Node) {
    let secret = secret();
    let (a, b) = (Recipe::new(&secret, 1).start(), Recipe::new(&secret, 2).start());
    a.net.dial(b.address());
    a.wait_up(&b);
    b.wait_up(&a);
    (a, b)
}

/// Waits until `condition` holds, looking again whenever other tasks had a chance to run.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn peers_meet_and_know_each_other() {
    let (a, b) = pair();
    let up = b.wait("its peer", |events| match events.first()? {
        NetEvent::Up { peer, name, address, hello, .. } => {
            Some((*peer, name.clone(), *address, hello.clone()))
        }
        _ => None,
    });
    assert_eq!(up, (a.id(), "node-1".into(), a.address(), Bytes::from_static(&[1])));
    let peers = a.net.peers();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].id, peers[0].name.as_str()), (b.id(), "node-2"));
    assert!(peers[0].round_trip > Duration::ZERO && peers[0].received.datagrams > 0);
}

/// Hardly anything but the handshake is sent for the sake of the link itself.
#[test]
fn to_meet_takes_few_bytes() {
    let (a, b) = pair();
    for round in 1..=20 {
        // To and fro, so that whatever the link wants to find out has had its time.
        for (from, to) in [(&a, &b), (&b, &a)] {
            assert_eq!(from.net.send(to.id(), Lane::Push, Bytes::from_static(b"x")), Sent::Queued);
            to.wait_frames(round);
        }
    }
    let peer = &a.net.peers()[0];
    let bytes = peer.sent.bytes + peer.received.bytes;
    assert!(bytes < 12_000, "{bytes} bytes for forty small messages");
}

#[test]
fn pushed_frames_arrive_in_order_and_whole() {
    let (a, b) = pair();
    let frame = |n: u32| {
        let mut bytes = n.to_be_bytes().to_vec();
        bytes.resize(4 + (n as usize * 7919) % 20_000, n as u8);
        Bytes::from(bytes)
    };
    for n in 0..500 {
        // The queue is bounded: wait for room rather than lose the count.
        eventually("room in the queue", || {
            a.net.send(b.id(), Lane::Push, frame(n)) == Sent::Queued
        });
    }
    let frames = b.wait_frames(500);
    for (n, (lane, bytes)) in (0u32..).zip(frames) {
        assert_eq!(lane, Lane::Push);
        assert_eq!(bytes, frame(n), "frame {n}");
    }
}

#[test]
fn exchanges_keep_their_order_and_say_when_they_end() {
    let (a, b) = pair();
    for n in 0..10u8 {
        for id in [7, 8] {
            let lane = Lane::Exchange { id, last: n == 9 };
            assert_eq!(a.net.send(b.id(), lane, Bytes::from(vec![n; 3000])), Sent::Queued);
        }
    }
    let frames = b.wait_frames(20);
    for wanted in [7, 8] {
        let of_this: Vec<(u8, bool)> = frames
            .iter()
            .filter_map(|(lane, bytes)| match lane {
                Lane::Exchange { id, last } if *id == wanted => Some((bytes[0], *last)),
                _ => None,
            })
            .collect();
        let expected: Vec<(u8, bool)> = (0..10).map(|n| (n, n == 9)).collect();
        assert_eq!(of_this, expected);
    }
}

#[test]
fn a_large_frame_crosses_in_one_piece() {
    let (a, b) = pair();
    let large: Bytes = (0..40_000_000u32).map(|n| (n % 251) as u8).collect();
    let lane = Lane::Exchange { id: 1, last: true };
    assert_eq!(a.net.send(b.id(), lane, large.clone()), Sent::Queued);
    // A push that is sent after the bulk does not wait for the end of it.
    assert_eq!(a.net.send(b.id(), Lane::Push, Bytes::from_static(b"live")), Sent::Queued);
    let frames = b.wait_frames(2);
    assert_eq!(frames[0], (Lane::Push, Bytes::from_static(b"live")));
    assert!(frames[1].1 == large);
}

#[test]
fn frames_beyond_the_limits_are_refused_by_the_sender() {
    let (a, b) = pair();
    let too_long = Bytes::from(vec![0; Limits::default().push_frame_bytes_max + 1]);
    assert_eq!(a.net.send(b.id(), Lane::Push, too_long), Sent::QueueFull);
    assert_eq!(a.net.send(NodeId(1), Lane::Push, Bytes::new()), Sent::NotConnected);
    assert_eq!(a.net.stats().frames_dropped, 1);
}

/// Datagrams from `a` to `b` of every kind of length, each again until one got through.
fn exchange_datagrams(a: &Node, b: &Node) {
    for length in [2, 100, DATAGRAM_BYTES_MAX] {
        let frame = Bytes::from(vec![length as u8; length]);
        eventually("a datagram to arrive", || {
            // There may be no room at the moment, and one that was sent may be lost.
            let _ = a.net.send(b.id(), Lane::Datagram, frame.clone());
            let wanted = (Lane::Datagram, frame.clone());
            Node::frames(&b.heard.events.lock()).contains(&wanted)
        });
    }
}

#[test]
fn datagrams_arrive_whole_and_misfits_are_refused_by_the_sender() {
    let (a, b) = pair();
    exchange_datagrams(&a, &b);
    let heard = b.net.heard();
    assert!(heard.iter().any(|(peer, at)| *peer == a.id() && at.elapsed() < DEADLINE));
    let dropped = a.net.stats().frames_dropped;
    for misfit in [0, 1, 70_000] {
        let frame = Bytes::from(vec![b'?'; misfit]);
        assert_eq!(a.net.send(b.id(), Lane::Datagram, frame), Sent::QueueFull, "{misfit} bytes");
    }
    assert_eq!(a.net.stats().frames_dropped, dropped + 3);
    assert_eq!(a.net.send(NodeId(1), Lane::Datagram, vec![0; 9].into()), Sent::NotConnected);
    a.close();
    b.close();
}

#[test]
fn datagrams_cross_an_emulated_network_that_loses_and_probes_stay_inside() {
    // While the link is cut, the one that wants an answer probes it with datagrams of one byte.
    let (a, b, emulations) = cut_pair("60s", "1s");
    assert!(a.net.dial(b.address()));
    b.wait_up(&a);
    a.wait_up(&b);
    exchange_datagrams(&a, &b);
    let cut = Instant::now() - Duration::from_secs(60);
    for emulation in &emulations {
        emulation.begin(cut);
    }
    assert_eq!(
        a.net.send(b.id(), Lane::Push, Bytes::from_static(b"asks for an answer")),
        Sent::Queued
    );
    b.wait("the push", |events| {
        Node::frames(events).iter().any(|(lane, _)| *lane == Lane::Push).then_some(())
    });
    exchange_datagrams(&b, &a);
    for node in [&a, &b] {
        let frames = Node::frames(&node.heard.events.lock());
        assert!(frames.iter().all(|(_, bytes)| bytes.len() > 1), "{frames:?}");
    }
    a.close();
    b.close();
}

#[test]
fn a_peer_that_was_given_up_comes_back_at_once() {
    let (a, b) = pair();
    a.net.give_up(b.id(), "does not answer");
    a.wait("the link go and come back", |events| {
        let ups = events.iter().filter(|event| matches!(event, NetEvent::Up { .. })).count();
        let down = events.iter().any(
            |event| matches!(event, NetEvent::Down { reason, .. } if reason == "does not answer"),
        );
        (down && ups >= 2).then_some(())
    });
    assert!(a.net.stats().refused.is_empty() && b.net.stats().refused.is_empty());
    a.close();
    b.close();
}

#[test]
fn another_secret_is_refused_on_both_sides_and_counted() {
    let (a, b) = (Recipe::new(&secret(), 1).start(), Recipe::new(&secret(), 2).start());
    a.net.dial(b.address());
    let (reason, why) = a.wait_refused();
    assert_eq!(reason, RefusedReason::WrongSecret);
    assert_eq!(why, "the peer presented a certificate of another cluster secret");
    let (reason, why) = b.wait_refused();
    assert_eq!(reason, RefusedReason::WrongSecret);
    assert!(why.contains("another cluster secret"), "{why}");
    assert!(b.net.stats().refused[&RefusedReason::WrongSecret] >= 1);
    assert!(a.net.peers().is_empty() && b.net.peers().is_empty());
}

#[test]
fn another_cluster_is_refused_with_both_names() {
    let secret = secret();
    let a = Recipe { cluster: "red", ..Recipe::new(&secret, 1) }.start();
    let b = Recipe { cluster: "blue", ..Recipe::new(&secret, 2) }.start();
    a.net.dial(b.address());
    for node in [&a, &b] {
        let (reason, why) = node.wait_refused();
        assert_eq!(reason, RefusedReason::Cluster);
        assert!(why.contains("'red'") && why.contains("'blue'"), "{why}");
    }
}

#[test]
fn dialling_oneself_is_noticed_and_harmless() {
    let (a, b) = pair();
    a.net.dial(a.address());
    // The other candidate works on; and nothing is ever heard of oneself.
    assert_eq!(b.net.send(a.id(), Lane::Push, Bytes::from_static(b"x")), Sent::Queued);
    a.wait_frames(1);
    eventually("the attempt to reach itself to be over", || {
        // Its own handshake shows in the count of links only if it were taken for a peer.
        a.net.stats().received.datagrams > 10
    });
    assert_eq!(a.net.peers().len(), 1);
    assert_eq!(a.count(|event| matches!(event, NetEvent::Refused { .. })), 0);
}

/// A hint leads to a link as a seed does; too many hints are refused, and a seed is dialled all the
/// same.
#[test]
fn hints_lead_to_links_and_leave_room_for_seeds() {
    let secret = secret();
    let [a, b, c] = [1, 2, 3].map(|seed| Recipe::new(&secret, seed).start());
    assert!(a.net.hint(b.address()));
    a.wait_up(&b);
    // Nobody is there, and the table is full long before all are in it.
    let taken = (1..=5000_u16)
        .filter(|port| a.net.hint(SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 50_000 + port))));
    let taken = taken.count();
    assert!(taken < 1024, "{taken} hints were taken");
    assert_eq!(a.net.discovery().candidates, 1 + taken);
    assert!(a.net.dial(c.address()));
    a.wait_up(&c);
}

/// However the dials cross, each pair ends up with one link and hears of exactly one.
#[test]
fn simultaneous_dials_end_in_one_link() {
    for round in 0..10 {
        let secret = secret();
        let (a, b) = (Recipe::new(&secret, 1).start(), Recipe::new(&secret, 2).start());
        a.net.dial(b.address());
        b.net.dial(a.address());
        a.wait_up(&b);
        b.wait_up(&a);
        for (from, to) in [(&a, &b), (&b, &a)] {
            assert_eq!(from.net.send(to.id(), Lane::Push, Bytes::from_static(b"x")), Sent::Queued);
            to.wait_frames(1);
        }
        for node in [&a, &b] {
            assert_eq!(node.net.peers().len(), 1, "round {round}");
            let ups = node.count(|event| matches!(event, NetEvent::Up { .. }));
            let downs = node.count(|event| matches!(event, NetEvent::Down { .. }));
            assert_eq!((ups, downs), (1, 0), "round {round}");
        }
        a.close();
        b.close();
    }
}

#[test]
fn a_peer_that_leaves_is_missed_at_once() {
    let (a, b) = pair();
    let b_id = b.id();
    b.close();
    let reason = a.wait("its peer go", |events| {
        events.iter().find_map(|event| match event {
            NetEvent::Down { peer, reason } if *peer == b_id => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(reason.contains("shutting down"), "{reason}");
    assert_eq!(a.net.send(b_id, Lane::Push, Bytes::new()), Sent::NotConnected);
}

/// A node leaves when its owner drops it, whatever handles its handler may have kept.
#[test]
fn a_dropped_node_leaves() {
    let (a, b) = pair();
    let b_id = b.id();
    drop(b);
    a.wait("its peer go", |events| {
        events
            .iter()
            .find(|event| matches!(event, NetEvent::Down { peer, .. } if *peer == b_id))?;
        Some(())
    });
}

#[test]
fn a_restarted_peer_is_redialled_on_its_old_address() {
    let secret = secret();
    let (a, b) = (Recipe::new(&secret, 1).start(), Recipe::new(&secret, 2).start());
    let address = b.address();
    a.net.dial(address);
    a.wait_up(&b);
    b.wait_up(&a);
    b.close();
    let again = Recipe { listen: address, ..Recipe::new(&secret, 2) }.start();
    a.wait("its peer come back", |events| {
        let ups = events.iter().filter(|event| matches!(event, NetEvent::Up { .. })).count();
        (ups == 2).then_some(())
    });
    assert_eq!(a.net.send(again.id(), Lane::Push, Bytes::from_static(b"x")), Sent::Queued);
    again.wait_frames(1);
}

/// What was queued when a node closes still arrives.
#[test]
fn closing_lets_queued_pushes_drain() {
    let (a, b) = pair();
    for n in 0..1000u32 {
        let frame = Bytes::copy_from_slice(&n.to_be_bytes());
        assert_eq!(a.net.send(b.id(), Lane::Push, frame), Sent::Queued);
    }
    a.close();
    let frames = b.wait_frames(1000);
    assert_eq!(frames[999].1, Bytes::copy_from_slice(&999u32.to_be_bytes()));
}

#[test]
fn a_peer_in_quarantine_stays_out() {
    let (a, b) = pair();
    a.net.disconnect(b.id(), "told nonsense", Duration::from_secs(3600));
    let b_reason = b.wait("being sent away", |events| {
        events.iter().find_map(|event| match event {
            NetEvent::Down { reason, .. } => Some(reason.clone()),
            _ => None,
        })
    });
    assert!(b_reason.contains("told nonsense"), "{b_reason}");
    b.net.dial(a.address());
    let (reason, why) = b.wait_refused();
    assert_eq!(reason, RefusedReason::Quarantined);
    assert!(why.contains("sent away"), "{why}");
    assert!(a.net.peers().is_empty());
}

#[test]
fn a_port_in_use_is_said_so() {
    let a = Recipe::new(&secret(), 1).start();
    let config = Recipe { listen: a.address(), ..Recipe::new(&secret(), 2) }.config();
    let error =
        async_std::task::block_on(Net::bind(config, Arc::new(|_: &Net, _| {}))).unwrap_err();
    assert!(matches!(error, NetError::PortInUse { .. }));
    assert!(error.to_string().contains("in use"), "{error}");
}

#[test]
fn unknown_profiles_and_unreadable_files_are_explained() {
    let error = quorumor::net::load_profile("mars").unwrap_err().to_string();
    assert!(error.contains("loopback") && error.contains(".toml"), "{error}");
    let error = quorumor::net::load_profile("no/such/file.toml").unwrap_err().to_string();
    assert!(error.contains("no/such/file.toml"), "{error}");
    assert_eq!(quorumor::net::load_profile("lan").unwrap().name(), "lan");
}

/// Two nodes whose packets to each other are cut for a time, as a profile says.
fn cut_pair(start: &str, length: &str) -> (Node, Node, [Emulation; 2]) {
    let profile = Profile::parse(
        "cut.toml",
        &format!(
            "description = 'test'\n[[partition]]\nfrom = 0\nto = 1\nstart = '{start}'\nfor = '{length}'"
        ),
    )
    .unwrap();
    let emulations = [0, 1].map(|me| Emulation::new(profile.clone(), me, 7));
    let secret = secret();
    let nodes = [1u8, 2].map(|seed| {
        let emulation = emulations[usize::from(seed) - 1].clone();
        Recipe { emulation: Some(emulation), ..Recipe::new(&secret, seed) }.start()
    });
    let [a, b] = nodes;
    emulations[0].place(b.address(), 1);
    emulations[1].place(a.address(), 0);
    (a, b, emulations)
}

/// A network emulated around two nodes that push a frame to and fro: how long each round trip took,
/// and what the emulation did.
fn emulated_round_trips(link: &str, count: usize) -> (Vec<Duration>, u64, u64) {
    let text = format!("description = 'test'\n[default]\n{link}");
    let profile = Profile::parse("test.toml", &text).unwrap();
    let emulations = [1, 2].map(|me| Emulation::new(profile.clone(), me, 7));
    let secret = secret();
    let nodes = [1u8, 2].map(|seed| {
        let emulation = emulations[usize::from(seed) - 1].clone();
        Recipe { emulation: Some(emulation), ..Recipe::new(&secret, seed) }.start()
    });
    let [a, b] = &nodes;
    a.net.dial(b.address());
    a.wait_up(b);
    b.wait_up(a);
    let frame = Bytes::from_static(b"to and fro");
    let round_trips = (1..=count).map(|n| {
        let sent_at = Instant::now();
        assert_eq!(a.net.send(b.id(), Lane::Push, frame.clone()), Sent::Queued);
        b.wait_frames(n);
        assert_eq!(b.net.send(a.id(), Lane::Push, frame.clone()), Sent::Queued);
        a.wait_frames(n);
        sent_at.elapsed()
    });
    let round_trips = round_trips.collect();
    let counts = emulations.map(|emulation| emulation.count());
    let offered = counts.iter().map(|count| count.offered).sum();
    (round_trips, offered, counts.iter().map(|count| count.lost).sum())
}

/// No packet is early by more than the timers' lead, and the fastest round trip of many takes less
/// than twice what the profile says, however loaded the machine is.
#[test]
fn emulated_latency_is_what_the_profile_says() {
    let (mut round_trips, _, lost) = emulated_round_trips("latency = '10ms'", 50);
    round_trips.sort();
    println!("20 ms wanted: fastest {:?}, median {:?}", round_trips[0], round_trips[25]);
    assert!(round_trips[0] >= Duration::from_micros(19_800), "{:?}", round_trips[0]);
    assert!(round_trips[0] < Duration::from_millis(40), "{:?}", round_trips[0]);
    assert_eq!(lost, 0);
}

/// Everything arrives in spite of loss, and as much is lost as the profile says: within five
/// standard deviations.
#[test]
fn emulated_loss_is_what_the_profile_says() {
    let (_, offered, lost) = emulated_round_trips("loss = '10%'", 300);
    let expected = offered as f64 * 0.1;
    let deviation = (offered as f64 * 0.1 * 0.9).sqrt();
    println!("10 % wanted: {lost} of {offered} packets");
    assert!(offered > 600, "{offered}");
    assert!((lost as f64 - expected).abs() < 5.0 * deviation, "{lost} of {offered}");
}

/// What clients tell each other is dropped beyond its queue, and a push that comes later overtakes what
/// waits there.
#[test]
fn a_flood_of_talk_is_bounded_and_overtaken() {
    let text = "description = 'test'\n[default]\nbandwidth = '10 Mbit/s'";
    let profile = Profile::parse("test.toml", text).unwrap();
    let secret = secret();
    let [a, b] = [1u8, 2].map(|seed| {
        let emulation = Some(Emulation::new(profile.clone(), usize::from(seed), 7));
        Recipe { emulation, ..Recipe::new(&secret, seed) }.start()
    });
    a.net.dial(b.address());
    a.wait_up(&b);
    let talk = Bytes::from(vec![7; 60_000]);
    let mut queued = 0;
    while a.net.send(b.id(), Lane::Talk, talk.clone()) == Sent::Queued {
        queued += 1;
        assert!(queued < 1_000, "a queue without end");
    }
    let too_long = Bytes::from(vec![7; (1 << 20) + 1]);
    assert_eq!(a.net.send(b.id(), Lane::Talk, too_long), Sent::QueueFull);
    assert_eq!(a.net.send(b.id(), Lane::Push, Bytes::from_static(b"write")), Sent::Queued);
    let before = b.wait("the push", |events| {
        Node::frames(events).iter().position(|(lane, _)| *lane == Lane::Push)
    });
    assert!(before < queued / 2, "{before} of {queued} frames went before it");
    let frames = b.wait_frames(queued + 1);
    assert!(frames.iter().all(|(lane, bytes)| *lane == Lane::Push || *bytes == talk));
}

/// A cut that is shorter than the idle timeout breaks no link, and what was sent meanwhile arrives
/// when it heals.
#[test]
fn a_short_cut_is_survived_and_loses_nothing() {
    let (a, b, emulations) = cut_pair("60s", "1s");
    a.net.dial(b.address());
    a.wait_up(&b);
    b.wait_up(&a);
    let cut = Instant::now() - Duration::from_secs(60);
    for emulation in &emulations {
        emulation.begin(cut);
    }
    let sent_at = Instant::now();
    assert_eq!(a.net.send(b.id(), Lane::Push, Bytes::from_static(b"across")), Sent::Queued);
    let frames = b.wait_frames(1);
    assert_eq!(frames[0].1, Bytes::from_static(b"across"));
    assert!(sent_at.elapsed() >= Duration::from_millis(900), "nothing passes during the cut");
    assert!(emulations[0].count().cut > 0);
    assert_eq!(b.count(|event| matches!(event, NetEvent::Down { .. })), 0);
}

/// A cut that outlasts the idle timeout ends the link on both sides; after it the peers find each
/// other again without help.
#[test]
fn a_long_cut_ends_the_link_and_heals_by_redialling() {
    let (a, b, emulations) = cut_pair("60s", "11s");
    a.net.dial(b.address());
    a.wait_up(&b);
    b.wait_up(&a);
    let cut = Instant::now() - Duration::from_secs(60);
    for emulation in &emulations {
        emulation.begin(cut);
    }
    for node in [&a, &b] {
        node.wait("the link end and come back", |events| {
            let story: Vec<&str> = events
                .iter()
                .filter_map(|event| match event {
                    NetEvent::Up { .. } => Some("up"),
                    NetEvent::Down { .. } => Some("down"),
                    _ => None,
                })
                .collect();
            (story == ["up", "down", "up"]).then_some(())
        });
    }
}
