/** On a real server: `npm run test:s3` starts one and says here where it is. */
import { describe } from 'vitest';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { storeContract } from '../contract/store.ts';
import { accessEnvironment, type S3Access } from './bucket.ts';
import { bucketJob } from './job.ts';

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
});
