/** Both sides of a file that diverged, for whoever has to decide. */
import { readFileSync } from 'node:fs';
import type { SnapshotReader } from '../../cache/snapshot-reader.ts';
import type { Repository, SnapshotRecord } from '../../repository/repository.ts';
import { S_IFMT, S_IFREG } from '../view/attributes.ts';
import { ContentReader } from '../view/content.ts';
import { SnapshotOpener } from '../view/place.ts';
import { type ImageFacts, imageFacts } from './image-facts.ts';
import type { OpenCase } from './status.ts';

/** Files up to this size are looked into. */
const LOOK_SIZE = 64 * 1024 * 1024;
const TEXT_SIZE = 1024 * 1024;

export interface Side {
  /** Null when it cannot be had, or is too large to be looked into. */
  image: ImageFacts | null;
  text: string | null;
}

const NOTHING: Side = { image: null, text: null };

/** Opens the archived side; null on a machine that can only write. */
export async function openArchivedSide(
  repository: Repository,
  record: SnapshotRecord,
): Promise<{ reader: SnapshotReader; close(): void } | null> {
  if (!(await repository.unlock())) return null;
  const opener = new SnapshotOpener(repository);
  return { reader: await opener.open({ record }), close: () => opener.close() };
}

export async function bothSides(it: OpenCase, reader: SnapshotReader | null): Promise<{ archived: Side; local: Side }> {
  return { archived: reader === null ? NOTHING : await archivedSide(it, reader), local: await localSide(it) };
}

async function archivedSide({ inode, version, archived, mode }: OpenCase, reader: SnapshotReader): Promise<Side> {
  if (archived.size > LOOK_SIZE || (mode & S_IFMT) !== S_IFREG) return NOTHING;
  const pieces: Buffer[] = [];
  for await (const piece of new ContentReader(reader).read({ inode, version, size: archived.size }))
    pieces.push(Buffer.from(piece));
  return look(Buffer.concat(pieces));
}

async function localSide({ path, local, kind }: OpenCase): Promise<Side> {
  if (kind === 'replaced' || local.size > LOOK_SIZE) return NOTHING;
  try {
    return await look(readFileSync(path));
  } catch {
    return NOTHING;
  }
}

async function look(bytes: Buffer): Promise<Side> {
  const image = await imageFacts(bytes);
  return { image, text: image === null ? textOf(bytes) : null };
}

/** Null for what is no UTF-8 text. */
function textOf(bytes: Buffer): string | null {
  if (bytes.length > TEXT_SIZE || bytes.includes(0)) return null;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}
