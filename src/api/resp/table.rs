//! The list of commands: what is served, and what Redis has that is not.
//!
//! Names, arities, flags and key positions are those of Redis 7, because clients read them through
//! `COMMAND` and route by them. Every command of Redis 7 stands in exactly one of two lists: served, or
//! not supported yet. So a client is never told that a command it knows does not exist.

use super::ask::{Ask, Asked, Misread, hashes, keys, lists, sets, sorted, text};
use super::command::{Command, Flags, Group, Verb};
use crate::protocol::operation::Operation;

use Group::{Connection, Generic, Hash, List, Own, Pubsub, Server, Set, Sorted, Text, Together};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_MEMORY: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const WRITE_MEMORY_FAST: Flags = WRITE_MEMORY.and(Flags::FAST);
const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const EXECUTES: Flags = Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE);
const TOGETHER: Flags = EXECUTES.and(Flags::FAST).and(Flags::ALLOW_BUSY);
const ALWAYS_FAST: Flags = ALWAYS.and(Flags::FAST);
const DOOR: Flags = ALWAYS_FAST.and(Flags::NOSCRIPT).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);
const ABOUT_CLIENT: Flags = ALWAYS.and(Flags::NOSCRIPT);
const ABOUT_TOPICS: Flags = ABOUT_CLIENT.and(Flags::PUBSUB);
/// What Redis lets scripts call, too.
const ADMIN_SCRIPT: Flags = ALWAYS.and(Flags::ADMIN);
const ADMIN: Flags = ALWAYS.and(Flags::NOSCRIPT).and(Flags::ADMIN);

/// Describes a command: what it does, its name, arity (negative: at least), flags, and where it
/// belongs.
const fn row(
    verb: Verb,
    name: &'static str,
    arity: i16,
    flags: Flags,
    group: Group,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command {
        verb,
        name,
        arity,
        flags,
        group,
        since,
        summary,
        usage: "",
        keys: (0, 0, 0),
        subcommands: &[],
        ask: None,
    }
}

/// Describes an operation on keys, of which the first argument is one.
const fn on(
    ask: for<'a> fn(&Asked<'a>) -> Result<Operation<'a>, Misread>,
    name: &'static str,
    arity: i16,
    flags: Flags,
    group: Group,
    since: &'static str,
    summary: &'static str,
) -> Command {
    let mut command = row(Verb::Operate, name, arity, flags, group, since, summary);
    command.ask = Some(Ask(ask));
    command.keys = (1, 1, 1);
    command
}

impl Command {
    /// What else makes an operation of it, beside a way of its own.
    const fn asking(
        mut self,
        ask: for<'a> fn(&Asked<'a>) -> Result<Operation<'a>, Misread>,
    ) -> Self {
        self.ask = Some(Ask(ask));
        self
    }
}

