//! The replicated log: consensus among the voters, behind this one file.
//!
//! The crate `quepaxa` is the log: a value without clock, socket or file, as a shard is. It says what
//! to make durable, what to send once that is so, and which entries are decided, in one order at every
//! voter. This file is the only one that names it. Everybody else sees a [`Group`] that is driven by
//! calls and leaves what is to be done as [`Done`] values.
//!
//! What must stay true:
//! - a message that speaks of records leaves only when they are durable: [`Group::persisted`];
//! - records are handed back after a restart in the order in which they were made, from the last
//!   checkpoint on, and are numbered by their parts, so that those which stand twice in a journal and a
//!   snapshot of it count once;
//! - a voter whose records are gone, have holes or are known to be older than what others have heard from
//!   it never speaks under its number again: it could contradict itself. It takes a new number and a new
//!   seat (`seats`).
//!
//! Sources: Tennage et al. 2023, "QuePaxa: Escaping the Tyranny of Timeouts in Consensus", SOSP; the
//! crate's guide.

use std::collections::VecDeque;

use bytes::Bytes;
use quepaxa::{Action, Config, Error, Input, NodeId, PersistId, Replica, Slot, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::time::Time;
use super::ledger::Charter;
use super::recording::parts;

/// The most bytes of one entry of the log, and of one slot: eight times the longest batch of requests
/// that is made of several, so that only a single large request comes near it.
pub(super) const ENTRY_BYTES_MAX: usize = 16 << 20;

/// The most bytes of what a client asks for, or of an orphan, in one entry: beside it are the names of what
/// it is, and the time.
pub(super) const CALL_BYTES_MAX: usize = ENTRY_BYTES_MAX - 4096;

/// What an entry takes in a slot beside its own bytes, with room to spare.
const ENTRY_BYTES_EXTRA: usize = 1024;

/// How many slots a voter drives at once.
const SLOTS_IN_FLIGHT_MAX: u32 = 64;

/// How long a record may wait for its answer before it is sent again: many round trips of a LAN, and
/// longer than a slow disk takes for a sync.
const RETRANSMIT_INTERVAL_NS: u64 = 250_000_000;

/// The longest time after which a voter proposes by itself what the primary has not got decided.
const HEDGE_MAX_NS: u64 = 200_000_000;

/// A voter, by a number that is never used again.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Voter(pub u32);

/// What the log wants done.
#[derive(Debug)]
pub(super) enum Done {
    /// Send to another voter, now.
    Send(Voter, Bytes),
    /// Make durable; [`Group::persisted`] follows.
    Persist {
        /// The number of the last part of the records; those of the others are right before.
        number: u64,
        /// Whether they replace all earlier ones.
        replace: bool,
        /// The records.
        records: Vec<Bytes>,
    },
    /// Entries are decided; slots come in order.
    Commit {
        /// Where.
        slot: u64,
        /// The entries, as they were proposed.
        entries: Vec<Bytes>,
    },
    /// A read may be answered once all before this slot is applied.
    Ready {
        /// The read.
        read: u64,
        /// The first slot that it need not have.
        slot: u64,
    },
    /// Others have dropped what this voter lacks: it needs their state.
    Lacks,
    /// These vote from now on.
    Seated(Vec<Voter>),
}

/// Why the log takes nothing now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// Too much is under way.
    Busy,
    /// An entry is too long.
    TooLarge,
    /// This voter has stopped.
    Stopped,
}

/// Records that are not known to be durable: their number, the library's name for them, and what may be
/// sent then.
type Unsynced = (u64, PersistId, Vec<(Voter, Bytes)>);

/// One voter's part of the log.
pub(super) struct Group {
    replica: Replica,
    voter: Voter,
    actions: Vec<Action>,
    /// What waits for the disk.
    waiting: VecDeque<Unsynced>,
    /// The number of the last record.
    number: u64,
    /// The number of the last record that is durable.
    durable: u64,
    /// The records since the last checkpoint.
    records: Vec<Bytes>,
    records_bytes: usize,
    /// Slots since the last checkpoint.
    slots: u64,
}

fn at(now: Time) -> Timestamp {
    Timestamp(now.as_nanos())
}

fn refused(error: Error) -> Refused {
    match error {
        Error::PayloadTooLarge => Refused::TooLarge,
        Error::Busy | Error::ReconfigurationPending => Refused::Busy,
        _ => Refused::Stopped,
    }
}

