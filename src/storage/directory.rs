//! The data directory: whose it is, what version wrote it, and small named blobs.
//!
//! One process has a directory at a time: it holds a lock on the file `lock`, which the system lets
//! go when the process ends, however it ends. The file `format` comes first and says which version
//! wrote the directory and the directory's random id, which is in every segment and snapshot, so
//! that a file of another directory is noticed.
//!
//! What must stay true: a directory that is not ours, or not whole, or newer, is refused before
//! anything in it is changed. A blob is old or new after a crash, never half.
//!
//! Left out: network file systems, whose locks are promises of the server.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crc32c::{crc32c, crc32c_append};

use super::error::StorageError;

/// The newest layout of a directory that this program knows.
pub const FORMAT_VERSION: u32 = 1;
/// The longest blob: identities and rosters are kilobytes; data belongs in the journal.
pub const BLOB_BYTES_MAX: usize = 1 << 20;

const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const FORMAT_MAGIC: &[u8; 8] = b"QRMRdir\n";
const BLOB_MAGIC: &[u8; 8] = b"QRMRblob";
const BLOB_SUFFIX: &str = ".blob";
const BLOB_NAME_MAX: usize = 32;
/// What is not finished yet, and of no use after a crash.
pub(super) const NEW_SUFFIX: &str = ".new";
/// Made by the file system itself at the top of a disk.
const LOST_AND_FOUND: &str = "lost+found";
/// Longer than any number of a process.
const HOLDER_BYTES_MAX: u64 = 32;

/// A data directory that this process has locked. Clones are handles to the same; the lock goes with
/// the last of them.
#[derive(Debug, Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    id: [u8; 16],
    /// Holds the lock as long as it is open.
    _lock: File,
    journal_open: AtomicBool,
}

impl Directory {
    /// Opens a data directory, making it, for this user alone, if it is not there.
    ///
    /// # Errors
    /// When it is in use, foreign, newer, incomplete, damaged or not writable; it is unchanged then.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| StorageError::io("create", path, source))?;
            let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new(".")))?;
        }
        if !path.is_dir() {
            return Err(StorageError::NotDirectory { path: path.to_owned() });
        }
        // Before a lock file would be left in a directory of somebody else.
        check_contents(path)?;
        let lock = lock(path)?;
        let is_new = check_contents(path)?;
        remove_unfinished(path)?;
        let id = if is_new { begin(path)? } else { read_format(path)? };
        Ok(Self {
            inner: Arc::new(Inner {
                path: path.to_owned(),
                id,
                _lock: lock,
                journal_open: AtomicBool::new(false),
            }),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Its random id, drawn when it was made. A copy of a directory has the same.
    pub fn id(&self) -> [u8; 16] {
        self.inner.id
    }

    /// Reads a small named piece of data; `None` if it was never written.
    ///
    /// # Errors
    /// When it is damaged or cannot be read; the error names the file.
    pub fn read_blob(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.blob_path(name)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StorageError::io("read", &path, source)),
        };
        let mut bytes = Vec::new();
        // One byte more than there may be shows that there are too many.
        file.take((BLOB_BYTES_MAX + BLOB_MAGIC.len() + 5) as u64)
            .read_to_end(&mut bytes)
            .map_err(|source| StorageError::io("read", &path, source))?;
        let content = bytes
            .strip_prefix(BLOB_MAGIC)
            .and_then(|rest| rest.split_first_chunk::<4>())
            .filter(|(crc, content)| blob_crc(name, content).to_le_bytes() == **crc)
            .map(|(_, content)| content.to_vec());
        let what = "this small file has a wrong checksum";
        content.map(Some).ok_or(StorageError::Damaged { path, offset: 0, what })
    }

    /// Writes a small named piece of data, for this user alone. It is durable when this returns; a
    /// crash leaves the old or the new one.
    ///
    /// # Errors
    /// When the name or the length is not acceptable, or when it cannot be written. The old one is
    /// still there then.
    pub fn write_blob(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.blob_path(name)?;
        if bytes.len() > BLOB_BYTES_MAX {
            let (name, bytes) = (name.to_owned(), bytes.len());
            return Err(StorageError::BlobTooLarge { name, bytes, most: BLOB_BYTES_MAX });
        }
        let crc = blob_crc(name, bytes).to_le_bytes();
        write_whole(&path, &[BLOB_MAGIC.as_slice(), &crc, bytes].concat())
    }

    fn blob_path(&self, name: &str) -> Result<PathBuf, StorageError> {
        let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > BLOB_NAME_MAX || !name.bytes().all(fine) {
            return Err(StorageError::BlobName { name: name.to_owned() });
        }
        Ok(self.inner.path.join(format!("{name}{BLOB_SUFFIX}")))
    }

    /// Claims the journal of this directory for one user of it.
    pub(super) fn claim_journal(&self) -> Result<JournalClaim, StorageError> {
        if self.inner.journal_open.swap(true, Ordering::AcqRel) {
            return Err(StorageError::JournalOpen { path: self.inner.path.clone() });
        }
        Ok(JournalClaim(self.clone()))
    }
}

