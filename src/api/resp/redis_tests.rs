//! Random commands, to a real Redis and to operations in strong mode: the same bytes come back.
//!
//! What has no order in Redis is compared sorted, and what is random is left out. Arguments that make
//! no sense are refused here before anybody looks at the key; Redis looks at some keys first, and so
//! may say that there is nothing, or something of another kind: in that case either will do. Skipped with a line
//! that says so where no redis-server is installed.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use super::ask::Asked;
use super::buffers::Buffers;
use super::command;
use super::parse::{BULK_BYTES_MAX, Requests, Trust};
use super::reply::{Protocol, Replies};
use crate::protocol::id::Origin;
use crate::protocol::operation::{Mode, Moment, Operation, execute};
use crate::protocol::stamp::{Epoch, Lamport, Stamp};
use crate::protocol::store::Store;
use crate::protocol::time::WallTime;

/// How long a Redis may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Redis of our own, which ends with the test.
pub(super) struct Redis {
    process: Child,
    stream: BufReader<TcpStream>,
    folder: tempfile::TempDir,
}

impl Redis {
    pub(super) fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        // A port that the system has just given out is free.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Process::new("redis-server");
        process.args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
        process.current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = process.spawn().ok()?;
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Some(Self { process, stream: BufReader::new(stream), folder })
    }

    pub(super) fn ask(&mut self, request: &[u8]) -> Told {
        self.stream.get_mut().write_all(request).unwrap();
        Told::read(&mut self.stream)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        assert!(self.folder.path().is_absolute());
    }
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    Line(String),
    Bytes(Option<Vec<u8>>),
    All(Option<Vec<Told>>),
}

impl Told {
    pub(super) fn read(source: &mut impl BufRead) -> Self {
        let mut line = String::new();
        source.read_line(&mut line).unwrap();
        let line = line.trim_end();
        let length = line.get(1..).and_then(|length| length.parse::<i64>().ok());
        match (line.as_bytes().first(), length) {
            (Some(b'$'), Some(-1)) => Self::Bytes(None),
            (Some(b'*'), Some(-1)) => Self::All(None),
            (Some(b'$'), Some(length)) => {
                let mut bytes = vec![0; length as usize + 2];
                source.read_exact(&mut bytes).unwrap();
                bytes.truncate(length as usize);
                Self::Bytes(Some(bytes))
            }
            (Some(b'*'), Some(length)) => {
                Self::All(Some((0..length).map(|_| Self::read(source)).collect()))
            }
            _ => Self::Line(line.to_owned()),
        }
    }

    /// Whether nothing was done because of what the key holds, or it was refused.
    fn is_nothing(&self) -> bool {
        match self {
            Self::Line(line) => line == ":0" || line.starts_with('-'),
            Self::Bytes(bytes) => bytes.is_none(),
            Self::All(all) => all.as_ref().is_none_or(Vec::is_empty),
        }
    }

    /// Whether both are numbers that are the same but for the last of some fifteen digits.
    fn is_close_to(&self, other: &Self) -> bool {
        let number = |told: &Self| match told {
            Self::Bytes(Some(bytes)) => std::str::from_utf8(bytes).ok()?.parse::<f64>().ok(),
            _ => None,
        };
        let (Some(one), Some(other)) = (number(self), number(other)) else { return false };
        (one - other).abs() <= 1e-14 * one.abs().max(other.abs())
    }

    /// Whether both tell the same time, give or take the minute that a test may take.
    fn is_about_the_time_of(&self, other: &Self, second: i64) -> bool {
        let number = |told: &Self| match told {
            Self::Line(line) => line.strip_prefix(':')?.parse::<i64>().ok().filter(|it| *it > 0),
            _ => None,
        };
        let both = number(self).zip(number(other));
        both.is_some_and(|(one, other)| (one - other).abs() <= 60 * second)
    }

    fn sorted(self, by: usize) -> Self {
        let Self::All(Some(all)) = self else { return self };
        let mut pairs: Vec<_> = all.chunks(by).map(<[Self]>::to_vec).collect();
        pairs.sort();
        Self::All(Some(pairs.concat()))
    }
}

/// The commands that a log would apply, one after the other.
struct Ours {
    store: Store,
    lamport: u64,
    /// Whether the last arguments made no sense.
    misread: bool,
}

