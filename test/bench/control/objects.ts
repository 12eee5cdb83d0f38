// A large cluster as objects of a real API server: nodes, Services and pods that no process runs for, with the status a kubelet
// would give them; the server's own controllers make the EndpointSlices. Must not live here: what is measured (suite.ts).
import { apply } from '../../../agent/kube/apply.ts'
import type { KubeClient } from '../../../agent/kube/client.ts'
import {
  CONFIG_KINDS,
  ENDPOINT_SLICES,
  LEASES,
  NAMESPACES,
  NODES,
  PODS,
  SERVICE_ACCOUNTS,
  SERVICES,
} from '../../../agent/kube/mesh-kinds.ts'
import { list } from '../../../agent/kube/list.ts'
import { pathOf, type KubeObject, type Resource } from '../../../agent/kube/resource.ts'
import { make } from '../../world/kube-agents.ts'
import { eventually } from '../../world/sandbox.ts'

export const PODS_A_SERVICE = 10
const NAMESPACE_COUNT = 20
/** Requests at once: the server is on the same two cores. */
const WIDTH = 24
const POLICIES = CONFIG_KINDS.find(({ kind }) => kind === 'AuthorizationPolicy') as Resource

export interface Place {
  readonly namespace: string
  readonly name: string
}

export function namespaceOf(service: number): string {
  return `bench-${service % NAMESPACE_COUNT}`
}
export function serviceOf(service: number): Place {
  return { namespace: namespaceOf(service), name: `svc-${service}` }
}
export function podOf(pod: number): Place {
  const service = Math.floor(pod / PODS_A_SERVICE)
  return { namespace: namespaceOf(service), name: `svc-${service}-${pod % PODS_A_SERVICE}` }
}
/** As the mesh calls it on the wire. */
export function uidOf({ namespace, name }: Place): string {
  return `Kubernetes//Pod/${namespace}/${name}`
}

export class Objects {
  readonly #client: KubeClient
  readonly #nodes: readonly string[]
  #heartbeat: NodeJS.Timeout | undefined
  #services = 0

  constructor(client: KubeClient, nodes: number) {
    this.#client = client
    this.#nodes = Array.from({ length: nodes }, (_, at) => `bench-node-${at}`)
  }

  get nodes(): readonly string[] {
    return this.#nodes
  }

  /** Namespaces in the mesh, a policy in each, and nodes that seem to live: else their pods would be evicted. */
  async open(): Promise<void> {
    await inParallel(this.#nodes, async (name) => {
      await make(this.#client, NODES, { metadata: { name } })
      await this.#patch(
        NODES,
        { name },
        { status: { conditions: [{ type: 'Ready', status: 'True', reason: 'Bench' }] } },
        'status',
      )
    })
    await this.#beat()
    this.#heartbeat = setInterval(() => void this.#beat().catch(() => undefined), 15_000)
    const namespaces = Array.from({ length: NAMESPACE_COUNT }, (_, at) => namespaceOf(at))
    await inParallel(namespaces, async (name) => {
      await make(this.#client, NAMESPACES, { metadata: { name, labels: { 'istio.io/dataplane-mode': 'ambient' } } })
      await make(this.#client, SERVICE_ACCOUNTS, { metadata: { namespace: name, name: 'default' } })
      await this.policy(name, 'open')
    })
  }

  close(): void {
    clearInterval(this.#heartbeat)
  }

  /** Brings the cluster to so many Services, with ten pods each, and waits for their EndpointSlices. */
  async grow(services: number): Promise<void> {
    const from = this.#services
    this.#services = services
    const pods = Array.from({ length: (services - from) * PODS_A_SERVICE }, (_, at) => from * PODS_A_SERVICE + at)
    await inParallel(pods, async (at) => {
      const place = podOf(at)
      await make(this.#client, PODS, {
        metadata: { ...place, labels: { app: serviceOf(Math.floor(at / PODS_A_SERVICE)).name, version: 'v1' } },
        spec: {
          nodeName: this.#nodes[at % this.#nodes.length],
          automountServiceAccountToken: false,
          containers: [{ name: 'app', image: 'none', ports: [{ name: 'http', containerPort: 8080 }] }],
        },
      } as KubeObject)
      await this.ready(at, true)
    })
    const added = Array.from({ length: services - from }, (_, at) => from + at)
    await inParallel(added, (at) => this.service(at, 80))
    const wanted = new Set(added.map((at) => `${namespaceOf(at)}/svc-${at}`))
    await eventually(
      'every Service has its EndpointSlice',
      async () => {
        const left = new Set(wanted)
        await list(this.#client, {
          resource: ENDPOINT_SLICES,
          pageSize: 500,
          onPage: (items) => {
            for (const { metadata, endpoints } of items as readonly (KubeObject & { endpoints?: unknown[] | null })[])
              if (endpoints?.length === PODS_A_SERVICE)
                left.delete(`${metadata.namespace}/${metadata.labels?.['kubernetes.io/service-name']}`)
          },
        })
        return left.size === 0
      },
      600_000,
    )
  }

  /** The status that the kubelet would write. */
  async ready(pod: number, ready: boolean): Promise<void> {
    const ip = `10.${128 + (pod >> 16)}.${(pod >> 8) & 255}.${pod & 255}`
    await this.#patch(
      PODS,
      podOf(pod),
      {
        status: {
          phase: 'Running',
          podIP: ip,
          podIPs: [{ ip }],
          conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
        },
      },
      'status',
    )
  }

  async service(at: number, port: number): Promise<void> {
    const place = serviceOf(at)
    await apply(this.#client, SERVICES, {
      metadata: place,
      spec: { selector: { app: place.name }, ports: [{ name: 'http', port, targetPort: 8080 }] },
    } as KubeObject)
  }

  /** A policy by selector; each path makes another one of it. */
  async policy(namespace: string, principal: string): Promise<void> {
    await apply(this.#client, POLICIES, {
      metadata: { namespace, name: 'bench' },
      spec: {
        selector: { matchLabels: { version: 'v1' } },
        rules: [{ from: [{ source: { principals: [`cluster.local/ns/*/sa/${principal}`, '*'] } }] }],
      },
    } as KubeObject)
  }

  async #beat(): Promise<void> {
    const renewTime = new Date().toISOString().replace('Z', '000Z')
    await inParallel(this.#nodes, (name) =>
      apply(this.#client, LEASES, {
        metadata: { namespace: 'kube-node-lease', name },
        spec: { holderIdentity: name, leaseDurationSeconds: 40, renewTime },
      } as KubeObject),
    )
  }

  async #patch(
    resource: Resource,
    place: { namespace?: string; name: string },
    body: unknown,
    sub?: string,
  ): Promise<void> {
    await this.#client.ask({
      method: 'PATCH',
      path: pathOf(resource, place.namespace, place.name, sub),
      contentType: 'application/merge-patch+json',
      body,
    })
  }
}

/** Many requests, some at a time. */
async function inParallel<T>(items: readonly T[], one: (item: T) => Promise<unknown>): Promise<void> {
  let next = 0
  await Promise.all(
    Array.from({ length: WIDTH }, async () => {
      while (next < items.length) await one(items[next++] as T)
    }),
  )
}
