//! Strong mode by real processes: whatever goes wrong, what clients are told is linearizable.
//!
//! Clients at all nodes work on the same keys while faults come and go. Then the faults end, within
//! [`GOES_ON_WITHIN`] every client is told of writes again, and the whole history is judged (see
//! [`strong_clients`](crate::strong_clients)). Each scenario is a list of steps for a cluster of any
//! size; `failover` measures instead how long nobody is told of a write when the primary is lost.
//!
//! That clients and judge work is shown without strong mode: a single server passes, and eventual
//! mode, whose peers hear of a write later, does not.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use quorumor::protocol::time::Time;
use quorumor::sim::linearizable::Budget;

use crate::clients::Shared;
use crate::common::{Client, NodeProcess, Reply, eventually, installed, skip};
use crate::nemesis::{self, Fault, Nemesis, Step};
use crate::site::Site;
use crate::strong_clients::{self, Load, Watch};
use crate::{nodes_of, sealed};

/// How long after the last fault every client must have been told of a write.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);

/// How long a fault is held, and how long nothing happens after it.
const HOLD: Duration = Duration::from_millis(1_500);
const REST: Duration = Duration::from_millis(500);

/// The disk of each node.
const DISK_BYTES: usize = 192 << 20;

/// How long a scenario takes, at most.
const TAKES: Duration = Duration::from_secs(300);

/// Rounds of flip-flop.
const ROUNDS: usize = 100;

/// Failovers that are measured of each sort.
const FAILOVERS: usize = 20;

/// How a cluster agrees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Strong,
    Eventual,
}

/// What clients do while there are faults.
pub(crate) fn load(clients: usize) -> Load {
    Load {
        clients,
        plain: 4,
        counters: 1,
        guarded: 1,
        ballast_bytes: 0,
        pace: Duration::from_millis(2),
        seed: fastrand::u64(..1 << 32),
    }
}

// --- clients and judge themselves ----------------------------------------------------------------

/// A single server of another make, which ends with the test.
struct RedisServer(Child);

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.0.kill().expect("a child of ours");
        self.0.wait().expect("a child of ours");
    }
}

/// What a single server does is linearizable, whatever it is asked.
#[test]
fn a_single_server_passes() {
    if !installed("redis-server") {
        return skip("a_single_server_passes", "there is no redis-server");
    }
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let port = free.port().to_string();
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no"]);
    let child =
        command.stdout(Stdio::null()).stdin(Stdio::null()).spawn().expect("it is installed");
    let _server = RedisServer(child);
    eventually("redis-server to answer", || {
        let reply = Client::try_connect(free).ok()?.try_ask(&["PING"]).ok()?;
        (reply == Reply::Simple("PONG".into())).then_some(())
    });
    let load = Load { pace: Duration::from_micros(200), ..load(12) };
    let (told, ()) = strong_clients::watch(&[free], &load, |_| {
        thread::sleep(Duration::from_secs(2));
    });
    assert_eq!(told.must_be_linearizable("a_single_server_passes"), 0);
    let summary = told.history.summary();
    assert!(summary.writes_acknowledged > 500 && summary.reads > 500, "{summary}");
    assert_eq!(told.errors.len(), 0, "{:?}", told.errors);
}

/// Eventual mode over links that take their time is caught: peers show what has been replaced.
#[test]
fn eventual_mode_is_caught() {
    let first = NodeProcess::start_with("node-0", &[], &["--profile", "wan"]);
    let second = NodeProcess::start_with("node-1", &[first.listen], &["--profile", "wan"]);
    assert_eq!(first.ask(&["SET", "hello", "yes"]), Reply::Simple("OK".into()));
    eventually("the peers to be linked", || {
        (second.ask(&["GET", "hello"]) == Reply::Bulk("yes".into())).then_some(())
    });
    let load = Load { counters: 0, guarded: 0, ..load(6) };
    let (told, ()) = strong_clients::watch(&[first.resp, second.resp], &load, |_| {
        thread::sleep(Duration::from_secs(1));
    });
    let verdict = told.history.check(Budget::default());
    let stale = told.history.stale_reads();
    println!("{}\n{} reads were stale; {verdict}", told.history.summary(), stale.len());
    assert!(verdict.is_violated() && !stale.is_empty(), "{verdict}");
}

