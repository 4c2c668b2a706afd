//! The clients that people have, against the real program: nodes as processes, and redis-cli,
//! redis-benchmark, redis-py, ioredis, node-redis and the `redis` crate at their doors.
//!
//! Nothing is emulated here and nothing is shared with the code under test. What is shown is that a
//! client written for Redis needs no change: its opening words, its protocol version, its way to
//! send many requests at once. A client that is not installed is skipped with a line that says so;
//! `.ci/run` installs all of them. redis-py is found through `QUORUMOR_TEST_REDIS_PY`, which names a
//! Python that has it, and what runs on node through `QUORUMOR_TEST_NODE_CLIENTS`, see [`node`].

mod common;
#[path = "clients/input.rs"]
mod input;
#[path = "clients/node.rs"]
mod node;
#[path = "clients/redis_crate.rs"]
mod redis_crate;

use std::net::SocketAddr;
use std::process::Command;

use common::{Client, NodeProcess, Reply, cluster, eventually, finish, installed, skip, succeed};

/// redis-cli, pointed at a door.
fn redis_cli(door: SocketAddr) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", &door.ip().to_string(), "-p", &door.port().to_string()]);
    command
}

/// A node of its own in strong mode, which is a group of one.
fn strong(name: &str) -> NodeProcess {
    let node = NodeProcess::start_with(name, &[], &["--consistency", "strong", "--voters", "1"]);
    eventually("strong mode to begin", || {
        node.ask(&["SETNX", "begun", "1"]);
        (node.ask(&["GET", "begun"]) == Reply::Bulk("1".into())).then_some(())
    });
    node
}

/// What is written at one peer is read at each other, and what is deleted is gone everywhere.
#[test]
fn a_write_reaches_every_peer() {
    let nodes = cluster(3);
    assert_eq!(nodes[0].ask(&["SET", "greeting", "hello"]), Reply::Simple("OK".into()));
    for node in &nodes {
        eventually("the write to arrive", || {
            (node.ask(&["GET", "greeting"]) == Reply::Bulk("hello".into())).then_some(())
        });
    }
    assert_eq!(nodes[2].ask(&["DEL", "greeting"]), Reply::Integer(1));
    for node in &nodes {
        eventually("the delete to arrive", || {
            (node.ask(&["GET", "greeting"]) == Reply::Nothing).then_some(())
        });
    }
}

/// WAIT answers how many other peers hold this connection's last write.
#[test]
fn wait_counts_the_peers_that_hold_a_write() {
    let nodes = cluster(3);
    let mut client = nodes[1].client();
    assert_eq!(client.ask(&["SET", "k", "v"]), Reply::Simple("OK".into()));
    assert_eq!(client.ask(&["WAIT", "2", "30000"]), Reply::Integer(2));
    assert_eq!(nodes[0].ask(&["GET", "k"]), Reply::Bulk("v".into()));
    assert_eq!(nodes[2].ask(&["GET", "k"]), Reply::Bulk("v".into()));
}

/// In either mode a message that is published within a transaction is heard if the transaction is carried out,
/// and only then.
#[test]
fn a_message_leaves_with_its_transaction() {
    let text = |text: &str| Reply::Bulk(text.into());
    for (mode, node) in [("eventual", cluster(1).remove(0)), ("strong", strong("alone"))] {
        let (mut client, mut hearer) = (node.client(), node.client());
        assert!(matches!(hearer.ask(&["SUBSCRIBE", "news"]), Reply::List(_)));
        let carry_out = |client: &mut Client, message: &str| {
            assert_eq!(client.ask(&["MULTI"]), Reply::Simple("OK".into()));
            for request in
                [&["SET", "k", message][..], &["PUBLISH", "news", message], &["GET", "k"]]
            {
                assert_eq!(client.ask(request), Reply::Simple("QUEUED".into()), "{mode}");
            }
            client.ask(&["EXEC"])
        };
        let done = |message| {
            Reply::List(vec![Reply::Simple("OK".into()), Reply::Integer(1), text(message)])
        };
        assert_eq!(carry_out(&mut client, "first"), done("first"));
        if mode == "strong" {
            assert_eq!(client.ask(&["WATCH", "k"]), Reply::Simple("OK".into()));
            assert_eq!(node.ask(&["SET", "k", "changed"]), Reply::Simple("OK".into()));
            assert_eq!(carry_out(&mut client, "never"), Reply::Nothing);
        }
        assert_eq!(carry_out(&mut client, "second"), done("second"));
        for message in ["first", "second"] {
            let told = Reply::List(vec![text("message"), text("news"), text(message)]);
            assert_eq!(hearer.reply().unwrap(), told, "{mode}");
        }
    }
}

