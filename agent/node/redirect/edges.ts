// The kernel's edges as totals that only grow: what ended connections left in ambit_edges plus what running ones have carried
// so far, read from their sockets. Must not live here: names of workloads, metrics (../observe/edges.ts).
import type { BpfMap, Codec } from '../../../native/bpf/index.ts'
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

/** For ambit_edges: keys stay text until an edge is new. */
export const edgeKeyText = {
  size: KEY,
  read: textAt,
  write(view: DataView, offset: number, value: string): void {
    Buffer.from(view.buffer, view.byteOffset + offset, KEY).write(value, 'latin1')
  },
}
/** For ambit_edges: a value stays where it was read to, until the next reading. */
export class EdgeValues implements Codec<number> {
  readonly size = EDGE.size
  #words: Uint32Array = new Uint32Array(0)

  /** Where the value is, for `number`. */
  read(view: DataView, offset: number): number {
    if (view.buffer !== this.#words.buffer) this.#words = new Uint32Array(view.buffer)
    return (view.byteOffset + offset) / 4
  }

  /** Writes an edge whose every number is `value`. */
  write(view: DataView, offset: number, value: number): void {
    for (let i = 0; i < EDGE.size; i += 8) view.setBigUint64(offset + i, BigInt(value), true)
  }

  /** The number at `index` of the value at `place`; exact up to 2^53. */
  number(place: number, index: number): number {
    const at = place + index * 2
    return (this.#words[at] as number) + (this.#words[at + 1] as number) * 2 ** 32
  }
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
  version = 0
  readonly totals = new Totals()
  readonly cookie: bigint
  readonly peerCookie: bigint
  /** Of ended connections, as read last. */
  readonly folded = new Float64Array(EDGE.size / 8)
  /** What the kernel had counted before the edge was taken out and came back, if that was not by us. */
  #before: Float64Array | undefined
  /** Something was read that was not before. */
  touched = false
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

  /** Takes what the kernel has now. */
  fold(values: EdgeValues, place: number): void {
    const { folded } = this
    for (let i = 0; i < folded.length; i++) {
      if (values.number(place, i) >= (folded[i] as number)) continue
      const before = (this.#before ??= new Float64Array(folded.length))
      for (let j = 0; j < folded.length; j++) before[j] = (before[j] as number) + (folded[j] as number)
      folded.fill(0)
      break
    }
    for (let i = 0; i < folded.length; i++) {
      const number = values.number(place, i)
      if (number === folded[i]) continue
      folded[i] = number
      this.touched = true
    }
  }

  /** Never back: a connection that ended between the two readings is in neither for once. */
  settle(now: number): void {
    const { totals, folded } = this
    const before = this.#before
    let more = false
    const of = (index: number): number => (folded[index] as number) + (before?.[index] ?? 0)
    const grow = (before: number, now: number): number => {
      if (now <= before) return before
      more = true
      return now
    }
    totals.closed = grow(totals.closed, of(at.closed))
    totals.opened = grow(totals.opened, of(at.closed) + this.running)
    totals.failed = grow(totals.failed, of(at.failed))
    totals.sent = grow(totals.sent, of(at.sent) + this.sent)
    totals.received = grow(totals.received, of(at.received) + this.received)
    totals.retransmits = grow(totals.retransmits, of(at.retransmits) + this.retransmits)
    totals.rttSumUs = grow(totals.rttSumUs, of(at.rtt_sum_us))
    for (let i = 1; i < refusals.length; i++) {
      const name = refusals[i] as KernelRefusal
      totals.refused[name] = grow(totals.refused[name], of(at.refused + i))
    }
    for (let i = 0; i < totals.rtt.length; i++) totals.rtt[i] = grow(totals.rtt[i] as number, of(at.rtt + i))
    if (!more) return
    this.version++
    this.changed = now
  }
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0)
}

export interface EdgeSources {
  readonly edges: BpfMap<string, number>
  readonly values: EdgeValues
  /** Records of running connections. Undefined where the kernel cannot walk sockets: connections count when they end. */
  readonly live: (() => Uint8Array) | undefined
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
    const { edges, values } = this.#sources
    for (const edge of this.#known.values()) {
      if (edge.running > 0) edge.touched = true
      edge.running = edge.sent = edge.received = edge.retransmits = 0
    }
    for (const batch of edges.batches({ batch: 4096 })) {
      for (const [text, place] of batch) this.#edge(text, now).fold(values, place)
    }
    this.#readLive(now)
    for (const edge of this.#known.values()) {
      if (edge.running > 0) edge.changed = now
      else if (!edge.touched) continue
      edge.touched = false
      edge.settle(now)
    }
    // A pod may become known, or known again, after its edges.
    for (const edge of this.#known.values()) {
      edge.pod ??= this.#podOf(edge.cookie)
      edge.peer ??= edge.peerCookie === 0n ? undefined : this.#podOf(edge.peerCookie)
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
      const { edges, values } = this.#sources
      const place = edges.get(text)
      if (place !== undefined && edge.folded.some((number, i) => number !== values.number(place, i))) continue
      this.#sources.edges.delete(text)
      this.#known.delete(text)
      swept.push(edge)
    }
    return swept
  }

  #readLive(now: number): void {
    const out = this.#sources.live?.()
    if (!out) return
    const view = new DataView(out.buffer, out.byteOffset, out.byteLength)
    const { sent, received, cookie: socket, retransmits } = LIVE.members
    const seen = new Set<number>()
    for (let offset = 0; offset + LIVE.size <= out.length; offset += LIVE.size) {
      // Processes that share a socket each show it.
      const cookie = u64(view, offset + socket)
      if (cookie !== 0 && seen.size === seen.add(cookie).size) continue
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
