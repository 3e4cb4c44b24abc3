// A film for Chromium's fake camera that costs bits: the device's own pattern compresses to less than the layers may take.
import { closeSync, openSync, writeSync } from 'node:fs';

const [WIDTH, HEIGHT, FPS, FRAMES] = [1280, 720, 15, 30];
// A texture of tiles of so many cells. It moves by exactly one tile in all frames, so that the film's end is no cut.
const TILE = 15;
const DRIFT = (TILE * 8) / FRAMES;

/** Writes the film as YUV4MPEG2; Chromium repeats it for ever. */
export function writeFilm(path) {
  let state = 20261122;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 16;
  };
  const file = openSync(path, 'w');
  writeSync(file, `YUV4MPEG2 W${WIDTH} H${HEIGHT} F${FPS}:1 Ip A1:1 C420jpeg\n`);
  const luma = Buffer.alloc(WIDTH * HEIGHT);
  const chroma = Buffer.alloc((WIDTH / 2) * (HEIGHT / 2) * 2, 128);
  const cells = Uint8Array.from({ length: TILE * TILE }, () => 60 + (random() % 130));
  for (let frame = 0; frame < FRAMES; frame += 1) {
    for (let y = 0; y < HEIGHT; y += 1) {
      for (let x = 0; x < WIDTH; x += 1) {
        // A texture that drifts, and grain on a moving half of the picture.
        const cell = cells[(((y + frame * DRIFT) >> 3) % TILE) * TILE + (((x + frame * DRIFT) >> 3) % TILE)];
        const grain = ((x >> 6) + (y >> 6) + frame) % 2 === 0 ? (random() % 17) - 8 : 0;
        luma[y * WIDTH + x] = cell + grain;
      }
    }
    writeSync(file, 'FRAME\n');
    writeSync(file, luma);
    writeSync(file, chroma);
  }
  closeSync(file);
}
