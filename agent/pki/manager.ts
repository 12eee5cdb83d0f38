// Certificates of the identities a program speaks for: fetched ahead or on demand, renewed at half life, kept in memory
// only. While the CA is away the still valid certificate is served. Must not live here: the CA (a function), x509
// writing (csr.ts), which identities there are (the caller says by prefetch and forget).
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { Backoff } from '../base/backoff.ts'
import type { Timer } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { KeyPair } from '../io/connection.ts'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import { mergePem } from './bundle.ts'
import type { CertificateManagerOptions, CertificatePriority, Certificates, CertificateStatus } from './contract.ts'
import { makeRequest } from './csr.ts'
import type { HeldCertificate, KeptCertificates } from './kept.ts'
import { identityOfCertificate } from './peer-identity.ts'

interface Waiter {
  resolve(pair: KeyPair): void
  reject(error: Error): void
}

interface Entry {
  readonly identity: Identity
  readonly uri: string
  readonly backoff: Backoff
  readonly waiters: Waiter[]
  held: HeldCertificate | undefined
  /** Waiting for its turn at the CA. */
  queued: CertificatePriority | undefined
  running: boolean
  timer: Timer | undefined
  error: AmbitError | undefined
  failedAt: number
  forgotten: boolean
}

const PRIORITIES: readonly CertificatePriority[] = ['realtime', 'warmup', 'background']
/** Istio's: 1 s doubling to 150 s. */
const RETRY = { baseMs: 1_000, maxMs: 150_000 } as const
/** After a failure connections are refused at once for that long, then one of them tries again. */
const FAST_FAIL_MS = 1_000
/** Timers are set in steps, so that a jumped clock is noticed a minute later (and Node's longest timer, 24.8 days, not met). */
const LONGEST_TIMER_MS = 60_000
/** A renewal falls this share of the life around its middle: nodes that started together do not come together. */
const JITTER = 0.1
/** What was brought along for identities that nobody has used by then is dropped: their pods are gone. */
const RESTORED_MS = 600_000

export class CertificateManager implements Certificates {
  readonly #options: CertificateManagerOptions
  readonly #entries = new Map<string, Entry>()
  readonly #queue: Record<CertificatePriority, Entry[]> = { realtime: [], warmup: [], background: [] }
  readonly #listeners: ((bundle: string) => void)[] = []
  readonly #renewed: ((identity: Identity) => void)[] = []
  readonly #changed: (() => void)[] = []
  /** Of the program before this one, until somebody asks for them. */
  readonly #restored: Map<string, HeldCertificate>
  readonly #restoredTimer: Timer | undefined
  #running = 0
  /** Where roots come from: the file, the mesh's settings, the CA's last answer. */
  readonly #roots: { file: string; mesh: string; answer: string }
  #trust: string
  #closed = false

