//! Stand-in for the server's node.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::boundary::{Counters, Input, Output, Reply, Request, Token};
use crate::protocol::cell::Key;
use crate::protocol::config::Config;
use crate::protocol::id::{NodeId, Origin};
use crate::protocol::shard::Shard;
use crate::protocol::stamp::Dot;
use crate::protocol::store::Reader;
use crate::protocol::time::Time;

#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    shard: Mutex<(Shard, Output)>,
    reader: Reader,
    started: Instant,
}

pub struct Status {
    pub node: String,
    pub name: String,
    pub cluster: String,
    pub consistency: &'static str,
    pub strategy: String,
    pub uptime_seconds: f64,
    pub peers: Vec<()>,
    pub keys: usize,
    pub cells: usize,
    pub cell_bytes: usize,
    pub counters: Counters,
}

impl Node {
    pub fn new() -> Self {
        let shard = Shard::new(Config::new(NodeId(7), Origin(1), 1));
        let reader = shard.reader();
        let shard = Mutex::new((shard, Output::default()));
        Self(Arc::new(Inner { shard, reader, started: Instant::now() }))
    }

    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    pub fn enter(&self) -> Entered<'_> {
        Entered { guard: self.0.shard.lock(), now: Time::START }
    }

    pub async fn wait(&self, _dot: Dot, count: usize, deadline: Option<Instant>) -> usize {
        match deadline {
            _ if count == 0 => {}
            Some(deadline) => {
                async_io::Timer::at(deadline).await;
            }
            None => std::future::pending::<()>().await,
        }
        0
    }

    pub fn status(&self) -> Status {
        let guard = self.0.shard.lock();
        let store = guard.0.store();
        Status {
            node: NodeId(7).to_string(),
            name: "test".to_owned(),
            cluster: "test".to_owned(),
            consistency: "eventual",
            strategy: "push-pull".to_owned(),
            uptime_seconds: self.0.started.elapsed().as_secs_f64(),
            peers: Vec::new(),
            keys: store.keys_live(),
            cells: store.cells(),
            cell_bytes: store.bytes(),
            counters: *guard.0.counters(),
        }
    }
}

pub struct Entered<'a> {
    guard: MutexGuard<'a, (Shard, Output)>,
    now: Time,
}

impl Entered<'_> {
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Reply {
        self.request(Request::Set { key, value })
    }

    pub fn set_all(&mut self, pairs: &[(&[u8], &[u8])]) -> Reply {
        self.request(Request::SetAll(pairs))
    }

    pub fn delete(&mut self, keys: &[&[u8]]) -> Reply {
        self.request(Request::Delete(keys))
    }

    pub fn shard(&self) -> &Shard {
        &self.guard.0
    }

    fn request(&mut self, request: Request<'_>) -> Reply {
        let (shard, output) = &mut *self.guard;
        shard.handle(self.now, Input::Request(Token(0), request), output);
        let (_, reply) = output.reply.pop().expect("every request is answered");
        output.clear();
        reply
    }

    pub fn scan(&self, cursor: u64, count: usize, found: impl FnMut(&Key)) -> u64 {
        self.guard.0.store().scan(cursor, count, found)
    }

    pub fn keys_live(&self) -> usize {
        self.guard.0.store().keys_live()
    }
}
