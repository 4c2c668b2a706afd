//! One run of a plan under all checkers, and the verdict on it.
//!
//! A run has four parts: load and faults, until the faults end; convergence, which must come within
//! a bound that is worked out from the plan; a while in which what is left over is given up; and the
//! quiet, in which nodes open rounds that find nothing, and do nothing else. Contents are compared
//! at convergence and again at the very end.

use std::time::Duration;

use serde::Serialize;

use super::check::{Checks, Fault};
use super::happening::Happening;
use super::judged;
use super::plan::Plan;
use super::scenario::ENDING_MAX;
use super::story::Story;
use super::tally::Tally;
use super::world::World;
use crate::protocol::delta::PATIENCE;
use crate::protocol::expiry::GRACE;
use crate::protocol::rebuild::LONELY_MAX;
use crate::protocol::time::Time;

/// How often a world is asked whether it has converged.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How many rounds of every node the quiet lasts.
const QUIET_ROUNDS: u32 = 3;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The plan's name.
    pub scenario: String,
    /// The plan's seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: usize,
    /// The first rule found broken, if any.
    pub fault: Option<Fault>,
    /// How many steps it took.
    pub steps: u64,
    /// How much virtual time.
    pub lasted: Duration,
    /// From the end of the faults until everybody had the same.
    pub converged_after: Option<Duration>,
    /// Writes acknowledged.
    pub writes: usize,
    /// Of those, cells that died with the last node that had them.
    pub died: usize,
    /// Conflicts told, at all nodes.
    pub conflicts: u64,
    /// Messages sent.
    pub tally: Tally,
}

/// The same as numbers and words, for programs.
#[derive(Clone, Debug, Serialize)]
pub struct VerdictJson {
    /// The scenario.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// How many nodes there were.
    pub nodes: usize,
    /// Whether every rule held.
    pub ok: bool,
    /// The first rule found broken, in words.
    pub fault: Option<String>,
    /// How many steps it took.
    pub steps: u64,
    /// How much virtual time.
    pub virtual_ms: f64,
    /// From the end of the faults until everybody had the same.
    pub converged_after_ms: Option<f64>,
    /// Writes acknowledged.
    pub writes: usize,
    /// Of those, cells that died with the last node that had them.
    pub died: usize,
    /// Conflicts told, at all nodes.
    pub conflicts: u64,
    /// Messages sent until convergence.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The command that repeats the run.
    pub replay: String,
}

/// A run under way.
struct Trial<'a> {
    world: World,
    checks: Checks,
    story: Option<&'a mut Story>,
    steps: u64,
    conflicts: u64,
}

/// Runs a plan under all checkers; `story` is told what happens.
pub fn run(plan: Plan, story: Option<&mut Story>) -> Verdict {
    if plan.settings.strong.is_some() {
        return judged::run(plan, story);
    }
    let world = World::new(plan, story.is_some());
    let checks = Checks::new(&world);
    run_world(world, checks, story)
}

/// The same for a world that has not begun.
pub(super) fn run_world(world: World, checks: Checks, story: Option<&mut Story>) -> Verdict {
    let mut trial = Trial { world, checks, story, steps: 0, conflicts: 0 };
    if let Some(story) = &mut trial.story {
        story.begin(&trial.world);
    }
    let mut converged_after = None;
    let mut tally = Tally::default();
    let fault = trial.run(&mut converged_after, &mut tally).err();
    if fault.is_some() {
        tally = *trial.world.tally();
    }
    if let Some(story) = &mut trial.story {
        story.end(&trial.world, fault.as_ref());
    }
    let plan = trial.world.plan();
    Verdict {
        scenario: plan.name.clone(),
        seed: plan.seed,
        nodes: plan.nodes,
        fault,
        steps: trial.steps,
        lasted: trial.world.now().since(Time::START),
        converged_after,
        writes: trial.checks.writes(),
        died: trial.checks.writes_died(),
        conflicts: trial.conflicts,
        tally,
    }
}

