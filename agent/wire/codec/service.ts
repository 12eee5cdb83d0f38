// Service ⇄ istio.workload.Service. Port names and protocols travel in the extension ambit.v1.ServiceExtension.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import type { AppProtocol, Service } from '../../mesh/service.ts'
import { AppProtocol as WireProtocol, ServiceExtensionSchema } from '../gen/ambit/v1/extension_pb.js'
import {
  LoadBalancing_HealthPolicy as HealthPolicy,
  LoadBalancing_Mode as Mode,
  LoadBalancing_Scope as Scope,
  type Service as WireService,
  type ServiceSchema,
} from '../gen/istio/workload/workload_pb.js'
import { ipFromBytes, ipToBytes } from './ip.ts'
import { checkPort, checkUint, EnumTable, invalid } from './parts.ts'
import { decodeGateway, encodeGateway, packAny } from './workload.ts'

const EXTENSION = 'ambit.v1.ServiceExtension'

const protocols = new EnumTable<AppProtocol>('port protocol', {
  unknown: WireProtocol.UNKNOWN,
  http: WireProtocol.HTTP,
  http2: WireProtocol.HTTP2,
  grpc: WireProtocol.GRPC,
  tcp: WireProtocol.TCP,
  tls: WireProtocol.TLS,
})
const scopes = new EnumTable<Service['routingPreference'][number]>('routing preference', {
  REGION: Scope.REGION,
  ZONE: Scope.ZONE,
  SUBZONE: Scope.SUBZONE,
  NODE: Scope.NODE,
  CLUSTER: Scope.CLUSTER,
  NETWORK: Scope.NETWORK,
})
const modes = new EnumTable<Service['loadBalancing']>('load balancing mode', {
  UNSPECIFIED: Mode.UNSPECIFIED_MODE,
  STRICT: Mode.STRICT,
  FAILOVER: Mode.FAILOVER,
  PASSTHROUGH: Mode.PASSTHROUGH,
})
const healthPolicies = new EnumTable<'true' | 'false'>('health policy', {
  true: HealthPolicy.ALLOW_ALL,
  false: HealthPolicy.ONLY_HEALTHY,
})

export function encodeService(service: Service): MessageInitShape<typeof ServiceSchema> {
  const balanced =
    service.routingPreference.length > 0 || service.loadBalancing !== 'UNSPECIFIED' || service.allowUnhealthy
  const extended =
    service.sessionAffinitySeconds > 0 || service.ports.some((port) => port.name !== '' || port.protocol !== 'unknown')
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: service.addresses.map((address) => ({ network: '', address: ipToBytes(address) })),
    ports: service.ports.map((port) => ({
      servicePort: checkPort(port.port),
      targetPort: checkPort(port.targetPort),
    })),
    subjectAltNames: [...service.subjectAltNames],
    ...(service.waypoint ? { waypoint: encodeGateway(service.waypoint) } : {}),
    ...(balanced
      ? {
          loadBalancing: {
            routingPreference: service.routingPreference.map((scope) => scopes.wire(scope)),
            mode: modes.wire(service.loadBalancing),
            healthPolicy: healthPolicies.wire(service.allowUnhealthy ? 'true' : 'false'),
          },
        }
      : {}),
    extensions: extended ? [encodeExtension(service)] : [],
  }
}

export function decodeService(wire: WireService): Service {
  if (!wire.hostname) throw invalid('a service without hostname')
  const config = wire.extensions.find((extension) => extension.name === EXTENSION)?.config
  const extension = config && fromBinary(ServiceExtensionSchema, config.value)
  const extra = extension?.ports ?? []
  return {
    name: wire.name,
    namespace: wire.namespace,
    hostname: wire.hostname,
    addresses: wire.addresses.map((address) => ipFromBytes(address.address)),
    ports: wire.ports.map((port, index) => ({
      port: checkPort(port.servicePort),
      targetPort: checkPort(port.targetPort),
      name: extra[index]?.name ?? '',
      protocol: protocols.text(extra[index]?.protocol ?? WireProtocol.UNKNOWN),
    })),
    subjectAltNames: wire.subjectAltNames,
    ...(wire.waypoint ? { waypoint: decodeGateway(wire.waypoint) } : {}),
    routingPreference: (wire.loadBalancing?.routingPreference ?? []).map((scope) => scopes.text(scope)),
    loadBalancing: modes.text(wire.loadBalancing?.mode ?? Mode.UNSPECIFIED_MODE),
    allowUnhealthy: healthPolicies.text(wire.loadBalancing?.healthPolicy ?? HealthPolicy.ONLY_HEALTHY) === 'true',
    sessionAffinitySeconds: extension?.sessionAffinitySeconds ?? 0,
  }
}

function encodeExtension(service: Service) {
  const extension = create(ServiceExtensionSchema, {
    ports: service.ports.map((port) => ({ name: port.name, protocol: protocols.wire(port.protocol) })),
    sessionAffinitySeconds: checkUint(service.sessionAffinitySeconds, 'sessionAffinitySeconds'),
  })
  return { name: EXTENSION, config: packAny(EXTENSION, toBinary(ServiceExtensionSchema, extension)) }
}
