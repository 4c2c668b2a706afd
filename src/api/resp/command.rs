//! Which commands there are, and what to say about those that are not.
//!
//! [`find`] turns the first one or two arguments into a served [`Command`] or into a [`Refusal`] that
//! knows its text. It runs once per request, so the name is looked up through a small hash table made
//! at compile time, upper or lower case, without an allocation. The lists themselves are in `table`.
//!
//! The same lists answer `COMMAND` and its relatives (in `describe`), so that what clients read about a
//! command is what its execution checks.
//!
//! Texts of refusals are Redis 7's (`server.c`: `commandCheckExistence`, `commandCheckArity`), except
//! for two that Redis has no case for: a command of Redis that is not supported yet, and a command
//! that needs an order between peers (`NEEDSSTRONG`), which says why and what to do.

use super::ask::Ask;
use super::parse::Arguments;
use super::reply::Replies;
use super::table::{NOT_YET, NOT_YET_WITHIN, SERVED};
use crate::protocol::operation::Why;

/// How much of a client's words an error repeats, as in Redis.
const SHOWN_BYTES_MAX: usize = 128;

/// What a served command does, for the session to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the command of that name; the table says what it does")]
pub enum Verb {
    Acl,
    AclCat,
    AclHelp,
    AclList,
    AclUsers,
    AclWhoami,
    Auth,
    Client,
    ClientGetname,
    ClientGetredir,
    ClientHelp,
    ClientId,
    ClientInfo,
    ClientKill,
    ClientList,
    ClientPause,
    ClientReply,
    ClientSetinfo,
    ClientSetname,
    ClientToggle,
    ClientTracking,
    ClientTrackinginfo,
    ClientUnblock,
    ClientUnpause,
    Command,
    CommandCount,
    CommandDocs,
    CommandGetkeys,
    CommandHelp,
    CommandInfo,
    CommandList,
    Config,
    ConfigGet,
    ConfigHelp,
    ConfigResetstat,
    ConfigRewrite,
    ConfigSet,
    Discard,
    Echo,
    Exec,
    Get,
    Hello,
    Info,
    Keys,
    Memory,
    MemoryDoctor,
    MemoryHelp,
    MemoryMallocStats,
    MemoryPurge,
    MemoryStats,
    Mget,
    Latency,
    LatencyDoctor,
    LatencyEmpty,
    LatencyGraph,
    LatencyHelp,
    LatencyHistogram,
    LatencyReset,
    Module,
    ModuleHelp,
    ModuleList,
    Multi,
    Object,
    ObjectHelp,
    OwnDigest,
    OwnMembers,
    OwnMode,
    OwnStamp,
    OwnTrace,
    OwnWaitfor,
    OwnWhy,
    /// An operation on keys, which goes its way as a value.
    Operate,
    Ping,
    Psubscribe,
    Publish,
    Pubsub,
    PubsubChannels,
    PubsubHelp,
    PubsubNumpat,
    PubsubNumsub,
    Punsubscribe,
    Quit,
    Readonly,
    Readwrite,
    Reset,
    Role,
    Scan,
    Select,
    Set,
    Slowlog,
    SlowlogGet,
    SlowlogHelp,
    SlowlogLen,
    SlowlogReset,
    Subscribe,
    Swapdb,
    Time,
    Unsubscribe,
    Unwatch,
    Wait,
    Watch,
}

impl Verb {
    /// Whether a subscriber of RESP2 may call it.
    pub(super) fn is_for_subscribers(self) -> bool {
        matches!(
            self,
            Self::Subscribe
                | Self::Psubscribe
                | Self::Unsubscribe
                | Self::Punsubscribe
                | Self::Ping
                | Self::Quit
                | Self::Reset
        )
    }

    /// Whether it is executed at once between MULTI and EXEC.
    pub(super) fn ends_queueing(self) -> bool {
        matches!(
            self,
            Self::Multi | Self::Exec | Self::Discard | Self::Watch | Self::Quit | Self::Reset
        )
    }
}

/// The chapter of the Redis manual that a command belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// About the connection.
    Connection,
    /// About keys of any type.
    Generic,
    /// About hashes.
    Hash,
    /// About lists.
    List,
    /// What Redis does not have.
    Own,
    /// About messages between clients.
    Pubsub,
    /// About sets.
    Set,
    /// About sorted sets.
    Sorted,
    /// About several commands as one.
    Together,
    /// About the node.
    Server,
    /// About string values; Redis calls it `string`.
    Text,
}

