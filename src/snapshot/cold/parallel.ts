/** So many requests are on their way at once, beside the retries that a store makes on its own. */
const AT_ONCE = 16;

/**
 * Works through a list, some items at a time, in order. The first failure, or the signal, ends it when what is under way has ended;
 * what the signal was aborted with after the signal.
 */
export async function inParallel<T>(
  items: readonly T[],
  work: (item: T, index: number) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  let next = 0;
  let failure: unknown;
  const go = async (): Promise<void> => {
    while (next < items.length && failure === undefined && signal?.aborted !== true) {
      const index = next++;
      try {
        await work(items[index]!, index);
      } catch (error) {
        failure ??= error;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, items.length) }, go));
  if (failure !== undefined) throw failure;
  signal?.throwIfAborted();
}
