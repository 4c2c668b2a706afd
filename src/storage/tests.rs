//! Stories of a journal: appended, synced, closed, killed, full, damaged, repaired.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::{self, block_on};
use parking_lot::Mutex;

use super::directory::file_names;
use super::*;

/// Nothing here takes as long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

fn open_with(
    directory: &Directory,
    options: JournalOptions,
) -> Result<(Journal, Recovery, Vec<Vec<u8>>), StorageError> {
    let mut records = Vec::new();
    let mut visit = |frame: RecoveredFrame<'_>| {
        records.push(frame.bytes.to_vec());
        Ok(())
    };
    let (journal, recovery) = Journal::open(directory, options, &mut visit, &mut |_| {})?;
    Ok((journal, recovery, records))
}

fn small(sync: Sync) -> JournalOptions {
    JournalOptions { segment_bytes: 4096, ..JournalOptions::new(sync) }
}

fn open(directory: &Directory) -> (Journal, Recovery, Vec<Vec<u8>>) {
    open_with(directory, small(Sync::Always)).unwrap()
}

fn words(records: &[Vec<u8>]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record).into_owned()).collect()
}

/// Waits for a future, but not for ever.
fn within_deadline<T>(wanted: impl Future<Output = T>) -> T {
    let (send, expired) = (event_listener::Event::new(), Instant::now() + DEADLINE);
    let never = send.listen();
    let late = async {
        let timer = async_io::Timer::at(expired);
        timer.await;
        drop(never);
        None
    };
    block_on(future::or(async { Some(wanted.await) }, late)).expect("not within the deadline")
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let began = Instant::now();
    while !ready() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for name in file_names(from).unwrap() {
        if from.join(&name).is_file() && name != "lock" {
            fs::copy(from.join(&name), to.join(&name)).unwrap();
        }
    }
}

/// Records of any length come back in order after an orderly end, over many restarts, and a restart
/// that wrote nothing leaves no more files than before.
#[test]
fn appended_closed_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for round in 0..4_usize {
        let (journal, recovery, records) = open(&directory);
        assert_eq!(records, expected);
        assert_eq!(recovery.frames, expected.len() as u64);
        let mut last = Position(0);
        for length in [0, 1, 100, 5_000, 70_000, 3, 4_000, 200_000] {
            let record = vec![round as u8; length + round];
            let position = journal.append(&record);
            assert!(position > last);
            last = position;
            expected.push(record);
        }
        within_deadline(journal.synced(last)).unwrap();
        assert_eq!(journal.durable(), last);
        journal.close();
        assert_eq!(journal.state(), State::Closed);
        assert_eq!(block_on(journal.synced(journal.append(b"late"))), Err(Stopped::Closed));
        assert_eq!(journal.counts().records_discarded, 1);
    }
    let files = |directory: &Directory| file_names(directory.path()).unwrap();
    drop(open(&directory));
    let before = files(&directory);
    for _ in 0..3 {
        drop(open(&directory));
        assert_eq!(files(&directory), before);
    }
}

/// One journal per directory at a time; the next one when the first has gone.
#[test]
fn opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    let error = open_with(&directory, small(Sync::Always)).unwrap_err();
    assert!(matches!(error, StorageError::JournalOpen { .. }));
    drop(journal);
    open(&directory);
}

/// The longest record is longer than a segment and comes back; one byte more is the caller's fault.
#[test]
fn the_longest_record() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    journal.append(b"before");
    let mut record = vec![1; PAYLOAD_BYTES_MAX];
    record[PAYLOAD_BYTES_MAX / 2] = 7;
    let position = journal.append(&record);
    assert!(journal.pending_bytes() > 0 || journal.durable() >= position);
    within_deadline(journal.synced(journal.append(b"after"))).unwrap();
    drop(journal);
    let (_, _, records) = open(&directory);
    assert_eq!(records.len(), 3);
    assert!(records[1] == record);
    assert_eq!(records[2], b"after");
}

