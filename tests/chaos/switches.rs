//! The switch of the mode as users ask for it: with `quorumor mode`, at several nodes at once, against
//! each other, and without members that may not be left out.
//!
//! Meanwhile each node has clients of its own, which set a key of theirs to one number after the other;
//! nobody else writes it. So whatever the mode is, each node must show the last number that was
//! acknowledged, or one whose fate the client was not told of.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{Client, NodeProcess, PATIENCE, Reply, eventually, finish, quorumor};
use crate::site::Site;
use crate::{agree, nodes_of};

/// How often several ask at once.
const ROUNDS: u32 = 5;

/// How long between two writes of a client.
const PACE: Duration = Duration::from_millis(2);

/// Errors by which a node says that nothing was changed.
const REFUSALS: [&str; 4] = ["NOQUORUM", "SWITCHING", "BUSY", "TRYAGAIN"];

/// One client's key.
#[derive(Debug, Default)]
struct Account {
    key: String,
    /// The last number that was sent, and the last that was acknowledged.
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// What clients wrote at each node.
struct Accounts(Vec<Account>);

/// What came of asking for a mode.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    outcome: String,
    text: String,
}

/// Starts a cluster in eventual mode whose members all vote once it is strong.
fn start(site: &Site) -> Vec<NodeProcess> {
    let launch = |index| {
        let mut launch = site.launch(index, "always");
        let voters = site.size().to_string();
        launch.arguments.extend(["--voters", &voters].map(str::to_owned));
        NodeProcess::launch(launch)
    };
    let nodes: Vec<_> = (0..site.size()).map(launch).collect();
    agree(&nodes);
    nodes
}

/// Lets clients write at some nodes meanwhile.
fn meanwhile(site: &Site, at: &[usize], test: impl FnOnce(&Accounts)) -> Accounts {
    /// Also if the scope is left by a failed assertion.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let account = |node: &usize| Account { key: format!("account-{node}"), ..Account::default() };
    let accounts = Accounts(at.iter().map(account).collect());
    let stopped = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = Stop(&stopped);
        for (account, node) in accounts.0.iter().zip(at) {
            let (stopped, door) = (&stopped, nodes_of(site)[*node]);
            scope.spawn(move || account.write(door, stopped));
        }
        accounts.grow();
        test(&accounts);
        accounts.grow();
        drop(stop);
    });
    accounts
}

impl Account {
    fn write(&self, door: std::net::SocketAddr, stopped: &AtomicBool) {
        let mut line = None;
        while !stopped.load(Ordering::SeqCst) {
            thread::sleep(PACE);
            if line.is_none() {
                line = Client::connect_within(door, PATIENCE).ok();
            }
            let Some(client) = &mut line else { continue };
            let number = self.sent.fetch_add(1, Ordering::SeqCst) + 1;
            match client.try_ask(&["SET", &self.key, &number.to_string()]) {
                Ok(Reply::Simple(_)) => self.acknowledged.store(number, Ordering::SeqCst),
                Ok(Reply::Error(text)) => {
                    let word = text.split(' ').next().unwrap_or_default();
                    assert!(REFUSALS.contains(&word) || word == "UNKNOWN", "{text}");
                }
                Ok(other) => panic!("a write was answered {other:?}"),
                Err(_) => line = None,
            }
        }
    }
}

impl Accounts {
    /// Waits until every client has been told of a write that it has made since.
    fn grow(&self) {
        for account in &self.0 {
            let before = account.sent.load(Ordering::SeqCst);
            eventually("each client to be told of a write", || {
                (account.acknowledged.load(Ordering::SeqCst) > before).then_some(())
            });
        }
    }

    /// Every node shows all that was acknowledged. The clients have stopped.
    fn must_be_at(&self, nodes: &[&NodeProcess]) {
        for account in &self.0 {
            let least = account.acknowledged.load(Ordering::SeqCst);
            let most = account.sent.load(Ordering::SeqCst);
            println!("{}: {least} acknowledged of {most}", account.key);
            for node in nodes {
                eventually(&format!("{} to be {least} at {}", account.key, node.name()), || {
                    let Reply::Bulk(shown) = node.ask(&["GET", &account.key]) else { return None };
                    let shown: u64 = shown.parse().expect("numbers were written");
                    (least..=most).contains(&shown).then_some(())
                });
            }
        }
    }
}

