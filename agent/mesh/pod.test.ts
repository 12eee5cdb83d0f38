// The pods of a node in its agent's state: found by either uid, gone by name.
import { expect, it } from 'vitest'
import { samplePod } from './samples.ts'
import { MeshState } from './state.ts'

it('finds a static pod by the uid the kubelet gave it and by that of its mirror', () => {
  const state = new MeshState()
  const pod = samplePod({ uid: 'mirror', kubeletUid: 'hash', name: 'etcd' })
  state.setPod(pod)
  expect(state.pod('mirror')).toBe(pod)
  expect(state.pod('hash')).toBe(pod)
  state.removePod('node1/mirror')
  expect(state.pod('hash')).toBeUndefined()
  expect([...state.pods()]).toEqual([])
})

it('keeps the later mirror of a static pod when the earlier one goes', () => {
  const state = new MeshState()
  const later = samplePod({ uid: 'later', kubeletUid: 'hash' })
  state.setPod(samplePod({ uid: 'earlier', kubeletUid: 'hash' }))
  state.setPod(later)
  state.removePod('node1/earlier')
  expect(state.pod('hash')).toBe(later)
})

it('is no change of what is compiled from the state', () => {
  const state = new MeshState()
  const { version } = state
  state.setPod(samplePod())
  expect(state.version).toBe(version)
})
