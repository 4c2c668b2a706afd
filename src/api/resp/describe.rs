//! What `COMMAND` and every `HELP` answer: the lists of commands, told to clients.
//!
//! Shapes are those of Redis 7 (`server.c`: `commandCommand` and its relatives), because client
//! libraries and `redis-cli` read them. Only served commands appear. The syntax trees of arguments
//! are left out: they are optional, and long.

use std::collections::BTreeSet;

use super::command::{Command, Flags, Group, Refusal, find, served};
use super::parse::{Arguments, integer};
use super::reply::Replies;
use super::table::SERVED;
use crate::protocol::glob;

/// Answers `COMMAND`: every served command in full.
pub fn reply_all(replies: &mut Replies) {
    replies.array(SERVED.len());
    SERVED.iter().for_each(|command| reply_info(command, replies));
}

/// Answers `COMMAND COUNT`.
pub fn reply_count(replies: &mut Replies) {
    replies.count(SERVED.len());
}

/// Answers `COMMAND INFO [name ...]`.
pub fn reply_infos(names: Arguments<'_>, replies: &mut Replies) {
    if names.is_empty() {
        return reply_all(replies);
    }
    replies.array(names.len());
    for name in names.iter() {
        match served(name) {
            Some(command) => reply_info(command, replies),
            None => replies.null(),
        }
    }
}

/// Answers `COMMAND DOCS [name ...]`; what is not known is left out, as in Redis.
pub fn reply_docs(names: Arguments<'_>, replies: &mut Replies) {
    if names.is_empty() {
        return reply_docs_of(SERVED.iter(), replies);
    }
    reply_docs_of(names.iter().filter_map(served), replies);
}

/// Answers `COMMAND LIST [FILTERBY ...]`; `arguments` are what follows `LIST`.
pub fn reply_list(arguments: Arguments<'_>, replies: &mut Replies) {
    if arguments.is_empty() {
        return reply_names(|_| true, replies);
    }
    let by = arguments.at(1).to_ascii_lowercase();
    let value = arguments.at(2);
    if arguments.len() != 3 || !arguments.at(0).eq_ignore_ascii_case(b"filterby") {
        return replies.error("ERR syntax error");
    }
    match by.as_slice() {
        b"module" => reply_names(|_| false, replies),
        b"aclcat" => {
            let wanted = |category: &str| category.as_bytes()[1..].eq_ignore_ascii_case(value);
            reply_names(|command| command.categories().any(wanted), replies);
        }
        b"pattern" => {
            let pattern = value.to_ascii_lowercase();
            reply_names(|command| glob::matches(&pattern, command.name.as_bytes()), replies);
        }
        _ => replies.error("ERR syntax error"),
    }
}

/// Answers `COMMAND GETKEYS full-command`; `arguments` are the full command.
pub fn reply_keys(arguments: Arguments<'_>, replies: &mut Replies) {
    let command = match find(arguments) {
        Ok(command) => command,
        Err(Refusal::Arity(_)) => {
            return replies.error("ERR Invalid number of arguments specified for command");
        }
        Err(_) => return replies.error("ERR Invalid command specified"),
    };
    let (first, last, step) = command.keys;
    if command.flags.has(Flags::MOVABLE_KEYS) {
        let count = integer(arguments.at(1)).and_then(|count| usize::try_from(count).ok());
        let keys = arguments.skip(2);
        let Some(count) = count.filter(|count| (1..=keys.len()).contains(count)) else {
            return replies.error("ERR Invalid arguments specified for command");
        };
        replies.array(count);
        return keys.iter().take(count).for_each(|key| replies.bulk(key));
    }
    if first == 0 {
        return replies.error("ERR The command has no key arguments");
    }
    let position = |index: i16| match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => arguments.len() - usize::from(index.unsigned_abs()),
    };
    let keys = (position(first)..=position(last)).step_by(usize::from(step.unsigned_abs()));
    replies.array(keys.clone().count());
    keys.for_each(|index| replies.bulk(arguments.at(index)));
}

/// Answers the `HELP` of a container from what the table says about its subcommands.
pub fn reply_help(container: &str, replies: &mut Replies) {
    let subcommands = served(container.as_bytes()).map_or(&[][..], |command| command.subcommands);
    let name = container.to_ascii_uppercase();
    replies.array(1 + 2 * subcommands.len());
    replies.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for command in subcommands {
        let line = format!("{} {}", command.own_name().to_ascii_uppercase(), command.usage);
        replies.simple(line.trim_end());
        replies.simple(&format!("    {}", command.summary));
    }
}

