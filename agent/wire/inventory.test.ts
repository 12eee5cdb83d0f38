import { create, toBinary } from '@bufbuild/protobuf'
import { describe, expect, it } from 'vitest'
import type { HeldResource, ResourceKind } from './contract.ts'
import { encodeResource } from './encoded.ts'
import { AddressSchema } from './gen/istio/workload/workload_pb.js'
import { bytesOf, digestOf, heldAnswer, inventoryDigest, readable, wantedAnswer, type Inventory } from './inventory.ts'
import { ResourceStore } from './resource-store.ts'
import type { ClientScope } from './xds-stream.ts'

const bytes = toBinary(
  AddressSchema,
  create(AddressSchema, {
    type: { case: 'workload', value: { uid: 'c//Pod/shop/web', name: 'web', namespace: 'shop' } },
  }),
)
const encoded = encodeResource('Address', 'c//Pod/shop/web', bytes)
const held = (kind: ResourceKind): ReadonlyMap<string, HeldResource> =>
  new Map(kind === 'Address' ? [['c//Pod/shop/web', { version: encoded.version, bytes }]] : [])

describe('inventory', () => {
  it('of control and of a client that has it all are equal, whatever the order', () => {
    const other = encodeResource('Address', 'c//Pod/shop/other', bytes)
    const store = new ResourceStore()
    store.update({ set: [encoded, other], remove: [] })
    const scope: ClientScope = {
      kinds: ['MeshSettings', 'Address'],
      version: () => 0,
      includes: (_, name) => name !== other.name,
    }
    const wanted = wantedAnswer(store, scope, new URLSearchParams()) as Inventory
    const asked = new URLSearchParams({ kind: 'Address', name: other.name })
    expect(wantedAnswer(store, scope, asked)).toBeUndefined()
    expect(heldAnswer({ held }, ['MeshSettings', 'Address'], new URLSearchParams())).toEqual(wanted)
    expect(digestOf({ a: '1', b: '2' })).toBe(digestOf({ b: '2', a: '1' }))
    expect(digestOf({ a: '1', b: '2' })).not.toBe(digestOf({ a: '2', b: '1' }))
    expect(inventoryDigest(wanted).Address).toEqual({ resources: 1, digest: digestOf(wanted.Address!) })
  })

  it('shows a resource, the same whether it is sent or held', () => {
    const one = heldAnswer({ held }, ['Address'], new URLSearchParams({ kind: 'Address', name: 'c//Pod/shop/web' }))
    expect(one).toEqual({
      version: encoded.version,
      resource: { workload: { uid: 'c//Pod/shop/web', name: 'web', namespace: 'shop' } },
    })
    expect(readable('Address', bytesOf(encoded))).toEqual((one as { resource: unknown }).resource)
    expect(heldAnswer({ held }, ['Address'], new URLSearchParams({ kind: 'Address', name: 'none' }))).toBeUndefined()
    expect(heldAnswer({ held }, ['Address'], new URLSearchParams({ kind: 'Route', name: 'x' }))).toBeUndefined()
  })
})