impl Group {
    /// The voter `voter` of the group that `charter` founds, with the records it has left, of which
    /// the last has this number. `seed` is fresh.
    ///
    /// # Errors
    /// When the records are not those of such a voter.
    pub(super) fn new(
        charter: &Charter,
        voter: Voter,
        seed: [u8; 32],
        (number, records): (u64, Vec<Bytes>),
        now: Time,
    ) -> Result<Self, String> {
        let members = charter.voters.keys().map(|voter| NodeId(voter.0)).collect();
        let mut config = Config::new(charter.id, NodeId(voter.0), members, seed);
        let bytes_max = ENTRY_BYTES_MAX + ENTRY_BYTES_EXTRA;
        config.max_batch_bytes = u32::try_from(bytes_max).expect("a few megabytes");
        config.max_message_bytes = 2 * config.max_batch_bytes + 64 * 1024;
        config.max_in_flight_slots = SLOTS_IN_FLIGHT_MAX;
        config.retransmit_interval = RETRANSMIT_INTERVAL_NS;
        config.hedge_max = HEDGE_MAX_NS;
        let records_bytes = records.iter().map(Bytes::len).sum();
        let replica = Replica::new(config, records.iter().cloned(), at(now));
        let mut replica = replica.map_err(|error| error.to_string())?;
        let mut actions = Vec::new();
        replica.poll_actions(&mut actions);
        Ok(Self {
            replica,
            voter,
            actions,
            waiting: VecDeque::new(),
            number,
            durable: number,
            records,
            records_bytes,
            slots: 0,
        })
    }

    /// Which voter this is.
    pub(super) fn voter(&self) -> Voter {
        self.voter
    }

    /// The number of the last record that is durable.
    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The records since the last checkpoint, and the number of the last one.
    pub(super) fn records(&self) -> (u64, &[Bytes]) {
        (self.number, &self.records)
    }

    /// How many bytes of records there are since the last checkpoint.
    pub(super) fn records_bytes(&self) -> usize {
        self.records_bytes
    }

    /// The number of slots that were handed out as decided.
    pub(super) fn decided(&self) -> u64 {
        self.replica.emitted_index()
    }

    /// The number of slots known to be decided.
    pub(super) fn committed(&self) -> u64 {
        self.replica.commit_index()
    }

    /// Puts an entry into the line for the log.
    pub(super) fn propose(&mut self, now: Time, entry: Bytes) -> Result<(), Refused> {
        let result = self.replica.propose(at(now), entry).map(drop).map_err(refused);
        self.drain();
        result
    }

    /// Asks for a moment at which a read is up to date; answers its name.
    pub(super) fn read(&mut self, now: Time) -> Result<u64, Refused> {
        let result = self.replica.read_barrier(at(now)).map(|id| id.0).map_err(refused);
        self.drain();
        result
    }

    /// Takes in a message of another voter.
    pub(super) fn receive(&mut self, now: Time, bytes: Bytes) {
        self.feed(now, Input::Message(bytes));
    }

    /// All records up to this number are durable.
    pub(super) fn persisted(&mut self, now: Time, number: u64) -> Vec<Done> {
        let mut done = Vec::new();
        while self.waiting.front().is_some_and(|(waits, ..)| *waits <= number) {
            let Some((number, id, then)) = self.waiting.pop_front() else { break };
            self.durable = number;
            done.extend(then.into_iter().map(|(to, bytes)| Done::Send(to, bytes)));
            self.feed(now, Input::Persisted(id));
            self.take(&mut done);
        }
        done
    }

    /// When the clock matters next.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.replica.next_deadline().map(|deadline| Time::from_nanos(deadline.0))
    }

    /// Lets time pass.
    pub(super) fn wake(&mut self, now: Time) {
        // It fails only if actions were left behind, which `take` never does.
        let result = self.replica.handle_timeout(at(now));
        debug_assert!(result.is_ok(), "{result:?}");
        self.drain();
    }

    /// Proposes that these vote from now on.
    pub(super) fn seat(&mut self, now: Time, voters: &[Voter]) -> Result<(), Refused> {
        let voters = voters.iter().map(|voter| NodeId(voter.0)).collect();
        let result = self.replica.propose_reconfiguration(at(now), voters, Vec::new());
        self.drain();
        result.map(drop).map_err(refused)
    }

    /// Whether enough has come since the last checkpoint to make another.
    pub(super) fn is_long(&self, slots_max: u64, bytes_max: usize) -> bool {
        self.slots >= slots_max || self.slots > 0 && self.records_bytes >= bytes_max
    }

    /// The state of the log itself, as of the last slot handed out.
    pub(super) fn core(&self) -> Bytes {
        self.replica.core_state()
    }

    /// Drops all slots that were handed out: their effects are recorded before what this leaves to be
    /// recorded.
    pub(super) fn cut(&mut self, now: Time) {
        let core = self.replica.core_state();
        self.slots = 0;
        if let Some(through) = self.replica.emitted_index().checked_sub(1) {
            let result = self.replica.compact(at(now), Slot(through), core);
            debug_assert!(result.is_ok(), "{result:?}");
            self.drain();
        }
    }

    /// Goes on from another voter's state before `slot`; says whether that was needed. An error says
    /// that it does not belong to this log.
    pub(super) fn install(&mut self, now: Time, slot: u64, core: Bytes) -> Result<bool, Refused> {
        let Some(through) = slot.checked_sub(1) else { return Ok(false) };
        let result = self.replica.install_snapshot(at(now), Slot(through), core);
        self.drain();
        result.map_err(refused)
    }

    /// Whom the others forward to, as far as this voter knows.
    ///
    /// The library does not tell; it is read from its state, whose format the pinned version fixes.
    pub(super) fn primary(&self) -> Option<Voter> {
        orders(&self.core())?
            .into_iter()
            .rev()
            .find(|(from, _)| *from <= self.decided())?
            .1
            .first()
            .copied()
    }

    /// Who votes, or is about to.
    pub(super) fn members(&self) -> Vec<Voter> {
        orders(&self.core()).and_then(|mut orders| orders.pop()).unwrap_or_default().1
    }

    fn feed(&mut self, now: Time, input: Input) {
        let result = self.replica.handle(at(now), input);
        debug_assert!(result.is_ok(), "{result:?}");
        self.drain();
    }

    /// Takes what a call has left: the library takes no other call before.
    fn drain(&mut self) {
        self.replica.poll_actions(&mut self.actions);
    }

    /// Takes what is to be done after a call.
    pub(super) fn take(&mut self, done: &mut Vec<Done>) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Send(out) => done.push(Done::Send(Voter(out.to.0), out.bytes)),
                Action::Persist { id, records, then, replace } => {
                    self.number += parts(&records).len() as u64;
                    let then = then.into_iter().map(|out| (Voter(out.to.0), out.bytes));
                    self.waiting.push_back((self.number, id, then.collect()));
                    if replace {
                        self.records.clear();
                        self.records_bytes = 0;
                    }
                    self.records_bytes += records.iter().map(Bytes::len).sum::<usize>();
                    self.records.extend(records.iter().cloned());
                    done.push(Done::Persist { number: self.number, replace, records });
                }
                Action::Commit { slot, entries } => {
                    self.slots += 1;
                    let entries = entries.into_iter().map(|entry| entry.payload).collect();
                    done.push(Done::Commit { slot: slot.0, entries });
                }
                // It comes behind the slots that it must have, in the same breath.
                Action::ReadReady { id, .. } => {
                    let slot = self.replica.emitted_index();
                    done.push(Done::Ready { read: id.0, slot });
                }
                Action::SnapshotNeeded { .. } => done.push(Done::Lacks),
                Action::Reconfigured { members, .. } => {
                    done.push(Done::Seated(members.into_iter().map(|it| Voter(it.0)).collect()));
                }
                // What became of a proposal is seen from the entries themselves.
                _ => {}
            }
        }
        self.actions = actions;
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("voter", &self.voter).finish_non_exhaustive()
    }
}

