//! No acknowledged write gets lost, except to a greater stamp or with the last node that had it.
//!
//! What only one node had, and not on its disk, dies with it. Exactly that is excused: per key there
//! is a stamp below which nothing in the end may show. An acknowledgement raises it to the write's
//! own stamp. A crash lowers it to the greatest that reached any node that is up, or its disk, by
//! the oracle's account of what was delivered, not by what the nodes say of themselves. A write that
//! was only on its way at the time may arrive or not. A deletion may have been collected, and leaves
//! nothing then, or what its writer did not know of and a node that came later brought along.

use std::collections::BTreeMap;

use super::Fault;
use super::oracle::{Oracle, Record};
use crate::protocol::stamp::Stamp;
use crate::sim::world::World;

/// What must show in the end. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Acknowledged {
    /// Per key the least stamp.
    floors: BTreeMap<usize, Stamp>,
    cells_died: usize,
}

impl Acknowledged {
    /// A client was told that a write was done.
    pub(super) fn add(&mut self, record: &Record) {
        for cell in &record.cells {
            let floor = self.floors.entry(cell.key).or_insert(record.stamp);
            *floor = record.stamp.max(*floor);
        }
    }

    /// A node has died; the oracle has forgotten already what it lost.
    pub(super) fn died(&mut self, world: &World, oracle: &Oracle) {
        let nodes = 0..world.plan().nodes;
        let others: Vec<_> =
            nodes.filter(|node| world.has_disks() || world.shard(*node).is_some()).collect();
        let before = std::mem::take(&mut self.floors);
        for (key, floor) in &before {
            let shown = others.iter().filter_map(|other| oracle.shown(*other, *key));
            if let Some(left) = shown.map(|(record, _)| record.stamp).max() {
                self.floors.insert(*key, left);
            }
            let left = self.floors.get(key);
            let gone = |record: &&Record| {
                record.stamp <= *floor && left.is_none_or(|left| record.stamp > *left)
            };
            let records = oracle.records().iter().filter(|record| record.cell(*key).is_some());
            self.cells_died += records.filter(gone).count();
        }
    }

    /// How many cells of acknowledged writes died with a node, those written over included.
    pub(super) fn cells_died(&self) -> usize {
        self.cells_died
    }

    /// Whether every node that is up shows at least what must show.
    pub(super) fn check(&self, world: &World, oracle: &Oracle) -> Result<(), Fault> {
        for (node, shard) in world.shards() {
            let reader = shard.reader();
            for (key, floor) in &self.floors {
                let shown = reader.stamp(oracle.key(*key)).map(|(stamp, _)| stamp);
                if shown.is_none_or(|shown| shown < *floor)
                    && !oracle.may_pass(*key, *floor, shown)
                    && !(shown.is_none() && oracle.is_collected(shard, *key, *floor))
                {
                    let key = oracle.key(*key);
                    let text = format!("{floor} of {key} was acknowledged; it shows {shown:?}");
                    return Err(Fault::at(node, "acknowledged", text));
                }
            }
        }
        Ok(())
    }
}
