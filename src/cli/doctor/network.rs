//! Ports, network cards, multicast, and what is known of the firewall.
//!
//! Who holds a port is read from `/proc`; elsewhere it stays unnamed. A firewall can be read by root
//! only, and is judged by a few words: the findings are hints, and say so.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Finding, Health, ask};
use crate::net::discovery::{Interface, interfaces};

/// The port of multicast DNS.
const MDNS_PORT: u16 = 5353;
/// The smallest MTU for QUIC: packets of 1,200 bytes with the headers of IPv6 and UDP.
const MTU_MIN: u32 = 1280;
/// How long a packet to ourselves may take.
const PROBE_MAX: Duration = Duration::from_secs(1);
/// Processes that are looked through for the holder of a port.
const PROCESSES_MAX: usize = 100_000;

/// Whether peers can be listened for.
pub(super) fn udp_port(listen: SocketAddr) -> Finding {
    let bound = UdpSocket::bind(listen).map(drop);
    port("peer port", "UDP", "--listen", listen, bound)
}

/// Whether clients can be listened for.
pub(super) fn tcp_port(check: &'static str, flag: &str, address: SocketAddr) -> Finding {
    let bound = TcpListener::bind(address).map(drop);
    port(check, "TCP", flag, address, bound)
}

fn port(
    check: &'static str,
    protocol: &str,
    flag: &str,
    address: SocketAddr,
    bound: io::Result<()>,
) -> Finding {
    let error = match bound {
        Ok(()) => return Finding::ok(check, format!("{address} ({protocol}) is free")),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => match holder(protocol, address.port()) {
            Some((process, name)) if name == "quorumor" => Finding::ok(
                check,
                format!("{address} ({protocol}): a node has it (process {process})"),
            ),
            Some((process, name)) => Finding::fail(
                check,
                format!("{address} ({protocol}) is taken by {name} (process {process})"),
                format!("end that program, or choose another address with {flag}"),
            ),
            None => Finding::fail(
                check,
                format!("{address} ({protocol}) is taken by another program"),
                format!(
                    "`ss -lpn 'sport = :{}'` as root names it; end it, or choose another address \
                     with {flag}",
                    address.port()
                ),
            ),
        },
        io::ErrorKind::AddrNotAvailable => Finding::fail(
            check,
            format!("no network card of this machine has the address {}", address.ip()),
            format!("choose one that it has with {flag}, or 0.0.0.0 for all"),
        ),
        io::ErrorKind::PermissionDenied => Finding::fail(
            check,
            format!("{address} ({protocol}) needs more rights"),
            format!("choose a port from 1024 on with {flag}"),
        ),
        _ => Finding::fail(
            check,
            format!("{address} ({protocol}): {error}"),
            format!("choose another address with {flag}"),
        ),
    }
}

/// The process that holds a port, and its name.
fn holder(protocol: &str, port: u16) -> Option<(u32, String)> {
    let tables: &[&str] = match protocol {
        "UDP" => &["/proc/net/udp", "/proc/net/udp6"],
        _ => &["/proc/net/tcp", "/proc/net/tcp6"],
    };
    let tables = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let sockets: Vec<_> = tables.flat_map(|table| sockets_on(&table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    for process in processes {
        let Some(number) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Processes of others cannot be looked into, and some end just now.
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let mut links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| sockets.iter().any(|socket| link == Path::new(socket))) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((number, name.trim().to_owned()));
        }
    }
    None
}

/// The sockets of a table of `/proc/net` that are bound to a port and connected with nobody, as
/// `/proc` writes them.
fn sockets_on(table: &str, port: u16) -> Vec<String> {
    let wanted = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (_, bound) = words.get(1)?.split_once(':').filter(|_| words.len() > 9)?;
        let (_, remote) = words.get(2)?.split_once(':')?;
        let here = u16::from_str_radix(bound, 16).is_ok_and(|bound| bound == port);
        (here && remote == "0000").then(|| format!("socket:[{}]", words[9]))
    };
    table.lines().skip(1).filter_map(wanted).collect()
}

