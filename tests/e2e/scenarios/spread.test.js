// A room whose participants live on two shards, each on another one than the next.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';
import { muteStopsMedia } from '../lib/steps.js';

let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start('--shards', '2', '--room-participants-per-shard', '1'));
  browser = keep(await startChromium());
});

test('two people on two shards see, hear and write to each other, and a mute stops at once', { timeout: 120_000 }, async () => {
  const room = 'spread';
  const [anna, ben] = [await browser.newPage(), await browser.newPage()];
  await anna.join(await host.link('anna', { room }));
  await ben.join(await host.link('ben', { room }));
  for (const [page, other] of [[anna, 'ben'], [ben, 'anna']]) {
    const { video, audio } = await page.receives(other, { timeoutMs: 30_000 });
    await page.waitForEncryption(other, 'encrypted');
    assert.ok(video.bytes > 0 && audio.energy > 0);
    assert.equal(video.cipher.dropped, 0, 'no frame fails to decrypt');
  }

  await anna.press('Messages');
  await ben.press('Messages');
  await anna.page.fill('aside input', 'from shard to shard');
  await anna.press('Send');
  await ben.waitFor(() => document.querySelector('.messages')?.innerText.includes('from shard to shard'));

  await muteStopsMedia(anna, 'anna', ben);

  for (const shard of [0, 1]) {
    for (const direction of ['in', 'out']) {
      const crossed = await host.metric('curtain_relayed_packets_total', `direction="${direction}",shard="${shard}"`)
        ?? (await host.metric('curtain_relayed_packets_total', `shard="${shard}",direction="${direction}"`));
      assert.ok(crossed > 100, `shard ${shard}, ${direction}: ${crossed}`);
    }
  }

  await anna.press('Leave');
  await ben.waitFor(() => document.querySelectorAll('.tile').length === 1);
});
