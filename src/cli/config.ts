import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { configHome } from '../repository/paths.ts';
import { isUrl } from '../store/location.ts';
import { nearest } from './values.ts';

/** One `[repositories.NAME]` table. */
export interface RepositoryConfig {
  location: string;
  identity?: string;
  passwordFile?: string;
  passwordCommand?: string;
  /** The rest is for buckets: see S3Options. */
  endpoint?: string;
  region?: string;
  pathStyle?: boolean;
  profile?: string;
}

/** One `[sets.NAME]` table: what `rozen backup --set NAME` does without more words. */
export interface SetConfig {
  repository?: string;
  paths?: string[];
  mode?: string;
  rehash?: string;
  exclude?: string[];
  excludeFile?: string[];
  excludeCaches?: boolean;
  oneFileSystem?: boolean;
  tag?: string[];
  codec?: string;
  archiveSize?: string;
  storageClass?: string;
}

export interface Config {
  /** Name of a `[repositories.NAME]` table, or a location. */
  repository?: string;
  /** Wherever a command line gives none. */
  defaults: { codec?: string; archiveSize?: string; storageClass?: string };
  repositories: Readonly<Record<string, RepositoryConfig>>;
  sets: Readonly<Record<string, SetConfig>>;
}

type Kind = 'string' | 'strings' | 'boolean' | 'path' | 'paths';

const REPOSITORY_KEYS: Readonly<Record<string, Kind>> = {
  location: 'string',
  identity: 'path',
  'password-file': 'path',
  'password-command': 'string',
  endpoint: 'string',
  region: 'string',
  'path-style': 'boolean',
  profile: 'string',
};
const SET_KEYS: Readonly<Record<string, Kind>> = {
  repository: 'string',
  paths: 'paths',
  mode: 'string',
  rehash: 'string',
  exclude: 'strings',
  'exclude-file': 'paths',
  'exclude-caches': 'boolean',
  'one-file-system': 'boolean',
  tag: 'strings',
  codec: 'string',
  'archive-size': 'string',
  'storage-class': 'string',
};
const DEFAULT_KEYS: Readonly<Record<string, Kind>> = {
  codec: 'string',
  'archive-size': 'string',
  'storage-class': 'string',
};

/** `$ROZEN_CONFIG`, else `config.toml` in the configuration folder. */
export function configPath(env: NodeJS.ProcessEnv = process.env): string {
  return env.ROZEN_CONFIG || join(configHome(), 'config.toml');
}

/** Reads the configuration; an absent file is an empty one unless it was asked for by name. Throws `usage`. */
export async function loadConfig(path: string, required: boolean): Promise<Config> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code;
    if (!required && (code === 'ENOENT' || code === 'ENOTDIR')) return { defaults: {}, repositories: {}, sets: {} };
    throw new RozenError('usage', `${path}: the configuration cannot be read: ${reasonOf(cause)}`, { cause });
  }
  const { parse } = await import('smol-toml');
  let document: unknown;
  try {
    document = parse(text);
  } catch (cause) {
    const first = (cause as Error).message.split('\n')[0] ?? 'syntax error';
    const line = (cause as { line?: number }).line;
    throw new RozenError('usage', `${path}${line === undefined ? '' : `, line ${line}`}: ${first}`, { cause });
  }
  return readConfig(document as Record<string, unknown>, path);
}

/** Checks a parsed document; every key must be known. */
function readConfig(document: Record<string, unknown>, path: string): Config {
  const config: Config = { defaults: {}, repositories: {}, sets: {} };
  const folder = dirname(resolve(path));
  const reader = new TableReader(path, folder);
  for (const [key, value] of Object.entries(document)) {
    if (key === 'repository') {
      if (typeof value !== 'string') throw reader.wrong(key, 'a string');
      config.repository = value;
    } else if (key === 'defaults') {
      config.defaults = reader.table(key, value, DEFAULT_KEYS);
    } else if (key === 'repositories') {
      config.repositories = reader.tables<RepositoryConfig>(key, value, REPOSITORY_KEYS);
    } else if (key === 'sets') {
      config.sets = reader.tables<SetConfig>(key, value, SET_KEYS);
    } else {
      throw reader.unknown(key, ['repository', 'defaults', 'repositories', 'sets'], key);
    }
  }
  for (const [name, repository] of Object.entries(config.repositories)) {
    if (!repository.location) throw reader.wrong(`repositories.${name}.location`, 'given: where the repository lies');
    repository.location = reader.location(repository.location);
  }
  return config;
}

class TableReader {
  readonly #path: string;
  readonly #folder: string;

  constructor(path: string, folder: string) {
    this.#path = path;
    this.#folder = folder;
  }

  wrong(key: string, must: string): RozenError {
    return new RozenError('usage', `${this.#path}: ${key} must be ${must}`);
  }

  unknown(key: string, known: readonly string[], where: string): RozenError {
    const near = nearest(key, known);
    return new RozenError('usage', `${this.#path}: unknown key ${where}`, {
      hint: near === undefined ? `known are ${known.join(', ')}` : `did you mean ${near}?`,
    });
  }

  tables<T>(key: string, value: unknown, keys: Readonly<Record<string, Kind>>): Record<string, T> {
    if (!isTable(value)) throw this.wrong(key, 'a table of tables');
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [name, this.table<T>(`${key}.${name}`, inner, keys)]),
    );
  }

  table<T>(key: string, value: unknown, keys: Readonly<Record<string, Kind>>): T {
    if (!isTable(value)) throw this.wrong(key, 'a table');
    const result: Record<string, unknown> = {};
    for (const [name, inner] of Object.entries(value)) {
      const kind = Object.hasOwn(keys, name) ? keys[name] : undefined;
      if (kind === undefined) throw this.unknown(name, Object.keys(keys), `${key}.${name}`);
      result[name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())] = this.#value(
        `${key}.${name}`,
        inner,
        kind,
      );
    }
    return result as T;
  }

  #value(key: string, value: unknown, kind: Kind): unknown {
    if (kind === 'boolean') {
      if (typeof value !== 'boolean') throw this.wrong(key, 'true or false');
      return value;
    }
    if (kind === 'string' || kind === 'path') {
      if (typeof value !== 'string') throw this.wrong(key, 'a string');
      return kind === 'path' ? this.path(value) : value;
    }
    const list = typeof value === 'string' ? [value] : value;
    if (!Array.isArray(list) || !list.every((item) => typeof item === 'string'))
      throw this.wrong(key, 'a list of strings');
    return kind === 'paths' ? list.map((item: string) => this.path(item)) : list;
  }

  /** `~/…` is the home folder; a relative path counts from the folder of the configuration. */
  path(text: string): string {
    if (text === '~' || text.startsWith('~/')) return join(homedir(), text.slice(1));
    return resolve(this.#folder, text);
  }

  location(text: string): string {
    return isUrl(text) ? text : this.path(text);
  }
}

function isTable(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}
