// Who a peer is, from its certificate: read by node:crypto only, strictly. OpenSSL has checked the path before this.
// Must not live here: whether it may do what it asks (mesh/).
import { X509Certificate } from 'node:crypto'
import { AmbitError } from '../base/errors.ts'
import { parseIdentity, type Identity } from '../mesh/identity.ts'

/** Characters a SPIFFE id may have: anything Node would quote or separate by is not among them. */
const ONE_URI = /^URI:(spiffe:\/\/[A-Za-z0-9._/-]+)$/

/** Leaves read lately: a peer comes back with each of its sessions, and both a handshake's verdict and its session ask. Bound: 4 096, some 4 MiB. */
const MOST_KNOWN = 4_096
const known = new Map<string, Identity>()

/**
 * The identity in the leaf: exactly one subject alternative name, a URI of Istio's form, in a certificate that is no CA.
 * Throws PEER_IDENTITY_INVALID.
 */
export function peerIdentity(certificates: readonly Uint8Array[]): Identity {
  const leaf = certificates[0]
  if (!leaf) throw invalid('it sent no certificate')
  // What a leaf says follows from its bytes alone; whether they are to be believed, OpenSSL has judged for this connection.
  const text = Buffer.from(leaf.buffer, leaf.byteOffset, leaf.byteLength).toString('latin1')
  const before = known.get(text)
  if (before !== undefined) return before
  const identity = readLeaf(leaf)
  if (known.size >= MOST_KNOWN) known.delete(known.keys().next().value as string)
  known.set(text, identity)
  return identity
}

function readLeaf(leaf: Uint8Array): Identity {
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(leaf)
  } catch {
    throw invalid('its certificate cannot be read')
  }
  return identityOfCertificate(certificate)
}

export function identityOfCertificate(certificate: X509Certificate): Identity {
  if (certificate.ca) throw invalid('its certificate is that of a CA')
  const names = certificate.subjectAltName ?? ''
  const uri = ONE_URI.exec(names)?.[1]
  if (uri === undefined) throw invalid(`its names are '${names.slice(0, 200)}', not one SPIFFE id`)
  try {
    return parseIdentity(uri)
  } catch (error) {
    throw invalid(`'${uri.slice(0, 200)}' is not an identity of this mesh`, error)
  }
}

function invalid(why: string, cause?: unknown): AmbitError {
  return new AmbitError('PEER_IDENTITY_INVALID', `The peer has no usable identity: ${why}.`, { cause })
}