/// Everything that many threads append becomes durable, in fewer syncs than records, and the callback
/// hears of it in order.
#[test]
fn many_writers_share_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let inside = Arc::clone(&told);
    let on_durable: OnDurable = Box::new(move |position| inside.lock().push(position));
    let options = JournalOptions { on_durable, ..JournalOptions::new(Sync::Always) };
    let (journal, ..) = open_with(&directory, options).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8_u8 {
            let journal = journal.clone();
            scope.spawn(move || {
                for number in 0..50_u8 {
                    block_on(journal.synced(journal.append(&[writer, number]))).unwrap();
                }
            });
        }
    });
    let counts = journal.counts();
    assert_eq!((counts.records_written, counts.records_discarded), (400, 0));
    assert!(counts.syncs < 400, "{counts:?}");
    assert!(counts.sync_longest >= counts.sync_last && counts.sync_last > Duration::ZERO);
    drop(journal);
    let told = told.lock();
    assert!(told.is_sorted());
    assert_eq!(told.last(), Some(&Position(400)));
    let (_, _, records) = open(&directory);
    for writer in 0..8_u8 {
        let own: Vec<u8> = records.iter().filter(|it| it[0] == writer).map(|it| it[1]).collect();
        assert_eq!(own, (0..50).collect::<Vec<u8>>());
    }
}

/// With an interval, records reach the system soon but are durable later; or at once when asked.
#[test]
fn synced_at_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let long = Duration::from_secs(3600);
    let (journal, ..) = open_with(&directory, small(Sync::Interval(long))).unwrap();
    let first = journal.append(b"one");
    wait_until("written", || journal.counts().records_written == 1);
    assert_eq!((journal.counts().syncs, journal.durable()), (0, Position(0)));
    journal.sync_now();
    within_deadline(journal.synced(first)).unwrap();
    let second = journal.append(b"two");
    wait_until("written", || journal.counts().records_written == 2);
    // A kill now: what the system has is read back.
    let killed = folder.path().join("killed");
    copy(directory.path(), &killed);
    let (_, _, records) = open(&Directory::open(&killed).unwrap());
    assert_eq!(words(&records), ["one", "two"]);
    assert_eq!(journal.durable(), first);
    journal.close();
    assert_eq!(journal.durable(), second);

    let brief = Duration::from_millis(30);
    let (journal, ..) = open_with(&directory, small(Sync::Interval(brief))).unwrap();
    let began = Instant::now();
    within_deadline(journal.synced(journal.append(b"three"))).unwrap();
    assert!(began.elapsed() >= brief);
}

/// A torn tail is cut once and for all, and records go on after it.
#[test]
fn a_torn_tail_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let live = Directory::open(folder.path().join("live")).unwrap();
    let (journal, ..) = open(&live);
    for word in ["one", "two"] {
        within_deadline(journal.synced(journal.append(word.as_bytes()))).unwrap();
    }
    let killed = folder.path().join("killed");
    copy(live.path(), &killed);
    let path = segment::segment_path(&killed, 1);
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end] ^= 1;
    fs::write(&path, bytes).unwrap();
    let directory = Directory::open(&killed).unwrap();
    let (journal, recovery, records) = open(&directory);
    assert_eq!(words(&records), ["one"]);
    let cut = recovery.cut.unwrap();
    assert_eq!((cut.path, cut.offset, cut.bytes), (path, 83, 19));
    within_deadline(journal.synced(journal.append(b"three"))).unwrap();
    drop(journal);
    let (_, recovery, records) = open(&directory);
    assert_eq!((words(&records), recovery.cut), (vec!["one".to_owned(), "three".to_owned()], None));
}

/// A snapshot replaces what was before it; what was appended while it was written follows it.
#[test]
fn a_snapshot_replaces_segments() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    for _ in 0..100 {
        journal.append(&[b'x'; 1000]);
    }
    within_deadline(journal.synced(journal.appended())).unwrap();
    let before = journal.disk_bytes();
    assert!(before > 100_000);
    for round in 0..3 {
        let mut snapshot = journal.begin_snapshot().unwrap();
        assert!(matches!(journal.begin_snapshot(), Err(StorageError::SnapshotRunning)));
        journal.append(b"meanwhile");
        snapshot.write(b"state").unwrap();
        snapshot.write(format!("round {round}").as_bytes()).unwrap();
        let done = snapshot.finish().unwrap();
        assert_eq!(done.frames, 2);
        assert_eq!(journal.durable(), journal.appended());
    }
    assert!(journal.disk_bytes() < 10_000, "{}", journal.disk_bytes());
    assert_eq!(journal.counts().segments, 1);
    journal.append(b"after");
    drop(journal);
    let (_, recovery, records) = open(&directory);
    assert_eq!(words(&records), ["state", "round 2", "meanwhile", "after"]);
    assert_eq!((recovery.frames, recovery.segments), (4, 1));
    let snapshots = file_names(directory.path()).unwrap();
    assert_eq!(snapshots.iter().filter(|name| name.starts_with("snapshot-")).count(), 1);
}

