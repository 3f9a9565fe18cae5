/** Folders that something else replaces after the walk has met them, and before it enters them. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { MemoryLineage } from './memory-lineage.ts';

const root = mkdtempSync(join(tmpdir(), 'rozen-swapped-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let count = 0;
let dir: string;
let lineage: MemoryLineage;
beforeEach(() => {
  dir = join(root, String(count++));
  mkdirSync(dir);
  lineage = new MemoryLineage();
});
const write = (name: string): void => writeFileSync(join(dir, name), name);

describe('a folder that is swapped while the rest is walked', () => {
  const outside = (): string => {
    const folder = join(root, `outside ${count}`);
    mkdirSync(join(folder, 'b'), { recursive: true });
    writeFileSync(join(folder, 'b', 'secret'), 'secret');
    return folder;
  };

  test('for a symlink is not entered through it, nor what is below', () => {
    for (const name of ['x/b', 'y/a/b']) {
      mkdirSync(join(dir, name), { recursive: true });
      write(`${name}/file`);
    }
    const link = outside();
    const swap = (name: string): void => {
      renameSync(join(dir, name), join(root, `aside ${count++}`));
      symlinkSync(link, join(dir, name));
    };
    const run = lineage.run([dir], { meanwhile: () => swap('x') });
    expect(run.problems).toEqual(['unreadable /x']);
    expect([...lineage.paths().keys()]).toEqual(['/x', '/y', '/y/a', '/y/a/b', '/y/a/b/file']);
    const single = new MemoryLineage();
    const below = single.run([join(dir, 'y')], { meanwhile: () => swap('y/a') });
    expect(below.problems).toEqual(['unreadable /a']);
    expect([...single.paths().keys()]).toEqual(['/a']);
  });

  test('for another folder is that one', () => {
    mkdirSync(join(dir, 'x'));
    write('x/file');
    const other = outside();
    const run = lineage.run([dir], {
      meanwhile: () => {
        renameSync(join(dir, 'x'), join(root, `aside ${count++}`));
        renameSync(other, join(dir, 'x'));
      },
    });
    expect(run.problems).toEqual([]);
    expect([...lineage.paths().keys()]).toEqual(['/x', '/x/b', '/x/b/secret']);
  });

  test('above the source counts for nothing', () => {
    mkdirSync(join(dir, 'real/source/below'), { recursive: true });
    write('real/source/below/file');
    symlinkSync('real', join(dir, 'link'));
    const run = lineage.run([join(dir, 'link/source')], {
      meanwhile: () => {
        renameSync(join(dir, 'real/source/below'), join(root, `aside ${count++}`));
        mkdirSync(join(dir, 'real/source/below'));
        write('real/source/below/other');
      },
    });
    expect(run.problems).toEqual([]);
    expect([...lineage.paths().keys()]).toEqual(['/below', '/below/other']);
  });
});
