// Debian's HAProxy with the configuration that we ship, TLS to the client and PROXY protocol to us: `ws` over wss.

import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import WebSocket from 'ws';
import { freePort, startGatewayWith, until } from './harness.mjs';

const run = promisify(execFile);
const SHIPPED = fileURLToPath(new URL('../../tuning/haproxy.cfg', import.meta.url));
/** A LOCAL header of version 2, as the specification has it. */
const LOCAL = Buffer.from('0d0a0d0a000d0a515549540a20000000', 'hex');
/** For 203.0.113.9:9, to port 80 of 203.0.113.1. */
const FORGED = {
  'version 1': Buffer.from('PROXY TCP4 203.0.113.9 203.0.113.1 9 80\r\n'),
  'version 2': Buffer.from('0d0a0d0a000d0a515549540a2111000ccb007109cb00710100090050', 'hex'),
};
const REQUEST = 'GET /raw/c HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';

let directory, gateway, edge, proxy, ca, user, group;

before(async () => {
  directory = await mkdtemp(path.join(tmpdir(), 'spillgate-haproxy-'));
  const [key, certificate] = ['key.pem', 'cert.pem'].map(name => path.join(directory, name));
  await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2',
    '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-keyout', key, '-out', certificate]);
  ca = await readFile(certificate);
  await writeFile(path.join(directory, 'site.pem'), Buffer.concat([ca, await readFile(key)]));
  gateway = await startGatewayWith(
    { RUST_LOG: 'spillgate=debug', SPILLGATE_PROXY_PROTOCOL_TRUSTED: '127.0.0.1' },
    'serve', '--listen', '127.0.0.1:0', '--listen', '127.0.0.2:0', '--admin', '127.0.0.1:0', '--shards', '1');
  // As root it runs as the package's user, else as ours.
  [user, group] = await Promise.all(['-un', '-gn'].map(async flag => (await run('id', [flag])).stdout.trim()));
  if (user === 'root') [user, group] = ['haproxy', 'haproxy'];
  edge = await freePort();
  proxy = await startProxy(SHIPPED, environment());
});