impl Ours {
    fn ask(&mut self, request: &[u8], now: u64) -> Told {
        self.misread = false;
        let mut requests = Requests::new(BULK_BYTES_MAX);
        let pool = Buffers::new();
        requests.space(&pool).unwrap()[..request.len()].copy_from_slice(request);
        requests.filled(request.len());
        let arguments = requests.next(Trust::Authenticated).unwrap().unwrap();
        let mut replies = Replies::new(Vec::new(), Protocol::Resp2);
        match command::find(arguments) {
            Err(refusal) => refusal.write(arguments, &mut replies),
            Ok(command) => {
                let asked = Asked { arguments, now: WallTime(now) };
                match (command.ask.as_ref().unwrap().0)(&asked) {
                    Err(misread) => {
                        self.misread = true;
                        replies.error(misread.text(command.name));
                    }
                    Ok(operation) => self.apply(&operation, now, &mut replies),
                }
            }
        }
        Told::read(&mut &replies.into_buffer()[..])
    }

    fn apply(&mut self, operation: &Operation<'_>, now: u64, replies: &mut Replies) {
        let bytes = operation.encode();
        let operation = Operation::decode(&bytes).unwrap();
        let moment = Moment { wall: WallTime(now), dice: self.lamport };
        let executed = execute(&self.store, &operation, moment, Mode::Strong, Origin(1).into());
        assert!(operation.is_write() || executed.cells.is_empty(), "{operation:?}");
        let first = self.lamport + 1;
        self.lamport += executed.cells.len() as u64;
        let lamport = Lamport(self.lamport);
        let stamp = Stamp { epoch: Epoch(0), lamport, origin: Origin(1) };
        let mut names: Vec<_> =
            executed.cells.iter().map(|cell| (cell.key.clone(), cell.field.clone())).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), executed.cells.len(), "each cell once: {operation:?}");
        for (seq, cell) in (first..).zip(executed.cells) {
            self.store.merge(stamp, seq, cell);
            self.store.forget_displaced();
        }
        // Tombstones may go at any time, and nothing that shows depends on them.
        if self.lamport.is_multiple_of(3) {
            self.store.collect_everything();
        }
        executed.answer.write(replies);
    }
}

/// What a word of a template stands for.
fn word(template: &str, dice: &mut fastrand::Rng) -> Option<String> {
    let one = |dice: &mut fastrand::Rng, of: &[&str]| of[dice.usize(..of.len())].to_owned();
    Some(match template {
        "KEY" => one(dice, &["a", "b", "c"]),
        "NAME" => one(dice, &["x", "y", "z", "xx", ""]),
        "TEXT" => one(dice, &["1", "-7", "2.5", "word", "", "9223372036854775807", "x"]),
        "NUMBER" => one(dice, &["0", "1", "-1", "2", "-3", "5", "100", "x", "", "-100"]),
        "FLOAT" => one(dice, &["0.5", "-1.25", "3", "1e2", "x", "inf", "nan", "-inf"]),
        "SCORE" => one(dice, &["0", "1", "-1.5", "2.5", "inf", "x", "3"]),
        "BOUND" => one(dice, &["-inf", "+inf", "0", "(1", "2.5", "x", "(-1.5"]),
        "LEX" => one(dice, &["-", "+", "[x", "(x", "[y", "(z", "x"]),
        "TIME" => one(dice, &["4000000000", "4100000000000", "-1", "0", "x", "5000000000"]),
        other if other.starts_with('?') => {
            if dice.bool() {
                return None;
            }
            return word(&other[1..], dice);
        }
        other => other.to_owned(),
    })
}

