//! Strangers in strong mode, as real processes: clusters that must not become one, and two nodes with
//! one identity.
//!
//! Each story is told under load, and what clients were told is judged as a whole (see
//! [`strong_clients`](crate::strong_clients)): two clusters are two histories, and a voter that spoke
//! twice would sooner or later show in one.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{Launch, NodeProcess, Reply, eventually, finish, quorumor, succeed};
use crate::site::Site;
use crate::strong_clients::{self, Load};
use crate::{nodes_of, strong};

/// How long after something went wrong every client must have been told of a write.
const GOES_ON_WITHIN: Duration = Duration::from_secs(15);

/// How often two copies of a voter are started together: either may be the one that stays.
const ROUNDS: usize = 4;

/// What clients do meanwhile: slowly, since it is not about how much a machine can do.
fn load() -> Load {
    Load { pace: Duration::from_millis(5), ..strong::load(6) }
}

/// How a node is started in strong mode that is told of some others only.
fn launch(site: &Site, index: usize, knows: impl Fn(usize) -> bool) -> Launch {
    let mut launch = site.launch(index, "always");
    let unknown = (0..site.size()).filter(|other| !knows(*other));
    let unknown: Vec<_> =
        unknown.map(|other| format!("--peer={}:", site.resp(other).ip())).collect();
    launch.arguments.retain(|it| !unknown.iter().any(|peer| it.starts_with(peer)));
    launch.arguments.extend(["--consistency", "strong", "--voters", "3"].map(str::to_owned));
    launch
}

/// Starts some of the nodes, which are told of each other only, and waits until each takes writes.
fn start(site: &Site, members: Range<usize>) -> Vec<NodeProcess> {
    let start = |index| NodeProcess::launch(launch(site, index, |it| members.contains(&it)));
    let nodes: Vec<_> = members.clone().map(start).collect();
    nodes.iter().for_each(takes_writes);
    nodes
}

fn takes_writes(node: &NodeProcess) {
    eventually("a node to take writes", || {
        (node.ask(&["SET", "hello", "yes"]) == Reply::Simple("OK".into())).then_some(())
    });
}

