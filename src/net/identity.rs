//! Who belongs to the cluster, and who is who: one shared secret, one key pair per node.
//!
//! Every node of a cluster holds the same 32-byte [`Secret`]. From it each derives the same
//! certificate authority (HKDF, then Ed25519), and with that authority signs a small certificate
//! for its own key. Links are mutual TLS 1.3 with this authority as the only root, so a peer that
//! completes a handshake holds the secret. A node's id is the hash of its public key, read from the
//! certificate of the connection and never from a message: holding the secret makes one a member,
//! but does not let one pass for another member.
//!
//! What must stay true:
//! - A secret shows up in its own file and nowhere else: no `Debug`, no log line, no error text.
//! - A secret file that others may read is refused rather than repaired: whoever could read it may
//!   have done so already, and the owner should know.
//! - Certificates are valid from 1970 for ever. A small computer without a clock battery starts in
//!   1970, and an expiry would protect nobody: whoever holds the secret can sign a new one. The way
//!   to shut somebody out is a new secret.
//! - No session is resumed and nothing is sent before the handshake is done (no 0-RTT): every
//!   connection shows its certificate, and nothing can be replayed.
//!
//! Left out: wiping secrets from memory (it takes `unsafe` or one more dependency, and the process
//! holds derived keys as long as it runs anyway), and secrets for single nodes.
//!
//! Sources: RFC 5869 (HKDF), RFC 8410 (Ed25519 in PKCS#8), RFC 8446 (TLS 1.3), RFC 9001 (QUIC-TLS).

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use ring::{digest, hkdf};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::protocol::id::NodeId;

/// The name that every certificate carries and every dialler asks for. Who the peer is follows from
/// its key; the name only has to match, because TLS insists on one.
pub(super) const SERVER_NAME: &str = "peer.quorumor";
/// What TLS calls the protocol spoken here; the handshake fails if the other side speaks another.
const ALPN: &[u8] = b"quorumor/1";
/// What a secret in text begins with: says what it is, and in which version.
const SECRET_PREFIX: &str = "quorumor-secret-1:";
/// What a node's own key pair is derived for.
const NODE_KEY: &[u8] = b"quorumor node key, version 1";
/// Bytes of checksum behind a secret in text: a typing error passes once in 4 billion.
const CHECKSUM_BYTES: usize = 4;
/// A secret file holds one line; more than this is some other file.
const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// The secret that the nodes of one cluster share.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

/// A node's own key pair, kept as the 32-byte seed that it follows from.
#[derive(Clone)]
pub struct NodeIdentity {
    seed: [u8; 32],
    node_id: NodeId,
}

