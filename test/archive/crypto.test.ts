import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { xchacha20poly1305 } from '@noble/ciphers/chacha.js';
import { blake3 as nobleBlake3 } from '@noble/hashes/blake3.js';
import * as age from 'age-encryption';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openAead, randomNonce, sealAead } from '../../src/archive/crypto/aead.ts';
import { generateIdentity, recipientKind, recipientOf, unwrapKey, wrapKey } from '../../src/archive/crypto/age.ts';
import { newX25519Identity, unwrapX25519, wrapX25519, x25519RecipientOf } from '../../src/archive/crypto/age-x25519.ts';
import { Blake3Stream, blake3, deriveKey, keyedBlake3 } from '../../src/archive/crypto/blake3.ts';
import { type Cipher, nodeCipher, opensslCipher } from '../../src/archive/crypto/cipher.ts';
import { generateSigningKey, publicKeyOf, sign, verify } from '../../src/archive/crypto/ed25519.ts';
import { chunkIndexKey, deriveArchiveKeys, keyCommitment } from '../../src/archive/keys.ts';
import { MerkleTree, merkleRoot } from '../../src/archive/merkle.ts';
import { RozenError } from '../../src/errors.ts';

const bytes = (max: number) => fc.uint8Array({ maxLength: max });
const exactly = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });

describe('BLAKE3', () => {
  it('is that of noble, in all modes', () => {
    fc.assert(
      fc.property(bytes(5000), exactly(32), fc.string(), (data, key, context) => {
        expect(blake3(data).equals(nobleBlake3(data))).toBe(true);
        expect(keyedBlake3(key, data).equals(nobleBlake3(data, { key }))).toBe(true);
        expect(keyedBlake3(key, data).equals(nobleBlake3(data, { key }))).toBe(true);
        const derived = nobleBlake3(data, { context: new TextEncoder().encode(context) });
        expect(deriveKey(context, data).equals(derived)).toBe(true);
      }),
    );
  });

  it('takes its input in pieces', () => {
    fc.assert(
      fc.property(fc.array(bytes(500), { maxLength: 6 }), exactly(32), (parts, key) => {
        const whole = Buffer.concat(parts);
        const keyed = Blake3Stream.keyed(key);
        const plain = new Blake3Stream();
        for (const part of parts) {
          keyed.update(part);
          plain.update(part);
        }
        expect(plain.digest().equals(blake3(whole))).toBe(true);
        expect(keyed.digest().equals(keyedBlake3(key, whole))).toBe(true);
        expect(keyed.reset().update(whole).digest().equals(keyedBlake3(key, whole))).toBe(true);
      }),
    );
  });
});

describe('BLAKE3 in a thread that never returns to its event loop', () => {
  it('leaves nothing behind', async () => {
    // What the package allocates for each result would be 300 bytes here: 180 MB.
    const worker = new Worker(new URL('./blake3-worker.mjs', import.meta.url), { workerData: { rounds: 200_000 } });
    const [grown] = await once(worker, 'message');
    await worker.terminate();
    expect(grown).toBeLessThan(60 * 1024 * 1024);
  }, 60_000);
});

