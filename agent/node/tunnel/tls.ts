// The two sides of the tunnel's mutual TLS (reference: ambient, TLS and identity): the agent shows the certificate of the
// workload it acts for, never its own, and checks who the peer is. Must not live here: certificates (pki/), what a peer may do.
import { AmbitError } from '../../base/errors.ts'
import type { KeyPair, TlsPeer, TlsSettings } from '../../io/connection.ts'
import { formatIdentity, type Identity } from '../../mesh/identity.ts'
import { identityOf } from '../../mesh/workload.ts'
import { peerIdentity } from '../../pki/peer-identity.ts'
import type { AgentTarget, TunnelContext } from './contract.ts'
import type { LocalPod } from './local-pod.ts'
import { within } from './state-wait.ts'

const ALPN = ['h2'] as const

/** At once when it is held: a handshake costs no promise then. */
function certificateOf(context: TunnelContext, identity: Identity): KeyPair | Promise<KeyPair> {
  const pair = context.certificates.keyPair(identity)
  if (!(pair instanceof Promise)) return pair
  return within(
    context.clock,
    context.waitMs,
    pair,
    () =>
      new AmbitError(
        'TUNNEL_NO_CERTIFICATE',
        `No certificate for ${formatIdentity(identity)} came within ${context.waitMs} ms.`,
        { hint: 'Is control reachable? The agent goes on asking.' },
      ),
  )
}

/** Client side: as the target's source, to a server that must be one of the accepted (SPIFFE ids). */
export class ClientTls implements TlsSettings {
  readonly alpn = ALPN
  /** Tells the source pod and who it expects at the other end apart from all others, as sharing a tunnel does. */
  readonly sessionKey: string
  readonly #context: TunnelContext
  readonly #target: AgentTarget

  constructor(context: TunnelContext, target: AgentTarget) {
    this.#context = context
    this.#target = target
    this.sessionKey = target.key
  }

  trust(): string {
    return this.#context.certificates.trust()
  }

  certificate(): KeyPair | Promise<KeyPair> {
    return certificateOf(this.#context, this.#target.source)
  }

  verify(peer: TlsPeer): void {
    const found = formatIdentity(peerIdentity(peer.certificates))
    const { accepted } = this.#target
    if (accepted.includes(found)) return
    throw new AmbitError('TUNNEL_WRONG_PEER', `The server is ${found}, not ${accepted.join(' or ')}.`, {
      hint: 'Its address was probably given to another pod.',
    })
  }
}

/** Ends the handshake of a canary, which has arrived with its first flight. No refusal, and nobody's failure. */
export class CanaryLanded extends Error {
  constructor() {
    super('a canary has landed')
  }
}

/** Server side, for one pod: its workload's certificate, and clients of the mesh's trust domain only. */
export class ServerTls implements TlsSettings {
  readonly alpn = ALPN
  readonly #context: TunnelContext
  readonly #pod: LocalPod

  constructor(context: TunnelContext, pod: LocalPod) {
    this.#context = context
    this.#pod = pod
  }

  trust(): string {
    return this.#context.certificates.trust()
  }

  certificate(serverName: string): KeyPair | Promise<KeyPair> {
    if (this.#context.canaries.landedInbound(this.#pod.uid, serverName)) throw new CanaryLanded()
    const { workload } = this.#pod
    return workload ? certificateOf(this.#context, identityOf(workload)) : this.#awaited()
  }

  async #awaited(): Promise<KeyPair> {
    const context = this.#context
    await context.until(() => this.#pod.workload !== undefined)
    const { workload } = this.#pod
    if (!workload) {
      throw new AmbitError('TUNNEL_NO_WORKLOAD', `Nothing is known of pod ${this.#pod.name} yet.`, {
        hint: 'Its workload has not come from control.',
      })
    }
    return certificateOf(context, identityOf(workload))
  }

  verify(peer: TlsPeer): void {
    const identity = peerIdentity(peer.certificates)
    const settings = this.#context.view()?.settings
    if (
      settings &&
      (identity.trustDomain === settings.trustDomain || settings.trustDomainAliases.includes(identity.trustDomain))
    )
      return
    throw new AmbitError(
      'TUNNEL_TRUST_DOMAIN',
      `The client is of the trust domain '${identity.trustDomain}', not '${settings?.trustDomain ?? ''}'.`,
    )
  }
}
