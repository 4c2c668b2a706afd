//! Rounds of anti-entropy: the promise behind the pushes.
//!
//! Every interval a node opens a round with one peer. It sends the hash of its version vector, and
//! the vector itself if that is short. An equal hash ends the round in silence. Otherwise the round
//! goes on in the directions that the opener's strategy wishes:
//!
//! | strategy | short vector | long vector |
//! |---|---|---|
//! | push | open, digest, delta | open, digest, delta |
//! | pull | open, delta | open, digest, digest, delta |
//! | push-pull | open, delta + digest, delta | open, digest, delta + digest, delta |
//!
//! A side that has nothing to give leaves its message out. Every step can be lost: nothing then
//! waits for it but the next round.

use super::boundary::{Lane, Output};
use super::cell::CellWrite;
use super::delta::{Captured, Chunk, Load, Outgoing, PATIENCE, Progress};
use super::digest::{Digest, DigestHash};
use super::event::{Event, Misdeed};
use super::id::NodeId;
use super::message::{ExchangeId, Message, RoundId, Wish};
use super::shard::{Merge, Shard};
use super::stamp::Dot;
use super::store::Fingerprint;
use super::time::Time;
use super::version::VersionVector;

/// The longest vector, in ranges, that opens a round along with its hash: at about 12 bytes each
/// it costs less than one message more.
const INLINE_RANGES_MAX: usize = 16;

impl Shard {
    /// Opens a round with `peer`.
    pub(super) fn open_round(&mut self, peer: NodeId, output: &mut Output) {
        let round = RoundId(self.rng.u64(..));
        let short = self.vector.ranges() <= INLINE_RANGES_MAX;
        let digest = short.then(|| self.tell(peer, round));
        let strategy = self.config.strategy;
        let wish = match self.fill {
            Some(_) => Wish { take: true, give: false },
            None => Wish { take: strategy.takes(), give: strategy.gives() },
        };
        let (hash, fingerprint) = self.summary();
        let open = Message::Open { round, hash, fingerprint, digest, wish };
        self.peers.met(peer);
        self.counters.rounds_opened += 1;
        if self.config.trace {
            output.events.push(Event::RoundOpened { peer, round });
        }
        self.sender().send(peer, Lane::Exchange { round, last: true }, open, output);
    }

    /// How far the delta has come that brings this node most of what it lacks, if one does.
    pub fn progress(&self) -> Option<Progress> {
        self.exchanges.progress()
    }

