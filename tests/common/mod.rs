//! What tests of the real program share: nodes as processes, waiting, a small client, skipping.
//!
//! A [`NodeProcess`] is the program itself, in a folder of its own, on ports that the system chose,
//! so that any number of tests run side by side. It is killed with SIGKILL when it goes out of scope,
//! whatever happened, and its output is printed when the test has failed. Nothing here waits a fixed
//! time: [`eventually`] asks until it is told or the deadline has passed, and then says what it
//! waited for.
//!
//! The client is a few lines rather than the library's own decoder: a fault in that decoder must not
//! hide itself.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// How long anything may take on a machine that is busy with other tests. A test that passes takes
/// milliseconds; only one that fails waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long to pause between two looks at the same condition.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Says past the test runner, which keeps to itself what a passing test prints, that a test was not
/// run and why.
pub(crate) fn skip(test: &str, reason: &str) {
    writeln!(io::stderr(), "SKIPPED {test}: {reason}").expect("standard error is open");
}

/// Asks until there is an answer; panics with what was awaited when [`PATIENCE`] is over.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        thread::sleep(LOOK_INTERVAL);
    }
}

/// The program under test.
pub(crate) fn quorumor() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorumor"));
    // Settings of whoever runs the tests are not settings of the tests.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORUMOR_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// What a finished program left behind.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end; kills it and panics when [`PATIENCE`] is over.
pub(crate) fn finish(command: &mut Command) -> Finished {
    let spelled = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{spelled}: {error}"));
    let stdout = read_aside(child.stdout.take().expect("piped"));
    let stderr = read_aside(child.stderr.take().expect("piped"));
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("a child of ours");
            panic!("{spelled}: did not end within {PATIENCE:?}");
        }
        thread::sleep(LOOK_INTERVAL);
    };
    let text = |bytes: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&bytes.join().expect("reading does not panic")).into_owned()
    };
    Finished { status, stdout: text(stdout), stderr: text(stderr) }
}

/// Reads a pipe to its end on a thread, so that a full pipe never stops the program.
fn read_aside(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks off ends the text; what came is kept.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Runs a command and answers what it printed; panics with everything it said if it failed.
pub(crate) fn succeed(command: &mut Command) -> String {
    let spelled = format!("{command:?}");
    let Finished { status, stdout, stderr } = finish(command);
    assert!(status.success(), "{spelled}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// Whether a program can be started at all.
pub(crate) fn installed(program: &str) -> bool {
    let probe = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
}

/// How a node is started, each time.
#[derive(Clone, Default)]
pub(crate) struct Launch {
    pub(crate) name: String,
    /// A program that starts it, with arguments; none: it is started straight.
    pub(crate) through: Vec<String>,
    /// Arguments beyond the name.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Launch {
    /// Starts it in `folder`; what it prints is added to the file `output` there, and the file
    /// `ready` tells when its doors are open.
    fn spawn(&self, folder: &Path, more: &[&str]) -> Child {
        let output = fs::File::options().create(true).append(true).open(folder.join("output"));
        let output = output.expect("a file of our own");
        let program = quorumor();
        let mut command = match self.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program.get_program()).stdin(Stdio::null());
                for (name, value) in program.get_envs() {
                    match value {
                        Some(value) => command.env(name, value),
                        None => command.env_remove(name),
                    };
                }
                command
            }
            None => program,
        };
        command.args(["node", "--name", &self.name]).args(&self.arguments).args(more);
        command.arg("--ready-file").arg(folder.join("ready")).current_dir(folder);
        command.env("RUST_LOG", "info").envs(self.environment.iter().cloned());
        command.stdout(output.try_clone().expect("an open file")).stderr(output);
        command.spawn().expect("the program was built")
    }
}

