//! What happened in a run, write by write, and what follows from it.
//!
//! **Definitions** (printed under every table): *visible(w, p)* is the first instant at which node p
//! holds a stamp at or above w's for w's key. The *convergence time* of w runs from its
//! acknowledgement (and, separately, from its issue) until it is visible at the last live node. An
//! acknowledged write that does not become visible everywhere before the deadline is *unfinished*:
//! its time is censored, not dropped.
//!
//! "At or above" is what makes the definition fit a store where the last writer wins: a node that
//! never held w because a later write to the key reached it first is not waiting for w. So nodes
//! report every stamp that they apply ([`Recorder::seen`]) without knowing which write it is, and
//! matching happens after the run, when all stamps are known: the stamp of a write is known to its
//! issuer only with the acknowledgement, which other nodes may well be ahead of.
//!
//! A run is judged at its end by what the nodes hold then, not by what they once held:
//! - *lost* is an acknowledged write of which no live node holds its stamp or a greater one;
//! - *diverged* counts nodes whose fingerprint differs from that of others which hold the very same
//!   writes (equal version vectors): they will never notice by digests alone;
//! - *unfinished* is an acknowledged write that is not lost and that some live node never saw or
//!   no longer holds.
//!
//! The recorder is fed from many threads while the run is measured, so it does as little as possible
//! then: one short lock without contention and one append per event, into memory reserved before.
//!
//! What must stay true: all instants are on one clock, counted from the start of the run; every
//! issued write ends up in exactly one of converged, unfinished, lost or unacknowledged.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use super::statistics::Samples;
use super::workload::PlannedWrite;
use crate::protocol::digest::DigestHash;
use crate::protocol::stamp::Stamp;
use crate::protocol::store::Fingerprint;

/// Takes down what happens while a run is measured.
#[derive(Debug)]
pub struct Recorder {
    writes: Box<[Mutex<Trace>]>,
    sightings: Box<[Mutex<Vec<Sighting>>]>,
}

/// One write's story, as far as its issuer knows it.
#[derive(Debug, Clone, Copy)]
struct Trace {
    planned: PlannedWrite,
    issued: Option<Duration>,
    acked: Option<(Duration, Stamp)>,
}

/// A node held this stamp for this key from this instant on.
#[derive(Debug, Clone, Copy)]
struct Sighting {
    key: usize,
    stamp: Stamp,
    at: Duration,
}

/// What a live node holds when the run is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEnd {
    /// The stamp of each key of the load, by number; `None` where it holds nothing.
    pub stamps: Vec<Option<Stamp>>,
    /// Says which writes it has: equal for equal version vectors.
    pub digest_hash: DigestHash,
    /// Says what it holds: equal for equal states.
    pub fingerprint: Fingerprint,
}

/// A write that is acknowledged later than this after its issue was not available to its client: longer
/// than people or other programs like to wait.
pub const AVAILABLE_WITHIN: Duration = Duration::from_secs(1);

/// What a run showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// Writes issued.
    pub writes: usize,
    /// Writes acknowledged.
    pub acked: usize,
    /// Writes acknowledged within [`AVAILABLE_WITHIN`].
    pub in_time: usize,
    /// The longest time, from the first issue to the last acknowledgement, without any
    /// acknowledgement.
    pub gap: Duration,
    /// Acknowledged writes that became visible at every live node, and still are.
    pub converged: usize,
    /// Acknowledged writes that no live node holds.
    pub lost: usize,
    /// Nodes that differ from others which hold the same writes.
    pub diverged: usize,
    /// Acknowledged writes that some live node lacks.
    pub unfinished: usize,
    /// From issue to acknowledgement; a write never acknowledged is censored.
    pub ack: Samples,
    /// From acknowledgement to visible at the last live node, over acknowledged writes; zero for
    /// one that was visible everywhere before its issuer learnt of the acknowledgement.
    pub converge: Samples,
    /// From issue to visible at the last live node, over acknowledged writes.
    pub converge_from_issue: Samples,
    /// From the planned instant to the issue: how well the generator kept up.
    pub issue_lag: Samples,
}

