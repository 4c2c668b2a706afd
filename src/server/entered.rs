//! The inside of a node's shard, for a batch of requests.

use std::collections::VecDeque;

use parking_lot::MutexGuard;

use super::node::{Inner, Slot};
use crate::protocol::boundary::{Input, Reply, Request, Token};
use crate::protocol::cell::Key;
use crate::protocol::id::NodeId;
use crate::protocol::restore::{BackedUp, RestoreRefused, Restored};
use crate::protocol::shard::Shard;
use crate::protocol::store::Kind;
use crate::protocol::strong::{Posture, Refusal};
use crate::protocol::time::{Time, WallTime};
use crate::storage::Position;

/// The inside of a node's shard, for one batch of requests.
///
/// Holds a lock: keep it short, never across an await, and do not call the node's other methods
/// meanwhile, which wait for the same lock. What the batch asks for (pushes, events) is done when
/// this is dropped.
pub struct Entered<'a> {
    inner: &'a Inner,
    pub(super) slot: MutexGuard<'a, Slot>,
    now: Time,
    /// Whether anything was asked for; who only looks leaves nothing to be carried out.
    touched: bool,
}

impl<'a> Entered<'a> {
    pub(super) fn new(inner: &'a Inner, slot: MutexGuard<'a, Slot>, now: Time) -> Self {
        Self { inner, slot, now, touched: false }
    }

    /// Sets a string.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Reply {
        self.request(Request::Set { key, value })
    }

    /// Sets strings as one write.
    pub fn set_all(&mut self, pairs: &[(&[u8], &[u8])]) -> Reply {
        self.request(Request::SetAll(pairs))
    }

    /// Deletes keys as one write.
    pub fn delete(&mut self, keys: &[&[u8]]) -> Reply {
        self.request(Request::Delete(keys))
    }

    /// Retires a member that is away.
    pub(super) fn retire(&mut self, node: NodeId) -> Reply {
        self.request(Request::Retire { node })
    }

    /// Takes back that this node leaves.
    pub(super) fn stay(&mut self) -> Reply {
        self.say(Request::Stay)
    }

    /// Writes into the roster that this node leaves.
    pub(super) fn leave(&mut self) -> Reply {
        self.say(Request::Leave)
    }

    /// A request that does not depend on whether clients' writes are taken.
    fn say(&mut self, request: Request<'_>) -> Reply {
        self.touched = true;
        let Slot { shard, output } = &mut *self.slot;
        shard.handle(self.now, Input::Request(Token::default(), request), output);
        output.reply.pop().map_or(Reply::Nothing, |(_, reply)| reply)
    }

    /// Hands live keys to `found`; see [`crate::protocol::store::Store::scan`].
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        now: WallTime,
        found: impl FnMut(&Key, Kind),
    ) -> u64 {
        self.slot.shard.store().scan(cursor, count, now, found)
    }

    /// How many keys show something at `now`.
    pub fn keys_shown(&self, now: WallTime) -> usize {
        self.slot.shard.store().keys_shown(now)
    }

    /// The shard, to be looked at.
    pub fn shard(&self) -> &Shard {
        &self.slot.shard
    }

    /// Lets the cells take so much memory before clients' writes are refused; see [`Shard::limit_memory`].
    pub fn limit_memory(&mut self, bytes_max: Option<usize>) {
        self.slot.shard.limit_memory(bytes_max);
    }

    /// Leaves the shard and carries out what was asked for. If the answers must not be given before
    /// something is durable, says up to where in the journal: see `Node::durable`.
    pub fn finish(mut self) -> Option<Position> {
        self.carry_out()
    }

    fn carry_out(&mut self) -> Option<Position> {
        if !std::mem::take(&mut self.touched) {
            return None;
        }
        self.inner.carry_out(&mut self.slot, self.now)
    }

    pub(super) fn request(&mut self, request: Request<'_>) -> Reply {
        if !self.inner.takes_writes() {
            return Reply::Unwritable;
        }
        let Slot { shard, output } = &mut *self.slot;
        if shard.posture() != Posture::Direct {
            return Reply::Refused(Refusal::Later);
        }
        self.touched = true;
        shard.handle(self.now, Input::Request(Token::default(), request), output);
        let (_, reply) = output.reply.pop().expect("an eventual request is answered at once");
        reply
    }

    /// Asks for what may be answered later, to whoever waits for the token; the answer, if it is there
    /// at once.
    pub(super) fn begin(&mut self, token: Token, request: Request<'_>) -> Option<Reply> {
        self.touched = true;
        let Slot { shard, output } = &mut *self.slot;
        let before = output.reply.len();
        shard.handle(self.now, Input::Request(token, request), output);
        let at = output.reply.iter().skip(before).position(|(of, _)| *of == token)?;
        Some(output.reply.remove(before + at).1)
    }

    /// Whether requests are answered at once, by this node alone, as long as the shard is not left.
    pub fn is_direct(&self) -> bool {
        self.slot.shard.posture() == Posture::Direct
    }

    /// Whether clients' writes are taken.
    pub(super) fn takes_writes(&self) -> bool {
        self.inner.takes_writes()
    }

    /// Restores cells of a backup; see [`Shard::restore`].
    pub(super) fn restore(
        &mut self,
        cells: &mut VecDeque<BackedUp>,
        bytes_max: usize,
        counts: &mut Restored,
    ) -> Result<(), RestoreRefused> {
        if !self.inner.takes_writes() {
            return Err(RestoreRefused::Unwritable);
        }
        self.touched = true;
        let Slot { shard, output } = &mut *self.slot;
        shard.restore(self.now, cells, bytes_max, counts, output)
    }

    /// Asks a peer; the answer comes to whoever waits for the token.
    pub(super) fn ask(&mut self, token: Token, request: Request<'_>) {
        self.touched = true;
        let Slot { shard, output } = &mut *self.slot;
        shard.handle(self.now, Input::Request(token, request), output);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.carry_out();
    }
}
