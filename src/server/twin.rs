//! A node that gives way: another one with the same identity, of which it is a copy or which is a copy
//! of it, has been running longer.
//!
//! The links find that out (`net/twins.rs`). Here the node takes no more writes of clients from then on,
//! and whoever runs it is told to end it.

use std::sync::OnceLock;

use event_listener::Event as Signal;

use super::node::Node;

/// Why a node had to give way.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "this node gives way: {why}. What to do: {remedy}. Two nodes never run with one identity: to make \
     one more, start it with an empty directory, and its peers fill it"
)]
pub struct GaveWay {
    /// Who has the same identity.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether and why the node has to end.
#[derive(Debug, Default)]
pub(super) struct Twin {
    why: OnceLock<String>,
    met: Signal,
}

impl Twin {
    /// Another node stays in place of this one. The first to say so is quoted.
    pub(super) fn meet(&self, why: String) {
        if self.why.set(why).is_ok() {
            self.met.notify(usize::MAX);
        }
    }

    /// Why clients' writes are refused, if they are for that.
    pub(super) fn met(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}

impl Node {
    /// Waits until this node has to end since another one has its identity and has been running
    /// longer. It takes no more writes then; whoever runs it closes it.
    pub async fn gave_way(&self) -> GaveWay {
        let twin = &self.inner().twin;
        loop {
            let met = twin.met.listen();
            if let Some(why) = twin.met() {
                return GaveWay { why: why.to_owned(), remedy: self.remedy() };
            }
            met.await;
        }
    }

    fn remedy(&self) -> String {
        match &self.config().storage {
            Some(storage) => format!(
                "if the data directory {} is the copy, remove it or start with another one; if it is \
                 the original, end the other node first",
                storage.directory.display()
            ),
            None => "give one of the two another identity".to_owned(),
        }
    }
}
