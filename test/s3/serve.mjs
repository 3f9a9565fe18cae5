#!/usr/bin/env node
/**
 * The test server as a program: node test/s3/serve.mjs [--port N] [--dir DIR] [--bucket NAME] [--region R] [--latency MS]
 *   [--restore-ms MS] [--fault-rate 0.05] [--fault-kinds 500,reset] [--seed N] [--log FILE]
 * Prints one line of JSON when it listens: {"endpoint", "accessKeyId", "secretAccessKey"}. With --dir, objects stay.
 */
import { parseArgs } from 'node:util';
import { CREDENTIALS, startS3 } from './server.mjs';

const text = { type: 'string' };
const { values } = parseArgs({
  options: {
    port: { ...text, default: '0' },
    dir: text,
    bucket: { ...text, multiple: true, default: ['test'] },
    region: { ...text, default: 'us-east-1' },
    latency: { ...text, default: '0' },
    'restore-ms': { ...text, default: '0' },
    'fault-rate': { ...text, default: '0' },
    'fault-kinds': text,
    log: text,
    seed: { ...text, default: '1' },
  },
});
const server = await startS3({
  port: Number(values.port),
  dir: values.dir,
  buckets: values.bucket,
  region: values.region,
  latency: Number(values.latency),
  restoreMs: Number(values['restore-ms']),
  faultRate: Number(values['fault-rate']),
  faultKinds: values['fault-kinds']?.split(','),
  seed: Number(values.seed),
  log: values.log,
});
console.log(JSON.stringify({ endpoint: server.endpoint, ...CREDENTIALS }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.close().then(() => process.exit(0)));
