import type { RozenError } from '../errors.ts';
import type {
  ColdState,
  Keeping,
  ObjectInfo,
  ObjectStore,
  PutFileOptions,
  ThawTier,
  Unfinished,
} from './object-store.ts';

export interface StoreCall {
  operation: 'get' | 'getRange' | 'getSuffix' | 'put' | 'putFile' | 'stat' | 'coldState' | 'thaw' | 'list' | 'delete';
  name: string;
  /** Bytes that came back or went out; 0 for the rest. */
  bytes: number;
}

/** Writes down every call, so that a cost ("opening takes two reads") is something to assert. */
export class CountingStore implements ObjectStore {
  readonly inner: ObjectStore;
  calls: StoreCall[] = [];

  constructor(inner: ObjectStore) {
    this.inner = inner;
  }

  get location(): string {
    return this.inner.location;
  }

  /** How many calls of these operations there were, all of them when none is named. */
  count(...operations: StoreCall['operation'][]): number {
    return this.calls.filter((call) => operations.length === 0 || operations.includes(call.operation)).length;
  }

  /** Calls that read object bytes. */
  get reads(): number {
    return this.count('get', 'getRange', 'getSuffix');
  }

  reset(): void {
    this.calls = [];
  }

  prepare(): Promise<void> {
    return this.inner.prepare();
  }

  async get(name: string, limit?: number): Promise<Buffer> {
    const call = this.#note('get', name);
    const bytes = await this.inner.get(name, limit);
    call.bytes = bytes.length;
    return bytes;
  }

  async getRange(name: string, offset: number, length: number, target?: Buffer): Promise<Buffer> {
    const call = this.#note('getRange', name);
    const bytes = await this.inner.getRange(name, offset, length, target);
    call.bytes = bytes.length;
    return bytes;
  }

  async getSuffix(name: string, length: number): Promise<{ bytes: Buffer; size: number }> {
    const call = this.#note('getSuffix', name);
    const answer = await this.inner.getSuffix(name, length);
    call.bytes = answer.bytes.length;
    return answer;
  }

  async put(name: string, bytes: Uint8Array): Promise<void> {
    this.#note('put', name).bytes = bytes.length;
    await this.inner.put(name, bytes);
  }

  async putFile(name: string, path: string, options?: PutFileOptions): Promise<void> {
    this.#note('putFile', name);
    await this.inner.putFile(name, path, options);
  }

  async stat(name: string): Promise<{ size: number; modified: number } | null> {
    this.#note('stat', name);
    return this.inner.stat(name);
  }

  async coldState(name: string): Promise<ColdState | null> {
    this.#note('coldState', name);
    return this.inner.coldState(name);
  }

  async thaw(name: string, request: { tier: ThawTier; days: number }): Promise<void> {
    this.#note('thaw', name);
    await this.inner.thaw(name, request);
  }

  list(prefix: string, options?: { after?: string }): AsyncIterable<ObjectInfo> {
    this.#note('list', prefix);
    return this.inner.list(prefix, options);
  }

  async delete(name: string): Promise<void> {
    this.#note('delete', name);
    await this.inner.delete(name);
  }

  localPath(name: string): string | null {
    return this.inner.localPath(name);
  }

  keep(keeping: Keeping): void {
    this.inner.keep(keeping);
  }

  cannotKeep(keeping: Keeping): Promise<RozenError | null> {
    return this.inner.cannotKeep(keeping);
  }

  retain(names: readonly string[]): Promise<void> {
    return this.inner.retain(names);
  }

  lockedUntil(name: string): Promise<number | null> {
    return this.inner.lockedUntil(name);
  }

  unfinished(): AsyncIterable<Unfinished> {
    return this.inner.unfinished();
  }

  abandon(unfinished: Unfinished): Promise<boolean> {
    return this.inner.abandon(unfinished);
  }

  #note(operation: StoreCall['operation'], name: string): StoreCall {
    const call = { operation, name, bytes: 0 };
    this.calls.push(call);
    return call;
  }
}
