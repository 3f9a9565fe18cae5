/** Cheap questions about locations, for those who need not load a store. */

/** True for what names a store by a URL; everything else is the path of a folder. */
export function isUrl(location: string): boolean {
  return /^(s3:https?|[a-z0-9]+):\/\//i.test(location);
}
