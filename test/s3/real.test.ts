/** On a real server: `npm run test:s3` starts one and says here where it is. */
import { describe } from 'vitest';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { storeContract } from '../contract/store.ts';
import { accessEnvironment, type S3Access } from './bucket.ts';
import { bucketJob } from './job.ts';
import { killJob } from './kills.ts';

const given = process.env.ROZEN_TEST_S3;
const access = given === undefined ? null : (JSON.parse(given) as S3Access);
const run = Date.now();
let count = 0;

describe.runIf(access !== null)('a real S3 server', () => {
  Object.assign(process.env, access === null ? {} : accessEnvironment(access));
  const fresh = () => new S3Store(parseS3Place(`s3:${access!.endpoint}/contract-${run}/${count++}`));
  storeContract('S3Store', fresh);
  storeContract('S3Store below a RetryStore', () => new RetryStore(fresh()));
  bucketJob(async () => access!);

  // Only ceph.sh's own gateway is ours to kill.
  describe.runIf(process.env.CEPH_DIR !== undefined)('killed', () => {
    const { ROZEN_S3_KILLS = '5', ROZEN_S3_KILL_MB = '320' } = process.env;
    killJob(access!, { kills: Number(ROZEN_S3_KILLS), mib: Number(ROZEN_S3_KILL_MB) });
  });
});
