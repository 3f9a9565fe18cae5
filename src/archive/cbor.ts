/**
 * Metadata records: a strict subset of CBOR (RFC 8949): integers, float64, byte strings, text strings, arrays, maps with text
 * keys, false, true, null. No tags, no indefinite lengths, no undefined. The subset is checked by one pass over the
 * bytes before the decoder sees them, so that neither depth nor a claimed length can hurt.
 */
// Not the main entry: under Node that one loads streams and looks for a native addon, 8 ms more in every thread.
import { Encoder } from 'cbor-x/encode';
import { corrupt, RozenError } from '../errors.ts';

const MAX_BYTES = 16 * 1024 * 1024;
const MAX_DEPTH = 16;

const codec = new Encoder({
  useRecords: false,
  mapsAsObjects: true,
  variableMapSize: true,
  tagUint8Array: false,
  useTimestamp32: false,
  int64AsNumber: true,
} as ConstructorParameters<typeof Encoder>[0]);

/** Encodes plain objects, arrays, numbers, strings, booleans, null and Uint8Arrays. `undefined` members of an object are left out. */
export function encodeCbor(value: unknown): Buffer {
  // A copy: the encoder hands out views of a buffer that it goes on using.
  return Buffer.from(codec.encode(plain(value)));
}

function plain(value: unknown): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') {
    if (Number.isInteger(value) && !Number.isSafeInteger(value))
      throw new RozenError('internal', `CBOR: ${value} is not exact`);
    return value;
  }
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === 'object') {
    const result: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(value)) if (member !== undefined) result[key] = plain(member);
    return result;
  }
  throw new RozenError('internal', `CBOR: cannot encode a ${typeof value}`);
}

export interface DecodeLimits {
  /** Names the object in errors. */
  what: string;
  maxBytes?: number;
  maxDepth?: number;
}

/** Decodes exactly one value that fills `bytes`. Byte strings are copies. Throws 'corrupt' for anything outside the subset. */
export function decodeCbor(bytes: Uint8Array, limits: DecodeLimits): unknown {
  const { what, maxBytes = MAX_BYTES, maxDepth = MAX_DEPTH } = limits;
  if (bytes.length > maxBytes) throw corrupt(`${what}: ${bytes.length} bytes of CBOR, at most ${maxBytes} are allowed`);
  // A copy: decoded byte strings are views of it, so they never change with (or hold on to) the caller's buffer.
  const copy = Buffer.from(bytes);
  checkCbor(copy, what, maxDepth);
  try {
    return codec.decode(copy);
  } catch (cause) {
    throw corrupt(`${what}: CBOR cannot be decoded`, { cause });
  }
}

/** One pass without recursion: `open` holds how many items each open container still expects. */
function checkCbor(bytes: Buffer, what: string, maxDepth: number): void {
  const fail = (at: number, why: string) => corrupt(`${what}: bad CBOR at byte ${at}: ${why}`);
  const open: { left: number; keys: Set<string> | null; wantKey: boolean }[] = [];
  let at = 0;
  let done = false;
  while (!done) {
    if (at >= bytes.length) throw fail(at, 'it ends too early');
    const start = at;
    const initial = bytes[at++]!;
    const major = initial >> 5;
    const info = initial & 31;
    let argument = info;
    if (major !== 7) {
      if (info > 27) throw fail(start, 'indefinite or reserved length');
      if (info >= 24) {
        const width = 1 << (info - 24);
        if (at + width > bytes.length) throw fail(start, 'it ends too early');
        argument = width === 8 ? readUint64(bytes, at) : bytes.readUIntBE(at, width);
        if (argument > Number.MAX_SAFE_INTEGER) throw fail(start, 'an integer beyond 2^53');
        at += width;
      }
    }
    const parent = open[open.length - 1];
    if (parent?.wantKey && major !== 3) throw fail(start, 'a map key that is not text');
    let container: { left: number; keys: Set<string> | null; wantKey: boolean } | null = null;
    switch (major) {
      case 0:
      case 1:
        break;
      case 2:
      case 3: {
        if (argument > bytes.length - at) throw fail(start, `a string of ${argument} bytes`);
        if (parent?.wantKey) {
          const key = bytes.toString('latin1', at, at + argument);
          if (key === '__proto__') throw fail(start, 'a forbidden key');
          if (parent.keys!.has(key)) throw fail(start, 'a key that comes twice');
          parent.keys!.add(key);
        }
        at += argument;
        break;
      }
      case 4:
      case 5:
        // Each item takes one byte at least, so the count is bounded by what is left.
        if (argument > bytes.length - at) throw fail(start, `a container of ${argument} items`);
        if (open.length >= maxDepth) throw fail(start, `nested deeper than ${maxDepth}`);
        container =
          major === 4
            ? { left: argument, keys: null, wantKey: false }
            : { left: argument * 2, keys: new Set(), wantKey: true };
        break;
      case 6:
        throw fail(start, 'a tag');
      default:
        if (info === 27) at += 8;
        else if (info !== 20 && info !== 21 && info !== 22) throw fail(start, 'an unknown simple value');
        if (at > bytes.length) throw fail(start, 'it ends too early');
    }
    if (container !== null && container.left > 0) {
      open.push(container);
      continue;
    }
    // An item is complete: it may complete its container, and so on.
    for (;;) {
      const top = open[open.length - 1];
      if (top === undefined) {
        done = true;
        break;
      }
      top.left--;
      if (top.keys !== null) top.wantKey = !top.wantKey;
      if (top.left > 0) break;
      open.pop();
    }
  }
  if (at !== bytes.length) throw fail(at, 'bytes after the end');
}

