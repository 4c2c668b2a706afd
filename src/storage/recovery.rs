//! Recovery: reading a directory back, and deciding what its files mean.
//!
//! [`read`] only reads: it visits the newest snapshot and the segments from its number on, in order,
//! and ends with a [`Plan`] of what has to be put right before anything is appended: where a torn tail
//! is cut, which files are leftovers, with which segment to begin. [`Plan::apply`] does it. A crash in
//! between leads to the same plan again.
//!
//! What must stay true: what is visited is an exact prefix of what was appended since the snapshot,
//! and contains all that was acknowledged; or there is an error that names the spot. To that end
//! numbers of segments have no holes, the first is 1 or the snapshot's, and the small file
//! `journal.blob` names one that has to be there.
//!
//! Segments that were begun after records had been discarded are left out until a snapshot covers
//! them: what was discarded is missing between them and the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::directory::{Directory, file_names};
use super::error::{Rejected, StorageError};
use super::frame::{
    self, FILE_HEADER_BYTES, FileHeader, FileKind, Found, Kind, PAYLOAD_BYTES_MAX, Salt,
};
use super::segment::{Ending, is_zero, number_in, scan, segment_path, snapshot_path};
use super::snapshot::{header_error, read_snapshot, set_aside};

/// The longest segment: the longest record needs no more, and files are read as a whole.
pub const SEGMENT_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (1 << 20);
/// Spots of damage that are remembered one by one: more tell a person nothing.
const SKIPPED_MAX: usize = 1000;
/// The name of the small file that says which segment has to be there.
const OPENED_BLOB: &str = "journal";

/// Where a record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A piece of the state, as it was written into a snapshot.
    Snapshot,
    /// A record, as it was appended.
    Journal,
}

/// A record that was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveredFrame<'a> {
    /// Where it comes from.
    pub kind: FrameKind,
    /// What was appended.
    pub bytes: &'a [u8],
}

/// How far recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files read so far.
    pub bytes_read: u64,
    /// Bytes of all files that will be read.
    pub bytes_total: u64,
}

/// What was cut off the end of the journal: a write that was under way when the power failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// How much was there.
    pub bytes: u64,
}

/// What could not be read, and was passed over because salvage was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was wrong.
    pub what: String,
}

/// What recovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The number of the snapshot that was read.
    pub snapshot: Option<u64>,
    /// How many segments were read.
    pub segments: u64,
    /// How many records were read, those of the snapshot included.
    pub frames: u64,
    /// How many bytes of files that took.
    pub bytes: u64,
    /// The torn tail that was cut.
    pub cut: Option<Cut>,
    /// Segments left out because records had been discarded before them and no snapshot was
    /// finished since. Nothing in them was reported durable.
    pub segments_after_gap: u64,
    /// What was passed over, when salvaging; the first thousand.
    pub skipped: Vec<Skipped>,
    /// Damaged snapshots that were moved here, since the older state was still whole.
    pub set_aside: Option<PathBuf>,
}

/// What has to be done before anything is appended.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) recovery: Recovery,
    /// The number of the segment to begin with.
    pub(super) next: u64,
    /// The segment whose records end without a word, where they end, and how long the file is.
    end: Option<(u64, usize)>,
    /// Files of no use, in the order in which they may go.
    leftovers: Vec<String>,
    damaged: Vec<String>,
    /// Segments and snapshots that stay, with their lengths.
    pub(super) segments: BTreeMap<u64, u64>,
    pub(super) snapshots: BTreeMap<u64, u64>,
}

