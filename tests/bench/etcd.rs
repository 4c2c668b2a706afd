//! Strong mode against etcd: three voters with disks each, turn by turn in one run.
//!
//! `cargo bench --bench etcd -- [name=value ...]` prints for each case what both acknowledge per second,
//! with the median and the 99th percentile of the time of a request, as medians over the runs (least to
//! most), and the ratios. Clients are spread evenly over the three members; one client talks to one.
//! Values have 100 bytes. Names: `runs` (3), `clients` (1,64,256), `kinds` (put,get), `seconds` (about how
//! long each measurement takes, 3).
//!
//! Ours are loaded by redis-benchmark, etcd by h2load (package nghttp2-client) with the bytes of its
//! gRPC requests: of the programs at hand the ones that take the least of the processors that they share
//! with the servers. etcd has its own default settings, and both make durable before they answer. For
//! people; nothing passes or fails by it. Folders are made in `TMPDIR`: name one on the disk that is
//! meant.

#![allow(clippy::print_stdout, reason = "a bench prints what it measures")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on stops")]

#[path = "../common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Launch, NodeProcess, Reply, eventually, quorumor, succeed};

const VALUE_BYTES: usize = 100;
const KEYS: usize = 100_000;
const MEMBERS: usize = 3;

fn main() {
    let given: HashMap<String, String> = std::env::args()
        .filter_map(|it| {
            it.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    let text = |name: &str, usual: &str| given.get(name).map_or(usual.to_owned(), Clone::clone);
    let runs: usize = text("runs", "3").parse().expect("a number");
    let seconds: f64 = text("seconds", "3").parse().expect("a number");
    let place = tempfile::tempdir().expect("a folder for temporary files");
    let (ours, theirs) = (Ours::start(place.path()), Etcd::start(place.path()));
    for kind in text("kinds", "put,get").split(',') {
        let is_put = kind == "put";
        for clients in text("clients", "1,64,256").split(',') {
            let clients: usize = clients.parse().expect("a number");
            // A first look at how fast each is, which also warms it up, says how much to ask.
            let first = 500 * clients.min(10);
            let enough = |rate: f64| (rate * seconds) as usize;
            let (their_count, our_count) = (
                enough(theirs.load(is_put, clients, first).rate),
                enough(ours.load(is_put, clients, first).rate),
            );
            let (mut etcd, mut quorumor) = (Vec::new(), Vec::new());
            for run in 0..runs {
                // Each begins every other time.
                for ours_now in if run % 2 == 0 { [true, false] } else { [false, true] } {
                    match ours_now {
                        true => quorumor.push(ours.load(is_put, clients, our_count)),
                        false => etcd.push(theirs.load(is_put, clients, their_count)),
                    }
                }
            }
            let median = |figures: &[Figure], of: fn(&Figure) -> f64| {
                let mut values: Vec<f64> = figures.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                (values[values.len() / 2], values[0], values[values.len() - 1])
            };
            for (name, figures) in [("ours", &quorumor), ("etcd", &etcd)] {
                let (rate, least, most) = median(figures, |it| it.rate);
                let (p50, p99) = (median(figures, |it| it.p50).0, median(figures, |it| it.p99).0);
                println!(
                    "{kind} {clients:4} {name} {rate:8.0} per s ({least:.0} to {most:.0})  p50 {p50:6.2} ms  p99 {p99:6.2} ms"
                );
            }
            let ratio = |of: fn(&Figure) -> f64| median(&quorumor, of).0 / median(&etcd, of).0;
            println!(
                "{kind} {clients:4} ratio: per s {:.2}, p50 {:.2}, p99 {:.2}",
                ratio(|it| it.rate),
                ratio(|it| it.p50),
                ratio(|it| it.p99)
            );
        }
    }
}

/// What a load showed; times in milliseconds.
struct Figure {
    rate: f64,
    p50: f64,
    p99: f64,
}

/// How many clients each member gets; those without any are left out.
fn shares(clients: usize) -> Vec<usize> {
    let each = (0..MEMBERS).map(|at| clients / MEMBERS + usize::from(at < clients % MEMBERS));
    each.filter(|share| *share > 0).collect()
}

/// Three nodes in strong mode.
struct Ours(Vec<NodeProcess>);

impl Ours {
    fn start(folder: &Path) -> Self {
        succeed(quorumor().arg("keygen").arg(folder.join("secret")));
        let secret = folder.join("secret").display().to_string();
        let mut nodes: Vec<NodeProcess> = Vec::new();
        for number in 0..MEMBERS {
            let mut arguments: Vec<String> =
                ["--data", "data", "--secret-file", &secret, "--discovery", "off"]
                    .map(str::to_owned)
                    .into();
            arguments.extend(["--consistency", "strong", "--voters", "3"].map(str::to_owned));
            for door in ["--listen", "--resp", "--http"] {
                arguments.extend([door, "127.0.0.1:0"].map(str::to_owned));
            }
            arguments.extend(nodes.iter().map(|peer| format!("--peer={}", peer.listen)));
            let name = format!("node{number}");
            nodes.push(NodeProcess::launch(Launch { name, arguments, ..Launch::default() }));
        }
        for node in &nodes {
            eventually("strong mode to begin", || {
                (node.ask(&["SET", "k", "v"]) == Reply::Simple("OK".into())).then_some(())
            });
        }
        Self(nodes)
    }

    fn load(&self, is_put: bool, clients: usize, requests: usize) -> Figure {
        let shares = shares(clients);
        let running: Vec<Child> = shares
            .iter()
            .zip(&self.0)
            .map(|(share, node)| {
                Command::new("redis-benchmark")
                    .args(["-p", &node.resp.port().to_string(), "-c", &share.to_string()])
                    .args(["-n", &(requests * share / clients).max(1).to_string(), "--csv"])
                    .args(["-d", &VALUE_BYTES.to_string(), "-r", &KEYS.to_string()])
                    .args(["-t", if is_put { "set" } else { "get" }])
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("redis-benchmark is installed")
            })
            .collect();
        let mut sum = Figure { rate: 0.0, p50: 0.0, p99: 0.0 };
        for child in running {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let row = text.lines().last().expect("a row of figures").replace('"', "");
            let column: Vec<f64> = row.split(',').skip(1).map(|it| it.parse().unwrap()).collect();
            sum.rate += column[0];
            // Of three the slowest counts: that is not better than the truth.
            sum.p50 = sum.p50.max(column[3]);
            sum.p99 = sum.p99.max(column[5]);
        }
        sum
    }
}

/// Three members of etcd.
struct Etcd {
    members: Vec<Child>,
    ports: Vec<u16>,
    folder: PathBuf,
}

impl Etcd {
    fn start(folder: &Path) -> Self {
        let free = || {
            let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
            listener.unwrap().local_addr().unwrap().port()
        };
        let ports: Vec<u16> = (0..MEMBERS).map(|_| free()).collect();
        let peers: Vec<u16> = (0..MEMBERS).map(|_| free()).collect();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let all: Vec<String> =
            peers.iter().enumerate().map(|(at, port)| format!("m{at}={}", url(*port))).collect();
        let start = |at: usize| {
            Command::new("etcd")
                .args(["--name", &format!("m{at}"), "--log-level", "error", "--logger", "zap"])
                .arg("--data-dir")
                .arg(folder.join(format!("etcd{at}")))
                .args(["--listen-client-urls", &url(ports[at])])
                .args(["--advertise-client-urls", &url(ports[at])])
                .args(["--listen-peer-urls", &url(peers[at])])
                .args(["--initial-advertise-peer-urls", &url(peers[at])])
                .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("etcd is installed")
        };
        let members = (0..MEMBERS).map(start).collect();
        fs::write(folder.join("put"), request(&[&[b'k'; 16], &[b'v'; VALUE_BYTES]])).unwrap();
        fs::write(folder.join("get"), request(&[&[b'k'; 16]])).unwrap();
        let etcd = Self { members, ports, folder: folder.to_owned() };
        eventually("etcd to take writes", || {
            std::thread::sleep(Duration::from_millis(100));
            (etcd.load(true, MEMBERS, 30).rate > 0.0).then_some(())
        });
        etcd
    }

    fn load(&self, is_put: bool, clients: usize, requests: usize) -> Figure {
        let shares = shares(clients);
        let (file, method) = if is_put { ("put", "Put") } else { ("get", "Range") };
        let running: Vec<(Child, PathBuf)> = shares
            .iter()
            .zip(&self.ports)
            .enumerate()
            .map(|(at, (share, port))| {
                let times = self.folder.join(format!("times{at}"));
                // It would be appended to.
                fs::remove_file(&times).ok();
                let child = Command::new("h2load")
                    .args(["-c", &share.to_string(), "-m", "1"])
                    .args(["-n", &(requests * share / clients).max(*share).to_string()])
                    .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
                    .arg("-d")
                    .arg(self.folder.join(file))
                    .arg(format!("--log-file={}", times.display()))
                    .arg(format!("http://127.0.0.1:{port}/etcdserverpb.KV/{method}"))
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("h2load is installed");
                (child, times)
            })
            .collect();
        let (mut rate, mut micros) = (0.0, Vec::<f64>::new());
        for (child, times) in running {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let line = text.lines().find(|line| line.starts_with("finished in"));
            let per_second = line.and_then(|line| line.split_whitespace().nth(3));
            rate += per_second.and_then(|it| it.parse::<f64>().ok()).unwrap_or_default();
            let log = fs::read_to_string(&times).unwrap_or_default();
            // Start, status, duration; what was answered without success counts for nothing.
            let rows = log.lines().map(|line| line.split('\t').collect::<Vec<_>>());
            let done = rows.filter(|row| row.get(1) == Some(&"200"));
            micros.extend(done.filter_map(|row| row.get(2)?.parse::<f64>().ok()));
        }
        micros.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = ((micros.len() as f64 * part) as usize).min(micros.len().saturating_sub(1));
            micros.get(place).copied().unwrap_or_default() / 1e3
        };
        if micros.is_empty() {
            rate = 0.0;
        }
        Figure { rate, p50: at(0.5), p99: at(0.99) }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.kill().ok();
            member.wait().ok();
        }
    }
}

/// A request of gRPC: fields of bytes, numbered from 1, in one message.
fn request(fields: &[&[u8]]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, field) in (1u8..).zip(fields) {
        let length = u8::try_from(field.len()).ok().filter(|length| *length < 128);
        message.extend([number << 3 | 2, length.expect("a length of seven bits")]);
        message.extend_from_slice(field);
    }
    let length = u32::try_from(message.len()).expect("hundreds of bytes").to_be_bytes();
    [&[0][..], &length, &message].concat()
}
