//! What one direction of a link does to a packet: the model under every emulated network.
//!
//! A [`Link`] is the description (how late, how lossy, how wide, when cut), a [`LinkState`] is one
//! direction of it in use, and [`LinkState::fate`] decides about one packet: dropped, and why, or
//! delivered after so long, perhaps twice. The UDP socket of a real node and the simulator call
//! this same function, so a profile means the same in both.
//!
//! The order of the decisions is that of a real path: a cut swallows the packet first; then it
//! waits for its turn on the wire (a bounded queue that drops its tail); then it may be lost on the
//! way; then it travels.
//!
//! What must stay true:
//! - Time and dice come in as arguments; the same seed and the same packets give the same fates.
//! - Packets keep their order. Jitter alone never lets one packet overtake another: a packet that
//!   would arrive before its predecessor arrives with it instead. This is what a switch or an
//!   access point does, and QUIC takes a run of overtaken packets for loss. Only `reorder` (and the
//!   second copy of a duplicate) arrives out of turn.
//! - Jitter is symmetric, `latency ± jitter`, so that the mean delay of a sparse flow is `latency`.
//!   A dense flow sees somewhat more, since order is kept.
//! - A packet already on its way when a cut begins still arrives.
//!
//! Left out: loss in bursts, a link shared by several senders (each direction of each pair has its
//! own wire), and corrupted bits (QUIC would turn them into loss).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

/// How long a full queue in front of a narrow link holds a packet, unless the profile says so.
///
/// 100 ms is the buffer of a common home router: enough for a burst, short enough to be felt.
pub const QUEUE_WAIT_DEFAULT: Duration = Duration::from_millis(100);

/// A reordered packet is late by half to one latency, and the latency is taken as at least this,
/// so that it is overtaken on a link without latency, too.
const REORDER_LATENCY_MIN: Duration = Duration::from_millis(1);

/// The second copy of a duplicated packet comes within this time after the first (or within the
/// jitter, if that is more): a resend by the link layer, not by the application.
const DUPLICATE_SPREAD_MIN: Duration = Duration::from_millis(1);

/// One direction of a link, as a profile describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The mean time from sending to arrival, one way.
    pub latency: Duration,
    /// The delay is drawn evenly from `latency - jitter` to `latency + jitter`; at most `latency`.
    pub jitter: Duration,
    /// The probability, 0 to 1, that a packet is lost.
    pub loss: f64,
    /// The probability, 0 to 1, that a packet arrives twice.
    pub duplicate: f64,
    /// The probability, 0 to 1, that a packet is held back while later ones overtake it.
    pub reorder: f64,
    /// Bytes per second; `None` is without limit.
    pub bandwidth: Option<NonZeroU64>,
    /// A packet that would wait longer than this for its turn on the wire is dropped.
    pub queue: Duration,
    /// When this direction carries nothing.
    pub cuts: Vec<Cut>,
}

/// A span of time in which a direction carries nothing, once or again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// When it begins, from the start of the run.
    pub start: Duration,
    /// How long it lasts.
    pub length: Duration,
    /// From one beginning to the next, if it repeats; longer than `length`.
    pub every: Option<Duration>,
}

/// Why a packet did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// The link was cut at the time.
    Cut,
    /// The queue in front of a narrow link was full.
    QueueFull,
    /// Lost on the way, by chance.
    Loss,
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Drop(DropReason),
    /// It arrives.
    Deliver {
        /// How long from now.
        after: Duration,
        /// How long from now its second copy arrives, if it is duplicated.
        again: Option<Duration>,
    },
}

/// One direction of a link in use: what the queue and the order of packets need to remember.
#[derive(Clone, Debug)]
pub struct LinkState {
    link: Arc<Link>,
    /// When the wire will have sent all that it was given.
    free_at: Duration,
    /// The latest arrival of a packet that kept its turn.
    last_arrival: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            bandwidth: None,
            queue: QUEUE_WAIT_DEFAULT,
            cuts: Vec::new(),
        }
    }
}

impl Link {
    /// Whether the link leaves every packet as it is, at once: nothing to emulate.
    pub fn is_transparent(&self) -> bool {
        self.latency.is_zero()
            && self.jitter.is_zero()
            && self.loss == 0.0
            && self.duplicate == 0.0
            && self.reorder == 0.0
            && self.bandwidth.is_none()
            && self.cuts.is_empty()
    }

    /// Whether nothing passes at `now`, counted from the start of the run.
    pub fn is_cut(&self, now: Duration) -> bool {
        self.cuts.iter().any(|cut| cut.covers(now))
    }
}

impl Cut {
    /// Whether `now`, counted from the start of the run, lies within the cut.
    pub fn covers(&self, now: Duration) -> bool {
        let Some(since) = now.checked_sub(self.start) else { return false };
        match self.every {
            Some(every) if !every.is_zero() => {
                since.as_nanos() % every.as_nanos() < self.length.as_nanos()
            }
            _ => since < self.length,
        }
    }
}

impl LinkState {
    /// A direction of `link` that has carried nothing yet.
    pub fn new(link: Arc<Link>) -> Self {
        Self { link, free_at: Duration::ZERO, last_arrival: Duration::ZERO }
    }

