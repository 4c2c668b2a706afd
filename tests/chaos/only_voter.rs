//! Two nodes in strong mode, of which one votes, and that one loses what it knew.

use std::fs;

use crate::agree;
use crate::common::{NodeProcess, Reply, eventually};
use crate::directories::{KEYS, segments, shows};
use crate::site::Site;
use crate::strangers::switch;

/// Errors by which a node says that nothing was changed.
const REFUSALS: [&str; 4] = ["NOQUORUM", "SWITCHING", "LOADING", "MISCONF"];

/// Writes at a node, as soon as it takes writes again.
fn write(node: &NodeProcess, what: &str) {
    let mut client = node.client();
    for number in 0..KEYS {
        let key = format!("{what}:{number}");
        eventually("a write to be taken", || {
            let reply = client.ask(&["SET", &key, what]);
            match &reply {
                Reply::Simple(_) => Some(()),
                Reply::Error(text) if REFUSALS.iter().any(|it| text.starts_with(it)) => None,
                _ => panic!("{reply:?}"),
            }
        });
    }
}

/// It comes back with a hole in its records, or without any: the other node is asked what it holds, and
/// writes are taken again, in the mode that was. What the two had agreed on is there, and so it stays.
#[test]
fn loses_what_it_knew() {
    for mode in ["strong", "eventual"] {
        for loses_all in [true, false] {
            let site = Site::loopback(2);
            let launch = |index| NodeProcess::launch(site.launch(index, "always"));
            let mut nodes: Vec<_> = (0..2).map(launch).collect();
            agree(&nodes);
            switch(&nodes[0], "strong");
            write(&nodes[1], "whole");
            if mode == "eventual" {
                switch(&nodes[1], "eventual");
                write(&nodes[0], "later");
            }
            agree(&nodes);
            let status = nodes[0].status();
            let voters = status["strong"]["voters"].as_array().expect("voters").clone();
            assert_eq!(voters.len(), 1, "{voters:?}");
            let voter = nodes.iter().position(|it| it.status()["node"] == voters[0]["node"]);
            let voter = voter.expect("one of the two");
            let before = status["strong"]["epoch"].as_u64().expect("a number");
            nodes[voter].kill();
            for segment in segments(&site.data(voter)) {
                let mut bytes = fs::read(&segment).expect("a file of ours");
                if loses_all {
                    fs::remove_file(&segment).expect("a file of ours");
                } else if let Some(used) = bytes.iter().rposition(|byte| *byte != 0) {
                    bytes[used / 2] ^= 0x10;
                    fs::write(&segment, &bytes).expect("a file of ours");
                }
            }
            nodes[voter].start_again(&["--salvage"]);
            for node in &nodes {
                write(node, "after");
                eventually("the mode that was, in a later epoch", || {
                    let strong = node.status()["strong"].clone();
                    let epoch = strong["epoch"].as_u64().expect("a number");
                    (strong["mode"] == mode && epoch > before).then_some(())
                });
            }
            agree(&nodes);
            // So it stays, whoever is killed.
            nodes.iter_mut().for_each(NodeProcess::kill);
            nodes.iter_mut().for_each(|node| node.start_again(&[]));
            agree(&nodes);
            for node in &nodes {
                write(node, "at last");
                ["whole", "after", "at last"].iter().for_each(|what| shows(node, what));
                if mode == "eventual" {
                    shows(node, "later");
                }
            }
            for to in ["strong", "eventual", "strong"] {
                switch(&nodes[0], to);
                write(&nodes[1], to);
            }
        }
    }
}
