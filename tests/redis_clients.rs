//! Redis clients as people have them, against doors of two linked peers.
//!
//! What is not installed is said and skipped: `redis-cli` and `redis-benchmark` are looked for on the
//! path, and `QUORUMOR_TEST_REDIS_PY` names a Python that has redis-py.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use async_std::task;
use quorumor::api::resp::door::Door;
use quorumor::api::resp::settings::{Password, Settings};
use quorumor::net::NodeIdentity;
use quorumor::server::{Node, NodeConfig};

/// How long a story waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Two linked peers, each with a door.
struct Pair {
    nodes: [Node; 2],
    doors: [Door; 2],
}

impl Pair {
    fn new(settings: &Settings) -> Self {
        let first = node(Vec::new());
        let second = node(vec![first.address()]);
        let nodes = [first, second];
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let doors = [0, 1].map(|at: usize| {
            Door::open(nodes[at].clone(), loopback, settings.clone()).expect("loopback has ports")
        });
        let deadline = Instant::now() + PATIENCE;
        while nodes.iter().any(|node| node.status().peers.is_empty()) {
            assert!(Instant::now() < deadline, "the peers did not find each other");
            std::thread::yield_now();
        }
        Self { nodes, doors }
    }

    fn port(&self, at: usize) -> String {
        self.doors[at].address().port().to_string()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.nodes.iter().for_each(|node| task::block_on(node.close()));
    }
}

fn node(peers: Vec<SocketAddr>) -> Node {
    let mut config = NodeConfig::new("test", NodeIdentity::fresh().expect("keys can be made"));
    config.peers = peers;
    task::block_on(Node::start(config)).expect("loopback has ports")
}

/// What a program says, or nothing if it is not installed.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped, {program} does not run here: {error}");
            None
        }
    }
}

