// Real authorities made by OpenSSL, judged by OpenSSL; time stands still.
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { authorityOf, type SigningAuthority } from './authority.ts'
import { splitPem } from './bundle.ts'
import { makeRequest } from './csr.ts'
import { Rotation, type KnownRoot } from './rotation.ts'
import { selfTest } from './self-test.ts'
import { TestCa } from './testing.ts'

const id = { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' }
/** Less than what certificates are dated back by: OpenSSL's clock does not stand still with ours. */
const SPREAD = 60_000
const DAY = 86_400_000

describe('one authority after another', () => {
  let folder: string
  let clock: ManualClock
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'ambit-rotation-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const ca = (name: string, days = 30): TestCa => new TestCa(folder, name, { days })
  const open = async (of: TestCa, roots = of.root.certificate): Promise<SigningAuthority> =>
    await authorityOf({ certificate: of.certificate, key: of.key, intermediates: of.intermediates, roots }, clock, 'x')
  function rotation(first: SigningAuthority, known: readonly KnownRoot[] = []) {
    const made = new Rotation(first, { clock, spreadMs: SPREAD, keepMs: DAY }, known)
    const heard: string[] = []
    made.onChange(() => heard.push(made.trustBundle))
    return { made, heard }
  }
  /** Who signed what is issued now; every certificate issued holds under the bundle of now. */
  async function issuer(made: Rotation): Promise<string> {
    expect(await selfTest(made, id, 'control')).toBe('')
    const [leaf = ''] = await made.issue((await makeRequest(id)).csr, id, 60)
    return new X509Certificate(leaf).issuer
  }

  it('changes over at once under the same root', async () => {
    clock = new ManualClock(Date.now())
    const root = ca('shared')
    const [one, two] = [root.intermediate('one'), root.intermediate('two')]
    const { made, heard } = rotation(await open(one))
    expect(await issuer(made)).toContain('one')
    made.take(await open(two))
    expect(made.waiting).toBe(false)
    expect(await issuer(made)).toContain('two')
    expect(made.trustBundle).toBe(root.certificate)
    expect(heard.length).toBe(1)
    made.stop()
  })

  it('tells of a new root first, changes over when all may have heard, and forgets the old one after a day', async () => {
    clock = new ManualClock(Date.now())
    const [one, two] = [ca('first'), ca('second')]
    const { made, heard } = rotation(await open(one))
    made.take(await open(two))
    expect(made.waiting).toBe(true)
    expect(splitPem(made.trustBundle)).toEqual([one.certificate, two.certificate])
    clock.advance(SPREAD - 1)
    expect(await issuer(made)).toContain('first')
    clock.advance(1)
    expect(await issuer(made)).toContain('second')
    expect(splitPem(made.trustBundle)).toEqual([two.certificate, one.certificate])
    expect(heard.length).toBe(2)
    clock.advance(DAY - 1)
    expect(splitPem(made.trustBundle).length).toBe(2)
    clock.advance(1)
    expect(made.trustBundle).toBe(two.certificate)
    expect(heard.length).toBe(3)
    made.stop()
  })

  it('need not wait for a root that was told of beside the old one, long enough ago', async () => {
    clock = new ManualClock(Date.now())
    const [one, two] = [ca('first'), ca('second')]
    const both = one.certificate + two.certificate
    const { made } = rotation(await open(one))
    made.take(await open(one, both))
    clock.advance(SPREAD / 2)
    made.take(await open(two, both))
    expect(made.waiting).toBe(true)
    clock.advance(SPREAD / 2)
    expect(await issuer(made)).toContain('second')
    // Back, which everybody still trusts.
    made.take(await open(one, both))
    expect(made.waiting).toBe(false)
    expect(await issuer(made)).toContain('first')
    made.stop()
  })

  it('takes the newest when they come faster than they spread, and trusts only what can be needed', async () => {
    clock = new ManualClock(Date.now())
    const [one, two, three] = [ca('first'), ca('second'), ca('third')]
    const { made } = rotation(await open(one))
    made.take(await open(two))
    clock.advance(1_000)
    made.take(await open(three))
    expect(splitPem(made.trustBundle)).toEqual([one.certificate, three.certificate])
    clock.advance(SPREAD)
    expect(await issuer(made)).toContain('third')
    made.stop()
  })

  it('changes over at once when the one before has ended', async () => {
    clock = new ManualClock(Date.now())
    const [one, two] = [ca('first', 1), ca('second')]
    const { made } = rotation(await open(one))
    clock.advance(made.notAfter - clock.now())
    await expect(made.issue((await makeRequest(id)).csr, id, 60)).rejects.toMatchObject({ code: 'CA_STATE_INVALID' })
    made.take(await open(two))
    expect(made.waiting).toBe(false)
    const [leaf = ''] = await made.issue((await makeRequest(id)).csr, id, 60)
    expect(new X509Certificate(leaf).issuer).toContain('second')
    made.stop()
  })

  it('remembers over a restart which roots are still in use', async () => {
    clock = new ManualClock(Date.now())
    const [one, two, three] = [ca('first'), ca('second'), ca('third')]
    const { made: before } = rotation(await open(one))
    before.take(await open(two))
    clock.advance(SPREAD)
    clock.advance(DAY / 2)
    const known = before.known()
    before.stop()
    expect(known.map(({ pem }) => pem)).toEqual([two.certificate, one.certificate])
    // While it was away somebody changed the Secret once more.
    const { made } = rotation(await open(three), known)
    expect(splitPem(made.trustBundle)).toEqual([three.certificate, two.certificate, one.certificate])
    clock.advance(DAY / 2)
    expect(splitPem(made.trustBundle)).toEqual([three.certificate, two.certificate])
    clock.advance(DAY / 2)
    expect(splitPem(made.trustBundle)).toEqual([three.certificate])
    made.stop()
  })
})
