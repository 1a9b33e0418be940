// The `ws` package of npm as a client: both faces, in order and complete, and closed in order.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import WebSocket from 'ws';
import { startGateway, startRedis, until } from './harness.mjs';

const UPDATES = 100_000, UPDATES_PER_SECOND = 5_000, BATCH = 50;

let redis, gateway;

before(async () => {
  redis = await startRedis();
  gateway = await startGateway('serve', '--listen', '127.0.0.1:0', '--admin', '127.0.0.1:0', '--shards', '2', '--redis', redis.url);
  await until(async () => (await gateway.ask('/readyz')).ok, 'a gateway that is ready');
});

after(async () => {
  try {
    await gateway?.end();
  } finally {
    await redis?.remove();
  }
});

/** A client whose WebSocket is open, and the messages that it got. */
async function connect(path) {
  const client = new WebSocket(`ws://127.0.0.1:${gateway.port}${path}`);
  const messages = [];
  client.on('message', (data, isBinary) => messages.push(isBinary ? data : data.toString()));
  await once(client, 'open');
  return { client, messages };
}

test('a hundred thousand updates arrive in order and complete', { timeout: 80_000 }, async () => {
  const raw = await connect('/raw/steady');
  const enveloped = await connect('/ws?channels=steady');
  await until(() => enveloped.messages.length === 1, 'the subscription');
  const began = performance.now();
  for (let first = 0; first < UPDATES; first += BATCH) {
    const payloads = Array.from({ length: BATCH }, (_, at) => `${first + at}`);
    assert.ok((await redis.publish('steady', payloads)).every(reached => reached === 1), 'Redis has cut the gateway off');
    const aheadMs = began + (first + BATCH) * 1000 / UPDATES_PER_SECOND - performance.now();
    if (aheadMs > 0) await sleep(aheadMs);
  }
  await until(() => raw.messages.length === UPDATES && enveloped.messages.length === UPDATES + 1, 'the last update');
  const seq = JSON.parse(enveloped.messages.shift()).seq;
  for (let number = 0; number < UPDATES; number += 1) {
    assert.equal(raw.messages[number], `${number}`);
    const envelope = JSON.parse(enveloped.messages[number]);
    assert.deepEqual([envelope.data, envelope.seq], [number, seq + 1 + number]);
  }
  raw.client.terminate();
  enveloped.client.terminate();
});

test('text comes as text, and a command has its answer', async () => {
  const { client, messages } = await connect('/ws');
  client.send(JSON.stringify({ id: 'é', subscribe: 'c' }));
  await until(() => messages.length === 1, 'the answer');
  const { epoch, ...answer } = JSON.parse(messages[0]);
  assert.deepEqual(answer, { id: 'é', subscribed: 'c', seq: 0 });
  assert.equal(typeof epoch, 'string');
  await redis.publish('c', ['{"a":"ä"}']);
  await until(() => messages.length === 2, 'the update');
  assert.deepEqual(JSON.parse(messages[1]).data, { a: 'ä' });
  client.close(4001, 'done');
  const [code] = await once(client, 'close');
  assert.equal(code, 4001);
});

test('a large message in fragments of any size is one command', async () => {
  const { client, messages } = await connect('/ws');
  const command = JSON.stringify({ id: 1, unsubscribe: 'é'.repeat(90) });
  for (const character of command) client.send(character, { fin: false });
  client.send('', { fin: true });
  await until(() => messages.length === 1, 'the answer');
  assert.equal(JSON.parse(messages[0]).error.code, 'not_subscribed');
  client.terminate();
});

test('a ping of the client is answered with its payload', async () => {
  const { client } = await connect('/raw/c');
  client.ping('payload');
  const [payload] = await once(client, 'pong');
  assert.equal(payload.toString(), 'payload');
  client.close();
  const [code] = await once(client, 'close');
  assert.ok(code === 1000 || code === 1005, `closed with ${code}`);
});

test('a message over 64 KiB is closed with 1009', async () => {
  const { client } = await connect('/ws');
  client.send('x'.repeat(65_537));
  const [code] = await once(client, 'close');
  assert.equal(code, 1009);
});
