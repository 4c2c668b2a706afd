//! Stories of what tools ask a server about itself, and of values that make no sense: Redis' own answers.

use super::*;

/// Story: what can change while the node runs does, all of it or nothing, and counts at once.
#[test]
fn some_settings_change() {
    let door = open(Settings::default());
    let failed = |setting: &str, why: &str| {
        format!("-ERR CONFIG SET failed (possibly related to argument '{setting}') - {why}\r\n")
    };
    let immutable = "can't set immutable config; settings are given when the node starts";
    let full = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";
    let mut client = Client::to(&door);
    client
        .says("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n")
        .says("CONFIG SET maxmemory 1kb maxclients 1", "+OK\r\n")
        .says(
            "CONFIG GET maxmemory maxclients",
            "*4\r\n$10\r\nmaxclients\r\n$1\r\n1\r\n$9\r\nmaxmemory\r\n$4\r\n1024\r\n",
        )
        .says(&format!("SET k {}", "v".repeat(2_000)), "+OK\r\n")
        .says("SET k v", full);
    assert!(client.asks("INFO memory").contains("maxmemory:1024\r\n"));
    assert!(client.asks("INFO clients").contains("maxclients:1\r\n"));
    Client::to(&door).hears("-ERR max number of clients reached\r\n", "a second").is_closed();
    client
        .says("CONFIG SET MaxMemory 0 databases 2", &failed("databases", immutable))
        .says("SET k v", full)
        .says("CONFIG SET MaxMemory 0", "+OK\r\n")
        .says("SET k v", "+OK\r\n")
        .says("CONFIG SET maxmemory x", &failed("maxmemory", "argument must be a memory value"))
        .says(
            "CONFIG SET maxclients x",
            &failed("maxclients", "argument couldn't be parsed into an integer"),
        )
        .says(
            "CONFIG SET maxclients 0",
            &failed("maxclients", "argument must be between 1 and 4294967295 inclusive"),
        )
        .says("CONFIG SET save \"\" save \"\"", &failed("save", "duplicate parameter"))
        .says("CONFIG SET requirepass x", &failed("requirepass", immutable))
        .says("CONFIG SET timeout 100", &failed("timeout", immutable))
        .says("CONFIG SET timeout 0", "+OK\r\n")
        .says("CONFIG SET a", "-ERR wrong number of arguments for 'config|set' command\r\n")
        .says("CONFIG REWRITE", "-ERR The server is running without a config file\r\n");
    assert_eq!(client.asks("INFO nosuch"), "");
}

