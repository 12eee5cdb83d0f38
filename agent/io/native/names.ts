// Socket addresses as the addon packs them (16 bytes, IPv4 as v4-mapped, and a port) in the contract's text form. Must not live
// here: sockets.
import { formatIp } from '../../base/ip.ts'
import type { Endpoint } from '../connection.ts'

export const PACKED = 18

/** Text of the last few addresses: most connections of a process have one of few local addresses. */
const KNOWN = 64
const known = new Map<string, string>()

function isMapped(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < 10; i++) if (bytes[at + i] !== 0) return false
  return bytes[at + 10] === 0xff && bytes[at + 11] === 0xff
}

function six(bytes: Uint8Array, at: number): string {
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset + at, 16).toString('latin1')
  let text = known.get(raw)
  if (text === undefined) {
    text = formatIp(bytes.subarray(at, at + 16))
    if (known.size >= KNOWN) known.clear()
    known.set(raw, text)
  }
  return text
}

/** The endpoint packed at `at`; all zero is a unix socket, whose name is its path. */
export function unpackEndpoint(bytes: Uint8Array, at: number): Endpoint {
  const port = ((bytes[at + 16] as number) << 8) | (bytes[at + 17] as number)
  if (isMapped(bytes, at)) {
    return { address: `${bytes[at + 12]}.${bytes[at + 13]}.${bytes[at + 14]}.${bytes[at + 15]}`, port }
  }
  return { address: six(bytes, at), port }
}
