/** Calls a Vfs as the server does: misses are resolved and the call runs again; replies are collected. */
import { Miss } from '../../../src/cache/miss.ts';
import { type Attr, emptyAttr, FsError, type Vfs } from '../../../src/fs/vfs.ts';

export interface ClientHost {
  vfs: Vfs;
  resolve(miss: unknown): Promise<void>;
}

export interface Listed {
  name: string;
  attr: Attr;
  cookie: number;
}

export class Client {
  readonly host: ClientHost;
  /** Misses that had to be resolved so far. */
  misses = 0;

  constructor(host: ClientHost) {
    this.host = host;
  }

  async run<T>(work: (vfs: Vfs) => T): Promise<T> {
    for (;;) {
      try {
        this.host.vfs.pump();
        return work(this.host.vfs);
      } catch (error) {
        if (!(error instanceof Miss)) throw error;
        this.misses++;
        await this.host.resolve(error);
      }
    }
  }

  async lookup(parent: { slot: number; ino: number }, name: string): Promise<Attr | null> {
    const attr = emptyAttr();
    const found = await this.run((vfs) => vfs.lookup(parent.slot, parent.ino, Buffer.from(name, 'latin1'), attr));
    return found ? attr : null;
  }

  /** Looks a path up, name by name, following symlinks relative to where they stand. */
  async walk(path: string): Promise<Attr> {
    let at: Attr = await this.getattr({ slot: 0, ino: 1 });
    const trail: Attr[] = [];
    const names = path.split('/').filter((name) => name !== '');
    for (let index = 0; index < names.length; index++) {
      const name = names[index]!;
      if (name === '..') {
        at = trail.pop()!;
        continue;
      }
      const next = await this.lookup(at, name);
      if (next === null) throw new FsError(2, `${path}: no ${name}`);
      if ((next.mode & 0o170000) === 0o120000 && index < names.length) {
        const target = (await this.readlink(next)).toString('latin1');
        names.splice(index + 1, 0, ...target.split('/'));
        continue;
      }
      trail.push(at);
      at = next;
    }
    return at;
  }

  async getattr(node: { slot: number; ino: number }): Promise<Attr> {
    const attr = emptyAttr();
    await this.run((vfs) => vfs.getattr(node.slot, node.ino, attr));
    return attr;
  }

  /** All entries but `.` and `..`, read in replies of `room` entries, going on by cookie. */
  async list(node: { slot: number; ino: number }, room = 1000, attributes = true): Promise<Listed[]> {
    const entries: Listed[] = [];
    let cookie = 0;
    for (;;) {
      const batch = await this.run((vfs) => {
        const taken: Listed[] = [];
        vfs.readdir(node.slot, node.ino, {
          cookie,
          attributes,
          sink: {
            add({ source, start, end, attr, cookie: next }) {
              if (taken.length === room) return false;
              const name = Buffer.from(source.subarray(start, end)).toString('latin1');
              taken.push({ name, attr: { ...attr }, cookie: next });
              return true;
            },
          },
        });
        return taken;
      });
      if (batch.length === 0) return entries.filter(({ name }) => name !== '.' && name !== '..');
      entries.push(...batch);
      cookie = batch[batch.length - 1]!.cookie;
    }
  }

  async names(node: { slot: number; ino: number }): Promise<string[]> {
    return (await this.list(node)).map(({ name }) => name);
  }

  read(node: { slot: number; ino: number }, offset: number, size: number): Promise<Buffer> {
    return this.run((vfs) => {
      const pieces: Buffer[] = [];
      const releases: (() => void)[] = [];
      try {
        vfs.read(node.slot, node.ino, {
          offset,
          size,
          direct: true,
          sink: {
            push: (bytes) => {
              pieces.push(Buffer.from(bytes));
            },
            onRelease: (release) => {
              releases.push(release);
            },
          },
        });
        return Buffer.concat(pieces);
      } finally {
        for (const release of releases) release();
        vfs.idle();
      }
    });
  }

  /** The whole content, in requests of `step` bytes. */
  async content(node: { slot: number; ino: number; size: number }, step = 128 * 1024): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let at = 0; at < node.size; at += step) pieces.push(await this.read(node, at, step));
    return Buffer.concat(pieces);
  }

  async readlink(node: { slot: number; ino: number }): Promise<Buffer> {
    return Buffer.from(await this.run((vfs) => vfs.readlink(node.slot, node.ino)));
  }

  async getxattr(node: { slot: number; ino: number }, name: string): Promise<Buffer | null> {
    const value = await this.run((vfs) => vfs.getxattr(node.slot, node.ino, Buffer.from(name)));
    return value === null ? null : Buffer.from(value);
  }

  async listxattr(node: { slot: number; ino: number }): Promise<string[]> {
    const names = await this.run((vfs) => Buffer.from(vfs.listxattr(node.slot, node.ino)).toString());
    return names.split('\0').slice(0, -1);
  }

  lseek(node: { slot: number; ino: number }, offset: number, whence: number): Promise<number> {
    return this.run((vfs) => vfs.lseek(node.slot, node.ino, offset, whence));
  }
}

/** The errno that a call is refused with; 0 when it is not. */
export async function errnoOf(call: Promise<unknown>): Promise<number> {
  try {
    await call;
    return 0;
  } catch (error) {
    if (error instanceof FsError) return error.errno;
    throw error;
  }
}