type Visit<'a> = &'a mut dyn FnMut(RecoveredFrame<'_>) -> Result<(), Rejected>;

/// Reads a directory. Changes nothing.
pub(super) fn read(
    directory: &Directory,
    salvage: bool,
    visit: Visit<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, StorageError> {
    let path = directory.path();
    let names = file_names(path)?;
    let numbers = |prefix| names.iter().filter_map(|name| number_in(name, prefix)).collect();
    let segments: BTreeSet<u64> = numbers("segment-");
    let snapshots: BTreeSet<u64> = numbers("snapshot-");
    let mut reader =
        Reader { directory, visit, progress, done: 0, total: 0, plan: Plan::default() };
    reader.plan.segments = lengths(&segments, |number| segment_path(path, number))?;
    reader.plan.snapshots = lengths(&snapshots, |number| snapshot_path(path, number))?;
    if salvage {
        reader.salvage(&segments, &snapshots)?;
    } else {
        check_opened(directory, &segments, &snapshots)?;
        reader.read(&segments, &snapshots)?;
    }
    Ok(reader.plan)
}

fn lengths(
    numbers: &BTreeSet<u64>,
    path: impl Fn(u64) -> PathBuf,
) -> Result<BTreeMap<u64, u64>, StorageError> {
    let length = |number: &u64| {
        let path = path(*number);
        let length = path.metadata().map_err(|source| StorageError::io("read", &path, source))?;
        Ok((*number, length.len()))
    };
    numbers.iter().map(length).collect()
}

/// The segment that the last start began with, or a later one, has to be there.
fn check_opened(
    directory: &Directory,
    segments: &BTreeSet<u64>,
    snapshots: &BTreeSet<u64>,
) -> Result<(), StorageError> {
    let path = directory.path();
    let Some(opened) = read_opened(directory)? else {
        // The very first start may have crashed before it wrote that file.
        let is_first = snapshots.is_empty() && segments.iter().all(|number| *number == 1);
        let missing = path.join(format!("{OPENED_BLOB}.blob"));
        return if is_first { Ok(()) } else { Err(StorageError::Incomplete { path: missing }) };
    };
    if segments.last().is_none_or(|last| *last < opened) {
        return Err(StorageError::Incomplete { path: segment_path(path, opened) });
    }
    Ok(())
}

fn read_opened(directory: &Directory) -> Result<Option<u64>, StorageError> {
    let Some(bytes) = directory.read_blob(OPENED_BLOB)? else { return Ok(None) };
    let number = bytes.as_slice().try_into().map(u64::from_le_bytes);
    number.map(Some).map_err(|_| StorageError::Damaged {
        path: directory.path().join(format!("{OPENED_BLOB}.blob")),
        offset: 0,
        what: "this small file holds no number",
    })
}

/// Writes down which segment has to be there from now on.
pub(super) fn write_opened(directory: &Directory, number: u64) -> Result<(), StorageError> {
    directory.write_blob(OPENED_BLOB, &number.to_le_bytes())
}

/// Remembers a spot that was passed over.
pub(super) fn note(skipped: &mut Vec<Skipped>, path: &Path, offset: u64, what: String) {
    if skipped.len() < SKIPPED_MAX {
        skipped.push(Skipped { path: path.to_owned(), offset, what });
    }
}

/// Whether all segments from a number on are there, without holes.
fn first_hole(segments: &BTreeSet<u64>, start: u64) -> Option<u64> {
    let last = segments.last().copied().unwrap_or(0).max(start);
    (start..=last).find(|number| !segments.contains(number))
}

struct Reader<'a> {
    directory: &'a Directory,
    visit: Visit<'a>,
    progress: &'a mut dyn FnMut(Progress),
    done: u64,
    total: u64,
    plan: Plan,
}

impl Reader<'_> {
    fn read(
        &mut self,
        segments: &BTreeSet<u64>,
        snapshots: &BTreeSet<u64>,
    ) -> Result<(), StorageError> {
        let path = self.directory.path().to_owned();
        let start = self.choose(segments, snapshots)?;
        let first = start.unwrap_or(1);
        if !segments.is_empty() || start.is_some() {
            match first_hole(segments, first) {
                None => {}
                // Not even the first one: then it is the snapshot before the others that is missing.
                Some(1) if start.is_none() => {
                    let oldest = segments.first().copied().unwrap_or(1);
                    return Err(StorageError::Incomplete { path: snapshot_path(&path, oldest) });
                }
                Some(hole) => {
                    return Err(StorageError::Incomplete { path: segment_path(&path, hole) });
                }
            }
        }
        let lengths = self.plan.segments.range(first..).map(|(_, length)| *length);
        let snapshot_bytes = start.and_then(|it| self.plan.snapshots.get(&it)).copied();
        self.total = lengths.sum::<u64>() + snapshot_bytes.unwrap_or(0);
        if let Some(number) = start {
            self.plan.recovery.snapshot = Some(number);
            self.read_snapshot(number, false)?;
        }
        let old_segments = segments.range(..first).map(|it| (*it, "segment"));
        let old_snapshots = snapshots.range(..first).map(|it| (*it, "snapshot"));
        for (number, kind) in old_segments.chain(old_snapshots) {
            self.plan.leftovers.push(format!("{kind}-{number:012}"));
        }
        self.read_segments(segments, first)
    }

    /// The snapshot to begin with: the newest, unless it is damaged and what it replaced is still
    /// there. `None` is the state before the first one.
    fn choose(
        &mut self,
        segments: &BTreeSet<u64>,
        snapshots: &BTreeSet<u64>,
    ) -> Result<Option<u64>, StorageError> {
        let path = self.directory.path().to_owned();
        let mut damage = None;
        for number in snapshots.iter().rev() {
            let mut older = snapshots.range(..*number).copied().chain([1]);
            let alternative = older.any(|it| it < *number && first_hole(segments, it).is_none());
            if !alternative {
                // Reading it will tell; there is nothing else anyway.
                return match damage {
                    Some(error) if first_hole(segments, *number).is_some() => Err(error),
                    _ => Ok(Some(*number)),
                };
            }
            let path = snapshot_path(&path, *number);
            let id = self.directory.id();
            let read = read_snapshot(&path, id, *number, false, &mut |_| Ok(()), &mut |_| {});
            match read {
                Ok(_) => return Ok(Some(*number)),
                Err(error @ StorageError::Damaged { .. }) => {
                    damage.get_or_insert(error);
                    self.plan.damaged.push(format!("snapshot-{number:012}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn read_snapshot(&mut self, number: u64, salvage: bool) -> Result<(), StorageError> {
        let path = snapshot_path(self.directory.path(), number);
        let (visit, progress) = (&mut self.visit, &mut self.progress);
        let (before, total) = (self.done, self.total);
        let (mut done, mut told) = (before, before);
        let found = read_snapshot(
            &path,
            self.directory.id(),
            number,
            salvage,
            &mut |bytes| visit(RecoveredFrame { kind: FrameKind::Snapshot, bytes }),
            &mut |bytes| {
                done += bytes;
                if done - told >= 1 << 20 {
                    told = done;
                    progress(Progress { bytes_read: done, bytes_total: total });
                }
            },
        )?;
        self.plan.recovery.frames += found.frames;
        for skipped in found.skipped {
            note(&mut self.plan.recovery.skipped, &path, skipped.offset, skipped.what);
        }
        let length = self.plan.snapshots.get(&number).copied().unwrap_or(0);
        self.advance(length);
        Ok(())
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        self.plan.recovery.bytes += bytes;
        (self.progress)(Progress { bytes_read: self.done, bytes_total: self.total });
    }

    fn read_segments(&mut self, segments: &BTreeSet<u64>, first: u64) -> Result<(), StorageError> {
        let path = self.directory.path().to_owned();
        let last = segments.last().copied().unwrap_or(0);
        let mut file = Vec::new();
        // The last segment that holds a record, and where records ended without a word.
        let mut used = None;
        let mut tail: Option<(u64, usize)> = None;
        let mut end = last;
        for number in segments.range(first..).copied() {
            let segment = segment_path(&path, number);
            load(&segment, &mut file)?;
            let kind = FileKind::Segment;
            let header = FileHeader::decode(&file, kind, self.directory.id(), number)
                .map_err(|bad| header_error(&segment, bad))?;
            if header.after_gap && number != first {
                self.plan.recovery.segments_after_gap = last - number + 1;
                end = number - 1;
                break;
            }
            if let Some(tail) = tail {
                self.check_unused(&file, &segment, header.salt(), tail)?;
                self.advance(file.len() as u64);
                continue;
            }
            let visit = &mut self.visit;
            let scan = scan(&file, header.salt(), |offset, bytes| {
                visit(RecoveredFrame { kind: FrameKind::Journal, bytes }).map_err(|reason| {
                    let (path, offset) = (segment.clone(), offset as u64);
                    StorageError::Rejected { path, offset, reason }
                })
            })?;
            self.plan.recovery.segments += 1;
            self.plan.recovery.frames += scan.frames;
            if scan.frames > 0 {
                used = Some(number);
            }
            let offset = scan.at as u64;
            match scan.ending {
                Ending::Ended(Kind::Rotated) if number == last => {
                    return Err(StorageError::Incomplete { path: segment_path(&path, last + 1) });
                }
                Ending::Ended(_) => {}
                Ending::Open => tail = Some((number, scan.at)),
                Ending::Torn => {
                    tail = Some((number, scan.at));
                    let rest = file.get(scan.at..).unwrap_or_default();
                    let bytes = rest.iter().rposition(|byte| *byte != 0).map_or(0, |it| it + 1);
                    let bytes = bytes as u64;
                    self.plan.recovery.cut = Some(Cut { path: segment, offset, bytes });
                }
                Ending::Damaged(what) => {
                    return Err(StorageError::Damaged { path: segment, offset, what });
                }
            }
            self.advance(file.len() as u64);
        }
        self.plan.next = used.map_or(first, |used| used + 1);
        // A segment without records is replaced, not ended.
        self.plan.end = tail.filter(|(number, _)| *number < self.plan.next);
        debug_assert!(end + 1 >= self.plan.next, "no hole is left behind");
        // From the last on, so that a crash leaves no hole. The next one is replaced.
        let surplus = segments.range(self.plan.next + 1..).rev();
        self.plan.leftovers.extend(surplus.map(|number| format!("segment-{number:012}")));
        Ok(())
    }

    /// Records ended without a word in an earlier segment: then this one is not used yet.
    fn check_unused(
        &self,
        file: &[u8],
        path: &Path,
        salt: Salt,
        (earlier, at): (u64, usize),
    ) -> Result<(), StorageError> {
        if is_zero(file.get(FILE_HEADER_BYTES..).unwrap_or_default()) {
            return Ok(());
        }
        if frame::find_header(file, salt, FILE_HEADER_BYTES, |_| true).is_some() {
            let what = "records end here, but the next segment has more";
            let path = segment_path(self.directory.path(), earlier);
            return Err(StorageError::Damaged { path, offset: at as u64, what });
        }
        let (path, offset) = (path.to_owned(), FILE_HEADER_BYTES as u64);
        let what = "no record begins here, though the segment is in use";
        Err(StorageError::Damaged { path, offset, what })
    }

    fn salvage(
        &mut self,
        segments: &BTreeSet<u64>,
        snapshots: &BTreeSet<u64>,
    ) -> Result<(), StorageError> {
        let path = self.directory.path().to_owned();
        let all = self.plan.segments.values().chain(self.plan.snapshots.values());
        self.total = all.sum();
        for number in snapshots {
            self.read_snapshot(*number, true)?;
            self.plan.recovery.snapshot = Some(*number);
        }
        let mut file = Vec::new();
        let mut expected = None;
        for number in segments.iter().copied() {
            let segment = segment_path(&path, number);
            for missing in expected.into_iter().flat_map(|it| it..number) {
                let what = "the segment is missing".to_owned();
                note(&mut self.plan.recovery.skipped, &segment_path(&path, missing), 0, what);
                if self.plan.recovery.skipped.len() >= SKIPPED_MAX {
                    break;
                }
            }
            expected = Some(number + 1);
            self.plan.recovery.segments += 1;
            if let Err(error) = load(&segment, &mut file) {
                note(&mut self.plan.recovery.skipped, &segment, 0, error.to_string());
                continue;
            }
            self.salvage_segment(&segment, &file, number);
            self.advance(file.len() as u64);
        }
        let last = segments.last().max(snapshots.last()).copied().unwrap_or(0);
        // Also above the one that is said to be there, lest it be taken for that.
        let opened = read_opened(self.directory).ok().flatten().unwrap_or(0);
        self.plan.next = last.max(opened) + 1;
        Ok(())
    }

    fn salvage_segment(&mut self, path: &Path, file: &[u8], number: u64) {
        let (kind, id) = (FileKind::Segment, self.directory.id());
        let salt = Salt::new(kind, id, number);
        let recovery = &mut self.plan.recovery;
        if let Err(bad) = FileHeader::decode(file, kind, id, number) {
            note(&mut recovery.skipped, path, 0, header_error(path, bad).to_string());
        }
        let mut at = FILE_HEADER_BYTES;
        while at < file.len() {
            match frame::read_at(file, salt, at) {
                Found::Frame(Kind::Data, bytes) => {
                    match (self.visit)(RecoveredFrame { kind: FrameKind::Journal, bytes }) {
                        Ok(()) => recovery.frames += 1,
                        Err(reason) => {
                            note(&mut recovery.skipped, path, at as u64, reason.to_string());
                        }
                    }
                    at += frame::FRAME_HEADER_BYTES + bytes.len();
                }
                Found::Frame(..) => return,
                bad => {
                    let next = frame::find_header(file, salt, at + 1, |_| true);
                    let what = match bad {
                        Found::Bad(what) => what,
                        _ => "there is no record where one must be",
                    };
                    let rest = file.get(at..next.unwrap_or(file.len())).unwrap_or_default();
                    if next.is_some() || !is_zero(rest) {
                        note(&mut recovery.skipped, path, at as u64, what.to_owned());
                    }
                    at = next.unwrap_or(file.len());
                }
            }
        }
    }
}

/// Reads a segment as a whole.
fn load(path: &Path, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
    let io_error = |source| StorageError::io("read", path, source);
    bytes.clear();
    let file = File::open(path).map_err(io_error)?;
    let read = file.take(SEGMENT_BYTES_MAX as u64 + 1).read_to_end(bytes).map_err(io_error)?;
    if read > SEGMENT_BYTES_MAX {
        let (path, offset) = (path.to_owned(), SEGMENT_BYTES_MAX as u64);
        return Err(StorageError::Damaged { path, offset, what: "no segment is as long as this" });
    }
    Ok(())
}

impl Plan {
    /// Puts right what [`read`] found: ends the last segment, removes leftovers.
    pub(super) fn apply(&mut self, directory: &Directory) -> Result<(), StorageError> {
        let path = directory.path();
        if let Some((number, at)) = self.end {
            let bytes = end_segment(directory, number, at)?;
            self.segments.insert(number, bytes);
        }
        if !self.damaged.is_empty() {
            let names: Vec<&str> = self.damaged.iter().map(String::as_str).collect();
            self.recovery.set_aside = Some(set_aside(path, &names)?);
        }
        for name in &self.leftovers {
            let path = path.join(name);
            fs::remove_file(&path).map_err(|source| StorageError::io("remove", &path, source))?;
        }
        for name in self.leftovers.iter().chain(&self.damaged) {
            if let Some(number) = number_in(name, "segment-") {
                self.segments.remove(&number);
            }
            if let Some(number) = number_in(name, "snapshot-") {
                self.snapshots.remove(&number);
            }
        }
        Ok(())
    }
}

/// Ends a segment at the place where its records end. What is before it is synced first, since the
/// end vouches for it. Returns how long the file is then.
fn end_segment(directory: &Directory, number: u64, at: usize) -> Result<u64, StorageError> {
    let path = segment_path(directory.path(), number);
    let salt = Salt::new(FileKind::Segment, directory.id(), number);
    let end = frame::whole(Kind::Closed, &[], salt, at as u64, at as u32);
    let write = || {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        file.sync_all()?;
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&end)?;
        file.set_len((at + end.len()) as u64)?;
        file.sync_all()?;
        Ok((at + end.len()) as u64)
    };
    write().map_err(|source| StorageError::io("end", &path, source))
}
