// Workload ⇄ istio.workload.Workload. What Istio's message has no field for travels in the extension
// ambit.v1.WorkloadExtension, which others skip.
import { create, fromBinary, toBinary, type MessageInitShape } from '@bufbuild/protobuf'
import { AnySchema, type Any } from '@bufbuild/protobuf/wkt'
import type { GatewayRef, Workload } from '../../mesh/workload.ts'
import { WorkloadExtensionSchema, type WorkloadExtension } from '../gen/ambit/v1/extension_pb.js'
import {
  NetworkMode,
  TunnelProtocol,
  WorkloadSchema,
  WorkloadStatus,
  WorkloadType,
  type Extension,
  type GatewayAddress,
  type GatewayAddressSchema,
  type Workload as WireWorkload,
} from '../gen/istio/workload/workload_pb.js'
import { ipFromBytes, ipToBytes } from './ip.ts'
import { sharedRecord, sharedText } from './intern.ts'
import { checkPort, checkUint, EnumTable, invalid, sorted } from './parts.ts'

const EXTENSION = 'ambit.v1.WorkloadExtension'

const tunnelProtocols = new EnumTable<'NONE' | 'HBONE'>('tunnel protocol', {
  NONE: TunnelProtocol.NONE,
  HBONE: TunnelProtocol.HBONE,
})
const statuses = new EnumTable<'true' | 'false'>('workload status', {
  true: WorkloadStatus.HEALTHY,
  false: WorkloadStatus.UNHEALTHY,
})
const networkModes = new EnumTable<'true' | 'false'>('network mode', {
  true: NetworkMode.HOST_NETWORK,
  false: NetworkMode.STANDARD,
})

/** The words of Istio's telemetry, by enum number. */
const workloadTypes = ['deployment', 'cronjob', 'pod', 'job']

export function encodeWorkload(workload: Workload): MessageInitShape<typeof WorkloadSchema> {
  const type = workloadTypes.indexOf(workload.workloadType.toLowerCase())
  const exactType = workloadTypes[type] === workload.workloadType
  const extended = !exactType || Object.keys(workload.labels).length > 0 || workload.sameNode === 'tunnel'
  const { region, zone, subzone } = workload.locality
  return {
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    serviceAccount: workload.serviceAccount,
    trustDomain: workload.trustDomain,
    addresses: workload.addresses.map(ipToBytes),
    network: workload.network,
    node: workload.node,
    clusterId: workload.clusterId,
    tunnelProtocol: tunnelProtocols.wire(workload.tunnelProtocol),
    nativeTunnel: workload.nativeTunnel,
    networkMode: networkModes.wire(workload.hostNetwork ? 'true' : 'false'),
    ...(workload.waypoint ? { waypoint: encodeGateway(workload.waypoint) } : {}),
    services: Object.fromEntries(
      Object.entries(sorted(workload.services)).map(([key, ports]) => [
        key,
        {
          ports: Object.entries(ports).map(([service, target]) => ({
            servicePort: checkPort(Number(service)),
            targetPort: checkPort(target),
          })),
        },
      ]),
    ),
    authorizationPolicies: [...workload.authorizationPolicies],
    status: statuses.wire(workload.healthy ? 'true' : 'false'),
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    // Istio has no value for other owners: POD is the neutral one.
    workloadType: type < 0 ? WorkloadType.POD : type,
    workloadName: workload.workloadName,
    ...(region || zone || subzone ? { locality: { region, zone, subzone } } : {}),
    ...(workload.capacity === 1 ? {} : { capacity: checkUint(workload.capacity, 'capacity') }),
    extensions: extended ? [encodeExtension(workload, exactType)] : [],
  }
}

