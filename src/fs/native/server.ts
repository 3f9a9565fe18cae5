/**
 * A mount through libfuse 2 and the package fuse-native. libfuse's threads wait for the kernel; every call is answered in
 * the main thread. It tells nobody when the mount ends, so the table of mounts is looked at.
 */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { RozenError } from '../../errors.ts';
import { detachByFusermount, escapeOption, findFusermount } from '../kernel/fusermount.ts';
import { describeHolders, findHolders } from '../kernel/holders.ts';
import { prepareMountpoint } from '../kernel/mount.ts';
import { MOUNT_TYPE, mountedAt } from '../kernel/mount-table.ts';
import { isRoot, unmountAsRoot, unmountOnce } from '../kernel/umount.ts';
import { logLine } from '../log-line.ts';
import type { MountOrder, MountServer } from '../serving.ts';
import { nativeOperations } from './operations.ts';
import { loadFuseNative, nativeMount, OPTIONS_LIMIT } from './package.ts';
import { Resolver } from './resolver.ts';

/** How often it is looked whether the mount still stands, in ms. */
const LOOK_MS = 250;
/** How long a mount that was taken away may go on for those who hold it, in ms. */
const GRACE = 500;

/** There are no notifications: what the kernel knows holds for a second, as long as a new snapshot may take to show. */
const TIMEOUTS = ['entry_timeout=1', 'attr_timeout=1', 'negative_timeout=1'];

function mountOptions(order: MountOrder): string[] {
  const options = [
    'ro',
    'nosuid',
    'nodev',
    'noatime',
    'use_ino',
    'auto_cache',
    ...TIMEOUTS,
    `subtype=${MOUNT_TYPE.replace(/^fuse\./, '')}`,
    ...((order.enforcePermissions ?? true) ? ['default_permissions'] : []),
    ...(order.allowOther ? ['allow_other'] : []),
  ];
  const room = OPTIONS_LIMIT - Buffer.byteLength(`-o${options.join(',')},fsname=`);
  const source = [order.source, basename(order.source)]
    .map(escapeOption)
    .find((name) => Buffer.byteLength(name) < room);
  return [...options, `fsname=${source ?? 'rozen'}`];
}

class NativeServer implements MountServer {
  readonly mountpoint: string;
  readonly closed: Promise<void>;
  readonly #order: MountOrder;
  #look: NodeJS.Timeout | null = null;
  /** The connection's folder in /sys, there as long as anybody uses the mount; null where fusectl is not mounted. */
  #connection: string | null = null;
  #ending = false;
  #resolveClosed!: () => void;

  constructor(mountpoint: string, order: MountOrder) {
    this.mountpoint = mountpoint;
    this.#order = order;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
  }

  async start(): Promise<void> {
    const { host, map = {}, trace } = this.#order;
    const resolver = new Resolver();
    const operations = nativeOperations({ host, resolver, map, trace: trace ? logLine : null });
    const fuse = nativeMount(this.mountpoint, mountOptions(this.#order), operations);
    await new Promise<void>((resolve, reject) => {
      fuse.mount((error) => (error ? reject(this.#refused(error)) : resolve()));
    });
    process.on('exit', this.#abort);
    host.onInvalidate(() => resolver.forget());
    const minor = mountedAt(this.mountpoint)?.device.split(':')[1];
    const connection = `/sys/fs/fuse/connections/${minor}`;
    if (existsSync(connection)) this.#connection = connection;
    this.#look = setInterval(() => {
      if (!this.#ending && !this.#stands()) void this.#finish();
    }, LOOK_MS);
  }

  async stop(): Promise<string | null> {
    if (this.#ending) {
      await this.closed;
      return null;
    }
    this.#ending = true;
    let holders: string | null = null;
    const detached = mountedAt(this.mountpoint) === undefined;
    if (detached || !(await unmountOnce(this.mountpoint, 'normal').catch(() => false))) {
      holders = describeHolders(findHolders(this.mountpoint)) || 'a process of another user';
      if (!detached)
        await unmountOnce(this.mountpoint, 'force').catch((error) => this.#order.host.report(String(error)));
      await new Promise((resolve) => setTimeout(resolve, GRACE));
    }
    await this.#finish();
    return holders;
  }

  #stands(): boolean {
    if (mountedAt(this.mountpoint)?.type === MOUNT_TYPE) return true;
    return this.#connection !== null && existsSync(this.#connection);
  }

  /** The process ends after this, and with it what is left of the connection. */
  async #finish(): Promise<void> {
    if (this.#look === null) return;
    clearInterval(this.#look);
    this.#look = null;
    this.#ending = true;
    process.off('exit', this.#abort);
    await this.#order.host.close().catch((error) => this.#order.host.report(String(error)));
    this.#resolveClosed();
  }

  readonly #abort = (): void => {
    if (mountedAt(this.mountpoint)?.type !== MOUNT_TYPE) return;
    const program = isRoot() ? null : findFusermount();
    if (program !== null) detachByFusermount(program, this.mountpoint);
    else unmountAsRoot(this.mountpoint, 'force');
  };

  /** libfuse has said the reason on stderr. */
  #refused(cause: Error): RozenError {
    return new RozenError('io', `libfuse could not mount ${this.mountpoint}: ${cause.message}`, {
      hint: isRoot()
        ? 'leave --driver out to mount without libfuse'
        : 'is fusermount installed (package fuse or fuse3)?',
      cause,
    });
  }
}

/** Mounts and serves. The answer comes when the mount stands. */
export async function serveNative(order: MountOrder): Promise<MountServer> {
  loadFuseNative();
  const mountpoint = await prepareMountpoint(order.mountpoint, order.keepClearOf);
  if (Buffer.byteLength(mountpoint) > OPTIONS_LIMIT) {
    throw new RozenError('unsupported', `${mountpoint}: the path is too long for fuse-native`, {
      hint: 'mount at a shorter path, or leave --driver out',
    });
  }
  const server = new NativeServer(mountpoint, order);
  await server.start();
  return server;
}