fn copy(from: &Path, to: &Path) {
    // It may be that there is one of a former round.
    let _ = fs::remove_dir_all(to);
    succeed(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// The id of a node.
fn id(node: &NodeProcess) -> String {
    node.status()["node"].as_str().expect("every node has an id").to_owned()
}

/// The number under which a node votes, if it does.
fn voter(node: &NodeProcess) -> Option<u64> {
    node.status()["strong"]["voter"].as_u64()
}

/// Waits until a node follows the log in a seat of its own.
fn votes(node: &NodeProcess) -> u64 {
    eventually("a node to vote", || {
        let status = node.status();
        let strong = &status["strong"];
        (strong["following"] == true && strong["posture"] == "log").then_some(())?;
        strong["voter"].as_u64()
    })
}

/// The ids of those that vote, as a node sees it, in order.
fn voters(node: &NodeProcess) -> Vec<String> {
    let status = node.status();
    let voters = status["strong"]["voters"].as_array().cloned().unwrap_or_default();
    let mut ids: Vec<_> =
        voters.iter().filter_map(|it| it["node"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

/// Checks that these nodes have the seats, one each, as each of them sees it.
fn have_the_seats(nodes: &[&NodeProcess]) {
    let mut all: Vec<String> = nodes.iter().map(|node| id(node)).collect();
    all.sort();
    for node in nodes {
        eventually("everybody to have a seat", || (voters(node) == all).then_some(()));
        votes(node);
    }
}

/// Asks for a mode on the command line, and is told that it holds.
pub(crate) fn switch(node: &NodeProcess, to: &str) {
    let http = node.http.to_string();
    let finished = finish(quorumor().args(["mode", to, "--http", &http]));
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    assert!(finished.stdout.contains(&format!("{to} mode holds")), "{}", finished.stdout);
}

/// Two clusters that have each been founded for itself and have both been in strong mode meet, since a
/// node of the one was told of one of the other. Both say so, and name both; neither takes anything
/// from the other, both go on, and nothing that was acknowledged at either is lost. Each can still
/// switch its mode, for which all of its members are asked.
#[test]
fn two_strong_clusters_that_meet_stay_apart() {
    let test = "strangers::two_strong_clusters_that_meet_stay_apart";
    let site = Site::loopback(6);
    let mut nodes = start(&site, 0..3);
    nodes.extend(start(&site, 3..6));
    let ids: Vec<String> = nodes.iter().map(id).collect();
    let short = |at: usize| &ids[at][..8];
    let doors = nodes_of(&site);
    let (first, second) = doors.split_at(3);
    let (told_first, (told_second, ())) = strong_clients::watch(first, &load(), |one| {
        strong_clients::watch(second, &load(), |other| {
            // From one side, and then from the other as well.
            for bridge in [3, 1] {
                nodes[bridge].end();
                nodes[bridge] = NodeProcess::launch(launch(&site, bridge, |_| true));
                let halves = [(0..3, 3), (3..6, 0)];
                for (half, stranger) in halves {
                    let names_both = |line: &str| {
                        let strangers = stranger..stranger + 3;
                        let names = |at: usize| {
                            line.contains(short(at)) || line.contains(&format!("node-{at} "))
                        };
                        (line.contains(" ERROR") || line.contains(" WARN"))
                            && line.contains("cannot become one")
                            && strangers.into_iter().any(names)
                    };
                    eventually("each cluster to say that they stay apart", || {
                        let mut said = nodes[half.clone()].iter().map(NodeProcess::output);
                        said.any(|said| said.lines().any(names_both)).then_some(())
                    });
                }
                for watch in [one, other] {
                    assert!(watch.goes_on_within(GOES_ON_WITHIN), "a client waits for ever");
                }
            }
        })
    });
    told_first.must_be_linearizable(test);
    told_second.must_be_linearizable(test);
    // Whoever sees it first names every voter of both.
    let all_six = |line: &str| line.contains("ERROR") && (0..6).all(|at| line.contains(short(at)));
    assert!(nodes.iter().any(|node| node.output().lines().any(all_six)));
    for half in [&nodes[..3], &nodes[3..]] {
        for node in half {
            let members = succeed(quorumor().args(["members", "--http", &node.http.to_string()]));
            assert_eq!(members.matches("node-").count(), 3, "{members}");
        }
        have_the_seats(&half.iter().collect::<Vec<_>>());
        for mode in ["eventual", "strong"] {
            switch(&half[0], mode);
        }
        let mut clients: Vec<_> = half.iter().map(NodeProcess::client).collect();
        let value = half[0].name();
        assert_eq!(clients[1].ask(&["SET", "whose", value]), Reply::Simple("OK".into()));
        for client in &mut clients {
            assert_eq!(client.ask(&["GET", "whose"]), Reply::Bulk(value.into()));
        }
    }
    for node in &mut nodes {
        assert!(node.is_alive(), "{}", node.output());
    }
}

/// A copy of a voter's directory, made while the voter ran and since then left behind, is started beside
/// the voter: it gives way with a message that says what to do. The voter does not notice, and keeps the
/// number under which it votes.
#[test]
fn a_copy_of_a_voter_gives_way() {
    let test = "strangers::a_copy_of_a_voter_gives_way";
    let site = Site::loopback(4);
    let mut nodes = start(&site, 0..3);
    have_the_seats(&nodes.iter().collect::<Vec<_>>());
    let before: Vec<_> = nodes.iter().map(voter).collect();
    let (told, ()) = strong_clients::watch(&nodes_of(&site)[..3], &load(), |watch| {
        copy(&site.data(0), &site.data(3));
        // Of two that start at the same moment either may be the one that stays.
        eventually("the original to be older", || {
            (nodes[0].status()["uptime_seconds"].as_f64()? > 1.5).then_some(())
        });
        assert!(watch.goes_on_within(GOES_ON_WITHIN), "the original has said more since");
        let mut copied = NodeProcess::prepare(launch(&site, 3, |_| true));
        for _ in 0..2 {
            let (status, said) = copied.start_in_vain();
            println!("{status}: {}", said.trim());
            assert_eq!(status.code(), Some(7), "{said}");
            let directory = site.data(3).display().to_string();
            for words in ["a data directory was copied", "gives way", &directory, "empty directory"]
            {
                assert!(said.contains(words), "{words} is missing in: {said}");
            }
        }
        assert!(watch.goes_on_within(GOES_ON_WITHIN), "a client waits for ever");
    });
    told.must_be_linearizable(test);
    assert!(nodes.iter_mut().all(NodeProcess::is_alive));
    have_the_seats(&nodes.iter().collect::<Vec<_>>());
    println!("voters were {before:?}, are {:?}", nodes.iter().map(voter).collect::<Vec<_>>());
}

/// A voter ends, and then it and a copy of its directory are started together. Both remember all that it
/// has said, so both could speak for it: one of the two gives way, and what clients are told shows no
/// trace of it.
#[test]
fn of_a_voter_and_its_copy_started_together_one_stays() {
    let test = "strangers::of_a_voter_and_its_copy_started_together_one_stays";
    let site = Site::loopback(4);
    let mut nodes = start(&site, 0..3);
    nodes.push(NodeProcess::prepare(launch(&site, 3, |_| true)));
    nodes[0].end();
    nodes[0] = NodeProcess::launch(launch(&site, 0, |_| true));
    takes_writes(&nodes[0]);
    let (told, ()) = strong_clients::watch(&nodes_of(&site), &load(), |watch| {
        for _ in 0..ROUNDS {
            nodes[0].end();
            copy(&site.data(0), &site.data(3));
            nodes[0].start_unawaited();
            nodes[3].start_unawaited();
            let (gone, status) = eventually("one of the two to give way", || {
                [0, 3].into_iter().find_map(|at| Some((at, nodes[at].ended()?)))
            });
            let said = nodes[gone].output();
            println!("{} gives way", nodes[gone].name());
            assert_eq!(status.code(), Some(7), "{said}");
            assert!(said.contains("a data directory was copied"), "{said}");
            assert!(watch.goes_on_within(GOES_ON_WITHIN), "a client waits for ever");
            let stays = 3 - gone;
            nodes[stays].wait_until_ready();
            assert!(nodes[stays].is_alive(), "{}", nodes[stays].output());
            have_the_seats(&[&nodes[stays], &nodes[1], &nodes[2]]);
            if stays == 3 {
                nodes[3].end();
                fs::remove_dir_all(site.data(0)).expect("a directory of ours");
                fs::rename(site.data(3), site.data(0)).expect("a directory of ours");
                nodes[0].start_again(&[]);
                takes_writes(&nodes[0]);
            }
        }
    });
    told.must_be_linearizable(test);
}

/// An old copy of a voter's directory is started in its place. It has forgotten what the voter has said
/// since, so it votes under another number, and when the original comes back beside it, that one gives
/// way. After the copy has ended the original is a voter again, under a number that is new as well.
#[test]
fn an_old_copy_votes_under_another_number() {
    let test = "strangers::an_old_copy_votes_under_another_number";
    let site = Site::loopback(4);
    let mut nodes = start(&site, 0..3);
    have_the_seats(&nodes.iter().collect::<Vec<_>>());
    let original = votes(&nodes[0]);
    let (told, ()) = strong_clients::watch(&nodes_of(&site), &load(), |watch| {
        let goes_on = || assert!(watch.goes_on_within(GOES_ON_WITHIN), "a client waits for ever");
        copy(&site.data(0), &site.data(3));
        goes_on();
        nodes[0].kill();
        goes_on();
        let mut copied = NodeProcess::launch(launch(&site, 3, |_| true));
        let second = votes(&copied);
        assert_ne!(second, original);
        assert!(copied.output().contains("never speaks again"), "{}", copied.output());
        eventually("the copy to be older", || {
            (copied.status()["uptime_seconds"].as_f64()? > 1.5).then_some(())
        });
        let (status, said) = nodes[0].start_in_vain();
        assert_eq!(status.code(), Some(7), "{said}");
        assert!(said.contains("end the other node first"), "{said}");
        goes_on();
        copied.end();
        goes_on();
        nodes[0].start_again(&[]);
        let third = votes(&nodes[0]);
        assert!(third != original && third != second, "{original}, {second}, {third}");
        goes_on();
    });
    told.must_be_linearizable(test);
    have_the_seats(&nodes.iter().collect::<Vec<_>>());
}
