//! ioredis and node-redis, run by node on scripts beside this file.
//!
//! `QUORUMOR_TEST_NODE_CLIENTS` names a folder in whose `node_modules` both are. Each script says all
//! that it has to say twice, in RESP3 and in RESP2, to a node in eventual mode and to one in strong mode.

use std::process::Command;

use super::common::{NodeProcess, cluster, installed, skip, succeed};
use super::strong;

/// Runs a script against both modes, or says how to enable that.
fn run(test: &str, script: &str) {
    let Some(folder) = std::env::var_os("QUORUMOR_TEST_NODE_CLIENTS") else {
        return skip(
            test,
            "QUORUMOR_TEST_NODE_CLIENTS names no folder; make one with `npm install ioredis redis`",
        );
    };
    if !installed("node") {
        return skip(test, "node is not installed");
    }
    let said = |mode: &str, node: &NodeProcess| {
        let port = node.resp.port().to_string();
        let mut command = Command::new("node");
        succeed(command.args(["-e", script, "--", mode, &port]).current_dir(&folder))
    };
    assert_eq!(said("eventual", &cluster(1)[0]).trim(), "all said");
    assert_eq!(said("strong", &strong("alone")).trim(), "all said");
}

/// ioredis opens with HELLO 3, asks INFO whether the server is ready, and pipelines.
#[test]
fn ioredis_works_in_both_modes() {
    run("ioredis_works_in_both_modes", include_str!("ioredis.js"));
}

/// node-redis opens with HELLO and the name of its library, and sends at once whatever is asked at once.
#[test]
fn node_redis_works_in_both_modes() {
    run("node_redis_works_in_both_modes", include_str!("node_redis.js"));
}
