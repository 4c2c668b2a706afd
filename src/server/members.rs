//! Who belongs to the cluster, as this node sees it, and leaving it.
//!
//! [`Node::members`] is the one place that says who there is; commands and pages show it: the roster,
//! which every node has, and the links, which are this node's own.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use serde::Serialize;

use super::node::Node;
use crate::protocol::boundary::Reply;
use crate::protocol::id::NodeId;
use crate::protocol::roster::State;
use crate::protocol::stamp::Dot;

/// The most candidates that an ambiguous name is answered with.
const CANDIDATES_MAX: usize = 10;

/// What a member is, as this node sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It can be reached.
    Up,
    /// It cannot be reached.
    Down,
    /// It was away too long, or somebody said so.
    Retired,
    /// It has left for good.
    Left,
}

impl MemberState {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Retired => "retired",
            Self::Left => "left",
        }
    }
}

/// A member of the cluster.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MemberStatus {
    /// Its id.
    pub node: String,
    /// Its name.
    pub name: String,
    /// Where it is reached, if that is known.
    pub address: Option<String>,
    /// What it is.
    pub state: MemberState,
    /// Whether it is the node that says so.
    pub this: bool,
    /// For how long it has been so, in seconds, if that is known.
    pub since_seconds: Option<f64>,
    /// The measured round trip, in milliseconds.
    pub round_trip_ms: Option<f64>,
}

/// Why a member cannot be retired. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MemberError {
    /// Nobody has such an id.
    #[error("no member's id begins with {wanted:?}: `quorumor members` lists them")]
    Unknown {
        /// What was asked for.
        wanted: String,
    },
    /// Several have.
    #[error("{wanted:?} can be any of {}: give more digits", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        wanted: String,
        /// Members whose ids begin so, with their names.
        candidates: Vec<String>,
    },
    /// It is the node that was asked.
    #[error("{node} is the node that you are asking: use `quorumor leave` to take it out")]
    Itself {
        /// Its id.
        node: NodeId,
    },
    /// The node takes no writes now.
    #[error("nothing can be written now: {why}")]
    Unwritable {
        /// Why not.
        why: String,
    },
    /// It is up.
    #[error(
        "{name} ({node}) is up: only who is away for good is retired; run `quorumor leave` on its \
         machine, or end it first"
    )]
    IsUp {
        /// Its id.
        node: NodeId,
        /// Its name.
        name: String,
    },
}

/// Why a node does not leave. It goes on as before.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaveError {
    /// There is nobody to leave anything to.
    #[error(
        "no peer is up, so nobody would have what this node holds: to stop it, end its process \
         (Ctrl-C); its data directory keeps everything"
    )]
    Alone,
    /// Nobody says that it holds what this node has written.
    #[error(
        "no peer has confirmed within {within:?} that it holds all that this node has written: try \
         again when `quorumor status --wait-converged 30s` succeeds"
    )]
    NotCovered {
        /// How long was waited.
        within: Duration,
    },
    /// It was asked to already.
    #[error("the node is leaving already")]
    Leaving,
}

/// What became of the wish to leave.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    stage: AtomicU8,
    left: Signal,
}

/// Has the node go on as before, unless it is told otherwise.
struct Stays<'a>(Option<(&'a Node, &'a Leaving)>);

impl Drop for Stays<'_> {
    fn drop(&mut self) {
        if let Some((node, leaving)) = self.0 {
            node.enter().stay();
            leaving.go(Leaving::STAYS);
        }
    }
}

impl Leaving {
    const STAYS: u8 = 0;
    const BEGUN: u8 = 1;
    const LEFT: u8 = 2;

    /// Whether clients' writes are refused since the node is about to go.
    pub(super) fn has_begun(&self) -> bool {
        self.stage.load(Ordering::Acquire) != Self::STAYS
    }

    fn go(&self, stage: u8) {
        self.stage.store(stage, Ordering::Release);
        if stage == Self::LEFT {
            self.left.notify(usize::MAX);
        }
    }
}

impl Node {
    /// Who belongs to the cluster, this node first, the others by id.
    pub fn members(&self) -> Vec<MemberStatus> {
        let this = MemberStatus {
            node: self.id().to_string(),
            name: self.name().to_owned(),
            address: Some(self.address().to_string()),
            state: MemberState::Up,
            this: true,
            since_seconds: Some(self.inner().epoch.elapsed().as_secs_f64()),
            round_trip_ms: None,
        };
        let peers = self.net().peers().into_iter().map(|peer| MemberStatus {
            node: peer.id.to_string(),
            name: peer.name,
            address: Some(peer.address.to_string()),
            state: MemberState::Up,
            this: false,
            since_seconds: Some(peer.since.elapsed().as_secs_f64()),
            round_trip_ms: Some(peer.round_trip.as_secs_f64() * 1e3),
        });
        let mut members: Vec<MemberStatus> = peers.collect();
        let now = self.now();
        let entered = self.enter();
        for (node, member) in entered.shard().members().filter(|(node, _)| *node != self.id()) {
            let state = match member.state {
                State::Active => MemberState::Down,
                State::Retired => MemberState::Retired,
                State::Left => MemberState::Left,
            };
            let id = node.to_string();
            if members.iter().all(|known| known.node != id) {
                let since = entered.shard().away_since(node).map(|since| now.since(since));
                members.push(MemberStatus {
                    node: id,
                    name: member.name.clone(),
                    address: None,
                    state,
                    this: false,
                    since_seconds: since.map(|since| since.as_secs_f64()),
                    round_trip_ms: None,
                });
            }
        }
        drop(entered);
        members.sort_by(|one, other| one.node.cmp(&other.node));
        [this].into_iter().chain(members).collect()
    }

