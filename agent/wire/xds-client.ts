// The client's half of delta xDS: one stream at a time, every response answered, good resources applied even beside bad
// ones, only differences asked for after a reconnect. Pure protocol: it opens streams through a function and hands
// resources to a sink. Must not live here: gRPC channels, tokens (connect-control.ts), what resources mean (feed.ts).
import type { MessageInitShape } from '@bufbuild/protobuf'
import { Backoff } from '../base/backoff.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { HeldResource, KindStatus, ResourceKind } from './contract.ts'
import { MORE } from './encoded.ts'
import type { NodeSchema } from './gen/envoy/config/core/v3/base_pb.js'
import type { DeltaDiscoveryRequestSchema, DeltaDiscoveryResponse } from './gen/envoy/service/discovery/v3/ads_pb.js'
import { kindOfTypeUrl, typeUrls } from './types.ts'

/** Where resources go. `set` throws to refuse one; nothing of it may have been applied then. */
export interface ResourceSink {
  set(kind: ResourceKind, name: string, bytes: Uint8Array): void
  remove(kind: ResourceKind, name: string): void
  /** A resource was refused; `held` is true if an older good version of it stays in force. */
  refused(kind: ResourceKind, name: string, bytes: Uint8Array, held: boolean): void
  /** All changes of one response are in. */
  applied(kind: ResourceKind): void
}

/** One open bidirectional stream. */
export interface DeltaStream {
  send(request: MessageInitShape<typeof DeltaDiscoveryRequestSchema>): void
  cancel(): void
}

export interface DeltaStreamEvents {
  onResponse(response: DeltaDiscoveryResponse): void
  /** Once; undefined when the server ended it in peace. */
  onEnd(error: Error | undefined): void
}

export interface XdsClientOptions {
  readonly kinds: readonly ResourceKind[]
  readonly node: MessageInitShape<typeof NodeSchema>
  readonly sink: ResourceSink
  readonly clock: Clock
  readonly log: Logger
  readonly random?: () => number
  open(events: DeltaStreamEvents): DeltaStream
}

interface KindState {
  readonly kind: ResourceKind
  readonly held: Map<string, HeldResource>
  readonly rejected: { name: string; reason: string }[]
  responses: number
  synced: boolean
}

/** Istio's ztunnel waits 10 ms → 15 s; shorter here, so that a restarted control is noticed soon. Jitter spreads its clients. */
const FIRST_WAIT_MS = 20
const LONGEST_WAIT_MS = 2_000
/** Kept for status(). */
const MAX_REJECTED = 100
/** Of one NACK's text. */
const MAX_NACK_CHARACTERS = 4_096
/** What the first answer must come in; a server that accepts and then says nothing is left. */
const FIRST_RESPONSE_MS = 30_000

export class XdsClient {
  readonly #options: XdsClientOptions
  readonly #kinds: ReadonlyMap<ResourceKind, KindState>
  readonly #backoff: Backoff
  readonly #syncWaiters: { kind: ResourceKind | undefined; resolve: () => void }[] = []
  #stream: DeltaStream | undefined
  /** Tells a stream's late events from the present one's. */
  #epoch = 0
  #timer: Timer | undefined
  #closed = false
  connected = false
  reconnects = -1
  lastResponse = 0
  error = 'not connected yet'

