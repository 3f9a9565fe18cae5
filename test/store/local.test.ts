import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { LocalStore } from '../../src/store/local.ts';
import { expectCode, names, storeContract } from '../contract/store.ts';
import { temporaryFolder } from '../repository/place.ts';

const root = temporaryFolder();
let count = 0;
const fresh = () => join(root, String(count++));

storeContract('LocalStore', () => new LocalStore(fresh()));
storeContract('LocalStore without hard links', () => new LocalStore(fresh(), { hardLinks: false }));

/** A process with a store of its own on the same folder; the script sees `store`, `say` and `hear`. */
function inProcess(folder: string, script: string, options = '{}'): ChildProcess {
  const url = pathToFileURL(join(import.meta.dirname, '../../dist/store/local.js')).href;
  const code = `
    import { LocalStore } from ${JSON.stringify(url)};
    const store = new LocalStore(${JSON.stringify(folder)}, ${options});
    const say = (text) => new Promise((done) => process.stdout.write(text + '\\n', done));
    const hear = () => new Promise((done) => process.stdin.once('data', done));
    ${script}
    process.exit(0);`;
  return spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['pipe', 'pipe', 'inherit'] });
}

async function output(child: ChildProcess): Promise<string> {
  let text = '';
  child.stdout!.on('data', (bytes) => {
    text += bytes;
  });
  await once(child, 'close');
  return text;
}

async function prepared(): Promise<{ folder: string; store: LocalStore }> {
  const folder = fresh();
  const store = new LocalStore(folder);
  await store.prepare();
  return { folder, store };
}

describe('several processes', () => {
  for (const options of ['{}', '{ hardLinks: false }']) {
    test(`each name is created by exactly one of three (${options})`, async () => {
      const { folder, store } = await prepared();
      const script = `
        await say('ready');
        await hear();
        const won = [];
        for (let i = 0; i < 60; i++) {
          try {
            await store.put('race/' + i, Buffer.alloc(20000, process.pid + ':' + i + ' '));
            won.push(i);
          } catch (error) {
            if (error.code !== 'exists') throw error;
          }
        }
        await say(process.pid + ' ' + JSON.stringify(won));`;
      const children = [1, 2, 3].map(() => inProcess(folder, script, options));
      const outputs = children.map(output);
      await Promise.all(children.map((child) => once(child.stdout!, 'data')));
      for (const child of children) child.stdin!.write('go\n');
      const winners = new Map<number, string>();
      for (const text of await Promise.all(outputs)) {
        const [pid, won] = text.trim().split('\n').at(-1)!.split(' ') as [string, string];
        for (const i of JSON.parse(won) as number[]) {
          expect(winners.has(i), `object ${i} was created twice`).toBe(false);
          winners.set(i, pid);
        }
      }
      expect(winners.size).toBe(60);
      for (const [i, pid] of winners) {
        expect((await store.get(`race/${i}`)).equals(Buffer.alloc(20_000, `${pid}:${i} `))).toBe(true);
      }
      expect(readdirSync(join(folder, '.tmp'))).toEqual([]);
    });
  }

  test('kill -9 in the middle of a put leaves nothing to see, and the next writer sweeps it', async () => {
    const { folder, store } = await prepared();
    const size = 192 * 1024 * 1024;
    const child = inProcess(
      folder,
      `await store.put('whole', Buffer.alloc(1000, 1)); const big = Buffer.alloc(${size}, 7); await say('go'); await store.put('torn/object', big);`,
    );
    const done = once(child, 'close');
    await once(child.stdout!, 'data');
    const staging = join(folder, '.tmp');
    let staged = 0;
    while (staged === 0) {
      for (const name of readdirSync(staging)) staged = statSync(join(staging, name)).size;
      if (staged === 0) await new Promise((next) => setImmediate(next));
    }
    child.kill('SIGKILL');
    await done;
    expect(readdirSync(staging)).toHaveLength(1);
    expect(statSync(join(staging, readdirSync(staging)[0]!)).size).toBeGreaterThan(0);
    expect(await names(store, '')).toEqual(['whole']);
    await expectCode(store.get('torn/object'), 'not-found');
    await new LocalStore(folder).put('torn/object', Buffer.from('the next try'));
    expect(readdirSync(staging)).toEqual([]);
    expect((await store.get('torn/object')).toString()).toBe('the next try');
  });

  test('kill -9 at many moments: every visible object is whole', async () => {
    const { folder, store } = await prepared();
    for (let round = 0; round < 12; round++) {
      const script = `for (let i = 0; ; i++) { const put = store.put('k/${round}-' + i, Buffer.alloc(300000 + i, i)); await say('begun'); await put; }`;
      const child = inProcess(folder, script);
      const done = once(child, 'close');
      let begun = 0;
      await new Promise<void>((enough) => {
        child.stdout!.on('data', (bytes) => {
          begun += String(bytes).split('\n').length - 1;
          if (begun > round * 2) enough();
        });
      });
      child.kill('SIGKILL');
      await done;
    }
    let seen = 0;
    for await (const { name } of store.list('k/')) {
      const i = Number(name.split('-')[1]);
      expect((await store.get(name)).equals(Buffer.alloc(300_000 + i, i)), name).toBe(true);
      seen++;
    }
    expect(seen).toBeGreaterThan(12);
  });

  test('a dead writer without hard links blocks nobody', async () => {
    const { folder } = await prepared();
    const store = new LocalStore(folder, { hardLinks: false });
    // Dies while it holds the claim: the claim file is there, its maker is gone.
    const child = inProcess(
      folder,
      `import { processScope, temporaryName } from ${JSON.stringify(pathToFileURL(join(import.meta.dirname, '../../dist/store/local-staging.js')).href)};
       import { createHash } from 'node:crypto';
       import { mkdirSync, writeFileSync } from 'node:fs';
       mkdirSync(${JSON.stringify(join(folder, '.tmp'))}, { recursive: true });
       const claim = 'claim-' + createHash('sha256').update(${JSON.stringify(join(folder, 'c'))}).digest('hex').slice(0, 32);
       writeFileSync(${JSON.stringify(join(folder, '.tmp'))} + '/' + claim, temporaryName(await processScope()));`,
    );
    await output(child);
    expect(readdirSync(join(folder, '.tmp'))).toHaveLength(1);
    await store.put('c', Buffer.from('c'));
    expect((await store.get('c')).toString()).toBe('c');
    expect(readdirSync(join(folder, '.tmp'))).toEqual([]);
  });
});

