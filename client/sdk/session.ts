/** A visit: a livekit-client room with this client's own end-to-end encryption. */

import { ConnectionErrorReason, EngineEvent, Room, VideoPresets } from 'livekit-client';
import type { RoomOptions } from 'livekit-client';

import { deriveSharedKey } from './e2ee/keys.js';
import { CurtainE2EEManager } from './e2ee/manager.js';
import { watchPath } from './path-watch.js';

/** What is needed to join a visit. */
export interface VisitOptions {
  /** WebSocket URL of the signalling service. */
  url: string;
  /** Access token. */
  token: string;
  /** Passphrase that all participants share; `undefined` joins without end-to-end encryption. */
  passphrase: string | undefined;
  /** Changes to the room's options, for callers that know what they do. */
  room?: Omit<RoomOptions, 'e2ee' | 'encryption'>;
}

/** A visit that is being joined or has been. */
export interface Visit {
  readonly room: Room;
  /** `undefined` in a visit without end-to-end encryption. */
  readonly e2ee: CurtainE2EEManager | undefined;
  /** Connects; rejects when the visit cannot be joined. */
  join(): Promise<void>;
  /** Leaves and gives everything back. */
  leave(): Promise<void>;
  /** Calls `listener` when the relay refuses to take a track, with its reason. Returns how to stop that. */
  onTrackRefused(listener: (reason: string) => void): () => void;
}

/** Prepares a visit. With a passphrase nothing leaves this page unencrypted, whatever the server says. */
export async function prepareVisit(options: VisitOptions): Promise<Visit> {
  let e2ee: CurtainE2EEManager | undefined;
  if (options.passphrase !== undefined) {
    const key = await deriveSharedKey(options.passphrase);
    const worker = new Worker(new URL('./e2ee/worker.ts', import.meta.url), { type: 'module', name: 'curtain-e2ee' });
    e2ee = new CurtainE2EEManager(worker);
    e2ee.setKey(key);
  }
  const room = new Room({
    adaptiveStream: true,
    dynacast: true,
    videoCaptureDefaults: { resolution: VideoPresets.h720.resolution },
    publishDefaults: { videoCodec: 'vp8' },
    ...options.room,
    // `encryption` rather than `e2ee`: it covers the data channels too.
    ...(e2ee ? { encryption: { e2eeManager: e2ee } } : {}),
  });
  const refused = new Set<(reason: string) => void>();
  let heard: unknown;
  let stopWatching = () => {};
  const listenToEngine = () => {
    // A full reconnect makes a new engine.
    if (heard === room.engine) {
      return;
    }
    heard = room.engine;
    room.engine.on(EngineEvent.SignalRequestResponse, (response) => {
      if (response.request.case === 'addTrack' && response.reason !== 0) {
        refused.forEach((listener) => listener(response.message));
      }
    });
  };
  return {
    room,
    e2ee,
    async join() {
      if (e2ee) {
        await room.setE2EEEnabled(true);
      }
      listenToEngine();
      room.on('signalConnected', listenToEngine);
      await room.connect(options.url, options.token);
      listenToEngine();
      stopWatching();
      stopWatching = watchPath(room);
    },
    async leave() {
      stopWatching();
      await room.disconnect();
      e2ee?.dispose();
    },
    onTrackRefused(listener) {
      refused.add(listener);
      return () => refused.delete(listener);
    },
  };
}

/** What a token says about itself. Nothing here is verified: only servers can do that. */
export interface TokenFacts {
  identity: string;
  name: string;
  room: string;
  /** Seconds since the epoch. */
  expiresAt: number | undefined;
  notBefore: number | undefined;
  mayRename: boolean;
  mayPublish: boolean;
}

/** Reads a token's claims, to prefill the page and to explain errors; `undefined` when it is not a token at all. */
export function readToken(token: string): TokenFacts | undefined {
  const [, body] = token.split('.');
  if (!body) {
    return undefined;
  }
  try {
    const bytes = Uint8Array.from(atob(body.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
    const claims: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    if (typeof claims !== 'object' || claims === null) {
      return undefined;
    }
    const { sub, name, exp, nbf, video } = claims as Record<string, unknown>;
    const grants = (typeof video === 'object' && video !== null ? video : {}) as Record<string, unknown>;
    return {
      identity: typeof sub === 'string' ? sub : '',
      name: typeof name === 'string' ? name : '',
      room: typeof grants['room'] === 'string' ? grants['room'] : '',
      expiresAt: typeof exp === 'number' ? exp : undefined,
      notBefore: typeof nbf === 'number' ? nbf : undefined,
      mayRename: grants['canUpdateOwnMetadata'] === true,
      mayPublish: grants['canPublish'] !== false,
    };
  } catch {
    return undefined;
  }
}

/** Says in plain words why a visit could not be joined. */
export function explainJoinError(error: unknown, token: TokenFacts | undefined, nowSeconds: number): string {
  const reason = (error as { reason?: unknown } | undefined)?.reason;
  const status = (error as { status?: unknown } | undefined)?.status;
  if (reason === ConnectionErrorReason.NotAllowed || status === 401 || status === 403) {
    if (token?.expiresAt !== undefined && token.expiresAt <= nowSeconds) {
      return 'This link has expired. Ask for a new one.';
    }
    if (token?.notBefore !== undefined && token.notBefore > nowSeconds) {
      return 'This link is not valid yet. Try again at the time of your visit.';
    }
    return 'This link was not accepted. Ask for a new one.';
  }
  if (reason === ConnectionErrorReason.ServerUnreachable || reason === ConnectionErrorReason.WebSocket) {
    return 'The visit cannot be reached. Check your internet connection, then try again.';
  }
  if (reason === ConnectionErrorReason.Timeout) {
    return 'The visit did not answer in time. Check your internet connection, then try again.';
  }
  if (reason === ConnectionErrorReason.Cancelled) {
    return 'Joining was cancelled.';
  }
  return 'The visit could not be joined. Try again; if it happens again, ask for a new link.';
}

/** Says in plain words why a camera or microphone cannot be used. */
export function explainDeviceError(error: unknown, device: 'camera' | 'microphone' | 'screen'): string {
  switch ((error as { name?: unknown } | undefined)?.name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return device === 'screen'
        ? 'Your screen is not shared.'
        : `Your browser does not allow the ${device}. Allow it in the address bar, then try again.`;
    case 'NotFoundError':
    case 'OverconstrainedError':
      return `No ${device} was found. Plug one in, or join without it.`;
    case 'NotReadableError':
    case 'AbortError':
      return `The ${device} is in use by another program. Close that program, then try again.`;
    default:
      return `The ${device} cannot be used.`;
  }
}
