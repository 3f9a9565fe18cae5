/** Thawing for a command: what it would take, a question, the requests, the wait. For `thaw` and `restore --thaw`. */
import { RozenError } from '../errors.ts';
import type { ThawCost } from '../snapshot/cold/estimate.ts';
import type { NeededPack } from '../snapshot/cold/packs.ts';
import type { PriceTable } from '../snapshot/cold/prices.ts';
import type { ColdPack, PackPlace, ThawProgress } from '../snapshot/cold/thaw.ts';
import type { ThawTier } from '../store/object-store.ts';
import type { Context } from './context.ts';
import { formatSize, isoTime, plural } from './display.ts';
import { formatHours, formatMoney, loadPrices, pricesTitle } from './prices.ts';
import { confirm } from './prompt.ts';
import { parseDays } from './values.ts';

/** As the options of both commands give them. */
export interface ThawOptions {
  tier?: ThawTier;
  days?: string;
  poll?: string;
  prices?: string;
  yes?: boolean;
}

const DEFAULT_DAYS = '7';
/** A HEAD for each pack each time. */
const POLL_MS: Readonly<Record<ThawTier, number>> = { standard: 300_000, bulk: 600_000, expedited: 15_000 };

export interface ThawWish {
  tier: ThawTier;
  days: number;
  pollMs: number;
  yes: boolean;
  /** Look and reckon only. */
  dryRun: boolean;
  wait: boolean;
}

export function thawWish(options: ThawOptions, { dryRun, wait }: { dryRun: boolean; wait: boolean }): ThawWish {
  const { tier = 'standard', poll } = options;
  const days = parseDays(options.days ?? DEFAULT_DAYS, '--days');
  return {
    tier,
    days,
    pollMs: poll === undefined ? POLL_MS[tier] : parsePoll(poll),
    yes: options.yes ?? false,
    dryRun,
    wait,
  };
}

/** For a command that was not asked to thaw. */
export function refuseThawOptions(options: ThawOptions): void {
  const { tier, days, poll, prices, yes } = options;
  const given = Object.entries({ tier, days, poll, prices, yes }).find(([, value]) => value !== undefined)?.[0];
  if (given !== undefined)
    throw new RozenError('usage', `--${given} is for thawing`, { hint: 'add --thaw, or leave it out' });
}

function parsePoll(text: string): number {
  const match = /^(\d{1,6}(?:\.\d+)?)(s|m|h)$/.exec(text.trim());
  const ms = match === null ? 0 : Number(match[1]) * { s: 1000, m: 60_000, h: 3_600_000 }[match[2] as 's' | 'm' | 'h'];
  if (ms > 0) return ms;
  throw new RozenError('usage', `--poll: '${text}' is not a time`, { hint: 'write it like 30s, 5m or 1h' });
}

export interface ThawOutcome {
  packs: ColdPack[];
  /** Null when the table has no price for a class. */
  cost: ThawCost | null;
  table: PriceTable;
  /** Packs that were asked for. */
  asked: number;
  /** Everything can be read now. */
  ready: boolean;
}

/** `what`: for people, what the packs hold. Throws 'frozen' when the answer is no, 'interrupted' after the signal. */
export async function thawPacks(
  context: Context,
  it: { place: PackPlace; needed: readonly Pick<NeededPack, 'id' | 'object' | 'size'>[]; what: string },
  wish: ThawWish & { prices: string | undefined },
): Promise<ThawOutcome> {
  const { coldPacks, distinctPacks, requestThaw, waitForThaw } = await import('../snapshot/cold/thaw.ts');
  const { thawCost } = await import('../snapshot/cold/estimate.ts');
  const { out, signal } = context;
  const { place, needed, what } = it;
  const table = await loadPrices(wish.prices);
  const packs = distinctPacks(await coldPacks(place, needed, signal));
  checkTier(table, packs, wish.tier);
  const cost = thawCost(table, packs, wish);
  const outcome: ThawOutcome = { packs, cost, table, asked: 0, ready: packs.every(({ state }) => state === 'hot') };
  for (const line of planLines(outcome, { what, ...wish })) out.message(line);
  if (wish.dryRun || outcome.ready) return outcome;
  const frozen = packs.filter(({ state }) => state === 'frozen');
  if (frozen.length > 0 && !wish.yes) {
    const agreed = await confirm(
      `thaw ${plural(frozen.length, 'pack')}?`,
      'thawing costs money: add --yes to agree to it',
    );
    if (!agreed) throw new RozenError('frozen', 'nothing was asked for: it stays frozen');
  }
  await requestThaw({ place, signal }, packs, { ...wish, asked: () => outcome.asked++ });
  if (outcome.asked > 0)
    out.message(`asked for ${plural(outcome.asked, 'pack')} (${wish.tier}, for ${plural(wish.days, 'day')})`);
  if (!wish.wait) return outcome;
  await waitForThaw({ place, signal }, packs, { pollMs: wish.pollMs, progress: teller(context) });
  outcome.packs = await coldPacks(place, packs, signal);
  outcome.ready = true;
  return outcome;
}