/// Everything that a client can call. One command per line reads better than rustfmt's one argument.
#[rustfmt::skip]
pub(super) static SERVED: &[Command] = &[
    row(Verb::Get, "get", 2, READ_FAST, Text, "1.0.0", "Returns the value of a key.").one_key().asking(text::get),
    row(Verb::Set, "set", -3, WRITE_MEMORY, Text, "1.0.0", "Sets the value of a key.").one_key().asking(text::set),
    row(Verb::Mget, "mget", -2, READ_FAST, Text, "1.0.0", "Returns the values of several keys.").all_keys(1).asking(text::mget),
    on(text::setex, "setex", 4, WRITE_MEMORY, Text, "2.0.0", "Sets a value and its deadline in seconds."),
    on(text::psetex, "psetex", 4, WRITE_MEMORY, Text, "2.6.0", "Sets a value and its deadline in milliseconds."),
    on(text::setnx, "setnx", 3, WRITE_MEMORY_FAST, Text, "1.0.0", "Sets a key that does not exist."),
    on(text::getset, "getset", 3, WRITE_MEMORY_FAST, Text, "1.0.0", "Sets a value and returns the one before."),
    on(text::getdel, "getdel", 2, WRITE_FAST, Text, "6.2.0", "Returns a value and deletes its key."),
    on(text::getex, "getex", -2, WRITE_FAST, Text, "6.2.0", "Returns a value and sets its deadline."),
    on(text::mset, "mset", -3, WRITE_MEMORY, Text, "1.0.1", "Sets several keys in one write.").all_keys(2),
    on(text::msetnx, "msetnx", -3, WRITE_MEMORY, Text, "1.0.1", "Sets several keys if none exists.").all_keys(2),
    on(text::append, "append", 3, WRITE_MEMORY_FAST, Text, "2.0.0", "Adds bytes to the end of a value."),
    on(text::strlen, "strlen", 2, READ_FAST, Text, "2.2.0", "Returns the length of a value."),
    on(text::getrange, "getrange", 4, READ, Text, "2.4.0", "Returns part of a value."),
    on(text::getrange, "substr", 4, READ, Text, "1.0.0", "Returns part of a value."),
    on(text::setrange, "setrange", 4, WRITE_MEMORY, Text, "2.2.0", "Overwrites part of a value."),
    on(text::incr, "incr", 2, WRITE_MEMORY_FAST, Text, "1.0.0", "Adds one to a number."),
    on(text::decr, "decr", 2, WRITE_MEMORY_FAST, Text, "1.0.0", "Takes one from a number."),
    on(text::incrby, "incrby", 3, WRITE_MEMORY_FAST, Text, "1.0.0", "Adds to a number."),
    on(text::decrby, "decrby", 3, WRITE_MEMORY_FAST, Text, "1.0.0", "Takes from a number."),
    on(text::incrbyfloat, "incrbyfloat", 3, WRITE_MEMORY_FAST, Text, "2.6.0", "Adds to a number with a fraction."),
    on(keys::del, "del", -2, WRITE, Generic, "1.0.0", "Deletes keys; says how many there were.").all_keys(1),
    on(keys::del, "unlink", -2, WRITE_FAST, Generic, "4.0.0", "Deletes keys; here the same as DEL.").all_keys(1),
    on(keys::exists, "exists", -2, READ_FAST, Generic, "1.0.0", "Counts which of the keys exist.").all_keys(1),
    on(keys::exists, "touch", -2, READ_FAST, Generic, "3.2.1", "Counts which of the keys exist.").all_keys(1),
    on(keys::type_of, "type", 2, READ_FAST, Generic, "1.0.0", "Returns the type of a key."),
    on(keys::rename, "rename", 3, WRITE, Generic, "1.0.0", "Gives a key another name.").some_keys(1, 2),
    on(keys::renamenx, "renamenx", 3, WRITE_FAST, Generic, "1.0.0", "Gives a key another name that is free.").some_keys(1, 2),
    on(keys::copy, "copy", -3, WRITE_MEMORY, Generic, "6.2.0", "Copies a key.").some_keys(1, 2),
    on(keys::expire, "expire", -3, WRITE_FAST, Generic, "1.0.0", "Sets a deadline in seconds from now."),
    on(keys::pexpire, "pexpire", -3, WRITE_FAST, Generic, "2.6.0", "Sets a deadline in milliseconds from now."),
    on(keys::expireat, "expireat", -3, WRITE_FAST, Generic, "1.2.0", "Sets a deadline in seconds since 1970."),
    on(keys::pexpireat, "pexpireat", -3, WRITE_FAST, Generic, "2.6.0", "Sets a deadline in milliseconds since 1970."),
    on(keys::persist, "persist", 2, WRITE_FAST, Generic, "2.2.0", "Takes a deadline away."),
    on(keys::ttl, "ttl", 2, READ_FAST, Generic, "1.0.0", "Returns the seconds to a key's deadline."),
    on(keys::pttl, "pttl", 2, READ_FAST, Generic, "2.6.0", "Returns the milliseconds to a key's deadline."),
    on(keys::expiretime, "expiretime", 2, READ_FAST, Generic, "7.0.0", "Returns a key's deadline in seconds since 1970."),
    on(keys::pexpiretime, "pexpiretime", 2, READ_FAST, Generic, "7.0.0", "Returns a key's deadline in milliseconds since 1970."),
    on(keys::randomkey, "randomkey", 1, READ, Generic, "1.0.0", "Returns any key.").no_key(),
    on(keys::flush, "flushall", -1, WRITE, Server, "1.0.0", "Deletes all keys.").no_key(),
    on(keys::flush, "flushdb", -1, WRITE, Server, "1.0.0", "Deletes all keys.").no_key(),
    row(Verb::Keys, "keys", 2, READ, Generic, "1.0.0", "Returns all keys that match a pattern.").asking(keys::keys),
    row(Verb::Scan, "scan", -2, READ, Generic, "2.8.0", "Returns the keys, a few per call.").asking(keys::scan),
    on(keys::dbsize, "dbsize", 1, READ_FAST, Server, "1.0.0", "Returns the number of keys.").no_key(),
    row(Verb::Object, "object", -2, Flags::NONE, Generic, "2.2.3", "About the inside of values.").with(OBJECT),
    on(hashes::hset, "hset", -4, WRITE_MEMORY_FAST, Hash, "2.0.0", "Sets fields of a hash."),
    on(hashes::hmset, "hmset", -4, WRITE_MEMORY_FAST, Hash, "2.0.0", "Sets fields of a hash."),
    on(hashes::hsetnx, "hsetnx", 4, WRITE_MEMORY_FAST, Hash, "2.0.0", "Sets a field that does not exist."),
    on(hashes::hget, "hget", 3, READ_FAST, Hash, "2.0.0", "Returns a field of a hash."),
    on(hashes::hmget, "hmget", -3, READ_FAST, Hash, "2.0.0", "Returns fields of a hash."),
    on(hashes::hdel, "hdel", -3, WRITE_FAST, Hash, "2.0.0", "Deletes fields of a hash."),
    on(hashes::hexists, "hexists", 3, READ_FAST, Hash, "2.0.0", "Says whether a field exists."),
    on(hashes::hlen, "hlen", 2, READ_FAST, Hash, "2.0.0", "Counts the fields of a hash."),
    on(hashes::hkeys, "hkeys", 2, READ, Hash, "2.0.0", "Returns the names of all fields."),
    on(hashes::hvals, "hvals", 2, READ, Hash, "2.0.0", "Returns the values of all fields."),
    on(hashes::hgetall, "hgetall", 2, READ, Hash, "2.0.0", "Returns all fields with their values."),
    on(hashes::hstrlen, "hstrlen", 3, READ_FAST, Hash, "3.2.0", "Returns the length of a field's value."),
    on(hashes::hincrby, "hincrby", 4, WRITE_MEMORY_FAST, Hash, "2.0.0", "Adds to the number in a field."),
    on(hashes::hincrbyfloat, "hincrbyfloat", 4, WRITE_MEMORY_FAST, Hash, "2.6.0", "Adds to the number with a fraction in a field."),
    on(hashes::hrandfield, "hrandfield", -2, READ, Hash, "6.2.0", "Returns fields at random."),
    on(hashes::hscan, "hscan", -3, READ, Hash, "2.8.0", "Returns the fields, a few per call."),
    on(sets::sadd, "sadd", -3, WRITE_MEMORY_FAST, Set, "1.0.0", "Adds members to a set."),
    on(sets::srem, "srem", -3, WRITE_FAST, Set, "1.0.0", "Removes members from a set."),
    on(sets::smembers, "smembers", 2, READ, Set, "1.0.0", "Returns all members of a set."),
    on(sets::sismember, "sismember", 3, READ_FAST, Set, "1.0.0", "Says whether a set has a member."),
    on(sets::smismember, "smismember", -3, READ_FAST, Set, "6.2.0", "Says which members a set has."),
    on(sets::scard, "scard", 2, READ_FAST, Set, "1.0.0", "Counts the members of a set."),
    on(sets::spop, "spop", -2, WRITE_FAST, Set, "1.0.0", "Takes members out at random."),
    on(sets::srandmember, "srandmember", -2, READ, Set, "1.0.0", "Returns members at random."),
    on(sets::smove, "smove", 4, WRITE_FAST, Set, "1.0.0", "Moves a member to another set.").some_keys(1, 2),
    on(sets::sinter, "sinter", -2, READ, Set, "1.0.0", "Returns what is in all sets.").all_keys(1),
    on(sets::sunion, "sunion", -2, READ, Set, "1.0.0", "Returns what is in any set.").all_keys(1),
    on(sets::sdiff, "sdiff", -2, READ, Set, "1.0.0", "Returns what is in the first set only.").all_keys(1),
    on(sets::sinterstore, "sinterstore", -3, WRITE_MEMORY, Set, "1.0.0", "Stores what is in all sets.").all_keys(1),
    on(sets::sunionstore, "sunionstore", -3, WRITE_MEMORY, Set, "1.0.0", "Stores what is in any set.").all_keys(1),
    on(sets::sdiffstore, "sdiffstore", -3, WRITE_MEMORY, Set, "1.0.0", "Stores what is in the first set only.").all_keys(1),
    on(sets::sintercard, "sintercard", -3, READ, Set, "7.0.0", "Counts what is in all sets.").counted_keys(),
    on(sets::sscan, "sscan", -3, READ, Set, "2.8.0", "Returns the members, a few per call."),
    on(lists::lpush, "lpush", -3, WRITE_MEMORY_FAST, List, "1.0.0", "Adds elements in front."),
    on(lists::rpush, "rpush", -3, WRITE_MEMORY_FAST, List, "1.0.0", "Adds elements at the end."),
    on(lists::lpushx, "lpushx", -3, WRITE_MEMORY_FAST, List, "2.2.0", "Adds elements in front of a list that exists."),
    on(lists::rpushx, "rpushx", -3, WRITE_MEMORY_FAST, List, "2.2.0", "Adds elements at the end of a list that exists."),
    on(lists::lpop, "lpop", -2, WRITE_FAST, List, "1.0.0", "Takes elements from the front."),
    on(lists::rpop, "rpop", -2, WRITE_FAST, List, "1.0.0", "Takes elements from the end."),
    on(lists::lmpop, "lmpop", -4, WRITE, List, "7.0.0", "Takes elements from the first list that exists.").counted_keys(),
    on(lists::lrange, "lrange", 4, READ, List, "1.0.0", "Returns elements of a list."),
    on(lists::llen, "llen", 2, READ_FAST, List, "1.0.0", "Counts the elements of a list."),
    on(lists::lindex, "lindex", 3, READ, List, "1.0.0", "Returns an element of a list."),
    on(lists::lset, "lset", 4, WRITE_MEMORY, List, "1.0.0", "Replaces an element of a list."),
    on(lists::linsert, "linsert", 5, WRITE_MEMORY, List, "2.2.0", "Adds an element beside another."),
    on(lists::lrem, "lrem", 4, WRITE, List, "1.0.0", "Removes elements that are equal to a value."),
    on(lists::ltrim, "ltrim", 4, WRITE, List, "1.0.0", "Removes all elements outside a range."),
    on(lists::lmove, "lmove", 5, WRITE_MEMORY, List, "6.2.0", "Moves an element to another list.").some_keys(1, 2),
    on(lists::rpoplpush, "rpoplpush", 3, WRITE_MEMORY, List, "1.2.0", "Moves the last element to the front of another list.").some_keys(1, 2),
    on(lists::lpos, "lpos", -3, READ, List, "6.0.6", "Says where elements stand."),
    on(sorted::zadd, "zadd", -4, WRITE_MEMORY_FAST, Sorted, "1.2.0", "Adds members with scores."),
    on(sorted::zincrby, "zincrby", 4, WRITE_MEMORY_FAST, Sorted, "1.2.0", "Adds to the score of a member."),
    on(sorted::zrem, "zrem", -3, WRITE_FAST, Sorted, "1.2.0", "Removes members."),
    on(sorted::zscore, "zscore", 3, READ_FAST, Sorted, "1.2.0", "Returns the score of a member."),
    on(sorted::zmscore, "zmscore", -3, READ_FAST, Sorted, "6.2.0", "Returns the scores of members."),
    on(sorted::zcard, "zcard", 2, READ_FAST, Sorted, "1.2.0", "Counts the members of a sorted set."),
    on(sorted::zcount, "zcount", 4, READ_FAST, Sorted, "2.0.0", "Counts the members in a range of scores."),
    on(sorted::zlexcount, "zlexcount", 4, READ_FAST, Sorted, "2.8.9", "Counts the members in a range of names."),
    on(sorted::zrange, "zrange", -4, READ, Sorted, "1.2.0", "Returns members in a range."),
    on(sorted::zrangestore, "zrangestore", -5, WRITE_MEMORY, Sorted, "6.2.0", "Stores members in a range.").some_keys(1, 2),
    on(sorted::zrevrange, "zrevrange", -4, READ, Sorted, "1.2.0", "Returns members in a range, backwards."),
    on(sorted::zrangebyscore, "zrangebyscore", -4, READ, Sorted, "1.0.5", "Returns members in a range of scores."),
    on(sorted::zrevrangebyscore, "zrevrangebyscore", -4, READ, Sorted, "2.2.0", "Returns members in a range of scores, backwards."),
    on(sorted::zrangebylex, "zrangebylex", -4, READ, Sorted, "2.8.9", "Returns members in a range of names."),
    on(sorted::zrevrangebylex, "zrevrangebylex", -4, READ, Sorted, "2.8.9", "Returns members in a range of names, backwards."),
    on(sorted::zrank, "zrank", -3, READ_FAST, Sorted, "2.0.0", "Returns the rank of a member."),
    on(sorted::zrevrank, "zrevrank", -3, READ_FAST, Sorted, "2.0.0", "Returns the rank of a member from the end."),
    on(sorted::zpopmin, "zpopmin", -2, WRITE_FAST, Sorted, "5.0.0", "Takes the members with the least scores."),
    on(sorted::zpopmax, "zpopmax", -2, WRITE_FAST, Sorted, "5.0.0", "Takes the members with the greatest scores."),
    on(sorted::zremrangebyrank, "zremrangebyrank", 4, WRITE, Sorted, "2.0.0", "Removes members in a range of ranks."),
    on(sorted::zremrangebyscore, "zremrangebyscore", 4, WRITE, Sorted, "1.2.0", "Removes members in a range of scores."),
    on(sorted::zremrangebylex, "zremrangebylex", 4, WRITE, Sorted, "2.8.9", "Removes members in a range of names."),
    on(sorted::zrandmember, "zrandmember", -2, READ, Sorted, "6.2.0", "Returns members at random."),
    on(sorted::zscan, "zscan", -3, READ, Sorted, "2.8.0", "Returns the members, a few per call."),
    row(Verb::Multi, "multi", 1, TOGETHER, Together, "1.2.0", "Begins a transaction."),
    row(Verb::Exec, "exec", 1, EXECUTES, Together, "1.2.0", "Executes a transaction."),
    row(Verb::Discard, "discard", 1, TOGETHER, Together, "2.0.0", "Drops a transaction."),
    row(Verb::Watch, "watch", -2, TOGETHER, Together, "2.2.0", "Lets the next transaction depend on keys.").all_keys(1),
    row(Verb::Unwatch, "unwatch", 1, TOGETHER, Together, "2.2.0", "Lets it depend on nothing."),
    row(Verb::Subscribe, "subscribe", -2, ABOUT_TOPICS, Pubsub, "2.0.0", "Hears what is published on channels, at any peer."),
    row(Verb::Unsubscribe, "unsubscribe", -1, ABOUT_TOPICS, Pubsub, "2.0.0", "Hears it no longer."),
    row(Verb::Psubscribe, "psubscribe", -2, ABOUT_TOPICS, Pubsub, "2.0.0", "Hears what is published on channels that match."),
    row(Verb::Punsubscribe, "punsubscribe", -1, ABOUT_TOPICS, Pubsub, "2.0.0", "Hears it no longer."),
    row(Verb::Publish, "publish", 3, ALWAYS_FAST.and(Flags::PUBSUB), Pubsub, "2.0.0", "Tells subscribers at all peers; says how many are at this one."),
    row(Verb::Pubsub, "pubsub", -2, Flags::NONE, Pubsub, "2.8.0", "About subscriptions at this peer.").with(PUBSUB),
    row(Verb::Slowlog, "slowlog", -2, Flags::NONE, Server, "2.2.12", "About slow commands, which are not kept.").with(SLOWLOG),
    row(Verb::Latency, "latency", -2, Flags::NONE, Server, "2.8.13", "About delays, which are not kept.").with(LATENCY),
    row(Verb::Acl, "acl", -2, Flags::NONE, Server, "6.0.0", "About users.").with(ACL),
    row(Verb::Wait, "wait", 3, Flags::NOSCRIPT, Generic, "3.0.0", WAIT_SUMMARY),
    row(Verb::OwnWhy, "quorumor.why", -2, READ, Own, OURS, "Says which write a key or field shows, and which lost to it.").one_key(),
    row(Verb::OwnStamp, "quorumor.stamp", 1, ALWAYS_FAST, Own, OURS, "Names this connection's last write."),
    row(Verb::OwnWaitfor, "quorumor.waitfor", 3, Flags::NOSCRIPT, Own, OURS, "Waits until this peer holds a write."),
    row(Verb::OwnTrace, "quorumor.trace", -1, Flags::NOSCRIPT, Own, OURS, "Says which peers hold a write."),
    row(Verb::OwnMode, "quorumor.mode", 1, ALWAYS_FAST, Own, OURS, "Names the consistency mode."),
    row(Verb::OwnMembers, "quorumor.members", 1, ALWAYS, Own, OURS, "Lists the members of the cluster."),
    row(Verb::OwnDigest, "quorumor.digest", 1, ALWAYS, Own, OURS, "Says what this peer holds."),
    row(Verb::Info, "info", -1, ALWAYS, Server, "1.0.0", "Returns facts and counters of this node."),
    row(Verb::Time, "time", 1, ALWAYS_FAST, Server, "2.6.0", "Returns this node's clock."),
    row(Verb::Role, "role", 1, ABOUT_CLIENT.and(Flags::FAST), Server, "2.8.12", ROLE_SUMMARY),
    row(Verb::Auth, "auth", -2, DOOR, Connection, "1.0.0", "Gives the password."),
    row(Verb::Hello, "hello", -1, DOOR, Connection, "6.0.0", "Agrees on a protocol version."),
    row(Verb::Quit, "quit", -1, DOOR, Connection, "1.0.0", "Closes the connection."),
    row(Verb::Reset, "reset", 1, DOOR, Connection, "6.2.0", "Makes the connection as new."),
    row(Verb::Ping, "ping", -1, Flags::FAST, Connection, "1.0.0", "Answers PONG."),
    row(Verb::Readonly, "readonly", 1, ALWAYS_FAST, Connection, "3.0.0", "In strong mode, has reads answered by what this peer holds, however old."),
    row(Verb::Readwrite, "readwrite", 1, ALWAYS_FAST, Connection, "3.0.0", "Takes READONLY back."),
    row(Verb::Echo, "echo", 2, ALWAYS_FAST, Connection, "1.0.0", "Answers what it was given."),
    row(Verb::Select, "select", 2, ALWAYS_FAST, Connection, "1.0.0", "Chooses database 0."),
    row(Verb::Client, "client", -2, Flags::NONE, Connection, "2.4.0", "About client connections.")
        .with(CLIENT),
    row(Verb::Command, "command", -1, ALWAYS, Server, "2.8.13", "Describes the commands.")
        .with(COMMAND),
    row(Verb::Config, "config", -2, Flags::NONE, Server, "2.0.0", "Shows the settings.").with(CONFIG),
    row(Verb::Memory, "memory", -2, Flags::NONE, Server, "4.0.0", "About memory.").with(MEMORY),
    row(Verb::Swapdb, "swapdb", 3, WRITE_FAST, Server, "4.0.0", "Accepts 0 and 0: there is one database."),
    row(Verb::Module, "module", -2, Flags::NONE, Server, "4.0.0", "About modules.").with(MODULE),
];