/// Answers `ACL CAT [category]`: the categories that commands here belong to, or the commands of one.
pub fn reply_categories(wanted: Arguments<'_>, replies: &mut Replies) {
    let categories: BTreeSet<&str> =
        SERVED.iter().flat_map(Command::categories).map(|it| it.trim_start_matches('@')).collect();
    let Some(name) = wanted.get(0) else {
        replies.array(categories.len());
        return categories.into_iter().for_each(|category| replies.bulk(category));
    };
    match categories.into_iter().find(|it| it.as_bytes().eq_ignore_ascii_case(name)) {
        Some(known) => {
            let among =
                |it: &Command| it.categories().any(|it| it.trim_start_matches('@') == known);
            reply_names(among, replies);
        }
        None => {
            let mut text = b"ERR Unknown category '".to_vec();
            text.extend_from_slice(&name[..name.len().min(128)]);
            text.push(b'\'');
            replies.error(text);
        }
    }
}

fn reply_names(wanted: impl Fn(&Command) -> bool, replies: &mut Replies) {
    let all = SERVED.iter().flat_map(|command| std::iter::once(command).chain(command.subcommands));
    let names: Vec<&str> = all.filter(|&command| wanted(command)).map(|it| it.name).collect();
    replies.array(names.len());
    names.iter().for_each(|name| replies.bulk(name));
}

/// The ten elements with which Redis 7 describes a command.
fn reply_info(command: &Command, replies: &mut Replies) {
    let (first, last, step) = command.keys;
    replies.array(10);
    replies.bulk(command.name);
    replies.integer(i64::from(command.arity));
    reply_words(command.flags.names(), replies);
    replies.integer(i64::from(first));
    replies.integer(i64::from(last));
    replies.integer(i64::from(step));
    reply_words(command.categories(), replies);
    // Hints for cluster clients: none.
    replies.array(0);
    reply_key_specs(command, replies);
    replies.array(command.subcommands.len());
    command.subcommands.iter().for_each(|sub| reply_info(sub, replies));
}

/// Where the keys are, in the words of Redis 7's key specifications.
fn reply_key_specs(command: &Command, replies: &mut Replies) {
    let (first, last, step) = command.keys;
    let movable = command.flags.has(Flags::MOVABLE_KEYS);
    if first == 0 && !movable {
        return replies.array(0);
    }
    let access: &[&str] = if command.flags.has(Flags::WRITE) { &["OW"] } else { &["RO", "access"] };
    replies.array(1);
    replies.map(3);
    replies.bulk("flags");
    reply_words(access.iter().copied(), replies);
    replies.bulk("begin_search");
    replies.map(2);
    replies.bulk("type");
    replies.bulk("index");
    replies.bulk("spec");
    replies.map(1);
    replies.bulk("index");
    replies.integer(i64::from(if movable { 1 } else { first }));
    replies.bulk("find_keys");
    replies.map(2);
    replies.bulk("type");
    if movable {
        replies.bulk("keynum");
        replies.bulk("spec");
        replies.map(3);
        for (name, at) in [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)] {
            replies.bulk(name);
            replies.integer(at);
        }
        return;
    }
    replies.bulk("range");
    replies.bulk("spec");
    replies.map(3);
    replies.bulk("lastkey");
    replies.integer(i64::from(if last < 0 { last } else { last - first }));
    replies.bulk("keystep");
    replies.integer(i64::from(step));
    replies.bulk("limit");
    replies.integer(0);
}

fn reply_docs_of<'a>(commands: impl Iterator<Item = &'a Command> + Clone, replies: &mut Replies) {
    replies.map(commands.clone().count());
    for command in commands {
        let container = !command.subcommands.is_empty();
        replies.bulk(command.name);
        replies.map(if container { 4 } else { 3 });
        replies.bulk("summary");
        replies.bulk(command.summary);
        replies.bulk("since");
        replies.bulk(command.since);
        replies.bulk("group");
        replies.bulk(match command.group {
            Group::Connection => "connection",
            Group::Generic => "generic",
            Group::Server => "server",
            Group::Text => "string",
            Group::Hash => "hash",
            Group::List => "list",
            Group::Own => "quorumor",
            Group::Pubsub => "pubsub",
            Group::Set => "set",
            Group::Sorted => "sorted-set",
            Group::Together => "transactions",
        });
        if container {
            replies.bulk("subcommands");
            reply_docs_of(command.subcommands.iter(), replies);
        }
    }
}

