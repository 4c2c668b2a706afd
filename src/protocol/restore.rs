//! Putting a backup back into a shard that lives: nothing comes back that was deleted, nothing newer
//! is replaced.
//!
//! A backup is what `Shard::export_head` and `Shard::export_cells` wrote at some time, perhaps in this
//! cluster and perhaps in another. Each of its cells has a stamp and a dot:
//!
//! - the dot is held here: the cell is here, or was replaced or deleted since. Nothing is done;
//! - something with a greater stamp stands in its place, or would be covered by it: nothing is done;
//! - otherwise nobody here has seen it. It is written anew, as an ordinary write of this node;
//! - a tombstone is never applied: a backup brings back what was lost, it does not delete.
//!
//! So a backup that is restored into the cluster that it came from changes nothing but what had been
//! lost, and into an empty one it brings everything back. The counter is brought above a cell's stamp
//! before the cell is written anew: from then on something greater stands in its place, and restoring
//! the same backup again changes nothing.
//!
//! The vector of the backup is not merged, since tombstones are not taken: it would claim deletions
//! that did not happen here. What was restored into *another* cluster, deleted there, and whose
//! tombstone was collected is therefore restored by the same backup a second time.

use std::collections::VecDeque;

use super::anew;
use super::boundary::{Output, Reply};
use super::cell::{CellWrite, Content, Key};
use super::record::{self, Append, KeptCell, Record, RecordError};
use super::role;
use super::shard::Shard;
use super::stamp::Dot;
use super::store::Cursor;
use super::strong::Posture;
use super::time::Time;

/// The bytes of cells of one key that are written anew in one write, give or take one cell.
const WRITE_BYTES: usize = 256 * 1024;

/// The most cells of one key that are written anew in one write.
const WRITE_CELLS_MAX: usize = 1_024;

/// A cell of a backup, on its way back.
#[derive(Clone, PartialEq, Debug)]
pub struct BackedUp(KeptCell);

/// What became of the cells of a backup.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Restored {
    /// Nobody here had seen them: they were written anew.
    pub restored: u64,
    /// They are here, or were replaced or deleted here since.
    pub known: u64,
    /// Something newer stands in their place.
    pub older: u64,
    /// Deletions, which are not applied.
    pub deleted: u64,
}

/// Why a cell was not restored, although it is missing; those before it were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RestoreRefused {
    /// The cells take as much memory as they may.
    #[error("the memory that this node may use is full: raise --max-memory, then restore again")]
    OutOfMemory,
    /// The node takes no values of that length.
    #[error(
        "the value of {key} is longer than this node takes: raise --max-value, then restore again"
    )]
    TooLarge {
        /// The key.
        key: Key,
    },
    /// Its counter is further ahead than peers would believe.
    #[error(
        "{key} was written with counter {theirs}, and this node has come to {ours}: more than the \
         allowed jump; restore into a new data directory instead"
    )]
    Runaway {
        /// The key.
        key: Key,
        /// The counter of the cell.
        theirs: u64,
        /// The counter of this node.
        ours: u64,
    },
    /// It was written after a change of the consistency mode that this cluster has not seen.
    #[error(
        "{key} was written in a later epoch than this cluster has come to; restore into a new data directory instead"
    )]
    LaterEpoch {
        /// The key.
        key: Key,
    },
    /// The cluster is in strong mode, or about to be, where a restore would go past the log.
    #[error(
        "the cluster is in strong mode: switch it with `quorumor mode eventual`, restore, and switch back"
    )]
    Strong,
    /// The node cannot count its writes any further.
    #[error("the numbers of this node's writes are exhausted")]
    Exhausted,
    /// The node cannot make anything durable now. Said by the node, not by its shard.
    #[error("writes are refused now")]
    Unwritable,
}

impl BackedUp {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.0.cell.bytes()
    }

    /// Whether it is a deletion, of which nothing shows.
    pub fn is_deletion(&self) -> bool {
        self.0.cell.content == Content::Tombstone
    }
}

impl Restored {
    /// How many cells there were.
    pub fn cells(&self) -> u64 {
        self.restored + self.known + self.older + self.deleted
    }
}

/// The cells in a piece of a backup, in the order in which they are to be restored.
///
/// # Errors
/// When the bytes are not records of this version, or such as no backup has.
pub fn cells(records: &[u8]) -> Result<Vec<BackedUp>, RecordError> {
    let mut cells = Vec::new();
    let mut last = None;
    for record in record::read(records, &mut last) {
        match record? {
            Record::Cells(run) => cells.extend(run.into_cells()?.into_iter().map(BackedUp)),
            // What the backed-up node held as a whole, and had come to.
            Record::Held(_) | Record::Counter(_) | Record::Horizon(_) => {}
            _ => return Err(RecordError::Impossible),
        }
    }
    // A whole key before its fields, which have greater stamps, or it would cover them.
    cells.sort_by(|one, other| {
        (&one.0.cell.key, one.0.stamp).cmp(&(&other.0.cell.key, other.0.stamp))
    });
    Ok(cells)
}