/// Properties of a command, as clients know them from `COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// No property.
    pub const NONE: Self = Self(0);
    /// May change keys.
    pub const WRITE: Self = Self(1);
    /// Never changes keys.
    pub const READONLY: Self = Self(1 << 1);
    /// May need more memory.
    pub const DENYOOM: Self = Self(1 << 2);
    /// Is for operators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Not from scripts.
    pub const NOSCRIPT: Self = Self(1 << 4);
    /// Also while the node loads its data.
    pub const LOADING: Self = Self(1 << 5);
    /// Also while the node's data may be old.
    pub const STALE: Self = Self(1 << 6);
    /// Takes constant or logarithmic time per key.
    pub const FAST: Self = Self(1 << 7);
    /// Also before authentication.
    pub const NO_AUTH: Self = Self(1 << 8);
    /// Also while the node is busy.
    pub const ALLOW_BUSY: Self = Self(1 << 9);
    /// Is about messages between clients.
    pub const PUBSUB: Self = Self(1 << 10);
    /// Says itself how many keys follow.
    pub const MOVABLE_KEYS: Self = Self(1 << 11);

    /// The names that `COMMAND` uses, lowest bit first.
    const NAMES: [&'static str; 12] = [
        "write",
        "readonly",
        "denyoom",
        "admin",
        "noscript",
        "loading",
        "stale",
        "fast",
        "no_auth",
        "allow_busy",
        "pubsub",
        "movablekeys",
    ];

    /// These properties and `other`.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        let set = move |bit: &usize| self.0 & (1 << bit) != 0;
        (0..Self::NAMES.len()).filter(set).map(|bit| Self::NAMES[bit])
    }
}

/// One command that clients can call, or one subcommand (`client|id`).
#[derive(Debug)]
pub struct Command {
    /// What it does.
    pub verb: Verb,
    /// Its name in lower case; a subcommand's with its container's, divided by a bar.
    pub name: &'static str,
    /// How many arguments it takes, its name included; negative: at least that many.
    pub arity: i16,
    /// Its properties.
    pub flags: Flags,
    /// Its chapter.
    pub group: Group,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What it does, for people.
    pub summary: &'static str,
    /// What follows a subcommand's name, for people.
    pub usage: &'static str,
    /// First key, last key (negative: from the end) and step; zeros if there are none.
    pub keys: (i16, i16, i16),
    /// Its subcommands, if it is a container.
    pub subcommands: &'static [Command],
    /// What makes an operation on keys of it, if it is one.
    pub(super) ask: Option<Ask>,
}

impl Command {
    pub(super) const fn one_key(mut self) -> Self {
        self.keys = (1, 1, 1);
        self
    }

    pub(super) const fn second_key(mut self) -> Self {
        self.keys = (2, 2, 1);
        self
    }

    pub(super) const fn all_keys(mut self, step: i16) -> Self {
        self.keys = (1, -1, step);
        self
    }

    pub(super) const fn some_keys(mut self, first: i16, last: i16) -> Self {
        self.keys = (first, last, 1);
        self
    }

    pub(super) const fn no_key(mut self) -> Self {
        self.keys = (0, 0, 0);
        self
    }

    /// The first argument says how many keys follow it.
    pub(super) const fn counted_keys(mut self) -> Self {
        self.keys = (0, 0, 0);
        self.flags = self.flags.and(Flags::MOVABLE_KEYS);
        self
    }

    pub(super) const fn with(mut self, subcommands: &'static [Command]) -> Self {
        self.subcommands = subcommands;
        self
    }

    pub(super) const fn taking(mut self, usage: &'static str) -> Self {
        self.usage = usage;
        self
    }

