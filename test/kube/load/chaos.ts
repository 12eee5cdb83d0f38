// What the mesh does while parts of the cluster die under it: traffic goes on, policy stays enforced, and all comes back by itself.
// Steady loads that may pass, and that may not, run in pods all the while; nothing they need goes through the API server. Must
// not live here: rollouts by people (rollouts.ts), control without nodes (../control-plane).
import { statSync } from 'node:fs'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { askApi } from '../../../agent/sandbox/kube/control-plane.ts'
import type { LoadSummary } from '../../../agent/sandbox/app/load.ts'
import { appAndClient, CONCURRENCY, underLoad, waypointGateway, type Client } from '../../world/kube-load.ts'
import { type KubeMesh, SYSTEM_NAMESPACE } from '../../world/kube-mesh.ts'
import { processesOfPod, tell } from '../../world/kube.ts'
import { eventually } from '../../world/sandbox.ts'

const NODES = ['node-1', 'node-2'] as const
/** Where the agent keeps its last good state. */
const STATE = '/var/lib/ambit/agent'
/** How much room there is for it on node-1: more than this mesh's state takes, and soon filled. */
const SMALL_DISK = '256k'

let mesh: KubeMesh
let clients: readonly Client[]
let url: string

/** Before the mesh is installed. */
export async function shrinkDisk(of: KubeMesh): Promise<void> {
  await of.onNode('node-1', `mkdir -p ${STATE} && mount -t tmpfs -o size=${SMALL_DISK},mode=0700 tmpfs ${STATE}`)
}

async function prepare(): Promise<void> {
  const labels = { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'waypoint' }
  await mesh.kubectl('apply -f -', appAndClient('shop', labels, 2))
  await mesh.kubectl('apply -f -', waypointGateway('shop', 'waypoint'))
  await mesh.kubectl('apply -f -', POLICIES)
  await eventually('the waypoint', () => mesh.kubectl('-n shop get deployment waypoint'))
  await mesh.kubectl('-n shop rollout status deployment/app --timeout=90s')
  await mesh.kubectl('-n shop rollout status deployment/waypoint --timeout=90s')
  await mesh.kubectl('-n shop wait --for=condition=Ready pod/load pod/locked --timeout=60s')
  const address = (service: string): Promise<string> =>
    mesh.kubectl(`-n shop get service ${service} -o jsonpath={.spec.clusterIP}`)
  url = `http://${await address('app')}`
  const client = { namespace: 'shop', pod: 'load' }
  clients = [
    { ...client, url: `${url}/`, close: false },
    { ...client, url: `${url}/`, close: true },
    // What the waypoint refuses, and what the agent of the other node does.
    { ...client, url: `${url}/denied`, close: true },
    { ...client, url: `http://${await address('locked')}/`, close: true },
  ]
  for (const node of NODES) await proved(node, 'app')
}

