import { chmodSync, readFileSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { describeFile, noise, Place } from './harness.ts';

let place: Place;
beforeEach(async () => {
  place = await Place.make();
});
afterEach(() => place.remove());

describe('DedupIndex', () => {
  it('forgets archives that vanished from the store, and their chunks are stored again', async () => {
    const path = place.put('a', noise(500_000, 1));
    await place.store([path]);
    for (const name of [...place.objects('index'), ...place.objects('data')]) unlinkSync(join(place.storePath, name));
    const again = await place.store([path]);
    expect(again.archives).toHaveLength(1);
    expect(again.files[0]!.newBytes).toBe(500_000);
    expect(again.archives[0]!.number).toBe(2);
  });

  it('ignores index objects that are damaged or forged, and names them', async () => {
    const path = place.put('a', noise(500_000, 1));
    await place.store([path]);
    const [name] = place.objects('index');
    const object = join(place.storePath, name!);
    const good = readFileSync(object);
    chmodSync(object, 0o600);
    // Every region: header, chunk table, block table, trailer with its signature.
    for (let at = 5; at < good.length; at += Math.ceil(good.length / 40)) {
      const bad = Buffer.from(good);
      bad[at] = bad[at]! ^ 1;
      writeFileSync(object, bad);
      const index = await place.openIndex(`index-${at}`);
      const { added, ignored } = await index.sync();
      // The block table is not read here; everything else must be noticed.
      if (added === 0) expect(ignored[0]!.name).toBe(name);
      else expect(index.numberOf(Buffer.from(name!.slice(9, 41), 'hex'))).toBe(1);
      await index.close();
    }
    writeFileSync(object, good.subarray(0, good.length - 1));
    const index = await place.openIndex('index-short');
    expect((await index.sync()).ignored).toHaveLength(1);
    await index.close();
  });

  it('does not believe a writer who is not enrolled', async () => {
    const path = place.put('a', noise(500_000, 1));
    await place.store([path]);
    const stranger = await Place.make();
    const theirs = stranger.put('b', noise(400_000, 2));
    await stranger.store([theirs]);
    const [name] = stranger.objects('index');
    for (const object of [...stranger.objects('data'), name!])
      await place.repository.store.put(object, readFileSync(join(stranger.storePath, object)));
    const index = await place.openIndex('fresh');
    const result = await index.sync();
    expect(result.added).toBe(1);
    expect(result.ignored).toHaveLength(1);
    expect(result.ignored[0]!.error.code).toBe('untrusted');
    await index.close();
    stranger.remove();
  });

  it('keeps its files private and can be read by another process', async () => {
    await place.store([place.put('a', noise(200_000, 1))]);
    expect(statSync(join(place.root, 'dedup')).mode & 0o777).toBe(0o700);
    expect(statSync(join(place.root, 'dedup', 'data.mdb')).mode & 0o777).toBe(0o600);
    const index = await place.openIndex();
    const { id } = index.archive(1)!;
    expect(index.numberOf(id)).toBe(1);
    expect(index.archive(99)).toBeUndefined();
    const writer = await place.openWriter(index);
    expect((await writer.add(describeFile(join(place.source, 'a')))).newBytes).toBe(0);
    await writer.finish();
    await index.close();
  });
});