impl Recorder {
    /// A recorder for this load in a cluster of `nodes`.
    ///
    /// Memory is reserved for each node to see each write once; more only costs time.
    pub fn new(nodes: usize, plan: &[PlannedWrite]) -> Self {
        let trace = |planned: &PlannedWrite| {
            Mutex::new(Trace { planned: *planned, issued: None, acked: None })
        };
        Self {
            writes: plan.iter().map(trace).collect(),
            sightings: (0..nodes).map(|_| Mutex::new(Vec::with_capacity(plan.len()))).collect(),
        }
    }

    /// Write `write` was issued.
    pub fn issued(&self, write: usize, at: Duration) {
        self.writes[write].lock().issued = Some(at);
    }

    /// Write `write` was acknowledged with the stamp `stamp`. A write of which nothing is heard is
    /// one that was not acknowledged.
    pub fn acked(&self, write: usize, stamp: Stamp, at: Duration) {
        self.writes[write].lock().acked = Some((at, stamp));
    }

    /// Node `node` holds the stamp `stamp` for key number `key` from now on.
    pub fn seen(&self, node: usize, key: usize, stamp: Stamp, at: Duration) {
        self.sightings[node].lock().push(Sighting { key, stamp, at });
    }

    /// Judges the run by what each node holds at its end, `None` for one that is not alive.
    pub fn finish(&self, ends: &[Option<NodeEnd>]) -> Measured {
        assert_eq!(ends.len(), self.sightings.len(), "every node has an end");
        let traces: Vec<Trace> = self.writes.iter().map(|trace| *trace.lock()).collect();
        let live: Vec<usize> = (0..ends.len()).filter(|node| ends[*node].is_some()).collect();
        let mut visible_everywhere = vec![Some(Duration::ZERO); traces.len()];
        for node in &live {
            let visible = self.first_visible(*node, &traces);
            for (everywhere, here) in visible_everywhere.iter_mut().zip(visible) {
                *everywhere = everywhere.zip(here).map(|(one, other)| one.max(other));
            }
        }
        let ends: Vec<&NodeEnd> = ends.iter().flatten().collect();
        judge(&traces, &visible_everywhere, &ends)
    }

    /// When each write became visible at `node`: the earliest sighting of its key with its stamp or
    /// a greater one.
    fn first_visible(&self, node: usize, traces: &[Trace]) -> Vec<Option<Duration>> {
        let mut sightings = self.sightings[node].lock().clone();
        sightings
            .sort_unstable_by_key(|sighting| (sighting.key, std::cmp::Reverse(sighting.stamp)));
        let mut order: Vec<(usize, Stamp, usize)> = traces
            .iter()
            .enumerate()
            .filter_map(|(write, trace)| Some((trace.planned.key, trace.acked?.1, write)))
            .collect();
        order.sort_unstable_by_key(|(key, stamp, _)| (*key, std::cmp::Reverse(*stamp)));

        let mut visible = vec![None; traces.len()];
        let mut sightings = sightings.into_iter().peekable();
        let mut earliest: Option<(usize, Duration)> = None;
        for (key, stamp, write) in order {
            earliest = earliest.filter(|(of_key, _)| *of_key == key);
            while let Some(next) =
                sightings.next_if(|s| s.key < key || s.key == key && s.stamp >= stamp)
            {
                if next.key == key {
                    let at = earliest.map_or(next.at, |(_, at)| at.min(next.at));
                    earliest = Some((key, at));
                }
            }
            visible[write] = earliest.map(|(_, at)| at);
        }
        visible
    }
}

