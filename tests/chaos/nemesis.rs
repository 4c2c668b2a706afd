//! Faults, drawn from a seed, and what they do to nodes.
//!
//! A step is one or two faults at a time, held for a while, then taken back. Everything is drawn
//! before anything is done, so a seed names the same steps on every machine; when they meet which
//! write it does not say.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use crate::clients::Shared;
use crate::common::NodeProcess;
use crate::site::Site;

/// How long a fault is held: from less than a link takes to notice an outage to more than it takes to
/// give up.
const HOLD_MS: std::ops::Range<u64> = 50..1_500;

/// One time in so many, much longer: links are given up then, and dialled anew.
const LONG_ONE_IN: u8 = 16;
const LONG_HOLD: Duration = Duration::from_secs(9);

/// How long nothing happens between two steps.
const REST_MS: std::ops::Range<u64> = 50..500;

/// Where the clock may be set, relative to the true time.
const CLOCKS: [&str; 4] = ["-10y", "-1h", "-5", "+3y"];

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Killed without warning, and started again.
    Kill(Vec<usize>),
    /// Killed, and killed once more as soon as it is up again.
    KillTwice(usize),
    /// Ended in order, and started again.
    End(usize),
    /// Stopped, and continued.
    Stop(Vec<usize>),
    /// Nothing that the first sends reaches the second.
    Cut(Vec<(usize, usize)>),
    /// No room on its disk.
    Fill(usize),
    /// The clock on the wall shows another time.
    Clock(usize, &'static str),
}

/// Faults at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) faults: Vec<Fault>,
    pub(crate) hold: Duration,
    pub(crate) rest: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|fault| format!("{fault:?}")).collect();
        write!(f, "{} for {:?}", faults.join(" and "), self.hold)
    }
}

/// Draws steps.
pub(crate) struct Nemesis {
    dice: fastrand::Rng,
    size: usize,
    is_sealed: bool,
    clock_owner: Option<usize>,
    /// Never ended: it shows what grows, or what was never lost.
    spared: Option<usize>,
}

impl Nemesis {
    pub(crate) fn new(seed: u64, site: &Site, spared: Option<usize>) -> Self {
        let dice = fastrand::Rng::with_seed(seed);
        let (size, is_sealed) = (site.size(), site.is_sealed());
        Self { dice, size, is_sealed, clock_owner: site.clock_owner(), spared }
    }

    pub(crate) fn step(&mut self) -> Step {
        let mut faults = vec![self.fault()];
        if self.dice.u8(..3) == 0 {
            let second = self.fault();
            let same = std::mem::discriminant(&second) == std::mem::discriminant(&faults[0]);
            faults.extend(Some(second).filter(|_| !same));
        }
        let hold = match self.dice.u8(..LONG_ONE_IN) {
            0 => LONG_HOLD,
            _ => Duration::from_millis(self.dice.u64(HOLD_MS)),
        };
        Step { faults, hold, rest: Duration::from_millis(self.dice.u64(REST_MS)) }
    }

    fn fault(&mut self) -> Fault {
        loop {
            return match self.dice.u8(..12) {
                0..3 => Fault::Kill(self.mortals()),
                3 => match self.mortals().first() {
                    Some(node) => Fault::KillTwice(*node),
                    None => continue,
                },
                4 => match self.mortals().first() {
                    Some(node) => Fault::End(*node),
                    None => continue,
                },
                5..7 => Fault::Stop(self.some()),
                7..10 if self.is_sealed => Fault::Cut(self.links()),
                10 if self.is_sealed => Fault::Fill(self.dice.usize(..self.size)),
                11 => match self.clock_owner {
                    Some(owner) => Fault::Clock(owner, CLOCKS[self.dice.usize(..CLOCKS.len())]),
                    None => continue,
                },
                _ => continue,
            };
        }
    }

    /// One, some or all nodes, in any order.
    fn some(&mut self) -> Vec<usize> {
        let mut all: Vec<usize> = (0..self.size).collect();
        self.dice.shuffle(&mut all);
        let count = match self.dice.u8(..6) {
            0 => self.size,
            1..3 => self.dice.usize(1..=self.size),
            _ => 1,
        };
        all.truncate(count);
        all
    }

