import { codecOf, FrameError, IvSource, openFrame, sealFrame } from './format.js';
import type { Codec, DropReason } from './format.js';
import type { PipeOptions, PipeReport } from './messages.js';

/** The part of an encoded frame that the cryptor touches; both browsers' frame classes have it. */
export interface EncodedFrame {
  data: ArrayBuffer;
  /** Video only. */
  readonly type?: 'key' | 'delta' | 'empty' | undefined;
  getMetadata(): { mimeType?: string; payloadType?: number };
}

/** What all pipes of a worker share. */
export interface PipeContext {
  /** The key for sending, if there is one yet. */
  sendKey(): { key: CryptoKey; keyIndex: number } | undefined;
  keyAt(index: number): CryptoKey | undefined;
  codecOfPayloadType(payloadType: number): Codec | undefined;
  report(report: PipeReport): void;
  now(): number;
}

const REPORT_INTERVAL_MS = 1000;

/**
 * Seals or opens the frames of one track. It fails closed: without a key, with an unknown codec, or when a frame does
 * not authenticate, the frame is dropped and counted; nothing ever passes as it came.
 */
export class Pipe {
  codec: Codec = 'unknown';

  readonly #options: PipeOptions;
  readonly #context: PipeContext;
  readonly #ivs = new IvSource();
  #passed = 0;
  #dropped = 0;
  #reason: DropReason | undefined;
  #reported: { at: number; passing: boolean; reason: DropReason | undefined } | undefined;

  constructor(options: PipeOptions, context: PipeContext) {
    this.#options = options;
    this.#context = context;
  }

  /** The transform function of the pipe's stream. */
  async transform(frame: EncodedFrame, out: { enqueue(frame: EncodedFrame): void }): Promise<void> {
    if (frame.data.byteLength === 0) {
      // An empty frame (discontinuous transmission) carries nothing to hide or to show.
      out.enqueue(frame);
      return;
    }
    try {
      const keyFrame = frame.type === 'key';
      const codec = this.#codecOf(frame);
      if (this.#options.direction === 'seal') {
        const current = this.#context.sendKey();
        if (!current) {
          throw new FrameError('no-key');
        }
        frame.data = await sealFrame(frame.data, codec, keyFrame, current.key, current.keyIndex, this.#ivs);
      } else {
        frame.data = await openFrame(frame.data, codec, keyFrame, (index) => this.#context.keyAt(index));
      }
      this.#passed += 1;
      out.enqueue(frame);
      this.#report(true);
    } catch (error) {
      this.#dropped += 1;
      this.#reason = error instanceof FrameError ? error.reason : 'internal';
      this.#report(false);
    }
  }

  #codecOf(frame: EncodedFrame): Codec {
    if (this.#options.media === 'audio') {
      return 'opus';
    }
    const { mimeType, payloadType } = frame.getMetadata();
    const said = codecOf(mimeType);
    if (said !== 'unknown') {
      return said;
    }
    // A receiver's payload types are negotiated apart from the sender's: only its track says what it carries.
    if (this.#options.direction === 'seal' && payloadType !== undefined) {
      return this.#context.codecOfPayloadType(payloadType) ?? this.codec;
    }
    return this.codec;
  }

  #report(passing: boolean): void {
    const at = this.#context.now();
    const reason = passing ? undefined : this.#reason;
    const last = this.#reported;
    const changed = last === undefined || last.passing !== passing || last.reason !== reason;
    if (!changed && at - last.at < REPORT_INTERVAL_MS) {
      return;
    }
    this.#reported = { at, passing, reason };
    this.#context.report({ pipe: this.#options.pipe, passed: this.#passed, dropped: this.#dropped, passing, reason });
  }
}
