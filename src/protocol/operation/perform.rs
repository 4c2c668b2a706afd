//! A node's own clients: their operations become writes of that node.

use super::{Executed, Mode, Moment, Operation, execute};
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
        let executed = execute(&self.store, operation, moment, Mode::Eventual, origin);
        let Executed { cells, answer } = executed;
        match self.write(now, cells, 0, output) {
            Reply::Written { stamp, dot, .. } => {
                Reply::Operated { answer, written: Some((stamp, dot)) }
            }
            Reply::Nothing => Reply::Operated { answer, written: None },
            refused => refused,
        }
    }
}
