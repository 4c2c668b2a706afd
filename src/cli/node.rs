//! `quorumor node`: one peer, from settings to clean shutdown.
//!
//! The settings are one struct, read from flags, from `QUORUMOR_*` variables and from the file that
//! `--config` names, so that a name means the same everywhere.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::Exit;
use super::exit::{print, with_sources};
use super::shutdown::Shutdown;
use crate::api::http::HttpDoor;
use crate::api::resp::door::Door as RespDoor;
use crate::api::resp::settings::{Password, Settings as RespSettings};
use crate::net::discovery::interfaces;
use crate::net::{self, Emulation, NodeIdentity, Secret};
use crate::protocol::cell::VALUE_BYTES_MAX;
use crate::protocol::config::{Durability, FANOUT_DEFAULT, INTERVAL_DEFAULT, Strategy};
use crate::server::{Node, NodeConfig, StartError, StorageConfig};
use crate::storage::StorageError;

/// The port that peers use unless told otherwise.
pub(super) const PEER_PORT: u16 = 7400;

/// The port of the Redis protocol unless told otherwise.
pub(super) const RESP_PORT: u16 = 7401;

/// The port of HTTP unless told otherwise.
pub(super) const HTTP_PORT: u16 = 7402;

/// The data directory unless told otherwise.
const DATA_DIRECTORY: &str = "quorumor-data";

/// How long to wait before a host name that did not resolve is tried again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(10);

/// Runs one peer until it is told to end (Ctrl-C, SIGTERM).
///
/// Without a secret it serves only this machine. What it holds is kept in its data directory, and
/// what it missed while it was away comes from the others.
#[derive(Debug, Args)]
pub struct NodeArgs {
    #[command(flatten)]
    settings: Settings,

    /// A TOML file with the same names (name = "ada", peer = ["10.0.0.1"], …).
    #[arg(long, value_name = "FILE", env = "QUORUMOR_CONFIG")]
    config: Option<PathBuf>,
}

/// The settings of a node, in a file or on the command line.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// A name for people [default: this machine's].
    #[arg(long, env = "QUORUMOR_NAME")]
    name: Option<String>,

    /// The name of the cluster; peers of another one are refused [default: quorumor].
    #[arg(long, env = "QUORUMOR_CLUSTER")]
    cluster: Option<String>,

    /// Where peers reach this one, over QUIC (UDP) [default: 0.0.0.0:7400, without a secret
    /// 127.0.0.1:7400].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_LISTEN")]
    listen: Option<SocketAddr>,

    /// Where Redis clients connect [default: 127.0.0.1:7401].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_RESP")]
    resp: Option<SocketAddr>,

    /// Where status and metrics are served [default: 127.0.0.1:7402].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_HTTP")]
    http: Option<SocketAddr>,

    /// Other peers, host or host:port, separated by commas or repeated. One that is up is enough;
    /// its own address and unreachable ones are fine.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "QUORUMOR_PEER")]
    peer: Vec<PeerAddress>,

    /// The cluster's secret, from `quorumor keygen`.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_SECRET_FILE")]
    secret_file: Option<PathBuf>,

    /// Whether peers are looked for on the LAN (multicast DNS) [default: auto, which does so with a
    /// secret, unless only this machine can reach the peer].
    #[arg(long, value_enum, value_name = "AUTO|OFF", env = "QUORUMOR_DISCOVERY")]
    discovery: Option<LookOnLan>,

    /// The data directory; made if it is not there [default: quorumor-data].
    #[arg(long, value_name = "DIR", env = "QUORUMOR_DATA")]
    data: Option<PathBuf>,

    /// When a write is durable: always (before it is answered), interval (within --sync-interval),
    /// none (in memory only, no data directory) [default: interval].
    #[arg(long, value_name = "WHEN", env = "QUORUMOR_DURABILITY")]
    durability: Option<Durability>,

    /// The time between two syncs with --durability interval [default: 1s].
    #[arg(long, value_name = "TIME", env = "QUORUMOR_SYNC_INTERVAL")]
    sync_interval: Option<Interval>,

    /// Starts in spite of a damaged data directory, with what can be read; the peers bring the rest.
    #[arg(long)]
    salvage: bool,

    /// How much memory keys and values may take, like 2GiB; beyond it writes are refused [default:
    /// no limit].
    #[arg(long, value_name = "SIZE", env = "QUORUMOR_MAX_MEMORY")]
    max_memory: Option<ByteSize>,

    /// The longest value that clients may write [default and most: 64MiB].
    #[arg(long, value_name = "SIZE", env = "QUORUMOR_MAX_VALUE")]
    max_value: Option<ByteSize>,

    /// The consistency mode [default: eventual].
    #[arg(long, value_enum, env = "QUORUMOR_CONSISTENCY")]
    consistency: Option<Consistency>,

    /// The direction of rounds: push, pull or push-pull [default: push-pull].
    #[arg(long, env = "QUORUMOR_STRATEGY")]
    strategy: Option<Strategy>,

    /// The time between two rounds, like 1s or 100ms [default: 1s].
    #[arg(long, value_name = "TIME", env = "QUORUMOR_INTERVAL")]
    interval: Option<Interval>,

    /// The most peers that get a write straight from here; beyond it relays help [default: 16].
    #[arg(long, value_name = "N", env = "QUORUMOR_FANOUT")]
    fanout: Option<usize>,

    /// A file with the password that Redis clients must give.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_REQUIREPASS_FILE")]
    requirepass_file: Option<PathBuf>,

    /// Whether clients from other machines are refused while there is no password [default: yes].
    #[arg(long, value_enum, value_name = "YES|NO", env = "QUORUMOR_PROTECTED_MODE")]
    protected_mode: Option<YesNo>,

    /// Makes the links to peers worse, as a profile says: lan, wifi, wan, … or a file.
    #[arg(long, value_name = "NAME|FILE", env = "QUORUMOR_PROFILE")]
    profile: Option<String>,

    /// A file to write the addresses into, as JSON, once everything is open.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_READY_FILE")]
    ready_file: Option<PathBuf>,
}

