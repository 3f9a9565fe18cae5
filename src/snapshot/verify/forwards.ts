/** Records of archives that were merged, and what follows from them for what is to be checked. */

import type { ArchiveFacts } from '../../cache/archives.ts';
import { RozenError } from '../../errors.ts';
import { MAX_FORWARD } from '../../repository/format.ts';
import { decodeForward, type ForwardRecord } from '../../repository/forward-record.ts';
import { type Forwarding, ForwardMap } from '../../repository/forwards.ts';
import type { Genesis } from '../../repository/genesis.ts';
import { dataName, forwardName, indexName, parseForwardName } from '../../repository/names.ts';
import type { LostRange } from './archive-check.ts';
import type { Findings } from './findings.ts';
import type { RecordCheck } from './records.ts';

/** All forward records, each signed by the root and following the one before. Needs no key. */
export async function checkForwards({ store, findings, names }: RecordCheck, genesis: Genesis): Promise<ForwardMap> {
  const map = new ForwardMap();
  const newest = Math.max(0, ...names.map((name) => parseForwardName(name) ?? 0));
  let before: ForwardRecord | null = null;
  for (let number = 1; number <= newest; number++) {
    const object = forwardName(number);
    let record: ForwardRecord | null = null;
    try {
      const bytes = await store.get(object, MAX_FORWARD);
      findings.advance(bytes.length);
      record = decodeForward(bytes, { genesis, number, what: object });
      if (before !== null && !record.previous?.equals(before.hash))
        throw new RozenError('untrusted', `does not follow ${forwardName(number - 1)}`);
      map.add(record);
    } catch (error) {
      findings.caught(error, { object });
    }
    before = record;
  }
  return map;
}

/** What of the archives that snapshots name is to be looked at: themselves, what they were merged into, or both. */
export class MergedArchives {
  /** Archives that are not there any more, by id: what holds their content. */
  readonly moved = new Map<string, Forwarding>();
  readonly #findings: Findings;
  readonly #map: ForwardMap;
  readonly #names: ReadonlySet<string>;

  constructor(findings: Findings, options: { map: ForwardMap; names: ReadonlySet<string> }) {
    this.#findings = findings;
    this.#map = options.map;
    this.#names = options.names;
  }

  /** The archives to check in the place of these. */
  resolve(named: readonly ArchiveFacts[]): ArchiveFacts[] {
    const wanted = new Map<string, ArchiveFacts>();
    const targets = new Map<string, ArchiveFacts>();
    let waiting = 0;
    for (const facts of named) {
      const id = facts.id.toString('hex');
      const forwarding = this.#map.get(facts.id);
      if (forwarding === null) {
        wanted.set(id, facts);
        continue;
      }
      const { source, target } = forwarding;
      if (!source.headerHash.equals(facts.headerHash) || !source.merkleRoot.equals(facts.merkleRoot)) {
        const message = 'a snapshot and a forward record describe it differently';
        this.#findings.add({ kind: 'untrusted', object: dataName(facts.id), message });
        continue;
      }
      targets.set(target.id.toString('hex'), target);
      if (this.#isWhole(facts.id)) {
        wanted.set(id, facts);
        waiting++;
      } else this.moved.set(id, forwarding);
    }
    const needed = new Set([...this.moved.values()].map(({ target }) => target.id.toString('hex')));
    for (const [id, target] of targets) {
      // A compaction that was killed, or goes on just now, has not put all of it: what it was made of is still there.
      if (needed.has(id) || this.#isWhole(target.id)) wanted.set(id, target);
      else if (this.#names.has(dataName(target.id)))
        this.#findings.note(
          `${dataName(target.id)}: it was merged, and has no hot index: an owner's next rozen compact, on any machine, puts it`,
        );
      else {
        // Its data is put before the record that names it.
        const message = 'gone, although a forward record leads to it; what it was merged from is still there';
        this.#findings.add({ kind: 'missing', object: dataName(target.id), message });
      }
    }
    if (waiting > 0)
      this.#findings.note(`${waiting} merged archives are still there: rozen compact removes them after a while`);
    return [...wanted.values()];
  }

  #isWhole(id: Uint8Array): boolean {
    return this.#names.has(dataName(id)) && this.#names.has(indexName(id));
  }

  /** Damage of what archives were merged into is theirs too. */
  spread(ranges: Map<string, LostRange[]>): void {
    for (const [id, { target, start, end }] of this.moved) {
      const hit = (ranges.get(target.id.toString('hex')) ?? []).filter(({ from, to }) => from < end && to > start);
      if (hit.length === 0) continue;
      const own = hit.map((range) => ({
        finding: range.finding,
        archive: id,
        from: Math.max(0, range.from - start),
        to: Math.min(range.to, end) - start,
      }));
      ranges.set(id, [...(ranges.get(id) ?? []), ...own]);
    }
  }

  /** Whether forward records know an archive, wherever its content lies now. */
  knows(id: Uint8Array): boolean {
    return this.#map.isTarget(id) || this.#map.get(id) !== null;
  }
}
