import type { Repository } from '../repository/repository.ts';
import type { SnapshotInfo } from '../snapshot/view/listing.ts';
import type { OpenPlace, SnapshotOpener } from '../snapshot/view/place.ts';
import { argumentBytes } from './argument-bytes.ts';
import type { Context } from './context.ts';

/** Snapshots by name and places in them, for one command. */
export class Places {
  readonly #context: Context;
  readonly #repository: Repository;
  #opener: SnapshotOpener | null = null;
  readonly #keepContent: boolean;
  readonly #warned = new Set<string>();

  /** `keepContent`: content that is fetched goes into the cache. */
  constructor(context: Context, repository: Repository, { keepContent = false } = {}) {
    this.#context = context;
    this.#repository = repository;
    this.#keepContent = keepContent;
  }

  /** The snapshot of a name, and the bytes of the path behind the colon (null when there is none). */
  async choose(text: string): Promise<{ snapshot: SnapshotInfo; path: Buffer | null }> {
    const { parseSnapshotName } = await import('../snapshot/view/naming.ts');
    const { findSnapshot } = await import('../snapshot/view/listing.ts');
    const name = parseSnapshotName(text);
    const snapshot = await findSnapshot(this.#repository, name, (error) => this.#warn(error.message));
    return { snapshot, path: name.path === null ? null : argumentBytes(name.path) };
  }

  /** A damaged record is told once, however many names are looked up. */
  #warn(message: string): void {
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    this.#context.out.warning(message);
  }

  async open(text: string): Promise<OpenPlace> {
    const { snapshot, path } = await this.choose(text);
    return this.openIn(snapshot, path);
  }

  /** To read content: also where an older snapshot of a WORM set leads to copies that were damaged and repaired. */
  async openToRead(text: string): Promise<OpenPlace> {
    const place = await this.open(text);
    if (place.snapshot.mode !== 'worm') return place;
    const { contentReader } = await import('../snapshot/worm/repaired.ts');
    return { ...place, content: await contentReader(this.#repository, await this.opener(), place) };
  }

  async openIn(snapshot: SnapshotInfo, path: Buffer | null): Promise<OpenPlace> {
    const { openPlace } = await import('../snapshot/view/place.ts');
    return openPlace(await this.opener(), snapshot, path);
  }

  async opener(): Promise<SnapshotOpener> {
    const { SnapshotOpener } = await import('../snapshot/view/place.ts');
    const cache = await this.#context.cache(this.#repository.store);
    this.#opener ??= new SnapshotOpener(this.#repository, { cache, keepContent: this.#keepContent });
    return this.#opener;
  }

  /** Wipes the keys that the command has used. */
  close(): void {
    this.#opener?.close();
    this.#repository.close();
  }
}
