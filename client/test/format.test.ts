import { createCipheriv, createDecipheriv, pbkdf2Sync } from 'node:crypto';

import { describe, expect, it } from 'vitest';

import { clearLength, codecOf, FrameError, IvSource, openFrame, sealFrame } from '../sdk/e2ee/format';
import type { Codec } from '../sdk/e2ee/format';
import { deriveSharedKey, openData, sealData } from '../sdk/e2ee/keys';
import { escapeRbsp, normalizeStartCodes, unescapeRbsp } from '../sdk/e2ee/nalu';

const PASSPHRASE = 'correct horse battery staple';
const rawKey = pbkdf2Sync(PASSPHRASE, 'LKFrameEncryptionKey', 100_000, 16, 'sha256');

/** Deterministic bytes. */
function bytes(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(length);
  let state = seed;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    out[at] = state >>> 24;
  }
  return out;
}

async function reasonOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => 'passed',
    (error: unknown) => (error instanceof FrameError ? error.reason : String(error)),
  );
}

const h264 = Uint8Array.from([0, 0, 0, 1, 0x67, 1, 2, 3, 0, 0, 0, 1, 0x68, 4, 0, 0, 1, 0x65, 0x88, ...bytes(300)]);

describe('frames', () => {
  const cases: [Codec, boolean, Uint8Array<ArrayBuffer>, number][] = [
    ['vp8', true, bytes(1200), 10],
    ['vp8', false, bytes(900), 3],
    ['vp9', true, bytes(700), 0],
    ['opus', false, bytes(80), 1],
    ['opus', false, bytes(1), 1],
  ];

  it.each(cases)('%s (key frame: %s) opens to what was sealed', async (codec, keyFrame, frame, clear) => {
    const key = await deriveSharedKey(PASSPHRASE);
    const sealed = await sealFrame(frame.slice().buffer, codec, keyFrame, key, 3, new IvSource());
    const view = new Uint8Array(sealed);
    expect(view.slice(0, clear)).toEqual(frame.slice(0, clear));
    expect([...view.slice(-2)]).toEqual([12, 3]);
    const opened = await openFrame(sealed, codec, keyFrame, (index) => (index === 3 ? key : undefined));
    expect(new Uint8Array(opened)).toEqual(frame);
  });

  it('can be opened by an independent implementation of the format, and the other way round', async () => {
    const frame = bytes(500);
    const key = await deriveSharedKey(PASSPHRASE);
    const sealed = Buffer.from(await sealFrame(frame.slice().buffer, 'vp8', true, key, 0, new IvSource()));
    const decipher = createDecipheriv('aes-128-gcm', rawKey, sealed.subarray(-14, -2));
    decipher.setAAD(sealed.subarray(0, 10));
    decipher.setAuthTag(sealed.subarray(-30, -14));
    expect(Buffer.concat([decipher.update(sealed.subarray(10, -30)), decipher.final()])).toEqual(
      Buffer.from(frame.subarray(10)),
    );

    const iv = Buffer.from(bytes(12, 7));
    const cipher = createCipheriv('aes-128-gcm', rawKey, iv);
    cipher.setAAD(frame.subarray(0, 3));
    const theirs = Buffer.concat([
      frame.subarray(0, 3),
      cipher.update(frame.subarray(3)),
      cipher.final(),
      cipher.getAuthTag(),
      iv,
      Uint8Array.of(12, 0),
    ]);
    const opened = await openFrame(Uint8Array.from(theirs).buffer, 'vp8', false, () => key);
    expect(new Uint8Array(opened)).toEqual(frame);
  });

  it('keeps H.264 parameter sets and the slice header clear, and no start code appears in ciphertext', async () => {
    const key = await deriveSharedKey(PASSPHRASE);
    const split = clearLength('h264', true, h264);
    expect(split).toBe(19);
    for (let round = 0; round < 50; round += 1) {
      const sealed = await sealFrame(h264.slice().buffer, 'h264', true, key, 0, new IvSource());
      const body = new Uint8Array(sealed).subarray(split + 1);
      for (let at = 0; at + 2 < body.length; at += 1) {
        expect(body[at] === 0 && body[at + 1] === 0 && (body[at + 2] ?? 9) < 3).toBe(false);
      }
      const opened = new Uint8Array(await openFrame(sealed, 'h264', true, () => key));
      expect(opened).toEqual(normalizeStartCodes(h264));
    }
  });

  it('drops what does not authenticate, with its reason', async () => {
    const key = await deriveSharedKey(PASSPHRASE);
    const other = await deriveSharedKey('another passphrase');
    const sealed = await sealFrame(bytes(400).buffer, 'vp8', true, key, 0, new IvSource());
    expect(await reasonOf(openFrame(sealed, 'vp8', true, () => other))).toBe('wrong-key');
    expect(await reasonOf(openFrame(sealed, 'vp8', true, () => undefined))).toBe('unknown-key-index');
    // A plain frame, as from a publisher without encryption.
    expect(await reasonOf(openFrame(bytes(400).buffer, 'vp8', true, () => key))).toBe('not-encrypted');
    expect(await reasonOf(openFrame(bytes(5).buffer, 'vp8', true, () => key))).toBe('not-encrypted');
    for (const at of [0, 9, 10, 200, sealed.byteLength - 14, sealed.byteLength - 31]) {
      const bent = new Uint8Array(sealed.slice(0));
      bent[at] = (bent[at] ?? 0) ^ 1;
      expect(await reasonOf(openFrame(bent.buffer, 'vp8', true, () => key))).toBe('wrong-key');
    }
  });

  it('never seals or opens a codec that it does not know', async () => {
    const key = await deriveSharedKey(PASSPHRASE);
    expect(await reasonOf(sealFrame(bytes(50).buffer, codecOf('video/AV1'), true, key, 0, new IvSource()))).toBe(
      'unsupported-codec',
    );
    expect(await reasonOf(openFrame(bytes(50).buffer, 'unknown', true, () => key))).toBe('unsupported-codec');
    expect(await reasonOf(sealFrame(bytes(9).buffer, 'vp8', true, key, 0, new IvSource()))).toBe('internal');
    expect(await reasonOf(sealFrame(bytes(50).buffer, 'h264', true, key, 0, new IvSource()))).toBe('unsupported-codec');
  });
});

