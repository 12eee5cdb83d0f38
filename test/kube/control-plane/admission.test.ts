// The webhook, asked by a real API server without nodes: `ambit control` as a process beside it.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { startReadyControl, type ControlProcess } from '../../world/control-process.ts'
import { BUILD_MS, openCluster, type Cluster } from '../../world/kube.ts'
import { eventually, root, run, uniqueName, type Ran } from '../../world/sandbox.ts'

const PORT = 15_017

let cluster: Cluster
let control: ControlProcess
beforeAll(async () => {
  cluster = await openCluster(uniqueName(), 0)
  // The address of this machine that the API server reaches.
  const { out } = await run(['ip', '-o', 'route', 'get', cluster.sandbox.layout.fabricAddress4])
  const here = /src (\S+)/.exec(out)?.[1] ?? ''
  await cluster.kubectl(['apply', '--server-side', '-f', join(root, 'deploy/chart/crds')])
  await cluster.kubectl(['wait', '--for=condition=Established', 'crd', '--all'])
  for (const name of ['ambit-system', 'shop']) await cluster.kubectl(['create', 'namespace', name])
  // The chart's, but for the address: no Service leads to a process of this machine.
  const text = readFileSync(join(root, 'deploy/chart/templates/webhook.yaml'), 'utf8')
    .replaceAll(/\{\{- include .* \}\}/g, '{}')
    .replaceAll('{{ .Release.Namespace }}', 'ambit-system')
    .replaceAll(/\{\{.*\}\}\n?/g, '')
  const configuration = parse(text) as { webhooks: { clientConfig: unknown }[] }
  configuration.webhooks[0]!.clientConfig = { url: `https://${here}:${PORT}/validate` }
  const { code, err } = await cluster.kubectl(['apply', '-f', '-'], JSON.stringify(configuration))
  expect({ code, err }).toMatchObject({ code: 0 })
  control = await startReadyControl(cluster.sandbox.layout.kubeconfig, ['--webhook', `${here}:${PORT}`])
  await eventually('the API server trusts the webhook', async () => (await bundle()) !== '', 20_000)
}, BUILD_MS)
afterAll(async () => {
  await control?.stop()
  expect(await cluster?.close()).toEqual([])
})

async function bundle(): Promise<string> {
  const path = [
    'get',
    'validatingwebhookconfiguration',
    'ambit-validation',
    '-o',
    'jsonpath={.webhooks[0].clientConfig.caBundle}',
  ]
  return (await cluster.kubectl(path)).out
}

const apply = (yaml: string): Promise<Ran> => cluster.kubectl(['apply', '-f', '-'], yaml)

const policy = (action: string, namespace = 'shop'): string => `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: ${namespace}}
spec: {action: ${action}}
`

describe('the webhook', () => {
  it('refuses a bad resource through kubectl, with the field and the fix', async () => {
    await eventually('it is asked', async () => {
      const { code, err } = await apply(policy('ALOW'))
      return code !== 0 && err.includes('spec.action')
    })
    const { err } = await apply(policy('ALOW'))
    expect(err).toMatch(/AuthorizationPolicy "some" is invalid[\s\S]*spec\.action: .*ALLOW/)
    expect((await cluster.kubectl(['get', 'authorizationpolicy', '-n', 'shop', '-o', 'name'])).out).toBe('')
  })

  it('takes a good one, and says what of it has no effect', async () => {
    expect((await apply(policy('DENY'))).code).toBe(0)
    const { code, err } = await apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop}
spec: {hosts: [a], http: [{mirror: {host: b}, route: [{destination: {host: a}}]}]}
`)
    expect(code).toBe(0)
    expect(err).toMatch(/Warning: spec\.http\[0\]\.mirror/)
  })

  it('has its authority put right when somebody removes it', async () => {
    const before = await bundle()
    const patch = '[{"op":"replace","path":"/webhooks/0/clientConfig/caBundle","value":""}]'
    await cluster.kubectl(['patch', 'validatingwebhookconfiguration', 'ambit-validation', '--type=json', '-p', patch])
    await eventually('it is there again', async () => (await bundle()) === before)
  })

  it('is asked nothing about the system namespaces, and keeps nobody from anything when it is away', async () => {
    expect((await apply(policy('ALOW', 'kube-system'))).code).toBe(0)
    await control.stop()
    const { code } = await apply(policy('ALOW'))
    expect(code).toBe(0)
  })
})
