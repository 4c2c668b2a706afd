//! Snapshots: the whole state in one file, so that the journal before it can go.
//!
//! [`Journal::begin_snapshot`] goes over to a new segment k and hands out a [`SnapshotWriter`].
//! Whoever holds the state writes it, piece by piece, while new records go to segment k and later. A
//! piece may show the effect of a record that is in segment k as well: applying it again must change
//! nothing. [`SnapshotWriter::finish`] first waits until every record that a piece may show is
//! durable, or else a crash could leave a state in which a later record is in and an earlier one is
//! not. Then the file is ended, synced and given its name, and what it replaces is removed.
//!
//! A crash at any moment leaves the old state usable: the file has a temporary name until it is
//! whole, and what it replaces goes only after its name is durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crc32c::crc32c;

use super::directory::{create_private, file_names, sync_directory, with_new_suffix};
use super::error::{Rejected, Stopped, StorageError};
use super::frame::{
    self, BadHeader, FILE_HEADER_BYTES, FILE_VERSION, FRAME_HEADER_BYTES, FileHeader, FileKind,
    Kind, Salt,
};
use super::journal::{Journal, Position};
use super::recovery::{Skipped, note};
use super::segment::{number_in, snapshot_path};
use super::window::Window;

/// Frames are gathered up to this many bytes before they are written.
const BUFFER_BYTES: usize = 1 << 20;
/// After this many bytes the file is synced: were it all left to the end, the syncs of the journal
/// would wait behind it.
const SYNC_EVERY_BYTES: u64 = 8 << 20;
/// The name of the folder for what was damaged, but for its number.
const DAMAGED_PREFIX: &str = "damaged-";

/// A snapshot that is being written. Dropping it gives it up and leaves everything as it was.
#[derive(Debug)]
pub struct SnapshotWriter {
    journal: Journal,
    path: PathBuf,
    temporary: PathBuf,
    file: File,
    number: u64,
    salt: Salt,
    /// How often records had been discarded when it was begun.
    gaps: u64,
    buffer: Vec<u8>,
    /// Where the buffer will be in the file.
    offset: u64,
    synced: u64,
    frames: u64,
    finished: bool,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// The segment from which on the journal completes it.
    pub number: u64,
    /// How many pieces it has.
    pub frames: u64,
    /// The length of its file.
    pub bytes: u64,
}

impl SnapshotWriter {
    pub(super) fn create(journal: Journal, number: u64, gaps: u64) -> Result<Self, StorageError> {
        let directory = journal.directory();
        let path = snapshot_path(directory.path(), number);
        let temporary = with_new_suffix(&path);
        let kind = FileKind::Snapshot;
        let header = FileHeader { kind, directory: directory.id(), number, after_gap: false };
        let file = create_private(&temporary)?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES);
        buffer.extend(header.encode());
        let salt = header.salt();
        Ok(Self {
            journal,
            path,
            temporary,
            file,
            number,
            salt,
            gaps,
            buffer,
            offset: 0,
            synced: 0,
            frames: 0,
            finished: false,
        })
    }

    /// Adds a piece of the state.
    ///
    /// # Errors
    /// When it cannot be written; the snapshot is to be dropped then.
    ///
    /// # Panics
    /// If the piece is longer than [`PAYLOAD_BYTES_MAX`](super::PAYLOAD_BYTES_MAX).
    pub fn write(&mut self, piece: &[u8]) -> Result<(), StorageError> {
        self.push(Kind::Data, piece);
        self.frames += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Completes the snapshot: waits until all that was appended so far is durable, makes the file
    /// durable under its name, and removes the segments and snapshots that it replaces. Blocks.
    ///
    /// # Errors
    /// When records were discarded since it was begun, when the journal has failed or was closed, or
    /// when the file cannot be written. The old state is as it was then.
    pub fn finish(mut self) -> Result<Snapshot, StorageError> {
        self.flush()?;
        self.journal.wait_written(self.journal.appended(), self.gaps)?;
        let footer = [self.frames.to_le_bytes(), self.offset.to_le_bytes()].concat();
        self.push(Kind::Footer, &footer);
        self.flush()?;
        self.file.sync_all().map_err(|source| StorageError::io("sync", &self.temporary, source))?;
        fs::rename(&self.temporary, &self.path)
            .map_err(|source| StorageError::io("rename", &self.path, source))?;
        self.finished = true;
        sync_directory(self.journal.directory().path())?;
        self.journal.covered(self.number, self.offset, self.gaps)?;
        Ok(Snapshot { number: self.number, frames: self.frames, bytes: self.offset })
    }

    fn push(&mut self, kind: Kind, payload: &[u8]) {
        let begin = self.buffer.len();
        frame::push(&mut self.buffer, kind, payload, crc32c(payload));
        let offset = self.offset + begin as u64;
        let frame = self.buffer.get_mut(begin..).unwrap_or_default();
        frame::stamp(frame, self.salt, offset, 0);
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let io_error = |source: io::Error| StorageError::io("write", &self.temporary, source);
        self.file.write_all(&self.buffer).map_err(io_error)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES);
        if self.offset - self.synced >= SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(io_error)?;
            self.synced = self.offset;
        }
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            // If it cannot be removed now, it is removed at the next start.
            let _ = fs::remove_file(&self.temporary);
        }
        self.journal.snapshot_ended();
    }
}