    /// The one member whose id begins with these digits.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn member(&self, wanted: &str) -> Result<MemberStatus, MemberError> {
        find(self.members(), wanted)
    }

    /// Retires the member whose id begins with these digits.
    ///
    /// # Errors
    /// When there is none or more than one, or when it is up or this node itself.
    pub fn retire(&self, wanted: &str) -> Result<MemberStatus, MemberError> {
        let member = self.member(wanted)?;
        let Ok(node) = member.node.parse::<NodeId>() else {
            return Err(MemberError::Unknown { wanted: wanted.to_owned() });
        };
        if member.this {
            return Err(MemberError::Itself { node });
        }
        if member.state == MemberState::Up {
            return Err(MemberError::IsUp { node, name: member.name });
        }
        match self.enter().retire(node) {
            Reply::Written { .. } => Ok(MemberStatus { state: MemberState::Retired, ..member }),
            Reply::Unwritable => {
                Err(MemberError::Unwritable { why: self.refuses_writes().unwrap_or_default() })
            }
            _ if member.state == MemberState::Retired => Ok(member),
            _ => Err(MemberError::Unknown { wanted: wanted.to_owned() }),
        }
    }

    /// Leaves the cluster: takes no more writes, and waits until a peer holds all that this node has
    /// written. Whoever runs the node hears of it by [`Node::left`] and closes it.
    ///
    /// # Errors
    /// When no peer is up, or none holds it in time. The node goes on as before then.
    pub async fn leave(&self, within: Duration) -> Result<(), LeaveError> {
        let leaving = &self.inner().leaving;
        let begun = leaving.stage.compare_exchange(
            Leaving::STAYS,
            Leaving::BEGUN,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if begun.is_err() {
            return Err(LeaveError::Leaving);
        }
        // Whoever asked may go away meanwhile, and then the node stays.
        let mut stays = Stays(Some((self, leaving)));
        let covered = self.hand_over(within).await;
        if covered.is_ok() {
            stays.0 = None;
            leaving.go(Leaving::LEFT);
        }
        covered
    }

    /// Waits until the node has left the cluster and is to be closed.
    pub async fn left(&self) {
        let leaving = &self.inner().leaving;
        loop {
            let left = leaving.left.listen();
            if leaving.stage.load(Ordering::Acquire) == Leaving::LEFT {
                return;
            }
            left.await;
        }
    }

    async fn hand_over(&self, within: Duration) -> Result<(), LeaveError> {
        let deadline = Instant::now() + within;
        if self.enter().shard().peers().count() == 0 {
            return Err(LeaveError::Alone);
        }
        // First what it has written, then that it goes: nobody may forget it before.
        for says_so in [false, true] {
            if says_so {
                self.enter().leave();
            }
            // All that is here: what it wrote in earlier lives, and what only it has of others.
            let vector = self.enter().shard().vector().clone();
            for (origin, held) in vector.iter() {
                let last = Dot { origin, seq: held.dense() };
                if last.seq > 0 && self.wait(last, 1, Some(deadline)).await == 0 {
                    return Err(LeaveError::NotCovered { within });
                }
            }
        }
        Ok(())
    }
}

fn find(members: Vec<MemberStatus>, wanted: &str) -> Result<MemberStatus, MemberError> {
    let prefix = wanted.to_ascii_lowercase();
    let is_meant = |member: &MemberStatus| !prefix.is_empty() && member.node.starts_with(&prefix);
    let mut found: Vec<_> = members.into_iter().filter(is_meant).collect();
    let wanted = wanted.to_owned();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(MemberError::Unknown { wanted }),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            let all = found.into_iter().chain([last]).take(CANDIDATES_MAX);
            let candidates = all.map(|member| format!("{} ({})", member.node, member.name));
            Err(MemberError::Ambiguous { wanted, candidates: candidates.collect() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u128, name: &str) -> MemberStatus {
        MemberStatus {
            node: NodeId(node).to_string(),
            name: name.to_owned(),
            address: None,
            state: MemberState::Down,
            this: false,
            since_seconds: None,
            round_trip_ms: None,
        }
    }

    /// An id may be cut to as many digits as tell it from the others.
    #[test]
    fn ids_are_found_by_their_beginning() {
        let members = vec![member(0xab << 120, "ada"), member(0xac << 120, "eve")];
        let found = |wanted: &str| find(members.clone(), wanted).map(|member| member.name);
        assert_eq!(found("ab").as_deref(), Ok("ada"));
        assert_eq!(found("AC00").as_deref(), Ok("eve"));
        assert_eq!(found(&members[0].node).as_deref(), Ok("ada"));
        let error = found("a").unwrap_err().to_string();
        assert!(error.contains("(ada)") && error.contains("(eve)"), "{error}");
        for wanted in ["", "b", "ada", "abc"] {
            assert!(matches!(found(wanted), Err(MemberError::Unknown { .. })), "{wanted}");
        }
    }
}
