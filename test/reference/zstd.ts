/**
 * A slow, plain Zstandard decoder (RFC 8878), enough for what an archive holds: frames without a dictionary. Bits are read
 * one by one, tables are built as the RFC says, nothing is optimised. Section numbers are the RFC's.
 */

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`zstd: ${message}`);
}

/** Bits from the front, lowest first (§4.1.1 tables). */
class ForwardBits {
  readonly bytes: Uint8Array;
  at: number;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.at = 0;
  }

  read(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++, this.at++) {
      check(this.at < this.bytes.length * 8, 'table description too short');
      value |= ((this.bytes[this.at >> 3]! >> (this.at & 7)) & 1) << i;
    }
    return value;
  }

  /** Whole bytes used. */
  get used(): number {
    return Math.ceil(this.at / 8);
  }
}

/** Bits from the back (§4.1, §4.2.2): the highest set bit of the last byte only marks the end. */
class BackwardBits {
  readonly bytes: Uint8Array;
  /** Bits that are left; negative when more were read than there are (they read as 0). */
  left: number;

  constructor(bytes: Uint8Array) {
    check(bytes.length > 0 && bytes.at(-1) !== 0, 'bit stream without its end mark');
    this.bytes = bytes;
    this.left = bytes.length * 8 - 1 - Math.clz32(bytes.at(-1)!) + 24;
  }

  read(count: number): number {
    let value = 0;
    for (let i = 0; i < count; i++) {
      this.left--;
      const bit = this.left >= 0 ? (this.bytes[this.left >> 3]! >> (this.left & 7)) & 1 : 0;
      value = value * 2 + bit;
    }
    return value;
  }
}

/* ---- FSE (§4.1) ----------------------------------------------------------------------------------------------- */

interface FseTable {
  log: number;
  symbols: number[];
  bits: number[];
  bases: number[];
}

function highestBit(value: number): number {
  return 31 - Math.clz32(value);
}

function buildFse(probabilities: number[], log: number): FseTable {
  const size = 1 << log;
  const symbols = new Array<number>(size).fill(0);
  const next: number[] = [];
  let high = size;
  for (const [symbol, probability] of probabilities.entries()) {
    if (probability === -1) {
      symbols[--high] = symbol;
      next[symbol] = 1;
    } else {
      next[symbol] = probability;
    }
  }
  const step = (size >> 1) + (size >> 3) + 3;
  let at = 0;
  for (const [symbol, probability] of probabilities.entries()) {
    for (let i = 0; i < probability; i++) {
      symbols[at] = symbol;
      do at = (at + step) & (size - 1);
      while (at >= high);
    }
  }
  const bits: number[] = [];
  const bases: number[] = [];
  for (const symbol of symbols) {
    const state = next[symbol]!++;
    const count = log - highestBit(state);
    bits.push(count);
    bases.push((state << count) - size);
  }
  return { log, symbols, bits, bases };
}

/** §4.1.1; returns the table and the bytes used. */
function readFse(bytes: Uint8Array, maxLog: number): { table: FseTable; used: number } {
  const input = new ForwardBits(bytes);
  const log = input.read(4) + 5;
  check(log <= maxLog, `accuracy ${log}`);
  const probabilities: number[] = [];
  let remaining = 1 << log;
  while (remaining > 0) {
    const bits = highestBit(remaining + 1) + 1;
    let value = input.read(bits);
    const lowMask = (1 << (bits - 1)) - 1;
    const threshold = (1 << bits) - 1 - (remaining + 1);
    if ((value & lowMask) < threshold) {
      input.at--;
      value &= lowMask;
    } else if (value > lowMask) {
      value -= threshold;
    }
    const probability = value - 1;
    remaining -= Math.abs(probability);
    probabilities.push(probability);
    if (probability === 0) {
      let repeat: number;
      do {
        repeat = input.read(2);
        for (let i = 0; i < repeat; i++) probabilities.push(0);
      } while (repeat === 3);
    }
    check(probabilities.length <= 256, 'too many symbols');
  }
  check(remaining === 0, 'probabilities do not add up');
  return { table: buildFse(probabilities, log), used: input.used };
}

/* ---- Huffman (§4.2) ------------------------------------------------------------------------------------------- */

interface HuffmanTable {
  maxBits: number;
  symbols: number[];
  bits: number[];
}

function buildHuffman(weights: number[]): HuffmanTable {
  let sum = 0;
  for (const weight of weights) if (weight > 0) sum += 1 << (weight - 1);
  check(sum > 0, 'no Huffman weights');
  const maxBits = highestBit(sum) + 1;
  check(maxBits <= 11, `Huffman codes of ${maxBits} bits`);
  const rest = (1 << maxBits) - sum;
  check((rest & (rest - 1)) === 0, 'Huffman weights do not add up');
  const all = [...weights, highestBit(rest) + 1];
  const symbols: number[] = [];
  const bits: number[] = [];
  for (let weight = 1; weight <= maxBits; weight++) {
    for (const [symbol, own] of all.entries()) {
      if (own !== weight) continue;
      for (let i = 0; i < 1 << (weight - 1); i++) {
        symbols.push(symbol);
        bits.push(maxBits + 1 - weight);
      }
    }
  }
  return { maxBits, symbols, bits };
}