/// What a program prints; it must succeed.
fn printed(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

/// Story: redis-cli writes at one peer and reads at the other, in either version of the protocol.
#[test]
fn redis_cli_works() {
    let pair = Pair::new(&Settings::default());
    let cli = |at: usize, words: &[&str]| {
        let port = pair.port(at);
        let output = run("redis-cli", &[&["-p", port.as_str()], words].concat())?;
        Some(printed(&output))
    };
    let Some(pong) = cli(0, &["PING"]) else { return };
    assert_eq!(pong, "PONG\n");
    let says = |at: usize, words: &[&str], expected: &str| {
        assert_eq!(cli(at, words).as_deref(), Some(expected), "{words:?}");
    };
    says(0, &["SET", "k", "v"], "OK\n");
    says(0, &["MSET", "a", "1", "b", "2"], "OK\n");
    let deadline = Instant::now() + PATIENCE;
    while pair.nodes[1].get("b").is_none() {
        assert!(Instant::now() < deadline, "the write did not arrive");
        std::thread::yield_now();
    }
    says(1, &["MGET", "k", "a", "b", "none"], "v\n1\n2\n\n");
    says(1, &["-3", "GET", "k"], "v\n");
    says(1, &["--scan", "--pattern", "[ab]"], "a\nb\n");
    says(1, &["DEL", "a", "b"], "2\n");
    says(0, &["CONFIG", "GET", "save"], "save\n\n");
    let info = cli(0, &["INFO", "replication"]).unwrap_or_default();
    assert!(info.contains("connected_slaves:1"), "{info}");
    let refused = cli(0, &["SETNX", "k", "w"]).unwrap_or_default();
    assert!(refused.starts_with("NEEDSSTRONG"), "{refused}");
}

/// Story: redis-cli gives a password, and is refused without it.
#[test]
fn redis_cli_gives_a_password() {
    let settings =
        Settings { password: Some(Password::new(b"open sesame")), ..Settings::default() };
    let pair = Pair::new(&settings);
    let port = pair.port(0);
    let Some(output) = run("redis-cli", &["-p", &port, "GET", "k"]) else { return };
    assert!(printed(&output).contains("NOAUTH Authentication required."));
    for words in [
        &["-p", &port, "--no-auth-warning", "-a", "open sesame", "SET", "k", "v"][..],
        &[
            "-p",
            &port,
            "-3",
            "--no-auth-warning",
            "--user",
            "default",
            "--pass",
            "open sesame",
            "SET",
            "k",
            "v",
        ],
    ] {
        let output = run("redis-cli", words);
        assert_eq!(output.as_ref().map(printed).as_deref(), Some("OK\n"), "{words:?}");
    }
}

/// Story: redis-benchmark runs its usual tests without an error.
#[test]
fn redis_benchmark_works() {
    let pair = Pair::new(&Settings::default());
    for pipeline in ["1", "16"] {
        let port = pair.port(0);
        let arguments = [
            "-p",
            &port,
            "-t",
            "ping,set,get,mset",
            "-n",
            "3000",
            "-c",
            "20",
            "-P",
            pipeline,
            "-q",
        ];
        let Some(output) = run("redis-benchmark", &arguments) else { return };
        let text = printed(&output);
        for test in ["PING_INLINE", "PING_MBULK", "SET", "GET", "MSET (10 keys)"] {
            assert!(text.contains(&format!("{test}: ")), "{test} is missing in {text}");
        }
        assert!(!text.contains("rror"), "{text}");
    }
}

/// What redis-py does with a peer; each line must hold.
const PYTHON: &str = r#"
import sys, redis
here, there = int(sys.argv[1]), int(sys.argv[2])
for protocol in (None, 2, 3):
    chosen = {} if protocol is None else {"protocol": protocol}
    r = redis.Redis(port=here, decode_responses=True, **chosen)
    s = redis.Redis(port=there, decode_responses=True, **chosen)
    assert r.ping()
    assert r.delete("a", "b", "raw") >= 0
    assert r.set("a", "1") and r.get("a") == "1" and r.get("none") is None
    assert r.mset({"a": "2", "b": "3"}) and r.mget("a", "b", "none") == ["2", "3", None]
    assert r.wait(1, 20000) == 1 and s.get("a") == "2"
    assert r.exists("a", "b", "none") == 2 and r.dbsize() == 2
    assert sorted(r.scan_iter(match="?")) == ["a", "b"] and r.keys("a") == ["a"]
    assert r.info("keyspace")["db0"]["keys"] == 2 and r.info()["role"] == "master"
    assert r.config_get("save") == {"save": ""} and r.config_get("databases") == {"databases": "1"}
    assert r.client_setname("me") and r.client_getname() == "me" and r.client_id() > 0
    assert "redis-py" in r.client_info()["lib-name"]
    assert r.command_count() == len(r.command()) and r.command_getkeys("MSET", "a", 1) == ["a"]
    p = r.pipeline(transaction=False)
    assert p.set("a", 4).get("a").delete("a").get("a").execute() == [True, "4", 1, None]
    raw = redis.Redis(port=here, **chosen)
    value = bytes(range(256)) * 1000
    assert raw.set("raw", value) and raw.get("raw") == value and raw.strlen("raw") == len(value)
    for refused in (
        lambda: r.set("a", 1, nx=True),
        lambda: r.incr("a"),
        lambda: r.pipeline().set("a", 1).execute(),
    ):
        try:
            refused()
        except redis.ResponseError as error:
            assert "NEEDSSTRONG" in str(error), error
        else:
            raise AssertionError("not refused")
    assert r.get("a") is None
    r.close(), s.close(), raw.close()
print("fine with redis-py", redis.__version__)
"#;

/// Story: redis-py works in its default version of the protocol and in both others.
#[test]
fn redis_py_works() {
    let Ok(python) = std::env::var("QUORUMOR_TEST_REDIS_PY") else {
        eprintln!("skipped: QUORUMOR_TEST_REDIS_PY names no Python with redis-py");
        return;
    };
    let pair = Pair::new(&Settings::default());
    let Some(output) = run(&python, &["-c", PYTHON, &pair.port(0), &pair.port(1)]) else { return };
    let text = printed(&output);
    assert!(text.starts_with("fine with redis-py "), "{text}");
}
