//! A node's own clients: their operations become writes of that node.

use super::{Executed, Mode, Moment, Operation, Writer, execute};
use crate::protocol::boundary::{Output, Reply};
use crate::protocol::shard::Shard;
use crate::protocol::time::Time;

impl Shard {
    /// Executes a client's operation and writes what comes of it.
    pub(in crate::protocol) fn operate(
        &mut self,
        now: Time,
        operation: &Operation<'_>,
        moment: Moment,
        output: &mut Output,
    ) -> Reply {
        let origin = self.config.origin;
        let moment = Moment { wall: self.judged_at(moment.wall), ..moment };
        let writer = Writer { origin, unsaid: output.unsaid.unwrap_or(u64::MAX) };
        let executed = execute(&self.store, operation, moment, Mode::Eventual, writer);
        let Executed { cells, answer, stands } = executed;
        match self.write(now, cells, 0, output) {
            Reply::Written { stamp, dot, .. } => {
                Reply::Operated { answer, written: Some((stamp, dot)) }
            }
            Reply::Nothing => {
                let written = stands.and_then(|dot| Some((self.store.stamp(dot)?, dot)));
                Reply::Operated { answer, written }
            }
            refused => refused,
        }
    }
}
