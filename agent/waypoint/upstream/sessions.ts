// HTTP sessions to endpoints: a codec of either version on a tunnel. Must not live here: pooling of sessions (host.ts), of
// tunnels (http/hbone), limits (cluster.ts).
import type { Clock } from '../../base/clock.ts'
import { http1Client } from '../../http/http1/index.ts'
import { http2Client, http2ClientHandler } from '../../http/http2/index.ts'
import type { ClientSession } from '../../http/message.ts'
import type { MeshState } from '../../mesh/state.ts'
import type { OpenSession } from './cluster.ts'
import type { Tunnels } from './tunnels.ts'

/** Makes the `open` of clusters. */
export function sessionOpener(tunnels: Tunnels, state: MeshState, clock: Clock): OpenSession {
  return (candidate, { client, version }, timeoutMs, events) => {
    const source = state.workloadByAddress(client.address)
    // Takes no more requests and ends with those it has: the next ones go over a tunnel to the agent's successor.
    const drain = (): void => {
      events.onDraining(made)
      made.drain()
    }
    let made: ClientSession
    if (version === 2) {
      const connection = tunnels.connect(candidate, client, source, timeoutMs, http2ClientHandler, undefined, drain)
      made = http2Client(connection, events, { clock })
    } else {
      const { handler, slot, session } = http1Client(events, { clock })
      made = session
      tunnels.connect(candidate, client, source, timeoutMs, handler, slot, drain)
    }
    return made
  }
}
