//! A clock that runs only while its node runs.
//!
//! A process that was stopped, or got no processor for a while, finds on waking that every deadline
//! has passed, and would accuse all its peers of a silence that was its own. So of the time between
//! two calls only that is believed which we meant to sleep, and a little more. And a node that has
//! found itself late first takes in what has arrived meanwhile ([`GRACE`]), and then is slower to
//! accuse for a while ([`Clock::patience`]): the local health of Lifeguard (Dadgar, Phillips, Currey
//! 2018, section 4.A).

use std::time::Duration;

use crate::protocol::time::Time;

/// How much later than asked a wake may come without being taken for starvation: timers of a busy
/// machine are some milliseconds late, a node without a processor is late by far more.
const LATENESS_MAX: Duration = Duration::from_millis(100);
/// How long a node that was late handles what has arrived before it looks at its deadlines.
const GRACE: Duration = Duration::from_millis(100);
/// How far patience can grow, as a multiple of what was missed: Lifeguard's limit.
const STRAIN_MAX: u32 = 7;
/// So much lateness counts as one degree of strain, and after so much time on time one is forgotten.
const STRAIN_STEP: Duration = Duration::from_secs(1);

/// Turns the time of the world into time in which this node ran.
#[derive(Debug, Default)]
pub(super) struct Clock {
    world: Time,
    own: Time,
    /// When we asked to be woken, in the world's time.
    wake: Option<Time>,
    /// No deadline is looked at before this.
    grace_until: Time,
    /// Deadlines have been looked at since the last grace.
    looked: bool,
    strain: u32,
    strain_changed: Time,
    late: u64,
}

impl Clock {
    pub(super) fn new(now: Time) -> Self {
        Self { world: now, looked: true, ..Self::default() }
    }

    /// Goes on to `now` and returns the node's own time.
    pub(super) fn advance(&mut self, now: Time) -> Time {
        let gap = now.since(self.world);
        let meant = self.wake.map_or(gap, |wake| wake.since(self.world));
        let lateness = gap.saturating_sub(meant);
        self.own = self.own + gap.min(meant + LATENESS_MAX);
        self.world = self.world.max(now);
        if lateness > LATENESS_MAX {
            self.late += 1;
            let steps = lateness.as_millis() / STRAIN_STEP.as_millis() + 1;
            let steps = u32::try_from(steps).unwrap_or(STRAIN_MAX);
            self.strain = self.strain.saturating_add(steps).min(STRAIN_MAX);
            self.strain_changed = self.own;
            // Who is always late must look at some time all the same.
            if std::mem::take(&mut self.looked) {
                self.grace_until = self.own + GRACE;
            }
        } else if self.own.since(self.strain_changed) >= STRAIN_STEP {
            self.strain = self.strain.saturating_sub(1);
            self.strain_changed = self.own;
        }
        self.own
    }

    /// Whether deadlines may be looked at now.
    pub(super) fn looks(&mut self) -> bool {
        let looks = self.own >= self.grace_until;
        self.looked |= looks;
        looks
    }

    /// The world's time at which our own will be `due`; remembered as the wake that was asked for.
    pub(super) fn ask(&mut self, due: Option<Time>) -> Option<Time> {
        self.wake = due.map(|due| self.world + due.max(self.grace_until).since(self.own));
        self.wake
    }

    /// How often its usual patience a node has that was late: 1 if it was not.
    pub(super) fn patience(&self) -> u32 {
        1 + self.strain
    }

    /// How often the node was late.
    pub(super) fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Time {
        Time::START + Duration::from_millis(millis)
    }

    #[test]
    fn time_goes_by_as_long_as_wakes_come_when_asked() {
        let mut clock = Clock::new(at(5_000));
        assert_eq!(clock.ask(Some(Time::START + SECOND)), Some(at(6_000)));
        assert_eq!(clock.advance(at(5_400)), at(400), "something came before");
        clock.ask(Some(Time::START + SECOND));
        assert_eq!(clock.advance(at(6_050)), at(1_050), "a little late is on time");
        assert!(clock.looks());
        assert_eq!((clock.patience(), clock.late()), (1, 0));
    }

    #[test]
    fn a_stopped_node_believes_little_of_the_time_and_looks_later() {
        let mut clock = Clock::new(at(0));
        clock.ask(Some(at(500)));
        assert_eq!(clock.advance(at(10_000)), at(600), "what was meant, and a little");
        assert!(!clock.looks(), "first what has arrived");
        assert_eq!(clock.ask(Some(at(500))), Some(at(10_100)));
        assert_eq!(clock.patience(), 8);
        assert_eq!(clock.advance(at(10_100)), at(700));
        assert!(clock.looks());
    }

    #[test]
    fn a_node_that_is_always_late_looks_every_second_time_and_calms_down_after() {
        let mut clock = Clock::new(at(0));
        let mut world = at(0);
        let mut looks = Vec::new();
        for _ in 0..4 {
            world = clock.ask(Some(at(0))).unwrap() + SECOND;
            clock.advance(world);
            looks.push(clock.looks());
        }
        assert_eq!(looks, [false, true, false, true]);
        for _ in 0..10 {
            world = world + SECOND;
            clock.ask(None);
            clock.advance(world);
        }
        assert_eq!(clock.patience(), 1);
    }
}
