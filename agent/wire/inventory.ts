// What a client holds, or is to hold, in forms that can be compared and read: names and versions, a digest of them, a
// resource as JSON. The same answers come from control and from its clients, so that any difference is a real one. Must not live
// here: serving them (telemetry/admin.ts), comparing (cli/).
import { createHash } from 'node:crypto'
import { createRegistry, fromBinary, toJson } from '@bufbuild/protobuf'
import type { ControlConnection, ResourceKind } from './contract.ts'
import type { EncodedResource } from './encoded.ts'
import { file_ambit_v1_extension } from './gen/ambit/v1/extension_pb.js'
import { file_ambit_v1_pod } from './gen/ambit/v1/pod_pb.js'
import { file_ambit_v1_policy } from './gen/ambit/v1/policy_pb.js'
import { file_ambit_v1_route } from './gen/ambit/v1/route_pb.js'
import { file_ambit_v1_settings } from './gen/ambit/v1/settings_pb.js'
import { file_ambit_v1_upstream } from './gen/ambit/v1/upstream_pb.js'
import { DeltaDiscoveryResponseSchema } from './gen/envoy/service/discovery/v3/ads_pb.js'
import { file_istio_security_authorization } from './gen/istio/security/authorization_pb.js'
import { file_istio_workload_workload } from './gen/istio/workload/workload_pb.js'
import type { ResourceStore } from './resource-store.ts'
import { typeUrls } from './types.ts'
import type { ClientScope } from './xds-stream.ts'

/** Kind → name → version (a hash of the content). */
export type Inventory = { readonly [kind in ResourceKind]?: Readonly<Record<string, string>> }

/** Kind → how many, and a hash of all names and versions: equal exactly if the inventories are. */
export type InventoryDigest = {
  readonly [kind in ResourceKind]?: { readonly resources: number; readonly digest: string }
}

const registry = createRegistry(
  file_ambit_v1_extension,
  file_ambit_v1_pod,
  file_ambit_v1_policy,
  file_ambit_v1_route,
  file_ambit_v1_settings,
  file_ambit_v1_upstream,
  file_istio_security_authorization,
  file_istio_workload_workload,
)

/** Whatever the order they come in. */
export function digestOf(names: Readonly<Record<string, string>>): string {
  const hash = createHash('sha256')
  for (const name of Object.keys(names).sort()) hash.update(`${name}\0${names[name]}\n`)
  return hash.digest('base64url').slice(0, 16)
}

export function inventoryDigest(inventory: Inventory): InventoryDigest {
  return Object.fromEntries(
    Object.entries(inventory).map(([kind, names]) => [
      kind,
      { resources: Object.keys(names).length, digest: digestOf(names) },
    ]),
  )
}

/** What a client has in force. */
export function heldInventory(control: Pick<ControlConnection, 'held'>, kinds: readonly ResourceKind[]): Inventory {
  return Object.fromEntries(
    kinds.map((kind) => [
      kind,
      Object.fromEntries(Array.from(control.held(kind), ([name, { version }]) => [name, version])),
    ]),
  )
}

/** What a client of this scope is to have. */
export function wantedInventory(store: ResourceStore, scope: ClientScope): Inventory {
  return Object.fromEntries(
    scope.kinds.map((kind) => [
      kind,
      Object.fromEntries(
        Array.from(store.names(kind))
          .filter((name) => scope.includes(kind, name))
          .map((name) => [name, store.get(kind, name)?.version ?? '']),
      ),
    ]),
  )
}

/** A resource's bytes as JSON, by protobuf's rules. */
export function readable(kind: ResourceKind, bytes: Uint8Array): unknown {
  const schema = registry.getMessage(typeUrls[kind].slice('type.googleapis.com/'.length))
  return schema ? toJson(schema, fromBinary(schema, bytes), { registry }) : { unread: bytes.length }
}

/** The bytes inside what is sent. */
export function bytesOf(resource: EncodedResource): Uint8Array {
  const [one] = fromBinary(DeltaDiscoveryResponseSchema, resource.frame).resources
  return one?.resource?.value ?? new Uint8Array()
}

/** Answers `?kind=K&name=N` with that resource, if the scope has it, and without parameters with the inventory. */
export function wantedAnswer(store: ResourceStore, scope: ClientScope, query: URLSearchParams): unknown {
  if (!query.has('kind')) return wantedInventory(store, scope)
  const kind = scope.kinds.find((one) => one === query.get('kind'))
  const name = query.get('name') ?? ''
  const one = kind && scope.includes(kind, name) ? store.get(kind, name) : undefined
  return one && { version: one.version, resource: readable(one.kind, bytesOf(one)) }
}

/** Answers `?kind=K&name=N` with that resource, and without parameters with the inventory. Undefined: there is none such. */
export function heldAnswer(
  control: Pick<ControlConnection, 'held'>,
  kinds: readonly ResourceKind[],
  query: URLSearchParams,
): unknown {
  const kind = kinds.find((one) => one === query.get('kind'))
  if (!query.has('kind')) return heldInventory(control, kinds)
  const held = kind && control.held(kind).get(query.get('name') ?? '')
  return held && { version: held.version, resource: readable(kind, held.bytes) }
}
