//! What members say to each other in datagrams, as bytes.
//!
//! A datagram is foca's (SWIM's probes, answers and gossip) or one of our own two: a [`Talk::Question`]
//! whether a peer is there, and its [`Talk::Answer`]. All numbers are big-endian and of fixed length,
//! so a ping is 22 bytes: who sends and who receives is known from the link, which has proven it, and
//! does not travel. foca wants both in its packets; [`admit`] writes them in front of what came, and
//! [`to_wire`] takes them off again.
//!
//! ```text
//! foca      kind 0..=10 · renewal u64 · incarnation u16 · receiver's renewal u64 · by kind
//!           · count u16 · count × (node 16 bytes · renewal u64 · incarnation u16 · state u8)
//! question  0x20 · 0                       are you there?
//!           0x20 · 1 · renewal · inc.      ... you are suspected as this
//! answer    0x21 · renewal · incarnation   as this I live
//! ```
//!
//! What must stay true: nothing that comes is believed to have the length it claims; what has any byte
//! too few or too many, or a value that we do not know, is rubbish as a whole and changes nothing.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};

use crate::protocol::id::NodeId;

/// The longest datagram that is made or accepted: fits one packet on every path that QUIC uses.
pub(super) const DATAGRAM_BYTES_MAX: usize = 1_100;
/// What foca has in front of each packet and links do not carry: sender and receiver.
pub(super) const ENDS_BYTES: usize = 32;
const QUESTION: u8 = 0x20;
const ANSWER: u8 = 0x21;

/// One life of a member, as SWIM names it: a member that was declared down, rightly or not, comes
/// back under a greater renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub(super) node: NodeId,
    pub(super) renewal: u64,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        self.renewal.checked_add(1).map(|renewal| Self { renewal, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.renewal > adversary.renewal
    }
}

/// What a member says of itself in a question or an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life {
    pub(super) renewal: u64,
    pub(super) incarnation: u16,
}

/// A datagram that is well formed.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Talk {
    /// The sender has not heard of us; it may say as what we are suspected.
    Question(Option<Life>),
    /// The sender lives.
    Answer(Life),
    /// foca's, with what it says of the two ends and of others.
    Swim { sender: Life, receiver_renewal: u64, updates: Vec<Member<Identity>>, packet: Packet },
}

/// A foca packet taken apart, without its updates.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Packet {
    bytes: Vec<u8>,
    has_updates: bool,
}

/// A datagram that nobody of ours has made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rubbish {
    /// It ends too early.
    #[error("too short")]
    Short,
    /// It goes on after its end, or is longer than any may be.
    #[error("too long")]
    Long,
    /// A number stands for nothing.
    #[error("unknown value {0}")]
    Unknown(u8),
}

/// Takes a datagram from `from` to `to` apart.
pub(super) fn admit(from: NodeId, to: NodeId, datagram: &[u8]) -> Result<Talk, Rubbish> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(Rubbish::Long);
    }
    let mut rest = datagram;
    match take_u8(&mut rest)? {
        QUESTION => {
            let suspected = match take_u8(&mut rest)? {
                0 => None,
                1 => Some(take_life(&mut rest)?),
                other => return Err(Rubbish::Unknown(other)),
            };
            ended(rest).map(|()| Talk::Question(suspected))
        }
        ANSWER => {
            let life = take_life(&mut rest)?;
            ended(rest).map(|()| Talk::Answer(life))
        }
        _ => admit_swim(from, to, datagram),
    }
}

fn admit_swim(from: NodeId, to: NodeId, datagram: &[u8]) -> Result<Talk, Rubbish> {
    let mut bytes = Vec::with_capacity(ENDS_BYTES + datagram.len());
    bytes.put_u128(from.0);
    bytes.put_u128(to.0);
    bytes.extend_from_slice(datagram);
    let mut rest = bytes.as_slice();
    let header = Wire.decode_header(&mut rest)?;
    let header_bytes = bytes.len() - rest.len();
    let has_updates = !rest.is_empty();
    let mut updates = Vec::new();
    if has_updates {
        let count = take_u16(&mut rest)?;
        for _ in 0..count {
            // Grows with what is really there: each update takes its bytes off the rest.
            updates.push(Wire.decode_member(&mut rest)?);
        }
        ended(rest)?;
    }
    bytes.truncate(header_bytes);
    Ok(Talk::Swim {
        sender: Life { renewal: header.src.renewal, incarnation: header.src_incarnation },
        receiver_renewal: header.dst.renewal,
        updates,
        packet: Packet { bytes, has_updates },
    })
}

