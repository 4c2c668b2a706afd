//! The settings of a node: one struct, read from flags, from `QUORUMOR_*` variables and from the file
//! that `--config` names, so that a name means the same everywhere.

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::Exit;
use crate::protocol::config::{Durability, Strategy};
use crate::protocol::operation::Mode;
use crate::protocol::strong::VOTERS_MAX;

/// The port that peers use unless told otherwise.
pub(super) const PEER_PORT: u16 = 7400;

/// The settings of a node, in a file or on the command line.
#[derive(Debug, Default, Clone, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// A name for people [default: this machine's].
    #[arg(long, env = "QUORUMOR_NAME")]
    pub(super) name: Option<String>,

    /// The name of the cluster; peers of another one are refused [default: quorumor].
    #[arg(long, env = "QUORUMOR_CLUSTER")]
    pub(super) cluster: Option<String>,

    /// Where peers reach this one, over QUIC (UDP) [default: 0.0.0.0:7400, without a secret
    /// 127.0.0.1:7400].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_LISTEN")]
    pub(super) listen: Option<SocketAddr>,

    /// Where Redis clients connect [default: 127.0.0.1:7401].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_RESP")]
    pub(super) resp: Option<SocketAddr>,

    /// Where status and metrics are served [default: 127.0.0.1:7402].
    #[arg(long, value_name = "IP:PORT", env = "QUORUMOR_HTTP")]
    pub(super) http: Option<SocketAddr>,

    /// Other peers, host or host:port, separated by commas or repeated. One that is up is enough;
    /// its own address and unreachable ones are fine.
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "QUORUMOR_PEER",
          value_parser = peer_or_none)]
    pub(super) peer: Vec<Option<PeerAddress>>,

    /// The cluster's secret, from `quorumor keygen`.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_SECRET_FILE")]
    pub(super) secret_file: Option<PathBuf>,

    /// Whether peers are looked for on the LAN (multicast DNS) [default: auto, which does so with a
    /// secret, unless only this machine can reach the peer].
    #[arg(long, value_enum, value_name = "AUTO|OFF", env = "QUORUMOR_DISCOVERY")]
    pub(super) discovery: Option<LookOnLan>,

    /// The data directory; made if it is not there [default: quorumor-data].
    #[arg(long, value_name = "DIR", env = "QUORUMOR_DATA")]
    pub(super) data: Option<PathBuf>,

    /// When a write is durable: always (before it is answered), interval (within --sync-interval),
    /// none (in memory only, no data directory) [default: interval].
    #[arg(long, value_name = "WHEN", env = "QUORUMOR_DURABILITY")]
    pub(super) durability: Option<Durability>,

    /// The time between two syncs with --durability interval [default: 1s].
    #[arg(long, value_name = "TIME", env = "QUORUMOR_SYNC_INTERVAL")]
    pub(super) sync_interval: Option<Interval>,

    /// Starts in spite of a damaged data directory, with what can be read; the peers bring the rest.
    #[arg(long)]
    pub(super) salvage: bool,

    /// How much memory keys and values may take, like 2GiB; beyond it writes are refused [default:
    /// no limit].
    #[arg(long, value_name = "SIZE", env = "QUORUMOR_MAX_MEMORY")]
    pub(super) max_memory: Option<ByteSize>,

    /// The longest value that clients may write [default and most: 64MiB].
    #[arg(long, value_name = "SIZE", env = "QUORUMOR_MAX_VALUE")]
    pub(super) max_value: Option<ByteSize>,

    /// The consistency mode of a new cluster: eventual, or strong as soon as --voters members are
    /// there. All members should say the same. A running cluster is switched by `quorumor mode`, and
    /// stays so [default: eventual].
    #[arg(long, value_name = "MODE", env = "QUORUMOR_CONSISTENCY")]
    pub(super) consistency: Option<Mode>,

    /// How many members vote in strong mode, of which fewer than half may fail; an odd number up to 9,
    /// and of an even one one less [default: 5].
    #[arg(long, value_name = "N", env = "QUORUMOR_VOTERS")]
    pub(super) voters: Option<Voters>,

    /// The direction of rounds: push, pull or push-pull [default: push-pull].
    #[arg(long, env = "QUORUMOR_STRATEGY")]
    pub(super) strategy: Option<Strategy>,

    /// The time between two rounds, like 1s or 100ms [default: 1s].
    #[arg(long, value_name = "TIME", env = "QUORUMOR_INTERVAL")]
    pub(super) interval: Option<Interval>,

    /// The most peers that get a write straight from here; beyond it relays help [default: 16].
    #[arg(long, value_name = "N", env = "QUORUMOR_FANOUT")]
    pub(super) fanout: Option<Fanout>,

    /// A file with the password that Redis clients must give.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_REQUIREPASS_FILE")]
    pub(super) requirepass_file: Option<PathBuf>,

    /// Whether clients from other machines are refused while there is no password [default: yes].
    #[arg(long, value_enum, value_name = "YES|NO", env = "QUORUMOR_PROTECTED_MODE")]
    pub(super) protected_mode: Option<YesNo>,

    /// Makes the links to peers worse, as a profile says: lan, wifi, wan, … or a file.
    #[arg(long, value_name = "NAME|FILE", env = "QUORUMOR_PROFILE")]
    pub(super) profile: Option<String>,

    /// A file to write the addresses into, as JSON, once everything is open.
    #[arg(long, value_name = "FILE", env = "QUORUMOR_READY_FILE")]
    pub(super) ready_file: Option<PathBuf>,
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
    pub(super) host: String,
    pub(super) port: u16,
}

