/** One request as the kernel sent it. The memory is used again for the next one. */
import { get64, IN_HEADER, MIN_READ_BUFFER, nodeIno, nodeSlot } from './abi.ts';

export class Request {
  readonly bytes: Buffer;
  readonly words: Uint32Array;
  /** Bytes that were received; whoever fills `bytes` sets it. */
  length = 0;

  /** `size` at least MIN_READ_BUFFER, or the kernel refuses to send anything. */
  constructor(size = MIN_READ_BUFFER * 2) {
    const memory = new ArrayBuffer(size);
    this.bytes = Buffer.from(memory);
    this.words = new Uint32Array(memory);
  }

  /** Takes in a request that another thread received. */
  load(raw: Uint8Array): void {
    this.length = Math.min(raw.length, this.bytes.length);
    this.bytes.set(raw.subarray(0, this.length));
  }

  /** False when it is too short to be answered at all. */
  get valid(): boolean {
    return this.length >= IN_HEADER.SIZE && this.words[IN_HEADER.LEN] === this.length;
  }

  get opcode(): number {
    return this.words[IN_HEADER.OPCODE]!;
  }

  get slot(): number {
    return nodeSlot(this.words[IN_HEADER.NODEID + 1]!);
  }

  get ino(): number {
    return nodeIno(this.words[IN_HEADER.NODEID]!, this.words[IN_HEADER.NODEID + 1]!);
  }

  /** For messages and maps only: numbers of requests stay below 2^53. */
  get unique(): number {
    return get64(this.words, IN_HEADER.UNIQUE);
  }

  /** The bytes from `at` to the next NUL, without a copy; null when there is no NUL. */
  name(at: number): Buffer | null {
    if (at >= this.length) return null;
    const end = this.bytes.indexOf(0, at);
    return end < 0 || end >= this.length ? null : this.bytes.subarray(at, end);
  }
}
