//! What a node prints of the story of its shard, and whom else it tells.

use std::sync::atomic::Ordering;

use super::node::{Inner, QUARANTINE};
use crate::protocol::event::Event;
use crate::protocol::strong::StrongEvent;
use crate::protocol::time::Time;

impl Inner {
    /// Tells what happened, and those who listen which keys have changed.
    pub(super) fn tell_all(&self, now: Time, events: impl Iterator<Item = Event>) {
        let mut changes = Vec::new();
        for event in events {
            self.tell(now, &event);
            if let Event::Changed { key, change } = event {
                changes.push((key, change));
            }
        }
        self.heard_changes(&changes);
    }

    /// Prints an event, draws its consequences for the links, and hands it to the observer.
    fn tell(&self, now: Time, event: &Event) {
        match event {
            Event::Visible { .. } | Event::RoundOpened { .. } | Event::Changed { .. } => {}
            Event::Conflict(conflict) => log::debug!(
                "{}: {} lost to {}, written without knowledge of it",
                conflict.key,
                conflict.loser,
                conflict.winner
            ),
            Event::Filling(progress) => {
                if let Some(words) = self.fill_words.part(now, progress) {
                    log::info!("{words}");
                }
            }
            Event::Filled { peer, writes, .. } if self.fill_words.is_over() => {
                log::info!("filled by {peer:?}: all has come; {writes} writes were missing");
            }
            Event::Filled { peer, writes, .. } => {
                log::debug!("{peer:?} brought {writes} writes that were missing");
            }
            Event::GivenUp { peer, .. } => log::debug!("a delta with {peer:?} was given up"),
            Event::Damage { peer, hash } => log::warn!(
                "{peer:?} holds the same writes ({hash}) but other cells: one of us is damaged; \
                 comparing everything"
            ),
            Event::Repaired { peer, cells } => {
                log::warn!("compared everything with {peer:?}: {cells} cells were mended here");
            }
            Event::Enrolled { node, state, .. } => {
                log::info!("{node:?} is {state:?} in the roster")
            }
            Event::Collected { count } => log::debug!("{count} tombstones were collected"),
            Event::Claimed { dot } => log::trace!("{dot} says by when deadlines have passed"),
            Event::Expired { count } => log::debug!("{count} keys had expired and were forgotten"),
            Event::Renewed { origin } => log::info!("goes on as {origin:?}"),
            Event::Rebuilding { why } => {
                self.filling.store(true, Ordering::Release);
                log::warn!("fills itself anew: {why}");
            }
            Event::Refilling => log::info!("fills itself from another peer"),
            Event::Rewritten { of, stamp, .. } => log::debug!("{of} was made anew as {stamp}"),
            Event::Redeleted { of, stamp, .. } => log::debug!("{of} was deleted anew by {stamp}"),
            Event::Rebuilt { kept } => {
                self.filling.store(false, Ordering::Release);
                log::warn!("has filled itself anew; {kept} writes were made anew");
            }
            Event::Strong(event) => self.tell_strong(event),
            Event::Quarantined { peer, why } => {
                log::warn!("{peer:?} is kept out for {QUARANTINE:?}: {why}");
                if let Some(net) = self.net.get() {
                    net.disconnect(*peer, &why.to_string(), QUARANTINE);
                }
            }
        }
        if let Some(observer) = &self.config.observer {
            observer(now, event);
        }
    }

    /// Prints an event about the replicated log and the mode.
    fn tell_strong(&self, event: &StrongEvent) {
        match event {
            StrongEvent::Founded => log::info!("has consented to the group of voters"),
            StrongEvent::Fenced { epoch } => {
                log::info!("holds clients' writes until epoch {} begins", epoch.0);
            }
            StrongEvent::Entered { epoch, mode } => {
                log::warn!("epoch {} has begun here: {mode} mode", epoch.0);
            }
            StrongEvent::Aborted { epoch } => {
                log::warn!("the switch was given up; epoch {} begins", epoch.0);
            }
            StrongEvent::Lagging => {
                log::warn!("lacks entries of the log: fills itself from another voter");
            }
            StrongEvent::CaughtUp { slot } => log::info!("follows the log again from slot {slot}"),
            StrongEvent::Forgot => log::warn!(
                "as the voter that it was this node never speaks again: it has lost its seat, or others \
                 have heard more of it than it remembers. It may vote under a new number"
            ),
            StrongEvent::Bereft { nodes } => log::warn!(
                "was the only voter and cannot go on as that: waits for {nodes:?} to say what they hold, \
                 and begins a log anew once all members have; if one has gone for good, retire it with \
                 `quorumor retire`"
            ),
            StrongEvent::Succeeded { epoch } => log::warn!(
                "votes again, in a log that begins with what the members hold, as epoch {}",
                epoch.0
            ),
            StrongEvent::Seated { nodes } => log::info!("the voters are {nodes:?}"),
            StrongEvent::Strangers { peer, ours, theirs } => log::error!(
                "the cluster with the voters {ours:?}, which is this one, has met that of {peer:?} \
                 with the voters {theirs:?}: both have been in strong mode, so they cannot become \
                 one, and each goes on by itself"
            ),
            StrongEvent::Orphaned(orphan) => log::warn!(
                "{} of {} does not count: it was not known to the others when the epoch began; see \
                 `quorumor orphans`",
                orphan.stamp,
                orphan.cell.key
            ),
            StrongEvent::Unkept(orphan) => log::error!(
                "{} of {} does not count and is lost: this node keeps too many such writes already",
                orphan.stamp,
                orphan.cell.key
            ),
            StrongEvent::Differing => log::error!(
                "voters that hold the same writes hold other cells: the switch is given up, and this \
                 node compares"
            ),
            StrongEvent::Joined { nodes } => log::warn!(
                "{nodes:?} joined since the switch began: it is given up, ask for it again"
            ),
        }
    }
}
