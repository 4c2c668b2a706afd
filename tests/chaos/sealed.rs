//! A sealed room for tests that mount, fill disks and cut links.
//!
//! The test runs itself once more in namespaces of its own: network, mounts and process ids. What it
//! sets up there nobody outside sees, no packet leaves it, and when its first process ends, however
//! it ends, the system ends all its processes and takes its mounts and links down. So there is
//! nothing to clean up. Root can make such a room, and on many systems everybody can; where nobody
//! may, the test says so and is skipped.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{finish, skip};

/// Set inside.
const INSIDE: &str = "QUORUMOR_TEST_SEALED";

/// Its own place for names of network namespaces, and loopback.
const PRELUDE: &str = "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up && \
                       ip link add probe type bridge && ip link del probe && \
                       nft list tables >/dev/null && exec \"$@\"";

/// How long a test may take beyond its own time before it is given up: every wait in it has a
/// deadline far below.
const GRACE: Duration = Duration::from_secs(600);

/// Runs `body` in a sealed room; `test` is the full name of the test that calls this. If there cannot
/// be a room, says so and runs `otherwise`.
pub(crate) fn run(test: &str, takes: Duration, body: impl FnOnce(), otherwise: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let door = match door() {
        Ok(door) => door,
        Err(reason) => {
            skip(test, &format!("no sealed room can be made here: {reason}"));
            return otherwise();
        }
    };
    let mut command = through(&door);
    command.arg(env::current_exe().expect("a test that runs has a file"));
    command.args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"]);
    command.env(INSIDE, "yes").stdin(Stdio::null());
    let mut inside = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told =
        [tell(inside.stdout.take().expect("piped")), tell(inside.stderr.take().expect("piped"))];
    let deadline = Instant::now() + takes + GRACE;
    let status = loop {
        if let Some(status) = inside.try_wait().expect("a child of ours") {
            break status;
        }
        if Instant::now() > deadline {
            inside.kill().expect("a child of ours");
            panic!("{test}: did not end within {:?}", takes + GRACE);
        }
        thread::sleep(Duration::from_millis(50));
    };
    told.into_iter().for_each(|told| told.join().expect("reading does not panic"));
    assert!(status.success(), "{test}: failed in its sealed room, {status}; see above");
}

/// Whether there is full power over this machine, not only over a room: loop devices take that.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
        && finish(Command::new("id").arg("-u")).stdout.trim() == "0"
}

/// The arguments that make a room here.
fn door() -> Result<Vec<&'static str>, String> {
    let all = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut reason = String::new();
    for more in [&[][..], &["--user", "--map-root-user"]] {
        let door = [more, &all].concat();
        let probe = Command::new("unshare").arg("--version").output();
        probe.map_err(|error| format!("unshare: {error}"))?;
        let made = finish(through(&door).arg("true"));
        if made.status.success() {
            return Ok(door);
        }
        reason = made.stderr.trim().to_owned();
    }
    Err(reason)
}

fn through(door: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(door).args(["sh", "-c", PRELUDE, "sh"]);
    command
}

/// Prints what comes from inside, by lines, as this test's own; what was skipped there is told past the
/// test runner here, too.
fn tell(pipe: impl Read + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            match line.trim_start().strip_prefix("SKIPPED ") {
                Some(rest) => writeln!(io::stderr(), "SKIPPED {rest}").expect("it is open"),
                None => println!("  {line}"),
            }
        }
    })
}