fn reply_words<'a>(words: impl Iterator<Item = &'a str> + Clone, replies: &mut Replies) {
    replies.set(words.clone().count());
    words.for_each(|word| replies.simple(word));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resp::buffers::Buffers;
    use crate::api::resp::parse::{BULK_BYTES_MAX, Requests, Trust};
    use crate::api::resp::reply::Protocol;

    /// What `describe` answers to the words of a typed line.
    fn told(line: &str, describe: impl Fn(Arguments<'_>, &mut Replies)) -> String {
        let mut requests = Requests::new(BULK_BYTES_MAX);
        let pool = Buffers::new();
        let line = format!("x {line}\n");
        requests.space(&pool).unwrap()[..line.len()].copy_from_slice(line.as_bytes());
        requests.filled(line.len());
        let arguments = requests.next(Trust::Authenticated).unwrap().unwrap();
        let mut replies = Replies::new(Vec::new(), Protocol::Resp3);
        describe(arguments.skip(1), &mut replies);
        String::from_utf8(replies.into_buffer()).unwrap().replace("\r\n", " ")
    }

    /// Story: keys are found where the table says, over the whole command line.
    #[test]
    fn keys_are_found() {
        for (line, expected) in [
            ("get a", "*1 $1 a "),
            ("mset a 1 b 2 c 3", "*3 $1 a $1 b $1 c "),
            ("DEL a b", "*2 $1 a $1 b "),
            ("memory usage k", "*1 $1 k "),
            ("sintercard 2 a b limit 1", "*2 $1 a $1 b "),
            ("lmpop 1 a left", "*1 $1 a "),
            ("lmpop 3 a left", "-ERR Invalid arguments specified for command "),
            ("lmpop x a left", "-ERR Invalid arguments specified for command "),
            ("ping x", "-ERR The command has no key arguments "),
            ("get a b", "-ERR Invalid number of arguments specified for command "),
            ("nosuch a", "-ERR Invalid command specified "),
        ] {
            assert_eq!(told(line, reply_keys), expected, "{line}");
        }
    }

    /// Story: one command is described in the shape that Redis 7 uses.
    #[test]
    fn a_command_is_described() {
        assert_eq!(
            told("GET nosuch", reply_infos),
            "*2 *10 $3 get :2 ~2 +readonly +fast :1 :1 :1 ~3 +@string +@read +@fast *0 *1 %3 $5 flags \
             ~2 +RO +access $12 begin_search %2 $4 type $5 index $4 spec %1 $5 index :1 $9 find_keys %2 \
             $4 type $5 range $4 spec %3 $7 lastkey :0 $7 keystep :1 $5 limit :0 *0 _ "
        );
        assert_eq!(
            told("strlen nosuch", reply_docs),
            "%1 $6 strlen %3 $7 summary $30 Returns the length of a value. $5 since $5 2.2.0 $5 group \
             $6 string "
        );
    }

    /// Story: names are listed by pattern, category and module.
    #[test]
    fn names_are_listed() {
        let list = |line: &str| told(line, reply_list);
        assert_eq!(list("filterby pattern ?get"), "*2 $4 mget $4 hget ");
        assert_eq!(list("FILTERBY pattern Client|I*"), "*2 $9 client|id $11 client|info ");
        assert!(list("filterby aclcat string").starts_with("*21 $3 get $3 set $4 mget $5 setex "));
        assert_eq!(list("filterby module any"), "*0 ");
        assert_eq!(list("filterby other x"), "-ERR syntax error ");
        assert_eq!(list("filterby"), "-ERR syntax error ");
        assert!(list("").contains(" $9 client|id "));
    }

    /// Law: what `COMMAND` says of each command is well-formed, announced counts included.
    #[test]
    fn everything_is_well_formed() {
        for (line, describe) in [
            ("", reply_infos as fn(Arguments<'_>, &mut Replies)),
            ("", reply_docs),
            ("", reply_list),
        ] {
            let text = told(line, describe);
            let mut words = text.split(' ').peekable();
            skip_one(&mut words);
            assert_eq!(words.next(), Some(""), "nothing is left over");
        }
    }

    /// Reads over one reply; a string's words end where the next reply's mark begins, which is good
    /// enough for texts that hold no such marks.
    fn skip_one<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) {
        let head = words.next().unwrap();
        let (kind, rest) = head.split_at(1);
        match kind {
            "*" | "~" => (0..rest.parse().unwrap()).for_each(|_: usize| skip_one(words)),
            "%" => (0..2 * rest.parse::<usize>().unwrap()).for_each(|_| skip_one(words)),
            "$" => {
                let mut length = words.next().unwrap().len();
                while length < rest.parse().unwrap() {
                    length += 1 + words.next().unwrap().len();
                }
                assert_eq!(length, rest.parse::<usize>().unwrap());
            }
            "+" | ":" => {}
            other => panic!("{other}{rest} is no reply expected here"),
        }
    }
}
