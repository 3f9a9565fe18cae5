import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { describe, expect, test } from 'vitest';
import { listedPacks, readCost, storageCost, thawCost } from '../../../src/snapshot/cold/estimate.ts';
import { BlockSet } from '../../../src/snapshot/cold/packs.ts';
import { readPriceTable } from '../../../src/snapshot/cold/prices.ts';
import { partSize, uploadRequests } from '../../../src/store/s3-parts.ts';

const GB = 1024 ** 3;
const DAY = 86_400_000;
const NOW = Date.parse('2026-11-26');
const shipped = readFileSync(join(import.meta.dirname, '../../../prices.toml'), 'utf8');
const table = readPriceTable(parse(shipped), 'prices.toml');

describe('the price table', () => {
  test('that comes with Rozen knows the classes of S3', () => {
    expect([...table.classes.keys()]).toEqual([
      'STANDARD',
      'INTELLIGENT_TIERING',
      'STANDARD_IA',
      'ONEZONE_IA',
      'GLACIER_IR',
      'GLACIER',
      'DEEP_ARCHIVE',
    ]);
    expect(table).toMatchObject({ currency: 'USD', date: '2026-05-01', transferOut: 0.09 });
    expect(Object.keys(table.classes.get('DEEP_ARCHIVE')!.thaw)).toEqual(['standard', 'bulk']);
    expect(table.classes.get('GLACIER')!.minimumDays).toBe(90);
  });

  test.each([
    ['', /classes must be a table/],
    ['name = "x"\n[classes.STANDARD]\nput = 1', /classes\.STANDARD\.storage must be given/],
    ['name = "x"\n[classes.X]\nstorage = 1', /classes\.STANDARD must be given/],
    ['[classes.STANDARD]\nstorage = -1', /STANDARD\.storage must be a number/],
    ['[classes.STANDARD]\nstorage = "1"', /STANDARD\.storage must be a number/],
    ['[classes.STANDARD]\nstorage = 1\nstroage = 1', /STANDARD\.stroage must be one of storage/],
    ['[classes.STANDARD]\nstorage = 1\n[classes.STANDARD.thaw.fast]\nhours = 1', /thaw\.fast must be one of/],
    ['[classes.STANDARD]\nstorage = 1\n[classes.STANDARD.thaw.bulk]\nretrieval = 1', /bulk\.hours must be given/],
    ['color = "red"\n[classes.STANDARD]\nstorage = 1', /the file\.color must be/],
    ['[classes.STANDARD]\nstorage = 1', /name must be a text/],
    ['name = "x"\ncurrency = "EUR"\ndate = "soon"\n[classes.STANDARD]\nstorage = 1', /date must be a day/],
  ])('refuses %j', (text, message) => {
    expect(() => readPriceTable(parse(text), 'p.toml')).toThrow(message);
    expect(() => readPriceTable(parse(text), 'p.toml')).toThrow(/^p\.toml: /);
  });
});

