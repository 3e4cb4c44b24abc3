// Firefox with Chromium, both ways, end-to-end encrypted. With the stock SDK this direction was reported broken
// (client-sdk-js issue 2103, "missing key at index 241").
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Child, json } from '../lib/process.js';

const lib = join(dirname(fileURLToPath(import.meta.url)), '../lib');

test('Firefox and Chromium decrypt each other', { timeout: 180_000 }, async () => {
  const child = new Child(join(lib, 'netns.sh'), [process.execPath, join(lib, 'firefox-call.js')]);
  const timer = setTimeout(() => child.stop('SIGTERM'), 170_000);
  const how = await child.exited;
  clearTimeout(timer);
  const findings = new Map(
    child.lines.map(json).filter((line) => line?.finding).map((line) => [line.finding, line]),
  );
  assert.equal(findings.get('error')?.message, undefined, findings.get('error')?.log);
  assert.equal(how.code, 0, child.log);
  for (const direction of ['firefox-to-chromium', 'chromium-to-firefox', 'after-camera-restart']) {
    const { video, audio } = findings.get(direction) ?? {};
    assert.ok(video?.frames > 0 && audio?.samples > 0, `${direction}: ${JSON.stringify({ video, audio })}`);
    assert.equal(audio.cipher.passing, true);
  }
  assert.equal(findings.get('firefox-to-chromium').video.cipher.dropped, 0, 'Firefox sent a frame unencrypted');
  assert.deepEqual(findings.get('indicators'), { finding: 'indicators', chromium: 'encrypted', firefox: 'encrypted' });
  assert.ok(findings.has('message'));
  assert.ok(findings.get('wrong-key').packets > 0);
  assert.equal(findings.get('wrong-key').frames, 0);
  assert.equal(findings.get('dropped-for-no-encryption').count, 0, 'a browser sent frames without encryption');
});
