// Delta xDS for many clients over gRPC: who they are is decided by the caller's `authenticate` and `admit`; what they get
// comes from one ResourceStore. Must not live here: per-client state (xds-stream.ts), tokens (control/issue).
import { status, type Metadata, type ServerDuplexStream, type UntypedServiceImplementation } from '@grpc/grpc-js'
import type { Clock } from '../base/clock.ts'
import { AmbitError, messageOf } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { clientNodeOf } from './client-node.ts'
import type { ClientNode } from './contract.ts'
import { AggregatedDiscoveryService, type DeltaDiscoveryRequest } from './gen/envoy/service/discovery/v3/ads_pb.js'
import { serviceDefinition, toStatus } from './grpc.ts'
import type { ResourceStore } from './resource-store.ts'
import { XdsStream, type ClientScope, type StreamStats } from './xds-stream.ts'

/** The credentials a call carries, for an authenticator. */
export interface CallCredentials {
  /** The bearer token, '' when there is none. */
  readonly token: string
  readonly clusterId: string
  /** `ip:port` of the TCP peer. */
  readonly peer: string
}

export interface XdsServerOptions<Caller> {
  readonly store: ResourceStore
  readonly clock: Clock
  readonly log: Logger
  /** Throws AmbitError CONTROL_UNAUTHENTICATED. */
  authenticate(credentials: CallCredentials): Promise<Caller>
  /** What this caller may have, given who it says it is; throws AmbitError CONTROL_DENIED. */
  admit(caller: Caller, node: ClientNode): ClientScope
  /** Bound on streams; default 20 000. Further ones are refused. */
  readonly maxStreams?: number
  /** A stream is ended after this time so that its client shows a fresh token; default 30 min, less up to a fifth. */
  readonly maxStreamAgeMs?: number
  readonly random?: () => number
}

/** One client that was let in. */
export interface XdsClientView {
  /** As it calls itself (client-node.ts); two workers of one waypoint share it. */
  readonly id: string
  readonly node: ClientNode
  /** `ip:port` of the TCP peer. */
  readonly peer: string
  /** Milliseconds since the epoch. */
  readonly since: number
  /** It has acknowledged all that it is to have. */
  readonly settled: boolean
}

/** Requests waiting for the authenticator; a client that sends more before it was let in is cut. */
const MAX_EARLY_REQUESTS = 64

export class XdsServer<Caller> {
  readonly #options: XdsServerOptions<Caller>
  readonly #calls = new Set<ServerDuplexStream<DeltaDiscoveryRequest, Buffer>>()
  readonly #clients = new Set<XdsClientView>()
  readonly stats: StreamStats = { responses: 0, bytes: 0, resources: 0, nacks: 0 }

  constructor(options: XdsServerOptions<Caller>) {
    this.#options = options
  }

  get streams(): number {
    return this.#calls.size
  }

  /** Who is connected and was let in. */
  get clients(): Iterable<XdsClientView> {
    return this.#clients
  }

  /** For grpc-js's Server.addService. */
  readonly definition = serviceDefinition(AggregatedDiscoveryService)

  readonly implementation: UntypedServiceImplementation = {
    deltaAggregatedResources: (call: ServerDuplexStream<DeltaDiscoveryRequest, Buffer>) => this.#accept(call),
  }

  /** Ends every stream; clients come back elsewhere, or here after a restart. */
  close(): void {
    for (const call of this.#calls) {
      call.emit('error', { code: status.UNAVAILABLE, details: 'control is shutting down' })
    }
  }

  #accept(call: ServerDuplexStream<DeltaDiscoveryRequest, Buffer>): void {
    const { maxStreams = 20_000 } = this.#options
    if (this.#calls.size >= maxStreams) {
      call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: `control serves ${maxStreams} streams already` })
      return
    }
    new Session(call, this.#options, this.#calls, this.#clients, this.stats).start()
  }
}

