//! One run of a cluster that uses strong mode, and the verdict on it.
//!
//! What must be true of such a run is not what eventual mode promises, so other rules are checked than
//! in `trial`:
//! - `linearizable`: all that clients were told, in a cluster that stays in strong mode;
//! - `kept`: in one that switches, what was acknowledged is there in the end, unless the member that
//!   had acknowledged it was left out by name, and then it is kept as an orphan;
//! - `replay`: voters that have applied equally much of the log hold the same;
//! - `goes-on`: once the faults have ended, all nodes come to hold the same, and each of them answers a
//!   read and takes a write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::check::Fault;
use super::happening::Happening;
use super::linearizable::{self, Action, Budget, History, OperationId};
use super::plan::{ClientRequest, Plan};
use super::story::Story;
use super::tally::Tally;
use super::trial::Verdict;
use super::world::World;
use crate::protocol::boundary::{Reply, Token};
use crate::protocol::operation::Answer;
use crate::protocol::store::Fingerprint;
use crate::protocol::strong::Refusal;
use crate::protocol::time::Time;

/// How often a world is asked whether it has come to rest.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long after the faults all nodes may take until they hold the same, and how long each may take to
/// answer: voters get their seats, switches are given up, and requests are.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tokens of what is asked in the end; those of the plan are far below.
const LAST_TOKENS: u64 = 1 << 60;

/// A request whose answer has not come.
#[derive(Debug)]
struct Asked {
    operation: Option<OperationId>,
    /// The key that is written once, if it is one.
    kept: Option<Vec<u8>>,
    /// Who was asked, in which life: who dies answers nobody.
    node: (usize, u32),
}

/// A run under way.
struct Trial<'a> {
    world: World,
    story: Option<&'a mut Story>,
    history: History,
    asked: BTreeMap<Token, Asked>,
    replies: BTreeMap<Token, Reply>,
    /// What voters held at each point of the log, and who said so first.
    points: BTreeMap<(u32, u64), (usize, Fingerprint)>,
    /// What was acknowledged of the keys that are written once.
    kept: BTreeMap<Vec<u8>, Vec<u8>>,
    acknowledged: BTreeSet<Vec<u8>>,
    told: BTreeMap<Token, Reply>,
    steps: u64,
}

/// Runs a plan; `story` is told what happens.
pub(super) fn run(plan: Plan, story: Option<&mut Story>) -> Verdict {
    run_world(World::new(plan, story.is_some()), story)
}

/// The same for a world that has not begun.
pub(super) fn run_world(world: World, story: Option<&mut Story>) -> Verdict {
    let mut trial = Trial {
        world,
        story,
        history: History::default(),
        asked: BTreeMap::new(),
        replies: BTreeMap::new(),
        points: BTreeMap::new(),
        kept: BTreeMap::new(),
        acknowledged: BTreeSet::new(),
        told: BTreeMap::new(),
        steps: 0,
    };
    if let Some(story) = &mut trial.story {
        story.begin(&trial.world);
    }
    let mut converged_after = None;
    let fault = trial.run(&mut converged_after).err();
    if let Some(story) = &mut trial.story {
        story.end(&trial.world, fault.as_ref());
    }
    let tally: Tally = *trial.world.tally();
    let plan = trial.world.plan();
    Verdict {
        scenario: plan.name.clone(),
        seed: plan.seed,
        nodes: plan.nodes,
        fault,
        steps: trial.steps,
        lasted: trial.world.now().since(Time::START),
        converged_after,
        writes: trial.acknowledged.len() + trial.history.summary().writes_acknowledged,
        died: 0,
        conflicts: 0,
        tally,
    }
}

