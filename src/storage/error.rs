//! Why storage refuses, stops or gives up, each with what is wrong, where, and what to do next.
//!
//! Every variant is a fact that a caller can match on. What can be wrong with a directory that
//! somebody else has touched has a variant of its own; the rest of what the operating system can
//! say is [`StorageError::Io`] with the operation and the file.

use std::io;
use std::path::{Path, PathBuf};

/// What goes wrong with a directory, its journal, its snapshots and its blobs.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process, or this one, has the directory open. Nothing was changed.
    #[error(
        "{} is in use by {}: stop it first, or give this node a directory of its own",
        path.display(), holder.map_or("another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, if it said so.
        holder: Option<u32>,
    },
    /// The directory holds files that are not ours. Nothing was changed.
    #[error(
        "{} is not a data directory of this program and is not empty (it holds `{file}`): name \
         another directory, or empty this one", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// One of the files.
        file: String,
    },
    /// What stands at the path is no directory. Nothing was changed.
    #[error("{} is not a directory: name another path", path.display())]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be written. Nothing was changed.
    #[error(
        "{} cannot be written ({source}): make it writable for this user, or name another \
         directory", path.display()
    )]
    ReadOnly {
        /// The directory or the file in it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A newer version of this program has written the directory. Nothing was changed.
    #[error(
        "{} has format {found}, this program knows formats up to {known}: run the newer program \
         that wrote it", path.display()
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format that it has.
        found: u32,
        /// The newest format that this program knows.
        known: u32,
    },
    /// A file that has to be there is not: the directory was copied or restored in part.
    #[error(
        "{} is missing: the directory was copied or restored in part; copy all of it, with the \
         node stopped, or start with an empty directory and let the peers fill it", path.display()
    )]
    Incomplete {
        /// The file that is not there.
        path: PathBuf,
    },
    /// A file belongs to another data directory.
    #[error(
        "{} belongs to another data directory: directories are copied as a whole; take the file \
         out, or restore the directory from one backup", path.display()
    )]
    Mixed {
        /// The file.
        path: PathBuf,
    },
    /// Bytes are not what was written. Nothing was cut.
    #[error(
        "{} is damaged at byte {offset}: {what}; nothing was cut. Check the disk; then restore the \
         directory from a backup, salvage what is readable, or start with an empty directory and \
         let the peers fill it", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file the first record that cannot be read begins.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Whoever reads the records did not accept one.
    #[error(
        "a record in {} at byte {offset} cannot be applied: {reason}. It is whole, so another \
         version of this program wrote it: run that version, or salvage the directory",
        path.display()
    )]
    Rejected {
        /// The file.
        path: PathBuf,
        /// Where in the file the record begins.
        offset: u64,
        /// What the reader said.
        reason: Rejected,
    },
    /// A name that is not one of a blob: a fault of the caller.
    #[error("`{name}` is no name for a blob: up to 32 lower-case letters, digits and hyphens")]
    BlobName {
        /// The name.
        name: String,
    },
    /// A blob is larger than a blob may be: a fault of the caller. Nothing was changed.
    #[error("the blob `{name}` has {bytes} bytes, at most {most} are kept")]
    BlobTooLarge {
        /// The name.
        name: String,
        /// Its length.
        bytes: usize,
        /// The most that is kept.
        most: usize,
    },
    /// The journal of this directory is open already: a fault of the caller.
    #[error("the journal in {} is open already", path.display())]
    JournalOpen {
        /// The directory.
        path: PathBuf,
    },
    /// A snapshot is being written already: wait for it.
    #[error("a snapshot is being written already")]
    SnapshotRunning,
    /// Writes were lost while the snapshot was written, so it is of no use. The old state stays.
    #[error("records were discarded while the snapshot was written; begin another one")]
    SnapshotOvertaken,
    /// There is no room. What was there before is unchanged.
    #[error("no room for {}: {source}; free some space", path.display())]
    NoRoom {
        /// What was to be written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The journal takes nothing now.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl StorageError {
    /// What the system said, as a fact about a file; a lack of space or of rights is told apart.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            kind if is_lack_of_room(kind) => Self::NoRoom { path, source },
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
                Self::ReadOnly { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether it is only space that is missing, so that trying again later makes sense.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }
}

/// Whether an error says that space, or a share of it, is used up.
pub(super) fn is_lack_of_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a record will not become durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// There is no room on the disk: the record was discarded. Space is looked for every second.
    #[error("the disk is full, writes are refused until there is room again: {reason}")]
    Full {
        /// What the system says, and about which file.
        reason: String,
    },
    /// The disk failed. That is for good: a sync that failed once proves nothing when repeated.
    #[error("the disk failed, nothing is written any more: {reason}; check it, then restart")]
    Failed {
        /// What the system says, and about which file.
        reason: String,
    },
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// What a reader of records says of one that it cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejected(pub String);