    /// The description that this direction follows.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Decides about a packet of `bytes` handed to the link at `now`, counted from the start of the
    /// run, drawing from `rng`. `now` must not run backwards.
    pub fn fate(&mut self, now: Duration, bytes: usize, rng: &mut fastrand::Rng) -> Fate {
        let link = &*self.link;
        if link.is_cut(now) {
            return Fate::Drop(DropReason::Cut);
        }
        let sent = match link.bandwidth {
            None => now,
            Some(bandwidth) => {
                let turn = self.free_at.max(now);
                if turn - now > link.queue {
                    return Fate::Drop(DropReason::QueueFull);
                }
                self.free_at = turn.saturating_add(time_on_wire(bytes, bandwidth));
                self.free_at
            }
        };
        if happens(link.loss, rng) {
            return Fate::Drop(DropReason::Loss);
        }
        let arrival = sent.saturating_add(travel_time(link, rng));
        let arrival = if happens(link.reorder, rng) {
            // Late by itself, and those behind it are not held up by it.
            let latency = link.latency.max(REORDER_LATENCY_MIN);
            arrival.max(self.last_arrival).saturating_add(latency / 2 + up_to(latency / 2, rng))
        } else {
            self.last_arrival = self.last_arrival.max(arrival);
            self.last_arrival
        };
        let again = happens(link.duplicate, rng).then(|| {
            arrival.saturating_add(up_to(link.jitter.max(DUPLICATE_SPREAD_MIN), rng)) - now
        });
        Fate::Deliver { after: arrival - now, again }
    }
}

