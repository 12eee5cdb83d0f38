// One connection the agent carries, from its acceptance to its end: the relay, what is counted of it, how it is told when
// it fails. The three ways in (outbound.ts, hbone.ts, plaintext.ts) derive from it. It is the handler of the relay's second
// side, so that opening and failing are seen here. Must not live here: policy, sockets.
import { AmbitError, messageOf } from '../../base/errors.ts'
import type { AbortReason, Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import { Relay, type RelayObserver } from '../../io/relay.ts'
import type { TcpFlags } from '../../telemetry/istio.ts'
import type { Flow, FlowFacts } from '../observe/flow.ts'
import { refusalOf, type RefusalReason } from '../observe/refusals.ts'
import type { TunnelContext } from './contract.ts'
import type { LocalPod } from './local-pod.ts'

export abstract class Carried implements ConnectionHandler, RelayObserver {
  readonly context: TunnelContext
  readonly pod: LocalPod
  readonly relay: Relay
  readonly started: number
  flow: Flow | undefined
  #told = false
  /** Bytes both ways at the last look, and when they were seen to change; monotonic milliseconds. */
  #looked = -1
  #movedAt = 0
  #leaving = false
  /** Why the policy cut it, '' while it did not. */
  #cutBy = ''

  constructor(context: TunnelContext, pod: LocalPod) {
    this.context = context
    this.pod = pod
    this.relay = new Relay(this)
    this.started = context.clock.monotonic()
    pod.carried.add(this)
  }

  /** What is known of it now, for the access line. */
  abstract facts(): FlowFacts

  /** Refused (`reason` says why) or failed before it was open: told once. */
  failed(flags: TcpFlags, message: string, reason?: RefusalReason, policy = ''): void {
    this.pod.carried.delete(this)
    if (this.#told) return
    this.#told = true
    this.context.flows.fail(this.facts(), this.started, flags, message, reason, policy)
  }

  /** Cuts it because of a verdict given later. */
  revoke(reason: RefusalReason, message: string): void {
    if (this.#cutBy !== '') return
    this.#cutBy = message
    this.context.flows.refusals.count(this.facts().direction, reason)
    this.relay.abort('denied', new AmbitError('TUNNEL_REVOKED', message))
  }

  cut(reason: AbortReason, message: string): void {
    this.relay.abort(reason, new AmbitError('TUNNEL_CUT', message))
  }

  /**
   * Ends it cleanly where nothing moved for `quietMs` since the client had its answer: whoever keeps it for later opens another
   * one then. To be asked again and again; the first time only looks.
   */
  endIfQuiet(quietMs: number): void {
    if (!this.flow || this.#leaving) return
    const now = this.context.clock.monotonic()
    const bytes = this.relay.firstBytes + this.relay.secondBytes
    if (bytes !== this.#looked) {
      this.#looked = bytes
      this.#movedAt = now
    } else if (now - this.#movedAt >= quietMs && this.relay.answered) {
      this.#leaving = true
      this.relay.end()
    }
  }

  /** Counts the bytes so far. */
  progress(): void {
    if (this.flow) this.context.flows.progress(this.flow, this.relay.firstBytes, this.relay.secondBytes)
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    this.flow = this.context.flows.open(this.facts(), this.started)
    this.relay.second.onOpen(connection, info)
  }

  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    this.relay.second.onRead(connection, arena, start, end)
  }

  onDrain(connection: Connection): void {
    this.relay.second.onDrain(connection)
  }

  onEnd(connection: Connection): void {
    this.relay.second.onEnd(connection)
  }

  onClose(connection: Connection, error: Error | undefined): void {
    if (!this.flow) {
      const why = error ?? new AmbitError('TUNNEL_CLOSED', 'The other side closed before the connection was open.')
      this.failed(flagsOf(why), messageOf(why), refusalOf(why))
    }
    this.relay.second.onClose(connection, error)
  }

  onDone(relay: Relay, error: Error | undefined): void {
    this.pod.carried.delete(this)
    if (!this.flow) {
      if (!this.#told) this.failed('CONNECT', error ? messageOf(error) : 'the client went away')
      return
    }
    if (this.#told) return
    this.#told = true
    const why = this.#cutBy || (error ? messageOf(error) : '')
    this.context.flows.close(this.flow, relay.firstBytes, relay.secondBytes, why)
  }
}

/** Events of the first side, whose connection's slot is the Carried: one object for all. */
export class FirstSide {
  onRead(connection: Connection, arena: Uint8Array, start: number, end: number): void {
    ;(connection.slot as Carried | undefined)?.relay.first.onRead(connection, arena, start, end)
  }

  onDrain(connection: Connection): void {
    ;(connection.slot as Carried | undefined)?.relay.first.onDrain(connection)
  }

  onEnd(connection: Connection): void {
    ;(connection.slot as Carried | undefined)?.relay.first.onEnd(connection)
  }

  onClose(connection: Connection, error: Error | undefined): void {
    ;(connection.slot as Carried | undefined)?.relay.first.onClose(connection, error)
  }
}

/** ztunnel's `response_flags` for what went wrong. */
export function flagsOf(error: Error): TcpFlags {
  const code = error instanceof AmbitError ? error.code : ''
  switch (code) {
    case 'IO_TLS_HANDSHAKE':
    case 'IO_HANDSHAKE_TIMEOUT':
    case 'PEER_IDENTITY_INVALID':
    case 'TUNNEL_WRONG_PEER':
      return 'TLS_FAILURE'
    case 'TUNNEL_NO_CERTIFICATE':
    case 'CERTIFICATE_UNAVAILABLE':
      return 'IDENTITY_ERROR'
    case 'TUNNEL_TIMEOUT':
    case 'IO_CONNECT_TIMEOUT':
      return 'NETWORK_POLICY'
    default:
      return 'CONNECT'
  }
}