/// Commands; in capitals what is chosen at random, with a question mark what may be left out. The
/// number: 0 if the order of the reply counts, else how many belong together in a reply without one.
const TEMPLATES: &[(&str, usize)] = &[
    ("get KEY", 0),
    ("set KEY TEXT ?XX ?GET", 0),
    ("set KEY TEXT ?NX ?KEEPTTL", 0),
    ("set KEY TEXT exat TIME", 0),
    ("set KEY TEXT pxat TIME", 0),
    ("setex KEY NUMBER TEXT", 0),
    ("setnx KEY TEXT", 0),
    ("getset KEY TEXT", 0),
    ("getdel KEY", 0),
    ("getex KEY ?persist", 0),
    ("getex KEY exat TIME", 0),
    ("mget KEY KEY NAME", 0),
    ("mset KEY TEXT KEY TEXT", 0),
    ("mset KEY TEXT KEY", 0),
    ("msetnx KEY TEXT KEY TEXT", 0),
    ("append KEY TEXT", 0),
    ("strlen KEY", 0),
    ("getrange KEY NUMBER NUMBER", 0),
    ("setrange KEY NUMBER TEXT", 0),
    ("incr KEY", 0),
    ("decr KEY", 0),
    ("incrby KEY NUMBER", 0),
    ("decrby KEY NUMBER", 0),
    ("incrbyfloat KEY FLOAT", 0),
    ("del KEY ?KEY", 0),
    ("exists KEY KEY", 0),
    ("type KEY", 0),
    ("rename KEY KEY", 0),
    ("renamenx KEY KEY", 0),
    ("copy KEY KEY ?replace", 0),
    ("expireat KEY TIME ?nx", 0),
    ("expireat KEY TIME ?gt ?xx", 0),
    ("pexpireat KEY TIME ?lt ?xx ?nx ?gt", 0),
    ("persist KEY", 0),
    ("expiretime KEY", 0),
    ("pexpiretime KEY", 0),
    ("dbsize", 0),
    ("keys *", 1),
    ("hset KEY NAME TEXT ?NAME ?TEXT", 0),
    ("hset KEY NAME TEXT NAME TEXT", 0),
    ("hsetnx KEY NAME TEXT", 0),
    ("hget KEY NAME", 0),
    ("hmget KEY NAME NAME", 0),
    ("hdel KEY NAME ?NAME", 0),
    ("hexists KEY NAME", 0),
    ("hlen KEY", 0),
    ("hkeys KEY", 1),
    ("hvals KEY", 1),
    ("hgetall KEY", 2),
    ("hstrlen KEY NAME", 0),
    ("hincrby KEY NAME NUMBER", 0),
    ("hincrbyfloat KEY NAME FLOAT", 0),
    ("hrandfield KEY 100 withvalues", 2),
    ("sadd KEY NAME NAME", 0),
    ("sadd KEY NAME", 0),
    ("srem KEY NAME ?NAME", 0),
    ("smembers KEY", 1),
    ("sismember KEY NAME", 0),
    ("smismember KEY NAME NAME", 0),
    ("scard KEY", 0),
    ("spop KEY 100", 1),
    ("srandmember KEY 100", 1),
    ("smove KEY KEY NAME", 0),
    ("sinter KEY KEY", 1),
    ("sunion KEY KEY", 1),
    ("sdiff KEY KEY", 1),
    ("sinterstore KEY KEY KEY", 0),
    ("sunionstore KEY KEY KEY", 0),
    ("sdiffstore KEY KEY KEY", 0),
    ("sintercard 2 KEY KEY ?limit ?NUMBER", 0),
    ("lpush KEY TEXT ?TEXT", 0),
    ("rpush KEY TEXT ?TEXT ?TEXT", 0),
    ("rpush KEY TEXT TEXT TEXT", 0),
    ("lpushx KEY TEXT", 0),
    ("rpushx KEY TEXT", 0),
    ("lpop KEY ?NUMBER", 0),
    ("rpop KEY ?NUMBER", 0),
    ("lmpop 2 KEY KEY left ?count ?NUMBER", 0),
    ("lrange KEY NUMBER NUMBER", 0),
    ("lrange KEY 0 -1", 0),
    ("llen KEY", 0),
    ("lindex KEY NUMBER", 0),
    ("lset KEY NUMBER TEXT", 0),
    ("linsert KEY before TEXT TEXT", 0),
    ("linsert KEY after TEXT TEXT", 0),
    ("lrem KEY NUMBER TEXT", 0),
    ("ltrim KEY NUMBER NUMBER", 0),
    ("lmove KEY KEY left right", 0),
    ("lmove KEY KEY right left", 0),
    ("rpoplpush KEY KEY", 0),
    ("lpos KEY TEXT ?rank ?NUMBER", 0),
    ("lpos KEY TEXT rank NUMBER count NUMBER", 0),
    ("lpos KEY TEXT count 0 maxlen NUMBER", 0),
    ("zadd KEY SCORE NAME", 0),
    ("zadd KEY SCORE NAME SCORE NAME", 0),
    ("zadd KEY ?nx ?xx ?gt ?lt ?ch ?incr SCORE NAME", 0),
    ("zincrby KEY SCORE NAME", 0),
    ("zrem KEY NAME ?NAME", 0),
    ("zscore KEY NAME", 0),
    ("zmscore KEY NAME NAME", 0),
    ("zcard KEY", 0),
    ("zcount KEY BOUND BOUND", 0),
    ("zlexcount KEY LEX LEX", 0),
    ("zrange KEY NUMBER NUMBER ?withscores ?rev", 0),
    ("zrange KEY BOUND BOUND byscore ?withscores ?rev", 0),
    ("zrange KEY BOUND BOUND byscore limit NUMBER NUMBER", 0),
    ("zrange KEY LEX LEX bylex ?rev", 0),
    ("zrangestore KEY KEY NUMBER NUMBER", 0),
    ("zrevrange KEY NUMBER NUMBER ?withscores", 0),
    ("zrangebyscore KEY BOUND BOUND ?withscores", 0),
    ("zrevrangebyscore KEY BOUND BOUND limit NUMBER NUMBER", 0),
    ("zrangebylex KEY LEX LEX", 0),
    ("zrevrangebylex KEY LEX LEX", 0),
    ("zrank KEY NAME", 0),
    ("zrevrank KEY NAME", 0),
    ("zpopmin KEY ?NUMBER", 0),
    ("zpopmax KEY ?NUMBER", 0),
    ("zremrangebyrank KEY NUMBER NUMBER", 0),
    ("zremrangebyscore KEY BOUND BOUND", 0),
    ("zremrangebylex KEY LEX LEX", 0),
    ("hscan KEY 0", 2),
    ("object encoding NAME", 0),
    ("object refcount NAME", 0),
    ("object freq KEY", 0),
    ("object idletime NAME", 0),
];

