import { RozenError } from '../errors.ts';
import type { Repository, WormPolicy } from '../repository/repository.ts';
import { argumentBytes } from './argument-bytes.ts';
import type { Context } from './context.ts';
import { nearest } from './values.ts';

export interface PolicyOptions {
  onChange?: WormPolicy['onChange'];
  onDelete?: WormPolicy['onDelete'];
  acceptNew?: 'yes' | 'no';
}

/** What the options say about the policy; nothing is said about what is missing. */
export function policyOf({ onChange, onDelete, acceptNew }: PolicyOptions): Partial<WormPolicy> {
  return {
    ...(onChange === undefined ? {} : { onChange }),
    ...(onDelete === undefined ? {} : { onDelete }),
    ...(acceptNew === undefined ? {} : { acceptNew: acceptNew === 'yes' }),
  };
}

export function policyLine({ onChange, onDelete, acceptNew }: WormPolicy): string {
  return `on change ${onChange}, on delete ${onDelete}, new files ${acceptNew ? 'are taken' : 'are refused (frozen)'}`;
}

/** Opens a repository for what the machine's own state can tell: a machine that backs up needs no key for it. */
export async function openForStatus(context: Context): Promise<Repository> {
  const probe = await context.open('none');
  const { isEnrolled } = await import('../snapshot/worm/set-trees.ts');
  const enrolled = isEnrolled(probe.stateDir);
  probe.close();
  return context.open(enrolled ? 'write' : 'read');
}

/** `SET:PATH`: a name of a set may hold colons, so that the longest one that exists counts. */
export function splitSetPath(text: string, sets: readonly string[]): { set: string; path: Buffer } {
  let found: { set: string; path: Buffer } | null = null;
  for (let at = text.indexOf(':'); at >= 0; at = text.indexOf(':', at + 1)) {
    const set = text.slice(0, at);
    if (sets.includes(set)) found = { set, path: argumentBytes(text.slice(at + 1)) };
  }
  if (found !== null) return found;
  const colon = text.indexOf(':');
  if (colon < 0) throw new RozenError('usage', `'${text}' names no place in a set`, { hint: 'write SET:PATH' });
  const near = nearest(text.slice(0, colon), sets);
  throw new RozenError('not-found', `no set '${text.slice(0, colon)}'`, {
    hint: near === undefined ? `there are ${sets.join(', ')}` : `did you mean ${near}?`,
  });
}
