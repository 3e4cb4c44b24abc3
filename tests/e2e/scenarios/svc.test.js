// A camera published in one stream with spatial and temporal layers: each subscriber gets as many as its page asks for.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';
import { askFor, joinStock, picture } from '../lib/stock.js';

/** No picture for so long is a freeze, also on a machine that has other work. */
const FREEZE_MS = 1500;

let browser;
const hosts = {};

stage(async (keep) => {
  hosts.required = keep(await DevHost.start());
  hosts.optional = keep(await DevHost.start('--e2ee', 'optional'));
  browser = keep(await startChromium({ fullCamera: true }));
});

/** Waits for a picture; once there was one, they must keep coming meanwhile. */
async function until(page, what, accept, timeoutMs) {
  const deadline = Date.now() + timeoutMs;
  let last = { decoded: 0, at: Date.now() };
  for (;;) {
    const now = await picture(page);
    if (now.decoded > last.decoded) {
      last = { decoded: now.decoded, at: Date.now() };
    }
    assert.ok(last.decoded === 0 || Date.now() - last.at < FREEZE_MS, `${what}: frozen at ${JSON.stringify(now)}`);
    if (accept(now)) {
      return now;
    }
    assert.ok(Date.now() < deadline, `${what}: ${JSON.stringify(now)}`);
    await sleep(100);
  }
}

for (const { videoCodec, scalabilityMode, encrypted } of [
  { videoCodec: 'vp9', scalabilityMode: 'L3T3_KEY', encrypted: true },
  { videoCodec: 'vp9', scalabilityMode: 'L3T3', encrypted: true },
  // The SDK's cryptor cannot encrypt AV1.
  { videoCodec: 'av1', scalabilityMode: 'L3T3_KEY', encrypted: false },
]) {
  test(`${videoCodec} ${scalabilityMode}: a page gets the layers it asks for`, { timeout: 150_000 }, async () => {
    const host = encrypted ? hosts.required : hosts.optional;
    const room = `${videoCodec}-${scalabilityMode}`;
    const publishDefaults = { videoCodec, scalabilityMode, backupCodec: false, simulcast: true };
    const camera = await joinStock(browser, host, 'camera', { room, encrypted, options: { publishDefaults }, camera: true });
    const page = await joinStock(browser, host, 'choosy', { room, encrypted });

    // The sender's bandwidth estimate opens the layers one by one.
    const best = await until(page, 'the best', ({ width }) => width === 1280, 60_000);
    await askFor(page, 0);
    const low = await until(page, 'the lowest', ({ width }) => width > 0 && width <= 320, 15_000);
    await askFor(page, 1);
    const middle = await until(page, 'the middle', ({ width }) => width === 640, 15_000);
    await askFor(page, 2);
    const again = await until(page, 'back to the best', ({ width }) => width === 1280, 15_000);
    const later = await until(page, 'and on', ({ decoded }) => decoded > again.decoded + 30, 15_000);
    assert.ok(best.decoded < low.decoded && low.decoded < middle.decoded, JSON.stringify([best, low, middle, later]));
    await camera.close();
    await page.close();
  });
}