export function decodeWorkload(wire: WireWorkload): Workload {
  if (!wire.uid) throw invalid('a workload without uid')
  const extension = findExtension(wire.extensions)
  return {
    uid: wire.uid,
    name: wire.name,
    namespace: sharedText(wire.namespace),
    serviceAccount: sharedText(wire.serviceAccount || 'default'),
    trustDomain: sharedText(wire.trustDomain || 'cluster.local'),
    addresses: wire.addresses.map(ipFromBytes),
    network: sharedText(wire.network),
    node: sharedText(wire.node),
    clusterId: sharedText(wire.clusterId),
    tunnelProtocol: tunnelProtocols.text(wire.tunnelProtocol),
    nativeTunnel: wire.nativeTunnel,
    hostNetwork: networkModes.text(wire.networkMode) === 'true',
    ...(wire.waypoint ? { waypoint: decodeGateway(wire.waypoint) } : {}),
    // Ports as keys make each of these an array of as many elements as the highest port.
    services: sharedRecord(
      Object.fromEntries(
        Object.entries(wire.services).map(([key, list]) => [
          key,
          sharedRecord(
            Object.fromEntries(list.ports.map((port) => [checkPort(port.servicePort), checkPort(port.targetPort)])),
          ),
        ]),
      ),
    ),
    authorizationPolicies: wire.authorizationPolicies.map(sharedText),
    healthy: statuses.text(wire.status) === 'true',
    canonicalName: sharedText(wire.canonicalName),
    canonicalRevision: sharedText(wire.canonicalRevision),
    workloadType: extension?.workloadType ?? workloadTypes[wire.workloadType] ?? 'pod',
    workloadName: sharedText(wire.workloadName),
    locality: sharedRecord({
      region: wire.locality?.region ?? '',
      zone: wire.locality?.zone ?? '',
      subzone: wire.locality?.subzone ?? '',
    }),
    capacity: wire.capacity ?? 1,
    labels: sharedRecord(extension?.labels ?? {}),
    sameNode: extension?.sameNodeTunnel ? 'tunnel' : 'direct',
  }
}

/** A waypoint by hostname, else by address. */
export function encodeGateway(ref: GatewayRef): MessageInitShape<typeof GatewayAddressSchema> {
  const hboneMtlsPort = checkPort(ref.port)
  if (ref.hostname !== undefined) {
    const slash = ref.hostname.indexOf('/')
    if (slash < 0) throw invalid(`waypoint '${ref.hostname}' is not of the form namespace/hostname`)
    const value = { namespace: ref.hostname.slice(0, slash), hostname: ref.hostname.slice(slash + 1) }
    return { hboneMtlsPort, destination: { case: 'hostname', value } }
  }
  if (ref.address === undefined) throw invalid('a waypoint reference with neither hostname nor address')
  return { hboneMtlsPort, destination: { case: 'address', value: { network: '', address: ipToBytes(ref.address) } } }
}

export function decodeGateway(wire: GatewayAddress): GatewayRef {
  const port = checkPort(wire.hboneMtlsPort)
  switch (wire.destination.case) {
    case 'hostname':
      return { hostname: `${wire.destination.value.namespace}/${wire.destination.value.hostname}`, port }
    case 'address':
      return { address: ipFromBytes(wire.destination.value.address), port }
    case undefined:
      throw invalid('a waypoint reference with neither hostname nor address')
  }
}

function encodeExtension(workload: Workload, exactType: boolean) {
  const extension = create(WorkloadExtensionSchema, {
    labels: sorted(workload.labels),
    ...(exactType ? {} : { workloadType: workload.workloadType }),
    sameNodeTunnel: workload.sameNode === 'tunnel',
  })
  return { name: EXTENSION, config: packAny(EXTENSION, toBinary(WorkloadExtensionSchema, extension)) }
}

function findExtension(extensions: readonly Extension[]): WorkloadExtension | undefined {
  const config = extensions.find((extension) => extension.name === EXTENSION)?.config
  return config && fromBinary(WorkloadExtensionSchema, config.value)
}

/** An Any over bytes that are encoded already. */
export function packAny(typeName: string, value: Uint8Array): Any {
  return create(AnySchema, { typeUrl: `type.googleapis.com/${typeName}`, value: value as Uint8Array<ArrayBuffer> })
}
