import { EventEmitter } from 'node:events';

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EncryptionEvent, EngineEvent, ParticipantEvent, RoomEvent } from 'livekit-client';
import type { Room } from 'livekit-client';

import { deriveSharedKey } from '../sdk/e2ee/keys';
import { CurtainE2EEManager } from '../sdk/e2ee/manager';
import type { FromWorker, PipeReport, ToWorker } from '../sdk/e2ee/messages';

class FakeWorker {
  sent: ToWorker[] = [];
  onmessage: ((event: { data: FromWorker }) => void) | null = null;
  terminated = false;
  postMessage(message: ToWorker) {
    this.sent.push(message);
  }
  terminate() {
    this.terminated = true;
  }
  report(report: Partial<PipeReport> & { pipe: number }) {
    this.onmessage?.({
      data: { kind: 'report', report: { passed: 0, dropped: 0, passing: true, reason: undefined, ...report } },
    });
  }
}

class FakeParticipant extends EventEmitter {
  trackPublications = new Map<string, object>();
  constructor(readonly identity: string) {
    super();
  }
}

class FakeRoom extends EventEmitter {
  localParticipant = new FakeParticipant('me');
  remoteParticipants = new Map<string, FakeParticipant>();
}

function setup() {
  const worker = new FakeWorker();
  const manager = new CurtainE2EEManager(worker as unknown as Worker);
  const room = new FakeRoom();
  const engine = new EventEmitter();
  const errors: [string, string | undefined][] = [];
  const statuses: [boolean, string][] = [];
  manager.on(EncryptionEvent.EncryptionError, (error, identity) => errors.push([error.message, identity]));
  manager.on(EncryptionEvent.ParticipantEncryptionStatusChanged, (on, participant) =>
    statuses.push([on, participant.identity]),
  );
  manager.setup(room as unknown as Room);
  manager.setupEngine(engine as never);
  return { worker, manager, room, engine, errors, statuses };
}

const streams = () => ({ readable: new ReadableStream(), writable: new WritableStream() });

beforeEach(() => {
  vi.stubGlobal('RTCRtpSender', class {
    createEncodedStreams() {}
  });
});
afterEach(() => vi.unstubAllGlobals());

describe('the encryption manager', () => {
  it('takes the track from a sender that cannot be given a transform', () => {
    const { room, errors } = setup();
    const sender = {
      createEncodedStreams: () => {
        throw new TypeError('no');
      },
      replaceTrack: vi.fn(async () => undefined),
    };
    room.localParticipant.emit(ParticipantEvent.LocalSenderCreated, sender, { kind: 'video' });
    expect(sender.replaceTrack).toHaveBeenCalledWith(null);
    expect(errors[0]?.[0]).toMatch(/cannot be encrypted/);
  });

  it('stops a received track that cannot be given a transform', () => {
    const { engine } = setup();
    const track = { kind: 'video', stop: vi.fn() };
    engine.emit(EngineEvent.MediaTrackAdded, track, {}, {});
    expect(track.stop).toHaveBeenCalled();
  });

  it('attaches to a receiver within its track event, and only once', () => {
    const { engine, worker } = setup();
    const receiver = { createEncodedStreams: vi.fn(streams) };
    engine.emit(EngineEvent.MediaTrackAdded, { kind: 'audio' }, {}, receiver);
    engine.emit(EngineEvent.MediaTrackAdded, { kind: 'audio' }, {}, receiver);
    expect(receiver.createEncodedStreams).toHaveBeenCalledTimes(1);
    expect(worker.sent).toMatchObject([{ kind: 'pipe', options: { direction: 'open', media: 'audio' } }]);
  });

  it('says whose track cannot be decrypted, once until it can be again', () => {
    const { engine, room, worker, manager, errors } = setup();
    const receiver = { createEncodedStreams: streams };
    engine.emit(EngineEvent.MediaTrackAdded, { kind: 'video' }, {}, receiver);
    room.emit(
      RoomEvent.TrackSubscribed,
      { kind: 'video', receiver },
      { trackSid: 'TR_1', mimeType: 'video/vp8' },
      { identity: 'ann' },
    );
    expect(worker.sent.at(-1)).toEqual({ kind: 'codec', pipe: 1, codec: 'vp8' });
    expect(manager.statesOf('ann').get('TR_1')).toMatchObject({ passing: undefined });
    worker.report({ pipe: 1, passing: false, dropped: 1, reason: 'wrong-key' });
    worker.report({ pipe: 1, passing: false, dropped: 9, reason: 'wrong-key' });
    expect(errors).toHaveLength(1);
    expect(errors[0]?.[1]).toBe('ann');
    expect(manager.statesOf('ann').get('TR_1')).toMatchObject({ passing: false, dropped: 9, reason: 'wrong-key' });
    worker.report({ pipe: 1, passing: true, passed: 1, dropped: 9 });
    expect(manager.statesOf('ann').get('TR_1')).toMatchObject({ passing: true });
    room.emit(RoomEvent.TrackUnsubscribed, { receiver });
    expect(manager.statesOf('ann').size).toBe(0);
  });

  it('counts as enabled only with a key, and encrypts no message without one', async () => {
    const { room, manager, statuses } = setup();
    room.emit(RoomEvent.SignalConnected);
    expect(manager.isEnabled).toBe(false);
    await expect(manager.encryptData(Uint8Array.of(1))).rejects.toThrow(/not sent/);
    manager.setKey(await deriveSharedKey('k'));
    room.emit(RoomEvent.SignalConnected);
    expect(manager.isEnabled).toBe(true);
    expect(statuses).toEqual([[true, 'me']]);
    manager.isDataChannelEncryptionEnabled = false;
    expect(manager.isDataChannelEncryptionEnabled).toBe(true);
  });

  it('opens messages of its key, refuses others and says from whom', async () => {
    const { manager, errors } = setup();
    manager.setKey(await deriveSharedKey('k'));
    const { payload, iv, keyIndex } = await manager.encryptData(Uint8Array.of(1, 2, 3));
    expect((await manager.handleEncryptedData(payload, iv, 'ann', keyIndex)).payload).toEqual(Uint8Array.of(1, 2, 3));
    payload[0] = (payload[0] ?? 0) ^ 1;
    await expect(manager.handleEncryptedData(payload, iv, 'ann', keyIndex)).rejects.toThrow();
    expect(errors).toEqual([['A message could not be decrypted.', 'ann']]);
  });

  it('takes the track from a sender that sends past its script transform', async () => {
    vi.useFakeTimers();
    vi.stubGlobal('RTCRtpScriptTransform', vi.fn());
    const { room, worker, errors, manager } = setup();
    const make = () => {
      let framesSent = 0;
      return {
        transform: undefined,
        getStats: async () => new Map([['o', { type: 'outbound-rtp', kind: 'video', framesSent: (framesSent += 45) }]]),
        replaceTrack: vi.fn(async () => undefined),
      };
    };
    const leaking = make();
    const good = make();
    room.localParticipant.emit(ParticipantEvent.LocalSenderCreated, leaking, { kind: 'video' });
    room.localParticipant.emit(ParticipantEvent.LocalSenderCreated, good, { kind: 'video' });
    for (let interval = 0; interval < 3; interval += 1) {
      worker.report({ pipe: 2, passed: 45 });
      await vi.advanceTimersByTimeAsync(3000);
    }
    expect(leaking.replaceTrack).toHaveBeenCalledWith(null);
    expect(good.replaceTrack).not.toHaveBeenCalled();
    expect(errors).toHaveLength(1);
    manager.dispose();
    expect(worker.terminated).toBe(true);
    vi.useRealTimers();
  });
});