/// Eventual mode under the same faults as the scenarios is caught, too: two sides that do not hear of
/// each other both take writes, and a client that goes from a killed node to another looks back.
#[test]
fn eventual_mode_is_caught_in_a_scenario() {
    let test = "strong::eventual_mode_is_caught_in_a_scenario";
    let body = || {
        let site = Site::sealed(3, DISK_BYTES);
        let mut nodes = cluster(&site, Mode::Eventual);
        let shared = Shared::new(3, 0, true);
        let load = Load { counters: 0, guarded: 0, ..load(6) };
        let steps = vec![
            step(cut(3, |from, to| from != 0 && to != 0)),
            step(Fault::Kill(vec![1])),
            step(Fault::Stop(vec![2])),
        ];
        let (told, goes_on) = strong_clients::watch(&nodes_of(&site), &load, |watch| {
            torment(steps, &site, &mut nodes, &shared, watch)
        });
        let verdict = told.history.check(Budget::default());
        println!("{}, {:?}\n{verdict}", told.history.summary(), told.errors);
        assert!(goes_on && verdict.is_violated(), "{goes_on}, {verdict}");
    };
    sealed::run(test, TAKES, body, || {});
}

// --- scenarios -----------------------------------------------------------------------------------

/// Starts a cluster, in strong mode with all its nodes as voters or in eventual mode, and waits until
/// it takes writes.
fn cluster(site: &Site, mode: Mode) -> Vec<NodeProcess> {
    let launch = |index| {
        let mut launch = site.launch(index, "always");
        let voters = site.size().to_string();
        if mode == Mode::Eventual {
            return NodeProcess::launch(launch);
        }
        launch
            .arguments
            .extend(["--consistency", "strong", "--voters", &voters].map(str::to_owned));
        NodeProcess::launch(launch)
    };
    let nodes: Vec<NodeProcess> = (0..site.size()).map(launch).collect();
    for node in &nodes {
        eventually("a node to take writes", || {
            (node.ask(&["SET", "hello", "yes"]) == Reply::Simple("OK".into())).then_some(())
        });
    }
    nodes
}

/// Carries steps out in a sealed room, in strong mode, and judges.
fn withstands(test: &'static str, size: usize, steps: impl FnOnce(&Site) -> Vec<Step>) {
    withstands_under(test, size, load(3 * size), steps);
}

/// The same, with other clients.
fn withstands_under(
    test: &'static str,
    size: usize,
    load: Load,
    steps: impl FnOnce(&Site) -> Vec<Step>,
) {
    let body = || {
        let site = Site::sealed(size, DISK_BYTES);
        let mut nodes = cluster(&site, Mode::Strong);
        let shared = Shared::new(size, 0, true);
        println!("{test}: {size} nodes, {load:?}");
        let (told, goes_on) = strong_clients::watch(&nodes_of(&site), &load, |watch| {
            torment(steps(&site), &site, &mut nodes, &shared, watch)
        });
        told.must_be_linearizable(test);
        assert!(goes_on, "some client was told of no write within {GOES_ON_WITHIN:?}");
        // All of them at once, and what was acknowledged is still there.
        nemesis::restart_all(&mut nodes, &shared);
        agree(&nodes);
    };
    sealed::run(test, TAKES, body, || {});
}

/// Carries steps out, and answers whether all clients were told of writes afterwards.
fn torment(
    steps: Vec<Step>,
    site: &Site,
    nodes: &mut [NodeProcess],
    shared: &Shared,
    watch: &Watch,
) -> bool {
    for step in steps {
        println!("{}: {step}", watch.now());
        carry_out(&step, site, nodes, shared);
    }
    watch.goes_on_within(GOES_ON_WITHIN)
}

fn carry_out(step: &Step, site: &Site, nodes: &mut [NodeProcess], shared: &Shared) {
    step.faults.iter().for_each(|fault| nemesis::begin(fault, site, nodes, shared));
    thread::sleep(step.hold);
    step.faults.iter().for_each(|fault| nemesis::end(fault, site, nodes, shared));
    thread::sleep(step.rest);
}

/// Every node answers the same for every plain key, once it answers.
fn agree(nodes: &[NodeProcess]) {
    for key in 0..load(0).plain {
        let key = format!("plain{key}");
        let shown = |node: &NodeProcess| {
            eventually("a read to be answered", || match node.client().try_ask(&["GET", &key]) {
                Ok(Reply::Error(_)) | Err(_) => None,
                Ok(reply) => Some(reply),
            })
        };
        let all: Vec<Reply> = nodes.iter().map(shown).collect();
        assert!(all.iter().all(|reply| *reply == all[0]), "{key}: {all:?}");
    }
}

