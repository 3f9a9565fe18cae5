/** How numbers, times and names look to a person. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** 1536 → `1.5 KiB`; bytes have no fraction. */
export function formatSize(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit === 0) return `${value} B`;
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/** 1234567 → `1,234,567`. */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+(?!\d))/g, ',');
}

/** `1,234 files`, `1 file`. */
export function plural(count: number, noun: string): string {
  const many = /[^aeiou]y$/.test(noun) ? `${noun.slice(0, -1)}ies` : `${noun}s`;
  return `${formatCount(count)} ${count === 1 ? noun : many}`;
}

/** 75 → `1:15`, 4000 → `1:06:40`. Input in seconds. */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const s = String(whole % 60).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${s}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${s}`;
}

/** Seconds with a fraction, for a thing that just ended: `0.83 s`, `12.4 s`, `3:20`. */
export function formatElapsed(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return formatDuration(seconds);
}

const two = (n: number): string => String(n).padStart(2, '0');

/** Local time, `2026-11-23 06:50:03`. Input in seconds since 1970. */
export function formatTime(seconds: number): string {
  const t = new Date(seconds * 1000);
  if (Number.isNaN(t.getTime())) return `@${seconds}`;
  return `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())} ${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
}

/** ISO 8601 in UTC with nanoseconds: what --json prints. */
export function isoTime(seconds: number, ns = 0): string {
  const t = new Date(seconds * 1000);
  if (Number.isNaN(t.getTime())) return `@${seconds}.${String(ns).padStart(9, '0')}`;
  return t.toISOString().replace(/\.\d+Z$/, `.${String(ns).padStart(9, '0')}Z`);
}

/** By the type bits of st_mode. (A Map: biome's formatter miscounts octal keys of object literals.) */
const TYPE_LETTERS: ReadonlyMap<number, string> = new Map([
  [0o010000, 'p'],
  [0o020000, 'c'],
  [0o040000, 'd'],
  [0o060000, 'b'],
  [0o100000, '-'],
  [0o120000, 'l'],
  [0o140000, 's'],
]);

/** st_mode → `drwxr-xr-t`, as ls(1) writes it. */
export function formatMode(mode: number): string {
  const bits = ['x', 'w', 'r'];
  let text = '';
  for (let shift = 8; shift >= 0; shift--) text += mode & (1 << shift) ? bits[shift % 3] : '-';
  const set = (at: number, bit: number, letter: string): void => {
    if (mode & bit) text = text.slice(0, at) + (text[at] === 'x' ? letter : letter.toUpperCase()) + text.slice(at + 1);
  };
  set(2, 0o4000, 's');
  set(5, 0o2000, 's');
  set(8, 0o1000, 't');
  return (TYPE_LETTERS.get(mode & 0o170000) ?? '?') + text;
}

/** Names of file types as --json prints them and `find --type` takes them by first letter. */
export function typeName(mode: number): string {
  switch (mode & 0o170000) {
    case 0o010000:
      return 'fifo';
    case 0o020000:
      return 'chardev';
    case 0o040000:
      return 'dir';
    case 0o060000:
      return 'dev';
    case 0o100000:
      return 'file';
    case 0o120000:
      return 'symlink';
    case 0o140000:
      return 'socket';
    default:
      return 'unknown';
  }
}

/** Control characters (also C1) as \xNN: a name from an archive must not steer the terminal. */
export function escapeControl(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`);
}

/** A name of bytes for a terminal: control characters and what is not UTF-8 as \xNN. */
export function printableName(name: Uint8Array): string {
  const bytes = Buffer.from(name.buffer, name.byteOffset, name.byteLength);
  const text = bytes.toString('utf8');
  if (!text.includes('\ufffd')) return escapeControl(text);
  if (Buffer.from(text, 'utf8').equals(bytes)) return escapeControl(text);
  let out = '';
  for (let at = 0; at < bytes.length; ) {
    const length = utf8Length(bytes, at);
    if (length === 0) {
      out += `\\x${(bytes[at] as number).toString(16).padStart(2, '0')}`;
      at++;
    } else {
      out += escapeControl(bytes.toString('utf8', at, at + length));
      at += length;
    }
  }
  return out;
}

/** Length of the valid UTF-8 sequence at `at`, 0 when there is none. */
function utf8Length(bytes: Buffer, at: number): number {
  const first = bytes[at] as number;
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (length === 0 || at + length > bytes.length) return 0;
  const piece = bytes.subarray(at, at + length);
  return Buffer.from(piece.toString('utf8'), 'utf8').equals(piece) ? length : 0;
}

/** Fields for --json: `{key}` as text, and `{key}Base64` beside it when the bytes are not UTF-8. */
export function jsonName(key: string, name: Uint8Array): Record<string, string> {
  const bytes = Buffer.from(name.buffer, name.byteOffset, name.byteLength);
  const text = bytes.toString('utf8');
  if (text.includes('\ufffd') && !Buffer.from(text, 'utf8').equals(bytes)) {
    return { [key]: text, [`${key}Base64`]: bytes.toString('base64') };
  }
  return { [key]: text };
}

/** Rows of text as aligned columns; a column whose header begins with `>` is aligned right. */
export function formatTable(headers: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const right = headers.map((h) => h.startsWith('>'));
  const titles = headers.map((h) => h.replace(/^>/, ''));
  const widths = titles.map((title, i) => Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (right[i] ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join('  ')
      .trimEnd();
  return [line(titles), ...rows.map(line)];
}
