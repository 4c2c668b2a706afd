//! Is what a run did right? Every rule has a file of its own, apart from the world that it judges.
//!
//! [`Checks`] looks at every step of a world, before and after it is performed, and keeps the truth
//! (`oracle`) beside it. The rules:
//!
//! | checker | what must hold | where |
//! |---|---|---|
//! | shown | a node shows exactly the greatest of what reached it, with the value as written | `shown` |
//! | order | what a node shows for a key only moves up; what is deleted stays so | `shown` |
//! | invented | what travels and what shows was written by somebody, as it is | `oracle`, `shown` |
//! | batch | where one part of a write shows, so does every part that nothing has replaced | `batch` |
//! | dots | no dot and no stamp is given out twice | `oracle` |
//! | vector | a version vector never shrinks, and every dot in it is held or replaced | `vector` |
//! | conflict | conflicts are told exactly where two writes meet of which neither knew the other | `conflict` |
//! | acknowledged | nothing acknowledged gets lost, except with the last node that had it | `acknowledged` |
//! | answer | a peer that says it holds a write does | `answer` |
//! | resurrection | what a deletion knew of does not show where the deletion is held | `resurrection` |
//! | collected | in the end no tombstone is left | `same` |
//! | expired | in the end no key is left whose deadline has passed | `same` |
//! | same | in the end everybody has the same cells, summaries and counts | `same` |
//! | quiet | in the end there is nothing to say but "still the same?" | `same` |
//! | bounds | exchanges and memory stay within their bounds | `bounds` |
//! | alarm | no correct node is taken for a damaged or malicious one | `bounds` |
//!
//! Each of them is shown to fail in `broken`, by a run in which a rule is broken on purpose.

mod acknowledged;
mod answer;
mod batch;
mod bounds;
mod conflict;
mod oracle;
mod resurrection;
mod same;
mod shown;
mod vector;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::happening::Happening;
use super::plan::{Act, ClientRequest, is_ending};
use super::world::World;
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::cell::{Content, Write};
use crate::protocol::delta::EXCHANGES_MAX;
use crate::protocol::event::{Conflict, Event};
use crate::protocol::message::Message;
use crate::protocol::stamp::Dot;
use crate::protocol::time::Time;
use acknowledged::Acknowledged;
use answer::Answers;
use oracle::Oracle;
use shown::Shown;
use vector::Vectors;

/// Mutes only the part of the checker *invented* that looks at messages.
const FORGERY: &str = "invented in messages";

/// A rule that was found broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in virtual time.
    pub at: Time,
    /// At which node, if at one.
    pub node: Option<usize>,
    /// The checker that noticed, by its name in the table above.
    pub checker: &'static str,
    /// What is wrong.
    pub what: String,
}

/// All checkers of a run. See the module's documentation.
#[derive(Debug)]
pub struct Checks {
    oracle: Oracle,
    shown: Shown,
    vectors: Vectors,
    acknowledged: Acknowledged,
    answers: Answers,
    /// Writes of which no client has been told yet.
    made: BTreeMap<Token, usize>,
    /// What the step under way should lead to.
    expected: Expected,
    /// Checkers that keep quiet, so that tests can show what others notice.
    pub(super) muted: &'static [&'static str],
    /// The most exchanges at a node in one direction.
    pub(super) exchanges_max: usize,
    /// Whether the checkers learn of crashes; in tests they may not.
    pub(super) hears_of_deaths: bool,
}

/// What is known of a step before it is performed.
#[derive(Debug, Default)]
struct Expected {
    node: Option<usize>,
    requests: Vec<(Token, ClientRequest)>,
    /// The keys that the step may change.
    touched: Vec<usize>,
    /// The writes that it brings, and the dots.
    writes: Vec<usize>,
    dots: BTreeSet<Dot>,
    conflicts: Vec<Conflict>,
    /// The node that dies.
    dies: Option<usize>,
    /// Nodes that may start.
    starts: Vec<usize>,
}

impl Fault {
    fn at(node: usize, checker: &'static str, what: String) -> Self {
        Self { at: Time::START, node: Some(node), checker, what }
    }

    fn anywhere(checker: &'static str, what: String) -> Self {
        Self { at: Time::START, node: None, checker, what }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}] ", self.at, self.checker)?;
        if let Some(node) = self.node {
            write!(f, "n{}: ", node + 1)?;
        }
        f.write_str(&self.what)
    }
}

