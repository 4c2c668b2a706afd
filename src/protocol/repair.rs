//! Repair: two nodes hold the same dots but not the same cells, so one of them is damaged.
//!
//! Vectors say nothing then, so the node that notices asks the other for everything, as if it held
//! nothing, and compares cell by cell: what it lacks it takes, of two versions the greater stamp
//! stands, and of two contents under one stamp, of which one must be wrong, both keep the one with
//! the greater hash: two nodes cannot tell which is right, but can agree. At the end the fingerprint
//! is made anew from the cells. The other node notices the same in its turn and does the same.
//!
//! What is damaged like this is memory, or our own bookkeeping; what a disk changes is found by its
//! checksums. A cell that was deleted and collected at one of the two may come back: where it should
//! not be there any more cannot be known either, and to keep too much loses less.
//!
//! Left out: comparing hashes of parts first, which would save traffic in something that should never
//! happen.

use std::time::Duration;

use twox_hash::XxHash3_64;

use super::boundary::{Lane, Output};
use super::cell::Write;
use super::digest::{Digest, DigestHash};
use super::event::Event;
use super::id::NodeId;
use super::message::{Message, RoundId, Wish};
use super::shard::Shard;
use super::stamp::Dot;
use super::time::Time;
use super::version::VersionVector;

/// How long between two repairs: each brings everything once more.
const PAUSE: Duration = Duration::from_secs(10);

/// The repair that is under way, and when the last one began.
#[derive(Debug, Default)]
pub(super) struct Repair {
    round: Option<(NodeId, RoundId)>,
    last: Option<Time>,
    mended: usize,
}

impl Shard {
    /// A peer holds the same dots but other cells.
    pub(super) fn differ(
        &mut self,
        now: Time,
        peer: NodeId,
        hash: DigestHash,
        output: &mut Output,
    ) {
        let recent = self.repair.last.is_some_and(|last| now.since(last) < PAUSE);
        if recent || self.fill.is_some() {
            return;
        }
        self.counters.damage += 1;
        output.events.push(Event::Damage { peer, hash });
        #[cfg(test)]
        if self.is_careless(super::shard::Careless::LeavesDamage) {
            return;
        }
        let round = RoundId(self.rng.u64(..));
        self.repair = Repair { round: Some((peer, round)), last: Some(now), mended: 0 };
        let nothing = VersionVector::default();
        self.exchanges.tell(peer, round, DigestHash::of(&nothing));
        let wish = Wish { take: true, give: false };
        let message = Message::Digest { round, digest: Digest(nothing), wish };
        self.sender().send(peer, Lane::Exchange { round, last: true }, message, output);
    }

    /// Compares writes that come for a repair with what is here, where they are said to be here.
    pub(super) fn compare(
        &mut self,
        peer: NodeId,
        round: RoundId,
        writes: &[Write],
        output: &mut Output,
    ) {
        if self.repair.round != Some((peer, round)) {
            return;
        }
        for write in writes {
            if self.judge(write).is_err() {
                return;
            }
            let dots = (write.seq..).map(|seq| Dot { seq, ..write.dot() });
            for (dot, cell) in dots.zip(&write.cells) {
                if !self.vector.contains(dot) || !self.store.mend(write.stamp, dot.seq, cell) {
                    continue;
                }
                self.repair.mended += 1;
                if self.keeps_records() {
                    output.append.mended(write.stamp, dot.seq, cell);
                    output.append.settle();
                }
                self.exchanges.displaced(self.store.displaced(), dot..=dot);
                self.store.forget_displaced();
            }
        }
    }

    /// All has come that a repair asked for.
    pub(super) fn compared(&mut self, peer: NodeId, round: RoundId, output: &mut Output) {
        if self.repair.round.take_if(|under_way| *under_way == (peer, round)).is_some() {
            self.store.fingerprint_anew();
            output.events.push(Event::Repaired { peer, cells: self.repair.mended });
        }
    }
}

/// Which of two contents under one stamp stands.
pub(super) fn prevails(one: &[u8], other: &[u8]) -> bool {
    (XxHash3_64::oneshot(one), one) > (XxHash3_64::oneshot(other), other)
}

#[cfg(test)]
mod tests {
    use super::super::cell::{CellWrite, Content, Field, Key, Seen};
    use super::super::config::{Config, Durability};
    use super::super::id::Origin;
    use super::super::stamp::{Epoch, Lamport, Stamp};
    use super::*;

    /// Very many cells that were mended at once are recorded in pieces that the journal takes.
    #[test]
    fn what_was_mended_is_recorded_in_short_pieces() {
        let durability = Durability::Always;
        let mut shard = Shard::new(Config { durability, ..Config::new(NodeId(1), Origin(1), 1) });
        let (peer, round, origin) = (NodeId(2), RoundId(3), Origin(9));
        shard.repair.round = Some((peer, round));
        let mut output = Output::default();
        for seq in 1..=20 {
            shard.vector.insert(Dot { origin, seq });
            let stamp = Stamp { epoch: Epoch(0), lamport: Lamport(seq), origin };
            let key = Key::from(seq.to_string().as_str());
            let (field, content) = (Field::whole_key(), Content::from(&vec![7; 1 << 20][..]));
            let cell = CellWrite { key, field, content, seen: Seen::default() };
            shard.compare(peer, round, &[Write::new(stamp, seq, vec![cell])], &mut output);
        }
        assert_eq!((shard.repair.mended, shard.store().keys_live()), (20, 20));
        let longest = output.append.pieces().map(<[u8]>::len).max().unwrap();
        assert!(longest < 3 << 20, "{longest} bytes");
    }
}
