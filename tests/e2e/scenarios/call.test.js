// Chromium pages in a call: everyone receives everyone, and the encryption does what the page says.
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';

import { injectStockSdk, sleep, startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';
import { muteStopsMedia } from '../lib/steps.js';

let host;
let browser;
let open = [];

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
});

afterEach(async () => {
  await Promise.all(open.map((participant) => participant.close().catch(() => undefined)));
  open = [];
});

async function participant() {
  const page = await browser.newPage();
  open.push(page);
  return page;
}

async function joined(identity, options = {}) {
  const page = await participant();
  await page.join(await host.link(identity, options), options);
  return page;
}

const room = (name) => ({ room: name });

test('the printed links lead two people into one encrypted visit', { timeout: 90_000 }, async () => {
  const clinician = await participant();
  const patient = await participant();
  await clinician.join(host.clinician);
  await patient.join(host.patient);
  const identity = (page) => page.evaluate(() => window.curtain.room.localParticipant.identity);
  const [c, p] = [await identity(clinician), await identity(patient)];

  const { video, audio } = await patient.receives(c);
  assert.ok(video.bytes > 0 && audio.bytes > 0);
  assert.ok(audio.energy > 0, 'the fake microphone beeps, so something has to be heard');
  await clinician.receives(p);
  await patient.waitForEncryption(c, 'encrypted');
  await clinician.waitForEncryption(p, 'encrypted');
  assert.equal(video.cipher.dropped, 0, 'no frame fails to decrypt');

  const address = await patient.evaluate(() => window.location.href);
  assert.ok(!address.includes('token') && !address.includes('key'), `secrets stay in the address bar: ${address}`);
  assert.deepEqual(clinician.page.problems, []);
  assert.deepEqual(patient.page.problems, []);
});

test('three pages: each receives both others', { timeout: 120_000 }, async () => {
  const names = ['anna', 'ben', 'cleo'];
  const pages = [];
  for (const name of names) {
    pages.push(await joined(name, room('three')));
  }
  for (const [at, page] of pages.entries()) {
    for (const other of names.filter((_, index) => index !== at)) {
      await page.receives(other, { timeoutMs: 30_000 });
      await page.waitForEncryption(other, 'encrypted');
    }
  }
});

test('messages are encrypted and arrive', { timeout: 90_000 }, async () => {
  const options = { ...room('chat'), camera: false };
  const anna = await joined('anna', options);
  const ben = await joined('ben', options);
  await ben.evaluate(() => {
    window.packets = [];
    window.curtain.room.engine.on('dataPacketReceived', (packet, encryption) =>
      window.packets.push({ kind: packet.value.case, encryption }),
    );
  });
  await anna.press('Messages');
  await ben.press('Messages');
  await anna.page.fill('aside input', 'Grüß Gott, Ben ✓');
  await anna.press('Send');
  await ben.waitFor(() => document.querySelector('.messages')?.innerText.includes('Grüß Gott, Ben ✓'));
  const packets = await ben.evaluate(() => window.packets);
  assert.ok(packets.length > 0);
  assert.ok(packets.every(({ encryption }) => encryption !== 0), JSON.stringify(packets));
});

test('mute and camera off stop the media; leaving is seen by all', { timeout: 90_000 }, async () => {
  const anna = await joined('anna', room('mute'));
  const ben = await joined('ben', room('mute'));
  await ben.receives('anna');

  await muteStopsMedia(anna, 'anna', ben);

  await anna.press('Leave');
  await ben.waitFor(() => document.querySelectorAll('.tile').length === 1);
  await ben.waitFor(() => document.body.textContent.includes('anna left the visit.'));
});

test('with the wrong key no frame decodes, and both sides say so', { timeout: 90_000 }, async () => {
  const right = await joined('right', room('wrong-key'));
  const good = await joined('good', room('wrong-key'));
  const wrong = await joined('wrong', { ...room('wrong-key'), key: 'not-the-key' });
  await right.receives('good');
  await wrong.waitForEncryption('right', 'broken', 20_000);
  await right.waitForEncryption('wrong', 'broken', 20_000);
  await sleep(3000);
  for (const [page, other] of [[wrong, 'right'], [wrong, 'good'], [right, 'wrong'], [good, 'wrong']]) {
    const video = await page.from(other, 'video');
    const audio = await page.from(other, 'audio');
    assert.ok(video.packets > 0, 'the relay does not know keys: it forwards');
    assert.equal(video.frames, 0, `a frame of ${other} was decoded`);
    assert.equal(audio.energy, 0, `something of ${other} was heard`);
  }
  assert.match(await wrong.text(), /cannot be decrypted|Cannot decrypt/);
  assert.equal(await right.encryption('good'), 'encrypted');
});

