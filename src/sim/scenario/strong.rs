//! Trouble for clusters in strong mode, and for those that switch.
//!
//! Clients at all nodes ask for what the judge of linearizable histories understands, on a few keys; see
//! [`judged`](crate::sim::judged). In scenarios that switch, every key is written once: what was
//! acknowledged in whatever mode must be there in the end.

use super::{Draft, MS, Scenario};
use crate::protocol::config::Durability;
use crate::protocol::operation::Mode;
use crate::sim::plan::{Act, ClientRequest, StrongSettings};

/// The scenarios with a replicated log.
pub const STRONG: &[Scenario] = &[
    Scenario {
        name: "log",
        about: "strong mode: nodes die, freeze and are cut off, and answers are linearizable",
        draw: log,
    },
    Scenario {
        name: "log-lossy",
        about: "strong mode over links that lose, double and reorder what is said",
        draw: log_lossy,
    },
    Scenario {
        name: "log-flip-flop",
        about: "strong mode: one node after the other dies and loses its unsynced tail",
        draw: log_flip_flop,
    },
    Scenario {
        name: "log-seats",
        about: "strong mode: voters lose their disks, come back with old ones, or are retired",
        draw: log_seats,
    },
    Scenario {
        name: "log-alone",
        about: "strong mode with one voter, which is retired or has to fill itself anew, and comes back",
        draw: log_alone,
    },
    Scenario {
        name: "toggle",
        about: "the mode is switched again and again under load",
        draw: toggle,
    },
    Scenario {
        name: "toggle-crash",
        about: "the mode is switched while nodes die, freeze and are cut off",
        draw: toggle_crash,
    },
    Scenario {
        name: "toggle-without",
        about: "members that cannot be reached are left out of switches, and come back",
        draw: toggle_without,
    },
];

impl Draft {
    /// A cluster with a log, of an odd number of voters and perhaps members that do not vote.
    fn strong(&mut self, starts: bool) {
        let voters = [1, 3, 3, 3, 5][self.dice.usize(..5)];
        let learners = [0, 0, 1, 2][self.dice.usize(..4)];
        self.plan.nodes = self.nodes_wanted.unwrap_or(voters + learners);
        let voters = voters.min(self.plan.nodes);
        let settings = &mut self.plan.settings;
        settings.strong = Some(StrongSettings { starts, voters, is_judged: starts });
        settings.durability =
            if self.dice.bool() { Durability::Always } else { Durability::Interval };
        settings.delta_bytes_max = settings.delta_bytes_max.max(1_000);
        settings.interval = MS * [50, 100, 200, 500][self.dice.usize(..4)];
        self.plan.detection = MS * self.dice.u32(200..1_500);
        self.plan.warm_up = 3_000 * MS;
        self.plan.faults_end = MS * self.dice.u32(3_000..12_000);
        self.link.latency = self.link.latency.min(10 * MS);
        self.link.jitter = self.link.jitter.min(self.link.latency);
    }

    /// Requests on a few keys, of which the first letter says what is done with them: plain values,
    /// numbers, or values that are set only where none is.
    fn judged_load(&mut self, requests: usize) {
        let keys = self.dice.usize(1..4);
        for number in 0..requests {
            let (at, node) = (self.instant(), self.any_node());
            let count = if self.dice.f64() < 0.1 { self.dice.usize(2..5) } else { 1 };
            let request = |part: usize| {
                let at = self.dice.usize(..keys);
                let reads = self.dice.f64() < 0.4;
                let value = format!("v{number}.{part}").into_bytes();
                match self.dice.usize(..8) {
                    0 => {
                        let key = format!("n{at}").into_bytes();
                        if reads { ClientRequest::Get(key) } else { ClientRequest::Increment(key) }
                    }
                    1 => {
                        let key = format!("g{at}").into_bytes();
                        match self.dice.usize(..4) {
                            0 => ClientRequest::Delete(vec![key]),
                            1 => ClientRequest::Get(key),
                            _ => ClientRequest::SetAbsent(key, value),
                        }
                    }
                    _ => {
                        let key = format!("p{at}").into_bytes();
                        match reads {
                            true => ClientRequest::Get(key),
                            false => ClientRequest::Set(key, value),
                        }
                    }
                }
            };
            let requests = (0..count).map(request).collect();
            self.act(at, Act::Ask { node, requests });
        }
    }

