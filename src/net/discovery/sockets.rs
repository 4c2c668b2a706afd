//! Network cards and the multicast sockets on them.
//!
//! One socket per network card and IP version, all on the port of multicast DNS, which other programs
//! of the machine (Avahi, systemd-resolved, a second node) use at the same time. A socket is bound to
//! the group's address, so that it gets nothing but what is sent to the group, and only from its own
//! card: what comes in tells on which link the sender is.
//!
//! Left out: systems other than Unix, where a socket cannot be bound to a group.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::message;

/// The port of multicast DNS (RFC 6762).
const PORT: u16 = 5353;
/// Its groups.
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Packets must not have passed a router (section 11).
const HOPS: u32 = 255;
/// Network cards that are listened on; a machine with more (virtual ones of containers) uses the
/// first, by index. Each takes up to two sockets.
const INTERFACES_MAX: usize = 64;
/// How long a question of ours may take to come back to us.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// A network card that is up, with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name, like `eth0`.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// The IP version that a socket listens with, and for the older one the card's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Via {
    V4(Ipv4Addr),
    V6,
}

/// The network cards that are up and lead to other machines.
///
/// # Errors
/// When the operating system does not say.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    let mut cards = if_addrs::get_if_addrs()?;
    cards.sort_by_key(|card| (card.index, card.ip()));
    for card in cards {
        let (Some(index), false, true) = (card.index, card.is_loopback(), card.is_oper_up()) else {
            continue;
        };
        if let Some(last) = found.last_mut().filter(|last| last.index == index) {
            last.addresses.push(card.ip());
        } else if found.len() < INTERFACES_MAX {
            found.push(Interface { index, addresses: vec![card.ip()], name: card.name });
        }
    }
    Ok(found)
}

impl Interface {
    /// The ways to talk on it.
    pub(super) fn ways(&self) -> Vec<Via> {
        let v4 = self.addresses.iter().find_map(|address| match address {
            IpAddr::V4(ip) => Some(Via::V4(*ip)),
            IpAddr::V6(_) => None,
        });
        let v6 = self.addresses.iter().any(IpAddr::is_ipv6).then_some(Via::V6);
        v4.into_iter().chain(v6).collect()
    }

    /// Whether multicast works on this card: a question is sent and has to come back. One answer per
    /// IP version, `Ok(false)` if nothing came back within a second.
    pub fn probe(&self) -> Vec<(&'static str, io::Result<bool>)> {
        let name = |via| if matches!(via, Via::V6) { "IPv6" } else { "IPv4" };
        self.ways().into_iter().map(|via| (name(via), self.probe_via(via))).collect()
    }

    fn probe_via(&self, via: Via) -> io::Result<bool> {
        let socket = open(self.index, via)?;
        let mut question = message::question();
        // A number of its own (those of nodes have none), so that it is known again.
        question.splice(..2, fastrand::u16(1..).to_be_bytes());
        socket.set_nonblocking(false)?;
        socket.send_to(&question, group(self.index, via))?;
        let deadline = Instant::now() + PROBE_MAX;
        let mut buffer = [0; message::PACKET_BYTES_MAX];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) if buffer.get(..length) == Some(&question) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Where everybody on the link hears it.
pub(super) fn group(index: u32, via: Via) -> SocketAddr {
    match via {
        Via::V4(_) => (GROUP_V4, PORT).into(),
        Via::V6 => SocketAddrV6::new(GROUP_V6, PORT, 0, index).into(),
    }
}

/// Opens a socket that hears and speaks on one card; it does not block.
pub(super) fn open(index: u32, via: Via) -> io::Result<UdpSocket> {
    let domain = if matches!(via, Via::V6) { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    #[cfg(unix)]
    socket.set_reuse_port(true)?;
    match via {
        Via::V4(address) => {
            // Other cards' packets are for other sockets.
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v4(false)?;
            socket.join_multicast_v4(&GROUP_V4, &address)?;
            socket.set_multicast_if_v4(&address)?;
            socket.set_multicast_ttl_v4(HOPS)?;
            // Two nodes of one machine should find each other as well.
            socket.set_multicast_loop_v4(true)?;
        }
        Via::V6 => {
            socket.set_only_v6(true)?;
            #[cfg(target_os = "linux")]
            socket.set_multicast_all_v6(false)?;
            socket.join_multicast_v6(&GROUP_V6, index)?;
            socket.set_multicast_if_v6(index)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.set_multicast_loop_v6(true)?;
        }
    }
    socket.bind(&SockAddr::from(group(index, via)))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
