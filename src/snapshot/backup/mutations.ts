/** A finished plan as sorted changes of the trees. Generators: only one row at a time exists as objects. */
import { Cursor, type PageSource } from '../../archive/tree/read.ts';
import { EXTENT, type Field, INODE, TREES, type TreeRoots, XATTR } from '../../archive/tree/schema.ts';
import type { Mutation } from '../../archive/tree/update.ts';
import { FIELD, NAME_OP, PIECE, type Plan, REPLACES, STATE, VOID } from './plan.ts';
import { S_IFMT, S_IFREG } from './walk.ts';

/** The trees that the changes are for; null: they begin empty. */
export interface OldTrees {
  source: PageSource;
  roots: TreeRoots;
}

const REMOVED = 0x8000_0000;

/**
 * Inodes that a plan touches, ascending: numbers of records, or REMOVED plus a place in `plan.removed` (which this sorts).
 * New inodes come in order as they are, so that a first backup sorts nothing.
 */
function touched(plan: Plan): Uint32Array {
  const { records, removed } = plan;
  removed.sort((a, b) => a - b);
  const fresh: number[] = [];
  const known: number[] = [];
  for (let record = 0; record < records.count; record++) {
    const state = records.get(record, FIELD.state);
    if ((state & STATE.put) === 0 || (state & STATE.dropped) !== 0) continue;
    (state & STATE.fresh ? fresh : known).push(record);
  }
  known.sort((a, b) => records.get(a, FIELD.inode) - records.get(b, FIELD.inode));
  const order = new Uint32Array(fresh.length + known.length + removed.length);
  let f = 0;
  let k = 0;
  let r = 0;
  for (let at = 0; at < order.length; at++) {
    const freshInode = f < fresh.length ? records.get(fresh[f]!, FIELD.inode) : Number.POSITIVE_INFINITY;
    const knownInode = k < known.length ? records.get(known[k]!, FIELD.inode) : Number.POSITIVE_INFINITY;
    const removedInode = r < removed.length ? removed[r]! : Number.POSITIVE_INFINITY;
    if (freshInode < knownInode && freshInode < removedInode) order[at] = fresh[f++]!;
    else if (knownInode < removedInode) order[at] = known[k++]!;
    else order[at] = REMOVED + r++;
  }
  return order;
}

export class Mutations {
  readonly #plan: Plan;
  readonly #old: OldTrees | null;
  readonly #order: Uint32Array;

  /** The plan must not change any more. */
  constructor(plan: Plan, old: OldTrees | null) {
    this.#plan = plan;
    this.#old = old;
    this.#order = touched(plan);
  }

  *names(): Generator<Mutation> {
    const { names } = this.#plan;
    const { ops, parents, starts } = names;
    const groups = parents.map((_, group) => group).sort((a, b) => parents[a]! - parents[b]!);
    for (const group of groups) {
      const parent = parents[group]!;
      if (parent === VOID) continue;
      const end = group + 1 < starts.length ? starts[group + 1]! : ops.count;
      for (let op = starts[group]!; op < end; op++) {
        const outcome = this.#plan.nameOutcome(op);
        if (outcome === 'nothing') continue;
        const name = names.arena.bytes(ops.get(op, NAME_OP.at), ops.get(op, NAME_OP.length));
        const type = ops.get(op, NAME_OP.type) & ~REPLACES;
        yield { key: [parent, name], value: outcome === 'remove' ? null : [ops.get(op, NAME_OP.inode), type] };
      }
    }
  }