/// Sorts every write into its class and collects the times.
fn judge(traces: &[Trace], visible_everywhere: &[Option<Duration>], ends: &[&NodeEnd]) -> Measured {
    let mut measured =
        Measured { diverged: diverged(ends), gap: longest_gap(traces), ..Measured::default() };
    let (mut acks, mut from_ack, mut from_issue, mut lags) = (vec![], vec![], vec![], vec![]);
    for (trace, visible) in traces.iter().zip(visible_everywhere) {
        let Some(issued) = trace.issued else { continue };
        measured.writes += 1;
        lags.push(issued.saturating_sub(trace.planned.at));
        let Some((acked, stamp)) = trace.acked else { continue };
        measured.acked += 1;
        let took = acked.saturating_sub(issued);
        measured.in_time += usize::from(took <= AVAILABLE_WITHIN);
        acks.push(took);
        let holds = |end: &&&NodeEnd| {
            end.stamps.get(trace.planned.key).copied().flatten().is_some_and(|held| held >= stamp)
        };
        let holders = ends.iter().filter(holds).count();
        match visible {
            _ if holders == 0 => measured.lost += 1,
            Some(visible) if holders == ends.len() => {
                measured.converged += 1;
                from_ack.push(visible.saturating_sub(acked));
                from_issue.push(visible.saturating_sub(issued));
            }
            _ => measured.unfinished += 1,
        }
    }
    let censored = measured.lost + measured.unfinished;
    measured.ack = Samples::new(acks, measured.writes - measured.acked);
    measured.converge = Samples::new(from_ack, censored);
    measured.converge_from_issue = Samples::new(from_issue, censored);
    measured.issue_lag = Samples::new(lags, 0);
    measured
}

