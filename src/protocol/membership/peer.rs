//! What one node knows of one other: when it was heard, how long it has been silent although asked,
//! and what SWIM thinks of it.

use std::time::Duration;

use foca::State;
use serde::Serialize;

use super::wire::Life;
use crate::protocol::time::Time;

/// Whether a peer answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// It does.
    Up,
    /// It has not for a moment, or has no link; others may hear it.
    Suspected,
    /// It does not, here or anywhere.
    Down,
}

/// What SWIM thinks of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct View {
    pub(super) state: State,
    pub(super) incarnation: u16,
}

impl View {
    pub(super) fn is_active(self) -> bool {
        self.state != State::Down
    }
}

/// One peer, as seen from here. Times are the node's own, but for `since`.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) linked: bool,
    /// Whether anybody was told that it is there.
    pub(super) told: bool,
    /// The name of its present run, as it told us itself.
    pub(super) renewal: Option<u64>,
    pub(super) state: PeerState,
    /// Since when, by the world's time.
    pub(super) since: Time,
    /// When it was last heard.
    pub(super) heard: Time,
    /// When it was first asked after that, or lost its link.
    pub(super) silent_since: Option<Time>,
    pub(super) ask_at: Time,
    /// Not watched before this.
    pub(super) rest_until: Time,
    /// The suspicion is ours.
    pub(super) raised: bool,
    pub(super) swim: Option<View>,
    /// When SWIM began to suspect it.
    swim_suspects_since: Option<Time>,
}

impl Peer {
    pub(super) fn new(now: Time, since: Time) -> Self {
        Self {
            linked: false,
            told: false,
            renewal: None,
            state: PeerState::Up,
            since,
            heard: now,
            silent_since: None,
            ask_at: now,
            rest_until: Time::START,
            raised: false,
            swim: None,
            swim_suspects_since: None,
        }
    }

    /// There is a link: it was just heard, and a new link deserves to be watched.
    pub(super) fn link(&mut self, now: Time) {
        self.linked = true;
        self.heard = now;
        self.silent_since = None;
        self.rest_until = Time::START;
        self.raised = false;
    }

    pub(super) fn unlink(&mut self, now: Time) {
        self.linked = false;
        self.silent_since = Some(now);
    }

    /// Something came, so long ago. `true` if it shows that the peer is there now.
    pub(super) fn hear(&mut self, now: Time, ago: Duration) -> bool {
        let at = Time::from_nanos(now.since(Time::START + ago).as_nanos() as u64);
        self.heard = self.heard.max(at);
        if self.silent_since.is_some_and(|since| since > at) {
            return false;
        }
        self.silent_since = None;
        if self.swim.is_some_and(|view| view.state == State::Suspect) {
            // It lives, but is yet to refute: it is asked on, so that it learns of the suspicion.
            self.doubt(now);
            self.ask_at = now + super::ASK_INTERVAL;
        }
        true
    }

    /// Begins to ask.
    pub(super) fn doubt(&mut self, now: Time) {
        if self.silent_since.is_none() {
            self.silent_since = Some(now);
            self.ask_at = now;
        }
    }

    /// How long it has been silent although asked.
    pub(super) fn silent_for(&self, now: Time) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// As what SWIM suspects it, for it to refute.
    pub(super) fn suspected_life(&self) -> Option<Life> {
        let view = self.swim.filter(|view| view.state == State::Suspect)?;
        Some(Life { renewal: self.renewal?, incarnation: view.incarnation })
    }

    /// Takes over what SWIM thinks.
    pub(super) fn learn(&mut self, renewal: u64, view: View, now: Time, rest: Duration) {
        let fresh = self.swim != Some(view) || self.renewal != Some(renewal);
        self.renewal = Some(renewal);
        self.swim = Some(view);
        if !fresh {
            return;
        }
        match view.state {
            State::Alive => {
                if std::mem::take(&mut self.raised) && self.silent_since.is_some() {
                    self.rest_until = now + rest;
                }
                self.swim_suspects_since = None;
            }
            State::Suspect => {
                self.swim_suspects_since = Some(now);
                if self.linked {
                    self.doubt(now);
                }
            }
            State::Down => {
                if self.linked {
                    self.doubt(now);
                }
            }
        }
    }

    /// Whether SWIM holds it dead, or suspects it for long enough that it could have refuted.
    pub(super) fn is_given_up_by_swim(&self, now: Time, refutable: Duration) -> bool {
        match self.swim.map(|view| view.state) {
            None | Some(State::Down) => true,
            Some(State::Suspect) => {
                self.swim_suspects_since.is_some_and(|since| now.since(since) >= refutable)
            }
            Some(State::Alive) => false,
        }
    }

    /// Changes the state; `false` if it was that before.
    pub(super) fn become_state(&mut self, state: PeerState, now: Time) -> bool {
        if self.state == state {
            return false;
        }
        (self.state, self.since) = (state, now);
        true
    }
}
