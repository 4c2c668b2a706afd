//! `quorumor node`: one peer, from settings to clean shutdown.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use futures_lite::future;
use serde::Serialize;

use super::Exit;
use super::client::HTTP_PORT;
use super::exit::{print, with_sources};
use super::settings::{LookOnLan, PEER_PORT, PeerAddress, Settings, YesNo};
use super::shutdown::Shutdown;
use crate::api::http::{HttpDoor, HttpSettings};
use crate::api::resp::door::Door as RespDoor;
use crate::api::resp::settings::{Password, Settings as RespSettings};
use crate::net::discovery::interfaces;
use crate::net::{self, Emulation, NodeIdentity, Secret};
use crate::protocol::cell::VALUE_BYTES_MAX;
use crate::protocol::config::{Durability, FANOUT_DEFAULT, INTERVAL_DEFAULT, VOTERS_DEFAULT};
use crate::server::{Node, NodeConfig, StartError, StorageConfig};
use crate::storage::StorageError;

/// The port of the Redis protocol unless told otherwise.
pub(super) const RESP_PORT: u16 = 7401;

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
        Some(path) => match Settings::read(path) {
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
    let ended = async {
        future::or(shutdown.requested(), opened.node.left()).await;
        Exit::Ok
    };
    let gave_way = async { Exit::Refused.because(opened.node.gave_way().await) };
    let exit = future::or(ended, gave_way).await;
    if let Some(path) = &settings.ready_file {
        // Not ready any more; a file that somebody else removed is as good.
        let _ = fs::remove_file(path);
    }
    opened.resp.close().await;
    opened.http.close().await;
    opened.node.close().await;
    exit
}

async fn open(settings: &Settings) -> Result<Opened, Exit> {
    let config = node_config(settings)?;
    let password = settings.requirepass_file.as_deref().map(read_password).transpose()?;
    let node = Node::start(config).await.map_err(|error| match salvageable(&error) {
        true => Exit::Failed.because(format!("{error} (--salvage starts with what is readable)")),
        false => Exit::Failed.because(error),
    })?;
    for peer in settings.peer.iter().flatten() {
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
    let guard = HttpSettings { protected: settings.protected_mode != Some(YesNo::No) };
    let http = HttpDoor::open_with(node.clone(), address, guard).await.map_err(|error| {
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
    config.consistency = settings.consistency.unwrap_or_default();
    config.voters = settings.voters.map_or(VOTERS_DEFAULT, |voters| voters.0);
    config.strategy = settings.strategy.unwrap_or_default();
    config.interval = settings.interval.map_or(INTERVAL_DEFAULT, |interval| interval.0);
    config.fanout = settings.fanout.map_or(FANOUT_DEFAULT, |fanout| fanout.0);
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
        false if open => "STATUS, BACKUP AND RESTORE are open to whoever can reach it",
        false => "status and metrics are open to whoever can reach it",
    };
    format!(
        "quorumor {} · {} ({}) in cluster {} · {} consistency\n  data   {}\n  \
         peers  {}  (QUIC; {security}; {discovery})\n  redis  {}  (redis-cli -p {}; {guard})\n  \
         http   http://{}/status  ({seen})\n{}\n",
        env!("CARGO_PKG_VERSION"),
        config.name,
        &id[..8],
        config.cluster,
        node.status().consistency,
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
