//! Questions to peers: who covers this write, and does everybody agree?
//!
//! Nothing is acknowledged per write between peers; whoever wants to know asks. A question travels
//! on the stream of pushes, behind the writes it is about, so its answer tells of them; if a push
//! was dropped on the way, the question is repeated until a round has made good for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_std::channel::{self, Receiver, Sender};
use async_std::future::timeout;
use parking_lot::Mutex;
use serde::Serialize;

use super::node::Node;
use crate::protocol::boundary::{Reply, Request, Token};
use crate::protocol::digest::DigestHash;
use crate::protocol::id::NodeId;
use crate::protocol::stamp::Dot;
use crate::protocol::store::Fingerprint;

/// How long the first question waits for answers before it is asked again; doubled each time.
const PATIENCE_FIRST: Duration = Duration::from_millis(20);

/// The longest that a question waits before it is asked again.
const PATIENCE_MAX: Duration = Duration::from_millis(500);

/// Who waits for which answer.
#[derive(Debug, Default)]
pub(super) struct Asked {
    next: AtomicU64,
    waiting: Mutex<BTreeMap<Token, Sender<Reply>>>,
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
    /// Whether every live peer answered, and holds what this node holds.
    pub fn is_unanimous(&self) -> bool {
        self.theirs.iter().all(|opinion| opinion.holds == Some(self.ours))
    }
}

impl Asked {
    /// Hands an answer to whoever waits for it; nobody waits for a late one.
    pub(super) fn answer(&self, token: Token, reply: Reply) {
        if let Some(waiting) = self.waiting.lock().get(&token) {
            // Full: an answer for each peer is there already.
            let _ = waiting.try_send(reply);
        }
    }

    fn question(&self, peers: usize) -> Question<'_> {
        let token = Token(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, answers) = channel::bounded(peers.max(1));
        self.waiting.lock().insert(token, sender);
        Question { asked: self, token, answers }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.asked.waiting.lock().remove(&self.token);
    }
}

impl Node {
    /// Waits until `count` peers hold `dot` and all before it of its origin, or until `deadline`
    /// (`None`: for ever); answers how many do.
    pub async fn wait(&self, dot: Dot, count: usize, deadline: Option<Instant>) -> usize {
        let mut covered = BTreeSet::new();
        let mut patience = PATIENCE_FIRST;
        loop {
            let until = Instant::now() + patience;
            let until = deadline.map_or(until, |deadline| deadline.min(until));
            let enough = |covered: &BTreeSet<NodeId>| covered.len() >= count;
            if enough(&covered) {
                return covered.len();
            }
            let asked = self.peers().filter(|peer| !covered.contains(peer)).collect();
            self.ask(asked, Some(dot), until, |reply| {
                if let Reply::Answer { peer, covers: true, .. } = reply {
                    covered.insert(peer);
                }
                enough(&covered)
            })
            .await;
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return covered.len();
            }
            patience = (patience * 2).min(PATIENCE_MAX);
        }
    }

    /// Asks all live peers what they hold, again and again until everybody agrees or `deadline`
    /// has come; answers the last state of affairs.
    pub async fn agreement(&self, deadline: Instant) -> Agreement {
        let mut patience = PATIENCE_FIRST;
        loop {
            let mut holds: BTreeMap<NodeId, _> = self.peers().map(|peer| (peer, None)).collect();
            let until = (Instant::now() + patience).min(deadline);
            let mut open = holds.len();
            self.ask(holds.keys().copied().collect(), None, until, |reply| {
                if let Reply::Answer { peer, hash, fingerprint, .. } = reply
                    && let Some(opinion) = holds.get_mut(&peer)
                    && opinion.replace((hash, fingerprint)).is_none()
                {
                    open -= 1;
                }
                open == 0
            })
            .await;
            let ours = self.enter().shard().summary();
            let theirs = holds.into_iter().map(|(node, holds)| Opinion { node, holds }).collect();
            let agreement = Agreement { ours, theirs };
            if agreement.is_unanimous() || deadline <= Instant::now() {
                return agreement;
            }
            // Everybody may have answered at once; the others need a moment to converge.
            async_io::Timer::at(until).await;
            patience = (patience * 2).min(PATIENCE_MAX);
        }
    }

    fn peers(&self) -> impl Iterator<Item = NodeId> + use<> {
        let peers: Vec<_> = self.enter().shard().peers().collect();
        peers.into_iter()
    }

    /// Asks `peers` and hands their answers to `enough` until it says so, or until the time is up.
    async fn ask(
        &self,
        peers: Vec<NodeId>,
        dot: Option<Dot>,
        until: Instant,
        mut enough: impl FnMut(Reply) -> bool,
    ) {
        let question = self.inner().asked.question(peers.len());
        for peer in &peers {
            self.enter().ask(question.token, Request::Ask { peer: *peer, dot });
        }
        if peers.is_empty() {
            async_io::Timer::at(until).await;
            return;
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, question.answers.recv()).await {
                Ok(Ok(reply)) if enough(reply) => return,
                Ok(Ok(_)) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}
