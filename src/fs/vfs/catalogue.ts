/** What the mount lists: sets and their snapshots, oldest first. The main thread makes it, every thread gets a copy. */

export interface CatalogueSnapshot {
  slot: number;
  /** 32 hex characters. */
  id: string;
  generation: number;
  /** Tag of the lineage, and the snapshot's number in it. */
  lineage: string;
  sequence: number;
  timeSec: number;
  timeNs: number;
  /** The name of its folder, unique in the set. */
  name: string;
  /** The snapshot whose trees lead to its contents, where some were stored once more since: the newest of its lineage. */
  contentSlot?: number;
}

export interface CatalogueSet {
  number: number;
  /** A name that can stand in a folder. */
  name: string;
  /** A WORM set: `worm` shows it too. */
  worm: boolean;
  /** Of a WORM set that several machines feed: the newest snapshot of each, by the machine's name. */
  machines: { name: string; slot: number }[];
  /** By time, of all lineages, and none before one that came earlier in its lineage; the last one is the latest. */
  snapshots: CatalogueSnapshot[];
}

export interface Catalogue {
  /** When the mount began: the time of the folders that do not belong to a set. */
  since: { sec: number; ns: number };
  owner: { uid: number; gid: number };
  /** What statfs tells: bytes of all archives of the newest snapshots, and their files. Null until somebody asks. */
  usage: { bytes: number; files: number } | null;
  /** The slot of the one snapshot that the mount shows at its root; null when it shows all of them. */
  root: number | null;
  sets: CatalogueSet[];
}

export interface SnapshotFacts {
  id: string;
  set: string;
  /** Of a WORM set. */
  worm?: boolean;
  /** Name of the machine. */
  host?: string;
  /** Of the newest of a lineage: how many contents were stored once more, as their archived copies were damaged. */
  repaired?: number;
  lineage: string;
  sequence: number;
  timeSec: number;
  timeNs: number;
}

/** What no calendar holds has its seconds as its name. */
const LAST_DATE = 8.64e12;

/** Time as the name of a folder: sorts by time, and has no colon. */
export function timeName(sec: number): string {
  if (Math.abs(sec) > LAST_DATE) return `@${sec}`;
  return new Date(sec * 1000)
    .toISOString()
    .replace(/\.\d{3}Z$/, 'Z')
    .replaceAll(':', '.');
}

function byTime(a: SnapshotFacts, b: SnapshotFacts): number {
  return a.timeSec - b.timeSec || a.timeNs - b.timeNs || a.sequence - b.sequence || (a.id < b.id ? -1 : 1);
}

/**
 * By time, but a clock that once stood ahead must not make an old snapshot the latest: none counts as made after those that
 * follow it in its lineage.
 */
function inOrder(snapshots: readonly SnapshotFacts[]): SnapshotFacts[] {
  const latestFirst = [...snapshots].sort((a, b) => b.sequence - a.sequence || (a.id < b.id ? 1 : -1));
  const next = new Map<string, SnapshotFacts>();
  const counted = new Map<SnapshotFacts, SnapshotFacts>();
  for (const facts of latestFirst) {
    const after = next.get(facts.lineage);
    const time = after === undefined || byTime(facts, after) < 0 ? facts : after;
    counted.set(facts, time);
    next.set(facts.lineage, time);
  }
  return [...snapshots].sort((a, b) => {
    const [x, y] = [counted.get(a)!, counted.get(b)!];
    return x.timeSec - y.timeSec || x.timeNs - y.timeNs || a.sequence - b.sequence || byTime(a, b);
  });
}

/** Snapshots of one second get -2, -3, … in the order of their exact times. */
function nameSnapshots(snapshots: readonly SnapshotFacts[]): { facts: SnapshotFacts; name: string }[] {
  const sorted = [...snapshots].sort(byTime);
  const used = new Map<string, number>();
  const names = new Map<SnapshotFacts, string>();
  for (const facts of sorted) {
    const plain = timeName(facts.timeSec);
    const count = (used.get(plain) ?? 0) + 1;
    used.set(plain, count);
    names.set(facts, count === 1 ? plain : `${plain}-${count}`);
  }
  return inOrder(snapshots).map((facts) => ({ facts, name: names.get(facts)! }));
}