impl Trial<'_> {
    fn run(&mut self, converged_after: &mut Option<Duration>) -> Result<(), Fault> {
        let plan = self.world.plan();
        let faults_end = Time::START + plan.warm_up + plan.faults_end;
        self.run_until(faults_end)?;
        let deadline = faults_end + PATIENCE;
        while !self.is_at_rest() {
            if self.world.now() >= deadline {
                return Err(self.fault(None, "goes-on", self.standing()));
            }
            self.run_until(self.world.now() + LOOK_INTERVAL)?;
        }
        *converged_after = Some(self.world.now().since(faults_end));
        if let Some(story) = &mut self.story {
            story.converged(&self.world);
        }
        self.ask_all()?;
        self.judge()
    }

    /// Whether all nodes are up, agree on the mode and hold the same.
    fn is_at_rest(&self) -> bool {
        let mut shards = self.world.shards().map(|(_, shard)| shard.strong_status());
        let first = shards.next();
        let calm = |it: &crate::protocol::strong::StrongStatus| !it.switching;
        let same = first.as_ref().is_some_and(|first| {
            calm(first)
                && shards.all(|it| calm(&it) && (it.mode, it.epoch) == (first.mode, first.epoch))
        });
        let fills = self.world.shards().any(|(_, shard)| shard.is_filling());
        let waits = |asked: &Asked| self.world.incarnation(asked.node.0) == asked.node.1;
        same && !fills && self.world.is_converged() && !self.asked.values().any(waits)
    }

    fn standing(&self) -> String {
        let all: Vec<_> = self
            .world
            .shards()
            .map(|(at, shard)| {
                format!("n{}: {:?} {:?}", at + 1, shard.strong_status(), shard.summary())
            })
            .collect();
        format!("{} requests wait; {}", self.asked.len(), all.join("\n"))
    }

    fn fault(&self, node: Option<usize>, checker: &'static str, what: String) -> Fault {
        Fault { at: self.world.now(), node, checker, what }
    }

    fn run_until(&mut self, end: Time) -> Result<(), Fault> {
        while let Some(happening) = self.world.next(end) {
            self.step(happening)?;
        }
        Ok(())
    }

    fn step(&mut self, happening: Happening) -> Result<(), Fault> {
        self.steps += 1;
        if let Happening::Requests { node, requests } = &happening {
            for (token, request) in requests {
                self.ask(*node, *token, request);
            }
        }
        match &mut self.story {
            Some(story) => {
                let head = story.head(&self.world, &happening);
                self.world.perform(happening);
                story.step(&self.world, head);
            }
            None => self.world.perform(happening),
        }
        self.look()
    }

    /// Takes note of what a client asks for.
    fn ask(&mut self, node: usize, token: Token, request: &ClientRequest) {
        let now = self.world.now();
        let life = (node, self.world.incarnation(node));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let is_judged = self.world.plan().settings.strong.is_some_and(|strong| strong.is_judged);
        let mut operation =
            |key: &[u8], action| is_judged.then(|| self.history.ask(node, text(key), action, now));
        let asked = match request {
            ClientRequest::Set(key, value) => {
                let operation = operation(key, Action::Write(text(value)));
                let kept = operation.is_none().then(|| key.clone());
                if kept.is_some() {
                    self.kept.insert(key.clone(), value.clone());
                }
                Asked { operation, kept, node: life }
            }
            ClientRequest::Get(key) => {
                Asked { operation: operation(key, Action::Read), kept: None, node: life }
            }
            ClientRequest::SetAbsent(key, value) => {
                let action = Action::CompareAndSet { expected: None, new: text(value) };
                Asked { operation: operation(key, action), kept: None, node: life }
            }
            ClientRequest::Increment(key) => {
                Asked { operation: operation(key, Action::Increment(1)), kept: None, node: life }
            }
            ClientRequest::Delete(keys) => {
                let key = keys.first().map(Vec::as_slice).unwrap_or_default();
                Asked { operation: operation(key, Action::Delete), kept: None, node: life }
            }
            ClientRequest::SetAll(_)
            | ClientRequest::Ask(_)
            | ClientRequest::Note(..)
            | ClientRequest::Expire(..)
            | ClientRequest::Switch { .. } => return,
        };
        self.asked.insert(token, asked);
    }

    /// Takes note of what clients are told, and looks at voters.
    fn look(&mut self) -> Result<(), Fault> {
        let now = self.world.now();
        self.replies.extend(self.world.output().reply.iter().cloned());
        for token in self.world.released().to_vec() {
            let Some(reply) = self.replies.remove(&token) else { continue };
            if token.0 >= LAST_TOKENS {
                self.told.insert(token, reply);
                continue;
            }
            let Some(asked) = self.asked.remove(&token) else { continue };
            if let (Some(key), Reply::Written { .. }) = (&asked.kept, &reply) {
                self.acknowledged.insert(key.clone());
            }
            let Some(operation) = asked.operation else { continue };
            match answer_of(&self.history, operation, &reply) {
                Told::Answer(answer) => self.history.answer(operation, answer, now),
                Told::Refused => self.history.refuse(operation, now),
                Told::Unknown => {}
                Told::Nonsense => {
                    let what = format!("{:?} was answered {reply:?}", self.operation(operation));
                    return Err(self.fault(None, "linearizable", what));
                }
            }
        }
        let points: Vec<_> =
            self.world.shards().filter_map(|(at, shard)| Some((at, shard.log_point()?))).collect();
        for (at, (epoch, slot, holds)) in points {
            let (first, before) = *self.points.entry((epoch.0, slot)).or_insert((at, holds));
            if before != holds {
                let what = format!(
                    "holds {holds} after {slot} slots of epoch {}, where n{} holds {before}",
                    epoch.0,
                    first + 1
                );
                return Err(self.fault(Some(at), "replay", what));
            }
        }
        Ok(())
    }

    fn operation(&self, operation: OperationId) -> Option<&linearizable::Operation> {
        self.history.get(operation)
    }

    /// Asks every node for a write, and then for every key.
    fn ask_all(&mut self) -> Result<(), Fault> {
        let nodes = self.world.plan().nodes;
        let mut next = LAST_TOKENS;
        for node in 0..nodes {
            let request = ClientRequest::Set(b"last".to_vec(), node.to_string().into_bytes());
            let deadline = self.world.now() + PATIENCE;
            // It may not have heard of all others yet.
            while let reply = self.ask_last(node, &mut next, request.clone())?
                && !matches!(reply, Reply::Written { .. })
            {
                if self.world.now() >= deadline {
                    let what = format!("answered a write by {reply:?}; {}", self.standing());
                    return Err(self.fault(Some(node), "goes-on", what));
                }
                self.run_until(self.world.now() + LOOK_INTERVAL)?;
            }
        }
        // In eventual mode the others hear of that a little later.
        self.run_until(self.world.now() + Duration::from_secs(2))?;
        let keys: BTreeSet<String> =
            self.history.operations().iter().map(|operation| operation.key.clone()).collect();
        for node in 0..nodes {
            for key in &keys {
                let id = self.history.ask(node, key.clone(), Action::Read, self.world.now());
                let request = ClientRequest::Get(key.clone().into_bytes());
                let reply = self.ask_last(node, &mut next, request)?;
                match answer_of(&self.history, id, &reply) {
                    Told::Answer(answer) => self.history.answer(id, answer, self.world.now()),
                    _ => {
                        let what = format!("answered a read by {reply:?}");
                        return Err(self.fault(Some(node), "goes-on", what));
                    }
                }
            }
            for (key, value) in self.kept.clone() {
                let reply = self.ask_last(node, &mut next, ClientRequest::Get(key.clone()))?;
                let shown = match reply {
                    Reply::Operated { answer: Answer::Bulk(shown), .. } => Some(shown),
                    _ => None,
                };
                let is_orphan = self
                    .world
                    .shards()
                    .any(|(_, shard)| shard.orphans().any(|orphan| *orphan.cell.key == key[..]));
                let lost = self.acknowledged.contains(&key) && shown.as_ref() != Some(&value);
                if lost && !is_orphan {
                    let key = String::from_utf8_lossy(&key).into_owned();
                    let what =
                        format!("shows {shown:?} at {key}, of which a write was acknowledged");
                    return Err(self.fault(Some(node), "kept", what));
                }
            }
        }
        Ok(())
    }

    fn ask_last(
        &mut self,
        node: usize,
        next: &mut u64,
        request: ClientRequest,
    ) -> Result<Reply, Fault> {
        let token = Token(*next);
        *next += 1;
        self.step(Happening::Requests { node, requests: vec![(token, request.clone())] })?;
        self.asked.remove(&token);
        let deadline = self.world.now() + PATIENCE;
        while self.world.now() < deadline {
            if let Some(reply) = self.told.remove(&token) {
                return Ok(reply);
            }
            self.run_until(self.world.now() + Duration::from_millis(5))?;
        }
        Err(self.fault(
            Some(node),
            "goes-on",
            format!("does not answer {request:?}; {}", self.standing()),
        ))
    }

    fn judge(&self) -> Result<(), Fault> {
        let verdict = self.history.check(Budget { steps: 100_000 });
        match verdict.is_violated() {
            true => Err(self.fault(None, "linearizable", verdict.to_string())),
            false => Ok(()),
        }
    }
}

