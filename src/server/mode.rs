//! The consistency mode: what a node says about it, and switching it.

use serde::Serialize;

use super::members::MemberError;
use super::node::Node;
use crate::protocol::boundary::{Reply, Request};
use crate::protocol::cell::Content;
use crate::protocol::id::NodeId;
use crate::protocol::operation::Mode;
use crate::protocol::shard::Shard;
use crate::protocol::strong::{Orphan, Posture, SwitchOrder, Switched};

/// How much of an orphan's value is shown.
const SHOWN_BYTES_MAX: usize = 256;

/// One voter, as a node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct VoterStatus {
    /// Its number, which is never used again.
    pub voter: u32,
    /// Where it sits.
    pub node: String,
    /// The name of that node.
    pub name: String,
    /// Whether it can be reached.
    pub up: bool,
    /// How many slots of the log it had applied when it was last heard of.
    pub applied: Option<u64>,
    /// How many slots that is behind what this node knows to be decided.
    pub behind: Option<u64>,
}

/// How the replicated log and the mode stand at a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StrongStatus {
    /// `eventual` or `strong`.
    pub mode: String,
    /// Counts the changes of the mode: even ones are eventual, odd ones strong.
    pub epoch: u32,
    /// How requests are answered here: `direct`, `held`, `log` or `forward`.
    pub posture: &'static str,
    /// Whether a switch is under way.
    pub switching: bool,
    /// For whom a switch waits, as far as this node drives it.
    pub waiting_for: Vec<String>,
    /// The id of the voter that orders the log, as far as this node knows.
    pub primary: Option<String>,
    /// All voters.
    pub voters: Vec<VoterStatus>,
    /// As whom this node votes.
    pub voter: Option<u32>,
    /// Whether it follows the log, if it votes.
    pub following: bool,
    /// How many slots it has applied.
    pub applied: u64,
    /// How many slots it knows to be decided.
    pub committed: u64,
    /// How many cells the log of the last strong epoch has written.
    pub written: u64,
    /// How many writes of earlier epochs it keeps that do not count.
    pub orphans: usize,
}

impl StrongStatus {
    pub(super) fn of(shard: &Shard) -> Self {
        let status = shard.strong_status();
        let name = |node: NodeId| {
            let member = shard.members().find(|(member, _)| *member == node);
            member.map(|(_, member)| member.name.clone()).unwrap_or_default()
        };
        let voters = status.voters.iter().map(|voter| VoterStatus {
            voter: voter.voter.0,
            node: voter.node.to_string(),
            name: name(voter.node),
            up: voter.up,
            applied: voter.applied,
            behind: voter.applied.map(|applied| status.committed.saturating_sub(applied)),
        });
        Self {
            mode: status.mode.to_string(),
            epoch: status.epoch,
            posture: match status.posture {
                Posture::Direct => "direct",
                Posture::Held => "held",
                Posture::Log => "log",
                Posture::Forward => "forward",
            },
            switching: status.switching,
            waiting_for: status.waiting_for.iter().map(NodeId::to_string).collect(),
            primary: status.primary.map(|node| node.to_string()),
            voters: voters.collect(),
            voter: status.voter.map(|voter| voter.0),
            following: status.following,
            applied: status.applied,
            committed: status.committed,
            written: status.written,
            orphans: status.orphans,
        }
    }
}

/// A write of an earlier epoch that does not count: it was not known to the others when the next epoch
/// began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct OrphanStatus {
    /// The key.
    pub key: String,
    /// The field within the key, if it is not the key's own value.
    pub field: Option<String>,
    /// The value, or its beginning; nothing if it is a deletion.
    pub value: Option<String>,
    /// The bytes of the whole value.
    pub bytes: usize,
    /// Its place in the order of its epoch.
    pub stamp: String,
    /// Whether the log has made it after all, since its key had not been touched.
    pub adopted: bool,
}

impl OrphanStatus {
    fn of(orphan: &Orphan) -> Self {
        let Orphan { stamp, cell, adopted, .. } = orphan;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let value = match &cell.content {
            Content::Tombstone => None,
            content => content.value(),
        };
        let is_whole = cell.field.is_whole_key();
        Self {
            key: text(&cell.key),
            field: (!is_whole).then(|| text(cell.field.as_bytes())),
            value: value.map(|value| text(value.get(..SHOWN_BYTES_MAX).unwrap_or(value))),
            bytes: value.map_or(0, <[u8]>::len),
            stamp: stamp.to_string(),
            adopted: *adopted,
        }
    }
}

/// What came of the wish for a switch, for people and scripts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SwitchReport {
    /// `done`, `already`, `possible`, `unreachable`, `cannot-leave-out`, `no-member`, `underway`,
    /// `no-quorum`, `aborted` or `unknown`.
    pub outcome: &'static str,
    /// The mode that was asked for.
    pub to: String,
    /// The epoch that goes on or has begun, where that is known.
    pub epoch: Option<u32>,
    /// The members that are meant, by id and name.
    pub nodes: Vec<String>,
    /// Who votes, or would, if that was asked.
    pub voters: Vec<String>,
    /// The same in a sentence, with what to do.
    pub text: String,
}