/// Asks for a mode on the command line.
fn ask(node: &NodeProcess, to: &str, more: &[&str]) -> Told {
    let http = node.http.to_string();
    let mut command: Command = quorumor();
    let finished = finish(command.args(["mode", to, "--json", "--http", &http]).args(more));
    let told: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr));
    let text = |name: &str| told[name].as_str().expect("every report has it").to_owned();
    Told { code: finished.status.code(), outcome: text("outcome"), text: text("text") }
}

/// Asks at several nodes at the same time.
fn ask_all(all: &[(&NodeProcess, &str)]) -> Vec<Told> {
    thread::scope(|scope| {
        let asked: Vec<_> =
            all.iter().map(|(node, to)| scope.spawn(|| ask(node, to, &[]))).collect();
        asked.into_iter().map(|it| it.join().expect("no panic")).collect()
    })
}

/// The mode and epoch that all nodes come to agree on.
fn mode(nodes: &[&NodeProcess]) -> (String, u64) {
    eventually("all nodes to agree on the mode", || {
        let told: BTreeSet<_> = nodes
            .iter()
            .map(|node| {
                let strong = node.status()["strong"].clone();
                let mode = strong["mode"].as_str().expect("a mode").to_owned();
                (mode, strong["epoch"].as_u64().expect("a number"), strong["switching"] == true)
            })
            .collect();
        let mut told = told.into_iter();
        let (mode, epoch, switching) = told.next()?;
        (!switching && told.next().is_none()).then_some((mode, epoch))
    })
}

fn id(node: &NodeProcess) -> String {
    node.status()["node"].as_str().expect("every node has an id").to_owned()
}

/// Two nodes are asked for the same at once, and one of them twice: it is one switch, of which all are
/// told, and nothing that was acknowledged is lost.
#[test]
fn the_same_is_asked_for_at_once() {
    let site = Site::loopback(3);
    let nodes = start(&site);
    let all: Vec<_> = nodes.iter().collect();
    let accounts = meanwhile(&site, &[0, 1, 2], |accounts| {
        for round in 1..=2 * ROUNDS {
            let to = if round % 2 == 1 { "strong" } else { "eventual" };
            let told = ask_all(&[(&nodes[0], to), (&nodes[1], to), (&nodes[0], to)]);
            for told in &told {
                let fine = ["done", "already", "underway"].contains(&told.outcome.as_str());
                let is_right = told.code == Some(if told.outcome == "underway" { 7 } else { 0 });
                assert!(fine && is_right, "round {round}: {told:?}");
            }
            println!("{:?}", told.iter().map(|it| it.outcome.as_str()).collect::<Vec<_>>());
            assert!(told.iter().any(|it| it.outcome == "done"), "{told:?}");
            assert_eq!(mode(&all), (to.to_owned(), u64::from(round)), "{told:?}");
            accounts.grow();
        }
    });
    accounts.must_be_at(&all);
}

/// Nodes are asked for opposite modes at once: each is told what came of its wish, all end in the same
/// mode, and nothing that was acknowledged is lost.
#[test]
fn opposites_are_asked_for_at_once() {
    let site = Site::loopback(3);
    let nodes = start(&site);
    let all: Vec<_> = nodes.iter().collect();
    let accounts = meanwhile(&site, &[0, 1, 2], |accounts| {
        for round in 0..2 * ROUNDS {
            let (_, before) = mode(&all);
            let (one, other) =
                if round % 2 == 0 { ("strong", "eventual") } else { ("eventual", "strong") };
            let told = ask_all(&[(&nodes[0], one), (&nodes[1], other), (&nodes[2], one)]);
            println!("{:?}", told.iter().map(|it| it.outcome.as_str()).collect::<Vec<_>>());
            let (holds, epoch) = mode(&all);
            for told in &told {
                let codes = match told.outcome.as_str() {
                    "done" | "already" => 0,
                    "underway" => 7,
                    "aborted" => 1,
                    _ => panic!("{told:?}"),
                };
                assert_eq!(told.code, Some(codes), "{told:?}");
            }
            let begun = told.iter().filter(|it| it.outcome == "done").count() as u64;
            assert!(
                (before..=before + 2 * begun + 2).contains(&epoch),
                "{before}, {told:?}, {epoch}"
            );
            assert_eq!(holds, if epoch % 2 == 1 { "strong" } else { "eventual" });
            accounts.grow();
        }
    });
    accounts.must_be_at(&all);
}

