//! The clock, open files, and the kernel's buffers for UDP.
//!
//! Clocks are looked at because keys expire by each node's own; the order of writes does not depend
//! on them.

use std::fs;
use std::time::{Duration, SystemTime};

use super::{Finding, ask, size};

/// 2026-01-01, in seconds of Unix time: this program was made later.
const MADE_AFTER: Duration = Duration::from_secs(1_767_225_600);
/// Files and connections for peers, a few clients and the data.
const OPEN_FILES_MIN: u64 = 1024;
/// What a node asks the kernel to buffer, see `net/socket.rs`.
const BUFFER_BYTES: u64 = 2 << 20;
/// What Linux grants where nobody has changed it.
const BUFFER_BYTES_MIN: u64 = 208 << 10;

/// Whether the clock can be right, and is kept right.
pub(super) fn clock() -> Vec<Finding> {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let shown = humantime::format_rfc3339_seconds(now);
    if since < MADE_AFTER {
        return vec![Finding::warn(
            "clock",
            format!("it shows {shown}, before this program was made; keys would expire wrongly"),
            "`timedatectl set-ntp true`, or set it with `date -s`",
        )];
    }
    let synchronized = ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]);
    vec![match synchronized.as_deref().map(str::trim) {
        Some("no") => Finding::warn(
            "clock",
            format!("it shows {shown} and nothing keeps it right; keys may expire early or late"),
            "`timedatectl set-ntp true`, or install chrony",
        ),
        Some("yes") => Finding::ok("clock", format!("it shows {shown} and is kept right")),
        _ => Finding::ok("clock", format!("it shows {shown}; what keeps it right is not known")),
    }]
}

/// Whether enough files may be open.
pub(super) fn open_files() -> Finding {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    judge_open_files(open_files_max(&limits))
}

/// The first number of the row, which is the limit in force; `unlimited` is none.
fn open_files_max(limits: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    row.split_whitespace().next()?.parse().ok()
}

fn judge_open_files(most: Option<u64>) -> Finding {
    match most {
        Some(most) if most < OPEN_FILES_MIN => Finding::warn(
            "open files",
            format!("at most {most}: each client takes one"),
            format!("`ulimit -n {OPEN_FILES_MIN}` or LimitNOFILE= of the service, or more"),
        ),
        Some(most) => Finding::ok("open files", format!("at most {most}")),
        None => Finding::ok("open files", "no limit is known"),
    }
}

/// Whether the kernel keeps a burst of packets until they are read.
pub(super) fn buffers() -> Finding {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    judge_buffers(read("rmem_max").into_iter().chain(read("wmem_max")).min())
}

fn judge_buffers(most: Option<u64>) -> Finding {
    let fix =
        format!("`sysctl -w net.core.rmem_max={BUFFER_BYTES} net.core.wmem_max={BUFFER_BYTES}`");
    match most {
        Some(most) if most < BUFFER_BYTES_MIN => Finding::warn(
            "udp buffers",
            format!("at most {}: bursts are lost and sent again", size(most)),
            fix,
        ),
        Some(most) if most < BUFFER_BYTES => Finding::ok(
            "udp buffers",
            format!("at most {}, enough for a gigabit; for more: {fix}", size(most)),
        ),
        Some(most) => Finding::ok("udp buffers", format!("at most {}", size(most))),
        None => Finding::ok("udp buffers", "the limit is not known"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn limits_are_read_and_judged() {
        let limits =
            "Limit    Soft Limit  Hard Limit  Units\nMax open files   256   4096   files\n";
        assert_eq!(open_files_max(limits), Some(256));
        assert_eq!(judge_open_files(Some(256)).health, Health::Warn);
        assert_eq!(judge_open_files(Some(1024)).health, Health::Ok);
        assert_eq!(open_files_max("Max open files  unlimited unlimited files"), None);
        assert_eq!(judge_open_files(None).health, Health::Ok);
        assert_eq!(judge_buffers(Some(100_000)).health, Health::Warn);
        assert_eq!(judge_buffers(Some(212_992)).health, Health::Ok);
    }

    #[test]
    fn the_clock_of_whoever_runs_this_is_later_than_the_program() {
        assert!(clock().iter().all(|finding| !finding.what.contains("before this program")));
    }
}
