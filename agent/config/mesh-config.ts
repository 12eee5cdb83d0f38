// Mesh-wide settings: Istio's MeshConfig, from the ConfigMap `istio` (key `mesh`) or from a file mesh.yaml in a folder.
// Must not live here: what the settings change. Fields after istio.io/api mesh/v1alpha1/config.proto.
import { z } from 'zod'
import { defaultSettings, type MeshSettings } from '../mesh/settings.ts'
import { checkBody, isRecord } from './check.ts'
import { readDocuments } from './document.ts'
import type { ConfigMapBody } from './core-kinds.ts'
import type { Problem, ResourceRef } from './problem.ts'
import { SAME_NODE } from './labels.ts'
import { defineKind, formatPath, type Origin, type Resource } from './resource.ts'
import { object, unread } from './schema.ts'

/** The name a folder gives to the file that holds a MeshConfig. */
export const MESH_FILE = 'mesh.yaml'
/** Of the ConfigMap that holds it: where Istio keeps it. */
const CONFIG_MAP_KEY = 'mesh'

/** The ConfigMaps that may hold it; the first that is there counts. */
export function meshConfigMaps(
  systemNamespace: string,
): readonly { readonly namespace: string; readonly name: string }[] {
  return [
    { namespace: systemNamespace, name: 'istio' },
    { namespace: systemNamespace, name: 'ambit' },
    { namespace: 'istio-system', name: 'istio' },
  ]
}

const NOT_YET =
  'extensionProviders defaultProviders defaultHttpRetryPolicy defaultInboundHttpRetryPolicy defaultTrafficPolicy serviceEntryVisibility hboneIdleTimeout meshMTLS tlsDefaults accessLogFile accessLogFormat accessLogEncoding defaultServiceExportTo defaultVirtualServiceExportTo defaultDestinationRuleExportTo caCertificates discoverySelectors serviceSettings serviceScopeConfigs connectTimeout tcpKeepalive'
const NO_EFFECT =
  'protocolDetectionTimeout ingressClass ingressService ingressSelector ingressControllerMode enableTracing enableEnvoyAccessLogService disableEnvoyListenerLog defaultConfig inboundTrafficPolicy configSources enableAutoMtls dnsRefreshRate inboundClusterStatName outboundClusterStatName enablePrometheusMerge verifyCertificateAtClient ca certificates proxyListenPort proxyInboundListenPort proxyHttpPort localityLbSetting h2UpgradePolicy meshNetworks networks'

const domainName = z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/, 'Must be a domain name.')

const schema = object({
  trustDomain: domainName,
  trustDomainAliases: z.array(domainName),
  rootNamespace: z.string().min(1),
  outboundTrafficPolicy: object({ mode: z.enum(['ALLOW_ANY', 'REGISTRY_ONLY']) }),
  pathNormalization: object({
    normalization: z.enum(['DEFAULT', 'NONE', 'BASE', 'MERGE_SLASHES', 'DECODE_AND_MERGE_SLASHES']),
  }),
  // Ambit's own.
  clusterDomain: domainName,
  l7Selector: z.enum(['ambit', 'istio']),
  sameNode: z.enum(SAME_NODE),
  ...unread(`${NOT_YET} ${NO_EFFECT}`),
})
export type MeshConfigBody = z.infer<typeof schema>

/** MeshConfig is no Kubernetes kind; it is treated as one so that it is checked and kept like the others. */
export const meshConfig = defineKind<MeshConfigBody>({
  kind: 'MeshConfig',
  group: 'mesh.istio.io',
  versions: ['v1alpha1'],
  scope: 'Cluster',
  lenient: true,
  schema,
  notes: [
    ...NOT_YET.split(' ').map((path) => ({ path, code: 'CONFIG_NOT_YET' as const, feature: `MeshConfig.${path}` })),
    ...NO_EFFECT.split(' ').map((path) => ({
      path,
      code: 'CONFIG_NO_EFFECT' as const,
      feature: 'it configures sidecars or Envoy',
    })),
  ],
})

