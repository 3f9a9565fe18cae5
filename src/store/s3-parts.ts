/** How a file is cut for its way to a bucket. */
const MIB = 1024 * 1024;
/** S3 wants 5 MiB at least; many small requests cost more than they save. */
export const MIN_PART = 16 * MIB;
/** S3 allows 10,000 parts. Fewer and larger ones for large archives: 8 GiB travel in parts of 32 MiB. */
const MANY_PARTS = 256;

/** Bytes of each part but the last; follows from the size of the file alone, so that every later run cuts it the same way. */
export function partSize(size: number): number {
  let part = MIN_PART;
  while (size > part * MANY_PARTS) part *= 2;
  return part;
}

/** Requests that write an object of this size: one, or its parts with a beginning and an end. */
export function uploadRequests(size: number): number {
  return size <= MIN_PART ? 1 : Math.ceil(size / partSize(size)) + 2;
}

/** The MD5, in hex, of what was sent in one request, unless the server encrypts with keys of its own; null for what was joined of parts. */
export function md5OfETag(etag: string): string | null {
  return /^"?([0-9a-f]{32})"?$/.exec(etag)?.[1] ?? null;
}
