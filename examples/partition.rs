//! A partition with two writes to one key, healed: who won, and why.
//!
//! In virtual time, with nothing but the protocol: two shards that hand each other their messages,
//! or do not. The same code runs in a real node.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::VecDeque;
use std::time::Duration;

use quorumor::protocol::boundary::{Input, Output, Request, Token};
use quorumor::protocol::config::Config;
use quorumor::protocol::event::Event;
use quorumor::protocol::id::{NodeId, Origin};
use quorumor::protocol::message::Envelope;
use quorumor::protocol::shard::Shard;
use quorumor::protocol::time::{Time, WallTime};

const NAMES: [&str; 2] = ["ada", "grace"];

/// Two nodes and the wire between them.
struct World {
    shards: [Shard; 2],
    wire: VecDeque<(usize, Envelope)>,
    now: Time,
}

impl World {
    fn new() -> Self {
        let shard = |number: u64| {
            let config = Config::new(NodeId(u128::from(number)), Origin(number), number);
            // The two know each other; entries of the roster would count as writes in this story.
            Shard::new(Config { roster: false, ..config })
        };
        Self { shards: [shard(1), shard(2)], wire: VecDeque::new(), now: Time::START }
    }

    fn id(&self, node: usize) -> NodeId {
        self.shards[node].config().node
    }

    /// One input at one node; what it sends goes onto the wire.
    fn handle(&mut self, node: usize, input: Input<'_>) {
        let mut output = Output::default();
        self.shards[node].handle(self.now, input, &mut output);
        for send in output.send {
            self.wire.push_back((1 - node, send.envelope));
        }
        for event in output.events {
            if let Event::Conflict(conflict) = event {
                println!(
                    "  {} sees a conflict on {}: {} loses to {}",
                    NAMES[node],
                    conflict.key,
                    name(conflict.loser.origin),
                    name(conflict.winner.origin)
                );
            }
        }
    }

    fn set(&mut self, node: usize, key: &str, value: &str) {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        self.handle(node, Input::Request(Token::default(), Request::Set { key, value }));
        let (stamp, _) = self.shards[node].reader().stamp(key).expect("just written");
        println!(
            "  {} writes {:?} with counter {}",
            NAMES[node],
            String::from_utf8_lossy(value),
            stamp.lamport.0
        );
    }

    fn link(&mut self) {
        for node in 0..2 {
            let peer = self.id(1 - node);
            self.handle(node, Input::PeerUp(peer, Duration::from_millis(1)));
        }
        self.deliver();
    }

    fn cut(&mut self) {
        for node in 0..2 {
            let peer = self.id(1 - node);
            self.handle(node, Input::PeerDown(peer));
        }
    }

    fn deliver(&mut self) {
        while let Some((to, envelope)) = self.wire.pop_front() {
            let from = self.id(1 - to);
            self.handle(to, Input::Message(from, envelope));
        }
    }

    fn show(&self, key: &str) {
        for (shard, name) in self.shards.iter().zip(NAMES) {
            let value = shard.reader().string(key.as_bytes(), WallTime(0), |value| {
                String::from_utf8_lossy(value.unwrap_or(b"nothing")).into_owned()
            });
            println!("  {name} shows {value:?}");
        }
    }
}

fn name(origin: Origin) -> &'static str {
    if origin == Origin(1) { NAMES[0] } else { NAMES[1] }
}

fn main() {
    let mut world = World::new();
    println!("linked:");
    world.link();
    world.set(0, "note", "lunch at noon?");
    world.deliver();
    world.show("note");

    println!("partitioned: both go on");
    world.cut();
    world.set(0, "note", "lunch at one");
    world.set(1, "note", "no lunch");
    world.set(1, "note", "lunch at two");
    world.show("note");

    println!("healed:");
    world.link();
    world.show("note");
    println!(
        "  grace wrote twice, so the greater counter is hers; a tie goes to the higher origin"
    );
    let agree = world.shards[0].summary() == world.shards[1].summary();
    println!("  both hold the same: {agree}");
}
