// How pods come into the mesh of a real cluster, by labels while they run and as new ones with their first byte. One cluster for both,
// since each costs half a minute. Must not live here: what is done and expected (enrolment/).
import { afterAll, beforeAll, expect } from 'vitest'
import { KubeMesh } from '../world/kube-mesh.ts'
import { BUILD_MS, openCluster } from '../world/kube.ts'
import { uniqueName } from '../world/sandbox.ts'
import { firstByte } from './enrolment/first-byte.ts'
import { labels, startPods } from './enrolment/labels.ts'

let mesh: KubeMesh
beforeAll(async () => {
  mesh = new KubeMesh(await openCluster(uniqueName(), 2, { image: true }))
  await startPods(mesh)
  await mesh.install()
}, BUILD_MS)
afterAll(async () => {
  expect(await mesh?.cluster.close()).toEqual([])
})

labels(() => mesh)
firstByte(() => mesh)
