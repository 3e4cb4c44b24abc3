// Two Chromium pages in a visit over a path that the first argument names, inside of lib/netns.sh. Prints one JSON line per
// finding; the test judges them.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { sleep, startChromium } from './browser.js';
import { DevHost } from './host.js';
import { Child } from './process.js';

/** The address that netns.sh gives the namespace. */
const HERE = '10.99.0.1';
/** Another, on an interface that comes later: what a phone gets when it leaves the Wi-Fi. */
const THERE = '10.98.0.1';
/** The relay's own, for the tests where clients move. */
const RELAY = '10.97.0.1';

const say = (finding, value) => process.stdout.write(`${JSON.stringify({ finding, ...value })}\n`);
const run = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
const running = [];
const keep = (service) => {
  running.push(service);
  return service;
};

/** Packets that this rule of nft matches go nowhere. */
function drop(...rule) {
  run('nft', 'add', 'table', 'inet', 'paths');
  run('nft', 'add chain inet paths out { type filter hook output priority 0; }');
  run('nft', ['add rule inet paths out', ...rule, 'drop'].join(' '));
}

/** Runs in the page before its own code: its connections are kept, so that their paths can be looked at. */
function keepConnections() {
  window.connections = [];
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(config, ...rest) {
      super({ ...config, ...window.rtcOverrides }, ...rest);
      window.connections.push(this);
    }

    setConfiguration(config) {
      super.setConfiguration({ ...config, ...window.rtcOverrides });
    }
  };
}

/** The path of each connection that is up: protocol, kinds and addresses of the selected pair's candidates. */
function paths(page) {
  return page.evaluate(async () => {
    const found = [];
    for (const connection of window.connections) {
      const stats = await connection.getStats();
      for (const transport of [...stats.values()].filter((s) => s.type === 'transport')) {
        const pair = stats.get(transport.selectedCandidatePairId);
        const local = pair && stats.get(pair.localCandidateId);
        const remote = pair && stats.get(pair.remoteCandidateId);
        found.push({
          state: transport.iceState,
          protocol: local?.protocol,
          type: local?.candidateType,
          address: local?.address,
          relayProtocol: local?.relayProtocol,
          remote: remote?.protocol,
        });
      }
    }
    return found;
  });
}

/** Waits until every connection of a page is up from a local address. */
async function isAt(page, address, timeoutMs = 30_000) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await paths(page);
    if (found.length > 0 && found.every((path) => path.state === 'connected' && path.address === address)) {
      return found;
    }
    if (Date.now() > deadline) {
      throw new Error(`after ${timeoutMs} ms not at ${address}: ${JSON.stringify(found)}`);
    }
    await sleep(250);
  }
}

/** Two pages in a visit that see and hear each other. */
async function visit(host, chromium) {
  const pages = [];
  for (const name of ['clinician', 'patient']) {
    const page = await chromium.newPage();
    await page.join(await host.link(name));
    pages.push(page);
  }
  return pages;
}

async function bothWays(pages, timeoutMs = 30_000) {
  const [c, p] = pages;
  say('clinician', await c.receives('patient', { timeoutMs }));
  say('patient', await p.receives('clinician', { timeoutMs }));
  await c.waitForEncryption('patient', 'encrypted');
  await p.waitForEncryption('clinician', 'encrypted');
  say('indicators', { clinician: await p.encryption('clinician'), patient: await c.encryption('patient') });
}

async function tcp() {
  const host = keep(await DevHost.start('--media-bind', HERE));
  drop('ip', 'daddr', HERE, 'meta', 'l4proto', 'udp');
  const chromium = keep(await startChromium());
  await chromium.context.addInitScript(keepConnections);
  const pages = await visit(host, chromium);
  await bothWays(pages);
  say('paths', { clinician: await paths(pages[0]), patient: await paths(pages[1]) });
  say('metrics', {
    connections: await host.metric('curtain_tcp_connections'),
    udp: await host.metric('curtain_datagrams_total', 'direction="in"'),
  });
}

