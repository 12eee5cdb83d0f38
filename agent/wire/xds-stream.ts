// One client's delta xDS stream, on the server: what it has, what it still needs, one response at a time per kind.
// Changes that come while a response is on its way, or while the socket does not take more, gather by name and are sent
// as the newest state: a slow client costs a set of names, never a queue of responses. Settings and policies go first:
// no workload or route reaches a client before it has acknowledged the policies published with it.
// Must not live here: gRPC, authentication (xds-server.ts), what to publish (control/publish).
import type { Logger } from '../base/log.ts'
import type { ResourceKind } from './contract.ts'
import { encodeResponse, MORE, type EncodedResource } from './encoded.ts'
import type { DeltaDiscoveryRequest } from './gen/envoy/service/discovery/v3/ads_pb.js'
import type { ResourceStore } from './resource-store.ts'
import { kindOfTypeUrl } from './types.ts'

/** Which resources a client may have. */
export interface ClientScope {
  readonly kinds: readonly ResourceKind[]
  /** A value that changes whenever `includes` may answer differently. */
  version(): unknown
  includes(kind: ResourceKind, name: string): boolean
}

export interface StreamStats {
  responses: number
  bytes: number
  resources: number
  nacks: number
}

export interface StreamOptions {
  readonly store: ResourceStore
  readonly scope: ClientScope
  /** For log lines. */
  readonly client: string
  readonly log: Logger
  readonly stats: StreamStats
  /** False when the layer below wants no more until `onDrain`. */
  send(response: Buffer): boolean
}

/**
 * Bytes of resources in one response; the rest follows after the ACK. A thousand agents that come back at once have one each on its way.
 */
const MAX_RESPONSE_BYTES = 512 * 1024

/** Kinds that a client must hold before it gets what they are about. */
const FIRST: readonly ResourceKind[] = ['MeshSettings', 'Authorization', 'Policy']

interface Subscription {
  wildcard: boolean
  /** Named subscriptions, beside or instead of the wildcard. */
  readonly names: Set<string>
  /** What the client holds or is being sent, name → version. */
  readonly sent: Map<string, string>
  /** Names to look at when the next response is made. */
  readonly dirty: Set<string>
  /** Nonce of the response on its way, '' for none. */
  pending: string
  /** An answer is owed even if nothing changed (the first one: it tells the client that it has everything). */
  owed: boolean
  scopeVersion: unknown
}

export class XdsStream {
  readonly #options: StreamOptions
  readonly #subscriptions = new Map<ResourceKind, Subscription>()
  #nonce = 0
  #writable = true

  constructor(options: StreamOptions) {
    this.#options = options
  }

  /** A message of the client: subscription, ACK or NACK. Unknown types are answered by silence, as Envoy's servers do. */
  onRequest(request: DeltaDiscoveryRequest): void {
    const kind = kindOfTypeUrl(request.typeUrl)
    if (kind === undefined || !this.#options.scope.kinds.includes(kind)) {
      this.#options.log.warn(
        { client: this.#options.client, type: request.typeUrl },
        'asked for a type it does not get',
      )
      return
    }
    let subscription = this.#subscriptions.get(kind)
    if (!subscription) this.#subscriptions.set(kind, (subscription = this.#subscribe(kind, request)))
    else this.#change(subscription, request)
    if (request.responseNonce !== '') this.#acknowledge(kind, subscription, request)
    this.#flush(kind, subscription)
    // What waited for it.
    if (FIRST.includes(kind)) this.#flushAll()
  }

  /** The store changed. */
  onChange(changed: ReadonlyMap<ResourceKind, ReadonlySet<string>>): void {
    for (const [kind, subscription] of this.#subscriptions) {
      for (const name of changed.get(kind) ?? []) subscription.dirty.add(name)
    }
    this.#flushAll()
  }

  onDrain(): void {
    this.#writable = true
    this.#flushAll()
  }

