// Stands in front of the relay and hands datagrams on after a while: node proxy.js LISTEN RELAY PORT. Lines of JSON on
// standard input say how long, for each client network: {"net": "10.99.1.", "delay": 50, "jitter": 0}, in ms each way. To
// {"stood": 7} it answers on standard output how long it stood still at most since the last such question: {"stood": 7, "ms": 3}.
// From {"follow": {"from": "10.99.1.", "ssrc": 1234, "to": "10.99.2.", "link": {"bps": 8000000, "burst": 6000}}} on it notes when it hands
// the ends of frames of one client's stream to the relay, and when the ends of all that goes to the other leave that one's link; to
// {"followed": 8} it answers with what it noted since then: {"followed": 8, "up": [...], "down": [...]}, each {at, ssrc, time}, in ms
// and as in their RTP headers.
import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';

const [listen, relay, port] = [process.argv[2], process.argv[3], Number(process.argv[4])];
const delays = new Map();
const clients = new Map();

/** Holds datagrams for their time, in order. */
class Line {
  constructor(deliver) {
    this.deliver = deliver;
    this.held = [];
    this.last = 0;
    this.timer = undefined;
  }

  push(datagram, { delay, jitter }) {
    const now = performance.now();
    this.last = Math.max(this.last, now + delay + jitter * Math.random());
    this.held.push({ at: this.last, datagram });
    this.drain();
  }

  drain() {
    const now = performance.now();
    let due = 0;
    // Timers count whole milliseconds.
    while (due < this.held.length && this.held[due].at <= now + 0.5) {
      this.deliver(this.held[due].datagram);
      due += 1;
    }
    this.held.splice(0, due);
    if (this.held.length > 0 && this.timer === undefined) {
      this.timer = setTimeout(() => {
        this.timer = undefined;
        this.drain();
      }, Math.max(0, this.held[0].at - now));
    }
  }
}

let follow = { up: [], down: [] };

/** The end of a frame: an RTP packet with a marker (RFC 3550 section 5.1), told from RTCP as in RFC 5761 section 4. */
function end(datagram) {
  const type = datagram.length < 12 ? 0 : datagram[1];
  if (datagram[0] >> 6 === 2 && type & 0x80 && !(type >= 192 && type <= 223)) {
    return { ssrc: datagram.readUInt32BE(8), time: datagram.readUInt32BE(4) };
  }
  return undefined;
}

/** What the token bucket of a link does with what it is handed, as `tc-tbf` counts it: with the headers of Ethernet, IPv4 and UDP. */
class Link {
  constructor({ bps, burst }) {
    this.bytesPerMs = bps / 8000;
    this.burst = burst;
    this.tokens = burst;
    this.seen = performance.now();
  }

  /** When a datagram handed to it now leaves it. */
  leaves(datagram) {
    const now = performance.now();
    this.tokens = Math.min(this.burst, this.tokens + (now - this.seen) * this.bytesPerMs) - datagram.length - 42;
    this.seen = now;
    return now + Math.max(0, -this.tokens) / this.bytesPerMs;
  }
}

const pass = { delay: 0, jitter: 0 };
const outside = createSocket('udp4');
outside.on('message', (datagram, from) => {
  const name = `${from.address}:${from.port}`;
  let client = clients.get(name);
  if (!client) {
    const socket = createSocket('udp4');
    const settings = () => [...delays].find(([net]) => from.address.startsWith(net))?.[1] ?? pass;
    const down = new Line((held) => {
      if (follow.to && from.address.startsWith(follow.to)) {
        const at = follow.link.leaves(held);
        const ended = end(held);
        if (ended) {
          follow.down.push({ at, ...ended });
        }
      }
      outside.send(held, from.port, from.address, () => {});
    });
    const up = new Line((held) => {
      if (follow.from && from.address.startsWith(follow.from)) {
        const ended = end(held);
        if (ended?.ssrc === follow.ssrc) {
          follow.up.push({ at: performance.now(), ...ended });
        }
      }
      socket.send(held, port, relay, () => {});
    });
    socket.on('message', (answer) => down.push(answer, settings()));
    socket.on('error', () => {});
    socket.bind(0, relay, () => {
      socket.setRecvBufferSize(1 << 21);
      client.ready = true;
      client.early.splice(0).forEach((held) => up.push(held, settings()));
    });
    client = { ready: false, early: [], take: (held) => (client.ready ? up.push(held, settings()) : client.early.push(held)) };
    clients.set(name, client);
  }
  client.take(datagram);
});
outside.bind(port, listen, () => {
  outside.setRecvBufferSize(1 << 21);
  process.stdout.write('ready\n');
});
// What holds this process up, on a machine that is too busy, is no network.
const EVERY = 5;
let looked = performance.now();
let stood = 0;
setInterval(() => {
  const now = performance.now();
  stood = Math.max(stood, now - looked - EVERY);
  looked = now;
}, EVERY);
createInterface({ input: process.stdin }).on('line', (line) => {
  const { net, delay, jitter, ...order } = JSON.parse(line);
  if (order.stood !== undefined) {
    process.stdout.write(`${JSON.stringify({ stood: order.stood, ms: Math.max(0, stood) })}\n`);
    stood = 0;
  } else if (order.follow) {
    follow = { ...order.follow, link: new Link(order.follow.link), up: [], down: [] };
  } else if (order.followed !== undefined) {
    const { up, down } = follow;
    follow = { up: [], down: [] };
    process.stdout.write(`${JSON.stringify({ followed: order.followed, up, down })}\n`);
  } else {
    delays.set(net, { delay, jitter });
  }
});
