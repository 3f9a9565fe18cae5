import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // The tests start real mounts and worker threads: one file at a time per core is enough.
    maxWorkers: 2,
  },
});