/// A snapshot that is dropped, or that a crash cut short, leaves everything as it was.
#[test]
fn an_unfinished_snapshot_is_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let live = Directory::open(folder.path().join("live")).unwrap();
    let (journal, ..) = open(&live);
    journal.append(b"one");
    let mut snapshot = journal.begin_snapshot().unwrap();
    snapshot.write(&vec![1; 3 << 20]).unwrap();
    within_deadline(journal.synced(journal.append(b"two"))).unwrap();
    let killed = folder.path().join("killed");
    copy(live.path(), &killed);
    assert!(file_names(&killed).unwrap().iter().any(|name| name.starts_with("snapshot-")));
    drop(snapshot);
    for path in [live.path(), &killed] {
        if path == killed {
            drop(Directory::open(path).unwrap());
        }
        let names = file_names(path).unwrap();
        assert!(!names.iter().any(|name| name.starts_with("snapshot-")), "{names:?}");
    }
    journal.begin_snapshot().unwrap().finish().unwrap();
    let (_, _, records) = open(&Directory::open(&killed).unwrap());
    assert_eq!(words(&records), ["one", "two"]);
}

/// A crash after a snapshot has its name and before what it replaces is gone: the new one counts, and
/// the rest goes. If the new one is damaged then, the old state is still whole and is read instead.
#[test]
fn a_snapshot_beside_what_it_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let live = Directory::open(folder.path().join("live")).unwrap();
    let (journal, ..) = open(&live);
    journal.append(b"one");
    let mut snapshot = journal.begin_snapshot().unwrap();
    snapshot.write(b"state 1").unwrap();
    snapshot.finish().unwrap();
    within_deadline(journal.synced(journal.append(b"two"))).unwrap();
    let mut snapshot = journal.begin_snapshot().unwrap();
    snapshot.write(b"state 2").unwrap();
    let both = folder.path().join("both");
    copy(live.path(), &both);
    let done = snapshot.finish().unwrap();
    let name = segment::snapshot_path(Path::new(""), done.number);
    fs::copy(live.path().join(&name), both.join(&name)).unwrap();
    let damaged = folder.path().join("damaged");
    copy(&both, &damaged);

    let both = Directory::open(&both).unwrap();
    let (journal, recovery, records) = open(&both);
    assert_eq!((words(&records), recovery.set_aside), (vec!["state 2".to_owned()], None));
    assert_eq!(journal.counts().segments, 1);
    let snapshots = file_names(both.path()).unwrap();
    assert_eq!(snapshots.iter().filter(|name| name.starts_with("snapshot-")).count(), 1);

    let mut bytes = fs::read(damaged.join(&name)).unwrap();
    bytes[70] ^= 4;
    fs::write(damaged.join(&name), bytes).unwrap();
    let damaged = Directory::open(&damaged).unwrap();
    let (_, recovery, records) = open(&damaged);
    assert_eq!(words(&records), ["state 1", "two"]);
    assert!(recovery.set_aside.unwrap().join(&name).exists());
}

/// Damage stops an ordinary start, and again. Salvage reads the rest; its journal counts for nothing
/// until a snapshot is finished; then the old files are set aside and all is well.
#[test]
fn damage_is_salvaged() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    for word in ["one", "two", "three"] {
        journal.append(word.as_bytes());
    }
    drop(journal);
    let path = segment::segment_path(directory.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(3).position(|window| window == b"two").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damage = |error: StorageError| match error {
        StorageError::Damaged { path: named, offset, .. } => {
            named == path && offset == at as u64 - 16
        }
        _ => false,
    };
    assert!(damage(open_with(&directory, small(Sync::Always)).unwrap_err()));

    let salvage = || JournalOptions { salvage: true, ..small(Sync::Always) };
    let (journal, recovery, records) = open_with(&directory, salvage()).unwrap();
    assert_eq!(words(&records), ["one", "three"]);
    assert_eq!(recovery.skipped.len(), 1);
    assert_eq!(recovery.skipped[0].offset, at as u64 - 16);
    assert_eq!(journal.state(), State::CatchingUp);
    let waits = journal.append(b"four");
    wait_until("written", || journal.counts().syncs > 0);
    assert_eq!(journal.durable(), Position(0));
    drop(journal);
    // Without a snapshot nothing has changed.
    assert!(damage(open_with(&directory, small(Sync::Always)).unwrap_err()));

    let (journal, _, records) = open_with(&directory, salvage()).unwrap();
    assert_eq!(words(&records), ["one", "three", "four"]);
    let mut snapshot = journal.begin_snapshot().unwrap();
    for record in &records {
        snapshot.write(record).unwrap();
    }
    let position = journal.append(b"five");
    assert!(position >= waits);
    snapshot.finish().unwrap();
    assert_eq!(journal.state(), State::Open);
    within_deadline(journal.synced(position)).unwrap();
    drop(journal);
    let aside = file_names(&directory.path().join("damaged-1")).unwrap();
    assert!(aside.contains(&"segment-000000000001".to_owned()), "{aside:?}");
    let (_, _, records) = open(&directory);
    assert_eq!(words(&records), ["one", "three", "four", "five"]);
}

