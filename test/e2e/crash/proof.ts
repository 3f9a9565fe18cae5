/**
 * A real backup of real files is killed at some moment; the next run must finish, and nothing that was sealed may be lost or
 * sealed again. Each round begins with a fresh repository and no local state but the machine's enrolment.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compareFolders } from '../compare.ts';
import { Sandbox } from '../rozen.ts';
import { chunksOnce, filesBelow, framesOf, idOf, type Ledger, mustStand, note } from './sealed-frames.ts';

const built = (path: string) => import(new URL(`../../../dist/${path}`, import.meta.url).href);

/** What a run leaves behind it, to be waited for: the n-th of a kind is a moment of its own. */
export type Mark = 'archive' | 'hot index' | 'data object' | 'index object' | 'tree file' | 'tree object' | 'record';
export const MARKS: readonly Mark[] = [
  'record',
  'hot index',
  'data object',
  'tree file',
  'tree object',
  'archive',
  'index object',
];

/** When to kill: milliseconds after the start, or milliseconds after the n-th mark of a kind. */
export type Moment = { after: number } | { mark: Mark; nth: number; delay: number };

/** How far the killed run had come, as its files tell. */
export type Phase =
  | 'before the first block'
  | 'in packs'
  | 'sealed'
  | 'on its way to the store'
  | 'index missing'
  | 'between packs'
  | 'trees'
  | 'trees stored'
  | 'after the record';

export interface Round {
  phases: Phase[];
  /** Whole DATA frames that stood on disk after the kills. */
  frames: number;
  /** Size of all data archives in the end. */
  dataBytes: number;
}

const SET = 'crash';
/** Milliseconds for one command over gigabytes, on a machine that has other work. */
const PATIENCE = 1_800_000;

export class Proof {
  readonly sandbox = new Sandbox();
  readonly source: string;
  readonly #packing: string[];
  #indexKey: Buffer = Buffer.alloc(0);
  /** Of a run that nobody disturbed. */
  baseline = { milliseconds: 0, archives: 0, dataBytes: 0, chunks: 0, chunkBytes: 0 };

  constructor({ archiveSize, codec = 'zstd' }: { archiveSize: string; codec?: string }) {
    this.source = join(this.sandbox.dir, 'source');
    this.#packing = ['--archive-size', archiveSize, '--codec', codec];
  }

