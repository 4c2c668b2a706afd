//! Peers that find each other on a LAN, as real processes on real (virtual) network cards.
//!
//! Each test builds a small world of network namespaces: one is the switch with its bridges, each
//! other one a machine with its cables. Nothing of it touches the network of whoever runs the tests,
//! names are unique, and everything is taken down when the test ends, however it ends. It takes root
//! and `ip` (package iproute2); without them the tests say so and are skipped.

mod common;

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{eventually, finish, quorumor, skip, succeed};
use serde_json::Value;

/// Numbers the worlds of this process.
static WORLDS: AtomicU32 = AtomicU32::new(0);

/// Fake answers in the flood.
const FLOOD: u32 = 100_000;

/// A switch and machines.
struct World {
    prefix: String,
    folder: tempfile::TempDir,
    namespaces: Vec<String>,
    nodes: Vec<(String, Child)>,
}

/// Where a machine is plugged in, and with which address.
type Plug<'a> = (&'a str, &'a str);

impl World {
    /// A world with these bridges, or nothing if there cannot be one here.
    fn new(test: &str, bridges: &[&str]) -> Option<Self> {
        let installed = Command::new("ip").arg("-V").output().is_ok_and(|it| it.status.success());
        if !installed {
            skip(test, "there is no `ip`");
            return None;
        }
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("quorumor-{}-{number}", std::process::id());
        let mut world = Self {
            prefix,
            folder: tempfile::tempdir().expect("a temporary folder"),
            namespaces: Vec::new(),
            nodes: Vec::new(),
        };
        let made = finish(Command::new("ip").args(["netns", "add", &world.namespace("switch")]));
        if !made.status.success() {
            skip(test, &format!("no network namespace can be made: {}", made.stderr.trim()));
            return None;
        }
        world.namespaces.push(world.namespace("switch"));
        let switch = world.namespace("switch");
        for bridge in bridges {
            let add = format!("link add {bridge} type bridge");
            let tried = finish(Command::new("ip").args(["-n", &switch]).args(add.split(' ')));
            if !tried.status.success() {
                skip(test, &format!("no bridge can be made: {}", tried.stderr.trim()));
                return None;
            }
            // Nobody should wait for a port to be forwarded.
            ip(&switch, &format!("link set {bridge} type bridge forward_delay 0"));
            ip(&switch, &format!("link set {bridge} up"));
        }
        Some(world)
    }

    fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.prefix)
    }

    /// A machine with a network card for each plug.
    fn machine(&mut self, name: &str, plugs: &[Plug<'_>]) {
        let (own, switch) = (self.namespace(name), self.namespace("switch"));
        succeed(Command::new("ip").args(["netns", "add", &own]));
        self.namespaces.push(own.clone());
        ip(&own, "link set lo up");
        for (card, (bridge, address)) in plugs.iter().enumerate() {
            let port = format!("{name}-{card}");
            ip(&own, &format!("link add eth{card} type veth peer name {port} netns {switch}"));
            ip(&switch, &format!("link set {port} master {bridge}"));
            ip(&switch, &format!("link set {port} up"));
            ip(&own, &format!("addr add {address} dev eth{card}"));
            ip(&own, &format!("link set eth{card} up"));
        }
    }

    /// A command on a machine.
    fn on(&self, machine: &str, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(machine)]).arg(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUORUMOR_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).current_dir(self.folder.path());
        command
    }

    fn quorumor(&self, machine: &str) -> Command {
        self.on(machine, Path::new(env!("CARGO_BIN_EXE_quorumor")))
    }

    fn secret(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        if !path.exists() {
            succeed(quorumor().arg("keygen").arg(&path));
        }
        path.display().to_string()
    }

    /// Starts a node with the one command of the README, and waits until it is ready.
    fn start(&mut self, machine: &str, secret: &str, more: &[&str]) {
        let secret = self.secret(secret);
        let ready = self.folder.path().join(format!("{machine}.ready"));
        let output = fs::File::create(self.output(machine)).expect("a file of ours");
        let mut command = self.quorumor(machine);
        command.args(["node", "--secret-file", &secret, "--name", machine]).args(more);
        command.arg("--ready-file").arg(&ready);
        command.stdout(output.try_clone().expect("an open file")).stderr(output);
        // Where its data goes.
        let own = self.folder.path().join(machine);
        fs::create_dir_all(&own).expect("a folder of ours");
        let child = command.current_dir(own).spawn().expect("ip is installed");
        self.nodes.push((machine.to_owned(), child));
        eventually(&format!("{machine} to be ready"), || ready.exists().then_some(()));
    }

    fn output(&self, machine: &str) -> PathBuf {
        self.folder.path().join(format!("{machine}.output"))
    }

    fn process(&self, machine: &str) -> u32 {
        let found = self.nodes.iter().find(|(name, _)| name == machine);
        found.map(|(_, child)| child.id()).expect("a node that was started")
    }

    fn status(&self, machine: &str) -> Value {
        let text = succeed(self.quorumor(machine).args(["status", "--json"]));
        serde_json::from_str(&text).expect("JSON")
    }

    /// The names of the peers that a machine's node is linked with, in order.
    fn peers(&self, machine: &str) -> Vec<String> {
        let status = self.status(machine);
        let peers = status["peers"].as_array().expect("a list");
        let mut names: Vec<_> =
            peers.iter().map(|peer| peer["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    /// Waits until these machines are linked with each other and with nobody else.
    fn meet(&self, machines: &[&str]) {
        for machine in machines {
            let mut others: Vec<_> = machines.iter().filter(|it| *it != machine).collect();
            others.sort();
            eventually(&format!("{machine} to be linked with {others:?}"), || {
                self.peers(machine).iter().eq(others.iter().copied()).then_some(())
            });
        }
    }

    /// Plugs a machine's first cable out, or in again, at the switch.
    fn plug(&self, machine: &str, bridge: Option<&str>) {
        let to = bridge.map_or("nomaster".to_owned(), |bridge| format!("master {bridge}"));
        ip(&self.namespace("switch"), &format!("link set {machine}-0 {to}"));
    }

    /// Sets a key at a machine's node, with what every machine has to speak TCP.
    fn set(&self, machine: &str, key: &str) {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/7401; printf 'SET {key} x\\r\\n' >&3; read -r line <&3; \
             echo \"$line\""
        );
        let said = succeed(self.on(machine, Path::new("bash")).args(["-c", &script]));
        assert!(said.starts_with("+OK"), "{said}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (name, child) in &mut self.nodes {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
            if thread::panicking() {
                let said = fs::read_to_string(self.folder.path().join(format!("{name}.output")));
                eprintln!("--- what {name} printed:\n{}", said.unwrap_or_default());
            }
        }
        for namespace in &self.namespaces {
            // The cables go with their machines.
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

fn ip(namespace: &str, command: &str) {
    succeed(Command::new("ip").args(["-n", namespace]).args(command.split(' ')));
}

/// The same command on every machine of a LAN, and no address typed: all are linked with all. One
/// that is started later, and one that was cut off meanwhile, belong to it as well.
#[test]
fn peers_find_each_other_without_an_address() {
    let test = "peers_find_each_other_without_an_address";
    let Some(mut world) = World::new(test, &["lan"]) else { return };
    let names = ["ada", "bob", "cyd", "dan"];
    for (number, name) in names.iter().enumerate() {
        world.machine(name, &[("lan", &format!("10.77.0.{}/24", number + 1))]);
    }
    let began = Instant::now();
    for name in &names[..3] {
        world.start(name, "secret", &[]);
    }
    world.meet(&names[..3]);
    println!("three were linked after {:?}", began.elapsed());
    for name in &names[..3] {
        assert_eq!(world.status(name)["discovery"]["state"], "on");
        let said = fs::read_to_string(world.output(name)).expect("a file of ours");
        assert!(said.contains("looks for more on the LAN"), "{said}");
    }

    world.plug("cyd", None);
    eventually("cyd to be alone", || world.peers("cyd").is_empty().then_some(()));
    // While the cable is out, somebody comes whom cyd has never heard of.
    world.start("dan", "secret", &[]);
    world.meet(&["ada", "bob", "dan"]);
    world.plug("cyd", Some("lan"));
    let healed = Instant::now();
    world.meet(&names);
    println!("all were linked {:?} after the cable was in again", healed.elapsed());
    for name in &names {
        assert_eq!(world.status(name)["refused"], 0, "{name}");
    }
}

/// A machine with two network cards joins two LANs whose machines cannot reach each other.
#[test]
fn a_machine_with_two_cards_is_found_on_both() {
    let Some(mut world) =
        World::new("a_machine_with_two_cards_is_found_on_both", &["left", "right"])
    else {
        return;
    };
    world.machine("ada", &[("left", "10.77.1.1/24")]);
    world.machine("mid", &[("left", "10.77.1.2/24"), ("right", "10.77.2.2/24")]);
    world.machine("bob", &[("right", "10.77.2.1/24")]);
    for name in ["ada", "mid", "bob"] {
        world.start(name, "secret", &[]);
    }
    for (name, peers) in [("ada", &["mid"][..]), ("bob", &["mid"]), ("mid", &["ada", "bob"])] {
        eventually(&format!("{name} to be linked with {peers:?}"), || {
            (world.peers(name) == peers).then_some(())
        });
    }
    world.set("ada", "greeting");
    eventually("a write to reach the other LAN", || {
        (world.status("bob")["keys"] == 1).then_some(())
    });
}

/// IPv6 is enough, with addresses that mean something on this link only.
#[test]
fn peers_find_each_other_over_ipv6_alone() {
    let Some(mut world) = World::new("peers_find_each_other_over_ipv6_alone", &["lan"]) else {
        return;
    };
    for (number, name) in ["ada", "bob"].iter().enumerate() {
        world.machine(name, &[("lan", &format!("fe80::{}/64", number + 1))]);
        world.start(name, "secret", &["--listen", "[::]:7400"]);
    }
    world.meet(&["ada", "bob"]);
}

/// Clusters with other secrets, or the same secret and another name, share a LAN: nobody knocks at
/// the door of another cluster, let alone gets in.
#[test]
fn clusters_of_one_lan_do_not_meet() {
    let Some(mut world) = World::new("clusters_of_one_lan_do_not_meet", &["lan"]) else { return };
    let clusters: [(&str, &[&str], [&str; 2]); 3] = [
        ("one", &[], ["ada", "bob"]),
        ("other", &[], ["cyd", "dan"]),
        ("one", &["--cluster", "second"], ["eve", "fay"]),
    ];
    let names: Vec<_> = clusters.iter().flat_map(|(_, _, names)| names).copied().collect();
    for (number, name) in names.iter().enumerate() {
        world.machine(name, &[("lan", &format!("10.77.0.{}/24", number + 1))]);
    }
    // All the first machines, then all the second: each is there when strangers arrive.
    for member in 0..2 {
        for (secret, more, names) in &clusters {
            world.start(names[member], secret, more);
        }
    }
    for (_, _, names) in &clusters {
        world.meet(names);
    }
    for name in &names {
        eventually(&format!("{name} to have heard its peer and strangers"), || {
            let discovery = &world.status(name)["discovery"];
            let heard = |what: &str| discovery[what].as_u64().expect("a number");
            // Four strangers have said so once at least.
            (heard("found") >= 1 && heard("strangers") >= 4).then_some(())
        });
    }
    for (_, _, pair) in &clusters {
        for name in pair {
            let status = world.status(name);
            assert_eq!(status["refused"], 0, "{name}: {status:#}");
            assert_eq!(status["discovery"]["found"], 1, "{name}: {status:#}");
            let candidates = status["discovery"]["candidates"].as_u64().expect("a number");
            assert!(candidates <= 1, "{name}: {status:#}");
            assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "{name}");
        }
    }
}

/// What `/proc` says about a process: resident bytes, time on the processor in ticks, and the UDP
/// packets that its network namespace has sent.
fn usage(process: u32) -> (u64, u64, u64) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).expect("it runs");
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let pages: u64 = words(&read("statm"))[1].parse().expect("a number");
    let stat = read("stat");
    let after_name = words(stat.rsplit_once(')').expect("a name").1);
    let ticks = [11, 12].map(|at: usize| after_name[at].parse::<u64>().expect("a number"));
    let snmp = read("net/snmp");
    let mut udp = snmp.lines().filter(|line| line.starts_with("Udp: "));
    let (names, numbers) = (words(udp.next().expect("a head")), words(udp.next().expect("a row")));
    let at = names.iter().position(|name| name == "OutDatagrams").expect("a column");
    (pages * 4096, ticks.iter().sum(), numbers[at].parse().expect("a number"))
}

/// A hundred thousand fake nodes, with the cluster's own tag, are shouted on the LAN: the node stays
/// small, idle and quiet, and members still find each other afterwards.
#[test]
fn a_flood_of_fake_nodes_does_no_harm() {
    let test = "a_flood_of_fake_nodes_does_no_harm";
    let Some(mut world) = World::new(test, &["lan"]) else { return };
    world.machine("ada", &[("lan", "10.77.0.1/24")]);
    world.machine("bob", &[("lan", "10.77.0.2/24")]);
    world.machine("liar", &[("lan", "10.77.0.66/24")]);
    ip(&world.namespace("liar"), "route add 224.0.0.0/4 dev eth0");
    // The fakes are somewhere: what is sent to them leaves the machine.
    ip(&world.namespace("ada"), "route add default via 10.77.0.66");
    world.start("ada", "secret", &[]);
    let process = world.process("ada");
    let (bytes, ticks, packets) = usage(process);
    let began = Instant::now();
    let own = std::env::current_exe().expect("this test");
    let mut liar = world.on("liar", &own);
    liar.args(["--exact", "the_liar", "--ignored", "--nocapture"]);
    let said = succeed(&mut liar);
    assert!(said.contains("shouted"), "{said}");
    let status = world.status("ada");
    let seconds = began.elapsed().as_secs_f64();
    let (bytes_after, ticks_after, packets_after) = usage(process);
    let grown = bytes_after.saturating_sub(bytes) >> 10;
    let (ticks, packets) = (ticks_after - ticks, packets_after - packets);
    println!("{seconds:.1} s of flood: {grown} KiB, {ticks} ticks, {packets} packets sent");
    let found = status["discovery"]["found"].as_u64().expect("a number");
    let candidates = status["discovery"]["candidates"].as_u64().expect("a number");
    assert!(found > 0, "the flood was not even heard: {status:#}");
    assert!(found <= 256 && candidates <= 16, "{status:#}");
    assert!(grown < 16 << 10, "{grown} KiB");
    // A tick is a hundredth of a second: a tenth of a processor, unoptimized. Were everything read,
    // it would be a fifth and more.
    assert!((ticks as f64) < 20.0 + seconds * 10.0, "{ticks} ticks in {seconds} s");
    // Sixteen addresses, a dial per second each, of three packets each at most, and some questions.
    assert!((packets as f64) < 200.0 + seconds * 16.0 * 3.0, "{packets} packets in {seconds} s");

    world.start("bob", "secret", &[]);
    world.meet(&["ada", "bob"]);
}

/// The doctor finds nothing wrong with a machine that works, next to its node or without, and names
/// the fix for one whose cable is out, whose packets are short, or whose firewall is closed.
#[test]
fn the_doctor_names_what_is_wrong() {
    let Some(mut world) = World::new("the_doctor_names_what_is_wrong", &["lan"]) else { return };
    world.machine("ada", &[("lan", "10.77.0.1/24")]);
    let ada = world.namespace("ada");
    let secret = world.secret("secret");
    let examine = |world: &World| {
        let mut doctor = world.quorumor("ada");
        let finished = finish(doctor.args(["doctor", "--json", "--secret-file", &secret]));
        let report: Value = serde_json::from_str(&finished.stdout).expect("JSON");
        (finished.status.code(), report)
    };
    // The health and the fix of each finding of a check.
    let of = |report: &Value, check: &str| -> Vec<(String, String, String)> {
        let findings = report["findings"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        findings
            .filter(|finding| finding["check"] == check)
            .map(|it| (text(&it["health"]), text(&it["what"]), text(&it["fix"])))
            .collect()
    };
    let (code, report) = examine(&world);
    assert_eq!(code, Some(0), "{report:#}");
    for check in ["secret", "peer port", "redis port", "http port", "network", "multicast", "udp"] {
        let findings = of(&report, check);
        assert!(!findings.is_empty(), "{check}: {report:#}");
        assert!(findings.iter().all(|(health, ..)| health == "ok"), "{check}: {report:#}");
    }

    world.start("ada", "secret", &[]);
    let (code, report) = examine(&world);
    assert_eq!(code, Some(0), "{report:#}");
    let (_, what, _) = &of(&report, "peer port")[0];
    let process = world.process("ada").to_string();
    assert!(what.contains("a node has it") && what.contains(&process), "{what}");

    ip(&ada, "link set eth0 mtu 1000");
    let (code, report) = examine(&world);
    assert_eq!((code, &report["verdict"]), (Some(1), &Value::from("fail")), "{report:#}");
    assert!(of(&report, "network")[0].2.contains("mtu 1280"), "{report:#}");
    ip(&ada, "link set eth0 mtu 1500");

    if Command::new("nft").arg("--version").output().is_ok_and(|it| it.status.success()) {
        let rules = "add table inet filter; add chain inet filter input { type filter hook input \
                     priority 0; policy drop; }; add rule inet filter input iif lo accept";
        succeed(world.on("ada", Path::new("nft")).arg(rules));
        let (code, report) = examine(&world);
        let findings = of(&report, "firewall");
        assert_eq!((code, findings.len()), (Some(0), 2), "{report:#}");
        for ((health, what, fix), port) in findings.iter().zip(["7400", "5353"]) {
            assert_eq!(health, "warn", "{report:#}");
            assert!(what.contains(port) && fix.contains(port), "{report:#}");
        }
        succeed(world.on("ada", Path::new("nft")).args(["flush", "ruleset"]));
    } else {
        skip("the_doctor_names_what_is_wrong", "the part with a firewall: there is no `nft`");
    }

    ip(&ada, "link set eth0 down");
    let (code, report) = examine(&world);
    assert_eq!(code, Some(1), "{report:#}");
    assert!(of(&report, "network")[0].2.contains("link set"), "{report:#}");
    // The node has noticed it as well, and says where to look.
    eventually("the node to say that it cannot look for peers", || {
        (world.status("ada")["discovery"]["state"] == "failing").then_some(())
    });
    let said = fs::read_to_string(world.output("ada")).expect("a file of ours");
    assert!(said.contains("quorumor doctor"), "{said}");
    ip(&ada, "link set eth0 up");
    eventually("the node to look for peers again", || {
        (world.status("ada")["discovery"]["state"] == "on").then_some(())
    });
}

/// No test: the liar of the flood, which the test above runs on another machine.
#[test]
#[ignore = "run by a_flood_of_fake_nodes_does_no_harm"]
fn the_liar() {
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let own = Ipv4Addr::new(10, 77, 0, 66);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5353)).expect("nobody else listens here");
    socket.join_multicast_v4(&group, &own).expect("there is a card");
    socket.set_read_timeout(Some(common::PATIENCE)).expect("a timeout above zero");
    // Any node's own words are the pattern: its packet, with another id in every place.
    socket.send_to(&question(), (group, 5353)).expect("a route to the group");
    let mut buffer = [0; 1500];
    let pattern = loop {
        let (length, _) = socket.recv_from(&mut buffer).expect("the node answers");
        let packet = &buffer[..length];
        if packet.windows(5).any(|five| five == b"node=") {
            break packet.to_vec();
        }
    };
    let at = pattern.windows(5).position(|five| five == b"node=").expect("just found") + 5;
    let id = pattern[at..at + 32].to_vec();
    let places: Vec<_> =
        (0..pattern.len() - 31).filter(|from| pattern[*from..from + 32] == id).collect();
    assert!(places.len() >= 3, "the id is in {} places", places.len());
    for number in 0..FLOOD {
        let mut fake = pattern.clone();
        for place in &places {
            fake[*place..place + 32].copy_from_slice(format!("{:032x}", number + 1).as_bytes());
        }
        // The address is the end of the packet.
        let end = fake.len() - 4;
        fake[end..].copy_from_slice(&(0x0a80_0000 + number).to_be_bytes());
        if socket.send_to(&fake, (group, 5353)).is_err() {
            // The queue is full: even a liar has to wait.
            thread::sleep(Duration::from_millis(1));
        }
    }
    println!("shouted {FLOOD} lies");
}

fn question() -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["_quorumor", "_udp", "local"] {
        packet.push(u8::try_from(label.len()).expect("short"));
        packet.extend(label.as_bytes());
    }
    packet.extend([0, 0, 12, 0, 1]);
    packet
}