const POLICIES = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-denied, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]
  action: DENY
  rules: [{to: [{operation: {paths: ["/denied"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: locked, namespace: shop}
spec:
  selector: {matchLabels: {app: locked}}
  rules: [{from: [{source: {principals: ["cluster.local/ns/nobody/sa/nobody"]}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: locked, namespace: shop, labels: {app: locked, istio.io/use-waypoint: none}}
spec:
  nodeName: node-2
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "ambit.local/ambit:0.1.0", args: [app, echo]}]
---
apiVersion: v1
kind: Service
metadata: {name: locked, namespace: shop, labels: {istio.io/use-waypoint: none}}
spec: {selector: {app: locked}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/**
 * Nothing that may pass is lost meanwhile, and nothing passes that may not. `agents`: how many are killed with kill -9, which
 * resets what they carry at that moment, and nothing else.
 */
async function changesNothing(what: string, during: () => Promise<unknown>, agents = 0): Promise<void> {
  const sums = await underLoad(mesh.cluster, clients, async () => {
    await during()
    await pause(2_000)
  })
  const [kept, fresh, denied, locked] = sums as [LoadSummary, LoadSummary, LoadSummary, LoadSummary]
  tell(
    `${what}: ${sums.map((one) => one.requests).join(', ')} requests; ${JSON.stringify(sums.map((one) => [one.codes, one.errors]))}`,
  )
  for (const one of [kept, fresh, denied]) {
    const { ECONNRESET: reset = 0, ...others } = one.errors
    expect(others).toEqual({})
    expect(reset).toBeLessThanOrEqual(agents * CONCURRENCY)
  }
  expect(Object.keys(kept.codes)).toEqual(['200'])
  expect(Object.keys(fresh.codes)).toEqual(['200'])
  expect(Object.keys(denied.codes)).toEqual(['403'])
  expect(locked.codes).toEqual({})
  for (const { requests } of sums) expect(requests).toBeGreaterThan(50)
}

/** The node's agent has proved that the pod is protected. */
const proved = (node: string, pod: string): Promise<unknown> =>
  eventually(`${pod} is proved`, async () => (await mesh.podAt(node, 'shop', pod))?.protected === true, 30_000)

let edits = 0
/** An edit reaches the data plane: API server, control and agents all work. */
async function takesEdits(ms = 60_000): Promise<void> {
  const path = `/edit-${++edits}`
  const policy = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: edit, namespace: shop}
spec:
  targetRefs: [{kind: Gateway, group: gateway.networking.k8s.io, name: waypoint}]
  action: DENY
  rules: [{to: [{operation: {paths: ["${path}"]}}]}]`
  await eventually('the API server takes an edit', () => mesh.kubectl('apply -f -', policy).catch(() => false), ms)
  await eventually(
    'the waypoint does what it says',
    async () =>
      (await mesh.exec('shop/load', `ambit app load ${url}${path} -n 1 --close`).catch(() => '')).includes('"403":1'),
    ms,
  )
}

/** A program of the cluster itself, by its name in `ambit sandbox status`. */
function pidOf(name: string): number {
  const found = mesh.cluster.sandbox.status().programs.find((one) => one.name === name)
  if (found?.pid === undefined || found.pid === null) throw new Error(`no ${name} runs`)
  return found.pid
}

interface Pods {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly uid: string }
  }[]
}
const podsOf = async (app: string): Promise<Pods['items']> =>
  (await mesh.get<Pods>(`pods -n ${SYSTEM_NAMESPACE} -l app=${app}`)).items

/** Kills every process of pods at once; they are the kubelet's to start again. */
function kill(pods: Pods['items']): void {
  const pids = pods.flatMap(({ metadata }) => processesOfPod(metadata.uid))
  expect(pids.length).toBeGreaterThanOrEqual(pods.length)
  for (const pid of pids) process.kill(pid, 'SIGKILL')
}
const agentsOf = (): number[] => NODES.flatMap((node) => mesh.agents(node))
/** Waits until other agents run, and each says that its pods are protected. */
async function otherAgents(than: readonly number[]): Promise<void> {
  await eventually(
    'other agents',
    () => agentsOf().length === 2 && agentsOf().every((pid) => !than.includes(pid)),
    60_000,
  )
  for (const node of NODES) await proved(node, 'app')
}

export function chaos(cluster: () => KubeMesh): void {
  describe('under steady load', () => {
    beforeAll(() => {
      mesh = cluster()
      return prepare()
    })
    beforeEach(() => takesEdits())

    it('kill -9 of etcd and of the API server changes nothing, and control lists anew what it missed', async () => {
      const before = await listed()
      await changesNothing('etcd and API server killed', async () => {
        for (const name of ['etcd', 'kube-apiserver']) {
          process.kill(pidOf(name), 'SIGKILL')
          await eventually(
            'it is back',
            async () => (await askApi(mesh.cluster.sandbox.layout, '/readyz')).status === 200,
            60_000,
          )
        }
        await takesEdits()
      })
      // The new server knows nothing of the old one's past: 410 Gone, and a list of each kind.
      expect(await listed()).toBeGreaterThan(before)
    }, 180_000)

    it('kill -9 of the control that leads changes nothing, and one leads again', async () => {
      const lease = async (): Promise<{ holderIdentity: string; renewTime: string }> =>
        (
          await mesh.get<{ spec: Awaited<ReturnType<typeof lease>> }>(
            `lease -n ${SYSTEM_NAMESPACE} ambit-control-leader`,
          )
        ).spec
      await changesNothing('the leader killed', async () => {
        const { holderIdentity: leader } = await lease()
        const pods = await podsOf('ambit-control')
        kill(pods.filter(({ metadata }) => metadata.name === leader))
        const killed = Date.now()
        await takesEdits()
        await eventually(
          'one leads',
          async () => {
            const { holderIdentity, renewTime } = await lease()
            return pods.some(({ metadata }) => metadata.name === holderIdentity) && Date.parse(renewTime) > killed
          },
          60_000,
        )
      })
    }, 180_000)

    it('kill -9 of containerd on both nodes changes nothing, and pods start as before', async () => {
      await changesNothing('containerd killed', async () => {
        for (const node of NODES) process.kill(pidOf(`containerd-${node}`), 'SIGKILL')
        await takesEdits()
        await mesh.kubectl('-n shop scale deployment/app --replicas=3')
        await mesh.kubectl('-n shop rollout status deployment/app --timeout=90s')
        await mesh.kubectl('-n shop scale deployment/app --replicas=2')
      })
    }, 180_000)

    it('agents that are killed while neither the API server nor control answers come up from their last good state', async () => {
      await changesNothing(
        'API server frozen, control and agents killed',
        async () => {
          const apiServer = pidOf('kube-apiserver')
          const pods = await podsOf('ambit-control')
          process.kill(apiServer, 'SIGSTOP')
          try {
            kill(pods)
            const before = agentsOf()
            for (const pid of before) process.kill(pid, 'SIGKILL')
            await otherAgents(before)
            const { control } = await mesh.agent('node-1')
            expect(control).toMatchObject({ connected: false })
            await pause(5_000)
          } finally {
            process.kill(apiServer, 'SIGCONT')
          }
          await takesEdits(90_000)
        },
        2,
      )
    }, 240_000)

    it('an API server that answers control 429 changes nothing, and control that starts then is ready all the same', async () => {
      await changesNothing('429 and both controls killed', async () => {
        await mesh.kubectl('apply -f -', THROTTLE)
        try {
          kill(await podsOf('ambit-control'))
          await takesEdits(120_000)
          // It lists twenty kinds at once, and one request at a time gets through.
          expect(await rejected()).toBeGreaterThan(0)
        } finally {
          await mesh.kubectl('delete flowschema,prioritylevelconfiguration throttle-control')
        }
        await takesEdits()
      })
    }, 240_000)

    it('a full disk changes nothing: edits are taken, agents start, and the state is written when there is room', async () => {
      const state = mesh.pathOn('node-1', `${STATE}/last-good`)
      await changesNothing(
        'a full disk',
        async () => {
          await mesh.onNode(
            'node-1',
            `dd if=/dev/zero of=${STATE}/filler bs=1k 2>/dev/null; ! echo more >${STATE}/more`,
          )
          const written = statSync(state).mtimeMs
          await takesEdits()
          const before = mesh.agents('node-1')
          for (const pid of before) process.kill(pid, 'SIGKILL')
          await eventually('another agent', () => mesh.agents('node-1').some((pid) => !before.includes(pid)), 60_000)
          await proved('node-1', 'load')
          await takesEdits()
          expect(statSync(state).mtimeMs).toBe(written)
          await mesh.onNode('node-1', `rm -f ${STATE}/filler ${STATE}/more`)
          await eventually('the state is written', () => statSync(state).mtimeMs > written, 45_000)
        },
        1,
      )
    }, 180_000)
  })
}

/** The limit of control's priority level is none: the API server lets one request through when no other is under way. */
const THROTTLE = `
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: PriorityLevelConfiguration
metadata: {name: throttle-control}
spec: {type: Limited, limited: {nominalConcurrencyShares: 0, lendablePercent: 0, borrowingLimitPercent: 0, limitResponse: {type: Reject}}}
---
apiVersion: flowcontrol.apiserver.k8s.io/v1
kind: FlowSchema
metadata: {name: throttle-control}
spec:
  priorityLevelConfiguration: {name: throttle-control}
  matchingPrecedence: 2
  rules:
    - subjects: [{kind: ServiceAccount, serviceAccount: {name: ambit-control, namespace: ${SYSTEM_NAMESPACE}}}]
      resourceRules: [{verbs: ["*"], apiGroups: ["*"], resources: ["*"], clusterScope: true, namespaces: ["*"]}]
`
/** Kinds that both controls have listed since they were started. */
async function listed(): Promise<number> {
  const texts = await Promise.all(
    (await podsOf('ambit-control')).map(({ metadata }) =>
      mesh.kubectl(`get --raw /api/v1/namespaces/${SYSTEM_NAMESPACE}/pods/${metadata.name}:15020/proxy/metrics`),
    ),
  )
  return texts.reduce((sum, text) => sum + Number(/^ambit_control_api_lists_total (\d+)$/m.exec(text)?.[1]), 0)
}

/** Requests that the API server answered 429 for this level. */
async function rejected(): Promise<number> {
  const text = await mesh.kubectl('get --raw /metrics')
  const lines = text.split('\n').filter((line) => line.startsWith('apiserver_flowcontrol_rejected_requests_total'))
  return lines
    .filter((line) => line.includes('priority_level="throttle-control"'))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}
