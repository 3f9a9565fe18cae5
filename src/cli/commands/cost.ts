import { RozenError } from '../../errors.ts';
import type { ClassCost, ReadCost, ThawCost } from '../../snapshot/cold/estimate.ts';
import type { PriceTable } from '../../snapshot/cold/prices.ts';
import type { ColdPack } from '../../snapshot/cold/thaw.ts';
import type { ObjectInfo } from '../../store/object-store.ts';
import { isRemote, THAW_TIERS } from '../../store/object-store.ts';
import type { Context } from '../context.ts';
import { formatCount, formatSize, formatTable, plural } from '../display.ts';
import { Places } from '../places.ts';
import { formatHours, formatMoney, loadPrices, pricesPath, pricesTitle, readPrices } from '../prices.ts';
import { parseDays } from '../values.ts';

interface Options {
  days: string;
  prices?: string;
  printPrices?: boolean;
}

/** Thawing, by tier, and fetching; null when the table has no price for a class. */
interface Ways {
  thaw: ThawCost[];
  read: ReadCost | null;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  if (options.printPrices) {
    context.out.write(readPrices(pricesPath(options.prices)));
    return;
  }
  const store = await context.store();
  if (!isRemote(store))
    throw new RozenError('usage', `${store.location} lies on this machine: nobody is paid for it`, {
      hint: 'only buckets are',
    });
  const days = parseDays(options.days ?? '7', '--days');
  const table = await loadPrices(options.prices);
  if (args.length === 0) await ofRepository(context, { table, days });
  else await ofPlace(context, args[0]!, { table, days });
}

type By = { table: PriceTable; days: number };

async function ofRepository(context: Context, { table, days }: By): Promise<void> {
  const repository = await context.open('none');
  const { listedPacks, readCost, storageCost } = await import('../../snapshot/cold/estimate.ts');
  const objects: ObjectInfo[] = [];
  for await (const info of repository.store.list('')) objects.push(info);
  repository.close();
  const classes = await storageCost(table, objects, Date.now());
  const packs = listedPacks(objects);
  const { uploadRequests } = await import('../../store/s3-parts.ts');
  const read = readCost(
    table,
    packs.map(({ size, storageClass }) => ({ bytes: size, requests: uploadRequests(size), storageClass })),
  );
  const ways = { thaw: await thawCosts(table, packs, days), read };
  const { out } = context;
  const sum = (field: 'perMonth' | 'upload' | 'earlyDeletion'): number =>
    classes.reduce((all, one) => all + (one[field] ?? 0), 0);
  const total = { perMonth: sum('perMonth'), upload: sum('upload'), earlyDeletion: sum('earlyDeletion') };
  if (out.json) {
    out.document({ ...pricesAsJson(table), days, classes, total, ...waysAsJson(ways) });
    return;
  }
  out.line(`${repository.store.location}, ${pricesTitle(table)}`);
  for (const line of classLines(classes, total, table)) out.line(line);
  for (const { storageClass } of classes.filter(({ perMonth }) => perMonth === null))
    out.warning(`${storageClass}: the table has no price for it`);
  out.line('');
  out.line(`reading everything back, ${plural(packs.length, 'data archive')}:`);
  for (const line of wayLines(ways, table, days)) out.line(line);
}

async function ofPlace(context: Context, text: string, { table, days }: By): Promise<void> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  try {
    const place = await places.openToRead(text);
    const { downloadOf, neededPacks } = await import('../../snapshot/cold/packs.ts');
    const { coldPacks, distinctPacks } = await import('../../snapshot/cold/thaw.ts');
    const { readCost } = await import('../../snapshot/cold/estimate.ts');
    const needed = await neededPacks(place);
    const found = await coldPacks(repository, needed, context.signal);
    const packs = distinctPacks(found);
    const reads = found.map(({ storageClass }, i) => ({ ...downloadOf(needed[i]!), storageClass }));
    const ways = { thaw: await thawCosts(table, packs, days), read: readCost(table, reads) };
    const { out } = context;
    const bytes = packs.reduce((all, { size }) => all + size, 0);
    const count = (state: ColdPack['state']): number => packs.filter((pack) => pack.state === state).length;
    if (out.json) {
      const states = { hot: count('hot'), thawing: count('thawing'), frozen: count('frozen') };
      out.document({
        ...pricesAsJson(table),
        days,
        place: text,
        packs: packs.length,
        bytes,
        states,
        ...waysAsJson(ways),
      });
      return;
    }
    out.line(`${text}, ${pricesTitle(table)}`);
    out.line(
      `${plural(packs.length, 'pack')}, ${formatSize(bytes)}: ${count('hot')} hot, ${count('thawing')} thawing, ${count('frozen')} frozen`,
    );
    for (const line of wayLines(ways, table, days)) out.line(line);
  } finally {
    places.close();
  }
}

/** The tiers that every class has in which something is frozen; none when nothing is. */
async function thawCosts(
  table: PriceTable,
  packs: readonly Pick<ColdPack, 'size' | 'state' | 'storageClass'>[],
  days: number,
): Promise<ThawCost[]> {
  const { thawCost } = await import('../../snapshot/cold/estimate.ts');
  return THAW_TIERS.flatMap((tier) => thawCost(table, packs, { tier, days }) ?? []).filter((cost) => cost.packs > 0);
}

function classLines(
  classes: readonly ClassCost[],
  total: { perMonth: number; upload: number; earlyDeletion: number },
  { currency }: PriceTable,
): string[] {
  const money = (amount: number | null): string => (amount === null ? '?' : formatMoney(amount, currency));
  const rows = classes.map(({ storageClass, objects, bytes, perMonth, upload, earlyDeletion }) => [
    storageClass,
    formatCount(objects),
    formatSize(bytes),
    money(perMonth),
    money(upload),
    money(earlyDeletion),
  ]);
  const all = (field: 'objects' | 'bytes'): number => classes.reduce((sum, one) => sum + one[field], 0);
  rows.push([
    'all',
    formatCount(all('objects')),
    formatSize(all('bytes')),
    money(total.perMonth),
    money(total.upload),
    money(total.earlyDeletion),
  ]);
  return formatTable(['class', '>objects', '>size', '>each month', '>uploaded for', '>if deleted now'], rows);
}

function wayLines({ thaw, read }: Ways, { currency }: PriceTable, days: number): string[] {
  const money = (amount: number): string => formatMoney(amount, currency);
  const lines: string[] = [];
  if (thaw.length > 0) {
    const rows = thaw.map((cost) => [
      cost.tier,
      formatHours(cost.hours),
      money(cost.retrieval + cost.requests),
      money(cost.copies),
      read === null ? '?' : money(read.total),
      read === null ? '?' : money(cost.total + read.total),
    ]);
    lines.push(
      ...formatTable(
        ['tier', '>hours', '>thawing', `>copies of ${plural(days, 'day')}`, '>fetching', '>together'],
        rows,
      ),
    );
  } else lines.push('nothing is frozen');
  if (read === null) lines.push('fetching: the table has no price for a class');
  else
    lines.push(
      `fetching ${formatSize(read.bytes)} by ${plural(read.requests, 'request')}: ${money(read.total)}, of which ${money(read.transfer)} for leaving the region`,
    );
  return lines;
}

function pricesAsJson({ name, date, currency }: PriceTable): Record<string, unknown> {
  return { prices: name, pricesOf: date, currency };
}

function waysAsJson({ thaw, read }: Ways): Record<string, unknown> {
  return { thaw, read };
}
