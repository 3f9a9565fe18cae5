import { RozenError } from '../../errors.ts';
import type { Finding, FindingKind, VerifyListener, VerifyReport } from './types.ts';
import { MAX_FILES } from './types.ts';

export type FindingDraft = Pick<Finding, 'kind' | 'object' | 'message'> & Partial<Finding>;

/** Errors that are a result of verify; others (no key, interrupted, a bug) end it. */
const RESULTS: Partial<Record<RozenError['code'], FindingKind>> = {
  corrupt: 'damaged',
  'not-found': 'missing',
  'not-repository': 'missing',
  untrusted: 'untrusted',
  unsupported: 'inconsistent',
  io: 'unreadable',
};

/** Everything that was found so far, and how far the work has come. One place is told once, whatever check met it first. */
export class Findings {
  readonly all: Finding[] = [];
  readonly notes: string[] = [];
  readonly counts = {
    objects: 0,
    archives: 0,
    pages: 0,
    files: 0,
    blocks: 0,
    chunks: 0,
    snapshots: 0,
    frozen: 0,
    passphrases: 0,
    ageKeys: 0,
  };
  bytesRead = 0;
  bytesTotal = 0;
  #phase = '';
  #bytesDone = 0;
  #told = 0;
  readonly #listener: VerifyListener;
  readonly #signal: AbortSignal | undefined;
  readonly #byPlace = new Map<string, Finding>();
  #parent: Findings | null = null;
  readonly #startedAt = Date.now();

  constructor(listener: VerifyListener, signal?: AbortSignal) {
    this.#listener = listener;
    this.#signal = signal;
  }

  /** Adds a finding, or joins it to the one of the same object and offset. */
  add(draft: FindingDraft): Finding {
    const place = `${draft.object}@${draft.offset ?? draft.message}`;
    const known = this.#byPlace.get(place);
    if (known !== undefined) {
      for (const id of draft.snapshots ?? []) if (!known.snapshots.includes(id)) known.snapshots.push(id);
      known.whole ||= draft.whole ?? false;
      known.frame ??= draft.frame ?? null;
      known.block ??= draft.block ?? null;
      known.length ??= draft.length ?? null;
      return known;
    }
    const finding: Finding = {
      archive: archiveOf(draft.object),
      frame: null,
      block: null,
      offset: null,
      length: null,
      snapshots: [],
      whole: false,
      files: [],
      fileCount: 0,
      ...draft,
      message: draft.message.startsWith(`${draft.object}: `)
        ? draft.message.slice(draft.object.length + 2)
        : draft.message,
    };
    this.all.push(finding);
    this.#byPlace.set(place, finding);
    this.#listener.finding?.(finding);
    return finding;
  }

  /** A finding from what was thrown; throws it on when it is no result of verify. */
  caught(error: unknown, draft: Omit<FindingDraft, 'kind' | 'message'>): Finding {
    const kind = error instanceof RozenError ? RESULTS[error.code] : undefined;
    if (kind === undefined) throw error;
    return this.add({ kind, message: (error as RozenError).message, ...draft });
  }

  /** True if anything was found in this object. */
  has(object: string): boolean {
    return this.all.some((finding) => finding.object === object) || (this.#parent?.has(object) ?? false);
  }

  /** For a check that may be repeated: what it finds and counts is told by `join` only, how far it has come at once. */
  trial(): Findings {
    const trial = new Findings({}, this.#signal);
    trial.#parent = this;
    return trial;
  }

  /** Takes over what a trial that found nothing has counted. */
  join({ counts, notes }: Findings): void {
    for (const name of Object.keys(this.counts) as (keyof typeof counts)[]) this.counts[name] += counts[name];
    this.notes.push(...notes);
  }

  /** A trial's check begins anew, without it. */
  drop(trial: Findings): void {
    this.#bytesDone -= trial.#bytesDone;
  }

  concern(finding: Finding, snapshot: string, path: Buffer): void {
    finding.fileCount++;
    if (finding.files.length < MAX_FILES) finding.files.push({ snapshot, path });
    if (!finding.snapshots.includes(snapshot)) finding.snapshots.push(snapshot);
  }

  note(text: string): void {
    this.notes.push(text);
  }

  phase(name: string, bytesTotal = 0): void {
    this.#phase = name;
    this.#bytesDone = 0;
    this.bytesTotal = bytesTotal;
    this.#tell();
  }

  /** Counts bytes, tells the listener now and then, and throws 'interrupted' once the signal says so. */
  advance(bytes: number, read = bytes): void {
    this.bytesRead += read;
    this.#bytesDone += bytes;
    if (this.#parent !== null) return this.#parent.advance(bytes, read);
    if (this.#signal?.aborted) throw new RozenError('interrupted', 'verify was interrupted');
    const now = Date.now();
    if (now - this.#told < 100) return;
    this.#told = now;
    this.#tell();
  }

  #tell(): void {
    this.#listener.progress?.({
      phase: this.#phase,
      bytesDone: this.#bytesDone,
      bytesTotal: this.bytesTotal,
      findings: this.all.length,
    });
  }

  report(mode: VerifyReport['mode'], sampled: number): VerifyReport {
    return {
      mode,
      sampled,
      ...this.counts,
      bytesRead: this.bytesRead,
      startedAt: this.#startedAt,
      finishedAt: Date.now(),
      findings: this.all,
      notes: this.notes,
    };
  }
}

function archiveOf(object: string): string | null {
  return /^(?:data|index|tree)\/[0-9a-f]{2}\/([0-9a-f]{32})\.(?:roz|rix)$/.exec(object)?.[1] ?? null;
}
