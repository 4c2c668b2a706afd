//! Who is connected: the register behind `CLIENT LIST`, `CLIENT KILL` and a clean end.
//!
//! Each connection has a [`Card`], shared with the register. It is updated once per batch, not per
//! command. To close a connection from outside, its card is told to; that shuts its socket down, which
//! shows at the door's poll like anything else that happens to a socket.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use event_listener::{Event as Signal, EventListener};
use mio::net::TcpStream;
use parking_lot::Mutex;

use super::parse::{Arguments, integer};
use super::reply::{Protocol, Replies};

/// The longest name or library name that a client may give itself: more than any library sends, and
/// ten thousand of them are still only megabytes. Redis has no limit.
pub const NAME_BYTES_MAX: usize = 256;

/// One connected client, as others see it.
#[derive(Debug)]
pub struct Card {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    connected: Instant,
    stream: TcpStream,
    closing: AtomicBool,
    /// Whether it waits for peers, as with WAIT.
    blocked: AtomicBool,
    /// Ends its waiting, and whether it is told so.
    released: Signal,
    released_by_error: AtomicBool,
    /// To how many channels and patterns it has subscribed.
    subscriptions: [AtomicUsize; 2],
    told: Mutex<Told>,
}

/// What changes about a client.
#[derive(Debug, Clone)]
struct Told {
    name: String,
    library: String,
    library_version: String,
    protocol: Protocol,
    last_command: &'static str,
    last_active: Instant,
}

impl Card {
    /// The number of this connection; never used twice by one node.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The socket.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The name that the client gave itself; empty if none.
    pub fn name(&self) -> String {
        self.told.lock().name.clone()
    }

    /// Notes the name that the client gives itself.
    pub fn rename(&self, name: &str) {
        name.clone_into(&mut self.told.lock().name);
    }

    /// Notes the client's library.
    pub fn use_library(&self, library: &str) {
        library.clone_into(&mut self.told.lock().library);
    }

    /// Notes the version of the client's library.
    pub fn use_library_version(&self, version: &str) {
        version.clone_into(&mut self.told.lock().library_version);
    }

    /// Notes what the client did last, and when.
    pub fn active(&self, command: &'static str, protocol: Protocol, now: Instant) {
        let mut told = self.told.lock();
        told.last_command = command;
        told.protocol = protocol;
        told.last_active = now;
    }

    /// Notes to how many channels and patterns the client has subscribed.
    pub(super) fn subscribes(&self, channels: usize, patterns: usize) {
        let [of_channels, of_patterns] = &self.subscriptions;
        of_channels.store(channels, Ordering::Relaxed);
        of_patterns.store(patterns, Ordering::Relaxed);
    }

    /// Notes whether the client waits for peers.
    pub(super) fn waits(&self, waits: bool) {
        self.blocked.store(waits, Ordering::Relaxed);
    }

    /// Hears when its waiting is to end.
    pub(super) fn released(&self) -> EventListener {
        self.released.listen()
    }

