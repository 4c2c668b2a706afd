//! Keys that end: what they show depends on clocks, so the oracle knows nothing of them. What is looked at
//! is that nobody takes another for damaged whoever has forgotten what, that all agree in the end, and
//! that nothing is left then of what has ended.

use std::time::Duration;

use super::{Draft, MS};
use crate::protocol::config::Durability;
use crate::sim::plan::{Act, ClientRequest};

/// The longest time that a key is given to live.
pub(in crate::sim) const ENDING_MAX: Duration = Duration::from_secs(20);

/// Hashes get deadlines, lose them and are written anew, for longer than it takes until they are
/// forgotten, under faults of every kind.
pub(super) fn deadlines(draft: &mut Draft) {
    draft.nodes(2..6);
    draft.plan.settings.interval = MS * [100, 200, 500, 1_000][draft.dice.usize(..4)];
    draft.plan.settings.retire_after = MS * [20_000, 1_000_000][draft.dice.usize(..2)];
    draft.plan.detection = MS * draft.dice.u32(100..3_000);
    draft.plan.faults_end = MS * draft.dice.u32(80_000..200_000);
    draft.plan.settings.durability =
        [Durability::None, Durability::Interval, Durability::Always][draft.dice.usize(..3)];
    draft.link.loss = [0.0, 0.05, 0.2][draft.dice.usize(..3)];
    draft.link.duplicate = [0.0, 0.2][draft.dice.usize(..2)];
    draft.link.reorder = [0.0, 0.3][draft.dice.usize(..2)];
    let (writes, keys) = (draft.dice.usize(1..40), draft.dice.usize(2..20));
    draft.load(writes, keys, 5, 0.2, 0.5);
    for number in 0..draft.dice.usize(50..300) {
        let (at, node) = (draft.instant(), draft.any_node());
        let key = format!("ending{}", draft.dice.usize(..keys)).into_bytes();
        let note = ClientRequest::Note(key.clone(), format!("f{number}").into_bytes());
        let after = ENDING_MAX.mul_f64(draft.dice.f64());
        let requests = match draft.dice.usize(..8) {
            0 | 1 => vec![note],
            2 => vec![ClientRequest::Expire(key, None)],
            3 | 4 => vec![ClientRequest::Expire(key, Some(after))],
            _ => vec![note, ClientRequest::Expire(key, Some(after))],
        };
        draft.act(at, Act::Ask { node, requests });
    }
    let times: Vec<usize> = (0..5).map(|_| [0, 0, 1, 4][draft.dice.usize(..4)]).collect();
    draft.crashes(times[0]);
    draft.restarts(times[1]);
    draft.splits(times[2], false);
    draft.flaps(5 * times[3]);
    draft.pauses(times[4]);
    for _ in 0..draft.dice.usize(..3) {
        let (at, node) = (draft.instant(), draft.any_node());
        draft.act(at, Act::Rebuild(node));
    }
}
