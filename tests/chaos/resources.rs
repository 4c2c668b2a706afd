//! What processes take of their machine, as the system tells it, and how that grows.

use std::fs;
use std::time::Duration;

use crate::common::NodeProcess;

/// One look at one process.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    resident_bytes: u64,
    descriptors: u64,
    threads: u64,
}

impl Use {
    fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
        let resident_bytes = field("VmRSS:")? * 1024;
        Some(Self { resident_bytes, descriptors, threads: field("Threads:")? })
    }
}

/// What the nodes took over time.
#[derive(Debug, Default)]
pub(crate) struct Resources {
    /// When, which node, which process, what.
    samples: Vec<(Duration, usize, u32, Use)>,
}

impl Resources {
    pub(crate) fn sample(&mut self, now: Duration, nodes: &[NodeProcess]) {
        for (index, node) in nodes.iter().enumerate() {
            if let Some(used) = Use::of(node.id()) {
                self.samples.push((now, index, node.id(), used));
            }
        }
    }

    /// Prints for each node the mean of the first third of the time and of the last minutes' third,
    /// and whether it was one process all the time.
    pub(crate) fn print(&self) {
        let end = self.samples.last().map(|sample| sample.0).unwrap_or_default();
        let nodes = self.samples.iter().map(|sample| sample.1 + 1).max().unwrap_or(0);
        for node in 0..nodes {
            let own: Vec<_> = self.samples.iter().filter(|sample| sample.1 == node).collect();
            let mut processes: Vec<u32> = own.iter().map(|sample| sample.2).collect();
            processes.dedup();
            let mean = |from: Duration, to: Duration, of: fn(&Use) -> u64| {
                let some = own.iter().filter(|sample| sample.0 >= from && sample.0 <= to);
                let values: Vec<u64> = some.map(|sample| of(&sample.3)).collect();
                values.iter().sum::<u64>() as f64 / values.len().max(1) as f64
            };
            let thirds = |of: fn(&Use) -> u64| {
                (mean(Duration::ZERO, end / 3, of), mean(end * 2 / 3, end, of))
            };
            let memory = thirds(|used| used.resident_bytes);
            let (descriptors, threads) =
                (thirds(|used| used.descriptors), thirds(|used| used.threads));
            println!(
                "node {node}, {} process(es), mean of the first and of the last third of {:.0} s: \
                 {:.1} and {:.1} MiB resident ({:+.1} %), {:.1} and {:.1} descriptors, {:.1} and \
                 {:.1} threads",
                processes.len(),
                end.as_secs_f64(),
                memory.0 / 1048576.0,
                memory.1 / 1048576.0,
                (memory.1 / memory.0 - 1.0) * 100.0,
                descriptors.0,
                descriptors.1,
                threads.0,
                threads.1,
            );
        }
    }
}
