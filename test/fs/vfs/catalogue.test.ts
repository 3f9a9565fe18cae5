import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Board, COUNT, createBoardMemory } from '../../../src/fs/vfs/board.ts';
import { buildCatalogue, folderName, type SnapshotFacts, timeName } from '../../../src/fs/vfs/catalogue.ts';
import { generationOf } from '../../../src/fs/vfs/nodes.ts';
import { SlotTable } from '../../../src/fs/vfs/slot-table.ts';
import { ErrorLog, renderStatus } from '../../../src/fs/vfs/status.ts';

const folder = mkdtempSync(join(tmpdir(), 'rozen-catalogue-'));
afterAll(() => rmSync(folder, { recursive: true }));

const id = (n: number) => n.toString(16).padStart(32, '0');

function facts(n: number, more: Partial<SnapshotFacts>): SnapshotFacts {
  return { id: id(n), set: 'photos', lineage: 'a'.repeat(32), sequence: n, timeSec: 1_800_000_000, timeNs: 0, ...more };
}

function build(snapshots: SnapshotFacts[]) {
  return buildCatalogue({
    since: { sec: 0, ns: 0 },
    owner: { uid: 0, gid: 0 },
    usage: { bytes: 0, files: 0 },
    root: null,
    snapshots,
    slotOf: (snapshotId) => Number.parseInt(snapshotId, 16),
    setNumber: (name) => name.length,
    generationOf,
  });
}

describe('names of snapshots', () => {
  it('are their times, without colons', () => {
    expect(timeName(1_795_416_603)).toBe('2026-11-23T06.50.03Z');
    expect(timeName(-1)).toBe('1969-12-31T23.59.59Z');
    expect(timeName(2 ** 50)).toBe('@1125899906842624');
  });

  it('get a number when they share a second, in the order of their exact times', () => {
    const catalogue = build([
      facts(3, { timeNs: 700 }),
      facts(1, { timeNs: 5 }),
      facts(2, { timeNs: 600 }),
      facts(4, { timeSec: 1_800_000_001 }),
    ]);
    expect(catalogue.sets[0]!.snapshots.map(({ slot, name }) => [slot, name])).toEqual([
      [1, '2027-01-15T08.00.00Z'],
      [2, '2027-01-15T08.00.00Z-2'],
      [3, '2027-01-15T08.00.00Z-3'],
      [4, '2027-01-15T08.00.01Z'],
    ]);
  });

  it('follow each other in a lineage, whatever the clock said: the last is the latest', () => {
    const other = 'b'.repeat(32);
    const [set] = build([
      facts(1, { timeSec: 100 }),
      facts(2, { timeSec: 10_000 }),
      facts(3, { timeSec: 300 }),
      facts(4, { timeSec: 200, lineage: other, sequence: 1 }),
      facts(5, { timeSec: 400, lineage: other, sequence: 2, worm: true, host: 'there' }),
    ]).sets;
    expect(set!.snapshots.map(({ slot }) => slot)).toEqual([1, 4, 2, 3, 5]);
    expect(set!.snapshots[2]!.name).toBe(timeName(10_000));
    expect(set!.machines.map(({ slot }) => slot)).toEqual([3, 5]);
  });

  it('keep sets apart whose names a folder cannot tell apart, and hold all lineages of a set', () => {
    const catalogue = build([
      facts(1, { set: 'a/b' }),
      facts(2, { set: 'a_b', timeSec: 1 }),
      facts(3, { set: 'x', lineage: 'b'.repeat(32), timeSec: 5 }),
      facts(4, { set: 'x', lineage: 'c'.repeat(32), timeSec: 6 }),
    ]);
    expect(catalogue.sets.find((set) => set.name === 'x')!.snapshots.map(({ slot }) => slot)).toEqual([3, 4]);
    expect(catalogue.sets.map((set) => set.name).sort()).toEqual(['a_b', 'a_b#3', 'x']);
    expect(folderName('..')).toBe('_..');
    expect(folderName('é'.repeat(127))).toBe('é'.repeat(120));
  });
});