  *inodes(): Generator<Mutation> {
    const { records, removed, targets, worm } = this.#plan;
    const old = worm ? this.#cursor('inodes') : null;
    for (const it of this.#order) {
      if (it >= REMOVED) {
        const inode = removed[it - REMOVED]!;
        yield { key: [inode], value: worm ? unnamed(old, inode) : null };
        continue;
      }
      yield {
        key: [records.get(it, FIELD.inode)],
        value: [
          records.get(it, FIELD.mode),
          records.get(it, FIELD.uid),
          records.get(it, FIELD.gid),
          records.get(it, FIELD.nlink),
          records.get(it, FIELD.size),
          records.get(it, FIELD.blocks),
          records.get(it, FIELD.mtimeSec),
          records.get(it, FIELD.mtimeNs),
          records.get(it, FIELD.ctimeSec),
          records.get(it, FIELD.ctimeNs),
          records.get(it, FIELD.btimeSec),
          records.get(it, FIELD.btimeNs),
          records.get(it, FIELD.rdev),
          records.get(it, FIELD.version),
          records.get(it, FIELD.parent),
          records.get(it, FIELD.flags),
          records.get(it, FIELD.sourceDev),
          records.get(it, FIELD.sourceIno),
          targets.get(it) ?? NOTHING,
        ],
      };
    }
  }

  /** A new content has a higher version than the old one. */
  *extents(): Generator<Mutation> {
    const { records, removed, extents, rewritten, worm } = this.#plan;
    const old = this.#cursor('extents');
    // Nothing else is done in a run that repairs.
    if (rewritten.size > 0) {
      yield* this.#rewritten(old);
      return;
    }
    for (const it of this.#order) {
      if (it >= REMOVED) {
        if (!worm) yield* oldExtents(old, removed[it - REMOVED]!);
        continue;
      }
      if (!records.is(it, STATE.content)) continue;
      const inode = records.get(it, FIELD.inode);
      const version = records.get(it, FIELD.version);
      const first = records.get(it, FIELD.extents);
      const end = first + records.get(it, FIELD.extentCount);
      if (!records.is(it, STATE.fresh) && !worm) yield* oldExtents(old, inode);
      for (let e = first; e < end; e++) {
        yield {
          key: [inode, version, extents.get(e, PIECE.offset)],
          value: [extents.get(e, PIECE.length), extents.get(e, PIECE.row), extents.get(e, PIECE.streamOffset)],
        };
      }
    }
  }

