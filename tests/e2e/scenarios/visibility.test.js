// Who is in which room: over HTTP at the relay, for those whose token says so.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';

let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
});

test('rooms, participants and tracks are shown to those who may know', { timeout: 90_000 }, async () => {
  const room = 'seen';
  const [anna, ben] = [await browser.newPage(), await browser.newPage()];
  await anna.join(await host.link('anna', { room }));
  await ben.join(await host.link('ben', { room, grants: { hidden: true, canPublish: false } }), { camera: false, microphone: false });
  await ben.receives('anna');

  const base = new URL(host.metrics).origin;
  const get = async (path, grants) => {
    const headers = grants ? { authorization: `Bearer ${await host.adminToken(grants)}` } : {};
    const response = await fetch(`${base}${path}`, { headers });
    return { status: response.status, body: await response.json() };
  };
  const list = { roomList: true };
  const admin = { roomAdmin: true, room };

  for (const path of ['/rooms', `/rooms/${room}`, `/rooms/${room}/participants`]) {
    assert.equal((await get(path)).status, 401, path);
    assert.equal((await get(path, { roomAdmin: true, room: 'elsewhere' })).status, 403, path);
    assert.equal((await get(path, { roomJoin: true, room })).status, 403, path);
  }
  assert.equal((await get('/rooms/none', { roomAdmin: true, room: 'none' })).status, 404);

  const rooms = (await get('/rooms', list)).body.rooms.filter(({ name }) => name === room);
  assert.equal(rooms.length, 1);
  assert.equal(rooms[0].numParticipants, 1, 'a hidden participant is not counted');

  const detail = (await get(`/rooms/${room}`, admin)).body;
  assert.equal(detail.room.name, room);
  const { participants } = (await get(`/rooms/${room}/participants`, admin)).body;
  assert.deepEqual(participants, detail.participants);
  assert.deepEqual(participants.map(({ identity }) => identity).sort(), ['anna', 'ben'], 'administrators see everybody');
  const tracks = participants.find(({ identity }) => identity === 'anna').tracks;
  assert.deepEqual(tracks.map(({ source }) => source).sort(), ['CAMERA', 'MICROPHONE']);
  assert.ok(tracks.every(({ encryption }) => encryption === 'GCM'), JSON.stringify(tracks));

  const others = await anna.evaluate(() => [...window.curtain.room.remoteParticipants.keys()]);
  assert.deepEqual(others, [], 'a hidden participant is shown to another one');

  for (const [name, labels] of [
    ['curtain_rooms', ''],
    ['curtain_participants', ''],
    ['curtain_tracks', ''],
    ['curtain_rtp_packets_total', 'direction="in"'],
    ['curtain_rtp_packets_total', 'direction="out"'],
    ['curtain_bytes_total', 'direction="out"'],
    ['curtain_rtt_seconds_count', ''],
    ['curtain_shard_cpu_seconds', 'shard="0"'],
  ]) {
    // Round-trip times take a sender report, its receiver report, and the sample after that.
    const deadline = Date.now() + 20_000;
    while (!((await host.metric(name, labels)) > 0)) {
      assert.ok(Date.now() < deadline, `${name}{${labels}}: ${await host.metric(name, labels)}`);
      await sleep(250);
    }
  }
  for (const name of ['curtain_packets_lost_total', 'curtain_drops_total', 'curtain_nack_packets_total', 'curtain_pli_total']) {
    assert.notEqual(await host.metric(name), undefined, name);
  }
});