/** §4.2.1; returns the table and the bytes used. */
function readHuffman(bytes: Uint8Array): { table: HuffmanTable; used: number } {
  const first = bytes[0]!;
  const weights: number[] = [];
  if (first >= 128) {
    const count = first - 127;
    for (let i = 0; i < count; i++) {
      const pair = bytes[1 + (i >> 1)]!;
      weights.push(i % 2 === 0 ? pair >> 4 : pair & 15);
    }
    return { table: buildHuffman(weights), used: 1 + Math.ceil(count / 2) };
  }
  const coded = bytes.subarray(1, 1 + first);
  const { table, used } = readFse(coded, 6);
  const input = new BackwardBits(coded.subarray(used));
  const states = [input.read(table.log), input.read(table.log)];
  for (let turn = 0; ; turn ^= 1) {
    const state = states[turn]!;
    weights.push(table.symbols[state]!);
    states[turn] = table.bases[state]! + input.read(table.bits[state]!);
    if (input.left < 0) {
      weights.push(table.symbols[states[turn ^ 1]!]!);
      break;
    }
    check(weights.length < 255, 'too many Huffman weights');
  }
  return { table: buildHuffman(weights), used: 1 + first };
}

function readHuffmanStream(table: HuffmanTable, bytes: Uint8Array, count: number): number[] {
  const input = new BackwardBits(bytes);
  const out: number[] = [];
  for (let i = 0; i < count; i++) {
    const code = input.read(table.maxBits);
    out.push(table.symbols[code]!);
    // Only the bits of the code itself are used up.
    input.left += table.maxBits - table.bits[code]!;
  }
  check(input.left === 0, 'a Huffman stream that does not end where it should');
  return out;
}

/* ---- Blocks (§3.1.1) ------------------------------------------------------------------------------------------ */

