//! What a link does: round trips, frames per second, and how exact the emulated networks are.
//!
//! `cargo bench --bench net` prints tables for the machine at hand. Two nodes run in one process
//! with one executor thread, as in `compare`; round trips and rates are also measured between two
//! processes, as between real nodes. Nothing here passes or fails.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints and may stop")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quorumor::net::{
    Emulation, Handler, Lane, Limits, Net, NetConfig, NetEvent, NodeIdentity, Secret, Sent,
};
use quorumor::protocol::id::NodeId;
use quorumor::protocol::profile::Profile;

/// Wait at most this long for anything.
const DEADLINE: Duration = Duration::from_secs(120);
/// Round trips for each row of the first table, and for each row of the emulation's.
const ROUND_TRIPS: usize = 20_000;
const EMULATED_ROUND_TRIPS: usize = 200;
/// Frames for each row of the table of rates.
const FRAMES: u64 = 300_000;
/// Bytes of a small frame.
const FRAME_BYTES: usize = 100;

/// What the measuring node's handler keeps.
#[derive(Default)]
struct Score {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    peer: Option<NodeId>,
    left: usize,
    sent_at: Option<Instant>,
    round_trips: Vec<Duration>,
    /// When the first frame came.
    first: Option<Instant>,
}

impl Score {
    fn wait<T>(&self, done: impl Fn(&mut State) -> Option<T>) -> T {
        let mut state = self.state.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return value;
            }
            assert!(!self.more.wait_for(&mut state, DEADLINE).timed_out(), "nothing happens");
        }
    }

    /// The handler of the node that measures: every echo sends the next frame.
    fn handler(self: &Arc<Self>) -> Handler {
        let score = Arc::clone(self);
        Arc::new(move |net: &Net, event| {
            let mut state = score.state.lock();
            match event {
                NetEvent::Up { peer, .. } => state.peer = Some(peer),
                NetEvent::Frame { peer, lane, bytes } => {
                    let now = Instant::now();
                    state.first.get_or_insert(now);
                    if let Some(sent_at) = state.sent_at.replace(now) {
                        state.round_trips.push(now - sent_at);
                    }
                    state.left = state.left.saturating_sub(1);
                    if state.left > 0 {
                        send(net, peer, lane, bytes);
                        return;
                    }
                }
                _ => return,
            }
            score.more.notify_all();
        })
    }
}

fn send(net: &Net, peer: NodeId, lane: Lane, bytes: Bytes) {
    assert_eq!(net.send(peer, lane, bytes), Sent::Queued);
}

/// The handler of the other node: it echoes everything but pushes of exactly [`FRAME_BYTES`], which
/// only measure a rate.
fn echo() -> Handler {
    Arc::new(move |net: &Net, event| {
        if let NetEvent::Frame { peer, lane, bytes } = event
            && (lane != Lane::Push || bytes.len() != FRAME_BYTES)
        {
            send(net, peer, lane, bytes);
        }
    })
}

fn bind(secret: &Secret, seed: u8, emulation: Option<Emulation>, handler: Handler) -> Net {
    let config = NetConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: NodeIdentity::from_seed([seed; 32]).unwrap(),
        secret: secret.clone(),
        cluster: "bench".into(),
        name: format!("node-{seed}"),
        version: 1,
        hello: Vec::new(),
        emulation,
        limits: Limits::default(),
    };
    futures_lite::future::block_on(async_std::task::spawn(Net::bind(config, handler))).unwrap()
}

fn close(net: Net) {
    futures_lite::future::block_on(async_std::task::spawn(async move { net.close().await }));
}

/// A node that measures, linked to one that echoes at `address`.
struct Bench {
    net: Net,
    score: Arc<Score>,
    peer: NodeId,
}

impl Bench {
    fn new(secret: &Secret, emulation: Option<Emulation>, address: std::net::SocketAddr) -> Self {
        let score = Arc::new(Score::default());
        let net = bind(secret, 1, emulation, score.handler());
        net.dial(address);
        let peer = score.wait(|state| state.peer);
        Self { net, score, peer }
    }

    fn round_trips(&self, count: usize, bytes: usize) -> Vec<Duration> {
        *self.score.state.lock() = State {
            peer: Some(self.peer),
            left: count,
            sent_at: Some(Instant::now()),
            round_trips: Vec::with_capacity(count),
            first: None,
        };
        send(&self.net, self.peer, Lane::Push, Bytes::from(vec![0; bytes]));
        let mut round_trips =
            self.score.wait(|state| (state.left == 0).then(|| state.round_trips.clone()));
        round_trips.sort();
        round_trips
    }

