//! `quorumor mode` and `orphans`: switching the consistency mode of a running cluster, and what came of
//! writes that a switch did not wait for.

use std::time::Duration;

use async_std::task;
use clap::Args;
use futures_lite::future;
use hyper::{Method, StatusCode};
use serde_json::Value;

use super::Exit;
use super::client::{FetchError, HttpArgs, fetch};
use super::exit::print;
use crate::protocol::operation::Mode;

/// How long a switch may take until it is given up.
const PATIENCE: Duration = Duration::from_secs(40);

/// How often it is looked how far it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Shows the consistency mode of a running cluster, or switches it.
///
/// Eventual: every peer accepts writes, and all converge. Strong: one replicated log orders them, so
/// that every read at any peer sees all that was acknowledged before. A switch loses nothing that was
/// acknowledged, in either direction.
#[derive(Debug, Args)]
pub struct ModeArgs {
    /// The mode to switch to; without it the present one is shown.
    #[arg(value_name = "eventual|strong")]
    to: Option<Mode>,

    #[command(flatten)]
    peer: HttpArgs,

    /// Leaves out a member that cannot be reached, by id or its first digits; may be repeated. It is
    /// retired, and what only it has becomes an orphan.
    #[arg(long, value_name = "NODE", requires = "to")]
    without: Vec<String>,

    /// Only says what would be done.
    #[arg(long, requires = "to")]
    dry_run: bool,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Lists writes of earlier epochs that do not count, at one peer.
///
/// They were acknowledged by a member that a switch to strong mode was told to leave out. Those whose
/// keys had not been touched are made again by the log; the others are kept here.
#[derive(Debug, Args)]
pub struct OrphansArgs {
    #[command(flatten)]
    peer: HttpArgs,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Shows or switches the mode.
pub async fn run(args: ModeArgs) -> Exit {
    let Some(to) = args.to else { return show(&args).await };
    let mut path = format!("/mode?to={to}");
    for node in &args.without {
        if node.is_empty() || !node.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Exit::Usage
                .because(format!("{node:?} is no id: hexadecimal digits, as in members"));
        }
        path.push_str(&format!("&without={node}"));
    }
    if args.dry_run {
        path.push_str("&dry-run");
    }
    let switched = fetch(&args.peer.http, Method::POST, &path, PATIENCE);
    let answer = match future::or(switched, tell_progress(&args)).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or("?");
    let exit = match text("outcome") {
        "done" | "already" | "possible" => Exit::Ok,
        "unreachable" => Exit::Unreachable,
        "no-member" => Exit::NotFound,
        "no-quorum" => Exit::WrongMode,
        "cannot-leave-out" | "underway" => Exit::Refused,
        "aborted" => Exit::Failed,
        _ => Exit::NotConverged,
    };
    if args.json {
        let printed = print(&format!("{answer:#}\n"));
        return if printed == Exit::Ok { exit } else { printed };
    }
    match exit {
        Exit::Ok => print(&format!("{}\n", text("text"))),
        exit => exit.because(text("text")),
    }
}

/// Says on standard error for whom a switch waits; never ends.
async fn tell_progress(args: &ModeArgs) -> Result<Value, FetchError> {
    let mut told = String::new();
    loop {
        task::sleep(LOOK_INTERVAL).await;
        let status = fetch(&args.peer.http, Method::GET, "/status", Duration::ZERO).await;
        let Ok(status) = status else { continue };
        let Some(strong) = status.get("strong") else { continue };
        let waits_for = names(strong.get("waiting_for"));
        let words = match (strong.get("posture").and_then(Value::as_str), waits_for.is_empty()) {
            (_, false) => format!("waiting for {}", waits_for.join(", ")),
            (Some("held"), true) => "clients' requests are held".to_owned(),
            _ => continue,
        };
        if words != told {
            eprintln!("{words}");
            told = words;
        }
    }
}

async fn show(args: &ModeArgs) -> Exit {
    let answer = match fetch(&args.peer.http, Method::GET, "/status", Duration::ZERO).await {
        Ok(answer) => answer,
        Err(error) => return error.report(&args.peer.http),
    };
    let strong = answer.get("strong").cloned().unwrap_or_default();
    match args.json {
        true => print(&format!("{strong:#}\n")),
        false => print(&(strong_text(&strong).join("\n") + "\n")),
    }
}

/// Lists orphans.
pub async fn orphans(args: OrphansArgs) -> Exit {
    let answer = match fetch(&args.peer.http, Method::GET, "/orphans", Duration::ZERO).await {
        Ok(answer) => answer,
        Err(FetchError::Refused(StatusCode::NOT_FOUND, _)) => Value::Array(Vec::new()),
        Err(error) => return error.report(&args.peer.http),
    };
    if args.json {
        return print(&format!("{answer:#}\n"));
    }
    let orphans = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    if orphans.is_empty() {
        return print("no orphans at this peer\n");
    }
    let lines = orphans.iter().map(|orphan| {
        let text = |name: &str| orphan.get(name).and_then(Value::as_str);
        let field = text("field").map(|field| format!(" {field:?}")).unwrap_or_default();
        let value = match text("value") {
            Some(value) => format!("{value:?}"),
            None => "deleted".to_owned(),
        };
        let adopted = orphan.get("adopted").and_then(Value::as_bool) == Some(true);
        let state = if adopted { "made again" } else { "does not count" };
        let (key, stamp) = (text("key").unwrap_or("?"), text("stamp").unwrap_or("?"));
        format!("{stamp}  {state:<14}  {key:?}{field} = {value}\n")
    });
    print(&lines.collect::<String>())
}

/// The names in a list.
fn names(list: Option<&Value>) -> Vec<&str> {
    let all = list.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).collect()
}