describe('the table of slots', () => {
  it('gives numbers once and for good', async () => {
    const path = join(folder, 'state', 'slots');
    const table = new SlotTable(path);
    await table.assign({ snapshots: [id(5), id(6)], sets: ['photos'] });
    expect([table.slotOf(id(5)), table.slotOf(id(6)), table.setNumber('photos')]).toEqual([1, 2, 0]);
    const again = new SlotTable(path);
    await again.assign({ snapshots: [id(7), id(6), id(5)], sets: ['"odd"\n', 'photos'] });
    expect([id(5), id(6), id(7)].map((snapshot) => again.slotOf(snapshot))).toEqual([1, 2, 3]);
    expect(again.setNumber('"odd"\n')).toBe(1);
    // The first table learns what the second has written before it gives out numbers of its own.
    await table.assign({ snapshots: [id(8)], sets: [] });
    expect([table.slotOf(id(7)), table.slotOf(id(8))]).toEqual([3, 4]);
  });

  it('skips a torn line and lines that make no sense', async () => {
    const path = join(folder, 'torn');
    writeFileSync(
      path,
      `snapshot 1 ${id(1)}\nset 0 "a"\nset 1 broken\nsnapshot 1 ${id(9)}\nnonsense\nsnapshot 2 ${id(2).slice(4)}`,
    );
    const table = new SlotTable(path);
    await table.assign({ snapshots: [id(3)], sets: [] });
    expect([table.slotOf(id(1)), table.slotOf(id(9)), table.slotOf(id(2)), table.slotOf(id(3))]).toEqual([
      1,
      undefined,
      undefined,
      2,
    ]);
    expect(new SlotTable(path).slotOf(id(3))).toBe(2);
    expect(readFileSync(path, 'utf8').endsWith(`\nsnapshot 2 ${id(3)}\n`)).toBe(true);
  });
});

describe('the status', () => {
  it('shows the same error once a minute at most, with its count', () => {
    let now = 1_800_000_000_000;
    const log = new ErrorLog(() => now);
    expect(log.add('block 7 is damaged')).toBe(true);
    now += 30_000;
    expect(log.add('block 7 is damaged')).toBe(false);
    expect(log.add('another')).toBe(true);
    now += 31_000;
    expect(log.add('block 7 is damaged')).toBe(true);
    expect(log.lines.map(({ message, count }) => [message, count])).toEqual([
      ['another', 1],
      ['block 7 is damaged', 3],
    ]);
    const facts = { location: '/r', fingerprint: 'f', readers: 2, archives: 1, log: log.lines };
    const blocks = { decodes: 10, ahead: 4, hits: 6, waits: 0, evictions: 0, failures: 1, bypasses: 0 };
    const read = {
      requests: 1,
      bytesRead: 2,
      partsDecoded: 3,
      partsShared: 1,
      partsFailed: 2,
      pagesDecoded: 3,
      framesRead: 4,
      sealedBytes: 5,
      misses: 6,
    };
    const fetched = { fetchedFrames: 1, storeRequests: 7, requestsAhead: 2, fetchedBytes: 900, failedRequests: 1 };
    const counts = { ...read, ...fetched, cacheHits: 3, cacheBytes: 4096 };
    const slots = { slots: 8, slotSize: 262144 };
    const text = renderStatus(facts, { since: 0, sets: 1, snapshots: 2, slots, blocks, ...counts });
    expect(text).toContain('block hit rate     50.0 %');
    expect(text).toMatch(/^blocks failed +3$/m);
    expect(text).toMatch(/^fingerprint +f$/m);
    expect(text).toMatch(/^snapshots +2 in 1 set$/m);
    expect(text).toContain('errors             4\n');
    expect(text).toContain('block 7 is damaged (3 times since 2027-01-15T08:00:00.000Z)');
    expect(text).not.toMatch(/^cache/m);
    const remote = { ...facts, cache: { folder: '/c', budget: 8192 } };
    const more = renderStatus(remote, { since: 0, sets: 1, snapshots: 2, slots, blocks, ...counts });
    expect(more).toMatch(/^cache +4096 of 8192 bytes in \/c$/m);
    expect(more).toMatch(/^cache hit rate +75.0 %$/m);
    expect(more).toMatch(/^store requests +7 \(2 ahead\), 900 bytes$/m);
    expect(more).toMatch(/^requests failed +1$/m);
  });

  it('keeps the last texts for whichever thread reads them', () => {
    const memory = createBoardMemory();
    const [one, two] = [new Board(memory, 0), new Board(memory, 1)];
    const first = one.keepText('first');
    expect(two.text(first.serial)?.toString()).toBe('first');
    for (let i = 0; i < 16; i++) two.keepText(`later ${i}`);
    expect(one.text(first.serial)).toBeNull();
    one.count(COUNT.requests);
    two.count(COUNT.requests, 2);
    expect(one.total(COUNT.requests)).toBe(3);
    const epoch = two.epoch;
    one.advance();
    expect(two.epoch).toBe(epoch + 1);
  });
});