impl Journal {
    /// Begins a snapshot of the state. Blocks until the journal has gone over to a new segment:
    /// records appended from now on are not replaced by the snapshot. The state that is then written
    /// must show all records that had been appended when this returned.
    ///
    /// # Errors
    /// When one is being written already, when the journal takes nothing now, or when the file
    /// cannot be made.
    pub fn begin_snapshot(&self) -> Result<SnapshotWriter, StorageError> {
        self.snapshot_begun()?;
        let begun = self.rotate().map_err(StorageError::from).and_then(|(number, gaps)| {
            // From here on dropping the writer says that it has ended.
            SnapshotWriter::create(self.unguarded(), number, gaps)
        });
        if begun.is_err() {
            self.snapshot_ended();
        }
        begun
    }

    /// Waits until everything up to a position is on disk, with nothing discarded meanwhile.
    fn wait_written(&self, position: Position, gaps: u64) -> Result<(), StorageError> {
        self.sync_now();
        match self.wait_until_written(position) {
            Ok(now) if now == gaps => Ok(()),
            Ok(_) | Err(Stopped::Full { .. }) => Err(StorageError::SnapshotOvertaken),
            Err(stopped) => Err(stopped.into()),
        }
    }

    /// A snapshot is durable under its name: removes what it replaces and goes on from there.
    fn covered(&self, number: u64, bytes: u64, gaps: u64) -> Result<(), StorageError> {
        let path = self.directory().path();
        self.note_snapshot(number, bytes);
        let mut names = BTreeMap::new();
        for name in file_names(path)? {
            let of_segment = number_in(&name, "segment-").filter(|it| *it < number);
            let of_snapshot = number_in(&name, "snapshot-").filter(|it| *it != number);
            if of_segment.is_some() || of_snapshot.is_some() {
                names.insert(name, of_segment);
            }
        }
        if self.is_salvaged() {
            self.write_opened(number)?;
            let names: Vec<&str> = names.keys().map(String::as_str).collect();
            set_aside(path, &names)?;
        }
        for (name, segment) in names {
            let removed = fs::remove_file(path.join(name));
            // What is still there is of no use and removed at the next start.
            let gone =
                removed.map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true);
            if let Some(segment) = segment.filter(|_| gone) {
                self.note_removed(segment);
            }
        }
        self.forget_salvage();
        self.reopen(gaps);
        Ok(())
    }
}

/// Moves files of a directory into a new folder `damaged-<n>` in it. Returns the folder.
pub(super) fn set_aside(directory: &Path, names: &[&str]) -> Result<PathBuf, StorageError> {
    let taken = file_names(directory)?;
    let free = (1..).find(|number| !taken.contains(&format!("{DAMAGED_PREFIX}{number}")));
    let folder = directory.join(format!("{DAMAGED_PREFIX}{}", free.unwrap_or_default()));
    fs::create_dir(&folder).map_err(|source| StorageError::io("create", &folder, source))?;
    for name in names {
        let path = directory.join(name);
        fs::rename(&path, folder.join(name))
            .map_err(|source| StorageError::io("move", &path, source))?;
    }
    sync_directory(&folder)?;
    sync_directory(directory)?;
    Ok(folder)
}

/// What reading a snapshot found.
#[derive(Debug, Default)]
pub(super) struct SnapshotRead {
    pub(super) frames: u64,
    pub(super) bytes: u64,
    pub(super) skipped: Vec<Skipped>,
}

/// Says why the header of a file is not accepted.
pub(super) fn header_error(path: &Path, bad: BadHeader) -> StorageError {
    let path = path.to_owned();
    match bad {
        BadHeader::Damaged => {
            StorageError::Damaged { path, offset: 0, what: "its header has a wrong checksum" }
        }
        BadHeader::Newer(found) => StorageError::NewerFormat { path, found, known: FILE_VERSION },
        BadHeader::Mixed => StorageError::Mixed { path },
    }
}

