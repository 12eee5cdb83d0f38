// Certificates as the addon holds them: one context per key pair and trust bundle, made once, dropped when the pair or the trust
// is no longer used. Must not live here: when a certificate is asked for (connection.ts), issuing (pki/).
import { AmbitError } from '../../base/errors.ts'
import type { KeyPair, TlsSettings } from '../connection.ts'
import { theEngine } from './engine.ts'

interface Held {
  readonly trust: string
  readonly id: number
}

/** Parsing PEM costs about a millisecond: once per key pair, again when the trust bundle changes. */
const contexts = new WeakMap<KeyPair, Held>()
/** A key pair that nobody refers to any more takes its context along; connections that use it keep it as long as they live. */
const dropped = new FinalizationRegistry<number>((id) => theEngine().native.dropContext(id))

/** The context of a key pair under the current trust. Throws IO_CERTIFICATE when they do not parse or do not fit together. */
export function contextFor(pair: KeyPair, settings: TlsSettings): number {
  const trust = settings.trust()
  const held = contexts.get(pair)
  if (held?.trust === trust) return held.id
  const { native } = theEngine()
  const made = native.context(pair.certificate, pair.key, trust)
  if (typeof made === 'string') {
    throw new AmbitError('IO_CERTIFICATE', `A certificate, its key or the trust bundle cannot be used: ${made}.`, {
      hint: 'Check that the files are PEM, that the key belongs to the certificate, and that the bundle is not empty.',
    })
  }
  if (held) {
    dropped.unregister(held)
    native.dropContext(held.id)
  }
  const now: Held = { trust, id: made }
  contexts.set(pair, now)
  dropped.register(pair, made, now)
  return made
}

/** The list of protocols as TLS carries it (RFC 7301 §3.1). */
export function alpnBytes(protocols: readonly string[]): Uint8Array {
  const parts: Buffer[] = []
  for (const protocol of protocols) {
    const name = Buffer.from(protocol, 'latin1')
    if (name.length === 0 || name.length > 255) {
      throw new AmbitError('IO_ALPN', `'${protocol}' is no ALPN protocol name.`, { hint: 'Use 1 to 255 bytes.' })
    }
    parts.push(Buffer.from([name.length]), name)
  }
  return Buffer.concat(parts)
}

export function versionNumber(settings: TlsSettings): number {
  return settings.minVersion === 'TLSv1.2' ? 0x0303 : 0x0304
}