    fn mortals(&mut self) -> Vec<usize> {
        let mut some = self.some();
        some.retain(|node| Some(*node) != self.spared);
        if some.is_empty() {
            some.push((self.spared.unwrap_or(0) + 1) % self.size);
        }
        some
    }

    fn links(&mut self) -> Vec<(usize, usize)> {
        let all = (0..self.size).flat_map(|from| (0..self.size).map(move |to| (from, to)));
        let all = all.filter(|(from, to)| from != to);
        let one = self.dice.usize(..self.size);
        let other = (one + self.dice.usize(1..self.size)) % self.size;
        let sides: Vec<bool> = (0..self.size).map(|_| self.dice.bool()).collect();
        match self.dice.u8(..6) {
            // One link, one way.
            0 => vec![(one, other)],
            // One node is not heard by anybody, though it hears; and the other way round.
            1 => all.filter(|(from, _)| *from == one).collect(),
            2 => all.filter(|(_, to)| *to == one).collect(),
            // One node is alone.
            3 => all.filter(|(from, to)| *from == one || *to == one).collect(),
            // Two sides.
            4 => all.filter(|(from, to)| sides[*from] != sides[*to]).collect(),
            // Any.
            _ => all.filter(|_| self.dice.bool()).collect(),
        }
    }
}

/// Lets a fault happen.
pub(crate) fn begin(fault: &Fault, site: &Site, nodes: &mut [NodeProcess], shared: &Shared) {
    match fault {
        Fault::Kill(which) => {
            which.iter().for_each(|node| kill(*node, nodes, shared));
        }
        Fault::KillTwice(node) => {
            kill(*node, nodes, shared);
            start(*node, nodes, shared);
            kill(*node, nodes, shared);
        }
        Fault::End(node) => {
            // A stopped process does not hear that it should end.
            signal("-CONT", &nodes[*node]);
            if nodes[*node].is_alive() {
                shared.ending(*node, false);
                nodes[*node].end();
            }
        }
        Fault::Stop(which) => which.iter().for_each(|node| signal("-STOP", &nodes[*node])),
        Fault::Cut(links) => links.iter().for_each(|(from, to)| site.cut(*from, *to)),
        Fault::Fill(node) => site.fill(*node),
        Fault::Clock(_, offset) => site.set_clock(offset),
    }
}

/// Takes a fault back.
pub(crate) fn end(fault: &Fault, site: &Site, nodes: &mut [NodeProcess], shared: &Shared) {
    match fault {
        Fault::Kill(which) => which.iter().for_each(|node| start(*node, nodes, shared)),
        Fault::KillTwice(node) | Fault::End(node) => start(*node, nodes, shared),
        Fault::Stop(which) => which.iter().for_each(|node| signal("-CONT", &nodes[*node])),
        Fault::Cut(_) => site.mend_links(),
        Fault::Fill(node) => site.make_room(*node),
        Fault::Clock(..) => site.set_clock("+0"),
    }
}

fn kill(node: usize, nodes: &mut [NodeProcess], shared: &Shared) {
    if nodes[node].is_alive() {
        shared.ending(node, true);
        nodes[node].kill();
    }
}

fn start(node: usize, nodes: &mut [NodeProcess], shared: &Shared) {
    if !nodes[node].is_alive() {
        nodes[node].start_again(&[]);
        shared.started(node);
    }
}

fn signal(which: &str, node: &NodeProcess) {
    // A process that was killed meanwhile hears nothing, and need not.
    let id = node.id().to_string();
    let _ = Command::new("kill").args([which, &id]).output();
}

/// Kills all nodes at once and starts them again.
pub(crate) fn restart_all(nodes: &mut [NodeProcess], shared: &Shared) {
    let all: Vec<usize> = (0..nodes.len()).collect();
    all.iter().for_each(|node| kill(*node, nodes, shared));
    all.iter().for_each(|node| start(*node, nodes, shared));
}
