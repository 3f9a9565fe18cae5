/**
 * What people run: the built modules (dist/) and most of the packages that they use, in few files. A module costs Node about
 * 0.7 ms to find and to load, and a mount needs more than a hundred.
 */
import { resolve } from 'node:path';
import { defineConfig } from 'rolldown';
import { ENTRIES as STARTED } from './dist/entries.js';

/** What threads and processes begin with, and what bin/ runs. */
const ENTRIES = ['cli/main', 'cli/mount-helper-main', ...Object.values(STARTED).map((file) => file.slice(2, -'.js'.length))];

/** Each file has what these modules import and no file above it has. What is imported only when it is needed stays apart. */
const FILES = {
  // All that must be there before a mount's process is started.
  begin: ['cli/main', 'cli/mount-launch', 'cli/mount-child'],
  // What asks a bucket, before the rest of a mount is loaded.
  store: ['cli/mount-store'],
  // What the threads of a mount run.
  read: ['fs/kernel/reader', 'fs/vfs/create'],
  // What its process needs beside that.
  serve: ['cli/mount-server'],
  // The command line.
  command: ['cli/program', 'cli/run', 'cli/commands/mount'],
};

/** What both sides need goes to the smallest. */
function files(graph) {
  const found = Object.entries(FILES).map(([name, begins]) => ({ name, modules: importsOf(begins, graph) }));
  const [begin, store, read, serve, command] = found.map(({ modules }) => modules);
  for (const id of command) if (store.has(id) || read.has(id) || serve.has(id)) begin.add(id);
  return found;
}

function importsOf(names, graph) {
  const found = new Set();
  const visit = (id) => {
    if (found.has(id)) return;
    found.add(id);
    graph.getModuleInfo(id)?.importedIds.forEach(visit);
  };
  for (const name of names) visit(built(name));
  // These run when they are imported: they stay files of their own.
  for (const name of ENTRIES) found.delete(built(name));
  return found;
}

const built = (name) => resolve(import.meta.dirname, `dist/${name}.js`);
let chosen;

export default defineConfig({
  input: Object.fromEntries(ENTRIES.map((name) => [name, built(name)])),
  platform: 'node',
  // ES modules where a package has both: of CommonJS nothing can be left out, which made the S3 client three times as long.
  resolve: { mainFields: ['module', 'main'] },
  preserveEntrySignatures: 'allow-extension',
  // The catalogue of commands loads lazily what others load anyway.
  checks: { ineffectiveDynamicImport: false },
  external: ['koffi', 'lmdb', 'fuse-native'],
  output: {
    dir: 'bundle',
    cleanDir: true,
    sourcemap: true,
    // A fifth less to read; names and lines stay, for stack traces.
    minify: 'dce-only',
    comments: false,
    // Beside each other, so that src/entries.ts finds the entries wherever it ends up.
    chunkFileNames: '[name].js',
    codeSplitting: {
      includeDependenciesRecursively: false,
      groups: [
        {
          debugName: 'files',
          name(id, graph) {
            chosen ??= files(graph);
            return chosen.find(({ modules }) => modules.has(id))?.name ?? null;
          },
        },
      ],
    },
  },
});