fn step(fault: Fault) -> Step {
    Step { faults: vec![fault], hold: HOLD, rest: REST }
}

/// All links but those for which `is_whole` says so, from one to the other.
fn cut(size: usize, is_whole: impl Fn(usize, usize) -> bool) -> Fault {
    let all = (0..size).flat_map(|from| (0..size).map(move |to| (from, to)));
    Fault::Cut(all.filter(|(from, to)| from != to && !is_whole(*from, *to)).collect())
}

/// So many nodes, beginning with one and in a ring.
fn ring(first: usize, count: usize, size: usize) -> Vec<usize> {
    (first..first + count).map(|node| node % size).collect()
}

/// One node after the other is killed, with what it had not made durable, and comes back.
fn flip_flop(size: usize) -> Vec<Step> {
    let short = |node| Step { hold: HOLD / 10, rest: REST / 2, ..step(Fault::Kill(vec![node])) };
    (0..ROUNDS).map(|round| short(round % size)).collect()
}

/// As many as may be away at once, and then more, killed and frozen, beginning with each in turn.
fn losses(size: usize) -> Vec<Step> {
    let minority = (size - 1) / 2;
    let away = |first, count| {
        let which = ring(first, count, size);
        [step(Fault::Kill(which.clone())), step(Fault::Stop(which))]
    };
    (0..size)
        .flat_map(|first| [away(first, minority), away(first, minority + 1), away(first, size)])
        .flatten()
        .collect()
}

/// Every shape of cut links, with each node in the part that hurts the most.
fn cuts(size: usize) -> Vec<Step> {
    let shapes = (0..size).flat_map(|one| {
        let half = ring(one, size / 2, size);
        let is_in = move |node| half.contains(&node);
        [
            // Nobody hears it; it hears nobody; both.
            cut(size, move |from, _| from != one),
            cut(size, move |_, to| to != one),
            cut(size, move |from, to| from != one && to != one),
            // Two sides, apart and with one node that both see.
            cut(size, {
                let is_in = is_in.clone();
                move |from, to| is_in(from) == is_in(to)
            }),
            cut(size, move |from, to| from == one || to == one || is_in(from) == is_in(to)),
            // Only one node sees any other: all but it have lost a majority.
            cut(size, move |from, to| from == one || to == one),
            // A chain.
            cut(size, move |from, to| from.abs_diff(to) == 1),
        ]
    });
    shapes.map(step).collect()
}

/// The clock on the wall goes forward and back; nothing in the log may go by it.
fn clocks(site: &Site) -> Vec<Step> {
    let Some(owner) = site.clock_owner() else {
        skip("strong::clock", "there is no libfaketime");
        return Vec::new();
    };
    ["-10y", "+3y", "-5", "+1h"].map(|offset| step(Fault::Clock(owner, offset))).to_vec()
}

/// Each disk is full once, for long enough that what was set aside for the journal is used up.
fn full_disks(size: usize) -> Vec<Step> {
    let long = |node| Step { hold: 4 * HOLD, ..step(Fault::Fill(node)) };
    (0..size).map(long).collect()
}

/// Anything, drawn from a seed that is printed.
fn anything(site: &Site) -> Vec<Step> {
    let seed = std::env::var("QUORUMOR_TEST_SEED").ok();
    let seed =
        seed.map_or_else(|| fastrand::u64(..1 << 32), |text| text.parse().expect("a number"));
    println!("QUORUMOR_TEST_SEED={seed}");
    let mut nemesis = Nemesis::new(seed, site, None);
    (0..40).map(|_| nemesis.step()).collect()
}

/// 2f+1 nodes survive f that come and go in turn, a hundred times, for f = 1 and f = 2.
#[test]
fn flip_flop_of_3() {
    withstands("strong::flip_flop_of_3", 3, |site| flip_flop(site.size()));
}

/// See [`flip_flop_of_3`].
#[test]
fn flip_flop_of_5() {
    withstands("strong::flip_flop_of_5", 5, |site| flip_flop(site.size()));
}

/// A minority, a majority and all, killed and frozen.
#[test]
fn minority_and_majority() {
    withstands("strong::minority_and_majority", 5, |site| losses(site.size()));
}

/// Links that fail one way, partly, and into all the shapes that are known to be hard.
#[test]
fn cut_links() {
    withstands("strong::cut_links", 5, |site| cuts(site.size()));
}

/// Clocks that are set.
#[test]
fn clock() {
    withstands("strong::clock", 3, clocks);
}

