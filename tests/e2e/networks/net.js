// A relay and its clients, each in a network namespace of its own, joined by links whose rate, loss and delay are set here.
//
//   client i: eth0 10.99.i.2 --- media, shaped --- 10.99.i.1 m<i> : relay 10.99.0.1, proxy 10.99.0.9
//             127.0.0.1 ------ Unix socket --------- 127.0.0.1      : page and signalling
//
// The rate is that of a token bucket on m<i>, so its backlog is the queue of what goes down to the client. Loss happens where
// packets enter the client's namespace. Delay is the proxy's, whose address the relay advertises.
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Child, json } from '../lib/process.js';

export const RELAY = '10.99.0.1';
export const PROXY = '10.99.0.9';
/** Bytes that a link lets pass at once. */
const BURST = 6000;

const run = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }).toString();
const tool = (line) => run(...line.split(' '));
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Prepares the relay's end: this process must be in a namespace of its own already. */
export function prepareRelay() {
  if (run('ip', '-o', 'link').trim().split('\n').some((line) => !/^\d+: (lo|sit0|tunl0|ip6tnl0)\b/.test(line))) {
    throw new Error('this is not a namespace of its own: start it with run.sh');
  }
  tool('ip link set lo up');
  for (const address of [RELAY, PROXY]) {
    tool(`ip addr add ${address}/32 dev lo`);
  }
  // The proxy is for datagrams. TCP to its address goes to the relay at once.
  tool('nft add table ip direct');
  run('nft', 'add', 'chain', 'ip', 'direct', 'prerouting', '{ type nat hook prerouting priority -100 ; }');
  tool(`nft add rule ip direct prerouting ip daddr ${PROXY} meta l4proto tcp dnat to ${RELAY}`);
}

/** One client's namespace. */
export class Client {
  /** `page` is the port of pages and signalling at the relay's end. */
  static async open(number, page) {
    const client = new Client();
    client.number = number;
    client.holder = spawn('unshare', ['--net', 'sleep', '100000'], { stdio: 'ignore' });
    client.folder = mkdtempSync(join(tmpdir(), 'curtain-client-'));
    client.net = `--net=/proc/${client.holder.pid}/ns/net`;
    const own = run('readlink', '/proc/self/ns/net').trim();
    const deadline = Date.now() + 5000;
    while (run('readlink', `/proc/${client.holder.pid}/ns/net`).trim() === own) {
      if (Date.now() > deadline) {
        throw new Error('no namespace');
      }
      await sleep(20);
    }
    client.inside('ip', 'link', 'set', 'lo', 'up');
    const device = `m${number}`;
    run('ip', 'link', 'add', device, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(client.holder.pid));
    tool(`ip addr add 10.99.${number}.1/24 dev ${device}`);
    tool(`ip link set ${device} up`);
    client.inside('ip', 'addr', 'add', `10.99.${number}.2/24`, 'dev', 'eth0');
    client.inside('ip', 'link', 'set', 'eth0', 'up');
    client.inside('ip', 'route', 'add', 'default', 'via', `10.99.${number}.1`);
    const pump = new URL('pump.js', import.meta.url).pathname;
    const socket = join(client.folder, 'pages');
    client.pumps = [
      new Child(process.execPath, [pump, 'connect', String(page), socket]),
      new Child('nsenter', [client.net, process.execPath, pump, 'listen', String(page), socket]),
    ];
    for (const child of client.pumps) {
      await child.line((line) => (line === 'ready' ? true : undefined), 5000);
    }
    client.inside('nft', 'add', 'table', 'inet', 'loss');
    client.inside('nft', 'add', 'chain', 'inet', 'loss', 'input', '{ type filter hook input priority 0 ; }');
    client.inside('nft', 'add', 'chain', 'inet', 'loss', 'output', '{ type filter hook output priority 0 ; }');
    // Playwright starts this instead of the browser.
    client.executable = join(client.folder, 'chromium');
    const chromium = process.env.CHROMIUM ?? '/usr/bin/chromium';
    writeFileSync(client.executable, `#!/bin/sh\nexec nsenter ${client.net} ${chromium} "$@"\n`);
    chmodSync(client.executable, 0o755);
    return client;
  }

  inside(...command) {
    return run('nsenter', this.net, ...command);
  }

  /** Sets the rate towards the client in bits per second, with a queue of so many milliseconds. */
  rate(bps, queueMs = 1000) {
    this.bps = bps;
    const limit = Math.max(20_000, Math.round((bps / 8) * (queueMs / 1000)));
    tool(`tc qdisc replace dev m${this.number} root tbf rate ${bps}bit burst ${BURST} limit ${limit}`);
  }

  /** Sets the rate of what the client sends, with a queue of half a second. */
  uplink(bps) {
    const limit = String(Math.max(20_000, Math.round(bps / 16)));
    this.inside('tc', 'qdisc', 'replace', 'dev', 'eth0', 'root', 'tbf', 'rate', `${bps}bit`, 'burst', String(BURST), 'limit', limit);
  }

