// Folders of YAML that several tests bring up. Must not live here: expectations.
import {
  app,
  authorization,
  documents,
  ENROLLED,
  idle,
  namespace,
  peerAuthentication,
  service,
  waypoint,
} from './yaml.ts'

/** Ports of the server in every mesh here: HTTP, gRPC, and TCP in its several manners. */
export const SERVER_PORTS = {
  http: 8080,
  grpc: 9090,
  'tcp-sink': 9001,
  'tcp-source': 9002,
  'tcp-smtp': 9003,
  'tcp-echo': 9004,
} as const

const SERVER_SERVICE = Object.fromEntries(
  Object.entries(SERVER_PORTS).map(([name, port]) => [name, [name === 'http' ? 80 : port, port]]),
) as Record<string, [number, number]>

/**
 * `direct`: a STRICT namespace without a waypoint, client on node 1, `far` on node 2, `near` on node 1. `way`: the same
 * behind a waypoint. `outside`: not in the mesh.
 */
export const TWO_WAYS = {
  'mesh.yaml': documents(
    namespace('direct', ENROLLED),
    peerAuthentication('direct', 'STRICT'),
    idle({ namespace: 'direct', name: 'client', node: 'node-1' }),
    idle({ namespace: 'direct', name: 'second', node: 'node-1' }),
    app({ namespace: 'direct', name: 'far', node: 'node-2', ports: SERVER_PORTS }),
    service('direct', 'far', SERVER_SERVICE),
    app({ namespace: 'direct', name: 'near', node: 'node-1', ports: SERVER_PORTS }),
    service('direct', 'near', SERVER_SERVICE),
    namespace('way', { ...ENROLLED, 'istio.io/use-waypoint': 'waypoint' }),
    peerAuthentication('way', 'STRICT'),
    waypoint('way'),
    app({ namespace: 'way', name: 'behind', node: 'node-2', ports: SERVER_PORTS }),
    service('way', 'behind', SERVER_SERVICE),
    namespace('outside'),
    idle({ namespace: 'outside', name: 'outsider', node: 'node-1' }),
    app({ namespace: 'outside', name: 'foreign', node: 'node-2', ports: SERVER_PORTS }),
    service('outside', 'foreign', SERVER_SERVICE),
  ),
} as const

/** A policy that lets one service account in. */
export function allowOnly(namespaceName: string, target: string, account: string): string {
  return authorization(namespaceName, `only-${account}`, {
    selector: { matchLabels: { app: target } },
    rules: [{ from: [{ source: { principals: [`cluster.local/ns/${namespaceName}/sa/${account}`] } }] }],
  })
}