/// Reads the snapshot with that number. With `salvage`, goes on behind what cannot be read.
pub(super) fn read_snapshot(
    path: &Path,
    directory: [u8; 16],
    number: u64,
    salvage: bool,
    visit: &mut dyn FnMut(&[u8]) -> Result<(), Rejected>,
    progress: &mut dyn FnMut(u64),
) -> Result<SnapshotRead, StorageError> {
    let kind = FileKind::Snapshot;
    let salt = Salt::new(kind, directory, number);
    let file = File::open(path).map_err(|source| StorageError::io("open", path, source))?;
    let io_error = |source| StorageError::io("read", path, source);
    let mut window = Window::new(file);
    let mut found = SnapshotRead::default();
    let header = window.peek(FILE_HEADER_BYTES).map_err(io_error)?;
    if let Err(bad) = FileHeader::decode(header, kind, directory, number) {
        let error = header_error(path, bad);
        if !salvage {
            return Err(error);
        }
        note(&mut found.skipped, path, 0, error.to_string());
    }
    window.skip(FILE_HEADER_BYTES);
    loop {
        let at = window.offset();
        match next_piece(&mut window, salt).map_err(io_error)? {
            Piece::Data(length) => {
                let frame = window.peek(length).map_err(io_error)?;
                let visited = visit(frame.get(FRAME_HEADER_BYTES..).unwrap_or_default());
                window.skip(length);
                match visited {
                    Ok(()) => found.frames += 1,
                    Err(reason) if salvage => {
                        note(&mut found.skipped, path, at, reason.to_string());
                    }
                    Err(reason) => {
                        return Err(StorageError::Rejected {
                            path: path.to_owned(),
                            offset: at,
                            reason,
                        });
                    }
                }
                progress(length as u64);
            }
            Piece::Footer { frames, bytes } if salvage || (frames, bytes) == (found.frames, at) => {
                found.bytes = window.offset();
                return Ok(found);
            }
            Piece::Footer { .. } => {
                let what = "its last record counts other records than there are";
                return Err(StorageError::Damaged { path: path.to_owned(), offset: at, what });
            }
            Piece::Bad(what) if !salvage => {
                return Err(StorageError::Damaged { path: path.to_owned(), offset: at, what });
            }
            Piece::Bad(what) => {
                note(&mut found.skipped, path, at, what.to_owned());
                if !find_piece(&mut window, salt).map_err(io_error)? {
                    found.bytes = window.offset();
                    return Ok(found);
                }
            }
        }
    }
}

/// What stands next in a snapshot.
enum Piece {
    /// A whole frame of this length.
    Data(usize),
    /// The end, and what it says of the file before it.
    Footer {
        frames: u64,
        bytes: u64,
    },
    Bad(&'static str),
}

fn next_piece(window: &mut Window, salt: Salt) -> io::Result<Piece> {
    let at = window.offset();
    let start = window.peek(FRAME_HEADER_BYTES)?;
    if start.is_empty() {
        return Ok(Piece::Bad("the file ends before the record that ends a snapshot"));
    }
    let Some(header) = frame::header_at(start, salt, at) else {
        return Ok(Piece::Bad("no valid record begins here"));
    };
    let length = FRAME_HEADER_BYTES + header.length;
    let frame = window.peek(length)?;
    let Some(payload) = frame.get(FRAME_HEADER_BYTES..length) else {
        return Ok(Piece::Bad("the file ends inside the record that begins here"));
    };
    if crc32c(payload) != header.payload_crc {
        return Ok(Piece::Bad("the record that begins here has a wrong checksum"));
    }
    match (header.kind, payload.split_first_chunk::<8>()) {
        (Kind::Data, _) => Ok(Piece::Data(length)),
        (Kind::Footer, Some((frames, bytes))) => {
            let bytes = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let frames = u64::from_le_bytes(*frames);
            window.skip(length);
            if !window.peek(1)?.is_empty() {
                return Ok(Piece::Bad("something follows the record that ends a snapshot"));
            }
            Ok(Piece::Footer { frames, bytes })
        }
        _ => Ok(Piece::Bad("no snapshot has such a record")),
    }
}

/// Goes on to the next place where a frame may begin. `false` if the file has none.
fn find_piece(window: &mut Window, salt: Salt) -> io::Result<bool> {
    while !window.peek(1)?.is_empty() {
        window.skip(1);
        let at = window.offset();
        if frame::header_at(window.peek(FRAME_HEADER_BYTES)?, salt, at).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
