import { escapeControl, formatCount, formatDuration, formatSize } from './display.ts';
import type { Output } from './output.ts';

/** What a long command knows about itself. Totals may be unknown, and may grow while the walk goes on. */
export interface ProgressState {
  files?: number;
  totalFiles?: number;
  bytes?: number;
  totalBytes?: number;
  errors?: number;
  /** What is worked on, or which phase this is. */
  current?: string;
}

const BAR_INTERVAL_MS = 100;
const LINE_INTERVAL_MS = 10_000;
/** The rate is taken over this long, so that time left neither jumps nor lags. */
const WINDOW_MS = 15_000;
const SAMPLE_MS = 500;

/** Bytes per second over the last seconds. Pure: the clock comes in (milliseconds). */
export class RateMeter {
  readonly #samples: { time: number; bytes: number }[];

  constructor(now: number) {
    this.#samples = [{ time: now, bytes: 0 }];
  }

  update(now: number, bytes: number): number {
    const last = this.#samples.at(-1) as { time: number; bytes: number };
    // Nothing has moved yet: a walk that comes first must not count as slow reading.
    if (bytes === 0) this.#samples[0] = { time: now, bytes };
    else if (now - last.time >= SAMPLE_MS) this.#samples.push({ time: now, bytes });
    while (this.#samples.length > 2 && now - (this.#samples[1] as { time: number }).time >= WINDOW_MS)
      this.#samples.shift();
    const first = this.#samples[0] as { time: number; bytes: number };
    return now > first.time ? (Math.max(0, bytes - first.bytes) * 1000) / (now - first.time) : 0;
  }
}

/** The text of a progress line without the bar. `elapsed` and `rate` in seconds and bytes per second. */
export function progressText(state: ProgressState, elapsed: number, rate: number): string {
  const parts: string[] = [`[${formatDuration(elapsed)}]`];
  const fraction = fractionOf(state);
  if (fraction !== null) parts.push(`${(fraction * 100).toFixed(1)} %`);
  if (state.bytes !== undefined) {
    parts.push(
      state.totalBytes ? `${formatSize(state.bytes)}/${formatSize(state.totalBytes)}` : formatSize(state.bytes),
    );
  }
  if (state.files !== undefined) {
    parts.push(
      state.totalFiles
        ? `${formatCount(state.files)}/${formatCount(state.totalFiles)} files`
        : `${formatCount(state.files)} files`,
    );
  }
  if (state.bytes !== undefined && rate > 0) parts.push(`${formatSize(Math.round(rate))}/s`);
  if (fraction !== null && fraction < 1 && rate > 0 && state.totalBytes !== undefined && state.bytes !== undefined) {
    parts.push(`${formatDuration((state.totalBytes - state.bytes) / rate)} left`);
  }
  if (state.errors) parts.push(`${formatCount(state.errors)} errors`);
  return parts.join('  ');
}

function fractionOf(state: ProgressState): number | null {
  if (state.totalBytes !== undefined && state.totalBytes > 0 && state.bytes !== undefined) {
    return Math.min(1, state.bytes / state.totalBytes);
  }
  if (state.totalFiles !== undefined && state.totalFiles > 0 && state.files !== undefined) {
    return Math.min(1, state.files / state.totalFiles);
  }
  return null;
}

/** Cuts `text` to `columns`, whole code points only. */
function clip(text: string, columns: number): string {
  const points = [...text];
  return points.length <= columns ? text : `${points.slice(0, Math.max(0, columns - 1)).join('')}…`;
}

/** A bar that is redrawn in place on a terminal; a plain line every ten seconds elsewhere; nothing when quiet. */
export class Progress {
  readonly #out: Output;
  readonly #label: string;
  readonly #terminal: boolean;
  readonly #started = Date.now();
  readonly #meter: RateMeter;
  readonly #timer: NodeJS.Timeout | null;
  #state: ProgressState = {};
  #drawn = false;

  constructor(out: Output, label: string) {
    this.#out = out;
    this.#label = label;
    this.#terminal = process.stderr.isTTY === true;
    this.#meter = new RateMeter(this.#started);
    if (out.quiet) {
      this.#timer = null;
      return;
    }
    this.#timer = setInterval(() => this.#draw(), this.#terminal ? BAR_INTERVAL_MS : LINE_INTERVAL_MS);
    this.#timer.unref();
    out.beforeMessage = () => this.#clear();
  }

  /** Takes over what is given, keeps the rest. Cheap: drawing is the timer's work. */
  update(state: ProgressState): void {
    Object.assign(this.#state, state);
  }

  /** Removes the bar. The caller prints its own summary. */
  stop(): void {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    this.#clear();
    this.#out.beforeMessage = null;
  }

  get elapsedSeconds(): number {
    return (Date.now() - this.#started) / 1000;
  }

  #clear(): void {
    if (!this.#drawn) return;
    process.stderr.write('\r\x1b[K');
    this.#drawn = false;
  }

  #draw(): void {
    const rate = this.#meter.update(Date.now(), this.#state.bytes ?? 0);
    const text = progressText(this.#state, this.elapsedSeconds, rate);
    if (!this.#terminal) {
      process.stderr.write(`${this.#label}: ${text}\n`);
      return;
    }
    const columns = (process.stderr.columns || 80) - 1;
    const fraction = fractionOf(this.#state);
    let line = text;
    const room = columns - text.length - 3;
    if (fraction !== null && room >= 10) {
      const width = Math.min(30, room);
      const full = Math.round(fraction * width);
      line = `${text}  [${'='.repeat(full)}${' '.repeat(width - full)}]`;
    }
    const rest = columns - line.length - 2;
    if (this.#state.current !== undefined && rest >= 12) line += `  ${clip(escapeControl(this.#state.current), rest)}`;
    process.stderr.write(`\r${clip(line, columns)}\x1b[K`);
    this.#drawn = true;
  }
}
