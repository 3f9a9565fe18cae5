/** Folders that something else replaces after the walk has met them, and before it enters them. */
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, test } from 'vitest';
import { MemoryLineage } from './memory-lineage.ts';
import { TestFolders } from './test-folders.ts';

const folders = new TestFolders('swapped');

let dir: string;
let lineage: MemoryLineage;
beforeEach(() => {
  dir = folders.make();
  lineage = new MemoryLineage();
});
const write = (name: string): void => writeFileSync(join(dir, name), name);

describe('a folder that is swapped while the rest is walked', () => {
  const outside = (): string => {
    const folder = folders.free();
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
      renameSync(join(dir, name), folders.free());
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
        renameSync(join(dir, 'x'), folders.free());
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
        renameSync(join(dir, 'real/source/below'), folders.free());
        mkdirSync(join(dir, 'real/source/below'));
        write('real/source/below/other');
      },
    });
    expect(run.problems).toEqual([]);
    expect([...lineage.paths().keys()]).toEqual(['/below', '/below/other']);
  });
});
