import { decodePage } from '../../archive/tree/page.ts';
import type { PageSource } from '../../archive/tree/read.ts';
import { PageCache } from '../../cache/pages.ts';
import { type LocalState, StateDamaged } from './local-state.ts';

/** Plaintext bytes of decoded pages that stay: some 400,000 files. */
const BUDGET = 48 * 1024 * 1024;

/** The pages of local state. Throws StateDamaged when one is not there or not what it should be. */
export function localPages(local: LocalState): PageSource {
  const cache = new PageCache(BUDGET);
  return {
    page(row, offset) {
      let page = cache.get(row, offset);
      if (page === undefined) {
        const bytes = local.page(row, offset);
        try {
          page = decodePage(bytes, `page ${row}:${offset}`);
        } catch (error) {
          throw new StateDamaged((error as Error).message);
        }
        cache.add(row, offset, page);
      }
      return page;
    },
  };
}
