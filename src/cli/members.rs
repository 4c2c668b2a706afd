//! `quorumor members`, `leave` and `retire`: who belongs to the cluster.

use std::time::Duration;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::Exit;
use super::client::{HttpArgs, fetch};
use super::exit::print;

/// How long a node that leaves may wait for its peers to have everything.
const LEAVE_TIME: Duration = Duration::from_secs(10);

/// The digits of an id that are shown: enough to tell members apart, and to name one.
const ID_DIGITS: usize = 12;

/// Lists who belongs to the cluster, as one peer sees it.
#[derive(Debug, Args)]
pub struct MembersArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// Prints JSON, with whole ids.
    #[arg(long)]
    json: bool,
}

/// Takes a running peer out of the cluster for good, and ends it.
///
/// It takes no more writes, waits until another peer has all that it wrote, and ends. To only stop it
/// for a while, end its process.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Takes a member that is away for good out of the cluster, so that nobody waits for it.
///
/// Should it come back it fills itself anew from the others.
#[derive(Debug, Args)]
pub struct RetireArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// The member's id, or as many of its first digits as tell it from the others.
    #[arg(value_name = "NODE", value_parser = digits)]
    node: String,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Lists the members.
pub async fn list(args: MembersArgs) -> Exit {
    let answer = match fetch(&args.peer.http, Method::GET, "/members", Duration::ZERO).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    match args.json {
        true => print(&format!("{answer:#}\n")),
        false => print(&table(&answer)),
    }
}

/// Has a node leave.
pub async fn leave(args: LeaveArgs) -> Exit {
    let answer = match fetch(&args.peer.http, Method::POST, "/leave", LEAVE_TIME).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    match args.json {
        true => print(&format!("{answer:#}\n")),
        false => {
            print(&format!("{} ({}) has left\n", text(&answer, "name"), text(&answer, "node")))
        }
    }
}

/// Retires a member.
pub async fn retire(args: RetireArgs) -> Exit {
    let path = format!("/retire?node={}", args.node);
    let answer = match fetch(&args.peer.http, Method::POST, &path, Duration::ZERO).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    match args.json {
        true => print(&format!("{answer:#}\n")),
        false => {
            print(&format!("{} ({}) is retired\n", text(&answer, "name"), text(&answer, "node")))
        }
    }
}

fn digits(text: &str) -> Result<String, String> {
    let is_fine = |byte: u8| byte.is_ascii_hexdigit();
    match !text.is_empty() && text.len() <= 32 && text.bytes().all(is_fine) {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no id: up to 32 hexadecimal digits, as in members")),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or("?")
}

fn table(members: &Value) -> String {
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows =
        vec![["NODE", "NAME", "STATE", "SINCE", "ROUND TRIP", "ADDRESS"].map(String::from)];
    rows.extend(members.iter().map(|member| {
        let number = |name: &str| member.get(name).and_then(Value::as_f64);
        let node = text(member, "node");
        let this = member.get("this").and_then(Value::as_bool) == Some(true);
        let since = number("since_seconds").map(|seconds| Duration::from_secs(seconds as u64));
        let since = since.map(|since| humantime::format_duration(since).to_string());
        let round_trip = number("round_trip_ms").map(|ms| format!("{ms:.2} ms"));
        [
            node.get(..ID_DIGITS).unwrap_or(node).to_owned(),
            format!("{}{}", text(member, "name"), if this { " (this)" } else { "" }),
            text(member, "state").to_owned(),
            since.unwrap_or_else(|| "-".to_owned()),
            round_trip.unwrap_or_else(|| "-".to_owned()),
            member.get("address").and_then(Value::as_str).unwrap_or("-").to_owned(),
        ]
    }));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_a_table() {
        let members = serde_json::json!([
            {"node": "ab".repeat(16), "name": "ada", "state": "up", "this": true,
             "since_seconds": 61.5, "round_trip_ms": null, "address": "127.0.0.1:1"},
            {"node": "cd".repeat(16), "name": "eve", "state": "down", "this": false,
             "since_seconds": null, "round_trip_ms": 0.25, "address": null},
        ]);
        let expected = "\
NODE          NAME        STATE  SINCE  ROUND TRIP  ADDRESS
abababababab  ada (this)  up     1m 1s  -           127.0.0.1:1
cdcdcdcdcdcd  eve         down   -      0.25 ms     -
";
        assert_eq!(table(&members), expected);
    }
}
