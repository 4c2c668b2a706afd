//! Backups: all that a node holds as one stream, and such a stream back into a node or a directory.
//!
//! A backup is taken in slices, each copied under the shard's lock for less than a millisecond and
//! encoded after it, while writes go on. It begins with the vector, so it is what a peer would have
//! that was filled meanwhile: of every write before its beginning, that or something newer; of those
//! made meanwhile, some. The next slice is copied when somebody takes it, so a slow reader holds one
//! slice and nothing else.
//!
//! Into a running node a backup goes by [`Restore`], in batches, by the rules of
//! [`crate::protocol::restore`]. A new data directory takes the records as they are
//! ([`make_directory`]), with their stamps and dots, under a new identity.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::durable::IDENTITY_BLOB;
use super::node::Node;
use crate::net::{IdentityError, NodeIdentity};
use crate::protocol::record::{Append, RECORD_VERSION, RecordError};
use crate::protocol::restore::{self, BackedUp, RestoreRefused, Restored};
use crate::protocol::store::Cursor;
use crate::storage::{
    BackupError, BackupPart, BackupReader, BackupWriter, Directory, Journal, JournalOptions,
    StorageError, Sync,
};

/// The bytes of cells that are copied out of the shard at a time: under a millisecond.
const SLICE_BYTES: usize = 256 * 1024;

/// The bytes of cells that are restored at a time, with the shard locked: under a millisecond.
const BATCH_BYTES: usize = 16 * 1024;

/// How many bytes are read from a file at a time.
const PORTION_BYTES: usize = 256 * 1024;

/// What a data directory is called while it is made.
const UNFINISHED_SUFFIX: &str = "restoring";

/// What a backup says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct About {
    /// The version of the program that made it.
    pub version: String,
    /// The version of its records.
    pub records: u32,
    /// The cluster.
    pub cluster: String,
    /// The id of the node that made it.
    pub node: String,
    /// The node's name.
    pub name: String,
    /// When it was begun, in seconds since 1970, by the node's clock.
    pub taken_unix: u64,
}

/// A backup that is being taken, piece by piece; see the module's documentation.
#[derive(Debug)]
pub struct Backup {
    node: Node,
    writer: Option<BackupWriter>,
    next: Next,
    /// How often the node had begun anew when the backup was begun.
    rebuilds: u64,
}

/// What comes next.
#[derive(Debug)]
enum Next {
    Beginning(Vec<u8>),
    Head,
    Cells(Cursor),
    End,
}

/// Why a backup cannot be restored, or not further.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It is no whole backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Its records are of a newer version.
    #[error(
        "the backup has records of version {found}, this program knows version {RECORD_VERSION}: use \
         the newer program that made it ({by})"
    )]
    NewerRecords {
        /// Their version.
        found: u32,
        /// The version of the program that made it.
        by: String,
    },
    /// A piece is whole but cannot be understood.
    #[error("the piece of the backup before byte {offset} cannot be read: {source}")]
    Records {
        /// Where it ends.
        offset: u64,
        /// What is wrong with it.
        source: RecordError,
    },
    /// What it says about itself cannot be understood.
    #[error("the backup does not say properly what it is: {0}")]
    About(serde_json::Error),
    /// A cell cannot be written.
    #[error(transparent)]
    Refused(RestoreRefused),
    /// The node takes no writes.
    #[error("writes are refused now: {reason}")]
    Unwritable {
        /// Why.
        reason: String,
    },
}

/// A backup on its way into a running node.
#[derive(Debug)]
pub struct Restore {
    node: Node,
    reader: Checked,
    counts: Restored,
}

/// Takes a backup apart, and its records as well.
#[derive(Debug, Default)]
struct Checked {
    reader: BackupReader,
    about: Option<About>,
    cells: u64,
}

/// Records as they stand in a backup, and their cells.
type Piece = (Vec<u8>, Vec<BackedUp>);

impl Checked {
    fn push(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
    }

    /// The records that come next as a whole, and their cells.
    fn next_part(&mut self) -> Result<Option<Piece>, RestoreError> {
        while let Some(part) = self.reader.next_part()? {
            match part {
                BackupPart::About(bytes) => {
                    let about: About =
                        serde_json::from_slice(&bytes).map_err(RestoreError::About)?;
                    if about.records > RECORD_VERSION {
                        let (found, by) = (about.records, about.version);
                        return Err(RestoreError::NewerRecords { found, by });
                    }
                    self.about = Some(about);
                }
                BackupPart::Records(records) => {
                    let offset = self.reader.bytes();
                    let cells = restore::cells(&records)
                        .map_err(|source| RestoreError::Records { offset, source })?;
                    self.cells += cells.len() as u64;
                    return Ok(Some((records, cells)));
                }
                BackupPart::End(summary) if summary.cells != self.cells => {
                    let what = "it has not as many cells as its end says";
                    return Err(BackupError::Damaged { offset: self.reader.bytes(), what }.into());
                }
                BackupPart::End(_) => {}
            }
        }
        Ok(None)
    }