/// The right to use the journal of a directory, given back when dropped.
#[derive(Debug)]
pub(super) struct JournalClaim(Directory);

impl Drop for JournalClaim {
    fn drop(&mut self) {
        self.0.inner.journal_open.store(false, Ordering::Release);
    }
}

/// The name binds the content, so that a blob under another's name is noticed.
fn blob_crc(name: &str, content: &[u8]) -> u32 {
    crc32c_append(crc32c(name.as_bytes()), content)
}

/// Whether the directory is a new one: empty but for what a start that crashed leaves.
fn check_contents(path: &Path) -> Result<bool, StorageError> {
    let names = file_names(path)?;
    if names.iter().any(|name| name == FORMAT_FILE) {
        return Ok(false);
    }
    let harmless = [LOCK_FILE, LOST_AND_FOUND, &format!("{FORMAT_FILE}{NEW_SUFFIX}")];
    let mut others = names.into_iter().filter(|name| !harmless.contains(&name.as_str()));
    match others.next() {
        None => Ok(true),
        Some(name) if is_ours(&name) => {
            Err(StorageError::Incomplete { path: path.join(FORMAT_FILE) })
        }
        Some(file) => Err(StorageError::Foreign { path: path.to_owned(), file }),
    }
}

/// Whether a name is one that we give to files.
fn is_ours(name: &str) -> bool {
    let name = name.strip_suffix(NEW_SUFFIX).unwrap_or(name);
    name.ends_with(BLOB_SUFFIX) || name.starts_with("segment-") || name.starts_with("snapshot-")
}

