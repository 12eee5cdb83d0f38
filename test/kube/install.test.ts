// Ambit as people meet it: the README's own lines on a real cluster of two nodes, the shop through it, and off again so that nothing is
// left. Must not live here: enrolment in its corners (enrolment.test.ts), rollouts (load).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Capture } from '../../agent/sandbox/capture.ts'
import { BUILD_MS, openCluster } from '../world/kube.ts'
import { KubeMesh } from '../world/kube-mesh.ts'
import { ambit, eventually, root, run, uniqueName } from '../world/sandbox.ts'

let mesh: KubeMesh
let environment: Record<string, string>
const folder = mkdtempSync(join(tmpdir(), 'ambit-install-'))
beforeAll(async () => {
  mesh = new KubeMesh(await openCluster(uniqueName(), 2, { image: true }))
  const { sandbox } = mesh.cluster
  environment = {
    KUBECONFIG: sandbox.layout.kubeconfig,
    PATH: [dirname(ambit), dirname(sandbox.kubectl), process.env['PATH']].join(delimiter),
  }
}, BUILD_MS)
afterAll(async () => {
  if (mesh) expect(await mesh.cluster.close()).toEqual([])
  rmSync(folder, { recursive: true })
})

/** The lines of the README's section, from the install on: those before bring the cluster up, which is up. */
function lines(): string[] {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const [, section = ''] = readme.split('\n## On Kubernetes\n')
  const [, block = ''] = section.split(/```(?:sh)?\n/)
  const all = block.split('\n').map((line) => line.replace(/\s+#.*$/, ''))
  const from = all.findIndex((line) => line.startsWith('helm install'))
  expect(from).toBeGreaterThan(0)
  return all.slice(from).filter((line) => line !== '')
}

async function shell(line: string, timeoutMs = 240_000): Promise<string> {
  const { code, out, err } = await run(['sh', '-c', `cd ${root} && ${line}`], { environment, timeoutMs })
  expect({ line, code, err: code === 0 ? '' : err + out }).toEqual({ line, code: 0, err: '' })
  return out
}

interface Load {
  readonly requests: number
  readonly codes: Readonly<Record<string, number>>
  readonly errors: Readonly<Record<string, number>>
  readonly versions: Readonly<Record<string, number>>
}

/** Sends requests from a Deployment's pod; codes, and which version answered. */
async function load(from: string, url: string, requests = 100): Promise<Load> {
  const [namespace, name] = from.split('/') as [string, string]
  const { out } = await mesh.cluster.kubectl([
    '-n',
    namespace,
    'exec',
    `deploy/${name}`,
    '--',
    'ambit',
    'app',
    'load',
    url,
    '-n',
    String(requests),
    '--close',
  ])
  return JSON.parse(out) as Load
}

describe('the README’s lines on a real cluster', () => {
  it('are preceded by a check that the cluster can take it', async () => {
    const out = await shell('ambit check --image ambit.local/ambit:0.1.0')
    for (const node of ['node-1', 'node-2']) expect(out).toContain(node)
    // What it ran on the nodes is gone again.
    expect(await mesh.kubectl('get jobs -A -o name')).toBe('')
  }, 120_000)

  it('install the mesh, put a namespace into it and the shop to work', async () => {
    for (const line of lines()) {
      const out = await shell(line)
      if (line.startsWith('ambit status')) {
        expect(out).toMatch(/frontend-deployment\S+ +protected/)
        expect(out).toMatch(/shop\/waypoint +\S+ +ready/)
      }
    }
  }, 400_000)

  it('make every resource’s condition true', async () => {
    await eventually(
      'all conditions are true',
      async () => {
        const kinds =
          'virtualservices,destinationrules,authorizationpolicies,peerauthentications,gateways.gateway.networking.k8s.io'
        const { items } = await mesh.get<{ items: { status?: { conditions?: { type: string; status: string }[] } }[] }>(
          `${kinds} -n shop`,
        )
        const conditions = items.flatMap((one) => one.status?.conditions ?? [])
        return (
          items.length >= 5 && conditions.length >= items.length && conditions.every((one) => one.status === 'True')
        )
      },
      60_000,
    )
  })

  it('hold the split and the policies of the shop', async () => {
    const { codes, errors, versions } = await load('shop/frontend-deployment', 'http://my-service/api/items', 1_000)
    expect({ codes, errors }).toEqual({ codes: { 200: 1_000 }, errors: {} })
    // 80 to 20; five standard deviations of a fair draw.
    expect((versions['v1'] ?? 0) / 1_000).toBeGreaterThan(0.8 - 5 * Math.sqrt((0.8 * 0.2) / 1_000))
    expect((versions['v1'] ?? 0) / 1_000).toBeLessThan(0.8 + 5 * Math.sqrt((0.8 * 0.2) / 1_000))
    expect((await load('shop/frontend-deployment', 'http://my-service/admin', 5)).codes).toEqual({ 403: 5 })
    expect((await load('shop/intruder', 'http://my-service/api/items', 5)).codes).toEqual({ 403: 5 })
    expect((await load('outside/outsider', 'http://my-service.shop/api/items', 5)).codes).toEqual({})
  })

  it('put mutual TLS between the nodes: nothing of a request is on the wire', async () => {
    const captures = await Promise.all(['node-1', 'node-2'].map((name) => Capture.start(folder, mesh.node(name).node)))
    await load('shop/frontend-deployment', 'http://my-service/api/marked-for-the-wire', 50)
    for (const one of captures) await one.stop()
    expect(captures.map((one) => one.count('marked-for-the-wire'))).toEqual([0, 0])
    expect(captures.reduce((sum, one) => sum + one.tlsRecords(), 0)).toBeGreaterThan(0)
  })

  it('pass the chart’s own test', async () => {
    const { code, out, err } = await run([mesh.cluster.sandbox.status().helm, 'test', 'ambit', '-n', 'ambit-system'], {
      environment,
      timeoutMs: 120_000,
    })
    expect({ code, said: code === 0 ? '' : out + err }).toEqual({ code: 0, said: '' })
  })
})

describe('the commands against it', () => {
  interface StatusReport {
    readonly agents: readonly {
      readonly status: { readonly node: string; readonly pods: readonly { readonly protected?: boolean }[] }
    }[]
  }

  it('check every part, in text and as data', async () => {
    expect(await shell('ambit check')).toContain('shop/waypoint')
    const { findings } = JSON.parse(await shell('ambit check --no-probe -o json')) as {
      findings: { severity: string; about: string }[]
    }
    expect(findings.length).toBeGreaterThan(5)
    expect(findings.filter(({ severity }) => severity === 'error')).toEqual([])
  }, 120_000)

  it('tell of nodes and pods, also as a plugin of kubectl', async () => {
    const { agents } = JSON.parse(await shell('kubectl ambit status -o json')) as StatusReport
    expect(agents.map(({ status }) => status.node).sort()).toEqual(['node-1', 'node-2'])
    const captured = agents.flatMap(({ status }) => status.pods).filter((pod) => pod.protected !== undefined)
    expect(captured.length).toBeGreaterThan(5)
    expect(captured.every((pod) => pod.protected)).toBe(true)
  })

  it('find nothing that a node or waypoint does not have as control has it, and print it without keys', async () => {
    for (const program of ['node-1', 'node-2', 'shop/waypoint']) await shell(`ambit config diff ${program}`)
    const dump = await shell('ambit config dump node-1 -o yaml')
    expect(dump).toContain('my-service')
    expect(dump).not.toContain('PRIVATE KEY')
  })

  it('explain a request by the resource that decides it, and find no error in what is applied', async () => {
    const out = await shell('ambit explain shop/frontend-deployment my-service.shop GET /admin; true')
    expect(out).toContain('service-mesh-policy')
    expect(out).toContain('403')
    await shell('ambit analyze -A')
  })
})

describe('helm uninstall', () => {
  it('leaves no pin, no plugin, no process and no webhook, and all pods go on talking', async () => {
    await shell('helm uninstall ambit -n ambit-system --timeout 180s')
    for (const node of ['node-1', 'node-2']) {
      expect(mesh.pinned(node), `pins of ${node}`).toEqual([])
      expect(readFileSync(mesh.pathOn(node, '/etc/cni/net.d/10-sandbox.conflist'), 'utf8')).not.toContain('ambit')
    }
    await eventually(
      'no process of Ambit is left',
      () => ['node-1', 'node-2'].every((node) => mesh.agents(node).length === 0),
      60_000,
    )
    expect(await mesh.kubectl('get validatingwebhookconfigurations -o name')).toBe('')
    expect(await mesh.kubectl('get configmaps -A --field-selector metadata.name=ambit-root-cert -o name')).toBe('')
    expect(await mesh.kubectl('-n ambit-system get all -o name')).toBe('')
    // The waypoint is gone with the mesh, and the policies with those that enforced them.
    const { codes, errors } = await load('outside/outsider', 'http://my-service.shop/api/items', 20)
    expect({ codes, errors }).toEqual({ codes: { 200: 20 }, errors: {} })
    expect((await load('shop/intruder', 'http://my-service/admin', 5)).codes).toEqual({ 200: 5 })
  }, 300_000)
})