/// A peer killed without warning disturbs nobody; an empty one that comes in its place is filled.
#[test]
fn a_killed_peer_is_replaced() {
    let mut nodes = cluster(3);
    assert_eq!(nodes[1].ask(&["SET", "before", "1"]), Reply::Simple("OK".into()));
    eventually("the write to arrive", || {
        (nodes[0].ask(&["GET", "before"]) == Reply::Bulk("1".into())).then_some(())
    });
    nodes[1].kill();
    assert_eq!(nodes[0].ask(&["SET", "meanwhile", "2"]), Reply::Simple("OK".into()));
    eventually("the survivors to agree", || {
        (nodes[2].ask(&["GET", "meanwhile"]) == Reply::Bulk("2".into())).then_some(())
    });
    let fresh = NodeProcess::start("fresh", &[nodes[2].listen]);
    for (key, value) in [("before", "1"), ("meanwhile", "2")] {
        eventually("the newcomer to be filled", || {
            (fresh.ask(&["GET", key]) == Reply::Bulk(value.into())).then_some(())
        });
    }
}

/// redis-cli writes at one peer and reads at another, in both versions of the protocol.
#[test]
fn redis_cli_works_at_any_peer() {
    if !installed("redis-cli") {
        return skip("redis_cli_works_at_any_peer", "redis-cli is not installed");
    }
    let nodes = cluster(3);
    for (version, key) in [("-2", "two"), ("-3", "three")] {
        let cli = |node: &NodeProcess, words: &[&str]| {
            succeed(redis_cli(node.resp).arg("-e").arg(version).args(words))
        };
        assert_eq!(cli(&nodes[0], &["SET", key, "a value"]), "OK\n");
        eventually("the write to arrive", || {
            (cli(&nodes[2], &["GET", key]) == "a value\n").then_some(())
        });
        assert_eq!(cli(&nodes[2], &["EXISTS", key]), "1\n");
        assert_eq!(cli(&nodes[2], &["--scan", "--pattern", &key[..2]]), "");
        assert_eq!(cli(&nodes[2], &["--scan", "--pattern", key]), format!("{key}\n"));
        assert!(cli(&nodes[1], &["INFO"]).contains("redis_version:"));
        assert!(!cli(&nodes[1], &["COMMAND", "COUNT"]).is_empty());
    }
    let refused = finish(redis_cli(nodes[0].resp).args(["-e", "NOSUCHCOMMAND", "x"]));
    assert!(!refused.status.success());
    assert!(refused.stderr.to_lowercase().contains("unknown command"), "{}", refused.stderr);
}

/// redis-benchmark, which stops at the first error reply, runs to its end against any peer.
#[test]
fn redis_benchmark_runs_to_its_end() {
    if !installed("redis-benchmark") {
        return skip("redis_benchmark_runs_to_its_end", "redis-benchmark is not installed");
    }
    let nodes = cluster(3);
    for (node, pipeline) in nodes.iter().zip(["1", "16", "64"]) {
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &node.resp.ip().to_string(), "-p", &node.resp.port().to_string()]);
        command.args(["-t", "ping,set,get,incr,rpush,sadd,hset,zadd,lrange,mset"]);
        command.args(["-n", "2000", "-c", "20", "-r", "100", "--csv"]);
        let printed = succeed(command.args(["-P", pipeline]));
        let tests =
            ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "RPUSH", "SADD", "HSET", "MSET"];
        for test in tests {
            let row = printed.lines().find(|line| line.starts_with(&format!("\"{test}")));
            assert!(row.is_some(), "no row for {test} in\n{printed}");
        }
    }
    let sizes =
        |nodes: &[NodeProcess]| nodes.iter().map(|n| n.ask(&["DBSIZE"])).collect::<Vec<_>>();
    eventually("the peers to hold the same number of keys", || {
        let sizes = sizes(&nodes);
        (sizes[0] != Reply::Integer(0) && sizes.iter().all(|size| *size == sizes[0])).then_some(())
    });
}

