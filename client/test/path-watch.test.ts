import { describe, expect, it } from 'vitest';

import { PathSilence } from '../sdk/path-watch';

/** Looks every 100 ms at what `packetsAt` counts; the first time at which there is silence, if any. */
function firstSilence(packetsAt: (ms: number) => number, forMs = 5000): number | undefined {
  const silence = new PathSilence();
  for (let now = 0; now <= forMs; now += 100) {
    if (silence.look(packetsAt(now), now) > 0) {
      return now;
    }
  }
  return undefined;
}

describe('the silence of a path', () => {
  it('is noticed within half a second of the last packet', () => {
    expect(firstSilence((ms) => Math.min(ms, 2050) / 20)).toBe(2400);
  });
  it('is not what a visit without media is', () => {
    expect(firstSilence((ms) => Math.floor(ms / 2500))).toBeUndefined();
    expect(firstSilence(() => 0)).toBeUndefined();
  });
  it('is not a pause of the page itself', () => {
    const silence = new PathSilence();
    for (let now = 0; now <= 2000; now += 100) {
      expect(silence.look(now / 20, now)).toBe(0);
    }
    expect(silence.look(100, 2600)).toBe(0);
    expect(silence.look(100, 2700)).toBe(0);
    expect(silence.look(130, 2800)).toBe(0);
  });
  it('ends with a packet, and begins anew for another connection', () => {
    const silence = new PathSilence();
    for (let now = 0; now <= 2000; now += 100) {
      silence.look(now / 20, now);
    }
    const later = [2100, 2200, 2300, 2400].map((now) => silence.look(100, now));
    expect(later).toEqual([0, 0, 300, 400]);
    expect(silence.look(101, 2500)).toBe(0);
    expect(silence.look(3, 2600)).toBe(0);
    expect(silence.look(3, 3100)).toBe(0);
  });
});
