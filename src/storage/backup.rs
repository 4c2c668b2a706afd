//! Backups: the records of a shard as one stream that proves that it is whole.
//!
//! A backup goes through pipes and lies in files of people, so it stands for itself: no directory, no
//! file of ours beside it. It is a header of 64 bytes and then frames, as in a snapshot (`frame`):
//!
//! | what | kind | payload |
//! |---|---|---|
//! | whose it is | about | JSON, for the eye as well: cluster, node, version, time |
//! | pieces | data | records, one behind the other |
//! | the end | footer | the numbers of pieces, of cells and of bytes before it |
//!
//! The header has a random id in place of the directory's. The checksums of all frames begin with it
//! and with their place, so that a frame of another backup, or in another place, is none. A stream
//! that ends before its footer is cut off, and says so.
//!
//! [`BackupWriter`] makes the bytes and [`BackupReader`] takes them apart, in whatever portions they
//! come; neither touches a file, and neither holds more than one frame.

use crc32c::crc32c;

use super::frame::{
    self, BadHeader, FILE_HEADER_BYTES, FILE_VERSION, FRAME_HEADER_BYTES, FileHeader, FileKind,
    FrameHeader, Kind, PAYLOAD_BYTES_MAX, Salt,
};

/// The longest description of a backup.
const ABOUT_BYTES_MAX: usize = 64 * 1024;

/// The length of the footer's payload.
const FOOTER_BYTES: usize = 24;

/// Why a stream is not a whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// It does not begin like one.
    #[error("this is not a backup of quorumor")]
    Foreign,
    /// A newer version of this program has made it.
    #[error(
        "the backup has format {found}, this program knows formats up to {known}: use the newer \
         program that made it"
    )]
    NewerFormat {
        /// The format that it has.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// Bytes are not what was written.
    #[error("the backup is damaged at byte {offset}: {what}; use another copy")]
    Damaged {
        /// Where the header or frame begins that cannot be read.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// It ends before its footer.
    #[error("the backup is cut off after {bytes} bytes: its end is missing; use another copy")]
    Truncated {
        /// How many bytes there are.
        bytes: u64,
    },
    /// Something follows its footer.
    #[error("the backup ends at byte {offset}, but more bytes follow; use another copy")]
    Surplus {
        /// Where it ends.
        offset: u64,
    },
}

/// What a whole backup has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupSummary {
    /// How many pieces.
    pub pieces: u64,
    /// How many cells, as its writer counted them.
    pub cells: u64,
    /// How many bytes altogether.
    pub bytes: u64,
}

/// A part of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPart {
    /// What it says about itself, in JSON; comes first.
    About(Vec<u8>),
    /// Records.
    Records(Vec<u8>),
    /// The end.
    End(BackupSummary),
}

/// Makes the bytes of a backup.
#[derive(Debug)]
pub struct BackupWriter {
    salt: Salt,
    summary: BackupSummary,
}

impl BackupWriter {
    /// Begins a backup; the bytes are its first. `id` is random.
    ///
    /// # Panics
    /// If `about` is longer than 64 KiB.
    pub fn begin(id: [u8; 16], about: &[u8]) -> (Self, Vec<u8>) {
        assert!(about.len() <= ABOUT_BYTES_MAX, "a description of {} bytes", about.len());
        let header =
            FileHeader { kind: FileKind::Backup, directory: id, number: 0, after_gap: false };
        let mut bytes = header.encode().to_vec();
        let bytes_before = bytes.len() as u64;
        let summary = BackupSummary { bytes: bytes_before, ..BackupSummary::default() };
        let mut writer = Self { salt: header.salt(), summary };
        bytes.extend(writer.frame(Kind::About, about));
        (writer, bytes)
    }

    /// The bytes of the next piece, which has so many cells.
    ///
    /// # Panics
    /// If the piece is longer than [`PAYLOAD_BYTES_MAX`].
    pub fn piece(&mut self, records: &[u8], cells: u64) -> Vec<u8> {
        self.summary.pieces += 1;
        self.summary.cells += cells;
        self.frame(Kind::Data, records)
    }

    /// The last bytes, and what it all comes to.
    pub fn end(mut self) -> (Vec<u8>, BackupSummary) {
        let BackupSummary { pieces, cells, bytes } = self.summary;
        let numbers = [pieces, cells, bytes].map(u64::to_le_bytes).concat();
        let frame = self.frame(Kind::Footer, &numbers);
        (frame, self.summary)
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let frame = frame::whole(kind, payload, self.salt, self.summary.bytes, 0);
        self.summary.bytes += frame.len() as u64;
        frame
    }
}

