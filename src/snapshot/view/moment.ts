import { RozenError } from '../../errors.ts';

/** A point in time as a person writes it, with how exactly it was written. Seconds since 1970, whole. */
export interface Moment {
  /** The first second that the words cover: `2026-11-23` begins at midnight. */
  first: number;
  /** The last second that they cover: `2026-11-23` ends at 23:59:59. */
  last: number;
}

const PATTERN =
  /^(\d{4})(?:-(\d{2})(?:-(\d{2})(?:[T ](\d{2})(?:[:.](\d{2})(?:[:.](\d{2})(?:[.,]\d+)?)?)?\s*(Z|[+-]\d{2}:?\d{2})?)?)?)?$/;

const SPAN: Readonly<Record<string, number>> = {
  s: 1,
  m: 60,
  h: 3600,
  d: 86400,
  w: 7 * 86400,
  mo: 30 * 86400,
  y: 365 * 86400,
};

/**
 * Understands `2026`, `2026-11`, `2026-11-23`, `2026-11-23T18:30[:05]` (a blank or dots as in the folders of a mount
 * are fine too; local time unless `Z` or `+01:00` follows), `@1795000000`, and spans back from `now`: `90m`, `36h`,
 * `7d`, `2w`, `6mo`, `1y`. Null when it is none of these.
 */
export function parseMoment(text: string, now: number = Date.now() / 1000): Moment | null {
  const word = text.trim();
  const epoch = /^@(\d{1,12})$/.exec(word);
  if (epoch !== null) return { first: Number(epoch[1]), last: Number(epoch[1]) };
  const span = /^(\d{1,6})(s|m|h|d|w|mo|y)$/.exec(word);
  if (span !== null) {
    const at = Math.floor(now - Number(span[1]) * (SPAN[span[2] as string] as number));
    return { first: at, last: at };
  }
  const parts = PATTERN.exec(word);
  if (parts === null) return null;
  const [, year, month, day, hour, minute, second, zone] = parts;
  const numbers = [year, month, day, hour, minute, second].map((part) =>
    part === undefined ? undefined : Number(part),
  );
  if (outside(numbers[1], 1, 12) || outside(numbers[2], 1, 31) || outside(numbers[3], 0, 23)) return null;
  if (outside(numbers[4], 0, 59) || outside(numbers[5], 0, 60)) return null;
  const given = numbers.filter((n) => n !== undefined).length;
  const first = instant(numbers, zone);
  // `2026-02-31` would silently become a day in March.
  if (numbers[2] !== undefined && !exists(numbers[0] as number, numbers[1] as number, numbers[2])) return null;
  const next = [...numbers];
  next[given - 1] = (next[given - 1] as number) + 1;
  return { first, last: Math.max(first, instant(next, zone) - 1) };
}

/** The same, or a usage error that names the option. */
export function requireMoment(text: string, what: string): Moment {
  const moment = parseMoment(text);
  if (moment === null) {
    throw new RozenError('usage', `${what}: '${text}' is no time`, {
      hint: "write it like 2026-11-23, '2026-11-23 18:30' or 7d",
    });
  }
  return moment;
}

function outside(value: number | undefined, low: number, high: number): boolean {
  return value !== undefined && (value < low || value > high);
}

function exists(year: number, month: number, day: number): boolean {
  return day <= new Date(Date.UTC(year, month, 0)).getUTCDate();
}

function instant(parts: readonly (number | undefined)[], zone: string | undefined): number {
  const [year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0] = parts;
  if (zone === undefined) return Math.floor(new Date(year, month - 1, day, hour, minute, second).getTime() / 1000);
  const utc = Date.UTC(year, month - 1, day, hour, minute, second) / 1000;
  const offset = /^([+-])(\d{2}):?(\d{2})$/.exec(zone);
  if (offset === null) return utc;
  const seconds = Number(offset[2]) * 3600 + Number(offset[3]) * 60;
  return offset[1] === '+' ? utc - seconds : utc + seconds;
}
