// Pods come into the mesh and go out of it by labels while they run, on a real cluster with Ambit installed as people install it:
// those that were there before it too. Must not live here: what happens when its parts end (../load), the very
// first bytes of a pod (first-byte.ts).
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Capture } from '../../../agent/sandbox/capture.ts'
import type { KubeMesh } from '../../world/kube-mesh.ts'
import { eventually } from '../../world/sandbox.ts'

const IDLE = { name: 'c', image: 'ambit.local/busybox:1', command: ['sleep', '100000'] }
const WEB = {
  name: 'c',
  image: 'ambit.local/busybox:1',
  command: ['sh', '-c', 'mkdir /tmp/www; echo hello >/tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www'],
  readinessProbe: { httpGet: { path: '/', port: 8080 }, periodSeconds: 1, failureThreshold: 2 },
}

interface Given {
  readonly namespace?: string
  readonly metadata?: object
  readonly spec?: object
  readonly container?: object
}

function podOn(node: string, name: string, { namespace = 'shop', metadata, spec, container = IDLE }: Given = {}) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, ...metadata },
    spec: {
      nodeSelector: { 'kubernetes.io/hostname': node },
      terminationGracePeriodSeconds: 1,
      containers: [container],
      ...spec,
    },
  }
}

const APPS = [
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
  podOn('node-2', 'web', { container: WEB }),
  podOn('node-1', 'client'),
  podOn('node-1', 'neighbour', { container: WEB }),
  podOn('node-1', 'with-sidecar', { metadata: { annotations: { 'sidecar.istio.io/status': '{}' } } }),
  podOn('node-1', 'on-host', { spec: { hostNetwork: true } }),
  { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'outside' } },
  podOn('node-1', 'stranger', { namespace: 'outside' }),
]
const MODE = 'istio.io/dataplane-mode'

let mesh: KubeMesh
const folder = mkdtempSync(join(tmpdir(), 'ambit-enroll-kube-'))

/** Before the mesh is installed: pods that are there before it. */
export async function startPods(of: KubeMesh): Promise<void> {
  await of.apply(...APPS)
  await of.kubectl('-n shop wait --for=condition=Ready pod --all --timeout=60s')
}

interface Pod {
  readonly metadata: { readonly name: string; readonly uid: string }
  readonly status: {
    readonly podIP: string
    readonly containerStatuses: readonly { readonly restartCount: number; readonly ready: boolean }[]
  }
}

const pod = (name: string): Promise<Pod> => mesh.get<Pod>(`pod -n shop ${name}`)

let marks = 0
/** Fetches a page of `web` from `client`, on other nodes, and tells what the wire between them had: the request's path, and TLS. */
async function onTheWire(): Promise<{ clear: boolean; tls: boolean }> {
  const mark = `/mark-${++marks}-of-the-test`
  const { podIP } = (await pod('web')).status
  const capture = await Capture.start(folder, mesh.node('node-1').node, `-${marks}`)
  try {
    // What is not there is refused by the server itself, and so says that it was asked.
    const said = await mesh.exec('shop/client', `wget -q -O- http://${podIP}:8080${mark} 2>&1 || true`)
    expect(said).toContain('404')
  } finally {
    await capture.stop()
  }
  return { clear: capture.count(mark) > 0, tls: capture.tlsRecords() > 0 }
}

const label = (what: string): Promise<string> => mesh.kubectl(`label --overwrite ${what}`)
const captured = (...names: readonly [node: string, name: string][]) =>
  Promise.all(names.map(([node, name]) => mesh.phase(node, `shop/${name}`, 'captured')))

