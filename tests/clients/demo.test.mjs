// The demo, looked at in Chromium: on a phone and on a desk, and across a restart of the gateway.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { startGateway, until } from './harness.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];
const SIZES = [{ width: 360, height: 740 }, { width: 1280, height: 800 }];

let browser, gateway;

const start = port => startGateway('demo', '--listen', `127.0.0.1:${port}`, '--admin', '127.0.0.1:0');

before(async () => {
  gateway = await start(0);
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
});

after(async () => {
  try {
    await browser?.close();
  } finally {
    await gateway?.end();
  }
});

/** The page at one size, and what its console complained about. */
async function open(viewport, colorScheme) {
  const page = await browser.newPage({ viewport, colorScheme });
  const complaints = [];
  page.on('console', message => { if (['error', 'warning'].includes(message.type())) complaints.push(message.text()); });
  page.on('pageerror', error => complaints.push(`${error}`));
  await page.goto(`http://127.0.0.1:${gateway.port}/`);
  return { page, complaints };
}

const state = page => page.locator('#state').getAttribute('data-state');
const isLive = page => until(async () => await state(page) === 'live' && /^\d+:\d+$/.test(await page.locator('#score').textContent()),
  'a page that is connected and shows a score', 20_000);

/** Waits for something on the page to change. */
async function moves(page, what, read) {
  const first = await page.evaluate(read);
  await until(async () => await page.evaluate(read) !== first, `${what} that moves`);
}

for (const viewport of SIZES) {
  for (const colorScheme of ['light', 'dark']) {
    test(`the demo shows a live match at ${viewport.width} px, ${colorScheme}, without a complaint`, async () => {
      const { page, complaints } = await open(viewport, colorScheme);
      await isLive(page);
      await moves(page, 'a clock', () => document.getElementById('clock').textContent);
      await moves(page, 'a pitch', () => document.getElementById('canvas').toDataURL());
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} px wider than the window`);
      assert.deepEqual(complaints, []);
      await page.close();
    });
  }
}

test('an update of the publish API appears among the events, as text', async () => {
  const { page, complaints } = await open(SIZES[1]);
  await isLive(page);
  const body = JSON.stringify({ hello: '<img src=x onerror=alert(1)>' });
  const published = await gateway.ask('/channels/match.1.events/publish', { method: 'POST', body });
  assert.deepEqual(await published.json(), { channel: 'match.1.events', sockets: 1 });
  await until(async () => (await page.locator('#events').textContent()).includes('<img src=x'), 'the event');
  assert.deepEqual(complaints, []);
  await page.close();
});

test('the page survives a restart of the gateway by itself', { timeout: 60_000 }, async () => {
  const { page } = await open(SIZES[0]);
  await isLive(page);
  const { port } = gateway;
  await gateway.end();
  await until(async () => await state(page) !== 'live', 'a page that says so');
  gateway = await start(port);
  await isLive(page);
  await moves(page, 'a clock', () => document.getElementById('clock').textContent);
  await page.close();
});
