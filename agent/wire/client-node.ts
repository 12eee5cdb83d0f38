// ClientNode ⇄ envoy.config.core.v3.Node: the id has Istio's form, the rest is metadata under Istio's names.
import type { JsonObject, MessageInitShape } from '@bufbuild/protobuf'
import type { ClientNode } from './contract.ts'
import type { Node, NodeSchema } from './gen/envoy/config/core/v3/base_pb.js'

/** Istio's word for a node proxy is `ztunnel`; an istiod answers it with workload types. */
const idTypes = { agent: 'ztunnel', waypoint: 'waypoint' } as const

export function encodeClientNode(node: ClientNode, clusterId: string): MessageInitShape<typeof NodeSchema> {
  return {
    id: `${idTypes[node.type]}~${node.address}~${node.name}.${node.namespace}~${node.namespace}.svc.cluster.local`,
    metadata: {
      NAME: node.name,
      NAMESPACE: node.namespace,
      NODE_NAME: node.node,
      CLUSTER_ID: clusterId,
      INSTANCE_IPS: node.address,
      ...(node.gateway === undefined ? {} : { GATEWAY_NAME: node.gateway }),
    },
    userAgentName: 'ambit',
  }
}

/** What a client says it is; nothing here is proved (the token is). */
export function clientNodeOf(wire: Node | undefined): ClientNode {
  const metadata: JsonObject = wire?.metadata ?? {}
  const text = (key: string): string => {
    const value = metadata[key]
    return typeof value === 'string' ? value : ''
  }
  const [type, address = ''] = (wire?.id ?? '').split('~')
  const gateway = text('GATEWAY_NAME')
  return {
    type: type === idTypes.waypoint ? 'waypoint' : 'agent',
    address,
    name: text('NAME'),
    namespace: text('NAMESPACE'),
    node: text('NODE_NAME'),
    ...(gateway === '' ? {} : { gateway }),
  }
}
