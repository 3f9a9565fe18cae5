/** A data archive in cold storage: what can be said of it without reading it. */
import { KIND_DATA } from '../../archive/format.ts';
import type { ArchiveFacts } from '../../cache/archives.ts';
import { archiveName } from '../../repository/names.ts';
import { type ArchiveCheck, type DataArchive, readHotIndex } from './archive-check.ts';

/** Its hot index in all, and the length of the object. Null when the index is damaged: then nothing is known of its blocks now. */
export async function checkFrozenArchive(check: ArchiveCheck, facts: ArchiveFacts): Promise<DataArchive | null> {
  const { store, findings } = check;
  const object = archiveName(KIND_DATA, facts.id);
  const index = await readHotIndex(check, facts);
  try {
    const info = await store.stat(object);
    findings.counts.objects++;
    if (info === null) findings.add({ kind: 'missing', object, message: 'it is not in the store' });
    else if (info.size !== facts.size) {
      const message = `it has ${info.size} bytes, the signed record says ${facts.size}`;
      findings.add({ kind: 'damaged', object, offset: Math.min(info.size, facts.size), message });
    }
  } catch (error) {
    findings.caught(error, { object });
  }
  if (index === null) return null;
  const { opened, chunks } = index;
  return { id: facts.id.toString('hex'), object, context: opened.context, blocks: opened.blocks, chunks, unread: null };
}
