// A pod's captured outbound connections: where they wanted to go, how the mesh sends them there (mesh/resolve.ts decides), and
// the tunnel or plain socket that takes them. Must not live here: the decision, pools, TLS.
import { AmbitError } from '../../base/errors.ts'
import { joinHostPort } from '../../base/ip.ts'
import type { Connection, ConnectionHandler, Endpoint, OpenInfo } from '../../io/connection.ts'
import { baggageOf } from './baggage.ts'
import { connectTunnel } from '../../http/hbone/connect.ts'
import { TunnelRefused } from '../../http/http2/index.ts'
import { forwardedValue, newTraceparent } from '../../http/hbone/headers.ts'
import type { TunnelPool } from '../../http/hbone/pool.ts'
import { formatIdentity } from '../../mesh/identity.ts'
import { resolveOutbound, type Outbound } from '../../mesh/resolve.ts'
import { identityOf, type Workload } from '../../mesh/workload.ts'
import type { TcpFlags } from '../../telemetry/istio.ts'
import type { FlowFacts } from '../observe/flow.ts'
import type { RefusalReason } from '../observe/refusals.ts'
import type { Captured } from '../redirect/contract.ts'
import { Carried, FirstSide } from './carried.ts'
import type { AgentTarget, TunnelContext } from './contract.ts'
import type { LocalPod } from './local-pod.ts'

type Tunnelled = Extract<Outbound, { kind: 'hbone' | 'waypoint' }>

/** The target of a pod's tunnel to `to`, the same object as long as nothing of it changes: its key is built and hashed once. */
function targetOf(pod: LocalPod, source: Workload, to: Tunnelled): AgentTarget {
  const known = pod.targets.get(to.workload)
  if (
    known !== undefined &&
    known.from === source &&
    known.port === to.port &&
    known.address === to.address &&
    sameTexts(known.accepted, to.identities)
  )
    return known
  const identity = identityOf(source)
  const target: AgentTarget = {
    key: `${pod.uid} ${formatIdentity(identity)} ${to.identities.join(',')} ${to.workload.uid} ${joinHostPort(to.address, to.port)}`,
    podUid: pod.uid,
    from: source,
    source: identity,
    accepted: to.identities,
    destination: to.workload.uid,
    address: to.address,
    port: to.port,
  }
  pod.targets.set(to.workload, target)
  return target
}