describe('estimates', () => {
  test('of what lies in a bucket', async () => {
    const old = NOW - 400 * DAY;
    const costs = await storageCost(
      table,
      [
        { name: 'tree/a', size: 10 * GB, modified: old },
        { name: 'data/a', size: 100 * GB, modified: old, storageClass: 'DEEP_ARCHIVE' },
        { name: 'data/b', size: 100 * GB, modified: NOW - 30 * DAY, storageClass: 'DEEP_ARCHIVE' },
        { name: 'data/c', size: 1, modified: old, storageClass: 'STANDARD_IA' },
        { name: 'data/d', size: 5, modified: old, storageClass: 'OWN_CLASS' },
      ],
      NOW,
    );
    expect(costs.map(({ storageClass }) => storageClass)).toEqual([
      'DEEP_ARCHIVE',
      'OWN_CLASS',
      'STANDARD',
      'STANDARD_IA',
    ]);
    const [deep, own, standard, rare] = costs;
    expect(standard!.perMonth).toBeCloseTo(0.23, 6);
    expect(standard!.earlyDeletion).toBe(0);
    // 32 KiB more for each object at its own price, 8 KiB at that of STANDARD.
    expect(deep!.perMonth).toBeCloseTo(0.198, 4);
    // Of 180 days, 150 are left for one of the two.
    expect(deep!.earlyDeletion).toBeCloseTo((0.099 * 150) / 30, 3);
    expect(deep!.upload).toBeCloseTo((2 * uploadRequests(100 * GB) * 0.05) / 1000, 9);
    expect(rare!.perMonth).toBeCloseTo((131072 / GB) * 0.0125, 12);
    expect(own).toMatchObject({ objects: 1, bytes: 5, perMonth: null, upload: null, earlyDeletion: null });
  });

  test('of thawing: whole packs, only what is frozen', () => {
    const pack = (gb: number, state: 'hot' | 'frozen' | 'thawing', storageClass: string) => ({
      size: gb * GB,
      state,
      storageClass,
    });
    const packs = [
      pack(1, 'hot', 'STANDARD'),
      pack(1, 'thawing', 'GLACIER'),
      pack(2, 'frozen', 'GLACIER'),
      pack(10, 'frozen', 'DEEP_ARCHIVE'),
    ];
    const standard = thawCost(table, packs, { tier: 'standard', days: 15 })!;
    expect(standard).toMatchObject({ packs: 2, bytes: 12 * GB, hours: 12 });
    expect(standard.retrieval).toBeCloseTo(2 * 0.01 + 10 * 0.02, 9);
    expect(standard.requests).toBeCloseTo((0.05 + 0.1) / 1000, 9);
    expect(standard.copies).toBeCloseTo((12 * 0.023) / 2, 9);
    expect(standard.total).toBeCloseTo(standard.retrieval + standard.requests + standard.copies, 9);
    expect(thawCost(table, packs, { tier: 'bulk', days: 1 })).toMatchObject({ hours: 48 });
    expect(thawCost(table, packs, { tier: 'expedited', days: 1 })).toBeNull();
    expect(thawCost(table, packs.slice(0, 2), { tier: 'standard', days: 1 })).toMatchObject({
      packs: 0,
      hours: 0,
      total: 0,
    });
    expect(thawCost(table, [pack(1, 'frozen', 'OWN')], { tier: 'standard', days: 1 })).toBeNull();
  });

  test('of reading', () => {
    const cost = readCost(table, [
      { bytes: 2 * GB, requests: 1000, storageClass: 'GLACIER_IR' },
      { bytes: GB, requests: 500, storageClass: null },
    ])!;
    expect(cost.retrieval).toBeCloseTo(0.06, 9);
    expect(cost.gets).toBeCloseTo(0.01 + 0.0002, 9);
    expect(cost.transfer).toBeCloseTo(0.27, 9);
    expect(cost.total).toBeCloseTo(0.06 + 0.0102 + 0.27, 9);
    expect(readCost(table, [{ bytes: 1, requests: 1, storageClass: 'OWN' }])).toBeNull();
  });

  test('of a listing take what lies in a cold class for frozen', () => {
    const listed = listedPacks([
      { name: 'data/ab/x.roz', size: 1, modified: 0, storageClass: 'GLACIER' },
      { name: 'data/ab/y.roz', size: 2, modified: 0 },
      { name: 'index/ab/x.rix', size: 3, modified: 0 },
    ]);
    expect(listed).toEqual([
      { size: 1, storageClass: 'GLACIER', state: 'frozen' },
      { size: 2, storageClass: 'STANDARD', state: 'hot' },
    ]);
  });
});

test('blocks of a pack', () => {
  const blocks = new BlockSet();
  expect([...blocks]).toEqual([]);
  for (const block of [1, 1000, 0, 1000]) blocks.add(block);
  expect([...blocks]).toEqual([0, 1, 1000]);
});

test('requests that write an object', () => {
  const MIB = 1024 ** 2;
  expect([0, 16 * MIB, 16 * MIB + 1, GB].map(uploadRequests)).toEqual([1, 1, 4, 66]);
  expect(partSize(8 * GB)).toBe(32 * MIB);
});