describe('initialisation vectors', () => {
  it('never repeat, within a source nor between sources', () => {
    const seen = new Set<string>();
    for (const source of [new IvSource(), new IvSource(), new IvSource()]) {
      for (let count = 0; count < 1000; count += 1) {
        seen.add(source.next().join());
      }
    }
    expect(seen.size).toBe(3000);
  });
});

describe('data', () => {
  it('opens to what was sealed, and not under another key', async () => {
    const key = await deriveSharedKey(PASSPHRASE);
    const sealed = await sealData(bytes(100), key, 0, new IvSource());
    expect(await openData(sealed.payload, sealed.iv, key)).toEqual(bytes(100));
    await expect(openData(sealed.payload, sealed.iv, await deriveSharedKey('no'))).rejects.toThrow();
    await expect(openData(sealed.payload, sealed.iv.slice(1), key)).rejects.toThrow();
  });
});

describe('emulation prevention', () => {
  it.each([
    [[0, 0, 0], [0, 0, 3, 0]],
    [[0, 0, 1, 0, 0, 2], [0, 0, 3, 1, 0, 0, 3, 2]],
    [[0, 0, 3], [0, 0, 3, 3]],
    [[0, 0, 0, 0, 0, 0], [0, 0, 3, 0, 0, 3, 0, 0]],
    [[1, 2, 3], [1, 2, 3]],
  ])('%j becomes %j and back', (plain, escaped) => {
    expect([...escapeRbsp(Uint8Array.from(plain))]).toEqual(escaped);
    expect([...unescapeRbsp(Uint8Array.from(escaped))]).toEqual(plain);
  });

  it('is undone for arbitrary bytes rich in zeros', () => {
    for (let seed = 1; seed < 200; seed += 1) {
      const data = bytes(64, seed).map((byte) => (byte > 90 ? 0 : byte & 3));
      expect(unescapeRbsp(escapeRbsp(data))).toEqual(data);
    }
  });
});
