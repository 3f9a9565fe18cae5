/** The handshake: what the kernel offers, what we take of it. */
import { EPROTO } from '../../posix/errno.ts';
import {
  INIT_FLAGS as F,
  INIT_FLAGS2 as F2,
  IN,
  IN_HEADER,
  INIT_OUT_SIZE,
  KERNEL_MAJOR,
  KERNEL_MINOR,
  KERNEL_MINOR_MIN,
  OPCODE,
  OUT_HEADER,
  putInit,
} from './abi.ts';
import type { Reply } from './reply.ts';
import type { Request } from './request.ts';

/**
 * No READDIRPLUS_AUTO: with it the kernel asks for the attributes of the first entries of a folder only, and `find -size` then looks
 * up each of the others (18,000 in one folder of a walk of 79,000 entries: 1.17 s instead of 1.06); `find -name` takes the same
 * both ways. EXPLICIT_INVAL_DATA: file
 * content is dropped only when we say so. No WRITEBACK_CACHE, locks or splice: nothing here would use them.
 */
const WANTED =
  F.ASYNC_READ |
  F.EXPORT_SUPPORT |
  F.DO_READDIRPLUS |
  F.ASYNC_DIO |
  F.NO_OPEN_SUPPORT |
  F.PARALLEL_DIROPS |
  F.ABORT_ERROR |
  F.MAX_PAGES |
  F.CACHE_SYMLINKS |
  F.NO_OPENDIR_SUPPORT |
  F.EXPLICIT_INVAL_DATA |
  F.INIT_EXT;
/** Permissions and ACLs are checked by the kernel (POSIX_ACL brings default_permissions with it). */
const ENFORCING = F.POSIX_ACL;

/**
 * Reads that wait for a miss count as background requests. With 64, eighty waiting misses starved a local read for 2.7 s.
 * The kernel cuts both to /sys/module/fuse/parameters/max_user_* for unprivileged mounts.
 */
const MAX_BACKGROUND = 4096;
const CONGESTION_THRESHOLD = 3072;
/** As much as the kernel cares to read ahead; it takes the smaller of this and its own limit. */
const MAX_READAHEAD = 16 << 20;

export interface Session {
  minor: number;
  /** Flags in force on both sides. */
  flags: number;
  flags2: number;
}

export interface InitSettings {
  /** The kernel checks ACLs, and permissions with them. */
  enforceAcls: boolean;
}

/**
 * Answers INIT. Returns the session, or null when the kernel must ask again (a newer major version), after the reply was
 * sent. A kernel that is too old gets EPROTO, and the reason is thrown by the caller who finds `minor` below the least.
 */
export function answerInit(request: Request, reply: Reply, settings: InitSettings): Session | null {
  const words = request.words;
  reply.begin(words[IN_HEADER.UNIQUE]!, words[IN_HEADER.UNIQUE + 1]!);
  if (!request.valid || request.opcode !== OPCODE.INIT || request.length < IN.INIT.SIZE) {
    reply.error(EPROTO);
    return { minor: 0, flags: 0, flags2: 0 };
  }
  const major = words[IN.INIT.MAJOR]!;
  const minor = Math.min(words[IN.INIT.MINOR]!, KERNEL_MINOR);
  if (major > KERNEL_MAJOR) {
    putInit(reply.words, OUT_HEADER.WORDS, {
      minor: KERNEL_MINOR,
      maxReadahead: 0,
      flags: 0,
      flags2: 0,
      maxBackground: 0,
      congestionThreshold: 0,
    });
    reply.done(INIT_OUT_SIZE);
    return null;
  }
  if (major < KERNEL_MAJOR || minor < KERNEL_MINOR_MIN) {
    reply.error(EPROTO);
    return { minor: major < KERNEL_MAJOR ? 0 : minor, flags: 0, flags2: 0 };
  }
  const offered = words[IN.INIT.FLAGS]!;
  const extended = (offered & F.INIT_EXT) !== 0 && request.length >= IN.INIT.SIZE_EXT;
  const flags = (WANTED | (settings.enforceAcls ? ENFORCING : 0)) & offered;
  const flags2 = extended ? words[IN.INIT.FLAGS2]! & F2.HAS_EXPIRE_ONLY : 0;
  putInit(reply.words, OUT_HEADER.WORDS, {
    minor,
    maxReadahead: Math.min(words[IN.INIT.MAX_READAHEAD]!, MAX_READAHEAD),
    flags,
    flags2,
    maxBackground: MAX_BACKGROUND,
    congestionThreshold: CONGESTION_THRESHOLD,
  });
  reply.done(INIT_OUT_SIZE);
  return { minor, flags, flags2 };
}