impl Checks {
    /// Checkers for a world that has not begun.
    pub fn new(world: &World) -> Self {
        let nodes = world.plan().nodes;
        Self {
            oracle: Oracle::new(nodes),
            shown: Shown::new(nodes),
            vectors: Vectors::new(nodes),
            acknowledged: Acknowledged::default(),
            answers: Answers::default(),
            made: BTreeMap::new(),
            expected: Expected::default(),
            muted: &[],
            exchanges_max: EXCHANGES_MAX,
            hears_of_deaths: true,
        }
    }

    /// A fault at the present time, unless its checker keeps quiet.
    fn heard(&self, world: &World, result: Result<(), Fault>) -> Result<(), Fault> {
        match result {
            Err(fault) if self.muted.contains(&fault.checker) => Ok(()),
            Err(fault) => Err(Fault { at: world.now(), ..fault }),
            Ok(()) => Ok(()),
        }
    }

    /// How many acknowledged writes were lost with the last node that had them.
    pub fn writes_died(&self) -> usize {
        self.acknowledged.cells_died()
    }

    /// How many writes were acknowledged.
    pub fn writes(&self) -> usize {
        self.oracle.records().len()
    }

    /// Looks at a step before it is performed.
    ///
    /// # Errors
    /// When a message brings what nobody wrote.
    pub fn before(&mut self, world: &World, happening: &Happening) -> Result<(), Fault> {
        let result = self.expect(world, happening);
        self.heard(world, result)
    }

