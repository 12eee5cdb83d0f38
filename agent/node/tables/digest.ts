// A table of verdicts as a short text: what is in the kernel is remembered by it, not by its rows. Must not live here: tables.
import { createHash } from 'node:crypto'
import type { PolicyTable } from '../redirect/contract.ts'

// Pods under the same policies share their rows.
const digests = new WeakMap<PolicyTable['rows'], string>()

/** Begins with the head. Two tables with the same one are the same. */
export function digestOf({ head, rows, udpRefused }: PolicyTable): string {
  let digest = digests.get(rows)
  if (digest === undefined) {
    const text = rows.map(({ client = '', port = '', verdict }) => `${client} ${port} ${verdict}`).join()
    digests.set(rows, (digest = createHash('sha256').update(text).digest('base64')))
  }
  return `${head} ${digest} ${udpRefused.join(',')}`
}