/// A node as a process of its own.
pub(crate) struct NodeProcess {
    child: Child,
    folder: tempfile::TempDir,
    launch: Launch,
    /// Where it takes peers.
    pub(crate) listen: SocketAddr,
    /// Where it speaks the Redis protocol.
    pub(crate) resp: SocketAddr,
    /// Where it speaks HTTP.
    pub(crate) http: SocketAddr,
}

impl NodeProcess {
    /// Starts a node on loopback that knows the given peers, and waits until its doors are open.
    pub(crate) fn start(name: &str, peers: &[SocketAddr]) -> Self {
        Self::start_with(name, peers, &[])
    }

    /// The same, with more arguments.
    pub(crate) fn start_with(name: &str, peers: &[SocketAddr], more: &[&str]) -> Self {
        let mut arguments = vec!["--listen", "127.0.0.1:0"];
        arguments.extend(["--resp", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        arguments.extend(more);
        let mut arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        arguments.extend(peers.iter().map(|peer| format!("--peer={peer}")));
        Self::launch(Launch { name: name.to_owned(), arguments, ..Launch::default() })
    }

    /// Starts a node just so, and waits until its doors are open.
    pub(crate) fn launch(launch: Launch) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let child = launch.spawn(folder.path(), &[]);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node =
            Self { child, folder, launch, listen: nowhere, resp: nowhere, http: nowhere };
        node.wait_until_ready();
        node
    }

    /// A node that was never started.
    pub(crate) fn prepare(launch: Launch) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        // A program that does nothing and is over.
        let child = quorumor().arg("--version").stdout(Stdio::null()).spawn();
        let child = child.expect("the program was built");
        Self { child, folder, launch, listen: nowhere, resp: nowhere, http: nowhere }
    }

    /// Starts it again, in the same folder and with the same arguments and then `more`, after it was
    /// killed or has ended.
    pub(crate) fn start_again(&mut self, more: &[&str]) {
        // It stays behind after a kill.
        let _ = fs::remove_file(self.folder.path().join("ready"));
        self.child = self.launch.spawn(self.folder.path(), more);
        self.wait_until_ready();
    }

    /// Starts it again as it was, and waits for it to refuse that; answers what it printed this time.
    pub(crate) fn start_in_vain(&mut self) -> (ExitStatus, String) {
        let before = self.output().len();
        self.child = self.launch.spawn(self.folder.path(), &[]);
        let status =
            eventually("a node to give up", || self.child.try_wait().expect("a child of ours"));
        (status, self.output().split_off(before))
    }

    /// Starts it again as it was and waits for nothing.
    pub(crate) fn start_unawaited(&mut self) {
        // It stays behind after a kill.
        let _ = fs::remove_file(self.folder.path().join("ready"));
        self.child = self.launch.spawn(self.folder.path(), &[]);
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// Ends it in order, and waits for that.
    pub(crate) fn end(&mut self) {
        let id = self.child.id().to_string();
        succeed(Command::new("kill").args(["-TERM", &id]));
        let status = eventually("a node to end in order", || {
            self.child.try_wait().expect("a child of ours")
        });
        assert!(status.success(), "{} ended with {status}", self.launch.name);
    }

    /// Waits until its doors are open.
    pub(crate) fn wait_until_ready(&mut self) {
        let ready = self.folder.path().join("ready");
        let text = eventually("a node to open its doors", || {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                let name = &self.launch.name;
                panic!("{name} ended with {status} before it was ready\n{}", self.output());
            }
            fs::read_to_string(&ready).ok()
        });
        let told: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the ready file says {text:?}: {error}"));
        let address = |door: &str| {
            let spelled = told.get(door).and_then(serde_json::Value::as_str).unwrap_or_default();
            spelled.parse().unwrap_or_else(|error| panic!("{door} of {text}: {error}"))
        };
        (self.listen, self.resp, self.http) = (address("listen"), address("resp"), address("http"));
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.launch.name
    }