/// Disks that are full for a while.
#[test]
fn full_disk() {
    let load = Load { ballast_bytes: 48 << 10, ..load(9) };
    withstands_under("strong::full_disk", 3, load, |site| full_disks(site.size()));
}

/// All of these at random, two at a time.
#[test]
fn everything() {
    withstands("strong::everything", 5, anything);
}

/// A voter whose disk fails a sync stands aside for good, and the others go on.
#[test]
fn failed_sync() {
    let test = "strong::failed_sync";
    let body = || {
        let site = Site::sealed(3, DISK_BYTES);
        if !sealed::is_root() || !site.put_in_failing_disk(0) {
            return skip(test, "no loop device with ext4 can be mounted here");
        }
        let nodes = cluster(&site, Mode::Strong);
        let (told, goes_on) = strong_clients::watch(&nodes_of(&site)[1..], &load(6), |watch| {
            let mut client = nodes[0].client();
            let value = ".".repeat(48 * 1024);
            eventually("the disk to fail", || {
                let reply = client.try_ask(&["SET", "load", &value]);
                (!matches!(reply, Ok(Reply::Simple(_)))).then_some(())
            });
            watch.goes_on_within(GOES_ON_WITHIN)
        });
        told.must_be_linearizable(test);
        assert!(goes_on, "the others are told of no write within {GOES_ON_WITHIN:?}");
    };
    sealed::run(test, TAKES, body, || {});
}

// --- how long nobody is told of a write ------------------------------------------------------------

/// The node that orders the log now, by the word of a majority.
fn primary(nodes: &[NodeProcess]) -> usize {
    eventually("a majority to name a primary", || {
        let all: Vec<_> = nodes.iter().map(NodeProcess::status).collect();
        (0..nodes.len()).find(|candidate| {
            let id = &all[*candidate]["node"];
            let votes = all.iter().filter(|status| status["strong"]["primary"] == *id).count();
            !id.is_null() && 2 * votes > nodes.len()
        })
    })
}

/// Loses the primary so many times; from before each loss until all clients were told of writes again.
fn lose_primaries(
    site: &Site,
    fault: impl Fn(usize) -> Fault,
    watch: &Watch,
    nodes: &mut [NodeProcess],
) -> Vec<(Time, Time)> {
    let shared = Shared::new(nodes.len(), 0, true);
    let lose = |_| {
        let from = watch.now();
        let lost = primary(nodes);
        carry_out(&step(fault(lost)), site, nodes, &shared);
        assert!(watch.goes_on_within(GOES_ON_WITHIN), "a client waits for ever");
        (from, watch.now())
    };
    (0..FAILOVERS).map(lose).collect()
}

/// The longest gap in acknowledged writes when the primary is killed, frozen or cut off under load.
#[test]
#[ignore = "measures, and judges only the history"]
fn failover() {
    let test = "strong::failover";
    let body = || {
        let size = 3;
        let site = Site::sealed(size, DISK_BYTES);
        let mut nodes = cluster(&site, Mode::Strong);
        let sorts: [(&str, &dyn Fn(usize) -> Fault); 3] = [
            ("killed", &|node| Fault::Kill(vec![node])),
            ("frozen", &|node| Fault::Stop(vec![node])),
            ("cut off", &|node| cut(size, move |from, to| from != node && to != node)),
        ];
        for (sort, fault) in sorts {
            let load = Load { counters: 0, guarded: 0, ..load(24) };
            let doors: Vec<SocketAddr> = nodes_of(&site);
            // The history begins with nothing.
            eventually("a node to forget all", || {
                (nodes.first()?.ask(&["FLUSHALL"]) == Reply::Simple("OK".into())).then_some(())
            });
            let (told, spans) = strong_clients::watch(&doors, &load, |watch| {
                lose_primaries(&site, fault, watch, &mut nodes)
            });
            let of = |(from, to)| told.history.longest_gap_within(from, to).length();
            let mut gaps: Vec<Duration> = spans.into_iter().map(of).collect();
            gaps.sort_unstable();
            println!(
                "primary {sort}, {FAILOVERS} times: longest gap p50 {:?}, max {:?}",
                gaps[gaps.len() / 2],
                gaps[gaps.len() - 1],
            );
            told.must_be_linearizable(test);
        }
    };
    let takes = TAKES + FAILOVERS as u32 * 3 * (HOLD + REST);
    sealed::run(test, takes, body, || {});
}