/// The orders of voters in an encoded state, each with the first slot that it holds for.
fn orders(core: &[u8]) -> Option<Vec<(u64, Vec<Voter>)>> {
    let mut rest = core;
    let mut skip = |count: usize| -> Option<&[u8]> {
        let (taken, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(taken)
    };
    let number = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.try_into().ok()?));
    skip(1 + 8)?;
    let leaders = number(skip(4)?)?;
    skip(4 * leaders as usize)?;
    skip(8 + 8)?;
    let settled = number(skip(4)?)?;
    skip(20 * settled as usize)?;
    skip(4 + 8)?;
    let mut orders = Vec::new();
    for _ in 0..number(skip(4)?)? {
        let from = u64::from_le_bytes(skip(8)?.try_into().ok()?);
        let members = number(skip(4)?)?;
        let order = skip(4 * members as usize)?;
        let voters = order.chunks_exact(4).filter_map(number).map(Voter);
        orders.push((from, voters.collect()));
    }
    Some(orders)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::id::NodeId as Node;

    /// A group of one decides what it is given, and comes back from its records with all of it.
    #[test]
    fn a_group_of_one_decides_and_comes_back() {
        let voters = BTreeMap::from([(Voter(9), Node(1))]);
        let charter = Charter { id: [1; 16], voters, wanted: 1, succeeds: Vec::new() };
        let mut disk: (u64, Vec<Bytes>) = (0, Vec::new());
        for life in 1..=3u8 {
            let mut group =
                Group::new(&charter, Voter(9), [life; 32], disk.clone(), Time::START).unwrap();
            let mut done = Vec::new();
            group.take(&mut done);
            let mut decided = Vec::new();
            group_settles(&mut group, done, &mut disk, &mut decided);
            assert_eq!(decided.len(), usize::from(life) - 1);
            group.propose(Time::START, Bytes::from(vec![life])).unwrap();
            let mut done = Vec::new();
            group.take(&mut done);
            group_settles(&mut group, done, &mut disk, &mut decided);
            let all: Vec<_> = (1..=life).map(|life| Bytes::from(vec![life])).collect();
            assert_eq!(decided, all);
            assert_eq!(group.primary(), Some(Voter(9)));
            assert_eq!(group.records(), (disk.0, &disk.1[..]));
        }
    }

    fn group_settles(
        group: &mut Group,
        mut todo: Vec<Done>,
        disk: &mut (u64, Vec<Bytes>),
        decided: &mut Vec<Bytes>,
    ) {
        while !todo.is_empty() {
            for done in std::mem::take(&mut todo) {
                match done {
                    Done::Persist { number, replace, records } => {
                        if replace {
                            disk.1.clear();
                        }
                        disk.0 = number;
                        disk.1.extend(records);
                        todo.extend(group.persisted(Time::START, number));
                    }
                    Done::Commit { entries, .. } => decided.extend(entries),
                    _ => {}
                }
            }
        }
    }
}
