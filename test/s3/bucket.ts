import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { Sandbox } from '../e2e/rozen.ts';

/** How to get at a server, as serve.mjs and ceph.sh print it. */
export interface S3Access {
  endpoint: string;
  accessKeyId: string;
  secretAccessKey: string;
}

/** Nothing of whoever runs the tests counts. */
export function accessEnvironment({ accessKeyId, secretAccessKey }: S3Access): Record<string, string> {
  return {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    AWS_EC2_METADATA_DISABLED: 'true',
  };
}

/** The sandbox's repository lies in a bucket from now on. */
export function useBucket(sandbox: Sandbox, access: S3Access, place: string): void {
  Object.assign(sandbox.env, accessEnvironment(access), { ROZEN_REPOSITORY: `s3:${access.endpoint}/${place}` });
}

/** The small server in a process of its own: `Sandbox.ok` blocks this one, and what has a process can be killed. */
export async function startServer(...args: string[]): Promise<{ access: S3Access; child: ChildProcess }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'serve.mjs'), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = await once(child.stdout!, 'data');
  return { access: JSON.parse(String(line)) as S3Access, child };
}

export async function endServer(child: ChildProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill(signal);
  await ended;
}
