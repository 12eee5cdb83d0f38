// Canaries in flight: connections of the agent's own through a pod's way, and the recognition of those that land. Outbound
// ones are known by where they wanted to go, an address nobody can mean; inbound ones by the name their TLS asks for, which
// nobody else can make up. Must not live here: when they are sent and what follows (prover.ts).
import { createHmac, randomBytes } from 'node:crypto'
import type { Endpoint } from '../../io/connection.ts'

/** Never a destination: IPv4's dummy address (RFC 7600, 192.0.0.8/32) and an address of IPv6's discard prefix (RFC 6666). */
const ADDRESSES: Readonly<Record<4 | 6, string>> = { 4: '192.0.0.8', 6: '100::8' }
/** Under a name that cannot be registered (RFC 2606). */
const SUFFIX = '.canary.invalid'
const NONCE_BYTES = 8
/** Ports are the numbers of outbound canaries. */
const PORTS = 65_535

interface Flight {
  readonly uid: string
  landed(): void
}

/** What was sent out and may still arrive: two a pod at most, and each is taken out by its sender. */
export class Canaries {
  readonly #out = new Map<number, Flight>()
  readonly #in = new Map<string, Flight>()
  /** Signs names, so that also one that lands too late is known for what it is. */
  readonly #secret = randomBytes(32)
  #next = 1 + Math.floor(Math.random() * PORTS)

  /** Where a canary of this pod is to connect; `landed` is called when the pod's outbound listener has it. */
  expectOutbound(uid: string, family: 4 | 6, landed: () => void): { readonly to: Endpoint; forget(): void } {
    do this.#next = (this.#next % PORTS) + 1
    while (this.#out.has(this.#next))
    const port = this.#next
    this.#out.set(port, { uid, landed })
    return { to: { address: ADDRESSES[family], port }, forget: () => this.#out.delete(port) }
  }

  /** The name a canary is to ask for at this pod's tunnel port. */
  expectInbound(uid: string, landed: () => void): { readonly serverName: string; forget(): void } {
    const serverName = this.#name(randomBytes(NONCE_BYTES).toString('hex'))
    this.#in.set(serverName, { uid, landed })
    return { serverName, forget: () => this.#in.delete(serverName) }
  }

  /** True if a captured connection of the pod is a canary: it leads nowhere, also one that comes too late. */
  landedOutbound(uid: string, wanted: Endpoint): boolean {
    if (wanted.address !== ADDRESSES[4] && wanted.address !== ADDRESSES[6]) return false
    const flight = this.#out.get(wanted.port)
    if (flight?.uid === uid) flight.landed()
    return true
  }

  /** True if the name asked for at a pod's tunnel port is that of a canary of this agent, also one that comes too late. */
  landedInbound(uid: string, serverName: string): boolean {
    if (!serverName.endsWith(SUFFIX)) return false
    const flight = this.#in.get(serverName)
    if (flight?.uid === uid) flight.landed()
    return flight !== undefined || serverName === this.#name(serverName.slice(0, 2 * NONCE_BYTES))
  }

  #name(nonce: string): string {
    const signature = createHmac('sha256', this.#secret).update(nonce).digest('hex')
    // A label of a name has at most 63 characters.
    return nonce + signature.slice(0, 32) + SUFFIX
  }
}
