import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KIND_DATA } from '../../src/archive/format.ts';
import { buildHeader, parseHeader } from '../../src/archive/header.ts';
import type { ArchiveFacts } from '../../src/cache/archives.ts';
import { indexName } from '../../src/repository/names.ts';
import type { Repository } from '../../src/repository/repository.ts';
import { planMerges, smallArchives } from '../../src/snapshot/compact/plan.ts';
import { plainArchives } from '../../src/snapshot/compact/survey.ts';
import { LocalStore } from '../../src/store/local.ts';
import { temporaryFolder } from '../repository/place.ts';

const archive = (size: number, more: Partial<ArchiveFacts> = {}): ArchiveFacts => ({
  kind: KIND_DATA,
  id: randomBytes(16),
  size,
  headerHash: randomBytes(32),
  merkleRoot: randomBytes(32),
  envelope: Buffer.from('an envelope'),
  ...more,
});
const sizes = (list: readonly ArchiveFacts[]) => list.map(({ size }) => size);

test('full archives in order, then what is worth it', () => {
  const plan = (list: number[], goal = 100) => {
    const { merges, kept } = planMerges(
      list.map((size) => archive(size)),
      goal,
    );
    return { merges: merges.map(sizes), kept: sizes(kept) };
  };
  expect(plan([])).toEqual({ merges: [], kept: [] });
  expect(plan([10])).toEqual({ merges: [], kept: [10] });
  expect(plan([40, 40, 40, 1])).toEqual({ merges: [[40, 40, 40]], kept: [1] });
  expect(plan([40, 1, 2, 3, 4])).toEqual({ merges: [[1, 2, 3, 4]], kept: [40] });
  expect(plan([10, 10])).toEqual({ merges: [[10, 10]], kept: [] });
  expect(plan([10, 9])).toEqual({ merges: [], kept: [10, 9] });
});

test('nothing is lost, and no byte is written more often than sizes can double', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 60 }), (added) => {
      const goal = 128;
      let all: { facts: ArchiveFacts; rewritten: number }[] = [];
      // One backup and one compaction after the other.
      for (const size of added) {
        all.push({ facts: archive(size), rewritten: 0 });
        const small = all.filter(({ facts }) => facts.size < goal / 2);
        const { merges, kept } = planMerges(
          small.map(({ facts }) => facts),
          goal,
        );
        expect([...merges.flat(), ...kept].length).toBe(small.length);
        for (const merge of merges) {
          expect(merge.length).toBeGreaterThan(1);
          const gone = all.filter(({ facts }) => merge.includes(facts));
          all = all.filter(({ facts }) => !merge.includes(facts));
          const sum = sizes(merge).reduce((a, b) => a + b, 0);
          expect(sum).toBeLessThan(goal * 1.5);
          all.push({ facts: archive(sum), rewritten: 1 + Math.max(...gone.map((it) => it.rewritten)) });
        }
      }
      expect(all.reduce((sum, { facts }) => sum + facts.size, 0)).toBe(added.reduce((a, b) => a + b, 0));
      for (const { rewritten } of all) expect(rewritten).toBeLessThanOrEqual(Math.log2(goal) + 1);
    }),
  );
});

test('only what can be read at once, is as it should be and was never merged', () => {
  const list = Array.from({ length: 7 }, () => archive(10));
  const named = new Map(list.map((facts) => [facts.id.toString('hex'), facts]));
  const info = (facts: ArchiveFacts, more = {}) => ({ name: 'x', size: facts.size, modified: 0, ...more });
  const data = new Map(list.map((facts) => [facts.id.toString('hex'), info(facts)]));
  const index = new Map(data);
  const key = (i: number) => list[i]!.id.toString('hex');
  data.delete(key(1));
  index.delete(key(2));
  data.set(key(3), info(list[3]!, { size: 11 }));
  data.set(key(4), info(list[4]!, { storageClass: 'GLACIER' }));
  data.set(key(5), info(list[5]!, { storageClass: 'STANDARD' }));
  const forwards = { known: (id: Uint8Array) => (list[6]!.id.equals(id) ? ({} as never) : null) };
  expect(smallArchives(named, { data, index }, { goal: 100, forwards })).toEqual([list[0], list[5]]);
  expect(smallArchives(named, { data, index }, { goal: 20, forwards })).toEqual([]);
});

test('what has a flag of its own stays what it is', async () => {
  const store = new LocalStore(join(temporaryFolder(), 'store'));
  await store.prepare();
  const list: ArchiveFacts[] = [];
  const index = new Map();
  for (const flags of [
    { incompatible: 0, readCompatible: 0, compatible: 0 },
    { incompatible: 0, readCompatible: 0, compatible: 1 },
    { incompatible: 0, readCompatible: 4, compatible: 0 },
    { incompatible: 8, readCompatible: 0, compatible: 0 },
  ]) {
    const id = randomBytes(16);
    // Longer than what is read at first.
    const envelope = randomBytes(20_000);
    const frame = buildHeader({
      id,
      kind: KIND_DATA,
      repositoryId: randomBytes(16),
      envelope,
      key: randomBytes(32),
      flags,
    });
    const headerHash = flags.incompatible === 0 ? parseHeader(frame).headerHash : randomBytes(32);
    list.push(archive(10, { id, headerHash }));
    const bytes = Buffer.concat([frame, randomBytes(1000)]);
    await store.put(indexName(id), bytes);
    index.set(id.toString('hex'), { name: indexName(id), size: bytes.length, modified: 0 });
  }
  const found = await plainArchives({ store } as unknown as Repository, list, { data: new Map(), index });
  expect(found).toEqual([list[0]]);
});
