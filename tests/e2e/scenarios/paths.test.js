// The ways to the relay that are not plain UDP, and the change from one to another. Each runs in a network namespace of its
// own (lib/paths-call.js): as root, or where user namespaces are allowed.
import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Child, json } from '../lib/process.js';

const lib = join(dirname(fileURLToPath(import.meta.url)), '../lib');

/** Runs a case and returns its findings by name. */
async function findingsOf(name, limitMs) {
  const child = new Child(join(lib, 'netns.sh'), [process.execPath, join(lib, 'paths-call.js'), name]);
  const timer = setTimeout(() => child.stop('SIGTERM'), limitMs);
  const how = await child.exited;
  clearTimeout(timer);
  const findings = new Map(
    child.lines.map(json).filter((line) => line?.finding).map((line) => [line.finding, line]),
  );
  assert.equal(findings.get('error')?.message, undefined, findings.get('error')?.log);
  assert.equal(how.code, 0, child.log);
  return findings;
}

function assertBothWays(findings) {
  for (const side of ['clinician', 'patient']) {
    const { video, audio } = findings.get(side) ?? {};
    assert.ok(video?.frames > 0 && audio?.samples > 0, `${side}: ${JSON.stringify({ video, audio })}`);
    assert.equal(audio.cipher.passing, true);
  }
  assert.deepEqual(findings.get('indicators'), { finding: 'indicators', clinician: 'encrypted', patient: 'encrypted' });
}

test('without UDP a visit goes over TCP, end-to-end encrypted', { timeout: 120_000 }, async () => {
  const findings = await findingsOf('tcp', 110_000);
  assertBothWays(findings);
  const { clinician, patient } = findings.get('paths');
  for (const path of [...clinician, ...patient]) {
    assert.deepEqual([path.state, path.protocol, path.remote], ['connected', 'tcp', 'tcp']);
  }
  assert.equal(findings.get('metrics').connections, clinician.length + patient.length);
});

test('a client limited to TURN over TLS is in the visit by coturn', { timeout: 120_000 }, async () => {
  const findings = await findingsOf('turn', 110_000);
  assertBothWays(findings);
  const { clinician, patient } = findings.get('paths');
  for (const path of [...clinician, ...patient]) {
    assert.deepEqual([path.state, path.type, path.relayProtocol], ['connected', 'relay', 'tls']);
  }
  const now = Date.now() / 1000;
  for (const { urls, username } of findings.get('servers').servers) {
    assert.match([urls].flat().join(), /^turns:/);
    // The time of expiry, within the hour that curtain-dev asks for, and nothing of who it is.
    const [, expiry] = /^(\d+):[A-Za-z0-9]{12}$/.exec(username);
    assert.ok(expiry > now && expiry <= now + 3600, username);
  }
});

test('a visit follows its participants to another network and back', { timeout: 180_000 }, async (t) => {
  const findings = await findingsOf('move', 170_000);
  assertBothWays(findings);
  for (const { address } of [...findings.get('before').clinician, ...findings.get('before').patient]) {
    assert.equal(address, '10.99.0.1');
  }
  for (const when of ['after-overlap', 'after-hard']) {
    assert.ok(findings.has(when));
  }
  // How long depends on when the browser lets go of its old path (docs/paths.md), so it is told, not judged.
  const [still, overlap, hard] = ['still', 'overlap', 'hard'].map((name) =>
    Math.max(...findings.get(name).pages.map((page) => page.gapMs)));
  t.diagnostic(`longest time without a frame, ms: ${still} without a change, ${overlap} with both networks up, ${hard} with none between`);
});