/// Law: whatever is asked in whatever order, strong mode answers what Redis answers.
#[test]
fn strong_mode_means_what_redis_means() {
    let Some(mut redis) = Redis::start() else {
        return eprintln!("SKIPPED strong_mode_means_what_redis_means: install redis-server");
    };
    let rounds = std::env::var("QUORUMOR_TEST_ROUNDS").map_or(40, |it| it.parse().unwrap());
    for seed in 0..rounds {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_millis() as u64;
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut ours = Ours { store: Store::new(1), lamport: 0, misread: false };
        redis.ask(b"*1\r\n$8\r\nflushall\r\n");
        let mut story = Vec::new();
        // Few kinds of commands at a time: else hardly any finds a value of its kind.
        let kinds: Vec<_> = (0..dice.usize(8..40)).map(|_| dice.usize(..TEMPLATES.len())).collect();
        for _ in 0..400 {
            let (template, together) = TEMPLATES[kinds[dice.usize(..kinds.len())]];
            let words = template.split(' ');
            let words: Vec<String> = words.filter_map(|it| word(it, &mut dice)).collect();
            let mut request = format!("*{}\r\n", words.len());
            words.iter().for_each(|it| request += &format!("${}\r\n{it}\r\n", it.len()));
            story.push(words.join(" "));
            let theirs = redis.ask(request.as_bytes());
            let answer = ours.ask(request.as_bytes(), now);
            if ours.misread && theirs.is_nothing() {
                continue;
            }
            let ours = answer;
            let order = |told: Told| match together {
                0 => told,
                by => told.sorted(by),
            };
            // A scan has the members one level down.
            let order = |told: Told| match (template.starts_with("hscan"), told) {
                (true, Told::All(Some(all))) => {
                    Told::All(Some(all.into_iter().map(|it| it.sorted(2)).collect()))
                }
                (_, told) => order(told),
            };
            let (theirs, ours) = (order(theirs), order(ours));
            // Redis sums in long doubles, which have eleven bits more than there are here: from then on
            // the two stores differ in the last digits.
            if template.contains("incrbyfloat") && ours != theirs && ours.is_close_to(&theirs) {
                break;
            }
            // Among members of different scores Redis leaves open what comes of an order of names.
            if template.contains("lex") && ours != theirs {
                break;
            }
            // Redis counts keys whose time is over until it comes across them.
            if template == "dbsize" && ours < theirs {
                continue;
            }
            // What is to live so and so long began to live at two different instants.
            let second = if template.starts_with("pexpiretime") { 1_000 } else { 1 };
            if template.contains("expiretime") && ours.is_about_the_time_of(&theirs, second) {
                continue;
            }
            assert_eq!(
                ours,
                theirs,
                "ours, Redis'; seed {seed}, after\n{}",
                story[story.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}
