import { Encryption_Type, EncryptionEvent, EngineEvent, ParticipantEvent, RoomEvent } from 'livekit-client';
import type {
  BaseE2EEManager,
  E2EEManagerCallbacks,
  LocalTrack,
  Participant,
  RemoteTrack,
  RemoteTrackPublication,
  Room,
  TrackPublication,
} from 'livekit-client';

import { codecOf, IvSource } from './format.js';
import type { Codec, DropReason } from './format.js';
import { openData, sealData } from './keys.js';
import type { SealedData } from './keys.js';
import type { Direction, FromWorker, PipeId, PipeOptions, PipeReport, ToWorker } from './messages.js';

type Engine = Parameters<BaseE2EEManager['setupEngine']>[0];

/** How the frames of one track fare in the cryptor. */
export interface TrackCipherState {
  /** Frames that authenticated (received) or were encrypted (sent). */
  passed: number;
  /** Frames that were dropped. */
  dropped: number;
  /** Whether the latest frame passed; `undefined` before the first one. */
  passing: boolean | undefined;
  /** Why frames are dropped, while they are. */
  reason: DropReason | undefined;
}

/** The browser's encoded-transform interfaces; TypeScript's DOM library lacks the older one. */
interface EncodedStreams {
  readable: ReadableStream;
  writable: WritableStream;
}
interface Transformable {
  createEncodedStreams?(): EncodedStreams;
  transform?: unknown;
}
declare const RTCRtpScriptTransform: new (worker: Worker, options: PipeOptions) => unknown;

/** A sender, with what the watch saw of it the last time. */
interface Watched {
  sender: RTCRtpSender;
  sent: number;
  reports: number;
  reportsThen: number;
  suspicions: number;
}

const WATCH_INTERVAL_MS = 3000;
/** Frames or packets in one interval that must have led to a report of the worker. */
const WATCH_MINIMUM = 20;

/** Whether this browser can encrypt media end to end. */
export function canEncrypt(): boolean {
  return (
    typeof RTCRtpSender !== 'undefined' &&
    ('createEncodedStreams' in RTCRtpSender.prototype || typeof RTCRtpScriptTransform !== 'undefined')
  );
}

/**
 * End-to-end encryption for a livekit-client room, with the frame format of LiveKit's SDKs.
 *
 * It replaces the SDK's own manager and worker because those pass frames as they are while encryption counts as
 * disabled for a participant, and lose the error when a transform cannot be attached. This one fails closed:
 *
 * - a sender or receiver gets its transform in the task that creates it, before media can flow;
 * - frames are dropped while there is no key, when they do not authenticate, or when their codec is not known;
 * - if a transform cannot be attached, the sender loses its track and the receiver's track is stopped;
 * - if a sender sends while its transform sees no frame, it loses its track. Browsers with script transforms send plainly
 *   then: it is how "missing key at index 241" comes about (client-sdk-js issue 2103; 241 is the last byte of one of
 *   Firefox's first plain frames).
 */
export class CurtainE2EEManager implements BaseE2EEManager {
  readonly #worker: Worker;
  readonly #ivs = new IvSource();
  readonly #pipes = new WeakMap<RTCRtpSender | RTCRtpReceiver, PipeId>();
  /** Whose track a pipe carries, once that is known. */
  readonly #owners = new Map<PipeId, { identity: string; trackSid: string | undefined }>();
  readonly #states = new Map<PipeId, TrackCipherState>();
  readonly #statusListeners = new Set<E2EEManagerCallbacks[EncryptionEvent.ParticipantEncryptionStatusChanged]>();
  readonly #errorListeners = new Set<E2EEManagerCallbacks[EncryptionEvent.EncryptionError]>();
  readonly #stateListeners = new Set<() => void>();
  #key: { key: CryptoKey; keyIndex: number } | undefined;
  #room: Room | undefined;
  /** Senders whose browser would send plainly if their transform did not run. */
  readonly #watched = new Map<PipeId, Watched>();
  #watchTimer: ReturnType<typeof setInterval> | undefined;
  #lastPipe = 0;
  #localEnabled = false;

