//! The roster: who belongs to the cluster, and from whom writes are taken.
//!
//! # Entries are cells
//! The roster has one cell per member, under a key of the store's own: it spreads, merges and
//! converges like everything else. A node writes its own entry when it first meets somebody, and
//! after it has begun a new life; others may write that it is retired. That entries are ordinary
//! writes is what makes collection safe (`stability`): whoever holds all that a member had written
//! or seen also knows whom that member had let in by then.
//!
//! # The gate
//! When a link comes up, both sides greet: each says which life it lives, what it holds, and how the
//! other stands with it. From a peer only what it sends *after* it was told that it is cleared is
//! worth anything; until then it sends nothing, and nothing is taken. A peer is cleared when
//! - its life is not over: it has not been retired, and no later one is known;
//! - it holds all up to where tombstones were collected here (the *horizon*), or begins anew;
//! - its entry, with its present origin, is in the roster.
//!
//! So a node gives writes only to members, and whoever gets any is known to whoever gave them. A
//! node that fills itself anew gives nothing, and gets everything.
//!
//! What a message says counts only under the sender's present origin. A late message of an earlier
//! life is passed over.
//!
//! # Who gives way
//! Of two nodes of which neither holds up to the other's horizon (both sides of a partition have
//! retired the other), one has to begin anew: the one whose roster has fewer active members, or at
//! a tie the one with the higher first id. Members of one side agree on both, so that all give way
//! in the same direction. Where even these are equal, because one of the two has begun anew beside a
//! node that knew nothing, the one gives way that has collected less.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::boundary::{Lane, Output, Reply};
use super::cell::{self, CellWrite, Content, Field, Write};
use super::config::{Config, Strategy};
use super::digest::{Digest, DigestHash};
use super::event::{Distrust, Event, Misdeed};
use super::id::{NodeId, Origin};
use super::message::Message;
use super::recovery::life_after;
use super::shard::Shard;
use super::stability::Row;
use super::stamp::{Dot, Epoch, Lamport, Stamp};
use super::store::Store;
use super::strong::Knows;
use super::time::Time;

/// The key of the roster.
const ROSTER_KEY: &[u8] = cell::RESERVED_PREFIX;

/// The most nodes of which anything is remembered here: more than a cluster has, small enough that
/// an absurd roster costs a few hundred kilobytes.
pub const MEMBERS_MAX: usize = 4_096;

/// The longest name in an entry, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The greatest number of a life that others are believed, and of one that a record names: it grows
/// by 2³² with every start, so that this is a start every second for some ten years with room above.
pub(super) const INCARNATION_MAX: u64 = 1 << 62;

/// How many peers that are not cleared are asked to greet in one interval: as many as a push goes to.
const UNCLEARED_ASKED_MAX: usize = 16;

/// How often the pause between two such questions to one peer is doubled: to about a minute, if
/// rounds come every second.
const ASK_DOUBLINGS_MAX: u32 = 6;

/// What a member is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum State {
    /// It takes part: no tombstone is collected without it.
    Active,
    /// It was away too long, or somebody said so: it comes back anew.
    Retired,
    /// It has left for good.
    Left,
}

/// An entry of the roster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// What it is.
    pub state: State,
    /// The origin that it writes under.
    pub origin: Origin,
    /// The number of that incarnation.
    pub incarnation: u64,
    /// What people call it.
    pub name: String,
}

/// How a peer stands with the node that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Standing {
    /// It is cleared: what it sends is taken.
    Active,
    /// Its entry, with its present origin, is not in the roster.
    Unknown,
    /// Its life is over.
    Retired,
    /// It lacks something up to the horizon.
    Behind,
}

/// How strong the side is that a node belongs to; the greater one stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Rank {
    members: u32,
    first: Reverse<NodeId>,
    /// How many dots its horizon has.
    collected: u64,
    horizon: DigestHash,
}

