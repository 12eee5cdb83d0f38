// The file with the mesh's roots, as it is now: a mounted ConfigMap changes under a running program, by a swap of symbolic links.
// What is no certificate is not taken up: the last good text stays. Must not live here: what is trusted (manager.ts).
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import type { Clock, Timer } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { mergePem } from './bundle.ts'

export interface RootFileOptions {
  readonly file: string
  readonly clock: Clock
  readonly log: Logger
  /** PEM, once for each change after the start. */
  readonly onChange: (roots: string) => void
}

/** A kubelet brings a change within a minute or two; a stat would not be cheaper than reading 700 bytes. */
const LOOK_MS = 5_000
/** A bundle of some hundred roots. */
const MAX_BYTES = 256 * 1024

export class RootFile {
  readonly #options: RootFileOptions
  #timer: Timer | undefined
  #closed = false
  #problem = ''
  /** PEM, as read last. */
  roots: string

  /** Throws ROOT_CERT_UNREADABLE. */
  constructor(options: RootFileOptions) {
    this.#options = options
    const { file } = options
    try {
      this.roots = parse(readFileSync(file, 'utf8'))
    } catch (error) {
      throw new AmbitError('ROOT_CERT_UNREADABLE', `The mesh's roots in ${file} cannot be used: ${messageOf(error)}.`, {
        hint: 'It is what control wrote: root-cert.pem in its state folder, or the ConfigMap ambit-root-cert of each namespace.',
        cause: error,
      })
    }
    this.#again()
  }

  close(): void {
    this.#closed = true
    this.#timer?.cancel()
  }

  #again(): void {
    if (!this.#closed) this.#timer = this.#options.clock.after(LOOK_MS, () => void this.#look(), true)
  }

  async #look(): Promise<void> {
    const { file, log, onChange } = this.#options
    try {
      const roots = parse(await readFile(file, 'utf8'))
      this.#problem = ''
      if (roots !== this.roots && !this.#closed) {
        this.roots = roots
        log.info({ file }, "the file with the mesh's roots has changed")
        onChange(roots)
      }
    } catch (error) {
      const problem = messageOf(error)
      if (problem !== this.#problem)
        log.warn({ file, error: problem }, 'the roots cannot be read; those read before stay')
      this.#problem = problem
    }
    this.#again()
  }
}

function parse(text: string): string {
  if (text.length > MAX_BYTES) throw new Error(`it has more than ${MAX_BYTES} bytes`)
  const roots = mergePem(text)
  if (roots === '') throw new Error('it has no PEM certificate')
  return roots
}
