import { expect, test } from 'vitest';
import { decodeBlockTable, encodeBlockTable } from '../../src/archive/block-table.ts';
import { BLOCK_SIZE, FRAME_OVERHEAD } from '../../src/archive/format.ts';
import { maxFrameLength } from '../../src/archive/frame.ts';

const BEGIN = 500;

function table(...lengths: number[]): Buffer {
  const offsets = lengths.map((_, i) => BEGIN + lengths.slice(0, i).reduce((sum, length) => sum + length, 0));
  return encodeBlockTable({ begin: BEGIN, streamLength: lengths.length * BLOCK_SIZE, offsets, lengths });
}

test('a block is as long as a DATA frame can be, and no longer: somebody will ask for as many bytes', () => {
  const longest = maxFrameLength('DATA');
  const options = { begin: BEGIN, end: 2 ** 33, hasStream: true };
  const { lengths, offsets } = decodeBlockTable(table(FRAME_OVERHEAD, longest), options);
  expect([[...lengths], [...offsets]]).toEqual([
    [FRAME_OVERHEAD, longest],
    [BEGIN, BEGIN + FRAME_OVERHEAD],
  ]);
  for (const wrong of [longest + 1, 2 ** 32 - 1, FRAME_OVERHEAD - 1, 0])
    expect(() => decodeBlockTable(table(longest, wrong), options), `${wrong}`).toThrow(`block 1 has ${wrong} bytes`);
});
