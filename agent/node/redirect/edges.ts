// The kernel's edges as totals that only grow: what ended connections left in ambit_edges plus what running ones have carried
// so far, read from their sockets. Must not live here: names of workloads, metrics (../observe/edges.ts).
import type { BpfMap, Program } from '../../../native/bpf/index.ts'
import { EdgeKey, liveSchema } from '../../../native/bpf/gen/live.ts'
import { formatIp } from '../../base/ip.ts'
import type { EdgeTotals, KernelEdge, KernelRefusal } from './contract.ts'

/** Upper bounds of the buckets of `EdgeTotals.rtt`, in microseconds; the last bucket is above them. RTT_FIRST of decide_count.h. */
export const rttBoundsUs: readonly number[] = Array.from({ length: 16 }, (_, i) => 16 * 2 ** i)

/** Edges of enrolled pods are forgotten when nothing happened for this long: their counters begin anew after that. */
export const IDLE_MS = 3_600_000
/** Edges of pods that are gone. */
export const GONE_MS = 300_000

const KEY = liveSchema.layout.edge_key.size
const EDGE = liveSchema.layout.edge
const LIVE = liveSchema.layout.live
/** Index of a member among the 64-bit numbers that a struct edge is made of. */
const at = Object.fromEntries(Object.entries(EDGE.members).map(([name, offset]) => [name, offset / 8])) as Record<
  keyof typeof EDGE.members,
  number
>
/** enum refusal; 0 is none. */
export const refusals: readonly (KernelRefusal | undefined)[] = [undefined, 'policy', 'no_verdict', 'plaintext']
/** enum edge_security */
export const securities = ['none', 'same_node', 'tunnel'] as const
const directions = ['outbound', 'inbound'] as const

let lastBuffer: Buffer = Buffer.alloc(0)

/** A key's bytes as text, to find its edge by. */
function textAt(view: DataView, offset: number): string {
  if (view.buffer !== lastBuffer.buffer) lastBuffer = Buffer.from(view.buffer)
  const start = view.byteOffset + offset
  return lastBuffer.toString('latin1', start, start + KEY)
}

/** For ambit_edges: keys stay text until an edge is new, values become plain numbers, without a bigint each. */
export const edgeKeyText = {
  size: KEY,
  read: textAt,
  write(view: DataView, offset: number, value: string): void {
    Buffer.from(view.buffer, view.byteOffset + offset, KEY).write(value, 'latin1')
  },
}
export const edgeNumbers = {
  size: EDGE.size,
  read(view: DataView, offset: number): Float64Array {
    const numbers = new Float64Array(EDGE.size / 8)
    for (let i = 0; i < numbers.length; i++) numbers[i] = u64(view, offset + i * 8)
    return numbers
  },
  write(view: DataView, offset: number, value: Float64Array): void {
    value.forEach((number, i) => view.setBigUint64(offset + i * 8, BigInt(number), true))
  },
}

/** Exact up to 2^53. */
function u64(view: DataView, offset: number): number {
  return view.getUint32(offset, true) + view.getUint32(offset + 4, true) * 2 ** 32
}

class Totals implements EdgeTotals {
  opened = 0
  closed = 0
  failed = 0
  readonly refused = { policy: 0, no_verdict: 0, plaintext: 0 }
  sent = 0
  received = 0
  retransmits = 0
  rttSumUs = 0
  readonly rtt = new Float64Array(rttBoundsUs.length + 1)
}

/** An edge with what it is made of. */
class Edge implements KernelEdge {
  readonly direction: KernelEdge['direction']
  readonly security: KernelEdge['security']
  pod: string | undefined
  peer: string | undefined
  readonly remote: string | undefined
  readonly service: KernelEdge['service']
  readonly port: number
  readonly overflow: boolean
  readonly totals = new Totals()
  readonly cookie: bigint
  readonly peerCookie: bigint
  /** Of ended connections, as read last. */
  folded: Float64Array | undefined
  /** Running connections and what they carried, as read last. */
  running = 0
  sent = 0
  received = 0
  retransmits = 0
  /** Monotonic milliseconds of the last change. */
  changed: number

  constructor(text: string, now: number) {
    const bytes = Buffer.from(text, 'latin1')
    const key = EdgeKey.read(new DataView(bytes.buffer, bytes.byteOffset), 0)
    this.cookie = key.cookie
    this.peerCookie = key.peer
    this.overflow = key.cookie === 0n
    this.direction = directions[key.direction] ?? 'outbound'
    this.security = securities[key.security] ?? 'none'
    this.remote = isZero(key.remote.bytes) ? undefined : formatIp(key.remote.bytes)
    this.service = isZero(key.service.bytes)
      ? undefined
      : { address: formatIp(key.service.bytes), port: key.service_port }
    this.port = key.port
    this.changed = now
  }

