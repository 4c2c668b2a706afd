// node-redis at one peer: what a program written for Redis does, in both versions of the protocol.
// Arguments: the consistency mode and the port of the Redis door.
const assert = require("assert");
const { createClient, RESP_TYPES, WatchError } = require("redis");

const [mode, port] = process.argv.slice(-2);

async function refused(asking, start) {
  const error = await asking.then((it) => assert.fail(`answered ${it}`), (error) => error);
  assert.ok(error.message.startsWith(start), error.message);
}

async function speak(RESP) {
  const open = async () => {
    // Whatever goes wrong is told at once instead of being tried again.
    const socket = { port: Number(port), reconnectStrategy: false };
    const client = createClient({ socket, RESP, name: `node-redis-${RESP}` });
    client.on("error", (error) => { throw error; });
    await client.connect();
    return client;
  };
  const one = await open();
  const at = (name) => `node${RESP}:${name}`;

  // The opening words, and who is told to be here.
  assert.equal(await one.ping(), "PONG");
  const own = await one.clientInfo();
  assert.equal(own.name, `node-redis-${RESP}`);
  assert.equal(own.libName, "node-redis");
  assert.equal(Number(own.resp), RESP);
  assert.match(await one.info("server"), /redis_version:7/);
  assert.deepEqual({ ...(await one.configGet("save")) }, { save: "" });

  // Every type, and bytes that are no text.
  assert.equal(await one.set(at("text"), "words"), "OK");
  assert.equal(await one.get(at("text")), "words");
  assert.equal(await one.get(at("none")), null);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await one.set(at("bytes"), bytes);
  const raw = one.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.deepEqual(await raw.get(at("bytes")), bytes);
  assert.equal(await one.mSet({ [at("a")]: "1", [at("b")]: "2" }), "OK");
  assert.deepEqual(await one.mGet([at("a"), at("none"), at("b")]), ["1", null, "2"]);
  assert.equal(await one.incrBy(at("count"), 41), 41);
  assert.equal(await one.incr(at("count")), 42);
  assert.equal(await one.set(at("short"), "v", { expiration: { type: "EX", value: 100 } }), "OK");
  const left = await one.ttl(at("short"));
  assert.ok(left > 90 && left <= 100, left);
  assert.equal(await one.hSet(at("hash"), { f: "1", g: "2" }), 2);
  assert.deepEqual({ ...(await one.hGetAll(at("hash"))) }, { f: "1", g: "2" });
  assert.equal(await one.sAdd(at("set"), ["x", "y", "x"]), 2);
  assert.deepEqual([...(await one.sMembers(at("set")))].sort(), ["x", "y"]);
  assert.equal(await one.sIsMember(at("set"), "x"), 1);
  assert.equal(await one.rPush(at("list"), ["a", "b", "c"]), 3);
  assert.deepEqual(await one.lRange(at("list"), 0, -1), ["a", "b", "c"]);
  const members = [{ score: 1.5, value: "m" }, { score: -Infinity, value: "n" }];
  assert.equal(await one.zAdd(at("sorted"), members), 2);
  assert.deepEqual(await one.zRangeWithScores(at("sorted"), 0, -1), [members[1], members[0]].map(
    ({ score, value }) => ({ value, score })));
  assert.equal(await one.zScore(at("sorted"), "m"), 1.5);
  assert.equal(await one.type(at("sorted")), "zset");
  await refused(one.hGet(at("set"), "x"), "WRONGTYPE ");

  // Many requests at once, and a scan over what they wrote.
  const asked = [];
  for (let number = 0; number < 2000; number++) {
    asked.push(one.set(at(`n${number}`), String(number)), one.get(at(`n${number}`)));
  }
  (await Promise.all(asked)).forEach((reply, index) => {
    assert.equal(reply, index % 2 === 0 ? "OK" : String((index - 1) / 2));
  });
  let scanned = 0;
  for await (const keys of one.scanIterator({ MATCH: at("n[0-9]*"), COUNT: 500 })) {
    scanned += keys.length;
  }
  assert.equal(scanned, 2000);

  // A transaction.
  const together = one.multi().incr(at("count")).hSet(at("hash"), "h", "3").get(at("text"));
  assert.deepEqual(await together.exec(), [43, 1, "words"]);

  // Messages.
  const [hearer, heard] = [await open(), []];
  await hearer.subscribe(at("news"), (message, channel) => heard.push([channel, message]));
  await hearer.pSubscribe(at("n?ws"), (message, channel) => heard.push(["pattern", channel, message]));
  assert.equal(await one.publish(at("news"), "hello"), 2);
  while (heard.length < 2) {
    await new Promise((next) => setImmediate(next));
  }
  assert.deepEqual(heard, [[at("news"), "hello"], ["pattern", at("news"), "hello"]]);
  await hearer.unsubscribe();
  await hearer.pUnsubscribe();
  assert.equal(await hearer.get(at("text")), "words");

  const lock = (value) => one.set(at("lock"), value, { condition: "NX", expiration: { type: "PX", value: 60000 } });
  if (mode === "eventual") {
    const strong = "NEEDSSTRONG ";
    await refused(one.setNX(at("text"), "v"), strong + "'SETNX' ");
    await refused(lock("mine"), strong + "'SET ... NX' ");
    await refused(one.lPop(at("list")), strong + "'LPOP' ");
    await refused(one.watch(at("text")), strong + "'WATCH' ");
    await refused(one.multi().get(at("text")).sPop(at("set")).exec(), strong + "'SPOP' ");
    assert.equal(await one.get(at("text")), "words");
  } else {
    assert.equal(await one.setNX(at("text"), "v"), 0);
    assert.equal(await lock("mine"), "OK");
    assert.equal(await lock("yours"), null);
    assert.equal(await one.lPop(at("list")), "a");
    assert.equal(await one.append(at("text"), "!"), 6);
    assert.equal(Number(await one.incrByFloat(at("float"), 0.5)), 0.5);
    assert.equal(await one.rename(at("text"), at("other")), "OK");
    assert.equal((await one.zPopMin(at("sorted"))).value, "n");
    await one.watch(at("count"));
    assert.deepEqual(await one.multi().incr(at("count")).exec(), [44]);
    await one.watch(at("count"));
    await hearer.incr(at("count"));
    await one.multi().set(at("count"), "lost").exec().then(
      (it) => assert.fail(`answered ${it}`),
      (error) => assert.ok(error instanceof WatchError, error),
    );
    assert.equal(await one.get(at("count")), "45");
  }
  await Promise.all([one.close(), hearer.close()]);
}

(async () => {
  await speak(3);
  await speak(2);
  console.log("all said");
})();