/// The consistency modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// Every peer accepts writes; all converge.
    Eventual,
    /// Writes go through a primary (not in this version).
    Strong,
}

/// Whether to look for peers on the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LookOnLan {
    /// When there is a secret and other machines can reach this one.
    Auto,
    /// Never.
    Off,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum YesNo {
    /// Yes.
    Yes,
    /// No.
    No,
}

/// A host, or an address, with or without a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// A positive length of time, like `1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match humantime::parse_duration(text) {
            Ok(time) if time >= Duration::from_millis(1) => Ok(Self(time)),
            Ok(_) => Err(format!("{text:?} is too short: at least 1ms")),
            Err(error) => Err(format!("{text:?} is not a time like 1s or 100ms: {error}")),
        }
    }
}

impl FromStr for PeerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(Self { host: bare.to_owned(), port: PEER_PORT });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return Err(format!("{port:?} in {text:?} is not a port")),
            },
            None => (text, PEER_PORT),
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(is_name) {
            return Err(format!("{text:?} is not a peer: expected HOST or HOST:PORT"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Reads a value from a file the way a flag is read.
macro_rules! deserialize_as_text {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
deserialize_as_text!(Interval);
deserialize_as_text!(PeerAddress);

impl Settings {
    /// These settings, and those of `file` where these say nothing.
    fn or(self, file: Self) -> Self {
        Self {
            name: self.name.or(file.name),
            cluster: self.cluster.or(file.cluster),
            listen: self.listen.or(file.listen),
            resp: self.resp.or(file.resp),
            http: self.http.or(file.http),
            peer: if self.peer.is_empty() { file.peer } else { self.peer },
            secret_file: self.secret_file.or(file.secret_file),
            discovery: self.discovery.or(file.discovery),
            data: self.data.or(file.data),
            durability: self.durability.or(file.durability),
            sync_interval: self.sync_interval.or(file.sync_interval),
            salvage: self.salvage || file.salvage,
            max_memory: self.max_memory.or(file.max_memory),
            max_value: self.max_value.or(file.max_value),
            consistency: self.consistency.or(file.consistency),
            strategy: self.strategy.or(file.strategy),
            interval: self.interval.or(file.interval),
            fanout: self.fanout.or(file.fanout),
            requirepass_file: self.requirepass_file.or(file.requirepass_file),
            protected_mode: self.protected_mode.or(file.protected_mode),
            profile: self.profile.or(file.profile),
            ready_file: self.ready_file.or(file.ready_file),
        }
    }
}

/// What a ready file says.
#[derive(Serialize)]
struct Ready {
    listen: SocketAddr,
    resp: SocketAddr,
    http: SocketAddr,
}

/// A node with its doors.
struct Opened {
    node: Node,
    resp: RespDoor,
    http: HttpDoor,
}

/// Runs a node until it is told to end.
pub async fn run(args: NodeArgs) -> Exit {
    let file = match &args.config {
        Some(path) => match read_settings(path) {
            Ok(file) => file,
            Err(exit) => return exit,
        },
        None => Settings::default(),
    };
    let settings = args.settings.or(file);
    let shutdown = match Shutdown::listen() {
        Ok(shutdown) => shutdown,
        Err(error) => return Exit::Failed.because(error),
    };
    let opened = match open(&settings).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    // A node does not end because nobody reads its banner.
    print(&banner(&opened, &settings));
    if let Some(path) = &settings.ready_file
        && let Err(error) = write_ready(path, &opened)
    {
        return Exit::Failed.because(format!("cannot write {}: {error}", path.display()));
    }
    shutdown.requested().await;
    if let Some(path) = &settings.ready_file {
        // Not ready any more; a file that somebody else removed is as good.
        let _ = fs::remove_file(path);
    }
    opened.resp.close().await;
    drop(opened.http);
    opened.node.close().await;
    Exit::Ok
}

fn read_settings(path: &Path) -> Result<Settings, Exit> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Exit::Usage.because(format!("cannot read {name}: {error}")))?;
    toml::from_str(&text).map_err(|error| Exit::Usage.because(format!("{name}: {error}")))
}

async fn open(settings: &Settings) -> Result<Opened, Exit> {
    if settings.consistency == Some(Consistency::Strong) {
        return Err(Exit::WrongMode.because(
            "strong consistency is not in this version yet: every node is eventual; leave \
             --consistency out",
        ));
    }
    let config = node_config(settings)?;
    let password = settings.requirepass_file.as_deref().map(read_password).transpose()?;
    let node = Node::start(config).await.map_err(|error| match salvageable(&error) {
        true => Exit::Failed.because(format!("{error} (--salvage starts with what is readable)")),
        false => Exit::Failed.because(error),
    })?;
    for peer in &settings.peer {
        async_std::task::spawn(find(node.clone(), peer.clone()));
    }
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let taken = |flag: &str, error: &dyn fmt::Display| {
        Exit::Failed.because(format!("{error}; choose another address with {flag}"))
    };
    let guard = RespSettings {
        password,
        protected: settings.protected_mode != Some(YesNo::No),
        ..RespSettings::default()
    };
    let address = settings.resp.unwrap_or_else(|| local(RESP_PORT));
    let resp = RespDoor::open(node.clone(), address, guard)
        .map_err(|error| taken("--resp", &with_sources(&error)))?;
    let address = settings.http.unwrap_or_else(|| local(HTTP_PORT));
    let http = HttpDoor::open(node.clone(), address).await.map_err(|error| {
        taken("--http", &format!("cannot listen for HTTP on {address}: {error}"))
    })?;
    Ok(Opened { node, resp, http })
}

/// Whether `--salvage` would get past an error: the journal or a snapshot is damaged, nothing else.
fn salvageable(error: &StartError) -> bool {
    match error {
        StartError::Storage(
            StorageError::Damaged { path, .. }
            | StorageError::Rejected { path, .. }
            | StorageError::Incomplete { path },
        ) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("segment-") || name.starts_with("snapshot-")
        }
        _ => false,
    }
}

fn node_config(settings: &Settings) -> Result<NodeConfig, Exit> {
    let identity = NodeIdentity::fresh().map_err(|error| Exit::Failed.because(error))?;
    let secret = match &settings.secret_file {
        Some(path) => Some(Secret::read(path).map_err(|error| Exit::Refused.because(error))?),
        None => None,
    };
    let emulation = match &settings.profile {
        Some(name) => {
            let profile = net::load_profile(name).map_err(|error| Exit::Usage.because(error))?;
            Some(Emulation::new(profile, 0, fastrand::u64(..)))
        }
        None => None,
    };
    let name = settings.name.clone().unwrap_or_else(machine_name);
    let mut config = NodeConfig::new(name, identity);
    let everywhere = if secret.is_some() { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
    config.listen = settings.listen.unwrap_or_else(|| (everywhere, PEER_PORT).into());
    config.discovery = settings.discovery != Some(LookOnLan::Off)
        && secret.is_some()
        && !config.listen.ip().is_loopback();
    config.secret = secret;
    config.emulation = emulation;
    if let Some(cluster) = &settings.cluster {
        config.cluster.clone_from(cluster);
    }
    config.strategy = settings.strategy.unwrap_or_default();
    config.interval = settings.interval.map_or(INTERVAL_DEFAULT, |interval| interval.0);
    config.fanout = settings.fanout.unwrap_or(FANOUT_DEFAULT);
    config.storage = storage_config(settings)?;
    let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
    config.memory_bytes_max = settings.max_memory.map(bytes);
    if let Some(size) = settings.max_value {
        if bytes(size) > VALUE_BYTES_MAX {
            let most = ByteSize::b(VALUE_BYTES_MAX as u64);
            return Err(
                Exit::Usage.because(format!("--max-value {size} is too much: at most {most}"))
            );
        }
        config.value_bytes_max = bytes(size);
    }
    Ok(config)
}

fn storage_config(settings: &Settings) -> Result<Option<StorageConfig>, Exit> {
    let durability = settings.durability.unwrap_or_default();
    if durability == Durability::None {
        let contradiction = match (&settings.data, settings.salvage) {
            (Some(_), _) => Some("--data"),
            (None, true) => Some("--salvage"),
            (None, false) => None,
        };
        return match contradiction {
            Some(flag) => Err(Exit::Usage.because(format!(
                "{flag} contradicts --durability none, which keeps nothing on disk: leave one out"
            ))),
            None => Ok(None),
        };
    }
    let directory = settings.data.clone().unwrap_or_else(|| DATA_DIRECTORY.into());
    let mut storage = StorageConfig::new(directory);
    storage.durability = durability;
    storage.salvage = settings.salvage;
    if let Some(interval) = settings.sync_interval {
        storage.sync_interval = interval.0;
    }
    Ok(Some(storage))
}

fn machine_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "node".to_owned() } else { name.to_owned() }
}

