// Where a destination leads: its cluster and the HTTP version spoken there, found once per state of the mesh and destination,
// so that a request finds everything in one object. Must not live here: choosing a destination (dialed.ts), endpoints.
import type { Service } from '../../mesh/service.ts'
import type { LocalReply } from '../reply.ts'
import type { Cluster } from '../upstream/cluster.ts'

export interface Hop {
  readonly cluster: Cluster
  /** HTTP version towards the app; 0: as the client speaks. */
  readonly version: 0 | 1 | 2
  /** The same for an upgrade: an app that is not known to speak HTTP/2 is asked as all of them understand it. */
  readonly upgradeVersion: 1 | 2
}

/** A destination that cannot be had, with what is answered in its place. */
export interface NoHop {
  readonly cluster: undefined
  readonly reply: LocalReply
  /** As the access log names it. */
  readonly name: string
}

export function noHop(reply: LocalReply, name = ''): NoHop {
  return { cluster: undefined, reply, name }
}

/** By the port's protocol (l7, protocol selection) and the upgrade policy of the DestinationRule. */
export function hopTo(cluster: Cluster, service: Service | undefined, port: number): Hop {
  const pool = cluster.policy.connectionPool
  const declared = service?.ports.find((candidate) => candidate.port === port)?.protocol
  const http2 = declared === 'grpc' || declared === 'http2'
  let version: 0 | 1 | 2 = 0
  if (pool?.useClientProtocol) version = 0
  else if (http2) version = 2
  else if (declared === 'http') version = pool?.h2Upgrade === 'UPGRADE' ? 2 : 1
  return { cluster, version, upgradeVersion: http2 ? 2 : 1 }
}
