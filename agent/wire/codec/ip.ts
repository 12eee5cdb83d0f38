// IP addresses between their wire form (4 or 16 bytes) and canonical text, refusing what is neither.
import { formatIp, parseIp } from '../../base/ip.ts'
import { invalid } from './parts.ts'

/** Throws WIRE_RESOURCE_INVALID for text that is no address. */
export function ipToBytes(text: string): Uint8Array<ArrayBuffer> {
  const bytes = parseIp(text)
  if (!bytes) throw invalid(`'${text}' is not an IP address`)
  return bytes as Uint8Array<ArrayBuffer>
}

/** Throws WIRE_RESOURCE_INVALID for any length but 4 and 16. */
export function ipFromBytes(bytes: Uint8Array): string {
  if (bytes.length !== 4 && bytes.length !== 16) {
    throw invalid(`an address of ${bytes.length} bytes is neither IPv4 nor IPv6`)
  }
  return formatIp(bytes)
}
