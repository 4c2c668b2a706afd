//! A peer that answers "I hold your write, and all before it" does.
//!
//! That is what a client's `WAIT` relies on. Looked at when the answer comes back: by then the peer
//! must show each of those cells, or something greater, by the oracle's account of what reached it.
//! An answer of a life that has ended since is let pass; what it said was lost with it.

use std::collections::BTreeMap;

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::stamp::Dot;
use crate::sim::world::World;

/// Questions under way. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Answers {
    asked: BTreeMap<Token, Asked>,
}

/// What was asked.
#[derive(Debug)]
struct Asked {
    peer: usize,
    /// Which life of the peer it was, and how often it had begun anew.
    incarnation: u32,
    rebuilds: u64,
    dot: Option<Dot>,
}

impl Answers {
    /// A node asks a peer whether it holds all of the node's writes.
    pub(super) fn asked(&mut self, world: &World, node: usize, token: Token, peer: usize) {
        let dot = world.last_dot(node);
        let incarnation = world.incarnation(peer);
        let rebuilds = rebuilds(world, peer);
        self.asked.insert(token, Asked { peer, incarnation, rebuilds, dot });
    }

    /// Looks at the answers that a step brought to a node.
    pub(super) fn check(
        &mut self,
        world: &World,
        node: usize,
        oracle: &Oracle,
    ) -> Result<(), Fault> {
        for (token, reply) in &world.output().reply {
            let Reply::Answer { covers, .. } = reply else { continue };
            let Some(Asked { peer, incarnation, rebuilds: begun, dot }) = self.asked.remove(token)
            else {
                let text = "got an answer to a question that nobody asked".to_owned();
                return Err(Fault::at(node, "answer", text));
            };
            let lives = world.incarnation(peer) == incarnation && rebuilds(world, peer) == begun;
            let Some(shard) = world.shard(peer) else { continue };
            let Some(dot) = dot.filter(|_| *covers && lives) else { continue };
            for dot in (1..=dot.seq).map(|seq| Dot { seq, ..dot }) {
                let Some((stamp, cell)) = oracle.find(dot) else { continue };
                let shown = oracle.shown(peer, cell.key).map(|(record, _)| record.stamp);
                if shown.is_none_or(|shown| shown < stamp)
                    && !oracle.is_collected(shard, cell.key, stamp)
                {
                    let text =
                        format!("was told that n{} holds {dot}, which it does not", peer + 1);
                    return Err(Fault::at(node, "answer", text));
                }
            }
        }
        Ok(())
    }
}

fn rebuilds(world: &World, node: usize) -> u64 {
    world.shard(node).map_or(0, |shard| shard.counters().rebuilds)
}