    /// Whether `count` arguments, the name included, are a number it takes.
    #[inline]
    fn takes(&self, count: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= arity } else { count == arity }
    }

    /// Its name without the container's.
    pub(super) fn own_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, own)| own)
    }

    /// The name of the container, or its own if it is in none.
    pub(super) fn container(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(container, _)| container)
    }

    fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().find(|sub| sub.own_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// The access-control categories that Redis would put it in.
    pub(super) fn categories(&self) -> impl Iterator<Item = &'static str> + Clone {
        // As in Redis, where they do not follow from the chapter of the manual.
        let is_about_all = ["flushall", "flushdb", "swapdb"].contains(&self.name);
        let is_dangerous = is_about_all || ["info", "keys", "role"].contains(&self.name);
        let group = match self.group {
            _ if !self.subcommands.is_empty() && self.container() != "command" => None,
            _ if is_about_all || self.name == "dbsize" => Some("@keyspace"),
            _ if self.name == "wait" || self.container() == "command" => Some("@connection"),
            Group::Connection => Some("@connection"),
            Group::Generic => Some("@keyspace"),
            Group::Text => Some("@string"),
            Group::Hash => Some("@hash"),
            Group::List => Some("@list"),
            Group::Pubsub => self.flags.has(Flags::PUBSUB).then_some("@pubsub"),
            Group::Set => Some("@set"),
            Group::Sorted => Some("@sortedset"),
            Group::Together => Some("@transaction"),
            Group::Own | Group::Server => None,
        };
        let among = |flag, name| self.flags.has(flag).then_some(name);
        let speed = if self.flags.has(Flags::FAST) { "@fast" } else { "@slow" };
        [
            group,
            among(Flags::READONLY, "@read"),
            among(Flags::WRITE, "@write"),
            (self.name == "role" || self.flags.has(Flags::ADMIN)).then_some("@admin"),
            Some(speed),
            (is_dangerous || self.flags.has(Flags::ADMIN)).then_some("@dangerous"),
        ]
        .into_iter()
        .flatten()
    }
}

