// Firefox and Chromium in one visit, inside of lib/netns.sh. Prints one JSON line per finding; the test judges them.
import { startChromium, startFirefox } from './browser.js';
import { DevHost } from './host.js';

const say = (finding, value) => process.stdout.write(`${JSON.stringify({ finding, ...value })}\n`);
const running = [];
let failed = false;
try {
  const host = await DevHost.start('--media-bind', '10.99.0.1');
  running.push(host);
  const chromium = await startChromium();
  running.push(chromium);
  const firefox = await startFirefox();
  running.push(firefox);

  const c = await chromium.newPage();
  const f = await firefox.newPage();
  await c.join(await host.link('chromium'));
  await f.join(await host.link('firefox'));

  say('firefox-to-chromium', await c.receives('firefox', { timeoutMs: 30_000 }));
  say('chromium-to-firefox', await f.receives('chromium', { timeoutMs: 30_000 }));
  await c.waitForEncryption('firefox', 'encrypted');
  await f.waitForEncryption('chromium', 'encrypted');
  say('indicators', { chromium: await f.encryption('chromium'), firefox: await c.encryption('firefox') });

  // A camera that comes back must come back encrypted: Firefox has no switch that holds frames until there is a transform.
  await f.press('Camera');
  await c.waitFor(() => !window.curtain.room.remoteParticipants.get('firefox').isCameraEnabled);
  await f.press('Camera');
  say('after-camera-restart', await c.receives('firefox', { timeoutMs: 30_000 }));

  await f.press('Messages');
  await c.press('Messages');
  await f.evaluate(() => {
    const field = document.querySelector('aside input');
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field, 'from firefox');
    field.dispatchEvent(new Event('input', { bubbles: true }));
  });
  await f.press('Send');
  await c.waitFor(() => document.querySelector('.messages')?.innerText.includes('from firefox'));
  say('message', {});

  const wrong = await firefox.newPage();
  await wrong.join(await host.link('wrong', { key: 'not-the-key' }));
  await wrong.waitForEncryption('chromium', 'broken', 20_000);
  const video = await wrong.from('chromium', 'video');
  say('wrong-key', { packets: video.packets, frames: video.frames });

  say('dropped-for-no-encryption', { count: (await host.metric('curtain_drops_total', 'reason="not_encrypted"')) ?? 0 });
} catch (error) {
  failed = true;
  say('error', { message: String(error?.stack ?? error), log: running[0]?.log });
} finally {
  for (const one of running.reverse()) {
    await one.stop().catch(() => undefined);
  }
  process.exit(failed ? 1 : 0);
}