describe('the folder', () => {
  test('a file is taken over by a hard link and consumed; one with other links is copied', async () => {
    const { folder, store } = await prepared();
    const spool = join(folder, '..', `spool ${count++}`);
    writeFileSync(spool, 'sealed');
    const { ino } = statSync(spool);
    await store.putFile('linked', spool);
    expect(statSync(store.localPath('linked')).ino).toBe(ino);
    expect(existsSync(spool)).toBe(false);
    expect(statSync(store.localPath('linked')).nlink).toBe(1);

    writeFileSync(spool, 'shared');
    const other = `${spool} too`;
    const { linkSync } = await import('node:fs');
    linkSync(spool, other);
    await store.putFile('copied', spool);
    expect(statSync(store.localPath('copied')).nlink).toBe(1);
    writeFileSync(other, 'changed');
    expect((await store.get('copied')).toString()).toBe('shared');
  });

  test('objects are read-only and as private as the root', async () => {
    const { folder, store } = await prepared();
    await store.put('a/b', Buffer.from('b'));
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, 'a')).mode & 0o777).toBe(0o700);
    expect(statSync(join(folder, 'a/b')).mode & 0o777).toBe(0o400);
    chmodSync(folder, 0o750);
    const shared = new LocalStore(folder);
    await shared.put('c/d', Buffer.from('d'));
    expect(statSync(join(folder, 'c')).mode & 0o777).toBe(0o750);
    expect(statSync(join(folder, 'c/d')).mode & 0o777).toBe(0o440);
  });

  test('a root that vanished is an error, not an empty store, and is not made anew', async () => {
    const { folder, store } = await prepared();
    await store.put('a', Buffer.from('a'));
    rmSync(folder, { recursive: true });
    await expectCode(store.put('b', Buffer.from('b')), 'not-found');
    await expectCode(store.get('a'), 'not-found');
    await expectCode(names(store, ''), 'not-found');
    await expectCode(names(store, 'config/'), 'not-found');
    expect(existsSync(folder)).toBe(false);
  });

  test('what is no object is not listed, and a fifo under a name does not hang', async () => {
    const { folder, store } = await prepared();
    await store.put('a', Buffer.from('a'));
    writeFileSync(join(folder, '.hidden'), 'x');
    writeFileSync(join(folder, 'with space'), 'x');
    mkdirSync(join(folder, 'empty'));
    symlinkSync('/nowhere', join(folder, 'dangling'));
    const { execFileSync } = await import('node:child_process');
    execFileSync('mkfifo', [join(folder, 'fifo')]);
    expect(await names(store, '')).toEqual(['a']);
    await expectCode(store.get('fifo'), 'corrupt');
    expect(await store.stat('fifo')).toBeNull();
  });

  test('staged files of other machines stay for a day', async () => {
    const { folder, store } = await prepared();
    const staging = join(folder, '.tmp');
    mkdirSync(staging);
    writeFileSync(join(staging, '0123456789abcdef-1-young'), 'x');
    writeFileSync(join(staging, '0123456789abcdef-1-old'), 'x');
    const longAgo = Date.now() / 1000 - 2 * 24 * 3600;
    utimesSync(join(staging, '0123456789abcdef-1-old'), longAgo, longAgo);
    await store.put('a', Buffer.from('a'));
    expect(readdirSync(staging)).toEqual(['0123456789abcdef-1-young']);
  });
});
