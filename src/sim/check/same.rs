//! In the end everybody has the same, and then there is nothing left to say.
//!
//! *same* compares contents, key by key, stamps and values and tombstones, and not only the hashes
//! that the nodes themselves would compare; then those, too. *quiet* looks at what was sent after
//! everything has ended: openings of rounds that find nothing, and nothing else; and no exchange is
//! left hanging.

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::cell::Content;
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Stamp;
use crate::protocol::time::WallTime;
use crate::sim::plan::is_ending;
use crate::sim::world::World;

/// Compares every node with the first.
pub(super) fn check(world: &World, oracle: &Oracle) -> Result<(), Fault> {
    let mut shards = world.shards();
    let Some((first, one)) = shards.next() else { return Ok(()) };
    for (node, other) in shards {
        for (number, key) in oracle.keys() {
            let (here, there) = (content(one, key), content(other, key));
            // One of the two may have collected a deletion that the other still has.
            let collected = match (&here, &there) {
                (None, Some((stamp, Content::Tombstone))) => {
                    oracle.is_collected(one, number, *stamp)
                }
                (Some((stamp, Content::Tombstone)), None) => {
                    oracle.is_collected(other, number, *stamp)
                }
                _ => false,
            };
            if here != there && !collected {
                let text = format!("{key} is {there:?}, at n{} it is {here:?}", first + 1);
                return Err(Fault::at(node, "same", text));
            }
        }
        let (here, there) = (one.summary(), other.summary());
        if here != there {
            let text = format!("sums up as {there:?}, n{} as {here:?}", first + 1);
            return Err(Fault::at(node, "same", text));
        }
    }
    for (node, shard) in world.shards() {
        check_scan(node, shard, oracle)?;
    }
    Ok(())
}

/// A scan hands out every key that shows, once, and nothing else; and the counts agree.
fn check_scan(node: usize, shard: &Shard, oracle: &Oracle) -> Result<(), Fault> {
    let mut scanned = Vec::new();
    let mut cursor = 0;
    loop {
        cursor = shard.store().scan(cursor, 16, WallTime(0), |key, _| scanned.push(key.clone()));
        if cursor == 0 {
            break;
        }
    }
    let counted = scanned.len();
    scanned.retain(|key| !is_ending(key));
    scanned.sort_unstable();
    let reader = shard.reader();
    let mut live: Vec<_> = oracle
        .keys()
        .map(|(_, key)| key.clone())
        .filter(|key| reader.contains(key, WallTime(0)))
        .collect();
    live.sort_unstable();
    if scanned != live || shard.store().keys_live() != counted {
        let (scanned, counted) = (scanned.len(), shard.store().keys_live());
        let text = format!("{} keys show, {scanned} are scanned, {counted} counted", live.len());
        return Err(Fault::at(node, "same", text));
    }
    Ok(())
}

/// What a node has for a key.
fn content(shard: &Shard, key: &[u8]) -> Option<(Stamp, Content)> {
    let reader = shard.reader();
    let (stamp, _) = reader.stamp(key)?;
    let value = reader.string(key, WallTime(0), |value| value.map(Content::from));
    Some((stamp, value.unwrap_or(Content::Tombstone)))
}

/// Looks at what was sent since the tally was last reset.
pub(super) fn check_quiet(world: &World) -> Result<(), Fault> {
    for (kind, count) in world.tally().kinds() {
        if kind != "open" && count.messages > 0 {
            let text = format!("{} messages of kind {kind} with nothing to say", count.messages);
            return Err(Fault::anywhere("quiet", text));
        }
    }
    for (node, shard) in world.shards() {
        if shard.exchanges() != (0, 0) {
            let (outgoing, incoming) = shard.exchanges();
            let text = format!("{outgoing} deltas out and {incoming} in are left hanging");
            return Err(Fault::at(node, "quiet", text));
        }
    }
    if world.plan().settings.roster {
        for (node, shard) in world.shards() {
            let status = shard.collection();
            if status.tombstones > 0 {
                let text = format!("tombstones are left: {status:?}");
                return Err(Fault::at(node, "collected", text));
            }
            if shard.store().keys_with_deadline() > 0 {
                let text = "keys with deadlines that have passed are left".to_owned();
                return Err(Fault::at(node, "expired", text));
            }
            if shard.is_filling() {
                return Err(Fault::at(node, "collected", "still fills itself".to_owned()));
            }
        }
    }
    if world.plan().nodes > 1 && world.tally().of("open").messages == 0 {
        return Err(Fault::anywhere("quiet", "nobody opens rounds any more".to_owned()));
    }
    Ok(())
}
