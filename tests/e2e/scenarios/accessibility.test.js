// The page for people with a keyboard, a screen reader or a small screen: axe's WCAG rules, and no mouse.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';

import { startChromium } from '../lib/browser.js';
import { DevHost } from '../lib/host.js';
import { stage } from '../lib/stage.js';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
let host;
let browser;

stage(async (keep) => {
  host = keep(await DevHost.start());
  browser = keep(await startChromium());
});

async function inspect(page, where) {
  await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];
    const result = await window.axe.run(document, { runOnly: tags });
    return result.violations.map(({ id, nodes }) => ({ id, nodes: nodes.map(({ html, failureSummary }) => ({ html, failureSummary })) }));
  });
  assert.deepEqual(violations, [], `${where}: ${JSON.stringify(violations, null, 1)}`);
}

async function fits(page, where) {
  const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(scroll <= width, `${where}: ${scroll} px of content in ${width}`);
}

test('no violations of WCAG 2.2 AA, and nothing sticks out at 360 px', { timeout: 120_000 }, async () => {
  const page = await browser.newPage();
  const other = await browser.newPage();
  for (const width of [1280, 360]) {
    await page.page.setViewportSize({ width, height: 740 });
    await page.page.goto(await host.link('anna', { room: `a11y-${width}` }));
    await page.waitFor(() => document.querySelector('.preview video') !== null, 15_000);
    await inspect(page, `pre-join at ${width}`);
    await fits(page, `pre-join at ${width}`);
    await page.join(await host.link('anna', { room: `a11y-${width}` }));
    await other.join(await host.link('ben', { room: `a11y-${width}` }));
    await page.receives('ben');
    await inspect(page, `visit at ${width}`);
    await fits(page, `visit at ${width}`);
    for (const panel of ['Messages', 'People']) {
      await page.press(panel);
      await page.waitFor(() => document.querySelector('aside') !== null);
      await inspect(page, `${panel} at ${width}`);
      await fits(page, `${panel} at ${width}`);
      await page.press(panel);
    }
  }
});

test('a visit without a mouse: join, mute, leave', { timeout: 90_000 }, async () => {
  const page = await browser.newPage();
  await page.page.goto(await host.link('anna', { room: 'keys' }));
  await page.waitFor(() => document.querySelector('.preview video') !== null, 15_000);
  const focused = () =>
    page.evaluate(() => {
      const at = document.activeElement;
      const visible = getComputedStyle(at).outlineStyle !== 'none' || getComputedStyle(at).boxShadow !== 'none';
      return { tag: at.tagName, type: at.type, name: at.getAttribute('aria-label') ?? at.textContent.trim(), visible };
    });
  const tabTo = async (accept, what) => {
    for (let presses = 0; presses < 40; presses += 1) {
      await page.page.keyboard.press('Tab');
      const now = await focused();
      if (accept(now)) {
        assert.ok(now.visible, `the focus on ${what} does not show`);
        return;
      }
    }
    assert.fail(`Tab never reaches ${what}`);
  };
  await tabTo(({ type }) => type === 'submit', 'the join button');
  await page.page.keyboard.press('Enter');
  await page.waitFor(() => window.curtain?.room.state === 'connected', 20_000);
  await page.waitFor(() => window.curtain.room.localParticipant.isMicrophoneEnabled);
  await tabTo(({ name }) => /microphone/i.test(name), 'the microphone button');
  await page.page.keyboard.press('Space');
  await page.waitFor(() => !window.curtain.room.localParticipant.isMicrophoneEnabled);
  await tabTo(({ name }) => /leave/i.test(name), 'the leave button');
  await page.page.keyboard.press('Enter');
  await page.waitFor(() => window.curtain?.room.state !== 'connected');
});