/// What both sides of a new link say. See the module's documentation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Greet {
    /// Counts the greetings of the sender's life, so that a late one is told from a later one.
    pub number: u32,
    /// The number of the sender's incarnation.
    pub incarnation: u64,
    /// What it holds.
    pub digest: Digest,
    /// Its Lamport counter.
    pub lamport: Lamport,
    /// Whether it fills itself anew.
    pub filling: bool,
    /// How strong its side is.
    pub rank: Rank,
    /// Its own entry of the roster.
    pub entry: Option<Write>,
    /// How the receiver stands with it, under the origin that it knows of it.
    pub you: Option<(Origin, Standing)>,
    /// The greatest number of an incarnation of the receiver that the sender knows of. One that is
    /// greater than the receiver's own is of a life that it does not remember.
    pub yours: u64,
    /// What it knows of the group of voters and of the mode.
    pub knows: Option<Box<Knows>>,
    /// Whether it wants to be greeted in return.
    pub asks: bool,
}

/// The present life of another node, as far as it is known here.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    incarnation: u64,
    origin: Option<Origin>,
    greeting: u32,
    /// Incarnations up to this one are over.
    over: u64,
}

/// Who belongs. See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) members: BTreeMap<NodeId, (Stamp, Member)>,
    lives: BTreeMap<NodeId, Life>,
    /// Members whose entries have changed since they were last looked at.
    changed: BTreeSet<NodeId>,
    /// The dot of this node's own entry.
    own: Option<Dot>,
    greetings: u32,
    /// What members have reported.
    pub(super) rows: BTreeMap<NodeId, Row>,
    /// Since when members are away.
    pub(super) away: BTreeMap<NodeId, Time>,
}

impl Roster {
    /// Takes note of an entry that stands from now on.
    pub(super) fn note(&mut self, field: &Field, stamp: Stamp, content: &Content) {
        let id = <[u8; 16]>::try_from(field.as_bytes()).map(NodeId::from_bytes);
        let (Ok(node), Some(value)) = (id, content.value()) else { return };
        let Ok(member) = rmp_serde::from_slice::<Member>(value) else { return };
        let room = self.members.len() < MEMBERS_MAX || self.members.contains_key(&node);
        if !room || member.name.len() > NAME_BYTES_MAX || member.incarnation > INCARNATION_MAX {
            return;
        }
        let over = match member.state {
            State::Active => member.incarnation.saturating_sub(1),
            State::Retired | State::Left => member.incarnation,
        };
        let life = self.lives.entry(node).or_default();
        life.over = life.over.max(over);
        self.members.insert(node, (stamp, member));
        self.changed.insert(node);
    }

    /// The origin of a member that takes part.
    pub(super) fn active(&self, node: NodeId) -> Option<Origin> {
        let (_, member) = self.members.get(&node)?;
        (member.state == State::Active).then_some(member.origin)
    }

    /// The members that take part, with their origins.
    pub(super) fn actives(&self) -> impl Iterator<Item = (NodeId, Origin)> {
        self.members.keys().filter_map(|node| Some((*node, self.active(*node)?)))
    }

    /// Whether `origin` is the present life of a peer.
    pub(super) fn is_life(&self, peer: NodeId, origin: Origin) -> bool {
        self.lives.get(&peer).is_some_and(|life| life.origin == Some(origin))
    }

    /// Takes note of a greeting; `None` if it is a late one, else whether it begins a new life.
    fn meet(&mut self, peer: NodeId, origin: Origin, greet: &Greet) -> Option<bool> {
        if self.lives.len() >= MEMBERS_MAX && !self.lives.contains_key(&peer) {
            return None;
        }
        let life = self.lives.entry(peer).or_default();
        let before = (life.incarnation, life.greeting);
        if (greet.incarnation, greet.number) <= before && life.origin.is_some() {
            return None;
        }
        let new = life.origin != Some(origin);
        if new && life.origin.is_some() && greet.incarnation == life.incarnation {
            return None;
        }
        (life.incarnation, life.greeting) = (greet.incarnation, greet.number);
        life.origin = Some(origin);
        Some(new)
    }

    /// Whether a later life of a peer is known than this one.
    fn is_older(&self, peer: NodeId, incarnation: u64) -> bool {
        self.lives.get(&peer).is_some_and(|life| incarnation < life.incarnation)
    }

    fn is_over(&self, peer: NodeId, incarnation: u64) -> bool {
        self.lives.get(&peer).is_some_and(|life| incarnation <= life.over)
    }

