// Makes deploy/chart/crds: a CustomResourceDefinition for every kind that people write for the mesh, from the schemas Ambit reads
// them by. Fields have their types and nothing stricter: what is wrong beyond that is told by the webhook and in the status, with
// the fix, and a field that only a newer Istio knows is kept. Must not live here: the schemas (agent/config).
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { z } from 'zod'
import { kinds } from '../../agent/config/kinds.ts'
import type { KindDefinition } from '../../agent/config/resource.ts'
import { CONFIG_KINDS } from '../../agent/kube/mesh-kinds.ts'
import type { Resource } from '../../agent/kube/resource.ts'

interface Json {
  readonly type?: string
  readonly properties?: Readonly<Record<string, Json>>
  readonly items?: Json
  readonly additionalProperties?: Json | boolean
  readonly anyOf?: readonly Json[]
}

/** A structural schema (apiextensions.k8s.io/v1): every node has a type or says why not. */
type Node = Readonly<Record<string, unknown>>

const ANY: Node = { 'x-kubernetes-preserve-unknown-fields': true }

function nodeOf(json: Json): Node {
  const { type, properties, items, additionalProperties, anyOf } = json
  if (anyOf) {
    const types = new Set(anyOf.map((one) => one.type))
    const intOrString = [...types].every((one) => one === 'integer' || one === 'string' || one === 'number')
    if (intOrString && types.size > 1) return { 'x-kubernetes-int-or-string': true }
    return intOrString && types.has('string') ? { type: 'string' } : ANY
  }
  switch (type) {
    case 'object': {
      if (properties && Object.keys(properties).length > 0) {
        const fields = Object.entries(properties).map(([name, field]) => [name, nodeOf(field)])
        return { type, properties: Object.fromEntries(fields), ...ANY }
      }
      return typeof additionalProperties === 'object' && Object.keys(additionalProperties).length > 0
        ? { type, additionalProperties: nodeOf(additionalProperties) }
        : { type, ...ANY }
    }
    case 'array':
      return { type, items: nodeOf(items ?? {}) }
    case 'integer':
      // 32 bits are too few for some of Istio's.
      return { type, format: 'int64' }
    case 'string':
    case 'boolean':
    case 'number':
      return { type }
    default:
      return ANY
  }
}

/** As the projects themselves have them, so that what people type goes on working. */
const SHORT: Readonly<Record<string, readonly string[]>> = {
  'networking.istio.io/VirtualService': ['vs'],
  'networking.istio.io/DestinationRule': ['dr'],
  'networking.istio.io/Gateway': ['gw'],
  'networking.istio.io/ServiceEntry': ['se'],
  'networking.istio.io/WorkloadEntry': ['we'],
  'security.istio.io/AuthorizationPolicy': ['ap'],
  'security.istio.io/PeerAuthentication': ['pa'],
  'security.istio.io/RequestAuthentication': ['ra'],
  'telemetry.istio.io/Telemetry': ['telemetry'],
  'gateway.networking.k8s.io/GatewayClass': ['gc'],
  'gateway.networking.k8s.io/Gateway': ['gtw'],
  'gateway.networking.k8s.io/ReferenceGrant': ['refgrant'],
  'linkerd.io/ServiceProfile': ['sp'],
}

