//! Which write happens when, where and to which key: the load, decided before the run.
//!
//! The load is *open-loop*: every write has an instant at which it is issued, whatever became of
//! the ones before. A closed loop (the next write waits for the reply of the last) slows down
//! exactly when the system does and so leaves out the samples that matter, which is known as
//! coordinated omission. A real run on a busy machine may issue a write later than planned; it then
//! counts from its real issue, and how late the writes were is measured and reported beside
//! everything else, so that a run whose generator could not keep up is seen for what it is.
//!
//! The load is also a pure function of its parameters and a seed: real and simulated runs, and
//! every strategy and mode of one comparison, issue the same writes to the same nodes at the same
//! instants, so that differences are the strategy's and not the dice's.
//!
//! Arrivals are those of a Poisson process, as of many independent clients, seen through its best
//! known property: given that n arrivals fall into a span, they are n independent uniform instants
//! of it, sorted. So a run has exactly the wanted number of writes and a known length, and only
//! whole numbers are involved, the same on every machine. Evenly spaced arrivals are there too;
//! beware that a period which divides the gossip interval samples only a few phases of it.
//!
//! What must stay true: the same parameters give the same load. That it is the same in every version
//! of the program is not promised (the generator is `fastrand`'s).

use std::time::Duration;

/// How the instants of the writes are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// As of many independent clients.
    Poisson,
    /// One every `1 / rate`, beginning half such a step after the start.
    Even,
}

/// The parameters from which all writes of a run follow.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// How many writes there are.
    pub writes: usize,
    /// Writes per second, over all nodes together; above zero.
    pub rate: f64,
    /// How the instants are drawn.
    pub arrivals: Arrivals,
    /// How many nodes take writes, each write going to one of them with equal chance; at least one.
    pub nodes: usize,
    /// How many distinct keys there are, each equally likely; at least one. Concurrent writes to
    /// one key, hence conflicts, come from having few of them.
    pub keys: usize,
    /// The length of a value. Below [`VALUE_BYTES_DISTINCT`], values of different writes may be
    /// equal.
    pub value_bytes: usize,
    /// Whence all choices come.
    pub seed: u64,
}

/// One write of the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedWrite {
    /// Its number in the order of issue, from 0.
    pub index: usize,
    /// When it is issued, from the start of the load.
    pub at: Duration,
    /// The node, from 0, that it is sent to.
    pub node: usize,
    /// The number of its key, from 0; see [`key_name`].
    pub key: usize,
}

/// From this length on, every write's value differs from every other's: it begins with the number
/// of the write in 16 hexadecimal digits.
pub const VALUE_BYTES_DISTINCT: usize = 16;

impl Workload {
    /// How long the writes take to issue; the last is issued before this.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.writes as f64 / self.rate)
    }

    /// All writes, in the order of issue.
    pub fn plan(&self) -> Vec<PlannedWrite> {
        assert!(self.nodes > 0 && self.keys > 0 && self.rate > 0.0, "checked by the caller");
        let mut dice = fastrand::Rng::with_seed(self.seed);
        self.instants(&mut dice)
            .into_iter()
            .enumerate()
            .map(|(index, at)| PlannedWrite {
                index,
                at,
                node: dice.usize(..self.nodes),
                key: dice.usize(..self.keys),
            })
            .collect()
    }

    /// The value of write `index`: its number, then noise that no compressor shortens.
    pub fn value(&self, index: usize) -> Vec<u8> {
        let mut value = format!("{index:016x}").into_bytes();
        let mut dice = fastrand::Rng::with_seed(self.seed ^ (index as u64).wrapping_mul(SPREAD));
        value.resize_with(self.value_bytes.max(value.len()), || dice.u8(b'!'..=b'~'));
        value.truncate(self.value_bytes);
        value
    }

    /// The instants of the writes, sorted.
    fn instants(&self, dice: &mut fastrand::Rng) -> Vec<Duration> {
        let length = u64::try_from(self.length().as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut instants: Vec<u64> = match self.arrivals {
            Arrivals::Poisson => (0..self.writes).map(|_| dice.u64(..length)).collect(),
            Arrivals::Even => (0..self.writes as u128)
                .map(|index| u128::from(length) * (2 * index + 1) / (2 * self.writes as u128))
                .map(|instant| u64::try_from(instant).expect("below the length"))
                .collect(),
        };
        instants.sort_unstable();
        instants.into_iter().map(Duration::from_nanos).collect()
    }
}

