/**
 * The modules that a thread or a process of Rozen begins with. Other code names them from here, because only this file
 * lies at the root of the built code both when each module is a file of its own (`dist/`, for the tests) and when they are
 * bundled (`bundle/`, what people run).
 *
 * @public rolldown.config.js reads it from the build, so that none of them is forgotten there.
 */
export const ENTRIES = {
  mountChild: './cli/mount-child.js',
  reader: './fs/kernel/reader.js',
  vfs: './fs/vfs/create.js',
  dataWorker: './snapshot/data/worker.js',
  restoreWorker: './snapshot/restore/worker.js',
  blockWorker: './snapshot/verify/block-worker.js',
} as const;

/** Where the module lies. */
export function entryUrl(name: keyof typeof ENTRIES): URL {
  return new URL(ENTRIES[name], import.meta.url);
}

/** The package's own description, beside the folder of the built code. */
export function packageUrl(): URL {
  return new URL('../package.json', import.meta.url);
}

/** The price table that comes with Rozen. */
export function pricesUrl(): URL {
  return new URL('../prices.toml', import.meta.url);
}
