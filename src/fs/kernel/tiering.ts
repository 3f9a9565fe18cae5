/**
 * Less compiling while a program streams. V8 optimizes a function when it has run for a while, and each thread has its own copies: 190
 * functions, 0.55 s of work by the compiler, just when deciphering and decoding need all cores. Run for longer before that, the same
 * functions cost little. Measured, 2 cores, fresh mount, requests of 128 KiB: 1 GiB of programs 1.22 s instead of 1.35 s, of noise
 * 0.87 s instead of 0.95 s, and once all is optimized 3 % slower; a measure ten times smaller costs 1.5 %. For everything else V8's own
 * measure is better: a walk takes 20 % longer with a larger one.
 */
import { setFlagsFromString } from 'node:v8';
import { CONTROL } from './channel.ts';

/** V8's own measure, bytes of bytecode that a function runs, and ours; of other versions than Node 20's nothing is known here. */
const OWN = 66 * 1024;
const STREAMING = 10_000_000;
const KNOWN = process.versions.v8.startsWith('11.3.');

/** So many large reads in order are a stream; so many other requests without one, and it is over. */
const BEGINS = 16;
const ENDS = 256;

export class Tiering {
  private readonly control: Int32Array;
  private streamed = 0;
  private others = 0;

  /** The measure is the process's; CONTROL.STREAMING says which one is set. */
  constructor(control: Int32Array) {
    this.control = control;
  }

  /** A request was answered; `streaming`: a large read of a program that goes on in order. */
  note(streaming: boolean): void {
    if (streaming) {
      this.others = 0;
      if (++this.streamed === BEGINS) this.set(0, 1);
    } else if (++this.others === ENDS) {
      this.streamed = 0;
      this.set(1, 0);
    }
  }

  private set(from: number, to: number): void {
    if (!KNOWN || Atomics.compareExchange(this.control, CONTROL.STREAMING, from, to) !== from) return;
    setFlagsFromString(`--interrupt-budget=${to === 1 ? STREAMING : OWN}`);
  }
}
