// `sfu` and `signaling` as separate processes: a visit survives the loss of either.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sleep, startChromium } from '../lib/browser.js';
import { SplitHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';

let host;
// One for each participant. When a session begins anew the SDK takes the camera anew; two pages of one Chromium that do so
// at once sometimes get tracks without a single frame from the fake camera they share (MediaStreamTrack.stats).
let browsers;

stage(async (keep) => {
  host = keep(await SplitHost.start());
  browsers = [keep(await startChromium()), keep(await startChromium())];
});

function newPages() {
  return Promise.all(browsers.map((browser) => browser.newPage()));
}

/** Keeps what the room says about its connection, so that the test can tell a resume from a full reconnect. */
function record(page) {
  return page.evaluate(() => {
    window.events = [];
    const { room } = window.curtain;
    for (const name of ['signalReconnecting', 'reconnecting', 'reconnected', 'disconnected']) {
      room.on(name, () => window.events.push(name));
    }
    window.sidBefore = room.localParticipant.sid;
  });
}

test('media flows on while signaling is away, and the page resumes', { timeout: 120_000 }, async () => {
  const [anna, ben] = await newPages();
  await anna.join(await host.link('anna'));
  await ben.join(await host.link('ben'));
  await anna.receives('ben');
  await ben.receives('anna');
  await record(anna);

  await host.signaling.stop('SIGKILL');
  // Long enough to show that nothing of the media path waits for signaling.
  await sleep(3000);
  await anna.receives('ben', { frames: 20, samples: 48_000, timeoutMs: 8000 });
  await ben.receives('anna', { frames: 20, samples: 48_000, timeoutMs: 8000 });

  await host.startSignaling();
  await anna.waitFor(() => window.events.includes('reconnected'), 30_000);
  const { events, sid, sidBefore } = await anna.evaluate(() => ({
    events: window.events,
    sid: window.curtain.room.localParticipant.sid,
    sidBefore: window.sidBefore,
  }));
  assert.equal(sid, sidBefore, `a resume keeps the session: ${events}`);
  assert.ok(!events.includes('disconnected'));
  await anna.receives('ben');
  await ben.receives('anna');

  // The resumed session signals: a mute gets through.
  await anna.press('Microphone');
  await ben.waitFor(() => !window.curtain.room.remoteParticipants.get('anna').isMicrophoneEnabled);
  await Promise.all([anna.close(), ben.close()]);
});

test('after the relay restarts the pages reconnect in full', { timeout: 150_000 }, async () => {
  const [anna, ben] = await newPages();
  await anna.join(await host.link('anna', { room: 'relay-restart' }));
  await ben.join(await host.link('ben', { room: 'relay-restart' }));
  await anna.receives('ben');
  await record(anna);
  await record(ben);

  await host.sfu.stop('SIGKILL');
  await sleep(1000);
  await host.startSfu();

  for (const [page, other] of [[anna, 'ben'], [ben, 'anna']]) {
    await page.waitFor(() => window.events.includes('reconnected'), 60_000);
    await page.waitFor((who) => window.curtain.room.remoteParticipants.has(who), 30_000, other);
    await page.receives(other, { timeoutMs: 30_000 });
    await page.waitForEncryption(other, 'encrypted');
    const { sid, sidBefore } = await page.evaluate(() => ({
      sid: window.curtain.room.localParticipant.sid,
      sidBefore: window.sidBefore,
    }));
    assert.notEqual(sid, sidBefore, 'a new relay knows no old session');
  }
  await Promise.all([anna.close(), ben.close()]);
});
