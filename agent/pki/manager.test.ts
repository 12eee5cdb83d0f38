// The manager against a real authority; time stands still.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { X509Certificate } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ManualClock } from '../base/clock.ts'
import { silentLog } from '../base/log.ts'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import { openAuthority, type Authority } from './authority.ts'
import type { SignCertificate } from './contract.ts'
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
  async function world(options: { concurrency?: number; maxIdentities?: number; validitySeconds?: number } = {}) {
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
})