/// Story: of what does not exist here it is said that there is none, in the shapes that Redis has.
#[test]
fn there_is_none_of_it() {
    let door = open(Settings::default());
    let not_yet = |what: &str| {
        format!("-ERR '{what}' is not supported yet by Quorumor; COMMAND LIST names what is\r\n")
    };
    let count = "-ERR count should be greater than or equal to -1\r\n";
    let mut client = Client::to(&door);
    client
        .says("SLOWLOG GET\r\nSLOWLOG GET -1\r\nSLOWLOG LEN\r\nSLOWLOG RESET", "*0\r\n*0\r\n:0\r\n+OK\r\n")
        .says("SLOWLOG GET -2\r\nSLOWLOG GET x", &count.repeat(2))
        .says("LATENCY LATEST\r\nLATENCY HISTORY x\r\nLATENCY RESET", "*0\r\n*0\r\n:0\r\n")
        .says("LATENCY HISTOGRAM\r\nMODULE LIST", "*0\r\n*0\r\n")
        .says("LATENCY GRAPH x", "-ERR No samples available for event 'x'\r\n")
        .says("ACL WHOAMI\r\nACL USERS", "$7\r\ndefault\r\n*1\r\n$7\r\ndefault\r\n")
        .says("ACL LIST", "*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n")
        .says("ACL CAT nosuch", "-ERR Unknown category 'nosuch'\r\n")
        .says("ACL CAT transaction", "*5\r\n$5\r\nmulti\r\n$4\r\nexec\r\n$7\r\ndiscard\r\n$5\r\nwatch\r\n$7\r\nunwatch\r\n")
        .says("ACL SETUSER x", &not_yet("ACL SETUSER"))
        .says("CLIENT TRACKING off", "+OK\r\n")
        .says("CLIENT TRACKING x", "-ERR syntax error\r\n")
        .says("CLIENT TRACKING on BCAST", "-ERR 'CLIENT TRACKING' is not supported yet by Quorumor: nobody tells clients which of what they have cached has changed\r\n")
        .says("CLIENT TRACKINGINFO", "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n")
        .says("CLIENT GETREDIR\r\nCLIENT UNBLOCK 1", ":-1\r\n:0\r\n")
        .says("CLIENT CACHING YES", &not_yet("CLIENT CACHING"))
        .says("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n")
        .says("CLUSTER NODES", "-ERR This instance has cluster support disabled\r\n")
        .says("COMMAND INFO nosuch", "*1\r\n$-1\r\n")
        .says("COMMAND GETKEYS LMPOP 2 a b LEFT", "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    assert!(client.asks("LATENCY DOCTOR").contains("not kept"));
    // The password is in no answer.
    let door = with_password();
    let mut guarded = Client::to(&door);
    guarded
        .says("AUTH secret", "+OK\r\n")
        .says("ACL LIST", "*1\r\n$27\r\nuser default on ~* &* +@all\r\n");
}

/// Story: whoever waits is let go by another client, as if its time were over or with an error that says so,
/// and goes on; later waiting is not touched by that.
#[test]
fn whoever_waits_is_let_go() {
    let door = open(Settings::default());
    let (mut waiting, mut other) = (Client::to(&door), Client::to(&door));
    let id = waiting.asks("CLIENT INFO").split_once(' ').unwrap().0["id=".len()..].to_owned();
    waiting.says("SET k v", "+OK\r\n");
    other.says(&format!("CLIENT UNBLOCK {id}"), ":0\r\n");
    let stamp = waiting.asks("QUORUMOR.STAMP");
    let never = format!("{}#999", stamp.split_once('#').unwrap().0);
    let unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
    for (waits, how, answer) in [
        ("WAIT 1 0", "", ":0\r\n"),
        ("WAIT 1 0", " TIMEOUT", ":0\r\n"),
        ("WAIT 1 60000", " ERROR", unblocked),
        ("WAIT 1 0", " timeout", ":0\r\n"),
        (&format!("QUORUMOR.WAITFOR {never} 0"), " error", unblocked),
    ] {
        waiting.send(format!("{waits}\r\nPING\r\n"));
        until("it waits", || other.asks("INFO clients").contains("blocked_clients:1"));
        other.says(&format!("CLIENT UNBLOCK {id}{how}"), ":1\r\n");
        waiting.hears(&format!("{answer}+PONG\r\n"), waits);
        until("it waits no more", || other.asks("INFO clients").contains("blocked_clients:0"));
    }
    waiting.says("WAIT 1 1", ":0\r\n");
}

/// Story: the figures of memory are those of INFO, in either version of the protocol, and near the limit that
/// is said.
#[test]
fn memory_is_told() {
    let door = open(Settings::default());
    let mut client = Client::to(&door);
    client.says("SET k v\r\nSET other v", "+OK\r\n+OK\r\n");
    let info = client.asks("INFO memory");
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let half = used.parse::<usize>().unwrap() / 2;
    client.says(
        "MEMORY STATS",
        &format!(
            "*8\r\n$15\r\ntotal.allocated\r\n:{used}\r\n$10\r\nkeys.count\r\n:2\r\n\
         $18\r\nkeys.bytes-per-key\r\n:{half}\r\n$13\r\ndataset.bytes\r\n:{used}\r\n"
        ),
    );
    assert!(client.asks("MEMORY DOCTOR").contains("without a limit"));
    client.says("CONFIG SET maxmemory 1gb", "+OK\r\n");
    let told = client.asks("MEMORY DOCTOR");
    assert!(told.contains("of 1073741824") && !told.contains("OOM"), "{told}");
    client.says(&format!("CONFIG SET maxmemory {used}"), "+OK\r\n");
    assert!(client.asks("MEMORY DOCTOR").contains("OOM"));
}

/// Story: numbers that are none, or too great, or negative where that makes no sense, change nothing.
#[test]
fn numbers_are_judged_as_in_redis() {
    let door = open(Settings::default());
    let not_integer = "-ERR value is not an integer or out of range\r\n";
    let not_float = "-ERR value is not a valid float\r\n";
    let expire = |command: &str| format!("-ERR invalid expire time in '{command}' command\r\n");
    let range = "-ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807\r\n";
    let mut client = Client::to(&door);
    client.says("MSET big 9223372036854775807 small -9223372036854775808 word abc", "+OK\r\n");
    for by in ["x", "1.0", "\"\"", "+1", "01", "-0", "\" 1\"", "9223372036854775808"] {
        client.says(&format!("INCRBY big {by}"), not_integer);
        client.says(&format!("EXPIRE big {by}"), not_integer);
        client.says(&format!("SETEX big {by} v"), not_integer);
        client.says(&format!("SET big v PX {by}"), not_integer);
    }
    for add in ["INCR big", "INCRBY big 1", "DECR small", "INCRBY small -1"] {
        client.says(add, "-ERR increment or decrement would overflow\r\n");
    }
    client.says("DECRBY small -9223372036854775808", "-ERR decrement would overflow\r\n");
    client.says("INCR word", not_integer);
    for score in ["x", "nan", "1e400", "-1e400", "\"\"", "\" 1\"", "1e"] {
        client.says(&format!("ZADD z {score} m"), not_float);
    }
    client
        .says("ZADD z inf m -Inf n\r\nZRANGE z 0 -1", ":2\r\n*2\r\n$1\r\nn\r\n$1\r\nm\r\n")
        .says("ZRANGE z 0 1 BYSCORE BYLEX", "-ERR syntax error\r\n")
        .says("SETEX k 0 v", &expire("setex"))
        .says("SETEX k -1 v", &expire("setex"))
        .says("PSETEX k 9223372036854775807 v", &expire("psetex"))
        .says("SET k v EX 9223372036854775807", &expire("set"))
        .says("GETEX word EX 0", &expire("getex"))
        .says("EXPIRE word 9223372036854775807", &expire("expire"))
        .says("EXPIRE word -9223372036854775808", &expire("expire"))
        .says("PEXPIRE word 9223372036854775807", &expire("pexpire"))
        .says("EXPIREAT word 9223372036854775807", &expire("expireat"))
        .says("EXISTS k\r\nTTL word", ":0\r\n:-1\r\n")
        .says("SRANDMEMBER s -9223372036854775808", range)
        .says("HRANDFIELD h -9223372036854775808", range)
        .says("ZRANDMEMBER z -9223372036854775807 WITHSCORES", "-ERR value is out of range\r\n")
        .says("MEMORY USAGE word SAMPLES -1", "-ERR syntax error\r\n")
        .says(
            "MGET big small word",
            "*3\r\n$19\r\n9223372036854775807\r\n$20\r\n-9223372036854775808\r\n$3\r\nabc\r\n",
        )
        // A deadline that has passed deletes.
        .says(
            "EXPIRE word -1\r\nEXISTS word\r\nPEXPIREAT big 0\r\nEXISTS big",
            ":1\r\n:0\r\n:1\r\n:0\r\n",
        );
}
