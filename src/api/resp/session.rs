//! One client's state, and the execution of its requests.
//!
//! `Session::run` executes everything that has been read, in order, and writes the replies into one
//! buffer. It never waits: where a command must (`WAIT`), or where the replies should leave before
//! more is executed, it stops and says so, and the door's thread comes back afterwards. The way into
//! the shard, the batch, is handed in, so that many clients share it; it is bounded in commands and in
//! time, and what each client executes in it by the bytes of its replies.
//!
//! The order in which a request is judged is Redis 7's (`server.c`: `processCommand`): does the
//! command exist, has it the right number of arguments, has the client authenticated, is it served.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::clients::{Card, valid_name};
use super::command::{self, Command, Flags, Refusal, Verb};
use super::completions::Key;
use super::door::Shared;
use super::keys::{self, Batch};
use super::ordered::Gathered;
use super::parse::{Arguments, Requests, Trust, integer};
use super::pubsub::{Subscribed, Topic};
use super::reply::{Protocol, Replies};
use super::transaction::Transaction;
use super::{describe, info, operate, own, pubsub, tools};
use crate::protocol::stamp::{Dot, Stamp};
use crate::server::Holder;

/// After this many bytes of replies they are sent before more is executed, so that a pipeline of
/// large reads never gathers more than this and one reply.
pub(super) const REPLIES_BYTES_MAX: usize = 64 * 1024;

/// What Redis says to a client that must authenticate first.
const NOAUTH: &str = "NOAUTH Authentication required.";
const NOAUTH_HELLO: &str = "NOAUTH HELLO must be called with the client already authenticated, \
    otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
    select the RESP protocol version at the same time";
const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the \
    default user. Are you sure your configuration is correct?";

/// What a client is told that reads from a node which does not have everything back yet; Redis' code for
/// that.
const LOADING: &str =
    "LOADING this peer fills itself anew from its peers: ask another one, or wait";

/// Why `Session::run` stopped.
#[derive(Debug, PartialEq)]
pub enum Pause {
    /// Everything that arrived has been executed.
    Drained,
    /// The replies are many; send them, then run again.
    Full,
    /// The client wants to know where a write is. Send the replies, find out,
    /// `Session::found`, then run again.
    Wait(Wait),
    /// Send the replies and close.
    Close,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// What should be so.
    pub until: Until,
    /// How long it waits at most; nothing: for ever.
    pub timeout: Option<Duration>,
}

/// What should be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// `WAIT`: so many peers hold its last write, if it made one.
    Peers(Option<Dot>, usize),
    /// `QUORUMOR.WAITFOR`: this peer holds a write.
    Here(Dot),
    /// `QUORUMOR.TRACE`: everybody has said whether they hold a write.
    Everywhere(Dot),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// So many peers, or whether this one does.
    Count(usize),
    /// Who holds it.
    Holders(Vec<Holder>),
    /// Nobody knows: somebody has ended the waiting with `CLIENT UNBLOCK`.
    Unblocked,
}

/// Whether the client gets replies, as it chose with `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replying {
    On,
    Off,
    /// Not to this command, and not to the next.
    SkipNext,
    /// Not to this command.
    Skip,
}

/// What follows one command.
pub(super) enum Next {
    Go,
    Wait(Wait),
    Close,
    /// What is under way must be answered first.
    NotYet,
}

/// One client's state.
#[derive(Debug)]
pub struct Session {
    card: Arc<Card>,
    authenticated: bool,
    protocol: Protocol,
    replying: Replying,
    last_write: Option<(Stamp, Dot)>,
    /// Whether reads are answered by what is here in strong mode as well: `READONLY`.
    reads_locally: bool,
    /// What was handed to the replicated log in this turn.
    pub(super) gathered: Gathered,
    pub(super) transaction: Transaction,
    /// Where its connection is found.
    key: Key,
    subscribed: Subscribed,
}

