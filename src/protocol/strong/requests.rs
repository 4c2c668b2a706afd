//! Clients' requests that are not answered at once: through the log, by a voter, or later.
//!
//! Requests that come while one output is shared gather, and are proposed together: one entry of the
//! log carries them all, and one question to a majority serves all reads. A member that does not vote
//! passes them to a voter, once: if the answer does not come, the outcome is unknown, and that is what
//! the client is told. What waits is bounded in number, bytes and time.
//!
//! What an entry, or a word to a voter, has no room for waits until it is decided, so that it is done behind
//! it. If that takes too long it is refused, as nothing was done of it: what went before may still be decided.
//!
//! A request that comes while a switch is under way is held, and goes on in whatever mode follows. One
//! that the log decides after its epoch has ended is not applied, and goes on likewise.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::boundary::{Output, Reply, Request, Token};
use super::super::config::Durability;
use super::super::id::{NodeId, Origin};
use super::super::operation::{
    self, Answer, Expiry, Keys, Moment, Operation, Refused as Declined, Text, When, Word,
};
#[cfg(test)]
use super::super::shard::Careless;
use super::super::shard::Shard;
use super::super::stamp::{Dot, Stamp};
use super::super::time::Time;
use super::ledger::{Call, Entry};
use super::{LOOK_INTERVAL, Posture, Word as Said, group};

/// How long a request waits until the client is told that its outcome is not known, or that there is
/// no quorum: longer than any failure of a minority takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How long a request waits for the end of a switch.
const HELD_PATIENCE: Duration = Duration::from_secs(20);

/// The most bytes of one entry that is made of several requests: enough to make a sync cheap, few
/// enough that the next entry need not wait for it.
const ENTRY_BYTES: usize = 1 << 20;

/// How many entries of one voter may be under way before what comes gathers for the next one: the
/// second is on its way while the first is being decided.
const ENTRIES_IN_FLIGHT_MAX: usize = 2;

/// The same for questions to a majority, on behalf of reads.
const BARRIERS_IN_FLIGHT_MAX: usize = 1;

/// The most requests that wait at one member.
pub(super) const WAITING_MAX: usize = 262_144;

/// The most bytes of requests that wait at one member.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// How many numbers of requests are remembered of each member: more than are ever under way.
const TAKEN_MAX: usize = 8_192;

/// Why a request was not done, or may have been.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Fewer than a majority of the voters can be reached. Nothing was changed.
    #[error(
        "NOQUORUM fewer than a majority of the voters can be reached; nothing was changed, try again later"
    )]
    NoQuorum,
    /// It was passed on or proposed, and what became of it is not known.
    #[error(
        "UNKNOWN the outcome is not known: the write may or may not have happened, read before you repeat it"
    )]
    Unknown,
    /// A switch of the mode takes too long. Nothing was changed.
    #[error(
        "SWITCHING the consistency mode is being switched; nothing was changed, try again later"
    )]
    Switching,
    /// Too much is under way. Nothing was changed.
    #[error("BUSY too many requests are under way; nothing was changed, try again later")]
    Busy,
    /// It is longer than an entry of the log may be. Nothing was changed.
    #[error("ERR too large: one request in strong mode may take 16 MiB")]
    TooLarge,
    /// The cells take more memory than a member may use. Nothing was changed.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,
    /// It cannot be answered at once in the present mode, and the caller cannot wait.
    #[error("ERR in strong mode this needs an answer that comes later: use the asynchronous call")]
    Later,
}

/// What became of a request that another member has passed on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It was executed.
    Executed {
        /// What the client is told.
        answer: Answer,
        /// Its witness, if it wrote: the stamp and the name of the last cell.
        written: Option<(Stamp, Dot)>,
    },
    /// It was not, or may not have been.
    Refused(Refusal),
}

impl Outcome {
    /// About how many bytes it takes on the wire.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Executed { answer, .. } => 64 + answer.bytes(),
            Self::Refused(_) => 16,
        }
    }
}