export function labels(of: () => KubeMesh): void {
  describe('enrolment on a real cluster', () => {
    beforeAll(() => {
      mesh = of()
    })
    afterAll(() => rmSync(folder, { recursive: true }))

    it('changes nothing while nobody has a label', async () => {
      expect(await onTheWire()).toEqual({ clear: true, tls: false })
      expect(mesh.pinned('node-1')).toEqual([])
    })

    it('captures pods that ran before the mesh came, by the label of their namespace and without a restart', async () => {
      const before = await Promise.all(['web', 'client'].map(pod))
      await label(`namespace shop ${MODE}=ambient`)
      await captured(['node-1', 'client'], ['node-1', 'neighbour'], ['node-2', 'web'])
      expect(await onTheWire()).toEqual({ clear: false, tls: true })
      await eventually('it is proved', async () => (await mesh.podAt('node-2', 'shop', 'web'))?.protected, 15_000)
      const after = await Promise.all(['web', 'client'].map(pod))
      expect(after.map((one) => one.metadata.uid)).toEqual(before.map((one) => one.metadata.uid))
      expect(after.map((one) => one.status.containerStatuses[0]?.restartCount)).toEqual([0, 0])
    })

    it('leaves alone pods with a sidecar, on the host network, of other namespaces, and its own', async () => {
      const { pods } = await mesh.agent('node-1')
      const taken = pods.filter(({ phase }) => phase !== 'out').map(({ namespace, name }) => `${namespace}/${name}`)
      expect(taken).toEqual(['shop/client', 'shop/neighbour'])
    })

    it('lets the kubelet’s probes pass where plaintext is refused, and nobody else', async ({ onTestFinished }) => {
      onTestFinished(async () => void (await mesh.kubectl('-n shop delete peerauthentication strict')))
      const strict = { apiVersion: 'security.istio.io/v1', kind: 'PeerAuthentication' }
      await mesh.apply({
        ...strict,
        metadata: { name: 'strict', namespace: 'shop' },
        spec: { mtls: { mode: 'STRICT' } },
      })
      await eventually('plaintext is refused', async () => {
        const [web, neighbour] = await Promise.all([
          mesh.podAt('node-2', 'shop', 'web'),
          mesh.podAt('node-1', 'shop', 'neighbour'),
        ])
        return web?.plaintext === 'refuse' && neighbour?.plaintext === 'refuse'
      })
      const { podIP } = (await pod('neighbour')).status
      await expect(mesh.exec('outside/stranger', `wget -q -O- http://${podIP}:8080/`)).rejects.toThrow('refused')
      expect(await mesh.exec('shop/client', `wget -q -O- http://${podIP}:8080/`)).toBe('hello')
      expect((await mesh.agent('node-1')).kubelet).toMatchObject({ state: 'exempt' })
      // Three rounds of probes.
      await new Promise((resolve) => setTimeout(resolve, 3_000))
      for (const name of ['web', 'neighbour']) expect((await pod(name)).status.containerStatuses[0]?.ready).toBe(true)
    })

    it('lets them go with the label, and leaves nothing in them', async () => {
      await label(`namespace shop ${MODE}-`)
      await eventually('no pod is captured', () => mesh.pinned('node-1').length + mesh.pinned('node-2').length === 0)
      expect(await onTheWire()).toEqual({ clear: true, tls: false })
      // Who listens in the pod (state 0A, proc(5)): nobody but what it runs.
      const listens = await mesh.exec('shop/client', `cat /proc/net/tcp /proc/net/tcp6 | grep ' 0A ' || true`)
      expect(listens).toBe('')
      const { podIP } = (await pod('neighbour')).status
      expect(await mesh.exec('outside/stranger', `wget -q -O- http://${podIP}:8080/`)).toBe('hello')
    })

    it('follows a pod’s own label, both ways and under either prefix', async () => {
      for (const name of ['client', 'web']) await label(`pod -n shop ${name} ${MODE}=ambient`)
      await captured(['node-1', 'client'], ['node-2', 'web'])
      expect((await mesh.podAt('node-1', 'shop', 'neighbour'))?.phase).not.toBe('captured')
      expect(await onTheWire()).toEqual({ clear: false, tls: true })
      await label(`namespace shop ambit.io/dataplane-mode=ambient`)
      await captured(['node-1', 'neighbour'])
      await label(`pod -n shop client ambit.io/dataplane-mode=none`)
      await mesh.phase('node-1', 'shop/client', 'out')
      expect(await onTheWire()).toEqual({ clear: true, tls: false })
      for (const name of ['client', 'web']) await label(`pod -n shop ${name} ${MODE}- ambit.io/dataplane-mode-`)
      await captured(['node-1', 'client'], ['node-2', 'web'])
    })

    it('judges a new pod by its own label before it runs', async () => {
      await mesh.apply(
        podOn('node-1', 'opts-out', { metadata: { labels: { [MODE]: 'none' } } }),
        podOn('node-1', 'opts-in', { namespace: 'outside', metadata: { labels: { [MODE]: 'ambient' } } }),
      )
      await mesh.kubectl('-n shop wait --for=condition=Ready pod/opts-out --timeout=30s')
      await mesh.kubectl('-n outside wait --for=condition=Ready pod/opts-in --timeout=30s')
      // From the first look on: never the one and then the other.
      expect((await mesh.podAt('node-1', 'shop', 'opts-out'))?.phase).toBe('out')
      expect((await mesh.podAt('node-1', 'outside', 'opts-in'))?.phase).toBe('captured')
      const [agent] = (
        await mesh.kubectl(
          `-n ambit-system get pods -l app=ambit-agent -o name
      --field-selector spec.nodeName=node-1`.split(/\s+/),
        )
      ).split('\n')
      const log = await mesh.kubectl(`-n ambit-system logs ${agent} -c agent`)
      const { uid } = (await pod('opts-out')).metadata
      expect(log.split('\n').filter((line) => line.includes(uid))).toEqual([])
    })

    it('lets new pods wait while the agent is away, but those of the cluster itself start', async () => {
      const daemonSet = 'daemonset/ambit-agent'
      const gone = JSON.stringify({ spec: { template: { spec: { nodeSelector: { 'ambit.io/nowhere': 'true' } } } } })
      await mesh.kubectl(['-n', 'ambit-system', 'patch', daemonSet, '-p', gone])
      await eventually('no agent runs', () => mesh.agents('node-1').length + mesh.agents('node-2').length === 0, 60_000)
      // What is captured stays so, and talks to its neighbours on the node without any agent.
      expect(mesh.pinned('node-1').length).toBeGreaterThan(0)
      const { podIP } = (await pod('neighbour')).status
      expect(await mesh.exec('shop/client', `wget -q -O- http://${podIP}:8080/`)).toBe('hello')

      await mesh.apply(
        podOn('node-1', 'waits'),
        podOn('node-1', 'plain-waits', { namespace: 'outside' }),
        podOn('node-1', 'starts', { namespace: 'kube-system' }),
      )
      await mesh.kubectl('-n kube-system wait --for=condition=Ready pod/starts --timeout=30s')
      const [said] = await eventually(
        'it is said why',
        async () => {
          const found = await mesh.refusals('shop', 'waits')
          return found.length > 0 ? found : undefined
        },
        30_000,
      ).then((found) => found!)
      expect(said).toContain('the Ambit agent did not answer at /run/ambit/agent.sock: no agent listens there')
      for (const [namespace, name] of [
        ['shop', 'waits'],
        ['outside', 'plain-waits'],
      ])
        expect(await mesh.kubectl(`-n ${namespace} get pod ${name} -o jsonpath={.status.phase}`)).toBe('Pending')
      // The node is fine all the while: its runtime's network is ready.
      expect(await mesh.kubectl('get nodes -o jsonpath={.items[*].status.conditions[-1].status}')).toBe('True True')

      const back = JSON.stringify([{ op: 'remove', path: '/spec/template/spec/nodeSelector/ambit.io~1nowhere' }])
      await mesh.kubectl(['-n', 'ambit-system', 'patch', daemonSet, '--type=json', '-p', back])
      await mesh.rolledOut(daemonSet)
      await mesh.kubectl('-n shop wait --for=condition=Ready pod/waits --timeout=60s')
      await mesh.kubectl('-n outside wait --for=condition=Ready pod/plain-waits --timeout=60s')
      await captured(['node-1', 'client'], ['node-1', 'neighbour'], ['node-1', 'waits'], ['node-2', 'web'])
      expect(await onTheWire()).toEqual({ clear: false, tls: true })
    })

    it('has the plugin chained as its configuration says, in a file that is otherwise as it was', () => {
      const file = mesh.pathOn('node-1', '/etc/cni/net.d/10-sandbox.conflist')
      const { plugins } = JSON.parse(readFileSync(file, 'utf8')) as { plugins: object[] }
      expect(plugins).toMatchObject([
        { type: 'ptp' },
        { type: 'ambit-cni', socket: '/run/ambit/agent.sock', exemptNamespaces: ['ambit-system', 'kube-system'] },
      ])
    })
  })
}
