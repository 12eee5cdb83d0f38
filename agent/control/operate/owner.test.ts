import { describe, expect, it } from 'vitest'
import { gatewayOf, ownershipOf, type OwnedMeta } from './owner.ts'

const GATEWAY = { name: 'wp', uid: 'u-2' }
const LABELS = {
  'gateway.istio.io/managed': 'ambit.io-mesh-controller',
  'gateway.networking.k8s.io/gateway-name': 'wp',
}
const OWNER = { apiVersion: 'gateway.networking.k8s.io/v1', kind: 'Gateway', name: 'wp', uid: 'u-2', controller: true }
const judge = (meta: Partial<OwnedMeta> | undefined) =>
  ownershipOf(meta && { name: 'wp', namespace: 'shop', ...meta }, GATEWAY)

describe("an object of a waypoint's name", () => {
  it('is ours by the uid of its Gateway', () => {
    expect(judge(undefined)).toEqual({ kind: 'absent' })
    expect(judge({ labels: LABELS, ownerReferences: [OWNER] })).toEqual({ kind: 'ours' })
    expect(judge({ ownerReferences: [OWNER] })).toEqual({ kind: 'ours' })
  })

  it('is ours by its labels when the reference was taken off', () => {
    expect(judge({ labels: LABELS })).toEqual({ kind: 'ours' })
    const another = { ...LABELS, 'gateway.networking.k8s.io/gateway-name': 'other' }
    expect(judge({ labels: another })).toEqual({ kind: 'foreign', why: 'it was made for another Gateway' })
  })

  it('leaves room soon when it belongs to an earlier Gateway, or is being deleted', () => {
    expect(judge({ labels: LABELS, ownerReferences: [{ ...OWNER, uid: 'u-1' }] })).toEqual({ kind: 'leaving' })
    expect(judge({ labels: LABELS, ownerReferences: [OWNER], deletionTimestamp: 'now' })).toEqual({ kind: 'leaving' })
  })

  it("is somebody else's otherwise, and stays so", () => {
    expect(judge({})).toEqual({ kind: 'foreign', why: 'Ambit did not make it' })
    const istio = { ...LABELS, 'gateway.istio.io/managed': 'istio.io-mesh-controller' }
    expect(judge({ labels: istio, ownerReferences: [OWNER] })).toEqual({
      kind: 'foreign',
      why: 'it is managed by istio.io-mesh-controller',
    })
    const chart = { kind: 'Release', name: 'chart', uid: 'x', controller: true }
    expect(judge({ labels: LABELS, ownerReferences: [chart] })).toEqual({
      kind: 'foreign',
      why: 'it belongs to Release chart',
    })
  })

  it('tells for which Gateway it was made', () => {
    expect(gatewayOf({ name: 'wp', ownerReferences: [OWNER] })).toEqual({ name: 'wp', uid: 'u-2' })
    expect(gatewayOf({ name: 'wp', labels: LABELS })).toEqual({ name: 'wp', uid: '' })
    expect(gatewayOf({ name: 'wp' })).toBeUndefined()
  })
})
