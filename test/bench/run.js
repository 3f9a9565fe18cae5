/**
 * `npm run bench`: Rozen beside restic, borg and squashfuse (those that are installed) on real files of this machine.
 *
 *   --files N      small files in the corpus (default 80000)
 *   --bytes MB     at most this many megabytes of them (default 1000)
 *   --large MB     size of each of the two large files, one of programs, one of noise (default 1024)
 *   --rounds N     rounds of each reading measurement, the median is printed (default 3)
 *   --scale        also the mount of 10 thousand against 1 million files
 *   --only A,B     contestants
 *   --work DIR     where to work (default a temporary folder, removed at the end)
 *
 * Every contestant is measured in turn within each round, so that a machine whose speed drifts is fair to all.
 * "Cold" is a fresh mount after the kernel's caches were dropped (as root); "warm" is the same once more.
 */
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { makeDenseFile, makeLargeFile, makeSmallFiles, makeTinyFiles, removeTree } from './corpus.js';
import { dropCaches, median, must, peakMemory, timed } from './measure.js';
import { borgTool, nativeTool, resticTool, rozenTool, squashfuseTool } from './tools.js';

const here = dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    files: { type: 'string', default: '80000' },
    bytes: { type: 'string', default: '1000' },
    large: { type: 'string', default: '1024' },
    rounds: { type: 'string', default: '3' },
    scale: { type: 'boolean', default: false },
    only: { type: 'string' },
    work: { type: 'string' },
    out: { type: 'string' },
  },
});
const rounds = Number(args.rounds);
const work = args.work ?? mkdtempSync(join(tmpdir(), 'rozen-bench-'));
mkdirSync(work, { recursive: true });
const source = join(work, 'source');
const MIB = 1 << 20;
const say = (text) => process.stderr.write(`${text}\n`);

/** rows.get(measure).get(tool) = list of values */
const rows = new Map();
function note(measure, tool, value) {
  if (!rows.has(measure)) rows.set(measure, new Map());
  const row = rows.get(measure);
  if (!row.has(tool)) row.set(tool, []);
  row.get(tool).push(value);
}

async function backups(tools) {
  for (const tool of tools) await tool.init();
  // Everything that is read comes from warm caches, for all alike.
  await must(`tar cf - ${source} | cat >/dev/null`);
  for (const measure of ['backup, first (s)', 'backup, unchanged (s)']) {
    for (const tool of tools) {
      say(`${measure}: ${tool.name}`);
      // The last tool's dirty pages are not this one's to write.
      await timed('sync');
      const result = await tool.backup(source);
      if (result === null) continue;
      note(measure, tool.name, result.seconds);
      note(`${measure.split(' (')[0]}, peak memory (MB)`, tool.name, result.peak / MIB);
    }
    if (measure.includes('first'))
      for (const tool of tools)
        note(
          'repository (MB)',
          tool.name,
          Number((await must(`du -sb --apparent-size ${tool.repo}`)).stdout.split('\t')[0]) / 1e6,
        );
  }
}

async function restores(tools) {
  for (const tool of tools) {
    say(`restore: ${tool.name}`);
    const target = join(work, `restored-${tool.name}`);
    await timed('sync');
    const result = await tool.restore(target);
    note('restore (s)', tool.name, result.seconds);
    note('restore, peak memory (MB)', tool.name, result.peak / MIB);
    removeTree(target);
  }
}

/** Each measurement has a mount of its own, so that "cold" is cold. */
const READINGS = [
  ['walk, cold (s)', (view) => must(`find ${view}/ -printf '%s %T@\\n' >/dev/null`), 'walk, warm (s)'],
  ['read every small file, cold (s)', (view) => must(`cd ${view}/small && tar cf - . | cat >/dev/null`)],
  ['read one large file, cold (s)', (view) => must(`cat ${view}/large >/dev/null`), 'read one large file, warm (s)'],
  ['read one file of noise, cold (s)', (view) => must(`cat ${view}/dense >/dev/null`)],
  ['random 4 KiB reads, cold (1/s)', (view) => random(view, 4096)],
  ['random 128 KiB reads, cold (1/s)', (view) => random(view, 131072)],
  ['look-ups of missing names, cold (µs)', (view) => missing(view)],
  ['cp of 5,000 small files, cold (s)', (view) => copy(view)],
];

async function missing(view) {
  const result = await must(`python3 ${join(here, 'missing-name.py')} ${view}/small 3`);
  return { ...result, value: Number(result.stdout) };
}

/** The first 5,000 files that find names, with their folders. */
async function copy(view) {
  const target = join(work, 'copied');
  const list = `cd ${view}/small && find . -type f | head -5000`;
  const result = await must(`mkdir -p ${target} && (${list} | xargs -d '\\n' cp --parents -t ${target})`);
  removeTree(target);
  return result;
}

async function random(view, size) {
  const result = await must(`python3 ${join(here, 'random-read.py')} ${view}/large ${size} 3 ${size}`);
  return { ...result, value: Number(result.stdout) };
}

