// Tokens by hand, good and bad, as no library would make them.
import { createHmac } from 'node:crypto';

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Signs claims with HS256; `header` and `secret` can be bent. */
export function handmade(host, claims, { header = { alg: 'HS256', typ: 'JWT' }, secret = host.apiSecret } = {}) {
  const now = Math.floor(Date.now() / 1000);
  const body = {
    iss: host.apiKey,
    sub: 'mallory',
    nbf: now - 10,
    exp: now + 600,
    video: { roomJoin: true, room: host.room },
    ...claims,
  };
  const signed = `${part(header)}.${part(body)}`;
  const signature = header.alg === 'none' ? '' : createHmac('sha256', secret).update(signed).digest('base64url');
  return `${signed}.${signature}`;
}

/** Tokens that must not open a session, by what is wrong with them. */
export function badTokens(host) {
  const now = Math.floor(Date.now() / 1000);
  const good = handmade(host, {});
  const [header, , signature] = good.split('.');
  return {
    expired: handmade(host, { nbf: now - 7200, exp: now - 3600 }),
    'not yet valid': handmade(host, { nbf: now + 3600, exp: now + 7200 }),
    'signed with another secret': handmade(host, {}, { secret: 'another-secret-that-is-just-as-long-0123456789' }),
    'changed after signing': `${header}.${part({ iss: host.apiKey, sub: 'mallory', exp: now + 600, video: { roomJoin: true, roomAdmin: true, room: host.room } })}.${signature}`,
    'alg none': handmade(host, {}, { header: { alg: 'none', typ: 'JWT' } }),
    'alg None': `${part({ alg: 'None' })}.${good.split('.')[1]}.`,
    'alg HS256 without signature': `${good.split('.').slice(0, 2).join('.')}.`,
    'unknown key': handmade(host, { iss: 'APInobody' }),
    'no identity': handmade(host, { sub: '' }),
    'no room': handmade(host, { video: { roomJoin: true } }),
    'no permission to join': handmade(host, { video: { room: host.room } }),
    'without expiry': handmade(host, { exp: undefined }),
    oversized: handmade(host, { metadata: 'x'.repeat(200_000) }),
    'not a token': 'this.is.nonsense',
    empty: '',
  };
}
