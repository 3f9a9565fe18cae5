/** Which small archives are merged with which. */
import type { ArchiveFacts } from '../../cache/archives.ts';
import type { StoredArchives } from '../../repository/archive-listing.ts';
import { MAX_FORWARDED } from '../../repository/format.ts';
import type { Forwards } from '../../repository/forwards.ts';
import type { NamedArchives } from './survey.ts';

export interface Plan {
  /** What becomes one archive each. */
  merges: ArchiveFacts[][];
  /** Small archives, and those of them that stay as they are. */
  small: ArchiveFacts[];
  kept: ArchiveFacts[];
}

/**
 * The small archives that can be read at once, in the order of the survey, so that what was stored one after another stays together.
 * `goal`: bytes.
 */
export function smallArchives(
  named: NamedArchives,
  { data, index }: StoredArchives,
  { goal, forwards }: { goal: number; forwards: Pick<Forwards, 'known'> },
): ArchiveFacts[] {
  const small: ArchiveFacts[] = [];
  for (const [id, facts] of named) {
    const stored = data.get(id);
    // What is not as it should be is for verify to tell.
    if (stored === undefined || stored.size !== facts.size || !index.has(id)) continue;
    if (facts.size < goal / 2 && isHot(stored) && forwards.known(facts.id) === null) small.push(facts);
  }
  return small;
}

function isHot({ storageClass }: { storageClass?: string }): boolean {
  return storageClass === undefined || storageClass === 'STANDARD';
}

/**
 * Full archives first. The rest is merged too when that at least doubles the size of its largest: so no byte is written anew more often
 * than the size can double below the goal, however often this runs.
 */
export function planMerges(small: readonly ArchiveFacts[], goal: number): Plan {
  const merges: ArchiveFacts[][] = [];
  let open: ArchiveFacts[] = [];
  let bytes = 0;
  for (const facts of small) {
    open.push(facts);
    bytes += facts.size;
    if (bytes < goal && open.length < MAX_FORWARDED) continue;
    merges.push(open);
    open = [];
    bytes = 0;
  }
  const largestFirst = [...open].sort((a, b) => b.size - a.size);
  const left = new Set<ArchiveFacts>();
  for (const facts of largestFirst) {
    if (facts.size <= bytes - facts.size) break;
    left.add(facts);
    bytes -= facts.size;
  }
  const rest = open.filter((facts) => !left.has(facts));
  if (rest.length > 1) merges.push(rest);
  const kept = rest.length > 1 ? [...left] : open;
  return { merges, small: [...small], kept };
}
