// The workloads' keys over a restart of the agent: saved where no disk is (redirect/vault.ts) when they change, found again at the
// start, so that tunnels are up at once although control may be away. Must not live here: what is in them (pki/kept.ts).
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { decodeKept, encodeKept, type KeptCertificates } from '../pki/kept.ts'
import type { CertificateManager } from '../pki/manager.ts'
import type { Metrics } from '../telemetry/exposition.ts'
import type { SecretMemory } from './redirect/contract.ts'

export interface KeyKeeperOptions {
  readonly vault: SecretMemory
  readonly clock: Clock
  readonly log: Logger
}

/** Changes come together: pods of a node start side by side. A hundred identities are 200 kB. */
const SAVE_MS = 250
/** The certificate manager's bound. */
const MOST = 4_096

export class KeyKeeper {
  readonly #options: KeyKeeperOptions
  #timer: Timer | undefined
  #closed = false
  #told = false
  #restored = 0

  constructor(options: KeyKeeperOptions) {
    this.#options = options
  }

  /** What the agent before this one left; undefined if there is nothing to use. Never rejects. */
  async load(): Promise<KeptCertificates | undefined> {
    const { vault, clock, log } = this.#options
    let bytes: Buffer | undefined
    try {
      bytes = await vault.load()
      if (!bytes) return undefined
      const kept = decodeKept(bytes, clock.now(), MOST)
      this.#restored = kept?.held.size ?? 0
      if (kept) log.info({ certificates: this.#restored }, 'certificates of the agent before this one are taken up')
      else log.warn('what the agent before this one kept is of another version')
      return kept
    } catch (error) {
      log.warn({ error: messageOf(error) }, 'the certificates of the agent before this one cannot be read')
      return undefined
    } finally {
      bytes?.fill(0)
    }
  }

  /** Saves what the manager holds, now and whenever that changes. */
  follow(manager: CertificateManager, metrics: Metrics): void {
    const restored = metrics.gauge({
      name: 'ambit_certificates_restored',
      help: 'Certificates left by the agent before this one, taken up at the start.',
      labels: [],
    })
    restored.with().value = this.#restored
    manager.onChanged(() => this.#saveSoon(manager))
    this.#saveSoon(manager)
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  #saveSoon(manager: CertificateManager): void {
    if (this.#closed) return
    this.#timer ??= this.#options.clock.after(
      SAVE_MS,
      () => {
        this.#timer = undefined
        void this.#save(manager)
      },
      true,
    )
  }

  async #save(manager: CertificateManager): Promise<void> {
    const { vault, log } = this.#options
    const kept = manager.kept()
    const bytes = kept.held.size > 0 ? encodeKept(kept) : undefined
    try {
      await vault.save(bytes)
      this.#told = false
    } catch (error) {
      if (!this.#told) log.warn({ error: messageOf(error) }, 'the certificates are not kept for the next agent')
      this.#told = true
    } finally {
      bytes?.fill(0)
    }
  }
}
