/** What `--trace` prints: one line per request, and what was answered. */
import { getSystemErrorName } from 'node:util';
import { get64, IN, IN_HEADER, OPCODE, OUT_HEADER } from './abi.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';

const NAMES: readonly string[] = (() => {
  const names: string[] = [];
  for (const [name, code] of Object.entries(OPCODE)) names[code] = name;
  return names;
})();

/** A name as it can stand in one line: bytes that are not printable UTF-8 are escaped. */
function show(name: Uint8Array | null): string {
  if (name === null) return '(no NUL)';
  // JSON leaves DEL and the C1 controls, which a terminal would obey.
  return JSON.stringify(Buffer.from(name).toString()).replace(
    /[\x7f-\x9f\u2028\u2029]/g,
    (control) => `\\u${control.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

function detail(request: Request): string {
  const { words, length } = request;
  const has = (size: number): boolean => length >= size;
  switch (request.opcode) {
    case OPCODE.LOOKUP:
      return ` ${show(request.name(IN_HEADER.SIZE))}`;
    case OPCODE.READ:
    case OPCODE.READDIR:
    case OPCODE.READDIRPLUS:
      return has(IN.READ.SIZE) ? ` at ${get64(words, IN.READ.OFFSET)} for ${words[IN.READ.LENGTH]}` : '';
    case OPCODE.GETXATTR:
      return has(IN.GETXATTR.SIZE) ? ` ${show(request.name(IN.GETXATTR.SIZE))} for ${words[IN.GETXATTR.LENGTH]}` : '';
    case OPCODE.LISTXATTR:
      return has(IN.GETXATTR.SIZE) ? ` for ${words[IN.GETXATTR.LENGTH]}` : '';
    case OPCODE.LSEEK:
      return has(IN.LSEEK.SIZE) ? ` to ${get64(words, IN.LSEEK.OFFSET)} whence ${words[IN.LSEEK.WHENCE]}` : '';
    case OPCODE.OPEN:
    case OPCODE.OPENDIR:
      return has(IN.OPEN.SIZE) ? ` flags 0${words[IN.OPEN.FLAGS]!.toString(8)}` : '';
    case OPCODE.INTERRUPT:
      return has(IN.INTERRUPT.SIZE) ? ` of ${get64(words, IN.INTERRUPT.UNIQUE)}` : '';
    case OPCODE.INIT:
      return has(IN.INIT.SIZE)
        ? ` ${words[IN.INIT.MAJOR]}.${words[IN.INIT.MINOR]} flags ${words[IN.INIT.FLAGS]!.toString(16)}`
        : '';
    default:
      return '';
  }
}

/** `#unique OPCODE node slot:inode … pid` */
export function describeRequest(request: Request): string {
  if (request.length < IN_HEADER.SIZE) return `(${request.length} bytes, no header)`;
  const name = NAMES[request.opcode] ?? `OPCODE ${request.opcode}`;
  const { unique, slot, ino } = request;
  return `#${unique} ${name} ${slot}:${ino}${detail(request)} pid ${request.words[IN_HEADER.PID]}`;
}

/** `= 104 bytes`, `= ENOENT`, `= (no answer)` */
export function describeReply(reply: Reply): string {
  if (reply.length === 0) return '= (no answer)';
  const errno = reply.words[OUT_HEADER.ERROR]! | 0;
  if (errno === 0) return `= ${reply.length - OUT_HEADER.SIZE} bytes`;
  try {
    return `= ${getSystemErrorName(errno)}`;
  } catch {
    return `= error ${-errno}`;
  }
}
