// Pages with the stock livekit-client and its own cryptor: what other people's apps run.
import { injectStockSdk } from './browser.js';

/** Joins a room. `options` are those of its `Room`; `camera`: publishes one of 1280x720 at 15 frames a second. */
export async function joinStock(browser, host, identity, { room, options = {}, encrypted = true, camera = false }) {
  const page = await browser.newPage();
  await injectStockSdk(page, host.page);
  await page.evaluate(
    async ({ ws, token, key, options, camera }) => {
      const encryption = {};
      if (key) {
        const keyProvider = new LivekitClient.ExternalE2EEKeyProvider();
        await keyProvider.setKey(key);
        encryption.encryption = { keyProvider, worker: window.stockWorker() };
      }
      const room = new LivekitClient.Room({ ...options, ...encryption });
      await (key && room.setE2EEEnabled(true));
      room.on('trackSubscribed', (track) => document.body.append(track.attach()));
      await room.connect(ws, token);
      if (camera) {
        await room.localParticipant.setCameraEnabled(true, { resolution: { width: 1280, height: 720, frameRate: 15 } });
      }
      window.curtain = { room };
    },
    { ws: host.ws, token: await host.token(identity, { room }), key: encrypted ? host.key : undefined, options, camera },
  );
  return page;
}

/** Width of the picture that comes out of the decoder, how far decoding went, and the freezes so far. */
export function picture(page) {
  return page.evaluate(async () => {
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.trackPublications.values()) {
        for (const stat of (await publication.track?.receiver?.getStats())?.values() ?? []) {
          if (stat.type === 'inbound-rtp' && stat.kind === 'video') {
            return { width: stat.frameWidth ?? 0, decoded: stat.framesDecoded ?? 0, freezes: stat.freezeCount ?? 0 };
          }
        }
      }
    }
    return { width: 0, decoded: 0, freezes: 0 };
  });
}

/** Asks for a quality of every camera: 0 low, 1 medium, 2 high. */
export function askFor(page, quality) {
  return page.evaluate((quality) => {
    for (const participant of window.curtain.room.remoteParticipants.values()) {
      for (const publication of participant.videoTrackPublications.values()) {
        publication.setVideoQuality(quality);
      }
    }
  }, quality);
}
