import { RozenError } from '../../errors.ts';
import { type Moment, parseMoment } from './moment.ts';

/** A snapshot as a person names it, and a place in it. */
export interface SnapshotName {
  kind: 'id' | 'latest' | 'time';
  /** Lower-case hexadecimal prefix of the id, for kind 'id'. */
  prefix: string;
  /** The set; null for `latest` of any set. */
  set: string | null;
  moment: Moment | null;
  /** What follows the colon; null when there is none. */
  path: string | null;
  /** As it was written, without the path. */
  text: string;
}

/** Just enough of a snapshot to choose one. */
export interface Nameable {
  /** 32 hexadecimal digits. */
  id: string;
  set: string;
  /** Its lineage, and its number there. */
  lineage: string;
  sequence: number;
  timeSec: number;
  timeNs: number;
}

/** A time may hold colons itself: it is taken as long as it can be. */
const TIME =
  /^(\d{4}(?:-\d{2}(?:-\d{2}(?:[T ]\d{2}(?:[:.]\d{2}(?:[:.]\d{2}(?:[.,]\d+)?)?)?(?:Z|[+-]\d{2}:?\d{2})?)?)?)?|@\d+|\d+(?:mo|[smhdwy]))(-\d+)?(?=:|$)/;

/**
 * `ID`, `latest`, `SET@latest`, `SET@TIME`, each maybe followed by `:PATH`. Throws `usage` when it is none of these.
 * A set's name may hold colons and at signs: the last `@latest` or `@TIME` counts.
 */
export function parseSnapshotName(text: string): SnapshotName {
  const plain = /^([0-9a-f]{1,32}|latest)(?::(.*))?$/is.exec(text);
  if (plain !== null) {
    const word = (plain[1] as string).toLowerCase();
    const path = plain[2] ?? null;
    if (word === 'latest') return { kind: 'latest', prefix: '', set: null, moment: null, path, text: word };
    return { kind: 'id', prefix: word, set: null, moment: null, path, text: word };
  }
  for (let at = text.indexOf('@'); at >= 0; at = text.indexOf('@', at + 1)) {
    if (at === 0) continue;
    const set = text.slice(0, at);
    const rest = text.slice(at + 1);
    const latest = /^latest(?::(.*))?$/s.exec(rest);
    if (latest !== null) {
      return { kind: 'latest', prefix: '', set, moment: null, path: latest[1] ?? null, text: `${set}@latest` };
    }
    const time = TIME.exec(rest);
    const moment = time === null ? null : parseMoment(time[1] as string);
    if (time !== null && moment !== null) {
      const length = time[0].length;
      const path = rest.length > length ? rest.slice(length + 1) : null;
      return { kind: 'time', prefix: '', set, moment, path, text: `${set}@${time[0]}` };
    }
  }
  throw new RozenError('usage', `'${text}' names no snapshot`, {
    hint: 'write the first characters of an id, latest, SET@latest or SET@2026-11-23, maybe followed by :PATH',
  });
}

/** The snapshot that is meant. Throws `not-found`, or `usage` when an id prefix fits several. */
export function chooseSnapshot<S extends Nameable>(name: SnapshotName, snapshots: readonly S[]): S {
  if (snapshots.length === 0) {
    throw new RozenError('not-found', 'the repository holds no snapshots', { hint: 'make one with rozen backup' });
  }
  if (name.kind === 'id') return byPrefix(name.prefix, snapshots);
  const ofSet = name.set === null ? snapshots : snapshots.filter((snapshot) => snapshot.set === name.set);
  if (ofSet.length === 0) {
    const sets = [...new Set(snapshots.map((snapshot) => snapshot.set))].sort();
    throw new RozenError('not-found', `no snapshot of a set '${name.set}'`, { hint: `there are ${sets.join(', ')}` });
  }
  const { moment } = name;
  const fitting =
    moment === null ? newestOfLineages(ofSet) : ofSet.filter((snapshot) => snapshot.timeSec <= moment.last);
  const newest = fitting.reduce<S | null>((best, one) => (best === null || isNewer(one, best) ? one : best), null);
  if (newest === null) {
    throw new RozenError('not-found', `no snapshot as old as ${name.text}`, { hint: 'see rozen snapshots' });
  }
  return newest;
}

/** What a clock that stood ahead once dates into the future is not the latest: in a lineage the sequence counts. */
function newestOfLineages<S extends Nameable>(snapshots: readonly S[]): S[] {
  const newest = new Map<string, number>();
  for (const { lineage, sequence } of snapshots) newest.set(lineage, Math.max(newest.get(lineage) ?? 0, sequence));
  return snapshots.filter(({ lineage, sequence }) => sequence === newest.get(lineage));
}

function isNewer(a: Nameable, b: Nameable): boolean {
  return a.timeSec !== b.timeSec ? a.timeSec > b.timeSec : a.timeNs >= b.timeNs;
}

function byPrefix<S extends Nameable>(prefix: string, snapshots: readonly S[]): S {
  const fitting = snapshots.filter((snapshot) => snapshot.id.startsWith(prefix));
  const [only] = fitting;
  if (only === undefined) {
    throw new RozenError('not-found', `no snapshot with an id that begins with ${prefix}`, {
      hint: 'see rozen snapshots',
    });
  }
  if (fitting.length > 1) {
    const ids = fitting.slice(0, 4).map((snapshot) => snapshot.id.slice(0, Math.max(8, prefix.length + 4)));
    throw new RozenError(
      'usage',
      `${fitting.length} snapshots begin with ${prefix}: ${ids.join(', ')}${fitting.length > 4 ? ', …' : ''}`,
      {
        hint: 'write more characters of the id',
      },
    );
  }
  return only;
}

/** A path in a snapshot as its names: no empty ones, no `.`; `..` goes up. Bytes, as argv gave them. */
export function splitPath(path: Uint8Array): Buffer[] {
  const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
  const names: Buffer[] = [];
  for (let start = 0; start <= bytes.length; ) {
    const slash = bytes.indexOf(0x2f, start);
    const end = slash < 0 ? bytes.length : slash;
    const name = bytes.subarray(start, end);
    if (name.equals(PARENT)) names.pop();
    else if (name.length > 0 && !name.equals(SELF)) names.push(name);
    start = end + 1;
  }
  return names;
}

const SELF = Buffer.from('.');
const PARENT = Buffer.from('..');
