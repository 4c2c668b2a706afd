//! How far a node has come that fills itself from another: what it says in its log and its status.
//!
//! The sender of a long delta tells with its first part about how much there is. That is a hint, for
//! people: a sum that is wrong makes the percentage wrong and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::protocol::delta::Progress;
use crate::protocol::time::Time;

/// How often at the most the log hears how far it is.
const WORDS_INTERVAL: Duration = Duration::from_secs(1);

/// How far a node has come that is being filled by another.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FillStatus {
    /// Who fills it.
    pub from: String,
    /// How much of it has come, in percent, rounded down.
    pub percent: u8,
    /// Cells that have come.
    pub cells: u64,
    /// About how many there are in all.
    pub cells_expected: u64,
    /// Bytes that have come, names and values.
    pub bytes: u64,
    /// About how many there are in all.
    pub bytes_expected: u64,
    /// For how long it has been filled, in seconds.
    pub seconds: f64,
}

impl FillStatus {
    pub(super) fn of(progress: &Progress, now: Time) -> Self {
        let Progress { from, brought, expected, since } = progress;
        Self {
            from: from.to_string(),
            percent: percent(progress),
            cells: brought.cells,
            cells_expected: expected.cells,
            bytes: brought.bytes,
            bytes_expected: expected.bytes,
            seconds: now.since(*since).as_secs_f64(),
        }
    }
}

/// How much has come, by bytes where there are any: values may differ much in length. More may come
/// than was expected, as writes go on; and it is not all before it is over.
fn percent(progress: &Progress) -> u8 {
    let Progress { brought, expected, .. } = progress;
    let (part, whole) = match expected.bytes {
        0 => (brought.cells, expected.cells),
        bytes => (brought.bytes, bytes),
    };
    let percent = u128::from(part) * 100 / u128::from(whole.max(1));
    u8::try_from(percent.min(99)).unwrap_or(99)
}

/// When the log heard last how far it is.
#[derive(Debug, Default)]
pub(super) struct FillWords {
    /// When it may hear again, in nanoseconds of the node's clock.
    next: AtomicU64,
    /// Whether it has heard of the beginning, and not yet of the end.
    begun: AtomicBool,
}

impl FillWords {
    /// What to print of a part that has come, if it is time to.
    pub(super) fn part(&self, now: Time, progress: &Progress) -> Option<String> {
        if now.as_nanos() < self.next.load(Ordering::Relaxed) {
            return None;
        }
        self.next.store((now + WORDS_INTERVAL).as_nanos(), Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        let Progress { from, brought, expected, .. } = progress;
        Some(format!(
            "filled by {from:?}: {} %, {} of about {} cells, {:.1} of {:.1} MB",
            percent(progress),
            brought.cells,
            expected.cells,
            brought.bytes as f64 / 1e6,
            expected.bytes as f64 / 1e6
        ))
    }

    /// Whether to print that it is over.
    pub(super) fn is_over(&self) -> bool {
        self.begun.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::delta::Load;
    use crate::protocol::id::NodeId;

    fn progress(cells: u64, bytes: u64) -> Progress {
        let expected = Load { cells: 1_000, bytes: 200_000 };
        let brought = Load { cells, bytes };
        Progress { from: NodeId(1), brought, expected, since: Time::START }
    }

    #[test]
    fn the_percentage_follows_the_bytes_and_stops_short_of_the_whole() {
        let percents = [0, 1_999, 2_000, 100_000, 199_999, 200_000, u64::MAX]
            .map(|bytes| percent(&progress(0, bytes)));
        assert_eq!(percents, [0, 0, 1, 50, 99, 99, 99]);
        let expected = Load { cells: 8, bytes: 0 };
        assert_eq!(percent(&Progress { expected, ..progress(2, 0) }), 25);
        assert_eq!(percent(&Progress { expected: Load::default(), ..progress(2, 0) }), 99);
    }

    /// Of a thousand parts in ten seconds the log hears eleven times.
    #[test]
    fn the_log_hears_at_most_once_a_second() {
        let words = FillWords::default();
        assert!(!words.is_over());
        let at = |part: u64| Time::START + Duration::from_millis(10 * part);
        let heard =
            (0..=1_000).filter_map(|part| words.part(at(part), &progress(part, part * 200)));
        let heard: Vec<String> = heard.collect();
        assert_eq!(heard.len(), 11);
        assert!(heard[5].contains("50 %, 500 of about 1000 cells, 0.1 of 0.2 MB"), "{}", heard[5]);
        assert!(words.is_over() && !words.is_over());
    }
}