const LITERAL_LENGTHS = codes(
  Array.from({ length: 16 }, (_, i) => i),
  [16, 18, 20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536],
  [1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
);
const MATCH_LENGTHS = codes(
  Array.from({ length: 32 }, (_, i) => i + 3),
  [35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539],
  [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
);

function codes(plain: number[], bases: number[], bits: number[]): { base: number; bits: number }[] {
  return [...plain.map((base) => ({ base, bits: 0 })), ...bases.map((base, i) => ({ base, bits: bits[i]! }))];
}

const DEFAULT_LITERALS = buildFse(
  [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1],
  6,
);
const DEFAULT_OFFSETS = buildFse(
  [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
  5,
);
const DEFAULT_MATCHES = buildFse(
  [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
  ],
  6,
);

/** What lives from block to block in a frame. */
interface FrameState {
  out: number[];
  huffman: HuffmanTable | null;
  tables: { literals: FseTable | null; offsets: FseTable | null; matches: FseTable | null };
  repeats: [number, number, number];
}

/** §3.1.1.3.1; returns the literals and the bytes used. */
function readLiterals(state: FrameState, bytes: Uint8Array): { literals: number[]; used: number } {
  const type = bytes[0]! & 3;
  const format = (bytes[0]! >> 2) & 3;
  const header = new ForwardBits(bytes);
  header.read(type < 2 && format % 2 === 0 ? 3 : 4);
  if (type < 2) {
    const size = header.read(format % 2 === 0 ? 5 : format === 1 ? 12 : 20);
    const at = header.used;
    if (type === 1) return { literals: new Array<number>(size).fill(bytes[at]!), used: at + 1 };
    return { literals: [...bytes.subarray(at, at + size)], used: at + size };
  }
  const width = [10, 10, 14, 18][format]!;
  const size = header.read(width);
  const coded = header.read(width);
  const begin = header.used;
  let payload = bytes.subarray(begin, begin + coded);
  check(payload.length === coded, 'literals cut off');
  if (type === 2) {
    const { table, used } = readHuffman(payload);
    state.huffman = table;
    payload = payload.subarray(used);
  }
  const table = state.huffman;
  check(table !== null, 'literals without a Huffman table');
  if (format === 0) return { literals: readHuffmanStream(table, payload, size), used: begin + coded };
  const literals: number[] = [];
  const part = (size + 3) >> 2;
  let at = 6;
  for (let i = 0; i < 4; i++) {
    const length = i < 3 ? payload[2 * i]! + payload[2 * i + 1]! * 256 : payload.length - at;
    const stream = payload.subarray(at, at + length);
    for (const symbol of readHuffmanStream(table, stream, i < 3 ? part : size - 3 * part)) literals.push(symbol);
    at += length;
  }
  return { literals, used: begin + coded };
}

function readCompressedBlock(state: FrameState, bytes: Uint8Array): void {
  const { literals, used } = readLiterals(state, bytes);
  let at = used;
  let count = bytes[at++]!;
  if (count === 255) {
    count = bytes[at]! + bytes[at + 1]! * 256 + 0x7f00;
    at += 2;
  } else if (count >= 128) {
    count = (count - 128) * 256 + bytes[at++]!;
  }
  let literalAt = 0;
  if (count > 0) {
    const modes = bytes[at++]!;
    const table = (mode: number, plain: FseTable, last: FseTable | null, maxLog: number): FseTable => {
      if (mode === 0) return plain;
      if (mode === 1) return { log: 0, symbols: [bytes[at++]!], bits: [0], bases: [0] };
      if (mode === 2) {
        const read = readFse(bytes.subarray(at), maxLog);
        at += read.used;
        return read.table;
      }
      check(last !== null, 'no table to repeat');
      return last;
    };
    const { tables } = state;
    const literalTable = table(modes >> 6, DEFAULT_LITERALS, tables.literals, 9);
    const offsetTable = table((modes >> 4) & 3, DEFAULT_OFFSETS, tables.offsets, 8);
    const matchTable = table((modes >> 2) & 3, DEFAULT_MATCHES, tables.matches, 9);
    state.tables = { literals: literalTable, offsets: offsetTable, matches: matchTable };

    const input = new BackwardBits(bytes.subarray(at));
    let literalState = input.read(literalTable.log);
    let offsetState = input.read(offsetTable.log);
    let matchState = input.read(matchTable.log);
    for (let i = 0; i < count; i++) {
      const offsetCode = offsetTable.symbols[offsetState]!;
      const offsetValue = 2 ** offsetCode + input.read(offsetCode);
      const match = MATCH_LENGTHS[matchTable.symbols[matchState]!]!;
      const matchLength = match.base + input.read(match.bits);
      const literal = LITERAL_LENGTHS[literalTable.symbols[literalState]!]!;
      const literalLength = literal.base + input.read(literal.bits);
      if (i + 1 < count) {
        literalState = literalTable.bases[literalState]! + input.read(literalTable.bits[literalState]!);
        matchState = matchTable.bases[matchState]! + input.read(matchTable.bits[matchState]!);
        offsetState = offsetTable.bases[offsetState]! + input.read(offsetTable.bits[offsetState]!);
      }
      check(literalAt + literalLength <= literals.length, 'more literals than there are');
      for (let n = 0; n < literalLength; n++) state.out.push(literals[literalAt++]!);
      const offset = realOffset(state, offsetValue, literalLength);
      check(offset > 0 && offset <= state.out.length, `an offset of ${offset}`);
      for (let n = 0; n < matchLength; n++) state.out.push(state.out[state.out.length - offset]!);
    }
    check(input.left === 0, 'a sequence stream that does not end where it should');
  }
  while (literalAt < literals.length) state.out.push(literals[literalAt++]!);
}

/** §3.1.1.5: the three offsets used last. */
function realOffset(state: FrameState, value: number, literalLength: number): number {
  const last = state.repeats;
  if (value > 3) {
    state.repeats = [value - 3, last[0], last[1]];
    return value - 3;
  }
  const index = value - 1 + (literalLength === 0 ? 1 : 0);
  const offset = index < 3 ? last[index]! : last[0] - 1;
  if (index === 1) state.repeats = [offset, last[0], last[2]];
  else if (index > 1) state.repeats = [offset, last[0], last[1]];
  return offset;
}

/** The content of zstd frames, one after the other. */
export function decodeZstd(bytes: Uint8Array): Uint8Array {
  const out: number[] = [];
  let at = 0;
  do at += readFrame(out, bytes.subarray(at));
  while (at < bytes.length);
  return Uint8Array.from(out);
}

/** Appends the content of the frame that `bytes` begins with; returns its length. */
function readFrame(out: number[], bytes: Uint8Array): number {
  check(
    bytes.length >= 6 && bytes[0] === 0x28 && bytes[1] === 0xb5 && bytes[2] === 0x2f && bytes[3] === 0xfd,
    'no frame',
  );
  const descriptor = bytes[4]!;
  check((descriptor & 0b1000) === 0 && (descriptor & 3) === 0, 'reserved bit or dictionary');
  const single = (descriptor >> 5) & 1;
  const sizeBytes = [single, 2, 4, 8][descriptor >> 6]!;
  let at = 5 + (1 - single) + sizeBytes;
  const state: FrameState = {
    out: [],
    huffman: null,
    tables: { literals: null, offsets: null, matches: null },
    repeats: [1, 4, 8],
  };
  for (let last = false; !last; ) {
    check(at + 3 <= bytes.length, 'a block header cut off');
    const header = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16);
    at += 3;
    last = (header & 1) === 1;
    const type = (header >> 1) & 3;
    const size = header >> 3;
    check(type === 1 ? at < bytes.length : at + size <= bytes.length, 'a block cut off');
    if (type === 0) for (const byte of bytes.subarray(at, at + size)) state.out.push(byte);
    else if (type === 1) for (let i = 0; i < size; i++) state.out.push(bytes[at]!);
    else if (type === 2) readCompressedBlock(state, bytes.subarray(at, at + size));
    else check(false, 'a reserved block type');
    at += type === 1 ? 1 : size;
  }
  if ((descriptor & 0b100) !== 0) at += 4;
  check(at <= bytes.length, 'a checksum cut off');
  for (const byte of state.out) out.push(byte);
  return at;
}
