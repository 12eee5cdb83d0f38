// Everything that changes in the life of a cluster, under a steady load: not one request is lost that the app would not have lost
// without a mesh, which is measured beside it in a namespace of its own.
import { beforeAll, describe, expect, it } from 'vitest'
import type { LoadSummary } from '../../../agent/sandbox/app/load.ts'
import { appAndClient, failuresOf, total, underLoad, waypointGateway, type Client } from '../../world/kube-load.ts'
import { type KubeMesh, SYSTEM_NAMESPACE } from '../../world/kube-mesh.ts'
import { tell } from '../../world/kube.ts'
import { eventually } from '../../world/sandbox.ts'

const APART = ['plain', 'meshed'] as const
const IMAGE = 'ambit.local/ambit'

/** The cluster was installed with that. */
export const DRAIN_SECONDS = 10
let mesh: KubeMesh
let clients: readonly Client[]

async function prepare(): Promise<void> {
  await mesh.kubectl('apply -f -', appAndClient('plain', {}, 2))
  const labels = { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'waypoint' }
  await mesh.kubectl('apply -f -', appAndClient('meshed', labels, 2))
  await mesh.kubectl('apply -f -', waypointGateway('meshed', 'waypoint'))
  await eventually('the waypoint', () => mesh.kubectl('-n meshed get deployment waypoint'))
  // With one replica a drained node would take the only one.
  await mesh.kubectl('-n meshed scale deployment/waypoint --replicas=2')
  await onBoth('rollout status deployment/app --timeout=90s')
  await mesh.kubectl('-n meshed rollout status deployment/waypoint --timeout=90s')
  for (const namespace of APART) await mesh.kubectl(`-n ${namespace} wait --for=condition=Ready pod/load --timeout=60s`)
  // By address: names would add what becomes of cluster DNS, in both.
  clients = (
    await Promise.all(
      APART.map(async (namespace) => {
        const address = await mesh.kubectl(`-n ${namespace} get service app -o jsonpath={.spec.clusterIP}`)
        return [true, false].map((close) => ({ namespace, pod: 'load', url: `http://${address}/`, close }))
      }),
    )
  ).flat()
}

/** The same in both namespaces, at the same time. */
const onBoth = (args: string) => Promise.all(APART.map((namespace) => mesh.kubectl(`-n ${namespace} ${args}`)))
const imageOf = (args: string) => mesh.kubectl(`get ${args} -o jsonpath={.spec.template.spec.containers[0].image}`)
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** What both lost meanwhile. */
async function lossesOf(what: string, during: () => Promise<unknown>): Promise<{ plain: number; meshed: number }> {
  const sums = await underLoad(mesh.cluster, clients, during)
  const of = (namespace: string): LoadSummary[] => sums.filter((_, at) => clients[at]!.namespace === namespace)
  const [plain, meshed] = APART.map((namespace) => failuresOf(of(namespace)))
  const requests = APART.map((namespace) => of(namespace).reduce((sum, one) => sum + one.requests, 0))
  tell(`${what}: ${JSON.stringify({ requests, plain, meshed })}`)
  // The load was there all the time.
  for (const count of requests) expect(count).toBeGreaterThan(100)
  return { plain: total(plain!), meshed: total(meshed!) }
}

async function losesNothing(what: string, during: () => Promise<unknown>): Promise<void> {
  const { plain, meshed } = await lossesOf(what, during)
  expect(meshed).toBeLessThanOrEqual(plain)
}

export function rollouts(cluster: () => KubeMesh): void {
  describe('under a steady load through a waypoint, nothing is lost', () => {
    beforeAll(() => {
      mesh = cluster()
      return prepare()
    })

    it('by a restart of the app', async () => {
      await losesNothing('restart of the app', async () => {
        await onBoth('rollout restart deployment/app')
        await onBoth('rollout status deployment/app --timeout=90s')
        // The last old one is on its way out still.
        await pause(5_000)
      })
    })

    it('by the app growing from 2 to 20, and back', async () => {
      await losesNothing('2 to 20 and back', async () => {
        await onBoth('scale deployment/app --replicas=20')
        await onBoth('rollout status deployment/app --timeout=150s')
        await onBoth('scale deployment/app --replicas=2')
        await pause(6_000)
      })
    }, 240_000)

    it('by an upgrade with helm to another version of control, agents and waypoints', async () => {
      // What the registry would have: the image under another tag.
      for (const node of ['node-1', 'node-2'])
        await mesh.onNode(node, `ctr -n k8s.io images tag ${IMAGE}:0.1.0 ${IMAGE}:next`)
      await losesNothing('upgrade', async () => {
        await mesh.upgrade(['image.tag=next', 'control.logLevel=debug'])
        await mesh.rolledOut('deployment/ambit-control', 'daemonset/ambit-agent')
        // The waypoint's image is control's: the new one has it changed.
        await eventually(
          'another waypoint',
          async () => (await imageOf('-n meshed deployment/waypoint')) === `${IMAGE}:next`,
        )
        await mesh.kubectl('-n meshed rollout status deployment/waypoint --timeout=90s')
        // The last old agent drains.
        await pause((DRAIN_SECONDS + 3) * 1_000)
      })
      for (const what of ['deployment/ambit-control', 'daemonset/ambit-agent'])
        expect(await imageOf(`-n ${SYSTEM_NAMESPACE} ${what}`)).toBe(`${IMAGE}:next`)
    }, 240_000)

    it('by the drain of a node', async () => {
      await losesNothing('drain of node-2', async () => {
        await mesh.kubectl('drain node-2 --ignore-daemonsets --delete-emptydir-data --force --timeout=110s')
        await pause(3_000)
        await mesh.kubectl('uncordon node-2')
      })
    }, 180_000)
  })
}
