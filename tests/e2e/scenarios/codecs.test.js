// Every video codec that a browser publishes comes out of the other's decoder: encrypted where the SDK's cryptor can.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { injectStockSdk, sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';

let browser;
const hosts = {};

stage(async (keep) => {
  hosts.required = keep(await DevHost.start());
  hosts.optional = keep(await DevHost.start('--e2ee', 'optional'));
  browser = keep(await startChromium());
});

async function join(host, identity, room, { codec, encrypted }) {
  const page = await browser.newPage();
  await injectStockSdk(page, host.page);
  await page.evaluate(
    async ({ ws, token, key, codec }) => {
      const options = { publishDefaults: { videoCodec: codec, backupCodec: false } };
      if (key) {
        const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
        await keyProvider.setKey(key);
        options.encryption = { keyProvider, worker: window.stockWorker() };
      }
      const room = new LivekitClient.Room(options);
      await (key && room.setE2EEEnabled(true));
      room.on('trackSubscribed', (track) => document.body.append(track.attach()));
      await room.connect(ws, token);
      if (codec) {
        await room.localParticipant.setCameraEnabled(true);
        await room.localParticipant.setMicrophoneEnabled(true, {}, { red: true });
      }
      window.curtain = { room };
    },
    { ws: host.ws, token: await host.token(identity, { room }), key: encrypted ? host.key : undefined, codec },
  );
  return page;
}

const received = (page) =>
  page.evaluate(async () => {
    const found = {};
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        const stats = [...((await publication.track?.receiver?.getStats())?.values() ?? [])];
        for (const stat of stats.filter(({ type }) => type === 'inbound-rtp')) {
          const codec = stats.find(({ id }) => id === stat.codecId)?.mimeType;
          found[stat.kind] = { codec, frames: stat.framesDecoded ?? 0, energy: stat.totalAudioEnergy ?? 0, width: stat.frameWidth };
        }
      }
    }
    return found;
  });

/** The codec of a room's audio as the relay sees it in packets: browsers name what is inside of RED. */
async function audioAtRelay(host, room) {
  const headers = { authorization: `Bearer ${await host.adminToken({ roomAdmin: true, room })}` };
  const response = await fetch(new URL(`/rooms/${room}/participants`, host.metrics), { headers });
  const tracks = (await response.json()).participants.flatMap((participant) => participant.tracks ?? []);
  return tracks.find(({ source }) => source === 'MICROPHONE').mimeType;
}

for (const { codec, encrypted } of [
  { codec: 'vp9', encrypted: true },
  { codec: 'h264', encrypted: true },
  // The SDK's cryptor cannot encrypt AV1, and leaves RED out where it encrypts.
  { codec: 'av1', encrypted: false },
]) {
  test(`${codec}, ${encrypted ? 'encrypted' : 'in clear with RED, where the room allows it'}`, { timeout: 90_000 }, async () => {
    const host = encrypted ? hosts.required : hosts.optional;
    const from = await join(host, 'from', codec, { codec, encrypted });
    const to = await join(host, 'to', codec, { encrypted });
    const deadline = Date.now() + 40_000;
    for (;;) {
      const { video, audio } = await received(to);
      if (video?.frames > 30 && audio?.energy > 0) {
        assert.equal(video.codec.toLowerCase(), `video/${codec}`);
        assert.equal(await audioAtRelay(host, codec), encrypted ? 'audio/opus' : 'audio/red');
        break;
      }
      assert.ok(Date.now() < deadline, `${JSON.stringify({ video, audio })}\n${host.log}`);
      await sleep(250);
    }
    await from.close();
    await to.close();
  });
}
