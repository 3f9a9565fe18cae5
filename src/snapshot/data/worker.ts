/** The thread behind `WorkerPool`: reads, chunks and hashes files, seals blocks. Synchronous: it has nothing else to do. */
import { parentPort, workerData } from 'node:worker_threads';
import { type SealContext, sealFrame } from '../../archive/frame.ts';
import { libc } from '../../posix/libc.ts';
import { threadLoaded } from '../../posix/thread.ts';
import { gearTable } from './chunker.ts';
import type { Answer, Job, WorkerSetup } from './messages.ts';
import { FileScanner } from './scan.ts';
import { openSlab, openSlot } from './slab.ts';

libc();
threadLoaded();
const setup = workerData as WorkerSetup;
const port = parentPort!;
const slots = setup.slots.map((memory) => openSlot(memory));
const archives = new Map<number, SealContext>();
const scanner = new FileScanner({
  slabs: setup.slabs.map((memory) => openSlab(memory)),
  gear: gearTable(setup.chunkerKey),
  contentIdKey: setup.contentIdKey,
  idBytes: setup.idBytes,
});

function run(job: Exclude<Job, { kind: 'archive' | 'forget' | 'close' }>): number {
  switch (job.kind) {
    case 'scan':
      return scanner.scan(job.slab, job.count);
    case 'open':
      return scanner.open(job.slab);
    case 'piece':
      return scanner.piece(job.slab);
    case 'seal': {
      const slot = slots[job.slot]!;
      const frame = sealFrame(archives.get(job.archive)!, {
        type: 'DATA',
        sequence: job.sequence,
        plaintext: slot.plain.subarray(0, job.length),
        codec: setup.codec,
        firstRecord: job.firstRecord,
        parts: job.parts,
        target: slot.frame,
      });
      return frame.length;
    }
  }
}

port.on('message', (job: Job) => {
  if (job.kind === 'archive') archives.set(job.archive, job.context);
  else if (job.kind === 'forget') {
    archives.get(job.archive)?.key.fill(0);
    archives.delete(job.archive);
  } else if (job.kind === 'close') scanner.close();
  else {
    let answer: Answer;
    try {
      answer = { job: job.job, value: run(job) };
    } catch (error) {
      answer = { job: job.job, error: error instanceof Error ? (error.stack ?? error.message) : String(error) };
    }
    port.postMessage(answer);
  }
});