/// What a client was told.
enum Told {
    Answer(linearizable::Answer),
    Refused,
    Unknown,
    Nonsense,
}

fn answer_of(history: &History, operation: OperationId, reply: &Reply) -> Told {
    let Some(operation) = history.get(operation) else { return Told::Nonsense };
    let answer = match (&operation.action, reply) {
        (_, Reply::Refused(Refusal::Unknown)) => return Told::Unknown,
        (_, Reply::Refused(_)) => return Told::Refused,
        (Action::Write(_), Reply::Written { .. }) => linearizable::Answer::Done,
        (Action::Delete, Reply::Written { .. }) => linearizable::Answer::Changed(true),
        (Action::Delete, Reply::Nothing) => linearizable::Answer::Changed(false),
        (action, Reply::Operated { answer, .. }) => match (action, answer) {
            (Action::Read, Answer::Bulk(value)) => {
                linearizable::Answer::Value(Some(String::from_utf8_lossy(value).into_owned()))
            }
            (Action::Read, Answer::Nil) => linearizable::Answer::Value(None),
            (Action::CompareAndSet { .. }, Answer::Ok) => linearizable::Answer::Changed(true),
            (Action::CompareAndSet { .. }, Answer::Nil) => linearizable::Answer::Changed(false),
            (Action::Increment(_), Answer::Integer(sum)) => linearizable::Answer::Sum(*sum),
            _ => return Told::Nonsense,
        },
        _ => return Told::Nonsense,
    };
    Told::Answer(answer)
}
