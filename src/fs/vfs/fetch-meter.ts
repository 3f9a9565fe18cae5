/** What `.rozen/status` says of fetching: the main thread puts it where all threads see it. */
import type { Fetcher } from '../../cache/fetcher.ts';
import { type Board, COUNT } from './board.ts';
import type { StatusFacts } from './status.ts';

/** The size of the cache is looked up this often at most, in ms. */
const SIZE_MS = 500;

export class FetchMeter {
  readonly #fetcher: Fetcher;
  readonly #board: Board;
  #sized = 0;

  constructor(fetcher: Fetcher, board: Board) {
    this.#fetcher = fetcher;
    this.#board = board;
  }

  count(): void {
    const { counters, cache } = this.#fetcher;
    const board = this.#board;
    board.put(COUNT.fetchedFrames, counters.misses);
    board.put(COUNT.storeRequests, counters.requests);
    board.put(COUNT.requestsAhead, counters.ahead);
    board.put(COUNT.fetchedBytes, counters.bytes);
    board.put(COUNT.failedRequests, counters.failed);
    board.put(COUNT.cacheHits, counters.hits);
    const now = Date.now();
    if (cache === null || now - this.#sized < SIZE_MS) return;
    this.#sized = now;
    board.put(COUNT.cacheBytes, cache.totals().bytes);
  }
}

export function cacheFacts(fetcher: Fetcher | null): Pick<StatusFacts, 'cache'> {
  if (fetcher === null) return {};
  const { cache } = fetcher;
  return { cache: cache === null ? null : { folder: cache.folder, budget: cache.budget } };
}
