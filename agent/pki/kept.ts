// Certificates with their keys as one piece of bytes, for a program that is to find them again when it is started anew. What comes
// back is checked as if a stranger had written it. Must not live here: where the bytes are kept (never on a disk), when.
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { KeyPair } from '../io/connection.ts'
import { formatIdentity } from '../mesh/identity.ts'
import { mergePem } from './bundle.ts'
import { identityOfCertificate } from './peer-identity.ts'

/** A certificate as it is held; times in milliseconds since the epoch. */
export interface HeldCertificate {
  readonly pair: KeyPair
  readonly notBefore: number
  readonly notAfter: number
  readonly renewAt: number
  readonly serial: string
}

export interface KeptCertificates {
  /** PEM, as the CA sent it last. */
  readonly trust: string
  /** By SPIFFE id. */
  readonly held: ReadonlyMap<string, HeldCertificate>
}

const VERSION = 1

export function encodeKept({ trust, held }: KeptCertificates): Buffer {
  const certificates = [...held.values()].map(({ pair, renewAt }) => ({ ...pair, renewAt }))
  return Buffer.from(JSON.stringify({ version: VERSION, trust, certificates }))
}

/**
 * What of it can be used at `now`: certificates that are valid, whose key is theirs; at most `most`. Undefined if it is of another
 * version, or nonsense.
 */
export function decodeKept(bytes: Buffer, now: number, most: number): KeptCertificates | undefined {
  try {
    const { version, trust, certificates } = JSON.parse(bytes.toString()) as Record<string, unknown>
    if (version !== VERSION || typeof trust !== 'string' || !Array.isArray(certificates)) return undefined
    const held = new Map<string, HeldCertificate>()
    for (const one of certificates.slice(0, most) as unknown[]) {
      const found = read(one, now)
      if (found) held.set(found.uri, found.held)
    }
    return { trust: mergePem(trust), held }
  } catch {
    return undefined
  }
}

function read(from: unknown, now: number): { uri: string; held: HeldCertificate } | undefined {
  try {
    const { certificate, key, renewAt } = from as { certificate: string; key: string; renewAt: number }
    const leaf = new X509Certificate(certificate)
    const [notBefore, notAfter] = [leaf.validFromDate.getTime(), leaf.validToDate.getTime()]
    if (notAfter <= now || !leaf.checkPrivateKey(createPrivateKey(key))) return undefined
    // A clock that was wrong when it was saved must not put the renewal off.
    const due = Number.isFinite(renewAt) ? Math.min(renewAt, notAfter) : now
    return {
      uri: formatIdentity(identityOfCertificate(leaf)),
      held: { pair: { certificate, key }, notBefore, notAfter, renewAt: due, serial: leaf.serialNumber },
    }
  } catch {
    return undefined
  }
}