impl Session {
    /// A client that has just connected.
    pub(super) fn new(shared: &Shared, card: Arc<Card>, key: Key) -> Self {
        Self {
            card,
            authenticated: shared.settings().password.is_none(),
            protocol: Protocol::default(),
            replying: Replying::On,
            last_write: None,
            reads_locally: false,
            gathered: Gathered::Nothing,
            transaction: Transaction::default(),
            key,
            subscribed: Subscribed::default(),
        }
    }

    /// The client has gone.
    pub(super) fn end(&mut self, shared: &Shared) {
        shared.subscriptions().forget(self.key, &self.card, &mut self.subscribed);
    }

    /// The version in which this client wants its replies.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Executes what has arrived, as far as it goes without waiting, in a batch that other clients
    /// share. If it used the shard, the replies must not be sent before the journal is durable up to
    /// the place that the batch answers in the end, if any.
    pub(super) fn run(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        requests: &mut Requests,
        replies: &mut Replies,
    ) -> Pause {
        let mut executed = 0;
        let mut last = None;
        self.gathered = Gathered::Nothing;
        let pause = loop {
            if replies.len() >= REPLIES_BYTES_MAX {
                break Pause::Full;
            }
            let arguments = match requests.next(self.trust()) {
                Ok(Some(arguments)) => arguments,
                Ok(None) => break Pause::Drained,
                Err(error) => {
                    shared.count_protocol_error();
                    log::debug!("client {}: {error}", self.card.id());
                    replies.error(format!("ERR {error}"));
                    break Pause::Close;
                }
            };
            executed += 1;
            batch.count();
            match self.request(shared, batch, arguments, replies, &mut last) {
                Next::Go => {}
                Next::Wait(wait) => break Pause::Wait(wait),
                Next::Close => break Pause::Close,
                Next::NotYet => {
                    requests.put_back();
                    executed -= 1;
                    break Pause::Full;
                }
            }
        };
        shared.count_commands(executed);
        if let Some(command) = last {
            self.card.active(command, self.protocol, Instant::now());
        }
        pause
    }

    /// Answers what the client waited for when `Session::run` stopped.
    pub fn found(&mut self, found: &Found, replies: &mut Replies) {
        if self.replying == Replying::On {
            match found {
                Found::Count(count) => replies.count(*count),
                Found::Holders(holders) => own::reply_holders(holders, replies),
                Found::Unblocked => {
                    replies.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                }
            }
        }
        self.replied();
    }

    fn trust(&self) -> Trust {
        if self.authenticated { Trust::Authenticated } else { Trust::Stranger }
    }

    /// Executes one request, and takes its reply back if the client wants none.
    #[inline]
    fn request(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        arguments: Arguments<'_>,
        replies: &mut Replies,
        last: &mut Option<&'static str>,
    ) -> Next {
        let start = replies.place();
        let next = match command::find(arguments) {
            Ok(command)
                if self.authenticated
                    && command.flags.has(Flags::READONLY)
                    && shared.node().is_filling()
                    && (self.reads_locally || batch.is_direct()) =>
            {
                replies.error(LOADING);
                Next::Go
            }
            Ok(command)
                if self.subscribed.count() > 0
                    && self.protocol == Protocol::Resp2
                    && !command.verb.is_for_subscribers() =>
            {
                replies.error(format!(
                    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                     RESET are allowed in this context",
                    command.name
                ));
                Next::Go
            }
            Ok(command) if self.authenticated || command.flags.has(Flags::NO_AUTH) => {
                *last = Some(command.name);
                self.execute(shared, batch, command, arguments, replies)
            }
            Err(Refusal::OtherProtocol) => {
                shared.count_protocol_error();
                log::debug!("client {} speaks HTTP; closing", self.card.id());
                Next::Close
            }
            Err(refusal) if self.authenticated || refusal.precedes_authentication() => {
                refusal.write(arguments, replies);
                self.transaction.spoil();
                Next::Go
            }
            Ok(_) | Err(_) => {
                replies.error(NOAUTH);
                Next::Go
            }
        };
        if self.replying != Replying::On {
            replies.take_back(start);
            if !matches!(next, Next::Wait(_) | Next::NotYet) {
                self.replied();
            }
        }
        next
    }

