//! How QUIC is set up for a LAN, and why.
//!
//! quinn's defaults suit a server on the internet. Here a handful of trusted peers keep one
//! connection each for days, most messages are small and want to arrive at once, and a daemon must
//! not hold a hundred megabytes for strangers at the door.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig,
    MtuDiscoveryConfig, ServerConfig, TransportConfig, ValidationTokenConfig, VarInt,
};
use ring::hmac;

use super::congestion::PatientFactory;
use super::emulation::canonical;
use super::identity::{IdentityError, NodeIdentity, Secret, tls_configs};

/// A peer that did not answer for this long is gone. It counts from the first unanswered packet, so
/// with the pings below a dead peer is noticed after 7 to 9.5 seconds: long enough for a cable to be
/// replugged or a laptop to change its access point, short enough to be noticed by who watches.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(7);
/// An otherwise silent link is pinged this often. A ping and its answer are some 130 bytes, so a
/// silent link costs 50 bytes per second, headers included.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);
/// What a round trip is taken to be before one was measured. Loss in a handshake is noticed after
/// three times this; the slowest profile (200 ms) must not be mistaken for loss.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// What a peer may have sent on one stream without our having read it: at 200 ms round trip still
/// 5 MB/s for each stream.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Exchanges that may be open at once in each direction of a link.
pub(super) const EXCHANGES_MAX: usize = 30;
/// What may be on the way on all streams of a link. Larger than all streams together can fill
/// (30 exchanges, one push stream, 1 MiB each), so that no bulk transfer ever stands between a
/// pushed write and the wire.
const LINK_WINDOW_BYTES: u32 = 32 << 20;
/// Peers acknowledge every so many packets ...
const ACK_EVERY_PACKETS: u32 = 8;
/// ... or after this time. Fewer acknowledgements than QUIC's "every second packet" save a quarter
/// of the work; the shorter delay (QUIC: 25 ms) makes the last packet of a burst be missed sooner.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Datagrams that wait to be sent, or to be read, on one link: a dozen of the largest, or some
/// hundred of the failure detector's questions, which a peer that keeps up never gathers. One that
/// is not read in time is worth nothing, so the oldest make room for the newest.
const DATAGRAM_BUFFER_BYTES: usize = 16 << 10;
/// Connection attempts that wait to be looked at; beyond it, strangers are turned away.
const INCOMING_MAX: usize = 256;
/// What an attempt may send before it was looked at, each and all together.
const INCOMING_BYTES_MAX: u64 = 16 << 10;
const INCOMING_TOTAL_BYTES_MAX: u64 = 1 << 20;

/// The packet for loopback: ten of them fill the 64 KiB that the kernel takes in one call, which
/// quarters the cost of a busy link. Nothing is searched there, since the search for the largest
/// packet that arrives is made of packets as large as those: it was seven eighths of all that a node
/// which had missed a hundred keys sent and received. If loopback was made narrower than usual, the
/// packets that do not arrive are noticed, and it goes on with the least.
const LOOPBACK_PACKET_BYTES: u16 = 6_500;
/// The largest packet that is tried on a network: what an Ethernet carries. To look for jumbo frames
/// as well would cost every other link three packets of that size, at each start and ever again.
const NETWORK_PACKET_BYTES_MAX: u16 = 1_452;
/// The search tries the middle and the end, and no more: either is a gain, what is between is not.
const PACKET_SEARCH_STEP_BYTES: u16 = (NETWORK_PACKET_BYTES_MAX - 1_200) / 2;

/// How long the name of a connection is.
const CONNECTION_ID_BYTES: usize = 8;

/// Everything that quinn wants to be told.
pub(super) struct QuicConfigs {
    pub(super) endpoint: EndpointConfig,
    pub(super) ends: Ends,
}

/// How a connection is made, which depends on where the other end is.
pub(super) struct Ends {
    network: End,
    loopback: End,
}

/// How a connection is made: as the one who dials, and as the one who accepts.
#[derive(Clone)]
pub(super) struct End {
    pub(super) client: ClientConfig,
    pub(super) server: Arc<ServerConfig>,
}

impl Ends {
    /// What goes for connections with this address.
    pub(super) fn with(&self, address: SocketAddr) -> &End {
        if canonical(address).ip().is_loopback() { &self.loopback } else { &self.network }
    }
}

/// Sets up QUIC for `identity` in the cluster of `secret`.
///
/// On emulated links packets are no larger than on an Ethernet, so that what a profile says of a
/// packet holds for as many bytes as it would there.
pub(super) fn quic_configs(
    secret: &Secret,
    identity: &NodeIdentity,
    emulated: bool,
) -> Result<QuicConfigs, IdentityError> {
    let tls = tls_configs(secret, identity)?;
    let no_suite =
        |error: quinn::crypto::rustls::NoInitialCipherSuite| IdentityError::Tls(error.to_string());
    let client = Arc::new(QuicClientConfig::try_from(tls.client).map_err(no_suite)?);
    let server = Arc::new(QuicServerConfig::try_from(tls.server).map_err(no_suite)?);
    let mut search = MtuDiscoveryConfig::default();
    search.upper_bound(NETWORK_PACKET_BYTES_MAX).minimum_change(PACKET_SEARCH_STEP_BYTES);
    let mut network = transport();
    network.mtu_discovery_config(Some(search));
    let network = end(Arc::clone(&client), Arc::clone(&server), network);
    let mut loopback = network.clone();
    if !emulated {
        let mut wide = transport();
        wide.initial_mtu(LOOPBACK_PACKET_BYTES).mtu_discovery_config(None);
        loopback = end(client, server, wide);
    }
    let ends = Ends { network, loopback };

    // A node that comes back after a crash can tell its peers that it knows nothing of the old
    // connections, so that they need not wait for the idle timeout: this takes a key that survives,
    // and ids of connections that the new run does not take for noise (quinn's own would).
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &identity.derived(b"quic stateless reset"));
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(|| Box::new(RandomIds));
    endpoint
        .max_udp_payload_size(LOOPBACK_PACKET_BYTES)
        .map_err(|error| IdentityError::Tls(error.to_string()))?;
    Ok(QuicConfigs { endpoint, ends })
}

fn end(client: Arc<QuicClientConfig>, server: Arc<QuicServerConfig>, how: TransportConfig) -> End {
    let how = Arc::new(how);
    let mut client = ClientConfig::new(client);
    client.transport_config(Arc::clone(&how));
    let mut server = ServerConfig::with_crypto(server);
    server
        .transport_config(how)
        // A peer that moves to another address is redialled; following it would let anybody who
        // copies a packet move a connection about for a moment.
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_TOTAL_BYTES_MAX);
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    server.validation_token_config(tokens);
    End { client, server: Arc::new(server) }
}

/// Names connections by eight random bytes.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        if getrandom::fill(&mut bytes).is_err() {
            // Guessable ids would only help to forge noise for a connection, not to read it.
            fastrand::fill(&mut bytes);
        }
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn transport() -> TransportConfig {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS - 1))
        .max_ack_delay(Some(ACK_DELAY_MAX));
    let streams = u32::try_from(EXCHANGES_MAX + 1).expect("31 fits");
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE_TIMEOUT.try_into().expect("7 s fit into milliseconds")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(LINK_WINDOW_BYTES))
        .send_window(u64::from(LINK_WINDOW_BYTES))
        .congestion_controller_factory(Arc::new(PatientFactory))
        .ack_frequency_config(Some(acks))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    transport
}