/// What the network cards are and can do.
pub(super) fn cards(listen: SocketAddr) -> Vec<Finding> {
    if listen.ip().is_loopback() {
        let what = format!("not looked at: only this machine can reach {listen}");
        return vec![Finding::ok("network", what)];
    }
    let found = match interfaces() {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::warn(
                "network",
                format!("the system does not say which network cards there are: {error}"),
                "name the other peers with --peer ADDR",
            )];
        }
    };
    let found: Vec<_> = found
        .into_iter()
        .filter(|card| listen.ip().is_unspecified() || card.addresses.contains(&listen.ip()))
        .collect();
    if found.is_empty() {
        return vec![Finding::fail(
            "network",
            "no network card is up that others could reach",
            "`ip -brief address` lists them; plug a cable in, or `ip link set NAME up`",
        )];
    }
    found
        .iter()
        .flat_map(|card| [vec![network(card)], multicast(card), reach(card)].concat())
        .collect()
}

fn network(card: &Interface) -> Finding {
    let addresses: Vec<_> = card.addresses.iter().map(ToString::to_string).collect();
    let what = format!("{} has {}", card.name, addresses.join(", "));
    let mtu = fs::read_to_string(Path::new("/sys/class/net").join(&card.name).join("mtu"));
    match mtu.ok().and_then(|text| text.trim().parse::<u32>().ok()) {
        Some(mtu) if mtu < MTU_MIN => Finding::fail(
            "network",
            format!("{what}; its packets of {mtu} bytes are too short for QUIC"),
            format!("`ip link set {} mtu {MTU_MIN}` or more", card.name),
        ),
        Some(mtu) => Finding::ok("network", format!("{what}; packets of {mtu} bytes")),
        None => Finding::ok("network", what),
    }
}

/// Whether peers could be found on the LAN of this card. One IP version that works is enough.
fn multicast(card: &Interface) -> Vec<Finding> {
    let name = &card.name;
    let probes = card.probe();
    let fix = |what: &str| {
        format!(
            "{what}; until then name the other peers with --peer ADDR, or stay with --discovery off"
        )
    };
    let worked: Vec<_> =
        probes.iter().filter(|(_, result)| matches!(result, Ok(true))).map(|(ip, _)| *ip).collect();
    if !worked.is_empty() {
        let what = format!("{name}: a question came back ({})", worked.join(", "));
        return vec![Finding::ok("multicast", what)];
    }
    let judge = |(ip, result): (&str, io::Result<bool>)| match result {
        Err(error) => Finding::warn(
            "multicast",
            format!("{name} ({ip}): {error}"),
            fix(&format!("`ip link set {name} multicast on`, and look for a route to 224.0.0.0/4")),
        ),
        Ok(_) => Finding::warn(
            "multicast",
            format!("{name} ({ip}): what is sent to everybody does not come back"),
            fix(&format!("let UDP port {MDNS_PORT} through the firewall")),
        ),
    };
    probes.into_iter().map(judge).collect()
}

/// Whether a packet to this card's own address arrives.
fn reach(card: &Interface) -> Vec<Finding> {
    // Addresses of one link only need more than the address.
    let own = card.addresses.iter().filter(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    });
    let Some(own) = own.min_by_key(|address| address.is_ipv6()) else { return Vec::new() };
    vec![match arrives(*own) {
        Ok(true) => Finding::ok("udp", format!("a packet to {own} arrives")),
        Ok(false) => Finding::warn(
            "udp",
            format!("a packet to {own} does not arrive, although it is this machine's own address"),
            "let UDP through the firewall",
        ),
        Err(error) => Finding::warn(
            "udp",
            format!("no packet can be sent to {own}: {error}"),
            "`ip route get` with that address says which way it would take",
        ),
    }]
}

fn arrives(own: IpAddr) -> io::Result<bool> {
    let socket = UdpSocket::bind((own, 0))?;
    let word = fastrand::u64(..).to_be_bytes();
    socket.send_to(&word, socket.local_addr()?)?;
    let deadline = Instant::now() + PROBE_MAX;
    let mut buffer = [0; 64];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) if buffer.get(..length) == Some(&word) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

