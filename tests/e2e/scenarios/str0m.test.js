// A participant on `str0m`, a WebRTC stack that shares no code with the relay's media path, with a Chromium page.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';

import { startChromium } from '../lib/browser.js';
import { DevHost, repository } from '../lib/host.js';
import { Child, json } from '../lib/process.js';
import { stage } from '../lib/stage.js';

let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
});

async function bot(identity, room, { key = host.key, seconds = 60, flags = ['--video', '--audio'] } = {}) {
  const command = process.env.CURTAIN_LOADTEST ?? join(repository, 'target/release/loadtest');
  return new Child(command, ['join', '--url', host.ws, '--seconds', String(seconds), ...flags], {
    env: { ...process.env, CURTAIN_TOKEN: await host.token(identity, { room }), ...(key && { CURTAIN_E2EE_KEY: key }) },
  });
}

const report = (accept) => (line) => {
  const object = json(line);
  return object && accept(object) ? object : undefined;
};
const streams = (object, kind) => Object.values(object.streams).filter((stream) => stream.kind === kind);

test('str0m and a page receive and decrypt each other', { timeout: 120_000 }, async () => {
  const room = 'str0m-page';
  const page = await browser.newPage();
  const child = await bot('bot', room);
  try {
    // The page must come in the middle of a stream: only then does it depend on a key frame that is asked for.
    await child.line(report(({ frames_sent }) => frames_sent > 100), 20_000);
    await page.join(await host.link('page', { room }));
    const { audio } = await page.receives('bot', { timeoutMs: 40_000 });
    assert.ok(audio.energy > 0, 'the tone is heard');
    await page.waitForEncryption('bot', 'encrypted');
    const enough = (kind, frames) => (object) => streams(object, kind).some((stream) => stream.opened >= frames);
    const got = await child.line(report((o) => enough('video', 45)(o) && enough('audio', 150)(o)), 40_000);
    for (const stream of Object.values(got.streams)) {
      assert.equal(stream.failed, 0, JSON.stringify(got));
      assert.equal(stream.clear, 0, JSON.stringify(got));
    }
    assert.ok(got.key_frame_requests > 0, 'a page that joins needs a key frame, and its request arrives');
  } finally {
    await child.stop();
    await page.close();
  }
});

test('two str0m participants: with another key nothing opens, in clear nothing arrives', { timeout: 90_000 }, async () => {
  const room = 'str0m-keys';
  const children = [await bot('first', room), await bot('stranger', room, { key: 'another-key' })];
  try {
    const got = await children[1].line(report((o) => streams(o, 'video').some((s) => s.frames >= 30)), 30_000);
    for (const stream of Object.values(got.streams)) {
      assert.equal(stream.opened, 0, JSON.stringify(got));
      assert.ok(stream.failed > 0, JSON.stringify(got));
      assert.equal(stream.clear, 0, JSON.stringify(got));
    }
    const plain = await bot('plain', room, { key: null });
    children.push(plain);
    const refused = await plain.line(report((o) => o.refusals.length === 2), 20_000);
    assert.ok(refused.refusals.every((text) => text.includes('encryption')), JSON.stringify(refused.refusals));
    assert.equal(refused.frames_sent, 0);
    // The call beside it goes on.
    const before = streams(got, 'video')[0].frames;
    await children[1].line(report((o) => streams(o, 'video').some((s) => s.frames >= before + 60)), 30_000);
  } finally {
    await Promise.all(children.map((child) => child.stop()));
  }
});