    /// Whether the client is told that somebody ended its waiting.
    pub(super) fn is_released_by_error(&self) -> bool {
        self.released_by_error.load(Ordering::Acquire)
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    fn subscriptions(&self) -> (usize, usize) {
        let [channels, patterns] = &self.subscriptions;
        (channels.load(Ordering::Relaxed), patterns.load(Ordering::Relaxed))
    }

    /// Whether it is of that type.
    fn is(&self, wanted: Type) -> bool {
        let subscribes = self.subscriptions() != (0, 0);
        match wanted {
            Type::Normal => !subscribes,
            Type::Subscriber => subscribes,
            Type::Replica => false,
        }
    }

    /// Closes the connection from outside.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        // An error says that the client has gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether the connection was told to close.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// One line of `CLIENT LIST`.
    fn describe(&self, now: Instant, text: &mut String) {
        let told = self.told.lock().clone();
        let age = now.saturating_duration_since(self.connected).as_secs();
        let idle = now.saturating_duration_since(told.last_active).as_secs();
        let (channels, patterns) = self.subscriptions();
        let version = match told.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        let flag = match (channels, patterns) {
            (0, 0) if self.is_blocked() => 'b',
            (0, 0) => 'N',
            _ => 'P',
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "id={} addr={} laddr={} name={} age={age} idle={idle} flags={} db=0 sub={channels} psub={patterns} ssub=0 \
             multi=-1 cmd={} user=default redir=-1 resp={version} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            told.name,
            flag,
            told.last_command,
            told.library,
            told.library_version,
        );
    }
}

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Clients {
    cards: Mutex<BTreeMap<u64, Arc<Card>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Notes a new connection, unless there are `clients_max` already: then it is given back.
    pub(super) fn join(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        clients_max: usize,
    ) -> Result<Arc<Card>, TcpStream> {
        let local = stream.local_addr().unwrap_or(peer);
        let now = Instant::now();
        let mut cards = self.cards.lock();
        if cards.len() >= clients_max {
            return Err(stream);
        }
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let told = Told {
            name: String::new(),
            library: String::new(),
            library_version: String::new(),
            protocol: Protocol::Resp2,
            last_command: "NULL",
            last_active: now,
        };
        let card = Arc::new(Card {
            id,
            peer,
            local,
            connected: now,
            stream,
            closing: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            released: Signal::new(),
            released_by_error: AtomicBool::new(false),
            subscriptions: Default::default(),
            told: Mutex::new(told),
        });
        cards.insert(id, Arc::clone(&card));
        Ok(card)
    }

    /// Forgets a connection that has ended.
    pub fn leave(&self, card: &Card) {
        self.cards.lock().remove(&card.id);
    }

    /// How many are connected.
    pub fn count(&self) -> usize {
        self.cards.lock().len()
    }

    /// How many of them wait for peers.
    pub fn blocked(&self) -> usize {
        self.cards.lock().values().filter(|card| card.is_blocked()).count()
    }

    /// Ends the waiting of a client, which is told so with an error or answered as if its time were over;
    /// whether it did wait.
    pub(super) fn unblock(&self, id: u64, by_error: bool) -> bool {
        let Some(card) = self.cards.lock().get(&id).cloned() else { return false };
        let waits = card.is_blocked();
        if waits {
            card.released_by_error.store(by_error, Ordering::Release);
            card.released.notify(usize::MAX);
        }
        waits
    }

    /// Answers `CLIENT INFO`.
    pub fn reply_one(&self, card: &Card, replies: &mut Replies) {
        let mut text = String::new();
        card.describe(Instant::now(), &mut text);
        replies.verbatim(&text);
    }

    /// Answers `CLIENT LIST [TYPE type] [ID id ...]`; `filters` are what follows `LIST`.
    pub fn reply_list(&self, filters: Arguments<'_>, replies: &mut Replies) {
        let word = filters.at(0).to_ascii_lowercase();
        let wanted: Box<dyn Fn(&Card) -> bool> = match (word.as_slice(), filters.len()) {
            (_, 0) => Box::new(|_| true),
            (b"type", 2) => match client_type(filters.at(1)) {
                Some(wanted) => Box::new(move |card| card.is(wanted)),
                None => return reply_unknown_type(filters.at(1), replies),
            },
            (b"id", 2..) => {
                let ids = filters.skip(1).iter().map(integer).collect::<Option<Vec<i64>>>();
                let Some(ids) = ids else { return replies.error("ERR Invalid client ID") };
                Box::new(move |card| i64::try_from(card.id).is_ok_and(|id| ids.contains(&id)))
            }
            _ => return replies.error("ERR syntax error"),
        };
        let now = Instant::now();
        let mut text = String::new();
        let cards = self.cards.lock();
        cards.values().filter(|card| wanted(card)).for_each(|card| card.describe(now, &mut text));
        replies.verbatim(&text);
    }

    /// Answers `CLIENT KILL`; `arguments` are what follows `KILL`. Whether the client named itself:
    /// it is closed after its reply.
    pub fn kill(&self, arguments: Arguments<'_>, own: &Card, replies: &mut Replies) -> bool {
        if arguments.len() == 1 {
            let wanted = Wanted { address: Some(arguments.at(0)), ..Wanted::default() };
            let (killed, oneself) = self.close_wanted(&wanted, own);
            match killed {
                0 => replies.error("ERR No such client"),
                _ => replies.ok(),
            }
            return oneself;
        }
        match Wanted::parse(arguments, replies) {
            Some(wanted) => {
                let (killed, oneself) = self.close_wanted(&wanted, own);
                replies.count(killed);
                oneself
            }
            None => false,
        }
    }

    fn close_wanted(&self, wanted: &Wanted<'_>, own: &Card) -> (usize, bool) {
        let cards = self.cards.lock();
        let mut killed = 0;
        let mut oneself = false;
        for card in cards.values().filter(|card| wanted.names(card, own)) {
            killed += 1;
            if card.id == own.id {
                oneself = true;
            } else {
                card.close();
            }
        }
        (killed, oneself)
    }
}

/// Whom `CLIENT KILL` names.
#[derive(Debug, Default)]
struct Wanted<'a> {
    id: Option<i64>,
    of_type: Option<Type>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    skip_me: bool,
}

