//! The first words on a link: who speaks, of which cluster, in which version; and why a link ends.
//!
//! The certificate has said which node it is; the hello says the rest: the wire version, the
//! cluster's name, the node's name, which run of the node it is, whether it already has a link to
//! us, and some bytes that the rooms above want to tell each other. It is the first frame of the
//! push stream, after four bytes of magic and two of version that will never change, so that any
//! two versions can at least say that they differ.
//!
//! **One link per pair.** Of two nodes, the one with the larger id speaks first; the other looks
//! whether it already has a link to it and answers only on the connection that it keeps, so there
//! is one decider and no flapping. A connection without an answer is no link. The decider keeps what
//! it has, unless the other has started anew (another `run`), or says that it has no link while
//! ours is older than a handshake takes: then ours is dead and is replaced.
//!
//! **One run per node.** Two nodes with one key are settled in `twins.rs`; for that the hello says for
//! how long its speaker has been running.
//!
//! A link that ends says why in QUIC's close frame, in words that both sides can print.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use quinn::{ConnectionError, TransportErrorCode, VarInt};
use serde::{Deserialize, Serialize};

use super::twins::Standing;

/// The version of hellos and links spoken by this program; what is said over the links has its own.
const VERSION: u8 = 1;
/// What a hello begins with.
const MAGIC: [u8; 4] = *b"qrmr";
/// A whole hello: names, numbers, and what the rooms above add.
pub(super) const HELLO_BYTES_MAX: usize = 8 << 10;
/// What the rooms above may add to a hello.
pub(super) const HELLO_EXTRA_BYTES_MAX: usize = 4 << 10;
/// Names of clusters and nodes, in bytes: a line of text.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// A hello nests two levels deep.
const DEPTH_MAX: usize = 4;
/// How much of a peer's reason is shown.
const REASON_CHARS_MAX: usize = 300;

/// What a node tells a peer first. Sent once by each side; without it a connection is no link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The cluster's name; nodes of different clusters part at once.
    pub(super) cluster: String,
    /// The node's name, for people.
    pub(super) name: String,
    /// A number drawn at every start, so that a restart is seen.
    pub(super) run: u64,
    /// Whether the speaker has a link to the listener already.
    pub(super) linked: bool,
    /// What the rooms above tell each other.
    #[serde(with = "serde_bytes")]
    pub(super) extra: Vec<u8>,
    /// For how long the speaker has been running.
    pub(super) age_ms: u64,
}

/// Why a peer was refused, or refused us: the kinds that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusedReason {
    /// Its certificate is not of our cluster's secret, or ours not of its.
    WrongSecret,
    /// It showed no certificate.
    NoCertificate,
    /// It speaks another version of the protocol, or another protocol.
    Version,
    /// It belongs to a cluster of another name.
    Cluster,
    /// Its first words or a later frame were not of our protocol.
    Malformed,
    /// It connected and then said nothing in time.
    Silent,
    /// It was sent away a while ago and may not come back yet.
    Quarantined,
    /// It has the identity of another running node: a copied data directory.
    Clone,
    /// There are too many peers, or too many at the door at once.
    Busy,
}

/// Why a connection did not become a link, or a link ended: a code on the wire, and words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Farewell {
    pub(super) code: FarewellCode,
    pub(super) reason: String,
}

/// The kinds of farewell, with their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FarewellCode {
    /// The node shuts down.
    ShuttingDown = 1,
    /// There is a link already.
    Duplicate = 2,
    /// The node has reached itself.
    Myself = 3,
    /// Another node has our identity.
    Clone = 4,
    /// Another wire version.
    Version = 5,
    /// Another cluster's name.
    Cluster = 6,
    /// Not our protocol, or a frame that breaks it.
    Malformed = 7,
    /// No hello in time.
    Silent = 8,
    /// Sent away for a while.
    Quarantined = 9,
    /// Too many peers.
    Busy = 10,
    /// The peer has started anew, and this link is of its former run.
    Replaced = 11,
    /// The peer did not answer for a while and is taken for dead; it may come back.
    Unanswered = 12,
    /// Another node has the same identity and has been running longer: the peer gives way.
    Twin = 13,
}

impl FarewellCode {
    const ALL: [Self; 13] = [
        Self::ShuttingDown,
        Self::Duplicate,
        Self::Myself,
        Self::Clone,
        Self::Version,
        Self::Cluster,
        Self::Malformed,
        Self::Silent,
        Self::Quarantined,
        Self::Busy,
        Self::Replaced,
        Self::Unanswered,
        Self::Twin,
    ];

