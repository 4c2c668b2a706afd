//! Laws of what comes back from disk, whatever has happened to the bytes.
//!
//! A small journal of a few segments is damaged in every way that is named: each bit flipped, each file
//! cut at each byte, each file taken away, each combination of sectors after a power loss. What is read
//! back is an exact prefix, or the error names the spot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use futures_lite::future::block_on;
use proptest::prelude::*;

use super::directory::file_names;
use super::frame::{self, FILE_HEADER_BYTES, FRAME_HEADER_BYTES, Kind};
use super::segment::{Ending, Scan, Segment, scan, segment_path};
use super::*;

type Records = Vec<Vec<u8>>;

/// What is in a directory and what is read back from it when nothing is wrong.
struct Sample {
    directory: Directory,
    _folder: tempfile::TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    records: Records,
}

fn options() -> JournalOptions {
    JournalOptions { segment_bytes: 220, ..JournalOptions::new(Sync::Always) }
}

fn record(number: usize) -> Vec<u8> {
    format!("record {number} {}", "x".repeat(number * 7 % 40)).into_bytes()
}

/// Some segments, after a snapshot if asked for, closed in order or left as by a kill.
fn sample(with_snapshot: bool, closed: bool) -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path().join("live")).unwrap();
    let (journal, _) = Journal::open(&directory, options(), &mut |_| Ok(()), &mut |_| {}).unwrap();
    let mut records = Vec::new();
    if with_snapshot {
        block_on(journal.synced(journal.append(b"in the snapshot"))).unwrap();
        let mut snapshot = journal.begin_snapshot().unwrap();
        for number in 0..4 {
            snapshot.write(&record(number)).unwrap();
            records.push(record(number));
        }
        snapshot.finish().unwrap();
    }
    for number in 10..19 {
        // Each in a sync of its own, so that each vouches for the one before.
        block_on(journal.synced(journal.append(&record(number)))).unwrap();
        records.push(record(number));
    }
    if closed {
        journal.close();
    }
    let source = directory.path().to_owned();
    // A copy, as a kill leaves it; of the journal that runs, the next segment may be under way.
    let names = file_names(&source).unwrap();
    let names = names.iter().filter(|name| !name.ends_with(".new") && *name != "lock");
    let target = folder.path().join("copy");
    fs::create_dir(&target).unwrap();
    let mut files = BTreeMap::new();
    for name in names {
        let bytes = fs::read(source.join(name)).unwrap();
        fs::write(target.join(name), &bytes).unwrap();
        if name != "format" {
            files.insert(target.join(name), bytes);
        }
    }
    drop(journal);
    let directory = Directory::open(&target).unwrap();
    Sample { directory, _folder: folder, files, records }
}

fn read(directory: &Directory, salvage: bool) -> (Records, Result<Recovery, StorageError>) {
    let mut records = Vec::new();
    let mut visit = |frame: RecoveredFrame<'_>| {
        records.push(frame.bytes.to_vec());
        Ok(())
    };
    let plan = recovery::read(directory, salvage, &mut visit, &mut |_| {});
    (records, plan.map(|plan| plan.recovery))
}

fn is_segment(path: &Path) -> bool {
    path.to_string_lossy().contains("segment-")
}

/// Where the record begins that holds a byte of a file that is whole; 0 in the header.
fn record_at(sample: &Sample, path: &Path, byte: usize) -> u64 {
    let file = &sample.files[path];
    if byte < FILE_HEADER_BYTES || path.extension().is_some() {
        return 0;
    }
    let mut at = FILE_HEADER_BYTES;
    while at < file.len() {
        let next = at + frame::pushed_bytes(&file[at..]);
        if byte < next || file[at..].iter().take(4).all(|it| *it == 0) {
            break;
        }
        at = next;
    }
    at as u64
}

/// The last segment that holds records, and where the last of them begins.
fn last_record(sample: &Sample) -> (PathBuf, usize) {
    let mut last = None;
    for (path, file) in sample.files.iter().filter(|(path, _)| is_segment(path)) {
        let mut at = FILE_HEADER_BYTES;
        while at < file.len() && file[at..].iter().take(4).any(|it| *it != 0) {
            if file[at + 3] >> 4 == Kind::Data as u8 {
                last = Some((path.clone(), at));
            }
            at += frame::pushed_bytes(&file[at..]);
        }
    }
    last.expect("a sample has records")
}

/// The sample is as intended: several segments, and read back as it was written.
#[test]
fn samples_are_whole() {
    for (with_snapshot, closed) in [(false, true), (true, true), (false, false), (true, false)] {
        let sample = sample(with_snapshot, closed);
        assert!(sample.files.keys().filter(|path| is_segment(path)).count() > 3);
        let (records, recovery) = read(&sample.directory, false);
        assert_eq!(records, sample.records);
        assert_eq!(recovery.unwrap().cut, None);
        let (records, recovery) = read(&sample.directory, true);
        assert_eq!(records, sample.records);
        assert_eq!(recovery.unwrap().skipped, []);
    }
}

