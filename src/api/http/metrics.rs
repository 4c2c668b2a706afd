//! The status as OpenMetrics text (specification 1.0).
//!
//! Names are those of the status, with the unit last as the specification asks.

use std::fmt::Write;

use crate::protocol::membership::PeerState;
use crate::server::Status;

/// The text of `/metrics`.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::with_capacity(4 * 1024);
    let counters = &status.counters;
    let detector = &status.detector;
    let strong = &status.strong;
    let voters_up = strong.voters.iter().filter(|voter| voter.up).count();
    let in_state = |state| status.liveness.iter().filter(|peer| peer.state == state).count() as f64;
    let gauges = [
        ("keys", "Keys that show something.", status.keys as f64),
        (
            "keys_with_deadline",
            "Keys that show something and have a deadline.",
            status.keys_with_deadline as f64,
        ),
        ("cells", "Cells, tombstones included.", status.cells as f64),
        ("cell_bytes", "Bytes of the keys and values of all cells.", status.cell_bytes as f64),
        ("memory_bytes", "About how much memory the cells take.", status.memory_bytes as f64),
        (
            "writes_refused",
            "Whether clients' writes are refused.",
            f64::from(u8::from(status.writes_refused.is_some())),
        ),
        ("tombstones", "Deletions not forgotten yet.", status.collection.tombstones as f64),
        (
            "collection_blockers",
            "Members that tombstones wait for.",
            status.collection.blocked_by.len() as f64,
        ),
        ("filling", "Whether it fills itself anew.", f64::from(u8::from(status.filling))),
        ("peers", "Peers with which a link is up.", status.peers.len() as f64),
        (
            "peers_suspected",
            "Peers that do not answer at the moment.",
            in_state(PeerState::Suspected),
        ),
        ("peers_down", "Peers that answer nobody.", in_state(PeerState::Down)),
        ("origins", "Origins of which writes are held.", status.origins as f64),
        ("epoch", "Changes of the mode: odd in strong mode.", f64::from(strong.epoch)),
        ("switching", "Whether the mode is being switched.", f64::from(u8::from(strong.switching))),
        ("voters", "Members that vote.", strong.voters.len() as f64),
        ("voters_up", "Voters that can be reached.", voters_up as f64),
        ("log_applied", "Slots of the log applied here.", strong.applied as f64),
        ("log_committed", "Slots of the log known to be decided.", strong.committed as f64),
        ("orphans", "Writes kept that do not count.", strong.orphans as f64),
        ("uptime_seconds", "Time since the start.", status.uptime_seconds),
    ];
    for (name, help, value) in gauges {
        family(&mut text, name, "gauge", help);
        let _ = writeln!(text, "quorumor_{name} {value}");
    }
    let totals = [
        ("writes_local", "Writes accepted from clients.", counters.writes_local),
        ("writes_log", "Writes that the log has made here.", counters.writes_log),
        ("writes_remote", "Writes from peers that were missing here.", counters.writes_remote),
        ("writes_repeated", "Writes from peers that were here already.", counters.writes_repeated),
        ("conflicts", "Writes dropped for one made without knowledge of them.", counters.conflicts),
        ("rounds_opened", "Rounds opened here.", counters.rounds_opened),
        ("rounds_equal", "Rounds that found nothing different.", counters.rounds_equal),
        ("deltas_filled", "Deltas received whole.", counters.deltas_filled),
        ("deltas_given_up", "Deltas given up.", counters.deltas_given_up),
        ("damage", "Equal vectors seen with different fingerprints.", counters.damage),
        ("messages_refused", "Messages refused.", counters.messages_refused),
        ("tombstones_collected", "Deletions forgotten.", counters.tombstones_collected),
        ("keys_expired", "Expired keys forgotten.", counters.keys_expired),
        ("rebuilds", "Times that it began to fill itself anew.", counters.rebuilds),
        ("quarantined", "Peers quarantined.", counters.quarantined),
        ("writes_crowded_out", "Pushes dropped for gaps.", counters.writes_crowded_out),
        ("sends_dropped", "Messages that found a full queue.", status.sends_dropped),
        ("frames_damaged", "Frames that could not be decoded.", status.frames_damaged),
        ("suspicions", "Times that a peer did not answer for a moment.", detector.suspected),
        ("downs", "Times that a peer was declared down.", detector.downs),
        ("renewals", "Times that others held this node dead.", detector.renewals),
        ("detector_datagrams", "Datagrams sent to find out who answers.", detector.datagrams),
        ("detector_bytes", "Bytes of these datagrams.", detector.datagram_bytes),
        ("detector_rubbish", "Such datagrams that were not understood.", detector.rubbish),
        ("detector_late", "Times that this node found it had not run.", detector.late),
        ("refused", "Handshakes and peers refused.", status.refused),
    ];
    for (name, help, value) in totals {
        family(&mut text, name, "counter", help);
        let _ = writeln!(text, "quorumor_{name}_total {value}");
    }
    if let Some(storage) = &status.storage {
        let gauges = [
            ("disk_bytes", "Bytes in the data directory.", storage.disk_bytes as f64),
            ("pending_bytes", "Bytes that wait to be written.", storage.pending_bytes as f64),
            ("sync_last_seconds", "How long the last sync took.", storage.sync_last_ms / 1e3),
            ("sync_longest_seconds", "The longest sync.", storage.sync_longest_ms / 1e3),
        ];
        for (name, help, value) in gauges {
            family(&mut text, name, "gauge", help);
            let _ = writeln!(text, "quorumor_{name} {value}");
        }
        let totals = [
            ("syncs", "Syncs of the journal.", storage.syncs),
            ("records_discarded", "Records without room.", storage.records_discarded),
        ];
        for (name, help, value) in totals {
            family(&mut text, name, "counter", help);
            let _ = writeln!(text, "quorumor_{name}_total {value}");
        }
    }
    family(&mut text, "sent_messages", "counter", "Messages sent, one for each receiver.");
    for sent in &status.sent {
        let (kind, messages) = (sent.kind, sent.messages);
        let _ = writeln!(text, "quorumor_sent_messages_total{{kind=\"{kind}\"}} {messages}");
    }
    family(&mut text, "sent_bytes", "counter", "Bytes of the messages sent.");
    for sent in &status.sent {
        let (kind, bytes) = (sent.kind, sent.bytes);
        let _ = writeln!(text, "quorumor_sent_bytes_total{{kind=\"{kind}\"}} {bytes}");
    }
    family(&mut text, "round_trip_seconds", "gauge", "The measured round trip to each peer.");
    for peer in &status.peers {
        let (node, seconds) = (&peer.node, peer.round_trip_ms / 1e3);
        let _ = writeln!(text, "quorumor_round_trip_seconds{{peer=\"{node}\"}} {seconds}");
    }
    text.push_str("# EOF\n");
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# TYPE quorumor_{name} {kind}\n# HELP quorumor_{name} {help}");
}