/// Says why there is no secret, or why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The operating system could not be read from or written to.
    #[error("{action} the secret file {}: {source}", path.display())]
    File {
        /// "cannot read", "cannot write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Somebody else than the owner may read or write the file.
    #[error(
        "the secret file {} is open to others (mode {mode:03o}); run `chmod 600 {0}`, and if \
         anybody else may have read it, make a new secret", path.display()
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is not a secret.
    #[error(
        "{place} holds no cluster secret: {problem}; expected one line \
         `{SECRET_PREFIX}<72 hexadecimal digits>` as written by `quorumor keygen`"
    )]
    Malformed {
        /// The file, or "the text".
        place: String,
        /// What is wrong, without showing the text.
        problem: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system: {0}")]
    Random(#[from] getrandom::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS refused its configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}

impl Secret {
    /// A new secret from the operating system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Random`] when the operating system has none.
    pub fn generate() -> Result<Self, IdentityError> {
        Ok(Self(random()?))
    }

    /// A secret for one run of one process, never written anywhere: nobody else can join.
    ///
    /// # Errors
    /// [`IdentityError::Random`] when the operating system has no randomness.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        Self::generate()
    }

    /// The secret that everybody knows: for nodes that only their own machine can reach.
    pub fn public() -> Self {
        Self(sha256(b"quorumor without a secret: this machine only"))
    }

    /// Reads the secret from `path`. Lines that begin with `#` and empty lines are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, when its group or others may read or write it (the error says
    /// how to mend that), or when it holds something else. Nothing is changed.
    pub fn read(path: &Path) -> Result<Self, IdentityError> {
        let bytes = read_private(path)?;
        let place = || format!("the secret file {}", path.display());
        let text = std::str::from_utf8(&bytes)
            .map_err(|_| IdentityError::Malformed { place: place(), problem: "it is not text" })?;
        let mut lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let secret = parse(lines.next().unwrap_or_default())
            .map_err(|problem| IdentityError::Malformed { place: place(), problem })?;
        match lines.next() {
            None => Ok(secret),
            Some(_) => Err(IdentityError::Malformed {
                place: place(),
                problem: "there is more than one line",
            }),
        }
    }

    /// Writes the secret to a new file that only its owner may read, and makes it durable.
    ///
    /// # Errors
    /// When the file exists already (it is left as it is: it may be the only copy of the secret of a
    /// running cluster) or cannot be written.
    pub fn write_new(&self, path: &Path) -> Result<(), IdentityError> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let write = || -> std::io::Result<()> {
            let mut file = options.open(path)?;
            writeln!(file, "# A Quorumor cluster secret: whoever holds it is a member.")?;
            writeln!(file, "{}", self.to_text())?;
            file.sync_all()
        };
        write().map_err(|source| IdentityError::File {
            action: "cannot write",
            path: path.to_owned(),
            source,
        })
    }

    /// The secret as text, for its file only. There is no `Display` on purpose.
    pub fn to_text(&self) -> String {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&checksum(&self.0));
        format!("{SECRET_PREFIX}{}", HEX.encode(&bytes))
    }

    /// What tells the nodes of one cluster from others where everybody listens. It follows from the
    /// secret and the cluster's name, and neither follows from it.
    pub(super) fn discovery_tag(&self, cluster: &str) -> [u8; 8] {
        let purpose = format!("quorumor discovery tag, version 1: {cluster}");
        let [a, b, c, d, e, f, g, h, ..] = derive(&self.0, purpose.as_bytes());
        [a, b, c, d, e, f, g, h]
    }

    /// The certificate authority that every holder of the secret derives alike.
    fn authority(&self) -> Result<Authority, IdentityError> {
        let key = ed25519_key(&derive(&self.0, b"quorumor cluster authority, version 1"))?;
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new())?;
        // The name tells authorities apart, so that a certificate of another cluster is refused as
        // of an unknown issuer and not as one with a broken signature.
        let fingerprint = HEX.encode(&sha256(rcgen::PublicKeyData::der_bytes(&key))[..8]);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, format!("quorumor cluster {fingerprint}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        for_ever(&mut params);
        Ok(Authority::self_signed(params, key)?)
    }
}

impl FromStr for Secret {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text.trim())
            .map_err(|problem| IdentityError::Malformed { place: "the text".to_owned(), problem })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl NodeIdentity {
    /// A new identity from the operating system's randomness.
    ///
    /// # Errors
    /// [`IdentityError::Random`] when the operating system has none.
    pub fn fresh() -> Result<Self, IdentityError> {
        Self::from_seed(random()?)
    }

    /// The identity that follows from `seed`: always the same. Whoever knows the seed can pass for
    /// this node.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`] if the key cannot be made; with 32 bytes it always can.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, IdentityError> {
        let key = ed25519_key(&derive(&seed, NODE_KEY))?;
        let node_id = node_id_of_key(&rcgen::PublicKeyData::subject_public_key_info(&key));
        Ok(Self { seed, node_id })
    }

    /// The seed, for whoever keeps the identity on disk. It is as secret as the private key.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The id by which peers know this node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// A key for something of this node that must survive a restart, by its purpose.
    pub(super) fn derived(&self, purpose: &[u8]) -> [u8; 32] {
        derive(&self.seed, purpose)
    }
}

impl fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeIdentity({:?})", self.node_id)
    }
}

/// The cluster's certificate authority: its key, and the root certificate to believe.
type Authority = rcgen::CertifiedIssuer<'static, rcgen::KeyPair>;

/// Both ends of TLS for a node: what it presents, and whom it believes.
pub(super) struct TlsConfigs {
    /// For connections that the node dials.
    pub(super) client: rustls::ClientConfig,
    /// For connections that it accepts.
    pub(super) server: rustls::ServerConfig,
}

