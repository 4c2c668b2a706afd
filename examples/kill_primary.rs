//! Strong mode: the primary goes away in the middle of writes, and nothing that was acknowledged is lost.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use quorumor::net::{NodeIdentity, Secret};
use quorumor::protocol::boundary::Reply;
use quorumor::protocol::operation::{Answer, Expiry, Mode, Operation, Text, When, Word};
use quorumor::server::{Node, NodeConfig};

/// How many writes there are, and after how many the primary goes.
const WRITES: usize = 200;
const GOES_AFTER: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let secret = Secret::ephemeral()?;
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["ada", "grace", "alan"] {
        let mut config = NodeConfig::new(name, NodeIdentity::fresh()?);
        config.secret = Some(secret.clone());
        config.peers = nodes.first().map(Node::address).into_iter().collect();
        config.consistency = Mode::Strong;
        config.voters = 3;
        nodes.push(Node::start(config).await?);
    }
    // A write at any of them waits until strong mode has begun.
    set(&nodes[0], "note 0").await;
    println!("three voters");

    let primary = nodes[0].status().strong.primary;
    let is_primary = |node: &&Node| Some(node.id().to_string()) == primary;
    let lost = nodes.iter().find(is_primary).ok_or("there is a primary")?.clone();
    let left: Vec<&Node> = nodes.iter().filter(|node| node.id() != lost.id()).collect();
    let mut going = None;
    let mut acknowledged = 0;
    for number in 1..=WRITES {
        if number == GOES_AFTER {
            let lost = lost.clone();
            going = Some(async_std::task::spawn(async move { lost.close().await }));
        }
        set(left[0], &format!("note {number}")).await;
        acknowledged += 1;
        // Whoever is asked next, it is there.
        let shown = get(left[1]).await;
        if shown != format!("note {number}") {
            return Err(format!("note {number} was acknowledged, and {shown} is read").into());
        }
    }
    println!("the primary went in the middle of {WRITES} writes");
    println!("{acknowledged} were acknowledged, and each was read at another node at once");
    if let Some(going) = going {
        going.await;
    }
    for node in left {
        node.close().await;
    }
    Ok(())
}

/// Sets the note, again if what became of it is not known.
async fn set(node: &Node, note: &str) {
    let (key, value) = (Word(b"note"), Word(note.as_bytes()));
    let set = Text::Set { key, value, expiry: Expiry::None, when: When::Always, get: false };
    while !matches!(node.execute(&Operation::Text(set.clone())).await, Reply::Operated { .. }) {
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
}

async fn get(node: &Node) -> String {
    loop {
        let get = Operation::Text(Text::Get(Word(b"note")));
        if let Reply::Operated { answer: Answer::Bulk(note), .. } = node.execute(&get).await {
            return String::from_utf8_lossy(&note).into_owned();
        }
        async_std::task::sleep(Duration::from_millis(20)).await;
    }
}
