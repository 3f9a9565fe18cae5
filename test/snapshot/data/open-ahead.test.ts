import { closeSync, fstatSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { OpenAhead } from '../../../src/snapshot/data/open-ahead.ts';

const folder = mkdtempSync(join(tmpdir(), 'rozen-open-ahead-'));
afterAll(() => rmSync(folder, { recursive: true }));
const COUNT = 100;
const path = (file: number): Buffer => Buffer.from(join(folder, `file ${file}`));
for (let file = 0; file < COUNT; file++) if (file % 10 !== 7) writeFileSync(path(file), `content ${file}`);

const openFiles = (): number => readdirSync('/proc/self/fd').length;

test('each file is given in its turn, what cannot be opened says so in its own, and few are open at once', () => {
  const before = openFiles();
  const ahead = new OpenAhead(COUNT, path);
  let most = 0;
  for (let file = 0; file < COUNT; file++) {
    if (file % 10 === 7) {
      expect(() => ahead.take(file), `${file}`).toThrow('ENOENT');
      continue;
    }
    const fd = ahead.take(file);
    most = Math.max(most, openFiles() - before);
    expect(readFileSync(fd, 'utf8')).toBe(`content ${file}`);
    closeSync(fd);
  }
  ahead.close();
  expect(most).toBeGreaterThan(8);
  expect(most).toBeLessThanOrEqual(17);
  expect(openFiles()).toBe(before);
});

test('whoever stops in the middle leaves no file open', () => {
  const before = openFiles();
  const ahead = new OpenAhead(COUNT, path);
  const fd = ahead.take(0);
  ahead.close();
  expect(openFiles()).toBe(before + 1);
  // What was taken is the caller's.
  expect(fstatSync(fd).isFile()).toBe(true);
  closeSync(fd);
});
