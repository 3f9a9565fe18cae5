import { readFile } from 'node:fs/promises';
import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { type Bundle, decodeBundle, encodeBundle, swappedGenesis } from './bundle.ts';
import { fingerprintOf, type Genesis, isSameFingerprint } from './genesis.ts';

/**
 * An age identity file, as `age-keygen` writes and `age -i` reads it: one AGE-SECRET-KEY- a line, `#` begins a comment. Rozen
 * puts two things more into comments: the fingerprint of the repository, which pins it, and for owners the whole bundle.
 */
export interface IdentityFile {
  identities: string[];
  /** Fingerprints of the repositories that the file was exported for; empty in a file by age-keygen. */
  fingerprints: string[];
  /** Owner's bundles, still encoded. */
  bundles: Buffer[];
}

const MAX_IDENTITY_FILE = 256 * 1024;
const FINGERPRINT_LINE = /^#\s*rozen fingerprint:\s*([0-9a-fA-F-]+)\s*$/;
const BUNDLE_LINE = /^#\s*rozen owner key:\s*([A-Za-z0-9_-]+)\s*$/;

export async function readIdentityFile(path: string): Promise<IdentityFile> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw new RozenError('no-key', `${path}: the identity file cannot be read: ${reasonOf(cause)}`, {
      cause,
      hint: 'check --identity and ROZEN_IDENTITY_FILE',
    });
  }
  try {
    return parseIdentityFile(bytes, path);
  } finally {
    bytes.fill(0);
  }
}

export function parseIdentityFile(bytes: Buffer, path: string): IdentityFile {
  if (bytes.length > MAX_IDENTITY_FILE) throw new RozenError('usage', `${path} is too large for an identity file`);
  const file: IdentityFile = { identities: [], fingerprints: [], bundles: [] };
  for (const [index, raw] of bytes.toString('utf8').split('\n').entries()) {
    const line = raw.trim();
    if (line === '') continue;
    if (line.startsWith('#')) {
      const fingerprint = FINGERPRINT_LINE.exec(line)?.[1];
      if (fingerprint !== undefined) file.fingerprints.push(fingerprint);
      const bundle = BUNDLE_LINE.exec(line)?.[1];
      if (bundle !== undefined) file.bundles.push(Buffer.from(bundle, 'base64url'));
    } else if (/^AGE-SECRET-KEY-(PQ-)?1[0-9A-Z]+$/.test(line)) file.identities.push(line);
    else {
      // The line itself is never shown: it may be a damaged secret.
      throw new RozenError('usage', `${path}, line ${index + 1}: not an age identity`, {
        hint: line.startsWith('age-encryption.org/')
          ? 'the file is itself encrypted; decrypt it with age first'
          : 'an identity file holds lines that begin with AGE-SECRET-KEY-',
      });
    }
  }
  if (file.identities.length === 0 && file.bundles.length === 0) {
    throw new RozenError('no-key', `${path} holds no identity`, {
      hint: 'make one with `rozen key export` or age-keygen',
    });
  }
  return file;
}

/** Refuses a repository whose fingerprint is not among those that the file names. */
export function checkFingerprints(file: IdentityFile, genesis: Genesis, path: string): void {
  const fingerprint = fingerprintOf(genesis.hash);
  if (file.fingerprints.length === 0 || file.fingerprints.some((known) => isSameFingerprint(known, fingerprint)))
    return;
  throw swappedGenesis(`its fingerprint is ${fingerprint}, but ${path} is for ${file.fingerprints.join(', ')}`);
}

/** The owner's bundle for this genesis; null when the file holds none. */
export function ownerBundle(file: IdentityFile, genesis: Genesis): Bundle | null {
  for (const encoded of file.bundles) {
    try {
      return decodeBundle(Buffer.from(encoded), genesis.hash);
    } catch (error) {
      if (!(error instanceof RozenError) || error.code !== 'untrusted') throw error;
    }
  }
  return null;
}

/** The text of `rozen key export`; with `owner`, whoever has it can also change the repository's keys. */
export function formatIdentityFile(content: {
  genesis: Genesis;
  location: string;
  identities: string[];
  owner: Bundle | null;
}): string {
  const { genesis, location, identities, owner } = content;
  const lines = [
    `# rozen repository: ${genesis.repositoryId.toString('hex')} (${location.replaceAll(/[^\x20-\x7e]/g, '?')})`,
    `# rozen fingerprint: ${fingerprintOf(genesis.hash)}`,
    owner === null
      ? '# Whoever has this file can read the whole repository. Keep it secret, and keep a copy away from the repository.'
      : '# Whoever has this file owns the whole repository. Keep it secret, and keep a copy away from the repository.',
    ...identities,
  ];
  if (owner !== null) lines.push(`# rozen owner key: ${encodeBundle(owner).toString('base64url')}`);
  return `${lines.join('\n')}\n`;
}