    /// Moves a client that skips replies one command further.
    fn replied(&mut self) {
        self.replying = match self.replying {
            Replying::SkipNext => Replying::Skip,
            Replying::Skip => Replying::On,
            other => other,
        };
    }

    #[inline]
    fn execute(
        &mut self,
        shared: &Shared,
        batch: &mut Batch<'_>,
        command: &'static Command,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) -> Next {
        if self.transaction.is_open() && !command.verb.ends_queueing() {
            self.transaction.queue(batch, command, arguments, replies);
            return Next::Go;
        }
        // Under the lock where it is needed anyway: a switch may begin at any moment.
        let enters = command.flags.has(Flags::WRITE) || command.verb == Verb::Exec;
        let is_direct = if enters { batch.enter().is_direct() } else { batch.is_direct() };
        if !is_direct {
            let kind = match command.verb {
                Verb::Exec => Gathered::Transaction,
                _ if command.ask.is_none() => Gathered::Nothing,
                _ if !command.flags.has(Flags::READONLY) => Gathered::Writes,
                _ if self.reads_locally => Gathered::Nothing,
                _ => Gathered::Reads,
            };
            if kind != Gathered::Nothing {
                return self.order(shared, batch, command, kind, arguments, replies);
            }
        }
        match command.verb {
            Verb::Get => keys::get(batch, arguments, replies),
            Verb::Set if arguments.len() == 3 => self.wrote(keys::set(batch, arguments, replies)),
            Verb::Mget => keys::mget(batch, arguments, replies),
            Verb::Operate | Verb::Set => {
                self.wrote(operate::operate(batch, command, arguments, replies));
            }
            Verb::Scan => keys::scan(batch, arguments, replies),
            Verb::Keys => keys::keys(batch, arguments, replies),
            Verb::Multi => self.transaction.begin(replies),
            Verb::Exec => {
                let written = self.transaction.execute(shared, batch, replies);
                self.wrote(written);
            }
            Verb::Discard => self.transaction.discard(replies),
            Verb::Watch => self.transaction.watch(batch, arguments, replies),
            Verb::Unwatch => self.transaction.unwatch(replies),
            Verb::Ping => self.ping(arguments, replies),
            Verb::Publish => publish(shared, batch, arguments, replies),
            Verb::Echo => replies.bulk(arguments.at(1)),
            Verb::Wait => return self.wait(arguments, replies),
            Verb::OwnStamp => own::stamp(self.last_write, replies),
            Verb::OwnTrace => return pause(own::trace(arguments, self.last_write, replies)),
            Verb::OwnWaitfor => return pause(own::wait_for(arguments, replies)),
            Verb::OwnWhy => own::why(batch, arguments, replies),
            Verb::OwnDigest => own::digest(batch, replies),
            Verb::Quit => {
                replies.ok();
                return Next::Close;
            }
            // What these ask the node or the other clients must not wait for this batch.
            _ => {
                batch.leave();
                return self.administer(shared, command, arguments, replies);
            }
        }
        Next::Go
    }

