/** The worker that encrypts and decrypts frames, off the page's main thread. It logs nothing. */

import { KEYRING_SIZE } from './format.js';
import type { Codec } from './format.js';
import type { FromWorker, PipeId, PipeOptions, PipeReport, ToWorker } from './messages.js';
import { Pipe } from './pipe.js';
import type { EncodedFrame } from './pipe.js';

interface ScriptTransformer {
  readonly readable: ReadableStream<EncodedFrame>;
  readonly writable: WritableStream<EncodedFrame>;
  readonly options: PipeOptions;
}

/** The dedicated worker's global object, as far as it is used here. */
interface WorkerScope {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  onrtctransform?: ((event: { transformer: ScriptTransformer }) => void) | null;
}

const scope = self as unknown as WorkerScope;
const keys = new Array<CryptoKey | undefined>(KEYRING_SIZE).fill(undefined);
const pipes = new Map<PipeId, Pipe>();
/** Codecs that were announced before their pipe began. */
const announced = new Map<PipeId, Codec>();
let sendIndex: number | undefined;
let payloadTypes = new Map<number, Codec>();

const context = {
  sendKey() {
    const key = sendIndex === undefined ? undefined : keys[sendIndex];
    return key && sendIndex !== undefined ? { key, keyIndex: sendIndex } : undefined;
  },
  keyAt: (index: number) => keys[index],
  codecOfPayloadType: (payloadType: number) => payloadTypes.get(payloadType),
  report: (report: PipeReport) => scope.postMessage({ kind: 'report', report }),
  now: () => performance.now(),
};

function begin(
  options: PipeOptions,
  readable: ReadableStream<EncodedFrame>,
  writable: WritableStream<EncodedFrame>,
): void {
  const pipe = new Pipe(options, context);
  pipe.codec = announced.get(options.pipe) ?? 'unknown';
  pipes.set(options.pipe, pipe);
  const through = new TransformStream<EncodedFrame, EncodedFrame>({
    transform: (frame, controller) => pipe.transform(frame, controller),
  });
  readable
    .pipeThrough(through)
    .pipeTo(writable)
    .catch((error: unknown) => {
      scope.postMessage({
        kind: 'pipe-failed',
        pipe: options.pipe,
        message: error instanceof Error ? error.message : String(error),
      });
    })
    .finally(() => {
      pipes.delete(options.pipe);
      announced.delete(options.pipe);
    });
}

scope.onmessage = ({ data }) => {
  switch (data.kind) {
    case 'key':
      if (data.keyIndex >= 0 && data.keyIndex < KEYRING_SIZE) {
        keys[data.keyIndex] = data.key;
        sendIndex = data.keyIndex;
      }
      break;
    case 'pipe':
      begin(data.options, data.readable, data.writable);
      break;
    case 'codec': {
      announced.set(data.pipe, data.codec);
      const pipe = pipes.get(data.pipe);
      if (pipe) {
        pipe.codec = data.codec;
      }
      break;
    }
    case 'payload-types':
      payloadTypes = data.map;
      break;
  }
};

scope.onrtctransform = ({ transformer }) => begin(transformer.options, transformer.readable, transformer.writable);
