// Browsers with fake cameras. All Chromium pages of a test file share one process: tests must fit two cores.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';

import { repository } from './host.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';

/** Runs in the page before its own code: cameras give a small picture, so that many pages fit. */
function smallCamera() {
  const ask = MediaDevices.prototype.getUserMedia;
  MediaDevices.prototype.getUserMedia = function getUserMedia(constraints) {
    const video = constraints?.video
      ? { ...(constraints.video === true ? {} : constraints.video), width: 640, height: 480, frameRate: 15 }
      : constraints?.video;
    return ask.call(this, { ...constraints, video });
  };
}

/** One Chromium process, with further arguments if need be. */
export async function startChromium({ fullCamera = false, executable = CHROMIUM, args = [] } = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'curtain-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable,
    headless: false,
    bypassCSP: false,
    viewport: { width: 900, height: 700 },
    args: [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--use-fake-device-for-media-stream',
      '--use-fake-ui-for-media-stream',
      '--autoplay-policy=no-user-gesture-required',
      '--disable-background-timer-throttling',
      '--disable-renderer-backgrounding',
      '--disable-backgrounding-occluded-windows',
      ...args,
    ],
  });
  if (!fullCamera) {
    await context.addInitScript(smallCamera);
  }
  return {
    context,
    /** What the open pages complained of. */
    get log() {
      return context.pages().map((page) => `--- ${page.url().split('?')[0]}\n${(page.problems ?? []).join('\n')}`).join('\n');
    },
    async newPage() {
      const page = await context.newPage();
      page.setDefaultTimeout(20_000);
      page.problems = [];
      page.on('pageerror', (error) => page.problems.push(String(error)));
      page.on('console', (message) => {
        if (message.type() === 'error') {
          page.problems.push(message.text());
        }
      });
      return new Participant(page);
    },
    async stop() {
      await context.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** One Firefox process. It never pairs with loopback: use it inside of lib/netns.sh. */
export async function startFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    protocol: 'webDriverBiDi',
    extraPrefsFirefox: {
      'media.navigator.streams.fake': true,
      'media.navigator.permission.disabled': true,
      'media.autoplay.default': 0,
      'media.peerconnection.ice.obfuscate_host_addresses': false,
    },
  });
  return {
    browser,
    async newPage() {
      const page = await browser.newPage();
      page.setDefaultTimeout(30_000);
      return new Participant(page);
    },
    async stop() {
      await browser.close();
    },
  };
}

/** A page with a participant; drives Playwright's and Puppeteer's pages alike. */
export class Participant {
  constructor(page) {
    this.page = page;
  }

  evaluate(...args) {
    return this.page.evaluate(...args);
  }

  /** Opens a link and goes through the pre-join page. */
  async join(link, { camera = true, microphone = true } = {}) {
    await this.page.goto(link);
    await this.waitFor(() => document.querySelector('form button[type=submit]') !== null);
    await this.evaluate(
      (wanted) => {
        const boxes = [...document.querySelectorAll('fieldset.device')];
        for (const [name, on] of Object.entries(wanted)) {
          const box = boxes.find((set) => set.querySelector('legend')?.textContent === name)?.querySelector('input');
          if (box && box.checked !== on) {
            box.click();
          }
        }
      },
      { Camera: camera, Microphone: microphone },
    );
    if (camera) {
      await this.waitFor(() => document.querySelector('.preview video') !== null, 15_000);
    }
    if (microphone) {
      await this.waitFor(() => document.querySelector('meter') !== null, 15_000);
    }
    await this.evaluate(() => document.querySelector('form button[type=submit]').click());
    await this.waitFor(() => document.querySelector('nav.controls') !== null, 20_000);
  }

  /** Presses a control by the beginning of its name. */
  async press(name) {
    await this.evaluate((text) => {
      const button = [...document.querySelectorAll('button')].find(
        (candidate) => (candidate.getAttribute('aria-label') ?? candidate.textContent).trim().startsWith(text),
      );
      if (!button) {
        throw new Error(`no button "${text}"`);
      }
      button.click();
    }, name);
  }

  text() {
    return this.evaluate(() => document.body.innerText);
  }