impl Packet {
    /// The packet as foca wants it, with those updates that are let through.
    pub(super) fn with(mut self, updates: &[Member<Identity>]) -> Result<Vec<u8>, Rubbish> {
        if self.has_updates {
            self.bytes.put_u16(u16::try_from(updates.len()).map_err(|_| Rubbish::Long)?);
            for update in updates {
                Wire.encode_member(update, &mut self.bytes)?;
            }
        }
        Ok(self.bytes)
    }
}

/// What travels of a packet of foca's, and the incarnation that it names as the sender's.
pub(super) fn to_wire(packet: &[u8]) -> Option<(Vec<u8>, u16)> {
    let datagram = packet.get(ENDS_BYTES..)?;
    let incarnation = datagram.get(9..11)?.try_into().ok()?;
    Some((datagram.to_vec(), u16::from_be_bytes(incarnation)))
}

/// The bytes of a question.
pub(super) fn question(suspected: Option<Life>) -> Vec<u8> {
    let mut bytes = vec![QUESTION, u8::from(suspected.is_some())];
    if let Some(life) = suspected {
        put_life(&mut bytes, life);
    }
    bytes
}

/// The bytes of an answer.
pub(super) fn answer(life: Life) -> Vec<u8> {
    let mut bytes = vec![ANSWER];
    put_life(&mut bytes, life);
    bytes
}

fn put_life(bytes: &mut Vec<u8>, life: Life) {
    bytes.put_u64(life.renewal);
    bytes.put_u16(life.incarnation);
}

fn take_life(rest: &mut &[u8]) -> Result<Life, Rubbish> {
    Ok(Life { renewal: take_u64(rest)?, incarnation: take_u16(rest)? })
}

fn take_u8(rest: &mut impl Buf) -> Result<u8, Rubbish> {
    rest.try_get_u8().map_err(|_| Rubbish::Short)
}

fn take_u16(rest: &mut impl Buf) -> Result<u16, Rubbish> {
    rest.try_get_u16().map_err(|_| Rubbish::Short)
}

fn take_u64(rest: &mut impl Buf) -> Result<u64, Rubbish> {
    rest.try_get_u64().map_err(|_| Rubbish::Short)
}

fn take_node(rest: &mut impl Buf) -> Result<NodeId, Rubbish> {
    rest.try_get_u128().map(NodeId).map_err(|_| Rubbish::Short)
}

fn take_identity(rest: &mut impl Buf) -> Result<Identity, Rubbish> {
    Ok(Identity { node: take_node(rest)?, renewal: take_u64(rest)? })
}

fn ended(rest: &[u8]) -> Result<(), Rubbish> {
    if rest.is_empty() { Ok(()) } else { Err(Rubbish::Long) }
}

/// foca's packets by the table above.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire;

impl Codec<Identity> for Wire {
    type Error = Rubbish;

