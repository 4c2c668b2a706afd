//! Input that is hard on a door, at real nodes: thousands of connections that say half of what they
//! want, and one client that says ten thousand things in pieces of any size.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::common::{Client, NodeProcess, PATIENCE, Reply, cluster, eventually};
use super::strong;

/// How many connections are opened where the system lets a process have so many.
const CONNECTIONS: usize = 3_000;

/// What a node may take for each of them: a small part of a buffer of the usual size, 64 KiB.
const BYTES_EACH_MAX: usize = 8 * 1024;

/// What else it may take meanwhile: buffers that are lent and given back.
const BYTES_MORE_MAX: usize = 16 << 20;

fn connect(door: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&door, PATIENCE).expect("an open door");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
    stream
}

/// How many files this process, and the nodes that it starts, may have open.
fn open_files_max() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(256)
}

/// How much memory a node has in use; nothing where the system does not tell it so.
fn resident_bytes(node: &NodeProcess) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

fn connected(node: &NodeProcess) -> String {
    let Reply::Bulk(text) = node.ask(&["INFO", "clients"]) else { panic!("INFO is text") };
    text.lines().find(|line| line.starts_with("connected_clients:")).unwrap_or_default().to_owned()
}

/// Connections by the thousand that say nothing, half of something, or all and then close their side: the
/// last are answered and let go, the others cost little, and nobody else notices.
#[test]
fn half_open_connections_cost_little() {
    let nodes = cluster(1);
    let node = &nodes[0];
    let mut bystander = node.client();
    let pong = Reply::Simple("PONG".into());
    assert_eq!(bystander.ask(&["PING"]), pong);
    let before = resident_bytes(node);
    let count = CONNECTIONS.min(open_files_max() / 4 * 3);
    let mut open = Vec::new();
    for number in 0..count {
        let mut stream = connect(node.resp);
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"*3\r\n$3\r\nSET\r\n$4\r\nhalf\r\n$1000\r\nof a value",
            _ => b"*2\r\n$4\r\nECHO\r\n$3\r\nall\r\n",
        };
        stream.write_all(said).unwrap();
        if number % 3 == 2 {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        open.push(stream);
        if number % 100 == 0 {
            assert_eq!(bystander.ask(&["PING"]), pong);
        }
    }
    for stream in open.iter_mut().skip(2).step_by(3) {
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        assert_eq!(told, "$3\r\nall\r\n");
    }
    let stay = count - count / 3;
    // The bystander, and who asks.
    let expected = format!("connected_clients:{}", stay + 2);
    eventually("those that closed to be let go", || (connected(node) == expected).then_some(()));
    if let (Some(before), Some(after)) = (before, resident_bytes(node)) {
        let grown = after.saturating_sub(before);
        assert!(grown <= BYTES_MORE_MAX + stay * BYTES_EACH_MAX, "{grown} bytes for {stay}");
    }
    assert_eq!(bystander.ask(&["GET", "half"]), Reply::Nothing);
    drop(open);
    eventually("all to be forgotten", || (connected(node) == "connected_clients:2").then_some(()));
}

/// Ten thousand requests of all kinds, wrong ones and lines typed by a person among them. As the first one
/// deletes everything, what is answered depends on them only.
fn pipeline(mode: &str) -> Vec<u8> {
    let mut dice = fastrand::Rng::with_seed(1);
    let mut bytes = b"FLUSHALL\r\n".to_vec();
    let longest = format!("ECHO {}\r\n", "x".repeat(64 * 1024 - 6));
    for number in 1..9_998 {
        let key = dice.u8(b'a'..b'i') as char;
        let value = "v".repeat(dice.usize(..300));
        let request: &[&str] = match dice.u8(..21) {
            0..4 => &["SET", "text", &value],
            4..7 => &["GET", "text"],
            7 => &["MGET", "text", "none", "number"],
            8 => &["INCR", "number"],
            9 => &["HSET", "hash", &key.to_string(), &value],
            10 => &["HGETALL", "hash"],
            11 => &["SADD", "set", &key.to_string()],
            12 => &["SISMEMBER", "set", &key.to_string()],
            13 => &["RPUSH", "list", &value],
            14 => &["LRANGE", "list", "-3", "-1"],
            15 => &["ZADD", "sorted", &number.to_string(), &key.to_string()],
            16 => &["LPUSH", "text", "wrong kind"],
            17 => &["GET", "too", "many"],
            18 => &["MULTI"],
            19 if mode == "strong" => &["RPOP", "list"],
            _ => {
                bytes.extend_from_slice(b"\r\nset \"text\" 'typed'\n");
                &["NOSUCH", &value]
            }
        };
        if request == ["MULTI"] {
            bytes.extend_from_slice(b"MULTI\r\nGET text\r\nINCR number\r\nEXEC\r\n");
            continue;
        }
        bytes.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for word in request {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        if number % 3_333 == 0 {
            bytes.extend_from_slice(longest.as_bytes());
        }
    }
    bytes.extend_from_slice(b"DBSIZE\r\nQUIT\r\n");
    bytes
}

/// Everything that is answered to a pipeline sent in pieces of up to so many bytes.
fn answers(door: SocketAddr, pipeline: &[u8], piece_bytes_max: usize) -> Vec<u8> {
    let mut stream = connect(door);
    stream.set_nodelay(true).expect("a socket of our own");
    let mut reader = stream.try_clone().expect("a socket of our own");
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let mut told = Vec::new();
            reader.read_to_end(&mut told).map(|_| told)
        });
        let mut dice = fastrand::Rng::with_seed(piece_bytes_max as u64);
        let mut rest = pipeline;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(dice.usize(1..=piece_bytes_max.min(rest.len())));
            stream.write_all(piece).expect("the node reads on");
            rest = after;
        }
        reading.join().expect("reading does not panic").expect("all is answered before the end")
    })
}

/// However ten thousand requests are cut into packets, the same bytes come back.
#[test]
fn any_split_of_a_pipeline_gives_the_same_answers() {
    for (mode, node) in [("eventual", cluster(1).remove(0)), ("strong", strong("alone"))] {
        let pipeline = pipeline(mode);
        let whole = answers(node.resp, &pipeline, usize::MAX);
        assert!(whole.starts_with(b"+OK\r\n") && whole.ends_with(b"\r\n+OK\r\n"), "{mode}");
        for piece_bytes_max in [30, 1_000, 100_000] {
            let told = answers(node.resp, &pipeline, piece_bytes_max);
            let same = whole.iter().zip(&told).take_while(|(one, other)| one == other).count();
            assert!(
                told == whole,
                "{mode}, pieces of up to {piece_bytes_max} bytes: {} bytes for {}, from {same} on {:?} \
                 for {:?}",
                told.len(),
                whole.len(),
                String::from_utf8_lossy(&told[same..told.len().min(same + 200)]),
                String::from_utf8_lossy(&whole[same..whole.len().min(same + 200)]),
            );
        }
        let mut client = Client::connect(node.resp);
        assert_eq!(client.ask(&["TYPE", "list"]), Reply::Simple("list".into()));
    }
}
