// ioredis at one peer: what a program written for Redis does, in both versions of the protocol.
// Arguments: the consistency mode and the port of the Redis door.
const assert = require("assert");
const Redis = require("ioredis");

const [mode, port] = process.argv.slice(-2);

async function refused(asking, start) {
  const error = await asking.then((it) => assert.fail(`answered ${it}`), (error) => error);
  assert.ok(error.message.startsWith(start), error.message);
}

async function speak(protocol) {
  const open = () => {
    const options = { port: Number(port), protocol, connectionName: `ioredis-${protocol}` };
    // Whatever goes wrong is told at once instead of being tried again.
    const client = new Redis({ ...options, retryStrategy: () => null, maxRetriesPerRequest: 0 });
    client.on("error", (error) => { throw error; });
    return client;
  };
  const one = open();
  const at = (name) => `io${protocol}:${name}`;

  // The opening words, and who is told to be here.
  assert.equal(await one.ping(), "PONG");
  const [name] = (await one.client("LIST")).split("\n").filter((it) => it.includes(` resp=${protocol} `));
  assert.match(name, new RegExp(`name=ioredis-${protocol} `));
  assert.match(await one.info("server"), /redis_version:7/);

  // Every type, and bytes that are no text.
  assert.equal(await one.set(at("text"), "words"), "OK");
  assert.equal(await one.get(at("text")), "words");
  assert.equal(await one.get(at("none")), null);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
  await one.set(at("bytes"), bytes);
  assert.deepEqual(await one.getBuffer(at("bytes")), bytes);
  assert.equal(await one.mset(at("a"), "1", at("b"), "2"), "OK");
  assert.deepEqual(await one.mget(at("a"), at("none"), at("b")), ["1", null, "2"]);
  assert.equal(await one.incrby(at("count"), 41), 41);
  assert.equal(await one.incr(at("count")), 42);
  assert.equal(await one.set(at("short"), "v", "EX", 100), "OK");
  const left = await one.ttl(at("short"));
  assert.ok(left > 90 && left <= 100, left);
  assert.equal(await one.hset(at("hash"), { f: "1", g: "2" }), 2);
  assert.deepEqual(await one.hgetall(at("hash")), { f: "1", g: "2" });
  assert.equal(await one.sadd(at("set"), "x", "y", "x"), 2);
  assert.deepEqual((await one.smembers(at("set"))).sort(), ["x", "y"]);
  assert.equal(await one.sismember(at("set"), "x"), 1);
  assert.equal(await one.rpush(at("list"), "a", "b", "c"), 3);
  assert.deepEqual(await one.lrange(at("list"), 0, -1), ["a", "b", "c"]);
  assert.equal(await one.zadd(at("sorted"), 1.5, "m", "-inf", "n"), 2);
  assert.deepEqual(await one.zrange(at("sorted"), 0, -1), ["n", "m"]);
  assert.equal(Number(await one.zscore(at("sorted"), "m")), 1.5);
  const scored = await one.zrange(at("sorted"), 0, -1, "WITHSCORES");
  assert.deepEqual(scored.flat().map(String).map((it) => it.toLowerCase().slice(0, 4)), ["n", "-inf", "m", "1.5"]);
  assert.equal(await one.type(at("sorted")), "zset");
  await refused(one.hget(at("set"), "x"), "WRONGTYPE ");

  // Many requests at once, and a scan over what they wrote.
  const pipeline = one.pipeline();
  for (let number = 0; number < 2000; number++) {
    pipeline.set(at(`n${number}`), number).get(at(`n${number}`));
  }
  const replies = await pipeline.exec();
  replies.forEach(([error, reply], index) => {
    assert.equal(error, null);
    assert.equal(reply, index % 2 === 0 ? "OK" : String((index - 1) / 2));
  });
  let scanned = 0;
  for await (const keys of one.scanStream({ match: at("n[0-9]*"), count: 500 })) {
    scanned += keys.length;
  }
  assert.equal(scanned, 2000);

  // A transaction.
  const together = await one.multi().incr(at("count")).hset(at("hash"), "h", "3").get(at("text")).exec();
  assert.deepEqual(together, [[null, 43], [null, 1], [null, "words"]]);

  // Messages; in RESP3 the same connection goes on with commands.
  const [hearer, heard] = [open(), []];
  hearer.on("message", (channel, message) => heard.push([channel, message]));
  hearer.on("pmessage", (pattern, channel, message) => heard.push([pattern, channel, message]));
  assert.equal(await hearer.subscribe(at("news")), 1);
  assert.equal(await hearer.psubscribe(at("n?ws")), 2);
  assert.equal(await one.publish(at("news"), "hello"), 2);
  while (heard.length < 2) {
    await new Promise((next) => setImmediate(next));
  }
  assert.deepEqual(heard, [[at("news"), "hello"], [at("n?ws"), at("news"), "hello"]]);
  await hearer.unsubscribe(at("news"));
  await hearer.punsubscribe(at("n?ws"));
  assert.equal(await hearer.get(at("text")), "words");

  if (mode === "eventual") {
    const strong = "NEEDSSTRONG ";
    await refused(one.setnx(at("text"), "v"), strong + "'SETNX' ");
    await refused(one.set(at("text"), "v", "NX"), strong + "'SET ... NX' ");
    await refused(one.lpop(at("list")), strong + "'LPOP' ");
    await refused(one.watch(at("text")), strong + "'WATCH' ");
    await refused(one.multi().get(at("text")).spop(at("set")).exec(), "EXECABORT ");
    const [, [error]] = await one.pipeline().get(at("text")).rename(at("text"), at("other")).exec();
    assert.ok(error.message.startsWith(strong), error.message);
    assert.equal(await one.get(at("text")), "words");
  } else {
    assert.equal(await one.setnx(at("text"), "v"), 0);
    assert.equal(await one.set(at("lock"), "mine", "PX", 60000, "NX"), "OK");
    assert.equal(await one.set(at("lock"), "yours", "PX", 60000, "NX"), null);
    assert.equal(await one.lpop(at("list")), "a");
    assert.equal(await one.append(at("text"), "!"), 6);
    assert.equal(Number(await one.incrbyfloat(at("float"), 0.5)), 0.5);
    assert.equal(await one.rename(at("text"), at("other")), "OK");
    assert.deepEqual((await one.zpopmin(at("sorted"))).flat().map(String)[0], "n");
    await one.watch(at("count"));
    assert.deepEqual(await one.multi().incr(at("count")).exec(), [[null, 44]]);
    await one.watch(at("count"));
    await hearer.incr(at("count"));
    assert.equal(await one.multi().set(at("count"), "lost").exec(), null);
    assert.equal(await one.get(at("count")), "45");
  }
  await Promise.all([one.quit(), hearer.quit()]);
}

(async () => {
  await speak(3);
  await speak(2);
  console.log("all said");
})();
