//! Disks: what a node has recorded, how much of it is durable, and what waits for that.
//!
//! A disk is a list of frames, each a piece of the records of one output. A crash keeps all that is durable and
//! any number of the frames behind it, in order: what a journal that cuts torn frames makes of a real
//! one. Frames are never damaged here; that is tested where files are.
//!
//! A world with disks does what a real server does: it appends first, and where clients are to be
//! answered only when their writes are durable, replies wait until a sync has come so far.

use std::time::Duration;

use super::happening::Happening;
use super::schedule::{Due, small};
use super::world::World;
use crate::protocol::boundary::{Input, Token};
use crate::protocol::config::{Config, Durability};
use crate::protocol::record::Append;
use crate::protocol::recovery::Recovery;
use crate::protocol::shard::Shard;

/// The longest that a sync takes.
const SYNC_MAX: Duration = Duration::from_millis(3);

/// How long between two syncs where writes are answered before.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// What a node has recorded.
#[derive(Debug, Default)]
pub(super) struct Disk {
    frames: Vec<Vec<u8>>,
    durable: usize,
    /// How many of the frames were durable when it was last copied.
    copied: Option<usize>,
    /// Whether a sync is under way for which nothing waits.
    syncing: bool,
    /// What the shard wants to be told of when so many frames are durable.
    tells: Vec<(usize, u64)>,
    /// What clients are told when so many frames are durable.
    parked: Vec<Parked>,
}

#[derive(Debug)]
struct Parked {
    frames: usize,
    replies: Vec<Token>,
}

impl Disk {
    /// Writes records in the pieces that a journal would be given, all of which it must take.
    fn write(&mut self, append: &mut Append) {
        append.check_pieces();
        match append.take_large(0) {
            Some(records) => self.frames.push(records),
            None => self.frames.extend(append.pieces().map(<[u8]>::to_vec)),
        }
    }

    /// How many frames have been written.
    pub(super) fn frames(&self) -> usize {
        self.frames.len()
    }
}

impl World {
    /// How many frames a node has written; after a crash, how many are left.
    pub fn frames(&self, node: usize) -> usize {
        self.nodes[node].disk.frames()
    }

    /// Whether nodes have disks.
    pub fn has_disks(&self) -> bool {
        self.plan.settings.durability != Durability::None
    }

    /// Appends what a node wants durable. Says whether its replies must wait for that.
    pub(super) fn append(&mut self, node: usize) -> bool {
        if !self.has_disks() {
            return false;
        }
        let mut append = std::mem::take(&mut self.output.append);
        let always = self.plan.settings.durability == Durability::Always;
        let at_once = always || append.urgent;
        let lasts = self.up_to(if at_once { SYNC_MAX } else { SYNC_INTERVAL });
        let life = self.nodes[node].incarnation;
        let disk = &mut self.nodes[node].disk;
        disk.write(&mut append);
        let frames = disk.frames.len();
        let unsynced = disk.durable < frames;
        disk.tells.extend(append.tell.map(|token| (frames, token)));
        let unsynced = unsynced || append.tell.is_some();
        if unsynced && (at_once || !std::mem::replace(&mut disk.syncing, true)) {
            self.schedule.push(self.now + lasts, Due::Sync { node: small(node), life, frames });
        }
        let waits =
            always && append.awaited && disk.durable < frames && !self.output.reply.is_empty();
        if waits {
            let replies = self.output.reply.iter().map(|(token, _)| *token).collect();
            disk.parked.push(Parked { frames, replies });
        }
        waits
    }

    /// A sync is due.
    pub(super) fn sync_due(&mut self, node: usize, life: u32, frames: usize) -> Option<Happening> {
        let same_life = self.nodes[node].incarnation == life;
        if !same_life { None } else { self.unless_paused(Happening::Synced { node, frames }) }
    }

    /// So many frames of a node are durable now; what waited for them goes out.
    pub(super) fn synced(&mut self, node: usize, frames: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.durable = disk.durable.max(frames);
        disk.syncing = false;
        let ready: Vec<_> = disk.parked.extract_if(.., |one| one.frames <= frames).collect();
        for parked in ready {
            self.released.extend(parked.replies);
        }
        let disk = &mut self.nodes[node].disk;
        let tells: Vec<_> = disk.tells.extract_if(.., |tell| tell.0 <= frames).collect();
        let frames = disk.frames.len();
        if disk.durable < frames || !disk.tells.is_empty() {
            disk.syncing = true;
            let (at, life) = (self.now + SYNC_INTERVAL, self.nodes[node].incarnation);
            self.schedule.push(at, Due::Sync { node: small(node), life, frames });
        }
        for (_, token) in tells {
            self.handle(node, Input::Durable(token));
        }
    }

    /// What a crash leaves of a disk.
    pub(super) fn cut(&mut self, node: usize) {
        let disk = &self.nodes[node].disk;
        let unsynced = disk.frames.len() - disk.durable;
        let kept = self.network.rng().usize(..=unsynced);
        let disk = &mut self.nodes[node].disk;
        disk.frames.truncate(disk.durable + kept);
        disk.durable = disk.frames.len();
        disk.syncing = false;
        disk.parked.clear();
        disk.tells.clear();
    }

    /// Somebody copies a node's disk.
    pub(super) fn copy(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.copied = Some(disk.durable);
    }

    /// The disk of a node that is down is replaced by the copy of it.
    pub(super) fn bring_back(&mut self, node: usize) {
        let is_up = self.nodes[node].is_up();
        let disk = &mut self.nodes[node].disk;
        if let Some(copied) = disk.copied.filter(|_| !is_up) {
            disk.frames.truncate(copied);
            disk.durable = disk.frames.len();
        }
    }

    /// The disk of a node that is down is replaced by an empty one.
    pub(super) fn wipe(&mut self, node: usize) {
        let is_up = self.nodes[node].is_up();
        let disk = &mut self.nodes[node].disk;
        if !is_up {
            *disk = Disk::default();
        }
    }

    /// A shard made of what is on a node's disk; what it records at its start is durable at once.
    pub(super) fn recover(&mut self, node: usize, config: Config) -> Shard {
        let mut recovery = Recovery::new(config.hash_seed);
        let frames = &self.nodes[node].disk.frames;
        #[cfg(test)]
        let frames = &frames[..if self.disks_lie { frames.len() / 2 } else { frames.len() }];
        for frame in frames {
            recovery.apply(frame).expect("what was recorded can be read");
        }
        let dice = self.network.rng().u32(..);
        let (shard, mut append) = recovery.into_shard(config, dice);
        let disk = &mut self.nodes[node].disk;
        disk.write(&mut append);
        disk.durable = disk.frames.len();
        shard
    }
}
