import { afterAll, beforeAll } from 'vitest';
import { RetryStore } from '../../src/store/retry.ts';
import { S3Store } from '../../src/store/s3.ts';
import { parseS3Place } from '../../src/store/s3-place.ts';
import { storeContract } from '../contract/store.ts';
import { CREDENTIALS, type S3Server, startS3 } from '../s3/server.mjs';

let server: S3Server;
let count = 0;

beforeAll(async () => {
  process.env.AWS_ACCESS_KEY_ID = CREDENTIALS.accessKeyId;
  process.env.AWS_SECRET_ACCESS_KEY = CREDENTIALS.secretAccessKey;
  server = await startS3();
});
afterAll(() => server.close());

const fresh = () => new S3Store(parseS3Place(`s3://bucket/prefix-${count++}`, { endpoint: server.endpoint }));

storeContract('S3Store', fresh);
storeContract('S3Store below a RetryStore', () => new RetryStore(fresh()));
