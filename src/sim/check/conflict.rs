//! A conflict is told exactly where two writes to a key meet of which neither writer knew the
//! other: no false one, and none left out.
//!
//! Two writes meet at a node when one of them shows there and the other comes. The oracle foresees
//! the conflicts of a step from explicit sets of what every writer knew; the events of the step must
//! be the same ones.

use super::Fault;
use super::oracle::Oracle;
use crate::protocol::event::{Conflict, Event};
use crate::sim::plan::is_ending;
use crate::sim::world::World;

/// Compares the conflicts that a step told with those foreseen.
///
/// Once anybody has collected a deletion, not everybody knows any more who knew of it.
pub(super) fn check(
    world: &World,
    node: usize,
    oracle: &Oracle,
    foreseen: &[Conflict],
) -> Result<(), Fault> {
    let excused =
        |conflict: &Conflict| oracle.was_collected(&conflict.key) || is_ending(&conflict.key);
    let told = world.output().events.iter().filter_map(|event| match event {
        Event::Conflict(conflict) => Some(conflict).filter(|it| !excused(it)),
        _ => None,
    });
    let mut missing: Vec<&Conflict> = foreseen.iter().filter(|it| !excused(it)).collect();
    for conflict in told {
        let Conflict { key, winner, loser } = conflict;
        match missing.iter().position(|foreseen| *foreseen == conflict) {
            Some(at) => {
                missing.remove(at);
            }
            None => {
                let text = format!("calls {loser} of {key} lost to {winner}, which knew of it");
                return Err(Fault::at(node, "conflict", text));
            }
        }
    }
    match missing.first() {
        Some(Conflict { key, winner, loser }) => {
            let text = format!("does not say that {loser} of {key} is lost to {winner}");
            Err(Fault::at(node, "conflict", text))
        }
        None => Ok(()),
    }
}
