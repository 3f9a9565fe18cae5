/**
 * `mount.rozen`, what mount(8) runs for the type `rozen`: its arguments as those of `rozen mount`.
 *
 *   mount.rozen SOURCE DIR [-fnsv] [-N namespace] [-t type] [-o option,option=value,…]
 */
import { RozenError } from '../errors.ts';

/** Options that are flags or values of `rozen mount` and `rozen`. */
const FLAGS: Readonly<Record<string, string>> = { allow_other: '--allow-other', trace: '--trace' };
const VALUES: Readonly<Record<string, string>> = {
  snapshot: '--snapshot',
  uid: '--uid',
  gid: '--gid',
  umask: '--umask',
  driver: '--driver',
};
const GLOBAL_VALUES: Readonly<Record<string, string>> = {
  identity: '--identity',
  'password-file': '--password-file',
  config: '--config',
};
/** What holds for every mount of Rozen anyway, what only others read in fstab, and `rw`, which mount(8) says by itself. */
const SILENT = new Set(
  (
    'defaults rw ro nosuid nodev noatime nodiratime relatime exec auto noauto user nouser users owner group nofail ' +
    '_netdev default_permissions silent loud async'
  ).split(' '),
);
/** What a mount of Rozen can never be: asked for by habit, so that it is said and not refused. */
const NEVER = new Set(['suid', 'dev', 'atime', 'strictatime']);

export interface HelperArguments {
  /** For `rozen`, the command among them. */
  argv: string[];
  /** Nothing is to be mounted (`-f`). */
  fake: boolean;
  warnings: string[];
}

/** @param words the arguments of `mount.rozen`, without the program */
export function helperArguments(words: readonly string[]): HelperArguments {
  const places: string[] = [];
  const options: string[] = [];
  let fake = false;
  let sloppy = false;
  for (let i = 0; i < words.length; i++) {
    const word = words[i]!;
    if (word === '-o') options.push(...splitOptions(words[++i] ?? ''));
    else if (word === '-t' || word === '-N') i++;
    else if (/^-[fnsvrw]+$/.test(word)) {
      fake ||= word.includes('f');
      sloppy ||= word.includes('s');
    } else if (word.startsWith('-')) throw usage(`unknown argument ${word}`);
    else places.push(word);
  }
  const [source, dir] = places;
  if (source === undefined || dir === undefined || places.length > 2) throw usage('a source and a folder are needed');
  const global: string[] = ['--quiet', '-r', source];
  const own: string[] = [];
  const warnings: string[] = [];
  for (const option of options) {
    const equals = option.indexOf('=');
    const name = equals < 0 ? option : option.slice(0, equals);
    const value = equals < 0 ? null : option.slice(equals + 1);
    const plain = value === null;
    if (plain && FLAGS[name] !== undefined) own.push(FLAGS[name]);
    else if (!plain && VALUES[name] !== undefined) own.push(`${VALUES[name]}=${value}`);
    else if (!plain && GLOBAL_VALUES[name] !== undefined) global.push(`${GLOBAL_VALUES[name]}=${value}`);
    else if (plain && NEVER.has(name)) warnings.push(`${name}: a mount of Rozen is read-only, nosuid, nodev, noatime`);
    else if (!((plain && SILENT.has(name)) || /^(x-|X-|comment$)/.test(name) || sloppy)) {
      throw usage(`unknown option ${option}`);
    }
  }
  return { argv: [...global, 'mount', ...own, '--', dir], fake, warnings };
}

/** Options stand between commas; `\,` is a comma in a value. */
function splitOptions(text: string): string[] {
  return text
    .split(/(?<!\\),/)
    .map((option) => option.replaceAll('\\,', ','))
    .filter((option) => option !== '');
}

function usage(what: string): RozenError {
  const known = [...Object.keys({ ...GLOBAL_VALUES, ...VALUES }).map((name) => `${name}=…`), ...Object.keys(FLAGS)];
  return new RozenError('usage', `mount.rozen: ${what}`, {
    hint: `mount -t rozen REPOSITORY DIR -o OPTIONS; the options are ${known.join(', ')}`,
  });
}
