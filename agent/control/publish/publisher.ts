// From a snapshot to resources on the wire: what changed is encoded, once; what did not is left as it is. A resource that
// cannot be encoded keeps its last good version, a security resource without one becomes a DENY of what it was about.
// Must not live here: who gets what (scope.ts), streams (wire/), translation (config/).
import { messageOf } from '../../base/errors.ts'
import type { Logger } from '../../base/log.ts'
import type { Translation } from '../../config/translation.ts'
import { lowerPolicy } from '../../mesh/lower.ts'
import type { Policy } from '../../mesh/policy.ts'
import type { Workload } from '../../mesh/workload.ts'
import { addressCodec, type Address } from '../../wire/codec/address.ts'
import { authorizationCodec } from '../../wire/codec/authorization.ts'
import type { Codec } from '../../wire/codec/codec.ts'
import { podCodec } from '../../wire/codec/pod.ts'
import { policyCodec } from '../../wire/codec/policy.ts'
import { routeCodec } from '../../wire/codec/route.ts'
import { settingsCodec } from '../../wire/codec/settings.ts'
import { upstreamCodec } from '../../wire/codec/upstream.ts'
import type { ResourceKind } from '../../wire/contract.ts'
import { encodeResource, type EncodedResource } from '../../wire/encoded.ts'
import type { ResourceStore } from '../../wire/resource-store.ts'
import { sameValue } from './same.ts'

/** A resource that could not be carried. */
export interface Unpublished {
  readonly kind: ResourceKind
  readonly name: string
  readonly reason: string
}

interface Published {
  /** undefined: a DENY is in its place. */
  readonly value: unknown
  /** The object of the translation it was made of. */
  readonly identity: unknown
  round: number
}

/** What was published last of one kind. */
class Shelf {
  readonly byName = new Map<string, Published>()
  readonly byIdentity = new Map<unknown, Published>()

  put(name: string, published: Published): void {
    const before = this.byName.get(name)
    if (before) this.byIdentity.delete(before.identity)
    this.byName.set(name, published)
    if (published.identity !== undefined) this.byIdentity.set(published.identity, published)
  }

  /** Lets go of what was not touched in this round; gives the names. */
  sweep(round: number): string[] {
    const gone: string[] = []
    for (const [name, { identity, round: touched }] of this.byName) {
      if (touched === round) continue
      gone.push(name)
      this.byName.delete(name)
      this.byIdentity.delete(identity)
    }
    return gone
  }
}

export class Publisher {
  readonly #store: ResourceStore
  readonly #log: Logger
  readonly #published = new Map<ResourceKind, Shelf>()
  /** Grows with every snapshot: what was not touched by the last one is gone. */
  #round = 0
  /** Of the last snapshot. */
  unpublished: readonly Unpublished[] = []

  constructor(store: ResourceStore, log: Logger) {
    this.#store = store
    this.#log = log
  }

  /** Brings the store to this state. Returns how many resources were set or removed. */
  publish(translation: Translation): number {
    const set: EncodedResource[] = []
    const remove: { kind: ResourceKind; name: string }[] = []
    const unpublished: Unpublished[] = []
    this.#round++
    const bring = <T>(
      codec: Codec<T>,
      values: Iterable<T>,
      { instead, madeOf = (value) => value }: { instead?: (value: T) => T; madeOf?: (value: T) => unknown } = {},
    ): void => {
      const shelf = this.#shelf(codec.kind)
      for (const value of values) {
        const identity = madeOf(value)
        // What did not change is mostly the very same object.
        const same = shelf.byIdentity.get(identity)
        if (same) {
          same.round = this.#round
          continue
        }
        const name = codec.nameOf(value)
        const before = shelf.byName.get(name)
        // Else comparing costs a tenth of encoding.
        if (before?.value !== undefined && sameValue(before.value, value)) {
          shelf.put(name, { value, identity, round: this.#round })
          continue
        }
        try {
          set.push(encodeResource(codec.kind, name, codec.encode(value)))
          shelf.put(name, { value, identity, round: this.#round })
        } catch (error) {
          unpublished.push({ kind: codec.kind, name, reason: messageOf(error) })
          // Kept under what was published, so that this is tried (and told) again with the next snapshot.
          if (before) before.round = this.#round
          else if (instead) {
            set.push(encodeResource(codec.kind, name, codec.encode(instead(value))))
            shelf.put(name, { value: undefined, identity: undefined, round: this.#round })
          }
        }
      }
      for (const name of shelf.sweep(this.#round)) remove.push({ kind: codec.kind, name })
    }
    const { settings } = translation
    const lowered = new Map<string, Policy | undefined>()
    for (const policy of translation.policies) {
      lowered.set(`${policy.namespace}/${policy.name}`, lowerPolicy(policy, settings))
    }
    bring(settingsCodec, [settings])
    bring(
      authorizationCodec,
      [...lowered.values()].filter((policy) => policy !== undefined),
      { instead: denyInstead },
    )
    // The synthetic policies of PeerAuthentication are about the last hop, which only an agent sees.
    const whole = translation.policies.filter((policy) => policy.source.kind !== 'PeerAuthentication')
    bring(policyCodec, whole, { instead: denyInstead })
    bring(routeCodec, translation.routes)
    bring(upstreamCodec, translation.upstreams)
    bring(addressCodec, addresses(translation, lowered), {
      madeOf: (address) => (address.type === 'workload' ? address.workload : address.service),
    })
    bring(podCodec, translation.pods)
    this.#report(unpublished)
    this.#store.update({ set, remove })
    return set.length + remove.length
  }

  #shelf(kind: ResourceKind): Shelf {
    let shelf = this.#published.get(kind)
    if (!shelf) this.#published.set(kind, (shelf = new Shelf()))
    return shelf
  }

  #report(unpublished: readonly Unpublished[]): void {
    const told = new Set(this.unpublished.map(({ kind, name, reason }) => `${kind} ${name} ${reason}`))
    for (const one of unpublished) {
      if (!told.has(`${one.kind} ${one.name} ${one.reason}`)) {
        this.#log.error(one, 'a resource cannot be published, its last good version stays')
      }
    }
    this.unpublished = unpublished
  }
}

function* addresses(translation: Translation, lowered: ReadonlyMap<string, Policy | undefined>): Generator<Address> {
  for (const workload of translation.workloads) yield { type: 'workload', workload: withL4Policies(workload, lowered) }
  for (const service of translation.services) yield { type: 'service', service }
}

/** Without references to policies that agents do not get (AUDIT): to an agent an unknown reference is a denial. */
function withL4Policies(workload: Workload, lowered: ReadonlyMap<string, Policy | undefined>): Workload {
  const gone = (key: string): boolean => lowered.has(key) && lowered.get(key) === undefined
  if (!workload.authorizationPolicies.some(gone)) return workload
  return { ...workload, authorizationPolicies: workload.authorizationPolicies.filter((key) => !gone(key)) }
}

/** The same attachment, denying everything. */
function denyInstead(policy: Policy): Policy {
  const { provider: _provider, ...rest } = policy
  return { ...rest, action: 'DENY', dryRun: false, rules: [{ clauses: [] }] }
}
