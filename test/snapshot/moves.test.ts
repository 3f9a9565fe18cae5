/** What moved is not read, as docs/BACKUP.md says: how far a change can hide behind a move. */
import { mkdirSync, mkdtempSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { MemoryLineage } from './memory-lineage.ts';

const dir = mkdtempSync(join(tmpdir(), 'rozen-moves-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** Other content of the same size under the same mtime. */
function hide(path: string): void {
  const { atime, mtime } = statSync(path);
  writeFileSync(path, 'B');
  utimesSync(path, atime, mtime);
}

test('a changed file whose mtime was set back is believed where it moved itself, not below a folder that did', () => {
  const at = (name: string): string => join(dir, name);
  mkdirSync(at('folder'));
  for (const name of ['stays', 'moves', 'folder/below']) {
    writeFileSync(at(name), 'A');
    // Whole seconds: what `utimes` can set again.
    utimesSync(at(name), 1_600_000_000, 1_600_000_000);
  }
  const lineage = new MemoryLineage();
  lineage.run([dir]);
  for (const name of ['stays', 'moves', 'folder/below']) hide(at(name));
  renameSync(at('moves'), at('moved'));
  renameSync(at('folder'), at('moved folder'));
  const run = lineage.run([dir]);
  expect(run.reading).toEqual(['/stays', '/moved folder/below']);
  expect(run.classes.moved).toEqual(['/moved', '/moved folder']);
  const now = new Date();
  utimesSync(at('moved'), now, now);
  expect(lineage.run([dir]).reading).toEqual(['/moved']);
});