    /// The commands that are about the connection or the node rather than about keys.
    fn administer(
        &mut self,
        shared: &Shared,
        command: &Command,
        arguments: Arguments<'_>,
        replies: &mut Replies,
    ) -> Next {
        let rest = arguments.skip(2);
        self.card.active(command.name, self.protocol, Instant::now());
        match command.verb {
            Verb::Auth => self.auth(shared, arguments, replies),
            Verb::Hello => self.hello(shared, arguments, replies),
            Verb::Readonly | Verb::Readwrite => {
                self.reads_locally = command.verb == Verb::Readonly;
                replies.ok();
            }
            Verb::Reset => self.reset(shared, replies),
            Verb::Select => select(arguments, replies),
            Verb::Swapdb => swap(arguments, replies),
            Verb::Info => replies.verbatim(&info::text(shared, arguments.skip(1))),
            Verb::Time => time(replies),
            Verb::Role => own::role(replies),
            Verb::Subscribe | Verb::Psubscribe | Verb::Unsubscribe | Verb::Punsubscribe => {
                self.subscribe(shared, command.verb, arguments.skip(1), replies);
            }
            Verb::PubsubChannels => shared.subscriptions().reply_channels(rest, replies),
            Verb::PubsubNumpat => shared.subscriptions().reply_patterns(replies),
            Verb::PubsubNumsub => shared.subscriptions().reply_counts(rest, replies),
            Verb::OwnMembers => own::members(shared, replies),
            Verb::OwnMode => own::mode(shared, replies),
            Verb::Command => describe::reply_all(replies),
            Verb::CommandCount => describe::reply_count(replies),
            Verb::CommandDocs => describe::reply_docs(rest, replies),
            Verb::CommandGetkeys => describe::reply_keys(rest, replies),
            Verb::CommandInfo => describe::reply_infos(rest, replies),
            Verb::CommandList => describe::reply_list(rest, replies),
            Verb::ClientGetname => match self.card.name() {
                name if name.is_empty() => replies.null(),
                name => replies.bulk(name),
            },
            Verb::ClientId => replies.integer(i64::try_from(self.card.id()).unwrap_or(i64::MAX)),
            Verb::ClientInfo => shared.clients().reply_one(&self.card, replies),
            Verb::ClientKill => {
                if shared.clients().kill(rest, &self.card, replies) {
                    return Next::Close;
                }
            }
            Verb::ClientList => shared.clients().reply_list(rest, replies),
            Verb::ClientReply => self.client_reply(rest, replies),
            Verb::ClientSetinfo => self.client_setinfo(rest, replies),
            Verb::ClientSetname => {
                if self.rename(arguments.at(2), replies) {
                    replies.ok();
                }
            }
            Verb::ClientToggle => match arguments.at(2).to_ascii_lowercase().as_slice() {
                b"on" | b"off" => replies.ok(),
                _ => replies.error("ERR syntax error"),
            },
            _ => tools::answer(shared, command, rest, replies),
        }
        Next::Go
    }

    #[inline]
    pub(super) fn wrote(&mut self, write: Option<(Stamp, Dot)>) {
        self.last_write = write.or(self.last_write);
    }

    /// `WAIT numreplicas timeout`.
    fn wait(&self, arguments: Arguments<'_>, replies: &mut Replies) -> Next {
        let Some(peers) = integer(arguments.at(1)) else {
            replies.error("ERR value is not an integer or out of range");
            return Next::Go;
        };
        let Some(timeout) = own::timeout(arguments.at(2), replies) else { return Next::Go };
        let dot = self.last_write.map(|(_, dot)| dot);
        let until = Until::Peers(dot, usize::try_from(peers).unwrap_or(0));
        Next::Wait(Wait { until, timeout })
    }

    /// `AUTH [username] password`.
    fn auth(&mut self, shared: &Shared, arguments: Arguments<'_>, replies: &mut Replies) {
        let protected = shared.settings().password.is_some();
        let (user, password) = match arguments.len() {
            2 if !protected => return replies.error(NO_PASSWORD),
            2 => (&b"default"[..], arguments.at(1)),
            3 => (arguments.at(1), arguments.at(2)),
            _ => return replies.error("ERR syntax error"),
        };
        if self.authenticate(shared, user, password, replies) {
            replies.ok();
        }
    }

