/**
 * Frames of remote archives that a worker gets from the main thread. It asks for those of the next blocks while it works on
 * one: each answer waits in the main thread's queue behind whatever comes from the network at that moment.
 */
import { type ArchiveAccess, isFetched, keepFetched } from '../../cache/frames.ts';
import { RozenError } from '../../errors.ts';
import type { FromWorker, ToWorker } from './messages.ts';

/** Blocks under way for one worker: 4 MiB. */
const AHEAD = 16;

interface Waiting {
  resolve: () => void;
  reject: (error: Error) => void;
  done: Promise<void>;
}

type Frame = Extract<FromWorker, { kind: 'miss' }>;

export class FrameRequests {
  readonly #post: (message: Frame) => void;
  readonly #waiting = new Map<string, Waiting>();

  constructor(post: (message: Frame) => void) {
    this.#post = post;
  }

  /** Resolves when the frame is at hand for `readFrame`. */
  fetch(handle: number, offset: number, length: number): Promise<void> {
    const key = keyOf(handle, offset);
    const under = this.#waiting.get(key);
    if (under !== undefined) return under.done;
    const waiting = {} as Waiting;
    waiting.done = new Promise<void>((resolve, reject) => Object.assign(waiting, { resolve, reject }));
    // Who asked ahead does not wait; who needs the frame asks again.
    waiting.done.catch(() => {});
    this.#waiting.set(key, waiting);
    this.#post({ kind: 'miss', handle, offset, length });
    return waiting.done;
  }

  /** The worker is at `block` and goes on to `last`. */
  ahead({ handle, path, blockOffsets, blockLengths }: ArchiveAccess, block: number, last: number): void {
    if (path !== null || blockOffsets === null || blockLengths === null) return;
    for (let next = block; next <= last && next <= block + AHEAD; next++) {
      const [offset, length] = [blockOffsets[next], blockLengths[next]];
      if (offset === undefined || length === undefined) return;
      if (!isFetched(handle, offset, length)) void this.fetch(handle, offset, length);
    }
  }

  answer(answer: Extract<ToWorker, { kind: 'frame' | 'no-frame' }>): void {
    const { handle, offset } = answer;
    const key = keyOf(handle, offset);
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    if (answer.kind === 'no-frame') waiting?.reject(new RozenError(answer.code, answer.message));
    else {
      const { bytes } = answer;
      keepFetched(handle, offset, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
      waiting?.resolve();
    }
  }
}

function keyOf(handle: number, offset: number): string {
  return `${handle}:${offset}`;
}
