// The plugin's program in the folder of the node where its runtime looks for plugins. Must not live here: the configuration that
// makes it run (network.ts).
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AmbitError, messageOf } from '../../base/errors.ts'
import { PLUGIN_TYPE } from './conflist.ts'
import { removeFile, replaceFile, versionOf } from './files.ts'

/** Where `native/cni/build.sh` and the image have it. */
export const builtProgram = new URL('../../../build/cni/ambit-cni', import.meta.url).pathname

/** Keeps one file: installs it, and again if it is not as installed. */
export class Program {
  readonly #source: string
  readonly #path: string
  #installed: string | undefined

  constructor(source: string, binDir: string) {
    this.#source = source
    this.#path = join(binDir, PLUGIN_TYPE)
  }

  /** True if it was installed now. With `write` false it only looks. Throws CNI_PROGRAM. */
  async ensure(write: boolean): Promise<boolean> {
    try {
      const version = await versionOf(this.#path)
      if (version !== undefined && version === this.#installed) return false
      const content = await readFile(this.#source)
      const installed = version === undefined ? undefined : await readFile(this.#path)
      if (installed?.equals(content) === true || (!write && installed)) {
        this.#installed = version
        return false
      }
      if (!write) throw new AmbitError('CNI_PROGRAM', `The CNI plugin ${this.#path} is missing.`)
      // Of whatever owner and mode it was: this one is the agent's.
      await replaceFile(this.#path, content, version === undefined ? undefined : { version }, 0o755)
      this.#installed = undefined
      return true
    } catch (error) {
      if (error instanceof AmbitError) throw error
      throw new AmbitError('CNI_PROGRAM', `The CNI plugin cannot be put at ${this.#path}: ${messageOf(error)}.`, {
        hint: `--cni-bin-dir must be a folder of the node that can be written to.`,
        cause: error,
      })
    }
  }

  /** False if it was not there. Throws CNI_PROGRAM. */
  async remove(): Promise<boolean> {
    try {
      if ((await versionOf(this.#path)) === undefined) return false
      await removeFile(this.#path)
      return true
    } catch (error) {
      throw new AmbitError('CNI_PROGRAM', `The CNI plugin ${this.#path} cannot be removed: ${messageOf(error)}.`)
    }
  }
}
