//! Clients that write down all they ask and are told, so that it can be judged as a whole.
//!
//! Each of them is a thread with one request under way, and each begins at another node and goes on to
//! the next one when its connection breaks: they are spread over all nodes, and many of them are at
//! the same few keys. What they asked and were told, by one monotonic clock, is a [`History`]. An
//! answer that did not come, or that does not say for certain that nothing happened, leaves the outcome
//! unknown.
//!
//! Keys come in three sorts, each for one way to judge: *plain* ones are set to values used once and
//! read; *counters* are counted up and read; *guarded* ones are set only where nothing is, deleted and
//! read. Counters and guarded keys are judged by a search, so they are replaced by new ones every
//! [`FRESH_AFTER`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quorumor::protocol::time::Time;
use quorumor::sim::linearizable::{Action, Answer, Budget, History, Verdict};

use crate::common::{Client, Reply};

/// How long a counter or a guarded key is used: short enough that a search can judge it.
const FRESH_AFTER: Duration = Duration::from_millis(500);

/// How long a client waits for an answer before it gives up, and leaves it unknown.
const GIVES_UP_AFTER: Duration = Duration::from_secs(5);

/// How long to wait before a node that is away is tried again.
const RETRY: Duration = Duration::from_millis(10);

/// Errors by which a node says that nothing happened, and nothing will.
const REFUSALS: [&str; 4] = ["NOQUORUM", "NEEDSSTRONG", "TRYAGAIN", "LOADING"];

/// What clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    /// How many plain keys there are.
    pub(crate) plain: usize,
    /// How many counters there are at a time.
    pub(crate) counters: usize,
    /// How many guarded keys there are at a time.
    pub(crate) guarded: usize,
    /// What plain values are longer than they need be, so that disks fill.
    pub(crate) ballast_bytes: usize,
    /// How long a client rests between two requests.
    pub(crate) pace: Duration,
    pub(crate) seed: u64,
}

/// What clients recorded.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) history: History,
    /// Each error, by its first word, and how often.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// What clients and whoever watches them tell each other.
pub(crate) struct Watch {
    began: Instant,
    stop: AtomicBool,
    acknowledged: Vec<AtomicU64>,
    told: Mutex<Told>,
}

/// One client.
struct Recorder<'a> {
    number: usize,
    doors: &'a [SocketAddr],
    door: usize,
    line: Option<Client>,
    watch: &'a Watch,
    told: Told,
}

impl Watch {
    /// The time on the clock of the history.
    pub(crate) fn now(&self) -> Time {
        Time::START + self.began.elapsed()
    }

    /// How many writes each client has been told of.
    pub(crate) fn acknowledged(&self) -> Vec<u64> {
        self.acknowledged.iter().map(|it| it.load(Ordering::SeqCst)).collect()
    }

