//! Two withdrawals from one account at the same time: wrong in eventual mode, right in strong mode.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::{Duration, Instant};

use quorumor::net::{NodeIdentity, Secret};
use quorumor::protocol::boundary::Reply;
use quorumor::protocol::operation::{Answer, Expiry, Mode, Operation, Text, When, Word};
use quorumor::server::{Node, NodeConfig};

const ACCOUNT: &[u8] = b"account:ada";

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let secret = Secret::ephemeral()?;
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["bank", "branch", "machine"] {
        let mut config = NodeConfig::new(name, NodeIdentity::fresh()?);
        config.secret = Some(secret.clone());
        config.peers = nodes.first().map(Node::address).into_iter().collect();
        config.voters = 3;
        nodes.push(Node::start(config).await?);
    }
    while nodes.iter().any(|node| node.enter().shard().peers().count() < 2) {
        async_std::task::sleep(Duration::from_millis(1)).await;
    }
    let [bank, branch, machine] = &nodes[..] else { return Err("three nodes".into()) };

    bank.set(ACCOUNT, "100");
    bank.agreement(Instant::now() + Duration::from_secs(5)).await;
    // Both look, both find enough, both take it.
    let (at_branch, at_machine) = (branch.get(ACCOUNT), machine.get(ACCOUNT));
    for (node, balance) in [(branch, at_branch), (machine, at_machine)] {
        let balance: i64 = String::from_utf8(balance.ok_or("a balance")?)?.parse()?;
        if balance >= 80 {
            node.set(ACCOUNT, (balance - 80).to_string());
        }
    }
    bank.agreement(Instant::now() + Duration::from_secs(5)).await;
    let left = String::from_utf8(bank.get(ACCOUNT).ok_or("a balance")?)?;
    println!("eventual: 80 were taken twice from 100, and {left} are left");

    let switched = bank.switch_mode(Mode::Strong, &[], false).await?;
    println!("switched: {}", switched.text);
    let set = |value: &'static [u8]| {
        let (key, value) = (Word(ACCOUNT), Word(value));
        let (expiry, when) = (Expiry::None, When::Always);
        Operation::Text(Text::Set { key, value, expiry, when, get: false })
    };
    bank.execute(&set(b"100")).await;
    // Both look, and both take it unless the account has changed since.
    let mut looked = Vec::new();
    for node in [branch, machine] {
        node.execute(&Operation::Text(Text::Get(Word(ACCOUNT)))).await;
        looked.push(node.reader().version(ACCOUNT, node.wall()));
    }
    let (mut taken, mut refused) = (0, 0);
    for (node, version) in [branch, machine].into_iter().zip(looked) {
        let watched = vec![(Word(ACCOUNT), version)];
        let withdraw = Operation::Batch { watched, operations: vec![set(b"20")] };
        match node.execute(&withdraw).await {
            Reply::Operated { answer: Answer::NilArray, .. } => refused += 1,
            Reply::Operated { .. } => taken += 1,
            other => return Err(format!("{other:?}").into()),
        }
    }
    println!(
        "strong: {taken} withdrawal was made, {refused} was told that the account had changed"
    );
    for node in &nodes {
        node.close().await;
    }
    Ok(())
}
