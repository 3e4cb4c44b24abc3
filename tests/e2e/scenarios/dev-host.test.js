// What `make run` starts: it says where everything is, ends cleanly, and names a port in use.
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { DevHost, repository } from '../lib/host.js';
import { Child } from '../lib/process.js';

const command = process.env.CURTAIN_DEV ?? join(repository, 'target/release/curtain-dev');
let folder;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'curtain-dev-test-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const start = (...flags) =>
  new Child(command, ['--data-dir', folder, '--page', join(repository, 'client/dist'), ...flags]);
const anyPort = ['--http-port', '0', '--sfu-http-port', '0', '--udp-port', '0', '--control-port', '0'];

test('it prints links, URLs and the key, serves them, and ends cleanly', { timeout: 60_000 }, async () => {
  const child = start(...anyPort);
  try {
    const value = (name) => child.line((line) => new RegExp(`^ +${name} +(\\S+)$`).exec(line)?.[1], 20_000);
    const [page, clinician, patient] = [await value('Page'), await value('Clinician'), await value('Patient')];
    const [rooms, metrics, service] = [await value('Rooms'), await value('Metrics'), await value('RoomService')];
    await value('API key');
    await value('API secret');
    for (const link of [clinician, patient]) {
      const url = new URL(link);
      assert.equal(url.origin, new URL(page).origin);
      assert.match(url.searchParams.get('token'), /^[\w-]+\.[\w-]+\.[\w-]+$/);
      assert.match(url.hash, /^#key=[\w-]{43}$/);
    }
    assert.match(await (await fetch(page)).text(), /<title>/);
    assert.match(await (await fetch(metrics)).text(), /^curtain_rooms 0$/m);
    assert.equal((await fetch(rooms)).status, 401);
    const call = { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' };
    assert.equal((await fetch(`${service}ListRooms`, call)).status, 401);
    for (const base of [new URL(page), new URL(rooms)]) {
      assert.equal((await fetch(new URL('/healthz', base))).status, 200);
      assert.equal((await fetch(new URL('/readyz', base))).status, 200);
    }
  } finally {
    const how = await child.stop('SIGINT');
    assert.deepEqual({ code: how.code, signal: how.signal }, { code: 0, signal: null }, child.log);
  }
});

test('its secrets are its own, stay over a restart, and nobody else may read them', { timeout: 60_000 }, async () => {
  const secret = () => JSON.parse(readFileSync(join(folder, 'dev.json'), 'utf8')).api_secret;
  const before = secret();
  assert.equal(statSync(join(folder, 'dev.json')).mode & 0o777, 0o600);
  const child = start(...anyPort);
  try {
    assert.equal(await child.line((line) => /^ +API secret +(\S+)$/.exec(line)?.[1], 20_000), before);
  } finally {
    await child.stop();
  }
  const other = await DevHost.start();
  try {
    assert.notEqual(other.apiSecret, before);
  } finally {
    await other.stop();
  }
});

test('a port in use is an error that names it', { timeout: 60_000 }, async () => {
  const tcp = createServer();
  await new Promise((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  const udp = createSocket('udp4');
  await new Promise((resolve) => udp.bind(0, '127.0.0.1', resolve));
  try {
    for (const [flag, port] of [
      ['--http-port', tcp.address().port],
      ['--sfu-http-port', tcp.address().port],
      ['--udp-port', udp.address().port],
      ['--control-port', udp.address().port],
    ]) {
      const flags = [...anyPort];
      flags[flags.indexOf(flag) + 1] = String(port);
      const child = start(...flags, '--shards', '1');
      const how = await child.exited;
      assert.equal(how.code, 1, `${flag}: ${child.log}`);
      assert.ok(child.log.includes(String(port)), `${flag}: the error does not name ${port}: ${child.log}`);
      assert.ok(/in use/.test(child.log), `${flag}: ${child.log}`);
    }
  } finally {
    tcp.close();
    udp.close();
  }
});