/// What is in a directory, in order.
pub(super) fn file_names(path: &Path) -> Result<Vec<String>, StorageError> {
    let listing = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let listing = listing.map_err(|source| StorageError::io("list", path, source))?;
    let mut names: Vec<String> =
        listing.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let lock_path = path.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file =
        options.open(&lock_path).map_err(|source| StorageError::io("open", &lock_path, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Unreadable, the holder is only less well described.
            let read = file.take(HOLDER_BYTES_MAX).read_to_string(&mut holder);
            let holder = read.ok().and_then(|_| holder.trim().parse().ok());
            return Err(StorageError::InUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => {
            return Err(StorageError::io("lock", &lock_path, source));
        }
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        // The lock holds without the number in it: a full disk is no reason not to start.
        Err(error) if !super::error::is_lack_of_room(error.kind()) => {
            Err(StorageError::io("write", &lock_path, error))
        }
        _ => Ok(file),
    }
}

/// Removes what an earlier run had begun under temporary names.
fn remove_unfinished(path: &Path) -> Result<(), StorageError> {
    for name in file_names(path)? {
        let unfinished = name.strip_suffix(NEW_SUFFIX);
        if unfinished.is_some_and(|name| name == FORMAT_FILE || is_ours(name)) {
            let path = path.join(name);
            fs::remove_file(&path).map_err(|source| StorageError::io("remove", &path, source))?;
        }
    }
    Ok(())
}

/// Writes the `format` file of a new directory and draws its id.
fn begin(path: &Path) -> Result<[u8; 16], StorageError> {
    let format_path = path.join(FORMAT_FILE);
    let mut id = [0; 16];
    getrandom::fill(&mut id)
        .map_err(|error| StorageError::io("draw an id for", path, io::Error::other(error)))?;
    let mut bytes = [FORMAT_MAGIC.as_slice(), &FORMAT_VERSION.to_le_bytes(), &id].concat();
    bytes.extend(crc32c(&bytes).to_le_bytes());
    write_whole(&format_path, &bytes)?;
    Ok(id)
}

fn read_format(path: &Path) -> Result<[u8; 16], StorageError> {
    let path = path.join(FORMAT_FILE);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(4096).read_to_end(&mut bytes))
        .map_err(|source| StorageError::io("read", &path, source))?;
    let damaged = |what| StorageError::Damaged { path: path.clone(), offset: 0, what };
    let rest = bytes
        .strip_prefix(FORMAT_MAGIC)
        .ok_or_else(|| damaged("it does not begin as a format file does"))?;
    let body =
        bytes.split_last_chunk::<4>().filter(|(body, crc)| crc32c(body).to_le_bytes() == **crc);
    let (version, id) = rest
        .split_first_chunk::<4>()
        .filter(|_| body.is_some())
        .ok_or_else(|| damaged("the format file has a wrong checksum"))?;
    let found = u32::from_le_bytes(*version);
    if found > FORMAT_VERSION {
        return Err(StorageError::NewerFormat { path, found, known: FORMAT_VERSION });
    }
    id.first_chunk().copied().ok_or_else(|| damaged("the format file is too short"))
}

/// Writes a file under a temporary name, syncs it, and puts it in its place.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = with_new_suffix(path);
    let result = create_private(&temporary).and_then(|mut file| {
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|source| StorageError::io("write", &temporary, source))
    });
    let result = result.and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| StorageError::io("rename", path, source))
    });
    if result.is_err() {
        // What is left is removed at the next start otherwise.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    sync_directory(path.parent().unwrap_or(Path::new(".")))
}

/// The name that a file has until it is whole.
pub(super) fn with_new_suffix(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEW_SUFFIX);
    name.into()
}

/// Makes an empty file for this user alone, in place of any that has the name.
pub(super) fn create_private(path: &Path) -> Result<File, StorageError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|source| StorageError::io("create", path, source))
}

