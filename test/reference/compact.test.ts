import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { unwrapKey } from '../../src/archive/crypto/age.ts';
import { EXTENT, INODE } from '../../src/archive/tree/schema.ts';
import { noise } from '../e2e/odd-tree.ts';
import { Place, rows, settle, TREES } from '../snapshot/machine.ts';
import { decodeArchive, envelopeOf, type ReferenceArchive, salvageFiles } from './decoder.ts';
import { type Objects, placeOf } from './repository.ts';

vi.setConfig({ testTimeout: 120_000 });

const { compact } = (await import(
  new URL('../../dist/snapshot/compact/compact.js', import.meta.url).href
)) as typeof import('../../src/snapshot/compact/compact.ts');

async function objectsOf(place: Place): Promise<Objects> {
  const objects: Objects = new Map();
  for (const name of await place.objects(''))
    objects.set(name, new Uint8Array(readFileSync(place.store.localPath(name))));
  return objects;
}

/** Archives that were merged, twice over, read with nothing but the documents; and salvaged by name. */
test('rows of old snapshots lead to their bytes, and records in merged streams to their files', async () => {
  const place = await Place.make();
  const contents = new Map<string, Buffer>();
  const owner = async () => {
    const repository = await place.open('owner');
    try {
      await compact({ repository, stateDir: repository.stateDir, graceMs: 0 });
    } finally {
      repository.close();
    }
  };
  const backups = async (from: number, to: number) => {
    for (let i = from; i < to; i++) {
      const length = [300_000, 262_144 - 260, 1000, 600_000 + i][i % 4]!;
      contents.set(`file ${i}`, noise(length, i + 1));
      writeFileSync(join(place.source, `file ${i}`), contents.get(`file ${i}`)!);
      await settle();
      await place.backup();
    }
  };
  await backups(0, 6);
  await owner();
  await backups(6, 16);
  await owner();
  const objects = await objectsOf(place);
  expect([...objects.keys()].filter((name) => name.startsWith('forward/'))).toHaveLength(2);

  const repository = await place.open('read');
  const { contentIdKey, indexKey } = await repository.loadSecrets();
  const identity = readFileSync(place.identityFile, 'utf8').trim();
  const archives = new Map<string, ReferenceArchive>();
  for (const [name, bytes] of objects) {
    if (!name.startsWith('data/')) continue;
    const archiveKey = await unwrapKey([identity], envelopeOf(bytes));
    const writer = repository.config.writers[0]!.publicKey;
    const decoded = decodeArchive(bytes, { archiveKey, indexKey, contentKey: contentIdKey, writer });
    archives.set(Buffer.from(decoded.id).toString('hex'), decoded);
  }
  expect(archives.size).toBe(1);

  const { reader, entries } = await place.read();
  let followed = 0;
  for (const [name, bytes] of contents) {
    const { row, inode } = entries.get(`/${name}`)!;
    const tree = { source: reader.source, schema: TREES.extents, root: reader.roots.extents };
    const version = row[INODE.version] as number;
    const parts: Buffer[] = [];
    const extents = await reader.archives.retry(() => [...rows(tree, [inode, version], [inode, version + 1])]);
    for (const extent of extents) {
      const facts = await reader.archives.facts(extent[EXTENT.row] as number);
      const { id, offset } = placeOf(objects, facts, extent[EXTENT.streamOffset] as number);
      if (id !== facts.id.toString('hex')) followed++;
      const stream = Buffer.concat(archives.get(id)!.blocks);
      parts.push(stream.subarray(offset, offset + (extent[EXTENT.length] as number)));
    }
    expect(Buffer.concat(parts).equals(bytes), name).toBe(true);
  }
  expect(followed).toBeGreaterThanOrEqual(contents.size);

  const salvaged = new Map(
    salvageFiles([...archives.values()], contentIdKey).map(({ name, content }) => [
      Buffer.from(name).toString(),
      content,
    ]),
  );
  for (const [name, bytes] of contents) expect(Buffer.from(salvaged.get(name)!).equals(bytes), name).toBe(true);
});