/// What the reader cannot take is named with its place, and stays.
#[test]
fn a_record_that_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    journal.append(b"from the future");
    drop(journal);
    let mut visit = |_: RecoveredFrame<'_>| Err(Rejected("kind 77".to_owned()));
    let opened = Journal::open(&directory, small(Sync::Always), &mut visit, &mut |_| {});
    let error = opened.unwrap_err();
    assert!(matches!(&error, StorageError::Rejected { offset: 64, .. }), "{error}");
    assert!(error.to_string().contains("kind 77"));
    assert_eq!(words(&open(&directory).2), ["from the future"]);
}

/// Progress grows to the whole.
#[test]
fn progress_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let (journal, ..) = open(&directory);
    let mut snapshot = journal.begin_snapshot().unwrap();
    for _ in 0..5 {
        snapshot.write(&[0; 1 << 20]).unwrap();
    }
    snapshot.finish().unwrap();
    for _ in 0..20 {
        journal.append(&[1; 1000]);
    }
    drop(journal);
    let mut told = Vec::new();
    let mut progress = |it: Progress| told.push((it.bytes_read, it.bytes_total));
    let options = small(Sync::Always);
    let opened = Journal::open(&directory, options, &mut |_| Ok(()), &mut progress).unwrap();
    assert!(told.len() > 5 && told.is_sorted(), "{told:?}");
    let total = told[0].1;
    assert_eq!(told.last(), Some(&(total, total)));
    assert_eq!(opened.1.bytes, total);
}

/// When the disk fails, here because the directory is gone, the journal stops for good and says so to
/// everybody.
#[test]
fn a_failure_is_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path().join("gone")).unwrap();
    let (journal, ..) = open(&directory);
    within_deadline(journal.synced(journal.append(b"kept"))).unwrap();
    fs::remove_dir_all(directory.path()).unwrap();
    let mut last = Position(0);
    for _ in 0..10 {
        last = journal.append(&[0; 4000]);
    }
    let error = within_deadline(journal.synced(last)).unwrap_err();
    assert!(matches!(&error, Stopped::Failed { reason } if reason.contains("segment-")), "{error}");
    let state = within_deadline(journal.state_changed(&State::Open));
    assert!(matches!(state, State::Failed { .. }));
    within_deadline(journal.synced(Position(1))).unwrap();
    assert!(matches!(block_on(journal.synced(journal.append(b"x"))), Err(Stopped::Failed { .. })));
    assert!(matches!(journal.begin_snapshot(), Err(StorageError::Stopped(Stopped::Failed { .. }))));
    assert!(journal.counts().records_discarded > 0);
    journal.close();
    assert!(matches!(journal.state(), State::Failed { .. }));
}

