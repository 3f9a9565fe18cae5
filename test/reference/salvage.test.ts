import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { textLike } from '../archive/sample.ts';
import { age, noise, Place } from '../snapshot/data/harness.ts';
import { decodeArchive, envelopeOf, salvageFiles } from './decoder.ts';

/** Archives as the pipeline writes them, read back by name with nothing but the archives, their keys and FORMAT.md. */
let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
afterEach(() => place.remove());

async function salvage(): Promise<Map<string, Buffer>> {
  const { writer, secrets } = place.repository;
  const { contentIdKey, indexKey } = secrets!;
  const archives = [];
  for (const name of place.objects('data')) {
    const bytes = new Uint8Array(readFileSync(join(place.storePath, name)));
    const archiveKey = await age.unwrapKey([place.identity], envelopeOf(bytes));
    archives.push(decodeArchive(bytes, { archiveKey, indexKey, contentKey: contentIdKey, writer: writer!.publicKey }));
  }
  const files = salvageFiles(archives, contentIdKey);
  return new Map(
    files.map(({ folder, name, content }) => [`${Buffer.from(folder)}/${Buffer.from(name)}`, Buffer.from(content)]),
  );
}

it('small and large files, holes and repeated content come back without any tree', async () => {
  const large = noise(5_000_000, 1);
  const contents: Record<string, Buffer> = {
    'a/one': textLike(1000),
    'a/two': textLike(70_000, 2),
    'b/large': large,
    'b/longer': Buffer.concat([large.subarray(0, 3_000_000), noise(700_000, 2), large.subarray(3_000_000)]),
    'c/text': textLike(900_000, 3),
  };
  const paths = Object.entries(contents).map(([name, bytes]) => place.put(name, bytes));
  const { files } = await place.store(paths);
  expect(files.every((file) => file.status === 'stored')).toBe(true);
  const found = await salvage();
  for (const [i, bytes] of Object.values(contents).entries())
    expect(found.get(paths[i]!)?.equals(bytes), paths[i]!).toBe(true);
});

it('a file that goes on in another archive is stitched together', async () => {
  const contents = [noise(3_000_000, 5), noise(3_500_000, 6), textLike(2_000_000, 7)];
  const paths = contents.map((bytes, i) => place.put(`file${i}`, bytes));
  const { archives } = await place.store(paths, { archiveSize: 2_000_000, overrun: 0 });
  expect(archives.length).toBeGreaterThan(1);
  const found = await salvage();
  for (const [i, bytes] of contents.entries()) expect(found.get(paths[i]!)?.equals(bytes), paths[i]!).toBe(true);
});
