/** From paths, which is all that libfuse's high-level interface tells, to nodes. What was found is kept. */
import { ENAMETOOLONG, ENOENT } from '../../posix/errno.ts';
import { NAME_MAX } from '../protocol/abi.ts';
import { emptyAttr, FsError, type Vfs } from '../vfs.ts';

export interface NodePlace {
  slot: number;
  ino: number;
}

interface Known extends NodePlace {
  /** Milliseconds of performance.now() until which this holds. */
  until: number;
}

/** Paths kept; the ones that were added first go first. */
const PATHS_KEPT = 20_000;
/** How long a file that Rozen itself changes (`.rozen/status`) stays the same node: from the look at it to its end. */
const VOLATILE_MS = 1000;
const S_IFMT = 0o170000;
const S_IFREG = 0o100000;
/** What a byte that is not UTF-8 has become on its way through fuse-native. */
const REPLACEMENT = '\ufffd';

export class Resolver {
  readonly #known = new Map<string, Known>();
  readonly #attr = emptyAttr();

  /** Everything may lead elsewhere now. */
  forget(): void {
    this.#known.clear();
  }

  /** The node at an absolute path. Throws ENOENT, Miss, and what `lookup` throws. */
  resolve(vfs: Vfs, path: string): NodePlace {
    if (path === '/' || path === '') return { slot: 0, ino: 1 };
    const known = this.#known.get(path);
    if (known !== undefined) {
      if (known.until > performance.now()) return known;
      this.#known.delete(path);
    }
    const slash = path.lastIndexOf('/');
    const parent = this.resolve(vfs, path.slice(0, slash));
    const name = path.slice(slash + 1);
    const attr = this.#attr;
    attr.volatile = false;
    if (!vfs.lookup(parent.slot, parent.ino, Buffer.from(name), attr)) {
      const bytes = name.includes(REPLACEMENT) ? bytesOf(vfs, parent, name) : null;
      if (bytes === null) throw new FsError(Buffer.byteLength(name) > NAME_MAX ? ENAMETOOLONG : ENOENT);
      if (!vfs.lookup(parent.slot, parent.ino, bytes, attr)) throw new FsError(ENOENT);
    }
    const fleeting = attr.volatile && (attr.mode & S_IFMT) === S_IFREG;
    const { slot, ino } = attr;
    const found = { slot, ino, until: fleeting ? performance.now() + VOLATILE_MS : Number.POSITIVE_INFINITY };
    if (this.#known.size >= PATHS_KEPT) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(path, found);
    return found;
  }
}

/** The first name in a folder that looks like this one once it is decoded; null when there is none. */
function bytesOf(vfs: Vfs, { slot, ino }: NodePlace, name: string): Buffer | null {
  let found: Buffer | null = null;
  let cookie = 0;
  for (let more = true; more && found === null; ) {
    more = false;
    vfs.readdir(slot, ino, {
      cookie,
      attributes: false,
      sink: {
        add(entry) {
          more = true;
          cookie = entry.cookie;
          const bytes = Buffer.from(entry.source.subarray(entry.start, entry.end));
          if (bytes.toString() === name) found = bytes;
          return found === null;
        },
      },
    });
  }
  return found;
}