function sameTexts(a: readonly string[], b: readonly string[]): boolean {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Handler of a pod's outbound listener. */
export class OutboundHandler extends FirstSide implements ConnectionHandler {
  readonly #context: TunnelContext
  readonly #pool: TunnelPool<AgentTarget>
  readonly #pod: LocalPod

  constructor(context: TunnelContext, pool: TunnelPool<AgentTarget>, pod: LocalPod) {
    super()
    this.#context = context
    this.#pool = pool
    this.#pod = pod
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    const wanted = this.#context.redirect.originalDestination(connection.fd)
    if (!wanted || this.#pod.stopped) {
      // Someone dialled the listener itself: it leads nowhere.
      const reason = this.#pod.stopped ? 'pod_leaving' : 'not_captured'
      this.#pod.refused('outbound', reason, info.peer.address, 'it leads nowhere')
      connection.abort('refused')
      return
    }
    if (this.#context.canaries.landedOutbound(this.#pod.uid, wanted)) {
      connection.abort('cancel')
      return
    }
    const carried = new OutboundConnection(this.#context, this.#pool, this.#pod, connection, info.peer, wanted)
    connection.slot = carried
    carried.begin()
  }
}

class OutboundConnection extends Carried {
  readonly #pool: TunnelPool<AgentTarget>
  readonly #first: Connection
  readonly #client: Endpoint
  readonly #wanted: Captured
  #source: Workload | undefined
  #to: Outbound | undefined

  constructor(
    context: TunnelContext,
    pool: TunnelPool<AgentTarget>,
    pod: LocalPod,
    first: Connection,
    peer: Endpoint,
    wanted: Captured,
  ) {
    super(context, pod)
    this.#pool = pool
    this.#first = first
    this.#wanted = wanted
    // Captured connections come over loopback: the client is the pod, by the address its family has.
    const loopback = peer.address.startsWith('127.') || peer.address === '::1'
    this.#client = loopback ? { address: pod.addressLike(wanted.address), port: peer.port } : peer
    this.relay.attach(first)
  }

  begin(): void {
    const { context, pod } = this
    const { source } = pod
    if (source) this.#go(source)
    else {
      void context
        .until(() => pod.source !== undefined)
        .then(() => {
          const late = pod.source
          if (late && !pod.stopped) this.#go(late)
          else this.#refuse('IDENTITY_ERROR', `nothing is known of pod ${pod.name} yet`, 'no_workload')
        })
    }
  }

  #go(source: Workload): void {
    const { context } = this
    const view = context.view()
    if (!view) return this.#refuse('IDENTITY_ERROR', 'this agent has no state yet', 'no_state')
    this.#source = source
    const { address, port, chosen } = this.#wanted
    const to = resolveOutbound(view, source, address, port, context.random, chosen)
    this.#to = to
    if (to.kind === 'refuse')
      return this.#refuse(to.code === 'no_healthy_upstream' ? 'CONNECT' : 'DENY', to.reason, to.code, to.code)
    try {
      if (to.kind === 'plain') this.#plain(to.address, to.port)
      else this.#tunnel(source, to)
    } catch (error) {
      this.#refuse('CONNECT', error instanceof Error ? error.message : String(error))
    }
  }

  #plain(address: string, port: number): void {
    const { context, pod } = this
    const fd = context.redirect.socket(pod.uid, { family: address.includes(':') ? 6 : 4 })
    this.relay.expect(
      context.transport.connect({ handler: this, fd, host: address, port, timeoutMs: context.connectMs }),
    )
  }

  #tunnel(source: Workload, to: Tunnelled): void {
    const { context, pod } = this
    const target = targetOf(pod, source, to)
    this.relay.expect(
      connectTunnel(this.#pool, target, {
        authority: to.authority,
        headers: [
          'baggage',
          baggageOf(source),
          'forwarded',
          forwardedValue(this.#client, to.service?.hostname),
          'traceparent',
          newTraceparent(),
        ],
        handler: this,
        timeoutMs: context.connectMs,
        clock: context.clock,
      }),
    )
  }

  override onClose(connection: Connection, error: Error | undefined): void {
    super.onClose(connection, error instanceof TunnelRefused ? explain(error) : error)
  }

  #refuse(flags: TcpFlags, message: string, reason?: RefusalReason, policy?: string): void {
    this.failed(flags, message, reason, policy)
    this.#first.abort('refused')
  }

  facts(): FlowFacts {
    const to = this.#to
    const tunnelled = to?.kind === 'hbone' || to?.kind === 'waypoint'
    const source = this.#source
    return {
      direction: 'outbound',
      edge: {
        reporter: 'source',
        source,
        sourceIdentity: tunnelled && source ? identityOf(source) : undefined,
        destination: to?.workload,
        destinationIdentity: tunnelled ? identityOf(to.workload) : undefined,
        service: to?.service,
        security: tunnelled ? 'mutual_tls' : 'unknown',
      },
      source: this.#client,
      destination: to && to.kind !== 'refuse' ? { address: to.address, port: to.port } : this.#wanted,
      authority: tunnelled ? to.authority : '',
    }
  }
}

/** What the far agent means by its statuses (reference: ambient, request headers). */
function explain(refused: TunnelRefused): Error {
  const meaning: Record<number, string> = {
    400: 'the destination does not know this address as its own',
    401: "denied by the destination's policy",
    503: 'the destination cannot be reached behind its agent',
  }
  const why = meaning[refused.status] ?? `refused with status ${refused.status}`
  return new AmbitError('TUNNEL_REFUSED', `The tunnel was refused: ${why} (${refused.status}).`, { cause: refused })
}
