import { randomBytes } from 'node:crypto';
import { homedir } from 'node:os';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { KIND_DATA, KIND_TREE } from '../../src/archive/format.ts';
import * as names from '../../src/repository/names.ts';
import {
  cacheHome,
  configHome,
  locationPinPath,
  repositoryCacheDir,
  repositoryStateDir,
  stateHome,
} from '../../src/repository/paths.ts';
import { isObjectName } from '../../src/store/object-store.ts';

const id = Buffer.from('000102030405060708090a0b0c0d0e0f', 'hex');
const hex = id.toString('hex');

test('names are as FORMAT-REPOSITORY.md says', () => {
  expect(names.configName(7)).toBe('config/00000007.cbor');
  expect(names.keyName(id)).toBe(`keys/${hex}.cbor`);
  expect(names.dataName(id)).toBe(`data/00/${hex}.roz`);
  expect(names.indexName(id)).toBe(`index/00/${hex}.rix`);
  expect(names.treeName(id)).toBe(`tree/00/${hex}.roz`);
  expect(names.archiveName(KIND_DATA, id)).toBe(names.dataName(id));
  expect(names.archiveName(KIND_TREE, id)).toBe(names.treeName(id));
  expect(names.snapshotName('ab'.repeat(16), 1, id)).toBe(`snapshots/${'ab'.repeat(16)}/fffffffffffffffe-${hex}.cbor`);
  for (const make of [names.keyName, names.dataName, names.treeName])
    expect(() => make(Buffer.alloc(15))).toThrow(RangeError);
});

test('parsers undo builders', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
      fc.integer({ min: 1, max: names.MAX_CONFIG_NUMBER }),
      (sequence, number) => {
        const random = randomBytes(16);
        const tag = randomBytes(16).toString('hex');
        expect(names.parseSnapshotName(names.snapshotName(tag, sequence, random))).toEqual({
          tag,
          sequence,
          id: random,
        });
        expect(names.parseConfigName(names.configName(number))).toBe(number);
        expect(names.parseKeyName(names.keyName(random))).toEqual(random);
        for (const name of [
          names.dataName(random),
          names.indexName(random),
          names.treeName(random),
          names.snapshotName(tag, sequence, random),
        ]) {
          expect(isObjectName(name)).toBe(true);
        }
        expect(names.parseArchiveName(names.dataName(random))).toEqual({ place: 'data', kind: KIND_DATA, id: random });
        expect(names.parseArchiveName(names.indexName(random))).toEqual({
          place: 'index',
          kind: KIND_DATA,
          id: random,
        });
        expect(names.parseArchiveName(names.treeName(random))).toEqual({ place: 'tree', kind: KIND_TREE, id: random });
      },
    ),
  );
});

test('newer records list first', () => {
  const sequences = [1, 2, 9, 10, 255, 256, 2 ** 32, Number.MAX_SAFE_INTEGER];
  const listed = sequences.map((sequence) => names.snapshotName('ab'.repeat(16), sequence, id)).sort();
  expect(listed.map((name) => names.parseSnapshotName(name)!.sequence)).toEqual(sequences.toReversed());
});

test('what is not quite a name is none', () => {
  const almost = [
    'config/00000000.cbor',
    'config/1.cbor',
    `keys/${hex}.cbo`,
    `keys/${hex.toUpperCase()}.cbor`,
    `data/01/${hex}.roz`,
    `data/00/${hex}.rix`,
    `index/00/${hex}.roz`,
    `snapshots/${hex}/ffffffffffffffff-${hex}.cbor`,
    `snapshots/${hex}/0000000000000000-${hex}.cbor`,
    `snapshots/${hex}/fffffffffffffffe-${hex}.cbor\n`,
  ];
  for (const name of almost) {
    for (const parse of [names.parseConfigName, names.parseKeyName, names.parseArchiveName, names.parseSnapshotName])
      expect(parse(name), name).toBeNull();
  }
});

const variables = [
  'ROZEN_STATE_DIR',
  'ROZEN_CACHE_DIR',
  'ROZEN_CONFIG_DIR',
  'XDG_STATE_HOME',
  'XDG_CACHE_HOME',
  'XDG_CONFIG_HOME',
];
const before = new Map(variables.map((name) => [name, process.env[name]]));
beforeEach(() => {
  for (const name of variables) delete process.env[name];
});
afterEach(() => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

test('places on this machine follow XDG, and ROZEN_* before it', () => {
  expect(stateHome()).toBe(`${homedir()}/.local/state/rozen`);
  expect(cacheHome()).toBe(`${homedir()}/.cache/rozen`);
  expect(configHome()).toBe(`${homedir()}/.config/rozen`);
  process.env.XDG_STATE_HOME = '/x';
  process.env.XDG_CACHE_HOME = 'relative does not count';
  process.env.XDG_CONFIG_HOME = '';
  expect(stateHome()).toBe('/x/rozen');
  expect(cacheHome()).toBe(`${homedir()}/.cache/rozen`);
  expect(configHome()).toBe(`${homedir()}/.config/rozen`);
  process.env.ROZEN_STATE_DIR = '/y';
  process.env.ROZEN_CACHE_DIR = '/z';
  expect(repositoryStateDir(id)).toBe(`/y/repositories/${hex}`);
  expect(repositoryCacheDir(id)).toBe(`/z/repositories/${hex}`);
  expect(locationPinPath('/a')).toMatch(/^\/y\/locations\/[0-9a-f]{32}\.cbor$/);
  expect(locationPinPath('/a')).not.toBe(locationPinPath('/b'));
});