    /// Looks at a step after it was performed.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn after(&mut self, world: &World) -> Result<(), Fault> {
        if let Some(node) = self.expected.dies {
            self.death(world, node);
        }
        for node in std::mem::take(&mut self.expected.starts) {
            // What it had put away does not show.
            if let Some(shard) = world.shard(node).filter(|shard| shard.is_filling()) {
                self.oracle.put_away(node, shard);
            }
        }
        let result = self.follow(world);
        for token in world.released() {
            if let Some(record) = self.made.remove(token) {
                self.acknowledged.add(&self.oracle.records()[record]);
            }
        }
        result
    }

    /// A node has died with all that its disk does not have.
    fn death(&mut self, world: &World, node: usize) {
        self.oracle.lose(node, world.frames(node));
        self.shown.forget(node);
        self.vectors.forget(node);
        self.acknowledged.died(world, &self.oracle);
    }

    fn follow(&mut self, world: &World) -> Result<(), Fault> {
        let Some(node) = self.expected.node else { return Ok(()) };
        for (token, request) in std::mem::take(&mut self.expected.requests) {
            let result = self.acknowledge(world, node, token, &request);
            self.heard(world, result)?;
        }
        let told = self.tell(world, node);
        self.heard(world, told)?;
        let answers = self.answers.check(world, node, &self.oracle);
        self.heard(world, answers)?;
        let Expected { conflicts, touched, writes, .. } = &self.expected;
        self.heard(world, bounds::check(world, node, self.exchanges_max))?;
        self.heard(world, bounds::check_alarms(world, node))?;
        self.heard(world, conflict::check(world, node, &self.oracle, conflicts))?;
        let shown = self.shown.check(world, node, &self.oracle, touched);
        self.heard(world, shown)?;
        self.heard(world, resurrection::check(world, node, &self.oracle, touched))?;
        self.heard(world, batch::check(world, node, &self.oracle, writes))?;
        let vector = self.vectors.check(world, node, &self.oracle);
        self.heard(world, vector)?;
        if world.has_disks() {
            self.oracle.checkpoint(node, world.frames(node));
        }
        Ok(())
    }

    /// Looks at a world that should have converged.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn finish(&self, world: &World) -> Result<(), Fault> {
        self.heard(world, same::check(world, &self.oracle))?;
        let keys: Vec<usize> = self.oracle.keys().map(|(key, _)| key).collect();
        for (node, _) in world.shards() {
            self.heard(world, resurrection::check(world, node, &self.oracle, &keys))?;
        }
        self.heard(world, self.acknowledged.check(world, &self.oracle))
    }

    /// Looks at what was sent from a while after the end of everything.
    ///
    /// # Errors
    /// When there was more than openings of rounds.
    pub fn quiet(&self, world: &World) -> Result<(), Fault> {
        self.heard(world, same::check_quiet(world))
    }

    /// Tells the oracle what a node did of its own accord.
    fn tell(&mut self, world: &World, node: usize) -> Result<(), Fault> {
        let Some(shard) = world.shard(node) else { return Ok(()) };
        for event in &world.output().events {
            match event {
                Event::Enrolled { dot, .. } | Event::Claimed { dot } => self.oracle.reserve(*dot),
                Event::Rewritten { dot, keys, .. } if keys.iter().any(|key| is_ending(key)) => {
                    self.oracle.leave_out(*dot);
                }
                Event::Redeleted { key, dot, .. } if is_ending(key) => self.oracle.leave_out(*dot),
                Event::Rebuilding { .. } | Event::Refilling => {
                    self.oracle.put_away(node, shard);
                    self.shown.forget(node);
                    self.vectors.forget(node);
                    self.expected.conflicts.clear();
                }
                Event::Rewritten { of, stamp, dot, keys } => {
                    let result =
                        resurrection::check_made_anew(shard, node, &self.oracle, *of, keys);
                    self.heard(world, result)?;
                    let conflicts = self.oracle.rewritten(node, *of, (*stamp, *dot), keys)?;
                    self.expected.conflicts.extend(conflicts);
                    let keys = keys.iter().map(|key| self.oracle.number(key));
                    self.expected.touched.extend(keys.collect::<Vec<_>>());
                    if let Some(record) = self.oracle.records().last() {
                        self.acknowledged.add(record);
                    }
                }
                Event::Redeleted { key, stamp, dot, .. } => {
                    let key = self.oracle.number(key);
                    let cells = vec![(key, Content::Tombstone)];
                    self.oracle.written(node, (*stamp, *dot), cells)?;
                    self.expected.touched.push(key);
                }
                Event::Collected { .. } => {
                    self.oracle.collect(shard);
                    self.expected.touched = self.oracle.keys().map(|(key, _)| key).collect();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn expect(&mut self, world: &World, happening: &Happening) -> Result<(), Fault> {
        self.expected = Expected::default();
        match happening {
            Happening::Requests { node, requests } => {
                self.expected.node = Some(*node);
                self.expected.requests = requests.clone();
            }
            Happening::Message { from, to, envelope } => {
                self.expected.node = Some(*to);
                let taken = world.shard(*to).is_some_and(|shard| {
                    shard.admits(world.id(*from), envelope.origin, &envelope.message)
                });
                if let Message::Greet(greet) = &envelope.message {
                    self.expect_writes(world, *to, greet.entry.as_slice())?;
                }
                if !taken {
                    return Ok(());
                }
                match &envelope.message {
                    Message::Push { writes, .. } => self.expect_writes(world, *to, writes)?,
                    Message::Delta { chunk, .. } => {
                        self.expect_writes(world, *to, &chunk.writes)?;
                    }
                    _ => {}
                }
            }
            Happening::PeerUp { node, .. }
            | Happening::PeerDown { node, .. }
            | Happening::Synced { node, .. }
            | Happening::Wake { node } => self.expected.node = Some(*node),
            Happening::Act(Act::Crash(node) | Act::End(node))
                if self.hears_of_deaths && world.shard(*node).is_some() =>
            {
                self.expected.dies = Some(*node);
            }
            Happening::Act(Act::BringBack(node)) if world.shard(*node).is_none() => {
                self.expected.dies = Some(*node);
            }
            Happening::Act(Act::Retire { node, .. } | Act::Rebuild(node)) => {
                self.expected.node = Some(*node);
            }
            Happening::Act(Act::Restart(_) | Act::FaultsEnd) => {
                let nodes = 0..world.plan().nodes;
                self.expected.starts = nodes.filter(|it| world.shard(*it).is_none()).collect();
            }
            Happening::Act(_) => {}
        }
        Ok(())
    }

    /// Tells the oracle what reaches a node, and foresees the conflicts.
    fn expect_writes(&mut self, world: &World, node: usize, writes: &[Write]) -> Result<(), Fault> {
        let Some(shard) = world.shard(node) else { return Ok(()) };
        for write in writes {
            if write.cells.iter().any(|cell| cell.key.is_reserved()) {
                self.oracle.reserve(write.dot());
                continue;
            }
            if write.cells.iter().any(|cell| is_ending(&cell.key)) {
                self.oracle.leave_out(write.last_dot());
                continue;
            }
            let number = match self.oracle.recognise(node, write) {
                Err(_) if self.muted.contains(&FORGERY) => self.oracle.by_stamp(write.stamp),
                recognised => Some(recognised?),
            };
            let Some(number) = number else { continue };
            self.expected.writes.push(number);
            let origin = write.stamp.origin;
            // What a write covers is held with it, and met no more.
            let covered = write.seq.saturating_sub(u64::from(write.covers))..write.seq;
            self.expected.dots.extend(covered.map(|seq| Dot { origin, seq }));
            for (seq, cell) in (write.seq..).zip(&write.cells) {
                let key = self.oracle.number(&cell.key);
                self.expected.touched.push(key);
                let dot = Dot { origin, seq };
                if self.oracle.is_passed_over(node, shard, dot) {
                    continue;
                }
                let repeated = !self.expected.dots.insert(dot);
                let meets = !repeated && !shard.vector().contains(dot);
                self.expected.conflicts.extend(self.oracle.reach(node, number, key, meets));
            }
        }
        Ok(())
    }

    /// Tells the oracle what a client was told.
    fn acknowledge(
        &mut self,
        world: &World,
        node: usize,
        token: Token,
        request: &ClientRequest,
    ) -> Result<(), Fault> {
        if let ClientRequest::Ask(peer) = request {
            self.answers.asked(world, node, token, *peer);
            return Ok(());
        }
        let reply = world.output().reply.iter().find(|(to, _)| *to == token);
        if let Some((_, Reply::Operated { written, .. })) = reply {
            written.iter().for_each(|(_, dot)| self.oracle.leave_out(*dot));
            return Ok(());
        }
        let cells = self.cells(node, request);
        let (stamp, dot) = match reply {
            Some((_, Reply::Written { stamp, dot, changed })) => {
                let deletes = matches!(request, ClientRequest::Delete(_));
                if deletes && *changed != cells.len() {
                    let text = format!("deleted {changed} keys, where {} showed", cells.len());
                    return Err(Fault::at(node, "shown", text));
                }
                (*stamp, *dot)
            }
            Some((_, Reply::Nothing)) if cells.is_empty() => return Ok(()),
            other => {
                return Err(Fault::at(node, "shown", format!("answered {request:?} by {other:?}")));
            }
        };
        self.expected.touched.extend(cells.iter().map(|(key, _)| *key));
        self.oracle.written(node, (stamp, dot), cells)?;
        let record = self.oracle.records().len() - 1;
        self.expected.writes.push(record);
        self.made.insert(token, record);
        Ok(())
    }

    /// What a request should change, in the order of the keys: of a key named twice the last value
    /// counts, and only what shows is deleted.
    fn cells(&mut self, node: usize, request: &ClientRequest) -> Vec<(usize, Content)> {
        let mut cells: Vec<(usize, Content)> = Vec::new();
        let mut set = |key: usize, content: Content| {
            cells.retain(|(known, _)| *known != key);
            cells.push((key, content));
        };
        match request {
            ClientRequest::Set(key, value) => {
                set(self.oracle.number(key), Content::from(&value[..]));
            }
            ClientRequest::SetAll(pairs) => {
                for (key, value) in pairs {
                    set(self.oracle.number(key), Content::from(&value[..]));
                }
            }
            ClientRequest::Delete(keys) => {
                for key in keys {
                    let key = self.oracle.number(key);
                    let shown = self.oracle.shown(node, key);
                    if shown.is_some_and(|(_, cell)| cell.content.value().is_some()) {
                        set(key, Content::Tombstone);
                    }
                }
            }
            // Of strong mode; see `judged`.
            ClientRequest::Ask(_)
            | ClientRequest::Get(_)
            | ClientRequest::SetAbsent(..)
            | ClientRequest::Increment(_)
            | ClientRequest::Note(..)
            | ClientRequest::Expire(..)
            | ClientRequest::Switch { .. } => {}
        }
        cells.sort_by_key(|(key, _)| self.oracle.key(*key).clone());
        cells
    }
}
