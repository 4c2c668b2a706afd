//! A write shows as a whole: where one part of it shows, every other part shows too, unless
//! something greater has been written in its place.
//!
//! The greater one may not have come here yet: a node that has replaced a part passes on what is
//! left, and the replacement by itself. What must never happen is that a message holds a part that
//! nothing has replaced, and not the other.
//!
//! Looked at for the writes that a step brings, after the step. That is enough, because a key that
//! moves on can only move up, away from the write.

use super::Fault;
use super::oracle::Oracle;
use crate::sim::world::World;

/// Looks at some writes at a node.
pub(super) fn check(
    world: &World,
    node: usize,
    oracle: &Oracle,
    writes: &[usize],
) -> Result<(), Fault> {
    let Some(shard) = world.shard(node) else { return Ok(()) };
    let reader = shard.reader();
    for record in writes.iter().map(|number| oracle.record(*number)) {
        if record.cells.len() < 2 {
            continue;
        }
        let shown = |key| reader.stamp(oracle.key(key)).map(|(stamp, _)| stamp);
        let mut parts = record.cells.iter().map(|cell| cell.key);
        let Some(here) = parts.find(|key| shown(*key) == Some(record.stamp)) else { continue };
        for cell in &record.cells {
            let shown = shown(cell.key);
            if shown.is_none_or(|shown| shown < record.stamp)
                && !oracle.is_superseded(cell.key, record.stamp)
                && !oracle.is_collected(shard, cell.key, record.stamp)
            {
                let (here, there) = (oracle.key(here), oracle.key(cell.key));
                let text = format!("{} shows for {here}, but {there} has {shown:?}", record.stamp);
                return Err(Fault::at(node, "batch", text));
            }
        }
    }
    Ok(())
}
