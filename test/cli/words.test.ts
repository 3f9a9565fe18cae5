import { describe, expect, test } from 'vitest';
import {
  escapeControl,
  formatDuration,
  formatMode,
  formatSize,
  isoTime,
  jsonName,
  plural,
  printableName,
} from '../../src/cli/display.ts';
import { EXIT, exitCodeOf } from '../../src/cli/exit.ts';
import { asRozenError, errorLine } from '../../src/cli/failure.ts';
import { shellWord } from '../../src/cli/frozen.ts';
import { formatHours, formatMoney } from '../../src/cli/prices.ts';
import { progressText, RateMeter } from '../../src/cli/progress.ts';
import { typeByte } from '../../src/cli/prompt.ts';
import { nearest, parsePercent, parseSize } from '../../src/cli/values.ts';
import { RozenError } from '../../src/errors.ts';

test('sizes, durations, modes and times', () => {
  expect([0, 1023, 1024, 1536, 10 * 1024 ** 2, 512 * 1024 ** 3].map(formatSize)).toEqual([
    '0 B',
    '1023 B',
    '1.00 KiB',
    '1.50 KiB',
    '10.0 MiB',
    '512 GiB',
  ]);
  expect([0, 75, 4000].map(formatDuration)).toEqual(['0:00', '1:15', '1:06:40']);
  expect([0o100644, 0o104755, 0o041777, 0o120777, 0o102640].map(formatMode)).toEqual([
    '-rw-r--r--',
    '-rwsr-xr-x',
    'drwxrwxrwt',
    'lrwxrwxrwx',
    '-rw-r-S---',
  ]);
  expect(isoTime(1795000000, 5)).toBe('2026-11-18T11:06:40.000000005Z');
  expect(isoTime(-1, 0)).toBe('1969-12-31T23:59:59.000000000Z');
});

test('names cannot steer the terminal, and bytes that are no UTF-8 are kept', () => {
  expect(escapeControl('a\x1b[2Jb\n\x9b')).toBe('a\\x1b[2Jb\\x0a\\x9b');
  expect(printableName(Buffer.from('grün\t'))).toBe('grün\\x09');
  expect(printableName(Buffer.from([0x61, 0xff, 0xc3, 0xbc, 0xc3]))).toBe('a\\xffü\\xc3');
  expect(printableName(Buffer.from('\ufffd'))).toBe('\ufffd');
  expect(jsonName('path', Buffer.from('ü'))).toEqual({ path: 'ü' });
  expect(jsonName('path', Buffer.from([0xff]))).toEqual({ path: '\ufffd', pathBase64: '/w==' });
});

test('numbers of things, hours and money', () => {
  expect([plural(1, 'day'), plural(2, 'day'), plural(1, 'entry'), plural(1234, 'entry')]).toEqual([
    '1 day',
    '2 days',
    '1 entry',
    '1,234 entries',
  ]);
  expect([0.1, 1, 12, 4.26].map(formatHours)).toEqual(['6 minutes', '1 hour', '12 hours', '4.3 hours']);
  expect([0, 0.0001, 0.005, 12.345].map((sum) => formatMoney(sum, 'EUR'))).toEqual([
    '0.00 EUR',
    'under 0.01 EUR',
    '0.01 EUR',
    '12.35 EUR',
  ]);
});

test('a word for a shell is quoted as far as it must be', () => {
  expect(['5f3a:/2019', '', 'a b', "it's", '$HOME'].map(shellWord)).toEqual([
    '5f3a:/2019',
    "''",
    "'a b'",
    "'it'\\''s'",
    "'$HOME'",
  ]);
  expect(shellWord(Buffer.from([0x61, 0xff, 0x27, 0x0a]))).toBe("$'a\\xff\\x27\\x0a'");
});

