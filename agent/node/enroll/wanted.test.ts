import { afterAll, describe, expect, it } from 'vitest'
import { Folder, shopMesh, workloadFor } from './testing.ts'
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
