//! Wishes for a switch of the mode: who may have one, and what becomes of it.
//!
//! Anybody may wish, at any member. One that does not follow the log passes the wish to a voter, which
//! looks whether a switch can be begun and has the log prepare it (`switch`). Wishes that come meanwhile
//! join it if they want the very same, and are told otherwise.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::boundary::{Output, Reply, Token};
use super::super::id::NodeId;
use super::super::operation::Mode;
use super::super::shard::Shard;
use super::super::stamp::Epoch;
use super::super::time::Time;
use super::Word;
use super::ledger::{Entry, Phase};

/// How long whoever wishes for a switch waits for its end.
const WISH_PATIENCE: Duration = Duration::from_secs(30);

/// How many wishes may wait at one member.
const WISHES_MAX: usize = 64;

/// How often a cluster that is to start strong tries to.
const START_INTERVAL: Duration = Duration::from_millis(200);

/// What somebody wishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SwitchOrder {
    /// The mode to come.
    pub to: Mode,
    /// Members to be left out: they are retired once the epoch begins, and what only they have becomes an
    /// orphan.
    pub without: Vec<NodeId>,
    /// Whether only to say what would be done.
    pub dry_run: bool,
}

/// What came of the wish for a switch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Switched {
    /// The epoch has begun.
    Done {
        /// It.
        epoch: Epoch,
    },
    /// The mode was that already.
    Already {
        /// The epoch that goes on.
        epoch: Epoch,
    },
    /// It could be done: what was asked.
    Possible {
        /// Who would take part.
        members: Vec<NodeId>,
        /// Who votes, or would.
        voters: Vec<NodeId>,
    },
    /// Members cannot be reached; nothing was changed.
    Unreachable {
        /// They.
        nodes: Vec<NodeId>,
    },
    /// A member that can be reached, or the node that was asked, cannot be left out; nothing was changed.
    CannotLeaveOut {
        /// It.
        node: NodeId,
    },
    /// Nobody of this name is a member.
    NoMember {
        /// It.
        node: NodeId,
    },
    /// Another switch is under way.
    Underway,
    /// Fewer than a majority of the voters can be reached; nothing was changed.
    NoQuorum,
    /// It was given up; the mode is what it was.
    Aborted {
        /// The epoch that has begun instead.
        epoch: Epoch,
    },
    /// It takes too long to say.
    Unknown,
    /// Another switch is under way, which leaves out others than was asked for.
    LeavesOut {
        /// Whom it leaves out.
        nodes: Vec<NodeId>,
    },
}

/// Who wishes for a switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wisher {
    Client(Token),
    Peer(NodeId, u64),
    /// The configuration.
    Start,
}

#[derive(Debug)]
pub(super) struct Wish {
    by: Wisher,
    pub(super) order: SwitchOrder,
    deadline: Time,
    /// The voter it was passed to, under this number.
    passed: Option<(NodeId, u64)>,
    pub(super) begun: bool,
}

/// The wishes that wait here.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    pub(super) waiting: Vec<Wish>,
    next: u64,
    tried: Option<Time>,
}

impl SwitchOrder {
    /// Why this does not join a switch that has begun.
    pub(super) fn refused_by(&self, phase: &Phase) -> Option<Switched> {
        let Phase::Preparing { without, .. } = phase else { return Some(Switched::Underway) };
        if self.to != Mode::Strong || self.dry_run {
            return Some(Switched::Underway);
        }
        let wanted: BTreeSet<_> = self.without.iter().copied().collect();
        let nodes: BTreeSet<_> = without.iter().map(|(node, _)| *node).collect();
        (wanted != nodes).then(|| Switched::LeavesOut { nodes: nodes.into_iter().collect() })
    }
}

