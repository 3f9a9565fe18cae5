/**
 * What lies in cold storage, as far as a mount has met it. Asked of the store when somebody wants to know, remembered for a short
 * time: a thaw takes hours, and what has come must be readable without another mount.
 */
import { RozenError } from '../../errors.ts';
import { ENOMEDIUM } from '../../posix/errno.ts';
import { dataName } from '../../repository/names.ts';
import type { Repository } from '../../repository/repository.ts';
import type { ColdState, ObjectStore, Warmth } from '../../store/object-store.ts';
import { FsError } from '../vfs.ts';

/** How long an answer counts, in ms: one request for each archive in that time, however many files are looked at. */
const REMEMBERED_MS = 5000;

type Forwards = Pick<Repository['forwards'], 'find'>;

export interface ArchiveState {
  /** Archive id, 32 hexadecimal digits. */
  id: string;
  state: Warmth;
  /** Until when that counts, milliseconds since 1970. */
  until: number;
}

export class ColdArchives {
  readonly #store: ObjectStore;
  readonly #forwards: Forwards;
  readonly #states = new Map<string, ArchiveState>();
  /** By handle: until when an archive is taken for frozen, and how that is said. */
  readonly #refused = new Map<number, { until: number; error: FsError }>();

  constructor(store: ObjectStore, forwards: Forwards) {
    this.#store = store;
    this.#forwards = forwards;
  }

  /** The state of a data archive. 'not-found' when it is gone. */
  async state(id: string): Promise<ArchiveState> {
    const known = this.#states.get(id);
    if (known !== undefined && Date.now() < known.until) return known;
    const object = dataName(Buffer.from(id, 'hex'));
    const cold = (await this.#store.coldState(object)) ?? (await this.#merged(id));
    if (cold === null) throw new RozenError('not-found', `${this.#store.location}/${object} is gone`);
    const state = { id, state: cold.state, until: Date.now() + REMEMBERED_MS };
    this.#states.set(id, state);
    return state;
  }

  /** Of the archive that one which is not there was merged into. */
  async #merged(id: string): Promise<ColdState | null> {
    const forwarding = await this.#forwards.find(Buffer.from(id, 'hex'));
    return forwarding === null ? null : this.#store.coldState(dataName(forwarding.target.id));
  }

  /** Throws at once, without a request, what `refuse` has said of this archive a moment ago. */
  check(handle: number): void {
    const refused = this.#refused.get(handle);
    if (refused === undefined) return;
    if (Date.now() < refused.until) throw refused.error;
    this.#refused.delete(handle);
  }

  /** A read has met frozen content: the error that it gets, and others after it. */
  refuse(handle: number, error: RozenError): FsError {
    const refusal = new FsError(ENOMEDIUM, error.message);
    this.#refused.set(handle, { until: Date.now() + REMEMBERED_MS, error: refusal });
    return refusal;
  }
}
