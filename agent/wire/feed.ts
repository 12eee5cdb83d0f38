// Puts what comes over the wire into a MeshState. A security resource that is refused while no good version of it is held
// becomes a policy that denies what it was about. Must not live here: streams, decisions.
import { fromBinary } from '@bufbuild/protobuf'
import type { Policy, PolicyScope, TargetRef } from '../mesh/policy.ts'
import type { MeshState } from '../mesh/state.ts'
import { addressCodec } from './codec/address.ts'
import { authorizationCodec } from './codec/authorization.ts'
import type { Codec } from './codec/codec.ts'
import { podCodec } from './codec/pod.ts'
import { policyCodec } from './codec/policy.ts'
import { routeCodec } from './codec/route.ts'
import { settingsCodec } from './codec/settings.ts'
import { upstreamCodec } from './codec/upstream.ts'
import { invalid } from './codec/parts.ts'
import type { ResourceChange, ResourceKind } from './contract.ts'
import { PolicySchema, PolicyScope as WireScope } from './gen/ambit/v1/policy_pb.js'
import { AuthorizationSchema, Scope } from './gen/istio/security/authorization_pb.js'
import type { ResourceSink } from './xds-client.ts'

export interface FeedOptions {
  readonly state: MeshState
  readonly onChange?: (change: ResourceChange) => void
  readonly onApplied?: (kind: ResourceKind) => void
}

interface Handler {
  set(name: string, bytes: Uint8Array): void
  remove(name: string): void
}

/** Decodes, checks that the resource is called what its content says (removals come by name), applies. */
function handler<T>(codec: Codec<T>, set: (value: T) => void, remove: (name: string) => void): Handler {
  return {
    set(name, bytes) {
      const value = codec.decode(bytes)
      const own = codec.nameOf(value)
      if (own !== name) throw invalid(`it is called '${name}' and its content says '${own}'`)
      set(value)
    },
    remove,
  }
}

export function feedState(options: FeedOptions): ResourceSink {
  const { state } = options
  const handlers: Readonly<Record<ResourceKind, Handler>> = {
    Address: handler(
      addressCodec,
      (address) =>
        address.type === 'workload' ? state.setWorkload(address.workload) : state.setService(address.service),
      (name) => {
        state.removeWorkload(name)
        state.removeService(name)
      },
    ),
    Authorization: handler(
      authorizationCodec,
      (policy) => state.setPolicy(policy),
      (name) => state.removePolicy(name),
    ),
    Policy: handler(
      policyCodec,
      (policy) => state.setPolicy(policy),
      (name) => state.removePolicy(name),
    ),
    Route: handler(
      routeCodec,
      (route) => state.setRoute(route),
      (name) => state.removeRoute(name),
    ),
    Upstream: handler(
      upstreamCodec,
      (upstream) => state.setUpstream(upstream),
      (name) => state.removeUpstream(name),
    ),
    Pod: handler(
      podCodec,
      (pod) => state.setPod(pod),
      (name) => state.removePod(name),
    ),
    MeshSettings: handler(
      settingsCodec,
      (settings) => {
        state.settings = settings
        state.version++
      },
      // There is no mesh without settings: the last ones stay.
      () => {},
    ),
  }
  return {
    set(kind, name, bytes) {
      handlers[kind].set(name, bytes)
      options.onChange?.({ kind, key: name, removed: false })
    },
    remove(kind, name) {
      handlers[kind].remove(name)
      options.onChange?.({ kind, key: name, removed: true })
    },
    refused(kind, name, bytes, held) {
      if (held || (kind !== 'Authorization' && kind !== 'Policy')) return
      state.setPolicy(denyInstead(kind, name, bytes, state.settings.rootNamespace))
      options.onChange?.({ kind, key: name, removed: false })
    },
    applied: (kind) => options.onApplied?.(kind),
  }
}

/**
 * A DENY for everything the unreadable policy was about, as far as that can be told: its targets or selector if its
 * frame can be read, else its namespace, which its name gives (the whole mesh for the root namespace).
 */
export function denyInstead(
  kind: 'Authorization' | 'Policy',
  key: string,
  bytes: Uint8Array,
  rootNamespace: string,
): Policy {
  const slash = key.indexOf('/')
  const namespace = key.slice(0, Math.max(0, slash))
  const name = key.slice(slash + 1)
  let scope: PolicyScope = namespace === rootNamespace ? 'global' : 'namespace'
  let selector: Record<string, string> = {}
  let targets: TargetRef[] = []
  try {
    if (kind === 'Authorization') {
      // Referenced by the workloads that it selects: denying only there is enough.
      if (fromBinary(AuthorizationSchema, bytes).scope === Scope.WORKLOAD_SELECTOR) scope = 'workload'
    } else {
      const wire = fromBinary(PolicySchema, bytes)
      if (wire.scope === WireScope.WORKLOAD && Object.keys(wire.selector).length > 0) {
        scope = 'workload'
        selector = wire.selector
      } else if (wire.scope === WireScope.TARGET && wire.targets.length > 0) {
        scope = 'target'
        targets = wire.targets.map((target) => ({ kind: target.kind, namespace: target.namespace, name: target.name }))
      }
    }
  } catch {
    // Not even protobuf: the widest reading of its name stands.
  }
  return {
    namespace,
    name,
    scope,
    action: 'DENY',
    dryRun: false,
    selector,
    targets,
    rules: [{ clauses: [] }],
    source: { kind: 'AuthorizationPolicy', namespace, name },
  }
}