  /** Makes the repository that every round begins with, and measures a run that nobody disturbs. */
  async prepare(): Promise<void> {
    const { sandbox } = this;
    const { generateIdentity, recipientOf } = (await built(
      'archive/crypto/age.js',
    )) as typeof import('../../../src/archive/crypto/age.ts');
    const identity = await generateIdentity('x25519');
    const file = join(sandbox.dir, 'identity');
    writeFileSync(file, `${identity}\n`, { mode: 0o600 });
    sandbox.env.ROZEN_IDENTITY_FILE = file;
    sandbox.ok(['init', '--recipient', await recipientOf(identity)]);
    this.#indexKey = await this.#loadIndexKey();
    for (const name of ['repo', 'state']) copyFolder(join(sandbox.dir, name), join(sandbox.dir, `fresh-${name}`));
    // Twice: the first run also warms the page cache.
    for (let run = 0; run < 2; run++) {
      this.#reset();
      const started = performance.now();
      this.#run(this.#backup);
      this.baseline.milliseconds = performance.now() - started;
    }
    const { chunks, bytes } = chunksOnce(this.#objects('index'), this.#indexKey);
    const archives = this.#objects('data');
    this.baseline = {
      milliseconds: this.baseline.milliseconds,
      archives: archives.length,
      dataBytes: sizeOf(archives),
      chunks,
      chunkBytes: bytes,
    };
  }

  /**
   * One round: a run is killed at each of these moments, then one must finish and everything is checked; the restored files
   * too, on request. Null when the first run was done before its moment came.
   */
  async round(moments: readonly Moment[], options: { restore: boolean }): Promise<Round | null> {
    this.#reset();
    const ledger: Ledger = new Map();
    const phases: Phase[] = [];
    let frames = 0;
    let done = false;
    for (const moment of moments) {
      if (!(await this.#kill(moment))) {
        if (phases.length === 0) return null;
        done = true;
        break;
      }
      phases.push(await this.#phase());
      frames = await note(ledger, [...filesBelow(this.#spool, '.roz'), ...this.#objects('data')]);
    }
    this.#nextRun(phases, done);
    return { phases, frames, dataBytes: await this.#check(ledger, options.restore) };
  }

  remove(): void {
    this.sandbox.remove();
  }

  /** The next run finishes, and finds nothing to do if the record stood, or if a run between was done before it was killed. */
  #nextRun(phases: readonly Phase[], done: boolean): void {
    const report = JSON.parse(this.#run(this.#backup));
    const committed = done || phases.includes('after the record');
    if (report.unchanged !== committed || report.problems.length > 0 || report.stateNotice !== null) {
      throw new Error(`killed ${phases.join(', ')}, the next run reports ${JSON.stringify(report)}`);
    }
  }

  async #check(ledger: Ledger, restore: boolean): Promise<number> {
    const { sandbox, baseline } = this;
    const archives = this.#objects('data');
    await mustStand(ledger, archives);
    const indexes = this.#objects('index');
    if (archives.map(idOf).join() !== indexes.map(idOf).join()) throw new Error('data/ and index/ differ');
    const { chunks, bytes } = chunksOnce(indexes, this.#indexKey);
    if (chunks !== baseline.chunks || bytes !== baseline.chunkBytes) {
      throw new Error(`${chunks} chunks of ${bytes} bytes; undisturbed: ${baseline.chunks} of ${baseline.chunkBytes}`);
    }
    for (const folder of [this.#spool, join(sandbox.repo, '.tmp')]) {
      const left = existsSync(folder) ? readdirSync(folder) : [];
      if (left.length > 0) throw new Error(`left in ${folder}: ${left.join(', ')}`);
    }
    if (sandbox.json(['snapshots']).length !== 1) throw new Error('there should be one snapshot');
    this.#run(['verify', '--read-data']);
    if (restore) {
      const target = join(sandbox.dir, 'restored');
      this.#run(['restore', `${SET}@latest`, '--target', target]);
      const differences = compareFolders(this.source, target, { folderSizes: false });
      if (differences.length > 0) throw new Error(`restored files differ:\n${differences.join('\n')}`);
      execFileSync('rm', ['-rf', target]);
    }
    return sizeOf(archives);
  }

  /** Starts a backup and kills it; false when it was done before. */
  #kill(moment: Moment): Promise<boolean> {
    const child = this.sandbox.start(this.#backup);
    let errors = '';
    child.stderr.on('data', (text) => {
      errors += text;
    });
    child.stdout.resume();
    const kill = () => child.kill('SIGKILL');
    let timer: NodeJS.Timeout;
    if ('after' in moment) {
      timer = setTimeout(kill, moment.after);
    } else {
      const seen = new Set<string>();
      const look = (): void => {
        for (const path of this.#marks(moment.mark)) seen.add(path);
        if (seen.size < moment.nth) timer = setTimeout(look, 1);
        else if (moment.delay === 0) kill();
        else timer = setTimeout(kill, moment.delay);
      };
      look();
    }
    return new Promise((resolve, reject) => {
      child.on('close', (code, signal) => {
        clearTimeout(timer);
        if (signal === 'SIGKILL') resolve(true);
        else if (code === 0) resolve(false);
        else reject(new Error(`the backup failed with ${code}: ${errors}`));
      });
    });
  }

  #marks(mark: Mark): string[] {
    switch (mark) {
      case 'archive':
        return filesBelow(this.#spool, '.cbor');
      case 'hot index':
        return filesBelow(this.#spool, '.rix');
      case 'data object':
        return this.#objects('data');
      case 'index object':
        return this.#objects('index');
      case 'tree file':
        return filesBelow(join(this.#state, 'sets'), 'tree.tmp');
      case 'tree object':
        return this.#objects('tree');
      case 'record':
        return this.#objects('snapshots');
    }
  }

  async #phase(): Promise<Phase> {
    if (this.#objects('snapshots').length > 0) return 'after the record';
    if (this.#objects('tree').length > 0) return 'trees stored';
    if (this.#marks('tree file').length > 0) return 'trees';
    const open = filesBelow(this.#spool, '.roz');
    const hot = filesBelow(this.#spool, '.rix');
    if (hot.some((path) => !existsSync(path.replace('.rix', '.roz')))) return 'index missing';
    if (hot.length > 0) return 'on its way to the store';
    const scans = await Promise.all(open.map(framesOf));
    if (scans.some(({ torn }) => !torn)) return 'sealed';
    if (scans.some(({ frames }) => frames.length > 0)) return 'in packs';
    return this.#objects('data').length > 0 ? 'between packs' : 'before the first block';
  }

  /** Runs a command that must succeed; what it printed. */
  #run(args: string[]): string {
    const { code, stdout, stderr } = this.sandbox.run(args, { timeout: PATIENCE });
    if (code !== 0) throw new Error(`rozen ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  get #backup(): string[] {
    return ['--json', '--quiet', 'backup', this.source, '--set', SET, ...this.#packing];
  }

  get #state(): string {
    const repositories = join(this.sandbox.dir, 'state/rozen/repositories');
    return join(repositories, readdirSync(repositories)[0]!);
  }

  get #spool(): string {
    const sets = join(this.#state, 'sets');
    const tag = existsSync(sets) ? readdirSync(sets)[0] : undefined;
    return join(sets, tag ?? 'none', 'spool');
  }

  #objects(folder: 'data' | 'index' | 'tree' | 'snapshots'): string[] {
    const endings = { data: '.roz', index: '.rix', tree: '.roz', snapshots: '.cbor' };
    return filesBelow(join(this.sandbox.repo, folder), endings[folder]);
  }

  #reset(): void {
    const { dir } = this.sandbox;
    for (const name of ['repo', 'state']) {
      rmSync(join(dir, name), { recursive: true, force: true });
      copyFolder(join(dir, `fresh-${name}`), join(dir, name));
    }
  }

  async #loadIndexKey(): Promise<Buffer> {
    const { openRepository } = (await built(
      'repository/repository.js',
    )) as typeof import('../../../src/repository/repository.ts');
    const { LocalStore } = (await built('store/local.js')) as typeof import('../../../src/store/local.ts');
    const before = process.env.ROZEN_STATE_DIR;
    process.env.ROZEN_STATE_DIR = join(this.sandbox.dir, 'state/rozen');
    try {
      const repository = await openRepository({
        store: new LocalStore(this.sandbox.repo),
        credentials: {},
        need: 'write',
      });
      const { indexKey } = await repository.loadSecrets();
      const key = Buffer.from(indexKey);
      repository.close();
      return key;
    } finally {
      if (before === undefined) delete process.env.ROZEN_STATE_DIR;
      else process.env.ROZEN_STATE_DIR = before;
    }
  }
}

function copyFolder(from: string, to: string): void {
  execFileSync('cp', ['-a', from, to]);
}

function sizeOf(paths: readonly string[]): number {
  return paths.reduce((sum, path) => sum + statSync(path).size, 0);
}
