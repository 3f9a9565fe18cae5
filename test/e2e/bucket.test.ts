import type { ChildProcess } from 'node:child_process';
import { afterAll, describe } from 'vitest';
import { endServer, startServer } from '../s3/bucket.ts';
import { bucketJob } from '../s3/job.ts';

let server: ChildProcess;
afterAll(() => endServer(server));

describe('a repository in a bucket', () => {
  bucketJob(async () => {
    const started = await startServer();
    server = started.child;
    return started.access;
  });
});
