/**
 * "Not on this machine yet": the one exception of the reading path that is no error. Synchronous code throws it, the
 * caller lets go of everything, somebody fetches what is named, and the same call runs again from its beginning.
 */

/**
 * archive  the archive behind (scope, row) is not open: its key must be unwrapped and its tables read. `scope` names the
 *          snapshot whose rows are meant (SnapshotReader.scope): a lineage that began anew counts its rows from 1 again.
 * frame    these bytes of the archive with this handle are not here; `until` is where what the same call wants of this archive
 *          ends, if it goes on beyond them.
 */
export type MissTarget =
  | { readonly kind: 'archive'; readonly scope: string; readonly row: number }
  | {
      readonly kind: 'frame';
      readonly handle: number;
      readonly offset: number;
      readonly length: number;
      readonly until?: number;
    };

export class Miss extends Error {
  readonly target: MissTarget;

  constructor(target: MissTarget) {
    // A miss is thrown on the hot path: capturing a stack costs more than the lookup that failed.
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = 0;
    super('miss');
    Error.stackTraceLimit = limit;
    this.name = 'Miss';
    this.target = target;
  }
}

/** The archive of this row must be opened first. */
export function missArchive(scope: string, row: number): Miss {
  return new Miss({ kind: 'archive', scope, row });
}

/** These bytes of an open archive must be fetched first. */
export function missFrame(handle: number, offset: number, length: number, until = 0): Miss {
  const frame = { kind: 'frame', handle, offset, length } as const;
  return new Miss(until > offset + length ? { ...frame, until } : frame);
}
