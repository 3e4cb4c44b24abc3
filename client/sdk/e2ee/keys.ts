import { IV_LENGTH, IvSource } from './format.js';

/** Salt of the derivation in every LiveKit SDK. */
const SALT = 'LKFrameEncryptionKey';
const ITERATIONS = 100_000;

/**
 * Derives the room's key from its passphrase: PBKDF2 with SHA-256 to 128 bits, as all LiveKit SDKs do with a shared key.
 * The result cannot be read back out of the browser's key store.
 */
export async function deriveSharedKey(passphrase: string): Promise<CryptoKey> {
  if (passphrase === '') {
    throw new Error('the encryption key is empty');
  }
  const text = new TextEncoder();
  const material = await crypto.subtle.importKey('raw', text.encode(passphrase), 'PBKDF2', false, ['deriveKey']);
  return crypto.subtle.deriveKey(
    { name: 'PBKDF2', salt: text.encode(SALT), hash: 'SHA-256', iterations: ITERATIONS },
    material,
    { name: 'AES-GCM', length: 128 },
    false,
    ['encrypt', 'decrypt'],
  );
}

/** An encrypted message of a data channel. */
export interface SealedData {
  payload: Uint8Array<ArrayBuffer>;
  iv: Uint8Array<ArrayBuffer>;
  keyIndex: number;
}

/** Encrypts a data-channel message. */
export async function sealData(
  data: Uint8Array,
  key: CryptoKey,
  keyIndex: number,
  ivs: IvSource,
): Promise<SealedData> {
  const iv = ivs.next();
  const payload = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, data.slice()));
  return { payload, iv, keyIndex };
}

/** Decrypts a data-channel message; rejects when it does not authenticate. */
export async function openData(
  payload: Uint8Array,
  iv: Uint8Array,
  key: CryptoKey,
): Promise<Uint8Array<ArrayBuffer>> {
  if (iv.length !== IV_LENGTH) {
    throw new Error('the message has no valid initialisation vector');
  }
  return new Uint8Array(
    await crypto.subtle.decrypt({ name: 'AES-GCM', iv: iv.slice() }, key, payload.slice()),
  );
}
