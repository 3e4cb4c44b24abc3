// The binaries under test: the development host in one process, or `sfu` and `signaling` apart.
import { execFileSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { AccessToken } from 'livekit-server-sdk';

import { Child, json } from './process.js';

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
const release = (name) => join(repository, 'target/release', name);

/** What all forms of the service have in common for a test. */
class Host {
  /** A participant's token. */
  async token(identity, { room = this.room, ttl = 600, grants = {}, name = identity } = {}) {
    const token = new AccessToken(this.apiKey, this.apiSecret, { identity, name, ttl });
    token.addGrant({ roomJoin: true, room, canUpdateOwnMetadata: true, ...grants });
    return token.toJwt();
  }

  /** A token for the RoomService. */
  async adminToken(grants) {
    const token = new AccessToken(this.apiKey, this.apiSecret, { identity: 'backend', ttl: 600 });
    token.addGrant(grants);
    return token.toJwt();
  }

  /** A link to the visit page. */
  async link(identity, { key = this.key, query = {}, ...options } = {}) {
    const page = new URL(this.page);
    page.searchParams.set('token', await this.token(identity, options));
    for (const [name, value] of Object.entries(query)) {
      page.searchParams.set(name, value);
    }
    page.hash = key === undefined ? '' : `key=${key}`;
    return page.href;
  }

  /** The relay's metrics: the sum of all series of a name whose labels contain `labels`. */
  async metric(name, labels = '') {
    const response = await fetch(this.metrics);
    const text = await response.text();
    let sum = 0;
    let found = false;
    for (const line of text.split('\n')) {
      const match = /^([a-zA-Z_:][\w:]*)(\{[^}]*\})?\s+(\S+)/.exec(line);
      if (match && match[1].includes(name) && (match[2] ?? '').includes(labels)) {
        sum += Number(match[3]);
        found = true;
      }
    }
    return found ? sum : undefined;
  }
}

/** `curtain-dev`: everything in one process. */
export class DevHost extends Host {
  static async start(...flags) {
    const host = new DevHost();
    host.folder = mkdtempSync(join(tmpdir(), 'curtain-dev-'));
    host.child = new Child(process.env.CURTAIN_DEV ?? release('curtain-dev'), [
      '--json',
      ...['--http-port', '0', '--sfu-http-port', '0', '--udp-port', '0', '--control-port', '0'],
      ...['--data-dir', host.folder, '--page', join(repository, 'client/dist')],
      ...flags,
    ]);
    try {
      const ready = await host.child.line((line) => {
        const object = json(line);
        return object?.page && object.api_key ? object : undefined;
      }, 20_000);
      host.page = ready.page;
      host.ws = ready.ws;
      host.http = ready.ws.replace(/^ws/, 'http');
      host.metrics = ready.metrics;
      host.apiKey = ready.api_key;
      host.apiSecret = ready.api_secret;
      host.room = ready.room;
      host.clinician = ready.clinician;
      host.patient = ready.patient;
      host.key = new URLSearchParams(new URL(ready.clinician).hash.slice(1)).get('key');
    } catch (error) {
      await host.stop();
      throw error;
    }
    return host;
  }

  get log() {
    return this.child.log;
  }

  async stop() {
    const how = await this.child.stop();
    rmSync(this.folder, { recursive: true, force: true });
    return how;
  }
}

/** `sfu` and `signaling` as in production, each with its own file, each restartable. */
export class SplitHost extends Host {
  static async start() {
    const host = new SplitHost();
    host.folder = mkdtempSync(join(tmpdir(), 'curtain-split-'));
    host.apiKey = 'APItest';
    host.apiSecret = 'a-secret-for-tests-that-is-long-enough-0123456789';
    host.room = 'visit';
    host.key = 'test-passphrase';
    const [http, sfuHttp, udp, control] = [await freeTcp(), await freeTcp(), await freeUdp(), await freeUdp()];
    host.page = `http://127.0.0.1:${http}/`;
    host.ws = `ws://127.0.0.1:${http}`;
    host.http = `http://127.0.0.1:${http}`;
    host.metrics = `http://127.0.0.1:${sfuHttp}/metrics`;
    host.sfuHealth = `http://127.0.0.1:${sfuHttp}/readyz`;
    const file = (name) => join(host.folder, name);
    makeCertificates(host.folder);
    writeFileSync(
      file('sfu.toml'),
      `[media]
bind = "127.0.0.1"
udp_port = ${udp}
tcp = false
shards = 1
[control]
listen = "127.0.0.1:${control}"
ca = "${file('ca.pem')}"
cert = "${file('sfu.pem')}"
key = "${file('sfu.key')}"
[http]
listen = "127.0.0.1:${sfuHttp}"
[auth.keys]
${host.apiKey} = "${host.apiSecret}"
`,
    );
    writeFileSync(
      file('signaling.toml'),
      `bind = "127.0.0.1:${http}"
page = "${join(repository, 'client/dist')}"
[keys]
${host.apiKey} = "${host.apiSecret}"
[relay]
address = "127.0.0.1:${control}"
server_name = "sfu"
certificate = "${file('signaling.pem')}"
key = "${file('signaling.key')}"
authority = "${file('ca.pem')}"
`,
    );
    await host.startSfu();
    await host.startSignaling();
    return host;
  }

  async startSfu() {
    this.sfu = new Child(process.env.CURTAIN_SFU ?? release('sfu'), ['--config', join(this.folder, 'sfu.toml')]);
    await answers(this.sfuHealth, this.sfu);
  }

  async startSignaling() {
    this.signaling = new Child(process.env.CURTAIN_SIGNALING ?? release('signaling'), [
      '--config',
      join(this.folder, 'signaling.toml'),
    ]);
    await answers(this.page, this.signaling);
  }

  get log() {
    return `--- sfu\n${this.sfu?.log}\n--- signaling\n${this.signaling?.log}`;
  }

  async stop() {
    await this.signaling?.stop();
    await this.sfu?.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Waits until a URL answers with success. */
async function answers(url, child, timeoutMs = 15_000) {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const response = await fetch(url).catch(() => undefined);
    if (response?.ok) {
      return;
    }
    if (child.over || Date.now() > deadline) {
      await child.stop();
      throw new Error(`${child.name} does not answer at ${url}:\n${child.log}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** A certificate authority, and a certificate for each end of the control link. */
function makeCertificates(folder) {
  const openssl = (...args) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '1', '-subj', '/CN=test CA',
    '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign');
  for (const name of ['sfu', 'signaling']) {
    openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    writeFileSync(
      join(folder, `${name}.ext`),
      `basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:${name}\nextendedKeyUsage=serverAuth,clientAuth\n`,
    );
    openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '1',
      '-extfile', `${name}.ext`, '-out', `${name}.pem`);
  }
}

function freeTcp() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function freeUdp() {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.once('error', reject).bind(0, '127.0.0.1', () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}