  /** Drops this percentage of what arrives. */
  loss(percent) {
    this.inside('nft', 'flush', 'chain', 'inet', 'loss', 'input');
    if (percent > 0) {
      const rule = ['iifname', 'eth0', 'meta', 'l4proto', 'udp', 'numgen', 'random', 'mod', '100', '<', String(percent), 'drop'];
      this.inside('nft', 'add', 'rule', 'inet', 'loss', 'input', ...rule);
    }
  }

  /** Whether nothing that it sends by UDP leaves. */
  withoutUdp(blocked) {
    this.inside('nft', 'flush', 'chain', 'inet', 'loss', 'output');
    if (blocked) {
      this.inside('nft', 'add', 'rule', 'inet', 'loss', 'output', 'oifname', 'eth0', 'meta', 'l4proto', 'udp', 'drop');
    }
  }

  /** What the token bucket counted so far: bytes through, bytes that wait, packets dropped. */
  queue() {
    const [bucket] = JSON.parse(run('tc', '-s', '-j', 'qdisc', 'show', 'dev', `m${this.number}`));
    return { at: performance.now(), bytes: bucket.bytes, backlog: bucket.backlog, drops: bucket.drops };
  }

  /** Samples the queue every 50 ms until stopped: when, bits per second since the sample before, milliseconds of waiting. */
  sample() {
    const samples = [];
    let last = this.queue();
    const timer = setInterval(() => {
      const now = this.queue();
      samples.push({
        at: now.at,
        bps: ((now.bytes - last.bytes) * 8000) / (now.at - last.at),
        waits: (now.backlog * 8000) / this.bps,
        drops: now.drops - last.drops,
      });
      last = now;
    }, 50);
    return {
      samples,
      stop() {
        clearInterval(timer);
        return samples;
      },
    };
  }

  async stop() {
    for (const pump of this.pumps ?? []) {
      await pump.stop('SIGTERM');
    }
    this.holder.kill('SIGKILL');
    rmSync(this.folder, { recursive: true, force: true });
  }

  get log() {
    return (this.pumps ?? []).map((pump) => pump.log).join('');
  }
}

/** The port that the relay took for media. */
export function relayPort() {
  const hex = RELAY.split('.').reverse().map((part) => Number(part).toString(16).padStart(2, '0')).join('').toUpperCase();
  const line = readFileSync('/proc/net/udp', 'utf8').split('\n').find((entry) => entry.includes(` ${hex}:`));
  if (!line) {
    throw new Error(`nobody listens on ${RELAY}`);
  }
  return parseInt(line.split(`${hex}:`)[1].slice(0, 4), 16);
}

/**
 * Milliseconds between the end of each frame of a stream on its way to the relay and when it left the viewer's link. The relay gives
 * a stream another SSRC and moves all of its timestamps by the same: those that most frames have in common are its.
 */
export function transits(up, down) {
  const LONGEST = 500;
  const pairs = new Map();
  let first = 0;
  for (const end of down) {
    while (first < up.length && up[first].at < end.at - LONGEST) {
      first += 1;
    }
    for (let i = first; i < up.length && up[i].at <= end.at; i += 1) {
      const name = `${end.ssrc} ${(end.time - up[i].time) >>> 0}`;
      const times = pairs.get(name) ?? [];
      times.push(end.at - up[i].at);
      pairs.set(name, times);
    }
  }
  return [...pairs.values()].sort((a, b) => b.length - a.length)[0] ?? [];
}

/** Starts the proxy in front of the relay. */
export async function startProxy(port) {
  const child = new Child(process.execPath, [new URL('proxy.js', import.meta.url).pathname, PROXY, RELAY, String(port)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  await child.line((line) => (line === 'ready' ? true : undefined), 5000);
  const tell = (what) => child.process.stdin.write(`${JSON.stringify(what)}\n`);
  let questions = 0;
  const ask = (what) => {
    questions += 1;
    const question = questions;
    tell({ [what]: question });
    return child.line((line) => {
      const answer = json(line);
      return answer?.[what] === question ? answer : undefined;
    }, 5000);
  };
  return {
    /** Milliseconds that it stood still at most since the last question. */
    async stood() {
      return (await ask('stood')).ms;
    },
    /**
     * Begins to note how long the frames of a client's stream take from where they reach the relay to where they leave another
     * client's link, which must have a rate. Returns what ends it and gives these times in ms.
     */
    follow(from, ssrc, to) {
      tell({ follow: { from: `10.99.${from.number}.`, ssrc, to: `10.99.${to.number}.`, link: { bps: to.bps, burst: BURST } } });
      return async () => {
        const { up, down } = await ask('followed');
        return transits(up, down);
      };
    },
    /** Sets the round-trip time of a client's media, and how much more each packet may take. */
    delay(client, rttMs, jitterMs = 0) {
      tell({ net: `10.99.${client.number}.`, delay: rttMs / 2, jitter: jitterMs });
    },
    get log() {
      return child.log;
    },
    stop: () => child.stop('SIGTERM'),
  };
}
