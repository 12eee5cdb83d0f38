// One authority after another without a refused handshake: everybody is told of new roots before the first certificate is issued
// under them, and old roots are trusted as long as a certificate under them can live. Pure but for its clock. Must not live here:
// where authorities come from, who is told and how (control/issue).
import type { Clock, Timer } from '../base/clock.ts'
import type { KeyPair } from '../io/connection.ts'
import type { Identity } from '../mesh/identity.ts'
import type { Authority, SigningAuthority } from './authority.ts'
import { mergePem, splitPem } from './bundle.ts'

export interface RotationOptions {
  readonly clock: Clock
  /** So long everybody may need to hear of new roots. Milliseconds. */
  readonly spreadMs: number
  /** So long a certificate may live, and be used. Milliseconds. */
  readonly keepMs: number
}

/** A root that is, or was, the anchor of certificates in use. */
export interface KnownRoot {
  readonly pem: string
  /** Milliseconds since the epoch; 0: certificates were issued under it when this was written. */
  readonly until: number
}

/** Roots that are trusted for what was issued; a mesh that changes its root every day has two. */
const MOST_RETIRED = 16
/** Timers are set in steps, so that a jumped clock is noticed. */
const LONGEST_TIMER_MS = 3_600_000

export class Rotation implements Authority {
  readonly #options: RotationOptions
  readonly #listeners = new Set<() => void>()
  #current: SigningAuthority
  /** To be in force once its roots are known to everybody. */
  #next: { readonly authority: SigningAuthority; readonly at: number } | undefined
  /** Root → until when it is trusted although no authority has it, wall clock. */
  readonly #retired = new Map<string, number>()
  /** Root → since when everybody is told of it, monotonic. */
  readonly #told = new Map<string, number>()
  #bundle = ''
  #timer: Timer | undefined
  #stopped = false

  /** `known`: what `known()` gave before this program was started. */
  constructor(first: SigningAuthority, options: RotationOptions, known: readonly KnownRoot[] = []) {
    this.#options = options
    this.#current = first
    for (const { pem, until } of known) if (!first.anchors.includes(pem)) this.#retire(pem, until || this.#keepUntil())
    this.#settle()
    // Nobody else issues meanwhile: to wait would help no one.
    for (const root of splitPem(this.#bundle)) this.#told.set(root, -Infinity)
  }

  get trustBundle(): string {
    return this.#bundle
  }

  get notAfter(): number {
    return this.#current.notAfter
  }

  /** True while new roots spread and certificates still come from the authority before. */
  get waiting(): boolean {
    return this.#next !== undefined
  }

  /** For the next program. */
  known(): readonly KnownRoot[] {
    return [
      ...this.#current.anchors.map((pem) => ({ pem, until: 0 })),
      ...[...this.#retired].map(([pem, until]) => ({ pem, until })),
    ]
  }

  /** Another authority: in force at once if its roots are known to everybody, else when they are. */
  take(authority: SigningAuthority): void {
    const { clock } = this.#options
    this.#next = undefined
    const now = clock.monotonic()
    const told = authority.anchors.map((root) => this.#told.get(root) ?? now)
    const at = Math.min(...told) + this.#options.spreadMs
    if (at <= now || this.#current.notAfter <= clock.now()) this.#switch(authority)
    else this.#next = { authority, at }
    this.#settle()
    this.#tell()
  }

  async issue(csr: string, identity: Identity, validitySeconds: number): Promise<readonly string[]> {
    const chain = await this.#current.issue(csr, identity, validitySeconds)
    return [...chain.slice(0, -1), this.#bundle]
  }

  serverCertificate(
    names: readonly string[],
    validitySeconds: number,
  ): Promise<KeyPair & { readonly notAfter: number }> {
    return this.#current.serverCertificate(names, validitySeconds)
  }

  onChange(listener: () => void): void {
    this.#listeners.add(listener)
  }

  stop(): void {
    this.#stopped = true
    this.#timer?.cancel()
  }

  #switch(authority: SigningAuthority): void {
    for (const root of this.#current.anchors) this.#retire(root, this.#keepUntil())
    this.#current = authority
    this.#next = undefined
  }

  #retire(root: string, until: number): void {
    this.#retired.delete(root)
    this.#retired.set(root, until)
    // The oldest first: they are the nearest to their end.
    for (const oldest of this.#retired.keys()) {
      if (this.#retired.size <= MOST_RETIRED) break
      this.#retired.delete(oldest)
    }
  }

  #keepUntil(): number {
    return this.#options.clock.now() + this.#options.keepMs
  }

  /** Makes the bundle what it is to be now, and looks again when it may be another. */
  #settle(): void {
    const { clock } = this.#options
    const now = clock.now()
    for (const root of this.#current.anchors) this.#retired.delete(root)
    for (const [root, until] of this.#retired) if (until <= now) this.#retired.delete(root)
    const next = this.#next?.authority.trustBundle ?? ''
    this.#bundle = mergePem(this.#current.trustBundle, next, ...this.#retired.keys())
    const roots = splitPem(this.#bundle)
    for (const root of this.#told.keys()) if (!roots.includes(root)) this.#told.delete(root)
    for (const root of roots) if (!this.#told.has(root)) this.#told.set(root, clock.monotonic())
    this.#timer?.cancel()
    this.#timer = undefined
    const waits = [...this.#retired.values()].map((until) => until - now)
    if (this.#next) waits.push(this.#next.at - clock.monotonic())
    if (waits.length > 0 && !this.#stopped)
      this.#timer = clock.after(Math.max(0, Math.min(...waits, LONGEST_TIMER_MS)), () => this.#look(), true)
  }

  #look(): void {
    const before = [this.#bundle, this.#current]
    if (this.#next && this.#next.at <= this.#options.clock.monotonic()) this.#switch(this.#next.authority)
    this.#settle()
    if (before[0] !== this.#bundle || before[1] !== this.#current) this.#tell()
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
  }
}