    /// Sends small frames as fast as the queue takes them, then one that is echoed.
    fn frames_per_second(&self, frames: u64) -> f64 {
        let frame = Bytes::from(vec![0; FRAME_BYTES]);
        self.score.state.lock().left = 1;
        let start = Instant::now();
        for _ in 0..frames {
            while self.net.send(self.peer, Lane::Push, frame.clone()) != Sent::Queued {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        while self.net.send(self.peer, Lane::Push, Bytes::from_static(b"end")) != Sent::Queued {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.score.wait(|state| (state.left == 0).then_some(()));
        frames as f64 / start.elapsed().as_secs_f64()
    }

    /// Sends one large exchange there and back; the rate of one direction.
    fn bulk_bytes_per_second(&self, bytes: usize) -> f64 {
        self.score.state.lock().left = 1;
        let start = Instant::now();
        let lane = Lane::Exchange { id: 1, last: true };
        send(&self.net, self.peer, lane, Bytes::from(vec![0; bytes]));
        self.score.wait(|state| (state.left == 0).then_some(()));
        2.0 * bytes as f64 / start.elapsed().as_secs_f64()
    }
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

fn print_link(name: &str, bench: &Bench) {
    bench.round_trips(ROUND_TRIPS / 10, FRAME_BYTES + 1);
    let round_trips = bench.round_trips(ROUND_TRIPS, FRAME_BYTES + 1);
    let rate = bench.frames_per_second(FRAMES);
    let bulk = bench.bulk_bytes_per_second(32 << 20);
    println!(
        "{name:<14} round trip p50 {:>8.1?} p99 {:>8.1?}   {:>5.2} M frames/s of {FRAME_BYTES} B   {:>4.0} MB/s",
        at(&round_trips, 0.5),
        at(&round_trips, 0.99),
        rate / 1e6,
        bulk / 1e6
    );
}

/// Runs this program again as the other node, in a process of its own.
fn between_processes(secret: &Secret) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("--echo")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{}", secret.to_text()).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let bench = Bench::new(secret, None, line.trim().parse().unwrap());
    print_link("two processes", &bench);
    close(bench.net);
    // The end of its input ends the child.
    drop(stdin);
    child.wait().unwrap();
}

fn echo_until_told() {
    let mut lines = std::io::stdin().lines();
    let secret: Secret = lines.next().unwrap().unwrap().parse().unwrap();
    let net = bind(&secret, 2, None, echo());
    println!("{}", net.local_address());
    assert!(lines.next().is_none(), "only the secret comes");
    close(net);
}

/// A pair with the same network around both.
fn emulated(secret: &Secret, link: &str) -> (Bench, Net, [Emulation; 2]) {
    let text = format!("description = 'bench'\n[default]\n{link}");
    let profile = Profile::parse("bench.toml", &text).unwrap();
    let emulations = [0, 1].map(|me| Emulation::new(profile.clone(), me, 7));
    let other = bind(secret, 2, Some(emulations[1].clone()), echo());
    emulations[0].place(other.local_address(), 1);
    let bench = Bench::new(secret, Some(emulations[0].clone()), other.local_address());
    emulations[1].place(bench.net.local_address(), 0);
    (bench, other, emulations)
}

fn emulation(secret: &Secret) {
    println!("\nemulated latency: round trip wanted and measured, {EMULATED_ROUND_TRIPS} each");
    for wanted in [1u32, 2, 5, 10, 20, 40] {
        let one_way = f64::from(wanted) / 2.0;
        let (bench, other, _) = emulated(secret, &format!("latency = '{one_way}ms'"));
        let round_trips = bench.round_trips(EMULATED_ROUND_TRIPS, FRAME_BYTES + 1);
        println!(
            "{wanted:>4} ms   p50 {:>9.2?}   p99 {:>9.2?}",
            at(&round_trips, 0.5),
            at(&round_trips, 0.99)
        );
        close(bench.net);
        close(other);
    }
    println!("\nemulated loss: wanted and measured, in UDP packets");
    for wanted in [1u32, 5, 20] {
        let (bench, other, emulations) = emulated(secret, &format!("loss = '{wanted}%'"));
        bench.round_trips(2000, FRAME_BYTES + 1);
        let count = emulations.iter().map(Emulation::count);
        let (offered, lost) =
            count.fold((0, 0), |(offered, lost), it| (offered + it.offered, lost + it.lost));
        let share = lost as f64 / offered as f64 * 100.0;
        println!("{wanted:>4} %    {share:>5.2} %   of {offered} packets");
        close(bench.net);
        close(other);
    }
}

fn bandwidth(secret: &Secret) {
    println!("\nemulated bandwidth: wanted and measured, one second there and one back");
    for wanted in [10u32, 100] {
        let link = format!("latency = '1ms'\nbandwidth = '{wanted} Mbit/s'");
        let (bench, other, _) = emulated(secret, &link);
        let rate = bench.bulk_bytes_per_second(wanted as usize * 125_000) * 8.0 / 1e6;
        println!("{wanted:>4} Mbit/s   {rate:>6.1} Mbit/s");
        close(bench.net);
        close(other);
    }
}

/// How long after a cut the first frame is through, with nothing to say and with much.
fn healing(secret: &Secret) {
    println!("\na cut of 3 s: from its end until the next frame is echoed");
    for (name, frames_per_second) in [("idle", 5u32), ("loaded", 2000)] {
        let cut = Duration::from_secs(3);
        let partition =
            "latency = '250us'\n[[partition]]\nfrom = '*'\nto = '*'\nstart = '10s'\nfor = '3s'";
        let (bench, other, emulations) = emulated(secret, partition);
        let mut times = Vec::new();
        for _ in 0..5 {
            bench.round_trips(100, FRAME_BYTES + 1);
            let begin = Instant::now();
            let start = begin.checked_sub(Duration::from_secs(10)).unwrap();
            emulations.iter().for_each(|emulation| emulation.begin(start));
            *bench.score.state.lock() = State { peer: Some(bench.peer), ..State::default() };
            while begin.elapsed() < cut {
                send(&bench.net, bench.peer, Lane::Push, Bytes::from(vec![0; FRAME_BYTES + 1]));
                std::thread::sleep(Duration::from_secs(1) / frames_per_second);
            }
            let back = bench.score.wait(|state| state.first);
            times.push(back.saturating_duration_since(begin + cut));
            std::thread::sleep(Duration::from_secs(1));
        }
        times.sort();
        println!("{name:<8} p50 {:>9.2?}   max {:>9.2?}", at(&times, 0.5), at(&times, 1.0));
        close(bench.net);
        close(other);
    }
}

/// What a silent link costs: four peers, nothing to say.
fn idle(secret: &Secret) {
    let nodes: Vec<Net> =
        (1..=5).map(|seed| bind(secret, seed, None, Arc::new(|_, _| {}))).collect();
    for node in &nodes {
        for other in &nodes {
            node.dial(other.local_address());
        }
    }
    while nodes.iter().any(|node| node.peers().len() < 4) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The path's MTU is probed in the first moments.
    std::thread::sleep(Duration::from_secs(2));
    let before: Vec<_> = nodes.iter().map(Net::stats).collect();
    let seconds = 10;
    std::thread::sleep(Duration::from_secs(seconds));
    let bytes: u64 = nodes
        .iter()
        .zip(before)
        .map(|(node, before)| {
            let sent = node.stats().sent;
            sent.bytes - before.sent.bytes + 28 * (sent.datagrams - before.sent.datagrams)
        })
        .sum();
    let each = bytes as f64 / seconds as f64 / nodes.len() as f64;
    println!("\nidle, 5 nodes: {each:.0} bytes/s sent by each node, IP and UDP headers included");
    nodes.into_iter().for_each(close);
}

fn main() {
    // One executor thread in each process, as the program itself sets it.
    let config = async_global_executor::GlobalExecutorConfig::default()
        .with_min_threads(1)
        .with_max_threads(1);
    async_global_executor::init_with_config(config);
    if std::env::args().any(|argument| argument == "--echo") {
        return echo_until_told();
    }
    let secret = Secret::generate().unwrap();
    if std::env::args().any(|argument| argument == "healing") {
        return healing(&secret);
    }
    println!("a link on loopback, {ROUND_TRIPS} round trips, {FRAMES} frames");
    let other = bind(&secret, 2, None, echo());
    let bench = Bench::new(&secret, None, other.local_address());
    print_link("one process", &bench);
    close(bench.net);
    close(other);
    between_processes(&secret);
    emulation(&secret);
    bandwidth(&secret);
    healing(&secret);
    idle(&secret);
}
