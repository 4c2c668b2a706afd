//! Durable bytes: a locked data directory, a journal that is appended to, and snapshots.
//!
//! This room keeps bytes and does not know what they mean. It is blocking code with two threads of its
//! own; the rooms above decide what a record says, and what to do when the disk is full.
//!
//! A [`Directory`] belongs to one process at a time. It holds small named blobs (who this node is), and
//! the files of one [`Journal`]: segments, to which records are appended, and snapshots, each of which
//! replaces all segments before it.
//!
//! One sync of the disk takes as long as two hundred records take to be handled, so records share it:
//! [`Journal::append`] only copies a record, and one thread writes and syncs whatever has gathered
//! while the sync before was running. Whoever must not answer before a record is durable waits for
//! its [`Position`] ([`Journal::synced`]) or is told ([`JournalOptions::on_durable`]).
//!
//! # After a crash
//!
//! [`Journal::open`] gives back the newest snapshot and all records after it, in order: those that were
//! durable, and perhaps some that were not yet, but never with a hole. Three things can be at the end of
//! the last segment. *Zeros*: the process was killed. A *torn tail*, bytes that are no record: the power
//! failed while they were written; nobody was told that they were durable, and they are cut. *Damage*,
//! a record that cannot be read although a later record says that it had been synced: then something
//! that was promised is gone. Nothing is cut, the file and the place are named, and a person decides:
//! restore, salvage ([`JournalOptions::salvage`]) or start empty and let the peers fill it.
//!
//! # When the disk is full
//!
//! Segments are filled with zeros before they are used, so a full disk shows when the next one is to
//! be made, never in the middle of a record. From then on records are discarded and counted, and the
//! [`State`] says so. When there is room again, the journal needs a new snapshot before it is worth
//! anything. `journal` has the picture of the states.
//!
//! # The files
//!
//! - `directory`: lock, format, blobs; `error`: what can be wrong.
//! - `frame`: how a record stands in a file; `segment`: the journal's files; `window`: reading large
//!   ones.
//! - `journal`: the handle; `writer`: its thread; `prepare`: the next segment, made ahead; `counts`.
//! - `backup`: a stream of records that proves that it is whole, for people to keep.
//! - `snapshot`: writing and reading one; `recovery`: reading a directory back.
//! - `law_tests`: every bit flipped, every byte cut, every order of sectors after a power loss;
//!   `tests`: stories.
//!
//! What must stay true: what was reported durable comes back, in order and unchanged, or an error says
//! where it is missing. No bytes on disk, whoever wrote them, make this panic or take memory that is
//! not there.
//!
//! Left out: compression and encryption (the disk's and the caller's matter), direct and asynchronous
//! IO (one thread that syncs is bound by the disk), network file systems.

mod backup;
mod counts;
mod directory;
mod error;
mod frame;
mod journal;
#[cfg(test)]
mod law_tests;
mod prepare;
mod recovery;
mod segment;
mod snapshot;
#[cfg(test)]
mod tests;
mod window;
mod writer;

pub use backup::{BackupError, BackupPart, BackupReader, BackupSummary, BackupWriter};
pub use counts::JournalCounts;
pub use directory::{BLOB_BYTES_MAX, Directory, FORMAT_VERSION};
pub use error::{Rejected, Stopped, StorageError};
pub use frame::PAYLOAD_BYTES_MAX;
pub use journal::{
    Journal, JournalOptions, OnDurable, PENDING_BYTES_CROWDED, Position, SEGMENT_BYTES, State, Sync,
};
pub use recovery::{
    Cut, FrameKind, Progress, RecoveredFrame, Recovery, SEGMENT_BYTES_MAX, Skipped,
};
pub use snapshot::{Snapshot, SnapshotWriter};
