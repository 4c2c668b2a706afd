//! What a deletion knew of does not show again where the deletion is held.
//!
//! A value of a key that shows at a node, and a deletion of that key with a greater stamp whose writer
//! knew of the value: then the node does not claim to hold the deletion. Whether it still has the
//! tombstone or has collected it makes no difference, so this is what collection must not break. That
//! a node which lacks the deletion may show the value for a while is as it should be; in the end all
//! hold the same, and are all looked at.
//!
//! Nor does a node that has filled itself anew make such a value anew, under a later stamp.

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::cell::{Content, Key};
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Stamp;
use crate::sim::world::World;

/// Looks at a write that a node makes anew.
pub(super) fn check_made_anew(
    shard: &Shard,
    node: usize,
    oracle: &Oracle,
    of: Stamp,
    keys: &[Key],
) -> Result<(), Fault> {
    let Some(old) = oracle.by_stamp(of) else { return Ok(()) };
    for cell in &oracle.record(old).cells {
        let key = oracle.key(cell.key);
        if !keys.contains(key) || cell.content == Content::Tombstone {
            continue;
        }
        for (deleted, deletion) in oracle.deletions(cell.key) {
            if deleted > of && deletion.knew(cell) && shard.vector().contains(deletion.dot) {
                let text = format!("makes {of} of {key} anew, which was deleted by {deleted}");
                return Err(Fault::at(node, "resurrection", text));
            }
        }
    }
    Ok(())
}

/// Looks at some keys of a node.
pub(super) fn check(
    world: &World,
    node: usize,
    oracle: &Oracle,
    keys: &[usize],
) -> Result<(), Fault> {
    let Some(shard) = world.shard(node) else { return Ok(()) };
    let reader = shard.reader();
    for &key in keys {
        let Some((stamp, true)) = reader.stamp(oracle.key(key)) else { continue };
        let Some(number) = oracle.by_stamp(stamp) else { continue };
        let Some(shown) = oracle.record(number).cell(key) else { continue };
        for (deleted, cell) in oracle.deletions(key) {
            if deleted > stamp && cell.knew(shown) && shard.vector().contains(cell.dot) {
                let key = oracle.key(key);
                let text = format!("{key} shows {stamp}, which was deleted by {deleted}");
                return Err(Fault::at(node, "resurrection", text));
            }
        }
    }
    Ok(())
}
