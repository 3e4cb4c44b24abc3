// A camera and its viewers: the stock livekit-client with its own cryptor, in a page of ours.
import { joinStock } from '../lib/stock.js';

/** Layers in bits per second. The picture is 1280x720 at 15 frames a second. */
export const LAYERS = { q: 120_000, h: 380_000, f: 2_600_000 };

async function open(browser, host, identity, start, argument) {
  const page = await joinStock(browser, host, identity, { room: 'networks' });
  if (start) {
    await page.evaluate(start, argument);
  }
  return page;
}

/** Publishes a camera in three layers, and a voice. */
export async function publish(browser, host) {
  const page = await open(browser, host, 'camera', async (layers) => {
    const preset = (width, height, bps) => new LivekitClient.VideoPreset(width, height, bps, 15);
    await window.curtain.room.localParticipant.setCameraEnabled(
      true,
      { resolution: { width: 1280, height: 720, frameRate: 15 } },
      {
        videoCodec: 'vp8',
        simulcast: true,
        videoEncoding: { maxBitrate: layers.f, maxFramerate: 15 },
        videoSimulcastLayers: [preset(320, 180, layers.q), preset(640, 360, layers.h)],
      },
    );
    await window.curtain.room.localParticipant.setMicrophoneEnabled(true);
  }, LAYERS);
  return Object.assign(page, {
    /** What the sender's own congestion control lets it send, in bits per second. */
    estimate: () =>
      page.evaluate(async () => {
        for (const publication of window.curtain.room.localParticipant.videoTrackPublications.values()) {
          for (const stat of (await publication.track.sender.getStats()).values()) {
            if (stat.type === 'candidate-pair' && stat.nominated && stat.state === 'succeeded') {
              return stat.availableOutgoingBitrate ?? 0;
            }
          }
        }
        return 0;
      }),
    /** SSRC of each layer, and its frames and bytes so far. */
    sent: () =>
      page.evaluate(async () => {
        const layers = {};
        for (const publication of window.curtain.room.localParticipant.videoTrackPublications.values()) {
          for (const stat of (await publication.track.sender.getStats()).values()) {
            if (stat.type === 'outbound-rtp') {
              layers[stat.rid] = { ssrc: stat.ssrc, frames: stat.framesSent ?? 0, bytes: stat.bytesSent ?? 0, keys: stat.keyFramesEncoded ?? 0, limited: stat.qualityLimitationReason };
            }
          }
        }
        return layers;
      }),
  });
}

/** Watches the camera. */
export async function watch(browser, host, identity) {
  const page = await open(browser, host, identity, () => {
    window.late = [];
    const look = (video) => {
      let last;
      const shown = (now, frame) => {
        if (last && now - last.now > 180) {
          const apart = (what) => Math.round(frame[what] - last.frame[what]);
          window.late.push({
            at: performance.timeOrigin + now,
            shown: Math.round(now - last.now),
            captured: Math.round(((frame.rtpTimestamp - last.frame.rtpTimestamp) >>> 0) / 90),
            received: apart('receiveTime'),
            presented: apart('presentedFrames'),
            buffered: Math.round(frame.presentationTime - frame.receiveTime),
            bufferedBefore: Math.round(last.frame.presentationTime - last.frame.receiveTime),
            decoding: Math.round(1000 * frame.processingDuration),
            width: frame.width,
          });
        }
        last = { now, frame };
        video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
    };
    document.querySelectorAll('video').forEach(look);
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) {
        addedNodes.forEach((node) => node instanceof HTMLVideoElement && look(node));
      }
    }).observe(document.body, { childList: true });
  });
  return Object.assign(page, {
    /** Pictures that stood for more than 180 ms since the last look, in ms: between frames as shown, captured and received. */
    late: () => page.evaluate(() => window.late.splice(0)),
    /** What the receiver says of the camera and of the path. */
    stats: () =>
      page.evaluate(async () => {
        const result = { at: performance.now(), decoded: 0, received: 0, dropped: 0, freezes: 0, frozen: 0, width: 0, bytes: 0, nacks: 0, plis: 0, buffered: 0 };
        for (const participant of window.curtain.room.remoteParticipants.values()) {
          for (const publication of participant.trackPublications.values()) {
            for (const stat of (await publication.track?.receiver?.getStats())?.values() ?? []) {
              if (stat.type === 'inbound-rtp') {
                result.bytes += (stat.bytesReceived ?? 0) + (stat.headerBytesReceived ?? 0);
                if (stat.kind === 'video') {
                  result.decoded = stat.framesDecoded ?? 0;
                  result.received = stat.framesReceived ?? 0;
                  result.dropped = stat.framesDropped ?? 0;
                  result.freezes = stat.freezeCount ?? 0;
                  result.frozen = stat.totalFreezesDuration ?? 0;
                  result.width = stat.frameWidth ?? 0;
                  result.nacks = stat.nackCount ?? 0;
                  result.plis = stat.pliCount ?? 0;
                  result.buffered = stat.jitterBufferDelay ?? 0;
                }
              }
            }
          }
        }
        return result;
      }),
    /** Whether the relay says that the camera is `active` or `paused`. */
    state: () =>
      page.evaluate(() => {
        for (const participant of window.curtain.room.remoteParticipants.values()) {
          for (const publication of participant.videoTrackPublications.values()) {
            return publication.track?.streamState;
          }
        }
        return undefined;
      }),
    /** Samples of the voice so far, and those that the browser made up. */
    heard: () =>
      page.evaluate(async () => {
        for (const participant of window.curtain.room.remoteParticipants.values()) {
          for (const publication of participant.audioTrackPublications.values()) {
            for (const stat of (await publication.track?.receiver?.getStats())?.values() ?? []) {
              if (stat.type === 'inbound-rtp') {
                return { samples: stat.totalSamplesReceived ?? 0, concealed: (stat.concealedSamples ?? 0) - (stat.silentConcealedSamples ?? 0) };
              }
            }
          }
        }
        return { samples: 0, concealed: 0 };
      }),
    /** Protocol of the path that media takes. */
    protocol: () =>
      page.evaluate(async () => {
        for (const participant of window.curtain.room.remoteParticipants.values()) {
          for (const publication of participant.trackPublications.values()) {
            const stats = await publication.track?.receiver?.getStats();
            for (const stat of stats?.values() ?? []) {
              if (stat.type === 'candidate-pair' && stat.nominated && stat.state === 'succeeded') {
                return stats.get(stat.localCandidateId)?.protocol;
              }
            }
          }
        }
        return undefined;
      }),
  });
}

/** Waits until a viewer sees the best layer. */
export async function best(viewer, timeoutMs = 40_000) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const now = await viewer.stats();
    if (now.width === 1280) {
      return now;
    }
    if (Date.now() > deadline) {
      return now;
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}
