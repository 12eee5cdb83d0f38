// Secrets that outlive this process and are never on a disk: sealed memory whose descriptor the holder keeps beside the listeners.
// Whoever may ask the holder (root, or its own user) may read it; the holder itself does not. Must not live here: what is in it.
import { closeFd, readSealed, sealedMemory } from '../../../native/bpf/index.ts'
import type { SecretMemory } from './contract.ts'
import type { Keeping } from './keeping.ts'

/** One for all schemas: what is in it says its own version. */
const NAME = 'keys'
/** The holder's bound. */
const MOST = 16 * 1024 * 1024

export interface VaultOptions {
  readonly keeping: Keeping
  readonly leads: () => boolean
}

export class Vault implements SecretMemory {
  readonly #options: VaultOptions
  /** Kept open, so that a holder that comes back empty can be given it again. */
  #fd: number | undefined
  #closed = false
  #turn: Promise<void> = Promise.resolve()

  constructor(options: VaultOptions) {
    this.#options = options
  }

  async load(): Promise<Buffer | undefined> {
    const fds = (await this.#options.keeping.get(NAME)) ?? []
    try {
      const [fd] = fds
      return fd === undefined ? undefined : readSealed(fd, MOST)
    } finally {
      fds.forEach(closeFd)
    }
  }

  save(bytes: Uint8Array | undefined): Promise<void> {
    const saved = this.#turn.then(() => this.#save(bytes))
    this.#turn = saved.catch(() => undefined)
    return saved
  }

  /** Lets go of this process's copy; the holder's stays. */
  close(): void {
    this.#closed = true
    void this.#turn.then(() => this.#replace(undefined))
  }

  async #save(bytes: Uint8Array | undefined): Promise<void> {
    const { keeping, leads } = this.#options
    if (this.#closed || !leads()) return
    if (bytes === undefined || bytes.length > MOST) {
      await keeping.drop(NAME)
      this.#replace(undefined)
      return
    }
    const fd = sealedMemory('ambit-keys', bytes)
    try {
      await keeping.put(NAME, [fd])
    } finally {
      this.#replace(fd)
    }
  }

  #replace(fd: number | undefined): void {
    if (this.#fd !== undefined) closeFd(this.#fd)
    this.#fd = fd
  }
}
