/**
 * Pictures, films and sound, told by their first bytes and not by their names: what a file is cut into follows from its content
 * alone, so that equal contents are found again wherever they lie. Meant are formats that keep dates, places and previews in front;
 * of others (PNG, GIF) the front alone shows nothing.
 */
import { MEDIA_HEAD } from '../../archive/format.ts';

/** Bytes at the beginning of a file. */
const AT_START: readonly Buffer[] = [
  [0xff, 0xd8, 0xff],
  // TIFF, which most cameras' raw formats are: NEF, CR2, ARW, DNG, PEF …; Panasonic and Olympus have numbers of their own.
  'II*\0',
  'MM\0*',
  'IIU\0',
  'IIRO',
  'IIRS',
  'MMOR',
  'II\x1a\0\0\0HEAPCCDR',
  'FUJIFILMCCD-RAW',
  'FOVb',
  // JPEG XL, JPEG 2000
  [0xff, 0x0a],
  '\0\0\0\x0cJXL ',
  '\0\0\0\x0cjP  ',
  // Matroska and WebM; MPEG program streams
  [0x1a, 0x45, 0xdf, 0xa3],
  [0x00, 0x00, 0x01, 0xba],
  'ID3',
  'fLaC',
  'OggS',
].map((bytes) => (typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : Buffer.from(bytes)));

/** Types of the first box of ISO media files (HEIC, AVIF, CR3, MP4, MOV, M4A …), at byte 4. */
const BOXES = new Set(['ftyp', 'moov', 'mdat', 'wide', 'skip', 'free', 'pnot']);
/** MPEG transport streams: packets of 188 bytes, or of 192 with a time in front (AVCHD), each of which begins so. */
const TS_SYNC = 0x47;
const TS_PACKET = 188;
const TS_TIME = 4;

/** Whether bytes `from` … `to` of `data` are the beginning of a media file. */
export function isMedia(data: Uint8Array, from: number, to: number): boolean {
  const length = to - from;
  if (length < 12) return false;
  for (const magic of AT_START) if (length >= magic.length && startsWith(data, from, magic)) return true;
  const type = String.fromCharCode(data[from + 4]!, data[from + 5]!, data[from + 6]!, data[from + 7]!);
  if (BOXES.has(type)) return true;
  if (String.fromCharCode(...data.subarray(from, from + 4)) === 'RIFF')
    return /^(?:AVI |WAVE)$/.test(String.fromCharCode(...data.subarray(from + 8, from + 12)));
  return isTransportStream(data, from, to, 0) || isTransportStream(data, from, to, TS_TIME);
}

/** How long the first chunk of a media file is. */
export function headLength(size: number): number {
  return Math.min(size, MEDIA_HEAD);
}

function startsWith(data: Uint8Array, from: number, magic: Buffer): boolean {
  for (let i = 0; i < magic.length; i++) if (data[from + i] !== magic[i]) return false;
  return true;
}

function isTransportStream(data: Uint8Array, from: number, to: number, time: number): boolean {
  for (let packet = 0; packet < 4; packet++) {
    const at = from + time + packet * (TS_PACKET + time);
    if (at >= to || data[at] !== TS_SYNC) return false;
  }
  return true;
}
