//! From what a client of a plan wants to what a shard is asked.

use super::plan::ClientRequest;
use super::world::{World, id_of, wall_at};
use crate::protocol::boundary::{Input, Request, Token};
use crate::protocol::operation::{
    Ends, Expiry, Hash, Keys, Moment, Only, Operation, Text, When, Word,
};
use crate::protocol::strong::SwitchOrder;

impl World {
    /// Asks a node; the answer is in the output.
    pub(super) fn request(&mut self, node: usize, token: Token, request: &ClientRequest) {
        let dot = self.last_dot(node);
        let Some(shard) = &mut self.nodes[node].shard else { return };
        let (now, output) = (self.now, &mut self.output);
        let moment = Moment { wall: wall_at(now), dice: token.0 };
        let mut ask = |request| shard.handle(now, Input::Request(token, request), output);
        match request {
            ClientRequest::Set(key, value) => ask(Request::Set { key, value }),
            ClientRequest::SetAll(pairs) => {
                let pairs: Vec<_> =
                    pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
                ask(Request::SetAll(&pairs));
            }
            ClientRequest::Delete(keys) => {
                let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
                ask(Request::Delete(&keys));
            }
            ClientRequest::Ask(peer) => ask(Request::Ask { peer: id_of(*peer), dot }),
            ClientRequest::Get(key) => {
                let operation = Operation::Text(Text::Get(Word(key)));
                ask(Request::Operate { operation: &operation, moment });
            }
            ClientRequest::SetAbsent(key, value) => {
                let (key, value, when) = (Word(key), Word(value), When::Absent);
                let set = Text::Set { key, value, expiry: Expiry::None, when, get: false };
                ask(Request::Operate { operation: &Operation::Text(set), moment });
            }
            ClientRequest::Increment(key) => {
                let operation = Operation::Text(Text::Add { key: Word(key), by: 1 });
                ask(Request::Operate { operation: &operation, moment });
            }
            ClientRequest::Note(key, field) => {
                let set = Hash::Set(Word(key), vec![(Word(field), Word(b"v"))]);
                ask(Request::Operate { operation: &Operation::Hash(set), moment });
            }
            ClientRequest::Expire(key, Some(after)) => {
                let after = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                let (ends, only) = (Ends::After(after), Only::Always);
                let expire = Keys::Expire { key: Word(key), ends, only };
                ask(Request::Operate { operation: &Operation::Keys(expire), moment });
            }
            ClientRequest::Expire(key, None) => {
                let operation = Operation::Keys(Keys::Persist(Word(key)));
                ask(Request::Operate { operation: &operation, moment });
            }
            ClientRequest::Switch { to, without } => {
                let without = without.iter().map(|node| id_of(*node)).collect();
                ask(Request::Switch(&SwitchOrder { to: *to, without, dry_run: false }));
            }
        }
    }
}
