//! What nodes say to each other over multicast DNS: one question, and one answer with everything.
//!
//! A small part of RFC 6762 and RFC 6763, written so that other tools (`avahi-browse`,
//! `dns-sd -B _quorumor._udp`) show the nodes, and read with the suspicion that packets from anybody
//! deserve: lengths are checked, a packet may hold so many records and no more, and a pointer inside
//! a name must lead backward, so that reading ends.
//!
//! The instance is named by the node's id and the cluster's tag, and its text record says the same;
//! neither the secret nor the cluster's name follows from the tag.
//!
//! Left out: everything that a node does not need from DNS, and answers that are spread over several
//! packets, which ours never are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use crate::protocol::id::NodeId;

/// The service, as labels of DNS.
const SERVICE: [&str; 3] = ["_quorumor", "_udp", "local"];
/// Addresses in one answer, ours or another's: a machine with more network cards names the first.
pub(super) const ADDRESSES_MAX: usize = 16;
/// Records that are looked at in a packet; ours has 19 at most, a busy printer's fewer than 40.
const RECORDS_MAX: usize = 64;
/// Nodes that are taken from one packet; ours names one.
const NODES_MAX: usize = 4;
/// The longest name of DNS (RFC 1035, section 3.1).
const NAME_BYTES_MAX: usize = 255;
/// The longest packet that is read. What nodes send is below 1,000 bytes.
pub(super) const PACKET_BYTES_MAX: usize = 1500;
/// How long others may remember an answer, in seconds (RFC 6762, section 10).
const LIFETIME_SECONDS: u32 = 120;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_TXT: u16 = 16;
const TYPE_AAAA: u16 = 28;
const TYPE_SRV: u16 = 33;
const TYPE_ANY: u16 = 255;
const CLASS: u16 = 1;
/// The record is this node's alone: forget what was known under its name (section 10.2).
const CLASS_FLUSH: u16 = 0x8001;
const FLAG_ANSWER: u16 = 0x8000;
/// An answer by the authority, which on this link everybody is for their own names.
const FLAGS_ANSWER: u16 = 0x8400;

/// What tells the nodes of one cluster from others.
pub(super) type Tag = [u8; 8];

/// A node that says where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Announcement {
    pub(super) node: NodeId,
    pub(super) tag: Tag,
    pub(super) port: u16,
    pub(super) addresses: Vec<IpAddr>,
}

/// What a packet says, as far as a node cares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// Somebody looks for nodes.
    Question,
    /// Nodes say where they are.
    Nodes(Vec<Announcement>),
    /// Nothing for us.
    Other,
}

/// The question: who is there?
pub(super) fn question() -> Vec<u8> {
    let mut packet = header(0, 1, 0, 0);
    packet.extend(name(&SERVICE));
    put_u16(&mut packet, TYPE_PTR);
    put_u16(&mut packet, CLASS);
    packet
}

impl Announcement {
    /// The answer: this node is here, or was (`leaving`).
    pub(super) fn to_bytes(&self, leaving: bool) -> Vec<u8> {
        let lifetime = if leaving { 0 } else { LIFETIME_SECONDS };
        let id = HEX.encode(&self.node.0.to_be_bytes());
        let tag = HEX.encode(&self.tag);
        let instance = format!("{id}-{tag}");
        let [service, protocol, local] = SERVICE;
        let everybody = name(&SERVICE);
        let instance = name(&[&instance, service, protocol, local]);
        let host = name(&[&id, local]);
        let addresses = self.addresses.iter().take(ADDRESSES_MAX);
        let mut packet = header(FLAGS_ANSWER, 0, 1, 2 + addresses.len());
        put_record(&mut packet, &everybody, (TYPE_PTR, CLASS, lifetime), &instance);
        // Priority and weight say nothing here.
        let [high, low] = self.port.to_be_bytes();
        let place = [&[0, 0, 0, 0, high, low], host.as_slice()].concat();
        put_record(&mut packet, &instance, (TYPE_SRV, CLASS_FLUSH, lifetime), &place);
        // The host's name ends that record; from here on a pointer to it stands for it.
        let host_at = u16::try_from(packet.len() - host.len()).expect("within a packet");
        let host = (0xc000 | host_at).to_be_bytes();
        let words = [b"\x03v=1".to_vec(), text(&format!("node={id}")), text(&format!("tag={tag}"))];
        put_record(&mut packet, &instance, (TYPE_TXT, CLASS_FLUSH, lifetime), &words.concat());
        for address in addresses {
            let (kind, octets) = match address {
                IpAddr::V4(ip) => (TYPE_A, ip.octets().to_vec()),
                IpAddr::V6(ip) => (TYPE_AAAA, ip.octets().to_vec()),
            };
            put_record(&mut packet, &host, (kind, CLASS_FLUSH, lifetime), &octets);
        }
        packet
    }
}