/// Takes a backup apart, in whatever portions its bytes come.
#[derive(Debug, Default)]
pub struct BackupReader {
    /// What came and was not read yet.
    buffer: Vec<u8>,
    /// Where the buffer begins in the backup.
    offset: u64,
    salt: Option<Salt>,
    has_about: bool,
    seen: BackupSummary,
    ended: bool,
}

impl BackupReader {
    /// At the beginning of a backup.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes have been read and found to be right.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Adds the next bytes. Take what they complete out with [`Self::next_part`] before adding more,
    /// or they pile up.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part that is there as a whole.
    ///
    /// # Errors
    /// When the bytes are not those of a backup; there is nothing more to be had from it then.
    pub fn next_part(&mut self) -> Result<Option<BackupPart>, BackupError> {
        let Some(salt) = self.salt else {
            if !self.read_header()? {
                return Ok(None);
            }
            return self.next_part();
        };
        if self.ended {
            return match self.buffer.is_empty() {
                true => Ok(None),
                false => Err(BackupError::Surplus { offset: self.offset }),
            };
        }
        if self.buffer.len() < FRAME_HEADER_BYTES {
            return Ok(None);
        }
        let damaged = |what| BackupError::Damaged { offset: self.offset, what };
        let header = frame::header_at(&self.buffer, salt, self.offset)
            .ok_or_else(|| damaged("no valid piece begins here"))?;
        let most = match header.kind {
            Kind::About => ABOUT_BYTES_MAX,
            Kind::Footer => FOOTER_BYTES,
            _ => PAYLOAD_BYTES_MAX,
        };
        if header.length > most {
            return Err(damaged("the piece that begins here is longer than any"));
        }
        let length = FRAME_HEADER_BYTES + header.length;
        let Some(frame) = self.buffer.get(..length) else {
            return Ok(None);
        };
        let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        if crc32c(payload) != header.payload_crc {
            return Err(damaged("the piece that begins here has a wrong checksum"));
        }
        let payload = payload.to_vec();
        let part = self.part(header, payload)?;
        self.buffer.drain(..length);
        self.offset += length as u64;
        if let BackupPart::End(summary) = &part {
            let bytes = self.offset;
            return Ok(Some(BackupPart::End(BackupSummary { bytes, ..*summary })));
        }
        Ok(Some(part))
    }

    /// Says that no more bytes come.
    ///
    /// # Errors
    /// When the backup has not come to its end.
    pub fn finish(&self) -> Result<(), BackupError> {
        match self.ended {
            true => Ok(()),
            false if self.salt.is_none() && self.buffer.is_empty() => Err(BackupError::Foreign),
            false if !self.begins_well() => Err(BackupError::Foreign),
            false => Err(BackupError::Truncated { bytes: self.offset + self.buffer.len() as u64 }),
        }
    }

    /// Whether what is there could become the beginning of a backup.
    fn begins_well(&self) -> bool {
        let magic = FileKind::Backup.magic();
        let length = magic.len().min(self.buffer.len());
        self.salt.is_some() || self.buffer.get(..length) == magic.get(..length)
    }

    fn read_header(&mut self) -> Result<bool, BackupError> {
        if !self.begins_well() {
            return Err(BackupError::Foreign);
        }
        if self.buffer.len() < FILE_HEADER_BYTES {
            return Ok(false);
        }
        let what = "its header has a wrong checksum";
        let header = FileHeader::decode_any(&self.buffer, FileKind::Backup);
        let header = header.map_err(|bad| match bad {
            BadHeader::Newer(found) => BackupError::NewerFormat { found, known: FILE_VERSION },
            _ => BackupError::Damaged { offset: 0, what },
        })?;
        self.salt = Some(header.salt());
        self.buffer.drain(..FILE_HEADER_BYTES);
        self.offset = FILE_HEADER_BYTES as u64;
        Ok(true)
    }

