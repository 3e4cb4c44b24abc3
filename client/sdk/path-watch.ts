/**
 * Notices within half a second that the network path of a visit is gone, and makes the connection look for another.
 *
 * Browsers take 2.5 to 5 seconds to call a connection disconnected, and in that time look for no network that came up
 * after the visit began. An ICE restart does: it costs one exchange with the server, and media goes on over the old path
 * where that still works.
 */

import type { Room } from 'livekit-client';

/** Time between two looks, in ms. */
const LOOK_EVERY = 100;
/** Silence that ends a path, in ms. Audio comes every 20 ms, the server's feedback on video every 100 ms. */
const SILENCE = 300;
/** Packets in the second before a silence without which it says nothing: a quiet visit is no lost path. */
const REGULAR = 10;
/** Looks without a new packet that it takes besides: after one late look the page may have been held up, not the network. */
const LOOKS = 3;
/** Rests between attempts, in ms. The first is for the restart alone, which needs the signalling connection to live. */
const RESTS = [1000, 3000, 6000, 12_000];

/** Tells a silent path from a quiet one, by the count of packets received. */
export class PathSilence {
  private seen: { at: number; packets: number }[] = [];
  private without = 0;

  /** Takes the count at a time in ms; returns for how long the path has been silent, 0 where it is not. */
  look(packets: number, now: number): number {
    const last = this.seen.at(-1);
    if (!last || packets !== last.packets) {
      this.without = 0;
      if (last && packets < last.packets) {
        // Another connection's count.
        this.seen = [];
      }
      this.seen = this.seen.filter((look) => now - look.at <= 1000);
      this.seen.push({ at: now, packets });
      return 0;
    }
    this.without += 1;
    const regular = last.packets - (this.seen[0]?.packets ?? last.packets) >= REGULAR;
    return regular && this.without >= LOOKS && now - last.at >= SILENCE ? now - last.at : 0;
  }
}

/** Packets received by all connections of a room, and whether the browser has given one of them up already. */
async function lookAt(room: Room): Promise<{ packets: number; lost: boolean } | undefined> {
  const manager = room.engine?.pcManager;
  if (!manager) {
    return undefined;
  }
  let packets = 0;
  let lost = false;
  for (const connection of [manager.publisher, manager.subscriber]) {
    lost ||= connection?.getICEConnectionState() === 'disconnected';
    const stats = await connection?.getStats();
    stats?.forEach((stat: { type: string; packetsReceived?: number }) => {
      packets += stat.type === 'transport' ? (stat.packetsReceived ?? 0) : 0;
    });
  }
  return { packets, lost };
}

/** Watches a room's path until the returned function is called. */
export function watchPath(room: Room): () => void {
  const silence = new PathSilence();
  let attempts = 0;
  let next = 0;
  let busy = false;
  const look = async () => {
    const seen = await lookAt(room);
    const now = performance.now();
    if (!seen) {
      return;
    }
    if (silence.look(seen.packets, now) === 0 && !seen.lost) {
      attempts = 0;
      return;
    }
    // The SDK's own attempts come first.
    if (now < next || room.state !== 'connected') {
      return;
    }
    next = now + (RESTS[Math.min(attempts, RESTS.length - 1)] ?? 0);
    attempts += 1;
    if (attempts === 1) {
      await room.engine.pcManager?.triggerIceRestart();
    } else {
      // The signalling connection went the same way: a new one, and with it another restart.
      await room.simulateScenario('signal-reconnect');
    }
  };
  const timer = setInterval(() => {
    if (!busy) {
      busy = true;
      look()
        .catch(() => undefined)
        .finally(() => (busy = false));
    }
  }, LOOK_EVERY);
  return () => clearInterval(timer);
}