/// Sets up mutual TLS 1.3 for `identity` in the cluster of `secret`.
pub(super) fn tls_configs(
    secret: &Secret,
    identity: &NodeIdentity,
) -> Result<TlsConfigs, IdentityError> {
    let tls = |error: &dyn fmt::Display| IdentityError::Tls(error.to_string());
    let authority = secret.authority()?;
    let key = ed25519_key(&identity.derived(NODE_KEY))?;
    let certificate = leaf(&authority, &key)?;
    let private_key =
        || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).map_err(|error| tls(&error))?;
    let roots = Arc::new(roots);
    let provider = crypto();

    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&roots),
        Arc::clone(&provider),
    )
    .build()
    .map_err(|error| tls(&error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.clone()], private_key())
        .map_err(|error| tls(&error))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], private_key())
        .map_err(|error| tls(&error))?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_early_data = false;
    Ok(TlsConfigs { client, server })
}

/// What a stranger dials with who knows the cluster's root but has no certificate of it.
#[cfg(test)]
pub(super) fn tls_of_a_stranger(secret: &Secret) -> rustls::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(secret.authority().unwrap().der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    client
}

/// The id of the node whose certificate this is.
///
/// # Errors
/// When the bytes are no certificate; after a handshake they always are.
pub(super) fn node_id_of_certificate(der: &CertificateDer<'_>) -> Result<NodeId, webpki::Error> {
    let certificate = webpki::EndEntityCert::try_from(der)?;
    Ok(node_id_of_key(&certificate.subject_public_key_info()))
}

/// The cryptography in use: ring's, with AES-128 first, which is the fastest where the processor
/// helps and strong enough everywhere.
fn crypto() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..provider::default_provider() })
}

/// A node's certificate for its own key.
fn leaf(
    authority: &Authority,
    key: &rcgen::KeyPair,
) -> Result<CertificateDer<'static>, IdentityError> {
    let mut params = rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()])?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        rcgen::ExtendedKeyUsagePurpose::ServerAuth,
        rcgen::ExtendedKeyUsagePurpose::ClientAuth,
    ];
    for_ever(&mut params);
    Ok(params.signed_by(key, authority)?.der().clone())
}

/// From the first second of 1970 to the end of 9999, which RFC 5280 (4.1.2.5) reads as "no end".
fn for_ever(params: &mut rcgen::CertificateParams) {
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
}

/// The first 16 bytes of the SHA-256 of a public key in its standard form (SubjectPublicKeyInfo).
fn node_id_of_key(public_key_info: &[u8]) -> NodeId {
    let hash = sha256(public_key_info);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    NodeId::from_bytes(bytes)
}

/// An Ed25519 key pair from its 32-byte seed, in the form of RFC 8410.
fn ed25519_key(seed: &[u8; 32]) -> Result<rcgen::KeyPair, IdentityError> {
    const PKCS8_V1_HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = [PKCS8_V1_HEAD.as_slice(), seed].concat();
    let der = PrivatePkcs8KeyDer::from(der);
    Ok(rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?)
}

/// A key for one purpose from a secret (HKDF-SHA-256).
fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"quorumor")
        .extract(secret)
        .expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes are what one block of HKDF-SHA-256 gives");
    key
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn checksum(secret: &[u8; 32]) -> [u8; CHECKSUM_BYTES] {
    // Of a derived value, so that the checksum says nothing about the secret itself.
    let hash = sha256(&derive(secret, b"quorumor secret checksum, version 1"));
    [hash[0], hash[1], hash[2], hash[3]]
}

fn random() -> Result<[u8; 32], IdentityError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Reads the text form; the error never repeats the text.
fn parse(text: &str) -> Result<Secret, &'static str> {
    let digits = text.strip_prefix(SECRET_PREFIX).ok_or(if text.is_empty() {
        "it is empty"
    } else if text.starts_with("quorumor-secret-") {
        "it is of a version that this program does not know"
    } else {
        "it does not begin with `quorumor-secret-1:`"
    })?;
    let bytes = HEX.decode(digits.as_bytes()).map_err(|_| "it is not hexadecimal")?;
    let (secret, sum) = bytes.split_first_chunk::<32>().ok_or("it is too short")?;
    if sum.len() != CHECKSUM_BYTES {
        return Err("it is of the wrong length");
    }
    if sum != checksum(secret) {
        return Err("its checksum is wrong: a digit was changed or left out");
    }
    Ok(Secret(*secret))
}

