// Who a peer is, from its certificate: read by node:crypto only, strictly. OpenSSL has checked the path before this.
// Must not live here: whether it may do what it asks (mesh/).
import { X509Certificate } from 'node:crypto'
import { AmbitError } from '../base/errors.ts'
import { parseIdentity, type Identity } from '../mesh/identity.ts'

/** Characters a SPIFFE id may have: anything Node would quote or separate by is not among them. */
const ONE_URI = /^URI:(spiffe:\/\/[A-Za-z0-9._/-]+)$/

/**
 * The identity in the leaf: exactly one subject alternative name, a URI of Istio's form, in a certificate that is no CA.
 * Throws PEER_IDENTITY_INVALID.
 */
export function peerIdentity(certificates: readonly Uint8Array[]): Identity {
  const leaf = certificates[0]
  if (!leaf) throw invalid('it sent no certificate')
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