/// Records cells of a backup.
pub fn record(cells: Vec<BackedUp>, append: &mut Append) {
    append.cells(cells.into_iter().map(|BackedUp(kept)| kept).collect());
}

impl Shard {
    /// Copies cells for a backup, about `bytes_max` bytes of them, from `cursor` on; and says where to
    /// go on, or `None` at the end. As `Shard::export_cells`, for a caller that encodes them elsewhere;
    /// but all cells of a key come together, as it depends on all of them what becomes of it when it is
    /// restored.
    pub fn back_up(&self, cursor: &Cursor, bytes_max: usize) -> (Vec<BackedUp>, Option<Cursor>) {
        let (cells, next) = self.store.kept(cursor, bytes_max, false);
        (cells.into_iter().map(BackedUp).collect(), next)
    }

    /// Restores the first cells of a backup, which stand in the order of [`cells`], key by key until
    /// about `bytes_max` bytes are done, takes them out, and counts what became of them.
    ///
    /// # Errors
    /// When a cell that is missing cannot be written. The keys before its own are dealt with and
    /// counted; its own is taken out, and may be restored in part if it has many cells.
    pub fn restore(
        &mut self,
        now: Time,
        cells: &mut VecDeque<BackedUp>,
        bytes_max: usize,
        counts: &mut Restored,
        output: &mut Output,
    ) -> Result<(), RestoreRefused> {
        if self.posture() != Posture::Direct {
            return Err(RestoreRefused::Strong);
        }
        let mut restored = Ok(());
        let mut bytes = 0;
        while let Some(first) = cells.front()
            && bytes < bytes_max
            && restored.is_ok()
        {
            let key = first.0.cell.key.clone();
            let others = cells.iter().position(|other| other.0.cell.key != key);
            let of_key: Vec<_> = cells.drain(..others.unwrap_or(cells.len())).collect();
            bytes += of_key.iter().map(BackedUp::bytes).sum::<usize>();
            restored = self.restore_key(now, of_key, counts, output);
        }
        output.wake = self.next_wake();
        restored
    }

    /// Restores the cells of one key. All are judged by what stands now, before any is written: a
    /// whole key that is written anew is above fields that were above it.
    fn restore_key(
        &mut self,
        now: Time,
        cells: Vec<BackedUp>,
        counts: &mut Restored,
        output: &mut Output,
    ) -> Result<(), RestoreRefused> {
        let mut missing = Vec::new();
        for BackedUp(kept) in cells {
            // Who belonged to the cluster then is not for a restore to say.
            if kept.cell.key.is_reserved() {
                continue;
            }
            let dot = Dot { origin: kept.stamp.origin, seq: kept.seq };
            if kept.cell.content == Content::Tombstone {
                counts.deleted += 1;
            } else if self.vector.contains(dot) {
                counts.known += 1;
            } else if self.store.outranks(kept.stamp, kept.seq, &kept.cell, |_| false) {
                counts.older += 1;
            } else {
                missing.push(kept);
            }
        }
        // They stand in the order of their stamps: nothing of them goes before the whole key.
        let begins = missing.iter().any(|kept| kept.cell.field.is_whole_key());
        let deadline = role::deadline_field();
        let decides = missing.iter().any(|kept| kept.cell.field == deadline);
        let mut beginning = match missing.first() {
            Some(first) if !begins => self.beginning(&first.cell.key, decides),
            _ => Vec::new(),
        };
        if begins || !beginning.is_empty() {
            missing.iter_mut().for_each(|kept| anew::count_from_now(&mut kept.cell));
        }
        // Together, so that whoever has the whole key has the fields as well, unless there are many.
        while !missing.is_empty() {
            let mut bytes = 0;
            let mut fits = |kept: &KeptCell| {
                bytes += kept.cell.bytes();
                bytes <= WRITE_BYTES
            };
            let count = missing.iter().take(WRITE_CELLS_MAX).take_while(|kept| fits(kept)).count();
            let together: Vec<_> = missing.drain(..count.max(1)).collect();
            let beginning = std::mem::take(&mut beginning);
            counts.restored += self.write_anew(now, beginning, together, output)?;
        }
        Ok(())
    }

