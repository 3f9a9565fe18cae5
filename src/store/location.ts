/** Cheap questions about locations, for those who need not load a store. */

/** True for what names a store by a URL; everything else is the path of a folder. */
export function isUrl(location: string): boolean {
  return /^(s3:https?|[a-z0-9]+):\/\//i.test(location);
}

/** True for `s3://bucket/…` and `s3:https://server/bucket/…`. */
export function isS3Location(location: string): boolean {
  return /^s3:(\/\/|https?:\/\/)/i.test(location);
}
