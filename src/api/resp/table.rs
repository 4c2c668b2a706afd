//! The list of commands: what is served, and what Redis has that is not.
//!
//! Names, arities, flags and key positions are those of Redis 7, because clients read them through
//! `COMMAND` and route by them. Every command of Redis 7 stands in exactly one of three lists:
//! served; refused because its meaning needs an order that eventual mode does not have; or not
//! supported yet. So a client is never told that a command it knows does not exist.

use super::command::{Command, Flags, Group, Reason, Verb};

use Group::{Connection, Generic, Server, Text};

const READ: Flags = Flags::READONLY;
const READ_FAST: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE;
const WRITE_MEMORY: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = Flags::WRITE.and(Flags::FAST);
const ALWAYS: Flags = Flags::LOADING.and(Flags::STALE);
const ALWAYS_FAST: Flags = ALWAYS.and(Flags::FAST);
const DOOR: Flags = ALWAYS_FAST.and(Flags::NOSCRIPT).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);
const ABOUT_CLIENT: Flags = ALWAYS.and(Flags::NOSCRIPT);
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
    }
}

/// Everything that a client can call. One command per line reads better than rustfmt's one argument.
#[rustfmt::skip]
pub(super) static SERVED: &[Command] = &[
    row(Verb::Get, "get", 2, READ_FAST, Text, "1.0.0", "Returns the value of a key.").one_key(),
    row(Verb::Set, "set", -3, WRITE_MEMORY, Text, "1.0.0", "Sets the value of a key.").one_key(),
    row(Verb::Mget, "mget", -2, READ_FAST, Text, "1.0.0", "Returns the values of several keys.")
        .all_keys(1),
    row(Verb::Mset, "mset", -3, WRITE_MEMORY, Text, "1.0.1", "Sets several keys in one write.")
        .all_keys(2),
    row(Verb::Strlen, "strlen", 2, READ_FAST, Text, "2.2.0", "Returns the length of a value.")
        .one_key(),
    row(Verb::Del, "del", -2, WRITE, Generic, "1.0.0", "Deletes keys; says how many there were.")
        .all_keys(1),
    row(Verb::Del, "unlink", -2, WRITE_FAST, Generic, "4.0.0", "Deletes keys; here the same as DEL.")
        .all_keys(1),
    row(Verb::Exists, "exists", -2, READ_FAST, Generic, "1.0.0", "Counts which of the keys exist.")
        .all_keys(1),
    row(Verb::Exists, "touch", -2, READ_FAST, Generic, "3.2.1", "Counts which of the keys exist.")
        .all_keys(1),
    row(Verb::Type, "type", 2, READ_FAST, Generic, "1.0.0", "Returns the type of a key.").one_key(),
    row(Verb::Ttl, "ttl", 2, READ_FAST, Generic, "1.0.0", "Says that a key has no deadline.")
        .one_key(),
    row(Verb::Ttl, "pttl", 2, READ_FAST, Generic, "2.6.0", "Says that a key has no deadline.")
        .one_key(),
    row(Verb::Keys, "keys", 2, READ, Generic, "1.0.0", "Returns all keys that match a pattern."),
    row(Verb::Scan, "scan", -2, READ, Generic, "2.8.0", "Returns the keys, a few per call."),
    row(Verb::Wait, "wait", 3, Flags::NOSCRIPT, Generic, "3.0.0", WAIT_SUMMARY),
    row(Verb::Dbsize, "dbsize", 1, READ_FAST, Server, "1.0.0", "Returns the number of keys."),
    row(Verb::Info, "info", -1, ALWAYS, Server, "1.0.0", "Returns facts and counters of this node."),
    row(Verb::Time, "time", 1, ALWAYS_FAST, Server, "2.6.0", "Returns this node's clock."),
    row(Verb::Role, "role", 1, ABOUT_CLIENT.and(Flags::FAST), Server, "2.8.12", ROLE_SUMMARY),
    row(Verb::Auth, "auth", -2, DOOR, Connection, "1.0.0", "Gives the password."),
    row(Verb::Hello, "hello", -1, DOOR, Connection, "6.0.0", "Agrees on a protocol version."),
    row(Verb::Quit, "quit", -1, DOOR, Connection, "1.0.0", "Closes the connection."),
    row(Verb::Reset, "reset", 1, DOOR, Connection, "6.2.0", "Makes the connection as new."),
    row(Verb::Ping, "ping", -1, Flags::FAST, Connection, "1.0.0", "Answers PONG."),
    row(Verb::Echo, "echo", 2, ALWAYS_FAST, Connection, "1.0.0", "Answers what it was given."),
    row(Verb::Select, "select", 2, ALWAYS_FAST, Connection, "1.0.0", "Chooses database 0."),
    row(Verb::Client, "client", -2, Flags::NONE, Connection, "2.4.0", "About client connections.")
        .with(CLIENT),
    row(Verb::Command, "command", -1, ALWAYS, Server, "2.8.13", "Describes the commands.")
        .with(COMMAND),
    row(Verb::Config, "config", -2, Flags::NONE, Server, "2.0.0", "Shows the settings.").with(CONFIG),
    row(Verb::Memory, "memory", -2, Flags::NONE, Server, "4.0.0", "About memory.").with(MEMORY),
    row(Verb::Module, "module", -2, Flags::NONE, Server, "4.0.0", "About modules.").with(MODULE),
];