/// Makes names durable: those that were given, changed and taken away in the directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| StorageError::io("sync", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// A directory is made with its parents, for its user alone, and is the same when opened again.
    #[test]
    fn made_once_and_opened_again() {
        let folder = folder();
        let path = folder.path().join("a/b");
        let id = Directory::open(&path).unwrap().id();
        assert_eq!(Directory::open(&path).unwrap().id(), id);
        assert_ne!(Directory::open(folder.path().join("c")).unwrap().id(), id);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    /// A second opening says who holds the directory; the lock goes with the last handle.
    #[test]
    fn one_holder() {
        let folder = folder();
        let first = Directory::open(folder.path()).unwrap();
        let handle = first.clone();
        drop(first);
        let error = Directory::open(folder.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(error, StorageError::InUse { holder: Some(it), .. } if it == pid));
        assert!(error.to_string().contains(&format!("process {pid}")), "{error}");
        drop(handle);
        Directory::open(folder.path()).unwrap();
    }

    /// A directory with files of somebody else is refused and stays as it is.
    #[test]
    fn foreign_directory() {
        let folder = folder();
        fs::write(folder.path().join("thesis.txt"), "x").unwrap();
        let error = Directory::open(folder.path()).unwrap_err();
        assert!(matches!(&error, StorageError::Foreign { file, .. } if file == "thesis.txt"));
        assert_eq!(file_names(folder.path()).unwrap(), ["thesis.txt"]);
        let error = Directory::open(folder.path().join("thesis.txt")).unwrap_err();
        assert!(matches!(error, StorageError::NotDirectory { .. }));
    }

    /// Files of ours without the one that comes first: a copy in part.
    #[test]
    fn half_copied_directory() {
        for name in ["segment-000000000001", "snapshot-000000000002", "identity.blob"] {
            let folder = folder();
            fs::write(folder.path().join(name), "x").unwrap();
            let error = Directory::open(folder.path()).unwrap_err();
            assert!(matches!(error, StorageError::Incomplete { .. }), "{name}: {error}");
            assert_eq!(file_names(folder.path()).unwrap(), [name]);
        }
    }

    /// What a start that crashed leaves is no obstacle; neither is what the file system makes.
    #[test]
    fn interrupted_beginning() {
        let folder = folder();
        fs::write(folder.path().join("format.new"), "QR").unwrap();
        fs::write(folder.path().join("lock"), "1\n").unwrap();
        fs::create_dir(folder.path().join("lost+found")).unwrap();
        drop(Directory::open(folder.path()).unwrap());
        assert_eq!(file_names(folder.path()).unwrap(), ["format", "lock", "lost+found"]);
    }

    /// A newer format is named; every flipped bit and every cut of the format file is noticed.
    #[test]
    fn format_of_others() {
        let folder = folder();
        drop(Directory::open(folder.path()).unwrap());
        let path = folder.path().join(FORMAT_FILE);
        let good = fs::read(&path).unwrap();
        let mut newer = good.clone();
        newer[8] = 7;
        let body = newer.len() - 4;
        let crc = crc32c(&newer[..body]);
        newer[body..].copy_from_slice(&crc.to_le_bytes());
        fs::write(&path, newer).unwrap();
        let error = Directory::open(folder.path()).unwrap_err();
        assert!(matches!(error, StorageError::NewerFormat { found: 7, known: 1, .. }), "{error}");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let error = Directory::open(folder.path()).unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            let error = Directory::open(folder.path()).unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        }
    }

    /// Blobs are what was written last, private, bounded, and named when they are damaged.
    #[test]
    fn blobs() {
        let folder = folder();
        let directory = Directory::open(folder.path()).unwrap();
        assert_eq!(directory.read_blob("identity").unwrap(), None);
        directory.write_blob("identity", b"one").unwrap();
        directory.write_blob("identity", b"other").unwrap();
        directory.write_blob("empty", b"").unwrap();
        directory.write_blob("large", &vec![7; BLOB_BYTES_MAX]).unwrap();
        assert_eq!(directory.read_blob("identity").unwrap().as_deref(), Some(&b"other"[..]));
        assert_eq!(directory.read_blob("empty").unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(directory.read_blob("large").unwrap().map(|it| it.len()), Some(BLOB_BYTES_MAX));
        let path = folder.path().join("identity.blob");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let too_large = directory.write_blob("large", &vec![7; BLOB_BYTES_MAX + 1]).unwrap_err();
        assert!(matches!(too_large, StorageError::BlobTooLarge { .. }));
        for name in ["", "../x", "A", "a.b", &"a".repeat(33)] {
            let error = directory.write_blob(name, b"").unwrap_err();
            assert!(matches!(error, StorageError::BlobName { .. }), "{name}");
        }
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            let error = directory.read_blob("identity").unwrap_err();
            assert!(error.to_string().contains("identity.blob"), "{error}");
        }
        // A blob is not accepted under another's name.
        fs::copy(folder.path().join("large.blob"), &path).unwrap();
        directory.read_blob("identity").unwrap_err();
    }
}
