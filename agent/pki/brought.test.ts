// Authorities that people bring: which are accepted, and whether OpenSSL then believes what is issued; which are refused, with what.
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../base/clock.ts'
import { authorityOf, type SigningAuthority } from './authority.ts'
import { selfTest } from './self-test.ts'
import { RSA, TestCa, type CaOptions } from './testing.ts'

const id = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' }
const curve = (name: string): string[] => ['-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${name}`]

describe('an authority that people bring', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-brought-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const ca = (name: string, options?: CaOptions): TestCa => new TestCa(folder, name, options)
  const open = (of: TestCa, more: Partial<{ key: string; roots: string; certificate: string }> = {}) => {
    const { certificate, key, intermediates, root } = of
    const material = { certificate, key, intermediates, roots: root.certificate, ...more }
    return authorityOf(material, systemClock, 'Secret ambit-system/cacerts')
  }
  const believed = async (authority: SigningAuthority) => await selfTest(authority, id, 'control.ambit-system.svc')

  it.each<[string, CaOptions]>([
    ['RSA', { key: RSA }],
    ['P-256', {}],
    ['P-384', { key: curve('P-384') }],
    ['P-521', { key: curve('P-521') }],
  ])('may have a key of %s, as root or as an intermediate below roots of other kinds', async (_kind, options) => {
    const own = ca('own', options)
    expect(await believed(await open(own))).toBe('')
    for (const above of [ca('above', { key: RSA }), ca('above')]) {
      const authority = await open(above.intermediate('middle').intermediate('leafmaker', options))
      expect(await believed(authority)).toBe('')
      expect(authority.anchors).toEqual([above.certificate])
    }
  })

  it('may have any name, and a key identifier of its own making', async () => {
    const subject = '/C=DE/ST=Öst+L=Über/O=A \\+ B, Söhne/CN=Wurzel \\/ 1/emailAddress=ca@example.org'
    expect(await believed(await open(ca('named', { subject })))).toBe('')
    const odd = ca('odd', { subject, more: ['certificatePolicies=1.2.3.4'] }).intermediate('below', {
      subject: `${subject}/CN=2`,
    })
    expect(await believed(await open(odd))).toBe('')
  })

  it('may be trusted beside others: only what it stands under is its anchor', async () => {
    const [one, two] = [ca('one'), ca('two')]
    const authority = await open(one.intermediate('below'), { roots: two.certificate + one.certificate })
    expect(authority.anchors).toEqual([one.certificate])
    expect(authority.trustBundle).toBe(two.certificate + one.certificate)
    expect(new X509Certificate(authority.anchors[0]!).subject).toContain('one')
  })

  it.each<[string, () => Promise<unknown>, string]>([
    ['a key of another', () => open(ca('a'), { key: ca('b').key }), 'the key does not belong to the certificate'],
    ['no certificate', () => open(ca('a'), { certificate: 'hello' }), 'cannot be used'],
    ['no key', () => open(ca('a'), { key: 'hello' }), 'cannot be used'],
    ['a leaf', () => open(ca('a', { constraints: 'CA:FALSE' })), 'not that of a CA'],
    ['Ed25519', () => open(ca('a', { key: ['-algorithm', 'ED25519'] })), 'its key is ed25519'],
    [
      'a short RSA key',
      () => open(ca('a', { key: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'] })),
      'its key is rsa (1024)',
    ],
    ['a curve nobody speaks', () => open(ca('a', { key: curve('secp256k1') })), 'its key is ec (secp256k1)'],
    ['roots of somebody else', () => open(ca('a'), { roots: ca('b').certificate }), 'none of its roots has signed'],
  ])('is refused with %s', async (_what, opening, message) => {
    await expect(opening()).rejects.toMatchObject({
      code: 'CA_STATE_INVALID',
      message: expect.stringMatching(
        new RegExp(`in Secret ambit-system/cacerts.*${message.replace(/[()]/g, '\\$&')}`),
      ) as string,
    })
  })

  it('is tried before it is used: what OpenSSL would refuse later is said now', async () => {
    const flat = ca('flat', { constraints: 'critical,CA:TRUE,pathlen:0' }).intermediate('below')
    expect(await believed(await open(flat))).toBe('PATH_LENGTH_EXCEEDED')
    const narrow = ca('narrow', { more: ['nameConstraints=critical,permitted;URI:.example.org'] })
    expect(await believed(await open(narrow))).toContain('name constraint')
    await expect(open(ca('mute', { usage: 'critical,digitalSignature' }))).rejects.toThrow('not that of a CA')
  })
})
