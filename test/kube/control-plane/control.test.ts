// Control reading a real API server: a control plane without nodes, `ambit control` as a process beside it.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startReadyControl, type ControlProcess } from '../../world/control-process.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, uniqueName } from '../../world/sandbox.ts'

let cluster: Cluster
let control: ControlProcess
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  await cluster.kubectl(['create', 'namespace', 'ambit-system'])
  control = await startReadyControl(cluster.sandbox.layout.kubeconfig)
}, BUILD_MS)
afterAll(async () => {
  await control?.stop()
  expect(await cluster?.close()).toEqual([])
})

async function services(): Promise<string[]> {
  const { translation } = await control.dump()
  return (translation?.['services'] ?? []).map((one) => (one as { hostname: string }).hostname)
}

describe('control on the API', () => {
  it('translates what is there, also kinds whose CRD is not installed', async () => {
    expect(await services()).toContain('kubernetes.default.svc.cluster.local')
  })

  it('takes up an edit and a removal', async () => {
    await cluster.kubectl(['create', 'service', 'clusterip', 'reviews', '--tcp=80:8080'])
    await eventually('the service is there', async () =>
      (await services()).includes('reviews.default.svc.cluster.local'),
    )
    await cluster.kubectl(['delete', 'service', 'reviews'])
    await eventually(
      'the service is gone',
      async () => !(await services()).includes('reviews.default.svc.cluster.local'),
    )
  })

  it('leads, since it is alone', async () => {
    const lease = [
      'get',
      'lease',
      'ambit-control-leader',
      '-n',
      'ambit-system',
      '-o',
      'jsonpath={.spec.holderIdentity}',
    ]
    expect((await cluster.kubectl(lease)).out).not.toBe('')
  })
  it('writes the roots into every namespace, also a new one, and puts them right', async () => {
    const roots = async (namespace: string): Promise<string> => {
      const path = ['get', 'configmap', 'ambit-root-cert', '-n', namespace, '-o', 'jsonpath={.data.root-cert\\.pem}']
      return (await cluster.kubectl(path)).out
    }
    await eventually('the roots are in default', async () => (await roots('default')).includes('BEGIN CERTIFICATE'))
    await cluster.kubectl(['create', 'namespace', 'later'])
    await eventually(
      'the roots are in the new one',
      async () => (await roots('later')) === (await roots('default')),
      2_000,
    )
    await cluster.kubectl(['delete', 'configmap', 'ambit-root-cert', '-n', 'later'])
    await eventually(
      'the roots are there again',
      async () => (await roots('later')) === (await roots('default')),
      2_000,
    )
  })
})
