//! Questions to peers: who covers this write, and does everybody agree?
//!
//! Nothing is acknowledged per write between peers; whoever wants to know asks. A question travels
//! on the stream of pushes, behind the writes it is about, so its answer tells of them; if a push
//! was dropped on the way, the question is repeated until a round has made good for it.
//!
//! A door that serves many clients takes [`Answers`] instead: one call per answer, whoever asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_std::channel::{self, Receiver, Sender};
use async_std::future::timeout;
use parking_lot::{Mutex, RwLock};
use serde::Serialize;

use super::entered::Entered;
use super::node::Node;
use crate::protocol::boundary::{Reply, Request, Token};
use crate::protocol::digest::DigestHash;
use crate::protocol::id::NodeId;
use crate::protocol::roster::State;
use crate::protocol::stamp::Dot;
use crate::protocol::store::Fingerprint;
use crate::protocol::strong::Refusal;

/// How long the first question waits for answers before it is asked again; doubled each time.
const PATIENCE_FIRST: Duration = Duration::from_millis(20);

/// The longest that a question waits before it is asked again.
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// How long the shard may take for an answer: longer than it lets anybody wait.
const INQUIRY_PATIENCE: Duration = Duration::from_secs(60);

/// How many answers may wait to be read: a few of each peer.
const ANSWERS_MAX: usize = 1_024;

/// The bits of a token that tell the questions of one taker of answers apart; those above name it.
const TAKER_SHIFT: u32 = 48;

/// Who waits for which answer.
#[derive(Debug, Default)]
pub(super) struct Asked {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<Token, Sender<Reply>>>,
    takers: RwLock<Vec<Taker>>,
}

/// Who takes answers at one place, and how many tokens were handed out there so far.
#[derive(Debug)]
struct Taker {
    answers: Weak<Answers>,
    handed_out: Arc<AtomicU64>,
}

/// Hands out tokens for requests that the shard answers later, and takes those answers.
pub struct Answers {
    first: u64,
    next: Arc<AtomicU64>,
    take: Box<dyn Fn(Token, Reply) + Send + Sync>,
}

impl Answers {
    /// A token that was never used before.
    pub fn token(&self) -> Token {
        Token(self.first + self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("first", &self.first).finish_non_exhaustive()
    }
}

/// One question, until it is dropped.
struct Question<'a> {
    asked: &'a Asked,
    token: Token,
    answers: Receiver<Reply>,
}

/// What a peer said that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opinion {
    /// The peer.
    pub node: NodeId,
    /// The hash of what it holds, and the fingerprint of its cells; `None` if it did not answer.
    pub holds: Option<(DigestHash, Fingerprint)>,
}

/// What became of a write at one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The member.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether it holds the write and all before it of its origin; nothing if it did not answer.
    pub holds: Option<bool>,
    /// How long its answer took; nothing for the node that asks.
    pub after: Option<Duration>,
}

/// Whether this node and its live peers hold the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// What this node holds.
    pub ours: (DigestHash, Fingerprint),
    /// What each live peer said.
    pub theirs: Vec<Opinion>,
}

impl Serialize for Agreement {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Peer {
            node: String,
            answered: bool,
            agrees: bool,
        }
        #[derive(Serialize)]
        struct Text {
            converged: bool,
            digest: String,
            fingerprint: String,
            peers: Vec<Peer>,
        }
        let peers = self.theirs.iter().map(|opinion| Peer {
            node: opinion.node.to_string(),
            answered: opinion.holds.is_some(),
            agrees: opinion.holds == Some(self.ours),
        });
        Text {
            converged: self.is_unanimous(),
            digest: self.ours.0.to_string(),
            fingerprint: self.ours.1.to_string(),
            peers: peers.collect(),
        }
        .serialize(serializer)
    }
}

impl Agreement {
    /// Whether there is a live peer, and every one answered that it holds what this node holds.
    pub fn is_unanimous(&self) -> bool {
        let agrees = |opinion: &Opinion| opinion.holds == Some(self.ours);
        !self.theirs.is_empty() && self.theirs.iter().all(agrees)
    }
}

impl Asked {
    /// Hands an answer to whoever waits for it; nobody waits for a late one.
    pub(super) fn answer(&self, token: Token, reply: Reply) {
        if let Some(taker) = (token.0 >> TAKER_SHIFT).checked_sub(1) {
            let taker = usize::try_from(taker).ok();
            let takers = self.takers.read();
            let taker =
                taker.and_then(|taker| takers.get(taker)).and_then(|it| it.answers.upgrade());
            drop(takers);
            if let Some(taker) = taker {
                (taker.take)(token, reply);
            }
            return;
        }
        if let Some(waiting) = self.waiting.lock().get(&token) {
            // If it is full, whoever asked has plenty to read, and asks again.
            let _ = waiting.try_send(reply);
        }
    }

