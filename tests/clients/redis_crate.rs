//! The `redis` crate, the client that Rust programs use, in both versions of the protocol and in both modes.

use redis::{Commands, Connection, ConnectionLike, ProtocolVersion, PushKind, RedisResult, Value};

use super::common::{NodeProcess, PATIENCE, cluster, eventually};
use super::strong;

/// A connection that fails rather than waits.
fn open(node: &NodeProcess, protocol: ProtocolVersion) -> RedisResult<Connection> {
    let version = if protocol == ProtocolVersion::RESP3 { "resp3" } else { "resp2" };
    let client = redis::Client::open(format!("redis://{}/?protocol={version}", node.resp))?;
    let connection = client.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// What a command is refused with that needs an order.
fn refused<T: std::fmt::Debug>(result: RedisResult<T>) -> String {
    let error = result.expect_err("it needs an order");
    assert_eq!(error.code(), Some("NEEDSSTRONG"), "{error}");
    error.detail().unwrap_or_default().to_owned()
}

/// What means the same in both modes.
fn speak(node: &NodeProcess, protocol: ProtocolVersion) -> RedisResult<()> {
    let mut one = open(node, protocol)?;
    let at = |name: &str| format!("{protocol:?}:{name}");
    assert!(one.check_connection());
    let info: String = redis::cmd("CLIENT").arg("INFO").query(&mut one)?;
    assert!(info.contains("lib-name=redis-rs"), "{info}");

    // Every type.
    assert_eq!(one.set(at("text"), "words"), Ok(()));
    assert_eq!(one.get(at("text")), Ok(Some("words".to_owned())));
    assert_eq!(one.get(at("none")), Ok(None::<String>));
    let bytes: Vec<u8> = (0..=255).collect();
    assert_eq!(one.set(&bytes, &bytes), Ok(()));
    assert_eq!(one.get(&bytes), Ok(bytes));
    assert_eq!(one.mset(&[(at("a"), 1), (at("b"), 2)]), Ok(()));
    let values: Vec<Option<i64>> = one.mget(&[at("a"), at("none"), at("b")])?;
    assert_eq!(values, [Some(1), None, Some(2)]);
    assert_eq!(one.incr(at("count"), 42), Ok(42));
    assert_eq!(one.set_ex(at("short"), "v", 100), Ok(()));
    let left: i64 = one.ttl(at("short"))?;
    assert!((90..=100).contains(&left), "{left}");
    assert_eq!(one.hset_multiple(at("hash"), &[("f", 1), ("g", 2)]), Ok(()));
    let hash: std::collections::BTreeMap<String, i64> = one.hgetall(at("hash"))?;
    assert_eq!(hash.into_iter().collect::<Vec<_>>(), [("f".to_owned(), 1), ("g".to_owned(), 2)]);
    assert_eq!(one.sadd(at("set"), &["x", "y", "x"]), Ok(2));
    let set: std::collections::BTreeSet<String> = one.smembers(at("set"))?;
    assert_eq!(set.into_iter().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(one.sismember(at("set"), "x"), Ok(true));
    assert_eq!(one.rpush(at("list"), &["a", "b", "c"]), Ok(3));
    let list: Vec<String> = one.lrange(at("list"), 0, -1)?;
    assert_eq!(list, ["a", "b", "c"]);
    assert_eq!(one.zadd_multiple(at("sorted"), &[(1.5, "m"), (-0.5, "n")]), Ok(2));
    let sorted: Vec<(String, f64)> = one.zrange_withscores(at("sorted"), 0, -1)?;
    assert_eq!(sorted, [("n".to_owned(), -0.5), ("m".to_owned(), 1.5)]);
    assert_eq!(one.zscore(at("sorted"), "m"), Ok(1.5));
    let wrong: RedisResult<String> = one.hget(at("set"), "x");
    assert_eq!(wrong.expect_err("a set is no hash").code(), Some("WRONGTYPE"));

    // Many requests at once, and a scan over what they wrote.
    let mut many = redis::pipe();
    for number in 0..2_000 {
        many.set(at(&format!("n{number}")), number).ignore().get(at(&format!("n{number}")));
    }
    let replies: Vec<i64> = many.query(&mut one)?;
    assert!(replies.into_iter().eq(0..2_000));
    let keys = one.scan_match::<_, String>(at("n[0-9]*"))?;
    assert_eq!(keys.collect::<RedisResult<Vec<_>>>()?.len(), 2_000);

    // A transaction.
    let mut together = redis::pipe();
    together.atomic().incr(at("count"), 1).hset(at("hash"), "h", 3).get(at("text"));
    let replies: (i64, i64, String) = together.query(&mut one)?;
    assert_eq!(replies, (43, 1, "words".to_owned()));

    hear(node, protocol, &mut one)
}

/// Messages reach who has subscribed, on a connection of its own or, in RESP3, among its replies.
fn hear(node: &NodeProcess, protocol: ProtocolVersion, one: &mut Connection) -> RedisResult<()> {
    let channel = format!("{protocol:?}:news");
    let mut hearer = open(node, protocol)?;
    if protocol == ProtocolVersion::RESP3 {
        let (sender, pushes) = std::sync::mpsc::channel();
        hearer.set_push_sender(sender);
        hearer.subscribe_resp3(&channel)?;
        assert_eq!(one.publish(&channel, "hello"), Ok(1));
        let heard = eventually("a message among the replies", || {
            assert!(hearer.check_connection());
            pushes.try_iter().find(|push| push.kind == PushKind::Message)
        });
        let text = |text: &str| Value::BulkString(text.into());
        assert_eq!(heard.data, [text(&channel), text("hello")]);
        return Ok(());
    }
    let mut subscribed = hearer.as_pubsub();
    subscribed.subscribe(&channel)?;
    subscribed.psubscribe("*:news")?;
    assert_eq!(one.publish(&channel, "hello"), Ok(2));
    let heard = [subscribed.get_message()?, subscribed.get_message()?];
    for message in &heard {
        assert_eq!(message.get_channel_name(), channel);
        assert_eq!(message.get_payload_bytes(), b"hello");
    }
    assert_eq!(heard.map(|message| message.from_pattern()), [false, true]);
    Ok(())
}

/// In eventual mode what needs an order is refused with a sentence, and all else works.
#[test]
fn the_redis_crate_works_in_eventual_mode() {
    let nodes = cluster(1);
    for protocol in [ProtocolVersion::RESP3, ProtocolVersion::RESP2] {
        speak(&nodes[0], protocol).unwrap();
        let mut one = open(&nodes[0], protocol).unwrap();
        let text = format!("{protocol:?}:text");
        for (what, said) in [
            ("SETNX", refused::<bool>(one.set_nx(&text, "v"))),
            ("LPOP", refused::<String>(one.lpop(&text, None))),
            ("GETSET", refused::<String>(one.getset(&text, "v"))),
            ("WATCH", refused::<()>(redis::transaction(&mut one, &[&text], |_, _| Ok(Some(()))))),
        ] {
            assert!(said.starts_with(&format!("'{what}' ")), "{said}");
            assert!(said.contains("quorumor mode strong"), "{said}");
        }
        assert_eq!(one.get(&text), Ok("words".to_owned()));
    }
}

/// In strong mode everything works, and a transaction is done only if what it watches stays.
#[test]
fn the_redis_crate_works_in_strong_mode() {
    let node = strong("alone");
    for protocol in [ProtocolVersion::RESP3, ProtocolVersion::RESP2] {
        speak(&node, protocol).unwrap();
        let (mut one, mut two) = (open(&node, protocol).unwrap(), open(&node, protocol).unwrap());
        let at = |name: &str| format!("{protocol:?}:{name}");
        assert_eq!(one.set_nx(at("text"), "v"), Ok(false));
        assert_eq!(one.lpop(at("list"), None), Ok("a".to_owned()));
        assert_eq!(one.append(at("text"), "!"), Ok(6));
        assert_eq!(one.incr(at("float"), 0.5), Ok(0.5));
        assert_eq!(one.hincr(at("hash"), "f", 4), Ok(5));
        assert_eq!(one.rename(at("text"), at("other")), Ok(()));
        let popped: Vec<(String, f64)> = one.zpopmin(at("sorted"), 1).unwrap();
        assert_eq!(popped, [("n".to_owned(), -0.5)]);
        // Somebody else writes between the first look and the first EXEC, so it takes two.
        let (count, mut attempts) = (at("count"), 0);
        let (sum,): (i64,) = redis::transaction(&mut one, &[&count], |one, together| {
            attempts += 1;
            let seen: i64 = one.get(&count)?;
            if attempts == 1 {
                let _: i64 = two.incr(&count, 100)?;
            }
            together.set(&count, seen + 1).ignore().get(&count).query(one)
        })
        .unwrap();
        assert_eq!((sum, attempts), (144, 2));
    }
}
