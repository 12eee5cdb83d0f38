// The shop on a real cluster with Ambit installed: what its metrics tell, and its waypoint. One cluster for both, since each costs half
// a minute. Must not live here: what is asked of it (shop/), the install by the README's lines (install.test.ts).
import { afterAll, beforeAll, expect } from 'vitest'
import { KubeMesh } from '../world/kube-mesh.ts'
import { BUILD_MS, openCluster, tell } from '../world/kube.ts'
import { shop, uniqueName } from '../world/sandbox.ts'
import { metrics } from './shop/metrics.ts'
import { waypoint } from './shop/waypoint.ts'

let mesh: KubeMesh
beforeAll(async () => {
  mesh = new KubeMesh(await openCluster(uniqueName(), 2, { image: true }))
  const began = performance.now()
  await mesh.install()
  // No warning of the webhook either.
  expect((await mesh.cluster.kubectl(['apply', '-f', shop])).err).toBe('')
  for (const name of ['frontend-deployment', 'my-service-v1', 'my-service-v2', 'intruder'])
    await mesh.kubectl(`-n shop rollout status deployment/${name} --timeout=90s`)
  tell(`Ambit and the shop are ready after ${((performance.now() - began) / 1000).toFixed(1)} s`)
}, BUILD_MS)
afterAll(async () => {
  expect(await mesh?.cluster.close()).toEqual([])
})

metrics(() => mesh)
waypoint(() => mesh)
