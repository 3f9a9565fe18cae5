/**
 * One reader waits for the kernel at a time: the one that has the lead. It passes the lead on when more requests lie in the
 * queue, and before work that takes time if others came during such work lately; otherwise it answers and goes on itself.
 *
 * Why (measured on 2 cores, mean time of a lookup): two readers that both block in read(2) take turns, each turn wakes a
 * thread on another core, 15-20 µs, and 65 µs when that core had gone to sleep. One reader answers in 7 µs, and with a
 * short spin before it sleeps in 8 µs on an idle machine too. squashfuse takes 65-75 µs there. For the same reason a program that
 * reads at random, one read after the other, gets 16 % more of them when the lead stays where it is.
 */
import { libc } from '../../posix/libc.ts';
import type { Request } from '../protocol/request.ts';
import { CONTROL, STATE } from './channel.ts';
import type { LateRequests } from './late.ts';

/**
 * How often an empty queue is looked at before the leader sleeps; 0.4 µs each. With 24 of them `find` over 75,000 entries took 0.9
 * or 2.2 s, as its requests come some 30 µs apart; with 256 it takes 0.9 s each time.
 */
const SPINS = 256;
/** So many spins in vain in a row, and the next requests are waited for without. */
const PATIENCE = 8;
const PAUSE = 32;
/** After a request that had to wait for work, the lead is passed on before so many works. */
const CROWDED = 64;
/**
 * How often a reader that has helped looks for more of that before it sleeps: some 400 µs. To wake it costs who calls 30 µs, and it comes
 * 50 µs later.
 */
const LOOKS = 3000;
const POLLIN = 1;

/**
 * The word CONTROL.LEAD: in its low bits the number of the reader that has the lead, plus 1, 0 when none has; above them a count of calls
 * (for late requests, and for help), so that a reader that is about to sleep does not sleep over one.
 */
const HOLDER = 0xff;
const ONE_CALL = HOLDER + 1;

/** What a reader does next. */
export const TURN = { END: 0, LEAD: 1, LATE: 2 } as const;

/** Takes the lead from a reader that has died; nor does it sleep any more. */
export function releaseLead(control: Int32Array, worker: number): void {
  Atomics.and(control, CONTROL.IDLE, ~(1 << worker));
  if ((Atomics.load(control, CONTROL.LEAD) & HOLDER) !== worker + 1) return;
  Atomics.and(control, CONTROL.LEAD, ~HOLDER);
  Atomics.notify(control, CONTROL.LEAD);
}

/** Wakes a reader that sleeps: something was put where it looks before it sleeps again. */
export function callReader(control: Int32Array): void {
  Atomics.add(control, CONTROL.LEAD, ONE_CALL);
  Atomics.notify(control, CONTROL.LEAD, 1);
}

export class Lead {
  private held = false;
  private readonly control: Int32Array;
  private readonly late: LateRequests;
  private readonly help: () => boolean;
  private readonly me: number;
  /** This reader's bit of CONTROL.IDLE. */
  private readonly idle: number;
  private readonly pollfd = Buffer.from(new ArrayBuffer(8));
  private readonly poll = libc().poll;
  private vain = 0;
  private pause = 0;
  private crowded = 0;
  /** Working on a request without having passed the lead on. */
  private alone = false;

  /** `help` does a piece of another reader's work, if one is asked for. */
  constructor(
    control: Int32Array,
    late: LateRequests,
    help: () => boolean,
    { worker, fd }: { worker: number; fd: number },
  ) {
    this.control = control;
    this.late = late;
    this.help = help;
    this.me = worker + 1;
    this.idle = 1 << worker;
    this.pollfd.writeInt32LE(fd, 0);
    this.pollfd.writeInt16LE(POLLIN, 4);
  }

  /** Waits until this reader has the lead, or finds a late request while it waits, which is then in `request`; END when the mount has ended. */
  take(request: Request): number {
    const control = this.control;
    if (this.held) return Atomics.load(control, CONTROL.STATE) === STATE.GO ? TURN.LEAD : TURN.END;
    Atomics.or(control, CONTROL.IDLE, this.idle);
    const turn = this.await(request);
    Atomics.and(control, CONTROL.IDLE, ~this.idle);
    // A late request for a reader that counted as idle until now: whoever holds the lead does not look again.
    if (turn === TURN.LEAD && this.late.pop(request)) {
      this.pass();
      return TURN.LATE;
    }
    return turn;
  }

  private await(request: Request): number {
    const control = this.control;
    for (let looks = 0; ; looks--) {
      // Read before anything is looked for: a call that comes after that changes it, and is not slept over.
      const word = Atomics.load(control, CONTROL.LEAD);
      if (this.late.pop(request)) return TURN.LATE;
      if (Atomics.load(control, CONTROL.STATE) !== STATE.GO) return TURN.END;
      if ((word & HOLDER) === 0) {
        this.held = Atomics.compareExchange(control, CONTROL.LEAD, word, word | this.me) === word;
        if (this.held) return TURN.LEAD;
      } else if (this.help()) looks = LOOKS;
      else if (looks <= 0) Atomics.wait(control, CONTROL.LEAD, word);
    }
  }

  /** Lets another reader wait for the kernel. Costs nothing when the lead is already gone. */
  pass(): void {
    if (!this.held) return;
    this.held = false;
    Atomics.and(this.control, CONTROL.LEAD, ~HOLDER);
    Atomics.notify(this.control, CONTROL.LEAD, 1);
  }

  /** Work of a fraction of a millisecond begins. */
  work(): void {
    if (!this.held) return;
    if (this.crowded === 0 && !this.more()) {
      this.alone = true;
      return;
    }
    if (this.crowded > 0) this.crowded--;
    this.pass();
  }

  /** Wakes a reader that sleeps, to help with a request that this one works on alone. False when none sleeps or more requests wait. */
  call(): boolean {
    if (!this.held || !this.alone || Atomics.load(this.control, CONTROL.IDLE) === 0) return false;
    callReader(this.control);
    return true;
  }

  /** True when a request lies in the kernel's queue. */
  more(): boolean {
    return this.poll(this.pollfd, 1, 0) > 0;
  }

  /** The work on a request is done, and its answer not yet sent. */
  done(): void {
    if (!this.alone) return;
    this.alone = false;
    if (this.more()) this.crowded = CROWDED;
  }

  /** Looks at the queue for some microseconds: a program that has just got an answer often asks again at once. */
  spin(): void {
    if (this.pause > 0) {
      this.pause--;
      return;
    }
    for (let i = 0; i < SPINS; i++) {
      if (this.more()) {
        this.vain = 0;
        return;
      }
    }
    if (++this.vain >= PATIENCE) {
      this.vain = PATIENCE / 2;
      this.pause = PAUSE;
    }
  }

  /** The connection is gone: every reader that waits for the lead ends. */
  end(): void {
    this.held = false;
    Atomics.store(this.control, CONTROL.STATE, STATE.STOP);
    Atomics.and(this.control, CONTROL.LEAD, ~HOLDER);
    Atomics.notify(this.control, CONTROL.LEAD);
  }
}