const condition = (type: string): string => `.status.conditions[?(@.type=="${type}")].status`
const AGE = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' }
const column = (name: string, jsonPath: string, description: string): Node => ({
  name,
  type: 'string',
  jsonPath,
  description,
})
const ACCEPTED = column('Accepted', condition('Accepted'), 'Whether the mesh takes it as it is.')
const RECONCILED = column('Reconciled', condition('Reconciled'), 'Whether the mesh does what it says.')
const COLUMNS: Readonly<Record<string, readonly Node[]>> = {
  'networking.istio.io/VirtualService': [
    column('Gateways', '.spec.gateways', 'Gateways it holds for; none: the mesh.'),
    column('Hosts', '.spec.hosts', 'Hosts it routes.'),
    RECONCILED,
  ],
  'networking.istio.io/DestinationRule': [column('Host', '.spec.host', 'Host it is for.'), RECONCILED],
  'networking.istio.io/ServiceEntry': [column('Hosts', '.spec.hosts', 'Hosts it adds.'), RECONCILED],
  'networking.istio.io/WorkloadEntry': [column('Address', '.spec.address', 'Address of the workload.'), RECONCILED],
  'security.istio.io/AuthorizationPolicy': [column('Action', '.spec.action', 'What it does.'), RECONCILED],
  'security.istio.io/PeerAuthentication': [column('Mode', '.spec.mtls.mode', 'mTLS mode.'), RECONCILED],
  'gateway.networking.k8s.io/GatewayClass': [
    column('Controller', '.spec.controllerName', 'Who acts on Gateways of this class.'),
    ACCEPTED,
  ],
  'gateway.networking.k8s.io/Gateway': [
    column('Class', '.spec.gatewayClassName', 'Its GatewayClass.'),
    column('Address', '.status.addresses[*].value', 'Where it is reached.'),
    column('Programmed', condition('Programmed'), 'Whether it runs.'),
  ],
  'gateway.networking.k8s.io/HTTPRoute': [column('Hostnames', '.spec.hostnames', 'Host names it routes.')],
}

function crdOf({ group, plural, kind, namespaced, version }: Resource, definition: KindDefinition): unknown {
  const json = z.toJSONSchema(definition.schema, { unrepresentable: 'any', io: 'input', reused: 'inline' }) as Json
  const fields = Object.entries(json.properties ?? {}).map(([name, field]) => [
    name,
    name === 'status' ? { type: 'object', ...ANY } : nodeOf(field),
  ])
  const key = `${group}/${kind}`
  const columns = COLUMNS[key] ?? (group === 'gateway.networking.k8s.io' || group === 'linkerd.io' ? [] : [RECONCILED])
  const properties = {
    apiVersion: { type: 'string' },
    kind: { type: 'string' },
    metadata: { type: 'object' },
    status: { type: 'object', ...ANY },
    ...(Object.fromEntries(fields) as Record<string, unknown>),
  }
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${plural}.${group}`,
      labels: { 'app.kubernetes.io/part-of': 'ambit' },
      // What the API server asks of CRDs below k8s.io (KEP 2337); these are made from the project's published kinds.
      ...(group.endsWith('.k8s.io')
        ? {
            annotations: {
              'api-approved.kubernetes.io': 'https://github.com/kubernetes-sigs/gateway-api/pull/3328',
            },
          }
        : {}),
    },
    spec: {
      group,
      scope: namespaced ? 'Namespaced' : 'Cluster',
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        ...(SHORT[key] ? { shortNames: SHORT[key] } : {}),
        categories: [
          group.endsWith('istio.io') ? 'istio-io' : group === 'linkerd.io' ? 'linkerd-io' : 'gateway-api',
          'ambit',
        ],
      },
      versions: definition.versions.map((name) => ({
        name,
        served: true,
        storage: name === version,
        additionalPrinterColumns: [...columns, AGE],
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: 'object', properties } },
      })),
    },
  }
}

/** The definitions, each with its file's name. */
export function crds(): { readonly file: string; readonly crd: unknown }[] {
  return CONFIG_KINDS.map((resource) => {
    const definition = kinds.find((one) => one.group === resource.group && one.kind === resource.kind)
    if (!definition) throw new Error(`agent/config knows no ${resource.group}/${resource.kind}`)
    if (!definition.versions.includes(resource.version))
      throw new Error(`agent/config reads no ${resource.group}/${resource.version} ${resource.kind}`)
    return { file: `${resource.plural}.${resource.group}.yaml`, crd: crdOf(resource, definition) }
  })
}

/** Writes them below `out`, and nothing else stays there. */
export function generate(out: string): void {
  rmSync(out, { recursive: true, force: true })
  mkdirSync(out, { recursive: true })
  for (const { file, crd } of crds())
    writeFileSync(
      join(out, file),
      `# Generated by \`npm run gen\` from the schemas Ambit reads these resources by.\n${stringify(crd, { lineWidth: 0, aliasDuplicateObjects: false })}`,
    )
}