    fn encode_header(
        &mut self,
        header: &Header<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Rubbish> {
        let (kind, probe_number, third) = match &header.message {
            Message::Ping(number) => (0, Some(*number), None),
            Message::Ack(number) => (1, Some(*number), None),
            Message::PingReq { target, probe_number } => (2, Some(*probe_number), Some(target)),
            Message::IndirectPing { origin, probe_number } => {
                (3, Some(*probe_number), Some(origin))
            }
            Message::IndirectAck { target, probe_number } => (4, Some(*probe_number), Some(target)),
            Message::ForwardedAck { origin, probe_number } => {
                (5, Some(*probe_number), Some(origin))
            }
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        // 51 for ends and lives, 1 for the number, 24 for somebody else.
        if buf.remaining_mut() < 76 {
            return Err(Rubbish::Long);
        }
        buf.put_u128(header.src.node.0);
        buf.put_u128(header.dst.node.0);
        buf.put_u8(kind);
        buf.put_u64(header.src.renewal);
        buf.put_u16(header.src_incarnation);
        buf.put_u64(header.dst.renewal);
        if let Some(number) = probe_number {
            buf.put_u8(number);
        }
        if let Some(third) = third {
            buf.put_u128(third.node.0);
            buf.put_u64(third.renewal);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, Rubbish> {
        let (src, dst) = (take_node(&mut buf)?, take_node(&mut buf)?);
        let kind = take_u8(&mut buf)?;
        let src = Identity { node: src, renewal: take_u64(&mut buf)? };
        let src_incarnation = take_u16(&mut buf)?;
        let dst = Identity { node: dst, renewal: take_u64(&mut buf)? };
        let probe_number = if kind <= 5 { take_u8(&mut buf)? } else { 0 };
        let message = match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: take_identity(&mut buf)?, probe_number },
            3 => Message::IndirectPing { origin: take_identity(&mut buf)?, probe_number },
            4 => Message::IndirectAck { target: take_identity(&mut buf)?, probe_number },
            5 => Message::ForwardedAck { origin: take_identity(&mut buf)?, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            10 => Message::TurnUndead,
            // 9 would be foca's custom broadcasts, which we do not use.
            other => return Err(Rubbish::Unknown(other)),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(
        &mut self,
        member: &Member<Identity>,
        mut buf: impl BufMut,
    ) -> Result<(), Rubbish> {
        if buf.remaining_mut() < 27 {
            return Err(Rubbish::Long);
        }
        buf.put_u128(member.id().node.0);
        buf.put_u64(member.id().renewal);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, Rubbish> {
        let identity = take_identity(&mut buf)?;
        let incarnation = take_u16(&mut buf)?;
        let state = match take_u8(&mut buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            other => return Err(Rubbish::Unknown(other)),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: NodeId = NodeId(7);
    const TO: NodeId = NodeId(9);

    fn identity() -> impl Strategy<Value = Identity> {
        (any::<u128>(), any::<u64>())
            .prop_map(|(node, renewal)| Identity { node: NodeId(node), renewal })
    }

    fn message() -> impl Strategy<Value = Message<Identity>> {
        (0..10, any::<u8>(), identity()).prop_map(|(kind, probe_number, other)| match kind {
            0 => Message::Ping(probe_number),
            1 => Message::Ack(probe_number),
            2 => Message::PingReq { target: other, probe_number },
            3 => Message::IndirectPing { origin: other, probe_number },
            4 => Message::IndirectAck { target: other, probe_number },
            5 => Message::ForwardedAck { origin: other, probe_number },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            _ => Message::TurnUndead,
        })
    }

    fn member() -> impl Strategy<Value = Member<Identity>> {
        let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
        (identity(), any::<u16>(), state).prop_map(|(id, inc, state)| Member::new(id, inc, state))
    }

    /// A packet as foca makes it.
    fn packet() -> impl Strategy<Value = (Vec<u8>, Vec<Member<Identity>>)> {
        let lives = (any::<u64>(), any::<u16>(), any::<u64>());
        let members = prop::collection::vec(member(), 0..30);
        (lives, message(), members).prop_map(|((ours, incarnation, theirs), message, members)| {
            let src = Identity { node: FROM, renewal: ours };
            let dst = Identity { node: TO, renewal: theirs };
            let header = Header { src, src_incarnation: incarnation, dst, message };
            let mut bytes = Vec::new();
            Wire.encode_header(&header, &mut bytes).unwrap();
            bytes.put_u16(members.len() as u16);
            for member in &members {
                Wire.encode_member(member, &mut bytes).unwrap();
            }
            (bytes, members)
        })
    }

    proptest! {
        #[test]
        fn what_foca_made_arrives_as_it_was((made, members) in packet()) {
            let (datagram, _) = to_wire(&made).unwrap();
            let Ok(Talk::Swim { updates, packet, .. }) = admit(FROM, TO, &datagram) else {
                panic!("{datagram:?}");
            };
            prop_assert_eq!(&updates, &members);
            prop_assert_eq!(packet.with(&updates).unwrap(), made);
        }

        #[test]
        fn a_datagram_cut_or_drawn_out_is_rubbish((made, _) in packet(), at in any::<usize>()) {
            let (datagram, _) = to_wire(&made).unwrap();
            for bytes in [&datagram[..at % datagram.len()], &[&datagram[..], &[0]].concat()] {
                // Only one thing that is cut is whole: a packet without any updates.
                let whole = admit(FROM, TO, bytes);
                let bare = matches!(&whole, Ok(Talk::Swim { packet, .. }) if !packet.has_updates);
                prop_assert!(whole.is_err() || bare, "{whole:?}");
            }
        }

        #[test]
        fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..1_200)) {
            if let Ok(Talk::Swim { updates, .. }) = admit(FROM, TO, &bytes) {
                prop_assert!(updates.len() <= DATAGRAM_BYTES_MAX / 27);
            }
        }

        #[test]
        fn questions_and_answers_arrive(renewal in any::<u64>(), incarnation in any::<u16>()) {
            let life = Life { renewal, incarnation };
            for suspected in [None, Some(life)] {
                let talk = admit(FROM, TO, &question(suspected));
                prop_assert_eq!(talk, Ok(Talk::Question(suspected)));
            }
            prop_assert_eq!(admit(FROM, TO, &answer(life)), Ok(Talk::Answer(life)));
        }
    }
}
