//! Which peers are linked: admitting links, replacing them, and taking them off the books.
//!
//! There is one table, by node id, under one lock that is never held while anybody is told anything.
//! What must stay true: at most one link per peer; the handler hears of the end of a link before it
//! hears of the beginning of the one that replaces it.

use std::collections::HashMap;
use std::sync::Arc;

use quinn::Connection;

use super::Net;
use super::door::GREETING_MAX;
use super::hello::{Ending, Farewell, FarewellCode};
use super::link::Link;
use crate::protocol::id::NodeId;

impl Net {
    pub(super) fn check_quarantine(&self, peer: NodeId) -> Result<(), Farewell> {
        let until = self.inner.quarantine.lock().get(&peer).copied();
        let left = until.map(|until| until.saturating_duration_since(self.now()));
        match left {
            Some(left) if !left.is_zero() => Err(Farewell::new(
                FarewellCode::Quarantined,
                format!("sent away, not before another {} s", left.as_secs() + 1),
            )),
            _ => Ok(()),
        }
    }

    /// Takes a link that the peer has decided to keep, in place of any other to the same peer.
    pub(super) fn admit(&self, link: &Arc<Link>) -> Result<(), Farewell> {
        let mut links = self.inner.links.write();
        self.check_room(&links, link.peer)?;
        let replaced = links.insert(link.peer, Arc::clone(link));
        drop(links);
        self.replaced(replaced);
        Ok(())
    }

    /// Decides, as the node with the smaller id, whether to keep a link: `false` if there is one to
    /// that peer which is as good. The peer says whether it is `linked` to us as it sees it.
    pub(super) fn admit_unless_linked(
        &self,
        link: &Arc<Link>,
        linked: bool,
    ) -> Result<bool, Farewell> {
        let mut links = self.inner.links.write();
        if let Some(old) = links.get(&link.peer) {
            let alive = old.connection.close_reason().is_none() && old.run == link.run;
            let on_its_way = old.since.elapsed() < GREETING_MAX;
            if alive && (linked || on_its_way) {
                return Ok(false);
            }
        }
        self.check_room(&links, link.peer)?;
        let replaced = links.insert(link.peer, Arc::clone(link));
        drop(links);
        self.replaced(replaced);
        Ok(true)
    }

    fn check_room(&self, links: &HashMap<NodeId, Arc<Link>>, peer: NodeId) -> Result<(), Farewell> {
        if links.len() >= self.inner.limits.peers_max && !links.contains_key(&peer) {
            let words = format!("{} peers are linked already", links.len());
            return Err(Farewell::new(FarewellCode::Busy, words));
        }
        Ok(())
    }

    fn replaced(&self, old: Option<Arc<Link>>) {
        if let Some(old) = old {
            old.close(&Farewell::new(FarewellCode::Replaced, "replaced by a newer link"));
            old.shut(self, &Ending::Ours);
        }
    }

    /// Takes a link off the books that was admitted but whose greeting came to nothing.
    pub(super) fn forget(&self, connection: &Connection) {
        let mut links = self.links().into_iter();
        let of_this = |link: &Arc<Link>| link.connection.stable_id() == connection.stable_id();
        if let Some(link) = links.find(of_this) {
            self.lost(&link, &Ending::Ours);
        }
    }

    /// Takes a link off the books whose connection has ended, and tells it.
    pub(super) fn lost(&self, link: &Arc<Link>, ending: &Ending) {
        let mut links = self.inner.links.write();
        if links.get(&link.peer).is_some_and(|known| Arc::ptr_eq(known, link)) {
            links.remove(&link.peer);
        }
        drop(links);
        if let Some(reason) = ending.refused() {
            *self.inner.refusals.lock().counts.entry(reason).or_default() += 1;
        }
        link.shut(self, ending);
        self.heed(ending);
        self.inner.links_changed.notify(usize::MAX);
    }
}