  constructor(worker: Worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#onWorkerMessage(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#emitError(new Error('The encryption worker stopped: no media can be sent or shown.'), undefined);
    };
  }

  /** Sets the key that all participants share; earlier keys stay valid for receiving under their own index. */
  setKey(key: CryptoKey, keyIndex = 0): void {
    this.#key = { key, keyIndex };
    this.#post({ kind: 'key', key, keyIndex });
  }

  /** How the tracks of a participant fare, by track sid. Tracks without a frame yet count as `passing: undefined`. */
  statesOf(identity: string): Map<string, TrackCipherState> {
    const states = new Map<string, TrackCipherState>();
    for (const [pipe, owner] of this.#owners) {
      if (owner.identity === identity && owner.trackSid !== undefined) {
        states.set(
          owner.trackSid,
          this.#states.get(pipe) ?? { passed: 0, dropped: 0, passing: undefined, reason: undefined },
        );
      }
    }
    return states;
  }

  /** Calls `listener` whenever {@link statesOf} may have changed; returns how to stop that. */
  onStatesChanged(listener: () => void): () => void {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  }

  /** Ends the worker. No media passes afterwards. */
  dispose(): void {
    clearInterval(this.#watchTimer);
    this.#watched.clear();
    this.#worker.terminate();
    this.#stateListeners.clear();
  }

  // --- BaseE2EEManager -----------------------------------------------------------------------------------------

  get isEnabled(): boolean {
    return this.#localEnabled;
  }

  /** Always: a message that cannot be encrypted is not sent. The setter exists because the room assigns it. */
  get isDataChannelEncryptionEnabled(): boolean {
    return true;
  }

  set isDataChannelEncryptionEnabled(_enabled: boolean) {
    // Encryption of data is not negotiable here.
  }

  setup(room: Room): void {
    if (!canEncrypt()) {
      throw new Error('This browser cannot encrypt media end to end.');
    }
    if (room === this.#room) {
      return;
    }
    this.#room = room;
    room
      .on(RoomEvent.SignalConnected, () => this.#setLocalEnabled())
      .on(RoomEvent.TrackPublished, (publication, participant) => this.#announce(publication, participant))
      .on(RoomEvent.Connected, () => {
        for (const participant of room.remoteParticipants.values()) {
          for (const publication of participant.trackPublications.values()) {
            this.#announce(publication, participant);
          }
        }
      })
      .on(RoomEvent.TrackSubscribed, (track, publication, participant) =>
        this.#adoptReceiver(track, publication, participant.identity),
      )
      .on(RoomEvent.TrackUnsubscribed, (track) => this.#disown(track.receiver));
    room.localParticipant
      .on(ParticipantEvent.LocalSenderCreated, (sender, track) => this.#attachSender(sender, track as LocalTrack))
      .on(ParticipantEvent.LocalTrackPublished, (publication) => {
        const pipe = publication.track?.sender && this.#pipes.get(publication.track.sender);
        if (pipe !== undefined) {
          this.#owners.set(pipe, { identity: room.localParticipant.identity, trackSid: publication.trackSid });
          this.#changed();
        }
      })
      .on(ParticipantEvent.LocalTrackUnpublished, (publication) => this.#disown(publication.track?.sender));
  }

  setupEngine(engine: Engine): void {
    engine.on(EngineEvent.RTPVideoMapUpdate, (map: Map<number, string>) => {
      const codecs = new Map<number, Codec>();
      map.forEach((name, payloadType) => codecs.set(payloadType, codecOf(name)));
      this.#post({ kind: 'payload-types', map: codecs });
    });
    // Emitted by the track event itself: the transform is in place before the first frame.
    engine.on(EngineEvent.MediaTrackAdded, (track: MediaStreamTrack, _stream: MediaStream, receiver: RTCRtpReceiver) => {
      if (!this.#attach(receiver, 'open', track.kind === 'audio' ? 'audio' : 'video')) {
        track.stop();
      }
    });
  }

  setParticipantCryptorEnabled(_enabled: boolean, participantIdentity: string): void {
    if (participantIdentity === this.#room?.localParticipant.identity) {
      this.#setLocalEnabled();
    }
  }

  /** The relay never makes frames up, so no trailer marks frames that may pass unencrypted. */
  setSifTrailer(): void {
    // Nothing is exempt.
  }

  async encryptData(data: Uint8Array): Promise<SealedData & { uuid: string }> {
    if (!this.#key) {
      throw new Error('There is no encryption key, so the message was not sent.');
    }
    return { uuid: '', ...(await sealData(data, this.#key.key, this.#key.keyIndex, this.#ivs)) };
  }

  async handleEncryptedData(
    payload: Uint8Array,
    iv: Uint8Array,
    participantIdentity: string,
    keyIndex: number,
  ): Promise<{ uuid: string; payload: Uint8Array<ArrayBuffer> }> {
    try {
      if (!this.#key || this.#key.keyIndex !== keyIndex) {
        throw new Error('no key with this index');
      }
      return { uuid: '', payload: await openData(payload, iv, this.#key.key) };
    } catch {
      const error = new Error('A message could not be decrypted.');
      this.#emitError(error, participantIdentity);
      throw error;
    }
  }

  on<E extends keyof E2EEManagerCallbacks>(event: E, listener: E2EEManagerCallbacks[E]): this {
    if (event === EncryptionEvent.EncryptionError) {
      this.#errorListeners.add(listener as E2EEManagerCallbacks[EncryptionEvent.EncryptionError]);
    } else {
      this.#statusListeners.add(
        listener as E2EEManagerCallbacks[EncryptionEvent.ParticipantEncryptionStatusChanged],
      );
    }
    return this;
  }

  // --- details -------------------------------------------------------------------------------------------------

  #attachSender(sender: RTCRtpSender, track: LocalTrack): void {
    if (!this.#attach(sender, 'seal', track.kind === 'audio' ? 'audio' : 'video')) {
      void sender.replaceTrack(null);
      return;
    }
    const pipe = this.#pipes.get(sender);
    if (pipe !== undefined && !(sender as unknown as Transformable).createEncodedStreams) {
      this.#watched.set(pipe, { sender, sent: 0, reports: 0, reportsThen: 0, suspicions: 0 });
      this.#watchTimer ??= setInterval(() => void this.#watch(), WATCH_INTERVAL_MS);
    }
  }

  async #watch(): Promise<void> {
    for (const [pipe, watched] of this.#watched) {
      let sent = 0;
      for (const stat of (await watched.sender.getStats()).values() as Iterable<RTCOutboundRtpStreamStats>) {
        if (stat.type === 'outbound-rtp') {
          sent += (stat.kind === 'video' ? stat.framesSent : stat.packetsSent) ?? 0;
        }
      }
      const silent = watched.reports === watched.reportsThen && sent - watched.sent >= WATCH_MINIMUM;
      // Twice in a row: a report may be under way the first time.
      watched.suspicions = silent ? watched.suspicions + 1 : 0;
      watched.sent = sent;
      watched.reportsThen = watched.reports;
      if (watched.suspicions >= 2) {
        this.#watched.delete(pipe);
        await watched.sender.replaceTrack(null);
        this.#emitError(new Error('A track was not encrypted by this browser and was stopped.'), undefined);
      }
    }
  }

  /** Puts a pipe between the codec and the network. Returns whether the frames are in safe hands. */
  #attach(target: RTCRtpSender | RTCRtpReceiver, direction: Direction, media: 'audio' | 'video'): boolean {
    if (this.#pipes.has(target)) {
      // A transceiver that is used again keeps its pipe.
      return true;
    }
    const pipe = ++this.#lastPipe;
    const options: PipeOptions = { pipe, direction, media };
    const transformable = target as unknown as Transformable;
    try {
      if (transformable.createEncodedStreams) {
        // The room sets `encodedInsertableStreams` in these browsers: nothing flows before this call.
        const { readable, writable } = transformable.createEncodedStreams();
        this.#worker.postMessage({ kind: 'pipe', options, readable, writable } satisfies ToWorker, [
          readable,
          writable,
        ] as unknown as Transferable[]);
      } else {
        transformable.transform = new RTCRtpScriptTransform(this.#worker, options);
      }
    } catch (cause) {
      this.#emitError(new Error('A track cannot be encrypted in this browser and was stopped.', { cause }), undefined);
      return false;
    }
    this.#pipes.set(target, pipe);
    return true;
  }

  #adoptReceiver(track: RemoteTrack, publication: RemoteTrackPublication, identity: string): void {
    const { receiver } = track;
    if (!receiver || !this.#attach(receiver, 'open', track.kind === 'audio' ? 'audio' : 'video')) {
      return;
    }
    const pipe = this.#pipes.get(receiver);
    if (pipe === undefined) {
      return;
    }
    this.#owners.set(pipe, { identity, trackSid: publication.trackSid });
    this.#states.delete(pipe);
    this.#post({ kind: 'codec', pipe, codec: codecOf(publication.mimeType) });
    this.#changed();
  }

  #disown(target: RTCRtpSender | RTCRtpReceiver | undefined): void {
    const pipe = target && this.#pipes.get(target);
    if (pipe !== undefined) {
      this.#owners.delete(pipe);
      this.#states.delete(pipe);
      this.#watched.delete(pipe);
      this.#changed();
    }
  }

  #setLocalEnabled(): void {
    const enabled = this.#key !== undefined;
    if (this.#room && this.#localEnabled !== enabled) {
      this.#localEnabled = enabled;
      this.#emitStatus(enabled, this.#room.localParticipant);
    }
  }

  #announce(publication: TrackPublication, participant: Participant): void {
    if (publication.trackInfo) {
      this.#emitStatus(publication.trackInfo.encryption !== Encryption_Type.NONE, participant);
    }
  }

  #onWorkerMessage(message: FromWorker): void {
    if (message.kind === 'report') {
      this.#onReport(message.report);
      return;
    }
    // The stream of a sender or receiver that is gone ends with an error; only a live one is worth a word.
    const owner = this.#owners.get(message.pipe);
    if (owner && !/closed|abort/i.test(message.message)) {
      this.#emitError(new Error('The encryption of a track stopped.'), owner.identity);
    }
  }

  #onReport({ pipe, passed, dropped, passing, reason }: PipeReport): void {
    const before = this.#states.get(pipe);
    const watched = this.#watched.get(pipe);
    if (watched) {
      watched.reports += 1;
    }
    this.#states.set(pipe, { passed, dropped, passing, reason });
    const owner = this.#owners.get(pipe);
    if (!passing && (before === undefined || before.passing !== false)) {
      this.#emitError(new Error(describeDrop(reason)), owner?.identity);
    }
    this.#changed();
  }

  #post(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #changed(): void {
    for (const listener of this.#stateListeners) {
      listener();
    }
  }

  #emitStatus(enabled: boolean, participant: Participant): void {
    for (const listener of this.#statusListeners) {
      listener(enabled, participant);
    }
  }

  #emitError(error: Error, identity: string | undefined): void {
    for (const listener of this.#errorListeners) {
      listener(error, identity);
    }
  }
}

/** Says in plain words why frames are dropped. */
export function describeDrop(reason: DropReason | undefined): string {
  switch (reason) {
    case 'wrong-key':
    case 'unknown-key-index':
      return 'The media cannot be decrypted: the encryption key is not the same at both ends.';
    case 'not-encrypted':
      return 'The media is not end-to-end encrypted and is not shown.';
    case 'no-key':
      return 'There is no encryption key yet, so nothing is sent.';
    case 'unsupported-codec':
      return 'The media uses a format that cannot be encrypted end to end.';
    case 'internal':
    case undefined:
      return 'The media cannot be decrypted.';
  }
}