/// The primary that is up, and the node that is asked, cannot be left out of a switch: that is said, with
/// who is meant, and nothing is changed. Once the primary has ended it can be, and what it acknowledged
/// before is not lost; when it comes back it is a member again.
#[test]
fn the_primary_is_left_out_only_when_it_is_gone() {
    let site = Site::loopback(3);
    let mut nodes = start(&site);
    let accounts = meanwhile(&site, &[0, 1, 2], |_| {
        // Now there is a log, and somebody who orders it.
        for to in ["strong", "eventual"] {
            let told = ask(&nodes[0], to, &[]);
            assert_eq!(told.code, Some(0), "{told:?}");
        }
    });
    let all: Vec<_> = nodes.iter().collect();
    accounts.must_be_at(&all);
    let before = mode(&all);
    let primary = eventually("a primary", || {
        let named = nodes[0].status()["strong"]["primary"].clone();
        nodes.iter().position(|node| named == id(node))
    });
    let (name, primary_id) = (nodes[primary].name().to_owned(), id(&nodes[primary]));
    for node in &nodes {
        let told = ask(node, "strong", &["--without", &primary_id[..12]]);
        println!("{told:?}");
        assert_eq!((told.code, told.outcome.as_str()), (Some(7), "cannot-leave-out"), "{told:?}");
        for words in [name.as_str(), "nothing was changed"] {
            assert!(told.text.contains(words), "{words} is missing in: {told:?}");
        }
        assert_eq!(mode(&all), before);
    }
    nodes[primary].kill();
    let others: Vec<usize> = (0..3).filter(|at| *at != primary).collect();
    let accounts_later = meanwhile(&site, &others, |_| {
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            let told = ask(&nodes[others[0]], "strong", &["--without", &primary_id]);
            if told.code == Some(0) {
                break told;
            }
            // Until it has been missed it counts as one that is up.
            assert_eq!(told.outcome, "cannot-leave-out");
            assert!(Instant::now() < deadline, "{told:?}");
        };
        println!("{told:?}");
    });
    let left: Vec<_> = others.iter().map(|at| &nodes[*at]).collect();
    assert_eq!(mode(&left), ("strong".to_owned(), 3));
    accounts_later.must_be_at(&left);
    let told = ask(left[0], "eventual", &[]);
    assert_eq!(told.code, Some(0), "{told:?}");
    nodes[primary].start_again(&[]);
    agree(&nodes);
    let all: Vec<_> = nodes.iter().collect();
    eventually("a switch with the one that has come back", || {
        let told = ask(all[primary], "strong", &[]);
        println!("{told:?}");
        // It is just beginning a new life, for which a switch does not wait.
        let may_be = ["done", "already", "aborted", "underway", "unreachable"];
        assert!(may_be.contains(&told.outcome.as_str()), "{told:?}");
        (told.code == Some(0)).then_some(())
    });
    assert_eq!(mode(&all).0, "strong");
    accounts_later.must_be_at(&all);
    for account in accounts.0.iter().filter(|it| it.key == format!("account-{primary}")) {
        Accounts(vec![Account {
            key: account.key.clone(),
            sent: account.sent.load(Ordering::SeqCst).into(),
            acknowledged: account.acknowledged.load(Ordering::SeqCst).into(),
        }])
        .must_be_at(&all);
    }
}