/// An odd number with well-mixed bits (2⁶⁴ divided by the golden ratio), so that neighbouring
/// writes get unrelated seeds.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The name of key number `key`, as it is stored: always 16 bytes below a billion keys, so that
/// bytes per write do not depend on which key was drawn.
pub fn key_name(key: usize) -> Vec<u8> {
    format!("compare{key:09}").into_bytes()
}

/// The number of a key from its name, or `None` for a key that no load writes.
pub fn key_number(name: &[u8]) -> Option<usize> {
    let digits = name.strip_prefix(b"compare")?;
    let well_formed = digits.len() >= 9 && digits.iter().all(u8::is_ascii_digit);
    well_formed.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workload() -> Workload {
        Workload {
            writes: 4_000,
            rate: 1_000.0,
            arrivals: Arrivals::Poisson,
            nodes: 5,
            keys: 20,
            value_bytes: 100,
            seed: 7,
        }
    }

    /// 4,000 writes at 1,000 a second take 4 s, are in order, and use every node and key about
    /// equally (within six standard deviations of a binomial: 800 ± 152 and 200 ± 83).
    #[test]
    fn the_load_is_spread_evenly_over_nodes_and_keys() {
        let plan = workload().plan();
        assert_eq!(workload().length(), Duration::from_secs(4));
        assert!(plan.is_sorted_by_key(|write| write.at));
        assert!(plan.last().unwrap().at < Duration::from_secs(4));
        for node in 0..5 {
            let count = plan.iter().filter(|write| write.node == node).count();
            assert!(count.abs_diff(800) < 152, "node {node} has {count}");
        }
        for key in 0..20 {
            let count = plan.iter().filter(|write| write.key == key).count();
            assert!(count.abs_diff(200) < 83, "key {key} has {count}");
        }
    }

    /// The same seed gives the same load, another seed another one.
    #[test]
    fn the_load_is_a_function_of_its_seed() {
        assert_eq!(workload().plan(), workload().plan());
        assert_ne!(workload().plan(), Workload { seed: 8, ..workload() }.plan());
        assert_eq!(workload().value(3), workload().value(3));
    }

    /// Gaps of a Poisson process vary as much as they are long: the standard deviation of the gaps
    /// is their mean (1 ms), within a tenth for 4,000 of them; those of even arrivals are equal.
    #[test]
    fn gaps_have_the_distribution_that_is_claimed() {
        let spread_of = |arrivals| {
            let plan = Workload { arrivals, ..workload() }.plan();
            let gaps: Vec<f64> =
                plan.windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64() * 1e3).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance =
                gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            (mean, variance.sqrt())
        };
        let (mean, deviation) = spread_of(Arrivals::Poisson);
        assert!((mean - 1.0).abs() < 0.01 && (deviation - 1.0).abs() < 0.1, "{mean} {deviation}");
        let (mean, deviation) = spread_of(Arrivals::Even);
        assert!((mean - 1.0).abs() < 1e-6 && deviation < 1e-6, "{mean} {deviation}");
    }

    /// Even arrivals of two writes at 1 a second are at 0.5 s and 1.5 s.
    #[test]
    fn even_arrivals_begin_half_a_step_in() {
        let plan = Workload { arrivals: Arrivals::Even, writes: 2, rate: 1.0, ..workload() }.plan();
        let instants: Vec<u128> = plan.iter().map(|write| write.at.as_millis()).collect();
        assert_eq!(instants, [500, 1_500]);
    }

    proptest! {
        /// A key's name leads back to its number, and other names to none.
        #[test]
        fn key_names_are_read_back(key in 0usize..10_000_000_000) {
            prop_assert_eq!(key_number(&key_name(key)), Some(key));
            prop_assert_eq!(key_number(format!("other{key:09}").as_bytes()), None);
        }

        /// Values have the wanted length, and from 16 bytes on tell any two writes apart.
        #[test]
        fn values_are_distinct(bytes in 0usize..300, one in 0usize..1_000, other in 0usize..1_000) {
            let workload = Workload { value_bytes: bytes, ..workload() };
            prop_assert_eq!(workload.value(one).len(), bytes);
            if bytes >= VALUE_BYTES_DISTINCT && one != other {
                prop_assert_ne!(workload.value(one), workload.value(other));
            }
        }
    }
}