/// A positive length of time, like `1s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval(pub Duration);

/// A positive number of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Fanout(pub usize);

impl TryFrom<usize> for Fanout {
    type Error = &'static str;

    fn try_from(peers: usize) -> Result<Self, Self::Error> {
        match peers {
            0 => Err("a fan-out of 0 would push nothing to anybody: at least 1"),
            _ => Ok(Self(peers)),
        }
    }
}

impl FromStr for Fanout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let peers: usize =
            text.parse().map_err(|_| format!("{text:?} is not a number of peers"))?;
        Ok(Self::try_from(peers)?)
    }
}

/// How many members vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub struct Voters(pub usize);

impl TryFrom<usize> for Voters {
    type Error = String;

    fn try_from(voters: usize) -> Result<Self, Self::Error> {
        match voters {
            1..=VOTERS_MAX => Ok(Self(voters)),
            _ => Err(format!("{voters} voters: expected 1 to {VOTERS_MAX}")),
        }
    }
}

impl FromStr for Voters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let voters: usize =
            text.parse().map_err(|_| format!("{text:?} is not a number of voters"))?;
        Self::try_from(voters)
    }
}

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

/// A peer, or none: an empty variable says that there is none.
fn peer_or_none(text: &str) -> Result<Option<PeerAddress>, String> {
    match text.trim() {
        "" => Ok(None),
        text => text.parse().map(Some),
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
    /// The settings in a file.
    pub(super) fn read(path: &Path) -> Result<Self, Exit> {
        let name = path.display();
        let text = fs::read_to_string(path)
            .map_err(|error| Exit::Usage.because(format!("cannot read {name}: {error}")))?;
        toml::from_str(&text).map_err(|error| Exit::Usage.because(format!("{name}: {error}")))
    }

    /// These settings, and those of `file` where these say nothing.
    pub(super) fn or(self, file: Self) -> Self {
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
            voters: self.voters.or(file.voters),
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
        assert_eq!((both.name.as_deref(), both.peer.len()), (Some("eve"), 2));
        assert_eq!(both.fanout, Some(Fanout(3)));
        assert_eq!(both.interval, Some(Interval(Duration::from_millis(50))));
        for wrong in [
            "names = 'ada'",
            "interval = '0s'",
            "peer = [':']",
            "fanout = 0",
            "voters = 10",
            "strategy = 'shove'",
        ] {
            assert!(toml::from_str::<Settings>(wrong).is_err(), "{wrong}");
        }
    }
}
