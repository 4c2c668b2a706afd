//! Three nodes in one process: a write at one is read at another, and all agree.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::{Duration, Instant};

use quorumor::net::{NodeIdentity, Secret};
use quorumor::protocol::boundary::Reply;
use quorumor::server::{Node, NodeConfig};

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    // The members of a cluster share a secret; this one lives as long as the example.
    let secret = Secret::ephemeral()?;
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["ada", "grace", "alan"] {
        let mut config = NodeConfig::new(name, NodeIdentity::fresh()?);
        config.secret = Some(secret.clone());
        // One address is enough: peers tell each other about the rest.
        config.peers = nodes.first().map(Node::address).into_iter().collect();
        nodes.push(Node::start(config).await?);
    }
    let (ada, alan) = (&nodes[0], &nodes[2]);
    while nodes.iter().any(|node| node.enter().shard().peers().count() < 2) {
        async_std::task::sleep(Duration::from_millis(1)).await;
    }
    println!("three nodes are linked");

    let Reply::Written { dot, .. } = ada.set("ada:note", "hello, FaceTwit") else {
        return Err("not written".into());
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    let covered = ada.wait(dot, 2, Some(deadline)).await;
    println!("ada wrote; {covered} peers have it");
    let note = alan.get("ada:note").unwrap_or_default();
    println!("alan reads: {}", String::from_utf8_lossy(&note));

    alan.delete("ada:note");
    let agreement = ada.agreement(deadline).await;
    println!("alan deleted; everybody agrees: {}", agreement.is_unanimous());
    println!("ada reads: {:?}", ada.get("ada:note"));
    for node in &nodes {
        node.close().await;
    }
    Ok(())
}
