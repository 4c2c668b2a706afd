//! Which keys end, in the order of their deadlines, and what they add to the fingerprint.
//!
//! A key with a deadline is listed once, so what has passed is found without looking at anything else,
//! for some 40 bytes a key. Deadlines are gathered in *steps* of [`STEP`]: of each step the sum of the
//! hashes of its keys' cells is known. A step that has passed for everybody (see
//! [`Deadlines::pass`]) adds nothing to the fingerprint any more: of its keys one node may still have
//! the cells while another has forgotten them.
//!
//! What must stay true: what is listed depends on the cells that are kept and on nothing else, and what
//! the fingerprint leaves out on them and on the bounds that are among them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::index::Slot;
use super::super::time::WallTime;
use super::Fingerprint;

/// How far apart the bounds are up to which deadlines have passed: small beside the grace of `expiry`,
/// large enough that a cluster has few steps to go through.
pub(in crate::protocol) const STEP: Duration = Duration::from_secs(8);

const STEP_MILLISECONDS: u64 = STEP.as_millis() as u64;

/// A key that ends, as the list has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ending {
    /// Milliseconds since 1970.
    pub(super) deadline: u64,
    /// Whether it would show something before.
    pub(super) is_live: bool,
    /// The sum of the hashes of its live cells.
    pub(super) sum: Fingerprint,
}

/// The keys of one step.
#[derive(Clone, Copy, Default, Debug)]
struct Step {
    keys: usize,
    live: usize,
    sum: Fingerprint,
}

/// The keys that end. See the module's documentation.
#[derive(Default, Debug)]
pub(super) struct Deadlines {
    /// Whether each would show something before its deadline.
    keys: BTreeMap<(u64, Slot), bool>,
    steps: BTreeMap<u64, Step>,
    /// How many would show something before their deadlines.
    live: usize,
    /// The number of the last step that has passed for everybody.
    passed: u64,
    /// What the steps up to there add up to.
    hidden: Fingerprint,
}

/// The greatest bound between two steps that is not after `wall`.
pub(in crate::protocol) fn bound_before(wall: WallTime) -> WallTime {
    WallTime(wall.0 - wall.0 % STEP_MILLISECONDS)
}

/// The step of a deadline: step n ends with the bound n.
fn step_of(deadline: u64) -> u64 {
    deadline.div_ceil(STEP_MILLISECONDS)
}

impl Deadlines {
    /// Lists a key anew.
    pub(super) fn change(&mut self, slot: Slot, before: Option<Ending>, now: Option<Ending>) {
        if before == now {
            return;
        }
        if let Some(Ending { deadline, is_live, sum }) = before {
            self.keys.remove(&(deadline, slot));
            self.live -= usize::from(is_live);
            let number = step_of(deadline);
            if let Some(step) = self.steps.get_mut(&number) {
                step.keys -= 1;
                step.live -= usize::from(is_live);
                step.sum.remove(sum.0);
                if step.keys == 0 {
                    self.steps.remove(&number);
                }
            }
            if number <= self.passed {
                self.hidden.remove(sum.0);
            }
        }
        if let Some(Ending { deadline, is_live, sum }) = now {
            self.keys.insert((deadline, slot), is_live);
            self.live += usize::from(is_live);
            let step = self.steps.entry(step_of(deadline)).or_default();
            step.keys += 1;
            step.live += usize::from(is_live);
            step.sum.add(sum.0);
            if step_of(deadline) <= self.passed {
                self.hidden.add(sum.0);
            }
        }
    }

    /// Takes note of the bound up to which deadlines have passed for everybody.
    pub(super) fn pass(&mut self, bound: WallTime) {
        let passed = bound.0 / STEP_MILLISECONDS;
        if passed > self.passed {
            let more = self.sum_of(self.passed + 1..=passed);
            self.hidden.add(more.0);
        } else if passed < self.passed {
            let less = self.sum_of(passed + 1..=self.passed);
            self.hidden.remove(less.0);
        }
        self.passed = passed;
    }

