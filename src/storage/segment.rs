//! Segments: the files of the journal, how they are made, filled and read.
//!
//! A segment is filled with zeros and synced before it gets its name, so that writing into it later
//! changes nothing but its content: a sync is then one write to the disk and not three, which
//! measured two and a half times faster than allocated but unwritten space.
//!
//! A segment ends in one of four ways. With a frame that says so: [`Kind::Rotated`] means that the
//! next one exists, [`Kind::Closed`] that its writer left in order or that it was cut there. With
//! zeros: its writer was killed. With a *torn tail*: bytes that are no record, written after the last
//! sync. Anything else is *damage*: a record that cannot be read although a later one says that it
//! was synced. [`scan`] tells these apart; see `frame` for how.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::directory::{Directory, create_private, sync_directory, with_new_suffix};
use super::error::StorageError;
use super::frame::{
    self, FILE_HEADER_BYTES, FRAME_HEADER_BYTES, FileHeader, FileKind, Found, Kind, Salt,
};

/// Zeros are written this many at a time.
const ZEROS: usize = 1 << 20;
/// Room that is kept in every segment for the frame that ends it.
const END_BYTES: usize = FRAME_HEADER_BYTES;
/// What a segment needs beside the frames.
pub(super) const SEGMENT_OVERHEAD_BYTES: usize = FILE_HEADER_BYTES + END_BYTES;

/// The name of a segment.
pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("segment-{number:012}"))
}

/// The name of a snapshot.
pub(super) fn snapshot_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("snapshot-{number:012}"))
}

/// The number in a name that [`segment_path`] or [`snapshot_path`] could have given.
pub(super) fn number_in(name: &str, prefix: &str) -> Option<u64> {
    let number = name.strip_prefix(prefix)?.parse().ok()?;
    (name == format!("{prefix}{number:012}")).then_some(number)
}

/// A segment that is being filled.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    salt: Salt,
    /// How long the file is.
    pub(super) bytes: usize,
    /// Where the next frame goes.
    used: usize,
    /// Up to where it was synced.
    synced: usize,
}

impl Segment {
    /// Makes a segment with room for `bytes` and gives it its name, in place of any that had it.
    pub(super) fn create(
        directory: &Directory,
        number: u64,
        bytes: usize,
        after_gap: bool,
    ) -> Result<Self, StorageError> {
        let path = segment_path(directory.path(), number);
        let kind = FileKind::Segment;
        let header = FileHeader { kind, directory: directory.id(), number, after_gap };
        let temporary = with_new_suffix(&path);
        let file = create_private(&temporary)?;
        let result = fill(&file, &header, bytes)
            .map_err(|source| StorageError::io("write", &path, source))
            .and_then(|()| {
                fs::rename(&temporary, &path)
                    .map_err(|source| StorageError::io("rename", &path, source))
            })
            .and_then(|()| sync_directory(directory.path()));
        if let Err(error) = result {
            // It holds nothing; what cannot be removed is removed at the next start.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        let used = FILE_HEADER_BYTES;
        Ok(Self { file, path, number, salt: header.salt(), bytes, used, synced: used })
    }

    #[cfg(test)]
    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == FILE_HEADER_BYTES
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Writes the frames at the start of `buffer`, as [`frame::push`] left them, as many as fit.
    /// Returns how many frames and how many bytes that were.
    pub(super) fn write(&mut self, buffer: &mut [u8]) -> io::Result<(u64, usize)> {
        let (mut frames, mut bytes) = (0, 0);
        while let Some(rest) = buffer.get_mut(bytes..).filter(|rest| !rest.is_empty()) {
            let length = frame::pushed_bytes(rest);
            if length > self.bytes.saturating_sub(self.used + bytes + END_BYTES) {
                break;
            }
            frame::stamp(rest, self.salt, (self.used + bytes) as u64, self.synced as u32);
            frames += 1;
            bytes += length;
        }
        self.file.write_all(buffer.get(..bytes).unwrap_or_default())?;
        self.used += bytes;
        Ok((frames, bytes))
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = self.used;
        Ok(())
    }

    /// Ends the segment, gives back the room that it did not need, and syncs it. What was written
    /// must have been synced, since the end says so. Returns how long the file is now.
    pub(super) fn end(&mut self, kind: Kind) -> io::Result<usize> {
        assert_eq!(self.synced, self.used, "an end vouches for all before it");
        let end = frame::whole(kind, &[], self.salt, self.used as u64, self.synced as u32);
        self.file.write_all(&end)?;
        self.used += end.len();
        self.file.set_len(self.used as u64)?;
        self.bytes = self.used;
        self.sync()?;
        Ok(self.bytes)
    }
}

fn fill(mut file: &File, header: &FileHeader, bytes: usize) -> io::Result<()> {
    let header = header.encode();
    file.write_all(&header)?;
    let zeros = vec![0; ZEROS.min(bytes)];
    let mut left = bytes.saturating_sub(header.len());
    while left > 0 {
        let piece = zeros.get(..left).unwrap_or(&zeros);
        file.write_all(piece)?;
        left -= piece.len();
    }
    file.sync_all()?;
    io::Seek::seek(&mut file, io::SeekFrom::Start(header.len() as u64))?;
    Ok(())
}

/// How a segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// With a frame that says so.
    Ended(Kind),
    /// With zeros, or the end of the file.
    Open,
    /// With bytes that are no record and that nothing vouches for.
    Torn,
    /// With a record that cannot be read and that was synced.
    Damaged(&'static str),
}

/// What [`scan`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) frames: u64,
    /// Where the frames end: right after the end frame if there is one.
    pub(super) at: usize,
    pub(super) ending: Ending,
}

/// Reads the frames of a segment in order up to where they end, and says how that is.
pub(super) fn scan<E>(
    file: &[u8],
    salt: Salt,
    mut visit: impl FnMut(usize, &[u8]) -> Result<(), E>,
) -> Result<Scan, E> {
    let (mut at, mut frames) = (FILE_HEADER_BYTES, 0);
    let ending = loop {
        match frame::read_at(file, salt, at) {
            Found::Frame(Kind::Data, payload) => {
                visit(at, payload)?;
                at += FRAME_HEADER_BYTES + payload.len();
                frames += 1;
            }
            Found::Frame(kind @ (Kind::Rotated | Kind::Closed), _) => {
                at += FRAME_HEADER_BYTES;
                break Ending::Ended(kind);
            }
            Found::Frame(Kind::Footer | Kind::About, _) => {
                break Ending::Damaged("no segment has such a record");
            }
            Found::End => break tail(file, salt, at, "there is no record where one must be"),
            Found::Bad(what) => break tail(file, salt, at, what),
        }
    };
    Ok(Scan { frames, at, ending })
}

/// What it means that no record can be read at `at`.
fn tail(file: &[u8], salt: Salt, at: usize, what: &'static str) -> Ending {
    let rest = file.get(at..).unwrap_or_default();
    if is_zero(rest) {
        return Ending::Open;
    }
    let vouched = frame::find_header(file, salt, at + 1, |header| header.synced as usize > at);
    if vouched.is_some() { Ending::Damaged(what) } else { Ending::Torn }
}

/// Whether there is nothing but zeros.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    // Large pieces first: this is most of a segment.
    let mut pieces = bytes.chunks_exact(64);
    pieces.all(|piece| piece == [0; 64]) && pieces.remainder().iter().all(|byte| *byte == 0)
}