/// The longest time without any acknowledgement, from the first issue on.
fn longest_gap(traces: &[Trace]) -> Duration {
    let mut instants: Vec<_> = traces.iter().filter_map(|it| Some(it.acked?.0)).collect();
    instants.extend(traces.iter().filter_map(|trace| trace.issued).min());
    instants.sort_unstable();
    instants.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

/// How many nodes differ from the most common state among the nodes that hold the same writes.
fn diverged(ends: &[&NodeEnd]) -> usize {
    let mut states: HashMap<DigestHash, Vec<(Fingerprint, usize)>> = HashMap::new();
    for end in ends {
        let states = states.entry(end.digest_hash).or_default();
        match states.iter_mut().find(|(fingerprint, _)| *fingerprint == end.fingerprint) {
            Some((_, count)) => *count += 1,
            None => states.push((end.fingerprint, 1)),
        }
    }
    let outvoted = |states: &Vec<(Fingerprint, usize)>| {
        let counts = states.iter().map(|(_, count)| *count);
        counts.clone().sum::<usize>() - counts.max().unwrap_or(0)
    };
    states.values().map(outvoted).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::id::Origin;
    use crate::protocol::stamp::{Epoch, Lamport};

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn stamp(counter: u64) -> Stamp {
        Stamp { epoch: Epoch(0), lamport: Lamport(counter), origin: Origin(1) }
    }

    /// A hash or fingerprint of this number, of whatever type it is.
    fn numbered<T: serde::de::DeserializeOwned>(number: u8) -> T {
        serde_json::from_str(&number.to_string()).unwrap()
    }

    fn plan(keys: &[usize]) -> Vec<PlannedWrite> {
        keys.iter()
            .enumerate()
            .map(|(index, key)| PlannedWrite { index, at: ms(index as u64), node: 0, key: *key })
            .collect()
    }

    fn end(counters: &[Option<u64>]) -> Option<NodeEnd> {
        let stamps = counters.iter().map(|counter| counter.map(stamp)).collect();
        Some(NodeEnd { stamps, digest_hash: numbered(1), fingerprint: numbered(1) })
    }

    /// Issued at 2 (planned at 0), acknowledged at 3, seen at the other two at 7 and 9: acknowledged
    /// after 1 ms, everywhere 6 ms after that and 7 ms after its issue, 2 ms late.
    #[test]
    fn the_last_node_counts() {
        let recorder = Recorder::new(3, &plan(&[0]));
        recorder.issued(0, ms(2));
        recorder.acked(0, stamp(1), ms(3));
        for (node, at) in [(0, 2), (1, 7), (2, 9)] {
            recorder.seen(node, 0, stamp(1), ms(at));
        }
        let held = end(&[Some(1)]);
        let measured = recorder.finish(&[held.clone(), held.clone(), held]);
        assert_eq!((measured.writes, measured.acked, measured.converged), (1, 1, 1));
        assert_eq!((measured.lost, measured.diverged, measured.unfinished), (0, 0, 0));
        assert_eq!(measured.ack.percentile(100), Some(ms(1)));
        assert_eq!(measured.converge.percentile(100), Some(ms(6)));
        assert_eq!(measured.converge_from_issue.percentile(100), Some(ms(7)));
        assert_eq!(measured.issue_lag.percentile(100), Some(ms(2)));
    }

    /// Node 1 sees only the second of two writes to a key, at 5. Both are visible there from then
    /// on: the first is not waited for, though it never arrives.
    #[test]
    fn a_later_write_stands_for_an_earlier_one() {
        let recorder = Recorder::new(2, &plan(&[0, 0]));
        for write in 0..2 {
            recorder.issued(write, ms(0));
            recorder.acked(write, stamp(write as u64 + 1), ms(1));
            recorder.seen(0, 0, stamp(write as u64 + 1), ms(0));
        }
        recorder.seen(1, 0, stamp(2), ms(5));
        let measured = recorder.finish(&[end(&[Some(2)]), end(&[Some(2)])]);
        assert_eq!(measured.converged, 2);
        assert_eq!(measured.converge, Samples::new(vec![ms(4), ms(4)], 0));
    }

    /// An earlier write does not stand for a later one, nor does a write to another key.
    #[test]
    fn a_lower_stamp_or_another_key_stands_for_nothing() {
        let recorder = Recorder::new(2, &plan(&[0, 0, 1]));
        for (write, counter) in [(0, 1), (1, 2), (2, 9)] {
            recorder.issued(write, ms(0));
            recorder.acked(write, stamp(counter), ms(1));
        }
        for (key, counter) in [(0, 1), (0, 2), (1, 9)] {
            recorder.seen(0, key, stamp(counter), ms(0));
        }
        recorder.seen(1, 0, stamp(1), ms(5));
        recorder.seen(1, 1, stamp(9), ms(6));
        let measured = recorder.finish(&[end(&[Some(2), Some(9)]), end(&[Some(1), Some(9)])]);
        assert_eq!((measured.converged, measured.unfinished, measured.lost), (2, 1, 0));
        assert_eq!(measured.converge, Samples::new(vec![ms(4), ms(5)], 1));
    }

    /// Seen once but gone at the end is not converged; gone everywhere is lost; never acknowledged
    /// is neither, but its acknowledgement time is censored.
    #[test]
    fn a_run_is_judged_by_its_end() {
        let recorder = Recorder::new(2, &plan(&[0, 1, 2]));
        for write in 0..3 {
            recorder.issued(write, ms(0));
        }
        for key in 0..2 {
            recorder.acked(key, stamp(1), ms(1));
            recorder.seen(0, key, stamp(1), ms(0));
            recorder.seen(1, key, stamp(1), ms(2));
        }
        let measured = recorder.finish(&[end(&[Some(1), None, None]), end(&[None, None, None])]);
        assert_eq!((measured.writes, measured.acked), (3, 2));
        assert_eq!((measured.converged, measured.unfinished, measured.lost), (0, 1, 1));
        assert_eq!(measured.ack, Samples::new(vec![ms(1), ms(1)], 1));
        assert_eq!(measured.converge, Samples::new(vec![], 2));
    }

    /// Issued at 0, 100, 200 and 300 ms: acknowledged at 10 ms, never, at 1,200 ms (exactly in time) and
    /// at 1,301 ms (one too late): two of four in time, and 1,190 ms without an acknowledgement.
    #[test]
    fn what_is_late_was_not_available() {
        let recorder = Recorder::new(1, &plan(&[0, 1, 2, 3]));
        for (write, acked) in [Some(10), None, Some(1_200), Some(1_301)].into_iter().enumerate() {
            recorder.issued(write, ms(100 * write as u64));
            if let Some(acked) = acked {
                recorder.acked(write, stamp(1), ms(acked));
            }
        }
        let measured = recorder.finish(&[None]);
        assert_eq!((measured.writes, measured.acked, measured.in_time), (4, 3, 2));
        assert_eq!(measured.gap, ms(1_190));
    }

    /// A node that is not alive is waited for by nobody.
    #[test]
    fn dead_nodes_do_not_count() {
        let recorder = Recorder::new(2, &plan(&[0]));
        recorder.issued(0, ms(0));
        recorder.acked(0, stamp(1), ms(1));
        recorder.seen(0, 0, stamp(1), ms(0));
        let measured = recorder.finish(&[end(&[Some(1)]), None]);
        assert_eq!((measured.converged, measured.unfinished), (1, 0));
        assert_eq!(measured.converge, Samples::new(vec![ms(0)], 0));
    }

    /// Of five nodes three hold the same writes, of which one another state: that one diverged. The
    /// two others hold other writes each and may differ.
    #[test]
    fn divergence_is_different_states_from_the_same_writes() {
        let node = |digest_hash, fingerprint| NodeEnd {
            stamps: vec![],
            digest_hash: numbered(digest_hash),
            fingerprint: numbered(fingerprint),
        };
        let ends = [node(1, 10), node(1, 11), node(1, 10), node(2, 20), node(3, 30)];
        assert_eq!(diverged(&ends.iter().collect::<Vec<_>>()), 1);
    }

    proptest! {
        /// The sorted sweep finds what the definition says, for any sightings.
        #[test]
        fn the_sweep_agrees_with_the_definition(
            writes in prop::collection::vec((0usize..4, 0u64..12), 1..30),
            sightings in prop::collection::vec((0usize..4, 0u64..12, 0u64..100), 0..60),
        ) {
            let keys: Vec<usize> = writes.iter().map(|(key, _)| *key).collect();
            let recorder = Recorder::new(1, &plan(&keys));
            for (write, (_, counter)) in writes.iter().enumerate() {
                recorder.issued(write, ms(0));
                recorder.acked(write, stamp(*counter), ms(0));
            }
            for (key, counter, at) in &sightings {
                recorder.seen(0, *key, stamp(*counter), ms(*at));
            }
            let traces: Vec<Trace> = recorder.writes.iter().map(|trace| *trace.lock()).collect();
            let wanted: Vec<Option<Duration>> = writes
                .iter()
                .map(|(key, counter)| {
                    sightings
                        .iter()
                        .filter(|(of_key, held, _)| of_key == key && held >= counter)
                        .map(|(_, _, at)| ms(*at))
                        .min()
                })
                .collect();
            prop_assert_eq!(recorder.first_visible(0, &traces), wanted);
        }

        /// Every issued write is counted in exactly one class.
        #[test]
        fn every_write_is_counted_once(
            writes in prop::collection::vec((0usize..3, any::<bool>(), 1u64..9), 1..20),
            held in prop::collection::vec(prop::collection::vec(prop::option::of(1u64..9), 3), 2),
        ) {
            let keys: Vec<usize> = writes.iter().map(|(key, ..)| *key).collect();
            let recorder = Recorder::new(2, &plan(&keys));
            for (write, (key, acked, counter)) in writes.iter().enumerate() {
                recorder.issued(write, ms(0));
                recorder.seen(write % 2, *key, stamp(*counter), ms(1));
                if *acked {
                    recorder.acked(write, stamp(*counter), ms(1));
                }
            }
            let measured = recorder.finish(&[end(&held[0]), end(&held[1])]);
            prop_assert_eq!(measured.writes, writes.len());
            prop_assert_eq!(measured.acked, writes.iter().filter(|(_, acked, _)| *acked).count());
            prop_assert_eq!(
                measured.acked,
                measured.converged + measured.lost + measured.unfinished
            );
            prop_assert_eq!(measured.converge.len(), measured.acked);
            prop_assert_eq!(measured.ack.len(), measured.writes);
        }
    }
}
