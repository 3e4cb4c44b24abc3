// What a scenario needs to run: started before its tests, stopped after them, and heard when a test fails.
import { after, afterEach, before } from 'node:test';

/**
 * Runs `start` before the tests. What it hands to its argument is stopped afterwards, in reverse; when a test fails, the
 * logs of all of it go to the test's diagnostics.
 */
export function stage(start, timeout = 60_000) {
  const kept = [];
  const keep = (service) => {
    kept.push(service);
    return service;
  };
  before(() => start(keep), { timeout });
  afterEach((test) => {
    if (!test.passed) {
      kept.flatMap((service) => service.log.split('\n')).forEach((line) => test.diagnostic(line));
    }
  });
  after(async () => {
    for (const service of kept.reverse()) {
      await service.stop();
    }
  }, { timeout: 30_000 });
}
