import { readFileSync } from 'node:fs';

let raw: Buffer[] | null = null;

/**
 * An argument as the bytes that the shell gave. Node decodes argv as UTF-8 and loses names that are not; the kernel
 * still has them. `argument` must be a word of process.argv, or the end of one (`--opt=VALUE`, `SNAPSHOT:PATH`).
 */
export function argumentBytes(argument: string): Buffer {
  if (!argument.includes('\ufffd')) return Buffer.from(argument);
  raw ??= commandLine();
  for (const word of raw) {
    const text = word.toString('utf8');
    if (!text.endsWith(argument)) continue;
    // What stands before the argument in its word decodes to this many bytes only if it is UTF-8 itself: it is an option or an id.
    const before = Buffer.byteLength(text.slice(0, text.length - argument.length));
    const bytes = word.subarray(before);
    if (bytes.toString('utf8') === argument) return bytes;
  }
  return Buffer.from(argument);
}

function commandLine(): Buffer[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync('/proc/self/cmdline');
  } catch {
    return [];
  }
  const words: Buffer[] = [];
  for (let start = 0; start < bytes.length; ) {
    const end = bytes.indexOf(0, start);
    words.push(bytes.subarray(start, end < 0 ? bytes.length : end));
    start = end < 0 ? bytes.length : end + 1;
  }
  return words;
}
