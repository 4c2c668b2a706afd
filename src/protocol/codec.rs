//! Messages as bytes: a checksum, then MessagePack.
//!
//! QUIC protects bytes on their way; the checksum also covers memory, buses and our own mistakes,
//! so that a flipped bit is a dropped message and not a version vector that claims what was never
//! received. Structs are encoded as arrays, without names.
//!
//! Decoding allocates no more than a small multiple of the bytes that are really there, whatever
//! lengths they claim, and does not go deeper than a message is.

use std::io::{Result as Written, Write};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::message::{Envelope, WIRE_VERSION};

/// The levels of nesting that a message can have, with room to spare.
pub(super) const DEPTH_MAX: usize = 24;

/// The bytes of the checksum before the message.
const CHECKSUM_BYTES: usize = 4;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The checksum does not match, or there is none.
    #[error("a message of {bytes} bytes is damaged: its checksum does not match")]
    Damaged {
        /// The length of the frame.
        bytes: usize,
    },
    /// The bytes are whole but not what this version understands.
    #[error("a message cannot be decoded: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Something follows the message.
    #[error("a message is followed by bytes that do not belong to it")]
    Surplus,
    /// The sender speaks another version.
    #[error("a message has format version {theirs}, this node speaks {WIRE_VERSION}")]
    Version {
        /// The sender's version.
        theirs: u8,
    },
}

/// The bytes of a message, as one frame.
pub fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CHECKSUM_BYTES + envelope.message.bytes());
    bytes.extend([0; CHECKSUM_BYTES]);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes);
    envelope.serialize(&mut serializer).expect("a message in memory can be encoded");
    let checksum = checksum(&bytes[CHECKSUM_BYTES..]);
    bytes[..CHECKSUM_BYTES].copy_from_slice(&checksum);
    bytes
}

/// How many bytes [`encode`] makes of a message, without making them.
pub fn encoded_bytes(envelope: &Envelope) -> usize {
    /// Takes everything and keeps only its length.
    struct Length(usize);

    impl Write for Length {
        fn write(&mut self, bytes: &[u8]) -> Written<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Written<()> {
            Ok(())
        }
    }

    let mut length = Length(CHECKSUM_BYTES);
    let mut serializer = rmp_serde::Serializer::new(&mut length);
    envelope.serialize(&mut serializer).expect("a message in memory can be encoded");
    length.0
}

/// The message in a frame.
///
/// # Errors
/// The sender's fault, or damage; the frame is to be dropped and counted.
pub fn decode(frame: &[u8]) -> Result<Envelope, DecodeError> {
    let Some((theirs, bytes)) = frame.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(DecodeError::Damaged { bytes: frame.len() });
    };
    if *theirs != checksum(bytes) {
        return Err(DecodeError::Damaged { bytes: frame.len() });
    }
    // An array of five whose first element is the version, whatever the rest has become.
    if let [_, version @ 0..=0x7f, ..] = bytes
        && *version != WIRE_VERSION
    {
        return Err(DecodeError::Version { theirs: *version });
    }
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH_MAX);
    let envelope = Envelope::deserialize(&mut deserializer)?;
    // The decoder does not say how far it has come, but reading on must find the end.
    match u8::deserialize(&mut deserializer) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(envelope),
        _ => Err(DecodeError::Surplus),
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = XxHash3_64::oneshot(bytes).to_le_bytes();
    [hash[0], hash[1], hash[2], hash[3]]
}
