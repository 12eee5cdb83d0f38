// What control has of a cluster: a client, everything the mesh reads as it is held, the election among replicas. The parts
// that read or write the cluster get it from here. Must not live here: any of those parts.
import type { Clock } from '../base/clock.ts'
import type { Logger } from '../base/log.ts'
import { KubeClient } from '../kube/client.ts'
import { connect } from '../kube/connection.ts'
import { KubeGather } from './gather/kube.ts'
import { Objects } from './gather/objects.ts'
import type { KubeAuthority } from './issue/kube-authority.ts'
import { Leader } from './lead.ts'

export interface KubeOptions {
  /** Absent: this pod's service account. */
  readonly kubeconfig?: string
  readonly context?: string
  /** Where control itself runs, its Secrets, Lease and MeshConfig are. */
  readonly systemNamespace: string
  /** Besides it, namespaces whose pods are never captured: those that the agents were told of. */
  readonly exemptNamespaces: readonly string[]
  /** Pod name of this replica. */
  readonly replica: string
  readonly clock: Clock
  readonly log: Logger
}

export interface Kube {
  readonly client: KubeClient
  readonly systemNamespace: string
  readonly objects: Objects
  readonly gather: KubeGather
  readonly leader: Leader
  /** Once it is open. */
  authority: KubeAuthority | undefined
  /** Gives the lease back and ends every connection; the gatherer is stopped by whoever started it. */
  stop(): Promise<void>
}

/** Throws KUBE_NO_CLUSTER, KUBE_CONFIG_INVALID; a server that is away is waited for by whatever asks it. */
export async function openKube(options: KubeOptions): Promise<Kube> {
  const { kubeconfig, context, systemNamespace, exemptNamespaces, replica, clock, log } = options
  const connection = await connect({
    clock,
    ...(kubeconfig === undefined ? {} : { kubeconfig }),
    ...(context === undefined ? {} : { context }),
  })
  const client = new KubeClient(connection, { clock, userAgent: 'ambit-control' })
  const objects = new Objects({ client, systemNamespace, clock, log: log.child({ room: 'objects' }) })
  const gather = new KubeGather({
    objects,
    systemNamespace,
    exemptNamespaces,
    clock,
    log: log.child({ room: 'gather' }),
  })
  const leader = new Leader({ client, namespace: systemNamespace, replica, clock, log: log.child({ room: 'lead' }) })
  const kube: Kube = {
    client,
    systemNamespace,
    objects,
    gather,
    leader,
    authority: undefined,
    async stop() {
      await kube.authority?.stop()
      await leader.stop()
      client.close()
    },
  }
  return kube
}
