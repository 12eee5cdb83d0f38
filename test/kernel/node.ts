// A node for the kernel tests: a world, this process as its agent, the kernel half in place, and queues of what the agent's
// listeners accepted. Must not live here: expectations.
import { openRedirect } from '../../agent/node/redirect/redirect.ts'
import type { NodeRedirect, PodListeners, Redirect } from '../../agent/node/redirect/contract.ts'
import type { Connection, ConnectionHandler, Endpoint, Listener, OpenInfo } from '../../agent/io/connection.ts'
import { transport } from '../../agent/io/index.ts'
import { cgroupId } from '../../native/bpf/index.ts'
import { World, type Pod } from '../world/netns.ts'

/** A connection one of the listeners accepted. */
export interface Accepted {
  readonly connection: Connection
  readonly info: OpenInfo
  readonly original: Endpoint | undefined
}

/** Accepted connections in order; `next` waits for one. */
export class Queue implements ConnectionHandler {
  readonly #redirect: () => Redirect
  readonly #ready: Accepted[] = []
  readonly #waiting: ((accepted: Accepted) => void)[] = []
  /** Text received, over all connections. */
  received = ''

  /** `redirect`: of the agent whose queue this is. */
  constructor(redirect: () => Redirect) {
    this.#redirect = redirect
  }

  get length(): number {
    return this.#ready.length
  }

  next(): Promise<Accepted> {
    const ready = this.#ready.shift()
    if (ready) return Promise.resolve(ready)
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  onOpen(connection: Connection, info: OpenInfo): void {
    const accepted = { connection, info, original: this.#redirect().originalDestination(connection.fd) }
    const waiting = this.#waiting.shift()
    if (waiting) waiting(accepted)
    else this.#ready.push(accepted)
  }

  onRead(_connection: Connection, arena: Uint8Array, start: number, end: number): void {
    this.received += Buffer.from(arena.buffer, arena.byteOffset + start, end - start).toString()
  }

  onDrain(): void {}
  onEnd(connection: Connection): void {
    connection.end()
  }
  onClose(): void {}
}

/** An enrolled pod with its listeners accepting. */
export interface Captured {
  readonly listeners: PodListeners
  /** What accepts on them. */
  readonly listening: readonly Listener[]
  readonly outbound: Queue
  readonly hbone: Queue
  readonly plaintext: Queue
}

export class TestNode {
  readonly world: World
  redirect!: NodeRedirect
  readonly #listening: Listener[] = []

  private constructor(world: World) {
    this.world = world
  }

  static async open(): Promise<TestNode> {
    const node = new TestNode(new World())
    node.world.becomeAgent()
    await node.restart()
    return node
  }

  /** Options for an agent of this node. */
  get options(): { cgroup: string; agentCgroupIds: bigint[]; pinRoot: string } {
    const { cgroup, agentCgroup, bpffs } = this.world
    return { cgroup, agentCgroupIds: [cgroupId(agentCgroup)], pinRoot: bpffs }
  }

  /** A new agent process as far as the kernel can tell: adopts what the last one pinned. */
  async restart(): Promise<void> {
    this.redirect = await openRedirect(this.options)
  }

  /** The agent dies: its descriptors close, nothing is cleaned up. */
  async die(): Promise<void> {
    for (const listener of this.#listening.splice(0)) await listener.stop()
    this.redirect.close()
  }

  async capture(pod: Pod): Promise<Captured> {
    const listeners = await this.redirect.enroll({ uid: pod.name, netns: pod.netns, addresses: [pod.v4, pod.v6] })
    const { redirect } = this
    const outbound = new Queue(() => redirect)
    const hbone = new Queue(() => redirect)
    const plaintext = new Queue(() => redirect)
    let count = 0
    for (let set: PodListeners | undefined = listeners; set; set = set.older) {
      for (const [kind, handler] of Object.entries({ outbound, hbone, plaintext })) {
        const fd = set[kind as 'outbound' | 'hbone' | 'plaintext']
        this.#listening.push(await transport.listen({ fd, handler }))
        count++
      }
    }
    return { listeners, listening: this.#listening.slice(-count), outbound, hbone, plaintext }
  }

  /** One agent's part of the listeners' end: it accepts no more. */
  async stopListening({ listening }: Captured): Promise<void> {
    for (const listener of listening) {
      this.#listening.splice(this.#listening.indexOf(listener), 1)
      await listener.stop()
    }
  }

  /** The agent connects to an app in a pod, on behalf of a client. */
  deliver(pod: Pod, to: Endpoint, client: Endpoint | undefined): { connection: Connection; queue: Queue } {
    const family = to.address.includes(':') ? 6 : 4
    const { redirect } = this
    const fd = redirect.socket(pod.name, { family, ...(client === undefined ? {} : { client }) })
    const queue = new Queue(() => redirect)
    const connection = transport.connect({ handler: queue, fd, host: to.address, port: to.port })
    return { connection, queue }
  }

  async close(): Promise<void> {
    for (const listener of this.#listening.splice(0)) await listener.stop()
    await this.redirect.uninstall().catch(() => undefined)
    await this.world.close()
  }
}
