//! Frames: how records stand in a file, and how bytes that are not one are told from damage.
//!
//! A file is a header and then frames. A frame is 16 bytes and then its payload:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | kind (upper 4 bits) and length of the payload (lower 28) |
//! | 4 | CRC-32C of the payload |
//! | 4 | how far this file was known to be synced when the frame was written |
//! | 4 | CRC-32C of the directory's id, the file's number and kind, the frame's place, and all above |
//!
//! Numbers are little-endian. A kind of zero ends the file, since files are filled with zeros before
//! they are used.
//!
//! The header has a checksum of its own, so that finding the next frame after a bad one costs the
//! same for each byte, whatever the lengths there claim. It covers the frame's place: a frame from
//! another file, another place or another directory, such as one in the space of a deleted file or
//! inside a user's value, is no frame here.
//!
//! *How far it was synced* tells damage from a torn tail. After a power loss the pages written since
//! the last sync are there in any combination, so a bad record with valid ones after it may well be
//! an ordinary crash. But when a later frame says that the file was synced beyond the bad record, then
//! that record was whole on disk once, and perhaps acknowledged: that is damage.

use crc32c::{crc32c, crc32c_append};

/// The length of a frame without its payload.
pub(super) const FRAME_HEADER_BYTES: usize = 16;
/// The longest payload: the largest value (64 MiB) with what a record says about it.
pub const PAYLOAD_BYTES_MAX: usize = 72 << 20;
/// The length of the header of a file.
pub(super) const FILE_HEADER_BYTES: usize = 64;
/// The version of the format of segments and snapshots.
pub(super) const FILE_VERSION: u32 = 1;

const LENGTH_BITS: u32 = 28;
const LENGTH_MASK: u32 = (1 << LENGTH_BITS) - 1;
const _: () = assert!(PAYLOAD_BYTES_MAX <= LENGTH_MASK as usize, "a length fits its bits");

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of the caller.
    Data = 1,
    /// The end of a segment that was synced before the next one was begun, which exists.
    Rotated = 2,
    /// The end of a segment whose writer left in order, or that was cut there.
    Closed = 3,
    /// The end of a snapshot, with the number of its frames; of a backup, with more numbers.
    Footer = 4,
    /// What a backup says about itself.
    About = 5,
}

impl Kind {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Rotated,
            3 => Self::Closed,
            4 => Self::Footer,
            5 => Self::About,
            _ => return None,
        })
    }
}

/// The header of a frame that was found whole at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    pub(super) kind: Kind,
    pub(super) length: usize,
    pub(super) payload_crc: u32,
    pub(super) synced: u32,
}

/// What the checksums of all frames of a file begin with: the file's own name, so to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Salt(u32);

impl Salt {
    pub(super) fn new(file: FileKind, directory: [u8; 16], number: u64) -> Self {
        let crc = crc32c_append(crc32c(file.magic()), &directory);
        Self(crc32c_append(crc, &number.to_le_bytes()))
    }

    fn header_crc(self, offset: u64, first: [u8; 12]) -> u32 {
        let [a, b, c, d, e, f, g, h] = offset.to_le_bytes();
        let [i, j, k, l, m, n, o, p, q, r, s, t] = first;
        // One call: it is made for every byte of a damaged file.
        let all = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t];
        crc32c_append(self.0, &all)
    }
}

fn first_of(kind: Kind, length: u32, payload_crc: u32, synced: u32) -> [u8; 12] {
    let mut first = [0; 12];
    let words = [(kind as u32) << LENGTH_BITS | length, payload_crc, synced];
    for (place, word) in first.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    first
}

/// Appends a frame to a buffer. Its place is not known yet: [`stamp`] adds what depends on it.
///
/// # Panics
/// If the payload is longer than [`PAYLOAD_BYTES_MAX`].
pub(super) fn push(buffer: &mut Vec<u8>, kind: Kind, payload: &[u8], payload_crc: u32) {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a record of {} bytes", payload.len());
    buffer.reserve(FRAME_HEADER_BYTES + payload.len());
    buffer.extend(first_of(kind, payload.len() as u32, payload_crc, 0));
    buffer.extend([0; 4]);
    buffer.extend_from_slice(payload);
}

/// Makes a frame of a payload where it is, as [`push`] makes it of a copy.
///
/// # Panics
/// As [`push`].
pub(super) fn enclose(mut payload: Vec<u8>, kind: Kind, payload_crc: u32) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a record of {} bytes", payload.len());
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..12].copy_from_slice(&first_of(kind, payload.len() as u32, payload_crc, 0));
    payload.splice(0..0, header);
    payload
}

/// The length, header included, of the frame that [`push`] left at the start of a buffer.
pub(super) fn pushed_bytes(buffer: &[u8]) -> usize {
    let word = buffer.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
    FRAME_HEADER_BYTES + (word & LENGTH_MASK) as usize
}

/// Completes the header of a frame for its place in a file.
pub(super) fn stamp(frame: &mut [u8], salt: Salt, offset: u64, synced: u32) {
    let (header, _) = frame.split_first_chunk_mut::<16>().expect("push has made a whole header");
    let (first, crc) = header.split_first_chunk_mut::<12>().expect("12 of 16 bytes");
    first[8..].copy_from_slice(&synced.to_le_bytes());
    crc.copy_from_slice(&salt.header_crc(offset, *first).to_le_bytes());
}

/// A whole frame for its place, for short ones.
pub(super) fn whole(kind: Kind, payload: &[u8], salt: Salt, offset: u64, synced: u32) -> Vec<u8> {
    let mut frame = Vec::new();
    push(&mut frame, kind, payload, crc32c(payload));
    stamp(&mut frame, salt, offset, synced);
    frame
}

