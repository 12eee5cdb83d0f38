// SPIFFE identities as Istio writes them: spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
// Must not live here: certificates (pki/), who may act as whom (control/issue).
import { AmbitError } from '../base/errors.ts'

export interface Identity {
  readonly trustDomain: string
  readonly namespace: string
  readonly serviceAccount: string
}

const SEGMENT = /^[A-Za-z0-9._-]+$/

/** `spiffe://td/ns/x/sa/y`. */
export function formatIdentity(identity: Identity): string {
  return `spiffe://${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`
}

/** The principal as AuthorizationPolicy writes it: the id without `spiffe://`. */
export function principalOf(identity: Identity): string {
  return `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}`
}

/** Parses exactly the Istio form; throws IDENTITY_INVALID for anything else (extra segments, empty parts, other characters). */
export function parseIdentity(uri: string): Identity {
  const parts = uri.startsWith('spiffe://') ? uri.slice('spiffe://'.length).split('/') : []
  const [trustDomain, ns, namespace, sa, serviceAccount] = parts
  if (
    parts.length !== 5 ||
    ns !== 'ns' ||
    sa !== 'sa' ||
    !trustDomain ||
    !namespace ||
    !serviceAccount ||
    !SEGMENT.test(trustDomain) ||
    !SEGMENT.test(namespace) ||
    !SEGMENT.test(serviceAccount)
  ) {
    throw new AmbitError(
      'IDENTITY_INVALID',
      `'${uri}' is not an identity of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>.`,
    )
  }
  return { trustDomain, namespace, serviceAccount }
}

export function sameIdentity(a: Identity, b: Identity): boolean {
  return a.trustDomain === b.trustDomain && a.namespace === b.namespace && a.serviceAccount === b.serviceAccount
}