/// The version of Quorumor, not of Redis, that brought the commands of our own.
const OURS: &str = "0.1.0";

const WAIT_SUMMARY: &str = "Waits until peers hold this connection's last write.";
const ROLE_SUMMARY: &str = "Says that this node accepts writes.";
const HELP_SUMMARY: &str = "Prints this help.";

#[rustfmt::skip]
static CLIENT: &[Command] = &[
    row(Verb::ClientGetname, "client|getname", 2, ABOUT_CLIENT, Connection, "2.6.9", "Returns the name of this connection."),
    row(Verb::ClientGetredir, "client|getredir", 2, ABOUT_CLIENT, Connection, "6.0.0", "Answers that nothing is tracked."),
    row(Verb::ClientHelp, "client|help", 2, ALWAYS, Connection, "5.0.0", HELP_SUMMARY),
    row(Verb::ClientId, "client|id", 2, ABOUT_CLIENT, Connection, "5.0.0", "Returns the number of this connection."),
    row(Verb::ClientInfo, "client|info", 2, ABOUT_CLIENT, Connection, "6.2.0", "Describes this connection."),
    row(Verb::ClientKill, "client|kill", -3, ADMIN, Connection, "2.4.0", "Closes connections.")
        .taking("<ip:port> | [ID id] [ADDR ip:port] [LADDR ip:port] [SKIPME yes|no] ..."),
    row(Verb::ClientList, "client|list", -2, ADMIN, Connection, "2.4.0", "Describes all connections.")
        .taking("[TYPE normal|master|replica|pubsub] [ID id ...]"),
    row(Verb::ClientToggle, "client|no-evict", 3, ADMIN, Connection, "7.0.0", "Accepted: connections are never evicted.")
        .taking("(ON|OFF)"),
    row(Verb::ClientToggle, "client|no-touch", 3, ABOUT_CLIENT, Connection, "7.2.0", "Accepted: reads leave no trace here.")
        .taking("(ON|OFF)"),
    row(Verb::ClientPause, "client|pause", -3, ADMIN, Connection, "3.0.0", "Refused: one peer would fall silent while others go on.")
        .taking("<timeout> [WRITE|ALL]"),
    row(Verb::ClientReply, "client|reply", 3, ABOUT_CLIENT, Connection, "3.2.0", "Chooses whether this connection gets replies.")
        .taking("(ON|OFF|SKIP)"),
    row(Verb::ClientSetinfo, "client|setinfo", 4, ABOUT_CLIENT, Connection, "7.2.0", "Names the client's library.")
        .taking("(LIB-NAME|LIB-VER) <value>"),
    row(Verb::ClientSetname, "client|setname", 3, ABOUT_CLIENT, Connection, "2.6.9", "Names this connection.")
        .taking("<name>"),
    row(Verb::ClientTracking, "client|tracking", -3, ABOUT_CLIENT, Connection, "6.0.0", "Accepts OFF: what clients cache is not tracked.")
        .taking("(ON|OFF)"),
    row(Verb::ClientTrackinginfo, "client|trackinginfo", 2, ABOUT_CLIENT, Connection, "6.2.0", "Answers that nothing is tracked."),
    row(Verb::ClientUnblock, "client|unblock", -3, ADMIN, Connection, "5.0.0", "Ends the waiting of a connection.")
        .taking("<clientid> [TIMEOUT|ERROR]"),
    row(Verb::ClientUnpause, "client|unpause", 2, ADMIN, Connection, "6.2.0", "Does nothing: nobody is ever paused."),
];