describe('XChaCha20-Poly1305', () => {
  it('is that of noble, byte for byte', () => {
    fc.assert(
      fc.property(
        exactly(32),
        exactly(24),
        bytes(200),
        fc.array(bytes(400), { maxLength: 4 }),
        (key, nonce, aad, parts) => {
          const plain = Buffer.concat(parts);
          const sealed = sealAead(key, nonce, aad, parts);
          expect(sealed.equals(xchacha20poly1305(key, nonce, aad).encrypt(plain))).toBe(true);
          expect(openAead(key, nonce, aad, sealed).equals(plain)).toBe(true);
        },
      ),
    );
  });

  it('of the draft (draft-irtf-cfrg-xchacha-03, A.3.1)', () => {
    const key = Buffer.from('808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f', 'hex');
    const nonce = Buffer.from('404142434445464748494a4b4c4d4e4f5051525354555657', 'hex');
    const aad = Buffer.from('50515253c0c1c2c3c4c5c6c7', 'hex');
    const text =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    const sealed = sealAead(key, nonce, aad, [Buffer.from(text)]);
    expect(sealed.subarray(0, 16).toString('hex')).toBe('bd6d179d3e83d43b9576579493c0e939');
    expect(sealed.subarray(-16).toString('hex')).toBe('c0875924c1c7987947deafd8780acf49');
  });

  it('refuses another key, nonce, data or tag', () => {
    const [key, nonce, aad] = [randomBytes(32), randomNonce(), randomBytes(20)];
    const sealed = sealAead(key, nonce, aad, [Buffer.from('text')]);
    const flipped = Buffer.from(sealed);
    flipped[0] = flipped[0]! ^ 1;
    for (const open of [
      () => openAead(randomBytes(32), nonce, aad, sealed),
      () => openAead(key, randomNonce(), aad, sealed),
      () => openAead(key, nonce, randomBytes(20), sealed),
      () => openAead(key, nonce, aad, flipped),
      () => openAead(key, nonce, aad, sealed.subarray(1)),
      () => openAead(key, nonce, aad, sealed.subarray(0, 15)),
    ]) {
      expect(open).toThrow(RozenError);
    }
  });

  const ciphers: [string, () => Cipher][] = [
    ['OpenSSL', () => opensslCipher()!],
    ['node:crypto', () => nodeCipher],
  ];
  it.each(ciphers)(
    'of %s makes the subkey of the draft (§2.2.1), and the other one the same of anything',
    (_, make) => {
      const cipher = make();
      const target = Buffer.alloc(32);
      const key = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
      cipher.subkey(key, Buffer.from('000000090000004a0000000031415927', 'hex'), target);
      expect(target.toString('hex')).toBe('82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc');
      const other = cipher === nodeCipher ? opensslCipher()! : nodeCipher;
      fc.assert(
        fc.property(exactly(32), exactly(24), (from, input) => {
          cipher.subkey(from, input, target);
          const expected = Buffer.alloc(32);
          other.subkey(from, input, expected);
          expect(target.equals(expected)).toBe(true);
        }),
      );
    },
  );

  it.each(ciphers)('of %s opens what the other one sealed, into shared memory, and not one byte beyond', (_, make) => {
    const cipher = make();
    const other = cipher === nodeCipher ? opensslCipher()! : nodeCipher;
    fc.assert(
      fc.property(exactly(32), exactly(12), bytes(50), bytes(3000), fc.nat(), (key, nonce, aad, plain, cut) => {
        const sealed = Buffer.alloc(plain.length + 16);
        other.seal({ key, nonce }, aad, [plain.subarray(0, cut % 7), plain.subarray(cut % 7)], sealed);
        const head = Buffer.alloc(plain.length === 0 ? 0 : cut % plain.length);
        const target = new Uint8Array(new SharedArrayBuffer(plain.length + 8)).fill(0xa5);
        const rest = target.subarray(0, plain.length - head.length);
        let seen = Buffer.alloc(0);
        const choose = (): Uint8Array => {
          seen = Buffer.from(head);
          return rest;
        };
        expect(cipher.open({ key, nonce }, aad, sealed, head, choose)).toBe(true);
        expect(Buffer.concat([head, rest]).equals(plain)).toBe(true);
        expect(seen.equals(head)).toBe(true);
        expect(target.subarray(rest.length).every((byte) => byte === 0xa5)).toBe(true);
        sealed[cut % sealed.length]! ^= 1;
        expect(cipher.open({ key, nonce }, aad, sealed, head, choose)).toBe(false);
      }),
    );
    const [key, nonce, aad] = [Buffer.alloc(32), Buffer.alloc(12), Buffer.alloc(0)];
    const sealed = Buffer.alloc(116);
    other.seal({ key, nonce }, aad, [Buffer.alloc(100)], sealed);
    expect(() => cipher.open({ key, nonce }, aad, sealed, Buffer.alloc(10), () => Buffer.alloc(89))).toThrow(/target/);
    expect(() => cipher.seal({ key, nonce }, aad, [Buffer.alloc(100)], Buffer.alloc(115))).toThrow(/target|offset/);
  });

  it('gets a new nonce each time', () => {
    const seen = new Set(Array.from({ length: 1000 }, () => randomNonce().toString('hex')));
    expect(seen.size).toBe(1000);
  });
});

