/** Classes of S3 whose objects must be thawed before they can be read. GLACIER_IR is not among them: it is read at once. */
const FROZEN = new Set(['GLACIER', 'DEEP_ARCHIVE']);

export function isFrozenClass(storageClass: string | null | undefined): boolean {
  return FROZEN.has(storageClass ?? '');
}
