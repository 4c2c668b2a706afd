//! Stories of the commands that Redis does not have.

use super::*;

/// Story: a write has a name, by which another peer is asked to wait for it; then it is read there.
#[test]
fn a_client_reads_its_writes_at_another_peer() {
    let first = node(Vec::new());
    let second = node(vec![first.address()]);
    let (here, there) =
        (open_at(&first, Settings::default()), open_at(&second, Settings::default()));
    let (mut writer, mut reader) = (Client::to(&here), Client::to(&there));
    writer.says("QUORUMOR.STAMP", "$-1\r\n");
    reader.says(
        "QUORUMOR.TRACE",
        "-ERR this connection has written nothing: name a write by its stamp\r\n",
    );
    for n in 0..20 {
        writer.says(&format!("SET k {n}"), "+OK\r\n");
        let mark = writer.asks("QUORUMOR.STAMP");
        let value = n.to_string();
        reader
            .says(&format!("QUORUMOR.WAITFOR {mark} 20000"), ":1\r\n")
            .says("GET k", &format!("${}\r\n{value}\r\n", value.len()));
    }
    let mark = writer.asks("QUORUMOR.STAMP");
    let never = format!("{}#999", mark.split_once('#').unwrap().0);
    reader
        .says(&format!("QUORUMOR.WAITFOR {never} 1\r\nPING"), ":0\r\n+PONG\r\n")
        .says("QUORUMOR.WAITFOR x 1", "-ERR this is not what QUORUMOR.STAMP answers: expected <epoch>.<counter>@<origin>#<number>\r\n")
        .says(&format!("QUORUMOR.WAITFOR {mark} -1"), "-ERR timeout is negative\r\n")
        .says(&format!("QUORUMOR.WAITFOR {mark} x"), "-ERR timeout is not an integer or out of range\r\n");
    // Whoever waits for ever for what never comes leaves nothing behind.
    reader.send(format!("QUORUMOR.WAITFOR {never} 0\r\n"));
    drop(reader);
    until("it leaves", || there.clients() == 0);
    // Both hold it: the one that is asked, and the other.
    let holds = |node: &Node| {
        format!(
            "*8\r\n$4\r\nnode\r\n$32\r\n{}\r\n$4\r\nname\r\n$4\r\ntest\r\n$5\r\nstate\r\n$5\r\nholds\r\n$17\r\nanswered-after-us\r\n",
            node.id()
        )
    };
    writer.says("QUORUMOR.TRACE", &format!("*2\r\n{}$-1\r\n{}:", holds(&first), holds(&second)));
}

/// Story: what this peer is, whom it knows and what it holds is told in either version of the protocol.
#[test]
fn a_peer_describes_itself() {
    let node = node(Vec::new());
    let door = open_at(&node, Settings::default());
    let (digest, fingerprint) = node.enter().shard().summary();
    let id = node.id();
    let mut client = Client::to(&door);
    client
        .says("QUORUMOR.MODE", "$8\r\neventual\r\n")
        .says("QUORUMOR.DIGEST", &format!(
            "*8\r\n$6\r\ndigest\r\n$16\r\n{digest}\r\n$11\r\nfingerprint\r\n$32\r\n{fingerprint}\r\n\
             $7\r\ncounter\r\n$1\r\n0\r\n$7\r\norigins\r\n*0\r\n"
        ))
        .says("QUORUMOR.MEMBERS", &format!(
            "*1\r\n*10\r\n$4\r\nnode\r\n$32\r\n{id}\r\n$4\r\nname\r\n$4\r\ntest\r\n$5\r\nstate\r\n$2\r\nup\r\n\
             $4\r\nthis\r\n:1\r\n$7\r\naddress\r\n"
        ));
}

/// Story: a key explains itself: what stands, by whom, and that nothing is there.
#[test]
fn a_key_explains_itself() {
    let node = node(Vec::new());
    let door = open_at(&node, Settings::default());
    let origin = node.enter().shard().config().origin;
    let id = node.id();
    let mut client = Client::to(&door);
    let winner = |stamp: &str, bytes: &str| {
        format!(
            "$6\r\nwinner\r\n*10\r\n$5\r\nstamp\r\n${}\r\n{stamp}\r\n$6\r\norigin\r\n$16\r\n{origin}\r\n\
             $4\r\nnode\r\n$32\r\n{id}\r\n$4\r\nname\r\n$4\r\ntest\r\n$5\r\nbytes\r\n{bytes}$6\r\nlosers\r\n*0\r\n",
            stamp.len()
        )
    };
    client.says(
        "QUORUMOR.WHY k",
        "*8\r\n$3\r\nkey\r\n$1\r\nk\r\n$4\r\nkind\r\n$4\r\nnone\r\n$6\r\nwinner\r\n$-1\r\n$6\r\nlosers\r\n*0\r\n",
    );
    client.says("HSET k a 1\r\nHSET k b 22", ":1\r\n:1\r\n");
    let second = client.asks("QUORUMOR.STAMP");
    let first = format!("0.1@{origin}#1");
    let head = "*8\r\n$3\r\nkey\r\n$1\r\nk\r\n$4\r\nkind\r\n$4\r\nhash\r\n";
    client
        .says("QUORUMOR.WHY k", &format!("{head}{}", winner(&second, ":2\r\n")))
        .says("quorumor.why k a", &format!("{head}{}", winner(&first, ":1\r\n")))
        .says("DEL k", ":1\r\n");
    let third = client.asks("QUORUMOR.STAMP");
    let head = "*8\r\n$3\r\nkey\r\n$1\r\nk\r\n$4\r\nkind\r\n$4\r\nnone\r\n";
    client
        .says("QUORUMOR.WHY k a", &format!("{head}{}", winner(&third, "$-1\r\n")))
        .says("QUORUMOR.WHY k a b", "-ERR wrong number of arguments for 'quorumor.why' command\r\n")
        .says("COMMAND GETKEYS QUORUMOR.WHY k a", "*1\r\n$1\r\nk\r\n");
}