    /// Whether the client is who it says; an error is answered.
    fn authenticate(
        &mut self,
        shared: &Shared,
        user: &[u8],
        password: &[u8],
        replies: &mut Replies,
    ) -> bool {
        // Both are looked at in any case, so that the time taken tells nothing about either.
        let known = user == b"default";
        let right = shared.settings().password.as_ref().is_none_or(|it| it.matches(password));
        if known && right {
            self.authenticated = true;
            return true;
        }
        shared.count_authentication_failure();
        log::debug!("client {}: wrong user or password", self.card.id());
        replies.error(WRONGPASS);
        false
    }

    /// `HELLO [protover [AUTH username password] [SETNAME name]]`.
    fn hello(&mut self, shared: &Shared, arguments: Arguments<'_>, replies: &mut Replies) {
        let protocol = match arguments.get(1).map(integer) {
            None => self.protocol,
            Some(Some(2)) => Protocol::Resp2,
            Some(Some(3)) => Protocol::Resp3,
            Some(Some(_)) => return replies.error("NOPROTO unsupported protocol version"),
            Some(None) => {
                return replies.error("ERR Protocol version is not an integer or out of range");
            }
        };
        let mut login = None;
        let mut name = None;
        let mut options = arguments.skip(2);
        while let Some(option) = options.get(0) {
            let taken = match (option.to_ascii_uppercase().as_slice(), options.len()) {
                (b"AUTH", 3..) => {
                    login = Some((options.at(1), options.at(2)));
                    3
                }
                (b"SETNAME", 2..) => {
                    name = Some(options.at(1));
                    2
                }
                _ => {
                    let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                    text.extend_from_slice(&option[..option.len().min(128)]);
                    text.push(b'\'');
                    return replies.error(text);
                }
            };
            options = options.skip(taken);
        }
        if name.is_some_and(|name| valid_name(name).is_none()) {
            return reply_bad_name("Client names", replies);
        }
        if let Some((user, password)) = login
            && !self.authenticate(shared, user, password, replies)
        {
            return;
        }
        if !self.authenticated {
            return replies.error(NOAUTH_HELLO);
        }
        if let Some(name) = name.and_then(valid_name) {
            self.card.rename(name);
        }
        self.protocol = protocol;
        replies.speak(protocol);
        self.reply_hello(replies);
    }