  /** The client has acknowledged all that it is to have. */
  get settled(): boolean {
    for (const { pending, owed, dirty } of this.#subscriptions.values())
      if (pending !== '' || owed || dirty.size > 0) return false
    return this.#options.store.ready && this.#subscriptions.size > 0
  }

  #flushAll(): void {
    for (const [kind, subscription] of this.#subscriptions) if (FIRST.includes(kind)) this.#flush(kind, subscription)
    for (const [kind, subscription] of this.#subscriptions) if (!FIRST.includes(kind)) this.#flush(kind, subscription)
  }

  /** True while the client has not yet acknowledged the newest settings and policies it subscribed to. */
  #waitsForFirst(): boolean {
    return FIRST.some((kind) => {
      const subscription = this.#subscriptions.get(kind)
      return (
        subscription !== undefined && (subscription.pending !== '' || subscription.owed || subscription.dirty.size > 0)
      )
    })
  }

  #subscribe(kind: ResourceKind, request: DeltaDiscoveryRequest): Subscription {
    const subscription: Subscription = {
      wildcard: request.resourceNamesSubscribe.length === 0,
      names: new Set(),
      // Only what is new or gone must be sent to a client that comes back.
      sent: new Map(Object.entries(request.initialResourceVersions)),
      dirty: new Set(Object.keys(request.initialResourceVersions)),
      pending: '',
      owed: true,
      scopeVersion: this.#options.scope.version(),
    }
    this.#change(subscription, request)
    for (const name of this.#options.store.names(kind)) subscription.dirty.add(name)
    return subscription
  }

  #change(subscription: Subscription, request: DeltaDiscoveryRequest): void {
    for (const name of request.resourceNamesSubscribe) {
      if (name === '*') subscription.wildcard = true
      else {
        subscription.names.add(name)
        // The client may have dropped it: what is subscribed is sent, whatever version it had (delta xDS rule).
        if (request.responseNonce !== '' || !(name in request.initialResourceVersions)) subscription.sent.delete(name)
        subscription.dirty.add(name)
      }
    }
    for (const name of request.resourceNamesUnsubscribe) {
      if (name === '*') subscription.wildcard = false
      else subscription.names.delete(name)
      // The client dropped it by itself: no removal is owed.
      if (!subscription.wildcard && name !== '*') subscription.sent.delete(name)
    }
  }

  #acknowledge(kind: ResourceKind, subscription: Subscription, request: DeltaDiscoveryRequest): void {
    const { client, log, stats } = this.#options
    // A late word on an older response says nothing about the one on its way.
    if (request.responseNonce !== subscription.pending) return
    subscription.pending = ''
    if (!request.errorDetail) return
    // The client keeps its last good version of what it refused; sending the same bytes again would not help.
    stats.nacks++
    log.warn({ client, kind, error: request.errorDetail.message.slice(0, 2_000) }, 'resources refused by the client')
  }

  #flush(kind: ResourceKind, subscription: Subscription): void {
    const { store, scope, stats } = this.#options
    if (!this.#writable || subscription.pending !== '' || !store.ready) return
    if (!FIRST.includes(kind) && this.#waitsForFirst()) return
    const scopeVersion = scope.version()
    if (scopeVersion !== subscription.scopeVersion) {
      subscription.scopeVersion = scopeVersion
      for (const name of store.names(kind)) subscription.dirty.add(name)
      for (const name of subscription.sent.keys()) subscription.dirty.add(name)
    }
    const resources: EncodedResource[] = []
    const removed: string[] = []
    let bytes = 0
    for (const name of subscription.dirty) {
      if (bytes >= MAX_RESPONSE_BYTES) break
      subscription.dirty.delete(name)
      const wanted = (subscription.wildcard || subscription.names.has(name)) && scope.includes(kind, name)
      const resource = wanted ? store.get(kind, name) : undefined
      if (resource) {
        if (subscription.sent.get(name) === resource.version) continue
        subscription.sent.set(name, resource.version)
        resources.push(resource)
        bytes += resource.frame.length
      } else if (subscription.sent.delete(name) || subscription.names.has(name)) {
        removed.push(name)
        bytes += name.length
      }
    }
    if (resources.length === 0 && removed.length === 0 && !subscription.owed) return
    // A last answer without MORE is owed even if all that is left to look at turns out to be unchanged.
    subscription.owed = subscription.dirty.size > 0
    subscription.pending = String(++this.#nonce)
    const version = `${store.revision}${subscription.dirty.size > 0 ? MORE : ''}`
    const response = encodeResponse(kind, version, subscription.pending, resources, removed)
    stats.responses++
    stats.bytes += response.length
    stats.resources += resources.length + removed.length
    this.#writable = this.#options.send(response)
  }
}
