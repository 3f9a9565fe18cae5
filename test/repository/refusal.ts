import { join } from 'node:path';
import { expect } from 'vitest';
import { openRepository, type Repository } from '../../src/repository/repository.ts';
import { expectCode } from '../contract/store.ts';
import { place } from './place.ts';

/**
 * Every refusal of DESIGN §6. Each attack is well-formed in all respects but the one under test (hashes fit, signatures are
 * valid for whoever made them), so that only the check in question stands in its way.
 */

/** Refused with this code, in words that name the matter, and with a hint. */
export async function refused(promise: Promise<unknown>, code: string, words: RegExp): Promise<void> {
  const error = await expectCode(promise, code);
  expect(error.message).toMatch(words);
  expect(error.hint, error.message).toBeTruthy();
  expect(error.message).not.toContain('\n');
}

/** For the tests of a file: a place of their own, and ways to open what is there. */
export function refusals() {
  const here = place();
  return {
    here,
    fresh: () => join(here.folder, 'another machine'),
    openToWrite: () => openRepository({ store: here.store, need: 'write' }),
    openToRead: (identityFile: string, store = here.store) =>
      openRepository({ store, need: 'read', credentials: { identityFile } }),
  };
}

export const firstRoot = (repository: Repository, identityFile: string) =>
  openRepository({ store: repository.store, need: 'owner', credentials: { identityFile } }).then(
    (owner) => owner.bundle!.rootSecret!,
  );
