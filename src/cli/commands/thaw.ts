import { RozenError } from '../../errors.ts';
import type { NeededPack } from '../../snapshot/cold/packs.ts';
import type { ObjectStore } from '../../store/object-store.ts';
import { isFrozenClass } from '../../store/storage-class.ts';
import type { Context } from '../context.ts';
import { packsOf } from '../frozen.ts';
import { Places } from '../places.ts';
import {
  outcomeAsJson,
  outcomeLine,
  type ThawOptions,
  type ThawOutcome,
  thawPacks,
  thawWish,
} from '../thaw-request.ts';

interface Options extends ThawOptions {
  all?: boolean;
  wait: boolean;
  dryRun?: boolean;
}

export async function run(context: Context, args: string[], options: Options): Promise<undefined> {
  if (args.length > 0 === (options.all === true)) {
    throw new RozenError('usage', args.length > 0 ? '--all thaws every snapshot' : 'thaw needs to know what', {
      hint: args.length > 0 ? 'leave out the names, or --all' : 'name a snapshot, or a place in one: SNAPSHOT:PATH',
    });
  }
  const wish = thawWish(options, { dryRun: options.dryRun ?? false, wait: options.wait });
  const outcome = options.all
    ? await thawAll(context, { ...wish, prices: options.prices })
    : await thawPlaces(context, args, { ...wish, prices: options.prices });
  const { out } = context;
  if (out.json) out.document({ places: args, ...outcomeAsJson(outcome, wish) });
  else out.line(outcomeLine(outcome, wish));
}

type Wish = Parameters<typeof thawPacks>[2];

async function thawPlaces(context: Context, args: readonly string[], wish: Wish): Promise<ThawOutcome> {
  const repository = await context.open('read');
  const places = new Places(context, repository);
  try {
    const opened = [];
    for (const text of args) opened.push(await places.openToRead(text));
    const needed = await packsOf(opened, true);
    return await thawPacks(context, { place: repository, needed, what: args.join(', ') }, wish);
  } finally {
    places.close();
  }
}

/** Needs no key: a listing tells classes and sizes. */
async function thawAll(context: Context, wish: Wish): Promise<ThawOutcome> {
  const repository = await context.open('none');
  try {
    const { store } = repository;
    return await thawPacks(
      context,
      { place: repository, needed: await frozenObjects(store), what: store.location },
      wish,
    );
  } finally {
    repository.close();
  }
}

async function frozenObjects(store: ObjectStore): Promise<Pick<NeededPack, 'id' | 'object' | 'size'>[]> {
  const found: Pick<NeededPack, 'id' | 'object' | 'size'>[] = [];
  const { parseArchiveName } = await import('../../repository/names.ts');
  for await (const { name, size, storageClass } of store.list('data/')) {
    const id = parseArchiveName(name)?.id.toString('hex');
    if (id !== undefined && isFrozenClass(storageClass)) found.push({ id, object: name, size });
  }
  return found;
}