    /// Says that nothing more comes.
    fn finish(self) -> Result<About, RestoreError> {
        self.reader.finish()?;
        // A stream with an end has a description.
        self.about.ok_or(RestoreError::Backup(BackupError::Foreign))
    }
}

/// Why a backup cannot be taken now.
#[derive(Debug, thiserror::Error)]
pub enum BackupRefused {
    /// The node has not all of its own data at hand.
    #[error("this node fills itself anew from its peers: take the backup from another, or later")]
    Filling,
    /// The system gives no random numbers.
    #[error(transparent)]
    Random(#[from] IdentityError),
}

impl Node {
    /// Begins a backup of all that this node holds.
    ///
    /// # Errors
    /// When this node fills itself anew, or the system gives no random numbers.
    pub fn backup(&self) -> Result<Backup, BackupRefused> {
        if self.enter().shard().is_filling() {
            return Err(BackupRefused::Filling);
        }
        let config = self.config();
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            records: RECORD_VERSION,
            cluster: config.cluster.clone(),
            node: self.id().to_string(),
            name: config.name.clone(),
            taken_unix: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs()),
        };
        let about = serde_json::to_vec(&about).expect("strings and numbers have a JSON");
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|error| BackupRefused::Random(error.into()))?;
        let (writer, beginning) = BackupWriter::begin(id, &about);
        let next = Next::Beginning(beginning);
        Ok(Backup { node: self.clone(), writer: Some(writer), next, rebuilds: 0 })
    }

    /// Begins to restore a backup into this node, by the rules of [`crate::protocol::restore`].
    pub fn restore(&self) -> Restore {
        Restore { node: self.clone(), reader: Checked::default(), counts: Restored::default() }
    }
}

impl Backup {
    /// The bytes that come next; `None` after the last.
    pub fn next_bytes(&mut self) -> Option<Vec<u8>> {
        let writer = self.writer.as_mut()?;
        match std::mem::replace(&mut self.next, Next::Head) {
            Next::Beginning(bytes) => Some(bytes),
            Next::Head => {
                self.next = Next::Cells(Cursor::default());
                let mut append = Append::default();
                let entered = self.node.enter();
                entered.shard().export_head(&mut append);
                self.rebuilds = entered.shard().counters().rebuilds;
                drop(entered);
                Some(writer.piece(&append.records, 0))
            }
            Next::Cells(from) => {
                let entered = self.node.enter();
                if entered.shard().counters().rebuilds != self.rebuilds {
                    // What the head claims is not here any more. Without an end, nobody takes it for
                    // whole.
                    log::warn!("a backup was broken off, as this node begins anew");
                    self.writer = None;
                    return None;
                }
                let (cells, next) = entered.shard().back_up(&from, SLICE_BYTES);
                drop(entered);
                self.next = next.map_or(Next::End, Next::Cells);
                let count = cells.len() as u64;
                let mut append = Append::default();
                restore::record(cells, &mut append);
                Some(writer.piece(&append.records, count))
            }
            Next::End => self.writer.take().map(|writer| writer.end().0),
        }
    }
}

