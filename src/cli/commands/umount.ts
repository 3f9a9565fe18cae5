import type { Context } from '../context.ts';

export async function run(context: Context, args: string[], options: { lazy?: boolean }): Promise<undefined> {
  const { unmount } = await import('../../fs/kernel/umount.ts');
  const done = await unmount(args[0] as string, { lazy: options.lazy ?? false });
  const { out } = context;
  if (out.json) out.object(done);
  else if (done.holders !== null) out.warning(`${done.mountpoint} is taken away, but still in use by ${done.holders}`);
  else if (done.stale) out.message(`${done.mountpoint}: the server had died before; cleaned`);
}
