// What other rooms import of io: the contract and the transport. Must not live here: behaviour.
import type { Transport } from './connection.ts'
import { theEngine } from './native/engine.ts'
import { createNativeTransport } from './native/transport.ts'

export type * from './connection.ts'
export { createNativeTransport, type NativeTransportOptions } from './native/transport.ts'

let native: Transport | undefined

/** The transport every program uses, on the system's clock: natively batched I/O, started at first use. */
export const transport: Transport = {
  listen: (options) => (native ??= createNativeTransport()).listen(options),
  connect: (options) => (native ??= createNativeTransport()).connect(options),
}

/** Gives memory that connections have left behind back to the kernel; for when it is short, as it takes tens of milliseconds. */
export function trimMemory(): void {
  theEngine().native.trim()
}