impl Node {
    /// Switches the consistency mode of the whole cluster. All members must be reachable, but for
    /// `without`, which are retired once strong mode begins: what only they have does not count any more. With `dry_run` it is
    /// only said what would be done.
    ///
    /// # Errors
    /// When one of `without` names no member, or several. Nothing was changed.
    pub async fn switch_mode(
        &self,
        to: Mode,
        without: &[String],
        dry_run: bool,
    ) -> Result<SwitchReport, MemberError> {
        let mut nodes = Vec::new();
        for wanted in without {
            let member = self.member(wanted)?;
            let unknown = || MemberError::Unknown { wanted: wanted.clone() };
            nodes.push(member.node.parse::<NodeId>().map_err(|_| unknown())?);
        }
        let order = SwitchOrder { to, without: nodes, dry_run };
        let ask =
            |entered: &mut super::Entered<'_>, token| entered.begin(token, Request::Switch(&order));
        let outcome = match self.inquire(ask).await {
            Reply::Switched(outcome) => outcome,
            _ => Switched::Unknown,
        };
        Ok(self.report(to, outcome))
    }

    /// The writes of earlier epochs that this node keeps and that do not count.
    pub fn orphans(&self) -> Vec<OrphanStatus> {
        self.enter().shard().orphans().map(OrphanStatus::of).collect()
    }

    fn report(&self, to: Mode, outcome: Switched) -> SwitchReport {
        let members = self.members();
        let named = |nodes: &[NodeId]| -> Vec<String> {
            let name = |node: &NodeId| {
                let id = node.to_string();
                let member = members.iter().find(|member| member.node == id);
                let name = member.map(|member| member.name.as_str()).unwrap_or_default();
                format!("{name} ({})", id.get(..12).unwrap_or(&id))
            };
            nodes.iter().map(name).collect()
        };
        let mut report = SwitchReport {
            outcome: "unknown",
            to: to.to_string(),
            epoch: None,
            nodes: Vec::new(),
            voters: Vec::new(),
            text: String::new(),
        };
        (report.outcome, report.text) = match outcome {
            Switched::Done { epoch } => {
                report.epoch = Some(epoch.0);
                ("done", format!("{to} mode holds from epoch {} on", epoch.0))
            }
            Switched::Already { epoch } => {
                report.epoch = Some(epoch.0);
                ("already", format!("{to} mode holds already, since epoch {}", epoch.0))
            }
            Switched::Possible { members, voters } => {
                report.nodes = named(&members);
                report.voters = named(&voters);
                let (all, vote) = (report.nodes.join(", "), report.voters.join(", "));
                (
                    "possible",
                    format!("it can be done with {all}; voters: {vote}. Nothing was changed"),
                )
            }
            Switched::Unreachable { nodes } => {
                report.nodes = named(&nodes);
                let who = report.nodes.join(", ");
                (
                    "unreachable",
                    format!(
                        "cannot reach {who}; nothing was changed. Start them, or leave them out with \
                         --without NODE: what only they have does not count then"
                    ),
                )
            }
            Switched::CannotLeaveOut { node } => {
                report.nodes = named(&[node]);
                let who = report.nodes.join(", ");
                (
                    "cannot-leave-out",
                    format!(
                        "{who} cannot be left out: it is up, or the node that you ask; nothing was \
                         changed. End it first"
                    ),
                )
            }
            Switched::NoMember { node } => {
                report.nodes = vec![node.to_string()];
                ("no-member", format!("{node} is no member: `quorumor members` lists them"))
            }
            Switched::Underway => {
                let text =
                    "another switch is under way; nothing was changed, try again when it is done";
                ("underway", text.to_owned())
            }
            Switched::LeavesOut { nodes } => {
                report.nodes = named(&nodes);
                let who = match report.nodes.is_empty() {
                    true => "nobody".to_owned(),
                    false => report.nodes.join(", "),
                };
                (
                    "underway",
                    format!(
                        "another switch is under way, which leaves out {who}; nothing was changed, try \
                         again when it is done"
                    ),
                )
            }
            Switched::NoQuorum => {
                let text = "fewer than a majority of the voters can be reached; nothing was changed. \
                            `quorumor status` shows which are down: start them";
                ("no-quorum", text.to_owned())
            }
            Switched::Aborted { epoch } => {
                report.epoch = Some(epoch.0);
                (
                    "aborted",
                    format!(
                        "it was given up, since it took too long or a member joined meanwhile; nothing is \
                         lost, eventual mode goes on as epoch {}. `quorumor status` shows who is down or \
                         behind",
                        epoch.0
                    ),
                )
            }
            Switched::Unknown => {
                let text = "how it ends is not known yet: look at `quorumor status`, and ask again";
                ("unknown", text.to_owned())
            }
        };
        report
    }
}
