// One canary from take-off to its end, whatever that is: the sending side of the connection. Must not live here: recognition
// (canaries.ts), rounds (prover.ts).
import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { Connection, ConnectionHandler, Transport } from '../../io/connection.ts'
import type { Checks } from '../redirect/checks.ts'
import type { Redirect } from '../redirect/contract.ts'
import type { Canaries } from './canaries.ts'
import { clientHello } from './hello.ts'

export interface FlightContext {
  readonly redirect: Pick<Redirect, 'socket'> & Pick<Checks, 'canary'>
  readonly transport: Pick<Transport, 'connect'>
  readonly canaries: Canaries
  readonly clock: Clock
  /** A canary must have landed in this time. */
  readonly deadlineMs: number
}

/** Port of the mesh's tunnels (bpf/lib/decide_lookup.h). */
const HBONE_PORT = 15_008

/** What the sending side does with its connection: it says `hello`, if anything, and waits to be closed. */
class Sender implements ConnectionHandler {
  readonly #hello: Uint8Array | undefined
  readonly #closed: (error: Error | undefined) => void

  constructor(hello: Uint8Array | undefined, closed: (error: Error | undefined) => void) {
    this.#hello = hello
    this.#closed = closed
  }

  onOpen(connection: Connection): void {
    if (this.#hello) connection.write(this.#hello)
  }
  onRead(): void {}
  onDrain(): void {}
  onEnd(connection: Connection): void {
    connection.abort('cancel')
  }
  onClose(_connection: Connection, error: Error | undefined): void {
    this.#closed(error)
  }
}

type Launch = (
  landed: () => void,
  closed: (error: Error | undefined) => void,
) => { connection: Connection; forget(): void }

/** Resolves with '' once it has landed, else with what became of it. Nothing of it is left then. */
function fly(context: FlightContext, launch: Launch): Promise<string> {
  return new Promise((resolve) => {
    let flight: ReturnType<Launch> | undefined
    let done = false
    const end = (problem: string): void => {
      if (done) return
      done = true
      timer.cancel()
      flight?.forget()
      flight?.connection.abort('cancel')
      resolve(problem)
    }
    const timer = context.clock.after(
      context.deadlineMs,
      () => end(`nothing arrived within ${context.deadlineMs} ms`),
      true,
    )
    try {
      flight = launch(
        () => end(''),
        (error) => end(error ? messageOf(error) : 'it was closed before it arrived'),
      )
    } catch (error) {
      end(messageOf(error))
    }
  })
}

/** Dials as an app of the pod would; it is to arrive at the pod's outbound listener. */
export function flyOut(context: FlightContext, uid: string, family: 4 | 6): Promise<string> {
  return fly(context, (landed, closed) => {
    const { to, forget } = context.canaries.expectOutbound(uid, family, landed)
    const connection = open(context, forget, () => context.redirect.canary(uid, family), to.address, to.port, closed)
    return { connection, forget }
  })
}

/** Dials the pod's tunnel port from within its namespace; it is to arrive at the TLS of the pod's tunnel listener. */
export function flyIn(context: FlightContext, uid: string, address: string): Promise<string> {
  return fly(context, (landed, closed) => {
    const { serverName, forget } = context.canaries.expectInbound(uid, landed)
    const family = address.includes(':') ? 6 : 4
    const hello = clientHello(serverName)
    const made = (): number => context.redirect.socket(uid, { family })
    return { connection: open(context, forget, made, address, HBONE_PORT, closed, hello), forget }
  })
}

function open(
  context: FlightContext,
  forget: () => void,
  make: () => number,
  host: string,
  port: number,
  closed: (error: Error | undefined) => void,
  hello?: Uint8Array,
): Connection {
  try {
    const handler = new Sender(hello, closed)
    return context.transport.connect({ handler, fd: make(), host, port, timeoutMs: context.deadlineMs })
  } catch (error) {
    forget()
    throw error
  }
}