    /// What this node holds, in short.
    pub fn summary(&self) -> (DigestHash, Fingerprint) {
        (DigestHash::of(&self.vector), self.store.fingerprint())
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn receive_open(
        &mut self,
        now: Time,
        peer: NodeId,
        round: RoundId,
        (hash, fingerprint): (DigestHash, Fingerprint),
        digest: Option<Digest>,
        wish: Wish,
        output: &mut Output,
    ) {
        let ours = self.summary();
        // Who fills itself waits for the end of a delta, even of an empty one.
        let filling = self.fill.is_some() || self.peers.live(peer).is_some_and(|it| it.filling);
        if ours.0 == hash && !filling {
            self.counters.rounds_equal += 1;
            if ours.1 != fingerprint {
                self.differ(now, peer, hash, output);
            }
            return;
        }
        match digest {
            Some(digest) => self.receive_digest(now, peer, round, digest, wish, output),
            None => {
                // The opener's wishes, seen from here.
                let wish = Wish { take: wish.give, give: wish.take };
                self.send_digest(peer, round, wish, output);
            }
        }
    }

    /// What this node holds, for `peer` to answer with a delta.
    fn tell(&mut self, peer: NodeId, round: RoundId) -> Digest {
        let vector = self.vector.to_send();
        self.exchanges.tell(peer, round, DigestHash::of(&vector));
        Digest(vector)
    }

    fn send_digest(&mut self, peer: NodeId, round: RoundId, wish: Wish, output: &mut Output) {
        let digest = self.tell(peer, round);
        let message = Message::Digest { round, digest, wish };
        self.sender().send(peer, Lane::Exchange { round, last: true }, message, output);
    }

    /// Goes on with a round, knowing what the peer holds and wishes.
    pub(super) fn receive_digest(
        &mut self,
        now: Time,
        peer: NodeId,
        round: RoundId,
        Digest(theirs): Digest,
        wish: Wish,
        output: &mut Output,
    ) {
        if let Err(why) = self.judge_claim(&theirs) {
            return self.distrust(peer, why, output);
        }
        // "Give" needs our digest, and only where the peer has something that we lack.
        let tells = wish.give && (self.fill.is_some() || !self.vector.covers(&theirs));
        if wish.take && self.send_delta(now, peer, round, &theirs, tells, output) {
            return;
        }
        if tells {
            self.send_digest(peer, round, Wish { take: true, give: false }, output);
        }
    }

    /// Begins to send a peer, which holds `theirs`, what it lacks; says whether there was anything,
    /// and room to send it.
    fn send_delta(
        &mut self,
        now: Time,
        peer: NodeId,
        round: RoundId,
        theirs: &VersionVector,
        tells: bool,
        output: &mut Output,
    ) -> bool {
        let link = self.peers.live(peer);
        let filling = link.is_some_and(|link| link.filling);
        let gives = !self.config.roster || link.is_some_and(|link| link.gives);
        if self.exchanges.position(peer, round).is_some() || !gives {
            return false;
        }
        let horizon = filling.then(|| self.horizon.to_send());
        let captured = Captured { vector: self.vector.to_send(), lamport: self.lamport, horizon };
        let id = ExchangeId(self.rng.u32(..));
        let exchange = Outgoing::new(round, id, captured, theirs, now + PATIENCE);
        let Some(mut exchange) = exchange else { return false };
        exchange.estimate(&self.store);
        let Some(chunk) = exchange.next_chunk(&self.store, self.config.delta_bytes_max) else {
            return false;
        };
        let last = chunk.captured.is_some();
        if !last && !self.exchanges.has_room() {
            return false;
        }
        self.gave = true;
        let digest = tells.then(|| self.tell(peer, round));
        let message = Message::Delta { round, chunk, digest };
        self.sender().send(peer, Lane::Exchange { round, last }, message, output);
        if !last {
            self.exchanges.outgoing.push((peer, exchange));
            self.send_chunks(peer, round, output);
        }
        true
    }

    /// Sends as much of an exchange as there is credit for.
    fn send_chunks(&mut self, peer: NodeId, round: RoundId, output: &mut Output) {
        let sender = self.sender();
        let Some(at) = self.exchanges.position(peer, round) else { return };
        loop {
            let (_, exchange) = &mut self.exchanges.outgoing[at];
            if exchange.is_overrun() {
                self.exchanges.outgoing.swap_remove(at);
                self.counters.deltas_given_up += 1;
                output.events.push(Event::GivenUp { peer, round });
                return;
            }
            let bytes_max = self.config.delta_bytes_max;
            let Some(chunk) = exchange.next_chunk(&self.store, bytes_max) else { return };
            let last = chunk.captured.is_some();
            let message = Message::Delta { round, chunk, digest: None };
            sender.send(peer, Lane::Exchange { round, last }, message, output);
            if last {
                self.exchanges.outgoing.swap_remove(at);
                return;
            }
        }
    }

    /// A peer shows what no correct one does, or what this node should know and does not.
    fn distrust(&mut self, peer: NodeId, why: Misdeed, output: &mut Output) {
        match why {
            Misdeed::Impostor { .. } if self.config.roster => self.forgot = true,
            _ => self.quarantine(peer, why, output),
        }
    }

    pub(super) fn receive_credit(
        &mut self,
        now: Time,
        peer: NodeId,
        round: RoundId,
        output: &mut Output,
    ) {
        let Some(at) = self.exchanges.position(peer, round) else { return };
        self.exchanges.outgoing[at].1.add_credit(now + PATIENCE);
        self.send_chunks(peer, round, output);
    }

    pub(super) fn receive_delta(
        &mut self,
        now: Time,
        peer: NodeId,
        round: RoundId,
        mut chunk: Chunk,
        digest: Option<Digest>,
        output: &mut Output,
    ) {
        let mut writes = std::mem::take(&mut chunk.writes);
        self.sift(&mut writes);
        let load = Load {
            cells: writes.iter().map(|write| write.cells.len() as u64).sum(),
            bytes: writes.iter().flat_map(|write| &write.cells).map(name_and_value_bytes).sum(),
        };
        self.compare(peer, round, &writes, output);
        let Some(merged) = self.apply(peer, writes, output) else { return };
        let missing = merged.iter().filter(|merge| **merge != Merge::Known).count();
        if let Some(Digest(theirs)) = digest {
            let wish = Wish { take: true, give: false };
            self.receive_digest(now, peer, round, Digest(theirs), wish, output);
        }
        let followed = self.exchanges.follow(peer, round, &chunk, now);
        let Some(at) = followed else { return };
        let Chunk { number, captured, load: expected, .. } = chunk;
        let incoming = &mut self.exchanges.incoming[at].1;
        incoming.writes += missing;
        incoming.brought(load, expected);
        let captured = incoming.applied(number, captured, now + PATIENCE);
        let last = captured.is_some();
        if let Some(mut captured) = captured {
            self.sift_captured(&mut captured);
            let (_, incoming) = self.exchanges.incoming.remove(at);
            // Now that the greatest stamp has come, no number can be greater than its counter.
            let claim = self.judge_claim(&captured.vector);
            if let Err(why) = claim.and_then(|()| self.judge_capture(&captured)) {
                return self.distrust(peer, why, output);
            }
            if self.fill.is_some() {
                self.finish_filling(now, captured, output);
            } else {
                if self.keeps_records() {
                    output.append.held(&captured.vector.without(&self.vector));
                }
                self.vector.merge(&captured.vector);
            }
            self.counters.deltas_filled += 1;
            output.events.push(Event::Filled { peer, round, writes: incoming.writes });
            self.compared(peer, round, output);
        }
        if !last && let Some(progress) = self.exchanges.progress() {
            output.events.push(Event::Filling(progress));
        }
        // After the only part there is no stream to end.
        if !last || number > 0 {
            self.sender().send(
                peer,
                Lane::Exchange { round, last },
                Message::Credit { round },
                output,
            );
        }
    }

    pub(super) fn receive_ask(
        &self,
        peer: NodeId,
        round: RoundId,
        dot: Option<Dot>,
        output: &mut Output,
    ) {
        let covers = dot.is_none_or(|dot| self.holds(dot));
        let (hash, fingerprint) = self.summary();
        let answer = Message::Answer { round, covers, hash, fingerprint };
        self.sender().send(peer, Lane::Push, answer, output);
    }

    /// Gives up exchanges, both ways, that `hopeless` points out by peer and deadline.
    pub(super) fn give_up(&mut self, hopeless: impl Fn(NodeId, Time) -> bool, output: &mut Output) {
        for (peer, round) in self.exchanges.remove(hopeless) {
            self.counters.deltas_given_up += 1;
            output.events.push(Event::GivenUp { peer, round });
        }
    }
}

/// What a cell counts for in the store: its name and its value.
fn name_and_value_bytes(cell: &CellWrite) -> u64 {
    let value = cell.content.value().map_or(0, <[u8]>::len);
    (cell.key.len() + cell.field.as_bytes().len() + value) as u64
}