  /** Never back: a connection that ended between the two readings is in neither for once. */
  settle(now: number): void {
    const { totals, folded } = this
    const before = totals.opened + totals.failed + totals.sent + totals.received + totals.retransmits
    const of = (index: number): number => folded?.[index] ?? 0
    totals.closed = Math.max(totals.closed, of(at.closed))
    totals.opened = Math.max(totals.opened, of(at.closed) + this.running)
    totals.failed = Math.max(totals.failed, of(at.failed))
    totals.sent = Math.max(totals.sent, of(at.sent) + this.sent)
    totals.received = Math.max(totals.received, of(at.received) + this.received)
    totals.retransmits = Math.max(totals.retransmits, of(at.retransmits) + this.retransmits)
    totals.rttSumUs = Math.max(totals.rttSumUs, of(at.rtt_sum_us))
    let refused = 0
    for (let i = 1; i < refusals.length; i++) {
      const name = refusals[i] as KernelRefusal
      const count = Math.max(totals.refused[name], of(at.refused + i))
      refused += count - totals.refused[name]
      totals.refused[name] = count
    }
    for (let i = 0; i < totals.rtt.length; i++) {
      totals.rtt[i] = Math.max(totals.rtt[i] as number, of(at.rtt + i))
    }
    const after = totals.opened + totals.failed + totals.sent + totals.received + totals.retransmits
    if (this.running > 0 || refused > 0 || after !== before) this.changed = now
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

export interface EdgeSources {
  readonly edges: BpfMap<string, Float64Array>
  /** Undefined where the kernel cannot walk sockets: connections count when they end. */
  readonly live: Program | undefined
  readonly notes: BpfMap<number, unknown>
}

export class Edges {
  readonly #sources: EdgeSources
  readonly #podOf: (cookie: bigint) => string | undefined
  readonly #now: () => number
  readonly #known = new Map<string, Edge>()

  /** `podOf`: uid of the pod with a namespace, also for some time after it has gone. `now`: monotonic milliseconds. */
  constructor(sources: EdgeSources, podOf: (cookie: bigint) => string | undefined, now: () => number) {
    this.#sources = sources
    this.#podOf = podOf
    this.#now = now
  }

  /** Reads the kernel and gives every edge. First what has ended, then what runs: nothing is seen twice. */
  read(): Iterable<KernelEdge> {
    const now = this.#now()
    for (const edge of this.#known.values()) {
      edge.folded = undefined
      edge.running = edge.sent = edge.received = edge.retransmits = 0
    }
    for (const batch of this.#sources.edges.batches({ batch: 4096 })) {
      for (const [text, numbers] of batch) this.#edge(text, now).folded = numbers
    }
    this.#readLive(now)
    for (const edge of this.#known.values()) {
      // A pod may become known, or known again, after its edges.
      edge.pod ??= this.#podOf(edge.cookie)
      edge.peer ??= this.#podOf(edge.peerCookie)
      edge.settle(now)
    }
    return this.#known.values()
  }

  /** Takes out, here and in the kernel, the edges that are idle for long, or for a while where `isHeld` does not know the pod. */
  sweep(isHeld: (uid: string) => boolean): KernelEdge[] {
    const now = this.#now()
    const swept: Edge[] = []
    for (const [text, edge] of this.#known) {
      const held = edge.pod !== undefined && isHeld(edge.pod)
      if (edge.overflow || now - edge.changed < (held ? IDLE_MS : GONE_MS)) continue
      // Once more, since a connection may have ended just now. One that ends between this and the next line is lost.
      const last = this.#sources.edges.get(text)
      if (last && edge.folded && last.some((number, i) => number !== edge.folded?.[i])) continue
      this.#sources.edges.delete(text)
      this.#known.delete(text)
      swept.push(edge)
    }
    return swept
  }

  #readLive(now: number): void {
    const { live, notes } = this.#sources
    if (!live) return
    const out = live.iterate({ map: notes })
    const view = new DataView(out.buffer, out.byteOffset, out.byteLength)
    const { sent, received, retransmits } = LIVE.members
    for (let offset = 0; offset + LIVE.size <= out.length; offset += LIVE.size) {
      const edge = this.#edge(textAt(view, offset), now)
      edge.running++
      edge.sent += u64(view, offset + sent)
      edge.received += u64(view, offset + received)
      edge.retransmits += view.getUint32(offset + retransmits, true)
    }
  }

  #edge(text: string, now: number): Edge {
    let edge = this.#known.get(text)
    if (!edge) this.#known.set(text, (edge = new Edge(text, now)))
    return edge
  }
}
