// The two sides of mutual TLS as the waypoint uses them: it shows its own identity, takes clients of its own trust domain, and
// checks that an endpoint is the workload it meant. Must not live here: certificates (pki/), sockets (io/).
import { AmbitError } from '../base/errors.ts'
import type { TlsSettings } from '../io/connection.ts'
import { formatIdentity, type Identity } from '../mesh/identity.ts'
import type { MeshView } from '../mesh/state.ts'
import type { Certificates } from '../pki/contract.ts'
import { peerIdentity } from '../pki/peer-identity.ts'

/** Server side: any workload of the mesh may connect; what it may do is judged per request. */
export function serverTls(certificates: Certificates, own: Identity, view: MeshView): TlsSettings {
  return {
    alpn: ['h2'],
    trust: () => certificates.trust(),
    certificate: () => certificates.keyPair(own),
    verify(peer) {
      const identity = peerIdentity(peer.certificates)
      const { trustDomain, trustDomainAliases } = view.settings
      if (identity.trustDomain !== trustDomain && !trustDomainAliases.includes(identity.trustDomain)) {
        throw new AmbitError(
          'TLS_TRUST_DOMAIN',
          `The peer is of the trust domain '${identity.trustDomain}', not '${trustDomain}'.`,
        )
      }
    },
  }
}

/** Client side: the endpoint must be one of `expected` (SPIFFE ids). `sessionKey` tells the endpoint apart from all others. */
export function clientTls(
  certificates: Certificates,
  own: Identity,
  expected: readonly string[],
  sessionKey = '',
): TlsSettings {
  return {
    ...(sessionKey === '' ? {} : { sessionKey }),
    alpn: ['h2'],
    trust: () => certificates.trust(),
    certificate: () => certificates.keyPair(own),
    verify(peer) {
      const found = formatIdentity(peerIdentity(peer.certificates))
      if (!expected.includes(found)) {
        throw new AmbitError('TLS_WRONG_PEER', `The endpoint is ${found}, not ${expected.join(' or ')}.`, {
          hint: 'Its address was probably given to another pod.',
        })
      }
    },
  }
}
