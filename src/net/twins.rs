//! Two running nodes with one key, as when a data directory was copied and both are started: the one
//! that has been running longer stays, the younger one gives way.
//!
//! Whoever sees both settles it: a peer that has a link to one when the other greets it, or the two
//! themselves when they meet. The younger one is told so with a farewell of its own and ends; the
//! rooms above hear of it by [`NetEvent::GivesWay`](super::NetEvent). Every node of a cluster wants a
//! link to every other, so it takes one common peer, and a moment.
//!
//! What must stay true: a node that has crashed and started again is nobody's twin, although the link
//! of its former run may still be on the books of a peer. So nothing is settled before both ends have
//! answered, twice: what a dead node sent before it died may arrive late, but does not answer a
//! question that was asked after that. Whoever does not answer is replaced, as ever.
//!
//! Two that were started within [`CLOSE_CALL`] of each other are told apart by the number of their
//! run instead, since every peer measures ages a little differently, and all must come to the same
//! verdict. Left out: two that never have a peer in common. Each writes as an origin of its own
//! (`protocol/recovery.rs`), so nothing is lost or mixed up until they meet.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future;
use quinn::Connection;

use super::hello::{Ending, Farewell, FarewellCode, Hello, RefusedReason};
use super::link::Link;
use super::socket::pause;
use super::{Net, NetEvent};

/// Ages that differ by less are taken for equal: far more than the packets of two links differ.
const CLOSE_CALL: Duration = Duration::from_secs(1);
/// How long an answer may take: many times what a busy machine needs, and short beside what a node
/// that comes back after a crash takes to be missed.
const ANSWER_MIN: Duration = Duration::from_millis(500);
/// The same on a slow link, in round trips; and together with that, still less than a greeting takes.
const ANSWER_ROUND_TRIPS: u32 = 5;
const ANSWER_MAX: Duration = Duration::from_millis(1500);
/// How often it is looked whether an answer has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// A question may be lost: it is asked again after so many looks.
const LOOKS_PER_QUESTION: u32 = 20;
/// How many answers show that somebody lives.
const ANSWERS: u32 = 2;

/// What decides between two nodes with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// For how long it has been running.
    pub(super) age: Duration,
    /// The number of its run.
    pub(super) run: u64,
}

impl Standing {
    /// Whether this node gives way to the other.
    pub(super) fn gives_way_to(self, other: Self) -> bool {
        match self.age.abs_diff(other.age) < CLOSE_CALL {
            true => self.run > other.run,
            false => self.age < other.age,
        }
    }
}

impl Net {
    /// How long this node has been on the network, and in which run.
    pub(super) fn standing(&self) -> Standing {
        Standing { age: self.now().saturating_duration_since(self.inner.since), run: self.run() }
    }

    /// Settles which of two nodes stays, if there is a link to another node with the same key as the
    /// one that has just greeted us, and both are alive.
    ///
    /// # Errors
    /// What to tell the newcomer if it has to give way. If the other has to, that is told here.
    pub(super) async fn part_twins(&self, new: &Arc<Link>) -> Result<(), Farewell> {
        let old = self.inner.links.read().get(&new.peer).cloned();
        let Some(old) = old.filter(|old| old.run != new.run) else { return Ok(()) };
        let (old_lives, new_lives) =
            future::zip(answers(&old.connection), answers(&new.connection)).await;
        if !old_lives || !new_lives {
            return Ok(());
        }
        let (younger, elder) = match new.standing().gives_way_to(old.standing()) {
            true => (new, &old),
            false => (&old, new),
        };
        let words = format!(
            "'{}' at {} has the same identity {} as '{}' at {} and has been running longer ({} s): \
             a data directory was copied",
            elder.name,
            elder.address,
            new.peer,
            younger.name,
            younger.address,
            elder.standing().age.as_secs()
        );
        let farewell = Farewell::new(FarewellCode::Twin, words);
        if Arc::ptr_eq(younger, new) {
            return Err(farewell);
        }
        self.refused(old.address, RefusedReason::Clone, &farewell.reason);
        old.close(&farewell);
        Ok(())
    }

