//! `quorumor doctor`: looks at a machine as a node would, and says what is in the way and what to do.
//!
//! Each check is a function that returns findings: what was looked at, whether it is well, and if it
//! is not, a fix that can be typed. The checks change nothing: a port that is bound is let go, a file
//! that is written to see whether one can is removed.
//!
//! - `network`: ports, network cards, multicast, firewall.
//! - `machine`: clock, limits, buffers.
//! - `files`: the secret and the data directory.
//!
//! What is left out: what takes a second machine, like whether the clocks agree, or whether a switch
//! passes multicast on. A node's status says what it hears.

mod files;
mod machine;
mod network;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::Exit;
use super::client::HTTP_PORT;
use super::exit::print;
use super::node::RESP_PORT;
use super::settings::PEER_PORT;

/// How long a program that is asked something may take.
const ASK_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has ended.
const ASK_POLL: Duration = Duration::from_millis(10);
/// The most that is read of its answer: the rules of a large firewall.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Looks whether this machine is fit for a node, and says what to do where it is not.
///
/// Give it the settings of the node. Exit code 1 if anything keeps a node from working; what only
/// makes it work less well is a warning.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The cluster's secret.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_SECRET_FILE")]
    secret_file: Option<PathBuf>,

    /// Where the node is to be reached by peers [default: 0.0.0.0:7400, without a secret
    /// 127.0.0.1:7400].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_LISTEN")]
    listen: Option<SocketAddr>,

    /// Where Redis clients are to connect [default: 127.0.0.1:7401].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_RESP")]
    resp: Option<SocketAddr>,

    /// Where status and metrics are to be served [default: 127.0.0.1:7402].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_HTTP")]
    http: Option<SocketAddr>,

    /// The directory for the node's data.
    #[arg(long, value_name = "DIR", env = "QUORUMOR_DATA")]
    data: Option<PathBuf>,

    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// How well something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    /// As it should be, or not to be known.
    Ok,
    /// A node works, but less well than it could.
    Warn,
    /// A node does not work like this.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    check: &'static str,
    health: Health,
    /// What was found.
    what: String,
    /// What to do about it; none where nothing is to be done.
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, health: Health::Ok, what: what.into(), fix: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, health: Health::Warn, what: what.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, health: Health::Fail, what: what.into(), fix: Some(fix.into()) }
    }
}

/// All that was looked at.
#[derive(Debug, Serialize)]
struct Report {
    verdict: Health,
    findings: Vec<Finding>,
}

/// Looks, prints, and says whether a node can work here.
pub fn run(args: &DoctorArgs) -> Exit {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PEER_PORT));
    let assumed = if args.secret_file.is_some() { everywhere } else { local(PEER_PORT) };
    let listen = args.listen.unwrap_or(assumed);
    let doors = [
        ("redis port", "--resp", args.resp.unwrap_or_else(|| local(RESP_PORT))),
        ("http port", "--http", args.http.unwrap_or_else(|| local(HTTP_PORT))),
    ];
    let mut findings = vec![files::secret(args.secret_file.as_deref(), listen)];
    findings.extend(args.data.as_deref().map(files::data).unwrap_or_default());
    findings.push(network::udp_port(listen));
    findings.extend(doors.map(|(check, flag, address)| network::tcp_port(check, flag, address)));
    findings.extend(network::cards(listen));
    findings.extend(network::firewall(listen));
    findings.extend(machine::clock());
    findings.push(machine::open_files());
    findings.push(machine::buffers());
    let verdict = findings.iter().map(|finding| finding.health).max().unwrap_or(Health::Ok);
    let report = Report { verdict, findings };
    let text = match args.json {
        true => match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(error) => return Exit::Failed.because(error),
        },
        false => as_text(&report),
    };
    let printed = print(&text);
    let failed = report.findings.iter().filter(|it| it.health == Health::Fail).count();
    match (printed, failed) {
        (Exit::Ok, 0) => Exit::Ok,
        (Exit::Ok, 1) => Exit::Failed.because("one thing keeps a node from working here"),
        (Exit::Ok, _) => {
            Exit::Failed.because(format!("{failed} things keep a node from working here"))
        }
        (failed_to_print, _) => failed_to_print,
    }
}

fn as_text(report: &Report) -> String {
    let mut text = String::new();
    for Finding { check, health, what, fix } in &report.findings {
        let health = match health {
            Health::Ok => "ok",
            Health::Warn => "warn",
            Health::Fail => "FAIL",
        };
        text.push_str(&format!("{health:<4}  {check:<14} {what}\n"));
        if let Some(fix) = fix {
            text.push_str(&format!("{:21}fix: {fix}\n", ""));
        }
    }
    text
}

/// What another program answers, if it is there, ends well, and does so soon.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let pipe = child.stdout.take()?;
    // Read aside, so that a program that says nothing and does not end holds up nobody.
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + ASK_MAX;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => break,
            Ok(None) if Instant::now() < deadline => thread::sleep(ASK_POLL),
            _ => {
                // It may have ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
    let bytes = reader.join().ok()?.ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_asked_with_patience_and_not_for_ever() {
        assert_eq!(ask("echo", &["yes"]).as_deref(), Some("yes\n"));
        assert_eq!(ask("false", &[]), None);
        assert_eq!(ask("no-such-program-anywhere", &[]), None);
        let began = Instant::now();
        assert_eq!(ask("sleep", &["600"]), None);
        assert!(began.elapsed() >= ASK_MAX && began.elapsed() < ASK_MAX * 10);
    }

    #[test]
    fn a_report_names_the_fix_below_what_is_wrong() {
        let findings = vec![Finding::ok("a", "fine"), Finding::fail("b", "broken", "mend it")];
        let text = as_text(&Report { verdict: Health::Fail, findings });
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            ["ok    a              fine", "FAIL  b              broken", "fix: mend it"]
        );
    }
}
