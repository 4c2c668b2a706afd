//! A node embedded in a program of one's own: presence of the machines on a LAN.
//!
//! Every copy of the program keeps a key with what it is doing, and reads everybody's from its own
//! memory. No server is needed beside the program.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use quorumor::net::{NodeIdentity, Secret};
use quorumor::server::{Node, NodeConfig};

/// What a program would have: a name, and a node that shares what it says.
struct Presence {
    node: Node,
}

impl Presence {
    async fn join(
        name: &str,
        secret: &Secret,
        peer: Option<SocketAddr>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut config = NodeConfig::new(name, NodeIdentity::fresh()?);
        config.cluster = "presence".to_owned();
        config.secret = Some(secret.clone());
        config.peers = peer.into_iter().collect();
        Ok(Self { node: Node::start(config).await? })
    }

    fn say(&self, what: &str) {
        self.node.set(format!("presence:{}", self.node.name()), what);
    }

    /// Everybody's last words, from this node's own memory.
    fn everybody(&self) -> Vec<(String, String)> {
        let mut keys = Vec::new();
        let entered = self.node.enter();
        let mut cursor = 0;
        loop {
            cursor = entered.scan(cursor, 100, self.node.wall(), |key, _| keys.push(key.clone()));
            if cursor == 0 {
                break;
            }
        }
        drop(entered);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut all: Vec<_> = keys
            .iter()
            .filter_map(|key| Some((text(key), text(&self.node.get(&**key)?))))
            .collect();
        all.sort();
        all
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let secret = Secret::ephemeral()?;
    let kitchen = Presence::join("kitchen", &secret, None).await?;
    let garden = Presence::join("garden", &secret, Some(kitchen.node.address())).await?;
    kitchen.say("baking");
    garden.say("digging");
    garden.say("watering");
    let deadline = Instant::now() + Duration::from_secs(5);
    while kitchen.everybody().len() < 2 && Instant::now() < deadline {
        async_std::task::sleep(Duration::from_millis(1)).await;
    }
    kitchen.node.agreement(deadline).await;
    for (key, what) in kitchen.everybody() {
        println!("{key} is {what}");
    }
    kitchen.node.close().await;
    garden.node.close().await;
    Ok(())
}