    /// What the node has printed so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// The folder that the node was started in.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Ends the node as a power cut would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().expect("a child of ours");
    }

    /// The number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it says about itself.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut stream = TcpStream::connect(self.http).expect("an open door");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout above zero");
        let request =
            format!("GET /status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).expect("an open connection");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("the status is {text:?}: {error}"))
    }

    /// Whether the node still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// A connection to its Redis door.
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.resp)
    }

    /// Sends one request on a connection of its own.
    pub(crate) fn ask(&self, request: &[&str]) -> Reply {
        self.client().ask(request)
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- what {} printed:\n{}", self.launch.name, self.output());
        }
    }
}

/// Starts so many nodes, each of which knows the first, and waits until each can write and all read it.
pub(crate) fn cluster(size: usize) -> Vec<NodeProcess> {
    let mut nodes: Vec<NodeProcess> = Vec::new();
    for index in 0..size {
        let peers: Vec<SocketAddr> = nodes.first().map(|first| first.listen).into_iter().collect();
        nodes.push(NodeProcess::start(&format!("node-{index}"), &peers));
    }
    for writer in &nodes {
        let key = format!("hello-from-{}", writer.name());
        assert_eq!(writer.ask(&["SET", &key, "yes"]), Reply::Simple("OK".into()));
        for reader in &nodes {
            eventually(&format!("{key} to reach {}", reader.name()), || {
                (reader.ask(&["GET", &key]) == Reply::Bulk("yes".into())).then_some(())
            });
        }
        assert_eq!(writer.ask(&["DEL", &key]), Reply::Integer(1));
    }
    for node in &nodes {
        eventually("the greetings to be gone", || {
            (node.ask(&["DBSIZE"]) == Reply::Integer(0)).then_some(())
        });
    }
    nodes
}

/// A reply of the Redis protocol, version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(String),
    Nothing,
    List(Vec<Reply>),
}

/// A connection that speaks the Redis protocol, version 2.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; a reply that takes longer than [`PATIENCE`] is a failure.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("an open door")
    }

    /// Connects, if somebody is there.
    ///
    /// # Errors
    /// When nobody is.
    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_within(address, PATIENCE)
    }

    /// Connects, if somebody is there within a time, which is also how long it waits for each reply.
    ///
    /// # Errors
    /// When nobody is.
    pub(crate) fn connect_within(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience)).expect("a timeout above zero");
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request and reads its reply.
    pub(crate) fn ask(&mut self, request: &[&str]) -> Reply {
        self.try_ask(request).expect("a reply")
    }

    /// Sends a request and reads its reply, if the node stays that long.
    ///
    /// # Errors
    /// When it closes the connection, or says nothing for [`PATIENCE`].
    pub(crate) fn try_ask(&mut self, request: &[&str]) -> io::Result<Reply> {
        let mut bytes = format!("*{}\r\n", request.len());
        for word in request {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.try_send(bytes.as_bytes())?;
        self.reply()
    }

    /// Sends bytes as they are, if the connection still is.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("an open connection");
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// When the node closes the connection, or says nothing for [`PATIENCE`].
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        // Half a number is a number as well.
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let rest = line.get(1..).unwrap_or_default().to_owned();
        let number = || rest.parse::<i64>().unwrap_or_else(|_| panic!("a number in {line:?}"));
        Ok(match line.as_bytes().first() {
            Some(b'+') => Reply::Simple(rest),
            Some(b'-') => Reply::Error(rest),
            Some(b':') => Reply::Integer(number()),
            Some(b'$' | b'*') if number() < 0 => Reply::Nothing,
            Some(b'$') => {
                let length = usize::try_from(number()).expect("judged above");
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Reply::Bulk(String::from_utf8(bytes).expect("the tests write text"))
            }
            Some(b'*') => {
                let replies: io::Result<Vec<Reply>> = (0..number()).map(|_| self.reply()).collect();
                Reply::List(replies?)
            }
            _ => panic!("{line:?} begins no reply"),
        })
    }
}