/// What `/status` says about the log and the mode, in lines.
pub(super) fn strong_text(strong: &Value) -> Vec<String> {
    let text = |name: &str| strong.get(name).and_then(Value::as_str).unwrap_or("-");
    let number = |name: &str| strong.get(name).and_then(Value::as_u64).unwrap_or_default();
    let is = |name: &str| strong.get(name).and_then(Value::as_bool) == Some(true);
    let switching = if is("switching") { ", a switch is under way" } else { "" };
    let mut lines =
        vec![format!("consistency  {}, epoch {}{switching}", text("mode"), number("epoch"))];
    let voters = strong.get("voters").and_then(Value::as_array).cloned().unwrap_or_default();
    if !voters.is_empty() {
        lines.push(format!(
            "log          {} slots applied, {} decided, {} cells written",
            number("applied"),
            number("committed"),
            number("written")
        ));
        let waits_for = names(strong.get("waiting_for"));
        if !waits_for.is_empty() {
            lines.push(format!("waits for    {}", waits_for.join(", ")));
        }
        let primary = text("primary");
        lines.push(format!("voters       {}", voters.len()));
        for voter in &voters {
            let text = |name: &str| voter.get(name).and_then(Value::as_str).unwrap_or("?");
            let up = voter.get("up").and_then(Value::as_bool) == Some(true);
            // Who does not vote may not know which one it is.
            let role = match primary {
                "-" => "voter",
                primary if text("node") == primary => "primary",
                _ => "backup",
            };
            let behind = match voter.get("behind").and_then(Value::as_u64) {
                Some(behind) => format!("{behind} slots behind"),
                None => "not heard of yet".to_owned(),
            };
            let state = if up { behind } else { "down".to_owned() };
            let node = text("node");
            let node = node.get(..12).unwrap_or(node);
            lines.push(format!("  {:<12} {node}  {role:<7}  {state}", text("name")));
        }
    }
    if number("orphans") > 0 {
        lines.push(format!(
            "orphans      {} writes that do not count: `quorumor orphans` lists them",
            number("orphans")
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Story: what people read says who leads, who is down and who is behind.
    #[test]
    fn the_log_is_told_in_lines() {
        let strong = serde_json::json!({
            "mode": "strong", "epoch": 3, "switching": false, "primary": "aa",
            "applied": 7, "committed": 9, "written": 12, "orphans": 2,
            "voters": [
                {"node": "aa", "name": "ada", "up": true, "behind": 0},
                {"node": "bb", "name": "bob", "up": false, "behind": 2},
                {"node": "cc", "name": "cyd", "up": true, "behind": null},
            ],
        });
        let lines = strong_text(&strong);
        assert_eq!(lines[0], "consistency  strong, epoch 3");
        assert_eq!(lines[3], "  ada          aa  primary  0 slots behind");
        assert_eq!(lines[4], "  bob          bb  backup   down");
        assert_eq!(lines[5], "  cyd          cc  backup   not heard of yet");
        assert!(lines[6].starts_with("orphans      2 "));
    }
}
