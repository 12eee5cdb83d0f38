import { afterAll, describe, expect, it } from 'vitest'
import { Folder, nodePodFor, shopMesh, workloadFor } from './testing.ts'
import { wantedPod } from './wanted.ts'

describe('whether a pod is wanted in the mesh', () => {
  const folder = new Folder()
  afterAll(() => folder.remove())
  const pod = folder.pod('web')
  const verdict = (change: Parameters<typeof workloadFor>[1]) => {
    const mesh = shopMesh()
    mesh.setWorkload(workloadFor(pod, change))
    return wantedPod(mesh, 'one', pod).verdict
  }

  it('is unknown without a state', () => {
    expect(wantedPod(undefined, 'one', pod).verdict).toBe('unknown')
  })

  it('is no in an exempt namespace, even without a state', () => {
    expect(wantedPod(undefined, 'one', { ...pod, namespace: 'kube-system' }).verdict).toBe('out')
    expect(wantedPod(undefined, 'one', { ...pod, namespace: 'own' }, ['own']).verdict).toBe('out')
  })

  it('follows the namespace while the workload is not known', () => {
    expect(wantedPod(shopMesh(), 'one', pod).verdict).toBe('in')
    expect(wantedPod(shopMesh(), 'one', { ...pod, namespace: 'plain' }).verdict).toBe('out')
  })

  it('says so when its namespace alone decides', () => {
    expect(wantedPod(shopMesh(), 'one', pod).guessed).toBe(true)
    const mesh = shopMesh()
    mesh.setWorkload(workloadFor(pod))
    expect(wantedPod(mesh, 'one', pod).guessed).toBeUndefined()
  })

  it('follows what control tells of the pod, before it has an address, whatever workload and namespace say', () => {
    const mesh = shopMesh()
    mesh.setWorkload(workloadFor(pod))
    for (const enrolment of ['not_enrolled', 'sidecar', 'host_network', 'own_tunnel', 'exempt'] as const) {
      mesh.setPod(nodePodFor(pod, { enrolment, addresses: [] }))
      expect(wantedPod(mesh, 'one', pod).verdict).toBe('out')
    }
    const plain = folder.pod('opted-in', { namespace: 'plain' })
    mesh.setPod(nodePodFor(plain))
    expect(wantedPod(mesh, 'one', plain)).toEqual({ verdict: 'in', reason: 'The pod is enrolled.' })
  })

  it('finds what is told of a pod by its sandbox where the runtime says no uid', () => {
    const mesh = shopMesh()
    mesh.setPod(nodePodFor(pod, { uid: 'of the api', enrolment: 'not_enrolled' }))
    expect(wantedPod(mesh, 'one', { ...pod, uid: 'c1', sandbox: 'c1' }).verdict).toBe('out')
    expect(wantedPod(mesh, 'one', { ...pod, uid: 'c1', sandbox: 'c2' }).verdict).toBe('in')
  })

  it('keeps a captured pod that nobody tells of any more, until another word of it comes', () => {
    const plain = { ...pod, namespace: 'plain' }
    expect(wantedPod(shopMesh(), 'one', plain, [], true).verdict).toBe('in')
    const mesh = shopMesh()
    mesh.setPod(nodePodFor(plain, { enrolment: 'not_enrolled' }))
    expect(wantedPod(mesh, 'one', plain, [], true).verdict).toBe('out')
  })

  it('follows the workload once it is known', () => {
    expect(verdict({})).toBe('in')
    expect(verdict({ tunnelProtocol: 'NONE' })).toBe('out')
    expect(verdict({ nativeTunnel: true })).toBe('out')
  })

  it('takes no other pod that once had the address for this one', () => {
    expect(verdict({ name: 'former', tunnelProtocol: 'NONE' })).toBe('in')
    expect(verdict({ node: 'elsewhere', tunnelProtocol: 'NONE' })).toBe('in')
    expect(verdict({ namespace: 'plain', tunnelProtocol: 'NONE' })).toBe('in')
  })
})
