import { describe, expect, it } from 'vitest';

import { deriveSharedKey } from '../sdk/e2ee/keys';
import type { PipeReport } from '../sdk/e2ee/messages';
import { Pipe } from '../sdk/e2ee/pipe';
import type { EncodedFrame, PipeContext } from '../sdk/e2ee/pipe';

function frame(fill: number, length = 200, mimeType?: string): EncodedFrame {
  return {
    data: new Uint8Array(length).fill(fill).buffer,
    type: 'delta',
    getMetadata: () => (mimeType === undefined ? { payloadType: 96 } : { mimeType }),
  };
}

function setup(key?: CryptoKey) {
  const reports: PipeReport[] = [];
  const passed: EncodedFrame[] = [];
  let now = 0;
  const context: PipeContext = {
    sendKey: () => (key ? { key, keyIndex: 0 } : undefined),
    keyAt: (index) => (index === 0 ? key : undefined),
    codecOfPayloadType: (payloadType) => (payloadType === 96 ? 'vp8' : undefined),
    report: (report) => reports.push(report),
    now: () => now,
  };
  return { context, reports, passed, out: { enqueue: (f: EncodedFrame) => passed.push(f) }, tick: (ms: number) => (now += ms) };
}

describe('a pipe that seals', () => {
  it('drops every frame while there is no key', async () => {
    const { context, reports, passed, out } = setup();
    const pipe = new Pipe({ pipe: 1, direction: 'seal', media: 'video' }, context);
    await pipe.transform(frame(7), out);
    expect(passed).toHaveLength(0);
    expect(reports).toEqual([{ pipe: 1, passed: 0, dropped: 1, passing: false, reason: 'no-key' }]);
  });

  it('drops frames of a codec that nothing names', async () => {
    const { context, passed, out } = setup(await deriveSharedKey('k'));
    context.codecOfPayloadType = () => undefined;
    await new Pipe({ pipe: 1, direction: 'seal', media: 'video' }, context).transform(frame(7), out);
    expect(passed).toHaveLength(0);
  });

  it('lets no plain byte beyond the clear ones out', async () => {
    const { context, passed, out } = setup(await deriveSharedKey('k'));
    await new Pipe({ pipe: 1, direction: 'seal', media: 'video' }, context).transform(frame(7), out);
    const sent = new Uint8Array(passed[0]?.data ?? new ArrayBuffer(0));
    expect(sent.length).toBe(200 + 16 + 14);
    expect(sent.slice(3).filter((byte) => byte === 7).length).toBeLessThan(20);
  });
});

describe('a pipe that opens', () => {
  it('passes what was sealed with its key and reports changes at once, else once a second', async () => {
    const { context, reports, passed, out, tick } = setup(await deriveSharedKey('k'));
    const seal = new Pipe({ pipe: 1, direction: 'seal', media: 'video' }, { ...context, report: () => undefined });
    const open = new Pipe({ pipe: 2, direction: 'open', media: 'video' }, context);
    open.codec = 'vp8';
    const feed = async (sealed: boolean) => {
      const f = frame(9);
      if (sealed) {
        await seal.transform(f, { enqueue: () => undefined });
      }
      await open.transform(f, out);
    };
    await feed(true);
    await feed(true);
    expect(passed).toHaveLength(2);
    expect(new Uint8Array(passed[1]?.data ?? new ArrayBuffer(0))).toEqual(new Uint8Array(200).fill(9));
    expect(reports).toHaveLength(1);
    await feed(false);
    expect(passed).toHaveLength(2);
    expect(reports.at(-1)).toEqual({ pipe: 2, passed: 2, dropped: 1, passing: false, reason: 'not-encrypted' });
    tick(1000);
    await feed(false);
    await feed(true);
    expect(reports).toHaveLength(4);
    expect(reports.at(-1)).toMatchObject({ passing: true, reason: undefined });
  });

  it('drops the frames of a wrong key', async () => {
    const right = setup(await deriveSharedKey('right'));
    const wrong = setup(await deriveSharedKey('wrong'));
    const f = frame(1, 90);
    await new Pipe({ pipe: 1, direction: 'seal', media: 'audio' }, right.context).transform(f, right.out);
    await new Pipe({ pipe: 2, direction: 'open', media: 'audio' }, wrong.context).transform(f, wrong.out);
    expect(wrong.passed).toHaveLength(0);
    expect(wrong.reports[0]?.reason).toBe('wrong-key');
  });
});
