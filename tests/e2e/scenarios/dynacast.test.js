// A publisher stops the layers that nobody takes, and the next page that wants them gets them.
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

/** Joins with the stock SDK; who publishes does so in three layers, with dynacast. */
async function join(identity, publish) {
  const page = await browser.newPage();
  await injectStockSdk(page, host.page);
  await page.evaluate(
    async ({ ws, token, key, publish }) => {
      const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
      await keyProvider.setKey(key);
      const room = new LivekitClient.Room({ dynacast: true, encryption: { keyProvider, worker: window.stockWorker() } });
      await room.setE2EEEnabled(true);
      room.on('trackSubscribed', (track) => document.body.append(track.attach()));
      await room.connect(ws, token);
      if (publish) {
        await room.localParticipant.setCameraEnabled(true, { resolution: { width: 1280, height: 720, frameRate: 15 } });
      }
      window.curtain = { room };
    },
    { ws: host.ws, token: await host.token(identity, { room: 'dynacast' }), key: host.key, publish },
  );
  return page;
}

/** Which layers the publisher's browser has on, by rid. */
function active(page) {
  return page.evaluate(() => {
    const [publication] = window.curtain.room.localParticipant.videoTrackPublications.values();
    const { encodings } = publication.track.sender.getParameters();
    return encodings.filter((encoding) => encoding.active).map((encoding) => encoding.rid).sort().join('');
  });
}

/** Width of the picture that comes out of the decoder. */
function width(page) {
  return page.evaluate(async () => {
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        for (const stat of (await publication.track?.receiver?.getStats())?.values() ?? []) {
          if (stat.type === 'inbound-rtp' && stat.kind === 'video') {
            return stat.frameWidth ?? 0;
          }
        }
      }
    }
    return 0;
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

function ask(page, quality) {
  return page.evaluate((quality) => {
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.videoTrackPublications.values()) {
        publication.setVideoQuality(quality);
      }
    }
  }, quality);
}

test('layers that nobody takes are off, and come back when somebody does', { timeout: 180_000 }, async () => {
  const camera = await join('camera', true);
  await until('nobody is there', () => active(camera), (on) => on === '', 15_000);

  const viewer = await join('viewer', false);
  await until('somebody came', () => active(camera), (on) => on === 'fhq', 5_000);
  await until('the best layer', () => width(viewer), (pixels) => pixels === 1280, 60_000);

  await ask(viewer, 0);
  await until('only the lowest is taken', () => active(camera), (on) => on === 'q', 15_000);
  await until('the lowest layer', () => width(viewer), (pixels) => pixels > 0 && pixels <= 320, 5_000);

  await ask(viewer, 2);
  const on = await until('the best is wanted again', () => active(camera), (on) => on === 'fhq', 3_000);
  const shown = await until('the best layer again', () => width(viewer), (pixels) => pixels === 1280, 30_000);
  console.log(`layers on after ${on} ms, the best layer shown ${shown} ms later`);
});