  *#rewritten(old: Cursor | null): Generator<Mutation> {
    const { records, rewritten } = this.#plan;
    const order = [...rewritten.keys()].sort(
      (a, b) =>
        records.get(a, FIELD.inode) - records.get(b, FIELD.inode) ||
        records.get(a, FIELD.version) - records.get(b, FIELD.version),
    );
    for (const record of order) yield* this.#rewrittenExtents(record, old);
  }

  /** Extents in place of those that this very version had. */
  *#rewrittenExtents(record: number, old: Cursor | null): Generator<Mutation> {
    const { records, extents } = this.#plan;
    const inode = records.get(record, FIELD.inode);
    const version = records.get(record, FIELD.version);
    const first = records.get(record, FIELD.extents);
    const rows = new Map<number, Field[] | null>();
    for (let on = old?.seek(inode, version) ?? false; on; on = old!.next()) {
      const page = old!.page!;
      if (page.num(EXTENT.inode, old!.index) !== inode || page.num(EXTENT.version, old!.index) !== version) break;
      rows.set(page.num(EXTENT.offset, old!.index), null);
    }
    for (let e = first; e < first + records.get(record, FIELD.extentCount); e++) {
      const value = [extents.get(e, PIECE.length), extents.get(e, PIECE.row), extents.get(e, PIECE.streamOffset)];
      rows.set(extents.get(e, PIECE.offset), value);
    }
    for (const [offset, value] of [...rows].sort((a, b) => a[0] - b[0])) yield { key: [inode, version, offset], value };
  }

  *xattrs(): Generator<Mutation> {
    const { records, removed, xattrs, worm } = this.#plan;
    const old = this.#cursor('xattrs');
    for (const it of this.#order) {
      const isRecord = it < REMOVED;
      if (!isRecord && worm) continue;
      if (isRecord && !records.is(it, STATE.xattrs)) continue;
      const inode = isRecord ? records.get(it, FIELD.inode) : removed[it - REMOVED]!;
      const attributes = isRecord ? (xattrs.get(it) ?? []) : [];
      if (isRecord && records.is(it, STATE.fresh)) {
        for (const { name, value } of attributes) yield { key: [inode, name], value: [value] };
        continue;
      }
      let at = 0;
      for (let on = old?.seek(inode) ?? false; on; on = old!.next()) {
        const page = old!.page!;
        if (page.num(XATTR.inode, old!.index) !== inode) break;
        const oldName = page.slice(XATTR.name, old!.index);
        for (; at < attributes.length && Buffer.compare(attributes[at]!.name, oldName) < 0; at++) {
          yield { key: [inode, attributes[at]!.name], value: [attributes[at]!.value] };
        }
        if (at < attributes.length && attributes[at]!.name.equals(oldName)) {
          const { name, value } = attributes[at++]!;
          if (page.compareBytes(XATTR.value, old!.index, value) !== 0) yield { key: [inode, name], value: [value] };
        } else {
          yield { key: [inode, Buffer.from(oldName)], value: null };
        }
      }
      for (; at < attributes.length; at++) yield { key: [inode, attributes[at]!.name], value: [attributes[at]!.value] };
    }
  }

  /** WORM: contents that are new, and those that were seen and are not stored. `empty` is the id of no bytes. */
  *versions(sequence: number, empty: Buffer): Generator<Mutation> {
    const { records, contents, seen } = this.#plan;
    for (const it of this.#order) {
      if (it >= REMOVED) continue;
      const inode = records.get(it, FIELD.inode);
      const stored = records.is(it, STATE.content) || records.is(it, STATE.fresh);
      if (stored && (records.get(it, FIELD.mode) & S_IFMT) === S_IFREG) {
        const place = records.get(it, FIELD.content);
        yield {
          key: [inode, records.get(it, FIELD.version)],
          value: [
            place === 0 ? empty : contents.get(place),
            records.get(it, FIELD.size),
            records.get(it, FIELD.mtimeSec),
            records.get(it, FIELD.mtimeNs),
            sequence,
            sequence,
          ],
        };
      }
      const other = seen.get(inode);
      if (other === undefined) continue;
      const { version, contentId, size, mtimeSec, mtimeNs, firstSeen } = other;
      yield { key: [inode, version], value: [contentId, size, mtimeSec, mtimeNs, firstSeen, sequence] };
    }
  }

  /** WORM: names that are gone while what they named stays. */
  *deleted(sequence: number, time: { timeSec: number; timeNs: number }): Generator<Mutation> {
    const { tombstones } = this.#plan;
    tombstones.sort((a, b) => a.parent - b.parent || Buffer.compare(a.name, b.name));
    for (const { parent, name, inode, type } of tombstones) {
      yield { key: [parent, name, sequence], value: [inode, type, time.timeSec, time.timeNs] };
    }
  }

  #cursor(tree: 'inodes' | 'extents' | 'xattrs'): Cursor | null {
    return this.#old === null ? null : new Cursor(this.#old.source, TREES[tree], this.#old.roots[tree]);
  }
}

const NOTHING = Buffer.alloc(0);

/** The old row of an inode that no name leads to any more: it stays, with no links. */
function unnamed(old: Cursor | null, inode: number): Field[] | null {
  if (old === null || !old.find(inode)) return null;
  const fields = old.page!.fields(old.index).slice(1);
  fields[INODE.nlink - 1] = 0;
  return fields;
}

function* oldExtents(old: Cursor | null, inode: number): Generator<Mutation> {
  for (let on = old?.seek(inode) ?? false; on; on = old!.next()) {
    const page = old!.page!;
    if (page.num(EXTENT.inode, old!.index) !== inode) return;
    const key: Field[] = [inode, page.num(EXTENT.version, old!.index), page.num(EXTENT.offset, old!.index)];
    yield { key, value: null };
  }
}