fn read_password(path: &Path) -> Result<Password, Exit> {
    let name = path.display();
    let bytes = net::read_private(path).map_err(|error| Exit::Refused.because(error))?;
    let password = bytes.trim_ascii_end();
    if password.is_empty() {
        return Err(Exit::Usage.because(format!("{name} is empty: put the password into it")));
    }
    Ok(Password::new(password))
}

/// Looks a peer's name up until that works, then keeps its addresses dialled.
async fn find(node: Node, peer: PeerAddress) {
    loop {
        let wanted = peer.clone();
        let look_up = move || {
            (wanted.host.as_str(), wanted.port).to_socket_addrs().map(Iterator::collect::<Vec<_>>)
        };
        match async_std::task::spawn_blocking(look_up).await {
            Ok(addresses) => return addresses.into_iter().for_each(|address| node.dial(address)),
            Err(error) => log::warn!("peer {peer}: {error}; trying again in {RESOLVE_INTERVAL:?}"),
        }
        async_std::task::sleep(RESOLVE_INTERVAL).await;
    }
}

/// Writes the ready file whole or not at all.
fn write_ready(path: &Path, opened: &Opened) -> std::io::Result<()> {
    let ready = Ready {
        listen: opened.node.address(),
        resp: opened.resp.address(),
        http: opened.http.address(),
    };
    let text = serde_json::to_string(&ready)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    writeln!(file, "{text}")?;
    fs::rename(&temporary, path)
}