/// The header at the start of `bytes`, which stand at `offset` of their file, if it is whole there.
pub(super) fn header_at(bytes: &[u8], salt: Salt, offset: u64) -> Option<FrameHeader> {
    let (header, _) = bytes.split_first_chunk::<16>()?;
    let (first, crc) = header.split_first_chunk::<12>()?;
    let word = |at: usize| first.get(at..at + 4)?.first_chunk().map(|it| u32::from_le_bytes(*it));
    let (start, payload_crc, synced) = (word(0)?, word(4)?, word(8)?);
    // Cheap and rarely true of what is no header, hence before the checksum.
    let kind = Kind::from_number(start >> LENGTH_BITS)?;
    let length = (start & LENGTH_MASK) as usize;
    if length > PAYLOAD_BYTES_MAX || u64::from(synced) > offset {
        return None;
    }
    let whole = *crc == salt.header_crc(offset, *first).to_le_bytes();
    whole.then_some(FrameHeader { kind, length, payload_crc, synced })
}

/// What stands at one place of a file that is all in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A whole frame.
    Frame(Kind, &'a [u8]),
    /// Nothing: the file ends here, or a zero says so.
    End,
    /// Something that is no whole frame.
    Bad(&'static str),
}

/// What stands at `offset` of a file. Never reads beyond the bytes that are there.
pub(super) fn read_at(file: &[u8], salt: Salt, offset: usize) -> Found<'_> {
    let rest = file.get(offset..).unwrap_or_default();
    if rest.iter().take(FRAME_HEADER_BYTES).all(|byte| *byte == 0) {
        return Found::End;
    }
    let Some(header) = header_at(rest, salt, offset as u64) else {
        return Found::Bad("no valid record begins here");
    };
    let payload = rest.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.length);
    match payload {
        Some(payload) if crc32c(payload) == header.payload_crc => {
            Found::Frame(header.kind, payload)
        }
        Some(_) => Found::Bad("the record that begins here has a wrong checksum"),
        None => Found::Bad("the file ends inside the record that begins here"),
    }
}

/// The first place after `from` where a whole header stands that is as wanted. Linear.
pub(super) fn find_header(
    file: &[u8],
    salt: Salt,
    from: usize,
    mut wanted: impl FnMut(&FrameHeader) -> bool,
) -> Option<usize> {
    (from..file.len().saturating_sub(FRAME_HEADER_BYTES - 1)).find(|at| {
        let rest = file.get(*at..).unwrap_or_default();
        header_at(rest, salt, *at as u64).is_some_and(|header| wanted(&header))
    })
}

/// The kinds of file that hold frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    Snapshot,
    Backup,
}

impl FileKind {
    pub(super) fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Segment => b"QRMRsegm",
            Self::Snapshot => b"QRMRsnap",
            Self::Backup => b"QRMRback",
        }
    }
}

/// What the header of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) kind: FileKind,
    pub(super) directory: [u8; 16],
    pub(super) number: u64,
    /// Records were discarded before this segment: without a snapshot begun later it is of no use.
    pub(super) after_gap: bool,
}

/// Why the header of a file is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged,
    Newer(u32),
    Mixed,
}

const AFTER_GAP: u32 = 1;

impl FileHeader {
    pub(super) fn salt(&self) -> Salt {
        Salt::new(self.kind, self.directory, self.number)
    }

    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let flags = if self.after_gap { AFTER_GAP } else { 0 };
        let mut bytes = Vec::with_capacity(FILE_HEADER_BYTES);
        bytes.extend(self.kind.magic());
        bytes.extend(FILE_VERSION.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.directory);
        bytes.resize(FILE_HEADER_BYTES - 4, 0);
        bytes.extend(crc32c(&bytes).to_le_bytes());
        bytes.try_into().expect("resized to it")
    }

    /// Reads the header of a file that should be of this kind, directory and number. What follows
    /// the version may change with it, but the checksum stays where it is.
    pub(super) fn decode(
        file: &[u8],
        kind: FileKind,
        directory: [u8; 16],
        number: u64,
    ) -> Result<Self, BadHeader> {
        let header = Self::decode_any(file, kind)?;
        match (header.number, header.directory) == (number, directory) {
            true => Ok(header),
            false => Err(BadHeader::Mixed),
        }
    }

    /// Reads the header of a file of this kind, whatever directory and number it has.
    pub(super) fn decode_any(file: &[u8], kind: FileKind) -> Result<Self, BadHeader> {
        let header = file.first_chunk::<FILE_HEADER_BYTES>().ok_or(BadHeader::Damaged)?;
        let (body, crc) = header.split_last_chunk::<4>().ok_or(BadHeader::Damaged)?;
        if crc32c(body).to_le_bytes() != *crc || body.first_chunk() != Some(kind.magic()) {
            return Err(BadHeader::Damaged);
        }
        let word = |at: usize| {
            let bytes = body.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
        };
        let (version, flags) = (word(8), word(12));
        if version > FILE_VERSION {
            return Err(BadHeader::Newer(version));
        }
        let number = body.get(16..24).and_then(|bytes| bytes.first_chunk());
        let directory = body.get(24..40).and_then(|bytes| bytes.first_chunk());
        let (Some(number), Some(directory)) = (number, directory) else {
            return Err(BadHeader::Damaged);
        };
        let (number, directory) = (u64::from_le_bytes(*number), *directory);
        Ok(Self { kind, directory, number, after_gap: flags & AFTER_GAP != 0 })
    }
}
