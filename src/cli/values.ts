import { RozenError } from '../errors.ts';

const POWERS: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 };

/** `1048576`, `1M`, `1.5GiB` → bytes. Units are powers of 1024. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?$/i.exec(text.trim());
  const power = match === null ? undefined : POWERS[(match[2] as string).toLowerCase()];
  const bytes = match === null || power === undefined ? Number.NaN : Math.round(Number(match[1]) * 1024 ** power);
  if (!Number.isSafeInteger(bytes)) {
    throw new RozenError('usage', `${what}: '${text}' is no size`, {
      hint: 'write a number with K, M, G or T, such as 512M',
    });
  }
  return bytes;
}

/** Less would not hold what is read ahead. */
const LEAST_CACHE = 64 * 1024 * 1024;

export function parseCacheSize(text: string): number {
  const bytes = parseSize(text, '--cache-size');
  if (bytes < LEAST_CACHE)
    throw new RozenError('usage', `--cache-size: '${text}' is too small`, { hint: 'give 64M or more' });
  return bytes;
}

const AGES: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000, w: 7 * 86_400_000 };

/** `30m`, `12h`, `3d`, `2w`, `0` → milliseconds. */
export function parseAge(text: string, what: string): number {
  const [, number, unit] = /^([0-9]{1,6})(m|h|d|w)$/.exec(text.trim() === '0' ? '0m' : text.trim()) ?? [];
  if (number === undefined)
    throw new RozenError('usage', `${what}: '${text}' is not an age`, { hint: 'write it like 12h or 3d' });
  return Number(number) * AGES[unit!]!;
}

/** Whole days, up to a hundred years. */
export function parseDays(text: string, what: string): number {
  const days = Number(/^([0-9]{1,5})d?$/.exec(text.trim())?.[1] ?? Number.NaN);
  if (days >= 1 && days <= 36_525) return days;
  throw new RozenError('usage', `${what}: '${text}' is not a number of days`, { hint: 'write it like 90' });
}

/** As S3 servers name them, in either case; which ones there are the server knows. */
export function parseStorageClass(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const name = text.toUpperCase().replaceAll('-', '_');
  if (/^[A-Z0-9_]{1,64}$/.test(name)) return name;
  throw new RozenError('usage', `--storage-class: '${text}' is not a storage class`, {
    hint: 'such as STANDARD_IA, GLACIER_IR, GLACIER or DEEP_ARCHIVE',
  });
}

/** `5`, `5%`, `0.5` → a number above 0 and at most 100. */
export function parsePercent(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*%?$/.exec(text.trim());
  const value = match === null ? Number.NaN : Number(match[1]);
  if (!(value > 0 && value <= 100)) {
    throw new RozenError('usage', `${what}: '${text}' is no percentage`, {
      hint: 'write a number above 0 and at most 100',
    });
  }
  return value;
}

/** The number of a user or group: below 2^32 - 1, which means "none". */
export function parseId(text: string, what: string): number {
  const id = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (!(id < 0xffffffff)) {
    throw new RozenError('usage', `${what}: '${text}' is no number of a user or group`, {
      hint: 'id -u and id -g print those of the user',
    });
  }
  return id;
}

/** `022` → the permission bits that are taken away. */
export function parseUmask(text: string, what: string): number {
  if (!/^0*[0-7]{1,3}$/.test(text)) {
    throw new RozenError('usage', `${what}: '${text}' is no umask`, {
      hint: 'write three octal digits, such as 022 or 077',
    });
  }
  return Number.parseInt(text, 8);
}

/** The nearest of `known` by edit distance, if it is near enough to be a slip of the finger. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length * 0.4)) + 1;
  for (const candidate of known) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/** Damerau-Levenshtein (optimal string alignment): a transposition counts as one slip. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const above = rows[i - 1] as number[];
      let cost = Math.min(
        (above[j] as number) + 1,
        (row[j - 1] as number) + 1,
        (above[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, ((rows[i - 2] as number[])[j - 2] as number) + 1);
      row.push(cost);
    }
    rows.push(row);
  }
  return (rows[a.length] as number[])[b.length] as number;
}