const WAIT_SUMMARY: &str = "Waits until peers hold this connection's last write.";
const ROLE_SUMMARY: &str = "Says that this node accepts writes.";
const HELP_SUMMARY: &str = "Prints this help.";

#[rustfmt::skip]
static CLIENT: &[Command] = &[
    row(Verb::ClientGetname, "client|getname", 2, ABOUT_CLIENT, Connection, "2.6.9", "Returns the name of this connection."),
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
    row(Verb::ClientReply, "client|reply", 3, ABOUT_CLIENT, Connection, "3.2.0", "Chooses whether this connection gets replies.")
        .taking("(ON|OFF|SKIP)"),
    row(Verb::ClientSetinfo, "client|setinfo", 4, ABOUT_CLIENT, Connection, "7.2.0", "Names the client's library.")
        .taking("(LIB-NAME|LIB-VER) <value>"),
    row(Verb::ClientSetname, "client|setname", 3, ABOUT_CLIENT, Connection, "2.6.9", "Names this connection.")
        .taking("<name>"),
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
    row(Verb::ConfigSet, "config|set", -4, ADMIN, Server, "2.0.0", "Refused: settings are given at the start.")
        .taking("<setting> <value> ..."),
];

#[rustfmt::skip]
static MEMORY: &[Command] = &[
    row(Verb::MemoryHelp, "memory|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::MemoryUsage, "memory|usage", -3, READ, Server, "4.0.0", "Estimates the bytes that a key takes.")
        .taking("<key> [SAMPLES <count>]")
        .second_key(),
];

#[rustfmt::skip]
static MODULE: &[Command] = &[
    row(Verb::ModuleHelp, "module|help", 2, ALWAYS, Server, "5.0.0", HELP_SUMMARY),
    row(Verb::ModuleList, "module|list", 2, Flags::ADMIN.and(Flags::NOSCRIPT), Server, "4.0.0", "Answers that there are none."),
];

/// Commands whose meaning needs an order that eventual mode does not have.
pub(super) static NEEDS_ORDER: &[(&str, Reason)] = &[
    ("append", Reason::Condition),
    ("bitfield", Reason::Condition),
    ("blmove", Reason::Take),
    ("blmpop", Reason::Take),
    ("blpop", Reason::Take),
    ("brpop", Reason::Take),
    ("brpoplpush", Reason::Take),
    ("bzmpop", Reason::Take),
    ("bzpopmax", Reason::Take),
    ("bzpopmin", Reason::Take),
    ("copy", Reason::Condition),
    ("decr", Reason::Count),
    ("decrby", Reason::Count),
    ("discard", Reason::Together),
    ("eval", Reason::Together),
    ("evalsha", Reason::Together),
    ("exec", Reason::Together),
    ("fcall", Reason::Together),
    ("getdel", Reason::Condition),
    ("getset", Reason::Condition),
    ("hincrby", Reason::Count),
    ("hincrbyfloat", Reason::Count),
    ("hsetnx", Reason::Condition),
    ("incr", Reason::Count),
    ("incrby", Reason::Count),
    ("incrbyfloat", Reason::Count),
    ("linsert", Reason::Condition),
    ("lmove", Reason::Take),
    ("lmpop", Reason::Take),
    ("lpop", Reason::Take),
    ("lpushx", Reason::Condition),
    ("lset", Reason::Condition),
    ("move", Reason::Condition),
    ("msetnx", Reason::Condition),
    ("multi", Reason::Together),
    ("rename", Reason::Condition),
    ("renamenx", Reason::Condition),
    ("rpop", Reason::Take),
    ("rpoplpush", Reason::Take),
    ("rpushx", Reason::Condition),
    ("setbit", Reason::Condition),
    ("setnx", Reason::Condition),
    ("setrange", Reason::Condition),
    ("smove", Reason::Condition),
    ("spop", Reason::Take),
    ("unwatch", Reason::Together),
    ("watch", Reason::Together),
    ("zincrby", Reason::Count),
    ("zmpop", Reason::Take),
    ("zpopmax", Reason::Take),
    ("zpopmin", Reason::Take),
];

/// The other commands of Redis 7 that no client can call here yet.
#[rustfmt::skip]
pub(super) static NOT_YET: &[&str] = &[
    "acl", "asking", "bgrewriteaof", "bgsave", "bitcount", "bitfield_ro", "bitop", "bitpos",
    "cluster", "debug", "dump", "eval_ro", "evalsha_ro", "expire", "expireat", "expiretime",
    "failover", "fcall_ro", "flushall", "flushdb", "function", "geoadd", "geodist", "geohash",
    "geopos", "georadius", "georadius_ro", "georadiusbymember", "georadiusbymember_ro", "geosearch",
    "geosearchstore", "getbit", "getex", "getrange", "hdel", "hexists", "hget", "hgetall", "hkeys",
    "hlen", "hmget", "hmset", "hrandfield", "hscan", "hset", "hstrlen", "hvals", "lastsave",
    "latency", "lcs", "lindex", "llen", "lolwut", "lpos", "lpush", "lrange", "lrem", "ltrim",
    "migrate", "monitor", "object", "persist", "pexpire", "pexpireat", "pexpiretime", "pfadd",
    "pfcount", "pfdebug", "pfmerge", "pfselftest", "psetex", "psubscribe", "psync", "publish",
    "pubsub", "punsubscribe", "randomkey", "readonly", "readwrite", "replconf", "replicaof",
    "restore", "restore-asking", "rpush", "sadd", "save", "scard", "script", "sdiff", "sdiffstore",
    "setex", "shutdown", "sinter", "sintercard", "sinterstore", "sismember", "slaveof", "slowlog",
    "smembers", "smismember", "sort", "sort_ro", "spublish", "srandmember", "srem", "sscan",
    "ssubscribe", "subscribe", "substr", "sunion", "sunionstore", "sunsubscribe", "swapdb", "sync",
    "unsubscribe", "xack", "xadd", "xautoclaim", "xclaim", "xdel", "xgroup", "xinfo", "xlen",
    "xpending", "xrange", "xread", "xreadgroup", "xrevrange", "xsetid", "xtrim", "zadd", "zcard",
    "zcount", "zdiff", "zdiffstore", "zinter", "zintercard", "zinterstore", "zlexcount", "zmscore",
    "zrandmember", "zrange", "zrangebylex", "zrangebyscore", "zrangestore", "zrank", "zrem",
    "zremrangebylex", "zremrangebyrank", "zremrangebyscore", "zrevrange", "zrevrangebylex",
    "zrevrangebyscore", "zrevrank", "zscan", "zscore", "zunion", "zunionstore",
];
