// A camera published in three layers: each subscriber gets the best one that its page asks for.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';
import { askFor, joinStock, picture } from '../lib/stock.js';

let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium({ fullCamera: true }));
});

/** Joins with the stock SDK, which lets a page ask for layers by name. */
const join = (identity, camera) => joinStock(browser, host, identity, { room: 'layers', camera });

async function until(page, what, accept, timeoutMs) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const now = await picture(page);
    if (accept(now)) {
      return now;
    }
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(now)}\n${host.log}`);
    await sleep(200);
  }
}

test('a page gets the layer it asks for, and others keep theirs', { timeout: 150_000 }, async () => {
  await join('camera', true);
  const choosy = await join('choosy', false);
  const other = await join('other', false);
  const ask = (quality) => askFor(choosy, quality);

  // The sender's bandwidth estimate opens the layers one by one.
  const best = await until(choosy, 'the best layer', ({ width }) => width === 1280, 60_000);
  await until(other, 'the best layer for the other', ({ width }) => width === 1280, 30_000);

  await ask(0);
  const low = await until(choosy, 'the lowest layer', ({ width }) => width > 0 && width <= 320, 15_000);
  const beside = await picture(other);
  assert.equal(beside.width, 1280, 'one page\'s choice changed another\'s');

  await ask(2);
  const again = await until(choosy, 'back to the best', ({ width }) => width === 1280, 15_000);
  assert.ok(best.decoded < low.decoded && low.decoded < again.decoded, JSON.stringify([best, low, again]));
});