impl Restore {
    /// Restores what the next bytes complete. Waits while the disk is behind.
    ///
    /// # Errors
    /// When it is no backup, or a cell cannot be written. What came before stays restored; see
    /// [`Self::counts`].
    pub async fn push(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        self.reader.push(bytes);
        while let Some((_, cells)) = self.reader.next_part()? {
            let mut cells = VecDeque::from(cells);
            while !cells.is_empty() {
                self.node.uncrowded().await;
                let restored = self.node.enter().restore(&mut cells, BATCH_BYTES, &mut self.counts);
                restored.map_err(|refused| self.refused(refused))?;
                // Clients of this node have their turn.
                async_std::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// What became of the cells so far.
    pub fn counts(&self) -> Restored {
        self.counts
    }

    /// Says that no more bytes come, and waits until everything is durable.
    ///
    /// # Errors
    /// When the backup has not come to its end, or the disk cannot make it durable.
    pub async fn finish(self) -> Result<Restored, RestoreError> {
        let Self { node, reader, counts } = self;
        reader.finish()?;
        let synced = node.synced().await;
        synced.map_err(|stopped| RestoreError::Unwritable { reason: stopped.to_string() })?;
        Ok(counts)
    }

    fn refused(&self, refused: RestoreRefused) -> RestoreError {
        match (refused, self.node.refuses_writes()) {
            (RestoreRefused::Unwritable, Some(reason)) => RestoreError::Unwritable { reason },
            (refused, _) => RestoreError::Refused(refused),
        }
    }
}

/// What a backup has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Made {
    /// What it says about itself.
    pub about: About,
    /// Cells that show something.
    pub live: u64,
    /// Deletions.
    pub deleted: u64,
    /// Its bytes.
    pub bytes: u64,
}

/// Why there is no new data directory. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// Something is there already.
    #[error(
        "{} is there already and is not empty: name a new directory; to put a backup into a node that \
         runs, use --http", path.display()
    )]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier attempt was interrupted.
    #[error("{} was left behind by a restore that was interrupted: remove it, then try again", path.display())]
    Unfinished {
        /// What it has left.
        path: PathBuf,
    },
    /// The backup cannot be read.
    #[error("cannot read the backup: {0}")]
    Read(io::Error),
    /// The backup is not acceptable.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The directory cannot be written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The directory cannot be given its name.
    #[error("cannot put the directory at {}: {source}", path.display())]
    Rename {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no new identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Reads a backup to its end and says what it has; `progress` is told the bytes so far. Blocks.
///
/// # Errors
/// When it cannot be read or is no whole backup.
pub fn check(source: impl Read, progress: impl FnMut(u64)) -> Result<Made, MakeError> {
    read(source, progress, |_| Ok(()))
}

/// Makes a new data directory of a backup, with an identity of its own. Blocks.
///
/// It is made under a temporary name beside it, and is there as a whole or not at all.
///
/// The cells keep their stamps and dots: a node on this directory is to the cluster of the backup what
/// a peer would be that was away since then. To put data back into a cluster that still runs, restore
/// into one of its nodes.
///
/// # Errors
/// When the directory is there and not empty, the backup is not whole, or the disk refuses.
pub fn make_directory(
    path: &Path,
    source: impl Read,
    progress: impl FnMut(u64),
) -> Result<Made, MakeError> {
    let is_free = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(MakeError::Exists { path: path.to_owned() });
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".");
    unfinished.push(UNFINISHED_SUFFIX);
    let unfinished = PathBuf::from(unfinished);
    if unfinished.exists() {
        return Err(MakeError::Unfinished { path: unfinished });
    }
    let made = fill_directory(&unfinished, source, progress).and_then(|made| {
        let rename = |source| MakeError::Rename { path: path.to_owned(), source };
        fs::rename(&unfinished, path).map_err(rename)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = fs::File::open(parent.unwrap_or(Path::new(".")));
        parent.and_then(|parent| parent.sync_all()).map_err(rename)?;
        Ok(made)
    });
    if made.is_err() {
        // It may not even have been made.
        let _ = fs::remove_dir_all(&unfinished);
    }
    made
}

fn fill_directory(
    path: &Path,
    source: impl Read,
    progress: impl FnMut(u64),
) -> Result<Made, MakeError> {
    let directory = Directory::open(path)?;
    directory.write_blob(IDENTITY_BLOB, NodeIdentity::fresh()?.seed())?;
    let options = JournalOptions::new(Sync::Always);
    let (journal, _) = Journal::open(&directory, options, &mut |_| Ok(()), &mut |_| {})?;
    let mut writer = journal.begin_snapshot()?;
    let made = read(source, progress, |records| Ok(writer.write(records)?))?;
    writer.finish()?;
    journal.close();
    Ok(made)
}

fn read(
    mut source: impl Read,
    mut progress: impl FnMut(u64),
    mut take: impl FnMut(&[u8]) -> Result<(), MakeError>,
) -> Result<Made, MakeError> {
    let mut reader = Checked::default();
    let mut portion = vec![0; PORTION_BYTES];
    let (mut live, mut deleted, mut bytes) = (0, 0, 0);
    loop {
        let count = match source.read(&mut portion) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(MakeError::Read(error)),
        };
        bytes += count as u64;
        reader.push(portion.get(..count).unwrap_or_default());
        while let Some((records, cells)) = reader.next_part()? {
            let deletions = cells.iter().filter(|cell| cell.is_deletion()).count() as u64;
            deleted += deletions;
            live += cells.len() as u64 - deletions;
            take(&records)?;
        }
        progress(bytes);
    }
    let about = reader.finish()?;
    Ok(Made { about, live, deleted, bytes })
}
