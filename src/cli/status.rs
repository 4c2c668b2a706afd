//! `quorumor status`: asks a running peer, over its HTTP door.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::Exit;
use super::client::{HttpAddress, fetch};
use super::exit::print;
use super::mode::strong_text;
use crate::api::http::WITHIN_MAX;

/// Shows what a running peer says about itself.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The HTTP address of the peer, like 127.0.0.1:7402 or localhost.
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:7402", env = "QUORUMOR_HTTP")]
    http: HttpAddress,

    /// Prints JSON.
    #[arg(long)]
    json: bool,

    /// Waits until all live peers hold the same, at most this long (up to 2m); exit code 5 if they
    /// do not, or if there is no live peer.
    #[arg(long, value_name = "TIME", value_parser = patience)]
    wait_converged: Option<Duration>,
}

/// Asks and prints.
pub async fn run(args: StatusArgs) -> Exit {
    let within = args.wait_converged.unwrap_or_default();
    let path = match args.wait_converged {
        Some(within) => format!("/agreement?within={}ms", within.as_millis()),
        None => "/status".to_owned(),
    };
    let answer = match fetch(&args.http, Method::GET, &path, within).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.http),
    };
    let text = match (args.json, args.wait_converged) {
        (true, _) => format!("{answer:#}\n"),
        (false, Some(_)) => agreement_text(&answer),
        (false, None) => status_text(&answer),
    };
    let printed = print(&text);
    if printed != Exit::Ok {
        return printed;
    }
    let converged = answer.get("converged").and_then(Value::as_bool);
    if args.wait_converged.is_some() && converged != Some(true) {
        return Exit::NotConverged.because(format!("not converged after {within:?}"));
    }
    Exit::Ok
}

fn patience(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if time <= WITHIN_MAX => Ok(time),
        Ok(_) => Err(format!("at most {WITHIN_MAX:?}")),
        Err(error) => Err(error.to_string()),
    }
}

fn status_text(status: &Value) -> String {
    let text = |name: &str| match status.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => "?".to_owned(),
    };
    let mut lines = vec![
        format!("node         {} ({})", text("name"), text("node")),
        format!("cluster      {}, {}", text("cluster"), text("security")),
        format!(
            "spreading    {} rounds every {} ms, eager push: {}",
            text("strategy"),
            text("interval_ms"),
            text("eager")
        ),
        format!(
            "keys         {} ({} cells, {} bytes)",
            text("keys"),
            text("cells"),
            text("cell_bytes")
        ),
        format!(
            "writes       {} local, {} from peers",
            text("writes_local"),
            text("writes_remote")
        ),
        format!("conflicts    {}", text("conflicts")),
        format!("digest       {}", text("digest")),
        format!("fingerprint  {}", text("fingerprint")),
    ];
    if let Some(strong) = status.get("strong") {
        lines.splice(2..2, strong_text(strong));
    }
    let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(discovery) = status.get("discovery") {
        let field = |name: &str| discovery.get(name).map(ToString::to_string).unwrap_or_default();
        let state = discovery.get("state").and_then(Value::as_str).unwrap_or("?");
        lines.push(match (state, discovery.get("trouble").and_then(Value::as_str)) {
            ("on", _) => format!(
                "discovery    on: {} found on the LAN, {} addresses tried",
                field("found"),
                field("candidates")
            ),
            (state, Some(trouble)) => format!("discovery    {state}: {trouble}"),
            (state, None) => format!("discovery    {state}"),
        });
    }
    if let Some(why) = status.get("writes_refused").and_then(Value::as_str) {
        lines.push(format!("writes       refused: {why}"));
    }
    if status.get("filling").and_then(Value::as_bool) == Some(true) {
        lines
            .push("filling      itself anew from its peers; shows what has come so far".to_owned());
    }
    lines.extend(fill_text(status));
    lines.extend(collection_text(status));
    lines.push(format!("peers        {}", peers.len()));
    for peer in peers {
        let text = |name: &str| peer.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let round_trip = peer.get("round_trip_ms").and_then(Value::as_f64).unwrap_or_default();
        lines.push(format!(
            "  {:<12} {:<22} round trip {round_trip:.2} ms",
            text("name"),
            text("address")
        ));
    }
    let known = status.get("liveness").and_then(Value::as_array).cloned().unwrap_or_default();
    for peer in known {
        let text = |name: &str| peer.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let seconds = peer.get("state_seconds").and_then(Value::as_f64).unwrap_or_default();
        if text("state") != "up" {
            lines.push(format!("  {:<12} {} for {seconds:.0} s", text("name"), text("state")));
        }
    }
    lines.join("\n") + "\n"
}

/// How far it has come if another node fills it.
fn fill_text(status: &Value) -> Option<String> {
    let fill = status.get("fill")?.as_object()?;
    let number = |name: &str| fill.get(name).and_then(Value::as_f64).unwrap_or_default();
    Some(format!(
        "filled       {} %: {} of about {} cells, {:.1} of {:.1} MB, in {:.1} s, from {}",
        number("percent"),
        number("cells"),
        number("cells_expected"),
        number("bytes") / 1e6,
        number("bytes_expected") / 1e6,
        number("seconds"),
        fill.get("from").and_then(Value::as_str).unwrap_or("?")
    ))
}

/// Whom the collection of tombstones waits for.
fn collection_text(status: &Value) -> Vec<String> {
    let Some(collection) = status.get("collection") else { return Vec::new() };
    let tombstones = collection.get("tombstones").and_then(Value::as_u64).unwrap_or_default();
    let blockers = collection.get("blocked_by").and_then(Value::as_array);
    let lines = blockers.into_iter().flatten().map(|blocker| {
        let text = |name: &str| blocker.get(name).and_then(Value::as_str).unwrap_or("?").to_owned();
        let since = match blocker.get("since_seconds").and_then(Value::as_f64) {
            Some(seconds) => format!(", away for {seconds:.0} s: `quorumor retire` if for good"),
            None => String::new(),
        };
        let (name, node, reason) = (text("name"), text("node"), text("reason"));
        format!("  collection blocked by {name} ({node}), {reason}{since}")
    });
    let lines: Vec<_> = lines.collect();
    let count = (tombstones > 0).then(|| format!("tombstones   {tombstones}"));
    count.into_iter().chain(lines).collect()
}

fn agreement_text(agreement: &Value) -> String {
    let peers = agreement.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |peer: &Value, name: &str| peer.get(name).and_then(Value::as_bool) == Some(true);
    let mut text = match agreement.get("converged").and_then(Value::as_bool) {
        Some(true) => {
            format!("converged: this peer and its {} live peers hold the same\n", peers.len())
        }
        _ if peers.is_empty() => "there is no live peer to agree with\n".to_owned(),
        _ => "not converged\n".to_owned(),
    };
    for peer in peers.iter().filter(|peer| !is(peer, "agrees")) {
        let node = peer.get("node").and_then(Value::as_str).unwrap_or("?");
        let what = if is(peer, "answered") { "holds something else" } else { "did not answer" };
        text.push_str(&format!("  {node} {what}\n"));
    }
    text
}
