import type { BlockCache } from '../cache/block-cache.ts';
import { RozenError } from '../errors.ts';
import type { Repository } from '../repository/repository.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { type Config, configPath, loadConfig, type RepositoryConfig } from './config.ts';
import { type Credentials, chooseCredentials } from './credentials.ts';
import type { Output } from './output.ts';
import { Progress } from './progress.ts';

/** The options that stand before or after any command. */
export interface GlobalOptions {
  repository?: string;
  identity?: string;
  passwordFile?: string;
  config?: string;
  json?: boolean;
  quiet?: boolean;
  verbose?: boolean;
  debug?: boolean;
}

/** What a command works with: where to print, which repository, which key, when to stop. */
export class Context {
  readonly out: Output;
  readonly options: GlobalOptions;
  /** Aborted by the first Ctrl-C or SIGTERM of a command that stops itself. */
  readonly signal: AbortSignal;
  /** Damage was told: a command that has done all the same ends with the exit code of that. */
  foundDamage = false;
  /** Where the cache lies and how much it may hold, when the command line says so. */
  cachePlace: { folder?: string | undefined; budget?: number | undefined } = {};
  #config: Promise<Config> | null = null;
  #cache: Promise<BlockCache | null> | null = null;

  constructor(out: Output, options: GlobalOptions, signal: AbortSignal) {
    this.out = out;
    this.options = options;
    this.signal = signal;
  }

  config(): Promise<Config> {
    const named = this.options.config;
    this.#config ??= loadConfig(named ?? configPath(), named !== undefined);
    return this.#config;
  }

  progress(label: string): Progress {
    return new Progress(this.out, label);
  }

  /** For a record that is left out of a listing. */
  tellDamage(message: string): void {
    this.foundDamage = true;
    this.out.warning(message);
  }

  /** Location and key sources of the chosen repository; `named` wins over -r, the environment and the configuration. */
  async repository(named?: string): Promise<RepositoryConfig> {
    const config = await this.config();
    const choice = this.options.repository ?? named ?? (process.env.ROZEN_REPOSITORY || undefined) ?? config.repository;
    if (choice === undefined) {
      throw new RozenError('usage', 'no repository is named', {
        hint: 'give -r REPO, set ROZEN_REPOSITORY, or put repository = "…" into the configuration',
      });
    }
    return (
      (Object.hasOwn(config.repositories, choice) ? config.repositories[choice] : undefined) ?? { location: choice }
    );
  }

  async store(named?: string): Promise<ObjectStore> {
    const repository = await this.repository(named);
    const { openStore } = await import('../store/open.ts');
    return openStore(repository.location, repository);
  }

  async credentials(named?: string): Promise<Credentials> {
    return chooseCredentials({
      identity: this.options.identity,
      passwordFile: this.options.passwordFile,
      configured: await this.repository(named),
    });
  }

  /** Opens the repository; asks for a passphrase only when `need` makes it necessary. */
  async open(need: 'none' | 'write' | 'read' | 'owner', named?: string): Promise<Repository> {
    const store = await this.store(named);
    const { openRepository } = await import('../repository/repository.ts');
    const cache = need === 'read' ? await this.cache(store) : null;
    const objects = cache === null ? null : (await import('../cache/cached-objects.ts')).cachedObjects(cache);
    return openRepository({ store, credentials: await this.credentials(named), need, objects });
  }

  /** What was fetched before from a remote store; null for a local one. Opened once, closed by `close`. */
  async cache(store: ObjectStore): Promise<BlockCache | null> {
    if (this.#cache === null) {
      const { openCache } = await import('../cache/open-cache.ts');
      const { cacheHome } = await import('../repository/paths.ts');
      const { folder = cacheHome(), budget } = this.cachePlace;
      this.#cache ??= openCache(store, { folder, budget, report: (message) => this.out.warning(message) });
    }
    return this.#cache;
  }

  /** What waits to be written into the cache is written. */
  async close(): Promise<void> {
    await (await this.#cache)?.close();
  }
}