/// In strong mode redis-benchmark runs all its tests but that of streams, at every peer, also with many
/// requests at once.
#[test]
fn redis_benchmark_runs_everything_in_strong_mode() {
    let test = "redis_benchmark_runs_everything_in_strong_mode";
    if !installed("redis-benchmark") {
        return skip(test, "redis-benchmark is not installed");
    }
    let strong = ["--consistency", "strong", "--voters", "3"];
    let first = NodeProcess::start_with("node-0", &[], &strong);
    let others = ["node-1", "node-2"];
    let others = others.map(|name| NodeProcess::start_with(name, &[first.listen], &strong));
    let nodes: Vec<NodeProcess> = [first].into_iter().chain(others).collect();
    for node in &nodes {
        eventually("strong mode to begin", || {
            node.ask(&["SETNX", "begun", "1"]);
            (node.ask(&["GET", "begun"]) == Reply::Bulk("1".into())).then_some(())
        });
    }
    let tests = "ping_inline,ping_mbulk,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,\
                 lrange_100,lrange_300,lrange_500,lrange_600,mset";
    for (node, pipeline) in nodes.iter().zip(["1", "16", "64"]) {
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &node.resp.ip().to_string(), "-p", &node.resp.port().to_string()]);
        command.args(["-t", tests, "-n", "1000", "-c", "20", "-r", "100", "--csv"]);
        let printed = succeed(command.args(["-P", pipeline]));
        // A heading, and a row for each; lists are filled once more for LRANGE.
        let rows = printed.lines().filter(|line| line.starts_with('"')).count();
        assert!(rows > tests.split(',').count(), "{printed}");
    }
}

/// redis-py opens with HELLO 3 and its own library's name, and gives up if that is refused.
#[test]
fn redis_py_works_at_any_peer() {
    let Some(python) = std::env::var_os("QUORUMOR_TEST_REDIS_PY") else {
        return skip("redis_py_works_at_any_peer", "QUORUMOR_TEST_REDIS_PY names no Python");
    };
    let nodes = cluster(3);
    let ports: Vec<String> = nodes.iter().map(|node| node.resp.port().to_string()).collect();
    let said = succeed(Command::new(python).args(["-c", REDIS_PY_SCRIPT]).args(&ports));
    assert_eq!(said.trim(), "all said");
}

/// Arguments: the ports of three peers.
const REDIS_PY_SCRIPT: &str = r#"
import sys, time
import redis

assert redis.__version__.split(".")[0] == "8", redis.__version__
ports = [int(port) for port in sys.argv[1:]]

def eventually(ask):
    deadline = time.monotonic() + 60
    while not ask():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)