async function readings(tools) {
  for (let round = 0; round < rounds; round++) {
    for (const [cold, read, warm] of READINGS) {
      for (const tool of tools) {
        say(`round ${round + 1}: ${cold}: ${tool.name}`);
        dropCaches();
        const start = process.hrtime.bigint();
        const { view, server } = await tool.mount();
        if (cold.startsWith('walk') && tool.name !== 'native')
          note('mount to first ls, cold (s)', tool.name, Number(process.hrtime.bigint() - start) / 1e9);
        try {
          const result = await read(view);
          note(cold, tool.name, result.value ?? result.seconds);
          if (warm !== undefined) note(warm, tool.name, (await read(view)).seconds);
          const pid = server();
          if (pid !== undefined)
            note(`mount, peak memory after: ${cold.replace(/, cold.*/, '')} (MB)`, tool.name, peakMemory(pid) / MIB);
        } finally {
          await tool.unmount();
        }
      }
    }
    for (const tool of tools) if (tool.name === 'rozen') await decodings(tool);
    for (const tool of tools) {
      if (tool.name === 'native') continue;
      const start = process.hrtime.bigint();
      await tool.mount();
      note('mount to first ls, warm (s)', tool.name, Number(process.hrtime.bigint() - start) / 1e9);
      await tool.unmount();
    }
  }
}

/** What all cores decode without FUSE, by the same code: what a mount can be held against. */
async function decodings({ repo, identity }) {
  for (const [name, file] of [
    ['decode one large file without FUSE, cold (s)', '/large'],
    ['decode one file of noise without FUSE, cold (s)', '/dense'],
  ]) {
    say(name);
    dropCaches();
    const result = await must(`"${process.execPath}" ${join(here, 'decode.js')} ${repo} ${identity} ${file}`);
    note(name, 'rozen', Number(result.stdout));
  }
}

/** Mount to first `ls` must not depend on the number of files. */
async function scale() {
  const contestants = [];
  for (const count of [10_000, 1_000_000]) {
    const dir = join(work, `scale-${count}`);
    const files = join(dir, 'files');
    say(`making ${count} files`);
    makeTinyFiles(files, count);
    const tool = rozenTool(dir);
    await tool.init();
    const result = await tool.backup(files);
    note(`backup of ${count} tiny files (s)`, 'rozen', result.seconds);
    note(`backup of ${count} tiny files, peak memory (MB)`, 'rozen', result.peak / MIB);
    const unchanged = await tool.backup(files);
    note(`unchanged backup of ${count} tiny files (s)`, 'rozen', unchanged.seconds);
    contestants.push([count, tool]);
  }
  for (let round = 0; round < 9; round++) {
    for (const [count, tool] of contestants) {
      const start = process.hrtime.bigint();
      await tool.mount();
      note(`mount to first ls, ${count} files (s)`, 'rozen', Number(process.hrtime.bigint() - start) / 1e9);
      await tool.unmount();
    }
  }
  for (const [count, tool] of contestants) {
    const { view, server } = await tool.mount();
    note(`walk of ${count} files, cold (s)`, 'rozen', (await must(`find ${view}/ -printf '%s\\n' >/dev/null`)).seconds);
    note(`mount, peak memory after a walk of ${count} files (MB)`, 'rozen', peakMemory(server()) / MIB);
    await tool.unmount();
  }
}

function table(names) {
  const lines = [`| | ${names.join(' | ')} |`, `|---|${names.map(() => '---:').join('|')}|`];
  const show = (value) =>
    value === undefined ? '–' : value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  for (const [measure, row] of rows)
    lines.push(
      `| ${measure} | ${names.map((name) => show(row.has(name) ? median(row.get(name)) : undefined)).join(' | ')} |`,
    );
  return lines.join('\n');
}

try {
  say('making the corpus');
  const small = makeSmallFiles(join(source, 'small'), {
    files: Number(args.files),
    bytes: Number(args.bytes) * 1e6,
    largest: 4 * MIB,
  });
  const large = makeLargeFile(join(source, 'large'), Number(args.large) * MIB);
  makeDenseFile(join(source, 'dense'), Number(args.large) * MIB);
  const all = [rozenTool(work), resticTool(work), borgTool(work), squashfuseTool(work)].filter((tool) => tool !== null);
  const tools = all.filter((tool) => !args.only || args.only.split(',').includes(tool.name));
  await backupsAndRestoresOfSmallFiles(tools);
  await readings([...tools, nativeTool(source)]);
  if (args.scale) await scale();
  const names = [...tools.map((tool) => tool.name), 'native'];
  const head = `${small.files} small files of this machine, ${(small.bytes / 1e6).toFixed(0)} MB; two large files of ${(large / 1e6).toFixed(0)} MB, programs and noise; ${cpus().length} × ${cpus()[0].model}, ${(totalmem() / 2 ** 30).toFixed(0)} GiB; Node ${process.version}; median of ${rounds}`;
  const text = `${head}\n\n${table(names)}\n`;
  process.stdout.write(text);
  if (args.out) writeFileSync(args.out, text);
} finally {
  if (!args.work) removeTree(work);
}

/**
 * The first backup is measured on the small files alone (the figures that people compare), then the large files join and
 * are backed up by all, so that the mounts show both.
 */
async function backupsAndRestoresOfSmallFiles(tools) {
  const aside = join(work, 'aside');
  mkdirSync(aside);
  await must(`mv ${join(source, 'large')} ${join(source, 'dense')} ${aside}`);
  await backups(tools.filter((tool) => tool.name !== 'squashfuse'));
  await restores(tools.filter((tool) => tool.name !== 'squashfuse'));
  await must(`mv ${aside}/* ${source}`);
  for (const tool of tools) {
    if (tool.name === 'squashfuse') await tool.init();
    const result = await tool.backup(source);
    if (tool.name === 'squashfuse') note('pack, all (s)', tool.name, result.seconds);
    else note('backup, large files added (s)', tool.name, result.seconds);
  }
}
