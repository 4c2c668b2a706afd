//! The story of a run, in sentences.
//!
//! One line per thing that happened, with the virtual time in front; what followed from it is
//! indented below. Nodes are called `n1`, `n2`, …; a node's second life writes as `n2/2`. Rounds
//! that find nothing are left out after their opening, because they are nearly everything that ever
//! happens.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::check::Fault;
use super::happening::Happening;
use super::network::Sending;
use super::plan::{Act, ClientRequest, Delivery, Wires};
use super::world::{Sent, World};
use crate::protocol::boundary::Reply;
use crate::protocol::cell::{self, Content};
use crate::protocol::event::{Conflict, Event};
use crate::protocol::id::Origin;
use crate::protocol::message::Message;
use crate::protocol::stamp::Stamp;
use crate::protocol::time::Time;

/// How many writes of a message, or keys of a request, are told one by one.
const TOLD_MAX: usize = 3;

/// How many bytes of a value are told.
const VALUE_BYTES_TOLD: usize = 16;

/// The story so far.
#[derive(Debug, Default)]
pub struct Story {
    text: String,
    names: BTreeMap<Origin, String>,
    /// How many lives each node has had.
    lives: BTreeMap<usize, usize>,
}

impl Story {
    /// The story as text, a line each.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, now: Time, sentence: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{:>15}  {sentence}", now.to_string());
    }

    fn more(&mut self, sentence: &str) {
        let _ = writeln!(self.text, "{:>15}    {sentence}", "");
    }

    /// Tells what kind of world this is.
    pub(super) fn begin(&mut self, world: &World) {
        let plan = world.plan();
        let settings = &plan.settings;
        let eager = if settings.eager { "with eager pushes" } else { "without eager pushes" };
        let sentence = format!(
            "{} nodes: {} rounds every {:?} {eager}, fan-out {}, chunks of {} bytes",
            plan.nodes,
            settings.strategy,
            settings.interval,
            settings.fanout,
            settings.delta_bytes_max,
        );
        self.line(world.now(), &sentence);
        let wires = match &plan.wires {
            Wires::Uniform(link) => link.to_string(),
            Wires::Profile(profile) => format!("as profile {} says", profile.name()),
        };
        let lost = match plan.delivery {
            Delivery::Lossy => "what is lost stays lost",
            Delivery::Reliable => "what is lost is sent again",
        };
        self.line(world.now(), &format!("links: {wires}; {lost}"));
        self.rename(world);
    }

    pub(super) fn converged(&mut self, world: &World) {
        self.line(world.now(), "everybody has the same");
    }

    pub(super) fn end(&mut self, world: &World, fault: Option<&Fault>) {
        let sentence = match fault {
            Some(fault) => format!("BROKEN {fault}"),
            None => "the end: everybody has the same, and nobody has anything to say".to_owned(),
        };
        self.line(world.now(), &sentence);
    }

    fn rename(&mut self, world: &World) {
        for (node, shard) in world.shards() {
            let origin = shard.config().origin;
            if self.names.contains_key(&origin) {
                continue;
            }
            let lives = self.lives.entry(node).or_default();
            *lives += 1;
            let name = match *lives {
                1 => format!("n{}", node + 1),
                life => format!("n{}/{life}", node + 1),
            };
            self.names.insert(origin, name);
        }
    }

    fn stamp(&self, stamp: Stamp) -> String {
        let unknown = stamp.origin.to_string();
        let name = self.names.get(&stamp.origin).unwrap_or(&unknown);
        format!("{}@{name}", stamp.lamport.0)
    }

    /// What happens, before it does.
    pub(super) fn head(&self, world: &World, happening: &Happening) -> String {
        let name = |node: usize| format!("n{}", node + 1);
        match happening {
            Happening::Requests { node, requests } => {
                let told: Vec<_> = requests
                    .iter()
                    .take(TOLD_MAX)
                    .map(|(_, request)| describe_request(request))
                    .collect();
                let more = if requests.len() > TOLD_MAX { ", and more" } else { "" };
                format!("a client asks {} to {}{more}", name(*node), told.join(", to "))
            }
            Happening::Message { from, to, envelope } => {
                let what = self.describe(&envelope.message);
                format!("{} gets from {}: {what}", name(*to), name(*from))
            }
            Happening::PeerUp { node, peer } => {
                format!("{} is connected to {}", name(*node), name(*peer))
            }
            Happening::PeerDown { node, peer } => {
                format!("{} has lost its connection to {}", name(*node), name(*peer))
            }
            Happening::Wake { node } => format!("{} wakes", name(*node)),
            Happening::Synced { node, .. } => format!("{} has synced", name(*node)),
            Happening::Act(act) => describe_act(world, act),
        }
    }

    /// What has happened, under the head told before.
    pub(super) fn step(&mut self, world: &World, head: String) {
        self.rename(world);
        let output = world.output();
        let silent = world.sent().is_empty() && output.events.is_empty() && head.ends_with("wakes");
        if silent {
            return;
        }
        self.line(world.now(), &head);
        self.tell_sent(world.sent());
        for (_, reply) in &output.reply {
            let sentence = match reply {
                Reply::Written { stamp, .. } => format!("done as {}", self.stamp(*stamp)),
                Reply::Operated { answer, written: None } => format!("answered {answer:?}"),
                Reply::Operated { answer, written: Some((stamp, _)) } => {
                    format!("done as {}, answered {answer:?}", self.stamp(*stamp))
                }
                Reply::Nothing => "nothing to be done".to_owned(),
                Reply::Exhausted => "refused: the counters are exhausted".to_owned(),
                Reply::TooLarge => "refused: too large".to_owned(),
                Reply::Reserved => "refused: reserved".to_owned(),
                Reply::Unknown => "refused: no such member".to_owned(),
                Reply::Begun => "has begun".to_owned(),
                Reply::OutOfMemory => "refused: out of memory".to_owned(),
                Reply::Refused(refusal) => format!("refused: {refusal}"),
                Reply::Switched(outcome) => format!("tells the client: {outcome:?}"),
                Reply::Unwritable => "refused: nothing becomes durable".to_owned(),
                Reply::Answer { covers: true, .. } => "tells the client: yes, it has".to_owned(),
                Reply::Answer { covers: false, .. } => "tells the client: not yet".to_owned(),
            };
            self.more(&sentence);
        }
        for event in &output.events {
            if let Some(sentence) = self.describe_event(world, event) {
                self.more(&sentence);
            }
        }
    }

    fn tell_sent(&mut self, sent: &[Sent]) {
        let mut rest = sent;
        while let Some((first, _)) = rest.split_first() {
            // Receivers of the same message, together.
            let same = rest.iter().take_while(|other| other.is_same_message(first)).count();
            let (group, others) = rest.split_at(same);
            rest = others;
            let what = self.describe(first.message());
            let to: Vec<_> = group.iter().map(describe_sending).collect();
            self.more(&format!("sends {what} ({} bytes) to {}", first.bytes(), to.join(", ")));
        }
    }

    fn describe(&self, message: &Message) -> String {
        match message {
            Message::Push { writes, relay } => {
                let relay = if relay.is_some() { ", to be passed on" } else { "" };
                format!("a push of {}{relay}", self.describe_writes(writes))
            }
            Message::Open { digest, wish, .. } => {
                let digest = if digest.is_some() { " and the digest" } else { "" };
                let wish = describe_wish(wish.take, wish.give);
                format!("the opening of a round to {wish}, with the hash{digest}")
            }
            Message::Digest { wish, .. } => {
                format!("a digest, to {}", describe_wish(wish.take, wish.give))
            }
            Message::Delta { chunk, digest, .. } => {
                let digest = if digest.is_some() { ", with a digest" } else { "" };
                let last = if chunk.captured.is_some() { ", the last" } else { "" };
                let writes = self.describe_writes(&chunk.writes);
                format!("part {} of a delta{last}: {writes}{digest}", chunk.number + 1)
            }
            Message::Credit { .. } => "credit for one more part".to_owned(),
            Message::Ask { .. } => "the question whether it has a write".to_owned(),
            Message::Answer { covers: true, .. } => "the answer that it has it".to_owned(),
            Message::Answer { covers: false, .. } => "the answer that it lacks it".to_owned(),
            Message::Greet(greet) => {
                let filling = if greet.filling { ", filling itself" } else { "" };
                let you = greet.you.map(|(_, standing)| standing);
                let asks = if greet.asks { ", asking for one" } else { "" };
                let entry = greet.entry.as_ref().map(|entry| self.stamp(entry.stamp));
                format!(
                    "greeting {} of life {} at {}{filling}, entry {entry:?}: you are {you:?}{asks}",
                    greet.number, greet.incarnation, greet.lamport.0
                )
            }
            Message::Report { vector, wants } => {
                let vector = if vector.is_some() { " what it holds" } else { "" };
                let wants = if wants.is_some() { " and wants to know more" } else { "" };
                format!("a report:{vector}{wants}")
            }
            Message::Strong(word) => word.to_string(),
            Message::Members { members } => format!("the addresses of {} members", members.len()),
            Message::Publish { messages } => format!("{} published messages", messages.len()),
        }
    }

    fn describe_writes(&self, writes: &[cell::Write]) -> String {
        let mut words: Vec<String> = Vec::new();
        for write in writes.iter().take(TOLD_MAX) {
            let cells: Vec<_> = write
                .cells
                .iter()
                .take(TOLD_MAX)
                .map(|cell| format!("{} {}", cell.key, describe_content(&cell.content)))
                .collect();
            let more = if write.cells.len() > TOLD_MAX { ", …" } else { "" };
            words.push(format!("{} ({}{more})", self.stamp(write.stamp), cells.join(", ")));
        }
        match writes.len() {
            0 => "no writes".to_owned(),
            count if count > TOLD_MAX => format!("{count} writes: {}, …", words.join(", ")),
            _ => words.join(", "),
        }
    }

    fn describe_event(&self, world: &World, event: &Event) -> Option<String> {
        let name = |id| format!("n{}", world.node(id) + 1);
        Some(match event {
            Event::Visible { key, stamp, .. } => {
                format!("{key} shows {} from now on", self.stamp(*stamp))
            }
            Event::Conflict(Conflict { key, winner, loser }) => format!(
                "LOST UPDATE: {} of {key} yields to {}; neither writer knew of the other",
                self.stamp(*loser),
                self.stamp(*winner)
            ),
            Event::RoundOpened { .. } => return None,
            Event::Changed { key, change } => format!("{key}: {}", change.name),
            Event::Filled { peer, writes, .. } => {
                format!("has all of the delta from {}: {writes} writes were missing", name(*peer))
            }
            Event::Filling(progress) => format!(
                "has {} cells of the delta from {}, of about {}",
                progress.brought.cells,
                name(progress.from),
                progress.expected.cells
            ),
            Event::Repaired { peer, cells } => {
                format!("has compared everything with {}: {cells} cells mended", name(*peer))
            }
            Event::GivenUp { peer, .. } => format!("gives up a delta with {}", name(*peer)),
            Event::Damage { peer, .. } => {
                format!("DAMAGE: {} holds the same writes but other cells", name(*peer))
            }
            Event::Strong(event) => format!("{event:?}"),
            Event::Enrolled { node, state, dot } => {
                format!("writes {dot}: {} is {state:?} in the roster", name(*node))
            }
            Event::Collected { count } => format!("collects {count} tombstones"),
            Event::Claimed { dot } => format!("writes {dot}: by when deadlines have passed"),
            Event::Expired { count } => format!("forgets {count} keys that have expired"),
            Event::Renewed { .. } => "goes on as a new origin".to_owned(),
            Event::Rebuilding { why } => format!("REBUILDS itself: {why}"),
            Event::Refilling => "drops what it was filled with".to_owned(),
            Event::Redeleted { key, of, stamp, .. } => {
                let (of, stamp) = (self.stamp(*of), self.stamp(*stamp));
                format!("deletes {of} of {key} anew by {stamp}")
            }
            Event::Rewritten { of, stamp, .. } => {
                format!("makes {} anew as {}", self.stamp(*of), self.stamp(*stamp))
            }
            Event::Rebuilt { kept } => format!("is rebuilt, with {kept} writes made anew"),
            Event::Quarantined { peer, why } => format!("QUARANTINE of {}: {why}", name(*peer)),
        })
    }
}