/// How long a link of `bandwidth` bytes per second is busy with `bytes`.
fn time_on_wire(bytes: usize, bandwidth: NonZeroU64) -> Duration {
    let nanos = bytes as u128 * 1_000_000_000 / u128::from(bandwidth.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// The delay on the way: `latency ± jitter`.
fn travel_time(link: &Link, rng: &mut fastrand::Rng) -> Duration {
    if link.jitter.is_zero() {
        return link.latency;
    }
    link.latency.saturating_sub(link.jitter).saturating_add(up_to(link.jitter * 2, rng))
}

/// A time drawn evenly from nothing to `most`.
fn up_to(most: Duration, rng: &mut fastrand::Rng) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(rng.u64(0..=nanos))
}

/// Draws whether something of this probability happens; draws nothing for the impossible, so that a
/// feature which a profile does not use does not shift the dice of the others.
fn happens(probability: f64, rng: &mut fastrand::Rng) -> bool {
    probability > 0.0 && rng.f64() < probability
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.latency))?;
        if !self.jitter.is_zero() {
            write!(f, " ± {}", humantime::format_duration(self.jitter))?;
        }
        for (name, probability) in
            [("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder)]
        {
            if probability > 0.0 {
                write!(f, ", {name} {:.3} %", probability * 100.0)?;
            }
        }
        if let Some(bandwidth) = self.bandwidth {
            write!(f, ", {} kbit/s", u128::from(bandwidth.get()) * 8 / 1000)?;
        }
        match self.cuts.len() {
            0 => Ok(()),
            1 => write!(f, ", cut at times"),
            many => write!(f, ", {many} cuts"),
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "the link was cut",
            Self::QueueFull => "the queue of the link was full",
            Self::Loss => "lost on the way",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn state(link: Link) -> (LinkState, fastrand::Rng) {
        (LinkState::new(Arc::new(link)), fastrand::Rng::with_seed(7))
    }

    fn arrival(fate: Fate, now: Duration) -> Option<Duration> {
        match fate {
            Fate::Deliver { after, .. } => Some(now + after),
            Fate::Drop(_) => None,
        }
    }

    #[test]
    fn a_transparent_link_delivers_at_once_and_draws_nothing() {
        let (mut state, mut rng) = state(Link::default());
        let seed_before = rng.get_seed();
        let fate = state.fate(5 * MS, 1200, &mut rng);
        assert_eq!(fate, Fate::Deliver { after: Duration::ZERO, again: None });
        assert_eq!(rng.get_seed(), seed_before);
        assert!(state.link().is_transparent());
    }

    /// 1,000 bytes at 1,000,000 bytes/s are one millisecond; with a queue of 3 ms the fifth packet
    /// of a burst would wait 4 ms and is dropped.
    #[test]
    fn a_narrow_link_queues_and_then_drops_its_tail() {
        let (mut state, mut rng) = state(Link {
            latency: 10 * MS,
            bandwidth: NonZeroU64::new(1_000_000),
            queue: 3 * MS,
            ..Link::default()
        });
        let fates: Vec<Fate> = (0..5).map(|_| state.fate(MS, 1000, &mut rng)).collect();
        let deliver = |millis: u32| Fate::Deliver { after: millis * MS, again: None };
        let full = Fate::Drop(DropReason::QueueFull);
        assert_eq!(fates, [deliver(11), deliver(12), deliver(13), deliver(14), full]);
        // A dropped packet takes no room: a millisecond later there is room for one more.
        assert_eq!(state.fate(2 * MS, 1000, &mut rng), deliver(14));
    }

    #[test]
    fn a_cut_begins_ends_and_repeats_on_time() {
        let once = Cut { start: 2 * MS, length: 3 * MS, every: None };
        let cut_at = |cut: &Cut| (0..14).filter(|ms| cut.covers(*ms * MS)).collect::<Vec<u32>>();
        assert_eq!(cut_at(&once), [2, 3, 4]);
        let again = Cut { every: Some(5 * MS), ..once };
        assert_eq!(cut_at(&again), [2, 3, 4, 7, 8, 9, 12, 13]);
        let (mut state, mut rng) = state(Link { cuts: vec![once], ..Link::default() });
        assert_eq!(state.fate(4 * MS, 1, &mut rng), Fate::Drop(DropReason::Cut));
        assert_ne!(state.fate(5 * MS, 1, &mut rng), Fate::Drop(DropReason::Cut));
    }

    /// Over 100,000 packets the share that is lost lies within 5 standard deviations.
    #[test]
    fn loss_is_as_frequent_as_described() {
        let (mut state, mut rng) = state(Link { loss: 0.05, ..Link::default() });
        let lost = (0..100_000)
            .filter(|_| state.fate(MS, 1, &mut rng) == Fate::Drop(DropReason::Loss))
            .count();
        assert!((4_655..=5_345).contains(&lost), "{lost} of 100,000 lost, 5,000 expected");
    }

    #[test]
    fn a_sparse_flow_sees_the_mean_latency() {
        let (mut state, mut rng) =
            state(Link { latency: 20 * MS, jitter: 5 * MS, ..Link::default() });
        let total: Duration = (0..10_000)
            .map(|n| arrival(state.fate(n * 50 * MS, 1, &mut rng), Duration::ZERO).unwrap())
            .sum();
        let mean = total / 10_000;
        assert!(mean > Duration::from_micros(19_800) && mean < Duration::from_micros(20_200));
    }

    #[test]
    fn reordered_packets_are_overtaken_and_duplicates_come_twice() {
        let link = Link { latency: 2 * MS, reorder: 0.2, duplicate: 0.2, ..Link::default() };
        let (mut state, mut rng) = state(link);
        let (mut overtaken, mut twice, mut newest) = (0, 0, Duration::ZERO);
        for n in 0..1000 {
            let now = n * MS / 10;
            let fate = state.fate(now, 1, &mut rng);
            let at = arrival(fate, now).unwrap();
            if let Fate::Deliver { after, again: Some(again) } = fate {
                assert!(again >= after);
                twice += 1;
            }
            overtaken += u32::from(at < newest);
            newest = newest.max(at);
        }
        assert!(overtaken > 100, "{overtaken} of 1,000 arrived after a later one");
        assert!((100..300).contains(&twice), "{twice} of 1,000 came twice");
    }

    fn any_link() -> impl Strategy<Value = Link> {
        (0u64..50, 0u64..50, 0.0..0.5f64, proptest::option::of(1_000u64..10_000_000), 0u64..50)
            .prop_map(|(latency, jitter, loss, bandwidth, queue)| Link {
                latency: Duration::from_millis(latency.max(jitter)),
                jitter: Duration::from_millis(jitter),
                loss,
                bandwidth: bandwidth.and_then(NonZeroU64::new),
                queue: Duration::from_millis(queue),
                ..Link::default()
            })
    }

    proptest! {
        /// Without `reorder` no packet overtakes another, whatever the jitter.
        #[test]
        fn order_is_kept(link in any_link(), gaps in proptest::collection::vec(0u64..5_000, 1..200),
                         seed in any::<u64>()) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut state = LinkState::new(Arc::new(link));
            let (mut now, mut newest) = (Duration::ZERO, Duration::ZERO);
            for gap in gaps {
                now += Duration::from_micros(gap);
                if let Some(at) = arrival(state.fate(now, 500, &mut rng), now) {
                    prop_assert!(at >= newest);
                    newest = at;
                }
            }
        }

        /// No packet waits longer than queue, wire and travel together allow.
        #[test]
        fn delay_is_bounded(link in any_link(), sizes in proptest::collection::vec(1usize..1500, 1..200),
                            seed in any::<u64>()) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let wire = link.bandwidth.map_or(Duration::ZERO, |b| time_on_wire(1500, b));
            let most = link.queue + wire + link.latency + link.jitter;
            let mut state = LinkState::new(Arc::new(link));
            for size in sizes {
                if let Fate::Deliver { after, .. } = state.fate(Duration::ZERO, size, &mut rng) {
                    prop_assert!(after <= most, "{after:?} of at most {most:?}");
                }
            }
        }

        /// The same seed and packets give the same fates.
        #[test]
        fn fates_follow_from_the_seed(link in any_link(), seed in any::<u64>()) {
            let run = || {
                let mut rng = fastrand::Rng::with_seed(seed);
                let mut state = LinkState::new(Arc::new(link.clone()));
                (0..50).map(|n| state.fate(n * MS, 100, &mut rng)).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run());
        }
    }
}