/// Who waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// A client here.
    Client(Token, Shape),
    /// A member that has passed it on, under its number.
    Peer(NodeId, u64),
    /// Nobody: it was proposed for the sake of its time.
    Nobody,
}

/// What a client's answer looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// As that of an operation.
    Operated,
    /// As that of a plain write.
    Written,
}

/// Requests that wait for the same thing.
type Waiting = Vec<(Asker, Call)>;

/// How many of these fit into one entry, or one word: all that came together, if they can.
fn fitting(waiting: &[(Asker, Call)]) -> usize {
    let mut bytes = 0;
    let sizes = waiting.iter().map(|(_, call)| call.operation.len() + 32);
    let fit = sizes.take_while(|size| {
        bytes += size;
        bytes <= ENTRY_BYTES
    });
    fit.count().max(1)
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Requests {
    writes: Waiting,
    /// Whether they are what an entry had no room for.
    writes_left: bool,
    reads: Waiting,
    passing: Waiting,
    /// Whether they are what a word to a voter had no room for.
    passing_left: bool,
    held: VecDeque<(Time, Asker, Call)>,
    /// Entries of this voter that are not decided.
    proposed: BTreeMap<u64, (Time, Vec<Asker>)>,
    /// Reads that wait for a majority, and those that wait until enough is applied.
    barriers: BTreeMap<u64, (Time, Waiting)>,
    ready: Vec<(u64, Time, Waiting)>,
    /// What was passed to voters.
    passed: BTreeMap<u64, Passed>,
    outcomes: BTreeMap<NodeId, Vec<(u64, Outcome)>>,
    /// What members have passed on lately: none of it is done twice.
    taken: BTreeMap<NodeId, (Origin, Taken)>,
    next_entry: u64,
    next_passed: u64,
    waiting: usize,
    waiting_bytes: usize,
    /// When that was last counted, and how often it was.
    counted: Option<Time>,
    #[cfg(test)]
    pub(super) counts: usize,
}

/// The numbers of requests that one member has passed on.
#[derive(Debug, Default)]
struct Taken {
    numbers: BTreeSet<u64>,
    /// All up to this one are forgotten, and not taken any more.
    forgotten: u64,
}

impl Taken {
    /// Whether a number is new.
    fn take(&mut self, number: u64) -> bool {
        if number <= self.forgotten || !self.numbers.insert(number) {
            return false;
        }
        if self.numbers.len() > TAKEN_MAX
            && let Some(least) = self.numbers.pop_first()
        {
            self.forgotten = least;
        }
        true
    }
}

#[derive(Debug)]
struct Passed {
    to: NodeId,
    deadline: Time,
    asker: Asker,
    writes: bool,
}

impl Requests {
    /// Whether nothing has gathered.
    pub(super) fn is_idle(&self) -> bool {
        self.writes.is_empty()
            && self.reads.is_empty()
            && self.passing.is_empty()
            && self.outcomes.is_empty()
    }

    /// How many writes have gathered.
    pub(super) fn writes_gathered(&self) -> usize {
        self.writes.len()
    }

    /// Whether anybody waits.
    pub(super) fn waits(&self) -> bool {
        !self.writes.is_empty()
            || !self.reads.is_empty()
            || !self.held.is_empty()
            || !self.proposed.is_empty()
            || !self.barriers.is_empty()
            || !self.ready.is_empty()
            || !self.passed.is_empty()
    }

    /// Whether a request of a member's life was not taken before.
    fn takes(&mut self, peer: NodeId, life: Origin, number: u64) -> bool {
        let (of, taken) = self.taken.entry(peer).or_insert((life, Taken::default()));
        if *of != life {
            (*of, *taken) = (life, Taken::default());
        }
        taken.take(number)
    }

    /// Who waits for this entry.
    pub(super) fn decided(&mut self, number: u64) -> Option<Vec<Asker>> {
        self.proposed.remove(&number).map(|(_, askers)| askers)
    }
}

impl Shard {
    /// Takes in a client's request if it is not to be answered at once; says whether it did.
    pub(in crate::protocol) fn defer(
        &mut self,
        now: Time,
        token: Token,
        request: &Request<'_>,
        output: &mut Output,
    ) -> bool {
        if self.posture() == Posture::Direct {
            return false;
        }
        let text = |text| (Operation::Text(text), Moment::default(), Shape::Written);
        let made;
        let (operation, moment, shape) = match request {
            Request::Operate { operation, moment } => (*operation, *moment, Shape::Operated),
            Request::Set { key, value } => {
                let (key, value) = (Word(key), Word(value));
                let (expiry, when) = (Expiry::None, When::Always);
                made = text(Text::Set { key, value, expiry, when, get: false });
                (&made.0, made.1, made.2)
            }
            Request::SetAll(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (Word(key), Word(value)));
                made = text(Text::SetMany(pairs.collect()));
                (&made.0, made.1, made.2)
            }
            Request::Delete(keys) => {
                let keys = keys.iter().map(|key| Word(key)).collect();
                made = (Operation::Keys(Keys::Delete(keys)), Moment::default(), Shape::Written);
                (&made.0, made.1, made.2)
            }
            _ => return false,
        };
        let asker = Asker::Client(token, shape);
        let writes = operation.is_write();
        let deletes = matches!(operation, Operation::Keys(Keys::Delete(_) | Keys::Flush));
        if writes && !deletes && self.is_full() {
            self.answer(asker, Outcome::Refused(Refusal::OutOfMemory), output);
            return true;
        }
        let call = Call { operation: operation.encode(), moment };
        self.dispatch(now, asker, call, output);
        true
    }

    /// Sends a request on its way, by what holds now.
    pub(super) fn dispatch(&mut self, now: Time, asker: Asker, call: Call, output: &mut Output) {
        let requests = &mut self.strong.requests;
        let (most, most_bytes) = (WAITING_MAX, WAITING_BYTES_MAX);
        if call.operation.len() > group::CALL_BYTES_MAX {
            return self.answer(asker, Outcome::Refused(Refusal::TooLarge), output);
        }
        if requests.waiting >= most || requests.waiting_bytes >= most_bytes {
            // Not for each that is refused: there may be very many of both.
            if requests.counted.is_none_or(|at| now.since(at) >= LOOK_INTERVAL) {
                self.count_waiting(now);
            }
            let requests = &self.strong.requests;
            if requests.waiting >= most || requests.waiting_bytes >= most_bytes {
                return self.answer(asker, Outcome::Refused(Refusal::Busy), output);
            }
        }
        self.strong.requests.waiting += 1;
        self.strong.requests.waiting_bytes += call.operation.len();
        match self.posture() {
            Posture::Direct => self.execute_here(now, asker, &call, output),
            Posture::Held => {
                self.strong.requests.held.push_back((now + HELD_PATIENCE, asker, call));
            }
            Posture::Forward => match asker {
                // Passed on once: who gets it from another member does it or refuses.
                Asker::Peer(..) | Asker::Nobody => {
                    self.answer(asker, Outcome::Refused(Refusal::Busy), output);
                }
                Asker::Client(..) => self.strong.requests.passing.push((asker, call)),
            },
            Posture::Log if !self.has_quorum() => {
                self.answer(asker, Outcome::Refused(Refusal::NoQuorum), output);
            }
            Posture::Log if self.goes_through_the_log(&call) => {
                self.strong.requests.writes.push((asker, call));
            }
            Posture::Log => self.strong.requests.reads.push((asker, call)),
        }
        if self.strong.next.is_none() {
            self.strong.next = Some(now + LOOK_INTERVAL);
        }
    }

    /// Counts anew what waits, as answers are not counted one by one.
    fn count_waiting(&mut self, now: Time) {
        let requests = &mut self.strong.requests;
        requests.counted = Some(now);
        #[cfg(test)]
        {
            requests.counts += 1;
        }
        let proposed: usize = requests.proposed.values().map(|(_, askers)| askers.len()).sum();
        let reads = requests.barriers.values().map(|(_, reads)| reads);
        let reads: usize =
            reads.chain(requests.ready.iter().map(|(.., it)| it)).map(Vec::len).sum();
        let gathered = requests.writes.len() + requests.reads.len() + requests.passing.len();
        requests.waiting =
            proposed + reads + gathered + requests.held.len() + requests.passed.len();
        let bytes = |calls: &[(Asker, Call)]| -> usize {
            calls.iter().map(|(_, call)| call.operation.len()).sum()
        };
        let held: usize = requests.held.iter().map(|(.., call)| call.operation.len()).sum();
        requests.waiting_bytes = bytes(&requests.writes)
            + bytes(&requests.reads)
            + bytes(&requests.passing)
            + requests.barriers.values().map(|(_, reads)| bytes(reads)).sum::<usize>()
            + held;
    }

    /// Whether a majority of the voters can be reached, as far as links tell.
    pub(super) fn has_quorum(&self) -> bool {
        let ledger = self.strong.ledger();
        let here = |node: NodeId| node == self.config.node || self.peers.live(node).is_some();
        let up = ledger.seats.values().filter(|node| here(**node)).count();
        up >= ledger.majority() && !self.is_bereft()
    }

    /// Executes a request as eventual mode does.
    fn execute_here(&mut self, now: Time, asker: Asker, call: &Call, output: &mut Output) {
        let Ok(operation) = Operation::decode(&call.operation) else {
            let answer = Answer::Refused(Declined::Syntax);
            return self.answer(asker, Outcome::Executed { answer, written: None }, output);
        };
        let outcome = match self.operate(now, &operation, call.moment, output) {
            Reply::Operated { answer, written } => Outcome::Executed { answer, written },
            Reply::OutOfMemory => Outcome::Refused(Refusal::OutOfMemory),
            _ => Outcome::Refused(Refusal::TooLarge),
        };
        self.answer(asker, outcome, output);
    }

    /// Answers whoever waits.
    pub(super) fn answer(&mut self, asker: Asker, outcome: Outcome, output: &mut Output) {
        let (token, shape) = match asker {
            Asker::Client(token, shape) => (token, shape),
            Asker::Nobody => return,
            Asker::Peer(peer, number) => {
                self.strong.requests.outcomes.entry(peer).or_default().push((number, outcome));
                return;
            }
        };
        let reply = match (shape, outcome) {
            (_, Outcome::Refused(refusal)) => Reply::Refused(refusal),
            (Shape::Operated, Outcome::Executed { answer, written }) => {
                Reply::Operated { answer, written }
            }
            (Shape::Written, Outcome::Executed { answer, written }) => match (answer, written) {
                (Answer::Refused(Declined::Reserved), _) => Reply::Reserved,
                (Answer::Refused(_), _) => Reply::TooLarge,
                (answer, Some((stamp, dot))) => {
                    let changed = match answer {
                        Answer::Integer(changed) => usize::try_from(changed).unwrap_or(0),
                        _ => 0,
                    };
                    Reply::Written { stamp, dot, changed }
                }
                (_, None) => Reply::Nothing,
            },
        };
        output.reply.push((token, reply));
    }

    /// Lets go on what was held, in its order, once it may.
    pub(super) fn settle_posture(&mut self, now: Time, output: &mut Output) {
        if self.strong.requests.held.is_empty() || self.posture() == Posture::Held {
            return;
        }
        let held = std::mem::take(&mut self.strong.requests.held);
        // They are counted once more as they go on.
        self.count_waiting(now);
        for (_, asker, call) in held {
            self.dispatch(now, asker, call, output);
        }
        self.propose_gathered(now, output);
    }

    /// Proposes what has gathered.
    pub(super) fn propose_gathered(&mut self, now: Time, output: &mut Output) {
        // What comes while entries are under way gathers: the fewer they are, the less each costs. Two of
        // them may be decided in any order, so what one leaves over waits until it is decided: a client
        // that sends many writes at once sees them done in their order.
        let requests = &mut self.strong.requests;
        let most = if requests.writes_left { 1 } else { ENTRIES_IN_FLIGHT_MAX };
        if !requests.writes.is_empty() && requests.proposed.len() < most {
            let count = fitting(&requests.writes);
            let rest = requests.writes.split_off(count);
            requests.writes_left = !rest.is_empty();
            let writes = std::mem::replace(&mut requests.writes, rest);
            let (askers, calls) = writes.into_iter().unzip();
            self.propose_calls(now, askers, calls, output);
        }
        let has_room = self.strong.requests.barriers.len() < BARRIERS_IN_FLIGHT_MAX;
        let reads = match has_room {
            true => std::mem::take(&mut self.strong.requests.reads),
            false => Vec::new(),
        };
        #[cfg(test)]
        if self.is_careless(Careless::ReadsAlone) {
            self.answer_reads(reads, output);
            return self.pass_on(now, output);
        }
        if !reads.is_empty() {
            let asked = match &mut self.strong.group {
                Some(group) => group.read(now),
                None => Err(group::Refused::Stopped),
            };
            match asked {
                Ok(read) => {
                    self.strong.requests.barriers.insert(read, (now + PATIENCE, reads));
                }
                Err(_) => self.refuse_all(reads, Refusal::Busy, output),
            }
        }
        self.pass_on(now, output);
    }

    fn propose_calls(
        &mut self,
        now: Time,
        askers: Vec<Asker>,
        calls: Vec<Call>,
        output: &mut Output,
    ) {
        #[cfg(test)]
        let askers = match self.is_careless(Careless::AnswersEarly) {
            true => self.answer_early(askers, &calls, output),
            false => askers,
        };
        let requests = &mut self.strong.requests;
        let number = requests.next_entry;
        requests.next_entry += 1;
        let calls = self.timed(now, calls);
        let (by, epoch) = (self.strong.life, self.strong.standing.ledger.epoch);
        let entry = Entry::Calls { by, number, epoch, calls };
        let proposed = match &mut self.strong.group {
            Some(group) => group.propose(now, entry.encode().into()),
            None => Err(group::Refused::Stopped),
        };
        let refusal = match proposed {
            Ok(()) => {
                self.strong.requests.proposed.insert(number, (now + PATIENCE, askers));
                return;
            }
            Err(group::Refused::TooLarge) => Refusal::TooLarge,
            Err(group::Refused::Busy | group::Refused::Stopped) => Refusal::Busy,
        };
        for asker in askers {
            self.answer(asker, Outcome::Refused(refusal), output);
        }
    }

    /// Answers writes by what they would do now, which is wrong.
    #[cfg(test)]
    fn answer_early(
        &mut self,
        askers: Vec<Asker>,
        calls: &[Call],
        output: &mut Output,
    ) -> Vec<Asker> {
        for (asker, call) in askers.into_iter().zip(calls) {
            let operation = Operation::decode(&call.operation).expect("it was encoded here");
            let origin = self.config.origin;
            let (store, mode) = (&self.store, operation::Mode::Strong);
            let executed = operation::execute(store, &operation, call.moment, mode, origin.into());
            let (epoch, lamport) = (self.epoch, self.lamport);
            let written = (Stamp { epoch, lamport, origin }, Dot { origin, seq: 1 });
            let written = (!executed.cells.is_empty()).then_some(written);
            let answer = executed.answer;
            self.answer(asker, Outcome::Executed { answer, written }, output);
        }
        Vec::new()
    }

    fn refuse_all(&mut self, calls: Waiting, refusal: Refusal, output: &mut Output) {
        for (asker, _) in calls {
            self.answer(asker, Outcome::Refused(refusal), output);
        }
    }

    // Reads.

    /// A majority has said how far the log is.
    pub(super) fn read_ready(&mut self, now: Time, read: u64, slot: u64, output: &mut Output) {
        let Some((_, reads)) = self.strong.requests.barriers.remove(&read) else { return };
        if self.follows() && self.strong.ledger().slot >= slot {
            self.answer_reads(reads, output);
        } else {
            self.strong.requests.ready.push((slot, now + PATIENCE, reads));
        }
    }

    /// Answers the reads for which enough has been applied now.
    pub(super) fn applied_more(&mut self, output: &mut Output) {
        if self.strong.requests.ready.is_empty() || !self.follows() {
            return;
        }
        let slot = self.strong.ledger().slot;
        let ready = self.strong.requests.ready.extract_if(.., |(wanted, ..)| *wanted <= slot);
        let ready: Vec<_> = ready.flat_map(|(.., reads)| reads).collect();
        self.answer_reads(ready, output);
    }

    fn answer_reads(&mut self, reads: Waiting, output: &mut Output) {
        let wall = self.strong.ledger().wall;
        for (asker, call) in reads {
            let moment = Moment { wall, ..call.moment };
            let answer = match Operation::decode(&call.operation) {
                Ok(operation) => operation::look(&self.store, &operation, moment),
                Err(_) => Answer::Refused(Declined::Syntax),
            };
            self.answer(asker, Outcome::Executed { answer, written: None }, output);
        }
    }

    // Members that do not vote.

    /// The voter to which requests are passed: the nearest way to the primary, else any.
    pub(super) fn voter_for_requests(&self) -> Option<NodeId> {
        let seats = &self.strong.ledger().seats;
        let linked: Vec<NodeId> = seats
            .values()
            .copied()
            .filter(|node| *node != self.config.node)
            .filter(|node| self.peers.live(*node).is_some_and(|peer| !peer.filling))
            .collect();
        // Members spread over the voters, each keeping to one.
        let at = (self.config.node.0 % (linked.len().max(1) as u128)) as usize;
        linked.get(at).copied()
    }

    /// A number that this member has not used for a request before, in no life: it begins at random, far
    /// above what an earlier life can have come to, or far below.
    fn next_passed(&mut self) -> u64 {
        let next = &mut self.strong.requests.next_passed;
        if *next == 0 {
            *next = self.rng.u64(1..1 << 62);
        }
        *next += 1;
        *next
    }

    /// Passes on what has gathered. Two words may come in any order, so what one leaves over waits until
    /// it is answered.
    fn pass_on(&mut self, now: Time, output: &mut Output) {
        let requests = &mut self.strong.requests;
        if requests.passing.is_empty() || requests.passing_left && !requests.passed.is_empty() {
            return;
        }
        let Some(to) = self.voter_for_requests() else {
            let passing = std::mem::take(&mut self.strong.requests.passing);
            return self.refuse_all(passing, Refusal::NoQuorum, output);
        };
        let requests = &mut self.strong.requests;
        let rest = requests.passing.split_off(fitting(&requests.passing));
        requests.passing_left = !rest.is_empty();
        let passing = std::mem::replace(&mut requests.passing, rest);
        let mut calls = Vec::with_capacity(passing.len());
        for (asker, call) in passing {
            let number = self.next_passed();
            let writes = Operation::decode(&call.operation).map_or(true, |it| it.is_write());
            let passed = Passed { to, deadline: now + PATIENCE, asker, writes };
            self.strong.requests.passed.insert(number, passed);
            calls.push((number, call));
        }
        self.say(to, Said::Forward { calls }, output);
    }

    pub(super) fn receive_forward(
        &mut self,
        now: Time,
        (peer, origin): (NodeId, Origin),
        calls: Vec<(u64, Call)>,
        output: &mut Output,
    ) {
        if !self.roster.is_life(peer, origin) {
            return;
        }
        for (number, call) in calls {
            if self.strong.requests.takes(peer, origin, number) {
                self.dispatch(now, Asker::Peer(peer, number), call, output);
            }
        }
    }

    pub(super) fn receive_forwarded(
        &mut self,
        peer: NodeId,
        outcomes: Vec<(u64, Outcome)>,
        output: &mut Output,
    ) {
        for (number, outcome) in outcomes {
            let passed = &mut self.strong.requests.passed;
            if passed.get(&number).is_some_and(|passed| passed.to == peer)
                && let Some(passed) = passed.remove(&number)
            {
                self.answer(passed.asker, outcome, output);
            }
        }
    }

    /// Tells members what became of what they have passed on.
    pub(super) fn send_forwarded(&mut self, now: Time, output: &mut Output) {
        // What the log decided is durable at a majority; what was done past it is so here, later.
        let waits = output.append.awaited && self.config.durability == Durability::Always;
        for (peer, outcomes) in std::mem::take(&mut self.strong.requests.outcomes) {
            let word = Said::Forwarded { outcomes };
            match waits {
                true => self.say_durably(now, peer, word, output),
                false => self.say(peer, word, output),
            }
        }
    }

    // What takes too long.

    /// The link to a member is down: what it was asked for has no known outcome.
    pub(in crate::protocol) fn lost_voter(&mut self, peer: NodeId, output: &mut Output) {
        self.strong.requests.outcomes.remove(&peer);
        self.give_up_passed(|passed| passed.to == peer, output);
    }

    fn give_up_passed(&mut self, hopeless: impl Fn(&Passed) -> bool, output: &mut Output) {
        let requests = &mut self.strong.requests;
        let passed = &mut requests.passed;
        let gone = passed.iter().filter(|(_, passed)| hopeless(passed));
        let gone: Vec<u64> = gone.map(|(number, _)| *number).collect();
        let gone: Vec<_> = gone.iter().filter_map(|number| passed.remove(number)).collect();
        if requests.passing_left && gone.iter().any(|passed| passed.writes) {
            let behind = std::mem::take(&mut requests.passing);
            requests.passing_left = false;
            self.refuse_all(behind, Refusal::Busy, output);
        }
        for Passed { asker, writes, .. } in gone {
            let refusal = if writes { Refusal::Unknown } else { Refusal::NoQuorum };
            self.answer(asker, Outcome::Refused(refusal), output);
        }
    }

    /// Answers those who have waited too long.
    pub(super) fn give_up_requests(&mut self, now: Time, output: &mut Output) {
        let has_quorum = self.has_quorum();
        let requests = &mut self.strong.requests;
        let mut refused: Vec<(Asker, Refusal)> = Vec::new();
        if !has_quorum {
            let gathered = requests.writes.drain(..).chain(requests.reads.drain(..));
            refused.extend(gathered.map(|(asker, _)| (asker, Refusal::NoQuorum)));
        }
        let late = requests.held.partition_point(|(deadline, ..)| *deadline <= now);
        let held = requests.held.drain(..late);
        refused.extend(held.map(|(_, asker, _)| (asker, Refusal::Switching)));
        let late: Vec<u64> = requests
            .proposed
            .iter()
            .filter(|(_, (deadline, _))| *deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        if requests.writes_left && !late.is_empty() {
            let behind = requests.writes.drain(..);
            refused.extend(behind.map(|(asker, _)| (asker, Refusal::Busy)));
            requests.writes_left = false;
        }
        for number in late {
            let askers = requests.decided(number).unwrap_or_default();
            refused.extend(askers.into_iter().map(|asker| (asker, Refusal::Unknown)));
        }
        let late = requests.barriers.iter().filter(|(_, (deadline, _))| *deadline <= now);
        let late: Vec<u64> = late.map(|(read, _)| *read).collect();
        let barriers = late.iter().filter_map(|read| requests.barriers.remove(read));
        let barriers: Vec<_> = barriers.flat_map(|(_, reads)| reads).collect();
        let ready = requests.ready.extract_if(.., |(_, deadline, _)| *deadline <= now);
        let reads = barriers.into_iter().chain(ready.flat_map(|(.., reads)| reads));
        refused.extend(reads.map(|(asker, _)| (asker, Refusal::NoQuorum)));
        for (asker, refusal) in refused {
            self.answer(asker, Outcome::Refused(refusal), output);
        }
        self.give_up_passed(|passed| passed.deadline <= now, output);
    }
}