    /// What keys with deadlines up to a bound add up to.
    pub(super) fn sum_until(&self, bound: WallTime) -> Fingerprint {
        self.sum_of(0..=bound.0 / STEP_MILLISECONDS)
    }

    fn sum_of(&self, numbers: RangeInclusive<u64>) -> Fingerprint {
        self.steps.range(numbers).fold(Fingerprint::default(), |mut sum, (_, step)| {
            sum.add(step.sum.0);
            sum
        })
    }

    /// What the fingerprint leaves out.
    pub(super) fn hidden(&self) -> Fingerprint {
        self.hidden
    }

    /// How many keys would show something if their deadlines were not over at `now`.
    pub(super) fn expired(&self, now: WallTime) -> usize {
        let number = step_of(now.0);
        let whole = self.steps.range(..number).map(|(_, step)| step.live).sum::<usize>();
        let first = number.saturating_sub(1).saturating_mul(STEP_MILLISECONDS).saturating_add(1);
        let first = if number == 0 { 0 } else { first };
        let rest = self.keys.range((first, Slot(0))..=(now.0, Slot(u32::MAX)));
        whole + rest.filter(|(_, is_live)| **is_live).count()
    }

    /// How many keys would show something before their deadlines, passed or not.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// The keys with deadlines up to `until`, in order, from `from` on.
    pub(super) fn from(
        &self,
        from: (u64, Slot),
        until: WallTime,
    ) -> impl Iterator<Item = (u64, Slot)> {
        let keys = self.keys.range(from..).map(|(key, _)| *key);
        keys.take_while(move |(deadline, _)| *deadline <= until.0)
    }

    /// The first deadline.
    pub(super) fn first(&self) -> Option<(u64, Slot)> {
        self.keys.first_key_value().map(|(key, _)| *key)
    }

    /// How many keys are listed.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a key, how it ends from now on, if it does; and what time it is.
    type Change = (u8, Option<(u64, bool, u64)>, u64);

    fn endings() -> impl Strategy<Value = Vec<Change>> {
        let deadline = prop_oneof![0..50_000u64, Just(u64::MAX), Just(8_000), Just(16_000)];
        let ending = proptest::option::of((deadline, any::<bool>(), 1..u64::MAX));
        proptest::collection::vec((0..6u8, ending, 0..60_000u64), 0..60)
    }

    proptest! {
        /// Whatever is listed, changed and taken out, and wherever the bound is: the books say what
        /// counting says.
        #[test]
        fn the_books_agree_with_counting(endings in endings()) {
            let mut deadlines = Deadlines::default();
            let mut model = BTreeMap::<u8, Ending>::new();
            for (key, ending, time) in endings {
                let now = ending.map(|(deadline, is_live, sum)| {
                    Ending { deadline, is_live, sum: Fingerprint(sum.into()) }
                });
                let before = model.remove(&key);
                model.extend(now.map(|now| (key, now)));
                deadlines.change(Slot(key.into()), before, now);
                let bound = bound_before(WallTime(time));
                if time % 3 == 0 {
                    deadlines.pass(bound);
                    let passed = model.values().filter(|it| it.deadline <= bound.0);
                    let sum = passed.map(|it| it.sum.0).fold(0, u128::wrapping_add);
                    prop_assert_eq!(deadlines.hidden(), Fingerprint(sum));
                }
                let live = model.values().filter(|it| it.is_live && it.deadline <= time);
                prop_assert_eq!(deadlines.expired(WallTime(time)), live.count());
                let listed: Vec<_> =
                    deadlines.from((0, Slot(0)), WallTime(time)).map(|(_, slot)| slot).collect();
                let due = model.iter().filter(|(_, it)| it.deadline <= time);
                let mut due: Vec<_> =
                    due.map(|(key, it)| (it.deadline, Slot((*key).into()))).collect();
                due.sort_unstable();
                prop_assert_eq!(listed, due.into_iter().map(|(_, slot)| slot).collect::<Vec<_>>());
                prop_assert_eq!(deadlines.len(), model.len());
                prop_assert_eq!(deadlines.live(), model.values().filter(|it| it.is_live).count());
            }
        }
    }
}
