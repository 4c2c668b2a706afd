//! The Redis protocol: any Redis client is at home here.
//!
//! From the socket inwards:
//!
//! - [`door`] listens; its thread, `porter`, serves all connections turn by turn: read from all, execute
//!   everything in one batch, write to all. `connection` is one of them, `outgoing` what it still has to
//!   say, `completions` what lets it go on when it had to wait.
//! - [`parse`] makes requests of bytes, within limits; `words` does so for lines typed by a person.
//! - [`session`] is one client's state and executes its requests, judged by [`command`]'s lists, which
//!   [`describe`] also tells to clients. `keys` has those that must be fast, `info` what `INFO` tells.
//! - `pubsub` knows who has subscribed to what, `notify` what changes of keys are published.
//! - `own` has the commands that Redis does not have.
//! - `ask` makes operations of the other commands on keys, `operate` has them executed and answered,
//!   and `transaction` makes one of what stands between MULTI and EXEC.
//! - [`reply`] writes replies in either version of the protocol.
//! - [`clients`] knows who is connected, [`settings`] what the operator decided, `config` what clients see
//!   and change of it, `tools` what else those ask who look after a server. [`buffers`] lends memory for
//!   the moment that a batch takes.
//!
//! What must stay true:
//!
//! - Between a client's bytes and the store there is no channel and no task. The batch of a turn enters
//!   the shard once, for at most a few hundred commands, and never while anything is read or written.
//! - Whatever a client sends or does not read, memory is bounded: by the longest request coming in,
//!   by the longest reply going out.
//! - Replies come in the order of the requests, and a read in a pipeline sees the writes before it.
//! - Where Redis has a text for a case, it is Redis' text, because clients look into it.
//! - A command whose meaning needs an order between peers is refused, never approximated.
//!
//! Left out: scripts, streams, users other than `default`, TLS (the door is meant
//! for loopback or a trusted network; peers speak QUIC), more than one database.

mod ask;
pub mod buffers;
pub mod clients;
pub mod command;
mod completions;
mod config;
mod connection;
pub mod describe;
pub mod door;
mod info;
mod keys;
mod notify;
mod operate;
mod ordered;
mod outgoing;
mod own;
pub mod parse;
mod porter;
mod pubsub;
#[cfg(test)]
mod redis_tests;
pub mod reply;
pub mod session;
pub mod settings;
mod table;
#[cfg(test)]
mod tests;
mod tools;
mod transaction;
mod words;