/// What can be said of the firewall.
pub(super) fn firewall(listen: SocketAddr) -> Vec<Finding> {
    if listen.ip().is_loopback() {
        return Vec::new();
    }
    let rules = ask("nft", &["list", "ruleset"]).into_iter().chain(ask("iptables", &["-S"]));
    let rules: Vec<_> = rules.filter(|rules| !rules.trim().is_empty()).collect();
    let manager = [
        ("/run/firewalld", "firewall-cmd --permanent --add-port=PORT/udp; firewall-cmd --reload"),
        ("/run/ufw.lock", "ufw allow PORT/udp"),
        ("/etc/ufw/ufw.conf", "ufw allow PORT/udp"),
    ];
    let command = manager
        .iter()
        .find(|(sign, _)| Path::new(sign).exists())
        .map_or("nft insert rule inet filter input udp dport PORT accept", |(_, command)| *command);
    if rules.is_empty() {
        return vec![Finding::ok(
            "firewall",
            "no rules seen; without root, or in another network namespace, they may not be visible",
        )];
    }
    [listen.port(), MDNS_PORT]
        .into_iter()
        .map(|port| {
            let health = rules.iter().map(|rules| judge(rules, port)).max();
            let command = command.replace("PORT", &port.to_string());
            match health {
                Some(Health::Ok) | None => {
                    Finding::ok("firewall", format!("nothing seems to stop UDP port {port}"))
                }
                Some(_) => Finding::warn(
                    "firewall",
                    format!(
                        "packets from outside are dropped, and UDP port {port} is named nowhere"
                    ),
                    format!("if peers do not meet: `{command}`"),
                ),
            }
        })
        .collect()
}

/// Whether rules as `nft` or `iptables` print them look as if they stopped a port: something that
/// comes in is dropped, and the port is not spoken of.
fn judge(rules: &str, port: u16) -> Health {
    let nft_drops = rules.contains("hook input")
        && rules.split("chain ").filter(|chain| chain.contains("hook input")).any(|chain| {
            ["policy drop", "\tdrop", " drop", "reject"].iter().any(|it| chain.contains(it))
        });
    let iptables_drops = rules.lines().any(|line| {
        line == "-P INPUT DROP"
            || (line.starts_with("-A INPUT")
                && (line.ends_with("-j DROP") || line.contains("-j REJECT")))
    });
    let port = port.to_string();
    let mut numbers = rules.split(|letter: char| !letter.is_ascii_digit());
    let names_port = numbers.any(|number| number == port);
    if (nft_drops || iptables_drops) && !names_port { Health::Warn } else { Health::Ok }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_taken_port_is_told_with_its_holder() {
        let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let finding = udp_port(address);
        assert_eq!(finding.health, Health::Fail, "{finding:?}");
        let process = std::process::id().to_string();
        assert!(finding.what.contains(&process), "{finding:?} does not name {process}");
        let any = udp_port((Ipv4Addr::LOCALHOST, 0).into());
        assert_eq!(any.health, Health::Ok, "{any:?}");

        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let finding = tcp_port("redis port", "--resp", taken.local_addr().unwrap());
        assert!(finding.what.contains(&process), "{finding:?}");
        assert!(finding.fix.unwrap().contains("--resp"));
        let nowhere = udp_port("198.51.100.77:7400".parse().unwrap());
        assert!(nowhere.what.contains("no network card"), "{nowhere:?}");
    }

    #[test]
    fn a_table_of_sockets_is_read() {
        let table = "  sl  local_address rem_address   st tx rx tr tm retrnsmt uid timeout inode\n   \
                     0: 00000000:1CE8 00000000:0000 07 0:0 00:0 0 0 0 4711 2 0\n   \
                     1: 0100007F:1CE8 0100007F:0050 07 0:0 00:0 0 0 0 4712 2 0\n   \
                     2: nonsense\n";
        assert_eq!(sockets_on(table, 7400), ["socket:[4711]"]);
        assert!(sockets_on(table, 7401).is_empty());
    }

    #[test]
    fn rules_that_drop_a_port_are_seen() {
        let nft = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; \
                   policy drop;\n\t\tudp dport 5353 accept\n\t}\n}\n";
        assert_eq!(judge(nft, 7400), Health::Warn);
        assert_eq!(judge(nft, 5353), Health::Ok);
        assert_eq!(judge(&nft.replace("drop", "accept"), 7400), Health::Ok);
        let forward = nft.replace("hook input", "hook forward");
        assert_eq!(judge(&forward, 7400), Health::Ok);
        let iptables = "-P INPUT DROP\n-A INPUT -p udp --dport 7400 -j ACCEPT\n";
        assert_eq!(judge(iptables, 7400), Health::Ok);
        assert_eq!(judge(iptables, 740), Health::Warn, "a part of a number is no number");
        assert_eq!(judge("-P INPUT ACCEPT\n", 7400), Health::Ok);
    }
}