test('sizes and percentages are read', () => {
  expect(['0', '10', '1K', '1.5GiB', '2 MB', '3t'].map((text) => parseSize(text, 'x'))).toEqual([
    0,
    10,
    1024,
    1.5 * 1024 ** 3,
    2 * 1024 ** 2,
    3 * 1024 ** 4,
  ]);
  for (const text of ['', '-1', 'ten', '1X', '1e3', '9999999P']) expect(() => parseSize(text, '--x')).toThrow(/--x/);
  expect(['5', '0.5%', '100 %'].map((text) => parsePercent(text, 'x'))).toEqual([5, 0.5, 100]);
  for (const text of ['0', '101', 'x']) expect(() => parsePercent(text, '--x')).toThrow(/--x/);
});

test('a slip of the finger is recognised, another word is not', () => {
  const known = ['backup', 'mount', 'umount', 'snapshots', 'ls'];
  expect(['bakcup', 'moutn', 'snapshot', 'sl'].map((word) => nearest(word, known))).toEqual([
    'backup',
    'mount',
    'snapshots',
    'ls',
  ]);
  expect(['restore', 'x', ''].map((word) => nearest(word, known))).toEqual([undefined, undefined, undefined]);
});

describe('errors', () => {
  test('are one line with a hint', () => {
    const error = new RozenError('io', 'it\nbroke \x1b[1m', { hint: 'mend it' });
    expect(errorLine(error)).toBe('rozen: it broke \\x1b[1m; mend it');
  });

  test('of the system say what they mean', () => {
    const cause = Object.assign(new Error('ENOSPC: no space'), {
      code: 'ENOSPC',
      errno: -28,
      syscall: 'write',
      path: '/x',
    });
    expect(errorLine(asRozenError(cause))).toMatch(/^rozen: \/x: no space left on the device; free some space/);
    expect(asRozenError(new TypeError('x is not a function')).code).toBe('internal');
  });

  test('have the exit codes of the design', () => {
    const codes = [
      'usage',
      'corrupt',
      'untrusted',
      'no-key',
      'frozen',
      'interrupted',
      'io',
      'locked',
      'internal',
    ] as const;
    expect(codes.map((code) => exitCodeOf(new RozenError(code, 'x')))).toEqual([
      EXIT.usage,
      EXIT.corrupt,
      EXIT.corrupt,
      EXIT.noKey,
      EXIT.frozen,
      EXIT.interrupted,
      1,
      1,
      1,
    ]);
    expect([
      EXIT.done,
      EXIT.failed,
      EXIT.usage,
      EXIT.incomplete,
      EXIT.diverged,
      EXIT.corrupt,
      EXIT.noKey,
      EXIT.frozen,
      EXIT.interrupted,
    ]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 130]);
  });
});

test('the prompt edits by characters, not bytes', () => {
  const type = (text: string): [string, string] => {
    const line: number[] = [];
    let last = 'more';
    for (const byte of Buffer.from(text)) last = typeByte(line, byte);
    return [Buffer.from(line).toString(), last];
  };
  expect(type('pässx\x7f')).toEqual(['päss', 'more']);
  expect(type('pä\x7f\x7f\x7f')).toEqual(['', 'more']);
  expect(type('abc\x15de\r')).toEqual(['de', 'enter']);
  expect(type('a\x03')).toEqual(['a', 'interrupt']);
  expect(type('\x04')).toEqual(['', 'end']);
  expect(type('a\x04b\n')).toEqual(['ab', 'enter']);
});

test('progress tells bytes, files, rate and time left', () => {
  const meter = new RateMeter(0);
  let rate = 0;
  for (let t = 1; t <= 60; t++) rate = meter.update(t * 1000, t * 1024 ** 2);
  expect(Math.round(rate / 1024 ** 2)).toBe(1);
  const text = progressText(
    { bytes: 60 * 1024 ** 2, totalBytes: 120 * 1024 ** 2, files: 3, totalFiles: 9 },
    60,
    1024 ** 2,
  );
  expect(text).toBe('[1:00]  50.0 %  60.0 MiB/120 MiB  3/9 files  1.00 MiB/s  1:00 left');
  expect(progressText({ files: 12 }, 1, 0)).toBe('[0:01]  12 files');
});