/** Leaves room for what is added to tell names apart. */
const MAX_NAME_BYTES = 240;

/** A set's name as a file name: what the kernel would refuse is replaced. */
export function folderName(set: string): string {
  let name = set.replaceAll(/[/\0]/g, '_');
  while (Buffer.byteLength(name) > MAX_NAME_BYTES) name = name.slice(0, -1);
  return name === '' || name === '.' || name === '..' ? `_${name}` : name;
}

/** Empty when there is only one. In the order in which the machines came; of two with one name the later one gets a number. */
function machinesOf(
  list: readonly SnapshotFacts[],
  slotOf: (id: string) => number | undefined,
): { name: string; slot: number }[] {
  const newest = new Map<string, SnapshotFacts>();
  for (const facts of inOrder(list)) newest.set(facts.lineage, facts);
  if (newest.size < 2) return [];
  const machines: { name: string; slot: number }[] = [];
  for (const { host, id } of newest.values()) {
    const slot = slotOf(id);
    if (slot === undefined) continue;
    const plain = folderName(host === undefined || host === '' ? 'unknown' : host);
    let name = plain;
    for (let count = 2; machines.some((machine) => machine.name === name); count++) name = `${plain}-${count}`;
    machines.push({ name, slot });
  }
  return machines;
}

/** Older snapshots of a lineage that was repaired are read through its newest one. */
function readThroughNewest(snapshots: readonly CatalogueSnapshot[], list: readonly SnapshotFacts[]): void {
  for (const { lineage, sequence, repaired = 0, id } of list) {
    if (repaired === 0) continue;
    const ofLineage = snapshots.filter((it) => it.lineage === lineage);
    const newest = ofLineage.find((it) => it.id === id);
    if (newest === undefined || ofLineage.some((it) => it.sequence > sequence)) continue;
    for (const older of ofLineage) if (older !== newest) older.contentSlot = newest.slot;
  }
}

/**
 * @param slotOf, setNumber numbers that are recorded for these snapshots and sets; what has none is left out
 */
export function buildCatalogue(options: {
  since: Catalogue['since'];
  owner: Catalogue['owner'];
  usage: Catalogue['usage'];
  root: Catalogue['root'];
  snapshots: readonly SnapshotFacts[];
  slotOf: (id: string) => number | undefined;
  setNumber: (name: string) => number | undefined;
  generationOf: (id: string) => number;
}): Catalogue {
  const bySet = new Map<string, SnapshotFacts[]>();
  for (const facts of options.snapshots) {
    const list = bySet.get(facts.set);
    if (list === undefined) bySet.set(facts.set, [facts]);
    else list.push(facts);
  }
  const sets: CatalogueSet[] = [];
  const names = new Set<string>();
  for (const [set, list] of bySet) {
    const number = options.setNumber(set);
    if (number === undefined) continue;
    const snapshots: CatalogueSnapshot[] = [];
    for (const { facts, name } of nameSnapshots(list)) {
      const slot = options.slotOf(facts.id);
      if (slot === undefined) continue;
      const { id, lineage, sequence, timeSec, timeNs } = facts;
      snapshots.push({ slot, id, generation: options.generationOf(id), lineage, sequence, timeSec, timeNs, name });
    }
    if (snapshots.length === 0) continue;
    readThroughNewest(snapshots, list);
    let name = folderName(set);
    if (names.has(name)) name = `${name}#${number}`;
    names.add(name);
    const worm = list.some((facts) => facts.worm === true);
    const machines = worm ? machinesOf(list, options.slotOf) : [];
    sets.push({ number, name, worm, machines, snapshots });
  }
  sets.sort((a, b) => a.number - b.number);
  const { since, owner, usage, root } = options;
  return { since, owner, usage, root, sets };
}