/** A certificate that Chromium trusts for the address, in a profile of its own. */
function certificate(folder) {
  const openssl = (...args) => run('openssl', ...args);
  const file = (name) => join(folder, name);
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', file('ca.key'), '-out', file('ca.pem'), '-days', '2', '-subj',
    '/CN=test CA', '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign');
  openssl('req', ...newKey, '-keyout', file('turn.key'), '-out', file('turn.csr'), '-subj', '/CN=turn');
  writeFileSync(file('turn.ext'), `basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:${HERE}\nextendedKeyUsage=serverAuth\n`);
  openssl('x509', '-req', '-in', file('turn.csr'), '-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial',
    '-days', '2', '-extfile', file('turn.ext'), '-out', file('turn.pem'));
  const database = file('home/.pki/nssdb');
  mkdirSync(database, { recursive: true });
  run('certutil', '-d', `sql:${database}`, '-N', '--empty-password');
  run('certutil', '-d', `sql:${database}`, '-A', '-t', 'C,,', '-n', 'test CA', '-i', file('ca.pem'));
}

async function turn() {
  const folder = mkdtempSync(join(tmpdir(), 'curtain-turn-'));
  keep({ stop: async () => rmSync(folder, { recursive: true, force: true }) });
  certificate(folder);
  const secret = 'a-secret-for-tests-that-is-long-enough';
  const file = (name) => join(folder, name);
  writeFileSync(file('secret'), `${secret}\n`);
  // What deploy/examples/turnserver.conf says, on other ports and addresses.
  writeFileSync(
    file('turnserver.conf'),
    `listening-ip=${HERE}
relay-ip=${HERE}
listening-port=3478
tls-listening-port=5349
no-udp
no-tcp
no-dtls
fingerprint
use-auth-secret
static-auth-secret=${secret}
realm=curtain.test
cert=${file('turn.pem')}
pkey=${file('turn.key')}
no-multicast-peers
no-cli
denied-peer-ip=0.0.0.0-255.255.255.255
allowed-peer-ip=${HERE}
pidfile=${file('turnserver.pid')}
userdb=${file('turndb')}
log-file=stdout
simple-log
verbose
`,
  );
  const coturn = new Child('turnserver', ['-c', file('turnserver.conf')]);
  keep({ stop: () => coturn.stop('SIGTERM'), log: () => coturn.log });
  const url = `turns:${HERE}:5349?transport=tcp`;
  const host = keep(await DevHost.start('--media-bind', HERE, '--turn-url', url, '--turn-secret-file', file('secret')));
  process.env.HOME = file('home');
  const chromium = keep(await startChromium());
  await chromium.context.addInitScript(keepConnections);
  await chromium.context.addInitScript(() => {
    window.rtcOverrides = { iceTransportPolicy: 'relay' };
  });
  const pages = await visit(host, chromium);
  await bothWays(pages);
  say('paths', { clinician: await paths(pages[0]), patient: await paths(pages[1]) });
  const servers = await pages[0].evaluate(() => window.connections.flatMap((c) => c.getConfiguration().iceServers));
  say('servers', { servers: servers.map(({ urls, username }) => ({ urls, username })) });
}

/** In the page: notes when frames of somebody's video were decoded. */
function watchFrames(identity) {
  const participant = window.curtain.room.remoteParticipants.get(identity);
  const receiver = [...participant.videoTrackPublications.values()][0].track.receiver;
  const watch = { gap: 0, last: performance.now(), frames: 0, freezes: 0, frozen: 0, at: 0 };
  window.watch = watch;
  const look = async () => {
    for (const stat of (await receiver.getStats()).values()) {
      if (stat.type === 'inbound-rtp' && stat.framesDecoded !== undefined) {
        const now = performance.now();
        if (stat.framesDecoded > watch.frames) {
          watch.frames = stat.framesDecoded;
          watch.last = now;
        }
        if (now - watch.last > watch.gap) {
          watch.gap = now - watch.last;
          watch.at = Date.now();
        }
        watch.freezes = stat.freezeCount;
        watch.frozen = stat.totalFreezesDuration;
      }
    }
  };
  setInterval(look, 20);
}