    /// The number on the wire.
    pub(super) fn number(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    fn from_number(number: VarInt) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// What is counted when a peer is refused with this code; `None` if it is no refusal.
    pub(super) fn refused(self) -> Option<RefusedReason> {
        match self {
            Self::ShuttingDown
            | Self::Duplicate
            | Self::Myself
            | Self::Replaced
            | Self::Unanswered => None,
            Self::Clone | Self::Twin => Some(RefusedReason::Clone),
            Self::Version => Some(RefusedReason::Version),
            Self::Cluster => Some(RefusedReason::Cluster),
            Self::Malformed => Some(RefusedReason::Malformed),
            Self::Silent => Some(RefusedReason::Silent),
            Self::Quarantined => Some(RefusedReason::Quarantined),
            Self::Busy => Some(RefusedReason::Busy),
        }
    }
}

impl Farewell {
    pub(super) fn new(code: FarewellCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl Hello {
    /// The hello as a frame, with the version of what will be said over the link.
    pub(super) fn to_bytes(&self, words: u8) -> Bytes {
        let mut bytes = BytesMut::with_capacity(HELLO_BYTES_MAX).writer();
        bytes.get_mut().put_slice(&MAGIC);
        bytes.get_mut().put_slice(&[VERSION, words]);
        rmp_serde::encode::write(&mut bytes, self)
            .expect("writing numbers and texts to memory cannot fail");
        bytes.into_inner().freeze()
    }

    /// Reads a hello as it came from a peer.
    ///
    /// # Errors
    /// A farewell to send: another version, or bytes that are no hello.
    pub(super) fn from_bytes(bytes: &[u8], words: u8) -> Result<Self, Farewell> {
        let malformed =
            |what: &str| Farewell::new(FarewellCode::Malformed, format!("no hello: {what}"));
        let (magic, rest) = bytes.split_first_chunk().ok_or_else(|| malformed("too short"))?;
        if *magic != MAGIC {
            return Err(malformed("it does not begin like one"));
        }
        let (version, rest) = rest.split_first_chunk().ok_or_else(|| malformed("too short"))?;
        let [links, theirs] = *version;
        if (links, theirs) != (VERSION, words) {
            return Err(Farewell::new(
                FarewellCode::Version,
                format!("wire version is {VERSION}.{words} here, peer speaks {links}.{theirs}"),
            ));
        }
        let mut reader = rmp_serde::Deserializer::from_read_ref(rest);
        reader.set_max_depth(DEPTH_MAX);
        let hello = Self::deserialize(&mut reader)
            .map_err(|error| malformed(&printable(&error.to_string())))?;
        let name_fits = |name: &str| !name.is_empty() && check_name(name).is_ok();
        if !name_fits(&hello.cluster) || !name_fits(&hello.name) {
            return Err(malformed("a name is empty, too long or not printable"));
        }
        if hello.extra.len() > HELLO_EXTRA_BYTES_MAX {
            return Err(malformed("too much is added to it"));
        }
        Ok(hello)
    }

    /// For how long its speaker has been running, and in which run.
    pub(super) fn standing(&self) -> Standing {
        Standing { age: Duration::from_millis(self.age_ms), run: self.run }
    }

    /// Refuses a peer of another cluster, in words that make sense on both sides.
    pub(super) fn check_cluster(&self, ours: &str) -> Result<(), Farewell> {
        if self.cluster == ours {
            return Ok(());
        }
        Err(Farewell::new(
            FarewellCode::Cluster,
            format!("cluster is '{ours}' here, peer says '{}'", self.cluster),
        ))
    }
}

/// Whether this may be the name of a cluster or a node: short, and nothing that garbles a terminal.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > NAME_BYTES_MAX {
        return Err("it is longer than 128 bytes");
    }
    if name.chars().any(char::is_control) {
        return Err("it contains control characters");
    }
    Ok(())
}

/// Words from the network, fit for a terminal: bounded, and without control characters.
fn printable(text: &str) -> String {
    text.chars()
        .take(REASON_CHARS_MAX)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect()
}

/// How a connection ended, as far as this side can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// We closed it.
    Ours,
    /// The peer said farewell.
    Theirs(Farewell),
    /// One side refused the other's certificate or protocol.
    Refused(RefusedReason, String),
    /// Nothing was heard for too long, or the peer lost its memory of the connection.
    Lost(&'static str),
}

impl Ending {
    /// What QUIC's error means to us.
    pub(super) fn of(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::Ours,
            ConnectionError::TimedOut => Self::Lost("nothing heard for too long"),
            ConnectionError::Reset => Self::Lost("the peer has restarted"),
            ConnectionError::CidsExhausted => Self::Lost("too many connections"),
            ConnectionError::VersionMismatch => {
                let words = "the peer speaks another version of QUIC";
                Self::Refused(RefusedReason::Version, words.to_owned())
            }
            ConnectionError::ApplicationClosed(close) => {
                let reason = printable(&String::from_utf8_lossy(&close.reason));
                match FarewellCode::from_number(close.error_code) {
                    Some(code) => Self::Theirs(Farewell::new(code, reason)),
                    // A connection that is just dropped closes with 0 and no words.
                    None => Self::Lost("closed by the peer without a reason"),
                }
            }
            ConnectionError::TransportError(error) => Self::of_code(error.code, true)
                .unwrap_or_else(|| {
                    Self::Refused(RefusedReason::Malformed, printable(&error.to_string()))
                }),
            ConnectionError::ConnectionClosed(close) => Self::of_code(close.error_code, false)
                .unwrap_or_else(|| {
                    Self::Refused(RefusedReason::Malformed, printable(&close.to_string()))
                }),
        }
    }

