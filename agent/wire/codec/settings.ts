// MeshSettings ⇄ ambit.v1.MeshSettings: one resource named `default`.
import { create, fromBinary, toBinary } from '@bufbuild/protobuf'
import type { MeshSettings } from '../../mesh/settings.ts'
import {
  L7Selector,
  MeshSettingsSchema,
  OutboundTrafficPolicy,
  PathNormalization,
} from '../gen/ambit/v1/settings_pb.js'
import type { Codec } from './codec.ts'
import { EnumTable, invalid } from './parts.ts'

const outbound = new EnumTable<MeshSettings['outboundTrafficPolicy']>('outbound traffic policy', {
  ALLOW_ANY: OutboundTrafficPolicy.ALLOW_ANY,
  REGISTRY_ONLY: OutboundTrafficPolicy.REGISTRY_ONLY,
})
const normalizations = new EnumTable<MeshSettings['pathNormalization']>('path normalization', {
  NONE: PathNormalization.NONE,
  BASE: PathNormalization.BASE,
  MERGE_SLASHES: PathNormalization.MERGE_SLASHES,
  DECODE_AND_MERGE_SLASHES: PathNormalization.DECODE_AND_MERGE_SLASHES,
})
const selectors = new EnumTable<MeshSettings['l7Selector']>('l7 selector', {
  ambit: L7Selector.AMBIT,
  istio: L7Selector.ISTIO,
})

export const settingsCodec: Codec<MeshSettings> = {
  kind: 'MeshSettings',
  nameOf: () => 'default',
  encode: (settings) =>
    toBinary(
      MeshSettingsSchema,
      create(MeshSettingsSchema, {
        trustDomain: settings.trustDomain,
        trustDomainAliases: [...settings.trustDomainAliases],
        rootNamespace: settings.rootNamespace,
        clusterDomain: settings.clusterDomain,
        outboundTrafficPolicy: outbound.wire(settings.outboundTrafficPolicy),
        pathNormalization: normalizations.wire(settings.pathNormalization),
        l7Selector: selectors.wire(settings.l7Selector),
        enrolledNamespaces: [...settings.enrolledNamespaces],
        sameNodeTunnel: settings.sameNode === 'tunnel',
        trustBundle: settings.trustBundle,
      }),
    ),
  decode(bytes) {
    const wire = fromBinary(MeshSettingsSchema, bytes)
    if (!wire.trustDomain) throw invalid('mesh settings without trust domain')
    return {
      trustDomain: wire.trustDomain,
      trustDomainAliases: wire.trustDomainAliases,
      rootNamespace: wire.rootNamespace,
      clusterDomain: wire.clusterDomain,
      outboundTrafficPolicy: outbound.text(wire.outboundTrafficPolicy),
      pathNormalization: normalizations.text(wire.pathNormalization),
      l7Selector: selectors.text(wire.l7Selector),
      sameNode: wire.sameNodeTunnel ? 'tunnel' : 'direct',
      enrolledNamespaces: wire.enrolledNamespaces,
      trustBundle: wire.trustBundle,
    }
  },
}