/// Flip every bit: an exact prefix, of which only the last record may be missing and only if nothing
/// vouches for it, or an error that names the record. Salvage gets all but that record.
#[test]
fn every_bit_flipped() {
    for (with_snapshot, closed) in [(true, true), (false, false)] {
        let sample = sample(with_snapshot, closed);
        let (last_path, last_at) = last_record(&sample);
        for (path, good) in &sample.files {
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(path, bad).unwrap();
                let (records, recovery) = read(&sample.directory, false);
                let place = format!("{} byte {}", path.display(), bit / 8);
                assert!(sample.records.starts_with(&records), "{place}");
                match recovery {
                    Ok(_) => {
                        // Nothing is after the last record of a journal that was not closed.
                        let unsure = *path == last_path && bit / 8 >= last_at && !closed;
                        let least = sample.records.len() - usize::from(unsure);
                        assert!(records.len() >= least, "{place}: {} records", records.len());
                    }
                    Err(StorageError::Damaged { path: named, offset, .. }) => {
                        assert_eq!((&named, offset), (path, record_at(&sample, path, bit / 8)));
                    }
                    Err(error) => panic!("{place}: {error}"),
                }
                let (salvaged, recovery) = read(&sample.directory, true);
                recovery.unwrap_or_else(|error| panic!("{place}: {error}"));
                assert!(is_all_but_one(&salvaged, &sample.records), "{place}: {salvaged:?}");
            }
            fs::write(path, good).unwrap();
        }
    }
}

fn is_all_but_one(some: &Records, all: &Records) -> bool {
    let same = some.iter().zip(all).take_while(|(a, b)| a == b).count();
    some == all || (some.len() + 1 == all.len() && some[same..] == all[same + 1..])
}

/// Cut every file at every byte: an exact prefix, or an error that names a file.
#[test]
fn every_file_cut_at_every_byte() {
    for (with_snapshot, closed) in [(true, true), (false, false)] {
        let sample = sample(with_snapshot, closed);
        let (last_path, _) = last_record(&sample);
        for (path, good) in &sample.files {
            for length in 0..good.len() {
                fs::write(path, &good[..length]).unwrap();
                let (records, recovery) = read(&sample.directory, false);
                let place = format!("{} cut to {length}", path.display());
                assert!(sample.records.starts_with(&records), "{place}");
                match recovery {
                    Ok(_) => assert!(*path >= last_path || records == sample.records, "{place}"),
                    Err(StorageError::Damaged { path: named, offset, .. }) => {
                        assert_eq!(&named, path);
                        assert!(offset <= length as u64, "{place}: {offset}");
                    }
                    Err(error) => panic!("{place}: {error}"),
                }
                let (salvaged, recovery) = read(&sample.directory, true);
                recovery.unwrap_or_else(|error| panic!("{place}: {error}"));
                assert!(salvaged.iter().all(|it| sample.records.contains(it)), "{place}");
            }
            fs::write(path, good).unwrap();
        }
    }
}

/// Take any file away: it is missed, unless nothing was in it yet.
#[test]
fn every_file_taken_away() {
    for (with_snapshot, closed) in [(true, true), (false, false)] {
        let sample = sample(with_snapshot, closed);
        let (last_path, _) = last_record(&sample);
        for (path, good) in &sample.files {
            fs::remove_file(path).unwrap();
            let (records, recovery) = read(&sample.directory, false);
            match recovery {
                Ok(_) => {
                    assert!(*path > last_path, "{} is not missed", path.display());
                    assert_eq!(records, sample.records);
                }
                Err(error) => {
                    assert!(matches!(error, StorageError::Incomplete { .. }), "{error}");
                }
            }
            fs::write(path, good).unwrap();
        }
        for path in sample.files.keys().filter(|path| is_segment(path)) {
            fs::remove_file(path).unwrap();
        }
        let (_, recovery) = read(&sample.directory, false);
        assert!(matches!(recovery, Err(StorageError::Incomplete { .. })));
    }
}

/// A segment of another directory, or under another number, is named as such.
#[test]
fn files_of_others() {
    let (one, other) = (sample(false, true), sample(false, true));
    let names: Vec<&PathBuf> = one.files.keys().filter(|path| is_segment(path)).collect();
    let foreign = &other.files[&segment_path(other.directory.path(), 1)];
    fs::write(names[0], foreign).unwrap();
    let (records, recovery) = read(&one.directory, false);
    assert!(matches!(recovery, Err(StorageError::Mixed { path }) if path == *names[0]));
    assert!(records.is_empty());
    fs::write(names[0], &one.files[names[1]]).unwrap();
    assert!(matches!(read(&one.directory, false).1, Err(StorageError::Mixed { .. })));
}