fn describe_sending(sent: &Sent) -> String {
    let to = format!("n{}", sent.to + 1);
    match sent.sending {
        Sending::Arrives(_, None) => to,
        Sending::Arrives(_, Some(_)) => format!("{to} (twice)"),
        Sending::Delayed => format!("{to} (packets lost, to be sent again)"),
        Sending::Lost(reason) => format!("{to} (never arrives: {reason})"),
        Sending::Unconnected => format!("{to} (never arrives: no connection)"),
    }
}

fn describe_wish(take: bool, give: bool) -> &'static str {
    match (take, give) {
        (true, true) => "take and give",
        (true, false) => "take",
        (false, true) => "give",
        (false, false) => "compare",
    }
}

fn describe_content(content: &Content) -> String {
    match content {
        Content::Tombstone => "deleted".to_owned(),
        Content::Value(value) if value.len() <= VALUE_BYTES_TOLD => {
            format!("= {}", value.escape_ascii())
        }
        Content::Value(value) => {
            let start = value.get(..VALUE_BYTES_TOLD).unwrap_or_default();
            format!("= {}…", start.escape_ascii())
        }
    }
}

fn describe_request(request: &ClientRequest) -> String {
    let keys: Vec<_> =
        request.keys().take(TOLD_MAX).map(|key| key.escape_ascii().to_string()).collect();
    let more = if request.keys().count() > TOLD_MAX { ", …" } else { "" };
    match request {
        ClientRequest::Set(_, value) => {
            let value = describe_content(&Content::from(&value[..]));
            format!("set {} {value}", keys.join(", "))
        }
        ClientRequest::SetAll(_) => format!("set {}{more} at once", keys.join(", ")),
        ClientRequest::Delete(_) => format!("delete {}{more}", keys.join(", ")),
        ClientRequest::Ask(peer) => format!("ask n{} whether it has all of that", peer + 1),
        ClientRequest::Get(_) => format!("get {}", keys.join(", ")),
        ClientRequest::SetAbsent(_, value) => {
            let value = describe_content(&Content::from(&value[..]));
            format!("set {} {value} if absent", keys.join(", "))
        }
        ClientRequest::Increment(_) => format!("increment {}", keys.join(", ")),
        ClientRequest::Note(_, field) => {
            format!("set the field {} of {}", field.escape_ascii(), keys.join(", "))
        }
        ClientRequest::Expire(_, Some(after)) => format!("end {} in {after:?}", keys.join(", ")),
        ClientRequest::Expire(_, None) => format!("take the deadline of {} away", keys.join(", ")),
        ClientRequest::Switch { to, without } => format!("switch to {to} without {without:?}"),
    }
}