    /// Writes of which each has a key of its own.
    fn kept_load(&mut self, writes: usize) {
        for number in 0..writes {
            let (at, node) = (self.instant(), self.any_node());
            let (key, value) =
                (format!("k{number}").into_bytes(), format!("v{number}").into_bytes());
            self.act(at, Act::Ask { node, requests: vec![ClientRequest::Set(key, value)] });
        }
    }

    fn switches(&mut self, times: usize) {
        for _ in 0..times {
            let (at, node) = (self.instant(), self.any_node());
            let to = if self.dice.bool() { Mode::Strong } else { Mode::Eventual };
            let requests = vec![ClientRequest::Switch { to, without: Vec::new() }];
            self.act(at, Act::Ask { node, requests });
        }
    }
}

/// Of two or three nodes one votes. Its disk is whole, so all that it acknowledged must still be there when it
/// has begun anew.
fn log_alone(draft: &mut Draft) {
    draft.strong(true);
    let two_or_three = draft.dice.usize(2..4);
    draft.plan.nodes = draft.nodes_wanted.unwrap_or(two_or_three);
    if let Some(strong) = &mut draft.plan.settings.strong {
        // An even number would survive no more than one less.
        strong.voters = 2.min(draft.plan.nodes);
    }
    let requests = draft.dice.usize(60..200);
    draft.judged_load(requests);
    let mut at = draft.instant() / 4;
    while at + 6_000 * MS < draft.plan.faults_end.max(15_000 * MS) {
        let node = draft.any_node();
        match draft.dice.usize(..3) {
            0 => {
                draft.act(at, Act::Rebuild(node));
                if draft.dice.bool() {
                    let later = at + MS * draft.dice.u32(1..300);
                    let away = MS * draft.dice.u32(1..1_000);
                    draft.act(later, Act::Crash(node));
                    draft.act(later + away, Act::Restart(node));
                }
            }
            1 => {
                draft.act(at, Act::Crash(node));
                let by = (node + 1) % draft.plan.nodes;
                draft.act(at + 1_800 * MS, Act::Retire { node: by, member: node });
                draft.act(at + 3_000 * MS, Act::Restart(node));
            }
            _ => {
                draft.act(at, Act::Rebuild(node));
                let other = draft.any_node();
                let dies = at + MS * draft.dice.u32(1..100);
                let away = MS * draft.dice.u32(1..2_000);
                draft.act(dies, Act::Crash(other));
                draft.act(dies + away, Act::Restart(other));
            }
        }
        at += 6_000 * MS;
    }
    draft.plan.faults_end = draft.plan.faults_end.max(at);
}

/// Everything that a log must survive, some at a time.
fn log(draft: &mut Draft) {
    draft.strong(true);
    let requests = draft.dice.usize(60..250);
    draft.judged_load(requests);
    let (restarts, pauses) = (draft.dice.usize(..5), draft.dice.usize(..3));
    draft.restarts(restarts);
    draft.pauses(pauses);
    let (splits, one_way) = (draft.dice.usize(..3), draft.dice.bool());
    draft.splits(splits, one_way);
    let flaps = draft.dice.usize(..8);
    draft.flaps(flaps);
    if draft.dice.f64() < 0.2 {
        let at = draft.instant();
        (0..draft.plan.nodes).for_each(|node| draft.act(at, Act::Crash(node)));
    }
}

/// Links that do what QUIC would hide.
fn log_lossy(draft: &mut Draft) {
    draft.strong(true);
    draft.link.loss = 0.3 * draft.dice.f64();
    draft.link.duplicate = 0.3 * draft.dice.f64();
    draft.link.reorder = 0.3 * draft.dice.f64();
    let requests = draft.dice.usize(60..200);
    draft.judged_load(requests);
    let restarts = draft.dice.usize(..3);
    draft.restarts(restarts);
}

/// One dies, the others go on, it comes back, the next one dies.
fn log_flip_flop(draft: &mut Draft) {
    draft.strong(true);
    let requests = draft.dice.usize(100..300);
    draft.judged_load(requests);
    let mut at = 200 * MS;
    for round in 0.. {
        let node = round % draft.plan.nodes;
        let away = MS * draft.dice.u32(50..400);
        if at + away > draft.plan.faults_end {
            break;
        }
        draft.act(at, Act::Crash(node));
        draft.act(at + away, Act::Restart(node));
        at += away + MS * draft.dice.u32(100..800);
    }
}

