import { RozenError } from '../errors.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { readGenesis } from './genesis.ts';
import { openRepository } from './open.ts';
import { checkGenesis } from './pin.ts';
import { notOwner, type Repository } from './repository.ts';
import {
  decodeWriterFile,
  encodeWriterFile,
  enrolment,
  generateWriter,
  saveWriterFile,
  type Writer,
  type WriterFile,
} from './writer.ts';

/** Adds a writer to the config (needs the root key) and returns its file. */
async function enrollWriter(repository: Repository, name: string): Promise<WriterFile> {
  if (repository.bundle === null) throw notOwner(repository.store.location);
  const { secrets } = repository.bundle;
  const writer: Writer = generateWriter(name);
  const line = enrolment(writer, secrets, Math.floor(Date.now() / 1000));
  await repository.updateConfig((config) => ({ writers: [...config.writers, line] }));
  return { repositoryId: repository.id, genesisHash: repository.genesis.hash, writer, secrets };
}

/** Enrolls this machine: it can add snapshots from now on. Returns the repository as a writer. */
export async function enrollHere(repository: Repository, name: string): Promise<Repository> {
  const file = await enrollWriter(repository, name);
  saveWriterFile(repository.stateDir, file);
  return repository.becomeWriter(file);
}

/**
 * Enrolls another machine and returns its writer file: a secret that lets its holder add, never read. Carry it there over a
 * safe way (ssh) and import it with `importWriter`.
 */
export async function enroll(repository: Repository, { name }: { name: string }): Promise<Buffer> {
  return encodeWriterFile(await enrollWriter(repository, name));
}

/** Makes this machine the writer of a file from `enroll`; the repository is pinned to the genesis in the file. */
export async function importWriter({ store, bytes }: { store: ObjectStore; bytes: Buffer }): Promise<Repository> {
  const file = decodeImported(bytes);
  const genesis = await readGenesis(store);
  checkGenesis(genesis, file, 'the writer file');
  const visitor = await openRepository({ store, need: 'none' });
  checkEnrolled(visitor, file.writer);
  saveWriterFile(visitor.stateDir, file);
  return openRepository({ store, need: 'write' });
}

function decodeImported(bytes: Buffer): WriterFile {
  try {
    return decodeWriterFile(bytes, 'the writer file');
  } catch (cause) {
    if (!(cause instanceof RozenError) || cause.code !== 'corrupt') throw cause;
    throw new RozenError('usage', 'not a writer file', {
      hint: 'make one on an enrolled machine: rozen enroll --name NAME --export FILE',
      cause,
    });
  }
}

/** Refuses a writer whose records no reader would accept: before hours of work, not after. */
export function checkEnrolled(repository: Repository, writer: Writer): void {
  if (repository.writerPublicKey(writer.id).equals(writer.publicKey)) return;
  throw new RozenError(
    'untrusted',
    `writer ${writer.id.toString('hex')} was enrolled with another key than this machine has`,
    {
      hint: 'enroll this machine anew',
    },
  );
}