function readUint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}

/* ---- Typed readers of members; each throws 'corrupt' naming the member ------------------------------------- */

export type CborMap = Record<string, unknown>;

/** The decoded value as a map. */
export function asMap(value: unknown, what: string): CborMap {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || value instanceof Uint8Array) {
    throw corrupt(`${what}: a map is expected`);
  }
  return value as CborMap;
}

function missing(name: string, expected: string): RozenError {
  return corrupt(`field ${JSON.stringify(name)}: ${expected} is expected`);
}

function member(map: CborMap, name: string): unknown {
  return Object.hasOwn(map, name) ? map[name] : undefined;
}

/** Readers of one member of a map. */
export const field = {
  has: (map: CborMap, name: string): boolean => member(map, name) !== undefined,

  /** A byte string of exactly `length` bytes, or of any length up to `max`. */
  bytes(map: CborMap, name: string, length?: number, max?: number): Buffer {
    const value = member(map, name);
    if (!(value instanceof Uint8Array)) throw missing(name, 'a byte string');
    if (length !== undefined && value.length !== length) throw missing(name, `a byte string of ${length} bytes`);
    if (max !== undefined && value.length > max) throw missing(name, `a byte string of at most ${max} bytes`);
    return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  },

  /** An integer from `min` (default 0) to `max`. */
  uint(map: CborMap, name: string, max: number = Number.MAX_SAFE_INTEGER, min = 0): number {
    const value = member(map, name);
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
      throw missing(name, `an integer from ${min} to ${max}`);
    }
    return value;
  },

  /** An integer, negative or not. */
  int(map: CborMap, name: string): number {
    return field.uint(map, name, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  },

  text(map: CborMap, name: string, max = 64 * 1024): string {
    const value = member(map, name);
    if (typeof value !== 'string' || value.length > max) throw missing(name, `text of at most ${max} characters`);
    return value;
  },

  bool(map: CborMap, name: string): boolean {
    const value = member(map, name);
    if (typeof value !== 'boolean') throw missing(name, 'true or false');
    return value;
  },

  map(map: CborMap, name: string): CborMap {
    const value = member(map, name);
    if (value === null || typeof value !== 'object' || Array.isArray(value) || value instanceof Uint8Array) {
      throw missing(name, 'a map');
    }
    return value as CborMap;
  },

  list(map: CborMap, name: string, max = 1_000_000): unknown[] {
    const value = member(map, name);
    if (!Array.isArray(value) || value.length > max) throw missing(name, `a list of at most ${max} items`);
    return value;
  },

  /** A list of text. */
  texts(map: CborMap, name: string, max = 1_000_000): string[] {
    const list = field.list(map, name, max);
    for (const item of list) if (typeof item !== 'string') throw missing(name, 'a list of text');
    return list as string[];
  },
} as const;
