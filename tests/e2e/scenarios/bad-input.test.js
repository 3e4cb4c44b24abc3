// Bad tokens, bad WebSockets and bad datagrams: each gets a clear error or a counted drop, and the call beside goes on.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import { afterEach, test } from 'node:test';

import { JoinRequest, SignalRequest, WrappedJoinRequest } from '@livekit/protocol';
import WebSocket from 'ws';

import { sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';
import { badTokens, handmade } from '../lib/tokens.js';

let host;
let browser;
let anna;
let ben;
const sockets = [];

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
  anna = await browser.newPage();
  ben = await browser.newPage();
  await anna.join(await host.link('anna'));
  await ben.join(await host.link('ben'));
  await anna.receives('ben');
}, 90_000);

afterEach(async () => {
  sockets.splice(0).forEach((socket) => socket.terminate());
  // Whatever was thrown at the service: both still see and hear each other, in the session they had.
  await anna.receives('ben', { timeoutMs: 10_000 });
  await ben.receives('anna', { timeoutMs: 10_000 });
  assert.equal(host.child.over, undefined, host.log);
  assert.doesNotMatch(host.log, /panicked/);
}, { timeout: 30_000 });

/** Opens a WebSocket and reports how that ended or that it stayed open. */
function attempt(path, token, { waitMs = 5000, headers = {} } = {}) {
  return new Promise((resolve) => {
    const url = new URL(path, host.ws);
    url.searchParams.set('access_token', token);
    url.searchParams.set('protocol', '16');
    if (path.endsWith('/v1')) {
      const joinRequest = new JoinRequest({ clientInfo: { protocol: 16 } }).toBinary();
      const wrapped = new WrappedJoinRequest({ joinRequest }).toBinary();
      url.searchParams.set('join_request', Buffer.from(wrapped).toString('base64'));
    }
    const socket = new WebSocket(url, { headers, handshakeTimeout: waitMs });
    sockets.push(socket);
    const result = { socket, opened: false };
    const finish = (more) => resolve(Object.assign(result, more));
    socket.once('open', () => {
      result.opened = true;
      setTimeout(() => finish({}), 1000);
    });
    socket.once('message', (data) => {
      result.message = data;
      finish({});
    });
    socket.once('unexpected-response', (_request, response) => {
      let body = '';
      response.on('data', (chunk) => (body += chunk)).on('end', () => finish({ status: response.statusCode, body }));
    });
    socket.once('close', (code, reason) => finish({ closed: code, reason: String(reason) }));
    socket.once('error', (error) => finish({ error }));
  });
}

function closed(socket, timeoutMs) {
  if (socket.readyState === WebSocket.CLOSED) {
    return Promise.resolve(true);
  }
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), timeoutMs);
    socket.once('close', () => {
      clearTimeout(timer);
      resolve(true);
    });
    socket.on('error', () => undefined);
  });
}

test('a good token made the same way does open a session', { timeout: 60_000 }, async () => {
  const { opened, message } = await attempt('/rtc', handmade(host, { sub: 'control' }));
  assert.ok(opened && message, 'otherwise the refusals below show nothing');
});

