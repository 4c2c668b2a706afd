//! How much may be on the way to a peer: Cubic, with patience for cuts.
//!
//! Cubic is right for a link that is narrow, and wrong for one that was cut. When a cut heals, all
//! that was sent meanwhile is found lost at once, Cubic takes this for the worst congestion there
//! is, and falls back to two packets. At the next cut two packets fill the window, and then not even
//! a probe may be sent, until QUIC's own repetition comes round after seconds. So this wrapper
//! - never lets the window fall below [`WINDOW_BYTES_MIN`];
//! - takes "everything of a long time was lost" for an ordinary loss;
//! - has a grace on top of the window, which grows by a packet or two with every probe of a silent
//!   link (see `outage.rs`) and is taken back when the peer is heard again.
//!
//! What must stay true: on a link that is merely narrow this is Cubic, down to the smallest window.
//!
//! Source: RFC 9002, section 7.6 (persistent congestion), which has the internet in mind.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

/// What may be sent before the first acknowledgement: what a switch's buffer takes, instead of the
/// internet's 14 kB.
const WINDOW_BYTES_FIRST: u64 = 128 << 10;
/// What may always be on the way: some twenty packets of an Ethernet, a quarter of a second of a
/// 1 Mbit/s link ...
const WINDOW_BYTES_MIN: u64 = 32 << 10;
/// ... or so many packets, where they are larger: twice what a peer acknowledges at once.
const WINDOW_PACKETS_MIN: u64 = 16;
/// What each probe of a silent link may add to what is on the way.
const GRACE_PACKETS_PER_PROBE: u64 = 2;

/// Makes a [`Patient`] for each connection.
pub(super) struct PatientFactory;

impl ControllerFactory for PatientFactory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mut config = CubicConfig::default();
        config.initial_window(WINDOW_BYTES_FIRST);
        Box::new(Patient {
            cubic: Cubic::new(Arc::new(config), now, current_mtu),
            packet_bytes: u64::from(current_mtu),
            grace: Grace::default(),
        })
    }
}

/// Cubic with patience.
#[derive(Clone, Debug)]
struct Patient {
    cubic: Cubic,
    packet_bytes: u64,
    grace: Grace,
}

/// How many probes a silent link may send beyond its window; shared by a connection and whoever watches it.
#[derive(Clone, Debug, Default)]
pub(super) struct Grace(Arc<AtomicU64>);

impl Grace {
    /// The grace of this connection.
    pub(super) fn of(connection: &quinn::Connection) -> Self {
        match connection.congestion_state().into_any().downcast::<Patient>() {
            Ok(patient) => patient.grace,
            // Every connection of ours has one; a grace that nobody reads does no harm.
            Err(_) => Self::default(),
        }
    }

    /// Lets the next probe out, however full the window is.
    pub(super) fn extend(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the grace.
    pub(super) fn end(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Controller for Patient {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        _is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.cubic.on_congestion_event(now, sent, false, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
        self.packet_bytes = u64::from(new_mtu);
    }

    fn window(&self) -> u64 {
        let least = WINDOW_BYTES_MIN.max(WINDOW_PACKETS_MIN * self.packet_bytes);
        let probes = self.grace.0.load(Ordering::Relaxed);
        self.cubic.window().max(least) + probes * GRACE_PACKETS_PER_PROBE * self.packet_bytes
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_window_shrinks_with_losses_but_not_to_nothing_and_grace_comes_on_top() {
        let start = Instant::now();
        let mut controller = Arc::new(PatientFactory).build(start, 1200);
        assert_eq!(controller.window(), WINDOW_BYTES_FIRST);
        let later = |n: u32| start + n * Duration::from_secs(1);
        controller.on_congestion_event(later(2), later(1), true, 1200);
        let after_one = controller.window();
        assert!(after_one < WINDOW_BYTES_FIRST && after_one > WINDOW_BYTES_FIRST / 2);
        for n in 2..50 {
            controller.on_congestion_event(later(2 * n), later(2 * n - 1), true, 1200);
        }
        assert_eq!(controller.window(), WINDOW_BYTES_MIN);
        let patient = controller.clone_box().into_any().downcast::<Patient>().unwrap();
        patient.grace.extend();
        assert_eq!(controller.window(), WINDOW_BYTES_MIN + GRACE_PACKETS_PER_PROBE * 1200);
        patient.grace.end();
        assert_eq!(controller.window(), WINDOW_BYTES_MIN);
        controller.on_mtu_update(6_500);
        assert_eq!(controller.window(), WINDOW_PACKETS_MIN * 6_500);
    }
}