/** Tells what has changed since the last look. */
function teller({ out }: Context): (progress: ThawProgress) => void {
  let told = '';
  return ({ ready, total, readyBytes, totalBytes, trouble }) => {
    if (trouble !== null) out.warning(`${trouble.message}; asking again later`);
    const line = `${ready} of ${plural(total, 'pack')} can be read, ${formatSize(readyBytes)} of ${formatSize(totalBytes)}`;
    if (line !== told) out.message(line);
    told = line;
  };
}

/** A class that the table knows has the tiers that it lists; of others nothing is known. */
function checkTier(table: PriceTable, packs: readonly ColdPack[], tier: ThawTier): void {
  for (const { state, storageClass } of packs) {
    const price = table.classes.get(storageClass ?? '');
    if (state !== 'frozen' || price === undefined || price.thaw[tier] !== undefined) continue;
    const tiers = Object.keys(price.thaw);
    throw new RozenError('usage', `what lies in ${storageClass} cannot be thawed by --tier ${tier}`, {
      hint: tiers.length === 0 ? 'the price table gives no tier for it' : `choose ${tiers.join(' or ')}`,
    });
  }
}

function planLines({ packs, cost, table }: ThawOutcome, it: { what: string; days: number; tier: ThawTier }): string[] {
  const size = (list: readonly ColdPack[]): string => formatSize(list.reduce((sum, pack) => sum + pack.size, 0));
  const states = (['hot', 'thawing', 'frozen'] as const)
    .map((state) => packs.filter((pack) => pack.state === state))
    .map((list) => (list.length === 0 ? null : `${list.length} ${list[0]!.state} (${size(list)})`))
    .filter((text) => text !== null);
  const lines = [`${it.what}: ${plural(packs.length, 'pack')}${states.length === 0 ? '' : `: ${states.join(', ')}`}`];
  if (cost === null) lines.push(`${it.tier}: no price is known (${pricesTitle(table)})`);
  else if (cost.packs > 0) {
    const money = (amount: number): string => formatMoney(amount, table.currency);
    lines.push(
      `${it.tier}: some ${formatHours(cost.hours)}; ${money(cost.total)}, of which ${money(cost.retrieval + cost.requests)} for thawing and ${money(cost.copies)} for the copies of ${plural(it.days, 'day')} (${pricesTitle(table)})`,
    );
  }
  return lines;
}

export function outcomeAsJson(
  { packs, cost, table, asked, ready }: ThawOutcome,
  { tier, days, dryRun }: ThawWish,
): Record<string, unknown> {
  return {
    tier,
    days,
    dryRun,
    packs: packs.map(({ until, ...pack }) => ({
      ...pack,
      until: until === null ? null : isoTime(Math.floor(until / 1000)),
    })),
    bytes: packs.reduce((sum, { size }) => sum + size, 0),
    asked,
    ready,
    hours: cost?.hours ?? null,
    currency: table.currency,
    pricesOf: table.date,
    cost,
  };
}

/** One line for a person: how it stands now. */
export function outcomeLine({ packs, cost, asked, ready }: ThawOutcome, { dryRun }: ThawWish): string {
  if (ready) {
    const until = Math.min(...packs.map((pack) => pack.until ?? Number.POSITIVE_INFINITY));
    return Number.isFinite(until)
      ? `everything can be read until ${new Date(until).toISOString().slice(0, 16).replace('T', ' ')} UTC`
      : 'everything can be read: nothing of it is frozen';
  }
  if (dryRun) return 'nothing was asked for (--dry-run)';
  const hours = cost === null || cost.packs === 0 ? '' : `, in some ${formatHours(cost.hours)}`;
  return asked > 0 ? `it comes by itself${hours}` : 'it is on its way already';
}
