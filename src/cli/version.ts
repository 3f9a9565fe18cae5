import { readFileSync } from 'node:fs';
import { packageUrl } from '../entries.ts';

/** Version of the package. */
export function version(): string {
  return (JSON.parse(readFileSync(packageUrl(), 'utf8')) as { version: string }).version;
}