fn header(flags: u16, questions: u16, answers: u16, additional: usize) -> Vec<u8> {
    let mut packet = Vec::with_capacity(512);
    let additional = u16::try_from(additional).expect("a handful of records");
    for number in [0, flags, questions, answers, 0, additional] {
        put_u16(&mut packet, number);
    }
    packet
}

fn put_u16(packet: &mut Vec<u8>, number: u16) {
    packet.extend(number.to_be_bytes());
}

/// A length and the text; ours are all shorter than 64 bytes.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    [&[length], text.as_bytes()].concat()
}

fn name(labels: &[&str]) -> Vec<u8> {
    let mut name: Vec<u8> = labels.iter().flat_map(|label| text(label)).collect();
    name.push(0);
    name
}

fn put_record(
    packet: &mut Vec<u8>,
    name: &[u8],
    (kind, class, lifetime): (u16, u16, u32),
    data: &[u8],
) {
    packet.extend(name);
    put_u16(packet, kind);
    put_u16(packet, class);
    packet.extend(lifetime.to_be_bytes());
    put_u16(packet, u16::try_from(data.len()).expect("less than a packet"));
    packet.extend(data);
}

/// Reads a packet from anybody; nothing in it is believed. `None`: it makes no sense.
pub(super) fn read(packet: &[u8]) -> Option<Heard> {
    let mut reader = Reader { packet, at: 0 };
    let [_, flags, questions, answers, authorities, additional] = reader.numbers()?;
    if flags & FLAG_ANSWER == 0 {
        for _ in 0..usize::from(questions).min(RECORDS_MAX) {
            let name = reader.name()?;
            let [kind, _class] = reader.numbers()?;
            if matches!(kind, TYPE_PTR | TYPE_ANY) && is_service(&name) {
                return Some(Heard::Question);
            }
        }
        return Some(Heard::Other);
    }
    for _ in 0..usize::from(questions).min(RECORDS_MAX) {
        reader.name()?;
        reader.take(4)?;
    }
    let records = [answers, authorities, additional].map(usize::from).iter().sum::<usize>();
    let mut nodes: Vec<(Vec<u8>, Announcement)> = Vec::new();
    let mut hosts: Vec<(Vec<u8>, IpAddr)> = Vec::new();
    for _ in 0..records.min(RECORDS_MAX) {
        let name = reader.name()?;
        let [kind, _class, high, low, length] = reader.numbers()?;
        let mut data = Reader { packet, at: reader.at };
        let bytes = reader.take(usize::from(length))?;
        // A goodbye is no news: whoever is gone does not answer.
        if (high, low) == (0, 0) {
            continue;
        }
        match kind {
            TYPE_SRV if nodes.len() < NODES_MAX => {
                let Some((node, tag)) = instance(&name) else { continue };
                let [_priority, _weight, port] = data.numbers()?;
                let host = data.name()?;
                nodes.push((host, Announcement { node, tag, port, addresses: Vec::new() }));
            }
            TYPE_A => hosts.push((name, Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into())),
            TYPE_AAAA => {
                hosts.push((name, Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()));
            }
            _ => {}
        }
    }
    if nodes.is_empty() {
        return Some(Heard::Other);
    }
    let nodes = nodes.into_iter().map(|(host, node)| {
        let own = hosts.iter().filter(|(name, _)| *name == host).map(|(_, address)| *address);
        Announcement { addresses: own.take(ADDRESSES_MAX).collect(), ..node }
    });
    Some(Heard::Nodes(nodes.collect()))
}

/// Names are compared as on the wire (lengths and labels) in small letters.
fn is_service(wanted: &[u8]) -> bool {
    wanted == name(&SERVICE)
}