/** One call from its first byte to its end. */
class Session<Caller> {
  readonly #call: ServerDuplexStream<DeltaDiscoveryRequest, Buffer>
  readonly #options: XdsServerOptions<Caller>
  readonly #calls: Set<unknown>
  readonly #clients: Set<XdsClientView>
  readonly #stats: StreamStats
  readonly #early: DeltaDiscoveryRequest[] = []
  readonly #cleanup: (() => void)[] = []
  #caller: { readonly value: Caller } | undefined
  #stream: XdsStream | undefined
  #done = false

  constructor(
    call: ServerDuplexStream<DeltaDiscoveryRequest, Buffer>,
    options: XdsServerOptions<Caller>,
    calls: Set<ServerDuplexStream<DeltaDiscoveryRequest, Buffer>>,
    clients: Set<XdsClientView>,
    stats: StreamStats,
  ) {
    this.#call = call
    this.#options = options
    this.#calls = calls
    this.#clients = clients
    this.#stats = stats
  }

  start(): void {
    const { clock, maxStreamAgeMs = 1_800_000, random = Math.random } = this.#options
    const call = this.#call
    this.#calls.add(call)
    call.on('data', (request: DeltaDiscoveryRequest) => this.#onRequest(request))
    call.on('drain', () => this.#stream?.onDrain())
    call.on('end', () => this.#finish(() => call.end()))
    call.on('cancelled', () => this.#finish(() => {}))
    call.on('error', () => this.#finish(() => {}))
    const age = maxStreamAgeMs * (1 - 0.2 * random())
    const timer = clock.after(age, () => this.#finish(() => call.end()), true)
    this.#cleanup.push(() => timer.cancel())
    this.#options.authenticate(credentialsOf(call.metadata, call.getPeer())).then(
      (value) => {
        if (this.#done) return
        this.#caller = { value }
        for (const request of this.#early.splice(0)) this.#onRequest(request)
      },
      (error: unknown) => this.#refuse(error),
    )
  }

  #onRequest(request: DeltaDiscoveryRequest): void {
    if (this.#done) return
    if (!this.#caller) {
      if (this.#early.push(request) > MAX_EARLY_REQUESTS) {
        this.#refuse(new AmbitError('CONTROL_OVERLOADED', 'too many requests before authentication'))
      }
      return
    }
    try {
      this.#stream ??= this.#admit(this.#caller.value, request)
      this.#stream.onRequest(request)
    } catch (error) {
      this.#refuse(error)
    }
  }

  #admit(caller: Caller, request: DeltaDiscoveryRequest): XdsStream {
    const { store, log } = this.#options
    const node = clientNodeOf(request.node)
    const client = request.node?.id ?? ''
    const stream = new XdsStream({
      store,
      scope: this.#options.admit(caller, node),
      client,
      log,
      stats: this.#stats,
      send: (response) => this.#call.write(response),
    })
    this.#cleanup.push(store.listen((changed) => stream.onChange(changed)))
    const view: XdsClientView = {
      id: client,
      node,
      peer: this.#call.getPeer(),
      since: this.#options.clock.now(),
      get settled() {
        return stream.settled
      },
    }
    this.#clients.add(view)
    this.#cleanup.push(() => this.#clients.delete(view))
    log.info({ client, peer: view.peer }, 'configuration stream opened')
    this.#cleanup.push(() => log.info({ client }, 'configuration stream closed'))
    return stream
  }

  #refuse(error: unknown): void {
    this.#options.log.warn({ peer: this.#call.getPeer(), error: messageOf(error) }, 'configuration stream refused')
    this.#finish(() => this.#call.emit('error', toStatus(error)))
  }

  #finish(last: () => void): void {
    if (this.#done) return
    this.#done = true
    this.#calls.delete(this.#call)
    for (const task of this.#cleanup.splice(0)) task()
    last()
  }
}

/** Reads `authorization: Bearer …` and `clusterid`. */
export function credentialsOf(metadata: Metadata, peer: string): CallCredentials {
  const text = (key: string): string => {
    const value = metadata.get(key)[0]
    return typeof value === 'string' ? value : ''
  }
  const authorization = text('authorization')
  return {
    token: /^bearer /i.test(authorization) ? authorization.slice('bearer '.length).trim() : '',
    clusterId: text('clusterid'),
    peer,
  }
}
