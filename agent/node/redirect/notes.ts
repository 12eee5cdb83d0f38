// Addresses and notes between the kernel's form (16 bytes, IPv4 mapped, host-order port) and the agent's. Must not live
// here: maps, sockets.
import { AmbitError } from '../../base/errors.ts'
import { formatIp, parseIp, to16 } from '../../base/ip.ts'
import type { Endpoint } from '../../io/connection.ts'

/** enum note_kind of bpf/lib/notes.h. */
export const noteKinds = { dialled: 1, captured: 2, onBehalf: 3, client: 4 } as const

/** struct note. */
export interface Note {
  readonly address: { readonly bytes: Uint8Array }
  readonly port: number
  readonly kind: number
}

/** struct address of an address in text form; throws REDIRECT_BAD_ADDRESS. */
export function kernelAddress(text: string): { bytes: Uint8Array } {
  const bytes = parseIp(text)
  if (!bytes) throw new AmbitError('REDIRECT_BAD_ADDRESS', `'${text}' is not an IP address.`)
  return { bytes: to16(bytes) }
}

/** The note that makes an app see `client` as its peer. */
export function noteOnBehalf(client: Endpoint): Note {
  return { address: kernelAddress(client.address), port: client.port, kind: noteKinds.onBehalf }
}

/** Where the note says a captured connection wanted to go; undefined for a note of another kind. */
export function originalDestinationOf(note: Note): Endpoint | undefined {
  if (note.kind !== noteKinds.captured) return undefined
  return { address: formatIp(note.address.bytes), port: note.port }
}