describe('Ed25519', () => {
  it('signs with a domain', () => {
    const pair = generateSigningKey();
    expect(publicKeyOf(pair.secret).equals(pair.public)).toBe(true);
    const message = randomBytes(100);
    const signature = sign(pair.secret, 'domain', message);
    expect(verify(pair.public, 'domain', message, signature)).toBe(true);
    expect(verify(pair.public, 'other', message, signature)).toBe(false);
    expect(verify(pair.public, 'domain', randomBytes(100), signature)).toBe(false);
    expect(verify(generateSigningKey().public, 'domain', message, signature)).toBe(false);
    expect(verify(pair.public.subarray(1), 'domain', message, signature)).toBe(false);
    expect(verify(pair.public, 'domain', message, signature.subarray(1))).toBe(false);
    expect(verify(Buffer.alloc(32, 0xff), 'domain', message, signature)).toBe(false);
  });

  it('is that of RFC 8032 (test 1)', () => {
    const secret = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex');
    expect(publicKeyOf(secret).toString('hex')).toBe(
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    );
  });
});

describe('age', () => {
  it.each(['x25519', 'hybrid'] as const)('wraps a key for several %s recipients', async (kind) => {
    const identities = [await generateIdentity(kind), await generateIdentity(kind)];
    const recipients = await Promise.all(identities.map(recipientOf));
    expect(recipients.map(recipientKind)).toEqual([kind, kind]);
    const key = randomBytes(32);
    const envelope = await wrapKey(recipients, key);
    for (const identity of identities) expect((await unwrapKey([identity], envelope)).equals(key)).toBe(true);
    const stranger = await generateIdentity(kind);
    expect((await unwrapKey([stranger, identities[1]!], envelope)).equals(key)).toBe(true);
    await expect(unwrapKey([stranger], envelope)).rejects.toMatchObject({ code: 'no-key' });
    await expect(unwrapKey([], envelope)).rejects.toMatchObject({ code: 'no-key' });
    await expect(unwrapKey(identities, envelope.subarray(0, 100))).rejects.toMatchObject({ code: 'no-key' });
  });

  it('does not mix recipients, and never repeats a secret in an error', async () => {
    const [plain, hybrid] = [await generateIdentity('x25519'), await generateIdentity('hybrid')];
    const recipients = [await recipientOf(plain), await recipientOf(hybrid)];
    await expect(wrapKey(recipients, randomBytes(32))).rejects.toThrow('cannot be mixed');
    await expect(wrapKey([], randomBytes(32))).rejects.toMatchObject({ code: 'usage' });
    for (const bad of ['', 'age1', 'ssh-ed25519 AAAA', 'age1tag1qqqq', recipients[0]!.slice(0, -1), plain]) {
      await expect(wrapKey([bad], randomBytes(32))).rejects.toMatchObject({ code: 'usage' });
    }
    const broken = `${plain.slice(0, -1)}!`;
    for (const attempt of [recipientOf(broken), unwrapKey([broken], Buffer.from('x'))]) {
      const error = await attempt.then(
        () => null,
        (reason) => reason as RozenError,
      );
      expect(error!.code).toBe('usage');
      expect(JSON.stringify([error!.message, String(error!.cause ?? ''), error!.stack])).not.toContain(
        plain.slice(20, 40),
      );
    }
  });
});