impl Trial<'_> {
    fn run(
        &mut self,
        converged_after: &mut Option<Duration>,
        tally: &mut Tally,
    ) -> Result<(), Fault> {
        let plan = self.world.plan();
        let faults_end = Time::START + plan.warm_up + plan.faults_end;
        self.run_until(faults_end)?;
        let deadline = faults_end + self.patience();
        while !self.world.is_converged() {
            if self.world.now() >= deadline {
                return Err(self.not_converged(faults_end));
            }
            self.run_until(self.world.now() + LOOK_INTERVAL)?;
        }
        *converged_after = Some(self.world.now().since(faults_end));
        *tally = *self.world.tally();
        if let Some(story) = &mut self.story {
            story.converged(&self.world);
        }
        self.checks.finish(&self.world)?;
        // Every member asks every other one what it holds, one in each round.
        let rounds = u32::try_from(4 * self.world.plan().nodes + 20).unwrap_or(u32::MAX);
        let mut collected_by = self.world.now() + self.world.plan().settings.interval * rounds;
        if self.world.plan().has_deadlines() {
            // A few claims of each follow once the last deadline is well past.
            collected_by = collected_by + ENDING_MAX + 2 * GRACE;
        }
        while self.world.now() < collected_by && !self.world.has_collected() {
            self.run_until(self.world.now() + LOOK_INTERVAL)?;
        }
        // Whatever hangs is given up by then.
        self.run_until(self.world.now() + PATIENCE + PATIENCE / 2)?;
        self.world.reset_tally();
        self.run_until(self.world.now() + self.world.plan().settings.interval * QUIET_ROUNDS)?;
        self.checks.quiet(&self.world)?;
        self.checks.finish(&self.world)
    }

    /// How long convergence may take once the faults have ended: connections come back, exchanges
    /// that hang are given up, and every node meets every other a few times; and where all fill
    /// themselves anew, they have to wait before they give up to find one that does not.
    fn patience(&self) -> Duration {
        let plan = self.world.plan();
        let rounds = u32::try_from(4 * plan.nodes + 20).unwrap_or(u32::MAX);
        plan.detection * 3 + PATIENCE * 3 + LONELY_MAX + plan.settings.interval * rounds
    }

    fn not_converged(&self, faults_end: Time) -> Fault {
        let waited = self.world.now().since(faults_end);
        let what = match self.checks_say_why() {
            Some(fault) => format!("differ {waited:?} after the faults have ended: {fault}"),
            None => format!("do not agree {waited:?} after the faults have ended"),
        };
        Fault { at: self.world.now(), node: None, checker: "same", what }
    }

    fn checks_say_why(&self) -> Option<Fault> {
        self.checks.finish(&self.world).err()
    }

    fn run_until(&mut self, end: Time) -> Result<(), Fault> {
        while let Some(happening) = self.world.next(end) {
            self.step(happening)?;
        }
        Ok(())
    }

    fn step(&mut self, happening: Happening) -> Result<(), Fault> {
        self.steps += 1;
        let before = self.checks.before(&self.world, &happening);
        match &mut self.story {
            Some(story) => {
                let head = story.head(&self.world, &happening);
                self.world.perform(happening);
                story.step(&self.world, head);
            }
            None => self.world.perform(happening),
        }
        let events = &self.world.output().events;
        let conflict = |event: &&crate::protocol::event::Event| {
            matches!(event, crate::protocol::event::Event::Conflict(_))
        };
        self.conflicts += events.iter().filter(conflict).count() as u64;
        before?;
        self.checks.after(&self.world)
    }
}

impl Verdict {
    /// The command that repeats the run and tells its story.
    pub fn replay(&self) -> String {
        format!(
            "quorumor simulate --scenario {} --seed {} --nodes {} --trace",
            self.scenario, self.seed, self.nodes
        )
    }

    /// The verdict for programs.
    pub fn to_json(&self) -> VerdictJson {
        let total = self.tally.total();
        let millis = |duration: Duration| duration.as_secs_f64() * 1e3;
        VerdictJson {
            scenario: self.scenario.clone(),
            seed: self.seed,
            nodes: self.nodes,
            ok: self.fault.is_none(),
            fault: self.fault.as_ref().map(ToString::to_string),
            steps: self.steps,
            virtual_ms: millis(self.lasted),
            converged_after_ms: self.converged_after.map(millis),
            writes: self.writes,
            died: self.died,
            conflicts: self.conflicts,
            messages: total.messages,
            bytes: total.bytes,
            replay: self.replay(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::scenario::{SCENARIOS, Scenario};

    fn tell(scenario: &Scenario, seed: u64) -> (Verdict, Story) {
        let mut story = Story::default();
        let verdict = run(scenario.plan(seed, None), Some(&mut story));
        (verdict, story)
    }

    #[test]
    fn the_same_seed_tells_the_same_story_byte_for_byte() {
        for scenario in SCENARIOS {
            let (one, other) = (tell(scenario, 3), tell(scenario, 3));
            assert!(one.1.text() == other.1.text(), "{}", scenario.name);
            assert_eq!(one.0.fault, None, "{}", one.0.replay());
            assert_ne!(one.1.text(), tell(scenario, 4).1.text(), "{}", scenario.name);
        }
    }

    /// Telling a story changes nothing.
    #[test]
    fn a_run_is_the_same_whether_told_or_not() {
        for scenario in SCENARIOS {
            let quiet = run(scenario.plan(5, None), None);
            let (told, _) = tell(scenario, 5);
            assert_eq!((quiet.steps, quiet.lasted), (told.steps, told.lasted), "{}", scenario.name);
            assert_eq!(quiet.tally, told.tally);
        }
    }

    #[test]
    fn a_verdict_says_how_to_see_the_run_again() {
        let verdict = run(Scenario::named("calm").unwrap().plan(9, Some(3)), None);
        assert_eq!(
            verdict.replay(),
            "quorumor simulate --scenario calm --seed 9 --nodes 3 --trace"
        );
        let again = run(Scenario::named("calm").unwrap().plan(9, Some(3)), None);
        assert_eq!((verdict.steps, verdict.lasted), (again.steps, again.lasted));
        assert!(verdict.to_json().ok && verdict.to_json().fault.is_none());
    }
}