fn banner(opened: &Opened, settings: &Settings) -> String {
    let Opened { node, resp, http } = opened;
    let config = node.config();
    let id = node.id().to_string();
    let security = match config.secret {
        Some(_) => "peers prove that they know the secret",
        None => "no secret: this machine only",
    };
    let discovery = match config.discovery {
        true => "looks for more on the LAN",
        false => "looks for none on the LAN",
    };
    let open = settings.protected_mode == Some(YesNo::No);
    let guard = match (settings.requirepass_file.is_some(), resp.address().ip().is_loopback()) {
        (true, _) => "password required",
        (false, true) => "no password: this machine only",
        (false, false) if open => "NO PASSWORD: open to whoever can reach it",
        (false, false) => "no password: clients of other machines are refused",
    };
    let seen = match http.address().ip().is_loopback() {
        true => "this machine only",
        false => "status and metrics are open to whoever can reach it",
    };
    format!(
        "quorumor {} · {} ({}) in cluster {} · eventual consistency\n  data   {}\n  \
         peers  {}  (QUIC; {security}; {discovery})\n  redis  {}  (redis-cli -p {}; {guard})\n  \
         http   http://{}/status  ({seen})\n{}\n",
        env!("CARGO_PKG_VERSION"),
        config.name,
        &id[..8],
        config.cluster,
        data(node),
        node.address(),
        resp.address(),
        resp.address().port(),
        http.address(),
        next_peer(node, settings)
    )
}