describe('X25519 by node:crypto', () => {
  it('and the age package open what the other one made', async () => {
    for (let round = 0; round < 5; round++) {
      const identities = [await age.generateX25519Identity(), newX25519Identity()];
      const recipients = identities.map((identity) => x25519RecipientOf(identity)!);
      expect(recipients).toEqual(await Promise.all(identities.map((identity) => age.identityToRecipient(identity))));
      const secret = randomBytes(round === 4 ? 64 * 1024 : 32 * (round + 1));

      const envelope = wrapX25519(recipients, secret)!;
      for (const identity of identities) {
        const decrypter = new age.Decrypter();
        decrypter.addIdentity(identity);
        expect(Buffer.from(await decrypter.decrypt(envelope)).equals(secret)).toBe(true);
        expect(unwrapX25519([identity], envelope)).toEqual({ secret });
      }

      const encrypter = new age.Encrypter();
      for (const recipient of recipients) encrypter.addRecipient(recipient);
      const other = await encrypter.encrypt(secret);
      expect(unwrapX25519([identities[1]!], other)).toEqual({ secret });
      expect(unwrapX25519([await age.generateX25519Identity()], other)).toBe('refused');
    }
  });

  it('refuses every changed byte and cut, and leaves the unusual to the package', async () => {
    const identity = await age.generateX25519Identity();
    const envelope = wrapX25519([x25519RecipientOf(identity)!], randomBytes(32))!;
    for (let at = 0; at < envelope.length; at++) {
      const bad = Buffer.from(envelope);
      bad[at] = bad[at]! ^ (1 << (at % 8));
      expect(typeof unwrapX25519([identity], bad)).toBe('string');
      expect(typeof unwrapX25519([identity], envelope.subarray(0, at))).toBe('string');
      // The package comes to the same end.
      await expect(unwrapKey([identity], bad)).rejects.toMatchObject({ code: 'no-key' });
    }
    expect(unwrapX25519([await age.generateHybridIdentity()], envelope)).toBe('unknown');
    expect(unwrapX25519([identity.toLowerCase()], envelope)).toBe('unknown');
    const otherEnd = identity.endsWith('Q') ? 'P' : 'Q';
    expect(x25519RecipientOf(identity.slice(0, -1) + otherEnd)).toBe(null);
    expect(wrapX25519([await age.identityToRecipient(await age.generateHybridIdentity())], randomBytes(32))).toBe(null);
  });
});

describe('keys', () => {
  it('are all different, and held to their commitment', () => {
    const key = randomBytes(32);
    const keys = deriveArchiveKeys(key, keyCommitment(key));
    const id = randomBytes(16);
    const all = [
      key,
      keys.block,
      keys.record,
      keyCommitment(key),
      chunkIndexKey(key, id),
      chunkIndexKey(key, randomBytes(16)),
    ];
    expect(new Set(all.map((each) => each.toString('hex'))).size).toBe(all.length);
    expect(() => deriveArchiveKeys(randomBytes(32), keyCommitment(key))).toThrow('commits to');
  });
});

describe('the Merkle tree', () => {
  /** RFC 6962 §2.1, word for word. */
  function plainRoot(entries: Uint8Array[]): Buffer {
    if (entries.length === 0) return blake3(new Uint8Array(0));
    if (entries.length === 1) return blake3(Buffer.concat([Buffer.from([0]), entries[0]!]));
    let k = 1;
    while (k * 2 < entries.length) k *= 2;
    return blake3(Buffer.concat([Buffer.from([1]), plainRoot(entries.slice(0, k)), plainRoot(entries.slice(k))]));
  }

  it('is that of RFC 6962 at every size', () => {
    const entries = Array.from({ length: 70 }, () => randomBytes(32));
    const tree = new MerkleTree();
    for (let count = 0; count <= entries.length; count++) {
      const right = plainRoot(entries.slice(0, count));
      expect(tree.root().equals(right)).toBe(true);
      expect(merkleRoot(entries.slice(0, count)).equals(right)).toBe(true);
      if (count < entries.length) tree.add(entries[count]!);
    }
  });
});
