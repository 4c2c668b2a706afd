//! Stories of subscribers: messages from any peer, and what changes.

use super::*;

/// A pair of linked nodes, with a door each.
fn pair() -> ([Node; 2], [Door; 2]) {
    let first = node(Vec::new());
    let second = node(vec![first.address()]);
    until("the peers are linked", || {
        [&first, &second].iter().all(|node| node.enter().shard().peers().count() == 1)
    });
    let doors = [open_at(&first, Settings::default()), open_at(&second, Settings::default())];
    ([first, second], doors)
}

/// Bulk strings as an array, or with another mark as something else.
fn words(mark: char, words: &[&str]) -> String {
    let words: String = words.iter().map(|it| format!("${}\r\n{it}\r\n", it.len())).collect();
    format!("{mark}{}\r\n{words}", words.matches('$').count())
}

const HELLO: &str = "HELLO 3 SETNAME x";

/// A client that speaks RESP3.
fn resp3(door: &Door) -> Client {
    let mut client = Client::to(door);
    client.send(format!("{HELLO}\r\nECHO done\r\n"));
    let mut heard = Vec::new();
    while !heard.ends_with(b"$4\r\ndone\r\n") {
        let mut byte = [0];
        client.0.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    client
}

/// Story: what is published at one peer is heard at both, once for each subscription that it matches, in
/// the version of each subscriber, and in the order of its publisher.
#[test]
fn messages_reach_subscribers_at_every_peer() {
    let (_nodes, [here, there]) = pair();
    let (mut near, mut far, mut new) = (Client::to(&here), Client::to(&there), resp3(&there));
    let mut publisher = Client::to(&here);
    near.says("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    far.says(
        "SUBSCRIBE other news news",
        "*3\r\n$9\r\nsubscribe\r\n$5\r\nother\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:2\r\n\
         *3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:2\r\n",
    )
    .says("PSUBSCRIBE n*", "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:3\r\n");
    new.says("SUBSCRIBE news", ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    publisher.says("PUBLISH unheard x", ":0\r\n");
    let mut sent = String::new();
    let (mut to_near, mut to_far, mut to_new) = (String::new(), String::new(), String::new());
    for n in 0..100 {
        let text = n.to_string();
        sent += &format!("PUBLISH news {n}\r\n");
        to_near += &words('*', &["message", "news", &text]);
        to_far += &words('*', &["message", "news", &text]);
        to_far += &words('*', &["pmessage", "n*", "news", &text]);
        to_new += &words('>', &["message", "news", &text]);
    }
    // At this peer there is one of them.
    publisher.send(sent).hears(&":1\r\n".repeat(100), "replies");
    near.hears(&to_near, "near");
    // What nobody near has subscribed to is heard far away as well.
    publisher.says("PUBLISH other last", ":0\r\n");
    to_far += &words('*', &["message", "other", "last"]);
    far.hears(&to_far, "far");
    new.hears(&to_new, "RESP3").says("GET k", "_\r\n");
    far.says("UNSUBSCRIBE news", "*3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:2\r\n");
    publisher.says("PUBLISH news end", ":1\r\n");
    far.hears(&words('*', &["pmessage", "n*", "news", "end"]), "one subscription less");
    let long = "x".repeat(1_000_000);
    publisher.send(format!("*3\r\n$7\r\nPUBLISH\r\n$4\r\nnews\r\n$1000000\r\n{long}\r\n")).hears(
        "-ERR too long: a message, which travels to all peers, may take 1000000 bytes\r\n",
        "a long message",
    );
}

/// Story: a subscriber of RESP2 may only change its subscriptions, and is as others after the last.
#[test]
fn subscribers_are_told_what_they_may() {
    let door = open(Settings::default());
    let mut client = Client::to(&door);
    let refused = |name: &str| {
        format!(
            "-ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context\r\n"
        )
    };
    client
        .says("UNSUBSCRIBE", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n")
        .says("PUNSUBSCRIBE p", "*3\r\n$12\r\npunsubscribe\r\n$1\r\np\r\n:0\r\n")
        .says("PSUBSCRIBE a* b*", "*3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:1\r\n*3\r\n$10\r\npsubscribe\r\n$2\r\nb*\r\n:2\r\n")
        .says("GET k", &refused("get"))
        .says("CLIENT ID", &refused("client|id"))
        .says("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        .says("PING hi", "*2\r\n$4\r\npong\r\n$2\r\nhi\r\n")
        .says("SUBSCRIBE", "-ERR wrong number of arguments for 'subscribe' command\r\n");
    let mut other = Client::to(&door);
    let list = other.asks("CLIENT LIST TYPE pubsub");
    assert!(list.contains(" flags=P ") && list.contains(" sub=0 psub=2 "), "{list}");
    assert_eq!(other.asks("CLIENT LIST TYPE normal").lines().count(), 1);
    other
        .says("PUBSUB NUMPAT", ":2\r\n")
        .says("PUBSUB CHANNELS", "*0\r\n")
        .says("PUBSUB FOO", "-ERR unknown subcommand 'FOO'. Try PUBSUB HELP.\r\n");
    client
        .says("PUNSUBSCRIBE", "*3\r\n$12\r\npunsubscribe\r\n$2\r\na*\r\n:1\r\n*3\r\n$12\r\npunsubscribe\r\n$2\r\nb*\r\n:0\r\n")
        .says("PING", "+PONG\r\n")
        .says("SUBSCRIBE one two", "*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n*3\r\n$9\r\nsubscribe\r\n$3\r\ntwo\r\n:2\r\n");
    other
        .says("PUBSUB CHANNELS t*", "*1\r\n$3\r\ntwo\r\n")
        .says("PUBSUB NUMSUB one none", "*4\r\n$3\r\none\r\n:1\r\n$4\r\nnone\r\n:0\r\n")
        .says("PUBLISH one x", ":1\r\n");
    client
        .hears(&words('*', &["message", "one", "x"]), "a message")
        .says("RESET", "+RESET\r\n")
        .says("GET k", "$-1\r\n");
    other.says("PUBLISH one x", ":0\r\n").says("PUBSUB CHANNELS", "*0\r\n");
    client.says("SUBSCRIBE one", "*3\r\n$9\r\nsubscribe\r\n$3\r\none\r\n:1\r\n");
    drop(client);
    until("it leaves", || door.clients() == 1);
    other.says("PUBLISH one x", ":0\r\n");
    other.says(
        &format!("PSUBSCRIBE {}", "*".repeat(4097)),
        "-ERR pattern is longer than 4096 bytes\r\n",
    );
}

/// Story: what is published within a transaction leaves with it, and not at all if it is dropped or refused;
/// its reply, and those of other commands that are not about keys, stand where they were asked for.
#[test]
fn messages_leave_with_their_transaction() {
    let door = open(Settings::default());
    let (mut client, mut hearer) = (Client::to(&door), Client::to(&door));
    hearer.says("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    let queued = |count: usize| format!("+OK\r\n{}", "+QUEUED\r\n".repeat(count));
    client
        .says("MULTI\r\nPUBLISH c dropped\r\nDISCARD", &format!("{}+OK\r\n", queued(1)))
        .says(
            "MULTI\r\nPUBLISH c refused\r\nTIME\r\nEXEC",
            &format!(
                "{}-ERR 'TIME' cannot be part of a transaction here: commands on keys can\r\n\
                 -EXECABORT Transaction discarded because of previous errors.\r\n",
                queued(1)
            ),
        )
        .says(
            "MULTI\r\nPUBLISH c one\r\nSET k v\r\nPING\r\nECHO x\r\nGET k\r\nUNWATCH\r\nSELECT 0\r\nPUBLISH d none\r\nPUBLISH c two\r\nEXEC",
            &format!(
                "{}*9\r\n:1\r\n+OK\r\n+PONG\r\n$1\r\nx\r\n$1\r\nv\r\n+OK\r\n+OK\r\n:0\r\n:1\r\n",
                queued(9)
            ),
        )
        .says("MULTI\r\nPUBLISH c three\r\nEXEC", &format!("{}*1\r\n:1\r\n", queued(1)));
    for message in ["one", "two", "three"] {
        let told = words('*', &["message", "c", message]);
        hearer.hears(&told, message);
    }
}

/// Story: a subscriber that never reads is cut when too much waits for it; who reads gets everything.
#[test]
fn a_subscriber_that_never_reads_is_cut() {
    let door = open(Settings::default());
    let (mut deaf, mut keen) = (Client::to(&door), Client::to(&door));
    for client in [&mut deaf, &mut keen] {
        client.says("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    }
    let text = "x".repeat(500_000);
    let mut publisher = Client::to(&door);
    publisher.says("PING", "+PONG\r\n");
    let mut sent = 0;
    while door.clients() == 3 {
        publisher.send(format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$500000\r\n{text}\r\n"));
        publisher.hears(":", "a count");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\n") {
            let mut byte = [0];
            publisher.0.read_exact(&mut byte).unwrap();
            rest.push(byte[0]);
        }
        keen.hears(&words('*', &["message", "c", &text]), "everything");
        sent += text.len();
        assert!(sent < 200_000_000, "{sent} bytes wait for a client that does not read");
    }
    assert!(sent > 32_000_000, "cut after {sent} bytes");
    publisher.says("PUBLISH c end", ":1\r\n");
    keen.hears(&words('*', &["message", "c", "end"]), "the end");
}

/// Story: changes of keys are published to clients that ask for them, at the peer where they are made
/// and, in the same words, at the peer where they arrive.
#[test]
fn changes_of_keys_are_told() {
    let (_nodes, [here, there]) = pair();
    let mut writer = Client::to(&here);
    let mut setup = Client::to(&there);
    for client in [&mut writer, &mut setup] {
        client.says("CONFIG SET notify-keyspace-events KEA", "+OK\r\n").says(
            "CONFIG GET notify-keyspace-events",
            "*2\r\n$22\r\nnotify-keyspace-events\r\n$3\r\nAKE\r\n",
        );
    }
    let (mut near, mut far) = (Client::to(&here), Client::to(&there));
    for client in [&mut near, &mut far] {
        client.says("PSUBSCRIBE __key*", "*3\r\n$10\r\npsubscribe\r\n$6\r\n__key*\r\n:1\r\n");
    }
    for (line, reply, key, events) in [
        ("SET k v", "+OK\r\n", "k", &["set"][..]),
        ("SET e v EX 100", "+OK\r\n", "e", &["set", "expire"]),
        ("PERSIST e", ":1\r\n", "e", &["persist"]),
        ("INCRBY n 5", ":5\r\n", "n", &["incrby"]),
        ("HSET h a 1 b 2", ":2\r\n", "h", &["hset"]),
        ("HDEL h a b", ":2\r\n", "h", &["hdel", "del"]),
        ("SADD s x y", ":2\r\n", "s", &["sadd"]),
        ("SREM s x", ":1\r\n", "s", &["srem"]),
        ("LPUSH l a", ":1\r\n", "l", &["lpush"]),
        ("RPUSH l b", ":2\r\n", "l", &["rpush"]),
        ("LREM l 0 a", ":1\r\n", "l", &["lrem"]),
        ("ZADD z 1 a", ":1\r\n", "z", &["zadd"]),
        ("ZREM z a", ":1\r\n", "z", &["zrem", "del"]),
        ("DEL k", ":1\r\n", "k", &["del"]),
        ("DEL k", ":0\r\n", "k", &[]),
    ] {
        writer.says(line, reply);
        for event in events {
            for client in [&mut near, &mut far] {
                let of_key =
                    words('*', &["pmessage", "__key*", &format!("__keyspace@0__:{key}"), event]);
                let of_event =
                    words('*', &["pmessage", "__key*", &format!("__keyevent@0__:{event}"), key]);
                client.hears(&(of_key + &of_event), line);
            }
        }
    }
    writer
        .says(
            "CONFIG SET notify-keyspace-events q",
            "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid \
             event class character. Use 'Ag$lshzxeKEtmdn'.\r\n",
        )
        .says("CONFIG SET notify-keyspace-events \"\"", "+OK\r\n")
        .says("SET k w", "+OK\r\n")
        .says("PUBLISH __key end", ":1\r\n");
    near.hears(&words('*', &["pmessage", "__key*", "__key", "end"]), "nothing more is told");
}