/** The settings; namespaces that are enrolled come from their labels. */
export function toSettings(body: MeshConfigBody | undefined, enrolledNamespaces: readonly string[]): MeshSettings {
  const normalization = body?.pathNormalization?.normalization
  return {
    trustDomain: body?.trustDomain ?? defaultSettings.trustDomain,
    trustDomainAliases: body?.trustDomainAliases ?? defaultSettings.trustDomainAliases,
    rootNamespace: body?.rootNamespace ?? defaultSettings.rootNamespace,
    clusterDomain: body?.clusterDomain ?? defaultSettings.clusterDomain,
    outboundTrafficPolicy: body?.outboundTrafficPolicy?.mode ?? defaultSettings.outboundTrafficPolicy,
    pathNormalization:
      normalization === undefined || normalization === 'DEFAULT' ? defaultSettings.pathNormalization : normalization,
    l7Selector: body?.l7Selector ?? defaultSettings.l7Selector,
    sameNode: body?.sameNode ?? defaultSettings.sameNode,
    enrolledNamespaces,
    // Control's own to say.
    trustBundle: '',
  }
}

/** True for a ConfigMap that holds a MeshConfig. */
export function isMeshConfigMap({ metadata, body }: Resource<ConfigMapBody>, systemNamespace: string): boolean {
  return (
    body.data?.[CONFIG_MAP_KEY] !== undefined &&
    meshConfigMaps(systemNamespace).some(
      ({ namespace, name }) => namespace === metadata.namespace && name === metadata.name,
    )
  )
}

/** The one that counts: a file mesh.yaml, else the first of the ConfigMaps. */
export function chosenMeshConfig(
  all: readonly Resource<MeshConfigBody>[],
  systemNamespace: string,
): Resource<MeshConfigBody> | undefined {
  const places = [{ namespace: '', name: 'default' }, ...meshConfigMaps(systemNamespace)]
  for (const { namespace, name } of places) {
    const found = all.find(({ metadata }) => metadata.namespace === namespace && metadata.name === name)
    if (found) return found
  }
  return undefined
}

/** Reads the MeshConfig inside its ConfigMap; lines are those of the surrounding file, as far as they are known. */
export function readMeshConfigMap(resource: Resource<ConfigMapBody>): {
  body: MeshConfigBody | undefined
  problems: Problem[]
} {
  const text = resource.body.data?.[CONFIG_MAP_KEY] ?? ''
  const start = resource.origin.line(['data', CONFIG_MAP_KEY])
  const [document] = readDocuments(text, resource.origin.file)
  if (!document) return { body: {}, problems: [] }
  // A block scalar's first line is the one below its key.
  const shift = (line: number) => (resource.origin.file ? start + line : 0)
  if (document.problems.length > 0)
    return {
      body: undefined,
      problems: document.problems.map((problem) => ({ ...problem, line: shift(problem.line) })),
    }
  const origin: Origin = { file: resource.origin.file, line: (path) => shift(document.origin.line(path)) }
  const { namespace, name } = resource.metadata
  return checkMeshConfig(document.value, origin, { kind: resource.kind, namespace, name })
}

/** Checks a MeshConfig document. */
export function checkMeshConfig(
  value: unknown,
  origin: Origin,
  resource: ResourceRef = { kind: 'MeshConfig', namespace: '', name: 'default' },
): { body: MeshConfigBody | undefined; problems: Problem[] } {
  const problems: Problem[] = []
  if (!isRecord(value)) {
    problems.push({
      severity: 'error',
      code: 'CONFIG_WRONG_TYPE',
      file: origin.file,
      line: origin.line([]),
      field: '',
      message: 'A MeshConfig must be a map.',
      hint: 'Write its fields directly, as in trustDomain: cluster.local.',
      resource,
    })
    return { body: undefined, problems }
  }
  const body = checkBody(meshConfig, value, (finding) =>
    problems.push({
      severity: finding.severity,
      code: finding.code,
      file: origin.file,
      line: origin.line(finding.path),
      field: formatPath(finding.path),
      message: finding.message,
      hint: finding.hint ?? '',
      resource,
    }),
  )
  return { body, problems }
}
