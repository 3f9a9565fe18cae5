/** What an image says of itself: the only file that imports packages for images, and only when there is one to look at. */

export interface ImageFacts {
  type: string;
  width: number;
  height: number;
  /** When the picture was taken, as the camera wrote it; null when it does not say. */
  taken: string | null;
}

/** Null for what is no image, or is too damaged to tell. */
export async function imageFacts(bytes: Buffer): Promise<ImageFacts | null> {
  const { imageSize } = await import('image-size');
  let size: ReturnType<typeof imageSize>;
  try {
    size = imageSize(bytes);
  } catch {
    return null;
  }
  return {
    type: size.type ?? 'image',
    width: size.width ?? 0,
    height: size.height ?? 0,
    taken: await takenAt(bytes),
  };
}

async function takenAt(bytes: Buffer): Promise<string | null> {
  const { default: exifr } = await import('exifr');
  try {
    // As written: a camera knows no time zone.
    const tags = await exifr.parse(bytes, { pick: ['DateTimeOriginal', 'CreateDate'], reviveValues: false });
    const date = tags?.DateTimeOriginal ?? tags?.CreateDate;
    return typeof date === 'string' ? date : null;
  } catch {
    return null;
  }
}