  /** Waits for a condition inside of the page; its arguments follow the time limit. */
  async waitFor(condition, timeoutMs = 15_000, ...args) {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const value = await this.evaluate(condition, ...args);
      if (value) {
        return value;
      }
      if (Date.now() > deadline) {
        const seen = await this.text().catch(() => '');
        throw new Error(`after ${timeoutMs} ms still not: ${condition}\nThe page shows:\n${seen}`);
      }
      await sleep(150);
    }
  }

  /** What this participant receives, from getStats: one entry for each subscribed track. */
  received() {
    return this.evaluate(async () => {
      const entries = [];
      for (const participant of window.curtain.room.remoteParticipants.values()) {
        for (const publication of participant.trackPublications.values()) {
          const receiver = publication.track?.receiver;
          if (!receiver) {
            continue;
          }
          const cipher = window.curtain.e2ee?.statesOf(participant.identity).get(publication.trackSid);
          const entry = {
            from: participant.identity,
            kind: publication.kind,
            source: publication.source,
            muted: publication.isMuted,
            packets: 0,
            bytes: 0,
            frames: 0,
            width: 0,
            samples: 0,
            concealed: 0,
            energy: 0,
            cipher: cipher && { ...cipher },
          };
          for (const stat of (await receiver.getStats()).values()) {
            if (stat.type === 'inbound-rtp') {
              entry.packets += stat.packetsReceived ?? 0;
              entry.bytes += stat.bytesReceived ?? 0;
              entry.frames += stat.framesDecoded ?? 0;
              entry.width = stat.frameWidth ?? entry.width;
              entry.samples += stat.totalSamplesReceived ?? 0;
              entry.concealed += stat.concealedSamples ?? 0;
              entry.energy += stat.totalAudioEnergy ?? 0;
            }
          }
          entries.push(entry);
        }
      }
      return entries;
    });
  }

  /** The entry of {@link received} for one sender's media, or zeros. */
  async from(identity, kind) {
    const found = (await this.received()).find((entry) => entry.from === identity && entry.kind === kind);
    return found ?? { from: identity, kind, packets: 0, bytes: 0, frames: 0, samples: 0, concealed: 0, energy: 0 };
  }

  /** Waits until so many more video frames and audio samples of a participant were decoded. */
  async receives(identity, { frames = 15, samples = 24_000, timeoutMs = 20_000 } = {}) {
    const video = await this.from(identity, 'video');
    const audio = await this.from(identity, 'audio');
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const v = await this.from(identity, 'video');
      const a = await this.from(identity, 'audio');
      // Concealed samples are made up by the receiver: they do not count as received.
      const heard = a.samples - a.concealed - (audio.samples - audio.concealed);
      if (v.frames - video.frames >= frames && heard >= samples) {
        return { video: v, audio: a };
      }
      if (Date.now() > deadline) {
        throw new Error(
          `${timeoutMs} ms gave ${v.frames - video.frames} frames and ${heard} samples of ${identity}: ` +
            JSON.stringify(await this.received()),
        );
      }
      await sleep(250);
    }
  }

  /** The encryption indicator of a participant, as its tile shows it. */
  encryption(identity) {
    return this.evaluate(
      (who) => document.querySelector(`.tile[data-identity="${CSS.escape(who)}"]`)?.dataset.encryption,
      identity,
    );
  }

  async waitForEncryption(identity, level, timeoutMs = 15_000) {
    await this.waitFor(
      (arg) =>
        document.querySelector(`.tile[data-identity="${CSS.escape(arg.identity)}"]`)?.dataset.encryption === arg.level,
      timeoutMs,
      { identity, level },
    );
  }

  close() {
    return this.page.close();
  }
}

/** The stock livekit-client, put into a page of ours: what other people's apps run. */
export async function injectStockSdk(participant, origin) {
  // A document of the service without the page's policy: the scripts come as text. One that the test made up would not
  // count as local, and Chromium keeps public pages from loopback.
  await participant.page.goto(new URL('/healthz', origin).href);
  const dist = join(repository, 'client/node_modules/livekit-client/dist');
  await participant.page.addScriptTag({ content: readFileSync(join(dist, 'livekit-client.umd.js'), 'utf8') });
  await participant.evaluate(
    (text) => {
      window.stockWorker = () => new Worker(URL.createObjectURL(new Blob([text], { type: 'text/javascript' })));
    },
    readFileSync(join(dist, 'livekit-client.e2ee.worker.js'), 'utf8'),
  );
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
