/** NAL units of H.264 (ITU-T H.264, Annex B) and H.265, as far as the cryptor has to know them. */

/** Where NAL units begin, after their start codes of three or four bytes. */
function* unitOffsets(stream: Uint8Array): Generator<number> {
  for (let at = 0; at + 3 < stream.length; at += 1) {
    if (stream[at] === 0 && stream[at + 1] === 0 && stream[at + 2] === 1) {
      yield at + 3;
      at += 2;
    }
  }
}

function isSlice(header: number, codec: 'h264' | 'h265'): boolean {
  if (codec === 'h264') {
    const type = header & 0x1f;
    return type === 1 || type === 5;
  }
  const type = (header >> 1) & 0x3f;
  return type <= 9 || (type >= 16 && type <= 21);
}

/** Where the first slice begins: its NAL unit header. Parameter sets before it stay clear. */
export function sliceOffset(frame: Uint8Array, codec: 'h264' | 'h265'): number | undefined {
  for (const offset of unitOffsets(frame)) {
    if (isSlice(frame[offset] ?? 0xff, codec)) {
      return offset;
    }
  }
  return undefined;
}

/** Rewrites start codes of three bytes as four, the form in which depacketizers rebuild them. */
export function normalizeStartCodes(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const short: number[] = [];
  for (let at = 0; at + 2 < data.length; at += 1) {
    if (data[at] === 0 && data[at + 1] === 0 && data[at + 2] === 1 && (at === 0 || data[at - 1] !== 0)) {
      short.push(at);
    }
  }
  if (short.length === 0) {
    return data;
  }
  const out = new Uint8Array(data.length + short.length);
  let from = 0;
  short.forEach((to, added) => {
    out.set(data.subarray(from, to), from + added);
    from = to;
  });
  out.set(data.subarray(from), from + short.length);
  return out;
}

/** Inserts emulation prevention bytes: 00 00 0x becomes 00 00 03 0x for x <= 3 (H.264, 7.4.1). */
export function escapeRbsp(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length + Math.ceil(data.length / 2));
  let length = 0;
  let zeros = 0;
  for (const byte of data) {
    if (zeros >= 2 && byte <= 3) {
      out[length++] = 3;
      zeros = 0;
    }
    out[length++] = byte;
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return out.slice(0, length);
}

/** Takes emulation prevention bytes out again. */
export function unescapeRbsp(data: Uint8Array): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(data.length);
  let length = 0;
  let zeros = 0;
  for (const byte of data) {
    if (zeros >= 2 && byte === 3) {
      zeros = 0;
      continue;
    }
    out[length++] = byte;
    zeros = byte === 0 ? zeros + 1 : 0;
  }
  return out.slice(0, length);
}
