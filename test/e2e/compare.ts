import { spawnSync } from 'node:child_process';

function lines(command: string[]): string[] {
  const result = spawnSync(command[0]!, command.slice(1), {
    encoding: 'latin1',
    maxBuffer: 1 << 30,
    env: { ...process.env, LC_ALL: 'C', TZ: 'UTC' },
  });
  if (result.error) throw result.error;
  const text = result.stdout + (result.stderr ?? '');
  return text.split('\n').filter((line) => line !== '');
}

export interface CompareOptions {
  /**
   * Compare the sizes of folders too: right for a mount, which shows what the source's file system said; not for a
   * restored copy, whose file system sizes its folders itself.
   */
  folderSizes: boolean;
  /** Put before each program, to run it as another user. */
  prefix?: readonly string[];
}

/**
 * What differs between two folders as three independent programs see it: `diff`, `rsync` and `find`. Empty when the
 * folders are alike in names, kinds, content, modes, owners, times, links, ACLs and attributes.
 */
export function compareFolders(source: string, copy: string, options: CompareOptions): string[] {
  const found: string[] = [];
  const run = (...command: string[]) => lines([...(options.prefix ?? []), ...command]);
  for (const line of run('diff', '-r', '--no-dereference', `${source}/`, `${copy}/`)) {
    // diff knows no way to compare special files; find below compares their kinds.
    if (/ is a (fifo|character special file|block special file) while file .* is a \1$/.test(line)) continue;
    found.push(`diff: ${line}`);
  }
  for (const line of run('rsync', '-aHAXnci', '--delete', `${source}/`, `${copy}/`)) found.push(`rsync: ${line}`);
  const listing = (dir: string) => [
    ...run('find', `${dir}/`, '-mindepth', '1', '!', '-type', 'd', '-printf', '%P %y %m %U %G %s %T@ %l %n\\n'),
    ...run(
      'find',
      `${dir}/`,
      '-type',
      'd',
      '-printf',
      `%P %y %m %U %G ${options.folderSizes ? '%s' : '-'} %T@ %l %n\\n`,
    ),
  ];
  const left = listing(source).sort();
  const right = listing(copy).sort();
  const rightSet = new Set(right);
  const leftSet = new Set(left);
  for (const line of left) if (!rightSet.has(line)) found.push(`find: only in the source: ${line}`);
  for (const line of right) if (!leftSet.has(line)) found.push(`find: only in the copy: ${line}`);
  return found;
}
