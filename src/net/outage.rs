//! Noticing that a link has gone silent, and noticing at once when it comes back.
//!
//! QUIC repeats what was not acknowledged at intervals that double each time. After a cut of a few
//! seconds the next repetition is seconds away, and so the link would stay silent although the
//! cable is back. So while something that wants an answer has been sent and nothing was heard, a
//! datagram of one byte goes out at every pulse. The first one that gets through is acknowledged,
//! and from this QUIC learns what was lost and sends it again at once.
//!
//! What must stay true: a healthy link is not probed. A packet that only acknowledges is never
//! answered, so silence after one means nothing; only frames that want an answer count. And an
//! answer takes a round trip, so silence begins to count after two of them.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionStats};

use super::congestion::Grace;

/// How often links are looked at, and a silent one is probed.
pub(super) const PULSE: Duration = Duration::from_millis(100);

/// What a link's silence is measured by.
#[derive(Debug)]
pub(super) struct Outage {
    /// Packets received, when last looked.
    received: u64,
    /// Frames sent that want an answer, when something was last received.
    asked: u64,
    /// How long nothing was heard although an answer is due.
    silent: Duration,
    /// What may be sent although the window is full.
    grace: Grace,
}

impl Outage {
    /// A link that was just heard of.
    pub(super) fn new(connection: &Connection) -> Self {
        let stats = connection.stats();
        Self {
            received: stats.udp_rx.datagrams,
            asked: asked(&stats),
            silent: Duration::ZERO,
            grace: Grace::of(connection),
        }
    }

    /// Looks at the link, every [`PULSE`], and probes it if it is silent.
    pub(super) fn pulse(&mut self, connection: &Connection) {
        let stats = connection.stats();
        if self.is_silent(stats.udp_rx.datagrams, asked(&stats), stats.path.rtt) {
            self.grace.extend();
            // Nothing is lost with a probe that cannot be sent: it is a reminder, not a message.
            connection.send_datagram(Bytes::from_static(b"?")).ok();
        }
    }

    fn is_silent(&mut self, received: u64, asked: u64, round_trip: Duration) -> bool {
        if received != self.received || asked == self.asked {
            (self.received, self.asked, self.silent) = (received, asked, Duration::ZERO);
            self.grace.end();
            return false;
        }
        self.silent += PULSE;
        self.silent > round_trip * 2
    }
}

/// How many frames were sent that a peer has to acknowledge.
fn asked(stats: &ConnectionStats) -> u64 {
    let sent = &stats.frame_tx;
    sent.stream + sent.datagram + sent.ping
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage() -> Outage {
        Outage { received: 10, asked: 5, silent: Duration::ZERO, grace: Grace::default() }
    }

    #[test]
    fn only_an_unanswered_question_is_silence() {
        let round_trip = Duration::from_millis(1);
        let mut outage = outage();
        assert!(!outage.is_silent(10, 5, round_trip), "nothing asked");
        assert!(!outage.is_silent(11, 6, round_trip), "asked and answered");
        assert!(outage.is_silent(11, 7, round_trip), "asked, not answered");
        assert!(outage.is_silent(11, 8, round_trip), "the probe was not answered either");
        assert!(!outage.is_silent(12, 8, round_trip), "back");
        assert!(!outage.is_silent(12, 8, round_trip), "and quiet");
    }

    #[test]
    fn a_slow_link_has_time_to_answer() {
        let round_trip = Duration::from_millis(200);
        let mut outage = outage();
        let silent: Vec<bool> = (0..6).map(|_| outage.is_silent(10, 6, round_trip)).collect();
        assert_eq!(silent, [false, false, false, false, true, true]);
    }
}