    fn taker(&self, take: Box<dyn Fn(Token, Reply) + Send + Sync>) -> Arc<Answers> {
        let mut takers = self.takers.write();
        // The place of one that has gone is free, but its tokens are not used again.
        let free = takers.iter().position(|taker| taker.answers.strong_count() == 0);
        let place = free.unwrap_or_else(|| {
            takers.push(Taker { answers: Weak::new(), handed_out: Arc::default() });
            takers.len() - 1
        });
        let taker = takers.get_mut(place).expect("found or made above");
        let first = (place as u64 + 1) << TAKER_SHIFT;
        let next = Arc::clone(&taker.handed_out);
        let answers = Arc::new(Answers { first, next, take });
        taker.answers = Arc::downgrade(&answers);
        answers
    }

    fn question(&self) -> Question<'_> {
        let token = Token(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, answers) = channel::bounded(ANSWERS_MAX);
        self.waiting.lock().insert(token, sender);
        Question { asked: self, token, answers }
    }
}

impl Question<'_> {
    /// The next answer, if one comes in time. Late answers to an earlier asking count as well.
    async fn answer(&self, until: Instant) -> Option<Reply> {
        let left = until.saturating_duration_since(Instant::now());
        timeout(left, self.answers.recv()).await.ok()?.ok()
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.asked.waiting.lock().remove(&self.token);
    }
}

impl Node {
    /// Takes answers that the shard gives later, for as long as the value is kept.
    ///
    /// `take` is called by whatever thread is in the shard then: it takes a note and returns.
    pub fn answers(&self, take: impl Fn(Token, Reply) + Send + Sync + 'static) -> Arc<Answers> {
        self.inner().asked.taker(Box::new(take))
    }

