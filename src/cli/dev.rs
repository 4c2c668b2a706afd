//! `quorumor dev`: a cluster to try things with.

use std::net::{Ipv4Addr, SocketAddr};

use clap::Args;

use super::Exit;
use super::exit::print;
use super::shutdown::Shutdown;
use crate::api::http::HttpDoor;
use crate::api::resp::door::{Door as RespDoor, OpenError};
use crate::api::resp::settings::Settings as RespSettings;
use crate::net::{self, Emulation, NodeIdentity, Secret};
use crate::protocol::config::{Strategy, VOTERS_DEFAULT};
use crate::protocol::operation::Mode;
use crate::server::{Node, NodeConfig};

/// The Redis port of the first peer; the next ones are ten higher each.
const RESP_PORT: u16 = 7401;

/// How far the ports of two peers are apart.
const PORT_STEP: u16 = 10;

/// The most peers: one more and their ports leave the range set aside for them.
const NODES_MAX: u16 = 25;

/// Runs a few peers in this process, in memory, with nothing to configure.
///
/// They speak real QUIC to each other on this machine, with a secret made for this run.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// How many peers.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,

    /// What the links are like: loopback, lan, wifi, wan, … or a file.
    #[arg(long, value_name = "NAME|FILE", default_value = "loopback")]
    profile: String,

    /// How writes are ordered: eventual or strong.
    #[arg(long, value_name = "MODE", default_value = "eventual")]
    consistency: Mode,

    /// The direction of rounds: push, pull or push-pull.
    #[arg(long, default_value = "push-pull")]
    strategy: Strategy,

    /// The time between two rounds.
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: super::settings::Interval,
}

/// One peer with its doors.
struct Peer {
    node: Node,
    resp: RespDoor,
    http: HttpDoor,
}

/// Runs the peers until told to end.
pub async fn run(args: DevArgs) -> Exit {
    let shutdown = match Shutdown::listen() {
        Ok(shutdown) => shutdown,
        Err(error) => return Exit::Failed.because(error),
    };
    let peers = match open(&args).await {
        Ok(peers) => peers,
        Err(exit) => return exit,
    };
    // A node does not end because nobody reads its banner.
    print(&banner(&peers));
    shutdown.requested().await;
    for peer in peers {
        peer.resp.close().await;
        drop(peer.http);
        peer.node.close().await;
    }
    Exit::Ok
}

async fn open(args: &DevArgs) -> Result<Vec<Peer>, Exit> {
    let failed = |error: &dyn std::fmt::Display| Exit::Failed.because(error);
    let profile = net::load_profile(&args.profile).map_err(|error| Exit::Usage.because(error))?;
    let secret = Secret::ephemeral().map_err(|error| failed(&error))?;
    let mut peers: Vec<Peer> = Vec::new();
    for number in 0..args.nodes {
        let identity = NodeIdentity::fresh().map_err(|error| failed(&error))?;
        let mut config = NodeConfig::new(format!("dev{}", number + 1), identity);
        "dev".clone_into(&mut config.cluster);
        config.secret = Some(secret.clone());
        config.consistency = args.consistency;
        config.voters = usize::from(args.nodes).min(VOTERS_DEFAULT);
        config.strategy = args.strategy;
        config.interval = args.interval.0;
        config.peers = peers.iter().map(|peer| peer.node.address()).collect();
        let emulation = Emulation::new(profile.clone(), usize::from(number), fastrand::u64(..));
        for (at, peer) in peers.iter().enumerate() {
            emulation.place(peer.node.address(), at);
        }
        config.emulation = Some(emulation.clone());
        let node = Node::start(config).await.map_err(|error| failed(&error))?;
        for peer in &peers {
            if let Some(theirs) = &peer.node.config().emulation {
                theirs.place(node.address(), usize::from(number));
            }
        }
        let port = RESP_PORT + number * PORT_STEP;
        let resp = open_resp(&node, port).map_err(|error| failed(&error))?;
        let http = open_http(&node, port + 1).await.map_err(|error| failed(&error))?;
        peers.push(Peer { node, resp, http });
    }
    Ok(peers)
}

/// Opens the door at `port`, or at a free one if that is taken.
fn open_resp(node: &Node, port: u16) -> Result<RespDoor, OpenError> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    RespDoor::open(node.clone(), local(port), RespSettings::default())
        .or_else(|_| RespDoor::open(node.clone(), local(0), RespSettings::default()))
}

async fn open_http(node: &Node, port: u16) -> std::io::Result<HttpDoor> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match HttpDoor::open(node.clone(), local(port)).await {
        Ok(door) => Ok(door),
        Err(_) => HttpDoor::open(node.clone(), local(0)).await,
    }
}

fn banner(peers: &[Peer]) -> String {
    let mut lines = vec![format!(
        "quorumor {} · {} peers in memory, this machine only, until Ctrl-C\n",
        env!("CARGO_PKG_VERSION"),
        peers.len()
    )];
    for Peer { node, resp, http } in peers {
        lines.push(format!(
            "  {:<5} redis-cli -p {:<5}   http://{}/status",
            node.name(),
            resp.address().port(),
            http.address()
        ));
    }
    if let (Some(first), Some(last)) = (peers.first(), peers.last()) {
        let (first_port, last_port) = (first.resp.address().port(), last.resp.address().port());
        lines.push("\nwrite at one, read at another:".to_owned());
        lines.push(format!("  redis-cli -p {first_port} set note 'hello, peers'"));
        lines.push(format!("  redis-cli -p {last_port} get note"));
        lines.push(format!("  quorumor status {} --wait-converged 5s", last.http.address()));
    }
    lines.join("\n") + "\n"
}
