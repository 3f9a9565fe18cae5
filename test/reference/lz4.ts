/** A slow, plain decoder of the LZ4 block format (lz4_Block_format.md). */
export function decodeLz4(bytes: Uint8Array): Uint8Array {
  const out: number[] = [];
  let at = 0;
  const long = (start: number): number => {
    let length = start;
    if (start === 15) {
      let more: number;
      do {
        more = bytes[at++]!;
        length += more;
      } while (more === 255);
    }
    return length;
  };
  while (at < bytes.length) {
    const token = bytes[at++]!;
    const literals = long(token >> 4);
    for (let i = 0; i < literals; i++) out.push(bytes[at++]!);
    if (at >= bytes.length) break;
    const offset = bytes[at]! | (bytes[at + 1]! << 8);
    at += 2;
    const match = long(token & 15) + 4;
    if (offset === 0 || offset > out.length) throw new Error(`lz4: an offset of ${offset}`);
    for (let i = 0; i < match; i++) out.push(out[out.length - offset]!);
  }
  return Uint8Array.from(out);
}
