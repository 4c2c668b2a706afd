//! A version vector never shrinks, and every dot in it is true.
//!
//! True means: the node shows the cell of that name or something greater. This is the very thing
//! that the hole in DESIGN's terms breaks: a vector that claims a cell which never arrived, so that
//! nobody will ever send it. Looked at for the dots that a step adds; that is enough, since what a
//! node shows only moves up.

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::stamp::Dot;
use crate::protocol::version::VersionVector;
use crate::sim::world::World;

/// The vectors of all nodes as they were. See the module's documentation.
#[derive(Debug)]
pub(super) struct Vectors {
    last: Vec<VersionVector>,
}

impl Vectors {
    pub(super) fn new(nodes: usize) -> Self {
        Self { last: vec![VersionVector::default(); nodes] }
    }

    /// A node has died; its next life begins with nothing.
    pub(super) fn forget(&mut self, node: usize) {
        self.last[node] = VersionVector::default();
    }

    /// Looks at a node after a step.
    pub(super) fn check(
        &mut self,
        world: &World,
        node: usize,
        oracle: &Oracle,
    ) -> Result<(), Fault> {
        let Some(shard) = world.shard(node) else { return Ok(()) };
        let (now, before) = (shard.vector(), &self.last[node]);
        if now == before {
            return Ok(());
        }
        if !now.covers(before) {
            let gone = before.minus(now);
            return Err(Fault::at(node, "vector", format!("no longer claims {gone:?}")));
        }
        let reader = shard.reader();
        for (origin, ranges) in now.minus(before) {
            for seq in ranges.into_iter().flat_map(|(first, last)| first..=last) {
                let dot = Dot { origin, seq };
                if oracle.is_reserved(dot) {
                    continue;
                }
                let Some((stamp, cell)) = oracle.find(dot) else {
                    let text = format!("claims {dot}, which nobody wrote");
                    return Err(Fault::at(node, "vector", text));
                };
                let key = oracle.key(cell.key);
                let shown = reader.stamp(key).map(|(stamp, _)| stamp);
                if shown.is_none_or(|shown| shown < stamp)
                    && !oracle.is_collected(shard, cell.key, stamp)
                {
                    let text = format!("claims {dot} ({stamp}), but {key} has {shown:?}");
                    return Err(Fault::at(node, "vector", text));
                }
            }
        }
        self.last[node] = now.clone();
        Ok(())
    }
}
