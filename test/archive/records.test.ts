import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BLOCK_SIZE, NO_RECORD } from '../../src/archive/format.ts';
import {
  contentRecord,
  contentRecordSize,
  fileEndRecord,
  fileHeaderRecord,
  LinkIds,
  MAX_TALLY,
  padRecord,
  parseRecords,
  RecordParser,
} from '../../src/archive/records.ts';
import type { RozenError } from '../../src/errors.ts';
import { cutBlocks, makeStream, type SampleFile, textLike } from './sample.ts';

const contentKey = randomBytes(32);

const file: fc.Arbitrary<SampleFile> = fc.record({
  folder: fc.constantFrom('', 'a', 'a/b', 'ä'.repeat(40)),
  name: fc.string({ minLength: 1, maxLength: 30 }),
  chunks: fc
    .array(fc.tuple(fc.integer({ min: 1, max: 300_000 }), fc.nat()), { maxLength: 3 })
    .map((list) => list.map(([length, seed]) => textLike(length, seed))),
});

describe('records', () => {
  it('come back from a stream as they were written', () => {
    fc.assert(
      fc.property(fc.array(file, { maxLength: 6 }), (files) => {
        const stream = makeStream(files, contentKey);
        const events = [...parseRecords(stream.blocks, { content: true })];
        const found = events.filter((event) => event.event === 'file');
        expect(found.map((event) => `${event.folder}/${event.name}`)).toEqual(
          files.map((each) => `${each.folder}/${each.name}`),
        );
        const chunks = events.filter((event) => event.event === 'chunk');
        expect(chunks.map(({ id, ordinal, offset, length }) => ({ id, ordinal, offset, length }))).toEqual(
          stream.chunks,
        );
        for (const chunk of chunks) {
          expect(chunk.bytes!.equals(stream.bytes.subarray(chunk.offset, chunk.offset + chunk.length))).toBe(true);
        }
        const ends = events.filter((event) => event.event === 'end');
        expect(ends.length).toBe(files.length);
        for (const [i, end] of ends.entries()) {
          const { chunks: own } = files[i]!;
          expect(end.link.equals(found[i]!.link)).toBe(true);
          expect(end.chunks.length).toBe(own.length > 1 ? own.length : 0);
          expect(end.contentId !== null).toBe(own.length > 1);
        }
        expect(events.some((event) => event.event === 'torn')).toBe(false);
      }),
      { numRuns: 40 },
    );
  });

  it('survive lost blocks: only right chunks are told, and all that lie away from the loss', () => {
    fc.assert(
      fc.property(
        fc.array(file, { minLength: 3, maxLength: 8 }),
        fc.array(fc.boolean(), { minLength: 30, maxLength: 30 }),
        (files, keep) => {
          const stream = makeStream(files, contentKey);
          const kept = stream.blocks.filter((_, i) => keep[i % keep.length]);
          const events = [...parseRecords(kept, { content: true })];
          const found = new Set<number>();
          for (const event of events) {
            if (event.event !== 'chunk') continue;
            found.add(event.offset);
            expect(event.bytes!.equals(stream.bytes.subarray(event.offset, event.offset + event.length))).toBe(true);
          }
          const isKept = (from: number, to: number) => {
            for (let n = Math.floor(from / BLOCK_SIZE); n <= Math.floor((to - 1) / BLOCK_SIZE); n++) {
              if (!keep[n % keep.length]) return false;
            }
            return true;
          };
          for (const chunk of stream.chunks) {
            if (isKept(chunk.offset - contentRecordSize(1), chunk.offset + chunk.length))
              expect(found.has(chunk.offset)).toBe(true);
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('that a crash tore are told, and what follows in a new block is read', () => {
    const link = new LinkIds().next();
    const first = textLike(BLOCK_SIZE - 300);
    const second = textLike(BLOCK_SIZE, 4);
    const entries = [first, second].map((content) => ({ id: randomBytes(32), ordinal: 3, length: content.length }));
    const record = Buffer.concat([contentRecord(link, entries), first, second]);
    // Only the first block was sealed before the crash.
    const next = fileHeaderRecord({ link, size: 5, folder: Buffer.from('f'), name: Buffer.from('n') });
    const events = [
      ...parseRecords([
        { offset: 0, bytes: record.subarray(0, BLOCK_SIZE), firstRecord: 0 },
        { offset: BLOCK_SIZE, bytes: next, firstRecord: 0 },
      ]),
    ];
    expect(events.map((event) => event.event)).toEqual(['chunk', 'torn', 'file']);
    expect(events[0]).toMatchObject({ ordinal: 3, length: first.length, offset: contentRecordSize(2) });
    expect(events[1]).toEqual({ event: 'torn', offset: 0, type: 'FCNT' });
  });

  it('of a type that is not known are skipped', () => {
    const unknown = Buffer.alloc(12 + 5 + 7);
    unknown.write('NEW_');
    unknown.writeUInt32LE(5, 4);
    unknown.writeUInt32LE(7, 8);
    const link = new LinkIds().next();
    const header = fileHeaderRecord({ link, size: 0, folder: Buffer.alloc(0), name: Buffer.from('x') });
    const bytes = Buffer.concat([unknown, header]);
    expect([...parseRecords(cutBlocks(bytes, [0, unknown.length]))].map((event) => event.event)).toEqual(['file']);
  });

  it('keep only the end of a folder that is too long', () => {
    const folder = Buffer.alloc(70_000, 'abcde/');
    const bytes = fileHeaderRecord({ link: new LinkIds().next(), size: 0, folder, name: Buffer.from('x') });
    const [event] = [...parseRecords(cutBlocks(bytes, [0]))];
    expect(event).toMatchObject({ event: 'file', folder: folder.subarray(70_000 - 65_535) });
  });

  it('list any number of chunks in several tallies', () => {
    const link = new LinkIds().next();
    const id = randomBytes(32);
    const chunks = Array.from({ length: MAX_TALLY + 3 }, (_, i) => ({ id, ordinal: 0, length: i + 1 }));
    const bytes = fileEndRecord({ link, size: 77, chunks, contentId: randomBytes(32) });
    const second = bytes.indexOf('FEND', 4);
    const events = [...parseRecords(cutBlocks(bytes, [0, second]))];
    expect(events.map((event) => event.event)).toEqual(['end', 'end']);
    expect(events[0]).toMatchObject({ first: 0, more: true, contentId: null });
    expect(events[1]).toMatchObject({ first: MAX_TALLY, more: false, size: 77 });
    expect(events[1]).toMatchObject({
      chunks: [{ length: MAX_TALLY + 1 }, { length: MAX_TALLY + 2 }, { length: MAX_TALLY + 3 }],
    });
  });

  it('never crash on noise', () => {
    const noise = fc.tuple(
      fc.constantFrom('FHDR', 'FCNT', 'FEND', 'PAD_', 'XXXX', ''),
      fc.uint8Array({ maxLength: 200 }),
      fc.nat(250),
    );
    fc.assert(
      fc.property(fc.array(noise, { maxLength: 5 }), fc.boolean(), (blocks, gaps) => {
        const parser = new RecordParser({ content: true });
        let offset = 0;
        for (const [type, bytes, at] of blocks) {
          const block = Buffer.concat([Buffer.from(type), bytes]);
          try {
            parser.push({ offset, bytes: block, firstRecord: at > 220 ? NO_RECORD : at });
          } catch (error) {
            expect((error as RozenError).code).toBe('corrupt');
          }
          offset += block.length + (gaps ? 10 : 0);
        }
        parser.end();
      }),
      { numRuns: 500 },
    );
  });
});

describe('padding', () => {
  it('puts content at a block boundary', () => {
    fc.assert(
      fc.property(fc.nat(5 * BLOCK_SIZE), fc.nat(200), (offset, following) => {
        const pad = padRecord(offset, following);
        expect((offset + pad.length + following) % BLOCK_SIZE).toBe(0);
        expect(pad.length).toBeLessThan(BLOCK_SIZE + 12);
        if (pad.length > 0) {
          expect(pad.length).toBeGreaterThanOrEqual(12);
          expect(pad.readUInt32LE(8)).toBe(pad.length - 12);
        }
      }),
    );
  });
});
