import type { Repository } from '../repository/repository.ts';
import type { AgainstReport, Divergence } from '../snapshot/verify/against-types.ts';
import type { Finding } from '../snapshot/verify/types.ts';
import type { SnapshotInfo } from '../snapshot/view/listing.ts';
import type { OpenPlace } from '../snapshot/view/place.ts';
import type { ArchiveRepair } from '../snapshot/worm/repair-archive.ts';
import type { LocalRepair } from '../snapshot/worm/repair-local.ts';
import { argumentBytes } from './argument-bytes.ts';
import type { Context } from './context.ts';
import { jsonName, plural, printableName } from './display.ts';
import type { Output } from './output.ts';
import type { Places } from './places.ts';
import type { AgainstRun } from './verify-against.ts';

/** What `verify --against` found in the archive, and what it repaired on either side. */
export interface Repairs {
  /** Null when the archive was not read. */
  findings: Finding[] | null;
  local: LocalRepair[] | null;
  archive: ArchiveRepair | null;
  /** Differences that are gone. */
  done: Set<Divergence>;
  /** Damage of the archive that is left, as far as the snapshot goes that is the newest now. */
  damage: number;
}

interface Compared {
  places: Places;
  place: OpenPlace;
  repository: Repository;
  report: AgainstReport;
  run: AgainstRun;
}

export async function afterAgainst(context: Context, compared: Compared): Promise<Repairs> {
  const { repository, report, run } = compared;
  const repairs: Repairs = { findings: null, local: null, archive: null, done: new Set(), damage: 0 };
  if (run.repair === 'local') await repairLocalSide(compared, repairs);
  if (run.readData || run.repair === 'archive') {
    const { verify } = await import('../snapshot/verify/verify.ts');
    const progress = context.progress('verify');
    try {
      const snapshots = new Set([(await damagedSide(compared)).snapshot.id]);
      const checked = await verify(
        { repository, readData: 100, snapshots, signal: context.signal },
        {
          progress: ({ phase, bytesDone, bytesTotal }) =>
            progress.update({ bytes: bytesDone, totalBytes: bytesTotal, current: phase }),
        },
      );
      repairs.findings = checked.findings;
      repairs.damage = checked.findings.length;
    } finally {
      progress.stop();
    }
  }
  if (run.repair === 'archive') await repairArchivedSide(context, compared, repairs);
  for (const divergence of report.divergences) {
    const fixed = repairs.local?.some(({ path, problem }) => problem === null && path.equals(divergence.path));
    if (fixed === true) repairs.done.add(divergence);
  }
  return repairs;
}

async function repairLocalSide({ place, repository, report, run }: Compared, repairs: Repairs): Promise<void> {
  const { repairLocal } = await import('../snapshot/worm/repair-local.ts');
  const { divergences } = report;
  repairs.local = await repairLocal({
    repository,
    place,
    folder: argumentBytes(run.folder),
    divergences,
    keep: run.keep,
  });
}

/**
 * What of the archive is looked at: what a snapshot shows that was named, else all that the set ever had, of which the newest
 * snapshot of a WORM set knows.
 */
async function damagedSide({ place, repository, run }: Compared): Promise<{ snapshot: SnapshotInfo }> {
  return run.isNamed || place.snapshot.mode !== 'worm'
    ? place
    : { snapshot: await newestOf(repository, place.snapshot) };
}

async function newestOf(repository: Repository, { lineage }: SnapshotInfo): Promise<SnapshotInfo> {
  const { listSnapshots } = await import('../snapshot/view/listing.ts');
  return (await listSnapshots(repository)).filter((it) => it.lineage === lineage).at(-1)!;
}

async function repairArchivedSide(
  context: Context,
  { places, place, repository, run }: Compared,
  repairs: Repairs,
): Promise<void> {
  const { repairArchive } = await import('../snapshot/worm/repair-archive.ts');
  const snapshot = await newestOf(repository, place.snapshot);
  const reader = await (await places.opener()).open(snapshot);
  repairs.archive = await repairArchive({
    repository,
    newest: { reader, snapshot },
    shown: run.isNamed ? place.reader : null,
    folder: argumentBytes(run.folder),
    findings: repairs.findings ?? [],
    signal: context.signal,
  });
  const { damaged, repaired } = repairs.archive;
  // The archives keep the damage for ever; what counts is whether a sound copy of each content is there.
  if (damaged === repaired) repairs.damage = (repairs.findings ?? []).filter((it) => !isOfContent(it)).length;
}

function isOfContent({ object, archive, kind }: Finding): boolean {
  return archive !== null && object.startsWith('data/') && (kind === 'damaged' || kind === 'missing');
}

export function printRepairs(out: Output, { findings, local, archive }: Repairs): void {
  for (const { kind, object, message } of findings ?? [])
    out.line(`${kind.toUpperCase()} ${object}: ${printableName(Buffer.from(message))}`);
  for (const { path, keptAs, problem } of local ?? []) {
    const kept = keptAs === null ? '' : `; what was there is kept as ${printableName(keptAs)}`;
    out.line(
      problem === null
        ? `repaired ${printableName(path)}${kept}`
        : `not repaired ${printableName(path)}: ${printableName(Buffer.from(problem))}`,
    );
  }
  if (archive === null) return;
  const { damaged, repaired, snapshotId, problems } = archive;
  for (const { path, message } of problems) out.line(`not repaired ${printableName(path)}: ${message}`);
  const where = snapshotId === null ? '' : `, snapshot ${snapshotId.slice(0, 8)}`;
  out.line(`${plural(damaged, 'content')} damaged, ${repaired} stored once more${where}`);
}

export function repairsAsJson({ findings, local, archive }: Repairs): Record<string, unknown> {
  return {
    ...(findings === null
      ? {}
      : {
          findings: findings.map(({ kind, object, block, message, fileCount }) => ({
            kind,
            object,
            block,
            message,
            fileCount,
          })),
        }),
    ...(local === null
      ? {}
      : {
          repairedLocal: local.map(({ path, keptAs, problem }) => ({
            ...jsonName('path', path),
            ...(keptAs === null ? {} : jsonName('keptAs', keptAs)),
            problem,
          })),
        }),
    ...(archive === null
      ? {}
      : {
          repairedArchive: {
            ...archive,
            problems: archive.problems.map(({ path, message }) => ({ ...jsonName('path', path), message })),
          },
        }),
  };
}