    fn part(&mut self, header: FrameHeader, payload: Vec<u8>) -> Result<BackupPart, BackupError> {
        let damaged = |what| BackupError::Damaged { offset: self.offset, what };
        match (header.kind, self.has_about) {
            (Kind::About, false) => {
                self.has_about = true;
                Ok(BackupPart::About(payload))
            }
            (Kind::Data, true) => {
                self.seen.pieces += 1;
                Ok(BackupPart::Records(payload))
            }
            (Kind::Footer, true) => {
                let mut numbers = payload.chunks_exact(8).map(|number| {
                    number.first_chunk().map_or(0, |number| u64::from_le_bytes(*number))
                });
                let (pieces, cells, bytes) = (numbers.next(), numbers.next(), numbers.next());
                if pieces != Some(self.seen.pieces) || bytes != Some(self.offset) {
                    return Err(damaged("its end does not fit what came before"));
                }
                self.ended = true;
                let cells = cells.unwrap_or_default();
                Ok(BackupPart::End(BackupSummary { cells, ..self.seen }))
            }
            _ => Err(damaged("a piece that does not belong here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small backup, with where its frames begin.
    fn backup(id: u8) -> (Vec<u8>, Vec<usize>) {
        let (mut writer, mut bytes) = BackupWriter::begin([id; 16], b"{\"cluster\":\"c\"}");
        let mut begins = vec![FILE_HEADER_BYTES];
        for piece in [&b"one"[..], b"", &[7; 40]] {
            begins.push(bytes.len());
            bytes.extend(writer.piece(piece, 2));
        }
        begins.push(bytes.len());
        let (end, summary) = writer.end();
        bytes.extend(end);
        assert_eq!((summary.pieces, summary.cells, summary.bytes), (3, 6, bytes.len() as u64));
        (bytes, begins)
    }

    /// Reads it in portions of this length.
    fn read(bytes: &[u8], portion: usize) -> Result<Vec<BackupPart>, BackupError> {
        let mut reader = BackupReader::new();
        let mut parts = Vec::new();
        for portion in bytes.chunks(portion.max(1)) {
            reader.push(portion);
            while let Some(part) = reader.next_part()? {
                parts.push(part);
            }
        }
        reader.finish()?;
        Ok(parts)
    }

    /// In whatever portions it comes, it is what was written.
    #[test]
    fn a_backup_is_read_in_any_portions() {
        let (bytes, _) = backup(1);
        let whole = read(&bytes, bytes.len()).unwrap();
        let end = BackupSummary { pieces: 3, cells: 6, bytes: bytes.len() as u64 };
        let expected = [
            BackupPart::About(b"{\"cluster\":\"c\"}".to_vec()),
            BackupPart::Records(b"one".to_vec()),
            BackupPart::Records(Vec::new()),
            BackupPart::Records(vec![7; 40]),
            BackupPart::End(end),
        ];
        assert_eq!(whole, expected);
        for portion in 1..bytes.len() {
            assert_eq!(read(&bytes, portion).as_ref(), Ok(&whole), "{portion}");
        }
    }

    /// Cut at any byte, it is cut off; of nothing but a beginning of ours.
    #[test]
    fn every_cut_is_noticed() {
        let (bytes, _) = backup(1);
        assert_eq!(read(&[], 1), Err(BackupError::Foreign));
        for length in 1..bytes.len() {
            let cut = read(&bytes[..length], 7);
            assert_eq!(cut, Err(BackupError::Truncated { bytes: length as u64 }), "{length}");
        }
        let longer = [&bytes[..], b"\n"].concat();
        assert_eq!(read(&longer, 9), Err(BackupError::Surplus { offset: bytes.len() as u64 }));
    }

    /// Whatever bit is flipped, it is noticed, and the place is that of the frame that has it.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let (bytes, begins) = backup(1);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let begin = begins.iter().rev().find(|begin| **begin <= bit / 8).copied();
            match read(&bad, 11).unwrap_err() {
                BackupError::Foreign => assert!(bit / 8 < 8, "{bit}"),
                BackupError::Damaged { offset, .. } => {
                    assert_eq!(offset, begin.unwrap_or(0) as u64, "{bit}");
                }
                other => panic!("{bit}: {other}"),
            }
        }
    }

    /// Frames that were left out, doubled, moved, or come from another backup are noticed.
    #[test]
    fn frames_stay_where_they_are() {
        let (bytes, begins) = backup(1);
        let (other, _) = backup(2);
        let (first, second) = (begins[1]..begins[2], begins[2]..begins[3]);
        let without = [&bytes[..second.start], &bytes[second.end..]].concat();
        let doubled = [&bytes[..second.end], &bytes[second.clone()], &bytes[second.end..]].concat();
        let moved = [
            &bytes[..first.start],
            &bytes[second.clone()],
            &bytes[first.clone()],
            &bytes[second.end..],
        ];
        let moved = moved.concat();
        let mixed = [&bytes[..first.start], &other[first.start..]].concat();
        for bad in [without, doubled, moved, mixed] {
            assert!(matches!(read(&bad, 64), Err(BackupError::Damaged { .. })));
        }
    }

    /// What a newer program made is told from damage.
    #[test]
    fn a_newer_format_is_told() {
        let (mut bytes, _) = backup(1);
        bytes[8..12].copy_from_slice(&9u32.to_le_bytes());
        let crc = crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
        bytes[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        let newer = BackupError::NewerFormat { found: 9, known: FILE_VERSION };
        assert_eq!(read(&bytes, 5), Err(newer));
    }
}
