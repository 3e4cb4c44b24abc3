import type { Codec, DropReason } from './format.js';

/** Which way a pipe carries frames. */
export type Direction = 'seal' | 'open';

/** Identifies one sender's or receiver's pipe; given out by the page, never reused. */
export type PipeId = number;

/** Options of a script transform: they arrive with the `rtctransform` event. */
export interface PipeOptions {
  pipe: PipeId;
  direction: Direction;
  media: 'audio' | 'video';
}

/** From the page to the worker. */
export type ToWorker =
  | { kind: 'key'; key: CryptoKey; keyIndex: number }
  | { kind: 'pipe'; options: PipeOptions; readable: ReadableStream; writable: WritableStream }
  /** The codec that a pipe's track was published with; needed where frames do not say it. */
  | { kind: 'codec'; pipe: PipeId; codec: Codec }
  /** Payload type -> codec, as negotiated for what this page sends. */
  | { kind: 'payload-types'; map: Map<number, Codec> };

/** How a pipe fares; sent when that changes, and at most once a second while it does not. */
export interface PipeReport {
  pipe: PipeId;
  /** Frames that passed since the pipe began. */
  passed: number;
  /** Frames that were dropped since the pipe began. */
  dropped: number;
  /** Whether the latest frame passed. */
  passing: boolean;
  /** Why the latest dropped frame was dropped. */
  reason: DropReason | undefined;
}

/** From the worker to the page. */
export type FromWorker = { kind: 'report'; report: PipeReport } | { kind: 'pipe-failed'; pipe: PipeId; message: string };