  constructor(options: XdsClientOptions) {
    this.#options = options
    this.#kinds = new Map(
      options.kinds.map((kind) => [kind, { kind, held: new Map(), rejected: [], responses: 0, synced: false }]),
    )
    this.#backoff = new Backoff({
      baseMs: FIRST_WAIT_MS,
      maxMs: LONGEST_WAIT_MS,
      ...(options.random ? { random: options.random } : {}),
    })
  }

  /** Puts a resource of the last good state in, before `start`. Returns false if it is refused. */
  restore(kind: ResourceKind, name: string, resource: HeldResource): boolean {
    const state = this.#kinds.get(kind)
    if (!state) return false
    try {
      this.#options.sink.set(kind, name, resource.bytes)
    } catch {
      this.#options.sink.refused(kind, name, resource.bytes, false)
      return false
    }
    state.held.set(name, resource)
    return true
  }

  start(): void {
    this.#connect()
  }

  close(): void {
    this.#closed = true
    this.#epoch++
    this.#timer?.cancel()
    this.#stream?.cancel()
    this.#stream = undefined
    this.connected = false
  }

  /** Resolves once every kind (or this one) was answered in full by control in this process. */
  synced(kind?: ResourceKind): Promise<void> {
    if (this.#isSynced(kind)) return Promise.resolve()
    return new Promise((resolve) => this.#syncWaiters.push({ kind, resolve }))
  }

  held(kind: ResourceKind): ReadonlyMap<string, HeldResource> {
    return this.#kinds.get(kind)?.held ?? new Map()
  }

  status(): KindStatus[] {
    return [...this.#kinds.values()].map((state) => ({
      kind: state.kind,
      resources: state.held.size,
      synced: state.synced,
      rejected: [...state.rejected],
      responses: state.responses,
    }))
  }

  #connect(): void {
    if (this.#closed) return
    const epoch = ++this.#epoch
    this.reconnects++
    const current = (): boolean => epoch === this.#epoch
    try {
      const stream = this.#options.open({
        onResponse: (response) => {
          if (current()) this.#onResponse(response)
        },
        onEnd: (error) => {
          if (current()) this.#onEnd(error)
        },
      })
      this.#stream = stream
      for (const state of this.#kinds.values()) {
        stream.send({
          node: this.#options.node,
          typeUrl: typeUrls[state.kind],
          initialResourceVersions: Object.fromEntries([...state.held].map(([name, { version }]) => [name, version])),
        })
      }
    } catch (error) {
      this.#onEnd(error instanceof Error ? error : new Error(String(error)))
      return
    }
    this.#timer = this.#options.clock.after(
      FIRST_RESPONSE_MS,
      () => {
        if (!current() || this.connected) return
        const stream = this.#stream
        this.#onEnd(new Error(`no answer within ${FIRST_RESPONSE_MS} ms`))
        stream?.cancel()
      },
      true,
    )
  }

  #onEnd(error: Error | undefined): void {
    this.#epoch++
    this.#stream = undefined
    this.#timer?.cancel()
    const was = this.connected
    this.connected = false
    this.error = error ? messageOf(error) : 'control ended the stream'
    const wait = this.#backoff.next()
    const line = { error: this.error, retryMs: Math.round(wait) }
    if (error && (was || this.#backoff.attempt <= 1)) this.#options.log.warn(line, 'control is not connected')
    else this.#options.log.debug(line, 'control is not connected')
    this.#timer = this.#options.clock.after(wait, () => this.#connect())
  }

  #onResponse(response: DeltaDiscoveryResponse): void {
    const { sink, clock } = this.#options
    this.connected = true
    this.error = ''
    this.lastResponse = clock.now()
    this.#backoff.reset()
    const kind = kindOfTypeUrl(response.typeUrl)
    const state = kind && this.#kinds.get(kind)
    if (!state) {
      this.#answer(response, [`type ${response.typeUrl} was not asked for`])
      return
    }
    const problems: string[] = []
    for (const name of response.removedResources) {
      state.held.delete(name)
      sink.remove(state.kind, name)
    }
    for (const { name, version, resource } of response.resources) {
      const bytes = resource?.value ?? new Uint8Array()
      try {
        if (resource?.typeUrl !== response.typeUrl) throw new Error(`its type is ${resource?.typeUrl ?? 'absent'}`)
        sink.set(state.kind, name, bytes)
        // A copy, because the received bytes are a view that would keep the whole response alive.
        state.held.set(name, { version, bytes: bytes.slice() })
      } catch (error) {
        const reason = messageOf(error)
        problems.push(`${name}: ${reason}`)
        state.rejected.push({ name, reason })
        if (state.rejected.length > MAX_REJECTED) state.rejected.shift()
        this.#options.log.warn(
          { kind: state.kind, name, reason },
          'a resource was refused, its last good version stays',
        )
        sink.refused(state.kind, name, bytes, state.held.has(name))
      }
    }
    state.responses++
    this.#answer(response, problems)
    sink.applied(state.kind)
    if (!response.systemVersionInfo.endsWith(MORE)) this.#setSynced(state)
  }

  #answer(response: DeltaDiscoveryResponse, problems: readonly string[]): void {
    this.#stream?.send({
      typeUrl: response.typeUrl,
      responseNonce: response.nonce,
      ...(problems.length === 0
        ? {}
        : // google.rpc.Code INVALID_ARGUMENT
          { errorDetail: { code: 3, message: problems.join('; ').slice(0, MAX_NACK_CHARACTERS) } }),
    })
  }

  #setSynced(state: KindState): void {
    if (state.synced) return
    state.synced = true
    for (let i = this.#syncWaiters.length - 1; i >= 0; i--) {
      const waiter = this.#syncWaiters[i]
      if (!waiter || !this.#isSynced(waiter.kind)) continue
      this.#syncWaiters.splice(i, 1)
      waiter.resolve()
    }
  }

  #isSynced(kind: ResourceKind | undefined): boolean {
    if (kind !== undefined) return this.#kinds.get(kind)?.synced ?? false
    return [...this.#kinds.values()].every((state) => state.synced)
  }
}