impl<'a> Wanted<'a> {
    /// Reads pairs of filter and value; what is wrong with them is answered.
    fn parse(arguments: Arguments<'a>, replies: &mut Replies) -> Option<Self> {
        let mut wanted = Wanted { skip_me: true, ..Wanted::default() };
        if !arguments.len().is_multiple_of(2) {
            replies.error("ERR syntax error");
            return None;
        }
        for index in (0..arguments.len()).step_by(2) {
            let value = arguments.at(index + 1);
            match arguments.at(index).to_ascii_lowercase().as_slice() {
                b"id" => match integer(value).filter(|&id| id > 0) {
                    Some(id) => wanted.id = Some(id),
                    None => {
                        replies.error("ERR client-id should be greater than 0");
                        return None;
                    }
                },
                b"type" => match client_type(value) {
                    Some(of_type) => wanted.of_type = Some(of_type),
                    None => {
                        reply_unknown_type(value, replies);
                        return None;
                    }
                },
                b"addr" => wanted.address = Some(value),
                b"laddr" => wanted.local_address = Some(value),
                b"user" if value == b"default" => {}
                b"user" => {
                    let shown = String::from_utf8_lossy(&value[..value.len().min(64)]);
                    replies.error(format!("ERR No such user '{shown}'"));
                    return None;
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => wanted.skip_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => wanted.skip_me = false,
                _ => {
                    replies.error("ERR syntax error");
                    return None;
                }
            }
        }
        Some(wanted)
    }

    fn names(&self, card: &Card, own: &Card) -> bool {
        let is = |wanted: Option<&[u8]>, address: SocketAddr| {
            wanted.is_none_or(|wanted| wanted == address.to_string().as_bytes())
        };
        self.of_type.is_none_or(|wanted| card.is(wanted))
            && self.id.is_none_or(|id| i64::try_from(card.id) == Ok(id))
            && is(self.address, card.peer)
            && is(self.local_address, card.local)
            && !(self.skip_me && card.id == own.id)
    }
}

/// What kinds of clients Redis tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Normal,
    Subscriber,
    /// Or a master: none comes to this door.
    Replica,
}

/// The type of clients with this name, if there is one.
fn client_type(name: &[u8]) -> Option<Type> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Some(Type::Normal),
        b"pubsub" => Some(Type::Subscriber),
        b"master" | b"replica" | b"slave" => Some(Type::Replica),
        _ => None,
    }
}

fn reply_unknown_type(name: &[u8], replies: &mut Replies) {
    let shown = String::from_utf8_lossy(&name[..name.len().min(64)]);
    replies.error(format!("ERR Unknown client type '{shown}'"));
}

/// A name that a client may have: printable, without blanks, so that it fits on a line of
/// `CLIENT LIST`.
pub fn valid_name(name: &[u8]) -> Option<&str> {
    let fits = name.len() <= NAME_BYTES_MAX && name.iter().all(u8::is_ascii_graphic);
    fits.then(|| std::str::from_utf8(name).ok()).flatten()
}
