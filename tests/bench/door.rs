//! Three nodes against Redis with two replicas, by redis-benchmark, turn by turn in one run.
//!
//! `cargo bench --bench door -- [name=value ...]` prints for each case the ratio of requests per second,
//! ours to Redis', as median and range over the runs, and with `paced=yes` the p99 of both when half of
//! Redis' requests come at an even pace. Needs redis-server and redis-benchmark; all listens on free
//! ports of the loopback interface and writes below the system's folder for temporary files. For people;
//! nothing passes or fails by it.
//!
//! Names: `runs` (5), `requests` per run (200000 for each 16 in a pipeline, 100000 without), `clients`
//! (50), `pipelines` (1,16), `durability` (none,interval,always), `tests` (set,get), `keys` (100000),
//! `paced` (no), `binary` (the one that was built), `redis` (yes).
//!
//! Equal durability: with `always` the node that answers has synced, on both sides; the copies sync every
//! second, on both sides. Both serve one client program on the same cores.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

/// How long a cluster may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a paced run lasts.
const PACED: Duration = Duration::from_secs(5);

/// The value that the paced run sets.
const VALUE_BYTES: usize = 100;

fn main() {
    // `cargo bench` passes `--bench`.
    let given: HashMap<String, String> = std::env::args()
        .skip(1)
        .filter_map(|it| {
            it.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let get = |name: &str, usual: &str| given.get(name).cloned().unwrap_or(usual.to_owned());
    let list = |name: &str, usual: &str| {
        get(name, usual).split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let number = |name: &str, usual: &str| get(name, usual).parse::<u64>().unwrap();
    let built = option_env!("CARGO_BIN_EXE_quorumor").unwrap_or("target/release/quorumor");
    let binary = PathBuf::from(get("binary", built));
    let folder = std::env::temp_dir().join(format!("quorumor-bench-{}", std::process::id()));
    let with_redis = get("redis", "yes") == "yes";
    for durability in list("durability", "none,interval,always") {
        for pipeline in list("pipelines", "1,16") {
            let usual = if pipeline == "1" { "100000" } else { "800000" };
            let load = Load {
                requests: number("requests", usual),
                clients: number("clients", "50"),
                keys: number("keys", "100000"),
                pipeline: pipeline.parse().unwrap(),
                tests: get("tests", "set,get"),
            };
            let mut ours = BTreeMap::<String, Vec<(f64, f64)>>::new();
            let mut theirs = BTreeMap::<String, Vec<(f64, f64)>>::new();
            let mut paced = (Vec::new(), Vec::new());
            for run in 0..number("runs", "5") {
                // Each begins every other time.
                for ours_now in if run % 2 == 0 { [true, false] } else { [false, true] } {
                    if !ours_now && !with_redis {
                        continue;
                    }
                    let cluster = if ours_now {
                        Cluster::quorumor(&binary, &folder, &durability)
                    } else {
                        Cluster::redis(&folder, &durability)
                    };
                    let figures = if ours_now { &mut ours } else { &mut theirs };
                    for (test, figure) in load.run(cluster.port) {
                        figures.entry(test).or_default().push(figure);
                    }
                    if get("paced", "no") == "yes" {
                        let rate = number("rate", "20000") as u32;
                        let figure = pace(cluster.port, rate, load.clients as usize);
                        if ours_now { paced.0.push(figure) } else { paced.1.push(figure) }
                    }
                    drop(cluster);
                    let _ = std::fs::remove_dir_all(&folder);
                }
            }
            for (test, ours) in &ours {
                let name = format!("{durability:<8} P={pipeline:<2} {test:<6}");
                let rates: Vec<f64> = ours.iter().map(|it| it.0).collect();
                let Some(theirs) = theirs.get(test) else {
                    println!("{name} {}", spread(&rates, 0));
                    continue;
                };
                let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a.0 / b.0).collect();
                let redis: Vec<f64> = theirs.iter().map(|it| it.0).collect();
                let (p99, redis_p99): (Vec<f64>, Vec<f64>) =
                    ours.iter().zip(theirs).map(|(a, b)| (a.1, b.1)).unzip();
                println!(
                    "{name} ratio {}   ours {} Redis {} per s   p99 {} Redis {} ms",
                    spread(&ratios, 2),
                    spread(&rates, 0),
                    spread(&redis, 0),
                    spread(&p99, 2),
                    spread(&redis_p99, 2),
                );
            }
            if !paced.0.is_empty() {
                println!(
                    "{durability:<8} paced SET    p99 {} Redis {} ms",
                    spread(&paced.0, 2),
                    spread(&paced.1, 2)
                );
            }
        }
    }
}

/// Median, least and most.
fn spread(figures: &[f64], digits: usize) -> String {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.first(), sorted.last()) {
        (Some(least), Some(most)) => {
            let median = sorted[sorted.len() / 2];
            format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
        }
        _ => "-".to_owned(),
    }
}

/// What redis-benchmark is told.
struct Load {
    requests: u64,
    clients: u64,
    keys: u64,
    pipeline: u64,
    tests: String,
}

impl Load {
    /// Requests per second, and the p99 in milliseconds, of each test.
    fn run(&self, port: u16) -> Vec<(String, (f64, f64))> {
        let output = Command::new("redis-benchmark")
            .args(["-p", &port.to_string(), "-t", &self.tests, "--csv", "-d", "100"])
            .args(["-c", &self.clients.to_string(), "-P", &self.pipeline.to_string()])
            .args(["-n", &self.requests.to_string(), "-r", &self.keys.to_string()])
            .stderr(Stdio::null())
            .output()
            .expect("redis-benchmark is installed");
        let text = String::from_utf8(output.stdout).unwrap();
        let row = |line: &str| {
            let fields: Vec<_> = line.split(',').map(|it| it.trim_matches('"')).collect();
            let figure = |at: usize| fields.get(at)?.parse::<f64>().ok();
            Some((fields[0].to_owned(), (figure(1)?, figure(6)?)))
        };
        text.lines().skip(1).filter_map(row).collect()
    }
}

/// Three servers, until dropped.
struct Cluster {
    servers: Vec<Child>,
    port: u16,
}

impl Cluster {
    fn quorumor(binary: &Path, folder: &Path, durability: &str) -> Self {
        let mut servers = Vec::new();
        let mut seed: Option<String> = None;
        let mut ports = Vec::new();
        for number in 0..3 {
            let [listen, resp, http] = free_ports();
            let mut command = Command::new(binary);
            command.args(["node", "--durability", durability]);
            for (flag, port) in [("--listen", listen), ("--resp", resp), ("--http", http)] {
                command.args([flag, &format!("127.0.0.1:{port}")]);
            }
            if durability != "none" {
                command.arg("--data").arg(folder.join(format!("node{number}")));
            }
            if let Some(seed) = &seed {
                command.args(["--peer", seed]);
            }
            seed.get_or_insert(format!("127.0.0.1:{listen}"));
            servers.push(start(command));
            ports.push(resp);
        }
        let cluster = Self { servers, port: ports[0] };
        for port in ports {
            eventually(|| ask(port, "WAIT 0 0") == Some(":2".to_owned()));
        }
        cluster
    }

    fn redis(folder: &Path, durability: &str) -> Self {
        let [first, second, third] = free_ports();
        let mut servers = Vec::new();
        for (port, primary) in [(first, None), (second, Some(first)), (third, Some(first))] {
            let directory = folder.join(format!("redis{port}"));
            std::fs::create_dir_all(&directory).unwrap();
            let mut command = Command::new("redis-server");
            command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
            command.arg("--dir").arg(&directory);
            command.args(["--repl-diskless-sync-delay", "0"]);
            if durability != "none" {
                let always = durability == "always" && primary.is_none();
                let sync = if always { "always" } else { "everysec" };
                command.args(["--appendonly", "yes", "--appendfsync", sync]);
            }
            if let Some(primary) = primary {
                command.args(["--replicaof", &format!("127.0.0.1 {primary}")]);
            }
            servers.push(start(command));
            eventually(|| ask(port, "PING") == Some("+PONG".to_owned()));
        }
        let cluster = Self { servers, port: first };
        eventually(|| ask(first, "SET ready 1\r\nWAIT 2 1000") == Some(":2".to_owned()));
        cluster
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn start(mut command: Command) -> Child {
    let program = command.get_program().to_owned();
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // Held together, so that they differ.
    let listeners = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn eventually(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "the servers are not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The last line of the answer to a few commands.
fn ask(port: u16, lines: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(format!("{lines}\r\nQUIT\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().rev().nth(1).map(str::to_owned)
}

/// The p99 in milliseconds of SETs that come `rate` times a second, whatever the answers; counted from
/// when each was to be sent. A millisecond's requests are sent together.
fn pace(port: u16, rate: u32, clients: usize) -> f64 {
    let value = "v".repeat(VALUE_BYTES);
    let mut poll = Poll::new().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut streams: Vec<_> = (0..clients)
        .map(|number| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(number), Interest::READABLE).unwrap();
            (stream, VecDeque::new())
        })
        .collect();
    let (mut events, mut buffer) = (Events::with_capacity(256), vec![0; 64 * 1024]);
    let (mut sent, mut took) = (0_u32, Vec::new());
    let began = Instant::now();
    while began.elapsed() < PACED {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while sent < due {
            let at = began + Duration::from_secs_f64(f64::from(sent) / f64::from(rate));
            let (stream, waiting) = &mut streams[sent as usize % clients];
            let key = format!("key:{:012}", sent.wrapping_mul(2_654_435_761) % 100_000);
            let request =
                format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n${VALUE_BYTES}\r\n{value}\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            waiting.push_back(at);
            sent += 1;
        }
        poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            let (stream, waiting) = &mut streams[event.token().0];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => panic!("a server closed the connection"),
                    Ok(count) => {
                        let replies = buffer[..count].iter().filter(|it| **it == b'\n').count();
                        took.extend(waiting.drain(..replies).map(|at: Instant| at.elapsed()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    let unanswered = streams.iter().flat_map(|(_, waiting)| waiting);
    took.extend(unanswered.map(Instant::elapsed));
    took.sort();
    took[took.len() * 99 / 100].as_secs_f64() * 1_000.0
}