    /// What a TLS alert means: raised by us about the peer, or by the peer about us.
    fn of_code(code: TransportErrorCode, by_us: bool) -> Option<Self> {
        // RFC 8446, section 6: bad_certificate, unsupported_certificate, certificate_unknown,
        // unknown_ca, access_denied, decrypt_error; certificate_required; no_application_protocol.
        const CERTIFICATE_ALERTS: [u8; 6] = [42, 43, 46, 48, 49, 51];
        const CERTIFICATE_REQUIRED: u8 = 116;
        const OTHER_PROTOCOL: [u8; 2] = [70, 120];
        let is = |alert: &u8| TransportErrorCode::crypto(*alert) == code;
        let (reason, ours, theirs) = if CERTIFICATE_ALERTS.iter().any(is) {
            let ours = "the peer presented a certificate of another cluster secret";
            let theirs = "the peer says that our certificate is of another cluster secret";
            (RefusedReason::WrongSecret, ours, theirs)
        } else if is(&CERTIFICATE_REQUIRED) {
            let ours = "the peer presented no certificate";
            (RefusedReason::NoCertificate, ours, "the peer says that we presented no certificate")
        } else if OTHER_PROTOCOL.iter().any(is) {
            let words = "the peer does not speak this version of Quorumor's protocol";
            (RefusedReason::Version, words, words)
        } else if code == TransportErrorCode::CONNECTION_REFUSED {
            (RefusedReason::Busy, "too many connections", "the peer takes no connection now")
        } else {
            return None;
        };
        Some(Self::Refused(reason, if by_us { ours } else { theirs }.to_owned()))
    }

    /// What is counted, if this is a refusal.
    pub(super) fn refused(&self) -> Option<RefusedReason> {
        match self {
            Self::Ours | Self::Lost(_) => None,
            Self::Theirs(farewell) => farewell.code.refused(),
            Self::Refused(reason, _) => Some(*reason),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("closed by this node"),
            Self::Theirs(farewell) => write!(f, "the peer said: {}", farewell.reason),
            Self::Refused(_, words) => f.write_str(words),
            Self::Lost(words) => f.write_str(words),
        }
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WrongSecret => "wrong_secret",
            Self::NoCertificate => "no_certificate",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Malformed => "malformed",
            Self::Silent => "silent",
            Self::Quarantined => "quarantined",
            Self::Clone => "clone",
            Self::Busy => "busy",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: "blue".into(),
            name: "alpha".into(),
            run: 7,
            linked: false,
            extra: vec![1, 2, 3],
            age_ms: 70_000,
        }
    }

    #[test]
    fn a_hello_comes_back_as_it_went() {
        assert_eq!(Hello::from_bytes(&hello().to_bytes(7), 7).unwrap(), hello());
    }

    #[test]
    fn another_version_and_another_cluster_are_told_in_words() {
        let mut bytes = hello().to_bytes(7).to_vec();
        bytes[5] = 9;
        let farewell = Hello::from_bytes(&bytes, 7).unwrap_err();
        assert_eq!(farewell.code, FarewellCode::Version);
        assert_eq!(farewell.reason, "wire version is 1.7 here, peer speaks 1.9");
        let farewell = hello().check_cluster("red").unwrap_err();
        assert_eq!(farewell.reason, "cluster is 'red' here, peer says 'blue'");
    }

    #[test]
    fn names_that_would_garble_a_terminal_are_refused() {
        for name in ["\u{1b}[2J", "", &"x".repeat(NAME_BYTES_MAX + 1)] {
            let bytes = Hello { name: name.to_owned(), ..hello() }.to_bytes(7);
            assert_eq!(Hello::from_bytes(&bytes, 7).unwrap_err().code, FarewellCode::Malformed);
        }
    }

    #[test]
    fn codes_have_distinct_numbers_that_read_back() {
        for code in FarewellCode::ALL {
            assert_eq!(FarewellCode::from_number(code.number()), Some(code));
        }
    }

    proptest! {
        /// A hello with any byte changed is read or refused, never a panic.
        #[test]
        fn changed_hellos_are_survived(at in 0usize..40, byte in any::<u8>()) {
            let mut bytes = hello().to_bytes(7).to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Err(farewell) = Hello::from_bytes(&bytes, 7) {
                prop_assert!(farewell.code.refused().is_some());
            }
        }

        #[test]
        fn noise_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Hello::from_bytes(&bytes, 7).is_err());
        }
    }
}
