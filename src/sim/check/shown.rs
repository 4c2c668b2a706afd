//! What a node shows for a key is the greatest of what reached it, as it was written, and it only
//! moves up.
//!
//! Looked at whenever a step may have changed a key: by what the node's reader answers, against what
//! the oracle says and against what the node showed before. Three checkers share the look:
//! *shown* (neither less nor more than what reached it), *order* (stamps only grow; and so nothing
//! deleted comes back, which is said in words of its own), *invented* (the value is the one that was
//! written with this stamp).

use std::collections::BTreeMap;

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::cell::Content;
use crate::protocol::stamp::Stamp;
use crate::protocol::time::WallTime;
use crate::sim::world::World;

/// What nodes showed so far. See the module's documentation.
#[derive(Debug)]
pub(super) struct Shown {
    /// Per node and key the stamp, and whether it was a value.
    last: Vec<BTreeMap<usize, (Stamp, bool)>>,
}

impl Shown {
    pub(super) fn new(nodes: usize) -> Self {
        Self { last: vec![BTreeMap::new(); nodes] }
    }

    /// A node has died; its next life begins with nothing.
    pub(super) fn forget(&mut self, node: usize) {
        self.last[node].clear();
    }

    /// Looks at some keys of a node.
    pub(super) fn check(
        &mut self,
        world: &World,
        node: usize,
        oracle: &Oracle,
        keys: &[usize],
    ) -> Result<(), Fault> {
        let Some(shard) = world.shard(node) else { return Ok(()) };
        let reader = shard.reader();
        for &key in keys {
            let name = oracle.key(key);
            let now = reader.stamp(name);
            let before = match now {
                Some(now) => self.last[node].insert(key, now),
                None => self.last[node].get(&key).copied(),
            };
            // A deletion that was collected leaves nothing, and nothing older comes in its place.
            let collected = before.is_some_and(|(stamp, value)| {
                !value && now.is_none() && oracle.is_collected(shard, key, stamp)
            });
            only_up(before.filter(|_| !collected), now)
                .map_err(|what| Fault::at(node, "order", format!("{name}: {what}")))?;
            let Some((record, cell)) = oracle.shown(node, key) else { continue };
            match now {
                Some((stamp, _)) if stamp == record.stamp => {}
                None if oracle.is_collected(shard, key, record.stamp) => continue,
                _ => {
                    let (now, best) = (now.map(|(stamp, _)| stamp), record.stamp);
                    let text = format!("{name} shows {now:?}, where {best} has reached it");
                    return Err(Fault::at(node, "shown", text));
                }
            }
            let shows = reader.string(name, WallTime(0), |value| value.map(Content::from));
            let shows = shows.unwrap_or(Content::Tombstone);
            if shows != cell.content {
                let text = format!("{name} shows {shows:?}, written {:?}", cell.content);
                return Err(Fault::at(node, "invented", text));
            }
        }
        Ok(())
    }
}

/// What is wrong with how a key has changed, if anything.
fn only_up(before: Option<(Stamp, bool)>, now: Option<(Stamp, bool)>) -> Result<(), String> {
    match (before, now) {
        (Some((before, _)), None) => Err(format!("shows nothing after {before}")),
        (Some((before, false)), Some((now, true))) if now < before => {
            Err(format!("{now} has come back after its deletion by {before}"))
        }
        (Some((before, _)), Some((now, _))) if now < before => {
            Err(format!("shows {now} after {before}"))
        }
        _ => Ok(()),
    }
}
