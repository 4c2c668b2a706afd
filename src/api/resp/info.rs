//! What `INFO` tells: facts and counters, in the sections and spelling that tools for Redis read.
//!
//! `redis_version` is the version of Redis whose commands this door follows, because clients choose
//! by it what to send; `server_name` and `quorumor_version` say who really answers. What does not
//! exist here is left out rather than reported as zero, except for the few lines that client
//! libraries and redis-cli wait for, such as `loading`. The section `Gossip` is our own.

use std::fmt::{Display, Write};

use super::door::Shared;
use super::parse::Arguments;
use crate::server::Status;

/// The version of Redis whose texts and commands this door follows.
pub(super) const REDIS_VERSION: &str = "7.0.15";

/// The names of the sections, in their order.
const SECTIONS: [&str; 9] = [
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "keyspace",
    "gossip",
    "log",
];

/// The text for `INFO [section ...]`; `wanted` are the sections' names.
pub(super) fn text(shared: &Shared, wanted: Arguments<'_>) -> String {
    let all = |name: &[u8]| {
        [&b"all"[..], b"default", b"everything"].iter().any(|it| it.eq_ignore_ascii_case(name))
    };
    let everything = wanted.is_empty() || wanted.iter().any(all);
    let asked = |section: &str| {
        everything || wanted.iter().any(|name| section.as_bytes().eq_ignore_ascii_case(name))
    };
    let node = shared.node().status();
    let mut lines = Lines::default();
    for section in SECTIONS.into_iter().filter(|section| asked(section)) {
        lines.section(section);
        match section {
            "server" => server(&mut lines, shared, &node),
            "clients" => clients(&mut lines, shared),
            "memory" => memory(&mut lines, &node),
            "persistence" => persistence(&mut lines),
            "stats" => stats(&mut lines, shared, &node),
            "replication" => replication(&mut lines, &node),
            "keyspace" => keyspace(&mut lines, &node),
            "gossip" => gossip(&mut lines, &node),
            _ => log(&mut lines, &node),
        }
    }
    lines.text
}

/// Text in the form `name:value`, with a heading for each section.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn section(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        self.text.push_str("# ");
        let mut letters = name.chars();
        self.text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        self.text.push_str(letters.as_str());
        self.text.push_str("\r\n");
    }

    fn line(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{name}:{value}\r\n");
    }
}

fn server(lines: &mut Lines, shared: &Shared, node: &Status) {
    let uptime = node.uptime_seconds.trunc();
    lines.line("redis_version", REDIS_VERSION);
    lines.line("server_name", "quorumor");
    lines.line("quorumor_version", env!("CARGO_PKG_VERSION"));
    lines.line("redis_mode", "standalone");
    lines.line("os", format_args!("{} {}", std::env::consts::OS, std::env::consts::ARCH));
    lines.line("arch_bits", usize::BITS);
    lines.line("process_id", std::process::id());
    lines.line("run_id", &node.node);
    lines.line("tcp_port", shared.address().port());
    lines.line("uptime_in_seconds", uptime);
    lines.line("uptime_in_days", (uptime / 86_400.0).trunc());
}

fn clients(lines: &mut Lines, shared: &Shared) {
    lines.line("connected_clients", shared.clients().count());
    lines.line("maxclients", shared.clients_max());
    lines.line("blocked_clients", shared.clients().blocked());
}

fn memory(lines: &mut Lines, node: &Status) {
    lines.line("used_memory", node.memory_bytes);
    lines.line("maxmemory", node.memory_bytes_max.unwrap_or(0));
    lines.line("maxmemory_policy", "noeviction");
}

fn persistence(lines: &mut Lines) {
    lines.line("loading", 0);
    lines.line("aof_enabled", 0);
}

fn stats(lines: &mut Lines, shared: &Shared, node: &Status) {
    let counters = shared.counters();
    lines.line("total_connections_received", counters.connections);
    lines.line("total_commands_processed", counters.commands);
    lines.line("rejected_connections", counters.rejected);
    lines.line("protocol_errors", counters.protocol_errors);
    lines.line("authentication_failures", counters.authentication_failures);
    lines.line("expired_keys", node.counters.keys_expired);
}

fn replication(lines: &mut Lines, node: &Status) {
    lines.line("role", "master");
    lines.line("connected_slaves", node.peers.len());
    lines.line("consistency", &node.consistency);
}

fn keyspace(lines: &mut Lines, node: &Status) {
    if node.keys > 0 {
        lines.line(
            "db0",
            format_args!("keys={},expires={},avg_ttl=0", node.keys, node.keys_with_deadline),
        );
    }
}

/// The replicated log and the mode.
fn log(lines: &mut Lines, node: &Status) {
    let strong = &node.strong;
    lines.line("mode", &strong.mode);
    lines.line("epoch", strong.epoch);
    lines.line("posture", strong.posture);
    lines.line("switching", u8::from(strong.switching));
    lines.line("primary", strong.primary.as_deref().unwrap_or(""));
    lines.line("applied", strong.applied);
    lines.line("committed", strong.committed);
    lines.line("orphans", strong.orphans);
    for (at, voter) in strong.voters.iter().enumerate() {
        let up = if voter.up { "up" } else { "down" };
        let behind = voter.behind.map_or_else(|| "?".to_owned(), |behind| behind.to_string());
        let value = format!("node={},name={},state={up},behind={behind}", voter.node, voter.name);
        lines.line(&format!("voter{at}"), value);
    }
}

fn gossip(lines: &mut Lines, node: &Status) {
    lines.line("name", &node.name);
    lines.line("cluster", &node.cluster);
    lines.line("strategy", &node.strategy);
    lines.line("peers", node.peers.len());
    lines.line("cells", node.cells);
    lines.line("writes_local", node.counters.writes_local);
    lines.line("writes_remote", node.counters.writes_remote);
    lines.line("writes_repeated", node.counters.writes_repeated);
    lines.line("conflicts", node.counters.conflicts);
    lines.line("rounds_opened", node.counters.rounds_opened);
    lines.line("rounds_equal", node.counters.rounds_equal);
    lines.line("deltas_filled", node.counters.deltas_filled);
    lines.line("deltas_given_up", node.counters.deltas_given_up);
    lines.line("damage", node.counters.damage);
    lines.line("messages_refused", node.counters.messages_refused);
    lines.line("quarantined", node.counters.quarantined);
}
