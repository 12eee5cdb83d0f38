// Istio's Gateway (networking.istio.io): checked, and reported as not served yet. Not to be confused with Gateway API's
// (gateway.ts). Fields after istio.io/api networking/v1alpha3/gateway.proto.
import { z } from 'zod'
import { defineKind } from './resource.ts'
import { labels, object, port } from './schema.ts'

const PROTOCOLS = ['HTTP', 'HTTPS', 'GRPC', 'GRPC-WEB', 'HTTP2', 'MONGO', 'TCP', 'TLS'] as const

const server = z.strictObject({
  port: z.strictObject({
    number: port,
    protocol: z
      .string()
      .transform((text) => text.toUpperCase())
      .pipe(z.enum(PROTOCOLS)),
    name: z.string().min(1),
    targetPort: z.int().optional(),
  }),
  hosts: z.array(z.string().min(1)).min(1),
  bind: z.string().optional(),
  name: z.string().optional(),
  defaultEndpoint: z.string().optional(),
  tls: z.looseObject({ httpsRedirect: z.boolean().optional(), mode: z.string().optional() }).optional(),
})

export const istioGateway = defineKind({
  kind: 'Gateway',
  group: 'networking.istio.io',
  versions: ['v1', 'v1beta1', 'v1alpha3'],
  support: 'not-yet',
  feature: 'ingress gateways',
  schema: z.strictObject({
    spec: object({ selector: labels, servers: z.array(server) }),
    status: z.unknown().optional(),
  }),
  mistakes: {
    'spec.gatewayClassName': 'That is a field of gateway.networking.k8s.io/v1 Gateway; this is Istio’s own kind.',
  },
})
