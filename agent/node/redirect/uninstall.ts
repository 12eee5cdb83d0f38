// Taking all of it off a node without an agent: programs of every schema, their pins, the listeners in the holder. Must not live
// here: how one schema is taken off (schema.ts), one pod (pods.ts).
import { existsSync, rmSync } from 'node:fs'
import { isBpffs } from '../../../native/bpf/index.ts'
import { AmbitError } from '../../base/errors.ts'
import { Holder } from './holder.ts'
import { Lease } from './lease.ts'
import { namesIn, otherSchemas, pinFolder, removeSchema } from './schema.ts'

/** What there was. */
export interface Uninstalled {
  readonly schemas: readonly number[]
  readonly pods: number
  /** What the holder had: a set of listeners for each pod, and the keys of all. */
  readonly kept: number
}

/**
 * Removes everything under `pinRoot` and all that the holder keeps; pods talk plainly afterwards. An agent that still runs
 * changes nothing in the kernel any more. Does nothing where nothing is. Throws AmbitError REDIRECT_*.
 */
export async function uninstallNode(pinRoot: string, holder?: string): Promise<Uninstalled> {
  const schemas = otherSchemas(pinRoot, 0)
  const pods = new Set(schemas.flatMap((schema) => namesIn(`${pinFolder(pinRoot, schema)}/pods`)))
  if (existsSync(pinRoot)) {
    if (!isBpffs(pinRoot)) {
      throw new AmbitError('REDIRECT_NO_BPFFS', `The pin folder ${pinRoot} does not lie on a bpffs.`, {
        hint: 'Name the folder that the agent was started with: nothing is removed elsewhere.',
      })
    }
    // Whoever leads by now puts nothing back.
    Lease.take(pinRoot).close()
    for (const schema of schemas) await removeSchema(pinRoot, schema)
    rmSync(pinRoot, { recursive: true, force: true })
  }
  const kept = holder !== undefined && existsSync(holder) ? await new Holder(holder).dropAll('') : 0
  return { schemas, pods: pods.size, kept }
}