/// The node and the tag that an instance of the service is named by.
fn instance(name: &[u8]) -> Option<(NodeId, Tag)> {
    let (length, rest) = name.split_first()?;
    let (label, service) = rest.split_at_checked(usize::from(*length))?;
    if !is_service(service) {
        return None;
    }
    let at = label.iter().position(|byte| *byte == b'-')?;
    let (id, tag) = (label.get(..at)?, label.get(at + 1..)?);
    let id = <[u8; 16]>::try_from(HEX.decode(id).ok()?).ok()?;
    let tag = Tag::try_from(HEX.decode(tag).ok()?).ok()?;
    Some((NodeId(u128::from_be_bytes(id)), tag))
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let bytes = self.packet.get(self.at..)?.get(..length)?;
        self.at += length;
        Some(bytes)
    }

    fn numbers<const COUNT: usize>(&mut self) -> Option<[u16; COUNT]> {
        let mut numbers = [0; COUNT];
        for number in &mut numbers {
            *number = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        }
        Some(numbers)
    }

    /// A name, unfolded and in small letters.
    fn name(&mut self) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        // Where to go on after the name, once a pointer has led elsewhere.
        let mut after = None;
        let mut before = self.at;
        loop {
            let length = *self.take(1)?.first()?;
            match length {
                0 => break,
                1..=63 => {
                    name.push(length);
                    name.extend(self.take(usize::from(length))?.to_ascii_lowercase());
                    if name.len() >= NAME_BYTES_MAX {
                        return None;
                    }
                }
                0b1100_0000.. => {
                    let low = *self.take(1)?.first()?;
                    let target = usize::from(length & 0b0011_1111) << 8 | usize::from(low);
                    // Each jump lands before the piece that it left.
                    if target >= before {
                        return None;
                    }
                    after.get_or_insert(self.at);
                    before = target;
                    self.at = target;
                }
                _ => return None,
            }
        }
        name.push(0);
        if let Some(after) = after {
            self.at = after;
        }
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            node: NodeId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            tag: [9, 8, 7, 6, 5, 4, 3, 2],
            port: 7400,
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        assert_eq!(read(&question()), Some(Heard::Question));
        let said = announcement();
        assert_eq!(read(&said.to_bytes(false)), Some(Heard::Nodes(vec![said.clone()])));
        assert_eq!(read(&said.to_bytes(true)), Some(Heard::Other), "a goodbye invites nobody");
        let crowd = vec![said.addresses[0]; 50];
        let bytes = Announcement { addresses: crowd.clone(), ..said.clone() }.to_bytes(false);
        assert!(bytes.len() < 1232, "{} bytes fit into any packet", bytes.len());
        let heard = Announcement { addresses: crowd[..ADDRESSES_MAX].to_vec(), ..said };
        assert_eq!(read(&bytes), Some(Heard::Nodes(vec![heard])));
    }

    /// Other programs write names with pointers, in big letters, and ask several things at once.
    #[test]
    fn pointers_and_big_letters_are_understood() {
        let mut packet = header(0, 2, 0, 0);
        packet.extend(name(&["_ipp", "_tcp", "LOCAL"]));
        packet.extend([0, 12, 0, 1]);
        let local = 12 + 5 + 5;
        packet.extend([text("_Quorumor"), text("_UDP")].concat());
        packet.extend([0xc0, local, 0, 12, 0x80, 1]);
        assert_eq!(read(&packet), Some(Heard::Question));
        packet[15] = b'x';
        assert_eq!(read(&packet), Some(Heard::Question), "the other question matters not");
    }

    /// Cut at every byte and with every bit flipped, a packet is read without a panic, and yields at
    /// most what it could say; a pointer to itself, forward, or in a circle ends.
    #[test]
    fn no_packet_does_harm() {
        let good = announcement().to_bytes(false);
        for length in 0..good.len() {
            assert_eq!(read(&good[..length]), None, "cut at {length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if let Some(Heard::Nodes(nodes)) = read(&bad) {
                assert!(nodes.len() <= NODES_MAX);
                assert!(nodes.iter().all(|node| node.addresses.len() <= ADDRESSES_MAX));
            }
        }
        for target in [12, 14, 200] {
            let mut circle = header(0, 1, 0, 0);
            circle.extend([0xc0, target, 0xc0, 12, 0, 12, 0, 1]);
            assert_eq!(read(&circle), None, "pointer to {target}");
        }
        let mut many = header(FLAGS_ANSWER, 0, 0, 65_535);
        let one = announcement().to_bytes(false);
        (0..100).for_each(|_| many.extend(&one[12..]));
        let Some(Heard::Nodes(nodes)) = read(&many) else { panic!("it is long, but well formed") };
        assert_eq!(nodes.len(), NODES_MAX);
    }
}
