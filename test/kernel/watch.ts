// What leaves a pod, seen at the other end of its leg; and what the guard counted meanwhile. Must not live here: expectations
// beyond that the watch itself works.
import { expect } from 'vitest'
import type { Pod, SeenPacket, Sockets } from '../world/netns.ts'
import { ip } from '../world/netns.ts'
import type { TestNode } from './node.ts'

/** Hardware address of a pod's leg. */
export function mac(of: Pod): string {
  return /link\/ether (\S+)/.exec(ip('-n', of.name, 'link', 'show', 'eth0'))![1]!
}

export class Watch {
  readonly #from: Pod
  readonly #peer: Pod
  readonly #watcher: Sockets
  readonly #hand: Sockets
  #socket: number | undefined

  private constructor(node: TestNode, from: Pod, peer: Pod) {
    this.#from = from
    this.#peer = peer
    this.#watcher = node.world.packets(node.world.outside)
    this.#hand = node.world.packets(from)
  }

  /** `peer`: another pod, for echoes. */
  static async on(node: TestNode, from: Pod, peer: Pod): Promise<Watch> {
    const watch = new Watch(node, from, peer)
    watch.#socket = (await watch.#watcher.must('watch', { device: from.port })).socket
    await watch.tcp()
    return watch
  }

  /**
   * TCP that has left since the last look, of whatever connection or none. An echo behind it, over both families, proves
   * that the watch sees and that ICMP, ARP and neighbour discovery are left alone.
   */
  async tcp(): Promise<SeenPacket[]> {
    await this.#hand.must('ping', { to: this.#peer.v4 })
    await this.#hand.must('ping', { to: this.#peer.v6 })
    const { packets } = await this.#watcher.must('seen', { socket: this.#socket })
    const echoes = packets!.filter(({ protocol, from }) => protocol === 'icmp' && from !== undefined)
    expect(echoes.map(({ from }) => from)).toEqual(expect.arrayContaining([this.#from.v4, this.#from.v6]))
    return packets!.filter(({ protocol }) => protocol === 'tcp')
  }
}

/** Counters of the guard that went up since, by reason. */
export function countingGuard(node: TestNode): () => Record<string, number> {
  const before = node.redirect.counters()
  return () => {
    const up: Record<string, number> = {}
    for (const [name, count] of Object.entries(node.redirect.counters())) {
      const reason = /^dropped\.guard_(.*)$/.exec(name)?.[1]
      if (reason !== undefined && count !== before[name]) up[reason] = count - before[name]!
    }
    return up
  }
}
