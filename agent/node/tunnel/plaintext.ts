// Plaintext into a pod: judged with an empty identity (STRICT is a policy like any other), then relayed to the app, or
// refused with a reset. Must not live here: the verdict (inbound.ts).
import type { Connection, ConnectionHandler, OpenInfo } from '../../io/connection.ts'
import { FirstSide } from './carried.ts'
import type { TunnelContext } from './contract.ts'
import { InboundConnectionBase, type InboundAsk } from './inbound.ts'
import type { LocalPod } from './local-pod.ts'

/** Handler of a pod's listener for everything that is no tunnel. */
export class PlaintextHandler extends FirstSide implements ConnectionHandler {
  readonly #context: TunnelContext
  readonly #pod: LocalPod

  constructor(context: TunnelContext, pod: LocalPod) {
    super()
    this.#context = context
    this.#pod = pod
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    if (this.#pod.stopped) {
      this.#pod.refused('inbound', 'pod_leaving', info.peer.address, 'the pod leaves')
      connection.abort('refused')
      return
    }
    const carried = new PlaintextConnection(
      this.#context,
      this.#pod,
      {
        peer: info.peer,
        identity: undefined,
        target: info.local,
        forwarded: undefined,
        local: info.local,
        authority: '',
        host: '',
      },
      connection,
    )
    connection.slot = carried
    carried.begin()
  }
}

class PlaintextConnection extends InboundConnectionBase {
  readonly #first: Connection

  constructor(context: TunnelContext, pod: LocalPod, ask: InboundAsk, first: Connection) {
    super(context, pod, ask)
    this.#first = first
    this.relay.attach(first)
  }

  protected denied(): void {
    this.#first.abort('denied')
  }

  protected unavailable(): void {
    this.#first.abort('refused')
  }

  protected connecting(): void {
    // The relay knows both sides.
  }
}
