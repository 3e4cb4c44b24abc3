import { readToken } from '../../sdk';
import type { TokenFacts } from '../../sdk';

/** What a visit's link carries. */
export interface VisitLink {
  /** WebSocket URL of the signalling service. */
  url: string;
  token: string;
  facts: TokenFacts | undefined;
  /** The passphrase from the fragment, which browsers never send to a server. */
  passphrase: string | undefined;
  /** The link asks for a visit without end-to-end encryption (`?e2ee=off`). */
  unencrypted: boolean;
}

/** Why a link leads to no visit. */
export type LinkError = 'no-token' | 'bad-url';

/** Takes a visit's link apart. */
export function parseLink(href: string): VisitLink | LinkError {
  const page = new URL(href);
  const token = page.searchParams.get('token') ?? '';
  if (token === '') {
    return 'no-token';
  }
  const url = serverUrl(page);
  if (url === undefined) {
    return 'bad-url';
  }
  const passphrase = new URLSearchParams(page.hash.slice(1)).get('key') ?? '';
  return {
    url,
    token,
    facts: readToken(token),
    passphrase: passphrase === '' ? undefined : passphrase,
    unencrypted: page.searchParams.get('e2ee') === 'off',
  };
}

/**
 * The page's own server. `?url=` may name another port or protocol of the page's host, and any server while the page itself
 * is on loopback: a link to a trusted page must not lead into somebody else's visit.
 */
function serverUrl(page: URL): string | undefined {
  const given = page.searchParams.get('url');
  if (given === null) {
    return `${page.protocol === 'https:' ? 'wss' : 'ws'}://${page.host}`;
  }
  try {
    const url = new URL(given);
    const trusted = url.hostname === page.hostname || ['localhost', '127.0.0.1', '[::1]'].includes(page.hostname);
    return trusted && ['ws:', 'wss:', 'http:', 'https:'].includes(url.protocol) ? given : undefined;
  } catch {
    return undefined;
  }
}
