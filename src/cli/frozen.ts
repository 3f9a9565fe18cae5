/** What must be thawed first: found before a command writes or prints anything, with the command that brings it back. */
import { RozenError } from '../errors.ts';
import type { NeededPack } from '../snapshot/cold/packs.ts';
import type { PackPlace } from '../snapshot/cold/thaw.ts';
import type { OpenPlace } from '../snapshot/view/place.ts';
import { isRemote } from '../store/object-store.ts';
import type { Context } from './context.ts';
import { formatSize, plural } from './display.ts';

/** Throws 'frozen' (exit code 7) when content of these places lies in packs that cannot be read now. */
export async function requireHot(context: Context, repository: PackPlace, places: readonly OpenPlace[]): Promise<void> {
  if (!isRemote(repository.store)) return;
  const needed = await packsOf(places);
  const { coldPacks, distinctPacks } = await import('../snapshot/cold/thaw.ts');
  const packs = distinctPacks(await coldPacks(repository, needed, context.signal));
  const cold = packs.filter(({ state }) => state !== 'hot');
  if (cold.length === 0) return;
  const thawing = cold.filter(({ state }) => state === 'thawing').length;
  const bytes = cold.reduce((sum, { size }) => sum + size, 0);
  throw frozenContent(
    `${plural(cold.length, 'pack')} of it (${formatSize(bytes)}) ${cold.length === 1 ? 'is' : 'are'} in cold storage${thawing > 0 ? `, ${thawing} of them on their way` : ''}`,
    thawCommand(context, places.map(placeName)),
  );
}

export function frozenContent(message: string, command: string): RozenError {
  return new RozenError('frozen', message, { hint: `first run: ${command}` });
}

/** The packs of several places, each once. `everything`: see neededPacks. */
export async function packsOf(places: readonly OpenPlace[], everything = false): Promise<NeededPack[]> {
  const { neededPacks } = await import('../snapshot/cold/packs.ts');
  const found = new Map<string, NeededPack>();
  for (const place of places) for (const pack of await neededPacks(place, everything)) found.set(pack.id, pack);
  return [...found.values()];
}

/** The place by the id of its snapshot: `latest` may mean another one tomorrow. */
function placeName({ snapshot, path }: OpenPlace): Buffer {
  const id = snapshot.id.slice(0, 8);
  if (path.length === 0) return Buffer.from(id);
  return Buffer.concat([Buffer.from(`${id}:`), ...path.flatMap((name) => [SLASH, name])]);
}

const SLASH = Buffer.from('/');

/** A line for a shell, with the same repository and key as this command. */
export function thawCommand({ options }: Context, names: readonly (string | Buffer)[]): string {
  const words: (string | Buffer)[] = ['rozen'];
  const add = (option: string, value: string | undefined): void => {
    if (value !== undefined) words.push(option, value);
  };
  add('-r', options.repository);
  add('--identity', options.identity);
  add('--password-file', options.passwordFile);
  add('--config', options.config);
  words.push('thaw', ...names);
  return words.map(shellWord).join(' ');
}

/** Quoted as far as a shell needs it; bytes that are no text in the $'…' of bash, zsh and ksh. */
export function shellWord(word: string | Buffer): string {
  const bytes = Buffer.from(word);
  const text = bytes.toString('utf8');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (!Buffer.from(text).equals(bytes) || /[\x00-\x1f\x7f-\x9f]/.test(text)) {
    const escaped = [...bytes].map((byte) =>
      byte < 0x20 || byte > 0x7e || byte === 0x27 || byte === 0x5c
        ? `\\x${byte.toString(16).padStart(2, '0')}`
        : String.fromCharCode(byte),
    );
    return `$'${escaped.join('')}'`;
  }
  return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