fn describe_act(world: &World, act: &Act) -> String {
    let names = |nodes: &[usize]| -> String {
        let names: Vec<_> = nodes.iter().map(|node| format!("n{}", node + 1)).collect();
        names.join(", ")
    };
    match act {
        Act::Ask { .. } => "a client asks".to_owned(),
        Act::Cut { from, to, one_way: true } => {
            format!("what {} says no longer reaches {}", names(from), names(to))
        }
        Act::Cut { from, to, one_way: false } => {
            format!("the links between {} and {} are cut", names(from), names(to))
        }
        Act::Heal => "all cut links are mended".to_owned(),
        Act::Pause(node) => format!("n{} freezes", node + 1),
        Act::Resume(node) => format!("n{} goes on", node + 1),
        Act::Crash(node) => match world.shard(*node) {
            Some(shard) => {
                format!("n{} dies with {} cells", node + 1, shard.store().cells())
            }
            None => format!("n{} is dead already", node + 1),
        },
        Act::End(node) => format!("n{} ends in order", node + 1),
        Act::Restart(node) => match world.shard(*node) {
            Some(_) => format!("n{} is up already", node + 1),
            None if world.has_disks() => {
                format!("n{} starts with {} frames of records", node + 1, world.frames(*node))
            }
            None => format!("n{} starts, empty, as a new origin", node + 1),
        },
        Act::Copy(node) => format!("somebody copies the disk of n{}", node + 1),
        Act::Wipe(node) => format!("the disk of n{} is replaced by an empty one", node + 1),
        Act::BringBack(node) => format!("the disk of n{} is replaced by the copy", node + 1),
        Act::Retire { node, member } => format!("n{} is to retire n{}", node + 1, member + 1),
        Act::Rebuild(node) => format!("n{} is to fill itself anew", node + 1),
        Act::FaultsEnd => "the faults end: links are whole, everybody is up".to_owned(),
    }
}