    /// The roster as a shard that has risen finds it in its store.
    pub(super) fn of(config: &Config, store: &Store) -> Self {
        let mut roster = Self::default();
        for (stamp, dot, cell) in store.all().filter(|(_, _, cell)| &*cell.key == ROSTER_KEY) {
            roster.note(&cell.field, stamp, &cell.content);
            let own = cell.field.as_bytes() == config.node.to_bytes();
            if own && roster.active(config.node) == Some(config.origin) {
                roster.own = Some(dot);
            }
        }
        roster
    }

    /// Forgets what was reported, and what is known of whom this node was.
    pub(super) fn begin_anew(&mut self) {
        self.rows.clear();
        self.own = None;
    }
}

impl Shard {
    /// The members of the roster.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.roster.members.iter().map(|(node, (_, member))| (*node, member))
    }

    /// Whether what a peer sends is taken, by what is known of it now.
    pub fn admits(&self, peer: NodeId, origin: Origin, message: &Message) -> bool {
        let standing = match message {
            _ if !self.config.roster => return true,
            Message::Greet(_)
            | Message::Strong(_)
            | Message::Ask { .. }
            | Message::Answer { .. }
            | Message::Members { .. }
            | Message::Publish { .. } => return true,
            _ if !self.roster.is_life(peer, origin) => return false,
            _ => self.peers.live(peer),
        };
        let Some(peer_now) = standing else { return false };
        let fill = self.fill.as_ref();
        match message {
            Message::Push { .. } | Message::Report { .. } => peer_now.takes && fill.is_none(),
            Message::Delta { round, chunk, .. } => {
                let follows = || self.exchanges.would_follow(peer, *round, chunk);
                peer_now.takes && fill.is_none_or(|fill| fill.donor() == Some(peer) && follows())
            }
            Message::Open { .. } => peer_now.gives || peer_now.takes && fill.is_none(),
            _ => peer_now.gives || peer_now.takes,
        }
    }

    /// Since when a member is away, as far as this node has noticed.
    pub fn away_since(&self, node: NodeId) -> Option<Time> {
        self.roster.away.get(&node).copied()
    }

    /// How strong this node's side is.
    fn rank(&self) -> Rank {
        let first = self.roster.actives().map(|(node, _)| node).min();
        let members = self.roster.actives().count();
        Rank {
            members: u32::try_from(members).unwrap_or(u32::MAX),
            first: Reverse(first.unwrap_or(self.config.node)),
            collected: self.horizon.dots(),
            horizon: DigestHash::of(&self.horizon),
        }
    }

    /// Writes an entry of the roster.
    pub(super) fn enroll(
        &mut self,
        now: Time,
        node: NodeId,
        member: Member,
        output: &mut Output,
    ) -> Reply {
        let state = member.state;
        let value = rmp_serde::to_vec(&member).expect("an entry in memory can be encoded");
        let field = Field::new(&node.to_bytes());
        let (key, seen) = self.store.prepare(ROSTER_KEY, &field, self.config.origin);
        let content = Content::from(&value[..]);
        let cell = CellWrite { key, field, content, seen };
        let Some((stamp, dot)) = self.write_own(now, vec![cell], output) else {
            return Reply::Exhausted;
        };
        if node == self.config.node {
            self.roster.own = Some(dot);
        }
        output.events.push(Event::Enrolled { node, state, dot });
        Reply::Written { stamp, dot, changed: 0 }
    }

    /// Writes this node's own entry: that it takes part, or that it has left.
    pub(super) fn enroll_self(&mut self, now: Time, output: &mut Output) -> Reply {
        let state = if self.leaving { State::Left } else { State::Active };
        let name: String = self.config.name.chars().take(NAME_BYTES_MAX / 4).collect();
        let (origin, incarnation) = (self.config.origin, self.config.incarnation);
        let member = Member { state, origin, incarnation, name };
        self.enroll(now, self.config.node, member, output)
    }

    /// Takes part again after it was told to leave.
    pub(super) fn stay(&mut self, now: Time, output: &mut Output) -> Reply {
        if !std::mem::take(&mut self.leaving) {
            return Reply::Nothing;
        }
        if self.renew(now, 0, output) {
            return Reply::Begun;
        }
        // Whoever knows that it had left says so when it greets, and by then it may begin anew.
        self.enroll_self(now, output)
    }

    /// Retires another member.
    pub(super) fn retire(&mut self, now: Time, node: NodeId, output: &mut Output) -> Reply {
        match self.roster.members.get(&node) {
            Some((_, member)) if member.state == State::Active && node != self.config.node => {
                let member = Member { state: State::Retired, ..member.clone() };
                self.enroll(now, node, member, output)
            }
            _ => Reply::Unknown,
        }
    }

    /// Meets a peer with which a link has come up.
    pub(super) fn meet(&mut self, now: Time, peer: NodeId, output: &mut Output) {
        self.roster.away.remove(&peer);
        if self.roster.own.is_none()
            && self.roster.active(self.config.node) != Some(self.config.origin)
        {
            self.enroll_self(now, output);
        }
        self.greet(now, peer, true, output);
    }

    /// Greets everybody, and wants to be greeted.
    pub(super) fn greet_all(&mut self, now: Time, output: &mut Output) {
        let peers: Vec<_> = self.peers.ids().collect();
        peers.into_iter().for_each(|peer| self.greet(now, peer, true, output));
    }

    /// Greets a peer.
    pub(super) fn greet(&mut self, now: Time, peer: NodeId, asks: bool, output: &mut Output) {
        let life = self.roster.lives.get(&peer);
        let origin = life.and_then(|life| life.origin);
        let yours = life.map_or(0, |life| life.incarnation.max(life.over));
        let rank = self.rank();
        let filling = self.fill.is_some();
        let Some(link) = self.peers.live_mut(peer) else { return };
        let you = origin.map(|origin| (origin, link.standing));
        link.told = you.map(|(origin, standing)| (origin, standing, filling));
        if asks {
            (link.asked, link.asked_in_vain) = (Some(now), link.asked_in_vain.saturating_add(1));
        }
        self.roster.greetings += 1;
        let knows = self.knows(peer);
        let entry = self.roster.own.and_then(|dot| Some((dot, self.store.cell(dot)?)));
        let entry = entry.map(|(dot, (stamp, cell))| Write::new(stamp, dot.seq, vec![cell]));
        let greet = Greet {
            number: self.roster.greetings,
            incarnation: self.config.incarnation,
            digest: Digest(self.vector.to_send()),
            lamport: self.lamport,
            filling,
            rank,
            entry,
            you,
            yours,
            knows,
            asks,
        };
        self.sender().send(peer, Lane::Push, Message::Greet(Box::new(greet)), output);
    }

    /// Asks a peer to greet, unless that has just been done.
    pub(super) fn ask_greeting(&mut self, now: Time, peer: NodeId, output: &mut Output) {
        let Some(link) = self.peers.live(peer) else { return };
        if link.asked.is_none_or(|asked| now.since(asked) >= self.config.interval) {
            self.greet(now, peer, true, output);
        }
    }

    /// Asks some peers that are not cleared both ways to greet: a greeting was lost.
    pub(super) fn ask_uncleared(&mut self, now: Time, output: &mut Output) {
        let interval = self.config.interval;
        let due = |peer: &NodeId| {
            self.peers.live(*peer).is_some_and(|link| {
                let pause = interval * (1 << link.asked_in_vain.min(ASK_DOUBLINGS_MAX));
                !(link.takes && link.gives) && link.asked.is_none_or(|at| now.since(at) >= pause)
            })
        };
        let mut peers: Vec<_> = self.peers.ids().filter(due).collect();
        peers.sort_by_key(|peer| self.peers.live(*peer).and_then(|link| link.asked));
        peers.truncate(UNCLEARED_ASKED_MAX);
        peers.into_iter().for_each(|peer| self.greet(now, peer, true, output));
    }

    /// Takes no notice of a message that does not count.
    pub(super) fn pass_over(
        &mut self,
        now: Time,
        peer: NodeId,
        origin: Origin,
        output: &mut Output,
    ) {
        self.counters.messages_gated += 1;
        let late = self.roster.lives.get(&peer).is_some_and(|life| life.origin.is_some())
            && !self.roster.is_life(peer, origin);
        let cleared = self.peers.live(peer).is_some_and(|link| link.takes && link.gives);
        if !late && !cleared {
            self.ask_greeting(now, peer, output);
        }
    }

    pub(super) fn receive_greet(
        &mut self,
        now: Time,
        peer: NodeId,
        (origin, epoch): (Origin, Epoch),
        mut greet: Greet,
        output: &mut Output,
    ) {
        if !self.config.roster || self.peers.live(peer).is_none() {
            return;
        }
        if greet.yours > self.config.incarnation && greet.yours <= INCARNATION_MAX {
            // The directory is an old copy: nobody takes this life for the present one.
            self.renew(now, greet.yours, output);
            return;
        }
        let meets = match greet.knows.take() {
            Some(knows) => self.receive_knows(now, peer, *knows, output),
            None => self.reach_epoch(epoch, output),
        };
        if !meets {
            return;
        }
        let Some(new_life) = self.roster.meet(peer, origin, &greet) else {
            self.counters.messages_gated += 1;
            if self.roster.is_older(peer, greet.incarnation) {
                self.ask_greeting(now, peer, output);
            }
            return;
        };
        let (theirs, ours) = (greet.lamport, self.lamport);
        if theirs.0.saturating_sub(ours.0) > self.config.lamport_jump_max {
            return self.quarantine(peer, Misdeed::Runaway { theirs, ours }, output);
        }
        self.lamport = ours.max(theirs);
        if new_life {
            self.close(peer, output);
        }
        let Digest(held) = greet.digest;
        if self.judge_claim(&held).is_err() {
            return self.rebuild(now, Distrust::Amnesia, output);
        }
        let row = self.roster.rows.get(&peer).filter(|row| row.origin == origin);
        let covered = held.covers(&self.horizon) && row.is_none_or(|row| held.covers(&row.vector));
        #[cfg(test)]
        let covered = covered || self.is_careless(super::shard::Careless::OpensTheGate);
        let over = self.roster.is_over(peer, greet.incarnation);
        if !over && (covered || greet.filling) {
            self.take_entry(peer, origin, greet.entry, output);
        }
        let standing = match () {
            () if self.roster.is_over(peer, greet.incarnation) => Standing::Retired,
            () if !covered && !greet.filling => Standing::Behind,
            () if self.roster.active(peer) == Some(origin) => Standing::Active,
            () => Standing::Unknown,
        };
        let mut answers = greet.asks;
        let said = greet.you.filter(|(you, _)| *you == self.config.origin).map(|(_, said)| said);
        match said {
            Some(Standing::Unknown) => {
                let own = self.roster.own.and_then(|dot| self.store.stamp(dot));
                // One of an earlier epoch loses to what others have written of this node since.
                let is_late = |stamp: Stamp| (stamp.epoch, stamp.lamport) < (self.epoch, theirs);
                // And so may one with the same counter as theirs: that is tried once.
                let is_even = own.is_some_and(|it| (it.epoch, it.lamport) == (self.epoch, theirs));
                let tries = is_even
                    && self
                        .peers
                        .live_mut(peer)
                        .is_some_and(|link| !std::mem::replace(&mut link.enrolled_even, true));
                if own.is_none_or(is_late) || tries {
                    self.enroll_self(now, output);
                    answers = true;
                }
            }
            Some(Standing::Retired) => {
                self.renew(now, 0, output);
                return;
            }
            Some(Standing::Behind)
                if self.fill.is_none()
                    && (held.covers(&self.horizon) || self.rank() < greet.rank) =>
            {
                self.rebuild(now, Distrust::Behind, output);
                if let Some(fill) = &mut self.fill {
                    fill.fenced(peer, greet.rank.collected);
                }
                return;
            }
            _ => {}
        }
        let filling = self.fill.is_some();
        let Some(link) = self.peers.live_mut(peer) else { return };
        (link.standing, link.filling) = (standing, greet.filling);
        link.collected = greet.rank.collected;
        let before = (link.takes, link.gives);
        let cleared = standing == Standing::Active;
        link.takes = cleared && !greet.filling;
        // What a node holds by its vector may be lost, if its records have a hole.
        link.gives = cleared && !filling && !self.doubted && said == Some(Standing::Active);
        let now_is = (link.takes, link.gives);
        if now_is == (true, true) || new_life {
            link.asked_in_vain = 0;
        }
        answers |= link.told != Some((origin, standing, filling));
        if before != now_is {
            self.pushes.reroute();
            let (takes, gives) = now_is;
            self.exchanges.drop_directions(peer, !takes, !gives);
        }
        if answers {
            self.greet(now, peer, false, output);
        }
        if self.doubted && cleared {
            return self.rebuild(now, Distrust::Asked, output);
        }
        if filling {
            self.seek_donor(now, output);
        } else if now_is == (true, true) && before != now_is {
            // If a round moves writes both ways, one of the two suffices.
            if self.config.strategy != Strategy::PushPull || self.config.node < peer {
                self.open_round(peer, output);
            }
        }
    }

    /// Takes a peer's own entry out of its greeting.
    fn take_entry(
        &mut self,
        peer: NodeId,
        origin: Origin,
        entry: Option<Write>,
        output: &mut Output,
    ) {
        let Some(entry) = entry else { return };
        let is_it = match &entry.cells[..] {
            [cell] => &*cell.key == ROSTER_KEY && cell.field.as_bytes() == peer.to_bytes(),
            _ => false,
        };
        if !is_it || entry.stamp.origin != origin || self.judge(&entry).is_err() {
            return;
        }
        self.lamport = self.lamport.max(entry.stamp.lamport);
        self.merge(entry, output);
    }

    /// Neither takes from a peer nor gives to it until it is cleared again.
    fn close(&mut self, peer: NodeId, output: &mut Output) {
        self.give_up(|other, _| other == peer, output);
        self.exchanges.forget(peer);
        self.pushes.reroute();
        if let Some(link) = self.peers.live_mut(peer) {
            (link.takes, link.gives) = (false, false);
            (link.standing, link.reported) = (Standing::Unknown, None);
        }
    }

    /// Closes all links until they are cleared again.
    pub(super) fn close_all(&mut self, output: &mut Output) {
        let peers: Vec<_> = self.peers.ids().collect();
        peers.into_iter().for_each(|peer| self.close(peer, output));
    }

    /// Draws the consequences of entries that have changed.
    pub(super) fn settle_roster(&mut self, now: Time, output: &mut Output) {
        // Nobody else looks at this node's own entry: what the pause forbids now is still to be done.
        let mut refused = false;
        while let Some(node) = self.roster.changed.pop_first() {
            let Some((_, member)) = self.roster.members.get(&node) else { continue };
            let (state, origin, incarnation) = (member.state, member.origin, member.incarnation);
            if node != self.config.node {
                let life = self.roster.lives.get(&node).and_then(|life| life.origin);
                let open = self.peers.live(node).is_some_and(|link| link.takes || link.gives);
                if open && (state != State::Active || life != Some(origin)) {
                    self.close(node, output);
                    self.greet(now, node, true, output);
                }
                continue;
            }
            let is_own = origin == self.config.origin;
            match state {
                State::Active if is_own => {}
                State::Left if is_own => {}
                State::Retired if is_own => refused |= !self.renew(now, 0, output),
                _ if incarnation >= self.config.incarnation => {
                    refused |= !self.renew(now, incarnation, output);
                }
                _ if !self.peers.is_empty() => {
                    self.enroll_self(now, output);
                }
                _ => self.roster.own = None,
            }
        }
        if refused {
            self.roster.changed.insert(self.config.node);
        }
    }

    /// Goes on as a new origin, with all that is here: the old one is over, and what it said and is
    /// still under way does not count any more. The new life has a greater number than `after`.
    /// Answers whether it may begin now; if not, nothing has changed. A life that has been left is not
    /// followed by another one.
    fn renew(&mut self, now: Time, after: u64, output: &mut Output) -> bool {
        if self.leaving || !self.may_begin_anew(now) {
            return false;
        }
        self.begin_life(after, output);
        output.events.push(Event::Renewed { origin: self.config.origin });
        self.close_all(output);
        self.enroll_self(now, output);
        self.greet_all(now, output);
        true
    }

    /// Takes the next origin, of a life with a greater number than `after`, and one that no other copy
    /// of this node's directory begins: the number of the present life is part of its dice.
    pub(super) fn begin_life(&mut self, after: u64, output: &mut Output) {
        let before = self.config.incarnation;
        let dice = self.rng.u32(..) ^ before as u32;
        self.config.incarnation = life_after(before.max(after), dice);
        self.config.origin = Origin::of(self.config.node, self.config.incarnation);
        if self.keeps_records() {
            self.export_life(&mut output.append);
        }
        self.seq = 0;
        self.gave = false;
        self.roster.own = None;
        for link in self.peers.all_mut() {
            link.reported = None;
        }
    }
}