/// A minority of the voters comes back without its disk, or with an old one.
fn log_seats(draft: &mut Draft) {
    draft.strong(true);
    let requests = draft.dice.usize(60..200);
    draft.judged_load(requests);
    let voters = draft.plan.settings.strong.map_or(1, |strong| strong.voters);
    if voters < 3 {
        // Of one voter nobody else remembers anything.
        return;
    }
    // One at a time, and each has long been in its seat again when the next one goes.
    let mut at = draft.instant() / 4;
    while at + 6_000 * MS < draft.plan.faults_end.max(9_000 * MS) {
        let node = draft.any_node();
        match draft.dice.usize(..3) {
            0 => {
                draft.act(at, Act::Crash(node));
                draft.act(at + 5 * MS, Act::Wipe(node));
                let away = MS * draft.dice.u32(10..500);
                draft.act(at + away.max(10 * MS), Act::Restart(node));
            }
            1 => {
                draft.act(at, Act::Copy(node));
                let later = at + MS * draft.dice.u32(10..1_000);
                draft.act(later, Act::Crash(node));
                draft.act(later + 5 * MS, Act::BringBack(node));
                draft.act(later + 10 * MS, Act::Restart(node));
            }
            _ => {
                draft.act(at, Act::Crash(node));
                let by = (node + 1) % draft.plan.nodes;
                draft.act(at + 1_800 * MS, Act::Retire { node: by, member: node });
                draft.act(at + 4_000 * MS, Act::Restart(node));
            }
        }
        at += 6_000 * MS;
    }
    draft.plan.faults_end = draft.plan.faults_end.max(at);
}

/// Switches both ways, and nothing else goes wrong.
fn toggle(draft: &mut Draft) {
    let starts = draft.dice.bool();
    draft.strong(starts);
    draft.is_kept();
    let (writes, times) = (draft.dice.usize(50..200), draft.dice.usize(2..20));
    draft.kept_load(writes);
    draft.switches(times);
}

/// Switches both ways while everything goes wrong.
fn toggle_crash(draft: &mut Draft) {
    toggle(draft);
    // What a crash may lose of eventual mode is not what is asked here.
    draft.plan.settings.durability = Durability::Always;
    let (restarts, pauses) = (draft.dice.usize(..4), draft.dice.usize(..2));
    draft.restarts(restarts);
    draft.pauses(pauses);
    let (splits, one_way) = (draft.dice.usize(..2), draft.dice.bool());
    draft.splits(splits, one_way);
    let flaps = draft.dice.usize(..5);
    draft.flaps(flaps);
    draft.link.loss = [0.0, 0.0, 0.1][draft.dice.usize(..3)];
}

/// A member is away while the others switch without it.
fn toggle_without(draft: &mut Draft) {
    draft.strong(false);
    draft.is_kept();
    draft.plan.settings.durability = Durability::Always;
    if draft.plan.nodes < 3 {
        draft.plan.nodes = draft.nodes_wanted.unwrap_or(3);
    }
    let writes = draft.dice.usize(50..200);
    draft.kept_load(writes);
    let (node, at) = (draft.any_node(), draft.instant() / 2);
    let others: Vec<_> = (0..draft.plan.nodes).filter(|other| *other != node).collect();
    let asked = others[draft.dice.usize(..others.len())];
    if draft.dice.bool() {
        let (from, to) = (vec![node], others);
        draft.act(at, Act::Cut { from, to, one_way: false });
    } else {
        draft.act(at, Act::Crash(node));
    }
    // Once it is known to be away.
    let noticed = at + draft.plan.detection * 3;
    let requests = vec![ClientRequest::Switch { to: Mode::Strong, without: vec![node] }];
    draft.act(noticed, Act::Ask { node: asked, requests });
    draft.plan.faults_end = draft.plan.faults_end.max(noticed + 2_000 * MS);
    let times = draft.dice.usize(..3);
    draft.switches(times);
}

impl Draft {
    /// Whatever mode there is, what was acknowledged is to be kept.
    fn is_kept(&mut self) {
        if let Some(strong) = &mut self.plan.settings.strong {
            strong.is_judged = false;
        }
    }
}
