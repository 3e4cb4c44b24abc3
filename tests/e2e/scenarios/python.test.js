// The Python SDK (native libwebrtc) with a Chromium page, and the RoomService as `livekit-api` calls it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { startChromium } from '../lib/browser.js';
import { DevHost, repository } from '../lib/host.js';
import { Child, json } from '../lib/process.js';
import { stage } from '../lib/stage.js';

const python = process.env.PYTHON ?? join(repository, '.venv/bin/python');
let host;
let browser;

stage(async (keep) => {
  assert.ok(existsSync(python), `${python} is missing: see tests/README.md`);
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
});

function run(script, options) {
  return new Child(python, ['-u', join(repository, 'tests/python', script)], {
    env: { ...process.env, OPTIONS: JSON.stringify(options), RUST_LOG: 'warn' },
  });
}

const finding = (name) => (line) => {
  const object = json(line);
  if (object?.finding === 'error') {
    throw new Error(object.message);
  }
  return object?.finding === name ? object : undefined;
};

for (const single of [true, false]) {
  test(`the native SDK calls a page, ${single ? 'one PeerConnection' : 'two PeerConnections'}`, { timeout: 120_000 }, async () => {
    const room = `python-${single ? 1 : 2}`;
    const page = await browser.newPage();
    const child = run('call.py', {
      url: host.ws,
      token: await host.token('python', { room }),
      key: host.key,
      single,
      seconds: 100,
    });
    try {
      await page.join(await host.link('page', { room }));
      await page.evaluate(() => {
        window.data = [];
        window.curtain.room.on('dataReceived', (bytes, from, _kind, topic, encryption) =>
          window.data.push({ text: new TextDecoder().decode(bytes), from: from?.identity, topic, encryption }),
        );
      });
      await child.line(finding('connected'), 30_000);
      const { audio } = await page.receives('python', { timeoutMs: 40_000 });
      assert.ok(audio.energy > 0);
      await page.waitForEncryption('python', 'encrypted');

      const received = await child.line(finding('received'), 40_000);
      assert.equal(received.from, 'page');
      assert.ok(received.frames >= 15, JSON.stringify(received));
      assert.ok(received.pictures >= 2, 'the picture never changes');
      assert.ok(received.samples >= 24_000 && received.loudest > 100, JSON.stringify(received));

      await page.waitFor(() => window.data.some(({ topic }) => topic === 'from-python'));
      const packet = (await page.evaluate(() => window.data)).find(({ topic }) => topic === 'from-python');
      assert.deepEqual({ ...packet, encryption: packet.encryption !== 0 }, {
        text: 'bytes from python',
        from: 'python',
        topic: 'from-python',
        encryption: true,
      });
      await page.press('Messages');
      await page.waitFor(() => document.querySelector('.messages')?.innerText.includes('text from python'), 20_000);

      await page.evaluate(async () => {
        const me = window.curtain.room.localParticipant;
        await me.publishData(new TextEncoder().encode('bytes from the page'), { reliable: true, topic: 'from-page' });
        await me.publishData(new TextEncoder().encode('lossy from the page'), { reliable: false, topic: 'lossy' });
      });
      await page.page.fill('aside input', 'text from the page');
      await page.press('Send');
      assert.equal((await child.line(finding('data'), 20_000)).text, 'bytes from the page');
      assert.equal((await child.line(finding('text'), 20_000)).text, 'text from the page');
    } finally {
      await child.stop();
      await page.close();
    }
  });
}

test('two native clients hold a call', { timeout: 90_000 }, async () => {
  const room = 'python-pair';
  const start = async (identity) =>
    run('call.py', { url: host.ws, token: await host.token(identity, { room }), key: host.key, single: true, seconds: 60 });
  const children = [await start('one'), await start('two')];
  try {
    for (const child of children) {
      const received = await child.line(finding('received'), 50_000);
      assert.ok(received.frames >= 15 && received.tone_ms > 200, JSON.stringify(received));
    }
  } finally {
    await Promise.all(children.map((child) => child.stop()));
  }
});

test('a native client with the wrong key sees nothing and hears none of the tone', { timeout: 90_000 }, async () => {
  const room = 'python-wrong';
  const options = async (identity, key) => ({
    url: host.ws,
    token: await host.token(identity, { room }),
    key,
    single: true,
    seconds: 12,
  });
  const right = run('call.py', await options('right', host.key));
  const wrong = run('call.py', await options('wrong', 'not-the-key'));
  try {
    const summary = await wrong.line(finding('summary'), 60_000);
    assert.equal(summary.frames, 0);
    // The SDK attaches its cryptor a moment after the first packets: they come out as a short noise.
    assert.ok(summary.samples > 5 * 48_000 && summary.tone_ms < 100, JSON.stringify(summary));
    assert.ok(summary.tracks > 0, 'it was not even subscribed');
  } finally {
    await right.stop();
    await wrong.stop();
  }
});

test('livekit-api administers rooms', { timeout: 90_000 }, async () => {
  const child = run('rooms.py', {
    http: host.http,
    ws: host.ws,
    api_key: host.apiKey,
    api_secret: host.apiSecret,
    key: host.key,
  });
  const { code } = await child.exited;
  const steps = child.lines.map(json).filter((line) => line?.step).map(({ step }) => step);
  assert.equal(code, 0, child.log);
  assert.deepEqual(steps, [
    'create_room',
    'list_rooms',
    'list_participants',
    'get_participant',
    'mute_published_track',
    'update_subscriptions',
    'update_participant',
    'send_data',
    'update_room_metadata',
    'forbidden',
    'remove_participant',
    'delete_room',
  ]);
});
