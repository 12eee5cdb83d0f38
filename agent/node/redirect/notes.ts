// Addresses and notes between the kernel's form (16 bytes, IPv4 mapped, host-order port) and the agent's. Must not live
// here: maps, sockets.
import { AmbitError } from '../../base/errors.ts'
import { formatIp, parseIp, to16 } from '../../base/ip.ts'
import type { Note, Socket, Tally } from '../../../native/bpf/gen/connect.ts'
import type { Captured } from './contract.ts'
import type { Endpoint } from '../../io/connection.ts'

/** enum note_kind of bpf/lib/notes.h. */
export const noteKinds = {
  dialled: 1,
  captured: 2,
  onBehalf: 3,
  client: 4,
  direct: 5,
  attested: 6,
  passed: 7,
  kubelet: 8,
  canary: 9,
  tunnel: 10,
} as const

const NOWHERE = { bytes: new Uint8Array(16) }
const NOT_COUNTED: Tally = { opened_ns: 0n, sampled_ns: 0n, cookie: 0n, running: 0, security: 0, known: 0 }

/** A struct note that says nothing, to be filled in. */
export const emptyNote: Note = {
  address: NOWHERE,
  chosen: NOWHERE,
  client: 0n,
  port: 0,
  kind: 0,
  chosen_port: 0,
  refusal: 0,
}

/** struct address of an address in text form; throws REDIRECT_BAD_ADDRESS. */
export function kernelAddress(text: string): { bytes: Uint8Array } {
  const bytes = parseIp(text)
  if (!bytes) throw new AmbitError('REDIRECT_BAD_ADDRESS', `'${text}' is not an IP address.`)
  return { bytes: to16(bytes) }
}

/** The note that makes an app see `client` as its peer. */
export function noteOnBehalf(client: Endpoint): Socket {
  const note = { ...emptyNote, address: kernelAddress(client.address), port: client.port, kind: noteKinds.onBehalf }
  return { note, tally: NOT_COUNTED }
}

/** The note that sends a socket of the agent's own a pod's way; where to says connect(). */
export function noteCanary(): Socket {
  return { note: { ...emptyNote, kind: noteKinds.canary }, tally: NOT_COUNTED }
}

/** The note by which a tunnel of the agent's, opened for the pod with this namespace, is counted. */
export function noteTunnel(cookie: bigint, to: Endpoint): Socket {
  const note = {
    ...emptyNote,
    address: kernelAddress(to.address),
    port: to.port,
    client: cookie,
    kind: noteKinds.tunnel,
  }
  return { note, tally: NOT_COUNTED }
}

/** Where the note says a captured connection wanted to go; undefined for a note of another kind. */
export function originalDestinationOf({ note }: Socket): Captured | undefined {
  if (note.kind !== noteKinds.captured) return undefined
  const dialled = { address: formatIp(note.address.bytes), port: note.port }
  if (note.chosen_port === 0) return dialled
  return { ...dialled, chosen: { address: formatIp(note.chosen.bytes), port: note.chosen_port } }
}