    /// What to tell a node that has dialled us with our own key; if we have to give way, we do. Both
    /// are alive: this one started after whoever had its directory before, and has just been dialled.
    pub(super) fn myself_or_twin(&self, hello: &Hello, connection: &Connection) -> Farewell {
        if hello.run == self.run() {
            return Farewell::new(FarewellCode::Myself, "this is the node itself");
        }
        let (ours, theirs) = (self.standing(), hello.standing());
        let at = super::emulation::canonical(connection.remote_address());
        let (code, elder, age) = match ours.gives_way_to(theirs) {
            true => (FarewellCode::Clone, format!("'{}' at {at}", hello.name), theirs.age),
            false => (FarewellCode::Twin, format!("'{}'", self.name()), ours.age),
        };
        let words = format!(
            "{elder} has the same identity {} and has been running longer ({} s): a data directory \
             was copied",
            self.node_id(),
            age.as_secs()
        );
        if code == FarewellCode::Clone {
            self.give_way(words.clone());
        }
        Farewell::new(code, words)
    }

    /// Gives way if a peer has said so when it ended a connection.
    pub(super) fn heed(&self, ending: &Ending) {
        if let Ending::Theirs(Farewell { code: FarewellCode::Twin, reason }) = ending {
            self.give_way(reason.clone());
        }
    }

    /// Tells the rooms above that this node has to end.
    fn give_way(&self, why: String) {
        if let Some(handler) = self.handler() {
            handler(self, NetEvent::GivesWay { why });
        }
    }
}

/// Whether somebody still is at the other end.
async fn answers(connection: &Connection) -> bool {
    let round_trip = connection.rtt();
    let patience = (round_trip * ANSWER_ROUND_TRIPS).clamp(ANSWER_MIN, ANSWER_MAX);
    let looks = patience.as_millis() / LOOK_INTERVAL.as_millis();
    for answer in 0..ANSWERS {
        if answer > 0 {
            // What was on its way together with the first answer is no second one.
            pause(round_trip * 2).await;
        }
        let before = connection.stats().udp_rx.datagrams;
        let mut look = 0;
        while connection.stats().udp_rx.datagrams == before {
            if connection.close_reason().is_some() || u128::from(look) >= looks {
                return false;
            }
            if look % LOOKS_PER_QUESTION == 0 {
                // The link's own probe, which every peer acknowledges and ignores (`outage.rs`).
                connection.send_datagram(Bytes::from_static(b"?")).ok();
            }
            look += 1;
            pause(LOOK_INTERVAL).await;
        }
    }
    connection.close_reason().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn standing(age_ms: u64, run: u64) -> Standing {
        Standing { age: Duration::from_millis(age_ms), run }
    }

    #[test]
    fn the_younger_one_gives_way_and_a_close_call_is_decided_by_the_run() {
        assert!(standing(1_000, 1).gives_way_to(standing(5_000, 2)));
        assert!(!standing(5_000, 2).gives_way_to(standing(1_000, 1)));
        assert!(standing(5_000, 2).gives_way_to(standing(5_900, 1)));
        assert!(standing(5_900, 2).gives_way_to(standing(5_000, 1)));
    }

    proptest! {
        /// Of two runs always exactly one gives way, and who measures both a little later or with
        /// packets that took longer comes to the same verdict, but for a hair's breadth.
        #[test]
        fn exactly_one_gives_way(
            ages in (0u64..10_000, 0u64..10_000),
            runs in (any::<u64>(), any::<u64>()),
            later in 0u64..100_000,
        ) {
            prop_assume!(runs.0 != runs.1);
            let (one, other) = (standing(ages.0, runs.0), standing(ages.1, runs.1));
            prop_assert_ne!(one.gives_way_to(other), other.gives_way_to(one));
            let (aged, too) = (standing(ages.0 + later, runs.0), standing(ages.1 + later, runs.1));
            prop_assert_eq!(aged.gives_way_to(too), one.gives_way_to(other));
        }
    }
}