  constructor(options: CertificateManagerOptions) {
    const { roots, restored, clock } = options
    this.#options = options
    this.#roots = { file: roots, mesh: '', answer: restored?.trust ?? '' }
    this.#trust = mergePem(this.#roots.answer, roots)
    this.#restored = new Map(restored?.held)
    if (this.#restored.size > 0) this.#restoredTimer = clock.after(RESTORED_MS, () => this.#dropRestored(), true)
  }

  keyPair(identity: Identity): KeyPair | Promise<KeyPair> {
    const { clock } = this.#options
    let entry: Entry
    try {
      entry = this.#entry(identity)
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)))
    }
    const { held } = entry
    const now = clock.now()
    if (held && now < held.notAfter) {
      // Timers run on monotonic time: the wall clock may have jumped over the renewal.
      if (now >= held.renewAt && !entry.error) this.#want(entry, 'background')
      return held.pair
    }
    if (entry.error && !entry.running && clock.monotonic() - entry.failedAt < FAST_FAIL_MS) {
      return Promise.reject(entry.error)
    }
    return new Promise((resolve, reject) => {
      entry.waiters.push({ resolve, reject })
      this.#want(entry, 'realtime')
    })
  }

  prefetch(identity: Identity): void {
    const entry = this.#entry(identity)
    if (!entry.held && !entry.timer) this.#want(entry, 'warmup')
  }

  forget(identity: Identity): void {
    const uri = formatIdentity(identity)
    const entry = this.#entries.get(uri)
    if (!entry) return
    this.#entries.delete(uri)
    const { held } = entry
    this.#drop(entry, new AmbitError('CERTIFICATE_UNAVAILABLE', `${uri} is no longer used on this node.`))
    if (held) this.#tellChanged()
  }

  trust(): string {
    return this.#trust
  }

  /** The file has other roots. */
  setFileRoots(roots: string): void {
    this.#setRoots({ file: roots })
  }

  /** The mesh's settings have other roots; '' where control says nothing of them. What came with earlier certificates no longer counts. */
  setMeshRoots(roots: string): void {
    // Newer than what came with a certificate hours ago, and has what is not to be trusted any more left out.
    if (roots !== this.#roots.mesh) this.#setRoots(roots === '' ? { mesh: roots } : { mesh: roots, answer: '' })
  }

  onTrust(listener: (bundle: string) => void): void {
    this.#listeners.push(listener)
  }

  onRenewed(listener: (identity: Identity) => void): void {
    this.#renewed.push(listener)
  }

  /** A certificate came or went: what `kept` gives is another. */
  onChanged(listener: () => void): void {
    this.#changed.push(listener)
  }

  /** All that is held, with the keys, for the next program. */
  kept(): KeptCertificates {
    const held = new Map(this.#restored)
    for (const entry of this.#entries.values()) if (entry.held) held.set(entry.uri, entry.held)
    const now = this.#options.clock.now()
    for (const [uri, { notAfter }] of held) if (notAfter <= now) held.delete(uri)
    return { trust: this.#roots.answer || this.#roots.mesh, held }
  }

  status(): readonly CertificateStatus[] {
    const now = this.#options.clock.now()
    return [...this.#entries.values()].map(({ uri, held, error, running, queued }) => ({
      identity: uri,
      state: !held
        ? 'requested'
        : now >= held.notAfter
          ? 'expired'
          : running || queued !== undefined || error
            ? 'renewing'
            : 'valid',
      notBefore: held?.notBefore ?? 0,
      notAfter: held?.notAfter ?? 0,
      renewAt: held?.renewAt ?? 0,
      serial: held?.serial ?? '',
      error: error?.message ?? '',
    }))
  }

  close(): void {
    this.#closed = true
    this.#restoredTimer?.cancel()
    this.#restored.clear()
    const error = new AmbitError('CERTIFICATE_UNAVAILABLE', 'This program is shutting down.')
    for (const entry of this.#entries.values()) this.#drop(entry, error)
    this.#entries.clear()
  }

  #entry(identity: Identity): Entry {
    const { maxIdentities = 4_096, random } = this.#options
    const uri = formatIdentity(identity)
    const known = this.#entries.get(uri)
    if (known) return known
    if (this.#closed || this.#entries.size >= maxIdentities) {
      throw new AmbitError(
        'CERTIFICATE_UNAVAILABLE',
        `No certificate for ${uri}: ${this.#closed ? 'this program is shutting down' : `${maxIdentities} identities are held already`}.`,
      )
    }
    const entry: Entry = {
      identity,
      uri,
      backoff: new Backoff({ ...RETRY, ...(random ? { random } : {}) }),
      waiters: [],
      held: undefined,
      queued: undefined,
      running: false,
      timer: undefined,
      error: undefined,
      failedAt: 0,
      forgotten: false,
    }
    this.#entries.set(uri, entry)
    const restored = this.#restored.get(uri)
    this.#restored.delete(uri)
    if (restored && this.#options.clock.now() < restored.notAfter) {
      entry.held = restored
      this.#schedule(entry)
    }
    return entry
  }

  /** Queues a request, or moves a queued one up. */
  #want(entry: Entry, priority: CertificatePriority): void {
    if (entry.running || entry.forgotten) return
    if (entry.queued !== undefined) {
      if (PRIORITIES.indexOf(entry.queued) <= PRIORITIES.indexOf(priority)) return
      this.#unqueue(entry)
    }
    entry.timer?.cancel()
    entry.timer = undefined
    entry.queued = priority
    this.#queue[priority].push(entry)
    this.#pump()
  }

  #unqueue(entry: Entry): void {
    if (entry.queued === undefined) return
    const queue = this.#queue[entry.queued]
    const index = queue.indexOf(entry)
    if (index >= 0) queue.splice(index, 1)
    entry.queued = undefined
  }

  #pump(): void {
    const { concurrency = 8 } = this.#options
    while (this.#running < concurrency) {
      const entry = this.#queue.realtime.shift() ?? this.#queue.warmup.shift() ?? this.#queue.background.shift()
      if (!entry) return
      entry.queued = undefined
      entry.running = true
      this.#running++
      this.#fetch(entry).then(
        (held) => this.#settle(entry, held, undefined),
        (error: unknown) => this.#settle(entry, undefined, error),
      )
    }
  }

  async #fetch(entry: Entry): Promise<HeldCertificate> {
    const { sign, clock, validitySeconds = 86_400, random = Math.random } = this.#options
    const { key, csr } = await makeRequest(entry.identity)
    const chain = await sign({ csr, identity: entry.identity, validitySeconds })
    const [leafPem] = chain
    if (leafPem === undefined || chain.length < 2)
      throw new Error('the CA answered without certificate or trust bundle')
    const leaf = new X509Certificate(leafPem)
    if (!leaf.checkPrivateKey(createPrivateKey(key))) throw new Error('the CA signed another key')
    const got = formatIdentity(identityOfCertificate(leaf))
    if (got !== entry.uri) throw new Error(`the CA signed ${got}`)
    const now = clock.now()
    const notAfter = leaf.validToDate.getTime()
    if (notAfter <= now) throw new Error(`the CA's certificate is over since ${leaf.validTo}; do the clocks agree?`)
    // Peers would refuse it for now, so it replaces none that is valid. Where none is held, the clock that is wrong may be this one.
    const early = leaf.validFromDate.getTime() > now
    if (early && entry.held && now < entry.held.notAfter)
      throw new Error(`the CA's certificate begins at ${leaf.validFrom} only; do the clocks agree?`)
    this.#setRoots({ answer: mergePem(chain.at(-1) ?? '') })
    const share = 0.5 + JITTER * (random() - 0.5)
    return {
      pair: { certificate: mergePem(...chain.slice(0, -1)), key },
      notBefore: leaf.validFromDate.getTime(),
      notAfter,
      renewAt: now + (notAfter - now) * share,
      serial: leaf.serialNumber,
    }
  }

  #settle(entry: Entry, held: HeldCertificate | undefined, cause: unknown): void {
    this.#running--
    entry.running = false
    if (!entry.forgotten) {
      if (held) this.#succeed(entry, held)
      else this.#fail(entry, cause)
    }
    this.#pump()
  }

  #succeed(entry: Entry, held: HeldCertificate): void {
    const before = entry.held
    entry.held = held
    entry.error = undefined
    entry.backoff.reset()
    for (const waiter of entry.waiters.splice(0)) waiter.resolve(held.pair)
    this.#options.log.info(
      { identity: entry.uri, notAfter: new Date(held.notAfter).toISOString() },
      'certificate received',
    )
    this.#schedule(entry)
    this.#tellChanged()
    if (before) for (const listener of this.#renewed) listener(entry.identity)
  }

  #fail(entry: Entry, cause: unknown): void {
    const { clock, log } = this.#options
    const wait = entry.backoff.next()
    const valid = entry.held !== undefined && clock.now() < entry.held.notAfter
    entry.error = new AmbitError('CERTIFICATE_UNAVAILABLE', `No certificate for ${entry.uri}: ${messageOf(cause)}`, {
      cause,
    })
    entry.failedAt = clock.monotonic()
    log.warn(
      { identity: entry.uri, error: messageOf(cause), retryMs: Math.round(wait), stillValid: valid },
      'certificate not received',
    )
    for (const waiter of entry.waiters.splice(0)) waiter.reject(entry.error)
    entry.timer = clock.after(
      wait,
      () => {
        entry.timer = undefined
        this.#want(entry, valid ? 'background' : 'warmup')
      },
      true,
    )
  }

  #schedule(entry: Entry): void {
    const { clock } = this.#options
    const left = (entry.held?.renewAt ?? 0) - clock.now()
    entry.timer = clock.after(
      Math.min(Math.max(left, 0), LONGEST_TIMER_MS),
      () => {
        entry.timer = undefined
        if (clock.now() >= (entry.held?.renewAt ?? 0)) this.#want(entry, 'background')
        else this.#schedule(entry)
      },
      true,
    )
  }

  #setRoots(roots: Partial<{ file: string; mesh: string; answer: string }>): void {
    Object.assign(this.#roots, roots)
    const { file, mesh, answer } = this.#roots
    const bundle = mergePem(mesh, answer, file)
    if (bundle === '' || bundle === this.#trust) return
    this.#trust = bundle
    for (const listener of this.#listeners) listener(bundle)
  }

  #tellChanged(): void {
    if (!this.#closed) for (const listener of this.#changed) listener()
  }

  #dropRestored(): void {
    if (this.#restored.size === 0) return
    this.#restored.clear()
    this.#tellChanged()
  }

  #drop(entry: Entry, error: AmbitError): void {
    entry.forgotten = true
    this.#unqueue(entry)
    entry.timer?.cancel()
    entry.timer = undefined
    // The last reference to the private key.
    entry.held = undefined
    for (const waiter of entry.waiters.splice(0)) waiter.reject(error)
  }
}