    /// Asks the shard, and waits for its answer if that comes later.
    pub(super) async fn inquire(
        &self,
        ask: impl FnOnce(&mut Entered<'_>, Token) -> Option<Reply>,
    ) -> Reply {
        let question = self.inner().asked.question();
        let reply = {
            let mut entered = self.enter();
            let reply = ask(&mut entered, question.token);
            let position = entered.finish();
            reply.map(|reply| (reply, position))
        };
        match reply {
            Some((reply, None)) => reply,
            Some((reply, Some(position))) => match self.durable(position).await {
                Ok(()) => reply,
                Err(_) => Reply::Unwritable,
            },
            // The shard answers everything in the end, unless the node is closed.
            None => question
                .answer(Instant::now() + INQUIRY_PATIENCE)
                .await
                .unwrap_or(Reply::Refused(Refusal::Unknown)),
        }
    }

    /// Waits until `count` peers hold `dot` and all before it of its origin, or until `deadline`
    /// (`None`: for ever); answers how many do.
    pub async fn wait(&self, dot: Dot, count: usize, deadline: Option<Instant>) -> usize {
        let question = self.inner().asked.question();
        let mut covered = BTreeSet::new();
        let mut patience = PATIENCE_FIRST;
        while covered.len() < count {
            let until = Instant::now() + patience;
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            let open = self.peers().filter(|peer| !covered.contains(peer));
            self.ask(&question, open.collect(), Some(dot));
            while covered.len() < count {
                let Some(reply) = question.answer(until).await else { break };
                if let Reply::Answer { peer, covers: true, .. } = reply {
                    covered.insert(peer);
                }
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                break;
            }
            patience = (patience * 2).min(PATIENCE_MAX);
        }
        covered.len()
    }

    /// Waits until this node holds `dot` and all before it of its origin, or until `deadline` (`None`:
    /// for ever); answers whether it does.
    pub async fn hold(&self, dot: Dot, deadline: Option<Instant>) -> bool {
        loop {
            // Before looking: nothing that comes in between is missed.
            let heard = self.inner().heard.listen();
            if self.enter().shard().holds(dot) {
                return true;
            }
            let Some(deadline) = deadline else {
                heard.await;
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Whether it was heard or is over is seen above.
            let _ = timeout(left, heard).await;
        }
    }

    /// Asks every live peer once whether it holds `dot` and all before it of its origin; answers for
    /// all active members, as far as they have answered by `deadline`.
    pub async fn holders(&self, dot: Dot, deadline: Option<Instant>) -> Vec<Holder> {
        let question = self.inner().asked.question();
        let asked = Instant::now();
        let until = deadline.unwrap_or(asked);
        let peers: BTreeSet<NodeId> = self.peers().collect();
        self.ask(&question, peers.iter().copied().collect(), Some(dot));
        let mut answered = BTreeMap::new();
        while answered.len() < peers.len() {
            let Some(reply) = question.answer(until).await else { break };
            if let Reply::Answer { peer, covers, .. } = reply {
                answered.entry(peer).or_insert((covers, asked.elapsed()));
            }
        }
        let entered = self.enter();
        let shard = entered.shard();
        let own = Holder {
            node: self.id(),
            name: self.name().to_owned(),
            holds: Some(shard.holds(dot)),
            after: None,
        };
        let others = shard.members().filter(|(node, member)| {
            *node != self.id() && (member.state == State::Active || peers.contains(node))
        });
        let others = others.map(|(node, member)| {
            let answer = answered.get(&node);
            Holder {
                node,
                name: member.name.clone(),
                holds: answer.map(|(covers, _)| *covers),
                after: answer.map(|(_, after)| *after),
            }
        });
        [own].into_iter().chain(others).collect()
    }

    /// Asks all live peers what they hold, again and again until everybody agrees or `deadline`
    /// has come; answers the last state of affairs.
    pub async fn agreement(&self, deadline: Instant) -> Agreement {
        let question = self.inner().asked.question();
        let mut holds: BTreeMap<NodeId, _> = BTreeMap::new();
        let mut patience = PATIENCE_FIRST;
        loop {
            let until = (Instant::now() + patience).min(deadline);
            self.ask(&question, self.peers().collect(), None);
            loop {
                let agreement = self.judge(&holds);
                if agreement.is_unanimous() || deadline <= Instant::now() {
                    return agreement;
                }
                let Some(reply) = question.answer(until).await else { break };
                if let Reply::Answer { peer, hash, fingerprint, .. } = reply {
                    holds.insert(peer, (hash, fingerprint));
                }
            }
            patience = (patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Whether everybody who is up now holds what this node holds, by their last answers.
    fn judge(&self, holds: &BTreeMap<NodeId, (DigestHash, Fingerprint)>) -> Agreement {
        let ours = self.enter().shard().summary();
        let opinion = |node| Opinion { node, holds: holds.get(&node).copied() };
        Agreement { ours, theirs: self.peers().map(opinion).collect() }
    }

    fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        let peers: Vec<_> = self.enter().shard().peers().collect();
        peers.into_iter()
    }

    fn ask(&self, question: &Question<'_>, peers: Vec<NodeId>, dot: Option<Dot>) {
        let mut entered = self.enter();
        for peer in peers {
            entered.ask(question.token, Request::Ask { peer, dot });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{NodeIdentity, Secret};
    use crate::server::NodeConfig;

    fn pair() -> (Node, Node) {
        async_std::task::block_on(async {
            let secret = Secret::ephemeral().unwrap();
            let start = async |peers| {
                let mut config = NodeConfig::new("test", NodeIdentity::fresh().unwrap());
                config.secret = Some(secret.clone());
                config.peers = peers;
                config.eager = false;
                config.interval = Duration::from_millis(20);
                Node::start(config).await.unwrap()
            };
            let first = start(Vec::new()).await;
            let second = start(vec![first.address()]).await;
            (first, second)
        })
    }

    /// Looking at a node again and again keeps it from nothing: rounds go on and bring the write.
    #[test]
    fn who_looks_does_not_stop_the_clock() {
        let (first, second) = pair();
        let deadline = Instant::now() + Duration::from_secs(30);
        while second.enter().shard().peers().count() == 0 {
            assert!(Instant::now() < deadline, "not linked");
        }
        let rounds = |node: &Node| node.status().counters.rounds_opened;
        let before = rounds(&first);
        first.set("k", "v");
        while rounds(&first) < before + 5 || second.get("k").is_none() {
            assert!(Instant::now() < deadline, "no rounds");
        }
    }

    /// Answers go to whoever handed out the token, and to nobody once that one has gone.
    #[test]
    fn answers_find_their_taker() {
        let asked = Asked::default();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let taker = |name: &'static str| {
            let taken = Arc::clone(&taken);
            asked.taker(Box::new(move |token, _| taken.lock().push((name, token))))
        };
        let (first, second) = (taker("first"), taker("second"));
        let tokens = [first.token(), second.token(), first.token()];
        for token in tokens {
            asked.answer(token, Reply::Nothing);
        }
        let [one, two, three] = tokens;
        assert_eq!(*taken.lock(), [("first", one), ("second", two), ("first", three)]);
        drop(first);
        asked.answer(asked.question().token, Reply::Nothing);
        asked.answer(one, Reply::Nothing);
        assert_eq!(taken.lock().len(), 3);
        // Its place is taken over, its tokens are not.
        let third = taker("third");
        let four = third.token();
        assert!(!tokens.contains(&four));
        asked.answer(four, Reply::Nothing);
        assert_eq!(taken.lock().last(), Some(&("third", four)));
    }

    /// A node without live peers is not said to agree with anybody.
    #[test]
    fn agreement_takes_somebody_to_agree_with() {
        let (first, second) = pair();
        let soon = || Instant::now() + Duration::from_secs(30);
        assert!(async_std::task::block_on(first.agreement(soon())).is_unanimous());
        async_std::task::block_on(second.close());
        let deadline = soon();
        while first.enter().shard().peers().count() > 0 {
            assert!(Instant::now() < deadline, "the peer did not say farewell");
        }
        assert!(!async_std::task::block_on(first.agreement(Instant::now())).is_unanimous());
    }
}
