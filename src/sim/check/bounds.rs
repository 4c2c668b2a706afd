//! Memory stays within its bounds, and no correct node is accused of anything.
//!
//! *bounds*: exchanges in either direction, and the conflicts that are kept. *alarm*: every node of
//! a world runs the same correct code over memory that does not rot, so nobody may be quarantined,
//! no equal vectors may come with different fingerprints, and nothing may be refused.

use super::Fault;
use crate::protocol::event::Event;
use crate::sim::world::World;

/// Looks at a node after a step.
pub(super) fn check(world: &World, node: usize, exchanges_max: usize) -> Result<(), Fault> {
    let Some(shard) = world.shard(node) else { return Ok(()) };
    let (outgoing, incoming) = shard.exchanges();
    if outgoing > exchanges_max || incoming > exchanges_max {
        let text = format!("sends {outgoing} deltas and receives {incoming} at once");
        return Err(Fault::at(node, "bounds", text));
    }
    Ok(())
}

/// Looks at what a node said of others in a step.
pub(super) fn check_alarms(world: &World, node: usize) -> Result<(), Fault> {
    let Some(shard) = world.shard(node) else { return Ok(()) };
    for event in &world.output().events {
        match event {
            Event::Damage { peer, hash } => {
                let peer = world.node(*peer) + 1;
                let text = format!("holds what n{peer} holds ({hash}), but other cells");
                return Err(Fault::at(node, "alarm", text));
            }
            Event::Quarantined { peer, why } => {
                let text = format!("quarantines n{}: {why}", world.node(*peer) + 1);
                return Err(Fault::at(node, "alarm", text));
            }
            _ => {}
        }
    }
    let refused = shard.counters().messages_refused;
    if refused > 0 {
        return Err(Fault::at(node, "alarm", format!("has refused {refused} messages")));
    }
    Ok(())
}