/// Where the data is and how safe.
fn data(node: &Node) -> String {
    let Some(storage) = node.status().storage else {
        return "in memory only: gone when this peer ends, but for what the others have".to_owned();
    };
    let when = match storage.durability {
        Durability::Always => "durable before it is answered".to_owned(),
        _ => format!("durable within {}", humantime::format_duration(storage.sync_interval)),
    };
    let found = match storage.recovered_cells {
        0 => String::new(),
        cells => format!("; {cells} cells read in {:.1} s", storage.recovered_seconds),
    };
    format!("{}  ({when}{found})", storage.directory)
}

/// The command that starts one more peer.
fn next_peer(node: &Node, settings: &Settings) -> String {
    let cluster = match &settings.cluster {
        Some(cluster) => format!(" --cluster {}", quoted(cluster)),
        None => String::new(),
    };
    let address = node.address();
    let secret = settings.secret_file.as_ref().map(|path| path.display().to_string());
    let secret = secret.map(|path| format!(" --secret-file {}", quoted(&path)));
    if address.ip().is_loopback() {
        let elsewhere = match secret {
            Some(_) => "on other machines: listen on an address that they can reach",
            None => "on other machines: `quorumor keygen` first, and --secret-file here and there",
        };
        return format!(
            "\none more peer on this machine:\n  quorumor node{cluster}{} --data {} \
             --listen 127.0.0.1:0 --resp 127.0.0.1:0 --http 127.0.0.1:0 --peer {address}\n{elsewhere}",
            secret.unwrap_or_default(),
            free_directory()
        );
    }
    if node.config().discovery {
        return format!(
            "\non every other machine of this LAN, with a copy of the secret:\n  quorumor \
             node{cluster}{}\nif they do not find each other: `quorumor doctor`, or --peer {}",
            secret.unwrap_or_default(),
            reachable(address)
        );
    }
    format!(
        "\non the next machine, with a copy of the secret:\n  quorumor node{cluster}{} --peer {}",
        secret.unwrap_or_default(),
        reachable(address)
    )
}

/// How others most likely reach an address that this node listens on.
fn reachable(address: SocketAddr) -> String {
    let own = own_address()
        .or_else(first_address)
        .filter(|_| address.ip().is_unspecified())
        .unwrap_or(address.ip());
    match own.is_unspecified() {
        true => format!("THIS-MACHINE:{}", address.port()),
        false => SocketAddr::new(own, address.port()).to_string(),
    }
}

/// The name of a data directory that is not there yet.
fn free_directory() -> String {
    let names = (2..).map(|number| format!("{DATA_DIRECTORY}-{number}"));
    let mut free = names.filter(|name| !Path::new(name).exists());
    free.next().unwrap_or_default()
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The address by which others on the network most likely know this machine.
///
/// Connecting a UDP socket sends nothing; it only asks which way a packet would take. The target is
/// a documentation address (RFC 5737).
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

/// The first address of the first network card: there may be no way out of a LAN.
fn first_address() -> Option<IpAddr> {
    interfaces().ok()?.first()?.addresses.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Result<(String, u16), String> {
        text.parse::<PeerAddress>().map(|peer| (peer.host, peer.port))
    }

    #[test]
    fn a_peer_is_a_host_with_or_without_a_port() {
        for (text, host, port) in [
            ("10.0.0.1", "10.0.0.1", 7400),
            ("10.0.0.1:9", "10.0.0.1", 9),
            ("ada.lan", "ada.lan", 7400),
            ("ada:8", "ada", 8),
            ("::1", "::1", 7400),
            ("[::1]", "::1", 7400),
            ("[::1]:7", "::1", 7),
        ] {
            assert_eq!(peer(text), Ok((host.to_owned(), port)), "{text}");
        }
        for text in ["", ":7400", "ada:", "ada:x", "a b", "ada:99999"] {
            assert!(peer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_says_what_flags_do_not_and_unknown_names_are_refused() {
        let file = "name = 'ada'\npeer = ['10.0.0.1', 'b:1']\ninterval = '50ms'\nfanout = 3";
        let file: Settings = toml::from_str(file).unwrap();
        let flags = Settings { name: Some("eve".to_owned()), ..Settings::default() };
        let both = flags.or(file);
        assert_eq!((both.name.as_deref(), both.fanout, both.peer.len()), (Some("eve"), Some(3), 2));
        assert_eq!(both.interval, Some(Interval(Duration::from_millis(50))));
        for wrong in ["names = 'ada'", "interval = '0s'", "peer = [':']", "strategy = 'shove'"] {
            assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }
}
