import { describe, expect, it } from 'vitest';
import { ConnectionErrorReason, ConnectionQuality, Track } from 'livekit-client';

import { connectionWords, isPaused } from '../app/src/connection';
import { encryptionStatus } from '../app/src/encryption';
import { parseLink } from '../app/src/link';
import { explainDeviceError, explainJoinError, readToken } from '../sdk/session';

function token(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'HS256' })}.${part(claims)}.c2ln`;
}

describe('a link', () => {
  it('is taken apart', () => {
    const link = parseLink(`https://visit.example/?token=${token({ sub: 'p1', name: 'Zoë', video: { room: 'r' } })}#key=abc-_1`);
    expect(link).toMatchObject({
      url: 'wss://visit.example',
      passphrase: 'abc-_1',
      unencrypted: false,
      facts: { identity: 'p1', name: 'Zoë', room: 'r', mayPublish: true, mayRename: false },
    });
  });

  it('may name another server, over WebSocket or HTTP only', () => {
    expect(parseLink('http://127.0.0.1/?token=t&url=ws://127.0.0.1:7880')).toMatchObject({ url: 'ws://127.0.0.1:7880' });
    expect(parseLink('http://127.0.0.1/?token=t&url=javascript:alert(1)')).toBe('bad-url');
    expect(parseLink('http://127.0.0.1/?token=t&url=nonsense')).toBe('bad-url');
    expect(parseLink('https://visits.example/?token=t&url=wss://elsewhere.example')).toBe('bad-url');
    expect(parseLink('https://visits.example/?token=t&url=wss://visits.example:8443')).toMatchObject({
      url: 'wss://visits.example:8443',
    });
  });

  it('without a token leads nowhere', () => {
    expect(parseLink('https://visit.example/#key=x')).toBe('no-token');
  });

  it('has no key when the fragment is empty, and an unreadable token has no facts', () => {
    expect(parseLink('https://visit.example/?token=x.%00.y#key=')).toMatchObject({ passphrase: undefined, facts: undefined });
    expect(readToken('a.bm90IGpzb24.c')).toBeUndefined();
    expect(readToken('a.bnVsbA.c')).toBeUndefined();
  });
});

describe('errors', () => {
  const facts = readToken(token({ sub: 'a', exp: 1000, nbf: 500 }));
  const refused = { reason: ConnectionErrorReason.NotAllowed, status: 401 };
  it('say whether a link expired, is early, or is not accepted', () => {
    expect(explainJoinError(refused, facts, 2000)).toMatch(/expired/);
    expect(explainJoinError(refused, facts, 400)).toMatch(/not valid yet/);
    expect(explainJoinError(refused, facts, 700)).toMatch(/not accepted/);
    expect(explainJoinError({ reason: ConnectionErrorReason.ServerUnreachable }, facts, 700)).toMatch(/cannot be reached/);
    expect(explainJoinError(new Error('x'), undefined, 700)).toMatch(/could not be joined/);
  });
  it('say what is wrong with a device', () => {
    expect(explainDeviceError({ name: 'NotAllowedError' }, 'camera')).toMatch(/does not allow the camera/);
    expect(explainDeviceError({ name: 'NotFoundError' }, 'microphone')).toMatch(/No microphone/);
    expect(explainDeviceError({ name: 'NotReadableError' }, 'camera')).toMatch(/in use/);
  });
});

describe('the encryption indicator', () => {
  const cipher = (passing: boolean | undefined, reason?: 'wrong-key' | 'not-encrypted') => ({
    passed: 1,
    dropped: 0,
    passing,
    reason,
  });
  it('says encrypted only when frames did authenticate', () => {
    expect(encryptionStatus(true, [{ declared: true, cipher: undefined }]).level).toBe('waiting');
    expect(encryptionStatus(true, [{ declared: true, cipher: cipher(undefined) }]).level).toBe('waiting');
    expect(encryptionStatus(true, [{ declared: true, cipher: cipher(true) }]).level).toBe('encrypted');
    expect(encryptionStatus(true, []).level).toBe('waiting');
  });
  it('says so when one track of several cannot be decrypted or is not encrypted', () => {
    const good = { declared: true, cipher: cipher(true) };
    expect(encryptionStatus(true, [good, { declared: true, cipher: cipher(false, 'wrong-key') }])).toMatchObject({
      level: 'broken',
      label: expect.stringMatching(/Cannot decrypt/) as string,
    });
    expect(encryptionStatus(true, [good, { declared: false, cipher: undefined }])).toMatchObject({
      level: 'broken',
      label: expect.stringMatching(/Not encrypted/) as string,
    });
  });
  it('never calls a visit without encryption encrypted', () => {
    expect(encryptionStatus(false, [{ declared: true, cipher: cipher(true) }]).level).toBe('off');
  });
});

describe('a connection', () => {
  it('is told in words, each level in its own', () => {
    const words = Object.values(ConnectionQuality).map((quality) => connectionWords(quality));
    expect(new Set(words.map(({ label }) => label)).size).toBe(words.length);
    expect(words.filter(({ bad }) => bad).map(({ level }) => level).sort()).toEqual(['lost', 'poor']);
    expect(connectionWords('superb' as ConnectionQuality).level).toBe('unknown');
  });

  it('that does not carry a track shows it as paused', () => {
    const track = (streamState?: Track.StreamState) =>
      ({ publication: { track: streamState && { streamState } } }) as unknown as Parameters<typeof isPaused>[0];
    expect(isPaused(track(Track.StreamState.Paused))).toBe(true);
    expect(isPaused(track(Track.StreamState.Active))).toBe(false);
    expect(isPaused(track())).toBe(false);
    expect(isPaused({})).toBe(false);
  });
});
