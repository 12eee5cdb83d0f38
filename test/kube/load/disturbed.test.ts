// A cluster that is changed by people and broken by force, under steady loads. One cluster for both, since each costs a minute.
// Must not live here: what is done to it (rollouts.ts, chaos.ts).
import { afterAll, beforeAll, expect } from 'vitest'
import { KubeMesh } from '../../world/kube-mesh.ts'
import { BUILD_MS, openCluster } from '../../world/kube.ts'
import { uniqueName } from '../../world/sandbox.ts'
import { chaos, shrinkDisk } from './chaos.ts'
import { DRAIN_SECONDS, rollouts } from './rollouts.ts'

let mesh: KubeMesh
beforeAll(async () => {
  mesh = new KubeMesh(await openCluster(uniqueName(), 2, { image: true }))
  await shrinkDisk(mesh)
  await mesh.install([`agent.drainSeconds=${DRAIN_SECONDS}`])
}, BUILD_MS)
afterAll(async () => {
  expect(await mesh?.cluster.close()).toEqual([])
})

rollouts(() => mesh)
chaos(() => mesh)