    fn reply_hello(&self, replies: &mut Replies) {
        replies.map(7);
        replies.bulk("server");
        replies.bulk("quorumor");
        replies.bulk("version");
        replies.bulk(info::REDIS_VERSION);
        replies.bulk("proto");
        replies.integer(match self.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        });
        replies.bulk("id");
        replies.integer(i64::try_from(self.card.id()).unwrap_or(i64::MAX));
        replies.bulk("mode");
        replies.bulk("standalone");
        replies.bulk("role");
        replies.bulk("master");
        replies.bulk("modules");
        replies.array(0);
    }

    /// `RESET`.
    fn reset(&mut self, shared: &Shared, replies: &mut Replies) {
        self.card.rename("");
        self.reads_locally = false;
        self.authenticated = shared.settings().password.is_none();
        self.protocol = Protocol::Resp2;
        self.replying = Replying::On;
        self.transaction = Transaction::default();
        self.end(shared);
        replies.speak(Protocol::Resp2);
        replies.simple("RESET");
    }

    /// `PING [message]`; a subscriber of RESP2 gets its answer in the shape of a message.
    fn ping(&self, arguments: Arguments<'_>, replies: &mut Replies) {
        match arguments.len() {
            3.. => replies.error("ERR wrong number of arguments for 'ping' command"),
            _ if self.subscribed.count() > 0 && self.protocol == Protocol::Resp2 => {
                replies.array(2);
                replies.bulk("pong");
                replies.bulk(arguments.get(1).unwrap_or_default());
            }
            2 => replies.bulk(arguments.at(1)),
            _ => replies.simple("PONG"),
        }
    }

    /// `SUBSCRIBE` and its relatives.
    fn subscribe(
        &mut self,
        shared: &Shared,
        verb: Verb,
        names: Arguments<'_>,
        replies: &mut Replies,
    ) {
        let topic = match verb {
            Verb::Psubscribe | Verb::Punsubscribe => Topic::Pattern,
            _ => Topic::Channel,
        };
        let who = (topic, self.key, &*self.card);
        match verb {
            Verb::Subscribe | Verb::Psubscribe => {
                shared.subscriptions().subscribe(who, &mut self.subscribed, names, replies);
            }
            _ => shared.subscriptions().unsubscribe(who, &mut self.subscribed, names, replies),
        }
    }

    /// `CLIENT REPLY ON|OFF|SKIP`.
    fn client_reply(&mut self, rest: Arguments<'_>, replies: &mut Replies) {
        match rest.at(0).to_ascii_lowercase().as_slice() {
            b"on" => {
                self.replying = Replying::On;
                replies.ok();
            }
            b"off" => self.replying = Replying::Off,
            b"skip" if self.replying != Replying::Off => self.replying = Replying::SkipNext,
            b"skip" => {}
            _ => replies.error("ERR syntax error"),
        }
    }

    /// `CLIENT SETINFO LIB-NAME|LIB-VER value`.
    fn client_setinfo(&mut self, rest: Arguments<'_>, replies: &mut Replies) {
        let attribute = rest.at(0).to_ascii_lowercase();
        let value = valid_name(rest.at(1));
        match (attribute.as_slice(), value) {
            (b"lib-name", Some(name)) => self.card.use_library(name),
            (b"lib-ver", Some(version)) => self.card.use_library_version(version),
            (b"lib-name", None) => return reply_bad_name("lib-name", replies),
            (b"lib-ver", None) => return reply_bad_name("lib-ver", replies),
            _ => {
                let mut text = b"ERR Unrecognized option '".to_vec();
                text.extend_from_slice(&attribute[..attribute.len().min(128)]);
                text.push(b'\'');
                return replies.error(text);
            }
        }
        replies.ok();
    }

    fn rename(&mut self, name: &[u8], replies: &mut Replies) -> bool {
        match valid_name(name) {
            Some(name) => self.card.rename(name),
            None => reply_bad_name("Client names", replies),
        }
        valid_name(name).is_some()
    }
}

/// What follows a command for which the client waits, unless it was refused.
fn pause(wait: Option<Wait>) -> Next {
    wait.map_or(Next::Go, Next::Wait)
}

fn reply_bad_name(what: &str, replies: &mut Replies) {
    replies.error(format!("ERR {what} cannot contain spaces, newlines or special characters."));
}

/// `PUBLISH channel message`: answers how many get it from this peer.
fn publish(
    shared: &Shared,
    batch: &mut Batch<'_>,
    arguments: Arguments<'_>,
    replies: &mut Replies,
) {
    if let Some(published) = pubsub::published(arguments, replies) {
        replies.count(shared.subscriptions().receivers(&published.channel).len());
        batch.published.push(published);
    }
}

/// `SELECT index`: there is one database.
fn select(arguments: Arguments<'_>, replies: &mut Replies) {
    match integer(arguments.at(1)) {
        Some(0) => replies.ok(),
        Some(_) => replies.error("ERR DB index is out of range"),
        None => replies.error("ERR value is not an integer or out of range"),
    }
}

/// `SWAPDB index index`: the one database can be swapped with itself.
fn swap(arguments: Arguments<'_>, replies: &mut Replies) {
    match (integer(arguments.at(1)), integer(arguments.at(2))) {
        (None, _) => replies.error("ERR invalid first DB index"),
        (_, None) => replies.error("ERR invalid second DB index"),
        (Some(0), Some(0)) => replies.ok(),
        _ => replies.error("ERR DB index is out of range"),
    }
}

/// `TIME`.
fn time(replies: &mut Replies) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    replies.array(2);
    replies.bulk_integer(now.as_secs());
    replies.bulk_integer(u64::from(now.subsec_micros()));
}