/// Says why a request is not executed.
#[derive(Debug, Clone, Copy)]
pub enum Refusal {
    /// No such command, here or in Redis 7.
    Unknown,
    /// A container that has no such subcommand.
    UnknownSubcommand(&'static Command),
    /// A wrong number of arguments.
    Arity(&'static Command),
    /// A command of Redis 7 that is not supported yet; a subcommand's name with its container's, divided by
    /// a bar.
    NotYet(&'static str),
    /// A line of HTTP: somebody tricks a browser into writing here. Redis hangs up as well.
    OtherProtocol,
}

impl Refusal {
    /// Whether Redis says so even to a client that has not authenticated.
    pub fn precedes_authentication(self) -> bool {
        !matches!(self, Self::NotYet(_))
    }

    /// Writes the error, which repeats part of the request, as Redis does.
    pub fn write(self, arguments: Arguments<'_>, replies: &mut Replies) {
        let mut text = Vec::new();
        match self {
            Self::Unknown => {
                text.extend_from_slice(b"ERR unknown command '");
                text.extend_from_slice(head(arguments.at(0), SHOWN_BYTES_MAX));
                text.extend_from_slice(b"', with args beginning with: ");
                let start = text.len();
                for argument in arguments.skip(1).iter() {
                    let shown = text.len() - start;
                    if shown >= SHOWN_BYTES_MAX {
                        break;
                    }
                    text.push(b'\'');
                    text.extend_from_slice(head(argument, SHOWN_BYTES_MAX - shown));
                    text.extend_from_slice(b"' ");
                }
            }
            Self::UnknownSubcommand(container) => {
                text.extend_from_slice(b"ERR unknown subcommand '");
                text.extend_from_slice(head(arguments.at(1), SHOWN_BYTES_MAX));
                text.extend_from_slice(b"'. Try ");
                text.extend_from_slice(container.name.to_ascii_uppercase().as_bytes());
                text.extend_from_slice(b" HELP.");
            }
            Self::Arity(command) => {
                text.extend_from_slice(b"ERR wrong number of arguments for '");
                text.extend_from_slice(command.name.as_bytes());
                text.extend_from_slice(b"' command");
            }
            // Clients that can speak to a cluster of Redis ask for one so, and understand this answer.
            Self::NotYet("cluster" | "asking") => {
                text.extend_from_slice(b"ERR This instance has cluster support disabled");
            }
            // Begins as in a Redis that was not told to allow it, which test suites know.
            Self::NotYet("debug") => text.extend_from_slice(
                b"ERR DEBUG command not allowed: it stops or changes a server for all its clients. Time is \
                  not stopped here, nor a crash asked for, but by ending the process; OBJECT ENCODING and \
                  MEMORY USAGE tell of a key, INFO and 'quorumor status' of this peer",
            ),
            Self::NotYet(name) => {
                let name = name.to_ascii_uppercase().replace('|', " ");
                let rest = "is not supported yet by Quorumor; COMMAND LIST names what is";
                text.extend_from_slice(format!("ERR '{name}' {rest}").as_bytes());
            }
            Self::OtherProtocol => text.extend_from_slice(b"ERR this is not an HTTP server"),
        }
        replies.error(text);
    }
}

/// Writes the error that says that `what` needs strong mode, why, and what to do.
pub fn needs_strong(replies: &mut Replies, what: &str, why: Why) {
    replies.error(format!(
        "NEEDSSTRONG '{what}' {}. It needs strong mode, to which `quorumor mode strong` switches the \
         cluster",
        why.text()
    ));
}

/// The first `count` bytes, or all there are, up to a zero byte as C prints strings.
fn head(bytes: &[u8], count: usize) -> &[u8] {
    let bytes = bytes.get(..count).unwrap_or(bytes);
    memchr::memchr(0, bytes).map_or(bytes, |end| &bytes[..end])
}

/// The command that a request calls, its number of arguments checked.
///
/// # Errors
/// A [`Refusal`] when it cannot be executed, whatever the state of the connection.
#[inline]
pub fn find(arguments: Arguments<'_>) -> Result<&'static Command, Refusal> {
    let command = match lookup(arguments.at(0)) {
        Some(Entry::Served(command)) => command,
        Some(Entry::Refused(refusal)) => return Err(refusal),
        None => return Err(unknown(arguments.at(0))),
    };
    let command = if command.subcommands.is_empty() || arguments.len() == 1 {
        command
    } else {
        command
            .subcommand(arguments.at(1))
            .ok_or_else(|| no_subcommand(command, arguments.at(1)))?
    };
    if command.takes(arguments.len()) { Ok(command) } else { Err(Refusal::Arity(command)) }
}

/// What to make of a name that is in no list.
#[cold]
fn unknown(name: &[u8]) -> Refusal {
    let http = [&b"post"[..], b"host:"].iter().any(|word| word.eq_ignore_ascii_case(name));
    if http { Refusal::OtherProtocol } else { Refusal::Unknown }
}

/// What to make of a name that is not among those of a container.
#[cold]
fn no_subcommand(container: &'static Command, name: &[u8]) -> Refusal {
    let is_it = |whole: &&&str| {
        whole.split_once('|').is_some_and(|(of, own)| {
            of == container.name && own.as_bytes().eq_ignore_ascii_case(name)
        })
    };
    match NOT_YET_WITHIN.iter().find(is_it) {
        Some(name) => Refusal::NotYet(name),
        None => Refusal::UnknownSubcommand(container),
    }
}

/// What is known of a name.
enum Entry {
    Served(&'static Command),
    Refused(Refusal),
}

/// Slots of the hash table; at about a quarter full nearly every name is found at its first slot.
const SLOTS: usize = 1024;

/// For each slot 0, or one plus a position in the three lists one after the other.
static INDEX: [u16; SLOTS] = index();

const fn index() -> [u16; SLOTS] {
    let mut slots = [0; SLOTS];
    let mut position = 0;
    while position < SERVED.len() + NOT_YET.len() {
        let mut slot = hash(name_at(position).as_bytes());
        while slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        // Fits: the lists together are shorter than the table, which the loop above relies on too.
        slots[slot] = position as u16 + 1;
        position += 1;
    }
    slots
}

const fn name_at(position: usize) -> &'static str {
    if position < SERVED.len() { SERVED[position].name } else { NOT_YET[position - SERVED.len()] }
}

/// FNV-1a over the letters in lower case; no name is longer than what it reads.
const fn hash(name: &[u8]) -> usize {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < name.len() && at < 24 {
        hash = (hash ^ (name[at] | 0x20) as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    (hash >> 32) as usize % SLOTS
}

#[inline]
fn lookup(name: &[u8]) -> Option<Entry> {
    let mut slot = hash(name);
    loop {
        let position = usize::from(INDEX[slot]).checked_sub(1)?;
        if name_at(position).as_bytes().eq_ignore_ascii_case(name) {
            return Some(entry(position));
        }
        slot = (slot + 1) % SLOTS;
    }
}

fn entry(position: usize) -> Entry {
    if let Some(command) = SERVED.get(position) {
        return Entry::Served(command);
    }
    Entry::Refused(Refusal::NotYet(name_at(position)))
}

/// The served command with this name (`get`, `client|id`, `CONFIG`), if there is one.
pub(super) fn served(name: &[u8]) -> Option<&'static Command> {
    let (container, own) = match memchr::memchr(b'|', name) {
        Some(bar) => (&name[..bar], Some(&name[bar + 1..])),
        None => (name, None),
    };
    match (lookup(container)?, own) {
        (Entry::Served(command), None) => Some(command),
        (Entry::Served(command), Some(own)) => command.subcommand(own),
        (Entry::Refused(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resp::buffers::Buffers;
    use crate::api::resp::parse::{BULK_BYTES_MAX, Requests, Trust};
    use crate::api::resp::reply::Protocol;

    /// What a typed line is refused with, if it is.
    fn refusal(line: &str) -> Option<String> {
        let mut requests = Requests::new(BULK_BYTES_MAX);
        let pool = Buffers::new();
        let line = format!("{line}\n");
        requests.space(&pool).unwrap()[..line.len()].copy_from_slice(line.as_bytes());
        requests.filled(line.len());
        let arguments = requests.next(Trust::Authenticated).unwrap().unwrap();
        let refusal = find(arguments).err()?;
        let mut replies = Replies::new(Vec::new(), Protocol::Resp2);
        refusal.write(arguments, &mut replies);
        Some(String::from_utf8(replies.into_buffer()).unwrap())
    }

    /// Law: every name is found, in either case, where it was put; and no name stands twice.
    #[test]
    fn every_name_is_found() {
        let count = SERVED.len() + NOT_YET.len();
        let mut names: Vec<&str> = (0..count).map(name_at).collect();
        for name in &names {
            for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                let found = match lookup(name.as_bytes()) {
                    Some(Entry::Served(command)) => command.name,
                    Some(Entry::Refused(Refusal::NotYet(name))) => name,
                    _ => "",
                };
                assert_eq!(found, name.to_ascii_lowercase());
            }
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(lookup(b"").is_none());
        assert!(lookup(&[b'x'; 1000]).is_none());
        assert!(lookup(b"\xff\xfe").is_none());
    }

    /// Story: refusals read as in Redis 7 where Redis has the case.
    #[test]
    fn refusals_read_as_in_redis() {
        for (line, text) in [
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("GET a b", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("set a", "-ERR wrong number of arguments for 'set' command\r\n"),
            ("client", "-ERR wrong number of arguments for 'client' command\r\n"),
            ("client setname", "-ERR wrong number of arguments for 'client|setname' command\r\n"),
            ("client foo", "-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"),
            ("FOO", "-ERR unknown command 'FOO', with args beginning with: \r\n"),
            ("FOO a b", "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' \r\n"),
            ("\"\" a", "-ERR unknown command '', with args beginning with: 'a' \r\n"),
            ("\"a\\r\\nb\"", "-ERR unknown command 'a  b', with args beginning with: \r\n"),
        ] {
            assert_eq!(refusal(line).as_deref(), Some(text), "{line}");
        }
        assert_eq!(refusal("get a"), None);
        assert_eq!(refusal("Client Id"), None);
        assert_eq!(refusal("PING a b"), None, "its handler knows the upper bound");
    }

    /// Story: an error repeats at most 128 bytes of a client's words, as in Redis.
    #[test]
    fn errors_repeat_little() {
        let (x, y) = ("x".repeat(200), "y".repeat(100));
        let long =
            format!("-ERR unknown command 'foo', with args beginning with: '{}' \r\n", &x[..128]);
        assert_eq!(refusal(&format!("foo {x} b")), Some(long));
        let (x, y) = (&x[..60], &y);
        let two = format!(
            "-ERR unknown command 'foo', with args beginning with: '{x}' '{}' \r\n",
            &y[..65]
        );
        assert_eq!(refusal(&format!("foo {x} {y} z")), Some(two));
    }

    /// Story: a command of Redis that cannot work here says so, and why.
    #[test]
    fn refusals_teach() {
        let xadd = refusal("xadd a b").unwrap();
        assert_eq!(
            xadd,
            "-ERR 'XADD' is not supported yet by Quorumor; COMMAND LIST names what is\r\n"
        );
        assert_eq!(
            refusal("acl Setuser x").unwrap(),
            "-ERR 'ACL SETUSER' is not supported yet by Quorumor; COMMAND LIST names what is\r\n"
        );
        let debug = refusal("DEBUG SLEEP 0").unwrap();
        assert!(debug.starts_with("-ERR DEBUG command not allowed"), "{debug}");
        assert_eq!(
            refusal("cluster nodes").unwrap(),
            "-ERR This instance has cluster support disabled\r\n"
        );
    }
}