impl Wishes {
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Shard {
    /// Wishes for a switch; the answer comes later.
    pub(in crate::protocol) fn wish(
        &mut self,
        now: Time,
        token: Token,
        order: &SwitchOrder,
        output: &mut Output,
    ) {
        self.add_wish(now, Wisher::Client(token), order.clone(), output);
    }

    pub(super) fn receive_switch(
        &mut self,
        now: Time,
        peer: NodeId,
        id: u64,
        order: SwitchOrder,
        output: &mut Output,
    ) {
        let by = Wisher::Peer(peer, id);
        if self.strong.wishes.waiting.iter().all(|wish| wish.by != by) {
            self.add_wish(now, by, order, output);
        }
    }

    fn add_wish(&mut self, now: Time, by: Wisher, order: SwitchOrder, output: &mut Output) {
        if self.strong.wishes.waiting.len() >= WISHES_MAX {
            return self.answer_wisher(by, Switched::Underway, output);
        }
        let deadline = now + WISH_PATIENCE;
        let wish = Wish { by, order, deadline, passed: None, begun: false };
        self.strong.wishes.waiting.push(wish);
        self.look_at_switch(now, output);
    }

    fn answer_wisher(&mut self, by: Wisher, outcome: Switched, output: &mut Output) {
        match by {
            Wisher::Client(token) => output.reply.push((token, Reply::Switched(outcome))),
            Wisher::Peer(peer, id) => self.say(peer, Word::Switched { id, outcome }, output),
            Wisher::Start => {}
        }
    }

    /// Answers all wishes alike.
    pub(super) fn answer_wishes(&mut self, outcome: Switched, output: &mut Output) {
        for wish in std::mem::take(&mut self.strong.wishes.waiting) {
            self.answer_wisher(wish.by, outcome.clone(), output);
        }
    }

    pub(super) fn receive_switched(
        &mut self,
        peer: NodeId,
        id: u64,
        outcome: Switched,
        output: &mut Output,
    ) {
        let waiting = &mut self.strong.wishes.waiting;
        if let Some(at) = waiting.iter().position(|wish| wish.passed == Some((peer, id))) {
            let wish = waiting.swap_remove(at);
            self.answer_wisher(wish.by, outcome, output);
        }
    }

    /// An epoch has begun: the wishes that had begun are answered, others are looked at again.
    pub(super) fn wishes_end(&mut self, output: &mut Output) {
        let (epoch, mode) = (self.strong.ledger().epoch, self.strong.ledger().mode());
        let begun = self.strong.wishes.waiting.extract_if(.., |wish| wish.begun);
        for wish in begun.collect::<Vec<_>>() {
            let outcome = match wish.order.to == mode {
                true => Switched::Done { epoch },
                false => Switched::Aborted { epoch },
            };
            self.answer_wisher(wish.by, outcome, output);
        }
    }

    /// Goes on with wishes, and with a switch that is under way.
    pub(super) fn look_at_switch(&mut self, now: Time, output: &mut Output) {
        self.start_strong(now);
        let mut waiting = std::mem::take(&mut self.strong.wishes.waiting);
        let mut stays = Vec::new();
        for mut wish in waiting.drain(..) {
            match self.consider(now, &mut wish, output) {
                Some(outcome) => self.answer_wisher(wish.by, outcome, output),
                None if wish.deadline <= now => {
                    self.answer_wisher(wish.by, Switched::Unknown, output);
                }
                None => stays.push(wish),
            }
        }
        stays.append(&mut self.strong.wishes.waiting);
        self.strong.wishes.waiting = stays;
        self.drive(now, output);
    }

    /// Has a cluster that is to start strong do so, once as many members are there as shall vote.
    fn start_strong(&mut self, now: Time) {
        let ledger = self.strong.ledger();
        if !self.config.starts_strong || ledger.opened.is_some() || self.fill.is_some() {
            return;
        }
        let due = self.strong.wishes.tried.is_none_or(|at| now.since(at) >= START_INTERVAL);
        if !due || self.strong.wishes.waits() || ledger.phase != Phase::Settled {
            return;
        }
        self.strong.wishes.tried = Some(now);
        let linked: BTreeSet<NodeId> = self
            .roster
            .actives()
            .map(|(node, _)| node)
            .filter(|node| self.is_open_to(*node))
            .chain([self.config.node])
            .collect();
        if linked.len() >= self.config.voters && linked.first() == Some(&self.config.node) {
            let order = SwitchOrder { to: Mode::Strong, without: Vec::new(), dry_run: false };
            let deadline = now + WISH_PATIENCE;
            let by = Wisher::Start;
            let wish = Wish { by, order, deadline, passed: None, begun: false };
            self.strong.wishes.waiting.push(wish);
        }
    }

    /// Whether writes go both ways between a member and this one.
    pub(super) fn is_open_to(&self, node: NodeId) -> bool {
        node == self.config.node
            || self.peers.live(node).is_some_and(|link| link.takes && link.gives)
    }

    /// Brings a wish on its way; its outcome, if that is known at once.
    fn consider(&mut self, now: Time, wish: &mut Wish, output: &mut Output) -> Option<Switched> {
        if wish.begun || wish.passed.is_some() || self.strong.founding.is_some() {
            return None;
        }
        let ledger = self.strong.ledger();
        let (epoch, to) = (ledger.epoch, wish.order.to);
        let settled = ledger.phase == Phase::Settled;
        if ledger.mode() == to && settled {
            return Some(Switched::Already { epoch });
        }
        if !settled {
            let refused = wish.order.refused_by(&ledger.phase);
            wish.begun = refused.is_none();
            return refused;
        }
        let members = self.members_without(&wish.order.without);
        if to == Mode::Strong
            && let Some(refused) = self.judge_members(&wish.order, &members)
        {
            return Some(refused);
        }
        if !self.has_group() {
            if wish.order.dry_run {
                let count = self.config.voters.clamp(1, super::VOTERS_MAX).min(members.len());
                let voters =
                    members.iter().copied().take(count - usize::from(count.is_multiple_of(2)));
                return Some(Switched::Possible { voters: voters.collect(), members });
            }
            self.found(now, &wish.order.without, output);
            return None;
        }
        if !self.has_quorum() {
            return Some(Switched::NoQuorum);
        }
        if wish.order.dry_run {
            let voters = self.strong.ledger().seats.values().copied().collect();
            return Some(Switched::Possible { members, voters });
        }
        if !self.follows() {
            if self.strong.group.is_none() && self.strong.standing.seated {
                // It is about to vote.
                return None;
            }
            if matches!(wish.by, Wisher::Peer(..)) {
                return Some(Switched::Underway);
            }
            let seats = self.strong.ledger().seats.values().copied();
            let voter =
                seats.filter(|node| *node != self.config.node).find(|it| self.is_open_to(*it));
            let Some(voter) = voter else { return Some(Switched::NoQuorum) };
            let id = self.rng.u64(..);
            self.strong.wishes.next = id;
            wish.passed = Some((voter, id));
            self.say(voter, Word::Switch { id, order: wish.order.clone() }, output);
            return None;
        }
        let Some(next) = epoch.0.checked_add(1).map(Epoch) else {
            return Some(Switched::Underway);
        };
        let entry = match to {
            Mode::Strong => {
                let by = self.strong.standing.voter.unwrap_or_default();
                let life = |node: &NodeId| {
                    let member = self.roster.members.get(node);
                    (*node, member.map_or(0, |(_, member)| member.incarnation))
                };
                let without = wish.order.without.iter().map(life).collect();
                Entry::Prepare { epoch: next, members, by, without }
            }
            Mode::Eventual => Entry::Relax { epoch: next },
        };
        wish.begun = self.propose_entry(now, &entry);
        None
    }

    /// Whether these members may switch now.
    fn judge_members(&self, order: &SwitchOrder, members: &[NodeId]) -> Option<Switched> {
        for node in &order.without {
            // The primary is no exception: in eventual mode nothing is put to the log that would make
            // another one the primary, so one that has died would be it for ever.
            let is_here = self.peers.live(*node).is_some();
            if *node == self.config.node || is_here {
                return Some(Switched::CannotLeaveOut { node: *node });
            }
            if !self.roster.members.contains_key(node) {
                return Some(Switched::NoMember { node: *node });
            }
        }
        let nodes: Vec<_> =
            members.iter().copied().filter(|node| !self.is_open_to(*node)).collect();
        (!nodes.is_empty()).then_some(Switched::Unreachable { nodes })
    }

    /// The active members, and this one, but for those that are left out.
    pub(super) fn members_without(&self, without: &[NodeId]) -> Vec<NodeId> {
        let members = self.roster.actives().map(|(node, _)| node).chain([self.config.node]);
        let members: BTreeSet<_> = members.filter(|node| !without.contains(node)).collect();
        members.into_iter().collect()
    }
}
