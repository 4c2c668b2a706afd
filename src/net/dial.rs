//! Keeping addresses dialled: each candidate is tried until it is linked, and again when it is lost.
//!
//! A candidate may be wrong, asleep, this node itself, or a second address of a peer that is linked
//! already. One task per candidate tries it with growing pauses (with jitter, so that two nodes that
//! lost each other do not collide for ever), rests while its peer is linked, and ends when the
//! address turns out to be this node, or when the table of `candidates` has given it up.
//!
//! What must stay true: isolation heals by itself. A seed is never given up, and the pauses stay
//! short enough that a healed network is noticed within seconds.

use std::net::SocketAddr;
use std::time::Duration;

use futures_lite::future;

use super::Net;
use super::candidates::{Ticket, Turn};
use super::door::Met;
use super::identity::SERVER_NAME;
use crate::protocol::id::NodeId;

/// From the first packet to the end of the TLS handshake. A second attempt finds a healed network
/// sooner than QUIC's repetitions, which double.
const CONNECT_MAX: Duration = Duration::from_millis(2500);
/// The first pause after an attempt that came to nothing; it doubles from there.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest pause before a peer that does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pauses before a peer that refused us, or that we refused: somebody has to change something
/// there before another attempt makes sense.
const REFUSED_PAUSE_FIRST: Duration = Duration::from_secs(5);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Growing pauses.
struct Pauses {
    next: Duration,
}

impl Pauses {
    fn new() -> Self {
        Self { next: PAUSE_FIRST }
    }

    /// The pause to make now: the growing one, give or take a quarter.
    fn next(&mut self, refused: bool) -> Duration {
        let (first, most) = match refused {
            true => (REFUSED_PAUSE_FIRST, REFUSED_PAUSE_MAX),
            false => (PAUSE_FIRST, PAUSE_MAX),
        };
        let pause = self.next.clamp(first, most);
        self.next = (pause * 2).min(most);
        pause.mul_f64(0.75 + fastrand::f64() / 2.0)
    }
}

impl Net {
    /// Keeps `address` dialled until the node closes, the table has given it up, or it turns out to
    /// be this node.
    pub(super) async fn keep_dialled(self, address: SocketAddr, ticket: Ticket) {
        let mut pauses = Pauses::new();
        let mut known = None;
        let mut told = false;
        while self.is_candidate(address, ticket) {
            // Who came from there by itself is met as well.
            known = known.or_else(|| self.linked_at(address));
            if self.is_linked_at(address, known) {
                self.met_at(address, ticket, known);
                self.rest_while_linked(address, known).await;
                self.met_at(address, ticket, known);
                pauses = Pauses::new();
                self.pause(pauses.next(false)).await;
                continue;
            }
            match self.turn(address, ticket) {
                Turn::Dial => {}
                Turn::At(instant) => {
                    self.pause(instant.saturating_duration_since(self.now())).await;
                    continue;
                }
                Turn::Gone => {
                    log::debug!("nobody answers at {address}; forgotten");
                    return;
                }
            }
            let met = self.connect(address).await;
            log::debug!("dialled {address}: {met:?}");
            let refused = matches!(met, Met::Refused);
            match met {
                Met::Linked(peer) => {
                    known = Some(peer);
                    told = false;
                    self.met_at(address, ticket, known);
                    let since = self.now();
                    self.rest_while_linked(address, known).await;
                    self.met_at(address, ticket, known);
                    // A link that held deserves a quick redial; one that broke at once does not.
                    if since.elapsed() > PAUSE_MAX {
                        pauses = Pauses::new();
                    }
                }
                Met::Known(peer) => {
                    known = Some(peer);
                    self.met_at(address, ticket, known);
                }
                Met::Myself => {
                    log::debug!("{address} is this node itself and is dialled no more");
                    return;
                }
                Met::Refused => {}
                Met::Lost(why) => {
                    // Of hints nobody expects that they answer.
                    if self.is_seed(address) && !std::mem::replace(&mut told, true) {
                        log::info!("cannot reach {address} yet ({why}); trying on");
                    }
                }
            }
            self.pause(pauses.next(refused)).await;
        }
    }

    /// Waits while the candidate's peer is linked.
    async fn rest_while_linked(&self, address: SocketAddr, known: Option<NodeId>) {
        loop {
            let changed = self.listen_for_links();
            if !self.is_linked_at(address, known) || self.is_closing() {
                return;
            }
            changed.await;
        }
    }

    async fn connect(&self, address: SocketAddr) -> Met {
        let Some(endpoint) = self.endpoint() else {
            return Met::Lost("shutting down".to_owned());
        };
        let config = self.end(address).client.clone();
        let connecting = match endpoint.connect_with(config, address, SERVER_NAME) {
            Ok(connecting) => connecting,
            Err(error) => return Met::Lost(error.to_string()),
        };
        let connected = future::or(async { Some(connecting.await) }, async {
            self.pause(CONNECT_MAX).await;
            None
        })
        .await;
        match connected {
            Some(Ok(connection)) => self.greet(connection, true).await,
            Some(Err(error)) => self.ended(address, &error),
            None => Met::Lost("no answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_vary() {
        let mut pauses = Pauses::new();
        let mut expected = PAUSE_FIRST;
        for _ in 0..20 {
            let pause = pauses.next(false);
            assert!(pause >= expected.mul_f64(0.75) && pause <= expected.mul_f64(1.25));
            expected = (expected * 2).min(PAUSE_MAX);
        }
        assert!(pauses.next(true) >= REFUSED_PAUSE_FIRST.mul_f64(0.75));
        assert!(pauses.next(true) >= REFUSED_PAUSE_FIRST.mul_f64(1.5));
    }
}
