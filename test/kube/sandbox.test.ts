// The cluster that people get from `ambit sandbox up --kubernetes`, and the image on its nodes. One cluster for both, since each costs
// half a minute. Must not live here: what is asked of it (sandbox/), Ambit installed in it (install.test.ts).
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { ensureBuilt, ensureImages } from '../../agent/sandbox/kube/programs.ts'
import { BUILD_MS, DetachedCluster, tell } from '../world/kube.ts'
import { root, shop, uniqueName } from '../world/sandbox.ts'
import { cluster } from './sandbox/cluster.ts'
import { image, writeManifests } from './sandbox/image.ts'

const folder = mkdtempSync(join(tmpdir(), 'ambit-cluster-'))
let up: DetachedCluster
let name: string
beforeAll(async () => {
  writeManifests(folder)
  const never = new Promise<void>(() => undefined)
  await ensureBuilt(root, tell, never)
  name = (await ensureImages(root, [shop, folder], tell, never)).image
  up = await DetachedCluster.up(uniqueName(), folder)
}, BUILD_MS)
afterAll(async () => {
  await up?.down()
  rmSync(folder, { recursive: true, force: true })
})

image(() => ({ cluster: up, image: name }))
cluster(() => up)
