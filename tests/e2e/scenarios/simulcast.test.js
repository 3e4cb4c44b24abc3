// A camera published in three layers: each subscriber gets the best one that its page asks for.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { injectStockSdk, sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';

let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium({ fullCamera: true }));
});

/** Joins with the stock SDK, which lets a page ask for layers by name. */
async function join(identity, publish) {
  const page = await browser.newPage();
  await injectStockSdk(page, host.page);
  await page.evaluate(
    async ({ ws, token, key, publish }) => {
      const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
      await keyProvider.setKey(key);
      const room = new LivekitClient.Room({ encryption: { keyProvider, worker: window.stockWorker() } });
      await room.setE2EEEnabled(true);
      room.on('trackSubscribed', (track) => document.body.append(track.attach()));
      await room.connect(ws, token);
      if (publish) {
        await room.localParticipant.setCameraEnabled(true, { resolution: { width: 1280, height: 720, frameRate: 15 } });
      }
      window.curtain = { room };
    },
    { ws: host.ws, token: await host.token(identity, { room: 'layers' }), key: host.key, publish },
  );
  return page;
}

/** Width of the picture that comes out of the decoder, and how far decoding went. */
function picture(page) {
  return page.evaluate(async () => {
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        for (const stat of (await publication.track?.receiver?.getStats())?.values() ?? []) {
          if (stat.type === 'inbound-rtp' && stat.kind === 'video') {
            return { width: stat.frameWidth ?? 0, decoded: stat.framesDecoded ?? 0, freezes: stat.freezeCount ?? 0 };
          }
        }
      }
    }
    return { width: 0, decoded: 0, freezes: 0 };
  });
}

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
  const ask = (quality) =>
    choosy.evaluate((quality) => {
      for (const participant of window.curtain.room.remoteParticipants.values()) {
        for (const publication of participant.videoTrackPublications.values()) {
          publication.setVideoQuality(quality);
        }
      }
    }, quality);

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