after(async () => {
  try {
    await proxy?.end();
    await gateway?.end();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});

/** What the shipped file leaves to its user. */
function environment() {
  const second = gateway.log.map(line => /listening on (127\.0\.0\.2:\d+)$/.exec(line)).find(Boolean)[1];
  return {
    ...process.env,
    EDGE_BIND: `127.0.0.1:${edge}`,
    EDGE_CERT: path.join(directory, 'site.pem'),
    EDGE_MAXCONN: '1000',
    EDGE_USER: user,
    EDGE_GROUP: group,
    GATE_1A: `127.0.0.1:${gateway.port}`,
    GATE_1B: second,
    GATE_1_ADMIN_PORT: `${gateway.admin}`,
  };
}

/** An HAProxy in the foreground; `end` ends it. */
async function startProxy(file, env) {
  const child = spawn('haproxy', ['-db', '-f', file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(child, 'exit');
  const said = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', data => said.push(data));
  await until(() => {
    assert.equal(child.exitCode, null, `haproxy has ended: ${Buffer.concat(said)}`);
    const attempt = net.connect(Number(env.EDGE_BIND.split(':')[1]), '127.0.0.1');
    return new Promise(resolve => {
      attempt.once('connect', () => resolve(true));
      attempt.once('error', () => resolve(false));
    }).finally(() => attempt.destroy());
  }, 'haproxy');
  return {
    said: () => Buffer.concat(said).toString(),
    async end() {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

/** A WebSocket through the proxy, from an address of ours; `name` is what the log should call it. */
async function connect(localAddress, channel) {
  const client = new WebSocket(`wss://localhost:${edge}/raw/${channel}`, { host: '127.0.0.1', servername: 'localhost', ca, localAddress });
  const messages = [];
  client.on('message', data => messages.push(data.toString()));
  await once(client, 'open');
  return { client, messages, name: `${localAddress}:${client._socket.localPort}` };
}

/** What the gateway has said of this client. */
const lines = name => gateway.log.filter(line => line.includes(`client=${name} `));

/** How many connections have ended for a reason. */
async function ended(reason) {
  const text = await (await gateway.ask('/metrics')).text();
  return Number(new RegExp(`^ws_connections_terminated_total\\{reason="${reason}"\\} (\\d+)$`, 'm').exec(text)[1]);
}

/** Sends bytes from an address of ours straight to the gateway, and returns all that it answers until its end. */
async function answer(localAddress, bytes) {
  const socket = net.connect({ port: gateway.port, host: '127.0.0.1', localAddress });
  const received = [];
  socket.on('data', data => received.push(data));
  socket.write(bytes);
  await once(socket, 'end');
  socket.destroy();
  return Buffer.concat(received).toString();
}

test('clients of wss receive, each over some address of the gateway, and the log knows each by its own', async () => {
  const clients = await Promise.all([2, 3, 4, 5].map(at => connect(`127.0.0.${at}`, 'match')));
  await gateway.ask('/channels/match/publish', { method: 'POST', body: '1:0' });
  for (const { messages } of clients) await until(() => messages.length === 1, 'the update');
  assert.deepEqual(clients.map(({ messages }) => messages[0]), Array(4).fill('1:0'));
  for (const { name } of clients) {
    const connected = await until(() => lines(name).find(line => line.includes(' connected ')), `a line about ${name}`);
    assert.match(connected, /DEBUG/);
  }
  for (const { client } of clients) client.terminate();
});

test('a client that is closed for what it does is told of by its own address, and not by its words', async () => {
  const { client, name } = await connect('127.0.0.6', 'match');
  client._socket.write(Buffer.from('\x81\x06secret', 'latin1')); // not masked
  await once(client, 'close');
  const closed = await until(() => lines(name).find(line => line.includes('closed')), `a line about ${name}`);
  assert.match(closed, /INFO .*reason="protocol_error"/);
  assert.ok(!gateway.log.some(line => line.includes('secret')));
});

test('a forged header from an untrusted address is refused, and counted', async () => {
  for (const [what, header] of Object.entries(FORGED)) {
    const before = await ended('proxy_header');
    const refused = await answer('127.0.0.9', Buffer.concat([header, Buffer.from(REQUEST)]));
    assert.match(refused, /^HTTP\/1\.1 400 /, what);
    assert.match(refused, /"code":"proxy_header".*not in proxy_protocol\.trusted/);
    assert.equal(await ended('proxy_header'), before + 1);
  }
  const told = await until(() => gateway.log.filter(line => /client=127\.0\.0\.9:\d+ reason="proxy_header"/.test(line)), 'lines');
  assert.equal(told.length, 2);
  assert.ok(!gateway.log.some(line => line.includes('203.0.113.9')), 'nobody believed it');
});

test('a trusted address must send a header, and only one; others are served without', async () => {
  for (const bytes of [REQUEST, Buffer.concat([LOCAL, FORGED['version 1'], Buffer.from(REQUEST)])]) {
    assert.match(await answer('127.0.0.1', bytes), /^HTTP\/1\.1 400 .*"code":"proxy_header"/s);
  }
  const direct = new WebSocket(`ws://127.0.0.1:${gateway.port}/raw/match`, { localAddress: '127.0.0.7' });
  await once(direct, 'open');
  const name = `127.0.0.7:${direct._socket.localPort}`;
  await until(() => lines(name).some(line => line.includes('connected')), 'a line about the direct client');
  direct.terminate();
});

test('a health check by LOCAL header is taken quietly', async () => {
  const checks = await ended('health_check');
  let own;
  const socket = net.connect(gateway.port, '127.0.0.1', () => {
    own = `127.0.0.1:${socket.localPort}`;
    socket.end(LOCAL);
  });
  socket.on('error', () => {}); // a check is reset, as whoever goes without a request
  await until(async () => await ended('health_check') === checks + 1, 'the check to be counted');
  assert.deepEqual(gateway.log.filter(line => line.includes(own)), []);
});

for (const [how, change] of Object.entries({
  // As the file says: without `addr`, `port` and what is about httpchk, a check is a LOCAL header and a reset.
  'connecting': text => text.replace(/^ *(option httpchk|http-check).*\n/gm, ''),
  // `option httpchk` alone asks `OPTIONS /`.
  'asking': text => text.replace(/^ *http-check.*\n/gm, ''),
  // Version 1 has no LOCAL: HAProxy names itself.
  'connecting by version 1': text => text.replace(/^ *(option httpchk|http-check).*\n/gm, '').replace(/send-proxy-v2$/m, 'send-proxy'),
  'asking by version 1': text => text.replace(/^ *http-check.*\n/gm, '').replace(/send-proxy-v2$/m, 'send-proxy'),
})) {
  test(`HAProxy that checks the client port by ${how} is content, and quiet`, async () => {
    const shipped = await readFile(SHIPPED, 'utf8');
    const changed = change(shipped).replace(/ addr "[^"]*" port "[^"]*"/g, '').replace('inter 2s', 'inter 100ms');
    const file = path.join(directory, 'client-port.cfg');
    await writeFile(file, changed);
    const others = ['proxy_header', 'request_refused', 'request_timeout', 'vanished', 'socket_error'];
    const loud = () => gateway.log.filter(line => /INFO|WARN|ERROR/.test(line)).length;
    const [before, seen, told] = [await Promise.all(others.map(ended)), await ended('health_check'), loud()];
    const other = await startProxy(file, { ...environment(), EDGE_BIND: `127.0.0.1:${await freePort()}` });
    try {
      await until(async () => await ended('health_check') >= seen + 10, 'ten checks');
      await sleep(100);
      assert.doesNotMatch(other.said(), /DOWN|no server/);
    } finally {
      await other.end();
    }
    assert.deepEqual(await Promise.all(others.map(ended)), before);
    assert.equal(loud(), told);
  });
}

test('each alternative that the file offers is one that HAProxy takes', async () => {
  const shipped = await readFile(SHIPPED, 'utf8');
  const offered = [...shipped.matchAll(/^ *# ((?:balance|cookie|nbthread|rate-limit|server) .*)$/gm)].map(match => match[0]);
  assert.equal(offered.length, 6);
  for (const line of offered) {
    let changed = shipped.replace(line, line.replace('# ', ''));
    if (line.includes('balance')) {
      changed = changed.replace(/^ *balance leastconn\n/m, '').replace(/# hash-type/, 'hash-type');
    }
    const file = path.join(directory, 'alternative.cfg');
    await writeFile(file, changed);
    const { stderr } = await run('haproxy', ['-c', '-f', file], { env: environment() });
    assert.equal(stderr, '', line);
  }
});

test('a gateway that leaves is not ready, and gets nobody new', async () => {
  assert.doesNotMatch(proxy.said(), /is DOWN/);
  const stays = await connect('127.0.0.2', 'match');
  const closed = once(stays.client, 'close');
  await gateway.end();
  gateway = undefined;
  assert.equal((await closed)[0], 1001, 'told through the proxy');
  await until(() => /gates\/gate1a is DOWN[^]*gates\/gate1b is DOWN|gates\/gate1b is DOWN[^]*gates\/gate1a is DOWN/.test(proxy.said()),
    'the proxy to see it');
  const late = new WebSocket(`wss://localhost:${edge}/raw/match`, { host: '127.0.0.1', servername: 'localhost', ca });
  const [, response] = await once(late, 'unexpected-response');
  assert.equal(response.statusCode, 503);
  response.destroy();
});