/** What a switch costs each page: the longest time without a new decoded frame, in ms, and what getStats counts. */
async function measure(pages, change, forMs) {
  const others = ['patient', 'clinician'];
  const reset = (page) => page.evaluate(() => Object.assign(window.watch, { gap: 0, last: performance.now() }));
  const read = (page) => page.evaluate(() => ({ ...window.watch }));
  if (!(await pages[0].evaluate(() => window.watch !== undefined))) {
    await Promise.all(pages.map((page, i) => page.evaluate(watchFrames, others[i])));
    await sleep(3000);
  }
  await Promise.all(pages.map(reset));
  const before = await Promise.all(pages.map(read));
  await change();
  await sleep(forMs);
  const after = await Promise.all(pages.map(read));
  return after.map((now, i) => ({
    gapMs: Math.round(now.gap),
    frames: now.frames - before[i].frames,
    freezes: now.freezes - before[i].freezes,
    frozenMs: Math.round(1000 * (now.frozen - before[i].frozen)),
  }));
}

async function move() {
  run('ip', 'link', 'add', 'r0', 'type', 'veth', 'peer', 'name', 'r1');
  run('ip', 'addr', 'add', `${RELAY}/24`, 'dev', 'r0');
  run('ip', 'link', 'set', 'r0', 'up');
  run('ip', 'link', 'set', 'r1', 'up');
  run('ip', 'link', 'add', 'w0', 'type', 'veth', 'peer', 'name', 'w1');
  run('ip', 'link', 'set', 'w1', 'up');
  // The relay's address is no path of the clients', though they share the namespace.
  drop('ip', 'saddr', RELAY, 'ip', 'daddr', RELAY);
  const host = keep(await DevHost.start('--media-bind', RELAY));
  const chromium = keep(await startChromium());
  await chromium.context.addInitScript(keepConnections);
  const pages = await visit(host, chromium);
  await bothWays(pages);
  say('before', { clinician: await paths(pages[0]), patient: await paths(pages[1]) });
  say('still', { pages: await measure(pages, async () => {}, 4000) });
  // The second network comes up while the first still works, as a phone's does; then the first goes.
  const overlap = async () => {
    run('ip', 'addr', 'add', `${THERE}/24`, 'dev', 'w0');
    run('ip', 'link', 'set', 'w0', 'up');
    await sleep(5000);
    run('ip', 'addr', 'del', `${HERE}/24`, 'dev', 'v0');
  };
  say('overlap', { pages: await measure(pages, overlap, 10_000) });
  say('after-overlap', { clinician: await isAt(pages[0], THERE), patient: await isAt(pages[1], THERE) });
  // The other way round there is nothing in between.
  const hard = async () => {
    run('ip', 'addr', 'del', `${THERE}/24`, 'dev', 'w0');
    run('ip', 'addr', 'add', `${HERE}/24`, 'dev', 'v0');
  };
  say('hard', { pages: await measure(pages, hard, 15_000) });
  say('after-hard', { clinician: await isAt(pages[0], HERE), patient: await isAt(pages[1], HERE) });
  await bothWays(pages);
}

let failed = false;
try {
  await { tcp, turn, move }[process.argv[2]]();
} catch (error) {
  failed = true;
  const logs = running.map((one) => (typeof one.log === 'function' ? one.log() : one.log)).filter(Boolean);
  say('error', { message: String(error?.stack ?? error), log: logs.join('\n').slice(-8000) });
} finally {
  for (const one of running.reverse()) {
    await one.stop().catch(() => undefined);
  }
  process.exit(failed ? 1 : 0);
}