for protocol in (None, 3, 2):
    chosen = {} if protocol is None else {"protocol": protocol}
    one, two, three = [
        redis.Redis(port=port, decode_responses=True, **chosen) for port in ports
    ]
    mark = f"p{protocol}:"
    assert one.ping() is True
    assert one.echo("words") == "words"
    assert one.set(mark + "a", "1") is True
    assert one.get(mark + "a") == "1"
    assert one.get(mark + "none") is None
    eventually(lambda: three.get(mark + "a") == "1")
    assert two.mset({mark + "b": "2", mark + "c": "3"}) is True
    assert two.mget(mark + "b", mark + "none", mark + "c") == ["2", None, "3"]
    assert two.exists(mark + "b", mark + "c", mark + "none") == 2
    eventually(lambda: one.mget(mark + "a", mark + "b", mark + "c") == ["1", "2", "3"])
    assert sorted(one.scan_iter(match=mark + "*")) == [mark + "a", mark + "b", mark + "c"]
    assert one.dbsize() >= 3
    assert "redis_version" in one.info()
    assert one.client_setname("a-client") is True
    assert one.client_getname() == "a-client"
    assert one.client_id() > 0
    with one.pipeline(transaction=False) as pipe:
        for number in range(500):
            pipe.set(mark + f"n{number}", number)
        for number in range(500):
            pipe.get(mark + f"n{number}")
        replies = pipe.execute()
    assert replies[:500] == [True] * 500
    assert replies[500:] == [str(number) for number in range(500)]
    eventually(lambda: three.get(mark + "n499") == "499")
    assert one.delete(mark + "a", mark + "none") == 1
    eventually(lambda: two.get(mark + "a") is None)
    assert one.info("keyspace")["db0"]["keys"] == one.dbsize()
    assert one.config_get("save") == {"save": ""}
    assert "redis-py" in one.client_info()["lib-name"]
    assert one.command_count() == len(one.command())
    raw = redis.Redis(port=ports[0], **chosen)
    every_byte = bytes(range(256))
    raw.set(every_byte, every_byte)
    assert raw.get(every_byte) == every_byte
    try:
        one.execute_command("NOSUCHCOMMAND", "x")
        raise AssertionError("an unknown command was answered")
    except redis.ResponseError as error:
        assert "unknown command" in str(error).lower(), error
    # A command that needs an order says so instead of being answered wrongly.
    for ordered in (
        lambda: one.setnx(mark + "d", "1"),
        lambda: one.set(mark + "d", "1", nx=True),
        lambda: one.lpop(mark + "list"),
        lambda: one.pipeline().set(mark + "d", "1").setnx(mark + "e", "1").execute(),
    ):
        try:
            ordered()
            raise AssertionError("a command that needs an order was answered")
        except redis.ResponseError as error:
            assert "NEEDSSTRONG" in str(error), error
    assert one.get(mark + "d") is None
    # Every type, written at two peers and read at the third one.
    assert [one.incr(mark + "count", 3), two.incr(mark + "other")] == [3, 1]
    assert one.pipeline().incr(mark + "count", 2).hset(mark + "hash", "f", "1").execute() == [5, 1]
    # What task queues do with a result.
    assert one.pipeline().setex(mark + "task", 100, "v").publish(mark + "task", "v").execute() == [True, 0]
    assert two.hset(mark + "hash", mapping={"g": "2", "h": "3"}) == 2
    assert one.sadd(mark + "set", "x", "y") == 2 and two.sadd(mark + "set", "z") == 1
    assert one.rpush(mark + "list", "a", "b") == 2
    assert one.zadd(mark + "sorted", {"m": 1.5, "n": 0.5}) == 2
    assert one.set(mark + "short", "v", px=200) is True
    eventually(lambda: three.get(mark + "count") == "5")
    eventually(lambda: three.hgetall(mark + "hash") == {"f": "1", "g": "2", "h": "3"})
    eventually(lambda: three.smembers(mark + "set") == {"x", "y", "z"})
    eventually(lambda: three.lrange(mark + "list", 0, -1) == ["a", "b"])
    scores = lambda: three.zrange(mark + "sorted", 0, -1, withscores=True)
    eventually(lambda: [tuple(it) for it in scores()] == [("n", 0.5), ("m", 1.5)])
    eventually(lambda: three.get(mark + "short") is None)
print("all said")
"#;

/// With a password, nothing is answered before it; with it, redis-cli goes on as usual.
#[test]
fn a_password_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "open sesame\n").unwrap();
    restrict(&file);
    let path = file.to_str().unwrap();
    let node = NodeProcess::start_with("guarded", &[], &["--requirepass-file", path]);
    let mut client = node.client();
    let is_error = |reply: &Reply, start: &str| match reply {
        Reply::Error(text) => text.starts_with(start),
        _ => false,
    };
    assert!(is_error(&client.ask(&["GET", "k"]), "NOAUTH"));
    assert!(is_error(&client.ask(&["AUTH", "wrong"]), "WRONGPASS"));
    assert!(is_error(&client.ask(&["GET", "k"]), "NOAUTH"));
    assert_eq!(client.ask(&["AUTH", "open sesame"]), Reply::Simple("OK".into()));
    assert_eq!(client.ask(&["GET", "k"]), Reply::Nothing);
    assert!(!node.output().contains("open sesame"), "the password is in the output");
}

/// Makes a file readable by its owner only, as secrets must be.
fn restrict(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600))
        .expect("a file of our own");
}