    /// Whether every client is told of a write within a time.
    pub(crate) fn goes_on_within(&self, patience: Duration) -> bool {
        let (before, began) = (self.acknowledged(), Instant::now());
        loop {
            if self.acknowledged().iter().zip(&before).all(|(now, before)| now > before) {
                return true;
            }
            if began.elapsed() > patience {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Lets clients work while `meanwhile` runs, and answers what they were told, and its result.
pub(crate) fn watch<T>(
    doors: &[SocketAddr],
    load: &Load,
    meanwhile: impl FnOnce(&Watch) -> T,
) -> (Told, T) {
    /// Also if the scope is left by a failed assertion.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let watch = Watch {
        began: Instant::now(),
        stop: AtomicBool::new(false),
        acknowledged: (0..load.clients).map(|_| AtomicU64::new(0)).collect(),
        told: Mutex::default(),
    };
    let result = thread::scope(|scope| {
        let stop = Stop(&watch.stop);
        for number in 0..load.clients {
            let watch = &watch;
            scope.spawn(move || {
                let door = number % doors.len();
                let told = Told::default();
                Recorder { number, doors, door, line: None, watch, told }.run(load);
            });
        }
        let result = meanwhile(&watch);
        drop(stop);
        result
    });
    (watch.told.into_inner().expect("no client panicked"), result)
}

impl Told {
    /// Panics unless the history is linearizable; answers how many keys were too hard to judge.
    pub(crate) fn must_be_linearizable(&self, test: &str) -> usize {
        println!("{test}: {}", self.history.summary());
        println!("{test}: errors by their first word: {:?}", self.errors);
        match self.history.check(Budget::default()) {
            Verdict::Linearizable => 0,
            verdict @ Verdict::Violated(_) => panic!("{test}: {verdict}"),
            Verdict::Undecided(keys) => {
                assert!(keys.iter().all(|key| !key.starts_with("plain")), "zones decide: {keys:?}");
                println!("{test}: too hard to judge: {}", keys.join(", "));
                keys.len()
            }
        }
    }
}

impl Recorder<'_> {
    fn run(mut self, load: &Load) {
        let seed = load.seed.wrapping_mul(1_000_003).wrapping_add(self.number as u64);
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut count = 0;
        while !self.watch.stop.load(Ordering::SeqCst) {
            if self.line.is_none() && !self.connect() {
                thread::sleep(RETRY);
                continue;
            }
            count += 1;
            self.ask_one(load, &mut dice, count);
            thread::sleep(load.pace);
        }
        let mut told = self.watch.told.lock().expect("no client panicked");
        told.history.join(self.told.history);
        for (word, count) in self.told.errors {
            *told.errors.entry(word).or_default() += count;
        }
    }

    /// Connects to its node, or else to the next one the next time.
    fn connect(&mut self) -> bool {
        match Client::connect_within(self.doors[self.door], GIVES_UP_AFTER) {
            Ok(line) => self.line = Some(line),
            Err(_) => self.door = (self.door + 1) % self.doors.len(),
        }
        self.line.is_some()
    }

    fn ask_one(&mut self, load: &Load, dice: &mut fastrand::Rng, count: u64) {
        let fresh = self.watch.began.elapsed().as_millis() / FRESH_AFTER.as_millis();
        let kind = dice.usize(..load.plain + load.counters + load.guarded);
        let value = format!("{}.{count}", self.number);
        let reads = dice.bool();
        let (key, action) = if kind < load.plain {
            (format!("plain{kind}"), Action::Write(value))
        } else if kind < load.plain + load.counters {
            (format!("counter{kind}.{fresh}"), Action::Increment(1))
        } else if dice.bool() {
            let action = Action::CompareAndSet { expected: None, new: value };
            (format!("guarded{kind}.{fresh}"), action)
        } else {
            (format!("guarded{kind}.{fresh}"), Action::Delete)
        };
        let action = if reads { Action::Read } else { action };
        // The history goes without the ballast.
        let long = |value: &str| format!("{value}{}", ".".repeat(load.ballast_bytes));
        let written = match &action {
            Action::Write(value) => long(value),
            _ => String::new(),
        };
        let words: Vec<&str> = match &action {
            Action::Read => vec!["GET", &key],
            Action::Write(_) => vec!["SET", &key, &written],
            Action::CompareAndSet { new, .. } => vec!["SET", &key, new, "NX"],
            Action::Delete => vec!["DEL", &key],
            Action::Increment(_) => vec!["INCR", &key],
            Action::Append(_) => unreachable!("not drawn"),
        };
        let Some(line) = &mut self.line else { return };
        let operation =
            self.told.history.ask(self.number, key.as_str(), action.clone(), self.watch.now());
        let reply = line.try_ask(&words);
        let now = self.watch.now();
        let answer = match reply {
            Ok(Reply::Error(text)) => {
                let word = text.split_whitespace().next().unwrap_or_default().to_owned();
                let is_refused = REFUSALS.contains(&word.as_str());
                *self.told.errors.entry(word).or_default() += 1;
                if is_refused {
                    self.told.history.refuse(operation, now);
                }
                return;
            }
            Err(_) => {
                // An answer that comes later must not be taken for that of the next request.
                self.line = None;
                self.door = (self.door + 1) % self.doors.len();
                return;
            }
            Ok(reply) => answer_in(&action, &reply)
                .unwrap_or_else(|| panic!("{action} {key} was answered by {reply:?}")),
        };
        self.told.history.answer(operation, answer, now);
        if action != Action::Read {
            self.watch.acknowledged[self.number].fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What a reply says of what was asked.
fn answer_in(action: &Action, reply: &Reply) -> Option<Answer> {
    Some(match (action, reply) {
        (Action::Read, Reply::Bulk(value)) => {
            Answer::Value(Some(value.trim_end_matches('.').to_owned()))
        }
        (Action::Read, Reply::Nothing) => Answer::Value(None),
        (Action::Write(_), Reply::Simple(_)) => Answer::Done,
        (Action::CompareAndSet { .. }, Reply::Simple(_)) => Answer::Changed(true),
        (Action::CompareAndSet { .. }, Reply::Nothing) => Answer::Changed(false),
        (Action::Delete, Reply::Integer(count)) => Answer::Changed(*count == 1),
        (Action::Increment(_), Reply::Integer(sum)) => Answer::Sum(*sum),
        _ => return None,
    })
}
