import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { CONTROL } from '../../../src/fs/kernel/channel.ts';
import { Tiering } from '../../../src/fs/kernel/tiering.ts';

const known = process.versions.v8.startsWith('11.3.');

function many(tiering: Tiering, count: number, streaming: boolean): void {
  for (let i = 0; i < count; i++) tiering.note(streaming);
}

test.skipIf(!known)('a stream begins after some reads in order, and ends when other things are asked for', () => {
  const control = new Int32Array(new SharedArrayBuffer(64));
  const [first, second] = [new Tiering(control), new Tiering(control)];
  many(first, 15, true);
  expect(control[CONTROL.STREAMING]).toBe(0);
  many(first, 1, true);
  expect(control[CONTROL.STREAMING]).toBe(1);
  // Between its reads others ask, too.
  for (let i = 0; i < 100; i++) {
    many(first, 10, false);
    many(first, 1, true);
  }
  expect(control[CONTROL.STREAMING]).toBe(1);
  many(second, 256, false);
  expect(control[CONTROL.STREAMING]).toBe(0);
  many(second, 16, true);
  expect(control[CONTROL.STREAMING]).toBe(1);
  many(second, 256, false);
  expect(control[CONTROL.STREAMING]).toBe(0);
});

test.skipIf(!known)('the measure that is put back is V8’s own', () => {
  const options = execFileSync(process.execPath, ['--v8-options'], { encoding: 'utf8' });
  const own = /--interrupt-budget \([^)]*\)\s+type: int\s+default: (?:--interrupt-budget=)?(\d+)/.exec(options);
  expect(Number(own?.[1])).toBe(66 * 1024);
  const code = `
    const { Tiering } = await import(${JSON.stringify(fileURLToPath(new URL('../../../dist/fs/kernel/tiering.js', import.meta.url)))});
    const tiering = new Tiering(new Int32Array(new SharedArrayBuffer(64)));
    for (let i = 0; i < 16; i++) tiering.note(true);
    for (let i = 0; i < 256; i++) tiering.note(false);
    console.log('fine');`;
  expect(execFileSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' })).toBe('fine\n');
});
