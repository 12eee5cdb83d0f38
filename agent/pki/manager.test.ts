// The manager against a real authority; time stands still.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { testRoot } from '../io/testcerts.ts'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import { openAuthority, type Authority } from './authority.ts'
import type { CertificateManagerOptions, SignCertificate } from './contract.ts'
import { decodeKept, encodeKept } from './kept.ts'
import { CertificateManager } from './manager.ts'

const HOUR = 3_600_000
const identity = (serviceAccount: string): Identity => ({
  trustDomain: 'cluster.local',
  namespace: 'shop',
  serviceAccount,
})

describe('the certificate manager', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'ambit-manager-'))
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  /** A manager, its CA, and what was asked of it. */
  async function world(options: Partial<CertificateManagerOptions> = {}) {
    const clock = new ManualClock(Date.now())
    const authority: Authority = await openAuthority(folder, 'cluster.local', clock)
    const asked: string[] = []
    let failure: Error | undefined
    let gate: Promise<void> | undefined
    const sign: SignCertificate = async (request) => {
      asked.push(request.identity.serviceAccount)
      await gate
      if (failure) throw failure
      return await authority.issue(request.csr, request.identity, request.validitySeconds)
    }
    const manager = new CertificateManager({
      sign,
      clock,
      log: silentLog,
      roots: 'ROOTS',
      random: () => 0.5,
      ...options,
    })
    return {
      clock,
      authority,
      asked,
      manager,
      fail: (error: Error | undefined) => (failure = error),
      hold: () => {
        let open = (): void => {}
        gate = new Promise((resolve) => (open = resolve))
        return () => {
          gate = undefined
          open()
        }
      },
      /** Waits (in real time: keys are made by a thread) until the manager says so. */
      until: async (done: () => boolean) => {
        for (let i = 0; i < 400 && !done(); i++) await new Promise((resolve) => setTimeout(resolve, 5))
        expect(done()).toBe(true)
      },
    }
  }

  it('asks once however many connections wait, and then serves from memory', async () => {
    const { manager, asked, authority } = await world()
    const pairs = await Promise.all(Array.from({ length: 20 }, async () => await manager.keyPair(identity('a'))))
    expect(new Set(pairs).size).toBe(1)
    expect(asked).toEqual(['a'])
    // Without a promise: a handshake goes on in the turn it asked in.
    expect(manager.keyPair(identity('a'))).toBe(pairs[0])
    expect(new X509Certificate(pairs[0]?.certificate ?? '').subjectAltName).toBe(`URI:${formatIdentity(identity('a'))}`)
    expect(manager.trust()).toBe(authority.trustBundle)
    manager.close()
  })

  it('renews at half life and serves the old certificate meanwhile', async () => {
    const { manager, asked, clock, hold, until } = await world()
    const renewed: string[] = []
    manager.onRenewed((whose) => renewed.push(whose.serviceAccount))
    const first = await manager.keyPair(identity('a'))
    clock.advance(11.9 * HOUR)
    expect(asked.length).toBe(1)
    const release = hold()
    clock.advance(0.2 * HOUR)
    await until(() => asked.length === 2)
    expect(await manager.keyPair(identity('a'))).toBe(first)
    expect(manager.status()[0]?.state).toBe('renewing')
    expect(renewed).toEqual([])
    release()
    await until(() => manager.status()[0]?.state === 'valid')
    expect(await manager.keyPair(identity('a'))).not.toBe(first)
    // A first certificate is no renewal.
    expect(renewed).toEqual(['a'])
    manager.close()
  })

  it('keeps serving the still valid certificate while the CA fails, and retries ever more slowly', async () => {
    const { manager, asked, clock, fail, until } = await world()
    const first = await manager.keyPair(identity('a'))
    fail(new Error('away'))
    clock.advance(12 * HOUR + 1)
    await until(() => manager.status()[0]?.error.includes('away') === true)
    expect(await manager.keyPair(identity('a'))).toBe(first)
    expect(asked.length).toBe(2)
    clock.advance(1_000)
    await until(() => asked.length === 3)
    expect(await manager.keyPair(identity('a'))).toBe(first)
    await new Promise((resolve) => setTimeout(resolve, 30))
    clock.advance(1_000)
    await new Promise((resolve) => setTimeout(resolve, 30))
    expect(asked.length).toBe(3)
    fail(undefined)
    clock.advance(150_000)
    await until(() => manager.status()[0]?.state === 'valid')
    expect(await manager.keyPair(identity('a'))).not.toBe(first)
    manager.close()
  })

  it('refuses connections with the reason once the certificate is over and the CA is away', async () => {
    const { manager, clock, fail, until } = await world()
    await manager.keyPair(identity('a'))
    fail(new Error('no route to control'))
    clock.advance(12 * HOUR + 1)
    await until(() => manager.status()[0]?.error !== '')
    clock.advance(12 * HOUR)
    expect(manager.status()[0]?.state).toBe('expired')
    await expect(manager.keyPair(identity('a'))).rejects.toMatchObject({
      code: 'CERTIFICATE_UNAVAILABLE',
      message: expect.stringContaining('no route to control') as string,
    })
    manager.close()
  })

  it('fails at once right after a failure, and asks again for a connection a second later', async () => {
    const { manager, asked, clock, fail } = await world()
    fail(new Error('denied'))
    await expect(manager.keyPair(identity('a'))).rejects.toThrow('denied')
    await expect(manager.keyPair(identity('a'))).rejects.toThrow('denied')
    expect(asked.length).toBe(1)
    clock.advance(700)
    fail(undefined)
    clock.advance(301)
    await expect(manager.keyPair(identity('a'))).resolves.toHaveProperty('key')
    manager.close()
  })

  it('serves waiting connections before prefetches, and asks at most eight at a time', async () => {
    const { manager, asked, hold, until } = await world()
    const release = hold()
    for (let i = 0; i < 12; i++) manager.prefetch(identity(`p${i}`))
    await until(() => asked.length === 8)
    const urgent = manager.keyPair(identity('p11'))
    const other = manager.keyPair(identity('new'))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(asked.length).toBe(8)
    release()
    await Promise.all([urgent, other])
    await until(() => asked.length === 13)
    expect(asked.slice(8, 10).sort()).toEqual(['new', 'p11'])
    manager.close()
  })

  it('forgets the key when the last pod leaves, also while the request is on its way', async () => {
    const { manager, asked, clock, hold, until } = await world()
    await manager.keyPair(identity('a'))
    manager.forget(identity('a'))
    expect(manager.status()).toEqual([])
    clock.advance(24 * HOUR)
    expect(asked).toEqual(['a'])
    const release = hold()
    const waiting = manager.keyPair(identity('b'))
    const outcome = expect(waiting).rejects.toThrow('no longer used')
    await until(() => asked.length === 2)
    manager.forget(identity('b'))
    release()
    await outcome
    expect(manager.status()).toEqual([])
    manager.close()
  })

  it('does not take a certificate for another identity or another key', async () => {
    const { manager, authority, clock } = await world()
    manager.close()
    const other = new CertificateManager({
      sign: async (request) => await authority.issue(request.csr, request.identity, 60),
      clock,
      log: silentLog,
      roots: '',
    })
    const stolen = await other.keyPair(identity('thief'))
    const cheated = new CertificateManager({
      sign: () => Promise.resolve([stolen.certificate, authority.trustBundle]),
      clock,
      log: silentLog,
      roots: '',
    })
    await expect(cheated.keyPair(identity('victim'))).rejects.toThrow('the CA signed another key')
    other.close()
    cheated.close()
  })

  it('notices a wall clock that jumped over the renewal', async () => {
    const { manager, asked, clock, until } = await world({ validitySeconds: 3_600 })
    await manager.keyPair(identity('a'))
    // Only the wall clock: the timers, which run on monotonic time, have not fallen due.
    clock.now = () => clock.monotonic() + 0.6 * HOUR
    await manager.keyPair(identity('a'))
    await until(() => asked.length === 2)
    manager.close()
  })

  it('keeps a valid certificate rather than take one that is not valid yet, of a CA whose clock has jumped', async () => {
    const { authority, clock } = await world()
    const ahead = new ManualClock(clock.now() + 2 * HOUR)
    const jumped = await openAuthority(folder, 'cluster.local', ahead)
    let signer = authority
    let asked = 0
    const manager = new CertificateManager({
      sign: async ({ csr, identity, validitySeconds }) => {
        asked++
        return await signer.issue(csr, identity, validitySeconds)
      },
      clock,
      log: silentLog,
      roots: '',
      validitySeconds: 3_600,
      random: () => 0.5,
    })
    const first = await manager.keyPair(identity('a'))
    signer = jumped
    clock.advance(0.6 * HOUR)
    const said = (): string => manager.status()[0]!.error
    for (let i = 0; i < 400 && said() === ''; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(said()).toMatch(/begins at .* only; do the clocks agree/)
    expect(await manager.keyPair(identity('a'))).toBe(first)
    signer = authority
    const before = asked
    clock.advance(60_000)
    for (let i = 0; i < 400 && asked === before; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    for (let i = 0; i < 400 && said() !== ''; i++) await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await manager.keyPair(identity('a'))).not.toBe(first)
    // Where none is held, it is taken.
    signer = jumped
    expect((await manager.keyPair(identity('b'))).certificate).toContain('BEGIN CERTIFICATE')
    manager.close()
  })

  it('tells listeners when the trust bundle changed', async () => {
    const { manager, authority } = await world()
    const seen: string[] = []
    manager.onTrust((bundle) => seen.push(bundle))
    await manager.keyPair(identity('a'))
    await manager.keyPair(identity('b'))
    expect(seen).toEqual([authority.trustBundle])
    manager.close()
  })

  it('holds no more identities than its bound', async () => {
    const { manager } = await world({ maxIdentities: 2 })
    await manager.keyPair(identity('a'))
    manager.prefetch(identity('b'))
    await expect(manager.keyPair(identity('c'))).rejects.toThrow('2 identities are held already')
    manager.close()
  })

  it('spreads renewals over a tenth of the life around its middle', async () => {
    const due: number[] = []
    for (const random of [0, 0.25, 0.999]) {
      const { manager, clock } = await world({ random: () => random })
      await manager.keyPair(identity('a'))
      due.push((manager.status()[0]!.renewAt - clock.now()) / (24 * HOUR))
      manager.close()
    }
    // A certificate ends at a whole second.
    expect(due.map((share) => share.toFixed(3))).toEqual(['0.450', '0.475', '0.550'])
  })

  describe('taken up by the next program', () => {
    /** What a manager that held these would leave. */
    async function left(...names: string[]) {
      const before = await world()
      const pairs = await Promise.all(names.map(async (name) => await before.manager.keyPair(identity(name))))
      const bytes = encodeKept(before.manager.kept())
      before.manager.close()
      return { bytes, pairs, now: before.clock.now() }
    }

    it('serves at once without asking, trusts what was trusted, and renews when it is due', async () => {
      const { bytes, pairs, now } = await left('a', 'b')
      const restored = decodeKept(bytes, now, 10)!
      const { manager, asked, authority, clock, until } = await world({ restored })
      expect(manager.trust()).toBe(authority.trustBundle)
      manager.prefetch(identity('a'))
      expect(manager.keyPair(identity('a'))).toEqual(pairs[0])
      expect(manager.status()).toMatchObject([{ state: 'valid' }])
      expect(asked).toEqual([])
      clock.advance(12 * HOUR + 1_000)
      await until(() => asked.length === 1)
      await until(() => manager.status()[0]?.state === 'valid')
      expect(await manager.keyPair(identity('a'))).not.toEqual(pairs[0])
      manager.close()
    })

    it('keeps what nobody has asked for yet for ten minutes, and tells of each change', async () => {
      const { bytes, now } = await left('a', 'b')
      const { manager, clock } = await world({ restored: decodeKept(bytes, now, 10)! })
      let changes = 0
      manager.onChanged(() => changes++)
      manager.prefetch(identity('a'))
      expect(manager.kept().held.size).toBe(2)
      clock.advance(600_000)
      expect([...manager.kept().held.keys()]).toEqual([formatIdentity(identity('a'))])
      expect(changes).toBe(1)
      await manager.keyPair(identity('c'))
      expect(changes).toBe(2)
      manager.forget(identity('a'))
      expect(changes).toBe(3)
      expect([...manager.kept().held.keys()]).toEqual([formatIdentity(identity('c'))])
      manager.close()
    })

    it('drops what is over, foreign keys, and more than fits', async () => {
      const { bytes, now } = await left('a', 'b', 'c')
      expect(decodeKept(bytes, now + 25 * HOUR, 10)!.held.size).toBe(0)
      expect(decodeKept(bytes, now, 2)!.held.size).toBe(2)
      const text = JSON.parse(bytes.toString()) as { certificates: { key: string }[] }
      text.certificates[0]!.key = text.certificates[1]!.key
      const swapped = decodeKept(Buffer.from(JSON.stringify(text)), now, 10)!
      expect([...swapped.held.keys()]).toEqual(['b', 'c'].map((name) => formatIdentity(identity(name))))
      expect(decodeKept(Buffer.from(JSON.stringify({ ...text, version: 2 })), now, 10)).toBeUndefined()
    })

    it('never throws, whatever the bytes', async () => {
      const { bytes, now } = await left('a')
      fc.assert(
        fc.property(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 }), (at, value) => {
          const mangled = Buffer.from(bytes)
          mangled[at] = value
          for (const { pair } of decodeKept(mangled, now, 10)?.held.values() ?? [])
            expect(new X509Certificate(pair.certificate).subjectAltName).toContain('spiffe://')
        }),
      )
      fc.assert(fc.property(fc.uint8Array(), (any) => decodeKept(Buffer.from(any), now, 10) === undefined))
    })
  })

  it('trusts the roots of the file, of the mesh and of the last answer, and lets go of what the mesh leaves out', async () => {
    const [one, two, three] = ['one', 'two', 'three'].map((name) => testRoot(name).certificate)
    const { manager, authority } = await world({ roots: one! })
    const seen: string[] = []
    manager.onTrust((bundle) => seen.push(bundle))
    expect(manager.trust()).toBe(one)
    await manager.keyPair(identity('a'))
    expect(manager.trust()).toBe(authority.trustBundle + one)
    manager.setFileRoots(one! + two)
    expect(manager.trust()).toBe(authority.trustBundle + one + two)
    // What came with a certificate is older than what the mesh says now.
    manager.setMeshRoots(three!)
    expect(manager.trust()).toBe(three! + one + two)
    manager.setFileRoots(three!)
    manager.setFileRoots(three!)
    expect(manager.trust()).toBe(three)
    expect(seen.length).toBe(4)
    await manager.keyPair(identity('b'))
    expect(manager.trust()).toBe(three + authority.trustBundle)
    manager.close()
  })
})
