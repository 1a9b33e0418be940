// A real Redis, a real gateway, and a publisher, for the tests that Node runs. Each process ends by its own pid.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const BINARY = process.env.SPILLGATE_BIN ?? fileURLToPath(new URL('../../target/debug/spillgate', import.meta.url));
const START_TIMEOUT_MS = 20_000, END_TIMEOUT_MS = 20_000;

/** Waits until `holds` answers something true, and returns it. */
export async function until(holds, what, timeoutMs = 10_000) {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = await holds();
    if (value) return value;
    assert.ok(performance.now() < deadline, `waited ${timeoutMs} ms in vain for: ${what}`);
    await sleep(20);
  }
}

export async function freePort() {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address();
  probe.close();
  await once(probe, 'close');
  return port;
}

/** A `redis-server` without persistence; `publish` takes many payloads at once. */
export async function startRedis() {
  const port = await freePort();
  const directory = await mkdtemp(path.join(tmpdir(), 'spillgate-redis-'));
  const child = spawn('redis-server', [
    '--port', `${port}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no',
    '--client-output-buffer-limit', 'pubsub 32mb 8mb 60',
  ], { cwd: directory, stdio: 'ignore' });
  const ended = once(child, 'exit');
  const socket = await until(() => {
    assert.equal(child.exitCode, null, 'redis-server has ended');
    const attempt = net.connect(port, '127.0.0.1');
    return new Promise(resolve => {
      attempt.once('connect', () => resolve(attempt));
      attempt.once('error', () => resolve(undefined));
    });
  }, 'redis-server');
  const answers = createInterface({ input: socket, crlfDelay: Infinity })[Symbol.asyncIterator]();

  return {
    url: `redis://127.0.0.1:${port}`,
    /** Publishes all of them, and answers the number of gateways that each reached. */
    async publish(channel, payloads) {
      const bulk = text => `$${Buffer.byteLength(text)}\r\n${text}\r\n`;
      socket.write(payloads.map(payload => `*3\r\n${bulk('PUBLISH')}${bulk(channel)}${bulk(payload)}`).join(''));
      const reached = [];
      while (reached.length < payloads.length) reached.push(Number((await answers.next()).value.slice(1)));
      return reached;
    },
    async remove() {
      socket.destroy();
      child.kill('SIGKILL');
      await ended;
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** A gateway that serves; `end` ends it with SIGTERM, and checks that it went in order. */
export const startGateway = (...parameters) => startGatewayWith({}, ...parameters);

/** The same with variables in its environment. */
export async function startGatewayWith(variables, ...parameters) {
  const kept = Object.entries(process.env).filter(([name]) => !/^(SPILLGATE_|RUST_LOG)/.test(name));
  const env = { ...Object.fromEntries(kept), ...variables };
  const child = spawn(BINARY, parameters, { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  const log = [];
  createInterface({ input: child.stderr }).on('line', line => log.push(line));
  const told = async pattern => {
    const find = () => {
      assert.equal(child.exitCode, null, `the gateway did not start: ${log.join('\n')}`);
      return log.map(line => pattern.exec(line)).find(Boolean);
    };
    return Number((await until(find, `${pattern}`, START_TIMEOUT_MS))[1]);
  };
  let port, admin;
  try {
    port = await told(/listening on \S*:(\d+)$/);
    admin = await told(/admin on \S*:(\d+)$/);
  } catch (trouble) {
    child.kill('SIGKILL');
    throw trouble;
  }
  return {
    port,
    admin,
    /** The lines that it has logged so far. */
    log,
    ask: (where, options) => fetch(`http://127.0.0.1:${admin}${where}`, options),
    async end() {
      child.kill('SIGTERM');
      const hung = setTimeout(() => child.kill('SIGKILL'), END_TIMEOUT_MS);
      const [code] = await ended;
      clearTimeout(hung);
      assert.ok(!log.some(line => line.includes('panicked')), log.join('\n'));
      assert.equal(code, 0, log.join('\n'));
    },
  };
}
