//! Stories told over real sockets: what clients send, and what they get.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use async_std::task;

use super::door::Door;
use super::settings::{Password, Settings};
use crate::net::NodeIdentity;
use crate::protocol::cell::{KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use crate::server::{Node, NodeConfig};

mod beside_redis_tests;
mod own_tests;
mod pubsub_tests;
mod tools_tests;

/// How long a story waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

fn node(peers: Vec<SocketAddr>) -> Node {
    let mut config = NodeConfig::new("test", NodeIdentity::fresh().unwrap());
    config.peers = peers;
    task::block_on(Node::start(config)).unwrap()
}

fn open_at(node: &Node, settings: Settings) -> Door {
    Door::open(node.clone(), SocketAddr::from(([127, 0, 0, 1], 0)), settings).unwrap()
}

fn open(settings: Settings) -> Door {
    open_at(&node(Vec::new()), settings)
}

fn with_password() -> Door {
    open(Settings { password: Some(Password::new(b"secret")), ..Settings::default() })
}

/// A client that sends bytes and compares bytes.
struct Client(TcpStream);

impl Client {
    fn to(door: &Door) -> Self {
        let stream = TcpStream::connect(door.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends a line and expects exactly this, shown with its line ends.
    fn says(&mut self, line: &str, expected: &str) -> &mut Self {
        self.send(format!("{line}\r\n")).hears(expected, line)
    }

    fn hears(&mut self, expected: &str, context: &str) -> &mut Self {
        let mut heard = vec![0; expected.len()];
        let result = self.0.read_exact(&mut heard);
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(result.is_ok(), "{context}: {result:?} after {heard:?}, expected {expected:?}");
        assert_eq!(heard, expected, "{context}");
        self
    }

    /// Sends a line and takes one bulk string or verbatim text.
    fn asks(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length: usize =
            head[1..].trim_end().parse().unwrap_or_else(|_| panic!("{line}: {head}"));
        let mut body = vec![0; length + 2];
        self.0.read_exact(&mut body).unwrap();
        body.truncate(length);
        String::from_utf8(body).unwrap()
    }

    /// Nothing more comes, and the connection is closed.
    fn is_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::yield_now();
    }
}

/// Story: values are set, read, counted and deleted, also within one pipeline.
#[test]
fn values_come_and_go() {
    let door = open(Settings::default());
    Client::to(&door)
        .says("GET k", "$-1\r\n")
        .says("SET k v", "+OK\r\n")
        .says("GET k", "$1\r\nv\r\n")
        .says("set k \"a\\x00\\r\\n\"", "+OK\r\n")
        .says("get k", "$4\r\na\0\r\n\r\n")
        .says("STRLEN k", ":4\r\n")
        .says("MSET a 1 b 2 a 3", "+OK\r\n")
        .says("MGET a b c", "*3\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n")
        .says("EXISTS a a b c", ":3\r\n")
        .says("DBSIZE", ":3\r\n")
        .says("TYPE a", "+string\r\n")
        .says("TYPE c", "+none\r\n")
        .says("TTL a", ":-1\r\n")
        .says("PTTL c", ":-2\r\n")
        .says("DEL a a c", ":1\r\n")
        .says("UNLINK k", ":1\r\n")
        .says("DEL k", ":0\r\n")
        .says("SET p 1\r\nGET p\r\nDEL p\r\nGET p", "+OK\r\n$1\r\n1\r\n:1\r\n$-1\r\n")
        .says("MSET a", "-ERR wrong number of arguments for 'mset' command\r\n")
        .says("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n")
        .says("MEMORY USAGE nokey", "$-1\r\n")
        .says("MEMORY USAGE b SAMPLES x", "-ERR value is not an integer or out of range\r\n")
        .says("MEMORY USAGE b SAMPLES 0", ":218\r\n");
}

/// Story: options of SET are read as Redis reads them, and those that cannot be served say why.
#[test]
fn set_has_options() {
    let door = open(Settings::default());
    let strong = |what: &str| {
        format!(
            "-NEEDSSTRONG '{what}' decides by what the key holds now, and two peers could decide \
             differently at the same time. It needs strong mode, to which `quorumor mode \
             strong` switches the cluster\r\n"
        )
    };
    let syntax = "-ERR syntax error\r\n";
    Client::to(&door)
        .says("SET k v KEEPTTL", "+OK\r\n")
        .says("SET k w NX", &strong("SET ... NX"))
        .says("SET k w xx", &strong("SET ... XX"))
        .says("SET k w GET", &strong("SET ... GET"))
        .says("SET k w NX EX 10", &strong("SET ... NX"))
        .says("SETNX k w", &strong("SETNX"))
        .says("SET e w EX 100", "+OK\r\n")
        .says("TTL e", ":100\r\n")
        .says("SET e w KEEPTTL\r\nTTL e", "+OK\r\n:100\r\n")
        .says("SET e w\r\nTTL e", "+OK\r\n:-1\r\n")
        .says("SET e w pxat 10\r\nGET e", "+OK\r\n$-1\r\n")
        .says("SET k w EX 0", "-ERR invalid expire time in 'set' command\r\n")
        .says("SET k w EX x", "-ERR value is not an integer or out of range\r\n")
        .says("SET k w EX", syntax)
        .says("SET k w EX 1 PX 1", syntax)
        .says("SET k w EX 1 KEEPTTL", syntax)
        .says("SET k w NX XX", syntax)
        .says("SET k w FOO", syntax)
        .says("GET k", "$1\r\nv\r\n");
}

/// Story: a scan tells every key once, filters as asked, and refuses what is no scan.
#[test]
fn keys_are_scanned() {
    let door = open(Settings::default());
    let mut client = Client::to(&door);
    for n in 0..25 {
        client.says(&format!("SET k{n:02} v"), "+OK\r\n");
    }
    client
        .says("SCAN 0 MATCH k1[0-3] COUNT 1000", "*2\r\n$1\r\n0\r\n*4\r\n$3\r\nk10\r\n$3\r\nk11\r\n$3\r\nk12\r\n$3\r\nk13\r\n")
        .says("SCAN 20", "*2\r\n$1\r\n0\r\n*5\r\n$3\r\nk20\r\n$3\r\nk21\r\n$3\r\nk22\r\n$3\r\nk23\r\n$3\r\nk24\r\n")
        .says("SCAN 0 TYPE list COUNT 100", "*2\r\n$1\r\n0\r\n*0\r\n")
        .says("KEYS k?4", "*3\r\n$3\r\nk04\r\n$3\r\nk14\r\n$3\r\nk24\r\n")
        .says("SCAN x", "-ERR invalid cursor\r\n")
        .says("SCAN -1", "-ERR invalid cursor\r\n")
        .says("SCAN 0 COUNT 0", "-ERR syntax error\r\n")
        .says("SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n")
        .says("SCAN 0 COUNT", "-ERR syntax error\r\n")
        .says("SCAN 0 FOO bar", "-ERR syntax error\r\n")
        .says("SCAN 99999", "*2\r\n$1\r\n0\r\n*0\r\n")
        .says(&format!("KEYS {}", "x".repeat(4097)), "-ERR pattern is longer than 4096 bytes\r\n");
}

/// Story: the small commands answer as in Redis.
#[test]
fn small_talk() {
    let door = open(Settings::default());
    Client::to(&door)
        .says("PING", "+PONG\r\n")
        .says("ping hello", "$5\r\nhello\r\n")
        .says("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n")
        .says("ECHO x", "$1\r\nx\r\n")
        .says("SELECT 0", "+OK\r\n")
        .says("SELECT 1", "-ERR DB index is out of range\r\n")
        .says("SELECT x", "-ERR value is not an integer or out of range\r\n")
        .says("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")
        .says("MODULE LIST", "*0\r\n")
        .says("WAIT 0 x", "-ERR timeout is not an integer or out of range\r\n")
        .says("WAIT x 0", "-ERR value is not an integer or out of range\r\n")
        .says("WAIT 0 -1", "-ERR timeout is negative\r\n")
        .says("WAIT 1 10", ":0\r\n")
        .says("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n")
        .says(
            "CONFIG GET SAVE append*y",
            "*4\r\n$10\r\nappendonly\r\n$2\r\nno\r\n$4\r\nsave\r\n$0\r\n\r\n",
        )
        .says("CONFIG GET requirepass", "*0\r\n")
        .says("CONFIG SET save \"\" appendonly no", "+OK\r\n")
        .says(
            "CONFIG SET foo 1",
            "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n",
        )
        .says(
            "CONFIG SET save 1",
            "-ERR CONFIG SET failed (possibly related to argument 'save') - can't set immutable \
             config; settings are given when the node starts\r\n",
        )
        .says(
            "XADD a b",
            "-ERR 'XADD' is not supported yet by Quorumor; COMMAND LIST names what is\r\n",
        )
        .says("FOO a", "-ERR unknown command 'FOO', with args beginning with: 'a' \r\n")
        .says("COMMAND GETKEYS GET k", "*1\r\n$1\r\nk\r\n")
        .says("QUIT", "+OK\r\n")
        .is_closed();
}

/// Story: HELLO agrees on a version, and everything after it is written in that version.
#[test]
fn versions_are_agreed_on() {
    let door = open(Settings::default());
    let rest = |id: &str| {
        format!(
            "$2\r\nid\r\n:{id}\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n\
             $7\r\nmodules\r\n*0\r\n"
        )
    };
    let head = "$6\r\nserver\r\n$8\r\nquorumor\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n";
    Client::to(&door)
        .says("HELLO", &format!("*14\r\n{head}:2\r\n{}", rest("1")))
        .says("HELLO 4", "-NOPROTO unsupported protocol version\r\n")
        .says("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n")
        .says("HELLO 3 foo", "-ERR Syntax error in HELLO option 'foo'\r\n")
        .says("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'\r\n")
        .says("GET nokey", "$-1\r\n")
        .says("HELLO 3 SETNAME me", &format!("%7\r\n{head}:3\r\n{}", rest("1")))
        .says("GET nokey", "_\r\n")
        .says("CLIENT GETNAME", "$2\r\nme\r\n")
        .says("CONFIG GET save", "%1\r\n$4\r\nsave\r\n$0\r\n\r\n")
        .says("HELLO", &format!("%7\r\n{head}:3\r\n{}", rest("1")))
        .says("RESET", "+RESET\r\n")
        .says("GET nokey", "$-1\r\n")
        .says("CLIENT GETNAME", "$-1\r\n");
    Client::to(&door).says(
        "HELLO 3 AUTH a b",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
}

/// Story: without the password nothing is told; with it, everything is.
#[test]
fn passwords_are_asked_for() {
    let door = with_password();
    let denied = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    Client::to(&door)
        .says("GET k", denied)
        .says("PING", denied)
        .says("CLIENT ID", denied)
        .says("LPUSH a b", denied)
        .says("SETNX a b", denied)
        .says("GET", "-ERR wrong number of arguments for 'get' command\r\n")
        .says("HELLO 3", "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n")
        .says("AUTH wrong", wrong)
        .says("AUTH other secret", wrong)
        .says("AUTH default wrong", wrong)
        .says("AUTH a b c", "-ERR syntax error\r\n")
        .says("AUTH secret", "+OK\r\n")
        .says("PING", "+PONG\r\n")
        .says("AUTH default wrong", wrong)
        .says("PING", "+PONG\r\n")
        .says("RESET", "+RESET\r\n")
        .says("PING", denied)
        .says("AUTH default secret", "+OK\r\n")
        .says("PING", "+PONG\r\n");
    let mut client = Client::to(&door);
    client.send("HELLO 3 AUTH default secret\r\n").hears("%7\r\n", "HELLO with AUTH");
    assert_eq!(door.counters().authentication_failures, 4);
    let open = open(Settings::default());
    Client::to(&open)
        .says("AUTH x", "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n")
        .says("AUTH default x", "+OK\r\n")
        .says("AUTH other x", wrong);
}

/// Story: a client that has not given the password sends little, and hears so.
#[test]
fn strangers_are_held_short() {
    let door = with_password();
    let mut client = Client::to(&door);
    client
        .send("*11\r\n")
        .hears("-ERR Protocol error: unauthenticated multibulk length\r\n", "count")
        .is_closed();
    let mut client = Client::to(&door);
    client
        .send("*1\r\n$16385\r\n")
        .hears("-ERR Protocol error: unauthenticated bulk length\r\n", "length")
        .is_closed();
    let mut client = Client::to(&door);
    client
        .says("AUTH secret", "+OK\r\n")
        .send(format!("*1\r\n$16385\r\n{}\r\n", "x".repeat(16_385)));
    client.hears("-ERR unknown command 'xxx", "authenticated");
}

/// Story: bytes that are no request are answered and end the connection, and only that one; what was
/// asked before them is answered first.
#[test]
fn malformed_requests_end_the_connection() {
    let door = open(Settings::default());
    let mut bystander = Client::to(&door);
    for (bytes, error) in [
        ("*4294967295\r\n".to_owned(), "invalid multibulk length"),
        ("*1\r\n$4294967295\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n$-1\r\n".to_owned(), "invalid bulk length"),
        ("*1\r\n".repeat(100_000), "expected '$', got '*'"),
        ("x".repeat(100_000), "too big inline request"),
        ("get \"a\r\n".to_owned(), "unbalanced quotes in request"),
        (format!("*1\r\n$1{}", "0".repeat(70_000)), "too big bulk count string"),
    ] {
        let mut client = Client::to(&door);
        let text = format!("+PONG\r\n-ERR Protocol error: {error}\r\n");
        client.send("PING\r\n").send(&bytes).hears(&text, error).is_closed();
        bystander.says("PING", "+PONG\r\n");
    }
    assert_eq!(door.counters().protocol_errors, 7);
    let mut browser = Client::to(&door);
    browser.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n").is_closed();
    until("everybody else leaves", || door.clients() == 1);
}

/// Story: the register shows who is connected and closes whom it is told to.
#[test]
fn clients_are_listed_and_closed() {
    let door = open(Settings::default());
    let (mut one, mut two) = (Client::to(&door), Client::to(&door));
    one.says("CLIENT SETNAME first", "+OK\r\n")
        .says(
            "CLIENT SETNAME \"a b\"",
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
        )
        .says("CLIENT SETINFO LIB-NAME lib", "+OK\r\n")
        .says("CLIENT SETINFO lib-ver 1.2", "+OK\r\n")
        .says("CLIENT SETINFO other 1", "-ERR Unrecognized option 'other'\r\n")
        .says(
            "CLIENT SETINFO lib-name \"a b\"",
            "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n",
        )
        .says("CLIENT NO-EVICT on", "+OK\r\n")
        .says("CLIENT NO-TOUCH x", "-ERR syntax error\r\n")
        .says(
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
        )
        .says("CLIENT ID", ":1\r\n");
    two.says("CLIENT ID", ":2\r\n").says("CLIENT GETNAME", "$-1\r\n");
    let list = two.asks("CLIENT LIST");
    assert_eq!(list.lines().count(), 2);
    let first = list.lines().next().unwrap();
    for part in
        ["id=1 ", " name=first ", " cmd=client|id ", " resp=2 ", " lib-name=lib ", " lib-ver=1.2"]
    {
        assert!(first.contains(part), "{part} in {first}");
    }
    assert!(two.asks("CLIENT LIST ID 1 7").starts_with("id=1 "));
    assert_eq!(two.asks("CLIENT LIST TYPE pubsub"), "");
    assert!(two.asks("CLIENT INFO").starts_with("id=2 "));
    two.says("CLIENT LIST TYPE x", "-ERR Unknown client type 'x'\r\n")
        .says("CLIENT LIST ID x", "-ERR Invalid client ID\r\n")
        .says("CLIENT LIST foo", "-ERR syntax error\r\n")
        .says("CLIENT KILL 1.2.3.4:5", "-ERR No such client\r\n")
        .says("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n")
        .says("CLIENT KILL FOO 1", "-ERR syntax error\r\n")
        .says("CLIENT KILL ID 999", ":0\r\n")
        .says("CLIENT KILL ID 2", ":0\r\n")
        .says("CLIENT KILL ID 1", ":1\r\n");
    one.is_closed();
    two.says("CLIENT KILL ID 2 SKIPME no", ":1\r\n").is_closed();
    until("both leave", || door.clients() == 0);
}

/// Story: a client may do without replies.
#[test]
fn replies_can_be_switched_off() {
    let door = open(Settings::default());
    Client::to(&door)
        .says("CLIENT REPLY SKIP\r\nPING\r\nPING again", "$5\r\nagain\r\n")
        .says(
            "CLIENT REPLY OFF\r\nPING\r\nFOO\r\nSET k v\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON",
            "+OK\r\n",
        )
        .says("GET k", "$1\r\nv\r\n")
        .says("CLIENT REPLY SKIP\r\nWAIT 0 0\r\nPING", "+PONG\r\n")
        .says("CLIENT REPLY x", "-ERR syntax error\r\n");
}

/// Story: INFO has the sections that were asked for, and says what this server is.
#[test]
fn facts_are_told() {
    let door = open(Settings::default());
    let mut client = Client::to(&door);
    client.says("SET k v", "+OK\r\n");
    let all = client.asks("INFO");
    for heading in
        ["Server", "Clients", "Memory", "Persistence", "Stats", "Replication", "Keyspace", "Gossip"]
    {
        assert!(all.contains(&format!("# {heading}\r\n")), "{heading}");
    }
    for line in [
        "redis_version:7.0.15",
        "server_name:quorumor",
        "loading:0",
        "role:master",
        "connected_clients:1",
        "blocked_clients:0",
        "db0:keys=1,expires=0,avg_ttl=0",
        "writes_local:1",
    ] {
        assert!(all.contains(&format!("{line}\r\n")), "{line} in {all}");
    }
    assert_eq!(client.asks("INFO keyspace"), "# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n");
    assert_eq!(client.asks("INFO nosuch"), "");
    assert!(client.asks("INFO stats").contains("total_commands_processed:4\r\n"));
    client.says("CONFIG RESETSTAT", "+OK\r\n");
    assert!(client.asks("INFO stats").contains("total_commands_processed:1\r\n"));
}

/// Story: one client too many is told so.
#[test]
fn clients_are_limited() {
    let door = open(Settings { clients_max: 2, ..Settings::default() });
    let (mut one, mut two) = (Client::to(&door), Client::to(&door));
    one.says("PING", "+PONG\r\n");
    two.says("PING", "+PONG\r\n");
    Client::to(&door).hears("-ERR max number of clients reached\r\n", "a third").is_closed();
    drop(two);
    until("one leaves", || door.clients() == 1);
    Client::to(&door).says("PING", "+PONG\r\n");
    assert_eq!(door.counters().rejected, 1);
}

/// Story: requests that come a byte at a time, or thousands at once, are answered in order.
#[test]
fn any_pace_will_do() {
    let door = open(Settings::default());
    let mut client = Client::to(&door);
    for byte in b"*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n" {
        client.send([*byte]);
    }
    client.hears("$2\r\nhi\r\n+PONG\r\n", "byte by byte");
    let count = 20_000;
    let requests: String =
        (0..count).map(|n| format!("SET k{} {n}\r\nGET k{}\r\n", n % 100, n % 100)).collect();
    let expected: String =
        (0..count).map(|n| format!("+OK\r\n${}\r\n{n}\r\n", n.to_string().len())).collect();
    let mut writer = client.0.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(requests.as_bytes()).unwrap());
    client.hears(&expected, "a long pipeline");
    writing.join().unwrap();
}

/// Story: a client that never reads holds up nobody and does not fill memory: it is not read from
/// while its replies wait.
#[test]
fn a_client_that_never_reads_is_left_alone() {
    let door = open(Settings::default());
    let value = "v".repeat(1 << 20);
    let mut deaf = Client::to(&door);
    deaf.says(&format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}", value.len()), "+OK\r\n");
    // More replies than two sockets' buffers hold by far; and requests until the kernel takes no more.
    deaf.0.set_nonblocking(true).unwrap();
    let requests = "GET k\r\n".repeat(10_000);
    let mut sent = 0;
    let mut quiet = None;
    while quiet.is_none_or(|since: Instant| since.elapsed() < Duration::from_millis(200)) {
        match deaf.0.write(requests.as_bytes()) {
            Ok(count) => {
                sent += count;
                quiet = None;
                assert!(sent < 200 << 20, "the door goes on reading from a client that does not");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                quiet.get_or_insert_with(Instant::now);
                std::thread::yield_now();
            }
        }
    }
    Client::to(&door).says("PING", "+PONG\r\n");
    assert!(door.counters().commands < 10_000);
    drop(deaf);
    until("it leaves", || door.clients() <= 1);
}

/// Story: a closing door lets what it has read be answered, then closes every connection, also one
/// that waits, and is closed for newcomers.
#[test]
fn the_door_closes_cleanly() {
    let door = open(Settings::default());
    let address = door.address();
    let (mut idle, mut waiting) = (Client::to(&door), Client::to(&door));
    idle.says("PING", "+PONG\r\n");
    waiting.says("SET k v\r\nECHO before\r\nWAIT 1 0", "+OK\r\n$6\r\nbefore\r\n");
    task::block_on(door.close());
    idle.is_closed();
    waiting.is_closed();
    assert!(TcpStream::connect(address).is_err());
}

/// Story: who waits for ever is counted as one who does, and leaving ends it.
#[test]
fn leaving_ends_a_wait() {
    let door = open(Settings::default());
    let (mut waiting, mut other) = (Client::to(&door), Client::to(&door));
    waiting.says("SET k v\r\nWAIT 1 0", "+OK\r\n");
    until("it waits", || other.asks("INFO clients").contains("blocked_clients:1\r\n"));
    assert_eq!(other.asks("CLIENT LIST").matches(" flags=b ").count(), 1);
    drop(waiting);
    until("it is gone", || other.asks("INFO clients").contains("blocked_clients:0\r\n"));
    drop(other);
    until("it leaves", || door.clients() == 0);
}

/// Story: what stands between MULTI and EXEC is one write; what is refused spoils all of it, and what
/// needs an order is refused when it is queued.
#[test]
fn transactions_are_one_write() {
    let door = open(Settings::default());
    let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    let strong = |what: &str, why: &str| {
        format!(
            "-NEEDSSTRONG '{what}' {why}. It needs strong mode, to which `quorumor mode \
             strong` switches the cluster\r\n"
        )
    };
    let take =
        "gives an element to one client only, and two peers could give it away at the same time";
    let together = "makes several commands one, and another peer's writes could fall between them";
    Client::to(&door)
        .says("MULTI\r\nSET k v\r\nGET k\r\nINCR n\r\nINCR k\r\nEXEC", "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n$1\r\nv\r\n:1\r\n-ERR value is not an integer or out of range\r\n")
        .says("MULTI\r\nSET k w\r\nDISCARD\r\nGET k", "+OK\r\n+QUEUED\r\n+OK\r\n$1\r\nv\r\n")
        .says("MULTI\r\nRESET\r\nGET k", "+OK\r\n+RESET\r\n$1\r\nv\r\n")
        .says("MULTI\r\nGET\r\nSET k w\r\nEXEC", &format!("+OK\r\n-ERR wrong number of arguments for 'get' command\r\n+QUEUED\r\n{abort}"))
        .says("MULTI\r\nLPOP l\r\nEXEC\r\nGET k", &format!("+OK\r\n{}{abort}$1\r\nv\r\n", strong("LPOP", take)))
        .says("MULTI\r\nMULTI\r\nEXEC", "+OK\r\n-ERR MULTI calls can not be nested\r\n*0\r\n")
        .says("MULTI\r\nTIME\r\nEXEC", &format!("+OK\r\n-ERR 'TIME' cannot be part of a transaction here: commands on keys can\r\n{abort}"))
        .says("EXEC", "-ERR EXEC without MULTI\r\n")
        .says("DISCARD", "-ERR DISCARD without MULTI\r\n")
        .says("WATCH k", &strong("WATCH", together));
}

/// Story: every kind of value comes and goes, and none is taken for another.
#[test]
fn values_have_kinds() {
    let door = open(Settings::default());
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
    Client::to(&door)
        .says(
            "HSET h a 1 b 2\r\nHSET h a 3\r\nHGETALL h",
            ":2\r\n:0\r\n*4\r\n$1\r\na\r\n$1\r\n3\r\n$1\r\nb\r\n$1\r\n2\r\n",
        )
        .says("SADD s x y x\r\nSREM s y z\r\nSMEMBERS s", ":2\r\n:1\r\n*1\r\n$1\r\nx\r\n")
        .says(
            "RPUSH l a b\r\nLPUSH l c d\r\nLRANGE l 0 -1",
            ":2\r\n:4\r\n*4\r\n$1\r\nd\r\n$1\r\nc\r\n$1\r\na\r\n$1\r\nb\r\n",
        )
        .says(
            "ZADD z 2 b 1 a\r\nZRANGE z 0 -1 WITHSCORES",
            ":2\r\n*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n",
        )
        .says("SET n 5\r\nINCRBY n 10\r\nDECR n\r\nGET n", "+OK\r\n:15\r\n:14\r\n$2\r\n14\r\n")
        .says("GET h", wrong)
        .says("INCR h", wrong)
        .says("LPUSH h x", wrong)
        .says("HGET s x", wrong)
        .says("TYPE h\r\nTYPE s\r\nTYPE l\r\nTYPE z", "+hash\r\n+set\r\n+list\r\n+zset\r\n")
        .says("SCAN 0 TYPE list", "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nl\r\n")
        .says("SET h now\r\nGET h\r\nHGETALL h", &format!("+OK\r\n$3\r\nnow\r\n{wrong}"))
        .says("EXPIRE l 100\r\nTTL l\r\nPERSIST l\r\nTTL l", ":1\r\n:100\r\n:1\r\n:-1\r\n")
        .says("EXPIRE l -1\r\nEXISTS l", ":1\r\n:0\r\n")
        .says(
            "SET big 9223372036854775807\r\nINCR big",
            "+OK\r\n-ERR increment or decrement would overflow\r\n",
        )
        .says("DBSIZE\r\nFLUSHALL\r\nDBSIZE", ":5\r\n+OK\r\n:0\r\n");
}

/// Story: what is written at one peer is read at another, and WAIT tells when.
#[test]
fn writes_reach_the_peer() {
    let first = node(Vec::new());
    let second = node(vec![first.address()]);
    let (here, there) =
        (open_at(&first, Settings::default()), open_at(&second, Settings::default()));
    let (mut writer, mut reader) = (Client::to(&here), Client::to(&there));
    until("the peers find each other", || {
        [&first, &second].iter().all(|node| node.status().peers.len() == 1)
    });
    writer.says("WAIT 1 20000", ":1\r\n");
    for n in 0..20 {
        writer.says(&format!("SET k {n}\r\nWAIT 1 20000"), "+OK\r\n:1\r\n");
        reader.says("GET k", &format!("${}\r\n{n}\r\n", n.to_string().len()));
    }
    writer.says("WAIT 2 30", ":1\r\n");
    // The longest values travel, too; without optimization they take longer than anybody waits.
    let bytes = if cfg!(debug_assertions) { VALUE_BYTES_MAX / 16 } else { VALUE_BYTES_MAX };
    let value = "v".repeat(bytes);
    writer.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()));
    writer.hears("+OK\r\n", "a long value").says("WAIT 1 20000", ":1\r\n");
    reader.says("STRLEN k", &format!(":{}\r\n", value.len()));
    reader.says("DEL k\r\nWAIT 1 20000", ":1\r\n:1\r\n");
    writer.says("EXISTS k", ":0\r\n");
}