    /// Writes cells of one key, after what it begins with, as a write of this node; answers how many.
    fn write_anew(
        &mut self,
        now: Time,
        beginning: Vec<CellWrite>,
        cells: Vec<KeptCell>,
        output: &mut Output,
    ) -> Result<u64, RestoreRefused> {
        let Some(greatest) = cells.iter().map(|kept| kept.stamp).max() else { return Ok(0) };
        let key = cells.first().map(|kept| kept.cell.key.clone()).unwrap_or_else(|| "".into());
        if greatest.epoch > self.epoch {
            return Err(RestoreRefused::LaterEpoch { key });
        }
        let (theirs, ours) = (greatest.lamport.0, self.lamport().0);
        if theirs.saturating_sub(ours) > self.config.lamport_jump_max {
            return Err(RestoreRefused::Runaway { key, theirs, ours });
        }
        self.reach(greatest.lamport);
        let count = cells.len() as u64;
        let anew = cells.into_iter().map(|KeptCell { cell, .. }| {
            let CellWrite { key, field, content, .. } = cell;
            let (key, seen) = self.store.prepare(&key, &field, self.config.origin);
            CellWrite { key, field, content, seen }
        });
        let anew = beginning.into_iter().chain(anew).collect();
        match self.write(now, anew, 0, output) {
            Reply::Written { .. } => Ok(count),
            Reply::OutOfMemory => Err(RestoreRefused::OutOfMemory),
            Reply::Exhausted => Err(RestoreRefused::Exhausted),
            _ => Err(RestoreRefused::TooLarge { key }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::boundary::{Input, Request, Token};
    use crate::protocol::cell::Field;
    use crate::protocol::config::Config;
    use crate::protocol::id::{NodeId, Origin};
    use crate::protocol::stamp::Lamport;

    /// Of a key, a field (0: the whole key) and whether it is deleted.
    type Step = (u8, u8, bool);

    fn shard(node: u64) -> Shard {
        Shard::new(Config::new(NodeId(u128::from(node)), Origin(node), node))
    }

    /// Makes a write, of fields as well, which no request does yet.
    fn step(shard: &mut Shard, (key, field, delete): Step) {
        let field = Field::new(&[field % 3][..usize::from(field % 3 > 0)]);
        let (key, seen) = shard.store.prepare(&[key % 4], &field, shard.config.origin);
        let value = shard.lamport().0.to_le_bytes();
        let content = if delete { Content::Tombstone } else { Content::from(&value[..]) };
        let cell = CellWrite { key, field, content, seen };
        shard.write(Time::START, vec![cell], 0, &mut Output::default());
    }

    fn backup(shard: &Shard) -> Vec<Vec<u8>> {
        let mut append = Append::default();
        shard.export_head(&mut append);
        let mut pieces = vec![append.records.clone()];
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            append.reuse();
            let (cells, next) = shard.back_up(&from, 30);
            record(cells, &mut append);
            cursor = next;
            pieces.push(append.records.clone());
        }
        pieces
    }

    fn restore(shard: &mut Shard, backup: &[Vec<u8>], bytes_max: usize) -> Restored {
        let mut counts = Restored::default();
        let mut output = Output::default();
        for piece in backup {
            let mut cells: VecDeque<_> = cells(piece).unwrap().into();
            while !cells.is_empty() {
                let now = Time::START;
                shard.restore(now, &mut cells, bytes_max, &mut counts, &mut output).unwrap();
            }
        }
        counts
    }

    /// What clients see.
    fn visible(shard: &Shard) -> BTreeMap<(Key, Field), Content> {
        let cells = shard.store.dump().into_iter();
        let live = cells.filter(|(_, (_, _, content))| *content != Content::Tombstone);
        live.map(|(name, (_, _, content))| (name, content)).collect()
    }

    fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
        let step = (any::<u8>(), any::<u8>(), proptest::bool::weighted(0.3));
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        /// Where it came from, a backup changes nothing, whatever was written and deleted since.
        #[test]
        fn nothing_comes_back_and_nothing_goes_back(
            before in steps(),
            after in steps(),
            bytes_max in 1..200usize,
        ) {
            let mut shard = shard(1);
            before.into_iter().for_each(|one| step(&mut shard, one));
            let backup = backup(&shard);
            after.into_iter().for_each(|one| step(&mut shard, one));
            let was = (shard.store.dump(), shard.summary(), shard.lamport());
            let counts = restore(&mut shard, &backup, bytes_max);
            prop_assert_eq!(counts.restored + counts.older, 0);
            prop_assert!(was == (shard.store.dump(), shard.summary(), shard.lamport()));
        }

        /// Elsewhere it brings back exactly what showed; a second time it changes nothing, whatever
        /// was written and deleted since.
        #[test]
        fn what_showed_comes_back_elsewhere_once(
            before in steps(),
            after in steps(),
            bytes_max in 1..200usize,
        ) {
            let mut old = shard(1);
            before.into_iter().for_each(|one| step(&mut old, one));
            let backup = backup(&old);
            let mut new = shard(2);
            let counts = restore(&mut new, &backup, bytes_max);
            prop_assert_eq!(visible(&new), visible(&old));
            prop_assert_eq!(counts.restored, visible(&old).len() as u64);
            prop_assert_eq!(counts.cells(), old.store.dump().len() as u64);
            prop_assert!(new.vector.iter().all(|(origin, _)| origin == Origin(2)));
            after.into_iter().for_each(|one| step(&mut new, one));
            let was = (new.store.dump(), new.summary(), new.lamport());
            prop_assert_eq!(restore(&mut new, &backup, bytes_max).restored, 0);
            prop_assert!(was == (new.store.dump(), new.summary(), new.lamport()));
        }

        /// Into a shard that knows a part and went its own way, only what is missing and not
        /// outranked comes back; nothing that has a greater stamp goes.
        #[test]
        fn what_is_newer_stays(
            shared in steps(),
            lost in steps(),
            own in steps(),
            bytes_max in 1..200usize,
        ) {
            let mut old = shard(1);
            let mut other = shard(2);
            shared.into_iter().for_each(|one| step(&mut old, one));
            restore(&mut other, &backup(&old), bytes_max);
            lost.into_iter().for_each(|one| step(&mut old, one));
            let backup = backup(&old);
            own.into_iter().for_each(|one| step(&mut other, one));
            let was = other.store.dump();
            restore(&mut other, &backup, bytes_max);
            let (theirs, now) = (old.store.dump(), other.store.dump());
            for (name, (stamp, _, content)) in &was {
                let of_key = theirs.iter().filter(|((key, _), _)| *key == name.0);
                let newer = of_key.map(|(_, cell)| cell.0).any(|theirs| theirs > *stamp);
                let stands = now.get(name).is_some_and(|(_, _, now)| now == content);
                prop_assert!(stands || newer, "{:?} is gone", name);
            }
        }

        /// Bytes that are no backup are an error and nothing worse.
        #[test]
        fn rubbish_is_refused(
            before in steps(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut old = shard(1);
            before.into_iter().for_each(|one| step(&mut old, one));
            let mut pieces = backup(&old).concat();
            let at = at.index(pieces.len());
            pieces[at] = byte;
            for bytes in [&pieces[..], &pieces[at..], &pieces[..at]] {
                let mut cells: VecDeque<_> = cells(bytes).unwrap_or_default().into();
                let (mut counts, mut output) = (Restored::default(), Output::default());
                let now = Time::START;
                // A cell with a damaged number may be refused; it must not be worse.
                let _ = shard(2).restore(now, &mut cells, usize::MAX, &mut counts, &mut output);
            }
        }
    }

    /// What clients could not write is not restored either, and what came before it is counted.
    #[test]
    fn limits_hold() {
        let mut old = shard(1);
        for (key, value) in [(&b"a"[..], &b"short"[..]), (b"b", &[0; 100])] {
            let request = Request::Set { key, value };
            old.handle(Time::START, Input::Request(Token(0), request), &mut Output::default());
        }
        let all: VecDeque<_> =
            backup(&old).iter().flat_map(|piece| cells(piece).unwrap()).collect();
        let refused = |change: fn(&mut Config)| {
            let mut config = Config::new(NodeId(2), Origin(2), 2);
            change(&mut config);
            let mut shard = Shard::new(config);
            let (mut counts, mut output) = (Restored::default(), Output::default());
            let mut cells = all.clone();
            let why = shard.restore(Time::START, &mut cells, 1_000, &mut counts, &mut output);
            (why.unwrap_err(), counts.restored)
        };
        let key = Key::from("b");
        let too_large = RestoreRefused::TooLarge { key };
        assert_eq!(refused(|config| config.value_bytes_max = 50), (too_large, 1));
        assert_eq!(
            refused(|config| config.memory_bytes_max = Some(100)).0,
            RestoreRefused::OutOfMemory
        );
        let mut far = shard(3);
        far.reach(Lamport(1 << 50));
        step(&mut far, (0, 0, false));
        let mut cells: VecDeque<_> =
            backup(&far).iter().flat_map(|it| cells(it).unwrap()).collect();
        let (mut counts, mut output) = (Restored::default(), Output::default());
        let why = shard(4).restore(Time::START, &mut cells, 1, &mut counts, &mut output);
        assert!(matches!(why, Err(RestoreRefused::Runaway { .. })), "{why:?}");
    }
}