/// A file system of a few kilobytes, in memory; taken away when dropped.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// `None`, and a loud word, where mounting is not allowed.
    fn mount(test: &str, bytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        if !mount.output().is_ok_and(|output| output.status.success()) {
            use std::io::Write;
            let told =
                writeln!(std::io::stderr(), "SKIPPED {test}: a tmpfs cannot be mounted here");
            told.unwrap();
            return None;
        }
        Some(Self { folder })
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &format!("remount,{options}")]).arg(self.folder.path());
        assert!(status.status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

/// A full disk: records are refused with the reason and counted; room returns, a snapshot covers the
/// gap, records are durable again. A crash before that snapshot loses nothing that was reported durable.
#[test]
fn a_full_disk_and_room_again() {
    let Some(disk) = SmallDisk::mount("a_full_disk_and_room_again", 256 << 10) else { return };
    let directory = Directory::open(disk.folder.path().join("data")).unwrap();
    let options = JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::new(Sync::Always) };
    let (journal, ..) = open_with(&directory, options).unwrap();
    let mut durable = 0_u64;
    let refused = loop {
        match within_deadline(journal.synced(journal.append(&[7; 1000]))) {
            Ok(()) => durable += 1,
            Err(stopped) => break stopped,
        }
    };
    assert!(
        matches!(&refused, Stopped::Full { reason } if reason.contains("segment-")),
        "{refused}"
    );
    assert!(refused.to_string().contains("disk is full"));
    assert!((100..256).contains(&durable), "{durable}");
    let full = journal.state();
    assert!(matches!(full, State::Full { .. }));
    assert!(matches!(
        journal.begin_snapshot(),
        Err(StorageError::Stopped(Stopped::Full { .. }) | StorageError::NoRoom { .. })
    ));
    journal.append(b"lost");
    assert_eq!(journal.counts().records_discarded, 2);
    assert_eq!(journal.durable(), Position(durable));

    disk.remount("size=1m");
    assert_eq!(within_deadline(journal.state_changed(&full)), State::CatchingUp);
    let after = journal.append(b"after");
    wait_until("written", || journal.counts().records_written == durable + 1);
    assert_eq!(journal.durable(), Position(durable));

    let killed = tempfile::tempdir().unwrap();
    copy(directory.path(), &killed.path().join("data"));
    let (_, recovery, records) = open(&Directory::open(killed.path().join("data")).unwrap());
    assert_eq!((records.len() as u64, recovery.segments_after_gap > 0), (durable, true));

    let mut snapshot = journal.begin_snapshot().unwrap();
    snapshot.write(b"state").unwrap();
    let waiting = journal.append(b"while it is written");
    snapshot.finish().unwrap();
    assert_eq!(journal.state(), State::Open);
    within_deadline(journal.synced(after)).unwrap();
    within_deadline(journal.synced(waiting)).unwrap();
    drop(journal);
    let (_, recovery, records) = open(&directory);
    assert_eq!(words(&records), ["state", "while it is written"]);
    assert_eq!(recovery.segments_after_gap, 0);
}

/// A snapshot that was begun before records were lost does not hide that they were.
#[test]
fn a_snapshot_across_a_gap_is_refused() {
    let Some(disk) = SmallDisk::mount("a_snapshot_across_a_gap_is_refused", 256 << 10) else {
        return;
    };
    let directory = Directory::open(disk.folder.path().join("data")).unwrap();
    let options = JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::new(Sync::Always) };
    let (journal, ..) = open_with(&directory, options).unwrap();
    let snapshot = journal.begin_snapshot().unwrap();
    while within_deadline(journal.synced(journal.append(&[7; 1000]))).is_ok() {}
    assert!(matches!(
        snapshot.finish(),
        Err(StorageError::SnapshotOvertaken | StorageError::NoRoom { .. })
    ));
    let full = journal.state();
    disk.remount("size=1m");
    assert_eq!(within_deadline(journal.state_changed(&full)), State::CatchingUp);
    journal.begin_snapshot().unwrap().finish().unwrap();
    assert_eq!(journal.state(), State::Open);
}

/// A disk that is full at the start: the journal opens, refuses, and takes records when there is room.
#[test]
fn full_at_the_start() {
    let Some(disk) = SmallDisk::mount("full_at_the_start", 192 << 10) else { return };
    let directory = Directory::open(disk.folder.path().join("data")).unwrap();
    let options =
        || JournalOptions { segment_bytes: 64 << 10, ..JournalOptions::new(Sync::Always) };
    let (journal, ..) = open_with(&directory, options()).unwrap();
    within_deadline(journal.synced(journal.append(b"one"))).unwrap();
    drop(journal);
    let ballast = disk.folder.path().join("ballast");
    let _ = fs::write(&ballast, vec![1; 192 << 10]).unwrap_err();
    let (journal, _, records) = open_with(&directory, options()).unwrap();
    assert_eq!(words(&records), ["one"]);
    let full = journal.state();
    assert!(matches!(full, State::Full { .. }));
    fs::remove_file(ballast).unwrap();
    // Nothing was discarded meanwhile, so nothing has to be covered.
    assert_eq!(within_deadline(journal.state_changed(&full)), State::Open);
    within_deadline(journal.synced(journal.append(b"two"))).unwrap();
    drop(journal);
    assert_eq!(words(&open_with(&directory, options()).unwrap().2), ["one", "two"]);
}

/// A disk that cannot be written is named as such before anything is tried.
#[test]
fn a_disk_that_is_read_only() {
    let Some(disk) = SmallDisk::mount("a_disk_that_is_read_only", 64 << 10) else { return };
    let path = disk.folder.path().join("data");
    drop(Directory::open(&path).unwrap());
    disk.remount("ro");
    for path in [&path, &disk.folder.path().join("new")] {
        let error = Directory::open(path).unwrap_err();
        assert!(matches!(error, StorageError::ReadOnly { .. }), "{error}");
    }
}