/// A newer version's segment is not taken for damage.
#[test]
fn newer_segment() {
    let sample = sample(false, true);
    let path = segment_path(sample.directory.path(), 1);
    let mut bytes = sample.files[&path].clone();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..FILE_HEADER_BYTES - 4]);
    bytes[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let (_, recovery) = read(&sample.directory, false);
    assert!(matches!(recovery, Err(StorageError::NewerFormat { found: 9, known: 1, .. })));
}

fn pushed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut buffer = Vec::new();
    for record in records {
        frame::push(&mut buffer, Kind::Data, record, crc32c::crc32c(record));
    }
    buffer
}

fn scanned(file: &[u8], segment: &Segment) -> (Records, Scan) {
    let mut records = Vec::new();
    let scan = scan(file, segment.salt(), |_, bytes| {
        records.push(bytes.to_vec());
        Ok::<(), ()>(())
    });
    (records, scan.unwrap())
}

/// After a power loss each sector written since the last sync is there or not: whatever the
/// combination, all that was synced comes back, perhaps more, in order, and it is never damage.
#[test]
fn every_combination_of_sectors() {
    const SECTOR: usize = 512;
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let mut segment = Segment::create(&directory, 1, 8192, false).unwrap();
    let records: Records = (0..40).map(|number| vec![number as u8; 60 + number * 3 % 80]).collect();
    let (synced, unsynced) = records.split_at(8);
    segment.write(&mut pushed(synced)).unwrap();
    segment.sync().unwrap();
    let before = fs::read(&segment.path).unwrap();
    // Two writes without a sync between, as in the seconds of an interval.
    segment.write(&mut pushed(&unsynced[..20])).unwrap();
    segment.write(&mut pushed(&unsynced[20..])).unwrap();
    let after = fs::read(&segment.path).unwrap();
    let changed: Vec<usize> = (0..8192 / SECTOR)
        .filter(|it| before[it * SECTOR..][..SECTOR] != after[it * SECTOR..][..SECTOR])
        .collect();
    assert!((7..14).contains(&changed.len()), "{}", changed.len());
    let mut torn = 0;
    for subset in 0..1 << changed.len() {
        let mut file = before.clone();
        for (_, sector) in changed.iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            file[range.clone()].copy_from_slice(&after[range]);
        }
        let (found, scan) = scanned(&file, &segment);
        assert!(records.starts_with(&found) && found.len() >= synced.len(), "{subset:b}");
        assert!(matches!(scan.ending, Ending::Open | Ending::Torn), "{subset:b} {scan:?}");
        torn += usize::from(scan.ending == Ending::Torn);
    }
    assert!(torn > 10, "{torn}");
    // Once synced and vouched for, a missing sector is damage.
    segment.sync().unwrap();
    segment.write(&mut pushed(&[b"later".to_vec()])).unwrap();
    let vouched = fs::read(&segment.path).unwrap();
    // The last of them holds the witness itself.
    let (_, changed) = changed.split_last().unwrap();
    for sector in changed {
        let mut file = vouched.clone();
        file[sector * SECTOR..(sector + 1) * SECTOR]
            .copy_from_slice(&before[sector * SECTOR..(sector + 1) * SECTOR]);
        let (_, scan) = scanned(&file, &segment);
        assert!(matches!(scan.ending, Ending::Damaged(_)), "{sector} {scan:?}");
    }
}

/// A record may hold the bytes of a segment, even of this one: they vouch for nothing.
#[test]
fn a_segment_inside_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let mut segment = Segment::create(&directory, 1, 8192, false).unwrap();
    for number in 0..4 {
        segment.write(&mut pushed(&[record(number)])).unwrap();
        segment.sync().unwrap();
    }
    let copy = fs::read(&segment.path).unwrap()[..segment.used()].to_vec();
    let at = segment.used();
    segment.write(&mut pushed(&[copy])).unwrap();
    let mut file = fs::read(&segment.path).unwrap();
    file[at + FRAME_HEADER_BYTES] ^= 1;
    let (found, scan) = scanned(&file, &segment);
    assert_eq!((found.len(), scan.at, scan.ending), (4, at, Ending::Torn));
}

proptest! {
    /// Bytes that nobody wrote are never a panic, and never a record.
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), tail in 0_usize..300) {
        let directory = [7; 16];
        let salt = frame::Salt::new(frame::FileKind::Segment, directory, 1);
        bytes.resize(bytes.len() + tail, 0);
        let mut records = 0;
        let scan = scan(&bytes, salt, |_, _| { records += 1; Ok::<(), ()>(()) }).unwrap();
        prop_assert_eq!(records, 0);
        prop_assert!(matches!(scan.ending, Ending::Open | Ending::Torn));
    }

    /// Whatever is appended, in batches of any size, comes back.
    #[test]
    fn what_goes_in_comes_out(
        records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..700), 1..12)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap();
        let (journal, _) =
            Journal::open(&directory, options(), &mut |_| Ok(()), &mut |_| {}).unwrap();
        for record in &records {
            journal.append(record);
        }
        journal.close();
        prop_assert_eq!(&read(&directory, false).0, &records);
    }
}
