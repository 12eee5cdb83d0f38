// Kubernetes' own small kinds that the mesh reads: Namespace, Node, ServiceAccount, EndpointSlice, ConfigMap.
// Pod, Deployment and Service have files of their own. Must not live here: what follows from them (translate.ts).
import { z } from 'zod'
import { defineKind } from './resource.ts'
import { object, unread } from './schema.ts'

export const namespace = defineKind({
  kind: 'Namespace',
  group: '',
  versions: ['v1'],
  scope: 'Cluster',
  lenient: true,
  schema: z.looseObject({}),
})

export const node = defineKind({
  kind: 'Node',
  group: '',
  versions: ['v1'],
  scope: 'Cluster',
  lenient: true,
  schema: z.looseObject({
    status: z
      .looseObject({ addresses: z.array(z.looseObject({ type: z.string(), address: z.string() })).optional() })
      .optional(),
  }),
})

export const serviceAccount = defineKind({
  kind: 'ServiceAccount',
  group: '',
  versions: ['v1'],
  lenient: true,
  schema: z.looseObject({}),
})

const endpoint = object({
  addresses: z.array(z.string()),
  conditions: object({ ready: z.boolean(), serving: z.boolean(), terminating: z.boolean() }),
  hostname: z.string(),
  nodeName: z.string(),
  zone: z.string(),
  targetRef: z.looseObject({
    kind: z.string().optional(),
    name: z.string().optional(),
    namespace: z.string().optional(),
  }),
  ...unread<'deprecatedTopology' | 'hints'>('deprecatedTopology hints'),
})

const endpointSliceSchema = z.strictObject({
  addressType: z.enum(['IPv4', 'IPv6', 'FQDN']),
  endpoints: z.array(endpoint).optional(),
  ports: z.array(object({ name: z.string(), port: z.int(), protocol: z.string(), appProtocol: z.string() })).optional(),
})
export type EndpointSliceBody = z.infer<typeof endpointSliceSchema>

export const endpointSlice = defineKind({
  kind: 'EndpointSlice',
  group: 'discovery.k8s.io',
  versions: ['v1'],
  lenient: true,
  schema: endpointSliceSchema,
})

const configMapSchema = z.strictObject({
  data: z.record(z.string(), z.string()).optional(),
  binaryData: z.record(z.string(), z.string()).optional(),
  immutable: z.boolean().optional(),
})
export type ConfigMapBody = z.infer<typeof configMapSchema>

export const configMap = defineKind({
  kind: 'ConfigMap',
  group: '',
  versions: ['v1'],
  lenient: true,
  schema: configMapSchema,
  // The mesh's own one is read by mesh-config.ts. Of others only this much is said.
  check(resource, report) {
    for (const [key, text] of Object.entries(resource.body.data ?? {})) {
      if (!/^receivers:/m.test(text) || !/^exporters:/m.test(text)) continue
      report({
        severity: 'info',
        code: 'CONFIG_NOT_YET',
        path: ['data', key],
        message:
          'This is the configuration of an OpenTelemetry Collector, which no mesh reads. Tracing is a feature Ambit does not have yet.',
        hint: /^\s+jaeger:/m.test(text)
          ? 'Give it to a collector; its jaeger exporter is gone, use otlp. Spans will be asked for by Telemetry (telemetry.istio.io/v1).'
          : 'Give it to a collector. Spans will be asked for by Telemetry (telemetry.istio.io/v1).',
      })
    }
  },
})
