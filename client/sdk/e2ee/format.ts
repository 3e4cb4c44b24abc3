/**
 * The frame format of LiveKit's cryptors, which the native SDKs share:
 *
 * ```text
 * +-------------+---------------------+-----------+----+-----------+
 * | clear bytes | AES-GCM ciphertext  | IV (12 B) | 12 | key index |
 * +-------------+---------------------+-----------+----+-----------+
 * ```
 *
 * The clear bytes are authenticated as additional data. In H.264 and H.265 everything after them is escaped
 * (emulation prevention), so that no ciphertext looks like a start code.
 */

import { normalizeStartCodes, sliceOffset, unescapeRbsp, escapeRbsp } from './nalu.js';

/** Bytes of the initialisation vector. */
export const IV_LENGTH = 12;
/** Bytes after the ciphertext: IV, its length, key index. */
export const TRAILER_LENGTH = IV_LENGTH + 2;
/** Slots for keys; a key index outside of them never belongs to a frame of ours. */
export const KEYRING_SIZE = 16;

const TAG_LENGTH = 16;

/** What a track carries. `unknown` never passes: the clear bytes depend on the codec. */
export type Codec = 'opus' | 'vp8' | 'vp9' | 'h264' | 'h265' | 'unknown';

/** Why a frame was dropped. */
export type DropReason =
  | 'no-key'
  | 'not-encrypted'
  | 'unknown-key-index'
  | 'wrong-key'
  | 'unsupported-codec'
  | 'internal';

/** A frame that must not pass. */
export class FrameError extends Error {
  readonly reason: DropReason;

  constructor(reason: DropReason) {
    super(reason);
    this.name = 'FrameError';
    this.reason = reason;
  }
}

/** Reads a codec from a MIME type such as `video/VP8`. */
export function codecOf(mimeType: string | undefined): Codec {
  switch (mimeType?.toLowerCase().replace(/^(audio|video)\//, '')) {
    case 'opus':
    case 'red':
      return 'opus';
    case 'vp8':
      return 'vp8';
    case 'vp9':
      return 'vp9';
    case 'h264':
      return 'h264';
    case 'h265':
    case 'hevc':
      return 'h265';
    default:
      return 'unknown';
  }
}

/** Whether a codec's frames are NAL units. */
export function hasNalUnits(codec: Codec): boolean {
  return codec === 'h264' || codec === 'h265';
}

/** How many bytes at a frame's start stay clear, so that relays and depacketizers find what they need. */
export function clearLength(codec: Codec, keyFrame: boolean, frame: Uint8Array): number {
  switch (codec) {
    case 'opus':
      return 1;
    case 'vp8':
      return keyFrame ? 10 : 3;
    case 'vp9':
      return 0;
    case 'h264':
    case 'h265': {
      const offset = sliceOffset(frame, codec);
      if (offset === undefined) {
        throw new FrameError('unsupported-codec');
      }
      return offset + 2;
    }
    case 'unknown':
      throw new FrameError('unsupported-codec');
  }
}

/**
 * Makes initialisation vectors that never repeat under one key: 64 random bits per source of frames, then a counter.
 * All participants of a room may share one key, so nothing that two of them could have in common goes into it.
 */
export class IvSource {
  #prefix = crypto.getRandomValues(new Uint8Array(8));
  #counter = 0;

  next(): Uint8Array<ArrayBuffer> {
    if (this.#counter > 0xffff_ffff) {
      this.#prefix = crypto.getRandomValues(new Uint8Array(8));
      this.#counter = 0;
    }
    const iv = new Uint8Array(IV_LENGTH);
    iv.set(this.#prefix);
    new DataView(iv.buffer).setUint32(8, this.#counter);
    this.#counter += 1;
    return iv;
  }
}

/** Encrypts one frame. Throws {@link FrameError} when it must not be sent. */
export async function sealFrame(
  data: ArrayBuffer,
  codec: Codec,
  keyFrame: boolean,
  key: CryptoKey,
  keyIndex: number,
  ivs: IvSource,
): Promise<ArrayBuffer> {
  const frame = new Uint8Array(data);
  const nal = hasNalUnits(codec);
  const split = clearLength(codec, keyFrame, frame);
  if (split > frame.length) {
    // No encoder makes such a frame, and its receiver could not tell where the clear bytes end.
    throw new FrameError('internal');
  }
  // Depacketizers rebuild every start code with four bytes; what is authenticated has to have that form.
  const clear = nal ? normalizeStartCodes(frame.slice(0, split)) : frame.slice(0, split);
  const iv = ivs.next();
  const cipher = new Uint8Array(
    await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData: clear }, key, frame.slice(split)),
  );
  let body = new Uint8Array(cipher.length + TRAILER_LENGTH);
  body.set(cipher);
  body.set(iv, cipher.length);
  body[cipher.length + IV_LENGTH] = IV_LENGTH;
  body[cipher.length + IV_LENGTH + 1] = keyIndex;
  if (nal) {
    body = escapeRbsp(body);
  }
  const out = new Uint8Array(clear.length + body.length);
  out.set(clear);
  out.set(body, clear.length);
  return out.buffer;
}

/** Decrypts one frame. Throws {@link FrameError} when it does not authenticate; nothing of it may be shown then. */
export async function openFrame(
  data: ArrayBuffer,
  codec: Codec,
  keyFrame: boolean,
  keyAt: (index: number) => CryptoKey | undefined,
): Promise<ArrayBuffer> {
  const frame = new Uint8Array(data);
  const split = clearLength(codec, keyFrame, frame);
  if (split > frame.length) {
    throw new FrameError('not-encrypted');
  }
  const clear = frame.slice(0, split);
  const body = hasNalUnits(codec) ? unescapeRbsp(frame.slice(split)) : frame.subarray(split);
  const cipherEnd = body.length - TRAILER_LENGTH;
  const keyIndex = body[body.length - 1];
  if (cipherEnd < TAG_LENGTH || keyIndex === undefined || body[body.length - 2] !== IV_LENGTH) {
    throw new FrameError('not-encrypted');
  }
  const key = keyAt(keyIndex);
  if (!key) {
    throw new FrameError(keyIndex < KEYRING_SIZE ? 'unknown-key-index' : 'not-encrypted');
  }
  const iv = body.slice(cipherEnd, cipherEnd + IV_LENGTH);
  let plain: Uint8Array;
  try {
    plain = new Uint8Array(
      await crypto.subtle.decrypt(
        { name: 'AES-GCM', iv, additionalData: clear },
        key,
        body.slice(0, cipherEnd),
      ),
    );
  } catch {
    throw new FrameError('wrong-key');
  }
  const out = new Uint8Array(clear.length + plain.length);
  out.set(clear);
  out.set(plain, clear.length);
  return out.buffer;
}