/// Refuses a file that the group or others may read or write.
#[cfg(unix)]
/// Reads a short file that holds a secret of any kind.
///
/// # Errors
/// When the file cannot be read, or when its group or others may read or write it.
pub fn read_private(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let file_error =
        |source| IdentityError::File { action: "cannot read", path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(file_error)?;
    refuse_open_to_others(&file, path)?;
    let mut bytes = Vec::new();
    file.take(SECRET_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(file_error)?;
    Ok(bytes)
}

fn refuse_open_to_others(file: &fs::File, path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| IdentityError::File {
        action: "cannot read",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

/// Other systems have access lists instead of permission bits; they are the administrator's affair.
#[cfg(not(unix))]
fn refuse_open_to_others(_: &fs::File, _: &Path) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_its_text_form_and_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.secret");
        let secret = Secret::generate().unwrap();
        assert_eq!(secret.to_text().parse::<Secret>().unwrap(), secret);
        secret.write_new(&path).unwrap();
        assert_eq!(Secret::read(&path).unwrap(), secret);
        let again = Secret::generate().unwrap().write_new(&path).unwrap_err().to_string();
        assert!(again.contains("cannot write"), "{again}");
        assert_eq!(Secret::read(&path).unwrap(), secret, "an existing file is left alone");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_open_to_others_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cluster.secret");
        Secret::generate().unwrap().write_new(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Secret::read(&path).unwrap_err();
            assert!(matches!(error, IdentityError::Permissions { .. }), "{mode:o}");
            let text = error.to_string();
            assert!(text.contains("chmod 600") && text.contains(&format!("{mode:o}")), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        Secret::read(&path).unwrap();
    }

    /// Whatever is wrong with the text, the error says so and never shows what was there.
    #[test]
    fn malformed_secrets_are_refused_without_being_shown() {
        let good = Secret([7; 32]).to_text();
        let mut flipped = good.clone();
        flipped.replace_range(30..31, if &good[30..31] == "0" { "1" } else { "0" });
        let cases = [
            (String::new(), "empty"),
            ("correct horse".to_owned(), "begin with"),
            (good.replace("-1:", "-9:"), "version"),
            (good.replace("0707", "zz07"), "hexadecimal"),
            (good[..40].to_owned(), "too short"),
            (format!("{good}00"), "length"),
            (flipped, "checksum"),
        ];
        for (text, word) in cases {
            let error = text.parse::<Secret>().unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
            assert!(!error.contains("0707") && !error.contains("horse"), "{error}");
        }
        assert_eq!(format!("{:?}", Secret([7; 32])), "Secret(hidden)");
    }

    #[test]
    fn a_missing_file_and_a_file_of_two_secrets_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let missing = Secret::read(&directory.path().join("nothing")).unwrap_err().to_string();
        assert!(missing.contains("nothing") && missing.contains("cannot read"), "{missing}");
        let path = directory.path().join("two");
        Secret::generate().unwrap().write_new(&path).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        writeln!(file, "{}", Secret::generate().unwrap().to_text()).unwrap();
        let error = Secret::read(&path).unwrap_err().to_string();
        assert!(error.contains("more than one line"), "{error}");
    }

    #[test]
    fn an_identity_follows_from_its_seed_and_its_id_from_its_certificate() {
        let identity = NodeIdentity::from_seed([3; 32]).unwrap();
        assert_eq!(NodeIdentity::from_seed([3; 32]).unwrap().node_id(), identity.node_id());
        assert_ne!(NodeIdentity::from_seed([4; 32]).unwrap().node_id(), identity.node_id());
        let authority = Secret([1; 32]).authority().unwrap();
        let key = ed25519_key(&identity.derived(NODE_KEY)).unwrap();
        let certificate = leaf(&authority, &key).unwrap();
        assert_eq!(node_id_of_certificate(&certificate).unwrap(), identity.node_id());
        assert!(!format!("{identity:?}").contains("3, 3"));
    }

    #[test]
    fn every_holder_of_a_secret_derives_the_same_authority() {
        let key_of = |secret: &Secret| secret.authority().unwrap().key().serialize_der();
        assert_eq!(key_of(&Secret([1; 32])), key_of(&Secret([1; 32])));
        assert_ne!(key_of(&Secret([1; 32])), key_of(&Secret([2; 32])));
    }
}
