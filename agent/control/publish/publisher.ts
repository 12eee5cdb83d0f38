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

export class Publisher {
  readonly #store: ResourceStore
  readonly #log: Logger
  /** What was published last under each name; undefined for a DENY in its place. */
  readonly #published = new Map<ResourceKind, Map<string, unknown>>()
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
    const bring = <T>(codec: Codec<T>, values: Iterable<T>, instead?: (value: T) => T): void => {
      const old = this.#published.get(codec.kind) ?? new Map<string, unknown>()
      const now = new Map<string, unknown>()
      for (const value of values) {
        const name = codec.nameOf(value)
        const before = old.get(name)
        // A new snapshot is made of new objects: comparing costs a tenth of encoding.
        if (before !== undefined && sameValue(before, value)) {
          now.set(name, value)
          continue
        }
        try {
          set.push(encodeResource(codec.kind, name, codec.encode(value)))
          now.set(name, value)
        } catch (error) {
          unpublished.push({ kind: codec.kind, name, reason: messageOf(error) })
          // Kept under what was published, so that this is tried (and told) again with the next snapshot.
          if (old.has(name)) now.set(name, before)
          else if (instead) {
            set.push(encodeResource(codec.kind, name, codec.encode(instead(value))))
            now.set(name, undefined)
          }
        }
      }
      for (const name of old.keys()) if (!now.has(name)) remove.push({ kind: codec.kind, name })
      this.#published.set(codec.kind, now)
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
      denyInstead,
    )
    // The synthetic policies of PeerAuthentication are about the last hop, which only an agent sees.
    const whole = translation.policies.filter((policy) => policy.source.kind !== 'PeerAuthentication')
    bring(policyCodec, whole, denyInstead)
    bring(routeCodec, translation.routes)
    bring(upstreamCodec, translation.upstreams)
    bring(addressCodec, addresses(translation, lowered))
    bring(podCodec, translation.pods)
    this.#report(unpublished)
    this.#store.update({ set, remove })
    return set.length + remove.length
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
