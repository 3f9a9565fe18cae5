/** Where the price table comes from: --prices, the configuration folder, the one that comes with Rozen. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { pricesUrl } from '../entries.ts';
import { RozenError } from '../errors.ts';
import { reasonOf } from '../posix/reason.ts';
import { configHome } from '../repository/paths.ts';
import { type PriceTable, readPriceTable } from '../snapshot/cold/prices.ts';

/** Path of the table that counts. */
export function pricesPath(named: string | undefined): string {
  if (named !== undefined) return named;
  const own = join(configHome(), 'prices.toml');
  return existsSync(own) ? own : fileURLToPath(pricesUrl());
}

/** The text of a table. Throws 'usage' when it cannot be read. */
export function readPrices(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new RozenError('usage', `${path}: the prices cannot be read: ${reasonOf(cause)}`, { cause });
  }
}

export async function loadPrices(named: string | undefined): Promise<PriceTable> {
  const path = pricesPath(named);
  const { parse } = await import('smol-toml');
  let document: unknown;
  try {
    document = parse(readPrices(path));
  } catch (cause) {
    if (cause instanceof RozenError) throw cause;
    const [first = 'syntax error'] = (cause as Error).message.split('\n');
    const line = (cause as { line?: number }).line;
    throw new RozenError('usage', `${path}${line === undefined ? '' : `, line ${line}`}: ${first}`, { cause });
  }
  return readPriceTable(document, path);
}

/** `0.23 USD`; what is more than nothing is never shown as nothing. */
export function formatMoney(amount: number, currency: string): string {
  if (amount > 0 && amount < 0.005) return `under 0.01 ${currency}`;
  return `${amount.toFixed(2)} ${currency}`;
}

/** `12 hours`, `6 minutes`. */
export function formatHours(hours: number): string {
  if (hours < 1) return `${Math.max(1, Math.round(hours * 60))} minutes`;
  const rounded = Math.round(hours * 10) / 10;
  return `${rounded} ${rounded === 1 ? 'hour' : 'hours'}`;
}

/** What a sum was reckoned by. */
export function pricesTitle({ name, date }: PriceTable): string {
  return `prices of ${name}, ${date}`;
}
