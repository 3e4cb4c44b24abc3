// Steps that several scenarios take.
import assert from 'node:assert/strict';

import { sleep } from './browser.js';

/** A participant turns microphone and camera off: at another one all of it stops, and flows again when both are on. */
export async function muteStopsMedia(page, identity, other) {
  await page.press('Microphone');
  await page.press('Camera');
  await other.waitFor(() =>
    [...window.curtain.room.remoteParticipants.values()].every((p) => !p.isMicrophoneEnabled && !p.isCameraEnabled),
  );
  await sleep(1000);
  const before = [await other.from(identity, 'audio'), await other.from(identity, 'video')];
  await sleep(2000);
  const after = [await other.from(identity, 'audio'), await other.from(identity, 'video')];
  assert.equal(after[0].packets, before[0].packets, 'audio flows on after mute');
  assert.equal(after[1].frames, before[1].frames, 'video flows on after camera off');

  await page.press('Microphone');
  await page.press('Camera');
  await other.receives(identity);
}
