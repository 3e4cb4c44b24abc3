// Hands TCP connections over between network namespaces: node pump.js listen PORT SOCKET takes them on a port of loopback and
// gives them to a Unix socket, node pump.js connect PORT SOCKET the other way round. So a page on loopback, which browsers
// trust, comes from another namespace.
import { connect, createServer } from 'node:net';

const [way, port, socket] = [process.argv[2], Number(process.argv[3]), process.argv[4]];
const inner = { host: '127.0.0.1', port };
const server = createServer((one) => {
  const other = way === 'listen' ? connect(socket) : connect(inner);
  for (const [from, to] of [[one, other], [other, one]]) {
    from.setNoDelay?.(true);
    from.on('error', () => to.destroy()).on('close', () => to.destroy()).pipe(to);
  }
});
server.listen(way === 'listen' ? inner : socket, () => process.stdout.write('ready\n'));
