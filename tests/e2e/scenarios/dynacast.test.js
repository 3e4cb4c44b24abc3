// A publisher stops the layers that nobody takes, and the next page that wants them gets them.
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

/** Joins; who publishes does so in three layers, with dynacast. */
const join = (identity, camera) =>
  joinStock(browser, host, identity, { room: 'dynacast', options: { dynacast: true }, camera });

/** Which layers the publisher's browser has on, by rid. */
function active(page) {
  return page.evaluate(() => {
    const [publication] = window.curtain.room.localParticipant.videoTrackPublications.values();
    const { encodings } = publication.track.sender.getParameters();
    return encodings.filter((encoding) => encoding.active).map((encoding) => encoding.rid).sort().join('');
  });
}

async function until(what, look, accept, timeoutMs) {
  const start = Date.now();
  for (;;) {
    const now = await look();
    if (accept(now)) {
      return Date.now() - start;
    }
    assert.ok(Date.now() - start < timeoutMs, `${what}: ${JSON.stringify(now)}\n${host.log}`);
    await sleep(50);
  }
}

test('layers that nobody takes are off, and come back when somebody does', { timeout: 180_000 }, async () => {
  const camera = await join('camera', true);
  await until('nobody is there', () => active(camera), (on) => on === '', 15_000);

  const viewer = await join('viewer', false);
  await until('somebody came', () => active(camera), (on) => on === 'fhq', 5_000);
  await until('the best layer', () => picture(viewer), ({ width }) => width === 1280, 60_000);

  await askFor(viewer, 0);
  await until('only the lowest is taken', () => active(camera), (on) => on === 'q', 15_000);
  await until('the lowest layer', () => picture(viewer), ({ width }) => width > 0 && width <= 320, 5_000);

  await askFor(viewer, 2);
  const on = await until('the best is wanted again', () => active(camera), (on) => on === 'fhq', 3_000);
  const shown = await until('the best layer again', () => picture(viewer), ({ width }) => width === 1280, 30_000);
  console.log(`layers on after ${on} ms, the best layer shown ${shown} ms later`);
});