test('without a key in the link nobody joins', { timeout: 30_000 }, async () => {
  const page = await participant();
  const sockets = [];
  page.page.on('websocket', (socket) => sockets.push(socket.url()));
  await page.page.goto((await host.link('nokey', room('no-key'))).replace(/#.*/, ''));
  await page.waitFor(() => document.body.innerText.includes('The encryption key is missing'));
  await sleep(500);
  assert.deepEqual(sockets, []);
});

test('with encryption off in a room that requires it nothing is forwarded and the page says why', { timeout: 90_000 }, async () => {
  const safe = await joined('safe', room('required'));
  const other = await joined('other', room('required'));
  await safe.receives('other');
  const plain = await joined('plain', { ...room('required'), query: { e2ee: 'off' } });
  assert.match(await plain.text(), /not end-to-end encrypted/);
  const refusal = await plain.waitFor(() => document.querySelector('[data-testid=refusal]')?.textContent, 15_000);
  assert.match(refusal, /encrypt/i, 'the reason names encryption');
  await sleep(2000);
  for (const page of [safe, other]) {
    const entries = (await page.received()).filter(({ from }) => from === 'plain');
    assert.ok(entries.every(({ packets }) => packets === 0), JSON.stringify(entries));
  }
  await safe.receives('other');
});

test('media that claims to be encrypted and is not is dropped and counted', { timeout: 90_000 }, async () => {
  const safe = await joined('safe', room('liar'));
  const other = await joined('other', room('liar'));
  const liar = await participant();
  await injectStockSdk(liar, host.page);
  const countedBefore = (await host.metric('curtain_drops_total', 'reason="not_encrypted"')) ?? 0;
  await liar.evaluate(
    async ({ ws, token }) => {
      const room = new LivekitClient.Room();
      await room.connect(ws, token);
      // Declares GCM, has no cryptor: plain frames under a false flag.
      room.localParticipant.encryptionType = 1;
      await room.localParticipant.setCameraEnabled(true);
      await room.localParticipant.setMicrophoneEnabled(true);
      window.liar = room;
    },
    { ws: host.ws, token: await host.token('liar', room('liar')) },
  );
  const sent = () =>
    liar.evaluate(async () => {
      let packets = 0;
      for (const publication of window.liar.localParticipant.trackPublications.values()) {
        for (const stat of (await publication.track.sender.getStats()).values()) {
          packets += stat.type === 'outbound-rtp' ? (stat.packetsSent ?? 0) : 0;
        }
      }
      return packets;
    });
  const deadline = Date.now() + 15_000;
  while ((await sent()) < 100) {
    assert.ok(Date.now() < deadline, 'the liar sends nothing, so this test shows nothing');
    await sleep(250);
  }
  for (const page of [safe, other]) {
    const entries = (await page.received()).filter(({ from }) => from === 'liar');
    assert.ok(entries.every(({ packets, frames }) => packets === 0 && frames === 0), JSON.stringify(entries));
  }
  assert.ok((await host.metric('curtain_drops_total', 'reason="not_encrypted"')) > countedBefore, 'the drops are not counted');
  await safe.receives('other');
});

test('the stock SDK with its own cryptor joins unchanged', { timeout: 90_000 }, async () => {
  const page = await joined('page', room('stock'));
  const stock = await participant();
  await injectStockSdk(stock, host.page);
  await stock.evaluate(
    async ({ ws, token, key }) => {
      const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
      await keyProvider.setKey(key);
      const room = new LivekitClient.Room({ encryption: { keyProvider, worker: window.stockWorker() } });
      await room.setE2EEEnabled(true);
      room.on('trackSubscribed', (track) => document.body.append(track.attach()));
      await room.connect(ws, token);
      await room.localParticipant.setCameraEnabled(true);
      await room.localParticipant.setMicrophoneEnabled(true);
      window.curtain = { room };
    },
    { ws: host.ws, token: await host.token('stock', room('stock')), key: host.key },
  );
  await page.receives('stock');
  await page.waitForEncryption('stock', 'encrypted');
  await stock.receives('page');
});