test('bad tokens are refused with 401 or the like, and say so', { timeout: 90_000 }, async () => {
  for (const [what, token] of Object.entries(badTokens(host))) {
    for (const path of ['/rtc/validate', '/rtc/v1/validate']) {
      const response = await fetch(`${host.http}${path}?access_token=${token}`).catch((error) => ({ error }));
      if (what === 'oversized' && response.error) {
        continue; // The connection may be closed before the whole request was read.
      }
      assert.ok(response.status >= 400 && response.status < 500, `${what} at ${path}: ${response.status}`);
      if (what !== 'oversized') {
        assert.ok([400, 401, 403].includes(response.status), `${what} at ${path}: ${response.status}`);
        assert.ok((await response.text()).trim().length > 0, `${what} at ${path}: no explanation`);
      }
    }
    for (const path of ['/rtc', '/rtc/v1']) {
      const { message, opened, status } = await attempt(path, token);
      assert.ok(!message && !opened, `${what} opened a session at ${path}`);
      assert.ok(status === undefined || (status >= 400 && status < 500), `${what} at ${path}: ${status}`);
    }
  }
  const rooms = await fetch(`${host.http}/twirp/livekit.RoomService/ListRooms`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${await host.adminToken({ roomList: true })}` },
    body: '{}',
  });
  assert.equal(rooms.status, 200);
});

test('a token for one room opens no other', { timeout: 60_000 }, async () => {
  const call = async (grants, method, body) => {
    const response = await fetch(`${host.http}/twirp/livekit.RoomService/${method}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${await host.adminToken(grants)}` },
      body: JSON.stringify(body),
    });
    return response.status;
  };
  const elsewhere = { roomAdmin: true, room: 'elsewhere' };
  for (const [method, body] of [
    ['ListParticipants', { room: host.room }],
    ['GetParticipant', { room: host.room, identity: 'anna' }],
    ['RemoveParticipant', { room: host.room, identity: 'anna' }],
    ['UpdateRoomMetadata', { room: host.room, metadata: 'owned' }],
    ['DeleteRoom', { room: host.room }],
  ]) {
    const status = await call(elsewhere, method, body);
    assert.ok(status === 401 || status === 403, `${method}: ${status}`);
  }
  assert.equal(await call({ roomAdmin: true, room: host.room }, 'ListParticipants', { room: host.room }), 200);
});

test('junk on a WebSocket', { timeout: 60_000 }, async () => {
  for (const junk of [randomBytes(64), Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f]), 'not json {', '', Buffer.alloc(0)]) {
    const { socket, opened } = await attempt('/rtc', handmade(host, { sub: 'junk' }));
    assert.ok(opened);
    for (let count = 0; count < 20; count += 1) {
      if (socket.readyState === WebSocket.OPEN) {
        socket.send(junk);
      }
    }
    await sleep(300);
    socket.terminate();
  }
});

test('a message of one MiB closes the session', { timeout: 60_000 }, async () => {
  const { socket, opened } = await attempt('/rtc', handmade(host, { sub: 'big' }));
  assert.ok(opened);
  const over = closed(socket, 10_000);
  socket.send(randomBytes(1 << 20), () => undefined);
  assert.ok(await over, 'the session stays open');
});

test('descriptions that no browser would send', { timeout: 60_000 }, async () => {
  const sdps = [
    '',
    'v=0',
    'not sdp at all',
    `v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n${'m=video 9 UDP/TLS/RTP/SAVPF 96\r\n'.repeat(2000)}`,
    'v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 999999\r\na=mid:0\r\na=rtpmap:999999 opus/0\r\n',
    `v=0\r\n${'a'.repeat(100_000)}\r\n`,
    '\u0000\u0001\u0002',
  ];
  for (const path of ['/rtc', '/rtc/v1']) {
    for (const sdp of sdps) {
      const { socket, opened } = await attempt(path, handmade(host, { sub: 'sdp' }));
      assert.ok(opened, path);
      for (const type of ['offer', 'answer']) {
        if (socket.readyState === WebSocket.OPEN) {
          socket.send(new SignalRequest({ message: { case: type, value: { type, sdp } } }).toBinary());
          socket.send(
            new SignalRequest({ message: { case: 'trickle', value: { candidateInit: sdp, target: 0 } } }).toBinary(),
          );
        }
      }
      await sleep(150);
      socket.terminate();
    }
  }
});

test('connections that say nothing or half of it', { timeout: 60_000 }, async () => {
  const { port, hostname } = new URL(host.http);
  const quiet = [];
  for (const words of ['', 'GET /rtc HT', 'GET /rtc HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n', '\u0016\u0003\u0001\u0002\u0000']) {
    for (let count = 0; count < 25; count += 1) {
      const socket = connect(Number(port), hostname);
      socket.on('error', () => undefined);
      socket.write(words);
      quiet.push(socket);
    }
  }
  await sleep(2000);
  const response = await fetch(host.page);
  assert.equal(response.status, 200, 'others are still served');
  quiet.forEach((socket) => socket.destroy());
});

test('garbage and forgeries at the media port', { timeout: 60_000 }, async () => {
  const relay = await anna.evaluate(async () => {
    for (const publication of window.curtain.room.localParticipant.trackPublications.values()) {
      const stats = await publication.track.sender.getStats();
      for (const stat of stats.values()) {
        if (stat.type === 'remote-candidate') {
          return { address: stat.address ?? stat.ip, port: stat.port };
        }
      }
    }
    return undefined;
  });
  assert.ok(relay?.port, 'the page knows its relay');
  const before = (await host.metric('curtain_drops_total')) ?? 0;
  const socket = createSocket('udp4');
  const send = (datagram) => new Promise((resolve) => socket.send(datagram, relay.port, relay.address, resolve));

  const stun = (attributes) => {
    const header = Buffer.alloc(20);
    header.writeUInt16BE(0x0001, 0);
    header.writeUInt16BE(attributes.length, 2);
    header.writeUInt32BE(0x2112a442, 4);
    randomBytes(12).copy(header, 8);
    return Buffer.concat([header, attributes]);
  };
  const attribute = (type, value) => {
    const padded = Buffer.alloc(4 + Math.ceil(value.length / 4) * 4);
    padded.writeUInt16BE(type, 0);
    padded.writeUInt16BE(value.length, 2);
    value.copy(padded, 4);
    return padded;
  };
  const rtp = (payloadType) => {
    const packet = Buffer.concat([Buffer.alloc(12), randomBytes(200)]);
    packet[0] = 0x80;
    packet[1] = payloadType;
    packet.writeUInt16BE(Math.floor(Math.random() * 65536), 2);
    return packet;
  };
  const kinds = [
    () => randomBytes(1 + Math.floor(Math.random() * 1400)),
    () => stun(Buffer.alloc(0)),
    () => stun(attribute(0x0006, Buffer.from('nobody:here'))),
    () => stun(Buffer.concat([attribute(0x0006, Buffer.from('nobody:here')), attribute(0x0008, randomBytes(20))])),
    () => stun(Buffer.from([0, 6, 0xff, 0xff])),
    () => Buffer.concat([Buffer.from([22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 50]), randomBytes(50)]),
    () => Buffer.from([22, 254, 253]),
    () => rtp(96),
    () => rtp(111),
    () => Buffer.concat([Buffer.from([0x80, 200, 0, 6]), randomBytes(24)]),
    () => Buffer.from([0x9f, 96]),
    () => Buffer.alloc(0),
  ];
  let sent = 0;
  for (let round = 0; round < 60; round += 1) {
    for (const kind of kinds) {
      await send(kind());
      sent += 1;
    }
    await sleep(20);
  }
  const answers = [];
  socket.on('message', (message) => answers.push(message.length));
  await sleep(1000);
  socket.close();
  assert.deepEqual(answers, [], 'the relay answers an address that proved nothing');
  const drops = (await host.metric('curtain_drops_total')) - before;
  assert.ok(drops > sent / 2, `${drops} of ${sent} datagrams were counted as dropped`);
});
