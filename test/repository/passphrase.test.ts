import * as nodeCrypto from 'node:crypto';
import { expect, test } from 'vitest';
import { ARGON2 } from '../../src/repository/format.ts';
import { argon2id, nobleArgon2id, openWithPassphrase, sealWithPassphrase } from '../../src/repository/passphrase.ts';
import { expectCode } from '../contract/store.ts';

const aad = Buffer.from('bound');

test('argon2id agrees with the reference implementation', async () => {
  // phc-winner-argon2, src/test.c: version 0x13, t=2, m=2^16 KiB, p=1.
  const kdf = { memoryKiB: 65_536, passes: 2, lanes: 1, salt: Buffer.from('somesalt') };
  const expected = '09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7';
  expect((await nobleArgon2id(Buffer.from('password'), kdf)).toString('hex')).toBe(expected);
  expect((await argon2id(Buffer.from('password'), kdf)).toString('hex')).toBe(expected);
});

test('seals, opens, and knows a wrong passphrase from damage', async () => {
  const box = await sealWithPassphrase('pass', Buffer.from('plain'), aad);
  expect(box.kdf).toMatchObject(ARGON2);
  expect(await openWithPassphrase('pass', box, aad)).toEqual(Buffer.from('plain'));
  expect(await openWithPassphrase('Pass', box, aad)).toBeNull();
  await expectCode(openWithPassphrase('pass', box, Buffer.from('other')), 'corrupt');
  box.sealed[0]! ^= 1;
  await expectCode(openWithPassphrase('pass', box, aad), 'corrupt');
  await expectCode(sealWithPassphrase('', Buffer.from('plain'), aad), 'usage');
  expect(nodeCrypto.timingSafeEqual).toBeTypeOf('function');
});