#[rustfmt::skip]
static COMMAND: &[Command] = &[
    row(Verb::CommandCount, "command|count", 2, ALWAYS, Server, "2.8.13", "Returns the number of commands."),
    row(Verb::CommandDocs, "command|docs", -2, ALWAYS, Server, "7.0.0", "Returns what commands do.")
        .taking("[<command-name> ...]"),
    row(Verb::CommandGetkeys, "command|getkeys", -3, ALWAYS, Server, "2.8.13", "Returns the keys in a command.")
        .taking("<full-command>"),
    row(Verb::CommandHelp, "command|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::CommandInfo, "command|info", -2, ALWAYS, Server, "2.8.13", "Returns flags and key positions of commands.")
        .taking("[<command-name> ...]"),
    row(Verb::CommandList, "command|list", -2, ALWAYS, Server, "7.0.0", "Returns the names of the commands.")
        .taking("[FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]"),
];

#[rustfmt::skip]
static CONFIG: &[Command] = &[
    row(Verb::ConfigGet, "config|get", -3, ADMIN, Server, "2.0.0", "Returns the settings that match a pattern.")
        .taking("<pattern> [<pattern> ...]"),
    row(Verb::ConfigHelp, "config|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::ConfigResetstat, "config|resetstat", 2, ADMIN, Server, "2.0.0", "Sets the counters of this door to zero."),
    row(Verb::ConfigRewrite, "config|rewrite", 2, ADMIN, Server, "2.8.0", "Refused: settings are given at the start."),
    row(Verb::ConfigSet, "config|set", -4, ADMIN, Server, "2.0.0", "Changes maxclients, maxmemory and notify-keyspace-events; all else is given at the start.")
        .taking("<setting> <value> ..."),
];

#[rustfmt::skip]
static MEMORY: &[Command] = &[
    row(Verb::MemoryDoctor, "memory|doctor", 2, Flags::NONE, Server, "4.0.0", "Says what is counted, and how close that is to the limit."),
    row(Verb::MemoryHelp, "memory|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::MemoryMallocStats, "memory|malloc-stats", 2, Flags::NONE, Server, "4.0.0", "Answers that the allocator tells nothing."),
    row(Verb::MemoryPurge, "memory|purge", 2, Flags::NONE, Server, "4.0.0", "Does nothing: the allocator gives back by itself."),
    row(Verb::MemoryStats, "memory|stats", 2, Flags::NONE, Server, "4.0.0", "Returns what the keys take together."),
    on(keys::memory_usage, "memory|usage", -3, READ, Server, "4.0.0", "Estimates the bytes that a key takes.")
        .taking("<key> [SAMPLES <count>]")
        .second_key(),
];

#[rustfmt::skip]
static OBJECT: &[Command] = &[
    on(keys::object_encoding, "object|encoding", 3, READ, Generic, "2.2.3", "Names an encoding that Redis has for values of this kind.")
        .taking("<key>")
        .second_key(),
    on(keys::object_freq, "object|freq", 3, READ, Generic, "4.0.0", "Refused as by a Redis that does not evict by frequency.")
        .taking("<key>")
        .second_key(),
    row(Verb::ObjectHelp, "object|help", 2, ALWAYS, Generic, "6.2.0", HELP_SUMMARY),
    on(keys::object_idletime, "object|idletime", 3, READ, Generic, "2.2.3", "Refused: a read leaves no trace.")
        .taking("<key>")
        .second_key(),
    on(keys::object_refcount, "object|refcount", 3, READ, Generic, "2.2.3", "Answers 1: each value is its key's own.")
        .taking("<key>")
        .second_key(),
];

#[rustfmt::skip]
static PUBSUB: &[Command] = &[
    row(Verb::PubsubChannels, "pubsub|channels", -2, ALWAYS.and(Flags::PUBSUB), Pubsub, "2.8.0", "Returns the channels that have subscribers here.")
        .taking("[<pattern>]"),
    row(Verb::PubsubHelp, "pubsub|help", 2, ALWAYS, Pubsub, "6.2.0", HELP_SUMMARY),
    row(Verb::PubsubNumpat, "pubsub|numpat", 2, ALWAYS.and(Flags::PUBSUB), Pubsub, "2.8.0", "Counts the patterns that have subscribers here."),
    row(Verb::PubsubNumsub, "pubsub|numsub", -2, ALWAYS.and(Flags::PUBSUB), Pubsub, "2.8.0", "Counts the subscribers of channels here.")
        .taking("[<channel> ...]"),
];

#[rustfmt::skip]
static SLOWLOG: &[Command] = &[
    row(Verb::SlowlogGet, "slowlog|get", -2, ADMIN_SCRIPT, Server, "2.2.12", "Answers that there are none.")
        .taking("[<count>]"),
    row(Verb::SlowlogHelp, "slowlog|help", 2, ALWAYS, Server, "6.2.0", HELP_SUMMARY),
    row(Verb::SlowlogLen, "slowlog|len", 2, ADMIN_SCRIPT, Server, "2.2.12", "Answers that there are none."),
    row(Verb::SlowlogReset, "slowlog|reset", 2, ADMIN_SCRIPT, Server, "2.2.12", "Does nothing."),
];

#[rustfmt::skip]
static LATENCY: &[Command] = &[
    row(Verb::LatencyDoctor, "latency|doctor", 2, ADMIN, Server, "2.8.13", "Says that delays are not kept."),
    row(Verb::LatencyGraph, "latency|graph", 3, ADMIN, Server, "2.8.13", "Answers that there are none.")
        .taking("<event>"),
    row(Verb::LatencyHelp, "latency|help", 2, ALWAYS, Server, "2.8.13", HELP_SUMMARY),
    row(Verb::LatencyHistogram, "latency|histogram", -2, ADMIN, Server, "7.0.0", "Answers that there are none.")
        .taking("[<command> ...]"),
    row(Verb::LatencyEmpty, "latency|history", 3, ADMIN, Server, "2.8.13", "Answers that there are none.")
        .taking("<event>"),
    row(Verb::LatencyEmpty, "latency|latest", 2, ADMIN, Server, "2.8.13", "Answers that there are none."),
    row(Verb::LatencyReset, "latency|reset", -2, ADMIN, Server, "2.8.13", "Does nothing.")
        .taking("[<event> ...]"),
];

#[rustfmt::skip]
static ACL: &[Command] = &[
    row(Verb::AclCat, "acl|cat", -2, ABOUT_CLIENT, Server, "6.0.0", "Returns the categories of commands, or the commands of one.")
        .taking("[<category>]"),
    row(Verb::AclHelp, "acl|help", 2, ALWAYS, Server, "6.0.0", HELP_SUMMARY),
    row(Verb::AclList, "acl|list", 2, ADMIN, Server, "6.0.0", "Describes the only user."),
    row(Verb::AclUsers, "acl|users", 2, ADMIN, Server, "6.0.0", "Names the only user."),
    row(Verb::AclWhoami, "acl|whoami", 2, ABOUT_CLIENT, Server, "6.0.0", "Names the only user."),
];

#[rustfmt::skip]
static MODULE: &[Command] = &[
    row(Verb::ModuleHelp, "module|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::ModuleList, "module|list", 2, Flags::ADMIN.and(Flags::NOSCRIPT), Server, "4.0.0", "Answers that there are none."),
];

/// The other commands of Redis 7 that no client can call here yet.
#[rustfmt::skip]
pub(super) static NOT_YET: &[&str] = &[
    "bitfield", "blmove", "blmpop", "blpop", "brpop", "brpoplpush", "bzmpop", "bzpopmax", "bzpopmin", "eval", "evalsha", "fcall", "move", "setbit", "zmpop",
    "asking", "bgrewriteaof", "bgsave", "bitcount", "bitfield_ro", "bitop", "bitpos",
    "cluster", "debug", "dump", "eval_ro", "evalsha_ro",
    "failover", "fcall_ro", "function", "geoadd", "geodist", "geohash",
    "geopos", "georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch",
    "geosearchstore", "getbit",
    "lastsave",
    "lcs", "lolwut",
    "migrate", "monitor", "pfadd",
    "pfcount", "pfdebug", "pfmerge", "pfselftest", "psync", "replconf", "replicaof",
    "restore", "restore-asking", "save", "script",
    "shutdown", "slaveof",
    "sort", "sort_ro", "spublish",
    "ssubscribe", "sunsubscribe", "sync",
    "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup", "xinfo", "xlen",
    "xpending", "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim",
    "zdiff", "zdiffstore", "zinter", "zintercard", "zinterstore",

    "zunion", "zunionstore",
];

/// Their subcommands that no client can call here yet, of containers that are served.
#[rustfmt::skip]
pub(super) static NOT_YET_WITHIN: &[&str] = &[
    "acl|deluser", "acl|dryrun", "acl|genpass", "acl|getuser", "acl|load", "acl|log", "acl|save", "acl|setuser",
    "client|caching",
    "command|getkeysandflags",
    "module|load", "module|loadex", "module|unload",
    "pubsub|shardchannels", "pubsub|shardnumsub",
];