/// Story: what could not travel to the peers is refused where it is written.
#[test]
fn writes_are_bounded() {
    let door = open(Settings::default());
    let long = "k".repeat(KEY_BYTES_MAX + 1);
    let refused = format!(
        "-ERR too large: a key may take {KEY_BYTES_MAX} bytes, a value {VALUE_BYTES_MAX}, and one \
         write, which travels to the peers as a whole, {WRITE_BYTES_MAX}\r\n"
    );
    let set = |key: &str| format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len());
    let mset = format!(
        "*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n${}\r\n{long}\r\n$1\r\nv\r\n",
        long.len()
    );
    let mut client = Client::to(&door);
    client.send(set(&long)).hears(&refused, "SET").send(mset).hears(&refused, "MSET");
    client.says("EXISTS a", ":0\r\n");
    client.send(set(&long[1..])).hears("+OK\r\n", "the longest key");
    let half = "v".repeat(VALUE_BYTES_MAX / 2 + (3 << 20));
    let pair = |key: &str| format!("$1\r\n{key}\r\n${}\r\n{half}\r\n", half.len());
    client.send(format!("*5\r\n$4\r\nMSET\r\n{}{}", pair("a"), pair("b")));
    client.hears(&refused, "two values");
    client.says("EXISTS a b", ":0\r\n");
}

/// What a key shows is looked at once: while others set and delete it, a GET finds a string or nothing.
#[test]
fn a_get_never_sees_half_of_a_write() {
    const WRITES: usize = 40_000;
    let node = node(Vec::new());
    let door = open_at(&node, Settings::default());
    let writer = std::thread::spawn(move || {
        for _ in 0..WRITES {
            node.set("key", "v");
            node.delete("key");
        }
    });
    let mut client = Client::to(&door);
    while !writer.is_finished() {
        client.send("GET key\r\n".repeat(100));
        let mut lines = 0;
        while lines < 100 {
            let mut head = [0; 5];
            client.0.read_exact(&mut head).unwrap();
            match &head {
                b"$-1\r\n" => {}
                b"$1\r\nv" => client.0.read_exact(&mut head[..2]).unwrap(),
                other => panic!("{:?}", other.escape_ascii().to_string()),
            }
            lines += 1;
        }
    }
    writer.join().unwrap();
}
